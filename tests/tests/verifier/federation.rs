//! `_federation`: its change sets under an anchor, and which key counts for which
//! number; section 11 of `protocol/SPEC.md`.
//!
//! Of its records only members and signing keys are read: what a verifier needs.
//! A malformed one is ignored alone.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;

use super::{
    Checked, Refused,
    anchor::{Anchor, Freshness},
    ensure, hashes,
    hashes::Hash,
    layout::{self, AnchorFields, Header},
    record::{self, Value},
    replica::Replica,
    schema::Schema,
    tree::State,
};

/// A node's signing key, as its record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRecord {
    pub number: u64,
    pub public: [u8; 32],
    pub by: String,
    /// By `dataset/origin`; none while it counts on.
    pub last: Option<BTreeMap<String, u64>>,
}

/// A verified `_federation`.
#[derive(Clone)]
pub struct Federation {
    anchor: Anchor,
    replica: Replica,
    keys: BTreeMap<String, Vec<KeyRecord>>,
}

impl Federation {
    /// Nothing yet but the anchor.
    pub fn new(anchor: Anchor) -> Self {
        let AnchorFields { federation, hub, .. } = anchor.fields();
        let name = format!("{federation}/{}/{hub}/*", layout::FEDERATION_DATASET);
        Self { replica: Replica::new(&name), anchor, keys: BTreeMap::new() }
    }

    /// The next change set.
    pub fn take(&mut self, signed_header: &[u8], body: &[u8]) -> Checked<()> {
        // The keys are those of the change sets before it.
        let before = self.clone();
        self.replica.take(&before, signed_header, body)?;
        self.keys = keys(&self.anchor.fields().federation, self.replica.state());
        Ok(())
    }

    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    /// A node's keys that have well-formed records, by number.
    pub fn keys(&self, node: &str) -> &[KeyRecord] {
        self.keys.get(node).map_or(&[], Vec::as_slice)
    }

    /// The nodes that are members, the hub among them.
    pub fn members(&self) -> BTreeSet<String> {
        let records = bodies(self.replica.state()).filter_map(|(kind, node, _, body)| {
            let role = body.get("role").and_then(Json::as_str);
            let removed = body.get("removed").and_then(Json::as_bool).unwrap_or(false);
            let counts = kind == "member" && matches!(role, Some("hub" | "member")) && !removed;
            counts.then_some(node)
        });
        records.collect()
    }

    /// Certificates of roots, DER, by number: only for comparing with a token.
    pub fn roots(&self) -> Vec<Vec<u8>> {
        let records = bodies(self.replica.state()).filter_map(|(kind, id, _, body)| {
            let der = hashes::unhex(body.get("certificate")?.as_str()?).ok()?;
            (kind == "ca" && id == "root").then_some(der)
        });
        records.collect()
    }

    /// The fields of a dataset in a version.
    pub fn schema(&self, dataset: &str, version: u32) -> Option<Schema> {
        let part = Some(format!("{version:010}"));
        let found = bodies(self.replica.state())
            .find(|(kind, id, of, _)| kind == "schema" && id == dataset && *of == part)?;
        Schema::read(&found.3)
    }

    /// A statement of what is newest: by a key that counts behind its head.
    pub fn check_freshness(&self, statement: &Freshness) -> Checked<()> {
        let AnchorFields { federation, hub, .. } = self.anchor.fields();
        let fields = &statement.fields;
        let name = format!("{federation}/{}/{hub}/*", layout::FEDERATION_DATASET);
        ensure(fields.partition == name, "another partition")?;
        let held =
            self.replica.header(fields.seq).ok_or(Refused("a head that is not there yet"))?;
        ensure(held.1 == fields.head, "a head of another _federation")?;
        let place = (layout::FEDERATION_DATASET, &hub[..], fields.seq + 1);
        statement.verify(&self.counting(place, &fields.key_id)?)
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
        let (dataset, origin, seq) = place;
        let AnchorFields { hub, hub_key, base, earlier, .. } = self.anchor.fields();
        let of_hub = origin == hub;
        let base = base.map(|(base, _)| base).filter(|_| dataset == layout::FEDERATION_DATASET);
        let keys = self.keys(origin);
        let Some(at) = keys.iter().position(|key| hashes::key_id(&key.public) == *id) else {
            ensure(of_hub, "a key that nobody registered")?;
            if hashes::key_id(hub_key) == *id {
                ensure(base.is_none_or(|base| seq > base), "a key that does not count here")?;
                return Ok(*hub_key);
            }
            let earlier = earlier.iter().find(|key| hashes::key_id(key) == *id);
            let earlier = earlier.ok_or(Refused("a key that nobody registered"))?;
            ensure(base.is_some_and(|base| seq <= base), "a key that does not count here")?;
            return Ok(*earlier);
        };

        let name = format!("{dataset}/{origin}");
        let last = |key: &KeyRecord| {
            key.last.as_ref().map(|last| last.get(&name).copied().unwrap_or_default())
        };
        let mut above = keys[..at].iter().filter_map(last).max().unwrap_or_default();
        let mut up_to = last(&keys[at]).unwrap_or(u64::MAX);
        if let (true, Some(base)) = (of_hub, base) {
            let anchored = keys.iter().position(|key| key.public == *hub_key);
            if anchored.is_some_and(|anchored| at >= anchored) {
                above = above.max(base);
            } else {
                up_to = up_to.min(base);
            }
        }
        ensure(above < seq && seq <= up_to, "a key that does not count here")?;
        Ok(keys[at].public)
    }
}

