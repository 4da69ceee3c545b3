//! The command line.

use std::{collections::BTreeSet, path::PathBuf};

use anyhow::{Context as _, bail, ensure};

use crate::{systems::System, works::Work};

/// What can be asked for.
pub const USAGE: &str = "\
tests/bench/run.sh [OPTIONS]             compare creditsync with its peers
tests/bench/run.sh growth [OPTIONS]      creditsync with more records, and more members
tests/bench/run.sh rows-like FILE...     how well FILEs compress, and the made-up rows

  --rows N          rows of the register (1000000)
  --repeat N        rounds; every system takes its turn in each (3)
  --systems A,B     only these: creditsync, postgres, rsync, syncthing, negentropy,
                    iroh-docs
  --works A,B       only these: import, copy, full-again, updates, one-row,
                    differences, restart, counties, messy, workbook. Most need import and copy,
                    which are done and shown anyway.
  --sizes N,N       growth: so many records of one county (10000,100000,1000000,5000000)
  --members N,N     growth: so many counties of 20000 records (1,4,13,50)
  --joined N,N      growth: so many nodes that have joined (100,2000)
  --partitions N,N  growth: so many partitions of one record (1000,10000)
  --days N,N        growth: a full file each day, up to so many days (30,120,365)
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
    /// The curves of creditsync alone.
    Growth,
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
    /// Records of one county, for growth.
    pub sizes: Vec<u64>,
    /// Counties, for growth.
    pub members: Vec<usize>,
    /// Members in the list, for growth.
    pub joined: Vec<usize>,
    /// Partitions, for growth.
    pub partitions: Vec<usize>,
    /// Days of deliveries, for growth; in ascending order.
    pub days: Vec<usize>,
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
        sizes: vec![10_000, 100_000, 1_000_000, 5_000_000],
        members: vec![1, 4, 13, 50],
        joined: vec![100, 2000],
        partitions: vec![1000, 10_000],
        days: vec![30, 120, 365],
        output: None,
        lock: None,
    };
    let mut words = words.peekable();
    if words.next_if_eq("rows-like").is_some() {
        arguments.mode = Mode::RowsLike(words.map(PathBuf::from).collect());
        return Ok(arguments);
    }
    if words.next_if_eq("growth").is_some() {
        arguments.mode = Mode::Growth;
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
            "--sizes" => arguments.sizes = numbers(&value).context("--sizes")?,
            "--members" => arguments.members = numbers(&value).context("--members")?,
            "--joined" => arguments.joined = numbers(&value).context("--joined")?,
            "--partitions" => arguments.partitions = numbers(&value).context("--partitions")?,
            "--days" => arguments.days = numbers(&value).context("--days")?,
            "--output" => arguments.output = Some(value.into()),
            "--lock" => arguments.lock = Some(value.into()),
            _ => bail!("{option} is unknown"),
        }
    }
    // Fewer would leave a county without a row to look for.
    ensure!(arguments.rows >= 1000 && arguments.repeat > 0, "at least 1000 rows, and one round");
    Ok(arguments)
}

/// An empty list is one of nothing.
fn numbers<T>(list: &str) -> anyhow::Result<Vec<T>>
where
    T: std::str::FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let words = list.split(',').filter(|word| !word.is_empty());
    Ok(words.map(str::parse).collect::<Result<_, _>>()?)
}

/// The ones of `all` that a list names, in the order of `all`.
fn named<T: Copy>(list: &str, all: &[T], name: fn(&T) -> &'static str) -> anyhow::Result<Vec<T>> {
    let wanted: Vec<&str> = list.split(',').collect();
    for word in &wanted {
        ensure!(all.iter().any(|known| name(known) == *word), "'{word}' is unknown");
    }
    Ok(all.iter().copied().filter(|known| wanted.contains(&name(known))).collect())
}
