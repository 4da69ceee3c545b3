//! The federation's own certificate authority, and a node's TLS key.
//!
//! `init` makes an authority and the hub keeps it; members only use [`NodeKey`]
//! and the PEM functions. Invariants: the root key is read from its file for
//! the one signature that needs it and is never kept in memory, so the file can
//! be taken offline; a leaf certificate holds nothing from a request but its
//! public key, and never outlives the certificate that issued it.
//!
//! Not here: when to renew, and whether a node may have a certificate at all.

use std::{
    fmt, fs,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use protocol::{
    id::{FederationId, NodeId},
    sign::PublicKey,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PublicKeyData as _, SanType, SerialNumber, SigningKey as _,
};
use rustls_pki_types::{
    CertificateDer, CertificateSigningRequestDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject,
};
use time::{Duration, OffsetDateTime};
use zeroize::Zeroizing;

use crate::{
    CertError,
    enrol::{Anchor, RootOfTrust},
    identity::{self, Identity},
    keyfile,
};

/// The root certificate, in a node's `certs/`.
pub const ROOT_CERT_FILE: &str = "root.pem";
/// The issuing certificate, in the hub's `certs/`.
pub const ISSUING_CERT_FILE: &str = "issuing.pem";
/// The root's key, in the hub's `keys/`; may be kept offline.
pub const ROOT_KEY_FILE: &str = "root.key";
/// The issuing key, in the hub's `keys/`.
pub const ISSUING_KEY_FILE: &str = "issuing.key";

const ROOT_LIFETIME: Duration = Duration::days(3652);
const ISSUING_LIFETIME: Duration = Duration::days(365);

/// How far certificates are dated back, for nodes whose clock is slow.
pub const BACKDATE: Duration = Duration::minutes(5);

/// The issuing CA with its key, and the root certificate.
pub struct Authority {
    federation: FederationId,
    root: CertificateDer<'static>,
    issuing: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    issuing_not_before: OffsetDateTime,
    issuing_not_after: OffsetDateTime,
    root_key_path: PathBuf,
}

impl Authority {
    /// Makes a root CA (ten years) and an issuing CA (one year) and writes their
    /// four files; refuses if one of them is there already.
    ///
    /// Stopped half-way it leaves some of the files; remove them and start again.
    pub fn create(
        dir_certs: &Path,
        dir_keys: &Path,
        federation: &FederationId,
        now: OffsetDateTime,
    ) -> Result<Self, CertError> {
        // Every node's DNS name ends in the federation's, so that must be one
        // that DNS allows, whatever the nodes are called.
        let any = NodeId::new("any").expect("three letters are a name");
        Identity::new(federation, &any).check()?;

        let root_cert = dir_certs.join(ROOT_CERT_FILE);
        let issuing_cert = dir_certs.join(ISSUING_CERT_FILE);
        let root_key_path = dir_keys.join(ROOT_KEY_FILE);
        let issuing_key_path = dir_keys.join(ISSUING_KEY_FILE);
        for path in [&root_cert, &issuing_cert, &root_key_path, &issuing_key_path] {
            if path.symlink_metadata().is_ok() {
                return Err(CertError::Exists(path.clone()));
            }
        }
        create_directory(dir_certs, 0o755)?;
        create_directory(dir_keys, 0o700)?;

        let failed = || CertError::crypto("make the certificate authority");
        let root_key = generate_key()?;
        let root_params = ca_params("root", federation, 1, now, ROOT_LIFETIME)?;
        let root = root_params.self_signed(&root_key).map_err(failed())?.into();

        let issuing_key = generate_key()?;
        let issuing = ca_params("issuing", federation, 0, now, ISSUING_LIFETIME)?
            .signed_by(&issuing_key, &Issuer::from_params(&root_params, &root_key))
            .map_err(failed())?
            .into();

        save_key(&root_key_path, &root_key)?;
        save_key(&issuing_key_path, &issuing_key)?;
        save_chain(&root_cert, &[root])?;
        save_chain(&issuing_cert, &[issuing])?;
        Self::open(dir_certs, dir_keys)
    }

    /// Reads what [`Authority::create`] wrote; the root key may be absent.
    pub fn open(dir_certs: &Path, dir_keys: &Path) -> Result<Self, CertError> {
        let root_path = dir_certs.join(ROOT_CERT_FILE);
        let issuing_path = dir_certs.join(ISSUING_CERT_FILE);
        let key_path = dir_keys.join(ISSUING_KEY_FILE);
        let root = load_single(&root_path)?;
        let issuing = load_single(&issuing_path)?;
        let key = load_key(&key_path)?;

        let parsed = identity::parse(&issuing)?;
        let trust = RootOfTrust::from_certificate(&root)?;
        let signature = parsed.signature_value.data.as_ref();
        if parsed.issuer().as_raw() != identity::parse(&root)?.subject().as_raw()
            || !trust.verify(parsed.tbs_certificate.as_ref(), signature)?
        {
            return Err(CertError::content(
                &issuing_path,
                format!("was not issued by {}; restore both from one backup", root_path.display()),
            ));
        }
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err(CertError::content(
                &key_path,
                format!("does not fit {}; restore both from one backup", issuing_path.display()),
            ));
        }
        let federation = parsed
            .subject()
            .iter_organization()
            .next()
            .and_then(|name| FederationId::new(name.as_str().ok()?).ok())
            .ok_or_else(|| {
                CertError::content(&issuing_path, "names no federation as its organisation (O)")
            })?;
        let facts = identity::facts(&issuing)?;
        let issuer = Issuer::from_ca_cert_der(&issuing, key)
            .map_err(|error| CertError::content(&issuing_path, error.to_string()))?;
        Ok(Self {
            federation,
            root,
            issuer,
            issuing_not_before: facts.not_before,
            issuing_not_after: facts.not_after,
            issuing,
            root_key_path: dir_keys.join(ROOT_KEY_FILE),
        })
    }

    /// Issues a certificate for `identity` with the public key of `csr_der`;
    /// answers it and the issuing certificate.
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
        if now < self.issuing_not_before || now >= self.issuing_not_after {
            return Err(CertError::IssuerNotValid {
                not_before: self.issuing_not_before,
                not_after: self.issuing_not_after,
                now,
            });
        }
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
        if key.algorithm() != &PKCS_ECDSA_P256_SHA256 || key.der_bytes().len() != 65 {
            return Err(refused("its key is not ECDSA P-256"));
        }

        let mut params = CertificateParams::default();
        params.distinguished_name = name(identity.node.as_str(), &identity.federation);
        params.subject_alt_names = names;
        params.not_before = now - BACKDATE;
        params.not_after = (now + lifetime).min(self.issuing_not_after);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(serial_number()?);
        let leaf = params
            .signed_by(key, &self.issuer)
            .map_err(CertError::crypto("issue a certificate"))?;
        Ok(vec![leaf.into(), self.issuing.clone()])
    }

    /// The root certificate.
    pub fn root(&self) -> &CertificateDer<'static> {
        &self.root
    }

    /// The issuing certificate.
    pub fn issuing(&self) -> &CertificateDer<'static> {
        &self.issuing
    }

    /// Whether the root key is on this machine.
    pub fn has_root_key(&self) -> bool {
        self.root_key_path.exists()
    }

    /// Signs with the root key that `hub` speaks for `federation` with
    /// `hub_key`; the key is read from its file now.
    pub fn sign_anchor(
        &self,
        federation: &FederationId,
        hub: &NodeId,
        hub_key: &PublicKey,
        epoch: u32,
    ) -> Result<Anchor, CertError> {
        if *federation != self.federation {
            return Err(CertError::OtherFederation {
                ours: self.federation.clone(),
                theirs: federation.clone(),
            });
        }
        if !self.has_root_key() {
            return Err(CertError::RootKeyAbsent(self.root_key_path.clone()));
        }
        let key = load_key(&self.root_key_path)?;
        let mut anchor = Anchor {
            federation: federation.clone(),
            hub: hub.clone(),
            hub_key: *hub_key,
            epoch,
            signature: Vec::new(),
        };
        anchor.signature =
            key.sign(&anchor.signed_message()).map_err(CertError::crypto("sign the anchor"))?;
        // Catches a root key that belongs to another root certificate.
        match anchor.verify(&RootOfTrust::from_certificate(&self.root)?) {
            Err(CertError::AnchorSignature { .. }) => Err(CertError::content(
                &self.root_key_path,
                "is not the key of the root certificate; restore both from one backup",
            )),
            checked => checked.map(|()| anchor),
        }
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authority({})", self.federation)
    }
}

