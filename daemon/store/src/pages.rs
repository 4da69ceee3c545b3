//! Reading the state tree's pages: live, or as they were when a snapshot was
//! opened.
//!
//! sled has no snapshots. While one is open the writer saves each page, before
//! it replaces it, under the snapshot's number, in the same batch. A snapshot
//! reads the live page first and then looks whether it was saved since: if not,
//! the live one had not changed.
//!
//! A leaf that was changed in place is its bytes and a patch
//! ([`protocol::patch`]); both are saved like any page. Who asks for a leaf gets
//! it as it is now.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Instant,
};

use protocol::{
    change::Change,
    encoding::DecodeError,
    page::{Leaf, MadePage, RawLeaf},
    patch::{Digests, Outcome, decode_patch},
    tree::{FoundPage, Kept, Pages},
};
use tokio::sync::mpsc::WeakSender;

use super::{
    StoreError,
    ahead::{MadeAhead, make_leaves},
    keys,
    state::{Head, PartitionState, Shared},
    values::FoundPair,
    writer::Job,
};
use crate::cores::on_all_cores;

/// A snapshot that nobody reads for so long is closed: each one makes the
/// writer save pages.
const SNAPSHOT_IDLE_MS_MAX: i64 = 60_000;

/// In front of a saved page's bytes.
pub(super) const PAGE_SAVED: u8 = 1;
/// Saved in place of a page that did not exist.
pub(super) const PAGE_WAS_NOT: u8 = 0;

/// Pages of one generation as they are at each single read.
pub struct LivePages {
    shared: Arc<Shared>,
    state: Arc<PartitionState>,
}

impl LivePages {
    pub(super) fn new(shared: Arc<Shared>, state: Arc<PartitionState>) -> Self {
        Self { shared, state }
    }

    /// The record under `key`.
    pub fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.seek_leaf(key)?.and_then(|(_, leaf)| leaf.get(key).map(<[u8]>::to_vec)))
    }

    /// What is stored around `key`: by digests if they are asked for and there are
    /// some.
    pub fn stretch(&self, key: &[u8], by_digest: bool) -> Result<Option<Stretch>, StoreError> {
        self.read(|pages| pages.stretch(key, by_digest))
    }

    /// Reads from the generation that is current both before and after: an old
    /// one is deleted once the head has left it.
    fn read<T>(
        &self,
        read: impl Fn(&mut GenerationPages<'_>) -> Result<Option<T>, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        let generation = || self.state.head().map(|head| head.generation);
        let mut now = generation();
        // None if the partition was forgotten.
        while let Some(current) = now {
            let answer = read(&mut GenerationPages::new(&self.shared, self.state.number, current));
            now = generation();
            if now == Some(current) {
                return answer;
            }
        }
        Ok(None)
    }
}

impl Pages for LivePages {
    type Error = StoreError;

    fn seek(&mut self, level: u8, key: &[u8]) -> Result<Option<FoundPage>, StoreError> {
        self.read(|pages| pages.seek(level, key))
    }

    fn next_key(&mut self, level: u8, first_key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(|pages| pages.next_key(level, first_key))
    }

    fn seek_leaf(&mut self, key: &[u8]) -> Result<Option<(Vec<u8>, Leaf)>, StoreError> {
        self.read(|pages| pages.seek_leaf(key))
    }
}

/// What one leaf has, and where the next one begins.
pub struct Stretch {
    /// Its entries as they are now.
    pub entries: Entries,
    /// The first key of the next leaf, if there is one.
    pub next: Option<Vec<u8>>,
}

/// A leaf's entries.
pub enum Entries {
    /// With their records.
    Whole(Leaf),
    /// With digests in place of records.
    Digests(Digests),
}

/// A leaf from its bytes and its patch.
fn whole(body: &[u8], patch: Option<&[u8]>) -> Result<Leaf, StoreError> {
    let leaf = Leaf::decode(body)?;
    Ok(match patch {
        Some(patch) => leaf.patched(&decode_patch(patch)?)?,
        None => leaf,
    })
}

/// Pages of one generation; what the writer updates.
pub(super) struct GenerationPages<'a> {
    shared: &'a Shared,
    number: u32,
    generation: u32,
    /// Leaves that need not be made any more.
    pub ahead: MadeAhead,
}

impl<'a> GenerationPages<'a> {
    pub fn new(shared: &'a Shared, number: u32, generation: u32) -> Self {
        Self { shared, number, generation, ahead: MadeAhead::default() }
    }

    fn level_prefix(&self, level: u8) -> Vec<u8> {
        keys::page(self.number, self.generation, level, &[])
    }

