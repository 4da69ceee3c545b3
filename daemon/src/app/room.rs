//! Who shares this node's disk: the other members at the hub, the hub at a member.
//!
//! The store keeps each of them within its quota and its share; here it is told who
//! they are, at the start and whenever `_federation` has moved.

use std::sync::Arc;

use protocol::id::PartitionId;
use store::{Origins, Store};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio_util::sync::CancellationToken;

use super::node::Node;
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

/// Does so again whenever `_federation` has moved.
pub(super) async fn keep_shared_out(
    node: Arc<Node>,
    mut events: broadcast::Receiver<PartitionId>,
    shutdown: CancellationToken,
) {
    loop {
        let moved = tokio::select! {
            event = events.recv() => match event {
                Ok(partition) => partition == *node.membership.partition(),
                Err(RecvError::Lagged(_)) => true,
                Err(RecvError::Closed) => return,
            },
            () = shutdown.cancelled() => return,
        };
        if !moved {
            continue;
        }
        let asking = node.clone();
        let shared = tokio::task::spawn_blocking(move || {
            share_out(&asking.store, &asking.membership, asking.config.store.origin_quota_mb)
        });
        if let Ok(Err(error)) = shared.await {
            tracing::error!(error = format!("{error:#}"), "who shares the disk could not be read");
        }
    }
}
