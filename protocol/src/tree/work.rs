//! How much of a tree a change set may touch.
//!
//! A change set of a few hundred bytes may belong to thousands of pages, each of
//! which may have megabytes. Whoever applies it reads and writes those again while
//! others wait, so there is a bound. It depends on the state before and on the
//! changes alone, or else a replica could refuse what its origin has signed:
//! which leaves are changed in place, and which neighbours are looked at, does not
//! count. An origin makes several change sets of one that is over it.
//!
//! Not here: how many changes, and how many bytes of them, a change set has
//! ([`crate::change`]).

use super::{Pages, Summary};
use crate::{change::Change, encoding::DecodeError, page::INNER_BYTES_MAX};

/// A bound on what a change set touches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Work {
    /// Bytes of the leaves, uncompressed and as they were before, to which its
    /// changes belong.
    pub leaf_bytes_max: u64,
    /// Bytes of leaves that are taken apart instead of being changed in place. Which ones
    /// are depends on the store: only for what need not be judged alike everywhere.
    pub rewritten_bytes_max: u64,
    /// Bytes of the inner pages above those leaves.
    pub inner_bytes_max: u64,
    /// Pages that it makes, and pages that it ends.
    pub pages_max: u64,
    /// Pages that the tree may have above its leaves, beside one for each
    /// [`RECORDS_PER_INNER_PAGE`].
    pub inner_pages_spare: u64,
}

/// Records for each of which a tree may have a page above its leaves. Codes as they are
/// issued have one for 5000, groups of 20 records one for 800.
const RECORDS_PER_INNER_PAGE: u64 = 256;

/// The bound that everybody keeps. Ten thousand changes in one stretch of a register touch
/// some 40 MB of leaves and 1 MB above them; where they are scattered over a million
/// records, their origin makes several sets of them. Of leaves, 64 MiB are unpacked, hashed
/// and packed again in half a second, and are some ten times in memory meanwhile; one change
/// belongs to one leaf of at most 10 MB. Inner pages are read one by one before anything
/// else: 128 MiB are those above 700 scattered leaves if all keys have 1024 bytes. Ten
/// thousand scattered changes make 11 000 pages and end as many.
///
/// Keys that lie inside each other put each record on a page of its own on each of 15
/// levels, and whoever looks for a page's neighbours reads all of these. So a tree has few
/// pages above its leaves; 1024 are those above 800 such records.
pub const WORK: Work = Work {
    leaf_bytes_max: 64 * 1024 * 1024,
    rewritten_bytes_max: u64::MAX,
    inner_bytes_max: 128 * 1024 * 1024,
    pages_max: 16_384,
    inner_pages_spare: 1024,
};

/// A change set that nobody takes, whoever has signed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Excess {
    /// Its leaves have too many bytes.
    #[error("its changes belong to leaves of too many bytes")]
    Leaves,
    /// The pages above them have too many bytes.
    #[error("its changes belong to inner pages of more than 128 MiB")]
    Inner,
    /// It makes too many pages, or ends too many.
    #[error("it makes or ends more than 16384 pages")]
    Pages,
    /// The tree would be too high, or have too many pages above its leaves.
    #[error("its keys lie too deep inside each other, as no register's numbers do")]
    Levels,
}

/// Why a tree was not updated whose pages can always be read, as those in memory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotUpdated {
    /// A page does not decode, or is missing.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The changes touch too much.
    #[error(transparent)]
    Excess(#[from] Excess),
}

/// Pages that a change set makes and ends, as far as they are counted.
///
/// Two pages of a level with one hash have the same content, so a page that is written
/// as it was does not count: which ones are depends on what lies beside leaves.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turnover {
    made: u64,
    ended: u64,
    max: u64,
}

impl Turnover {
    /// So many pages more.
    pub fn count(&mut self, made: u64, ended: u64) -> Result<(), Excess> {
        self.made += made;
        self.ended += ended;
        if self.made.max(self.ended) > self.max { Err(Excess::Pages) } else { Ok(()) }
    }
}

impl Work {
    /// Nothing is made and ended yet.
    pub(super) fn turnover(self) -> Turnover {
        Turnover { made: 0, ended: 0, max: self.pages_max }
    }

    /// Refuses a tree that has too many pages above its leaves.
    pub fn check_shape(self, tree: &Summary) -> Result<(), Excess> {
        let inner: u64 = tree.pages.iter().skip(1).sum();
        let most = (tree.records / RECORDS_PER_INNER_PAGE).saturating_add(self.inner_pages_spare);
        if inner > most { Err(Excess::Levels) } else { Ok(()) }
    }

    /// Refuses changes that belong to too many bytes of inner pages, in a tree of so
    /// many levels.
    pub(super) fn check_inner<P: Pages>(
        self,
        pages: &mut P,
        levels: usize,
        changes: &[Change],
    ) -> Result<(), P::Error> {
        let above = levels.saturating_sub(1);
        let at_most = changes.len().saturating_mul(INNER_BYTES_MAX).saturating_mul(above);
        if at_most as u64 <= self.inner_bytes_max {
            return Ok(());
        }
        let mut bytes = 0;
        for level in (1..levels as u8).rev() {
            let mut rest = changes;
            while let Some(first) = rest.first()
                && let Some((first_key, body)) = pages.seek(level, first.key())?
            {
                bytes += body.len() as u64;
                if bytes > self.inner_bytes_max {
                    return Err(Excess::Inner.into());
                }
                let bound = pages.next_key(level, &first_key)?;
                let is_below = |change: &Change| bound.as_ref().is_none_or(|b| change.key() < b);
                rest = &rest[rest.partition_point(is_below)..];
            }
        }
        Ok(())
    }
}
