//! The streams of a node that wants something: following a partition, and
//! taking pages. The same steps as the daemon's driver, with the model as store.

use std::{collections::VecDeque, time::Duration};

use protocol::{
    change::{Position, VerifiedChangeSet},
    codec,
    id::PartitionId,
    message::{CloseCode, FollowReply, Open, TreeReply, TreeRequest, decode_header},
    page::PageRef,
    session::{
        PeerMisbehaved,
        fetch::{ArrivedLeaf, FetchAction, FetchedLeaf, Piece, ShownHead, TreeFetch},
        follower::{Follower, FollowerAction},
        link::FollowEnd,
    },
};

use super::{
    net::{ConnId, Event, Net, StreamId, Wire},
    oracle::Oracle,
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
/// And whoever owes a proof.
const PROOF_PATIENCE: Duration = Duration::from_secs(10);
/// References to pages that a fetch of all leaves may hold: a tree of all levels takes
/// some thousand, however large it is said to be.
const REFERENCES_MAX: usize = 8_000;
/// And one that compares: 16 MiB of them, without keys.
const COMPARED_MAX: usize = 16 * 1024 * 1024 / size_of::<PageRef>();

/// Where a stream stands after a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// It waits for a message, the store or the clock.
    Waiting,
    /// Changes are not kept: take pages on another stream.
    TakePages,
    /// The peer's claim is proven: follow the partition on another stream.
    Follow,
    /// It is over; the peer is told the code.
    Ended(FollowEnd, CloseCode),
    /// The peer broke the protocol.
    Misbehaved(PeerMisbehaved),
}

/// Taking pages, apart from where requests go and replies come from.
#[derive(Debug)]
pub struct PageTaking {
    fetch: TreeFetch,
    head: Option<Box<ShownHead>>,
    leaves: Vec<PageRef>,
    compares: bool,
    /// Leaves that were not asked for.
    pub held: u64,
}

/// What taking pages wants next.
#[derive(Debug)]
pub enum PageStep {
    /// A message is awaited.
    Waiting,
    /// Send this.
    Send(TreeRequest),
    /// It is over.
    Finished(Result<(), CommitError>),
    /// The provider's pages are no tree.
    Misbehaved(PeerMisbehaved),
}

impl PageTaking {
    /// Pages for what `store` lacks of `partition`.
    pub fn new(store: &Store, partition: &PartitionId) -> Self {
        let fetch = match store.position(partition) {
            Some(have) => {
                let salt = std::array::from_fn(|index| have.hash.as_bytes()[index]);
                TreeFetch::comparing(partition.clone(), have, salt)
            }
            None => TreeFetch::new(partition.clone(), None),
        };
        Self { fetch, head: None, leaves: Vec::new(), compares: false, held: 0 }
    }

    /// The provider said something.
    pub fn handle_message(&mut self, bytes: &[u8], store: &Store) -> Result<(), PeerMisbehaved> {
        self.fetch.handle_message(TreeReply::decode(bytes)?, &*store.registry)?;
        self.fetch.check_arrived();
        self.count();
        Ok(())
    }

    fn count(&self) {
        let held = self.fetch.references();
        let limit = if self.compares { COMPARED_MAX } else { REFERENCES_MAX };
        assert!(held <= limit, "a fetch holds {held} references to pages");
    }

