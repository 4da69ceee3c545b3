//! The generations of CAs: succession, idempotence, crashes, misfits.
#![allow(clippy::unwrap_used)]

use std::fs;

use protocol::{id::NodeId, suite::Suite};
use rustls_pki_types::CertificateDer;

use super::{
    tests::{TestAuthority, credentials_by, now},
    *,
};
use crate::{credentials::Credentials, enrol::Anchor, identity::tests::identity, keyfile::KeyDir};

/// The first generation, and a second root that the first vouches for.
struct Two {
    made: TestAuthority,
    new_root: CertificateDer<'static>,
    cross: CertificateDer<'static>,
}

fn two() -> Two {
    let made = TestAuthority::at("zhengzhou", now());
    let new_root = made.dirs().create_root(&made.federation, 2, now(), ROOT_LIFETIME).unwrap();
    let cross = made.dirs().cross_sign(1, 2, now()).unwrap();
    made.dirs().create_issuing(&made.federation, 2, 2, now(), ISSUING_LIFETIME).unwrap();
    Two { made, new_root, cross }
}

fn second(cross: bool) -> IssuerChoice {
    let cross_by = if cross { vec![1] } else { Vec::new() };
    IssuerChoice { issuing: 2, root: 2, cross_by }
}

#[test]
fn later_generations_have_names_and_files_of_their_own() {
    let Two { made, new_root, cross } = two();
    let dirs = made.dirs();
    for name in ["ca-root-1", "ca-issuing-1", "ca-root-2", "ca-issuing-2", "ca-root-2-by-1"] {
        assert!(dirs.certs.join(format!("{name}.pem")).exists(), "{name}");
    }
    for name in ["root.key", "issuing.key", "root-2.key", "issuing-2.key"] {
        assert!(dirs.keys.exists(name), "{name}");
    }
    let facts = identity::facts(&new_root).unwrap();
    assert_eq!(facts.subject, "O=zhengzhou, CN=creditsync root zhengzhou 2");
    assert_eq!(facts.issuer, facts.subject);
    let vouched = identity::facts(&cross).unwrap();
    assert_eq!(vouched.subject, facts.subject);
    assert_eq!(vouched.issuer, "O=zhengzhou, CN=creditsync root zhengzhou");
    let parsed = identity::parse(&cross).unwrap();
    assert_eq!(parsed.public_key().raw, identity::parse(&new_root).unwrap().public_key().raw);
    let constraints = parsed.basic_constraints().unwrap().unwrap().value;
    assert_eq!((constraints.ca, constraints.path_len_constraint), (true, Some(1)));
    let issuing = identity::facts(&dirs.issuing(2).unwrap()).unwrap();
    assert_eq!(issuing.subject, "O=zhengzhou, CN=creditsync issuing zhengzhou 2");
    assert_eq!(issuing.issuer, facts.subject);
}

#[test]
fn old_and_new_roots_accept_the_new_generation_with_its_cross_certificate() {
    let Two { made, new_root, cross } = two();
    let authority = Authority::open(made.dirs(), &second(true)).unwrap();
    let old_root = made.root().clone();
    for roots in
        [vec![old_root.clone()], vec![new_root.clone()], vec![old_root.clone(), new_root.clone()]]
    {
        let county = credentials_by(&authority, "410122", now(), Duration::days(30), roots);
        assert_eq!(county.chain[1..], [authority.issuing().clone(), cross.clone()]);
    }
    // Without it only the new root does.
    let bare = Authority::open(made.dirs(), &second(false)).unwrap();
    let county = identity("zhengzhou", "410122");
    let key = NodeKey::generate().unwrap();
    let chain = bare.issue(&county, &key.csr(&county).unwrap(), now(), Duration::days(30)).unwrap();
    assert_eq!(chain.len(), 2);
    let accepted = |root: &CertificateDer<'static>| {
        let roots = vec![root.clone()];
        Credentials::new(chain.clone(), key.private_key(), roots, county.clone()).is_ok()
    };
    assert!(accepted(&new_root) && !accepted(&old_root));
}

