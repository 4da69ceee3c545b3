//! A store that nobody has opened yet, filled with whole partitions.
//!
//! Used by a restore alone. There is no writer and no reader: the database is this
//! one's until it is closed, and opened as any other after that. Invariant: a
//! partition has no name before all of it is in; what was given up has none, and is
//! deleted when the store is opened.

use std::{path::Path, sync::Arc};

use protocol::{history::Node, id::PartitionId, page::MadePage};

use super::{
    check::{Check, Judged, JudgedLeaf, Whole},
    piece::Piece,
};
use crate::{
    cores::on_all_cores,
    engine::{Batch, Disk, Options, PackId},
    error::StoreError,
    keys,
    quota::{LogKept, counted_leaf},
    state::Head,
    tree::PageBatch,
};

/// On average.
const RECORDS_PER_LEAF: u64 = 64;
/// Bytes of a log that are written in one batch.
const LOG_BATCH_BYTES: usize = 1024 * 1024;
/// Bytes after which what was written is made durable: it waits in memory until then.
const UNSYNCED_BYTES_MAX: usize = 32 * 1024 * 1024;

/// A new store.
pub struct NewStore {
    disk: Disk,
    next_number: u32,
    unsynced: usize,
}

impl NewStore {
    /// Makes a store at `path`, where there is none.
    pub fn create(path: &Path, options: &Options) -> Result<Self, StoreError> {
        if path.join("sled").exists() {
            let problem = "there is a store already".to_owned();
            return Err(StoreError::File { path: path.to_owned(), problem });
        }
        Ok(Self { disk: Disk::open(path, options)?, next_number: 0, unsynced: 0 })
    }

    /// Begins with a partition.
    pub fn begin(&mut self, partition: PartitionId) -> Filling {
        // Also where the one before was given up: a number is never used twice.
        let number = self.next_number;
        self.next_number += 1;
        let check = Check::new(self.disk.suite, partition.clone());
        Filling {
            partition,
            number,
            check,
            generation: 0,
            records: 0,
            counts: 0,
            kept: LogKept::default(),
            first_header: None,
            quarantine: None,
            log: Batch::default(),
        }
    }

    fn apply(&mut self, batch: Batch) -> Result<(), StoreError> {
        let bytes = batch.bytes();
        self.disk.check_room(bytes)?;
        self.disk.apply(batch)?;
        self.unsynced += bytes;
        if self.unsynced >= UNSYNCED_BYTES_MAX {
            self.unsynced = 0;
            self.disk.make_durable()?;
        }
        Ok(())
    }

    /// Makes all of it durable and closes it.
    pub fn finish(self) -> Result<(), StoreError> {
        self.disk.checkpoint()
    }
}

/// A partition on its way into a new store.
pub struct Filling {
    partition: PartitionId,
    number: u32,
    check: Check,
    /// Of the head, which comes first.
    generation: u32,
    /// Of the head.
    records: u64,
    counts: u64,
    kept: LogKept,
    /// The number of the first header that is in.
    first_header: Option<u64>,
    quarantine: Option<String>,
    log: Batch,
}

impl Filling {
    /// Takes the next pieces.
    ///
    /// # Errors
    /// If they are not of one whole partition, or there is no room.
    pub fn take(&mut self, store: &mut NewStore, pieces: Vec<Piece>) -> Result<(), StoreError> {
        let mut leaves = Vec::new();
        for judged in self.check.take(pieces)? {
            match judged {
                Judged::Piece(piece) => self.note(store, piece)?,
                Judged::Leaf(leaf) => leaves.push(leaf),
            }
        }
        if leaves.is_empty() {
            return Ok(());
        }
        self.write_log(store)?;
        self.write_leaves(store, leaves)
    }

