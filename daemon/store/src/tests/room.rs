//! How much room each origin's data may take.

use std::sync::Arc;

use protocol::{
    change::{Change, Header, SignedHeader},
    id::{NodeId, PartitionId},
    page::{Leaf, RawLeaf},
    suite::Suite,
};

use super::fixtures::*;
use crate::{Ack, Head, Origins, Store, StoreError, state::now_ms};

fn node(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

fn of(origin: &str) -> PartitionId {
    PartitionId::parse_full(&format!("zhengzhou/enterprise/{origin}/*")).unwrap()
}

/// A hub that gives each of two counties so many MiB.
fn hub(quota_mb: u64) -> (tempfile::TempDir, Store) {
    let (directory, store) = fresh();
    let others = [node("410122"), node("410181")].into();
    store.set_origins(Origins { own: node("410100"), others, quota_mb: Some(quota_mb) });
    (directory, store)
}

/// Ten records of 10 000 bytes that do not compress.
fn ten(from: u64) -> Vec<Change> {
    let mut random = Random(from | 1);
    let mut value = || -> Vec<u8> { (0..10_000).map(|_| random.next() as u8).collect() };
    (from..from + 10).map(|number| put(number, value())).collect()
}

/// Commits what an origin has made, on top of what `origin` holds of it, at both.
fn deliver(
    origin: &Store,
    hub: &Store,
    partition: &PartitionId,
    changes: Vec<Change>,
) -> Result<Arc<Head>, StoreError> {
    commit(origin, partition, changes);
    let seq = hub.head(partition).map_or(0, |head| head.seq()) + 1;
    try_replicate(hub, verified(origin, partition, seq))
}

#[test]
fn who_is_over_the_quota_is_told_and_the_others_go_on() {
    let (_one, hub) = hub(1);
    let (_two, greedy) = replica_of(&hub);
    let (_three, honest) = replica_of(&hub);
    let mut taken = 0;
    let refused = (0..20).find_map(|round| {
        let delivered = deliver(&greedy, &hub, &of("410122"), ten(10 * round));
        taken += u64::from(delivered.is_ok());
        delivered.err()
    });
    let refused = refused.expect("2 MB are more than its quota");
    assert!((7..=10).contains(&taken), "{taken} of 100 KB each");
    let text = refused.to_string();
    assert!(matches!(refused, StoreError::OverQuota { .. }), "{refused:?}");
    for part in ["410122", "1 MiB", "origin_quota_mb", "上限"] {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(hub.head(&of("410122")).unwrap().seq(), taken, "nothing of it was written");
    let again = verified(&greedy, &of("410122"), taken + 1);
    assert!(matches!(try_replicate(&hub, again), Err(StoreError::OverQuota { .. })));
    for number in 0..7 {
        deliver(&honest, &hub, &of("410181"), ten(10 * number)).unwrap();
    }
    let used = |name| hub.room_of(&node(name)).unwrap().used;
    assert!(used("410122") <= 1024 * 1024 && used("410181") <= 1024 * 1024);
    // The hub's own data is its own business.
    for number in 0..20 {
        commit(&hub, &of("410100"), ten(10 * number));
    }
    assert_eq!(hub.room_of(&node("410100")).unwrap().quota, None);
}

#[test]
fn what_makes_it_less_is_taken_from_who_is_over_the_quota() {
    let (_one, hub) = hub(2);
    let (_two, county) = replica_of(&hub);
    for number in 0..12 {
        deliver(&county, &hub, &of("410122"), ten(10 * number)).unwrap();
        // The county keeps what the hub has not taken yet.
        let ack = Ack { seq: 1, at_ms: now_ms() };
        county.shared.partition(&of("410122")).unwrap().note_ack(&node("410100"), ack);
    }
    let others = [node("410122")].into();
    hub.set_origins(Origins { own: node("410100"), others, quota_mb: Some(1) });
    let refused = |result| matches!(result, Err(StoreError::OverQuota { .. }));
    let deletes: Vec<Change> = (0..60).map(delete).collect();
    let used = || hub.room_of(&node("410122")).unwrap().used;
    let before = used();
    deliver(&county, &hub, &of("410122"), deletes).unwrap();
    assert!(used() < before - 500_000);
    deliver(&county, &hub, &of("410122"), ten(500)).unwrap_or_else(|error| panic!("{error}"));
    for number in 60..64 {
        let _ = deliver(&county, &hub, &of("410122"), ten(10 * number));
    }
    let next = hub.head(&of("410122")).unwrap().seq() + 1;
    assert!(refused(try_replicate(&hub, verified(&county, &of("410122"), next))));
}

#[test]
fn pages_of_which_the_first_ones_are_over_the_quota_are_refused_there() {
    let (_one, origin) = fresh();
    for number in 0..40 {
        commit(&origin, &enterprise(), ten(10 * number));
    }
    let (directory, replica) = empty_replica(&origin);
    let others = [node("410122")].into();
    replica.set_origins(Origins { own: node("410100"), others, quota_mb: Some(2) });
    let (shown, leaves) = delivery(&origin);
    let mut staging = begin(&replica, &shown);
    let mut sent = 0;
    let refused = leaves.iter().find_map(|(_, body)| {
        sent += body.len();
        stage(&mut staging, arrived(body)).err()
    });
    let refused = refused.or_else(|| wait(staging.finish()).err());
    assert!(matches!(refused, Some(StoreError::OverQuota { .. })), "{refused:?}");
    assert!(replica.head(&enterprise()).is_none());
    // Nothing of it is left, also if the daemon ends before it is deleted.
    let copy = crashed(directory.path());
    for store in [&replica, &open(copy.path())] {
        tidy(store);
        assert_eq!(keys_of(store, b"p").len(), keys_of(store, &federation_pages()).len());
    }
    let others = [node("410122")].into();
    replica.set_origins(Origins { own: node("410100"), others, quota_mb: Some(8) });
    let mut staging = begin(&replica, &shown);
    feed(&mut staging, &leaves);
    let head = wait(staging.finish()).unwrap();
    assert_eq!(head.summary, origin.head(&enterprise()).unwrap().summary);
    assert_tidy(&replica);
}

#[test]
fn what_earlier_attempts_have_left_counts_as_well() {
    let (_one, origin) = fresh();
    for number in 0..50 {
        commit(&origin, &enterprise(), ten(10 * number));
    }
    let (directory, replica) = empty_replica(&origin);
    let limit = |store: &Store| {
        let others = [node("410122")].into();
        store.set_origins(Origins { own: node("410100"), others, quota_mb: Some(8) });
    };
    limit(&replica);
    // A tree whose end never comes, and then another one with lower keys, again and
    // again: nothing of those before is stale, as far as anybody can tell.
    let (shown, leaves) = delivery(&origin);
    let attempt = |store: &Store, round: u64| {
        let mut staging = begin(store, &shown);
        let lower = |(_, body): &(_, Vec<u8>)| {
            let leaf = Leaf::decode(body).unwrap();
            let key = |key: &[u8]| [&(1000 - round).to_be_bytes()[..], key].concat();
            let entries: Vec<(Vec<u8>, Vec<u8>)> =
                leaf.entries().map(|(k, value)| (key(k), value.to_vec())).collect();
            RawLeaf::of(entries.iter().map(|(key, value)| (&key[..], &value[..])))
                .make(Suite::One)
                .body
        };
        // Each batch is written when the next one comes.
        let bodies: Vec<Vec<u8>> = leaves.iter().map(lower).collect();
        let staged = bodies.iter().try_for_each(|body| stage(&mut staging, arrived(body)));
        // Its end would take away what lies behind it.
        drop(staging);
        staged.err()
    };
    let mut most = 0;
    for round in 0..12 {
        attempt(&replica, round);
        tidy(&replica);
        let bytes: usize = keys_of(&replica, b"p").len();
        most = most.max(bytes);
    }
    let of_one = keys_of(&origin, b"p").len();
    assert!(most <= 4 * of_one, "{most} entries, and a tree has {of_one}");
    drop(replica);
    let replica = open(directory.path());
    limit(&replica);
    for round in 12..24 {
        attempt(&replica, round);
        tidy(&replica);
        assert!(keys_of(&replica, b"p").len() <= 4 * of_one, "after a restart");
    }
}

/// The pages of `_federation`, the first partition of every store here.
fn federation_pages() -> Vec<u8> {
    crate::keys::generation(0, 0)
}

#[test]
fn a_flipped_record_does_not_fill_the_disk() {
    let (_one, hub) = hub(1);
    let (_two, county) = replica_of(&hub);
    let mut most = 0;
    let mut refused = None;
    for number in 0..12_000u64 {
        let changes = vec![put(1, number.to_string())];
        if let Err(error) = deliver(&county, &hub, &of("410122"), changes) {
            refused = Some(error);
            break;
        }
        most = most.max(hub.room_of(&node("410122")).unwrap().used);
    }
    assert!(matches!(refused, Some(StoreError::OverQuota { .. })), "{refused:?}");
    assert!(most <= 1024 * 1024);
    let (_three, other) = empty_replica(&hub);
    deliver(&other, &hub, &of("410181"), ten(0)).unwrap();
}

/// Leaves of 9 MB, of records that compress to nothing.
fn wide(leaves: u64, of_each: u64) -> impl Iterator<Item = Vec<Change>> {
    let numbers: Vec<u64> = (0..leaves * of_each).collect();
    let value = vec![0; 65_000];
    let put = move |number: &u64| {
        let (leaf, record) = (number / of_each, number % of_each);
        let key = [&leaf.to_be_bytes()[..], &record.to_be_bytes()].concat();
        Change::Put { key, value: value.clone() }
    };
    let sets: Vec<Vec<u64>> = numbers.chunks(125).map(<[u64]>::to_vec).collect();
    sets.into_iter().map(move |numbers| numbers.iter().map(&put).collect())
}

#[test]
fn changes_that_touch_too_much_become_several_change_sets_and_no_replica_takes_them_as_one() {
    const LEAVES: u64 = 10;
    let (_one, origin) = fresh();
    for changes in wide(LEAVES, 150) {
        commit(&origin, &enterprise(), changes);
    }
    let before = origin.head(&enterprise()).unwrap();
    assert_eq!(before.summary.pages[0], LEAVES, "{:?}", before.summary);
    assert!(before.summary.bytes > 64 * 1024 * 1024);
    let (_two, replica) = replica_of(&origin);

    let first = |leaf: u64| [&leaf.to_be_bytes()[..], &0u64.to_be_bytes()].concat();
    // Two changes of one leaf, and one of another.
    let few = [first(3), [&first(3)[..], b"x"].concat(), first(5)];
    let few: Vec<Change> = few.into_iter().map(|key| Change::Delete { key }).collect();
    let pages = origin.live_pages(&enterprise()).unwrap();
    let each = before.summary.bytes / LEAVES;
    assert_eq!(pages.touched_bytes(&few, u64::MAX).unwrap(), 2 * each);
    assert_eq!(pages.touched_bytes(&few, each - 1).unwrap(), each, "no more is counted");
    let changes: Vec<Change> =
        (0..LEAVES).map(|leaf| Change::Delete { key: first(leaf) }).collect();
    let after = commit(&origin, &enterprise(), changes.clone());
    assert_eq!(after.seq(), before.seq() + 2, "two halves");
    assert_eq!(after.summary.records, before.summary.records - LEAVES);

    // As one, with everything else as it should be.
    let as_one = Header {
        seq: before.seq() + 1,
        previous: before.signed.hash(),
        history: before.history().root(SUITE),
        root: after.root(),
        records: after.summary.records,
        ..SignedHeader::header(&after.signed).clone()
    };
    let refused = try_replicate(&replica, signed(as_one, &changes)).unwrap_err();
    assert!(matches!(refused, StoreError::Excess(_)), "{refused:?}");
    assert_eq!(replica.head(&enterprise()).unwrap().position(), before.position());
    follow(&origin, &replica, &enterprise());
    assert_eq!(replica.head(&enterprise()).unwrap().summary, after.summary);
}
