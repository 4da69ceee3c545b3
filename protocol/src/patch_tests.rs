//! A leaf that is changed in place is the leaf that is written anew.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{
    page::{Leaf, MadePage, RawLeaf},
    record::entry_digest,
    suite::Suite,
};

type Content = BTreeMap<Vec<u8>, Vec<u8>>;

/// The leaf with this content.
fn leaf_of(suite: Suite, content: &Content) -> MadePage {
    RawLeaf::of(content.iter().map(|(key, value)| (&key[..], &value[..]))).make(suite)
}

fn apply(content: &mut Content, changes: &[Change]) {
    for change in changes {
        match change {
            Change::Put { key, value } => content.insert(key.clone(), value.clone()),
            Change::Delete { key } => content.remove(key),
        };
    }
}

fn changes_of(wanted: BTreeMap<u8, Option<u8>>) -> Vec<Change> {
    let change = |(key, value): (u8, Option<u8>)| match value {
        Some(value) => Change::Put { key: vec![b'k', key], value: vec![value; 9] },
        None => Change::Delete { key: vec![b'k', key] },
    };
    wanted.into_iter().map(change).collect()
}

fn some_changes() -> impl Strategy<Value = Vec<Change>> {
    let values = prop_oneof![3 => (0..3u8).prop_map(Some), 1 => Just(None)];
    proptest::collection::btree_map(0..90u8, values, 0..12).prop_map(changes_of)
}

