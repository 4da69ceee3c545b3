//! A partition's pages as they are at each single read.
//!
//! Each read looks at the stored head, the inner pages from its root downwards and the
//! page itself while no batch is applied, so they are of one state, and a page that is
//! not the one its parent holds is an error ([`protocol::tree::Checked`]). Pages of a
//! partition as they were at one moment are `snapshot`'s.

use std::sync::Arc;

use protocol::{
    change::Change,
    page::Leaf,
    patch::Digests,
    suite::Suite,
    tree::{Checked, FoundPage, Pages, Path},
};

use crate::{
    engine::Bytes,
    error::StoreError,
    keys,
    state::{Head, PartitionState, Shared},
    tree::{GenerationPages, LeafSpan, PagesAtOnce, leaf_span},
};

/// A leaf that was looked at, with all that lies beside it and above it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Inspected {
    /// Records that are the tree's.
    pub records: u64,
    /// Bytes of the leaf, uncompressed.
    pub bytes: u64,
    /// What is not as its parent, or the head, says.
    pub problems: Vec<Problem>,
    /// Whether the leaf's index is another's: then it is made again when the leaf changes,
    /// and not used until then.
    pub is_index_stale: bool,
    /// Where the next leaf begins, if there is one and its parent is well.
    pub next: Option<Vec<u8>>,
}

/// What can be wrong with stored pages.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A leaf is missing, garbled or an older one.
    #[error("the leaf there is not the one that its parent holds: {0}")]
    Leaf(String),
    /// An inner page is, so what lies below it cannot be judged.
    #[error(
        "an inner page is not the one that its parent holds, so nothing below it can be judged: {0}"
    )]
    Inner(String),
    /// There is a leaf that the tree has not.
    #[error("a leaf is stored there that is not in the tree")]
    Stray,
}

/// A partition's pages as they are at each single read.
pub struct LivePages {
    shared: Arc<Shared>,
    state: Arc<PartitionState>,
    known: Option<Known>,
}

/// What was read of the present tree.
struct Known {
    /// As it is stored.
    bytes: Bytes,
    generation: u32,
    path: Path,
}

impl LivePages {
    pub(crate) fn new(shared: Arc<Shared>, state: Arc<PartitionState>) -> Self {
        Self { shared, state, known: None }
    }

