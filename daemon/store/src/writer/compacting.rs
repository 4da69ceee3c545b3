//! Waste given back, piece by piece, as a chore of the node asks for it.
//!
//! First the database is weighed: nobody counts along how much of its file is needed. If
//! most of it is waste, it is copied, and the copy takes its place
//! ([`crate::engine::compact`]). Each piece is a job among the others, so a commit waits
//! for one piece at most. Invariant: whatever goes wrong with a copy, the database is as
//! good as before; only where nobody knows which of the two is on the disk the store
//! fails, as it does when sled cannot write.

use std::sync::atomic::Ordering;

use super::Writer;
use crate::{
    engine::{Copied, Weighed},
    error::StoreError,
    jobs::{Compacted, Compaction},
};

/// How far a compaction has come.
pub(super) enum Stage {
    /// What the database holds is counted.
    Weighing(Weighed),
    /// It is copied.
    Copying { before: u64, weighed: Weighed, copied: Copied },
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
        let stage = self.compaction.take().unwrap_or_else(|| Stage::Weighing(Weighed::default()));
        match stage {
            Stage::Weighing(weighed) => self.weigh_some(weighed),
            Stage::Copying { before, weighed, copied } => self.copy_some(before, weighed, copied),
        }
    }

    fn weigh_some(&mut self, mut weighed: Weighed) -> Result<Compacted, StoreError> {
        let disk = &self.shared.disk;
        let before = disk.database_bytes()?;
        match disk.weigh_some(&mut weighed) {
            Ok(false) => {
                // Its file is longer than what is in it.
                let (done, of) = (weighed.bytes, before.max(weighed.bytes));
                self.compaction = Some(Stage::Weighing(weighed));
                return Ok(Compacted::More { done, of });
            }
            Ok(true) => {}
            Err(error) => return Ok(self.stop_compaction(before, &weighed, error)),
        }
        if !disk.is_wasteful(&weighed)? {
            let content = weighed.bytes;
            let ended = Compaction { before, after: before, content, stopped: None };
            return Ok(Compacted::Ended(ended));
        }
        match disk.begin_copy(&weighed) {
            Ok(copied) => {
                tracing::info!(
                    bytes = before,
                    content = weighed.bytes,
                    "most of the database's file is waste; what counts is copied into a new one"
                );
                let of = weighed.bytes;
                self.compaction = Some(Stage::Copying { before, weighed, copied });
                Ok(Compacted::More { done: 0, of })
            }
            Err(error) => Ok(self.stop_compaction(before, &weighed, error)),
        }
    }

    fn copy_some(
        &mut self,
        before: u64,
        weighed: Weighed,
        mut copied: Copied,
    ) -> Result<Compacted, StoreError> {
        let disk = &self.shared.disk;
        match disk.copy_some(&mut copied) {
            Ok(false) => {
                let (done, of) = (copied.bytes, weighed.bytes.max(copied.bytes));
                self.compaction = Some(Stage::Copying { before, weighed, copied });
                return Ok(Compacted::More { done, of });
            }
            Ok(true) => {}
            Err(error) => return Ok(self.stop_compaction(before, &weighed, error)),
        }
        match disk.take_over().inspect_err(|error| self.fail(error))? {
            Ok(()) => {
                let (after, content) = (disk.database_bytes()?, copied.bytes);
                tracing::info!(before, after, content, "the database was compacted");
                let ended = Compaction { before, after, content, stopped: None };
                Ok(Compacted::Ended(ended))
            }
            Err(error) => Ok(self.stop_compaction(before, &weighed, error)),
        }
    }

    /// Leaves the database as it is, for a reason that somebody may have to look into.
    fn stop_compaction(&self, before: u64, weighed: &Weighed, error: StoreError) -> Compacted {
        let disk = &self.shared.disk;
        disk.give_up_copy();
        disk.weigh_later();
        let content = weighed.bytes;
        Compacted::Ended(Compaction { before, after: before, content, stopped: Some(error) })
    }

    pub(super) fn give_up_compaction(&mut self) {
        if self.compaction.take().is_some() && !self.shared.failed.load(Ordering::Relaxed) {
            self.shared.disk.give_up_copy();
        }
    }
}
