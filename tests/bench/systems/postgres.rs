//! PostgreSQL 15: clusters of the benchmark's own, a publisher at the county and a
//! subscriber at the hub.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{ChildStdin, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use harness::table::ENTERPRISE_FIELDS;
use rustix::process::{Signal, geteuid};

use super::{SINGLE_CHANGES, Setting, peers_program};
use crate::{
    files::RowFile,
    network::{Network, PATIENCE, Process, free_port, run, text_of, wait_until},
    rows::{self, COUNTIES},
    table::{Column, quantile},
    usage::{MemoryWatch, disk_bytes},
    works::{Line, Work},
};

/// How it was used.
pub const NOTES: &str = "A publisher at the county and a subscriber at the hub, each a cluster of its own (`initdb --data-checksums \
     --locale=C.UTF-8`), TCP on loopback between them, clients on Unix sockets. `wal_level=logical`, `fsync=on`, \
     `synchronous_commit=on`, also of the subscription, so that what is visible at the subscriber is durable there; \
     for bulk loads as the manual's \"Populating a Database\" says `max_wal_size=8GB`, `maintenance_work_mem=1GB`, \
     `checkpoint_timeout=30min`; `work_mem=256MB`, and `shared_buffers` is 25 % of memory for all clusters together. \
     Import: server-side `COPY` into a table with its primary key and a publication. Initial copy: from \
     `CREATE SUBSCRIPTION` until `srsubstate = 'r'`. The whole file again: in one transaction `COPY` into a \
     temporary table, `ANALYZE`, `MERGE` of what is distinct, `DELETE` of what is missing (`INSERT … ON CONFLICT DO \
     UPDATE … WHERE … IS DISTINCT FROM …` instead of `MERGE` was slower when it was tried). Updates: in one transaction \
     `COPY` into a temporary table, `ANALYZE`, `UPDATE … FROM`, until visible at the subscriber. One row: `UPDATE` on \
     one connection, `SELECT` by key without a pause on another until it shows. 13 counties: a cluster for each, as counties would have; in one \
     cluster with 13 databases every publication reads the log of all. Disk: the data \
     directory after a `CHECKPOINT`, without its write-ahead log. Logical replication does not compare the two \
     sides: no differences.";

/// Where Debian puts the programs.
const PROGRAMS: &str = "/usr/lib/postgresql/15/bin";
/// Whom the server runs as: it refuses root.
const USER: &str = "postgres";
/// The table on both sides.
const TABLE: &str = "CREATE TABLE enterprise (name text NOT NULL, uscc text PRIMARY KEY, registered_on date, \
     type text, capital text, scope text, province text, city text, address text);";
/// What ends an answer of [`Session`]; no row looks like it.
const END_OF_ANSWER: &str = "--end-of-answer--";

/// The server's own word.
pub fn version() -> anyhow::Result<String> {
    text_of(Command::new(Path::new(PROGRAMS).join("postgres")).arg("--version"))
}

/// One round.
pub fn measure(setting: &Setting<'_>, column: &mut Column<'_>) -> anyhow::Result<()> {
    if setting.wants_pair() {
        measure_pair(setting, column)?;
    }
    if setting.wants(Work::Counties) {
        measure_counties(setting, column)?;
    }
    Ok(())
}

