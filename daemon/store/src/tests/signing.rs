//! Signing keys: who signs the next own change set, and what a change of keys
//! leaves in the log.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use protocol::{
    change::{Header, KeyProblem, KeyRing, Position},
    hash::Hash,
    id::{NodeId, PartitionId},
    sign::{PublicKey, SigningKey},
};

use super::fixtures::{
    Content, KEY, Random, SUITE, apply, assert_holds, commit, enterprise, federation, fresh, open,
    options, own, put, puts, replica_of, signing_key_of, try_commit, try_replicate, wait,
};
use crate::{Head, Store, StoreError, engine::Batch, jobs::Job, keys};

/// A ring that knows one key.
struct Only(PublicKey);

impl KeyRing for Only {
    fn key(&self, _: &PartitionId, _: u64, key_id: &Hash) -> Result<PublicKey, KeyProblem> {
        if self.0.id() == *key_id { Ok(self.0) } else { Err(KeyProblem::Unknown) }
    }
}

pub fn signing_key(seed: u8) -> Arc<SigningKey> {
    Arc::new(signing_key_of(SUITE, seed))
}

/// The id of the key that signed a number.
fn signer_of(store: &Store, partition: &PartitionId, seq: u64) -> Hash {
    store.header_at(partition, seq).unwrap().unwrap().header().key_id
}

#[test]
fn own_change_sets_are_signed_by_the_signer_that_was_set() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), &options()).unwrap();
    assert_eq!(store.signer_id(), None);
    let refused = try_commit(&store, &federation(), vec![put(1, "hub")]);
    assert!(
        matches!(&refused, Err(StoreError::NoSigner(of)) if *of == federation()),
        "{refused:?}"
    );
    assert_eq!(store.head(&federation()), None);
    let mut seq = 0;
    for key in [signing_key(1), signing_key(2)] {
        store.set_signer(key.clone());
        let id = key.public().id();
        assert_eq!(store.signer_id(), Some(id));
        commit(&store, &federation(), vec![put(1, "hub")]);
        seq += 1;
        assert_eq!(signer_of(&store, &federation(), seq), id);
    }
    drop(store);
    let store = Store::open(directory.path(), &options()).unwrap();
    assert_eq!(store.signer_id(), None, "keys are never kept by the store");
}

fn permit() -> PartitionId {
    PartitionId::parse_full("zhengzhou/permit/410122/*").unwrap()
}

pub fn county() -> NodeId {
    enterprise().origin
}

pub fn last(numbers: &[(PartitionId, u64)]) -> BTreeMap<PartitionId, u64> {
    numbers.iter().cloned().collect()
}

/// The whole history verifies, each change set with the key that counts for its
/// number, each follows the one before, and the last one is the head.
pub fn assert_signed(store: &Store, partition: &PartitionId, key: impl Fn(u64) -> Arc<SigningKey>) {
    let head = store.head(partition).unwrap();
    let mut previous = SUITE.none();
    for seq in 1..=head.seq() {
        let sets = store.change_sets(partition, seq, 1, usize::MAX).unwrap().unwrap();
        let set = sets.into_iter().next().unwrap().verify(&Only(key(seq).public()));
        let set = set.unwrap_or_else(|error| panic!("number {seq}: {error}"));
        let header = set.header().header();
        assert_eq!((header.seq, header.previous), (seq, previous));
        previous = set.header().hash();
    }
    assert_eq!(head.position(), Position { seq: head.seq(), hash: previous });
    assert_eq!((head.signed.header().root, head.signed.header().key_id), {
        (head.root(), key(head.seq()).public().id())
    });
}

/// `enterprise` with nine change sets, `permit` with four, and the content of
/// the first.
pub fn two_partitions() -> (tempfile::TempDir, Store, Content) {
    let (directory, store) = fresh();
    let mut content = Content::new();
    let mut random = Random::new();
    for _ in 0..9 {
        let changes = random.changes(900, 200, 30);
        apply(&mut content, &changes);
        commit(&store, &enterprise(), changes);
    }
    for number in 0..4 {
        commit(&store, &permit(), vec![put(number, "p")]);
    }
    (directory, store, content)
}

