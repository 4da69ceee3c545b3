//! What a node shows and what it trusts.
//!
//! Used by the daemon at its start, when it renews, and by its network.
//! Invariants: [`Credentials`] fit together: key, chain, roots and identity; and
//! whenever a renewal is stopped, the files are a pair that loads, the old one or
//! the new one.
//!
//! Not here: certificates of a foreign PKI ([`crate::pki`]), and when to renew
//! ([`crate::rotate`]).

use std::{fmt, path::Path, sync::Arc};

use rustls::{RootCertStore, client::danger::ServerCertVerifier as _, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use time::OffsetDateTime;

use crate::{
    CertError,
    authority::NodeKey,
    bundle,
    error::date,
    explain::{Parties, explain_tls},
    fault,
    identity::{self, CertificateFacts, Identity},
    keyfile::{KeyDir, NODE_KEY_FILE},
    observe::moments_within,
    pem,
    verifiers::{certified_key, client_verifier, server_name, server_verifier},
};

/// A node's certificate and those that lead to a root, in its `certs/`.
pub const NODE_CHAIN_FILE: &str = "node.pem";

/// What a node shows and what it trusts.
pub struct Credentials {
    /// The node's certificate, the issuing one, and more that lead to roots.
    pub chain: Vec<CertificateDer<'static>>,
    /// The key of the first certificate.
    pub key: PrivateKeyDer<'static>,
    /// The roots that peers' certificates have to lead to.
    pub roots: Vec<CertificateDer<'static>>,
    /// Whose they are.
    pub identity: Identity,
}

impl Credentials {
    /// Checks that the parts belong together: the key fits the certificate, the
    /// chain leads to one of the roots, and it is `identity`'s.
    ///
    /// Whether the certificate is valid *now* is not checked: an expired one can
    /// still be shown and reported; see [`Credentials::facts`].
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        roots: Vec<CertificateDer<'static>>,
        identity: Identity,
    ) -> Result<Self, CertError> {
        let credentials = Self { chain, key, roots, identity };
        credentials.check()?;
        Ok(credentials)
    }

    /// Reads `node.pem` and `root.pem` in `dir_certs` and `node.key` in `keys`,
    /// and checks them as [`Credentials::new`] does.
    ///
    /// Where the certificate fits `node.key.next` instead, an [`install`] was
    /// stopped between its two steps: it is finished.
    pub fn load(dir_certs: &Path, keys: &KeyDir, identity: &Identity) -> Result<Self, CertError> {
        let path = dir_certs.join(NODE_CHAIN_FILE);
        let chain = pem::load_chain(&path)?;
        let roots = bundle::load_bundle(dir_certs)?;
        let wrong = |error: CertError| CertError::content(&path, error.to_string());
        let leaf = chain.first().expect("a chain that was loaded has a certificate");
        let public = identity::parse(leaf).map_err(wrong)?.public_key().raw.to_vec();
        let mut key = keys.load::<NodeKey>(NODE_KEY_FILE);
        if !key.as_ref().is_ok_and(|key| key.public_key_info() == public) {
            match keys.load_next::<NodeKey>(NODE_KEY_FILE) {
                Ok(Some(next)) if next.public_key_info() == public => {
                    keys.promote_next(NODE_KEY_FILE)?;
                    key = Ok(next);
                }
                // The key in use is the one to complain about.
                _ => {}
            }
        }
        Self::new(chain, key?.private_key(), roots, identity.clone()).map_err(wrong)
    }

    /// What the node's certificate says.
    pub fn facts(&self) -> Result<CertificateFacts, CertError> {
        identity::facts(self.leaf()?)
    }

    /// The last moment of the node's certificate.
    pub fn not_after(&self) -> Result<OffsetDateTime, CertError> {
        Ok(self.facts()?.not_after)
    }

    /// The chain and the key in the form that signs; refused if they do not fit.
    pub(crate) fn certified_key(&self) -> Result<Arc<CertifiedKey>, CertError> {
        certified_key(self.chain.clone(), self.key.clone_key())
    }

    /// The roots in the form that rustls trusts.
    pub(crate) fn root_store(&self) -> Result<RootCertStore, CertError> {
        let mut store = RootCertStore::empty();
        for root in &self.roots {
            store
                .add(root.clone())
                .map_err(|error| CertError::NotACertificate(error.to_string()))?;
        }
        Ok(store)
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
        self.certified_key()?;
        self.check_order()?;

        // As both sides of a connection will look at it, at any moment when it
        // can be valid: the clock is no part of whether the parts fit.
        let (facts, above) = (self.facts()?, &self.chain[1..]);
        let as_server = server_verifier(self.root_store()?)?;
        let as_client = client_verifier(self.root_store()?)?;
        let name = server_name(&self.identity);
        let mut last = rustls::Error::InvalidCertificate(rustls::CertificateError::Expired);
        for moment in moments_within(&facts, above) {
            let judged = as_server
                .verify_server_cert(leaf, above, &name, &[], moment)
                .and_then(|_| as_client.verify_client_cert(leaf, above, moment));
            match judged {
                Ok(_) => return Ok(()),
                Err(error) => last = error,
            }
        }
        let parties = Parties { peer: Some(&facts), own: None, now: facts.not_after };
        Err(CertError::Tls(format!(
            "the chain of certificates does not lead to a trusted root ({}): {}",
            bundle::ROOTS_FILE,
            explain_tls(&last, &parties).map_or_else(|| last.to_string(), |problem| problem.text)
        )))
    }

    /// Peers refuse a chain whose second certificate is not the issuer of the first,
    /// and some of them one that holds anything else than certificates.
    fn check_order(&self) -> Result<(), CertError> {
        let chain: Vec<_> = self.chain.iter().map(identity::parse).collect::<Result<_, _>>()?;
        match &chain[..] {
            [leaf, second, ..] if leaf.issuer().as_raw() != second.subject().as_raw() => {
                Err(CertError::Tls(
                    "the second certificate of the chain is not the issuer of the first; put them \
                     in order: the node's own, then the CA that issued it"
                        .into(),
                ))
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({}, {} roots)", self.identity, self.roots.len())
    }
}

/// Puts a renewed certificate in place, with the key that waits for it in
/// `node.key.next`; answers what is to be shown from now on.
///
/// Refused, and nothing changed: a chain that does not fit that key, the trusted
/// roots or `identity`, or that is not valid at `now`. Stopped anywhere it
/// leaves what [`Credentials::load`] loads: the certificate is written first, and
/// its key waits beside the old one until it takes its place.
pub fn install(
    dir_certs: &Path,
    keys: &KeyDir,
    identity: &Identity,
    chain: Vec<CertificateDer<'static>>,
    now: OffsetDateTime,
) -> Result<Credentials, CertError> {
    let Some(key) = keys.load_next::<NodeKey>(NODE_KEY_FILE)? else {
        return Err(CertError::content(
            &keys.file(NODE_KEY_FILE),
            "has no successor waiting beside it, so this certificate is for a key that is lost; \
             renew again with a new key",
        ));
    };
    let roots = bundle::load_bundle(dir_certs)?;
    let credentials = Credentials::new(chain, key.private_key(), roots, identity.clone())?;
    check_valid(&credentials, now)?;
    pem::save_chain(&dir_certs.join(NODE_CHAIN_FILE), &credentials.chain)?;
    fault::point("node.chain-written");
    keys.promote_next(NODE_KEY_FILE)?;
    Ok(credentials)
}

/// As the other side will judge it: every certificate of its path at `now`.
fn check_valid(credentials: &Credentials, now: OffsetDateTime) -> Result<(), CertError> {
    let facts = credentials.facts()?;
    let (not_before, not_after) = (facts.not_before, facts.not_after);
    if now < not_before || now >= not_after {
        return Err(CertError::NotValidNow { not_before, not_after, now });
    }
    let seconds = u64::try_from(now.unix_timestamp()).unwrap_or(0);
    let moment =
        rustls_pki_types::UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
    client_verifier(credentials.root_store()?)?
        .verify_client_cert(credentials.leaf()?, &credentials.chain[1..], moment)
        .map(|_| ())
        .map_err(|error| {
            let parties = Parties { peer: Some(&facts), own: None, now };
            CertError::Tls(format!(
                "the new certificate is not installed, because nobody would accept it at {}: {}",
                date(now),
                explain_tls(&error, &parties)
                    .map_or_else(|| error.to_string(), |problem| problem.text)
            ))
        })
}

#[cfg(test)]
mod tests;
