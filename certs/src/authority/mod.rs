//! The federation's own certificate authority: issuing certificates to nodes.
//!
//! `init` makes an authority and the hub keeps it; members only use [`NodeKey`].
//! Invariants: a leaf certificate holds nothing from a request but its public
//! key, and never outlives the certificate that issued it; the root key is not
//! needed, and never in memory, while certificates are issued.
//!
//! Not here: when to renew, and whether a node may have a certificate at all.

mod generations;
mod node_key;

use std::fmt;

use protocol::id::FederationId;
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyUsagePurpose, PublicKeyData as _, SanType,
    SerialNumber,
};
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer};
use time::{Duration, OffsetDateTime};

pub use self::{
    generations::{CaDirs, CaRole, ISSUING_LIFETIME, ROOT_LIFETIME, cross_cert_file},
    node_key::NodeKey,
};
use crate::{
    CertError,
    identity::{self, CertificateFacts, Identity},
};

/// How far certificates are dated back at most, for nodes whose clock is slow.
const BACKDATE_MAX: Duration = Duration::minutes(5);

/// How far a certificate is dated back: a tenth of its life at most, so that one
/// of seconds is not half over when it is issued.
fn backdate(lifetime: Duration) -> Duration {
    BACKDATE_MAX.min(lifetime / 10)
}

/// How long the first CAs live.
#[derive(Debug, Clone, Copy)]
pub struct Lifetimes {
    /// The root.
    pub root: Duration,
    /// The issuing CA; it ends with the root at the latest.
    pub issuing: Duration,
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self { root: ROOT_LIFETIME, issuing: ISSUING_LIFETIME }
    }
}

/// Which CAs issue, and what is shown with what they issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerChoice {
    /// The issuing CA.
    pub issuing: u32,
    /// The root that issued it.
    pub root: u32,
    /// Older roots whose certificates of that root are shown too, for nodes that
    /// do not trust it yet.
    pub cross_by: Vec<u32>,
}

impl Default for IssuerChoice {
    /// The first generation.
    fn default() -> Self {
        Self { issuing: 1, root: 1, cross_by: Vec::new() }
    }
}

/// An issuing CA with its key, and the certificates that lead to its roots.
pub struct Authority {
    dirs: CaDirs,
    choice: IssuerChoice,
    federation: FederationId,
    root: CertificateDer<'static>,
    /// The issuing certificate, and those of its root by other roots.
    above: Vec<CertificateDer<'static>>,
    key: NodeKey,
    validity: CertificateFacts,
}

impl Authority {
    /// Makes the first root and the first issuing CA, as [`CaDirs::create_root`]
    /// and [`CaDirs::create_issuing`] do, and opens them.
    pub fn create(
        dirs: &CaDirs,
        federation: &FederationId,
        now: OffsetDateTime,
        lifetimes: &Lifetimes,
    ) -> Result<Self, CertError> {
        dirs.create_root(federation, 1, now, lifetimes.root)?;
        dirs.create_issuing(federation, 1, 1, now, lifetimes.issuing)?;
        Self::open(dirs, &IssuerChoice::default())
    }

    /// Reads what `choice` names and checks that it fits together; root keys may
    /// be absent.
    pub fn open(dirs: &CaDirs, choice: &IssuerChoice) -> Result<Self, CertError> {
        let root = dirs.root(choice.root)?;
        let issuing = dirs.issuing(choice.issuing)?;
        let issuing_path = dirs.cert_path(CaRole::Issuing, choice.issuing);
        let root_path = dirs.cert_path(CaRole::Root, choice.root);
        generations::check_issued(&issuing_path, &issuing, &root_path, &root)?;
        let key = dirs.issuing_key(choice.issuing)?;
        let federation = generations::federation_of(&issuing_path, &issuing)?;
        let validity = identity::facts(&issuing)?;
        let mut above = vec![issuing];
        for &old in &choice.cross_by {
            above.push(dirs.cross(old, choice.root)?);
        }
        Ok(Self {
            dirs: dirs.clone(),
            choice: choice.clone(),
            federation,
            root,
            above,
            key,
            validity,
        })
    }

