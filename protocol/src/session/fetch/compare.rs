//! The first try of a replica that holds something: only what differs.
//!
//! From the root downwards, level by level, a page whose hash is that of the
//! replica's own page ends the descent there; of another one the provider tells
//! what the replica's page lacks. What comes out, in key order, is the tree as
//! subtrees that the replica holds and leaves that it does not.
//!
//! It holds the references of the pages that differ and of their siblings, and
//! the replica's own pages for the answers that are awaited; these are bounded by
//! their bytes, since a provider may keep silent for as long as it likes.

use std::collections::VecDeque;

use super::{FetchAction, Piece, check_children, check_leaf};
use crate::{
    change::CHANGES_MAX,
    difference::{self, Own, Salt},
    hash::Hash,
    message::{DIFFERENCES_MAX, KnownPage, TreeRequest},
    page::{PageRef, inner_hash},
    session::PeerMisbehaved,
    suite::Suite,
};

/// Pages whose answers may be awaited when more are asked for: keeps a slow
/// link busy.
const AWAITED_MAX: usize = 2 * DIFFERENCES_MAX;
/// Bytes of the replica's own pages for them from which on no more are looked up:
/// twice what so many usual leaves, of 30 KB, have. One page may lie across it, and
/// a leaf may have 10 MB.
const OWN_BYTES_MAX: usize = 8 * 1024 * 1024;

/// One descent.
#[derive(Debug)]
pub(super) struct Compare {
    suite: Suite,
    level: u8,
    /// The tree in key order: pages of this level, and held ones of any above.
    parts: Vec<Part>,
    /// The same for the level below, as far as it is known.
    below: Vec<Part>,
    /// Parts that are settled: held, or taken apart.
    settled: usize,
    /// Parts that the replica was asked about.
    looked: usize,
    /// Those that it is asked about now.
    looking: Vec<usize>,
    /// Those that the provider was asked for, with what the replica has there.
    awaited: VecDeque<(usize, Own)>,
    /// Bytes of the replica's pages among these.
    own_bytes: usize,
    /// The root's children, if they came with the head.
    root: Option<Vec<PageRef>>,
    salt: Salt,
}

#[derive(Debug)]
struct Part {
    page: PageRef,
    level: u8,
    held: bool,
}

/// How far a descent has come.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// It waits for the replica or the provider.
    Waiting,
    /// All pieces were told.
    Done,
    /// So much differs that the whole tree has to be made anew.
    TooMuch,
}

impl Compare {
    /// A descent from `root`, a page of the highest of `levels` levels, whose
    /// children may be known.
    pub fn new(root: PageRef, levels: u8, children: Option<Vec<PageRef>>, salt: Salt) -> Self {
        let (suite, level) = (root.hash.suite(), levels.saturating_sub(1));
        let parts =
            if levels == 0 { vec![] } else { vec![Part { page: root, level, held: false }] };
        Self {
            suite,
            level,
            parts,
            below: Vec::new(),
            settled: 0,
            looked: 0,
            looking: Vec::new(),
            awaited: VecDeque::new(),
            own_bytes: 0,
            root: children,
            salt,
        }
    }

    /// Pages that were asked for and have not arrived.
    pub fn awaited(&self) -> usize {
        self.awaited.len()
    }

    /// References that are held in memory.
    pub fn references(&self) -> usize {
        self.parts.len() + self.below.len() + self.root.as_ref().map_or(0, Vec::len)
    }

    /// Bytes of the replica's pages that it holds.
    pub fn held_bytes(&self) -> usize {
        let held = || self.awaited.iter().map(|(_, own)| own.bytes()).sum::<usize>();
        debug_assert_eq!(self.own_bytes, held());
        self.own_bytes
    }

    /// What the replica has at the places that it was asked about, or at the first
    /// of them: the rest is asked for again.
    pub fn handle_own(
        &mut self,
        own: Vec<Own>,
        actions: &mut VecDeque<FetchAction>,
    ) -> Result<(), PeerMisbehaved> {
        let mut pages = Vec::new();
        let looking = std::mem::take(&mut self.looking);
        if let Some(first) = looking.get(own.len()) {
            self.looked = *first;
        }
        for (index, own) in looking.into_iter().zip(own) {
            let part = &mut self.parts[index];
            if hash_of(self.suite, &own, self.level) == Some(part.page.hash) {
                part.held = true;
            } else if let Some(children) = self.root.take() {
                self.take_apart(index, children, &own);
            } else {
                let (first_key, known) =
                    (part.page.first_key.clone(), own.known(self.suite, &self.salt));
                pages.push(KnownPage { first_key, known });
                self.own_bytes += own.bytes();
                self.awaited.push_back((index, own));
            }
        }
        if !pages.is_empty() {
            let (level, salt) = (self.level, self.salt);
            actions.push_back(FetchAction::Send(TreeRequest::Differences { level, salt, pages }));
        }
        Ok(())
    }

