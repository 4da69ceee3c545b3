//! Which records of `_federation` are well-formed by themselves: section 11 of
//! `protocol/SPEC.md`, for `member`, `revocation` and `last`. What a key's record needs
//! is in [`super::federation`].

use std::{collections::BTreeSet, fmt};

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value as Json;

use super::{
    Checked, Refused, ensure, layout,
    record::{self, Value},
};

/// A JSON object none of whose members comes twice.
struct Members(Vec<(String, Json)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reads;
        impl<'de> Visitor<'de> for Reads {
            type Value = Members;

            fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
                to.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Reads)
    }
}

impl Members {
    fn read(body: &str, named: &[&str]) -> Checked<Self> {
        ensure(body.len() <= layout::FEDERATION_BODY_BYTES_MAX, "a body over its limit")?;
        let members: Self = serde_json::from_str(body).map_err(|_| Refused("no JSON object"))?;
        let mut seen = BTreeSet::new();
        let is_new = |(name, _): &(String, Json)| {
            !named.is_empty() && !named.contains(&&name[..]) || seen.insert(name.clone())
        };
        ensure(members.0.iter().all(is_new), "a member that comes twice")?;
        Ok(members)
    }

    /// A member that may stand for nothing.
    fn optional(&self, name: &str) -> Option<&Json> {
        let mut found = self.0.iter().filter(|(of, value)| of == name && !value.is_null());
        found.next().map(|(_, value)| value)
    }

    fn has(&self, name: &str, is: impl Fn(&Json) -> bool) -> bool {
        self.optional(name).is_some_and(is)
    }

    fn may_have(&self, name: &str, is: impl Fn(&Json) -> bool) -> bool {
        self.optional(name).is_none_or(is)
    }
}

/// Whether a record of one of these kinds is well-formed; of another kind it is none.
pub fn check(key: &[u8], record: &[u8]) -> Checked<bool> {
    let (version, values) = record::decode(record)?;
    let [Value::Text(kind), Value::Text(id), part, Value::Text(body)] = &values[..] else {
        return Err(Refused("no record of four texts"));
    };
    let part = match part {
        Value::Null => None,
        Value::Text(part) => Some(&part[..]),
        _ => return Err(Refused("no record of four texts")),
    };
    ensure(version == 1, "another schema version")?;
    ensure(record::encode_key(&values[..3]) == key, "another record's key")?;
    match &kind[..] {
        "member" => member(part, body)?,
        "revocation" => revocation(part, body)?,
        "last" => last(part, body)?,
        _ => return Ok(false),
    }
    let is_letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    ensure((1..=63).contains(&id.len()) && id.bytes().all(is_letter), "no node's name")?;
    Ok(true)
}

fn member(part: Option<&str>, body: &str) -> Checked<()> {
    let members = Members::read(body, &["name", "role", "removed", "certificates_from"])?;
    let well = part.is_none()
        && members.has("name", Json::is_string)
        && members.has("role", |role| role == "hub" || role == "member")
        // Left out it stands for false, which is not nothing.
        && members.0.iter().all(|(name, value)| name != "removed" || value.is_boolean())
        && members.may_have("certificates_from", Json::is_i64);
    ensure(well, "a malformed member")
}

fn revocation(part: Option<&str>, body: &str) -> Checked<()> {
    let members = Members::read(body, &["at_ms", "reason"])?;
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let serial = part.is_none_or(|part| part.len() % 2 == 0 && part.bytes().all(is_digit));
    let well =
        serial && members.has("at_ms", Json::is_i64) && members.has("reason", Json::is_string);
    ensure(well, "a malformed revocation")
}

fn last(part: Option<&str>, body: &str) -> Checked<()> {
    let members = Members::read(body, &[])?;
    let number = |text: &str| {
        let digits = text.len() == 10 && text.bytes().all(|byte| byte.is_ascii_digit());
        digits && text.parse::<u32>().is_ok_and(|number| number > 0)
    };
    let (key, index) = part.and_then(|part| part.split_once('-')).unwrap_or_default();
    let well = number(key) && number(index) && members.0.iter().all(|(_, last)| last.is_u64());
    ensure(well, "malformed last numbers")
}
