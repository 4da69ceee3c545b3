//! The writer's half of repairs: differences from a peer's tree applied in
//! place, and pages that are damaged replaced under the same head.
//!
//! `intake::compare` and `intake::heal` ask for these jobs.

use std::sync::{Arc, atomic::Ordering};

use protocol::{
    change::encode_changes,
    page::LEAF_BYTES_MAX,
    tree::{WORK, Work},
};

use super::{
    Writer,
    commit::{Next, check_jump},
};
use crate::{
    engine::{Batch, CHUNK_BYTES_MAX},
    error::StoreError,
    jobs::{Differences, HealedPages},
    keys,
    prepare::check_limits,
    state::Head,
    tree::MadeAhead,
};

/// What differences may touch. They stand for several change sets, so that is more than one
/// of these may; but not more is written anew, which is what takes memory.
const DIFFERENCES: Work =
    Work { leaf_bytes_max: 512 * 1024 * 1024, rewritten_bytes_max: WORK.leaf_bytes_max, ..WORK };

/// Chunks that a page may have: what a garbled one claims may be far more.
const CHUNKS_MAX: u16 = (LEAF_BYTES_MAX / CHUNK_BYTES_MAX + 2) as u16;

impl Writer {
    /// Applies differences in one batch. The log gets the header alone: those in
    /// between are not known.
    pub(super) fn apply_differences(
        &mut self,
        differences: &Differences,
    ) -> Result<Arc<Head>, StoreError> {
        let Differences { before, shown, changes } = differences;
        let described = shown.signed.header();
        let partition = &described.partition;
        check_limits(changes, &encode_changes(changes))
            .map_err(|problem| StoreError::Changes { partition: partition.clone(), problem })?;
        self.refuse_quarantined(partition)?;
        let head = self.head(partition).filter(|head| head.position() == *before);
        let head = head.ok_or_else(|| StoreError::Overtaken(partition.clone()))?;
        check_jump(shown, Some(&head))?;
        self.refuse_suspended(described)?;
        self.check_federation_head(partition, described.federation_head, Some(&head))?;
        let state = self.partition(partition);
        let ahead = MadeAhead::default();
        let update = self.update_tree(&state, Some(&head), changes, ahead, DIFFERENCES)?;
        self.check_root(&shown.signed, &update.summary)?;
        let (signed, history) = (shown.signed.clone(), shown.before.clone());
        let next = Next { signed, history, path: &shown.path, body: None, marks: &[] };
        self.commit(&state, Some(&head), next, update)
    }

    /// Writes pages of the current state. Open snapshots need nothing saved: a
    /// page that was replaced since they were opened was saved then, and one
    /// that was not is in their tree what it is in the current one. Only a leaf
    /// that was changed in place is whole now, without the patch that a snapshot
    /// may have saved an older one of: those snapshots end.
    pub(super) fn heal(&mut self, healed: &HealedPages) -> Result<(), StoreError> {
        let head = self.head(&healed.partition).filter(|head| head.position() == healed.head);
        let head = head.ok_or_else(|| StoreError::Overtaken(healed.partition.clone()))?;
        let number = self.partition(&healed.partition).number;
        let key = |level: u8, first: &[u8]| keys::page(number, head.generation, level, first);
        let mut batch = Batch::default();
        let mut patched = false;
        let mut remove = |batch: &mut Batch, level: u8, first: &[u8]| {
            let key = key(level, first);
            let chunks = self.shared.disk.chunks(&key)?;
            patched |= level == keys::PATCH && chunks > 0;
            batch.remove_chunked(&key, chunks.min(CHUNKS_MAX));
            Ok::<_, StoreError>(())
        };
        for (level, first) in &healed.removed {
            remove(&mut batch, *level, first)?;
            if *level == 0 {
                remove(&mut batch, keys::PATCH, first)?;
                remove(&mut batch, keys::INDEX, first)?;
            }
        }
        for page in &healed.written {
            let mut put = |level: u8, value: &[u8]| {
                let key = key(level, &page.first_key);
                batch.put_chunked(&key, value, self.shared.disk.chunks(&key)?.min(CHUNKS_MAX));
                Ok::<_, StoreError>(())
            };
            put(page.level, &page.body)?;
            if page.level == 0 {
                put(keys::INDEX, &page.index)?;
                remove(&mut batch, keys::PATCH, &page.first_key)?;
            }
        }
        if patched {
            for open in self.open_snapshots(number, head.generation) {
                open.closed.store(true, Ordering::Release);
            }
        }
        self.shared.disk.check_room(batch.bytes())?;
        self.apply(batch)?;
        let pages = healed.written.len() as u64;
        self.shared.pages_written.fetch_add(pages, Ordering::Relaxed);
        Ok(())
    }
}
