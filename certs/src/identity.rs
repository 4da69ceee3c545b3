//! Who a certificate is for.
//!
//! Used wherever a certificate is issued, loaded or shown. Invariant: an
//! [`Identity`] read from a certificate stood there twice, as a URI name and as
//! the matching DNS name, and no other node's name stood beside it. The DNS name
//! is there so that rustls' standard verifiers do the name check.
//!
//! Not here: whether a certificate can be trusted; that is [`crate::verify`].

use std::fmt;

use protocol::id::{FederationId, NodeId};
use rustls_pki_types::{CertificateDer, DnsName};
use time::OffsetDateTime;
use x509_parser::{
    certificate::X509Certificate,
    extensions::{GeneralName, ParsedExtension},
    prelude::FromDer as _,
    public_key::PublicKey,
};

use crate::{CertError, error::IdentityProblem};

/// The zone of every node's DNS name. `.internal` is reserved for private use
/// (ICANN, 2024), so no public CA vouches for it.
const DNS_ZONE: &str = "creditsync.internal";

/// A node in its federation.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    /// The trust domain.
    pub federation: FederationId,
    /// The node.
    pub node: NodeId,
}

impl Identity {
    /// The identity of `node` in `federation`.
    pub fn new(federation: &FederationId, node: &NodeId) -> Self {
        Self { federation: federation.clone(), node: node.clone() }
    }

    /// `spiffe://FEDERATION/node/ID`.
    pub fn uri(&self) -> String {
        format!("spiffe://{}/node/{}", self.federation, self.node)
    }

    /// `ID.FEDERATION.creditsync.internal`.
    pub fn dns_name(&self) -> String {
        format!("{}.{}.{DNS_ZONE}", self.node, self.federation)
    }

    /// Reads [`Identity::uri`] back; nothing else is accepted.
    pub fn parse_uri(uri: &str) -> Option<Self> {
        let (federation, node) = uri.strip_prefix("spiffe://")?.split_once("/node/")?;
        Some(Self {
            federation: FederationId::new(federation).ok()?,
            node: NodeId::new(node).ok()?,
        })
    }

    /// Refuses names that are ours but not DNS labels: those that begin or end
    /// with a hyphen.
    pub fn check(&self) -> Result<(), CertError> {
        match DnsName::try_from(self.dns_name()) {
            Ok(_) => Ok(()),
            Err(_) => Err(CertError::NotADnsName(self.dns_name())),
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri())
    }
}

/// What a certificate says, for `cert show` and for messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFacts {
    /// Whose it is; none for a CA, or where a name is missing.
    pub identity: Option<Identity>,
    /// The subject's distinguished name.
    pub subject: String,
    /// The issuer's distinguished name.
    pub issuer: String,
    /// The serial number, lower-case hexadecimal.
    pub serial_hex: String,
    /// The first moment of its validity.
    pub not_before: OffsetDateTime,
    /// The last moment of its validity.
    pub not_after: OffsetDateTime,
    /// Its key's kind: "ECDSA P-256", "RSA 2048", "Ed25519".
    pub key_algorithm: String,
    /// Whether it may issue certificates.
    pub is_ca: bool,
}

/// The public key of a certificate, as its DER SubjectPublicKeyInfo.
pub fn public_key_of(cert: &CertificateDer<'_>) -> Result<Vec<u8>, CertError> {
    Ok(parse(cert)?.public_key().raw.to_vec())
}

/// Reads the identity out of a certificate, without judging who signed it.
pub fn identity_of(cert: &CertificateDer<'_>) -> Result<Identity, CertError> {
    let parsed = parse(cert)?;
    identity_in(&parsed)
        .map_err(|problem| CertError::Identity { subject: parsed.subject().to_string(), problem })
}

/// Reads what a certificate says, without judging who signed it.
pub fn facts(cert: &CertificateDer<'_>) -> Result<CertificateFacts, CertError> {
    let parsed = parse(cert)?;
    let moment = |time: x509_parser::time::ASN1Time| {
        OffsetDateTime::from_unix_timestamp(time.timestamp())
            .map_err(|_| CertError::NotACertificate("a date is out of range".into()))
    };
    Ok(CertificateFacts {
        identity: identity_in(&parsed).ok(),
        subject: parsed.subject().to_string(),
        issuer: parsed.issuer().to_string(),
        serial_hex: serial_hex(parsed.raw_serial()),
        not_before: moment(parsed.validity().not_before)?,
        not_after: moment(parsed.validity().not_after)?,
        key_algorithm: key_algorithm(&parsed),
        is_ca: parsed.is_ca(),
    })
}

