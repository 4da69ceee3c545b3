//! What a child does for each task, and which program it is.
//!
//! `cli` calls [`main_if_child`] before anything else; [`super::file`] starts
//! children of [`program`]. Invariant: whatever comes of a task, its last message
//! says so, unless nobody listens. Not here: how a child is started, limited and
//! heard ([`super::child`]).

use std::{
    fs::File,
    io::{self, Write},
    process::ExitCode,
};

use super::{
    child::{Program, Stop, Task, finish, frames::Fault, run_as_child, task_of_this_process},
    packed, sheet,
};

/// Does a child's work if this process was started as one.
pub fn main_if_child() -> Option<ExitCode> {
    let done = match task_of_this_process()? {
        Some(task) => run_as_child(&task, run),
        None => return Some(ExitCode::from(2)),
    };
    Some(if done.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The program that reads foreign files.
#[cfg(not(test))]
pub fn program() -> Program {
    Program::Own
}

/// A thread: the program of unit tests is another one.
#[cfg(test)]
pub fn program() -> Program {
    Program::Thread(run)
}

/// Reads `input`, answers to `answer`, unpacks to `output`. An error means that
/// nobody listens any more.
fn run(task: &Task, input: File, answer: &mut dyn Write, output: Option<File>) -> io::Result<()> {
    let done = match task {
        Task::SheetFronts { rows } => sheet::reading::fronts(input, *rows, answer),
        Task::Sheet { index, header_line, columns } => {
            sheet::reading::sheet(input, (*index, *header_line), columns, answer)
        }
        Task::List { gzip } => packed::reading::list(input, *gzip, answer),
        Task::Unpack { gzip, index, bytes_max } => match output {
            Some(output) => {
                packed::reading::unpack(input, *gzip, *index, *bytes_max, output, answer)
            }
            None => Err(Stop::Fault(Fault::Internal)),
        },
    };
    finish(done, answer)
}
