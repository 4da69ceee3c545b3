//! The control stream: who the peer is, what it holds, and what to follow.
//!
//! One link lives as long as one connection. It begins when the peer's hello
//! has arrived, which is also what *connected* means: a QUIC client's connect
//! succeeds before the server has looked at its certificate.
//!
//! Partitions may be more than streams. Then those that are behind take turns:
//! one that has caught up is let go of, and followed again when the peer
//! announces more of it. What was told of first comes first.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use super::{PeerMisbehaved, backoff::Backoff, entitle::Ends};
use crate::{
    id::PartitionId,
    message::{Announced, Control, HEADS_MAX, Hello, PROTOCOL_VERSION, Report},
};

/// A heartbeat's age above which the peer counts as gone. The status promises
/// that a replica in sync heard its peer within 30 seconds.
pub const SILENCE_MAX: Duration = Duration::from_secs(30);
/// First wait before a partition is followed again after a failure.
const RETRY_FIRST: Duration = Duration::from_millis(200);
/// Longest such wait: a partition that cannot be applied costs little, and is
/// back within a minute once it can.
const RETRY_LONGEST: Duration = Duration::from_secs(60);

/// Partitions that are followed at once: half of the streams that a peer may open
/// (SPEC.md, section 17), since each may take pages on another stream, and one
/// that has ended here may not have ended there.
pub const FOLLOWS_MAX: usize = 512;
/// A partition that has brought nothing for so long, though there is more of it,
/// makes room for one that waits.
const FOLLOW_TURN_MAX: Duration = Duration::from_secs(30);

/// How long things take, and how many are done at once; the clock is any that
/// only goes forward.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// Time between two heartbeats.
    pub heartbeat: Duration,
    /// Partitions that are followed at once, at least one: [`FOLLOWS_MAX`] but in
    /// tests.
    pub follows_max: usize,
}

/// What the driver does for a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkAction {
    /// Send this on the control stream.
    Send(Control),
    /// Open a follow stream for this partition.
    Follow(PartitionId),
    /// End the follow stream of this partition, others wait for its place:
    /// [`FollowEnd::Released`], unless it has just ended otherwise.
    Release(PartitionId),
    /// The peer told us that it holds our own partition up to here.
    PeerHolds(Announced),
    /// The member told us what it trusts.
    Reported(Report),
    /// The hub sent a statement of freshness; it is not verified.
    Stated(Vec<u8>),
    /// The hub sent its anchor; it is not verified.
    Anchored(Vec<u8>),
    /// Nothing was heard for [`SILENCE_MAX`]: close the connection.
    Silent,
}

/// How a follow stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FollowEnd {
    /// Follow again at once: pages were taken, and there is more to come.
    Again,
    /// Something failed: follow again after a wait.
    Retry,
    /// What the peer has was refused, and will be, until the peer has something else or
    /// this node more room. That much of it has arrived before is no success: the wait
    /// grows all the same.
    Refused,
    /// A person has to decide first.
    Quarantined,
    /// Our own history is taken back: nothing is left to follow.
    Done,
    /// It was let go of.
    Released,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Follow {
    /// Has a stream, and brought something last at `since`.
    Running { since: Duration },
    /// Has a stream that is about to end. One that did not get on waits
    /// afterwards.
    Releasing { stalled: bool },
    /// Waits for a place.
    Queued,
    /// Has caught up, and no place.
    Idle,
    /// Waits after a failure.
    Waiting { until: Duration },
    /// Waits for a person.
    Quarantined,
}

#[derive(Debug)]
struct Followed {
    state: Follow,
    backoff: Backoff,
    /// Between attempts at what was refused.
    refusals: Backoff,
}

