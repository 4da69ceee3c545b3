//! What the log forgets, and that nothing which depends on it is lost.

use super::fixtures::*;
use crate::{Ack, Origins, Store, keys, quota::LogKept, state::now_ms, testing::LogHarm};

/// As the writer has them in tests.
const BODY_BYTES_KEPT: u64 = 512 * 1024;
const BODY_BYTES_ACKNOWLEDGED: u64 = 256 * 1024;
const HEADERS_MAX: usize = 100;

fn node(name: &str) -> protocol::id::NodeId {
    protocol::id::NodeId::new(name).unwrap()
}

/// To `store` the partition `enterprise` is another node's.
pub fn as_hub(store: &Store) {
    let others = [node("410122")].into();
    store.set_origins(Origins { own: node("410100"), others, quota_mb: None });
}

fn acknowledged(store: &Store, name: &str, seq: u64, at_ms: i64) {
    let state = store.shared.partition(&enterprise()).unwrap();
    state.note_ack(&node(name), Ack { seq, at_ms });
}

/// Bytes that do not compress.
fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut random = Random(seed | 1);
    (0..bytes).map(|_| random.next() as u8).collect()
}

pub fn log_of(store: &Store) -> (Vec<u64>, Vec<u64>, LogKept) {
    let number = store.shared.partition(&enterprise()).unwrap().number;
    let numbers = |prefix: Vec<u8>| {
        keys_of(store, &prefix).iter().map(|key| keys::seq_of(key).unwrap()).collect()
    };
    let head = store.head(&enterprise()).unwrap();
    (numbers(keys::log_headers(number)), numbers(keys::log_bodies(number)), head.log)
}

/// What the head says of the log is what is there.
pub fn assert_counted(store: &Store) {
    let (headers, bodies, kept) = log_of(store);
    let number = store.shared.partition(&enterprise()).unwrap().number;
    let body = |seq: &u64| store.shared.disk.get_chunked(&keys::log_body(number, *seq));
    let bytes: usize = bodies.iter().map(|seq| body(seq).unwrap().unwrap().len()).sum();
    assert_eq!((kept.headers, kept.body_bytes), (headers.len() as u64, bytes as u64));
}

#[test]
fn bodies_go_when_all_who_were_heard_of_lately_have_them() {
    let (_directory, store) = fresh();
    let mut content = Content::new();
    let mut write = |number: u64| {
        let changes = vec![put(1, noise(number, 40_000))];
        apply(&mut content, &changes);
        commit(&store, &enterprise(), changes);
    };
    write(1);
    acknowledged(&store, "410100", 1, now_ms());
    (2..=20).for_each(&mut write);
    assert_eq!(log_of(&store).1, (2..=20).collect::<Vec<_>>(), "nobody has more yet");
    // Somebody who was not heard of for long is not waited for.
    acknowledged(&store, "410100", 18, now_ms());
    acknowledged(&store, "410199", 2, 0);
    (21..=40).for_each(&mut write);
    let (headers, bodies, kept) = log_of(&store);
    assert_eq!(bodies, (19..=40).collect::<Vec<_>>(), "up to what was acknowledged");
    assert_eq!(headers.len(), 40, "a header is asked for when a key changes");
    acknowledged(&store, "410100", 60, now_ms());
    (41..=60).for_each(&mut write);
    let (_, bodies, newest) = log_of(&store);
    assert_eq!(bodies, (55..=60).collect::<Vec<_>>(), "what all have is not kept for long");
    assert!(newest.body_bytes <= BODY_BYTES_ACKNOWLEDGED && newest.body_bytes < kept.body_bytes);
    assert_counted(&store);
    assert_eq!(store.change_sets(&enterprise(), 54, 9, usize::MAX).unwrap(), None);
    assert_eq!(store.change_sets(&enterprise(), 55, 9, usize::MAX).unwrap().unwrap().len(), 6);
    assert_holds(&store, &enterprise(), &content);
}

#[test]
fn bodies_that_nobody_takes_go_at_last() {
    let (_directory, store) = fresh();
    for number in 0..240 {
        if number == 1 {
            acknowledged(&store, "410100", 1, now_ms());
        }
        commit(&store, &enterprise(), vec![put(1, noise(number, 40_000))]);
        assert!(log_of(&store).2.body_bytes <= 4 * BODY_BYTES_KEPT);
    }
    assert!(log_of(&store).2.body_bytes > 3 * BODY_BYTES_KEPT);
    assert_counted(&store);
}

