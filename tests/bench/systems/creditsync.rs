//! creditsync itself: real processes, asked through the admin socket.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{BufRead as _, BufReader},
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use daemon::{
    admin::{self, Request},
    app::dir::NodeDir,
};
use protocol::{record::encode_key, value::Value};
use rustix::process::Signal;
use serde_json::Value as Json;

use super::{SINGLE_CHANGES, Setting};
use crate::{
    files::{RowFile, WORKBOOK_ROWS_MAX},
    network::{Network, PATIENCE, Process, STEP_MAX, free_port, text_of, wait_until},
    rows::{self, COUNTIES},
    table::{Column, quantile},
    usage::{MemoryWatch, disk_bytes},
    works::{DIFFERENCES, Line, Work},
};

/// How it was used.
pub const NOTES: &str = "`creditsync import enterprise FILE` at the county's daemon, `--full` where the file is the \
     whole register, `--wait` except for the initial import: it answers when the hub has acknowledged the change \
     set, which it does after its own flush. Initial copy: from the start of the county's daemon, the hub being up, \
     until the county's `status` shows that acknowledgement. One changed row: from the request on the county's \
     admin socket to the answer. Restart: from `creditsync run` \
     to its `ready`. Default settings. Differences: the hub is stopped, a byte of each page that holds one of the rows \
     is changed in its database behind the program's back, and `creditsync repair enterprise/COUNTY` at the hub \
     reads and hashes every page and takes what is damaged from the county, whole pages of 64 rows; its bytes include \
     what an idle connection sends meanwhile.";

/// The program's own word.
pub fn version() -> anyhow::Result<String> {
    text_of(Command::new(program()?).arg("--version"))
}

/// One round.
pub fn measure(setting: &Setting<'_>, column: &mut Column<'_>) -> anyhow::Result<()> {
    if setting.wants_pair() {
        measure_pair(setting, column)?;
    }
    if setting.wants(Work::Counties) {
        measure_counties(setting, column)?;
    }
    if setting.wants(Work::Messy) {
        measure_messy(setting, column)?;
    }
    if setting.wants(Work::Workbook) {
        measure_workbook(setting, column)?;
    }
    Ok(())
}

fn measure_workbook(setting: &Setting<'_>, column: &mut Column<'_>) -> anyhow::Result<()> {
    let federation = Federation::new(setting.network, &setting.subdir("workbook")?, 1)?;
    let rows = setting.files.rows().min(WORKBOOK_ROWS_MAX);
    let (time, memory) = federation.import(&setting.files.get(RowFile::Workbook)?, rows)?;
    column.put_seconds(Line::WorkbookTime, time);
    column.put_mebibytes(Line::WorkbookMemory, memory);
    Ok(())
}

fn measure_messy(setting: &Setting<'_>, column: &mut Column<'_>) -> anyhow::Result<()> {
    let federation = Federation::new(setting.network, &setting.subdir("messy")?, 1)?;
    let (county, path) = (&federation.counties[0], setting.files.get(RowFile::Messy)?);
    let memory = county.watch_memory()?;
    let started = Instant::now();
    let report = county.import(&path)?;
    column.put_seconds(Line::MessyTime, started.elapsed());
    column.put_mebibytes(Line::MessyMemory, memory.peak_bytes()?);
    for count in ["warnings", "duplicates", "rejected"] {
        ensure!(report[count] != 0, "nothing is told of: {report}");
    }
    // The hub's copy of the first import is no part of the second.
    county.wait_acked(report["seq"].as_u64().context("seq")?)?;
    let memory = county.watch_memory()?;
    let started = Instant::now();
    let again = county.import_to_hub(&path, true)?;
    column.put_seconds(Line::MessyAgainTime, started.elapsed());
    column.put_mebibytes(Line::MessyAgainMemory, memory.peak_bytes()?);
    for count in ["rows", "warnings", "duplicates", "rejected", "skipped"] {
        ensure!(again[count] == report[count], "{count} differs: {again}");
    }
    ensure!(again["change_sets"] == 0, "something changed: {again}");
    Ok(())
}

