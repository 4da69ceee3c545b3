//! The authority: its first generation, what it issues and what it refuses.
#![allow(clippy::unwrap_used)]

use std::{fs, ops::Deref, os::unix::fs::MetadataExt as _, path::PathBuf};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use protocol::{id::NodeId, suite::Suite};
use rcgen::{BasicConstraints, KeyPair};

use super::*;
use crate::{
    bundle::save_bundle, credentials::Credentials, enrol::Anchor, identity::tests::identity,
    keyfile::KeyDir,
};

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
        let dirs = dirs_in(directory.path());
        let authority = Authority::create(&dirs, &federation, now, &Lifetimes::default()).unwrap();
        Self { directory, federation, authority }
    }

    pub(crate) fn now(federation: &str) -> Self {
        Self::at(federation, OffsetDateTime::now_utc())
    }

    pub(crate) fn certs(&self) -> PathBuf {
        self.dirs().certs.clone()
    }

    pub(crate) fn keys(&self) -> KeyDir {
        self.dirs().keys.clone()
    }

    /// A node's credentials, issued at `now` for 30 days.
    pub(crate) fn credentials(&self, node: &str, now: OffsetDateTime) -> Credentials {
        credentials_by(self, node, now, Duration::days(30), vec![self.root().clone()])
    }

    /// The files of a node, as `join` leaves them.
    pub(crate) fn set_up(&self, node: &str, now: OffsetDateTime) -> (PathBuf, KeyDir) {
        let keys = self.keys();
        let key = NodeKey::generate().unwrap();
        let identity = identity(self.federation.as_str(), node);
        let csr = key.csr(&identity).unwrap();
        let chain = self.issue(&identity, &csr, now, Duration::days(30)).unwrap();
        keys.save(crate::keyfile::NODE_KEY_FILE, &key).unwrap();
        let certs = self.certs();
        save_bundle(&certs, &[self.root().clone()]).unwrap();
        crate::pem::save_chain(&certs.join(crate::credentials::NODE_CHAIN_FILE), &chain).unwrap();
        (certs, keys)
    }
}

pub(crate) fn dirs_in(path: &std::path::Path) -> CaDirs {
    let keys = KeyDir::new(path.join("keys"), None);
    CaDirs { certs: path.join("certs"), root_keys: keys.clone(), keys }
}

/// Credentials by an authority, trusting `roots`.
pub(crate) fn credentials_by(
    authority: &Authority,
    node: &str,
    now: OffsetDateTime,
    lifetime: Duration,
    roots: Vec<CertificateDer<'static>>,
) -> Credentials {
    let identity = identity(authority.federation().as_str(), node);
    let key = NodeKey::generate().unwrap();
    let csr = key.csr(&identity).unwrap();
    let chain = authority.issue(&identity, &csr, now, lifetime).unwrap();
    Credentials::new(chain, key.private_key(), roots, identity).unwrap()
}

/// 2026-09-21 14:13:20 UTC.
pub(crate) fn now() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_790_000_000).unwrap()
}

