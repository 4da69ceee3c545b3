//! Replicas that are dropped and fetched again: what was there leaves no trace,
//! whatever interrupts it.

use std::{path::Path, sync::atomic::Ordering};

use protocol::{
    change::Change,
    id::{NodeId, PartitionId},
};

use super::{
    fixtures::{
        Content, Random, apply, assert_holds, assert_tidy, begin, commit, delete, delivery,
        enterprise, federation, feed, follow, fresh, key, keys_of, open, own, put, puts,
        replica_of, tidy, try_replicate, verified, wait,
    },
    reference::Memory,
};
use crate::{Snapshot, Staging, Store, StoreError, keys};

/// An origin with three change sets of `enterprise`, one of them large, and
/// their content.
fn origin() -> (tempfile::TempDir, Store, Content) {
    let (directory, store) = fresh();
    let mut content = Content::new();
    let mut random = Random::new();
    let mut long = || format!("{:x}{:x}{:x}", random.next(), random.next(), random.next());
    let large: Vec<Change> = (0..3000).map(|number| put(number, long())).collect();
    for changes in [puts(0..900, "a"), large, (0..50).map(delete).collect()] {
        apply(&mut content, &changes);
        commit(&store, &enterprise(), changes);
    }
    (directory, store, content)
}

/// The number under which a partition lies.
fn number(store: &Store, partition: &PartitionId) -> u32 {
    store.shared.partition(partition).unwrap().number
}

/// Keys under a partition's number, in any table.
fn keys_under(store: &Store, number: u32) -> usize {
    keys::of_partition(number).map(|prefix| keys_of(store, &prefix).len()).sum()
}

fn is_in_sidecar(directory: &Path, partition: &PartitionId) -> bool {
    let text = std::fs::read_to_string(directory.join("HEADS")).unwrap();
    text.lines().any(|line| line.starts_with(&format!("{} ", partition.full_name())))
}

fn assert_forgotten(store: &Store) {
    assert_eq!(store.head(&enterprise()), None);
    assert!(!store.heads().contains_key(&enterprise()));
    assert!(store.live_pages(&enterprise()).is_none());
    assert_eq!(store.header_at(&enterprise(), 1).unwrap(), None);
    assert_eq!(store.change_sets(&enterprise(), 1, 9, usize::MAX).unwrap(), None);
    assert_eq!(store.get(&enterprise(), &key(100)).unwrap(), None);
    assert_eq!(store.quarantine_reason(&enterprise()), None);
    assert!(store.acks(&enterprise()).is_empty());
    assert!(store.snapshot_blocking(&enterprise()).unwrap().is_none());
}

/// Follows from number 1 and holds what the origin holds; nothing is left under
/// the old number.
fn assert_follows_again(origin: &Store, replica: &Store, content: &Content, old: u32) {
    follow(origin, replica, &enterprise());
    let (ours, theirs) =
        (replica.head(&enterprise()).unwrap(), origin.head(&enterprise()).unwrap());
    assert_eq!((&ours.signed, &ours.summary), (&theirs.signed, &theirs.summary));
    assert_holds(replica, &enterprise(), content);
    assert_ne!(number(replica, &enterprise()), old);
    assert_eq!(keys_under(replica, old), 0);
}

#[test]
fn a_forgotten_replica_follows_again_from_the_beginning() {
    let (_a, origin, mut content) = origin();
    let (b, replica) = replica_of(&origin);
    let old = number(&replica, &enterprise());
    let federation_head = replica.head(&federation());
    let mut pages = replica.live_pages(&enterprise()).unwrap();
    let node = NodeId::new("410181").unwrap();
    let position = replica.head(&enterprise()).unwrap().position();
    wait(replica.record_ack(&enterprise(), &node, position)).unwrap();
    wait(replica.quarantine(&enterprise(), "a key was stolen".into(), vec![])).unwrap();
    assert!(!keys_of(&replica, b"c").is_empty(), "some of it lies in chunks");
    let mut events = replica.subscribe();
    let before = replica.counters();

    wait(replica.forget(&enterprise())).unwrap();
    assert_forgotten(&replica);
    assert!(!is_in_sidecar(b.path(), &enterprise()) && is_in_sidecar(b.path(), &federation()));
    assert_eq!(events.try_recv().unwrap(), enterprise());
    let after = replica.counters();
    // The chores behind it are durable as well.
    assert!(after.syncs > before.syncs && after.commits == before.commits);
    assert_eq!(pages.get(&key(100)).unwrap(), None, "who still reads it finds nothing");
    drop(pages);
    assert_tidy(&replica);
    assert_eq!(keys_under(&replica, old), 0);
    assert_eq!(keys_of(&replica, b"c"), Vec::<Vec<u8>>::new());
    assert_follows_again(&origin, &replica, &content, old);

    // Again, and the store is opened between any two steps.
    let old = number(&replica, &enterprise());
    replica.forget_blocking(&enterprise()).unwrap();
    drop(replica);
    let replica = open(b.path());
    assert_forgotten(&replica);
    try_replicate(&replica, verified(&origin, &enterprise(), 1)).unwrap();
    drop(replica);
    let replica = open(b.path());
    assert_eq!(replica.head(&enterprise()).unwrap().seq(), 1);
    assert_follows_again(&origin, &replica, &content, old);
    drop(replica);
    let replica = open(b.path());
    assert!(is_in_sidecar(b.path(), &enterprise()));
    assert_eq!(replica.head(&federation()), federation_head);
    let changes = puts(2000..2100, "later");
    apply(&mut content, &changes);
    commit(&origin, &enterprise(), changes);
    assert_follows_again(&origin, &replica, &content, old);
}

