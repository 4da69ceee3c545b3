//! Fetches between two stores, without a network: what is applied, rebuilt or
//! healed, what it costs, and that all else leaves everything as it was.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Arc, LazyLock},
    time::Duration,
};

use protocol::{
    change::{BODY_BYTES_MAX, CHANGES_MAX, Change, Header, KeyProblem, KeyRing, SignedHeader},
    codec, difference,
    hash::Hash,
    history::Proof,
    id::PartitionId,
    message::{ROOT_BYTES_MAX, TreeReply, TreeRequest},
    session::fetch::{FetchAction, Piece, TreeFetch},
    sign::{PublicKey, SigningKey},
    suite::Suite,
    suite::checksum::Checksum,
    tree::Pages,
};
use store::{Counters, Options, OwnChanges, Snapshot};

use super::*;
use crate::sync::prove::{Proved, prove};

static KEY: LazyLock<Arc<SigningKey>> =
    LazyLock::new(|| Arc::new(Suite::One.signing_key(&[7; 32]).unwrap()));

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

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .enable_time()
        .worker_threads(1)
        .build()
        .unwrap()
        .block_on(future)
}

fn all_turns() -> Turns {
    Turns::new(crate::sync::turns::Work::new(), "410100".parse().unwrap(), Duration::ZERO)
}

fn open(path: &std::path::Path) -> Store {
    let options = Options { suite: Suite::One, cache_mb: 16, disk_reserve_mb: Some(1) };
    let store = Store::open(path, &options).unwrap();
    store.set_signer(KEY.clone());
    store
}

fn key(number: u64) -> Vec<u8> {
    format!("9141{number:08}").into_bytes()
}

fn puts(numbers: impl IntoIterator<Item = u64>, value: &str) -> Vec<Change> {
    let put = |n: u64| Change::Put { key: key(n), value: format!("{value} {n}").into_bytes() };
    numbers.into_iter().map(put).collect()
}

fn commit(store: &Store, partition: &PartitionId, changes: Vec<Change>) {
    for changes in changes.chunks(CHANGES_MAX) {
        let own = OwnChanges {
            partition: partition.clone(),
            changes: changes.to_vec(),
            schema_version: 1,
            keep_body: true,
        };
        store.commit_own_later(own).unwrap().wait().unwrap();
    }
}

/// The replica takes all change sets that it lacks.
fn follow(origin: &Store, replica: &Store, partition: &PartitionId) {
    let have = replica.head(partition).map_or(0, |head| head.seq());
    for seq in have + 1..=origin.head(partition).unwrap().seq() {
        let sets = origin.change_sets(partition, seq, 1, usize::MAX).unwrap().unwrap();
        let set = sets[0].clone().verify(&Everybody);
        wait(replica.commit_replica(set.unwrap())).unwrap();
    }
}

struct Two {
    _directories: [tempfile::TempDir; 2],
    origin: Store,
    replica: Store,
}

impl Two {
    /// An origin with so many records, and a replica that has them.
    fn with(records: u64) -> Self {
        let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let [origin, replica] = [0, 1].map(|index| open(directories[index].path()));
        commit(&origin, &federation(), puts(0..1, "hub"));
        commit(&origin, &enterprise(), puts(0..records, "value"));
        for partition in [federation(), enterprise()] {
            follow(&origin, &replica, &partition);
        }
        Self { _directories: directories, origin, replica }
    }

    /// Runs a fetch of the replica from the origin as it is now.
    fn fetch(&self, fetch: TreeFetch, purpose: Purpose) -> Result<(How, Cost), Trouble> {
        self.fetch_until(fetch, purpose, &mut |_| false).map(|done| done.unwrap())
    }

