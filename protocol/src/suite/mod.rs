//! The algorithms of a federation, and the one place that knows them.
//!
//! Hash, signature and key exchange belong together as a numbered *suite*. A
//! federation has one for all of its life: its number is in the anchor, in every
//! signed header and in the hello, and a node refuses a peer, a token or a store
//! of another one. All other code asks a [`Suite`] for lengths, or a value for its
//! bytes, and knows no algorithm. `SPEC.md`, section "Suites and hashes".
//!
//! - [`hash`], [`sign`]: values and operations, whatever the suite;
//! - [`checksum`]: what is the same in all suites, because it is no part of a
//!   federation's history;
//! - `one`: suite 1; `artificial`: a suite for tests, only with the Cargo feature
//!   `artificial-suite`.
//!
//! Another suite is a file beside these and an arm of each `match` in this folder.

#[cfg(feature = "artificial-suite")]
mod artificial;
pub mod checksum;
pub mod hash;
mod one;
pub mod sign;

use std::fmt;

use self::sign::{NotAKey, PublicKey, SigningKey};
use crate::encoding::DecodeError;

/// Most bytes that a hash of any suite has, also of one that this program does not
/// know: limits of what a peer may send count with it.
pub const HASH_BYTES_MAX: usize = 48;
/// As [`HASH_BYTES_MAX`], for signatures.
pub const SIGNATURE_BYTES_MAX: usize = 96;
/// As [`HASH_BYTES_MAX`], for public signing keys.
pub const PUBLIC_KEY_BYTES_MAX: usize = 64;

/// A suite that this program has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Suite {
    /// BLAKE3 with 256 bits, Ed25519, TLS 1.3 with X25519MLKEM768 first.
    One = 1,
    /// Nobody's choice: its lengths are those of no other suite, so that tests
    /// find whoever assumes one.
    #[cfg(feature = "artificial-suite")]
    Artificial = 240,
}

/// A group in which TLS may exchange keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyExchange {
    /// X25519 and ML-KEM-768 together.
    X25519MlKem768,
    /// X25519.
    X25519,
    /// NIST's P-256.
    P256,
    /// NIST's P-384.
    P384,
}

/// The kinds of keys that a federation's own certificates have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificateKeys {
    /// ECDSA over P-256 with SHA-256.
    EcdsaP256,
}

/// What certificates, requests for them and anchors are signed with. The same in
/// all suites: a certificate speaks for a handshake and is no part of a history,
/// and a federation may have those of a PKI of its own. A suite with another kind
/// makes this a question to [`Suite`]; `certs` asks nowhere but here.
pub const CERTIFICATE_KEYS: CertificateKeys = CertificateKeys::EcdsaP256;

/// What a suite consists of, beside its code.
struct Parts {
    hash_bytes: usize,
    signature_bytes: usize,
    public_key_bytes: usize,
    secret_key_bytes: usize,
    /// What PKCS#8 (RFC 5958, DER) has in front of the secret bytes.
    pkcs8_prefix: &'static [u8],
    key_exchange: &'static [KeyExchange],
}

impl Suite {
    /// All suites that this program has.
    pub const ALL: &[Suite] = &[
        Suite::One,
        #[cfg(feature = "artificial-suite")]
        Suite::Artificial,
    ];

    const fn parts(self) -> &'static Parts {
        match self {
            Suite::One => &one::PARTS,
            #[cfg(feature = "artificial-suite")]
            Suite::Artificial => &artificial::PARTS,
        }
    }

    /// Its number, as it is written and sent.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The suite with this number.
    ///
    /// # Errors
    /// If this program has none.
    pub fn from_number(number: u8) -> Result<Self, DecodeError> {
        let found = Self::ALL.iter().find(|suite| suite.number() == number);
        found.copied().ok_or(DecodeError::UnknownSuite(number))
    }

    /// Bytes of a hash.
    pub const fn hash_bytes(self) -> usize {
        self.parts().hash_bytes
    }

    /// Bytes of a signature.
    pub const fn signature_bytes(self) -> usize {
        self.parts().signature_bytes
    }

    /// Bytes of a public signing key.
    pub const fn public_key_bytes(self) -> usize {
        self.parts().public_key_bytes
    }

    /// Bytes that a signing key is made of.
    pub const fn secret_key_bytes(self) -> usize {
        self.parts().secret_key_bytes
    }

    /// The groups in which a handshake may exchange keys, the preferred one first.
    pub fn key_exchange(self) -> &'static [KeyExchange] {
        self.parts().key_exchange
    }

    /// What PKCS#8 (RFC 5958, DER) has in front of the secret bytes of a signing key.
    pub fn pkcs8_prefix(self) -> &'static [u8] {
        self.parts().pkcs8_prefix
    }

    /// Checks the bytes of a public signing key.
    pub fn public_key(self, bytes: &[u8]) -> Result<PublicKey, NotAKey> {
        PublicKey::new(self, bytes)
    }

    /// The signing key that these secret bytes stand for; draw them from the
    /// system's random source.
    pub fn signing_key(self, secret: &[u8]) -> Result<SigningKey, NotAKey> {
        SigningKey::new(self, secret)
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.number())
    }
}

/// Bytes that are held for each hash: as many as the longest of the suites that
/// this program has.
const HASH_BYTES_HELD: usize = {
    let (mut longest, mut index) = (0, 0);
    while index < Suite::ALL.len() {
        let bytes = Suite::ALL[index].hash_bytes();
        longest = if bytes > longest { bytes } else { longest };
        index += 1;
    }
    assert!(longest <= HASH_BYTES_MAX);
    longest
};

/// As [`HASH_BYTES_HELD`], for signatures.
const SIGNATURE_BYTES_HELD: usize = {
    let (mut longest, mut index) = (0, 0);
    while index < Suite::ALL.len() {
        let bytes = Suite::ALL[index].signature_bytes();
        longest = if bytes > longest { bytes } else { longest };
        assert!(Suite::ALL[index].public_key_bytes() <= PUBLIC_KEY_BYTES_MAX);
        index += 1;
    }
    assert!(longest <= SIGNATURE_BYTES_MAX);
    longest
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_tell_suites_apart_and_unknown_ones_are_named() {
        for suite in Suite::ALL {
            assert_eq!(Suite::from_number(suite.number()), Ok(*suite));
        }
        assert_eq!(Suite::from_number(2), Err(DecodeError::UnknownSuite(2)));
        let words = Suite::from_number(2).unwrap_err().to_string();
        assert!(words.contains("suite 2"), "{words}");
    }

    #[cfg(feature = "artificial-suite")]
    #[test]
    fn the_artificial_suite_shares_no_length_with_suite_1() {
        let lengths = |suite: Suite| {
            [
                suite.hash_bytes(),
                suite.signature_bytes(),
                suite.public_key_bytes(),
                suite.secret_key_bytes(),
            ]
        };
        for length in lengths(Suite::Artificial) {
            assert!(!lengths(Suite::One).contains(&length), "{length}");
        }
        assert!(Suite::Artificial.key_exchange().iter().all(|group| match group {
            KeyExchange::P256 | KeyExchange::P384 => true,
            KeyExchange::X25519MlKem768 | KeyExchange::X25519 => false,
        }));
    }
}
