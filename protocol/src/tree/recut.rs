//! One level of an update: which pages change, and into which.
//!
//! A level says which of its old pages are touched and what becomes of each. Most
//! stay pages as they are ([`Now::Kept`]). Around the others the level is cut
//! again ([`crate::cut`]), with old pages that nothing touches as single items,
//! whose parents know all that the rule asks for. That ends at the first old
//! page that is a page still; [`Recut::region`] says why the ones behind it are,
//! too.

use super::{Pages, cursor::Cursor};
use crate::{
    cut::{Cutter, PAGE_ENTRIES_MAX, shared_bits},
    page::PageRef,
};

/// What a level does for a [`Recut`].
pub(super) trait Level<P: Pages> {
    /// What a page of the level holds.
    type Entry;
    /// What is new in a page that stays one.
    type Kept;

    /// An entry's key.
    fn key(entry: &Self::Entry) -> &[u8];

    /// The next old page whose content changes, in key order.
    #[expect(clippy::type_complexity, reason = "an answer that may be missing")]
    fn next_touched(
        &mut self,
        pages: &mut P,
    ) -> Result<Option<Touched<Self::Entry, Self::Kept>>, P::Error>;

    /// All entries of the old page that begins with `first_key`, with what is new.
    fn open(
        &mut self,
        pages: &mut P,
        first_key: &[u8],
        kept: Option<Self::Kept>,
    ) -> Result<Vec<Self::Entry>, P::Error>;

    /// These entries are a page.
    fn make(&mut self, pages: &mut P, entries: Vec<Self::Entry>);
}

/// An old page whose content changes.
pub(super) struct Touched<E, K> {
    /// None if the level had no page.
    pub first_key: Option<Vec<u8>>,
    /// Whether it has fewer entries than before.
    pub shrank: bool,
    pub now: Now<E, K>,
}

/// What becomes of an old page.
pub(super) enum Now<E, K> {
    /// It begins with the same key, and no other page's keys are in its group.
    Kept(PageRef, K),
    /// Its entries, and those that belong beside it, in key order.
    Entries(Vec<E>),
}

enum Item<E, K> {
    Entry(E),
    /// A page that may stay as it is, but for what is new in it.
    Page(PageRef, Option<K>),
}

/// One level of an update.
pub(super) struct Recut<P: Pages, L: Level<P>> {
    pub level: L,
    cursor: Cursor,
    /// The next touched page.
    ahead: Option<Touched<L::Entry, L::Kept>>,
    /// The old page at which the last region ended, and what its first key
    /// shares with the key before it.
    settled: Option<(Vec<u8>, u16)>,
    /// Pages that stay, in key order.
    pub kept: Vec<(PageRef, L::Kept)>,
    /// First keys of the old pages that are taken apart.
    pub consumed: Vec<Vec<u8>>,
}

/// The items of a region on their way through the cutter.
struct Region<E, K> {
    cutter: Cutter<Item<E, K>>,
    /// What the first item shares with the key before it.
    before: u16,
    begun: bool,
    /// The key of the last item, if there is one.
    last_key: Vec<u8>,
    last_is_entry: bool,
    /// The first key of the last old page that went in.
    last_page: Vec<u8>,
    /// Items from the front that have to be cut.
    due: usize,
}

impl<E, K> Region<E, K> {
    /// Pushes an item, whose key is asked of it without a copy: entries are many.
    fn push(&mut self, item: Item<E, K>, entries: usize, key: impl Fn(&E) -> &[u8]) {
        let (key, is_entry) = match &item {
            Item::Entry(entry) => (key(entry), true),
            Item::Page(page, _) => (page.first_key.as_slice(), false),
        };
        let is_first = self.cutter.is_empty() && !self.begun;
        let shared = if is_first { self.before } else { shared_bits(&self.last_key, key) };
        self.begun = true;
        self.last_is_entry = is_entry;
        self.last_key.clear();
        self.last_key.extend_from_slice(key);
        self.cutter.push(item, entries, shared);
    }

    /// Whether the entry before an old page shares more with it than the page
    /// before that one did.
    fn comes_near(&self, page: &PageRef) -> bool {
        let shared = |key: &[u8]| shared_bits(key, &page.first_key);
        self.last_is_entry && shared(&self.last_key) > shared(&self.last_page)
    }
}

