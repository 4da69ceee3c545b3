//! The benchmark: creditsync and what people would use instead, on the same rows,
//! one after the other, several times.
//!
//! `tests/bench/run.sh` prepares the machine, builds and runs it. It measures what
//! an administrator would: real processes, made durable, from the command to the
//! hub's commit. Nothing is asserted about time; the clock has no place in a test.

mod arguments;
mod compare;
mod files;
mod growth;
mod machine;
mod network;
mod rows;
mod systems;
mod table;
mod usage;
mod words;
mod works;

use arguments::Mode;

fn main() -> anyhow::Result<()> {
    let arguments = match arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(problem) => {
            eprintln!("{problem}\n\n{}", arguments::USAGE);
            std::process::exit(2);
        }
    };
    match arguments.mode {
        Mode::Help => println!("{}", arguments::USAGE),
        Mode::Compare => compare::run(&arguments)?,
        Mode::Growth => growth::run(&arguments)?,
        Mode::RowsLike(ref files) => compare::rows_like(files)?,
    }
    Ok(())
}
