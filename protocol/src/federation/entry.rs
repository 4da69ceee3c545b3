//! One record of `_federation`: its shape, its JSON body, its bytes.
//!
//! Used by the hub, which writes records, and by [`super::Registry`], which
//! reads them. Invariant: a record is well-formed only under the key that its own
//! values give. Whether a record may say what it says is for the registry to
//! judge; here is only what it says.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::addresses::HubAddresses;
use crate::{
    change::Change,
    encoding::Writer,
    hash::Hash,
    hex,
    id::{DatasetId, FEDERATION_DATASET, FederationId, NodeId},
    json::{self, word},
    record::{Record, decode_key, encode_key},
    schema::{Field, RawSchema, Schema},
    sign::PublicKey,
    suite::checksum::Checksum,
    value::Value,
};

/// The version of the built-in schema of `_federation`.
const SCHEMA_VERSION: u32 = 1;
/// Longest JSON body: below a record's limit, with room for key and tags.
pub(super) const BODY_BYTES_MAX: usize = 60 * 1024;
/// Longest JSON of the last numbers in one record: leaves room in a body for a
/// key, its signature and what comes later.
const LAST_BYTES_MAX: usize = 48 * 1024;
/// Further records with the last numbers of one key: some 6 MiB, which with the
/// next key still fits one change set. That is 40 000 partitions with the longest
/// names, and 130 000 with usual ones.
pub const LAST_RECORDS_MAX: u32 = 127;

/// A node's part in a federation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The node that others dial, and the origin of `_federation`.
    Hub,
    /// A node that dials the hub.
    Member,
}

/// A member as its record describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The display name; any text.
    pub name: String,
    /// Its part.
    #[serde(deserialize_with = "word")]
    pub role: Role,
    /// A removed member may not connect; its history still verifies.
    #[serde(default)]
    pub removed: bool,
    /// Since the node joined again: certificates of this federation's authorities
    /// that begin before this moment, in seconds since 1970, count no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificates_from: Option<i64>,
}

/// How a signing key came to be registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Introduction {
    /// The root CA named it in an anchor: a hub's key.
    Anchor,
    /// With the first token of its node.
    Enrolment,
    /// The key before it countersigned it.
    Succession,
    /// With a later token: whoever held the earlier key did not vouch for it.
    Reenrolment,
}

/// A signing key of a node, and which numbers it may sign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRecord {
    /// The Ed25519 public key, 64 hexadecimal digits.
    pub public: String,
    /// How it came.
    #[serde(deserialize_with = "word")]
    pub by: Introduction,
    /// For [`Introduction::Succession`]: the earlier key's signature over
    /// [`succession_bytes`], 128 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub countersignature: Option<String>,
    /// When it was registered, in milliseconds since 1970. Information only.
    pub at_ms: i64,
    /// None while the key counts. Once it was retired: the last number that it
    /// may have signed, by partition (`dataset/origin`); 0 where none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<BTreeMap<String, u64>>,
    /// How many records of the kind `last` go on with `last`, because one record
    /// does not hold them all. Without each of them the key's record counts for
    /// nothing.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub last_records: u32,
    /// It was retired because it may be in the wrong hands.
    pub revoked: bool,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Which certificate authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CaKind {
    /// The root of trust.
    Root,
    /// What issues node certificates.
    Issuing,
}

impl CaKind {
    /// `root` or `issuing`.
    pub fn as_str(self) -> &'static str {
        match self {
            CaKind::Root => "root",
            CaKind::Issuing => "issuing",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [CaKind::Root, CaKind::Issuing].into_iter().find(|kind| kind.as_str() == text)
    }
}

/// Where a certificate authority is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CaState {
    /// Made known, trusted already, not used yet.
    Next,
    /// In use.
    Active,
    /// Followed by another; what it issued still counts.
    Retiring,
    /// What it issued counts no more.
    Retired,
}

/// A certificate authority. Its number is part of the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaRecord {
    /// The certificate, DER as hexadecimal digits.
    pub certificate: String,
    /// For a root with a predecessor: its name and key certified by that one,
    /// DER as hexadecimal digits. Whoever trusts the predecessor can follow. An
    /// issuing CA has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cross: Option<String>,
    /// For an issuing CA: the number of its root, from 1. A root has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<u32>,
    /// Where it is in its life.
    #[serde(deserialize_with = "word")]
    pub state: CaState,
}

