//! Two signed histories of one partition: how they are shown, and when they are one again.
//!
//! Both sides of a fork quarantine the partition, each with the two headers that show it:
//! the follower when the other history arrives ([`super::follow`]), the origin when a peer
//! announces a head that its own history has not, and shows that this node has signed it
//! ([`look`]). A quarantine is over when a peer proves that its history has what is here:
//! an origin that has taken back what the follower holds goes on behind that. Which
//! history it goes on with a person decides (`app::ops::resolve`). Invariant: without
//! signatures nothing is quarantined, and without a proof nothing is released.

use std::{future::Future, sync::Arc};

use protocol::{
    change::{Position, SignedHeader},
    id::{NodeId, PartitionId},
    message::{CloseCode, Open, TreeReply, decode_header},
    session::{
        PeerMisbehaved,
        fetch::{FetchAction, TreeFetch},
    },
};
use store::StoreError;

use super::{
    Context, FIRST_FRAME_MAX, Line,
    asking::Look,
    trouble::{Trouble, tell_trouble},
};
use crate::net::{Connection, NetError};

/// Longest answer that has a peer's head: a header, its proof and the root's page.
const PROOF_BYTES_MAX: usize = 64 * 1024;

/// Why a peer's head is not known.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NoHead(String);

/// The signed head that a connected peer has of a partition; none if it has nothing of it.
pub async fn peer_head(
    context: &Context,
    peer: &NodeId,
    partition: &PartitionId,
) -> Result<Option<SignedHeader>, NoHead> {
    let connection = context.peers.connection(peer);
    let connection = connection.ok_or_else(|| {
        NoHead(format!(
            "{peer} 未连接，请待其连接后重试 / {peer} is not connected: try again when it is"
        ))
    })?;
    match answered(head_at(context, &connection, partition)).await {
        Ok(head) => Ok(Some(head)),
        Err(Trouble::Net(NetError::Closed(Some(CloseCode::UnknownPartition)))) => Ok(None),
        Err(trouble) => Err(NoHead(format!(
            "{peer} 未能出示其记录头 / {peer} does not show its head of it: {trouble}"
        ))),
    }
}

/// Whether a peer's history has a header that its origin signed, as far as the peer shows:
/// none if it ends before that, has jumped over it, or does not answer.
pub async fn shows(
    context: &Context,
    peer: &NodeId,
    partition: &PartitionId,
    position: Position,
) -> Option<bool> {
    let connection = context.peers.connection(peer)?;
    match answered(compare_with(context, &connection, partition, position)).await {
        Ok(Compared::One) => Some(true),
        Ok(Compared::Behind) => None,
        Err(trouble) => trouble.other_history().map(|_| false),
    }
}

/// An answer within the time that a first one may take.
pub(super) async fn answered<T>(
    answer: impl Future<Output = Result<T, Trouble>>,
) -> Result<T, Trouble> {
    let answer = tokio::time::timeout(FIRST_FRAME_MAX, answer).await;
    answer.unwrap_or_else(|_| Err(NetError::NoAnswer.into()))
}

/// Asks for a peer's head of a partition, which verifies. How long that may take is the
/// caller's to say.
pub(super) async fn head_at(
    context: &Context,
    connection: &Connection,
    partition: &PartitionId,
) -> Result<SignedHeader, Trouble> {
    let (mut sender, mut receiver) = connection.open_stream().await?;
    receiver.limit(PROOF_BYTES_MAX);
    let outcome = async {
        // Whether its history holds what is here is another question.
        sender.send(&Open::Tree { partition: partition.clone(), have: None }).await?;
        let frame = receiver.receive().await?.ok_or(NetError::Closed(None))?;
        let TreeReply::Head { header, .. } =
            TreeReply::decode(&frame).map_err(PeerMisbehaved::from)?
        else {
            return Err(PeerMisbehaved::Unexpected("something else than a head").into());
        };
        let header = decode_header(&header).map_err(PeerMisbehaved::from)?;
        let shown = &header.header().partition;
        if shown != partition {
            return Err(PeerMisbehaved::NotEntitled(shown.to_string()).into());
        }
        header.verify(&*context.membership.current()?).map_err(PeerMisbehaved::from)?;
        // So that it is out of the peer's way before the next one is asked for.
        sender.finish();
        let _ = receiver.receive().await;
        Ok(header)
    };
    let outcome = outcome.await;
    tell_trouble(outcome, sender, receiver)
}

