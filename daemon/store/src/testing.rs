//! What a test does to a store: damage that disks and strangers do, and writes
//! that fail. Only there for tests, here and of crates that ask for the feature
//! `testing`.

use std::sync::atomic::Ordering;

use protocol::id::PartitionId;

use crate::{Store, engine::Batch, keys};

/// What is done to a number of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogHarm {
    /// The header decodes no more.
    HeaderGarbled,
    /// The header decodes and is another one.
    HeaderAltered,
    /// The header is the same, and its signature another one.
    Signature,
    /// The header is gone.
    HeaderMissing,
    /// The body has another bit.
    BodyAltered,
    /// The body is gone.
    BodyMissing,
}

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

    /// Alters a number of a partition's log.
    pub fn damage_log(&self, partition: &PartitionId, seq: u64, harm: LogHarm) {
        let number = self.shared.partition(partition).expect("it is there").number;
        let (header, body) = (keys::log_header(number, seq), keys::log_body(number, seq));
        let get = |key: &[u8]| self.shared.disk.get(key).expect("it can be read");
        let flipped = |key: &[u8], from_end: usize| {
            let mut bytes = get(key).expect("there is one").to_vec();
            let at = bytes.len() - from_end;
            bytes[at] ^= 1;
            bytes
        };
        let mut batch = Batch::default();
        match harm {
            LogHarm::HeaderGarbled => batch.put(header, b"garbled".to_vec()),
            // In the key's id, the last field: it decodes, and its hash is another one.
            LogHarm::HeaderAltered => batch.put(header.clone(), flipped(&header, 1)),
            // Behind the suite's number.
            LogHarm::Signature => {
                let mut bytes = get(&header).expect("there is one").to_vec();
                bytes[1] ^= 1;
                batch.put(header, bytes);
            }
            LogHarm::HeaderMissing => batch.remove(header),
            LogHarm::BodyAltered => batch.put(body.clone(), flipped(&body, 1)),
            LogHarm::BodyMissing => batch.remove(body),
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
