//! `demo`: a whole federation on loopback, with synthetic data.
//!
//! It starts this very program for each node and uses the commands that an
//! administrator uses, so what it shows is what the program does.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, UdpSocket},
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use protocol::{
    id::{FederationId, NodeId},
    suite::Suite,
    uscc::check_character,
};
use serde_json::Value as Json;

use super::{Done, print_table, text_of};
use crate::{
    admin::{self, Request},
    app::{self, dir::NodeDir, init::NewHub},
};

/// Waiting for one thing to happen takes at most this long.
const STEP_MAX: Duration = Duration::from_secs(120);
/// How often the demo looks whether it has happened.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// The hub and counties are children of this machine.
const COUNTIES_MAX: u32 = 50;

#[derive(clap::Args)]
#[command(
    after_help = "Example: creditsync demo --counties 5 --rows 100000\nEnds with 0 only if every partition is in sync at its end."
)]
pub(super) struct Arguments {
    /// How many counties / 县级节点数
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=i64::from(COUNTIES_MAX)))]
    counties: u32,
    /// Rows of each county's file / 每县行数
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(2..=5_000_000))]
    rows: u32,
}

pub(super) fn run(arguments: Arguments, dir: Option<PathBuf>) -> anyhow::Result<Done> {
    let keep = dir.is_some();
    let root = match dir {
        Some(dir) => dir,
        None => std::env::temp_dir().join(format!("creditsync-demo-{}", std::process::id())),
    };
    if root.exists() && std::fs::read_dir(&root)?.next().is_some() {
        bail!("{} is not empty; the demo wants a directory of its own", root.display());
    }
    std::fs::create_dir_all(&root).with_context(|| format!("make {}", root.display()))?;
    let mut demo = Demo { root: root.clone(), nodes: Vec::new(), rows: arguments.rows };
    let shown = demo.play(arguments.counties);
    demo.nodes.clear();
    if keep {
        println!("\nThe nodes are kept in {}. Look further:", root.display());
        println!("  creditsync --dir {}/hub run &", root.display());
        println!("  creditsync --dir {}/hub status", root.display());
        println!("  creditsync --dir {}/hub export enterprise | head", root.display());
    } else if let Err(error) = std::fs::remove_dir_all(&root) {
        eprintln!("creditsync: {} could not be removed: {error}", root.display());
    }
    shown
}

struct Demo {
    root: PathBuf,
    nodes: Vec<DemoNode>,
    rows: u32,
}

struct DemoNode {
    dir: NodeDir,
    name: String,
    daemon: Option<Child>,
}

impl Drop for DemoNode {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("creditsync: {}: {error:#}", self.name);
        }
    }
}

impl Demo {
    fn play(&mut self, counties: u32) -> anyhow::Result<Done> {
        println!(
            "creditsync demo: one hub, {counties} counties, {} SYNTHETIC rows each (演示用合成数据，并非真实企业)\n",
            self.rows
        );
        let started = Instant::now();
        self.make_hub()?;
        for index in 0..counties {
            self.join_county(index)?;
        }
        println!("\n1. Every county imports its file; the hub follows.");
        for index in 1..self.nodes.len() {
            self.import_first(index)?;
        }
        self.wait_until_equal("all counties are at the hub")?;
        self.show_hub()?;

        println!("\n2. One record changes at a county.");
        self.change_one()?;

        println!("\n3. A county is switched off, imports meanwhile, and comes back.");
        self.offline_and_back()?;

        println!("\n4. Every root is compared, at the counties and at the hub, record by record.");
        let equal = self.compare_all()?;
        let records = u64::from(self.rows) * u64::from(counties);
        println!(
            "\n{} partitions, about {records} records, {:.1} s: {}",
            counties,
            started.elapsed().as_secs_f64(),
            if equal {
                "every partition is in sync. 全部一致。"
            } else {
                "NOT everything is in sync"
            }
        );
        Ok(if equal { Done::Well } else { Done::Attention })
    }

    fn make_hub(&mut self) -> anyhow::Result<()> {
        let dir = NodeDir::new(&self.root.join("hub"));
        let hub = NewHub {
            root_key_dir: None,
            federation: FederationId::new("demo")?,
            suite: Suite::One,
            node: NodeId::new("410100")?,
            name: "示例市信用中心（演示）".into(),
            listen: free_address()?,
        };
        app::init::init(&dir, &hub)?;
        let mut node = DemoNode { dir, name: "hub 410100".into(), daemon: None };
        node.start()?;
        println!("hub    410100 listens on {} (QUIC, mutual TLS)", hub.listen);
        self.nodes.push(node);
        Ok(())
    }