fn measure_pair(setting: &Setting<'_>, column: &mut Column<'_>) -> anyhow::Result<()> {
    let mut publisher = Cluster::new(setting, "publisher", 2)?;
    let mut county = publisher.session()?;
    county.query(TABLE)?;
    county.query("CREATE PUBLICATION county FOR TABLE enterprise;")?;

    let base = setting.files.get(RowFile::Base)?;
    let memory = publisher.watch_memory()?;
    let started = Instant::now();
    county.query(&copy_from("enterprise", &base))?;
    column.put_seconds(Line::ImportTime, started.elapsed());
    column.put_mebibytes(Line::ImportMemory, memory.peak_bytes()?);
    county.query("CHECKPOINT;")?;
    column.put_megabytes(Line::ImportDisk, publisher.disk_bytes()?);

    let mut subscriber = Cluster::new(setting, "subscriber", 2)?;
    let mut hub = subscriber.session()?;
    hub.query(TABLE)?;
    let memory = (publisher.watch_memory()?, subscriber.watch_memory()?);
    let wire = setting.network.bytes()?;
    let started = Instant::now();
    hub.subscribe("county", &publisher)?;
    hub.wait_copied()?;
    column.put_seconds(Line::CopyTime, started.elapsed());
    column.put_megabytes(Line::CopyWire, setting.network.bytes()? - wire);
    column.put_mebibytes(Line::CopyCountyMemory, memory.0.peak_bytes()?);
    column.put_mebibytes(Line::CopyHubMemory, memory.1.peak_bytes()?);
    hub.expect_rows(setting.files.rows())?;
    hub.query("CHECKPOINT;")?;
    column.put_megabytes(Line::CopyHubDisk, subscriber.disk_bytes()?);

    if setting.wants(Work::FullAgain) {
        let memory = publisher.watch_memory()?;
        full_again(setting, column, &mut county, &mut hub)?;
        column.put_mebibytes(Line::FullAgainMemory, memory.peak_bytes()?);
    }
    if setting.wants(Work::Updates) {
        let memory = (publisher.watch_memory()?, subscriber.watch_memory()?);
        updates(setting, column, &mut county, &mut hub)?;
        column.put_mebibytes(Line::UpdatesCountyMemory, memory.0.peak_bytes()?);
        column.put_mebibytes(Line::UpdatesHubMemory, memory.1.peak_bytes()?);
    }
    if setting.wants(Work::OneRow) {
        one_row(setting, column, &publisher, &subscriber)?;
    }
    drop((county, hub));
    if setting.wants(Work::Restart) {
        column.put_seconds(Line::RestartCounty, publisher.restart()?);
        column.put_seconds(Line::RestartHub, subscriber.restart()?);
        for (cluster, line) in
            [(&publisher, Line::CountyDiskAtEnd), (&subscriber, Line::HubDiskAtEnd)]
        {
            cluster.session()?.query("CHECKPOINT;")?;
            column.put_megabytes(line, cluster.disk_bytes()?);
        }
    }
    Ok(())
}

fn copy_from(table: &str, file: &Path) -> String {
    format!("COPY {table} FROM '{}' (FORMAT csv, HEADER true);", file.display())
}

fn full_again(
    setting: &Setting<'_>,
    column: &mut Column<'_>,
    county: &mut Session,
    hub: &mut Session,
) -> anyhow::Result<()> {
    let changed = setting.files.one_changed();
    for (file, time_line, wire_line) in [
        (RowFile::Base, Line::SameTime, Line::SameWire),
        (RowFile::Shuffled, Line::ShuffledTime, Line::ShuffledWire),
        (RowFile::OneChanged, Line::OneChangedTime, Line::OneChangedWire),
    ] {
        let path = setting.files.get(file)?;
        let wire = setting.network.bytes()?;
        let started = Instant::now();
        county.query(&deliver_full(&path))?;
        if file == RowFile::OneChanged {
            hub.wait_row(changed, 1)?;
        }
        column.put_seconds(time_line, started.elapsed());
        column.put_kilobytes(wire_line, setting.network.bytes()? - wire);
    }
    Ok(())
}

