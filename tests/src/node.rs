//! A real node: its directory, its `creditsync run` process, and the commands
//! an administrator would give.
//!
//! Used by every end-to-end test, mostly through [`crate::federation`].
//! Nothing here waits for time to pass: [`wait_until`] looks again and again
//! until a condition holds. A node that is dropped takes its process with it,
//! and if its test is failing, shows what lies in its directory and the end of
//! its log.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::OnceLock,
    time::{Duration, Instant, SystemTime},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value as Json;

/// Nothing on a busy machine takes longer than this unless it never happens.
pub const DEADLINE: Duration = Duration::from_secs(60);
/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Lines of a log that a failing test shows.
const LOG_TAIL_LINES: usize = 40;

/// Where a node's log is, in its directory.
const LOG_FILE: &str = "daemon.log";

/// What a command did.
#[derive(Debug, Clone)]
pub struct Output {
    /// The exit code; `None` after a signal.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Output {
    /// Panics unless the exit code is `expected`.
    #[track_caller]
    pub fn expect_code(self, expected: i32) -> Self {
        assert_eq!(self.code, Some(expected), "{self:#?}");
        self
    }

    /// Panics unless the command failed with exit code 1, an empty standard
    /// output, and all of `words` in its complaint.
    #[track_caller]
    pub fn expect_failure(self, words: &[&str]) -> Self {
        let output = self.expect_code(1);
        assert_eq!(output.stdout, "", "standard output carries only answers");
        for word in words {
            assert!(output.stderr.contains(word), "'{word}' is missing: {}", output.stderr);
        }
        output
    }

    /// The one JSON document on standard output.
    #[track_caller]
    pub fn json(&self) -> Json {
        match serde_json::from_str(&self.stdout) {
            Ok(document) => document,
            Err(error) => panic!("not one JSON document ({error}): {self:#?}"),
        }
    }
}

/// Copies a directory with all that is in it, as people do.
pub fn copy_all(from: &Path, to: &Path) {
    let copied = Command::new("cp").args(["-a", path_text(from), path_text(to)]).status();
    assert!(copied.is_ok_and(|status| status.success()), "{} is copied", from.display());
}

/// Looks at `condition` until it holds, for at most [`DEADLINE`].
#[track_caller]
pub fn wait_until(what: &str, condition: impl FnMut() -> bool) {
    wait_for(what, DEADLINE, condition);
}

/// Looks at `condition` until it holds, for at most `longest`.
#[track_caller]
pub fn wait_for(what: &str, longest: Duration, mut condition: impl FnMut() -> bool) {
    wait_for_ok(what, longest, || if condition() { Ok(()) } else { Err(String::new()) });
}

/// Looks until nothing is missing any more, for at most `longest`; shows what
/// was missing last.
#[track_caller]
pub fn wait_for_ok(what: &str, longest: Duration, mut missing: impl FnMut() -> Result<(), String>) {
    let started = Instant::now();
    while let Err(missing) = missing() {
        assert!(started.elapsed() < longest, "waited {longest:?}, but not: {what} {missing}");
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Runs `creditsync` with these arguments, in no particular directory.
pub fn creditsync(arguments: &[&str]) -> Output {
    run(command().args(arguments))
}

/// The program, with an environment that names no node.
pub fn command() -> Command {
    command_of(program())
}

fn command_of(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_remove("CREDITSYNC_DIR").stdin(Stdio::null());
    command
}

/// Runs a prepared command to its end.
pub fn run(command: &mut Command) -> Output {
    let output = command.output().expect("creditsync starts");
    Output {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).expect("standard output is UTF-8"),
        stderr: String::from_utf8(output.stderr).expect("standard error is UTF-8"),
    }
}

/// The `creditsync` under test: `CREDITSYNC_BIN`, else the one of this test's
/// own profile, built if it is missing or older than its sources.
pub fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        if let Some(given) = std::env::var_os("CREDITSYNC_BIN") {
            return given.into();
        }
        let test = std::env::current_exe().expect("this test has a path");
        let profile = test.ancestors().nth(2).expect("tests lie in target/PROFILE/deps");
        let program = profile.join("creditsync");
        let workspace = workspace();
        let built = fs::metadata(&program).and_then(|file| file.modified()).ok();
        let sources = ["protocol", "certs", "config", "daemon"].map(|name| workspace.join(name));
        let newest = sources.iter().filter_map(|dir| newest_file(dir)).max();
        if built.is_none() || built < newest {
            let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
            cargo.args(["build", "--quiet", "--package", "creditsync", "--bin", "creditsync"]);
            let name = profile.file_name().expect("a profile's directory has a name");
            if name != "debug" {
                cargo.arg("--profile").arg(name);
            }
            let built = cargo.current_dir(workspace).status().expect("cargo starts");
            assert!(built.success(), "creditsync does not build");
        }
        program
    })
}

