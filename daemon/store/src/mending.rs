//! What of a partition's log is damaged, and how it is mended.
//!
//! Whoever reads the log and meets damage has it noted by number ([`Store::header_at`],
//! [`Store::change_sets`] and the chore `scrub`); whoever mends it brings what was signed,
//! and the writer judges whether that belongs there (`writer/mending.rs`). Whose signature
//! counts is not the store's question.

use std::collections::BTreeMap;

use protocol::{change::Position, hash::Hash, id::PartitionId};

use crate::{
    Store,
    error::StoreError,
    jobs::{Job, Mend},
    log,
};

impl Store {
    /// What of a partition's log was found to be damaged and is not mended yet, by number.
    pub fn known_log_damage(&self, partition: &PartitionId) -> BTreeMap<u64, String> {
        self.shared.partition(partition).map(|state| state.log_damage()).unwrap_or_default()
    }

    /// Notes what is wrong with a number of a partition's log, or why it is not mended.
    pub fn note_log_damage(&self, partition: &PartitionId, seq: u64, problem: String) {
        if let Some(state) = self.shared.partition(partition) {
            self.shared.note_log_damage(partition, &state, seq, problem);
        }
    }

    /// A number of a partition's log was read and is well.
    pub fn log_is_well(&self, partition: &PartitionId, seq: u64) {
        if let Some(state) = self.shared.partition(partition) {
            state.log_is_well(seq);
        }
    }

    /// Whether the header with the number of this position is the one that is kept here;
    /// none if nothing is kept of it. A damaged one is an error, and no other history.
    pub fn is_same(
        &self,
        partition: &PartitionId,
        position: Position,
    ) -> Result<Option<bool>, StoreError> {
        let state = self.shared.partition(partition);
        let Some((state, head)) = state.and_then(|state| Some((state.clone(), state.head()?)))
        else {
            return Ok(None);
        };
        let held = (&head.signed, &head.before);
        let same = log::is_same(&self.shared.disk, state.number, held, position);
        self.shared.heed_log(partition, &state, position.seq, same)
    }

    /// Whether what is kept of a partition shows that the header of this position is in the
    /// history of its head. `previous` is what the header says of the one before it, where
    /// it is at hand.
    pub fn is_vouched(
        &self,
        partition: &PartitionId,
        position: Position,
        previous: Option<Hash>,
    ) -> Result<bool, StoreError> {
        let state = self.shared.partition(partition);
        let Some((state, head)) = state.and_then(|state| Some((state.clone(), state.head()?)))
        else {
            return Ok(false);
        };
        let head = (&head.signed, &head.before);
        log::is_vouched(&self.shared.disk, state.number, head, position, previous)
    }

    /// The hash of the header with this number by what is kept behind it, whatever is kept
    /// of itself.
    pub fn vouched_hash_at(
        &self,
        partition: &PartitionId,
        seq: u64,
    ) -> Result<Option<Hash>, StoreError> {
        let state = self.shared.partition(partition);
        let Some((state, head)) = state.and_then(|state| Some((state.clone(), state.head()?)))
        else {
            return Ok(None);
        };
        let head = (&head.signed, &head.before);
        log::vouched_hash(&self.shared.disk, state.number, head, seq)
    }

    /// Whether a header with this number was here, of which nothing is left.
    pub fn is_header_lost(&self, partition: &PartitionId, seq: u64) -> Result<bool, StoreError> {
        match self.shared.partition(partition) {
            Some(state) => log::is_lost(&self.shared.disk, state.number, seq),
            None => Ok(false),
        }
    }

    /// Puts a number of a partition's log right; durable when it answers.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if what is given does not belong there, or if what would be
    /// left out is well or needed; `Overtaken` if the partition has no such number any
    /// more. Then everything is as before.
    pub async fn mend_log(
        &self,
        partition: &PartitionId,
        seq: u64,
        mend: Mend,
    ) -> Result<(), StoreError> {
        let partition = partition.clone();
        let job = |reply| Job::MendLog { partition, seq, mend, reply };
        self.queue.submit(job).await?.answer().await
    }
}
