//! What a peer says that it holds of a node's own history, until it proves that.
//!
//! The daemon's rule: a claim alone delays the first own change set, and for a
//! bounded time; only a header that this node has signed stops its writes. A life
//! of the node begins without any.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use protocol::id::PartitionId;

/// A claim delays the first own change set at most so long.
const ASKED_MAX: Duration = Duration::from_secs(10);

/// All claims that a node has heard of in its present life.
#[derive(Debug, Clone, Default)]
pub struct Claims {
    /// When the proof was asked for; none if the answer is here.
    asked: BTreeMap<PartitionId, Option<Duration>>,
    /// Numbers that are proven to be signed by this node.
    awaited: BTreeMap<PartitionId, u64>,
    /// Own partitions that were written in this life.
    written: BTreeSet<PartitionId>,
}

impl Claims {
    /// A peer says that it holds more than this node.
    pub fn note(&mut self, partition: &PartitionId, now: Duration) {
        self.asked.entry(partition.clone()).or_insert(Some(now));
    }

    /// A peer holds no more than this node.
    pub fn clear(&mut self, partition: &PartitionId) {
        self.asked.remove(partition);
    }

    /// No proof came.
    pub fn unproven(&mut self, partition: &PartitionId) {
        self.asked.insert(partition.clone(), None);
    }

    /// This node has signed number `seq`, and a peer holds it.
    pub fn proven(&mut self, partition: &PartitionId, seq: u64) {
        self.unproven(partition);
        let highest = self.awaited.entry(partition.clone()).or_default();
        *highest = seq.max(*highest);
    }

    /// The node has written to a partition of its own.
    pub fn written(&mut self, partition: &PartitionId) {
        self.written.insert(partition.clone());
    }

    /// Whether a node that is at number `have` may write now.
    pub fn allow(&self, partition: &PartitionId, have: u64, now: Duration) -> bool {
        let awaited = self.awaited.get(partition).copied().unwrap_or(0);
        let asked = self.asked.get(partition).copied().flatten();
        let waits = asked.is_some_and(|since| now < since + ASKED_MAX);
        awaited <= have && (self.written.contains(partition) || !waits)
    }
}