#[test]
fn nothing_outlives_what_issued_it() {
    let made = TestAuthority::at("zhengzhou", now());
    let dirs = made.dirs();
    let root_end = identity::facts(made.root()).unwrap().not_after;
    let late = root_end - Duration::days(2);
    let new = dirs.create_root(&made.federation, 2, late, ROOT_LIFETIME).unwrap();
    assert!(identity::facts(&new).unwrap().not_after > root_end);
    let cross = dirs.cross_sign(1, 2, late).unwrap();
    assert_eq!(identity::facts(&cross).unwrap().not_after, root_end);
    let issuing = dirs.create_issuing(&made.federation, 2, 1, late, ISSUING_LIFETIME).unwrap();
    assert_eq!(identity::facts(&issuing).unwrap().not_after, root_end);
    // The new root may be the one that ends first.
    dirs.create_root(&made.federation, 3, now(), Duration::days(5)).unwrap();
    let cross = dirs.cross_sign(1, 3, now()).unwrap();
    assert_eq!(identity::facts(&cross).unwrap().not_after, now() + Duration::days(5));

    for after in [root_end, root_end + Duration::days(1)] {
        for refused in [
            dirs.cross_sign(1, 4, after).map(|_| ()),
            dirs.create_issuing(&made.federation, 9, 1, after, ISSUING_LIFETIME).map(|_| ()),
        ] {
            let error = refused.unwrap_err();
            // Root 4 does not exist, so it may be that which is named.
            assert!(
                matches!(error, CertError::IssuerNotValid { .. } | CertError::File { .. }),
                "{error}"
            );
        }
        assert!(!dirs.keys.exists("issuing-9.key"), "a refusal leaves nothing behind");
    }
}

#[test]
fn each_step_can_be_taken_again() {
    let Two { made, new_root, cross } = two();
    let dirs = made.dirs();
    let later = now() + Duration::days(3);
    let life = Duration::days(7);
    let issuing = dirs.issuing(2).unwrap();
    let again = || {
        assert_eq!(dirs.create_root(&made.federation, 2, later, life).unwrap(), new_root);
        assert_eq!(dirs.cross_sign(1, 2, later).unwrap(), cross);
        assert_eq!(dirs.create_issuing(&made.federation, 2, 2, later, life).unwrap(), issuing);
    };
    again();
    // With the roots' keys offline, and even the issuing key gone.
    for name in ["root.key", "root-2.key", "issuing-2.key"] {
        fs::remove_file(dirs.keys.file(name)).unwrap();
        again();
    }
}

#[test]
fn a_step_that_was_stopped_behind_its_key_goes_on_with_that_key() {
    let Two { made, .. } = two();
    let dirs = made.dirs();
    let key_of = |file: &str| dirs.keys.load::<NodeKey>(file).unwrap().public_key_info();
    let in_cert =
        |cert: &CertificateDer<'_>| identity::parse(cert).unwrap().public_key().raw.to_vec();

    fs::remove_file(dirs.certs.join("ca-root-2.pem")).unwrap();
    fs::remove_file(dirs.certs.join("ca-root-2-by-1.pem")).unwrap();
    fs::remove_file(dirs.certs.join("ca-issuing-2.pem")).unwrap();
    let before = (key_of("root-2.key"), key_of("issuing-2.key"));
    let root = dirs.create_root(&made.federation, 2, now(), ROOT_LIFETIME).unwrap();
    dirs.cross_sign(1, 2, now()).unwrap();
    let issuing = dirs.create_issuing(&made.federation, 2, 2, now(), ISSUING_LIFETIME).unwrap();
    assert_eq!((in_cert(&root), in_cert(&issuing)), before);
    Authority::open(dirs, &second(true)).unwrap();
}

