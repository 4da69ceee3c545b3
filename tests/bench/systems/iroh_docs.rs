//! iroh-docs: documents of entries, synchronised by comparing ranges.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{ChildStdin, ChildStdout, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use rustix::process::Signal;

use super::{Setting, peers_program};
use crate::{
    files::RowFile,
    network::{PATIENCE, Process, wait_until},
    rows,
    table::{Column, quantile},
    usage::{MemoryWatch, disk_bytes},
    works::{DIFFERENCES, Line, Work},
};

/// How it was used.
pub const NOTES: &str = "Persistent stores on both sides (iroh 1, iroh-blobs 0.103), an entry a row with its code as key, 64 insertions \
     under way at a time; relays and look-ups are off. A row is there when the hub's document has its entry and its \
     store the content: visible, not necessarily durable, since it \
     commits up to half a second later (`MAX_COMMIT_DELAY`). Initial copy: the \
     hub joins by ticket. Differences: changed at the county while the hub's process is stopped; the time runs from \
     the hub's start. With fewer rows than the others, since it takes long for each. It cannot be given a whole \
     file, and was not tried with 13 counties.";

/// How often one row is changed.
const SINGLE_CHANGES: u32 = 200;

/// The crates.
pub fn version() -> anyhow::Result<String> {
    Ok("crate iroh-docs 0.101".into())
}

/// One round.
pub fn measure(setting: &Setting<'_>, column: &mut Column<'_>) -> anyhow::Result<()> {
    if !setting.wants_pair() {
        return Ok(());
    }
    let base = setting.files.get(RowFile::Base)?;
    let mut county = Node::start(setting, "county")?;
    county.ask("create")?;
    let memory = county.watch_memory();
    column.put_seconds(Line::ImportTime, county.ask_file("insert", &base)?);
    column.put_mebibytes(Line::ImportMemory, memory.peak_bytes()?);
    column.put_megabytes(Line::ImportDisk, disk_bytes(&county.dir)?);

    let ticket = county.ask("share")?;
    let mut hub = Node::start(setting, "hub")?;
    let memory = (county.watch_memory(), hub.watch_memory());
    let wire = setting.network.bytes()?;
    let started = Instant::now();
    hub.ask(&format!("join {ticket}"))?;
    hub.ask_file("expect", &base)?;
    column.put_seconds(Line::CopyTime, started.elapsed());
    column.put_megabytes(Line::CopyWire, setting.network.bytes()? - wire);
    column.put_mebibytes(Line::CopyCountyMemory, memory.0.peak_bytes()?);
    column.put_mebibytes(Line::CopyHubMemory, memory.1.peak_bytes()?);
    column.put_megabytes(Line::CopyHubDisk, disk_bytes(&hub.dir)?);

    if setting.wants(Work::Updates) {
        let updates = setting.files.get(RowFile::Updates)?;
        let memory = (county.watch_memory(), hub.watch_memory());
        let wire = setting.network.bytes()?;
        let started = Instant::now();
        county.ask_file("insert", &updates)?;
        hub.ask_file("expect", &updates)?;
        column.put_seconds(Line::UpdatesTime, started.elapsed());
        column.put_megabytes(Line::UpdatesWire, setting.network.bytes()? - wire);
        column.put_mebibytes(Line::UpdatesCountyMemory, memory.0.peak_bytes()?);
        column.put_mebibytes(Line::UpdatesHubMemory, memory.1.peak_bytes()?);
    }
    if setting.wants(Work::OneRow) {
        one_row(setting, column, &mut county, &mut hub)?;
    }
    if setting.wants(Work::Differences) {
        differences(setting, column, &mut county, hub, &ticket)?;
    }
    Ok(())
}

fn one_row(
    setting: &Setting<'_>,
    column: &mut Column<'_>,
    county: &mut Node,
    hub: &mut Node,
) -> anyhow::Result<()> {
    let mut times_ms = Vec::new();
    let wire = setting.network.bytes()?;
    for change in 0..SINGLE_CHANGES {
        let path = setting.dir.join("one.csv");
        let number = rows::scattered(u64::from(change), setting.files.rows());
        rows::write(&path, &mut std::iter::once((number, change + 2)))?;
        let started = Instant::now();
        county.ask_file("insert", &path)?;
        hub.ask_file("expect", &path)?;
        times_ms.push(started.elapsed().as_secs_f64() * 1000.0);
    }
    let bytes = setting.network.bytes()? - wire;
    column.put(Line::OneRowMedian, quantile(&times_ms, 0.5));
    column.put(Line::OneRowP99, quantile(&times_ms, 0.99));
    column.put_kilobytes(Line::OneRowWire, bytes / u64::from(SINGLE_CHANGES));
    Ok(())
}

fn differences(
    setting: &Setting<'_>,
    column: &mut Column<'_>,
    county: &mut Node,
    mut hub: Node,
    ticket: &str,
) -> anyhow::Result<()> {
    /// Behind the versions of the single changes.
    const VERSION: u32 = 10_000;
    let rows = setting.files.rows();
    for (version, (count, time_line, wire_line, _)) in (VERSION..).zip(DIFFERENCES) {
        if count > rows {
            continue;
        }
        hub.stop()?;
        let path = setting.dir.join("changed.csv");
        let mut changed = (0..count).map(|change| (rows::scattered(change, rows), version));
        rows::write(&path, &mut changed)?;
        county.ask_file("insert", &path)?;
        let wire = setting.network.bytes()?;
        let started = Instant::now();
        hub = Node::start(setting, "hub")?;
        hub.ask(&format!("join {ticket}"))?;
        hub.ask_file("expect", &path)?;
        column.put_seconds(time_line, started.elapsed());
        column.put_kilobytes(wire_line, setting.network.bytes()? - wire);
    }
    Ok(())
}

/// A node's process.
struct Node {
    dir: PathBuf,
    process: Process,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Node {
    fn start(setting: &Setting<'_>, name: &str) -> anyhow::Result<Self> {
        let dir = setting.subdir(name)?;
        let mut command = setting.network.command(&peers_program()?.display().to_string());
        command.arg("iroh-docs").arg(&dir).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Process::start(&mut command, Signal::TERM)?;
        let input = process.child().stdin.take().context("it was piped")?;
        let output = BufReader::new(process.child().stdout.take().context("it was piped")?);
        let mut node = Self { dir, process, input, output };
        ensure!(node.answer()? == "ready", "the node of iroh-docs did not start");
        Ok(node)
    }

    fn ask(&mut self, line: &str) -> anyhow::Result<String> {
        writeln!(self.input, "{line}")?;
        self.answer()
    }

    fn ask_file(&mut self, command: &str, file: &Path) -> anyhow::Result<Duration> {
        let started = Instant::now();
        self.ask(&format!("{command} {}", file.display()))?;
        Ok(started.elapsed())
    }

    fn answer(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        ensure!(line.ends_with('\n'), "the node of iroh-docs ended");
        Ok(line.trim_end().to_owned())
    }

    /// It ends in order when it is told nothing more.
    fn stop(mut self) -> anyhow::Result<()> {
        drop(self.input);
        wait_until("the node of iroh-docs ends", PATIENCE, || self.process.has_ended())
    }

    fn watch_memory(&self) -> MemoryWatch {
        MemoryWatch::start(vec![self.process.id()])
    }
}
