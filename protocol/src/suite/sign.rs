//! Signatures of headers and statements, whatever the suite.
//!
//! A signature is over a context string and the signed bytes, so that one made for
//! a header never fits anything else. How it is made and verified is the suite's
//! business.

use std::fmt;

use zeroize::Zeroizing;

#[cfg(feature = "artificial-suite")]
use super::artificial;
use super::{SIGNATURE_BYTES_HELD, Suite, hash::Hash, one};

/// A signature of a suite, which may not have been verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signature {
    /// Zeros behind the suite's length.
    bytes: [u8; SIGNATURE_BYTES_HELD],
    suite: Suite,
}

impl Signature {
    /// A signature of a suite with these bytes; none if they are not as many as
    /// its signatures have.
    pub fn from_bytes(suite: Suite, bytes: &[u8]) -> Option<Self> {
        let mut signature = Self { bytes: [0; SIGNATURE_BYTES_HELD], suite };
        let is_whole = bytes.len() == suite.signature_bytes();
        is_whole.then(|| {
            signature.bytes[..bytes.len()].copy_from_slice(bytes);
            signature
        })
    }

    /// The suite that it belongs to.
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// The bytes: as many as the suite's signatures have.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.suite.signature_bytes()]
    }
}

/// What a signature is for. Each purpose has its own context string in each suite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignaturePurpose {
    /// A change set's header hash.
    Header,
    /// Possession of a signing key, at enrolment or when it follows another.
    Possession,
    /// A signing key vouches for the one that follows it.
    Succession,
    /// The hub's word on what the newest `_federation` is.
    Freshness,
}

/// The bytes are no key of the suite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the bytes are no signing key of suite {0}")]
pub struct NotAKey(pub Suite);

/// The signature is not this key's over these bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the signature does not verify")]
pub struct Mismatch;

/// A public signing key and its id.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey {
    key: Public,
    id: Hash,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Public {
    One(one::Public),
    #[cfg(feature = "artificial-suite")]
    Artificial(artificial::Public),
}

impl PublicKey {
    pub(super) fn new(suite: Suite, bytes: &[u8]) -> Result<Self, NotAKey> {
        let key = match suite {
            Suite::One => one::Public::from_bytes(bytes).map(Public::One),
            #[cfg(feature = "artificial-suite")]
            Suite::Artificial => artificial::Public::from_bytes(bytes).map(Public::Artificial),
        };
        key.map(Self::of).ok_or(NotAKey(suite))
    }

    fn of(key: Public) -> Self {
        let id = match &key {
            Public::One(key) => key.id(),
            #[cfg(feature = "artificial-suite")]
            Public::Artificial(key) => key.id(),
        };
        Self { key, id }
    }

    /// The suite that it belongs to.
    pub fn suite(&self) -> Suite {
        self.id.suite()
    }

    /// The bytes: as many as the suite's public keys have.
    pub fn as_bytes(&self) -> &[u8] {
        match &self.key {
            Public::One(key) => key.as_bytes(),
            #[cfg(feature = "artificial-suite")]
            Public::Artificial(key) => key.as_bytes(),
        }
    }

    /// The key's id, which a header names.
    pub fn id(&self) -> Hash {
        self.id
    }

    /// Verifies `signature`, which may be of any length, over `bytes`.
    pub fn verify(
        &self,
        purpose: SignaturePurpose,
        bytes: &[u8],
        signature: &[u8],
    ) -> Result<(), Mismatch> {
        let verifies = match &self.key {
            Public::One(key) => key.verifies(purpose, bytes, signature),
            #[cfg(feature = "artificial-suite")]
            Public::Artificial(key) => key.verifies(purpose, bytes, signature),
        };
        if verifies { Ok(()) } else { Err(Mismatch) }
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({:?})", self.id)
    }
}

