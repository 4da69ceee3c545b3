//! A replica takes the pages of a tree.
//!
//! From a signed head downwards every page is compared with the hash that its
//! parent holds, so a provider can withhold but not mislead. Inner pages serve
//! to find the leaves and are then forgotten: the replica makes its own from the
//! leaves.
//!
//! - [`TreeFetch::comparing`], for a replica that holds something: only what
//!   differs is fetched, and told apart as [`Piece`]s ([`compare`]). If that is
//!   more than one batch holds, it goes on as
//! - [`TreeFetch::new`]: all leaves in order, those that the replica holds and
//!   those that arrive ([`walk`]).
//! - [`TreeFetch::repairing`]: the same for a replica of which pages are damaged,
//!   under the head that it has.
//!
//! Pages that the replica already holds, from an interrupted fetch, from an older
//! state or undamaged, are not asked for again.
//!
//! A replica that holds something takes no head whose history it is not in: the
//! provider has to prove that ([`crate::history`]).

mod compare;
mod walk;

use std::collections::VecDeque;

use self::{
    compare::{Compare, Progress},
    walk::Walk,
};
use super::PeerMisbehaved;
use crate::{
    change::{KeyRing, Position, SignedHeader},
    codec::{CLAIM_BYTES, claimed_bytes},
    difference::{Own, Salt},
    hash::Hash,
    history::{Peaks, Proof, ProofError},
    id::PartitionId,
    message::{Open, PAGE_PART_BYTES_MAX, TreeReply, TreeRequest, decode_header},
    page::{INNER_BYTES_MAX, LEAF_BYTES_MAX, LEVELS_MAX, Leaf, PageRef, decode_inner, inner_hash},
    tree::empty_root,
};

/// Bytes that the references of a comparison may take: those of 100 000 pages.
/// What needs more is taken whole, which holds few.
const COMPARED_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The longest page; one that says that it is longer is refused before it is unpacked.
const PAGE_BYTES_MAX: usize =
    if LEAF_BYTES_MAX > INNER_BYTES_MAX { LEAF_BYTES_MAX } else { INNER_BYTES_MAX };

/// Change sets that a replica may pass over at once: more than an origin makes in
/// a hundred years, and few enough that no chain of jumps reaches the last number.
const JUMP_MAX: u64 = 1 << 32;

/// The head whose tree a provider shows, and what is before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownHead {
    /// The signed header; its signature is verified.
    pub signed: SignedHeader,
    /// The peaks of its history: the headers before it.
    pub before: Peaks,
    /// The replica's head that is proved to be in that history, or the same.
    pub have: Option<Position>,
    /// The hashes that prove it.
    pub path: Vec<Hash>,
}

/// A leaf that has arrived, and may be anything.
#[derive(Debug)]
pub struct ArrivedLeaf {
    /// As its parent holds it.
    expected: PageRef,
    body: Vec<u8>,
}

impl ArrivedLeaf {
    /// Bytes that it has, or says that it has, when it is unpacked.
    fn unpacks(&self) -> usize {
        claimed_bytes(&self.body).min(PAGE_BYTES_MAX).max(self.body.len())
    }

    /// Memory that it takes with what comes of [`ArrivedLeaf::check`].
    pub fn takes(&self) -> usize {
        self.body.len() + self.unpacks()
    }

    /// Reads it and compares it with what its parent holds, which needs nothing
    /// else: any number of leaves can be checked at the same time.
    pub fn check(self) -> Result<FetchedLeaf, PeerMisbehaved> {
        let Self { expected, body } = self;
        let leaf = Leaf::decode(&body)?;
        let described = leaf.describe_with_index(expected.hash.suite());
        check_leaf(&described.0, &expected)?;
        Ok(FetchedLeaf::Arrived { described, leaf, body })
    }
}

/// A leaf of the fetched tree, in key order.
#[derive(Debug)]
pub enum FetchedLeaf {
    /// The replica said that it holds this one.
    Held(PageRef),
    /// It arrived, and its hash is right.
    Arrived {
        /// The page as its parent describes it, and its index.
        described: (PageRef, Vec<u8>),
        /// Its content.
        leaf: Leaf,
        /// Its bytes, to be stored as they are.
        body: Vec<u8>,
    },
}

