//! The database: batches made durable in sled or before it, and values read.
//!
//! On Linux sled's flush is `sync_file_range`, which syncs neither metadata nor
//! the drive's cache, so `fdatasync` follows on a descriptor of its own. All in
//! all that is four writes one after the other for each commit, so small batches
//! are made durable in the [`journal`], and sled gets them when that is full
//! ([`table`](super::table)).
//!
//! Large numbers of new pages go to [`packs`]. What a value looks like is in
//! [`values`](super::values), how sled is opened in [`base`](super::base) and
//! [`opening`](super::opening); what gives room back that is waste, in
//! [`compact`](super::compact).

use std::{
    ops::Bound::{Excluded, Included, Unbounded},
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use protocol::suite::Suite;

use super::{
    base::{self, Base},
    journal::{self, Journal},
    keys,
    opening::{check_format, format, replay},
    packs::{self, PackId, Packs},
    sweep,
    table::{Bytes, Pair, Table},
    values::{Batch, Found, FoundPair, Read, bytes_max_of, bytes_of_first, chunks_of, up_to},
};
use crate::error::StoreError;

const MIB: u64 = 1024 * 1024;
/// Least reserve: three segments. On a tmpfs, sled met the full disk with a
/// reserve of none while writing, and with half a segment when it was opened
/// again; one whole segment sufficed.
const RESERVE_LEAST_MB: u64 = 24;
/// Largest derived reserve; on a large disk 5 % would be absurd.
const RESERVE_MOST_MB: u64 = 1024;
/// A database with fewer bytes is not weighed: four of sled's segments, of which it fills
/// one, cleans others, and keeps one that is free.
pub(super) const WEIGHED_BYTES_MIN: u64 = if cfg!(test) { 24 * MIB } else { 32 * MIB };

/// How to open a store.
#[derive(Debug, Clone)]
pub struct Options {
    /// The federation's suite: of which all hashes are.
    pub suite: Suite,
    /// Memory that sled may use for its cache, in MiB.
    pub cache_mb: u64,
    /// Free space in MiB below which writes are refused; `None` derives it from
    /// the size of the file system.
    pub disk_reserve_mb: Option<u64>,
}

/// The open database.
pub struct Disk {
    /// The suite of what lies here.
    pub suite: Suite,
    pub(super) table: Table,
    pub packs: Packs,
    /// Held while a batch is applied, so that numbers are in the order of batches.
    writing: Mutex<Writing>,
    pub(super) path: PathBuf,
    pub(super) cache_bytes: u64,
    reserve_mb: u64,
    /// When the database has this many bytes it is time to weigh it.
    pub(super) weigh_at: AtomicU64,
    /// Lets a test see what happens when sled reports an error.
    #[cfg(any(test, feature = "testing"))]
    pub broken: Broken,
    /// Calls of `fdatasync`.
    pub syncs: AtomicU64,
    /// Bytes of keys and values given to sled, and bytes written to the journal.
    pub bytes_written: AtomicU64,
}

/// What whoever writes has to itself.
pub(super) struct Writing {
    pub(super) journal: Journal,
    // Closed after the table; its lock keeps other processes out.
    pub(super) base: Base,
    /// What gets a copy of it.
    pub(super) next: Option<Base>,
}

impl Disk {
    /// Opens the database under `path`, or makes one.
    pub fn open(path: &Path, options: &Options) -> Result<Self, StoreError> {
        let file_error = |problem: std::io::Error| StoreError::File {
            path: path.to_owned(),
            problem: problem.to_string(),
        };
        std::fs::create_dir_all(path).map_err(file_error)?;
        let reserve_mb = match options.disk_reserve_mb {
            Some(reserve) => reserve,
            None => (bytes_of(path)?.0 / MIB / 20).clamp(RESERVE_LEAST_MB, RESERVE_MOST_MB),
        };
        let cache_bytes = options.cache_mb * MIB;
        let base = Base::open(path, cache_bytes)?;
        let table = Table::new(base.tree.clone());
        check_format(&table, options.suite)?;
        let last = replay(&table, &journal::read(path)?, || base.sync())?;
        // Numbers of this opening are above all of an earlier one, and durable
        // before the first of them is given.
        let first = journal::next_opening(last)?;
        let format = (keys::FORMAT.to_vec(), Some(format(options.suite)));
        table.pass_on(vec![format], first)?;
        base.sync()?;
        let (journal, packs) = (Journal::open(path, first)?, Packs::open(path)?);
        // The files' own names have to survive a power cut, too.
        for directory in [&base::current(path), path] {
            files::sync_directory(directory).map_err(file_error)?;
        }
        Ok(Self {
            suite: options.suite,
            table,
            packs,
            writing: Mutex::new(Writing { journal, base, next: None }),
            path: path.to_owned(),
            cache_bytes,
            reserve_mb,
            weigh_at: AtomicU64::new(WEIGHED_BYTES_MIN),
            #[cfg(any(test, feature = "testing"))]
            broken: Default::default(),
            syncs: AtomicU64::new(0),
            bytes_written: AtomicU64::new(0),
        })
    }

    /// Refuses a write of about `bytes` if it would eat into the reserve. sled
    /// cannot recover from a full disk, so this is asked before each batch.
    pub fn check_room(&self, bytes: usize) -> Result<(), StoreError> {
        #[cfg(any(test, feature = "testing"))]
        if self.broken.room.load(Ordering::Relaxed) {
            return Ok(());
        }
        let free_mb = bytes_of(&self.path)?.1 / MIB;
        let needed_mb = self.reserve_mb + self.cost_of(bytes) / MIB;
        if free_mb < needed_mb {
            return Err(StoreError::DiskFull { path: self.path.clone(), free_mb, needed_mb });
        }
        Ok(())
    }

    /// Whether there is room for tidying: what is deleted is written, too, before its room
    /// is free again. It may have half of the reserve, and the rest stays for the end.
    pub fn has_room_to_tidy(&self) -> Result<bool, StoreError> {
        Ok(bytes_of(&self.path)?.1 / MIB >= self.reserve_mb / 2)
    }

    /// Bytes of the file system, and those of it that will be free after a write of
    /// about `bytes`; both without the reserve.
    pub fn capacity(&self, bytes: usize) -> Result<(u64, u64), StoreError> {
        let (all, free) = bytes_of(&self.path)?;
        let reserve = self.reserve_mb * MIB;
        Ok((all.saturating_sub(reserve), free.saturating_sub(reserve + self.cost_of(bytes))))
    }

    /// sled writes whole nodes: a batch costs more than its own bytes.
    fn cost_of(&self, bytes: usize) -> u64 {
        (self.table.recent_bytes() + 3 * bytes) as u64
    }

    /// Applies a batch atomically; it is durable after [`Disk::make_durable`].
    ///
    /// # Errors
    /// After one, the batch may have been applied wholly, partly or not at all.
    pub fn apply(&self, batch: Batch) -> Result<(), StoreError> {
        #[cfg(any(test, feature = "testing"))]
        fail_if(&self.broken.apply)?;
        if batch.writes.is_empty() {
            return Ok(());
        }
        let writing = &mut *self.writing();
        let mut noted = writing.journal.note(&batch.writes);
        let is_complete = !writing.journal.is_incomplete();
        if !noted && is_complete && journal::has_room_for(&batch.writes) {
            // It is full, and then it is empty.
            self.move_to_sled(writing)?;
            noted = writing.journal.note(&batch.writes);
        }
        if !noted {
            return self.pass_on(writing, batch);
        }
        self.table.keep(batch.writes);
        if self.table.is_over(2) {
            self.move_to_sled(writing)?;
        }
        Ok(())
    }

    /// Gives a batch to sled at once.
    fn pass_on(&self, writing: &mut Writing, batch: Batch) -> Result<(), StoreError> {
        if self.table.has_several_slices() && !writing.journal.is_incomplete() {
            self.move_to_sled(writing)?;
        }
        self.sync_packs()?;
        let number = writing.journal.leave_out();
        self.bytes_written.fetch_add(batch.bytes() as u64, Ordering::Relaxed);
        self.table.pass_on(batch.writes, number)
    }

    /// What refers to a pack is written behind what it refers to.
    fn sync_packs(&self) -> Result<(), StoreError> {
        let synced = self.packs.sync()?;
        self.syncs.fetch_add(synced, Ordering::Relaxed);
        Ok(())
    }

    /// Adds pages to `batch` whose keys are new: to the generation's pack if they
    /// are many. The tree will have `in_tree` pages.
    pub fn put_new(
        &self,
        batch: &mut Batch,
        generation: PackId,
        pages: &[(Vec<u8>, &[u8])],
        in_tree: packs::InTree,
    ) -> Result<(), StoreError> {
        let bytes: usize = pages.iter().map(|(_, page)| page.len()).sum();
        let (added, count) = (bytes as u64, pages.len() as u64);
        if bytes < packs::APPEND_BYTES_MIN
            || !packs::may_grow(self.packs.length(generation)?, added, count, in_tree)
        {
            for (key, page) in pages {
                batch.put_chunked(key, page, 0);
            }
            return Ok(());
        }
        self.check_room(bytes)?;
        let bodies: Vec<&[u8]> = pages.iter().map(|(_, page)| *page).collect();
        let places = self.packs.append(generation, &bodies)?;
        if self.packs.unsynced_bytes() > packs::UNSYNCED_BYTES_MAX {
            self.sync_packs()?;
        }
        self.bytes_written.fetch_add(added, Ordering::Relaxed);
        for ((key, page), place) in pages.iter().zip(places) {
            batch.put_place(key.clone(), page, place);
        }
        Ok(())
    }

    pub(super) fn writing(&self) -> MutexGuard<'_, Writing> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until everything applied is on the disk: in the journal, or else in
    /// sled.
    pub fn make_durable(&self) -> Result<(), StoreError> {
        #[cfg(any(test, feature = "testing"))]
        fail_if(&self.broken.sync)?;
        let writing = &mut *self.writing();
        if writing.journal.is_incomplete() {
            return self.move_to_sled(writing);
        }
        self.write_journal(&mut writing.journal)
    }

    fn write_journal(&self, journal: &mut Journal) -> Result<(), StoreError> {
        if journal.is_idle() {
            return Ok(());
        }
        #[cfg(any(test, feature = "testing"))]
        fail_if(&self.broken.journal).inspect_err(|_| journal.give_up())?;
        self.sync_packs().inspect_err(|_| journal.give_up())?;
        let bytes = journal.write()?;
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.bytes_written.fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Waits until everything applied is on the disk in sled, so that the
    /// journal begins anew and the next start has nothing to replay.
    pub fn checkpoint(&self) -> Result<(), StoreError> {
        #[cfg(any(test, feature = "testing"))]
        fail_if(&self.broken.sync)?;
        self.move_to_sled(&mut self.writing())
    }

    /// Whether the journal is so full, or so much lies in memory, that an idle
    /// moment is well used for a checkpoint.
    pub fn wants_checkpoint(&self) -> bool {
        self.writing().journal.is_nearly_full() || self.table.is_over(1)
    }

    pub(super) fn move_to_sled(&self, writing: &mut Writing) -> Result<(), StoreError> {
        let Writing { journal, base, .. } = writing;
        // With an incomplete journal nobody could complete what a crash left behind.
        let in_slices = !journal.is_incomplete();
        if in_slices && self.table.has_several_slices() {
            self.write_journal(journal)?;
        }
        self.sync_packs()?;
        let moved = self.table.move_to_sled(journal.last(), in_slices, || {
            base.sync()?;
            self.syncs.fetch_add(1, Ordering::Relaxed);
            #[cfg(any(test, feature = "testing"))]
            fail_if(&self.broken.slice)?;
            Ok(())
        })?;
        self.bytes_written.fetch_add(moved as u64, Ordering::Relaxed);
        journal.restart();
        base.sweep.note(self.table.take_given());
        Ok(())
    }

    /// Whether the last batches are in sled alone, so that it is a whole flush of sled that
    /// makes them durable.
    pub fn waits_for_sled(&self) -> bool {
        self.writing().journal.is_incomplete()
    }

    /// Does a piece of what gives back room in sled's file; answers whether there was any.
    /// What is moved is written before its old room is free, so without room nothing is.
    pub fn sweep_some(&self, rounds: usize) -> Result<bool, StoreError> {
        // Nothing else is given to sled meanwhile.
        let writing = self.writing();
        let base = &writing.base;
        if !base.sweep.is_due() || self.check_room(sweep::PIECE_BYTES_MAX).is_err() {
            return Ok(false);
        }
        base.sweep.move_some(rounds)?;
        #[cfg(any(test, feature = "testing"))]
        fail_if(&self.broken.sweep)?;
        base.sync()?;
        self.syncs.fetch_add(1, Ordering::Relaxed);
        Ok(true)
    }

    /// A small value.
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.table.view().get(key)
    }

    /// Small values whose keys begin with `prefix`: what follows the prefix,
    /// and the value.
    pub fn scan(
        &self,
        prefix: &[u8],
    ) -> impl Iterator<Item = Result<(Vec<u8>, Bytes), StoreError>> {
        self.pairs(prefix.to_vec()).map({
            let skip = prefix.len();
            move |pair| pair.map(|(key, value)| (key[skip..].to_vec(), value))
        })
    }

    /// What lies under keys that begin with `prefix`, each read by itself.
    fn pairs(&self, prefix: Vec<u8>) -> impl Iterator<Item = Result<Pair, StoreError>> {
        let mut last: Option<Bytes> = None;
        std::iter::from_fn(move || {
            let from = last.as_deref().map_or(Included(prefix.as_slice()), Excluded);
            let next = self.table.view().first((from, Unbounded)).transpose()?;
            match &next {
                Ok((key, _)) if !key.starts_with(&prefix) => return None,
                Ok((key, _)) => last = Some(key.clone()),
                Err(_) => {}
            }
            Some(next)
        })
    }

    /// Keeps batches out while several things are read.
    pub fn read(&self) -> Read<'_> {
        Read { view: self.table.view(), packs: &self.packs }
    }

    /// The whole of a chunked value, its checksum compared.
    pub fn get_chunked(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.read().whole_at(key)
    }

    /// How many bytes a chunked value has at most, by its first chunk: less than
    /// one chunk above what it has. Not of one that lies in a pack.
    pub fn chunked_bytes_max(&self, key: &[u8]) -> Result<Option<usize>, StoreError> {
        Ok(self.get(key)?.map(|first| bytes_max_of(&first)))
    }

    /// How many bytes lie under the key of a chunked value, whether or not they are what was
    /// written, in at most so many chunks. Not of one that lies in a pack.
    pub fn stored_bytes(&self, key: &[u8], chunks_max: u16) -> Result<u64, StoreError> {
        let view = self.table.view();
        let Some(first) = view.get(key)? else {
            return Ok(0);
        };
        let mut bytes = bytes_of_first(&first) as u64;
        for index in 1..chunks_max {
            bytes += view.get(&keys::chunk(key, index))?.map_or(0, |chunk| chunk.len() as u64);
        }
        Ok(bytes)
    }

    /// The value under `prefix` and `key`, with the one behind `beside`.
    pub fn get_with(
        &self,
        prefix: &[u8],
        key: &[u8],
        beside: &[u8],
    ) -> Result<Option<FoundPair>, StoreError> {
        let key = [prefix, key].concat();
        let read = self.read();
        let value = read.whole_at(&key)?;
        read.with_beside(value.map(|value| (key, value)), prefix, beside)
    }

    /// The last chunked value whose key is at most `key`, among keys that begin
    /// with `prefix`.
    pub fn last_at_or_before(
        &self,
        prefix: &[u8],
        key: &[u8],
    ) -> Result<Option<Found>, StoreError> {
        let read = self.read();
        read.whole(read.view.last(up_to(prefix, key))?, prefix)
    }

    /// The first chunked value whose key is at least `key`, among keys that
    /// begin with `prefix`.
    pub fn first_at_or_behind(
        &self,
        prefix: &[u8],
        key: &[u8],
    ) -> Result<Option<Found>, StoreError> {
        let read = self.read();
        read.whole(read.view.first((Included(key), Unbounded))?, prefix)
    }

    /// The first key behind `key` that begins with `prefix`.
    pub fn key_behind(&self, prefix: &[u8], key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.read().key_behind(prefix, key)
    }

    /// The first key that begins with `prefix`.
    pub fn first_key(&self, prefix: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.read().first_key_in(prefix, (Included(prefix), Unbounded))
    }

    /// The last key before `key` that begins with `prefix`.
    pub fn key_before(&self, prefix: &[u8], key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let last = self.table.view().last((Included(prefix), Excluded(key)))?;
        Ok(last.map(|(key, _)| key.to_vec()))
    }

    /// Deletes up to `count` values of one table whose keys begin with `prefix` and
    /// which are chunked or not; answers whether there may be more.
    pub fn delete_some(
        &self,
        prefix: &[u8],
        chunked: bool,
        count: usize,
    ) -> Result<bool, StoreError> {
        let mut batch = Batch::default();
        let mut deleted = 0;
        for pair in self.pairs(prefix.to_vec()).take(count) {
            let (key, first) = pair?;
            let chunks = if chunked { chunks_of(&first) } else { 1 };
            batch.remove_chunked(&key, chunks);
            deleted += 1;
        }
        if deleted > 0 {
            // Kept in memory, all that is deleted would be in the way of the next
            // call.
            self.pass_on(&mut self.writing(), batch)?;
        }
        Ok(deleted == count)
    }

    /// How many chunks the value under `key` has; zero if there is none.
    pub fn chunks(&self, key: &[u8]) -> Result<u16, StoreError> {
        Ok(self.get(key)?.map_or(0, |first| chunks_of(&first)))
    }
}

