//! What `_federation` says, ready for questions: who belongs, whose signature
//! counts for which number, which certificates count, what datasets look like.
//!
//! Used by the daemon's membership and by the simulation. Invariant: a key
//! answers for exactly the numbers between the last one of the key before it
//! and its own last one, so history signed by a retired key verifies and
//! nothing new does. X.509 is not understood here: certificates are bytes.

use std::collections::BTreeMap;

use super::entry::{
    CaKind, CaState, Entry, Introduction, KeyRecord, MalformedEntry, Member, Revocation,
    certificate_id, schema, succession_bytes,
};
use crate::{
    change::{KeyProblem, KeyRing, Position},
    hash::Hash,
    hex,
    id::{DatasetId, FederationId, NodeId, PartitionId},
    schema::Schema,
    sign::{PublicKey, Signature, SignaturePurpose},
};

/// What the root of trust says of a federation: its anchor, without the
/// signature that was checked before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anchored {
    /// The trust domain.
    pub federation: FederationId,
    /// Its hub.
    pub hub: NodeId,
    /// The hub's signing key.
    pub hub_key: PublicKey,
    /// For an anchor that was signed after a theft: the newest change set of
    /// `_federation` for which the hub's earlier keys count.
    pub base: Option<Position>,
    /// The keys that earlier anchors named: they count up to the base.
    pub earlier: Vec<PublicKey>,
}

/// A signing key of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownKey {
    /// Its number among the node's keys.
    pub number: u32,
    /// The key.
    pub public: PublicKey,
    /// The record.
    pub record: KeyRecord,
}

/// A certificate authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownCa {
    /// Its certificate, DER.
    pub certificate: Vec<u8>,
    /// Its certificate by the root before it, DER.
    pub cross: Option<Vec<u8>>,
    /// The number of its root.
    pub root: Option<u32>,
    /// Where it is in its life.
    pub state: CaState,
}

/// What `_federation` says.
#[derive(Debug, Clone)]
pub struct Registry {
    anchored: Anchored,
    members: BTreeMap<NodeId, Member>,
    keys: BTreeMap<NodeId, Vec<KnownKey>>,
    cas: BTreeMap<(CaKind, u32), KnownCa>,
    revocations: BTreeMap<NodeId, BTreeMap<Option<String>, Revocation>>,
    schemas: BTreeMap<DatasetId, BTreeMap<u32, Schema>>,
}

impl Registry {
    /// A registry that knows the anchor alone.
    pub fn new(anchored: Anchored) -> Self {
        let mut registry = Self {
            anchored,
            members: BTreeMap::new(),
            keys: BTreeMap::new(),
            cas: BTreeMap::new(),
            revocations: BTreeMap::new(),
            schemas: BTreeMap::new(),
        };
        registry.insert_schema(schema());
        registry
    }

    /// Takes one record of `_federation`, by its encoded value. Records come in
    /// the order of their keys, so a node's keys come oldest first.
    pub fn insert(&mut self, value: &[u8]) -> Result<(), MalformedEntry> {
        match Entry::read(value)? {
            None => {}
            Some(Entry::Member(node, member)) => drop(self.members.insert(node, member)),
            Some(Entry::Key(node, number, record)) => self.insert_key(node, number, record)?,
            Some(Entry::Ca(kind, number, record)) => {
                let wrong = || MalformedEntry(format!("ca {} {number}: no bytes", kind.as_str()));
                let cross = record.cross.as_deref().map(|text| hex::decode(text).ok_or_else(wrong));
                let known = KnownCa {
                    certificate: hex::decode(&record.certificate).ok_or_else(wrong)?,
                    cross: cross.transpose()?,
                    root: record.root,
                    state: record.state,
                };
                self.cas.insert((kind, number), known);
            }
            Some(Entry::Revocation(node, serial, revocation)) => {
                self.revocations.entry(node).or_default().insert(serial, revocation);
            }
            Some(Entry::Schema(schema)) => self.insert_schema(schema),
        }
        Ok(())
    }

    fn insert_schema(&mut self, schema: Schema) {
        self.schemas.entry(schema.dataset().clone()).or_default().insert(schema.version(), schema);
    }

