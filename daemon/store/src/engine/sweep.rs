//! Room in sled that nothing needs any more, given back.
//!
//! sled writes a log in segments. Of a segment of which half is not needed any more it
//! writes what is left anew elsewhere, page by page, and then uses its room again. But it
//! moves such a page only when it *replaces* one, which it does at each tenth change of
//! it. Where changes are large that is too seldom: a few small pages that stay keep each
//! segment that large ones had, and the file grows for ever; by 80 KB for each change set
//! of 300 bytes of a peer that means it.
//!
//! So after every few segments of what sled has written pages are moved, too, as long as
//! there are such: not at once, for by then most of them have moved by themselves. sled
//! has no call for that: what makes it replace a page is changing one often, and this
//! changes one of its own, which holds nothing but a counter. Not here: whether there is
//! room for it ([`disk`](super::disk)).

use std::sync::atomic::{AtomicU64, Ordering};

use super::table::SEGMENT_BYTES;
use crate::error::StoreError;

/// Bytes that sled is thought to write until it is time: what the file is larger for it.
const BYTES_BETWEEN: u64 = 8 * SEGMENT_BYTES as u64;
/// Changes of a page after which sled has replaced it.
const CHANGES: u64 = 11;
/// Pages that are moved before it is looked at what that came to: the largest have a
/// mebibyte.
const PAGES_PER_ROUND: u64 = 4;
/// What may be written between two calls of `fdatasync`, but for one more round: together
/// that is less than a segment ([`table`](super::table)).
const UNSYNCED_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Bytes that sled writes at most in a round in which it moves nothing.
const BARREN_BYTES: usize = 2048;
/// After so many of these in succession nothing is taken to be left. What has moved by
/// itself has its turn, too: some hundred pages of a segment.
const BARREN_ROUNDS_MAX: usize = 64;
/// Rounds at once: a few hundred small pages of each segment.
const ROUNDS_MAX: usize = 1024;
/// Bytes that are moved at once, a tenth of a second's worth.
const MOVED_BYTES_MAX: usize = BYTES_BETWEEN as usize / 2;

/// The page that is changed, and what sled has written since the last time.
pub struct Sweep {
    page: sled::Tree,
    changes: AtomicU64,
    bytes_since: AtomicU64,
}

impl Sweep {
    /// With a tree of sled that nobody else uses.
    pub fn new(page: sled::Tree) -> Self {
        Self { page, changes: AtomicU64::new(0), bytes_since: AtomicU64::new(0) }
    }

    /// Notes what sled is thought to have written; answers whether it is time.
    pub fn is_due_after(&self, bytes: u64) -> bool {
        let since = self.bytes_since.load(Ordering::Relaxed) + bytes;
        let is_due = since >= BYTES_BETWEEN;
        self.bytes_since.store(if is_due { 0 } else { since }, Ordering::Relaxed);
        is_due
    }

    /// Moves pages as long as there are such, and calls `sync` in between and at the end.
    pub fn run(&self, sync: impl Fn() -> Result<(), StoreError>) -> Result<(), StoreError> {
        let (mut barren, mut unsynced, mut moved) = (0, 0, 0);
        for _ in 0..ROUNDS_MAX {
            for _ in 0..PAGES_PER_ROUND * CHANGES {
                let change = self.changes.fetch_add(1, Ordering::Relaxed);
                self.page.insert("", &change.to_be_bytes())?;
            }
            let written = self.page.flush()?;
            barren = if written > BARREN_BYTES { 0 } else { barren + 1 };
            moved += written;
            if barren == BARREN_ROUNDS_MAX || moved > MOVED_BYTES_MAX {
                break;
            }
            unsynced += written;
            if unsynced > UNSYNCED_BYTES_MAX {
                sync()?;
                unsynced = 0;
            }
        }
        sync()
    }
}
