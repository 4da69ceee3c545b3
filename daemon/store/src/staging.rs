//! A peer's tree on its way into the store.
//!
//! Leaves are written into a generation of pages that nobody reads yet. What
//! was written before an interruption is found again by its hash and not
//! fetched twice. The head moves to the new generation only when the tree above
//! the leaves, built here, has the signed root.

use protocol::{
    change::SignedHeader,
    difference::Own,
    id::PartitionId,
    page::{Leaf, MadePage, PageRef},
    session::fetch::FetchedLeaf,
    tree::{Pages as _, TreeBuilder},
};
use std::sync::Arc;

use super::{
    Head, Pending, Store, StoreError, compare::own_pages, keys, pages::GenerationPages, writer::Job,
};

/// Leaves that are written or deleted in one batch, about 2 MB.
pub(super) const LEAVES_PER_BATCH: usize = 256;
/// Bytes that end a batch earlier: one leaf may have 16 MiB.
pub(super) const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// Where a staging writes.
#[derive(Debug, Clone)]
pub(super) struct Stage {
    pub partition: PartitionId,
    /// Tells this staging from earlier ones, whose writes are refused.
    pub ticket: u64,
    pub number: u32,
    /// The generation that is filled.
    pub generation: u32,
    /// Whether nothing was in it when this staging began. It has been looked for
    /// leaves; an index or a patch is never there without its leaf.
    pub was_empty: bool,
    /// The generation that readers see, if any.
    pub current: Option<u32>,
    /// Records of the tree.
    pub records: u64,
}

/// Leaves to write into a staged generation, and stale ones to delete.
#[derive(Debug, Default)]
pub(super) struct StagedLeaves {
    pub written: Vec<StagedLeaf>,
    /// First keys of leaves.
    pub removed: Vec<Vec<u8>>,
    bytes: usize,
}

/// A leaf to write.
#[derive(Debug)]
pub(super) struct StagedLeaf {
    pub first_key: Vec<u8>,
    pub body: Vec<u8>,
    pub index: Vec<u8>,
}

impl StagedLeaves {
    fn fill_a_batch(&self) -> bool {
        self.written.len() + self.removed.len() >= LEAVES_PER_BATCH || self.bytes >= BATCH_BYTES
    }
}

/// A staged tree, leaf by leaf. Dropping it keeps what was written for the
/// next attempt.
pub struct Staging {
    store: Store,
    header: SignedHeader,
    stage: Stage,
    builder: TreeBuilder,
    inner: Vec<MadePage>,
    pending: StagedLeaves,
    /// What the writer was given last: it writes while the next leaves arrive.
    writing: Option<Pending<()>>,
    /// The first key of the leaf that was staged last.
    last: Option<Vec<u8>>,
}

impl Staging {
    pub(super) fn new(store: Store, header: SignedHeader, stage: Stage) -> Self {
        Self {
            store,
            header,
            stage,
            builder: TreeBuilder::new(),
            inner: Vec::new(),
            pending: StagedLeaves::default(),
            writing: None,
            last: None,
        }
    }

    /// What the current state has where these pages are or would be.
    pub fn look(&self, level: u8, pages: &[PageRef]) -> Result<Vec<Own>, StoreError> {
        match self.stage.current {
            Some(current) => {
                own_pages(&self.store.shared, self.stage.number, current, level, pages)
            }
            None => Ok(pages.iter().map(|_| Own::Nothing).collect()),
        }
    }

    /// Which of these leaves are here already, from an interrupted staging or
    /// in the current state.
    pub fn resolve(&self, leaves: &[PageRef]) -> Result<Vec<bool>, StoreError> {
        let held = leaves.iter().map(|page| match self.held(page) {
            Ok(held) => Ok(held.is_some()),
            // It is fetched again, which heals it.
            Err(error @ StoreError::Damaged { .. }) => {
                tracing::warn!(partition = %self.stage.partition, %error, "a page is fetched again");
                Ok(false)
            }
            Err(error) => Err(error),
        });
        held.collect()
    }

