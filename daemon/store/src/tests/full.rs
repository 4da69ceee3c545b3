//! A disk that another program fills at the wrong moment: at any write of a commit.
//!
//! The reserve keeps room for what this program writes ([`super::disk`]); nothing keeps
//! others from taking it after it was asked for.

use std::{fs, path::Path, sync::atomic::Ordering};

use protocol::change::Change;

use super::{
    disk::{Mount, noise},
    fixtures::{
        Content, Random, apply, assert_holds, commit, copy_directory, enterprise, federation, open,
        options, put, puts, try_commit,
    },
};
use crate::Store;

const PAGE: u64 = 4096;
/// The small disk.
const DISK_MB: u64 = 96;
/// At most so many attempts a kind of commit.
const ATTEMPTS_MAX: u32 = 60;
/// More small commits than the journal and what sled has allocated could hold.
const ROUNDS_MAX: u64 = 1000;

fn free(disk: &Path) -> u64 {
    let stat = rustix::fs::statvfs(disk).unwrap();
    stat.f_bavail * stat.f_frsize
}

/// Fills the disk until so many bytes are left.
fn leave(disk: &Path, bytes: u64) {
    let ballast = usize::try_from(free(disk).saturating_sub(bytes)).unwrap();
    fs::write(disk.join("ballast"), vec![1; ballast]).unwrap();
}

/// A store with what every attempt begins with.
fn template() -> (tempfile::TempDir, Content) {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory.path().join("store"));
    commit(&store, &federation(), vec![put(1, "hub")]);
    let changes = puts(0..3000, "before");
    let mut content = Content::new();
    apply(&mut content, &changes);
    commit(&store, &enterprise(), changes);
    (directory, content)
}

/// Whether the store holds either of two contents; which one is answered.
fn holds_either(store: &Store, before: &Content, after: &Content) -> bool {
    let records = store.head(&enterprise()).unwrap().signed.header().records;
    let is_after = records == after.len() as u64;
    assert_holds(store, &enterprise(), if is_after { after } else { before });
    is_after
}

/// Tries one commit with more and more room, from none on, until it goes through.
fn at_any_write(what: &str, changes: &[Change]) {
    let (template, before) = template();
    let mut after = before.clone();
    apply(&mut after, changes);
    assert_ne!(before.len(), after.len(), "the number of records tells them apart");
    let (mut room, mut refused, mut wounded) = (0, 0, 0);
    for attempt in 1.. {
        assert!(attempt <= ATTEMPTS_MAX, "{what}: it never goes through");
        let Some(mount) = Mount::new(DISK_MB) else { return };
        let disk = mount.0.path();
        copy_directory(template.path(), disk);
        let path = disk.join("store");
        let store = open(&path);
        assert_holds(&store, &enterprise(), &before);
        store.shared.disk.broken.room.store(true, Ordering::Relaxed);
        leave(disk, room);
        let committed = try_commit(&store, &enterprise(), changes.to_vec());
        println!("{what}, {room} bytes left: {:?}", committed.as_ref().map(|head| head.seq()));
        // What was acknowledged before is read, and nothing half written.
        if !store.has_failed() {
            holds_either(&store, &before, &after);
        }
        wounded += u32::from(store.has_failed());
        drop(store);
        fs::remove_file(disk.join("ballast")).unwrap();
        let store = open(&path);
        let is_after = holds_either(&store, &before, &after);
        assert!(is_after || committed.is_err(), "{what}: acknowledged, and lost");
        // It goes on.
        commit(&store, &enterprise(), vec![put(90_000, "next")]);
        if committed.is_ok() {
            break;
        }
        refused += 1;
        // Small steps first: most files take a page or two.
        room += PAGE * (1 + u64::from(attempt) * u64::from(attempt) * 2 / 3);
    }
    println!("{what}: {refused} were refused, {wounded} of them wanted a restart");
    assert!(refused > 1, "{what}: the disk was never full");
}

/// The journal has its room from the beginning: small commits go through until it is full.
#[test]
fn small_commits_on_a_full_disk_are_durable_or_refused() {
    let (template, mut content) = template();
    let Some(mount) = Mount::new(DISK_MB) else { return };
    let disk = mount.0.path();
    copy_directory(template.path(), disk);
    let path = disk.join("store");
    let store = open(&path);
    store.shared.disk.broken.room.store(true, Ordering::Relaxed);
    leave(disk, 0);
    let mut random = Random::new();
    let mut acknowledged = 0;
    let after = loop {
        assert!(acknowledged < ROUNDS_MAX, "it is never full");

        let changes: Vec<Change> =
            (0..100).map(|n| put(5000 + acknowledged * 100 + n, noise(&mut random, 600))).collect();
        let mut after = content.clone();
        apply(&mut after, &changes);
        match try_commit(&store, &enterprise(), changes) {
            Ok(_) => content = after,
            Err(error) => {
                println!("{acknowledged} commits went through, then: {error}");
                break after;
            }
        }
        acknowledged += 1;
    };
    assert!(acknowledged > 0);
    drop(store);
    // A start on the full disk is refused, or shows the same.
    match Store::open(&path, &options()) {
        Ok(store) => drop(holds_either(&store, &content, &after)),
        Err(error) => println!("on the full disk: {error}"),
    }
    fs::remove_file(disk.join("ballast")).unwrap();
    let store = open(&path);
    holds_either(&store, &content, &after);
    commit(&store, &enterprise(), vec![put(90_000, "next")]);
}

#[test]
fn a_disk_that_is_full_at_any_write_of_a_large_commit_loses_nothing() {
    // Beyond the journal, with leaves in packs.
    let mut random = Random::new();
    let changes: Vec<Change> = (1000..4000).map(|n| put(n, noise(&mut random, 1200))).collect();
    at_any_write("large", &changes);
}
