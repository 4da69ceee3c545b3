//! Sorts a delivery by key, with bounded memory.
//!
//! Used by the importer, so that each change set touches one stretch of the
//! state tree. Rows are collected in one flat buffer; when it is full it is
//! sorted and written as a *run* to a temporary file, and the runs are merged
//! while they are read back.
//!
//! Invariants: the output is the same whatever the memory; of the accepted rows
//! of a key the one with the highest place wins; temporary files have no name
//! from the moment they are made, so that a crash leaves nothing behind. Not
//! here: comparing rows with the store.

use std::{
    cmp::Ordering,
    collections::{BinaryHeap, binary_heap::PeekMut},
    fs::File,
    io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use protocol::record::{KEY_BYTES_MAX, RECORD_BYTES_MAX};

use super::{rows::Place, temporary::TemporaryFiles};

/// Runs merged at once: bounds open files and read buffers. At 64 MiB a run,
/// one pass sorts 16 GiB.
const MERGE_MAX: usize = 256;
/// Duplicates that are named one by one.
pub const DUPLICATES_NAMED_MAX: usize = 16;
/// Largest buffer: positions in it have 32 bits.
const MEMORY_BYTES_MAX: usize = u32::MAX as usize;
/// Read and write buffer of a run.
const RUN_BUFFER_BYTES: usize = 64 * 1024;
/// Key length, record length and place in front of every entry.
const HEAD_BYTES: usize = 14;
/// The record length of a rejected row.
const NO_RECORD: u32 = u32::MAX;

/// Why a delivery could not be sorted.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// No room for temporary files.
    #[error(
        "磁盘空间不足，无法排序：请清理 {dir} 所在的磁盘后重试 / \
         the disk is full while sorting: make room on the disk of {dir} and try again"
    )]
    DiskFull {
        /// Where the temporary files lie.
        dir: String,
    },
    /// A key or record above the limits of the protocol; validation has let
    /// something through.
    #[error("the row at line {} is longer than a record may be", .place.line())]
    TooLong {
        /// The row's place.
        place: Place,
    },
    /// Any other failure of a temporary file.
    #[error("临时文件读写失败 / a temporary file in {dir} failed: {source}")]
    Io {
        /// Where the temporary files lie.
        dir: String,
        /// The operating system's answer.
        source: io::Error,
    },
}

/// Collects rows in any order.
#[derive(Debug)]
pub struct Sorter {
    files: TemporaryFiles,
    memory_bytes: usize,
    buffer: Buffer,
    /// By level: a run of level n+1 is made of [`MERGE_MAX`] runs of level n,
    /// so no byte is written more often than there are levels.
    levels: Vec<Vec<File>>,
}

impl Sorter {
    /// A sorter that holds about `memory_bytes` and writes the rest to `files`.
    pub fn new(files: &TemporaryFiles, memory_bytes: usize) -> Self {
        Self {
            files: files.clone(),
            memory_bytes: memory_bytes.min(MEMORY_BYTES_MAX),
            buffer: Buffer::default(),
            levels: Vec::new(),
        }
    }

    /// Adds rows.
    pub fn append(&mut self, rows: &Buffer) -> Result<(), SpoolError> {
        for entry in &rows.entries {
            let whole = rows.whole(entry);
            let more = whole.len() + size_of::<Entry>();
            if !self.buffer.entries.is_empty()
                && self.buffer.bytes_held() + more > self.memory_bytes
            {
                self.spill().map_err(|source| fault(self.files.dir(), source))?;
            }
            self.buffer.push_whole(*entry, whole);
        }
        Ok(())
    }

    /// Sorts what was added.
    pub fn finish(self) -> Result<Sorted, SpoolError> {
        let files = self.files.clone();
        self.build().map_err(|source| fault(files.dir(), source))
    }

    fn build(mut self) -> io::Result<Sorted> {
        let source = if self.levels.is_empty() {
            self.buffer.sort();
            Rows::Memory { buffer: self.buffer, next: 0 }
        } else {
            if !self.buffer.entries.is_empty() {
                self.spill()?;
            }
            self.buffer = Buffer::default();
            // Small runs first, so that little is written again.
            let mut runs: Vec<File> = self.levels.drain(..).flatten().collect();
            while runs.len() > MERGE_MAX {
                let some = runs.drain(..MERGE_MAX).collect();
                runs.push(merge_to_run(&self.files, some)?);
            }
            Rows::Merge(Merge::new(runs)?)
        };
        Ok(Sorted { dir: self.files.dir().to_owned(), source, ahead: None, started: false })
    }

