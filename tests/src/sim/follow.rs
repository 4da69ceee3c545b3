//! The streams of a node that wants something: following a partition, and
//! taking pages. The same steps as the daemon's driver, with the model as store.

use std::{collections::VecDeque, time::Duration};

use protocol::{
    change::{Position, VerifiedChangeSet},
    codec,
    id::PartitionId,
    message::{CloseCode, FollowReply},
    session::{
        PeerMisbehaved,
        follower::{Follower, FollowerAction},
        link::FollowEnd,
    },
};

use super::{
    asking::{Asking, Stage, other_here},
    net::{ConnId, Event, Net, StreamId, Wire},
    oracle::Oracle,
    pages::{PageStep, PageTaking},
    store::{CommitError, Store},
};

/// What a stream may touch while it makes a step.
pub struct Io<'a> {
    /// The node.
    pub me: usize,
    /// The node's life, so that nothing reaches the next one.
    pub boot: u64,
    /// The connection.
    pub conn: ConnId,
    /// The durable state.
    pub store: &'a mut Store,
    /// Partitions that moved and were not announced yet.
    pub moved: &'a mut Vec<PartitionId>,
    /// Network, clock, randomness.
    pub net: &'a mut Net,
    /// The observer.
    pub oracle: &'a mut Oracle,
}

impl Io<'_> {
    /// Sends one encoded message on a stream.
    pub fn send(&mut self, stream: StreamId, message: Vec<u8>) {
        self.net.send(self.conn, self.me, stream, Wire::Bytes(message));
    }

    /// The other end of the connection.
    pub fn peer(&self) -> usize {
        self.net.peer(self.conn, self.me)
    }

    /// The peer broke the protocol on a stream. Between honest nodes that cannot be.
    pub fn refuse(&mut self, stream: StreamId, problem: &PeerMisbehaved) {
        let peer = self.peer();
        assert!(
            self.net.has_hostile(self.me, peer),
            "node {peer} is honest, but node {} says: {problem}",
            self.me
        );
        self.net.note_refused(self.conn, stream, self.me);
    }

    /// Asks the store for something; it answers a little later.
    pub fn ask_store(&mut self, stream: StreamId) {
        let at = self.net.now + self.net.rng.millis(0, 30);
        self.net.schedule(at, self.me, self.boot, Event::Stored(self.conn, stream));
    }

    fn note_moved(&mut self, partition: &PartitionId) {
        self.oracle.moved(self.me, self.store, partition);
        self.moved.push(partition.clone());
    }
}

/// Whoever owes a page or an acknowledgement gets on with it within this.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// And whoever owes an answer before anything is followed.
pub const PROOF_PATIENCE: Duration = Duration::from_secs(10);

/// Where a stream stands after a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// It waits for a message, the store or the clock.
    Waiting,
    /// Changes are not kept: take pages on another stream.
    TakePages,
    /// The peer holds all that is here of this node's own, so what is here goes.
    Drop,
    /// The peer's claim is proven up to this number.
    Proven(u64),
    /// Go on with this on another stream.
    Go(Stage),
    /// It is over; the peer is told the code.
    Ended(FollowEnd, CloseCode),
    /// The peer broke the protocol.
    Misbehaved(PeerMisbehaved),
}

#[derive(Debug)]
enum Phase {
    /// Something has to be known before it is followed.
    Asks(Box<Asking>),
    Changes {
        follower: Follower,
        committing: Option<Box<VerifiedChangeSet>>,
    },
    Pages(Box<PageTaking>),
}

/// One followed partition on one connection.
#[derive(Debug)]
pub struct Following {
    /// What is followed.
    pub partition: PartitionId,
    /// What the peer had announced.
    announced: Option<Position>,
    /// The number up to which this node takes its own history back.
    own_until: Option<u64>,
    /// Where this stream has brought the replica.
    have: Option<Position>,
    /// What the provider said and nobody has read, while the store commits.
    inbox: VecDeque<Vec<u8>>,
    /// The provider says no more; what it said may still wait for the store.
    finished: bool,
    /// When the provider has to have said something.
    pub until: Option<Duration>,
    phase: Option<Phase>,
}

