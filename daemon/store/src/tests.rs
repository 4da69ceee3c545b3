//! The store as its users see it, against a simple reference: an ordered map
//! and the tree that `protocol` builds from it.

#[path = "tests_commit.rs"]
mod commit;
#[path = "tests_disk.rs"]
mod disk;
#[path = "tests_forget.rs"]
mod forget;
#[path = "tests_heads.rs"]
mod heads;
#[path = "tests_journal.rs"]
mod journal;
#[path = "tests_packs.rs"]
mod packs;
#[path = "tests_replica.rs"]
mod replica;
#[path = "tests_signing.rs"]
mod signing;
#[path = "tests_snapshot.rs"]
mod snapshot;
#[path = "tests_staging.rs"]
mod staging;
#[path = "tests_table.rs"]
mod table;

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
    id::{NodeId, PartitionId},
    page::{Leaf, LeafBuilder},
    sign::{PublicKey, SigningKey},
    tree::{Pages, Summary, TreeBuilder},
};

use super::{Head, Options, OwnChanges, Store, StoreError, packs::PackId, writer::Job};

type Content = BTreeMap<Vec<u8>, Vec<u8>>;

/// One key signs for everybody here: whose signature counts is not the store's
/// question.
static KEY: LazyLock<Arc<SigningKey>> = LazyLock::new(|| Arc::new(SigningKey::from_seed(&[7; 32])));

struct Everybody;

impl KeyRing for Everybody {
    fn key(&self, _: &PartitionId, _: u64, _: &Hash) -> Result<PublicKey, KeyProblem> {
        Ok(KEY.public())
    }
}

fn federation() -> PartitionId {
    PartitionId::parse_full("zhengzhou/_federation/410100/*").unwrap()
}

fn enterprise() -> PartitionId {
    PartitionId::parse_full("zhengzhou/enterprise/410122/*").unwrap()
}

fn options() -> Options {
    Options { cache_mb: 16, disk_reserve_mb: Some(1) }
}

fn open(path: &Path) -> Store {
    open_with(path, &options())
}

fn open_with(path: &Path, options: &Options) -> Store {
    let store = Store::open(path, options).unwrap();
    store.set_signer(KEY.clone());
    store
}

/// A store that knows a `_federation`, without which nothing else is taken.
fn fresh() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    commit(&store, &federation(), vec![put(1, "hub")]);
    (directory, store)
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// A small generator of the splitmix family; prints its seed, and takes
/// another one from `CREDITSYNC_SEED`.
struct Random(u64);

