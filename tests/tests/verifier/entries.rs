//! Which records of `_federation` are well-formed by themselves, and what they say:
//! section 11 of `protocol/SPEC.md`.
//!
//! What a record needs of others (the key before a key, the limits of all schemas) is
//! in [`super::federation`].

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr},
};

use super::{
    Checked, Refused, ensure, hashes,
    json::Json,
    layout::{self, CERTIFICATE_STATES, INTRODUCTIONS},
    reader::{is_dataset, is_label},
    record::{self, Value},
    schema::Schema,
    schema_rules,
};

/// Last numbers by `dataset/origin`.
pub type Numbers = BTreeMap<String, u64>;

/// A node's signing key, as its own record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    pub number: u32,
    pub public: [u8; 32],
    pub by: String,
    pub countersignature: Option<[u8; 64]>,
    /// None while it counts on.
    pub last: Option<Numbers>,
    /// How many records go on with these.
    pub last_records: u32,
}

/// A node that belongs, or did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// Its role is that of the hub.
    pub is_hub: bool,
    pub removed: bool,
    /// Seconds since 1970.
    pub certificates_from: Option<i64>,
}

/// What a well-formed record says, as far as a verifier asks.
#[derive(Debug)]
pub enum Entry {
    Member(Member),
    Key(Key),
    Last {
        key: u32,
        index: u32,
        numbers: Numbers,
    },
    /// The certificate, DER, and whether what it issued is refused.
    Ca {
        certificate: Vec<u8>,
        retired: bool,
    },
    /// Of the node, or of one of its certificates.
    Revocation {
        serial: Option<String>,
    },
    /// Where a node is dialled.
    Address,
    Schema {
        version: u32,
        schema: Schema,
        body_bytes: usize,
    },
    /// Of a kind that nobody here knows.
    Other,
}

/// Reads a record under its key; also the node, dataset or class that it is about.
pub fn read(key: &[u8], record: &[u8]) -> Checked<(String, Entry)> {
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
    let read: fn(&str, Option<&str>, &Json) -> Option<Entry> = match &kind[..] {
        "member" => member,
        "key" => signing_key,
        "last" => last,
        "ca" => ca,
        "revocation" => revocation,
        "address" => address,
        "schema" => return Ok((id.clone(), schema(id, part, body)?)),
        _ => return Ok((id.clone(), Entry::Other)),
    };
    let entry = read(id, part, &read_body(body)?).ok_or(Refused("a malformed record"))?;
    Ok((id.clone(), entry))
}

fn read_body(body: &str) -> Checked<Json> {
    ensure(body.len() <= layout::FEDERATION_BODY_BYTES_MAX, "a body over its limit")?;
    let body = Json::read(body)?;
    ensure(matches!(body, Json::Object(_)), "a body that is no object")?;
    Ok(body)
}

/// A number of 10 digits, from 1; like a schema's version it is a `u32`.
fn number(text: &str) -> Option<u32> {
    let digits = text.len() == 10 && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| digits && *number > 0)
}

fn numbers(body: &Json) -> Option<Numbers> {
    let Json::Object(members) = body else { return None };
    members.iter().map(|(name, last)| Some((name.clone(), last.as_integer()?))).collect()
}

fn is_text(json: &Json) -> bool {
    json.as_text().is_some()
}

fn is_one_of(json: &Json, words: &[&str]) -> bool {
    json.as_text().is_some_and(|text| words.contains(&text))
}

fn is_moment(json: &Json) -> bool {
    json.as_integer::<i64>().is_some()
}

fn member(id: &str, part: Option<&str>, body: &Json) -> Option<Entry> {
    let well = is_label(id)
        && part.is_none()
        && body.has("name", is_text)
        && body.has("role", |role| is_one_of(role, &["hub", "member"]))
        && body.may_have_or_null("certificates_from", is_moment);
    let removed = body.flag("removed")?;
    let certificates_from = body.member("certificates_from").and_then(Json::as_integer);
    let is_hub = body.has("role", |role| is_one_of(role, &["hub"]));
    well.then_some(Entry::Member(Member { is_hub, removed, certificates_from }))
}

fn revocation(id: &str, part: Option<&str>, body: &Json) -> Option<Entry> {
    let is_serial = |part: &str| hashes::unhex(part).is_ok_and(|octets| !octets.is_empty());
    let well = is_label(id)
        && part.is_none_or(is_serial)
        && body.has("at_ms", is_moment)
        && body.has("reason", is_text);
    well.then(|| Entry::Revocation { serial: part.map(str::to_owned) })
}

