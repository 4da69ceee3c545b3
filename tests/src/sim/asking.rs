//! What a follower asks before it follows, and what it makes of the answer.
//!
//! The daemon's decisions of `sync/follow.rs` and `sync/fork.rs`, which are not in the
//! protocol's machines: whether a quarantine is over, whether more of an own history is
//! proven, whether what was lost comes back from the right one, whether a provider that
//! is behind has another one. One question is one tree stream, of which the first message
//! is read; it ends before the next is asked. Used by [`super::follow`] and
//! [`super::session`].

use protocol::{
    change::{Position, SignedHeader},
    codec,
    id::PartitionId,
    message::{CloseCode, Open, TreeReply, decode_header},
    session::{
        PeerMisbehaved,
        fetch::{FetchAction, TreeFetch},
        link::FollowEnd,
    },
};

use super::follow::{Io, Progress};

/// What comes before following, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// A partition that is quarantined: is what is here in the peer's history?
    Release,
    /// An own partition: has this node signed what the peer has?
    Own,
    /// Something was lost: is it in the peer's history?
    Lost,
    /// The peer is behind: is it another history?
    Other,
    /// Nothing is asked.
    Follow,
    /// The peer holds all that is here of this node's own, and more: what is it?
    Instead,
}

/// A question that waits for its answer.
#[derive(Debug)]
pub struct Asking {
    stage: Stage,
    partition: PartitionId,
    compare: Option<TreeFetch>,
    /// What was here when it was asked.
    have: Option<Position>,
    /// What comes of it, once the stream has ended.
    pub outcome: Option<Progress>,
}

/// How a peer's history stands to a head.
enum Compared {
    /// It is proved to have it.
    One(Box<SignedHeader>),
    /// It ends before.
    Behind,
}

impl Asking {
    /// Asks for the peer's head, or with `have` for the proof that its history has that.
    pub fn new(io: &Io<'_>, stage: Stage, partition: &PartitionId, have: Option<Position>) -> Self {
        let compare = have.map(|have| TreeFetch::repairing(partition.clone(), Some(have)));
        let here = io.store.position(partition);
        Self { stage, partition: partition.clone(), compare, have: here, outcome: None }
    }

    /// The stream's first message.
    pub fn open(&self) -> Vec<u8> {
        let head = || codec::encode(&Open::Tree { partition: self.partition.clone(), have: None });
        self.compare.as_ref().map_or_else(head, |compare| codec::encode(&compare.open()))
    }

    /// The answer came. Its consequences are there when the stream has ended.
    pub fn judge(&mut self, bytes: &[u8], io: &mut Io<'_>) -> Result<(), PeerMisbehaved> {
        let outcome = match self.stage {
            Stage::Release => Ok(self.judge_release(bytes, io)),
            Stage::Lost => self.judge_lost(bytes, io),
            Stage::Own | Stage::Other | Stage::Instead | Stage::Follow => {
                let head = head_of(&self.partition, bytes, io)?;
                Ok(self.judge_head(&head, io))
            }
        };
        self.outcome = Some(outcome?);
        Ok(())
    }

    fn judge_release(&mut self, bytes: &[u8], io: &mut Io<'_>) -> Progress {
        match self.compared(bytes, io) {
            Ok(Compared::One(theirs)) => {
                io.oracle.released(io.me, io.store, &theirs);
                io.store.release(&self.partition);
                Progress::Go(Stage::Own)
            }
            // It may be about to take back what is here.
            Ok(Compared::Behind) => Progress::Ended(FollowEnd::Retry, CloseCode::Normal),
            Err(_) => Progress::Ended(FollowEnd::Quarantined, CloseCode::Fork),
        }
    }

    fn judge_lost(&mut self, bytes: &[u8], io: &mut Io<'_>) -> Result<Progress, PeerMisbehaved> {
        match self.compared(bytes, io) {
            // A person has chosen among several histories, and this need not be the one.
            Ok(Compared::Behind) if io.store.resolving.contains_key(&self.partition) => {
                Ok(Progress::Ended(FollowEnd::Retry, CloseCode::Normal))
            }
            Ok(_) => Ok(Progress::Go(Stage::Other)),
            Err(PeerMisbehaved::OtherHistory(_)) if self.partition.origin == io.store.name => {
                Ok(Progress::Ended(FollowEnd::Refused, CloseCode::Fork))
            }
            Err(problem) => Err(problem),
        }
    }

