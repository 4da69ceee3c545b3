//! Leaves that are changed in place.
//!
//! A leaf's bytes are compressed and its hash covers all its entries, so one
//! changed record costs the work of sixty. A store may keep two things beside a
//! leaf instead: its *index*, the keys, digests and lengths of the entries as the
//! bytes have them, and its *patch*, the changes since. [`update`] makes the new hash
//! from digests alone. Neither travels: a peer gets the leaf as it is now, and
//! the tree is the same with and without them.

use crate::{
    change::{Change, decode_changes, encode_changes},
    cut::PAGE_ENTRIES_MAX,
    encoding::{DecodeError, Reader, Writer},
    hash::Hash,
    page::{COUNT_BYTES, PageHasher, PageRef, entry_bytes, leaf_ref},
    record::{KEY_BYTES_MAX, RECORD_BYTES_MAX, entry_digests},
    suite::Suite,
};

/// A patch of more changes is not worth keeping: half of an average leaf is
/// new then, and a reader has as much work as the writer saves.
pub const PATCH_CHANGES_MAX: usize = 32;
/// Bytes of a patch's changes, uncompressed. An average leaf of short records
/// has 24 KiB.
pub const PATCH_BYTES_MAX: usize = 16 * 1024;

/// Writes the index of a leaf. Each key leaves out what it shares with the one
/// before.
#[derive(Debug)]
pub struct IndexWriter {
    out: Writer,
    previous: Vec<u8>,
    count: u16,
}

impl IndexWriter {
    pub(crate) fn new() -> Self {
        let mut out = Writer::after(Vec::with_capacity(4096));
        out.u16(0);
        Self { out, previous: Vec::new(), count: 0 }
    }

    pub(crate) fn push(&mut self, key: &[u8], value_bytes: usize, digest: &Hash) {
        let shared = key.iter().zip(&self.previous).take_while(|(a, b)| a == b).count();
        let length = |bytes: usize| u16::try_from(bytes).expect("a key has at most 1024 bytes");
        self.out.u16(length(shared));
        self.out.u16(length(key.len() - shared));
        self.out.raw(&key[shared..]);
        self.out.u32(u32::try_from(value_bytes).expect("a record has at most 65 536 bytes"));
        self.out.raw(digest.as_bytes());
        self.previous.truncate(shared);
        self.previous.extend_from_slice(&key[shared..]);
        self.count += 1;
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        let mut bytes = self.out.into_bytes();
        bytes[..2].copy_from_slice(&self.count.to_be_bytes());
        bytes
    }
}

/// A decoded index.
#[derive(Default)]
struct Index {
    keys: Vec<u8>,
    /// Where each key ends in `keys`.
    ends: Vec<usize>,
    /// Bytes of each record.
    values: Vec<u32>,
    /// Bytes of all entries as a leaf has them.
    entries_bytes: u64,
    digests: Vec<Hash>,
}

impl Index {
    fn decode(suite: Suite, bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Reader::new(bytes);
        let count = usize::from(input.u16()?);
        if count == 0 || count > PAGE_ENTRIES_MAX {
            return Err(DecodeError::Invalid("an index has no entry, or too many"));
        }
        let mut index = Self {
            keys: Vec::with_capacity(bytes.len()),
            ends: Vec::with_capacity(count),
            values: Vec::with_capacity(count),
            entries_bytes: 0,
            digests: Vec::with_capacity(count),
        };
        let mut previous = 0..0;
        for _ in 0..count {
            let shared = usize::from(input.u16()?);
            let suffix = usize::from(input.u16()?);
            if shared > previous.len() || shared + suffix > KEY_BYTES_MAX {
                return Err(DecodeError::Invalid("an index has a key that cannot be"));
            }
            let start = index.keys.len();
            index.keys.extend_from_within(previous.start..previous.start + shared);
            index.keys.extend_from_slice(input.raw(suffix)?);
            if !index.ends.is_empty() && index.keys[start..] <= index.keys[previous] {
                return Err(DecodeError::Invalid("an index's keys are not in ascending order"));
            }
            previous = start..index.keys.len();
            index.ends.push(previous.end);
            let value_bytes = input.u32()?;
            if value_bytes as usize > RECORD_BYTES_MAX {
                return Err(DecodeError::TooLong { what: "a record", limit: RECORD_BYTES_MAX });
            }
            index.values.push(value_bytes);
            index.entries_bytes += entry_bytes(shared + suffix, value_bytes as usize);
            index.digests.push(input.raw_hash(suite)?);
        }
        input.finish()?;
        Ok(index)
    }