/// A node or one of its certificates that counts no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// When, in milliseconds since 1970.
    pub at_ms: i64,
    /// Why, for people; may be empty.
    pub reason: String,
}

/// One record of `_federation`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A node.
    Member(NodeId, Member),
    /// A node's signing key; its keys are numbered from 1, the newest last.
    Key(NodeId, u32, KeyRecord),
    /// More last numbers of the node's key with the first number; the second
    /// counts these records, from 1.
    Last(NodeId, u32, u32, BTreeMap<String, u64>),
    /// A certificate authority with its number, from 1.
    Ca(CaKind, u32, CaRecord),
    /// A revoked node, or one certificate of it by serial number (lower-case
    /// hexadecimal).
    Revocation(NodeId, Option<String>, Revocation),
    /// Where the hub is dialled.
    Address(NodeId, HubAddresses),
    /// One version of a dataset's schema.
    Schema(Schema),
}

/// Which record of `_federation`: what its key says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Slot {
    Member(NodeId),
    Key(NodeId, u32),
    Last(NodeId, u32, u32),
    Ca(CaKind, u32),
    Revocation(NodeId, Option<String>),
    Address(NodeId),
    Schema(DatasetId, u32),
}

/// Why a record of `_federation` makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a record of _federation is malformed: {0}")]
pub struct MalformedEntry(pub String);

/// The built-in schema of `_federation`.
pub fn schema() -> Schema {
    let field = |name: &str, title_zh: &str, title_en: &str, required| Field {
        name: name.into(),
        title_zh: title_zh.into(),
        title_en: title_en.into(),
        required,
        ..Field::default()
    };
    Schema::check(RawSchema {
        dataset: FEDERATION_DATASET.into(),
        version: SCHEMA_VERSION,
        title_zh: "联盟成员与目录".into(),
        title_en: "members and catalogue".into(),
        key: vec!["kind".into(), "id".into(), "part".into()],
        fields: vec![
            field("kind", "种类", "what the record describes", true),
            field("id", "标识", "the node or dataset", true),
            field("part", "部分", "a number, version or serial number", false),
            field("body", "内容", "JSON", true),
        ],
        ..RawSchema::default()
    })
    .expect("the built-in schema passes its own check, as a test shows")
}

/// The id of a certificate in `_federation` and in reports: the hash of its DER.
pub fn certificate_id(der: &[u8]) -> Checksum {
    Checksum::of(&[der])
}

/// What the earlier and the new signing key of `node` both sign when one
/// follows the other.
pub fn succession_bytes(
    federation: &FederationId,
    node: &NodeId,
    earlier: &Hash,
    new: &PublicKey,
) -> Vec<u8> {
    let mut out = Writer::new();
    out.bytes(federation.as_str().as_bytes());
    out.bytes(node.as_str().as_bytes());
    out.raw(earlier.as_bytes());
    out.raw(new.as_bytes());
    out.into_bytes()
}

/// Numbers as parts of a key: of fixed width, so that they sort as numbers.
fn number_text(number: u32) -> String {
    format!("{number:010}")
}

impl Entry {
    /// The change that writes this record.
    pub fn put(&self) -> Result<Change, MalformedEntry> {
        let body = match self {
            Entry::Member(_, member) => serde_json::to_string(member),
            Entry::Key(_, _, key) => serde_json::to_string(key),
            Entry::Last(_, _, _, last) => serde_json::to_string(last),
            Entry::Ca(_, _, ca) => serde_json::to_string(ca),
            Entry::Revocation(_, _, revocation) => serde_json::to_string(revocation),
            Entry::Address(_, addresses) => serde_json::to_string(addresses),
            Entry::Schema(schema) => serde_json::to_string(schema.raw()),
        };
        let body = body.map_err(|error| MalformedEntry(error.to_string()))?;
        let [kind, id, part] = self.key_texts();
        if body.len() > BODY_BYTES_MAX {
            return Err(MalformedEntry(format!(
                "{kind} {id} is longer than {BODY_BYTES_MAX} bytes"
            )));
        }
        let values = vec![Value::text(kind), Value::text(id), Value::text(part), Value::text(body)];
        let wrong = |error: crate::record::RecordError| MalformedEntry(error.to_string());
        let key = encode_key(&values[..3]).map_err(wrong)?;
        let value = Record { schema_version: SCHEMA_VERSION, values }.encode().map_err(wrong)?;
        Ok(Change::Put { key, value })
    }

