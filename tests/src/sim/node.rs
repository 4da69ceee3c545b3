//! One node: its durable store, and the connections of its present life.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    time::Duration,
};

use protocol::{
    change::Change,
    hash::Hash,
    id::PartitionId,
    message::{CloseCode, Hello},
    session::{backoff::Backoff, link::Link},
};

use super::{
    cast::{Cast, HUB},
    claims::Claims,
    follow::Io,
    net::{ConnId, Event, Net, StreamId},
    oracle::Oracle,
    session::{Outcome, Session},
    store::Store,
};

/// A dial that is not answered within this is given up.
const DIAL_PATIENCE: Duration = Duration::from_secs(10);
/// Waits between dials.
const DIAL_WAITS: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(20));

/// What all nodes share.
#[derive(Debug)]
pub struct Shared {
    /// Names and keys.
    pub cast: Rc<Cast>,
    /// Network, clock, randomness.
    pub net: Net,
    /// The observer.
    pub oracle: Oracle,
    /// Who has just signed the newest number of a partition again, and what it had signed
    /// before.
    pub twice: Vec<(usize, PartitionId, BTreeSet<Hash>)>,
}

/// One node.
#[derive(Debug)]
pub struct Node {
    me: usize,
    /// What survives.
    pub store: Store,
    /// Whether it runs.
    pub up: bool,
    /// The wall clock at virtual time zero; nothing may depend on it.
    pub clock_ms: i64,
    boot: u64,
    sessions: BTreeMap<ConnId, Session>,
    moved: Vec<PartitionId>,
    dials: Backoff,
    dial_at: Option<Duration>,
    dialed: BTreeMap<ConnId, Duration>,
    wake_at: Option<Duration>,
}

/// Splits a node into the parts that a session touches.
macro_rules! io {
    ($node:expr, $shared:expr, $conn:expr) => {
        Io {
            me: $node.me,
            boot: $node.boot,
            conn: $conn,
            store: &mut $node.store,
            moved: &mut $node.moved,
            net: &mut $shared.net,
            oracle: &mut $shared.oracle,
        }
    };
}

impl Node {
    /// A node that does not run yet.
    pub fn new(me: usize, store: Store) -> Self {
        Self {
            me,
            store,
            up: false,
            clock_ms: 1_700_000_000_000,
            boot: 0,
            sessions: BTreeMap::new(),
            moved: Vec::new(),
            dials: Backoff::new(DIAL_WAITS.0, DIAL_WAITS.1),
            dial_at: None,
            dialed: BTreeMap::new(),
            wake_at: None,
        }
    }

    /// Begins a life with nothing but the store.
    pub fn start(&mut self, shared: &mut Shared) {
        let (mut store, clock_ms) = (self.store.clone(), self.clock_ms);
        // One that has nothing yet has nothing to be told of.
        let is_new = store.heads().next().is_none();
        store.claims = match is_new {
            true => Claims::default(),
            false => Claims::begin(self.me == HUB, shared.net.now),
        };
        *self = Self { up: true, clock_ms, boot: self.boot + 1, ..Self::new(self.me, store) };
        self.dial_at = (self.me != HUB).then_some(shared.net.now);
        self.settle(shared);
    }

    /// Ends it without a word to anybody.
    pub fn crash(&mut self, shared: &mut Shared) {
        self.up = false;
        self.sessions.clear();
        shared.net.crashed(self.me);
    }

    /// Something happened to the node; `boot` says in which life, if it
    /// concerns only that one.
    pub fn handle(&mut self, shared: &mut Shared, boot: Option<u64>, event: Event) {
        if let Event::Closed(conn, _) = event {
            shared.net.leave(conn, self.me);
        }
        if !self.up || boot.is_some_and(|boot| boot != self.boot) {
            return;
        }
        match event {
            Event::Wake => self.handle_wake(shared),
            Event::Closed(conn, code) => self.forget(shared, conn, code),
            Event::Stored(conn, stream) => {
                if let Some(session) = self.sessions.get_mut(&conn) {
                    let outcome = session.handle_stored(&mut io!(self, shared, conn), stream);
                    self.conclude(shared, conn, outcome);
                }
            }
            Event::Arrived(conn, stream, wire) => {
                if self.me == HUB && !self.sessions.contains_key(&conn) {
                    let peer = shared.net.peer(conn, self.me);
                    let session = Session::new(shared.cast.ends(self.me, peer), self.clock_ms);
                    self.sessions.insert(conn, session);
                }
                if let Some(session) = self.sessions.get_mut(&conn) {
                    let mut io = io!(self, shared, conn);
                    match session.handle_arrival(&mut io, stream, wire) {
                        Ok(outcome) => self.conclude(shared, conn, outcome),
                        Err((stream, hello)) => self.accept(shared, conn, stream, hello),
                    }
                    self.note_connected(conn);
                }
            }
        }
        self.settle(shared);
    }

