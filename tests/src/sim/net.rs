//! The network and the clock: one queue of everything that will happen.
//!
//! Messages of one direction of a stream arrive in order; streams overtake each
//! other freely. What is sent while the path is blocked arrives when it opens
//! again, as a transport that repeats itself would do. A connection that is cut
//! swallows what is on its way, and each side notices at its own time.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use protocol::message::CloseCode;

use super::{
    cast::HUB,
    hostile::{Hostile, Lie, Sent},
    rng::Rng,
};

/// A connection's number; never used twice.
pub type ConnId = u64;

/// A stream of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamId {
    /// The node that opened it.
    pub opener: usize,
    number: u64,
}

/// What travels on a stream.
#[derive(Debug, Clone)]
pub enum Wire {
    /// One frame's body.
    Bytes(Vec<u8>),
    /// The sender has nothing more to say.
    Finished,
    /// The sender gives the stream up.
    Reset(CloseCode),
}

/// What happens to a node.
#[derive(Debug)]
pub enum Event {
    /// Something arrived.
    Arrived(ConnId, StreamId, Wire),
    /// The connection is gone, with the peer's code if it said one.
    Closed(ConnId, Option<CloseCode>),
    /// What the store was asked for on behalf of a stream is done.
    Stored(ConnId, StreamId),
    /// Look at the clock.
    Wake,
}

#[derive(Debug)]
enum Queued {
    Arrival { conn: ConnId, stream: StreamId, to: usize },
    Event { node: usize, boot: u64, event: Event },
    Closed { conn: ConnId, node: usize, code: Option<CloseCode> },
    Plan(usize),
}

/// What the queue hands out.
#[derive(Debug)]
pub enum Next {
    /// Something for one node, in that life of it.
    Node(usize, Option<u64>, Event),
    /// The next entry of the run's plan.
    Plan(usize),
}

#[derive(Debug)]
struct Conn {
    member: usize,
    cut: bool,
    /// Nodes that still know it.
    open: [bool; 2],
}

#[derive(Debug, Default)]
struct Channel {
    queue: VecDeque<(Wire, Option<Lie>)>,
    last_arrival: Duration,
}

/// The network, the clock and the randomness of a run.
#[derive(Debug)]
pub struct Net {
    /// The virtual time.
    pub now: Duration,
    /// All randomness.
    pub rng: Rng,
    /// Who lies, if anybody does.
    pub hostile: Option<Hostile>,
    queue: BTreeMap<(Duration, u64), Queued>,
    numbers: u64,
    conns: BTreeMap<ConnId, Conn>,
    channels: BTreeMap<(ConnId, StreamId, usize), Channel>,
    /// Until when the path between a member and the hub is blocked.
    blocked: BTreeMap<usize, Duration>,
}

