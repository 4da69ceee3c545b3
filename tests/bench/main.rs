//! The benchmark: a hub and a county as real processes, and generated rows.
//!
//! `tests/bench/run.sh` runs it in release mode and prints a Markdown table. It
//! measures what an administrator would: from the command to the hub's durable
//! commit. Nothing is asserted; the clock has no place in a test.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, BufWriter, Write as _},
    net::UdpSocket,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use daemon::{
    admin::{self, Request},
    app::dir::NodeDir,
};
use protocol::uscc::check_character;
use serde_json::Value as Json;

/// Waiting for one thing takes at most this long.
const STEP_MAX: Duration = Duration::from_secs(600);
/// How often a single record is changed to measure its latency.
const SINGLE_CHANGES: u32 = 300;
/// A multiplier without common factors with the row counts spreads updates over
/// the whole key range.
const SCATTER: u64 = 7919;

fn main() -> anyhow::Result<()> {
    let sizes: Vec<u64> = match std::env::args().nth(1) {
        Some(list) => {
            list.split(',').map(str::parse).collect::<Result<_, _>>().context("ROWS[,ROWS]")?
        }
        None => vec![100_000, 1_000_000],
    };
    let mut table = Table::default();
    for rows in sizes {
        table.columns.push(format!("{rows} rows"));
        measure(rows, &mut table).with_context(|| format!("with {rows} rows"))?;
    }
    table.print();
    Ok(())
}

fn measure(rows: u64, table: &mut Table) -> anyhow::Result<()> {
    let root = std::env::temp_dir().join(format!("creditsync-bench-{}-{rows}", std::process::id()));
    std::fs::create_dir_all(&root)?;
    let _cleared = Cleared(root.clone());
    let mut bench = Bench::new(&root)?;

    let file = root.join("all.csv");
    let bytes = write_rows(&file, 0..rows, "")?;
    table.row("CSV file, MB", megabytes(bytes));
    let county = |bench: &Bench| Usage::of(&bench.county);

    // First load while the hub is away, so that import and bootstrap do not
    // share the machine.
    bench.hub.stop()?;
    let started = Instant::now();
    let report = bench.import(&file, false)?;
    ensure!(report["inserted"] == rows, "not everything was imported: {report}");
    let import = started.elapsed();
    table.row("first import, s", seconds(import));
    table.row("first import, rows/s", per_second(rows, import));
    let usage = county(&bench)?;
    table.row("county: peak memory, MiB", usage.peak_mib());
    table.row("county: disk, MB", megabytes(usage.disk));

    bench.hub.start()?;
    let started = Instant::now();
    bench.wait_in_sync()?;
    let bootstrap = started.elapsed();
    table.row("bootstrap of an empty hub, s", seconds(bootstrap));
    table.row("bootstrap, rows/s", per_second(rows, bootstrap));
    table.row("bootstrap: bytes on the wire, MB", megabytes(bench.wire_bytes()?));
    let usage = Usage::of(&bench.hub)?;
    table.row("hub: peak memory, MiB", usage.peak_mib());
    table.row("hub: disk, MB", megabytes(usage.disk));

    let before = bench.wire_bytes()?;
    let started = Instant::now();
    let report = bench.import(&file, true)?;
    ensure!(report["change_sets"] == 0, "the same file changed something: {report}");
    table.row("same full file again, s", seconds(started.elapsed()));
    table.row(
        "same full file again: bytes on the wire",
        format!("{}", bench.wire_bytes()? - before),
    );

    let updates = (rows / 10).max(1);
    let file = root.join("updates.csv");
    write_rows(&file, (0..updates).map(|n| n * SCATTER % rows), "变更")?;
    let before = bench.wire_bytes()?;
    let started = Instant::now();
    bench.import(&file, false)?;
    let imported = started.elapsed();
    bench.wait_in_sync()?;
    let replicated = started.elapsed();
    table.row("scattered updates", format!("{updates}"));
    table.row("updates: import, s", seconds(imported));
    table.row("updates: until durable at the hub, s", seconds(replicated));
    table.row("updates, rows/s to the hub", per_second(updates, replicated));
    table.row(
        "updates: bytes on the wire a change",
        format!("{}", (bench.wire_bytes()? - before) / updates),
    );

    let before = bench.wire_bytes()?;
    let mut latencies = Vec::new();
    for change in 0..SINGLE_CHANGES {
        let file = root.join("one.csv");
        let row = u64::from(change) * SCATTER % rows;
        write_rows(&file, std::iter::once(row), &format!("第{change}次"))?;
        let started = Instant::now();
        let report = bench.import(&file, false)?;
        bench.wait_acked(report["seq"].as_u64().context("seq")?)?;
        latencies.push(started.elapsed());
    }
    latencies.sort();
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize];
    table.row("one change, command to hub's commit: p50, ms", milliseconds(at(0.5)));
    table.row("one change: p99, ms", milliseconds(at(0.99)));
    let bytes = (bench.wire_bytes()? - before) / u64::from(SINGLE_CHANGES);
    table.row("one change: bytes on the wire", format!("{bytes}"));
    table.row("county: memory at the end, MiB", county(&bench)?.now_mib());
    table.row("hub: memory at the end, MiB", Usage::of(&bench.hub)?.now_mib());
    table.row("county: disk at the end, MB", megabytes(county(&bench)?.disk));
    table.row("hub: disk at the end, MB", megabytes(Usage::of(&bench.hub)?.disk));
    Ok(())
}

