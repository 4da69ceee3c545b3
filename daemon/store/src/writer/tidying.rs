//! What the writer does when nothing waits, and snapshots, whose ends are the
//! most common reason: deleting what nobody reads any more, piece by piece, a
//! checkpoint before the journal is full, and room in the database's file that is given
//! back.

use std::{
    collections::HashSet,
    ops::Range,
    sync::{Arc, atomic::Ordering},
};

use protocol::id::{NodeId, PartitionId};

use super::Writer;
use crate::{error::StoreError, jobs::Opened, keys, state::lock, tree::OpenSnapshot};

/// Values deleted in one chore: a batch of 500 keeps readers waiting under a
/// few milliseconds.
const CHORE_DELETES: usize = 500;
/// Snapshots that may be open: each makes the writer save pages.
const SNAPSHOTS_MAX: usize = 64;
/// While so many are, peers get none: those that are left are for commands.
const SNAPSHOTS_FOR_PEERS: usize = 48;
/// At most this part of the disk is taken by the pages that are saved for one peer's
/// snapshot, so that all of them leave more than half of it. They count for nobody: a
/// member may have trees shown of what it writes anew meanwhile.
const SAVED_PART: u64 = 128;
/// Bytes of saved pages that a peer's snapshot may have on the smallest disk: a few
/// change sets' worth. A fetch that loses its snapshot goes on with the newest state.
const SAVED_BYTES_MIN: u64 = if cfg!(test) { 256 * 1024 } else { 16 * 1024 * 1024 };
/// Bytes of saved pages that a peer's snapshot may have on the largest disk: a million records that are written anew at once, twice.
const SAVED_BYTES_MAX: u64 = if cfg!(test) { 1024 * 1024 } else { 256 * 1024 * 1024 };

/// Generations of which something may still be there: the current one, and those whose
/// deletion a few restarts have cut short.
const GENERATIONS_LEFT_MAX: u32 = 8;

impl Writer {
    pub(super) fn open_snapshots(&self, number: u32, generation: u32) -> Vec<Arc<OpenSnapshot>> {
        let snapshots = lock(&self.shared.snapshots);
        let of_it = |open: &&Arc<OpenSnapshot>| {
            (open.number, open.generation) == (number, generation)
                && !open.closed.load(Ordering::Acquire)
        };
        snapshots.iter().filter(of_it).cloned().collect()
    }

    pub(super) fn open_snapshot(
        &mut self,
        partition: &PartitionId,
        for_peer: bool,
    ) -> Result<Option<Opened>, StoreError> {
        let Some(state) = self.shared.partition(partition) else {
            return Ok(None);
        };
        let Some(head) = state.head() else {
            return Ok(None);
        };
        self.close_snapshots();
        let count = lock(&self.shared.snapshots).len();
        if count >= if for_peer { SNAPSHOTS_FOR_PEERS } else { SNAPSHOTS_MAX } {
            return Err(StoreError::SnapshotsOpen(count));
        }
        let saved_bytes_max = if for_peer { self.saved_for_peer()? } else { u64::MAX };
        let (id, generation) = (self.next_snapshot, head.generation);
        let open = OpenSnapshot::new(id, state.number, generation, saved_bytes_max);
        let open = Arc::new(open);
        self.next_snapshot += 1;
        lock(&self.shared.snapshots).push(open.clone());
        Ok(Some(Opened { open, head, jobs: self.sender.clone() }))
    }

    /// Bytes of pages that may be saved for one peer's snapshot.
    fn saved_for_peer(&self) -> Result<u64, StoreError> {
        let (capacity, _) = self.shared.disk.capacity(0)?;
        Ok((capacity / SAVED_PART).clamp(SAVED_BYTES_MIN, SAVED_BYTES_MAX))
    }

    /// Deletes these generations of a partition's pages, of which only the last ones
    /// may have something: one comes with each bootstrap, and those before are gone.
    pub(super) fn drop_generations(&mut self, number: u32, generations: Range<u32>) {
        let first = generations.start.max(generations.end.saturating_sub(GENERATIONS_LEFT_MAX));
        let old = (first..generations.end).map(|old| keys::generation(number, old));
        self.chores.extend(old);
    }

