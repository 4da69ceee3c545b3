//! Damaged or missing pages of a partition taken back from a connected peer.
//!
//! The peer shows the tree of a signed head. If that is the head that is here,
//! exactly the pages that are not well are replaced and the head stays. Where the
//! peer is ahead, the partition comes to the newer head on the way; of an own one
//! that is a head which this node has signed, with the one that is here in its
//! history, as anywhere else.

use protocol::{
    id::{NodeId, PartitionId},
    session::fetch::TreeFetch,
};
use store::{Healed, StoreError};

use super::{
    Context,
    fetch::{Drive, How, Purpose},
    trouble::Trouble,
};

/// Attempts against one peer: a partition that moves meanwhile is tried again.
const ATTEMPTS_MAX: u32 = 3;

/// What a repair has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repaired {
    /// Who had the pages.
    pub peer: NodeId,
    /// The number of the head that the partition has now.
    pub seq: u64,
    /// What was replaced, or `None` if the replica was put together anew under a
    /// newer head, with all pages that were well.
    pub healed: Option<Healed>,
}

/// Why a repair was not done.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// Nobody who holds the partition is connected.
    #[error("no connected peer holds it")]
    NoPeer,
    /// The peer could not, or did something wrong.
    #[error("{0}: {1}")]
    Failed(NodeId, String),
}

/// Repairs the pages of a partition from a connected peer that holds it.
pub async fn repair(context: &Context, partition: &PartitionId) -> Result<Repaired, RepairError> {
    let mut failed = RepairError::NoPeer;
    for (_, peer) in holders(context, partition) {
        for _ in 0..ATTEMPTS_MAX {
            match repair_from(context, partition, &peer).await {
                Ok(repaired) => return Ok(repaired),
                Err(trouble) => {
                    failed = RepairError::Failed(peer.clone(), trouble.to_string());
                    let is_passing = matches!(
                        trouble,
                        Trouble::MadeRoom
                            | Trouble::Store(StoreError::Overtaken(_) | StoreError::Gap { .. })
                    );
                    if !is_passing {
                        break;
                    }
                }
            }
        }
    }
    Err(failed)
}

/// Connected peers that hold the partition, and up to which number, those with the most
/// first.
pub(super) fn holders(context: &Context, partition: &PartitionId) -> Vec<(u64, NodeId)> {
    let acks = context.store.acks(partition);
    let mut holders: Vec<(u64, NodeId)> = context
        .peers
        .holders(partition)
        .into_iter()
        .filter_map(|(node, said)| {
            let said = said.map(|head| head.position.seq);
            let acked = acks.get(&node).map(|ack| ack.seq);
            Some((said.max(acked)?, node))
        })
        .collect();
    holders.sort_by(|a, b| b.cmp(a));
    holders
}

async fn repair_from(
    context: &Context,
    partition: &PartitionId,
    peer: &NodeId,
) -> Result<Repaired, Trouble> {
    let connection = context.peers.connection(peer).ok_or(crate::net::NetError::Closed(None))?;
    let have = context.store.head(partition).map(|head| head.position());
    let fetch = TreeFetch::repairing(partition.clone(), have);
    let turns = context.turns_of(peer);
    let drive = Drive { context, connection: &connection, turns: &turns, progress: &|| {} };
    let fetched = drive.run(fetch, Purpose::Repair).await?;
    let healed = match fetched.how {
        How::Healed(healed) => Some(healed),
        How::Applied | How::Rebuilt => None,
    };
    tracing::info!(%partition, %peer, seq = fetched.head.seq(), ?healed, "repaired");
    Ok(Repaired { peer: peer.clone(), seq: fetched.head.seq(), healed })
}