#[test]
fn an_authority_is_what_the_design_says_and_opens_again() {
    let made = TestAuthority::at("zhengzhou", now());
    let (certs, keys) = (made.certs(), made.keys());
    // Made again, it is the same one.
    let later = now() + Duration::days(9);
    let again =
        Authority::create(made.dirs(), &made.federation, later, &Lifetimes::default()).unwrap();
    for opened in [again, Authority::open(made.dirs(), &IssuerChoice::default()).unwrap()] {
        assert_eq!(opened.root(), made.root());
        assert_eq!(opened.issuing(), made.issuing());
        assert_eq!(opened.federation(), &made.federation);
        let facts = identity::facts(opened.issuing()).unwrap();
        assert_eq!(facts.not_before, now() - BACKDATE_MAX);
        assert_eq!(facts.not_after, now() + Duration::days(365));
    }

    for (cert, common_name, path_length, days) in [
        (made.root(), "creditsync root zhengzhou", 2, 3652),
        (made.issuing(), "creditsync issuing zhengzhou", 0, 365),
    ] {
        let facts = identity::facts(cert).unwrap();
        assert_eq!(facts.subject, format!("O=zhengzhou, CN={common_name}"));
        assert_eq!(facts.issuer, "O=zhengzhou, CN=creditsync root zhengzhou");
        assert_eq!(facts.identity, None);
        assert_eq!(facts.not_before, now() - BACKDATE_MAX);
        assert_eq!(facts.not_after, now() + Duration::days(days));
        assert!(facts.is_ca);
        assert_eq!(facts.key_algorithm, "ECDSA P-256");
        let parsed = identity::parse(cert).unwrap();
        let constraints = parsed.basic_constraints().unwrap().unwrap();
        assert!(constraints.critical && constraints.value.ca);
        assert_eq!(constraints.value.path_len_constraint, Some(path_length));
        let usage = parsed.key_usage().unwrap().unwrap().value;
        assert!(usage.key_cert_sign() && usage.crl_sign() && !usage.digital_signature());
    }
    for (path, mode) in [
        (keys.file("root.key"), 0o600),
        (keys.file("issuing.key"), 0o600),
        (keys.path().to_owned(), 0o700),
        (certs.join("ca-root-1.pem"), 0o644),
        (certs.join("ca-issuing-1.pem"), 0o644),
    ] {
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, mode, "{}", path.display());
    }
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

#[test]
fn certificates_of_seconds_are_dated_back_by_little() {
    let authority = TestAuthority::at("zhengzhou", now());
    let county = identity("zhengzhou", "410122");
    let csr = NodeKey::generate().unwrap().csr(&county).unwrap();
    for (life, back) in [(10, 1), (600, 60), (3000, 300), (86_400, 300)] {
        let chain = authority.issue(&county, &csr, now(), Duration::seconds(life)).unwrap();
        let facts = identity::facts(&chain[0]).unwrap();
        assert_eq!(facts.not_before, now() - Duration::seconds(back));
        assert_eq!(facts.not_before, authority.begins(now(), Duration::seconds(life)));
        assert_eq!(facts.not_after, now() + Duration::seconds(life));
    }
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
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
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
    let (dirs, keys) = (authority.dirs(), authority.keys());
    let hub_key = Suite::One.signing_key(&[1; 32]).unwrap().public();
    let anchor =
        Anchor::unsigned(&authority.federation, &NodeId::new("410100").unwrap(), &hub_key, 1);
    dirs.sign_anchor(1, &anchor).unwrap();
    let foreign = Anchor { federation: FederationId::new("kaifeng").unwrap(), ..anchor.clone() };
    assert!(matches!(dirs.sign_anchor(1, &foreign), Err(CertError::OtherFederation { .. })));

    fs::remove_file(keys.file("root.key")).unwrap();
    let opened = Authority::open(dirs, &IssuerChoice::default()).unwrap();
    assert!(!dirs.has_root_key(1));
    let error = dirs.sign_anchor(1, &anchor).unwrap_err();
    assert!(matches!(&error, CertError::RootKeyAbsent(_)), "{error}");
    assert!(error.to_string().contains("root.key"), "{error}");
    let county = identity("zhengzhou", "410122");
    let csr = NodeKey::generate().unwrap().csr(&county).unwrap();
    opened.issue(&county, &csr, now(), Duration::days(30)).unwrap();

    // Another root's key in its place.
    keys.save("root.key", &NodeKey::generate().unwrap()).unwrap();
    let error = dirs.sign_anchor(1, &anchor).unwrap_err();
    assert!(error.to_string().contains("does not fit"), "{error}");
}

#[test]
fn files_of_two_authorities_do_not_open_together() {
    let authority = TestAuthority::at("zhengzhou", now());
    let other = TestAuthority::at("zhengzhou", now());
    let (ours, theirs) = (authority.dirs(), other.dirs());
    let open = |dirs: &CaDirs| Authority::open(dirs, &IssuerChoice::default());
    let error = open(&CaDirs { keys: theirs.keys.clone(), ..ours.clone() }).unwrap_err();
    assert!(error.to_string().contains("does not fit"), "{error}");
    fs::copy(theirs.certs.join("ca-root-1.pem"), ours.certs.join("ca-root-1.pem")).unwrap();
    let error = open(ours).unwrap_err();
    assert!(error.to_string().contains("was not issued by"), "{error}");
}
