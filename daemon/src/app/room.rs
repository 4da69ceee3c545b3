//! Who shares this node's disk: the other members at the hub, the hub at a member.
//!
//! The store keeps each of them within its quota and its share; here it is told who
//! they are, at the start and whenever `_federation` has moved.

use store::{Origins, Store};

use crate::membership::Membership;

/// Tells the store whose data may be here.
pub(super) fn share_out(
    store: &Store,
    membership: &Membership,
    quota_mb: Option<u64>,
) -> anyhow::Result<()> {
    let own = membership.me().clone();
    let others = if membership.is_hub() {
        let registry = membership.current()?;
        let members = registry.members().iter().filter(|(_, member)| !member.removed);
        members.map(|(name, _)| name.clone()).filter(|name| *name != own).collect()
    } else {
        [membership.hub().clone()].into()
    };
    store.set_origins(Origins { own, others, quota_mb });
    Ok(())
}