fn address(id: &str, part: Option<&str>, body: &Json) -> Option<Entry> {
    let addresses = body.member("addresses")?.as_texts()?;
    let well = is_label(id)
        && part.is_none()
        && (1..=layout::HUB_ADDRESSES_MAX).contains(&addresses.len())
        && addresses.iter().all(|address| is_address(address))
        && (1..addresses.len()).all(|at| !addresses[..at].contains(&addresses[at]))
        && body.has("since", |since| since.as_integer::<u64>().is_some());
    well.then_some(Entry::Address)
}

/// Whether a text is HOST:PORT.
fn is_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let is_port = matches!(port.as_bytes(), [b'1'..=b'9', rest @ ..] if rest.len() < 5)
        && port.parse::<u16>().is_ok();
    let name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let is_host = if let Some(rest) = host.strip_prefix('[') {
        let ip = rest.strip_suffix(']').and_then(|ip| ip.parse::<Ipv6Addr>().ok());
        ip.is_some_and(|ip| !ip.is_unspecified() && ip.segments() != [0, 0, 0, 0, 0, 0xffff, 0, 0])
    } else if host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        host.parse::<Ipv4Addr>().is_ok_and(|ip| !ip.is_unspecified())
    } else {
        host.len() <= layout::HOST_BYTES_MAX && host.bytes().all(name) && {
            host.bytes().any(|byte| byte.is_ascii_alphabetic())
        }
    };
    is_port && is_host
}

fn last(id: &str, part: Option<&str>, body: &Json) -> Option<Entry> {
    let (key, index) = part?.split_once('-')?;
    let entry = Entry::Last { key: number(key)?, index: number(index)?, numbers: numbers(body)? };
    is_label(id).then_some(entry)
}

fn signing_key(id: &str, part: Option<&str>, body: &Json) -> Option<Entry> {
    let public = hashes::unhex_exactly(body.member("public")?.as_text()?).ok()?;
    hashes::public_key(&public).ok()?;
    let signature = |text: &Json| hashes::unhex_exactly(text.as_text()?).ok();
    let countersignature = match body.member("countersignature") {
        Some(text) => Some(signature(text)?),
        None => None,
    };
    let last = match body.member("last") {
        Some(last) => Some(numbers(last)?),
        None => None,
    };
    let last_records = match body.may_have("last_records", |count| *count != Json::Null) {
        true => body.member("last_records").map_or(Some(0), Json::as_integer)?,
        false => return None,
    };
    let well = is_label(id)
        && body.has("by", |by| is_one_of(by, &INTRODUCTIONS))
        && body.has("at_ms", is_moment)
        && body.has("revoked", |revoked| revoked.as_bool().is_some())
        && last_records <= layout::LAST_RECORDS_MAX
        && (last_records == 0 || last.is_some());
    let by = body.member("by")?.as_text()?.to_owned();
    let number = number(part?)?;
    let key = Key { number, public, by, countersignature, last, last_records };
    well.then_some(Entry::Key(key))
}

fn ca(id: &str, part: Option<&str>, body: &Json) -> Option<Entry> {
    let der = |text: &Json| hashes::unhex(text.as_text()?).ok().filter(|octets| !octets.is_empty());
    let certificate = der(body.member("certificate")?)?;
    let is_number = |root: &Json| root.as_integer::<u32>().is_some_and(|number| number > 0);
    let has = |name: &str| body.member(name).is_some();
    let is_kind = match id {
        "root" => !has("root"),
        "issuing" => has("root") && !has("cross"),
        _ => false,
    };
    let well = is_kind
        && part.and_then(number).is_some()
        && body.has("state", |state| is_one_of(state, &CERTIFICATE_STATES))
        && body.may_have_or_null("cross", |cross| der(cross).is_some())
        && body.may_have_or_null("root", is_number);
    let retired = body.has("state", |state| is_one_of(state, &["retired"]));
    well.then_some(Entry::Ca { certificate, retired })
}

fn schema(id: &str, part: Option<&str>, text: &str) -> Checked<Entry> {
    let body = read_body(text)?;
    let version = part.and_then(number);
    let version = version.ok_or(Refused("no version of a schema"))?;
    ensure(is_dataset(id) && id != layout::FEDERATION_DATASET, "no name of a dataset")?;
    schema_rules::check(&body, id, version)?;
    let schema = Schema::read(&body).ok_or(Refused("no schema"))?;
    Ok(Entry::Schema { version, schema, body_bytes: text.len() })
}