/// Forgets while a snapshot keeps the old pages, so that they are still there
/// when the store is closed.
fn forget_and_stop(replica: Store) -> (u32, usize) {
    let old = number(&replica, &enterprise());
    let snapshot: Snapshot = replica.snapshot_blocking(&enterprise()).unwrap().unwrap();
    wait(replica.forget(&enterprise())).unwrap();
    tidy(&replica);
    let left = keys_under(&replica, old);
    drop(replica);
    drop(snapshot);
    (old, left)
}

#[test]
fn pages_that_a_stop_leaves_are_not_taken_for_new_ones() {
    let (_a, origin, content) = origin();
    let (b, replica) = replica_of(&origin);
    let (old, left) = forget_and_stop(replica);
    assert!(left > 20, "{left} pages");
    let replica = open(b.path());
    // Another partition is the first to ask for a number.
    let permit = PartitionId::parse_full("zhengzhou/permit/410122/*").unwrap();
    commit(&origin, &permit, puts(0..70, "p"));
    follow(&origin, &replica, &permit);
    assert_follows_again(&origin, &replica, &content, old);
    assert_holds(&replica, &permit, &(0..70).map(|n| (key(n), b"p".to_vec())).collect());

    // Nor by a staging, which looks for pages that are here already.
    let (old, left) = forget_and_stop(replica);
    assert!(left > 20, "{left} pages");
    let replica = open(b.path());
    let (header, leaves) = delivery(&origin);
    let mut staging = begin(&replica, &header);
    assert_eq!(feed(&mut staging, &leaves), 0);
    wait(staging.finish()).unwrap();
    assert_holds(&replica, &enterprise(), &content);
    assert_eq!(keys_under(&replica, old), 0);
}

#[test]
fn an_open_snapshot_outlives_what_it_shows() {
    let (_a, origin, content) = origin();
    let (b, replica) = replica_of(&origin);
    let mut snapshot = replica.snapshot_blocking(&enterprise()).unwrap().unwrap();
    let mut live = replica.live_pages(&enterprise()).unwrap();
    assert_eq!(live.get(&key(100)).unwrap().as_ref(), content.get(&key(100)));
    wait(replica.forget(&enterprise())).unwrap();
    assert_eq!(live.get(&key(100)).unwrap(), None, "though the page is still there");
    drop(live);
    tidy(&replica);
    follow(&origin, &replica, &enterprise());
    tidy(&replica);
    Memory::built(&content).0.assert_same(&mut snapshot);
    drop((snapshot, replica));
    assert!(is_in_sidecar(b.path(), &enterprise()), "what was fetched again is vouched for");
}

#[test]
fn a_forgetting_that_fails_leaves_the_old_or_nothing() {
    let (_a, origin, content) = origin();
    let (b, replica) = replica_of(&origin);
    let heads = replica.heads();
    let refuse = |replica: &Store| {
        let failed = wait(replica.forget(&enterprise()));
        assert!(matches!(failed, Err(StoreError::Database(_))), "{failed:?}");
        assert_eq!(replica.heads(), heads);
        // It has left the sidecar before the database was touched, and does not
        // come back while nobody knows what that holds.
        assert!(!is_in_sidecar(b.path(), &enterprise()));
    };
    replica.shared.disk.broken.apply.store(true, Ordering::Relaxed);
    refuse(&replica);
    drop(replica);
    assert!(!is_in_sidecar(b.path(), &enterprise()));
    let replica = open(b.path());
    assert_eq!(replica.heads(), heads);
    assert_holds(&replica, &enterprise(), &content);

    let old = number(&replica, &enterprise());
    replica.shared.disk.broken.sync.store(true, Ordering::Relaxed);
    refuse(&replica);
    drop(replica);
    assert!(!is_in_sidecar(b.path(), &enterprise()));
    let replica = open(b.path());
    if replica.head(&enterprise()).is_some() {
        assert_holds(&replica, &enterprise(), &content);
        wait(replica.forget(&enterprise())).unwrap();
    }
    assert_forgotten(&replica);
    assert_follows_again(&origin, &replica, &content, old);
}

