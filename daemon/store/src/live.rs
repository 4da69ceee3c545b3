//! A partition's pages as they are at each single read.
//!
//! Pages of a partition as they were at one moment are `snapshot`'s.

use std::sync::Arc;

use protocol::{
    change::Change,
    page::Leaf,
    suite::Suite,
    tree::{FoundPage, Pages},
};

use crate::{
    error::StoreError,
    state::{PartitionState, Shared},
    tree::{GenerationPages, LeafSpan},
};

/// Pages of one generation as they are at each single read.
pub struct LivePages {
    shared: Arc<Shared>,
    state: Arc<PartitionState>,
}

impl LivePages {
    pub(crate) fn new(shared: Arc<Shared>, state: Arc<PartitionState>) -> Self {
        Self { shared, state }
    }

    /// The record under `key`.
    pub fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.seek_leaf(key)?.and_then(|(_, leaf)| leaf.get(key).map(<[u8]>::to_vec)))
    }

    /// What is stored around `key`: by digests if they are asked for and there are
    /// some.
    pub fn leaf_span(&self, key: &[u8], by_digest: bool) -> Result<Option<LeafSpan>, StoreError> {
        self.read(|pages| pages.leaf_span(key, by_digest))
    }

    /// Bytes of the leaves to which `changes`, sorted by key, belong; counted until they
    /// are more than `most`.
    pub fn touched_bytes(&self, changes: &[Change], most: u64) -> Result<u64, StoreError> {
        let touched = self.read(|pages| pages.touched_bytes(changes, most).map(Some))?;
        Ok(touched.unwrap_or(0))
    }

    /// Reads from the generation that is current both before and after: an old
    /// one is deleted once the head has left it.
    fn read<T>(
        &self,
        read: impl Fn(&mut GenerationPages<'_>) -> Result<Option<T>, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        let generation = || self.state.head().map(|head| head.generation);
        let mut now = generation();
        // None if the partition was forgotten.
        while let Some(current) = now {
            let answer =
                read(&mut GenerationPages::new(&self.shared.disk, self.state.number, current));
            now = generation();
            if now == Some(current) {
                return answer;
            }
        }
        Ok(None)
    }
}

impl Pages for LivePages {
    type Error = StoreError;

    fn suite(&self) -> Suite {
        self.shared.disk.suite
    }

    fn seek(&mut self, level: u8, key: &[u8]) -> Result<Option<FoundPage>, StoreError> {
        self.read(|pages| pages.seek(level, key))
    }

    fn next_key(&mut self, level: u8, first_key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(|pages| pages.next_key(level, first_key))
    }

    fn seek_leaf(&mut self, key: &[u8]) -> Result<Option<(Vec<u8>, Leaf)>, StoreError> {
        self.read(|pages| pages.seek_leaf(key))
    }
}
