//! The last full file, recalled row by row.
//!
//! Counties deliver their whole register again and again, and nearly all of its
//! rows are, byte for byte, what they were. So of a full file that went in, and
//! of a first one, a hash of each row and the row's key are kept in a side file.
//! The next full file's rows are looked up there first: only those that are new
//! are decoded, checked and compared, and only records whose rows did not come
//! again can be gone.
//!
//! `delivered` uses it instead of reading a file as a whole. Invariants: what
//! is recalled is used only for the very head that it left behind, and for a
//! file that is read by the same rules ([`rules`]), so that both ways come to
//! the same records and the same report; rows that had to be told of are told of
//! again; whatever is doubtful is left to the other way. The side file is a
//! cache: it may be deleted at any time, and a damaged one is not used.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, BufRead as _, BufReader, BufWriter, Read, Write},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use protocol::{
    change::Position,
    hash::{Hash, Purpose, Running},
    record::KEY_BYTES_MAX,
    schema::Schema,
};

use super::{
    decode::{CsvFile, RowBatch},
    spool::{Sorted, SpoolError},
};

const MAGIC: [u8; 8] = *b"csrows/1";
const HEAD_BYTES: usize = 8 + 32 + 8 + 32 + 8;
const HASH_BYTES: usize = 16;
/// The checksum at the end.
const SUM_BYTES: u64 = 32;
/// New rows up to which recalling pays: a part of so many …
const FRESH_PART: usize = 16;
/// … or so many, whatever the file has.
const FRESH_LEAST: usize = 1024;
/// Bytes of new rows that are held at once.
const FRESH_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Read and write buffer.
const BUFFER_BYTES: usize = 256 * 1024;
/// Hashes are found by as many of their first bits.
const BUCKET_BITS: u32 = 16;

/// What identifies a row: its bytes as they lie in the file. The lowest bit says
/// whether anything had to be told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RowHash(u128);

impl RowHash {
    pub fn of(body: &[u8]) -> Self {
        let hash = Purpose::Row.hash(&[body]);
        let mut front = [0; HASH_BYTES];
        front.copy_from_slice(&hash.as_bytes()[..HASH_BYTES]);
        Self(u128::from_be_bytes(front) & !1)
    }

    pub fn noted(self, noted: bool) -> Self {
        Self(self.0 & !1 | u128::from(noted))
    }

    pub fn to_bytes(self) -> [u8; HASH_BYTES] {
        self.0.to_be_bytes()
    }

    fn bucket(self) -> usize {
        (self.0 >> (128 - BUCKET_BITS)) as usize
    }
}

/// Everything but its bytes that decides what a row is: the rules under which it
/// is split, read and checked.
pub(super) fn rules(file: &CsvFile, schema: &Schema) -> Hash {
    let mut text = Vec::new();
    let version = schema.version().to_string();
    let fixed = [
        env!("CARGO_PKG_VERSION"),
        schema.dataset().as_str(),
        version.as_str(),
        file.encoding_name(),
        match file.separator() {
            b'\t' => "tab",
            b';' => "semicolon",
            _ => "comma",
        },
    ];
    for part in fixed.into_iter().chain(file.header().iter().map(String::as_str)) {
        text.extend_from_slice(&(part.len() as u64).to_be_bytes());
        text.extend_from_slice(part.as_bytes());
    }
    Purpose::Row.hash(&[&text])
}

/// Whether the side file, if there is one, is of the file that led to `head`.
pub(super) fn is_of(path: &Path, head: Position) -> bool {
    Entries::open(path).is_ok_and(|entries| entries.head == head)
}

/// Removes the side file, and what an interrupted writer left of one.
pub(super) fn remove(path: &Path) {
    for path in [path.to_owned(), next_of(path)] {
        // It may not be there.
        let _ = fs::remove_file(path);
    }
}

/// Where a side file is written.
fn next_of(path: &Path) -> PathBuf {
    path.with_extension("next")
}

