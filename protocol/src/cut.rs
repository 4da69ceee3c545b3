//! Where pages end: the one rule that shapes the state tree.
//!
//! Read a key as bits: each byte with a 1 before it, and a 0 at the end. In that
//! spelling no key begins another one, and bits sort as keys do. All keys of a
//! level that begin with the same `n` bits are a *group*; groups lie inside each
//! other like the nodes of a binary trie. A page is a group of at most
//! [`PAGE_ENTRIES_MAX`] entries that lies in no other such group. `SPEC.md`,
//! section "State tree".
//!
//! So the shape follows from the keys alone, and a change of one key changes few
//! pages, whatever the keys are: an insertion may divide the page that takes it
//! in two, or make a page of its own; a deletion may join two pages, or end one.
//! A cut by hashes has no such bound: keys can be chosen whose hashes end no page,
//! and then one insertion moves every end behind it.
//!
//! Neighbours in key order say all about groups: the keys from `a` to `b` begin
//! with the same `n` bits if and only if each two neighbours between them do.
//! [`Cutter`] needs only these numbers, each entry's [`shared_bits`] with the one
//! before it.

use std::collections::VecDeque;

/// Most entries of a page. Pages of evenly spread keys have two thirds of it,
/// those of real codes about a half.
pub const PAGE_ENTRIES_MAX: usize = 160;

/// One more than the leading bits that two different keys share; 0 stands for the
/// edge of a level, beyond which there is no key.
pub fn shared_bits(a: &[u8], b: &[u8]) -> u16 {
    let bytes = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let bits = match (a.get(bytes), b.get(bytes)) {
        (Some(a), Some(b)) => 1 + (a ^ b).leading_zeros() as usize,
        // One ends where the other goes on.
        _ => 0,
    };
    u16::try_from(1 + 9 * bytes + bits).expect("a key has at most 1024 bytes")
}

/// Cuts a level into pages, from entries that are pushed in key order.
///
/// An item is an entry, or several that are known to lie in one page.
#[derive(Debug)]
pub struct Cutter<T> {
    items: VecDeque<Item<T>>,
    entries: usize,
}

#[derive(Debug)]
struct Item<T> {
    item: T,
    entries: usize,
    /// What its first key shares with the key before it.
    shared: u16,
}

impl<T> Default for Cutter<T> {
    fn default() -> Self {
        Self { items: VecDeque::new(), entries: 0 }
    }
}

impl<T> Cutter<T> {
    /// Appends an item with so many entries, whose first key shares so much
    /// ([`shared_bits`]) with the key before it: 0 if it is the level's first.
    pub fn push(&mut self, item: T, entries: usize, shared: u16) {
        self.items.push_back(Item { item, entries, shared });
        self.entries += entries;
    }

    /// Whether enough was pushed to know the next page.
    pub fn knows_next(&self) -> bool {
        self.entries > PAGE_ENTRIES_MAX
    }

    /// Items that wait to be taken.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether no item waits.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The first item that waits, and what it shares with the key before it.
    pub fn front(&self) -> Option<(&T, u16)> {
        self.items.front().map(|item| (&item.item, item.shared))
    }

    /// Takes the items of the next page, if that is known; at the `end` of the
    /// level it always is.
    pub fn next_page(&mut self, end: bool) -> Option<Vec<T>> {
        if self.items.is_empty() || !(end || self.knows_next()) {
            return None;
        }
        let length = self.length_of_next();
        let taken = self.items.drain(..length);
        let mut entries = 0;
        let page = taken.map(|item| {
            entries += item.entries;
            item.item
        });
        let page = page.collect();
        self.entries -= entries;
        Some(page)
    }