    /// As [`Two::fetch`], unless `stop` says that it is dropped at an action.
    fn fetch_until(
        &self,
        mut fetch: TreeFetch,
        purpose: Purpose,
        stop: &mut dyn FnMut(&FetchAction) -> bool,
    ) -> Result<Option<(How, Cost)>, Trouble> {
        let mut snapshot = self.origin.snapshot_blocking(&enterprise()).unwrap().unwrap();
        let mut cost = Cost { bytes: 4 + codec::encode(&fetch.open()).len(), round_trips: 0 };
        let mut sink = Sink::None;
        let turns = all_turns();
        let account = turns.fetched(&CancellationToken::new());
        let mut means = Means {
            store: &self.replica,
            turns: &turns,
            judge: None,
            memory: wait(FetchMemory::begin(&account)),
        };
        let have = self.replica.head(&enterprise()).map(|head| head.seq());
        let mut replies = vec![head_of(&self.origin, &mut snapshot, have)];
        loop {
            cost.round_trips += 1;
            let mut requests = Vec::new();
            assert!(!replies.is_empty(), "it waits for what nobody sends");
            for reply in std::mem::take(&mut replies) {
                cost.bytes += 4 + codec::encode(&reply).len();
                fetch.handle_message(reply, &Everybody)?;
                fetch.check_arrived();
                while let Some(action) = fetch.poll_action() {
                    if stop(&action) {
                        return Ok(None);
                    }
                    if let FetchAction::Send(request) = action {
                        cost.bytes += 4 + codec::encode(&request).len();
                        requests.push(request);
                        continue;
                    }
                    let done = wait(sink.act(&mut means, &mut fetch, action, purpose))?;
                    if let Some(fetched) = done {
                        assert_eq!(Some(fetched.head), self.replica.head(&enterprise()));
                        return Ok(Some((fetched.how, cost)));
                    }
                }
            }
            replies = requests.iter().flat_map(|request| serve(&mut snapshot, request)).collect();
        }
    }

    fn comparing(&self) -> TreeFetch {
        let have = self.replica.head(&enterprise()).unwrap().position();
        TreeFetch::comparing(enterprise(), have, [3; 16])
    }

    fn compare(&self) -> Result<(How, Cost), Trouble> {
        self.fetch(self.comparing(), Purpose::Follow)
    }

    fn repair(&self, purpose: Purpose) -> Result<(How, Cost), Trouble> {
        let have = self.replica.head(&enterprise()).map(|head| head.position());
        self.fetch(TreeFetch::repairing(enterprise(), have), purpose)
    }

    /// Both have the same head, records and pages.
    fn assert_same(&self) {
        let heads = [&self.origin, &self.replica].map(|store| store.head(&enterprise()).unwrap());
        assert_eq!((&heads[0].signed, &heads[0].summary), (&heads[1].signed, &heads[1].summary));
        assert!(pages_of(&self.origin) == pages_of(&self.replica), "the pages differ");
    }

    /// Changes at the origin that the replica takes in one batch, in place.
    fn assert_applied(&self, changes: Vec<Change>, bytes_max: usize, pages_max: u64) {
        let mut old = self.replica.snapshot_blocking(&enterprise()).unwrap().unwrap();
        let before = (self.replica.head(&enterprise()).unwrap(), pages_of(&self.replica));
        let counters = self.replica.counters();
        commit(&self.origin, &enterprise(), changes);
        // Interrupted before its batch, it has done nothing.
        let dropped = self.fetch_until(self.comparing(), Purpose::Follow, &mut |action| {
            matches!(action, FetchAction::Apply)
        });
        assert!(dropped.unwrap().is_none());
        assert_eq!(work_of(&self.replica.counters()), work_of(&counters));
        let (how, cost) = self.compare().unwrap();
        assert!(matches!(how, How::Applied));
        self.assert_same();
        let after = self.replica.counters();
        assert_eq!(after.commits, counters.commits + 1);
        assert!(after.pages_written - counters.pages_written <= pages_max);
        assert!(cost.bytes < bytes_max, "{} bytes", cost.bytes);
        assert!(cost.round_trips <= 4, "{} round trips", cost.round_trips);
        let head = self.replica.head(&enterprise()).unwrap();
        assert_eq!(head.generation, before.0.generation);
        let log = self.replica.change_sets(&enterprise(), head.seq(), 1, usize::MAX).unwrap();
        assert_eq!(log, None, "the log has the header alone");
        assert!(self.replica.header_at(&enterprise(), head.seq()).unwrap().is_some());
        // Who reads meanwhile reads what was.
        assert_eq!(old.head(), &*before.0);
        for ((level, first), body) in &before.1 {
            assert_eq!(old.seek(*level, first).unwrap(), Some((first.clone(), body.clone())));
        }
        assert_eq!(records_of(&mut old) as u64, before.0.summary.records);
    }

    /// Deletes all records of one leaf.
    fn deletes_of_leaf(&self, index: usize) -> Vec<Change> {
        let place = &self.places(0)[index];
        let mut pages = self.origin.live_pages(&enterprise()).unwrap();
        let (_, body) = pages.seek(0, place).unwrap().unwrap();
        let leaf = protocol::page::Leaf::decode(&body).unwrap();
        leaf.entries().map(|(key, _)| Change::Delete { key: key.to_vec() }).collect()
    }