fn measure_pair(setting: &Setting<'_>, column: &mut Column<'_>) -> anyhow::Result<()> {
    let mut federation = Federation::new(setting.network, &setting.subdir("pair")?, 1)?;
    let base = setting.files.get(RowFile::Base)?;

    federation.hub.stop()?;
    let (time, memory) = federation.import(&base, setting.files.rows())?;
    column.put_seconds(Line::ImportTime, time);
    column.put_mebibytes(Line::ImportMemory, memory);
    column.put_megabytes(Line::ImportDisk, federation.counties[0].disk_bytes()?);

    let copy = federation.copy()?;
    column.put_seconds(Line::CopyTime, copy.time);
    column.put_megabytes(Line::CopyWire, copy.wire_bytes);
    column.put_mebibytes(Line::CopyCountyMemory, copy.county_memory);
    column.put_mebibytes(Line::CopyHubMemory, copy.hub_memory);
    column.put_megabytes(Line::CopyHubDisk, federation.hub.disk_bytes()?);

    if setting.wants(Work::FullAgain) {
        full_again(setting, column, &federation)?;
    }
    if setting.wants(Work::Updates) {
        updates(setting, column, &federation)?;
    }
    if setting.wants(Work::OneRow) {
        one_row(setting, column, &federation)?;
    }
    if setting.wants(Work::Restart) {
        let [county] = federation.counties.as_mut_slice() else { unreachable!("one was made") };
        column.put_seconds(Line::RestartCounty, county.restart()?);
        column.put_seconds(Line::RestartHub, federation.hub.restart()?);
        column.put_megabytes(Line::CountyDiskAtEnd, federation.counties[0].disk_bytes()?);
        column.put_megabytes(Line::HubDiskAtEnd, federation.hub.disk_bytes()?);
    }
    // Last, for it writes to the hub's database.
    if setting.wants(Work::Differences) {
        differences(setting, column, &mut federation)?;
    }
    Ok(())
}

fn full_again(
    setting: &Setting<'_>,
    column: &mut Column<'_>,
    federation: &Federation<'_>,
) -> anyhow::Result<()> {
    let county = &federation.counties[0];
    let memory = county.watch_memory()?;
    for (file, changes, time_line, wire_line) in [
        (RowFile::Base, 0, Line::SameTime, Line::SameWire),
        (RowFile::Shuffled, 0, Line::ShuffledTime, Line::ShuffledWire),
        (RowFile::OneChanged, 1, Line::OneChangedTime, Line::OneChangedWire),
    ] {
        let path = setting.files.get(file)?;
        let wire = setting.network.bytes()?;
        let started = Instant::now();
        let report = county.import_to_hub(&path, true)?;
        column.put_seconds(time_line, started.elapsed());
        ensure!(report["updated"] == changes, "{file:?} changed something else: {report}");
        column.put_kilobytes(wire_line, setting.network.bytes()? - wire);
    }
    column.put_mebibytes(Line::FullAgainMemory, memory.peak_bytes()?);
    Ok(())
}

fn updates(
    setting: &Setting<'_>,
    column: &mut Column<'_>,
    federation: &Federation<'_>,
) -> anyhow::Result<()> {
    let county = &federation.counties[0];
    let path = setting.files.get(RowFile::Updates)?;
    let memory = (county.watch_memory()?, federation.hub.watch_memory()?);
    let wire = setting.network.bytes()?;
    let started = Instant::now();
    let report = county.import_to_hub(&path, false)?;
    column.put_seconds(Line::UpdatesTime, started.elapsed());
    column.put_megabytes(Line::UpdatesWire, setting.network.bytes()? - wire);
    column.put_mebibytes(Line::UpdatesCountyMemory, memory.0.peak_bytes()?);
    column.put_mebibytes(Line::UpdatesHubMemory, memory.1.peak_bytes()?);
    ensure!(report["rejected"] == 0, "rows were rejected: {report}");
    Ok(())
}

