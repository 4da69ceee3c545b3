//! What is saved of a tree's pages while a snapshot is open.
//!
//! sled has no snapshots. While one is open each page is saved, before it is
//! replaced, under the snapshot's number, in the same batch. So a snapshot is the
//! live pages, but for those that were saved since. `crate::snapshot` reads it;
//! the writer opens and closes it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::Instant,
};

use crate::{
    engine::{Batch, Disk},
    error::StoreError,
    keys,
};

/// A snapshot that nobody reads for so long is closed: each one makes the
/// writer save pages.
const SNAPSHOT_IDLE_MS_MAX: i64 = 60_000;

/// In front of a saved page's bytes.
pub const PAGE_SAVED: u8 = 1;
/// Saved in place of a page that did not exist.
pub const PAGE_WAS_NOT: u8 = 0;

/// Saved pages deleted in one batch when the store opens.
const DELETES_PER_BATCH: usize = 500;

/// What the writer has to know of an open snapshot.
pub struct OpenSnapshot {
    pub id: u64,
    pub number: u32,
    pub generation: u32,
    opened: Instant,
    /// When it was last read, in milliseconds since it was opened.
    pub used_ms: AtomicI64,
    pub closed: AtomicBool,
    /// Bytes of the pages that are saved for it, and how many these may be.
    saved_bytes: AtomicU64,
    saved_bytes_max: u64,
}

impl OpenSnapshot {
    /// Of a partition's generation; it is closed when more than so many bytes would
    /// have to be saved for it.
    pub fn new(id: u64, number: u32, generation: u32, saved_bytes_max: u64) -> Self {
        Self {
            id,
            number,
            generation,
            saved_bytes: AtomicU64::new(0),
            saved_bytes_max,
            opened: Instant::now(),
            used_ms: AtomicI64::new(0),
            closed: AtomicBool::new(false),
        }
    }

    /// Whether a peer is shown it.
    pub fn is_for_peer(&self) -> bool {
        self.saved_bytes_max != u64::MAX
    }

    /// Whether so many bytes more may be saved for it; if not, it is closed.
    fn may_save(&self, bytes: usize) -> bool {
        let saved = self.saved_bytes.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        if saved > self.saved_bytes_max {
            self.closed.store(true, Ordering::Release);
        }
        saved <= self.saved_bytes_max
    }

    pub fn age_ms(&self) -> i64 {
        i64::try_from(self.opened.elapsed().as_millis()).unwrap_or(i64::MAX)
    }

    /// Whether nobody has read for too long.
    pub fn is_idle(&self) -> bool {
        self.age_ms() - self.used_ms.load(Ordering::Relaxed) > SNAPSHOT_IDLE_MS_MAX
    }
}

/// Adds the page under `key`, as it is, to what each of these snapshots keeps,
/// unless it has it already. One that would keep too much is closed.
pub fn save_page(
    disk: &Disk,
    batch: &mut Batch,
    snapshots: &[Arc<OpenSnapshot>],
    key: &[u8],
) -> Result<(), StoreError> {
    for open in snapshots.iter().filter(|open| !open.closed.load(Ordering::Acquire)) {
        let saved = keys::saved_page(open.id, key);
        if disk.get(&saved)?.is_some() {
            continue;
        }
        let value = match disk.get_chunked(key)? {
            Some(body) => [&[PAGE_SAVED], &body[..]].concat(),
            None => vec![PAGE_WAS_NOT],
        };
        if open.may_save(value.len()) {
            batch.put_chunked(&saved, &value, 0);
        }
    }
    Ok(())
}

/// Forgets what snapshots of an earlier run had saved.
pub fn forget_saved(disk: &Disk) -> Result<(), StoreError> {
    let prefix = keys::SNAPSHOTS;
    while disk.delete_some(prefix, keys::is_chunked(prefix), DELETES_PER_BATCH)? {}
    Ok(())
}
