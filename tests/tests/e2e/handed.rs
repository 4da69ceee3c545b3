//! Files that only the command can reach: it opens them, and the daemon reads
//! what it was handed.

use std::{fs::File, process::Stdio};

use harness::{
    federation::Federation,
    node::{Node, Output, path_text, run},
    table::Table,
};

/// `creditsync import … /dev/stdin`, where standard input is a file that has no
/// name any more: to the daemon that path is something else.
fn import_nameless(node: &Node, table: &Table, options: &[&str]) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let path = table.write(dir.path(), "rows.csv");
    let file = File::open(&path).unwrap();
    drop(dir);
    assert!(!path.exists());
    let arguments = [&["import", "enterprise", "/dev/stdin", "--json"], options].concat();
    run(node.command(&arguments).stdin(Stdio::from(file)))
}

#[test]
fn a_file_without_a_name_is_imported_by_the_daemon_and_without_one() {
    let mut federation = Federation::new(&["410122"]);
    let county = &mut federation.counties[0];
    let mut table = Table::synthetic(1, 0..3000, "一");
    let report = import_nameless(county, &table, &[]).expect_code(0).json();
    assert_eq!(report["inserted"], 3000, "{report:#}");
    assert_eq!(county.export(&county.own("enterprise")), table.to_export());
    // The shorter way of a full file reads it twice where that is not enough.
    for batch in ["一", "二"] {
        table.put_all(&Table::synthetic(1, 0..10, batch));
        let report = import_nameless(county, &table, &["--full"]).expect_code(0).json();
        assert_eq!(report["rows"], 3000, "{report:#}");
    }
    county.stop();
    table.put_all(&Table::synthetic(1, 0..20, "三"));
    let report = import_nameless(county, &table, &["--full"]).expect_code(0).json();
    assert_eq!(report["updated"], 20, "{report:#}");
    county.start();
    assert_eq!(county.export(&county.own("enterprise")), table.to_export());
    federation.finish();
}

#[test]
fn a_file_without_a_name_is_held_and_approved() {
    let federation = Federation::hub_only();
    let hub = &federation.hub;
    import_nameless(hub, &Table::synthetic(1, 0..1000, "一"), &[]).expect_code(0);
    let small = Table::synthetic(1, 0..100, "二");
    let report = import_nameless(hub, &small, &["--full"]).expect_code(3).json();
    let held = report["held"].as_str().or(report["held"]["id"].as_str()).unwrap().to_owned();
    assert_eq!(hub.export("enterprise/410100").lines().count(), 1 + 2 * 1000);
    hub.json(&["delivery", "approve", "--yes", &held]);
    assert_eq!(hub.export("enterprise/410100"), small.to_export());
}

#[test]
fn what_the_command_may_not_open_the_daemon_does_not_either() {
    let federation = Federation::hub_only();
    let (hub, dir) = (&federation.hub, federation.dir());
    let import = |path: &str| hub.cli(&["import", "enterprise", path]);
    let missing = dir.join("missing.csv");
    import(path_text(&missing)).expect_failure(&[path_text(&missing), "不存在", "does not exist"]);
    for other in [path_text(dir), "/dev/null", path_text(&hub.dir().join("run/admin.sock"))] {
        import(other).expect_failure(&[other, "不是普通文件", "not a regular file"]);
    }
    // A pipe is not waited for.
    let pipe = run(hub
        .command(&["import", "enterprise", "/dev/stdin"])
        .stdin(Stdio::from(std::io::pipe().unwrap().0)));
    pipe.expect_failure(&["/dev/stdin", "不是普通文件", "not a regular file"]);
}
