//! Commands and daemons that meet at one directory: README's first lines, and
//! what a script does that waits for nothing.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, Stdio},
};

use harness::{
    federation::{Federation, HUB, free_address},
    node::{Node, path_text, send, wait_until},
    table::Table,
};
use rustix::process::Signal;

use super::cli::stopped_hub;

/// A daemon that nobody has waited for. It goes with the test.
struct Daemon(Child);

impl Daemon {
    /// `creditsync run &`
    fn start(node: &Node) -> Self {
        let mut command = node.command(&["run"]);
        Self(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    }

    fn end(&self) {
        send(&self.0, Signal::TERM);
    }

    /// What it has complained about until it ended.
    fn log(mut self) -> String {
        let mut log = String::new();
        self.0.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        self.0.wait().unwrap();
        log
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // An error means that it is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn an_invitation_follows_the_start_at_once() {
    let (_dir, hub) = stopped_hub();
    for round in 0..20 {
        let daemon = Daemon::start(&hub);
        let token = hub.cli(&["invite", "410122"]);
        assert_eq!(token.code, Some(0), "round {round}: {token:#?}");
        assert!(token.stdout.starts_with("creditsync-join-1."), "{token:#?}");
        // The daemon has come, whoever of the two was first.
        wait_until("the daemon answers", || hub.status()["uptime_s"].is_u64());
        daemon.end();
        let log = daemon.log();
        assert!(!log.contains("ERROR"), "{log}");
    }
}

#[test]
fn an_import_that_waits_for_the_hub_waits_for_its_own_daemon_too() {
    let (dir, hub) = stopped_hub();
    for round in 0..5 {
        let file = Table::synthetic(1, round..round + 3, "一").write(dir.path(), "rows.csv");
        let daemon = Daemon::start(&hub);
        let import = hub.cli(&["import", "enterprise", path_text(&file), "--wait", "60"]);
        assert_eq!(import.code, Some(0), "round {round}: {import:#?}");
        daemon.end();
        daemon.log();
    }
    let file = dir.path().join("rows.csv");
    hub.cli(&["import", "enterprise", path_text(&file), "--wait", "60"])
        .expect_failure(&["no daemon runs here", "--wait"]);
}

#[test]
fn commands_succeed_while_daemons_come_and_go() {
    let (_dir, hub) = stopped_hub();
    std::thread::scope(|scope| {
        let commands: Vec<_> = ["410122", "410181"]
            .map(|county| {
                let hub = hub.handle();
                scope.spawn(move || {
                    for round in 0..25 {
                        let output = hub.cli(&["invite", county]);
                        assert_eq!(output.code, Some(0), "round {round}: {output:#?}");
                    }
                })
            })
            .into();
        while commands.iter().any(|command| !command.is_finished()) {
            let mut daemon = Daemon::start(&hub);
            let mut said = String::new();
            let stdout = daemon.0.stdout.take().unwrap();
            BufReader::new(stdout).read_line(&mut said).unwrap();
            if said != "ready\n" {
                panic!("{said:?}: {}", daemon.log());
            }
            daemon.end();
            // The next one does not wait for this one's end.
            let next = Daemon::start(&hub);
            next.end();
            for log in [daemon.log(), next.log()] {
                assert!(!log.contains("ERROR"), "{log}");
            }
        }
    });
    hub.verify_deep();
}

#[test]
fn a_daemon_waits_for_a_command_and_says_so() {
    let (dir, mut hub) = stopped_hub();
    let file = Table::synthetic(1, 0..2000, "一").write(dir.path(), "rows.csv");
    hub.import("enterprise", &file);
    // It holds the directory until somebody reads what it prints.
    let mut export = hub.command(&["export", "enterprise"]);
    let mut export = export.stdout(Stdio::piped()).spawn().unwrap();
    let mut stdout = BufReader::new(export.stdout.take().unwrap());
    let mut exported = String::new();
    stdout.read_line(&mut exported).unwrap();

    let watched = hub.handle();
    std::thread::scope(|scope| {
        let starting = scope.spawn(|| hub.start());
        wait_until("the daemon says that it waits", || {
            !watched.log_lines(&["in use by another", "process", "waiting", "等待"]).is_empty()
        });
        assert!(!starting.is_finished());
        // Another command waits, too, and is asked by neither of the two.
        let status = scope.spawn(|| watched.cli(&["status"]));
        stdout.read_to_string(&mut exported).unwrap();
        assert!(export.wait().unwrap().success());
        starting.join().unwrap();
        status.join().unwrap().expect_code(0);
    });
    assert_eq!(exported.lines().count(), hub.export("enterprise").lines().count());
    assert_eq!(hub.log_lines(&["in use by another"]).len(), 1);
}

#[test]
fn a_second_daemon_is_told_at_once_and_takes_nothing() {
    let mut federation = Federation::hub_only();
    let hub = path_text(federation.hub.dir()).to_owned();
    let refused = federation.hub.cli(&["run"]).expect_failure(&[
        &hub,
        "in use by another creditsync",
        "process",
        "a daemon runs here already",
        "守护进程",
        "--dir",
    ]);
    assert!(!refused.stderr.contains("waiting"), "{refused:#?}");
    assert!(federation.hub.is_running());
    federation.hub.status();
    // The socket of one that was killed misleads nobody.
    federation.hub.kill_9();
    assert!(federation.hub.dir().join("run/admin.sock").exists());
    federation.hub.json(&["invite", "410122"]);
    federation.hub.start();
    federation.hub.status();
}

#[test]
fn two_that_make_one_node_make_one() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Node::new(HUB, &dir.path().join("hub"));
    let listen = free_address().to_string();
    let init = ["init", "--federation", "test-city", "--node", HUB, "--listen", &listen];
    let outputs = std::thread::scope(|scope| {
        let making = [(), ()].map(|()| scope.spawn(|| hub.cli(&init)));
        making.map(|making| making.join().unwrap())
    });
    let made = outputs.iter().filter(|output| output.code == Some(0)).count();
    assert_eq!(made, 1, "{outputs:#?}");
    let refused = outputs.into_iter().find(|output| output.code != Some(0)).unwrap();
    refused.expect_failure(&["is a node already", "--dir"]);
    hub.verify_deep();
    hub.cli(&["invite", "410122"]).expect_code(0);
}