proptest! {
    #[test]
    fn patches_one_after_the_other_give_what_writing_gives(
        start in proptest::collection::btree_set(0..90u8, 1..90),
        rounds in proptest::collection::vec(some_changes(), 1..6),
        suite in prop::sample::select(Suite::ALL),
    ) {
        let mut content: Content =
            start.into_iter().map(|key| (vec![b'k', key], vec![7; 9])).collect();
        let base = leaf_of(suite, &content);
        let leaf = Leaf::decode(&base.body).unwrap();
        prop_assert_eq!(&leaf.describe_with_index(suite).1, &base.index);
        let mut patch: Option<Vec<u8>> = None;
        for changes in rounds {
            let last = content.keys().next_back().unwrap().clone();
            let changes: Vec<Change> =
                changes.into_iter().filter(|change| change.key() <= &last[..]).collect();
            let mut after = content.clone();
            apply(&mut after, &changes);
            let now = leaf_of(suite, &content);
            let update = |expected: Hash| {
                update(suite, &base.index, patch.as_deref(), Some(&expected), &changes).unwrap()
            };
            prop_assert_eq!(update(suite.none()).outcome, Outcome::Stale);
            let Updated { bytes_before, outcome } = update(now.page.hash);
            prop_assert_eq!(bytes_before, now.bytes);
            match outcome {
                Outcome::Stale => prop_assert!(false, "it is the leaf that was expected"),
                Outcome::Unchanged => prop_assert_eq!(&after, &content),
                Outcome::Rewrite => {
                    // Only for a reason: it may begin or end elsewhere, or there is
                    // too much.
                    let ends = changes.iter().any(|change| {
                        change.key() < &base.page.first_key[..]
                            || (matches!(change, Change::Delete { .. })
                                && (change.key() == base.page.first_key || change.key() == &last[..]))
                    });
                    let old = patch.as_deref().map_or(0, |patch| decode_patch(patch).unwrap().len());
                    prop_assert!(ends || old + changes.len() > PATCH_CHANGES_MAX);
                    break;
                }
                Outcome::Patched { page, bytes, patch: new, shrank } => {
                    let made = leaf_of(suite, &after);
                    prop_assert_eq!(bytes, made.bytes);
                    prop_assert_eq!(shrank, after.len() < content.len());
                    prop_assert_eq!(&page, &made.page);
                    let changed = match &new {
                        Some(new) => leaf.patched(&decode_patch(new).unwrap()).unwrap(),
                        None => leaf.clone(),
                    };
                    prop_assert_eq!(changed.encode(), made.body);
                    prop_assert_eq!(changed.entries().count(), changed.len());
                    let digests = Digests::decode(suite, &base.index, new.as_deref()).unwrap();
                    for (key, value) in &after {
                        prop_assert_eq!(changed.get(key), Some(&value[..]));
                        prop_assert_eq!(digests.get(key), Some(&entry_digest(suite, key, value)));
                    }
                    for around in 0..92u8 {
                        let from = vec![b'k', around];
                        let keys = digests.keys_from(&from).map(<[u8]>::to_vec);
                        let expected = after.range(from.clone()..).map(|(key, _)| key.clone());
                        prop_assert_eq!(keys.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
                        prop_assert_eq!(digests.get(&from).is_some(), after.contains_key(&from));
                    }
                    (patch, content) = (new, after);
                }
            }
        }
    }

    #[test]
    fn an_index_that_was_altered_is_refused_or_read_but_nothing_worse(
        at in 0usize..200, byte: u8, suite in prop::sample::select(Suite::ALL),
    ) {
        let content: Content = (0..40u8).map(|key| (vec![b'k', key], vec![7; 9])).collect();
        let mut base = leaf_of(suite, &content);
        let place = at % base.index.len();
        base.index[place] = byte;
        let _ = update(suite, &base.index, None, None, &changes_of([(3, Some(1))].into()));
        prop_assert!(update(suite, &base.index[..place], None, None, &[]).is_err());
    }
}

#[test]
fn the_empty_key_stands_in_an_index_once() {
    let made = leaf_of(Suite::One, &[(vec![], vec![7]), (vec![0], vec![7])].into());
    assert!(update(Suite::One, &made.index, None, None, &[]).is_ok());
    let mut entry = vec![0; 8];
    entry.extend_from_slice(&made.index[10..42]);
    let twice = [&[0, 2][..], &entry, &entry].concat();
    assert!(update(Suite::One, &twice[..], None, None, &[]).is_err());
    let once = [&[0, 1][..], &entry].concat();
    assert!(update(Suite::One, &once[..], None, None, &[]).is_ok());
}

fn outcome(index: &[u8], patch: Option<&[u8]>, changes: &[Change]) -> Outcome {
    update(Suite::One, index, patch, None, changes).unwrap().outcome
}

/// A leaf of so many keys of two bytes, each a multiple of two.
fn numbers(count: usize) -> (Vec<Vec<u8>>, MadePage) {
    let keys: Vec<Vec<u8>> = (0..count as u16).map(|n| (2 * n).to_be_bytes().to_vec()).collect();
    let made = leaf_of(Suite::One, &keys.iter().map(|key| (key.clone(), vec![0])).collect());
    (keys, made)
}

#[test]
fn a_full_leaf_takes_no_more_in_place() {
    let put = |key: &[u8], value: u8| Change::Put { key: key.to_vec(), value: vec![value] };
    let between = 11u16.to_be_bytes();
    let rewritten =
        |made: &MadePage, change| outcome(&made.index, None, &[change]) == Outcome::Rewrite;
    let (keys, full) = numbers(PAGE_ENTRIES_MAX);
    assert!(!rewritten(&full, put(&keys[5], 1)));
    assert!(!rewritten(&full, Change::Delete { key: keys[5].clone() }));
    assert!(rewritten(&full, put(&between, 1)));
    assert!(!rewritten(&numbers(PAGE_ENTRIES_MAX - 1).1, put(&between, 1)));
}

#[test]
fn a_patch_does_not_outgrow_its_limits() {
    let (keys, made) = numbers(100);
    let changes = |count: usize, bytes: usize| -> Vec<Change> {
        let put = |key: &Vec<u8>| Change::Put { key: key.clone(), value: vec![1; bytes] };
        keys[1..=count].iter().map(put).collect()
    };
    let outcome = |patch: Option<&[u8]>, changes: &[Change]| outcome(&made.index, patch, changes);
    assert_eq!(outcome(None, &changes(PATCH_CHANGES_MAX + 1, 1)), Outcome::Rewrite);
    assert_eq!(outcome(None, &changes(2, PATCH_BYTES_MAX / 2)), Outcome::Rewrite);
    let Outcome::Patched { patch: Some(patch), .. } = outcome(None, &changes(PATCH_CHANGES_MAX, 1))
    else {
        panic!("not patched");
    };
    assert_eq!(outcome(Some(&patch), &changes(3, 1)), Outcome::Unchanged);
    let one_more = Change::Put { key: keys[50].clone(), value: vec![1] };
    assert_eq!(outcome(Some(&patch), &[one_more]), Outcome::Rewrite);
    let back = changes(PATCH_CHANGES_MAX, 1);
    let back: Vec<Change> =
        back.iter().map(|c| Change::Put { key: c.key().to_vec(), value: vec![0] }).collect();
    let Outcome::Patched { page, patch: None, .. } = outcome(Some(&patch), &back) else {
        panic!("what is taken back leaves no patch");
    };
    assert_eq!(page, made.page);
}