    /// The change that takes this record away.
    pub fn delete(&self) -> Result<Change, MalformedEntry> {
        let values = self.key_texts().map(Value::text);
        let key = encode_key(&values).map_err(|error| MalformedEntry(error.to_string()))?;
        Ok(Change::Delete { key })
    }

    fn key_texts(&self) -> [String; 3] {
        self.slot().key_texts()
    }

    pub(super) fn slot(&self) -> Slot {
        match self {
            Entry::Member(node, _) => Slot::Member(node.clone()),
            Entry::Key(node, number, _) => Slot::Key(node.clone(), *number),
            Entry::Last(node, key, part, _) => Slot::Last(node.clone(), *key, *part),
            Entry::Ca(kind, number, _) => Slot::Ca(*kind, *number),
            Entry::Revocation(node, serial, _) => Slot::Revocation(node.clone(), serial.clone()),
            Entry::Address(node, _) => Slot::Address(node.clone()),
            Entry::Schema(schema) => Slot::Schema(schema.dataset().clone(), schema.version()),
        }
    }

    /// Reads a record. Kinds that this build does not know are `None`: a newer
    /// hub may have some.
    pub fn read(value: &[u8]) -> Result<Option<Self>, MalformedEntry> {
        Ok(Self::read_with_body(value)?.map(|(entry, _)| entry))
    }

    /// The length of a record's JSON text.
    pub(super) fn body_bytes(value: &[u8]) -> Result<usize, MalformedEntry> {
        let record = Record::decode(value).map_err(|error| MalformedEntry(error.to_string()))?;
        Ok(match record.values.get(3) {
            Some(Value::Text(text)) => text.len(),
            _ => 0,
        })
    }

    /// As [`Entry::read`], with the JSON text.
    pub(super) fn read_with_body(value: &[u8]) -> Result<Option<(Self, String)>, MalformedEntry> {
        let mut record =
            Record::decode(value).map_err(|error| MalformedEntry(error.to_string()))?;
        if record.values.len() > 4 {
            return Err(MalformedEntry("a record has more than four fields".to_owned()));
        }
        record.values.resize(4, Value::Null);
        let body = match record.values.pop() {
            Some(Value::Text(text)) => text,
            _ => String::new(),
        };
        let Some(slot) = Slot::of_values(&record.values)? else {
            return Ok(None);
        };
        let wrong = |error: &dyn std::fmt::Display| slot.malformed(error);
        if body.len() > BODY_BYTES_MAX {
            return Err(wrong(&format!("its body is longer than {BODY_BYTES_MAX} bytes")));
        }
        let entry = match slot.clone() {
            Slot::Member(node) => Entry::Member(node, json::read(&body).map_err(|e| wrong(&e))?),
            Slot::Key(node, number) => {
                Entry::Key(node, number, json::read(&body).map_err(|e| wrong(&e))?)
            }
            Slot::Last(node, key, part) => {
                Entry::Last(node, key, part, json::read(&body).map_err(|e| wrong(&e))?)
            }
            Slot::Ca(kind, number) => {
                Entry::Ca(kind, number, json::read(&body).map_err(|e| wrong(&e))?)
            }
            Slot::Revocation(node, serial) => {
                Entry::Revocation(node, serial, json::read(&body).map_err(|e| wrong(&e))?)
            }
            Slot::Address(node) => {
                let addresses: HubAddresses = json::read(&body).map_err(|e| wrong(&e))?;
                addresses.check().map_err(|problem| wrong(&problem))?;
                Entry::Address(node, addresses)
            }
            Slot::Schema(..) => {
                let raw: RawSchema = json::read(&body).map_err(|e| wrong(&e))?;
                Entry::Schema(Schema::check(raw).map_err(|errors| wrong(&errors[0]))?)
            }
        };
        if entry.slot() != slot {
            return Err(wrong(&"its body is about something else"));
        }
        Ok(Some((entry, body)))
    }
}

