//! The pages of a generation on their way into a batch.
//!
//! Before a page is replaced, what it was goes to the snapshots that are open;
//! leaves that are new, and their indexes, may go to the generation's pack.

use std::sync::Arc;

use super::Writer;
use crate::{
    StoreError, keys,
    packs::PackId,
    pages::{OpenSnapshot, PAGE_SAVED, PAGE_WAS_NOT},
    values::Batch,
};

/// What is written of a generation's pages.
pub(super) struct PageBatch<'a> {
    writer: &'a Writer,
    batch: Batch,
    snapshots: &'a [Arc<OpenSnapshot>],
    /// Whether all leaves are new.
    pub all_new: bool,
    /// Leaves and indexes whose keys are new.
    new: Vec<(Vec<u8>, &'a [u8])>,
}

impl<'a> PageBatch<'a> {
    pub fn new(writer: &'a Writer, snapshots: &'a [Arc<OpenSnapshot>]) -> Self {
        Self { writer, batch: Batch::default(), snapshots, all_new: false, new: Vec::new() }
    }

    /// Chunks that a leaf or an index has now.
    fn chunks(&self, key: &[u8]) -> Result<u16, StoreError> {
        if self.all_new { Ok(0) } else { self.writer.shared.disk.chunks(key) }
    }

    /// Writes or removes an inner page or a patch, or removes a leaf.
    pub fn put(&mut self, key: Vec<u8>, value: Option<&[u8]>) -> Result<(), StoreError> {
        let chunks = self.writer.shared.disk.chunks(&key)?;
        if chunks == 0 && value.is_none() {
            return Ok(());
        }
        self.writer.save_for_snapshots(&mut self.batch, self.snapshots, &key)?;
        self.replace(&key, value, chunks);
        Ok(())
    }

    /// Writes a leaf.
    pub fn put_leaf(&mut self, key: Vec<u8>, value: &'a [u8]) -> Result<(), StoreError> {
        let chunks = self.chunks(&key)?;
        self.writer.save_for_snapshots(&mut self.batch, self.snapshots, &key)?;
        match chunks {
            0 => self.new.push((key, value)),
            chunks => self.replace(&key, Some(value), chunks),
        }
        Ok(())
    }

    /// Writes or removes an index, which no snapshot reads.
    pub fn put_index(&mut self, key: Vec<u8>, value: Option<&'a [u8]>) -> Result<(), StoreError> {
        match (self.chunks(&key)?, value) {
            (0, Some(value)) => self.new.push((key, value)),
            (chunks, value) => self.replace(&key, value, chunks),
        }
        Ok(())
    }

    fn replace(&mut self, key: &[u8], value: Option<&[u8]>, chunks: u16) {
        match value {
            Some(value) => self.batch.put_chunked(key, value, chunks),
            None => self.batch.remove_chunked(key, chunks),
        }
    }

    /// The batch; new pages may lie in the generation's pack. The tree will have
    /// so many leaves.
    pub fn finish(mut self, generation: PackId, leaves: u64) -> Result<Batch, StoreError> {
        // A leaf has its index beside it.
        let pages = 2 * leaves;
        self.writer.shared.disk.put_new(&mut self.batch, generation, &self.new, pages)?;
        Ok(self.batch)
    }
}

impl Writer {
    /// Adds the page under `key`, as it is, to what each of these snapshots
    /// keeps, unless it has it already.
    fn save_for_snapshots(
        &self,
        batch: &mut Batch,
        snapshots: &[Arc<OpenSnapshot>],
        key: &[u8],
    ) -> Result<(), StoreError> {
        for open in snapshots {
            let saved = keys::saved_page(open.id, key);
            if self.shared.disk.get(&saved)?.is_some() {
                continue;
            }
            let value = match self.shared.disk.get_chunked(key)? {
                Some(body) => [&[PAGE_SAVED], &body[..]].concat(),
                None => vec![PAGE_WAS_NOT],
            };
            batch.put_chunked(&saved, &value, 0);
        }
        Ok(())
    }
}
