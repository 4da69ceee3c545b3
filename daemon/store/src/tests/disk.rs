//! Large values, and disks that are nearly full.

use std::{
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
};

use protocol::{change::Change, cut::PAGE_ENTRIES_MAX, page::RawLeaf};

use super::{
    fixtures::{
        Content, Random, SUITE, apply, assert_holds, begin, commit, crashed, delivery,
        empty_replica, enterprise, federation, feed, fresh, key, keys_of, open, open_with, options,
        put, puts, tidy, try_commit, wait,
    },
    reference::Memory,
};
use crate::{Options, Store, StoreError, engine::Batch, keys};

pub(super) fn noise(random: &mut Random, bytes: usize) -> Vec<u8> {
    (0..bytes.div_ceil(8)).flat_map(|_| random.next().to_be_bytes()).take(bytes).collect()
}

#[test]
fn the_largest_records_and_keys_lie_in_chunks() {
    let mut random = Random::new();
    let (directory, store) = fresh();
    let mut content = Content::new();
    // As many of the largest records as share one leaf.
    let long_key = |number: u64| [&[b'k'; 1016][..], &number.to_be_bytes()].concat();
    let plain: Vec<Vec<u8>> = (0..PAGE_ENTRIES_MAX as u64).map(long_key).collect();
    for keys in plain.chunks(64) {
        let changes: Vec<Change> = keys
            .iter()
            .map(|key| Change::Put { key: key.clone(), value: noise(&mut random, 64 * 1024) })
            .collect();
        apply(&mut content, &changes);
        commit(&store, &enterprise(), changes);
    }
    let (pages, summary) = Memory::built(&content);
    assert_eq!(summary.pages, [1]);
    assert!(pages.0.values().next().unwrap().len() > 10 * 1024 * 1024);
    assert_holds(&store, &enterprise(), &content);
    assert!(keys_of(&store, b"c").len() > 160);

    // An open snapshot saves the whole page, and gives it back.
    let mut snapshot = store.snapshot_blocking(&enterprise()).unwrap().unwrap();
    let small: Vec<Change> = plain
        .iter()
        .map(|key| Change::Put { key: key.clone(), value: b"small".to_vec() })
        .collect();
    let old = content.clone();
    apply(&mut content, &small);
    commit(&store, &enterprise(), small);
    Memory::built(&old).0.assert_same(&mut snapshot);
    drop(snapshot);
    assert_holds(&store, &enterprise(), &content);
    let heads = store.heads();
    drop(store);
    let store = open(directory.path());
    assert_eq!(store.heads(), heads);
    assert_holds(&store, &enterprise(), &content);
    let pages = keys_of(&store, b"p");
    let in_pieces = pages.iter().filter(|key| store.shared.disk.chunks(key).unwrap() > 1);
    assert_eq!(in_pieces.count(), 0, "small records need no chunks any more");
    let bodies = keys_of(&store, b"b");
    let log_chunks: usize =
        bodies.iter().map(|key| usize::from(store.shared.disk.chunks(key).unwrap()) - 1).sum();
    assert_eq!(keys_of(&store, b"c").len(), log_chunks);
}

#[test]
fn values_of_all_sizes_replace_each_other() {
    let mut random = Random::new();
    let (_directory, store) = fresh();
    let mut content = Content::new();
    for _ in 0..40 {
        let (number, bytes) = (random.below(5), random.below(64 * 1024 + 1) as usize);
        let bytes = if random.below(3) == 0 { bytes / 2000 } else { bytes };
        let changes = vec![put(number, noise(&mut random, bytes))];
        apply(&mut content, &changes);
        commit(&store, &enterprise(), changes);
        assert_holds(&store, &enterprise(), &content);
    }
}

#[test]
fn a_value_in_many_chunks_is_never_read_half_replaced() {
    let mut random = Random::new();
    let (_directory, store) = fresh();
    let disk = &store.shared.disk;
    let values = [noise(&mut random, 1_200_000), noise(&mut random, 900_000), vec![1; 100]];
    let write = |value: &[u8]| {
        let mut batch = Batch::default();
        batch.put_chunked(b"p value", value, disk.chunks(b"p value").unwrap());
        disk.apply(batch).unwrap();
    };
    write(&values[0]);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Acquire) {
                    let value = disk.get_chunked(b"p value").unwrap().unwrap();
                    assert!(values.contains(&value));
                }
            });
        }
        for round in 0..400 {
            write(&values[round % 3]);
        }
        done.store(true, Ordering::Release);
    });
    write(&[]);
    assert_eq!(disk.get_chunked(b"p value").unwrap(), Some(vec![]));
    for bytes in [0, 1, 60 * 1024, 60 * 1024 + 1, 1_000_000] {
        write(&vec![7; bytes]);
        let most = disk.chunked_bytes_max(b"p value").unwrap().unwrap();
        assert!((bytes..bytes + 60 * 1024).contains(&most), "{most} for {bytes}");
        assert!(bytes > 60 * 1024 || most == bytes, "{most} for {bytes}");
    }
    write(&[]);
    assert_eq!(keys_of(&store, b"c"), Vec::<Vec<u8>>::new());
}

