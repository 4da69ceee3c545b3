//! The root of trust, and the anchor: the root CA's word on the hub.
//!
//! Used by tokens and by whoever checks a `_federation` history from its
//! beginning. Invariant: an anchor has one encoding; with a base it is of version
//! 2, without one of version 1, whose bytes never change. All its keys and hashes are
//! of the suite whose number stands behind the version.
//!
//! Not here: signing one, which is [`crate::authority::CaDirs::sign_anchor`]'s,
//! and which keys count within a history.

use std::fmt;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use protocol::{
    change::{Position, check_seq},
    encoding::{DecodeError, Reader, Writer},
    federation::Anchored,
    id::{FederationId, NAME_BYTES_MAX, NodeId},
    sign::PublicKey,
    suite::{CERTIFICATE_KEYS, CertificateKeys, Suite, checksum::Checksum},
};
use rustls::RootCertStore;
use rustls_pki_types::{CertificateDer, Der, TrustAnchor};

use crate::{CertError, identity::Identity};

/// An ASN.1 ECDSA P-256 signature has at most 72 bytes.
const SIGNATURE_BYTES_MAX: usize = 80;

/// Earlier keys in an anchor: a theft each.
const EARLIER_KEYS_MAX: usize = 64;

/// An anchor that a history begins with.
const VERSION: u8 = 1;
/// An anchor that goes on from a place in a history.
const VERSION_WITH_BASE: u8 = 2;
const CONTEXT: &[u8] = b"creditsync/1 anchor";

/// A P-256 public key up to its point, as in the value of a certificate's
/// SubjectPublicKeyInfo (RFC 5480): id-ecPublicKey, prime256v1, a bit string.
const P256_SPKI_PREFIX: [u8; 24] = [
    0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48,
    0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// Of an uncompressed point (SEC 1, 2.3.3), and what that begins with.
const P256_POINT_BYTES: usize = 65;
const UNCOMPRESSED: u8 = 4;

/// The parts of the root certificate that a verifier needs.
#[derive(Clone, PartialEq, Eq)]
pub struct RootOfTrust {
    /// The DER name, as [`TrustAnchor::subject`] wants it.
    pub subject: Vec<u8>,
    /// The DER public key, as [`TrustAnchor::subject_public_key_info`] wants it.
    pub spki: Vec<u8>,
}

impl RootOfTrust {
    /// Takes them out of a root certificate that is trusted already.
    pub fn from_certificate(cert: &CertificateDer<'_>) -> Result<Self, CertError> {
        let mut store = RootCertStore::empty();
        store
            .add(cert.clone().into_owned())
            .map_err(|error| CertError::NotACertificate(error.to_string()))?;
        let anchor = store
            .roots
            .pop()
            .ok_or_else(|| CertError::NotACertificate("it cannot be a root".into()))?;
        Ok(Self { subject: anchor.subject.to_vec(), spki: anchor.subject_public_key_info.to_vec() })
    }

    /// The form that rustls trusts.
    pub fn trust_anchor(&self) -> TrustAnchor<'static> {
        TrustAnchor {
            subject: Der::from(self.subject.clone()),
            subject_public_key_info: Der::from(self.spki.clone()),
            name_constraints: None,
        }
    }

    /// Verifies an ECDSA P-256 signature with SHA-256; `Ok(false)` means that it
    /// does not fit.
    pub(crate) fn verify(&self, message: &[u8], signature: &[u8]) -> Result<bool, CertError> {
        let CertificateKeys::EcdsaP256 = CERTIFICATE_KEYS;
        let point = self.spki.strip_prefix(&P256_SPKI_PREFIX[..]);
        // A key has one spelling, whatever a library may read besides.
        let is_plain = |point: &&[u8]| point.len() == P256_POINT_BYTES && point[0] == UNCOMPRESSED;
        let point = point.filter(is_plain).ok_or(CertError::RootKeyKind)?;
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point);
        Ok(key.verify(message, signature).is_ok())
    }
}

impl fmt::Debug for RootOfTrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RootOfTrust({:?})", Checksum::of(&[&self.subject, &self.spki]))
    }
}

/// The root CA's word on which hub speaks for a federation, and with which
/// signing key.
///
/// A routine change of the key is a record of `_federation`. After a theft the
/// root signs an anchor of a higher epoch instead, which also says up to where
/// the keys before it count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anchor {
    /// The trust domain.
    pub federation: FederationId,
    /// The hub.
    pub hub: NodeId,
    /// The hub's signing key for change sets.
    pub hub_key: PublicKey,
    /// Counts anchors of a federation; the highest counts.
    pub epoch: u32,
    /// The last good place in `_federation`, up to which older keys count. None
    /// where the history begins with this anchor.
    pub base: Option<Position>,
    /// The keys that the anchors before this one named, the oldest first: with
    /// them whoever starts from this anchor verifies the history up to the base.
    /// Empty where there is no base.
    pub earlier: Vec<PublicKey>,
    /// ECDSA P-256 with SHA-256, ASN.1, made with the root CA's key.
    pub signature: Vec<u8>,
}

