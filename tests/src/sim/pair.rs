//! An origin and a replica without network or clock, for scenarios that go one
//! message at a time. The origin is a member, the replica the hub.

use std::{collections::VecDeque, rc::Rc};

use protocol::{
    change::{Change, ChangeSet},
    codec,
    id::PartitionId,
    message::{TreeReply, TreeRequest},
    page::MadePage,
    session::PeerMisbehaved,
    suite::Suite,
};

use super::{
    cast::{Cast, DATASETS, HUB, all_records, random_changes},
    pages::{PageStep, PageTaking},
    provide::{serve, tree_head},
    rng::Rng,
    store::{Partition, Store},
};

/// The origin's index.
pub const ORIGIN: usize = 1;

/// Two stores and the partition that one has from the other.
#[derive(Debug, Clone)]
pub struct Pair {
    /// Names and keys.
    pub cast: Rc<Cast>,
    /// The partition, whose origin is the member [`ORIGIN`].
    pub partition: PartitionId,
    /// The origin's state.
    pub origin: Store,
    /// The replica's state.
    pub replica: Store,
    rng: Rng,
}

/// What a fetch cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fetched {
    /// Messages that reached the replica.
    pub messages: usize,
    /// Leaves that were asked for.
    pub leaves_asked: usize,
    /// Leaves that arrived.
    pub leaves_arrived: usize,
    /// Most leaves that were on their way at once.
    pub leaves_ahead: usize,
    /// Whether the replica took the tree over.
    pub finished: bool,
}

impl Pair {
    /// A pair that agrees on `_federation` and has nothing else.
    pub fn new() -> Self {
        let cast = Rc::new(Cast::new(2, Suite::One));
        let mut replica = Store::new(&cast, HUB);
        for node in 0..cast.nodes.len() {
            let entries = cast.member_entries(node);
            write(&mut replica, &cast, HUB, &cast.system(), &entries);
        }
        let origin = replica.only(&cast, ORIGIN, &cast.system());
        let partition = cast.partition(ORIGIN, DATASETS[0]);
        Self { cast, partition, origin, replica, rng: Rng::new(1) }
    }

    /// The origin's state of the partition.
    pub fn state(&self) -> &Partition {
        self.origin.partition(&self.partition).expect("the origin wrote before")
    }

    /// Writes so many change sets of up to `size` records each; the first of all, if
    /// they are many, has all records.
    pub fn write(&mut self, count: usize, size: usize) {
        let is_new = self.origin.partition(&self.partition).is_none();
        let wide = usize::from(is_new && size >= 40);
        if wide == 1 {
            self.write_changes(&all_records());
        }
        for _ in wide..count {
            let changes = random_changes(&mut self.rng, size);
            self.write_changes(&changes);
        }
    }

    /// Writes one change set.
    pub fn write_changes(&mut self, changes: &[Change]) {
        write(&mut self.origin, &self.cast, ORIGIN, &self.partition, changes);
    }

    /// All change sets of the origin.
    pub fn sets(&self) -> Vec<ChangeSet> {
        self.state().read(1, usize::MAX, usize::MAX).expect("the origin keeps its log")
    }

    /// The replica commits the origin's change sets up to `seq`.
    pub fn replicate(&mut self, seq: usize) {
        for set in self.sets().into_iter().take(seq) {
            let set = set.verify(&*self.replica.registry).expect("the origin is honest");
            self.replica.commit(&set).expect("the origin's history fits");
        }
    }

    /// The first message of the origin's tree stream.
    pub fn tree_head(&self) -> TreeReply {
        let state = self.state();
        let have = self.replica.position(&self.partition).map(|have| have.seq);
        let proof = state.proof(have).expect("the origin has all headers");
        tree_head(state.head.as_ref().expect("the origin wrote before"), &state.tree, proof)
    }

