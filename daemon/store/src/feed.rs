//! The feed: what a consumer reads of a partition behind its mark, in order, exactly once.
//!
//! What the log holds comes change set by change set. What it does not hold any more,
//! because a body was pruned, headers were jumped over or another history came, is not made
//! up: the consumer gets the whole state once and compares. Invariant: a step follows its
//! mark, proved by the hash that its header names, and its changes are those that its header
//! signs. Read by [`crate::Store::feed`].

use protocol::change::{BODY_BYTES_MAX, Change, Position, changes_hash, decode_changes};

use crate::{engine::Disk, error::StoreError, log, snapshot::Snapshot, state::Head};

/// What comes next.
pub enum Feed {
    /// Nothing: the mark is at the head.
    UpToDate,
    /// The change set behind the mark.
    Next(FeedStep),
    /// All of the partition, since there is no mark: its genesis.
    Genesis(Box<Snapshot>),
    /// All of the partition, since what lies between the mark and the head cannot be told.
    Rebuilt(Box<Snapshot>),
    /// There is a mark, and the partition is not here any more.
    Retired,
}

/// One change set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedStep {
    /// Where the mark goes with it.
    pub position: Position,
    /// What it puts and deletes, in key order. What was there before it is the consumer's
    /// to know: the log does not keep it.
    pub changes: Vec<Change>,
}

/// The change set behind a mark, of the partition with this number and this head, if the log
/// has it. What is damaged there counts as gone.
pub fn step_behind(
    disk: &Disk,
    number: u32,
    head: &Head,
    mark: Position,
) -> Result<Option<FeedStep>, StoreError> {
    let set = match log::change_set(disk, number, (&head.signed, &head.before), mark.seq + 1) {
        Ok(set) => set,
        Err(StoreError::Damaged { .. }) => None,
        Err(error) => return Err(error),
    };
    let Some(set) = set.filter(|set| set.header.header().previous == mark.hash) else {
        return Ok(None);
    };
    let signed = set.header.header().changes_hash;
    let body = protocol::codec::decompress(&set.body, BODY_BYTES_MAX);
    let body = body.ok().filter(|body| changes_hash(disk.suite, body) == signed);
    let changes = body.and_then(|body| decode_changes(&body).ok());
    Ok(changes.map(|changes| FeedStep { position: set.header.position(), changes }))
}
