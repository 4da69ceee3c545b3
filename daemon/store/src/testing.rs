//! What a test does to a store: damage that disks and strangers do, and writes
//! that fail. Only there for tests, here and of crates that ask for the feature
//! `testing`.

use std::sync::atomic::Ordering;

use protocol::id::PartitionId;

use crate::{Store, engine::Batch, keys};

impl Store {
    /// Garbles a stored page, or removes it.
    pub fn damage(&self, partition: &PartitionId, level: u8, first_key: &[u8], remove: bool) {
        let (state, mut batch) = (self.shared.partition(partition), Batch::default());
        let state = state.expect("a test damages what is there");
        let generation = state.head().expect("it has a head").generation;
        let key = keys::page(state.number, generation, level, first_key);
        let chunks = self.shared.disk.chunks(&key).expect("it can be read");
        assert!(chunks > 0, "there is no such page");
        batch.remove_chunked(&key, chunks);
        if !remove {
            // Of one chunk, and with another checksum.
            batch.put(key, b"\0\x01 a page that somebody has garbled".to_vec());
        }
        self.shared.disk.apply(batch).expect("a test's disk works");
    }

    /// Stores a page where the tree has none.
    pub fn plant(&self, partition: &PartitionId, level: u8, first_key: &[u8], body: &[u8]) {
        let state = self.shared.partition(partition).expect("a test plants beside what is there");
        let generation = state.head().expect("it has a head").generation;
        let key = keys::page(state.number, generation, level, first_key);
        let mut batch = Batch::default();
        batch.put_chunked(&key, body, 0);
        self.shared.disk.apply(batch).expect("a test's disk works");
    }

    /// Lets each batch fail from now on, or work again.
    pub fn break_writes(&self, broken: bool) {
        self.shared.disk.broken.apply.store(broken, Ordering::Relaxed);
    }
}
