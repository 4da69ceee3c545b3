//! Replication: drives the protocol's sessions over connections and the store.
//!
//! The machines that decide live in `protocol::session` and are simulated; what
//! is here moves bytes, reads and commits.
//!
//! - [`peers`]: who is connected, for the status and for taking over;
//! - [`connection`]: one connection's control stream and its tasks;
//! - [`claims`]: what a peer says that it holds of this node's own history;
//! - [`follow`]: a partition that the peer has and we want;
//! - [`fetch`]: a peer's tree taken over one stream;
//! - [`fork`]: two signed histories of one partition;
//! - [`repair`]: damaged pages taken back from a peer;
//! - [`logged`]: what a peer's log has of one number;
//! - [`trouble`]: why one of these ended early;
//! - [`provide`]: a partition that we have and the peer wants;
//! - [`prove`]: whether the peer's head is in the history that is here;
//! - [`shown`]: how many trees are shown, and to whom;
//! - [`turns`]: what one peer may ask for at once;
//! - [`admission`]: whose change set is given to the writer next;
//! - [`dial`]: a member keeps its connection to the hub;
//! - [`addresses`]: where it dials it, in which order;
//! - [`office`]: what is asked of the rest of the node about trust.

mod addresses;
mod admission;
mod asking;
mod claims;
mod connection;
mod dial;
mod fetch;
mod follow;
mod fork;
mod given_up;
mod judge;
mod logged;
mod office;
pub mod peers;
mod prove;
mod provide;
mod repair;
mod shown;
mod trouble;
mod turns;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use protocol::{
    difference::Salt,
    id::{FederationId, NodeId},
    session::PeerMisbehaved,
};
use store::Store;

pub use self::{
    addresses::in_order,
    claims::Claims,
    connection::{ConnectionEnd, Side, serve},
    dial::{Dialling, keep_connected},
    fork::{NoHead, peer_head, shows},
    given_up::GivenUp,
    logged::{Asked, ask_for_change_set, ask_for_header},
    office::{Office, Trustee},
    repair::{Repaired, repair},
};
use self::{peers::Peers, shown::Shown, turns::Turns};
use crate::{
    limit::{Budget, Limiter},
    membership::Membership,
    net::{NetError, PROGRESS_MAX, Places, Windows},
};

/// The hello has to arrive within this time, and a stream's first frame too.
const FIRST_FRAME_MAX: Duration = Duration::from_secs(10);
/// Connections of one node that are made and whose hello and report have not come:
/// one, and the one that replaces it.
const GREETING_OF_ONE_MAX: u32 = 2;
/// The same of all nodes: more than the counties of any city, of which each is done
/// after two round trips. Each may hold a hello of
/// [`protocol::frame::CONTROL_FRAME_BYTES_MAX`].
const GREETING_MAX: u32 = 64;

/// Lines of the log about one peer, and of one kind: as many as a bad day brings,
/// and then one now and then, 300 KB a day.
const PEER_LINES: Budget = Budget { capacity: 20, refill: Duration::from_secs(30) };
/// Peers and kinds for which that is kept; it is forgotten after ten quiet minutes.
const PEER_LINE_KINDS_MAX: usize = 10_000;

/// What a line of the log is about that a peer can bring about as often as it
/// likes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Line {
    /// It comes and goes.
    Connection,
    /// Its clock, or ours, was set.
    Clock,
    /// It cannot come.
    Refused,
    /// It broke the protocol, or sent what is wrong.
    Misbehaviour,
    /// A partition of its is not followed, or not now.
    NotFollowed,
    /// It claims to hold something of ours.
    Claim,
    /// Its trees are taken.
    Pages,
    /// Something here fails when it asks.
    OurFailure,
    /// It has no room for what is ours, or has again.
    Room,
}

