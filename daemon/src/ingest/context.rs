//! What every step of an import works with: the store, room for temporary files,
//! limits, and whether to stop.

#[cfg(test)]
use std::sync::atomic::AtomicU64;
use std::{path::PathBuf, sync::Arc};

use protocol::id::PartitionId;
use store::Store;
use tokio_util::sync::CancellationToken;

use super::{
    hold::HoldLimits,
    temporary::TemporaryFiles,
    words::{ImportError, Progress},
};
use crate::membership::Membership;

/// Shared by all imports of a node.
pub(super) struct Context {
    pub store: Store,
    pub membership: Arc<Membership>,
    pub temporary: TemporaryFiles,
    /// Where full files are recalled from.
    pub recall_dir: PathBuf,
    pub memory_bytes: usize,
    pub hold: HoldLimits,
    pub stop: CancellationToken,
    /// Full files of which only what was new was read.
    #[cfg(test)]
    pub recalled: AtomicU64,
}

impl Context {
    /// Records that a partition holds.
    pub fn stored(&self, partition: &PartitionId) -> u64 {
        self.store.head(partition).map_or(0, |head| head.summary.records)
    }

    pub fn check_stop(&self) -> Result<(), ImportError> {
        if self.stop.is_cancelled() { Err(ImportError::Stopped) } else { Ok(()) }
    }

    /// Says how far an import has come, where it may also be stopped.
    pub fn pause(&self, progress: &dyn Fn(Progress), now: Progress) -> Result<(), ImportError> {
        self.check_stop()?;
        progress(now);
        Ok(())
    }
}
