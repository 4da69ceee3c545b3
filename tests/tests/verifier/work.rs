//! What a change set may touch: the bounds on work of section 8 of
//! `protocol/SPEC.md`, counted from whole trees.
//!
//! The program counts while it updates a tree, and reads only what it has to; here
//! the trees before and after are compared page by page.

use std::collections::BTreeSet;

use super::{
    Checked,
    change::Change,
    ensure,
    hashes::Hash,
    layout,
    tree::{Reference, State, Tree},
};

/// What a change set touches of the state before it, and turns over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Work {
    /// Of the leaves in which its keys are or would be, uncompressed.
    pub leaf_bytes: u64,
    /// Of all pages above these leaves.
    pub inner_bytes: u64,
    /// Pages below the new root that the tree did not have.
    pub made: u64,
    /// Pages that the tree has no longer, the root's level and above among them.
    pub ended: u64,
}

impl Work {
    /// Whether everybody takes a change set that touches this much.
    pub fn check(&self) -> Checked<()> {
        ensure(self.leaf_bytes <= layout::TOUCHED_LEAF_BYTES_MAX, "too many bytes of leaves")?;
        ensure(self.inner_bytes <= layout::TOUCHED_INNER_BYTES_MAX, "too many bytes of pages")?;
        ensure(self.made <= layout::TURNED_OVER_MAX, "too many pages made")?;
        ensure(self.ended <= layout::TURNED_OVER_MAX, "too many pages ended")
    }
}

/// Bytes of each entry in an uncompressed leaf, in the order of keys.
pub fn entry_bytes(state: &State) -> Vec<u64> {
    state.iter().map(|(key, record)| entry(key.len(), record.len())).collect()
}

/// Bytes of an entry whose key and record have these lengths.
pub fn entry(key: usize, record: usize) -> u64 {
    (2 + key + 4 + record) as u64
}

/// The work of changes that turn the tree `before`, whose entries have so many
/// bytes each, into the tree `after`.
pub fn of(before: &Tree, entries: &[u64], after: &Tree, changes: &[Change]) -> Work {
    let mut touched = touched_leaves(before, changes);
    let leaves = leaf_bytes(before, entries);
    let leaf_bytes = touched.iter().map(|leaf| leaves[*leaf]).sum();
    let mut inner_bytes = 0;
    for levels in before.levels.windows(2) {
        let mut above = BTreeSet::new();
        let mut first = 0;
        for (index, page) in levels[1].iter().enumerate() {
            let behind = first + usize::from(page.entries);
            if touched.range(first..behind).next().is_some() {
                above.insert(index);
                inner_bytes += page_bytes(&levels[0][first..behind]);
            }
            first = behind;
        }
        touched = above;
    }
    let nothing = changes.is_empty();
    let (made, ended) = if nothing { (0, 0) } else { turned_over(before, after) };
    Work { leaf_bytes, inner_bytes, made, ended }
}

/// The leaves in which the keys of changes are or would be: the last one that does
/// not begin behind the key, or the first of all.
fn touched_leaves(before: &Tree, changes: &[Change]) -> BTreeSet<usize> {
    let Some(leaves) = before.levels.first() else { return BTreeSet::new() };
    let of = |change: &Change| {
        leaves.partition_point(|leaf| &leaf.first_key[..] <= change.key()).saturating_sub(1)
    };
    changes.iter().map(of).collect()
}

fn leaf_bytes(before: &Tree, mut entries: &[u64]) -> Vec<u64> {
    let leaves = before.levels.first().map_or(&[][..], Vec::as_slice);
    let bytes = leaves.iter().map(|leaf| {
        let (own, rest) = entries.split_at(leaf.entries.into());
        entries = rest;
        2 + own.iter().sum::<u64>()
    });
    bytes.collect()
}

/// Bytes of an inner page over these children.
fn page_bytes(children: &[Reference]) -> u64 {
    let child = |child: &Reference| 2 + child.first_key.len() + size_of::<Hash>() + 8 + 2;
    2 + children.iter().map(child).sum::<usize>() as u64
}

/// How many pages are made and ended. Those of the new root's level and above are
/// few when they are made, and may be many when they end.
fn turned_over(before: &Tree, after: &Tree) -> (u64, u64) {
    let below_root = after.levels.len().saturating_sub(1);
    let pages = |tree: &Tree, level: usize| -> BTreeSet<(Vec<u8>, Hash)> {
        let pages = tree.levels.get(level).into_iter().flatten();
        pages.map(|page| (page.first_key.clone(), page.hash)).collect()
    };
    let (mut made, mut ended) = (0, 0);
    for level in 0..below_root.max(before.levels.len()) {
        let (old, mut new) = (pages(before, level), pages(after, level));
        if level >= below_root {
            new.clear();
        }
        made += new.difference(&old).count();
        ended += old.difference(&new).count();
    }
    (made as u64, ended as u64)
}
