//! Dropping a replica. Its name gets a new number with nothing under it, in one
//! small batch; all that lies under the old number is deleted by chores.
//!
//! Nothing of the old can be taken for the new, because a number is never used
//! twice, and a crash leaves one or the other. What [`Store::forget`] promises
//! stands there.
//!
//! [`Store::forget`]: crate::Store::forget

use std::{collections::BTreeSet, sync::Arc};

use protocol::{
    change::{Position, SignedHeader},
    id::PartitionId,
};

use super::Writer;
use crate::{
    engine::Batch,
    error::StoreError,
    heads, keys,
    state::{PartitionState, lock},
};

impl Writer {
    pub(super) fn forget(&mut self, partition: &PartitionId) -> Result<(), StoreError> {
        self.flush()?;
        let was_lost = lock(&self.shared.lost).remove(partition);
        let Some(old) = self.shared.partition(partition) else {
            return if was_lost.is_some() { heads::write_now(&self.shared) } else { Ok(()) };
        };
        // First of all, or else a store without the partition would be taken for
        // a damaged one.
        heads::leave_out(&self.shared, partition)?;
        self.drop_name(partition, &old)?;
        *lock(&self.shared.forgetting) = None;
        self.shared.moved.tell(partition.clone());
        Ok(())
    }

    /// Drops what this node has written itself since its history has parted from the one
    /// of `instead`. From before the first write on the sidecar says that all up to there
    /// is lost, so that nothing is written to the partition, whatever happens, before that
    /// is back.
    pub(super) fn give_up(
        &mut self,
        instead: &SignedHeader,
        expected: Option<Position>,
    ) -> Result<(), StoreError> {
        self.flush()?;
        let header = instead.header();
        let partition = &header.partition;
        if self.head(partition).map(|head| head.position()) != expected {
            return Err(StoreError::Overtaken(partition.clone()));
        }
        let before = lock(&self.shared.lost).insert(partition.clone(), heads::lost(instead));
        heads::write_now(&self.shared).inspect_err(|_| {
            let mut lost = lock(&self.shared.lost);
            match before {
                Some(before) => lost.insert(partition.clone(), before),
                None => lost.remove(partition),
            };
        })?;
        if let Some(old) = self.shared.partition(partition) {
            self.drop_name(partition, &old)?;
        }
        self.shared.moved.tell(partition.clone());
        Ok(())
    }

    /// Gives the name another number, under which there is nothing.
    fn drop_name(
        &mut self,
        partition: &PartitionId,
        old: &PartitionState,
    ) -> Result<(), StoreError> {
        let new = Arc::new(PartitionState::new(self.next_number));
        let mut batch = Batch::default();
        batch.put(keys::number(partition), new.number.to_be_bytes().to_vec());
        // If one of these fails the sidecar stays without the partition: nobody
        // knows what the database holds.
        self.apply(batch)?;
        self.shared.disk.make_durable().inspect_err(|error| self.fail(error))?;
        self.next_number = new.number + 1;
        let counted = old.head().map_or(0, |head| head.counted());
        lock(&self.shared.usage).moved(&partition.origin, counted, 0);
        // A staging of the old number is overtaken.
        self.stagings.remove(&old.number);
        self.shared.add_partition(partition.clone(), new);
        // Readers have to see this before a chore takes their pages away.
        old.forget();
        self.chores.extend(keys::of_partition(old.number));
        Ok(())
    }

    /// What an interrupted run left under numbers that no name leads to.
    pub(super) fn drop_unused_numbers(&mut self) {
        let partitions = self.shared.partitions();
        let used: BTreeSet<u32> = partitions.values().map(|state| state.number).collect();
        let unused = (0..self.next_number).filter(|number| !used.contains(number));
        self.chores.extend(unused.flat_map(keys::of_partition));
        // A crash may have come between a pack and the partition's number.
        if let Err(error) = self.shared.disk.packs.remove_from(self.next_number) {
            tracing::warn!(%error, "what is not needed any more could not be removed");
        }
    }
}
