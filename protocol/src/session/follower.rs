//! One followed partition, at the side that wants it.
//!
//! Change sets are verified here and committed by the driver, one after the
//! other; what is durable is acknowledged. Whether the chain and the state root
//! fit is for the store to say, in the commit itself.

use std::collections::VecDeque;

use super::{PeerMisbehaved, provider::WINDOW_CHANGE_SETS};
use crate::{
    change::{ChangeSet, KeyRing, Position, SignedHeader, VerifiedChangeSet},
    hash::Hash,
    id::PartitionId,
    message::{FollowReply, FollowRequest, Open, decode_header},
};

/// What the driver does for a follower.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FollowerAction {
    /// Commit this, then call [`Follower::handle_committed`].
    Commit(Box<VerifiedChangeSet>),
    /// Send this.
    Send(FollowRequest),
    /// End this stream, take pages, then follow anew.
    TakePages,
    /// The provider shows another header, signed by the origin, at a number
    /// that this replica has: the partition has two histories.
    Fork(Box<SignedHeader>),
}

/// The state of one followed partition.
#[derive(Debug)]
pub struct Follower {
    partition: PartitionId,
    have: Option<Position>,
    /// The number that has to come next.
    next: u64,
    committing: usize,
    actions: VecDeque<FollowerAction>,
}

impl Follower {
    /// A follower whose replica is at `have`.
    pub fn new(partition: PartitionId, have: Option<Position>) -> Self {
        let next = have.map_or(1, |have| have.seq + 1);
        Self { partition, have, next, committing: 0, actions: VecDeque::new() }
    }

    /// Where the replica is, as far as this stream has brought it.
    pub fn have(&self) -> Option<Position> {
        self.have
    }

    /// The first frame of the stream.
    pub fn open(&self) -> Open {
        Open::Follow { partition: self.partition.clone(), have: self.have }
    }

    /// The provider said something.
    pub fn handle_message(
        &mut self,
        message: FollowReply,
        keys: &dyn KeyRing,
    ) -> Result<(), PeerMisbehaved> {
        match message {
            FollowReply::ChangeSet { header, body } => {
                let set = ChangeSet { header: decode_header(&header)?, body };
                let described = set.header.header();
                if described.partition != self.partition {
                    return Err(PeerMisbehaved::NotEntitled(described.partition.to_string()));
                }
                if described.seq != self.next || self.committing >= WINDOW_CHANGE_SETS {
                    return Err(PeerMisbehaved::Unexpected("a change set"));
                }
                let set = set.verify(keys)?;
                self.next += 1;
                self.committing += 1;
                self.actions.push_back(FollowerAction::Commit(Box::new(set)));
            }
            FollowReply::TakePages => self.actions.push_back(FollowerAction::TakePages),
            FollowReply::Fork { header } => {
                let header = decode_header(&header)?;
                let described = header.header();
                // An unsigned claim is no fork.
                header.verify(keys)?;
                let ours = self.have.filter(|have| {
                    described.partition == self.partition
                        && described.seq == have.seq
                        && header.hash() != have.hash
                });
                if ours.is_none() {
                    return Err(PeerMisbehaved::Unexpected("a claim of two histories"));
                }
                self.actions.push_back(FollowerAction::Fork(Box::new(header)));
            }
        }
        Ok(())
    }

    /// The change set at `position` is durable, and `root` is what the replica
    /// computed.
    pub fn handle_committed(&mut self, position: Position, root: Hash) {
        self.committing = self.committing.saturating_sub(1);
        self.have = Some(position);
        self.actions.push_back(FollowerAction::Send(FollowRequest::Ack { position, root }));
    }

    /// What to do next; `None` until something happens.
    pub fn poll_action(&mut self) -> Option<FollowerAction> {
        self.actions.pop_front()
    }
}
