//! A partition's pages in memory. A snapshot is a clone.

use std::collections::BTreeMap;

use protocol::{
    change::Change,
    page::MadePage,
    suite::Suite,
    tree::{FoundPage, NotUpdated, Pages, Summary, pages_of, update},
};

use super::store::Records;

/// All pages of one tree.
#[derive(Debug, Clone)]
pub struct Tree {
    pages: BTreeMap<(u8, Vec<u8>), MadePage>,
    /// Root, records and height.
    pub summary: Summary,
}

impl Tree {
    /// The tree without records.
    pub fn empty(suite: Suite) -> Self {
        Self { pages: BTreeMap::new(), summary: Summary::empty(suite) }
    }

    /// The tree of `records`, made from nothing.
    pub fn build(suite: Suite, records: &Records) -> Self {
        Self::of(suite, records.iter().map(|(key, value)| (&key[..], &value[..])))
    }

    /// The tree of entries in the order of their keys, which nobody needs to hold.
    pub fn of<'a>(suite: Suite, entries: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) -> Self {
        let (made, summary) = pages_of(suite, entries).expect("entries are in order");
        Self { pages: made.into_iter().map(located).collect(), summary }
    }

    /// The tree after `changes`, by way of an update.
    pub fn updated(&self, changes: &[Change]) -> Result<Self, NotUpdated> {
        let before = self.summary.clone();
        let update = update(&mut &*self, &before, changes)?;
        let mut pages = self.pages.clone();
        for removed in update.removed {
            pages.remove(&removed);
        }
        pages.extend(update.written.into_iter().map(located));
        Ok(Self { pages, summary: update.summary })
    }

    /// Levels from the leaves to the root.
    pub fn levels(&self) -> u8 {
        self.summary.pages.len() as u8
    }

    /// The pages of one level in key order.
    pub fn level(&self, level: u8) -> impl Iterator<Item = &MadePage> {
        self.pages.range((level, Vec::new())..(level + 1, Vec::new())).map(|(_, page)| page)
    }

    /// The page of `level` where `key` is or would be.
    pub fn page(&self, level: u8, key: &[u8]) -> Option<&MadePage> {
        let below = self.pages.range((level, Vec::new())..=(level, key.to_vec())).next_back();
        below.map(|(_, page)| page).or_else(|| self.level(level).next())
    }
}

fn located(made: MadePage) -> ((u8, Vec<u8>), MadePage) {
    ((made.level, made.page.first_key.clone()), made)
}

impl Pages for &Tree {
    type Error = NotUpdated;

    fn suite(&self) -> Suite {
        self.summary.root.suite()
    }

    fn seek(&mut self, level: u8, key: &[u8]) -> Result<Option<FoundPage>, NotUpdated> {
        Ok(self.page(level, key).map(|made| (made.page.first_key.clone(), made.body.clone())))
    }

    fn next_key(&mut self, level: u8, first_key: &[u8]) -> Result<Option<Vec<u8>>, NotUpdated> {
        let mut behind = self.level(level).map(|made| &made.page.first_key);
        Ok(behind.find(|key| key.as_slice() > first_key).cloned())
    }
}