/// What does not change when headers are signed anew.
fn described(store: &Store, partition: &PartitionId) -> Vec<Header> {
    let headers = (1..=store.head(partition).unwrap().seq()).map(|seq| {
        let header = store.header_at(partition, seq).unwrap().unwrap().header().clone();
        Header { previous: SUITE.none(), history: SUITE.none(), key_id: SUITE.none(), ..header }
    });
    headers.collect()
}

#[test]
fn what_the_old_key_may_not_sign_is_signed_anew_once() {
    let (directory, store, content) = two_partitions();
    let other = PartitionId::parse_full("zhengzhou/enterprise/410181/*").unwrap();
    commit(&store, &other, vec![put(1, "x")]);
    let next = signing_key(8);
    let (before, heads) = (described(&store, &enterprise()), store.heads());
    // The journal has room, so the writer makes no checkpoint meanwhile.
    store.shared.disk.checkpoint().unwrap();
    let counters = store.counters();
    let mut events = store.subscribe();
    // `permit` is not listed: nothing of it was accepted.
    let adopt = |store: &Store| {
        wait(store.adopt_signer(next.clone(), county(), last(&[(enterprise(), 6)]))).unwrap()
    };
    assert_eq!(adopt(&store), 3 + 4);
    let check = |store: &Store| {
        assert_signed(
            store,
            &enterprise(),
            |seq| if seq <= 6 { KEY.clone() } else { next.clone() },
        );
        assert_signed(store, &permit(), |_| next.clone());
        for untouched in [&federation(), &other] {
            assert_eq!(store.head(untouched).as_ref(), heads.get(untouched));
            assert_signed(store, untouched, |_| KEY.clone());
        }
        assert_eq!(described(store, &enterprise()), before);
        for partition in [enterprise(), permit()] {
            let (now, then) = (store.head(&partition).unwrap(), &heads[&partition]);
            let (signed, before) = (then.signed.clone(), then.before.clone());
            let same = Head { signed, before, ..Head::clone(&now) };
            assert_eq!(same, **then, "only the header is another");
        }
        assert_holds(store, &enterprise(), &content);
    };
    check(&store);
    assert_eq!(store.signer_id(), Some(next.public().id()));
    let heard: Vec<_> = std::iter::from_fn(|| events.try_recv().ok()).collect();
    assert_eq!(heard.len(), 2, "{heard:?}");
    assert!(heard.contains(&enterprise()) && heard.contains(&permit()));
    let after = store.counters();
    assert_eq!((after.syncs - counters.syncs, after.commits), (1, counters.commits));
    // Again: nothing is left to do, and nothing is done.
    assert_eq!(adopt(&store), 0);
    let again = store.counters();
    assert_eq!((again.syncs, again.bytes_written), (after.syncs, after.bytes_written));
    assert!(events.try_recv().is_err());
    let signed = store.heads();
    drop(store);
    let sidecar = std::fs::read_to_string(directory.path().join("HEADS")).unwrap();
    for head in signed.values() {
        assert!(sidecar.contains(&head.signed.hash().to_string()), "{sidecar}");
    }
    let store = open(directory.path());
    assert_eq!(store.heads(), signed);
    check(&store);
    assert_eq!(adopt(&store), 0);
    commit(&store, &enterprise(), puts(0..3, "new"));
    assert_eq!(signer_of(&store, &enterprise(), 10), next.public().id());
}

