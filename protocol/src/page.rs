//! Pages of the state tree: their bytes and their hashes.
//!
//! A leaf holds records in key order and lies and travels compressed; an inner
//! page holds references to its children. Which keys share a page follows from
//! the keys alone ([`crate::cut`]), so equal content gives equal pages whatever
//! the history. `SPEC.md`, section "State tree".

use crate::{
    change::Change,
    cut::{Cutter, PAGE_ENTRIES_MAX, shared_bits},
    encoding::{DecodeError, Reader, Writer},
    hash::{Hash, Purpose},
    patch::IndexWriter,
    record::{KEY_BYTES_MAX, RECORD_BYTES_MAX, entry_digests, key_hashes},
    suite::{HASH_BYTES_MAX, Suite},
};

/// Levels a tree may have. A hundred million records make six; only keys that
/// were made to lie inside each other need more.
pub const LEVELS_MAX: u8 = 16;
/// Bytes of an uncompressed leaf: the largest records and their keys.
pub const LEAF_BYTES_MAX: usize = 2 + PAGE_ENTRIES_MAX * (2 + KEY_BYTES_MAX + 4 + RECORD_BYTES_MAX);
/// Bytes of an inner page: as many children with the longest keys, and with the
/// longest hashes of any suite.
pub const INNER_BYTES_MAX: usize = 2 + PAGE_ENTRIES_MAX * (2 + KEY_BYTES_MAX + CHILD_BYTES_MAX);
const CHILD_BYTES_MAX: usize = HASH_BYTES_MAX + 8 + 2;

/// Bytes of a child in an inner page, beside its first key: hash, records,
/// entries.
pub(crate) const fn child_bytes(suite: Suite) -> usize {
    suite.hash_bytes() + 8 + 2
}

/// A reference to a page, as its parent holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageRef {
    /// The first key below the page.
    pub first_key: Vec<u8>,
    /// The page's hash.
    pub hash: Hash,
    /// Records below the page.
    pub records: u64,
    /// Entries of the page itself: records of a leaf, children of an inner page.
    pub entries: u16,
}

/// A page that was made, ready to be stored or sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MadePage {
    /// The reference that its parent will hold.
    pub page: PageRef,
    /// 0 for a leaf.
    pub level: u8,
    /// The bytes as they lie on disk and travel.
    pub body: Vec<u8>,
    /// How many they are before compression.
    pub bytes: u64,
    /// A leaf's index ([`crate::patch`]), which never travels; empty for an
    /// inner page.
    pub index: Vec<u8>,
}

/// A decoded leaf: the raw bytes and where its entries lie in them.
#[derive(Debug, Clone)]
pub struct Leaf {
    raw: Vec<u8>,
    spans: Vec<Span>,
}

#[derive(Debug, Clone, Copy)]
struct Span {
    key: u32,
    value: u32,
    end: u32,
}

