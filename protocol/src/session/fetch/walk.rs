//! All leaves of a tree in key order.
//!
//! Inner pages are taken apart only as far ahead as keeps a slow link busy, each
//! level's in key order, so what is held in memory does not depend on how large
//! the tree is, or is said to be: some thousand references to pages.

use std::collections::VecDeque;

use super::{ArrivedLeaf, FetchAction, FetchedLeaf, check_children, compare::hash_of};
use crate::{
    difference::Own,
    message::{PAGES_MAX, TreeRequest},
    page::{PageRef, decode_inner},
    session::PeerMisbehaved,
};

/// Leaves that are resolved ahead of the one that is awaited: about 4 MB on
/// their way keep a link of 100 Mbit/s busy over 300 ms.
const LEAVES_AHEAD_MAX: usize = 2 * PAGES_MAX;
/// Pages of the lowest inner level that are taken apart at once: a thousand
/// leaves.
const PARENTS_AT_ONCE: usize = 16;
/// Pages of a higher level at once, and pages below from which on no more are
/// taken apart: each has some sixty below it.
const ABOVE_AT_ONCE: usize = 4;
const BELOW_ENOUGH: usize = 64;

/// Leaves that are checked together if they are there, enough to share out among
/// threads.
const LEAVES_TOGETHER: usize = 32;
/// Bytes, uncompressed, that end such a group earlier: one leaf may have 10 MB.
const LEAF_BYTES_TOGETHER: usize = 4 * 1024 * 1024;

/// The way through one tree.
#[derive(Debug)]
pub(super) struct Walk {
    /// The inner pages of each level from 1 on that are not taken apart, in key
    /// order; those of a level lie behind all of the levels below.
    inner: Vec<VecDeque<Parent>>,
    leaves: VecDeque<LeafSlot>,
    /// Levels and numbers of the pages that the replica was asked for.
    looks: VecDeque<(u8, usize)>,
    /// Levels of the pages that the provider was asked for, in that order.
    awaited: VecDeque<u8>,
    /// The last first key of each level from 0 on.
    last_keys: Vec<Option<Vec<u8>>>,
    /// Leaves that the replica is asked about.
    resolving: usize,
    unchecked: Vec<ArrivedLeaf>,
    unchecked_bytes: usize,
    /// The root's children, if they came with the head.
    root: Option<Vec<PageRef>>,
    finished: bool,
}

#[derive(Debug)]
struct Parent {
    page: PageRef,
    step: ParentStep,
}

#[derive(Debug)]
enum ParentStep {
    Waiting,
    /// The replica is asked for it.
    Looking,
    /// The provider is asked for it.
    Asked,
    Known(Vec<PageRef>),
}

#[derive(Debug)]
struct LeafSlot {
    page: PageRef,
    step: LeafStep,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LeafStep {
    Waiting,
    Resolving,
    /// The replica has it.
    Held,
    /// The provider is asked for it.
    Asked,
    Arrived,
}

impl Walk {
    /// From `root`, a page of the highest of `levels` levels, whose children may
    /// be known.
    pub fn new(root: PageRef, levels: u8, children: Option<Vec<PageRef>>) -> Self {
        let mut walk = Self {
            inner: (1..levels).map(|_| VecDeque::new()).collect(),
            leaves: VecDeque::new(),
            looks: VecDeque::new(),
            awaited: VecDeque::new(),
            last_keys: (0..levels).map(|_| None).collect(),
            resolving: 0,
            unchecked: Vec::new(),
            unchecked_bytes: 0,
            root: children,
            finished: false,
        };
        match walk.inner.last_mut() {
            Some(top) => top.push_back(Parent { page: root, step: ParentStep::Waiting }),
            None if levels == 1 => {
                walk.leaves.push_back(LeafSlot { page: root, step: LeafStep::Waiting });
            }
            None => {}
        }
        walk
    }

    /// Goes on as far as it gets.
    pub fn advance(&mut self, actions: &mut VecDeque<FetchAction>) -> Result<(), PeerMisbehaved> {
        self.descend()?;
        for index in 0..self.inner.len() {
            self.look(index, actions);
        }
        self.stage_held(actions);
        self.resolve(actions);
        let is_done = self.leaves.is_empty() && self.inner.iter().all(VecDeque::is_empty);
        if is_done && !self.finished {
            self.finished = true;
            actions.push_back(FetchAction::Finish);
        }
        Ok(())
    }

