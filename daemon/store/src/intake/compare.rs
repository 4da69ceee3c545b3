//! A peer's tree compared with this replica's, piece by piece.
//!
//! What differs becomes sorted changes, which the writer applies in place, under
//! the peer's signed head, in one batch: the root has to come out as signed, or
//! nothing is kept. A comparison reads the pages as they are. If a commit moves
//! the partition meanwhile, the writer refuses the differences.

use std::sync::Arc;

use protocol::{
    change::{BODY_BYTES_MAX, CHANGES_MAX, Change},
    difference::Own,
    page::{Leaf, PageRef, decode_inner},
    session::fetch::{Piece, ShownHead},
    tree::{Excess, Pages as _},
};

use super::own::own_pages;
use crate::{
    error::StoreError,
    jobs::{Differences, Done, Job},
    queue::Queue,
    state::{Head, Shared},
    tree::GenerationPages,
};

/// A key and its value.
type Entry<'a> = (&'a [u8], &'a [u8]);

/// One comparison. Dropping it leaves everything as it was.
pub struct Comparison {
    shared: Arc<Shared>,
    queue: Queue,
    shown: ShownHead,
    before: Arc<Head>,
    number: u32,
    changes: Vec<Change>,
    bytes: usize,
    own: OwnRecords,
    inner: InnerCount,
}

/// How far the replica's inner pages were counted.
struct InnerCount {
    level: u8,
    found: u64,
    /// The last one of the level that was counted.
    last: Option<Vec<u8>>,
}

/// Inner pages that are counted at once: 10 ms.
const COUNTED_AT_ONCE: usize = 4096;

/// The replica's records from some leaf on, one leaf in memory. Leaves are found
/// by their parents, so one that is missing is noticed.
#[derive(Default)]
struct OwnRecords {
    leaf: Option<(Leaf, usize)>,
    /// The first key of the leaf behind.
    next: Option<Vec<u8>>,
    /// The children of the inner page that was used last, and the first key of
    /// the one behind.
    parent: (Vec<PageRef>, Option<Vec<u8>>),
}

impl Comparison {
    pub(crate) fn new(
        shared: Arc<Shared>,
        queue: Queue,
        shown: ShownHead,
    ) -> Result<Self, StoreError> {
        let partition = &shown.signed.header().partition;
        let overtaken = || StoreError::Overtaken(partition.clone());
        let state = shared.partition(partition).ok_or_else(overtaken)?;
        let before = state.head().ok_or_else(overtaken)?;
        let number = state.number;
        let own = OwnRecords::default();
        let (changes, inner) = (Vec::new(), InnerCount { level: 1, found: 0, last: None });
        let mut comparison =
            Self { shared, queue, shown, before, number, changes, bytes: 0, own, inner };
        let lowest = if comparison.has_inner_pages() { 1 } else { 0 };
        comparison.own.next = comparison.pages().first_key(lowest)?;
        Ok(comparison)
    }

    fn has_inner_pages(&self) -> bool {
        self.before.summary.pages.len() > 1
    }

    /// The first key of the leaf behind the one that begins with `first_key`.
    fn leaf_behind(&mut self, first_key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        if !self.has_inner_pages() {
            return Ok(None);
        }
        let place = |children: &[PageRef]| {
            children.binary_search_by(|child| child.first_key.as_slice().cmp(first_key)).ok()
        };
        if place(&self.own.parent.0).is_none() {
            let mut pages = self.pages();
            let Some((parent, body)) = pages.seek(1, first_key)? else {
                return Err(missing());
            };
            let next = pages.next_key(1, &parent)?;
            self.own.parent = (decode_inner(self.shared.disk.suite, &body)?, next);
        }
        let (children, next) = &self.own.parent;
        let index = place(children).ok_or_else(missing)?;
        Ok(children.get(index + 1).map(|child| child.first_key.clone()).or_else(|| next.clone()))
    }

    /// Bytes of the differences so far, and of the replica's own leaf beside them.
    pub fn held_bytes(&self) -> usize {
        self.bytes + self.own.leaf.as_ref().map_or(0, |(leaf, _)| leaf.memory())
    }

    /// What this replica has where these pages are or would be, up to the page with
    /// which it comes to `bytes_max` bytes.
    pub fn look(
        &self,
        level: u8,
        pages: &[PageRef],
        bytes_max: usize,
    ) -> Result<Vec<Own>, StoreError> {
        let generation = self.before.generation;
        own_pages(&self.shared.disk, self.number, generation, level, pages, bytes_max)
    }

    /// Takes the next piece; answers whether all differences so far fit into one
    /// batch.
    pub fn take(&mut self, piece: Piece) -> Result<bool, StoreError> {
        match piece {
            // What lies before a subtree that both have, and is not in the tree.
            Piece::Held { level, page } => {
                if !page.first_key.is_empty() {
                    self.delete_before(&page.first_key)?;
                }
                self.own.leaf = None;
                self.own.next = match page.first_key.is_empty() {
                    true => None,
                    false if level == 0 => self.leaf_behind(&page.first_key)?,
                    false => self.pages().next_key(level, &page.first_key)?,
                };
            }
            Piece::Leaf(leaf) => {
                for (key, value) in leaf.entries() {
                    self.delete_before(key)?;
                    match self.peek()? {
                        Some((own_key, own_value)) if own_key == key => {
                            let same = own_value == value;
                            self.step();
                            if same {
                                continue;
                            }
                        }
                        _ => {}
                    }
                    self.note(Change::Put { key: key.to_vec(), value: value.to_vec() });
                    if !self.fit() {
                        return Ok(false);
                    }
                }
            }
        }
        Ok(self.fit())
    }

