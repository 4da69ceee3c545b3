//! What a person does about two histories of one partition, as `partition resolve` does it.
//!
//! At its origin what is here is set aside and dropped, what the peer holds is taken back,
//! and with `keep` the difference is issued again behind that. Where others hold further
//! histories, those are given up. The command's steps are modelled here
//! (`app/ops/resolve.rs`, `others.rs`); taking back is what the sessions do anyway.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use protocol::{
    change::{Change, Position},
    hash::Hash,
    id::PartitionId,
};

use super::{
    cast::HUB,
    node::{Node, Shared},
    store::Records,
};

/// A resolution that was begun.
#[derive(Clone)]
pub struct Resolving {
    theirs: Position,
    /// What peers had announced when it began.
    held: Vec<(usize, Position)>,
    /// Who has held a further history.
    given_up: BTreeSet<usize>,
    aside: Records,
    keep: bool,
}

impl std::fmt::Debug for Resolving {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} and {} records, keep {}", self.theirs, self.aside.len(), self.keep)
    }
}

/// Connections that were ended by a command are back within this, and quarantines are
/// over by themselves.
const PATIENCE: Duration = Duration::from_secs(90);
/// Changes of one change set.
const CHANGES_MAX: usize = 100;

/// The person, and what they have at hand.
#[derive(Debug)]
pub struct Person<'a> {
    /// All nodes.
    pub nodes: &'a mut [Node],
    /// What they share.
    pub shared: &'a mut Shared,
    /// When something was begun last.
    pub begun: &'a mut BTreeMap<PartitionId, Duration>,
}