    /// A key that claims to follow another has to be countersigned by it.
    fn insert_key(
        &mut self,
        node: NodeId,
        number: u32,
        record: KeyRecord,
    ) -> Result<(), MalformedEntry> {
        let wrong = |problem: &str| MalformedEntry(format!("key {number} of {node}: {problem}"));
        let bytes: Option<Hash> = record.public.parse().ok();
        let public = bytes.and_then(|bytes| PublicKey::from_bytes(&bytes.0).ok());
        let public = public.ok_or_else(|| wrong("it is not a key"))?;
        let earlier = self.keys.get(&node).map(Vec::as_slice).unwrap_or_default();
        if earlier.last().is_some_and(|last| last.number >= number)
            || earlier.iter().any(|known| known.public == public)
        {
            return Err(wrong("it is out of order, or stands twice"));
        }
        if record.by == Introduction::Succession {
            let signature: Option<Signature> = record
                .countersignature
                .as_deref()
                .and_then(hex::decode)
                .and_then(|bytes| bytes.try_into().ok());
            let vouched = |known: &KnownKey, signature: &Signature| {
                let bytes =
                    succession_bytes(&self.anchored.federation, &node, &known.public.id(), &public);
                known.public.verify(SignaturePurpose::Succession, &bytes, signature).is_ok()
            };
            let vouched = signature
                .is_some_and(|signature| earlier.last().is_some_and(|k| vouched(k, &signature)));
            if !vouched {
                return Err(wrong("the key before it did not countersign it"));
            }
        }
        self.keys.entry(node).or_default().push(KnownKey { number, public, record });
        Ok(())
    }

    /// The trust domain.
    pub fn federation(&self) -> &FederationId {
        &self.anchored.federation
    }

    /// The hub's name, from the anchor.
    pub fn hub(&self) -> &NodeId {
        &self.anchored.hub
    }

    /// Every node, removed and revoked ones too.
    pub fn members(&self) -> &BTreeMap<NodeId, Member> {
        &self.members
    }

    /// A node that may connect.
    pub fn active_member(&self, node: &NodeId) -> Option<&Member> {
        let member = self.members.get(node).filter(|member| !member.removed);
        member.filter(|_| self.revocation(node, None).is_none())
    }

    /// Why a node, or its certificate with this serial number, counts no more.
    pub fn revocation(&self, node: &NodeId, serial: Option<&str>) -> Option<&Revocation> {
        let of_node = self.revocations.get(node)?;
        let of_serial = serial.and_then(|serial| of_node.get(&Some(serial.to_owned())));
        of_node.get(&None).or(of_serial)
    }

    /// All revocations of a node: of itself (no serial number) and of its
    /// certificates.
    pub fn revocations(
        &self,
        node: &NodeId,
    ) -> impl Iterator<Item = (&Option<String>, &Revocation)> {
        self.revocations.get(node).into_iter().flatten()
    }

    /// A node's signing keys, the oldest first.
    pub fn keys(&self, node: &NodeId) -> &[KnownKey] {
        self.keys.get(node).map(Vec::as_slice).unwrap_or_default()
    }

    /// The signing key of a node that counts now.
    pub fn current_key(&self, node: &NodeId) -> Option<&KnownKey> {
        self.keys(node).last().filter(|known| known.record.last.is_none())
    }

    /// The certificate authorities of a kind by number, retired ones too.
    pub fn cas(&self, kind: CaKind) -> impl DoubleEndedIterator<Item = (u32, &KnownCa)> {
        self.cas.range((kind, 0)..=(kind, u32::MAX)).map(|((_, number), known)| (*number, known))
    }

    /// A certificate authority by its number.
    pub fn ca(&self, kind: CaKind, number: u32) -> Option<&KnownCa> {
        self.cas.get(&(kind, number))
    }

    /// The certificate authority in use.
    pub fn active_ca(&self, kind: CaKind) -> Option<(u32, &KnownCa)> {
        self.cas(kind).find(|(_, known)| known.state == CaState::Active)
    }

    /// The issuing CA whose certificate has this id.
    pub fn issuing_ca(&self, id: &Hash) -> Option<(u32, &KnownCa)> {
        self.cas(CaKind::Issuing).find(|(_, known)| certificate_id(&known.certificate) == *id)
    }

    /// The newest schema of a dataset.
    pub fn schema(&self, dataset: &DatasetId) -> Option<&Schema> {
        self.schemas.get(dataset)?.values().next_back()
    }

