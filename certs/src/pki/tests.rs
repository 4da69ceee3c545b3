//! A foreign PKI's files: all kinds and forms of keys, and what is refused.
#![allow(clippy::unwrap_used)]

use std::os::unix::fs::PermissionsExt as _;

use pkcs8::PrivateKeyInfoRef;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    SanType, SignatureAlgorithm,
};

use super::*;
use crate::{
    authority::tests::{TestAuthority, now},
    identity::{facts, tests::identity},
};

/// A CA that is none of ours, and the files of a node.
struct Foreign {
    directory: tempfile::TempDir,
    ca_params: CertificateParams,
    ca_key: KeyPair,
    ca: CertificateDer<'static>,
    identity: Identity,
}

fn pair(algorithm: &'static SignatureAlgorithm) -> KeyPair {
    match algorithm == &rcgen::PKCS_RSA_SHA256 {
        true => KeyPair::generate_rsa_for(algorithm, rcgen::RsaKeySize::_2048).unwrap(),
        false => KeyPair::generate_for(algorithm).unwrap(),
    }
}

impl Foreign {
    fn new(algorithm: &'static SignatureAlgorithm) -> Self {
        let ca_key = pair(algorithm);
        let mut ca_params = CertificateParams::default();
        ca_params.distinguished_name.push(DnType::CommonName, "Provincial CA");
        ca_params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = ca_params.self_signed(&ca_key).unwrap().into();
        let directory = tempfile::tempdir().unwrap();
        Self { directory, ca_params, ca_key, ca, identity: identity("zhengzhou", "410122") }
    }

    fn files(&self) -> PkiFiles {
        let file = |name| Some(self.directory.path().join(name));
        PkiFiles { certificate: file("node.pem"), key: file("node.key"), ca: file("ca.pem") }
    }

    fn issue(&self, key: &KeyPair, names: Vec<SanType>) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let issuer = Issuer::from_params(&self.ca_params, &self.ca_key);
        params.signed_by(key, &issuer).unwrap().into()
    }

    fn names(&self) -> Vec<SanType> {
        vec![
            SanType::URI(self.identity.uri().try_into().unwrap()),
            SanType::DnsName(self.identity.dns_name().try_into().unwrap()),
        ]
    }

    /// Writes all three files.
    fn write(&self, key: &KeyPair, names: Vec<SanType>) {
        self.write_key("PRIVATE KEY", key.serialized_der());
        let files = self.files();
        pem::save_chain(&files.certificate.unwrap(), &[self.issue(key, names)]).unwrap();
        pem::save_chain(&files.ca.unwrap(), std::slice::from_ref(&self.ca)).unwrap();
    }

    fn write_key(&self, label: &str, der: &[u8]) {
        let mut text = String::new();
        pem::section(&mut text, label, der);
        keyfile::replace_private(&self.files().key.unwrap(), text.as_bytes()).unwrap();
    }

    fn load(&self) -> Result<Option<Credentials>, CertError> {
        self.files().load(&self.identity, &[])
    }

    fn problem(&self) -> String {
        self.load().unwrap_err().to_string()
    }
}

#[test]
fn keys_of_all_kinds_and_forms_are_taken() {
    for (algorithm, shown) in [
        (&rcgen::PKCS_RSA_SHA256, "RSA 2048"),
        (&rcgen::PKCS_ECDSA_P256_SHA256, "ECDSA P-256"),
        (&rcgen::PKCS_ECDSA_P384_SHA384, "ECDSA P-384"),
        (&rcgen::PKCS_ED25519, "Ed25519"),
    ] {
        let foreign = Foreign::new(algorithm);
        let key = pair(algorithm);
        foreign.write(&key, foreign.names());
        let loaded = foreign.load().unwrap().unwrap();
        assert_eq!(loaded.identity, foreign.identity);
        assert_eq!(facts(&loaded.chain[0]).unwrap().key_algorithm, shown);
        assert_eq!(facts(&foreign.ca).unwrap().key_algorithm, shown);

        // The older forms lie inside PKCS#8.
        let info = PrivateKeyInfoRef::try_from(key.serialized_der()).unwrap();
        let label = match shown {
            "RSA 2048" => "RSA PRIVATE KEY",
            "Ed25519" => continue,
            _ => "EC PRIVATE KEY",
        };
        foreign.write_key(label, info.private_key.as_bytes());
        foreign.load().unwrap().unwrap();
    }
}

