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
//! - [`repair`]: damaged pages taken back from a peer;
//! - [`trouble`]: why one of these ended early;
//! - [`provide`]: a partition that we have and the peer wants;
//! - [`dial`]: a member keeps its connection to the hub;
//! - [`office`]: what is asked of the rest of the node about trust.

mod claims;
mod connection;
mod dial;
mod fetch;
mod follow;
mod office;
pub mod peers;
mod provide;
mod repair;
mod trouble;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use protocol::{
    id::{FederationId, NodeId},
    session::PeerMisbehaved,
};
use store::Store;

use self::peers::Peers;
pub use self::{
    claims::Claims,
    connection::{ConnectionEnd, Side, serve},
    dial::{Dialling, keep_connected},
    office::{Office, Trustee},
    repair::{Repaired, repair},
};
use crate::{
    limit::{LINES, Limiter},
    membership::Membership,
    net::NetError,
};

/// The hello has to arrive within this time, and a stream's first frame too.
const FIRST_FRAME_MAX: Duration = Duration::from_secs(10);

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
    /// Lines about what peers do wrong.
    pub(crate) complaints: Limiter<()>,
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
            heartbeat,
            retry_longest,
            office: None,
            trustee: None,
            tell: tokio::sync::watch::Sender::new(()),
            complaints: Limiter::of_all(LINES),
            started: Instant::now(),
        }
    }

    /// The clock that the sessions see: it only goes forward.
    fn now(&self) -> Duration {
        self.started.elapsed()
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

/// An even number for jitter.
fn random() -> u32 {
    // Without randomness the wait is the shortest one, which is harmless.
    getrandom::u32().unwrap_or(0)
}
