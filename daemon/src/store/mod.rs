//! Where records, histories and heads are kept: sled, and the rules that make
//! it safe to trust.
//!
//! One writer thread ([`writer`]) behind a bounded queue is the only code that
//! writes records; one batch moves pages, log and head together, is made
//! durable, and only then answered. Readers run beside it. Nothing outside of
//! this folder knows sled, and this folder knows nothing of files that counties
//! deliver, of the network or of people.
//!
//! - [`keys`]: what lies under which key;
//! - [`disk`]: sled opened, batches made durable;
//! - [`values`]: what a batch writes, and reads give back: chunks, places, checksums;
//! - [`journal`]: the file in which small batches are durable first;
//! - [`table`]: these batches in memory, above sled;
//! - [`packs`]: files with the pages of bulk loads;
//! - [`pages`]: the state tree's pages, live and through a snapshot;
//! - [`writer`]: commits, stagings, chores;
//! - [`ahead`]: what of a commit is done before the writer's turn;
//! - [`signing`]: whose key signs own change sets, and how it is changed;
//! - [`staging`]: a tree that a peer delivers, until it is whole;
//! - [`compare`]: what differs from a peer's tree, applied in place;
//! - [`heal`]: damaged pages replaced under the same head;
//! - [`heads`]: the sidecar `HEADS`, by which a truncated database is noticed.

mod ahead;
mod compare;
mod disk;
mod error;
mod heads;
mod heal;
mod journal;
mod keys;
mod packs;
mod pages;
mod signing;
mod staging;
mod state;
mod table;
mod values;
mod writer;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};

use protocol::{
    change::{ChangeSet, Position, SignedHeader, VerifiedChangeSet},
    id::{NodeId, PartitionId},
};
use tokio::sync::{broadcast, oneshot};

use self::{ahead::Prepared, disk::Disk, state::Shared, writer::Job};
pub use self::{
    compare::Comparison,
    error::StoreError,
    heal::{Healed, Healing},
    pages::{Entries, LivePages, Snapshot, Stretch},
    staging::Staging,
    state::{Ack, Counters, Head, OwnChanges},
};

/// Jobs that may wait for the writer. Each holds at most one change set, so
/// this bounds the memory of a burst.
const JOBS_WAITING_MAX: usize = 32;
/// Head movements that a slow listener may fall behind before it has to look at
/// all heads again.
const HEAD_EVENTS_MAX: usize = 1024;

/// How to open a store.
#[derive(Debug, Clone)]
pub struct Options {
    /// Memory that sled may use for its cache, in MiB.
    pub cache_mb: u64,
    /// Free space in MiB below which writes are refused; `None` derives it from
    /// the size of the file system.
    pub disk_reserve_mb: Option<u64>,
}

/// An open store. Cheap to clone; the last clone closes it.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
    handle: Arc<Handle>,
}

/// The threads behind a store. Dropping it ends them, after what they were
/// given is durable.
struct Handle {
    jobs: Option<tokio::sync::mpsc::Sender<Job>>,
    threads: Mutex<Vec<std::thread::JoinHandle<()>>>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.jobs = None;
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(|e| e.into_inner()));
        for thread in threads {
            // A panic there was already reported by the panic hook.
            let _ = thread.join();
        }
    }
}

/// A large first load under way; see [`Store::begin_load`].
pub struct Load {
    shared: Arc<Shared>,
    partition: PartitionId,
}

impl Drop for Load {
    fn drop(&mut self) {
        state::lock(&self.shared.loading).remove(&self.partition);
        // Nobody may be listening.
        let _ = self.shared.events.send(self.partition.clone());
    }
}

/// The answer to a job, to be awaited or waited for.
#[must_use = "a commit has happened only when this answers"]
pub struct Pending<T>(oneshot::Receiver<Result<T, StoreError>>);

impl<T> Pending<T> {
    /// Waits on a thread of its own; never call it from asynchronous code.
    pub fn wait(self) -> Result<T, StoreError> {
        self.0.blocking_recv().unwrap_or(Err(StoreError::Closed))
    }

    /// Waits.
    pub async fn answer(self) -> Result<T, StoreError> {
        self.0.await.unwrap_or(Err(StoreError::Closed))
    }
}