#[test]
fn files_that_do_not_fit_together_are_refused() {
    let Two { made, .. } = two();
    let other = two().made;
    let (ours, theirs) = (made.dirs(), other.dirs());
    let federation = &made.federation;
    let backup = tempfile::tempdir().unwrap();
    // Each file in turn is somebody else's, of the same name.
    for (file, problem) in [
        ("certs/ca-root-2.pem", "does not fit"),
        ("certs/ca-issuing-2.pem", "was not issued by"),
        ("certs/ca-root-2-by-1.pem", "is not the older root's certificate"),
        ("keys/root-2.key", "does not fit"),
        ("keys/issuing-2.key", "does not fit"),
    ] {
        let (our_file, saved) = (made.directory.path().join(file), backup.path().join("saved"));
        fs::copy(&our_file, &saved).unwrap();
        fs::copy(other.directory.path().join(file), &our_file).unwrap();
        let results = [
            ours.create_root(federation, 2, now(), ROOT_LIFETIME).map(|_| ()),
            ours.cross_sign(1, 2, now()).map(|_| ()),
            ours.create_issuing(federation, 2, 2, now(), ISSUING_LIFETIME).map(|_| ()),
        ];
        let errors: Vec<String> =
            results.into_iter().filter_map(Result::err).map(|error| error.to_string()).collect();
        assert!(errors.iter().any(|error| error.contains(problem)), "{file}: {errors:?}");
        if file != "keys/root-2.key" {
            Authority::open(ours, &second(true)).unwrap_err();
        }
        fs::copy(&saved, &our_file).unwrap();
    }
    Authority::open(ours, &second(true)).unwrap();

    let foreign = FederationId::new("kaifeng").unwrap();
    assert!(ours.create_root(&foreign, 2, now(), ROOT_LIFETIME).is_err());
    assert!(ours.create_issuing(&foreign, 3, 2, now(), ISSUING_LIFETIME).is_err());
    assert!(ours.create_root(federation, 0, now(), ROOT_LIFETIME).is_err());
    // A certificate under another number's name.
    fs::copy(ours.certs.join("ca-root-2.pem"), ours.certs.join("ca-root-3.pem")).unwrap();
    let error = ours.create_root(federation, 3, now(), ROOT_LIFETIME).unwrap_err();
    assert!(error.to_string().contains("creditsync root zhengzhou 3"), "{error}");
    drop(theirs.clone());
}

#[test]
fn a_choice_of_what_does_not_exist_is_refused() {
    let Two { made, .. } = two();
    for (issuing, root, cross_by) in
        [(1, 2, vec![]), (2, 1, vec![]), (1, 1, vec![2]), (2, 2, vec![1, 3]), (3, 2, vec![])]
    {
        let choice = IssuerChoice { issuing, root, cross_by };
        assert!(Authority::open(made.dirs(), &choice).is_err(), "{choice:?}");
    }
}

#[test]
fn several_old_roots_can_vouch_for_one() {
    let Two { made, new_root, .. } = two();
    let dirs = made.dirs();
    let third = dirs.create_root(&made.federation, 3, now(), ROOT_LIFETIME).unwrap();
    for old in [1, 2] {
        dirs.cross_sign(old, 3, now()).unwrap();
    }
    dirs.create_issuing(&made.federation, 3, 3, now(), ISSUING_LIFETIME).unwrap();
    let choice = IssuerChoice { issuing: 3, root: 3, cross_by: vec![1, 2] };
    let authority = Authority::open(dirs, &choice).unwrap();
    assert_eq!(authority.choice(), &choice);
    for root in [made.root().clone(), new_root, third] {
        let county = credentials_by(&authority, "1", now(), Duration::days(1), vec![root]);
        assert_eq!(county.chain.len(), 4);
    }
}