/// A hub and a county.
struct Bench {
    hub: Node,
    county: Node,
}

impl Bench {
    fn new(root: &Path) -> anyhow::Result<Self> {
        let address = UdpSocket::bind(("127.0.0.1", 0))?.local_addr()?.to_string();
        let mut hub = Node::new(root.join("hub"));
        hub.command(&["init", "--federation", "bench", "--node", "hub", "--listen", &address])?;
        hub.start()?;
        let token = hub.command(&["invite", "county"])?;
        let mut county = Node::new(root.join("county"));
        county.command(&["join", token.trim()])?;
        county.start()?;
        Ok(Self { hub, county })
    }

    fn import(&self, file: &Path, full: bool) -> anyhow::Result<Json> {
        self.county.ask(&Request::Import {
            dataset: "enterprise".into(),
            path: file.display().to_string(),
            full,
            encoding: "auto".into(),
        })
    }

    /// Bytes of UDP payload in both directions, as the county counts them on
    /// its current connection.
    fn wire_bytes(&self) -> anyhow::Result<u64> {
        let status = self.county.ask(&Request::Status)?;
        let peer = &status["peers"][0];
        let count = |name: &str| peer[name].as_u64().unwrap_or_default();
        Ok(count("bytes_sent") + count("bytes_received"))
    }

    fn county_seq(&self) -> anyhow::Result<(u64, u64)> {
        let status = self.county.ask(&Request::Status)?;
        let partitions = status["partitions"].as_array().context("partitions")?;
        let own = partitions.iter().find(|found| found["partition"] == "enterprise/county");
        let own = own.context("the county has no partition")?;
        Ok((
            own["seq"].as_u64().unwrap_or_default(),
            own["acked"][0]["seq"].as_u64().unwrap_or_default(),
        ))
    }

    fn wait_in_sync(&self) -> anyhow::Result<()> {
        let (seq, _) = self.county_seq()?;
        self.wait_acked(seq)
    }

    /// Waits until the county knows that `seq` is durable at the hub.
    fn wait_acked(&self, seq: u64) -> anyhow::Result<()> {
        let deadline = Instant::now() + STEP_MAX;
        while self.county_seq()?.1 < seq {
            ensure!(Instant::now() < deadline, "the hub did not get number {seq} in time");
            std::thread::yield_now();
        }
        Ok(())
    }
}

struct Node {
    dir: NodeDir,
    daemon: Option<Child>,
}

impl Node {
    fn new(dir: PathBuf) -> Self {
        Self { dir: NodeDir::new(&dir), daemon: None }
    }

    fn program(&self) -> Command {
        let beside = std::env::current_exe().map(|path| path.with_file_name("creditsync"));
        let mut command = Command::new(beside.unwrap_or_else(|_| "creditsync".into()));
        command.arg("--dir").arg(self.dir.path());
        command
    }

    fn command(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.program().args(arguments).stderr(Stdio::inherit()).output()?;
        ensure!(output.status.success(), "creditsync {arguments:?} failed");
        Ok(String::from_utf8(output.stdout)?)
    }