    /// The smallest group that holds the first item and is too large for a page
    /// shares `least` bits; the page is the first item's part of it.
    fn length_of_next(&self) -> usize {
        let first = &self.items[0];
        let mut least = u16::MAX;
        let mut entries = first.entries;
        for item in self.items.range(1..) {
            if entries > PAGE_ENTRIES_MAX {
                break;
            }
            least = least.min(item.shared);
            entries += item.entries;
        }
        if entries <= PAGE_ENTRIES_MAX {
            // The edge of the level is within reach.
            least = 0;
        }
        let bound = least.max(first.shared);
        let ends = |item: &Item<T>| item.shared <= bound;
        self.items.range(1..).position(ends).map_or(self.items.len(), |place| place + 1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bit(key: &[u8], at: usize) -> bool {
        match (key.get(at / 9), at % 9) {
            (None, _) => false,
            (Some(_), 0) => true,
            (Some(byte), bit) => byte >> (8 - bit) & 1 == 1,
        }
    }

    /// The definition, word by word: a group that fits is a page, another one is
    /// divided by the next bit.
    fn by_definition(keys: &[Vec<u8>], bits: usize, pages: &mut Vec<usize>) {
        if keys.len() <= PAGE_ENTRIES_MAX {
            pages.extend((!keys.is_empty()).then_some(keys.len()));
            return;
        }
        let (zeros, ones) = keys.split_at(keys.partition_point(|key| !bit(key, bits)));
        by_definition(zeros, bits + 1, pages);
        by_definition(ones, bits + 1, pages);
    }

    fn cut(keys: &[Vec<u8>]) -> Vec<usize> {
        let mut cutter = Cutter::default();
        let mut pages = Vec::new();
        for (index, key) in keys.iter().enumerate() {
            let shared = if index == 0 { 0 } else { shared_bits(&keys[index - 1], key) };
            cutter.push((), 1, shared);
            pages.extend(std::iter::from_fn(|| cutter.next_page(false)).map(|page| page.len()));
        }
        pages.extend(std::iter::from_fn(|| cutter.next_page(true)).map(|page| page.len()));
        pages
    }

    /// Keys of few different bytes: deep groups, and keys that others begin with.
    fn keys() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let byte = prop::sample::select(vec![0u8, 1, 2, 127, 128, 255]);
        prop::collection::btree_set(prop::collection::vec(byte, 0..7), 0..2000)
            .prop_map(|keys| keys.into_iter().collect())
    }

    proptest! {
        #[test]
        fn pages_are_the_largest_groups_that_fit(keys in keys()) {
            let mut expected = Vec::new();
            by_definition(&keys, 0, &mut expected);
            prop_assert_eq!(cut(&keys), expected);
        }

        #[test]
        fn one_key_changes_one_group(keys in keys(), seed: prop::sample::Index) {
            prop_assume!(!keys.is_empty());
            let gone = seed.index(keys.len());
            let without: Vec<_> =
                keys.iter().enumerate().filter(|(i, _)| *i != gone).map(|(_, k)| k.clone()).collect();
            let pages = |keys: &[Vec<u8>]| {
                let mut from = 0;
                let mut pages = std::collections::BTreeSet::new();
                for length in cut(keys) {
                    pages.insert(keys[from..from + length].to_vec());
                    from += length;
                }
                pages
            };
            let (with, without) = (pages(&keys), pages(&without));
            let (gone, new) = (with.difference(&without), without.difference(&with));
            prop_assert!(matches!((gone.count(), new.count()), (1, 0..=1) | (2, 1)));
        }
    }

    #[test]
    fn shared_bits_count_from_the_first() {
        for (a, b, shared) in [
            (&b""[..], &b"a"[..], 1),
            (b"a", b"ab", 10),
            (b"\x00", b"\x80", 2),
            (b"ab", b"ac", 1 + 9 + 1 + 7),
            (b"a\x00", b"a\xff", 11),
        ] {
            assert_eq!(shared_bits(a, b), shared, "{a:?} {b:?}");
            assert_eq!(shared_bits(b, a), shared, "{a:?} {b:?}");
        }
    }
}
