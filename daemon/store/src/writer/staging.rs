//! The writer's half of stagings: leaves into a generation that nobody reads
//! yet, and the batch that makes it the partition's state.
//!
//! `intake::staging` asks for these jobs. Of two stagings of one
//! partition only the newer one may write.

use std::sync::{Arc, atomic::Ordering};

use protocol::{
    id::PartitionId,
    page::{LEVELS_MAX, MadePage},
    session::fetch::ShownHead,
    tree::Summary,
};

use super::{
    Staged, Writer,
    commit::{Next, check_jump},
};
use crate::{
    engine::{Batch, PackId},
    error::StoreError,
    jobs::{Stage, StagedLeaves},
    keys,
    state::Head,
    tree::PageBatch,
};

/// On average.
const RECORDS_PER_LEAF: u64 = 64;
/// Inner pages of an interrupted staging that are deleted at once: a few milliseconds.
const CLEARED_AT_ONCE: usize = 256;

/// Notes which generation is being staged, and what was written into it counts for.
fn note_staging(batch: &mut Batch, number: u32, generation: u32, counts: u64) {
    batch.put(keys::staging(number), protocol::codec::encode(&(generation, counts)));
}

/// Inner pages, of which none is there yet.
fn put_inner(batch: &mut Batch, stage: &Stage, inner: &[MadePage]) {
    for made in inner {
        let key = keys::page(stage.number, stage.generation, made.level, &made.page.first_key);
        batch.put_chunked(&key, &made.body, 0);
    }
}

impl Writer {
    pub(super) fn begin_staging(
        &mut self,
        partition: &PartitionId,
        records: u64,
    ) -> Result<Stage, StoreError> {
        self.shared.disk.check_room(0)?;
        self.refuse_quarantined(partition)?;
        let mut batch = Batch::default();
        let state = self.partition(partition);
        let current = self.head(partition).map(|head| head.generation);
        let staged = self.staged_generation(state.number)?;
        // Never the one in which a first change set would put its pages.
        let next = current.map_or(1, |current| current + 1);
        let (generation, counts) =
            staged.filter(|(staged, _)| *staged >= next).unwrap_or((next, 0));
        note_staging(&mut batch, state.number, generation, counts);
        self.apply_to(partition, &state, batch)?;
        let (number, ticket) = (state.number, self.next_ticket);
        let leaves = keys::page(number, generation, 0, &[]);
        let was_empty = self.shared.disk.first_key(&leaves)?.is_none();
        self.next_ticket += 1;
        let partition = partition.clone();
        let staged = Staged { partition: partition.clone(), ticket, counts };
        self.stagings.insert(number, staged);
        Ok(Stage { partition, ticket, number, generation, was_empty, current, records })
    }

    /// Two stagings of one partition fill the same generation, so only the
    /// newest may write.
    fn refuse_overtaken(&self, stage: &Stage) -> Result<(), StoreError> {
        if self.stagings.get(&stage.number).is_some_and(|staged| staged.ticket == stage.ticket) {
            return Ok(());
        }
        Err(StoreError::Overtaken(stage.partition.clone()))
    }

