//! Pages that are whole, and older than the tree: what a flipped bit in the database's
//! file can bring back. Nothing reads them as if they were the tree's.

use protocol::{change::Change, tree::Pages as _};

use super::fixtures::*;
use crate::{Entries, Store, StoreError, engine::Batch, keys, tree::GenerationPages};

/// All that is stored of a partition's pages of this level, or table, as it is now.
fn stored(store: &Store, level: u8) -> Vec<Pair> {
    let number = store.shared.partition(&enterprise()).unwrap().number;
    let found = keys_of(store, &keys::page(number, 0, level, &[])).into_iter();
    found.map(|key| (key.clone(), store.shared.disk.get_chunked(&key).unwrap().unwrap())).collect()
}

/// Puts a value back under its key.
fn bring_back(store: &Store, (key, value): &Pair) {
    let mut batch = Batch::default();
    batch.put_chunked(key, value, store.shared.disk.chunks(key).unwrap());
    store.shared.disk.apply(batch).unwrap();
}

fn is_stale<T>(read: Result<T, StoreError>) -> bool {
    match read {
        Err(StoreError::Damaged { place, problem }) => {
            place.contains("enterprise/410122") && problem.contains("parent holds")
        }
        _ => false,
    }
}

/// A key and its value.
type Pair = (Vec<u8>, Vec<u8>);

/// A store with 2000 records that were all written twice, the pages of this level as they
/// were after the first time, and the key of a record in the middle one.
fn written_twice(level: u8) -> (tempfile::TempDir, Store, Pair, Vec<u8>) {
    let (directory, store) = fresh();
    commit(&store, &enterprise(), puts(0..2000, "first"));
    let old = stored(&store, level);
    commit(&store, &enterprise(), puts(0..2000, "second"));
    let old = old[old.len() / 2].clone();
    let number = store.shared.partition(&enterprise()).unwrap().number;
    let within = old.0[keys::page(number, 0, level, &[]).len()..].to_vec();
    (directory, store, old, within)
}

#[test]
fn an_older_leaf_is_neither_shown_nor_compared_with() {
    let (_directory, store, old, within) = written_twice(0);
    assert_eq!(store.get(&enterprise(), &within).unwrap().as_deref(), Some(&b"second"[..]));
    bring_back(&store, &old);
    assert_eq!(store.known_damage(&enterprise()), None);
    assert!(is_stale(store.get(&enterprise(), &within)));
    assert!(store.known_damage(&enterprise()).unwrap().contains("enterprise/410122"));
    let mut pages = store.live_pages(&enterprise()).unwrap();
    assert!(is_stale(pages.leaf_span(&within, false)));
    // What lies beside it is right, and says so without the leaf.
    let span = pages.leaf_span(&within, true).unwrap().unwrap();
    assert!(matches!(span.entries, Entries::Digests(_)));
    let mut snapshot = store.snapshot_blocking(&enterprise()).unwrap().unwrap();
    assert!(is_stale(snapshot.leaf(&within)));
    assert!(is_stale(snapshot.seek(0, &within)));
    let read: Result<Vec<_>, _> = snapshot.leaves().collect();
    assert!(is_stale(read));
    // Others are shown.
    let first = store.get(&enterprise(), &key(0)).unwrap();
    assert_eq!(first.as_deref(), Some(&b"second"[..]));
    assert_eq!(store.get(&federation(), &key(1)).unwrap().as_deref(), Some(&b"hub"[..]));
}

#[test]
fn an_older_inner_page_is_not_believed() {
    let (_directory, store, old, within) = written_twice(1);
    bring_back(&store, &old);
    assert!(is_stale(store.get(&enterprise(), &within)));
    let mut snapshot = store.snapshot_blocking(&enterprise()).unwrap().unwrap();
    assert!(is_stale(snapshot.seek(1, &within)));
    assert!(is_stale(snapshot.leaf(&within)));
    // Nothing is signed upon it.
    let head = store.head(&enterprise()).unwrap();
    let own = own(&enterprise(), vec![put(1000, "third")]);
    assert!(is_stale(wait(store.commit_own(own))));
    assert_eq!(store.head(&enterprise()).unwrap(), head);
}

#[test]
fn an_older_index_is_passed_over() {
    let (_directory, store, old, within) = written_twice(keys::INDEX);
    bring_back(&store, &old);
    let mut pages = store.live_pages(&enterprise()).unwrap();
    let span = pages.leaf_span(&within, true).unwrap().unwrap();
    let Entries::Whole(leaf) = span.entries else { panic!("the index is of an older leaf") };
    assert_eq!(leaf.get(&within), Some(&b"second"[..]));
    assert_eq!(store.known_damage(&enterprise()), None);
    // The next change of the leaf mends it.
    commit(
        &store,
        &enterprise(),
        vec![Change::Put { key: within.clone(), value: b"third".into() }],
    );
    let span = pages.leaf_span(&within, true).unwrap().unwrap();
    assert!(matches!(span.entries, Entries::Digests(_)));
    let head = store.head(&enterprise()).unwrap();
    let number = store.shared.partition(&enterprise()).unwrap().number;
    let pages = &mut GenerationPages::new(&store.shared.disk, number, head.generation);
    assert_eq!(pages.seek_leaf(&within).unwrap().unwrap().1.get(&within), Some(&b"third"[..]));
}

#[test]
fn an_older_patch_is_not_believed() {
    let (_directory, store) = fresh();
    commit(&store, &enterprise(), puts(0..2000, "first"));
    commit(&store, &enterprise(), vec![put(1000, "second")]);
    let old = stored(&store, keys::PATCH).remove(0);
    commit(&store, &enterprise(), vec![put(1000, "third")]);
    bring_back(&store, &old);
    assert!(is_stale(store.get(&enterprise(), &key(1000))));
    let mut pages = store.live_pages(&enterprise()).unwrap();
    assert!(is_stale(pages.leaf_span(&key(1000), true)));
}