    /// Goes on until something is to be sent or awaited.
    pub fn step(&mut self, store: &mut Store) -> PageStep {
        while let Some(action) = self.fetch.poll_action() {
            let partition = self.head.as_ref().map(|head| head.signed.header().partition.clone());
            match (action, partition) {
                (FetchAction::Send(request), _) => return PageStep::Send(request),
                (FetchAction::Compare(head), _) => {
                    self.compares = true;
                    self.head = Some(head);
                }
                (FetchAction::Begin(head), _) => {
                    self.compares = false;
                    self.head = Some(head);
                    self.leaves.clear();
                }
                (FetchAction::Look { level, pages, .. }, Some(partition)) => {
                    let own = pages.iter().map(|page| store.own(&partition, level, page));
                    if let Err(problem) = self.fetch.handle_own(own.collect()) {
                        return PageStep::Misbehaved(problem);
                    }
                }
                (FetchAction::Piece(Piece::Held { level, page }), Some(partition)) => {
                    let leaves = store.leaves_below(&partition, level, &page.first_key);
                    self.held += leaves.len() as u64;
                    self.leaves.extend(leaves);
                }
                (FetchAction::Piece(Piece::Leaf(leaf)), Some(partition)) => {
                    let described = leaf.describe_with_index(store.suite());
                    let body = leaf.encode();
                    self.leaves.push(described.0.clone());
                    store.stage(&partition, &FetchedLeaf::Arrived { described, leaf, body });
                }
                (FetchAction::Resolve(pages), Some(partition)) => {
                    let held = store.held(&partition, &pages);
                    if let Err(problem) = self.fetch.handle_resolved(&held) {
                        return PageStep::Misbehaved(problem);
                    }
                }
                (FetchAction::Check(leaves), Some(_)) => {
                    let checked = leaves.into_iter().map(ArrivedLeaf::check).collect();
                    if let Err(problem) = self.fetch.handle_checked(checked) {
                        return PageStep::Misbehaved(problem);
                    }
                }
                (FetchAction::Stage(leaf), Some(partition)) => {
                    store.stage(&partition, &leaf);
                    self.leaves.push(match leaf {
                        FetchedLeaf::Held(page) => {
                            self.held += 1;
                            page
                        }
                        FetchedLeaf::Arrived { described: (page, ..), .. } => page,
                    });
                }
                (FetchAction::Finish | FetchAction::Apply, _) => {
                    let head = self.head.as_ref().expect("a tree begins before it is finished");
                    return PageStep::Finished(store.finish_pages(head, &self.leaves).map(drop));
                }
                (action, None) => panic!("{action:?} came before the tree began"),
            }
            self.count();
        }
        PageStep::Waiting
    }
}

#[derive(Debug)]
enum Phase {
    /// The peer says that it holds more of this node's own history.
    Proof,
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
    phase: Phase,
}

impl Following {
    /// Opens a follow stream; of an own partition one that asks for a proof first.
    pub fn open(
        io: &mut Io<'_>,
        partition: PartitionId,
        own_until: Option<u64>,
    ) -> (StreamId, Self) {
        let mut following = Self {
            partition,
            own_until,
            have: None,
            inbox: VecDeque::new(),
            finished: false,
            until: None,
            phase: Phase::Proof,
        };
        let stream = match own_until {
            Some(_) => following.ask_for_proof(io),
            None => following.follow(io),
        };
        (stream, following)
    }

    fn ask_for_proof(&mut self, io: &mut Io<'_>) -> StreamId {
        let stream = io.net.stream(io.me);
        let open = Open::Tree { partition: self.partition.clone(), have: None };
        io.send(stream, codec::encode(&open));
        self.until = Some(io.net.now + PROOF_PATIENCE);
        stream
    }

    /// Opens a follow stream in place of one that has proven a claim.
    pub fn follow(&mut self, io: &mut Io<'_>) -> StreamId {
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
        (self.until, self.phase) = (until, phase);
    }

    /// The provider said something.
    pub fn handle_message(&mut self, bytes: Vec<u8>, now: Duration) {
        self.until = self.until.map(|_| now + PATIENCE);
        self.inbox.push_back(bytes);
    }

    /// The provider finished the stream.
    pub fn handle_finished(&mut self) {
        self.finished = true;
    }

    /// The provider has said nothing for too long.
    pub fn handle_silence(&mut self, io: &mut Io<'_>) {
        if let Phase::Proof = self.phase {
            io.store.claims.unproven(&self.partition);
        }
    }

    /// The store committed, or did not.
    pub fn handle_stored(&mut self, io: &mut Io<'_>) -> Progress {
        let Phase::Changes { follower, committing } = &mut self.phase else {
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
            Err(CommitError::OtherPast) => self.other_history(io, set.header().position()),
            Err(error) => {
                io.oracle.tally.retried += 1;
                Progress::Ended(FollowEnd::Retry, error.code())
            }
        }
    }

