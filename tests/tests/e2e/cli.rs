//! What an administrator types and what comes back: exit codes, one JSON
//! document, and errors that name the thing, the place and the next step.

use std::{
    io::{BufRead as _, BufReader},
    process::Stdio,
};

use harness::{
    federation::{Federation, HUB, free_address},
    node::{Node, Output, command, creditsync, path_text, run, wait_until},
    table::{ENTERPRISE_FIELDS, Table, csv_text, synthetic_code},
};
use rustix::process::Signal;
use serde_json::{Value as Json, json};
use tempfile::TempDir;

/// A hub that does not run.
pub(super) fn stopped_hub() -> (TempDir, Node) {
    let dir = tempfile::tempdir().unwrap();
    let hub = Node::new(HUB, &dir.path().join("hub"));
    let listen = free_address().to_string();
    let init = ["init", "--federation", "test-city", "--node", HUB, "--listen", &listen];
    let output = hub.cli(&init).expect_code(0);
    assert_eq!(output.stdout, "");
    (dir, hub)
}

#[test]
fn commands_work_on_a_node_that_does_not_run() {
    let (dir, hub) = stopped_hub();
    let table = Table::synthetic(1, 0..30, "一");
    let file = table.write(dir.path(), "30.csv");
    let text = hub.cli(&["import", "enterprise", path_text(&file)]).expect_code(0).stdout;
    assert!(text.contains("30 inserted / 新增"), "{text}");
    assert_eq!(hub.export("enterprise"), with_origin(&table));
    assert_eq!(hub.export("enterprise/410100"), table.to_export());
    let code = synthetic_code(1, 3);
    let found = hub.json(&["get", "enterprise", &code]);
    assert_eq!(found[0]["record"]["uscc"], code.as_str());
    assert_eq!(found.as_array().unwrap().len(), 1);
    // A key is read as a file's cell is.
    assert_eq!(hub.json(&["get", "enterprise", &format!(" {} ", code.to_lowercase())]), found);
    hub.verify_deep();
    let datasets = hub.json(&["dataset", "list"]);
    let names: Vec<&Json> =
        datasets["datasets"].as_array().unwrap().iter().map(|one| &one["dataset"]).collect();
    assert_eq!(names, ["admin-licence", "admin-penalty", "enterprise", "serious-violators"]);
    assert_eq!(hub.json(&["dataset", "show", "enterprise"])["key"], json!(["uscc"]));
    assert_eq!(hub.json(&["node", "list"])["nodes"][0]["node"], HUB);
    assert_eq!(hub.json(&["delivery", "list"]), json!({ "deliveries": [] }));
    let token = hub.cli(&["invite", "410122"]).expect_code(0);
    assert_eq!(token.stdout.lines().count(), 1, "only the token: {token:?}");
    assert!(token.stdout.starts_with("creditsync-join-1."));
    assert_eq!(hub.json(&["invite", "410123"])["node"], "410123");

    let output = dir.path().join("out.jsonl");
    let arguments = ["export", "enterprise/410100", "--format", "jsonl", "-o", path_text(&output)];
    let exported = hub.cli(&arguments).expect_code(0);
    assert_eq!(exported.stdout, "");
    assert_eq!(std::fs::read_to_string(&output).unwrap().lines().count(), 30);
    for arguments in [&["status"][..], &["verify"], &["node", "list"], &["dataset", "list"]] {
        let text = hub.cli(arguments).expect_code(0);
        assert_eq!(text.stderr, "");
        assert!(text.stdout.lines().count() >= 2, "{text:?}");
    }
}

