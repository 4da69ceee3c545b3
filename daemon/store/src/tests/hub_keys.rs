//! Signing keys: the hub changes its own between two commits, a suspended key
//! moves no head, and own writes that are stopped.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
};

use protocol::{
    change::Header,
    id::{NodeId, PartitionId},
    sign::SigningKey,
};

use super::{
    fixtures::{
        KEY, SUITE, SetOnDrop, assert_holds, begin, commit, delivery, enterprise, federation, feed,
        follow, fresh, open, own, put, replica_of, signed, try_commit, try_replicate, verified,
        wait,
    },
    signing::{assert_signed, commit_until, county, last, reach, signing_key, two_partitions},
};
use crate::{Head, OwnChanges, StoreError, jobs::Job};

/// The key that counts for a number.
fn counting(begins: &[(u64, Arc<SigningKey>)], seq: u64) -> Arc<SigningKey> {
    begins.iter().rev().find(|(behind, _)| seq > *behind).unwrap().1.clone()
}

#[test]
fn the_hub_changes_its_key_between_two_commits() {
    let (directory, store) = fresh();
    let hub = federation().origin;
    let own_data = PartitionId { origin: hub.clone(), ..enterprise() };
    commit(&store, &enterprise(), vec![put(1, "of another origin")]);
    let done = AtomicBool::new(false);
    let (mut begins, mut federation_begins) = (vec![(0, KEY.clone())], vec![(0, KEY.clone())]);
    let count = std::thread::scope(|scope| {
        let end = SetOnDrop(&done);
        let writer = scope.spawn(|| commit_until(&done, &store, &own_data));
        for seed in 11..=15 {
            reach(&store, &own_data, begins.last().unwrap().0 + 20);
            let (send, heads) = mpsc::channel();
            let (reader, partition) = (store.clone(), own_data.clone());
            let build = move |heads: BTreeMap<PartitionId, u64>| {
                // What is given can be read.
                assert_eq!(reader.head(&partition).unwrap().seq(), heads[&partition]);
                send.send(heads).unwrap();
                Ok(own(&federation(), vec![put(seed.into(), "the next key")]))
            };
            let head = store.rotate_signer(signing_key(seed), hub.clone(), build).unwrap();
            assert_eq!(store.signer_id(), Some(signing_key(seed).public().id()));
            let heads = heads.recv().unwrap();
            let of: Vec<_> = heads.keys().collect();
            assert_eq!(of, [&federation(), &own_data]);
            assert_eq!(head.seq(), heads[&federation()] + 1);
            federation_begins.push((head.seq(), signing_key(seed)));
            begins.push((heads[&own_data], signing_key(seed)));
        }
        drop(end);
        writer.join().unwrap()
    });
    assert_eq!(store.head(&own_data).unwrap().seq(), count);
    assert_signed(&store, &own_data, |seq| counting(&begins, seq));
    assert_signed(&store, &federation(), |seq| counting(&federation_begins, seq));
    drop(store);
    let store = open(directory.path());
    assert_signed(&store, &own_data, |seq| counting(&begins, seq));
}

