//! A peer's tree on its way into the store.
//!
//! Leaves, and the inner pages that are built above them, are written into a
//! generation of pages that nobody reads yet. Leaves that were written before an
//! interruption are found again by their hash and not fetched twice. The head moves to
//! the new generation only when the tree that was built here has the signed root.

use std::sync::{Arc, atomic::Ordering};

use protocol::{
    difference::Own,
    page::{Leaf, PageRef},
    session::fetch::{FetchedLeaf, ShownHead},
    tree::{Pages as _, TreeBuilder, WORK},
};

use super::{ReadyLeaf, own::own_pages};
use crate::{
    error::StoreError,
    jobs::{Job, Stage, StagedLeaf, StagedLeaves, staged_bytes_max},
    queue::{Pending, Queue},
    quota::counted_leaf,
    state::{Head, Shared},
    tree::GenerationPages,
};

/// A staged tree, leaf by leaf. Dropping it keeps what was written for the
/// next attempt.
pub struct Staging {
    shared: Arc<Shared>,
    queue: Queue,
    shown: ShownHead,
    stage: Stage,
    builder: TreeBuilder,
    pending: StagedLeaves,
    /// What the writer was given last: it writes while the next leaves arrive.
    writing: Option<Pending<()>>,
    /// The first key of the leaf that was staged last.
    last: Option<Vec<u8>>,
    under_way: UnderWay,
}

/// Counts a staging while it is under way.
struct UnderWay(Arc<Shared>);

impl UnderWay {
    fn new(shared: Arc<Shared>) -> Self {
        shared.stagings.fetch_add(1, Ordering::Relaxed);
        Self(shared)
    }