/// The register as a whole file says it is.
fn deliver_full(path: &Path) -> String {
    let others = ENTERPRISE_FIELDS.iter().filter(|column| **column != "uscc");
    let pair = |alias: &str| others.clone().map(|c| format!("{alias}.{c}")).collect::<Vec<_>>();
    let (old, new) = (pair("e").join(","), pair("s").join(","));
    let (set, all) = (others.copied().collect::<Vec<_>>().join(","), ENTERPRISE_FIELDS.join(","));
    let values = ENTERPRISE_FIELDS.map(|column| format!("s.{column}")).join(",");
    format!(
        "BEGIN; CREATE TEMP TABLE staging (LIKE enterprise) ON COMMIT DROP; {} ANALYZE staging; \
         MERGE INTO enterprise e USING staging s ON e.uscc = s.uscc \
         WHEN MATCHED AND ({old}) IS DISTINCT FROM ({new}) THEN UPDATE SET ({set}) = ROW ({new}) \
         WHEN NOT MATCHED THEN INSERT ({all}) VALUES ({values}); \
         DELETE FROM enterprise e WHERE NOT EXISTS (SELECT FROM staging s WHERE s.uscc = e.uscc); COMMIT;",
        copy_from("staging", path)
    )
}

fn updates(
    setting: &Setting<'_>,
    column: &mut Column<'_>,
    county: &mut Session,
    hub: &mut Session,
) -> anyhow::Result<()> {
    let path = setting.files.get(RowFile::Updates)?;
    let set = ENTERPRISE_FIELDS.map(|column| format!("{column} = s.{column}")).join(", ");
    let wire = setting.network.bytes()?;
    let started = Instant::now();
    county.query(&format!(
        "BEGIN; CREATE TEMP TABLE changed (LIKE enterprise) ON COMMIT DROP; {} ANALYZE changed; \
         UPDATE enterprise e SET {set} FROM changed s WHERE e.uscc = s.uscc; COMMIT;",
        copy_from("changed", &path)
    ))?;
    // A transaction shows as a whole: one of its rows speaks for all.
    hub.wait_row(setting.files.updated().last().context("rows were updated")?, 1)?;
    column.put_seconds(Line::UpdatesTime, started.elapsed());
    column.put_megabytes(Line::UpdatesWire, setting.network.bytes()? - wire);
    Ok(())
}

fn one_row(
    setting: &Setting<'_>,
    column: &mut Column<'_>,
    publisher: &Cluster<'_>,
    subscriber: &Cluster<'_>,
) -> anyhow::Result<()> {
    let changes = setting.dir.join("changes.csv");
    let rows = setting.files.rows();
    let change = |change| (rows::scattered(u64::from(change), rows), change + 2);
    rows::write(&changes, &mut (0..SINGLE_CHANGES).map(change))?;
    let wire = setting.network.bytes()?;
    let times = text_of(
        Command::new(peers_program()?)
            .arg("postgres-latency")
            .args([publisher.address(), subscriber.address()])
            .arg(&changes),
    )?;
    let bytes = setting.network.bytes()? - wire;
    let times_ms: Vec<f64> = serde_json::from_str(&times)?;
    ensure!(times_ms.len() == SINGLE_CHANGES as usize, "not all rows were changed");
    column.put(Line::OneRowMedian, quantile(&times_ms, 0.5));
    column.put(Line::OneRowP99, quantile(&times_ms, 0.99));
    column.put_kilobytes(Line::OneRowWire, bytes / u64::from(SINGLE_CHANGES));
    Ok(())
}