    /// The replica takes pages until it is done, or the stream is lost after
    /// so many messages.
    pub fn fetch(&mut self, messages_max: usize) -> Fetched {
        let tree = Rc::clone(&self.state().tree);
        // What is on its way, and whether it is a leaf.
        let mut queue: VecDeque<(TreeReply, bool)> = [(self.tree_head(), false)].into();
        let mut fetched = Fetched::default();
        let mut taking = PageTaking::new(&self.replica, &self.partition);
        while fetched.messages < messages_max
            && let Some((reply, is_leaf)) = queue.pop_front()
        {
            fetched.messages += 1;
            fetched.leaves_arrived += usize::from(is_leaf);
            taking
                .handle_message(&codec::encode(&reply), &self.replica)
                .expect("the origin is honest");
            loop {
                match taking.step(&mut self.replica) {
                    PageStep::Waiting => break,
                    PageStep::Send(request) => {
                        let leaves = match &request {
                            TreeRequest::Pages { level: 0, keys } => keys.len(),
                            TreeRequest::Differences { level: 0, pages, .. } => pages.len(),
                            _ => 0,
                        };
                        fetched.leaves_asked += leaves;
                        let replies = serve(&tree, &request).expect("the pages exist");
                        queue.extend(replies.into_iter().map(|reply| (reply, leaves > 0)));
                        let ahead = fetched.leaves_asked - fetched.leaves_arrived;
                        fetched.leaves_ahead = fetched.leaves_ahead.max(ahead);
                    }
                    PageStep::Misbehaved(problem) => panic!("the origin is honest: {problem}"),
                    PageStep::Finished(result) => {
                        result.expect("the tree fits its head");
                        fetched.finished = true;
                        break;
                    }
                }
            }
        }
        fetched
    }

    /// The pages of the origin's tree in the order in which a replica without any
    /// asks for them.
    pub fn pages_as_asked(&self) -> Vec<MadePage> {
        let mut pair = self.clone();
        let tree = Rc::clone(&pair.state().tree);
        let mut taking = PageTaking::new(&pair.replica, &pair.partition);
        let mut queue = VecDeque::from([self.tree_head()]);
        let mut pages = Vec::new();
        while let Some(reply) = queue.pop_front() {
            taking
                .handle_message(&codec::encode(&reply), &pair.replica)
                .expect("the origin is honest");
            while let PageStep::Send(request) = taking.step(&mut pair.replica) {
                queue.extend(serve(&tree, &request).expect("the pages exist"));
                if let TreeRequest::Pages { level, keys } = request {
                    let page = |key: &Vec<u8>| tree.page(level, key).expect("it exists").clone();
                    pages.extend(keys.iter().map(page));
                }
            }
        }
        pages
    }

    /// Takes pages from a provider that answers `replies` to whatever is asked,
    /// behind the true head. Answers what it did wrong.
    pub fn fetch_hostile(
        &mut self,
        replies: impl IntoIterator<Item = TreeReply>,
    ) -> Result<(), PeerMisbehaved> {
        let mut taking = PageTaking::new(&self.replica, &self.partition);
        for reply in replies {
            taking.handle_message(&codec::encode(&reply), &self.replica)?;
            loop {
                match taking.step(&mut self.replica) {
                    PageStep::Send(_) => {}
                    PageStep::Misbehaved(problem) => return Err(problem),
                    PageStep::Waiting | PageStep::Finished(_) => break,
                }
            }
        }
        Ok(())
    }
}

impl Default for Pair {
    fn default() -> Self {
        Self::new()
    }
}

fn write(store: &mut Store, cast: &Cast, node: usize, partition: &PartitionId, with: &[Change]) {
    let set = store.sign(partition, with, cast.key(node), 0);
    let set = set.verify(&*store.registry.clone());
    // The first entry of all is the hub's own, whose key is the anchor's.
    let set = set.expect("what a node signs verifies");
    store.commit(&set).expect("an origin's own change set fits");
}