/// The state of one connection's control stream.
#[derive(Debug)]
pub struct Link {
    ends: Ends,
    timing: Timing,
    last_sent: Duration,
    last_heard: Duration,
    peer_heads: BTreeMap<PartitionId, Announced>,
    local_heads: BTreeMap<PartitionId, Announced>,
    followed: BTreeMap<PartitionId, Followed>,
    /// Those that have a stream.
    running: BTreeSet<PartitionId>,
    /// How many of them are [`Follow::Releasing`].
    leaving: usize,
    /// Before this time none of the others can make room, unless one of them catches up:
    /// they are not looked through at each event.
    room_from: Duration,
    /// Those of [`Follow::Queued`] that are behind, and those that are not, as far
    /// as is known, in the order in which they were told of.
    behind: VecDeque<PartitionId>,
    level: VecDeque<PartitionId>,
    /// Those of [`Follow::Waiting`], by when that ends.
    waiting: BTreeSet<(Duration, PartitionId)>,
    /// The newest time that was heard of.
    clock: Duration,
    actions: VecDeque<LinkAction>,
}

impl Link {
    /// A link between `ends` whose peer said `hello`; `local` are the heads
    /// that we told it.
    pub fn new(
        ends: Ends,
        timing: Timing,
        local: Vec<Announced>,
        hello: Hello,
        now: Duration,
    ) -> Result<Self, PeerMisbehaved> {
        let (theirs, ours) = (hello.suite, ends.suite.number());
        if theirs != ours {
            return Err(PeerMisbehaved::Suite { theirs, ours });
        }
        if !hello.versions.contains(&PROTOCOL_VERSION) {
            return Err(PeerMisbehaved::Version);
        }
        let mut link = Self {
            ends,
            timing,
            last_sent: now,
            last_heard: now,
            peer_heads: BTreeMap::new(),
            local_heads: local.into_iter().map(|head| (head.partition.clone(), head)).collect(),
            followed: BTreeMap::new(),
            running: BTreeSet::new(),
            leaving: 0,
            room_from: Duration::ZERO,
            behind: VecDeque::new(),
            level: VecDeque::new(),
            waiting: BTreeSet::new(),
            clock: now,
            actions: VecDeque::new(),
        };
        link.handle_heads(hello.heads)?;
        Ok(link)
    }

    /// The peer said something.
    pub fn handle_message(
        &mut self,
        message: Control,
        now: Duration,
    ) -> Result<(), PeerMisbehaved> {
        self.last_heard = now;
        self.clock = now;
        match message {
            Control::Hello(_) => Err(PeerMisbehaved::Unexpected("a second hello")),
            Control::Announce(heads) => self.handle_heads(heads),
            Control::Heartbeat { .. } => Ok(()),
            Control::Report(report) if self.ends.me == self.ends.hub => {
                self.actions.push_back(LinkAction::Reported(report));
                Ok(())
            }
            Control::Freshness(bytes) if self.ends.peer == self.ends.hub => {
                self.actions.push_back(LinkAction::Stated(bytes));
                Ok(())
            }
            Control::Anchor(bytes) if self.ends.peer == self.ends.hub => {
                self.actions.push_back(LinkAction::Anchored(bytes));
                Ok(())
            }
            Control::Report(_) | Control::Freshness(_) | Control::Anchor(_) => {
                Err(PeerMisbehaved::Unexpected("what only the other kind of node says"))
            }
        }
    }

    fn handle_heads(&mut self, heads: Vec<Announced>) -> Result<(), PeerMisbehaved> {
        for head in heads {
            if !self.ends.concerns_both(&head.partition) {
                return Err(PeerMisbehaved::NotEntitled(head.partition.to_string()));
            }
            match self.peer_heads.get(&head.partition) {
                // Nothing new, however often it is told.
                Some(known) if *known == head => continue,
                None if self.peer_heads.len() >= HEADS_MAX => {
                    return Err(PeerMisbehaved::Unexpected("more partitions than a node may have"));
                }
                _ => {}
            }
            if head.partition.origin == self.ends.me {
                self.actions.push_back(LinkAction::PeerHolds(head.clone()));
            }
            let partition = head.partition.clone();
            self.peer_heads.insert(partition.clone(), head);
            self.may_have_caught_up(&partition);
            self.consider(&partition);
        }
        self.give_places();
        Ok(())
    }