    /// First keys of a level's pages.
    fn places(&self, level: u8) -> Vec<Vec<u8>> {
        let pages = pages_of(&self.origin);
        pages.into_keys().filter(|place| place.0 == level).map(|(_, key)| key).collect()
    }
}

/// Commits and pages: what chores of earlier snapshots write and sync is not
/// among them.
fn work_of(counters: &Counters) -> [u64; 3] {
    [counters.commits, counters.pages_written, counters.leaves_patched]
}

struct Cost {
    bytes: usize,
    round_trips: usize,
}

fn head_of(store: &Store, snapshot: &mut Snapshot, have: Option<u64>) -> TreeReply {
    let head = snapshot.head().clone();
    let have = have.filter(|have| *have < head.seq());
    let (levels, header) = (head.summary.pages.len() as u8, head.signed.encode());
    let root = (levels >= 2).then(|| snapshot.seek(levels - 1, &[]).unwrap().unwrap().1);
    let root = root.filter(|root| root.len() <= ROOT_BYTES_MAX).unwrap_or_default();
    let proof = store.history_proof(&enterprise(), &head, have).unwrap().unwrap();
    TreeReply::Head { header, levels, root, proof }
}

fn serve(snapshot: &mut Snapshot, request: &TreeRequest) -> Vec<TreeReply> {
    let mut page = |level: u8, key: &[u8]| snapshot.seek(level, key).unwrap().unwrap().1;
    let bodies: Vec<Vec<u8>> = match request {
        TreeRequest::Pages { level, keys } => keys.iter().map(|key| page(*level, key)).collect(),
        TreeRequest::Differences { level, salt, pages } => pages
            .iter()
            .map(|asked| {
                difference::make(
                    Suite::One,
                    *level,
                    &page(*level, &asked.first_key),
                    salt,
                    &asked.known,
                )
                .unwrap()
            })
            .collect(),
    };
    bodies.into_iter().map(|bytes| TreeReply::Part { bytes, more: false }).collect()
}

fn pages_of(store: &Store) -> BTreeMap<(u8, Vec<u8>), Vec<u8>> {
    let mut pages = store.live_pages(&enterprise()).unwrap();
    let mut found = BTreeMap::new();
    for level in 0..=protocol::page::LEVELS_MAX {
        let mut next = pages.seek(level, &[]).unwrap().map(|(key, _)| key);
        while let Some(key) = next {
            let (first, body) = pages.seek(level, &key).unwrap().unwrap();
            next = pages.next_key(level, &first).unwrap();
            found.insert((level, first), body);
        }
    }
    found
}

fn records_of(snapshot: &mut Snapshot) -> usize {
    snapshot.leaves().map(|leaf| leaf.unwrap().len()).sum()
}

#[test]
fn few_differences_are_applied_in_place_in_one_batch() {
    let two = Two::with(20_000);
    let mut more = puts([5, 777, 19_999, 20_007], "other");
    more.insert(0, Change::Delete { key: key(1) });
    let mut stretch: Vec<Change> = (4000..4400).map(|n| Change::Delete { key: key(n) }).collect();
    stretch.extend(puts(30_000..30_300, "new"));
    two.assert_applied(puts([9_000], "one"), 8_000, 4);
    two.assert_applied(more, 40_000, 16);
    two.assert_applied(stretch, 60_000, 30);
    two.assert_applied((0..60).map(|n| Change::Delete { key: key(n) }).collect(), 10_000, 8);
    // Whole leaves, between two that stay and behind all that stay.
    two.assert_applied(two.deletes_of_leaf(100), 8_000, 4);
    two.assert_applied(two.deletes_of_leaf(two.places(0).len() - 1), 8_000, 4);
    // And the next change set follows.
    commit(&two.origin, &enterprise(), puts([3], "next"));
    follow(&two.origin, &two.replica, &enterprise());
    two.assert_same();
}