    fn push(&mut self, key: &[u8], value_bytes: u32, digest: Hash) {
        self.keys.extend_from_slice(key);
        self.ends.push(self.keys.len());
        self.values.push(value_bytes);
        self.entries_bytes += entry_bytes(key.len(), value_bytes as usize);
        self.digests.push(digest);
    }

    fn len(&self) -> usize {
        self.ends.len()
    }

    /// Entries after these changes, and the bytes of the leaf that they make.
    fn size_after<'c>(&self, changes: impl Iterator<Item = &'c Change>) -> (usize, u64) {
        changes.fold((self.len(), COUNT_BYTES + self.entries_bytes), |(count, bytes), change| {
            let old = self.find(change.key()).ok();
            let gone = old.map_or(0, |at| self.entry_bytes(at));
            let new = change.entry().map_or(0, |(key, value)| entry_bytes(key.len(), value.len()));
            let count = count - usize::from(old.is_some()) + usize::from(change.entry().is_some());
            (count, bytes - gone + new)
        })
    }

    fn entry_bytes(&self, at: usize) -> u64 {
        entry_bytes(self.key(at).len(), self.values[at] as usize)
    }

    /// Where a key is, or else where it would be.
    fn find(&self, key: &[u8]) -> Result<usize, usize> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low.midpoint(high);
            if self.key(middle) < key { low = middle + 1 } else { high = middle }
        }
        if low < self.len() && self.key(low) == key { Ok(low) } else { Err(low) }
    }

    fn key(&self, at: usize) -> &[u8] {
        let start = if at == 0 { 0 } else { self.ends[at - 1] };
        &self.keys[start..self.ends[at]]
    }
}

/// Reads a patch.
pub fn decode_patch(patch: &[u8]) -> Result<Vec<Change>, DecodeError> {
    decode_changes(patch)
}

/// The keys of a leaf as it is now, and its entries' digests.
pub struct Digests(Index);

impl Digests {
    /// From what is kept beside the leaf.
    pub fn decode(suite: Suite, index: &[u8], patch: Option<&[u8]>) -> Result<Self, DecodeError> {
        let index = Index::decode(suite, index)?;
        let Some(patch) = patch else {
            return Ok(Self(index));
        };
        let patch = decode_patch(patch)?;
        let mut digests = entry_digests(suite, patch.iter().filter_map(Change::entry)).into_iter();
        let mut now = Index::default();
        let mut at = 0;
        for change in &patch {
            while at < index.len() && index.key(at) < change.key() {
                now.push(index.key(at), index.values[at], index.digests[at]);
                at += 1;
            }
            at += usize::from(at < index.len() && index.key(at) == change.key());
            if let Change::Put { key, value } = change {
                now.push(
                    key,
                    value.len() as u32,
                    digests.next().expect("there is one for each entry that is put"),
                );
            }
        }
        (at..index.len())
            .for_each(|at| now.push(index.key(at), index.values[at], index.digests[at]));
        Ok(Self(now))
    }

    /// The leaf's hash.
    pub fn hash(&self, suite: Suite) -> Hash {
        let mut hasher = PageHasher::new(suite, 0);
        self.0.digests.iter().for_each(|digest| hasher.entry(digest));
        hasher.finish()
    }

    /// The digest of the entry under `key`.
    pub fn get(&self, key: &[u8]) -> Option<&Hash> {
        self.0.find(key).ok().map(|at| &self.0.digests[at])
    }

    /// The keys that are not below `from`.
    pub fn keys_from(&self, from: &[u8]) -> impl Iterator<Item = &[u8]> {
        let from = self.0.find(from).unwrap_or_else(|at| at);
        (from..self.0.len()).map(|at| self.0.key(at))
    }
}

/// What becomes of a leaf that is kept with an index.
#[derive(Debug, PartialEq, Eq)]
pub struct Updated {
    /// Bytes of the leaf before the changes, uncompressed.
    pub bytes_before: u64,
    /// What the changes make of it.
    pub outcome: Outcome,
}

/// What changes make of a leaf.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The changes change nothing.
    Unchanged,
    /// The leaf's bytes stay; this is what its parent holds now, and the patch
    /// in place of the one before.
    Patched {
        /// The reference to the leaf.
        page: PageRef,
        /// Its bytes with the changes, uncompressed.
        bytes: u64,
        /// All changes since the leaf's bytes were written; none if these
        /// take them back.
        patch: Option<Vec<u8>>,
        /// Whether it has fewer entries than before, so that it may have to be
        /// joined with its neighbours.
        shrank: bool,
    },
    /// What is kept is not that of the leaf which its parent holds: the leaf has to be read,
    /// and written again.
    Stale,
    /// Its bytes have to be written again: it would begin elsewhere, may end
    /// elsewhere, or the patch would grow too large.
    Rewrite,
}

