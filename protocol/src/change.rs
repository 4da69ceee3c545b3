//! Change sets: atomic, ordered batches of changes of one partition, chained
//! and signed by its origin.
//!
//! The header is what is signed; the body (the changes) is bound to it by a
//! hash. `SPEC.md`, section "Change sets". A [`VerifiedChangeSet`] can only
//! exist after signature, body hash, count and order were checked; whether it
//! fits behind the replica's head, and whether its state root is true, is
//! checked where it is committed.

use crate::{
    encoding::{DecodeError, Reader, Writer},
    hash::{Hash, Purpose},
    history::{self, SEQ_LIMIT},
    id::{Audience, DatasetId, FederationId, NAME_BYTES_MAX, NodeId, PartitionId},
    record::{KEY_BYTES_MAX, RECORD_BYTES_MAX},
    sign::{PublicKey, Signature, SignaturePurpose, SigningKey},
    suite::Suite,
};

/// Most changes in a change set: one batch must not stall readers of the store.
pub const CHANGES_MAX: usize = 10_000;
/// Most bytes of an uncompressed body; two of them fit into one frame.
pub const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Most bytes of a signed header: a signature, four names, six hashes and numbers.
pub const HEADER_BYTES_MAX: usize = 1024;

/// The header's version.
const HEADER_VERSION: u8 = 1;

/// One change of one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The record under `key` is now `value`.
    Put {
        /// The encoded key.
        key: Vec<u8>,
        /// The encoded record.
        value: Vec<u8>,
    },
    /// There is no record under `key` any more.
    Delete {
        /// The encoded key.
        key: Vec<u8>,
    },
}

const TAG_PUT: u8 = 1;
const TAG_DELETE: u8 = 2;

impl Change {
    /// The key that it changes.
    pub fn key(&self) -> &[u8] {
        match self {
            Change::Put { key, .. } | Change::Delete { key } => key,
        }
    }

    /// The key and the record that it puts there, if it does.
    pub fn entry(&self) -> Option<(&[u8], &[u8])> {
        match self {
            Change::Put { key, value } => Some((key, value)),
            Change::Delete { .. } => None,
        }
    }

    /// Bytes that it takes in a body.
    pub fn encoded_bytes(&self) -> usize {
        match self {
            Change::Put { key, value } => 1 + 4 + key.len() + 4 + value.len(),
            Change::Delete { key } => 1 + 4 + key.len(),
        }
    }
}

/// Encodes changes, sorted by key, as a change set's body.
pub fn encode_changes<'a>(
    changes: impl IntoIterator<Item = &'a Change, IntoIter: Clone>,
) -> Vec<u8> {
    let changes = changes.into_iter();
    let bytes = changes.clone().map(Change::encoded_bytes).sum();
    let mut out = Writer::after(Vec::with_capacity(bytes));
    for change in changes {
        match change {
            Change::Put { key, value } => {
                out.u8(TAG_PUT);
                out.bytes(key);
                out.bytes(value);
            }
            Change::Delete { key } => {
                out.u8(TAG_DELETE);
                out.bytes(key);
            }
        }
    }
    out.into_bytes()
}

/// Reads a body: strictly ascending keys, every limit, every byte.
pub fn decode_changes(body: &[u8]) -> Result<Vec<Change>, DecodeError> {
    if body.len() > BODY_BYTES_MAX {
        return Err(DecodeError::TooLong { what: "a change set", limit: BODY_BYTES_MAX });
    }
    let mut input = Reader::new(body);
    let mut changes: Vec<Change> = Vec::new();
    while input.remaining() > 0 {
        let tag = input.u8()?;
        let key = input.bytes("a key", KEY_BYTES_MAX)?.to_vec();
        if changes.last().is_some_and(|last| last.key() >= key.as_slice()) {
            return Err(DecodeError::Invalid("changes are not in ascending order of keys"));
        }
        changes.push(match tag {
            TAG_PUT => {
                Change::Put { key, value: input.bytes("a record", RECORD_BYTES_MAX)?.to_vec() }
            }
            TAG_DELETE => Change::Delete { key },
            _ => return Err(DecodeError::Invalid("a change has an unknown tag")),
        });
        if changes.len() > CHANGES_MAX {
            return Err(DecodeError::TooLong { what: "a change set", limit: CHANGES_MAX });
        }
    }
    Ok(changes)
}

/// The hash of a body, as its header holds it.
pub fn changes_hash(suite: Suite, body: &[u8]) -> Hash {
    suite.hash(Purpose::Changes, &[body])
}