#[test]
fn a_batch_that_cannot_be_written_leaves_the_old_state() {
    let mut two = Two::with(3_000);
    let before = (two.replica.head(&enterprise()), pages_of(&two.replica));
    commit(&two.origin, &enterprise(), puts([1, 2_000], "other"));
    two.replica.break_writes(true);
    assert!(matches!(two.compare(), Err(Trouble::Store(StoreError::Database(_)))));
    two.replica.break_writes(false);
    let path = two.replica.path().clone();
    let Two { replica, .. } = &mut two;
    // Closed before it is opened again.
    let parked = tempfile::tempdir().unwrap();
    drop(std::mem::replace(replica, open(parked.path())));
    *replica = open(&path);
    assert!((two.replica.head(&enterprise()), pages_of(&two.replica)) == before);
    assert!(matches!(two.compare().unwrap().0, How::Applied));
    two.assert_same();
}

#[test]
fn differences_that_do_not_give_the_signed_root_are_refused() {
    let two = Two::with(3_000);
    let before = (two.replica.head(&enterprise()), pages_of(&two.replica));
    let counters = two.replica.counters();
    commit(&two.origin, &enterprise(), puts([7], "other"));
    let header = two.origin.head(&enterprise()).unwrap().signed.header().clone();
    let page = |store: &Store, number: u64| {
        let (_, body) =
            store.live_pages(&enterprise()).unwrap().seek(0, &key(number)).unwrap().unwrap();
        protocol::page::Leaf::decode(&body).unwrap()
    };
    for wrong in [
        Header { root: Suite::One.repeated(9), ..header.clone() },
        Header { records: header.records + 1, ..header.clone() },
        // Rightly signed, but a piece is missing.
        header,
    ] {
        let last = wrong == *two.origin.head(&enterprise()).unwrap().signed.header();
        let signed = SignedHeader::sign(wrong, &KEY);
        let head = two.replica.head(&enterprise()).unwrap();
        let have = Some(head.position());
        let shown = ShownHead { signed, before: head.history(), have, path: Vec::new() };
        let mut comparison = two.replica.begin_comparison(shown).unwrap();
        assert!(comparison.take(Piece::Leaf(page(&two.origin, 7))).unwrap());
        for key in two.places(0).into_iter().skip(if last { 2 } else { 1 }) {
            let (_, body) =
                two.replica.live_pages(&enterprise()).unwrap().seek(0, &key).unwrap().unwrap();
            let page = protocol::page::Leaf::decode(&body).unwrap().describe(Suite::One);
            assert!(comparison.take(Piece::Held { level: 0, page }).unwrap());
        }
        assert!(comparison.take_end().unwrap());
        let refused = wait(comparison.apply(Box::new(|_| ())));
        assert!(matches!(refused, Err(StoreError::RootMismatch { .. })), "{refused:?}");
        assert!((two.replica.head(&enterprise()), pages_of(&two.replica)) == before);
        assert_eq!(work_of(&two.replica.counters()), work_of(&counters));
    }
}

#[test]
fn of_a_header_that_was_jumped_over_the_hash_still_shows_another_history() {
    let two = Two::with(10);
    let other = Two::with(10);
    for number in 0..2 {
        commit(&two.origin, &enterprise(), puts([number], "changed"));
    }
    two.compare().unwrap();
    assert_eq!(two.replica.header_at(&enterprise(), 2).unwrap(), None, "number 3 is all it took");
    let ask = |have| {
        let head = two.replica.head(&enterprise()).unwrap();
        prove(&two.replica, &enterprise(), &head, Some(have)).unwrap()
    };
    commit(&other.origin, &enterprise(), puts([5], "in another history"));
    let have = other.origin.head(&enterprise()).unwrap().position();
    let Some(Proved::Other(fork)) = ask(have) else { panic!("it is told of the other history") };
    let TreeReply::Fork { header, .. } = &fork else { panic!("a fork is told by {fork:?}") };
    assert_eq!(SignedHeader::decode(header).unwrap().header().seq, 3);
    let refused =
        TreeFetch::comparing(enterprise(), have, [3; 16]).handle_message(fork, &Everybody);
    assert!(matches!(refused, Err(PeerMisbehaved::OtherHistory(_))), "{refused:?}");
    // Who has the same is told nothing of a fork.
    let same = two.origin.header_at(&enterprise(), 2).unwrap().unwrap().position();
    assert!(matches!(ask(same), Some(Proved::InHistory(_))));
}

