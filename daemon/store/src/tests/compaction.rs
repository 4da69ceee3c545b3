//! The database copied into a new one while everything goes on: what is waste is given
//! back, and whatever happens on the way there is one database with all that was
//! acknowledged.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{
    disk::Mount,
    fixtures::{
        Content, Random, SetOnDrop, apply, assert_holds, commit, copy_directory, enterprise,
        federation, fresh, key, keys_of, open, open_with, options, put, tidy, try_commit, wait,
    },
    reference::Memory,
};
use crate::{Compacted, Compaction, Options, Store, StoreError, engine::Batch};

const MIB: u64 = 1024 * 1024;
/// Where a test's database is weighed.
const WEIGHED_AT: u64 = 24 * MIB;

fn file_bytes(store: &Store) -> u64 {
    store.shared.disk.database_bytes().unwrap()
}

/// Writes large values over each other, and small ones here and there, which keep the
/// segments of the large ones, until the file has so many bytes.
fn waste(store: &Store, random: &mut Random, bytes: u64) {
    let disk = &store.shared.disk;
    while file_bytes(store) < bytes {
        let mut batch = Batch::default();
        for number in 0..20 {
            batch.put(vec![b't', number], vec![random.next() as u8; 40_000]);
        }
        for _ in 0..200 {
            let number = (random.below(20_000) as u32).to_be_bytes();
            batch.put([&b"tt"[..], &number].concat(), random.next().to_be_bytes().to_vec());
        }
        disk.apply(batch).unwrap();
        disk.make_durable().unwrap();
    }
}

/// A store with records, most of whose database is waste.
fn wasteful(random: &mut Random) -> (tempfile::TempDir, Store, Content) {
    let (directory, store) = fresh();
    let mut content = Content::new();
    for round in 0..6 {
        let changes = random.changes(800, 300, 10);
        apply(&mut content, &changes);
        commit(&store, &enterprise(), changes);
        waste(&store, random, (round + 1) * 8 * MIB);
    }
    (directory, store, content)
}

/// One piece.
pub(super) fn piece(store: &Store) -> Compacted {
    wait(store.compact_some()).unwrap()
}

/// All that is left of a compaction, with something done between its pieces.
pub(super) fn compact_with(store: &Store, mut between: impl FnMut()) -> Compaction {
    loop {
        match piece(store) {
            Compacted::More { .. } => between(),
            Compacted::Ended(ended) => return ended,
        }
    }
}

pub(super) fn compact(store: &Store) -> Compaction {
    compact_with(store, || {})
}

/// Begins one, up to the first piece of the copy.
fn begin(store: &Store) {
    while !store.path().join("sled.next").exists() {
        assert!(matches!(piece(store), Compacted::More { .. }));
    }
    assert!(matches!(piece(store), Compacted::More { .. }));
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.starts_with("sled")).collect();
    names.sort();
    names
}

/// The whole directory, as it lies there now.
pub(super) fn copy_of(directory: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    std::fs::copy(directory.join("journal"), copy.path().join("journal")).unwrap();
    for name in names(directory).iter().map(String::as_str).chain(["packs"]) {
        copy_directory(&directory.join(name), &copy.path().join(name));
    }
    copy
}

#[test]
fn most_of_a_file_is_waste_and_is_given_back() {
    let mut random = Random::new();
    let (directory, store, content) = wasteful(&mut random);
    assert!(store.shared.disk.wants_weighing());
    let ended = compact(&store);
    println!("{ended:?}");
    assert!(ended.stopped.is_none());
    assert!(ended.before > 40 * MIB && ended.after <= WEIGHED_AT, "{ended:?}");
    assert_eq!(ended.after, file_bytes(&store));
    assert!(!store.shared.disk.wants_weighing());
    assert_eq!(names(directory.path()), ["sled"]);
    assert_holds(&store, &enterprise(), &content);
    let heads = store.heads();
    drop(store);
    let store = open(directory.path());
    assert_eq!(store.heads(), heads);
    assert_holds(&store, &enterprise(), &content);
    // What is no waste is not copied.
    let again = compact(&store);
    assert!(again.stopped.is_none() && again.after == again.before, "{again:?}");
    assert!(again.content > 1000 * 10);
}

#[test]
fn the_writer_says_when_it_is_time() {
    let mut random = Random::new();
    let (_directory, store) = fresh();
    let is_due = |store: &Store| {
        wait(async {
            tokio::select! {
                biased;
                () = store.found_waste() => true,
                () = std::future::ready(()) => false,
            }
        })
    };
    commit(&store, &enterprise(), vec![put(1, "x")]);
    assert!(!is_due(&store));
    waste(&store, &mut random, 2 * WEIGHED_AT);
    tidy(&store);
    tidy(&store);
    assert!(is_due(&store));
}

