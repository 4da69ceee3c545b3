//! One connection at one node: its control stream and all others.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use protocol::{
    codec,
    id::PartitionId,
    message::{Announced, CloseCode, Control, Hello, Open, PROTOCOL_VERSION},
    session::{
        PeerMisbehaved,
        entitle::Ends,
        link::{FollowEnd, Link, LinkAction, Timing},
    },
};

use super::{
    follow::{Following, Io, Progress},
    net::{StreamId, Wire},
    provide::Providing,
};

/// A third of the silence that closes a connection.
const TIMING: Timing = Timing {
    heartbeat: Duration::from_secs(10),
    // Fewer than there are partitions, so that they take turns.
    follows_max: 2,
};

/// What the node has to do about the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing.
    Lives,
    /// Close it with this code.
    Close(CloseCode),
}

/// The volatile state of one connection.
#[derive(Debug)]
pub struct Session {
    ends: Ends,
    clock_ms: i64,
    control: Option<StreamId>,
    /// The heads of our hello: the link announces what moved since.
    told: Vec<Announced>,
    link: Option<Link>,
    follows: BTreeMap<StreamId, Following>,
    provides: BTreeMap<StreamId, Providing>,
    /// Streams of the peer that were opened, also those that ended.
    seen: BTreeSet<StreamId>,
}

impl Session {
    /// A connection whose control stream was not opened yet. `clock_ms` is the
    /// wall clock at virtual time zero, which may be wrong.
    pub fn new(ends: Ends, clock_ms: i64) -> Self {
        Self {
            ends,
            clock_ms,
            control: None,
            told: Vec::new(),
            link: None,
            follows: BTreeMap::new(),
            provides: BTreeMap::new(),
            seen: BTreeSet::new(),
        }
    }

    /// The link, once both hellos were exchanged.
    pub fn link(&self) -> Option<&Link> {
        self.link.as_ref()
    }

    /// Whether this node takes its own history of `partition` back.
    pub fn takes_back(&self, partition: &PartitionId) -> bool {
        self.link.as_ref().is_some_and(|link| link.takes_back(partition))
    }

    fn hello(&mut self, io: &Io<'_>) -> Hello {
        let concerns = |head: &Announced| self.ends.concerns_both(&head.partition);
        self.told = io.store.heads().filter(concerns).collect();
        Hello {
            suite: self.ends.suite.number(),
            versions: vec![PROTOCOL_VERSION],
            build: "simulation".into(),
            now_ms: self.wall_clock(io),
            heads: self.told.clone(),
        }
    }

    fn wall_clock(&self, io: &Io<'_>) -> i64 {
        self.clock_ms + io.net.now.as_millis() as i64
    }

    /// The member opens the control stream.
    pub fn dial(&mut self, io: &mut Io<'_>) {
        let hello = self.hello(io);
        let stream = io.net.stream(io.me);
        self.control = Some(stream);
        io.send(stream, codec::encode(&Open::Control(hello)));
    }

    /// The hub answers the member's hello.
    pub fn accept(&mut self, io: &mut Io<'_>, stream: StreamId, hello: Hello) -> Outcome {
        let mine = self.hello(io);
        self.control = Some(stream);
        io.send(stream, codec::encode(&Control::Hello(mine)));
        self.begin_link(io, hello)
    }

    fn begin_link(&mut self, io: &mut Io<'_>, hello: Hello) -> Outcome {
        let told = std::mem::take(&mut self.told);
        match Link::new(self.ends.clone(), TIMING, told.clone(), hello, io.net.now) {
            Err(error) => close(&error),
            Ok(mut link) => {
                for head in io.store.heads().filter(|head| !told.contains(head)) {
                    link.handle_local_head(head, io.net.now);
                }
                self.link = Some(link);
                self.step(io)
            }
        }
    }

    /// Something arrived on a stream. An unknown stream's first message is
    /// answered with what it opens, if that is the control stream.
    pub fn handle_arrival(
        &mut self,
        io: &mut Io<'_>,
        stream: StreamId,
        wire: Wire,
    ) -> Result<Outcome, (StreamId, Hello)> {
        if self.control == Some(stream) {
            return Ok(self.handle_control(io, wire));
        }
        if self.follows.contains_key(&stream) {
            self.handle_reply(io, stream, wire);
        } else if self.provides.contains_key(&stream) {
            self.handle_request(io, stream, wire);
        } else if let Wire::Bytes(bytes) = wire
            && stream.opener != io.me
            && self.seen.insert(stream)
        {
            match Open::decode(&bytes).expect("honest peers send what decodes") {
                Open::Control(hello) => return Err((stream, hello)),
                open => self.provide(io, stream, open),
            }
        }
        Ok(self.step(io))
    }

