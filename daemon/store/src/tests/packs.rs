//! Packs: pages of bulk loads are read from there like all others, also behind a
//! crash, and go when nothing refers to them any more.

use std::{path::Path, sync::atomic::Ordering};

use protocol::change::Change;

use super::fixtures::{
    Content, Random, apply, assert_holds, begin, commit, crashed, delete, delivery, empty_replica,
    enterprise, feed, fresh, key, keys_of, open, put, tidy, try_commit, wait,
};
use crate::{
    Store, StoreError,
    engine::{
        Batch, PackId,
        packs::{APPEND_BYTES_MIN, InTree, Place, may_grow},
    },
    keys,
};

/// The pack of the first generation of `enterprise`, the second partition.
pub(super) const FIRST: PackId = PackId { number: 1, generation: 0 };

/// Records that do not compress.
pub(super) fn noise(random: &mut Random, numbers: std::ops::Range<u64>) -> Vec<Change> {
    let mut value = || (0..40).flat_map(|_| random.next().to_be_bytes()).collect::<Vec<u8>>();
    numbers.map(|number| put(number, value())).collect()
}

pub(super) fn length(store: &Store, pack: PackId) -> u64 {
    store.shared.disk.packs.length(pack).unwrap()
}

/// A store with many records in a pack.
pub(super) fn loaded() -> (tempfile::TempDir, Store, Content) {
    let (directory, store) = fresh();
    let mut content = Content::new();
    let changes = noise(&mut Random::new(), 0..4000);
    apply(&mut content, &changes);
    commit(&store, &enterprise(), changes);
    assert!(length(&store, FIRST) > 4000 * 320);
    (directory, store, content)
}

fn pack_file(directory: &Path) -> std::path::PathBuf {
    directory.join("packs/1-0")
}

#[test]
fn leaves_of_a_large_change_set_are_read_from_its_pack() {
    let (directory, store, mut content) = loaded();
    let before = length(&store, FIRST);
    assert_holds(&store, &enterprise(), &content);
    assert_eq!(store.shared.disk.packs.unsynced_bytes(), 0, "it was acknowledged");
    let copy = crashed(directory.path());
    assert_holds(&open(copy.path()), &enterprise(), &content);
    // What is changed lies above it or in the table.
    let mut random = Random::new();
    for count in [1, 30, 2000] {
        let changes = random.changes(4100, count, 20);
        apply(&mut content, &changes);
        commit(&store, &enterprise(), changes);
        assert_holds(&store, &enterprise(), &content);
    }
    assert_eq!(length(&store, FIRST), before);
    let heads = store.heads();
    drop(store);
    let store = open(directory.path());
    assert_eq!(store.heads(), heads);
    assert_holds(&store, &enterprise(), &content);
    // And what comes behind goes on at its end.
    let changes = noise(&mut random, 5000..8000);
    apply(&mut content, &changes);
    commit(&store, &enterprise(), changes);
    assert!(length(&store, FIRST) > before + 3000 * 320);
    assert_holds(&store, &enterprise(), &content);
}

#[test]
fn a_reference_is_never_written_before_what_it_refers_to() {
    let (_directory, store) = fresh();
    let disk = &store.shared.disk;
    let page = vec![7; APPEND_BYTES_MIN];
    let add = |number: u64, filler: usize| {
        let mut batch = Batch::default();
        let key = keys::page(1, 0, 0, &number.to_be_bytes());
        disk.put_new(&mut batch, FIRST, &[(key, &page)], InTree { pages: 100, bytes: 1 << 30 })
            .unwrap();
        for part in 0..filler as u64 {
            batch.put([&b"u"[..], &part.to_be_bytes()].concat(), vec![7; 60 * 1024]);
        }
        disk.apply(batch).unwrap();
    };
    add(1, 0);
    assert_eq!(disk.packs.unsynced_bytes(), page.len() as u64, "nothing was written yet");
    disk.make_durable().unwrap();
    assert_eq!(disk.packs.unsynced_bytes(), 0);
    // Too large for the journal: sled may write it at any time.
    add(2, 5);
    assert_eq!(disk.packs.unsynced_bytes(), 0);
    disk.make_durable().unwrap();
    add(3, 0);
    disk.checkpoint().unwrap();
    assert_eq!(disk.packs.unsynced_bytes(), 0);
    // Nor do many bytes wait.
    (4..50).for_each(|number| add(number, 0));
    assert!(disk.packs.unsynced_bytes() <= 8 * 1024 * 1024);
    for number in 1..50u64 {
        let key = keys::page(1, 0, 0, &number.to_be_bytes());
        assert_eq!(disk.get_chunked(&key).unwrap().as_ref(), Some(&page));
    }
}

