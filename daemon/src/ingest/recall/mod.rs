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
//! the same records and the same report; rows that had to be told of, among them
//! those that share their key, are read and told of again; rows without a key are
//! not noted, so they are new each time; whatever is doubtful is left to the other
//! way. The side file ([`side`])
//! is a cache: it may be deleted at any time, and a damaged one is not used. What
//! a row is recognised by is in [`row`].

mod row;
mod side;

#[cfg(test)]
mod tests;

use std::{
    hint::black_box,
    io,
    ops::Range,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use protocol::{change::Position, suite::checksum::Checksum};

use self::side::{Origin, SideFile, SideFileWriter, Since, damaged};
pub(super) use self::{
    row::{HASH_BYTES, RowHash, RowKey, rules},
    side::{Keyed, remove},
};
use super::{
    source::{RowBodies, Rows},
    spool::{Sorted, SpoolError},
};

/// New rows up to which recalling pays: a part of so many …
const FRESH_PART: usize = 8;
/// … or so many, whatever the file has.
const FRESH_LEAST: usize = 1024;
/// Bytes of new rows that are held at once.
const FRESH_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Bytes of keys with several rows that are held: of some 50 000. A file with more
/// repeats itself, and is read as a whole the next time.
const REPEATED_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Memory for each row, at most: its hash, and a bucket.
const ROW_BYTES: u64 = HASH_BYTES as u64 + 4;

/// The last full file, if it led to `head`.
pub(super) fn find(path: &Path, head: Position) -> Option<Found> {
    match SideFile::open(path) {
        Ok(side) => (side.origin.head == head).then_some(Found(side)),
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                not_recalled(path, &error);
            }
            None
        }
    }
}

fn not_recalled(path: &Path, error: &io::Error) {
    tracing::debug!(path = %path.display(), %error, "the last full file is not recalled");
}

/// A full file that is there to be recalled.
pub(super) struct Found(SideFile);

impl Found {
    /// Under which its rows were read.
    pub fn rules(&self) -> Checksum {
        self.0.origin.rules
    }

    /// What is recalled of it, if that fits into so many bytes of memory.
    pub fn load(self, memory_bytes: usize) -> Option<Recall> {
        if self.0.room.saturating_mul(ROW_BYTES) > memory_bytes as u64 {
            return None;
        }
        let path = self.0.path().to_owned();
        Recall::new(self.0).inspect_err(|error| not_recalled(&path, error)).ok()
    }
}

/// A full file that is recalled. Its rows have places: those of the side file's
/// first part, in ascending order of their hashes, and behind them those that
/// came since.
#[derive(Debug)]
pub(super) struct Recall {
    side: SideFile,
    hashes: Vec<RowHash>,
    /// How many first bits of a hash name its bucket.
    bucket_bits: u32,
    /// Where each bucket begins, and where the last one ends; one or two rows are
    /// in most.
    buckets: Vec<u32>,
    /// A bit for each row that has come again.
    seen: Vec<AtomicU64>,
    /// A bit for each row that somebody has to be told of.
    noted: Vec<u64>,
    /// A bit for each place whose row is gone.
    gone: Vec<u64>,
}

/// What is left of some rows after those that are recalled.
pub(super) struct Looked {
    /// Rows that are recalled, of which nobody has to be told.
    pub settled: u64,
    /// Lines without any content.
    pub blank: u64,
    /// Rows that are new, or that have to be told of.
    fresh: Box<dyn Rows>,
    /// A row of which nobody had to be told comes twice.
    odd: bool,
}

impl Recall {
    fn new(mut side: SideFile) -> io::Result<Self> {
        // Places have 32 bits.
        let room = u32::try_from(side.room).map_err(|_| damaged())? as usize;
        let bucket_bits = room.max(2).ilog2();
        let mut buckets = Vec::with_capacity((1 << bucket_bits) + 1);
        let mut hashes = Vec::with_capacity(room + side.since.came.len());
        side.each_hash(|hash| {
            buckets.resize((hash.front(bucket_bits) + 1).max(buckets.len()), hashes.len() as u32);
            hashes.push(hash);
        })?;
        side.count = hashes.len() as u64;
        buckets.resize((1 << bucket_bits) + 1, hashes.len() as u32);
        hashes.extend(side.since.came.iter().map(|(hash, _)| *hash));

        let words = hashes.len().div_ceil(64);
        let (mut noted, mut gone) = (vec![0; words], vec![0; words]);
        for (place, _) in hashes.iter().enumerate().filter(|(_, hash)| hash.is_noted()) {
            noted[place / 64] |= 1 << (place % 64);
        }
        for place in &side.since.gone {
            gone[*place as usize / 64] |= 1 << (place % 64);
        }
        let seen = (0..words).map(|_| AtomicU64::new(0)).collect();
        Ok(Self { side, hashes, bucket_bits, buckets, seen, noted, gone })
    }

    /// The head that the file led to.
    pub fn head(&self) -> Position {
        self.side.origin.head
    }

