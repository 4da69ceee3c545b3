//! TLS for nodes: credentials, the three configurations, and who the other
//! side turned out to be.
//!
//! Used by the daemon's network. Invariants: TLS 1.3 only; certificates are
//! checked by rustls' own verifiers and by nothing else; no session is ever
//! resumed, because a resumed one skips the check of the client's certificate;
//! and application code learns a peer's identity only as a [`VerifiedPeer`].
//!
//! Enrolment shares the port with replication, so the server asks for a client
//! certificate without insisting on one: [`verified_peer`] insists, for every
//! connection whose protocol is [`ALPN`].

use std::{path::Path, sync::Arc};

use protocol::id::FederationId;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, RootCertStore, ServerConfig,
    client::{Resumption, WebPkiServerVerifier, danger::ServerCertVerifier as _},
    crypto::{CryptoProvider, aws_lc_rs},
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::CertifiedKey,
    version::TLS13,
};
use rustls_pki_types::{
    CertificateDer, DnsName, PrivateKeyDer, ServerName, TrustAnchor, UnixTime, pem::PemObject as _,
};
use time::OffsetDateTime;

use crate::{
    CertError,
    authority::{self, ROOT_CERT_FILE},
    enrol::RootOfTrust,
    error::date,
    identity::{self, Identity},
    keyfile,
};

/// The protocol of replication: both sides show a certificate.
pub const ALPN: &[u8] = b"creditsync/1";
/// The protocol of enrolment: only the hub shows a certificate.
pub const ALPN_JOIN: &[u8] = b"creditsync-join/1";

/// A node's certificate and those that lead to the root, in its `certs/`.
pub const NODE_CHAIN_FILE: &str = "node.pem";
/// A node's TLS key, in its `keys/`.
pub const NODE_KEY_FILE: &str = "node.key";

/// A name that no node has: it is outside the zone of their names, and RFC 6761
/// keeps everybody else from having it.
const NOBODY: &str = "nobody.invalid";

/// What a node shows and what it trusts.
pub struct Credentials {
    /// The node's certificate and the issuing one.
    pub chain: Vec<CertificateDer<'static>>,
    /// The key of the first certificate.
    pub key: PrivateKeyDer<'static>,
    /// The federation's root.
    pub root: CertificateDer<'static>,
    /// Whose they are.
    pub identity: Identity,
}

