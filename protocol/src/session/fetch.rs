//! An empty or far-behind replica takes the pages of a tree.
//!
//! From a signed head downwards every page is compared with the hash that its
//! parent holds, so a provider can withhold but not mislead. Inner pages serve
//! to find the leaves and are then forgotten: the replica makes its own from the
//! leaves. The list of leaves is held in memory, about 100 bytes for each 64
//! records.
//!
//! Leaves that the replica already holds, from an interrupted fetch or from an
//! older state, are not asked for again.

use std::collections::VecDeque;

use super::PeerMisbehaved;
use crate::{
    change::{KeyRing, Position, SignedHeader},
    id::PartitionId,
    message::{Open, PAGE_PART_BYTES_MAX, PAGES_MAX, TreeReply, TreeRequest, decode_header},
    page::{
        INNER_BYTES_MAX, LEAF_BYTES_MAX, LEVELS_MAX, Leaf, PageRef, Shape, decode_inner, inner_hash,
    },
    tree::empty_root,
};

/// Leaves that are resolved ahead of the one that is awaited: about 4 MB on
/// their way keep a link of 100 Mbit/s busy over 300 ms.
const LEAVES_AHEAD_MAX: usize = 2 * PAGES_MAX;

/// Bytes that the lists of pages may take: more than 100 million records need,
/// and a bound on what an origin that invents pages can take.
const LIST_BYTES_MAX: usize = 256 * 1024 * 1024;

/// A leaf of the fetched tree, in key order.
#[derive(Debug)]
pub enum FetchedLeaf {
    /// The replica said that it holds this one.
    Held(PageRef),
    /// It arrived, and its hash is right.
    Arrived {
        /// The page as its parent describes it, whether it ends where its keys
        /// say, and its index.
        described: (PageRef, Shape, Vec<u8>),
        /// Its content.
        leaf: Leaf,
        /// Its bytes, to be stored as they are.
        body: Vec<u8>,
    },
}

/// What the driver does for a fetch.
#[derive(Debug)]
pub enum FetchAction {
    /// Send this.
    Send(TreeRequest),
    /// Prepare to stage the tree of this head.
    Begin(Box<SignedHeader>),
    /// Say which of these leaves the replica holds, with
    /// [`TreeFetch::handle_resolved`].
    Resolve(Vec<PageRef>),
    /// Stage this leaf behind those before.
    Stage(FetchedLeaf),
    /// All leaves are staged: check the root and make the tree the replica's.
    Finish,
}

#[derive(Debug)]
enum State {
    AwaitHead,
    Inner { level: u8, wanted: Vec<PageRef>, arrived: usize, asked: usize, below: Vec<PageRef> },
    Leaves(Leaves),
    Finished,
}

#[derive(Debug, Default)]
struct Leaves {
    all: Vec<PageRef>,
    resolving: usize,
    /// For each resolved leaf, whether it is held.
    held: Vec<bool>,
    staged: usize,
}

/// The state of one fetch.
#[derive(Debug)]
pub struct TreeFetch {
    partition: PartitionId,
    have: Option<Position>,
    state: State,
    part: Vec<u8>,
    /// Bytes of all lists of pages so far.
    listed_bytes: usize,
    actions: VecDeque<FetchAction>,
}

impl TreeFetch {
    /// A fetch for a replica that is at `have`.
    pub fn new(partition: PartitionId, have: Option<Position>) -> Self {
        Self {
            partition,
            have,
            state: State::AwaitHead,
            part: Vec::new(),
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
            (TreeReply::Head { header, levels }, State::AwaitHead) => {
                self.handle_head(decode_header(&header)?, levels, keys)
            }
            (TreeReply::Part { bytes, more }, State::Inner { .. } | State::Leaves(_)) => {
                self.handle_part(&bytes, more)
            }
            _ => Err(PeerMisbehaved::Unexpected("a part of a tree")),
        }
    }

