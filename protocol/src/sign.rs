//! Ed25519 signatures of headers and anchors.
//!
//! A signature is over a context string, a zero byte and the signed bytes, so
//! that one made for a header never fits anything else. Verification is
//! `verify_strict`, one at a time: batch verification accepts signatures that a
//! single one refuses.

use std::fmt;

use ed25519_dalek::{Signer as _, SigningKey as Ed25519, VerifyingKey};

use crate::hash::{Hash, Purpose};

/// An Ed25519 signature.
pub type Signature = [u8; 64];

/// What a signature is for.
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

impl SignaturePurpose {
    fn context(self) -> &'static [u8] {
        match self {
            SignaturePurpose::Header => b"creditsync/1 header signature",
            SignaturePurpose::Possession => b"creditsync/1 signing key possession",
            SignaturePurpose::Succession => b"creditsync/1 signing key succession",
            SignaturePurpose::Freshness => b"creditsync/1 freshness",
        }
    }

    fn message(self, bytes: &[u8]) -> Vec<u8> {
        [self.context(), &[0], bytes].concat()
    }
}

/// A signature that does not fit, or a key that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The 32 bytes are not a point of the curve, or a weak one.
    #[error("the bytes are not an Ed25519 public key")]
    NotAKey,
    /// The signature is not this key's over these bytes.
    #[error("the signature does not verify")]
    Mismatch,
}

/// A public signing key and its id.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey {
    key: VerifyingKey,
    id: Hash,
}

impl PublicKey {
    /// Checks the 32 bytes of a public key.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, SignatureError> {
        let key = VerifyingKey::from_bytes(bytes).map_err(|_| SignatureError::NotAKey)?;
        if key.is_weak() {
            return Err(SignatureError::NotAKey);
        }
        Ok(Self { key, id: Purpose::KeyId.hash(&[b"ed25519", bytes]) })
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.key.as_bytes()
    }

    /// The key's id, which a header names.
    pub fn id(&self) -> Hash {
        self.id
    }

    /// Verifies `signature` over `bytes`.
    pub fn verify(
        &self,
        purpose: SignaturePurpose,
        bytes: &[u8],
        signature: &Signature,
    ) -> Result<(), SignatureError> {
        self.key
            .verify_strict(
                &purpose.message(bytes),
                &ed25519_dalek::Signature::from_bytes(signature),
            )
            .map_err(|_| SignatureError::Mismatch)
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
    key: Ed25519,
    public: PublicKey,
}

impl SigningKey {
    /// The key that `seed` stands for; draw it from the system's random source.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        let key = Ed25519::from_bytes(seed);
        let public = PublicKey::from_bytes(key.verifying_key().as_bytes())
            .expect("the public half of a private key is a valid key");
        Self { key, public }
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// The seed, to be written to a file that only its owner reads.
    pub fn seed(&self) -> zeroize::Zeroizing<[u8; 32]> {
        zeroize::Zeroizing::new(self.key.to_bytes())
    }

    /// Signs `bytes`.
    pub fn sign(&self, purpose: SignaturePurpose, bytes: &[u8]) -> Signature {
        self.key.sign(&purpose.message(bytes)).to_bytes()
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
        let key = SigningKey::from_seed(&[7; 32]);
        let other = SigningKey::from_seed(&[8; 32]);
        let signature = key.sign(SignaturePurpose::Header, b"bytes");
        let check = |key: &SigningKey, purpose, bytes: &[u8]| {
            key.public().verify(purpose, bytes, &signature)
        };
        assert_eq!(check(&key, SignaturePurpose::Header, b"bytes"), Ok(()));
        assert!(check(&key, SignaturePurpose::Header, b"byte").is_err());
        assert!(check(&key, SignaturePurpose::Possession, b"bytes").is_err());
        assert!(check(&other, SignaturePurpose::Header, b"bytes").is_err());
        assert_eq!(PublicKey::from_bytes(&[0; 32]).err(), Some(SignatureError::NotAKey));
    }
}
