//! Roots of generated trees.
//!
//! The rule that a second implementation follows: record number `i` has the key
//! of one text field, `i` in decimal, filled with zeros to 18 digits; its value
//! is a record of schema version 1 with that text and the integer `i`.

use protocol::{
    change::Change,
    record::{Record, encode_key},
    suite::Suite,
    tree::{FoundPage, NotUpdated, Pages, Summary, pages_of, update},
    value::Value,
};

use crate::Vectors;

/// The generated record's key and value.
fn record(number: u64) -> (Vec<u8>, Vec<u8>) {
    let code = Value::text(format!("{number:018}"));
    let key = encode_key([&code]).unwrap();
    let values = vec![code, Value::Integer(number as i64)];
    (key, Record { schema_version: 1, values }.encode().unwrap())
}

/// The tree of these numbers, made from its leaves upwards.
fn tree_of(numbers: impl Iterator<Item = u64>) -> Summary {
    let records: Vec<_> = numbers.map(record).collect();
    let entries = records.iter().map(|(key, value)| (&key[..], &value[..]));
    pages_of(Suite::One, entries).unwrap().1
}

/// Numbers whose spellings branch at each power of ten, with 200 records below
/// the last: groups that lie inside each other and have one record more each.
fn nested() -> impl Iterator<Item = u64> {
    let tops = (4..18).map(|digits| 10u64.pow(digits));
    let mut all: Vec<u64> = tops.chain(0..200).collect();
    all.sort_unstable();
    all.into_iter()
}

pub fn add(vectors: &mut Vectors) {
    let (key, value) = record(7);
    vectors.bytes("tree.record_7.key", &key);
    vectors.bytes("tree.record_7.value", &value);
    for count in [0, 1, 64, 1000, 10_000] {
        let summary = tree_of(0..count);
        assert_eq!(summary, built_by_changes(count), "one history gives what another gives");
        add_tree(vectors, &format!("tree.{count}"), &summary);
    }
    add_tree(vectors, "tree.nested", &tree_of(nested()));
}

fn add_tree(vectors: &mut Vectors, name: &str, summary: &Summary) {
    vectors.bytes(&format!("{name}.root"), summary.root.as_bytes());
    vectors.text(&format!("{name}.pages"), format!("{:?}", summary.pages));
}

/// The same tree by change sets: all numbers and some more, then those deleted.
fn built_by_changes(count: u64) -> Summary {
    let put = |number| {
        let (key, value) = record(number);
        Change::Put { key, value }
    };
    let delete = |number| Change::Delete { key: record(number).0 };
    let mut memory = Memory::default();
    let mut summary = Summary::empty(Suite::One);
    for changes in
        [(0..count + 500).map(put).collect::<Vec<_>>(), (count..count + 500).map(delete).collect()]
    {
        let update = update(&mut memory, &summary, &changes).unwrap();
        for (level, key) in update.removed {
            memory.0.remove(&(level, key));
        }
        for made in update.written {
            memory.0.insert((made.level, made.page.first_key), made.body);
        }
        summary = update.summary;
    }
    summary
}

/// Pages in memory.
#[derive(Default)]
struct Memory(std::collections::BTreeMap<(u8, Vec<u8>), Vec<u8>>);

impl Pages for Memory {
    type Error = NotUpdated;

    fn suite(&self) -> Suite {
        Suite::One
    }

    fn seek(&mut self, level: u8, key: &[u8]) -> Result<Option<FoundPage>, NotUpdated> {
        let of_level = || self.0.iter().filter(|((found, _), _)| *found == level);
        let before = of_level().take_while(|((_, first), _)| first.as_slice() <= key).last();
        let page = before.or_else(|| of_level().next());
        Ok(page.map(|((_, first), body)| (first.clone(), body.clone())))
    }

    fn next_key(&mut self, level: u8, first_key: &[u8]) -> Result<Option<Vec<u8>>, NotUpdated> {
        let mut of_level = self.0.keys().filter(|(found, _)| *found == level);
        Ok(of_level.find(|(_, first)| first.as_slice() > first_key).map(|(_, first)| first.clone()))
    }
}