impl Leaf {
    /// Reads a leaf's bytes: lengths, order and count are checked, the hash is
    /// not; see [`Leaf::describe`].
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        Self::parse(crate::codec::decompress(body, LEAF_BYTES_MAX)?)
    }

    /// As [`Leaf::decode`], of bytes that are not compressed.
    pub fn parse(raw: Vec<u8>) -> Result<Self, DecodeError> {
        let mut input = Reader::new(&raw);
        let count = usize::from(input.u16()?);
        if count == 0 || count > PAGE_ENTRIES_MAX {
            return Err(DecodeError::Invalid("a leaf has no entry, or too many"));
        }
        let at = |input: &Reader<'_>| (raw.len() - input.remaining()) as u32;
        let mut spans: Vec<Span> = Vec::with_capacity(count);
        let mut previous: &[u8] = &[];
        for index in 0..count {
            let key_bytes = usize::from(input.u16()?);
            if key_bytes > KEY_BYTES_MAX {
                return Err(DecodeError::TooLong { what: "a key", limit: KEY_BYTES_MAX });
            }
            let key_at = at(&input);
            let key = input.raw(key_bytes)?;
            if index > 0 && key <= previous {
                return Err(DecodeError::Invalid("a leaf's keys are not in ascending order"));
            }
            previous = key;
            let value_bytes = input.u32()? as usize;
            if value_bytes > RECORD_BYTES_MAX {
                return Err(DecodeError::TooLong { what: "a record", limit: RECORD_BYTES_MAX });
            }
            let value = at(&input);
            input.raw(value_bytes)?;
            spans.push(Span { key: key_at, value, end: at(&input) });
        }
        input.finish()?;
        Ok(Self { raw, spans })
    }

    /// Entries in the leaf, at least one.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Never: a leaf without entries does not exist.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Bytes of the leaf, uncompressed.
    pub fn bytes(&self) -> u64 {
        self.raw.len() as u64
    }

    /// The bytes, uncompressed.
    pub fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// Memory that it takes.
    pub fn memory(&self) -> usize {
        self.raw.len() + self.spans.len() * size_of::<Span>()
    }

    /// Key and value at `index`.
    pub fn entry(&self, index: usize) -> (&[u8], &[u8]) {
        let span = self.spans[index];
        // The key's bytes end four bytes, the value's length, before the value.
        (
            &self.raw[span.key as usize..span.value as usize - 4],
            &self.raw[span.value as usize..span.end as usize],
        )
    }

    /// The entries in key order.
    pub fn entries(&self) -> impl Iterator<Item = (&[u8], &[u8])> + Clone {
        (0..self.len()).map(|index| self.entry(index))
    }

    /// The leaf after `changes`, sorted by key without repetition, all of which
    /// stay inside of it.
    pub fn patched(&self, changes: &[Change]) -> Result<Self, DecodeError> {
        let mut raw = Writer::after(Vec::with_capacity(self.raw.len() + 4096));
        raw.u16(0);
        let mut spans = Vec::with_capacity(self.len() + changes.len());
        let mut push = |key: &[u8], value: &[u8]| {
            let start = raw.len() as u32 + 2;
            push_entry(&mut raw, key, value);
            let end = raw.len() as u32;
            spans.push(Span { key: start, value: end - value.len() as u32, end });
        };
        let mut changes = changes.iter().peekable();
        for (key, value) in self.entries() {
            let mut replaced = false;
            while let Some(change) = changes.next_if(|change| change.key() <= key) {
                replaced |= change.key() == key;
                if let Change::Put { key, value } = change {
                    push(key, value);
                }
            }
            if !replaced {
                push(key, value);
            }
        }
        for change in changes {
            if let Change::Put { key, value } = change {
                push(key, value);
            }
        }
        if spans.is_empty() || spans.len() > PAGE_ENTRIES_MAX {
            return Err(DecodeError::Invalid("a leaf has no entry, or too many"));
        }
        let mut raw = raw.into_bytes();
        raw[..2].copy_from_slice(&(spans.len() as u16).to_be_bytes());
        Ok(Self { raw, spans })
    }

    /// The value under `key`.
    pub fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.search(key).ok().map(|index| self.entry(index).1)
    }

    /// The index of the first entry whose key is not below `key`, or the number
    /// of entries.
    pub fn lower_bound(&self, key: &[u8]) -> usize {
        self.search(key).unwrap_or_else(|index| index)
    }

    fn search(&self, key: &[u8]) -> Result<usize, usize> {
        self.spans
            .binary_search_by(|span| self.raw[span.key as usize..span.value as usize - 4].cmp(key))
    }

    /// The first key.
    pub fn first_key(&self) -> &[u8] {
        self.entry(0).0
    }

    /// The last key.
    pub fn last_key(&self) -> &[u8] {
        self.entry(self.len() - 1).0
    }

    /// The bytes as they travel.
    pub fn encode(&self) -> Vec<u8> {
        crate::codec::compress(&self.raw)
    }

    /// Hashes all entries again and says what the parent should hold.
    pub fn describe(&self, suite: Suite) -> PageRef {
        self.describe_with_index(suite).0
    }

    /// As [`Leaf::describe`], with the leaf's index.
    pub fn describe_with_index(&self, suite: Suite) -> (PageRef, Vec<u8>) {
        let (hash, index) = hash_and_index(suite, self.entries());
        (leaf_ref(self.first_key(), hash, self.len()), index)
    }

    /// The digests of the entries, in their order.
    pub(crate) fn digests(&self, suite: Suite) -> Vec<Hash> {
        entry_digests(suite, self.entries())
    }
}

