//! The control stream: who the peer is, what it holds, and what to follow.
//!
//! One link lives as long as one connection. It begins when the peer's hello
//! has arrived, which is also what *connected* means: a QUIC client's connect
//! succeeds before the server has looked at its certificate.

use std::{
    collections::{BTreeMap, VecDeque},
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

/// How long things take; the clock is any that only goes forward.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// Time between two heartbeats.
    pub heartbeat: Duration,
}

/// What the driver does for a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkAction {
    /// Send this on the control stream.
    Send(Control),
    /// Open a follow stream for this partition.
    Follow(PartitionId),
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
    /// A person has to decide first.
    Quarantined,
    /// Our own history is taken back: nothing is left to follow.
    Done,
}

#[derive(Debug)]
enum Follow {
    Running,
    Waiting { until: Duration },
    Quarantined,
}

#[derive(Debug)]
struct Followed {
    state: Follow,
    backoff: Backoff,
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
            if !self.peer_heads.contains_key(&head.partition) && self.peer_heads.len() >= HEADS_MAX
            {
                return Err(PeerMisbehaved::Unexpected("more partitions than a node may have"));
            }
            if head.partition.origin == self.ends.me {
                self.actions.push_back(LinkAction::PeerHolds(head.clone()));
            }
            self.peer_heads.insert(head.partition.clone(), head.clone());
            self.consider(&head.partition);
        }
        Ok(())
    }

    /// Follows a partition that the peer offers and that we lack something of.
    fn consider(&mut self, partition: &PartitionId) {
        let Some(offered) = self.peer_heads.get(partition) else {
            return;
        };
        if !self.ends.may_follow(&self.ends.me, partition) || self.followed.contains_key(partition)
        {
            return;
        }
        // Our own history is only taken back when the peer has more of it.
        let ours = self.local_heads.get(partition).map_or(0, |head| head.position.seq);
        if partition.origin == self.ends.me && offered.position.seq <= ours {
            return;
        }
        let backoff = Backoff::new(RETRY_FIRST, RETRY_LONGEST);
        self.followed.insert(partition.clone(), Followed { state: Follow::Running, backoff });
        self.actions.push_back(LinkAction::Follow(partition.clone()));
    }

    /// A partition of this node moved to `head`.
    pub fn handle_local_head(&mut self, head: Announced, now: Duration) {
        if !self.ends.concerns_both(&head.partition) {
            return;
        }
        self.local_heads.insert(head.partition.clone(), head.clone());
        self.last_sent = now;
        self.actions.push_back(LinkAction::Send(Control::Announce(vec![head])));
    }

    /// A follow stream went well for a while: its next failure is the first.
    pub fn handle_follow_progress(&mut self, partition: &PartitionId) {
        if let Some(followed) = self.followed.get_mut(partition) {
            followed.backoff.succeeded();
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
        let Some(followed) = self.followed.get_mut(partition) else {
            return;
        };
        followed.state = match end {
            FollowEnd::Again => {
                self.actions.push_back(LinkAction::Follow(partition.clone()));
                Follow::Running
            }
            FollowEnd::Retry => Follow::Waiting { until: now + followed.backoff.failed(random) },
            FollowEnd::Quarantined => Follow::Quarantined,
            FollowEnd::Done => {
                self.followed.remove(partition);
                // What the peer holds could not be judged without the history
                // that was just taken back.
                if let Some(head) = self.peer_heads.get(partition) {
                    self.actions.push_back(LinkAction::PeerHolds(head.clone()));
                }
                return;
            }
        };
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Duration) {
        if now >= self.last_heard + SILENCE_MAX {
            self.actions.push_back(LinkAction::Silent);
        }
        for (partition, followed) in &mut self.followed {
            if matches!(followed.state, Follow::Waiting { until } if until <= now) {
                followed.state = Follow::Running;
                self.actions.push_back(LinkAction::Follow(partition.clone()));
            }
        }
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
        let waits = self.followed.values().filter_map(|followed| match followed.state {
            Follow::Waiting { until } => Some(until),
            Follow::Running | Follow::Quarantined => None,
        });
        waits
            .chain([self.last_sent + self.timing.heartbeat, self.last_heard + SILENCE_MAX])
            .min()
            .unwrap_or(self.last_sent)
    }

    /// What to do next; `None` until something happens.
    pub fn poll_action(&mut self) -> Option<LinkAction> {
        self.actions.pop_front()
    }

    /// The peer's newest claim about a partition.
    pub fn peer_head(&self, partition: &PartitionId) -> Option<&Announced> {
        self.peer_heads.get(partition)
    }

    /// When the peer was last heard.
    pub fn last_heard(&self) -> Duration {
        self.last_heard
    }
}