#[test]
fn a_pack_that_could_not_be_synced_once_is_never_taken_for_durable() {
    let (directory, store, content) = loaded();
    let head = store.head(&enterprise());
    let more = noise(&mut Random::new(), 5000..7000);
    store.shared.disk.packs.no_sync.store(true, Ordering::Relaxed);
    try_commit(&store, &enterprise(), more.clone()).unwrap_err();
    store.shared.disk.packs.no_sync.store(false, Ordering::Relaxed);
    assert!(store.has_failed());
    assert!(store.shared.disk.packs.sync().is_err(), "its bytes may be lost");
    try_commit(&store, &enterprise(), vec![put(1, "x")]).unwrap_err();
    assert_eq!(store.head(&enterprise()), head);
    let copy = crashed(directory.path());
    assert_holds(&open(copy.path()), &enterprise(), &content);
    drop(store);
    let store = open(directory.path());
    commit(&store, &enterprise(), more);
}

#[test]
fn what_is_behind_the_last_reference_does_not_matter() {
    let (directory, store, mut content) = loaded();
    let copy = crashed(directory.path());
    drop(store);
    // What was appended and not referred to before a crash.
    let file = std::fs::OpenOptions::new().append(true).open(pack_file(copy.path()));
    std::io::Write::write_all(&mut file.unwrap(), &[9; 777]).unwrap();
    let store = open(copy.path());
    assert_holds(&store, &enterprise(), &content);
    let changes = noise(&mut Random::new(), 4000..6000);
    apply(&mut content, &changes);
    commit(&store, &enterprise(), changes);
    assert_holds(&store, &enterprise(), &content);
}

#[test]
fn a_damaged_pack_is_noticed_when_its_pages_are_read() {
    let (directory, store, content) = loaded();
    drop(store);
    let whole = std::fs::read(pack_file(directory.path())).unwrap();
    let mut flipped = whole.clone();
    flipped.iter_mut().for_each(|byte| *byte ^= 1);
    for (damage, expected) in [
        (Some(&flipped[..]), "checksum"),
        (Some(&whole[..0]), "ends before"),
        (Some(&whole[1..]), "checksum"),
        (None, "missing"),
    ] {
        match damage {
            Some(bytes) => std::fs::write(pack_file(directory.path()), bytes).unwrap(),
            None => std::fs::remove_file(pack_file(directory.path())).unwrap(),
        }
        let store = open(directory.path());
        let problem = store.get(&enterprise(), &key(1)).unwrap_err();
        assert!(matches!(problem, StoreError::Damaged { .. }), "{problem:?}");
        assert!(problem.to_string().contains(expected), "{problem}");
    }
    std::fs::write(pack_file(directory.path()), &whole).unwrap();
    assert_holds(&open(directory.path()), &enterprise(), &content);
}

