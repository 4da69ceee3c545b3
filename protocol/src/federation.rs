//! `_federation`: the dataset whose records are members, their signing keys,
//! and the catalogue.
//!
//! Its origin is the hub, and it replicates like any other dataset, so what a
//! node believes about its federation is signed, chained and comparable. Bodies
//! are JSON texts, so that `creditsync get _federation member 410122` shows
//! them. [`Registry`] is the same content, ready for questions.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    change::{Change, KeyRing},
    hash::Hash,
    id::{DatasetId, FEDERATION_DATASET, NodeId},
    record::{Record, encode_key},
    schema::{Field, FieldType, RawSchema, Schema},
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

impl Role {
    /// `hub` or `member`.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Hub => "hub",
            Role::Member => "member",
        }
    }
}

/// A member as its record describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The display name; any text.
    pub name: String,
    /// Its part.
    pub role: Role,
    /// Public signing keys as hexadecimal digits, the newest last.
    pub signing_keys: Vec<String>,
    /// A removed member may not connect; its history still verifies.
    #[serde(default)]
    pub removed: bool,
}

/// One record of `_federation`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A node.
    Member(NodeId, Member),
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
        aliases: Vec::new(),
        kind: FieldType::Text,
        required,
        personal: false,
        length_max: None,
        values: Vec::new(),
        strict: false,
        scale_max: None,
        legacy_codes: false,
    };
    Schema::check(RawSchema {
        dataset: FEDERATION_DATASET.into(),
        version: SCHEMA_VERSION,
        title_zh: "联盟成员与目录".into(),
        title_en: "members and catalogue".into(),
        source: String::new(),
        key: vec!["kind".into(), "id".into(), "part".into()],
        fields: vec![
            field("kind", "种类", "what the record describes", true),
            field("id", "标识", "the node or dataset", true),
            field("part", "部分", "the schema's version", false),
            field("body", "内容", "JSON", true),
        ],
    })
    .expect("the built-in schema passes its own check, as a test shows")
}

impl Entry {
    /// The change that writes this record.
    pub fn put(&self) -> Result<Change, MalformedEntry> {
        let json = |body: Result<String, serde_json::Error>| {
            body.map_err(|error| MalformedEntry(error.to_string()))
        };
        let (kind, id, part, body) = match self {
            Entry::Member(node, member) => {
                ("member", node.as_str(), String::new(), json(serde_json::to_string(member))?)
            }
            Entry::Schema(schema) => (
                "schema",
                schema.dataset().as_str(),
                // Fixed width, so that versions sort as numbers.
                format!("{:010}", schema.version()),
                json(serde_json::to_string(schema.raw()))?,
            ),
        };
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

    /// Reads a record. Kinds that this build does not know are `None`: a newer
    /// hub may have some.
    pub fn read(value: &[u8]) -> Result<Option<Self>, MalformedEntry> {
        let record = Record::decode(value).map_err(|error| MalformedEntry(error.to_string()))?;
        let text = |index: usize| match record.values.get(index) {
            Some(Value::Text(text)) => text.as_str(),
            _ => "",
        };
        let wrong = |error: &dyn std::fmt::Display| {
            MalformedEntry(format!("{} {}: {error}", text(0), text(1)))
        };
        match text(0) {
            "member" => {
                let node = NodeId::new(text(1)).map_err(|error| wrong(&error))?;
                let member = serde_json::from_str(text(3)).map_err(|error| wrong(&error))?;
                Ok(Some(Entry::Member(node, member)))
            }
            "schema" => {
                let raw: RawSchema =
                    serde_json::from_str(text(3)).map_err(|error| wrong(&error))?;
                let schema = Schema::check(raw).map_err(|errors| wrong(&errors[0]))?;
                Ok(Some(Entry::Schema(schema)))
            }
            _ => Ok(None),
        }
    }
}

/// A member with its keys checked.
#[derive(Debug, Clone)]
pub struct KnownMember {
    /// The record.
    pub member: Member,
    keys: Vec<PublicKey>,
}

impl KnownMember {
    /// The member's signing keys, the newest last.
    pub fn keys(&self) -> &[PublicKey] {
        &self.keys
    }
}

/// What `_federation` says: who belongs, whose signature counts, and what the
/// datasets look like.
#[derive(Debug, Clone)]
pub struct Registry {
    hub: NodeId,
    /// The key of the anchor, which verifies `_federation` itself.
    hub_key: PublicKey,
    members: BTreeMap<NodeId, KnownMember>,
    schemas: BTreeMap<DatasetId, BTreeMap<u32, Schema>>,
}

impl Registry {
    /// A registry that knows the anchor alone.
    pub fn new(hub: NodeId, hub_key: PublicKey) -> Self {
        let mut registry =
            Self { hub, hub_key, members: BTreeMap::new(), schemas: BTreeMap::new() };
        registry.insert_schema(schema());
        registry
    }