/// A serial number as a number, without the octet that DER puts before one whose
/// first bit is set: other tools print it without, and it is from them that
/// administrators of other PKIs know what to revoke.
fn serial_hex(octets: &[u8]) -> String {
    let zeros = octets.iter().take_while(|octet| **octet == 0).count();
    let digits = &octets[zeros.min(octets.len().saturating_sub(1))..];
    protocol::hex::encode(digits)
}

/// Whether `issuer`'s name and key stand behind `cert`: the names are equal byte
/// by byte, and the signature verifies.
pub(crate) fn is_issued_by(
    cert: &CertificateDer<'_>,
    issuer: &CertificateDer<'_>,
) -> Result<bool, CertError> {
    let (cert, issuer) = (parse(cert)?, parse(issuer)?);
    Ok(cert.issuer().as_raw() == issuer.subject().as_raw()
        && cert.verify_signature(Some(issuer.public_key())).is_ok())
}

/// Whether `cross` is a CA certificate by `old_root` for exactly the name and
/// the key of `new_root`.
pub(crate) fn vouches(
    cross: &CertificateDer<'_>,
    old_root: &CertificateDer<'_>,
    new_root: &CertificateDer<'_>,
) -> Result<bool, CertError> {
    let (parsed, new) = (parse(cross)?, parse(new_root)?);
    Ok(parsed.is_ca()
        && parsed.subject().as_raw() == new.subject().as_raw()
        && parsed.public_key().raw == new.public_key().raw
        && is_issued_by(cross, old_root)?)
}

/// The key's kind in an administrator's words.
fn key_algorithm(cert: &X509Certificate<'_>) -> String {
    let info = cert.public_key();
    let algorithm = info.algorithm.algorithm.to_id_string();
    // RFC 8017, A.1; RFC 5480, 2.1.1; RFC 8410, 3.
    match algorithm.as_str() {
        "1.2.840.113549.1.1.1" => match info.parsed() {
            Ok(PublicKey::RSA(key)) => format!("RSA {}", key.key_size()),
            _ => "RSA".to_owned(),
        },
        "1.2.840.10045.2.1" => {
            let curve = info.algorithm.parameters.as_ref().and_then(|any| any.as_oid().ok());
            match curve.map(|oid| oid.to_id_string()).as_deref() {
                Some("1.2.840.10045.3.1.7") => "ECDSA P-256".to_owned(),
                Some("1.3.132.0.34") => "ECDSA P-384".to_owned(),
                Some("1.3.132.0.35") => "ECDSA P-521".to_owned(),
                Some(other) => format!("ECDSA {other}"),
                None => "ECDSA".to_owned(),
            }
        }
        "1.3.101.112" => "Ed25519".to_owned(),
        other => other.to_owned(),
    }
}

/// Parses a certificate and refuses bytes behind it.
pub(crate) fn parse<'a>(cert: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, CertError> {
    match X509Certificate::from_der(cert) {
        Ok(([], parsed)) => Ok(parsed),
        Ok(_) => Err(CertError::NotACertificate("bytes are left over at the end".into())),
        Err(error) => Err(CertError::NotACertificate(error.to_string())),
    }
}

