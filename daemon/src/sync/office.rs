//! What replication asks of the rest of the node about trust.
//!
//! A hub has an [`Office`], which serves what members ask for; a member has a
//! [`Trustee`], which judges what its hub says. Both lie in `app`; replication
//! only carries the messages.

use certs::verify::VerifiedPeer;
use protocol::message::{NewKeyRequest, RenewRequest, Report, RequestRefused};

/// The hub's side. Its methods may block on the store: call them on a thread of
/// their own.
pub trait Office: Send + Sync {
    /// Issues a certificate (leaf first, DER) to a connected member.
    fn renew(
        &self,
        peer: &VerifiedPeer,
        request: &RenewRequest,
    ) -> Result<Vec<Vec<u8>>, RequestRefused>;

    /// Registers a member's next signing key; answers the number of `_federation`.
    fn new_key(&self, peer: &VerifiedPeer, request: &NewKeyRequest) -> Result<u64, RequestRefused>;

    /// Notes what a member trusts and which daemon it is. Answers what is wrong
    /// with it, for the status.
    fn reported(&self, peer: &VerifiedPeer, report: Report) -> Option<String>;

    /// A fresh statement of freshness, encoded; none before `_federation` exists.
    fn statement(&self) -> Option<Vec<u8>>;

    /// The anchor's bytes, if members may not have it from their token.
    fn anchor(&self) -> Option<Vec<u8>>;

    /// What was missing of the hub's own history is back from a member.
    fn own_history_is_back(&self);
}

/// The member's side.
pub trait Trustee: Send + Sync {
    /// What the hub is told about this node.
    fn report(&self) -> Report;

    /// The hub says that this node has joined again elsewhere. Blocks, as the next.
    fn superseded(&self);

    /// The hub has let this node in, and said what it holds of this node's history.
    fn welcomed(&self);

    /// The hub was asked to prove that it holds more of this node's own history, or
    /// that is back. Blocks.
    fn own_history_answered(&self);

    /// Judges a statement of freshness.
    fn stated(&self, bytes: &[u8]);

    /// Judges an anchor. Blocks: call it on a thread for that. Answers whether
    /// the connection has to be made anew.
    fn anchored(&self, bytes: &[u8]) -> bool;
}
