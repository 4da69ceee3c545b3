//! Walks along the pages of one level by what their parents hold, so that
//! nothing is read of the pages themselves.

use super::{Pages, missing};
use crate::page::{PageRef, decode_inner};

/// A place among the pages of a level.
pub(super) struct Cursor {
    level: u8,
    /// The pages on the way from the root to the level's parents. None if the
    /// level's only page is the root.
    path: Vec<Step>,
    steps: usize,
}

struct Step {
    children: Vec<PageRef>,
    at: usize,
}

impl Cursor {
    /// A cursor of `level` in a tree of so many levels; it is nowhere yet.
    pub fn new(level: u8, levels: usize) -> Self {
        let steps = levels.saturating_sub(usize::from(level) + 1);
        Self { level, path: Vec::new(), steps }
    }

    /// The page at the place, if the level has a parent.
    pub fn page(&self) -> Option<&PageRef> {
        self.path.last().map(|step| &step.children[step.at])
    }

    /// Goes to the page where `key` is or would be.
    pub fn place<P: Pages>(&mut self, pages: &mut P, key: &[u8]) -> Result<(), P::Error> {
        for depth in 0..self.steps {
            let first_key = depth.checked_sub(1).map(|above| {
                let above = &self.path[above];
                above.children[above.at].first_key.clone()
            });
            let is_there = self.path.get(depth).is_some_and(|step| {
                first_key.as_ref().is_none_or(|first_key| step.children[0].first_key == *first_key)
            });
            if !is_there {
                self.path.truncate(depth);
                let children = self.load(pages, depth, first_key.as_deref())?;
                self.path.push(Step { children, at: 0 });
            }
            let step = &mut self.path[depth];
            let behind = step.children.partition_point(|child| child.first_key.as_slice() <= key);
            step.at = behind.saturating_sub(1);
        }
        Ok(())
    }

    /// Goes to the next page, or the one before; answers whether there is one.
    pub fn step<P: Pages>(&mut self, pages: &mut P, forward: bool) -> Result<bool, P::Error> {
        let can_move = |step: &Step| match forward {
            true => step.at + 1 < step.children.len(),
            false => step.at > 0,
        };
        let Some(depth) = self.path.iter().rposition(can_move) else {
            return Ok(false);
        };
        let step = &mut self.path[depth];
        if forward {
            step.at += 1;
        } else {
            step.at -= 1;
        }
        self.path.truncate(depth + 1);
        for depth in depth + 1..self.steps {
            let above = &self.path[depth - 1];
            let first_key = above.children[above.at].first_key.clone();
            let children = self.load(pages, depth, Some(&first_key))?;
            let at = if forward { 0 } else { children.len() - 1 };
            self.path.push(Step { children, at });
        }
        Ok(true)
    }

    /// The children of the page that begins with `first_key`; of the root if that
    /// is not known.
    fn load<P: Pages>(
        &self,
        pages: &mut P,
        depth: usize,
        first_key: Option<&[u8]>,
    ) -> Result<Vec<PageRef>, P::Error> {
        let level = self.level + (self.steps - depth) as u8;
        let (found, body) =
            pages.seek(level, first_key.unwrap_or_default())?.ok_or_else(missing)?;
        if first_key.is_some_and(|first_key| first_key != found) {
            return Err(missing().into());
        }
        Ok(decode_inner(pages.suite(), &body)?)
    }
}
