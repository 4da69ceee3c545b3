//! Own commits: histories, limits, durability, and errors of the disk.

use std::sync::atomic::Ordering;

use protocol::{
    change::Change,
    id::{NodeId, PartitionId},
};

use super::fixtures::{
    Content, Random, SUITE, apply, assert_holds, commit, delete, enterprise, federation, fresh,
    key, keys_of, open, own, put, puts, try_commit, verified, wait,
};
use crate::{
    Entries, OwnChanges, Store, StoreError,
    engine::Batch,
    keys::{self, INDEX},
    state::Ack,
};

#[test]
fn any_history_ends_at_the_rebuilt_tree_and_survives_reopening() {
    let mut random = Random::new();
    let (directory, mut store) = fresh();
    let mut content = Content::new();
    let mut previous = SUITE.none();
    for round in 1..=30u64 {
        let (keys, count) = (3000, random.below(900));
        // It grows, shrinks, and grows again.
        let deletes = [20, 80, 40][(round / 10) as usize % 3];
        let changes = random.changes(keys, count, deletes);
        apply(&mut content, &changes);
        let head = commit(&store, &enterprise(), changes.clone());
        let header = head.signed.header();
        assert_eq!((header.seq, header.previous), (round, previous));
        assert_eq!(header.schema_version, 3);
        assert_eq!(header.federation_head, Some(store.head(&federation()).unwrap().position()));
        assert_eq!(verified(&store, &enterprise(), round).changes(), changes);
        assert_eq!(*store.head(&enterprise()).unwrap(), *head);
        previous = head.signed.hash();
        if round % 6 == 0 {
            assert_holds(&store, &enterprise(), &content);
            let heads = store.heads();
            let headers: Vec<_> =
                (0..=round + 1).map(|seq| store.header_at(&enterprise(), seq).unwrap()).collect();
            drop(store);
            store = open(directory.path());
            assert_eq!(store.heads(), heads);
            let again: Vec<_> =
                (0..=round + 1).map(|seq| store.header_at(&enterprise(), seq).unwrap()).collect();
            assert_eq!(again, headers);
            assert_eq!(headers.iter().flatten().count() as u64, round);
            assert_holds(&store, &enterprise(), &content);
        }
    }
    commit(
        &store,
        &enterprise(),
        content.keys().map(|k| Change::Delete { key: k.clone() }).collect(),
    );
    assert_holds(&store, &enterprise(), &Content::new());
    assert_eq!(store.head(&enterprise()).unwrap().root(), protocol::tree::empty_root(SUITE));
}

#[test]
fn change_sets_come_in_order_within_their_limits() {
    let (_directory, store) = fresh();
    for seq in 1..=6u64 {
        let keep_body = seq != 4;
        let changes = OwnChanges { keep_body, ..own(&enterprise(), puts(0..seq * 50, "x")) };
        store.commit_own_later(changes).unwrap().wait().unwrap();
    }
    let seqs = |from, count_max, bytes_max| {
        let sets = store.change_sets(&enterprise(), from, count_max, bytes_max).unwrap();
        sets.map(|sets| sets.iter().map(|set| set.header.header().seq).collect::<Vec<_>>())
    };
    assert_eq!(seqs(1, 10, usize::MAX), Some(vec![1, 2, 3]), "up to the missing body");
    assert_eq!(seqs(2, 1, usize::MAX), Some(vec![2]));
    assert_eq!(seqs(5, 10, 0), Some(vec![5]), "at least one");
    assert_eq!(seqs(5, 10, 1), Some(vec![5]));
    assert_eq!(seqs(5, 10, usize::MAX), Some(vec![5, 6]));
    let bytes = |seq| store.body_bytes_max(&enterprise(), seq).unwrap();
    let both = bytes(5).unwrap() + bytes(6).unwrap();
    assert_eq!(seqs(5, 10, both), Some(vec![5, 6]));
    assert_eq!(seqs(5, 10, both - 1), Some(vec![5]), "not a byte more");
    assert_eq!((bytes(4), bytes(7)), (None, None));
    for absent in [0, 4, 7] {
        assert_eq!(seqs(absent, 10, usize::MAX), None, "{absent}");
    }
    assert!(store.header_at(&enterprise(), 4).unwrap().is_some());
    let unknown = PartitionId::parse_full("zhengzhou/permit/410122/*").unwrap();
    assert_eq!(store.change_sets(&unknown, 1, 1, 1).unwrap(), None);
    assert_eq!(store.body_bytes_max(&unknown, 1).unwrap(), None);
    assert_eq!(store.get(&unknown, &key(1)).unwrap(), None);
    assert!(store.snapshot_blocking(&unknown).unwrap().is_none());
}

