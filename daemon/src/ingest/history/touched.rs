//! Which keys of a partition were changed since a number, as its log says.
//!
//! Used where a person decides about something older: approving a held delivery,
//! and taking back a first load. Invariant: an answer is complete, or it is none.

use std::collections::BTreeSet;

use protocol::{
    change::{BODY_BYTES_MAX, Change, decode_changes},
    codec::decompress,
    id::PartitionId,
};
use store::{Store, StoreError};

/// Keys at most: 100 change sets of the largest size, and some 50 MB. Whoever
/// looks at more than that looks at another register.
const KEYS_MAX: usize = 1_000_000;
/// Change sets that are read at once.
const SETS_AT_ONCE: usize = 64;

/// The keys that change sets behind number `since` have changed; none where the
/// log does not hold them all, or they are too many.
pub(in crate::ingest) fn touched_since(
    store: &Store,
    partition: &PartitionId,
    since: u64,
) -> Result<Option<BTreeSet<Vec<u8>>>, StoreError> {
    let head = store.seq(partition);
    let mut keys = BTreeSet::new();
    let mut next = since + 1;
    while next <= head {
        let Some(sets) = store.change_sets(partition, next, SETS_AT_ONCE, BODY_BYTES_MAX)? else {
            return Ok(None);
        };
        next += sets.len() as u64;
        for set in sets {
            let changes = decode_changes(&decompress(&set.body, BODY_BYTES_MAX)?)?;
            keys.extend(changes.iter().map(Change::key).map(<[u8]>::to_vec));
            if keys.len() > KEYS_MAX {
                return Ok(None);
            }
        }
    }
    Ok(Some(keys))
}
