//! Which new root a member may trust, beside the program: one whose own name and key an
//! older trusted root has certified.

use certs::bundle::bundle_accepts;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256,
};
use rustls::pki_types::CertificateDer;

use super::certificate;

/// A name and a key that certify themselves.
struct Root {
    params: CertificateParams,
    key: KeyPair,
    certificate: CertificateDer<'static>,
}

impl Root {
    fn new(name: &str) -> Self {
        Self::of(name, KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap())
    }

    fn of(name: &str, key: KeyPair) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap().into();
        Self { params, key, certificate }
    }

    /// The same name with another root's key.
    fn with_key_of(&self, other: &Self) -> Self {
        let key = KeyPair::from_pkcs8_der_and_sign_algo(
            &other.key.serialize_der().into(),
            &PKCS_ECDSA_P256_SHA256,
        );
        let params = self.params.clone();
        Self { params, key: key.unwrap(), certificate: self.certificate.clone() }
    }

    /// Its name and key, certified by another one.
    fn crossed_by(&self, by: &Self) -> CertificateDer<'static> {
        let issuer = Issuer::from_params(&by.params, &by.key);
        self.params.signed_by(&self.key, &issuer).unwrap().into()
    }
}

#[test]
fn both_trust_the_same_new_roots() {
    let [old, older, new, stranger] = ["old", "older", "new", "stranger"].map(Root::new);
    let imitated = Root::new("old");
    let mut flipped = new.crossed_by(&old).to_vec();
    *flipped.last_mut().unwrap() ^= 1;
    let flipped = CertificateDer::from(flipped);
    let trusted = [older.certificate.clone(), old.certificate.clone()];
    for (what, cross, taken) in [
        ("by a trusted root", new.crossed_by(&old), true),
        ("by the other one", new.crossed_by(&older), true),
        ("by a stranger", new.crossed_by(&stranger), false),
        ("by one with a trusted root's name", new.crossed_by(&imitated), false),
        ("of another name and key", stranger.crossed_by(&old), false),
        ("of another key", new.with_key_of(&stranger).crossed_by(&old), false),
        ("of another name", stranger.with_key_of(&new).crossed_by(&old), false),
        ("its own signature", new.certificate.clone(), false),
        ("an altered one", flipped, false),
    ] {
        let own = certificate::check_cross(
            &trusted.each_ref().map(|root| &root[..]),
            &new.certificate,
            &cross,
        );
        let program = bundle_accepts(&trusted, &new.certificate, Some(&cross));
        assert_eq!([own.is_ok(), program.is_ok()], [taken; 2], "{what}: {own:?}, {program:?}");
    }
    assert!(bundle_accepts(&trusted, &new.certificate, None).is_err());
}