/// The root of the source tree.
pub fn workspace() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("the tests lie in the workspace").to_owned()
}

fn newest_file(dir: &Path) -> Option<SystemTime> {
    let entries = fs::read_dir(dir).ok()?.flatten();
    let newest = entries.filter_map(|entry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => newest_file(&entry.path()),
        _ => entry.metadata().and_then(|file| file.modified()).ok(),
    });
    newest.max()
}

/// A node and, while it runs, its process.
pub struct Node {
    name: String,
    dir: PathBuf,
    environment: BTreeMap<String, String>,
    /// Another program than the one under test.
    program: Option<PathBuf>,
    daemon: Option<Child>,
}

impl Node {
    /// The node in `dir`, which need not exist yet. Nothing is started.
    pub fn new(name: &str, dir: &Path) -> Self {
        let (name, dir) = (name.to_owned(), dir.to_owned());
        Self { name, dir, environment: BTreeMap::new(), program: None, daemon: None }
    }

    /// Another handle for commands to the same node: not its process.
    pub fn handle(&self) -> Self {
        let (name, dir) = (self.name.clone(), self.dir.clone());
        let (environment, program) = (self.environment.clone(), self.program.clone());
        Self { name, dir, environment, program, daemon: None }
    }

    /// From now on its daemon and its commands see this variable, or not any
    /// more.
    pub fn set_environment(&mut self, name: &str, value: Option<&str>) {
        match value {
            Some(value) => self.environment.insert(name.to_owned(), value.to_owned()),
            None => self.environment.remove(name),
        };
    }

    /// From now on its daemon and its commands are of this program; none is the one
    /// under test.
    pub fn set_program(&mut self, program: Option<&Path>) {
        self.program = program.map(Path::to_owned);
    }

    /// Its id.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// How `dataset`'s partition of this node is written.
    pub fn own(&self, dataset: &str) -> String {
        format!("{dataset}/{}", self.name)
    }

    /// Sets a value in `creditsync.toml` as its comments say: the `#` is taken
    /// away. Counts from the next start.
    pub fn configure(&self, key: &str, value: &str) {
        let path = self.dir.join("creditsync.toml");
        let text = fs::read_to_string(&path).expect("a node has a configuration");
        let (given, default) = (format!("{key} = "), format!("# {key} = "));
        let mut found = 0;
        let mut configured = String::new();
        for line in text.lines() {
            if line.starts_with(&given) || line.starts_with(&default) {
                found += 1;
                configured.push_str(&format!("{key} = {value}\n"));
            } else {
                configured.push_str(&format!("{line}\n"));
            }
        }
        assert_eq!(found, 1, "{key} in {}", path.display());
        fs::write(&path, configured).expect("the configuration is written");
    }

    /// Starts the daemon and waits until it is ready.
    #[track_caller]
    pub fn start(&mut self) {
        if let Err(problem) = self.try_start() {
            panic!("{} did not start: {problem}", self.name);
        }
    }

    /// Starts the daemon and waits until it is ready, or has ended; then says
    /// what it complained about.
    pub fn try_start(&mut self) -> Result<(), String> {
        assert!(self.daemon.is_none(), "{} runs already", self.name);
        let mut log = fs::File::options();
        let log = log.create(true).append(true).open(self.log_path()).expect("the log opens");
        let before = log.metadata().map_or(0, |file| file.len());
        let mut daemon = self
            .command(&["run"])
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("creditsync starts");
        let stdout = daemon.stdout.take().expect("it was piped");
        let mut line = String::new();
        // Ends when the daemon does, if not before.
        BufReader::new(stdout).read_line(&mut line).expect("the daemon's output is text");
        if line == "ready\n" {
            self.daemon = Some(daemon);
            return Ok(());
        }
        let status = daemon.wait().expect("the daemon ends");
        let said = self.log().split_off(usize::try_from(before).expect("a log fits in memory"));
        Err(format!("{line:?}, {status}: {said}"))
    }

    /// Kills the daemon as a crash would. It must have been running.
    pub fn kill_9(&mut self) {
        let mut daemon = self.daemon.take().expect("the daemon was started");
        assert_eq!(daemon.try_wait().expect("it is ours"), None, "{} ended by itself", self.name);
        daemon.kill().expect("it is ours");
        daemon.wait().expect("it is ours");
    }

    /// Starts the daemon, which has to die at a point of [`certs::fault`]: at
    /// once, or when it meets it.
    #[track_caller]
    pub fn start_to_crash(&mut self, point: &str) {
        match self.try_start_to_crash(point) {
            Ok(()) => self.wait_crashed(point),
            Err(problem) => assert!(problem.contains("signal: 6"), "{problem}"),
        }
    }

