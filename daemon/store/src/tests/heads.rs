//! The sidecar: a store that lost what it acknowledged says so.

use std::{collections::BTreeMap, path::Path};

use protocol::id::PartitionId;

use super::fixtures::{
    Random, commit, copy_crashed, copy_directory, enterprise, federation, follow, fresh, open,
    options, own, put, puts, wait,
};
use crate::{Store, StoreError};

/// Number of each partition in the sidecar of a store directory.
fn sidecar(directory: &Path) -> BTreeMap<PartitionId, u64> {
    let text = std::fs::read_to_string(directory.join("HEADS")).unwrap_or_default();
    let line = |line: &str| {
        let mut words = line.split(' ');
        let partition = PartitionId::parse_full(words.next()?).ok()?;
        Some((partition, words.next()?.parse().ok()?))
    };
    text.lines().filter_map(line).collect()
}

fn numbers(store: &Store) -> BTreeMap<PartitionId, u64> {
    store.heads().into_iter().map(|(partition, head)| (partition, head.seq())).collect()
}

/// Replaces what `to` holds, except for the sidecar.
fn put_back(from: &Path, to: &Path) {
    std::fs::remove_dir_all(to.join("sled")).unwrap();
    copy_directory(&from.join("sled"), &to.join("sled"));
}

#[test]
fn closing_writes_the_sidecar_and_an_older_database_is_noticed() {
    let (directory, store) = fresh();
    let older = tempfile::tempdir().unwrap();
    commit(&store, &enterprise(), puts(0..100, "x"));
    drop(store);
    copy_directory(directory.path(), older.path());
    let store = open(directory.path());
    commit(&store, &enterprise(), puts(0..100, "y"));
    let heads = numbers(&store);
    drop(store);
    assert_eq!(sidecar(directory.path()), heads);
    let newest = tempfile::tempdir().unwrap();
    copy_directory(directory.path(), newest.path());
    put_back(older.path(), directory.path());
    // It opens, says what is missing, and writes nothing upon it.
    let store = open(directory.path());
    assert_eq!(store.lost(), [(enterprise(), 2)].into());
    let refused = wait(store.commit_own(own(&enterprise(), vec![put(1, "z")])));
    assert!(
        matches!(refused, Err(StoreError::AwaitsOwnHistory { have: 1, awaited: 2, .. })),
        "{refused:?}"
    );
    // Others are written, and the sidecar goes on to say what was lost.
    commit(&store, &federation(), vec![put(2, "hub")]);
    drop(store);
    let mut vouched = heads.clone();
    vouched.insert(federation(), 2);
    assert_eq!(sidecar(directory.path()), vouched);
    // Nor is an empty database taken for a new one,
    std::fs::remove_dir_all(directory.path().join("sled")).unwrap();
    let empty = Store::open(directory.path(), &options()).err().unwrap();
    assert!(matches!(empty, StoreError::Damaged { .. }), "{empty:?}");
    // but one that is made in place of it, which has lost all of it.
    let moved = tempfile::tempdir().unwrap();
    let (rebuilt, aside) = (moved.path().join("store"), moved.path().join("aside"));
    copy_directory(directory.path(), &rebuilt);
    Store::set_aside(&rebuilt, &aside).unwrap();
    for _ in 0..2 {
        let store = open(&rebuilt);
        assert_eq!(store.lost(), vouched);
        drop(store);
        assert_eq!(sidecar(&rebuilt), vouched);
    }
    assert_eq!(sidecar(&aside), vouched);
    // An interruption between the two moves leaves it beside its place.
    std::fs::rename(&rebuilt, moved.path().join("store.new")).unwrap();
    Store::finish_setting_aside(&rebuilt).unwrap();
    assert_eq!(open(&rebuilt).lost(), vouched);
    put_back(newest.path(), directory.path());
    let store = open(directory.path());
    assert_eq!((numbers(&store), store.lost()), (heads, [(federation(), 2)].into()));
    // What comes back is not lost any more.
    commit(&store, &enterprise(), vec![put(1, "z")]);
    assert_eq!(store.lost(), [(federation(), 2)].into());
}

#[test]
fn what_was_lost_of_a_replica_is_followed_again() {
    let (_a, origin) = fresh();
    let (b, older) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let replica = open(b.path());
    follow(&origin, &replica, &federation());
    commit(&origin, &enterprise(), puts(0..100, "x"));
    follow(&origin, &replica, &enterprise());
    drop(replica);
    copy_directory(b.path(), older.path());
    let replica = open(b.path());
    commit(&origin, &enterprise(), puts(50..150, "y"));
    follow(&origin, &replica, &enterprise());
    drop(replica);
    put_back(older.path(), b.path());
    let replica = open(b.path());
    assert_eq!(replica.lost(), [(enterprise(), 2)].into());
    follow(&origin, &replica, &enterprise());
    assert_eq!(replica.lost(), [].into());
    let heads = numbers(&replica);
    drop(replica);
    assert_eq!(sidecar(b.path()), heads);
}

#[test]
fn a_sidecar_that_is_missing_or_altered_is_written_anew() {
    let (directory, store) = fresh();
    let file = directory.path().join("HEADS");
    let heads = numbers(&store);
    drop(store);
    let good = std::fs::read(&file).unwrap();
    let mut altered = good.clone();
    let digit = altered.windows(3).position(|three| three == b" 1 ").unwrap() + 1;
    altered[digit] = b'9';
    let spoilt = [
        None,
        Some(vec![]),
        Some(good[..good.len() / 2].to_vec()),
        Some(altered),
        Some(vec![0xff; 50]),
    ];
    for spoilt in spoilt {
        match &spoilt {
            None => std::fs::remove_file(&file).unwrap(),
            Some(bytes) => std::fs::write(&file, bytes).unwrap(),
        }
        let store = open(directory.path());
        assert_eq!(numbers(&store), heads, "{spoilt:?}");
        drop(store);
        assert_eq!(std::fs::read(&file).unwrap(), good, "{spoilt:?}");
    }
}

#[test]
fn the_sidecar_is_never_ahead_of_the_database() {
    let mut random = Random::new();
    let (directory, store) = fresh();
    let mut seen = 0;
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for number in 0..1500 {
                commit(&store, &enterprise(), vec![put(number % 50, format!("{number}"))]);
            }
        });
        while !writer.is_finished() {
            // First the sidecar, then the database: as if the machine stopped in
            // between, only worse.
            let copy = tempfile::tempdir().unwrap();
            if std::fs::copy(directory.path().join("HEADS"), copy.path().join("HEADS")).is_err() {
                std::thread::yield_now();
                continue;
            }
            let claimed = sidecar(copy.path());
            for _ in 0..random.below(1000) {
                std::thread::yield_now();
            }
            let durable = numbers(&store);
            for (partition, seq) in &claimed {
                assert!(durable[partition] >= *seq, "{claimed:?} {durable:?}");
            }
            copy_crashed(directory.path(), copy.path());
            let crashed = open(copy.path());
            for (partition, seq) in claimed {
                assert!(numbers(&crashed)[&partition] >= seq);
            }
            seen += 1;
        }
        writer.join().unwrap();
    });
    println!("{seen} copies");
    let heads = numbers(&store);
    drop(store);
    assert_eq!(sidecar(directory.path()), heads);
}