    /// The hub heard a member's hello: its older connections are closed first,
    /// with all that they were about to commit, so that the answer's heads stay
    /// true for a member that lost its history.
    fn accept(&mut self, shared: &mut Shared, conn: ConnId, stream: StreamId, hello: Hello) {
        let peer = shared.net.peer(conn, self.me);
        if self.store.registry.active_member(&shared.cast.nodes[peer]).is_none() {
            return self.close(shared, conn, CloseCode::NotAMember);
        }
        let others: Vec<ConnId> = self.sessions.keys().copied().filter(|id| *id != conn).collect();
        for other in others {
            if shared.net.peer(other, self.me) == peer {
                self.close(shared, other, CloseCode::Replaced);
            }
        }
        let session = self.sessions.get_mut(&conn).expect("the caller looked it up");
        let outcome = session.accept(&mut io!(self, shared, conn), stream, hello);
        self.conclude(shared, conn, outcome);
    }

    /// Only the hub's hello ends the waits between dials.
    fn note_connected(&mut self, conn: ConnId) {
        if self.sessions.get(&conn).is_some_and(|session| session.link().is_some())
            && self.dialed.remove(&conn).is_some()
        {
            self.dials.succeeded();
        }
    }

    fn conclude(&mut self, shared: &mut Shared, conn: ConnId, outcome: Outcome) {
        if let Outcome::Close(code) = outcome {
            self.close(shared, conn, code);
        }
    }

    fn close(&mut self, shared: &mut Shared, conn: ConnId, code: CloseCode) {
        shared.net.close(conn, self.me, code);
        self.forget(shared, conn, Some(code));
    }

    fn forget(&mut self, shared: &mut Shared, conn: ConnId, code: Option<CloseCode>) {
        self.sessions.remove(&conn);
        self.dialed.remove(&conn);
        if self.me == HUB {
            shared.oracle.tally.replaced += u64::from(code == Some(CloseCode::Replaced));
        } else if self.sessions.is_empty() && self.dial_at.is_none() {
            let wait = self.dials.failed(shared.net.rng.u32());
            self.dial_at = Some(shared.net.now + wait);
        }
    }

    /// A member dials, also while it has a connection.
    pub fn dial(&mut self, shared: &mut Shared) {
        self.dial_at = None;
        let conn = shared.net.connect(self.me);
        let mut session = Session::new(shared.cast.ends(self.me, HUB), self.clock_ms);
        session.dial(&mut io!(self, shared, conn));
        self.sessions.insert(conn, session);
        self.dialed.insert(conn, shared.net.now + DIAL_PATIENCE);
        self.settle(shared);
    }

    fn handle_wake(&mut self, shared: &mut Shared) {
        let now = shared.net.now;
        if self.wake_at.is_some_and(|at| at <= now) {
            self.wake_at = None;
        }
        let given_up: Vec<ConnId> =
            self.dialed.iter().filter(|(_, until)| **until <= now).map(|(conn, _)| *conn).collect();
        for conn in given_up {
            self.close(shared, conn, CloseCode::Silent);
        }
        if self.dial_at.is_some_and(|at| at <= now) {
            self.dial(shared);
        }
        let conns: Vec<ConnId> = self.sessions.keys().copied().collect();
        for conn in conns {
            if let Some(session) = self.sessions.get_mut(&conn) {
                let outcome = session.handle_timeout(&mut io!(self, shared, conn));
                self.conclude(shared, conn, outcome);
            }
        }
    }

    /// Tells all sessions what moved, and asks to be woken in time.
    fn settle(&mut self, shared: &mut Shared) {
        while let Some(partition) = self.moved.pop() {
            let Some(head) = self.store.announced(&partition) else {
                continue;
            };
            let conns: Vec<ConnId> = self.sessions.keys().copied().collect();
            for conn in conns {
                if let Some(session) = self.sessions.get_mut(&conn) {
                    let outcome = session.handle_head(&mut io!(self, shared, conn), &head);
                    self.conclude(shared, conn, outcome);
                }
            }
        }
        self.look_around(shared);
        let sessions = self.sessions.values().filter_map(Session::poll_timeout);
        let wanted = sessions.chain(self.dial_at).chain(self.dialed.values().copied()).min();
        if let Some(at) = wanted
            && self.wake_at.is_none_or(|known| at < known)
        {
            let at = at.max(shared.net.now);
            self.wake_at = Some(at);
            shared.net.schedule(at, self.me, self.boot, Event::Wake);
        }
    }

