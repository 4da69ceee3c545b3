//! How much room each origin's data may take here.
//!
//! A disk is shared by all whose data a node holds, and one of them that fills it
//! stops the others. So each origin has a *quota* that it never gets beyond, and a
//! *share* that nobody else can take from it: half of what the disk would give to
//! each, were it divided evenly. What is in nobody's share is for whoever needs it
//! first. What the node's own data takes is its own business.
//!
//! What counts is what every node would count alike: the bytes of records, which
//! compress to a third, and a price for each record, page and header, which pays for
//! indexes, for keys that stand in several places and for the database's own needs.
//! That is more than the disk has of usual records, and about as much as it has of
//! those that were made to cost most. Of values that are written again and again the
//! database keeps several copies for a while. Where it is less for such reasons, and the
//! disk is too full for what was promised, every share shrinks by as much: who has the most is
//! stopped first. Not here: how full the disk is (`engine::disk`), which everything
//! asks on top of this.

use std::collections::{BTreeSet, HashMap};

use protocol::{
    id::{NodeId, PartitionId},
    record::KEY_BYTES_MAX,
    tree::Summary,
};
use serde::{Deserialize, Serialize};

/// What a record counts for beside its bytes: its digest, its key and its length in
/// the leaf's index.
const RECORD_BYTES: u64 = 64;
/// What a page counts for: its entries in the database.
const PAGE_BYTES: u64 = 2048;
/// In how many places the first key of a page stands: in front of the leaf, of its
/// index and of its patch, in the index, and above it on each level where it is the
/// first again. How long it is is not known, but not longer than a record in its leaf
/// is on average.
const FIRST_KEYS: u64 = 8;
/// What a change set counts for whose header is kept: that, its nodes in the history,
/// and what the database writes anew with each.
pub const HEADER_BYTES: u64 = 2048;
/// What a change set counts for of which only its nodes in the history are kept.
const HASH_BYTES: u64 = 256;

const MIB: u64 = 1024 * 1024;
/// At most this part of the disk is a quota, where none is set.
const QUOTA_PART: u64 = 2;
/// At most so many times what an even division would give is a quota, where none is set.
const QUOTA_DIVISIONS: u64 = 4;

/// Whose data is here, and how much each may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origins {
    /// This node, whose own data has no quota.
    pub own: NodeId,
    /// All others who may have data here.
    pub others: BTreeSet<NodeId>,
    /// What each of them may have, in MiB; derived from the disk if it is not set.
    pub quota_mb: Option<u64>,
}

impl Origins {
    /// Whether the partition's data is another node's.
    pub fn is_foreign(&self, partition: &PartitionId) -> bool {
        partition.origin != self.own
    }

    /// What an even division of so many bytes gives to each.
    fn even(&self, disk_bytes: u64) -> u64 {
        disk_bytes / (self.others.len() as u64).max(1)
    }

    /// The room that is kept for each of them on a disk of so many bytes.
    pub fn share(&self, disk_bytes: u64) -> u64 {
        (self.even(disk_bytes) / 2).min(self.quota(disk_bytes))
    }

    /// What each of them may have at most.
    pub fn quota(&self, disk_bytes: u64) -> u64 {
        let derived = (disk_bytes / QUOTA_PART).min(self.even(disk_bytes) * QUOTA_DIVISIONS);
        self.quota_mb.map_or(derived, |quota_mb| quota_mb.saturating_mul(MIB))
    }
}

/// What an origin may not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// More than its quota, of so many bytes.
    Quota(u64),
    /// More than what is left of its share, so many bytes, while the rest of the disk is
    /// in others' shares.
    Share(u64),
}

/// What a partition's log has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogKept {
    /// Bytes of the bodies, compressed as they are.
    pub body_bytes: u64,
    /// Headers.
    pub headers: u64,
    /// Headers of which only the hash is left.
    pub hashes: u64,
}

/// What a partition with this tree and this log counts for.
pub fn counted(summary: &Summary, log: LogKept) -> u64 {
    let pages: u64 = summary.pages.iter().sum();
    let LogKept { body_bytes, headers, hashes } = log;
    summary.bytes
        + summary.records * RECORD_BYTES
        + pages * PAGE_BYTES
        + first_keys(summary.bytes, summary.records, pages)
        + body_bytes
        + headers * HEADER_BYTES
        + hashes * HASH_BYTES
}

/// What a leaf counts for that is not part of a state yet.
pub fn counted_leaf(records: u64, bytes: u64) -> u64 {
    bytes + records * RECORD_BYTES + PAGE_BYTES + first_keys(bytes, records, 1)
}

