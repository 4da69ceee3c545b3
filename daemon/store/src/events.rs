//! Tells those who wait that heads have moved: of all partitions, or of one.
//!
//! Used by the writer, and by whoever follows. Invariant: a commit wakes only those who
//! want all of them and those who want its partition, since thousands may wait for others.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard},
};

use protocol::id::PartitionId;
use tokio::sync::{broadcast, watch};

/// Head movements that a slow listener may fall behind before it has to look at all heads
/// again.
const WAITING_MAX: usize = 1024;

/// Where heads that have moved are told.
pub struct Moved {
    all: broadcast::Sender<PartitionId>,
    /// Those that somebody waits for, or did when they last moved.
    of_one: Mutex<HashMap<PartitionId, watch::Sender<()>>>,
}

impl Default for Moved {
    fn default() -> Self {
        Self { all: broadcast::channel(WAITING_MAX).0, of_one: Mutex::default() }
    }
}

impl Moved {
    fn lock(&self) -> MutexGuard<'_, HashMap<PartitionId, watch::Sender<()>>> {
        self.of_one.lock().unwrap_or_else(|error| error.into_inner())
    }

    pub fn of_all(&self) -> broadcast::Receiver<PartitionId> {
        self.all.subscribe()
    }

    pub fn of(&self, partition: &PartitionId) -> watch::Receiver<()> {
        let mut of_one = self.lock();
        match of_one.get(partition) {
            Some(moved) => moved.subscribe(),
            None => {
                let (moved, listens) = watch::channel(());
                of_one.insert(partition.clone(), moved);
                listens
            }
        }
    }

    /// It has moved.
    pub fn tell(&self, partition: PartitionId) {
        let mut of_one = self.lock();
        if of_one.get(&partition).is_some_and(|moved| moved.send(()).is_err()) {
            of_one.remove(&partition);
        }
        drop(of_one);
        // Nobody may be listening.
        let _ = self.all.send(partition);
    }
}