/// What every task of replication needs.
pub struct Context {
    /// The store.
    pub store: Store,
    /// Members, keys and schemas.
    pub membership: Arc<Membership>,
    /// Who is connected.
    pub peers: Peers,
    /// What the hub says that it holds of this node's own history.
    pub claims: Arc<Claims>,
    /// Own headers that a person has given up.
    pub given_up: GivenUp,
    /// Time between heartbeats.
    pub heartbeat: Duration,
    /// Longest wait between two attempts to connect.
    pub retry_longest: Duration,
    /// At a hub: who serves what members ask for.
    pub office: Option<Arc<dyn Office>>,
    /// At a member: who judges what the hub says.
    pub trustee: Option<Arc<dyn Trustee>>,
    /// Something that members are told has changed: a report, an anchor.
    pub tell: tokio::sync::watch::Sender<()>,
    /// How long a peer may not get on with what it owes.
    pub patience: Duration,
    /// Connections whose peers have not said who they are, node by node.
    greeting: Arc<Places<NodeId>>,
    /// Lines that peers bring about.
    lines: Limiter<(NodeId, Line)>,
    /// What may be on its way to and from peers.
    windows: Arc<Windows>,
    /// Trees that are shown to peers.
    shown: Shown,
    /// Turns at work that takes its time, those of each peer that was ever connected:
    /// all of them are members.
    work: Arc<turns::Work>,
    turns: Mutex<HashMap<NodeId, Arc<Turns>>>,
    started: Instant,
}

impl Context {
    /// A context whose clock starts now.
    pub fn new(
        store: Store,
        membership: Arc<Membership>,
        heartbeat: Duration,
        retry_longest: Duration,
    ) -> Self {
        Self {
            store,
            membership,
            peers: Peers::default(),
            claims: Arc::default(),
            given_up: GivenUp::default(),
            heartbeat,
            retry_longest,
            office: None,
            trustee: None,
            tell: tokio::sync::watch::Sender::new(()),
            patience: PROGRESS_MAX,
            greeting: Places::new(GREETING_MAX, GREETING_OF_ONE_MAX),
            lines: Limiter::new(PEER_LINES, PEER_LINE_KINDS_MAX),
            windows: Arc::default(),
            shown: Shown::default(),
            work: turns::Work::new(),
            turns: Mutex::default(),
            started: Instant::now(),
        }
    }

    /// Where the hub has said that it is dialled; nothing where it has not, or what it
    /// has said cannot be read now.
    pub fn hub_addresses(&self) -> Vec<String> {
        let registry = self.membership.current().ok();
        let named = registry.as_ref().and_then(|registry| registry.hub_addresses());
        named.map(|named| named.addresses.clone()).unwrap_or_default()
    }

    /// Whether a line about a peer may be written now: if so, how many were left out
    /// before it, which it should say. What is counted is counted all the same.
    pub fn may_say(&self, peer: &NodeId, line: Line) -> Option<u64> {
        self.lines.allow(&(peer.clone(), line), Instant::now())
    }

    /// The turns of a peer, the same for all of its connections.
    fn turns_of(&self, peer: &NodeId) -> Arc<Turns> {
        let mut turns = self.turns.lock().unwrap_or_else(|error| error.into_inner());
        let new = || Arc::new(Turns::new(self.work.clone(), peer.clone(), self.now()));
        turns.entry(peer.clone()).or_insert_with(new).clone()
    }

    /// The clock that the sessions see: it only goes forward.
    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// What the peer holds of an own partition is known, or is back.
    async fn own_history_answered(&self) {
        if let Some(judge) = self.trustee.clone() {
            // It only fails when the daemon is ending.
            let _ = tokio::task::spawn_blocking(move || judge.own_history_answered()).await;
        }
        if let Some(office) = self.office.clone()
            && self.claims.proven_beyond(|partition| self.store.seq(partition)).is_empty()
        {
            let _ = tokio::task::spawn_blocking(move || office.own_history_is_back()).await;
        }
    }

    fn me(&self) -> &NodeId {
        self.membership.me()
    }

    fn federation(&self) -> &FederationId {
        self.membership.federation()
    }
}

/// A frame that no honest peer sends is the peer's fault, not the network's.
fn blame(error: NetError) -> Result<NetError, PeerMisbehaved> {
    match error {
        NetError::Frame(error) => Err(error.as_decode_error().into()),
        error => Ok(error),
    }
}

/// With which a stream names entries.
fn salt() -> Salt {
    let mut salt = Salt::default();
    // Without randomness somebody might choose names that are alike, which costs
    // whole pages.
    let _ = getrandom::fill(&mut salt);
    salt
}

/// An even number for jitter.
fn random() -> u32 {
    // Without randomness the wait is the shortest one, which is harmless.
    getrandom::u32().unwrap_or(0)
}
