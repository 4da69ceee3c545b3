//! One ordered table: sled, and above it the *recent* writes that it has not got.
//!
//! A small batch that the journal makes durable stays in memory, where it hides
//! what sled has under its keys, until the next checkpoint gives all of them to
//! sled at once. sled writes a whole node at each tenth change of it and wakes a
//! pool of threads for each batch, so a change that goes there by itself costs
//! many times its own size and more processor time than all the rest; and of the
//! pages near a tree's root, which each change replaces, it gets only the last.
//!
//! Reads go through a [`View`], which sees either all of a batch or nothing of
//! it. What is durable, and when, is [`Disk`](super::disk::Disk)'s business.

use std::{
    collections::BTreeMap,
    ops::Bound::{self, Excluded, Included},
    sync::{
        PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use sled::IVec;

use super::{journal::Write, keys};
use crate::error::StoreError;

/// A key or a value as the database gives it, cheap to clone.
pub type Bytes = IVec;
/// A key and its value.
pub type Pair = (Bytes, Bytes);
/// A range of keys.
pub type KeyRange<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// sled's unit of allocation. With the default of 512 KiB, values of 64 KiB
/// would be moved out of the file.
pub const SEGMENT_BYTES: usize = 8 * 1024 * 1024;
/// What sled is thought to write for each byte of keys and values: at each tenth
/// change of a node it writes all of it anew, up to 16 values, and when it splits
/// one, both halves. Three times was measured, for rounds of changed rows and for
/// loads. It is no upper bound, so there is room between [`SLICE_BYTES`] and the
/// segment.
const SLED_BYTES_PER_BYTE: usize = 4;
/// The same for each key, whatever its length.
const SLED_BYTES_PER_KEY: usize = 512;
/// The most that a checkpoint is thought to make sled write between two calls of
/// `fdatasync`.
///
/// sled writes its log as it goes, takes what `sync_file_range` has written for
/// durable, and gives away the room of a segment when all its pages lie in later
/// ones. A power cut must not find the segment overwritten and the later ones
/// lost, though an `fdatasync` had made its pages durable once. At least a whole
/// segment of log lies between the two, so half a segment is the limit. Batches
/// that are too large for the journal have none.
const SLICE_BYTES: usize = SEGMENT_BYTES / 2;
/// Keys of a slice: what a batch replaces in sled is freed behind it, some 20 KB a
/// key.
const SLICE_KEYS: usize = 1000;
/// Slices in memory before an idle moment is used for a checkpoint: more than the
/// changed rows that fill the journal come to.
const SLICES_IDLE: usize = 8;

/// The table.
pub struct Table {
    sled: sled::Tree,
    /// Held for writing while a batch is applied. sled keeps batches out of each
    /// single read, but a value may take several: one for each chunk.
    recent: RwLock<Recent>,
    /// What sled is thought to have written for what it was given.
    given: AtomicU64,
}

/// Writes that sled has not got: the value, or that there is none.
#[derive(Default)]
struct Recent {
    writes: BTreeMap<IVec, Option<IVec>>,
    /// What sled is thought to write for them.
    sled_bytes: usize,
}

impl Recent {
    /// Full slices, about.
    fn slices(&self) -> usize {
        (self.sled_bytes / SLICE_BYTES).max(self.writes.len() / SLICE_KEYS)
    }
}

impl Table {
    /// The table in a tree of sled.
    pub fn new(sled: sled::Tree) -> Self {
        Self { sled, recent: RwLock::default(), given: AtomicU64::new(0) }
    }

    /// Keeps batches out while something is read.
    pub fn view(&self) -> View<'_> {
        View { sled: &self.sled, recent: self.read() }
    }

    /// Takes a batch into memory.
    pub fn keep(&self, writes: Vec<Write>) {
        let mut recent = self.write();
        for (key, value) in writes {
            let (key, value) = (IVec::from(key), value.map(IVec::from));
            recent.sled_bytes += bytes_in_sled(&key, value.as_ref());
            if let Some(replaced) = recent.writes.insert(key.clone(), value) {
                recent.sled_bytes -= bytes_in_sled(&key, replaced.as_ref());
            }
        }
    }

    /// Gives sled a batch and all recent writes before it, as one batch of this
    /// number.
    pub fn pass_on(&self, writes: Vec<Write>, number: u64) -> Result<(), StoreError> {
        let mut recent = self.write();
        let mut batch = sled::Batch::default();
        for (key, value) in &recent.writes {
            add(&mut batch, key.clone(), value.clone());
        }
        let mut sled_bytes = recent.sled_bytes;
        for (key, value) in writes {
            let (key, value) = (IVec::from(key), value.map(IVec::from));
            sled_bytes += bytes_in_sled(&key, value.as_ref());
            add(&mut batch, key, value);
        }
        self.given.fetch_add(sled_bytes as u64, Ordering::Relaxed);
        batch.insert(keys::APPLIED, &number.to_be_bytes());
        self.sled.apply_batch(batch)?;
        *recent = Recent::default();
        Ok(())
    }

    /// Gives sled the recent writes, the last of which have this number, in slices or
    /// at once, and calls `sync` behind each; answers how many bytes of keys and
    /// values they are. Whoever reads meanwhile sees them here or there. Where
    /// nothing is recent, sled has the number already.
    ///
    /// A crash can leave sled with some of the slices.
    pub fn move_to_sled(
        &self,
        number: u64,
        in_slices: bool,
        sync: impl Fn() -> Result<(), StoreError>,
    ) -> Result<usize, StoreError> {
        // Whoever could write meanwhile waits for the caller.
        let recent = self.read();
        let mut slice = sled::Batch::default();
        let (mut count, mut sled_bytes, mut moved) = (0, 0, 0);
        for (key, value) in &recent.writes {
            let bytes = bytes_in_sled(key, value.as_ref());
            let is_full = count >= SLICE_KEYS || sled_bytes + bytes > SLICE_BYTES;
            if in_slices && count > 0 && is_full {
                self.sled.apply_batch(std::mem::take(&mut slice))?;
                sync()?;
                (count, sled_bytes) = (0, 0);
            }
            count += 1;
            sled_bytes += bytes;
            moved += key.len() + value.as_ref().map_or(0, |value| value.len());
            add(&mut slice, key.clone(), value.clone());
        }
        if count > 0 {
            slice.insert(keys::APPLIED, &number.to_be_bytes());
            self.sled.apply_batch(slice)?;
        }
        self.given.fetch_add(recent.sled_bytes as u64, Ordering::Relaxed);
        drop(recent);
        sync()?;
        *self.write() = Recent::default();
        Ok(moved)
    }

    /// Whether what is recent is more than one slice.
    pub fn has_several_slices(&self) -> bool {
        self.read().slices() > 0
    }

    /// Whether so much is recent that an idle moment is well used for a checkpoint,
    /// or `times` that.
    pub fn is_over(&self, times: usize) -> bool {
        self.read().slices() >= times * SLICES_IDLE
    }

    /// What sled is thought to have written since this was asked last.
    pub fn take_given(&self) -> u64 {
        self.given.swap(0, Ordering::Relaxed)
    }

    /// What sled is thought to write for what is recent.
    pub fn recent_bytes(&self) -> usize {
        self.read().sled_bytes
    }

    fn read(&self) -> RwLockReadGuard<'_, Recent> {
        self.recent.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Recent> {
        self.recent.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn add(batch: &mut sled::Batch, key: IVec, value: Option<IVec>) {
    match value {
        Some(value) => batch.insert(key, value),
        None => batch.remove(key),
    }
}

/// What sled is thought to write for a key and its value.
fn bytes_in_sled(key: &IVec, value: Option<&IVec>) -> usize {
    let bytes = key.len() + value.map_or(0, |value| value.len());
    SLED_BYTES_PER_BYTE * bytes + SLED_BYTES_PER_KEY
}

/// The table while no batch is applied.
pub struct View<'a> {
    sled: &'a sled::Tree,
    recent: RwLockReadGuard<'a, Recent>,
}

impl View<'_> {
    /// The value under `key`.
    pub fn get(&self, key: &[u8]) -> Result<Option<IVec>, StoreError> {
        match self.recent.writes.get(key) {
            Some(value) => Ok(value.clone()),
            None => Ok(self.sled.get(key)?),
        }
    }

    /// The first key in a range, and its value.
    pub fn first(&self, range: KeyRange<'_>) -> Result<Option<Pair>, StoreError> {
        let recent = self.recent.writes.range::<[u8], _>(range).find_map(present);
        // Only what comes before it matters.
        let before = match &recent {
            Some((key, _)) if range.0 == Included(key.as_ref()) => return Ok(recent),
            Some((key, _)) => (range.0, Excluded(key.as_ref())),
            None => range,
        };
        let older = self.not_hidden(self.sled.range::<&[u8], _>(before))?;
        Ok(older.or(recent))
    }

    /// The last key in a range, and its value.
    pub fn last(&self, range: KeyRange<'_>) -> Result<Option<Pair>, StoreError> {
        let recent = self.recent.writes.range::<[u8], _>(range).rev().find_map(present);
        let behind = match &recent {
            Some((key, _)) if range.1 == Included(key.as_ref()) => return Ok(recent),
            Some((key, _)) => (Excluded(key.as_ref()), range.1),
            None => range,
        };
        let older = self.not_hidden(self.sled.range::<&[u8], _>(behind).rev())?;
        Ok(older.or(recent))
    }

    /// The first of sled's pairs that no recent write hides.
    fn not_hidden(
        &self,
        mut pairs: impl Iterator<Item = sled::Result<Pair>>,
    ) -> Result<Option<Pair>, StoreError> {
        let hidden = |pair: &sled::Result<Pair>| {
            pair.as_ref().is_ok_and(|(key, _)| self.recent.writes.contains_key(key))
        };
        Ok(pairs.find(|pair| !hidden(pair)).transpose()?)
    }
}

fn present((key, value): (&IVec, &Option<IVec>)) -> Option<Pair> {
    value.as_ref().map(|value| (key.clone(), value.clone()))
}
