//! The lowest level of an update: records.

use std::{collections::VecDeque, sync::Arc};

use super::{
    Excess, Kept, Pages, Work, missing,
    recut::{Level, Now, Touched},
};
use crate::{
    change::Change,
    encoding::DecodeError,
    page::{Leaf, MadePage, RawLeaf, RawLeafWriter},
    patch::{Outcome, Updated},
};

/// Leaves that are hashed and compressed, or patched, together: enough to share out among
/// threads, and few enough to hold uncompressed.
const LEAVES_AT_ONCE: usize = 64;
/// Bytes that end such a group earlier: one leaf may have 10 MiB.
const LEAF_BYTES_AT_ONCE: usize = 4 * 1024 * 1024;

/// A record of a leaf.
pub(super) enum Record<'a> {
    /// As an old leaf has it.
    Stored(Arc<Leaf>, usize),
    /// As a change puts it.
    Put(&'a [u8], &'a [u8]),
}

impl Record<'_> {
    fn entry(&self) -> (&[u8], &[u8]) {
        match self {
            Record::Stored(leaf, index) => leaf.entry(*index),
            Record::Put(key, value) => (key, value),
        }
    }
}

/// What is new in a leaf that stays one.
pub(super) struct Patched<'a> {
    pub patch: Option<Vec<u8>>,
    pub bytes_before: u64,
    pub bytes: u64,
    changes: &'a [Change],
}

/// Changes on their way into leaves.
pub(super) struct Leaves<'a> {
    changes: &'a [Change],
    /// What becomes of the next leaves that have an index.
    due: VecDeque<Due<'a>>,
    raw: Vec<RawLeaf>,
    raw_bytes: usize,
    pub made: Vec<MadePage>,
    /// Bytes of the leaves that were taken apart.
    pub bytes_gone: u64,
    /// Bytes of the leaves to which changes belong.
    work: u64,
    bounds: Work,
}

/// A leaf, its changes, and what becomes of it.
struct Due<'a> {
    kept: Kept,
    changes: &'a [Change],
    updated: Result<Updated, DecodeError>,
}

impl<'a> Leaves<'a> {
    /// Of `changes`, sorted by key without repetition, within these bounds.
    pub fn new(changes: &'a [Change], bounds: Work) -> Self {
        Self {
            changes,
            due: VecDeque::new(),
            raw: Vec::new(),
            raw_bytes: 0,
            made: Vec::new(),
            bytes_gone: 0,
            work: 0,
            bounds,
        }
    }

    /// Counts a leaf to which changes belong. It is counted before anything is done
    /// with it, and whether it is changed in place depends on the store, so that
    /// does not count.
    fn count_work(&mut self, bytes: u64) -> Result<(), Excess> {
        self.work += bytes;
        if self.work > self.bounds.leaf_bytes_max { Err(Excess::Leaves) } else { Ok(()) }
    }

    /// Counts a leaf that is taken apart.
    fn count_gone(&mut self, bytes: u64) -> Result<(), Excess> {
        self.bytes_gone += bytes;
        match self.bytes_gone > self.bounds.rewritten_bytes_max {
            true => Err(Excess::Leaves),
            false => Ok(()),
        }
    }

    /// The changes of the next `leaf`, up to the first key of the one behind.
    fn changes_of<P: Pages>(
        changes: &mut &'a [Change],
        pages: &mut P,
        first_key: &[u8],
    ) -> Result<&'a [Change], P::Error> {
        let bound = pages.next_key(0, first_key)?;
        let inside = |change: &Change| bound.as_ref().is_none_or(|bound| change.key() < bound);
        let (mine, rest) = changes.split_at(changes.partition_point(inside));
        *changes = rest;
        Ok(mine)
    }

    /// What becomes of the leaves of the next changes, up to one without an index.
    fn look_ahead<P: Pages>(&mut self, pages: &mut P) -> Result<(), P::Error> {
        let mut rest = self.changes;
        let mut found = Vec::new();
        while found.len() < LEAVES_AT_ONCE
            && let Some(first) = rest.first()
            && let Some(kept) = pages.kept(first.key())?
        {
            let mine = Self::changes_of(&mut rest, pages, &kept.first_key)?;
            // None at all: the leaf that they belong to has no index.
            if mine.is_empty() {
                break;
            }
            found.push((kept, mine));
        }
        let updated = pages.patch(&found);
        let due = found.into_iter().zip(updated);
        self.due = due.map(|((kept, changes), updated)| Due { kept, changes, updated }).collect();
        Ok(())
    }

    /// A leaf with its changes merged in.
    fn merged(
        first_key: Option<Vec<u8>>,
        leaf: Option<Leaf>,
        changes: &'a [Change],
    ) -> TouchedLeaf<'a> {
        let mut entries = Vec::with_capacity(leaf.as_ref().map_or(0, Leaf::len) + changes.len());
        let mut changes = changes.iter().peekable();
        let put = |entries: &mut Vec<Record<'a>>, change: &'a Change| {
            entries.extend(change.entry().map(|(key, value)| Record::Put(key, value)));
        };
        let before = leaf.as_ref().map_or(0, Leaf::len);
        if let Some(leaf) = leaf.map(Arc::new) {
            for index in 0..leaf.len() {
                let key = leaf.entry(index).0;
                let mut replaced = false;
                while let Some(change) = changes.next_if(|change| change.key() <= key) {
                    replaced |= change.key() == key;
                    put(&mut entries, change);
                }
                if !replaced {
                    entries.push(Record::Stored(leaf.clone(), index));
                }
            }
        }
        changes.for_each(|change| put(&mut entries, change));
        Touched { first_key, shrank: entries.len() < before, now: Now::Entries(entries) }
    }

    /// Ends the level: all leaves are made.
    pub fn finish<P: Pages>(&mut self, pages: &mut P) {
        self.raw_bytes = 0;
        self.made.extend(pages.make(std::mem::take(&mut self.raw)));
    }
}

