//! Hashes with one context string per purpose, so that bytes hashed for one thing
//! can never stand for another.
//!
//! A [`Hash`] holds its bytes inline and knows its suite; which algorithm made it
//! is the suite's business.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser::SerializeTuple as _};

#[cfg(feature = "artificial-suite")]
use super::artificial;
use super::{HASH_BYTES_HELD, Suite, one};
use crate::hex;

/// A hash of a suite.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hash {
    /// Zeros behind the suite's length.
    bytes: [u8; HASH_BYTES_HELD],
    suite: Suite,
}

// With one suite there is nothing to tell apart: lists of pages hold no more than
// the bytes of their hashes.
#[cfg(not(feature = "artificial-suite"))]
const _: () = assert!(size_of::<Hash>() == Suite::One.hash_bytes() && size_of::<Suite>() == 0);

impl Hash {
    /// A hash of a suite with these bytes; none if they are not as many as its
    /// hashes have.
    pub fn from_bytes(suite: Suite, bytes: &[u8]) -> Option<Self> {
        (bytes.len() == suite.hash_bytes()).then(|| Self::of_length(suite, bytes))
    }

    /// # Panics
    /// If there are more bytes than the suite's hashes have.
    pub(super) fn of_length(suite: Suite, bytes: &[u8]) -> Self {
        let mut hash = Self { bytes: [0; HASH_BYTES_HELD], suite };
        hash.bytes[..suite.hash_bytes()].copy_from_slice(bytes);
        hash
    }

    /// Reads the digits that [`Hash`] prints.
    pub fn parse(suite: Suite, text: &str) -> Option<Self> {
        let mut hash = Self { bytes: [0; HASH_BYTES_HELD], suite };
        hex::decode_into(text, &mut hash.bytes[..suite.hash_bytes()]).then_some(hash)
    }

    /// The suite that it belongs to.
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// The bytes: as many as the suite's hashes have.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.suite.hash_bytes()]
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.as_bytes()))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}…", hex::encode(&self.bytes[..6]))
    }
}

/// As messages have it: the suite's number, then as many bytes as its hashes have.
impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes = self.as_bytes();
        let mut tuple = serializer.serialize_tuple(1 + bytes.len())?;
        tuple.serialize_element(&self.suite.number())?;
        bytes.iter().try_for_each(|byte| tuple.serialize_element(byte))?;
        tuple.end()
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Hash;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the number of a suite and a hash of it")
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut input: A) -> Result<Hash, A::Error> {
                let mut byte = |at: usize| {
                    input.next_element::<u8>()?.ok_or_else(|| de::Error::invalid_length(at, &self))
                };
                let suite = Suite::from_number(byte(0)?).map_err(de::Error::custom)?;
                let mut hash = Hash { bytes: [0; HASH_BYTES_HELD], suite };
                for (at, place) in hash.bytes[..suite.hash_bytes()].iter_mut().enumerate() {
                    *place = byte(1 + at)?;
                }
                Ok(hash)
            }
        }

        // The number comes first, so a shorter hash leaves the rest unread.
        deserializer.deserialize_tuple(1 + HASH_BYTES_HELD, Visitor)
    }
}

/// What a hash is of. Each purpose has its own context string in each suite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A record's key, with its length.
    Key,
    /// A key and its record, as a leaf has them.
    Entry,
    /// A page of the state tree, of any level.
    Page,
    /// A change set's body.
    Changes,
    /// A change set's header.
    Header,
    /// All headers before one.
    History,
    /// An entry's name in a request for differences.
    Name,
    /// A public signing key's id.
    KeyId,
    /// A token's secret as the hub keeps it.
    TokenSecret,
}

pub(super) const PURPOSES: usize = 9;

impl Purpose {
    /// All purposes, in the order of their numbers.
    pub const ALL: [Purpose; PURPOSES] = [
        Purpose::Key,
        Purpose::Entry,
        Purpose::Page,
        Purpose::Changes,
        Purpose::Header,
        Purpose::History,
        Purpose::Name,
        Purpose::KeyId,
        Purpose::TokenSecret,
    ];
}

/// Messages of any length are filled up with zeros to a multiple of this, in all
/// suites, where they are hashed many at once ([`Suite::hash_each`]).
pub(super) const PADDED_TO_BYTES: usize = 64;

impl Suite {
    /// Hashes the concatenation of `parts`.
    pub fn hash(self, purpose: Purpose, parts: &[&[u8]]) -> Hash {
        match self {
            Suite::One => one::hash(purpose, parts.iter().copied()),
            #[cfg(feature = "artificial-suite")]
            Suite::Artificial => artificial::hash(purpose, parts.iter().copied()),
        }
    }

    /// Hashes the concatenation of `parts`, filled up with zeros to a multiple of
    /// 64 bytes.
    pub fn hash_padded(self, purpose: Purpose, parts: &[&[u8]]) -> Hash {
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        let zeros = &[0; PADDED_TO_BYTES][..bytes.next_multiple_of(PADDED_TO_BYTES) - bytes];
        let padded = parts.iter().copied().chain([zeros]);
        match self {
            Suite::One => one::hash(purpose, padded),
            #[cfg(feature = "artificial-suite")]
            Suite::Artificial => artificial::hash(purpose, padded),
        }
    }