#[test]
fn a_hub_never_signs_its_federation_anew() {
    let (_directory, store) = fresh();
    let hub = federation().origin;
    let own_data = PartitionId { origin: hub.clone(), ..enterprise() };
    commit(&store, &own_data, vec![put(1, "x")]);
    let head = store.head(&federation());
    assert_eq!(store.adopt_signer_blocking(signing_key(8), hub, BTreeMap::new()).unwrap(), 1);
    assert_eq!(store.head(&federation()), head);
    assert_signed(&store, &federation(), |_| KEY.clone());
    assert_signed(&store, &own_data, |_| signing_key(8));
}

#[test]
fn a_switch_that_was_interrupted_is_done_again() {
    let (directory, store, _) = two_partitions();
    let next = signing_key(8);
    let adopt = |store: &Store, permit_last| {
        let last = last(&[(enterprise(), 6), (permit(), permit_last)]);
        store.adopt_signer_blocking(next.clone(), county(), last)
    };
    // The flush fails: what was applied may be there or not, and the key stays.
    store.shared.disk.broken.sync.store(true, Ordering::Relaxed);
    let failed = adopt(&store, 1);
    assert!(matches!(failed, Err(StoreError::Database(_))), "{failed:?}");
    assert_eq!(store.signer_id(), Some(KEY.public().id()));
    drop(store);
    let store = open(directory.path());
    adopt(&store, 1).unwrap();
    let key = |bound| move |seq| if seq <= bound { KEY.clone() } else { signing_key(8) };
    assert_signed(&store, &enterprise(), key(6));
    assert_signed(&store, &permit(), key(1));

    // The machine stops when one partition is done; the old key signs some more
    // until somebody repeats it.
    let (directory, store, _) = two_partitions();
    assert_eq!(adopt(&store, 4).unwrap(), 3);
    drop(store);
    let store = open(directory.path());
    commit(&store, &enterprise(), puts(0..3, "x"));
    commit(&store, &permit(), puts(0..3, "x"));
    assert_eq!(adopt(&store, 1).unwrap(), 1 + 4);
    assert_signed(&store, &enterprise(), key(6));
    assert_signed(&store, &permit(), key(1));
}

#[test]
fn what_cannot_be_signed_anew_changes_nothing() {
    let (_directory, store, _) = two_partitions();
    let log = |seq| keys::log_header(2, seq);
    let kept = store.shared.disk.get(&log(2)).unwrap().unwrap().to_vec();
    let mut batch = Batch::default();
    batch.remove(log(2));
    store.shared.disk.apply(batch).unwrap();
    let heads = store.heads();
    let adopt = |last| store.adopt_signer_blocking(signing_key(8), county(), last);
    // `enterprise`, which comes first, is as it was, too.
    let missing = adopt(BTreeMap::new());
    let Err(StoreError::HeaderMissing { partition, seq: 2 }) = missing else {
        panic!("{missing:?}")
    };
    assert_eq!(partition, permit());
    assert_signed(&store, &enterprise(), |_| KEY.clone());
    assert_eq!((store.heads(), store.signer_id()), (heads, Some(KEY.public().id())));
    // Nobody needs it where it was accepted.
    assert_eq!(adopt(last(&[(enterprise(), 9), (permit(), 2)])).unwrap(), 2);
    let mut batch = Batch::default();
    batch.put(log(2), kept);
    store.shared.disk.apply(batch).unwrap();

    let (_directory, store) = fresh();
    for _ in 0..151 {
        commit(&store, &enterprise(), vec![]);
    }
    let adopt = |last| store.adopt_signer_blocking(signing_key(8), county(), last);
    let many = adopt(BTreeMap::new());
    let Err(StoreError::TooManyToSign { headers: 151, limit: 150, .. }) = many else {
        panic!("{many:?}")
    };
    assert_signed(&store, &enterprise(), |_| KEY.clone());
    assert_eq!(adopt(last(&[(enterprise(), 1)])).unwrap(), 150);
    assert_signed(&store, &enterprise(), |seq| if seq == 1 { KEY.clone() } else { signing_key(8) });
}

