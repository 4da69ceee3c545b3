//! The three TLS configurations of a node.
//!
//! Used by the daemon's network. Invariants: TLS 1.3 only; certificates are
//! judged by rustls' own verifiers; no session is ever resumed, because a
//! resumed one skips the check of the client's certificate.
//!
//! Enrolment shares the port with replication, so the server asks for a client
//! certificate without insisting on one: [`crate::verify::verified_peer`]
//! insists, for every connection whose protocol is [`ALPN`].
//!
//! Not here: what is shown and trusted ([`crate::credentials`]), and who the
//! other side turned out to be.

use std::sync::Arc;

use protocol::suite::Suite;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    client::{Resumption, WantsClientCert},
    server::{ClientHello, NoServerSessionStorage, ResolvesServerCert},
    sign::CertifiedKey,
    version::TLS13,
};

pub use crate::verifiers::server_name;
use crate::{
    CertError,
    credentials::Credentials,
    enrol::RootOfTrust,
    observe::{Failure, ObservedClients, ObservedServers, RefusalObserver},
    verifiers::{client_verifier, provider, server_verifier},
};

/// The protocol of replication: both sides show a certificate.
pub const ALPN: &[u8] = b"creditsync/1";
/// The protocol of enrolment: only the hub shows a certificate.
pub const ALPN_JOIN: &[u8] = b"creditsync-join/1";

/// What a dialler may choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TlsOptions {
    /// Whether the key exchange X25519MLKEM768 is offered. Its hello is larger
    /// than one packet, which some middleboxes drop. A listener always accepts
    /// it.
    pub post_quantum: bool,
    /// The federation's suite, which says in what groups keys are exchanged.
    pub suite: Suite,
}

impl TlsOptions {
    /// All that the suite has.
    pub fn of(suite: Suite) -> Self {
        Self { post_quantum: true, suite }
    }
}

/// The listening side, for replication and for enrolment.
///
/// Replication sees the certificate of `replication`, enrolment that of
/// `enrolment`, or the same if there is none: a hub that has its certificate
/// from a foreign PKI shows joiners one that leads to their token's root.
///
/// A client certificate is checked against `replication`'s roots if one is
/// shown, and not missed if none is: pass every connection through
/// [`crate::verify::verified_peer`], except those of [`ALPN_JOIN`].
pub fn server_config(
    suite: Suite,
    replication: &Credentials,
    enrolment: Option<&Credentials>,
    observer: Arc<dyn RefusalObserver>,
) -> Result<ServerConfig, CertError> {
    let verifier = ObservedClients { inner: client_verifier(replication.root_store()?)?, observer };
    let resolver = ByProtocol {
        replication: replication.certified_key()?,
        enrolment: enrolment.map(Credentials::certified_key).transpose()?,
    };
    let mut config = ServerConfig::builder_with_provider(provider(suite, true))
        .with_protocol_versions(&[&TLS13])
        .map_err(tls)?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = vec![ALPN.to_vec(), ALPN_JOIN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(config)
}

/// The dialling side of replication, and where to look when it fails.
pub fn client_config(
    credentials: &Credentials,
    options: TlsOptions,
) -> Result<(ClientConfig, Failure), CertError> {
    let failure = Failure::new(Some(credentials.facts()?));
    let config = client_builder(credentials.root_store()?, options, &failure)?
        .with_client_auth_cert(credentials.chain.clone(), credentials.key.clone_key())
        .map_err(tls)?;
    Ok((finished(config, ALPN), failure))
}

/// The dialling side of enrolment: trusts only the token's root.
pub fn join_client_config(
    root: &RootOfTrust,
    options: TlsOptions,
) -> Result<(ClientConfig, Failure), CertError> {
    let failure = Failure::new(None);
    let roots = RootCertStore { roots: vec![root.trust_anchor()] };
    let config = client_builder(roots, options, &failure)?.with_no_client_auth();
    Ok((finished(config, ALPN_JOIN), failure))
}

fn client_builder(
    roots: RootCertStore,
    options: TlsOptions,
    failure: &Failure,
) -> Result<rustls::ConfigBuilder<ClientConfig, WantsClientCert>, CertError> {
    let inner = server_verifier(roots)?;
    let verifier = ObservedServers { inner, failure: failure.clone() };
    Ok(ClientConfig::builder_with_provider(provider(options.suite, options.post_quantum))
        .with_protocol_versions(&[&TLS13])
        .map_err(tls)?
        // "Dangerous" is any verifier of one's own; this one lets rustls' decide.
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier)))
}

fn finished(mut config: ClientConfig, alpn: &[u8]) -> ClientConfig {
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config
}

/// Chooses the certificate by the protocol that rustls is about to choose: the
/// first of ours that the client offers.
#[derive(Debug)]
struct ByProtocol {
    replication: Arc<CertifiedKey>,
    enrolment: Option<Arc<CertifiedKey>>,
}

impl ResolvesServerCert for ByProtocol {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let offers = |wanted: &[u8]| {
            hello.alpn().is_some_and(|mut offered| offered.any(|protocol| protocol == wanted))
        };
        let joining = offers(ALPN_JOIN) && !offers(ALPN);
        let chosen = self.enrolment.as_ref().filter(|_| joining).unwrap_or(&self.replication);
        Some(chosen.clone())
    }
}

fn tls(error: rustls::Error) -> CertError {
    CertError::Tls(error.to_string())
}

#[cfg(test)]
mod tests;
