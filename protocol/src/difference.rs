//! A page told by what another one lacks.
//!
//! Two replicas that differ in few records hold pages that differ in few
//! entries. The asking side names its own entries in short, by eight bytes of a
//! hash over each digest and a salt; the answer refers to those that the page has
//! too, and spells out the rest. What comes out is the whole page, which is then
//! hashed like one that was sent whole, so a wrong answer is never more than a
//! refused one. The salt is drawn for each stream, so nobody can choose records
//! whose names are alike; should two ever be, the page that comes out is wrong,
//! and the asking side takes pages whole. `SPEC.md`, section "Tree stream".
//!
//! Used by [`crate::session::fetch`] and, through [`make`], by providers.

use std::collections::HashMap;

use crate::{
    cut::PAGE_ENTRIES_MAX,
    encoding::{DecodeError, Reader, Writer},
    hash::{Hash, Purpose},
    page::{INNER_BYTES_MAX, LEAF_BYTES_MAX, Leaf, PageRef, child_bytes, decode_inner, push_child},
    suite::Suite,
};

/// Drawn by the asking side, once for each stream.
pub type Salt = [u8; 16];

/// Bytes that name an entry of the asking side's page: among those of a page two
/// are alike once in 10^15 pages.
pub const SHORT_BYTES: usize = 8;
/// Bytes that name all entries of a page.
pub const KNOWN_BYTES_MAX: usize = PAGE_ENTRIES_MAX * SHORT_BYTES;

/// Entries of the asking side's page, by index.
const KNOWN: u8 = 0;
/// Entries spelled out.
const SPELLED: u8 = 1;

/// The page that an asking side has at a place, or near it.
#[derive(Debug, Clone)]
pub enum Own {
    /// None, or one that cannot be read.
    Nothing,
    /// An inner page's children.
    Inner(Vec<PageRef>),
    /// A leaf.
    Leaf(Leaf),
}

impl Own {
    /// Memory that it takes.
    pub fn bytes(&self) -> usize {
        match self {
            Own::Nothing => 0,
            Own::Inner(children) => list_bytes(children),
            Own::Leaf(leaf) => leaf.memory(),
        }
    }

    /// What names its entries to a provider.
    pub fn known(&self, suite: Suite, salt: &Salt) -> Vec<u8> {
        let names = match self {
            Own::Nothing => Vec::new(),
            Own::Inner(children) => names(suite, salt, children.iter().map(|child| &child.hash)),
            Own::Leaf(leaf) => names(suite, salt, &leaf.digests(suite)),
        };
        names.concat()
    }
}

/// Memory that a list of pages takes.
pub(crate) fn list_bytes(pages: &[PageRef]) -> usize {
    pages.iter().map(|page| page.first_key.len() + size_of::<PageRef>()).sum()
}

/// The short names of entries with these digests.
fn names<'a>(
    suite: Suite,
    salt: &Salt,
    digests: impl IntoIterator<Item = &'a Hash>,
) -> Vec<[u8; SHORT_BYTES]> {
    let hashes = suite.hash_each(Purpose::Name, |batch| {
        digests.into_iter().for_each(|digest| batch.push(&[salt, digest.as_bytes()]));
    });
    hashes.iter().map(|hash| std::array::from_fn(|index| hash.as_bytes()[index])).collect()
}

/// The page `body` of `level`, told to somebody whose page has the entries that
/// `known` names with this salt.
pub fn make(
    suite: Suite,
    level: u8,
    body: &[u8],
    salt: &Salt,
    known: &[u8],
) -> Result<Vec<u8>, DecodeError> {
    if level == 0 {
        return Ok(make_leaf(suite, &Leaf::decode(body)?, salt, known));
    }
    let (places, mut pieces) = (places(known), Pieces::default());
    let children = decode_inner(suite, body)?;
    let names = names(suite, salt, children.iter().map(|child| &child.hash));
    for (child, name) in children.into_iter().zip(names) {
        let place = places.get(&name[..]);
        pieces.push(place.copied(), |out| push_child(out, &child));
    }
    Ok(pieces.finish())
}

/// The same of a leaf that is unpacked.
pub fn make_leaf(suite: Suite, leaf: &Leaf, salt: &Salt, known: &[u8]) -> Vec<u8> {
    let (places, mut pieces) = (places(known), Pieces::default());
    for ((key, value), name) in leaf.entries().zip(names(suite, salt, &leaf.digests(suite))) {
        let place = places.get(&name[..]);
        pieces.push(place.copied(), |out| {
            out.u16(u16::try_from(key.len()).expect("a key has at most 1024 bytes"));
            out.raw(key);
            out.bytes(value);
        });
    }
    pieces.finish()
}