    fn start(&mut self) -> anyhow::Result<()> {
        let log = File::create(self.dir.path().join("bench.log"))?;
        let mut child = self.program().arg("run").stdout(Stdio::piped()).stderr(log).spawn()?;
        let stdout = child.stdout.take().context("the daemon's output")?;
        self.daemon = Some(child);
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        ensure!(line.trim() == "ready", "the daemon did not start");
        Ok(())
    }

    fn stop(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.daemon.take() {
            let pid = child.id().to_string();
            Command::new("kill").args(["-TERM", &pid]).status()?;
            child.wait()?;
        }
        Ok(())
    }

    fn ask(&self, request: &Request) -> anyhow::Result<Json> {
        let answer = admin::ask(&self.dir.socket(), request, &mut |_| Ok(()))?;
        Ok(answer.context("the daemon does not run")?.0)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("a daemon could not be stopped: {error:#}");
        }
    }
}

/// Removes a directory when the measurement is over.
struct Cleared(PathBuf);

impl Drop for Cleared {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("{} could not be removed: {error}", self.0.display());
        }
    }
}

/// What a daemon takes.
struct Usage {
    resident_kib: u64,
    peak_kib: u64,
    disk: u64,
}

impl Usage {
    fn of(node: &Node) -> anyhow::Result<Self> {
        let pid = node.daemon.as_ref().context("the daemon does not run")?.id();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let field = |name: &str| -> u64 {
            let line = status.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or_default()
        };
        Ok(Self {
            resident_kib: field("VmRSS:"),
            peak_kib: field("VmHWM:"),
            disk: disk_bytes(&node.dir.store())?,
        })
    }

    fn peak_mib(&self) -> String {
        format!("{}", self.peak_kib / 1024)
    }

    fn now_mib(&self) -> String {
        format!("{}", self.resident_kib / 1024)
    }
}

/// Bytes that a directory's files really occupy.
fn disk_bytes(dir: &Path) -> anyhow::Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes +=
            if metadata.is_dir() { disk_bytes(&entry.path())? } else { metadata.blocks() * 512 };
    }
    Ok(bytes)
}

/// Rows of a registration's size, about 350 bytes, in file order of no key.
fn write_rows(path: &Path, rows: impl IntoIterator<Item = u64>, note: &str) -> anyhow::Result<u64> {
    const SCOPE: &str = "软件开发、技术咨询、技术服务；计算机系统集成；电子产品、办公用品、日用百货的批发与零售；企业管理咨询；货物或技术进出口";
    let mut out = BufWriter::new(File::create(path)?);
    writeln!(
        out,
        "企业名称,统一社会信用代码,注册日期,企业类型,注册资金,经营范围,所在省份,地区,注册地址"
    )?;
    for row in rows {
        // Spreads codes over the key range, as real ones are.
        let number = row * 2_654_435_761 % 1_000_000_007;
        let first = format!("9199999{number:010}");
        let check = check_character(first.as_bytes());
        writeln!(
            out,
            "基准测试合成企业{row}有限公司{note},{first}{check},20{:02}-{:02}-{:02},有限责任公司,{}万人民币,\"{SCOPE}；第{row}号\",示例省,示例市,示例市示例区示例路{row}号",
            row % 24,
            row % 12 + 1,
            row % 28 + 1,
            row % 9000 + 100
        )?;
    }
    out.flush()?;
    Ok(std::fs::metadata(path)?.len())
}

/// A Markdown table that grows by columns.
#[derive(Default)]
struct Table {
    columns: Vec<String>,
    rows: Vec<(String, Vec<String>)>,
}

impl Table {
    fn row(&mut self, name: &str, value: String) {
        eprintln!("{name}: {value}");
        match self.rows.iter_mut().find(|(known, _)| known == name) {
            Some((_, values)) => values.push(value),
            None => self.rows.push((name.to_owned(), vec![value])),
        }
    }

    fn print(&self) {
        println!("| | {} |", self.columns.join(" | "));
        println!("| --- |{}", " ---: |".repeat(self.columns.len()));
        for (name, values) in &self.rows {
            println!("| {name} | {} |", values.join(" | "));
        }
    }
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / 1e6)
}

fn seconds(time: Duration) -> String {
    format!("{:.2}", time.as_secs_f64())
}

fn milliseconds(time: Duration) -> String {
    format!("{:.2}", time.as_secs_f64() * 1000.0)
}

fn per_second(count: u64, time: Duration) -> String {
    format!("{:.0}", count as f64 / time.as_secs_f64())
}