    fn spill(&mut self) -> io::Result<()> {
        self.buffer.sort();
        let mut out = BufWriter::with_capacity(RUN_BUFFER_BYTES, self.files.file()?);
        for entry in &self.buffer.entries {
            out.write_all(self.buffer.whole(entry))?;
        }
        self.buffer.clear();
        let mut run = out.into_inner().map_err(io::IntoInnerError::into_error)?.into_inner();
        for level in 0.. {
            if self.levels.len() == level {
                self.levels.push(Vec::new());
            }
            self.levels[level].push(run);
            if self.levels[level].len() < MERGE_MAX {
                break;
            }
            run = merge_to_run(&self.files, std::mem::take(&mut self.levels[level]))?;
        }
        Ok(())
    }
}

/// A key's outcome: one row, and what is known about the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SortedRow {
    /// The encoded key.
    pub key: Vec<u8>,
    /// The last accepted row, or none if every row of this key was rejected.
    pub record: Option<Vec<u8>>,
    /// The place of that row, or of the last rejected one.
    pub place: Place,
    /// Places of the earlier accepted rows, the first
    /// [`DUPLICATES_NAMED_MAX`] of them.
    pub duplicates: Vec<Place>,
    /// How many earlier accepted rows there are.
    pub duplicate_count: u64,
    /// Whether one of them differs from the last.
    pub differing: bool,
    /// Whether there are others of this key, accepted or rejected.
    pub repeated: bool,
}

/// The rows in key order, one for each key.
#[derive(Debug)]
pub struct Sorted {
    dir: PathBuf,
    source: Rows,
    ahead: Option<RawRow>,
    started: bool,
}

impl Sorted {
    /// The next key's row, or none at the end.
    #[expect(clippy::should_implement_trait, reason = "reading can fail, and ends at a failure")]
    pub fn next(&mut self) -> Result<Option<SortedRow>, SpoolError> {
        self.read().map_err(|source| fault(&self.dir, source))
    }

    fn read(&mut self) -> io::Result<Option<SortedRow>> {
        if !self.started {
            self.started = true;
            self.ahead = self.source.next()?;
        }
        let Some(first) = self.ahead.take() else {
            return Ok(None);
        };
        let mut row = SortedRow {
            key: first.key,
            record: first.record,
            place: first.place,
            duplicates: Vec::new(),
            duplicate_count: 0,
            differing: false,
            repeated: false,
        };
        while let Some(next) = self.source.next()? {
            if next.key != row.key {
                self.ahead = Some(next);
                break;
            }
            row.repeated = true;
            match (&row.record, next.record) {
                (Some(earlier), Some(later)) => {
                    if row.duplicates.len() < DUPLICATES_NAMED_MAX {
                        row.duplicates.push(row.place);
                    }
                    row.duplicate_count += 1;
                    // Neighbours all equal means that all are equal.
                    row.differing |= *earlier != later;
                    (row.record, row.place) = (Some(later), next.place);
                }
                (None, later) => (row.record, row.place) = (later, next.place),
                (Some(_), None) => {}
            }
        }
        Ok(Some(row))
    }
}

/// A row as it was added.
#[derive(Debug)]
struct RawRow {
    key: Vec<u8>,
    place: Place,
    record: Option<Vec<u8>>,
}

#[derive(Debug)]
enum Rows {
    Memory { buffer: Buffer, next: usize },
    Merge(Merge),
}

impl Rows {
    fn next(&mut self) -> io::Result<Option<RawRow>> {
        match self {
            Rows::Merge(merge) => merge.next(),
            Rows::Memory { buffer, next } => {
                let row = buffer.entries.get(*next).map(|entry| {
                    let whole = buffer.whole(entry);
                    let (head, rest) = whole.split_at(HEAD_BYTES);
                    let (key_len, record_len, place) = parse_head(head);
                    let (key, record) = rest.split_at(key_len);
                    RawRow {
                        key: key.to_vec(),
                        place,
                        record: (record_len != NO_RECORD).then(|| record.to_vec()),
                    }
                });
                *next += 1;
                Ok(row)
            }
        }
    }
}

/// Rows one behind the other, each as it is written to a run, and an index.
#[derive(Debug, Default)]
pub struct Buffer {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

/// Where an entry lies, and the first sixteen bytes of its key: they decide
/// most comparisons without a look into the buffer.
#[derive(Debug, Clone, Copy)]
struct Entry {
    front: [u64; 2],
    at: u32,
    key_len: u16,
}

impl Buffer {
    fn bytes_held(&self) -> usize {
        self.bytes.len() + self.entries.len() * size_of::<Entry>()
    }

