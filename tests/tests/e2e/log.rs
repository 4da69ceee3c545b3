//! Whoever reads a daemon's log may stop reading, or go away: the node works on.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, ChildStderr, Stdio},
};

use harness::{
    federation::Federation,
    node::{DEADLINE, Node, send, wait_for, wait_until},
    table::Table,
};
use rustix::process::Signal;

const COUNTY: &str = "410122";
/// Each of them says two kilobytes at the level of this test: more in all than the pipe
/// and the lines that wait have room for.
const IMPORTS: u32 = 250;

/// A daemon whose log is a pipe. Nothing of it outlives its test.
struct Piped {
    daemon: Child,
    log: Option<ChildStderr>,
}

impl Piped {
    #[track_caller]
    fn start(node: &Node) -> Self {
        let mut daemon = node
            .command(&["run"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("creditsync starts");
        let mut line = String::new();
        let stdout = daemon.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        let log = daemon.stderr.take();
        let started = Self { daemon, log };
        assert_eq!(line, "ready\n");
        started
    }

    /// It has to end well. Whoever reads begins when it is told to end.
    #[track_caller]
    fn stop_and_read(mut self) -> String {
        send(&self.daemon, Signal::TERM);
        let mut text = Vec::new();
        if let Some(mut log) = self.log.take() {
            log.read_to_end(&mut text).unwrap();
        }
        let mut status = None;
        wait_until("the daemon ends", || {
            status = self.daemon.try_wait().unwrap();
            status.is_some()
        });
        assert!(status.is_some_and(|status| status.success()), "{status:?}");
        String::from_utf8(text).expect("whole lines are UTF-8")
    }
}

impl Drop for Piped {
    fn drop(&mut self) {
        // An error means that it has ended.
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

/// A federation whose county is stopped and says much.
fn talkative() -> Federation {
    let mut federation = Federation::new(&[COUNTY]);
    let county = &mut federation.counties[0];
    county.stop();
    county.configure("level", "\"trace\"");
    federation
}

#[track_caller]
fn import(federation: &Federation, round: u32) {
    let table = Table::synthetic(1, 0..3, &format!("第{round}次"));
    let file = table.write(federation.dir(), "delivery.csv");
    federation.counties[0].import("enterprise", &file);
}

#[test]
fn a_log_that_nobody_reads_holds_nothing_up_and_says_what_it_lost() {
    let federation = talkative();
    let daemon = Piped::start(&federation.counties[0]);
    for round in 0..IMPORTS {
        import(&federation, round);
    }
    federation.wait_converged();
    let text = daemon.stop_and_read();
    let dropped = text.lines().find(|line| line.contains("lines of the log were dropped"));
    let dropped = dropped.unwrap_or_else(|| panic!("{} bytes, nothing dropped", text.len()));
    assert!(dropped.contains("WARN") && dropped.contains("lines="), "{dropped}");
    // What came behind it, up to the end, is there.
    assert!(text.lines().any(|line| line.contains("INFO stopped")), "{:?}", text.lines().last());
    assert!(text.len() < 1 << 20, "{} bytes were kept", text.len());
}

#[test]
fn a_daemon_whose_log_reader_goes_away_works_on_and_ends_well() {
    let federation = talkative();
    let mut daemon = Piped::start(&federation.counties[0]);
    drop(daemon.log.take());
    for round in 0..3 {
        import(&federation, round);
    }
    wait_for("it is connected all the same", DEADLINE, || {
        federation.hub.peer(COUNTY)["connected"] == true
    });
    federation.wait_converged();
    assert_eq!(daemon.stop_and_read(), "");
}

#[test]
fn a_daemon_that_cannot_start_says_why_into_a_pipe() {
    let federation = talkative();
    let county = &federation.counties[0];
    std::fs::write(county.dir().join("certs/node.pem"), "no certificate").unwrap();
    let said = county.command(&["run"]).stdin(Stdio::null()).output().unwrap();
    assert_eq!(said.status.code(), Some(1));
    let text = String::from_utf8(said.stderr).unwrap();
    assert!(text.lines().last().unwrap().contains("node.pem"), "{text}");
}