impl Following {
    /// A partition that is about to be followed, of which the peer has announced this.
    pub fn new(io: &Io<'_>, partition: PartitionId, announced: Option<Position>) -> Self {
        let own = partition.origin == io.store.name;
        Self {
            partition,
            announced,
            own_until: announced.map(|at| at.seq).filter(|_| own),
            have: None,
            inbox: VecDeque::new(),
            finished: false,
            until: None,
            phase: None,
        }
    }

    /// Opens a stream for what comes at `stage` or behind it; or it is over already.
    pub fn go(&mut self, io: &mut Io<'_>, stage: Stage) -> Result<StreamId, Progress> {
        let partition = &self.partition;
        let have = io.store.position(partition);
        let is_own = partition.origin == io.store.name;
        if stage <= Stage::Release && io.store.partition(partition).is_some_and(|it| it.quarantined)
        {
            match have {
                Some(_) => return Ok(self.ask(io, Stage::Release, have)),
                None => io.store.release(partition),
            }
        }
        if is_own && self.own_history_is_back(io) {
            return Err(Progress::Ended(FollowEnd::Done, CloseCode::Normal));
        }
        if stage <= Stage::Own && is_own {
            if self.announced.is_some_and(|at| io.store.has_given_up(partition, at)) {
                return Err(Progress::Ended(FollowEnd::Refused, CloseCode::Fork));
            }
            // Where nothing is here, nothing could be written over, and which keys count
            // comes with it.
            if !(partition.dataset.is_system() && have.is_none()) {
                return Ok(self.ask(io, Stage::Own, None));
            }
        }
        if stage <= Stage::Lost
            && let Some(lost) = io.store.lost(partition)
        {
            return Ok(self.ask(io, Stage::Lost, Some(lost)));
        }
        // One that is behind sends nothing.
        if stage <= Stage::Other
            && let Some(theirs) = self.announced
            && have.is_some_and(|have| theirs.seq < have.seq)
            && other_here(io, partition, theirs)
        {
            return Ok(self.ask(io, Stage::Other, None));
        }
        Ok(self.follow(io))
    }

    fn ask(&mut self, io: &mut Io<'_>, stage: Stage, have: Option<Position>) -> StreamId {
        let asking = Asking::new(io, stage, &self.partition, have);
        let stream = io.net.stream(io.me);
        io.send(stream, asking.open());
        self.begin(Some(io.net.now + PROOF_PATIENCE), Phase::Asks(Box::new(asking)));
        stream
    }

    /// Asks what the peer holds in place of what is here.
    pub fn ask_instead(&mut self, io: &mut Io<'_>) -> StreamId {
        self.ask(io, Stage::Instead, None)
    }

    /// The peer has proven that it holds this node's own history up to `seq`.
    pub fn handle_proven(&mut self, io: &mut Io<'_>, seq: u64) -> Result<StreamId, Progress> {
        self.own_until = Some(seq);
        self.go(io, Stage::Lost)
    }

    fn follow(&mut self, io: &mut Io<'_>) -> StreamId {
        self.have = io.store.position(&self.partition);
        let follower = Follower::new(self.partition.clone(), self.have);
        let stream = io.net.stream(io.me);
        io.send(stream, codec::encode(&follower.open()));
        self.begin(None, Phase::Changes { follower, committing: None });
        stream
    }

    /// Opens a tree stream in place of the follow stream.
    pub fn take_pages(&mut self, io: &mut Io<'_>) -> StreamId {
        let pages = PageTaking::new(io.store, &self.partition);
        let stream = io.net.stream(io.me);
        io.send(stream, codec::encode(&pages.fetch.open()));
        self.begin(Some(io.net.now + PATIENCE), Phase::Pages(Box::new(pages)));
        stream
    }