    /// Starts the daemon, which will die at a point of [`certs::fault`]:
    /// [`Node::wait_crashed`] waits for that.
    pub fn try_start_to_crash(&mut self, point: &str) -> Result<(), String> {
        self.set_environment(certs::fault::VARIABLE, Some(point));
        let started = self.try_start();
        self.set_environment(certs::fault::VARIABLE, None);
        started
    }

    /// Waits until the daemon, which was started with a point to die at, is dead.
    #[track_caller]
    pub fn wait_crashed(&mut self, point: &str) {
        let name = self.name.clone();
        let mut status: Option<ExitStatus> = None;
        // It is let go of only when it is dead: it would outlive a test that fails.
        let daemon = self.daemon.as_mut().expect("the daemon was started");
        wait_until(&format!("{name} meets {point}"), || {
            status = daemon.try_wait().expect("it is ours");
            status.is_some()
        });
        self.daemon = None;
        let code = status.map(|status| status.code());
        assert_eq!(code, Some(None), "{}: {point} ended it otherwise", self.name);
    }

    /// Runs a command that has to die at a point of [`certs::fault`].
    #[track_caller]
    pub fn crash(&self, arguments: &[&str], point: &str) {
        let mut command = self.command(arguments);
        let output = run(command.env(certs::fault::VARIABLE, point));
        assert_eq!(output.code, None, "{point} is not met: {output:#?}");
    }

    /// Sends the daemon a signal.
    pub fn signal(&self, signal: Signal) {
        send(self.daemon.as_ref().expect("the daemon was started"), signal);
    }

    /// Stops the daemon as a service manager would: it must end well.
    #[track_caller]
    pub fn stop(&mut self) {
        let mut daemon = self.daemon.take().expect("the daemon was started");
        send(&daemon, Signal::TERM);
        let mut status = None;
        wait_until("the daemon ends", || {
            status = daemon.try_wait().expect("it is ours");
            status.is_some()
        });
        assert!(status.is_some_and(|status| status.success()), "{}: {status:?}", self.name);
    }

    /// Stops and starts it.
    #[track_caller]
    pub fn restart(&mut self) {
        self.stop();
        self.start();
    }

    /// Whether the daemon was started and has not ended.
    pub fn is_running(&mut self) -> bool {
        self.daemon.as_mut().is_some_and(|daemon| matches!(daemon.try_wait(), Ok(None)))
    }

    /// Runs a command for this node.
    pub fn cli(&self, arguments: &[&str]) -> Output {
        run(&mut self.command(arguments))
    }