impl Random {
    fn new() -> Self {
        let seed = std::env::var("CREDITSYNC_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or(20_260_101);
        println!("CREDITSYNC_SEED={seed}");
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// `count` puts and deletes among keys below `keys`; `deletes` of 100.
    fn changes(&mut self, keys: u64, count: u64, deletes: u64) -> Vec<Change> {
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

fn key(number: u64) -> Vec<u8> {
    format!("9141{number:08}").into_bytes()
}

fn put(number: u64, value: impl Into<Vec<u8>>) -> Change {
    Change::Put { key: key(number), value: value.into() }
}

fn delete(number: u64) -> Change {
    Change::Delete { key: key(number) }
}

/// Puts of all these numbers.
fn puts(numbers: impl IntoIterator<Item = u64>, value: &str) -> Vec<Change> {
    numbers.into_iter().map(|number| put(number, value)).collect()
}

fn apply(content: &mut Content, changes: &[Change]) {
    for change in changes {
        match change {
            Change::Put { key, value } => content.insert(key.clone(), value.clone()),
            Change::Delete { key } => content.remove(key),
        };
    }
}

fn own(partition: &PartitionId, changes: Vec<Change>) -> OwnChanges {
    OwnChanges { partition: partition.clone(), changes, schema_version: 3, keep_body: true }
}

fn try_commit(
    store: &Store,
    partition: &PartitionId,
    changes: Vec<Change>,
) -> Result<Arc<Head>, StoreError> {
    store.commit_own_later(own(partition, changes))?.wait()
}

fn commit(store: &Store, partition: &PartitionId, changes: Vec<Change>) -> Arc<Head> {
    try_commit(store, partition, changes).unwrap()
}

/// The change set with this number as a peer gets it.
fn verified(store: &Store, partition: &PartitionId, seq: u64) -> VerifiedChangeSet {
    let sets = store.change_sets(partition, seq, 1, usize::MAX).unwrap().unwrap();
    sets.into_iter().next().unwrap().verify(&Everybody).unwrap()
}

/// Signs a header with this body, whatever it says.
fn signed(mut header: Header, changes: &[Change]) -> VerifiedChangeSet {
    let body = protocol::change::encode_changes(changes);
    header.change_count = changes.len() as u32;
    header.changes_hash = changes_hash(&body);
    let header = SignedHeader::sign(header, &KEY);
    let body = protocol::codec::compress(&body);
    protocol::change::ChangeSet { header, body }.verify(&Everybody).unwrap()
}

fn try_replicate(store: &Store, set: VerifiedChangeSet) -> Result<Arc<Head>, StoreError> {
    wait(store.commit_replica(set))
}

/// Brings a partition of `to` up to the head of `from` by change sets.
fn follow(from: &Store, to: &Store, partition: &PartitionId) {
    let have = to.head(partition).map_or(0, |head| head.seq());
    for seq in have + 1..=from.head(partition).unwrap().seq() {
        let head = try_replicate(to, verified(from, partition, seq)).unwrap();
        assert_eq!(head.seq(), seq);
    }
}

/// A replica that holds what `origin` holds.
fn replica_of(origin: &Store) -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let replica = open(directory.path());
    follow(origin, &replica, &federation());
    if origin.head(&enterprise()).is_some() {
        follow(origin, &replica, &enterprise());
    }
    (directory, replica)
}

/// The pages of a tree in memory: level and first key, body.
#[derive(Debug, Default, Clone, PartialEq)]
struct Memory(BTreeMap<(u8, Vec<u8>), Vec<u8>>);

impl Memory {
    /// The tree over `content`, built from nothing.
    fn built(content: &Content) -> (Self, Summary) {
        let (mut pages, mut tree, mut leaf) =
            (Self::default(), TreeBuilder::new(), LeafBuilder::new());
        let (mut leaves, mut inner) = (Vec::new(), Vec::new());
        for (key, value) in content {
            if leaf.push(key, value) {
                leaves.push(leaf.make());
            }
        }
        if !leaf.is_empty() {
            leaves.push(leaf.make());
        }
        for made in leaves {
            let decoded = Leaf::decode(&made.body).unwrap();
            let (page, shape) = decoded.describe();
            tree.push(&decoded, page, shape, &mut inner).unwrap();
            pages.0.insert((0, made.page.first_key), made.body);
        }
        let summary = tree.finish(&mut inner).unwrap();
        for made in inner {
            pages.0.insert((made.level, made.page.first_key), made.body);
        }
        (pages, summary)
    }

    fn seek(&self, level: u8, key: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
        let in_level = |(found, _): &(&(u8, Vec<u8>), &Vec<u8>)| found.0 == level;
        let before = self.0.range(..=(level, key.to_vec())).next_back().filter(in_level);
        let page = before.or_else(|| self.0.range((level, vec![])..).next().filter(in_level));
        page.map(|((_, first), body)| (first.clone(), body.clone()))
    }

    fn next_key(&self, level: u8, first_key: &[u8]) -> Option<Vec<u8>> {
        let behind = (level, [first_key, &[0]].concat());
        let next = self.0.range(behind..).next().filter(|((found, _), _)| *found == level);
        next.map(|((_, key), _)| key.clone())
    }

    /// Walks all pages of `pages` and compares; then seeks at and around each
    /// first key.
    fn assert_same<P: Pages<Error = StoreError>>(&self, pages: &mut P) {
        let mut found = Self::default();
        for level in 0..=protocol::page::LEVELS_MAX {
            let mut next = pages.seek(level, &[]).unwrap().map(|(key, _)| key);
            while let Some(key) = next {
                let (first, body) = pages.seek(level, &key).unwrap().unwrap();
                assert_eq!(first, key);
                next = pages.next_key(level, &key).unwrap();
                found.0.insert((level, key), body);
            }
        }
        assert!(found == *self, "the pages differ from those of a rebuild");
        for (level, first) in self.0.keys() {
            let below = first.strip_suffix(&[*first.last().unwrap_or(&0)]).unwrap_or(&[]);
            for around in [below.to_vec(), first.clone(), [first, &b"~"[..]].concat()] {
                assert_eq!(pages.seek(*level, &around).unwrap(), self.seek(*level, &around));
                let behind = pages.next_key(*level, &around).unwrap();
                assert_eq!(behind, self.next_key(*level, &around));
            }
        }
    }
}

/// Everything that the store says about a partition is what follows from its
/// content, and no key is left over.
fn assert_holds(store: &Store, partition: &PartitionId, content: &Content) {
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
fn keys_of(store: &Store, table: &[u8]) -> Vec<Vec<u8>> {
    let items = store.shared.disk.scan(table);
    items.map(|item| [table, &item.unwrap().0].concat()).collect()
}

/// After the chores: no snapshot's page, no old generation, no stale chunk, no
/// file beside sled's own.
fn assert_tidy(store: &Store) {
    tidy(store);
    assert_eq!(keys_of(store, b"s"), Vec::<Vec<u8>>::new(), "saved pages of closed snapshots");
    let chunks = |table: &[u8]| -> usize {
        let more = |key: Vec<u8>| usize::from(store.shared.disk.chunks(&key).unwrap()) - 1;
        keys_of(store, table).into_iter().map(more).sum()
    };
    assert_eq!(keys_of(store, b"c").len(), chunks(b"p") + chunks(b"b"), "stale chunks");
    let packs = store.shared.disk.packs.list().unwrap();
    let needless = packs.iter().filter(|id| keys_of(store, &generation_prefix(id)).is_empty());
    assert_eq!(needless.count(), 0, "packs of what is gone: {packs:?}");
    let blobs = std::fs::read_dir(store.path().join("sled/blobs")).unwrap();
    assert_eq!(blobs.count(), 0, "sled moved values out of its file");
}

fn generation_prefix(id: &PackId) -> Vec<u8> {
    super::keys::generation(id.number, id.generation)
}

/// Waits until the writer has done its chores.
fn tidy(store: &Store) {
    store.submit_blocking(|reply| Job::Tidy { reply: Some(reply) }).unwrap().wait().unwrap();
}

/// Ends the threads of a test, also when it fails.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Copies a store as a crash at this moment would leave it, but for the sidecar.
/// The journal comes first, for what a checkpoint takes away from it is in sled by
/// then, and packs come last, for what refers to them is written behind them.
fn copy_crashed(from: &Path, to: &Path) {
    std::fs::copy(from.join("journal"), to.join("journal")).unwrap();
    for part in ["sled", "packs"] {
        copy_directory(&from.join(part), &to.join(part));
    }
}

fn copy_directory(from: &Path, to: &Path) {
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