#[test]
fn root_keys_may_lie_elsewhere_and_are_asked_for_where_they_are_needed() {
    let directory = tempfile::tempdir().unwrap();
    let keys = KeyDir::new(directory.path().join("keys"), None);
    let stick = keys.beside(directory.path().join("stick"));
    let dirs = CaDirs { certs: directory.path().join("certs"), root_keys: stick.clone(), keys };
    let federation = FederationId::new("zhengzhou").unwrap();
    Authority::create(&dirs, &federation, now(), &Lifetimes::default()).unwrap();
    assert!(stick.exists("root.key") && !dirs.keys.exists("root.key"));
    assert!(dirs.has_root_key(1) && !dirs.has_root_key(2));

    let away =
        CaDirs { root_keys: KeyDir::new(directory.path().join("gone"), None), ..dirs.clone() };
    dirs.create_root(&federation, 2, now(), ROOT_LIFETIME).unwrap();
    let absent = |answer: Result<CertificateDer<'static>, CertError>| {
        let error = answer.unwrap_err();
        assert!(matches!(&error, CertError::RootKeyAbsent(_)), "{error}");
        assert!(error.to_string().contains("gone"), "{error}");
    };
    absent(away.cross_sign(1, 2, now()));
    absent(away.create_issuing(&federation, 2, 1, now(), ISSUING_LIFETIME));
    assert!(!away.keys.exists("issuing-2.key"), "a refusal leaves nothing behind");
}

#[test]
fn a_retired_key_is_deleted_and_its_certificate_stays() {
    let Two { made, .. } = two();
    let dirs = made.dirs();
    assert!(dirs.delete_key(CaRole::Issuing, 1).unwrap());
    assert!(!dirs.delete_key(CaRole::Issuing, 1).unwrap(), "done before");
    assert!(dirs.delete_key(CaRole::Root, 1).unwrap());
    assert!(!dirs.keys.exists("root.key") && !dirs.keys.exists("issuing.key"));
    dirs.root(1).unwrap();
    dirs.issuing(1).unwrap();
    Authority::open(dirs, &IssuerChoice::default()).unwrap_err();
    Authority::open(dirs, &second(true)).unwrap();
}

#[test]
fn each_root_signs_anchors_of_its_own() {
    let Two { made, new_root, .. } = two();
    let hub_key = Suite::One.signing_key(&[1; 32]).unwrap().public();
    let anchor = Anchor::unsigned(&made.federation, &NodeId::new("410100").unwrap(), &hub_key, 2);
    let signed = made.dirs().sign_anchor(2, &anchor).unwrap();
    signed.verify_any(std::slice::from_ref(&new_root)).unwrap();
    signed.verify_any(&[made.root().clone(), new_root]).unwrap();
    assert!(signed.verify_any(std::slice::from_ref(made.root())).is_err());
}

/// Where OpenSSL is installed, it agrees with the paths that are built here.
#[test]
fn openssl_verifies_both_paths() {
    use std::process::Command;
    let Two { made, .. } = two();
    let dirs = made.dirs();
    let authority = Authority::open(dirs, &second(true)).unwrap();
    let roots = vec![made.root().clone()];
    let county = credentials_by(&authority, "410122", now(), Duration::days(30), roots);
    let (leaf, above) = (dirs.certs.join("leaf.pem"), dirs.certs.join("above.pem"));
    crate::pem::save_chain(&leaf, &county.chain[..1]).unwrap();
    crate::pem::save_chain(&above, &county.chain[1..]).unwrap();
    for root in ["ca-root-1.pem", "ca-root-2.pem"] {
        let output = Command::new("openssl")
            .args(["verify", "-x509_strict", "-purpose", "sslclient", "-attime", "1790000000"])
            .args(["-CAfile".as_ref(), dirs.certs.join(root).as_os_str()])
            .args(["-untrusted".as_ref(), above.as_os_str(), leaf.as_os_str()])
            .output();
        let Ok(output) = output else {
            eprintln!("openssl is not installed: nothing was compared");
            return;
        };
        assert!(output.status.success(), "{root}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
