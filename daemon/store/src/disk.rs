//! sled, opened with explicit bounds, and batches made durable in it or before
//! it.
//!
//! On Linux sled's flush is `sync_file_range`, which syncs neither metadata nor
//! the drive's cache, so `fdatasync` follows on a descriptor of its own. All in
//! all that is four writes one after the other for each commit, so small batches
//! are made durable in the [`journal`], and sled gets them when that is full
//! ([`table`](super::table)).
//!
//! Large numbers of new pages go to [`packs`]. What a value looks like is in
//! [`values`](super::values).

use std::{
    fs::File,
    ops::Bound::{Excluded, Included, Unbounded},
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use protocol::{
    change::{ChangeSet, SignedHeader},
    tree::FoundPage,
};

use super::{
    Options, StoreError,
    journal::{self, Journal},
    keys,
    packs::{self, PackId, Packs},
    table::{Pair, Table},
    values::{Batch, FoundPair, Read, chunks_of, up_to},
};

/// The newest format of the database that this program writes and knows.
///
/// 4: the hashes of keys and the digests of entries, and so the ends of pages,
/// follow another rule than before, and pages may lie in packs.
const FORMAT_VERSION: u32 = 4;
/// sled's unit of allocation. With the default of 512 KiB, values of 64 KiB
/// would be moved out of the file.
pub const SEGMENT_BYTES: usize = 8 * 1024 * 1024;
const MIB: u64 = 1024 * 1024;
/// Least reserve: three segments. On a tmpfs, sled met the full disk with a
/// reserve of none while writing, and with half a segment when it was opened
/// again; one whole segment sufficed.
const RESERVE_LEAST_MB: u64 = 24;
/// Largest derived reserve; on a large disk 5 % would be absurd.
const RESERVE_MOST_MB: u64 = 1024;
/// How long a locked database is tried again.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// The open database.
pub struct Disk {
    table: Table,
    // Closed after the table; its lock keeps other processes out.
    db: sled::Db,
    data: File,
    pub(super) packs: Packs,
    /// Held while a batch is applied, so that numbers are in the order of batches.
    journal: Mutex<Journal>,
    path: PathBuf,
    reserve_mb: u64,
    /// Lets a test see what happens when sled reports an error.
    #[cfg(any(test, feature = "testing"))]
    pub broken: Broken,
    /// Calls of `fdatasync`.
    pub syncs: AtomicU64,
    /// Bytes of keys and values given to sled, and bytes written to the journal.
    pub bytes_written: AtomicU64,
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
            None => (total_mb(path)? / 20).clamp(RESERVE_LEAST_MB, RESERVE_MOST_MB),
        };
        let database = path.join("sled");
        remove_unfinished_snapshots(&database).map_err(file_error)?;
        let config = sled::Config::new()
            .path(&database)
            .cache_capacity(options.cache_mb * MIB)
            .segment_size(SEGMENT_BYTES)
            .flush_every_ms(None);
        let db = open_unlocked(&config)?;
        let data = File::open(database.join("db")).map_err(file_error)?;
        let table = Table::new(db.open_tree("creditsync")?);
        check_format(&table)?;
        let sync = || sync_sled(&db, &data);
        let last = replay(&table, &journal::read(path)?, sync)?;
        // Numbers of this opening are above all of an earlier one, and durable
        // before the first of them is given.
        let first = journal::next_opening(last)?;
        let format = (keys::FORMAT.to_vec(), Some(FORMAT_VERSION.to_be_bytes().to_vec()));
        table.pass_on(vec![format], first)?;
        sync()?;
        let (journal, packs) = (Journal::open(path, first)?, Packs::open(path)?);
        // The files' own names have to survive a power cut, too.
        for directory in [&database, path] {
            File::open(directory).and_then(|open| open.sync_all()).map_err(file_error)?;
        }
        Ok(Self {
            table,
            db,
            data,
            packs,
            journal: Mutex::new(journal),
            path: path.to_owned(),
            reserve_mb,
            #[cfg(any(test, feature = "testing"))]
            broken: Default::default(),
            syncs: AtomicU64::new(0),
            bytes_written: AtomicU64::new(0),
        })
    }

    /// Refuses a write of about `bytes` if it would eat into the reserve. sled
    /// cannot recover from a full disk, so this is asked before each batch.
    pub fn check_room(&self, bytes: usize) -> Result<(), StoreError> {
        let stat = rustix::fs::statvfs(&self.path).map_err(|error| StoreError::File {
            path: self.path.clone(),
            problem: error.to_string(),
        })?;
        let free_mb = stat.f_bavail.saturating_mul(stat.f_frsize) / MIB;
        // sled writes whole nodes: a batch costs more than its own bytes.
        let sled_bytes = self.table.recent_bytes() + 3 * bytes;
        let needed_mb = self.reserve_mb + sled_bytes as u64 / MIB;
        if free_mb < needed_mb {
            return Err(StoreError::DiskFull { path: self.path.clone(), free_mb, needed_mb });
        }
        Ok(())
    }

    /// Applies a batch atomically; it is durable after [`Disk::make_durable`].
    /// Behind an error nobody knows what of it took place.
    pub fn apply(&self, batch: Batch) -> Result<(), StoreError> {
        #[cfg(any(test, feature = "testing"))]
        fail_if(&self.broken.apply)?;
        if batch.writes.is_empty() {
            return Ok(());
        }
        let mut journal = self.journal();
        let mut noted = journal.note(&batch.writes);
        if !noted && !journal.is_incomplete() && journal::has_room_for(&batch.writes) {
            // It is full, and then it is empty.
            self.move_to_sled(&mut journal)?;
            noted = journal.note(&batch.writes);
        }
        if !noted {
            return self.pass_on(&mut journal, batch);
        }
        self.table.keep(batch.writes);
        if self.table.is_over(2) {
            self.move_to_sled(&mut journal)?;
        }
        Ok(())
    }

    /// Gives a batch to sled at once.
    fn pass_on(&self, journal: &mut Journal, batch: Batch) -> Result<(), StoreError> {
        if self.table.has_several_slices() && !journal.is_incomplete() {
            self.move_to_sled(journal)?;
        }
        self.sync_packs()?;
        let number = journal.leave_out();
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
        in_tree: u64,
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

    /// Removes the packs of what was deleted under a prefix.
    pub fn remove_packs(&self, prefix: &[u8]) -> Result<(), StoreError> {
        match keys::pages_of(prefix) {
            Some((number, generation)) => self.packs.remove(number, generation),
            None => Ok(()),
        }
    }

    /// Removes the packs of all partitions' numbers from this one on.
    pub fn remove_packs_from(&self, number: u32) -> Result<(), StoreError> {
        let packs = self.packs.list()?;
        let mut above = packs.iter().filter(|id| id.number >= number);
        above.try_for_each(|id| self.packs.remove(id.number, Some(id.generation)))
    }

    fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until everything applied is on the disk: in the journal, or else in
    /// sled.
    pub fn make_durable(&self) -> Result<(), StoreError> {
        #[cfg(any(test, feature = "testing"))]
        fail_if(&self.broken.sync)?;
        let mut journal = self.journal();
        if journal.is_incomplete() {
            return self.move_to_sled(&mut journal);
        }
        self.write_journal(&mut journal)
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
        self.move_to_sled(&mut self.journal())
    }

    /// Whether the journal is so full, or so much lies in memory, that an idle
    /// moment is well used for a checkpoint.
    pub fn wants_checkpoint(&self) -> bool {
        self.journal().is_nearly_full() || self.table.is_over(1)
    }

    fn move_to_sled(&self, journal: &mut Journal) -> Result<(), StoreError> {
        // With an incomplete journal nobody could complete what a crash left behind.
        let in_slices = !journal.is_incomplete();
        if in_slices && self.table.has_several_slices() {
            self.write_journal(journal)?;
        }
        self.sync_packs()?;
        let moved = self.table.move_to_sled(journal.last(), in_slices, || {
            sync_sled(&self.db, &self.data)?;
            self.syncs.fetch_add(1, Ordering::Relaxed);
            #[cfg(any(test, feature = "testing"))]
            fail_if(&self.broken.slice)?;
            Ok(())
        })?;
        self.bytes_written.fetch_add(moved as u64, Ordering::Relaxed);
        journal.restart();
        Ok(())
    }

    /// A small value.
    pub fn get(&self, key: &[u8]) -> Result<Option<sled::IVec>, StoreError> {
        self.table.view().get(key)
    }

    /// Small values whose keys begin with `prefix`: what follows the prefix,
    /// and the value.
    pub fn scan(
        &self,
        prefix: &[u8],
    ) -> impl Iterator<Item = Result<(Vec<u8>, sled::IVec), StoreError>> {
        self.pairs(prefix.to_vec()).map({
            let skip = prefix.len();
            move |pair| pair.map(|(key, value)| (key[skip..].to_vec(), value))
        })
    }

    /// What lies under keys that begin with `prefix`, each read by itself.
    fn pairs(&self, prefix: Vec<u8>) -> impl Iterator<Item = Result<Pair, StoreError>> {
        let mut last: Option<sled::IVec> = None;
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

    /// The last chunked value whose key is at most `key`, or else the first
    /// one, among keys that begin with `prefix`.
    pub fn seek(&self, prefix: &[u8], key: &[u8]) -> Result<Option<FoundPage>, StoreError> {
        self.read().at_or_first(prefix, key)
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
    ) -> Result<Option<FoundPage>, StoreError> {
        let read = self.read();
        read.whole(read.view.last(up_to(prefix, key))?, prefix)
    }

    /// The first chunked value whose key is at least `key`, among keys that
    /// begin with `prefix`.
    pub fn first_at_or_behind(
        &self,
        prefix: &[u8],
        key: &[u8],
    ) -> Result<Option<FoundPage>, StoreError> {
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

    /// The signed header with this number.
    pub fn log_header(&self, number: u32, seq: u64) -> Result<Option<SignedHeader>, StoreError> {
        let Some(bytes) = self.get(&keys::log_header(number, seq))? else {
            return Ok(None);
        };
        SignedHeader::decode(&bytes).map(Some).map_err(|error| StoreError::Damaged {
            place: format!("the log at number {seq}"),
            problem: error.to_string(),
        })
    }

    /// The change set with this number, if its body is kept.
    pub fn log_change_set(&self, number: u32, seq: u64) -> Result<Option<ChangeSet>, StoreError> {
        let Some(header) = self.log_header(number, seq)? else {
            return Ok(None);
        };
        let body = self.get_chunked(&keys::log_body(number, seq))?;
        Ok(body.map(|body| ChangeSet { header, body }))
    }

    /// Forgets what snapshots of an earlier run had saved.
    pub fn drop_snapshots(&self) -> Result<(), StoreError> {
        while self.delete_some(keys::SNAPSHOTS, 500)? {}
        Ok(())
    }

    /// Deletes up to `count` values of one table whose keys begin with `prefix`;
    /// answers whether there may be more.
    pub fn delete_some(&self, prefix: &[u8], count: usize) -> Result<bool, StoreError> {
        let mut batch = Batch::default();
        let mut deleted = 0;
        for pair in self.pairs(prefix.to_vec()).take(count) {
            let (key, first) = pair?;
            let chunks = if keys::is_chunked(prefix) { chunks_of(&first) } else { 1 };
            batch.remove_chunked(&key, chunks);
            deleted += 1;
        }
        if deleted > 0 {
            // Kept in memory, all that is deleted would be in the way of the next
            // call.
            self.pass_on(&mut self.journal(), batch)?;
        }
        Ok(deleted == count)
    }

    /// How many chunks the value under `key` has; zero if there is none.
    pub fn chunks(&self, key: &[u8]) -> Result<u16, StoreError> {
        Ok(self.get(key)?.map_or(0, |first| chunks_of(&first)))
    }
}

/// What a test makes fail.
#[cfg(any(test, feature = "testing"))]
#[derive(Default)]
pub struct Broken {
    pub apply: std::sync::atomic::AtomicBool,
    pub sync: std::sync::atomic::AtomicBool,
    /// The journal alone.
    pub journal: std::sync::atomic::AtomicBool,
    /// A checkpoint, behind its first slice.
    pub slice: std::sync::atomic::AtomicBool,
}

#[cfg(any(test, feature = "testing"))]
fn fail_if(broken: &std::sync::atomic::AtomicBool) -> Result<(), StoreError> {
    if broken.load(Ordering::Relaxed) {
        return Err(StoreError::Database("broken by a test".into()));
    }
    Ok(())
}

/// Waits until everything that sled was given is on the disk.
fn sync_sled(db: &sled::Db, data: &File) -> Result<(), StoreError> {
    db.flush()?;
    data.sync_data().map_err(|error| StoreError::Database(error.to_string()))
}

fn check_format(table: &Table) -> Result<(), StoreError> {
    let Some(bytes) = table.view().get(keys::FORMAT)? else {
        return Ok(());
    };
    match bytes.as_ref().try_into().map(u32::from_be_bytes).unwrap_or(u32::MAX) {
        FORMAT_VERSION => Ok(()),
        found => Err(StoreError::Format { found, known: FORMAT_VERSION }),
    }
}

/// Gives sled what the journal holds and it has not got, and answers the number
/// of the last batch. It may be interrupted anywhere: the journal stays as it is.
fn replay(
    table: &Table,
    content: &[u8],
    sync: impl Fn() -> Result<(), StoreError>,
) -> Result<u64, StoreError> {
    let applied = match table.view().get(keys::APPLIED)? {
        None => 0,
        Some(bytes) => bytes.as_ref().try_into().map(u64::from_be_bytes).map_err(|_| {
            let problem = "it has not 8 bytes".into();
            StoreError::Damaged { place: "the number of the last batch".into(), problem }
        })?,
    };
    let mut last = applied;
    for (number, body) in journal::records(content).filter(|(number, _)| *number > applied) {
        if number != last + 1 {
            // Only the first one can; what lies between was in sled once.
            tracing::warn!(applied, number, "the database is older than its journal begins");
            break;
        }
        table.keep(journal::decode(body)?);
        last = number;
    }
    if last > applied {
        table.move_to_sled(last, true, sync)?;
        tracing::info!(batches = last - applied, "replayed the journal into the database");
    }
    Ok(last)
}

/// Removes what sled leaves when it is stopped, or finds no room, while it
/// writes a snapshot of its page table. With such a file there it would not open
/// again, although the data is whole: the snapshot only saves time.
///
/// The node's directory is locked, so no other process is writing one.
fn remove_unfinished_snapshots(database: &Path) -> std::io::Result<()> {
    let entries = match std::fs::read_dir(database) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "generating") {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Opens sled, whose lock may outlive its owner for a moment: a thread of
/// sled's pool lets go of the file a little after the database was closed, and a
/// process that was just forked holds it until it runs its own program.
fn open_unlocked(config: &sled::Config) -> Result<sled::Db, StoreError> {
    let began = Instant::now();
    loop {
        match config.open() {
            Err(sled::Error::Io(error))
                if error.to_string().contains("could not acquire lock")
                    && began.elapsed() < LOCK_PATIENCE =>
            {
                std::thread::sleep(LOCK_PATIENCE / 100);
            }
            answer => return Ok(answer?),
        }
    }
}

fn total_mb(path: &Path) -> Result<u64, StoreError> {
    let stat = rustix::fs::statvfs(path)
        .map_err(|error| StoreError::File { path: path.to_owned(), problem: error.to_string() })?;
    Ok(stat.f_blocks.saturating_mul(stat.f_frsize) / MIB)
}