    /// Queues a partition that the peer offers and that we lack something of.
    fn consider(&mut self, partition: &PartitionId) {
        let Some(offered) = self.peer_heads.get(partition) else {
            return;
        };
        if !self.ends.may_follow(&self.ends.me, partition) {
            return;
        }
        match self.followed.get(partition).map(|followed| followed.state) {
            None => {
                // Our own history is only taken back when the peer has more of it.
                let ours = self.local_heads.get(partition).map_or(0, |head| head.position.seq);
                if partition.origin == self.ends.me && offered.position.seq <= ours {
                    return;
                }
                let backoff = Backoff::new(RETRY_FIRST, RETRY_LONGEST);
                let refusals = backoff.clone();
                let followed = Followed { state: Follow::Queued, backoff, refusals };
                self.followed.insert(partition.clone(), followed);
                self.queue(partition.clone());
            }
            Some(Follow::Idle) if !self.has_caught_up(partition) => self.queue(partition.clone()),
            Some(_) => {}
        }
    }

    /// A head of the partition has moved.
    fn may_have_caught_up(&mut self, partition: &PartitionId) {
        if self.running.contains(partition) {
            self.room_from = Duration::ZERO;
        }
    }

    /// Whether this node holds what the peer said last, as far as is known.
    fn has_caught_up(&self, partition: &PartitionId) -> bool {
        let position = |heads: &BTreeMap<PartitionId, Announced>| {
            heads.get(partition).map(|head| head.position)
        };
        position(&self.local_heads) == position(&self.peer_heads)
    }

    fn set(&mut self, partition: &PartitionId, state: Follow) {
        if let Some(followed) = self.followed.get_mut(partition) {
            followed.state = state;
        }
    }

    fn queue(&mut self, partition: PartitionId) {
        self.set(&partition, Follow::Queued);
        if partition.origin == self.ends.me {
            // Nothing is written to it before it is back.
            self.behind.push_front(partition);
        } else if self.has_caught_up(&partition) {
            self.level.push_back(partition);
        } else {
            self.behind.push_back(partition);
        }
    }

    /// Gives free places to those who wait, and frees some for those who are
    /// behind.
    fn give_places(&mut self) {
        while self.running.len() < self.timing.follows_max {
            let next = self.behind.pop_front();
            if next.as_ref().is_none_or(|next| self.has_caught_up(next)) {
                // Whoever has caught up makes room when it is needed.
                self.room_from = Duration::ZERO;
            }
            let Some(next) = next.or_else(|| self.level.pop_front()) else {
                return;
            };
            self.set(&next, Follow::Running { since: self.clock });
            self.running.insert(next.clone());
            self.actions.push_back(LinkAction::Follow(next));
        }
        for partition in std::mem::take(&mut self.level) {
            self.set(&partition, Follow::Idle);
        }
        self.make_room();
    }

    fn make_room(&mut self) {
        let wanted = self.behind.len().saturating_sub(self.leaving);
        if wanted == 0 || self.clock < self.room_from {
            return;
        }
        let mut leave = Vec::new();
        let mut room_from = self.clock + FOLLOW_TURN_MAX;
        for partition in &self.running {
            let state = self.followed.get(partition).map(|followed| followed.state);
            let Some(Follow::Running { since }) = state else {
                continue;
            };
            let caught_up = self.has_caught_up(partition);
            if caught_up || since + FOLLOW_TURN_MAX <= self.clock {
                leave.push((partition.clone(), !caught_up));
            } else {
                room_from = room_from.min(since + FOLLOW_TURN_MAX);
            }
            if leave.len() == wanted {
                // There may be more of them.
                room_from = Duration::ZERO;
                break;
            }
        }
        self.room_from = room_from;
        for (partition, stalled) in leave {
            self.set(&partition, Follow::Releasing { stalled });
            self.leaving += 1;
            self.actions.push_back(LinkAction::Release(partition));
        }
    }

