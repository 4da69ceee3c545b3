//! The jobs of the writer: what it is asked to do, with what, and what it
//! answers. Words only; the work is in `writer`.
//!
//! Whoever asks sends a [`Job`] through [`crate::queue`].

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use protocol::{
    change::{Change, Position, SignedHeader, VerifiedChangeSet},
    hash::Hash,
    id::{NodeId, PartitionId},
    page::MadePage,
    session::fetch::ShownHead,
    sign::SigningKey,
    tree::Summary,
};
use tokio::sync::{mpsc::WeakSender, oneshot};

use crate::{
    engine::packs,
    error::StoreError,
    marks::MarkMove,
    prepare::Prepared,
    state::{Ack, Head, OwnChanges},
    tree::OpenSnapshot,
};

/// Leaves that are written or deleted in one batch, about 2 MB.
pub const LEAVES_PER_BATCH: usize = 256;
/// Bytes that end a batch earlier: one leaf may have 10 MB.
pub const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// Bytes that the batches of all stagings hold, those that are filled and those that wait
/// for the writer: when a hundred members begin anew at once, each waits for the others.
const STAGINGS_BYTES: usize = 32 * 1024 * 1024;
/// Bytes that a batch may have at least, however many stagings there are: what is shorter
/// is not worth appending to a pack.
const STAGED_BYTES_MIN: usize = 2 * packs::APPEND_BYTES_MIN;

/// Bytes that end a batch of leaves, where so many stagings are under way.
pub fn staged_bytes_max(stagings: usize) -> usize {
    // One is filled while the writer has another.
    (STAGINGS_BYTES / (2 * stagings.max(1))).clamp(STAGED_BYTES_MIN, BATCH_BYTES)
}

/// Where an answer goes.
pub type Reply<T> = oneshot::Sender<Result<T, StoreError>>;
/// Makes changes of `_federation` from the numbers of own partitions' heads.
pub type Build =
    Box<dyn FnOnce(BTreeMap<PartitionId, u64>) -> Result<OwnChanges, StoreError> + Send>;

/// Called when the writer has done with something, with how long it took; dropped if that
/// is never done.
pub type Done = Box<dyn FnOnce(Duration) + Send>;

/// What has become of a compaction with one piece of it.
#[derive(Debug, Clone)]
pub enum Compacted {
    /// There is more to do.
    More {
        /// Bytes that are done.
        done: u64,
        /// Of so many, as far as that is known.
        of: u64,
    },
    /// It is at its end.
    Ended(Compaction),
}

/// What a compaction has come to.
#[derive(Debug, Clone)]
pub struct Compaction {
    /// Bytes of the database's file before it.
    pub before: u64,
    /// And behind it.
    pub after: u64,
    /// Bytes of keys and values in it.
    pub content: u64,
    /// Bytes of the packs beside it, before it and behind it.
    pub packs: (u64, u64),
    /// Why it could not come to its end, though there is waste.
    pub stopped: Option<StoreError>,
}

/// What takes the place of something damaged in a log.
#[derive(Debug, Clone)]
pub enum Mend {
    /// The header, whose signature was verified.
    Header(Box<SignedHeader>),
    /// The change set's body.
    Body(Box<VerifiedChangeSet>),
    /// The header's hash alone, as of one that went in time.
    Hash(Hash),
    /// No body, as of one that went in time.
    NoBody,
    /// Nothing, of a header that nobody knows.
    Nothing,
}

/// What the writer is asked to do.
pub enum Job {
    /// The next change set of an own partition.
    Own { prepared: Box<Prepared>, reply: Reply<Arc<Head>> },
    /// The next change set of another origin's partition.
    Replica { set: Box<VerifiedChangeSet>, done: Option<Done>, reply: Reply<Arc<Head>> },
    /// What a peer holds.
    Ack { number: u32, node: NodeId, ack: Ack },
    /// Consumers have come so far.
    Mark { moves: Vec<MarkMove>, reply: Reply<()> },
    /// Note whose store this is.
    Claim { node: NodeId, reply: Reply<()> },
    /// Take no more change sets of a partition.
    Quarantine {
        partition: PartitionId,
        reason: String,
        evidence: Vec<SignedHeader>,
        reply: Reply<()>,
    },
    /// Take change sets again: there is one history.
    Release { partition: PartitionId, reply: Reply<()> },
    /// Keep a partition readable as it is now.
    OpenSnapshot { partition: PartitionId, for_peer: bool, reply: Reply<Option<Opened>> },
    /// Begin or continue a generation next to the current one, for so many records.
    BeginStaging { partition: PartitionId, records: u64, reply: Reply<Stage> },
    /// Delete some inner pages of an interrupted staging; answers whether there may be
    /// more.
    ClearStaged { stage: Stage, reply: Reply<bool> },
    /// Write pages of a staged generation; durable a few batches later.
    StageLeaves { stage: Stage, leaves: StagedLeaves, reply: Reply<()> },
    /// Make the staged generation the current one; `inner` is the last page of each
    /// level.
    FinishStaging {
        stage: Stage,
        shown: Box<ShownHead>,
        summary: Summary,
        inner: Vec<MadePage>,
        reply: Reply<Arc<Head>>,
    },
    /// Apply what differs from a peer's state, in place.
    Differ { differences: Box<Differences>, done: Done, reply: Reply<Arc<Head>> },
    /// Replace damaged pages of the current state.
    Heal { healed: HealedPages, reply: Reply<()> },
    /// Put a number of a partition's log right.
    MendLog { partition: PartitionId, seq: u64, mend: Mend, reply: Reply<()> },
    /// Sign with another key, and sign anew what the one before may not sign.
    AdoptSigner {
        next: Arc<SigningKey>,
        origin: NodeId,
        last: BTreeMap<PartitionId, u64>,
        reply: Reply<u64>,
    },
    /// Commit to `_federation` that another key signs, and sign with it.
    RotateSigner { next: Arc<SigningKey>, origin: NodeId, build: Build, reply: Reply<Arc<Head>> },
    /// Take no more, or again, of what a key signed.
    SuspendKey { key_id: Hash, suspended: bool, reply: Reply<()> },
    /// Drop a replica.
    Forget { partition: PartitionId, reply: Reply<()> },
    /// Drop what this node has written itself, in favour of the history of this header,
    /// which it has signed as well.
    GiveUp { instead: Box<SignedHeader>, expected: Option<Position>, reply: Reply<()> },
    /// Do the next piece of a compaction, or begin one.
    Compact { reply: Reply<Compacted> },
    /// Give up a compaction that is under way.
    GiveUpCompaction { reply: Reply<()> },
    /// Look for chores. Whoever asks for an answer gets it when all are done.
    Tidy { reply: Option<Reply<()>> },
}