#[test]
fn a_damaged_page_is_noticed_when_it_is_read() {
    let (_directory, store) = fresh();
    commit(&store, &enterprise(), puts(0..500, "x"));
    // A leaf of `enterprise`, which is the second partition.
    let prefix = keys::page(1, 0, 0, &[]);
    let page = keys_of(&store, &prefix).swap_remove(1);
    let first_key = page[prefix.len()..].to_vec();
    // A page that decodes, under the checksum of another one.
    let other = RawLeaf::of([(&first_key[..], &b"not what was written"[..])]);
    let mut bytes = store.shared.disk.get(&page).unwrap().unwrap()[..10].to_vec();
    bytes.extend(other.make(SUITE).body);
    let mut batch = Batch::default();
    batch.put(page, bytes);
    store.shared.disk.apply(batch).unwrap();
    let damaged = store.get(&enterprise(), &first_key);
    assert!(matches!(damaged, Err(StoreError::Damaged { .. })), "{damaged:?}");
}

#[test]
fn a_reserve_beyond_the_free_space_refuses_writes_but_not_reads() {
    let (directory, store) = fresh();
    let content: Content = (0..500).map(|number| (key(number), b"x".to_vec())).collect();
    let head = commit(&store, &enterprise(), puts(0..500, "x"));
    drop(store);
    let reserve = Options { disk_reserve_mb: Some(u64::MAX / 4), ..options() };
    let store = open_with(directory.path(), &reserve);
    for refused in [
        try_commit(&store, &enterprise(), puts(0..5, "y")).map(drop),
        wait(store.begin_staging(head.shown())).map(drop),
    ] {
        assert!(matches!(refused, Err(StoreError::DiskFull { .. })), "{refused:?}");
    }
    assert!(!store.has_failed());
    assert_eq!(store.head(&enterprise()), Some(head));
    assert_holds(&store, &enterprise(), &content);
    // What a person decides is small, and taken.
    wait(store.quarantine(&enterprise(), "full".into(), vec![])).unwrap();
}

#[test]
fn without_room_nothing_is_tidied_and_nothing_fails() {
    let (_one, origin) = fresh();
    commit(&origin, &enterprise(), puts(0..500, "x"));
    let (directory, replica) = empty_replica(&origin);
    let (header, leaves) = delivery(&origin);
    let mut staging = begin(&replica, &header);
    feed(&mut staging, &leaves);
    wait(staging.finish()).unwrap();
    // What the switch of generations has left is gone before this comes.
    tidy(&replica);
    // What an earlier generation has left, and a start takes away.
    let old = keys::page(1, 0, 0, b"old");
    let mut batch = Batch::default();
    batch.put_chunked(&old, b"page", 0);
    replica.shared.disk.apply(batch).unwrap();
    drop(replica);
    let is_there = |store: &Store| store.shared.disk.chunks(&old).unwrap() > 0;
    let reserve = Options { disk_reserve_mb: Some(u64::MAX / 4), ..options() };
    let store = open_with(directory.path(), &reserve);
    tidy(&store);
    assert!(is_there(&store) && !store.has_failed());
    drop(store);
    let store = open(directory.path());
    tidy(&store);
    assert!(!is_there(&store));
}

/// A small file system of its own.
pub(super) struct Mount(pub(super) tempfile::TempDir);

impl Mount {
    pub(super) fn new(size_mb: u64) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let size = format!("size={size_mb}m");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(directory.path())
            .output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(directory)),
            _ => {
                println!("skipped: a tmpfs cannot be mounted here");
                None
            }
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).output();
    }
}

/// Fills a small disk with commits of one kind until one is refused.
fn fill(size_mb: u64, ballast_mb: usize, mut changes: impl FnMut(u64) -> Vec<Change>) {
    let Some(mount) = Mount::new(size_mb) else { return };
    let path = mount.0.path().join("store");
    let ballast = mount.0.path().join("ballast");
    std::fs::write(&ballast, vec![1; ballast_mb << 20]).unwrap();
    // The reserve that a store derives by itself.
    let options = Options { disk_reserve_mb: None, ..options() };
    let store = open_with(&path, &options);
    commit(&store, &federation(), vec![put(1, "hub")]);
    let mut content = Content::new();
    let mut round = 0;
    let mut full_at = |store: &Store, content: &mut Content| {
        let began = round;
        loop {
            round += 1;
            assert!(round < 100_000, "it never became full");
            let changes = changes(round);
            match try_commit(store, &enterprise(), changes.clone()) {
                Ok(_) => apply(content, &changes),
                Err(StoreError::DiskFull { .. }) => break,
                Err(error) => panic!("{error}"),
            }
        }
        println!("full after {} rounds", round - began);
        assert!(round > began + 1, "nothing was written at all");
    };
    full_at(&store, &mut content);
    assert!(!store.has_failed());
    assert_holds(&store, &enterprise(), &content);
    let heads = store.heads();
    drop(store);
    let store = open_with(&path, &options);
    assert_eq!(store.heads(), heads);
    assert_holds(&store, &enterprise(), &content);
    std::fs::remove_file(&ballast).unwrap();
    full_at(&store, &mut content);
    assert!(!store.has_failed());
    assert_holds(&store, &enterprise(), &content);
}