    fn join_county(&mut self, index: u32) -> anyhow::Result<()> {
        let id = format!("4101{:02}", 22 + index);
        let name = Some(format!("示例县{}（演示）", index + 1));
        let request = Request::Invite { node: id.clone(), name, ttl_s: 600, address: None };
        let token = text_of(&self.nodes[0].ask(&request)?["token"]);
        let dir = NodeDir::new(&self.root.join(&id));
        command(&dir).args(["join", &token]).stderr(Stdio::null()).status().context("join")?;
        let mut node = DemoNode { dir, name: format!("county {id}"), daemon: None };
        node.start()?;
        println!("county {id} joined with a token of {} characters", token.len());
        self.nodes.push(node);
        Ok(())
    }

    fn import_first(&self, index: usize) -> anyhow::Result<()> {
        let file = self.root.join(format!("{index}.csv"));
        write_rows(&file, index, 0..self.rows, "第一批")?;
        let report = self.nodes[index].import(&file)?;
        println!(
            "{}: {} rows imported, {} change sets, {:.2} s",
            self.nodes[index].name,
            text_of(&report["inserted"]),
            text_of(&report["change_sets"]),
            report["seconds"].as_f64().unwrap_or_default()
        );
        Ok(())
    }

    fn change_one(&self) -> anyhow::Result<()> {
        let file = self.root.join("one.csv");
        write_rows(&file, 1, 1..2, "变更后")?;
        let before = Instant::now();
        let report = self.nodes[1].import(&file)?;
        let committed = Instant::now();
        self.wait_until_equal("the change is at the hub")?;
        println!(
            "{}: {} updated; imported in {} ms, seen at the hub {} ms later",
            self.nodes[1].name,
            text_of(&report["updated"]),
            (committed - before).as_millis(),
            committed.elapsed().as_millis()
        );
        let key = vec![synthetic_code(1, 1)];
        let found = self.nodes[0].ask(&Request::Get { dataset: "enterprise".into(), key })?;
        println!("the hub's copy: {}", text_of(&found[0]["record"]["name"]));
        Ok(())
    }

    fn offline_and_back(&mut self) -> anyhow::Result<()> {
        let last = self.nodes.len() - 1;
        self.nodes[last].stop()?;
        let name = self.nodes[last].name.clone();
        println!("{name}: switched off");
        let file = self.root.join("offline.csv");
        write_rows(&file, last, 0..self.rows / 2, "离线期间更新")?;
        // Without a daemon the command does it itself.
        let done = command(&self.nodes[last].dir)
            .args(["import", "enterprise"])
            .arg(&file)
            .stdout(Stdio::null())
            .status()?;
        if !done.success() {
            bail!("{name}: the import did not succeed");
        }
        let hub = self.nodes[0].ask(&Request::Status)?;
        let partition = format!("enterprise/{}", self.nodes[last].dir_name());
        let state = partition_of(&hub, &partition).map(|found| text_of(&found["state"]));
        println!(
            "{name}: {} rows changed offline; the hub says '{}'",
            self.rows / 2,
            state.unwrap_or_default()
        );
        let before = Instant::now();
        self.nodes[last].start()?;
        self.wait_until_equal("the county has caught up")?;
        println!("{name}: back, and caught up after {} ms", before.elapsed().as_millis());
        Ok(())
    }

