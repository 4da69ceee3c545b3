//! Who is connected, since when, and what they claim to hold.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard},
    time::{Duration, Instant, SystemTime},
};

use protocol::{
    id::{NodeId, PartitionId},
    message::{Announced, CloseCode, HEADS_MAX, Hello},
};

use crate::net::Connection;

/// A peer as the status shows it.
#[derive(Debug, Clone, Default)]
pub struct PeerState {
    /// Whether its hello was received and it is still there.
    pub connected: bool,
    /// Its address.
    pub address: Option<String>,
    /// The HOST:PORT by which this node dials it, or dialled it last.
    pub dialled: Option<String>,
    /// Since when it is connected, or not.
    pub since: Option<SystemTime>,
    /// When it was last heard.
    pub last_contact: Option<SystemTime>,
    /// When it was last heard, by the clock that only goes forward.
    pub last_heard: Option<Instant>,
    /// The end of its certificate, in seconds since 1970.
    pub certificate_not_after: Option<i64>,
    /// Why it is not connected.
    pub reason: Option<String>,
    /// How it ended the last connection, if it lets this node in no more: only a person
    /// can change that.
    pub shut_out: Option<CloseCode>,
    /// What it claims to hold of the partitions that concern both.
    pub heads: BTreeMap<PartitionId, Announced>,
    /// Partitions that cannot be followed now, and why.
    pub troubles: BTreeMap<PartitionId, String>,
    /// Those of them that a person has to look into.
    pub alarming: std::collections::BTreeSet<PartitionId>,
    /// Partitions of this node's that it has no room for.
    pub no_room: std::collections::BTreeSet<PartitionId>,
    /// Partitions that are being taken page by page.
    pub fetching: std::collections::BTreeSet<PartitionId>,
    /// How often it broke the protocol.
    pub misbehaved: u64,
    /// How far its clock is ahead of ours, in milliseconds, as its hello or a heartbeat
    /// since has said.
    pub clock_ahead_ms: Option<i64>,
    /// What is wrong with its identity, for a person to look into.
    pub alarm: Option<String>,
    /// Why its handshakes are refused, as a stable name: told once.
    refused: Option<String>,
}

impl PeerState {
    /// Whether its clock and ours are too far apart.
    pub fn clock_differs(&self) -> bool {
        self.clock_ahead_ms.is_some_and(is_far)
    }
}

/// Whether clocks that differ by so much are worth a word.
pub(super) fn is_far(ahead_ms: i64) -> bool {
    ahead_ms.unsigned_abs() >= CLOCK_DIFFERENCE_MS
}

/// Peers that are remembered: whoever holds a certificate of ours may appear
/// here, and a federation has far fewer nodes.
const PEERS_MAX: usize = 10_000;
/// Clocks that are further apart than this are worth a word: certificates are
/// dated back by five minutes.
const CLOCK_DIFFERENCE_MS: u64 = 5 * 60 * 1000;

/// All peers of this node.
#[derive(Default)]
pub struct Peers {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    states: BTreeMap<NodeId, PeerState>,
    connections: BTreeMap<NodeId, Connection>,
}