/// Hears of a step.
#[cfg(any(test, feature = "testing"))]
pub type ToldStep = Box<dyn FnMut(&str) + Send>;

/// What a test makes fail.
#[cfg(any(test, feature = "testing"))]
#[derive(Default)]
pub struct Broken {
    /// There seems to be room, and another program takes it before it is used.
    pub room: std::sync::atomic::AtomicBool,
    pub apply: std::sync::atomic::AtomicBool,
    pub sync: std::sync::atomic::AtomicBool,
    /// The journal alone.
    pub journal: std::sync::atomic::AtomicBool,
    /// A checkpoint, behind its first slice.
    pub slice: std::sync::atomic::AtomicBool,
    /// A piece of sweeping, before it is synced.
    pub sweep: std::sync::atomic::AtomicBool,
    /// A piece of a copy.
    pub copy: std::sync::atomic::AtomicBool,
    /// Called between any two steps of a copy's taking over.
    pub step: Mutex<Option<ToldStep>>,
}

#[cfg(any(test, feature = "testing"))]
pub(super) fn fail_if(broken: &std::sync::atomic::AtomicBool) -> Result<(), StoreError> {
    if broken.load(Ordering::Relaxed) {
        return Err(StoreError::Database("broken by a test".into()));
    }
    Ok(())
}

/// Bytes of the file system, and those of it that are free.
fn bytes_of(path: &Path) -> Result<(u64, u64), StoreError> {
    let stat = rustix::fs::statvfs(path)
        .map_err(|error| StoreError::File { path: path.to_owned(), problem: error.to_string() })?;
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    Ok((bytes(stat.f_blocks), bytes(stat.f_bavail)))
}