fn one_row(
    setting: &Setting<'_>,
    column: &mut Column<'_>,
    federation: &Federation<'_>,
) -> anyhow::Result<()> {
    let county = &federation.counties[0];
    let mut times_ms = Vec::new();
    let wire = setting.network.bytes()?;
    for change in 0..SINGLE_CHANGES {
        let path = setting.dir.join("one.csv");
        let number = rows::scattered(u64::from(change), setting.files.rows());
        // The versions before belong to files.
        rows::write(&path, &mut std::iter::once((number, change + 2)))?;
        let started = Instant::now();
        let report = county.import_to_hub(&path, false)?;
        times_ms.push(started.elapsed().as_secs_f64() * 1000.0);
        ensure!(report["updated"] == 1, "the row did not change: {report}");
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
    federation: &mut Federation<'_>,
) -> anyhow::Result<()> {
    let partition = format!("enterprise/{}", federation.counties[0].name);
    for (count, time_line, wire_line, _) in DIFFERENCES {
        federation.hub.stop()?;
        let damaged = damage(&federation.hub.dir.store(), count, setting.files.rows())?;
        federation.hub.start()?;
        federation.counties[0].wait_connected()?;
        let wire = setting.network.bytes()?;
        let started = Instant::now();
        let report = federation.hub.ask(&Request::Repair { partition: partition.clone() })?;
        column.put_seconds(time_line, started.elapsed());
        column.put_kilobytes(wire_line, setting.network.bytes()? - wire);
        ensure!(report["pages"] == damaged, "{damaged} pages were damaged: {report}");
    }
    Ok(())
}

/// Changes a byte of each leaf that holds one of `count` scattered rows, in a
/// database that nobody has open; answers of how many leaves.
fn damage(store: &Path, count: u64, rows: u64) -> anyhow::Result<usize> {
    /// Where a page's key says of which level it is; leaves are of level 0.
    const LEVEL_AT: usize = 9;
    // The node would not open it with another size of segments.
    let database = sled::Config::new().path(store.join("sled")).segment_size(8 * 1024 * 1024);
    let database = database.open()?;
    let tree = database.open_tree("creditsync")?;
    let is_leaf = |key: &sled::IVec| key.get(LEVEL_AT) == Some(&0);
    // Behind the pages of `_federation`.
    let mut leaves = tree.scan_prefix(b"p").keys().filter(|key| key.as_ref().is_ok_and(is_leaf));
    let last = leaves.next_back().context("the hub has no pages")??;
    let prefix = &last[..=LEVEL_AT];
    let mut damaged = BTreeSet::new();
    for change in 0..count {
        let code = rows::code(rows::scattered(change, rows));
        let key = [prefix, &encode_key([&Value::text(code)])?].concat();
        let found = tree.range(prefix..=key.as_slice()).next_back();
        damaged.insert(found.context("a row lies before all pages")??.0);
    }
    for key in &damaged {
        let mut page = tree.get(key)?.context("the page was there")?.to_vec();
        *page.last_mut().context("a page has bytes")? ^= 1;
        tree.insert(key, page)?;
    }
    database.flush()?;
    Ok(damaged.len())
}

fn measure_counties(setting: &Setting<'_>, column: &mut Column<'_>) -> anyhow::Result<()> {
    let count = usize::try_from(COUNTIES)?;
    let federation = Federation::new(setting.network, &setting.subdir("counties")?, count)?;
    let files = (0..COUNTIES).map(|county| setting.files.get(RowFile::County(county)));
    let files = files.collect::<anyhow::Result<Vec<_>>>()?;
    let wire = setting.network.bytes()?;
    let memory = federation.hub.watch_memory()?;
    column.put_seconds(Line::CountiesTime, federation.import_all(&files)?);
    column.put_megabytes(Line::CountiesWire, setting.network.bytes()? - wire);
    column.put_mebibytes(Line::CountiesHubMemory, memory.peak_bytes()?);
    column.put_megabytes(Line::CountiesHubDisk, federation.hub.disk_bytes()?);
    Ok(())
}

/// What an initial copy took.
pub struct Copied {
    /// From the county's start to the hub's acknowledgement.
    pub time: Duration,
    /// In both directions.
    pub wire_bytes: u64,
    /// Peak.
    pub county_memory: u64,
    /// Peak.
    pub hub_memory: u64,
}

/// A hub and its counties, all running and connected at first.
pub struct Federation<'a> {
    network: &'a Network,
    /// The municipal hub.
    pub hub: Node<'a>,
    /// The counties.
    pub counties: Vec<Node<'a>>,
}