/// Cuts entries that are pushed in key order into leaves.
#[derive(Debug, Default)]
pub struct LeafBuilder {
    /// The entries that are in no leaf yet.
    raw: Vec<u8>,
    /// The bytes of each.
    cutter: Cutter<usize>,
    last_key: Vec<u8>,
    begun: bool,
}

impl LeafBuilder {
    /// A builder at the level's beginning.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends an entry, whose key is above all before.
    pub fn push(&mut self, key: &[u8], value: &[u8]) {
        let shared = if self.begun { shared_bits(&self.last_key, key) } else { 0 };
        self.begun = true;
        self.last_key.clear();
        self.last_key.extend_from_slice(key);
        let before = self.raw.len();
        let mut raw = Writer::after(std::mem::take(&mut self.raw));
        push_entry(&mut raw, key, value);
        self.raw = raw.into_bytes();
        self.cutter.push(self.raw.len() - before, 1, shared);
    }

    /// The next leaf, once its end is known.
    pub fn next_leaf(&mut self) -> Option<RawLeaf> {
        self.take(false)
    }

    /// The next leaf, if nothing more will be pushed.
    pub fn last_leaf(&mut self) -> Option<RawLeaf> {
        self.take(true)
    }

    fn take(&mut self, end: bool) -> Option<RawLeaf> {
        let entries = self.cutter.next_page(end)?;
        let bytes: usize = entries.iter().sum();
        let mut leaf = RawLeafWriter::with_capacity(entries.len(), bytes);
        leaf.raw.raw(&self.raw[..bytes]);
        self.raw.drain(..bytes);
        Some(leaf.finish())
    }
}

/// Collects the entries of one leaf, whose end somebody else knows.
pub(crate) struct RawLeafWriter {
    raw: Writer,
    count: usize,
}

impl RawLeafWriter {
    pub fn with_capacity(count: usize, bytes: usize) -> Self {
        let mut raw = Writer::after(Vec::with_capacity(2 + bytes));
        raw.u16(u16::try_from(count).expect("a page has few entries"));
        Self { raw, count }
    }

    pub fn push(&mut self, key: &[u8], value: &[u8]) {
        push_entry(&mut self.raw, key, value);
    }

    pub fn finish(self) -> RawLeaf {
        RawLeaf { raw: self.raw.into_bytes(), count: self.count }
    }
}

/// A leaf whose entries are known, but which is neither hashed nor compressed:
/// the part of the work that may be done on any thread, and ahead of time, for
/// equal ones make equal pages.
#[derive(Debug, PartialEq, Eq)]
pub struct RawLeaf {
    raw: Vec<u8>,
    count: usize,
}

impl RawLeaf {
    /// A leaf of these entries, in key order.
    ///
    /// # Panics
    /// If there are more than a page holds.
    pub fn of<'a>(entries: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) -> Self {
        let entries: Vec<_> = entries.into_iter().collect();
        assert!(entries.len() <= PAGE_ENTRIES_MAX, "a leaf of too many entries");
        let mut leaf = RawLeafWriter::with_capacity(entries.len(), 0);
        entries.iter().for_each(|(key, value)| leaf.push(key, value));
        leaf.finish()
    }

    /// All leaves of a level with these entries, in key order.
    pub fn cut<'a>(entries: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) -> Vec<Self> {
        let mut builder = LeafBuilder::new();
        let mut leaves = Vec::new();
        for (key, value) in entries {
            builder.push(key, value);
            leaves.extend(std::iter::from_fn(|| builder.next_leaf()));
        }
        leaves.extend(std::iter::from_fn(|| builder.last_leaf()));
        leaves
    }

    /// Bytes of the entries.
    pub fn bytes(&self) -> usize {
        self.raw.len()
    }

    /// The first key; empty if there is no entry.
    pub fn first_key(&self) -> &[u8] {
        if self.count == 0 { &[] } else { split_entry(&self.raw[2..]).0 }
    }

    /// Hashes and compresses.
    pub fn make(&self, suite: Suite) -> MadePage {
        let mut rest = &self.raw[2..];
        let entries = (0..self.count).map(move |_| {
            let (key, value, behind) = split_entry(rest);
            rest = behind;
            (key, value)
        });
        let (hash, index) = hash_and_index(suite, entries);
        let page = leaf_ref(self.first_key(), hash, self.count);
        let body = crate::codec::compress(&self.raw);
        MadePage { page, level: 0, body, bytes: self.raw.len() as u64, index }
    }
}

