//! Leaves made before the writer's turn: for a first load, whose leaves hold
//! nothing but its own changes, nothing of the store is needed for that.
//!
//! `crate::prepare` has them made on the thread of whoever commits.
//!
//! Invariant: a page that was made ahead is taken only for a leaf that equals the
//! one that it was made of, so that nothing depends on a guess.

use std::collections::HashMap;

use protocol::{
    change::Change,
    page::{MadePage, RawLeaf},
    suite::Suite,
};

use crate::cores::on_all_cores;

/// Leaves that a commit will probably need, by their first keys.
#[derive(Default)]
pub struct MadeAhead(HashMap<Vec<u8>, (RawLeaf, MadePage)>);

impl MadeAhead {
    /// The leaves of a tree with nothing but these changes. Only where the first
    /// one begins, and the last one ends, is a guess.
    pub fn of(suite: Suite, changes: &[Change]) -> Self {
        let leaves = RawLeaf::cut(changes.iter().filter_map(Change::entry));
        let made = make_leaves(suite, &leaves);
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
pub fn make_leaves(suite: Suite, leaves: &[RawLeaf]) -> Vec<MadePage> {
    on_all_cores(leaves.iter().collect(), |leaf| leaf.make(suite))
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

    fn leaves(changes: &[Change]) -> Vec<RawLeaf> {
        RawLeaf::cut(changes.iter().filter_map(Change::entry))
    }

    #[test]
    fn a_page_made_ahead_is_the_page_of_an_equal_leaf_only() {
        let mut ahead = MadeAhead::of(Suite::One, &puts(1));
        let (same, other) = (leaves(&puts(1)), leaves(&puts(2)));
        assert!(same.len() > 10);
        for (leaf, other) in same.iter().zip(&other) {
            assert_eq!(other.first_key(), leaf.first_key());
            assert_eq!(ahead.take(other), None);
            assert_eq!(ahead.take(leaf), Some(leaf.make(Suite::One)));
            assert_eq!(ahead.take(leaf), None, "it is taken once");
        }
    }
}