/// A node's private key for TLS: ECDSA P-256. It never leaves its machine.
pub struct NodeKey(KeyPair);

impl NodeKey {
    /// Draws a new key.
    pub fn generate() -> Result<Self, CertError> {
        generate_key().map(Self)
    }

    /// Writes it into a private file, which must not exist yet.
    pub fn save(&self, path: &Path) -> Result<(), CertError> {
        save_key(path, &self.0)
    }

    /// Reads it from a private file.
    pub fn load(path: &Path) -> Result<Self, CertError> {
        load_key(path).map(Self)
    }

    /// A request (DER) for a certificate that carries both names of `identity`.
    pub fn csr(&self, identity: &Identity) -> Result<Vec<u8>, CertError> {
        identity.check()?;
        let failed = || CertError::crypto("write the certificate request");
        let mut params = CertificateParams::default();
        params.distinguished_name = name(identity.node.as_str(), &identity.federation);
        params.subject_alt_names = sans(identity).map_err(failed())?;
        let request = params.serialize_request(&self.0).map_err(failed())?;
        Ok(request.der().to_vec())
    }

    /// The form that rustls takes.
    pub fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.0.serialize_der()).into()
    }
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeKey")
    }
}

/// Writes certificates as PEM, leaf first, replacing the file in one step.
pub fn save_chain(path: &Path, chain: &[CertificateDer<'_>]) -> Result<(), CertError> {
    let mut text = String::new();
    for cert in chain {
        pem_section(&mut text, "CERTIFICATE", cert);
    }
    keyfile::write_public(path, text.as_bytes())
}

/// Reads the certificates of a PEM file; at least one is expected.
pub fn load_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertError> {
    let bytes = keyfile::read_public(path)?;
    let chain = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| CertError::content(path, format!("not PEM: {error:?}")))?;
    if chain.is_empty() {
        return Err(CertError::content(
            path,
            "holds no certificate; '-----BEGIN CERTIFICATE-----' is expected",
        ));
    }
    Ok(chain)
}