/// A place in a partition's history: a sequence number and its header's hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Position {
    /// The sequence number, from 1 and below [`SEQ_LIMIT`].
    #[serde(deserialize_with = "bounded_seq")]
    pub seq: u64,
    /// The header's hash.
    pub hash: Hash,
}

fn bounded_seq<'de, D: serde::Deserializer<'de>>(input: D) -> Result<u64, D::Error> {
    let seq = serde::Deserialize::deserialize(input)?;
    check_seq(seq).map_err(serde::de::Error::custom)?;
    Ok(seq)
}

/// Refuses a number that no history reaches.
pub fn check_seq(seq: u64) -> Result<(), DecodeError> {
    if seq < SEQ_LIMIT { Ok(()) } else { Err(DecodeError::Invalid("a number beyond all limits")) }
}

/// What the origin states, and signs, about a change set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The partition; its origin is the signer.
    pub partition: PartitionId,
    /// From 1, without gaps.
    pub seq: u64,
    /// The hash of the header before, or [`Suite::none`] for the first.
    pub previous: Hash,
    /// All headers before it: [`crate::history::Peaks::root`].
    pub history: Hash,
    /// The newest `_federation` head that the origin knew. None only in
    /// `_federation` itself.
    pub federation_head: Option<Position>,
    /// The origin's clock in milliseconds since 1970. Information only.
    pub origin_time_ms: i64,
    /// The schema version that the origin used.
    pub schema_version: u32,
    /// Changes in the body.
    pub change_count: u32,
    /// The body's hash.
    pub changes_hash: Hash,
    /// The state tree's root after the changes.
    pub root: Hash,
    /// Records after the changes.
    pub records: u64,
    /// The id of the key that signed.
    pub key_id: Hash,
}

impl Header {
    /// The canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.u8(HEADER_VERSION);
        out.bytes(self.partition.federation.as_str().as_bytes());
        out.bytes(self.partition.dataset.as_str().as_bytes());
        out.bytes(self.partition.origin.as_str().as_bytes());
        out.bytes(self.partition.audience.as_str().as_bytes());
        out.u64(self.seq);
        out.hash(&self.previous);
        out.hash(&self.history);
        match &self.federation_head {
            None => out.u8(0),
            Some(position) => {
                out.u8(1);
                out.u64(position.seq);
                out.hash(&position.hash);
            }
        }
        out.i64(self.origin_time_ms);
        out.u32(self.schema_version);
        out.u32(self.change_count);
        out.hash(&self.changes_hash);
        out.hash(&self.root);
        out.u64(self.records);
        out.hash(&self.key_id);
        out.into_bytes()
    }

    /// Reads canonical bytes, all of whose hashes are of `suite`.
    pub fn decode(suite: Suite, bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Reader::new(bytes);
        if input.u8()? != HEADER_VERSION {
            return Err(DecodeError::Invalid("a header has an unknown version"));
        }
        let name = |input: &mut Reader<'_>| Ok(input.text("a name", NAME_BYTES_MAX)?.to_owned());
        let bad_name = |_| DecodeError::Invalid("a header holds a malformed name");
        let federation = FederationId::new(&name(&mut input)?).map_err(bad_name)?;
        let dataset = DatasetId::new(&name(&mut input)?).map_err(bad_name)?;
        let origin = NodeId::new(&name(&mut input)?).map_err(bad_name)?;
        let audience = Audience::parse(&name(&mut input)?).map_err(bad_name)?;
        let partition = PartitionId { federation, dataset, origin, audience };
        let seq = input.u64()?;
        let (previous, history) = (input.hash(suite)?, input.hash(suite)?);
        let is_first = (previous == suite.none(), history == history::empty(suite));
        if seq == 0 || is_first != (seq == 1, seq == 1) {
            return Err(DecodeError::Invalid("only the first header has no predecessor"));
        }
        check_seq(seq)?;
        let federation_head = match input.u8()? {
            0 => None,
            1 => {
                let seq = input.u64()?;
                check_seq(seq)?;
                Some(Position { seq, hash: input.hash(suite)? })
            }
            _ => return Err(DecodeError::Invalid("a header has an unknown tag")),
        };
        if federation_head.is_none() != partition.dataset.is_system() {
            return Err(DecodeError::Invalid("all but _federation name a _federation head"));
        }
        let header = Self {
            partition,
            seq,
            previous,
            history,
            federation_head,
            origin_time_ms: input.i64()?,
            schema_version: input.u32()?,
            change_count: input.u32()?,
            changes_hash: input.hash(suite)?,
            root: input.hash(suite)?,
            records: input.u64()?,
            key_id: input.hash(suite)?,
        };
        input.finish()?;
        Ok(header)
    }
}

