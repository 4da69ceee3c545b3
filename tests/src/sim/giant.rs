//! A tree that is said to be very large, and of which little can be shown.
//!
//! A tall one has all levels that there may be, each page as wide as one may be, and
//! at each level one page that can be shown. A wide one can be shown down to its
//! leaves, which are as many as two levels can hold, and are not there. Whoever takes
//! its pages has to notice at the first other one, and to hold few references until
//! then.

use std::collections::BTreeMap;

use protocol::{
    codec,
    cut::PAGE_ENTRIES_MAX,
    difference,
    message::{TreeReply, TreeRequest},
    page::{LEVELS_MAX, MadePage, PageRef, RawLeaf, make_inner},
};

use super::HOSTILE_SUITE;

/// Records that each page is said to have below it which cannot be shown.
const RECORDS_EACH: u64 = 1 << 50;

/// The pages that can be shown, by level and first key.
#[derive(Debug)]
pub struct Giant {
    pages: BTreeMap<(u8, Vec<u8>), MadePage>,
    levels: u8,
}

impl Giant {
    /// A tree of all levels.
    pub fn tall() -> Self {
        let leaf =
            RawLeaf::of([(&[0][..], &b"one"[..]), (&[1][..], &b"two"[..])]).make(HOSTILE_SUITE);
        let mut giant = Self { pages: BTreeMap::new(), levels: LEVELS_MAX };
        giant.add(leaf);
        for level in 1..LEVELS_MAX {
            let below = giant.first(level - 1).page.clone();
            let other = |index: usize| PageRef {
                // Behind all keys of the levels below.
                first_key: vec![1 + level, index as u8],
                hash: HOSTILE_SUITE.none(),
                records: RECORDS_EACH,
                entries: PAGE_ENTRIES_MAX as u16,
            };
            let children: Vec<PageRef> =
                std::iter::once(below).chain((1..PAGE_ENTRIES_MAX).map(other)).collect();
            giant.add(make_inner(HOSTILE_SUITE, level, &children));
        }
        giant
    }

    /// A tree of three levels, with all its inner pages.
    pub fn wide() -> Self {
        let mut giant = Self { pages: BTreeMap::new(), levels: 3 };
        let leaf = |first: usize, second: usize| PageRef {
            first_key: vec![first as u8, second as u8],
            hash: HOSTILE_SUITE.none(),
            records: PAGE_ENTRIES_MAX as u64,
            entries: PAGE_ENTRIES_MAX as u16,
        };
        let parents = (0..PAGE_ENTRIES_MAX).map(|first| {
            let leaves: Vec<PageRef> = (0..PAGE_ENTRIES_MAX).map(|n| leaf(first, n)).collect();
            make_inner(HOSTILE_SUITE, 1, &leaves)
        });
        let parents: Vec<MadePage> = parents.collect();
        let children: Vec<PageRef> = parents.iter().map(|made| made.page.clone()).collect();
        parents.into_iter().for_each(|made| giant.add(made));
        giant.add(make_inner(HOSTILE_SUITE, 2, &children));
        giant
    }

    fn add(&mut self, made: MadePage) {
        self.pages.insert((made.level, made.page.first_key.clone()), made);
    }

    fn first(&self, level: u8) -> &MadePage {
        let first = self.pages.range((level, Vec::new())..).next();
        first.map(|(_, made)| made).expect("each level has a page")
    }

    /// Its highest page, and the number of its levels.
    pub fn root(&self) -> (&MadePage, u8) {
        (self.first(self.levels - 1), self.levels)
    }

    /// The answers to a request; a page that cannot be shown is another one.
    pub fn answer(&self, request: &[u8]) -> Vec<Vec<u8>> {
        let body = |level: u8, key: &Vec<u8>| {
            let mut from = self.pages.range((level, key.clone())..);
            match from.find(|((of, _), _)| *of == level) {
                Some((_, made)) => made.body.clone(),
                None => b"no page".to_vec(),
            }
        };
        let pages = match TreeRequest::decode(request) {
            Ok(TreeRequest::Pages { level, keys }) => {
                keys.iter().map(|key| body(level, key)).collect()
            }
            Ok(TreeRequest::Differences { level, salt, pages }) => {
                let told = pages.iter().map(|asked| {
                    let page = body(level, &asked.first_key);
                    difference::make(HOSTILE_SUITE, level, &page, &salt, &asked.known)
                        .unwrap_or(page)
                });
                told.collect()
            }
            Err(_) => Vec::new(),
        };
        let part = |bytes: Vec<u8>| codec::encode(&TreeReply::Part { bytes, more: false });
        pages.into_iter().map(part).collect()
    }
}
