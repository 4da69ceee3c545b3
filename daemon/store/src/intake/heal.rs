//! Damaged pages of a partition replaced, under the head that it has.
//!
//! All leaves of the head's tree come by in key order: those that are here and
//! well, and those that a peer has sent. The inner pages above them are built
//! anew. What is stored and differs is replaced, what is stored and not in the
//! tree is deleted, and what is well is not touched. Nothing of it can be wrong:
//! every leaf has the hash that the signed head asks for.
//!
//! It may be interrupted anywhere: each batch replaces damaged pages by whole
//! ones of the same tree.

use std::sync::Arc;

use protocol::{
    difference::Own,
    id::PartitionId,
    page::{LEVELS_MAX, Leaf, MadePage, PageRef},
    session::fetch::FetchedLeaf,
    tree::{Pages as _, TreeBuilder},
};

use super::{ReadyLeaf, own::own_pages};
use crate::{
    error::StoreError,
    jobs::{BATCH_BYTES, HealedPage, HealedPages, Job, LEAVES_PER_BATCH},
    queue::Queue,
    state::{Head, Shared},
    tree::GenerationPages,
};

/// What a repair has found and replaced.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Healed {
    /// Leaves that were damaged or missing.
    pub leaves: u64,
    /// Records in them.
    pub records: u64,
    /// Inner pages that were damaged or missing.
    pub inner: u64,
    /// Pages that were there and not in the tree.
    pub removed: u64,
}

/// One repair.
pub struct Healing {
    shared: Arc<Shared>,
    queue: Queue,
    partition: PartitionId,
    number: u32,
    head: Arc<Head>,
    builder: TreeBuilder,
    /// Of each level, the first key of the next stored page, which is in the tree or not.
    stored: Vec<Option<Vec<u8>>>,
    pending: HealedPages,
    pending_bytes: usize,
    healed: Healed,
}

impl Healing {
    pub(crate) fn new(
        shared: Arc<Shared>,
        queue: Queue,
        partition: PartitionId,
        head: Arc<Head>,
    ) -> Result<Self, StoreError> {
        let state = shared.partition(&partition);
        let number = state.ok_or_else(|| StoreError::Overtaken(partition.clone()))?.number;
        let builder = TreeBuilder::new(shared.disk.suite);
        let pending = HealedPages {
            partition: partition.clone(),
            head: head.position(),
            written: Vec::new(),
            removed: Vec::new(),
        };
        let mut healing = Self {
            shared,
            queue,
            partition,
            number,
            head,
            builder,
            stored: Vec::new(),
            pending,
            pending_bytes: 0,
            healed: Healed::default(),
        };
        let stored: Result<_, _> =
            (0..LEVELS_MAX).map(|level| healing.pages().first_key(level)).collect();
        healing.stored = stored?;
        Ok(healing)
    }

