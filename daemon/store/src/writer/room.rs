//! Whether an origin may have the room that its change takes ([`crate::quota`]).
//!
//! Asked before the first write of whatever makes another origin's data larger. What
//! makes it smaller is always taken, or else nobody would get out of it.

use protocol::id::PartitionId;

use super::Writer;
use crate::{error::StoreError, jobs::Stage, quota::Over, state::lock};

const MIB: u64 = 1024 * 1024;

impl Writer {
    /// Whether the partition's data is another node's.
    pub(super) fn is_foreign(&self, partition: &PartitionId) -> bool {
        lock(&self.shared.origins).as_ref().is_some_and(|origins| origins.is_foreign(partition))
    }

    /// Refuses a write of `bytes` after which a partition, that counted for `before`,
    /// counts for `after`, if its origin may not have so much.
    pub(super) fn refuse_over_quota(
        &self,
        partition: &PartitionId,
        before: u64,
        after: u64,
        bytes: usize,
    ) -> Result<(), StoreError> {
        if after <= before {
            return Ok(());
        }
        self.refuse_more(partition, before, after, 0, bytes)
    }

    /// As [`Writer::refuse_over_quota`], of a state of which only what counts for
    /// `counts` has arrived; what it will take the place of is there until then.
    pub(super) fn refuse_staging_over_quota(
        &self,
        stage: &Stage,
        counts: u64,
        bytes: usize,
    ) -> Result<(), StoreError> {
        let before = self.head(&stage.partition).map_or(0, |head| head.counted());
        self.refuse_more(&stage.partition, before, counts, before, bytes)
    }

    fn refuse_more(
        &self,
        partition: &PartitionId,
        before: u64,
        after: u64,
        beside: u64,
        bytes: usize,
    ) -> Result<(), StoreError> {
        let Some(origins) = lock(&self.shared.origins).clone() else {
            return Ok(());
        };
        if !origins.is_foreign(partition) {
            return Ok(());
        }
        let origin = &partition.origin;
        let usage = lock(&self.shared.usage);
        // Several states of one origin may be arriving at once.
        let others = self
            .stagings
            .values()
            .filter(|other| other.partition.origin == *origin && other.partition != *partition);
        let others: u64 = others.map(|other| other.counts).sum();
        let used = (usage.of(origin) + after + others).saturating_sub(before);
        let (capacity, free) = self.shared.disk.capacity(bytes)?;
        usage.allows(&origins, origin, used, beside, capacity, free).map_err(|over| {
            let (origin, used_mb) = (origin.clone(), used.div_ceil(MIB));
            match over {
                Over::Quota(quota) => {
                    StoreError::OverQuota { origin, used_mb, quota_mb: quota / MIB }
                }
                Over::Share(share) => {
                    StoreError::OverShare { origin, used_mb, share_mb: share / MIB }
                }
            }
        })
    }
}