    /// As [`Suite::hash_padded`], of each message that `fill` pushes: the hashes in
    /// that order. In suite 1 with AVX-512, sixteen of one length take twice as
    /// long as one alone.
    pub fn hash_each(self, purpose: Purpose, fill: impl FnOnce(&mut Batch)) -> Vec<Hash> {
        let mut batch = match self {
            Suite::One => Batch::One(one::Batch::new(purpose)),
            #[cfg(feature = "artificial-suite")]
            Suite::Artificial => Batch::Artificial(purpose, Vec::new()),
        };
        fill(&mut batch);
        match batch {
            Batch::One(batch) => batch.finish(),
            #[cfg(feature = "artificial-suite")]
            Batch::Artificial(_, hashes) => hashes,
        }
    }

    /// The hash whose bytes are all the same. That of zeros stands for none, as the
    /// predecessor of a first header; tests use others.
    pub fn repeated(self, byte: u8) -> Hash {
        let mut hash = Hash { bytes: [0; HASH_BYTES_HELD], suite: self };
        hash.bytes[..self.hash_bytes()].fill(byte);
        hash
    }

    /// Stands for none, as the predecessor of a first header.
    pub fn none(self) -> Hash {
        self.repeated(0)
    }
}

/// Messages that are being hashed, by their suite.
pub enum Batch {
    /// Suite 1 hashes them side by side.
    One(one::Batch),
    /// The artificial suite hashes one after the other.
    #[cfg(feature = "artificial-suite")]
    Artificial(Purpose, Vec<Hash>),
}

impl Batch {
    /// Makes room for so many messages.
    pub fn reserve(&mut self, messages: usize) {
        match self {
            Batch::One(batch) => batch.reserve(messages),
            #[cfg(feature = "artificial-suite")]
            Batch::Artificial(_, hashes) => hashes.reserve(messages),
        }
    }

    /// Takes the concatenation of `parts` as the next message.
    pub fn push(&mut self, parts: &[&[u8]]) {
        match self {
            Batch::One(batch) => batch.push(parts),
            #[cfg(feature = "artificial-suite")]
            Batch::Artificial(purpose, hashes) => {
                hashes.push(Suite::Artificial.hash_padded(*purpose, parts));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn purposes_and_suites_separate_and_reuse_does_not_leak() {
        for suite in Suite::ALL {
            let hashes = || Purpose::ALL.map(|purpose| suite.hash(purpose, &[b"a"]));
            let first = hashes();
            assert_eq!(BTreeSet::from(first).len(), PURPOSES);
            assert_eq!(first, hashes(), "a reset hasher hashes like a new one");
            for (index, purpose) in Purpose::ALL.into_iter().enumerate() {
                assert_eq!(purpose as usize, index);
                assert_eq!(first[index].as_bytes().len(), suite.hash_bytes());
                assert_eq!(first[index].suite(), *suite);
                assert_eq!(suite.hash(purpose, &[b"", b"a"]), first[index]);
                for other in Suite::ALL.iter().filter(|other| *other != suite) {
                    let theirs = other.hash(purpose, &[b"a"]);
                    assert_ne!(theirs.as_bytes()[..8], first[index].as_bytes()[..8]);
                }
            }
        }
    }

    #[test]
    fn a_hash_reads_back_from_its_digits_and_from_a_message() {
        for suite in Suite::ALL {
            let hash = suite.hash(Purpose::Key, &[b"a"]);
            assert_eq!(Hash::parse(*suite, &hash.to_string()), Some(hash));
            assert_eq!(Hash::parse(*suite, "zz"), None);
            assert_eq!(Hash::parse(*suite, &format!("{hash}00")), None);
            assert_eq!(Hash::from_bytes(*suite, hash.as_bytes()), Some(hash));
            assert_eq!(Hash::from_bytes(*suite, &hash.as_bytes()[1..]), None);
            let bytes = crate::codec::encode(&(hash, 7u8));
            assert_eq!(bytes, [&[suite.number()], hash.as_bytes(), &[7]].concat());
            assert_eq!(crate::codec::decode(&bytes), Ok((hash, 7u8)));
            assert!(crate::codec::decode::<Hash>(&bytes[..suite.hash_bytes()]).is_err());
            let json = serde_json::to_string(&hash).unwrap();
            assert_eq!(serde_json::from_str::<Hash>(&json).unwrap(), hash);
        }
        let unknown = [&[2][..], &[9; super::super::HASH_BYTES_MAX]].concat();
        assert!(crate::codec::decode::<Hash>(&unknown).is_err());
    }

    #[test]
    fn many_hashed_together_are_those_hashed_alone() {
        let messages: Vec<Vec<u8>> = (0..300usize).map(|n| vec![n as u8; n * 7 % 2000]).collect();
        for suite in Suite::ALL {
            let together = suite.hash_each(Purpose::Entry, |batch| {
                messages.iter().for_each(|message| batch.push(&[message]));
            });
            let alone: Vec<Hash> =
                messages.iter().map(|one| suite.hash_padded(Purpose::Entry, &[one])).collect();
            assert_eq!(together, alone);
        }
    }
}
