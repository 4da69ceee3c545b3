//! How a new member comes to trust a hub: the root of trust, the anchor that
//! the root signs for a hub, and the one-time token that carries both.
//!
//! Used by the `invite` and `join` commands and by whoever checks a
//! `_federation` history from its beginning. Invariant: a [`Token`] that was
//! parsed carries an anchor that its own root signed, so the joiner has to trust
//! nothing but the text that it was handed.
//!
//! Not here: the conversation of enrolment, and the hub's list of open tokens.

use std::fmt;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use protocol::{
    encoding::{DecodeError, Reader, Writer},
    federation::Anchored,
    hash::{Hash, Purpose},
    id::{FederationId, NAME_BYTES_MAX, NodeId},
    sign::PublicKey,
};
use rustls::RootCertStore;
use rustls_pki_types::{CertificateDer, Der, TrustAnchor};
use zeroize::Zeroizing;

use crate::{CertError, identity::Identity};

/// What every token begins with, up to its version.
const TOKEN_PREFIX: &str = "creditsync-join-";
const TOKEN_VERSION: &str = "1";
const CHECKSUM_BYTES: usize = 4;

/// Longest token text: ten times what the longest sensible one has.
const TOKEN_TEXT_BYTES_MAX: usize = 64 << 10;
/// A distinguished name or a public key; RSA-4096 keys have about 550 bytes.
const ROOT_FIELD_BYTES_MAX: usize = 4096;
/// An ASN.1 ECDSA P-256 signature has at most 72 bytes.
const SIGNATURE_BYTES_MAX: usize = 80;
/// Addresses of one hub: several networks, each by name and by number.
const ADDRESSES_MAX: usize = 64;
/// A DNS name of 253 bytes, a colon and a port.
const ADDRESS_BYTES_MAX: usize = 259;
/// A display name: a thousand Chinese characters.
const DISPLAY_NAME_BYTES_MAX: usize = 4096;

const ANCHOR_VERSION: u8 = 1;
const ANCHOR_CONTEXT: &[u8] = b"creditsync/1 anchor";

/// A P-256 public key up to its point, as in the value of a certificate's
/// SubjectPublicKeyInfo (RFC 5480): id-ecPublicKey, prime256v1, a bit string.
const P256_SPKI_PREFIX: [u8; 24] = [
    0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48,
    0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

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
        let point = self.spki.strip_prefix(&P256_SPKI_PREFIX[..]).ok_or(CertError::RootKeyKind)?;
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point);
        Ok(key.verify(message, signature).is_ok())
    }
}

impl fmt::Debug for RootOfTrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RootOfTrust({:?})", Purpose::Checksum.hash(&[&self.subject, &self.spki]))
    }
}

/// The root CA's word on which hub speaks for a federation, and with which
/// signing key.
///
/// After a theft of the hub's key the root signs one of a higher epoch.
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
    /// ECDSA P-256 with SHA-256, ASN.1, made with the root CA's key.
    pub signature: Vec<u8>,
}

impl Anchor {
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

    /// The hub's identity.
    pub fn hub_identity(&self) -> Identity {
        Identity::new(&self.federation, &self.hub)
    }

    /// What it says, for the registry.
    pub fn anchored(&self) -> Anchored {
        Anchored {
            federation: self.federation.clone(),
            hub: self.hub.clone(),
            hub_key: self.hub_key,
            base: None,
        }
    }

    /// What the root signs: the context, a zero byte, the canonical bytes
    /// without the signature.
    pub(crate) fn signed_message(&self) -> Vec<u8> {
        let mut writer = Writer::after([ANCHOR_CONTEXT, &[0]].concat());
        self.write_unsigned(&mut writer);
        writer.into_bytes()
    }

    fn write_unsigned(&self, writer: &mut Writer) {
        writer.u8(ANCHOR_VERSION);
        writer.bytes(self.federation.as_str().as_bytes());
        writer.bytes(self.hub.as_str().as_bytes());
        writer.raw(self.hub_key.as_bytes());
        writer.u32(self.epoch);
    }

    fn write(&self, writer: &mut Writer) {
        self.write_unsigned(writer);
        writer.bytes(&self.signature);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        if reader.u8()? != ANCHOR_VERSION {
            return Err(DecodeError::Invalid("an anchor of an unknown version"));
        }
        Ok(Self {
            federation: FederationId::new(reader.text("federation", NAME_BYTES_MAX)?)
                .map_err(|_| DecodeError::Invalid("the federation is not a name"))?,
            hub: read_node(reader)?,
            hub_key: PublicKey::from_bytes(&reader.array()?)
                .map_err(|_| DecodeError::Invalid("the hub's signing key is none"))?,
            epoch: reader.u32()?,
            signature: reader.bytes("signature", SIGNATURE_BYTES_MAX)?.to_vec(),
        })
    }
}

