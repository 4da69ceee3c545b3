//! Verifiers around rustls' own: they let those decide, and remember why a
//! certificate was refused.
//!
//! Used by [`crate::tls`]. Invariant: what rustls' verifier refuses stays
//! refused. Nothing is accepted here; what is handed on to rustls' verifier is
//! only ever less than the peer showed: of several CAs with the name of the
//! second certificate the others are left out, so that the accepted path leads
//! through that one, or through a trusted root of its name.
//!
//! Not here: words ([`crate::explain`]), and what a server does about a refusal.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use time::OffsetDateTime;

use crate::{
    explain::{CertificateProblem, Parties, ProblemKind, explain_tls, moment},
    identity::{self, CertificateFacts, Identity},
};

/// Is told by a server which nodes it could not let in because of dates.
pub trait RefusalObserver: Send + Sync {
    /// A client showed a genuine certificate of `identity` that has ended or not
    /// begun. Called within the handshake: must not block.
    ///
    /// The certificate is genuine, but who showed it has not proved to hold its
    /// key: it is news about the node, not from it.
    fn refused(&self, identity: &Identity, problem: &CertificateProblem);
}

/// Observes nothing.
impl RefusalObserver for () {
    fn refused(&self, _: &Identity, _: &CertificateProblem) {}
}

/// Judges clients as `inner` does, and tells of those whose dates are wrong.
pub(crate) struct ObservedClients {
    pub(crate) inner: Arc<dyn ClientCertVerifier>,
    pub(crate) observer: Arc<dyn RefusalObserver>,
}

impl ObservedClients {
    fn observe(
        &self,
        error: &Error,
        leaf: &CertificateDer<'_>,
        above: &[CertificateDer<'_>],
        now: UnixTime,
    ) {
        let Error::InvalidCertificate(
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. },
        ) = error
        else {
            return;
        };
        let Ok(facts) = identity::facts(leaf) else { return };
        let Some(identity) = &facts.identity else { return };
        // The order of checks is the verifier's own affair: dates may be
        // looked at before signatures, so anybody could make this one up.
        let genuine = moments_within(&facts, above)
            .any(|then| self.inner.verify_client_cert(leaf, above, then).is_ok());
        if !genuine {
            return;
        }
        let parties = Parties { peer: Some(&facts), own: None, now: moment(now) };
        if let Some(problem) = explain_tls(error, &parties) {
            self.observer.refused(identity, &problem);
        }
    }
}

impl fmt::Debug for ObservedClients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObservedClients({:?})", self.inner)
    }
}