impl Credentials {
    /// Checks that the parts belong together: the key fits the certificate, the
    /// chain leads to the root, and it is `identity`'s.
    ///
    /// Whether the certificate is valid *now* is not checked: an expired one can
    /// still be shown and reported; see [`Credentials::not_after`].
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        root: CertificateDer<'static>,
        identity: Identity,
    ) -> Result<Self, CertError> {
        let credentials = Self { chain, key, root, identity };
        credentials.check()?;
        Ok(credentials)
    }

    /// Reads `node.pem` and `root.pem` in `dir_certs` and `node.key` in
    /// `dir_keys`, and checks them as [`Credentials::new`] does.
    pub fn load(dir_certs: &Path, dir_keys: &Path, identity: &Identity) -> Result<Self, CertError> {
        let chain_path = dir_certs.join(NODE_CHAIN_FILE);
        let key_path = dir_keys.join(NODE_KEY_FILE);
        let chain = authority::load_chain(&chain_path)?;
        let root = authority::load_single(&dir_certs.join(ROOT_CERT_FILE))?;
        let key =
            PrivateKeyDer::from_pem_slice(&keyfile::read_private(&key_path)?).map_err(|error| {
                CertError::content(
                    &key_path,
                    format!("not a private key in PEM ({error:?}); restore it from a backup"),
                )
            })?;
        Self::new(chain, key, root, identity.clone())
            .map_err(|error| CertError::content(&chain_path, error.to_string()))
    }

    /// The last moment of the node's certificate.
    pub fn not_after(&self) -> Result<OffsetDateTime, CertError> {
        Ok(identity::facts(self.leaf()?)?.not_after)
    }

    fn leaf(&self) -> Result<&CertificateDer<'static>, CertError> {
        self.chain.first().ok_or_else(|| CertError::Tls("there is no certificate".into()))
    }

    fn check(&self) -> Result<(), CertError> {
        let leaf = self.leaf()?;
        let found = identity::identity_of(leaf)?;
        if found != self.identity {
            return Err(CertError::Tls(format!(
                "the certificate is for {found}, but this node is {}",
                self.identity
            )));
        }
        CertifiedKey::from_der(self.chain.clone(), self.key.clone_key(), &provider()).map_err(
            |error| {
                CertError::Tls(format!(
                    "the private key {NODE_KEY_FILE} does not fit the certificate ({error}); \
                     restore both from one backup"
                ))
            },
        )?;

        // At a moment when each certificate of the chain is valid, if there is
        // any: the clock is no part of whether they belong together.
        let mut moment = identity::facts(leaf)?.not_after;
        for cert in &self.chain[1..] {
            moment = moment.min(identity::facts(cert)?.not_after);
        }
        let moment = UnixTime::since_unix_epoch(std::time::Duration::from_secs(
            u64::try_from(moment.unix_timestamp()).unwrap_or(0),
        ));
        let name = server_name(&self.identity);
        let untrusted = |error: rustls::Error| {
            CertError::Tls(format!(
                "the chain of certificates does not lead to {ROOT_CERT_FILE}: {}",
                explain_tls(&error).unwrap_or_else(|| error.to_string())
            ))
        };
        WebPkiServerVerifier::builder_with_provider(self.roots()?, provider())
            .build()
            .map_err(|error| CertError::Tls(error.to_string()))?
            .verify_server_cert(leaf, &self.chain[1..], &name, &[], moment)
            .map_err(untrusted)?;
        self.client_verifier()?
            .verify_client_cert(leaf, &self.chain[1..], moment)
            .map_err(untrusted)?;
        Ok(())
    }

    fn roots(&self) -> Result<Arc<RootCertStore>, CertError> {
        Ok(store(RootOfTrust::from_certificate(&self.root)?.trust_anchor()))
    }

    fn client_verifier(&self) -> Result<Arc<dyn ClientCertVerifier>, CertError> {
        WebPkiClientVerifier::builder_with_provider(self.roots()?, provider())
            .allow_unauthenticated()
            .build()
            .map_err(|error| CertError::Tls(error.to_string()))
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credentials({})", self.identity)
    }
}

/// The listening side, for replication and for enrolment.
///
/// A client certificate is checked if one is shown and not missed if none is:
/// pass every connection through [`verified_peer`], except those of
/// [`ALPN_JOIN`].
pub fn server_config(c: &Credentials) -> Result<ServerConfig, CertError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(tls)?
        .with_client_cert_verifier(c.client_verifier()?)
        .with_single_cert(c.chain.clone(), c.key.clone_key())
        .map_err(tls)?;
    config.alpn_protocols = vec![ALPN.to_vec(), ALPN_JOIN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(config)
}

/// The dialling side of replication.
pub fn client_config(c: &Credentials) -> Result<ClientConfig, CertError> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(tls)?
        .with_root_certificates(c.roots()?)
        .with_client_auth_cert(c.chain.clone(), c.key.clone_key())
        .map_err(tls)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok(config)
}

/// The dialling side of enrolment: trusts only the token's root.
pub fn join_client_config(root: &RootOfTrust) -> Result<ClientConfig, CertError> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(tls)?
        .with_root_certificates(store(root.trust_anchor()))
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN_JOIN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok(config)
}

/// The name that a dialler asks the other side to prove.
///
/// For an identity that [`Identity::check`] refuses it is a name that nobody
/// has, so that the handshake fails: no certificate can be made for it either.
pub fn server_name(identity: &Identity) -> ServerName<'static> {
    ServerName::DnsName(
        DnsName::try_from(identity.dns_name())
            .or_else(|_| DnsName::try_from(NOBODY.to_owned()))
            .expect("the constant is a DNS name"),
    )
}

/// The other side of a finished handshake: its certificate was checked by
/// rustls, it is of our federation, and the protocol is [`ALPN`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedPeer {
    identity: Identity,
    not_after: OffsetDateTime,
}

