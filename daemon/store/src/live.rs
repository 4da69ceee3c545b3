//! A partition's pages as they are at each single read.
//!
//! Each read looks at the stored head, the inner pages from its root downwards and the
//! page itself while no batch is applied, so they are of one state, and a page that is
//! not the one its parent holds is an error ([`protocol::tree::Checked`]). Pages of a
//! partition as they were at one moment are `snapshot`'s.

use std::sync::Arc;

use protocol::{
    change::Change,
    page::Leaf,
    suite::Suite,
    tree::{Checked, FoundPage, Pages, Path},
};

use crate::{
    engine::Bytes,
    error::StoreError,
    keys,
    state::{Head, PartitionState, Shared},
    tree::{GenerationPages, LeafSpan, PagesAtOnce, leaf_span},
};

/// A partition's pages as they are at each single read.
pub struct LivePages {
    shared: Arc<Shared>,
    state: Arc<PartitionState>,
    known: Option<Known>,
}

/// What was read of the present tree.
struct Known {
    /// As it is stored.
    bytes: Bytes,
    head: Head,
    path: Path,
}

impl LivePages {
    pub(crate) fn new(shared: Arc<Shared>, state: Arc<PartitionState>) -> Self {
        Self { shared, state, known: None }
    }

    /// The record under `key`.
    pub fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.seek_leaf(key)?.and_then(|(_, leaf)| leaf.get(key).map(<[u8]>::to_vec)))
    }

    /// What is stored around `key`: by digests if they are asked for and there are
    /// some.
    pub fn leaf_span(
        &mut self,
        key: &[u8],
        by_digest: bool,
    ) -> Result<Option<LeafSpan>, StoreError> {
        self.read(|pages| leaf_span(pages, key, by_digest))
    }

    /// Bytes of the leaves to which `changes`, sorted by key, belong; counted until they
    /// are more than `most`. It is about as right as what lies beside the leaves.
    pub fn touched_bytes(&self, changes: &[Change], most: u64) -> Result<u64, StoreError> {
        let generation = self.state.head().map_or(0, |head| head.generation);
        let disk = &self.shared.disk;
        GenerationPages::new(disk, self.state.number, generation).touched_bytes(changes, most)
    }

    /// Reads from the tree of the head that is stored now; nothing if the partition was
    /// forgotten.
    fn read<T>(
        &mut self,
        read: impl FnOnce(&mut Checked<'_, PagesAtOnce<'_>>) -> Result<Option<T>, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        let (disk, number) = (&self.shared.disk, self.state.number);
        let view = disk.read();
        let Some(bytes) = view.view.get(&keys::head(number))? else {
            return Ok(None);
        };
        let known = match self.known.take().filter(|known| known.bytes == bytes) {
            Some(known) => known,
            None => {
                let head = Head::decode(&bytes)?;
                let path = Path::new(&head.summary);
                Known { bytes, head, path }
            }
        };
        let known = self.known.insert(known);
        let mut pages = PagesAtOnce::new(&view, disk.suite, number, known.head.generation);
        let answer = read(&mut Checked::new(&mut pages, &mut known.path));
        drop(view);
        // Readers are shown that before any of its pages goes.
        if self.state.head().is_none() {
            return Ok(None);
        }
        self.shared.heed(&known.head, &self.state, answer)
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
