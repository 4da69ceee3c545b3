//! What the tests share: stores, partitions, changes, a generator of random
//! numbers, and what must hold of a store after anything.

use std::{
    collections::BTreeMap,
    future::Future,
    path::Path,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, Ordering},
    },
};

use protocol::{
    change::{Change, Header, KeyProblem, KeyRing, SignedHeader, VerifiedChangeSet, changes_hash},
    hash::Hash,
    id::PartitionId,
    page::{Leaf, PageRef},
    session::fetch::{FetchedLeaf, ShownHead},
    sign::{PublicKey, SigningKey},
    suite::Suite,
    tree::Pages as _,
};

use super::reference::Memory;
use crate::{
    Head, Options, OwnChanges, Staging, Store, StoreError, engine::PackId, jobs::Job, keys,
};

/// The suite of these stores; `suites` has one of each.
pub const SUITE: Suite = Suite::One;

pub type Content = BTreeMap<Vec<u8>, Vec<u8>>;

/// One key signs for everybody here: whose signature counts is not the store's
/// question.
pub static KEY: LazyLock<Arc<SigningKey>> = LazyLock::new(|| Arc::new(signing_key_of(SUITE, 7)));

/// A signing key of a suite.
pub fn signing_key_of(suite: Suite, byte: u8) -> SigningKey {
    suite.signing_key(&vec![byte; suite.secret_key_bytes()]).unwrap()
}

pub struct Everybody;

impl KeyRing for Everybody {
    fn key(&self, _: &PartitionId, _: u64, _: &Hash) -> Result<PublicKey, KeyProblem> {
        Ok(KEY.public())
    }
}

pub fn federation() -> PartitionId {
    PartitionId::parse_full("zhengzhou/_federation/410100/*").unwrap()
}

pub fn enterprise() -> PartitionId {
    PartitionId::parse_full("zhengzhou/enterprise/410122/*").unwrap()
}

pub fn options() -> Options {
    Options { suite: SUITE, cache_mb: 16, disk_reserve_mb: Some(1) }
}

pub fn open(path: &Path) -> Store {
    open_with(path, &options())
}

pub fn open_with(path: &Path, options: &Options) -> Store {
    let store = Store::open(path, options).unwrap();
    store.set_signer(KEY.clone());
    store
}

/// A store that knows a `_federation`, without which nothing else is taken.
pub fn fresh() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    commit(&store, &federation(), vec![put(1, "hub")]);
    (directory, store)
}

pub fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// A small generator of the splitmix family; prints its seed, and takes
/// another one from `CREDITSYNC_SEED`.
pub struct Random(pub u64);