    fn fit(&self) -> bool {
        self.changes.len() <= CHANGES_MAX && self.bytes <= BODY_BYTES_MAX
    }

    fn note(&mut self, change: Change) {
        self.bytes += change.encoded_bytes();
        self.changes.push(change);
    }

    fn pages(&self) -> GenerationPages<'_> {
        let generation = self.before.generation;
        GenerationPages::new(&self.shared.disk, self.number, generation)
    }

    /// The replica's next record.
    fn peek(&mut self) -> Result<Option<Entry<'_>>, StoreError> {
        if self.own.leaf.is_none()
            && let Some(first_key) = self.own.next.take()
        {
            let found = self.pages().seek_leaf(&first_key)?;
            let (_, leaf) = found.filter(|(key, _)| *key == first_key).ok_or_else(missing)?;
            self.own.leaf = Some((leaf, 0));
            self.own.next = self.leaf_behind(&first_key)?;
        }
        Ok(self.own.leaf.as_ref().map(|(leaf, index)| leaf.entry(*index)))
    }

    fn step(&mut self) {
        if let Some((leaf, index)) = &mut self.own.leaf {
            *index += 1;
            if *index == leaf.len() {
                self.own.leaf = None;
            }
        }
    }

    /// Deletes the replica's records before `key`, unless they are too many.
    fn delete_before(&mut self, key: &[u8]) -> Result<(), StoreError> {
        while self.fit() {
            // A leaf that begins at the key or behind it is not read for this.
            if self.own.leaf.is_none() && self.own.next.as_deref().is_some_and(|next| next >= key) {
                break;
            }
            let Some(own) = self.peek()?.map(|(own, _)| own).filter(|own| *own < key) else {
                break;
            };
            let change = Change::Delete { key: own.to_vec() };
            self.step();
            self.note(change);
        }
        Ok(())
    }

    /// Takes the end of the tree, behind which there is nothing; answers whether all
    /// differences fit into one batch.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if an own page that is needed is.
    pub fn take_end(&mut self) -> Result<bool, StoreError> {
        while self.fit()
            && let Some((key, _)) = self.peek()?
        {
            let change = Change::Delete { key: key.to_vec() };
            self.step();
            self.note(change);
        }
        Ok(self.fit())
    }

    /// Counts some of the replica's inner pages, and answers whether there are more. That
    /// there are as many as its head says is what an update counts on.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if one is missing, [`StoreError::Overtaken`] if the
    /// partition has another head by now.
    pub fn count_inner_pages(&mut self) -> Result<bool, StoreError> {
        for _ in 0..COUNTED_AT_ONCE {
            let level = self.inner.level;
            let Some(expected) = self.before.summary.pages.get(usize::from(level)).copied() else {
                return Ok(false);
            };
            let next = match &self.inner.last {
                Some(last) => self.pages().next_key(level, last)?,
                None => self.pages().first_key(level)?,
            };
            if next.is_some() {
                self.inner.found += 1;
                self.inner.last = next;
            } else if self.inner.found == expected {
                self.inner = InnerCount { level: level + 1, found: 0, last: None };
            } else {
                self.refuse_overtaken()?;
                let (place, problem) = ("the inner pages".into(), "one is missing".into());
                return Err(StoreError::Damaged { place, problem });
            }
        }
        Ok(true)
    }

    /// Commits that came in between have changed the pages that are read.
    fn refuse_overtaken(&self) -> Result<(), StoreError> {
        let partition = &self.shown.signed.header().partition;
        let now = self.shared.partition(partition).and_then(|state| state.head());
        match now.is_some_and(|now| now.position() == self.before.position()) {
            true => Ok(()),
            false => Err(StoreError::Overtaken(partition.clone())),
        }
    }

    /// Makes the differences the partition's; durable when this answers. What the caller
    /// has left of taking the end and of counting inner pages is done here, at once. The
    /// writer calls `done` when it has nothing more to do with it.
    ///
    /// # Errors
    /// [`StoreError::RootMismatch`] if the root does not come out as signed,
    /// [`StoreError::Overtaken`] if the partition has another head by now,
    /// [`StoreError::Excess`] if it is too much work at once, `OverQuota` and `OverShare`
    /// if its origin may not have so much here. Then nothing has changed.
    pub async fn apply(mut self, done: Done) -> Result<Arc<Head>, StoreError> {
        if !self.take_end()? {
            return Err(Excess::Leaves.into());
        }
        while self.count_inner_pages()? {}
        let differences = Differences {
            before: self.before.position(),
            shown: self.shown,
            changes: self.changes,
        };
        let job = |reply| Job::Differ { differences: Box::new(differences), done, reply };
        self.queue.submit(job).await?.answer().await
    }
}

fn missing() -> StoreError {
    StoreError::Damaged { place: "a page".into(), problem: "it is missing".into() }
}