    /// A head that its origin signed does not continue this replica's.
    fn other_history(&self, io: &mut Io<'_>, head: Position) -> Progress {
        io.oracle.other_history(io.me, io.store, &self.partition, head);
        self.quarantine(io)
    }

    /// Whether the peer ended the stream because it cannot prove that its history has what
    /// is here of this node's own.
    pub fn is_in_doubt(&self, io: &Io<'_>, code: CloseCode) -> bool {
        matches!(self.phase, Phase::Pages(_))
            && self.own_until.is_some()
            && io.store.position(&self.partition).is_some()
            && code == CloseCode::Unproved
            && !io.net.has_hostile(io.me, io.peer())
    }

    fn quarantine(&self, io: &mut Io<'_>) -> Progress {
        io.store.quarantine(&self.partition);
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
            match self.read(&bytes, io) {
                Ok(Progress::Waiting) => {}
                Ok(progress) => return progress,
                // A fork that shows itself when pages are taken.
                Err(PeerMisbehaved::OtherHistory(head)) => {
                    return self.other_history(io, head.position());
                }
                Err(problem) => {
                    if let Phase::Proof = self.phase {
                        io.store.claims.unproven(&self.partition);
                    }
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
        matches!(&self.phase, Phase::Changes { committing: Some(_), .. })
    }

    fn read(&mut self, bytes: &[u8], io: &mut Io<'_>) -> Result<Progress, PeerMisbehaved> {
        match &mut self.phase {
            Phase::Proof => return self.judge_proof(bytes, io),
            Phase::Changes { follower, .. } => {
                let reply: FollowReply = codec::decode(bytes)?;
                follower.handle_message(reply, &*io.store.registry)?;
            }
            Phase::Pages(pages) => pages.handle_message(bytes, io.store)?,
        }
        Ok(Progress::Waiting)
    }

    /// The head of this node's own partition that the peer shows. Whether its history
    /// holds what is here is seen when it is followed.
    fn judge_proof(&mut self, bytes: &[u8], io: &mut Io<'_>) -> Result<Progress, PeerMisbehaved> {
        let TreeReply::Head { header, .. } = TreeReply::decode(bytes)? else {
            return Err(PeerMisbehaved::Unexpected("something else than a head"));
        };
        let header = decode_header(&header)?;
        if header.header().partition != self.partition {
            return Err(PeerMisbehaved::NotEntitled(header.header().partition.to_string()));
        }
        header.verify(&*io.store.registry)?;
        let theirs = header.header().seq;
        let ours = io.store.position(&self.partition).map_or(0, |ours| ours.seq);
        if theirs <= ours {
            io.store.claims.unproven(&self.partition);
            return Ok(Progress::Ended(FollowEnd::Retry, CloseCode::Normal));
        }
        io.oracle.proven(io.me, &header);
        io.store.claims.proven(&self.partition, theirs);
        self.own_until = Some(theirs);
        Ok(Progress::Follow)
    }

    /// Does what the machine wants, until it waits for a message or the store.
    fn act(&mut self, io: &mut Io<'_>, stream: StreamId) -> Progress {
        match &mut self.phase {
            Phase::Proof => {}
            Phase::Changes { follower, committing } => {
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
                            return self.quarantine(io);
                        }
                    }
                }
            }
            Phase::Pages(pages) => loop {
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
        let have = io.store.position(&self.partition).map_or(0, |position| position.seq);
        if self.own_until.is_some_and(|until| have >= until) && !self.is_busy() {
            io.oracle.tally.taken_back += 1;
            return Progress::Ended(FollowEnd::Done, CloseCode::Normal);
        }
        Progress::Waiting
    }

    fn told_to_take_pages(&mut self, io: &mut Io<'_>) -> Progress {
        // Another connection moved the replica meanwhile: there may be nothing left
        // to take.
        if self.have != io.store.position(&self.partition) {
            return Progress::Ended(FollowEnd::Retry, CloseCode::Normal);
        }
        Progress::TakePages
    }
}