impl<P: Pages, L: Level<P>> Recut<P, L> {
    /// Of `level` in a tree that has had so many levels.
    pub fn new(level: L, number: u8, levels: usize) -> Self {
        let cursor = Cursor::new(number, levels);
        Self { level, cursor, ahead: None, settled: None, kept: Vec::new(), consumed: Vec::new() }
    }

    /// Goes through all touched pages.
    pub fn run(&mut self, pages: &mut P) -> Result<(), P::Error> {
        self.ahead = self.level.next_touched(pages)?;
        while let Some(touched) = self.next_touched(pages)? {
            match touched.now {
                Now::Kept(page, kept) if !touched.shrank => self.kept.push((page, kept)),
                _ => self.region(pages, touched)?,
            }
        }
        self.consumed.sort();
        Ok(())
    }

    #[expect(clippy::type_complexity, reason = "an answer that may be missing")]
    fn next_touched(
        &mut self,
        pages: &mut P,
    ) -> Result<Option<Touched<L::Entry, L::Kept>>, P::Error> {
        let next = self.ahead.take();
        if next.is_some() {
            self.ahead = self.level.next_touched(pages)?;
        }
        Ok(next)
    }

    /// Cuts the level again around a touched page.
    ///
    /// A page to the left changes only if the smallest group around it fits into
    /// a page now, so it lies within a page's entries of one that shrank. That may be
    /// the touched page or one behind it that the region comes to, so the region always
    /// begins there. It ends at an old page that is still one, behind all
    /// that is touched: a group that begins at it or behind it holds what it held.
    fn region(
        &mut self,
        pages: &mut P,
        touched: Touched<L::Entry, L::Kept>,
    ) -> Result<(), P::Error> {
        let mut region = Region {
            cutter: Cutter::default(),
            before: 0,
            begun: false,
            last_key: Vec::new(),
            last_is_entry: false,
            last_page: Vec::new(),
            due: 0,
        };
        let mut at_end = true;
        if let Some(first_key) = touched.first_key.clone() {
            self.cursor.place(pages, &first_key)?;
            self.go_back(pages)?;
            region.before = self.shared_before(pages)?;
            at_end = self.cursor.page().is_none();
            while let Some(page) = self.cursor.page().filter(|page| page.first_key != first_key) {
                let page = page.clone();
                self.push_page(pages, &mut region, page, None)?;
                at_end = !self.cursor.step(pages, true)?;
            }
        }
        self.push_touched(pages, &mut region, touched)?;
        loop {
            while !at_end && !region.cutter.knows_next() {
                at_end = !self.cursor.step(pages, true)?;
                if !at_end {
                    self.push_next(pages, &mut region)?;
                }
            }
            let Some((front, shared)) = region.cutter.front() else {
                return Ok(());
            };
            if let (Item::Page(page, None), 0) = (front, region.due) {
                self.settled = Some((page.first_key.clone(), shared));
                return Ok(());
            }
            let Some(items) = region.cutter.next_page(at_end) else {
                return Ok(());
            };
            region.due = region.due.saturating_sub(items.len());
            self.emit(pages, items)?;
        }
    }

    /// Goes back over a page's worth of entries, at most to where the last region
    /// ended.
    fn go_back(&mut self, pages: &mut P) -> Result<(), P::Error> {
        let mut entries = 0;
        while entries < PAGE_ENTRIES_MAX {
            let settled = self.settled.as_ref().map(|(first_key, _)| first_key);
            if self.cursor.page().is_some_and(|page| Some(&page.first_key) == settled)
                || !self.cursor.step(pages, false)?
            {
                break;
            }
            let Some(page) = self.cursor.page() else { break };
            let now = self.kept_place(&page.first_key).map(|place| &self.kept[place].0);
            entries += usize::from(now.unwrap_or(page).entries);
        }
        Ok(())
    }

    /// What the page at the cursor shares with the key before it.
    fn shared_before(&mut self, pages: &mut P) -> Result<u16, P::Error> {
        let Some(page) = self.cursor.page().cloned() else { return Ok(0) };
        if let Some((first_key, shared)) = &self.settled
            && *first_key == page.first_key
        {
            return Ok(*shared);
        }
        if !self.cursor.step(pages, false)? {
            return Ok(0);
        }
        // A page is a group, so what lies outside of it shares as much with its
        // first key as with its last.
        let shared =
            self.cursor.page().map(|before| shared_bits(&before.first_key, &page.first_key));
        self.cursor.step(pages, true)?;
        Ok(shared.unwrap_or(0))
    }

