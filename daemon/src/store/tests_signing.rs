//! Signing keys: who signs the next own change set, and what a change of keys
//! leaves in the log.

use super::*;

fn signing_key(seed: u8) -> Arc<SigningKey> {
    Arc::new(SigningKey::from_seed(&[seed; 32]))
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
