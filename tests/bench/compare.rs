//! The comparison: rounds in which every system takes its turn, and the report.

use std::{
    fmt::Write as _,
    fs::File,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use rustix::fs::{FlockOperation, flock};

use crate::{
    arguments::Arguments,
    files::{Files, RowFile},
    machine::{self, BLOCK_ROWS, Bounds},
    network::Network,
    rows::{self, COUNTIES},
    systems::{Setting, System},
    table::{Results, with_spread},
};

/// So many rows are few.
const FEW_ROWS: u64 = 10_000;

/// Systems that are measured with the same rows, and what came out.
struct Group {
    systems: Vec<System>,
    files: Files,
    results: Results,
}

/// Measures and prints.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let scratch = Scratch::new()?;
    let mut groups = groups(arguments, &scratch)?;
    let mut bounds = Vec::new();
    let mut counted_on = "";
    for round in 1..=arguments.repeat {
        for (at, group) in groups.iter_mut().enumerate() {
            if at == 0 {
                let base = group.files.get(RowFile::Base)?;
                let _turn = take_turn(arguments)?;
                bounds.push(Bounds::measure(&base, scratch.path())?);
            }
            for system in &group.systems {
                eprintln!("round {round}: {}", system.title());
                let _turn = take_turn(arguments)?;
                let dir = scratch.subdir(system.name())?;
                let network = Network::new(system.name())?;
                counted_on = network.describe();
                let setting = Setting {
                    files: &group.files,
                    dir: &dir,
                    network: &network,
                    works: &arguments.works,
                };
                system
                    .measure(&setting, &mut group.results.column(*system))
                    .with_context(|| format!("measure {}", system.name()))?;
                std::fs::remove_dir_all(&dir)?;
            }
        }
    }
    let report = report(arguments, &groups, scratch.path(), &bounds, counted_on)?;
    print!("{report}");
    if let Some(path) = &arguments.output {
        std::fs::write(path, report).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

/// The systems that take all rows; and those that take few, with creditsync once
/// more beside them.
fn groups(arguments: &Arguments, scratch: &Scratch) -> anyhow::Result<Vec<Group>> {
    let (few, all): (Vec<System>, Vec<System>) =
        arguments.systems.iter().partition(|system| system.takes_few_rows());
    let mut groups = Vec::new();
    if !all.is_empty() {
        let files = Files::new(&scratch.subdir("files")?, arguments.rows);
        groups.push(Group { systems: all, files, results: Results::default() });
    }
    if !few.is_empty() {
        let files = Files::new(&scratch.subdir("few")?, arguments.rows.min(FEW_ROWS));
        let mut systems = vec![System::Creditsync];
        systems.extend(few);
        groups.push(Group { systems, files, results: Results::default() });
    }
    Ok(groups)
}

/// Waits for the lock, if one is asked for; it ends with what is answered.
pub fn take_turn(arguments: &Arguments) -> anyhow::Result<Option<File>> {
    let Some(path) = &arguments.lock else { return Ok(None) };
    let file = File::options().create(true).append(true).open(path)?;
    flock(&file, FlockOperation::LockExclusive)?;
    Ok(Some(file))
}

fn report(
    arguments: &Arguments,
    groups: &[Group],
    dir: &Path,
    bounds: &[Bounds],
    counted_on: &str,
) -> anyhow::Result<String> {
    let mut text = String::new();
    for group in groups {
        let megabytes = group.files.get(RowFile::Base)?.metadata()?.len() as f64 / 1e6;
        writeln!(
            text,
            "{} rows, {megabytes:.0} MB of CSV; {} {}, all systems in turn in each: median (smallest–largest). \
             `n×`: the median divided by creditsync's; above 1 creditsync needs less.\n",
            group.files.rows(),
            arguments.repeat,
            if arguments.repeat == 1 { "round" } else { "rounds" },
        )?;
        text.push_str(&group.results.markdown());
        text.push('\n');
    }
    text.push_str("The machine, measured in the same rounds:\n\n");
    text.push_str(&machine_table(bounds));
    writeln!(text, "\nMachine: {}.", machine::describe(dir)?)?;
    writeln!(
        text,
        "Memory is what all processes of a side have resident at one time, looked at every 25 ms: the sum of their \
         anonymous memory, and once the largest shared memory and the largest share of files. Bytes on the wire \
         are counted on {counted_on}, with all headers and in both directions. Disk is what files occupy.\n"
    )?;
    for system in &arguments.systems {
        writeln!(
            text,
            "- **{}** ({}). {}",
            system.title(),
            system.version()?.trim(),
            system.notes()
        )?;
    }
    writeln!(text, "\nAgain: `{}`.", again())?;
    Ok(text)
}

/// The command that does the same.
pub fn again() -> String {
    std::iter::once("tests/bench/run.sh".to_owned())
        .chain(std::env::args().skip(1))
        .collect::<Vec<_>>()
        .join(" ")
}

fn machine_table(bounds: &[Bounds]) -> String {
    let row = |what: &str, decimals: usize, value: fn(&Bounds) -> f64| {
        let values: Vec<f64> = bounds.iter().map(value).collect();
        format!("| {what} | {} |\n", with_spread(&values, decimals))
    };
    [
        "| bound | |\n| --- | ---: |\n".to_owned(),
        row("append of 4 KiB with `fdatasync`: median, ms", 2, |bounds| bounds.append_ms),
        row("BLAKE3, one core, MB/s", 0, |bounds| bounds.blake3_mb_s),
        row("zstd -1 of the rows in blocks of 64, one core, MB/s", 0, |bounds| bounds.zstd_mb_s),
        row("zstd -1 of the rows in blocks of 64, ratio", 2, |bounds| bounds.zstd_ratio),
        row("bare CSV parse of the file, one core, s", 2, |bounds| bounds.parse_s),
    ]
    .concat()
}

/// Compares how files of real rows and the made-up ones compress.
pub fn rows_like(real: &[PathBuf]) -> anyhow::Result<()> {
    /// A county of a city has about so many enterprises.
    const COUNTY_ROWS: u64 = 1000;
    let scratch = Scratch::new()?;
    let mut made_up = Vec::new();
    for county in 0..COUNTIES {
        let path = scratch.path().join(format!("{county}.csv"));
        let mut numbers = (0..COUNTY_ROWS).map(|row| (row * COUNTIES + county, 0));
        rows::write(&path, &mut numbers)?;
        made_up.push(path);
    }
    println!(
        "| rows | zstd -1, blocks of {BLOCK_ROWS} by code | bytes a row |\n| --- | ---: | ---: |"
    );
    for (what, files) in [("given", real), ("made up", &made_up)] {
        if !files.is_empty() {
            let (ratio, bytes) = machine::likeness(files)?;
            println!("| {what} | {ratio:.2} | {bytes:.0} |");
        }
    }
    Ok(())
}

/// A directory that is removed at the end.
pub struct Scratch(PathBuf);

impl Scratch {
    /// Made below the directory for temporary files.
    pub fn new() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("creditsync-bench-{}", std::process::id()));
        // A database server runs as another user and reads files there.
        std::fs::DirBuilder::new()
            .mode(0o755)
            .create(&path)
            .with_context(|| format!("make {}", path.display()))?;
        Ok(Self(path))
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A directory below it.
    pub fn subdir(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.0.join(name);
        std::fs::create_dir_all(&path)?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("{} could not be removed: {error}", self.0.display());
        }
    }
}
