//! Replica commits: what follows the head is taken, all else leaves no trace.

use protocol::{
    change::{Header, Position, VerifiedChangeSet},
    id::PartitionId,
};

use super::fixtures::{
    Content, SUITE, apply, assert_holds, commit, delete, enterprise, federation, follow, fresh,
    key, keys_of, open, put, puts, replica_of, signed, try_commit, try_replicate, verified, wait,
};
use crate::{Store, StoreError};

/// A store with three change sets of `enterprise`, and their content.
fn origin() -> (tempfile::TempDir, Store, Content) {
    let (directory, store) = fresh();
    let mut content = Content::new();
    for changes in [puts(0..900, "a"), puts(400..1300, "b"), (0..50).map(delete).collect()] {
        apply(&mut content, &changes);
        commit(&store, &enterprise(), changes);
    }
    (directory, store, content)
}

#[test]
fn a_replica_comes_to_the_same_head() {
    let (_a, origin, content) = origin();
    let (b, replica) = replica_of(&origin);
    let same = |replica: &Store| {
        let (ours, theirs) =
            (replica.head(&enterprise()).unwrap(), origin.head(&enterprise()).unwrap());
        assert_eq!((&ours.signed, &ours.summary), (&theirs.signed, &theirs.summary));
        assert_holds(replica, &enterprise(), &content);
        let sets = |store: &Store| store.change_sets(&enterprise(), 1, 9, usize::MAX).unwrap();
        assert_eq!(sets(replica), sets(&origin));
    };
    same(&replica);
    drop(replica);
    same(&open(b.path()));
}

#[test]
fn a_repeated_change_set_is_answered_without_a_commit() {
    let (_a, origin, _) = origin();
    let (_b, replica) = replica_of(&origin);
    let before = replica.counters();
    for seq in 1..=3 {
        let head = try_replicate(&replica, verified(&origin, &enterprise(), seq)).unwrap();
        assert_eq!(head, replica.head(&enterprise()).unwrap());
    }
    let after = replica.counters();
    assert_eq!((after.commits, after.bytes_written), (before.commits, before.bytes_written));
}

#[test]
fn what_does_not_follow_the_head_is_refused_and_leaves_no_trace() {
    let (_a, origin, content) = origin();
    let (b, replica) = replica_of(&origin);
    let mut third = origin.head(&enterprise()).unwrap().signed.header().clone();
    commit(&origin, &enterprise(), puts(0..10, "c"));
    commit(&origin, &enterprise(), puts(0..10, "d"));
    let fourth = origin.header_at(&enterprise(), 4).unwrap().unwrap().header().clone();
    let changes = puts(0..10, "c");
    let bytes = replica.counters().bytes_written;

    let gap = try_replicate(&replica, verified(&origin, &enterprise(), 5));
    assert!(matches!(gap, Err(StoreError::Gap { head: 3, offered: 5, .. })), "{gap:?}");
    let ours = replica.head(&enterprise()).unwrap().position();
    let fork = |set| {
        let fork = try_replicate(&replica, set);
        assert!(matches!(&fork, Err(StoreError::Fork { ours: at, .. }) if *at == ours), "{fork:?}");
    };
    fork(signed(Header { previous: SUITE.repeated(9), ..fourth.clone() }, &changes));
    third.origin_time_ms += 1;
    fork(signed(third.clone(), &changes));
    let second = origin.header_at(&enterprise(), 2).unwrap().unwrap().header().clone();
    fork(signed(Header { records: second.records + 1, ..second }, &changes));
    for wrong in [
        Header { root: SUITE.repeated(1), ..fourth.clone() },
        Header { records: fourth.records + 1, ..fourth.clone() },
    ] {
        let refused = try_replicate(&replica, signed(wrong, &changes));
        assert!(matches!(refused, Err(StoreError::RootMismatch { seq: 4, .. })), "{refused:?}");
    }
    let other = try_replicate(&replica, signed(fourth, &puts(0..10, "other")));
    assert!(matches!(other, Err(StoreError::RootMismatch { .. })), "{other:?}");

    assert_eq!(replica.counters().bytes_written, bytes);
    assert_holds(&replica, &enterprise(), &content);
    assert_eq!(replica.header_at(&enterprise(), 4).unwrap(), None);
    follow(&origin, &replica, &enterprise());
    let heads = replica.heads();
    drop(replica);
    assert_eq!(open(b.path()).heads(), heads);
}

