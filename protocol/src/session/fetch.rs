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
//!   those that arrive. Their list is held in memory, about 100 bytes for each
//!   64 records.
//! - [`TreeFetch::repairing`]: the same for a replica of which pages are damaged,
//!   under the head that it has.
//!
//! Pages that the replica already holds, from an interrupted fetch, from an older
//! state or undamaged, are not asked for again.

mod compare;

use std::collections::VecDeque;

use self::compare::{Compare, Progress, hash_of};
use super::PeerMisbehaved;
use crate::{
    change::{KeyRing, Position, SignedHeader},
    codec::claimed_bytes,
    difference::Own,
    id::PartitionId,
    message::{Open, PAGE_PART_BYTES_MAX, PAGES_MAX, TreeReply, TreeRequest, decode_header},
    page::{INNER_BYTES_MAX, LEAF_BYTES_MAX, LEVELS_MAX, Leaf, PageRef, decode_inner, inner_hash},
    tree::empty_root,
};

/// Leaves that are resolved ahead of the one that is awaited: about 4 MB on
/// their way keep a link of 100 Mbit/s busy over 300 ms.
const LEAVES_AHEAD_MAX: usize = 2 * PAGES_MAX;

/// Bytes that the lists of pages may take: more than 100 million records need,
/// and a bound on what an origin that invents pages can take.
const LIST_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Leaves that are checked together if they are there, enough to share out among
/// threads.
const LEAVES_TOGETHER: usize = 32;
/// Bytes, uncompressed, that end such a group earlier: one leaf may have 16 MiB.
const LEAF_BYTES_TOGETHER: usize = 4 * 1024 * 1024;

/// A leaf that has arrived, and may be anything.
#[derive(Debug)]
pub struct ArrivedLeaf {
    /// As its parent holds it.
    expected: PageRef,
    body: Vec<u8>,
}

impl ArrivedLeaf {
    /// Reads it and compares it with what its parent holds, which needs nothing
    /// else: any number of leaves can be checked at the same time.
    pub fn check(self) -> Result<FetchedLeaf, PeerMisbehaved> {
        let Self { expected, body } = self;
        let leaf = Leaf::decode(&body)?;
        let described = leaf.describe_with_index();
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
    Compare(Box<SignedHeader>),
    /// Prepare to stage the tree of this head; what was begun before is over.
    Begin(Box<SignedHeader>),
    /// Say what the replica has where these pages of the tree are or would be,
    /// with [`TreeFetch::handle_own`], and before anything that arrives.
    Look {
        /// 0 for leaves.
        level: u8,
        /// The pages, in key order.
        pages: Vec<PageRef>,
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
    Inner(Inner),
    Leaves(Leaves),
    Finished,
}

/// The inner pages of one level.
#[derive(Debug)]
struct Inner {
    level: u8,
    wanted: Vec<PageRef>,
    /// The children of each, once known.
    found: Vec<Option<Vec<PageRef>>>,
    /// Those that the replica does not have.
    missing: Vec<usize>,
    arrived: usize,
    asked: usize,
}

#[derive(Debug, Default)]
struct Leaves {
    all: Vec<PageRef>,
    resolving: usize,
    /// For each resolved leaf, whether it is held.
    held: Vec<bool>,
    /// Up to which of them those that are not held have arrived.
    arrived: usize,
    /// Leaves that were asked for and have not arrived.
    awaited: usize,
    /// Those that have, and are not being checked yet.
    unchecked: Vec<ArrivedLeaf>,
    unchecked_bytes: usize,
    staged: usize,
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
    head: SignedHeader,
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
    goal: Goal,
    state: State,
    shown: Option<Shown>,
    part: Vec<u8>,
    /// Pages on their way that nobody wants any more.
    unwanted: usize,
    /// Bytes of all lists of pages so far.
    listed_bytes: usize,
    actions: VecDeque<FetchAction>,
}

impl TreeFetch {
    /// A fetch of all leaves for a replica that is at `have`.
    pub fn new(partition: PartitionId, have: Option<Position>) -> Self {
        Self::with(partition, have, Goal::Whole)
    }

    /// A fetch of what differs for a replica that is at `have`.
    pub fn comparing(partition: PartitionId, have: Position) -> Self {
        Self::with(partition, Some(have), Goal::Compare)
    }

    /// A fetch of the leaves that are damaged. The driver decides, when it is
    /// told to begin, whether it takes the tree of that head.
    pub fn repairing(partition: PartitionId) -> Self {
        Self::with(partition, None, Goal::Repair)
    }

    fn with(partition: PartitionId, have: Option<Position>, goal: Goal) -> Self {
        Self {
            partition,
            have,
            goal,
            state: State::AwaitHead,
            shown: None,
            part: Vec::new(),
            unwanted: 0,
            listed_bytes: 0,
            actions: VecDeque::new(),
        }
    }

    /// The first frame of the stream.
    pub fn open(&self) -> Open {
        Open::Tree { partition: self.partition.clone() }
    }

    /// The provider said something.
    pub fn handle_message(
        &mut self,
        message: TreeReply,
        keys: &dyn KeyRing,
    ) -> Result<(), PeerMisbehaved> {
        match (message, &self.state) {
            (TreeReply::Head { header, levels, root }, State::AwaitHead) => {
                self.handle_head(decode_header(&header)?, levels, &root, keys)
            }
            (
                TreeReply::Part { bytes, more },
                State::Inner(_) | State::Leaves(_) | State::Compare(_),
            ) => self.handle_part(&bytes, more),
            _ => Err(PeerMisbehaved::Unexpected("a part of a tree")),
        }
    }

    fn handle_head(
        &mut self,
        head: SignedHeader,
        levels: u8,
        root_body: &[u8],
        keys: &dyn KeyRing,
    ) -> Result<(), PeerMisbehaved> {
        let described = head.header();
        if described.partition != self.partition {
            return Err(PeerMisbehaved::NotEntitled(described.partition.to_string()));
        }
        head.verify(keys)?;
        if self.have.is_some_and(|have| have.seq >= described.seq) {
            return Err(PeerMisbehaved::Unexpected("a tree older than the replica"));
        }
        let empty = described.records == 0;
        if levels > LEVELS_MAX
            || (levels == 0) != empty
            || (empty && described.root != empty_root())
        {
            return Err(PeerMisbehaved::WrongPage("its height does not fit its head"));
        }
        // The parent of the root is the signed head; its first key is not known.
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
                let children = decode_inner(body)?;
                check_children(levels - 1, &children, &root)?;
                Some(children)
            }
        };
        self.shown = Some(Shown { head, root, levels, children });
        if self.goal == Goal::Compare {
            self.begin_compare();
        } else {
            self.take_whole();
        }
        Ok(())
    }