/// The places of the entries that `known` names.
fn places(known: &[u8]) -> HashMap<&[u8], u16> {
    known.chunks_exact(SHORT_BYTES).zip(0u16..).collect()
}

/// Runs of entries of one kind.
#[derive(Default)]
struct Pieces {
    out: Vec<u8>,
    /// The last piece's kind, first index and number of entries.
    open: Option<(u8, u16, u16)>,
    spelled: Vec<u8>,
}

impl Pieces {
    fn push(&mut self, place: Option<u16>, spell: impl FnOnce(&mut Writer)) {
        match (&mut self.open, place) {
            (Some((KNOWN, first, count)), Some(place)) if *first + *count == place => *count += 1,
            (Some((SPELLED, _, count)), None) => *count += 1,
            (_, place) => {
                self.close();
                self.open =
                    Some((if place.is_some() { KNOWN } else { SPELLED }, place.unwrap_or(0), 1));
            }
        }
        if place.is_none() {
            let mut writer = Writer::after(std::mem::take(&mut self.spelled));
            spell(&mut writer);
            self.spelled = writer.into_bytes();
        }
    }

    fn close(&mut self) {
        let Some((kind, first, count)) = self.open.take() else {
            return;
        };
        let mut writer = Writer::after(std::mem::take(&mut self.out));
        writer.raw(&[kind]);
        if kind == KNOWN {
            writer.u16(first);
        }
        writer.u16(count);
        writer.raw(&std::mem::take(&mut self.spelled));
        self.out = writer.into_bytes();
    }

    fn finish(mut self) -> Vec<u8> {
        self.close();
        crate::codec::compress(&self.out)
    }
}

/// The children of the inner page that `difference` tells, by what `own` has.
pub fn inner(suite: Suite, difference: &[u8], own: &Own) -> Result<Vec<PageRef>, DecodeError> {
    let known = match own {
        Own::Inner(children) => children.as_slice(),
        _ => &[],
    };
    // Each piece has at most five bytes beside its entries.
    let raw = crate::codec::decompress(difference, INNER_BYTES_MAX + 5 * PAGE_ENTRIES_MAX)?;
    let mut page = Writer::new();
    let count = read(&raw, known.len(), |entry| match entry {
        Entry::Known(index) => {
            push_child(&mut page, &known[index]);
            Ok(())
        }
        Entry::Spelled(input) => {
            let key_bytes = input.u16()?;
            page.u16(key_bytes);
            // Whoever reads the page checks the rest.
            page.raw(input.raw(usize::from(key_bytes) + child_bytes(suite))?);
            Ok(())
        }
    })?;
    let page = [&count.to_be_bytes()[..], &page.into_bytes()].concat();
    decode_inner(suite, &page)
}

/// The leaf that `difference` tells, by what `own` has.
pub fn leaf(difference: &[u8], own: &Own) -> Result<Leaf, DecodeError> {
    let known = match own {
        Own::Leaf(leaf) => Some(leaf),
        _ => None,
    };
    let raw = crate::codec::decompress(difference, LEAF_BYTES_MAX + 5 * PAGE_ENTRIES_MAX)?;
    let mut page = Writer::new();
    let count = read(&raw, known.map_or(0, Leaf::len), |entry| {
        let (key, value) = match (entry, known) {
            (Entry::Known(index), Some(leaf)) => leaf.entry(index),
            (Entry::Known(_), None) => return Err(DecodeError::Invalid("an unknown entry")),
            (Entry::Spelled(input), _) => {
                let key_bytes = usize::from(input.u16()?);
                let key = input.raw(key_bytes)?;
                let value_bytes = input.u32()? as usize;
                (key, input.raw(value_bytes)?)
            }
        };
        page.u16(u16::try_from(key.len()).map_err(|_| DecodeError::Invalid("a key's length"))?);
        page.raw(key);
        page.bytes(value);
        Ok(())
    })?;
    Leaf::parse([&count.to_be_bytes()[..], &page.into_bytes()].concat())
}

enum Entry<'a, 'b> {
    Known(usize),
    Spelled(&'a mut Reader<'b>),
}