    /// How much may be pending before it is written.
    fn bytes_max(&self) -> usize {
        staged_bytes_max(self.0.stagings.load(Ordering::Relaxed))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.stagings.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Staging {
    pub(crate) fn new(shared: Arc<Shared>, queue: Queue, shown: ShownHead, stage: Stage) -> Self {
        let builder = TreeBuilder::new(shared.disk.suite);
        let under_way = UnderWay::new(shared.clone());
        Self {
            shared,
            queue,
            shown,
            stage,
            builder,
            pending: StagedLeaves::default(),
            writing: None,
            last: None,
            under_way,
        }
    }

    /// What the current state has where these pages are or would be, up to the page
    /// with which it comes to `bytes_max` bytes.
    pub fn look(
        &self,
        level: u8,
        pages: &[PageRef],
        bytes_max: usize,
    ) -> Result<Vec<Own>, StoreError> {
        let (disk, number) = (&self.shared.disk, self.stage.number);
        match self.stage.current {
            Some(current) => own_pages(disk, number, current, level, pages, bytes_max),
            None => Ok(pages.iter().map(|_| Own::Nothing).collect()),
        }
    }

    /// Which of these leaves are here already, from an interrupted staging or
    /// in the current state; up to the leaf with which as many as `bytes_max` bytes
    /// were looked at.
    pub fn resolve(&self, leaves: &[PageRef], bytes_max: u64) -> Result<Vec<bool>, StoreError> {
        let (mut resolved, mut bytes) = (Vec::new(), 0);
        for page in leaves {
            let is_it = |leaf: &Leaf| {
                bytes += leaf.bytes();
                (leaf.describe(page.hash.suite()).hash == page.hash).then_some(())
            };
            resolved.push(match self.held(page, is_it) {
                Ok(held) => held.is_some(),
                // It is fetched again, which heals it.
                Err(error @ StoreError::Damaged { .. }) => {
                    tracing::warn!(partition = %self.stage.partition, %error, "a page is fetched again");
                    false
                }
                Err(error) => return Err(error),
            });
            if bytes >= bytes_max {
                break;
            }
        }
        Ok(resolved)
    }

    /// A leaf that is here, with what `is_it` says of it if it has the right hash;
    /// `true` if it lies in the staged generation.
    fn held<T>(
        &self,
        page: &PageRef,
        mut is_it: impl FnMut(&Leaf) -> Option<T>,
    ) -> Result<Option<(T, Leaf, bool)>, StoreError> {
        let staged = (!self.stage.was_empty).then_some(self.stage.generation);
        for generation in [staged, self.stage.current].into_iter().flatten() {
            let disk = &self.shared.disk;
            let pages = GenerationPages::new(disk, self.stage.number, generation);
            if let Some(leaf) = pages.leaf_at(&page.first_key)?
                && let Some(found) = is_it(&leaf)
            {
                return Ok(Some((found, leaf, generation == self.stage.generation)));
            }
        }
        Ok(None)
    }

    /// Makes a leaf ready to be staged; one that is here is read, hashed and packed.
    ///
    /// # Errors
    /// [`StoreError::Overtaken`] if a leaf that was here is no more.
    pub fn ready(&self, fetched: FetchedLeaf) -> Result<ReadyLeaf, StoreError> {
        Ok(match fetched {
            FetchedLeaf::Arrived { described: (page, index), leaf, body } => {
                ReadyLeaf { page, index, leaf, body: Some(body) }
            }
            FetchedLeaf::Held(page) => {
                let is_it = |leaf: &Leaf| {
                    let described = leaf.describe_with_index(page.hash.suite());
                    (described.0.hash == page.hash).then_some(described)
                };
                let ((page, index), leaf, staged) = self
                    .held(&page, is_it)?
                    .ok_or_else(|| StoreError::Overtaken(self.stage.partition.clone()))?;
                let body = (!staged).then(|| leaf.encode());
                ReadyLeaf { page, index, leaf, body }
            }
        })
    }

    /// Takes the next leaf in key order.
    ///
    /// # Errors
    /// [`StoreError::Shape`] if it cannot come next in a tree, [`StoreError::Overtaken`]
    /// if another staging of the partition has begun, `OverQuota` and `OverShare` if its
    /// origin may not have so much here.
    pub async fn stage(&mut self, ready: ReadyLeaf) -> Result<(), StoreError> {
        let ReadyLeaf { page, index, leaf, body } = ready;
        let first_key = page.first_key.clone();
        self.remove_stale(Some(&first_key)).await?;
        self.last = Some(first_key.clone());
        let counts = counted_leaf(page.records, leaf.bytes());
        self.pending.counts += counts;
        let partition = &self.stage.partition;
        self.builder
            .push(&leaf, page, &mut self.pending.inner)
            .map_err(|problem| StoreError::Shape { partition: partition.clone(), problem })?;
        if let Some(body) = body {
            self.pending.bytes += body.len() + index.len();
            self.pending.written.push(StagedLeaf { first_key, body, index, counts });
        }
        if self.pending.fill_a_batch(self.under_way.bytes_max()) {
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
            Some(last) => self.staged().next_key(0, last)?,
            None => self.staged().first_key(0)?,
        };
        while let Some(stale) = next {
            if key.is_some_and(|key| stale.as_slice() >= key) {
                break;
            }
            next = self.staged().next_key(0, &stale)?;
            self.pending.removed.push(stale);
            if self.pending.fill_a_batch(self.under_way.bytes_max()) {
                self.write_pending().await?;
            }
        }
        Ok(())
    }

    /// What is staged.
    fn staged(&self) -> GenerationPages<'_> {
        GenerationPages::new(&self.shared.disk, self.stage.number, self.stage.generation)
    }

    /// Hands the writer what is pending, after what it was given before is
    /// written.
    async fn write_pending(&mut self) -> Result<(), StoreError> {
        self.written().await?;
        let leaves = std::mem::take(&mut self.pending);
        self.pending.counts = leaves.counts;
        let stage = self.stage.clone();
        let job = |reply| Job::StageLeaves { stage, leaves, reply };
        self.writing = Some(self.queue.submit(job).await?);
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
        let none = TreeBuilder::new(self.shared.disk.suite);
        let builder = std::mem::replace(&mut self.builder, none);
        // The last page of each level.
        let mut inner = Vec::new();
        let summary = builder.finish(&mut inner).map_err(|problem| StoreError::Shape {
            partition: self.stage.partition.clone(),
            problem,
        })?;
        WORK.check_shape(&summary)?;
        let (stage, shown) = (self.stage.clone(), Box::new(self.shown.clone()));
        let job = |reply| Job::FinishStaging { stage, shown, summary, inner, reply };
        self.queue.submit(job).await?.answer().await
    }
}
