//! The pages of a generation on their way into a batch.
//!
//! Before a page is replaced, what it was goes to the snapshots that are open;
//! leaves that are new, and their indexes, may go to the generation's pack.

use std::sync::Arc;

use super::saved::{OpenSnapshot, save_page};
use crate::{
    engine::{Batch, Disk, PackId, packs::InTree},
    error::StoreError,
};

/// What is written of a generation's pages.
pub struct PageBatch<'a> {
    disk: &'a Disk,
    batch: Batch,
    snapshots: &'a [Arc<OpenSnapshot>],
    /// Whether all leaves are new.
    pub all_new: bool,
    /// Leaves and indexes whose keys are new.
    new: Vec<(Vec<u8>, &'a [u8])>,
}

impl<'a> PageBatch<'a> {
    pub fn new(disk: &'a Disk, snapshots: &'a [Arc<OpenSnapshot>]) -> Self {
        Self { disk, batch: Batch::default(), snapshots, all_new: false, new: Vec::new() }
    }

    /// Chunks that a leaf or an index has now.
    fn chunks(&self, key: &[u8]) -> Result<u16, StoreError> {
        if self.all_new { Ok(0) } else { self.disk.chunks(key) }
    }

    /// Writes or removes an inner page or a patch, or removes a leaf.
    pub fn put(&mut self, key: Vec<u8>, value: Option<&[u8]>) -> Result<(), StoreError> {
        let chunks = self.disk.chunks(&key)?;
        if chunks == 0 && value.is_none() {
            return Ok(());
        }
        save_page(self.disk, &mut self.batch, self.snapshots, &key)?;
        self.replace(&key, value, chunks);
        Ok(())
    }

    /// Writes a leaf.
    pub fn put_leaf(&mut self, key: Vec<u8>, value: &'a [u8]) -> Result<(), StoreError> {
        let chunks = self.chunks(&key)?;
        save_page(self.disk, &mut self.batch, self.snapshots, &key)?;
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
    /// so many leaves, and so many bytes before they are packed.
    pub fn finish(
        mut self,
        generation: PackId,
        leaves: u64,
        bytes: u64,
    ) -> Result<Batch, StoreError> {
        // A leaf has its index beside it.
        let in_tree = InTree { pages: 2 * leaves, bytes };
        self.disk.put_new(&mut self.batch, generation, &self.new, in_tree)?;
        Ok(self.batch)
    }
}