#[test]
fn the_hub_keeps_its_key_if_the_change_is_not_committed() {
    let (_directory, store) = fresh();
    let hub = federation().origin;
    let rotate = |changes: OwnChanges| {
        let refused = store.rotate_signer(signing_key(8), hub.clone(), |_| Ok(changes));
        assert_eq!(store.signer_id(), Some(KEY.public().id()));
        refused.unwrap_err()
    };
    let own_data = PartitionId { origin: hub.clone(), ..enterprise() };
    let of_another = PartitionId { origin: county(), ..federation() };
    for wrong in [own_data, of_another] {
        let refused = rotate(own(&wrong, vec![put(2, "x")]));
        assert!(matches!(refused, StoreError::Changes { .. }), "{refused}");
        assert_eq!(store.head(&wrong), None);
    }
    // A change set that says nothing of the next key would lose its reader for ever.
    let refused = rotate(own(&federation(), vec![]));
    assert!(matches!(refused, StoreError::Changes { .. }), "{refused}");
    let problem = "they do not fit";
    let failed = |_| Err(StoreError::Changes { partition: federation(), problem });
    let refused = store.rotate_signer(signing_key(8), hub.clone(), failed).unwrap_err();
    assert!(refused.to_string().contains(problem), "{refused}");
    assert_eq!(store.signer_id(), Some(KEY.public().id()));
    assert_eq!(store.head(&federation()).unwrap().seq(), 1);
    let refused = rotate(own(&federation(), vec![put(2, "x"), put(1, "x")]));
    assert!(matches!(refused, StoreError::Changes { .. }), "{refused}");
    assert_eq!(store.head(&federation()).unwrap().seq(), 1);
    commit(&store, &federation(), vec![put(2, "x")]);
    assert_signed(&store, &federation(), |_| KEY.clone());
    store.shared.disk.broken.sync.store(true, Ordering::Relaxed);
    let failed = rotate(own(&federation(), vec![put(3, "x")]));
    assert!(matches!(failed, StoreError::Database(_)), "{failed}");
}

#[test]
fn a_suspended_key_moves_no_head_but_what_came_before_it_does() {
    let (_a, origin, _) = two_partitions();
    let (_b, replica) = replica_of(&origin);
    let id = KEY.public().id();
    for number in 0..4 {
        commit(&origin, &enterprise(), vec![put(number, "later")]);
    }
    let header = origin.head(&enterprise()).unwrap().shown();
    // The writer is held until two change sets wait, with the suspension
    // between them.
    let ((go, ready), (begun, building)) = (mpsc::channel(), mpsc::channel());
    std::thread::scope(|scope| {
        let build = move |_| {
            begun.send(()).unwrap();
            ready.recv().unwrap();
            // It cannot be committed, so nothing of it stays.
            Ok(own(&enterprise(), vec![put(1, "x")]))
        };
        let hub = federation().origin;
        let held = scope.spawn(|| replica.rotate_signer(signing_key(9), hub, build));
        building.recv().unwrap();
        let queue = |seq| {
            let set = Box::new(verified(&origin, &enterprise(), seq));
            replica.queue.submit_blocking(|reply| Job::Replica { set, done: None, reply }).unwrap()
        };
        let earlier = queue(10);
        let job = |reply| Job::SuspendKey { key_id: id, suspended: true, reply };
        let suspended = replica.queue.submit_blocking(job).unwrap();
        let later = queue(11);
        go.send(()).unwrap();
        held.join().unwrap().unwrap_err();
        suspended.wait().unwrap();
        // Durable and to be seen, not only queued.
        assert_eq!(replica.head(&enterprise()).unwrap().seq(), 10);
        assert_eq!(earlier.wait().unwrap().seq(), 10);
        let refused = later.wait();
        let Err(StoreError::KeySuspended { partition }) = refused else { panic!("{refused:?}") };
        assert_eq!(partition, enterprise());
    });
    // What is here is answered as ever; pages are refused like change sets.
    assert_eq!(try_replicate(&replica, verified(&origin, &enterprise(), 10)).unwrap().seq(), 10);
    let pages = || {
        let mut staging = begin(&replica, &header);
        let leaves = delivery(&origin).1;
        feed(&mut staging, &leaves);
        wait(staging.finish())
    };
    let refused = pages();
    assert!(matches!(refused, Err(StoreError::KeySuspended { .. })), "{refused:?}");
    // Another key is not concerned, nor are own commits.
    let of_another = PartitionId { origin: NodeId::new("410181").unwrap(), ..enterprise() };
    replica.set_signer(signing_key(3));
    commit(&replica, &of_another, vec![put(1, "x")]);
    replica.resume_key(id).unwrap();
    try_replicate(&replica, verified(&origin, &enterprise(), 11)).unwrap();
    assert_eq!(pages().unwrap().seq(), 13);
    let heads = (replica.head(&enterprise()).unwrap(), origin.head(&enterprise()).unwrap());
    assert_eq!(heads.0.signed, heads.1.signed);
}

