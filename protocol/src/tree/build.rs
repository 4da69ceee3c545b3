//! The inner pages above leaves that arrive in key order.

use super::Summary;
use crate::{
    cut::{Cutter, PAGE_ENTRIES_MAX, shared_bits},
    page::{LEVELS_MAX, Leaf, MadePage, PageRef, RawLeaf, make_inner},
    suite::Suite,
};

/// A tree that a peer delivers, or that was found on the disk, breaks a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// A page does not begin behind the end of the one before.
    #[error("the pages are not in key order")]
    Order,
    /// A page does not begin or end where the rule says.
    #[error("a page does not end where its keys say")]
    Ends,
    /// More levels than any data can make.
    #[error("its keys lie too deep inside each other")]
    Height,
}

/// Makes the inner pages above leaves that arrive in key order, and checks where
/// the leaves end.
///
/// It holds the references of little more than one page a level.
#[derive(Debug)]
pub struct TreeBuilder {
    suite: Suite,
    /// The leaves that have arrived, to see whether they are cut where the rule
    /// says.
    leaves: Cutter<()>,
    /// The last leaf: its last key, and what its first key shares with the key
    /// before it and with its own last key.
    last: Option<(Vec<u8>, u16, u16)>,
    levels: Vec<Level>,
    records: u64,
    bytes: u64,
}

/// The pages of one level, on their way into those above.
#[derive(Debug, Default)]
struct Level {
    pages: u64,
    open: Cutter<PageRef>,
    last_key: Vec<u8>,
}

impl TreeBuilder {
    /// A builder without leaves.
    pub fn new(suite: Suite) -> Self {
        let (leaves, levels) = (Cutter::default(), Vec::new());
        Self { suite, leaves, last: None, levels, records: 0, bytes: 0 }
    }

    /// Takes the next leaf; inner pages that are complete go to `made`.
    pub fn push(
        &mut self,
        leaf: &Leaf,
        page: PageRef,
        made: &mut Vec<MadePage>,
    ) -> Result<(), ShapeError> {
        let inside =
            if leaf.len() == 1 { u16::MAX } else { shared_bits(leaf.first_key(), leaf.last_key()) };
        let mut shared = 0;
        if let Some((last_key, before, last_inside)) = self.last.take() {
            if last_key.as_slice() >= leaf.first_key() {
                return Err(ShapeError::Order);
            }
            shared = shared_bits(&last_key, leaf.first_key());
            check_group(last_inside, before, shared)?;
        }
        self.last = Some((leaf.last_key().to_vec(), shared, inside));
        if leaf.len() > PAGE_ENTRIES_MAX {
            return Err(ShapeError::Ends);
        }
        self.leaves.push((), leaf.len(), shared);
        self.check_leaves(false)?;
        self.records += page.records;
        self.bytes += leaf.bytes();
        self.add(0, page, made)
    }

    /// Each leaf has to be the page that the rule makes there.
    fn check_leaves(&mut self, end: bool) -> Result<(), ShapeError> {
        while let Some(page) = self.leaves.next_page(end) {
            if page.len() != 1 {
                return Err(ShapeError::Ends);
            }
        }
        Ok(())
    }

    /// Counts a page of `level` and puts it under its parent, whose end is known
    /// only when more have arrived.
    fn add(
        &mut self,
        number: u8,
        page: PageRef,
        made: &mut Vec<MadePage>,
    ) -> Result<(), ShapeError> {
        if number >= LEVELS_MAX {
            return Err(ShapeError::Height);
        }
        if self.levels.len() == usize::from(number) {
            self.levels.push(Level::default());
        }
        let level = &mut self.levels[usize::from(number)];
        let shared =
            if level.pages == 0 { 0 } else { shared_bits(&level.last_key, &page.first_key) };
        level.pages += 1;
        level.last_key.clone_from(&page.first_key);
        level.open.push(page, 1, shared);
        self.close(number, false, made)
    }

    /// Makes the parents of a level's pages that are known.
    fn close(&mut self, number: u8, end: bool, made: &mut Vec<MadePage>) -> Result<(), ShapeError> {
        while let Some(children) = self.levels[usize::from(number)].open.next_page(end) {
            let parent = make_inner(self.suite, number + 1, &children);
            let page = parent.page.clone();
            made.push(parent);
            self.add(number + 1, page, made)?;
        }
        Ok(())
    }

    /// Ends the tree: the last inner pages go to `made`.
    pub fn finish(mut self, made: &mut Vec<MadePage>) -> Result<Summary, ShapeError> {
        if let Some((_, before, inside)) = self.last.take() {
            check_group(inside, before, 0)?;
        }
        self.check_leaves(true)?;
        for number in 0..LEVELS_MAX {
            let Some(level) = self.levels.get_mut(usize::from(number)) else {
                return Ok(Summary::empty(self.suite));
            };
            if level.pages > 1 {
                self.close(number, true, made)?;
                continue;
            }
            let root = level.open.next_page(true).and_then(|mut pages| pages.pop());
            let root = root.ok_or(ShapeError::Height)?;
            let pages = self.levels.iter().map(|level| level.pages).collect();
            let (records, bytes) = (self.records, self.bytes);
            return Ok(Summary { root: root.hash, records, bytes, pages });
        }
        Err(ShapeError::Height)
    }
}

/// All pages of the tree over these entries, which are in key order, and what it
/// amounts to.
pub fn pages_of<'a>(
    suite: Suite,
    entries: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
) -> Result<(Vec<MadePage>, Summary), ShapeError> {
    let (mut builder, mut pages) = (TreeBuilder::new(suite), Vec::new());
    for raw in RawLeaf::cut(entries) {
        let made = raw.make(suite);
        let leaf = Leaf::decode(&made.body).map_err(|_| ShapeError::Order)?;
        builder.push(&leaf, made.page.clone(), &mut pages)?;
        pages.push(made);
    }
    let summary = builder.finish(&mut pages)?;
    Ok((pages, summary))
}

/// The keys of a leaf are a group only if they share more with each other than
/// with their neighbours.
fn check_group(inside: u16, before: u16, behind: u16) -> Result<(), ShapeError> {
    if inside > before.max(behind) { Ok(()) } else { Err(ShapeError::Ends) }
}