#[test]
fn room_is_asked_for_the_pages_and_not_only_for_the_changes() {
    let Some(mount) = Mount::new(128) else { return };
    let mut random = Random::new();
    let path = mount.0.path().join("store");
    let store = open(&path);
    commit(&store, &federation(), vec![put(1, "hub")]);
    let mut content = Content::new();
    for stretch in 0..4 {
        let numbers = stretch * 5000..(stretch + 1) * 5000;
        let changes: Vec<Change> = numbers.map(|n| put(n, noise(&mut random, 900))).collect();
        apply(&mut content, &changes);
        commit(&store, &enterprise(), changes);
    }
    drop(store);
    let stat = rustix::fs::statvfs(mount.0.path()).unwrap();
    let free_mb = (stat.f_bavail * stat.f_frsize) >> 20;
    // Room for the few bytes that change, but not for the pages around them.
    let reserve = Options { disk_reserve_mb: Some(free_mb - 15), ..options() };
    let store = open_with(&path, &reserve);
    // With half of their keys, leaves are joined and written again.
    let half = content.keys().step_by(2);
    let deletes = half.map(|key| Change::Delete { key: key.clone() }).collect();
    let refused = try_commit(&store, &enterprise(), deletes);
    assert!(matches!(refused, Err(StoreError::DiskFull { .. })), "{refused:?}");
    assert_holds(&store, &enterprise(), &content);
    apply(&mut content, &[put(5, "small")]);
    commit(&store, &enterprise(), vec![put(5, "small")]);
    assert_holds(&store, &enterprise(), &content);
}

#[test]
fn a_disk_fills_up_with_small_commits() {
    let mut random = Random::new();
    fill(96, 24, |_| {
        (0..50)
            .map(|index| put(index * 1000 + random.below(1000), noise(&mut random, 400)))
            .collect()
    });
}

#[test]
fn a_disk_fills_up_with_large_commits() {
    let mut random = Random::new();
    fill(160, 64, |round| {
        (0..110).map(|index| put(round * 110 + index, noise(&mut random, 64 * 1024))).collect()
    });
}

#[test]
fn a_disk_fills_up_with_scattered_updates() {
    let mut random = Random::new();
    fill(96, 16, |round| {
        // Some of them are new: what is only replaced fills no disk.
        let numbers: std::collections::BTreeSet<u64> =
            (0..3000).map(|_| random.below(30_000 + 6000 * round)).collect();
        numbers.into_iter().map(|number| put(number, noise(&mut random, 64))).collect()
    });
}

/// A leaf of two mebibytes that does not compress.
fn one_large_leaf(store: &Store, random: &mut Random) -> Content {
    let mut content = Content::new();
    for number in 0..32 {
        let changes = vec![Change::Put { key: key(number), value: noise(random, 65_000) }];
        apply(&mut content, &changes);
        commit(store, &enterprise(), changes);
    }
    content
}

/// The leaf is written anew by it, and a little that stays.
fn written_anew(turn: usize) -> Vec<Change> {
    let text = if turn.is_multiple_of(2) { "a" } else { "b" };
    vec![Change::Put { key: key(7), value: text.repeat(20_000).into_bytes() }]
}

#[test]
fn what_is_written_anew_again_and_again_does_not_make_the_file_grow() {
    /// What the file may grow by for reasons of its own: two of sled's segments.
    const SLACK_BYTES: u64 = 16 * 1024 * 1024;
    let (directory, store) = fresh();
    one_large_leaf(&store, &mut Random::new());
    let size_after = |turns: std::ops::Range<usize>| {
        turns.for_each(|turn| drop(commit(&store, &enterprise(), written_anew(turn))));
        std::fs::metadata(directory.path().join("sled/db")).unwrap().len()
    };
    let at_first = size_after(0..100);
    let later = size_after(100..900);
    assert!(later <= at_first + SLACK_BYTES, "{at_first} bytes at first, {later} later");
}

#[test]
fn an_error_while_room_is_given_back_costs_nothing_that_was_answered() {
    let (directory, store) = fresh();
    let mut content = one_large_leaf(&store, &mut Random::new());
    store.shared.disk.broken.sweep.store(true, Ordering::Relaxed);
    let failed = (0..1000).find_map(|turn| {
        let changes = written_anew(turn);
        let failed = try_commit(&store, &enterprise(), changes.clone()).err();
        if failed.is_none() {
            apply(&mut content, &changes);
        }
        failed
    });
    let failed = failed.expect("it is time long before that").to_string();
    assert!(failed.contains("an earlier write failed"), "{failed}");
    let copy = crashed(directory.path());
    drop(store);
    for directory in [directory.path(), copy.path()] {
        let store = open(directory);
        assert_holds(&store, &enterprise(), &content);
        let mut content = content.clone();
        content.extend(one_large_leaf(&store, &mut Random(9)));
        assert_holds(&store, &enterprise(), &content);
    }
}
