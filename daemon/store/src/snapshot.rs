//! A partition's pages as they were when a snapshot was opened.
//!
//! It reads the live page first and then looks whether it was saved since
//! ([`crate::tree::saved`]): if not, the live one had not changed. The other way
//! round could miss a page that is saved in between. A leaf's patch is saved like
//! any page. A page that is not the one its parent holds is an error
//! ([`protocol::tree::Checked`]), so a damaged store shows nobody a wrong one.

use std::sync::{Arc, atomic::Ordering};

use protocol::{
    page::Leaf,
    suite::Suite,
    tree::{Checked, FoundPage, Pages, Path},
};

use crate::{
    error::StoreError,
    jobs::Opened,
    keys,
    state::{Head, Shared},
    tree::{OpenSnapshot, pages::whole, saved::PAGE_SAVED},
};

/// A partition as it was when this was opened. Dropping it lets the writer
/// forget what it saved. While it lives the database's files stay open, even if
/// the store was dropped.
pub struct Snapshot {
    saved: Saved,
    /// The way to the inner page that was read last.
    inner: Path,
    /// The way to the leaf that was read last: whoever shows a tree reads both in turns.
    leaves: Path,
}

/// Tells that a snapshot is still read by somebody who has to wait for something
/// else, for a bounded time of his own.
#[derive(Clone)]
pub struct KeepOpen(Arc<OpenSnapshot>);

impl KeepOpen {
    /// It counts as read at this moment.
    pub fn touch(&self) {
        self.0.used_ms.store(self.0.age_ms(), Ordering::Relaxed);
    }
}

impl Snapshot {
    pub(crate) fn new(shared: Arc<Shared>, opened: Opened) -> Self {
        let path = || Path::new(&opened.head.summary);
        Self { inner: path(), leaves: path(), saved: Saved { shared, opened } }
    }

    /// The head whose tree this shows.
    pub fn head(&self) -> &Head {
        &self.saved.opened.head
    }

    /// What keeps it open while its reader is busy elsewhere.
    pub fn keep_open(&self) -> KeepOpen {
        KeepOpen(self.saved.opened.open.clone())
    }

    /// All leaves in key order. A leaf at a time is in memory.
    pub fn leaves(&mut self) -> impl Iterator<Item = Result<Leaf, StoreError>> {
        let mut next: Option<Vec<u8>> = Some(Vec::new());
        std::iter::from_fn(move || {
            let from = next.take()?;
            let step = self.read(0, |pages| {
                let Some((first_key, leaf)) = pages.seek_leaf(&from)? else {
                    return Ok(None);
                };
                Ok(Some((leaf, pages.next_key(0, &first_key)?)))
            });
            match step.transpose()? {
                Ok((leaf, behind)) => {
                    next = behind;
                    Some(Ok(leaf))
                }
                Err(error) => Some(Err(error)),
            }
        })
    }

    /// The leaf that begins at `key` or before it, or else the first one, as a page is
    /// found ([`Pages::seek`]), and its first key.
    pub fn leaf(&mut self, key: &[u8]) -> Result<Option<(Vec<u8>, Leaf)>, StoreError> {
        self.read(0, |pages| pages.seek_leaf(key))
    }

    /// Reads pages of `level`.
    fn read<T>(
        &mut self,
        level: u8,
        read: impl FnOnce(&mut Checked<'_, Saved>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let path = if level == 0 { &mut self.leaves } else { &mut self.inner };
        let answer = read(&mut Checked::new(&mut self.saved, path));
        let Saved { shared, opened } = &self.saved;
        match shared.partition(&opened.head.signed.header().partition) {
            Some(state) if state.number == opened.open.number => {
                shared.heed(&opened.head, &state, answer)
            }
            _ => answer,
        }
    }
}

impl Pages for Snapshot {
    type Error = StoreError;

    fn suite(&self) -> Suite {
        self.saved.suite()
    }

    fn seek(&mut self, level: u8, key: &[u8]) -> Result<Option<FoundPage>, StoreError> {
        self.read(level, |pages| pages.seek(level, key))
    }

    fn next_key(&mut self, level: u8, first_key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(level, |pages| pages.next_key(level, first_key))
    }

    fn seek_leaf(&mut self, key: &[u8]) -> Result<Option<(Vec<u8>, Leaf)>, StoreError> {
        self.leaf(key)
    }
}

/// The pages as they are stored, live or saved.
struct Saved {
    shared: Arc<Shared>,
    opened: Opened,
}

impl Saved {
    /// A page without its patch.
    fn find(&self, level: u8, key: &[u8]) -> Result<Option<FoundPage>, StoreError> {
        match self.at_or_before(level, key)? {
            Some(found) => Ok(Some(found)),
            None => self.at_or_behind(level, &[]),
        }
    }

    fn check_open(&self) -> Result<(), StoreError> {
        if self.opened.open.closed.load(Ordering::Acquire) {
            return Err(StoreError::SnapshotExpired);
        }
        self.opened.open.used_ms.store(self.opened.open.age_ms(), Ordering::Relaxed);
        Ok(())
    }

    fn level_prefix(&self, level: u8) -> Vec<u8> {
        keys::page(self.opened.open.number, self.opened.open.generation, level, &[])
    }