#[test]
fn a_refused_first_change_set_leaves_no_half_registered_partition() {
    let (_a, origin, content) = origin();
    let directory = tempfile::tempdir().unwrap();
    let replica = open(directory.path());
    follow(&origin, &replica, &federation());
    let first = origin.header_at(&enterprise(), 1).unwrap().unwrap().header().clone();
    let wrong = signed(Header { root: SUITE.repeated(1), ..first }, &puts(0..900, "a"));
    let refused = try_replicate(&replica, wrong);
    assert!(matches!(refused, Err(StoreError::RootMismatch { .. })), "{refused:?}");
    assert_eq!(replica.head(&enterprise()), None);
    assert!(replica.live_pages(&enterprise()).is_none());
    assert_eq!(keys_of(&replica, b"p").len(), 2, "the only page, and index, is _federation's");
    // Another partition comes in between: numbers must not be mixed up.
    let permit = PartitionId::parse_full("zhengzhou/permit/410122/*").unwrap();
    commit(&origin, &permit, puts(0..77, "p"));
    follow(&origin, &replica, &permit);
    follow(&origin, &replica, &enterprise());
    let heads = replica.heads();
    drop(replica);
    let replica = open(directory.path());
    assert_eq!(replica.heads(), heads);
    assert_eq!(heads.len(), 3);
    assert_holds(&replica, &enterprise(), &content);
    assert_holds(&replica, &permit, &(0..77).map(|n| (key(n), b"p".to_vec())).collect());
}

#[test]
fn the_named_federation_head_must_be_known_and_not_older_than_before() {
    let (_a, origin, _) = origin();
    commit(&origin, &federation(), vec![put(2, "member")]);
    commit(&origin, &federation(), vec![put(3, "member")]);
    commit(&origin, &enterprise(), puts(0..10, "c"));
    let (_b, replica) = fresh_at(&origin, 1);
    let fourth = verified(&origin, &enterprise(), 4);
    let header = fourth.header().header().clone();
    let refused = |set: VerifiedChangeSet, needed_seq, have_seq| {
        let answer = try_replicate(&replica, set);
        let Err(StoreError::Federation { needed, have, .. }) = answer else { panic!("{answer:?}") };
        assert_eq!((needed, have), (needed_seq, have_seq));
    };
    let naming = |seq, hash| {
        let federation_head = Some(Position { seq, hash });
        signed(Header { federation_head, ..header.clone() }, fourth.changes())
    };
    let hash = |seq| origin.header_at(&federation(), seq).unwrap().unwrap().hash();
    // Newer than what this replica knows.
    refused(fourth.clone(), 3, 1);
    try_replicate(&replica, verified(&origin, &federation(), 2)).unwrap();
    refused(fourth.clone(), 3, 2);
    try_replicate(&replica, verified(&origin, &federation(), 3)).unwrap();
    // Another history of _federation.
    refused(naming(3, SUITE.repeated(5)), 3, 3);
    refused(naming(2, hash(3)), 2, 3);
    try_replicate(&replica, fourth).unwrap();
    // Older than its predecessor's.
    let fifth = Header {
        seq: 5,
        previous: replica.head(&enterprise()).unwrap().signed.hash(),
        history: replica.head(&enterprise()).unwrap().history().root(SUITE),
        ..header.clone()
    };
    let older = Some(Position { seq: 2, hash: hash(2) });
    refused(signed(Header { federation_head: older, ..fifth.clone() }, &[]), 2, 3);
    try_replicate(&replica, signed(fifth, &[])).unwrap();
    // Nothing of _federation at all.
    let empty = tempfile::tempdir().unwrap();
    let unknown = try_replicate(&open(empty.path()), verified(&origin, &enterprise(), 1));
    assert!(
        matches!(unknown, Err(StoreError::Federation { needed: 1, have: 0, .. })),
        "{unknown:?}"
    );
}

/// A replica that knows `_federation` up to a number, and `enterprise` up to 3.
fn fresh_at(origin: &Store, federation_seq: u64) -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let replica = open(directory.path());
    for seq in 1..=federation_seq {
        try_replicate(&replica, verified(origin, &federation(), seq)).unwrap();
    }
    for seq in 1..=3 {
        try_replicate(&replica, verified(origin, &enterprise(), seq)).unwrap();
    }
    (directory, replica)
}

