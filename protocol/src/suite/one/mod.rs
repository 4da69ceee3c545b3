//! Suite 1: BLAKE3 with 256 bits, Ed25519, TLS 1.3 with X25519MLKEM768 first.
//!
//! Verification is `verify_strict`, one at a time: batch verification accepts
//! signatures that a single one refuses. Not here: what is hashed and signed.

mod lanes;

use std::cell::RefCell;

use blake3::OUT_LEN;
use ed25519_dalek::{
    PUBLIC_KEY_LENGTH, SECRET_KEY_LENGTH, SIGNATURE_LENGTH, Signer as _, SigningKey, VerifyingKey,
};
use zeroize::Zeroizing;

pub use self::lanes::Batch;
use super::{
    KeyExchange, Parts, Suite,
    hash::{Hash, PURPOSES, Purpose},
    sign::SignaturePurpose,
};

pub(super) const PARTS: Parts = Parts {
    hash_bytes: OUT_LEN,
    signature_bytes: SIGNATURE_LENGTH,
    public_key_bytes: PUBLIC_KEY_LENGTH,
    secret_key_bytes: SECRET_KEY_LENGTH,
    // RFC 8410, section 7: version 0, id-Ed25519, and the seed as an OCTET STRING
    // within an OCTET STRING.
    pkcs8_prefix: &[
        0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04,
        0x20,
    ],
    key_exchange: &[
        KeyExchange::X25519MlKem768,
        KeyExchange::X25519,
        KeyExchange::P256,
        KeyExchange::P384,
    ],
};

/// The context string; never change one, add another.
fn context(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Key => "creditsync/1 record key",
        Purpose::Entry => "creditsync/1 entry",
        Purpose::Page => "creditsync/1 tree page",
        Purpose::Changes => "creditsync/1 change set body",
        Purpose::Header => "creditsync/1 change set header",
        Purpose::History => "creditsync/1 change set history",
        Purpose::Name => "creditsync/1 entry name",
        Purpose::KeyId => "creditsync/1 signing key id",
        Purpose::TokenSecret => "creditsync/1 join token secret",
    }
}

/// Hashes the concatenation of `parts`.
///
/// The hashers of a thread are made once and reset: deriving the context's key
/// for each record costs 28 % more.
pub(super) fn hash<'a>(purpose: Purpose, parts: impl Iterator<Item = &'a [u8]>) -> Hash {
    thread_local! {
        static HASHERS: [RefCell<blake3::Hasher>; PURPOSES] =
            Purpose::ALL.map(|p| RefCell::new(blake3::Hasher::new_derive_key(context(p))));
    }
    HASHERS.with(|hashers| {
        let mut hasher = hashers[purpose as usize].borrow_mut();
        hasher.reset();
        for part in parts {
            hasher.update(part);
        }
        Hash::of_length(Suite::One, hasher.finalize().as_bytes())
    })
}

/// A signature is over the context, a zero byte and the signed bytes.
fn message(purpose: SignaturePurpose, bytes: &[u8]) -> Vec<u8> {
    let context: &[u8] = match purpose {
        SignaturePurpose::Header => b"creditsync/1 header signature",
        SignaturePurpose::Possession => b"creditsync/1 signing key possession",
        SignaturePurpose::Succession => b"creditsync/1 signing key succession",
        SignaturePurpose::Freshness => b"creditsync/1 freshness",
    };
    [context, &[0], bytes].concat()
}

/// A public key: a point of the curve, and no weak one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Public(VerifyingKey);

impl Public {
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let key = VerifyingKey::from_bytes(bytes.try_into().ok()?).ok()?;
        (!key.is_weak()).then_some(Self(key))
    }

    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// What its id is a hash of.
    pub fn id(&self) -> Hash {
        Suite::One.hash(Purpose::KeyId, &[b"ed25519", self.as_bytes()])
    }

    pub fn verifies(&self, purpose: SignaturePurpose, bytes: &[u8], signature: &[u8]) -> bool {
        ed25519_dalek::Signature::from_slice(signature).is_ok_and(|signature| {
            self.0.verify_strict(&message(purpose, bytes), &signature).is_ok()
        })
    }
}

/// A private key, wiped when it is dropped.
pub(super) struct Secret(SigningKey);

impl Secret {
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(|seed| Self(SigningKey::from_bytes(seed)))
    }

    pub fn bytes(&self) -> Zeroizing<Vec<u8>> {
        // Of the final size: growing would leave a copy behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(SECRET_KEY_LENGTH));
        bytes.extend_from_slice(self.0.as_bytes());
        bytes
    }

    pub fn public(&self) -> Public {
        Public(self.0.verifying_key())
    }

    pub fn sign(&self, purpose: SignaturePurpose, bytes: &[u8]) -> [u8; SIGNATURE_LENGTH] {
        self.0.sign(&message(purpose, bytes)).to_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ordinary_blake3_gives_the_same_hashes() {
        for purpose in Purpose::ALL {
            let hash = Suite::One.hash(purpose, &[b"a"]);
            assert_eq!(hash.as_bytes(), blake3::derive_key(context(purpose), b"a"));
        }
    }
}