    fn judge_head(&self, theirs: &SignedHeader, io: &mut Io<'_>) -> Progress {
        let (seq, peer) = (theirs.header().seq, io.peer());
        let ours = io.store.position(&self.partition);
        match self.stage {
            Stage::Own if seq <= ours.map_or(0, |ours| ours.seq) => {
                io.store.claims.unproven(&self.partition, peer);
                Progress::Ended(FollowEnd::Retry, CloseCode::Normal)
            }
            Stage::Own => {
                io.oracle.proven(io.me, theirs);
                io.store.claims.proven(&self.partition, peer, seq);
                Progress::Proven(seq)
            }
            Stage::Instead if ours == self.have => {
                io.oracle.gave_up(io.me, io.store, theirs, false);
                io.store.give_up(&self.partition, theirs.position());
                Progress::TakePages
            }
            Stage::Instead => Progress::Ended(FollowEnd::Retry, CloseCode::Unavailable),
            _ => match other_here(io, &self.partition, theirs.position()) {
                true => {
                    io.oracle.forked(io.me, io.store, theirs);
                    io.store.quarantine(&self.partition, Some(theirs.position()));
                    Progress::Ended(FollowEnd::Quarantined, CloseCode::Fork)
                }
                false => Progress::Go(Stage::Follow),
            },
        }
    }

    fn compared(&mut self, bytes: &[u8], io: &Io<'_>) -> Result<Compared, PeerMisbehaved> {
        let Some(fetch) = &mut self.compare else {
            return Ok(Compared::Behind);
        };
        fetch.handle_message(TreeReply::decode(bytes)?, &*io.store.registry)?;
        let mut shown =
            std::iter::from_fn(|| fetch.poll_action()).filter_map(|action| match action {
                FetchAction::Begin(shown) => Some(shown),
                _ => None,
            });
        let one =
            shown.find(|shown| shown.have.is_none_or(|have| shown.signed.header().seq >= have.seq));
        Ok(one.map_or(Compared::Behind, |shown| Compared::One(Box::new(shown.signed))))
    }

    /// The peer ended the stream without an answer.
    pub fn handle_reset(&self, code: CloseCode) -> Progress {
        match (self.stage, code) {
            // It has jumped over those headers, so it cannot know.
            (Stage::Lost, CloseCode::Unproved) => Progress::Go(Stage::Other),
            _ => Progress::Ended(FollowEnd::Retry, CloseCode::Normal),
        }
    }

    /// It has said nothing for too long, or something that is no answer.
    pub fn handle_no_answer(&self, io: &mut Io<'_>) {
        if self.stage == Stage::Own {
            let peer = io.peer();
            io.store.claims.unproven(&self.partition, peer);
        }
    }
}

/// The peer's head of a partition, as the first message of a tree stream shows it.
pub fn head_of(
    partition: &PartitionId,
    bytes: &[u8],
    io: &Io<'_>,
) -> Result<SignedHeader, PeerMisbehaved> {
    let TreeReply::Head { header, .. } = TreeReply::decode(bytes)? else {
        return Err(PeerMisbehaved::Unexpected("something else than a head"));
    };
    let header = decode_header(&header)?;
    if header.header().partition != *partition {
        return Err(PeerMisbehaved::NotEntitled(header.header().partition.to_string()));
    }
    header.verify(&*io.store.registry)?;
    Ok(header)
}

/// Whether another header than `theirs` is known to be in the history that is here.
pub fn other_here(io: &Io<'_>, partition: &PartitionId, theirs: Position) -> bool {
    let known = io.store.partition(partition).and_then(|state| state.header_hash(theirs.seq));
    known.is_some_and(|known| known != theirs.hash)
}