impl Store {
    /// Opens the store at `path`, or makes one.
    ///
    /// # Errors
    /// If the files are damaged, or older than what was last acknowledged.
    pub fn open(path: &Path, options: &Options) -> Result<Self, StoreError> {
        let disk = Disk::open(path, options)?;
        let partitions = state::load_partitions(&disk)?;
        let has_sidecar = heads::check(path, &partitions)?;
        disk.drop_snapshots()?;
        let (events, _) = broadcast::channel(HEAD_EVENTS_MAX);
        let shared = Arc::new(Shared::new(disk, partitions, events, path.to_owned()));
        let (jobs, queue) = tokio::sync::mpsc::channel(JOBS_WAITING_MAX);
        if !has_sidecar {
            shared.touch_sidecar(|state| state.dirty = true);
        }
        let writer = writer::spawn(shared.clone(), queue, jobs.downgrade())?;
        let threads = vec![writer, heads::spawn(shared.clone())?];
        let handle = Arc::new(Handle { jobs: Some(jobs), threads: Mutex::new(threads) });
        Ok(Self { shared, handle })
    }

    /// The directory.
    pub fn path(&self) -> &PathBuf {
        &self.shared.path
    }

    /// The head of a partition, if it has one.
    pub fn head(&self, partition: &PartitionId) -> Option<Arc<Head>> {
        self.shared.partition(partition)?.head()
    }

    /// All partitions that have a head, in order.
    pub fn heads(&self) -> BTreeMap<PartitionId, Arc<Head>> {
        let partitions = self.shared.partitions();
        partitions.iter().filter_map(|(id, state)| Some((id.clone(), state.head()?))).collect()
    }

    /// Hears of each durable commit.
    pub fn subscribe(&self) -> broadcast::Receiver<PartitionId> {
        self.shared.events.subscribe()
    }

    /// Who acknowledged how much of a partition.
    pub fn acks(&self, partition: &PartitionId) -> BTreeMap<NodeId, Ack> {
        self.shared.partition(partition).map(|state| state.acks()).unwrap_or_default()
    }

    /// Waits, at most so long, until `node` holds a partition up to `seq`; answers
    /// whether it does. Never call it from asynchronous code.
    pub fn wait_for_ack(
        &self,
        partition: &PartitionId,
        node: &NodeId,
        seq: u64,
        longest: Duration,
    ) -> bool {
        let state = self.shared.partition(partition);
        state.is_some_and(|state| state.wait_for_ack(node, seq, longest))
    }

    /// Whether so many bytes beside the database would leave it the room that it
    /// needs.
    pub fn has_room(&self, bytes: usize) -> bool {
        self.shared.disk.check_room(bytes).is_ok()
    }

    /// Why a partition is quarantined, if it is.
    pub fn quarantine_reason(&self, partition: &PartitionId) -> Option<String> {
        self.shared.partition(partition)?.quarantine()
    }

    /// What the store has done since it was opened.
    pub fn counters(&self) -> Counters {
        self.shared.counters()
    }

    /// Whether sled reported an error that only a restart can clear.
    pub fn has_failed(&self) -> bool {
        self.shared.failed.load(Ordering::Relaxed)
    }

    /// Commits changes, sorted by key, to a partition that this node owns: the
    /// next change set is made, signed with the key that is the signer at that
    /// moment, and durable when this answers. What needs nothing of the store is
    /// done on the caller's thread: many changes are [`Store::commit_own_later`]'s
    /// business.
    pub async fn commit_own(&self, changes: OwnChanges) -> Result<Arc<Head>, StoreError> {
        let prepared = Box::new(Prepared::new(changes)?);
        self.submit(|reply| Job::Own { prepared, reply }).await?.answer().await
    }

    /// As [`Store::commit_own`], from a thread that may block; several may be
    /// pending at once and are committed in order.
    pub fn commit_own_later(&self, changes: OwnChanges) -> Result<Pending<Arc<Head>>, StoreError> {
        self.ask_before_write(&changes.partition)?;
        let prepared = Box::new(Prepared::new(changes)?);
        self.submit_blocking(|reply| Job::Own { prepared, reply })
    }