fn identity_in(cert: &X509Certificate<'_>) -> Result<Identity, IdentityProblem> {
    let mut identities = Vec::new();
    let mut dns_names = Vec::new();
    for extension in cert.extensions() {
        let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension() else {
            continue;
        };
        for name in &names.general_names {
            match name {
                GeneralName::URI(uri) => identities.extend(Identity::parse_uri(uri)),
                GeneralName::DNSName(name) => dns_names.push(*name),
                _ => {}
            }
        }
    }
    let identity = match identities.as_slice() {
        [] => return Err(IdentityProblem::NoUri),
        [identity] => identity.clone(),
        several => {
            let uris: Vec<_> = several.iter().map(Identity::uri).collect();
            return Err(IdentityProblem::SeveralUris(uris.join(", ")));
        }
    };
    let expected = identity.dns_name();
    if !dns_names.iter().any(|name| name.eq_ignore_ascii_case(&expected)) {
        return Err(IdentityProblem::NoDns(expected));
    }
    // rustls' verifier asks "is that one of its names?", so a second name in
    // our zone, or a wildcard, would let this node answer for another.
    let is_below = |name: &str| {
        let lower = name.to_ascii_lowercase();
        lower.strip_suffix(DNS_ZONE).is_some_and(|label| label.ends_with('.'))
    };
    let foreign =
        dns_names.iter().find(|name| !name.eq_ignore_ascii_case(&expected) && is_below(name));
    match foreign {
        Some(name) => Err(IdentityProblem::ForeignDns((*name).to_owned())),
        None => Ok(identity),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]

    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    pub(crate) fn identity(federation: &str, node: &str) -> Identity {
        Identity {
            federation: FederationId::new(federation).unwrap(),
            node: NodeId::new(node).unwrap(),
        }
    }

    /// A self-signed certificate with these names.
    fn with_names(uris: &[&str], dns_names: &[&str]) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        for uri in uris {
            params.subject_alt_names.push(SanType::URI((*uri).try_into().unwrap()));
        }
        for name in dns_names {
            params.subject_alt_names.push(SanType::DnsName((*name).try_into().unwrap()));
        }
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().into()
    }

    #[test]
    fn a_uri_reads_back_and_nothing_else_does() {
        let county = identity("zhengzhou", "410122");
        assert_eq!(county.to_string(), "spiffe://zhengzhou/node/410122");
        assert_eq!(county.dns_name(), "410122.zhengzhou.creditsync.internal");
        assert_eq!(Identity::parse_uri(&county.uri()), Some(county));
        for bad in [
            "",
            "spiffe://zhengzhou/node/",
            "spiffe:///node/410122",
            "spiffe://zhengzhou/node/410122/",
            "spiffe://zhengzhou/node/410122?x",
            "spiffe://zhengzhou/410122",
            "SPIFFE://zhengzhou/node/410122",
            "https://zhengzhou/node/410122",
            "spiffe://zhengzhou/node/node/410122",
        ] {
            assert_eq!(Identity::parse_uri(bad), None, "{bad}");
        }
    }

    #[test]
    fn names_that_dns_does_not_allow_are_refused() {
        for (federation, node) in [("zhengzhou", "-a"), ("zhengzhou", "a-"), ("-z", "a")] {
            let identity = identity(federation, node);
            assert!(matches!(identity.check(), Err(CertError::NotADnsName(_))), "{identity}");
        }
        for node in ["410122", "a-b", "0", &"9".repeat(63)] {
            identity("zhengzhou", node).check().unwrap();
        }
    }

    #[test]
    fn serial_numbers_are_numbers() {
        for (octets, text) in
            [(&[0x00, 0x9a, 0x01][..], "9a01"), (&[0x0a, 0x01], "0a01"), (&[0], "00"), (&[], "")]
        {
            assert_eq!(serial_hex(octets), text);
        }
    }

    #[test]
    fn both_names_are_needed_and_the_missing_one_is_named() {
        let uri = "spiffe://zhengzhou/node/410122";
        let dns = "410122.zhengzhou.creditsync.internal";
        assert_eq!(
            identity_of(&with_names(&[uri], &[dns])).unwrap(),
            identity("zhengzhou", "410122")
        );
        // Names outside our scheme belong to somebody else's use of the certificate.
        assert!(identity_of(&with_names(&["https://x", uri], &["x.example", dns])).is_ok());

        let problem = |uris: &[&str], names: &[&str]| match identity_of(&with_names(uris, names)) {
            Err(CertError::Identity { problem, .. }) => problem,
            other => panic!("{other:?}"),
        };
        let other_dns = "410123.zhengzhou.creditsync.internal";
        let wildcard = "*.zhengzhou.creditsync.internal";
        assert_eq!(problem(&[], &[dns]), IdentityProblem::NoUri);
        assert_eq!(problem(&[], &[]), IdentityProblem::NoUri);
        assert_eq!(problem(&[uri], &[]), IdentityProblem::NoDns(dns.into()));
        assert_eq!(problem(&[uri], &[other_dns]), IdentityProblem::NoDns(dns.into()));
        assert_eq!(
            problem(&[uri], &[dns, other_dns]),
            IdentityProblem::ForeignDns(other_dns.into())
        );
        assert_eq!(problem(&[uri], &[dns, wildcard]), IdentityProblem::ForeignDns(wildcard.into()));
        assert!(matches!(
            problem(&[uri, "spiffe://zhengzhou/node/410123"], &[dns]),
            IdentityProblem::SeveralUris(_)
        ));
    }

    #[test]
    fn bytes_that_are_no_certificate_are_refused() {
        let mut der = with_names(&[], &[]).to_vec();
        der.push(0);
        for bytes in [&b""[..], b"\x30\x00", &der] {
            let cert = CertificateDer::from(bytes.to_vec());
            assert!(matches!(identity_of(&cert), Err(CertError::NotACertificate(_))));
            assert!(matches!(facts(&cert), Err(CertError::NotACertificate(_))));
        }
    }
}