#[test]
fn an_export_goes_where_its_name_leads_and_replaces_no_pipe_or_link() {
    let (dir, hub) = stopped_hub();
    let at = |name: &str| dir.path().join(name);
    let table = Table::synthetic(1, 0..30, "一");
    hub.import("enterprise", &table.write(dir.path(), "30.csv"));
    let target = "enterprise/410100";
    let export = |output: &str| hub.cli(&["export", target, "-o", output]);

    std::fs::write(at("real.csv"), "old").unwrap();
    std::os::unix::fs::symlink("real.csv", at("link.csv")).unwrap();
    export(path_text(&at("link.csv"))).expect_code(0);
    assert!(at("link.csv").is_symlink());
    assert_eq!(std::fs::read_to_string(at("real.csv")).unwrap(), table.to_export());

    let made = std::process::Command::new("mkfifo").arg(at("pipe")).status().unwrap();
    assert!(made.success());
    let pipe = at("pipe");
    let reader = std::thread::spawn(move || std::fs::read_to_string(pipe).unwrap());
    let said = export(path_text(&at("pipe"))).expect_code(0);
    assert_eq!(reader.join().unwrap(), table.to_export());
    assert!(said.stderr.contains("30 records"), "{said:?}");

    let shown = export("/dev/stdout").expect_code(0);
    assert_eq!(shown.stdout, table.to_export());
    // As the shell's >> opens it.
    std::fs::write(at("all.csv"), "before\n").unwrap();
    let all = std::fs::File::options().append(true).open(at("all.csv")).unwrap();
    let mut appending = hub.command(&["export", target, "-o", "/dev/stdout"]);
    assert!(appending.stdout(all).status().unwrap().success());
    let text = std::fs::read_to_string(at("all.csv")).unwrap();
    assert_eq!(text, format!("before\n{}", table.to_export()));

    export(path_text(dir.path())).expect_failure(&[path_text(dir.path()), "目录", "directory"]);
}

#[test]
fn an_import_waits_for_the_hub_if_it_is_asked_to() {
    let mut federation = Federation::new(&["410122"]);
    let table = Table::synthetic(1, 0..40, "一");
    let file = table.write(federation.dir(), "40.csv");
    let (file, import) = (path_text(&file), ["import", "enterprise"]);
    let county = federation.counties[0].handle();
    let report = county.json(&[&import[..], &[file, "--wait", "60"]].concat());
    assert_eq!((&report["inserted"], &report["at_hub"]), (&json!(40), &json!(true)));
    // The hub has it by now, not soon.
    assert_eq!(federation.hub.export("enterprise/410122"), table.to_export());
    let report = county.json(&[&import[..], &[file]].concat());
    assert_eq!(report.get("at_hub"), None);
    // At the hub there is nothing to wait for.
    let report = federation.hub.json(&[&import[..], &[file, "--wait", "60"]].concat());
    assert_eq!(report["at_hub"], true);

    // Nothing of a held delivery is on its way.
    let empty = Table::default().write(federation.dir(), "empty.csv");
    let held = [&import[..], &[path_text(&empty), "--full", "--wait", "60", "--json"]].concat();
    let report = county.cli(&held).expect_code(3).json();
    assert!(report["held"].is_object() && report.get("at_hub").is_none(), "{report}");

    federation.hub.stop();
    let changed = Table::synthetic(1, 0..40, "二").write(federation.dir(), "changed.csv");
    let changed = path_text(&changed);
    let output = county.cli(&[&import[..], &[changed, "--wait", "1"]].concat()).expect_code(3);
    assert!(output.stdout.contains("the hub does not hold it yet"), "{output:?}");
    federation.hub.start();
    let report = county.json(&[&import[..], &[changed, "--wait", "60"]].concat());
    assert_eq!((&report["unchanged"], &report["at_hub"]), (&json!(40), &json!(true)));

    federation.counties[0].stop();
    let arguments = [&import[..], &[file, "--wait", "1"]].concat();
    county.cli(&arguments).expect_failure(&["no daemon runs here", "--wait"]);
}

fn with_origin(table: &Table) -> String {
    let mut rows = Vec::new();
    for row in table.0.values() {
        rows.push([&[HUB.to_owned()], &row[..]].concat());
    }
    csv_text(&[&["_origin"], &ENTERPRISE_FIELDS[..]].concat(), &rows)
}

