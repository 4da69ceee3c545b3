//! One ordered table: sled, and above it the *recent* writes that it has not got.
//!
//! A small batch that the journal makes durable stays in memory, where it hides
//! what sled has under its keys, until the next checkpoint gives all of them to
//! sled at once. sled writes a whole node at each tenth change of it and wakes a
//! pool of threads for each batch, so a change that goes there by itself costs
//! many times its own size and more processor time than all the rest; and of the
//! pages near a tree's root, which each change replaces, it gets only the last.
//!
//! While the database is compacted a second sled stands beside the first: piece by piece
//! it gets a copy, in the order of keys, and each batch goes to both as far as the copy has
//! come. At the end it takes the first one's place between two reads.
//!
//! Reads go through a [`View`], which sees either all of a batch or nothing of
//! it. What is durable, and when, is [`Disk`](super::disk::Disk)'s business.

use std::{
    collections::BTreeMap,
    ops::Bound::{self, Excluded, Included, Unbounded},
    sync::{
        OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
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

/// The name of the table in sled.
pub const TREE: &str = "creditsync";
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
    /// Held for writing while a batch is applied, or another sled takes over. sled keeps
    /// batches out of each single read, but a value may take several: one for each chunk.
    content: RwLock<Content>,
    /// What sled is thought to have written for what it was given.
    given: AtomicU64,
}

/// What there is.
struct Content {
    sled: sled::Tree,
    recent: Recent,
    copy: Option<Successor>,
}

/// Writes that sled has not got: the value, or that there is none.
#[derive(Default)]
struct Recent {
    writes: BTreeMap<IVec, Option<IVec>>,
    /// What sled is thought to write for them.
    sled_bytes: usize,
}

/// A copy of what sled has, on its way.
struct Successor {
    tree: sled::Tree,
    /// It has all keys up to this one, or all that there are.
    copied: Copied,
    /// Why it is of no use any more; the table itself is well.
    failed: OnceLock<StoreError>,
}

enum Copied {
    UpTo(IVec),
    All,
}

/// A piece of the table that was copied, or looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Piece {
    /// Bytes of its keys and values.
    pub bytes: u64,
    pub keys: u64,
    /// Whether it was the last one.
    pub is_last: bool,
}

impl Recent {
    /// Full slices, about.
    fn slices(&self) -> usize {
        (self.sled_bytes / SLICE_BYTES).max(self.writes.len() / SLICE_KEYS)
    }
}

impl Successor {
    fn has(&self, key: &[u8]) -> bool {
        match &self.copied {
            Copied::UpTo(last) => key <= last.as_ref(),
            Copied::All => true,
        }
    }
}

/// A batch on its way to sled.
#[derive(Default)]
struct Slice {
    batch: sled::Batch,
    /// What of it the copy gets.
    copied: Option<sled::Batch>,
}

impl Slice {
    fn add(&mut self, content: &Content, key: IVec, value: Option<IVec>) {
        if content.copy.as_ref().is_some_and(|copy| copy.has(&key)) {
            add(self.copied.get_or_insert_default(), key.clone(), value.clone());
        }
        add(&mut self.batch, key, value);
    }

    /// With the number of the last batch, if all of that is in it or before it.
    fn apply(self, content: &Content, number: Option<u64>) -> Result<(), StoreError> {
        let mut slice = self;
        if let Some(number) = number {
            slice.add(content, keys::APPLIED.into(), Some((&number.to_be_bytes()).into()));
        }
        content.sled.apply_batch(slice.batch)?;
        if let (Some(batch), Some(copy)) = (slice.copied, &content.copy)
            && copy.failed.get().is_none()
            && let Err(error) = copy.tree.apply_batch(batch)
        {
            // Only the first one counts.
            let _ = copy.failed.set(error.into());
        }
        Ok(())
    }
}

impl Table {
    /// The table in a tree of sled.
    pub fn new(sled: sled::Tree) -> Self {
        let content = Content { sled, recent: Recent::default(), copy: None };
        Self { content: RwLock::new(content), given: AtomicU64::new(0) }
    }

