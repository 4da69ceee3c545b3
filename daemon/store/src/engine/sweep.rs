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
//! room for it ([`disk`](super::disk)), and when the writer has time.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::table::SEGMENT_BYTES;
use crate::error::StoreError;

/// Bytes that sled is thought to write until it is time: what the file is larger for it.
const BYTES_BETWEEN: u64 = 8 * SEGMENT_BYTES as u64;
/// Changes of a page after which sled has replaced it.
const CHANGES: u64 = 11;
/// Pages that are moved before it is looked at what that came to: the largest have a
/// mebibyte.
const PAGES_PER_ROUND: u64 = 4;
/// Rounds of a piece in an idle moment, which whoever comes next waits for: half a
/// millisecond where nothing moves.
pub const ROUNDS_IDLE: usize = 2;
/// Rounds of a piece behind jobs that have written much, which took as long at least.
pub const ROUNDS_BUSY: usize = 8;
/// What a piece may write, but for its last round. It ends with `fdatasync`, and all of it
/// is less than the two segments of log that sled writes at least before it uses the room
/// of a page that has moved.
pub const PIECE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes that sled writes at most in a round in which it moves nothing.
const BARREN_BYTES: usize = 2048;
/// After so many of these in succession nothing is taken to be left. What has moved by
/// itself has its turn, too: some hundred pages of a segment.
const BARREN_ROUNDS_MAX: usize = 64;
/// Rounds until it is time again: a few hundred small pages of each segment.
const ROUNDS_MAX: usize = 1024;

/// The page that is changed, and what there is to do.
pub struct Sweep {
    page: sled::Tree,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    changes: u64,
    /// What sled has written since it was time.
    bytes_since: u64,
    /// Rounds that are left to do.
    rounds: usize,
    /// Of the last ones, those in which nothing moved.
    barren: usize,
}

impl Sweep {
    /// With a tree of sled that nobody else uses.
    pub fn new(page: sled::Tree) -> Self {
        Self { page, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what sled is thought to have written.
    pub fn note(&self, bytes: u64) {
        let mut state = self.state();
        state.bytes_since += bytes;
        if state.bytes_since >= BYTES_BETWEEN {
            *state = State { changes: state.changes, rounds: ROUNDS_MAX, ..State::default() };
        }
    }

    /// Whether there may be something to move.
    pub fn is_due(&self) -> bool {
        self.state().rounds > 0
    }

    /// Moves some of the pages in so many rounds; nothing of it is synced.
    pub fn move_some(&self, rounds: usize) -> Result<(), StoreError> {
        let mut state = self.state();
        let mut written = 0;
        for _ in 0..rounds.min(state.rounds) {
            for _ in 0..PAGES_PER_ROUND * CHANGES {
                state.changes += 1;
                self.page.insert("", &state.changes.to_be_bytes())?;
            }
            let round = self.page.flush()?;
            written += round;
            state.rounds -= 1;
            state.barren = if round > BARREN_BYTES { 0 } else { state.barren + 1 };
            if state.barren == BARREN_ROUNDS_MAX {
                state.rounds = 0;
            }
            if state.rounds == 0 || written > PIECE_BYTES_MAX {
                break;
            }
        }
        Ok(())
    }
}
