//! `_federation`: its change sets under an anchor, and which key counts for which
//! number; section 11 of `protocol/SPEC.md`.
//!
//! What its records say is put together here ([`Records`]); a malformed one is ignored
//! alone ([`entries`]).

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Checked, Refused,
    anchor::{Anchor, Freshness},
    ensure,
    entries::{self, Entry, Key, Member, Numbers},
    hashes,
    hashes::Hash,
    layout::{self, AnchorFields, Header},
    replica::Replica,
    schema::Schema,
    tree::State,
};

/// A verified `_federation`.
#[derive(Clone)]
pub struct Federation {
    anchor: Anchor,
    replica: Replica,
    records: Records,
}

impl Federation {
    /// Nothing yet but the anchor.
    pub fn new(anchor: Anchor) -> Self {
        let AnchorFields { federation, hub, .. } = anchor.fields();
        let name = format!("{federation}/{}/{hub}/*", layout::FEDERATION_DATASET);
        Self { replica: Replica::new(&name), anchor, records: Records::default() }
    }

    /// The next change set.
    pub fn take(&mut self, signed_header: &[u8], body: &[u8]) -> Checked<()> {
        // The keys are those of the change sets before it.
        let before = self.clone();
        self.replica.take(&before, signed_header, body)?;
        self.records = Records::of(&self.anchor.fields().federation, self.replica.state());
        Ok(())
    }

    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    pub fn records(&self) -> &Records {
        &self.records
    }

    /// A node's keys that have well-formed records, by number.
    pub fn keys(&self, node: &str) -> &[Key] {
        self.records.keys.get(node).map_or(&[], Vec::as_slice)
    }

    /// The nodes that are members, the hub among them.
    pub fn members(&self) -> BTreeSet<&str> {
        let members = self.records.members.iter().filter(|(_, member)| !member.removed);
        members.map(|(node, _)| &node[..]).collect()
    }

    /// Certificates of roots, DER, by number: only for comparing with a token.
    pub fn roots(&self) -> &[Vec<u8>] {
        &self.records.roots
    }

    /// The fields of a dataset in a version.
    pub fn schema(&self, dataset: &str, version: u32) -> Option<&Schema> {
        self.records.schemas.get(&(dataset.to_owned(), version))
    }

    /// A statement of what is newest: by a key that counts behind its head.
    pub fn check_freshness(&self, statement: &Freshness) -> Checked<()> {
        self.records.check_freshness(self.anchor.fields(), statement)?;
        let fields = &statement.fields;
        let held =
            self.replica.header(fields.seq).ok_or(Refused("a head that is not there yet"))?;
        ensure(held.1 == fields.head, "a head of another _federation")
    }

    /// The key that a header names, if it counts for the header's number.
    pub fn counting_key(&self, header: &Header, hash: &Hash) -> Checked<[u8; 32]> {
        let AnchorFields { federation, hub, base, .. } = self.anchor.fields();
        ensure(header.federation == *federation, "another federation")?;
        let in_federation = header.dataset == layout::FEDERATION_DATASET;
        if let (true, Some((seq, named))) = (in_federation && header.origin == *hub, base) {
            ensure(header.seq != *seq || hash == named, "not the header that the anchor names")?;
        }
        self.counting((&header.dataset, &header.origin, header.seq), &header.key_id)
    }

    fn counting(&self, place: (&str, &str, u64), id: &Hash) -> Checked<[u8; 32]> {
        self.records.counting(self.anchor.fields(), place, id)
    }
}

/// What the well-formed records of a state say.
#[derive(Debug, Clone, Default)]
pub struct Records {
    /// Of each node, by number.
    pub keys: BTreeMap<String, Vec<Key>>,
    /// The removed ones too.
    pub members: BTreeMap<String, Member>,
    /// A node, or a node and the serial number of one of its certificates.
    pub revoked: BTreeSet<(String, Option<String>)>,
    pub roots: Vec<Vec<u8>>,
    /// Certificates of issuing authorities, DER, and whether each is retired.
    pub issuing: Vec<(Vec<u8>, bool)>,
    /// Those that count, by dataset and version.
    pub schemas: BTreeMap<(String, u32), Schema>,
}

/// The `last` records of each node's keys: by node and key, then by their own number.
type Further = BTreeMap<(String, u32), BTreeMap<u32, Numbers>>;

impl Records {
    pub fn of(federation: &str, state: &State) -> Self {
        let mut records = Self::default();
        let (mut keys, mut further) = (Vec::new(), Further::new());
        let mut schema_bytes = 0;
        // A state is in the order of keys, so in that of numbers and versions.
        for (id, entry) in state.iter().filter_map(|(key, record)| entries::read(key, record).ok())
        {
            match entry {
                Entry::Member(member) => _ = records.members.insert(id, member),
                Entry::Key(key) => keys.push((id, key)),
                Entry::Last { key, index, numbers } => {
                    further.entry((id, key)).or_default().insert(index, numbers);
                }
                Entry::Ca { certificate, .. } if id == "root" => records.roots.push(certificate),
                Entry::Ca { certificate, retired } => records.issuing.push((certificate, retired)),
                Entry::Revocation { serial } => _ = records.revoked.insert((id, serial)),
                Entry::Schema { version, schema, body_bytes } => {
                    if records.has_room(&id, schema_bytes + body_bytes) {
                        schema_bytes += body_bytes;
                        records.schemas.insert((id, version), schema);
                    }
                }
                // No proof depends on where the hub is.
                Entry::Address | Entry::Other => {}
            }
        }
        records.keys = known_keys(federation, keys, &further);
        records
    }