/// What a parent holds of a leaf.
pub(crate) fn leaf_ref(first_key: &[u8], hash: Hash, count: usize) -> PageRef {
    let entries = u16::try_from(count).expect("a page has few entries");
    PageRef { first_key: first_key.to_vec(), hash, records: count as u64, entries }
}

/// The hash and the index of a leaf with these entries.
fn hash_and_index<'a>(
    suite: Suite,
    entries: impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone,
) -> (Hash, Vec<u8>) {
    let mut hasher = PageHasher::new(suite, 0);
    let mut index = IndexWriter::new();
    let digests = entry_digests(suite, entries.clone());
    for ((key, value), digest) in entries.zip(&digests) {
        hasher.entry(digest);
        index.push(key, value.len(), digest);
    }
    (hasher.finish(), index.finish())
}

/// Bytes of a leaf beside its entries.
pub(crate) const COUNT_BYTES: u64 = 2;

/// Bytes of an entry in a leaf.
pub(crate) fn entry_bytes(key: usize, value: usize) -> u64 {
    (2 + key + 4 + value) as u64
}

/// Appends an entry as a leaf's bytes have it.
fn push_entry(raw: &mut Writer, key: &[u8], value: &[u8]) {
    raw.u16(u16::try_from(key.len()).expect("a key has at most 1024 bytes"));
    raw.raw(key);
    raw.bytes(value);
}

/// Takes apart what [`push_entry`] wrote: key, value, and what is behind.
fn split_entry(raw: &[u8]) -> (&[u8], &[u8], &[u8]) {
    let (key, rest) = raw[2..].split_at(usize::from(u16::from_be_bytes([raw[0], raw[1]])));
    let length = u32::from_be_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
    let (value, behind) = rest[4..].split_at(length);
    (key, value, behind)
}

/// Reads an inner page's bytes: lengths, order and count are checked, the hash
/// is not; see [`inner_hash`].
pub fn decode_inner(suite: Suite, body: &[u8]) -> Result<Vec<PageRef>, DecodeError> {
    if body.len() > INNER_BYTES_MAX {
        return Err(DecodeError::TooLong { what: "an inner page", limit: INNER_BYTES_MAX });
    }
    let mut input = Reader::new(body);
    let count = usize::from(input.u16()?);
    if count == 0 || count > PAGE_ENTRIES_MAX {
        return Err(DecodeError::Invalid("an inner page has no child, or too many"));
    }
    let mut children: Vec<PageRef> = Vec::with_capacity(count);
    for _ in 0..count {
        let key_bytes = usize::from(input.u16()?);
        if key_bytes > KEY_BYTES_MAX {
            return Err(DecodeError::TooLong { what: "a key", limit: KEY_BYTES_MAX });
        }
        let first_key = input.raw(key_bytes)?.to_vec();
        if children.last().is_some_and(|last| last.first_key >= first_key) {
            return Err(DecodeError::Invalid("an inner page's keys are not in ascending order"));
        }
        let hash = input.raw_hash(suite)?;
        let (records, entries) = (input.u64()?, input.u16()?);
        let fits = (1..=PAGE_ENTRIES_MAX).contains(&usize::from(entries));
        if !fits || records < u64::from(entries) {
            return Err(DecodeError::Invalid("an inner page has a child without records"));
        }
        children.push(PageRef { first_key, hash, records, entries });
    }
    input.finish()?;
    Ok(children)
}

/// The hash of an inner page of `level` with these children.
pub fn inner_hash(suite: Suite, level: u8, children: &[PageRef]) -> Hash {
    let mut hasher = PageHasher::new(suite, level);
    let first_keys = key_hashes(suite, children.iter().map(|child| child.first_key.as_slice()));
    for (child, first_key) in children.iter().zip(&first_keys) {
        hasher.child(child, first_key);
    }
    hasher.finish()
}

/// Makes an inner page of `level`.
pub fn make_inner(suite: Suite, level: u8, children: &[PageRef]) -> MadePage {
    let mut out = Writer::new();
    out.u16(u16::try_from(children.len()).expect("a page has few children"));
    for child in children {
        push_child(&mut out, child);
    }
    let page = PageRef {
        first_key: children.first().map(|child| child.first_key.clone()).unwrap_or_default(),
        hash: inner_hash(suite, level, children),
        records: children.iter().map(|child| child.records).sum(),
        entries: u16::try_from(children.len()).expect("a page has few children"),
    };
    let body = out.into_bytes();
    MadePage { page, level, bytes: body.len() as u64, body, index: Vec::new() }
}

