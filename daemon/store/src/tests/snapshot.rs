//! Snapshots: a partition as it was, whatever is committed meanwhile.

use std::{
    ops::Range,
    sync::atomic::{AtomicBool, Ordering},
};

use protocol::change::Change;

use super::{
    fixtures::{
        Content, Random, SetOnDrop, apply, assert_holds, assert_tidy, begin, commit, delete,
        delivery, enterprise, federation, feed, fresh, key, keys_of, open, puts, replica_of, tidy,
        wait,
    },
    reference::Memory,
};
use crate::{Snapshot, Store, StoreError, state::lock};

fn read(snapshot: &mut Snapshot) -> Result<Content, StoreError> {
    let mut content = Content::new();
    for leaf in snapshot.leaves() {
        let leaf = leaf?;
        content.extend(leaf.entries().map(|(key, value)| (key.to_vec(), value.to_vec())));
    }
    Ok(content)
}

fn snapshot(store: &Store) -> Snapshot {
    store.snapshot_blocking(&enterprise()).unwrap().unwrap()
}

#[test]
fn each_snapshot_keeps_its_own_content() {
    let mut random = Random::new();
    let (_directory, store) = fresh();
    let mut content = Content::new();
    let mut open: Vec<(Snapshot, Content)> = Vec::new();
    for round in 0..24 {
        // Whole pages vanish and come back, and keys in front of the first one.
        let (keys, count) = (6000, 200 + random.below(1500));
        let changes = random.changes(keys, count, [5, 90, 50][round % 3]);
        apply(&mut content, &changes);
        let head = commit(&store, &enterprise(), changes);
        if round % 4 == 1 {
            let taken = snapshot(&store);
            assert_eq!(taken.head(), &*head);
            open.push((taken, content.clone()));
        }
        for (snapshot, then) in &mut open {
            assert!(read(snapshot).unwrap() == *then);
        }
        if round == 12 {
            open.remove(1);
        }
    }
    commit(
        &store,
        &enterprise(),
        content.keys().map(|k| Change::Delete { key: k.clone() }).collect(),
    );
    assert!(keys_of(&store, b"s").len() > 100);
    for (mut snapshot, then) in open {
        assert!(read(&mut snapshot).unwrap() == then);
        Memory::built(&then).0.assert_same(&mut snapshot);
    }
    assert_holds(&store, &enterprise(), &Content::new());
}

#[test]
fn a_snapshot_of_nothing_stays_empty() {
    let (_directory, store) = fresh();
    commit(&store, &enterprise(), vec![]);
    let mut empty = snapshot(&store);
    commit(&store, &enterprise(), puts(0..9000, "x"));
    assert_eq!(read(&mut empty).unwrap(), Content::new());
    Memory::default().assert_same(&mut empty);
}

#[test]
fn a_snapshot_stands_still_beside_a_writing_thread() {
    let seed = Random::new().0;
    let (_directory, store) = fresh();
    let mut content = Content::new();
    let first = Random(seed).changes(4000, 3000, 0);
    apply(&mut content, &first);
    commit(&store, &enterprise(), first);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut random = Random(seed + 1);
            for round in 0..150 {
                let changes = random.changes(5000, 300, [10, 80][round % 2]);
                commit(&store, &enterprise(), changes);
            }
            done.store(true, Ordering::Release);
        });
        let expected = Memory::built(&content).0;
        let mut taken = snapshot(&store);
        let at = taken.head().seq();
        // Only the first commit's content is known for certain.
        let known = (at == 1).then_some(content);
        let first = read(&mut taken).unwrap();
        let root = Memory::built(&first).1.root;
        assert_eq!(root, taken.head().root(), "the first read is torn");
        let mut rounds = 0;
        while !done.load(Ordering::Acquire) || rounds == 0 {
            assert!(read(&mut taken).unwrap() == first, "after {rounds} rounds");
            if let Some(known) = &known {
                assert!(first == *known);
                expected.assert_same(&mut taken);
            }
            // And short ones: each shows exactly the tree of its head.
            let mut brief = snapshot(&store);
            let root = Memory::built(&read(&mut brief).unwrap()).1.root;
            assert_eq!(root, brief.head().root());
            rounds += 1;
        }
        writer.join().unwrap();
    });
    assert_tidy(&store);
}

#[test]
fn a_point_read_never_misses_a_record_while_pages_split_and_merge() {
    let seed = Random::new().0;
    let (_directory, store) = fresh();
    // Even numbers stay, odd ones come and go, and pages with them.
    commit(&store, &enterprise(), puts((0..4000).step_by(2), "stays"));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for reader in 0..2 {
            let (store, done) = (&store, &done);
            scope.spawn(move || {
                let mut random = Random(seed + reader);
                while !done.load(Ordering::Acquire) {
                    let number = random.below(2000) * 2;
                    let value = store.get(&enterprise(), &key(number)).unwrap();
                    assert_eq!(value, Some(b"stays".to_vec()), "{number}");
                }
            });
        }
        let _end = SetOnDrop(&done);
        for round in 0..150 {
            let odd = (1..4000).step_by(2);
            let changes =
                if round % 2 == 0 { puts(odd, "goes") } else { odd.map(delete).collect() };
            commit(&store, &enterprise(), changes);
        }
    });
}

