//! Commands that root gives in the directory of a service's user leave nothing that
//! the service cannot read. Needs root; without it these tests say so and do nothing.

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _, chown},
        process::CommandExt as _,
    },
    path::Path,
    process::{Child, Command, Stdio},
};

use harness::{
    federation::{Federation, HUB, free_address},
    node::{Node, path_text, program, run, send, wait_until},
    table::Table,
};
use rustix::process::Signal;
use tempfile::TempDir;

/// A user who owns nothing else.
const SERVICE: u32 = 64_987;

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("SKIPPED: not root");
    }
    root
}

/// An empty directory of the service's, and a copy of the program where it may go.
fn service_dir() -> (TempDir, Node) {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let copy = dir.path().join("creditsync");
    fs::copy(program(), &copy).unwrap();
    let own = dir.path().join("node");
    fs::create_dir(&own).unwrap();
    chown(&own, Some(SERVICE), Some(SERVICE)).unwrap();
    let mut node = Node::new("410122", &own);
    node.set_program(Some(&copy));
    (dir, node)
}

/// Files that are not the service's.
fn of_others(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    if fs::symlink_metadata(dir).unwrap().uid() != SERVICE {
        found.push(dir.display().to_string());
    }
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(of_others(&path));
        } else if fs::symlink_metadata(&path).unwrap().uid() != SERVICE {
            found.push(path.display().to_string());
        }
    }
    found
}

/// The command as the service gives it.
fn as_service(node: &Node, arguments: &[&str]) -> Command {
    let mut command = node.command(arguments);
    command.uid(SERVICE).gid(SERVICE).current_dir("/");
    command
}

/// The service runs, ends well, and leaves nothing of others.
struct Service(Child);

impl Service {
    fn start(node: &Node) -> Self {
        let daemon =
            as_service(node, &["run"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut service = Self(daemon.unwrap());
        let mut line = String::new();
        let out = service.0.stdout.take().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line).unwrap();
        assert_eq!(line, "ready\n");
        service
    }

    fn stop(mut self) {
        send(&self.0, Signal::TERM);
        let mut status = None;
        wait_until("the service ends", || {
            status = self.0.try_wait().unwrap();
            status.is_some()
        });
        assert!(status.is_some_and(|status| status.success()), "{status:?}");
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // An error means that it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn what_root_does_in_the_directory_of_a_service_belongs_to_the_service() {
    if !is_root() {
        return;
    }
    let federation = Federation::hub_only();
    let (dir, county) = service_dir();
    let address = federation.address().to_string();
    let token = || federation.invite("410122", &["--address", &address]);
    let said = county.cli(&["join", &token()]).expect_code(0);
    assert!(said.stderr.contains(&SERVICE.to_string()), "{said:?}");
    assert_eq!(of_others(county.dir()), [""; 0]);

    // What only root may read is imported all the same.
    let table = Table::synthetic(1, 0..20, "一");
    let file = table.write(dir.path(), "rows.csv");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    county.import("enterprise", &file);
    let output = dir.path().join("out.csv");
    county.cli(&["export", "enterprise/410122", "-o", path_text(&output)]).expect_code(0);
    assert_eq!(fs::read_to_string(&output).unwrap(), table.to_export());
    county.cli(&["join", &token()]).expect_code(0);
    assert_eq!(of_others(county.dir()), [""; 0]);

    let service = Service::start(&county);
    federation.hub.wait_connected("410122");
    wait_until("all of it has arrived", || {
        federation.hub.partition("enterprise/410122").is_some_and(|found| found["records"] == 20)
    });
    // As root, to the running daemon.
    county.import("enterprise", &Table::synthetic(1, 20..25, "二").write(dir.path(), "more.csv"));
    service.stop();
    assert_eq!(of_others(county.dir()), [""; 0]);
}

#[test]
fn a_hub_that_root_makes_for_a_service_is_the_services() {
    if !is_root() {
        return;
    }
    let (_dir, hub) = service_dir();
    let listen = free_address().to_string();
    let init = ["init", "--federation", "test-city", "--node", HUB, "--listen", &listen];
    hub.cli(&init).expect_code(0);
    hub.cli(&["ca", "rotate"]).expect_code(0);
    hub.cli(&["invite", "410122"]).expect_code(0);
    assert_eq!(of_others(hub.dir()), [""; 0]);
    Service::start(&hub).stop();

    // Keys that root has made otherwise: the service says whose they are, and what to do.
    let key = hub.dir().join("keys/node.key");
    chown(&key, Some(0), Some(0)).unwrap();
    let failed = run(&mut as_service(&hub, &["run"])).expect_code(1);
    let chown = format!("sudo chown -R {SERVICE}: {}", path_text(hub.dir()));
    for word in [path_text(&key), "belongs to root", "属于 root", &chown] {
        assert!(failed.stderr.contains(word), "'{word}' is missing: {failed:?}");
    }
}