    /// Does one small piece of tidying; answers whether there was any.
    pub(super) fn chore(&mut self) -> bool {
        if self.shared.failed.load(Ordering::Relaxed) {
            return false;
        }
        self.close_snapshots();
        // Without room nothing is deleted, and nothing fails; after a start, or with the
        // next job, it is looked at again.
        if self.chores.is_empty() || !self.shared.disk.has_room_to_tidy().unwrap_or(false) {
            return false;
        }
        let due = self.chores.iter().position(|prefix| !self.is_read_by_a_snapshot(prefix));
        let Some(index) = due else {
            return false;
        };
        self.do_some_of(index);
        true
    }

    /// Deletes some of what an origin's earlier states and stagings have left; answers
    /// whether there may be more. What is read by a snapshot goes later, but for those that
    /// peers are shown: what they keep counts for nobody, and the newer state is the better
    /// one to show.
    pub(super) fn delete_some_of_origin(&mut self, origin: &NodeId) -> bool {
        // Mostly there is nothing, and then thousands of partitions are not looked through.
        if self.chores.is_empty() || !self.shared.disk.has_room_to_tidy().unwrap_or(false) {
            return false;
        }
        let partitions = self.shared.partitions();
        let of_origin = partitions.iter().filter(|(partition, _)| partition.origin == *origin);
        let numbers: HashSet<u32> = of_origin.map(|(_, state)| state.number).collect();
        let is_its = |prefix: &[u8]| {
            keys::pages_of(prefix).is_some_and(|(number, _)| numbers.contains(&number))
        };
        for prefix in self.chores.iter().filter(|prefix| is_its(prefix)) {
            self.close_what_peers_are_shown(prefix);
        }
        let due = self
            .chores
            .iter()
            .position(|prefix| is_its(prefix) && !self.is_read_by_a_snapshot(prefix));
        if let Some(index) = due {
            self.do_some_of(index);
        }
        due.is_some()
    }

    /// Does a small piece of a chore.
    fn do_some_of(&mut self, index: usize) {
        let (disk, prefix) = (&self.shared.disk, &self.chores[index]);
        let deleted = disk.delete_some(prefix, keys::is_chunked(prefix), CHORE_DELETES);
        // Or else the next commit would have to flush sled.
        let deleted = deleted.and_then(|more| disk.make_durable().map(|()| more));
        match deleted {
            Ok(true) => {}
            Ok(false) => {
                let prefix = self.chores.swap_remove(index);
                let packs = &self.shared.disk.packs;
                if let Some((number, generation)) = keys::pages_of(&prefix)
                    && let Err(error) = packs.remove(number, generation)
                {
                    // The next start tries it again.
                    tracing::warn!(%error, "what is not needed any more could not be removed");
                }
            }
            // The next start takes them up again.
            Err(error) => self.fail(&error),
        }
    }

    /// Makes a checkpoint if the journal is getting full, so that a burst seldom
    /// has to wait for one; answers whether it was.
    pub(super) fn relieve_journal(&mut self) -> bool {
        if self.shared.failed.load(Ordering::Relaxed) || !self.shared.disk.wants_checkpoint() {
            return false;
        }
        if let Err(error) = self.shared.disk.checkpoint() {
            self.fail(&error);
        }
        true
    }

    /// Gives some of the room in sled's file back; answers whether there was any.
    pub(super) fn sweep(&mut self, rounds: usize) -> bool {
        if self.shared.failed.load(Ordering::Relaxed) {
            return false;
        }
        self.shared.disk.sweep_some(rounds).unwrap_or_else(|error| {
            self.fail(&error);
            false
        })
    }

    fn is_read_by_a_snapshot(&self, prefix: &[u8]) -> bool {
        lock(&self.shared.snapshots).iter().any(|open| reads(open, prefix))
    }

    fn close_what_peers_are_shown(&self, prefix: &[u8]) {
        for open in lock(&self.shared.snapshots).iter() {
            if open.is_for_peer() && reads(open, prefix) {
                open.closed.store(true, Ordering::Release);
            }
        }
    }

    /// Forgets snapshots that were dropped, and closes those that nobody reads.
    fn close_snapshots(&mut self) {
        let chores = &mut self.chores;
        lock(&self.shared.snapshots).retain(|open| {
            if open.is_idle() {
                open.closed.store(true, Ordering::Release);
            }
            let closed = open.closed.load(Ordering::Acquire);
            if closed {
                chores.push(keys::snapshot(open.id));
            }
            !closed
        });
    }
}

fn reads(open: &OpenSnapshot, prefix: &[u8]) -> bool {
    !open.closed.load(Ordering::Acquire)
        && keys::generation(open.number, open.generation).starts_with(prefix)
}