#[test]
fn changes_that_no_replica_would_take_are_not_signed() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let refused = try_commit(&store, &enterprise(), puts(0..3, "x"));
    assert!(
        matches!(refused, Err(StoreError::Federation { needed: 1, have: 0, .. })),
        "{refused:?}"
    );
    commit(&store, &federation(), vec![put(1, "hub")]);
    let long_key = vec![Change::Delete { key: vec![1; 1025] }];
    let long_value = vec![put(1, vec![0; 64 * 1024 + 1])];
    let many = puts(0..10_001, "x");
    let large = (0..130).map(|number| put(number, vec![0; 64 * 1024])).collect();
    for changes in [
        vec![put(2, "x"), put(1, "x")],
        vec![put(1, "x"), delete(1)],
        long_key,
        long_value,
        many,
        large,
    ] {
        let refused = try_commit(&store, &enterprise(), changes);
        assert!(matches!(refused, Err(StoreError::Changes { .. })), "{refused:?}");
    }
    assert_eq!(store.head(&enterprise()), None);
    drop(store);
    let store = open(directory.path());
    commit(&store, &enterprise(), puts(0..3, "x"));
    assert_eq!(store.head(&enterprise()).unwrap().seq(), 1);
}

#[test]
fn an_empty_change_set_moves_the_head_alone() {
    let (_directory, store) = fresh();
    let mut content = Content::new();
    for count in [0, 10, 0, 5000, 0] {
        let changes = puts(0..count, "x");
        apply(&mut content, &changes);
        commit(&store, &enterprise(), changes);
        assert_holds(&store, &enterprise(), &content);
    }
    assert_eq!(store.head(&enterprise()).unwrap().seq(), 5);
}

#[test]
fn each_lone_commit_is_synced_once_and_waiting_ones_share() {
    let (_directory, store) = fresh();
    let before = store.counters();
    for number in 0..20 {
        commit(&store, &enterprise(), vec![put(number, "x")]);
    }
    let lone = store.counters();
    assert_eq!(lone.syncs - before.syncs, 20);
    assert_eq!(lone.commits - before.commits, 20);
    let pending: Vec<_> = (0..100)
        .map(|number| store.commit_own_later(own(&enterprise(), vec![put(number, "y")])).unwrap())
        .collect();
    let seqs: Vec<u64> = pending.into_iter().map(|pending| pending.wait().unwrap().seq()).collect();
    assert_eq!(seqs, (21..=120).collect::<Vec<_>>());
    let shared = store.counters();
    assert_eq!(shared.commits - lone.commits, 100);
    assert!(shared.syncs - lone.syncs < 100, "{} syncs", shared.syncs - lone.syncs);
    assert_holds(&store, &enterprise(), &(0..100).map(|n| (key(n), b"y".to_vec())).collect());
}