    /// Key, place and record of every row, in the order in which they came.
    pub fn rows(&self) -> impl Iterator<Item = (&[u8], Place, Option<&[u8]>)> {
        self.entries.iter().map(|entry| {
            let (head, rest) = self.whole(entry).split_at(HEAD_BYTES);
            let (key_len, record_len, place) = parse_head(head);
            let (key, record) = rest.split_at(key_len);
            (key, place, (record_len != NO_RECORD).then_some(record))
        })
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
    }

    /// Adds a row; without a record it is a rejected one whose key is known.
    pub fn push(
        &mut self,
        key: &[u8],
        place: Place,
        record: Option<&[u8]>,
    ) -> Result<(), SpoolError> {
        if key.len() > KEY_BYTES_MAX || record.is_some_and(|record| record.len() > RECORD_BYTES_MAX)
        {
            return Err(SpoolError::TooLong { place });
        }
        let mut front = [0; 16];
        let shared = key.len().min(16);
        front[..shared].copy_from_slice(&key[..shared]);
        let front = u128::from_be_bytes(front);
        self.entries.push(Entry {
            front: [(front >> 64) as u64, front as u64],
            at: self.bytes.len() as u32,
            key_len: key.len() as u16,
        });
        push_entry(&mut self.bytes, key, place, record);
        Ok(())
    }

    /// Adds another buffer's row.
    fn push_whole(&mut self, entry: Entry, whole: &[u8]) {
        self.entries.push(Entry { at: self.bytes.len() as u32, ..entry });
        self.bytes.extend_from_slice(whole);
    }

    fn key(&self, entry: &Entry) -> &[u8] {
        let start = entry.at as usize + HEAD_BYTES;
        &self.bytes[start..start + usize::from(entry.key_len)]
    }

    fn place(&self, entry: &Entry) -> Place {
        parse_head(&self.bytes[entry.at as usize..]).2
    }

    fn whole(&self, entry: &Entry) -> &[u8] {
        let bytes = &self.bytes[entry.at as usize..];
        let (key_len, record_len, _) = parse_head(bytes);
        &bytes[..HEAD_BYTES + key_len + stored_len(record_len)]
    }