/// How a peer's history stands to what is here.
pub(super) enum Compared {
    /// It is proved to have what is here.
    One,
    /// It ends before.
    Behind,
}

/// Asks a peer for the proof that its history has what is here of a partition. An error if
/// it shows another one, or nothing.
pub(super) async fn compare(
    context: &Context,
    connection: &Connection,
    partition: &PartitionId,
) -> Result<Compared, Trouble> {
    match context.store.head(partition).map(|head| head.position()) {
        Some(have) => compare_with(context, connection, partition, have).await,
        // Nothing is here that could be another one.
        None => Ok(Compared::One),
    }
}

/// As [`compare`], with a head that is not here, or not any more.
pub(super) async fn compare_with(
    context: &Context,
    connection: &Connection,
    partition: &PartitionId,
    have: Position,
) -> Result<Compared, Trouble> {
    let (mut sender, mut receiver) = connection.open_stream().await?;
    receiver.limit(PROOF_BYTES_MAX);
    let outcome = async {
        let mut fetch = TreeFetch::repairing(partition.clone(), Some(have));
        sender.send(&fetch.open()).await?;
        let frame = receiver.receive().await?.ok_or(NetError::Closed(None))?;
        let reply = TreeReply::decode(&frame).map_err(PeerMisbehaved::from)?;
        fetch.handle_message(reply, &*context.membership.current()?)?;
        sender.finish();
        let _ = receiver.receive().await;
        let mut actions = std::iter::from_fn(|| fetch.poll_action());
        let is_there = actions.any(|action| match action {
            FetchAction::Begin(shown) => shown.signed.header().seq >= have.seq,
            _ => false,
        });
        Ok(if is_there { Compared::One } else { Compared::Behind })
    };
    let outcome = outcome.await;
    tell_trouble(outcome, sender, receiver)
}

/// Quarantines a partition of which a peer has shown another history.
pub(super) async fn quarantine(
    context: &Context,
    partition: &PartitionId,
    reason: String,
    theirs: Option<SignedHeader>,
) -> Result<(), StoreError> {
    let store = &context.store;
    let ours = store.head(partition).map(|head| head.signed.clone());
    let at = theirs.as_ref().map(|theirs| theirs.header().seq);
    // What is here of the same number says most.
    let same = match at.zip(ours.as_ref()) {
        Some((at, ours)) if at < ours.header().seq => store.header_at(partition, at)?,
        _ => None,
    };
    let evidence = [same.or(ours), theirs].into_iter().flatten().collect();
    store.quarantine(partition, reason, evidence).await
}

/// A peer has announced a head of an own partition that is not in the history that is here.
/// If it shows that this node has signed it, there are two.
pub(super) async fn look(
    context: Arc<Context>,
    connection: Connection,
    peer: NodeId,
    partition: PartitionId,
    place: Look,
) {
    let store = &context.store;
    // A peer may say so many things; it is asked for few proofs at once.
    let _turns = place.turn(&context.claims.turn).await;
    if store.quarantine_reason(&partition).is_some() {
        return;
    }
    let theirs = match answered(head_at(&context, &connection, &partition)).await {
        Ok(theirs) => theirs,
        Err(trouble) => {
            tracing::debug!(%partition, %peer, reason = %trouble, "the peer does not show its head of our own partition");
            return;
        }
    };
    let seq = theirs.header().seq;
    let shown = Position { seq, hash: theirs.hash() };
    let is_other = store.is_same(&partition, shown).is_ok_and(|same| same == Some(false));
    // A person may have decided while it was asked.
    if !is_other || context.given_up.contains(store, &partition, shown) {
        return;
    }
    let reason = format!(
        "{peer} 持有本节点签名的另一份历史（第 {seq} 号）：本目录可能来自旧备份，或有副本在别处运行 / {peer} holds another history \
         that this node has signed, at number {seq}: this directory was restored from an old backup, or a copy of it \
         runs elsewhere"
    );
    if context.may_say(&peer, Line::Claim).is_some() {
        tracing::error!(%partition, %peer, seq, "our own partition is quarantined: we have signed two histories, and nothing is overwritten");
    }
    if let Err(error) = quarantine(&context, &partition, reason, Some(theirs)).await {
        tracing::error!(%partition, %error, "the quarantine could not be noted");
    }
}
