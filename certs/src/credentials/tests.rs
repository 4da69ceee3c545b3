//! Credentials in their files, and every state that a renewal can stop in.
#![allow(clippy::unwrap_used)]

use std::{fs, path::PathBuf};

use time::Duration;

use super::*;
use crate::{
    authority::tests::{TestAuthority, now},
    bundle::{ROOTS_FILE, save_bundle},
    identity::tests::identity,
};

struct County {
    authority: TestAuthority,
    certs: PathBuf,
    keys: KeyDir,
    identity: Identity,
}

impl County {
    fn new() -> Self {
        let authority = TestAuthority::at("zhengzhou", now());
        let (certs, keys) = authority.set_up("410122", now());
        Self { authority, certs, keys, identity: identity("zhengzhou", "410122") }
    }

    fn load(&self) -> Result<Credentials, CertError> {
        Credentials::load(&self.certs, &self.keys, &self.identity)
    }

    fn problem(&self) -> String {
        self.load().unwrap_err().to_string()
    }

    /// A key that waits, and a chain for it.
    fn renewed(&self) -> Vec<CertificateDer<'static>> {
        let key = NodeKey::generate().unwrap();
        self.keys.save_next(NODE_KEY_FILE, &key).unwrap();
        self.chain_for(&key, &self.identity)
    }

    fn chain_for(&self, key: &NodeKey, identity: &Identity) -> Vec<CertificateDer<'static>> {
        let csr = key.csr(identity).unwrap();
        self.authority.issue(identity, &csr, now(), Duration::days(30)).unwrap()
    }

    fn install(
        &self,
        chain: Vec<CertificateDer<'static>>,
        at: OffsetDateTime,
    ) -> Result<Credentials, CertError> {
        install(&self.certs, &self.keys, &self.identity, chain, at)
    }
}

#[test]
fn credentials_load_from_their_files_and_mismatches_are_named() {
    let county = County::new();
    let chain = pem::load_chain(&county.certs.join(NODE_CHAIN_FILE)).unwrap();
    let loaded = county.load().unwrap();
    assert_eq!(loaded.chain, chain);
    assert_eq!(loaded.roots, [county.authority.root().clone()]);
    assert_eq!(loaded.facts().unwrap().identity, Some(county.identity.clone()));
    assert!(!format!("{loaded:?}").contains("key"));

    let other = identity("zhengzhou", "410100");
    let error = Credentials::load(&county.certs, &county.keys, &other).unwrap_err();
    assert!(error.to_string().contains("but this node is"), "{error}");

    // Without the issuing certificate the chain ends in the air.
    let node_pem = county.certs.join(NODE_CHAIN_FILE);
    pem::save_chain(&node_pem, &chain[..1]).unwrap();
    assert!(county.problem().contains("does not lead to a trusted root"), "{}", county.problem());
    pem::save_chain(&node_pem, &chain).unwrap();

    // Any root of the bundle will do, and it has to be one of them.
    let stranger = TestAuthority::at("zhengzhou", now()).root().clone();
    save_bundle(&county.certs, &[stranger.clone(), county.authority.root().clone()]).unwrap();
    assert_eq!(county.load().unwrap().roots.len(), 2);
    save_bundle(&county.certs, &[stranger]).unwrap();
    assert!(county.problem().contains(ROOTS_FILE), "{}", county.problem());
    save_bundle(&county.certs, &[county.authority.root().clone()]).unwrap();

    fs::remove_file(county.keys.file(NODE_KEY_FILE)).unwrap();
    assert!(county.problem().contains("node.key"), "{}", county.problem());
    county.keys.save(NODE_KEY_FILE, &NodeKey::generate().unwrap()).unwrap();
    assert!(county.problem().contains("does not fit the certificate"), "{}", county.problem());
}

#[test]
fn expired_credentials_still_load() {
    let authority = TestAuthority::at("zhengzhou", now() - Duration::days(60));
    let county = authority.credentials("410122", now() - Duration::days(60));
    assert!(county.not_after().unwrap() < now());
}