/// A part of the provider's tree, as compared with the replica's. All of them in
/// key order are the whole tree.
#[derive(Debug)]
pub enum Piece {
    /// The replica has the same page, with all below it.
    Held {
        /// The page's level.
        level: u8,
        /// The page; the first key of a root may be empty.
        page: PageRef,
    },
    /// A leaf that the replica does not have; its hash is right.
    Leaf(Leaf),
}

/// What the driver does for a fetch.
#[derive(Debug)]
pub enum FetchAction {
    /// Send this.
    Send(TreeRequest),
    /// Prepare to take the pieces of this head's tree.
    Compare(Box<ShownHead>),
    /// Prepare to stage the tree of this head; what was begun before is over.
    Begin(Box<ShownHead>),
    /// Say what the replica has where these pages of the tree are or would be,
    /// with [`TreeFetch::handle_own`], and before anything that arrives.
    Look {
        /// 0 for leaves.
        level: u8,
        /// The pages, in key order.
        pages: Vec<PageRef>,
        /// Memory ([`Own::bytes`]) from which on the rest is left out of the answer,
        /// which has at least one page. Left out pages are asked for again.
        bytes_max: usize,
    },
    /// The next part of the tree. If it all does not fit into one batch,
    /// [`TreeFetch::take_whole`].
    Piece(Piece),
    /// All pieces were told: apply the differences under the head. If that
    /// fails, [`TreeFetch::take_whole`].
    Apply,
    /// Say which of these leaves the replica holds, with
    /// [`TreeFetch::handle_resolved`].
    Resolve(Vec<PageRef>),
    /// [`ArrivedLeaf::check`] each of these, and answer with
    /// [`TreeFetch::handle_checked`], in their order.
    Check(Vec<ArrivedLeaf>),
    /// Stage this leaf behind those before.
    Stage(FetchedLeaf),
    /// All leaves are staged: check the root and make the tree the replica's.
    Finish,
}

#[derive(Debug)]
enum State {
    AwaitHead,
    Compare(Compare),
    Walk(Walk),
    Finished,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goal {
    Compare,
    Whole,
    Repair,
}

/// The tree that the provider shows.
#[derive(Debug)]
struct Shown {
    head: ShownHead,
    root: PageRef,
    levels: u8,
    /// The root's children, if it travelled with the head.
    children: Option<Vec<PageRef>>,
}

/// The state of one fetch.
#[derive(Debug)]
pub struct TreeFetch {
    partition: PartitionId,
    have: Option<Position>,
    salt: Salt,
    goal: Goal,
    state: State,
    shown: Option<Shown>,
    part: Vec<u8>,
    /// Pages on their way that nobody wants any more.
    unwanted: usize,
    /// Bytes of the references that a comparison has listed.
    listed_bytes: usize,
    actions: VecDeque<FetchAction>,
}

impl TreeFetch {
    /// A fetch of all leaves for a replica that is at `have`.
    pub fn new(partition: PartitionId, have: Option<Position>) -> Self {
        Self::with(partition, have, Goal::Whole)
    }

    /// A fetch of what differs for a replica that is at `have`; the salt is drawn
    /// at random.
    pub fn comparing(partition: PartitionId, have: Position, salt: Salt) -> Self {
        Self { salt, ..Self::with(partition, Some(have), Goal::Compare) }
    }

    /// A fetch of the leaves that are damaged, for a replica that is at `have`.
    /// The driver decides, when it is told to begin, whether it takes the tree of
    /// that head.
    pub fn repairing(partition: PartitionId, have: Option<Position>) -> Self {
        Self::with(partition, have, Goal::Repair)
    }

    fn with(partition: PartitionId, have: Option<Position>, goal: Goal) -> Self {
        Self {
            partition,
            have,
            salt: Salt::default(),
            goal,
            state: State::AwaitHead,
            shown: None,
            part: Vec::new(),
            unwanted: 0,
            listed_bytes: 0,
            actions: VecDeque::new(),
        }
    }