/// A private signing key. Its bytes are wiped when it is dropped; it never
/// prints them.
pub struct SigningKey {
    key: Secret,
    public: PublicKey,
}

enum Secret {
    One(one::Secret),
    #[cfg(feature = "artificial-suite")]
    Artificial(artificial::Secret),
}

impl SigningKey {
    pub(super) fn new(suite: Suite, secret: &[u8]) -> Result<Self, NotAKey> {
        let key = match suite {
            Suite::One => one::Secret::from_bytes(secret).map(Secret::One),
            #[cfg(feature = "artificial-suite")]
            Suite::Artificial => artificial::Secret::from_bytes(secret).map(Secret::Artificial),
        };
        let key = key.ok_or(NotAKey(suite))?;
        let public = PublicKey::of(match &key {
            Secret::One(key) => Public::One(key.public()),
            #[cfg(feature = "artificial-suite")]
            Secret::Artificial(key) => Public::Artificial(key.public()),
        });
        Ok(Self { key, public })
    }

    /// The suite that it belongs to.
    pub fn suite(&self) -> Suite {
        self.public.suite()
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// The secret bytes, to be written to a file that only its owner reads.
    pub fn secret(&self) -> Zeroizing<Vec<u8>> {
        match &self.key {
            Secret::One(key) => key.bytes(),
            #[cfg(feature = "artificial-suite")]
            Secret::Artificial(key) => key.bytes(),
        }
    }

    /// Signs `bytes`.
    pub fn sign(&self, purpose: SignaturePurpose, bytes: &[u8]) -> Signature {
        let suite = self.suite();
        let signature = match &self.key {
            Secret::One(key) => Signature::from_bytes(suite, &key.sign(purpose, bytes)),
            #[cfg(feature = "artificial-suite")]
            Secret::Artificial(key) => Signature::from_bytes(suite, &key.sign(purpose, bytes)),
        };
        signature.expect("a suite's signatures have its length")
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({:?})", self.public.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_fits_its_bytes_purpose_and_key_only() {
        for suite in Suite::ALL {
            let key = |byte| suite.signing_key(&vec![byte; suite.secret_key_bytes()]).unwrap();
            let (key, other) = (key(7), key(8));
            let signature = key.sign(SignaturePurpose::Header, b"bytes");
            assert_eq!(signature.as_bytes().len(), suite.signature_bytes());
            let check = |key: &SigningKey, purpose, bytes: &[u8]| {
                key.public().verify(purpose, bytes, signature.as_bytes())
            };
            assert_eq!(check(&key, SignaturePurpose::Header, b"bytes"), Ok(()));
            assert!(check(&key, SignaturePurpose::Header, b"byte").is_err());
            assert!(check(&key, SignaturePurpose::Possession, b"bytes").is_err());
            assert!(check(&other, SignaturePurpose::Header, b"bytes").is_err());
            for index in 0..suite.signature_bytes() {
                let mut altered = signature.as_bytes().to_vec();
                altered[index] ^= 1;
                let verified = key.public().verify(SignaturePurpose::Header, b"bytes", &altered);
                assert_eq!(verified, Err(Mismatch), "byte {index} of suite {suite}");
            }
            let cut = &signature.as_bytes()[..suite.signature_bytes() - 1];
            assert!(key.public().verify(SignaturePurpose::Header, b"bytes", cut).is_err());

            let public = key.public();
            assert_eq!(public.as_bytes().len(), suite.public_key_bytes());
            assert_eq!(suite.public_key(public.as_bytes()), Ok(public));
            assert_eq!(suite.public_key(&public.as_bytes()[1..]), Err(NotAKey(*suite)));
            let weak = vec![0; suite.public_key_bytes()];
            assert_eq!(suite.public_key(&weak), Err(NotAKey(*suite)));
            assert_eq!(suite.signing_key(&key.secret()).unwrap().public(), public);
            assert!(suite.signing_key(&key.secret()[1..]).is_err());
        }
    }
}
