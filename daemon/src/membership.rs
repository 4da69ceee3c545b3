//! What this node believes about its federation: the anchor it was made with,
//! and `_federation` as the store holds it.
//!
//! Everybody who needs members, keys or schemas asks here. The answer is built
//! anew when the head of `_federation` has moved.

use std::sync::{Arc, RwLock};

use certs::enrol::Anchor;
use protocol::{
    federation::Registry,
    id::{DatasetId, NodeId, PartitionId},
    page::Leaf,
    tree::Pages as _,
};

use crate::store::{Store, StoreError};

/// The federation as this node sees it.
pub struct Membership {
    store: Store,
    anchor: Anchor,
    me: NodeId,
    partition: PartitionId,
    /// The number of `_federation` that the registry was built from.
    cached: RwLock<Option<(u64, Arc<Registry>)>>,
}

impl Membership {
    /// Reads nothing yet.
    pub fn new(store: Store, anchor: Anchor, me: NodeId) -> Self {
        let partition = PartitionId::own(&anchor.federation, &DatasetId::federation(), &anchor.hub);
        Self { store, anchor, me, partition, cached: RwLock::new(None) }
    }

    /// This node.
    pub fn me(&self) -> &NodeId {
        &self.me
    }

    /// The federation's hub, by the anchor.
    pub fn hub(&self) -> &NodeId {
        &self.anchor.hub
    }

    /// The root of trust for `_federation`.
    pub fn anchor(&self) -> &Anchor {
        &self.anchor
    }

    /// Whether this node is the hub.
    pub fn is_hub(&self) -> bool {
        self.me == self.anchor.hub
    }

    /// The partition of `_federation`.
    pub fn partition(&self) -> &PartitionId {
        &self.partition
    }

    /// This node's own partition of a dataset.
    pub fn own_partition(&self, dataset: &DatasetId) -> PartitionId {
        PartitionId::own(&self.anchor.federation, dataset, &self.me)
    }

    /// Members, keys and schemas as of now.
    pub fn current(&self) -> Result<Arc<Registry>, StoreError> {
        let seq = self.store.head(&self.partition).map_or(0, |head| head.seq());
        if let Some((cached, registry)) =
            &*self.cached.read().unwrap_or_else(|error| error.into_inner())
            && *cached == seq
        {
            return Ok(registry.clone());
        }
        loop {
            // Read again if the head moved meanwhile. What is read may be a
            // moment ahead of the head that is published; it is read again once
            // that moves.
            let before = self.store.head(&self.partition).map_or(0, |head| head.seq());
            let registry = Arc::new(self.read()?);
            let after = self.store.head(&self.partition).map_or(0, |head| head.seq());
            if before == after {
                *self.cached.write().unwrap_or_else(|error| error.into_inner()) =
                    Some((before, registry.clone()));
                return Ok(registry);
            }
        }
    }

    fn read(&self) -> Result<Registry, StoreError> {
        let mut registry = Registry::new(self.anchor.anchored());
        let Some(mut pages) = self.store.live_pages(&self.partition) else {
            return Ok(registry);
        };
        let mut page = pages.seek(0, &[])?;
        while let Some((first_key, body)) = page {
            for (_, value) in Leaf::decode(&body)?.entries() {
                if let Err(error) = registry.insert(value) {
                    tracing::warn!(%error, "a record of _federation is ignored");
                }
            }
            page = match pages.next_key(0, &first_key)? {
                Some(next) => pages.seek(0, &next)?,
                None => None,
            };
        }
        Ok(registry)
    }
}
