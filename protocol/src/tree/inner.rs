//! A level of an update above the lowest: references to pages.

use std::{iter::Peekable, vec::IntoIter};

use super::{
    Excess, Pages, missing,
    recut::{Level, Now, Touched},
    work::Turnover,
};
use crate::{
    page::{MadePage, PageRef, decode_inner, make_inner},
    suite::Suite,
};

/// What becomes of a reference under a key: another one, or none.
pub(super) type Edit = (Vec<u8>, Option<PageRef>);

/// Edits on their way into the inner pages of one level.
pub(super) struct Inner {
    suite: Suite,
    level: u8,
    edits: Peekable<IntoIter<Edit>>,
    pub made: Vec<MadePage>,
    /// Of this level's children, too.
    pub turnover: Turnover,
}

impl Inner {
    /// Of edits in key order, for the pages of `level`, with what the levels below make
    /// and end of what they refer to.
    pub fn new(suite: Suite, level: u8, edits: Vec<Edit>, turnover: Turnover) -> Self {
        Self { suite, level, edits: edits.into_iter().peekable(), made: Vec::new(), turnover }
    }

    /// Counts what an edit makes, and what it ends.
    fn count(&mut self, edit: Option<&PageRef>, old: Option<&PageRef>) -> Result<(), Excess> {
        if let (Some(now), Some(old)) = (edit, old)
            && now.hash == old.hash
        {
            return Ok(());
        }
        self.turnover.count(edit.is_some().into(), old.is_some().into())
    }

    /// What the cut has to know of a page whose hash comes later.
    fn placeholder(&self, first_key: &[u8], children: &[PageRef]) -> PageRef {
        let entries = children.len() as u16;
        PageRef { first_key: first_key.to_vec(), hash: self.suite.none(), records: 0, entries }
    }
}

impl<P: Pages> Level<P> for Inner {
    type Entry = PageRef;
    type Kept = Vec<PageRef>;

    fn key(child: &PageRef) -> &[u8] {
        &child.first_key
    }

    fn next_touched(
        &mut self,
        pages: &mut P,
    ) -> Result<Option<Touched<PageRef, Vec<PageRef>>>, P::Error> {
        let Some((key, _)) = self.edits.peek() else {
            return Ok(None);
        };
        let Some((first_key, body)) = pages.seek(self.level, key)? else {
            // The tree grows by a level.
            let all: Vec<PageRef> = self.edits.by_ref().filter_map(|(_, child)| child).collect();
            self.turnover.count(all.len() as u64, 0)?;
            return Ok(Some(Touched { first_key: None, shrank: false, now: Now::Entries(all) }));
        };
        let before = decode_inner(self.suite, &body)?;
        let bound = pages.next_key(self.level, &first_key)?;
        let (count, mut same_keys) = (before.len(), true);
        let mut now = Vec::with_capacity(count + 8);
        for child in before {
            let mut replaced = false;
            while let Some((key, edit)) = self.edits.next_if(|(key, _)| *key <= child.first_key) {
                self.count(edit.as_ref(), (key == child.first_key).then_some(&child))?;
                replaced |= key == child.first_key;
                same_keys &= key == child.first_key && edit.is_some();
                now.extend(edit);
            }
            if !replaced {
                now.push(child);
            }
        }
        let is_mine = |(key, _): &Edit| bound.as_ref().is_none_or(|bound| key < bound);
        while let Some((_, edit)) = self.edits.next_if(is_mine) {
            self.count(edit.as_ref(), None)?;
            same_keys = false;
            now.extend(edit);
        }
        let shrank = now.len() < count;
        let now = match same_keys {
            true => Now::Kept(self.placeholder(&first_key, &now), now),
            false => Now::Entries(now),
        };
        Ok(Some(Touched { first_key: Some(first_key), shrank, now }))
    }

    fn open(
        &mut self,
        pages: &mut P,
        first_key: &[u8],
        kept: Option<Vec<PageRef>>,
    ) -> Result<Vec<PageRef>, P::Error> {
        if let Some(children) = kept {
            return Ok(children);
        }
        let found = pages.seek(self.level, first_key)?.filter(|(found, _)| found == first_key);
        Ok(decode_inner(self.suite, &found.ok_or_else(missing)?.1)?)
    }

    fn make(&mut self, _pages: &mut P, children: Vec<PageRef>) {
        self.made.push(make_inner(self.suite, self.level, &children));
    }
}