fn measure_counties(setting: &Setting<'_>, column: &mut Column<'_>) -> anyhow::Result<()> {
    let clusters = COUNTIES + 1;
    let subscriber = Cluster::new(setting, "hub", clusters)?;
    let mut hub = subscriber.session()?;
    hub.query(TABLE)?;
    let (mut publishers, mut counties) = (Vec::new(), Vec::new());
    for county in 0..COUNTIES {
        let name = format!("county{county}");
        let publisher = Cluster::new(setting, &name, clusters)?;
        let mut session = publisher.session()?;
        session.query(TABLE)?;
        session.query(&format!("CREATE PUBLICATION {name} FOR TABLE enterprise;"))?;
        hub.subscribe(&name, &publisher)?;
        counties.push((session, setting.files.get(RowFile::County(county))?));
        publishers.push(publisher);
    }
    hub.wait_copied()?;

    let memory = subscriber.watch_memory()?;
    let wire = setting.network.bytes()?;
    let started = Instant::now();
    std::thread::scope(|scope| {
        let import = |(session, file): &mut (Session, PathBuf)| {
            session.query(&copy_from("enterprise", file)).map(drop)
        };
        let imports: Vec<_> =
            counties.iter_mut().map(|county| scope.spawn(move || import(county))).collect();
        for import in imports {
            import.join().map_err(|_| anyhow::anyhow!("an import panicked"))??;
        }
        anyhow::Ok(())
    })?;
    // Each county's transaction shows as a whole: its last row speaks for it.
    let rows = setting.files.rows();
    for number in rows.saturating_sub(COUNTIES)..rows {
        hub.wait_row(number, 0)?;
    }
    column.put_seconds(Line::CountiesTime, started.elapsed());
    column.put_megabytes(Line::CountiesWire, setting.network.bytes()? - wire);
    column.put_mebibytes(Line::CountiesHubMemory, memory.peak_bytes()?);
    hub.expect_rows(rows)?;
    hub.query("CHECKPOINT;")?;
    column.put_megabytes(Line::CountiesHubDisk, subscriber.disk_bytes()?);
    Ok(())
}

/// A database cluster and its server.
struct Cluster<'a> {
    dir: PathBuf,
    port: u16,
    network: &'a Network,
    server: Option<Process>,
}

impl<'a> Cluster<'a> {
    /// Makes and starts one of `clusters` that share the machine.
    fn new(setting: &Setting<'a>, name: &str, clusters: u64) -> anyhow::Result<Self> {
        let dir = setting.subdir(name)?;
        if geteuid().is_root() {
            run(Command::new("chown").arg(USER).arg(&dir))?;
        }
        let mut cluster = Self { dir, port: free_port()?, network: setting.network, server: None };
        let initdb = ["--username", USER, "--auth", "trust", "--data-checksums"];
        let initdb = [&initdb[..], &["--encoding=UTF8", "--locale=C.UTF-8"]].concat();
        run(cluster.command("initdb").args(initdb).arg("--pgdata").arg(cluster.data()))?;
        let settings = cluster.settings(memory_bytes()? / 4 / clusters);
        let mut file =
            std::fs::File::options().append(true).open(cluster.data().join("postgresql.conf"))?;
        file.write_all(settings.as_bytes())?;
        cluster.start()?;
        Ok(cluster)
    }

    fn settings(&self, shared_bytes: u64) -> String {
        format!(
            "port = {}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '{}'\n\
             wal_level = logical\nfsync = on\nsynchronous_commit = on\nshared_buffers = {}MB\n\
             maintenance_work_mem = 1GB\nwork_mem = 256MB\nmax_wal_size = 8GB\ncheckpoint_timeout = 30min\n\
             max_connections = 100\nmax_worker_processes = 60\nmax_wal_senders = 60\n\
             max_replication_slots = 60\nmax_logical_replication_workers = 40\n",
            self.port,
            self.dir.display(),
            shared_bytes >> 20,
        )
    }

    fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    fn command(&self, program: &str) -> Command {
        let program = Path::new(PROGRAMS).join(program).display().to_string();
        let mut command = if geteuid().is_root() {
            self.network.command_as(USER, &program)
        } else {
            self.network.command(&program)
        };
        command.current_dir(&self.dir);
        command
    }

