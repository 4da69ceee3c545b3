//! Why a stream that takes changes or pages ended early, what that means, and what
//! its provider is told of it.

use protocol::{
    change::SignedHeader,
    id::{DatasetId, NodeId, PartitionId},
    message::CloseCode,
    session::PeerMisbehaved,
};
use store::StoreError;

use super::{blame, judge::Unfit};
use crate::net::{FrameReceiver, FrameSender, NetError};

/// Why a follow stream ended early.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error(transparent)]
    Net(NetError),
    #[error(transparent)]
    Misbehaved(PeerMisbehaved),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the provider shows another signed history at number {}", .0.header().seq)]
    Fork(Box<SignedHeader>),
    #[error(
        "the provider's signed history up to number {} does not hold what is here, which it signed as \
         well",
        .0.header().seq
    )]
    OtherHistory(Box<SignedHeader>),
    #[error(
        "{peer} 持有本节点更新的记录，但无法证明其中包含本机第 {have} 号及以前的内容，因此未覆盖：请执行 creditsync partition \
         resolve / {peer} holds more of this node's own history, and cannot prove that it has what is here, up to \
         number {have}; nothing was overwritten. A person decides: creditsync partition resolve"
    )]
    InDoubt { peer: NodeId, have: u64 },
    #[error(
        "{peer} 持有的是另一份历史，不是本机曾保存到第 {lost} 号的那一份，因此未从其取回 / {peer} holds another history than the one          that was here up to number {lost}, so nothing is taken back from it"
    )]
    NotWhatWasLost { peer: NodeId, lost: u64 },
    #[error(
        "{peer} 的副本（第 {seq} 号）属于已放弃的历史，请在该节点执行 creditsync partition refetch {partition} / the copy at {peer} \
         (number {seq}) is of the history that was given up here; give this there: creditsync partition refetch \
         {partition}"
    )]
    GivenUp { peer: NodeId, partition: String, seq: u64 },
    #[error(
        "{peer} 无法证明其历史包含本机持有的内容（第 {have} 号）：该节点取回历史时跳过了这些序号，因此未覆盖。其他对端或可证明；否则在本机执行 \
         creditsync partition refetch {partition} / {peer} cannot prove that its history has what is here (number \
         {have}), since it has jumped over those numbers itself; nothing was overwritten. Another peer may prove it; \
         otherwise give this here, and the copy is fetched again: creditsync partition refetch {partition}"
    )]
    Unproved { peer: NodeId, partition: String, have: u64 },
    #[error("no proof that this node has signed more of its own history than it holds: {0}")]
    Unproven(String),
    #[error("others need the memory that it took")]
    MadeRoom,
    #[error("成员名册取回之前不接收 / nothing is taken before the list of members is back")]
    Rebuilding,
    #[error("the peer is at number {theirs}, and number {ours} has to be repaired")]
    Elsewhere { ours: u64, theirs: u64 },
    #[error(transparent)]
    Unfit(#[from] Unfit),
    #[error("the catalogue has no dataset '{0}'")]
    UnknownDataset(DatasetId),
    #[error(
        "a fetch asked for {0} out of turn: this is a fault of the program, please report it / \
         程序内部错误，请反馈给开发者"
    )]
    OutOfStep(&'static str),
}