/// Applies `changes`, sorted by key without repetition and all of them this
/// leaf's, to a leaf with this index and patch, whose hash is `expected` where that is
/// known.
///
/// Keys between the leaf's first and last are in its group, so it stays a page
/// as long as it has not too many entries, and is joined with others only if it
/// or they have fewer than before ([`crate::cut`]).
pub fn update(
    suite: Suite,
    index: &[u8],
    patch: Option<&[u8]>,
    expected: Option<&Hash>,
    changes: &[Change],
) -> Result<Updated, DecodeError> {
    let index = Index::decode(suite, index)?;
    let before = patch.map(decode_patch).transpose()?.unwrap_or_default();
    let (count_before, bytes_before) = index.size_after(before.iter());
    let outcome = match expected {
        Some(expected) if *expected != hash_now(suite, &index, &before) => Outcome::Stale,
        _ => outcome(suite, &index, &before, count_before, changes),
    };
    Ok(Updated { bytes_before, outcome })
}

/// The leaf's hash.
fn hash_now(suite: Suite, index: &Index, patch: &[Change]) -> Hash {
    let mut hasher = PageHasher::new(suite, 0);
    let digests = entry_digests(suite, patch.iter().filter_map(Change::entry));
    let mut put = digests.iter();
    let mut at = 0;
    for change in patch {
        let from = at;
        while at < index.len() && index.key(at) < change.key() {
            at += 1;
        }
        index.digests[from..at].iter().for_each(|digest| hasher.entry(digest));
        at += usize::from(at < index.len() && index.key(at) == change.key());
        if matches!(change, Change::Put { .. }) {
            put.next().into_iter().for_each(|digest| hasher.entry(digest));
        }
    }
    index.digests[at..].iter().for_each(|digest| hasher.entry(digest));
    hasher.finish()
}

fn outcome(
    suite: Suite,
    index: &Index,
    before: &[Change],
    count_before: usize,
    changes: &[Change],
) -> Outcome {
    if changes.len() > PATCH_CHANGES_MAX {
        return Outcome::Rewrite;
    }
    let (first, last) = (index.key(0), index.key(index.len() - 1));
    let outside = |change: &Change| {
        let deletes = matches!(change, Change::Delete { .. });
        let key = change.key();
        key < first || key > last || (deletes && (key == first || key == last))
    };
    if changes.iter().any(outside) {
        return Outcome::Rewrite;
    }

    let mut hasher = PageHasher::new(suite, 0);
    let mut kept: Vec<&Change> = Vec::with_capacity(before.len() + changes.len());
    let mut digests =
        entry_digests(suite, merged(before, changes).filter_map(Change::entry)).into_iter();
    let mut count = 0usize;
    let mut at = 0;
    for change in merged(before, changes) {
        while at < index.len() && index.key(at) < change.key() {
            hasher.entry(&index.digests[at]);
            count += 1;
            at += 1;
        }
        let in_place = at < index.len() && index.key(at) == change.key();
        let old = in_place.then(|| index.digests[at]);
        at += usize::from(in_place);
        match change {
            Change::Put { .. } => {
                let digest = digests.next().expect("there is one for each entry that is put");
                hasher.entry(&digest);
                count += 1;
                if old != Some(digest) {
                    kept.push(change);
                }
            }
            Change::Delete { .. } if in_place => kept.push(change),
            Change::Delete { .. } => {}
        }
    }
    for at in at..index.len() {
        hasher.entry(&index.digests[at]);
        count += 1;
    }

    let patch_bytes: usize = kept.iter().map(|change| change.encoded_bytes()).sum();
    if count > PAGE_ENTRIES_MAX || kept.len() > PATCH_CHANGES_MAX || patch_bytes > PATCH_BYTES_MAX {
        return Outcome::Rewrite;
    }
    if kept.iter().copied().eq(before) {
        return Outcome::Unchanged;
    }
    let (_, bytes) = index.size_after(merged(before, changes));
    let page = leaf_ref(first, hasher.finish(), count);
    let patch = (!kept.is_empty()).then(|| encode_changes(kept));
    Outcome::Patched { page, bytes, patch, shrank: count < count_before }
}

/// Both in key order; of two changes of one key the newer one.
fn merged<'a>(old: &'a [Change], new: &'a [Change]) -> impl Iterator<Item = &'a Change> {
    let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
    std::iter::from_fn(move || match (old.peek(), new.peek()) {
        (Some(before), Some(after)) => {
            let order = before.key().cmp(after.key());
            if order.is_eq() {
                old.next();
            }
            if order.is_lt() { old.next() } else { new.next() }
        }
        (Some(_), None) => old.next(),
        (None, _) => new.next(),
    })
}

#[cfg(test)]
#[path = "patch_tests.rs"]
mod tests;