    /// The first key, the bytes and the patch of the leaf of `key`.
    fn leaf_and_patch(&self, key: &[u8]) -> Result<Option<FoundPair>, StoreError> {
        let (prefix, patches) = (self.level_prefix(0), self.level_prefix(keys::PATCH));
        let found =
            self.shared.disk.read().seek_with(&prefix, &[&prefix, key].concat(), &patches)?;
        Ok(found.map(|(key, body, patch)| (key[prefix.len()..].to_vec(), body, patch)))
    }

    fn stretch(&self, key: &[u8], by_digest: bool) -> Result<Option<Stretch>, StoreError> {
        let (leaves, patches) = (self.level_prefix(0), self.level_prefix(keys::PATCH));
        // One after the other, they could be of two states.
        let read = self.shared.disk.read();
        let next = |first_key: &[u8]| {
            let next = read.key_behind(&leaves, &[&leaves, first_key].concat())?;
            Ok::<_, StoreError>(next.map(|next| next[leaves.len()..].to_vec()))
        };
        if by_digest {
            let indexes = self.level_prefix(keys::INDEX);
            let found = read.last_with(&indexes, &[&indexes, key].concat(), &patches);
            if let Some((first_key, index, patch)) = undamaged(found)? {
                let next = next(&first_key[indexes.len()..])?;
                // Or else it is of an earlier leaf, and this one has none.
                if next.as_deref().is_none_or(|next| key < next)
                    && let Ok(digests) = Digests::decode(&index, patch.as_deref())
                {
                    return Ok(Some(Stretch { entries: Entries::Digests(digests), next }));
                }
            }
        }
        let Some((first_key, body, patch)) =
            read.seek_with(&leaves, &[&leaves, key].concat(), &patches)?
        else {
            return Ok(None);
        };
        let entries = Entries::Whole(whole(&body, patch.as_deref())?);
        Ok(Some(Stretch { entries, next: next(&first_key[leaves.len()..])? }))
    }

    /// The leaf that begins with exactly this key.
    pub fn leaf_at(&self, first_key: &[u8]) -> Result<Option<Leaf>, StoreError> {
        let (prefix, patches) = (self.level_prefix(0), self.level_prefix(keys::PATCH));
        let found = self.shared.disk.get_with(&prefix, first_key, &patches)?;
        found.map(|(_, body, patch)| whole(&body, patch.as_deref())).transpose()
    }

    /// The first key of a level's first page.
    pub fn first_key(&self, level: u8) -> Result<Option<Vec<u8>>, StoreError> {
        let prefix = self.level_prefix(level);
        let first = self.shared.disk.first_key(&prefix)?;
        Ok(first.map(|key| key[prefix.len()..].to_vec()))
    }
}

impl Pages for GenerationPages<'_> {
    type Error = StoreError;

    fn seek(&mut self, level: u8, key: &[u8]) -> Result<Option<FoundPage>, StoreError> {
        if level == 0 {
            return Ok(match self.leaf_and_patch(key)? {
                Some((key, body, None)) => Some((key, body)),
                Some((key, body, patch)) => Some((key, whole(&body, patch.as_deref())?.encode())),
                None => None,
            });
        }
        let prefix = self.level_prefix(level);
        let found = self.shared.disk.seek(&prefix, &[&prefix, key].concat())?;
        Ok(found.map(|(key, body)| (key[prefix.len()..].to_vec(), body)))
    }

    fn next_key(&mut self, level: u8, first_key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let prefix = self.level_prefix(level);
        let behind = self.shared.disk.key_behind(&prefix, &[&prefix, first_key].concat())?;
        Ok(behind.map(|key| key[prefix.len()..].to_vec()))
    }

    fn seek_leaf(&mut self, key: &[u8]) -> Result<Option<(Vec<u8>, Leaf)>, StoreError> {
        Ok(match self.leaf_and_patch(key)? {
            Some((key, body, patch)) => Some((key, whole(&body, patch.as_deref())?)),
            None => None,
        })
    }

    fn kept(&mut self, key: &[u8]) -> Result<Option<Kept>, StoreError> {
        let (prefix, patches) = (self.level_prefix(keys::INDEX), self.level_prefix(keys::PATCH));
        let found = self.shared.disk.read().last_with(&prefix, &[&prefix, key].concat(), &patches);
        Ok(undamaged(found)?.map(|(key, index, patch)| Kept {
            first_key: key[prefix.len()..].to_vec(),
            index,
            patch,
        }))
    }

    fn make(&mut self, leaves: Vec<RawLeaf>) -> Vec<MadePage> {
        let ready: Vec<_> = leaves.iter().map(|leaf| self.ahead.take(leaf)).collect();
        let pairs = leaves.into_iter().zip(&ready);
        let missing: Vec<_> =
            pairs.filter(|(_, ready)| ready.is_none()).map(|(leaf, _)| leaf).collect();
        let mut made = make_leaves(&missing).into_iter();
        ready.into_iter().filter_map(|ready| ready.or_else(|| made.next())).collect()
    }

    fn patch(&mut self, leaves: &[(Kept, &[Change])]) -> Vec<Result<Outcome, DecodeError>> {
        on_all_cores(leaves.iter().collect(), |(kept, changes)| kept.update(changes))
    }
}