#[test]
fn many_small_updates_keep_the_file_below_its_bound() {
    let mut random = Random::new();
    let (_directory, store) = fresh();
    let disk = &store.shared.disk;
    let (mut content, mut longest, mut compactions) = (BTreeMap::new(), 0, 0);
    for round in 0..if cfg!(debug_assertions) { 300 } else { 10_000 } {
        let mut batch = Batch::default();
        for _ in 0..100 {
            let (number, length) = (random.below(2000) as u16, 200 + random.below(800) as usize);
            let value = vec![random.next() as u8; length];
            let key = [&b"t"[..], &number.to_be_bytes()].concat();
            content.insert(key.clone(), value.clone());
            batch.put(key, value);
        }
        disk.apply(batch).unwrap();
        disk.checkpoint().unwrap();
        longest = longest.max(file_bytes(&store));
        if disk.wants_weighing() {
            let ended = compact(&store);
            assert!(ended.stopped.is_none(), "{ended:?}");
            compactions += 1;
            if compactions < 4 {
                println!("round {round}: {ended:?}");
            }
        }
    }
    println!("{compactions} compactions, at most {} MiB", longest / MIB);
    assert!(compactions > 0);
    assert!(longest <= WEIGHED_AT + 16 * MIB, "{longest}");
    for (key, value) in &content {
        assert!(disk.get(key).unwrap().unwrap() == value);
    }
    assert_eq!(keys_of(&store, b"t").len(), content.len());
}

#[test]
fn what_is_written_meanwhile_is_in_the_copy() {
    let mut random = Random::new();
    let (directory, store, mut content) = wasteful(&mut random);
    let mut changes_of = Random(random.next());
    let ended = compact_with(&store, || {
        let count = [1, 30, 700][changes_of.below(3) as usize];
        let changes = changes_of.changes(900, count, 40);
        apply(&mut content, &changes);
        commit(&store, &enterprise(), changes);
        if changes_of.below(3) == 0 {
            store.shared.disk.checkpoint().unwrap();
        }
    });
    assert!(ended.after < ended.before, "{ended:?}");
    assert_holds(&store, &enterprise(), &content);
    let heads = store.heads();
    drop(store);
    let store = open(directory.path());
    assert_eq!(store.heads(), heads);
    assert_holds(&store, &enterprise(), &content);
}

#[test]
fn readers_go_on_while_a_copy_is_made_and_takes_over() {
    let mut random = Random::new();
    let (_directory, store, content) = wasteful(&mut random);
    let numbers: Vec<u64> = (0..200).collect();
    let round_of = |value: &[u8]| String::from_utf8_lossy(value).parse::<u64>().unwrap();
    commit(&store, &enterprise(), numbers.iter().map(|number| put(*number, "0")).collect());
    let mut before = content.clone();
    apply(&mut before, &numbers.iter().map(|number| put(*number, "0")).collect::<Vec<_>>());
    let mut snapshot = store.snapshot_blocking(&enterprise()).unwrap().unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _end = SetOnDrop(&done);
        for _ in 0..2 {
            scope.spawn(|| {
                let mut seen = vec![0; numbers.len()];
                while !done.load(Ordering::Acquire) {
                    for (number, seen) in numbers.iter().zip(&mut seen) {
                        let value = store.get(&enterprise(), &key(*number)).unwrap().unwrap();
                        assert!(round_of(&value) >= *seen, "an older value is back");
                        *seen = round_of(&value);
                    }
                }
            });
        }
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                let mut snapshot = store.snapshot_blocking(&enterprise()).unwrap().unwrap();
                let mut rounds = Vec::new();
                for leaf in snapshot.leaves() {
                    let leaf = leaf.unwrap();
                    let of = leaf.entries().filter(|(at, _)| *at <= &key(199)[..]);
                    rounds.extend(of.map(|(_, value)| round_of(value)));
                }
                assert_eq!(rounds.len(), numbers.len());
                assert!(rounds.iter().all(|round| *round == rounds[0]), "of several moments");
            }
        });
        let mut round = 0;
        let mut next_round = || {
            round += 1;
            let changes = numbers.iter().map(|number| put(*number, round.to_string()));
            commit(&store, &enterprise(), changes.collect());
        };
        let ended = compact_with(&store, &mut next_round);
        assert!(ended.stopped.is_none() && ended.after < ended.before, "{ended:?}");
        (0..3).for_each(|_| next_round());
    });
    // One that was opened before still shows what was then.
    Memory::built(&before).0.assert_same(&mut snapshot);
}

