//! A network of its own for each system under test, and the processes in it.
//!
//! With root's rights it is a network namespace with nothing but a loopback
//! interface: its counter then holds the bytes of the system and of nobody else.
//! Without, it is the machine's own loopback interface. A process that is started
//! here ends with the benchmark, however that ends.

use std::{
    net::{TcpListener, UdpSocket},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

/// No single step of a work takes longer, unless it never ends.
pub const STEP_MAX: Duration = Duration::from_secs(600);
/// A process that was asked to end is killed after this.
const STOP_MAX: Duration = Duration::from_secs(60);
/// Between looks at something that takes much longer.
pub const PATIENCE: Duration = Duration::from_millis(5);

/// Where a system's processes talk to each other.
pub struct Network {
    namespace: Option<String>,
}

impl Network {
    /// A new one.
    pub fn new(system: &str) -> anyhow::Result<Self> {
        let name = format!("creditsync-bench-{}-{system}", std::process::id());
        let ip = |arguments: &[&str]| {
            let output = Command::new("ip").args(arguments).output();
            output.is_ok_and(|output| output.status.success())
        };
        if !ip(&["netns", "add", &name]) {
            return Ok(Self { namespace: None });
        }
        let network = Self { namespace: Some(name.clone()) };
        ensure!(ip(&["-n", &name, "link", "set", "lo", "up"]), "no loopback interface in {name}");
        Ok(network)
    }

    /// What the bytes are counted on, for the notes.
    pub fn describe(&self) -> &'static str {
        match self.namespace {
            Some(_) => "the loopback interface of a network namespace of its own for each system",
            None => "the machine's loopback interface, with everything else that talks there",
        }
    }

    /// A command that runs in this network.
    pub fn command(&self, program: &str) -> Command {
        self.command_with(&["--pdeathsig", "KILL"], program)
    }

    /// The same as another user. SIGINT at the benchmark's end: PostgreSQL takes
    /// it for a quick but orderly stop, and removes its shared memory.
    pub fn command_as(&self, user: &str, program: &str) -> Command {
        let identity = ["--reuid", user, "--regid", user, "--init-groups", "--pdeathsig", "INT"];
        self.command_with(&identity, program)
    }

    fn command_with(&self, setpriv: &[&str], program: &str) -> Command {
        let mut command = match &self.namespace {
            Some(name) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", name, "setpriv"]);
                command
            }
            None => Command::new("setpriv"),
        };
        command.args(setpriv).arg("--").arg(program).stdin(Stdio::null());
        command
    }

    /// Bytes that have gone over the wire so far, in both directions, with all
    /// headers of IP and what lies on it.
    pub fn bytes(&self) -> anyhow::Result<u64> {
        let counters = match &self.namespace {
            Some(_) => text_of(self.command("cat").arg("/proc/net/dev"))?,
            None => std::fs::read_to_string("/proc/net/dev")?,
        };
        let line = counters.lines().find_map(|line| line.trim().strip_prefix("lo:"));
        let received = line.and_then(|line| line.split_whitespace().next());
        received.context("no loopback interface")?.parse().context("the counter of bytes")
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if let Some(name) = &self.namespace {
            let deleted = Command::new("ip").args(["netns", "delete", name]).status();
            if !deleted.is_ok_and(|status| status.success()) {
                eprintln!("the network namespace {name} could not be removed");
            }
        }
    }
}

/// The standard output of a command that has to succeed.
pub fn text_of(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("start {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    String::from_utf8(output.stdout).context("its output is text")
}

/// Runs a command that has to succeed; what it prints is of no interest.
pub fn run(command: &mut Command) -> anyhow::Result<()> {
    text_of(command).map(drop)
}

/// A process that is stopped when it is dropped.
pub struct Process {
    child: Child,
    stop_with: Signal,
}

impl Process {
    /// Starts a command; `stop_with` asks it to end.
    pub fn start(command: &mut Command, stop_with: Signal) -> anyhow::Result<Self> {
        let child = command.spawn().with_context(|| format!("start {command:?}"))?;
        Ok(Self { child, stop_with })
    }

    /// Its id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The process itself, for its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> anyhow::Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Asks it to end and waits for that.
    pub fn stop(mut self) -> anyhow::Result<()> {
        self.end().map(drop)
    }

    fn end(&mut self) -> anyhow::Result<ExitStatus> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        let id = Pid::from_raw(i32::try_from(self.id())?).context("a process has an id")?;
        kill_process(id, self.stop_with)?;
        let deadline = Instant::now() + STOP_MAX;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                self.child.kill()?;
                self.child.wait()?;
                bail!("a process did not end when it was asked to");
            }
            std::thread::sleep(PATIENCE);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("a process could not be stopped: {error:#}");
        }
    }
}

/// Looks until `done` answers true, for at most [`STEP_MAX`]. `pause` lies between
/// looks where looking takes a share of the machine; without one nothing is missed.
pub fn wait_until(
    what: &str,
    pause: Duration,
    mut done: impl FnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + STEP_MAX;
    while !done()? {
        ensure!(Instant::now() < deadline, "waited too long until {what}");
        if pause.is_zero() {
            std::thread::yield_now();
        } else {
            std::thread::sleep(pause);
        }
    }
    Ok(())
}

/// A port that is free on this machine's loopback interface.
pub fn free_port() -> anyhow::Result<u16> {
    let tcp = TcpListener::bind(("127.0.0.1", 0))?;
    let address = tcp.local_addr()?;
    // creditsync wants the same of UDP.
    UdpSocket::bind(address).context("a port that is free for TCP and UDP")?;
    Ok(address.port())
}