#[test]
fn a_quarantine_stops_one_partition_and_outlives_a_restart() {
    let (_a, origin, content) = origin();
    let (b, replica) = replica_of(&origin);
    wait(replica.quarantine(&enterprise(), "two histories".into(), vec![])).unwrap();
    commit(&origin, &enterprise(), puts(0..10, "c"));
    commit(&origin, &federation(), vec![put(9, "x")]);
    let check = |replica: &Store| {
        assert_eq!(replica.quarantine_reason(&enterprise()).as_deref(), Some("two histories"));
        assert_eq!(replica.quarantine_reason(&federation()), None);
        let refused = try_replicate(replica, verified(&origin, &enterprise(), 4)).map(drop);
        let own = try_commit(replica, &enterprise(), puts(0..1, "x")).map(drop);
        let staging = wait(replica.begin_staging(origin.head(&enterprise()).unwrap().shown()));
        for refused in [refused, own, staging.map(drop)] {
            assert!(matches!(refused, Err(StoreError::Quarantined { .. })), "{refused:?}");
        }
        assert_holds(replica, &enterprise(), &content);
    };
    check(&replica);
    follow(&origin, &replica, &federation());
    // A partition that has nothing yet can be quarantined, too.
    let permit = PartitionId::parse_full("zhengzhou/permit/410122/*").unwrap();
    wait(replica.quarantine(&permit, "early".into(), vec![])).unwrap();
    drop(replica);
    let replica = open(b.path());
    check(&replica);
    assert_eq!(replica.quarantine_reason(&permit).as_deref(), Some("early"));
    assert_eq!(replica.heads().len(), 2);
}

#[test]
fn an_origin_that_a_peer_is_ahead_of_writes_nothing_before_it_has_caught_up() {
    let (_a, origin, _) = origin();
    let (_b, restored) = fresh_at(&origin, 1);
    commit(&origin, &enterprise(), puts(0..10, "c"));
    restored.await_own_history(&enterprise(), 4);
    let refused = try_commit(&restored, &enterprise(), puts(0..1, "x"));
    assert!(
        matches!(refused, Err(StoreError::AwaitsOwnHistory { have: 3, awaited: 4, .. })),
        "{refused:?}"
    );
    follow(&origin, &restored, &enterprise());
    commit(&restored, &enterprise(), puts(0..1, "x"));
    assert_eq!(restored.head(&enterprise()).unwrap().seq(), 5);
}

#[test]
fn what_an_earlier_key_is_said_to_have_signed_is_awaited_until_it_is_here_or_not_said_any_more() {
    let (_a, origin, _) = origin();
    let (_b, joined) = fresh_at(&origin, 1);
    let said = |seq| joined.await_earlier_keys([(enterprise(), seq)].into());
    let refused_at = |seq| {
        let refused = try_commit(&joined, &enterprise(), puts(0..1, "x"));
        let is_told = matches!(
            &refused,
            Err(StoreError::AwaitsEarlierKey { have: 3, last, .. }) if *last == seq
        );
        assert!(is_told, "{refused:?}");
    };
    commit(&origin, &enterprise(), puts(0..10, "c"));
    said(1000);
    refused_at(1000);
    // It may be lowered, and what was proven is not withdrawn with it.
    said(4);
    refused_at(4);
    joined.await_own_history(&enterprise(), 4);
    joined.await_earlier_keys([].into());
    let refused = try_commit(&joined, &enterprise(), puts(0..1, "x"));
    assert!(matches!(refused, Err(StoreError::AwaitsOwnHistory { .. })), "{refused:?}");
    said(4);
    follow(&origin, &joined, &enterprise());
    commit(&joined, &enterprise(), puts(0..1, "x"));
    said(1000);
    assert!(try_commit(&joined, &enterprise(), puts(0..1, "y")).is_err());
    joined.await_earlier_keys([].into());
    commit(&joined, &enterprise(), puts(0..1, "y"));
    assert_eq!(joined.head(&enterprise()).unwrap().seq(), 6);
}

#[test]
fn a_peer_keeps_its_place_at_the_writer_until_its_change_set_is_durable() {
    let (_a, origin, _) = origin();
    let (_b, replica) = replica_of(&origin);
    let replica = std::sync::Arc::new(replica);
    commit(&origin, &enterprise(), puts(0..10, "c"));
    let next = verified(&origin, &enterprise(), 4);
    let (say, said) = std::sync::mpsc::channel();
    let place = |what: &'static str| {
        let (say, replica) = (say.clone(), replica.clone());
        Box::new(move |_| {
            say.send((what, replica.head(&enterprise()).unwrap().seq())).unwrap();
        })
    };
    wait(replica.commit_replica_of_peer(next, place("applied"))).unwrap();
    let mut other = origin.header_at(&enterprise(), 4).unwrap().unwrap().header().clone();
    other.seq = 6;
    let gap = signed(other, &puts(0..10, "c"));
    assert!(wait(replica.commit_replica_of_peer(gap, place("refused"))).is_err());
    assert_eq!([said.recv(), said.recv()], [Ok(("applied", 4)), Ok(("refused", 4))]);
}
