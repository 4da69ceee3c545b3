//! The streams of a node that wants something: following a partition, and
//! taking pages. The same steps as the daemon's driver, with the model as store.

use protocol::{
    change::{Position, VerifiedChangeSet},
    codec,
    id::PartitionId,
    message::{CloseCode, FollowReply, TreeReply, TreeRequest},
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

    /// Asks the store for something; it answers a little later.
    pub fn ask_store(&mut self, stream: StreamId) {
        let at = self.net.now + self.net.rng.millis(0, 30);
        self.net.schedule(at, self.me, self.boot, Event::Stored(self.conn, stream));
    }

    fn note_moved(&mut self, partition: &PartitionId) {
        let state = self.store.partition(partition).expect("a partition that moved exists");
        self.oracle.moved(self.me, state);
        self.moved.push(partition.clone());
    }
}

/// Where a stream stands after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// It waits for a message, the store or the clock.
    Waiting,
    /// Changes are not kept: take pages on another stream.
    TakePages,
    /// It is over; the peer is told the code.
    Ended(FollowEnd, CloseCode),
}

/// Taking pages, apart from where requests go and replies come from.
#[derive(Debug)]
pub struct PageTaking {
    fetch: TreeFetch,
    head: Option<Box<ShownHead>>,
    leaves: Vec<PageRef>,
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
        Self { fetch, head: None, leaves: Vec::new(), held: 0 }
    }

    /// The provider said something.
    pub fn handle_message(&mut self, bytes: &[u8], store: &Store) -> Result<(), PeerMisbehaved> {
        let reply: TreeReply = codec::decode(bytes)?;
        self.fetch.handle_message(reply, &*store.registry)?;
        self.fetch.check_arrived();
        Ok(())
    }

    /// Goes on until something is to be sent or awaited.
    pub fn step(&mut self, store: &mut Store) -> PageStep {
        while let Some(action) = self.fetch.poll_action() {
            let partition = self.head.as_ref().map(|head| head.signed.header().partition.clone());
            match (action, partition) {
                (FetchAction::Send(request), _) => return PageStep::Send(request),
                (FetchAction::Begin(head) | FetchAction::Compare(head), _) => {
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
        }
        PageStep::Waiting
    }
}

#[derive(Debug)]
enum Phase {
    Changes { follower: Follower, committing: Option<Box<VerifiedChangeSet>> },
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
    /// The provider says no more; what it said may still wait for the store.
    finished: bool,
    phase: Phase,
}

impl Following {
    /// Opens a follow stream.
    pub fn open(
        io: &mut Io<'_>,
        partition: PartitionId,
        own_until: Option<u64>,
    ) -> (StreamId, Self) {
        let have = io.store.position(&partition);
        let follower = Follower::new(partition.clone(), have);
        let stream = io.net.stream(io.me);
        io.send(stream, codec::encode(&follower.open()));
        let phase = Phase::Changes { follower, committing: None };
        (stream, Self { partition, own_until, have, finished: false, phase })
    }

    /// Opens a tree stream in place of the follow stream.
    pub fn take_pages(&mut self, io: &mut Io<'_>) -> StreamId {
        let pages = PageTaking::new(io.store, &self.partition);
        let stream = io.net.stream(io.me);
        io.send(stream, codec::encode(&pages.fetch.open()));
        self.finished = false;
        self.phase = Phase::Pages(Box::new(pages));
        stream
    }

    /// The provider said something.
    pub fn handle_message(&mut self, bytes: &[u8], store: &Store) -> Result<(), PeerMisbehaved> {
        match &mut self.phase {
            Phase::Changes { follower, .. } => {
                let reply: FollowReply = codec::decode(bytes)?;
                follower.handle_message(reply, &*store.registry)
            }
            Phase::Pages(pages) => pages.handle_message(bytes, store),
        }
    }

    /// The provider's head, which its origin signed, does not continue this
    /// replica's.
    pub fn other_history(&mut self, io: &mut Io<'_>, head: Position) -> CloseCode {
        io.oracle.other_history(&self.partition, head);
        io.store.quarantine(&self.partition);
        CloseCode::Fork
    }

    /// The provider finished the stream.
    pub fn handle_finished(&mut self) {
        self.finished = true;
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
            Err(error) => {
                io.oracle.tally.retried += 1;
                Progress::Ended(FollowEnd::Retry, error.code())
            }
        }
    }

    /// Goes on as far as it gets.
    pub fn step(&mut self, io: &mut Io<'_>, stream: StreamId) -> Progress {
        match &mut self.phase {
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
                        // Another connection moved the replica meanwhile: there
                        // may be nothing left to take.
                        Some(FollowerAction::TakePages)
                            if self.have != io.store.position(&self.partition) =>
                        {
                            return Progress::Ended(FollowEnd::Retry, CloseCode::Normal);
                        }
                        // Pages do not show what came before them. A restored
                        // origin has written nothing since, so they contain what
                        // it has; any other may have forked its own history.
                        Some(FollowerAction::TakePages)
                            if self.own_until.is_some()
                                && self.have.is_some()
                                && !io.store.restored =>
                        {
                            io.oracle.doubted(&self.partition);
                            io.store.quarantine(&self.partition);
                            return Progress::Ended(FollowEnd::Quarantined, CloseCode::Fork);
                        }
                        Some(FollowerAction::TakePages) => return Progress::TakePages,
                        Some(FollowerAction::Fork(theirs)) => {
                            io.oracle.forked(io.store.position(&self.partition), &theirs);
                            io.store.quarantine(&self.partition);
                            return Progress::Ended(FollowEnd::Quarantined, CloseCode::Fork);
                        }
                    }
                }
            }
            Phase::Pages(pages) => loop {
                match pages.step(io.store) {
                    PageStep::Waiting => break,
                    PageStep::Send(request) => io.send(stream, codec::encode(&request)),
                    PageStep::Misbehaved(problem) => {
                        return Progress::Ended(FollowEnd::Retry, problem.code());
                    }
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
        let busy = matches!(&self.phase, Phase::Changes { committing: Some(_), .. });
        if self.own_until.is_some_and(|until| have >= until) && !busy {
            io.oracle.tally.taken_back += 1;
            return Progress::Ended(FollowEnd::Done, CloseCode::Normal);
        }
        if self.finished && !busy {
            return Progress::Ended(FollowEnd::Retry, CloseCode::Normal);
        }
        Progress::Waiting
    }
}