    /// A partition of this node moved to `head`.
    pub fn handle_local_head(&mut self, head: Announced, now: Duration) {
        if !self.ends.concerns_both(&head.partition) {
            return;
        }
        self.clock = now;
        self.local_heads.insert(head.partition.clone(), head.clone());
        self.may_have_caught_up(&head.partition);
        self.last_sent = now;
        self.actions.push_back(LinkAction::Send(Control::Announce(vec![head])));
        if !self.behind.is_empty() {
            self.make_room();
        }
    }

    /// What is here of a partition is in doubt, and only following it shows whether it still
    /// is: it gets a place although nothing of it may be missing.
    pub fn handle_doubt(&mut self, partition: &PartitionId, now: Duration) {
        self.clock = now;
        if self.followed.get(partition).is_some_and(|followed| followed.state == Follow::Idle) {
            self.set(partition, Follow::Queued);
            self.behind.push_back(partition.clone());
            self.give_places();
        }
    }

    /// A follow stream went well for a while: its next failure is the first.
    pub fn handle_follow_progress(&mut self, partition: &PartitionId) {
        let clock = self.clock;
        // What is waited for here, or done, is not the peer's silence, though what it says
        // may wait behind it.
        self.last_heard = clock;
        if let Some(followed) = self.followed.get_mut(partition) {
            followed.backoff.succeeded();
            if let Follow::Running { since } = &mut followed.state {
                *since = clock;
            }
        }
    }

    /// A follow stream ended. `random` spreads the wait.
    pub fn handle_follow_end(
        &mut self,
        partition: &PartitionId,
        end: FollowEnd,
        random: u32,
        now: Duration,
    ) {
        self.clock = now;
        self.running.remove(partition);
        let Some(followed) = self.followed.get_mut(partition) else {
            return;
        };
        let stalled = followed.state == Follow::Releasing { stalled: true };
        if matches!(followed.state, Follow::Releasing { .. }) {
            self.leaving -= 1;
        }
        match end {
            FollowEnd::Again => {
                followed.refusals.succeeded();
                self.queue(partition.clone());
            }
            FollowEnd::Released if !stalled => {
                // There may be more by now.
                self.set(partition, Follow::Idle);
                self.consider(partition);
            }
            FollowEnd::Retry | FollowEnd::Refused | FollowEnd::Released => {
                let until = now
                    + match end {
                        FollowEnd::Refused => followed.refusals.failed(random),
                        _ => followed.backoff.failed(random),
                    };
                followed.state = Follow::Waiting { until };
                self.waiting.insert((until, partition.clone()));
            }
            FollowEnd::Quarantined => followed.state = Follow::Quarantined,
            FollowEnd::Done => {
                self.followed.remove(partition);
                // What the peer holds could not be judged without the history
                // that was just taken back.
                if let Some(head) = self.peer_heads.get(partition) {
                    self.actions.push_back(LinkAction::PeerHolds(head.clone()));
                }
            }
        }
        self.give_places();
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Duration) {
        self.clock = now;
        if now >= self.last_heard + SILENCE_MAX {
            self.actions.push_back(LinkAction::Silent);
        }
        while self.waiting.first().is_some_and(|(until, _)| *until <= now) {
            if let Some((_, partition)) = self.waiting.pop_first() {
                // What failed is followed again, whatever was told of it.
                self.set(&partition, Follow::Queued);
                self.behind.push_back(partition);
            }
        }
        self.give_places();
    }

    /// The driver asks for a heartbeat when this answers true.
    pub fn heartbeat_due(&mut self, now: Duration) -> bool {
        let due = now >= self.last_sent + self.timing.heartbeat;
        if due {
            self.last_sent = now;
        }
        due
    }

