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
    asking::{Stage, other_here},
    cast::DATASETS,
    follow::{Following, Io, PATIENCE, Progress},
    look::Looks,
    net::{StreamId, Wire},
    provide::Providing,
};

/// Streams by which a peer may follow the same partition, and trees that it may read
/// at once, as in the daemon.
const FOLLOWERS_MAX: usize = 3;
const TREES_MAX: usize = 4;

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
    /// Proofs of other histories of own partitions.
    looks: Looks,
    /// When the peer has to have acknowledged or asked for something.
    owed: BTreeMap<StreamId, Duration>,
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
            looks: Looks::default(),
            owed: BTreeMap::new(),
            seen: BTreeSet::new(),
        }
    }

    /// The link, once both hellos were exchanged.
    pub fn link(&self) -> Option<&Link> {
        self.link.as_ref()
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
        for head in &hello.heads {
            note_claim(io, head);
        }
        let peer = io.peer();
        io.store.claims.word_is_here(peer, io.net.now);
        match Link::new(self.ends.clone(), TIMING, told.clone(), hello, io.net.now) {
            Err(error) => self.close(io, &error),
            Ok(mut link) => {
                for partition in io.store.quarantined() {
                    link.handle_doubt(&partition, io.net.now);
                }
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
        if self.looks.handle_arrival(io, stream, &wire) {
        } else if self.follows.contains_key(&stream) {
            self.handle_reply(io, stream, wire);
        } else if self.provides.contains_key(&stream) {
            self.handle_request(io, stream, wire);
        } else if let Wire::Bytes(bytes) = wire
            && stream.opener != io.me
            && self.seen.insert(stream)
        {
            match (Open::decode(&bytes), self.control) {
                (Ok(Open::Control(hello)), None) => return Err((stream, hello)),
                (opened, None) => {
                    let problem = opened.err().map_or_else(
                        || PeerMisbehaved::Unexpected("something else than a hello"),
                        PeerMisbehaved::from,
                    );
                    io.refuse(stream, &problem);
                    return Ok(Outcome::Close(problem.code()));
                }
                (Ok(open), Some(_)) => {
                    if let Err(problem) = self.provide(io, stream, open) {
                        self.refuse(io, stream, &problem);
                    }
                }
                (Err(problem), Some(_)) => self.refuse(io, stream, &problem.into()),
            }
        }
        Ok(self.step(io))
    }

    /// Ends a stream on which the peer broke the protocol.
    fn refuse(&mut self, io: &mut Io<'_>, stream: StreamId, problem: &PeerMisbehaved) {
        io.refuse(stream, problem);
        self.reset(io, stream, problem.code());
    }

    fn reset(&mut self, io: &mut Io<'_>, stream: StreamId, code: CloseCode) {
        io.net.send(io.conn, io.me, stream, Wire::Reset(code));
        self.provides.remove(&stream);
        self.owed.remove(&stream);
    }

    /// Ends the connection, because the peer broke the protocol on its first stream.
    fn close(&self, io: &mut Io<'_>, problem: &PeerMisbehaved) -> Outcome {
        if let Some(control) = self.control {
            io.refuse(control, problem);
        }
        Outcome::Close(problem.code())
    }

    fn handle_control(&mut self, io: &mut Io<'_>, wire: Wire) -> Outcome {
        let Wire::Bytes(bytes) = wire else {
            return Outcome::Close(CloseCode::Normal);
        };
        let handled = match (Control::decode(&bytes), &mut self.link) {
            (Err(problem), _) => Err(problem.into()),
            (Ok(Control::Hello(hello)), None) => return self.begin_link(io, hello),
            (Ok(_), None) => Err(PeerMisbehaved::Unexpected("something else than a hello")),
            (Ok(message), Some(link)) => link.handle_message(message, io.net.now),
        };
        match handled {
            Ok(()) => self.step(io),
            Err(problem) => self.close(io, &problem),
        }
    }

    fn handle_reply(&mut self, io: &mut Io<'_>, stream: StreamId, wire: Wire) {
        let Some(following) = self.follows.get_mut(&stream) else {
            return;
        };
        match wire {
            Wire::Bytes(bytes) => following.handle_message(bytes, io.net.now),
            Wire::Finished => following.handle_finished(),
            Wire::Reset(code) => match following.handle_reset(io, code) {
                Progress::Ended(end, _) => self.end_follow(io, stream, end),
                progress => self.conclude(io, stream, progress),
            },
        }
    }

    fn handle_request(&mut self, io: &mut Io<'_>, stream: StreamId, wire: Wire) {
        match wire {
            Wire::Bytes(bytes) => {
                self.owed.remove(&stream);
                let providing = self.provides.get_mut(&stream).expect("the caller looked it up");
                if let Err(problem) = providing.handle_message(&bytes, io, stream) {
                    self.refuse(io, stream, &problem);
                }
            }
            Wire::Finished | Wire::Reset(_) => {
                let ended = self.provides.remove(&stream);
                self.owed.remove(&stream);
                if ended.is_some_and(|ended| ended.is_pages()) && matches!(wire, Wire::Finished) {
                    io.net.send(io.conn, io.me, stream, Wire::Finished);
                }
            }
        }
    }

    fn provide(
        &mut self,
        io: &mut Io<'_>,
        stream: StreamId,
        open: Open,
    ) -> Result<(), PeerMisbehaved> {
        let answered = match open {
            Open::Follow { partition, have } => {
                if !self.ends.may_follow(&self.ends.peer, &partition) {
                    return Err(PeerMisbehaved::NotEntitled(partition.to_string()));
                }
                let same = self.provides.values().filter(|other| other.changes_of(&partition));
                if same.count() >= FOLLOWERS_MAX {
                    let what = "one more stream for the same partition";
                    return Err(PeerMisbehaved::Unexpected(what));
                }
                Providing::changes(io.store, partition, have)
            }
            Open::Tree { partition, have } => {
                // The hub may heal what it owns by a member's copy of it.
                if !self.ends.concerns_both(&partition) {
                    return Err(PeerMisbehaved::NotEntitled(partition.to_string()));
                }
                let trees = self.provides.values().filter(|other| other.is_pages());
                if trees.count() >= TREES_MAX {
                    return Err(PeerMisbehaved::Unexpected("one more tree stream"));
                }
                Providing::pages(io.store, &partition, have).map(|(pages, head)| {
                    io.send(stream, codec::encode(&head));
                    pages
                })
            }
            Open::Control(_) => {
                return Err(PeerMisbehaved::Unexpected("a second control stream"));
            }
            Open::Renew(_) | Open::NewKey(_) => {
                return Err(PeerMisbehaved::Unexpected("a request that only a hub serves"));
            }
        };
        match answered {
            Ok(providing) => drop(self.provides.insert(stream, providing)),
            Err(code) => self.reset(io, stream, code),
        }
        Ok(())
    }

    /// The store did what a stream asked for.
    pub fn handle_stored(&mut self, io: &mut Io<'_>, stream: StreamId) -> Outcome {
        if let Some(providing) = self.provides.get_mut(&stream) {
            providing.handle_stored(io.store);
        } else if let Some(following) = self.follows.get_mut(&stream) {
            match following.handle_stored(io) {
                Progress::Waiting => {
                    if let Some(link) = &mut self.link {
                        link.handle_follow_progress(&following.partition);
                    }
                }
                progress => self.conclude(io, stream, progress),
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
        self.end_silent(io);
        self.step(io)
    }

    /// Gives up streams whose other side owes something and does not get on with it.
    fn end_silent(&mut self, io: &mut Io<'_>) {
        let now = io.net.now;
        self.looks.end_silent(now);
        let follows = self.follows.iter();
        let silent = follows.filter(|(_, following)| following.until.is_some_and(|at| at <= now));
        for stream in silent.map(|(stream, _)| *stream).collect::<Vec<_>>() {
            if let Some(following) = self.follows.get_mut(&stream) {
                following.handle_silence(io);
            }
            io.net.note_refused(io.conn, stream, io.me);
            self.conclude(io, stream, Progress::Ended(FollowEnd::Retry, CloseCode::Silent));
        }
        let silent = self.owed.iter().filter(|(_, until)| **until <= now);
        for stream in silent.map(|(stream, _)| *stream).collect::<Vec<_>>() {
            io.net.note_refused(io.conn, stream, io.me);
            self.reset(io, stream, CloseCode::Silent);
        }
    }

    /// When [`Session::handle_timeout`] wants to be called next.
    pub fn poll_timeout(&self) -> Option<Duration> {
        let follows = self.follows.values().filter_map(|following| following.until);
        let owed = self.owed.values().copied();
        follows
            .chain(owed)
            .chain(self.looks.until())
            .chain(self.link.as_ref().map(Link::poll_timeout))
            .min()
    }

    /// Drops snapshots that are open for the peer, as an overloaded provider
    /// does.
    pub fn expire_snapshots(&mut self, io: &mut Io<'_>) {
        let pages = self.provides.iter().filter(|(_, providing)| providing.is_pages());
        for stream in pages.map(|(stream, _)| *stream).collect::<Vec<_>>() {
            self.reset(io, stream, CloseCode::Unavailable);
        }
    }

    /// Moves everything on as far as it gets.
    fn step(&mut self, io: &mut Io<'_>) -> Outcome {
        self.looks.step(io);
        let streams: Vec<StreamId> = self.follows.keys().copied().collect();
        for stream in streams {
            self.step_follow(io, stream);
        }
        self.provides.retain(|stream, providing| !providing.step(io, *stream));
        let until = io.net.now + PATIENCE;
        for (stream, providing) in &self.provides {
            if providing.is_owed() {
                self.owed.entry(*stream).or_insert(until);
            }
        }
        self.owed.retain(|stream, _| self.provides.contains_key(stream));
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
                    let peer = io.peer();
                    let is_more = note_claim(io, &head);
                    if !io.net.has_hostile(io.me, peer) {
                        io.oracle.claimed(peer, &head.partition, head.position);
                    } else if is_more || !io.store.holds(&head.partition, head.position) {
                        io.net.note_refused(io.conn, control, io.me);
                    }
                    if !is_more && other_here(io, &head.partition, head.position) {
                        self.looks.waiting.push_back(head.partition.clone());
                    }
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
        let offered = self.link().and_then(|link| link.peer_head(&partition));
        let announced = offered.map(|head| head.position);
        // A name that nobody has published takes no room here.
        let dataset = partition.dataset.as_str();
        if !partition.dataset.is_system() && !DATASETS.contains(&dataset) {
            if let Some(control) = self.control {
                io.net.note_refused(io.conn, control, io.me);
            }
            return self.report(io, &partition, FollowEnd::Retry);
        }
        let mut following = Following::new(io, partition, announced);
        let opened = following.go(io, Stage::Release);
        self.opened(io, following, opened);
    }

    fn step_follow(&mut self, io: &mut Io<'_>, stream: StreamId) {
        let Some(following) = self.follows.get_mut(&stream) else {
            return;
        };
        let progress = following.step(io, stream);
        self.conclude(io, stream, progress);
    }

    fn conclude(&mut self, io: &mut Io<'_>, stream: StreamId, progress: Progress) {
        match progress {
            Progress::Waiting => {}
            Progress::TakePages => self.go_on(io, stream, |of, io| Ok(of.take_pages(io))),
            Progress::Drop => self.go_on(io, stream, |of, io| Ok(of.ask_instead(io))),
            Progress::Proven(seq) => self.go_on(io, stream, |of, io| of.handle_proven(io, seq)),
            Progress::Go(stage) => self.go_on(io, stream, |of, io| of.go(io, stage)),
            Progress::Misbehaved(problem) => {
                self.refuse(io, stream, &problem);
                self.end_follow(io, stream, FollowEnd::Retry);
            }
            Progress::Ended(end, CloseCode::Normal) => {
                io.net.send(io.conn, io.me, stream, Wire::Finished);
                self.end_follow(io, stream, end);
            }
            Progress::Ended(end, code) => {
                io.net.note_refused(io.conn, stream, io.me);
                io.net.send(io.conn, io.me, stream, Wire::Reset(code));
                self.end_follow(io, stream, end);
            }
        }
    }

    /// Goes on with a followed partition on another stream.
    fn go_on(
        &mut self,
        io: &mut Io<'_>,
        stream: StreamId,
        open: impl FnOnce(&mut Following, &mut Io<'_>) -> Result<StreamId, Progress>,
    ) {
        io.net.send(io.conn, io.me, stream, Wire::Finished);
        let mut following = self.follows.remove(&stream).expect("the caller looked it up");
        let opened = open(&mut following, io);
        self.opened(io, following, opened);
    }

    /// A followed partition has its next stream, or it is over without one.
    fn opened(
        &mut self,
        io: &mut Io<'_>,
        following: Following,
        opened: Result<StreamId, Progress>,
    ) {
        match opened {
            Ok(stream) => {
                self.follows.insert(stream, following);
                self.step_follow(io, stream);
            }
            Err(Progress::Ended(end, _)) => self.report(io, &following.partition, end),
            Err(progress) => panic!("{progress:?} comes of a message, and none has come"),
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

/// Whether the peer says that it holds more of an own partition than this node, which
/// asks for a proof; or what was given up here, which is neither a claim nor a fork.
fn note_claim(io: &mut Io<'_>, head: &Announced) -> bool {
    if head.partition.origin != io.store.name {
        return false;
    }
    if io.store.has_given_up(&head.partition, head.position) {
        let peer = io.peer();
        io.store.claims.clear(&head.partition, peer);
        return true;
    }
    let (ours, peer) = (io.store.position(&head.partition).map_or(0, |ours| ours.seq), io.peer());
    let is_more = head.position.seq > ours;
    let dataset = head.partition.dataset.as_str();
    if is_more && (head.partition.dataset.is_system() || DATASETS.contains(&dataset)) {
        io.store.claims.note(&head.partition, peer, ours, io.net.now);
    } else if !is_more {
        io.store.claims.clear(&head.partition, peer);
    }
    is_more
}
