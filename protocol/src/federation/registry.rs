//! What `_federation` says, ready for questions: who belongs, whose signature
//! counts for which number, which certificates count, where the hub is, what datasets
//! look like.
//!
//! Used by the daemon's membership and by the simulation. Invariants: a key
//! answers for exactly the numbers between the last one of the key before it
//! and its own last one, so history signed by a retired key verifies and
//! nothing new does; and what is answered depends on the records that stand, not
//! on the order in which they came, so a registry that takes up the changes of a
//! change set is the one that would be built anew. X.509 is not understood here:
//! certificates are bytes.

use std::collections::BTreeMap;

use super::{
    addresses::HubAddresses,
    catalogue::{Catalogue, DATASETS_MAX, SCHEMA_BYTES_MAX, VERSIONS_MAX},
    entry::{
        CaKind, CaRecord, CaState, Entry, KeyRecord, MalformedEntry, Member, Revocation, Slot,
        certificate_id, schema,
    },
    node_keys::NodeKeys,
};
use crate::{
    change::{Change, KeyProblem, KeyRing, Position},
    hash::Hash,
    hex,
    id::{DatasetId, FederationId, NodeId, PartitionId},
    schema::Schema,
    sign::PublicKey,
    suite::{Suite, checksum::Checksum},
    text::visible_within,
};

/// Malformed records that are kept in mind, to be told of: a person looks at the
/// first ones.
const MALFORMED_MAX: usize = 32;
/// Longest text about one of them: a line or two of a page.
const PROBLEM_CHARS_MAX: usize = 240;

/// The registry cannot take up a change: it has to be built anew from all records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rebuild;

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

impl Anchored {
    /// The federation's suite.
    pub fn suite(&self) -> Suite {
        self.hub_key.suite()
    }
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

impl KnownCa {
    fn of(kind: CaKind, record: &CaRecord) -> Result<Self, &'static str> {
        let bytes = |text: &String| {
            let bytes = hex::decode(text).filter(|bytes| !bytes.is_empty());
            bytes.ok_or("a certificate that is no bytes")
        };
        match (kind, record.root) {
            (CaKind::Root, Some(_)) => return Err("a root has no root"),
            (CaKind::Issuing, None | Some(0)) => return Err("an issuing CA has a root"),
            (CaKind::Issuing, _) if record.cross.is_some() => {
                return Err("only a root has a cross");
            }
            _ => {}
        }
        Ok(Self {
            certificate: bytes(&record.certificate)?,
            cross: record.cross.as_ref().map(bytes).transpose()?,
            root: record.root,
            state: record.state,
        })
    }
}

/// What `_federation` says.
#[derive(Debug, Clone)]
pub struct Registry {
    anchored: Anchored,
    /// The schema of `_federation` itself, which is built in.
    own_schema: Schema,
    members: BTreeMap<NodeId, Member>,
    keys: BTreeMap<NodeId, NodeKeys>,
    cas: BTreeMap<(CaKind, u32), KnownCa>,
    revocations: BTreeMap<NodeId, BTreeMap<Option<String>, Revocation>>,
    addresses: Option<HubAddresses>,
    catalogue: Catalogue,
    /// Records that count for nothing, by their encoded key.
    malformed: BTreeMap<Vec<u8>, String>,
    /// There are more of them.
    malformed_more: bool,
}

impl Registry {
    /// A registry that knows the anchor alone.
    pub fn new(anchored: Anchored) -> Self {
        Self {
            anchored,
            own_schema: schema(),
            members: BTreeMap::new(),
            keys: BTreeMap::new(),
            cas: BTreeMap::new(),
            revocations: BTreeMap::new(),
            addresses: None,
            catalogue: Catalogue::default(),
            malformed: BTreeMap::new(),
            malformed_more: false,
        }
    }