    /// Starts the server, until it answers a query.
    fn start(&mut self) -> anyhow::Result<()> {
        let log = std::fs::File::options().create(true).append(true).open(self.log())?;
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.data()).stdout(log.try_clone()?).stderr(log);
        let mut server = Process::start(&mut command, Signal::INT)?;
        let log = self.log();
        wait_until("the server answers", PATIENCE, || {
            ensure!(!server.has_ended()?, "no server: {}", std::fs::read_to_string(&log)?);
            Ok(self.session().and_then(|mut session| session.query("SELECT 1;")).is_ok())
        })?;
        self.server = Some(server);
        Ok(())
    }

    fn restart(&mut self) -> anyhow::Result<Duration> {
        self.server.take().map_or(Ok(()), Process::stop)?;
        let started = Instant::now();
        self.start()?;
        Ok(started.elapsed())
    }

    fn log(&self) -> PathBuf {
        self.dir.join("server.log")
    }

    /// What a client needs to know.
    fn address(&self) -> String {
        format!("host={} port={} user={USER} dbname={USER}", self.dir.display(), self.port)
    }

    fn session(&self) -> anyhow::Result<Session> {
        Session::open(&self.dir, self.port)
    }

    fn watch_memory(&self) -> anyhow::Result<MemoryWatch> {
        Ok(MemoryWatch::start(vec![self.server.as_ref().context("no server runs")?.id()]))
    }

    /// Without the write-ahead log, which takes what it is allowed to.
    fn disk_bytes(&self) -> anyhow::Result<u64> {
        Ok(disk_bytes(&self.data())? - disk_bytes(&self.data().join("pg_wal"))?)
    }
}

/// The machine's memory.
fn memory_bytes() -> anyhow::Result<u64> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|line| line.split_whitespace().next()).context("MemTotal")?;
    Ok(kib.parse::<u64>()? * 1024)
}

/// A psql that stays, so that no connection is paid for each query.
struct Session {
    process: Process,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Session {
    fn open(socket_dir: &Path, port: u16) -> anyhow::Result<Self> {
        let mut command = Command::new("psql");
        command
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", USER])
            .args(["-p", &port.to_string(), "-d", USER, "-h"])
            .arg(socket_dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut process = Process::start(&mut command, Signal::TERM)?;
        let input = process.child().stdin.take().context("it was piped")?;
        let output = BufReader::new(process.child().stdout.take().context("it was piped")?);
        Ok(Self { process, input, output })
    }

    /// Runs statements; answers what they print.
    fn query(&mut self, sql: &str) -> anyhow::Result<String> {
        // An error shows as the end of the output.
        let _ = writeln!(self.input, "{sql}\nSELECT '{END_OF_ANSWER}';");
        let mut answer = String::new();
        loop {
            let mut line = String::new();
            if self.output.read_line(&mut line)? == 0 {
                let mut error = String::new();
                if let Some(stderr) = &mut self.process.child().stderr {
                    std::io::Read::read_to_string(stderr, &mut error)?;
                }
                bail!("psql: {error}");
            }
            if line.trim_end() == END_OF_ANSWER {
                return Ok(answer);
            }
            answer.push_str(&line);
        }
    }

    fn subscribe(&mut self, name: &str, publisher: &Cluster<'_>) -> anyhow::Result<()> {
        self.query(&format!(
            "CREATE SUBSCRIPTION {name} CONNECTION 'host=127.0.0.1 port={} user={USER} dbname={USER}' \
             PUBLICATION {name} WITH (synchronous_commit = on);",
            publisher.port
        ))
        .map(drop)
    }

    /// Waits until the first copy of every subscribed table is done.
    fn wait_copied(&mut self) -> anyhow::Result<()> {
        wait_until("the first copy is there", PATIENCE, || {
            let states = "SELECT count(*), count(*) FILTER (WHERE srsubstate = 'r') FROM pg_subscription_rel;";
            let states = self.query(states)?;
            let (all, ready) = states.trim().split_once('|').context("two counts")?;
            Ok(all == ready)
        })
    }

    /// Waits until a row shows in a version.
    fn wait_row(&mut self, number: u64, version: u32) -> anyhow::Result<()> {
        let [_, code, .., address] = rows::row(number, version);
        let query = format!("SELECT address FROM enterprise WHERE uscc = '{code}';");
        wait_until("the row shows", PATIENCE, || Ok(self.query(&query)?.trim_end() == address))
    }

    fn expect_rows(&mut self, rows: u64) -> anyhow::Result<()> {
        let found = self.query("SELECT count(*) FROM enterprise;")?;
        ensure!(found.trim() == rows.to_string(), "{} rows instead of {rows}", found.trim());
        Ok(())
    }
}