impl Net {
    /// A network without connections.
    pub fn new(rng: Rng) -> Self {
        Self {
            now: Duration::ZERO,
            rng,
            hostile: None,
            queue: BTreeMap::new(),
            numbers: 0,
            conns: BTreeMap::new(),
            channels: BTreeMap::new(),
            blocked: BTreeMap::new(),
        }
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn push(&mut self, at: Duration, queued: Queued) {
        let number = self.number();
        self.queue.insert((at, number), queued);
    }

    /// Lets something happen to `node`, unless it crashes before.
    pub fn schedule(&mut self, at: Duration, node: usize, boot: u64, event: Event) {
        self.push(at, Queued::Event { node, boot, event });
    }

    /// Lets the run's plan go on at `at`.
    pub fn plan(&mut self, at: Duration, entry: usize) {
        self.push(at, Queued::Plan(entry));
    }

    /// `member` dials the hub.
    pub fn connect(&mut self, member: usize) -> ConnId {
        let conn = self.number();
        self.conns.insert(conn, Conn { member, cut: false, open: [true; 2] });
        conn
    }

    /// The other end of a connection.
    pub fn peer(&self, conn: ConnId, me: usize) -> usize {
        if me == HUB { self.conns[&conn].member } else { HUB }
    }

    /// A new stream of `opener`.
    pub fn stream(&mut self, opener: usize) -> StreamId {
        StreamId { opener, number: self.number() }
    }

    /// Whether one of the two is hostile.
    pub fn has_hostile(&self, one: usize, other: usize) -> bool {
        self.hostile.as_ref().is_some_and(|hostile| [one, other].contains(&hostile.node))
    }

    /// `node` refuses what came on a stream.
    pub fn note_refused(&mut self, conn: ConnId, stream: StreamId, node: usize) {
        if let Some(hostile) = self.hostile.as_mut().filter(|hostile| hostile.node != node) {
            hostile.refused(conn, stream);
        }
    }

    /// Sends on a stream.
    pub fn send(&mut self, conn: ConnId, from: usize, stream: StreamId, wire: Wire) {
        let to = self.peer(conn, from);
        match &mut self.hostile {
            Some(hostile) if hostile.node == from => {
                for sent in hostile.pass(conn, to, stream, wire) {
                    self.transmit(conn, from, sent);
                }
            }
            Some(hostile) if hostile.node == to => {
                hostile.overhear(conn, stream, &wire);
                self.transmit(conn, from, Sent::honest(stream, wire));
            }
            _ => self.transmit(conn, from, Sent::honest(stream, wire)),
        }
    }

    fn transmit(&mut self, conn: ConnId, from: usize, sent: Sent) {
        let Sent { stream, wire, delay, lie } = sent;
        let to = self.peer(conn, from);
        let arrival = self.now + self.latency() + delay;
        let channel = self.channels.entry((conn, stream, to)).or_default();
        channel.queue.push_back((wire, lie));
        channel.last_arrival = channel.last_arrival.max(arrival);
        let at = channel.last_arrival;
        self.push(at, Queued::Arrival { conn, stream, to });
    }

    /// Mostly a county's line; sometimes a packet is lost and repeated.
    fn latency(&mut self) -> Duration {
        if self.rng.chance(5) { self.rng.millis(200, 2_000) } else { self.rng.millis(1, 60) }
    }

    /// `from` closes the connection and tells the other side.
    pub fn close(&mut self, conn: ConnId, from: usize, code: CloseCode) {
        let node = self.peer(conn, from);
        let at = self.now + self.latency();
        self.leave(conn, from);
        self.push(at, Queued::Closed { conn, node, code: Some(code) });
    }

    /// `node` knows no more of the connection.
    pub fn leave(&mut self, conn: ConnId, node: usize) {
        if let Some(known) = self.conns.get_mut(&conn) {
            known.open[usize::from(node == HUB)] = false;
            if known.open == [false; 2] {
                self.conns.remove(&conn);
                self.channels.retain(|(of, ..), _| *of != conn);
                if let Some(hostile) = &mut self.hostile {
                    hostile.forget(conn);
                }
            }
        }
    }

    /// Cuts a member's connections without a word.
    pub fn cut(&mut self, member: usize) {
        let of_member = |(id, conn): (&ConnId, &Conn)| (conn.member == member).then_some(*id);
        let cut: Vec<ConnId> = self.conns.iter().filter_map(of_member).collect();
        for conn in cut {
            if let Some(known) = self.conns.get_mut(&conn) {
                known.cut = true;
            }
            for node in [member, HUB] {
                let at = self.now + self.rng.millis(0, 45_000);
                self.push(at, Queued::Closed { conn, node, code: None });
            }
        }
    }

    /// `node` went down: it knows of no connection, and the others notice later.
    pub fn crashed(&mut self, node: usize) {
        let its = |(id, conn): (&ConnId, &Conn)| {
            (node == HUB || conn.member == node).then_some((*id, conn.member))
        };
        let lost: Vec<(ConnId, usize)> = self.conns.iter().filter_map(its).collect();
        for (conn, member) in lost {
            self.cut(member);
            self.leave(conn, node);
        }
    }

    /// Blocks the path between a member and the hub.
    pub fn block(&mut self, member: usize, until: Duration) {
        self.blocked.insert(member, until);
    }

    /// Connections that `node` still knows.
    pub fn open_conns(&self, node: usize) -> usize {
        let side = usize::from(node == HUB);
        let its = |conn: &&Conn| conn.open[side] && (node == HUB || conn.member == node);
        self.conns.values().filter(its).count()
    }

    /// Connections with a member that the hub still knows.
    pub fn open_at_hub(&self, member: usize) -> usize {
        self.conns.values().filter(|conn| conn.open[1] && conn.member == member).count()
    }

    /// The time goes on to what happens next, up to `until`.
    pub fn next(&mut self, until: Duration) -> Option<Next> {
        loop {
            if self.queue.first_key_value().is_none_or(|((at, _), _)| *at > until) {
                self.now = until;
                return None;
            }
            let ((at, _), queued) = self.queue.pop_first()?;
            self.now = at;
            match queued {
                Queued::Plan(entry) => return Some(Next::Plan(entry)),
                Queued::Event { node, boot, event } => {
                    return Some(Next::Node(node, Some(boot), event));
                }
                Queued::Closed { conn, node, code } => {
                    let Some(known) = self.conns.get(&conn) else { continue };
                    if known.open[usize::from(node == HUB)] && (code.is_none() || !known.cut) {
                        return Some(Next::Node(node, None, Event::Closed(conn, code)));
                    }
                }
                Queued::Arrival { conn, stream, to } => {
                    if let Some(wire) = self.arrive(conn, stream, to) {
                        let event = Event::Arrived(conn, stream, wire);
                        return Some(Next::Node(to, None, event));
                    }
                }
            }
        }
    }

    fn arrive(&mut self, conn: ConnId, stream: StreamId, to: usize) -> Option<Wire> {
        let known = self.conns.get(&conn)?;
        let opens = self.blocked.get(&known.member).copied().filter(|until| *until > self.now);
        if known.cut || !known.open[usize::from(to == HUB)] {
            return None;
        }
        if let Some(opens) = opens {
            self.push(opens, Queued::Arrival { conn, stream, to });
            return None;
        }
        let (wire, lie) = self.channels.get_mut(&(conn, stream, to))?.queue.pop_front()?;
        let Some(hostile) = &mut self.hostile else {
            return Some(wire);
        };
        let node = hostile.node;
        if let Some(lie) = lie {
            hostile.arrived(conn, stream, lie);
        }
        let answers = match to == node {
            true => hostile.answer(conn, stream, &wire),
            false => None,
        };
        let Some(answers) = answers else {
            return Some(wire);
        };
        for answer in answers {
            self.transmit(conn, node, answer);
        }
        None
    }
}