#[test]
fn a_renewed_certificate_takes_its_place() {
    let county = County::new();
    let before = county.load().unwrap();
    let chain = county.renewed();
    let installed = county.install(chain.clone(), now()).unwrap();
    let loaded = county.load().unwrap();
    assert_eq!((&installed.chain, &loaded.chain), (&chain, &chain));
    assert_eq!(installed.key, loaded.key);
    assert_ne!(loaded.key, before.key);
    assert!(!county.keys.exists("node.key.next"));
}

#[test]
fn a_renewal_that_is_stopped_anywhere_leaves_a_pair_that_loads() {
    // With the key drawn, and not yet a certificate for it: the old pair.
    let county = County::new();
    let old = county.load().unwrap();
    let chain = county.renewed();
    let loaded = county.load().unwrap();
    assert_eq!((&loaded.chain, &loaded.key), (&old.chain, &old.key));
    assert!(county.keys.exists("node.key.next"), "it still waits for its certificate");

    // With the certificate written, and its key not yet in place: the new pair.
    pem::save_chain(&county.certs.join(NODE_CHAIN_FILE), &chain).unwrap();
    let loaded = county.load().unwrap();
    assert_eq!(loaded.chain, chain);
    assert_ne!(loaded.key, old.key);
    assert!(!county.keys.exists("node.key.next"), "the renewal was finished");
    assert_eq!(county.load().unwrap().key, loaded.key);

    // A key that waits for nothing in particular changes nothing.
    county.keys.save_next(NODE_KEY_FILE, &NodeKey::generate().unwrap()).unwrap();
    assert_eq!(county.load().unwrap().key, loaded.key);
    assert!(county.keys.exists("node.key.next"));
}

#[test]
fn what_would_not_load_is_not_installed() {
    let county = County::new();
    let before = fs::read(county.certs.join(NODE_CHAIN_FILE)).unwrap();
    let key = NodeKey::generate().unwrap();
    let chain = county.chain_for(&key, &county.identity);
    let unchanged = |refused: Result<Credentials, CertError>, part: &str| {
        let error = refused.unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
        assert_eq!(fs::read(county.certs.join(NODE_CHAIN_FILE)).unwrap(), before);
        county.load().unwrap();
    };
    unchanged(county.install(chain.clone(), now()), "no successor waiting");
    county.keys.save_next(NODE_KEY_FILE, &key).unwrap();

    let stranger = NodeKey::generate().unwrap();
    let another_key = county.chain_for(&stranger, &county.identity);
    unchanged(county.install(another_key, now()), "does not fit");
    let other = identity("zhengzhou", "410100");
    unchanged(county.install(county.chain_for(&key, &other), now()), "but this node is");
    unchanged(county.install(chain[..1].to_vec(), now()), "does not lead to a trusted root");
    unchanged(county.install(Vec::new(), now()), "there is no certificate");
    for outside in [now() + Duration::days(31), now() - Duration::days(1)] {
        let refused = county.install(chain.clone(), outside);
        unchanged(refused, "this machine's clock says");
    }
    assert!(county.keys.exists("node.key.next"), "it waits for a better one");
    county.install(chain, now()).unwrap();
}

/// The leaf is valid, and a CA above it is not any more.
#[test]
fn a_chain_that_nobody_accepts_now_is_not_installed() {
    let county = County::new();
    let dirs = county.authority.dirs();
    let federation = &county.authority.federation;
    dirs.create_root(federation, 2, now(), Duration::days(10)).unwrap();
    save_bundle(&county.certs, &[county.authority.root().clone(), dirs.root(2).unwrap()]).unwrap();
    dirs.create_issuing(federation, 2, 2, now(), Duration::days(400)).unwrap();
    let choice = crate::authority::IssuerChoice { issuing: 2, root: 2, cross_by: Vec::new() };
    let second = crate::authority::Authority::open(dirs, &choice).unwrap();
    let key = NodeKey::generate().unwrap();
    county.keys.save_next(NODE_KEY_FILE, &key).unwrap();
    let csr = key.csr(&county.identity).unwrap();
    let mut chain = second.issue(&county.identity, &csr, now(), Duration::days(5)).unwrap();
    county.install(chain.clone(), now() + Duration::days(6)).unwrap_err();
    // An issuing certificate that is not the leaf's.
    chain[1] = county.authority.issuing().clone();
    county.install(chain, now()).unwrap_err();
}
