//! Who the other side of a connection turned out to be.
//!
//! Used by the daemon's network. Invariant: application code learns a peer's
//! identity only as a [`VerifiedPeer`], and that only comes from a finished
//! handshake.
//!
//! Not here: the handshake ([`crate::tls`]), and whether this peer still belongs
//! to the federation.

use protocol::{id::FederationId, suite::checksum::Checksum};
use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;

use crate::{
    CertError,
    bundle::root_id,
    identity::{self, Identity},
    tls::ALPN,
};

/// The other side of a finished handshake: its certificate was checked by
/// rustls, it is of our federation, and the protocol is [`ALPN`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedPeer {
    identity: Identity,
    serial_hex: String,
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
    issuer: Option<Issuer>,
}

/// The CA that stands behind a peer's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Issuer {
    id: Checksum,
    /// DER SubjectPublicKeyInfo.
    key: Vec<u8>,
}

impl VerifiedPeer {
    /// Who it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Its certificate's serial number, lower-case hexadecimal.
    pub fn serial_hex(&self) -> &str {
        &self.serial_hex
    }

    /// When its certificate begins.
    pub fn not_before(&self) -> OffsetDateTime {
        self.not_before
    }

    /// The CA that issued its certificate, as [`root_id`] names it; none if the
    /// peer showed no CA, so that a trusted root issued it directly.
    ///
    /// Good for telling generations apart, not for refusing one: the peer can
    /// show the same CA in other bytes ([`VerifiedPeer::is_issued_by`]).
    pub fn issuer(&self) -> Option<Checksum> {
        self.issuer.as_ref().map(|issuer| issuer.id)
    }

    /// Whether the key of `authority`, a CA's certificate, signed the peer's.
    ///
    /// Keys are compared, because a certificate's hash covers its signature, and
    /// of an ECDSA signature anybody can make another one that verifies too.
    pub fn is_issued_by(&self, authority: &CertificateDer<'_>) -> bool {
        let Ok(authority) = identity::parse(authority) else { return false };
        self.issuer.as_ref().is_some_and(|issuer| issuer.key == authority.public_key().raw)
    }

    /// When its certificate ends; a connection must not outlive it.
    pub fn not_after(&self) -> OffsetDateTime {
        self.not_after
    }
}

/// Why a connection is not one of replication. Only that it was refused crosses
/// the wire; the reason is for our own log.
#[derive(Debug, thiserror::Error)]
pub enum PeerRefused {
    /// The connection is for something else.
    #[error("the peer speaks {0}, not {ours}", ours = String::from_utf8_lossy(ALPN))]
    Protocol(String),
    /// No certificate was shown.
    #[error("the peer showed no certificate; it has to join the federation first")]
    NoCertificate,
    /// A certificate of our root for another federation.
    #[error("the peer is {theirs}, of another federation than '{ours}'")]
    OtherFederation {
        /// Ours.
        ours: FederationId,
        /// Theirs.
        theirs: Identity,
    },
    /// A chain out of order: the second certificate is not the issuer of the
    /// first, so the registry of CAs cannot be asked about it.
    #[error(
        "the second certificate that {0} shows is not the issuer of its first; put them in order: \
         the node's own, then the CA that issued it"
    )]
    ChainOrder(Identity),
    /// A certificate without the names that make an identity.
    #[error(transparent)]
    Certificate(#[from] CertError),
}

/// Makes a [`VerifiedPeer`] of what a *finished* handshake negotiated; `alpn`
/// and `chain` are the connection's own answers, from a configuration of this
/// module.
pub fn verified_peer(
    alpn: Option<&[u8]>,
    chain: Option<&[CertificateDer<'_>]>,
    federation: &FederationId,
) -> Result<VerifiedPeer, PeerRefused> {
    match alpn {
        Some(alpn) if alpn == ALPN => {}
        Some(other) => {
            return Err(PeerRefused::Protocol(other.escape_ascii().to_string()));
        }
        None => return Err(PeerRefused::Protocol("no named protocol".into())),
    }
    let chain = chain.unwrap_or_default();
    let leaf = chain.first().ok_or(PeerRefused::NoCertificate)?;
    let identity = identity::identity_of(leaf)?;
    if identity.federation != *federation {
        return Err(PeerRefused::OtherFederation { ours: federation.clone(), theirs: identity });
    }
    // The verifier let no other CA of this name take part; see `observe`.
    let issuer = match chain.get(1) {
        None => None,
        Some(issuer) => {
            let (leaf, parsed) = (identity::parse(leaf)?, identity::parse(issuer)?);
            if leaf.issuer().as_raw() != parsed.subject().as_raw() {
                return Err(PeerRefused::ChainOrder(identity));
            }
            Some(Issuer { id: root_id(issuer), key: parsed.public_key().raw.to_vec() })
        }
    };
    let facts = identity::facts(leaf)?;
    Ok(VerifiedPeer {
        identity,
        serial_hex: facts.serial_hex,
        not_before: facts.not_before,
        not_after: facts.not_after,
        issuer,
    })
}