#[test]
fn nothing_is_forgotten_if_the_sidecar_cannot_be_written() {
    let (_a, origin, content) = origin();
    let (b, replica) = replica_of(&origin);
    let in_the_way = b.path().join("HEADS");
    // What the replica did before may still be written.
    while std::fs::create_dir(&in_the_way).is_err() {
        let _ = std::fs::remove_file(&in_the_way);
    }
    let refused = wait(replica.forget(&enterprise()));
    assert!(matches!(refused, Err(StoreError::File { .. })), "{refused:?}");
    assert!(!replica.has_failed());
    assert_holds(&replica, &enterprise(), &content);
    std::fs::remove_dir(&in_the_way).unwrap();
    // It is vouched for again.
    commit(&replica, &federation(), vec![put(9, "x")]);
    drop(replica);
    assert!(is_in_sidecar(b.path(), &enterprise()));
    assert_holds(&open(b.path()), &enterprise(), &content);
}

#[test]
fn a_staging_under_way_ends_with_what_was_there() {
    let (_a, origin, content) = origin();
    let (_b, replica) = replica_of(&origin);
    let (header, leaves) = delivery(&origin);
    let begin = || begin(&replica, &header);
    let overtaken = |mut staging: Staging| {
        feed(&mut staging, &leaves);
        let refused = wait(staging.finish());
        assert!(matches!(refused, Err(StoreError::Overtaken(_))), "{refused:?}");
    };
    let old = number(&replica, &enterprise());
    let staging = begin();
    wait(replica.forget(&enterprise())).unwrap();
    tidy(&replica);
    overtaken(staging);
    assert_eq!(keys_under(&replica, old), 0);
    // A partition that never had more than a staging.
    let (old, mut staging) = (number(&replica, &enterprise()), begin());
    feed(&mut staging, &leaves[..20]);
    wait(replica.forget(&enterprise())).unwrap();
    tidy(&replica);
    assert_eq!(keys_under(&replica, old), 0);
    assert_follows_again(&origin, &replica, &content, old);
    // And one that is not known at all.
    let mut events = replica.subscribe();
    let unknown = PartitionId::parse_full("zhengzhou/permit/410122/*").unwrap();
    wait(replica.forget(&unknown)).unwrap();
    assert!(events.try_recv().is_err());
}

#[test]
fn what_is_given_up_leaves_nothing_to_write_upon_before_the_other_history_is_here() {
    let (_a, other, _) = origin();
    commit(&other, &enterprise(), puts(0..300, "theirs"));
    let theirs = other.head(&enterprise()).unwrap();
    let (b, store) = fresh();
    for round in 0..4 {
        commit(&store, &enterprise(), puts(0..100, &format!("ours {round}")));
    }
    let ours = store.head(&enterprise()).unwrap();
    // A write that fails leaves what was there, and so does a stop before it.
    store.shared.disk.broken.apply.store(true, Ordering::Relaxed);
    let expected = Some(ours.position());
    assert!(store.give_up_blocking(theirs.signed.clone(), expected).is_err());
    drop(store);
    let store = open(b.path());
    assert_eq!(store.head(&enterprise()).unwrap().position(), ours.position());
    assert_eq!(store.lost(), [].into(), "more is here than the peer has");

    // What somebody has written meanwhile is not given up.
    let overtaken = store.give_up_blocking(theirs.signed.clone(), Some(theirs.position()));
    assert!(matches!(overtaken, Err(StoreError::Overtaken(_))), "{overtaken:?}");
    store.give_up_blocking(theirs.signed.clone(), expected).unwrap();
    let is_awaited = |store: &Store| {
        assert_eq!(store.head(&enterprise()), None);
        assert_eq!(store.lost(), [(enterprise(), theirs.seq())].into());
        let refused = wait(store.commit_own(own(&enterprise(), puts(0..1, "z"))));
        let StoreError::AwaitsOwnHistory { have: 0, awaited, .. } = refused.unwrap_err() else {
            panic!("something is written upon nothing")
        };
        assert_eq!(awaited, theirs.seq());
    };
    is_awaited(&store);
    drop(store);
    let store = open(b.path());
    is_awaited(&store);
    // Dropping it for good is another thing.
    store.forget_blocking(&enterprise()).unwrap();
    assert_eq!(store.lost(), [].into());
}

#[test]
fn a_quarantine_shows_why_and_ends() {
    let (_a, other, _) = origin();
    let (b, store) = fresh();
    let head = commit(&store, &enterprise(), puts(0..10, "ours"));
    let evidence = vec![head.signed.clone(), other.head(&enterprise()).unwrap().signed.clone()];
    assert_eq!(store.evidence(&enterprise()).unwrap(), vec![]);
    wait(store.quarantine(&enterprise(), "two".into(), evidence.clone())).unwrap();
    drop(store);
    let store = open(b.path());
    assert_eq!(store.quarantine_reason(&enterprise()).as_deref(), Some("two"));
    assert_eq!(store.evidence(&enterprise()).unwrap(), evidence);
    let refused = wait(store.commit_own(own(&enterprise(), puts(0..1, "z"))));
    assert!(matches!(refused, Err(StoreError::Quarantined { .. })), "{refused:?}");
    wait(store.release(&enterprise())).unwrap();
    drop(store);
    let store = open(b.path());
    let left = (store.quarantine_reason(&enterprise()), store.evidence(&enterprise()).unwrap());
    assert_eq!(left, (None, vec![]));
    commit(&store, &enterprise(), puts(0..1, "z"));
}