impl<'a> Federation<'a> {
    /// Makes it below `dir`.
    pub fn new(network: &'a Network, dir: &Path, counties: usize) -> anyhow::Result<Self> {
        let address = format!("127.0.0.1:{}", free_port()?);
        let mut hub = Node::new("hub", network, dir);
        hub.command(&["init", "--federation", "bench", "--node", "hub", "--listen", &address])?;
        hub.start()?;
        let mut federation = Self { network, hub, counties: Vec::new() };
        for number in 1..=counties {
            let mut county = federation.join(dir, &format!("c{number}"))?;
            county.start()?;
            county.wait_connected()?;
            federation.counties.push(county);
        }
        Ok(federation)
    }

    /// Invites a node and has it join; it does not run.
    pub fn join(&self, dir: &Path, name: &str) -> anyhow::Result<Node<'a>> {
        let token = self.hub.command(&["invite", name])?;
        let county = Node::new(name, self.network, dir);
        let joined = county.command(&["join", token.trim()]);
        joined.with_context(|| format!("{name} does not join: {}", self.hub.log_text()))?;
        Ok(county)
    }

    /// Publishes a dataset with the columns of the register.
    pub fn publish(&self, dir: &Path, name: &str) -> anyhow::Result<()> {
        let shown = include_str!("../../../config/catalogue/enterprise.toml");
        let file = dir.join("schema.toml");
        std::fs::write(
            &file,
            shown.replace("dataset = \"enterprise\"", &format!("dataset = \"{name}\"")),
        )?;
        self.hub.command(&["dataset", "apply", &file.display().to_string()])?;
        Ok(())
    }

    /// Every county imports the file into each of these datasets, all counties at the
    /// same time; answers when the hub has everything.
    pub fn import_each(&self, datasets: &[String], file: &Path) -> anyhow::Result<()> {
        std::thread::scope(|scope| {
            let import = |county: &Node<'_>| -> anyhow::Result<()> {
                // They hear of the datasets in their own time.
                wait_until("the county knows the datasets", PATIENCE, || {
                    let list = county.command(&["dataset", "list"])?;
                    Ok(datasets.iter().all(|name| list.contains(name)))
                })?;
                for dataset in datasets {
                    county.import_into(dataset, file, None)?;
                }
                Ok(())
            };
            let imports: Vec<_> =
                self.counties.iter().map(|county| scope.spawn(move || import(county))).collect();
            for import in imports {
                import.join().map_err(|_| anyhow::anyhow!("an import panicked"))??;
            }
            Ok::<_, anyhow::Error>(())
        })?;
        self.wait_in_sync(datasets.len() * self.counties.len())
    }

    /// The first county imports a file into a dataset, until the hub has it.
    pub fn import_one(&self, dataset: &str, file: &Path) -> anyhow::Result<()> {
        let seconds = u32::try_from(STEP_MAX.as_secs())?;
        self.counties[0].import_into(dataset, file, Some(seconds)).map(drop)
    }

    /// The first county delivers a full file, until the hub has it.
    pub fn deliver_full(&self, file: &Path) -> anyhow::Result<()> {
        self.counties[0].import_to_hub(file, true).map(drop)
    }

    /// Waits until so many partitions at the hub are in sync, or its own.
    pub fn wait_in_sync(&self, partitions: usize) -> anyhow::Result<()> {
        wait_until("all partitions are in sync", PATIENCE, || {
            let status = self.hub.status()?;
            let list = status["partitions"].as_array().context("partitions")?;
            let is_well = |one: &&Json| one["state"] == "in_sync" || one["state"] == "origin";
            Ok(list.iter().filter(is_well).count() >= partitions)
        })
    }

    /// The first county imports a file of new rows; answers the time and the
    /// county's peak of memory.
    pub fn import(&self, file: &Path, rows: u64) -> anyhow::Result<(Duration, u64)> {
        let memory = self.counties[0].watch_memory()?;
        let started = Instant::now();
        let report = self.counties[0].import(file)?;
        let time = started.elapsed();
        ensure!(report["inserted"] == rows, "not everything was imported: {report}");
        Ok((time, memory.peak_bytes()?))
    }

    /// The first county starts while the hub, which has nothing of it, is up: a
    /// county that is running already might wait before it dials again.
    pub fn copy(&mut self) -> anyhow::Result<Copied> {
        let county = &mut self.counties[0];
        let seq = county.standing()?.0;
        county.stop()?;
        self.hub.start()?;
        let hub_memory = self.hub.watch_memory()?;
        let wire = self.network.bytes()?;
        let started = Instant::now();
        county.start()?;
        let county_memory = county.watch_memory()?;
        county.wait_acked(seq)?;
        Ok(Copied {
            time: started.elapsed(),
            wire_bytes: self.network.bytes()? - wire,
            county_memory: county_memory.peak_bytes()?,
            hub_memory: hub_memory.peak_bytes()?,
        })
    }

    /// Every county imports its file at the same time; answers when the hub has
    /// everything.
    pub fn import_all(&self, files: &[PathBuf]) -> anyhow::Result<Duration> {
        let started = Instant::now();
        std::thread::scope(|scope| {
            let import = |(county, file): (&Node<'_>, &PathBuf)| -> anyhow::Result<()> {
                let report = county.import_to_hub(file, false)?;
                ensure!(report["inserted"] == report["rows"], "not everything: {report}");
                Ok(())
            };
            let imports: Vec<_> = self
                .counties
                .iter()
                .zip(files)
                .map(|pair| scope.spawn(move || import(pair)))
                .collect();
            for import in imports {
                import.join().map_err(|_| anyhow::anyhow!("an import panicked"))??;
            }
            Ok(started.elapsed())
        })
    }
}