    fn begin_compare(&mut self) {
        let Some(shown) = &self.shown else { return };
        self.actions.push_back(FetchAction::Compare(Box::new(shown.head.clone())));
        let (root, children) = (shown.root.clone(), shown.children.clone());
        self.state = State::Compare(Compare::new(root, shown.levels, children));
        self.advance_compare();
    }

    /// Gives the comparison up, because it does not fit into one batch or has
    /// led to nothing, and takes all leaves in order.
    pub fn take_whole(&mut self) {
        let Some(shown) = &self.shown else { return };
        if let State::Compare(compare) = &self.state {
            self.unwanted += compare.awaited();
        }
        // Answers to what is not sent yet were counted, too.
        self.actions.retain(|action| matches!(action, FetchAction::Send(_)));
        self.actions.push_back(FetchAction::Begin(Box::new(shown.head.clone())));
        let (root, levels) = (shown.root.clone(), shown.levels);
        self.listed_bytes = 0;
        match levels {
            0 => self.begin_leaves(Vec::new()),
            1 => self.begin_leaves(vec![root]),
            _ => self.begin_inner(levels - 1, vec![root]),
        }
    }

    fn begin_inner(&mut self, level: u8, wanted: Vec<PageRef>) {
        self.actions.push_back(FetchAction::Look { level, pages: wanted.clone() });
        let (found, missing) = (Vec::new(), Vec::new());
        self.state = State::Inner(Inner { level, wanted, found, missing, arrived: 0, asked: 0 });
    }

    /// What the replica has at the places of [`FetchAction::Look`].
    pub fn handle_own(&mut self, own: Vec<Own>) -> Result<(), PeerMisbehaved> {
        match &mut self.state {
            State::Compare(compare) => {
                compare.handle_own(own, &mut self.actions)?;
                self.advance_compare();
                Ok(())
            }
            State::Inner(inner) if inner.found.is_empty() => {
                let mut own = own.into_iter();
                for (index, page) in inner.wanted.iter().enumerate() {
                    let own = own.next().unwrap_or(Own::Nothing);
                    let same = hash_of(&own, inner.level) == Some(page.hash);
                    let given = self.shown.as_mut().filter(|_| page.first_key.is_empty());
                    let children = match own {
                        Own::Inner(children) if same => Some(children),
                        _ => given.and_then(|shown| shown.children.take()),
                    };
                    match &children {
                        Some(children) => self.listed_bytes += list_bytes(children),
                        None => inner.missing.push(index),
                    }
                    inner.found.push(children);
                }
                self.ask_inner()
            }
            // It was given up meanwhile.
            _ => Ok(()),
        }
    }