#[test]
fn a_damaged_header_does_not_hold_up_what_follows() {
    let (_one, origin) = fresh();
    for number in 0..HEADERS_MAX as u64 {
        commit(&origin, &enterprise(), vec![put(1, number.to_string())]);
    }
    let (_two, hub) = empty_replica(&origin);
    as_hub(&hub);
    follow(&origin, &hub, &enterprise());
    for (seq, harm) in [
        (1, LogHarm::HeaderGarbled),
        (3, LogHarm::HeaderAltered),
        (6, LogHarm::HeaderGarbled),
        (7, LogHarm::HeaderGarbled),
    ] {
        hub.damage_log(&enterprise(), seq, harm);
    }
    for number in 0..8 {
        commit(&origin, &enterprise(), vec![put(2, number.to_string())]);
        follow(&origin, &hub, &enterprise());
    }
    let (headers, _, kept) = log_of(&hub);
    assert_eq!(headers, (9..=108).collect::<Vec<_>>());
    // What the header behind one says of it is left, which of two that are gone is of the
    // later one.
    assert_eq!((kept.headers, kept.hashes), (HEADERS_MAX as u64, 7));
    for seq in 1..=8 {
        let hash = origin.header_at(&enterprise(), seq).unwrap().unwrap().hash();
        let known = hub.header_hash_at(&enterprise(), seq).unwrap();
        assert_eq!(known, (seq != 6).then_some(hash), "number {seq}");
    }
}

#[test]
fn of_another_origins_old_headers_the_hash_is_left_and_proves_as_much() {
    let (_one, origin) = fresh();
    for number in 0..350u64 {
        commit(&origin, &enterprise(), vec![put(1, number.to_string())]);
    }
    let (directory, hub) = empty_replica(&origin);
    as_hub(&hub);
    follow(&origin, &hub, &enterprise());
    let (headers, _, kept) = log_of(&hub);
    assert_eq!(headers, (251..=350).collect::<Vec<_>>());
    assert_eq!((kept.headers, kept.hashes), (HEADERS_MAX as u64, 250));
    assert_counted(&hub);

    let before = hub.room_of(&node("410122")).unwrap().used;
    drop(hub);
    let hub = open(directory.path());
    as_hub(&hub);
    assert_eq!(hub.room_of(&node("410122")).unwrap().used, before, "after a restart, too");
    let head = hub.head(&enterprise()).unwrap();
    for earlier in 1..350 {
        let hash = origin.header_at(&enterprise(), earlier).unwrap().unwrap().hash();
        assert_eq!(hub.header_hash_at(&enterprise(), earlier).unwrap(), Some(hash));
        let have = protocol::change::Position { seq: earlier, hash };
        let proof = hub.history_proof(&enterprise(), &head, Some(earlier)).unwrap().unwrap();
        let described = head.signed.header();
        let shown = proof.check(described.seq - 1, &described.history, Some(have));
        assert!(shown.is_ok(), "number {earlier}");
    }
    // A change set that was repeated is known, and the next one is taken.
    assert_eq!(try_replicate(&hub, verified(&origin, &enterprise(), 3)).unwrap().seq(), 350);
    commit(&origin, &enterprise(), vec![put(2, "more")]);
    follow(&origin, &hub, &enterprise());
    assert_holds(
        &hub,
        &enterprise(),
        &[(key(1), b"349".to_vec()), (key(2), b"more".to_vec())].into(),
    );
}

/// What stays of a change set for ever at its origin, when its body is gone: its signed
/// header, and its part of the history's tree.
#[test]
fn a_change_set_leaves_few_bytes_for_ever() {
    let (_directory, store) = fresh();
    let disk = &store.shared.disk;
    let mut random = Random::new();
    let mut deliver = |count: u64| {
        (0..count).for_each(|_| drop(commit(&store, &enterprise(), random.changes(500, 20, 10))));
        let bytes_of = |table: &[u8]| -> usize {
            let pairs = disk.scan(table).map(Result::unwrap);
            pairs.map(|(key, value)| table.len() + key.len() + value.len()).sum()
        };
        [b"l", b"m", b"b", b"p"].map(|table| bytes_of(table))
    };
    let before = deliver(300);
    let after = deliver(512);
    let grown = |at: usize| (after[at] - before[at]) / 512;
    println!("for each change set: {} bytes of headers, {} of history", grown(0), grown(1));
    assert!(after[2] < 2 * 256 * 1024, "bodies go: {after:?}");
    assert!(after[3] < before[3] + before[3] / 2, "pages stay as many: {before:?} {after:?}");
    assert!(grown(0) < 450 && grown(1) < 64, "{before:?} {after:?}");
}