impl VerifiedPeer {
    /// Who it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
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
    let leaf = chain.and_then(<[_]>::first).ok_or(PeerRefused::NoCertificate)?;
    let identity = identity::identity_of(leaf)?;
    if identity.federation != *federation {
        return Err(PeerRefused::OtherFederation { ours: federation.clone(), theirs: identity });
    }
    Ok(VerifiedPeer { identity, not_after: identity::facts(leaf)?.not_after })
}

/// A TLS error in an administrator's words, with the next step; none where
/// rustls' own text is as good.
pub fn explain_tls(error: &rustls::Error) -> Option<String> {
    let text = match error {
        rustls::Error::InvalidCertificate(problem) => return explain_certificate(problem),
        rustls::Error::AlertReceived(alert) => match alert {
            AlertDescription::CertificateExpired => {
                "the other side says that our certificate is expired or not yet valid; compare \
                 the clocks of both machines; if they are right, this node needs a new \
                 certificate from the hub"
            }
            AlertDescription::UnknownCA => {
                "the other side does not know the root CA of our certificate; we belong to \
                 different federations, or one side changed its root"
            }
            AlertDescription::CertificateRequired => {
                "the other side asks for a certificate and we showed none; join first: \
                 creditsync join TOKEN"
            }
            AlertDescription::BadCertificate | AlertDescription::CertificateUnknown => {
                "the other side refuses our certificate; its log says why"
            }
            AlertDescription::NoApplicationProtocol => {
                "the other side does not speak our protocol; the two versions of creditsync are \
                 too far apart, or it is another program"
            }
            _ => return None,
        },
        rustls::Error::NoApplicationProtocol => {
            "the other side does not speak our protocol; the two versions of creditsync are too \
             far apart, or it is another program"
        }
        _ => return None,
    };
    Some(text.to_owned())
}

fn explain_certificate(problem: &CertificateError) -> Option<String> {
    Some(match problem {
        CertificateError::ExpiredContext { time, not_after } => format!(
            "the peer's certificate expired on {}, and this machine's clock says {}; if the clock \
             is right, the peer must renew its certificate, else set the clock",
            unix_date(*not_after),
            unix_date(*time)
        ),
        CertificateError::NotValidYetContext { time, not_before } => format!(
            "the peer's certificate is valid from {} on, and this machine's clock says {}; one of \
             the two machines' clocks is wrong",
            unix_date(*not_before),
            unix_date(*time)
        ),
        CertificateError::Expired => {
            "the peer's certificate expired, or this machine's clock is wrong".into()
        }
        CertificateError::NotValidYet => {
            "the peer's certificate is not valid yet: one of the two machines' clocks is wrong"
                .into()
        }
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "the peer's certificate was not issued under our root CA; it belongs to another \
             federation, or one side changed its root"
                .into()
        }
        CertificateError::NotValidForNameContext { expected, presented } => format!(
            "the peer is not the expected node: its certificate is for {}, and {} was dialled; \
             check the address",
            if presented.is_empty() { "no DNS name".to_owned() } else { presented.join(", ") },
            expected.to_str()
        ),
        CertificateError::NotValidForName => {
            "the peer's certificate is for another node than was dialled; check the address".into()
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "the peer's certificate is not for this use; it needs both extended key usages, \
             serverAuth and clientAuth"
                .into()
        }
        _ => return None,
    })
}

fn unix_date(time: UnixTime) -> String {
    i64::try_from(time.as_secs())
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .map_or_else(|| format!("{} s after 1970", time.as_secs()), date)
}

/// aws-lc-rs with the post-quantum hybrid first, whatever features other crates
/// turn on.
fn provider() -> Arc<CryptoProvider> {
    use aws_lc_rs::kx_group::{SECP256R1, SECP384R1, X25519, X25519MLKEM768};
    Arc::new(CryptoProvider {
        kx_groups: vec![X25519MLKEM768, X25519, SECP256R1, SECP384R1],
        ..aws_lc_rs::default_provider()
    })
}

fn store(anchor: TrustAnchor<'static>) -> Arc<RootCertStore> {
    Arc::new(RootCertStore { roots: vec![anchor] })
}

