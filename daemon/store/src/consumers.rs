//! What consumers ask of the store: what comes next, and their marks ([`crate::marks`]).
//!
//! It is pulled: [`Store::moves`] tells when there is more.

use std::sync::Arc;

use protocol::{change::Position, id::PartitionId};

use crate::{
    Store,
    error::StoreError,
    feed::{self, Feed},
    jobs::Job,
    marks::{Consumer, Mark, MarkMove},
    prepare::Prepared,
    queue::Pending,
    snapshot::Snapshot,
    state::{Head, OwnChanges, lock},
};

impl Store {
    /// What a consumer reads next that has come up to `mark`. From a thread that may block.
    ///
    /// # Errors
    /// If the store cannot be read. What is damaged in the log is no error: it is passed
    /// over by [`Feed::Rebuilt`].
    pub fn feed(
        &self,
        partition: &PartitionId,
        mark: Option<Position>,
    ) -> Result<Feed, StoreError> {
        let state = self.shared.partition(partition);
        let held = state.and_then(|state| Some((state.number, state.head()?)));
        match (held, mark) {
            (None, None) => Ok(Feed::UpToDate),
            (None, Some(_)) => Ok(Feed::Retired),
            (Some(_), None) => Ok(self.whole(partition)?.map_or(Feed::UpToDate, Feed::Genesis)),
            (Some((_, head)), Some(mark)) if mark == head.position() => Ok(Feed::UpToDate),
            (Some((number, head)), Some(mark)) => {
                // What was applied and is not durable yet is told to nobody.
                let step = match mark.seq < head.seq() {
                    true => feed::step_behind(&self.shared.disk, number, &head, mark)?,
                    false => None,
                };
                match step {
                    Some(step) => Ok(Feed::Next(step)),
                    None => Ok(self.whole(partition)?.map_or(Feed::Retired, Feed::Rebuilt)),
                }
            }
        }
    }

    fn whole(&self, partition: &PartitionId) -> Result<Option<Box<Snapshot>>, StoreError> {
        Ok(self.snapshot_blocking(partition)?.map(Box::new))
    }

    /// How far a consumer has come in a partition.
    pub fn mark(&self, consumer: &Consumer, partition: &PartitionId) -> Option<Mark> {
        lock(&self.shared.marks).get(&(partition.clone(), consumer.clone())).copied()
    }

    /// The partitions of which a consumer has a mark.
    pub fn marked(&self, consumer: &Consumer) -> Vec<(PartitionId, Mark)> {
        let marks = lock(&self.shared.marks);
        let of_it = marks.iter().filter(|((_, by), _)| by == consumer);
        of_it.map(|((partition, _), mark)| (partition.clone(), *mark)).collect()
    }

    /// Moves marks alone, where a consumer had nothing to write; durable when it answers.
    /// From a thread that may block.
    ///
    /// # Errors
    /// If they could not be written.
    pub fn move_marks(&self, moves: Vec<MarkMove>) -> Result<(), StoreError> {
        self.queue.submit_blocking(|reply| Job::Mark { moves, reply })?.wait()
    }

    /// As [`Store::commit_own_later`], with marks that move in the same batch: after a crash
    /// both are there, or neither.
    ///
    /// # Errors
    /// As [`Store::commit_own_later`]. Of several change sets the last one moves the marks.
    pub fn commit_own_marked(
        &self,
        changes: OwnChanges,
        moves: Vec<MarkMove>,
    ) -> Result<Pending<Arc<Head>>, StoreError> {
        self.ask_before_write(&changes.partition)?;
        let prepared = Prepared::new(self.shared.disk.suite, changes)?;
        let prepared = Box::new(Prepared { marks: moves, ..prepared });
        self.queue.submit_blocking(|reply| Job::Own { prepared, reply })
    }
}