/// A full file that is recalled.
#[derive(Debug)]
pub(super) struct Recall {
    path: PathBuf,
    head: Position,
    hashes: Vec<RowHash>,
    /// Where the hashes of each bucket begin, and where the last one ends.
    buckets: Vec<u32>,
    /// A bit for each hash whose row has come again.
    seen: Vec<AtomicU64>,
}

/// What is left of some rows after those that are recalled.
pub(super) struct Looked {
    pub rows: u64,
    /// Rows that are new, or that have to be told of.
    fresh: RowBatch,
    /// One of them is malformed, or comes twice.
    odd: bool,
}

impl Recall {
    /// What is recalled of the file that led to `head`, if it can be used: for
    /// the same rules, and within so many bytes of memory.
    pub fn load(path: &Path, head: Position, rules: Hash, memory_bytes: usize) -> Option<Self> {
        match Self::read(path, head, rules, memory_bytes) {
            Ok(recall) => recall,
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::debug!(path = %path.display(), %error, "the last full file is not recalled");
                None
            }
        }
    }

    fn read(
        path: &Path,
        head: Position,
        rules: Hash,
        memory_bytes: usize,
    ) -> io::Result<Option<Self>> {
        let mut entries = Entries::open(path)?;
        if (entries.head, entries.rules) != (head, rules)
            || entries.count.saturating_mul(HASH_BYTES as u64) > memory_bytes as u64
        {
            return Ok(None);
        }
        let mut hashes: Vec<RowHash> = Vec::new();
        while let Some((hash, _)) = entries.next()? {
            if hashes.last().is_some_and(|last| *last >= hash) {
                return Err(damaged());
            }
            hashes.push(hash);
        }
        let mut buckets = vec![0; (1 << BUCKET_BITS) + 1];
        for hash in &hashes {
            buckets[hash.bucket() + 1] += 1;
        }
        for bucket in 0..1 << BUCKET_BITS {
            buckets[bucket + 1] += buckets[bucket];
        }
        let seen = (0..hashes.len().div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Ok(Some(Self { path: path.to_owned(), head, hashes, buckets, seen }))
    }

    /// The head that the file led to.
    pub fn head(&self) -> Position {
        self.head
    }

    /// Notes which rows have come again, and sets the others apart.
    pub fn look(&self, batch: RowBatch) -> Looked {
        let mut odd = false;
        let mut fresh = Vec::with_capacity(batch.len());
        for body in batch.bodies() {
            fresh.push(match body.map(|body| (body, self.find(RowHash::of(body)))) {
                // Whether it would be rejected again is not known.
                None => {
                    odd = true;
                    true
                }
                Some((body, None)) => {
                    // A file with a zero in it may be no text at all.
                    odd |= body.contains(&0);
                    true
                }
                Some((_, Some(index))) => {
                    let bit = 1 << (index % 64);
                    odd |= self.seen[index / 64].fetch_or(bit, Ordering::Relaxed) & bit != 0;
                    self.is_noted(index)
                }
            });
        }
        Looked { rows: batch.len() as u64, fresh: batch.sifted(|index| fresh[index]), odd }
    }

    /// Before any row was looked at.
    pub fn none_fresh(&self) -> Fresh {
        Fresh { batches: Vec::new(), rows_max: self.rows_max(), rows: 0, bytes: 0 }
    }

    /// Rows beyond which it does not pay.
    fn rows_max(&self) -> usize {
        (self.hashes.len() / FRESH_PART).max(FRESH_LEAST)
    }

    fn find(&self, hash: RowHash) -> Option<usize> {
        let from = self.buckets[hash.bucket()] as usize;
        let to = self.buckets[hash.bucket() + 1] as usize;
        let found = self.hashes[from..to].iter().position(|known| known.noted(false) == hash)?;
        Some(from + found)
    }

    fn is_noted(&self, index: usize) -> bool {
        self.hashes[index].0 & 1 == 1
    }

    /// Whether the row counts as come again, without being told of.
    fn is_settled(&self, index: usize) -> bool {
        let seen = self.seen[index / 64].load(Ordering::Relaxed) & 1 << (index % 64) != 0;
        seen && !self.is_noted(index)
    }

    /// How many rows need no second look.
    pub fn settled(&self) -> u64 {
        (0..self.hashes.len()).filter(|index| self.is_settled(*index)).count() as u64
    }

    /// The keys of all others, in their order: of rows that did not come again
    /// and of those that are told of again. None if they are many, or the side
    /// file is another one now.
    pub fn open_keys(&self) -> Option<Vec<Vec<u8>>> {
        let count = self.hashes.len() - self.settled() as usize;
        if count == 0 || count > self.rows_max() {
            return (count == 0).then(Vec::new);
        }
        let mut keys = Vec::new();
        let walked = self.each(|index, _, key| {
            if !self.is_settled(index) {
                keys.push(key.to_vec());
            }
            Ok(())
        });
        keys.sort_unstable();
        walked.is_ok().then_some(keys)
    }

    /// Calls `visit` with each row.
    fn each(
        &self,
        mut visit: impl FnMut(usize, RowHash, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut entries = Entries::open(&self.path)?;
        for (index, expected) in self.hashes.iter().enumerate() {
            match entries.next()? {
                Some((hash, key)) if hash == *expected => visit(index, hash, key)?,
                _ => return Err(damaged()),
            }
        }
        Ok(())
    }

    /// Writes down what the file that is in now has: the rows that are settled,
    /// and the others of it.
    pub fn renew(&self, head: Position, rules: Hash, mut others: Vec<Other>) -> io::Result<()> {
        others.sort_unstable();
        let open = (0..self.hashes.len()).filter(|index| !self.is_settled(*index));
        let same = open.map(|index| self.hashes[index]).eq(others.iter().map(|other| other.0));
        if same && head == self.head {
            return Ok(());
        }
        let mut others = others.into_iter().peekable();
        let count = self.settled() + others.len() as u64;
        let mut out = EntriesWriter::create(&self.path, head, rules, count)?;
        self.each(|index, hash, key| {
            if !self.is_settled(index) {
                return Ok(());
            }
            while let Some((hash, key)) = others.next_if(|other| other.0 < hash) {
                out.put(hash, &key)?;
            }
            out.put(hash, key)
        })?;
        others.try_for_each(|(hash, key)| out.put(hash, &key))?;
        out.finish()
    }
}

/// A row that is not settled, and its key.
pub(super) type Other = (RowHash, Vec<u8>);

/// A row as it was noted: its hash's bytes, and its key.
pub(super) fn other(hash: &[u8], key: Option<&[u8]>) -> Option<Other> {
    let hash = hash.try_into().map(u128::from_be_bytes).ok()?;
    Some((RowHash(hash), key?.to_vec()))
}

/// Writes down the rows of a full file that was read as a whole, which led to
/// `head`. They are sorted by their hashes, with their keys in place of records.
pub(super) fn note(
    path: &Path,
    head: Position,
    rules: Hash,
    mut rows: Sorted,
    count: u64,
) -> Result<(), SpoolError> {
    let fault = |error| super::spool::fault(path, error);
    let mut out = EntriesWriter::create(path, head, rules, count).map_err(fault)?;
    while let Some(row) = rows.next()? {
        let (hash, key) = other(&row.key, row.record.as_deref()).ok_or_else(|| fault(damaged()))?;
        out.put(hash, &key).map_err(fault)?;
    }
    out.finish().map_err(fault)
}

/// New rows, as long as they are few.
pub(super) struct Fresh {
    pub batches: Vec<RowBatch>,
    rows_max: usize,
    rows: usize,
    bytes: usize,
}

impl Fresh {
    /// Takes what is left of some rows; answers whether recalling still pays.
    pub fn take(&mut self, looked: Looked) -> bool {
        self.rows += looked.fresh.len();
        self.bytes += looked.fresh.bytes();
        if !looked.fresh.is_empty() {
            self.batches.push(looked.fresh);
        }
        !looked.odd && self.rows <= self.rows_max && self.bytes <= FRESH_BYTES_MAX
    }
}

/// The entries of a side file, from the front to the end.
struct Entries {
    input: BufReader<Summing<io::Take<File>>>,
    head: Position,
    rules: Hash,
    count: u64,
    left: u64,
    key: Vec<u8>,
}

impl Entries {
    fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let summed = file.metadata()?.len().saturating_sub(SUM_BYTES);
        let mut input = BufReader::with_capacity(BUFFER_BYTES, Summing::new(file.take(summed)));
        let mut front = [0; HEAD_BYTES];
        input.read_exact(&mut front)?;
        let (magic, rest) = front.split_at(MAGIC.len());
        let (rules, rest) = rest.split_at(32);
        let (seq, rest) = rest.split_at(8);
        let (hash, count) = rest.split_at(32);
        let number = |bytes: &[u8]| bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        let array = |bytes: &[u8]| Hash(std::array::from_fn(|index| bytes[index]));
        if magic != MAGIC {
            return Err(damaged());
        }
        let (head, count) = (Position { seq: number(seq), hash: array(hash) }, number(count));
        Ok(Self { input, head, rules: array(rules), count, left: count, key: Vec::new() })
    }

    /// The next row and its key; at the end the checksum is compared.
    fn next(&mut self) -> io::Result<Option<(RowHash, &[u8])>> {
        if self.left == 0 {
            if !self.input.fill_buf()?.is_empty() {
                return Err(damaged());
            }
            let Summing { inner, sum } = self.input.get_mut();
            let mut found = [0; SUM_BYTES as usize];
            inner.get_mut().read_exact(&mut found)?;
            return if sum.finish() == Hash(found) { Ok(None) } else { Err(damaged()) };
        }
        self.left -= 1;
        let mut front = [0; HASH_BYTES + 2];
        self.input.read_exact(&mut front)?;
        let (hash, length) = front.split_at(HASH_BYTES);
        let length = usize::from(length[0]) << 8 | usize::from(length[1]);
        if length > KEY_BYTES_MAX {
            return Err(damaged());
        }
        self.key.resize(length, 0);
        self.input.read_exact(&mut self.key)?;
        let hash = hash.iter().fold(0, |sum, byte| sum << 8 | u128::from(*byte));
        Ok(Some((RowHash(hash), &self.key)))
    }
}

