//! How a follower's head stands to the history that is here, with the proof of it.
//!
//! The follower believes none of the answers: it checks the proof
//! ([`protocol::session::fetch`]).

use protocol::{change::Position, history::Proof, id::PartitionId, message::TreeReply};
use store::{Head, Store, StoreError};

pub(super) enum Proved {
    InHistory(Proof),
    /// The header of its number that is here is another one, which this shows.
    Other(TreeReply),
}

/// Whether a follower at `have` is in the history of `head`, a head of the partition now
/// or earlier. `None` if that is not known here, because the headers between were jumped
/// over.
pub(super) fn prove(
    store: &Store,
    partition: &PartitionId,
    head: &Head,
    have: Option<Position>,
) -> Result<Option<Proved>, StoreError> {
    let have = have.filter(|have| have.seq <= head.seq());
    let other = match have {
        Some(have) if store.is_same(partition, have)? == Some(false) => {
            store.header_hash_at(partition, have.seq)?
        }
        _ => None,
    };
    if let (Some(have), Some(other)) = (have, other)
        && let Some(mine) = store.header_at(partition, have.seq)?
    {
        let (header, proof) = (mine.encode(), Proof::default());
        return Ok(Some(Proved::Other(TreeReply::Fork { header, other, proof })));
    }
    let earlier = have.map(|have| have.seq).filter(|seq| *seq < head.seq());
    let Some(proof) = store.history_proof(partition, head, earlier)? else {
        return Ok(None);
    };
    Ok(Some(match other {
        Some(other) => {
            Proved::Other(TreeReply::Fork { header: head.signed.encode(), other, proof })
        }
        None => Proved::InHistory(proof),
    }))
}