/// Hands each entry over in order and answers their number. An index is below
/// `known`, and there are at most as many entries as a page holds.
fn read<'b>(
    raw: &'b [u8],
    known: usize,
    mut take: impl FnMut(Entry<'_, 'b>) -> Result<(), DecodeError>,
) -> Result<u16, DecodeError> {
    let mut input = Reader::new(raw);
    let mut total = 0;
    while input.remaining() > 0 {
        let [kind] = input.array()?;
        let first = if kind == KNOWN { usize::from(input.u16()?) } else { 0 };
        let count = usize::from(input.u16()?);
        total += count;
        if count == 0 || total > PAGE_ENTRIES_MAX || kind > SPELLED {
            return Err(DecodeError::Invalid("a piece of a difference"));
        }
        if kind == KNOWN && first + count > known {
            return Err(DecodeError::Invalid("a difference refers to what nobody named"));
        }
        for index in first..first + count {
            match kind {
                KNOWN => take(Entry::Known(index))?,
                _ => take(Entry::Spelled(&mut input))?,
            }
        }
    }
    Ok(total as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::{RawLeaf, make_inner};

    const SALT: Salt = [7; 16];

    fn page(
        suite: Suite,
        entries: impl IntoIterator<Item = (u32, &'static str)>,
    ) -> (Leaf, Vec<u8>) {
        let entries: Vec<_> = entries.into_iter().map(|(key, v)| (key.to_be_bytes(), v)).collect();
        let entries = entries.iter().map(|(key, value)| (&key[..], value.as_bytes()));
        let body = RawLeaf::of(entries).make(suite).body;
        (Leaf::decode(&body).unwrap(), body)
    }

    fn children(suite: Suite, numbers: impl IntoIterator<Item = u32>) -> Vec<PageRef> {
        let child = |number: u32| page(suite, [(number, "value")]).0.describe(suite);
        numbers.into_iter().map(child).collect()
    }

    #[test]
    fn a_leaf_comes_out_whole_whatever_the_other_side_holds() {
        for suite in Suite::ALL.iter().copied() {
            let (theirs, body) =
                page(suite, (0..150).map(|n| (n, if n == 77 { "new" } else { "value" })));
            for own in [
                Own::Nothing,
                Own::Leaf(page(suite, (0..150).map(|n| (n, "value"))).0),
                Own::Leaf(page(suite, (50..200).map(|n| (n, "value"))).0),
                Own::Leaf(page(suite, [(9, "other")]).0),
                Own::Inner(children(suite, 0..9)),
            ] {
                let told = make(suite, 0, &body, &SALT, &own.known(suite, &SALT)).unwrap();
                assert_eq!(leaf(&told, &own).unwrap().describe(suite), theirs.describe(suite));
            }
            let own = Own::Leaf(page(suite, (0..150).map(|n| (n, "value"))).0);
            assert!(
                make(suite, 0, &body, &SALT, &own.known(suite, &SALT)).unwrap().len() < 50,
                "one of 150 entries is spelled out"
            );
        }
    }

    #[test]
    fn an_inner_page_comes_out_whole_whatever_the_other_side_holds() {
        for suite in Suite::ALL.iter().copied() {
            let theirs = children(suite, (0..90).chain(100..150));
            let body = make_inner(suite, 3, &theirs).body;
            for own in [
                Own::Nothing,
                Own::Inner(children(suite, 0..160)),
                Own::Inner(children(suite, 90..100)),
            ] {
                let told = make(suite, 3, &body, &SALT, &own.known(suite, &SALT)).unwrap();
                assert_eq!(inner(suite, &told, &own).unwrap(), theirs);
            }
        }
    }

    #[test]
    fn differences_that_make_no_page_are_refused() {
        for suite in Suite::ALL.iter().copied() {
            let own = Own::Leaf(page(suite, (0..10).map(|n| (n, "value"))).0);
            for wrong in [
                &[][..],                                 // no entry at all
                &[KNOWN, 0, 0, 0, 0],                    // a piece without entries
                &[KNOWN, 0, 5, 0, 6],                    // behind the last one named
                &[KNOWN, 0, 5, 0, 2, KNOWN, 0, 0, 0, 2], // not in order
                &[KNOWN, 0, 0, 0],                       // cut
                &[2, 0, 0, 0, 1],                        // no such kind
                &[SPELLED, 1, 1],                        // more than a page holds
                &[SPELLED, 0, 1, 0, 1, 9],               // an entry is cut
            ] {
                let bytes = crate::codec::compress(wrong);
                assert!(leaf(&bytes, &own).is_err(), "{wrong:?}");
                assert!(
                    inner(suite, &bytes, &Own::Inner(children(suite, 0..10))).is_err(),
                    "{wrong:?}"
                );
            }
            let known = crate::codec::compress(&[KNOWN, 0, 0, 0, 1]);
            assert!(leaf(&known, &own).is_ok() && leaf(&known, &Own::Nothing).is_err());
        }
    }
}
