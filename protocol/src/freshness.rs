//! The hub's word on what the newest `_federation` is, and when it said so.
//!
//! A member that has such a statement from the last day knows that no
//! revocation has been withheld from it for longer. The hub signs one a minute
//! and sends it on the control stream; members keep the newest. Time is compared
//! by whoever asks: this module reads no clock. `SPEC.md`, section "Freshness".

use crate::{
    change::{KeyRing, Position, check_seq},
    encoding::{DecodeError, Reader, Writer},
    hash::Hash,
    id::{NAME_BYTES_MAX, PartitionId},
    sign::{Signature, SignaturePurpose, SigningKey},
    suite::Suite,
};

/// A signature, four names, two hashes of any suite and numbers take at most 480
/// bytes.
pub const STATEMENT_BYTES_MAX: usize = 512;
/// Without a statement for so long, revocations may have been withheld: a day,
/// so that a line that is down over night alarms nobody.
pub const STALE_AFTER_MS: i64 = 24 * 3600 * 1000;

const VERSION: u8 = 1;

/// A statement, whose signature may not have been verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// The partition `_federation`; its origin is the signer.
    pub partition: PartitionId,
    /// Its newest change set.
    pub head: Position,
    /// The hub's clock in milliseconds since 1970.
    pub at_ms: i64,
    /// The id of the key that signed.
    pub key_id: Hash,
    signature: Signature,
}

impl Statement {
    /// Signs a statement with the hub's key.
    pub fn sign(partition: PartitionId, head: Position, at_ms: i64, key: &SigningKey) -> Self {
        let key_id = key.public().id();
        let bytes = signed_bytes(&partition, &head, at_ms, &key_id);
        let signature = key.sign(SignaturePurpose::Freshness, &bytes);
        Self { partition, head, at_ms, key_id, signature }
    }

    fn signed_bytes(&self) -> Vec<u8> {
        signed_bytes(&self.partition, &self.head, self.at_ms, &self.key_id)
    }

    /// The suite's number, the signature, then what it is over.
    pub fn encode(&self) -> Vec<u8> {
        let suite = self.signature.suite().number();
        [&[suite][..], self.signature.as_bytes(), &self.signed_bytes()].concat()
    }

    /// Reads [`Statement::encode`]. The signature is not verified.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > STATEMENT_BYTES_MAX {
            return Err(DecodeError::TooLong { what: "a statement", limit: STATEMENT_BYTES_MAX });
        }
        let mut input = Reader::new(bytes);
        let suite = Suite::from_number(input.u8()?)?;
        let signature = input.signature(suite)?;
        if input.u8()? != VERSION {
            return Err(DecodeError::Invalid("a statement has an unknown version"));
        }
        // Four names and what separates them.
        let name = input.text("a partition", 4 * (NAME_BYTES_MAX + 1))?;
        let partition = PartitionId::parse_full(name)
            .map_err(|_| DecodeError::Invalid("a statement holds a malformed name"))?;
        let statement = Self {
            partition,
            head: Position { seq: input.u64()?, hash: input.hash(suite)? },
            at_ms: input.i64()?,
            key_id: input.hash(suite)?,
            signature,
        };
        input.finish()?;
        if !statement.partition.dataset.is_system() || statement.head.seq == 0 {
            return Err(DecodeError::Invalid("a statement is about _federation, from number 1"));
        }
        check_seq(statement.head.seq)?;
        Ok(statement)
    }

    /// Whether it is about `federation`, a partition `_federation`, and that one's hub
    /// said it with the key that may sign what follows the head.
    pub fn verify(&self, federation: &PartitionId, keys: &dyn KeyRing) -> bool {
        let next = self.head.seq.saturating_add(1);
        self.partition == *federation
            && keys.key(&self.partition, next, &self.key_id).is_ok_and(|key| {
                let bytes = self.signed_bytes();
                let signature = self.signature.as_bytes();
                key.verify(SignaturePurpose::Freshness, &bytes, signature).is_ok()
            })
    }
}

fn signed_bytes(partition: &PartitionId, head: &Position, at_ms: i64, key_id: &Hash) -> Vec<u8> {
    let mut out = Writer::new();
    out.u8(VERSION);
    out.bytes(partition.full_name().as_bytes());
    out.u64(head.seq);
    out.hash(&head.hash);
    out.i64(at_ms);
    out.hash(key_id);
    out.into_bytes()
}

/// Whether the newest statement (made at `at_ms`, none if there never was one)
/// is too old at `now_ms` to rule out withheld revocations.
pub fn is_stale(at_ms: Option<i64>, now_ms: i64) -> bool {
    at_ms.is_none_or(|at_ms| now_ms.saturating_sub(at_ms) >= STALE_AFTER_MS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{change::KeyProblem, history::SEQ_LIMIT, sign::PublicKey};

    struct From9(PublicKey);

    impl KeyRing for From9 {
        fn key(&self, _: &PartitionId, seq: u64, id: &Hash) -> Result<PublicKey, KeyProblem> {
            match self.0.id() == *id && seq >= 9 {
                true => Ok(self.0),
                false => Err(KeyProblem::Unknown),
            }
        }
    }

    #[test]
    fn a_statement_reads_back_and_no_altered_byte_verifies() {
        for suite in Suite::ALL.iter().copied() {
            let key = suite.signing_key(&vec![1; suite.secret_key_bytes()]).unwrap();
            let ring = From9(key.public());
            let partition = PartitionId::parse_full("zhengzhou/_federation/410100/*").unwrap();
            let head = Position { seq: 8, hash: suite.repeated(4) };
            let statement = Statement::sign(partition.clone(), head, 1_700_000_000_000, &key);
            let bytes = statement.encode();
            assert_eq!(Statement::decode(&bytes).as_ref(), Ok(&statement));
            assert!(statement.verify(&partition, &ring), "the key counts from the next number on");
            for index in 0..bytes.len() {
                let mut altered = bytes.clone();
                altered[index] ^= 1;
                let refused =
                    Statement::decode(&altered).map_or(true, |s| !s.verify(&partition, &ring));
                assert!(refused, "byte {index} may be altered");
            }
            for seq in [0, SEQ_LIMIT] {
                let beyond = Statement::sign(partition.clone(), Position { seq, ..head }, 0, &key);
                assert!(Statement::decode(&beyond.encode()).is_err(), "{seq}");
            }
            let older = Position { seq: 7, ..head };
            assert!(!Statement::sign(partition.clone(), older, 0, &key).verify(&partition, &ring));
            for other in ["zhengzhou/_federation/410122/*", "kaifeng/_federation/410100/*"] {
                assert!(!statement.verify(&PartitionId::parse_full(other).unwrap(), &ring));
            }
            let data = PartitionId::parse_full("zhengzhou/enterprise/410100/*").unwrap();
            assert!(Statement::decode(&Statement::sign(data, head, 0, &key).encode()).is_err());
            assert!(Statement::decode(&[&bytes[..], b"x"].concat()).is_err());
        }
    }

    #[test]
    fn a_day_without_a_statement_is_too_long() {
        let now = 1_700_000_000_000;
        assert!(is_stale(None, now));
        assert!(is_stale(Some(now - STALE_AFTER_MS), now));
        assert!(!is_stale(Some(now - STALE_AFTER_MS + 1), now));
        assert!(!is_stale(Some(now + 5000), now), "a clock that is a little ahead");
    }
}