#[test]
fn a_state_with_another_past_is_refused_before_a_page_is_asked_for() {
    let (two, other) = (Two::with(3_000), Two::with(2_000));
    let have = two.replica.head(&enterprise()).unwrap().position();
    for round in 0..3 {
        // One head further, and two.
        commit(&other.origin, &enterprise(), puts([7 + round], "other"));
        let mut snapshot = other.origin.snapshot_blocking(&enterprise()).unwrap().unwrap();
        let first = other.origin.header_at(&enterprise(), have.seq).unwrap().unwrap();
        let head = head_of(&other.origin, &mut snapshot, Some(have.seq));
        let TreeReply::Head { header, proof, .. } = head.clone() else { panic!("{head:?}") };
        let fork = |header, other, proof| TreeReply::Fork { header, other, proof };
        let wrong = "a proof that shows nothing";
        // The last ones are of the same number, and of a later one.
        for (reply, reason) in [
            (head, wrong),
            (fork(first.encode(), have.hash, Proof::default()), "a fork that is none"),
            (fork(first.encode(), first.header().previous, Proof::default()), wrong),
            (fork(header.clone(), first.header().root, proof.clone()), wrong),
            (fork(header.clone(), first.hash(), Proof::default()), wrong),
            (fork(first.encode(), first.hash(), Proof::default()), "does not hold what is here"),
            (fork(header, first.hash(), proof), "does not hold what is here"),
        ] {
            for mut fetch in [two.comparing(), TreeFetch::repairing(enterprise(), Some(have))] {
                let refused = fetch.handle_message(reply.clone(), &Everybody).unwrap_err();
                assert!(refused.to_string().contains(reason), "{refused} for {reply:?}");
                assert!(fetch.poll_action().is_none());
            }
        }
    }
    // Nor does the store take one whose history is not the one that it names.
    let head = two.origin.head(&enterprise()).unwrap();
    let header = Header { seq: 2, previous: head.signed.hash(), ..head.signed.header().clone() };
    let signed = SignedHeader::sign(header, &KEY);
    let shown = ShownHead { signed, before: head.history(), have: Some(have), path: Vec::new() };
    let mut comparison = two.replica.begin_comparison(shown).unwrap();
    assert!(comparison.take_end().unwrap());
    let refused = wait(comparison.apply(Box::new(|_| ())));
    assert!(matches!(refused, Err(StoreError::Fork { .. })), "{refused:?}");
}

#[test]
fn differences_that_are_a_little_more_than_one_batch_are_taken_whole() {
    let two = Two::with(9_000);
    let put = |n| Change::Put { key: key(n), value: vec![b'x'; 912] };
    let changes: Vec<Change> = (0..9_000).map(put).collect();
    let bytes: usize = changes.iter().map(Change::encoded_bytes).sum();
    assert!((BODY_BYTES_MAX + 1..BODY_BYTES_MAX + changes.len()).contains(&bytes), "{bytes}");
    for some in changes.chunks(3_000) {
        commit(&two.origin, &enterprise(), some.to_vec());
    }
    assert!(matches!(two.compare().unwrap().0, How::Rebuilt));
    two.assert_same();
}

#[test]
fn differences_from_a_state_that_has_moved_are_refused() {
    let two = Two::with(3_000);
    commit(&two.origin, &enterprise(), puts([1], "first"));
    commit(&two.origin, &enterprise(), puts([2], "second"));
    let moved = two.fetch_until(two.comparing(), Purpose::Follow, &mut |action| {
        if matches!(action, FetchAction::Apply) {
            let sets = two.origin.change_sets(&enterprise(), 2, 1, usize::MAX).unwrap().unwrap();
            let set = sets[0].clone().verify(&Everybody).unwrap();
            wait(two.replica.commit_replica(set)).unwrap();
        }
        false
    });
    assert!(matches!(moved, Err(Trouble::Store(StoreError::Overtaken(_)))));
    assert_eq!(two.replica.head(&enterprise()).unwrap().seq(), 2);
    assert!(matches!(two.compare().unwrap().0, How::Applied));
    two.assert_same();
}

#[test]
fn more_differences_than_a_batch_holds_make_a_new_generation() {
    let two = Two::with(30_000);
    commit(&two.origin, &enterprise(), puts((0..30_000).step_by(2), "other"));
    let generation = two.replica.head(&enterprise()).unwrap().generation;
    assert!(matches!(two.compare().unwrap().0, How::Rebuilt));
    assert_eq!(two.replica.head(&enterprise()).unwrap().generation, generation + 1);
    two.assert_same();
    // Deletions count too, also those behind the last record.
    let gone = (15_000..30_000).map(|n| Change::Delete { key: key(n) }).collect();
    commit(&two.origin, &enterprise(), gone);
    assert!(matches!(two.compare().unwrap().0, How::Rebuilt));
    two.assert_same();
}