impl Slot {
    /// Which record a key is of; none for kinds that this build does not know.
    pub(super) fn of_key(key: &[u8]) -> Result<Option<Self>, MalformedEntry> {
        let fields = decode_key(key).map_err(|error| MalformedEntry(error.to_string()))?;
        if fields.len() != 3 {
            return Err(MalformedEntry("a key has not three fields".to_owned()));
        }
        Self::of_values(&fields)
    }

    fn of_values(fields: &[Value]) -> Result<Option<Self>, MalformedEntry> {
        let text = |index: usize| match fields.get(index) {
            Some(Value::Text(text)) => text.as_str(),
            _ => "",
        };
        let (kind, id, part) = (text(0), text(1), text(2));
        let wrong =
            |error: &dyn std::fmt::Display| MalformedEntry(format!("{kind} {id} {part}: {error}"));
        let node = || NodeId::new(id).map_err(|error| wrong(&error));
        let number = |part: &str| read_number(part).ok_or_else(|| wrong(&"no number"));
        Ok(Some(match kind {
            "member" if !part.is_empty() => return Err(wrong(&"a member has no parts")),
            "member" => Slot::Member(node()?),
            "key" => Slot::Key(node()?, number(part)?),
            "last" => {
                let (key, part) = part.split_once('-').ok_or_else(|| wrong(&"no two numbers"))?;
                Slot::Last(node()?, number(key)?, number(part)?)
            }
            "ca" => {
                let kind = CaKind::parse(id).ok_or_else(|| wrong(&"no kind of CA"))?;
                Slot::Ca(kind, number(part)?)
            }
            "revocation" if part.is_empty() => Slot::Revocation(node()?, None),
            "revocation" if hex::decode(part).is_none() => {
                return Err(wrong(&"no serial number in lower-case hexadecimal"));
            }
            "revocation" => Slot::Revocation(node()?, Some(part.to_owned())),
            "address" if !part.is_empty() => return Err(wrong(&"addresses have no parts")),
            "address" => Slot::Address(node()?),
            "schema" => {
                let dataset = DatasetId::new(id).map_err(|error| wrong(&error))?;
                Slot::Schema(dataset, number(part)?)
            }
            _ => return Ok(None),
        }))
    }

    fn key_texts(&self) -> [String; 3] {
        let (kind, id, part) = match self {
            Slot::Member(node) => ("member", node.as_str(), String::new()),
            Slot::Key(node, number) => ("key", node.as_str(), number_text(*number)),
            Slot::Last(node, key, part) => {
                ("last", node.as_str(), format!("{}-{}", number_text(*key), number_text(*part)))
            }
            Slot::Ca(kind, number) => ("ca", kind.as_str(), number_text(*number)),
            Slot::Revocation(node, serial) => {
                ("revocation", node.as_str(), serial.clone().unwrap_or_default())
            }
            Slot::Address(node) => ("address", node.as_str(), String::new()),
            Slot::Schema(dataset, version) => ("schema", dataset.as_str(), number_text(*version)),
        };
        [kind.to_owned(), id.to_owned(), part]
    }

    pub(super) fn malformed(&self, problem: &dyn std::fmt::Display) -> MalformedEntry {
        let [kind, id, part] = self.key_texts();
        MalformedEntry(format!("{kind} {id} {part}: {problem}"))
    }
}

fn read_number(text: &str) -> Option<u32> {
    let number = text.parse::<u32>().ok()?;
    (number > 0 && number_text(number) == text).then_some(number)
}

impl KeyRecord {
    /// A key that counts from now on.
    pub fn new(key: &PublicKey, by: Introduction, at_ms: i64) -> Self {
        Self {
            public: hex::encode(key.as_bytes()),
            by,
            countersignature: None,
            at_ms,
            last: None,
            last_records: 0,
            revoked: false,
        }
    }