#[test]
fn nothing_is_built_upon_a_write_that_failed() {
    let (directory, store) = fresh();
    let mut content = Content::new();
    let first = puts(0..500, "x");
    apply(&mut content, &first);
    let head = commit(&store, &enterprise(), first);
    let mut events = store.subscribe();
    store.shared.disk.broken.apply.store(true, Ordering::Relaxed);
    let refused = try_commit(&store, &enterprise(), puts(0..100, "y"));
    assert!(matches!(refused, Err(StoreError::Database(_))), "{refused:?}");
    assert!(store.has_failed());
    // Even if sled seems to be well again: what it shows may not be durable.
    store.shared.disk.broken.apply.store(false, Ordering::Relaxed);
    for refused in [
        try_commit(&store, &enterprise(), puts(0..100, "y")).map(drop),
        wait(store.quarantine(&enterprise(), "because".into(), vec![])),
        store.snapshot_blocking(&enterprise()).map(drop),
        wait(store.begin_staging(head.shown())).map(drop),
    ] {
        assert!(matches!(refused, Err(StoreError::Database(_))), "{refused:?}");
    }
    assert_eq!(store.head(&enterprise()), Some(head));
    assert_eq!(store.get(&enterprise(), &key(7)).unwrap(), Some(b"x".to_vec()));
    assert!(events.try_recv().is_err());
    drop(store);
    let store = open(directory.path());
    assert_holds(&store, &enterprise(), &content);
    commit(&store, &enterprise(), puts(0..1, "z"));
}

#[test]
fn a_commit_that_was_not_synced_is_neither_answered_nor_shown() {
    let (directory, store) = fresh();
    let head = commit(&store, &enterprise(), puts(0..500, "x"));
    let mut events = store.subscribe();
    store.shared.disk.broken.sync.store(true, Ordering::Relaxed);
    let refused = try_commit(&store, &enterprise(), puts(0..100, "y"));
    assert!(matches!(refused, Err(StoreError::Database(_))), "{refused:?}");
    assert_eq!(store.head(&enterprise()), Some(head));
    assert!(events.try_recv().is_err());
    assert!(store.has_failed());
    drop(store);
    let sidecar = std::fs::read_to_string(directory.path().join("HEADS")).unwrap();
    assert!(sidecar.contains(&format!("{} 1 ", enterprise().full_name())), "{sidecar}");
    // The batch may be there or not; it is there as a whole.
    let store = open(directory.path());
    let value = if store.head(&enterprise()).unwrap().seq() == 2 { "y" } else { "x" };
    let mut content: Content = (0..500).map(|number| (key(number), b"x".to_vec())).collect();
    apply(&mut content, &puts(0..100, value));
    assert_holds(&store, &enterprise(), &content);
}

#[test]
fn commits_that_share_a_failed_flush_are_all_refused() {
    let (directory, store) = fresh();
    commit(&store, &enterprise(), puts(0..5, "x"));
    // While the writer is at a large commit, the others gather behind it.
    let large = store.commit_own_later(own(&federation(), puts(0..8000, "x"))).unwrap();
    let pending: Vec<_> = (0..6)
        .map(|number| {
            if number == 3 {
                store.shared.disk.broken.apply.store(true, Ordering::Relaxed);
            }
            store.commit_own_later(own(&enterprise(), vec![put(number, "y")])).unwrap()
        })
        .collect();
    let _ = large.wait();
    let answers: Vec<bool> = pending.into_iter().map(|pending| pending.wait().is_ok()).collect();
    assert!(!answers[5], "{answers:?}");
    assert!(answers.is_sorted_by(|a, b| a >= b), "one behind a failed one succeeded: {answers:?}");
    let acknowledged = 1 + answers.iter().filter(|ok| **ok).count() as u64;
    assert_eq!(store.head(&enterprise()).unwrap().seq(), acknowledged);
    drop(store);
    let store = open(directory.path());
    assert!(store.head(&enterprise()).unwrap().seq() >= acknowledged);
}

