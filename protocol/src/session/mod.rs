//! The conversation between two nodes as state machines without input or
//! output.
//!
//! Each takes what happened (`handle_*`) and answers what to do (`poll_*`); the
//! driver in the daemon moves bytes, reads and writes the store, and passes the
//! time in. The simulation in `tests/` drives the same machines.
//!
//! - [`link`]: the control stream: who the peer is, what it has, what to follow;
//! - [`provider`]: one followed partition, at the side that has it;
//! - [`follower`]: the same, at the side that wants it;
//! - [`fetch`]: a replica takes the pages of a tree, or only those that differ.

pub mod backoff;
pub mod entitle;
pub mod fetch;
pub mod follower;
pub mod link;
pub mod provider;

use crate::{
    change::{ChangeSetError, SignedHeader},
    encoding::DecodeError,
    history::ProofError,
    message::CloseCode,
};

/// The peer broke the protocol. It costs the peer its stream or connection,
/// and is never our own fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerMisbehaved {
    /// Bytes that do not decode.
    #[error("it sent a malformed message: {0}")]
    Malformed(#[from] DecodeError),
    /// A message out of place.
    #[error("it sent {0} where the protocol has no place for it")]
    Unexpected(&'static str),
    /// A partition that it does not own, or that we may not have.
    #[error("it spoke of partition {0}, which is not its to speak of")]
    NotEntitled(String),
    /// A change set that its origin did not sign.
    #[error("it sent a change set that does not verify: {0}")]
    Forged(#[from] ChangeSetError),
    /// A page whose hash is not the one its parent holds.
    #[error("it sent a page of another tree: {0}")]
    WrongPage(&'static str),
    /// It has shown that two histories are signed: this one, and what is here.
    #[error("the history that it shows, up to number {}, does not hold what is here", .0.header().seq)]
    OtherHistory(Box<SignedHeader>),
    /// A proof that shows nothing of a history: neither that it holds what is here, nor
    /// that it is another one.
    #[error("it sent a proof that shows nothing: {0}")]
    WrongProof(#[from] ProofError),
    /// A federation of another suite, by their numbers.
    #[error("its federation has suite {theirs}, and this one has suite {ours}")]
    Suite {
        /// The peer's.
        theirs: u8,
        /// This node's.
        ours: u8,
    },
    /// No protocol version in common.
    #[error("it knows none of our protocol versions")]
    Version,
}

impl PeerMisbehaved {
    /// Whether an honest peer can have done this: one that has not heard yet
    /// that its signing key was retired.
    pub fn may_be_innocent(&self) -> bool {
        matches!(self, PeerMisbehaved::Forged(ChangeSetError::KeyRange { .. }))
    }

    /// What the peer is told.
    pub fn code(&self) -> CloseCode {
        match self {
            PeerMisbehaved::Malformed(
                DecodeError::UnknownSuite(_) | DecodeError::OtherSuite { .. },
            ) => CloseCode::Version,
            PeerMisbehaved::Malformed(_) => CloseCode::Malformed,
            PeerMisbehaved::Unexpected(_) => CloseCode::Unexpected,
            PeerMisbehaved::NotEntitled(_) => CloseCode::NotEntitled,
            PeerMisbehaved::Forged(_)
            | PeerMisbehaved::WrongPage(_)
            | PeerMisbehaved::WrongProof(_) => CloseCode::Forged,
            PeerMisbehaved::OtherHistory(_) => CloseCode::Fork,
            PeerMisbehaved::Suite { .. } | PeerMisbehaved::Version => CloseCode::Version,
        }
    }
}