    /// Whose tree it is.
    pub fn partition(&self) -> &PartitionId {
        &self.partition
    }

    /// The first frame of the stream.
    pub fn open(&self) -> Open {
        Open::Tree { partition: self.partition.clone(), have: self.have }
    }

    /// The provider said something.
    ///
    /// It unpacks and hashes what [`TreeFetch::unpacks`] says.
    pub fn handle_message(
        &mut self,
        message: TreeReply,
        keys: &dyn KeyRing,
    ) -> Result<(), PeerMisbehaved> {
        match (message, &self.state) {
            (TreeReply::Head { header, levels, root, proof }, State::AwaitHead) => {
                self.handle_head(decode_header(&header)?, levels, &root, proof, keys)
            }
            (TreeReply::Fork { header, other, proof }, State::AwaitHead) => {
                Err(self.judge_fork(&decode_header(&header)?, other, proof, keys))
            }
            (TreeReply::Part { bytes, more }, State::Walk(_) | State::Compare(_)) => {
                self.handle_part(&bytes, more)
            }
            _ => Err(PeerMisbehaved::Unexpected("a part of a tree")),
        }
    }

    /// Bytes that [`TreeFetch::handle_message`] will unpack of this message and those
    /// before it, as they say themselves: none but of differences.
    pub fn unpacks(&self, message: &TreeReply) -> usize {
        match (message, &self.state) {
            (TreeReply::Part { bytes, more: false }, State::Compare(_)) => {
                // The claim may lie in two parts.
                let first = self.part.iter().chain(bytes).take(CLAIM_BYTES).copied();
                let claimed = claimed_bytes(&first.collect::<Vec<u8>>());
                claimed.min(PAGE_BYTES_MAX).max(self.part.len() + bytes.len())
            }
            _ => 0,
        }
    }

    /// Bytes that it holds of what has arrived, and of the replica's pages.
    pub fn held_bytes(&self) -> usize {
        let held = match &self.state {
            State::Compare(compare) => compare.held_bytes(),
            State::Walk(walk) => walk.held_bytes(),
            State::AwaitHead | State::Finished => 0,
        };
        self.part.len() + self.listed_bytes + held
    }

    /// The provider says that the replica is not in its history, which has the header
    /// with the hash `other` at the replica's number.
    fn judge_fork(
        &self,
        header: &SignedHeader,
        other: Hash,
        proof: Proof,
        keys: &dyn KeyRing,
    ) -> PeerMisbehaved {
        if let Err(problem) = header.verify(keys) {
            return problem.into();
        }
        let described = header.header();
        let claims = |have: &Position| {
            described.partition == self.partition && described.seq >= have.seq && other != have.hash
        };
        let Some(have) = self.have.filter(claims) else {
            return PeerMisbehaved::Unexpected("a fork that is none");
        };
        let shown = match described.seq == have.seq {
            true if other == header.hash() && proof == Proof::default() => Ok(()),
            true => Err(ProofError::Path),
            false => {
                let other = Position { seq: have.seq, hash: other };
                proof.check(described.seq - 1, &described.history, Some(other)).map(drop)
            }
        };
        match shown {
            Ok(()) => PeerMisbehaved::OtherHistory(Box::new(header.clone())),
            Err(problem) => problem.into(),
        }
    }

    /// The head has to be newer than what the replica has, and a continuation of
    /// it. Answers what is before the head.
    fn check_history(&self, head: &SignedHeader, proof: Proof) -> Result<Peaks, PeerMisbehaved> {
        let seq = head.header().seq;
        if seq.saturating_sub(self.have.map_or(0, |have| have.seq)) > JUMP_MAX {
            return Err(PeerMisbehaved::Unexpected("a number that no history has reached"));
        }
        if let Some(have) = self.have {
            if have.seq == seq && have.hash != head.hash() {
                return Err(PeerMisbehaved::OtherHistory(Box::new(head.clone())));
            }
            if have.seq >= seq && self.goal != Goal::Repair {
                return Err(PeerMisbehaved::Unexpected("a tree older than the replica"));
            }
        }
        // What is older is not taken; the driver sees that.
        let earlier = self.have.filter(|have| have.seq < seq);
        // A wrong proof says nothing of who has signed the head: that two histories are
        // signed is said, and shown, in place of a head.
        Ok(proof.check(seq - 1, &head.header().history, earlier)?)
    }

