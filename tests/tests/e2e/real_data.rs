//! The real registrations of a city and its twelve districts and counties: 13
//! processes, each with its own file. The data is not part of the project;
//! where it is missing the test says so and passes.

use std::path::PathBuf;

use harness::{
    federation::{Federation, HUB},
    node::{Node, workspace},
    table::Table,
};
use serde_json::Value as Json;

/// Where the files are, beside the source tree.
const DATA: &str = "../shared/data/zhengzhou_by_county";

fn data() -> Option<Vec<(String, PathBuf)>> {
    let mut files: Vec<(String, PathBuf)> = std::fs::read_dir(workspace().join(DATA))
        .ok()?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "csv"))
        .map(|path| (path.file_stem().unwrap().to_string_lossy().into_owned(), path))
        .collect();
    files.sort();
    Some(files)
}

/// The next month's delivery: every 40th row gone, every 15th changed, and some
/// that were not there before.
fn next_delivery(owner: u32, table: &Table) -> (Table, [u64; 4]) {
    let mut next = Table::default();
    let (mut deleted, mut updated, mut unchanged) = (0, 0, 0);
    for (index, row) in table.0.values().enumerate() {
        if index % 40 == 7 {
            deleted += 1;
            continue;
        }
        let mut row = row.clone();
        if index % 15 == 3 {
            row[0].push_str("（更名）");
            row[8].insert_str(0, "迁至");
            updated += 1;
        } else {
            unchanged += 1;
        }
        next.put(row);
    }
    let added = Table::synthetic(owner, 0..25, "新设");
    next.put_all(&added);
    (next, [25, updated, deleted, unchanged])
}

#[track_caller]
fn assert_same(federation: &Federation, node: &Node, expected: &Table) {
    let name = node.own("enterprise");
    let own = node.partition(&name).unwrap();
    let copy = federation.hub.partition(&name).unwrap();
    for field in ["seq", "head", "root", "records"] {
        assert_eq!(own[field], copy[field], "{name}: {field}");
    }
    assert_eq!(own["records"], expected.len());
    let export = Table::parse(&federation.hub.export(&name));
    assert_eq!(export.len(), expected.len());
    for (code, row) in &expected.0 {
        assert_eq!(export.0.get(code), Some(row), "{name}: {code}");
    }
}

#[test]
fn a_city_and_its_counties_deliver_real_registrations() {
    let Some(files) = data() else {
        println!("SKIPPED: {DATA} is not there");
        return;
    };
    assert_eq!(files.len(), 13);
    let counties: Vec<&str> =
        files.iter().map(|(name, _)| name.as_str()).filter(|name| *name != HUB).collect();
    let federation = Federation::new(&counties);
    let node_of = |name: &str| federation.nodes().find(|node| node.name() == name).unwrap();

    let mut tables = Vec::new();
    let mut rows = 0;
    for (name, path) in &files {
        let table = Table::read(path);
        let report = node_of(name).import("enterprise", path);
        let count = |field: &str| report[field].as_u64().unwrap();
        let accepted = count("inserted") + count("updated") + count("unchanged");
        assert_eq!(accepted + count("rejected") + count("duplicates"), count("rows"));
        assert_eq!(count("inserted") as usize, table.len(), "{report:#}");
        rows += count("rows");
        tables.push((name.clone(), table));
    }
    assert_eq!(rows, 10_689);
    federation.wait_converged();
    for (name, table) in &tables {
        assert_same(&federation, node_of(name), table);
    }

    for (owner, (name, table)) in tables.iter_mut().enumerate() {
        let (next, expected) = next_delivery(u32::try_from(owner).unwrap(), table);
        let file = next.write(federation.dir(), &format!("{name}-next.csv"));
        let report = node_of(name).import_full("enterprise", &file);
        let done = ["inserted", "updated", "deleted", "unchanged"];
        assert_eq!(done.map(|field| report[field].as_u64().unwrap()), expected, "{name}");
        assert_eq!((&report["rejected"], &report["held"]), (&Json::from(0), &Json::Null));
        *table = next;
    }
    federation.wait_converged();
    for (name, table) in &tables {
        assert_same(&federation, node_of(name), table);
    }
    federation.finish();
}
