//! Packs that are mostly waste are rewritten, and nobody notices.

use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use super::{
    compaction::{compact, compact_with, copy_of, piece},
    fixtures::{
        Content, Random, SetOnDrop, apply, assert_holds, commit, delete, enterprise, key, keys_of,
        open, open_with, options, put, tidy, wait,
    },
    packs::{FIRST, length, loaded, noise},
    reference::Memory,
};
use crate::{Compacted, Options, Store, StoreError, keys};

/// A store with a pack of which three quarters are waste.
fn wasteful() -> (tempfile::TempDir, Store, Content) {
    let (directory, store, mut content) = loaded();
    let changes: Vec<_> = (0..3000).map(delete).collect();
    apply(&mut content, &changes);
    commit(&store, &enterprise(), changes);
    (directory, store, content)
}

fn files(store: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(store.join("packs")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

/// Works until a second edition is there, with a part of the pages.
fn begin(store: &Store) {
    while files(store.path()).len() < 2 {
        assert!(matches!(piece(store), Compacted::More { .. }));
    }
    assert!(matches!(piece(store), Compacted::More { .. }));
}

#[test]
fn a_pack_that_is_mostly_waste_is_rewritten() {
    let (directory, store, mut content) = wasteful();
    let before = length(&store, FIRST);
    let snapshot_of = content.clone();
    let mut snapshot = store.snapshot_blocking(&enterprise()).unwrap().unwrap();
    let ended = compact(&store);
    assert!(ended.stopped.is_none(), "{ended:?}");
    let after = length(&store, FIRST);
    assert_eq!(ended.packs, (before, after));
    assert!(4 * after < before + before / 2, "{before} {after}");
    assert_eq!(files(directory.path()), ["1-0.1"]);
    Memory::built(&snapshot_of).0.assert_same(&mut snapshot);
    drop(snapshot);
    assert_holds(&store, &enterprise(), &content);
    // Now little of it is waste.
    let ended = compact(&store);
    assert_eq!(ended.packs, (after, after));
    drop(store);
    let store = open(directory.path());
    assert_holds(&store, &enterprise(), &content);
    // What comes behind is appended to it, and it is rewritten again.
    let mut random = Random::new();
    for edition in ["1-0.1", "1-0.2"] {
        let changes = noise(&mut random, 5000..8000);
        apply(&mut content, &changes);
        commit(&store, &enterprise(), changes);
        assert_eq!(files(directory.path()), [edition]);
        let changes: Vec<_> = (5000..8000).map(delete).collect();
        apply(&mut content, &changes);
        commit(&store, &enterprise(), changes);
        assert_holds(&store, &enterprise(), &content);
        assert!(compact(&store).stopped.is_none());
        assert_holds(&store, &enterprise(), &content);
    }
    assert_eq!(files(directory.path()), ["1-0.3"]);
    wait(store.forget(&enterprise())).unwrap();
    tidy(&store);
    assert_eq!(files(directory.path()), Vec::<String>::new());
}

#[test]
fn a_crash_at_any_piece_loses_nothing_and_the_next_pass_goes_on() {
    let (directory, store, mut content) = wasteful();
    let mut crashes = Vec::new();
    begin(&store);
    let mut number = 0;
    compact_with(&store, || {
        if number % 3 == 0 {
            crashes.push((content.clone(), copy_of(directory.path())));
        }
        let changes = vec![put(3000 + 7 * number, format!("{number}"))];
        apply(&mut content, &changes);
        commit(&store, &enterprise(), changes);
        number += 1;
    });
    assert_eq!(files(directory.path()), ["1-0.1"]);
    assert_holds(&store, &enterprise(), &content);
    let halves = crashes.iter().filter(|(_, copy)| files(copy.path()).len() == 2).count();
    assert!(halves > 0, "no crash in the middle");
    for (content, copy) in crashes {
        let store = open(copy.path());
        assert_holds(&store, &enterprise(), &content);
        let ended = compact(&store);
        assert!(ended.stopped.is_none(), "{ended:?}");
        assert_eq!(files(copy.path()), ["1-0.1"]);
        assert_holds(&store, &enterprise(), &content);
        drop(store);
        assert_holds(&open(copy.path()), &enterprise(), &content);
    }
}

#[test]
fn readers_go_on_while_a_pack_is_rewritten() {
    let (_directory, store, content) = wasteful();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _end = SetOnDrop(&done);
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Acquire) {
                    for (key, value) in content.iter().step_by(17) {
                        assert_eq!(store.get(&enterprise(), key).unwrap().as_ref(), Some(value));
                    }
                }
            });
        }
        let ended = compact(&store);
        assert!(ended.stopped.is_none() && ended.packs.1 < ended.packs.0, "{ended:?}");
    });
    assert_holds(&store, &enterprise(), &content);
}