    fn sort(&mut self) {
        let mut entries = std::mem::take(&mut self.entries);
        entries.sort_unstable_by(|a, b| {
            a.front
                .cmp(&b.front)
                .then_with(|| self.key(a).cmp(self.key(b)))
                .then_with(|| self.place(a).cmp(&self.place(b)))
        });
        self.entries = entries;
    }
}

fn push_entry(out: &mut Vec<u8>, key: &[u8], place: Place, record: Option<&[u8]>) {
    // Both lengths were checked against limits far below their types.
    out.extend_from_slice(&(key.len() as u16).to_le_bytes());
    let record_len = record.map_or(NO_RECORD, |record| record.len() as u32);
    out.extend_from_slice(&record_len.to_le_bytes());
    out.extend_from_slice(&place.to_bits().to_le_bytes());
    out.extend_from_slice(key);
    out.extend_from_slice(record.unwrap_or_default());
}

/// Key length, record length and place.
fn parse_head(head: &[u8]) -> (usize, u32, Place) {
    let mut place = [0; 8];
    place.copy_from_slice(&head[6..14]);
    (
        usize::from(u16::from_le_bytes([head[0], head[1]])),
        u32::from_le_bytes([head[2], head[3], head[4], head[5]]),
        Place::from_bits(u64::from_le_bytes(place)),
    )
}

fn stored_len(record_len: u32) -> usize {
    if record_len == NO_RECORD { 0 } else { record_len as usize }
}

/// Several runs as one.
#[derive(Debug)]
struct Merge {
    runs: Vec<BufReader<File>>,
    heap: BinaryHeap<Head>,
}

/// A run's next row; the least comes out of the heap first.
#[derive(Debug)]
struct Head {
    row: RawRow,
    run: usize,
}

impl Ord for Head {
    fn cmp(&self, other: &Self) -> Ordering {
        let order = |head: &Self| (head.row.place, head.run);
        other.row.key.cmp(&self.row.key).then_with(|| order(other).cmp(&order(self)))
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Head {}

impl Merge {
    fn new(files: Vec<File>) -> io::Result<Self> {
        let mut merge = Self { runs: Vec::with_capacity(files.len()), heap: BinaryHeap::new() };
        for (run, mut file) in files.into_iter().enumerate() {
            file.seek(SeekFrom::Start(0))?;
            merge.runs.push(BufReader::with_capacity(RUN_BUFFER_BYTES, file));
            merge.advance(run)?;
        }
        Ok(merge)
    }

    fn next(&mut self) -> io::Result<Option<RawRow>> {
        let Some(mut head) = self.heap.peek_mut() else {
            return Ok(None);
        };
        Ok(Some(match read_entry(&mut self.runs[head.run])? {
            // The run's next row takes the place of this one: one way down the heap
            // instead of one down and one up.
            Some(next) => std::mem::replace(&mut head.row, next),
            None => PeekMut::pop(head).row,
        }))
    }

    fn advance(&mut self, run: usize) -> io::Result<()> {
        if let Some(row) = read_entry(&mut self.runs[run])? {
            self.heap.push(Head { row, run });
        }
        Ok(())
    }
}

fn read_entry(input: &mut BufReader<File>) -> io::Result<Option<RawRow>> {
    use std::io::BufRead;
    if input.fill_buf()?.is_empty() {
        return Ok(None);
    }
    let mut head = [0; HEAD_BYTES];
    input.read_exact(&mut head)?;
    let (key_len, record_len, place) = parse_head(&head);
    if key_len > KEY_BYTES_MAX || stored_len(record_len) > RECORD_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a sorted run was altered"));
    }
    let mut key = vec![0; key_len];
    input.read_exact(&mut key)?;
    let mut record = vec![0; stored_len(record_len)];
    input.read_exact(&mut record)?;
    Ok(Some(RawRow { key, place, record: (record_len != NO_RECORD).then_some(record) }))
}

fn merge_to_run(files: &TemporaryFiles, runs: Vec<File>) -> io::Result<File> {
    let mut out = BufWriter::with_capacity(RUN_BUFFER_BYTES, files.file()?);
    let mut merge = Merge::new(runs)?;
    let mut bytes = Vec::new();
    while let Some(row) = merge.next()? {
        bytes.clear();
        push_entry(&mut bytes, &row.key, row.place, row.record.as_deref());
        out.write_all(&bytes)?;
    }
    let out = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    Ok(out.into_inner())
}

pub(super) fn fault(dir: &Path, source: io::Error) -> SpoolError {
    let dir = dir.display().to_string();
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => SpoolError::DiskFull { dir },
        _ => SpoolError::Io { dir, source },
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        hash::{BuildHasher, Hasher, RandomState},
    };

    use super::*;

    struct Random(u64);

    impl Random {
        /// A fresh seed, printed so that a failure can be run again.
        fn seeded() -> Self {
            let seed = RandomState::new().build_hasher().finish() | 1;
            println!("seed {seed}");
            Self(seed)
        }

        fn below(&mut self, limit: u64) -> u64 {
            // xorshift64*, Vigna 2016.
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % limit
        }
    }

    type Pushed = (Vec<u8>, u64, Option<Vec<u8>>);

    fn sorted(rows: &[Pushed], memory_bytes: usize) -> Vec<SortedRow> {
        let dir = tempfile::tempdir().unwrap();
        let mut sorter = Sorter::new(&TemporaryFiles::new(dir.path()), memory_bytes);
        // Rows arrive in pieces that have nothing to do with the memory.
        for rows in rows.chunks(7) {
            let mut piece = Buffer::default();
            for (key, line, record) in rows {
                piece.push(key, Place::from_bits(*line), record.as_deref()).unwrap();
            }
            sorter.append(&piece).unwrap();
        }
        let mut sorted = sorter.finish().unwrap();
        assert_eq!(
            std::fs::read_dir(dir.path()).unwrap().count(),
            0,
            "temporary files have no name"
        );
        let mut out = Vec::new();
        while let Some(row) = sorted.next().unwrap() {
            out.push(row);
        }
        assert_eq!(sorted.next().unwrap(), None);
        out
    }