    fn handle_control(&mut self, io: &mut Io<'_>, wire: Wire) -> Outcome {
        let Wire::Bytes(bytes) = wire else {
            return Outcome::Close(CloseCode::Normal);
        };
        let control = Control::decode(&bytes).expect("honest peers send what decodes");
        match (&mut self.link, control) {
            (None, Control::Hello(hello)) => return self.begin_link(io, hello),
            (None, other) => panic!("{other:?} arrived before the hello"),
            (Some(link), message) => {
                if let Err(error) = link.handle_message(message, io.net.now) {
                    return close(&error);
                }
            }
        }
        self.step(io)
    }

    fn handle_reply(&mut self, io: &mut Io<'_>, stream: StreamId, wire: Wire) {
        let Some(following) = self.follows.get_mut(&stream) else {
            return;
        };
        match wire {
            Wire::Bytes(bytes) => {
                match following.handle_message(&bytes, io.store) {
                    Ok(()) => {}
                    // A fork that shows itself when pages are taken.
                    Err(PeerMisbehaved::OtherHistory(head)) => {
                        let code = following.other_history(io, head);
                        io.net.send(io.conn, io.me, stream, Wire::Reset(code));
                        self.end_follow(io, stream, FollowEnd::Quarantined);
                    }
                    Err(error) => panic!("{} at node {}: {error}", following.partition, io.me),
                }
            }
            Wire::Finished => following.handle_finished(),
            Wire::Reset(_) => self.end_follow(io, stream, FollowEnd::Retry),
        }
    }

    fn handle_request(&mut self, io: &mut Io<'_>, stream: StreamId, wire: Wire) {
        match wire {
            Wire::Bytes(bytes) => {
                let providing = self.provides.get_mut(&stream).expect("the caller looked it up");
                if let Err(error) = providing.handle_message(&bytes, io, stream) {
                    panic!("a stream provided by node {}: {error}", io.me);
                }
            }
            Wire::Finished | Wire::Reset(_) => drop(self.provides.remove(&stream)),
        }
    }

    fn provide(&mut self, io: &mut Io<'_>, stream: StreamId, open: Open) {
        let (Open::Follow { partition, .. } | Open::Tree { partition, .. }) = &open else {
            return;
        };
        assert!(self.ends.may_follow(&self.ends.peer, partition), "honest peers know their rights");
        let answered = match open {
            Open::Follow { partition, have } => Providing::changes(io.store, partition, have),
            Open::Tree { partition, have } => {
                Providing::pages(io.store, &partition, have).map(|(pages, head)| {
                    io.send(stream, codec::encode(&head));
                    pages
                })
            }
            _ => return,
        };
        match answered {
            Ok(providing) => drop(self.provides.insert(stream, providing)),
            Err(code) => io.net.send(io.conn, io.me, stream, Wire::Reset(code)),
        }
    }

    /// The store did what a stream asked for.
    pub fn handle_stored(&mut self, io: &mut Io<'_>, stream: StreamId) -> Outcome {
        if let Some(providing) = self.provides.get_mut(&stream) {
            providing.handle_stored(io.store);
        } else if let Some(following) = self.follows.get_mut(&stream) {
            match following.handle_stored(io) {
                Progress::Ended(end, code) => {
                    io.net.send(io.conn, io.me, stream, Wire::Reset(code));
                    self.end_follow(io, stream, end);
                }
                _ => {
                    if let Some(link) = &mut self.link {
                        link.handle_follow_progress(&following.partition);
                    }
                }
            }
        }
        self.step(io)
    }

    /// A partition of this node moved.
    pub fn handle_head(&mut self, io: &mut Io<'_>, head: &Announced) -> Outcome {
        if let Some(link) = &mut self.link {
            link.handle_local_head(head.clone(), io.net.now);
        }
        for providing in self.provides.values_mut() {
            providing.handle_head(&head.partition, head.position.seq);
        }
        self.step(io)
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, io: &mut Io<'_>) -> Outcome {
        let now_ms = self.wall_clock(io);
        if let (Some(link), Some(control)) = (&mut self.link, self.control) {
            link.handle_timeout(io.net.now);
            if link.heartbeat_due(io.net.now) {
                io.send(control, codec::encode(&Control::Heartbeat { now_ms }));
            }
        }
        self.step(io)
    }