    fn insert_schema(&mut self, schema: Schema) {
        self.schemas.entry(schema.dataset().clone()).or_default().insert(schema.version(), schema);
    }

    /// Takes one record of `_federation`, by its encoded value.
    pub fn insert(&mut self, value: &[u8]) -> Result<(), MalformedEntry> {
        match Entry::read(value)? {
            None => {}
            Some(Entry::Schema(schema)) => self.insert_schema(schema),
            Some(Entry::Member(node, member)) => {
                let keys = member
                    .signing_keys
                    .iter()
                    .map(|text| {
                        let bytes: Option<Hash> = text.parse().ok();
                        bytes.and_then(|bytes| PublicKey::from_bytes(&bytes.0).ok())
                    })
                    .collect::<Option<Vec<_>>>()
                    .ok_or_else(|| {
                        MalformedEntry(format!("member {node}: a signing key is not a key"))
                    })?;
                self.members.insert(node, KnownMember { member, keys });
            }
        }
        Ok(())
    }

    /// The hub's name, from the anchor.
    pub fn hub(&self) -> &NodeId {
        &self.hub
    }

    /// Every node, removed ones too.
    pub fn members(&self) -> &BTreeMap<NodeId, KnownMember> {
        &self.members
    }

    /// A node that may connect.
    pub fn active_member(&self, node: &NodeId) -> Option<&KnownMember> {
        self.members.get(node).filter(|known| !known.member.removed)
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
}

impl KeyRing for Registry {
    fn key(&self, origin: &NodeId, key_id: &Hash) -> Option<PublicKey> {
        if *origin == self.hub && *key_id == self.hub_key.id() {
            return Some(self.hub_key);
        }
        self.members.get(origin)?.keys.iter().copied().find(|key| key.id() == *key_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sign::SigningKey;

    fn value_of(change: Change) -> Vec<u8> {
        match change {
            Change::Put { value, .. } => value,
            Change::Delete { .. } => Vec::new(),
        }
    }

    #[test]
    fn members_and_schemas_read_back() {
        let key = SigningKey::from_seed(&[3; 32]).public();
        let hub = NodeId::new("410100").unwrap();
        let node = NodeId::new("410122").unwrap();
        let member = Member {
            name: "中牟县".into(),
            role: Role::Member,
            signing_keys: vec![Hash(*key.as_bytes()).to_string()],
            removed: false,
        };
        let mut raw = schema().raw().clone();
        raw.dataset = "list".into();
        let list = Schema::check(raw).unwrap();
        let mut registry = Registry::new(hub.clone(), SigningKey::from_seed(&[4; 32]).public());
        for entry in [Entry::Member(node.clone(), member.clone()), Entry::Schema(list.clone())] {
            let value = value_of(entry.put().unwrap());
            assert_eq!(Entry::read(&value).unwrap(), Some(entry));
            registry.insert(&value).unwrap();
        }
        assert_eq!(registry.key(&node, &key.id()), Some(key));
        assert_eq!(registry.key(&hub, &key.id()), None);
        assert_eq!(registry.schema(list.dataset()), Some(&list));
        assert_eq!(registry.datasets().count(), 1);

        let removed = Member { removed: true, ..member };
        registry.insert(&value_of(Entry::Member(node.clone(), removed).put().unwrap())).unwrap();
        assert!(registry.active_member(&node).is_none());
        assert_eq!(registry.key(&node, &key.id()), Some(key), "history still verifies");
    }
}