    /// Whether enough pages of the level below `inner[index]` wait.
    fn has_enough_below(&self, index: usize) -> bool {
        match index.checked_sub(1) {
            Some(below) => self.inner[below].len() >= BELOW_ENOUGH,
            None => self.leaves.len() >= LEAVES_AHEAD_MAX,
        }
    }

    /// Puts the children of pages that are known in their place, from the top.
    fn descend(&mut self) -> Result<(), PeerMisbehaved> {
        for index in (0..self.inner.len()).rev() {
            while !self.has_enough_below(index)
                && let Some(Parent { step: ParentStep::Known(_), .. }) = self.inner[index].front()
                && let Some(Parent { step: ParentStep::Known(children), .. }) =
                    self.inner[index].pop_front()
            {
                let last_key = &mut self.last_keys[index];
                for page in children {
                    if last_key.as_ref().is_some_and(|last| *last >= page.first_key) {
                        return Err(PeerMisbehaved::WrongPage("pages are not in key order"));
                    }
                    *last_key = Some(page.first_key.clone());
                    match index.checked_sub(1) {
                        Some(below) => {
                            self.inner[below].push_back(Parent { page, step: ParentStep::Waiting })
                        }
                        None => {
                            self.leaves.push_back(LeafSlot { page, step: LeafStep::Waiting });
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Asks the replica for the next pages of a level.
    fn look(&mut self, index: usize, actions: &mut VecDeque<FetchAction>) {
        if self.has_enough_below(index) {
            return;
        }
        let at_once = if index == 0 { PARENTS_AT_ONCE } else { ABOVE_AT_ONCE };
        let next = self.inner[index].iter_mut().take(at_once);
        let waiting = next.filter(|parent| matches!(parent.step, ParentStep::Waiting));
        let pages: Vec<PageRef> = waiting
            .map(|parent| {
                parent.step = ParentStep::Looking;
                parent.page.clone()
            })
            .collect();
        if !pages.is_empty() {
            let level = index as u8 + 1;
            self.looks.push_back((level, pages.len()));
            // So few inner pages, each with its limit, take 3 MB at most.
            actions.push_back(FetchAction::Look { level, pages, bytes_max: usize::MAX });
        }
    }

    /// What the replica has at the places of the earliest look.
    pub fn handle_own(
        &mut self,
        own: Vec<Own>,
        actions: &mut VecDeque<FetchAction>,
    ) -> Result<(), PeerMisbehaved> {
        let Some((level, count)) = self.looks.pop_front() else {
            // The answer to a look of what was given up.
            return Ok(());
        };
        let mut own = own.into_iter();
        let mut keys = Vec::new();
        let parents = self.inner[usize::from(level) - 1].iter_mut();
        let looking = parents.filter(|parent| matches!(parent.step, ParentStep::Looking));
        for parent in looking.take(count) {
            let own = own.next().unwrap_or(Own::Nothing);
            let same = hash_of(parent.page.hash.suite(), &own, level) == Some(parent.page.hash);
            parent.step = match own {
                Own::Inner(children) if same => ParentStep::Known(children),
                // Only the root's first key is not known.
                _ => match self.root.take().filter(|_| parent.page.first_key.is_empty()) {
                    Some(children) => ParentStep::Known(children),
                    None => {
                        keys.push(parent.page.first_key.clone());
                        ParentStep::Asked
                    }
                },
            };
        }
        if !keys.is_empty() {
            self.awaited.extend(keys.iter().map(|_| level));
            actions.push_back(FetchAction::Send(TreeRequest::Pages { level, keys }));
        }
        self.advance(actions)
    }

    /// The next page that was asked for.
    pub fn handle_page(
        &mut self,
        body: Vec<u8>,
        actions: &mut VecDeque<FetchAction>,
    ) -> Result<(), PeerMisbehaved> {
        let unasked = PeerMisbehaved::Unexpected("a page that nobody asked for");
        let Some(level) = self.awaited.pop_front() else {
            return Err(unasked);
        };
        let Some(index) = usize::from(level).checked_sub(1) else {
            return self.handle_leaf(body, actions);
        };
        let asked = |parent: &&mut Parent| matches!(parent.step, ParentStep::Asked);
        let parent = self.inner[index].iter_mut().find(asked).ok_or(unasked)?;
        let children = decode_inner(parent.page.hash.suite(), &body)?;
        check_children(level, &children, &parent.page)?;
        parent.step = ParentStep::Known(children);
        self.advance(actions)
    }

    fn handle_leaf(
        &mut self,
        body: Vec<u8>,
        actions: &mut VecDeque<FetchAction>,
    ) -> Result<(), PeerMisbehaved> {
        let asked = self.leaves.iter_mut().find(|leaf| leaf.step == LeafStep::Asked);
        let leaf = asked.ok_or(PeerMisbehaved::Unexpected("a page that nobody asked for"))?;
        leaf.step = LeafStep::Arrived;
        let leaf = ArrivedLeaf { expected: leaf.page.clone(), body };
        // One that says that it is short may be long.
        self.unchecked_bytes += leaf.unpacks();
        self.unchecked.push(leaf);
        if self.unchecked.len() >= LEAVES_TOGETHER || self.unchecked_bytes >= LEAF_BYTES_TOGETHER {
            self.check_arrived(actions);
        }
        Ok(())
    }

    /// Bytes of the leaves that have arrived and that nobody has checked.
    pub fn held_bytes(&self) -> usize {
        self.unchecked.iter().map(|leaf| leaf.body.len()).sum()
    }

    /// Whether leaves have arrived that nobody has checked.
    pub fn has_unchecked(&self) -> bool {
        !self.unchecked.is_empty()
    }

    /// Has those leaves checked that have arrived.
    pub fn check_arrived(&mut self, actions: &mut VecDeque<FetchAction>) {
        if !self.unchecked.is_empty() {
            self.unchecked_bytes = 0;
            actions.push_back(FetchAction::Check(std::mem::take(&mut self.unchecked)));
        }
    }

    /// What came of leaves that were checked.
    pub fn handle_checked(
        &mut self,
        checked: Vec<Result<FetchedLeaf, PeerMisbehaved>>,
        actions: &mut VecDeque<FetchAction>,
    ) -> Result<(), PeerMisbehaved> {
        for leaf in checked {
            let leaf = leaf?;
            self.stage_held(actions);
            self.leaves.pop_front();
            actions.push_back(FetchAction::Stage(leaf));
        }
        self.advance(actions)
    }

    /// Stages held leaves up to the next one that has to arrive.
    fn stage_held(&mut self, actions: &mut VecDeque<FetchAction>) {
        while let Some(leaf) = self.leaves.pop_front_if(|leaf| leaf.step == LeafStep::Held) {
            actions.push_back(FetchAction::Stage(FetchedLeaf::Held(leaf.page)));
        }
    }

    /// Asks the replica which of the next leaves it holds.
    fn resolve(&mut self, actions: &mut VecDeque<FetchAction>) {
        let ahead = self.leaves.iter().take_while(|leaf| leaf.step != LeafStep::Waiting).count();
        if self.resolving > 0 || ahead + PAGES_MAX > LEAVES_AHEAD_MAX {
            return;
        }
        let next = self.leaves.iter_mut().skip(ahead).take(PAGES_MAX);
        let pages: Vec<PageRef> = next
            .map(|leaf| {
                leaf.step = LeafStep::Resolving;
                leaf.page.clone()
            })
            .collect();
        if !pages.is_empty() {
            self.resolving = pages.len();
            actions.push_back(FetchAction::Resolve(pages));
        }
    }

    /// Which of the leaves that were asked about the replica holds.
    pub fn handle_resolved(
        &mut self,
        held: &[bool],
        actions: &mut VecDeque<FetchAction>,
    ) -> Result<(), PeerMisbehaved> {
        let resolving = self.leaves.iter_mut().filter(|leaf| leaf.step == LeafStep::Resolving);
        let mut keys = Vec::new();
        for (leaf, held) in resolving.zip(held) {
            leaf.step = if *held { LeafStep::Held } else { LeafStep::Asked };
            if !held {
                keys.push(leaf.page.first_key.clone());
            }
        }
        self.resolving = 0;
        if !keys.is_empty() {
            self.awaited.extend(keys.iter().map(|_| 0));
            actions.push_back(FetchAction::Send(TreeRequest::Pages { level: 0, keys }));
        }
        self.advance(actions)
    }

    /// References that are held in memory.
    pub fn references(&self) -> usize {
        let children = |parent: &Parent| match &parent.step {
            ParentStep::Known(children) => 1 + children.len(),
            _ => 1,
        };
        self.leaves.len() + self.inner.iter().flatten().map(children).sum::<usize>()
    }
}