    /// Drops snapshots that are open for the peer, as an overloaded provider
    /// does.
    pub fn expire_snapshots(&mut self, io: &mut Io<'_>) {
        let pages = |providing: &Providing| matches!(providing, Providing::Pages { .. });
        for stream in self.provides.extract_if(.., |_, providing| pages(providing)).map(|(s, _)| s)
        {
            io.net.send(io.conn, io.me, stream, Wire::Reset(CloseCode::Unavailable));
        }
    }

    /// Moves everything on as far as it gets.
    fn step(&mut self, io: &mut Io<'_>) -> Outcome {
        let streams: Vec<StreamId> = self.follows.keys().copied().collect();
        for stream in streams {
            self.step_follow(io, stream);
        }
        self.provides.retain(|stream, providing| !providing.step(io, *stream));
        let Some(control) = self.control else {
            return Outcome::Lives;
        };
        while let Some(action) = self.link.as_mut().and_then(Link::poll_action) {
            match action {
                LinkAction::Send(message) => io.send(control, codec::encode(&message)),
                LinkAction::Follow(partition) => self.follow(io, partition),
                LinkAction::Release(partition) => {
                    let mut follows = self.follows.iter();
                    let found = follows.find(|(_, following)| following.partition == partition);
                    if let Some(stream) = found.map(|(stream, _)| *stream) {
                        io.net.send(io.conn, io.me, stream, Wire::Finished);
                        self.end_follow(io, stream, FollowEnd::Released);
                    }
                }
                LinkAction::PeerHolds(head) => {
                    let peer = io.net.peer(io.conn, io.me);
                    io.oracle.claimed(peer, &head.partition, head.position);
                    io.store.note_peer(peer, &head.partition, head.position);
                }
                // The simulation is about data: nobody rotates anything.
                LinkAction::Reported(_) | LinkAction::Stated(_) | LinkAction::Anchored(_) => {}
                LinkAction::Silent => {
                    io.oracle.tally.silent += 1;
                    return Outcome::Close(CloseCode::Silent);
                }
            }
        }
        Outcome::Lives
    }

    fn follow(&mut self, io: &mut Io<'_>, partition: PartitionId) {
        let own = partition.origin == self.ends.me;
        let offered = self.link().and_then(|link| link.peer_head(&partition));
        let until = offered.map(|head| head.position.seq).filter(|_| own);
        let state = io.store.partition(&partition);
        if state.is_some_and(|state| state.quarantined) {
            return self.report(io, &partition, FollowEnd::Quarantined);
        }
        let (stream, following) = Following::open(io, partition, until);
        self.follows.insert(stream, following);
        self.step_follow(io, stream);
    }

    fn step_follow(&mut self, io: &mut Io<'_>, stream: StreamId) {
        let Some(following) = self.follows.get_mut(&stream) else {
            return;
        };
        match following.step(io, stream) {
            Progress::Waiting => {}
            Progress::TakePages => {
                io.net.send(io.conn, io.me, stream, Wire::Finished);
                let pages = following.take_pages(io);
                let following = self.follows.remove(&stream).expect("it was just looked up");
                self.follows.insert(pages, following);
            }
            Progress::Ended(end, code) => {
                let last =
                    if code == CloseCode::Normal { Wire::Finished } else { Wire::Reset(code) };
                io.net.send(io.conn, io.me, stream, last);
                self.end_follow(io, stream, end);
            }
        }
    }

    fn end_follow(&mut self, io: &mut Io<'_>, stream: StreamId, end: FollowEnd) {
        if let Some(following) = self.follows.remove(&stream) {
            self.report(io, &following.partition, end);
        }
    }

    fn report(&mut self, io: &mut Io<'_>, partition: &PartitionId, end: FollowEnd) {
        let random = io.net.rng.u32();
        if let Some(link) = &mut self.link {
            link.handle_follow_end(partition, end, random, io.net.now);
        }
    }
}

fn close(error: &PeerMisbehaved) -> Outcome {
    panic!("an honest peer was taken for another: {error}");
}