#[test]
fn a_snapshot_that_nobody_reads_expires_and_says_so() {
    let (_directory, store) = fresh();
    commit(&store, &enterprise(), puts(0..2000, "x"));
    let (mut idle, mut read_often) = (snapshot(&store), snapshot(&store));
    for open in lock(&store.shared.snapshots).iter() {
        open.used_ms.store(-100_000, Ordering::Relaxed);
    }
    assert_eq!(read(&mut read_often).unwrap().len(), 2000);
    commit(&store, &enterprise(), puts(0..2000, "y"));
    tidy(&store);
    assert!(matches!(read(&mut idle), Err(StoreError::SnapshotExpired)));
    use protocol::tree::Pages as _;
    assert!(matches!(idle.seek(0, &key(5)), Err(StoreError::SnapshotExpired)));
    assert!(matches!(idle.next_key(0, &key(5)), Err(StoreError::SnapshotExpired)));
    let content = (0..2000).map(|n| (key(n), b"x".to_vec())).collect::<Content>();
    assert!(read(&mut read_often).unwrap() == content);
    drop((idle, read_often));
    assert_tidy(&store);
    assert!(lock(&store.shared.snapshots).is_empty());
}

#[test]
fn what_was_saved_is_dropped_at_the_next_start() {
    let (directory, store) = fresh();
    commit(&store, &enterprise(), puts(0..2000, "x"));
    let taken = snapshot(&store);
    commit(&store, &enterprise(), puts(0..2000, "y"));
    assert!(!keys_of(&store, b"s").is_empty());
    drop((store, taken));
    let store = open(directory.path());
    assert!(keys_of(&store, b"s").is_empty());
    assert_holds(&store, &enterprise(), &(0..2000).map(|n| (key(n), b"y".to_vec())).collect());
}

#[test]
fn snapshots_are_limited_in_number() {
    let (_directory, store) = fresh();
    let mut open = Vec::new();
    let refused = loop {
        match store.snapshot_blocking(&federation()) {
            Ok(snapshot) => open.push(snapshot),
            Err(refused) => break refused,
        }
        assert!(open.len() < 1000);
    };
    assert!(matches!(refused, StoreError::SnapshotsOpen(count) if count == open.len()));
    open.pop();
    store.snapshot_blocking(&federation()).unwrap().unwrap();
}

#[test]
fn what_is_saved_for_a_peers_snapshot_is_bounded() {
    let (_directory, store) = fresh();
    let mut random = Random::new();
    // Bytes that do not compress: 2 MB in all.
    let mut noise = |numbers: Range<u64>| -> Vec<Change> {
        let mut value = || (0..200).map(|_| random.next() as u8).collect();
        numbers.map(|number| Change::Put { key: key(number), value: value() }).collect()
    };
    let mut content = Content::new();
    let mut put = |changes: Vec<Change>| {
        apply(&mut content, &changes);
        commit(&store, &enterprise(), changes);
        content.clone()
    };
    let first = put(noise(0..10_000));
    let mut all = store.snapshot_blocking(&enterprise()).unwrap().unwrap();
    let mut shown = wait(store.snapshot_for_peer(&enterprise())).unwrap().unwrap();
    // More than may be saved for a peer.
    let second = put(noise(0..10_000));
    assert!(matches!(read(&mut shown), Err(StoreError::SnapshotExpired)));
    assert!(read(&mut all).unwrap() == first, "a command's goes on");
    let mut shown = wait(store.snapshot_for_peer(&enterprise())).unwrap().unwrap();
    put(noise(0..50));
    assert!(read(&mut shown).unwrap() == second, "a few pages may be saved");
    drop((all, shown));
    assert_tidy(&store);
}

#[test]
fn a_peer_is_shown_no_state_of_before_while_more_is_staged() {
    let (_a, origin) = fresh();
    commit(&origin, &enterprise(), puts(0..3000, "first"));
    let (_b, replica) = replica_of(&origin);
    let mut all = snapshot(&replica);
    let mut shown = wait(replica.snapshot_for_peer(&enterprise())).unwrap().unwrap();
    let first = read(&mut all).unwrap();
    let restage = |value: &str| {
        commit(&origin, &enterprise(), puts(0..3000, value));
        let (header, leaves) = delivery(&origin);
        let mut staging = begin(&replica, &header);
        feed(&mut staging, &leaves);
        wait(staging.finish()).unwrap();
    };
    restage("second");
    assert!(read(&mut shown).unwrap() == first, "it goes on with what it has begun");
    restage("third");
    assert!(matches!(read(&mut shown), Err(StoreError::SnapshotExpired)));
    assert!(read(&mut all).unwrap() == first, "a command's goes on");
    drop((all, shown));
    assert_tidy(&replica);
}
