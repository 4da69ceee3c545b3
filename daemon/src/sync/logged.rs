//! What a peer has of one number of a partition's log: its signed header, or the whole
//! change set. Who mends a log that is damaged asks for it (`upkeep::mend`).
//!
//! Both are questions that any follower may ask. A follower that names another hash at a
//! number is shown the signed header of that number, whether or not its body is kept; one
//! that has the number before is sent the change set. Invariant: what is answered is
//! signed by a key that counts. Whether it is what belongs here is the store's to say.

use protocol::{
    change::{ChangeSet, Position, SignedHeader, VerifiedChangeSet},
    frame::FRAME_BYTES_MAX,
    id::{NodeId, PartitionId},
    message::{FollowReply, Open, decode_header},
    session::PeerMisbehaved,
};
use tokio_util::sync::CancellationToken;

use super::{
    Context,
    fork::answered,
    repair::holders,
    trouble::{Trouble, tell_trouble},
};
use crate::net::NetError;

/// Longest answer that has no change set: a signed header.
const HEADER_FRAME_BYTES_MAX: usize = 4096;
/// Peers that are asked for one number: where so many do not keep it, others hardly do.
const ASKED_MAX: usize = 8;

/// What peers have said of a number.
pub struct Asked<T> {
    /// What one of them has.
    pub found: Option<(NodeId, T)>,
    /// Who has said that it does not keep it.
    pub without: Vec<NodeId>,
    /// Why others have said nothing.
    pub failed: Vec<String>,
}

/// Asks connected peers that hold a partition for the signed header of a number.
pub async fn ask_for_header(
    context: &Context,
    partition: &PartitionId,
    seq: u64,
    is_right: impl Fn(&SignedHeader) -> bool,
) -> Asked<SignedHeader> {
    // No header has it.
    let other = Position { seq, hash: context.membership.suite().none() };
    ask(context, partition, seq, Some(other), HEADER_FRAME_BYTES_MAX, |reply| {
        let FollowReply::Fork { header } = reply else {
            return Err(PeerMisbehaved::Unexpected("something else than a header").into());
        };
        let header = decode_header(&header).map_err(PeerMisbehaved::from)?;
        check_place(&header, partition, seq)?;
        header.verify(&*context.membership.current()?).map_err(PeerMisbehaved::from)?;
        is_right(&header).then_some(header).ok_or_else(|| another(seq))
    })
    .await
}

/// Asks connected peers that hold a partition for the change set of a number, where the
/// header before it is `before`.
pub async fn ask_for_change_set(
    context: &Context,
    partition: &PartitionId,
    seq: u64,
    before: Option<Position>,
    is_right: impl Fn(&SignedHeader) -> bool,
) -> Asked<VerifiedChangeSet> {
    ask(context, partition, seq, before, FRAME_BYTES_MAX, |reply| {
        let FollowReply::ChangeSet { header, body } = reply else {
            return Err(PeerMisbehaved::Unexpected("something else than a change set").into());
        };
        let set = ChangeSet { header: decode_header(&header).map_err(PeerMisbehaved::from)?, body };
        check_place(&set.header, partition, seq)?;
        let set = set.verify(&*context.membership.current()?).map_err(PeerMisbehaved::from)?;
        match is_right(set.header()) {
            true => Ok(set),
            false => Err(another(seq)),
        }
    })
    .await
}

fn check_place(header: &SignedHeader, partition: &PartitionId, seq: u64) -> Result<(), Trouble> {
    let described = header.header();
    if described.partition != *partition {
        return Err(PeerMisbehaved::NotEntitled(described.partition.to_string()).into());
    }
    if described.seq != seq {
        return Err(PeerMisbehaved::Unexpected("a header of another number").into());
    }
    Ok(())
}

/// It is signed, and it is not what was signed here: which of the two counts is not
/// settled by a repair.
fn another(seq: u64) -> Trouble {
    Trouble::Unproven(format!("its number {seq} is not the one that belongs here"))
}

async fn ask<T>(
    context: &Context,
    partition: &PartitionId,
    seq: u64,
    have: Option<Position>,
    bytes_max: usize,
    take: impl Fn(FollowReply) -> Result<T, Trouble>,
) -> Asked<T> {
    let mut asked = Asked { found: None, without: Vec::new(), failed: Vec::new() };
    let holding = holders(context, partition).into_iter().filter(|(held, _)| *held >= seq);
    for (_, peer) in holding.take(ASKED_MAX) {
        match answered(ask_one(context, partition, &peer, have, bytes_max)).await {
            Ok(FollowReply::TakePages) => asked.without.push(peer),
            Ok(reply) => match take(reply) {
                Ok(found) => {
                    asked.found = Some((peer, found));
                    break;
                }
                Err(trouble) => asked.failed.push(format!("{peer}: {trouble}")),
            },
            Err(trouble) => asked.failed.push(format!("{peer}: {trouble}")),
        }
    }
    asked
}

/// One question, whose first answer is all that is waited for.
async fn ask_one(
    context: &Context,
    partition: &PartitionId,
    peer: &NodeId,
    have: Option<Position>,
    bytes_max: usize,
) -> Result<FollowReply, Trouble> {
    let connection = context.peers.connection(peer).ok_or(NetError::Closed(None))?;
    let (mut sender, mut receiver) = connection.open_stream().await?;
    let makes_room = CancellationToken::new();
    receiver.limit(bytes_max);
    receiver.share_memory(context.turns_of(peer).frames(&makes_room), Box::new(|| {}));
    let outcome = async {
        sender.send(&Open::Follow { partition: partition.clone(), have }).await?;
        let frame = receiver.receive_owed().await?.ok_or(NetError::Closed(None))?;
        sender.finish();
        Ok(protocol::codec::decode(&frame).map_err(PeerMisbehaved::from)?)
    };
    let outcome = tokio::select! {
        outcome = outcome => outcome,
        () = makes_room.cancelled() => Err(Trouble::MadeRoom),
    };
    // More may be on its way that nobody asked for.
    receiver.stop(protocol::message::CloseCode::Normal);
    tell_trouble(outcome, sender, receiver)
}
