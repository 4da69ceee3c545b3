//! Room that nothing needs any more, given back where the sweep does not keep up.
//!
//! sled's file can only become shorter at its end, and a segment with a few pages that
//! stay keeps all of its room. So where a database is many times as long as what it
//! holds, all of that is copied into a new one beside it, piece by piece, while
//! everything else goes on: what is written meanwhile goes to both as far as the copy has
//! come ([`table`](super::table)). At the end both hold the same, and the new one takes
//! the other's place ([`base`]).
//!
//! What holds:
//!
//! - Keys and values are copied as they are. A value whose checksum does not fit is as
//!   damaged as it was, and found by whoever reads it. What sled cannot read ends the
//!   copy, and the database stays.
//! - The journal begins anew before the copy takes over, and the copy has the number of
//!   the last batch. So whichever of the two a crash leaves has all batches, and nothing
//!   to replay.
//! - After a trouble of the copy the database is as good as if there had been none.
//!
//! The writer does this ([`crate::writer`]), and says when.

use std::sync::atomic::Ordering;

use super::{
    base::{self, Base, Renamed},
    disk::{Disk, WEIGHED_BYTES_MIN},
    table::{Bytes, Piece},
};
use crate::error::StoreError;

/// Keys of a piece, for which a commit may have to wait: a few milliseconds.
const KEYS_PER_PIECE: u64 = 256;
/// Bytes of a piece, but for its last value.
const BYTES_PER_PIECE: u64 = 512 * 1024;
/// Bytes that the copy was given between two calls of `fdatasync`, so that the last one
/// does not take long.
const UNSYNCED_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// A database that is so many times as long as its keys and values is copied. sled needs
/// up to twice as long a file where all goes well: it cleans segments that are half empty.
const WASTE_TIMES: u64 = 4;

/// What a table has, as far as it was looked through.
#[derive(Default)]
pub struct Weighed {
    last: Bytes,
    /// Bytes of keys and values.
    pub bytes: u64,
    pub keys: u64,
}

/// A copy under way.
#[derive(Default)]
pub struct Copied {
    /// Bytes of keys and values.
    pub bytes: u64,
    unsynced: u64,
}

impl Disk {
    /// How long the database's file is.
    pub fn database_bytes(&self) -> Result<u64, StoreError> {
        self.writing().base.file_bytes()
    }

    /// Whether the database has become so long that it should be weighed.
    pub fn wants_weighing(&self) -> bool {
        self.database_bytes().is_ok_and(|bytes| bytes > self.weigh_at.load(Ordering::Relaxed))
    }

    /// Weighs the next piece; answers whether it was the last one.
    pub fn weigh_some(&self, weighed: &mut Weighed) -> Result<bool, StoreError> {
        // What is recent is little, and much of it replaces what is here.
        let mut last = std::mem::take(&mut weighed.last);
        let piece = self.table.look_at_some(&mut last, KEYS_PER_PIECE, BYTES_PER_PIECE)?;
        weighed.last = last;
        weighed.bytes += piece.bytes;
        weighed.keys += piece.keys;
        Ok(piece.is_last)
    }

    /// Whether a database that was weighed should be copied. If not, it is looked at again
    /// when it is so many times as long as now it may be.
    pub fn is_wasteful(&self, weighed: &Weighed) -> Result<bool, StoreError> {
        let may_have = (WASTE_TIMES * weighed.bytes).max(WEIGHED_BYTES_MIN);
        self.weigh_at.store(may_have, Ordering::Relaxed);
        Ok(self.database_bytes()? > may_have)
    }

    /// Does not ask for weighing again before the database is half as long again: what
    /// there is to do about it could not be done.
    pub fn weigh_later(&self) {
        if let Ok(bytes) = self.database_bytes() {
            self.weigh_at.store((bytes + bytes / 2).max(WEIGHED_BYTES_MIN), Ordering::Relaxed);
        }
    }

    /// Begins to copy a database that was weighed, if there is room for the copy.
    pub fn begin_copy(&self, weighed: &Weighed) -> Result<Copied, StoreError> {
        self.give_up_copy();
        self.check_room(usize::try_from(weighed.bytes).unwrap_or(usize::MAX / 4))?;
        let next = Base::make_next(&self.path, self.cache_bytes)?;
        let writing = &mut *self.writing();
        self.table.begin_copy(next.tree.clone());
        writing.next = Some(next);
        Ok(Copied::default())
    }

    /// Copies the next piece; answers whether it was the last one. After an error the copy
    /// has to be given up.
    pub fn copy_some(&self, copied: &mut Copied) -> Result<bool, StoreError> {
        #[cfg(any(test, feature = "testing"))]
        super::disk::fail_if(&self.broken.copy)?;
        self.check_room(BYTES_PER_PIECE as usize)?;
        // Nothing else is given to sled meanwhile.
        let writing = self.writing();
        let Piece { bytes, is_last, .. } = self.table.copy_some(KEYS_PER_PIECE, BYTES_PER_PIECE)?;
        copied.bytes += bytes;
        copied.unsynced += bytes;
        if let Some(next) = writing.next.as_ref().filter(|_| copied.unsynced > UNSYNCED_BYTES_MAX) {
            next.sync()?;
            copied.unsynced = 0;
        }
        Ok(is_last)
    }

    /// Lets the copy, which is complete, take the database's place. If it could not, the
    /// answer says why: it is given up, and the database is as it was.
    ///
    /// # Errors
    /// If nothing may be written any more before the store is opened anew.
    pub fn take_over(&self) -> Result<Result<(), StoreError>, StoreError> {
        let writing = &mut *self.writing();
        self.move_to_sled(writing)?;
        let prepared = match (&writing.next, self.table.is_copied()) {
            (Some(next), true) => next.sync(),
            _ => Err(StoreError::Database("the copy is not complete".into())),
        };
        if let Err(error) = prepared {
            self.drop_copy(writing);
            return Ok(Err(error));
        }
        match base::take_over(&self.path, |step| self.tell_step(step))? {
            Renamed::NotAtAll(error) => {
                self.drop_copy(writing);
                return Ok(Err(error));
            }
            Renamed::Done => {}
        }
        self.table.take_over();
        if let Some(next) = writing.next.take() {
            // No reader has it any more: each read holds back whoever changes the table.
            drop(std::mem::replace(&mut writing.base, next));
        }
        self.tell_step("taken over");
        // What stays of it goes when the store is opened.
        if let Err(error) = base::remove_old(&self.path) {
            tracing::warn!(%error, "the database from before its compaction could not be removed");
        }
        if let Ok(length) = writing.base.file_bytes() {
            self.weigh_at.fetch_max(2 * length, Ordering::Relaxed);
        }
        Ok(Ok(()))
    }

    /// Gives up the copy that is under way, if there is one.
    pub fn give_up_copy(&self) {
        self.drop_copy(&mut self.writing());
    }

    fn drop_copy(&self, writing: &mut super::disk::Writing) {
        self.table.give_up_copy();
        if writing.next.take().is_some()
            && let Err(error) = base::remove_next(&self.path)
        {
            tracing::warn!(%error, "the copy of a compaction that was given up could not be removed");
        }
    }

    #[cfg(any(test, feature = "testing"))]
    fn tell_step(&self, step: &str) {
        let mut told = self.broken.step.lock().unwrap_or_else(|error| error.into_inner());
        if let Some(told) = told.as_mut() {
            told(step);
        }
    }

    #[cfg(not(any(test, feature = "testing")))]
    fn tell_step(&self, _step: &str) {}
}
