//! One followed partition, at the side that has it.
//!
//! The driver reads change sets when asked, and sends what it is told. At most
//! [`WINDOW_CHANGE_SETS`] or [`WINDOW_BYTES`] are on their way without an
//! acknowledgement. No more is read before all that was read has been sent, and
//! then [`READ_AHEAD_BYTES`] or one change set, so a follower that stalls costs the
//! provider no more memory than that. How much all followers of one peer may cost
//! together is the driver's matter: it knows how long a change set is before it
//! reads it.

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
/// Bytes of change sets that are read at once: a window of one-row change sets, which
/// are some hundred bytes each. A longer one is read alone. On a thousand streams that
/// is together no more than [`WINDOW_BYTES`].
pub const READ_AHEAD_BYTES: usize = 16 * 1024;

/// What the driver does for a provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProviderAction {
    /// Read the change sets from this number on, at most so many with so many
    /// bytes, or the first one alone if it is longer, and hand them to
    /// [`Provider::handle_read`].
    Read {
        /// The first number.
        from: u64,
        /// How many at most.
        count_max: usize,
        /// Bytes of all bodies at most, as they travel.
        bytes_max: usize,
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
    /// The follower's number, while it is above the partition's.
    ahead: Option<u64>,
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
            ahead: have.map(|have| have.seq).filter(|seq| *seq > head.seq),
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
        if self.ahead.is_some_and(|ahead| ahead <= head) && !self.finished {
            // Only now can the two be compared: the follower asks again.
            self.ahead = None;
            self.finished = true;
            self.actions.push_back(ProviderAction::Finish);
        }
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
            self.actions.push_back(ProviderAction::Send(FollowReply::change_set(set)));
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
        let bytes_max = READ_AHEAD_BYTES;
        Some(ProviderAction::Read { from: self.next, count_max: room, bytes_max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        change::Header, history::Peaks, id::PartitionId, message::decode_header, sign::SigningKey,
        suite::Suite,
    };

    /// Change sets whose bodies have so many bytes; a provider does not look into them.
    fn sets(key: &SigningKey, bodies: &[usize]) -> Vec<ChangeSet> {
        let suite = key.suite();
        let (mut previous, mut history) = (suite.none(), Peaks::new());
        let mut sets = Vec::new();
        for (seq, bytes) in (1..).zip(bodies) {
            let header = Header {
                partition: PartitionId::parse_full("zhengzhou/enterprise/410122/*").unwrap(),
                seq,
                previous,
                history: history.root(suite),
                federation_head: Some(Position { seq: 9, hash: suite.repeated(2) }),
                origin_time_ms: 1_700_000_000_000,
                schema_version: 1,
                change_count: 1,
                changes_hash: suite.repeated(4),
                root: suite.repeated(3),
                records: 7,
                key_id: key.public().id(),
            };
            let header = SignedHeader::sign(header, key);
            previous = header.hash();
            history.push(previous);
            sets.push(ChangeSet { header, body: vec![7; *bytes] });
        }
        sets
    }

    /// What a store answers to [`ProviderAction::Read`].
    fn read(sets: &[ChangeSet], from: u64, count_max: usize, bytes_max: usize) -> Vec<ChangeSet> {
        let mut bytes = 0;
        let fits = |(index, set): &(usize, &ChangeSet)| {
            bytes += set.body.len();
            *index == 0 || bytes <= bytes_max
        };
        let sets = sets[from as usize - 1..].iter().take(count_max).enumerate();
        sets.take_while(fits).map(|(_, set)| set.clone()).collect()
    }

    /// How many reads it takes to send all of them to a follower that acknowledges
    /// each; what was read and not sent is little all the time.
    fn reads(bodies: &[usize]) -> usize {
        let key = Suite::One.signing_key(&[7; 32]).unwrap();
        let sets = sets(&key, bodies);
        let mut provider = Provider::new(None, sets.last().unwrap().header.position(), None);
        let (mut reads, mut sent, mut held) = (0, 0, 0);
        while sent < sets.len() {
            match provider.poll_action().expect("it has something to send") {
                ProviderAction::Read { from, count_max, bytes_max } => {
                    assert_eq!(held, 0, "more is read before number {} is sent", sent + 1);
                    let read = read(&sets, from, count_max, bytes_max);
                    held = read.iter().map(|set| set.body.len()).sum();
                    assert!(read.len() == 1 || held <= READ_AHEAD_BYTES, "{held} bytes are held");
                    provider.handle_read(Some(read));
                    reads += 1;
                }
                ProviderAction::Send(FollowReply::ChangeSet { header, body }) => {
                    let header = decode_header(&header).unwrap();
                    assert_eq!(header, sets[sent].header);
                    held -= body.len();
                    sent += 1;
                    let (position, root) = (header.position(), header.header().root);
                    // Before the next one of the same read is sent, or the next is read.
                    provider.handle_message(FollowRequest::Ack { position, root }).unwrap();
                }
                ProviderAction::Acked(_) => {}
                other => panic!("{other:?}"),
            }
        }
        reads
    }

    #[test]
    fn short_change_sets_are_read_together_and_long_ones_alone() {
        const MIB: usize = 1024 * 1024;
        assert_eq!(reads(&[300; 10 * WINDOW_CHANGE_SETS]), 10);
        assert_eq!(reads(&[8 * MIB; 5]), 5);
        assert_eq!(reads(&[300, 300, MIB, 300, MIB, 17 * MIB, 300, 300]), 6);
        assert_eq!(reads(&[READ_AHEAD_BYTES / 2; 4]), 2);
        assert_eq!(reads(&[READ_AHEAD_BYTES / 2, READ_AHEAD_BYTES / 2 + 1, 1]), 2);
    }

    #[test]
    fn a_follower_that_was_ahead_is_told_to_ask_again_when_its_number_is_reached() {
        let suite = Suite::One;
        let at = |seq| Position { seq, hash: suite.repeated(9) };
        let mut provider = Provider::new(Some(at(3)), at(1), None);
        provider.handle_head(2);
        assert_eq!(provider.poll_action(), None);
        // It may be another history, and nothing would ever be sent to it.
        provider.handle_head(3);
        assert_eq!(provider.poll_action(), Some(ProviderAction::Finish));
        provider.handle_head(4);
        assert_eq!(provider.poll_action(), None);
    }

    #[test]
    fn nothing_is_read_for_a_follower_that_acknowledges_nothing() {
        let key = Suite::One.signing_key(&[7; 32]).unwrap();
        let sets = sets(&key, &[300; 2 * WINDOW_CHANGE_SETS]);
        let mut provider = Provider::new(None, sets.last().unwrap().header.position(), None);
        let mut sent = 0;
        while let Some(action) = provider.poll_action() {
            match action {
                ProviderAction::Read { from, count_max, bytes_max } => {
                    provider.handle_read(Some(read(&sets, from, count_max, bytes_max)));
                }
                ProviderAction::Send(_) => sent += 1,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((sent, provider.awaits_ack()), (WINDOW_CHANGE_SETS, true));
    }
}