    /// Pushes the old page at the cursor.
    fn push_next(
        &mut self,
        pages: &mut P,
        region: &mut Region<L::Entry, L::Kept>,
    ) -> Result<(), P::Error> {
        let Some(page) = self.cursor.page().cloned() else { return Ok(()) };
        let is_touched = self
            .ahead
            .as_ref()
            .is_some_and(|next| next.first_key.as_ref() == Some(&page.first_key));
        if is_touched && let Some(touched) = self.next_touched(pages)? {
            self.push_touched(pages, region, touched)
        } else {
            self.push_page(pages, region, page, None)
        }
    }

    fn push_touched(
        &mut self,
        pages: &mut P,
        region: &mut Region<L::Entry, L::Kept>,
        touched: Touched<L::Entry, L::Kept>,
    ) -> Result<(), P::Error> {
        match touched.now {
            Now::Kept(page, kept) => {
                self.push_page(pages, region, page, Some(kept))?;
                region.due = region.cutter.len();
            }
            Now::Entries(entries) => {
                // The page behind a gap has another one before it.
                region.due = region.cutter.len() + entries.len().max(1);
                for entry in entries {
                    region.push(Item::Entry(entry), 1, L::key);
                }
                if let Some(first_key) = touched.first_key {
                    region.last_page.clone_from(&first_key);
                    self.consumed.push(first_key);
                }
            }
        }
        Ok(())
    }

    fn push_page(
        &mut self,
        pages: &mut P,
        region: &mut Region<L::Entry, L::Kept>,
        page: PageRef,
        kept: Option<L::Kept>,
    ) -> Result<(), P::Error> {
        let (page, kept) = match self.kept_place(&page.first_key) {
            Some(place) => {
                let (page, kept) = self.kept.remove(place);
                (page, Some(kept))
            }
            None => (page, kept),
        };
        if region.comes_near(&page) && self.is_in_group(pages, region, &page)? {
            let entries = self.open(pages, &page.first_key, kept)?;
            region.last_page = page.first_key;
            for entry in entries {
                region.push(Item::Entry(entry), 1, L::key);
            }
            region.due = region.cutter.len();
            return Ok(());
        }
        region.last_page.clone_from(&page.first_key);
        let entries = usize::from(page.entries);
        region.push(Item::Page(page, kept), entries, L::key);
        Ok(())
    }

    /// Whether the entry before the old page at the cursor is in its group, given
    /// that it shares more with it than the page before: then it shares more than
    /// the page behind, too.
    fn is_in_group(
        &mut self,
        pages: &mut P,
        region: &Region<L::Entry, L::Kept>,
        page: &PageRef,
    ) -> Result<bool, P::Error> {
        if !self.cursor.step(pages, true)? {
            return Ok(true);
        }
        let shared = |key: &[u8]| shared_bits(key, &page.first_key);
        let behind = self.cursor.page().map_or(0, |behind| shared(&behind.first_key));
        self.cursor.step(pages, false)?;
        Ok(shared(&region.last_key) > behind)
    }

    /// Where a page that stays is noted, if it is.
    fn kept_place(&self, first_key: &[u8]) -> Option<usize> {
        self.kept.binary_search_by(|(page, _)| page.first_key.as_slice().cmp(first_key)).ok()
    }

    fn open(
        &mut self,
        pages: &mut P,
        first_key: &[u8],
        kept: Option<L::Kept>,
    ) -> Result<Vec<L::Entry>, P::Error> {
        self.consumed.push(first_key.to_vec());
        self.level.open(pages, first_key, kept)
    }

    /// These items are a page now.
    fn emit(
        &mut self,
        pages: &mut P,
        mut items: Vec<Item<L::Entry, L::Kept>>,
    ) -> Result<(), P::Error> {
        if let [Item::Page(..)] = items.as_slice() {
            if let Some(Item::Page(page, Some(kept))) = items.pop() {
                self.kept.push((page, kept));
            }
            return Ok(());
        }
        let mut entries = Vec::with_capacity(PAGE_ENTRIES_MAX);
        for item in items {
            match item {
                Item::Entry(entry) => entries.push(entry),
                Item::Page(page, kept) => {
                    entries.extend(self.open(pages, &page.first_key, kept)?);
                }
            }
        }
        self.level.make(pages, entries);
        Ok(())
    }
}
