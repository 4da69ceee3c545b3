//! Waste given back, piece by piece, as a chore of the node asks for it.
//!
//! First come the packs, one after the other: those that are mostly waste are rewritten
//! ([`crate::engine::repack`]). Then the database is weighed: nobody counts along how much
//! of its file is needed. If most of it is waste, it is copied, and the copy takes its place
//! ([`crate::engine::compact`]). Each piece is a job among the others, so a commit waits
//! for one piece at most. Invariant: whatever goes wrong with a copy, the database is as
//! good as before; only where nobody knows which of the two is on the disk the store
//! fails, as it does when sled cannot write.

use std::sync::atomic::Ordering;

use super::Writer;
use crate::{
    engine::{Copied, Repacked, Repacking, Weighed},
    error::StoreError,
    jobs::{Compacted, Compaction},
    keys,
};

/// A compaction under way.
pub(super) struct Compacting {
    ended: Compaction,
    stage: Stage,
}

/// How far it has come.
enum Stage {
    /// The packs that are left are looked through, the last one first.
    Packs { left: Vec<Repacking>, done: u64 },
    /// What the database holds is counted.
    Weighing(Weighed),
    /// It is copied.
    Copying { weighed: Weighed, copied: Copied },
}

impl Writer {
    /// Tells whoever asks for compactions that one may be due.
    pub(super) fn notice_waste(&self) {
        if self.compaction.is_none() && self.shared.disk.wants_weighing() {
            self.shared.wasteful.notify_one();
        }
    }

    /// Does the next piece of a compaction, or begins one.
    pub(super) fn compact_some(&mut self) -> Result<Compacted, StoreError> {
        let Compacting { mut ended, stage } = match self.compaction.take() {
            Some(under_way) => under_way,
            None => self.begin_compaction()?,
        };
        let next = match stage {
            Stage::Packs { left, done } => self.repack_some(&mut ended, left, done)?,
            Stage::Weighing(weighed) => self.weigh_some(&mut ended, weighed),
            Stage::Copying { weighed, copied } => self.copy_some(&mut ended, weighed, copied)?,
        };
        let Some(stage) = next else {
            ended.after = self.shared.disk.database_bytes()?;
            ended.packs.1 = self.pack_bytes()?;
            return Ok(Compacted::Ended(ended));
        };
        let (done, of) = match &stage {
            Stage::Packs { done, .. } => (*done, ended.packs.0),
            // Its file is longer than what is in it.
            Stage::Weighing(weighed) => (weighed.bytes, ended.before),
            Stage::Copying { weighed, copied } => (copied.bytes, weighed.bytes),
        };
        self.compaction = Some(Compacting { ended, stage });
        Ok(Compacted::More { done, of: of.max(done) })
    }

    fn begin_compaction(&self) -> Result<Compacting, StoreError> {
        let disk = &self.shared.disk;
        let (before, packs) = (disk.database_bytes()?, self.pack_bytes()?);
        let of = |id| Repacking::new(id, keys::generation(id.number, id.generation));
        let left = disk.packs.list().into_iter().map(of).collect();
        let ended =
            Compaction { before, after: before, content: 0, packs: (packs, packs), stopped: None };
        Ok(Compacting { ended, stage: Stage::Packs { left, done: 0 } })
    }

    fn pack_bytes(&self) -> Result<u64, StoreError> {
        let packs = &self.shared.disk.packs;
        packs.list().into_iter().map(|id| packs.length(id)).sum()
    }

    fn repack_some(
        &mut self,
        ended: &mut Compaction,
        mut left: Vec<Repacking>,
        mut done: u64,
    ) -> Result<Option<Stage>, StoreError> {
        let Some(at) = left.last_mut() else {
            return Ok(Some(Stage::Weighing(Weighed::default())));
        };
        let (disk, id) = (&self.shared.disk, at.id);
        match disk.repack_some(at) {
            Ok(Repacked::More) => return Ok(Some(Stage::Packs { left, done })),
            Ok(Repacked::Write(batch)) => {
                self.apply(batch)?;
                // Or the next commit would wait for it.
                self.shared.disk.make_durable().inspect_err(|error| self.fail(error))?;
                return Ok(Some(Stage::Packs { left, done }));
            }
            Ok(Repacked::Left(problem)) => ended.stopped = problem.or(ended.stopped.take()),
            Ok(Repacked::Done) => {
                tracing::info!(pack = ?id, "a pack that was mostly waste was rewritten");
            }
            // The others, and the database, are not concerned.
            Err(error) => ended.stopped = Some(error),
        }
        left.pop();
        done += disk.packs.length(id)?;
        Ok(Some(Stage::Packs { left, done }))
    }

    fn weigh_some(&self, ended: &mut Compaction, mut weighed: Weighed) -> Option<Stage> {
        let disk = &self.shared.disk;
        match disk.weigh_some(&mut weighed) {
            Ok(false) => return Some(Stage::Weighing(weighed)),
            Ok(true) => ended.content = weighed.bytes,
            Err(error) => return self.stop_compaction(ended, error),
        }
        match disk.is_wasteful(&weighed) {
            Ok(false) => return None,
            Ok(true) => {}
            Err(error) => return self.stop_compaction(ended, error),
        }
        match disk.begin_copy(&weighed) {
            Ok(copied) => {
                tracing::info!(
                    bytes = ended.before,
                    content = weighed.bytes,
                    "most of the database's file is waste; what counts is copied into a new one"
                );
                Some(Stage::Copying { weighed, copied })
            }
            Err(error) => self.stop_compaction(ended, error),
        }
    }

    fn copy_some(
        &self,
        ended: &mut Compaction,
        weighed: Weighed,
        mut copied: Copied,
    ) -> Result<Option<Stage>, StoreError> {
        let disk = &self.shared.disk;
        match disk.copy_some(&mut copied) {
            Ok(false) => return Ok(Some(Stage::Copying { weighed, copied })),
            Ok(true) => {}
            Err(error) => return Ok(self.stop_compaction(ended, error)),
        }
        match disk.take_over().inspect_err(|error| self.fail(error))? {
            Ok(()) => {
                ended.content = copied.bytes;
                tracing::info!(before = ended.before, "the database was compacted");
                Ok(None)
            }
            Err(error) => Ok(self.stop_compaction(ended, error)),
        }
    }

    /// Leaves the database as it is, for a reason that somebody may have to look into.
    fn stop_compaction(&self, ended: &mut Compaction, error: StoreError) -> Option<Stage> {
        let disk = &self.shared.disk;
        disk.give_up_copy();
        disk.weigh_later();
        ended.stopped = Some(error);
        None
    }

    pub(super) fn give_up_compaction(&mut self) {
        if self.compaction.take().is_some() && !self.shared.failed.load(Ordering::Relaxed) {
            self.shared.disk.give_up_copy();
        }
    }
}
