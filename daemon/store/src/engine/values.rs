//! Values as the table has them: a small one as it is; others with a checksum,
//! whole, cut into chunks, or as the place in a pack where they lie.
//!
//! A [`Batch`] writes them and [`Read`] puts them together. Which lie in a pack is
//! the writer's question, and what is durable [`Disk`](super::disk::Disk)'s.

use std::ops::Bound::{Excluded, Included, Unbounded};

use highway::{HighwayHash as _, HighwayHasher, Key};

use super::{
    journal::Write,
    keys,
    packs::{PackId, Packs, Place},
    table::{KeyRange, Pair, View},
};
use crate::error::StoreError;

/// Largest value that sled gets. Larger ones are cut: what is above about 128 KB
/// would become a file that sled never syncs.
pub const CHUNK_BYTES_MAX: usize = 60 * 1024;
/// In front of a chunked value: its number of chunks and 8 bytes of checksum.
const ENVELOPE_BYTES: usize = 2 + 8;
/// In place of the number of chunks: the value lies in a pack, and its place
/// follows.
const PACKED: u16 = u16::MAX;

/// How many chunks a value has whose first one this is.
pub fn chunks_of(first: &[u8]) -> u16 {
    match first.first_chunk::<2>().map(|bytes| u16::from_be_bytes(*bytes)) {
        None | Some(PACKED) => 1,
        Some(count) => count,
    }
}

/// Where the value lies whose first chunk this is, if that is in a pack.
pub fn place_of(first: &[u8]) -> Option<Place> {
    let (envelope, place) = first.split_first_chunk::<ENVELOPE_BYTES>()?;
    (envelope[..2] == PACKED.to_be_bytes()).then(|| Place::decode(place)).flatten()
}

/// How many bytes of a value that lies in no pack its first chunk has.
pub fn bytes_of_first(first: &[u8]) -> usize {
    first.len().saturating_sub(ENVELOPE_BYTES)
}

/// How many bytes a value of this first chunk has at most; none of one in a pack.
pub fn bytes_max_of(first: &[u8]) -> usize {
    match chunks_of(first) {
        1 => first.len().saturating_sub(ENVELOPE_BYTES),
        count => usize::from(count) * CHUNK_BYTES_MAX,
    }
}

/// Against what disks and files do to a value; BLAKE3 takes three times as long for
/// a page and its index.
fn checksum(value: &[u8]) -> [u8; 8] {
    HighwayHasher::new(Key([0; 4])).hash64(value).to_be_bytes()
}

/// Keys that begin with `prefix`, the last of which is at most `key`.
pub fn up_to<'a>(prefix: &'a [u8], key: &'a [u8]) -> KeyRange<'a> {
    (Included(prefix), Included(key))
}

/// Whole values, read while no batch is applied.
pub struct Read<'a> {
    pub view: View<'a>,
    pub packs: &'a Packs,
}

impl Read<'_> {
    /// The whole of the value under `key`.
    pub fn whole_at(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.view.get(key)?.map(|first| self.assemble(key, &first)).transpose()
    }

    /// The whole of a value that was found, if its key begins with `prefix`.
    pub fn whole(&self, found: Option<Pair>, prefix: &[u8]) -> Result<Option<Found>, StoreError> {
        let Some((key, first)) = found.filter(|(key, _)| key.starts_with(prefix)) else {
            return Ok(None);
        };
        let value = self.assemble(&key, &first)?;
        Ok(Some((key.to_vec(), value)))
    }

    pub fn at_or_first(&self, prefix: &[u8], key: &[u8]) -> Result<Option<Found>, StoreError> {
        let found = match self.view.last(up_to(prefix, key))? {
            Some(found) => Some(found),
            None => self.view.first((Included(prefix), Unbounded))?,
        };
        self.whole(found, prefix)
    }

    /// The last chunked value whose key is at most `key`, or else the first one,
    /// among keys that begin with `prefix`, and the value under the same key
    /// behind `beside`.
    pub fn seek_with(
        &self,
        prefix: &[u8],
        key: &[u8],
        beside: &[u8],
    ) -> Result<Option<FoundPair>, StoreError> {
        self.with_beside(self.at_or_first(prefix, key)?, prefix, beside)
    }

    /// As [`Read::seek_with`], but nothing where all keys are behind `key`.
    pub fn last_with(
        &self,
        prefix: &[u8],
        key: &[u8],
        beside: &[u8],
    ) -> Result<Option<FoundPair>, StoreError> {
        let found = self.whole(self.view.last(up_to(prefix, key))?, prefix)?;
        self.with_beside(found, prefix, beside)
    }

    /// The first key behind `key` that begins with `prefix`.
    pub fn key_behind(&self, prefix: &[u8], key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.first_key_in(prefix, (Excluded(key), Unbounded))
    }

    pub fn first_key_in(
        &self,
        prefix: &[u8],
        range: KeyRange<'_>,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let first = self.view.first(range)?;
        Ok(first.filter(|(key, _)| key.starts_with(prefix)).map(|(key, _)| key.to_vec()))
    }

    pub fn with_beside(
        &self,
        found: Option<Found>,
        prefix: &[u8],
        beside: &[u8],
    ) -> Result<Option<FoundPair>, StoreError> {
        let Some((key, value)) = found else {
            return Ok(None);
        };
        let other = self.whole_at(&[beside, &key[prefix.len()..]].concat())?;
        Ok(Some((key, value, other)))
    }

    /// Puts a value together and compares its checksum.
    fn assemble(&self, key: &[u8], first: &[u8]) -> Result<Vec<u8>, StoreError> {
        let damaged = |problem: &str| {
            let place = format!("key {}", protocol::hex::encode(&key[..key.len().min(24)]));
            StoreError::Damaged { place, problem: problem.into() }
        };
        let (envelope, piece) = first
            .split_first_chunk::<ENVELOPE_BYTES>()
            .ok_or_else(|| damaged("it is shorter than its envelope"))?;
        let value = if envelope[..2] == PACKED.to_be_bytes() {
            let place = Place::decode(piece).zip(PackId::of_key(key));
            let (place, generation) = place.ok_or_else(|| damaged("it is no place in a pack"))?;
            self.packs.read(generation, place)?
        } else {
            let mut value = piece.to_vec();
            for index in 1..chunks_of(first) {
                let piece = self.view.get(&keys::chunk(key, index))?;
                value.extend_from_slice(&piece.ok_or_else(|| damaged("a part of it is missing"))?);
            }
            value
        };
        if checksum(&value) != envelope[2..] {
            return Err(damaged("its checksum does not fit"));
        }
        Ok(value)
    }
}

/// A chunked value's key, and itself.
pub type Found = (Vec<u8>, Vec<u8>);
/// A chunked value's key, itself, and the one beside it.
pub type FoundPair = (Vec<u8>, Vec<u8>, Option<Vec<u8>>);

/// Writes that happen together or not at all.
#[derive(Default)]
pub struct Batch {
    pub writes: Vec<Write>,
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

    /// Writes the place of a value that lies in a pack.
    pub fn put_place(&mut self, key: Vec<u8>, value: &[u8], place: Place) {
        let reference = [&PACKED.to_be_bytes()[..], &checksum(value), &place.encode()].concat();
        self.put(key, reference);
    }

    /// Bytes written by this batch.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}