    /// Whether the hub said it, of whatever head: by a key that counts behind that.
    pub fn check_freshness(&self, anchor: &AnchorFields, statement: &Freshness) -> Checked<()> {
        let AnchorFields { federation, hub, .. } = anchor;
        let fields = &statement.fields;
        let name = format!("{federation}/{}/{hub}/*", layout::FEDERATION_DATASET);
        ensure(fields.partition == name, "another partition")?;
        let place = (layout::FEDERATION_DATASET, &hub[..], fields.seq + 1);
        statement.verify(&self.counting(anchor, place, &fields.key_id)?)
    }

    /// Whether one more schema of a dataset is within the limits of all.
    fn has_room(&self, dataset: &str, bytes: usize) -> bool {
        let datasets: BTreeSet<&str> = self.schemas.keys().map(|(name, _)| &name[..]).collect();
        let versions = self.schemas.keys().filter(|(name, _)| name == dataset).count();
        bytes <= layout::SCHEMA_BYTES_MAX
            && versions < layout::DATASET_VERSIONS_MAX
            && (versions > 0 || datasets.len() < layout::DATASETS_MAX)
    }

    /// The key with an id, if it counts at a place: a dataset, an origin and a number.
    pub fn counting(
        &self,
        anchor: &AnchorFields,
        place: (&str, &str, u64),
        id: &Hash,
    ) -> Checked<[u8; 32]> {
        let (dataset, origin, seq) = place;
        let of_hub = *origin == anchor.hub;
        let base = anchor.base.map(|(base, _)| base);
        let base = base.filter(|_| dataset == layout::FEDERATION_DATASET);
        let keys = self.keys.get(origin).map_or(&[][..], Vec::as_slice);
        let Some(at) = keys.iter().position(|key| hashes::key_id(&key.public) == *id) else {
            ensure(of_hub, "a key that nobody registered")?;
            return anchored(anchor, base, seq, id);
        };
        let name = format!("{dataset}/{origin}");
        let anchored = keys.iter().position(|key| key.public == anchor.hub_key);
        let anchored = anchored.unwrap_or(keys.len());
        let base = base.filter(|_| of_hub);
        let last = |place: usize| {
            let own = keys[place].last.as_ref();
            let own = own.map(|last| last.get(&name).copied().unwrap_or_default());
            let base = base.filter(|_| place < anchored);
            own.into_iter().chain(base).min()
        };
        let mut above = (0..at).filter_map(last).max().unwrap_or_default();
        if at >= anchored {
            above = above.max(base.unwrap_or_default());
        }
        let up_to = last(at).unwrap_or(u64::MAX);
        ensure(above < seq && seq <= up_to, "a key that does not count here")?;
        Ok(keys[at].public)
    }
}

/// A key of the hub that has no record: the anchor's own, or an earlier one.
fn anchored(anchor: &AnchorFields, base: Option<u64>, seq: u64, id: &Hash) -> Checked<[u8; 32]> {
    let is_it = |key: &&[u8; 32]| hashes::key_id(key) == *id;
    let (key, counts) = match Some(&anchor.hub_key).filter(is_it) {
        Some(own) => (own, base.is_none_or(|base| seq > base)),
        None => {
            let earlier = anchor.earlier.iter().find(is_it);
            let earlier = earlier.ok_or(Refused("a key that nobody registered"))?;
            (earlier, base.is_some_and(|base| seq <= base))
        }
    };
    ensure(counts, "a key that does not count here")?;
    Ok(*key)
}

/// Of the keys by node and number those whose records fit to the ones before them.
fn known_keys(
    federation: &str,
    keys: Vec<(String, Key)>,
    further: &Further,
) -> BTreeMap<String, Vec<Key>> {
    let mut known: BTreeMap<String, Vec<Key>> = BTreeMap::new();
    for (node, mut key) in keys {
        let more = further.get(&(node.clone(), key.number));
        let before = known.entry(node.clone()).or_default();
        let fits = before.iter().all(|other| other.public != key.public)
            && (key.by != "succession" || follows(federation, &node, before, &key))
            && goes_on(&mut key, more);
        if fits {
            before.push(key);
        }
    }
    known
}

/// Adds the last numbers of a key's further records, if all of them are there.
fn goes_on(key: &mut Key, further: Option<&BTreeMap<u32, Numbers>>) -> bool {
    let all: Option<Vec<&Numbers>> =
        (1..=key.last_records).map(|index| further?.get(&index)).collect();
    if let (Some(last), Some(all)) = (&mut key.last, &all) {
        last.extend(all.iter().flat_map(|numbers| (*numbers).clone()));
    }
    all.is_some()
}

/// The key before it has signed the succession.
fn follows(federation: &str, node: &str, before: &[Key], key: &Key) -> bool {
    let (Some(earlier), Some(signature)) = (before.last(), key.countersignature) else {
        return false;
    };
    let id = hashes::key_id(&earlier.public);
    let bytes = hashes::succession_bytes(federation, node, &id, &key.public);
    hashes::verify(&earlier.public, layout::signature::SUCCESSION, &bytes, &signature).is_ok()
}