impl Random {
    pub fn new() -> Self {
        let seed = std::env::var("CREDITSYNC_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or(20_260_101);
        println!("CREDITSYNC_SEED={seed}");
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// `count` puts and deletes among keys below `keys`; `deletes` of 100.
    pub fn changes(&mut self, keys: u64, count: u64, deletes: u64) -> Vec<Change> {
        let mut changes = BTreeMap::new();
        for _ in 0..count {
            let number = self.below(keys);
            let change = if self.below(100) < deletes {
                delete(number)
            } else {
                put(number, format!("value {}", self.next()))
            };
            changes.insert(number, change);
        }
        changes.into_values().collect()
    }
}

pub fn key(number: u64) -> Vec<u8> {
    format!("9141{number:08}").into_bytes()
}

pub fn put(number: u64, value: impl Into<Vec<u8>>) -> Change {
    Change::Put { key: key(number), value: value.into() }
}

pub fn delete(number: u64) -> Change {
    Change::Delete { key: key(number) }
}

/// Puts of all these numbers.
pub fn puts(numbers: impl IntoIterator<Item = u64>, value: &str) -> Vec<Change> {
    numbers.into_iter().map(|number| put(number, value)).collect()
}

pub fn apply(content: &mut Content, changes: &[Change]) {
    for change in changes {
        match change {
            Change::Put { key, value } => content.insert(key.clone(), value.clone()),
            Change::Delete { key } => content.remove(key),
        };
    }
}

pub fn own(partition: &PartitionId, changes: Vec<Change>) -> OwnChanges {
    OwnChanges { partition: partition.clone(), changes, schema_version: 3, keep_body: true }
}

pub fn try_commit(
    store: &Store,
    partition: &PartitionId,
    changes: Vec<Change>,
) -> Result<Arc<Head>, StoreError> {
    store.commit_own_later(own(partition, changes))?.wait()
}

pub fn commit(store: &Store, partition: &PartitionId, changes: Vec<Change>) -> Arc<Head> {
    try_commit(store, partition, changes).unwrap()
}

/// The change set with this number as a peer gets it.
pub fn verified(store: &Store, partition: &PartitionId, seq: u64) -> VerifiedChangeSet {
    let sets = store.change_sets(partition, seq, 1, usize::MAX).unwrap().unwrap();
    sets.into_iter().next().unwrap().verify(&Everybody).unwrap()
}

/// Signs a header with this body, whatever it says.
pub fn signed(mut header: Header, changes: &[Change]) -> VerifiedChangeSet {
    let body = protocol::change::encode_changes(changes);
    header.change_count = changes.len() as u32;
    header.changes_hash = changes_hash(SUITE, &body);
    let header = SignedHeader::sign(header, &KEY);
    let body = protocol::codec::compress(&body);
    protocol::change::ChangeSet { header, body }.verify(&Everybody).unwrap()
}

pub fn try_replicate(store: &Store, set: VerifiedChangeSet) -> Result<Arc<Head>, StoreError> {
    wait(store.commit_replica(set))
}

/// Brings a partition of `to` up to the head of `from` by change sets.
pub fn follow(from: &Store, to: &Store, partition: &PartitionId) {
    let have = to.head(partition).map_or(0, |head| head.seq());
    for seq in have + 1..=from.head(partition).unwrap().seq() {
        let head = try_replicate(to, verified(from, partition, seq)).unwrap();
        assert_eq!(head.seq(), seq);
    }
}

/// A replica that holds what `origin` holds.
pub fn replica_of(origin: &Store) -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let replica = open(directory.path());
    follow(origin, &replica, &federation());
    if origin.head(&enterprise()).is_some() {
        follow(origin, &replica, &enterprise());
    }
    (directory, replica)
}

/// Everything that the store says about a partition is what follows from its
/// content, and no key is left over.
pub fn assert_holds(store: &Store, partition: &PartitionId, content: &Content) {
    let (pages, summary) = Memory::built(content);
    let head = store.head(partition).unwrap();
    assert_eq!(head.summary, summary);
    assert_eq!(head.signed.header().root, summary.root);
    assert_eq!(head.signed.header().records, content.len() as u64);
    pages.assert_same(&mut store.live_pages(partition).unwrap());
    for (key, value) in content {
        assert_eq!(store.get(partition, key).unwrap().as_ref(), Some(value));
        assert_eq!(store.get(partition, &[key, &b"~"[..]].concat()).unwrap(), None);
    }
    let mut read = Content::new();
    let mut snapshot = store.snapshot_blocking(partition).unwrap().unwrap();
    for leaf in snapshot.leaves() {
        let leaf = leaf.unwrap();
        read.extend(leaf.entries().map(|(key, value)| (key.to_vec(), value.to_vec())));
    }
    assert!(read == *content, "a snapshot reads other records than the partition has");
    drop(snapshot);
    assert_tidy(store);
}

/// Keys of a table.
pub fn keys_of(store: &Store, table: &[u8]) -> Vec<Vec<u8>> {
    let items = store.shared.disk.scan(table);
    items.map(|item| [table, &item.unwrap().0].concat()).collect()
}

/// After the chores: no snapshot's page, no old generation, no stale chunk, no
/// file beside sled's own.
pub fn assert_tidy(store: &Store) {
    tidy(store);
    assert_eq!(keys_of(store, b"s"), Vec::<Vec<u8>>::new(), "saved pages of closed snapshots");
    let chunks = |table: &[u8]| -> usize {
        let more = |key: Vec<u8>| usize::from(store.shared.disk.chunks(&key).unwrap()) - 1;
        keys_of(store, table).into_iter().map(more).sum()
    };
    assert_eq!(keys_of(store, b"c").len(), chunks(b"p") + chunks(b"b"), "stale chunks");
    let packs = store.shared.disk.packs.list();
    let needless = packs.iter().filter(|id| keys_of(store, &generation_prefix(id)).is_empty());
    assert_eq!(needless.count(), 0, "packs of what is gone: {packs:?}");
    let blobs = std::fs::read_dir(store.path().join("sled/blobs")).unwrap();
    assert_eq!(blobs.count(), 0, "sled moved values out of its file");
}

pub fn generation_prefix(id: &PackId) -> Vec<u8> {
    keys::generation(id.number, id.generation)
}

/// Waits until the writer has done its chores.
pub fn tidy(store: &Store) {
    store.queue.submit_blocking(|reply| Job::Tidy { reply: Some(reply) }).unwrap().wait().unwrap();
}

/// Ends the threads of a test, also when it fails.
pub struct SetOnDrop<'a>(pub &'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Copies a store as a crash at this moment would leave it, but for the sidecar.
/// The journal comes first, for what a checkpoint takes away from it is in sled by
/// then, and packs come last, for what refers to them is written behind them.
pub fn copy_crashed(from: &Path, to: &Path) {
    std::fs::copy(from.join("journal"), to.join("journal")).unwrap();
    for part in ["sled", "packs"] {
        copy_directory(&from.join(part), &to.join(part));
    }
}

pub fn copy_directory(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_directory(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

pub fn crashed(directory: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    copy_crashed(directory, copy.path());
    copy
}

/// A leaf as a peer describes and sends it.
pub type Delivery = Vec<(PageRef, Vec<u8>)>;

pub fn delivery(store: &Store) -> (ShownHead, Delivery) {
    let mut snapshot = store.snapshot_blocking(&enterprise()).unwrap().unwrap();
    let firsts: Vec<Vec<u8>> =
        snapshot.leaves().map(|leaf| leaf.unwrap().first_key().to_vec()).collect();
    let mut leaves = Vec::new();
    for first in firsts {
        let (_, body) = snapshot.seek(0, &first).unwrap().unwrap();
        leaves.push((Leaf::decode(&body).unwrap().describe(SUITE), body));
    }
    (snapshot.head().shown(), leaves)
}

/// Begins a staging, as behind a proof that the replica is in the head's history.
pub fn begin(replica: &Store, shown: &ShownHead) -> Staging {
    let have = replica.head(&shown.signed.header().partition).map(|head| head.position());
    wait(replica.begin_staging(ShownHead { have, ..shown.clone() })).unwrap()
}

/// Stages one leaf.
pub fn stage(staging: &mut Staging, leaf: FetchedLeaf) -> Result<(), StoreError> {
    let ready = staging.ready(leaf)?;
    wait(staging.stage(ready))
}

/// Stages leaves as the session does: asks which are held, sends the others.
/// Answers how many were held.
pub fn feed(staging: &mut Staging, leaves: &[(PageRef, Vec<u8>)]) -> usize {
    let mut count = 0;
    for leaves in leaves.chunks(32) {
        let pages: Vec<PageRef> = leaves.iter().map(|(page, _)| page.clone()).collect();
        let held = staging.resolve(&pages, u64::MAX).unwrap();
        for ((page, body), held) in leaves.iter().zip(held) {
            count += usize::from(held);
            let fetched = if held { FetchedLeaf::Held(page.clone()) } else { arrived(body) };
            stage(staging, fetched).unwrap();
        }
    }
    count
}

pub fn empty_replica(origin: &Store) -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let replica = open(directory.path());
    follow(origin, &replica, &federation());
    (directory, replica)
}

pub fn arrived(body: &[u8]) -> FetchedLeaf {
    let leaf = Leaf::decode(body).unwrap();
    FetchedLeaf::Arrived { described: leaf.describe_with_index(SUITE), leaf, body: body.to_vec() }
}
