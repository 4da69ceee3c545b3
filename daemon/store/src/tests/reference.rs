//! The reference: the tree over some content, built from nothing, in memory.

use std::collections::BTreeMap;

use protocol::{
    page::MadePage,
    tree::{Pages, Summary, pages_of},
};

use super::fixtures::{Content, SUITE};
use crate::StoreError;

/// The pages of a tree in memory: level and first key, body.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Memory(pub BTreeMap<(u8, Vec<u8>), Vec<u8>>);

impl Memory {
    /// The tree over `content`, built from nothing.
    pub fn built(content: &Content) -> (Self, Summary) {
        let entries = content.iter().map(|(key, value)| (&key[..], &value[..]));
        let (made, summary) = pages_of(SUITE, entries).unwrap();
        let place = |made: MadePage| ((made.level, made.page.first_key), made.body);
        (Self(made.into_iter().map(place).collect()), summary)
    }

    pub fn seek(&self, level: u8, key: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
        let in_level = |(found, _): &(&(u8, Vec<u8>), &Vec<u8>)| found.0 == level;
        let before = self.0.range(..=(level, key.to_vec())).next_back().filter(in_level);
        let page = before.or_else(|| self.0.range((level, vec![])..).next().filter(in_level));
        page.map(|((_, first), body)| (first.clone(), body.clone()))
    }

    pub fn next_key(&self, level: u8, first_key: &[u8]) -> Option<Vec<u8>> {
        let behind = (level, [first_key, &[0]].concat());
        let next = self.0.range(behind..).next().filter(|((found, _), _)| *found == level);
        next.map(|((_, key), _)| key.clone())
    }

    /// Walks all pages of `pages` and compares; then seeks at and around each
    /// first key.
    pub fn assert_same<P: Pages<Error = StoreError>>(&self, pages: &mut P) {
        let mut found = Self::default();
        for level in 0..=protocol::page::LEVELS_MAX {
            let mut next = pages.seek(level, &[]).unwrap().map(|(key, _)| key);
            while let Some(key) = next {
                let (first, body) = pages.seek(level, &key).unwrap().unwrap();
                assert_eq!(first, key);
                next = pages.next_key(level, &key).unwrap();
                found.0.insert((level, key), body);
            }
        }
        assert!(found == *self, "the pages differ from those of a rebuild");
        for (level, first) in self.0.keys() {
            let below = first.strip_suffix(&[*first.last().unwrap_or(&0)]).unwrap_or(&[]);
            for around in [below.to_vec(), first.clone(), [first, &b"~"[..]].concat()] {
                assert_eq!(pages.seek(*level, &around).unwrap(), self.seek(*level, &around));
                // Before a level's first page, it is that one's neighbour which is behind.
                if self.seek(*level, &[]).is_some_and(|(first, _)| around >= first) {
                    let behind = pages.next_key(*level, &around).unwrap();
                    assert_eq!(behind, self.next_key(*level, &around));
                }
            }
        }
    }
}
