//! Stores that give back older pages: whole, and in their places.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::super::{
    NotUpdated,
    tests::{ANY_SHAPE, Memory, Patching, key},
    update_within,
};
use super::*;

type Batch = BTreeMap<u32, Option<u8>>;

fn batch(numbers: std::ops::Range<u32>) -> impl Strategy<Value = Batch> {
    let value = prop::option::weighted(0.8, any::<u8>());
    prop::collection::btree_map(numbers, value, 1..60)
}

fn changes_of(batch: &Batch) -> Vec<Change> {
    let change = |(number, value): (&u32, &Option<u8>)| match value {
        Some(value) => Change::Put { key: key(*number), value: vec![*value] },
        None => Change::Delete { key: key(*number) },
    };
    batch.iter().map(change).collect()
}

/// Puts something of an older state into the place of what is there now: a page, or what
/// lies beside a leaf. Answers whether anything is another one now.
fn age(now: &mut Patching, older: &Patching, at: prop::sample::Index, what: u8) -> bool {
    let differ = |(page, body): &(&(u8, Vec<u8>), &Vec<u8>)| {
        older.pages.0.get(*page).is_none_or(|old| old != *body)
            || older.beside.get(&page.1) != now.beside.get(&page.1)
    };
    let places: Vec<_> = now.pages.0.iter().filter(differ).map(|(page, _)| page.clone()).collect();
    if places.is_empty() {
        return false;
    }
    let place = at.get(&places).clone();
    let (level, first_key) = &place;
    if *level > 0 || what & 1 != 0 {
        match older.pages.0.get(&place) {
            Some(old) => now.pages.0.insert(place.clone(), old.clone()),
            None => now.pages.0.remove(&place),
        };
    }
    if *level == 0 && what & 2 != 0 {
        match older.beside.get(first_key) {
            Some(old) => now.beside.insert(first_key.clone(), old.clone()),
            None => now.beside.remove(first_key),
        };
    }
    true
}

fn contents(batches: &[&Batch]) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut content = BTreeMap::new();
    for (number, value) in batches.iter().flat_map(|batch| batch.iter()) {
        match value {
            Some(value) => content.insert(key(*number), vec![*value]),
            None => content.remove(&key(*number)),
        };
    }
    content
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 300 } else { 3000 }))]
    #[test]
    fn an_update_of_older_pages_gives_the_right_root_or_none(
        start in batch(0..2000).prop_map(|some| {
            let all = (0..2000).map(|number| (number, Some((number % 7) as u8)));
            all.chain(some).collect::<Batch>()
        }),
        // In few leaves, so that what is old is met.
        (before, after) in (0u32..1600).prop_flat_map(|from| {
            (batch(from..from + 100), batch(from..from + 400))
        }),
        at in any::<prop::sample::Index>(),
        what in 1u8..4,
    ) {
        let mut pages = Patching::default();
        let mut summary = Summary::empty(Suite::One);
        summary = pages.apply(&summary, &changes_of(&start));
        let older = pages.clone();
        summary = pages.apply(&summary, &changes_of(&before));
        if !age(&mut pages, &older, at, what) {
            return Ok(());
        }
        match update_within(&mut pages, &summary, &changes_of(&after), ANY_SHAPE) {
            Ok(update) => {
                let (_, expected) = Memory::rebuilt(&contents(&[&start, &before, &after]));
                prop_assert_eq!(update.summary, expected);
            }
            Err(NotUpdated::Decode(_)) => {}
            Err(error) => prop_assert!(false, "{error}"),
        }
    }

    #[test]
    fn pages_of_the_tree_are_found_as_without_a_check(
        numbers in prop::collection::btree_set(0u32..60_000, 0..6000),
        asked in prop::collection::vec(0u32..60_000, 1..20),
    ) {
        let content = |numbers: &BTreeSet<u32>| {
            numbers.iter().map(|number| (key(*number), vec![1])).collect()
        };
        let (mut memory, summary) = Memory::rebuilt(&content(&numbers));
        let mut same = memory.clone();
        let mut path = Path::new(&summary);
        let mut checked = Checked::new(&mut same, &mut path);
        for key in asked.into_iter().map(key).chain([vec![], vec![0xff]]) {
            for level in 0..=summary.pages.len() as u8 {
                prop_assert_eq!(checked.seek(level, &key), memory.seek(level, &key));
                let Some((first, _)) = memory.seek(level, &key).unwrap() else { continue };
                prop_assert_eq!(checked.next_key(level, &first), memory.next_key(level, &first));
            }
            let leaf = |found: Option<(Vec<u8>, Leaf)>| found.map(|(first, leaf)| (first, leaf.encode()));
            let found = checked.seek_leaf(&key).map(leaf);
            prop_assert_eq!(found, memory.seek_leaf(&key).map(leaf));
        }
    }
}