    /// From now on asks this before own change sets but those of `_federation`: it may
    /// block, and answers the number up to which another node holds the partition, if
    /// that is more than what is here.
    pub fn ask_before_writing(
        &self,
        ask: impl Fn(&PartitionId) -> Option<u64> + Send + Sync + 'static,
    ) {
        *state::lock(&self.shared.ask_before_writing) = Some(Arc::new(ask));
    }

    fn ask_before_write(&self, partition: &PartitionId) -> Result<(), StoreError> {
        let ask = state::lock(&self.shared.ask_before_writing).clone();
        let awaited = ask.filter(|_| !partition.dataset.is_system()).and_then(|ask| ask(partition));
        let Some(awaited) = awaited else {
            return Ok(());
        };
        let have = self.head(partition).map_or(0, |head| head.seq());
        Err(StoreError::AwaitsOwnHistory { partition: partition.clone(), have, awaited })
    }

    /// Commits a change set of another origin: it must follow the head, and its
    /// root must be what this replica computes. One that the log already holds
    /// is answered like a fresh one.
    pub async fn commit_replica(&self, set: VerifiedChangeSet) -> Result<Arc<Head>, StoreError> {
        self.submit(|reply| Job::Replica { set: Box::new(set), reply }).await?.answer().await
    }

    /// Notes what a peer holds. Not flushed: it is learned again at the next
    /// hello.
    pub async fn record_ack(
        &self,
        partition: &PartitionId,
        node: &NodeId,
        position: Position,
    ) -> Result<(), StoreError> {
        let Some(state) = self.shared.partition(partition) else {
            return Ok(());
        };
        let ack = Ack { seq: position.seq, at_ms: state::now_ms() };
        if !state.note_ack(node, ack) {
            return Ok(());
        }
        let number = state.number;
        let node = node.clone();
        self.send(Job::Ack { number, node, ack }).await
    }

    /// Stops taking change sets of a partition until a person decides.
    pub async fn quarantine(
        &self,
        partition: &PartitionId,
        reason: String,
    ) -> Result<(), StoreError> {
        let partition = partition.clone();
        self.submit(|reply| Job::Quarantine { partition, reason, reply }).await?.answer().await
    }

    /// Drops a replica of another origin, so that it can be fetched again from
    /// number 1: head, history, pages, what peers acknowledged, a quarantine and
    /// a staging under way. The store cannot tell a replica from an own
    /// partition, whose data would be lost.
    ///
    /// When it answers, this is durable and listeners have heard of it. It may be
    /// interrupted anywhere: up to the one batch that takes the name off its
    /// data everything is as before, except that `HEADS` vouches for the
    /// partition only from its next commit on; behind it nothing is left but
    /// data to be deleted, which goes on at the next start.
    pub async fn forget(&self, partition: &PartitionId) -> Result<(), StoreError> {
        let partition = partition.clone();
        self.submit(|reply| Job::Forget { partition, reply }).await?.answer().await
    }

    /// As [`Store::forget`], from a thread that may block.
    pub fn forget_blocking(&self, partition: &PartitionId) -> Result<(), StoreError> {
        let partition = partition.clone();
        self.submit_blocking(|reply| Job::Forget { partition, reply })?.wait()
    }

    /// Says that a large first load of a partition begins: its head is announced
    /// to peers when the answer is dropped.
    pub fn begin_load(&self, partition: &PartitionId) -> Load {
        state::lock(&self.shared.loading).insert(partition.clone());
        Load { shared: self.shared.clone(), partition: partition.clone() }
    }

    /// Whether a large first load of the partition is under way.
    pub fn is_loading(&self, partition: &PartitionId) -> bool {
        state::lock(&self.shared.loading).contains(partition)
    }

    /// Refuses writes to an own partition until its head has reached `seq`, which
    /// somebody else is known to hold. The highest number counts; 0 withdraws it.
    pub fn await_own_history(&self, partition: &PartitionId, seq: u64) {
        let mut awaited = state::lock(&self.shared.awaited);
        if seq == 0 {
            awaited.remove(partition);
            return;
        }
        let highest = awaited.entry(partition.clone()).or_default();
        *highest = seq.max(*highest);
    }