    /// A leaf that is here with the right hash; `true` if it lies in the staged
    /// generation.
    fn held(&self, page: &PageRef) -> Result<Option<(Leaf, bool)>, StoreError> {
        let staged = (!self.stage.was_empty).then_some(self.stage.generation);
        for generation in [staged, self.stage.current].into_iter().flatten() {
            let shared = &self.store.shared;
            let pages = GenerationPages::new(shared, self.stage.number, generation);
            if let Some(leaf) = pages.leaf_at(&page.first_key)?
                && leaf.describe().0.hash == page.hash
            {
                return Ok(Some((leaf, generation == self.stage.generation)));
            }
        }
        Ok(None)
    }

    /// Takes the next leaf in key order.
    pub async fn stage(&mut self, fetched: FetchedLeaf) -> Result<(), StoreError> {
        let (described, leaf, body) = match fetched {
            FetchedLeaf::Arrived { described, leaf, body } => (described, leaf, Some(body)),
            FetchedLeaf::Held(page) => {
                let (leaf, staged) = self
                    .held(&page)?
                    .ok_or_else(|| StoreError::Overtaken(self.stage.partition.clone()))?;
                let body = (!staged).then(|| leaf.encode());
                (leaf.describe_with_index(), leaf, body)
            }
        };
        let (page, shape, index) = described;
        let first_key = page.first_key.clone();
        self.remove_stale(Some(&first_key)).await?;
        self.last = Some(first_key.clone());
        self.builder.push(&leaf, page, shape, &mut self.inner).map_err(|problem| {
            StoreError::Shape { partition: self.stage.partition.clone(), problem }
        })?;
        if let Some(body) = body {
            self.pending.bytes += body.len() + index.len();
            self.pending.written.push(StagedLeaf { first_key, body, index });
        }
        if self.pending.fill_a_batch() {
            self.write_pending().await?;
        }
        Ok(())
    }

    /// Notes staged leaves behind the last one and before `key` (or up to the
    /// end) for deletion: they belong to an older head.
    async fn remove_stale(&mut self, key: Option<&[u8]>) -> Result<(), StoreError> {
        if self.stage.was_empty {
            return Ok(());
        }
        let mut next = match &self.last {
            Some(last) => self.staged_behind(last)?,
            None => self.first_staged()?,
        };
        while let Some(stale) = next {
            if key.is_some_and(|key| stale.as_slice() >= key) {
                break;
            }
            next = self.staged_behind(&stale)?;
            self.pending.removed.push(stale);
            if self.pending.fill_a_batch() {
                self.write_pending().await?;
            }
        }
        Ok(())
    }

    fn first_staged(&self) -> Result<Option<Vec<u8>>, StoreError> {
        let prefix = keys::page(self.stage.number, self.stage.generation, 0, &[]);
        let first = self.store.shared.disk.first_key(&prefix)?;
        Ok(first.map(|key| key[prefix.len()..].to_vec()))
    }

    fn staged_behind(&self, first_key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let (shared, generation) = (&self.store.shared, self.stage.generation);
        GenerationPages::new(shared, self.stage.number, generation).next_key(0, first_key)
    }

    /// Hands the writer what is pending, after what it was given before is
    /// written.
    async fn write_pending(&mut self) -> Result<(), StoreError> {
        self.written().await?;
        let leaves = std::mem::take(&mut self.pending);
        let stage = self.stage.clone();
        let job = |reply| Job::StageLeaves { stage, leaves, reply };
        self.writing = Some(self.store.submit(job).await?);
        Ok(())
    }

    async fn written(&mut self) -> Result<(), StoreError> {
        match self.writing.take() {
            Some(writing) => writing.answer().await,
            None => Ok(()),
        }
    }

    /// Ends the tree: if its root is the signed one, it is the partition's
    /// state, durable when this answers.
    pub async fn finish(mut self) -> Result<Arc<Head>, StoreError> {
        self.remove_stale(None).await?;
        self.write_pending().await?;
        self.written().await?;
        let builder = std::mem::take(&mut self.builder);
        let summary = builder.finish(&mut self.inner).map_err(|problem| StoreError::Shape {
            partition: self.stage.partition.clone(),
            problem,
        })?;
        let inner = std::mem::take(&mut self.inner);
        let (stage, header) = (self.stage.clone(), Box::new(self.header.clone()));
        let job = |reply| Job::FinishStaging { stage, header, summary, inner, reply };
        self.store.submit(job).await?.answer().await
    }
}