    fn begin(&mut self, until: Option<Duration>, phase: Phase) {
        self.inbox.clear();
        self.finished = false;
        (self.until, self.phase) = (until, Some(phase));
    }

    fn own_history_is_back(&self, io: &Io<'_>) -> bool {
        let have = io.store.position(&self.partition).map_or(0, |position| position.seq);
        self.own_until.is_some_and(|until| have >= until)
    }

    /// The provider said something.
    pub fn handle_message(&mut self, bytes: Vec<u8>, now: Duration) {
        // Who asks waits for one message, and for the end.
        if !matches!(self.phase, Some(Phase::Asks(_))) {
            self.until = self.until.map(|_| now + PATIENCE);
        }
        self.inbox.push_back(bytes);
    }

    /// The provider finished the stream.
    pub fn handle_finished(&mut self) {
        self.finished = true;
    }

    /// The provider has said nothing for too long.
    pub fn handle_silence(&mut self, io: &mut Io<'_>) {
        if let Some(Phase::Asks(asking)) = &self.phase {
            asking.handle_no_answer(io);
        }
    }

    /// The provider gave the stream up.
    pub fn handle_reset(&mut self, io: &mut Io<'_>, code: CloseCode) -> Progress {
        match &mut self.phase {
            Some(Phase::Asks(asking)) => match asking.outcome.take() {
                Some(outcome) => outcome,
                None => asking.handle_reset(code),
            },
            // It cannot prove that its history has what is here: it has jumped over that.
            Some(Phase::Pages(_))
                if io.store.position(&self.partition).is_some() && code == CloseCode::Unproved =>
            {
                io.oracle.tally.doubted += u64::from(self.own_until.is_some());
                Progress::Ended(FollowEnd::Refused, CloseCode::Fork)
            }
            _ => Progress::Ended(FollowEnd::Retry, CloseCode::Normal),
        }
    }

    /// The store committed, or did not.
    pub fn handle_stored(&mut self, io: &mut Io<'_>) -> Progress {
        let Some(Phase::Changes { follower, committing }) = &mut self.phase else {
            return Progress::Waiting;
        };
        let Some(set) = committing.take() else {
            return Progress::Waiting;
        };
        match io.store.commit(&set) {
            Ok(position) => {
                self.have = Some(position);
                follower.handle_committed(position, set.header().header().root);
                io.oracle.tally.committed += 1;
                io.note_moved(&self.partition);
                Progress::Waiting
            }
            // The origin has signed both.
            Err(CommitError::OtherPast) => {
                let head = set.header().position();
                io.oracle.other_history(io.me, io.store, &self.partition, head);
                // The store does not keep what it refused.
                self.quarantine(io, None)
            }
            Err(error) => {
                io.oracle.tally.retried += 1;
                Progress::Ended(FollowEnd::Retry, error.code())
            }
        }
    }

    fn quarantine(&self, io: &mut Io<'_>, theirs: Option<Position>) -> Progress {
        io.store.quarantine(&self.partition, theirs);
        Progress::Ended(FollowEnd::Quarantined, CloseCode::Fork)
    }

    /// Goes on as far as it gets.
    pub fn step(&mut self, io: &mut Io<'_>, stream: StreamId) -> Progress {
        loop {
            let progress = self.act(io, stream);
            if progress != Progress::Waiting {
                return progress;
            }
            if self.is_busy() {
                return Progress::Waiting;
            }
            let Some(bytes) = self.inbox.pop_front() else { break };
            match self.read(&bytes, io, stream) {
                Ok(()) => {}
                // A fork that shows itself when pages are taken.
                Err(PeerMisbehaved::OtherHistory(head)) => {
                    let head = head.position();
                    io.oracle.other_history(io.me, io.store, &self.partition, head);
                    return self.quarantine(io, Some(head));
                }
                Err(problem) => {
                    self.handle_silence(io);
                    return Progress::Misbehaved(problem);
                }
            }
        }
        if self.finished {
            return Progress::Ended(FollowEnd::Retry, CloseCode::Normal);
        }
        Progress::Waiting
    }