    /// Refuses a tree whose lists of pages take too much memory.
    fn check_list(&self) -> Result<(), PeerMisbehaved> {
        if self.listed_bytes > LIST_BYTES_MAX {
            return Err(PeerMisbehaved::WrongPage("its pages are too many to list"));
        }
        Ok(())
    }

    /// Asks for the next batch of inner pages once the one before has arrived;
    /// goes down a level once all are there.
    fn ask_inner(&mut self) -> Result<(), PeerMisbehaved> {
        let State::Inner(inner) = &mut self.state else { return Ok(()) };
        if inner.arrived < inner.asked {
            return Ok(());
        }
        if inner.asked < inner.missing.len() {
            let end = (inner.asked + PAGES_MAX).min(inner.missing.len());
            let batch = &inner.missing[inner.asked..end];
            let keys = batch.iter().map(|&index| inner.wanted[index].first_key.clone()).collect();
            inner.asked = end;
            let level = inner.level;
            self.actions.push_back(FetchAction::Send(TreeRequest::Pages { level, keys }));
            return Ok(());
        }
        let mut below: Vec<PageRef> = Vec::new();
        for children in std::mem::take(&mut inner.found).into_iter().flatten() {
            if below.last().is_some_and(|last| last.first_key >= children[0].first_key) {
                return Err(PeerMisbehaved::WrongPage("inner pages are not in key order"));
            }
            below.extend(children);
        }
        match inner.level {
            1 => self.begin_leaves(below),
            level => self.begin_inner(level - 1, below),
        }
        Ok(())
    }

    fn begin_leaves(&mut self, all: Vec<PageRef>) {
        self.state = State::Leaves(Leaves { all, ..Leaves::default() });
        self.advance_leaves();
    }