#[test]
fn while_own_writes_are_stopped_only_the_federation_moves() {
    let (_a, store, content) = two_partitions();
    let (_b, replica) = replica_of(&store);
    store.stop_own_writes(Some("a key for this node was registered that it did not make".into()));
    let refused = try_commit(&store, &enterprise(), vec![put(1, "x")]);
    let Err(StoreError::OwnWritesStopped { reason }) = &refused else { panic!("{refused:?}") };
    assert_eq!(Some(reason), store.own_writes_stopped().as_ref());
    let text = refused.as_ref().unwrap_err().to_string();
    assert!(text.contains(reason) && text.contains("'creditsync status'"), "{text}");
    assert_holds(&store, &enterprise(), &content);
    commit(&store, &federation(), vec![put(2, "x")]);
    // What another origin wrote is taken.
    replica.stop_own_writes(store.own_writes_stopped());
    follow(&store, &replica, &federation());
    store.stop_own_writes(None);
    assert_eq!(store.own_writes_stopped(), None);
    commit(&store, &enterprise(), vec![put(1, "x")]);
    follow(&store, &replica, &enterprise());
}

#[test]
fn change_sets_that_name_a_forgotten_federation_are_signed_anew() {
    let (_a, hub) = fresh();
    let (_b, store) = replica_of(&hub);
    let set = |seq| store.header_at(&enterprise(), seq).unwrap().unwrap().header().clone();
    commit(&store, &enterprise(), vec![put(1, "a")]);
    let good = hub.head(&federation()).unwrap().position();
    // A thief's change set of `_federation`, which the hub never made.
    let head = store.head(&federation()).unwrap();
    let history = head.history().root(SUITE);
    let bogus =
        Header { seq: 2, previous: head.signed.hash(), history, ..head.signed.header().clone() };
    try_replicate(&store, signed(bogus, &[])).unwrap();
    commit(&store, &enterprise(), vec![put(2, "b")]);
    commit(&store, &enterprise(), vec![put(3, "c")]);
    let heads: Vec<_> = (1..=3).map(|seq| set(seq).federation_head.unwrap().seq).collect();
    assert_eq!(heads, [1, 2, 2]);

    wait(store.forget(&federation())).unwrap();
    follow(&hub, &store, &federation());
    let adopt = || wait(store.adopt_signer(KEY.clone(), county(), last(&[]))).unwrap();
    assert_eq!(adopt(), 2, "number 1 names what is held");
    for seq in 1..=3 {
        assert_eq!(set(seq).federation_head, Some(good), "number {seq}");
    }
    assert_signed(&store, &enterprise(), |_| KEY.clone());
    assert_eq!(adopt(), 0);
    // Now the hub takes them, which it would not have done before.
    follow(&store, &hub, &enterprise());
    assert_eq!(
        hub.head(&enterprise()),
        store.head(&enterprise()).map(|ours| {
            let theirs = hub.head(&enterprise()).unwrap();
            Arc::new(Head { updated_ms: theirs.updated_ms, ..Head::clone(&ours) })
        })
    );
}

#[test]
fn keys_are_switched_while_commits_go_on() {
    let (_directory, store) = fresh();
    let done = AtomicBool::new(false);
    // The number behind which each key begins to count.
    let mut begins = vec![(0, KEY.clone())];
    let count = std::thread::scope(|scope| {
        let end = SetOnDrop(&done);
        let writer = scope.spawn(|| commit_until(&done, &store, &enterprise()));
        for seed in 11..=15 {
            let head = reach(&store, &enterprise(), begins.last().unwrap().0 + 40);
            let accepted = head - 20;
            begins.push((accepted, signing_key(seed)));
            let last = last(&[(enterprise(), accepted)]);
            assert!(store.adopt_signer_blocking(signing_key(seed), county(), last).unwrap() >= 20);
        }
        drop(end);
        writer.join().unwrap()
    });
    assert_eq!(store.head(&enterprise()).unwrap().seq(), count);
    assert_signed(&store, &enterprise(), |seq| counting(&begins, seq));
}