#[test]
fn closing_keeps_what_was_accepted_and_does_not_wait_for_readers() {
    let (directory, store) = fresh();
    commit(&store, &enterprise(), puts(0..500, "x"));
    let snapshot = store.snapshot_blocking(&enterprise()).unwrap().unwrap();
    let pages = store.live_pages(&enterprise()).unwrap();
    let pending: Vec<_> = (0..20)
        .map(|number| store.commit_own_later(own(&enterprise(), vec![put(number, "y")])).unwrap())
        .collect();
    // Dropped by a task: it blocks, but it ends.
    wait(async move { drop(store) });
    for pending in pending {
        pending.wait().unwrap();
    }
    drop((snapshot, pages));
    let store = open(directory.path());
    assert_eq!(store.head(&enterprise()).unwrap().seq(), 21);
    // A staging holds the store open until it is dropped.
    let staging = wait(store.begin_staging(store.head(&enterprise()).unwrap().shown()));
    drop(store);
    drop(staging.unwrap());
    assert_eq!(open(directory.path()).head(&enterprise()).unwrap().seq(), 21);
}

#[test]
fn acknowledgements_and_events_tell_who_has_what() {
    let (directory, store) = fresh();
    let mut events = store.subscribe();
    let head = commit(&store, &enterprise(), puts(0..5, "x"));
    assert_eq!(events.try_recv().unwrap(), enterprise());
    let node = NodeId::new("410100").unwrap();
    wait(store.record_ack(&enterprise(), &node, head.position())).unwrap();
    let seq = |store: &Store| store.acks(&enterprise()).get(&node).map(|Ack { seq, .. }| *seq);
    assert_eq!(seq(&store), Some(1));
    drop(store);
    assert_eq!(seq(&open(directory.path())), Some(1));
}

#[test]
fn a_leaf_by_digests_has_the_same_entries_as_the_whole_one() {
    let mut random = Random::new();
    let (_directory, store) = fresh();
    let mut content = Content::new();
    let mut by_digest = 0;
    for round in 0..12 {
        let count = if round == 0 { 3000 } else { random.below(200) };
        let changes = random.changes(4000, count, 20);
        apply(&mut content, &changes);
        commit(&store, &enterprise(), changes);
        // An index that is lost, and one that nobody can read.
        let number = store.shared.partition(&enterprise()).unwrap().number;
        let indexes = keys_of(&store, &keys::page(number, 0, INDEX, &[]));
        let mut batch = Batch::default();
        let mut chosen = || indexes[random.below(indexes.len() as u64) as usize].clone();
        let (lost, garbled) = (chosen(), chosen());
        let chunks = store.shared.disk.chunks(&lost).unwrap();
        batch.remove_chunked(&lost, chunks);
        batch.put(garbled, b"\0\x01 not an index".to_vec());
        store.shared.disk.apply(batch).unwrap();

        let mut pages = store.live_pages(&enterprise()).unwrap();
        let mut next = Some(Vec::new());
        let mut keys = Vec::new();
        while let Some(from) = next {
            let whole = pages.leaf_span(&from, false).unwrap().unwrap();
            let found = pages.leaf_span(&from, true).unwrap().unwrap();
            assert_eq!(found.next, whole.next);
            let Entries::Whole(leaf) = whole.entries else { panic!("it was to be whole") };
            keys.extend(leaf.entries().map(|(key, _)| key.to_vec()));
            match found.entries {
                Entries::Whole(same) => assert_eq!(same.encode(), leaf.encode()),
                Entries::Digests(digests) => {
                    by_digest += 1;
                    assert!(digests.keys_from(&[]).eq(leaf.entries().map(|(key, _)| key)));
                    for (key, value) in leaf.entries() {
                        let digest = protocol::record::entry_digest(SUITE, key, value);
                        assert_eq!(digests.get(key), Some(&digest));
                    }
                }
            }
            next = found.next;
        }
        assert!(keys.iter().eq(content.keys()));
    }
    assert!(by_digest > 100, "{by_digest}");
}