#[test]
fn a_crash_at_any_step_leaves_exactly_one_database_with_all_there_was() {
    let mut random = Random::new();
    let (directory, store, content) = wasteful(&mut random);
    let mut content = content;
    let crashes: Arc<Mutex<Vec<(String, tempfile::TempDir)>>> = Arc::default();
    *store.shared.disk.broken.step.lock().unwrap() = Some(Box::new({
        let (crashes, path) = (crashes.clone(), directory.path().to_owned());
        move |step| crashes.lock().unwrap().push((step.to_owned(), copy_of(&path)))
    }));
    begin(&store);
    let mut pieces = 0;
    let mut before = Vec::new();
    let ended = compact_with(&store, || {
        let changes = vec![put(pieces % 800, format!("piece {pieces}"))];
        apply(&mut content, &changes);
        commit(&store, &enterprise(), changes);
        if pieces % 20 == 0 {
            before.push((format!("piece {pieces}"), content.clone(), copy_of(directory.path())));
        }
        pieces += 1;
    });
    assert!(ended.after < ended.before, "{ended:?}");
    *store.shared.disk.broken.step.lock().unwrap() = None;
    let steps: Vec<_> = std::mem::take(&mut *crashes.lock().unwrap());
    let found: Vec<_> = steps.iter().map(|(step, copy)| (&step[..], names(copy.path()))).collect();
    let of = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    assert_eq!(
        found,
        [
            ("before", of(&["sled", "sled.next"])),
            ("between", of(&["sled.next", "sled.old"])),
            ("not synced", of(&["sled", "sled.old"])),
            ("behind", of(&["sled", "sled.old"])),
            ("taken over", of(&["sled", "sled.old"])),
        ]
    );
    let behind = steps.into_iter().map(|(step, copy)| (step, content.clone(), copy));
    assert!(before.len() > 1);
    for (step, mut content, copy) in before.into_iter().chain(behind) {
        println!("a crash at: {step}");
        let store = open(copy.path());
        assert_eq!(names(copy.path()), ["sled"], "{step}");
        assert_holds(&store, &enterprise(), &content);
        let changes = random.changes(800, 50, 20);
        apply(&mut content, &changes);
        commit(&store, &enterprise(), changes);
        let heads = store.heads();
        drop(store);
        let store = open(copy.path());
        assert_eq!(store.heads(), heads, "{step}");
        assert_holds(&store, &enterprise(), &content);
    }
}

/// What a crash leaves of a deletion may be any part of it.
#[test]
fn what_a_deletion_has_left_of_an_old_database_is_no_database() {
    let mut random = Random::new();
    let (directory, store, content) = wasteful(&mut random);
    compact(&store);
    drop(store);
    for name in ["sled.old", "sled.next"] {
        std::fs::create_dir(directory.path().join(name)).unwrap();
        std::fs::write(directory.path().join(name).join("conf"), b"half").unwrap();
    }
    let store = open(directory.path());
    assert_eq!(names(directory.path()), ["sled"]);
    assert_holds(&store, &enterprise(), &content);
    drop(store);
    // Without a database, half a copy is none either.
    std::fs::rename(directory.path().join("sled"), directory.path().join("sled.next")).unwrap();
    let opened = Store::open(directory.path(), &options());
    assert!(matches!(opened, Err(StoreError::Damaged { .. })), "it is missed");
}

#[test]
fn one_that_is_given_up_leaves_nothing_and_can_begin_again() {
    let mut random = Random::new();
    let (directory, store, mut content) = wasteful(&mut random);
    begin(&store);
    wait(store.give_up_compaction()).unwrap();
    assert_eq!(names(directory.path()), ["sled"]);
    let changes = random.changes(800, 300, 20);
    apply(&mut content, &changes);
    commit(&store, &enterprise(), changes);
    assert_holds(&store, &enterprise(), &content);
    // A piece that fails does the same.
    begin(&store);
    store.shared.disk.broken.copy.store(true, Ordering::Relaxed);
    let ended = compact(&store);
    assert!(matches!(ended.stopped, Some(StoreError::Database(_))), "{ended:?}");
    assert!(!store.has_failed());
    assert_eq!(names(directory.path()), ["sled"]);
    assert!(!store.shared.disk.wants_weighing(), "not again at once");
    store.shared.disk.broken.copy.store(false, Ordering::Relaxed);
    commit(&store, &enterprise(), vec![put(1, "again")]);
    apply(&mut content, &[put(1, "again")]);
    let ended = compact(&store);
    assert!(ended.stopped.is_none() && ended.after < ended.before, "{ended:?}");
    assert_holds(&store, &enterprise(), &content);
}