    /// Waits until every county's own partition has the same head at the hub,
    /// and the hub knows that it is in sync.
    fn wait_until_equal(&self, what: &str) -> anyhow::Result<()> {
        let deadline = Instant::now() + STEP_MAX;
        loop {
            let hub = self.nodes[0].ask(&Request::Status)?;
            let mut waiting = Vec::new();
            for county in &self.nodes[1..] {
                let name = format!("enterprise/{}", county.dir_name());
                let own = county.ask(&Request::Status)?;
                let own = partition_of(&own, &name).map(|found| found["head"].clone());
                let copy = partition_of(&hub, &name);
                let in_sync = copy.is_some_and(|copy| {
                    copy["state"] == "in_sync" && Some(&copy["head"]) == own.as_ref()
                });
                if !in_sync {
                    waiting.push(name);
                }
            }
            if waiting.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("waited {} s, but not: {what} ({})", STEP_MAX.as_secs(), waiting.join(", "));
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn show_hub(&self) -> anyhow::Result<()> {
        println!();
        super::status::print_status(&self.nodes[0].ask(&Request::Status)?);
        Ok(())
    }

    fn compare_all(&self) -> anyhow::Result<bool> {
        let verify = Request::Verify { partition: None, deep: true };
        let hub = self.nodes[0].ask(&verify)?;
        let mut rows = Vec::new();
        let mut all_equal = hub["ok"] == true;
        for county in &self.nodes[1..] {
            let own = county.ask(&verify)?;
            let name = format!("enterprise/{}", county.dir_name());
            let (own, copy) = (partition_of(&own, &name), partition_of(&hub, &name));
            let (Some(own), Some(copy)) = (own, copy) else {
                all_equal = false;
                continue;
            };
            let equal = own["root"] == copy["root"]
                && own["head"] == copy["head"]
                && own["ok"] == true
                && copy["ok"] == true;
            all_equal &= equal;
            let cut = |value: &Json| text_of(value).chars().take(16).collect::<String>();
            rows.push(vec![
                name,
                text_of(&own["records_read"]),
                cut(&own["root"]),
                cut(&copy["root"]),
                if equal { "equal / 一致" } else { "DIFFERENT / 不一致" }.to_owned(),
            ]);
        }
        print_table(&["PARTITION", "RECORDS", "ROOT AT COUNTY", "ROOT AT HUB", ""], &rows);
        Ok(all_equal)
    }
}

impl DemoNode {
    fn dir_name(&self) -> String {
        self.dir
            .path()
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default()
    }

    fn start(&mut self) -> anyhow::Result<()> {
        let log = File::create(self.dir.path().join("demo.log"))
            .with_context(|| format!("{}: write its log", self.name))?;
        let mut child = command(&self.dir)
            .arg("run")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {}", self.name))?;
        let stdout = child.stdout.take().context("the daemon's output")?;
        self.daemon = Some(child);
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).context("wait for the daemon")?;
        if line.trim() != "ready" {
            bail!("{} did not start; see {}/demo.log", self.name, self.dir.path().display());
        }
        Ok(())
    }

    fn stop(&mut self) -> anyhow::Result<()> {
        let Some(mut child) = self.daemon.take() else {
            return Ok(());
        };
        if let Some(pid) = rustix::process::Pid::from_raw(i32::try_from(child.id())?) {
            // An error means that it is gone already.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        child.wait().context("wait for the daemon to end")?;
        Ok(())
    }

    fn ask(&self, request: &Request) -> anyhow::Result<Json> {
        self.ask_about(request, None)
    }

    fn ask_about(&self, request: &Request, file: Option<&File>) -> anyhow::Result<Json> {
        let file = file.map(File::as_fd);
        let answer = admin::ask(&self.dir.socket(), request, file, &mut |_| Ok(()))
            .with_context(|| format!("ask {}", self.name))?;
        Ok(answer.with_context(|| format!("{} does not run", self.name))?.0)
    }

    fn import(&self, file: &Path) -> anyhow::Result<Json> {
        let opened = File::open(file).with_context(|| format!("open {}", file.display()))?;
        let request = Request::Import {
            dataset: "enterprise".into(),
            path: file.display().to_string(),
            full: false,
            reading: crate::sources::Reading::default(),
            wait_s: None,
        };
        self.ask_about(&request, Some(&opened))
    }
}

/// This program, for the node in `dir`.
fn command(dir: &NodeDir) -> Command {
    let program = std::env::current_exe().unwrap_or_else(|_| "creditsync".into());
    let mut command = Command::new(program);
    command.arg("--dir").arg(dir.path()).env_remove("CREDITSYNC_DIR");
    command
}

fn partition_of<'a>(answer: &'a Json, name: &str) -> Option<&'a Json> {
    answer["partitions"].as_array()?.iter().find(|found| found["partition"] == name)
}

/// A loopback address whose UDP port was free a moment ago.
fn free_address() -> anyhow::Result<SocketAddr> {
    let socket = UdpSocket::bind(("127.0.0.1", 0)).context("find a free port")?;
    Ok(socket.local_addr()?)
}

/// A credit code with a valid check character that no authority has issued: the
/// division 999999 does not exist.
fn synthetic_code(county: usize, row: u32) -> String {
    let first = format!("91999999{county:02}{row:07}");
    let check = check_character(first.as_bytes());
    first + &check.to_string()
}

fn write_rows(
    path: &Path,
    county: usize,
    rows: std::ops::Range<u32>,
    batch: &str,
) -> anyhow::Result<()> {
    let file = File::create(path).with_context(|| format!("write {}", path.display()))?;
    let mut out = std::io::BufWriter::new(file);
    writeln!(
        out,
        "企业名称,统一社会信用代码,注册日期,企业类型,注册资金,经营范围,所在省份,地区,注册地址"
    )?;
    for row in rows {
        let code = synthetic_code(county, row);
        let (month, day) = (row % 12 + 1, row % 28 + 1);
        writeln!(
            out,
            "合成示例企业{county}-{row}号（{batch}）,{code},20{:02}-{month:02}-{day:02},有限责任公司,{}万人民币,\"演示数据，非真实企业；软件开发、技术服务\",示例省,示例市,示例路{row}号",
            row % 24,
            row % 900 + 100
        )?;
    }
    Ok(out.flush()?)
}

#[cfg(test)]
mod tests {
    use super::synthetic_code;

    #[test]
    fn synthetic_codes_pass_their_check() {
        for row in 0..100 {
            let code = synthetic_code(3, row);
            assert_eq!(protocol::uscc::judge(&code), Ok(protocol::uscc::Quality::Valid), "{code}");
        }
    }
}