/// A node and its daemon.
pub struct Node<'a> {
    name: String,
    dir: NodeDir,
    network: &'a Network,
    daemon: Option<Process>,
}

impl<'a> Node<'a> {
    fn new(name: &str, network: &'a Network, dir: &Path) -> Self {
        let dir = NodeDir::new(&dir.join(name));
        Self { name: name.to_owned(), dir, network, daemon: None }
    }

    fn program(&self) -> anyhow::Result<Command> {
        let mut command = self.network.command(&program()?.display().to_string());
        command.arg("--dir").arg(self.dir.path()).env_remove("CREDITSYNC_DIR");
        Ok(command)
    }

    fn command(&self, arguments: &[&str]) -> anyhow::Result<String> {
        text_of(self.program()?.args(arguments))
    }

    /// Starts the daemon, until it is ready.
    pub fn start(&mut self) -> anyhow::Result<()> {
        let log = std::fs::File::options().create(true).append(true).open(self.log())?;
        let mut command = self.program()?;
        command.arg("run").stdout(Stdio::piped()).stderr(log);
        let mut daemon = Process::start(&mut command, Signal::TERM)?;
        let stdout = daemon.child().stdout.take().context("it was piped")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        ensure!(line.trim() == "ready", "{} did not start: {}", self.name, self.log_text());
        self.daemon = Some(daemon);
        Ok(())
    }