/// Why a text is not a token that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Something else was pasted, or the beginning is missing.
    #[error(
        "this is not a join token; one begins with '{TOKEN_PREFIX}{TOKEN_VERSION}.'; paste all \
         that `creditsync invite` printed on the hub"
    )]
    NotAToken,
    /// The checksum does not fit.
    #[error(
        "the join token is incomplete or was altered on the way; copy it again, from its first \
         to its last character"
    )]
    Damaged,
    /// A token of a later creditsync.
    #[error(
        "the join token has version {0}, and this creditsync reads version {TOKEN_VERSION}; \
         update creditsync on this machine"
    )]
    UnknownVersion(String),
    /// Whole, but not as this version writes it.
    #[error("the join token cannot be read ({0}); update creditsync here and on the hub")]
    Content(#[from] DecodeError),
    /// The anchor was not signed by the token's root.
    #[error(
        "the join token contradicts itself: its root CA did not sign its anchor for hub '{hub}'; \
         do not use it, and ask the hub's administrator about it"
    )]
    Anchor {
        /// The hub that the anchor names.
        hub: String,
    },
}

/// A one-time invitation, made by the hub and pasted at the member.
///
/// Its federation and hub are those of its anchor: the text carries them once.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// The trust domain.
    pub federation: FederationId,
    /// Who is invited.
    pub node: NodeId,
    /// Who invites.
    pub hub: NodeId,
    /// Where the hub listens, `HOST:PORT`, best first.
    pub addresses: Vec<String>,
    /// The federation's root CA.
    pub root: RootOfTrust,
    /// The root's word on the hub.
    pub anchor: Anchor,
    /// The `_federation` sequence number at the hub when it invited.
    pub federation_seq: u64,
    /// The header hash of that number: a history without it is another one.
    pub federation_head: Hash,
    /// Which open invitation this is.
    pub id: [u8; 8],
    /// What proves it; the hub keeps only [`Token::secret_hash`].
    pub secret: Zeroizing<[u8; 32]>,
    /// The moment it ends, in seconds since 1970 UTC.
    pub expires_unix: i64,
    /// The invited node's display name.
    pub name: String,
}

impl Token {
    /// The text to hand over: prefix, then base64url of the canonical bytes and
    /// their checksum.
    pub fn to_text(&self) -> String {
        let mut writer = Writer::new();
        self.anchor.write(&mut writer);
        writer.bytes(&self.root.subject);
        writer.bytes(&self.root.spki);
        writer.bytes(self.node.as_str().as_bytes());
        writer.bytes(self.name.as_bytes());
        writer.u16(u16::try_from(self.addresses.len()).unwrap_or(u16::MAX));
        for address in &self.addresses {
            writer.bytes(address.as_bytes());
        }
        writer.u64(self.federation_seq);
        writer.raw(self.federation_head.as_bytes());
        writer.i64(self.expires_unix);
        writer.raw(&self.id);
        writer.raw(self.secret.as_ref());
        let mut bytes = Zeroizing::new(writer.into_bytes());
        let checksum = checksum(&bytes);
        bytes.extend_from_slice(&checksum);
        format!("{TOKEN_PREFIX}{TOKEN_VERSION}.{}", BASE64_URL_SAFE_NO_PAD.encode(&bytes))
    }