#[test]
fn a_damaged_page_stays_where_it_is_until_it_is_well() {
    let (directory, store, mut content) = wasteful();
    drop(store);
    let path = directory.path().join("packs/1-0");
    let mut bytes = std::fs::read(&path).unwrap();
    // Somewhere in what is needed, which came last.
    let at = bytes.len() - 5000;
    bytes[at] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let store = open(directory.path());
    let is_damaged = |key: &Vec<u8>| store.get(&enterprise(), key).is_err();
    let damaged: Vec<_> = content.keys().filter(|key| is_damaged(key)).cloned().collect();
    assert!(!damaged.is_empty() && damaged.len() < 200, "{}", damaged.len());
    let ended = compact(&store);
    assert!(matches!(ended.stopped, Some(StoreError::Damaged { .. })), "{ended:?}");
    assert_eq!(files(directory.path()), ["1-0", "1-0.1"]);
    for (key, value) in &content {
        let found = store.get(&enterprise(), key);
        match damaged.contains(key) {
            true => assert!(matches!(found, Err(StoreError::Damaged { .. })), "{found:?}"),
            false => assert_eq!(found.unwrap().as_ref(), Some(value)),
        }
    }
    // Somebody gives the page back, here as a whole new value of the key.
    let pages = keys_of(&store, &keys::generation(1, 0));
    let disk = &store.shared.disk;
    let at: Vec<_> = pages.iter().filter(|page| disk.get_chunked(page).is_err()).collect();
    assert_eq!(at.len(), 1);
    let is_leaf = at[0][9] == 0;
    let (tree, _) = Memory::built(&content);
    if is_leaf {
        let body = &tree.0[&(0, at[0][10..].to_vec())];
        let mut batch = crate::engine::Batch::default();
        batch.put_chunked(at[0], body, disk.chunks(at[0]).unwrap());
        disk.apply(batch).unwrap();
    } else {
        let mut batch = crate::engine::Batch::default();
        batch.remove(at[0].clone());
        disk.apply(batch).unwrap();
    }
    let ended = compact(&store);
    assert!(ended.stopped.is_none(), "{ended:?}");
    assert_eq!(files(directory.path()), ["1-0.1"]);
    let changes = vec![put(3000, "again")];
    apply(&mut content, &changes);
    commit(&store, &enterprise(), changes);
    assert_eq!(store.get(&enterprise(), &key(3000)).unwrap().unwrap(), b"again");
}

#[test]
fn without_room_a_pack_stays_as_it_is() {
    let (directory, store, content) = wasteful();
    drop(store);
    let reserve = Options { disk_reserve_mb: Some(u64::MAX / 4), ..options() };
    let store = open_with(directory.path(), &reserve);
    let ended = compact(&store);
    assert!(matches!(ended.stopped, Some(StoreError::DiskFull { .. })), "{ended:?}");
    assert_eq!(files(directory.path()), ["1-0"]);
    assert!(!store.has_failed());
    assert_holds(&store, &enterprise(), &content);
}

#[test]
fn a_pack_that_cannot_be_synced_stops_the_writer_and_loses_nothing() {
    let (directory, store, content) = wasteful();
    begin(&store);
    store.shared.disk.packs.no_sync.store(true, Ordering::Relaxed);
    let ended = loop {
        match wait(store.compact_some()) {
            Ok(Compacted::More { .. }) => {}
            ended => break ended,
        }
    };
    assert!(ended.is_err(), "{ended:?}");
    assert!(store.has_failed());
    assert!(files(directory.path()).contains(&"1-0".to_owned()));
    let copy = copy_of(directory.path());
    assert_holds(&open(copy.path()), &enterprise(), &content);
}
