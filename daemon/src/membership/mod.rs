//! What this node believes about its federation: the anchor that its root of
//! trust signed, and `_federation` as the store holds it.
//!
//! Everybody who needs members, keys or schemas asks here, and whether a peer
//! with a valid certificate is welcome. When the head of `_federation` has moved,
//! the change sets in between are taken up; where that is not possible the answer
//! is built anew from all records. Invariant: both come to the same.
//!
//! - [`personal`]: fields that were personal stay masked until an administrator
//!   agrees.

mod personal;

#[cfg(test)]
mod tests;

use std::{
    path::Path,
    sync::{Arc, Mutex, RwLock},
};

use certs::{enrol::Anchor, verify::VerifiedPeer};
use protocol::{
    change::{BODY_BYTES_MAX, Position, decode_changes},
    codec,
    federation::{CaKind, CaState, Registry, Role},
    id::{DatasetId, FederationId, NodeId, PartitionId},
    message::CloseCode,
    suite::Suite,
    tree::Pages as _,
};
use store::{Store, StoreError};

use self::personal::Personal;
pub use self::personal::{Masked, PersonalError};

/// Change sets that are taken up one by one; behind more of them, reading all
/// records is no more work.
const TAKEN_UP_MAX: u64 = 256;

/// The federation as this node sees it.
pub struct Membership {
    store: Store,
    anchor: RwLock<Anchor>,
    me: NodeId,
    partition: PartitionId,
    /// The head of `_federation` that the registry was built from.
    cached: RwLock<Option<(Option<Position>, Arc<Registry>)>>,
    /// At a member: which fields are personal by what its administrator knows.
    personal: Option<Mutex<Personal>>,
}

/// Why a peer with a valid certificate is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotWelcome {
    /// It does not belong here, or plays another part.
    #[error("it is not a member of this federation, or was removed")]
    NotAMember,
    /// It, or its certificate, was revoked.
    #[error("it was revoked, or its certificate was")]
    Revoked,
    /// It has joined again since its certificate was issued.
    #[error("its certificate is from before it joined again")]
    Superseded,
    /// The authority that issued its certificate counts no more.
    #[error("the authority that issued its certificate was retired")]
    Authority,
    /// What this node believes cannot be read now.
    #[error("this node cannot read its list of members")]
    Unreadable,
}

impl NotWelcome {
    /// What the peer is told.
    pub fn code(self) -> CloseCode {
        match self {
            NotWelcome::NotAMember => CloseCode::NotAMember,
            NotWelcome::Revoked => CloseCode::Revoked,
            NotWelcome::Superseded => CloseCode::Superseded,
            NotWelcome::Authority => CloseCode::CertificateEnded,
            NotWelcome::Unreadable => CloseCode::Unavailable,
        }
    }
}

impl Membership {
    /// Reads nothing yet.
    pub fn new(store: Store, anchor: Anchor, me: NodeId) -> Self {
        let partition = PartitionId::own(&anchor.federation, &DatasetId::federation(), &anchor.hub);
        let (anchor, cached) = (RwLock::new(anchor), RwLock::new(None));
        Self { store, anchor, me, partition, cached, personal: None }
    }

    /// From now on goes by what `path` says of personal fields, and keeps it there:
    /// what the hub's catalogue calls personal no longer is masked until
    /// [`Membership::accept_dataset`].
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn keep_personal(mut self, path: &Path) -> Result<Self, PersonalError> {
        self.personal = Some(Mutex::new(Personal::load(path)?));
        Ok(self)
    }

    /// The datasets in which something is masked although the catalogue does not
    /// say any more that it is personal.
    pub fn masked(&self) -> Result<Vec<Masked>, StoreError> {
        // What it answers is of the newest catalogue.
        self.current()?;
        let personal = self.personal.as_ref().map(|personal| lock(personal).masked());
        Ok(personal.unwrap_or_default())
    }

    /// An administrator agrees to what the newest version of a dataset says is
    /// personal. Answers that version.
    pub fn accept_dataset(
        &self,
        dataset: &DatasetId,
        version: Option<u32>,
    ) -> Result<u32, PersonalError> {
        let registry = self.current()?;
        let schema = registry.published(dataset);
        let schema = schema.ok_or_else(|| PersonalError::NoDataset(dataset.clone()))?;
        if version.is_some_and(|version| version != schema.version()) {
            return Err(PersonalError::OtherVersion {
                dataset: dataset.clone(),
                newest: schema.version(),
            });
        }
        let Some(personal) = &self.personal else {
            return Err(PersonalError::AtTheHub);
        };
        lock(personal).accept(schema)?;
        *self.cached.write().unwrap_or_else(|error| error.into_inner()) = None;
        Ok(schema.version())
    }

    /// This node.
    pub fn me(&self) -> &NodeId {
        &self.me
    }

    /// The federation's hub, by the anchor.
    pub fn hub(&self) -> &NodeId {
        // It is the origin of `_federation`, and no anchor changes that.
        &self.partition.origin
    }

    /// The trust domain.
    pub fn federation(&self) -> &FederationId {
        &self.partition.federation
    }

    /// The federation's suite.
    pub fn suite(&self) -> Suite {
        self.anchor().suite()
    }

    /// The root of trust for `_federation`.
    pub fn anchor(&self) -> Anchor {
        self.anchor.read().unwrap_or_else(|error| error.into_inner()).clone()
    }

    /// Takes an anchor of a higher epoch, which the caller has verified.
    pub fn set_anchor(&self, anchor: Anchor) {
        *self.anchor.write().unwrap_or_else(|error| error.into_inner()) = anchor;
        *self.cached.write().unwrap_or_else(|error| error.into_inner()) = None;
    }