#[test]
fn the_status_has_the_fields_of_its_contract() {
    let federation = Federation::new(&["410122"]);
    let file = Table::synthetic(1, 0..5, "一").write(federation.dir(), "5.csv");
    federation.counties[0].import("enterprise", &file);
    federation.wait_converged();
    let is_time = |value: &Json| {
        let text = value.as_str().unwrap_or_default();
        text.len() >= 20 && text.as_bytes()[10] == b'T' && text.ends_with('Z')
    };
    let is_hash = |value: &Json| {
        let text = value.as_str().unwrap_or_default();
        text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    for (node, role) in [(&federation.hub, "hub"), (&federation.counties[0], "member")] {
        let status = node.status();
        assert_eq!(status["node"], node.name());
        assert_eq!(status["federation"], "test-city");
        assert_eq!(status["role"], role);
        assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
        assert!(status["uptime_s"].is_u64());
        let peer = &status["peers"][0];
        assert_eq!(peer["connected"], true);
        assert!(peer["address"].as_str().unwrap().starts_with("127.0.0.1:"), "{peer:#}");
        assert!(peer["node"].is_string() && peer["rtt_ms"].is_f64(), "{peer:#}");
        for field in ["since", "last_contact", "certificate_not_after"] {
            assert!(is_time(&peer[field]), "{field}: {peer:#}");
        }
        let partitions = status["partitions"].as_array().unwrap();
        let names: Vec<&Json> = partitions.iter().map(|found| &found["partition"]).collect();
        assert_eq!(names, ["_federation/410100", "enterprise/410122"]);
        for found in partitions {
            let name = format!("{}/{}", text(&found["dataset"]), text(&found["origin"]));
            assert_eq!((text(&found["partition"]), text(&found["audience"])), (&name[..], "*"));
            assert!(is_hash(&found["head"]) && is_hash(&found["root"]), "{found:#}");
            assert!(is_time(&found["updated_at"]), "{found:#}");
            assert!(found["seq"].is_u64() && found["records"].is_u64(), "{found:#}");
            assert_eq!((&found["behind_change_sets"], &found["lag_s"]), (&json!(0), &json!(0)));
            assert_eq!(found.get("reason"), Some(&Json::Null));
            let is_own = found["origin"] == node.name();
            assert_eq!(found["state"], if is_own { "origin" } else { "in_sync" });
            let acked = found["acked"].as_array().unwrap();
            assert_eq!(acked.len(), usize::from(is_own), "{found:#}");
            assert!(acked.iter().all(|ack| is_time(&ack["at"]) && ack["seq"] == found["seq"]));
        }
    }
    federation.finish();
}

pub(super) fn text(value: &Json) -> &str {
    value.as_str().unwrap()
}

#[test]
fn wrong_usage_is_exit_code_2() {
    for arguments in [
        &[][..],
        &["frobnicate"],
        &["import"],
        &["import", "enterprise"],
        &["init", "--federation", "Not A Name", "--node", "x", "--listen", "127.0.0.1:1"],
        &["init", "--federation", "test", "--node", "410100", "--listen", "nowhere"],
        &["status", "--yaml"],
        &["export", "enterprise", "--format", "xlsx"],
        &["join"],
        &["delivery", "approve"],
        &["delivery", "undo"],
        &["record", "delete", "enterprise", "91410100MA00000000"],
    ] {
        let output = creditsync(arguments).expect_code(2);
        assert_eq!(output.stdout, "", "{arguments:?}");
        assert!(output.stderr.contains("--help"), "{arguments:?}: {}", output.stderr);
    }
    for arguments in [&["--help"][..], &["import", "--help"], &["--version"]] {
        creditsync(arguments).expect_code(0);
    }
}

#[test]
fn the_directory_is_named_in_three_ways() {
    let (_dir, hub) = stopped_hub();
    let dir = path_text(hub.dir());
    let is_hub = |output: Output| output.expect_code(0).json()["node"] == HUB;
    assert!(is_hub(creditsync(&["--dir", dir, "status", "--json"])));
    assert!(is_hub(creditsync(&["status", "--json", "--dir", dir])));
    assert!(is_hub(run(command().args(["status", "--json"]).env("CREDITSYNC_DIR", dir))));
    // What is said on the command line counts.
    let elsewhere =
        run(command().args(["status", "--dir", dir, "--json"]).env("CREDITSYNC_DIR", "/nowhere"));
    assert!(is_hub(elsewhere));
}

#[test]
fn commands_want_a_node() {
    let dir = tempfile::tempdir().unwrap();
    let empty = Node::new("none", &dir.path().join("empty"));
    let place = path_text(empty.dir());
    for arguments in [
        &["status"][..],
        &["run"],
        &["export", "enterprise"],
        &["get", "enterprise", "91410100MA00000000"],
        &["verify"],
        &["dataset", "list"],
        &["node", "list"],
        &["delivery", "list"],
        &["delivery", "undo", "enterprise-1"],
        &["record", "delete", "enterprise", "91410100MA00000000", "--reason", "x"],
        &["invite", "410122"],
        &["import", "enterprise", "/etc/hostname"],
    ] {
        empty.cli(arguments).expect_failure(&[
            place,
            "is no node",
            "creditsync init",
            "creditsync join",
        ]);
        assert!(!empty.dir().exists(), "{arguments:?} left something behind");
    }
}

#[test]
fn a_directory_holds_one_node_and_one_daemon() {
    let mut federation = Federation::new(&["410122"]);
    let hub = path_text(federation.hub.dir()).to_owned();
    let again = ["init", "--federation", "other", "--node", "1", "--listen", "127.0.0.1:1"];
    federation.hub.cli(&again).expect_failure(&[&hub, "is a node already", "--dir"]);
    federation.hub.cli(&["run"]).expect_failure(&[&hub, "in use by another creditsync", "process"]);
    let token = federation.invite("410181", &[]);
    let whose = ["410122", "the token is for", "410181", "another --dir"];
    federation.counties[0].cli(&["join", &token]).expect_failure(&whose);
    let token = federation.invite("410122", &[]);
    federation.hub.cli(&["join", &token]).expect_failure(&["410100", "the token is for"]);
    // The refused ones took nothing from the ones that were there.
    federation.counties[0].restart();
    federation.add_county("410181");
    federation.finish();
}

#[test]
fn a_token_is_good_once_in_time_and_unaltered() {
    let mut federation = Federation::hub_only();
    let join = |dir: &str, token: &str| {
        let node = Node::new(dir, &federation.dir().join(dir));
        let output = node.cli(&["join", token]);
        (output, node)
    };
    let token = federation.invite("410122", &["--name", "中牟县"]);
    // Copied with line breaks and blanks.
    let (head, tail) = token.split_at(token.len() / 2);
    let county = Node::new("410122", &federation.dir().join("410122"));
    let joined = county.cli(&["join", head, &format!(" {tail}\n")]).expect_code(0);
    assert!(joined.stderr.contains("list of processes"), "{joined:?}");
    let (output, _) = join("again", &token);
    output.expect_failure(&["refused", "used"]);
    // A member may be invited again: its machine may be lost.
    let output = federation.hub.cli(&["invite", "410122"]).expect_code(0);
    assert!(output.stderr.contains("a member already"), "{output:?}");

    let token = federation.invite("410181", &[]);
    for position in [3, "creditsync-join-1.".len() + 5, token.len() / 2, token.len() - 1] {
        let old = token.as_bytes()[position];
        let new = if old == b'A' { "B" } else { "A" };
        let mut altered = token.clone();
        altered.replace_range(position..=position, new);
        let (output, node) = join("altered", &altered);
        output.expect_failure(&["token"]);
        assert!(!node.dir().join("creditsync.toml").exists());
    }
    join("cut", &token[..token.len() - 10]).0.expect_failure(&["token"]);
    join("nonsense", "hello").0.expect_failure(&["token"]);
    // None of that used it up, nor does an attempt that failed make a directory useless.
    // By standard input nobody else sees it.
    let input = federation.dir().join("token");
    std::fs::write(&input, format!("{}\n{}\n", &token[..30], &token[30..])).unwrap();
    let altered = Node::new("altered", &federation.dir().join("altered"));
    let mut by_input = altered.command(&["join", "-"]);
    by_input.stdin(std::fs::File::open(&input).unwrap());
    let joined = run(&mut by_input).expect_code(0);
    assert!(!joined.stderr.contains("list of processes"), "{joined:?}");

    let short = federation.invite("410182", &["--ttl", "1s"]);
    let expired = Node::new("expired", &federation.dir().join("expired"));
    let mut late = None;
    wait_until("the token has expired", || {
        let probe = federation.hub.json(&["invite", "410183", "--ttl", "1s"]);
        late.get_or_insert(text(&probe["expires"]).to_owned()) != text(&probe["expires"])
    });
    wait_until("the clock has passed it", || {
        let probe = federation.hub.json(&["invite", "410183", "--ttl", "1s"]);
        late.as_deref().is_some_and(|late| text(&probe["expires"]) > late)
    });
    expired.cli(&["join", &short]).expect_failure(&["expired", "creditsync invite 410182"]);
    assert!(!expired.dir().join("creditsync.toml").exists());
    for bad in ["1w", "0s", "forever"] {
        federation.hub.cli(&["invite", "410184", "--ttl", bad]).expect_failure(&["--ttl"]);
    }

    // Without the hub nobody joins, and the token is not used up.
    let token = federation.invite("410184", &[]);
    federation.hub.stop();
    let node = Node::new("410184", &federation.dir().join("410184"));
    node.cli(&["join", &token]).expect_failure(&["410100", "no connection", "firewall"]);
    federation.hub.start();
    node.cli(&["join", &token]).expect_code(0);
}

#[test]
fn a_token_of_one_federation_opens_no_other() {
    let (dir, _) = stopped_hub();
    let ours = Federation::hub_only();
    let theirs = Federation::hub_only();
    // A token that names our hub's address but another federation's root.
    let token = theirs.invite("410122", &["--address", &ours.address().to_string()]);
    let node = Node::new("410122", &dir.path().join("410122"));
    let output = node.cli(&["join", &token]).expect_failure(&["410100"]);
    assert!(output.stderr.contains("handshake") || output.stderr.contains("refused"), "{output:?}");
    assert!(!node.dir().join("creditsync.toml").exists());
    assert_eq!(ours.hub.json(&["node", "list"])["nodes"].as_array().unwrap().len(), 1);
}

#[test]
fn an_invitation_needs_an_address_that_members_reach() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Node::new(HUB, &dir.path().join("hub"));
    let init = ["init", "--federation", "test-city", "--node", HUB, "--listen", "0.0.0.0:17443"];
    hub.cli(&init).expect_code(0);
    hub.cli(&["invite", "410122"]).expect_failure(&["--address HOST:PORT", "advertise"]);
    hub.cli(&["invite", "410122", "--address", "nonsense"]).expect_failure(&["--address nonsense"]);
    hub.cli(&["invite", "410122", "--address", "credit.example.org:7443"]).expect_code(0);
    hub.cli(&["invite", HUB, "--address", "a.example:1"]).expect_failure(&[HUB, "this hub itself"]);
    hub.cli(&["invite", "Not Valid", "--address", "a.example:1"]).expect_failure(&["Not Valid"]);
}