    /// The provider told the next page. Answers the bytes of the references
    /// that it adds.
    pub fn handle_page(
        &mut self,
        body: &[u8],
        actions: &mut VecDeque<FetchAction>,
    ) -> Result<usize, PeerMisbehaved> {
        let Some((index, own)) = self.awaited.pop_front() else {
            return Err(PeerMisbehaved::Unexpected("a page that nobody asked for"));
        };
        self.own_bytes -= own.bytes();
        self.settle_up_to(index, actions);
        let expected = &self.parts[index].page;
        if self.level > 0 {
            let children = difference::inner(self.suite, body, &own)?;
            check_children(self.level, &children, expected)?;
            let bytes = difference::list_bytes(&children);
            self.take_apart(index, children, &own);
            return Ok(bytes);
        }
        let leaf = difference::leaf(body, &own)?;
        check_leaf(&leaf.describe(self.suite), expected)?;
        actions.push_back(FetchAction::Piece(Piece::Leaf(leaf)));
        self.settled = index + 1;
        Ok(0)
    }

    /// Puts the children of a page in its place, one level below. Those that the
    /// replica's page has too are held.
    fn take_apart(&mut self, index: usize, children: Vec<PageRef>, own: &Own) {
        let level = self.level - 1;
        let mut known = match own {
            Own::Inner(known) => known.as_slice(),
            _ => &[],
        };
        for page in children {
            // Both lists are in key order.
            let before = known.partition_point(|own| own.first_key < page.first_key);
            known = &known[before..];
            let held = known
                .first()
                .is_some_and(|own| own.first_key == page.first_key && own.hash == page.hash);
            self.below.push(Part { page, level, held });
        }
        self.settled = index + 1;
    }

    /// Hands held parts before `end` on to the level below, or out.
    fn settle_up_to(&mut self, end: usize, actions: &mut VecDeque<FetchAction>) {
        for index in self.settled..end {
            let part = &self.parts[index];
            let (page, level) = (part.page.clone(), part.level);
            if self.level == 0 {
                actions.push_back(FetchAction::Piece(Piece::Held { level, page }));
            } else {
                self.below.push(Part { page, level, held: true });
            }
        }
        self.settled = self.settled.max(end);
    }

    /// Goes on as far as it gets.
    pub fn advance(&mut self, actions: &mut VecDeque<FetchAction>) -> Progress {
        if !self.looking.is_empty() {
            return Progress::Waiting;
        }
        loop {
            let held = self.parts[self.settled..self.looked.max(self.settled)]
                .iter()
                .take_while(|part| part.held)
                .count();
            self.settle_up_to(self.settled + held, actions);
            if self.looked < self.parts.len() {
                if self.awaited.len() > AWAITED_MAX || self.own_bytes >= OWN_BYTES_MAX {
                    return Progress::Waiting;
                }
                self.look(actions);
                if !self.looking.is_empty() {
                    return Progress::Waiting;
                }
            } else if self.settled < self.parts.len() {
                return Progress::Waiting;
            } else if self.level == 0 {
                return Progress::Done;
            } else {
                self.level -= 1;
                self.parts = std::mem::take(&mut self.below);
                (self.settled, self.looked) = (0, 0);
                // Each leaf that differs is at least one change.
                let differing = self.parts.iter().filter(|part| !part.held).count();
                if differing > CHANGES_MAX {
                    return Progress::TooMuch;
                }
            }
        }
    }

    /// Asks the replica what it has in place of the next parts that are not
    /// held.
    fn look(&mut self, actions: &mut VecDeque<FetchAction>) {
        while self.looked < self.parts.len() && self.looking.len() < DIFFERENCES_MAX {
            if !self.parts[self.looked].held {
                self.looking.push(self.looked);
            }
            self.looked += 1;
        }
        if !self.looking.is_empty() {
            let pages = self.looking.iter().map(|&index| self.parts[index].page.clone()).collect();
            let (level, bytes_max) = (self.level, OWN_BYTES_MAX - self.own_bytes);
            actions.push_back(FetchAction::Look { level, pages, bytes_max });
        }
    }
}

/// The hash of a page that the replica has; computed, never taken from its
/// parent.
pub(super) fn hash_of(suite: Suite, own: &Own, level: u8) -> Option<Hash> {
    match own {
        Own::Nothing => None,
        Own::Inner(children) => (level > 0).then(|| inner_hash(suite, level, children)),
        Own::Leaf(leaf) => (level == 0).then(|| leaf.describe(suite).hash),
    }
}