#[test]
fn a_damaged_replica_that_is_behind_is_healed_on_the_way() {
    for (level, changed) in [(0, 0), (1, 0), (1, 2_999), (0, 2_999)] {
        for remove in [false, true] {
            let two = Two::with(3_000);
            let places = two.places(level);
            two.replica.damage(&enterprise(), level, &places[0], remove);
            commit(&two.origin, &enterprise(), puts([changed], "other"));
            let (how, _) = two.compare().unwrap();
            match how {
                // Far from what differs a damage is met by a repair.
                How::Applied if changed > 0 && !(remove && level > 0) => {
                    let (how, _) = two.repair(Purpose::Repair).unwrap();
                    let one = |healed: Healed| healed.leaves + healed.inner == 1;
                    assert!(matches!(how, How::Healed(healed) if one(healed)));
                }
                how => assert!(matches!(how, How::Rebuilt), "level {level}, removed {remove}"),
            }
            two.assert_same();
        }
    }
}

#[test]
fn a_repair_replaces_exactly_what_is_damaged() {
    let mut two = Two::with(20_000);
    let levels = two.replica.head(&enterprise()).unwrap().summary.pages.len() as u8;
    assert_eq!(levels, 3);
    let (leaves, inner) = (two.places(0), two.places(1));
    let root = two.places(2);
    let damages: Vec<Vec<(u8, &Vec<u8>)>> = vec![
        vec![(0, &leaves[0])],
        vec![(0, &leaves[100]), (0, &leaves[101]), (0, leaves.last().unwrap())],
        vec![(1, &inner[0])],
        vec![(1, &inner[1]), (0, &leaves[3])],
        vec![(2, &root[0])],
        leaves.iter().map(|key| (0, key)).collect(),
    ];
    let well = pages_of(&two.replica);
    for damage in &damages {
        for remove in [false, true] {
            for (level, key) in damage {
                two.replica.damage(&enterprise(), *level, key, remove);
            }
            let (how, cost) = two.repair(Purpose::Repair).unwrap();
            let How::Healed(healed) = how else { panic!("it has the same head") };
            let of_level = |inner: bool| {
                damage.iter().filter(|(level, _)| (*level > 0) == inner).count() as u64
            };
            assert_eq!((healed.leaves, healed.inner), (of_level(false), of_level(true)));
            assert_eq!(healed.removed, 0);
            assert!(well == pages_of(&two.replica), "the pages differ");
            assert!(cost.bytes < 20_000 || damage.len() > 3, "{} bytes", cost.bytes);
        }
    }
    // What is well is not written.
    let before = two.replica.counters();
    let How::Healed(healed) = two.repair(Purpose::Repair).unwrap().0 else { panic!() };
    assert_eq!(healed, Default::default());
    assert_eq!(work_of(&two.replica.counters()), work_of(&before));
    let path = two.replica.path().clone();
    let parked = tempfile::tempdir().unwrap();
    drop(std::mem::replace(&mut two.replica, open(parked.path())));
    two.replica = open(&path);
    two.assert_same();
}

#[test]
fn a_leaf_that_was_changed_in_place_is_repaired_whole() {
    let two = Two::with(5_000);
    let change = |value: &str| {
        commit(&two.origin, &enterprise(), puts([100, 4000], value));
        follow(&two.origin, &two.replica, &enterprise());
    };
    change("first");
    let leaf = two.places(0).into_iter().rfind(|first| *first <= key(100)).unwrap();
    // The leaf's bytes, then its patch.
    for part in [0, 128] {
        let mut before = two.replica.snapshot_blocking(&enterprise()).unwrap().unwrap();
        let patched = two.replica.counters().leaves_patched;
        change(&format!("changed before part {part} is damaged"));
        assert!(two.replica.counters().leaves_patched > patched);
        two.replica.damage(&enterprise(), part, &leaf, false);
        let How::Healed(healed) = two.repair(Purpose::Repair).unwrap().0 else { panic!() };
        assert_eq!((healed.leaves, healed.inner, healed.removed), (1, 0, 0));
        two.assert_same();
        // What it had saved of the leaf is of no use without the rest.
        let read: Result<Vec<_>, _> = before.leaves().collect();
        assert!(matches!(read, Err(StoreError::SnapshotExpired)));
        change("and changed again");
        two.assert_same();
    }
}