#[test]
fn a_store_that_is_closed_on_the_way_opens_as_it_was() {
    let mut random = Random::new();
    let (directory, store, mut content) = wasteful(&mut random);
    begin(&store);
    let changes = random.changes(800, 300, 20);
    apply(&mut content, &changes);
    let heads = commit(&store, &enterprise(), changes);
    drop(store);
    let store = open(directory.path());
    assert_eq!(names(directory.path()), ["sled"]);
    assert_eq!(store.head(&enterprise()), Some(heads));
    assert_holds(&store, &enterprise(), &content);
}

#[test]
fn without_room_it_does_not_begin() {
    let mut random = Random::new();
    let (directory, store, content) = wasteful(&mut random);
    drop(store);
    let reserve = Options { disk_reserve_mb: Some(u64::MAX / 4), ..options() };
    let store = open_with(directory.path(), &reserve);
    let ended = compact(&store);
    assert!(matches!(ended.stopped, Some(StoreError::DiskFull { .. })), "{ended:?}");
    assert_eq!(names(directory.path()), ["sled"]);
    assert!(!store.has_failed());
    assert_holds(&store, &enterprise(), &content);
}

#[test]
fn a_disk_that_becomes_full_on_the_way_ends_it_and_nothing_else() {
    let Some(mount) = Mount::new(160) else { return };
    let path = mount.0.path().join("store");
    let options = Options { disk_reserve_mb: Some(24), ..options() };
    let store = open_with(&path, &options);
    commit(&store, &federation(), vec![put(1, "hub")]);
    let mut random = Random::new();
    let mut content = Content::new();
    for _ in 0..10 {
        let changes = random.changes(800, 400, 10);
        apply(&mut content, &changes);
        commit(&store, &enterprise(), changes);
    }
    waste(&store, &mut random, 48 * MIB);
    begin(&store);
    let free_mb = |path: &Path| {
        let stat = rustix::fs::statvfs(path).unwrap();
        stat.f_bavail * stat.f_frsize / MIB
    };
    let ballast = vec![1; usize::try_from((free_mb(&path) - 20) * MIB).unwrap()];
    std::fs::write(mount.0.path().join("ballast"), ballast).unwrap();
    let ended = compact(&store);
    assert!(matches!(ended.stopped, Some(StoreError::DiskFull { .. })), "{ended:?}");
    assert_eq!(names(&path), ["sled"]);
    assert!(!store.has_failed());
    assert_holds(&store, &enterprise(), &content);
    std::fs::remove_file(mount.0.path().join("ballast")).unwrap();
    let ended = compact(&store);
    assert!(ended.stopped.is_none() && ended.after < ended.before, "{ended:?}");
    assert_holds(&store, &enterprise(), &content);
}

#[test]
fn a_damaged_value_is_as_damaged_behind_it() {
    let mut random = Random::new();
    let (directory, store, content) = wasteful(&mut random);
    let first = content.keys().next().unwrap();
    let mut live = store.live_pages(&enterprise()).unwrap();
    let (at, _) = protocol::tree::Pages::seek(&mut live, 0, first).unwrap().unwrap();
    store.damage(&enterprise(), 0, &at, false);
    let before = store.get(&enterprise(), first).unwrap_err();
    let ended = compact(&store);
    assert!(ended.stopped.is_none() && ended.after < ended.before, "{ended:?}");
    for store in [store, { open(copy_of(directory.path()).path()) }] {
        let behind = store.get(&enterprise(), first).unwrap_err();
        assert!(matches!(behind, StoreError::Damaged { .. }), "{behind:?}");
        assert_eq!(behind.to_string(), before.to_string());
        let last = content.iter().next_back().unwrap();
        assert_eq!(store.get(&enterprise(), last.0).unwrap().as_ref(), Some(last.1));
    }
}

#[test]
fn a_store_that_has_failed_is_not_compacted() {
    let mut random = Random::new();
    let (directory, store, _) = wasteful(&mut random);
    begin(&store);
    store.shared.disk.broken.apply.store(true, Ordering::Relaxed);
    try_commit(&store, &enterprise(), vec![put(1, "x")]).unwrap_err();
    wait(store.compact_some()).unwrap_err();
    drop(store);
    open(directory.path());
    assert_eq!(names(directory.path()), ["sled"]);
}
