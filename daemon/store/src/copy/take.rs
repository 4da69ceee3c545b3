//! All pieces of a partition as they are at one moment, while the store goes on.
//!
//! The leaves come from a snapshot. The log is read beside the writer, which may only
//! add to it, take old pieces of it away, or sign it anew: what was added is left out,
//! what is taken away is not needed, and who was signed anew is found out, because the
//! headers do not lead to the head any more. Hashes of headers are read behind the
//! headers, so of one that goes meanwhile there is one or the other.

use std::sync::Arc;

use protocol::{
    change::{Position, SignedHeader},
    hash::Hash,
    history::Peaks,
    id::PartitionId,
};

use super::piece::{CopiedHead, Piece, is_before};
use crate::{
    error::StoreError,
    keys,
    snapshot::{KeepOpen, Snapshot},
    state::{Ack, Head, PartitionState, Shared},
};

/// A partition at one moment.
pub struct Copying {
    shared: Arc<Shared>,
    partition: PartitionId,
    state: Arc<PartitionState>,
    /// None of one that has no head.
    snapshot: Option<Snapshot>,
}

impl Copying {
    pub(crate) fn new(
        shared: Arc<Shared>,
        partition: PartitionId,
        state: Arc<PartitionState>,
        snapshot: Option<Snapshot>,
    ) -> Self {
        Self { shared, partition, state, snapshot }
    }

    /// The head whose moment it is.
    pub fn head(&self) -> Option<&Head> {
        self.snapshot.as_ref().map(Snapshot::head)
    }

    /// What keeps it readable while its reader waits for somebody else.
    pub fn keep_open(&self) -> Option<KeepOpen> {
        self.snapshot.as_ref().map(Snapshot::keep_open)
    }

    /// Hands over all pieces, one at a time.
    ///
    /// # Errors
    /// What `take` answers; `Overtaken` if the partition was signed anew or dropped
    /// meanwhile, after which it may be read from its beginning; `Damaged` if a page
    /// cannot be read.
    pub fn each<E: From<StoreError>>(
        mut self,
        take: &mut dyn FnMut(Piece) -> Result<(), E>,
    ) -> Result<(), E> {
        let Some(snapshot) = &mut self.snapshot else {
            return match self.state.quarantine() {
                Some(reason) => take(Piece::Quarantine(reason)),
                None => Ok(()),
            };
        };
        let head = snapshot.head().clone();
        let log = Log { shared: &self.shared, partition: &self.partition, state: &self.state };
        take(Piece::Head(Box::new(CopiedHead {
            signed: head.signed.clone(),
            before: head.before.clone(),
            generation: head.generation,
            updated_ms: head.updated_ms,
        })))?;
        if let Some(reason) = self.state.quarantine() {
            take(Piece::Quarantine(reason))?;
        }
        log.headers(head.position(), take)?;
        log.history(head.seq(), take)?;
        for (node, ack) in self.state.acks() {
            // A newer one speaks of what is not in here.
            let seq = ack.seq.min(head.seq());
            take(Piece::Ack(node, Ack { seq, at_ms: ack.at_ms }))?;
        }
        for leaf in snapshot.leaves() {
            take(Piece::Leaf(leaf?))?;
        }
        Ok(())
    }
}

/// A partition's log beside its writer.
struct Log<'a> {
    shared: &'a Shared,
    partition: &'a PartitionId,
    state: &'a PartitionState,
}

impl Log<'_> {
    /// Headers up to the head, with the bodies that are kept.
    fn headers<E: From<StoreError>>(
        &self,
        head: Position,
        take: &mut dyn FnMut(Piece) -> Result<(), E>,
    ) -> Result<(), E> {
        let (disk, number) = (&self.shared.disk, self.state.number);
        let overtaken = || E::from(StoreError::Overtaken(self.partition.clone()));
        let mut last: Option<Position> = None;
        for item in disk.scan(&keys::log_headers(number)) {
            let (key, bytes) = item?;
            let Some(seq) = keys::seq_of(&key).filter(|seq| *seq <= head.seq) else { break };
            let signed = match SignedHeader::decode(&bytes) {
                Ok(signed) => signed,
                // Nobody can heal an old one, and all others are good without it.
                Err(error) if seq < head.seq => {
                    let partition = self.partition;
                    tracing::warn!(%partition, seq, %error, "a damaged old header is left out of the copy");
                    continue;
                }
                Err(_) => return Err(overtaken()),
            };
            let follows =
                last.is_none_or(|last| last.seq + 1 < seq || signed.header().previous == last.hash);
            if !follows {
                return Err(overtaken());
            }
            last = Some(signed.position());
            take(Piece::Header(Box::new(signed)))?;
            match disk.get_chunked(&keys::log_body(number, seq)) {
                Ok(Some(body)) => take(Piece::Body(seq, body))?,
                Ok(None) => {}
                // Followers that are behind take pages instead.
                Err(error @ StoreError::Damaged { .. }) => {
                    let partition = self.partition;
                    tracing::warn!(%partition, seq, %error, "a damaged change set is left out of the copy");
                }
                Err(error) => return Err(error.into()),
            }
        }
        if last == Some(head) { Ok(()) } else { Err(overtaken()) }
    }

    /// The nodes of the history before the head, and where it begins.
    fn history<E: From<StoreError>>(
        &self,
        seq: u64,
        take: &mut dyn FnMut(Piece) -> Result<(), E>,
    ) -> Result<(), E> {
        let (disk, number) = (&self.shared.disk, self.state.number);
        let damaged = |problem: &str| StoreError::Damaged {
            place: format!("the history of {}", self.partition),
            problem: problem.to_owned(),
        };
        for item in disk.scan(&keys::history_nodes(number)) {
            let (key, bytes) = item?;
            let node = keys::node_of(&key).ok_or_else(|| damaged("a node has a wrong key"))?;
            if !is_before(node, seq) {
                continue;
            }
            let hash = Hash::from_bytes(disk.suite, &bytes);
            take(Piece::Node(node, hash.ok_or_else(|| damaged("a node is no hash"))?))?;
        }
        let Some(bytes) = disk.get(&keys::history_base(number))? else {
            return Ok(());
        };
        let (landed, peaks): (u64, Peaks) =
            protocol::codec::decode(&bytes).map_err(|error| damaged(&error.to_string()))?;
        if landed <= seq { take(Piece::Base(landed, peaks)) } else { Ok(()) }
    }
}
