//! One record of `_federation`: its shape, its JSON body, its bytes.
//!
//! Used by the hub, which writes records, and by [`super::Registry`], which
//! reads them. Whether a record may say what it says is for the registry to
//! judge; here is only what it says.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    change::Change,
    encoding::Writer,
    hash::{Hash, Purpose},
    id::{FEDERATION_DATASET, FederationId, NodeId},
    record::{Record, encode_key},
    schema::{Field, RawSchema, Schema},
    sign::PublicKey,
    value::Value,
};

/// The version of the built-in schema of `_federation`.
const SCHEMA_VERSION: u32 = 1;
/// Longest JSON body: below a record's limit, with room for key and tags.
const BODY_BYTES_MAX: usize = 60 * 1024;

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
    /// It was retired because it may be in the wrong hands.
    #[serde(default)]
    pub revoked: bool,
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
    /// DER as hexadecimal digits. Whoever trusts the predecessor can follow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cross: Option<String>,
    /// For an issuing CA: the number of its root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<u32>,
    /// Where it is in its life.
    pub state: CaState,
}

/// A node or one of its certificates that counts no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// When, in milliseconds since 1970.
    pub at_ms: i64,
    /// Why, for people; may be empty.
    #[serde(default)]
    pub reason: String,
}

/// One record of `_federation`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A node.
    Member(NodeId, Member),
    /// A node's signing key; its keys are numbered from 1, the newest last.
    Key(NodeId, u32, KeyRecord),
    /// A certificate authority with its number, from 1.
    Ca(CaKind, u32, CaRecord),
    /// A revoked node, or one certificate of it by serial number (lower-case
    /// hexadecimal).
    Revocation(NodeId, Option<String>, Revocation),
    /// One version of a dataset's schema.
    Schema(Schema),
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
pub fn certificate_id(der: &[u8]) -> Hash {
    Purpose::Checksum.hash(&[der])
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
            Entry::Ca(_, _, ca) => serde_json::to_string(ca),
            Entry::Revocation(_, _, revocation) => serde_json::to_string(revocation),
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
        let (kind, id, part) = match self {
            Entry::Member(node, _) => ("member", node.as_str(), String::new()),
            Entry::Key(node, number, _) => ("key", node.as_str(), number_text(*number)),
            Entry::Ca(kind, number, _) => ("ca", kind.as_str(), number_text(*number)),
            Entry::Revocation(node, serial, _) => {
                ("revocation", node.as_str(), serial.clone().unwrap_or_default())
            }
            Entry::Schema(schema) => {
                ("schema", schema.dataset().as_str(), number_text(schema.version()))
            }
        };
        [kind.to_owned(), id.to_owned(), part]
    }

    /// Reads a record. Kinds that this build does not know are `None`: a newer
    /// hub may have some.
    pub fn read(value: &[u8]) -> Result<Option<Self>, MalformedEntry> {
        let record = Record::decode(value).map_err(|error| MalformedEntry(error.to_string()))?;
        let text = |index: usize| match record.values.get(index) {
            Some(Value::Text(text)) => text.as_str(),
            _ => "",
        };
        let (kind, id, part, body) = (text(0), text(1), text(2), text(3));
        let wrong =
            |error: &dyn std::fmt::Display| MalformedEntry(format!("{kind} {id} {part}: {error}"));
        let node = || NodeId::new(id).map_err(|error| wrong(&error));
        let number = || {
            let number = part.parse::<u32>().ok().filter(|number| number_text(*number) == part);
            number.filter(|number| *number > 0).ok_or_else(|| wrong(&"no number"))
        };
        let entry = match kind {
            "member" => Entry::Member(node()?, read_json(body).map_err(|e| wrong(&e))?),
            "key" => Entry::Key(node()?, number()?, read_json(body).map_err(|e| wrong(&e))?),
            "ca" => {
                let kind = CaKind::parse(id).ok_or_else(|| wrong(&"no kind of CA"))?;
                Entry::Ca(kind, number()?, read_json(body).map_err(|e| wrong(&e))?)
            }
            "revocation" => {
                let serial = (!part.is_empty()).then(|| part.to_owned());
                Entry::Revocation(node()?, serial, read_json(body).map_err(|e| wrong(&e))?)
            }
            "schema" => {
                let raw: RawSchema = read_json(body).map_err(|e| wrong(&e))?;
                Entry::Schema(Schema::check(raw).map_err(|errors| wrong(&errors[0]))?)
            }
            _ => return Ok(None),
        };
        Ok(Some(entry))
    }
}

fn read_json<T: serde::de::DeserializeOwned>(body: &str) -> Result<T, serde_json::Error> {
    serde_json::from_str(body)
}

impl KeyRecord {
    /// A key that counts from now on.
    pub fn new(key: &PublicKey, by: Introduction, at_ms: i64) -> Self {
        Self {
            public: Hash(*key.as_bytes()).to_string(),
            by,
            countersignature: None,
            at_ms,
            last: None,
            revoked: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sign::SigningKey;

    #[test]
    fn every_kind_of_record_reads_back_and_its_delete_has_its_key() {
        let node = NodeId::new("410122").unwrap();
        let key = SigningKey::from_seed(&[3; 32]).public();
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
            Entry::Ca(CaKind::Root, 2, ca.clone()),
            Entry::Ca(CaKind::Issuing, 4_000_000_000, ca),
            Entry::Revocation(node.clone(), None, revocation.clone()),
            Entry::Revocation(node, Some("4a".into()), revocation),
            Entry::Schema(Schema::check(raw).unwrap()),
        ] {
            let Change::Put { key, value } = entry.put().unwrap() else { panic!("it is a put") };
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
        assert!(read("member", "A", "", "{}").is_err());
        assert!(read("member", "a", "", "{}").is_err());
        assert_eq!(read("weather", "a", "", "rain").unwrap(), None);
    }
}