    /// The signed header with this number, if the log holds it.
    pub fn header_at(
        &self,
        partition: &PartitionId,
        seq: u64,
    ) -> Result<Option<SignedHeader>, StoreError> {
        match self.shared.partition(partition) {
            Some(state) => self.shared.disk.log_header(state.number, seq),
            None => Ok(None),
        }
    }

    /// Consecutive change sets from number `from` on, at most `count_max` and
    /// about `bytes_max`, but at least one. `None` if the log does not hold the
    /// first one's body.
    pub fn change_sets(
        &self,
        partition: &PartitionId,
        from: u64,
        count_max: usize,
        bytes_max: usize,
    ) -> Result<Option<Vec<ChangeSet>>, StoreError> {
        let Some(state) = self.shared.partition(partition) else {
            return Ok(None);
        };
        let head = state.head().map_or(0, |head| head.seq());
        let mut sets = Vec::new();
        let mut bytes = 0;
        for seq in from..=head {
            if sets.len() >= count_max || (bytes >= bytes_max && !sets.is_empty()) {
                break;
            }
            let Some(set) = self.shared.disk.log_change_set(state.number, seq)? else {
                break;
            };
            bytes += set.body.len();
            sets.push(set);
        }
        Ok((!sets.is_empty()).then_some(sets))
    }

    /// The record under `key`.
    pub fn get(&self, partition: &PartitionId, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(mut pages) = self.live_pages(partition) else {
            return Ok(None);
        };
        pages.get(key)
    }

    /// The pages of a partition as they are at each single read. For its own
    /// partition an importer is the only writer, so what lies behind the last
    /// key that it committed stands still.
    pub fn live_pages(&self, partition: &PartitionId) -> Option<LivePages> {
        let state = self.shared.partition(partition)?;
        state.head()?;
        Some(LivePages::new(self.shared.clone(), state))
    }

    /// The pages of a partition as they are now, whatever is committed later.
    pub async fn snapshot(&self, partition: &PartitionId) -> Result<Option<Snapshot>, StoreError> {
        let partition = partition.clone();
        self.submit(|reply| Job::OpenSnapshot { partition, reply }).await?.answer().await
    }

    /// As [`Store::snapshot`], from a thread that may block.
    pub fn snapshot_blocking(
        &self,
        partition: &PartitionId,
    ) -> Result<Option<Snapshot>, StoreError> {
        let partition = partition.clone();
        self.submit_blocking(|reply| Job::OpenSnapshot { partition, reply })?.wait()
    }

    /// Begins, or takes up again, the staging of a peer's tree under `header`,
    /// whose signature was verified.
    pub async fn begin_staging(&self, header: SignedHeader) -> Result<Staging, StoreError> {
        let (partition, records) = (header.header().partition.clone(), header.header().records);
        let job = |reply| Job::BeginStaging { partition, records, reply };
        let stage = self.submit(job).await?.answer().await?;
        Ok(Staging::new(self.clone(), header, stage))
    }

    /// Begins to compare this replica with a peer's tree under `header`, whose
    /// signature was verified.
    pub fn begin_comparison(&self, header: SignedHeader) -> Result<Comparison, StoreError> {
        Comparison::new(self.clone(), header)
    }

    /// Begins to replace what is damaged of a partition's pages under `head`,
    /// which is its head.
    pub fn begin_healing(
        &self,
        partition: &PartitionId,
        head: Arc<Head>,
    ) -> Result<Healing, StoreError> {
        Healing::new(self.clone(), partition.clone(), head)
    }

    async fn submit<T>(
        &self,
        job: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Job,
    ) -> Result<Pending<T>, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.send(job(reply)).await?;
        Ok(Pending(answer))
    }

    async fn send(&self, job: Job) -> Result<(), StoreError> {
        let jobs = self.handle.jobs.as_ref().ok_or(StoreError::Closed)?;
        jobs.send(job).await.map_err(|_| StoreError::Closed)
    }

    fn submit_blocking<T>(
        &self,
        job: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Job,
    ) -> Result<Pending<T>, StoreError> {
        let (reply, answer) = oneshot::channel();
        let jobs = self.handle.jobs.as_ref().ok_or(StoreError::Closed)?;
        jobs.blocking_send(job(reply)).map_err(|_| StoreError::Closed)?;
        Ok(Pending(answer))
    }
}

#[cfg(test)]
mod tests;