/// Reads the only certificate of a PEM file.
pub(crate) fn load_single(path: &Path) -> Result<CertificateDer<'static>, CertError> {
    let mut chain = load_chain(path)?;
    match (chain.pop(), chain.is_empty()) {
        (Some(cert), true) => Ok(cert),
        _ => Err(CertError::content(path, "holds several certificates; exactly one is expected")),
    }
}

fn generate_key() -> Result<KeyPair, CertError> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(CertError::crypto("draw a key"))
}

fn save_key(path: &Path, key: &KeyPair) -> Result<(), CertError> {
    // A P-256 key has about 240 characters; room for it, so that growing leaves
    // no copy behind.
    let mut text = Zeroizing::new(String::with_capacity(1024));
    pem_section(&mut text, "PRIVATE KEY", key.serialized_der());
    keyfile::write_private(path, text.as_bytes())
}

fn load_key(path: &Path) -> Result<KeyPair, CertError> {
    let bytes = keyfile::read_private(path)?;
    let der = PrivatePkcs8KeyDer::from_pem_slice(&bytes).map_err(|error| {
        CertError::content(
            path,
            format!("not a PKCS#8 PEM key ({error:?}); restore it from a backup"),
        )
    })?;
    KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ECDSA_P256_SHA256)
        .map_err(|error| CertError::content(path, format!("not an ECDSA P-256 key ({error})")))
}