impl Peers {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Everything done under the lock is an assignment.
        self.inner.lock().unwrap_or_else(|error| error.into_inner())
    }

    /// Looks at all peers that were ever heard of, under the lock: ask nothing of
    /// the store meanwhile.
    pub fn visit(&self, mut look: impl FnMut(&NodeId, &PeerState)) {
        self.lock().states.iter().for_each(|(node, state)| look(node, state));
    }

    /// Looks at one peer, or at one that was never heard of; under the lock.
    pub fn with<T>(&self, node: &NodeId, look: impl FnOnce(&PeerState) -> T) -> T {
        match self.lock().states.get(node) {
            Some(state) => look(state),
            None => look(&PeerState::default()),
        }
    }

    /// The round-trip time to a connected peer, and the bytes of UDP payload sent
    /// and received.
    pub fn line(&self, node: &NodeId) -> Option<(Duration, (u64, u64))> {
        let connection = self.connection(node)?;
        Some((connection.rtt(), connection.bytes()))
    }

    /// Those who are connected.
    pub fn connected_nodes(&self) -> Vec<NodeId> {
        self.lock().connections.keys().cloned().collect()
    }

    /// What connected peers claim to hold of a partition.
    pub fn holders(&self, partition: &PartitionId) -> Vec<(NodeId, Option<Announced>)> {
        let inner = self.lock();
        let connected = inner.states.iter().filter(|(_, state)| state.connected);
        connected.map(|(node, state)| (node.clone(), state.heads.get(partition).cloned())).collect()
    }

    /// What peers hold against partitions, by partition.
    pub fn troubles(&self) -> BTreeMap<PartitionId, String> {
        let inner = self.lock();
        // The first peer's counts.
        let troubles = inner.states.values().rev().flat_map(|state| &state.troubles);
        troubles.map(|(partition, trouble)| (partition.clone(), trouble.clone())).collect()
    }

    /// Changes what is known of a peer.
    pub fn update(&self, node: &NodeId, change: impl FnOnce(&mut PeerState)) {
        change(self.lock().states.entry(node.clone()).or_default());
    }

    /// Changes what is known of a peer through one connection. Nothing once that
    /// was replaced: its last tasks must not speak about the newer one.
    pub(super) fn update_through(
        &self,
        node: &NodeId,
        connection: &Connection,
        change: impl FnOnce(&mut PeerState),
    ) {
        let mut inner = self.lock();
        let is_current =
            inner.connections.get(node).is_some_and(|known| known.id() == connection.id());
        if is_current && let Some(state) = inner.states.get_mut(node) {
            change(state);
        }
    }

    /// A connection's hello has arrived: it replaces an older one of the same
    /// node, which is closed. All in one step, so that a status in between does
    /// not show a peer that holds nothing. Answers whether its clock was known to
    /// differ before.
    pub(super) fn connected(
        &self,
        node: &NodeId,
        connection: &Connection,
        hello: &Hello,
        clock_ahead_ms: i64,
    ) -> bool {
        let differed;
        let older = {
            let mut inner = self.lock();
            let now = SystemTime::now();
            let state = inner.states.entry(node.clone()).or_default();
            differed = state.clock_differs();
            if !state.connected {
                state.since = Some(now);
            }
            state.connected = true;
            state.address = Some(connection.address().to_string());
            state.clock_ahead_ms = Some(clock_ahead_ms);
            state.last_contact = Some(now);
            state.last_heard = Some(Instant::now());
            state.certificate_not_after =
                connection.peer().map(|peer| peer.not_after().unix_timestamp());
            state.reason = None;
            (state.refused, state.shut_out) = (None, None);
            let heads = hello.heads.iter().take(HEADS_MAX);
            state.heads = heads.map(|head| (head.partition.clone(), head.clone())).collect();
            state.troubles.clear();
            state.alarming.clear();
            state.no_room.clear();
            state.fetching.clear();
            inner.connections.insert(node.clone(), connection.clone())
        };
        if let Some(older) = older
            && older.id() != connection.id()
        {
            older.close(CloseCode::Replaced);
        }
        differed
    }

    /// A handshake of a peer was refused for a reason that concerns it alone;
    /// `kind` is stable, `text` may hold the time. Answers whether that is news.
    /// Says nothing about a peer that is connected all the same.
    pub fn refused(&self, node: &NodeId, kind: &str, text: &str) -> bool {
        let mut inner = self.lock();
        if inner.states.len() >= PEERS_MAX && !inner.states.contains_key(node) {
            return false;
        }
        let state = inner.states.entry(node.clone()).or_default();
        if state.connected {
            return false;
        }
        state.reason = Some(text.to_owned());
        let is_news = state.refused.as_deref() != Some(kind);
        state.refused = Some(kind.to_owned());
        is_news
    }

    /// The live connection to a peer.
    pub fn connection(&self, node: &NodeId) -> Option<Connection> {
        self.lock().connections.get(node).cloned()
    }

    /// A connection is gone. One that was replaced changes nothing.
    pub(super) fn disconnected(&self, node: &NodeId, connection: &Connection, reason: String) {
        let mut inner = self.lock();
        if inner.connections.get(node).is_none_or(|known| known.id() != connection.id()) {
            return;
        }
        inner.connections.remove(node);
        if let Some(state) = inner.states.get_mut(node) {
            state.connected = false;
            state.since = Some(SystemTime::now());
            state.reason = Some(reason);
            state.fetching.clear();
        }
    }

    /// The peer was heard.
    pub(super) fn heard(&self, node: &NodeId) {
        self.update(node, |state| {
            state.last_contact = Some(SystemTime::now());
            state.last_heard = Some(Instant::now());
        });
    }
}
