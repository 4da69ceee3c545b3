//! How often memory is asked for, and for how much, where work is repeated for every row or every
//! change.
//!
//! Counts of one thread, so they are the same on every machine and in every run.
//! A budget that is exceeded means that something is copied, or kept apart, that
//! was not before. Whoever has a reason for that raises the budget and says why.
//! Each is the count as it was measured, and a tenth on top.

use std::{collections::BTreeMap, io::Cursor};

use allocation_counter::{AllocationInfo, measure};
use daemon::{
    ingest::{rows::Row, source::Table as _, spool::Buffer, validate::Validator},
    sources::csv::{self, Encoding, Options},
};
use harness::{
    sim::tree::Tree,
    table::{ENTERPRISE_TITLES, Table},
};
use protocol::{
    change::{Change, decode_changes, encode_changes},
    page::{MadePage, RawLeaf},
    patch::{self, Outcome},
    suite::Suite,
};

const ROWS: u32 = 10_000;

#[track_caller]
fn within(what: &str, cost: AllocationInfo, of: u64, count: f64, bytes: u64) {
    let (each, bytes_each) = (cost.count_total as f64 / of as f64, cost.bytes_total / of);
    println!("{what}: {each:.2} allocations of {bytes_each} bytes each");
    assert!(each <= count, "{what}: {each:.2} allocations each, and the budget is {count}");
    assert!(bytes_each <= bytes, "{what}: {bytes_each} bytes each, and the budget is {bytes}");
}

fn records() -> BTreeMap<Vec<u8>, Vec<u8>> {
    let record = |number: u32| {
        (number.wrapping_mul(2_654_435_761).to_be_bytes().to_vec(), vec![number as u8; 350])
    };
    (0..ROWS).map(record).collect()
}

fn put(key: &[u8]) -> Change {
    Change::Put { key: key.to_vec(), value: vec![7; 350] }
}

#[test]
fn a_row_on_its_way_to_a_record() {
    let table = Table::synthetic(1, 0..ROWS, "一");
    let dir = tempfile::tempdir().unwrap();
    let bytes = std::fs::read(table.write(dir.path(), "rows.csv")).unwrap();
    let standard = config::catalogue::standard();
    let schema = standard.iter().find(|schema| schema.dataset().as_str() == "enterprise").unwrap();
    let options = Options { encoding: Encoding::Auto, ignored: &[] };
    let total = bytes.len() as u64;
    let mut file =
        csv::open("rows.csv", Box::new(Cursor::new(bytes)), total, options, schema).unwrap();
    let mapping = file.mapping().clone();
    assert_eq!(mapping.labels(), ENTERPRISE_TITLES);
    let mut validator = Validator::new(schema, mapping.columns());
    let mut rows = 0;
    let cost = measure(|| {
        loop {
            let batch = file.next_rows().unwrap();
            if batch.is_empty() {
                break;
            }
            let mut records = Buffer::default();
            batch.for_each(&mut |row| {
                let Row::Fields { place, fields, .. } = row else { panic!("all rows are sound") };
                let checked = validator.row(mapping.texts(fields));
                records.push(&checked.key.unwrap(), place, checked.record.as_deref()).unwrap();
                rows += 1;
            });
        }
    });
    assert_eq!(rows, ROWS);
    within("a row split, checked and encoded", cost, ROWS.into(), 2.5, 2_600);
}

#[test]
fn a_change_on_its_way_through_the_tree() {
    let records = records();
    // Entries of a leaf are hashed together, so their hashes are in lists.
    let cost = measure(|| drop(Tree::build(Suite::One, &records)));
    within("a record put into a new tree", cost, ROWS.into(), 0.36, 2_350);

    let tree = Tree::build(Suite::One, &records);
    let changes: Vec<Change> = records.keys().step_by(100).map(|key| put(key)).collect();
    let cost = measure(|| {
        let update = protocol::tree::update(&mut &tree, &tree.summary, &changes).unwrap();
        assert_eq!(update.summary.records, u64::from(ROWS));
    });
    within("one of 100 changes that rewrite leaves", cost, 100, 24.3, 176_000);
}

#[test]
fn a_change_in_place() {
    let records = records();
    let entries = records.iter().take(64).map(|(key, value)| (&key[..], &value[..]));
    let leaf: MadePage = RawLeaf::of(entries).make(Suite::One);
    let changes = [put(records.keys().nth(30).unwrap())];
    let cost = measure(|| {
        let outcome =
            patch::update(Suite::One, &leaf.index, None, Some(&leaf.page.hash), &changes).unwrap();
        assert!(matches!(outcome.outcome, Outcome::Patched { .. }));
    });
    within("a patch of one change", cost, 1, 11.0, 16_200);
}

#[test]
fn a_change_set_written_and_read() {
    let changes: Vec<Change> = records().keys().take(1000).map(|key| put(key)).collect();
    let mut body = Vec::new();
    within("a change encoded", measure(|| body = encode_changes(&changes)), 1000, 0.05, 400);
    let cost = measure(|| assert_eq!(decode_changes(&body).unwrap(), changes));
    within("a change decoded", cost, 1000, 2.2, 500);
}