    fn handle_head(
        &mut self,
        head: SignedHeader,
        levels: u8,
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
            last_zeros: 0,
        };
        self.actions.push_back(FetchAction::Begin(Box::new(head)));
        match levels {
            0 => self.begin_leaves(Vec::new()),
            1 => self.begin_leaves(vec![root]),
            _ => self.begin_inner(levels - 1, vec![root]),
        }
        Ok(())
    }

    fn begin_inner(&mut self, level: u8, wanted: Vec<PageRef>) {
        self.state = State::Inner { level, wanted, arrived: 0, asked: 0, below: Vec::new() };
        self.ask_inner();
    }

    /// Asks for the next batch of inner pages once the one before has arrived.
    fn ask_inner(&mut self) {
        if let State::Inner { level, wanted, arrived, asked, .. } = &mut self.state
            && *arrived == *asked
        {
            let batch = &wanted[*asked..(*asked + PAGES_MAX).min(wanted.len())];
            *asked += batch.len();
            let keys = batch.iter().map(|page| page.first_key.clone()).collect();
            self.actions.push_back(FetchAction::Send(TreeRequest::Pages { level: *level, keys }));
        }
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
        match &self.state {
            State::Inner { .. } => self.handle_inner(&body),
            _ => self.handle_leaf(body),
        }
    }

    fn handle_inner(&mut self, body: &[u8]) -> Result<(), PeerMisbehaved> {
        let State::Inner { level, wanted, arrived, asked, below } = &mut self.state else {
            return Err(PeerMisbehaved::Unexpected("an inner page"));
        };
        if arrived >= asked {
            return Err(PeerMisbehaved::Unexpected("a page that nobody asked for"));
        }
        let expected = &wanted[*arrived];
        let children = decode_inner(body)?;
        let in_place = expected.first_key.is_empty() || children[0].first_key == expected.first_key;
        let records = children.iter().try_fold(0u64, |sum, child| sum.checked_add(child.records));
        if inner_hash(*level, &children) != expected.hash
            || records != Some(expected.records)
            || !in_place
        {
            return Err(PeerMisbehaved::WrongPage("an inner page is not the one its parent holds"));
        }
        if below.last().is_some_and(|last| last.first_key >= children[0].first_key) {
            return Err(PeerMisbehaved::WrongPage("inner pages are not in key order"));
        }
        let bytes: usize =
            children.iter().map(|child| child.first_key.len() + size_of::<PageRef>()).sum();
        self.listed_bytes += bytes;
        if self.listed_bytes > LIST_BYTES_MAX {
            return Err(PeerMisbehaved::WrongPage("its pages are too many to list"));
        }
        below.extend(children);
        *arrived += 1;
        if *arrived == wanted.len() {
            let (level, below) = (*level, std::mem::take(below));
            if level == 1 {
                self.begin_leaves(below);
            } else {
                self.begin_inner(level - 1, below);
            }
        } else {
            self.ask_inner();
        }
        Ok(())
    }

    fn handle_leaf(&mut self, body: Vec<u8>) -> Result<(), PeerMisbehaved> {
        let State::Leaves(leaves) = &mut self.state else {
            return Err(PeerMisbehaved::Unexpected("a leaf"));
        };
        if leaves.staged >= leaves.held.len() {
            return Err(PeerMisbehaved::Unexpected("a page that nobody asked for"));
        }
        let expected = &leaves.all[leaves.staged];
        let leaf = Leaf::decode(&body)?;
        let described = leaf.describe_with_index();
        let page = &described.0;
        let in_place = expected.first_key.is_empty() || page.first_key == expected.first_key;
        if page.hash != expected.hash || page.records != expected.records || !in_place {
            return Err(PeerMisbehaved::WrongPage("a leaf is not the one its parent holds"));
        }
        leaves.staged += 1;
        self.actions.push_back(FetchAction::Stage(FetchedLeaf::Arrived { described, leaf, body }));
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
        if !keys.is_empty() {
            self.actions.push_back(FetchAction::Send(TreeRequest::Pages { level: 0, keys }));
        }
        self.advance_leaves();
    }

    /// Stages held leaves up to the next one that has to arrive, and looks
    /// further ahead.
    fn advance_leaves(&mut self) {
        let State::Leaves(leaves) = &mut self.state else {
            return;
        };
        while leaves.held.get(leaves.staged) == Some(&true) {
            let page = leaves.all[leaves.staged].clone();
            self.actions.push_back(FetchAction::Stage(FetchedLeaf::Held(page)));
            leaves.staged += 1;
        }
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