    /// Reads [`Token::to_text`] back and checks the anchor against the root.
    ///
    /// White space is ignored wherever it stands: mail programs and terminals
    /// wrap lines. Whether the token has ended is [`Token::is_expired`].
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        if text.len() > TOKEN_TEXT_BYTES_MAX {
            return Err(TokenError::NotAToken);
        }
        let text: Zeroizing<String> =
            Zeroizing::new(text.chars().filter(|&c| !is_ignored(c)).collect());
        let (version, body) = text
            .strip_prefix(TOKEN_PREFIX)
            .and_then(|rest| rest.split_once('.'))
            .ok_or(TokenError::NotAToken)?;
        if version != TOKEN_VERSION {
            let plausible = (1..=5).contains(&version.len())
                && version.bytes().all(|byte| byte.is_ascii_digit());
            return Err(if plausible {
                TokenError::UnknownVersion(version.to_owned())
            } else {
                TokenError::NotAToken
            });
        }
        let bytes =
            Zeroizing::new(BASE64_URL_SAFE_NO_PAD.decode(body).map_err(|_| TokenError::Damaged)?);
        let (content, sum) =
            bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(TokenError::Damaged)?;
        if checksum(content) != *sum {
            return Err(TokenError::Damaged);
        }
        let token = Self::decode(content)?;
        token
            .anchor
            .verify(&token.root)
            .map_err(|_| TokenError::Anchor { hub: token.hub.to_string() })?;
        Ok(token)
    }

    /// What the hub keeps instead of the secret.
    pub fn secret_hash(&self) -> Hash {
        secret_hash(&self.id, &self.secret)
    }

    /// The identity that the invited node will have.
    pub fn identity(&self) -> Identity {
        Identity::new(&self.federation, &self.node)
    }

    /// The identity of the hub.
    pub fn hub_identity(&self) -> Identity {
        Identity::new(&self.federation, &self.hub)
    }

    /// Whether the token has ended at `now_unix`, seconds since 1970 UTC.
    pub fn is_expired(&self, now_unix: i64) -> bool {
        now_unix >= self.expires_unix
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let anchor = Anchor::read(&mut reader)?;
        let root = RootOfTrust {
            subject: reader.bytes("root subject", ROOT_FIELD_BYTES_MAX)?.to_vec(),
            spki: reader.bytes("root key", ROOT_FIELD_BYTES_MAX)?.to_vec(),
        };
        let node = read_node(&mut reader)?;
        let name = reader.text("display name", DISPLAY_NAME_BYTES_MAX)?.to_owned();
        let count = usize::from(reader.u16()?);
        if count > ADDRESSES_MAX {
            return Err(DecodeError::TooLong { what: "address list", limit: ADDRESSES_MAX });
        }
        let addresses = (0..count)
            .map(|_| reader.text("address", ADDRESS_BYTES_MAX).map(str::to_owned))
            .collect::<Result<_, _>>()?;
        let token = Self {
            federation: anchor.federation.clone(),
            node,
            hub: anchor.hub.clone(),
            addresses,
            root,
            anchor,
            federation_seq: reader.u64()?,
            federation_head: Hash(reader.array()?),
            expires_unix: reader.i64()?,
            id: reader.array()?,
            secret: Zeroizing::new(reader.array()?),
            name,
        };
        reader.finish()?;
        Ok(token)
    }
}