    /// Stops the daemon.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        self.daemon.take().map_or(Ok(()), Process::stop)
    }

    /// Stops and starts it; answers how long the start took.
    pub fn restart(&mut self) -> anyhow::Result<Duration> {
        self.stop()?;
        let started = Instant::now();
        self.start()?;
        Ok(started.elapsed())
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("bench.log")
    }

    fn log_text(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }

    fn ask(&self, request: &Request) -> anyhow::Result<Json> {
        self.ask_about(request, None)
    }

    fn ask_about(&self, request: &Request, file: Option<&File>) -> anyhow::Result<Json> {
        let file = file.map(File::as_fd);
        let answer = admin::ask(&self.dir.socket(), request, file, &mut |_| Ok(()))?;
        Ok(answer.with_context(|| format!("{} does not run: {}", self.name, self.log_text()))?.0)
    }

    /// Imports a file; answers the report.
    fn import(&self, file: &Path) -> anyhow::Result<Json> {
        self.import_into("enterprise", file, None)
    }

    fn import_into(&self, dataset: &str, file: &Path, wait_s: Option<u32>) -> anyhow::Result<Json> {
        let request = import_request(dataset, file, false, wait_s);
        self.ask_about(&request, Some(&File::open(file)?))
    }

    /// What it says of itself.
    pub fn status(&self) -> anyhow::Result<Json> {
        self.ask(&Request::Status)
    }

    /// Imports a file and waits until it is durable at the hub; answers the
    /// report.
    fn import_to_hub(&self, file: &Path, full: bool) -> anyhow::Result<Json> {
        let seconds = u32::try_from(STEP_MAX.as_secs())?;
        let request = import_request("enterprise", file, full, Some(seconds));
        let report = self.ask_about(&request, Some(&File::open(file)?))?;
        ensure!(report["at_hub"] == true, "the hub did not get it: {report}");
        Ok(report)
    }

    /// The number of the newest change set, and of the one that the hub has.
    fn standing(&self) -> anyhow::Result<(u64, u64)> {
        let status = self.ask(&Request::Status)?;
        let partitions = status["partitions"].as_array().context("partitions")?;
        let name = format!("enterprise/{}", self.name);
        let own = partitions.iter().find(|found| found["partition"] == name.as_str());
        let own = own.context("the county has no partition")?;
        let number = |value: &Json| value.as_u64().unwrap_or_default();
        Ok((number(&own["seq"]), number(&own["acked"][0]["seq"])))
    }

    /// Waits until the county knows that `seq` is durable at the hub.
    fn wait_acked(&self, seq: u64) -> anyhow::Result<()> {
        wait_until("the hub has everything", PATIENCE, || Ok(self.standing()?.1 >= seq))
    }

    fn wait_connected(&self) -> anyhow::Result<()> {
        wait_until("the county is connected", PATIENCE, || {
            Ok(self.ask(&Request::Status)?["peers"][0]["connected"] == true)
        })
    }

    /// Watches the daemon's memory.
    pub fn watch_memory(&self) -> anyhow::Result<MemoryWatch> {
        let daemon = self.daemon.as_ref().context("the daemon does not run")?;
        Ok(MemoryWatch::start(vec![daemon.id()]))
    }

    /// What the database occupies.
    pub fn disk_bytes(&self) -> anyhow::Result<u64> {
        disk_bytes(&self.dir.store())
    }
}

fn import_request(dataset: &str, file: &Path, full: bool, wait_s: Option<u32>) -> Request {
    Request::Import {
        dataset: dataset.into(),
        path: file.display().to_string(),
        full,
        reading: daemon::sources::Reading::default(),
        wait_s,
    }
}

/// The program beside this one.
fn program() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe()?.with_file_name("creditsync");
    ensure!(program.exists(), "{} is missing: tests/bench/run.sh builds it", program.display());
    Ok(program)
}