#[test]
fn the_missing_name_is_named() {
    let foreign = Foreign::new(&rcgen::PKCS_ECDSA_P256_SHA256);
    let key = pair(&rcgen::PKCS_ECDSA_P256_SHA256);
    let names = foreign.names();
    for (names, part) in [
        (vec![names[0].clone()], "has no DNS subject alternative name 410122.zhengzhou"),
        (vec![names[1].clone()], "has no URI subject alternative name"),
        (vec![], "has no URI subject alternative name"),
    ] {
        foreign.write(&key, names);
        let problem = foreign.problem();
        assert!(problem.contains(part) && problem.contains("node.pem"), "{problem}");
    }
    foreign.write(&key, names);
    let error = foreign.files().load(&identity("zhengzhou", "410100"), &[]).unwrap_err();
    assert!(error.to_string().contains("but this node is"), "{error}");
}

#[test]
fn what_does_not_fit_or_is_not_private_is_refused() {
    let foreign = Foreign::new(&rcgen::PKCS_ECDSA_P256_SHA256);
    let key = pair(&rcgen::PKCS_ECDSA_P256_SHA256);
    foreign.write(&key, foreign.names());
    let path = foreign.files().key.unwrap();
    for mode in [0o640, 0o604] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        assert!(matches!(foreign.load(), Err(CertError::NotPrivate { .. })));
    }
    foreign.write_key("PRIVATE KEY", pair(&rcgen::PKCS_ECDSA_P256_SHA256).serialized_der());
    assert!(foreign.problem().contains("does not fit"), "{}", foreign.problem());
    foreign.write_key("ENCRYPTED PRIVATE KEY", key.serialized_der());
    assert!(foreign.problem().contains("is encrypted"), "{}", foreign.problem());
    foreign.write_key("CERTIFICATE", &foreign.ca);
    assert!(foreign.problem().contains("not a private key"), "{}", foreign.problem());

    foreign.write(&key, foreign.names());
    let stranger = Foreign::new(&rcgen::PKCS_ECDSA_P256_SHA256);
    let ca = foreign.files().ca.unwrap();
    pem::save_chain(&ca, std::slice::from_ref(&stranger.ca)).unwrap();
    assert!(foreign.problem().contains("does not lead to a trusted root"), "{}", foreign.problem());
    pem::save_chain(&ca, &[foreign.issue(&key, foreign.names())]).unwrap();
    assert!(foreign.problem().contains("not a CA's"), "{}", foreign.problem());
    for half in [
        PkiFiles { key: None, ..foreign.files() },
        PkiFiles { certificate: None, ..foreign.files() },
    ] {
        assert!(half.load(&foreign.identity, &[]).is_err(), "{half:?}");
    }
}

#[test]
fn roots_are_added_to_those_of_the_federation() {
    let foreign = Foreign::new(&rcgen::PKCS_ECDSA_P256_SHA256);
    let key = pair(&rcgen::PKCS_ECDSA_P256_SHA256);
    foreign.write(&key, foreign.names());
    let ours = [TestAuthority::at("zhengzhou", now()).root().clone()];
    let loaded = foreign.files().load(&foreign.identity, &ours).unwrap().unwrap();
    assert_eq!(loaded.roots, [ours[0].clone(), foreign.ca.clone()]);

    // A CA file alone: more is trusted, and nothing is shown.
    let only_ca = PkiFiles { ca: foreign.files().ca, ..PkiFiles::default() };
    assert!(only_ca.load(&foreign.identity, &ours).unwrap().is_none());
    assert_eq!(only_ca.roots(&ours).unwrap(), loaded.roots);
    assert_eq!(only_ca.roots(&loaded.roots).unwrap(), loaded.roots, "none twice");
    // No CA file: the certificate leads to a root of the federation.
    let no_ca = PkiFiles { ca: None, ..foreign.files() };
    no_ca.load(&foreign.identity, &ours).unwrap_err();
    let trusted = [foreign.ca.clone()];
    assert_eq!(no_ca.load(&foreign.identity, &trusted).unwrap().unwrap().roots, trusted);
    assert_eq!(PkiFiles::default().roots(&ours).unwrap(), ours);
}

#[test]
fn changed_files_have_another_fingerprint() {
    let foreign = Foreign::new(&rcgen::PKCS_ECDSA_P256_SHA256);
    let files = foreign.files();
    let absent = files.fingerprint();
    assert_eq!(absent, PkiFiles::default().fingerprint());
    foreign.write(&pair(&rcgen::PKCS_ECDSA_P256_SHA256), foreign.names());
    let written = files.fingerprint();
    assert_ne!(written, absent);
    assert_eq!(written, files.fingerprint());
    // The same bytes in a new file.
    let ca = files.ca.clone().unwrap();
    let bytes = fs::read(&ca).unwrap();
    keyfile::write_public(&ca, &bytes).unwrap();
    assert_ne!(written, files.fingerprint());
    let replaced = files.fingerprint();
    fs::write(&ca, [&bytes[..], b"\n"].concat()).unwrap();
    assert_ne!(replaced, files.fingerprint());
}
