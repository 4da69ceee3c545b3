//! One followed partition, at the side that has it.
//!
//! The driver reads change sets when asked, and sends what it is told. At most
//! [`WINDOW_CHANGE_SETS`] or [`WINDOW_BYTES`] are on their way without an
//! acknowledgement, so a follower that stalls costs the provider nothing.

use std::collections::VecDeque;

use super::PeerMisbehaved;
use crate::{
    change::{ChangeSet, Position, SignedHeader},
    hash::Hash,
    message::{FollowReply, FollowRequest},
};

/// Change sets on their way: enough to keep both disks busy at once.
pub const WINDOW_CHANGE_SETS: usize = 16;
/// Bytes on their way from which no more is sent: two change sets of the
/// largest kind.
pub const WINDOW_BYTES: usize = 16 * 1024 * 1024;

/// What the driver does for a provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProviderAction {
    /// Read the change sets from this number on, at most so many, and hand
    /// them to [`Provider::handle_read`].
    Read {
        /// The first number.
        from: u64,
        /// How many at most.
        count_max: usize,
    },
    /// Send this.
    Send(FollowReply),
    /// The follower holds everything up to here.
    Acked(Position),
    /// Everything is said: finish the stream.
    Finish,
}

/// The state of one provided partition.
#[derive(Debug)]
pub struct Provider {
    next: u64,
    head: u64,
    /// Sequence number, header hash, root and size of what is on its way.
    in_flight: VecDeque<(Position, Hash, usize)>,
    reading: bool,
    finished: bool,
    actions: VecDeque<ProviderAction>,
}

impl Provider {
    /// Answers a follower that has `have`, while the partition is at `head`.
    /// `mine` is the provider's own header at the follower's number, if it
    /// keeps that one.
    pub fn new(have: Option<Position>, head: Position, mine: Option<&SignedHeader>) -> Self {
        let mut provider = Self {
            next: have.map_or(1, |have| have.seq.saturating_add(1)),
            head: head.seq,
            in_flight: VecDeque::new(),
            reading: false,
            finished: false,
            actions: VecDeque::new(),
        };
        if let Some(have) = have {
            match mine {
                Some(mine) if mine.hash() != have.hash => {
                    provider.end_with(FollowReply::Fork { header: mine.encode() });
                }
                // The follower's history is older than what is kept here.
                None if have.seq < head.seq => provider.end_with(FollowReply::TakePages),
                // A follower ahead of us waits until we have more than it.
                _ => {}
            }
        }
        provider
    }

    fn end_with(&mut self, reply: FollowReply) {
        self.finished = true;
        self.actions.extend([ProviderAction::Send(reply), ProviderAction::Finish]);
    }

    /// The partition moved to `head`.
    pub fn handle_head(&mut self, head: u64) {
        self.head = self.head.max(head);
    }

    /// What was read: consecutive change sets from where [`ProviderAction::Read`]
    /// said, or `None` if they are not kept.
    pub fn handle_read(&mut self, sets: Option<Vec<ChangeSet>>) {
        self.reading = false;
        let Some(sets) = sets else {
            // Those on their way arrive first, then the follower takes pages.
            self.end_with(FollowReply::TakePages);
            return;
        };
        for set in sets {
            let header = set.header.header();
            // What does not fit on the way is read again once there is room.
            if self.finished || header.seq != self.next || self.bytes_in_flight() >= WINDOW_BYTES {
                return;
            }
            self.next += 1;
            self.in_flight.push_back((set.header.position(), header.root, set.body.len()));
            self.actions.push_back(ProviderAction::Send(FollowReply::change_set(&set)));
        }
    }

    /// The follower said something.
    pub fn handle_message(&mut self, message: FollowRequest) -> Result<(), PeerMisbehaved> {
        let FollowRequest::Ack { position, root } = message;
        while let Some((sent, sent_root, _)) = self.in_flight.pop_front() {
            if sent.seq < position.seq {
                continue;
            }
            if (sent, sent_root) != (position, root) {
                break;
            }
            self.actions.push_back(ProviderAction::Acked(position));
            return Ok(());
        }
        Err(PeerMisbehaved::Unexpected("an acknowledgement of what it was not sent"))
    }

    fn bytes_in_flight(&self) -> usize {
        self.in_flight.iter().map(|(_, _, bytes)| bytes).sum()
    }

    /// Whether the follower owes an acknowledgement.
    pub fn awaits_ack(&self) -> bool {
        !self.in_flight.is_empty()
    }

    /// What to do next; `None` until something happens.
    pub fn poll_action(&mut self) -> Option<ProviderAction> {
        if let Some(action) = self.actions.pop_front() {
            return Some(action);
        }
        let room = WINDOW_CHANGE_SETS.saturating_sub(self.in_flight.len());
        if self.finished
            || self.reading
            || self.next > self.head
            || room == 0
            || self.bytes_in_flight() >= WINDOW_BYTES
        {
            return None;
        }
        self.reading = true;
        Some(ProviderAction::Read { from: self.next, count_max: room })
    }
}