    /// Keeps batches out while something is read.
    pub fn view(&self) -> View<'_> {
        View { content: self.read() }
    }

    /// Takes a batch into memory.
    pub fn keep(&self, writes: Vec<Write>) {
        let recent = &mut self.write().recent;
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
        let mut content = self.write();
        let mut slice = Slice::default();
        for (key, value) in &content.recent.writes {
            slice.add(&content, key.clone(), value.clone());
        }
        let mut sled_bytes = content.recent.sled_bytes;
        for (key, value) in writes {
            let (key, value) = (IVec::from(key), value.map(IVec::from));
            sled_bytes += bytes_in_sled(&key, value.as_ref());
            slice.add(&content, key, value);
        }
        self.given.fetch_add(sled_bytes as u64, Ordering::Relaxed);
        slice.apply(&content, Some(number))?;
        content.recent = Recent::default();
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
        let content = self.read();
        let recent = &content.recent;
        let mut slice = Slice::default();
        let (mut count, mut sled_bytes, mut moved) = (0, 0, 0);
        for (key, value) in &recent.writes {
            let bytes = bytes_in_sled(key, value.as_ref());
            let is_full = count >= SLICE_KEYS || sled_bytes + bytes > SLICE_BYTES;
            if in_slices && count > 0 && is_full {
                std::mem::take(&mut slice).apply(&content, None)?;
                sync()?;
                (count, sled_bytes) = (0, 0);
            }
            count += 1;
            sled_bytes += bytes;
            moved += key.len() + value.as_ref().map_or(0, |value| value.len());
            slice.add(&content, key.clone(), value.clone());
        }
        if count > 0 {
            slice.apply(&content, Some(number))?;
        }
        self.given.fetch_add(recent.sled_bytes as u64, Ordering::Relaxed);
        drop(content);
        sync()?;
        self.write().recent = Recent::default();
        Ok(moved)
    }

    /// Begins to copy what sled has into an empty tree of another one.
    pub fn begin_copy(&self, tree: sled::Tree) {
        let copied = Copied::UpTo(IVec::default());
        self.write().copy = Some(Successor { tree, copied, failed: OnceLock::new() });
    }

    /// Copies the next so many keys and bytes, as they are. Nothing may be given to sled
    /// meanwhile; readers go on.
    pub fn copy_some(&self, keys_max: u64, bytes_max: u64) -> Result<Piece, StoreError> {
        let content = self.read();
        let Some(copy) = &content.copy else {
            return Err(StoreError::Database("there is no copy under way".into()));
        };
        if let Some(error) = copy.failed.get() {
            return Err(error.clone());
        }
        let Copied::UpTo(last) = &copy.copied else {
            return Ok(Piece { is_last: true, ..Piece::default() });
        };
        let (piece, last, pairs) = read_some(&content.sled, last, keys_max, bytes_max)?;
        let mut batch = sled::Batch::default();
        pairs.into_iter().for_each(|(key, value)| batch.insert(key, value));
        copy.tree.apply_batch(batch)?;
        drop(content);
        if let Some(copy) = &mut self.write().copy {
            copy.copied = if piece.is_last { Copied::All } else { Copied::UpTo(last) };
        }
        Ok(piece)
    }

    /// Gives the copy up.
    pub fn give_up_copy(&self) {
        self.write().copy = None;
    }

    /// Whether the copy has all that sled has.
    pub fn is_copied(&self) -> bool {
        let content = self.read();
        let has_all =
            |copy: &Successor| matches!(copy.copied, Copied::All) && copy.failed.get().is_none();
        content.copy.as_ref().is_some_and(has_all)
    }

    /// Lets the copy, which has all, take the place of what was copied: whoever reads next
    /// reads it.
    pub fn take_over(&self) {
        let mut content = self.write();
        if let Some(copy) = content.copy.take() {
            content.sled = copy.tree;
        }
    }

    /// Looks at the next so many pairs that sled has behind `last`, which moves on.
    pub fn look_at_some(
        &self,
        last: &mut Bytes,
        keys_max: u64,
        bytes_max: u64,
    ) -> Result<Piece, StoreError> {
        let (piece, behind, _) = read_some(&self.read().sled, last, keys_max, bytes_max)?;
        *last = behind;
        Ok(piece)
    }

    /// Whether what is recent is more than one slice.
    pub fn has_several_slices(&self) -> bool {
        self.read().recent.slices() > 0
    }

    /// Whether so much is recent that an idle moment is well used for a checkpoint,
    /// or `times` that.
    pub fn is_over(&self, times: usize) -> bool {
        self.read().recent.slices() >= times * SLICES_IDLE
    }

    /// What sled is thought to have written since this was asked last.
    pub fn take_given(&self) -> u64 {
        self.given.swap(0, Ordering::Relaxed)
    }

    /// What sled is thought to write for what is recent.
    pub fn recent_bytes(&self) -> usize {
        self.read().recent.sled_bytes
    }

    fn read(&self) -> RwLockReadGuard<'_, Content> {
        self.content.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Content> {
        self.content.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The next pairs behind a key, and the last of their keys.
fn read_some(
    tree: &sled::Tree,
    last: &Bytes,
    keys_max: u64,
    bytes_max: u64,
) -> Result<(Piece, Bytes, Vec<Pair>), StoreError> {
    let (mut piece, mut pairs) = (Piece { is_last: true, ..Piece::default() }, Vec::new());
    for pair in tree.range::<&[u8], _>((Excluded(last.as_ref()), Unbounded)) {
        if piece.keys >= keys_max || piece.bytes >= bytes_max {
            piece.is_last = false;
            break;
        }
        let (key, value) = pair?;
        piece.keys += 1;
        piece.bytes += (key.len() + value.len()) as u64;
        pairs.push((key, value));
    }
    let last = pairs.last().map_or_else(|| last.clone(), |(key, _)| key.clone());
    Ok((piece, last, pairs))
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
    content: RwLockReadGuard<'a, Content>,
}

impl View<'_> {
    /// The value under `key`.
    pub fn get(&self, key: &[u8]) -> Result<Option<IVec>, StoreError> {
        match self.content.recent.writes.get(key) {
            Some(value) => Ok(value.clone()),
            None => Ok(self.content.sled.get(key)?),
        }
    }

    /// The first key in a range, and its value.
    pub fn first(&self, range: KeyRange<'_>) -> Result<Option<Pair>, StoreError> {
        let recent = self.content.recent.writes.range::<[u8], _>(range).find_map(present);
        // Only what comes before it matters.
        let before = match &recent {
            Some((key, _)) if range.0 == Included(key.as_ref()) => return Ok(recent),
            Some((key, _)) => (range.0, Excluded(key.as_ref())),
            None => range,
        };
        let older = self.not_hidden(self.content.sled.range::<&[u8], _>(before))?;
        Ok(older.or(recent))
    }

    /// The last key in a range, and its value.
    pub fn last(&self, range: KeyRange<'_>) -> Result<Option<Pair>, StoreError> {
        let recent = self.content.recent.writes.range::<[u8], _>(range).rev().find_map(present);
        let behind = match &recent {
            Some((key, _)) if range.1 == Included(key.as_ref()) => return Ok(recent),
            Some((key, _)) => (Excluded(key.as_ref()), range.1),
            None => range,
        };
        let older = self.not_hidden(self.content.sled.range::<&[u8], _>(behind).rev())?;
        Ok(older.or(recent))
    }

    /// The first of sled's pairs that no recent write hides.
    fn not_hidden(
        &self,
        mut pairs: impl Iterator<Item = sled::Result<Pair>>,
    ) -> Result<Option<Pair>, StoreError> {
        let hidden = |pair: &sled::Result<Pair>| {
            pair.as_ref().is_ok_and(|(key, _)| self.content.recent.writes.contains_key(key))
        };
        Ok(pairs.find(|pair| !hidden(pair)).transpose()?)
    }
}

fn present((key, value): (&IVec, &Option<IVec>)) -> Option<Pair> {
    value.as_ref().map(|value| (key.clone(), value.clone()))
}