    /// When [`Link::handle_timeout`] and [`Link::heartbeat_due`] want to be
    /// called next.
    pub fn poll_timeout(&self) -> Duration {
        let silence = (self.last_sent + self.timing.heartbeat).min(self.last_heard + SILENCE_MAX);
        let retry = self.waiting.first().map_or(silence, |(until, _)| *until);
        // While somebody waits for a place, turns may be over.
        let turn = match self.behind.is_empty() {
            true => silence,
            false => self.clock + FOLLOW_TURN_MAX / 2,
        };
        silence.min(retry).min(turn)
    }

    /// What to do next; `None` until something happens.
    pub fn poll_action(&mut self) -> Option<LinkAction> {
        self.actions.pop_front()
    }

    /// The peer's newest claim about a partition.
    pub fn peer_head(&self, partition: &PartitionId) -> Option<&Announced> {
        self.peer_heads.get(partition)
    }

    /// Whether a partition of this node's own is taken back from the peer, or waits
    /// for that.
    pub fn takes_back(&self, partition: &PartitionId) -> bool {
        partition.origin == self.ends.me && self.followed.contains_key(partition)
    }

    /// When the peer was last heard.
    pub fn last_heard(&self) -> Duration {
        self.last_heard
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        change::Position,
        id::{FederationId, NodeId},
        suite::Suite,
    };

    const MAX: usize = 3;

    fn name(number: usize) -> PartitionId {
        PartitionId::parse_full(&format!("city/d{number:05}/410122/*")).unwrap()
    }

    fn head(number: usize, seq: u64) -> Announced {
        let position = Position { seq, hash: Suite::One.repeated(seq as u8) };
        Announced { partition: name(number), position, root: Suite::One.repeated(1), records: 1 }
    }

    /// A hub's link to a member that offers these heads, all of number 1.
    fn link(offered: usize, held: usize) -> Link {
        let node = |text: &str| NodeId::new(text).unwrap();
        let (me, peer) = (node("410100"), node("410122"));
        let federation = FederationId::new("city").unwrap();
        let ends = Ends { federation, suite: Suite::One, hub: me.clone(), me, peer };
        let timing = Timing { heartbeat: Duration::from_secs(10), follows_max: MAX };
        let heads = (0..offered).map(|number| head(number, 1)).collect();
        let build = String::new();
        let hello = Hello { suite: 1, versions: vec![PROTOCOL_VERSION], build, now_ms: 0, heads };
        let local = (0..held).map(|number| head(number, 1)).collect();
        Link::new(ends, timing, local, hello, Duration::ZERO).unwrap()
    }

    /// What is to be followed and let go of.
    fn asked(link: &mut Link) -> (Vec<PartitionId>, Vec<PartitionId>) {
        let (mut follow, mut release) = (Vec::new(), Vec::new());
        while let Some(action) = link.poll_action() {
            match action {
                LinkAction::Follow(partition) => follow.push(partition),
                LinkAction::Release(partition) => release.push(partition),
                _ => {}
            }
        }
        (follow, release)
    }

    fn names(numbers: impl IntoIterator<Item = usize>) -> Vec<PartitionId> {
        numbers.into_iter().map(name).collect()
    }