    /// Issues a certificate for `identity` with the public key of `csr_der`;
    /// answers it, the issuing certificate, and those of its root by other roots.
    ///
    /// The request must be signed with its own key and ask for exactly the two
    /// names of `identity`; whatever else it asks for is not granted. The
    /// certificate ends after `lifetime`, or with the issuing certificate if that
    /// is earlier.
    pub fn issue(
        &self,
        identity: &Identity,
        csr_der: &[u8],
        now: OffsetDateTime,
        lifetime: Duration,
    ) -> Result<Vec<CertificateDer<'static>>, CertError> {
        identity.check()?;
        if identity.federation != self.federation {
            return Err(CertError::OtherFederation {
                ours: self.federation.clone(),
                theirs: identity.federation.clone(),
            });
        }
        self.check_valid(now)?;
        let refused = |problem: &str| CertError::Request {
            identity: identity.uri(),
            problem: problem.to_owned(),
        };
        if lifetime <= Duration::ZERO {
            return Err(refused("its lifetime is not positive"));
        }
        let request =
            CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(csr_der))
                .map_err(|error| refused(&error.to_string()))?;
        let names = sans(identity).map_err(CertError::crypto("write a certificate's names"))?;
        let asked = &request.params.subject_alt_names;
        if asked.len() != names.len() || !names.iter().all(|name| asked.contains(name)) {
            return Err(refused(
                "it must ask for the node's URI and DNS names, and for no other name",
            ));
        }
        // 65 bytes: an uncompressed point. With another length it is a key of
        // another curve that was signed with the same kind of hash.
        let key = &request.public_key;
        if key.algorithm() != node_key::algorithm() || key.der_bytes().len() != 65 {
            return Err(refused("its key is not ECDSA P-256"));
        }

        let mut params = CertificateParams::default();
        params.distinguished_name = name(identity.node.as_str(), &identity.federation);
        params.subject_alt_names = names;
        params.not_after = self.ends(now, lifetime);
        params.not_before = self.begins(now, lifetime);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(serial_number()?);
        let failed = || CertError::crypto("issue a certificate");
        let issuer = Issuer::from_ca_cert_der(self.issuing(), self.key.pair()).map_err(failed())?;
        let leaf = params.signed_by(key, &issuer).map_err(failed())?;
        Ok([&[leaf.into()], self.above.as_slice()].concat())
    }

    /// Whether it can issue anything at `now`.
    pub fn check_valid(&self, now: OffsetDateTime) -> Result<(), CertError> {
        let (not_before, not_after) = (self.validity.not_before, self.validity.not_after);
        if now < not_before || now >= not_after {
            let path = self.dirs.cert_path(CaRole::Issuing, self.choice.issuing);
            return Err(CertError::IssuerNotValid { path, not_before, not_after, now });
        }
        Ok(())
    }

    /// When a certificate of this `lifetime` begins that is issued `now`; it has that in
    /// whole seconds.
    pub fn begins(&self, now: OffsetDateTime, lifetime: Duration) -> OffsetDateTime {
        now - backdate(self.ends(now, lifetime) - now)
    }

    fn ends(&self, now: OffsetDateTime, lifetime: Duration) -> OffsetDateTime {
        (now + lifetime).min(self.validity.not_after)
    }

    /// The federation that it issues for.
    pub fn federation(&self) -> &FederationId {
        &self.federation
    }

    /// Where it was opened; signing anchors and the next generation start there.
    pub fn dirs(&self) -> &CaDirs {
        &self.dirs
    }

    /// The numbers in use.
    pub fn choice(&self) -> &IssuerChoice {
        &self.choice
    }

    /// The root certificate.
    pub fn root(&self) -> &CertificateDer<'static> {
        &self.root
    }

    /// The issuing certificate.
    pub fn issuing(&self) -> &CertificateDer<'static> {
        // `open` put it there.
        &self.above[0]
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authority({}, {:?})", self.federation, self.choice)
    }
}

fn name(common_name: &str, federation: &FederationId) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, federation.as_str());
    name.push(DnType::CommonName, common_name);
    name
}

fn sans(identity: &Identity) -> Result<Vec<SanType>, rcgen::Error> {
    Ok(vec![
        SanType::URI(identity.uri().try_into()?),
        SanType::DnsName(identity.dns_name().try_into()?),
    ])
}

/// 16 random bytes, positive and of full length (RFC 5280, 4.1.2.2: at most 20
/// octets and not negative).
fn serial_number() -> Result<SerialNumber, CertError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(CertError::crypto("draw a serial number"))?;
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

#[cfg(test)]
pub(crate) mod tests;
#[cfg(test)]
mod tests_generations;
