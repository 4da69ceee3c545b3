//! sled, opened with explicit bounds; batches made durable; large values cut
//! into chunks; checksums on what is read.
//!
//! On Linux sled's flush is `sync_file_range`, which syncs neither metadata nor
//! the drive's cache, so `fdatasync` follows on a descriptor of its own. All in
//! all that is four writes one after the other for each commit, so small batches
//! are made durable in the [`journal`], and sled is flushed when that is full.
//!
//! Values above about 128 KB become files that sled never syncs, so no value
//! exceeds [`CHUNK_BYTES_MAX`].

use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use protocol::{
    change::{ChangeSet, SignedHeader},
    hash::Purpose,
    tree::FoundPage,
};

use super::{
    Options, StoreError,
    journal::{self, Journal, Write},
    keys,
};

/// Largest value that sled gets. Larger ones are cut.
pub const CHUNK_BYTES_MAX: usize = 60 * 1024;
/// The newest format of the database that this program writes and knows.
///
/// 3: batches are numbered, and some are only in the journal, which an older
/// program would not replay.
const FORMAT_VERSION: u32 = 3;
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
    tree: sled::Tree,
    // Closed after the tree; its lock keeps other processes out.
    db: sled::Db,
    data: File,
    /// Held while a batch is applied, so that numbers are in the order of sled's
    /// batches.
    journal: Mutex<Journal>,
    path: PathBuf,
    reserve_mb: u64,
    /// Held for writing while a batch is applied. sled keeps batches out of
    /// each single read, but a page may take several: one for each chunk.
    gate: RwLock<()>,
    /// Lets a test see what happens when sled reports an error.
    #[cfg(test)]
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
        let tree = db.open_tree("creditsync")?;
        let data = File::open(database.join("db")).map_err(file_error)?;
        check_format(&tree)?;
        let last = replay(&tree, &journal::read(path)?)?;
        // Numbers of this opening are above all of an earlier one, and durable
        // before the first of them is given.
        let first = journal::next_opening(last)?;
        let mut opening = Batch::default();
        opening.put(keys::FORMAT.to_vec(), FORMAT_VERSION.to_be_bytes().to_vec());
        tree.apply_batch(opening.numbered(first))?;
        db.flush()?;
        data.sync_data().map_err(file_error)?;
        let journal = Mutex::new(Journal::open(path, first)?);
        // The files' own names have to survive a power cut, too.
        for directory in [&database, path] {
            File::open(directory).and_then(|open| open.sync_all()).map_err(file_error)?;
        }
        Ok(Self {
            tree,
            db,
            data,
            journal,
            path: path.to_owned(),
            reserve_mb,
            gate: RwLock::new(()),
            #[cfg(test)]
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
        let needed_mb = self.reserve_mb + 3 * bytes as u64 / MIB;
        if free_mb < needed_mb {
            return Err(StoreError::DiskFull { path: self.path.clone(), free_mb, needed_mb });
        }
        Ok(())
    }

    /// Applies a batch atomically; it is durable after [`Disk::make_durable`].
    /// Behind an error nobody knows what of it took place.
    pub fn apply(&self, batch: Batch) -> Result<(), StoreError> {
        #[cfg(test)]
        fail_if(&self.broken.apply)?;
        if batch.writes.is_empty() {
            return Ok(());
        }
        self.bytes_written.fetch_add(batch.bytes as u64, Ordering::Relaxed);
        let mut journal = self.journal();
        let number = journal.note(&batch.writes);
        let _alone = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        self.tree.apply_batch(batch.numbered(number)).map_err(|error| {
            journal.leave_out();
            error.into()
        })
    }

    fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps batches out while something is read in several steps.
    fn between_batches(&self) -> RwLockReadGuard<'_, ()> {
        self.gate.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until everything applied is on the disk: in the journal, or else in
    /// sled.
    pub fn make_durable(&self) -> Result<(), StoreError> {
        #[cfg(test)]
        fail_if(&self.broken.sync)?;
        let mut journal = self.journal();
        if journal.is_incomplete() {
            return self.flush_sled(&mut journal);
        }
        if journal.is_idle() {
            return Ok(());
        }
        #[cfg(test)]
        fail_if(&self.broken.journal).inspect_err(|_| journal.leave_out())?;
        let bytes = journal.write()?;
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.bytes_written.fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Waits until everything applied is on the disk in sled, so that the
    /// journal begins anew and the next start has nothing to replay.
    pub fn checkpoint(&self) -> Result<(), StoreError> {
        #[cfg(test)]
        fail_if(&self.broken.sync)?;
        self.flush_sled(&mut self.journal())
    }

    /// Whether the journal is so full that an idle moment is well used for a
    /// checkpoint.
    pub fn wants_checkpoint(&self) -> bool {
        self.journal().is_nearly_full()
    }

    /// What sled does by itself with all but the last batch.
    #[cfg(test)]
    pub fn flush_sled_alone(&self) -> Result<(), StoreError> {
        self.db.flush()?;
        Ok(())
    }

    fn flush_sled(&self, journal: &mut Journal) -> Result<(), StoreError> {
        self.db.flush()?;
        self.data.sync_data().map_err(|error| StoreError::Database(error.to_string()))?;
        self.syncs.fetch_add(1, Ordering::Relaxed);
        journal.restart();
        Ok(())
    }

    /// A small value.
    pub fn get(&self, key: &[u8]) -> Result<Option<sled::IVec>, StoreError> {
        Ok(self.tree.get(key)?)
    }

    /// Small values whose keys begin with `prefix`: what follows the prefix,
    /// and the value.
    pub fn scan(
        &self,
        prefix: &[u8],
    ) -> impl Iterator<Item = Result<(Vec<u8>, sled::IVec), StoreError>> {
        let skip = prefix.len();
        self.tree.scan_prefix(prefix).map(move |item| {
            let (key, value) = item?;
            Ok((key[skip..].to_vec(), value))
        })
    }

    /// The whole of a chunked value, its checksum compared.
    pub fn get_chunked(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let _still = self.between_batches();
        self.tree.get(key)?.map(|first| self.assemble(key, &first)).transpose()
    }

    /// The last chunked value whose key is at most `key`, or else the first
    /// one, among keys that begin with `prefix`.
    pub fn seek(&self, prefix: &[u8], key: &[u8]) -> Result<Option<FoundPage>, StoreError> {
        let _still = self.between_batches();
        self.at_or_first(prefix, key)
    }

    fn at_or_first(&self, prefix: &[u8], key: &[u8]) -> Result<Option<FoundPage>, StoreError> {
        match self.tree.range(prefix..=key).next_back() {
            Some(item) => self.found(Some(item), prefix),
            None => self.found(self.tree.range(prefix..).next(), prefix),
        }
    }

    /// As [`Disk::seek`], with the value under the same key behind `beside`.
    pub fn seek_with(
        &self,
        prefix: &[u8],
        key: &[u8],
        beside: &[u8],
    ) -> Result<Option<FoundPair>, StoreError> {
        let _still = self.between_batches();
        let found = self.at_or_first(prefix, key)?;
        self.with_beside(found, prefix, beside)
    }

    /// The value under `prefix` and `key`, with the one behind `beside`.
    pub fn get_with(
        &self,
        prefix: &[u8],
        key: &[u8],
        beside: &[u8],
    ) -> Result<Option<FoundPair>, StoreError> {
        let key = [prefix, key].concat();
        let _still = self.between_batches();
        let value = self.tree.get(&key)?.map(|first| self.assemble(&key, &first)).transpose()?;
        self.with_beside(value.map(|value| (key, value)), prefix, beside)
    }

    /// As [`Disk::last_at_or_before`], with the value under the same key behind
    /// `beside`.
    pub fn last_with(
        &self,
        prefix: &[u8],
        key: &[u8],
        beside: &[u8],
    ) -> Result<Option<FoundPair>, StoreError> {
        let _still = self.between_batches();
        let found = self.found(self.tree.range(prefix..=key).next_back(), prefix)?;
        self.with_beside(found, prefix, beside)
    }

    fn with_beside(
        &self,
        found: Option<FoundPage>,
        prefix: &[u8],
        beside: &[u8],
    ) -> Result<Option<FoundPair>, StoreError> {
        let Some((key, value)) = found else {
            return Ok(None);
        };
        let other = [beside, &key[prefix.len()..]].concat();
        let other =
            self.tree.get(&other)?.map(|first| self.assemble(&other, &first)).transpose()?;
        Ok(Some((key, value, other)))
    }

    /// The last chunked value whose key is at most `key`, among keys that begin
    /// with `prefix`.
    pub fn last_at_or_before(
        &self,
        prefix: &[u8],
        key: &[u8],
    ) -> Result<Option<FoundPage>, StoreError> {
        let _still = self.between_batches();
        self.found(self.tree.range(prefix..=key).next_back(), prefix)
    }

    /// The first chunked value whose key is at least `key`, among keys that
    /// begin with `prefix`.
    pub fn first_at_or_behind(
        &self,
        prefix: &[u8],
        key: &[u8],
    ) -> Result<Option<FoundPage>, StoreError> {
        let _still = self.between_batches();
        self.found(self.tree.range(key..).next(), prefix)
    }

    /// The first key behind `key` that begins with `prefix`.
    pub fn key_behind(&self, prefix: &[u8], key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        use std::ops::Bound::{Excluded, Unbounded};
        let _still = self.between_batches();
        match self.tree.range::<&[u8], _>((Excluded(key), Unbounded)).next() {
            Some(item) => {
                let (key, _) = item?;
                Ok(key.starts_with(prefix).then(|| key.to_vec()))
            }
            None => Ok(None),
        }
    }

    /// The first key that begins with `prefix`.
    pub fn first_key(&self, prefix: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let _still = self.between_batches();
        Ok(self.tree.scan_prefix(prefix).keys().next().transpose()?.map(|key| key.to_vec()))
    }

    /// The last key before `key` that begins with `prefix`.
    pub fn key_before(&self, prefix: &[u8], key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let _still = self.between_batches();
        match self.tree.range(prefix..key).next_back() {
            Some(item) => Ok(Some(item?.0.to_vec())),
            None => Ok(None),
        }
    }

    fn found(
        &self,
        item: Option<sled::Result<(sled::IVec, sled::IVec)>>,
        prefix: &[u8],
    ) -> Result<Option<FoundPage>, StoreError> {
        let Some(item) = item else {
            return Ok(None);
        };
        let (key, first) = item?;
        if !key.starts_with(prefix) {
            return Ok(None);
        }
        let value = self.assemble(&key, &first)?;
        Ok(Some((key.to_vec(), value)))
    }

    /// Puts a chunked value together and compares its checksum.
    fn assemble(&self, key: &[u8], first: &[u8]) -> Result<Vec<u8>, StoreError> {
        let damaged = |problem: &str| {
            let place = format!("key {}", hex(&key[..key.len().min(24)]));
            StoreError::Damaged { place, problem: problem.into() }
        };
        let (envelope, piece) = first
            .split_first_chunk::<ENVELOPE_BYTES>()
            .ok_or_else(|| damaged("it is shorter than its envelope"))?;
        let mut value = piece.to_vec();
        for index in 1..chunks_of(first) {
            let piece = self.tree.get(keys::chunk(key, index))?;
            value.extend_from_slice(&piece.ok_or_else(|| damaged("a part of it is missing"))?);
        }
        if checksum(&value) != envelope[2..] {
            return Err(damaged("its checksum does not fit"));
        }
        Ok(value)
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
        for item in self.tree.scan_prefix(prefix).take(count) {
            let (key, first) = item?;
            let chunks = if keys::is_chunked(prefix) { chunks_of(&first) } else { 1 };
            batch.remove_chunked(&key, chunks);
            deleted += 1;
        }
        self.apply(batch)?;
        Ok(deleted == count)
    }

    /// How many chunks the value under `key` has; zero if there is none.
    pub fn chunks(&self, key: &[u8]) -> Result<u16, StoreError> {
        Ok(self.tree.get(key)?.map_or(0, |first| chunks_of(&first)))
    }
}

/// A chunked value's key, itself, and the one beside it.
pub type FoundPair = (Vec<u8>, Vec<u8>, Option<Vec<u8>>);

/// What a test makes fail.
#[cfg(test)]
#[derive(Default)]
pub struct Broken {
    pub apply: std::sync::atomic::AtomicBool,
    pub sync: std::sync::atomic::AtomicBool,
    /// The journal alone.
    pub journal: std::sync::atomic::AtomicBool,
}

#[cfg(test)]
fn fail_if(broken: &std::sync::atomic::AtomicBool) -> Result<(), StoreError> {
    if broken.load(Ordering::Relaxed) {
        return Err(StoreError::Database("broken by a test".into()));
    }
    Ok(())
}

fn check_format(tree: &sled::Tree) -> Result<(), StoreError> {
    let Some(bytes) = tree.get(keys::FORMAT)? else {
        return Ok(());
    };
    match bytes.as_ref().try_into().map(u32::from_be_bytes).unwrap_or(u32::MAX) {
        FORMAT_VERSION => Ok(()),
        found => Err(StoreError::Format { found, known: FORMAT_VERSION }),
    }
}

/// Applies what the journal holds and sled does not, and answers the number of
/// the last batch. It may be interrupted anywhere: the journal stays as it is.
fn replay(tree: &sled::Tree, content: &[u8]) -> Result<u64, StoreError> {
    let applied = match tree.get(keys::APPLIED)? {
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
        let batch = Batch { writes: journal::decode(body)?, bytes: 0 };
        tree.apply_batch(batch.numbered(number))?;
        last = number;
    }
    if last > applied {
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

/// In front of a chunked value: its number of chunks and 8 bytes of checksum.
const ENVELOPE_BYTES: usize = 2 + 8;

fn chunks_of(first: &[u8]) -> u16 {
    first.first_chunk::<2>().map_or(1, |bytes| u16::from_be_bytes(*bytes))
}

fn checksum(value: &[u8]) -> [u8; 8] {
    let hash = Purpose::Checksum.hash(&[value]);
    std::array::from_fn(|index| hash.0[index])
}

fn total_mb(path: &Path) -> Result<u64, StoreError> {
    let stat = rustix::fs::statvfs(path)
        .map_err(|error| StoreError::File { path: path.to_owned(), problem: error.to_string() })?;
    Ok(stat.f_blocks.saturating_mul(stat.f_frsize) / MIB)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes that happen together or not at all.
#[derive(Default)]
pub struct Batch {
    writes: Vec<Write>,
    bytes: usize,
}

impl Batch {
    /// Writes a small value.
    pub fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        debug_assert!(value.len() <= CHUNK_BYTES_MAX + ENVELOPE_BYTES);
        self.bytes += key.len() + value.len();
        self.writes.push((key, Some(value)));
    }

    /// Deletes a small value.
    pub fn remove(&mut self, key: Vec<u8>) {
        self.writes.push((key, None));
    }

    /// Writes a value of any size in chunks. `before` is how many chunks the
    /// value has now, so that no stale one stays.
    pub fn put_chunked(&mut self, key: &[u8], value: &[u8], before: u16) {
        let mut pieces = value.chunks(CHUNK_BYTES_MAX);
        let count = value.len().div_ceil(CHUNK_BYTES_MAX).max(1) as u16;
        let first = pieces.next().unwrap_or_default();
        let mut head = Vec::with_capacity(ENVELOPE_BYTES + first.len());
        head.extend_from_slice(&count.to_be_bytes());
        head.extend_from_slice(&checksum(value));
        head.extend_from_slice(first);
        self.put(key.to_vec(), head);
        for (index, piece) in (1u16..).zip(pieces) {
            self.put(keys::chunk(key, index), piece.to_vec());
        }
        for index in count..before {
            self.remove(keys::chunk(key, index));
        }
    }

    /// Deletes a chunked value that has `chunks` chunks.
    pub fn remove_chunked(&mut self, key: &[u8], chunks: u16) {
        self.remove(key.to_vec());
        for index in 1..chunks {
            self.remove(keys::chunk(key, index));
        }
    }

    /// Bytes written by this batch.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The batch as sled gets it, with its number. Of two writes under one key
    /// the later one counts.
    fn numbered(self, number: u64) -> sled::Batch {
        let mut batch = sled::Batch::default();
        for (key, value) in self.writes {
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        batch.insert(keys::APPLIED, &number.to_be_bytes());
        batch
    }
}