    /// What its rows are hashed with.
    pub fn key(&self) -> &RowKey {
        &self.side.key
    }

    /// Notes which rows have come again, and sets the others apart.
    pub fn look(&self, batch: &dyn RowBodies) -> Looked {
        let mut odd = false;
        let mut fresh = Vec::new();
        let found = self.find_all(batch);
        for (at, found) in found.into_iter().enumerate() {
            match found {
                None => fresh.push(at),
                Some(place) => {
                    let (word, bit) = (place / 64, 1 << (place % 64));
                    let twice = self.seen[word].fetch_or(bit, Ordering::Relaxed) & bit != 0;
                    if self.noted[word] & bit != 0 {
                        fresh.push(at);
                    } else {
                        odd |= twice;
                    }
                }
            }
        }
        let settled = (batch.len() - fresh.len()) as u64;
        Looked { settled, blank: batch.blank(), fresh: batch.split(&fresh), odd }
    }

    /// The place of each row. Each of the three things that are read for a row is
    /// read for all of them before the next, so that the processor fetches many
    /// at a time: they hardly ever are in its caches.
    fn find_all(&self, batch: &dyn RowBodies) -> Vec<Option<usize>> {
        let hasher = self.key().hasher();
        let hashes: Vec<RowHash> = batch.bodies().map(|body| hasher.hash(body)).collect();
        let buckets: Vec<Range<usize>> = hashes.iter().map(|hash| self.bucket(*hash)).collect();
        let firsts = buckets.iter().filter_map(|bucket| self.hashes.get(bucket.start));
        black_box(firsts.filter(|hash| hash.is_noted()).count());
        hashes.into_iter().zip(buckets).map(|(hash, bucket)| self.find(hash, bucket)).collect()
    }

    /// Before any row was looked at.
    pub fn none_fresh(&self) -> Fresh {
        Fresh { batches: Vec::new(), rows_max: self.rows_max(), rows: 0, bytes: 0 }
    }

    /// Rows beyond which it does not pay.
    fn rows_max(&self) -> usize {
        (self.hashes.len() / FRESH_PART).max(FRESH_LEAST)
    }

    fn bucket(&self, hash: RowHash) -> Range<usize> {
        let bucket = hash.front(self.bucket_bits);
        self.buckets[bucket] as usize..self.buckets[bucket + 1] as usize
    }

    fn find(&self, hash: RowHash, bucket: Range<usize>) -> Option<usize> {
        let from = bucket.start;
        let found = self.hashes[bucket].iter().position(|known| known.noted(false) == hash);
        match found.map(|found| from + found) {
            Some(place) if self.gone[place / 64] >> (place % 64) & 1 == 0 => Some(place),
            _ => {
                let came = &self.hashes[self.first()..];
                let found = came.partition_point(|known| *known < hash);
                let same = came.get(found)?.noted(false) == hash;
                same.then_some(self.first() + found)
            }
        }
    }

    /// Rows that count as come again, without being told of: bits by word.
    fn settled_bits(&self) -> impl Iterator<Item = u64> {
        let seen = self.seen.iter().map(|word| word.load(Ordering::Relaxed));
        seen.zip(&self.noted).map(|(seen, noted)| seen & !noted)
    }

    /// How many rows need no second look.
    pub fn settled(&self) -> u64 {
        self.settled_bits().map(|bits| u64::from(bits.count_ones())).sum()
    }

    /// The places of all others, in their order.
    fn open(&self) -> impl Iterator<Item = usize> {
        let words = self.settled_bits().zip(&self.gone).map(|(settled, gone)| settled | gone);
        words.enumerate().filter(|(_, closed)| *closed != u64::MAX).flat_map(|(word, closed)| {
            let places = word * 64..(word * 64 + 64).min(self.hashes.len());
            places.filter(move |place| closed >> (place % 64) & 1 == 0)
        })
    }

    /// The keys of all others, in their order: of rows that did not come again
    /// and of those that are told of again. None if they are many, or the side
    /// file is damaged.
    pub fn open_keys(&self) -> Option<Vec<Vec<u8>>> {
        let open: Vec<usize> = self.open().take(self.rows_max() + 1).collect();
        if open.len() > self.rows_max() {
            return None;
        }
        let (first, came) = open.split_at(open.partition_point(|place| *place < self.first()));
        let mut keys: Vec<Vec<u8>> =
            came.iter().map(|place| self.side.since.came[place - self.first()].1.clone()).collect();
        let (mut place, mut wanted) = (0, first.iter().peekable());
        if !first.is_empty() {
            let walked = self.side.each_key(|key| {
                if wanted.next_if_eq(&&place).is_some() {
                    keys.push(key.to_vec());
                }
                place += 1;
                Ok(())
            });
            walked.inspect_err(|error| not_recalled(self.side.path(), error)).ok()?;
        }
        keys.sort_unstable();
        // Rows of one key are told of again, each.
        keys.dedup();
        Some(keys)
    }