    /// Whether this node is the hub.
    pub fn is_hub(&self) -> bool {
        self.me == *self.hub()
    }

    /// Whether a peer whose handshake is finished may talk to this node: it is
    /// who it has to be on its side, and neither it, its certificate nor the
    /// authority behind that was withdrawn.
    pub fn admits(&self, peer: &VerifiedPeer) -> Result<(), NotWelcome> {
        let registry = self.current().map_err(|error| {
            tracing::error!(%error, "_federation cannot be read, so nobody is let in");
            NotWelcome::Unreadable
        })?;
        let node = &peer.identity().node;
        if registry.revocation(node, Some(peer.serial_hex())).is_some() {
            return Err(NotWelcome::Revoked);
        }
        let is_counterpart = if self.is_rebuilding() {
            // Whoever it is that shows a certificate of ours: the list comes back from it,
            // signed by this hub, and nothing else is taken of it before that.
            true
        } else if self.is_hub() {
            registry.active_member(node).is_some_and(|member| member.role == Role::Member)
        } else {
            node == self.hub()
        };
        if !is_counterpart || *node == self.me {
            return Err(NotWelcome::NotAMember);
        }
        let ours = || {
            let mut all = registry.cas(CaKind::Issuing);
            all.any(|(_, known)| peer.is_issued_by(&known.certificate.as_slice().into()))
        };
        let from = registry.members().get(node).and_then(|member| member.certificates_from);
        if from.is_some_and(|from| peer.not_before().unix_timestamp() < from) && ours() {
            return Err(NotWelcome::Superseded);
        }
        // One that `_federation` does not name here has a root that is trusted all
        // the same: it is newer than what has arrived, or an organisation's own.
        let mut retired =
            registry.cas(CaKind::Issuing).filter(|(_, known)| known.state == CaState::Retired);
        if retired.any(|(_, known)| peer.is_issued_by(&known.certificate.as_slice().into())) {
            return Err(NotWelcome::Authority);
        }
        Ok(())
    }

    /// Whether this is a hub that has lost its list of members, or a part of it.
    pub fn is_rebuilding(&self) -> bool {
        self.is_hub() && self.store.lost().contains_key(&self.partition)
    }

    /// The partition of `_federation`.
    pub fn partition(&self) -> &PartitionId {
        &self.partition
    }

    /// This node's own partition of a dataset.
    pub fn own_partition(&self, dataset: &DatasetId) -> PartitionId {
        PartitionId::own(self.federation(), dataset, &self.me)
    }

    /// Members, keys and schemas as of now.
    pub fn current(&self) -> Result<Arc<Registry>, StoreError> {
        let position = || self.store.head(&self.partition).map(|head| head.position());
        let now = position();
        if let Some((cached, registry)) =
            &*self.cached.read().unwrap_or_else(|error| error.into_inner())
            && *cached == now
        {
            return Ok(registry.clone());
        }
        // By one at a time; whoever waited finds it done.
        let mut cached = self.cached.write().unwrap_or_else(|error| error.into_inner());
        loop {
            // Read again if the head moved meanwhile. What is read may be a
            // moment ahead of the head that is published; it is read again once
            // that moves.
            let now = position();
            let mut registry = match cached.take() {
                Some((known, registry)) if known == now => registry,
                Some((Some(known), registry)) => match self.take_up(registry, known, now) {
                    Some(registry) => registry,
                    None => Arc::new(self.read()?),
                },
                _ => Arc::new(self.read()?),
            };
            if let Some(personal) = &self.personal {
                for (dataset, schema) in lock(personal).look(&registry) {
                    Arc::make_mut(&mut registry).show_as(&dataset, schema);
                }
            }
            *cached = Some((now, registry.clone()));
            if now == position() {
                return Ok(registry);
            }
        }
    }

    /// The registry of `known` with what `_federation` says since; none if that has
    /// to be read as a whole.
    fn take_up(
        &self,
        mut registry: Arc<Registry>,
        known: Position,
        now: Option<Position>,
    ) -> Option<Arc<Registry>> {
        let now = now.filter(|now| now.seq > known.seq && now.seq - known.seq <= TAKEN_UP_MAX)?;
        let mut at = known;
        while at != now {
            let sets = self.store.change_sets(&self.partition, at.seq + 1, 16, BODY_BYTES_MAX);
            for set in sets.ok().flatten()? {
                if set.header.header().previous != at.hash || at.seq >= now.seq {
                    return None;
                }
                let body = codec::decompress(&set.body, BODY_BYTES_MAX).ok()?;
                let changes = decode_changes(&body).ok()?;
                Arc::make_mut(&mut registry).apply(&changes).ok()?;
                at = set.header.position();
            }
        }
        Some(registry)
    }

    fn read(&self) -> Result<Registry, StoreError> {
        let mut registry = Registry::new(self.anchor().anchored());
        let Some(mut pages) = self.store.live_pages(&self.partition) else {
            return Ok(registry);
        };
        let mut page = pages.seek_leaf(&[])?;
        while let Some((first_key, leaf)) = page {
            for (key, value) in leaf.entries() {
                // The registry keeps in mind what is wrong with it.
                let _ = registry.insert(key, value);
            }
            page = match pages.next_key(0, &first_key)? {
                Some(next) => pages.seek_leaf(&next)?,
                None => None,
            };
        }
        Ok(registry)
    }
}

fn lock(personal: &Mutex<Personal>) -> std::sync::MutexGuard<'_, Personal> {
    personal.lock().unwrap_or_else(|error| error.into_inner())
}
