//! What a store does besides going on: it stops a partition, drops what it has of one,
//! and lets the log's old bodies and headers go.
//!
//! The rules are those of the real store (`writer/forget.rs`, `writer/pruning.rs`); its
//! bounds are small here, so that they are met all the time. A first load and a change of
//! keys are the only other reasons for which something is not in the log.

use protocol::{
    change::{Position, SignedHeader},
    hash::Hash,
    id::PartitionId,
};

use super::store::{Partition, Store};

/// Bodies that are kept although all who are waited for have them.
const BODIES_ACKNOWLEDGED: usize = 2;
/// And those that are kept at most.
const BODIES_MAX: usize = 10;
/// Headers of another origin's that are kept; of earlier ones the hash is.
const HEADERS_MAX: usize = 4;

impl Store {
    /// Lets nothing move a partition, until there is one history again: beside what is here
    /// there is `theirs`, where that is known.
    pub fn quarantine(&mut self, partition: &PartitionId, theirs: Option<Position>) {
        let state = self.entry(partition);
        let same = theirs.and_then(|theirs| state.header(theirs.seq)).map(SignedHeader::position);
        let ours = same.or(state.position());
        state.evidence = ours.into_iter().chain(theirs).collect();
        state.quarantined = true;
    }

    /// There is one history again.
    pub fn release(&mut self, partition: &PartitionId) {
        let state = self.entry(partition);
        state.evidence.clear();
        state.quarantined = false;
    }

    /// All partitions that nothing moves.
    pub fn quarantined(&self) -> impl Iterator<Item = PartitionId> {
        let all = self.partitions.iter().filter(|(_, state)| state.quarantined);
        all.map(|(partition, _)| partition.clone())
    }

    /// Drops an own partition in favour of another history that this node has signed up to
    /// `instead`. What is in both of them is given up as well, until it is back.
    pub fn give_up(&mut self, partition: &PartitionId, instead: Position) {
        self.lost.insert(partition.clone(), instead);
        self.forget(partition);
    }

    /// Drops a partition, with what peers are known to hold of it.
    pub fn forget(&mut self, partition: &PartitionId) {
        let suite = self.suite();
        *self.entry(partition) = Partition::empty(suite);
        self.known.retain(|(_, of), _| of != partition);
        self.load_registry(partition);
    }

    /// Notes that own headers count no more.
    pub fn note_given_up(&mut self, partition: &PartitionId) {
        let Some(state) = self.partition(partition) else { return };
        let last = state.position().map_or(0, |at| at.seq);
        let hashes: Vec<Hash> = (1..=last).filter_map(|seq| state.header_hash(seq)).collect();
        self.note_others_given_up(hashes);
    }

    /// Notes heads of one more history, which counts no more either.
    pub fn note_others_given_up(&mut self, heads: impl IntoIterator<Item = Hash>) {
        self.given_up.extend(heads);
    }

    /// Whether a peer's head of an own partition is one that was given up.
    pub fn has_given_up(&self, partition: &PartitionId, at: Position) -> bool {
        self.given_up.contains(&at.hash) && !self.holds(partition, at)
    }

    /// The head of a partition that was lost and is not back.
    pub fn lost(&self, partition: &PartitionId) -> Option<Position> {
        self.lost.get(partition).copied()
    }

    /// A partition moved: what was lost of it may be here.
    pub(super) fn is_back(&mut self, partition: &PartitionId) {
        let have = self.position(partition).map_or(0, |at| at.seq);
        if self.lost.get(partition).is_some_and(|lost| lost.seq <= have) {
            self.lost.remove(partition);
        }
    }

    /// Drops what nobody waits for of a partition's log.
    pub(super) fn prune(&mut self, partition: &PartitionId) {
        let acks = self.known.iter().filter(|((_, of), _)| of == partition);
        let acknowledged = acks.map(|(_, at)| at.seq).min().unwrap_or(u64::MAX);
        let is_foreign = partition.origin != self.name;
        let state = self.entry(partition);
        let mut kept = state.log.values().filter(|logged| logged.body.is_some()).count();
        for (seq, logged) in &mut state.log {
            let is_due = kept > BODIES_ACKNOWLEDGED && *seq <= acknowledged || kept > BODIES_MAX;
            if is_due && logged.body.take().is_some() {
                kept -= 1;
            }
        }
        // The nodes of the history have their hashes.
        while is_foreign && state.log.len() > HEADERS_MAX {
            state.log.pop_first();
        }
    }
}