    fn handle_head(
        &mut self,
        head: SignedHeader,
        levels: u8,
        root_body: &[u8],
        proof: Proof,
        keys: &dyn KeyRing,
    ) -> Result<(), PeerMisbehaved> {
        let described = head.header();
        if described.partition != self.partition {
            return Err(PeerMisbehaved::NotEntitled(described.partition.to_string()));
        }
        head.verify(keys)?;
        let suite = head.suite();
        let path = proof.path.clone();
        let before = self.check_history(&head, proof)?;
        let empty = described.records == 0;
        if levels > LEVELS_MAX
            || (levels == 0) != empty
            || (empty && described.root != empty_root(suite))
        {
            return Err(PeerMisbehaved::WrongPage("its height does not fit its head"));
        }
        // The parent of the root is the signed head, which does not tell its first
        // key nor its entries.
        let root = PageRef {
            first_key: Vec::new(),
            hash: described.root,
            records: described.records,
            entries: 0,
        };
        let children = match root_body {
            [] => None,
            _ if levels < 2 => return Err(PeerMisbehaved::Unexpected("a root page")),
            body => {
                let children = decode_inner(suite, body)?;
                check_children(levels - 1, &children, &root)?;
                Some(children)
            }
        };
        let head = ShownHead { signed: head, before, have: self.have, path };
        self.shown = Some(Shown { head, root, levels, children });
        if self.goal == Goal::Compare { self.begin_compare() } else { self.take_whole() }
    }

    fn begin_compare(&mut self) -> Result<(), PeerMisbehaved> {
        let Some(shown) = &self.shown else { return Ok(()) };
        self.actions.push_back(FetchAction::Compare(Box::new(shown.head.clone())));
        let (root, children) = (shown.root.clone(), shown.children.clone());
        self.state = State::Compare(Compare::new(root, shown.levels, children, self.salt));
        self.advance_compare()
    }

    /// Gives the comparison up, because it does not fit into one batch or has
    /// led to nothing, and takes all leaves in order.
    pub fn take_whole(&mut self) -> Result<(), PeerMisbehaved> {
        let Some(shown) = &mut self.shown else { return Ok(()) };
        if let State::Compare(compare) = &self.state {
            self.unwanted += compare.awaited();
        }
        // Answers to what is not sent yet were counted, too.
        self.actions.retain(|action| matches!(action, FetchAction::Send(_)));
        self.actions.push_back(FetchAction::Begin(Box::new(shown.head.clone())));
        let mut walk = Walk::new(shown.root.clone(), shown.levels, shown.children.take());
        walk.advance(&mut self.actions)?;
        self.state = State::Walk(walk);
        Ok(())
    }

    /// What the replica has at the places of [`FetchAction::Look`].
    pub fn handle_own(&mut self, own: Vec<Own>) -> Result<(), PeerMisbehaved> {
        match &mut self.state {
            State::Compare(compare) => {
                compare.handle_own(own, &mut self.actions)?;
                self.advance_compare()
            }
            State::Walk(walk) => walk.handle_own(own, &mut self.actions),
            // It was given up meanwhile.
            _ => Ok(()),
        }
    }

