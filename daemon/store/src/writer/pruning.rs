//! What a partition's log keeps, and for how long.
//!
//! Bodies are for followers that are a little behind; who is far behind takes pages.
//! So what all have acknowledged goes, but for a little; more is kept only while somebody
//! who was heard of lately has not acknowledged it, and never more than a bound. What another origin may have here is for its records first, so of its bodies
//! there are no more than a part of its quota. Of headers all are kept of this node's
//! own partitions, for which a change of keys may need them; of others' the newest
//! ones, and of earlier ones the hash, from which every proof can still be made.
//!
//! What goes, goes in the batch of the commit that made it superfluous, a few pieces
//! each time. `_federation` keeps everything: whoever joins is sent all of it.

use std::sync::Arc;

use protocol::{
    change::SignedHeader,
    history::{Node, Peaks},
    id::PartitionId,
};

use super::Writer;
use crate::{
    engine::Batch,
    error::StoreError,
    keys, log,
    quota::{HEADER_BYTES, LogKept},
    state::{PartitionState, lock, now_ms},
};

/// Bytes of bodies that are kept although all who are waited for have them: whoever comes
/// back a little behind what it has acknowledged is quicker by change sets.
const BODY_BYTES_ACKNOWLEDGED: u64 = if cfg!(test) { 256 * 1024 } else { 4 * 1024 * 1024 };
/// Bytes of bodies, of which some are waited for, up to which nothing goes: eight change
/// sets of the largest kind. Fewer where room is short ([`BODY_PART`]).
const BODY_BYTES_KEPT: u64 = if cfg!(test) { 512 * 1024 } else { 64 * 1024 * 1024 };
/// At most this part of the disk, or of an origin's quota, is kept of bodies.
const BODY_PART: u64 = 8;
/// While followers wait, so many times what is kept otherwise: one that is farther
/// behind is quicker by pages.
const AWAITED_TIMES: u64 = 4;
/// Who has acknowledged nothing new for so long is not waited for: 30 days.
const FOLLOWER_AWAITED_MS: i64 = 30 * 24 * 3600 * 1000;
/// Headers of another origin's that are kept: months of a busy office.
const HEADERS_MAX: u64 = if cfg!(test) { 100 } else { 65_536 };
/// At most this part of an origin's quota is kept of its headers.
const HEADER_PART: u64 = 8;
/// Pieces that go with one commit, which adds one: what is above the bounds shrinks.
const PIECES_MAX: usize = 4;

impl Writer {
    /// Adds to a batch what goes of the log, of which it has `kept` with what the
    /// batch adds to what was `before`, a header and its history; answers what it keeps
    /// then.
    pub(super) fn prune(
        &self,
        batch: &mut Batch,
        partition: &PartitionId,
        state: &Arc<PartitionState>,
        before: Option<(&SignedHeader, &Peaks)>,
        mut kept: LogKept,
    ) -> Result<LogKept, StoreError> {
        if partition.dataset.is_system() {
            return Ok(kept);
        }
        let room = self.room_for(partition)?;
        let body_bytes = BODY_BYTES_KEPT.min(room / BODY_PART);
        self.prune_bodies(batch, partition, state, body_bytes, &mut kept)?;
        if let Some(before) = before.filter(|_| self.is_foreign(partition)) {
            let headers = HEADERS_MAX.min(room / HEADER_PART / HEADER_BYTES);
            self.prune_headers(batch, partition, (state.number, before), headers, &mut kept)?;
        }
        Ok(kept)
    }

    /// The room that the partition's origin may have.
    fn room_for(&self, partition: &PartitionId) -> Result<u64, StoreError> {
        let origins = lock(&self.shared.origins).clone();
        let (capacity, _) = self.shared.disk.capacity(0)?;
        let foreign = origins.filter(|origins| origins.is_foreign(partition));
        Ok(foreign.map_or(capacity, |origins| origins.quota(capacity)))
    }

    /// Drops bodies that nobody waits for, and those above `most` bytes many times.
    fn prune_bodies(
        &self,
        batch: &mut Batch,
        partition: &PartitionId,
        state: &Arc<PartitionState>,
        most: u64,
        kept: &mut LogKept,
    ) -> Result<(), StoreError> {
        let most_acknowledged = most.min(BODY_BYTES_ACKNOWLEDGED);
        if kept.body_bytes <= most_acknowledged {
            return Ok(());
        }
        let since = now_ms() - FOLLOWER_AWAITED_MS;
        let acks = state.acks();
        let awaited = acks.values().filter(|ack| ack.at_ms >= since).map(|ack| ack.seq);
        let acknowledged = awaited.chain(self.marks_of(partition, since)).min().unwrap_or(u64::MAX);
        let (disk, prefix) = (&self.shared.disk, keys::log_bodies(state.number));
        let mut next = disk.first_key(&prefix)?;
        for _ in 0..PIECES_MAX {
            let Some((key, seq)) = next.and_then(|key| keys::seq_of(&key).map(|seq| (key, seq)))
            else {
                return Ok(());
            };
            let is_due = kept.body_bytes > most_acknowledged && seq <= acknowledged;
            if !is_due && kept.body_bytes <= most * AWAITED_TIMES {
                return Ok(());
            }
            // One that is damaged goes, too; what it had is not known.
            let bytes = disk.get_chunked(&key).ok().flatten().map_or(0, |body| body.len() as u64);
            kept.body_bytes = kept.body_bytes.saturating_sub(bytes);
            batch.remove_chunked(&key, disk.chunks(&key)?);
            next = disk.key_behind(&prefix, &key)?;
        }
        Ok(())
    }

    /// The numbers at which consumers are that have moved since.
    fn marks_of(&self, partition: &PartitionId, since: i64) -> Vec<u64> {
        let marks = lock(&self.shared.marks);
        let of_it = marks.iter().filter(|((of, _), _)| of == partition);
        let awaited = of_it.filter(|(_, mark)| mark.at_ms >= since);
        awaited.map(|(_, mark)| mark.position.seq).collect()
    }

    fn prune_headers(
        &self,
        batch: &mut Batch,
        partition: &PartitionId,
        (number, before): (u32, (&SignedHeader, &Peaks)),
        most: u64,
        kept: &mut LogKept,
    ) -> Result<(), StoreError> {
        let (disk, prefix) = (&self.shared.disk, keys::log_headers(number));
        let mut next = if kept.headers > most { disk.first_key(&prefix)? } else { None };
        for _ in 0..PIECES_MAX {
            let Some((key, seq)) = next.and_then(|key| keys::seq_of(&key).map(|seq| (key, seq)))
            else {
                return Ok(());
            };
            if kept.headers <= most {
                return Ok(());
            }
            let own = match log::header(disk, number, seq) {
                Ok(header) => header.map(|header| header.hash()),
                Err(StoreError::Damaged { .. }) => None,
                Err(error) => return Err(error),
            };
            // One that is damaged and decodes all the same has another hash.
            match log::vouched_hash(disk, number, before, seq)?.or(own) {
                Some(hash) => {
                    let node = Node { height: 0, index: seq - 1 };
                    batch.put(keys::history_node(number, node), hash.as_bytes().to_vec());
                    kept.hashes += 1;
                }
                // Commits do not wait for it.
                None => tracing::warn!(
                    %partition, seq,
                    "a damaged old header goes without its hash, so nothing is proved of it any more; \
                     'creditsync partition refetch' takes the partition anew / 旧记录头损坏，已清理"
                ),
            }
            kept.headers -= 1;
            next = disk.key_behind(&prefix, &key)?;
            batch.remove(key);
        }
        Ok(())
    }
}
