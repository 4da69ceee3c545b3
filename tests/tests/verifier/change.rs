//! Change sets: signed headers and bodies, section 10 of `protocol/SPEC.md`.
//!
//! Here is what can be said of one alone; [`super::replica`] compares it with
//! what is held.

use super::{
    Checked, Refused, ensure, hashes,
    hashes::Hash,
    history,
    layout::{self, Header},
    reader::Reader,
    tree::State,
};

/// A header that decodes and whose fields fit each other. Nobody has looked at
/// its signature.
#[derive(Debug, Clone)]
pub struct SignedHeader {
    pub header: Header,
    pub hash: Hash,
    signature: [u8; 64],
}

impl SignedHeader {
    pub fn decode(bytes: &[u8]) -> Checked<Self> {
        ensure(bytes.len() <= layout::SIGNED_HEADER_BYTES_MAX, "a header over its limit")?;
        let mut reader = Reader::new(bytes);
        reader.suite()?;
        let signature = reader.raw()?;
        let encoded = reader.take(reader.left())?;
        let header = layout::header(encoded)?;
        let first = header.seq == 1;
        ensure((1..layout::SEQ_LIMIT).contains(&header.seq), "a number that cannot be")?;
        ensure((header.previous == [0; 32]) == first, "a first header, or not")?;
        ensure((header.history == history::root(&[])) == first, "a first history, or not")?;
        let system = header.dataset == layout::FEDERATION_DATASET;
        ensure(header.federation_head.is_none() == system, "a head where none belongs, or none")?;
        let far = header.federation_head.is_some_and(|(seq, _)| seq >= layout::SEQ_LIMIT);
        ensure(!far, "a head that cannot be")?;
        let hash = hashes::hash(layout::hash::HEADER, encoded);
        Ok(Self { header, hash, signature })
    }

    /// The full name of its partition.
    pub fn partition(&self) -> String {
        let Header { federation, dataset, origin, audience, .. } = &self.header;
        format!("{federation}/{dataset}/{origin}/{audience}")
    }

    /// Whether this key has signed it; whether the key counts is another matter.
    pub fn verify(&self, public: &[u8; 32]) -> Checked<()> {
        ensure(hashes::key_id(public) == self.header.key_id, "another key's id")?;
        hashes::verify(public, layout::signature::HEADER, &self.hash, &self.signature)
    }
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Put { key: Vec<u8>, record: Vec<u8> },
    Delete { key: Vec<u8> },
}

impl Change {
    pub fn key(&self) -> &[u8] {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }
}

/// An uncompressed body.
pub fn changes(body: &[u8]) -> Checked<Vec<Change>> {
    ensure(body.len() <= layout::BODY_BYTES_MAX, "a body over its limit")?;
    let mut reader = Reader::new(body);
    let mut changes: Vec<Change> = Vec::new();
    while reader.left() > 0 {
        ensure(changes.len() < layout::CHANGES_MAX, "too many changes")?;
        let kind = reader.u8()?;
        let key = reader.bytes(layout::KEY_BYTES_MAX)?.to_vec();
        let change = match kind {
            1 => Change::Put { key, record: reader.bytes(layout::RECORD_BYTES_MAX)?.to_vec() },
            2 => Change::Delete { key },
            _ => return Err(Refused("an unknown kind of change")),
        };
        let ascends = changes.last().is_none_or(|before| before.key() < change.key());
        ensure(ascends, "keys out of order")?;
        changes.push(change);
    }
    Ok(changes)
}

/// A compressed body that is the one which the header signs.
pub fn signed_changes(header: &Header, field: &[u8]) -> Checked<Vec<Change>> {
    let body = super::pages::decompress(field, layout::BODY_BYTES_MAX)?;
    ensure(hashes::hash(layout::hash::CHANGES, &body) == header.changes_hash, "another body")?;
    let changes = changes(&body)?;
    let count = u32::try_from(changes.len()).map_err(|_| Refused("too many changes"))?;
    ensure(count == header.change_count, "another number of changes")?;
    Ok(changes)
}

/// What a state becomes.
pub fn apply(state: &mut State, changes: &[Change]) {
    for change in changes {
        match change {
            Change::Put { key, record } => {
                state.insert(key.clone(), record.clone());
            }
            Change::Delete { key } => {
                state.remove(key);
            }
        }
    }
}