impl ClientCertVerifier for ObservedClients {
    fn offer_client_auth(&self) -> bool {
        self.inner.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        above: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let above = without_namesakes(above);
        let judged = self.inner.verify_client_cert(leaf, &above, now);
        if let Err(error) = &judged {
            self.observe(error, leaf, &above, now);
        }
        judged
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// Why the last handshake of a client configuration failed here. QUIC hands on
/// a text only; here the error is kept as it was.
///
/// One for each configuration, and meaningful while that makes one connection
/// at a time.
#[derive(Clone)]
pub struct Failure {
    kept: Arc<Mutex<Option<Kept>>>,
    own: Option<Arc<CertificateFacts>>,
}

#[derive(Clone)]
struct Kept {
    error: Error,
    peer: Option<CertificateFacts>,
}

impl Failure {
    pub(crate) fn new(own: Option<CertificateFacts>) -> Self {
        Self { kept: Arc::default(), own: own.map(Arc::new) }
    }

    /// Our verifier's error; none if it accepted the last certificate, or saw
    /// none.
    pub fn error(&self) -> Option<Error> {
        self.kept().as_ref().map(|kept| kept.error.clone())
    }

    /// The same in words.
    pub fn problem(&self, now: OffsetDateTime) -> Option<CertificateProblem> {
        let kept = self.kept().clone()?;
        let parties = Parties { peer: kept.peer.as_ref(), own: self.own.as_deref(), now };
        Some(explain_tls(&kept.error, &parties).unwrap_or_else(|| CertificateProblem {
            kind: ProblemKind::Other,
            text: kept.error.to_string(),
            validity: kept.peer.as_ref().map(|peer| (peer.not_before, peer.not_after)),
        }))
    }

    /// What the other side's alert means for the certificate that we showed;
    /// none where the TLS library's own text is as good.
    pub fn explain_alert(&self, alert: u8, now: OffsetDateTime) -> Option<CertificateProblem> {
        let parties = Parties { peer: None, own: self.own.as_deref(), now };
        explain_tls(&Error::AlertReceived(alert.into()), &parties)
    }

    fn keep(&self, kept: Option<Kept>) {
        *self.kept() = kept;
    }

    fn kept(&self) -> MutexGuard<'_, Option<Kept>> {
        // Whoever panicked has left a whole value.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Failure({:?})", self.error())
    }
}

/// Judges servers as `inner` does, and keeps its last error.
#[derive(Debug)]
pub(crate) struct ObservedServers {
    pub(crate) inner: Arc<dyn ServerCertVerifier>,
    pub(crate) failure: Failure,
}

impl ObservedServers {
    fn observed<T>(&self, judged: Result<T, Error>, leaf: &CertificateDer<'_>) -> Result<T, Error> {
        let kept = judged
            .as_ref()
            .err()
            .map(|error| Kept { error: error.clone(), peer: identity::facts(leaf).ok() });
        self.failure.keep(kept);
        judged
    }
}

impl ServerCertVerifier for ObservedServers {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        above: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let above = without_namesakes(above);
        let judged = self.inner.verify_server_cert(leaf, &above, server_name, ocsp_response, now);
        self.observed(judged, leaf)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.observed(self.inner.verify_tls12_signature(message, cert, dss), cert)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.observed(self.inner.verify_tls13_signature(message, cert, dss), cert)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// The certificates above a leaf without the later ones that bear the name of
/// the first.
///
/// [`crate::verify::VerifiedPeer::issuer`] names the first, so nobody may slip
/// the true issuer, which may be revoked, in behind another one.
pub(crate) fn without_namesakes<'a>(above: &[CertificateDer<'a>]) -> Vec<CertificateDer<'a>> {
    let subject = |cert: &CertificateDer<'_>| {
        identity::parse(cert).map(|parsed| parsed.subject().as_raw().to_vec()).ok()
    };
    let Some((first, rest)) = above.split_first() else { return Vec::new() };
    let name = subject(first);
    let others = rest.iter().filter(|cert| {
        let other = subject(cert);
        other.is_some() && other != name
    });
    std::iter::once(first).chain(others).cloned().collect()
}

/// Moments of a certificate's own life at which it may have been valid together
/// with those above it: the clock is no part of whether they belong together.
///
/// A chain may also hold certificates that no path needs, so there is more than
/// one.
pub(crate) fn moments_within(
    leaf: &CertificateFacts,
    above: &[CertificateDer<'_>],
) -> impl Iterator<Item = UnixTime> {
    let (begin, end) = (leaf.not_before.unix_timestamp(), leaf.not_after.unix_timestamp());
    let (mut latest_begin, mut earliest_end) = (begin, end);
    for facts in above.iter().filter_map(|cert| identity::facts(cert).ok()) {
        latest_begin = latest_begin.max(facts.not_before.unix_timestamp());
        earliest_end = earliest_end.min(facts.not_after.unix_timestamp());
    }
    let mut moments = vec![end, earliest_end, latest_begin];
    moments.dedup();
    moments
        .into_iter()
        .filter(move |moment| (begin..=end).contains(moment))
        .filter_map(|moment| u64::try_from(moment).ok())
        .map(|moment| UnixTime::since_unix_epoch(std::time::Duration::from_secs(moment)))
}