#[test]
fn a_garbled_place_is_damage_and_not_a_read_of_gigabytes() {
    let (_directory, store, _) = loaded();
    let disk = &store.shared.disk;
    let page = keys_of(&store, &keys::page(1, 0, 0, &[])).swap_remove(1);
    let good = disk.get(&page).unwrap().unwrap().to_vec();
    assert_eq!(good.len(), 10 + Place::BYTES);
    for bad in [&good[..21], &[&good[..], &[0]].concat(), &good[..10]] {
        let mut batch = Batch::default();
        batch.put(page.clone(), bad.to_vec());
        disk.apply(batch).unwrap();
        assert!(matches!(disk.get_chunked(&page), Err(StoreError::Damaged { .. })));
    }
    for (at, byte) in [(18, 255), (10, 127), (17, good[17] ^ 1), (21, good[21] ^ 1)] {
        let (mut batch, mut bad) = (Batch::default(), good.clone());
        bad[at] = byte;
        batch.put(page.clone(), bad);
        disk.apply(batch).unwrap();
        let read = disk.get_chunked(&page);
        assert!(matches!(read, Err(StoreError::Damaged { .. })), "{at}: {read:?}");
    }
}

#[test]
fn a_pack_goes_with_its_generation_and_with_the_partition() {
    let (_a, origin, mut content) = loaded();
    let (directory, replica) = empty_replica(&origin);
    let mut random = Random::new();
    for generation in 1..3 {
        let (header, leaves) = delivery(&origin);
        let mut staging = begin(&replica, &header);
        feed(&mut staging, &leaves);
        wait(staging.finish()).unwrap();
        assert_holds(&replica, &enterprise(), &content);
        let pack = PackId { number: 1, generation };
        assert_eq!(replica.shared.disk.packs.list(), [pack]);
        let changes = random.changes(4100, 50, 20);
        apply(&mut content, &changes);
        commit(&origin, &enterprise(), changes);
    }
    wait(replica.forget(&enterprise())).unwrap();
    tidy(&replica);
    assert_eq!(std::fs::read_dir(directory.path().join("packs")).unwrap().count(), 0);
}

#[test]
fn what_lies_waste_in_a_pack_is_limited() {
    let (_directory, store) = fresh();
    let mut random = Random::new();
    let mut lengths = Vec::new();
    for _ in 0..8 {
        let mut content = Content::new();
        let changes = noise(&mut random, 0..2000);
        apply(&mut content, &changes);
        commit(&store, &enterprise(), changes);
        assert_holds(&store, &enterprise(), &content);
        lengths.push(length(&store, FIRST));
        commit(&store, &enterprise(), (0..2000).map(delete).collect());
    }
    assert!(lengths[1] > lengths[0], "{lengths:?}");
    assert!(lengths[7] <= 2 * lengths[0] + lengths[0] / 4, "{lengths:?}");
    let of = |pages, bytes| InTree { pages, bytes };
    assert!(may_grow(0, 1_000_000, 100, of(0, 0)));
    assert!(may_grow(1_000_000, 1_000_000, 100, of(100, 1_000_000)));
    assert!(!may_grow(2_000_000, 1_000_000, 100, of(100, 9_000_000)));
    assert!(may_grow(2_000_000, 1_000_000, 100, of(150, 1_500_000)));
    assert!(!may_grow(2_000_000, 1_000_000, 1, of(1_000_000, 1_400_000)), "few that are large");
}

/// A large leaf whose first key comes and goes is written anew under another key each
/// time, by a change set of one small record.
#[test]
fn what_lies_waste_in_a_pack_is_limited_where_most_leaves_are_smaller() {
    let (_directory, store, _) = loaded();
    let mut random = Random::new();
    let mut value = || (0..5000).flat_map(|_| random.next().to_be_bytes()).collect::<Vec<u8>>();
    let large = (100_001..100_101).map(|number| put(number, value())).collect();
    commit(&store, &enterprise(), large);
    let before = length(&store, FIRST);
    for _ in 0..20 {
        commit(&store, &enterprise(), vec![put(100_000, vec![1])]);
        commit(&store, &enterprise(), vec![delete(100_000)]);
    }
    let after = length(&store, FIRST);
    assert!(after <= 3 * before, "{before} bytes have become {after}");
}