    /// Puts a piece of the log into the batch.
    fn note(&mut self, store: &mut NewStore, piece: Piece) -> Result<(), StoreError> {
        let number = self.number;
        match piece {
            Piece::Head(head) => {
                self.generation = head.generation;
                self.records = head.signed.header().records;
            }
            Piece::Quarantine(reason) => self.quarantine = Some(reason),
            Piece::Header(signed) => {
                self.kept.headers += 1;
                let seq = signed.header().seq;
                self.first_header.get_or_insert(seq);
                self.log.put(keys::log_header(number, seq), signed.encode());
            }
            Piece::Body(seq, body) => {
                self.kept.body_bytes += body.len() as u64;
                self.log.put_chunked(&keys::log_body(number, seq), &body, 0);
            }
            Piece::Node(node, hash) => {
                if node.height == 0 && self.has_header(store, node)? {
                    // Of one that went while it was read; the header says the same.
                    return Ok(());
                }
                self.kept.hashes += u64::from(node.height == 0);
                self.log.put(keys::history_node(number, node), hash.as_bytes().to_vec());
            }
            Piece::Base(seq, peaks) => {
                let base = protocol::codec::encode(&(seq, peaks));
                self.log.put(keys::history_base(number), base);
            }
            Piece::Ack(node, ack) => {
                self.log.put(keys::ack(number, &node), protocol::codec::encode(&ack));
            }
            // It was told apart before.
            Piece::Leaf(_) => {}
        }
        if self.log.bytes() >= LOG_BATCH_BYTES {
            self.write_log(store)?;
        }
        Ok(())
    }

    fn has_header(&mut self, store: &mut NewStore, node: Node) -> Result<bool, StoreError> {
        let seq = node.index + 1;
        // Mostly: hashes are of headers before the first one that is kept.
        if self.first_header.is_none_or(|first| seq < first) {
            return Ok(false);
        }
        self.write_log(store)?;
        let key = keys::log_header(self.number, seq);
        Ok(store.disk.get(&key)?.is_some())
    }

    fn write_log(&mut self, store: &mut NewStore) -> Result<(), StoreError> {
        let log = std::mem::take(&mut self.log);
        store.apply(log)
    }

    fn write_leaves(
        &mut self,
        store: &mut NewStore,
        leaves: Vec<JudgedLeaf>,
    ) -> Result<(), StoreError> {
        let (number, generation) = (self.number, self.generation);
        let packed = on_all_cores(leaves.iter().collect(), |judged| judged.leaf.encode());
        let key = |level, first_key: &[u8]| keys::page(number, generation, level, first_key);
        let mut pages = PageBatch::new(&store.disk, &[]);
        // They come in the order of their keys, each once.
        pages.all_new = true;
        for (judged, body) in leaves.iter().zip(&packed) {
            self.counts += counted_leaf(judged.page.records, judged.leaf.bytes());
            let first_key = &judged.page.first_key;
            pages.put_leaf(key(0, first_key), body)?;
            pages.put_index(key(keys::INDEX, first_key), Some(&judged.index))?;
        }
        let pack = PackId { number, generation };
        let in_tree = self.records / RECORDS_PER_LEAF + 1;
        let mut batch = pages.finish(pack, in_tree, self.counts)?;
        put_inner(&mut batch, &key, leaves.iter().flat_map(|judged| &judged.inner));
        store.apply(batch)
    }

    /// All pieces have come: gives the partition its name. Answers its head, if it has
    /// one.
    ///
    /// # Errors
    /// If its tree is not the one that was signed.
    pub fn finish(mut self, store: &mut NewStore) -> Result<Option<Arc<Head>>, StoreError> {
        self.write_log(store)?;
        let Self { partition, number, check, generation, kept, quarantine, .. } = self;
        let whole = check.finish()?;
        let mut batch = Batch::default();
        if let Some(reason) = quarantine {
            batch.put(keys::quarantine(number), reason.into_bytes());
        }
        let head = whole.map(|Whole { head, summary, inner }| {
            let key = |level, first_key: &[u8]| keys::page(number, generation, level, first_key);
            put_inner(&mut batch, &key, inner.iter());
            let (signed, before, updated_ms) = (head.signed, head.before, head.updated_ms);
            Head { signed, before, summary, generation, log: kept, updated_ms }
        });
        if let Some(head) = &head {
            batch.put(keys::head(number), head.encode());
        }
        batch.put(keys::number(&partition), number.to_be_bytes().to_vec());
        store.apply(batch)?;
        Ok(head.map(Arc::new))
    }
}

fn put_inner<'a>(
    batch: &mut Batch,
    key: &dyn Fn(u8, &[u8]) -> Vec<u8>,
    inner: impl Iterator<Item = &'a MadePage>,
) {
    for made in inner {
        batch.put_chunked(&key(made.level, &made.page.first_key), &made.body, 0);
    }
}