/// Nothing in place of an index that is damaged: it can be made anew, and of a
/// patch that is damaged the reader of the leaf will tell.
fn undamaged(
    found: Result<Option<FoundPair>, StoreError>,
) -> Result<Option<FoundPair>, StoreError> {
    match found {
        Err(StoreError::Damaged { .. }) => Ok(None),
        found => found,
    }
}

/// What the writer has to know of an open snapshot.
pub(super) struct OpenSnapshot {
    pub id: u64,
    pub number: u32,
    pub generation: u32,
    opened: Instant,
    /// When it was last read, in milliseconds since it was opened.
    pub used_ms: AtomicI64,
    pub closed: AtomicBool,
}

impl OpenSnapshot {
    pub fn new(id: u64, number: u32, generation: u32) -> Self {
        Self {
            id,
            number,
            generation,
            opened: Instant::now(),
            used_ms: AtomicI64::new(0),
            closed: AtomicBool::new(false),
        }
    }

    fn age_ms(&self) -> i64 {
        i64::try_from(self.opened.elapsed().as_millis()).unwrap_or(i64::MAX)
    }

    /// Whether nobody has read for too long.
    pub fn is_idle(&self) -> bool {
        self.age_ms() - self.used_ms.load(Ordering::Relaxed) > SNAPSHOT_IDLE_MS_MAX
    }
}

/// A partition as it was when this was opened. Dropping it lets the writer
/// forget what it saved. While it lives the database's files stay open, even if
/// the store was dropped.
pub struct Snapshot {
    shared: Arc<Shared>,
    open: Arc<OpenSnapshot>,
    /// To tell the writer, if it is still there.
    jobs: WeakSender<Job>,
    head: Arc<Head>,
}

impl Snapshot {
    pub(super) fn new(
        shared: Arc<Shared>,
        open: Arc<OpenSnapshot>,
        jobs: WeakSender<Job>,
        head: Arc<Head>,
    ) -> Self {
        Self { shared, open, jobs, head }
    }

    /// The head whose tree this shows.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// All leaves in key order. A leaf at a time is in memory.
    pub fn leaves(&mut self) -> impl Iterator<Item = Result<Leaf, StoreError>> {
        let mut next: Option<Vec<u8>> = Some(Vec::new());
        std::iter::from_fn(move || {
            let from = next.take()?;
            let step = (|| {
                let Some((first_key, body)) = self.at_or_behind(0, &from)? else {
                    return Ok(None);
                };
                let leaf = whole(&body, self.patch_of(&first_key)?.as_deref())?;
                // The least key behind the page's own first key.
                next = Some([&first_key[..], &[0]].concat());
                Ok(Some(leaf))
            })();
            step.transpose()
        })
    }

    fn check_open(&self) -> Result<(), StoreError> {
        if self.open.closed.load(Ordering::Acquire) {
            return Err(StoreError::SnapshotExpired);
        }
        self.open.used_ms.store(self.open.age_ms(), Ordering::Relaxed);
        Ok(())
    }

    fn level_prefix(&self, level: u8) -> Vec<u8> {
        keys::page(self.open.number, self.open.generation, level, &[])
    }

    /// The patch of the leaf that begins with `first_key`. It is looked for
    /// behind the leaf's bytes, which is right: what changes either saves both.
    fn patch_of(&self, first_key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let key = keys::page(self.open.number, self.open.generation, keys::PATCH, first_key);
        let live = self.shared.disk.get_chunked(&key)?;
        let saved = self.shared.disk.get_chunked(&keys::saved_page(self.open.id, &key))?;
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
        let saved_prefix = keys::saved_page(self.open.id, &prefix);
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
        let saved_prefix = keys::saved_page(self.open.id, &prefix);
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

impl Pages for Snapshot {
    type Error = StoreError;

    fn seek(&mut self, level: u8, key: &[u8]) -> Result<Option<FoundPage>, StoreError> {
        let found = match self.at_or_before(level, key)? {
            Some(found) => Some(found),
            None => self.at_or_behind(level, &[])?,
        };
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
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        self.open.closed.store(true, Ordering::Release);
        // A full queue means that the writer is awake anyway.
        if let Some(jobs) = self.jobs.upgrade() {
            let _ = jobs.try_send(Job::Tidy { reply: None });
        }
    }
}