    /// Deletes some of what the origin's earlier stagings have left, and of the inner
    /// pages of this one if it was interrupted, which may not be those of the tree that is
    /// staged now; answers whether there may be more. Leaves stay, and are found by their
    /// hash.
    pub(super) fn clear_staged(&mut self, stage: &Stage) -> Result<bool, StoreError> {
        self.refuse_overtaken(stage)?;
        // It counts for nobody any more, so nothing comes before it is gone.
        if self.delete_some_of_origin(&stage.partition.origin) {
            return self.well().map(|()| true);
        }
        if stage.was_empty {
            return Ok(false);
        }
        for level in 1..LEVELS_MAX {
            let pages = keys::page(stage.number, stage.generation, level, &[]);
            let disk = &self.shared.disk;
            let deleted = disk.delete_some(&pages, true, CLEARED_AT_ONCE);
            // Or else the next commit would have to flush sled.
            let deleted = deleted.and_then(|more| disk.make_durable().map(|()| more));
            if deleted.inspect_err(|error| self.fail(error))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(super) fn stage_leaves(
        &mut self,
        stage: &Stage,
        leaves: StagedLeaves,
    ) -> Result<(), StoreError> {
        self.refuse_overtaken(stage)?;
        // What earlier attempts have left is there as well.
        let before = self.stagings.get(&stage.number).map_or(0, |staged| staged.counts);
        let counts = before + leaves.written.iter().map(|leaf| leaf.counts).sum::<u64>();
        let most = counts.max(leaves.counts);
        if let Err(refused) = self.refuse_staging_over_quota(stage, most, leaves.bytes) {
            self.drop_staged(stage)?;
            return Err(refused);
        }
        let mut pages = PageBatch::new(&self.shared.disk, &[]);
        // Leaves come in the order of their keys, each once.
        pages.all_new = stage.was_empty;
        let key =
            |level, first_key: &[u8]| keys::page(stage.number, stage.generation, level, first_key);
        for first_key in &leaves.removed {
            pages.put(key(0, first_key), None)?;
            pages.put_index(key(keys::INDEX, first_key), None)?;
        }
        for leaf in &leaves.written {
            pages.put_leaf(key(0, &leaf.first_key), &leaf.body)?;
            pages.put_index(key(keys::INDEX, &leaf.first_key), Some(&leaf.index))?;
        }
        let pack = PackId { number: stage.number, generation: stage.generation };
        let mut batch = pages.finish(pack, stage.records / RECORDS_PER_LEAF + 1, counts)?;
        put_inner(&mut batch, stage, &leaves.inner);
        note_staging(&mut batch, stage.number, stage.generation, counts);
        self.shared.disk.check_room(batch.bytes())?;
        let pages = (leaves.written.len() + leaves.inner.len()) as u64;
        self.apply(batch)?;
        self.staged.leaves += leaves.written.len() + leaves.removed.len();
        self.staged.bytes += leaves.bytes_with_inner();
        if let Some(staged) = self.stagings.get_mut(&stage.number) {
            staged.counts = counts;
        }
        self.shared.pages_written.fetch_add(pages, Ordering::Relaxed);
        Ok(())
    }

    /// Gives up what a staging has written: its origin may not have it. The next one
    /// fills another generation, since chores delete this one meanwhile.
    fn drop_staged(&mut self, stage: &Stage) -> Result<(), StoreError> {
        self.stagings.remove(&stage.number);
        let mut batch = Batch::default();
        let next = stage.generation + 1;
        note_staging(&mut batch, stage.number, next, 0);
        self.apply(batch)?;
        self.drop_generations(stage.number, stage.generation..next);
        Ok(())
    }

    /// What an interrupted staging has left counts; what was given up goes.
    pub(super) fn find_staged(
        &mut self,
        partition: &PartitionId,
        number: u32,
        head: Option<&Head>,
    ) -> Result<(), StoreError> {
        let first = head.map_or(1, |head| head.generation + 1);
        if let Some((generation, counts)) = self.staged_generation(number)? {
            self.drop_generations(number, first..generation);
            // No ticket is 0.
            let staged = Staged { partition: partition.clone(), ticket: 0, counts };
            self.stagings.insert(number, staged);
        }
        Ok(())
    }

    /// The generation that is being staged, and what was ever written into it counts
    /// for.
    fn staged_generation(&self, number: u32) -> Result<Option<(u32, u64)>, StoreError> {
        let Some(bytes) = self.shared.disk.get(&keys::staging(number))? else {
            return Ok(None);
        };
        let staged = protocol::codec::decode(&bytes);
        staged.map(Some).map_err(|error| StoreError::Damaged {
            place: "a staging".into(),
            problem: error.to_string(),
        })
    }

    pub(super) fn finish_staging(
        &mut self,
        stage: Stage,
        shown: ShownHead,
        summary: Summary,
        inner: Vec<MadePage>,
    ) -> Result<Arc<Head>, StoreError> {
        self.refuse_overtaken(&stage)?;
        self.refuse_quarantined(&stage.partition)?;
        let before = self.head(&stage.partition);
        check_jump(&shown, before.as_deref())?;
        let ShownHead { signed, before: history, path, .. } = shown;
        let described = signed.header();
        self.refuse_suspended(described)?;
        self.check_federation_head(&stage.partition, described.federation_head, before.as_deref())?;
        self.check_root(&signed, &summary)?;
        let mut batch = Batch::default();
        put_inner(&mut batch, &stage, &inner);
        batch.remove(keys::staging(stage.number));
        let state = self.partition(&stage.partition);
        let (next, generation) =
            (Next { signed, history, path: &path, body: None, marks: &[] }, stage.generation);
        let head =
            self.finish_commit(batch, &state, before.as_deref(), generation, next, summary)?;
        self.shared.pages_written.fetch_add(inner.len() as u64, Ordering::Relaxed);
        self.stagings.remove(&stage.number);
        self.drop_generations(stage.number, 0..stage.generation);
        Ok(head)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use protocol::suite::Suite;

    use super::*;
    use crate::{
        Options,
        engine::Disk,
        jobs::{Job, StagedLeaf},
        state::Shared,
    };

    /// A writer of which each job is done when the test says so.
    fn writer(path: &Path) -> (Writer, tokio::sync::mpsc::Sender<Job>) {
        let options = Options { suite: Suite::One, cache_mb: 16, disk_reserve_mb: Some(1) };
        let disk = Disk::open(path, &options).unwrap();
        let shared = Shared::new(disk, Default::default(), path.to_owned());
        let (jobs, _) = tokio::sync::mpsc::channel(1);
        (Writer::new(Arc::new(shared), jobs.downgrade()), jobs)
    }

    fn partition(name: &str) -> PartitionId {
        PartitionId::parse_full(&format!("zhengzhou/{name}/*")).unwrap()
    }

    fn leaves(count: usize) -> StagedLeaves {
        let leaf = |number: usize| StagedLeaf {
            first_key: format!("{number:05}").into_bytes(),
            body: vec![1; 1000],
            index: vec![1; 100],
            counts: 1000,
        };
        StagedLeaves { written: (0..count).map(leaf).collect(), ..StagedLeaves::default() }
    }

    #[test]
    fn what_an_origin_has_given_up_goes_before_it_stages_more() {
        let directory = tempfile::tempdir().unwrap();
        let (mut writer, _jobs) = writer(directory.path());
        let mut given_up = Vec::new();
        for name in ["licence/410122", "penalty/410122", "licence/410181"] {
            let stage = writer.begin_staging(&partition(name), 100_000).unwrap();
            writer.stage_leaves(&stage, leaves(2000)).unwrap();
            writer.drop_staged(&stage).unwrap();
            given_up.push(keys::page(stage.number, stage.generation, 0, &[]));
        }
        let is_there = |writer: &Writer, leaves: &[u8]| {
            writer.shared.disk.first_key(leaves).unwrap().is_some()
        };
        assert!(given_up.iter().all(|leaves| is_there(&writer, leaves)));
        let stage = writer.begin_staging(&partition("enterprise/410122"), 1).unwrap();
        let mut turns = 0;
        while writer.clear_staged(&stage).unwrap() {
            turns += 1;
        }
        assert!(turns > 2, "it is done in small pieces");
        let left: Vec<bool> = given_up.iter().map(|leaves| is_there(&writer, leaves)).collect();
        assert_eq!(left, [false, false, true], "what others have left is none of its business");
    }
}
