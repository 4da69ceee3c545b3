//! Whose key signs this node's change sets, and how another takes its place.
//!
//! The writer signs each own change set at the moment of its commit, with the
//! key that is the *signer* then, so a switch falls between two commits and
//! never into one. The writer's half is `writer/signing.rs`; whose signature
//! counts is not the store's question.

use std::sync::Arc;

use protocol::{hash::Hash, sign::SigningKey};

use super::{Store, state::lock};

impl Store {
    /// Gives the store the key that signs own change sets, when the node opens.
    /// A node that is running changes its key with a job of the writer.
    pub fn set_signer(&self, key: Arc<SigningKey>) {
        *lock(&self.shared.signer) = Some(key);
    }

    /// The id of the key that signs the next own change set; none before
    /// [`Store::set_signer`].
    pub fn signer_id(&self) -> Option<Hash> {
        lock(&self.shared.signer).as_ref().map(|key| key.public().id())
    }
}