    fn is_busy(&self) -> bool {
        matches!(&self.phase, Some(Phase::Changes { committing: Some(_), .. }))
    }

    fn read(
        &mut self,
        bytes: &[u8],
        io: &mut Io<'_>,
        stream: StreamId,
    ) -> Result<(), PeerMisbehaved> {
        match &mut self.phase {
            // The first message is the answer.
            Some(Phase::Asks(asking)) if asking.outcome.is_none() => {
                asking.judge(bytes, io)?;
                io.net.send(io.conn, io.me, stream, Wire::Finished);
            }
            Some(Phase::Asks(_)) | None => {}
            Some(Phase::Changes { follower, .. }) => {
                let reply: FollowReply = codec::decode(bytes)?;
                follower.handle_message(reply, &*io.store.registry)?;
            }
            Some(Phase::Pages(pages)) => pages.handle_message(bytes, io.store)?,
        }
        Ok(())
    }

    /// Does what the machine wants, until it waits for a message or the store.
    fn act(&mut self, io: &mut Io<'_>, stream: StreamId) -> Progress {
        match &mut self.phase {
            None => {}
            Some(Phase::Asks(asking)) => {
                let outcome = asking.outcome.take_if(|_| self.finished);
                return outcome.unwrap_or(Progress::Waiting);
            }
            Some(Phase::Changes { follower, committing }) => {
                while committing.is_none() {
                    match follower.poll_action() {
                        None => break,
                        Some(FollowerAction::Send(request)) => {
                            io.send(stream, codec::encode(&request))
                        }
                        Some(FollowerAction::Commit(set)) => {
                            *committing = Some(set);
                            io.ask_store(stream);
                        }
                        Some(FollowerAction::TakePages) => return self.told_to_take_pages(io),
                        Some(FollowerAction::Fork(theirs)) => {
                            io.oracle.forked(io.me, io.store, &theirs);
                            return self.quarantine(io, Some(theirs.position()));
                        }
                    }
                }
            }
            Some(Phase::Pages(pages)) => loop {
                match pages.step(io.store) {
                    PageStep::Waiting => break,
                    PageStep::Send(request) => io.send(stream, codec::encode(&request)),
                    PageStep::Misbehaved(problem) => return Progress::Misbehaved(problem),
                    PageStep::Finished(Err(error)) => {
                        io.oracle.tally.retried += 1;
                        return Progress::Ended(FollowEnd::Retry, error.code());
                    }
                    PageStep::Finished(Ok(())) => {
                        io.oracle.tally.bootstraps += 1;
                        io.oracle.tally.leaves_held += pages.held;
                        io.note_moved(&self.partition);
                        return Progress::Ended(FollowEnd::Again, CloseCode::Normal);
                    }
                }
            },
        }
        if self.own_history_is_back(io) && !self.is_busy() {
            io.oracle.tally.taken_back += 1;
            return Progress::Ended(FollowEnd::Done, CloseCode::Normal);
        }
        Progress::Waiting
    }

    fn told_to_take_pages(&mut self, io: &mut Io<'_>) -> Progress {
        // Another connection moved the replica meanwhile: there may be nothing left
        // to take.
        let have = io.store.position(&self.partition);
        if self.have != have {
            return Progress::Ended(FollowEnd::Again, CloseCode::Normal);
        }
        // What is here was acknowledged by the peer, which may have jumped over it since.
        let acked = io.store.known(io.peer(), &self.partition);
        let is_there = have.zip(acked).is_some_and(|(have, acked)| have.seq <= acked.seq);
        match self.own_until.is_some() && !self.partition.dataset.is_system() && is_there {
            true => Progress::Drop,
            false => Progress::TakePages,
        }
    }
}