/// A snapshot that the writer has opened; dropping it closes the snapshot and
/// lets the writer forget what was saved for it.
pub struct Opened {
    /// What is saved for it.
    pub open: Arc<OpenSnapshot>,
    /// The head whose tree it shows.
    pub head: Arc<Head>,
    /// To tell the writer, if it is still there.
    pub jobs: WeakSender<Job>,
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.open.closed.store(true, Ordering::Release);
        // A full queue means that the writer is awake anyway.
        if let Some(jobs) = self.jobs.upgrade() {
            let _ = jobs.try_send(Job::Tidy { reply: None });
        }
    }
}

/// Where a staging writes.
#[derive(Debug, Clone)]
pub struct Stage {
    pub partition: PartitionId,
    /// Tells this staging from earlier ones, whose writes are refused.
    pub ticket: u64,
    pub number: u32,
    /// The generation that is filled.
    pub generation: u32,
    /// Whether nothing was in it when this staging began. It has been looked for
    /// leaves; an index or a patch is never there without its leaf.
    pub was_empty: bool,
    /// The generation that readers see, if any.
    pub current: Option<u32>,
    /// Records of the tree.
    pub records: u64,
}

/// Leaves to write into a staged generation, and stale ones to delete.
#[derive(Debug, Default)]
pub struct StagedLeaves {
    pub written: Vec<StagedLeaf>,
    /// Pages above leaves up to these.
    pub inner: Vec<MadePage>,
    /// First keys of leaves.
    pub removed: Vec<Vec<u8>>,
    /// Of the leaves.
    pub bytes: usize,
    /// What all leaves up to the last one of these count for ([`crate::quota`]).
    pub counts: u64,
}

/// A leaf to write.
#[derive(Debug)]
pub struct StagedLeaf {
    pub first_key: Vec<u8>,
    pub body: Vec<u8>,
    pub index: Vec<u8>,
    /// What it counts for ([`crate::quota`]).
    pub counts: u64,
}

impl StagedLeaves {
    /// Whether they are enough for one batch of at most so many bytes.
    pub fn fill_a_batch(&self, bytes_max: usize) -> bool {
        self.written.len() + self.removed.len() >= LEAVES_PER_BATCH
            || self.bytes_with_inner() >= bytes_max
    }

    /// Of all pages.
    pub fn bytes_with_inner(&self) -> usize {
        self.bytes + self.inner.iter().map(|made| made.body.len()).sum::<usize>()
    }
}

/// What differs between a replica and a peer's signed state.
pub struct Differences {
    /// The head of the state that was compared.
    pub before: Position,
    /// The head of the peer's tree; its signature and history were verified.
    pub shown: ShownHead,
    /// What leads from one to the other, sorted by key.
    pub changes: Vec<Change>,
}

/// Pages of the current state as they have to be.
pub struct HealedPages {
    pub partition: PartitionId,
    /// The head whose tree they belong to.
    pub head: Position,
    /// Pages to write.
    pub written: Vec<HealedPage>,
    /// Level and first key of pages that are not in the tree.
    pub removed: Vec<(u8, Vec<u8>)>,
}

/// A page to write; the index is a leaf's.
pub struct HealedPage {
    pub level: u8,
    pub first_key: Vec<u8>,
    pub body: Vec<u8>,
    pub index: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stagings_share_memory_until_a_batch_would_be_too_short_for_a_pack() {
        for (stagings, kib) in [(0, 4096), (1, 4096), (4, 4096), (8, 2048), (13, 1260), (50, 512)] {
            assert_eq!(staged_bytes_max(stagings) / 1024, kib, "{stagings}");
        }
        assert_eq!(staged_bytes_max(100_000), STAGED_BYTES_MIN);
    }
}