impl Anchor {
    /// What a root is to sign: the anchor of a history that begins with it.
    pub fn unsigned(
        federation: &FederationId,
        hub: &NodeId,
        hub_key: &PublicKey,
        epoch: u32,
    ) -> Self {
        Self {
            federation: federation.clone(),
            hub: hub.clone(),
            hub_key: *hub_key,
            epoch,
            base: None,
            earlier: Vec::new(),
            signature: Vec::new(),
        }
    }

    /// The canonical bytes, with the signature.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        self.write(&mut writer);
        writer.into_bytes()
    }

    /// Reads [`Anchor::encode`] back; says nothing about the signature.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let anchor = Self::read(&mut reader)?;
        reader.finish()?;
        Ok(anchor)
    }

    /// Checks that `root` signed this anchor.
    pub fn verify(&self, root: &RootOfTrust) -> Result<(), CertError> {
        if root.verify(&self.signed_message(), &self.signature)? {
            Ok(())
        } else {
            Err(CertError::AnchorSignature { hub: self.hub.to_string() })
        }
    }

    /// Checks that one of `roots` signed this anchor. Roots that cannot be read, or
    /// with keys of another kind, have signed none.
    pub fn verify_any(&self, roots: &[CertificateDer<'_>]) -> Result<(), CertError> {
        let roots = roots.iter().filter_map(|root| RootOfTrust::from_certificate(root).ok());
        let mut signed = roots.map(|root| self.verify(&root));
        match signed.any(|signed| signed.is_ok()) {
            true => Ok(()),
            false => Err(CertError::AnchorSignature { hub: self.hub.to_string() }),
        }
    }

    /// Whether this anchor takes the place of `current`: the same federation and
    /// hub, and a higher epoch. Says nothing about the signature.
    pub fn supersedes(&self, current: &Anchor) -> bool {
        self.federation == current.federation
            && self.hub == current.hub
            && self.epoch > current.epoch
    }

    /// What it says, for the registry.
    pub fn anchored(&self) -> Anchored {
        Anchored {
            federation: self.federation.clone(),
            hub: self.hub.clone(),
            hub_key: self.hub_key,
            base: self.base,
            earlier: self.earlier.clone(),
        }
    }

    /// The federation's suite.
    pub fn suite(&self) -> Suite {
        self.hub_key.suite()
    }

    /// The hub's identity.
    pub fn hub_identity(&self) -> Identity {
        Identity::new(&self.federation, &self.hub)
    }

    /// What the root signs: the context, a zero byte, the canonical bytes
    /// without the signature.
    pub(crate) fn signed_message(&self) -> Vec<u8> {
        let mut writer = Writer::after([CONTEXT, &[0]].concat());
        self.write_unsigned(&mut writer);
        writer.into_bytes()
    }

    fn write_unsigned(&self, writer: &mut Writer) {
        writer.u8(if self.base.is_none() { VERSION } else { VERSION_WITH_BASE });
        writer.u8(self.suite().number());
        writer.bytes(self.federation.as_str().as_bytes());
        writer.bytes(self.hub.as_str().as_bytes());
        writer.raw(self.hub_key.as_bytes());
        writer.u32(self.epoch);
        if let Some(base) = &self.base {
            writer.u64(base.seq);
            writer.raw(base.hash.as_bytes());
            writer.u16(u16::try_from(self.earlier.len()).unwrap_or(u16::MAX));
            for key in &self.earlier {
                writer.raw(key.as_bytes());
            }
        }
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        self.write_unsigned(writer);
        writer.bytes(&self.signature);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let version = reader.u8()?;
        if version != VERSION && version != VERSION_WITH_BASE {
            return Err(DecodeError::Invalid("an anchor of an unknown version"));
        }
        let suite = Suite::from_number(reader.u8()?)?;
        let federation = FederationId::new(reader.text("federation", NAME_BYTES_MAX)?)
            .map_err(|_| DecodeError::Invalid("the federation is not a name"))?;
        let hub = read_node(reader)?;
        let hub_key = suite
            .public_key(reader.raw(suite.public_key_bytes())?)
            .map_err(|_| DecodeError::Invalid("the hub's signing key is none"))?;
        let epoch = reader.u32()?;
        let base = match version {
            VERSION => None,
            _ => Some(Position { seq: reader.u64()?, hash: reader.raw_hash(suite)? }),
        };
        let mut earlier = Vec::new();
        if let Some(base) = &base {
            let count = usize::from(reader.u16()?);
            if !(1..=EARLIER_KEYS_MAX).contains(&count) {
                return Err(DecodeError::TooLong { what: "earlier keys", limit: EARLIER_KEYS_MAX });
            }
            for _ in 0..count {
                let key = suite
                    .public_key(reader.raw(suite.public_key_bytes())?)
                    .map_err(|_| DecodeError::Invalid("an earlier signing key is none"))?;
                earlier.push(key);
            }
            if earlier.contains(&hub_key) {
                return Err(DecodeError::Invalid("an anchor's own key is an earlier one"));
            }
            if epoch < 2 {
                return Err(DecodeError::Invalid("an anchor goes on from one before the first"));
            }
            if base.seq == 0 {
                return Err(DecodeError::Invalid("an anchor goes on from number 0"));
            }
            check_seq(base.seq)?;
        }
        let signature = reader.bytes("signature", SIGNATURE_BYTES_MAX)?.to_vec();
        Ok(Self { federation, hub, hub_key, epoch, base, earlier, signature })
    }
}

