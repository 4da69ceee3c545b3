//! What of a commit needs nothing of the store, done before the writer's turn.
//!
//! Whoever commits calls [`Prepared::new`] on its own thread, while the writer
//! is busy with the commit before: encoding, hashing and compressing the
//! changes, and for a first load, whose leaves hold nothing but its own changes,
//! the leaves themselves.
//!
//! Invariant: a page that was made ahead is taken only for a leaf that equals the
//! one that it was made of, so that nothing depends on a guess.

use std::collections::HashMap;

use protocol::{
    change::{Change, changes_hash, encode_changes},
    hash::Hash,
    page::{LeafBuilder, MadePage, RawLeaf},
    record::key_hashes,
};

use super::{StoreError, state::OwnChanges, writer::check_limits};
use crate::cores::on_all_cores;

/// The next change set of an own partition, but for what depends on its head.
pub(super) struct Prepared {
    pub own: OwnChanges,
    /// The size of the encoded changes.
    pub body_bytes: usize,
    pub changes_hash: Hash,
    /// What the log will keep, if it keeps the changes.
    pub kept_body: Option<Vec<u8>>,
    pub leaves: MadeAhead,
}

impl Prepared {
    /// Refuses what no replica would take.
    pub fn new(own: OwnChanges) -> Result<Self, StoreError> {
        let body = encode_changes(&own.changes);
        check_limits(&own.changes, &body)
            .map_err(|problem| StoreError::Changes { partition: own.partition.clone(), problem })?;
        let leaves = if own.keep_body { MadeAhead::default() } else { MadeAhead::of(&own.changes) };
        Ok(Self {
            body_bytes: body.len(),
            changes_hash: changes_hash(&body),
            kept_body: own.keep_body.then(|| protocol::codec::compress(&body)),
            leaves,
            own,
        })
    }
}

/// Leaves that a commit will probably need, by their first keys.
#[derive(Default)]
pub(super) struct MadeAhead(HashMap<Vec<u8>, (RawLeaf, MadePage)>);

impl MadeAhead {
    /// The leaves of a tree with nothing but these changes. Only where the first
    /// one begins, and the last one ends, is a guess.
    fn of(changes: &[Change]) -> Self {
        let mut builder = LeafBuilder::new();
        let mut leaves = Vec::new();
        let entries = || changes.iter().filter_map(Change::entry);
        for ((key, value), hash) in entries().zip(key_hashes(entries().map(|(key, _)| key))) {
            if builder.push_hashed(key, hash, value) {
                leaves.push(builder.take());
            }
        }
        let made = make_leaves(&leaves);
        let by_key = leaves.into_iter().zip(made);
        Self(by_key.map(|(leaf, made)| (leaf.first_key().to_vec(), (leaf, made))).collect())
    }

    /// The page of this leaf, if it is here.
    pub fn take(&mut self, leaf: &RawLeaf) -> Option<MadePage> {
        let (known, _) = self.0.get(leaf.first_key())?;
        if known != leaf {
            return None;
        }
        self.0.remove(leaf.first_key()).map(|(_, made)| made)
    }
}

/// The pages of leaves, in their order.
pub(super) fn make_leaves(leaves: &[RawLeaf]) -> Vec<MadePage> {
    on_all_cores(leaves.iter().collect(), RawLeaf::make)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn puts(value: u8) -> Vec<Change> {
        let put = |number: u32| Change::Put {
            key: number.to_be_bytes().to_vec(),
            value: vec![value; 40],
        };
        (0..2000).map(put).collect()
    }

    /// The leaves of these changes but for the last one, which is not at its end.
    fn leaves(changes: &[Change]) -> Vec<RawLeaf> {
        let mut builder = LeafBuilder::new();
        let mut leaves = Vec::new();
        for change in changes {
            let Change::Put { key, value } = change else { continue };
            if builder.push(key, value) {
                leaves.push(builder.take());
            }
        }
        leaves
    }

    #[test]
    fn a_page_made_ahead_is_the_page_of_an_equal_leaf_only() {
        let mut ahead = MadeAhead::of(&puts(1));
        let (same, other) = (leaves(&puts(1)), leaves(&puts(2)));
        assert!(same.len() > 10);
        for (leaf, other) in same.iter().zip(&other) {
            assert_eq!(other.first_key(), leaf.first_key());
            assert_eq!(ahead.take(other), None);
            assert_eq!(ahead.take(leaf), Some(leaf.make()));
            assert_eq!(ahead.take(leaf), None, "it is taken once");
        }
    }
}