    #[test]
    fn more_partitions_than_streams_take_turns_in_the_order_they_were_told_of() {
        const ALL: usize = 10_000;
        let mut link = link(ALL, 0);
        let (mut streams, mut order) = (BTreeSet::new(), Vec::new());
        let now = Duration::from_secs(1);
        loop {
            let (follow, release) = asked(&mut link);
            if follow.is_empty() && release.is_empty() {
                break;
            }
            for partition in release {
                assert!(streams.remove(&partition));
                link.handle_follow_end(&partition, FollowEnd::Released, 0, now);
            }
            for partition in follow {
                assert!(streams.insert(partition.clone()), "followed twice at once");
                assert!(streams.len() <= MAX, "more streams than there may be");
                order.push(partition.clone());
                link.handle_local_head(Announced { partition, ..head(0, 1) }, now);
            }
        }
        assert_eq!(order, names(0..ALL), "each once, the first first");
        // Those who came last keep their streams.
        assert_eq!(streams.into_iter().collect::<Vec<_>>(), names(ALL - MAX..ALL));
        // News of one that was let go of bring it back, at the cost of another.
        link.handle_message(Control::Announce(vec![head(17, 2)]), now).unwrap();
        let (follow, release) = asked(&mut link);
        assert_eq!((follow, release.len()), (vec![], 1));
        link.handle_follow_end(&release[0], FollowEnd::Released, 0, now);
        assert_eq!(asked(&mut link), (names([17]), vec![]));
    }

    #[test]
    fn what_is_behind_comes_before_what_is_not() {
        let mut link = link(MAX + 4, 2);
        // 0 and 1 are held already.
        assert_eq!(asked(&mut link), (names(2..2 + MAX), vec![]));
        for number in 2..4 {
            link.handle_local_head(head(number, 1), Duration::from_secs(1));
        }
        let (follow, release) = asked(&mut link);
        assert_eq!((follow, &release), (vec![], &names(2..4)));
        for partition in release {
            link.handle_follow_end(&partition, FollowEnd::Released, 0, Duration::from_secs(1));
        }
        assert_eq!(asked(&mut link), (names(5..7), vec![]));
    }

    #[test]
    fn whoever_is_waited_for_here_is_not_silent() {
        let is_silent = |link: &mut Link| {
            std::iter::from_fn(|| link.poll_action()).any(|one| one == LinkAction::Silent)
        };
        let mut link = link(1, 0);
        let at = Duration::from_secs;
        link.handle_timeout(at(20));
        link.handle_follow_progress(&name(0));
        link.handle_timeout(at(49));
        assert!(!is_silent(&mut link));
        link.handle_timeout(at(50));
        assert!(is_silent(&mut link));
    }

    #[test]
    fn whoever_brings_nothing_loses_its_place_and_waits() {
        let mut link = link(MAX + 1, 0);
        assert_eq!(asked(&mut link), (names(0..MAX), vec![]));
        let later = FOLLOW_TURN_MAX - Duration::from_secs(1);
        link.handle_timeout(later);
        link.handle_follow_progress(&name(0));
        assert!(link.poll_timeout() <= later + FOLLOW_TURN_MAX / 2);
        link.handle_timeout(FOLLOW_TURN_MAX);
        let (follow, release) = asked(&mut link);
        assert_eq!((follow, &release), (vec![], &names([1])), "one waits for a place");
        link.handle_follow_end(&release[0], FollowEnd::Released, 0, FOLLOW_TURN_MAX);
        assert_eq!(asked(&mut link), (names([MAX]), vec![]));
        // It is followed again when there is room.
        link.handle_follow_end(&name(0), FollowEnd::Quarantined, 0, FOLLOW_TURN_MAX);
        link.handle_timeout(FOLLOW_TURN_MAX + RETRY_LONGEST);
        let (follow, _) = asked(&mut link);
        assert_eq!(follow, names([1]));
    }

    #[test]
    fn partitions_that_fit_all_keep_their_streams() {
        let mut link = link(MAX, 0);
        assert_eq!(asked(&mut link), (names(0..MAX), vec![]));
        for number in 0..MAX {
            link.handle_local_head(head(number, 1), Duration::from_secs(1));
        }
        link.handle_message(Control::Announce(vec![head(1, 2)]), Duration::from_secs(2)).unwrap();
        link.handle_timeout(Duration::from_secs(20));
        assert_eq!(asked(&mut link), (vec![], vec![]));
    }
}