/// RFC 7468: lines of 64 characters.
fn pem_section(text: &mut String, label: &str, der: &[u8]) {
    text.push_str("-----BEGIN ");
    text.push_str(label);
    text.push_str("-----\n");
    // 48 bytes are 64 characters.
    for line in der.chunks(48) {
        text.push_str(&Zeroizing::new(BASE64_STANDARD.encode(line)));
        text.push('\n');
    }
    text.push_str("-----END ");
    text.push_str(label);
    text.push_str("-----\n");
}

fn create_directory(path: &Path, mode: u32) -> Result<(), CertError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .map_err(CertError::file("create", path))
}

fn ca_params(
    role: &str,
    federation: &FederationId,
    path_length: u8,
    now: OffsetDateTime,
    lifetime: Duration,
) -> Result<CertificateParams, CertError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = name(&format!("creditsync {role} {federation}"), federation);
    params.not_before = now - BACKDATE;
    params.not_after = now + lifetime;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_length));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    params.serial_number = Some(serial_number()?);
    Ok(params)
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
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{ops::Deref, os::unix::fs::MetadataExt as _};

    use protocol::sign::SigningKey;

    use super::*;
    use crate::{identity::tests::identity, verify::Credentials};

    /// An authority in a directory that goes away with it.
    pub(crate) struct TestAuthority {
        pub(crate) directory: tempfile::TempDir,
        pub(crate) federation: FederationId,
        authority: Authority,
    }

    impl Deref for TestAuthority {
        type Target = Authority;
        fn deref(&self) -> &Authority {
            &self.authority
        }
    }

    impl TestAuthority {
        pub(crate) fn at(federation: &str, now: OffsetDateTime) -> Self {
            let directory = tempfile::tempdir().unwrap();
            let federation = FederationId::new(federation).unwrap();
            let authority = Authority::create(
                &directory.path().join("certs"),
                &directory.path().join("keys"),
                &federation,
                now,
            )
            .unwrap();
            Self { directory, federation, authority }
        }

        pub(crate) fn now(federation: &str) -> Self {
            Self::at(federation, OffsetDateTime::now_utc())
        }

        pub(crate) fn dirs(&self) -> (PathBuf, PathBuf) {
            (self.directory.path().join("certs"), self.directory.path().join("keys"))
        }

        /// A node's credentials, issued at `now` for 30 days.
        pub(crate) fn credentials(&self, node: &str, now: OffsetDateTime) -> Credentials {
            let identity = identity(self.federation.as_str(), node);
            let key = NodeKey::generate().unwrap();
            let csr = key.csr(&identity).unwrap();
            let chain = self.issue(&identity, &csr, now, Duration::days(30)).unwrap();
            Credentials::new(chain, key.private_key(), self.root().clone(), identity).unwrap()
        }
    }

    fn now() -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(1_790_000_000).unwrap()
    }

    #[test]
    fn an_authority_is_what_the_design_says_and_opens_again() {
        let made = TestAuthority::at("zhengzhou", now());
        let (certs, keys) = made.dirs();
        let opened = Authority::open(&certs, &keys).unwrap();
        assert_eq!(opened.root(), made.root());
        assert_eq!(opened.issuing(), made.issuing());

        for (cert, common_name, path_length, days) in [
            (made.root(), "creditsync root zhengzhou", 1, 3652),
            (made.issuing(), "creditsync issuing zhengzhou", 0, 365),
        ] {
            let facts = identity::facts(cert).unwrap();
            assert_eq!(facts.subject, format!("O=zhengzhou, CN={common_name}"));
            assert_eq!(facts.issuer, "O=zhengzhou, CN=creditsync root zhengzhou");
            assert_eq!(facts.identity, None);
            assert_eq!(facts.not_before, now() - BACKDATE);
            assert_eq!(facts.not_after, now() + Duration::days(days));
            let parsed = identity::parse(cert).unwrap();
            let constraints = parsed.basic_constraints().unwrap().unwrap();
            assert!(constraints.critical && constraints.value.ca);
            assert_eq!(constraints.value.path_len_constraint, Some(path_length));
            let usage = parsed.key_usage().unwrap().unwrap().value;
            assert!(usage.key_cert_sign() && usage.crl_sign() && !usage.digital_signature());
        }
        for (path, mode) in [
            (keys.join(ROOT_KEY_FILE), 0o600),
            (keys.join(ISSUING_KEY_FILE), 0o600),
            (certs.join(ROOT_CERT_FILE), 0o644),
            (certs.join(ISSUING_CERT_FILE), 0o644),
        ] {
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, mode, "{}", path.display());
        }
        assert!(matches!(
            Authority::create(&certs, &keys, &made.federation, now()),
            Err(CertError::Exists(_))
        ));
    }

    #[test]
    fn a_leaf_has_both_names_and_the_right_limits() {
        let authority = TestAuthority::at("zhengzhou", now());
        let county = identity("zhengzhou", "410122");
        let key = NodeKey::generate().unwrap();
        let csr = key.csr(&county).unwrap();
        let later = now() + Duration::days(10);
        let chain = authority.issue(&county, &csr, later, Duration::days(30)).unwrap();
        assert_eq!(chain.len(), 2);
        assert_eq!(&chain[1], authority.issuing());
        assert_eq!(identity::identity_of(&chain[0]).unwrap(), county);

        let facts = identity::facts(&chain[0]).unwrap();
        assert_eq!(facts.identity, Some(county.clone()));
        assert_eq!(facts.subject, "O=zhengzhou, CN=410122");
        assert_eq!(facts.serial_hex.len(), 32, "{}", facts.serial_hex);
        assert_eq!(facts.not_before, later - Duration::minutes(5));
        assert_eq!(facts.not_after, later + Duration::days(30));
        let parsed = identity::parse(&chain[0]).unwrap();
        assert!(!parsed.is_ca());
        let usage = parsed.key_usage().unwrap().unwrap().value;
        assert!(usage.digital_signature() && !usage.key_cert_sign());
        let extended = parsed.extended_key_usage().unwrap().unwrap().value;
        assert!(extended.server_auth && extended.client_auth && !extended.any);

        let again = authority.issue(&county, &csr, later, Duration::days(30)).unwrap();
        assert_ne!(identity::facts(&again[0]).unwrap().serial_hex, facts.serial_hex);
    }

    #[test]
    fn a_leaf_never_outlives_the_issuing_certificate() {
        let authority = TestAuthority::at("zhengzhou", now());
        let county = identity("zhengzhou", "410122");
        let csr = NodeKey::generate().unwrap().csr(&county).unwrap();
        let end = now() + Duration::days(365);
        let late = end - Duration::days(1);
        let chain = authority.issue(&county, &csr, late, Duration::days(30)).unwrap();
        assert_eq!(identity::facts(&chain[0]).unwrap().not_after, end);
        for outside in [end, now() - Duration::hours(1)] {
            assert!(matches!(
                authority.issue(&county, &csr, outside, Duration::days(30)),
                Err(CertError::IssuerNotValid { .. })
            ));
        }
        assert!(authority.issue(&county, &csr, now(), Duration::ZERO).is_err());
    }

    /// A request with these names, signed by `key`.
    fn request(names: Vec<SanType>, key: &KeyPair, is_ca: IsCa) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        params.is_ca = is_ca;
        params.serialize_request(key).unwrap().der().to_vec()
    }

    #[test]
    fn a_request_for_other_names_is_refused() {
        let authority = TestAuthority::at("zhengzhou", now());
        let county = identity("zhengzhou", "410122");
        let other = identity("zhengzhou", "410100");
        let key = generate_key().unwrap();
        let own = sans(&county).unwrap();
        let dns = |name: &str| SanType::DnsName(name.try_into().unwrap());
        let with = |extra: SanType| [own.clone(), vec![extra]].concat();

        for names in [
            Vec::new(),
            own[..1].to_vec(),
            own[1..].to_vec(),
            vec![own[0].clone(), own[0].clone()],
            sans(&other).unwrap(),
            with(dns(&other.dns_name())),
            with(dns("*.zhengzhou.creditsync.internal")),
            with(sans(&other).unwrap()[0].clone()),
            with(SanType::IpAddress([127, 0, 0, 1].into())),
            with(own[0].clone()),
        ] {
            let csr = request(names.clone(), &key, IsCa::NoCa);
            let error = authority.issue(&county, &csr, now(), Duration::days(30)).unwrap_err();
            assert!(matches!(error, CertError::Request { .. }), "{names:?}: {error}");
        }
        // The wish to be a CA is not granted, even where the names are right.
        let unconstrained = IsCa::Ca(BasicConstraints::Unconstrained);
        let csr = request(own.clone(), &key, unconstrained);
        let chain = authority.issue(&county, &csr, now(), Duration::days(30)).unwrap();
        assert!(!identity::parse(&chain[0]).unwrap().is_ca());
    }

    #[test]
    fn a_request_must_be_whole_and_signed_by_its_own_p256_key() {
        let authority = TestAuthority::at("zhengzhou", now());
        let county = identity("zhengzhou", "410122");
        let csr = NodeKey::generate().unwrap().csr(&county).unwrap();
        let refused = |csr: &[u8]| {
            matches!(
                authority.issue(&county, csr, now(), Duration::days(30)),
                Err(CertError::Request { .. })
            )
        };
        assert!(!refused(&csr));
        assert!(refused(b""));
        assert!(refused(&csr[..csr.len() - 1]));
        let mut altered = csr.clone();
        let last = altered.len() - 1;
        altered[last] ^= 1;
        assert!(refused(&altered), "the signature does not fit");

        for algorithm in [&rcgen::PKCS_ED25519, &rcgen::PKCS_ECDSA_P384_SHA384] {
            let key = KeyPair::generate_for(algorithm).unwrap();
            assert!(refused(&request(sans(&county).unwrap(), &key, IsCa::NoCa)));
        }
    }

    /// Requests that OpenSSL made for the right names:
    /// `openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:… -sha… -addext subjectAltName=…`.
    #[test]
    fn keys_of_another_curve_than_their_signature_suggests_are_refused() {
        let authority = TestAuthority::at("zhengzhou", now());
        let county = identity("zhengzhou", "410122");
        for (what, csr, granted) in [
            ("P-256 with SHA-256", OPENSSL_P256_SHA256, true),
            ("P-256 with SHA-384", OPENSSL_P256_SHA384, false),
            ("P-384 with SHA-256", OPENSSL_P384_SHA256, false),
            ("secp256k1 with SHA-256", OPENSSL_SECP256K1_SHA256, false),
        ] {
            let csr = BASE64_STANDARD.decode(csr).unwrap();
            let answer = authority.issue(&county, &csr, now(), Duration::days(30));
            assert_eq!(answer.is_ok(), granted, "{what}: {answer:?}");
        }
    }

    const OPENSSL_P256_SHA256: &str = "MIIBLzCB1QIBADARMQ8wDQYDVQQDDAY0MTAxMjIwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAAQGoGSw\
        9ivSOqIWZRU1U3Xf/zfliXQ42w6wku2iJC3VuCCIWVv6toCv0TnFZBD5mE4whdyNqlvKkg0sEc6Da6nQ\
        oGIwYAYJKoZIhvcNAQkOMVMwUTBPBgNVHREESDBGhh5zcGlmZmU6Ly96aGVuZ3pob3Uvbm9kZS80MTAx\
        MjKCJDQxMDEyMi56aGVuZ3pob3UuY3JlZGl0c3luYy5pbnRlcm5hbDAKBggqhkjOPQQDAgNJADBGAiEA\
        i8Pgq7LE4BnGY/Eby9rJQO7pydqPSorVsEUf5sglQXcCIQDvEmyAqnKWqY9Itj/GQQWn0WUTsibxmEpq\
        M0ptj7K1Rg==";

    const OPENSSL_P256_SHA384: &str = "MIIBLzCB1QIBADARMQ8wDQYDVQQDDAY0MTAxMjIwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAASyNMdU\
        idr5XcoNrAb3Yf6h4prLW52d4fy/fIBFlreq5McxLDRdftXr7Sge1+rV/oNkTp7tqQvcjYEag/hzpHs1\
        oGIwYAYJKoZIhvcNAQkOMVMwUTBPBgNVHREESDBGhh5zcGlmZmU6Ly96aGVuZ3pob3Uvbm9kZS80MTAx\
        MjKCJDQxMDEyMi56aGVuZ3pob3UuY3JlZGl0c3luYy5pbnRlcm5hbDAKBggqhkjOPQQDAwNJADBGAiEA\
        q7MCZMQqKWq4Q48muJ/bMsR163z6g3xbfVkTy8kiK/UCIQD3nUKVzKoWQIY2TEmCC0Yxt4fsgYNnIxZA\
        I5d4vl+T9A==";

    const OPENSSL_P384_SHA256: &str = "MIIBajCB8gIBADARMQ8wDQYDVQQDDAY0MTAxMjIwdjAQBgcqhkjOPQIBBgUrgQQAIgNiAAQO40ql1sG/\
        aphiR52E/8lFutswPk7GN6yuddarGb+pzymyb8lebAHauOUd4Sl2Tsli+RmwQ6w14le9OgUV5ZlXBqOh\
        idfw0ozJmVq1e1AyDl9AZJz/jgGqLQar9oLcV9OgYjBgBgkqhkiG9w0BCQ4xUzBRME8GA1UdEQRIMEaG\
        HnNwaWZmZTovL3poZW5nemhvdS9ub2RlLzQxMDEyMoIkNDEwMTIyLnpoZW5nemhvdS5jcmVkaXRzeW5j\
        LmludGVybmFsMAoGCCqGSM49BAMCA2cAMGQCMAL/8BH+kc3tXsat70e8wDKhKqiPhhNL9LoHloalJTw+\
        mHEPa2RJnZqVLCQyxcmtlAIwE7VKoK5KnMEJ2nuLrjZmu7KVpLzx1eh8qGZNEyevHIZyuPX7P+3La1E+\
        L3oHvG3K";

    const OPENSSL_SECP256K1_SHA256: &str = "MIIBKzCB0gIBADARMQ8wDQYDVQQDDAY0MTAxMjIwVjAQBgcqhkjOPQIBBgUrgQQACgNCAAS34PND08Fv\
        gkJjRGnzKGpcIgwvfxsdK+oM/USnIT+KnqxgaAeGW8DV19LtqchkYbzOAoeAJv2/Xfbv740OGwnhoGIw\
        YAYJKoZIhvcNAQkOMVMwUTBPBgNVHREESDBGhh5zcGlmZmU6Ly96aGVuZ3pob3Uvbm9kZS80MTAxMjKC\
        JDQxMDEyMi56aGVuZ3pob3UuY3JlZGl0c3luYy5pbnRlcm5hbDAKBggqhkjOPQQDAgNIADBFAiA8KCJB\
        B6FeqcnlYYYztsytl4Q/EYeg3cNCgztoyU5y2wIhAIg8uKt9/43dwNLIoXABQD1iHAjf8ijVW2lz1t1d\
        MARa";

    #[test]
    fn other_federations_and_impossible_names_are_refused() {
        let authority = TestAuthority::at("zhengzhou", now());
        let key = NodeKey::generate().unwrap();
        let foreign = identity("kaifeng", "410122");
        let csr = key.csr(&foreign).unwrap();
        assert!(matches!(
            authority.issue(&foreign, &csr, now(), Duration::days(30)),
            Err(CertError::OtherFederation { .. })
        ));
        let impossible = identity("zhengzhou", "-a");
        assert!(matches!(key.csr(&impossible), Err(CertError::NotADnsName(_))));
        assert!(matches!(
            authority.issue(&impossible, &csr, now(), Duration::days(30)),
            Err(CertError::NotADnsName(_))
        ));
    }

    #[test]
    fn without_the_root_key_all_but_anchors_works() {
        let authority = TestAuthority::at("zhengzhou", now());
        let (certs, keys) = authority.dirs();
        let hub = NodeId::new("410100").unwrap();
        let hub_key = SigningKey::from_seed(&[1; 32]).public();
        authority.sign_anchor(&authority.federation, &hub, &hub_key, 1).unwrap();

        fs::remove_file(keys.join(ROOT_KEY_FILE)).unwrap();
        let opened = Authority::open(&certs, &keys).unwrap();
        assert!(!opened.has_root_key());
        let error = opened.sign_anchor(&authority.federation, &hub, &hub_key, 1).unwrap_err();
        assert!(matches!(&error, CertError::RootKeyAbsent(_)), "{error}");
        assert!(error.to_string().contains("root.key"), "{error}");
        let county = identity("zhengzhou", "410122");
        let csr = NodeKey::generate().unwrap().csr(&county).unwrap();
        opened.issue(&county, &csr, now(), Duration::days(30)).unwrap();

        // Another root's key in its place.
        NodeKey::generate().unwrap().save(&keys.join(ROOT_KEY_FILE)).unwrap();
        let error = opened.sign_anchor(&authority.federation, &hub, &hub_key, 1).unwrap_err();
        assert!(error.to_string().contains("not the key of the root certificate"), "{error}");
    }

    #[test]
    fn files_of_two_authorities_do_not_open_together() {
        let authority = TestAuthority::at("zhengzhou", now());
        let other = TestAuthority::at("zhengzhou", now());
        let (certs, keys) = authority.dirs();
        let (other_certs, other_keys) = other.dirs();
        let error = Authority::open(&certs, &other_keys).unwrap_err();
        assert!(error.to_string().contains("does not fit"), "{error}");
        fs::copy(other_certs.join(ROOT_CERT_FILE), certs.join(ROOT_CERT_FILE)).unwrap();
        let error = Authority::open(&certs, &keys).unwrap_err();
        assert!(error.to_string().contains("was not issued by"), "{error}");
    }

    #[test]
    fn keys_and_chains_read_back() {
        let authority = TestAuthority::at("zhengzhou", now());
        let path = authority.directory.path().join("node.key");
        let key = NodeKey::generate().unwrap();
        key.save(&path).unwrap();
        assert_eq!(NodeKey::load(&path).unwrap().private_key(), key.private_key());
        assert!(matches!(key.save(&path), Err(CertError::Exists(_))));

        let path = authority.directory.path().join("node.pem");
        let chain = [authority.issuing().clone(), authority.root().clone()];
        save_chain(&path, &chain).unwrap();
        assert_eq!(load_chain(&path).unwrap(), chain);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.lines().all(|line| line.len() <= 64), "{text}");

        for bad in ["", "no certificate here", "-----BEGIN CERTIFICATE-----\nAAAA\n"] {
            fs::write(&path, bad).unwrap();
            assert!(matches!(load_chain(&path), Err(CertError::Content { .. })), "{bad}");
        }
    }
}