/// A header with its hash and its signature, which may not have been verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedHeader {
    header: Header,
    hash: Hash,
    signature: Signature,
}

impl SignedHeader {
    /// Signs a header with its origin's key.
    pub fn sign(header: Header, key: &SigningKey) -> Self {
        let hash = key.suite().hash(Purpose::Header, &[&header.encode()]);
        let signature = key.sign(SignaturePurpose::Header, hash.as_bytes());
        Self { header, hash, signature }
    }

    /// What was signed.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The header's hash; the signature is not part of it.
    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// Where it stands in its partition's history.
    pub fn position(&self) -> Position {
        Position { seq: self.header.seq, hash: self.hash }
    }

    /// The suite's number, the signature, then the header's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let suite = self.suite().number();
        [&[suite][..], self.signature.as_bytes(), &self.header.encode()].concat()
    }

    /// The suite of its hashes and of its signature.
    pub fn suite(&self) -> Suite {
        self.hash.suite()
    }

    /// Reads [`SignedHeader::encode`]. The signature is not verified.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > HEADER_BYTES_MAX {
            return Err(DecodeError::TooLong { what: "a header", limit: HEADER_BYTES_MAX });
        }
        let mut input = Reader::new(bytes);
        let suite = Suite::from_number(input.u8()?)?;
        let signature = input.signature(suite)?;
        let header_bytes = input.rest();
        let header = Header::decode(suite, header_bytes)?;
        Ok(Self { header, hash: suite.hash(Purpose::Header, &[header_bytes]), signature })
    }

    /// Checks the signature with the origin's key of that id, which has to count
    /// for the header's number.
    pub fn verify(&self, keys: &dyn KeyRing) -> Result<(), ChangeSetError> {
        let Header { partition, seq, key_id, .. } = &self.header;
        let key = keys.key(partition, *seq, key_id).map_err(|problem| match problem {
            KeyProblem::Unknown => {
                ChangeSetError::UnknownKey { origin: partition.origin.clone(), key_id: *key_id }
            }
            KeyProblem::OutOfRange { first, last } => {
                ChangeSetError::KeyRange { key_id: *key_id, seq: *seq, first, last }
            }
        })?;
        key.verify(SignaturePurpose::Header, self.hash.as_bytes(), self.signature.as_bytes())
            .map_err(|_| ChangeSetError::Signature)?;
        if keys.allows(partition, self.position()) {
            Ok(())
        } else {
            Err(ChangeSetError::OtherBase)
        }
    }
}

/// Who may sign what.
pub trait KeyRing {
    /// The key with this id of the partition's origin, if it may sign the change
    /// set with this number.
    fn key(
        &self,
        partition: &PartitionId,
        seq: u64,
        key_id: &Hash,
    ) -> Result<PublicKey, KeyProblem>;

    /// Whether a place in a history can be the one that counts. After a theft the
    /// root names one place, and no other header has its number.
    fn allows(&self, _partition: &PartitionId, _position: Position) -> bool {
        true
    }
}

/// Why a key may not sign a change set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyProblem {
    /// It is not registered for the origin.
    Unknown,
    /// It counts for other numbers only.
    OutOfRange {
        /// Its first number in this partition.
        first: u64,
        /// Its last one, if it was retired.
        last: Option<u64>,
    },
}

/// Why a change set is not what its origin signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeSetError {
    /// The header names a key that is not registered for the origin.
    #[error("key {key_id} is not registered for {origin}")]
    UnknownKey {
        /// The partition's origin.
        origin: NodeId,
        /// The key that the header names.
        key_id: Hash,
    },
    /// The key counts for other numbers. It is no proof of ill will: the origin
    /// may not have heard yet that its key was retired, and then signs anew.
    #[error("key {key_id} does not count for number {seq}: it counts from number {first}{}",
        last.map_or(String::new(), |last| format!(" to {last}")))]
    KeyRange {
        /// The key that the header names.
        key_id: Hash,
        /// The header's number.
        seq: u64,
        /// The key's first number.
        first: u64,
        /// Its last one, if it was retired.
        last: Option<u64>,
    },
    /// The signature is wrong.
    #[error("the signature does not verify")]
    Signature,
    /// The root of trust names another header with this number.
    #[error("the root of trust names another header with this number")]
    OtherBase,
    /// The body is not the one that was signed.
    #[error("the body's hash is not the signed one")]
    BodyHash,
    /// The number of changes is not the signed one.
    #[error("the body has {found} changes instead of the signed {signed}")]
    Count {
        /// As signed.
        signed: u32,
        /// As found.
        found: usize,
    },
    /// The bytes do not decode.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