/// Writes a side file, which takes the place of the one before at the end.
struct EntriesWriter {
    path: PathBuf,
    next: PathBuf,
    out: BufWriter<Summing<File>>,
}

impl EntriesWriter {
    fn create(path: &Path, head: Position, rules: Hash, count: u64) -> io::Result<Self> {
        let next = next_of(path);
        if let Some(dir) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        }
        let file =
            File::options().write(true).create(true).truncate(true).mode(0o600).open(&next)?;
        let out = BufWriter::with_capacity(BUFFER_BYTES, Summing::new(file));
        let mut writer = Self { path: path.to_owned(), next, out };
        writer.out.write_all(&MAGIC)?;
        writer.out.write_all(rules.as_bytes())?;
        writer.out.write_all(&head.seq.to_be_bytes())?;
        writer.out.write_all(head.hash.as_bytes())?;
        writer.out.write_all(&count.to_be_bytes())?;
        Ok(writer)
    }

    fn put(&mut self, hash: RowHash, key: &[u8]) -> io::Result<()> {
        self.out.write_all(&hash.to_bytes())?;
        self.out.write_all(&(key.len() as u16).to_be_bytes())?;
        self.out.write_all(key)
    }

    fn finish(self) -> io::Result<()> {
        let Summing { mut inner, sum } =
            self.out.into_inner().map_err(io::IntoInnerError::into_error)?;
        inner.write_all(sum.finish().as_bytes())?;
        // A power cut may leave half of it, which the checksum tells.
        fs::rename(&self.next, &self.path)
    }
}

/// A file, with the checksum of what is read from it or written to it, buffer by
/// buffer.
struct Summing<F> {
    inner: F,
    sum: Running,
}

impl<F> Summing<F> {
    fn new(inner: F) -> Self {
        Self { inner, sum: Purpose::Checksum.running() }
    }
}

impl<F: Read> Read for Summing<F> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(into)?;
        self.sum.update(&into[..count]);
        Ok(count)
    }
}

impl<F: Write> Write for Summing<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.sum.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "what is recalled of the last full file is damaged")
}