/// What a trouble says of the peer or of the partition: what is done, and told, about it.
pub(super) enum Meaning {
    /// Two histories are signed.
    TwoHistories,
    /// Somebody has found that before.
    Quarantined,
    /// The peer sent what nobody may send, and nothing of it was kept. It may know a newer
    /// key already.
    Misbehaved,
    /// What arrived is signed, and is what nobody may make; nothing of it was kept.
    Wrong(&'static str),
    /// Which history holds cannot be told, and no signature shows it: nothing is settled
    /// for good.
    InDoubt,
    /// It cannot be taken here as things are.
    NotNow(&'static str),
    /// Something else is on its way, or the line was lost.
    Passing(&'static str),
    /// It was told where it was found out.
    Told,
}

impl From<PeerMisbehaved> for Trouble {
    fn from(problem: PeerMisbehaved) -> Self {
        match problem {
            PeerMisbehaved::OtherHistory(head) => Self::OtherHistory(head),
            problem => Self::Misbehaved(problem),
        }
    }
}

impl From<NetError> for Trouble {
    fn from(error: NetError) -> Self {
        blame(error).map_or_else(Self::from, Self::Net)
    }
}

impl Trouble {
    pub fn meaning(&self) -> Meaning {
        match self {
            Trouble::Fork(_)
            | Trouble::OtherHistory(_)
            | Trouble::Store(StoreError::Fork { .. }) => Meaning::TwoHistories,
            Trouble::Store(StoreError::Quarantined { .. }) => Meaning::Quarantined,
            // It has not heard yet that its key was retired.
            Trouble::Misbehaved(problem) if problem.may_be_innocent() => {
                Meaning::Passing("waiting for the origin to sign anew")
            }
            Trouble::Store(StoreError::KeySuspended { .. }) => {
                Meaning::Passing("waiting for the origin to sign anew")
            }
            Trouble::Store(StoreError::Federation { .. })
            | Trouble::Rebuilding
            | Trouble::Unfit(Unfit::UnknownVersion(_)) => {
                Meaning::Passing("waiting for _federation")
            }
            Trouble::Net(_) => Meaning::Passing("the stream ended"),
            Trouble::MadeRoom => Meaning::Passing("it made room for others"),
            Trouble::Misbehaved(_) => Meaning::Misbehaved,
            Trouble::Store(
                StoreError::RootMismatch { .. } | StoreError::Shape { .. } | StoreError::Excess(_),
            ) => Meaning::Wrong("the change set was refused"),
            Trouble::Unfit(Unfit::Record { .. }) => Meaning::Wrong(
                "nothing of it is stored, and nothing behind it, until its origin takes it back",
            ),
            Trouble::InDoubt { .. } | Trouble::NotWhatWasLost { .. } | Trouble::Unproved { .. } => {
                Meaning::InDoubt
            }
            Trouble::GivenUp { .. } => Meaning::NotNow("the peer holds what was given up here"),
            Trouble::UnknownDataset(_) | Trouble::Elsewhere { .. } => {
                Meaning::NotNow("not followed")
            }
            Trouble::Store(_) | Trouble::OutOfStep(_) => {
                Meaning::NotNow("could not be committed; tried again later")
            }
            Trouble::Unproven(_) => Meaning::Told,
        }
    }

    /// A peer's copy of an own partition is of a history that was given up.
    pub fn given_up(peer: &NodeId, partition: &PartitionId, seq: u64) -> Self {
        Self::GivenUp { peer: peer.clone(), partition: partition.to_string(), seq }
    }

    /// The header that shows another history, if one came.
    pub fn other_history(&self) -> Option<SignedHeader> {
        match self {
            Trouble::Fork(theirs) | Trouble::OtherHistory(theirs) => Some((**theirs).clone()),
            _ => None,
        }
    }

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
            | Trouble::InDoubt { .. }
            | Trouble::Unproved { .. }
            | Trouble::NotWhatWasLost { .. }
            | Trouble::GivenUp { .. }
            | Trouble::Store(StoreError::Fork { .. }) => CloseCode::Fork,
            Trouble::Store(StoreError::RootMismatch { .. } | StoreError::Shape { .. }) => {
                CloseCode::RootMismatch
            }
            Trouble::Unfit(Unfit::Record { .. }) => CloseCode::Forged,
            Trouble::Store(error) if error.is_lack_of_room() => CloseCode::NoRoom,
            // Nobody takes it, so its origin has made what it must not make.
            Trouble::Store(StoreError::Excess(_)) => CloseCode::RootMismatch,
            Trouble::Store(_)
            | Trouble::UnknownDataset(_)
            | Trouble::Unfit(_)
            | Trouble::MadeRoom
            | Trouble::Rebuilding
            | Trouble::OutOfStep(_) => CloseCode::Unavailable,
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
