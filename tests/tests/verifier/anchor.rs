//! The root's word on who the hub is, and the hub's on what is newest: section 16
//! of `protocol/SPEC.md`.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};

use super::{
    Checked, Refused,
    certificate::Certificate,
    ensure, hashes,
    layout::{self, AnchorFields, FreshnessFields, SEQ_LIMIT},
};

/// The contents of a root's SubjectPublicKeyInfo, as a token holds them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootKey(Vec<u8>);

impl RootKey {
    pub fn new(spki: &[u8]) -> Checked<Self> {
        let prefix = hashes::unhex(layout::P256_KEY_PREFIX)?;
        let point = spki.strip_prefix(&prefix[..]).ok_or(Refused("a root key of another kind"))?;
        ensure(point.len() == layout::P256_POINT_BYTES, "a root key of another length")?;
        ensure(point[0] == 4, "a root key in another form")?;
        Ok(Self(point.to_vec()))
    }

    /// ECDSA with SHA-256, its signature in ASN.1.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Checked<()> {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &self.0)
            .verify(message, signature)
            .map_err(|_| Refused("the root's key has not signed it"))
    }
}

/// An anchor that the root's key has signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anchor(AnchorFields);

impl Anchor {
    /// The only way to one.
    pub fn verified(bytes: &[u8], root: &RootKey) -> Checked<Self> {
        let fields = Self::decode(bytes)?;
        let signed = &bytes[..fields.signed_bytes];
        let message = hashes::with_context(layout::signature::ANCHOR, signed);
        root.verify(&message, &fields.signature)?;
        Ok(Self(fields))
    }

    /// What an anchor says, whoever has signed it.
    pub fn decode(bytes: &[u8]) -> Checked<AnchorFields> {
        ensure(bytes.len() <= layout::ANCHOR_BYTES_MAX, "an anchor over its limit")?;
        let fields = layout::anchor(bytes)?;
        for key in fields.earlier.iter().chain([&fields.hub_key]) {
            hashes::public_key(key)?;
        }
        ensure(!fields.earlier.contains(&fields.hub_key), "its own key among the earlier ones")?;
        if let Some((seq, _)) = fields.base {
            ensure(fields.epoch >= 2, "a base in a first epoch")?;
            ensure((1..SEQ_LIMIT).contains(&seq), "a number that cannot be")?;
        }
        Ok(fields)
    }

    /// The same for who trusts several roots, by their certificates, DER.
    pub fn verified_by_any(bytes: &[u8], roots: &[&[u8]]) -> Checked<Self> {
        let keys = roots
            .iter()
            .filter_map(|der| Certificate::read(der).and_then(|root| RootKey::new(root.spki)).ok());
        let refused = Refused("an anchor by nobody who is trusted");
        keys.map(|key| Self::verified(bytes, &key)).find(Checked::is_ok).unwrap_or(Err(refused))
    }

    /// Whether a member that has the other one takes this one instead: section 14.
    pub fn takes_over(&self, other: &Self) -> Checked<()> {
        let (own, other) = (self.fields(), other.fields());
        ensure(own.federation == other.federation, "another federation")?;
        ensure(own.hub == other.hub, "another hub")?;
        ensure(own.epoch > other.epoch, "no higher epoch")
    }

    pub fn fields(&self) -> &AnchorFields {
        &self.0
    }
}

/// A statement of freshness, decoded; [`super::federation`] says whether its key
/// counts.
pub struct Freshness {
    pub fields: FreshnessFields,
    signature: [u8; 64],
    signed: Vec<u8>,
}

impl Freshness {
    pub fn decode(bytes: &[u8]) -> Checked<Self> {
        ensure(bytes.len() <= layout::FRESHNESS_BYTES_MAX, "a statement over its limit")?;
        let mut reader = super::reader::Reader::new(bytes);
        reader.suite()?;
        let signature = reader.raw()?;
        let signed = reader.take(reader.left())?.to_vec();
        Ok(Self { fields: layout::freshness(&signed)?, signature, signed })
    }

    pub fn verify(&self, public: &[u8; 32]) -> Checked<()> {
        ensure(hashes::key_id(public) == self.fields.key_id, "another key's id")?;
        hashes::verify(public, layout::signature::FRESHNESS, &self.signed, &self.signature)
    }
}
