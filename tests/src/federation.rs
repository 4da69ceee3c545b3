//! A hub and its counties, made as administrators make them: `init`, `invite`,
//! `join`, `run`.

use std::{
    net::{SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU16, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use serde_json::Value as Json;
use tempfile::TempDir;

use crate::node::{DEADLINE, Node, wait_for_ok, wait_until};

/// The hub's name in every federation of the tests.
pub const HUB: &str = "410100";
/// Counties that are made at once.
const MAKERS: usize = 4;

/// How a federation is made, where it is not as always.
#[derive(Default)]
pub struct Making<'a> {
    /// More arguments of `init`.
    pub init: &'a [&'a str],
    /// What is set in the hub's `creditsync.toml` before it starts.
    pub hub: &'a [(&'a str, &'a str)],
    /// What is set in every county's before it starts.
    pub county: &'a [(&'a str, &'a str)],
    /// What every node's processes see.
    pub environment: &'a [(&'a str, &'a str)],
    /// The program of all nodes, if it is not the one under test.
    pub program: Option<&'a Path>,
}

/// A running federation in a directory of its own.
pub struct Federation {
    /// The municipal centre.
    pub hub: Node,
    /// The counties, in the order in which they were named.
    pub counties: Vec<Node>,
    address: SocketAddr,
    county_settings: Vec<(String, String)>,
    environment: Vec<(String, String)>,
    program: Option<PathBuf>,
    dir: TempDir,
}

impl Federation {
    /// A running hub with these counties, all running and connected.
    #[track_caller]
    pub fn new(counties: &[&str]) -> Self {
        let mut federation = Self::hub_only();
        for county in counties {
            federation.add_county(county);
        }
        federation.wait_connected();
        federation
    }

    /// A running hub, alone.
    #[track_caller]
    pub fn hub_only() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        Self::with_hub_in(dir.path().join("hub"), dir)
    }

    /// A running hub in `hub`, and `dir` for everything else.
    #[track_caller]
    pub fn with_hub_in(hub: PathBuf, dir: TempDir) -> Self {
        Self::made_in(hub, dir, &Making::default())
    }

    /// A running hub, alone, made as `making` says.
    #[track_caller]
    pub fn made(making: &Making<'_>) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        Self::made_in(dir.path().join("hub"), dir, making)
    }

    #[track_caller]
    fn made_in(hub: PathBuf, dir: TempDir, making: &Making<'_>) -> Self {
        let owned = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
        };
        let address = free_address();
        let listen = address.to_string();
        let options = ["--federation", "test-city", "--node", HUB, "--name", "测试市", "--listen"];
        let mut arguments = vec!["init"];
        arguments.extend(options);
        arguments.push(&listen);
        arguments.extend(making.init);
        let mut hub = Node::new(HUB, &hub);
        hub.set_program(making.program);
        for (name, value) in making.environment {
            hub.set_environment(name, Some(value));
        }
        hub.cli(&arguments).expect_code(0);
        for (key, value) in making.hub {
            hub.configure(key, value);
        }
        hub.start();
        let (county_settings, environment) = (owned(making.county), owned(making.environment));
        let program = making.program.map(Path::to_owned);
        Self { hub, counties: Vec::new(), address, county_settings, environment, program, dir }
    }

    /// Invites `name`, joins it in a directory of the federation and starts it.
    #[track_caller]
    pub fn add_county(&mut self, name: &str) -> &mut Node {
        let dir = self.dir.path().join(name);
        self.add_county_in(name, &dir, self.address)
    }

    /// The same in a directory of choice, by way of `address`.
    #[track_caller]
    pub fn add_county_in(&mut self, name: &str, dir: &Path, address: SocketAddr) -> &mut Node {
        let county = self.make_county(name, dir, address);
        self.counties.push(county);
        self.counties.last_mut().expect("one was pushed")
    }

    /// Adds many, a few at a time; each by way of the address of its number.
    #[track_caller]
    pub fn add_counties(&mut self, names: &[String], address: impl Fn(usize) -> SocketAddr + Sync) {
        let next = AtomicUsize::new(0);
        let federation = &*self;
        let make = || {
            let mut made = Vec::new();
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(name) = names.get(at) else { return made };
                let dir = federation.dir().join(name);
                made.push(federation.make_county(name, &dir, address(at)));
            }
        };
        let mut made: Vec<Node> = thread::scope(|scope| {
            let makers = [(); MAKERS].map(|()| scope.spawn(make));
            makers.into_iter().flat_map(|maker| maker.join().expect("it joins")).collect()
        });
        made.sort_by(|one, other| one.name().cmp(other.name()));
        self.counties.extend(made);
    }

    fn make_county(&self, name: &str, dir: &Path, address: SocketAddr) -> Node {
        let token = self.invite(name, &["--address", &address.to_string()]);
        let mut county = Node::new(name, dir);
        county.set_program(self.program.as_deref());
        for (name, value) in &self.environment {
            county.set_environment(name, Some(value));
        }
        county.cli(&["join", &token]).expect_code(0);
        // A hub that was away is dialled again at once, or tests take minutes.
        county.configure("retry_max_s", "1");
        for (key, value) in &self.county_settings {
            county.configure(key, value);
        }
        county.start();
        county
    }

    /// A join token for `name`.
    #[track_caller]
    pub fn invite(&self, name: &str, options: &[&str]) -> String {
        let arguments = [&["invite", name], options].concat();
        self.hub.cli(&arguments).expect_code(0).stdout.trim().to_owned()
    }

    /// Where the hub listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A directory for the test's own files.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// All nodes, the hub first.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        std::iter::once(&self.hub).chain(&self.counties)
    }

    /// Waits until the hub and every county know each other as connected.
    #[track_caller]
    pub fn wait_connected(&self) {
        wait_until("everybody is connected", || {
            self.nodes().all(|node| {
                let status = node.status();
                let peers = status["peers"].as_array().expect("the status lists peers");
                peers.iter().all(|peer| peer["connected"] == true)
            })
        });
    }

    /// Waits until every partition is the same wherever it has to be, every
    /// replica calls itself in sync, and every origin knows it.
    #[track_caller]
    pub fn wait_converged(&self) {
        self.wait_converged_for(DEADLINE);
    }

    /// As [`Federation::wait_converged`], with a deadline of its own.
    #[track_caller]
    pub fn wait_converged_for(&self, longest: Duration) {
        wait_for_ok("everything is in sync", longest, || self.compare_all());
    }

    /// Says what is not yet as it should be, if anything.
    fn compare_all(&self) -> Result<(), String> {
        let hub = self.hub.status();
        let of = |status: &Json, origin: &str| -> Vec<Json> {
            let all = status["partitions"].as_array().cloned().unwrap_or_default();
            all.into_iter().filter(|partition| partition["origin"] == origin).collect()
        };
        for county in &self.counties {
            let own = county.status();
            compare(&of(&own, county.name()), &of(&hub, county.name()), HUB)?;
            compare(&of(&hub, HUB), &of(&own, HUB), county.name())?;
        }
        Ok(())
    }

    /// The end of a test in which nothing was broken on purpose: everything is
    /// in sync and verifies everywhere, nobody logged an error, and all nodes
    /// stop when told to.
    #[track_caller]
    pub fn finish(mut self) {
        self.end();
        for node in self.nodes() {
            node.assert_no_errors();
        }
    }

    /// The end of a test in which something was broken on purpose, of which the nodes may
    /// have logged.
    #[track_caller]
    pub fn end(&mut self) {
        self.wait_converged();
        for node in self.nodes() {
            node.verify_deep();
        }
        for node in self.counties.iter_mut().chain([&mut self.hub]) {
            node.stop();
        }
    }
}