    /// Rows of the side file's first part.
    fn first(&self) -> usize {
        self.side.count as usize
    }

    /// Writes down what the file that is in now has: the rows that are settled,
    /// and the others of it; rows whose keys `repeated` has are told of again.
    pub fn renew(
        &self,
        head: Position,
        mut others: Vec<Keyed>,
        repeated: &Repeated,
    ) -> io::Result<()> {
        for (hash, key) in &mut others {
            *hash = hash.noted(hash.is_noted() || repeated.contain(key));
        }
        others.sort_unstable();
        // The same row twice is one to be recalled.
        others.dedup_by(|a, b| a.0 == b.0);
        // Rows that were told of come again as they were.
        let stays = |place: &usize| {
            others.binary_search_by_key(&self.hashes[*place], |other| other.0).is_ok()
        };
        let (stay, go): (Vec<usize>, Vec<usize>) = self.open().partition(stays);
        let hashes_of = |places: &[usize]| -> Vec<RowHash> {
            let mut hashes: Vec<_> = places.iter().map(|place| self.hashes[*place]).collect();
            hashes.sort_unstable();
            hashes
        };
        let stay = hashes_of(&stay);
        others.retain(|other| stay.binary_search(&other.0).is_err());
        if go.is_empty() && others.is_empty() && head == self.head() {
            return Ok(());
        }
        let before = &self.side.since;
        let mut since = Since { gone: before.gone.clone(), came: others };
        for (place, keyed) in (self.first()..).zip(&before.came) {
            if go.binary_search(&place).is_err() {
                since.came.push(keyed.clone());
            }
        }
        since
            .gone
            .extend(go.iter().filter(|place| **place < self.first()).map(|place| *place as u32));
        since.gone.sort_unstable();
        since.came.sort_unstable();
        if !self.side.write_since(head, &since)? {
            self.rewrite(head, since)?;
        }
        Ok(())
    }

    /// Writes all rows anew.
    fn rewrite(&self, head: Position, since: Since) -> io::Result<()> {
        let Since { gone, came } = since;
        let count = self.side.count - gone.len() as u64 + came.len() as u64;
        let origin = Origin { head, ..self.side.origin };
        let mut out = SideFileWriter::create(self.side.path(), origin, self.key(), count)?;
        let mut came = came.into_iter().peekable();
        let mut gone = gone.into_iter().peekable();
        let mut places = (0u32..).zip(&self.hashes);
        self.side.each_key(|key| {
            let (place, own) = places.next().ok_or_else(damaged)?;
            if gone.next_if_eq(&place).is_some() {
                return Ok(());
            }
            while let Some((hash, key)) = came.next_if(|other| other.0 < *own) {
                out.put(hash, &key)?;
            }
            out.put(*own, key)
        })?;
        came.try_for_each(|(hash, key)| out.put(hash, &key))?;
        out.finish()
    }
}

/// A row as it was noted: its hash's bytes, and its key.
pub(super) fn keyed(hash: &[u8], key: Option<&[u8]>) -> Option<Keyed> {
    Some((RowHash::from_bytes(hash.try_into().ok()?), key?.to_vec()))
}

/// Keys of which a file has several rows, in ascending order.
#[derive(Debug, Default)]
pub(super) struct Repeated {
    keys: Vec<Vec<u8>>,
    bytes: usize,
}

impl Repeated {
    /// Adds a key that is above all others.
    pub fn push(&mut self, key: &[u8]) {
        self.bytes += key.len() + size_of::<Vec<u8>>();
        if self.are_few() {
            self.keys.push(key.to_vec());
        }
    }

    /// Whether all of them are known.
    pub fn are_few(&self) -> bool {
        self.bytes <= REPEATED_BYTES_MAX
    }

    fn contain(&self, key: &[u8]) -> bool {
        self.keys.binary_search_by(|own| own.as_slice().cmp(key)).is_ok()
    }
}

/// Writes down the rows of a full file that was read as a whole, which led to
/// `head`: at most `count`. They are sorted by their hashes, with their keys in
/// place of records; those whose keys `repeated` has are told of again.
pub(super) fn note(
    path: &Path,
    head: Position,
    rules: Checksum,
    rows: (RowKey, Sorted),
    count: u64,
    repeated: &Repeated,
) -> Result<(), SpoolError> {
    let fault = |error| super::spool::fault(path, error);
    let (key, mut rows) = rows;
    let mut out =
        SideFileWriter::create(path, Origin { rules, head }, &key, count).map_err(fault)?;
    while let Some(row) = rows.next()? {
        let (hash, key) = keyed(&row.key, row.record.as_deref()).ok_or_else(|| fault(damaged()))?;
        let told = hash.is_noted() || repeated.contain(&key);
        out.put(hash.noted(told), &key).map_err(fault)?;
    }
    out.finish().map_err(fault)
}

/// New rows, as long as they are few.
pub(super) struct Fresh {
    pub batches: Vec<Box<dyn Rows>>,
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