impl fmt::Debug for Token {
    /// Everything but the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("federation", &self.federation)
            .field("node", &self.node)
            .field("hub", &self.hub)
            .field("addresses", &self.addresses)
            .field("federation_seq", &self.federation_seq)
            .field("federation_head", &self.federation_head)
            .field("id", &self.id)
            .field("expires_unix", &self.expires_unix)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// What the hub compares when a member presents a token's id and secret.
pub fn secret_hash(id: &[u8; 8], secret: &[u8; 32]) -> Hash {
    Purpose::TokenSecret.hash(&[id, secret])
}

/// A fresh token id and secret from the system's random source.
pub fn generate_secret() -> Result<([u8; 8], Zeroizing<[u8; 32]>), CertError> {
    let mut id = [0; 8];
    let mut secret = Zeroizing::new([0; 32]);
    getrandom::fill(&mut id)
        .and_then(|()| getrandom::fill(secret.as_mut()))
        .map_err(CertError::crypto("draw a token's secret"))?;
    Ok((id, secret))
}

fn read_node(reader: &mut Reader<'_>) -> Result<NodeId, DecodeError> {
    NodeId::new(reader.text("node", NAME_BYTES_MAX)?)
        .map_err(|_| DecodeError::Invalid("the node is not a name"))
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let [a, b, c, d, ..] = Purpose::Checksum.hash(&[TOKEN_VERSION.as_bytes(), bytes]).0;
    [a, b, c, d]
}

/// White space, and the invisible characters that chat programs put into long
/// words.
fn is_ignored(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\u{200b}'..='\u{200d}' | '\u{2060}' | '\u{feff}' | '\u{ad}')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use protocol::sign::SigningKey;

    use super::*;
    use crate::authority::tests::TestAuthority;

    fn anchor_of(authority: &TestAuthority) -> Anchor {
        authority
            .sign_anchor(
                &authority.federation,
                &NodeId::new("410100").unwrap(),
                &SigningKey::from_seed(&[5; 32]).public(),
                3,
            )
            .unwrap()
    }

    fn token(root: RootOfTrust, anchor: Anchor) -> Token {
        Token {
            federation: anchor.federation.clone(),
            node: NodeId::new("410122").unwrap(),
            hub: anchor.hub.clone(),
            addresses: vec!["hub.example:7400".into(), "[2001:db8::1]:7400".into()],
            root,
            anchor,
            federation_seq: 7,
            federation_head: Hash([9; 32]),
            id: [1; 8],
            secret: Zeroizing::new([0xa5; 32]),
            expires_unix: 1_800_000_000,
            name: "中牟县".into(),
        }
    }

    fn valid_token() -> Token {
        let authority = TestAuthority::now("zhengzhou");
        let root = RootOfTrust::from_certificate(authority.root()).unwrap();
        token(root, anchor_of(&authority))
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
            &Anchor { hub_key: SigningKey::from_seed(&[6; 32]).public(), ..anchor.clone() },
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
    fn a_token_reads_back() {
        let token = valid_token();
        let text = token.to_text();
        assert!(text.starts_with("creditsync-join-1."), "{text}");
        assert_eq!(Token::parse(&text).unwrap(), token);
        assert!(text.len() < 800, "short enough to paste: {}", text.len());
        assert_eq!(token.secret_hash(), Purpose::TokenSecret.hash(&[&[1; 8], &[0xa5; 32]]));
        assert!(!token.is_expired(1_799_999_999));
        assert!(token.is_expired(1_800_000_000));
    }

    #[test]
    fn white_space_anywhere_is_ignored() {
        let token = valid_token();
        let text = token.to_text();
        let spaced: String = text.chars().flat_map(|c| [c, ' ']).collect();
        assert_eq!(Token::parse(&spaced).unwrap(), token);
        for inserted in ["\n", "\r\n> ".trim_end_matches("> "), "\t", "\u{3000}", "\u{200b}"] {
            for at in [0, 5, 18, text.len() / 2, text.len()] {
                let (head, tail) = text.split_at(at);
                let pasted = format!("{head}{inserted}{tail}");
                assert_eq!(Token::parse(&pasted).unwrap(), token, "{inserted:?} at {at}");
            }
        }
    }

    #[test]
    fn an_altered_character_is_noticed_at_every_position() {
        let text = valid_token().to_text();
        let prefix = "creditsync-join-1.".len();
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let error = Token::parse(std::str::from_utf8(&bytes).unwrap()).unwrap_err();
            if at < prefix {
                assert_eq!(error, TokenError::NotAToken, "at {at}");
            } else {
                assert_eq!(error, TokenError::Damaged, "at {at}");
            }
        }
    }

    #[test]
    fn a_truncated_token_is_noticed_at_every_length() {
        let text = valid_token().to_text();
        let prefix = "creditsync-join-1.".len();
        for length in 0..text.len() {
            let error = Token::parse(&text[..length]).unwrap_err();
            let expected =
                if length < prefix { TokenError::NotAToken } else { TokenError::Damaged };
            assert_eq!(error, expected, "{length}");
        }
        assert_eq!(Token::parse(&format!("{text}A")).unwrap_err(), TokenError::Damaged);
    }

    #[test]
    fn other_texts_and_versions_are_told_apart() {
        let text = valid_token().to_text();
        let later = text.replacen("join-1.", "join-2.", 1);
        assert_eq!(Token::parse(&later).unwrap_err(), TokenError::UnknownVersion("2".into()));
        for other in ["", "hello", "creditsync-join-.", "creditsync-join-x.AAAA", "县"] {
            assert_eq!(Token::parse(other).unwrap_err(), TokenError::NotAToken, "{other}");
        }
        let long = "creditsync-join-1.".to_owned() + &"A".repeat(TOKEN_TEXT_BYTES_MAX);
        assert_eq!(Token::parse(&long).unwrap_err(), TokenError::NotAToken);
    }

    #[test]
    fn an_anchor_by_another_root_is_refused_although_the_checksum_fits() {
        let authority = TestAuthority::now("zhengzhou");
        let other = TestAuthority::now("zhengzhou");
        let root = RootOfTrust::from_certificate(authority.root()).unwrap();
        let text = token(root, anchor_of(&other)).to_text();
        assert_eq!(Token::parse(&text).unwrap_err(), TokenError::Anchor { hub: "410100".into() });
    }

    #[test]
    fn debug_output_does_not_hold_the_secret() {
        let shown = format!("{:?}", valid_token());
        assert!(shown.contains("410122"), "{shown}");
        // 0xa5 is 165 in the way that byte arrays print.
        assert!(!shown.contains("165") && !shown.contains("secret"), "{shown}");
    }
}