    /// The records by which key `number` of `node` counts no more: up to these
    /// numbers it did. They belong into one change set.
    ///
    /// # Errors
    /// If there are more partitions than [`LAST_RECORDS_MAX`] records hold.
    pub fn retired(
        self,
        node: &NodeId,
        number: u32,
        last: BTreeMap<String, u64>,
    ) -> Result<Vec<Entry>, MalformedEntry> {
        let mut parts = vec![BTreeMap::new()];
        let mut bytes = 0;
        for (partition, seq) in last {
            // Quotes, colon, comma, and the most digits of a number; names need no
            // escapes in JSON.
            let more = partition.len() + 24;
            if bytes + more > LAST_BYTES_MAX {
                parts.push(BTreeMap::new());
                bytes = 0;
            }
            bytes += more;
            if let Some(part) = parts.last_mut() {
                part.insert(partition, seq);
            }
        }
        let mut parts = parts.into_iter().zip(0u32..);
        let first = parts.next().map(|(first, _)| first).unwrap_or_default();
        let mut entries: Vec<Entry> =
            parts.map(|(part, count)| Entry::Last(node.clone(), number, count, part)).collect();
        let last_records = entries.len() as u32;
        if last_records > LAST_RECORDS_MAX {
            return Err(MalformedEntry(format!(
                "the last numbers of key {number} of {node} need {last_records} records, and at most \
                 {LAST_RECORDS_MAX} may be: there are too many partitions"
            )));
        }
        entries.push(Entry::Key(
            node.clone(),
            number,
            KeyRecord { last: Some(first), last_records, ..self },
        ));
        Ok(entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::Suite;

    #[test]
    fn every_kind_of_record_reads_back_and_its_delete_has_its_key() {
        let node = NodeId::new("410122").unwrap();
        let key = Suite::One.signing_key(&[3; 32]).unwrap().public();
        let member = Member {
            name: "中牟县".into(),
            role: Role::Member,
            removed: true,
            certificates_from: Some(7),
        };
        let retired = KeyRecord {
            countersignature: Some("ab".repeat(64)),
            last: Some(BTreeMap::from([("enterprise/410122".to_owned(), 42)])),
            revoked: true,
            ..KeyRecord::new(&key, Introduction::Succession, -5)
        };
        let ca = CaRecord {
            certificate: "3000".into(),
            cross: Some("3001".into()),
            root: Some(1),
            state: CaState::Retiring,
        };
        let revocation = Revocation { at_ms: 7, reason: "遗失".into() };
        let mut raw = schema().raw().clone();
        raw.dataset = "list".into();
        for entry in [
            Entry::Member(node.clone(), member),
            Entry::Key(node.clone(), 7, retired),
            Entry::Last(node.clone(), 7, 12, BTreeMap::from([("list/410122".to_owned(), 3)])),
            Entry::Ca(CaKind::Root, 2, ca.clone()),
            Entry::Ca(CaKind::Issuing, 4_000_000_000, ca),
            Entry::Revocation(node.clone(), None, revocation.clone()),
            Entry::Revocation(node.clone(), Some("4a".into()), revocation),
            Entry::Address(node, HubAddresses { addresses: vec!["a:1".into()], since: 7 }),
            Entry::Schema(Schema::check(raw).unwrap()),
        ] {
            let Change::Put { key, value } = entry.put().unwrap() else { panic!("it is a put") };
            assert_eq!(Slot::of_key(&key).unwrap(), Some(entry.slot()));
            assert_eq!(entry.delete().unwrap(), Change::Delete { key });
            assert_eq!(Entry::read(&value).unwrap(), Some(entry));
        }
    }

    #[test]
    fn numbers_and_names_that_nobody_writes_are_refused() {
        let read = |kind: &str, id: &str, part: &str, body: &str| {
            let values = [kind, id, part, body].map(Value::text).to_vec();
            Entry::read(&Record { schema_version: 1, values }.encode().unwrap())
        };
        let body = r#"{"certificate":"3000","state":"next"}"#;
        assert!(read("ca", "root", "0000000001", body).unwrap().is_some());
        for part in ["", "1", "0000000000", "00000000001", "+000000001", "9999999999"] {
            assert!(read("ca", "root", part, body).is_err(), "{part}");
        }
        assert!(read("ca", "leaf", "0000000001", body).is_err());
        for part in ["", "0000000001", "0000000001-1", "0000000001-0000000000", "1-1"] {
            assert!(read("last", "410122", part, "{}").is_err(), "{part}");
        }
        assert!(read("last", "410122", "0000000002-0000000001", "{}").unwrap().is_some());
        let member = r#"{"name":"a","role":"member"}"#;
        assert!(read("member", "a", "", member).unwrap().is_some());
        assert!(read("member", "a", "x", member).is_err());
        assert!(read("member", "a", "", r#"["a","member"]"#).is_err(), "no object");
        let key = r#"{"public":"","by":"enrolment","at_ms":0,"revoked":false}"#;
        assert!(read("key", "a", "0000000001", key).unwrap().is_some());
        for wrong in [r#","revoked":false"#, r#","at_ms":0"#, r#","by":"enrolment""#] {
            let without = key.replace(wrong, "");
            assert!(read("key", "a", "0000000001", &without).is_err(), "{without}");
        }
        let schema = serde_json::to_string(&RawSchema { version: 2, ..schema().raw().clone() });
        let schema = schema.unwrap();
        assert!(read("schema", "_federation", "0000000002", &schema).unwrap().is_some());
        assert!(read("schema", "_federation", "0000000001", &schema).is_err(), "another version");
        assert!(read("schema", "list", "0000000002", &schema).is_err(), "another dataset");
        assert!(read("member", "A", "", "{}").is_err());
        assert!(read("member", "a", "", "{}").is_err());
        assert_eq!(read("weather", "a", "", "rain").unwrap(), None);
    }

    #[test]
    fn addresses_that_nobody_could_dial_are_refused() {
        let read = |part: &str, body: &str| {
            let values = ["address", "410100", part, body].map(Value::text).to_vec();
            Entry::read(&Record { schema_version: 1, values }.encode().unwrap())
        };
        let list = |addresses: &[String]| {
            serde_json::to_string(&HubAddresses { addresses: addresses.to_vec(), since: 1 })
        };
        let named = |count: usize| (0..count).map(|n| format!("h{n}.example.org:1")).collect();
        let eight: Vec<String> = named(8);
        assert!(read("", &list(&eight).unwrap()).unwrap().is_some());
        assert!(read("0000000001", &list(&eight).unwrap()).is_err(), "a part");
        let nine: Vec<String> = named(9);
        let twice = [eight[0].clone(), eight[1].clone(), eight[0].clone()];
        for wrong in [&nine[..], &[], &twice, &["0.0.0.0:1".into()], &["a:1\n".into()]] {
            assert!(read("", &list(wrong).unwrap()).is_err(), "{wrong:?}");
        }
        let long = read("", &list(&["a".repeat(10_000)]).unwrap()).unwrap_err().to_string();
        assert!(long.len() < 200, "{long}");
        for wrong in [
            r#"{"addresses":["a:1"]}"#,
            r#"{"since":1}"#,
            r#"{"addresses":"a:1","since":1}"#,
            r#"{"addresses":[1],"since":1}"#,
            r#"{"addresses":["a:1"],"since":-1}"#,
            r#"{"addresses":["a:1"],"since":null}"#,
        ] {
            assert!(read("", wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_last_numbers_of_a_key_fit_whatever_their_number_or_are_refused() {
        let node = NodeId::new("410100").unwrap();
        let key = KeyRecord::new(
            &Suite::One.signing_key(&[3; 32]).unwrap().public(),
            Introduction::Anchor,
            i64::MIN,
        );
        let name = |n: usize| format!("{:0>63}/{n:0>63}", "d");
        let last = |count| (0..count).map(|n| (name(n), u64::MAX)).collect::<BTreeMap<_, _>>();
        for (count, records) in [(0, 0), (1, 0), (325, 0), (326, 1), (10_000, 30)] {
            let entries = key.clone().retired(&node, 1, last(count)).unwrap();
            assert_eq!(entries.len(), records + 1, "{count}");
            let mut all = BTreeMap::new();
            for entry in &entries {
                // Each is within a record's limits.
                entry.put().unwrap();
                match entry {
                    Entry::Key(_, 1, record) => {
                        assert_eq!(record.last_records as usize, records);
                        all.extend(record.last.clone().unwrap());
                    }
                    Entry::Last(_, 1, _, part) => all.extend(part.clone()),
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(all, last(count));
        }
        let refused = key.retired(&node, 1, last(42_000)).unwrap_err().to_string();
        assert!(refused.contains("too many partitions"), "{refused}");
    }
}