    fn links(&self) -> impl Iterator<Item = &Link> {
        self.sessions.values().filter_map(Session::link)
    }

    /// How many connections have exchanged their hellos.
    pub fn link_count(&self) -> usize {
        self.links().count()
    }

    /// The link that a peer's words come by.
    pub fn newest_link_with(&self, net: &Net, peer: usize) -> Option<&Link> {
        let with = |conn: &ConnId| net.peer(*conn, self.me) == peer;
        let newest = self.sessions.iter().rev().filter(|(_, session)| session.link().is_some());
        newest.filter(|(conn, _)| with(conn)).find_map(|(_, session)| session.link())
    }

    /// Ends all connections, so that everybody says anew what is held.
    pub fn connect_again(&mut self, shared: &mut Shared) {
        let conns: Vec<ConnId> = self.sessions.keys().copied().collect();
        conns.into_iter().for_each(|conn| self.close(shared, conn, CloseCode::Normal));
        self.settle(shared);
    }

    /// How many of those are with that peer.
    pub fn link_count_with(&self, net: &Net, peer: usize) -> usize {
        let with = |conn: &ConnId| net.peer(*conn, self.me) == peer;
        let linked = self.sessions.iter().filter(|(_, session)| session.link().is_some());
        linked.filter(|(conn, _)| with(conn)).count()
    }

    /// After a restore, looks whether the hub has answered, or each member, and nothing of
    /// this node's own is missing any more.
    fn look_around(&mut self, shared: &Shared) {
        if !self.store.restored {
            return;
        }
        let own = shared.cast.own_partitions(self.me);
        let complete = |link: &Link| {
            own.iter().all(|partition| {
                let offered = link.peer_head(partition).map_or(0, |head| head.position.seq);
                self.store.position(partition).map_or(0, |at| at.seq) >= offered
            })
        };
        let has_said = |peer| self.newest_link_with(&shared.net, peer).is_some_and(complete);
        let members = 1..shared.cast.nodes.len();
        let complete = match self.me {
            HUB => members.into_iter().all(has_said),
            _ => has_said(HUB),
        };
        self.store.restored = !complete;
    }

    /// Whether something that is known here stops all writes to an own partition.
    pub fn is_stopped(&self, partition: &PartitionId) -> bool {
        let have = self.store.position(partition).map_or(0, |at| at.seq);
        self.store.restored
            || self.store.partition(partition).is_some_and(|state| state.quarantined)
            || self.store.lost(partition).is_some()
            || self.store.claims.awaited(partition) > have
            || !(partition.dataset.is_system() || self.has_key())
    }

    /// Whether the node writes to its own `partition` now: not before it has its
    /// history back, and not while it is in doubt.
    pub fn may_write(&self, partition: &PartitionId, now: Duration) -> bool {
        let have = self.store.position(partition).map_or(0, |at| at.seq);
        self.up
            && self.may_write_unasked(partition)
            && self.store.claims.allow(partition, have, now)
    }

    /// The same whatever peers claim and have not proven.
    pub fn may_write_unasked(&self, partition: &PartitionId) -> bool {
        !self.is_stopped(partition) && !self.store.resolving.contains_key(partition)
    }

    /// Whether `_federation` says that this node's signatures count for anything.
    pub fn has_key(&self) -> bool {
        !self.store.registry.keys(&self.store.name).is_empty()
    }

    /// Signs and commits `changes` to a partition of its own.
    pub fn write(&mut self, shared: &mut Shared, partition: &PartitionId, changes: &[Change]) {
        let now_ms = self.clock_ms + shared.net.now.as_millis() as i64;
        let set = self.store.sign(partition, changes, shared.cast.key(self.me), now_ms);
        let keys = Rc::clone(&self.store.registry);
        let set = set.verify(&*keys).expect("what a node signs verifies");
        self.store.commit(&set).expect("an origin's own change set fits");
        self.store.claims.written(partition);
        let others = shared.oracle.signed(self.me, &self.store, partition);
        self.moved.push(partition.clone());
        if !others.is_empty() {
            shared.twice.push((self.me, partition.clone(), others));
        }
    }

    /// Lets sessions know what was written.
    pub fn announce(&mut self, shared: &mut Shared) {
        self.settle(shared);
    }

    /// Drops all snapshots that are open for peers.
    pub fn expire_snapshots(&mut self, shared: &mut Shared) {
        for (conn, session) in &mut self.sessions {
            session.expire_snapshots(&mut io!(self, shared, *conn));
        }
    }
}