    fn handle_part(&mut self, bytes: &[u8], more: bool) -> Result<(), PeerMisbehaved> {
        let limit = PAGE_BYTES_MAX + 1024;
        if bytes.len() > PAGE_PART_BYTES_MAX || self.part.len() + bytes.len() > limit {
            return Err(PeerMisbehaved::WrongPage("it is longer than any page"));
        }
        self.part.extend_from_slice(bytes);
        if more {
            return Ok(());
        }
        let body = std::mem::take(&mut self.part);
        if self.unwanted > 0 {
            self.unwanted -= 1;
            return Ok(());
        }
        match &mut self.state {
            State::Compare(compare) => {
                // Two entries may have had one name; a provider that lies is found
                // out by pages that come whole.
                let Ok(bytes) = compare.handle_page(&body, &mut self.actions) else {
                    return self.take_whole();
                };
                self.listed_bytes += bytes;
                if self.listed_bytes > COMPARED_BYTES_MAX {
                    return self.take_whole();
                }
                self.advance_compare()
            }
            State::Walk(walk) => walk.handle_page(body, &mut self.actions),
            _ => Err(PeerMisbehaved::Unexpected("a page that nobody asked for")),
        }
    }

    fn advance_compare(&mut self) -> Result<(), PeerMisbehaved> {
        let State::Compare(compare) = &mut self.state else { return Ok(()) };
        match compare.advance(&mut self.actions) {
            Progress::Waiting => {}
            Progress::TooMuch => return self.take_whole(),
            Progress::Done => {
                self.actions.push_back(FetchAction::Apply);
                self.state = State::Finished;
            }
        }
        Ok(())
    }

    /// Whether leaves have arrived that nobody has checked.
    pub fn has_unchecked(&self) -> bool {
        matches!(&self.state, State::Walk(walk) if walk.has_unchecked())
    }

    /// Nothing more has arrived for now: those leaves that have are to be checked.
    pub fn check_arrived(&mut self) {
        if let State::Walk(walk) = &mut self.state {
            walk.check_arrived(&mut self.actions);
        }
    }

    /// What came of the leaves of [`FetchAction::Check`].
    pub fn handle_checked(
        &mut self,
        checked: Vec<Result<FetchedLeaf, PeerMisbehaved>>,
    ) -> Result<(), PeerMisbehaved> {
        match &mut self.state {
            State::Walk(walk) => walk.handle_checked(checked, &mut self.actions),
            _ => Ok(()),
        }
    }

    /// Which of the leaves of [`FetchAction::Resolve`] the replica holds.
    pub fn handle_resolved(&mut self, held: &[bool]) -> Result<(), PeerMisbehaved> {
        match &mut self.state {
            State::Walk(walk) => walk.handle_resolved(held, &mut self.actions),
            _ => Ok(()),
        }
    }

    /// References to pages that are held in memory: bounded, whatever the provider
    /// shows.
    pub fn references(&self) -> usize {
        match &self.state {
            State::AwaitHead | State::Finished => 0,
            State::Compare(compare) => compare.references(),
            State::Walk(walk) => walk.references(),
        }
    }

    /// What to do next; `None` until something happens.
    pub fn poll_action(&mut self) -> Option<FetchAction> {
        self.actions.pop_front()
    }
}

/// A leaf has to be the one that its parent, or the head, holds.
fn check_leaf(page: &PageRef, expected: &PageRef) -> Result<(), PeerMisbehaved> {
    let in_place = expected.first_key.is_empty() || page.first_key == expected.first_key;
    let whole = expected.entries == 0 || expected.entries == page.entries;
    if page.hash != expected.hash || page.records != expected.records || !in_place || !whole {
        return Err(PeerMisbehaved::WrongPage("a leaf is not the one its parent holds"));
    }
    Ok(())
}

/// An inner page has to be the one that its parent, or the head, holds.
fn check_children(level: u8, children: &[PageRef], page: &PageRef) -> Result<(), PeerMisbehaved> {
    let in_place = page.first_key.is_empty() || children[0].first_key == page.first_key;
    let whole = page.entries == 0 || usize::from(page.entries) == children.len();
    let records = children.iter().try_fold(0u64, |sum, child| sum.checked_add(child.records));
    if !whole
        || inner_hash(page.hash.suite(), level, children) != page.hash
        || records != Some(page.records)
        || !in_place
    {
        return Err(PeerMisbehaved::WrongPage("an inner page is not the one its parent holds"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