/// A change set as it travels and lies in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeSet {
    /// The signed header.
    pub header: SignedHeader,
    /// The body, compressed with [`crate::codec::compress`].
    pub body: Vec<u8>,
}

impl ChangeSet {
    /// Checks all that can be checked without the replica's state.
    pub fn verify(self, keys: &dyn KeyRing) -> Result<VerifiedChangeSet, ChangeSetError> {
        self.header.verify(keys)?;
        let body = crate::codec::decompress(&self.body, BODY_BYTES_MAX)?;
        let signed = self.header.header();
        if changes_hash(self.header.suite(), &body) != signed.changes_hash {
            return Err(ChangeSetError::BodyHash);
        }
        let changes = decode_changes(&body)?;
        if changes.len() != signed.change_count as usize {
            return Err(ChangeSetError::Count {
                signed: signed.change_count,
                found: changes.len(),
            });
        }
        Ok(VerifiedChangeSet { header: self.header, body: self.body, changes })
    }
}

/// A change set that its origin signed, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedChangeSet {
    header: SignedHeader,
    body: Vec<u8>,
    changes: Vec<Change>,
}

impl VerifiedChangeSet {
    /// The signed header.
    pub fn header(&self) -> &SignedHeader {
        &self.header
    }

    /// The compressed body.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The changes, sorted by key.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct One(PublicKey);

    impl KeyRing for One {
        fn key(&self, _: &PartitionId, _: u64, id: &Hash) -> Result<PublicKey, KeyProblem> {
            if self.0.id() == *id { Ok(self.0) } else { Err(KeyProblem::Unknown) }
        }
    }

    fn change_set(key: &SigningKey, changes: &[Change]) -> ChangeSet {
        let suite = key.suite();
        let body = encode_changes(changes);
        let header = Header {
            partition: PartitionId::parse_full("zhengzhou/enterprise/410122/*").unwrap(),
            seq: 2,
            previous: suite.repeated(1),
            history: suite.repeated(8),
            federation_head: Some(Position { seq: 9, hash: suite.repeated(2) }),
            origin_time_ms: 1_700_000_000_000,
            schema_version: 1,
            change_count: changes.len() as u32,
            changes_hash: changes_hash(suite, &body),
            root: suite.repeated(3),
            records: 7,
            key_id: key.public().id(),
        };
        ChangeSet { header: SignedHeader::sign(header, key), body: crate::codec::compress(&body) }
    }

    #[test]
    fn what_was_signed_verifies_and_nothing_else() {
        for suite in Suite::ALL.iter().copied() {
            let key = suite.signing_key(&vec![1; suite.secret_key_bytes()]).unwrap();
            let ring = One(key.public());
            let changes =
                vec![Change::Put { key: vec![1], value: vec![2] }, Change::Delete { key: vec![3] }];
            let set = change_set(&key, &changes);
            let bytes = set.header.encode();
            assert_eq!(SignedHeader::decode(&bytes).as_ref(), Ok(&set.header));
            assert_eq!((set.header.suite(), bytes[0]), (suite, suite.number()));
            assert_eq!(set.clone().verify(&ring).unwrap().changes(), changes);

            for index in 0..bytes.len() {
                let mut altered = bytes.clone();
                altered[index] ^= 1;
                let refused =
                    SignedHeader::decode(&altered).map_or(true, |h| h.verify(&ring).is_err());
                assert!(refused, "byte {index} may be altered");
            }
            let mut other_body = set.clone();
            other_body.body = crate::codec::compress(&encode_changes(&changes[..1]));
            assert_eq!(other_body.verify(&ring), Err(ChangeSetError::BodyHash));
            let stranger = suite.signing_key(&vec![2; suite.secret_key_bytes()]).unwrap();
            assert!(matches!(
                set.verify(&One(stranger.public())),
                Err(ChangeSetError::UnknownKey { .. })
            ));
        }
    }

    #[test]
    fn bodies_out_of_order_or_over_a_limit_are_refused() {
        let put = |key: u8| Change::Put { key: vec![key], value: vec![] };
        assert!(decode_changes(&encode_changes(&[put(2), put(1)])).is_err());
        assert!(decode_changes(&encode_changes(&[put(1), put(1)])).is_err());
        let many: Vec<Change> = (0..=CHANGES_MAX as u32)
            .map(|n| Change::Delete { key: n.to_be_bytes().to_vec() })
            .collect();
        assert!(decode_changes(&encode_changes(&many)).is_err());
        assert_eq!(decode_changes(&encode_changes(&many[1..])).unwrap(), many[1..]);
        for change in [put(1), many[0].clone()] {
            assert_eq!(encode_changes(std::slice::from_ref(&change)).len(), change.encoded_bytes());
        }
    }
}