    /// The record under `key`.
    pub fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.seek_leaf(key)?.and_then(|(_, leaf)| leaf.get(key).map(<[u8]>::to_vec)))
    }

    /// What is stored around `key`: by digests if they are asked for and there are
    /// some.
    pub fn leaf_span(
        &mut self,
        key: &[u8],
        by_digest: bool,
    ) -> Result<Option<LeafSpan>, StoreError> {
        self.read(|pages| leaf_span(pages, key, by_digest))
    }

    /// Bytes of the leaves to which `changes`, sorted by key, belong; counted until they
    /// are more than `most`. It is about as right as what lies beside the leaves.
    pub fn touched_bytes(&self, changes: &[Change], most: u64) -> Result<u64, StoreError> {
        let generation = self.state.head().map_or(0, |head| head.generation);
        let disk = &self.shared.disk;
        GenerationPages::new(disk, self.state.number, generation).touched_bytes(changes, most)
    }

    /// Looks at the leaf where `key` is or would be; at nothing where the tree is empty or
    /// the partition was forgotten.
    pub fn inspect(&mut self, key: &[u8]) -> Result<Option<Inspected>, StoreError> {
        let looked = self.at_once(|pages, path| {
            let suite = pages.suite();
            let damage = |error| match error {
                StoreError::Damaged { problem, .. } => Ok(problem),
                error => Err(error),
            };
            let mut found = Inspected::default();
            match Checked::new(pages, path).next_key(0, key) {
                Ok(next) => found.next = next,
                Err(error) => {
                    found.problems.push(Problem::Inner(damage(error)?));
                    return Ok(Some(found));
                }
            }
            let first_key = match Checked::new(pages, path).seek_leaf(key) {
                Ok(None) => {
                    let is_empty = pages.next_key(0, &[])?.is_none();
                    found.problems.extend((!is_empty).then_some(Problem::Stray));
                    return Ok((!is_empty).then_some(found));
                }
                Ok(Some((first_key, leaf))) => {
                    (found.records, found.bytes) = (leaf.len() as u64, leaf.bytes());
                    let kept = Checked::new(pages, path).kept(key)?;
                    let digests = kept.and_then(|kept| {
                        let patch = kept.patch.as_deref();
                        let digests = Digests::decode(suite, &kept.index, patch).ok()?;
                        (kept.expected == Some(digests.hash(suite))).then_some(())
                    });
                    found.is_index_stale = digests.is_none();
                    first_key
                }
                Err(error) => {
                    found.problems.push(Problem::Leaf(damage(error)?));
                    key.to_vec()
                }
            };
            let stored_next = pages.next_key(0, &first_key)?;
            // One that is missing is seen when it is its turn.
            let is_stray = match (&stored_next, &found.next) {
                (Some(stored), Some(next)) => stored < next,
                (stored, None) => stored.is_some(),
                (None, Some(_)) => false,
            };
            found.problems.extend(is_stray.then_some(Problem::Stray));
            Ok(Some(found))
        })?;
        if let Some(found) = &looked
            && let Some(problem) = found.problems.first()
            && let Some(head) = self.state.head()
        {
            let place = "a page".to_owned();
            let problem = problem.to_string();
            let told = self.shared.heed::<()>(
                &head,
                &self.state,
                Err(StoreError::Damaged { place, problem }),
            );
            drop(told);
        }
        Ok(looked)
    }

    /// Inner pages that are stored of each level above the leaves, and those that the tree
    /// has.
    pub fn count_inner(&mut self) -> Result<Vec<(u64, u64)>, StoreError> {
        let Some(head) = self.state.head() else { return Ok(Vec::new()) };
        let mut pages = GenerationPages::new(&self.shared.disk, self.state.number, head.generation);
        let mut count = |level: u8| {
            let (mut stored, mut next) = (0, pages.first_key(level)?);
            while let Some(key) = next {
                stored += 1;
                next = pages.next_key(level, &key)?;
            }
            Ok::<_, StoreError>(stored)
        };
        let levels = (1..).zip(head.summary.pages.iter().skip(1));
        levels.map(|(level, expected)| Ok((count(level)?, *expected))).collect()
    }

    /// Reads from the tree of the head that is stored now; nothing if the partition was
    /// forgotten.
    fn read<T>(
        &mut self,
        read: impl FnOnce(&mut Checked<'_, PagesAtOnce<'_>>) -> Result<Option<T>, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        let answer = self.at_once(|pages, path| read(&mut Checked::new(pages, path)));
        match self.state.head() {
            Some(head) => self.shared.heed(&head, &self.state, answer),
            // Readers are shown that before any of its pages goes.
            None => Ok(None),
        }
    }

    /// Reads while no batch is applied.
    fn at_once<T>(
        &mut self,
        read: impl FnOnce(&mut PagesAtOnce<'_>, &mut Path) -> Result<Option<T>, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        let (disk, number) = (&self.shared.disk, self.state.number);
        let view = disk.read();
        let Some(bytes) = view.view.get(&keys::head(number))? else {
            return Ok(None);
        };
        let known = match self.known.take().filter(|known| known.bytes == bytes) {
            Some(known) => known,
            None => {
                let head = Head::decode(&bytes)?;
                Known { bytes, generation: head.generation, path: Path::new(&head.summary) }
            }
        };
        let known = self.known.insert(known);
        let mut pages = PagesAtOnce::new(&view, disk.suite, number, known.generation);
        read(&mut pages, &mut known.path)
    }
}

impl Pages for LivePages {
    type Error = StoreError;

    fn suite(&self) -> Suite {
        self.shared.disk.suite
    }

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