    /// One version of a dataset's schema, as a record names it.
    pub fn schema_version(&self, dataset: &DatasetId, version: u32) -> Option<&Schema> {
        self.schemas.get(dataset)?.get(&version)
    }

    /// The newest schema of every dataset but `_federation`.
    pub fn datasets(&self) -> impl Iterator<Item = &Schema> {
        self.schemas
            .iter()
            .filter(|(dataset, _)| !dataset.is_system())
            .filter_map(|(_, versions)| versions.values().next_back())
    }

    /// The hub's key that the anchor names counts before `_federation` has a
    /// record of it: with that key the history begins, or begins anew after a
    /// theft.
    fn anchored_key(&self, origin: &NodeId, key_id: &Hash) -> Option<PublicKey> {
        let key = self.anchored.hub_key;
        let is_it = *origin == self.anchored.hub && *key_id == key.id();
        is_it.then_some(key)
    }

    /// A key that an earlier anchor named, before `_federation` has a record of it.
    fn earlier_key(&self, partition: &PartitionId, key_id: &Hash) -> Option<PublicKey> {
        let is_hubs = partition.origin == self.anchored.hub && partition.dataset.is_system();
        let mut earlier = self.anchored.earlier.iter().filter(|_| is_hubs);
        earlier.find(|key| key.id() == *key_id).copied()
    }

    /// The first number of `partition` that a key may sign, so far as the
    /// anchor says.
    fn first_by_anchor(&self, partition: &PartitionId, key: Option<&KnownKey>) -> u64 {
        let Some(base) = self.anchored.base.filter(|_| partition.dataset.is_system()) else {
            return 1;
        };
        let anchored = self
            .keys(&self.anchored.hub)
            .iter()
            .find(|known| known.public == self.anchored.hub_key);
        let counts_from_base = match (key, anchored) {
            (None, _) => true,
            (Some(key), Some(anchored)) => key.number >= anchored.number,
            (Some(_), None) => false,
        };
        if counts_from_base { base.seq + 1 } else { 1 }
    }

    /// The last number of `partition` that a key may sign; none if there is no
    /// bound.
    fn last_of(&self, partition: &PartitionId, key: &KnownKey) -> Option<u64> {
        let retired = key.record.last.as_ref();
        let retired = retired.map(|last| last.get(&partition.to_string()).copied().unwrap_or(0));
        // Before its record says so, the anchor does: earlier keys end there.
        let base = self.anchored.base.filter(|_| partition.dataset.is_system());
        let ended = base.filter(|_| self.first_by_anchor(partition, Some(key)) == 1);
        match (retired, ended.map(|base| base.seq)) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }
}

impl KeyRing for Registry {
    fn key(
        &self,
        partition: &PartitionId,
        seq: u64,
        key_id: &Hash,
    ) -> Result<PublicKey, KeyProblem> {
        let keys = self.keys(&partition.origin);
        let Some(at) = keys.iter().position(|known| known.public.id() == *key_id) else {
            if let Some(key) = self.earlier_key(partition, key_id) {
                let last = self.anchored.base.map(|base| base.seq);
                let counts = last.is_some_and(|last| seq <= last);
                let problem = KeyProblem::OutOfRange { first: 1, last };
                return if counts { Ok(key) } else { Err(problem) };
            }
            let key = self.anchored_key(&partition.origin, key_id).ok_or(KeyProblem::Unknown)?;
            let first = self.first_by_anchor(partition, None);
            return if seq >= first {
                Ok(key)
            } else {
                Err(KeyProblem::OutOfRange { first, last: None })
            };
        };
        let earlier = keys[..at].iter().filter_map(|known| self.last_of(partition, known)).max();
        let first = earlier.map_or(1, |last| last.saturating_add(1));
        let first = first.max(self.first_by_anchor(partition, Some(&keys[at])));
        let last = self.last_of(partition, &keys[at]);
        if seq < first || last.is_some_and(|last| seq > last) {
            return Err(KeyProblem::OutOfRange { first, last });
        }
        Ok(keys[at].public)
    }

    fn allows(&self, partition: &PartitionId, position: Position) -> bool {
        let base = self.anchored.base.filter(|_| partition.dataset.is_system());
        base.is_none_or(|base| base.seq != position.seq || base.hash == position.hash)
    }
}

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;