#[test]
fn a_replica_follows_what_was_signed_anew() {
    let (_a, origin, mut content) = two_partitions();
    let (b, replica) = replica_of(&origin);
    for round in 0..5 {
        let changes = puts(round * 10..round * 10 + 300, "later");
        apply(&mut content, &changes);
        commit(&origin, &enterprise(), changes);
    }
    let next = signing_key(8);
    let accepted = replica.head(&enterprise()).unwrap().seq();
    let last = last(&[(enterprise(), accepted), (permit(), 4)]);
    assert_eq!(origin.adopt_signer_blocking(next.clone(), county(), last).unwrap(), 5);
    for seq in accepted + 1..=accepted + 5 {
        let sets = origin.change_sets(&enterprise(), seq, 1, usize::MAX).unwrap().unwrap();
        let set = sets.into_iter().next().unwrap().verify(&Only(next.public())).unwrap();
        assert_eq!(try_replicate(&replica, set).unwrap().seq(), seq);
    }
    let check = |replica: &Store| {
        let heads = (replica.head(&enterprise()).unwrap(), origin.head(&enterprise()).unwrap());
        assert_eq!((heads.0.position(), heads.0.root()), (heads.1.position(), heads.1.root()));
        assert_holds(replica, &enterprise(), &content);
    };
    check(&replica);
    drop(replica);
    check(&open(b.path()));
}

#[test]
fn heads_that_wait_for_the_same_flush_are_signed_anew() {
    let (_directory, store) = fresh();
    let next = signing_key(8);
    let ((go, ready), (begun, building)) = (mpsc::channel(), mpsc::channel());
    // While the writer builds this, the others gather behind it.
    let hub = federation().origin;
    std::thread::scope(|scope| {
        let build = move |_| {
            begun.send(()).unwrap();
            ready.recv().unwrap();
            Ok(own(&federation(), vec![put(7, "the next key")]))
        };
        let held = scope.spawn(|| store.rotate_signer(KEY.clone(), hub, build).unwrap());
        building.recv().unwrap();
        let mut pending = Vec::new();
        for number in 0..3 {
            let changes = own(&enterprise(), vec![put(number, "x")]);
            pending.push(store.commit_own_later(changes).unwrap());
        }
        let (adopted, origin) = (next.clone(), county());
        let last = last(&[(enterprise(), 1)]);
        let job = |reply| Job::AdoptSigner { next: adopted, origin, last, reply };
        let adopted = store.queue.submit_blocking(job).unwrap();
        let changes = own(&enterprise(), vec![put(9, "x")]);
        let later = store.commit_own_later(changes).unwrap();
        go.send(()).unwrap();
        held.join().unwrap();
        let seqs: Vec<u64> = pending.into_iter().map(|p| p.wait().unwrap().seq()).collect();
        assert_eq!(seqs, [1, 2, 3]);
        assert_eq!(adopted.wait().unwrap(), 2);
        assert_eq!(later.wait().unwrap().seq(), 4);
    });
    assert_signed(&store, &enterprise(), |seq| if seq == 1 { KEY.clone() } else { next.clone() });
}

/// Commits to a partition until told to stop; answers how many.
pub fn commit_until(done: &AtomicBool, store: &Store, partition: &PartitionId) -> u64 {
    let mut count = 0;
    while !done.load(Ordering::Acquire) {
        let pending: Vec<_> = (0..3)
            .map(|n| store.commit_own_later(own(partition, vec![put(n, "x")])).unwrap())
            .collect();
        for pending in pending {
            count += 1;
            assert_eq!(pending.wait().unwrap().seq(), count);
        }
    }
    count
}

/// Waits until the head has a number; answers what it has then.
pub fn reach(store: &Store, partition: &PartitionId, seq: u64) -> u64 {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        assert!(Instant::now() < deadline, "{partition} does not reach number {seq}");
        match store.head(partition) {
            Some(head) if head.seq() >= seq => return head.seq(),
            _ => std::thread::yield_now(),
        }
    }
}
