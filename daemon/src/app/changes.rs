//! Changes of `_federation` as the store takes them.

use protocol::change::Change;
use store::OwnChanges;

use crate::membership::Membership;

/// Sorted changes of `_federation`, as its one writer signs them.
pub(super) fn federation_changes(membership: &Membership, mut changes: Vec<Change>) -> OwnChanges {
    changes.sort_by(|a, b| a.key().cmp(b.key()));
    OwnChanges {
        partition: membership.partition().clone(),
        changes,
        schema_version: protocol::federation::schema().version(),
        keep_body: true,
    }
}