type TouchedLeaf<'a> = Touched<Record<'a>, Patched<'a>>;

impl<'a, P: Pages> Level<P> for Leaves<'a> {
    type Entry = Record<'a>;
    type Kept = Patched<'a>;

    fn key<'r>(record: &'r Record<'a>) -> &'r [u8] {
        record.entry().0
    }

    fn next_touched(&mut self, pages: &mut P) -> Result<Option<TouchedLeaf<'a>>, P::Error> {
        while let Some(first) = self.changes.first() {
            if self.due.is_empty() {
                self.look_ahead(pages)?;
            }
            let Some(Due { kept, changes, updated }) = self.due.pop_front() else {
                // It has no index, or there is no leaf at all.
                let Some((first_key, leaf)) = pages.seek_leaf(first.key())? else {
                    let all = std::mem::take(&mut self.changes);
                    return Ok(Some(Self::merged(None, None, all)));
                };
                self.count_work(leaf.bytes())?;
                self.count_gone(leaf.bytes())?;
                let mine = Self::changes_of(&mut self.changes, pages, &first_key)?;
                return Ok(Some(Self::merged(Some(first_key), Some(leaf), mine)));
            };
            self.changes = &self.changes[changes.len()..];
            let Updated { bytes_before, outcome } = updated?;
            if outcome == Outcome::Stale {
                let leaf = Self::leaf_at(pages, &kept.first_key)?;
                self.count_work(leaf.bytes())?;
                self.count_gone(leaf.bytes())?;
                return Ok(Some(Self::merged(Some(kept.first_key), Some(leaf), changes)));
            }
            self.count_work(bytes_before)?;
            match outcome {
                Outcome::Unchanged | Outcome::Stale => {}
                Outcome::Patched { page, bytes, patch, shrank } => {
                    let first_key = Some(page.first_key.clone());
                    let now = Now::Kept(page, Patched { patch, bytes_before, bytes, changes });
                    return Ok(Some(Touched { first_key, shrank, now }));
                }
                Outcome::Rewrite => {
                    let leaf = Self::leaf_at(pages, &kept.first_key)?;
                    self.count_gone(leaf.bytes())?;
                    return Ok(Some(Self::merged(Some(kept.first_key), Some(leaf), changes)));
                }
            }
        }
        Ok(None)
    }

    fn open(
        &mut self,
        pages: &mut P,
        first_key: &[u8],
        kept: Option<Patched<'a>>,
    ) -> Result<Vec<Record<'a>>, P::Error> {
        let leaf = Self::leaf_at(pages, first_key)?;
        self.count_gone(leaf.bytes())?;
        let changes = kept.map_or(&[][..], |kept| kept.changes);
        match Self::merged(None, Some(leaf), changes).now {
            Now::Entries(entries) => Ok(entries),
            Now::Kept(..) => Ok(Vec::new()),
        }
    }

    fn make(&mut self, pages: &mut P, records: Vec<Record<'a>>) {
        let bytes = records.iter().map(|record| {
            let (key, value) = record.entry();
            key.len() + value.len() + 6
        });
        let mut leaf = RawLeafWriter::with_capacity(records.len(), bytes.sum());
        for record in &records {
            let (key, value) = record.entry();
            leaf.push(key, value);
        }
        let leaf = leaf.finish();
        self.raw_bytes += leaf.bytes();
        self.raw.push(leaf);
        if self.raw.len() >= LEAVES_AT_ONCE || self.raw_bytes >= LEAF_BYTES_AT_ONCE {
            self.finish(pages);
        }
    }
}

impl Leaves<'_> {
    /// The leaf that begins with exactly this key.
    fn leaf_at<P: Pages>(pages: &mut P, first_key: &[u8]) -> Result<Leaf, P::Error> {
        let found = pages.seek_leaf(first_key)?.filter(|(found, _)| found == first_key);
        Ok(found.ok_or_else(missing)?.1)
    }
}
