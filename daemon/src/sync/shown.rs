//! Trees that are shown to peers: few at once, and to whom.
//!
//! Each holds a snapshot, for which the writer saves pages. Used by `provide`.
//! Invariant: whoever has none gets one, though others hold all there are: who has the
//! most makes room, or, where nobody has two more, who has had it for long. What the
//! other one has staged of the tree it finds again; a comparison begins anew. Of one
//! partition a peer is shown one tree, the newest: what the writer replaces is saved for
//! each one. Not here: how many one peer may have, and how fast it begins new ones
//! (`provide`).

use std::{
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use protocol::id::{NodeId, PartitionId};
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
    partition: PartitionId,
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
    pub fn enter(
        &self,
        peer: &NodeId,
        partition: &PartitionId,
        now: Duration,
    ) -> Option<Place<'_>> {
        let mut trees = self.lock();
        let same = |tree: &Tree| tree.peer == *peer && tree.partition == *partition;
        if let Some(earlier) = trees.iter().position(same) {
            trees.remove(earlier).makes_room.cancel();
        }
        if trees.len() >= SHOWN_MAX {
            let victim = victim(&trees, peer, now)?;
            trees.remove(victim).makes_room.cancel();
        }
        let makes_room = CancellationToken::new();
        let tree = Tree {
            peer: peer.clone(),
            partition: partition.clone(),
            since: now,
            makes_room: makes_room.clone(),
        };
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
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn peer(number: usize) -> NodeId {
        NodeId::new(&format!("county-{number}")).unwrap()
    }

    /// A place for a tree of a partition that nobody else is shown.
    fn enter(shown: &Shown, number: usize, now: Duration) -> Option<Place<'_>> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        shown.enter(&peer(number), &partition(&format!("d{next}")), now)
    }

    fn partition(dataset: &str) -> PartitionId {
        PartitionId::parse_full(&format!("zhengzhou/{dataset}/410122/*")).unwrap()
    }

    #[test]
    fn who_has_none_is_shown_one_though_others_hold_all() {
        let shown = Shown::default();
        let at = Duration::from_secs;
        let mut held = Vec::new();
        for number in 0..SHOWN_MAX {
            held.push(enter(&shown, number % 10, at(number as u64)).unwrap());
        }
        let gone = |held: &[Place<'_>]| -> Vec<usize> {
            let all = held.iter().enumerate();
            all.filter(|(_, place)| place.makes_room.is_cancelled()).map(|(at, _)| at).collect()
        };
        assert!(enter(&shown, 3, at(41)).is_none(), "it has as many as anybody");
        let honest = enter(&shown, 100, at(42)).unwrap();
        assert_eq!(gone(&held), [0], "the oldest of those who have four");
        let second = enter(&shown, 100, at(43)).unwrap();
        assert_eq!(gone(&held), [0, 1]);
        // Who has lost one gets it back when somebody has two more.
        assert!(enter(&shown, 0, at(44)).is_none());
        assert!(!honest.makes_room.is_cancelled() && !second.makes_room.is_cancelled());
        drop((honest, second));
        held.push(enter(&shown, 0, at(45)).unwrap());
        held.push(enter(&shown, 0, at(46)).unwrap());
        assert_eq!(gone(&held), [0, 1], "there was room");
    }

    #[test]
    fn where_everybody_has_one_the_oldest_makes_room_after_a_while() {
        let shown = Shown::default();
        let at = Duration::from_secs;
        let held: Vec<_> =
            (0..SHOWN_MAX).map(|number| enter(&shown, number, at(1)).unwrap()).collect();
        assert!(enter(&shown, 100, at(60)).is_none());
        let late = enter(&shown, 100, at(61)).unwrap();
        assert!(held[0].makes_room.is_cancelled() && !held[1].makes_room.is_cancelled());
        assert!(enter(&shown, 100, at(200)).is_none(), "it has one");
        drop(late);
        drop(held);
        assert!(shown.lock().is_empty());
    }

    #[test]
    fn of_one_partition_a_peer_is_shown_the_newest_tree() {
        let shown = Shown::default();
        let show = |number, dataset| {
            shown.enter(&peer(number), &partition(dataset), Duration::ZERO).unwrap()
        };
        let (first, other, others) = (show(1, "a"), show(1, "b"), show(2, "a"));
        let again = show(1, "a");
        assert!(first.makes_room.is_cancelled());
        drop(first);
        let left = [&other, &others, &again].map(|place| place.makes_room.is_cancelled());
        assert_eq!((left, shown.lock().len()), ([false; 3], 3));
    }
}