    fn pages(&self) -> GenerationPages<'_> {
        let generation = self.head.generation;
        GenerationPages::new(&self.shared.disk, self.number, generation)
    }

    /// What is stored where these pages are or would be, up to the page with which it
    /// comes to `bytes_max` bytes.
    pub fn look(
        &self,
        level: u8,
        pages: &[PageRef],
        bytes_max: usize,
    ) -> Result<Vec<Own>, StoreError> {
        let generation = self.head.generation;
        own_pages(&self.shared.disk, self.number, generation, level, pages, bytes_max)
    }

    /// Which of these leaves are here and well; up to the leaf with which as many as
    /// `bytes_max` bytes were looked at.
    pub fn resolve(&self, leaves: &[PageRef], bytes_max: u64) -> Result<Vec<bool>, StoreError> {
        let (mut resolved, mut bytes) = (Vec::new(), 0);
        for page in leaves {
            let leaf = self.leaf(page)?;
            bytes += leaf.as_ref().map_or(0, Leaf::bytes);
            let is_it = |leaf: Leaf| leaf.describe(page.hash.suite()).hash == page.hash;
            resolved.push(leaf.is_some_and(is_it));
            if bytes >= bytes_max {
                break;
            }
        }
        Ok(resolved)
    }

    /// The stored leaf where this one is or would be.
    fn leaf(&self, page: &PageRef) -> Result<Option<Leaf>, StoreError> {
        Ok(match self.look(0, std::slice::from_ref(page), usize::MAX)?.pop() {
            Some(Own::Leaf(leaf)) => Some(leaf),
            _ => None,
        })
    }

    /// Makes a leaf ready to be taken; one that is here is read and hashed.
    ///
    /// # Errors
    /// [`StoreError::Overtaken`] if a leaf that was here is no more.
    pub fn ready(&self, fetched: FetchedLeaf) -> Result<ReadyLeaf, StoreError> {
        let page = match fetched {
            FetchedLeaf::Arrived { described: (page, index), leaf, body } => {
                return Ok(ReadyLeaf { page, index, leaf, body: Some(body) });
            }
            FetchedLeaf::Held(page) => page,
        };
        let found = self.leaf(&page)?.map(|leaf| {
            let (described, index) = leaf.describe_with_index(page.hash.suite());
            ReadyLeaf { page: described, index, leaf, body: None }
        });
        found
            .filter(|found| found.page.hash == page.hash)
            .ok_or_else(|| StoreError::Overtaken(self.partition.clone()))
    }

    /// Takes the next leaf in key order.
    ///
    /// # Errors
    /// [`StoreError::Shape`] if it cannot come next in a tree, [`StoreError::Overtaken`]
    /// if the partition has another head by now.
    pub async fn stage(&mut self, ready: ReadyLeaf) -> Result<(), StoreError> {
        let ReadyLeaf { page, index, leaf, body } = ready;
        self.remove_stored_before(0, Some(&page.first_key)).await?;
        if let Some(body) = body {
            self.healed.leaves += 1;
            self.healed.records += page.records;
            let first_key = page.first_key.clone();
            self.write(HealedPage { level: 0, first_key, body, index });
        }
        let mut inner = Vec::new();
        self.builder
            .push(&leaf, page, &mut inner)
            .map_err(|problem| StoreError::Shape { partition: self.partition.clone(), problem })?;
        self.heal_inner(inner).await
    }

    /// Replaces inner pages that are not as they were built just now.
    async fn heal_inner(&mut self, inner: Vec<MadePage>) -> Result<(), StoreError> {
        for MadePage { level, page, body, index, .. } in inner {
            let first_key = page.first_key;
            self.remove_stored_before(level, Some(&first_key)).await?;
            let stored = match self.pages().seek(level, &first_key) {
                Err(StoreError::Damaged { .. }) => None,
                stored => stored?,
            };
            if stored.is_none_or(|(key, stored)| key != first_key || stored != body) {
                self.healed.inner += 1;
                self.write(HealedPage { level, first_key, body, index });
            }
        }
        self.submit_if(false).await
    }

    fn write(&mut self, page: HealedPage) {
        self.pending_bytes += page.body.len() + page.index.len();
        self.pending.written.push(page);
    }

    /// Notes stored pages of a level before `key`, or up to the end, for deletion, and
    /// passes the one with that key.
    async fn remove_stored_before(
        &mut self,
        level: u8,
        key: Option<&[u8]>,
    ) -> Result<(), StoreError> {
        let at = usize::from(level);
        while let Some(stored) = self.stored[at].take() {
            if key.is_some_and(|key| stored.as_slice() > key) {
                self.stored[at] = Some(stored);
                break;
            }
            self.stored[at] = self.pages().next_key(level, &stored)?;
            if key == Some(&stored) {
                break;
            }
            self.healed.removed += 1;
            self.pending.removed.push((level, stored));
            self.submit_if(false).await?;
        }
        Ok(())
    }

    /// Hands the writer what is noted, if it fills a batch or is the last.
    async fn submit_if(&mut self, last: bool) -> Result<(), StoreError> {
        let pages = self.pending.written.len() + self.pending.removed.len();
        let is_full = pages >= LEAVES_PER_BATCH || self.pending_bytes >= BATCH_BYTES;
        if pages == 0 || !(last || is_full) {
            return Ok(());
        }
        let healed = HealedPages {
            partition: self.partition.clone(),
            head: self.pending.head,
            written: std::mem::take(&mut self.pending.written),
            removed: std::mem::take(&mut self.pending.removed),
        };
        self.pending_bytes = 0;
        self.queue.submit(|reply| Job::Heal { healed, reply }).await?.answer().await
    }

    /// Says what was done, once it is durable.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if what the head says of the tree beside its root is
    /// wrong, which pages do not heal.
    pub async fn finish(mut self) -> Result<Healed, StoreError> {
        let none = TreeBuilder::new(self.shared.disk.suite);
        let builder = std::mem::replace(&mut self.builder, none);
        let mut last = Vec::new();
        let summary = builder
            .finish(&mut last)
            .map_err(|problem| StoreError::Shape { partition: self.partition.clone(), problem })?;
        self.heal_inner(last).await?;
        for level in 0..LEVELS_MAX {
            self.remove_stored_before(level, None).await?;
        }
        self.submit_if(true).await?;
        if summary != self.head.summary {
            // The root has led here, and no root says how many pages and bytes there are.
            let place = format!("the head of {}", self.partition);
            let problem = format!(
                "it counts {:?} pages of each level and {} bytes of records, and there are {:?} and {}",
                self.head.summary.pages, self.head.summary.bytes, summary.pages, summary.bytes
            );
            return Err(StoreError::Damaged { place, problem });
        }
        Ok(self.healed)
    }
}
