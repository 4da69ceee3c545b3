//! A suite that no federation has: other lengths than suite 1, and no more.
//!
//! Hashes are 40 bytes of BLAKE3's extendable output. Keys and signatures are
//! Ed25519's with bytes behind them that depend on all others, so whoever cuts
//! them to the lengths of suite 1 is found out: a public key has 4 of a hash
//! behind it, a signature 8 of a hash over key and signature, and a private key is
//! hashed to a seed. It is compiled only for tests; its safety is that of its
//! parts, and nobody has looked at it.

use blake3::Hasher;
use ed25519_dalek::{PUBLIC_KEY_LENGTH, SIGNATURE_LENGTH, Signer as _, SigningKey, VerifyingKey};
use zeroize::Zeroizing;

use super::{
    KeyExchange, Parts, Suite,
    hash::{Hash, Purpose},
    sign::SignaturePurpose,
};

const HASH_BYTES: usize = 40;
const PUBLIC_KEY_BYTES: usize = PUBLIC_KEY_LENGTH + 4;
const SIGNATURE_BYTES: usize = SIGNATURE_LENGTH + 8;
const SECRET_KEY_BYTES: usize = 44;

pub(super) const PARTS: Parts = Parts {
    hash_bytes: HASH_BYTES,
    signature_bytes: SIGNATURE_BYTES,
    public_key_bytes: PUBLIC_KEY_BYTES,
    secret_key_bytes: SECRET_KEY_BYTES,
    // As suite 1, with the object identifier 2.25.240 and a longer secret.
    pkcs8_prefix: &[
        0x30, 0x3a, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x69, 0x81, 0x70, 0x04, 0x2e, 0x04,
        0x2c,
    ],
    key_exchange: &[KeyExchange::P384, KeyExchange::P256],
};

fn context(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Key => "creditsync/240 record key",
        Purpose::Entry => "creditsync/240 entry",
        Purpose::Page => "creditsync/240 tree page",
        Purpose::Changes => "creditsync/240 change set body",
        Purpose::Header => "creditsync/240 change set header",
        Purpose::History => "creditsync/240 change set history",
        Purpose::Name => "creditsync/240 entry name",
        Purpose::KeyId => "creditsync/240 signing key id",
        Purpose::TokenSecret => "creditsync/240 join token secret",
    }
}

/// As many bytes as the array has, of all parts.
fn output<'a, const N: usize>(context: &str, parts: impl Iterator<Item = &'a [u8]>) -> [u8; N] {
    let mut hasher = Hasher::new_derive_key(context);
    for part in parts {
        hasher.update(part);
    }
    let mut bytes = [0; N];
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

/// Hashes the concatenation of `parts`.
pub(super) fn hash<'a>(purpose: Purpose, parts: impl Iterator<Item = &'a [u8]>) -> Hash {
    Hash::of_length(Suite::Artificial, &output::<HASH_BYTES>(context(purpose), parts))
}

fn message(purpose: SignaturePurpose, bytes: &[u8]) -> Vec<u8> {
    let context: &[u8] = match purpose {
        SignaturePurpose::Header => b"creditsync/240 header signature",
        SignaturePurpose::Possession => b"creditsync/240 signing key possession",
        SignaturePurpose::Succession => b"creditsync/240 signing key succession",
        SignaturePurpose::Freshness => b"creditsync/240 freshness",
    };
    [context, &[0], bytes].concat()
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Public {
    key: VerifyingKey,
    bytes: [u8; PUBLIC_KEY_BYTES],
}

impl Public {
    fn of(key: VerifyingKey) -> Self {
        let check: [u8; 4] =
            output("creditsync/240 public key", std::iter::once(&key.as_bytes()[..]));
        let mut bytes = [0; PUBLIC_KEY_BYTES];
        bytes[..PUBLIC_KEY_LENGTH].copy_from_slice(key.as_bytes());
        bytes[PUBLIC_KEY_LENGTH..].copy_from_slice(&check);
        Self { key, bytes }
    }

    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; PUBLIC_KEY_BYTES] = bytes.try_into().ok()?;
        let key = VerifyingKey::from_bytes(bytes.first_chunk()?).ok()?;
        let whole = Self::of(key);
        (!key.is_weak() && whole.bytes == *bytes).then_some(whole)
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn id(&self) -> Hash {
        Suite::Artificial.hash(Purpose::KeyId, &[&self.bytes])
    }

    /// What stands behind a signature of this key.
    fn check(&self, signature: &[u8]) -> [u8; 8] {
        output("creditsync/240 signature", [&self.bytes[..], signature].into_iter())
    }

    pub fn verifies(&self, purpose: SignaturePurpose, bytes: &[u8], signature: &[u8]) -> bool {
        let Some((inner, check)) = signature.split_first_chunk::<SIGNATURE_LENGTH>() else {
            return false;
        };
        let signature = ed25519_dalek::Signature::from_bytes(inner);
        self.check(inner) == check
            && self.key.verify_strict(&message(purpose, bytes), &signature).is_ok()
    }
}

pub(super) struct Secret {
    bytes: Zeroizing<Vec<u8>>,
    key: SigningKey,
}

impl Secret {
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let seed: [u8; 32] = (bytes.len() == SECRET_KEY_BYTES)
            .then(|| output("creditsync/240 seed", std::iter::once(bytes)))?;
        Some(Self { bytes: Zeroizing::new(bytes.to_vec()), key: SigningKey::from_bytes(&seed) })
    }

    pub fn bytes(&self) -> Zeroizing<Vec<u8>> {
        self.bytes.clone()
    }

    pub fn public(&self) -> Public {
        Public::of(self.key.verifying_key())
    }

    pub fn sign(&self, purpose: SignaturePurpose, bytes: &[u8]) -> [u8; SIGNATURE_BYTES] {
        let inner = self.key.sign(&message(purpose, bytes)).to_bytes();
        let mut signature = [0; SIGNATURE_BYTES];
        signature[..SIGNATURE_LENGTH].copy_from_slice(&inner);
        signature[SIGNATURE_LENGTH..].copy_from_slice(&self.public().check(&inner));
        signature
    }
}