/// What the first keys of so many pages over these records count for.
fn first_keys(bytes: u64, records: u64, pages: u64) -> u64 {
    let each = bytes / records.max(1);
    // The longest key, twice: records are longer, and no first key is.
    each.min(2 * KEY_BYTES_MAX as u64).saturating_mul(pages).saturating_mul(FIRST_KEYS)
}

/// What all partitions of each origin count for.
#[derive(Debug, Default)]
pub struct Usage(HashMap<NodeId, u64>);

impl Usage {
    /// So much of an origin's is here.
    pub fn of(&self, origin: &NodeId) -> u64 {
        self.0.get(origin).copied().unwrap_or(0)
    }

    /// A head has taken the place of another one.
    pub fn moved(&mut self, origin: &NodeId, before: u64, after: u64) {
        let used = self.0.entry(origin.clone()).or_default();
        *used = (*used + after).saturating_sub(before);
    }

    /// Whether an origin may have `used` bytes, and for a while as many as `beside`
    /// more, on a disk of `capacity` bytes of which `free` will be free then, both
    /// without what the node needs itself.
    pub fn allows(
        &self,
        origins: &Origins,
        origin: &NodeId,
        used: u64,
        beside: u64,
        capacity: u64,
        free: u64,
    ) -> Result<(), Over> {
        let (quota, share) = (origins.quota(capacity), origins.share(capacity));
        if used > quota {
            return Err(Over::Quota(quota));
        }
        let others = origins.others.iter().filter(|other| *other != origin);
        let promised: u64 = others.map(|other| share.saturating_sub(self.of(other))).sum();
        if free < promised {
            let left = u128::from(share) * u128::from(free) / u128::from(promised);
            let share = u64::try_from(left).unwrap_or(share);
            if used + beside > share {
                return Err(Over::Share(share));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origins(count: usize, quota_mb: Option<u64>) -> Origins {
        let name = |name: &str| NodeId::new(name).unwrap();
        let others = (0..count).map(|number| name(&format!("county-{number}"))).collect();
        Origins { own: name("centre"), others, quota_mb }
    }

    #[test]
    fn a_quota_is_part_of_the_disk_and_all_shares_fit_on_it() {
        for (count, share, quota) in
            [(0, 500, 500), (1, 500, 500), (4, 125, 500), (13, 38, 304), (1000, 0, 4)]
        {
            let origins = origins(count, None);
            assert_eq!((origins.share(1000), origins.quota(1000)), (share, quota), "{count}");
        }
        let set = origins(4, Some(100));
        assert_eq!((set.share(1000 * MIB), set.quota(1000 * MIB)), (100 * MIB, 100 * MIB));
    }

    #[test]
    fn what_others_have_not_used_of_their_shares_is_kept_for_them() {
        let origins = origins(3, None);
        let names: Vec<&NodeId> = origins.others.iter().collect();
        let mut usage = Usage::default();
        usage.moved(names[0], 0, 70);
        usage.moved(names[0], 70, 90);
        usage.moved(names[1], 0, 250);
        assert_eq!((usage.of(names[0]), usage.of(names[2])), (90, 0));
        // Of 900 each may have 450, and 150 are kept for each: 60 more for the first,
        // and 150 for the third.
        let allows = |origin, used, free| usage.allows(&origins, names[origin], used, 0, 900, free);
        assert_eq!(allows(1, 260, 210), Ok(()));
        assert_eq!(allows(1, 260, 209), Err(Over::Share(149)));
        assert_eq!(allows(1, 450, 210), Ok(()));
        assert_eq!(allows(1, 451, 900), Err(Over::Quota(450)));
        assert_eq!(allows(0, 151, 150), Ok(()), "the second has used its own");
        // Somebody takes more than is counted: all shares shrink, and who has the most
        // is stopped first.
        assert_eq!(allows(1, 250, 105), Err(Over::Share(75)));
        assert_eq!(allows(0, 90, 75), Err(Over::Share(75)));
        assert_eq!(allows(2, 50, 30), Ok(()));
        assert_eq!(allows(2, 75, 30), Ok(()));
        assert_eq!(allows(2, 76, 30), Err(Over::Share(75)));
        // What is there only for a while counts against shares alone.
        let both = |used, beside, free| usage.allows(&origins, names[1], used, beside, 900, free);
        assert_eq!(both(450, 500, 209), Err(Over::Share(149)));
        assert_eq!(both(100, 50, 209), Err(Over::Share(149)));
        assert_eq!(both(450, 500, 210), Ok(()));
    }
}