fn tls(error: rustls::Error) -> CertError {
    CertError::Tls(error.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;

    use rustls::{ClientConnection, HandshakeKind, NamedGroup, ProtocolVersion, ServerConnection};
    use time::Duration;

    use super::*;
    use crate::{
        authority::{NodeKey, save_chain, tests::TestAuthority},
        identity::tests::identity,
    };

    type Connections = (ClientConnection, ServerConnection);

    /// Steps a handshake in memory until both sides are done, or to the first
    /// error: the client's, or the server's.
    fn handshake(
        client: ClientConfig,
        name: ServerName<'static>,
        server: ServerConfig,
    ) -> Result<Connections, rustls::Error> {
        shake(&Arc::new(client), name, &Arc::new(server))
    }

    fn shake(
        client: &Arc<ClientConfig>,
        name: ServerName<'static>,
        server: &Arc<ServerConfig>,
    ) -> Result<Connections, rustls::Error> {
        let mut client = ClientConnection::new(client.clone(), name)?;
        let mut server = ServerConnection::new(server.clone())?;
        // One round more than a handshake needs, for tickets and late alerts.
        for _ in 0..4 {
            let mut bytes = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut bytes).unwrap();
            }
            let mut unread = bytes.as_slice();
            while !unread.is_empty() {
                server.read_tls(&mut unread).unwrap();
                server.process_new_packets()?;
            }
            bytes.clear();
            while server.wants_write() {
                server.write_tls(&mut bytes).unwrap();
            }
            let mut unread = bytes.as_slice();
            while !unread.is_empty() {
                client.read_tls(&mut unread).unwrap();
                client.process_new_packets()?;
            }
        }
        assert!(!client.is_handshaking() && !server.is_handshaking());
        Ok((client, server))
    }

    fn now() -> OffsetDateTime {
        OffsetDateTime::now_utc()
    }

    fn long_ago() -> OffsetDateTime {
        now() - Duration::days(60)
    }

    #[test]
    fn both_sides_of_a_handshake_learn_who_the_other_is() {
        let authority = TestAuthority::now("zhengzhou");
        let hub = authority.credentials("410100", now());
        let county = authority.credentials("410122", now());
        let (client, server) = handshake(
            client_config(&county).unwrap(),
            server_name(&hub.identity),
            server_config(&hub).unwrap(),
        )
        .unwrap();

        for (alpn, chain, expected) in [
            (client.alpn_protocol(), client.peer_certificates(), &hub),
            (server.alpn_protocol(), server.peer_certificates(), &county),
        ] {
            let peer = verified_peer(alpn, chain, &authority.federation).unwrap();
            assert_eq!(peer.identity(), &expected.identity);
            assert_eq!(peer.not_after(), expected.not_after().unwrap());
        }
        assert_eq!(client.protocol_version(), Some(ProtocolVersion::TLSv1_3));
        assert_eq!(
            client.negotiated_key_exchange_group().unwrap().name(),
            NamedGroup::X25519MLKEM768
        );
        // Our federation is part of the check.
        let other = FederationId::new("kaifeng").unwrap();
        assert!(matches!(
            verified_peer(server.alpn_protocol(), server.peer_certificates(), &other),
            Err(PeerRefused::OtherFederation { .. })
        ));
    }

    #[test]
    fn no_session_is_resumed() {
        let authority = TestAuthority::now("zhengzhou");
        let hub = authority.credentials("410100", now());
        let county = authority.credentials("410122", now());
        let client = Arc::new(client_config(&county).unwrap());
        let server = Arc::new(server_config(&hub).unwrap());
        for _ in 0..2 {
            let (client, server) = shake(&client, server_name(&hub.identity), &server).unwrap();
            assert_eq!(client.tls13_tickets_received(), 0);
            assert_eq!(client.handshake_kind(), Some(HandshakeKind::Full));
            assert_eq!(server.handshake_kind(), Some(HandshakeKind::Full));
        }
        // Even a client that would resume gets nothing to do it with.
        let mut keen = client_config(&county).unwrap();
        keen.resumption = Resumption::in_memory_sessions(8);
        let keen = Arc::new(keen);
        for _ in 0..2 {
            let (client, _) = shake(&keen, server_name(&hub.identity), &server).unwrap();
            assert_eq!(client.tls13_tickets_received(), 0);
            assert_eq!(client.handshake_kind(), Some(HandshakeKind::Full));
        }
    }

    #[test]
    fn certificates_of_another_authority_are_refused_on_both_sides() {
        let ours = TestAuthority::now("zhengzhou");
        let theirs = TestAuthority::now("zhengzhou");
        let hub = ours.credentials("410100", now());
        let stranger = theirs.credentials("410122", now());

        // The client refuses the server.
        let error = handshake(
            client_config(&stranger).unwrap(),
            server_name(&hub.identity),
            server_config(&hub).unwrap(),
        )
        .unwrap_err();
        let text = explain_tls(&error).unwrap();
        assert!(text.contains("not issued under our root CA"), "{error:?}: {text}");

        // The server refuses the client, which trusts the server's root.
        let mixed = Credentials { root: hub.root.clone(), ..stranger };
        let error = handshake(
            client_config(&mixed).unwrap(),
            server_name(&hub.identity),
            server_config(&hub).unwrap(),
        )
        .unwrap_err();
        let text = explain_tls(&error).unwrap();
        assert!(text.contains("not issued under our root CA"), "{error:?}: {text}");
    }

    #[test]
    fn expired_certificates_are_refused_on_both_sides_with_both_dates() {
        let authority = TestAuthority::at("zhengzhou", long_ago());
        let hub = authority.credentials("410100", now());
        let county = authority.credentials("410122", now());
        let old_hub = authority.credentials("410100", long_ago());
        let old_county = authority.credentials("410122", long_ago());
        let ended = date(old_hub.not_after().unwrap());
        for (client, server) in [(&county, &old_hub), (&old_county, &hub)] {
            let error = handshake(
                client_config(client).unwrap(),
                server_name(&server.identity),
                server_config(server).unwrap(),
            )
            .unwrap_err();
            let text = explain_tls(&error).unwrap();
            assert!(text.contains(&format!("expired on {}", &ended[..10])), "{error:?}: {text}");
            assert!(text.contains(&date(now())[..10]), "{text}");
        }
    }

    #[test]
    fn a_certificate_of_the_future_points_at_the_clocks() {
        let authority = TestAuthority::now("zhengzhou");
        let hub = authority.credentials("410100", now() + Duration::days(2));
        let county = authority.credentials("410122", now());
        let error = handshake(
            client_config(&county).unwrap(),
            server_name(&hub.identity),
            server_config(&hub).unwrap(),
        )
        .unwrap_err();
        let text = explain_tls(&error).unwrap();
        assert!(text.contains("clocks is wrong"), "{error:?}: {text}");
    }

    #[test]
    fn another_node_than_the_dialled_one_is_refused() {
        let authority = TestAuthority::now("zhengzhou");
        let other = authority.credentials("410123", now());
        let county = authority.credentials("410122", now());
        for dialled in ["410100", "-a"] {
            let error = handshake(
                client_config(&county).unwrap(),
                server_name(&identity("zhengzhou", dialled)),
                server_config(&other).unwrap(),
            )
            .unwrap_err();
            let text = explain_tls(&error).unwrap();
            assert!(text.contains("410123.zhengzhou.creditsync.internal"), "{error:?}: {text}");
        }
    }

    #[test]
    fn a_client_without_certificate_is_no_verified_peer() {
        let authority = TestAuthority::now("zhengzhou");
        let hub = authority.credentials("410100", now());
        let root = RootOfTrust::from_certificate(authority.root()).unwrap();
        let mut anonymous = join_client_config(&root).unwrap();
        anonymous.alpn_protocols = vec![ALPN.to_vec()];
        let (_, server) =
            handshake(anonymous, server_name(&hub.identity), server_config(&hub).unwrap()).unwrap();
        assert!(matches!(
            verified_peer(
                server.alpn_protocol(),
                server.peer_certificates(),
                &authority.federation
            ),
            Err(PeerRefused::NoCertificate)
        ));
    }

    #[test]
    fn joining_needs_no_certificate_but_the_token_s_root() {
        let authority = TestAuthority::now("zhengzhou");
        let hub = authority.credentials("410100", now());
        let root = RootOfTrust::from_certificate(authority.root()).unwrap();
        let (client, server) = handshake(
            join_client_config(&root).unwrap(),
            server_name(&hub.identity),
            server_config(&hub).unwrap(),
        )
        .unwrap();
        assert_eq!(client.alpn_protocol(), Some(ALPN_JOIN));
        assert_eq!(server.peer_certificates(), None);
        assert!(matches!(
            verified_peer(server.alpn_protocol(), None, &authority.federation),
            Err(PeerRefused::Protocol(_))
        ));
        // With a certificate the protocol still decides.
        assert!(matches!(
            verified_peer(Some(ALPN_JOIN), Some(&hub.chain), &authority.federation),
            Err(PeerRefused::Protocol(_))
        ));
        assert!(matches!(
            verified_peer(None, Some(&hub.chain), &authority.federation),
            Err(PeerRefused::Protocol(_))
        ));

        let other = TestAuthority::now("zhengzhou");
        let other_root = RootOfTrust::from_certificate(other.root()).unwrap();
        // The same name with another key, and another name with the same key.
        for root in [
            other_root.clone(),
            RootOfTrust { subject: root.subject.clone(), spki: other_root.spki },
        ] {
            let error = handshake(
                join_client_config(&root).unwrap(),
                server_name(&hub.identity),
                server_config(&hub).unwrap(),
            )
            .unwrap_err();
            let text = explain_tls(&error).unwrap();
            assert!(text.contains("not issued under our root CA"), "{error:?}: {text}");
        }
    }

    #[test]
    fn another_protocol_is_refused_in_the_handshake() {
        let authority = TestAuthority::now("zhengzhou");
        let hub = authority.credentials("410100", now());
        let mut config = client_config(&authority.credentials("410122", now())).unwrap();
        config.alpn_protocols = vec![b"h3".to_vec()];
        let error = handshake(config, server_name(&hub.identity), server_config(&hub).unwrap())
            .unwrap_err();
        assert!(explain_tls(&error).unwrap().contains("does not speak our protocol"), "{error:?}");
    }

    #[test]
    fn credentials_load_from_their_files_and_mismatches_are_named() {
        let authority = TestAuthority::now("zhengzhou");
        let (certs, keys) = authority.dirs();
        let county = identity("zhengzhou", "410122");
        let key = NodeKey::generate().unwrap();
        let csr = key.csr(&county).unwrap();
        let chain = authority.issue(&county, &csr, now(), Duration::days(30)).unwrap();
        key.save(&keys.join(NODE_KEY_FILE)).unwrap();
        save_chain(&certs.join(NODE_CHAIN_FILE), &chain).unwrap();

        let loaded = Credentials::load(&certs, &keys, &county).unwrap();
        assert_eq!(loaded.chain, chain);
        assert_eq!(&loaded.root, authority.root());
        server_config(&loaded).unwrap();
        client_config(&loaded).unwrap();
        assert!(!format!("{loaded:?}").contains("key"));

        let problem = || Credentials::load(&certs, &keys, &county).unwrap_err().to_string();
        let error = Credentials::load(&certs, &keys, &identity("zhengzhou", "410100"));
        assert!(error.unwrap_err().to_string().contains("but this node is"));

        // Without the issuing certificate the chain ends in the air.
        save_chain(&certs.join(NODE_CHAIN_FILE), &chain[..1]).unwrap();
        assert!(problem().contains("does not lead to root.pem"), "{}", problem());
        save_chain(&certs.join(NODE_CHAIN_FILE), &chain).unwrap();

        let other = TestAuthority::now("zhengzhou");
        fs::copy(other.dirs().0.join(ROOT_CERT_FILE), certs.join(ROOT_CERT_FILE)).unwrap();
        assert!(problem().contains("does not lead to root.pem"), "{}", problem());
        save_chain(&certs.join(ROOT_CERT_FILE), &[authority.root().clone()]).unwrap();

        fs::remove_file(keys.join(NODE_KEY_FILE)).unwrap();
        assert!(problem().contains("node.key"), "{}", problem());
        NodeKey::generate().unwrap().save(&keys.join(NODE_KEY_FILE)).unwrap();
        assert!(problem().contains("does not fit the certificate"), "{}", problem());
    }

    #[test]
    fn expired_credentials_still_load() {
        let authority = TestAuthority::at("zhengzhou", long_ago());
        let county = authority.credentials("410122", long_ago());
        assert!(county.not_after().unwrap() < now());
    }
}
