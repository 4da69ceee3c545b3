//! Trees that are shown to peers: few at once, and to whom.
//!
//! Each holds a snapshot, for which the writer saves pages. Used by `provide`.
//! Invariant: whoever has none gets one, though others hold all there are: who has the
//! most makes room, or, where nobody has two more, who has had it for long. What the
//! other one has staged of the tree it finds again; a comparison begins anew. Not here: how many one peer may
//! have, and how fast it begins new ones (`provide`).

use std::{
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use protocol::id::NodeId;
use tokio_util::sync::CancellationToken;

/// Trees that are shown at once: fewer than the snapshots that the store opens for
/// peers, because one that makes room is still open while the next one begins.
pub(super) const SHOWN_MAX: usize = 40;
/// How long one may be shown before somebody who has fewer takes its place, where nobody
/// has two more: a million records take some seconds on a county's line.
const UNDISTURBED: Duration = Duration::from_secs(60);

/// The trees that are shown.
#[derive(Default)]
pub(super) struct Shown(Mutex<Vec<Tree>>);

struct Tree {
    peer: NodeId,
    since: Duration,
    makes_room: CancellationToken,
}

/// A place for one tree, until it is dropped.
pub(super) struct Place<'a> {
    of: &'a Shown,
    /// Somebody else needs the place more.
    pub makes_room: CancellationToken,
}

impl Shown {
    fn lock(&self) -> MutexGuard<'_, Vec<Tree>> {
        self.0.lock().unwrap_or_else(|error| error.into_inner())
    }

    /// A place for a tree that is shown to `peer` from now on, if there is one for it.
    pub fn enter(&self, peer: &NodeId, now: Duration) -> Option<Place<'_>> {
        let mut trees = self.lock();
        if trees.len() >= SHOWN_MAX {
            let victim = victim(&trees, peer, now)?;
            trees.remove(victim).makes_room.cancel();
        }
        let makes_room = CancellationToken::new();
        let tree = Tree { peer: peer.clone(), since: now, makes_room: makes_room.clone() };
        trees.push(tree);
        Some(Place { of: self, makes_room })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if !self.makes_room.is_cancelled() {
            self.makes_room.cancel();
            self.of.lock().retain(|tree| !tree.makes_room.is_cancelled());
        }
    }
}

/// Which tree makes room for one of `peer`'s: the oldest one of whoever has the most.
fn victim(trees: &[Tree], peer: &NodeId, now: Duration) -> Option<usize> {
    let count = |peer: &NodeId| trees.iter().filter(|tree| tree.peer == *peer).count();
    let most = trees.iter().map(|tree| count(&tree.peer)).max()?;
    let (oldest, tree) = trees.iter().enumerate().find(|(_, tree)| count(&tree.peer) == most)?;
    let is_old = now.saturating_sub(tree.since) >= UNDISTURBED;
    let own = count(peer);
    (most > own + 1 || most > own && is_old).then_some(oldest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: usize) -> NodeId {
        NodeId::new(&format!("county-{number}")).unwrap()
    }

    #[test]
    fn who_has_none_is_shown_one_though_others_hold_all() {
        let shown = Shown::default();
        let at = Duration::from_secs;
        let mut held = Vec::new();
        for number in 0..SHOWN_MAX {
            held.push(shown.enter(&peer(number % 10), at(number as u64)).unwrap());
        }
        let gone = |held: &[Place<'_>]| -> Vec<usize> {
            let all = held.iter().enumerate();
            all.filter(|(_, place)| place.makes_room.is_cancelled()).map(|(at, _)| at).collect()
        };
        assert!(shown.enter(&peer(3), at(41)).is_none(), "it has as many as anybody");
        let honest = shown.enter(&peer(100), at(42)).unwrap();
        assert_eq!(gone(&held), [0], "the oldest of those who have four");
        let second = shown.enter(&peer(100), at(43)).unwrap();
        assert_eq!(gone(&held), [0, 1]);
        // Who has lost one gets it back when somebody has two more.
        assert!(shown.enter(&peer(0), at(44)).is_none());
        assert!(!honest.makes_room.is_cancelled() && !second.makes_room.is_cancelled());
        drop((honest, second));
        held.push(shown.enter(&peer(0), at(45)).unwrap());
        held.push(shown.enter(&peer(0), at(46)).unwrap());
        assert_eq!(gone(&held), [0, 1], "there was room");
    }

    #[test]
    fn where_everybody_has_one_the_oldest_makes_room_after_a_while() {
        let shown = Shown::default();
        let at = Duration::from_secs;
        let held: Vec<_> =
            (0..SHOWN_MAX).map(|number| shown.enter(&peer(number), at(1)).unwrap()).collect();
        assert!(shown.enter(&peer(100), at(60)).is_none());
        let late = shown.enter(&peer(100), at(61)).unwrap();
        assert!(held[0].makes_room.is_cancelled() && !held[1].makes_room.is_cancelled());
        assert!(shown.enter(&peer(100), at(200)).is_none(), "it has one");
        drop(late);
        drop(held);
        assert!(shown.lock().is_empty());
    }
}