pub(super) fn read_node(reader: &mut Reader<'_>) -> Result<NodeId, DecodeError> {
    NodeId::new(reader.text("node", NAME_BYTES_MAX)?)
        .map_err(|_| DecodeError::Invalid("the node is not a name"))
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]

    use protocol::history::SEQ_LIMIT;

    use super::*;
    use crate::authority::tests::TestAuthority;

    fn key(suite: Suite, byte: u8) -> PublicKey {
        suite.signing_key(&vec![byte; suite.secret_key_bytes()]).unwrap().public()
    }

    fn unsigned_of(authority: &TestAuthority, suite: Suite) -> Anchor {
        let hub = NodeId::new("410100").unwrap();
        Anchor::unsigned(&authority.federation, &hub, &key(suite, 5), 3)
    }

    fn unsigned(authority: &TestAuthority) -> Anchor {
        unsigned_of(authority, Suite::One)
    }

    pub(crate) fn anchor_of(authority: &TestAuthority) -> Anchor {
        authority.dirs().sign_anchor(1, &unsigned(authority)).unwrap()
    }

    #[test]
    fn an_anchor_says_its_suite_which_gives_all_lengths() {
        let authority = TestAuthority::now("zhengzhou");
        let root = RootOfTrust::from_certificate(authority.root()).unwrap();
        for suite in Suite::ALL {
            let base = Position { seq: 2, hash: suite.repeated(7) };
            let plain = unsigned_of(&authority, *suite);
            let earlier = vec![key(*suite, 6)];
            for anchor in [plain.clone(), Anchor { base: Some(base), earlier, ..plain }] {
                let anchor = authority.dirs().sign_anchor(1, &anchor).unwrap();
                let bytes = anchor.encode();
                assert_eq!((bytes[1], anchor.suite()), (suite.number(), *suite));
                assert_eq!(Anchor::decode(&bytes).unwrap(), anchor);
                anchor.verify(&root).unwrap();
                for length in 0..bytes.len() {
                    assert!(Anchor::decode(&bytes[..length]).is_err(), "{length}");
                }
                for other in 0..=u8::MAX {
                    let mut altered = bytes.clone();
                    altered[1] = other;
                    let read = Anchor::decode(&altered);
                    let known = Suite::ALL.iter().any(|suite| suite.number() == other);
                    assert_eq!(read == Err(DecodeError::UnknownSuite(other)), !known);
                    let verified = read.is_ok_and(|anchor| anchor.verify(&root).is_ok());
                    assert_eq!(verified, other == suite.number());
                }
            }
        }
    }

    #[test]
    fn an_anchor_verifies_under_its_root_and_unchanged_only() {
        let authority = TestAuthority::now("zhengzhou");
        let other = TestAuthority::now("zhengzhou");
        let root = RootOfTrust::from_certificate(authority.root()).unwrap();
        let anchor = anchor_of(&authority);
        anchor.verify(&root).unwrap();
        assert_eq!(Anchor::decode(&anchor.encode()).unwrap(), anchor);

        let other_root = RootOfTrust::from_certificate(other.root()).unwrap();
        let refused = |anchor: &Anchor, root: &RootOfTrust| {
            matches!(anchor.verify(root), Err(CertError::AnchorSignature { .. }))
        };
        assert!(refused(&anchor, &other_root));
        assert!(refused(&Anchor { epoch: 4, ..anchor.clone() }, &root));
        assert!(refused(&Anchor { hub: NodeId::new("x").unwrap(), ..anchor.clone() }, &root));
        assert!(refused(
            &Anchor { federation: FederationId::new("x").unwrap(), ..anchor.clone() },
            &root
        ));
        assert!(refused(
            &Anchor {
                hub_key: Suite::One.signing_key(&[6; 32]).unwrap().public(),
                ..anchor.clone()
            },
            &root
        ));
        assert!(refused(&Anchor { signature: Vec::new(), ..anchor }, &root));
    }

    #[test]
    fn a_root_key_of_another_kind_is_named() {
        let anchor = anchor_of(&TestAuthority::now("zhengzhou"));
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let cert = rcgen::CertificateParams::default().self_signed(&key).unwrap().into();
        let root = RootOfTrust::from_certificate(&cert).unwrap();
        assert!(matches!(anchor.verify(&root), Err(CertError::RootKeyKind)));
    }

    #[test]
    fn an_anchor_with_a_base_is_of_version_2_and_signed_with_it() {
        let authority = TestAuthority::now("zhengzhou");
        let root = RootOfTrust::from_certificate(authority.root()).unwrap();
        let base = Position { seq: 0x0102, hash: Suite::One.repeated(7) };
        let without = anchor_of(&authority);
        let earlier = vec![Suite::One.signing_key(&[6; 32]).unwrap().public()];
        let with = Anchor { base: Some(base), earlier, ..unsigned(&authority) };
        let with = authority.dirs().sign_anchor(1, &with).unwrap();
        with.verify(&root).unwrap();
        let bytes = with.encode();
        assert_eq!(Anchor::decode(&bytes).unwrap(), with);
        assert_eq!((without.encode()[0], bytes[0]), (1, 2));
        // Version, suite, two names with their lengths, key, epoch: then the base.
        let at = 2 + 4 + "zhengzhou".len() + 4 + "410100".len() + 32 + 4;
        assert_eq!(bytes[1..at], without.encode()[1..at]);
        assert_eq!(bytes[at..at + 40], [&[0, 0, 0, 0, 0, 0, 1, 2][..], &[7; 32]].concat());

        assert_eq!(bytes[at + 40..at + 42], [0, 1], "as many earlier keys");
        for altered in [
            None,
            Some(Position { seq: 3, ..base }),
            Some(Position { hash: Suite::One.none(), ..base }),
        ] {
            let altered = Anchor { base: altered, ..with.clone() };
            assert!(altered.verify(&root).is_err(), "{altered:?}");
        }
        let nobody = Anchor { earlier: vec![], ..with.clone() };
        assert!(nobody.verify(&root).is_err() && Anchor::decode(&nobody.encode()).is_err());
        let many = Anchor { earlier: vec![with.earlier[0]; 65], ..with.clone() };
        assert!(Anchor::decode(&many.encode()).is_err());
        let own = Anchor { earlier: vec![with.earlier[0], with.hub_key], ..with.clone() };
        let refused = DecodeError::Invalid("an anchor's own key is an earlier one");
        assert_eq!(Anchor::decode(&own.encode()), Err(refused));
        for length in 0..bytes.len() {
            assert!(Anchor::decode(&bytes[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn an_anchor_with_a_base_that_cannot_be_is_neither_read_nor_signed() {
        let authority = TestAuthority::now("zhengzhou");
        for (epoch, seq) in [(0, 1), (1, 1), (2, 0), (2, SEQ_LIMIT)] {
            let base = Some(Position { seq, hash: Suite::One.repeated(7) });
            let earlier = vec![Suite::One.signing_key(&[6; 32]).unwrap().public()];
            let bad = Anchor { epoch, base, earlier, ..anchor_of(&authority) };
            assert!(matches!(Anchor::decode(&bad.encode()), Err(DecodeError::Invalid(_))));
            assert!(authority.dirs().sign_anchor(1, &bad).is_err(), "{epoch} {seq}");
        }
        let mut later = anchor_of(&authority).encode();
        later[0] = 3;
        assert!(Anchor::decode(&later).is_err());
    }

    #[test]
    fn only_a_higher_epoch_of_the_same_hub_supersedes() {
        let current = anchor_of(&TestAuthority::now("zhengzhou"));
        let higher = Anchor { epoch: 4, ..current.clone() };
        assert!(higher.supersedes(&current));
        assert!(!current.supersedes(&current) && !current.supersedes(&higher));
        let hub = NodeId::new("410199").unwrap();
        assert!(!Anchor { hub, ..higher.clone() }.supersedes(&current));
        let federation = FederationId::new("kaifeng").unwrap();
        assert!(!Anchor { federation, ..higher }.supersedes(&current));
    }

    #[test]
    fn any_root_of_a_bundle_may_have_signed() {
        let (ours, other) = (TestAuthority::now("zhengzhou"), TestAuthority::now("zhengzhou"));
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let kind = rcgen::CertificateParams::default().self_signed(&key).unwrap().into();
        let anchor = anchor_of(&ours);
        anchor.verify_any(&[kind, other.root().clone(), ours.root().clone()]).unwrap();
        for roots in [&[][..], &[other.root().clone()]] {
            assert!(matches!(anchor.verify_any(roots), Err(CertError::AnchorSignature { .. })));
        }
    }
}
