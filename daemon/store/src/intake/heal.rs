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
    page::{Leaf, MadePage, PageRef},
    session::fetch::FetchedLeaf,
    tree::{Pages as _, TreeBuilder},
};

use super::own::own_pages;
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
    inner: Vec<MadePage>,
    /// The first key of the next stored leaf, which is in the tree or not.
    stored: Option<Vec<u8>>,
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
            inner: Vec::new(),
            stored: None,
            pending,
            pending_bytes: 0,
            healed: Healed::default(),
        };
        healing.stored = healing.pages().first_key(0)?;
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

    /// Which of these leaves are here and well.
    pub fn resolve(&self, leaves: &[PageRef]) -> Result<Vec<bool>, StoreError> {
        leaves.iter().map(|page| Ok(self.held(page)?.is_some())).collect()
    }

    fn held(&self, page: &PageRef) -> Result<Option<Leaf>, StoreError> {
        let own = self.look(0, std::slice::from_ref(page), usize::MAX)?.pop();
        Ok(match own {
            Some(Own::Leaf(leaf)) if leaf.describe(page.hash.suite()).hash == page.hash => {
                Some(leaf)
            }
            _ => None,
        })
    }

    /// Takes the next leaf in key order.
    pub async fn stage(&mut self, fetched: FetchedLeaf) -> Result<(), StoreError> {
        let overtaken = || StoreError::Overtaken(self.partition.clone());
        let ((page, index), leaf, body) = match fetched {
            FetchedLeaf::Arrived { described, leaf, body } => (described, leaf, Some(body)),
            FetchedLeaf::Held(page) => {
                let leaf = self.held(&page)?.ok_or_else(overtaken)?;
                (leaf.describe_with_index(page.hash.suite()), leaf, None)
            }
        };
        self.remove_stored_before(Some(&page.first_key))?;
        if let Some(body) = body {
            self.healed.leaves += 1;
            self.healed.records += page.records;
            let first_key = page.first_key.clone();
            self.write(HealedPage { level: 0, first_key, body, index });
        }
        self.builder
            .push(&leaf, page, &mut self.inner)
            .map_err(|problem| StoreError::Shape { partition: self.partition.clone(), problem })?;
        self.submit_if(self.pending.written.len() >= LEAVES_PER_BATCH).await
    }

    fn write(&mut self, page: HealedPage) {
        self.pending_bytes += page.body.len() + page.index.len();
        self.pending.written.push(page);
    }

    /// Notes stored leaves before `key`, or up to the end, for deletion, and
    /// passes the one with that key.
    fn remove_stored_before(&mut self, key: Option<&[u8]>) -> Result<(), StoreError> {
        while let Some(stored) = self.stored.take() {
            if key.is_some_and(|key| stored.as_slice() > key) {
                self.stored = Some(stored);
                break;
            }
            self.stored = self.pages().next_key(0, &stored)?;
            if key == Some(&stored) {
                break;
            }
            self.healed.removed += 1;
            self.pending.removed.push((0, stored));
        }
        Ok(())
    }

    async fn submit_if(&mut self, full: bool) -> Result<(), StoreError> {
        let pages = self.pending.written.len() + self.pending.removed.len();
        if pages == 0 || !(full || self.pending_bytes >= BATCH_BYTES) {
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

    /// Replaces the inner pages and says what was done, once it is durable.
    pub async fn finish(mut self) -> Result<Healed, StoreError> {
        self.remove_stored_before(None)?;
        let none = TreeBuilder::new(self.shared.disk.suite);
        let builder = std::mem::replace(&mut self.builder, none);
        let summary = builder
            .finish(&mut self.inner)
            .map_err(|problem| StoreError::Shape { partition: self.partition.clone(), problem })?;
        if summary != self.head.summary {
            // The head's root has led here, so only the counts of pages can differ.
            let (place, problem) = ("a head".into(), "its counts of pages are wrong".into());
            return Err(StoreError::Damaged { place, problem });
        }
        let mut made = std::mem::take(&mut self.inner);
        made.sort_by(|a, b| (a.level, &a.page.first_key).cmp(&(b.level, &b.page.first_key)));
        for level in 1..protocol::page::LEVELS_MAX {
            let mut stored = self.pages().first_key(level)?;
            while let Some(first) = stored {
                stored = self.pages().next_key(level, &first)?;
                let known =
                    made.binary_search_by(|m| (m.level, &m.page.first_key).cmp(&(level, &first)));
                if known.is_err() {
                    self.healed.removed += 1;
                    self.pending.removed.push((level, first));
                }
            }
        }
        for made in made {
            let stored = match self.pages().seek(made.level, &made.page.first_key) {
                Err(StoreError::Damaged { .. }) => None,
                stored => stored?,
            };
            if stored
                .is_none_or(|stored| stored != (made.page.first_key.clone(), made.body.clone()))
            {
                self.healed.inner += 1;
                let MadePage { level, page, body, index, .. } = made;
                self.write(HealedPage { level, first_key: page.first_key, body, index });
                self.submit_if(self.pending.written.len() >= LEAVES_PER_BATCH).await?;
            }
        }
        self.submit_if(true).await?;
        Ok(self.healed)
    }
}