    /// What the module promises, without any of its machinery.
    fn reference(rows: &[Pushed]) -> Vec<SortedRow> {
        let mut by_key: BTreeMap<&[u8], Vec<&Pushed>> = BTreeMap::new();
        for row in rows {
            by_key.entry(&row.0).or_default().push(row);
        }
        by_key
            .into_iter()
            .map(|(key, mut rows)| {
                rows.sort_by_key(|row| row.1);
                let accepted: Vec<&&Pushed> = rows.iter().filter(|row| row.2.is_some()).collect();
                let (last, earlier) = match accepted.split_last() {
                    Some((last, earlier)) => (**last, earlier),
                    None => (rows[rows.len() - 1], [].as_slice()),
                };
                SortedRow {
                    key: key.to_vec(),
                    record: last.2.clone(),
                    place: Place::from_bits(last.1),
                    duplicates: earlier
                        .iter()
                        .map(|row| Place::from_bits(row.1))
                        .take(16)
                        .collect(),
                    duplicate_count: earlier.len() as u64,
                    differing: earlier.iter().any(|row| row.2 != last.2),
                    repeated: rows.len() > 1,
                }
            })
            .collect()
    }

    fn random_rows(random: &mut Random, count: u64) -> Vec<Pushed> {
        let mut rows: Vec<Pushed> = (0..count)
            .map(|line| {
                // Keys of all lengths that share long beginnings, half of
                // which come again.
                let mut key = vec![b'k'; random.below(20) as usize];
                key.extend_from_slice(&random.below(count / 8 + 1).to_be_bytes()[6..]);
                let record = (random.below(5) > 0).then(|| {
                    let length = random.below(40) as usize;
                    vec![random.below(2) as u8; length / 20 * 20]
                });
                (key, line, record)
            })
            .collect();
        for index in (1..rows.len()).rev() {
            rows.swap(index, random.below(index as u64 + 1) as usize);
        }
        rows
    }

    #[test]
    fn little_memory_gives_the_same_as_much() {
        let mut random = Random::seeded();
        for count in [0, 1, 2, 50, 4000] {
            let rows = random_rows(&mut random, count);
            let expected = reference(&rows);
            for memory_bytes in [1, 1000, 10_000, 1 << 30] {
                assert_eq!(sorted(&rows, memory_bytes), expected, "{count} rows, {memory_bytes} B");
            }
        }
    }

    #[test]
    fn more_runs_than_merge_at_once_are_merged_in_passes() {
        let mut random = Random::seeded();
        let rows = random_rows(&mut random, (MERGE_MAX * 3 + 7) as u64);
        assert_eq!(sorted(&rows, 0), reference(&rows));
    }

    #[test]
    fn the_last_accepted_row_wins() {
        let row = |line, record: Option<&str>| {
            (b"k".to_vec(), line, record.map(|record| record.as_bytes().to_vec()))
        };
        let outcome = |rows: &[Pushed]| {
            let out = sorted(rows, 1 << 20);
            assert_eq!(out.len(), 1);
            let row = &out[0];
            let record =
                row.record.as_deref().map(|bytes| str::from_utf8(bytes).unwrap().to_owned());
            (
                record,
                row.place.to_bits(),
                row.duplicates.iter().map(|place| place.to_bits()).collect::<Vec<_>>(),
                row.differing,
            )
        };
        let a = || Some("a".to_owned());
        assert_eq!(outcome(&[row(2, Some("a")), row(3, Some("a"))]), (a(), 3, vec![2], false));
        assert_eq!(outcome(&[row(2, Some("b")), row(3, Some("a"))]), (a(), 3, vec![2], true));
        assert_eq!(outcome(&[row(2, Some("a")), row(3, None)]), (a(), 2, vec![], false));
        assert_eq!(outcome(&[row(2, None), row(3, Some("a"))]), (a(), 3, vec![], false));
        assert_eq!(outcome(&[row(2, None), row(3, None)]), (None, 3, vec![], false));
        let many: Vec<Pushed> = (0..100).map(|line| row(line, Some("a"))).collect();
        let out = sorted(&many, 100);
        assert_eq!((out[0].duplicates.len(), out[0].duplicate_count), (16, 99));
    }

    #[test]
    fn a_missing_directory_and_an_oversized_row_are_named() {
        let mut sorter = Sorter::new(&TemporaryFiles::new(Path::new("/nonexistent/here")), 0);
        let mut rows = Buffer::default();
        rows.push(b"a", Place::from_bits(1), None).unwrap();
        rows.push(b"b", Place::from_bits(2), None).unwrap();
        let error = sorter.append(&rows).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/here"), "{error}");
        let long = vec![0; RECORD_BYTES_MAX + 1];
        let error = rows.push(b"c", Place::from_bits(3), Some(&long)).unwrap_err();
        assert!(matches!(error, SpoolError::TooLong { place } if place.line() == 3));
        let full = fault(Path::new("/x"), io::ErrorKind::StorageFull.into());
        assert!(matches!(full, SpoolError::DiskFull { .. }));
    }
}
