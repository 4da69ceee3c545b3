//! The one-time token that a member pastes: its text, and what it carries.
//!
//! Used by the `invite` and `join` commands. Invariant: a [`Token`] that was
//! parsed carries an anchor that its own root signed.
//!
//! Not here: the conversation of enrolment, and the hub's list of open tokens.

use std::fmt;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use protocol::{
    encoding::{DecodeError, Reader, Writer},
    hash::{Hash, Purpose},
    id::{FederationId, NodeId},
    suite::Suite,
    suite::checksum::Checksum,
};
use zeroize::Zeroizing;

use super::anchor::{Anchor, RootOfTrust, read_node};
use crate::{CertError, identity::Identity};

/// What every token begins with, up to its version.
const TOKEN_PREFIX: &str = "creditsync-join-";
const TOKEN_VERSION: &str = "1";
const CHECKSUM_BYTES: usize = 4;

/// Longest token text: ten times what the longest sensible one has.
const TOKEN_TEXT_BYTES_MAX: usize = 64 << 10;
/// A distinguished name or a public key; RSA-4096 keys have about 550 bytes.
const ROOT_FIELD_BYTES_MAX: usize = 4096;
/// Addresses of one hub: several networks, each by name and by number.
const ADDRESSES_MAX: usize = 64;
/// A DNS name of 253 bytes, a colon and a port.
const ADDRESS_BYTES_MAX: usize = 259;
/// A display name: a thousand Chinese characters.
const DISPLAY_NAME_BYTES_MAX: usize = 4096;

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
        secret_hash(self.anchor.suite(), &self.id, &self.secret)
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
        let suite = anchor.suite();
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
            federation_head: reader.raw_hash(suite)?,
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
pub fn secret_hash(suite: Suite, id: &[u8; 8], secret: &[u8; 32]) -> Hash {
    suite.hash(Purpose::TokenSecret, &[id, secret])
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

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let [a, b, c, d, ..] = Checksum::of(&[TOKEN_VERSION.as_bytes(), bytes]).0;
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

    use super::*;
    use crate::{authority::tests::TestAuthority, enrol::anchor::tests::anchor_of};

    fn token(root: RootOfTrust, anchor: Anchor) -> Token {
        Token {
            federation: anchor.federation.clone(),
            node: NodeId::new("410122").unwrap(),
            hub: anchor.hub.clone(),
            addresses: vec!["hub.example:7400".into(), "[2001:db8::1]:7400".into()],
            root,
            anchor,
            federation_seq: 7,
            federation_head: Suite::One.repeated(9),
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
    fn a_token_reads_back() {
        let token = valid_token();
        let text = token.to_text();
        assert!(text.starts_with("creditsync-join-1."), "{text}");
        assert_eq!(Token::parse(&text).unwrap(), token);
        assert!(text.len() < 800, "short enough to paste: {}", text.len());
        assert_eq!(
            token.secret_hash(),
            Suite::One.hash(Purpose::TokenSecret, &[&[1; 8], &[0xa5; 32]])
        );
        assert!(!token.is_expired(1_799_999_999));
        assert!(token.is_expired(1_800_000_000));
    }

    #[test]
    fn a_token_of_another_suite_is_whole_and_one_of_an_unknown_suite_is_named() {
        let authority = TestAuthority::now("zhengzhou");
        let suite = Suite::Artificial;
        let key = suite.signing_key(&vec![5; suite.secret_key_bytes()]).unwrap().public();
        let hub = NodeId::new("410100").unwrap();
        let anchor = Anchor::unsigned(&authority.federation, &hub, &key, 1);
        let anchor = authority.dirs().sign_anchor(1, &anchor).unwrap();
        let root = RootOfTrust::from_certificate(authority.root()).unwrap();
        let other = Token { federation_head: suite.repeated(9), ..token(root, anchor) };
        assert_eq!(Token::parse(&other.to_text()).unwrap(), other);

        // As a program without that suite reads it.
        let text = other.to_text();
        let (prefix, body) = text.rsplit_once('.').unwrap();
        let mut bytes = BASE64_URL_SAFE_NO_PAD.decode(body).unwrap();
        bytes[1] = 2;
        bytes.truncate(bytes.len() - CHECKSUM_BYTES);
        bytes.extend(checksum(&bytes));
        let text = format!("{prefix}.{}", BASE64_URL_SAFE_NO_PAD.encode(&bytes));
        let error = Token::parse(&text).unwrap_err();
        assert!(matches!(error, TokenError::Content(DecodeError::UnknownSuite(2))), "{error}");
        assert!(error.to_string().contains("suite 2"), "{error}");
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
