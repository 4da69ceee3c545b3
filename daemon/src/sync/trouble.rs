//! Why a stream that takes changes or pages ended early, and what its provider is
//! told of that.

use protocol::{id::DatasetId, message::CloseCode, session::PeerMisbehaved};
use store::StoreError;

use super::{blame, judge::Unfit};
use crate::net::{FrameReceiver, FrameSender, NetError};

/// Why a follow stream ended early.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error(transparent)]
    Net(NetError),
    #[error(transparent)]
    Misbehaved(#[from] PeerMisbehaved),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the provider shows another signed history at number {0}")]
    Fork(u64),
    #[error(
        "the provider's signed history up to number {0} does not hold what is here, which it signed as \
         well"
    )]
    OtherHistory(u64),
    #[error(
        "the peer holds more of this node's own history, but no longer the part behind number {0}, so \
         it cannot be told whether the two agree; nothing was overwritten"
    )]
    InDoubt(u64),
    #[error("no proof that this node has signed more of its own history than it holds: {0}")]
    Unproven(String),
    #[error("the peer is at number {theirs}, and number {ours} has to be repaired")]
    Elsewhere { ours: u64, theirs: u64 },
    #[error(transparent)]
    Unfit(#[from] Unfit),
    #[error("the catalogue has no dataset '{0}'")]
    UnknownDataset(DatasetId),
}

impl From<NetError> for Trouble {
    fn from(error: NetError) -> Self {
        blame(error).map_or_else(Self::Misbehaved, Self::Net)
    }
}

impl Trouble {
    /// Whether it stays until somebody does something about it.
    pub fn needs_a_person(&self) -> bool {
        match self.code() {
            CloseCode::NoRoom | CloseCode::RootMismatch | CloseCode::Fork => true,
            CloseCode::Forged => matches!(self, Trouble::Unfit(_)),
            _ => false,
        }
    }

    /// Whether what the peer has was refused, and not lost on its way.
    pub fn is_refusal(&self) -> bool {
        match self {
            Trouble::Misbehaved(problem) => !problem.may_be_innocent(),
            _ => self.needs_a_person(),
        }
    }

    /// What the provider is told of its stream.
    fn code(&self) -> CloseCode {
        match self {
            Trouble::Net(error) if error.is_silence() => CloseCode::Silent,
            Trouble::Net(_) | Trouble::Elsewhere { .. } | Trouble::Unproven(_) => CloseCode::Normal,
            Trouble::Misbehaved(problem) => problem.code(),
            Trouble::Fork(_)
            | Trouble::OtherHistory(_)
            | Trouble::InDoubt(_)
            | Trouble::Store(StoreError::Fork { .. }) => CloseCode::Fork,
            Trouble::Store(StoreError::RootMismatch { .. } | StoreError::Shape { .. }) => {
                CloseCode::RootMismatch
            }
            Trouble::Unfit(Unfit::Record { .. }) => CloseCode::Forged,
            Trouble::Store(error) if error.is_lack_of_room() => CloseCode::NoRoom,
            // Nobody takes it, so its origin has made what it must not make.
            Trouble::Store(StoreError::Excess(_)) => CloseCode::RootMismatch,
            Trouble::Store(_) | Trouble::UnknownDataset(_) | Trouble::Unfit(_) => {
                CloseCode::Unavailable
            }
        }
    }
}

/// Gives both halves of a stream up where it ended early, and says why.
pub(super) fn tell_trouble<T>(
    outcome: Result<T, Trouble>,
    mut sender: FrameSender,
    mut receiver: FrameReceiver,
) -> Result<T, Trouble> {
    if let Err(trouble) = &outcome {
        sender.reset(trouble.code());
        receiver.stop(trouble.code());
    }
    outcome
}
