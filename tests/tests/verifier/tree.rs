//! The state tree over entries: section 8 of `protocol/SPEC.md`.
//!
//! Pages are found twice: by the definition (groups of a binary trie) and by the
//! rule that cuts a level in one pass. Both have to agree, always.

use std::{collections::BTreeMap, ops::Range};

use super::{Checked, ensure, hashes, layout};
use hashes::Hash;

/// Entries of a partition by key.
pub type State = BTreeMap<Vec<u8>, Vec<u8>>;

/// What a page's parent holds of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    pub first_key: Vec<u8>,
    pub hash: Hash,
    pub records: u64,
    pub entries: u16,
}

/// A tree's root, and the pages of each level, leaves first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    pub root: Hash,
    pub levels: Vec<Vec<Reference>>,
    pub records: u64,
}

impl Tree {
    /// How many pages each level has.
    pub fn pages(&self) -> Vec<usize> {
        self.levels.iter().map(Vec::len).collect()
    }

    /// How many pages are above the leaves.
    pub fn inner_pages(&self) -> u64 {
        self.pages().iter().skip(1).sum::<usize>() as u64
    }

    /// Whether everybody takes a tree of this shape.
    pub fn check_shape(&self) -> Checked<()> {
        ensure(self.levels.len() <= layout::LEVELS_MAX, "a tree with too many levels")?;
        let more = self.records / layout::RECORDS_FOR_AN_INNER_PAGE;
        let within = self.inner_pages() <= layout::INNER_PAGES_MAX + more;
        ensure(within, "too many pages above the leaves")
    }
}

/// The tree over all entries, whose shape is not yet one that everybody takes.
pub fn of(state: &State) -> Checked<Tree> {
    let entries: Vec<(&[u8], Hash)> = state
        .iter()
        .map(|(key, record)| Ok((&key[..], hashes::entry_digest(key, record)?)))
        .collect::<Checked<_>>()?;
    of_entries(&entries)
}

/// The tree over keys, ascending, and their entries' digests.
pub fn of_entries(entries: &[(&[u8], Hash)]) -> Checked<Tree> {
    let records = entries.len() as u64;
    if entries.is_empty() {
        let root = hashes::hash(layout::hash::PAGE, &[]);
        return Ok(Tree { root, levels: vec![], records });
    }
    let keys: Vec<&[u8]> = entries.iter().map(|(key, _)| *key).collect();
    let leaves: Vec<Reference> = pages(&keys)
        .into_iter()
        .map(|range| {
            let digests: Vec<Hash> = entries[range.clone()].iter().map(|(_, d)| *d).collect();
            let (hash, count) = (leaf_hash(&digests), digests.len());
            let entries = u16::try_from(count).expect("a page has few entries");
            let first_key = keys[range.start].to_vec();
            Reference { first_key, hash, records: count as u64, entries }
        })
        .collect();
    let mut levels = vec![leaves];
    loop {
        let newest = &levels[levels.len() - 1];
        if let [only] = &newest[..] {
            return Ok(Tree { root: only.hash, levels, records });
        }
        ensure(levels.len() < layout::LEVELS_MAX, "a tree with too many levels")?;
        let level = u8::try_from(levels.len()).expect("there are few levels");
        let keys: Vec<&[u8]> = newest.iter().map(|page| &page.first_key[..]).collect();
        let above = pages(&keys).into_iter().map(|range| inner(level, &newest[range]));
        levels.push(above.collect::<Checked<_>>()?);
    }
}

/// The hash of a leaf that holds entries with these digests.
pub fn leaf_hash(digests: &[Hash]) -> Hash {
    hashes::hash(layout::hash::PAGE, &[&[0], &digests.concat()[..]].concat())
}

/// A page of a level from 1 over its children.
pub fn inner(level: u8, children: &[Reference]) -> Checked<Reference> {
    let mut covered = vec![level];
    let mut records = 0u64;
    for child in children {
        covered.extend(child.hash);
        covered.extend(child.records.to_be_bytes());
        covered.extend(child.entries.to_be_bytes());
        covered.extend(hashes::key_hash(&child.first_key)?);
        records = records.checked_add(child.records).ok_or(super::Refused("too many records"))?;
    }
    Ok(Reference {
        first_key: children[0].first_key.clone(),
        hash: hashes::hash(layout::hash::PAGE, &covered),
        records,
        entries: u16::try_from(children.len()).expect("a page has few children"),
    })
}

/// The pages of a level with these keys, ascending.
pub fn pages(keys: &[&[u8]]) -> Vec<Range<usize>> {
    let mut by_groups = Vec::new();
    groups(keys, 0..keys.len(), &mut by_groups);
    assert_eq!(by_groups, by_one_pass(keys), "the two rules of section 8 disagree");
    by_groups
}

/// By the definition: the largest groups that fit a page. All that have `range`'s
/// entries are one group; a larger one is halved where its keys first differ.
fn groups(keys: &[&[u8]], range: Range<usize>, found: &mut Vec<Range<usize>>) {
    if range.len() <= layout::PAGE_ENTRIES_MAX {
        found.extend((!range.is_empty()).then_some(range));
        return;
    }
    // Keys ascend, so what the first and the last share, all share.
    let shared = shared_bits(keys[range.start], keys[range.end - 1]);
    let with_zero = |key: &&[u8]| !bit(key, shared);
    let middle = range.start + keys[range.clone()].partition_point(with_zero);
    groups(keys, range.start..middle, found);
    groups(keys, middle..range.end, found);
}

/// A bit of a key in the spelling in which no key begins another: before each
/// byte a 1, behind the last byte a 0.
fn bit(key: &[u8], index: usize) -> bool {
    match (index / 9, index % 9) {
        (byte, 0) => byte < key.len(),
        (byte, inside) => key[byte] >> (8 - inside) & 1 == 1,
    }
}

/// How many leading bits two different keys have in common, in that spelling.
fn shared_bits(left: &[u8], right: &[u8]) -> usize {
    let differs = |index: &usize| bit(left, *index) != bit(right, *index);
    let bytes = left.iter().zip(right).take_while(|(left, right)| left == right).count();
    (9 * bytes..).find(differs).expect("the keys are different")
}

/// By the rule that goes over a level once.
fn by_one_pass(keys: &[&[u8]]) -> Vec<Range<usize>> {
    let between =
        |pair: &[&[u8]]| i64::try_from(shared_bits(pair[0], pair[1])).expect("keys are short");
    // Both ends of the level have nothing in common with what is not there.
    let mut shared = vec![-1];
    shared.extend(keys.windows(2).map(between));
    shared.push(-1);
    let mut found = Vec::new();
    let mut start = 0;
    while start < keys.len() {
        let last = (start + layout::PAGE_ENTRIES_MAX).min(keys.len());
        let least = shared[start + 1..=last].iter().min().expect("the range is not empty");
        let bound = shared[start].max(*least);
        let end = (start + 1..=keys.len()).find(|at| shared[*at] <= bound);
        let end = end.expect("the level's end is one");
        found.push(start..end);
        start = end;
    }
    found
}