/// Appends a child as an inner page's bytes have it.
pub(crate) fn push_child(out: &mut Writer, child: &PageRef) {
    out.u16(u16::try_from(child.first_key.len()).expect("a key has at most 1024 bytes"));
    out.raw(&child.first_key);
    out.raw(child.hash.as_bytes());
    out.u64(child.records);
    out.u16(child.entries);
}

/// Collects what a page's hash covers: its level, then its entries.
pub(crate) struct PageHasher {
    suite: Suite,
    bytes: Vec<u8>,
}

impl PageHasher {
    pub fn new(suite: Suite, level: u8) -> Self {
        // Enough for an inner page of an average number of children.
        let mut bytes = Vec::with_capacity(1 + 64 * (child_bytes(suite) + suite.hash_bytes()));
        bytes.push(level);
        Self { suite, bytes }
    }

    pub fn entry(&mut self, digest: &Hash) {
        self.bytes.extend_from_slice(digest.as_bytes());
    }

    fn child(&mut self, child: &PageRef, first_key: &Hash) {
        self.bytes.extend_from_slice(child.hash.as_bytes());
        self.bytes.extend_from_slice(&child.records.to_be_bytes());
        self.bytes.extend_from_slice(&child.entries.to_be_bytes());
        self.bytes.extend_from_slice(first_key.as_bytes());
    }

    pub fn finish(self) -> Hash {
        self.suite.hash(Purpose::Page, &[&self.bytes])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(suite: Suite, count: u32) -> MadePage {
        let keys: Vec<[u8; 4]> = (0..count).map(u32::to_be_bytes).collect();
        RawLeaf::of(keys.iter().map(|key| (&key[..], &b"value"[..]))).make(suite)
    }

    #[test]
    fn a_leaf_reads_back_and_hashes_the_same() {
        for suite in Suite::ALL.iter().copied() {
            let made = filled(suite, 9);
            let leaf = Leaf::decode(&made.body).unwrap();
            assert_eq!(leaf.describe(suite), made.page);
            assert_eq!(leaf.get(&3u32.to_be_bytes()), Some(&b"value"[..]));
            assert_eq!(leaf.get(b"absent"), None);
            assert_eq!(leaf.lower_bound(&[]), 0);
            assert_eq!(leaf.lower_bound(&3u32.to_be_bytes()), 3);
            assert_eq!(leaf.lower_bound(&[0, 0, 0, 3, 0]), 4);
            assert_eq!(leaf.lower_bound(&9u32.to_be_bytes()), 9);
            assert_eq!(leaf.len(), 9);
            assert_eq!(leaf.last_key(), 8u32.to_be_bytes());
        }
    }

    #[test]
    fn keys_out_of_order_and_empty_pages_are_refused() {
        for suite in Suite::ALL.iter().copied() {
            let disorder = RawLeaf::of([(&b"b"[..], &b"1"[..]), (b"a", b"1")]);
            assert!(Leaf::decode(&disorder.make(suite).body).is_err());
            assert!(Leaf::decode(&RawLeaf::of([]).make(suite).body).is_err());
            let child = filled(suite, 1).page;
            assert!(
                decode_inner(suite, &make_inner(suite, 1, &[child.clone(), child]).body).is_err()
            );
            assert!(decode_inner(suite, &make_inner(suite, 1, &[]).body).is_err());
        }
    }

    #[test]
    fn the_hash_of_an_inner_page_covers_all_that_it_holds() {
        for suite in Suite::ALL.iter().copied() {
            let child = filled(suite, 3).page;
            let hash = inner_hash(suite, 1, std::slice::from_ref(&child));
            let mut other = child.clone();
            other.records += 1;
            assert_ne!(inner_hash(suite, 1, &[other]), hash);
            let mut other = child.clone();
            other.entries += 1;
            assert_ne!(inner_hash(suite, 1, &[other]), hash);
            let mut other = child.clone();
            other.first_key.push(0);
            assert_ne!(inner_hash(suite, 1, &[other]), hash);
            assert_ne!(inner_hash(suite, 2, &[child]), hash);
        }
    }
}