    /// The patch of the leaf that begins with `first_key`. It is looked for
    /// behind the leaf's bytes, which is right: what changes either saves both.
    fn patch_of(&self, first_key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let key = keys::page(
            self.opened.open.number,
            self.opened.open.generation,
            keys::PATCH,
            first_key,
        );
        let live = self.shared.disk.get_chunked(&key)?;
        let saved = self.shared.disk.get_chunked(&keys::saved_page(self.opened.open.id, &key))?;
        self.check_open()?;
        Ok(match saved.as_deref().map(<[u8]>::split_first) {
            None => live,
            Some(Some((&PAGE_SAVED, patch))) => Some(patch.to_vec()),
            Some(_) => None,
        })
    }

    /// The first page whose first key is at least `key`.
    fn at_or_behind(&self, level: u8, key: &[u8]) -> Result<Option<FoundPage>, StoreError> {
        let mut from = key.to_vec();
        loop {
            let (live, saved) = self.look(level, |prefix| {
                self.shared.disk.first_at_or_behind(prefix, &[prefix, &from].concat())
            })?;
            match nearer(live, saved, |live, saved| live < saved) {
                Nearest::Page(page) => return Ok(page),
                Nearest::WasNot(key) => from = [&key[..], &[0]].concat(),
            }
        }
    }

    /// Looks at the live pages first, then at the saved ones, and only then
    /// whether the snapshot is still open: one that was closed before may have
    /// lost what it had saved.
    fn look(
        &self,
        level: u8,
        find: impl Fn(&[u8]) -> Result<Option<FoundPage>, StoreError>,
    ) -> Result<(Option<FoundPage>, Option<FoundPage>), StoreError> {
        let prefix = self.level_prefix(level);
        let saved_prefix = keys::saved_page(self.opened.open.id, &prefix);
        let under = |prefix: &[u8]| {
            Ok::<_, StoreError>(
                find(prefix)?.map(|(key, body)| (key[prefix.len()..].to_vec(), body)),
            )
        };
        let found = (under(&prefix)?, under(&saved_prefix)?);
        self.check_open()?;
        Ok(found)
    }

    /// The last page whose first key is at most `key`.
    fn at_or_before(&self, level: u8, key: &[u8]) -> Result<Option<FoundPage>, StoreError> {
        let mut from = key.to_vec();
        loop {
            let (live, saved) = self.look(level, |prefix| {
                self.shared.disk.last_at_or_before(prefix, &[prefix, &from].concat())
            })?;
            match nearer(live, saved, |live, saved| live > saved) {
                Nearest::Page(page) => return Ok(page),
                Nearest::WasNot(key) => match self.key_below(level, &key)? {
                    Some(below) => from = below,
                    None => return Ok(None),
                },
            }
        }
    }

    /// The greatest first key below `key`, live or saved.
    fn key_below(&self, level: u8, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let prefix = self.level_prefix(level);
        let saved_prefix = keys::saved_page(self.opened.open.id, &prefix);
        let below = |prefix: &[u8]| {
            let found = self.shared.disk.key_before(prefix, &[prefix, key].concat())?;
            Ok::<_, StoreError>(found.map(|key| key[prefix.len()..].to_vec()))
        };
        let found = below(&prefix)?.max(below(&saved_prefix)?);
        self.check_open()?;
        Ok(found)
    }
}

/// What the live and the saved pages come to.
enum Nearest {
    Page(Option<FoundPage>),
    /// There is a live page with this key, but the snapshot had none.
    WasNot(Vec<u8>),
}

/// The nearer of the two; a saved page hides the live one with its key.
fn nearer(
    live: Option<FoundPage>,
    saved: Option<FoundPage>,
    live_is_nearer: impl Fn(&[u8], &[u8]) -> bool,
) -> Nearest {
    let Some((saved_key, saved)) = saved else {
        return Nearest::Page(live);
    };
    match live {
        Some((key, body)) if live_is_nearer(&key, &saved_key) => Nearest::Page(Some((key, body))),
        _ => match saved.split_first() {
            Some((&PAGE_SAVED, body)) => Nearest::Page(Some((saved_key, body.to_vec()))),
            _ => Nearest::WasNot(saved_key),
        },
    }
}

impl Pages for Saved {
    type Error = StoreError;

    fn suite(&self) -> Suite {
        self.shared.disk.suite
    }

    fn seek(&mut self, level: u8, key: &[u8]) -> Result<Option<FoundPage>, StoreError> {
        let found = self.find(level, key)?;
        if level == 0
            && let Some((first_key, body)) = &found
            && let Some(patch) = self.patch_of(first_key)?
        {
            return Ok(Some((first_key.clone(), whole(body, Some(&patch))?.encode())));
        }
        Ok(found)
    }

    fn next_key(&mut self, level: u8, first_key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let behind = [first_key, &[0]].concat();
        Ok(self.at_or_behind(level, &behind)?.map(|(key, _)| key))
    }

    fn seek_leaf(&mut self, key: &[u8]) -> Result<Option<(Vec<u8>, Leaf)>, StoreError> {
        let Some((first_key, body)) = self.find(0, key)? else { return Ok(None) };
        let leaf = whole(&body, self.patch_of(&first_key)?.as_deref())?;
        Ok(Some((first_key, leaf)))
    }
}
