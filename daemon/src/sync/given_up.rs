//! Own headers that count no more: a person has decided for another history.
//!
//! Filled by `app::given_up`, which keeps them on the disk, asked by [`super::connection`]
//! and [`super::follow`]. A peer that still holds one of them shows no second history that
//! nobody knows of, so it stops nothing here: its copy has to be fetched again. Invariant:
//! what is in the history that is here is never taken for given up.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Mutex, PoisonError},
};

use protocol::{change::Position, hash::Hash, id::PartitionId};
use store::Store;

/// The hashes of headers that were given up, by partition.
#[derive(Default)]
pub struct GivenUp(Mutex<BTreeMap<PartitionId, HashSet<Hash>>>);

impl GivenUp {
    /// These count no more.
    pub fn note(&self, partition: &PartitionId, hashes: impl IntoIterator<Item = Hash>) {
        // Everything done under the lock is an insertion.
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.entry(partition.clone()).or_default().extend(hashes);
    }

    /// Whether a peer's head of an own partition is one that was given up.
    pub fn contains(&self, store: &Store, partition: &PartitionId, head: Position) -> bool {
        let is_noted = {
            let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            known.get(partition).is_some_and(|hashes| hashes.contains(&head.hash))
        };
        is_noted
            && store
                .header_hash_at(partition, head.seq)
                .is_ok_and(|ours| ours.is_none_or(|ours| ours != head.hash))
    }
}
