//! BLAKE3 with one context string per purpose, so that bytes hashed for one
//! thing can never stand for another.
//!
//! The context strings are part of the format: `SPEC.md`, section "Hashes".

mod lanes;

use std::{cell::RefCell, fmt, str::FromStr};

use blake3::BLOCK_LEN;
use serde::{Deserialize, Serialize};

use crate::hex;

pub use self::lanes::Batch;

/// Says which algorithm made a hash or a key id: BLAKE3 with 256 bits. Another
/// number can mean SM3 one day.
pub const ALGORITHM_BLAKE3: u8 = 1;

/// A 256-bit BLAKE3 hash.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// The value that stands for "none", as the predecessor of a first header.
    pub const ZERO: Hash = Hash([0; 32]);

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}…", hex::encode(&self.0[..6]))
    }
}

impl FromStr for Hash {
    type Err = NotAHash;
    fn from_str(text: &str) -> Result<Self, NotAHash> {
        let mut hash = [0; 32];
        if hex::decode_into(text, &mut hash) { Ok(Self(hash)) } else { Err(NotAHash) }
    }
}

/// The text is not 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a hash is 64 hexadecimal digits")]
pub struct NotAHash;

/// What a hash is of. Each purpose has its own context string.
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
    /// A public signing key's id.
    KeyId,
    /// A token's secret as the hub keeps it.
    TokenSecret,
    /// A checksum in a text that people copy and paste, or in a side file.
    Checksum,
}

const PURPOSES: usize = 9;

impl Purpose {
    /// The context string; never change one, add another.
    pub fn context(self) -> &'static str {
        match self {
            Purpose::Key => "creditsync/1 record key",
            Purpose::Entry => "creditsync/1 entry",
            Purpose::Page => "creditsync/1 tree page",
            Purpose::Changes => "creditsync/1 change set body",
            Purpose::Header => "creditsync/1 change set header",
            Purpose::History => "creditsync/1 change set history",
            Purpose::KeyId => "creditsync/1 signing key id",
            Purpose::TokenSecret => "creditsync/1 join token secret",
            Purpose::Checksum => "creditsync/1 checksum",
        }
    }

    const ALL: [Purpose; PURPOSES] = [
        Purpose::Key,
        Purpose::Entry,
        Purpose::Page,
        Purpose::Changes,
        Purpose::Header,
        Purpose::History,
        Purpose::KeyId,
        Purpose::TokenSecret,
        Purpose::Checksum,
    ];

    /// Hashes the concatenation of `parts`.
    pub fn hash(self, parts: &[&[u8]]) -> Hash {
        self.hash_with(|hasher| {
            for part in parts {
                hasher.update(part);
            }
        })
    }

    /// Hashes the concatenation of `parts`, filled up with zeros to a multiple of
    /// 64 bytes.
    pub fn hash_padded(self, parts: &[&[u8]]) -> Hash {
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        let zeros = bytes.next_multiple_of(BLOCK_LEN) - bytes;
        self.hash_with(|hasher| {
            for part in parts {
                hasher.update(part);
            }
            hasher.update(&[0; BLOCK_LEN][..zeros]);
        })
    }

    /// As [`Purpose::hash_padded`], of each message that `fill` pushes: the
    /// hashes in that order. With AVX-512, sixteen of one length take twice as
    /// long as one alone.
    pub fn hash_each(self, fill: impl FnOnce(&mut Batch)) -> Vec<Hash> {
        lanes::hash_each(self, fill)
    }

    /// Begins a hash of bytes that come one after the other.
    pub fn running(self) -> Running {
        Running(blake3::Hasher::new_derive_key(self.context()))
    }

    /// Hashes what `feed` puts into the hasher.
    ///
    /// The hashers of a thread are made once and reset: deriving the context's
    /// key for each record costs 28 % more.
    pub fn hash_with(self, feed: impl FnOnce(&mut blake3::Hasher)) -> Hash {
        thread_local! {
            static HASHERS: [RefCell<blake3::Hasher>; PURPOSES] =
                Purpose::ALL.map(|p| RefCell::new(blake3::Hasher::new_derive_key(p.context())));
        }
        HASHERS.with(|hashers| {
            let mut hasher = hashers[self as usize].borrow_mut();
            hasher.reset();
            feed(&mut hasher);
            Hash(*hasher.finalize().as_bytes())
        })
    }
}

/// A hash that is not at its end.
pub struct Running(blake3::Hasher);

impl Running {
    /// Goes on with these bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The hash of all bytes so far.
    pub fn finish(&self) -> Hash {
        Hash(*self.0.finalize().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn purposes_separate_and_reuse_does_not_leak() {
        let first = Purpose::Key.hash(&[b"a"]);
        assert_ne!(first, Purpose::Entry.hash(&[b"a"]));
        assert_eq!(first, Purpose::Key.hash(&[b"a"]));
        assert_eq!(
            first.0,
            blake3::derive_key(Purpose::Key.context(), b"a"),
            "a reset hasher hashes like a new one"
        );
        for (index, purpose) in Purpose::ALL.into_iter().enumerate() {
            assert_eq!(purpose as usize, index);
        }
    }

    #[test]
    fn a_hash_reads_back_from_its_hex() {
        let hash = Purpose::Key.hash(&[b"a"]);
        assert_eq!(hash.to_string().parse(), Ok(hash));
        assert!("zz".parse::<Hash>().is_err());
    }
}