/// Compares one origin's partitions with their replicas at `follower`.
fn compare(origin: &[Json], replica: &[Json], follower: &str) -> Result<(), String> {
    if origin.len() != replica.len() {
        return Err(format!("{follower} has {} of {} partitions", replica.len(), origin.len()));
    }
    for (origin, replica) in origin.iter().zip(replica) {
        let fields = ["partition", "seq", "records", "head", "root"];
        let equal = fields.iter().all(|field| origin[field] == replica[field]);
        let acks = origin["acked"].as_array().cloned().unwrap_or_default();
        let acked = |ack: &Json| ack["node"] == follower && ack["seq"] == origin["seq"];
        let well = replica["state"] == "in_sync"
            && replica["behind_change_sets"] == 0
            && origin["state"] == "origin"
            && origin["behind_change_sets"] == 0
            && acks.iter().any(acked);
        if !equal || !well {
            return Err(format!("{origin:#}\nand at {follower}: {replica:#}"));
        }
    }
    Ok(())
}

/// A loopback address whose UDP port is free, and stays so while its node is
/// down: below the ports that the system hands out by itself.
pub fn free_address() -> SocketAddr {
    const FIRST: u16 = 12_000;
    const PORTS: u16 = 18_000;
    static TRIED: AtomicU16 = AtomicU16::new(0);
    // Tests of one run are processes with neighbouring ids.
    let start = std::process::id().wrapping_mul(37);
    loop {
        let tried = TRIED.fetch_add(1, Ordering::Relaxed);
        assert!(tried < PORTS, "no UDP port is free");
        let offset = start.wrapping_add(u32::from(tried)) % u32::from(PORTS);
        let port = FIRST + u16::try_from(offset).expect("it is below PORTS");
        if let Ok(socket) = UdpSocket::bind(("127.0.0.1", port)) {
            return socket.local_addr().expect("it is bound");
        }
    }
}