    /// Takes one record of `_federation`, which is not here yet. What is wrong with
    /// it is also kept in mind, for [`Registry::problems`].
    ///
    /// Records come in the order of their keys: which schemas are left out where
    /// there are too many depends on it.
    pub fn insert(&mut self, key: &[u8], value: &[u8]) -> Result<(), MalformedEntry> {
        let taken = self.take(key, value);
        if let Err(problem) = &taken {
            if self.malformed.len() < MALFORMED_MAX {
                // It quotes what somebody else wrote.
                let problem = visible_within(&problem.0, PROBLEM_CHARS_MAX).into_owned();
                self.malformed.insert(key.to_vec(), problem);
            } else {
                self.malformed_more = true;
            }
            return taken;
        }
        // What one record says of a key may be wrong because of others.
        match Slot::of_key(key) {
            Ok(Some(Slot::Key(node, number))) => match self.keys.get(&node) {
                Some(keys) => keys.problem(number).map_or(Ok(()), |problem| {
                    Err(MalformedEntry(format!("key {number} of {node}: {problem}")))
                }),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), MalformedEntry> {
        let slot = Slot::of_key(key)?;
        if let Some(Slot::Schema(dataset, version)) = &slot {
            // Reading it is most of the work, and of those there may be many.
            self.catalogue.make_sure_of_room(dataset, *version, Entry::body_bytes(value)?)?;
        }
        let read = Entry::read_with_body(value)?;
        let (slot, entry, body) = match (slot, read) {
            (None, None) => return Ok(()),
            (Some(slot), Some((entry, body))) if entry.slot() == slot => (slot, entry, body),
            (Some(slot), _) => return Err(slot.malformed(&"the record is about something else")),
            (None, Some((entry, _))) => {
                return Err(entry.slot().malformed(&"it stands under another kind"));
            }
        };
        match entry {
            Entry::Member(node, member) => drop(self.members.insert(node, member)),
            Entry::Key(node, number, record) => {
                self.keys_of(&node, |keys, of, node| keys.set(of, node, number, Some(record)));
            }
            Entry::Last(node, number, part, last) => {
                let at = (number, part);
                self.keys_of(&node, |keys, of, node| keys.set_last(of, node, at, Some(last)));
            }
            Entry::Ca(kind, number, record) => {
                let known = KnownCa::of(kind, &record).map_err(|why| slot.malformed(&why))?;
                self.cas.insert((kind, number), known);
            }
            Entry::Revocation(node, serial, revocation) => {
                self.revocations.entry(node).or_default().insert(serial, revocation);
            }
            Entry::Address(node, _) if node != self.anchored.hub => {
                return Err(slot.malformed(&"only the hub is dialled"));
            }
            Entry::Address(_, addresses) => self.addresses = Some(addresses),
            Entry::Schema(schema) if *schema.dataset() == *self.own_schema.dataset() => {
                return Err(slot.malformed(&"that schema is built in"));
            }
            Entry::Schema(schema) => self.catalogue.insert(schema, body),
        }
        Ok(())
    }

    /// Takes up the changes of one change set. The registry is then as if it had
    /// been built from all records that stand after it.
    ///
    /// # Errors
    /// If that cannot be told from the changes, because something was left out
    /// before. Nothing may be asked of the registry after that.
    pub fn apply(&mut self, changes: &[Change]) -> Result<(), Rebuild> {
        for change in changes {
            if self.malformed_more {
                return Err(Rebuild);
            }
            let slot = Slot::of_key(change.key()).ok().flatten();
            let is_schema = matches!(slot, Some(Slot::Schema(..)));
            if is_schema && self.catalogue.is_cut() {
                return Err(Rebuild);
            }
            self.malformed.remove(change.key());
            if let Some(slot) = slot {
                self.remove(slot)?;
            }
            if let Change::Put { key, value } = change {
                // What is wrong is kept in mind.
                let _ = self.insert(key, value);
                if is_schema && self.catalogue.is_cut() {
                    return Err(Rebuild);
                }
            }
        }
        Ok(())
    }

    fn remove(&mut self, slot: Slot) -> Result<(), Rebuild> {
        match slot {
            Slot::Member(node) => drop(self.members.remove(&node)),
            Slot::Key(node, number) => {
                self.keys_of(&node, |keys, of, node| keys.set(of, node, number, None));
            }
            Slot::Last(node, number, part) => {
                let at = (number, part);
                self.keys_of(&node, |keys, of, node| keys.set_last(of, node, at, None));
            }
            Slot::Ca(kind, number) => drop(self.cas.remove(&(kind, number))),
            Slot::Revocation(node, serial) => {
                if let Some(of_node) = self.revocations.get_mut(&node) {
                    of_node.remove(&serial);
                    if of_node.is_empty() {
                        self.revocations.remove(&node);
                    }
                }
            }
            Slot::Address(node) if node == self.anchored.hub => self.addresses = None,
            Slot::Address(_) => {}
            Slot::Schema(dataset, version) => self.catalogue.remove(&dataset, version)?,
        }
        Ok(())
    }

    fn keys_of(
        &mut self,
        node: &NodeId,
        change: impl FnOnce(&mut NodeKeys, &FederationId, &NodeId),
    ) {
        let suite = self.anchored.suite();
        let keys = self.keys.entry(node.clone()).or_insert_with(|| NodeKeys::new(suite));
        change(keys, &self.anchored.federation, node);
        if keys.is_empty() {
            self.keys.remove(node);
        }
    }

    /// What is wrong with records that count for nothing, for a person: some of it,
    /// if there is much.
    pub fn problems(&self) -> Vec<String> {
        let records = self.malformed.values().cloned();
        let keys = self.keys.iter().flat_map(|(node, keys)| {
            let problems = keys.problems();
            problems.map(move |(number, problem)| format!("key {number} of {node}: {problem}"))
        });
        records.chain(keys).take(MALFORMED_MAX).collect()
    }

    /// Why one more schema of a dataset, of so many bytes of JSON, does not fit; none
    /// if it does.
    pub fn no_room_for(&self, dataset: &DatasetId, bytes: usize) -> Option<String> {
        let catalogue = &self.catalogue;
        if catalogue.newest(dataset).is_none() && catalogue.len() >= DATASETS_MAX {
            return Some(format!("a federation has at most {DATASETS_MAX} datasets"));
        }
        if catalogue.versions(dataset) >= VERSIONS_MAX {
            return Some(format!("a dataset has at most {VERSIONS_MAX} versions"));
        }
        let is_full = catalogue.bytes() + bytes > SCHEMA_BYTES_MAX;
        is_full.then(|| format!("all schemas together have at most {SCHEMA_BYTES_MAX} bytes"))
    }

    /// The federation's suite.
    pub fn suite(&self) -> Suite {
        self.anchored.suite()
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

    /// Where the hub is dialled, if it has said so.
    pub fn hub_addresses(&self) -> Option<&HubAddresses> {
        self.addresses.as_ref()
    }

    /// A node's signing keys, the oldest first.
    pub fn keys(&self, node: &NodeId) -> &[KnownKey] {
        self.keys.get(node).map(NodeKeys::known).unwrap_or_default()
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
    pub fn issuing_ca(&self, id: &Checksum) -> Option<(u32, &KnownCa)> {
        self.cas(CaKind::Issuing).find(|(_, known)| certificate_id(&known.certificate) == *id)
    }

    /// The newest schema of a dataset.
    pub fn schema(&self, dataset: &DatasetId) -> Option<&Schema> {
        if dataset == self.own_schema.dataset() {
            return Some(&self.own_schema);
        }
        self.catalogue.shown(dataset)
    }

    /// The newest schema of a dataset as the hub has published it.
    pub fn published(&self, dataset: &DatasetId) -> Option<&Schema> {
        self.catalogue.newest(dataset)
    }

    /// Answers `schema` instead of a dataset's newest one until there is a newer one:
    /// a node may call more personal than the hub does. None takes that back.
    pub fn show_as(&mut self, dataset: &DatasetId, schema: Option<Schema>) {
        self.catalogue.show_as(dataset, schema);
    }

    /// One version of a dataset's schema, as a record names it. An earlier one may
    /// have to be read: keep it where many records are at hand.
    pub fn schema_version(&self, dataset: &DatasetId, version: u32) -> Option<Schema> {
        if dataset == self.own_schema.dataset() {
            return Some(self.own_schema.clone()).filter(|own| own.version() == version);
        }
        self.catalogue.version(dataset, version)
    }

    /// The newest schema of every dataset but `_federation`.
    pub fn datasets(&self) -> impl Iterator<Item = &Schema> {
        self.catalogue.all().filter(|schema| !schema.dataset().is_system())
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