    fn handle_part(&mut self, bytes: &[u8], more: bool) -> Result<(), PeerMisbehaved> {
        let limit = LEAF_BYTES_MAX.max(INNER_BYTES_MAX) + 1024;
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
                self.listed_bytes += compare.handle_page(&body, &mut self.actions)?;
                self.check_list()?;
                self.advance_compare();
                Ok(())
            }
            State::Inner(_) => self.handle_inner(&body),
            _ => self.handle_leaf(body),
        }
    }

    fn advance_compare(&mut self) {
        let State::Compare(compare) = &mut self.state else { return };
        match compare.advance(&mut self.actions) {
            Progress::Waiting => {}
            Progress::TooMuch => self.take_whole(),
            Progress::Done => {
                self.actions.push_back(FetchAction::Apply);
                self.state = State::Finished;
            }
        }
    }

    fn handle_inner(&mut self, body: &[u8]) -> Result<(), PeerMisbehaved> {
        let State::Inner(inner) = &mut self.state else {
            return Err(PeerMisbehaved::Unexpected("an inner page"));
        };
        if inner.arrived >= inner.asked {
            return Err(PeerMisbehaved::Unexpected("a page that nobody asked for"));
        }
        let index = inner.missing[inner.arrived];
        let children = decode_inner(body)?;
        check_children(inner.level, &children, &inner.wanted[index])?;
        self.listed_bytes += list_bytes(&children);
        inner.found[index] = Some(children);
        inner.arrived += 1;
        self.check_list()?;
        self.ask_inner()
    }

    fn handle_leaf(&mut self, body: Vec<u8>) -> Result<(), PeerMisbehaved> {
        let State::Leaves(leaves) = &mut self.state else {
            return Err(PeerMisbehaved::Unexpected("a leaf"));
        };
        if leaves.awaited == 0 {
            return Err(PeerMisbehaved::Unexpected("a page that nobody asked for"));
        }
        while leaves.held.get(leaves.arrived) == Some(&true) {
            leaves.arrived += 1;
        }
        let expected = leaves.all[leaves.arrived].clone();
        leaves.arrived += 1;
        leaves.awaited -= 1;
        leaves.unchecked_bytes += claimed_bytes(&body);
        leaves.unchecked.push(ArrivedLeaf { expected, body });
        if leaves.unchecked.len() >= LEAVES_TOGETHER
            || leaves.unchecked_bytes >= LEAF_BYTES_TOGETHER
        {
            self.check_arrived();
        }
        Ok(())
    }

    /// Whether leaves have arrived that nobody has checked.
    pub fn has_unchecked(&self) -> bool {
        matches!(&self.state, State::Leaves(leaves) if !leaves.unchecked.is_empty())
    }

    /// Nothing more has arrived for now: those leaves that have are to be checked.
    pub fn check_arrived(&mut self) {
        if let State::Leaves(leaves) = &mut self.state
            && !leaves.unchecked.is_empty()
        {
            leaves.unchecked_bytes = 0;
            let unchecked = std::mem::take(&mut leaves.unchecked);
            self.actions.push_back(FetchAction::Check(unchecked));
        }
    }

    /// What came of the leaves of [`FetchAction::Check`].
    pub fn handle_checked(
        &mut self,
        checked: Vec<Result<FetchedLeaf, PeerMisbehaved>>,
    ) -> Result<(), PeerMisbehaved> {
        for leaf in checked {
            let leaf = leaf?;
            self.stage_held();
            let State::Leaves(leaves) = &mut self.state else {
                return Ok(());
            };
            self.actions.push_back(FetchAction::Stage(leaf));
            leaves.staged += 1;
        }
        self.advance_leaves();
        Ok(())
    }

    /// Which of the leaves of [`FetchAction::Resolve`] the replica holds.
    pub fn handle_resolved(&mut self, held: &[bool]) {
        let State::Leaves(leaves) = &mut self.state else {
            return;
        };
        let first = leaves.held.len();
        let count = held.len().min(leaves.resolving);
        leaves.held.extend_from_slice(&held[..count]);
        leaves.resolving = 0;
        let keys: Vec<Vec<u8>> = (first..first + count)
            .filter(|&index| !leaves.held[index])
            .map(|index| leaves.all[index].first_key.clone())
            .collect();
        leaves.awaited += keys.len();
        if !keys.is_empty() {
            self.actions.push_back(FetchAction::Send(TreeRequest::Pages { level: 0, keys }));
        }
        self.advance_leaves();
    }

    /// Stages held leaves up to the next one that has to arrive.
    fn stage_held(&mut self) {
        let State::Leaves(leaves) = &mut self.state else {
            return;
        };
        while leaves.held.get(leaves.staged) == Some(&true) {
            let page = leaves.all[leaves.staged].clone();
            self.actions.push_back(FetchAction::Stage(FetchedLeaf::Held(page)));
            leaves.staged += 1;
        }
    }

    /// As `stage_held`, and looks further ahead.
    fn advance_leaves(&mut self) {
        self.stage_held();
        let State::Leaves(leaves) = &mut self.state else {
            return;
        };
        if leaves.staged == leaves.all.len() {
            self.actions.push_back(FetchAction::Finish);
            self.state = State::Finished;
            return;
        }
        let resolved = leaves.held.len();
        let ahead = resolved - leaves.staged;
        if leaves.resolving == 0
            && resolved < leaves.all.len()
            && ahead + PAGES_MAX <= LEAVES_AHEAD_MAX
        {
            let chunk = &leaves.all[resolved..(resolved + PAGES_MAX).min(leaves.all.len())];
            leaves.resolving = chunk.len();
            self.actions.push_back(FetchAction::Resolve(chunk.to_vec()));
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
    if page.hash != expected.hash || page.records != expected.records || !in_place {
        return Err(PeerMisbehaved::WrongPage("a leaf is not the one its parent holds"));
    }
    Ok(())
}

/// An inner page has to be the one that its parent, or the head, holds.
fn check_children(level: u8, children: &[PageRef], page: &PageRef) -> Result<(), PeerMisbehaved> {
    let in_place = page.first_key.is_empty() || children[0].first_key == page.first_key;
    let records = children.iter().try_fold(0u64, |sum, child| sum.checked_add(child.records));
    if inner_hash(level, children) != page.hash || records != Some(page.records) || !in_place {
        return Err(PeerMisbehaved::WrongPage("an inner page is not the one its parent holds"));
    }
    Ok(())
}

/// Memory that a list of pages takes.
fn list_bytes(pages: &[PageRef]) -> usize {
    pages.iter().map(|page| page.first_key.len() + size_of::<PageRef>()).sum()
}

#[cfg(test)]
mod tests;
