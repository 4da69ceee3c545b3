//! What peers say that they hold of a node's own history, until they prove that.
//!
//! The daemon's rule (`sync/claims.rs`): a claim alone delays the first own change set, and
//! for a bounded time; only a header that this node has signed stops its writes. A life
//! of the node begins without any, and waits for its peers' first word.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use protocol::id::PartitionId;

/// A claim delays the first own change set at most so long.
pub const ASKED_MAX: Duration = Duration::from_secs(10);
/// After its start a member waits so long for what the hub says.
const FIRST_WORD_MAX: Duration = Duration::from_secs(2);
/// And the hub for its members.
const MEMBERS_WORD_MAX: Duration = Duration::from_secs(5);

/// How far a claim is known to be true.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The proof was asked for.
    Asked(Duration),
    /// There is a header with this number that this node has signed.
    Proven(u64),
    /// Something else came, or nothing.
    Unproven,
}

/// All claims that a node has heard of in its present life.
#[derive(Debug, Clone, Default)]
pub struct Claims {
    of: BTreeMap<(PartitionId, usize), State>,
    /// Numbers that are proven to be signed by this node.
    awaited: BTreeMap<PartitionId, u64>,
    /// Own partitions that were written in this life.
    written: BTreeSet<PartitionId>,
    first_word_until: Option<Duration>,
    /// When a peer said what it holds for the first time.
    heard: BTreeMap<usize, Duration>,
}

impl Claims {
    /// A life begins in which peers are about to say something.
    pub fn begin(is_hub: bool, now: Duration) -> Self {
        let longest = if is_hub { MEMBERS_WORD_MAX } else { FIRST_WORD_MAX };
        Self { first_word_until: Some(now + longest), ..Self::default() }
    }

    /// A peer has said what it holds.
    pub fn word_is_here(&mut self, peer: usize, now: Duration) {
        self.first_word_until = None;
        self.heard.entry(peer).or_insert(now);
    }

    /// When a peer has said for the first time what it holds.
    pub fn heard(&self, peer: usize) -> Option<Duration> {
        self.heard.get(&peer).copied()
    }

    /// A peer says that it holds more than this node, which is at `ours`.
    pub fn note(&mut self, partition: &PartitionId, peer: usize, ours: u64, now: Duration) {
        let state = self.of.entry((partition.clone(), peer)).or_insert(State::Asked(now));
        if let State::Proven(seq) = *state
            && seq <= ours
        {
            *state = State::Unproven;
        }
    }

    /// A peer holds no more than this node.
    pub fn clear(&mut self, partition: &PartitionId, peer: usize) {
        self.of.remove(&(partition.clone(), peer));
    }

    /// No proof came.
    pub fn unproven(&mut self, partition: &PartitionId, peer: usize) {
        if let Some(state) = self.of.get_mut(&(partition.clone(), peer)) {
            *state = State::Unproven;
        }
    }

    /// This node has signed number `seq`, and a peer holds it.
    pub fn proven(&mut self, partition: &PartitionId, peer: usize, seq: u64) {
        self.of.insert((partition.clone(), peer), State::Proven(seq));
        let highest = self.awaited.entry(partition.clone()).or_default();
        *highest = seq.max(*highest);
    }

    /// A person has decided which history goes on, whatever this node has signed besides.
    pub fn withdraw(&mut self, partition: &PartitionId) {
        self.awaited.remove(partition);
    }

    /// The node has written to a partition of its own.
    pub fn written(&mut self, partition: &PartitionId) {
        self.written.insert(partition.clone());
    }

    /// The number that has to be here before anything is written.
    pub fn awaited(&self, partition: &PartitionId) -> u64 {
        self.awaited.get(partition).copied().unwrap_or(0)
    }

    /// Whether a node that is at number `have` may write now.
    pub fn allow(&self, partition: &PartitionId, have: u64, now: Duration) -> bool {
        let awaited = self.awaited(partition);
        if awaited > have || self.written.contains(partition) {
            return awaited <= have;
        }
        let mut claims = self.of.iter().filter(|((of, _), _)| of == partition).peekable();
        match claims.peek() {
            None => self.first_word_until.is_none_or(|until| until <= now),
            Some(_) => claims.all(|(_, state)| match *state {
                State::Asked(since) => since + ASKED_MAX <= now,
                State::Proven(seq) => seq <= have,
                State::Unproven => true,
            }),
        }
    }
}