    /// A command for this node, not yet started.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = command_of(self.program.as_deref().unwrap_or_else(|| program()));
        command.envs(&self.environment).arg("--dir").arg(&self.dir).args(arguments);
        command
    }

    /// The answer of a command that takes `--json` and must succeed.
    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> Json {
        let arguments = [arguments, &["--json"]].concat();
        self.cli(&arguments).expect_code(0).json()
    }

    /// `status --json`.
    #[track_caller]
    pub fn status(&self) -> Json {
        self.json(&["status"])
    }

    /// The alarms of its status; not the one about the disk, which says something of the
    /// machine that the tests run on.
    #[track_caller]
    pub fn alarms(&self) -> Vec<String> {
        let status = self.status();
        let alarms = status["alarms"].as_array().expect("the status lists alarms");
        let alarms = alarms.iter().map(|alarm| alarm.as_str().expect("a text").to_owned());
        alarms.filter(|alarm| !alarm.starts_with("the disk of ")).collect()
    }

    /// One peer of the status.
    #[track_caller]
    pub fn peer(&self, name: &str) -> Json {
        let mut status = self.status();
        let peers = status["peers"].as_array_mut().expect("the status lists peers");
        let at = peers.iter().position(|found| found["node"] == name);
        peers.swap_remove(at.unwrap_or_else(|| panic!("{name} is no peer: {peers:#?}")))
    }

    /// Waits until the reason of a peer's absence has all of `words`; answers it.
    #[track_caller]
    pub fn wait_reason(&self, peer: &str, words: &[&str]) -> String {
        let mut reason = String::new();
        wait_for_ok(&format!("the reason says {words:?}"), DEADLINE, || {
            let state = self.peer(peer);
            reason = state["reason"].as_str().unwrap_or_default().to_owned();
            let said = words.iter().all(|word| reason.contains(word));
            let away = state["connected"] == false;
            if said && away { Ok(()) } else { Err(format!("{state:#}")) }
        });
        reason
    }

    /// Waits until a peer is connected.
    #[track_caller]
    pub fn wait_connected(&self, peer: &str) {
        wait_for_ok(&format!("{peer} is connected"), DEADLINE, || {
            let state = self.peer(peer);
            if state["connected"] == true { Ok(()) } else { Err(format!("{state:#}")) }
        });
    }

    /// Its own certificate, as the status shows it.
    #[track_caller]
    pub fn certificate(&self) -> Json {
        self.status()["certificates"][0].clone()
    }

    /// The id of the key that signs for it.
    #[track_caller]
    pub fn signing_key(&self) -> String {
        let shown = self.json(&["cert", "show"]);
        shown["signing_key"].as_str().expect("an id is text").to_owned()
    }

    /// Lines of the log that have all of `words`.
    pub fn log_lines(&self, words: &[&str]) -> Vec<String> {
        let log = self.log();
        let has_all = |line: &&str| words.iter().all(|word| line.contains(word));
        log.lines().filter(has_all).map(str::to_owned).collect()
    }

    /// One partition of the status.
    #[track_caller]
    pub fn partition(&self, partition: &str) -> Option<Json> {
        let mut status = self.status();
        let partitions = status["partitions"].as_array_mut()?;
        let at = partitions.iter().position(|found| found["partition"] == partition)?;
        Some(partitions.swap_remove(at))
    }

    /// The names of all partitions that the node holds.
    #[track_caller]
    pub fn partitions(&self) -> Vec<String> {
        let status = self.status();
        let partitions = status["partitions"].as_array().expect("the status lists partitions");
        let name = |found: &Json| found["partition"].as_str().expect("a name is text").to_owned();
        partitions.iter().map(name).collect()
    }

    /// Imports a file that has nothing wrong with it; answers the report.
    #[track_caller]
    pub fn import(&self, dataset: &str, file: &Path) -> Json {
        self.json(&["import", dataset, path_text(file)])
    }

    /// Imports a file as the whole partition; answers the report.
    #[track_caller]
    pub fn import_full(&self, dataset: &str, file: &Path) -> Json {
        self.json(&["import", dataset, path_text(file), "--full"])
    }

    /// `export` to standard output.
    #[track_caller]
    pub fn export(&self, target: &str) -> String {
        self.cli(&["export", target]).expect_code(0).stdout
    }

    /// Every record is read and hashed, and every root compared.
    #[track_caller]
    pub fn verify_deep(&self) {
        let answer = self.cli(&["verify", "--deep", "--json"]);
        // 3 if nobody is connected with whom it could be compared.
        assert!(matches!(answer.code, Some(0 | 3)), "{answer:#?}");
        let answer = answer.json();
        assert_eq!(answer["ok"], true, "{answer:#}");
    }

    /// Everything that the daemon has logged so far.
    pub fn log(&self) -> String {
        let mut text = Vec::new();
        if let Ok(mut file) = fs::File::open(self.log_path()) {
            file.read_to_end(&mut text).expect("the log is readable");
        }
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Panics if something was logged that must not happen.
    #[track_caller]
    pub fn assert_no_errors(&self) {
        let log = self.log();
        let is_wrong = |line: &&str| line.contains("ERROR ") || line.contains("panicked at");
        let wrong: Vec<&str> = log.lines().filter(is_wrong).collect();
        assert!(wrong.is_empty(), "{} logged: {wrong:#?}", self.name);
    }

    fn log_path(&self) -> PathBuf {
        // Beside the directory where that may be full.
        let outside = self.dir.with_extension("log");
        if outside.exists() { outside } else { self.dir.join(LOG_FILE) }
    }

    /// From now on the log lies beside the node's directory, which may be full.
    pub fn log_outside(&self) {
        fs::write(self.dir.with_extension("log"), self.log()).expect("the log is written");
    }

    fn show(&self) {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let tail = &lines[lines.len().saturating_sub(LOG_TAIL_LINES)..];
        let mut out = format!("\n== {} in {}\n", self.name, self.dir.display());
        list(&self.dir, &mut out);
        out.push_str(&format!("-- its log's end\n{}\n", tail.join("\n")));
        let _ = std::io::stderr().write_all(out.as_bytes());
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.show();
        }
        if let Some(mut daemon) = self.daemon.take() {
            // An error means that it is gone already.
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

/// Sends a signal to a process of ours.
pub fn send(child: &Child, signal: Signal) {
    let id = i32::try_from(child.id()).expect("a process id is small");
    let id = Pid::from_raw(id).expect("a process id is not 0");
    kill_process(id, signal).expect("it is ours and not yet waited for");
}

/// A path for the command line.
pub fn path_text(path: &Path) -> &str {
    path.to_str().expect("test paths are UTF-8")
}

/// Lists a directory with sizes, for a person.
fn list(dir: &Path, out: &mut String) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        let bytes = fs::symlink_metadata(&path).map_or(0, |file| file.len());
        if path.is_dir() {
            list(&path, out);
        } else {
            out.push_str(&format!("{bytes:>12} {}\n", path.display()));
        }
    }
}
