//! What is read from the table is what was written, wherever it lies.

use std::{
    collections::BTreeMap,
    ops::Bound::{Excluded, Included, Unbounded},
    path::Path,
};

use super::fixtures::Random;
use crate::engine::{
    journal::Write,
    table::{Pair, Table},
};

fn open_table(directory: &Path) -> (sled::Db, Table) {
    let db = sled::Config::new().path(directory).flush_every_ms(None).open().unwrap();
    let table = Table::new(db.open_tree("table").unwrap());
    (db, table)
}

fn key_of(number: u64) -> Vec<u8> {
    vec![b'k'; number as usize % 3].into_iter().chain(number.to_be_bytes()).collect()
}

fn some_writes(random: &mut Random) -> Vec<Write> {
    let count = 1 + random.below(6);
    let write = |random: &mut Random| {
        let value = vec![random.next() as u8; random.below(30) as usize];
        (key_of(random.below(60)), (random.below(3) > 0).then_some(value))
    };
    (0..count).map(|_| write(random)).collect()
}

fn plain(pair: Option<Pair>) -> Option<(Vec<u8>, Vec<u8>)> {
    pair.map(|(key, value)| (key.to_vec(), value.to_vec()))
}

#[test]
fn reads_are_those_of_one_map_whatever_sled_has_of_it() {
    let mut random = Random::new();
    let directory = tempfile::tempdir().unwrap();
    let (_db, table) = open_table(directory.path());
    let mut model = BTreeMap::new();
    for step in 0..4000 {
        match random.below(20) {
            0 => {
                let in_slices = random.below(2) == 0;
                let expected = model.len();
                // A reader between two slices sees the same.
                let seen = || {
                    let view = table.view();
                    let mut from = Unbounded;
                    let mut count = 0;
                    let mut last;
                    while let Some((key, _)) = view.first((from, Unbounded))? {
                        last = key;
                        from = Excluded(last.as_ref());
                        count += 1;
                    }
                    assert_eq!(count, expected);
                    Ok(())
                };
                table.move_to_sled(step, in_slices, seen).unwrap();
                assert_eq!(table.recent_bytes(), 0);
            }
            drawn => {
                let writes = some_writes(&mut random);
                for (key, value) in writes.clone() {
                    match value {
                        Some(value) => drop(model.insert(key, value)),
                        None => drop(model.remove(&key)),
                    }
                }
                if drawn < 3 {
                    table.pass_on(writes, step).unwrap();
                    // The number of the batch lies beside them.
                    model.insert(b"i".to_vec(), step.to_be_bytes().to_vec());
                } else {
                    table.keep(writes);
                }
            }
        }
        if let Some(number) = table.view().get(b"i").unwrap() {
            model.insert(b"i".to_vec(), number.to_vec());
        }
        let (one, other) = (key_of(random.below(62)), key_of(random.below(62)));
        let (low, high) = if one < other { (&one, &other) } else { (&other, &one) };
        let view = table.view();
        assert_eq!(view.get(low).unwrap().map(|value| value.to_vec()), model.get(low).cloned());
        for range in [
            (Included(low.as_slice()), Included(high.as_slice())),
            (Included(low.as_slice()), Excluded(high.as_slice())),
            (Excluded(low.as_slice()), Unbounded),
            (Included(low.as_slice()), Unbounded),
            (Unbounded, Included(high.as_slice())),
        ] {
            let copied = |(key, value): (&Vec<u8>, &Vec<u8>)| (key.clone(), value.clone());
            let mut known = model.range::<[u8], _>(range);
            assert_eq!(plain(view.first(range).unwrap()), known.clone().next().map(copied));
            assert_eq!(plain(view.last(range).unwrap()), known.next_back().map(copied));
        }
    }
}

#[test]
fn sled_gets_slices_of_a_limited_size_and_the_number_with_the_last() {
    let directory = tempfile::tempdir().unwrap();
    let (db, table) = open_table(directory.path());
    let sled = db.open_tree("table").unwrap();
    let mut random = Random::new();
    // Of two values under one key only the last counts.
    for round in 0..2 {
        for number in 0..300u64 {
            table.keep(vec![(key_of(number), Some(vec![round; random.below(8000) as usize]))]);
        }
    }
    assert!(table.has_several_slices() && !table.is_over(1));
    let seen = std::cell::RefCell::new(Vec::new());
    let sync = || {
        seen.borrow_mut().push((sled.len(), sled.get(b"i")?.is_some()));
        Ok(())
    };
    table.move_to_sled(7, true, sync).unwrap();
    let seen = seen.into_inner();
    assert_eq!((seen.len(), seen[0].1, seen[1]), (2, false, (301, true)));
    assert!(seen[0].0 > 100, "{seen:?}");
    assert_eq!(sled.get(b"i").unwrap().unwrap(), 7u64.to_be_bytes());
}