impl Person<'_> {
    /// Begins with every own partition of which somebody holds another history, or which
    /// waits for one that nobody can prove, and ends what is back.
    pub fn look(&mut self) {
        for node in 0..self.nodes.len() {
            for partition in self.shared.cast.own_partitions(node) {
                let is_begun = self.nodes[node].store.resolving.contains_key(&partition);
                match is_begun {
                    true => self.end(node, &partition),
                    false if partition.dataset.is_system() => {}
                    false => self.begin(node, &partition),
                }
                self.refetch(node, &partition);
            }
        }
    }

    /// Ends everything whose history is back.
    pub fn end_all(&mut self) {
        for node in 0..self.nodes.len() {
            for partition in self.shared.cast.own_partitions(node) {
                self.end(node, &partition);
            }
        }
    }

    /// Whoever holds what was given up drops its copy and takes another; and so does who is
    /// at a number over which the origin has jumped when it took its history back, so that
    /// it cannot prove it: nothing but this ends that wait.
    fn refetch(&mut self, origin: usize, partition: &PartitionId) {
        for peer in (0..self.nodes.len()).filter(|peer| (*peer == HUB) != (origin == HUB)) {
            let Some(at) = self.nodes[peer].store.position(partition) else { continue };
            let own = &self.nodes[origin].store;
            let state = own.partition(partition);
            let is_jumped_over = state.is_some_and(|state| {
                state.position().is_some_and(|own| own.seq > at.seq)
                    && state.proof(Some(at.seq)).is_none()
            });
            if own.lost(partition).is_none()
                && (own.has_given_up(partition, at) || is_jumped_over)
                && self.is_linked(origin, peer)
            {
                self.shared.oracle.forgot(peer, partition);
                self.nodes[peer].store.forget(partition);
                self.nodes[peer].connect_again(self.shared);
            }
        }
    }

    /// What connected peers say that they hold of a partition of `node`.
    fn held_by_peers(&self, node: usize, partition: &PartitionId) -> Vec<(usize, Position)> {
        let peers = (0..self.nodes.len()).filter(|peer| (*peer == HUB) != (node == HUB));
        let said = |peer: usize| {
            let link = self.nodes[node].newest_link_with(&self.shared.net, peer)?;
            Some((peer, link.peer_head(partition)?.position))
        };
        peers.filter_map(said).collect()
    }

    /// Whether there is something to decide: a peer has stopped, or this node has.
    fn is_needed(&self, node: usize, partition: &PartitionId) -> bool {
        let own = &self.nodes[node].store;
        let have = own.position(partition).map_or(0, |at| at.seq);
        own.partition(partition).is_some_and(|state| state.quarantined)
            || own.claims.awaited(partition) > have
            || self.held_by_peers(node, partition).into_iter().any(|(peer, at)| {
                let copy = self.nodes[peer].store.partition(partition);
                // What was given up is fetched again there.
                copy.is_some_and(|copy| copy.quarantined) && !own.has_given_up(partition, at)
            })
    }

    /// The peer whose history goes on: of those that hold another one the one that is
    /// furthest, or else the one that holds most.
    fn holder_of_another(&self, node: usize, partition: &PartitionId) -> Option<usize> {
        let own = &self.nodes[node].store;
        let held = self.held_by_peers(node, partition);
        let furthest = |held: &mut dyn Iterator<Item = &(usize, Position)>| {
            held.max_by_key(|(peer, at)| (at.seq, *peer)).map(|(peer, _)| *peer)
        };
        let counts = |at: Position| !own.has_given_up(partition, at);
        let others = held.iter().filter(|(_, at)| !own.holds(partition, *at) && counts(*at));
        furthest(&mut others.into_iter()).or_else(|| furthest(&mut held.iter()))
    }

    /// Gives up whatever others hold and is not of the history that is here, and ends a
    /// quarantine that one of them has brought meanwhile.
    fn give_up_others(&mut self, node: usize, partition: &PartitionId) {
        let said = self.held_by_peers(node, partition);
        let store = &mut self.nodes[node].store;
        let Some(mut resolving) = store.resolving.get(partition).cloned() else { return };
        let counts =
            |at: &Position| at.hash != resolving.theirs.hash && !store.has_given_up(partition, *at);
        let here = |at: &Position| {
            let known = store.partition(partition).and_then(|state| state.header_hash(at.seq));
            known.map(|known| known == at.hash)
        };
        let said: Vec<_> = resolving.held.iter().copied().chain(said).collect();
        let others = said.iter().filter(|(_, at)| counts(at) && here(at) == Some(false));
        let evidence = store.partition(partition).map_or(&[][..], |state| &state.evidence);
        let is_shown = !evidence.is_empty();
        let shown = evidence.iter().filter(|at| counts(at) && here(at) != Some(true));
        let heads: BTreeSet<Hash> =
            others.map(|(_, at)| at).chain(shown).map(|at| at.hash).collect();
        if is_shown {
            store.release(partition);
            self.shared.oracle.released_own(node, partition);
        }
        if !heads.is_empty() {
            store.claims.withdraw(partition);
        }
        for (peer, _) in said.iter().filter(|(_, at)| heads.contains(&at.hash)) {
            store.claims.clear(partition, *peer);
            resolving.given_up.insert(*peer);
        }
        self.shared.oracle.tally.given_up += heads.len() as u64;
        store.note_others_given_up(heads);
        store.resolving.insert(partition.clone(), resolving);
    }

    fn is_linked(&self, node: usize, peer: usize) -> bool {
        self.nodes[node].up && self.nodes[node].link_count_with(&self.shared.net, peer) > 0
    }

    fn begin(&mut self, node: usize, partition: &PartitionId) {
        let now = self.shared.net.now;
        if self.begun.get(partition).is_some_and(|at| now < *at + PATIENCE) {
            return;
        }
        if self.nodes[node].store.position(partition).is_none() || !self.is_needed(node, partition)
        {
            return;
        }
        let Some(peer) = self.holder_of_another(node, partition) else { return };
        let Some(theirs) =
            self.nodes[peer].store.partition(partition).and_then(|copy| copy.head.clone())
        else {
            return;
        };
        // Nobody takes back what was given up: that is fetched again where it is held.
        if self.nodes[node].store.has_given_up(partition, theirs.position()) {
            return;
        }
        self.begun.insert(partition.clone(), now);
        let keep = self.shared.net.rng.chance(70);
        let held = self.held_by_peers(node, partition);
        let store = &mut self.nodes[node].store;
        // Whatever else was proven is decided with it, and nobody may hold it any more.
        store.claims.withdraw(partition);
        if store.holds(partition, theirs.position()) {
            // Ours goes on behind it.
            if store.partition(partition).is_some_and(|state| state.quarantined) {
                self.shared.oracle.released_own(node, partition);
                store.release(partition);
            }
        } else {
            let others = held.iter().filter(|(_, at)| !store.has_given_up(partition, *at));
            let others = others.filter(|(_, at)| !store.holds(partition, *at));
            let others: BTreeSet<Hash> = others.map(|(_, at)| at.hash).collect();
            self.shared.oracle.tally.three += u64::from(others.len() > 1);
            let aside = store.partition(partition).map(|own| own.records.clone());
            let resolving = Resolving {
                theirs: theirs.position(),
                held,
                given_up: BTreeSet::new(),
                aside: aside.unwrap_or_default(),
                keep,
            };
            store.resolving.insert(partition.clone(), resolving);
            store.note_given_up(partition);
            self.shared.oracle.gave_up(node, store, &theirs, true);
            store.give_up(partition, theirs.position());
        }
        self.nodes[node].connect_again(self.shared);
    }

    fn end(&mut self, node: usize, partition: &PartitionId) {
        if !self.nodes[node].up {
            return;
        }
        self.give_up_others(node, partition);
        let store = &self.nodes[node].store;
        let Some(resolving) = store.resolving.get(partition).cloned() else { return };
        let theirs = resolving.theirs;
        let have = store.position(partition).map_or(0, |at| at.seq);
        let state = store.partition(partition);
        let known = state.and_then(|state| state.header_hash(theirs.seq));
        let is_back = have >= theirs.seq && known.is_none_or(|known| known == theirs.hash);
        if !is_back || self.nodes[node].is_stopped(partition) {
            return;
        }
        self.nodes[node].store.resolving.remove(partition);
        self.shared.oracle.tally.resolved += 1;
        if resolving.keep {
            self.issue_again(node, partition, &resolving.aside);
        }
        if !resolving.given_up.is_empty() {
            self.nodes[node].connect_again(self.shared);
        }
    }

    fn issue_again(&mut self, node: usize, partition: &PartitionId, aside: &Records) {
        let empty = Records::new();
        let state = self.nodes[node].store.partition(partition);
        let changes = difference(state.map_or(&empty, |state| &state.records), aside);
        for changes in changes.chunks(CHANGES_MAX) {
            self.nodes[node].write(self.shared, partition, changes);
        }
        let state = self.nodes[node].store.partition(partition);
        let records = state.map_or(&empty, |state| &state.records);
        assert_eq!(records, aside, "{partition}: not what was set aside");
        self.nodes[node].announce(self.shared);
    }
}

/// What makes `to` of `from`, in key order.
fn difference(from: &Records, to: &Records) -> Vec<Change> {
    let puts = to.iter().filter(|(key, value)| from.get(*key) != Some(value));
    let puts = puts.map(|(key, value)| (key.clone(), Some(value.clone())));
    let deleted = from.keys().filter(|key| !to.contains_key(*key));
    let all: BTreeMap<_, _> = puts.chain(deleted.map(|key| (key.clone(), None))).collect();
    let change = |(key, value)| match value {
        Some(value) => Change::Put { key, value },
        None => Change::Delete { key },
    };
    all.into_iter().map(change).collect()
}
