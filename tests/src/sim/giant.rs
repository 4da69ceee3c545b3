//! A tree that is said to be very large: all levels that there may be, each page as
//! wide as one may be, and at each level one page that can be shown.
//!
//! It costs its maker a few kilobytes. Whoever takes its pages has to notice at the
//! first other one, and to hold few references until then.

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

/// The pages that can be shown, by level.
#[derive(Debug)]
pub struct Giant {
    pages: BTreeMap<u8, MadePage>,
}

impl Giant {
    /// A tree of all levels.
    pub fn new() -> Self {
        let leaf =
            RawLeaf::of([(&[0][..], &b"one"[..]), (&[1][..], &b"two"[..])]).make(HOSTILE_SUITE);
        let mut giant = Self { pages: [(0, leaf)].into() };
        for level in 1..LEVELS_MAX {
            let below = giant.pages[&(level - 1)].page.clone();
            let other = |index: usize| PageRef {
                // Behind all keys of the levels below.
                first_key: vec![1 + level, index as u8],
                hash: HOSTILE_SUITE.none(),
                records: RECORDS_EACH,
                entries: PAGE_ENTRIES_MAX as u16,
            };
            let children: Vec<PageRef> =
                std::iter::once(below).chain((1..PAGE_ENTRIES_MAX).map(other)).collect();
            giant.pages.insert(level, make_inner(HOSTILE_SUITE, level, &children));
        }
        giant
    }

    /// Its highest page, and the number of its levels.
    pub fn root(&self) -> (&MadePage, u8) {
        (&self.pages[&(LEVELS_MAX - 1)], LEVELS_MAX)
    }

    /// The answers to a request; a page that cannot be shown is another one.
    pub fn answer(&self, request: &[u8]) -> Vec<Vec<u8>> {
        let body = |level: u8| match self.pages.get(&level) {
            Some(made) => made.body.clone(),
            None => b"no page".to_vec(),
        };
        let pages = match TreeRequest::decode(request) {
            Ok(TreeRequest::Pages { level, keys }) => vec![body(level); keys.len()],
            Ok(TreeRequest::Differences { level, salt, pages }) => {
                let told = pages.iter().map(|asked| {
                    difference::make(HOSTILE_SUITE, level, &body(level), &salt, &asked.known)
                        .unwrap_or_default()
                });
                told.collect()
            }
            Err(_) => Vec::new(),
        };
        let part = |bytes: Vec<u8>| codec::encode(&TreeReply::Part { bytes, more: false });
        pages.into_iter().map(part).collect()
    }
}

impl Default for Giant {
    fn default() -> Self {
        Self::new()
    }
}
