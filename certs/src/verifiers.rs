//! What rustls is given to judge and to sign with: its own verifiers, by a node's
//! roots, the cryptography that nodes use, and the names that they have.
//!
//! Not here: the TLS configurations that this goes into ([`crate::tls`]).

use std::sync::Arc;

use protocol::suite::{KeyExchange, Suite};
use rustls::{
    RootCertStore,
    client::WebPkiServerVerifier,
    crypto::{CryptoProvider, aws_lc_rs},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, DnsName, PrivateKeyDer, ServerName};

use crate::{CertError, identity::Identity};

/// A name that no node has: it is outside the zone of their names, and RFC 6761
/// keeps everybody else from having it.
const NOBODY: &str = "nobody.invalid";

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

/// Judges a listener's certificate by these roots.
pub(crate) fn server_verifier(
    roots: RootCertStore,
) -> Result<Arc<WebPkiServerVerifier>, CertError> {
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), judging())
        .build()
        .map_err(|error| CertError::Tls(error.to_string()))
}

/// Judges a dialler's certificate by these roots, if it shows one.
pub(crate) fn client_verifier(
    roots: RootCertStore,
) -> Result<Arc<dyn ClientCertVerifier>, CertError> {
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), judging())
        .allow_unauthenticated()
        .build()
        .map_err(|error| CertError::Tls(error.to_string()))
}

/// The chain and the key in the form that signs; refused if they do not fit.
pub(crate) fn certified_key(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<CertifiedKey>, CertError> {
    CertifiedKey::from_der(chain, key, &judging()).map(Arc::new).map_err(|error| {
        CertError::Tls(format!(
            "the private key does not fit the certificate ({error}); restore both from one backup"
        ))
    })
}

/// aws-lc-rs with the groups of a suite, with the post-quantum hybrid or without
/// it, whatever features other crates turn on.
pub(crate) fn provider(suite: Suite, post_quantum: bool) -> Arc<CryptoProvider> {
    use aws_lc_rs::kx_group::{SECP256R1, SECP384R1, X25519, X25519MLKEM768};
    let offered = |group: &&KeyExchange| post_quantum || **group != KeyExchange::X25519MlKem768;
    let groups = suite.key_exchange().iter().filter(offered).map(|group| match group {
        KeyExchange::X25519MlKem768 => X25519MLKEM768,
        KeyExchange::X25519 => X25519,
        KeyExchange::P256 => SECP256R1,
        KeyExchange::P384 => SECP384R1,
    });
    Arc::new(CryptoProvider { kx_groups: groups.collect(), ..aws_lc_rs::default_provider() })
}

/// What judges signatures of certificates: the same in all suites.
fn judging() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}
