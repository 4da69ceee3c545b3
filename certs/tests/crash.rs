//! Processes that die at every point of a rotation, and what the next one makes
//! of it.
#![allow(clippy::unwrap_used, reason = "a test fails loudly")]
#![cfg(debug_assertions)]

use std::{env, path::Path, process::Command};

use certs::{
    authority::{
        Authority, CaDirs, CaRole, ISSUING_LIFETIME, IssuerChoice, Lifetimes, NodeKey,
        ROOT_LIFETIME,
    },
    bundle::{bundle_accepts, load_bundle, save_bundle},
    credentials::{Credentials, NODE_CHAIN_FILE, install},
    fault,
    identity::Identity,
    keyfile::{KeyDir, NODE_KEY_FILE},
    pem::save_chain,
};
use protocol::id::{FederationId, NodeId};
use time::{Duration, OffsetDateTime};

/// Where the child works; without it `the_life_of_a_federation` does nothing.
const DIRECTORY: &str = "CREDITSYNC_TEST_DIRECTORY";

fn now() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_790_000_000).unwrap()
}

fn identity() -> Identity {
    Identity::new(&FederationId::new("zhengzhou").unwrap(), &NodeId::new("410100").unwrap())
}

fn dirs(path: &Path) -> CaDirs {
    let keys = KeyDir::new(path.join("keys"), None);
    CaDirs { certs: path.join("certs"), root_keys: keys.beside(path.join("stick")), keys }
}

/// Everything from the first root to the retirement of the first generation.
/// Each step can be taken again.
fn live(path: &Path) {
    let (dirs, identity) = (dirs(path), identity());
    let federation = &identity.federation;
    let first = IssuerChoice::default();
    let second = IssuerChoice { issuing: 2, root: 2, cross_by: vec![1] };
    let (keys, certs) = (&dirs.keys, dirs.certs.as_path());

    if !certs.join("done-1").exists() {
        let authority = Authority::create(&dirs, federation, now(), &Lifetimes::default()).unwrap();
        if !keys.exists(NODE_KEY_FILE) {
            keys.save(NODE_KEY_FILE, &NodeKey::generate().unwrap()).unwrap();
        }
        let key: NodeKey = keys.load(NODE_KEY_FILE).unwrap();
        let csr = key.csr(&identity).unwrap();
        let chain = authority.issue(&identity, &csr, now(), Duration::days(30)).unwrap();
        save_chain(&certs.join(NODE_CHAIN_FILE), &chain).unwrap();
        save_bundle(certs, &[authority.root().clone()]).unwrap();
        std::fs::write(certs.join("done-1"), b"").unwrap();
    }

    let new = dirs.create_root(federation, 2, now(), ROOT_LIFETIME).unwrap();
    let cross = dirs.cross_sign(1, 2, now()).unwrap();
    dirs.create_issuing(federation, 2, 2, now(), ISSUING_LIFETIME).unwrap();
    let mut bundle = load_bundle(certs).unwrap();
    bundle_accepts(&bundle, &new, Some(&cross)).unwrap();
    if !bundle.contains(&new) {
        bundle.push(new.clone());
        save_bundle(certs, &bundle).unwrap();
    }

    let current = Credentials::load(certs, keys, &identity).unwrap();
    let authority = Authority::open(&dirs, &second).unwrap();
    if current.chain[1] != *authority.issuing() {
        let next = match keys.load_next::<NodeKey>(NODE_KEY_FILE).unwrap() {
            Some(next) => next,
            None => {
                keys.save_next(NODE_KEY_FILE, &NodeKey::generate().unwrap()).unwrap();
                keys.load_next(NODE_KEY_FILE).unwrap().unwrap()
            }
        };
        let csr = next.csr(&identity).unwrap();
        let chain = authority.issue(&identity, &csr, now(), Duration::days(30)).unwrap();
        install(certs, keys, &identity, chain, now()).unwrap();
    }
    dirs.delete_key(CaRole::Root, 1).unwrap();
    dirs.delete_key(CaRole::Issuing, 1).unwrap();
    Authority::open(&dirs, &first).unwrap_err();
}

/// Not a test of its own: the child of the test below.
#[test]
fn the_life_of_a_federation() {
    if let Some(path) = env::var_os(DIRECTORY) {
        live(Path::new(&path));
    }
}

fn child(path: &Path, crash_at: Option<&str>) -> bool {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "the_life_of_a_federation"]).env(DIRECTORY, path);
    match crash_at {
        Some(point) => command.env(fault::VARIABLE, point),
        None => command.env_remove(fault::VARIABLE),
    };
    command.output().unwrap().status.success()
}

#[test]
fn a_crash_at_any_point_is_recovered_from() {
    for point in fault::POINTS.iter().filter(|point| {
        ["ca.", "bundle.", "key.", "node."].iter().any(|part| point.starts_with(part))
    }) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        // The point is met more than once in a life: die at each.
        let mut deaths = 0;
        assert!(!child(path, Some(point)), "{point} is never met");
        while deaths < 5 && !child(path, Some(point)) {
            deaths += 1;
        }
        assert!(child(path, None), "{point}: the life does not go on after {deaths} deaths");

        let dirs = dirs(path);
        let credentials = Credentials::load(&dirs.certs, &dirs.keys, &identity()).unwrap();
        assert_eq!(credentials.roots, [dirs.root(1).unwrap(), dirs.root(2).unwrap()]);
        assert_eq!(credentials.chain[1], dirs.issuing(2).unwrap(), "{point}");
        assert!(!dirs.keys.exists("node.key.next"), "{point}");
        let left: Vec<_> = [&dirs.certs, dirs.keys.path(), dirs.root_keys.path()]
            .iter()
            .flat_map(|dir| std::fs::read_dir(dir).unwrap())
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.ends_with(".tmp"))
            .collect();
        assert!(left.is_empty(), "{point}: {left:?}");
    }
}