#[test]
fn a_daemon_whose_log_nobody_reads_any_more_goes_on() {
    let (dir, hub) = stopped_hub();
    let mut daemon = hub
        .command(&["run"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("creditsync starts");
    let mut line = String::new();
    BufReader::new(daemon.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    drop(daemon.stderr.take());
    let mut send = |signal| {
        harness::node::send(&daemon, signal);
        daemon.try_wait().unwrap()
    };
    // Each writes a line of the log.
    for _ in 0..3 {
        assert_eq!(send(Signal::HUP), None, "it ended");
        hub.cli(&["invite", "410122"]).expect_code(0);
    }
    let file = Table::synthetic(1, 0..3, "一").write(dir.path(), "3.csv");
    assert_eq!(hub.import("enterprise", &file)["inserted"], 3);
    assert_eq!(hub.status()["node"], HUB);
    send(Signal::TERM);
    let ended = daemon.wait().unwrap();
    assert!(ended.success(), "{ended}");
}

#[test]
fn a_start_whose_output_nobody_reads_is_no_success_by_itself() {
    let (_dir, hub) = stopped_hub();
    let mut run = hub.command(&["run"]);
    let mut daemon =
        run.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("creditsync starts");
    drop(daemon.stdout.take());
    wait_until("it answers", || {
        hub.dir().join("run/admin.sock").exists() && hub.cli(&["status"]).code == Some(0)
    });
    assert_eq!(daemon.try_wait().unwrap(), None, "it ended");
    harness::node::send(&daemon, Signal::TERM);
    assert!(daemon.wait().unwrap().success());
}
