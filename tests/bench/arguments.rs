//! The command line.

use std::{collections::BTreeSet, path::PathBuf};

use anyhow::{Context as _, bail, ensure};

use crate::{systems::System, works::Work};

/// What can be asked for.
pub const USAGE: &str = "\
tests/bench/run.sh [OPTIONS]             compare creditsync with its peers
tests/bench/run.sh rows-like FILE...     how well FILEs compress, and the made-up rows

  --rows N          rows of the register (1000000)
  --repeat N        rounds; every system takes its turn in each (3)
  --systems A,B     only these: creditsync, postgres
  --works A,B       only these: import, copy, full-again, updates, one-row,
                    restart, counties. Most need import and copy,
                    which are done and shown anyway.
  --output FILE     write the table there as well
  --lock FILE       hold a lock on FILE during each system's turn, so that two
                    measurements on one machine do not disturb each other

Temporary files, some 5 GB for 1000000 rows, go to $TMPDIR or /tmp, which has to be
a disk and not memory.";

/// What the program does.
#[derive(Debug, PartialEq, Eq)]
pub enum Mode {
    /// Show the usage.
    Help,
    /// The comparison.
    Compare,
    /// The check of the made-up rows.
    RowsLike(Vec<PathBuf>),
}

/// Everything from the command line.
pub struct Arguments {
    /// What to do.
    pub mode: Mode,
    /// How many rows.
    pub rows: u64,
    /// How many rounds.
    pub repeat: usize,
    /// Which systems, in order.
    pub systems: Vec<System>,
    /// Which works.
    pub works: BTreeSet<Work>,
    /// Where the table goes besides standard output.
    pub output: Option<PathBuf>,
    /// What is locked during a turn.
    pub lock: Option<PathBuf>,
}

/// Reads the words behind the program's name.
pub fn parse(words: impl Iterator<Item = String>) -> anyhow::Result<Arguments> {
    let mut arguments = Arguments {
        mode: Mode::Compare,
        rows: 1_000_000,
        repeat: 3,
        systems: System::ALL.to_vec(),
        works: Work::ALL.into_iter().collect(),
        output: None,
        lock: None,
    };
    let mut words = words.peekable();
    if words.next_if_eq("rows-like").is_some() {
        arguments.mode = Mode::RowsLike(words.map(PathBuf::from).collect());
        return Ok(arguments);
    }
    while let Some(option) = words.next() {
        if option == "--help" || option == "-h" {
            arguments.mode = Mode::Help;
            return Ok(arguments);
        }
        let value =
            words.next().with_context(|| format!("{option} needs a value, if it is an option"))?;
        match option.as_str() {
            "--rows" => arguments.rows = value.parse().context("--rows")?,
            "--repeat" => arguments.repeat = value.parse().context("--repeat")?,
            "--systems" => {
                arguments.systems = named(&value, &System::ALL, |system| system.name())?;
            }
            "--works" => {
                let works = named(&value, &Work::ALL, |work| work.name())?;
                arguments.works = works.into_iter().collect();
            }
            "--output" => arguments.output = Some(value.into()),
            "--lock" => arguments.lock = Some(value.into()),
            _ => bail!("{option} is unknown"),
        }
    }
    // Fewer would leave a county without a row to look for.
    ensure!(arguments.rows >= 1000 && arguments.repeat > 0, "at least 1000 rows, and one round");
    Ok(arguments)
}

/// The ones of `all` that a list names, in the order of `all`.
fn named<T: Copy>(list: &str, all: &[T], name: fn(&T) -> &'static str) -> anyhow::Result<Vec<T>> {
    let wanted: Vec<&str> = list.split(',').collect();
    for word in &wanted {
        ensure!(all.iter().any(|known| name(known) == *word), "'{word}' is unknown");
    }
    Ok(all.iter().copied().filter(|known| wanted.contains(&name(known))).collect())
}