#[test]
fn a_repair_against_a_newer_head_comes_to_that_and_an_older_one_heals_nothing() {
    let two = Two::with(5_000);
    let leaf = two.places(0).swap_remove(9);
    two.replica.damage(&enterprise(), 0, &leaf, false);
    commit(&two.origin, &enterprise(), puts([4_000], "other"));
    assert!(matches!(two.repair(Purpose::Repair).unwrap().0, How::Rebuilt));
    two.assert_same();
    // An older one heals nothing.
    let back = Two { origin: two.replica.clone(), replica: two.origin.clone(), ..Two::with(1) };
    commit(&back.replica, &enterprise(), puts([1], "more"));
    let behind = back.repair(Purpose::Repair);
    assert!(matches!(behind, Err(Trouble::Elsewhere { ours: 3, theirs: 2 })));
}

#[test]
fn a_page_that_is_not_in_the_tree_is_removed() {
    let two = Two::with(40_000);
    let levels = two.origin.head(&enterprise()).unwrap().summary.pages.len() as u8;
    assert!(levels >= 3, "{levels}");
    for level in 0..levels {
        for place in two.places(level).iter().rev().take(3) {
            // The page of another place under a key of its own.
            let mut pages = two.replica.live_pages(&enterprise()).unwrap();
            let (_, body) = pages.seek(level, place).unwrap().unwrap();
            let stray = [&place[..], b"~"].concat();
            two.replica.plant(&enterprise(), level, &stray, &body);
        }
        let How::Healed(healed) = two.repair(Purpose::Repair).unwrap().0 else { panic!() };
        let planted = two.places(level).len().min(3) as u64;
        assert_eq!((healed.removed, healed.leaves, healed.inner), (planted, 0, 0), "{level}");
        two.assert_same();
    }
}

/// Any number of differences and of damaged leaves. It also says what they cost;
/// among a million records: `RECORDS=1000000 cargo test --release -p creditsync
/// --lib -- --nocapture measure_differences`.
#[test]
fn measure_differences() {
    let records: u64 =
        std::env::var("RECORDS").ok().and_then(|text| text.parse().ok()).unwrap_or(20_000);
    let value = "郑州市合成商贸有限公司 存续 2019-03-01 有限责任公司 河南省郑州市中牟县";
    let two = Two::with(1);
    let began = std::time::Instant::now();
    for from in (0..records).step_by(CHANGES_MAX) {
        let to = (from + CHANGES_MAX as u64).min(records);
        let put = |n: u64| {
            let noise = noise(n);
            Change::Put { key: key(n), value: format!("{value} {noise}").into_bytes() }
        };
        commit(&two.origin, &enterprise(), (from..to).map(put).collect());
        follow(&two.origin, &two.replica, &enterprise());
    }
    println!("{records} records at both ends after {:.1} s", began.elapsed().as_secs_f64());
    for count in [1, 100, 10_000] {
        let step = (records / count).max(1);
        let changes = puts((0..count).map(|n| n * step + step / 2), &format!("changed {count}"));
        commit(&two.origin, &enterprise(), changes);
        let began = std::time::Instant::now();
        let (how, cost) = two.compare().unwrap();
        let seconds = began.elapsed().as_secs_f64();
        two.assert_same();
        if count == 1 {
            // The target, whatever the number of records.
            assert!(cost.bytes < 24_000 && cost.round_trips <= 4);
        }
        println!(
            "{count} differences: {} bytes, {} round trips, {:.3} s, {how:?}",
            cost.bytes, cost.round_trips, seconds
        );
    }
    for count in [1, 100] {
        let places = two.places(0);
        for place in places.iter().step_by(places.len() / count).take(count) {
            two.replica.damage(&enterprise(), 0, place, false);
        }
        let began = std::time::Instant::now();
        let (how, cost) = two.repair(Purpose::Repair).unwrap();
        let seconds = began.elapsed().as_secs_f64();
        let How::Healed(healed) = how else { panic!("it has the same head") };
        assert_eq!(healed.leaves, count as u64);
        two.assert_same();
        println!(
            "{count} damaged leaves: {} bytes, {} round trips, {:.3} s, {healed:?}",
            cost.bytes, cost.round_trips, seconds
        );
    }
}

/// Something that does not compress.
fn noise(number: u64) -> Checksum {
    Checksum::of(&[&number.to_be_bytes()])
}