/// Well-formed records: kind, id, part and body.
fn bodies(state: &State) -> impl Iterator<Item = (String, String, Option<String>, Json)> {
    state.iter().filter_map(|(key, record)| {
        let (version, values) = record::decode(record).ok()?;
        let [Value::Text(kind), Value::Text(id), part, Value::Text(body)] = &values[..] else {
            return None;
        };
        let part = match part {
            Value::Null => None,
            Value::Text(part) => Some(part.clone()),
            _ => return None,
        };
        let well = version == 1
            && record::encode_key(&values[..3]) == *key
            && body.len() <= layout::FEDERATION_BODY_BYTES_MAX;
        let body = serde_json::from_str(body).ok().filter(Json::is_object)?;
        well.then(|| (kind.clone(), id.clone(), part, body))
    })
}

/// A number of 10 digits, from 1.
fn number(text: &str) -> Option<u64> {
    let digits = text.len() == 10 && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|_| digits)?;
    (number > 0).then_some(number)
}

fn numbers(body: &Json) -> Option<BTreeMap<String, u64>> {
    body.as_object()?.iter().map(|(name, last)| Some((name.clone(), last.as_u64()?))).collect()
}

/// The well-formed keys of each node, by number.
pub fn keys(federation: &str, state: &State) -> BTreeMap<String, Vec<KeyRecord>> {
    let mut more: BTreeMap<(String, u64), BTreeMap<u64, BTreeMap<String, u64>>> = BTreeMap::new();
    for (kind, node, part, body) in bodies(state).filter(|(kind, ..)| kind == "last") {
        let read = || {
            let (key, index) = part.as_deref()?.split_once('-')?;
            Some((number(key)?, number(index)?, numbers(&body)?))
        };
        if let (Some((key, index, last)), "last") = (read(), &kind[..]) {
            more.entry((node, key)).or_default().insert(index, last);
        }
    }
    let mut keys: BTreeMap<String, Vec<KeyRecord>> = BTreeMap::new();
    // The state is in the order of keys, so in that of numbers.
    for (_, node, part, body) in bodies(state).filter(|(kind, ..)| kind == "key") {
        let before = keys.entry(node.clone()).or_default();
        let number = part.as_deref().and_then(number);
        let more = |number| more.get(&(node.clone(), number)).cloned().unwrap_or_default();
        let read = number.and_then(|number| key_record(number, &body, more(number)));
        let Some(read) = read else { continue };
        let fits = before.iter().all(|other| other.public != read.public)
            && (read.by != "succession" || follows(federation, &node, before, &read, &body));
        if fits {
            before.push(read);
        }
    }
    keys
}

fn key_record(
    number: u64,
    body: &Json,
    more: BTreeMap<u64, BTreeMap<String, u64>>,
) -> Option<KeyRecord> {
    let public = hashes::unhex_exactly(body.get("public")?.as_str()?).ok()?;
    hashes::public_key(&public).ok()?;
    let by = body.get("by")?.as_str()?.to_owned();
    let known = matches!(&by[..], "anchor" | "enrolment" | "succession" | "reenrolment");
    body.get("at_ms")?.as_i64()?;
    body.get("revoked")?.as_bool()?;
    let mut last = match body.get("last") {
        None | Some(Json::Null) => None,
        Some(last) => Some(numbers(last)?),
    };
    let records = body.get("last_records").map_or(Some(0), Json::as_u64)?;
    if let (Some(last), true) = (&mut last, records > 0) {
        if records > layout::LAST_RECORDS_MAX {
            return None;
        }
        // Counts for nothing while one is missing.
        for index in 1..=records {
            last.extend(more.get(&index)?.clone());
        }
    }
    known.then_some(KeyRecord { number, public, by, last })
}

/// The key before it has signed the succession.
fn follows(
    federation: &str,
    node: &str,
    before: &[KeyRecord],
    key: &KeyRecord,
    body: &Json,
) -> bool {
    let signature = body.get("countersignature").and_then(Json::as_str);
    let signature = signature.and_then(|text| hashes::unhex_exactly::<64>(text).ok());
    let (Some(earlier), Some(signature)) = (before.last(), signature) else { return false };
    let id = hashes::key_id(&earlier.public);
    let bytes = hashes::succession_bytes(federation, node, &id, &key.public);
    hashes::verify(&earlier.public, layout::signature::SUCCESSION, &bytes, &signature).is_ok()
}
