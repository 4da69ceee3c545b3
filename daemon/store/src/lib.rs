//! Where records, histories and heads are kept: sled, and the rules that make
//! it safe to trust.
//!
//! One writer thread ([`writer`]) behind a bounded queue is the only code that
//! writes records; one batch moves pages, log and head together, is made
//! durable, and only then answered. Readers run beside it. Nothing outside of
//! this crate knows sled, and this crate knows nothing of files that counties
//! deliver, of the network or of people.
//!
//! Its floors are listed in ARCHITECTURE.md; each imports only from those above it
//! in that list, and a test refuses anything else.

mod consumers;
mod copy;
pub mod cores;
mod engine;
mod error;
mod events;
mod feed;
mod heads;
mod intake;
mod jobs;
mod keys;
mod live;
mod log;
mod marks;
mod mending;
mod prepare;
mod queue;
mod quota;
mod signing;
mod snapshot;
mod state;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
mod tree;
mod writer;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use protocol::{
    change::{ChangeSet, Position, SignedHeader, VerifiedChangeSet},
    hash::Hash,
    history::Proof,
    id::{NodeId, PartitionId},
    session::fetch::ShownHead,
};
use tokio::sync::{broadcast, watch};

pub use self::{
    copy::{
        check::{Check, Judged, JudgedLeaf, Whole},
        fill::{Filling, NewStore},
        piece::{CopiedHead, PIECE_BYTES_MAX, Piece},
        take::Copying,
    },
    engine::Options,
    error::StoreError,
    feed::{Feed, FeedStep},
    intake::{
        ReadyLeaf,
        compare::Comparison,
        heal::{Healed, Healing},
        staging::Staging,
    },
    jobs::{Compacted, Compaction, Done, Mend},
    live::{Inspected, LivePages, Problem},
    marks::{Consumer, Mark, MarkMove},
    queue::Pending,
    quota::Origins,
    snapshot::{KeepOpen, Snapshot},
    state::{Ack, Counters, Head, OwnChanges, now_ms},
    tree::{Entries, LeafSpan},
};
use self::{engine::Disk, jobs::Job, prepare::Prepared, queue::Queue, state::Shared};

/// Jobs that may wait for the writer. Each holds at most one change set, so
/// this bounds the memory of a burst.
const JOBS_WAITING_MAX: usize = 32;

/// An open store. Cheap to clone; the last clone closes it.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
    queue: Queue,
}

/// The room of an origin's data, in bytes as they are counted ([`quota`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// What it has.
    pub used: u64,
    /// What nobody else can take from it.
    pub share: Option<u64>,
    /// What it may have at most.
    pub quota: Option<u64>,
}

/// A large first load under way; see [`Store::begin_load`].
pub struct Load {
    shared: Arc<Shared>,
    partition: PartitionId,
}

impl Drop for Load {
    fn drop(&mut self) {
        state::lock(&self.shared.loading).remove(&self.partition);
        self.shared.moved.tell(self.partition.clone());
    }
}

impl Store {
    /// Opens the store at `path`, or makes one.
    ///
    /// # Errors
    /// If the files are damaged. Partitions that are older than what was last acknowledged
    /// are [`Store::lost`].
    pub fn open(path: &Path, options: &Options) -> Result<Self, StoreError> {
        let disk = Disk::open(path, options)?;
        let partitions = state::load_partitions(&disk)?;
        let (owner, lost) = heads::check(path, &partitions)?.unzip();
        let is_rebuilding = heads::is_rebuilding(path, partitions.is_empty());
        let has_lost = lost.as_ref().is_some_and(|lost| !lost.is_empty());
        if partitions.is_empty() && has_lost && !is_rebuilding {
            // Before anything that belongs to what was there is taken for superfluous.
            return Err(StoreError::Damaged {
                place: "the database".into(),
                problem: "it is empty, and HEADS names what was in it".into(),
            });
        }
        tree::saved::forget_saved(&disk)?;
        let marks = marks::load(&disk)?;
        let shared = Arc::new(Shared::new(disk, partitions, path.to_owned()));
        *state::lock(&shared.owner) = owner.flatten();
        *state::lock(&shared.marks) = marks;
        let (jobs, queue) = tokio::sync::mpsc::channel(JOBS_WAITING_MAX);
        match lost {
            Some(lost) => *state::lock(&shared.lost) = lost,
            None => shared.touch_sidecar(|state| state.dirty = true),
        }
        let writer = writer::spawn(shared.clone(), queue, jobs.downgrade())?;
        let threads = vec![writer, heads::spawn(shared.clone())?];
        Ok(Self { shared, queue: Queue::new(jobs, threads) })
    }

    /// Says whose store this is; noted the first time, also in the sidecar. Blocks.
    ///
    /// # Errors
    /// [`StoreError::OtherNode`] if it, or its sidecar, is another node's.
    pub fn claim(&self, node: &NodeId) -> Result<(), StoreError> {
        let shared = &self.shared;
        let noted = shared.disk.get(keys::OWNER)?;
        let noted = noted.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let is_noted = noted.is_some();
        let sidecar = state::lock(&shared.owner).clone();
        let is_sidecars = sidecar.is_some();
        let places = [(shared.path.clone(), noted), (shared.path.join(heads::FILE), sidecar)];
        for (place, found) in places {
            if let Some(found) = found.filter(|found| found != node.as_str()) {
                let (place, own) = (place.display().to_string(), node.clone());
                return Err(StoreError::OtherNode { place, found, own });
            }
        }
        if !is_noted {
            let node = node.clone();
            self.queue.submit_blocking(|reply| Job::Claim { node, reply })?.wait()?;
        }
        if !is_sidecars {
            *state::lock(&shared.owner) = Some(node.as_str().to_owned());
            shared.touch_sidecar(|state| state.dirty = true);
        }
        Ok(())
    }

    /// Moves the snapshots of the database's page table away from it: they save time when
    /// it opens, and one that is damaged keeps it from opening. Answers whether there were
    /// any. The store must not be open.
    ///
    /// # Errors
    /// If a file cannot be moved.
    pub fn set_snapshots_aside(path: &Path) -> Result<bool, StoreError> {
        engine::opening::set_snapshots_aside(path)
    }

    /// Moves the store at `path`, which must not be open, to `aside`, and leaves a new one
    /// without anything but the sidecar, which says what is lost. What an interruption
    /// leaves, [`Store::finish_setting_aside`] brings to its end.
    ///
    /// # Errors
    /// If a directory cannot be moved or made.
    pub fn set_aside(path: &Path, aside: &Path) -> Result<(), StoreError> {
        heads::set_aside(path, aside)
    }

    /// Whether anything of a store is at `path`.
    pub fn is_at(path: &Path) -> bool {
        heads::is_there(path) || engine::base::is_there(path)
    }

    /// Whether the store at `path` has a sidecar that is whole.
    pub fn has_sidecar(path: &Path) -> bool {
        heads::read(path).is_ok_and(|text| text.is_some())
    }

    /// Goes on with what an interrupted [`Store::set_aside`] has left, if anything.
    ///
    /// # Errors
    /// If a directory cannot be moved.
    pub fn finish_setting_aside(path: &Path) -> Result<(), StoreError> {
        heads::finish_setting_aside(path)
    }

    /// The directory.
    pub fn path(&self) -> &PathBuf {
        &self.shared.path
    }

    /// The head of a partition, if it has one.
    pub fn head(&self, partition: &PartitionId) -> Option<Arc<Head>> {
        self.shared.partition(partition)?.head()
    }

    /// The number of a partition's head; 0 without one.
    pub fn seq(&self, partition: &PartitionId) -> u64 {
        self.head(partition).map_or(0, |head| head.seq())
    }

    /// All partitions that have a head, in order.
    pub fn heads(&self) -> BTreeMap<PartitionId, Arc<Head>> {
        let partitions = self.shared.partitions();
        partitions.iter().filter_map(|(id, state)| Some((id.clone(), state.head()?))).collect()
    }

    /// Hears of each durable commit.
    pub fn subscribe(&self) -> broadcast::Receiver<PartitionId> {
        self.shared.moved.of_all()
    }

    /// Changes with each durable commit to one partition, if that has a head.
    pub fn moves(&self, partition: &PartitionId) -> Option<watch::Receiver<()>> {
        self.head(partition).map(|_| self.shared.moved.of(partition))
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

    /// Says whose data may be here besides this node's own, and how much each may
    /// have. Without it there are no quotas.
    pub fn set_origins(&self, origins: Origins) {
        *state::lock(&self.shared.origins) = Some(Arc::new(origins));
    }

    /// How much room an origin's data counts for here, and how much it may; `None` of
    /// what has no quota.
    pub fn room_of(&self, origin: &NodeId) -> Result<Room, StoreError> {
        let used = state::lock(&self.shared.usage).of(origin);
        let origins = state::lock(&self.shared.origins).clone();
        let Some(origins) = origins.filter(|origins| origins.own != *origin) else {
            return Ok(Room { used, share: None, quota: None });
        };
        let (capacity, _) = self.shared.disk.capacity(0)?;
        let (share, quota) = (origins.share(capacity), origins.quota(capacity));
        Ok(Room { used, share: Some(share), quota: Some(quota) })
    }

    /// Bytes of the disk, without those that are never written.
    pub fn capacity(&self) -> Result<u64, StoreError> {
        Ok(self.shared.disk.capacity(0)?.0)
    }

    /// Bytes beside the database that would leave it the room that it needs.
    pub fn room_left(&self) -> Result<u64, StoreError> {
        Ok(self.shared.disk.capacity(0)?.1)
    }

    /// Why a partition is quarantined, if it is.
    pub fn quarantine_reason(&self, partition: &PartitionId) -> Option<String> {
        self.shared.partition(partition)?.quarantine()
    }

    /// Partitions of which less is here than was acknowledged once, and the number that
    /// was: nothing of this node's own is written to them until that is here again.
    pub fn lost(&self) -> BTreeMap<PartitionId, u64> {
        let lost = state::lock(&self.shared.lost);
        lost.iter().map(|(partition, lost)| (partition.clone(), lost.seq)).collect()
    }

    /// The head that a partition has lost, if it has lost one and its hash is known.
    pub fn lost_head(&self, partition: &PartitionId) -> Option<Position> {
        let lost = state::lock(&self.shared.lost);
        lost.get(partition).and_then(|lost| lost.position(self.shared.disk.suite))
    }

    /// What of a partition's pages was found to be damaged and is not well again yet.
    pub fn known_damage(&self, partition: &PartitionId) -> Option<String> {
        self.shared.partition(partition)?.damage()
    }

    /// A partition's pages were all read and are well.
    pub fn is_well_again(&self, partition: &PartitionId) {
        if let Some(state) = self.shared.partition(partition) {
            state.set_damage(None);
        }
    }

    /// Answers when a partition was found to be damaged since it was asked last.
    pub async fn found_damage(&self) {
        self.shared.damaged.notified().await;
    }

    /// Answers when the database has become so long that it should be looked at for waste
    /// ([`Store::compact_some`]).
    pub async fn found_waste(&self) {
        self.shared.wasteful.notified().await;
    }

    /// Does the next piece of a compaction, or begins one: weighs the database, and if most
    /// of it is waste, copies what counts into a new one, which then takes its place. Reads
    /// and writes go on; each piece keeps the writer for some milliseconds.
    ///
    /// # Errors
    /// If the store has failed, now or before.
    pub async fn compact_some(&self) -> Result<Compacted, StoreError> {
        self.queue.submit(|reply| Job::Compact { reply }).await?.answer().await
    }

    /// Gives up a compaction that is under way; the database stays as it is.
    pub async fn give_up_compaction(&self) -> Result<(), StoreError> {
        self.queue.submit(|reply| Job::GiveUpCompaction { reply }).await?.answer().await
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
    /// moment, and durable when this answers; or several, if they touch more of the
    /// tree than one may. What needs nothing of the store is done on the caller's
    /// thread: many changes are [`Store::commit_own_later`]'s business.
    ///
    /// # Errors
    /// [`StoreError::Changes`] and [`StoreError::Excess`] if no peer would take them,
    /// `Quarantined`, `NoSigner`, `OwnWritesStopped`, `AwaitsOwnHistory` and `AwaitsEarlierKey` if nothing
    /// may be written to the partition, `Federation` if the newest `_federation` is not here,
    /// `DiskFull` if there is no room. Of several change sets, the first ones may be there then.
    pub async fn commit_own(&self, changes: OwnChanges) -> Result<Arc<Head>, StoreError> {
        let prepared = Box::new(Prepared::new(self.shared.disk.suite, changes)?);
        self.queue.submit(|reply| Job::Own { prepared, reply }).await?.answer().await
    }

    /// As [`Store::commit_own`], from a thread that may block; several may be
    /// pending at once and are committed in order.
    pub fn commit_own_later(&self, changes: OwnChanges) -> Result<Pending<Arc<Head>>, StoreError> {
        self.ask_before_write(&changes.partition)?;
        let prepared = Box::new(Prepared::new(self.shared.disk.suite, changes)?);
        self.queue.submit_blocking(|reply| Job::Own { prepared, reply })
    }

    /// From now on asks this before own change sets that come from threads which may
    /// block: it may, too, is told how to ask for the number of a head, and answers the number
    /// up to which another node holds the partition, if that is more than what is here.
    pub fn ask_before_writing(
        &self,
        ask: impl Fn(&PartitionId, &dyn Fn(&PartitionId) -> u64) -> Option<u64> + Send + Sync + 'static,
    ) {
        *state::lock(&self.shared.ask_before_writing) = Some(Arc::new(ask));
    }

    fn ask_before_write(&self, partition: &PartitionId) -> Result<(), StoreError> {
        if let Some(reason) = state::lock(&self.shared.held).get(partition).cloned() {
            return Err(StoreError::OwnWritesStopped { reason });
        }
        let ask = state::lock(&self.shared.ask_before_writing).clone();
        let awaited = ask.and_then(|ask| ask(partition, &|it| self.seq(it)));
        let have = self.seq(partition);
        // Whoever has proven that may have gone, and it is here by now.
        let Some(awaited) = awaited.filter(|awaited| *awaited > have) else {
            return Ok(());
        };
        Err(StoreError::AwaitsOwnHistory { partition: partition.clone(), have, awaited })
    }

    /// Commits a change set of another origin: it must follow the head, and its
    /// root must be what this replica computes. One that the log already holds
    /// is answered like a fresh one.
    ///
    /// # Errors
    /// [`StoreError::Gap`] and [`StoreError::Fork`] if it does not follow,
    /// [`StoreError::RootMismatch`] and [`StoreError::Excess`] if no node takes it,
    /// `Quarantined`, `KeySuspended` and `Federation` if it cannot be judged or taken
    /// now, `OverQuota`, `OverShare` and `DiskFull` if there is no room. Then nothing of
    /// it is here.
    pub async fn commit_replica(&self, set: VerifiedChangeSet) -> Result<Arc<Head>, StoreError> {
        let job = |reply| Job::Replica { set: Box::new(set), done: None, reply };
        self.queue.submit(job).await?.answer().await
    }

    /// As [`Store::commit_replica`]. The writer calls `done` when it has nothing more to do
    /// with the change set, also if nobody waits for the answer any more.
    pub async fn commit_replica_of_peer(
        &self,
        set: VerifiedChangeSet,
        done: Done,
    ) -> Result<Arc<Head>, StoreError> {
        let job = |reply| Job::Replica { set: Box::new(set), done: Some(done), reply };
        self.queue.submit(job).await?.answer().await
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
        self.queue.send(Job::Ack { number, node, ack }).await
    }

    /// Stops taking change sets of a partition until a person decides, or there is one
    /// history again. The evidence is what shows that there are two.
    pub async fn quarantine(
        &self,
        partition: &PartitionId,
        reason: String,
        evidence: Vec<SignedHeader>,
    ) -> Result<(), StoreError> {
        let partition = partition.clone();
        let job = |reply| Job::Quarantine { partition, reason, evidence, reply };
        self.queue.submit(job).await?.answer().await
    }

    /// Takes change sets of a partition again.
    pub async fn release(&self, partition: &PartitionId) -> Result<(), StoreError> {
        let partition = partition.clone();
        self.queue.submit(|reply| Job::Release { partition, reply }).await?.answer().await
    }

    /// The signed headers that show why a partition is quarantined: the one that is here,
    /// and the other one.
    pub fn evidence(&self, partition: &PartitionId) -> Result<Vec<SignedHeader>, StoreError> {
        let Some(state) = self.shared.partition(partition) else {
            return Ok(Vec::new());
        };
        let Some(bytes) = self.shared.disk.get(&keys::evidence(state.number))? else {
            return Ok(Vec::new());
        };
        let damaged = |problem: String| StoreError::Damaged {
            place: format!("{partition} (evidence)"),
            problem,
        };
        let headers: Vec<Vec<u8>> =
            protocol::codec::decode(&bytes).map_err(|error| damaged(error.to_string()))?;
        let headers = headers.iter().map(|header| SignedHeader::decode(header));
        headers.collect::<Result<_, _>>().map_err(|error| damaged(error.to_string()))
    }

    /// Drops what this node has written itself, in favour of the history of a header that
    /// it has signed as well: nothing is written to the partition until that is back, also
    /// after a crash. Only what is `expected` to be here is dropped. From a thread that may
    /// block.
    pub fn give_up_blocking(
        &self,
        instead: SignedHeader,
        expected: Option<Position>,
    ) -> Result<(), StoreError> {
        let instead = Box::new(instead);
        self.queue.submit_blocking(|reply| Job::GiveUp { instead, expected, reply })?.wait()
    }

    /// As [`Store::give_up_blocking`].
    pub async fn give_up(
        &self,
        instead: SignedHeader,
        expected: Option<Position>,
    ) -> Result<(), StoreError> {
        let instead = Box::new(instead);
        let job = |reply| Job::GiveUp { instead, expected, reply };
        self.queue.submit(job).await?.answer().await
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
        self.queue.submit(|reply| Job::Forget { partition, reply }).await?.answer().await
    }

    /// As [`Store::forget`], from a thread that may block.
    pub fn forget_blocking(&self, partition: &PartitionId) -> Result<(), StoreError> {
        let partition = partition.clone();
        self.queue.submit_blocking(|reply| Job::Forget { partition, reply })?.wait()
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

    /// Refuses writes to these own partitions until their heads have reached the
    /// numbers that earlier keys of this node are said to have signed, or until it is
    /// called with others. Kept in memory only.
    pub fn await_earlier_keys(&self, last: BTreeMap<PartitionId, u64>) {
        *state::lock(&self.shared.awaited_earlier) = last;
    }

    /// What [`Store::await_earlier_keys`] was called with last.
    pub fn awaited_earlier_keys(&self) -> BTreeMap<PartitionId, u64> {
        state::lock(&self.shared.awaited_earlier).clone()
    }

    /// The signed header with this number, if the log holds it.
    pub fn header_at(
        &self,
        partition: &PartitionId,
        seq: u64,
    ) -> Result<Option<SignedHeader>, StoreError> {
        match self.shared.partition(partition) {
            Some(state) => {
                let header = log::header(&self.shared.disk, state.number, seq);
                self.shared.heed_log(partition, &state, seq, header)
            }
            None => Ok(None),
        }
    }

    /// The first number from `seq` on of which the log holds the header.
    pub fn header_number_from(
        &self,
        partition: &PartitionId,
        seq: u64,
    ) -> Result<Option<u64>, StoreError> {
        match self.shared.partition(partition) {
            Some(state) => log::header_number_from(&self.shared.disk, state.number, seq),
            None => Ok(None),
        }
    }

    /// The hash of the header with this number, which is kept longer than the header.
    pub fn header_hash_at(
        &self,
        partition: &PartitionId,
        seq: u64,
    ) -> Result<Option<Hash>, StoreError> {
        match self.shared.partition(partition) {
            Some(state) => {
                let hash = log::header_hash(&self.shared.disk, state.number, seq);
                self.shared.heed_log(partition, &state, seq, hash)
            }
            None => Ok(None),
        }
    }

    /// Proves the history of `head`, a head of the partition now or earlier, and
    /// that the header with number `earlier` is in it. `None` if that is not known
    /// here, because the headers between were jumped over.
    pub fn history_proof(
        &self,
        partition: &PartitionId,
        head: &Head,
        earlier: Option<u64>,
    ) -> Result<Option<Proof>, StoreError> {
        let peaks = head.before.hashes().to_vec();
        let (Some(earlier), Some(state)) = (earlier, self.shared.partition(partition)) else {
            return Ok(Some(Proof { peaks, path: Vec::new() }));
        };
        let path =
            log::history_path(&self.shared.disk, state.number, earlier, head.before.count())?;
        Ok(path.map(|path| Proof { peaks, path }))
    }

    /// How many bytes the body of the change set with this number has at most, as it
    /// travels: up to 60 KiB above what it has. `None` if the log does not hold it.
    pub fn body_bytes_max(
        &self,
        partition: &PartitionId,
        seq: u64,
    ) -> Result<Option<usize>, StoreError> {
        match self.shared.partition(partition) {
            Some(state) => log::body_bytes_max(&self.shared.disk, state.number, seq),
            None => Ok(None),
        }
    }

    /// Consecutive change sets from number `from` on, at most `count_max` with at
    /// most `bytes_max` of bodies, but at least one, however long. `None` if the log
    /// does not hold the first one's body. They end before one that is damaged.
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
        let Some(head) = state.head() else {
            return Ok(None);
        };
        let (disk, held) = (&self.shared.disk, (&head.signed, &head.before));
        let mut sets = Vec::new();
        let mut bytes = 0;
        for seq in from..=head.seq() {
            if sets.len() >= count_max {
                break;
            }
            // The next one is not read where it may be too long.
            let next = match sets.is_empty() {
                true => None,
                false => log::body_bytes_max(disk, state.number, seq)?,
            };
            if next.is_some_and(|next| bytes + next > bytes_max) {
                break;
            }
            let set = log::change_set(disk, state.number, held, seq);
            let set = match self.shared.heed_log(partition, &state, seq, set) {
                // Those before it are well.
                Err(StoreError::Damaged { .. }) if !sets.is_empty() => break,
                set => set?,
            };
            let Some(set) = set else {
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

    /// The pages of a partition as they are now, whatever is committed later, to be
    /// shown to a peer: together they do not take what this node needs itself.
    pub async fn snapshot_for_peer(
        &self,
        partition: &PartitionId,
    ) -> Result<Option<Snapshot>, StoreError> {
        let partition = partition.clone();
        let job = |reply| Job::OpenSnapshot { partition, for_peer: true, reply };
        let opened = self.queue.submit(job).await?.answer().await?;
        Ok(opened.map(|opened| Snapshot::new(self.shared.clone(), opened)))
    }

    /// The pages of a partition as they are now, whatever is committed later. From a
    /// thread that may block.
    pub fn snapshot_blocking(
        &self,
        partition: &PartitionId,
    ) -> Result<Option<Snapshot>, StoreError> {
        let partition = partition.clone();
        let job = |reply| Job::OpenSnapshot { partition, for_peer: false, reply };
        let opened = self.queue.submit_blocking(job)?.wait()?;
        Ok(opened.map(|opened| Snapshot::new(self.shared.clone(), opened)))
    }

    /// All partitions that there is something of: those that have a head, or are
    /// quarantined.
    pub fn copied_partitions(&self) -> Vec<PartitionId> {
        let partitions = self.shared.partitions().into_iter();
        let has =
            |state: &state::PartitionState| state.head().is_some() || state.quarantine().is_some();
        partitions.filter(|(_, state)| has(state)).map(|(id, _)| id).collect()
    }

    /// Begins to read all of a partition as it is now, to copy it. From a thread that
    /// may block. None if there is nothing of it.
    pub fn begin_copy(&self, partition: &PartitionId) -> Result<Option<Copying>, StoreError> {
        let Some(state) = self.shared.partition(partition) else {
            return Ok(None);
        };
        let snapshot = self.snapshot_blocking(partition)?;
        Ok(Some(Copying::new(self.shared.clone(), partition.clone(), state, snapshot)))
    }

    /// Begins, or takes up again, the staging of the tree that a peer shows.
    pub async fn begin_staging(&self, shown: ShownHead) -> Result<Staging, StoreError> {
        let header = shown.signed.header();
        let (partition, records) = (header.partition.clone(), header.records);
        let job = |reply| Job::BeginStaging { partition, records, reply };
        let stage = self.queue.submit(job).await?.answer().await?;
        let clear = |reply| Job::ClearStaged { stage: stage.clone(), reply };
        while self.queue.submit(clear).await?.answer().await? {}
        Ok(Staging::new(self.shared.clone(), self.queue.clone(), shown, stage))
    }

    /// Begins to compare this replica with the tree that a peer shows.
    pub fn begin_comparison(&self, shown: ShownHead) -> Result<Comparison, StoreError> {
        Comparison::new(self.shared.clone(), self.queue.clone(), shown)
    }

    /// Begins to replace what is damaged of a partition's pages under `head`,
    /// which is its head.
    pub fn begin_healing(
        &self,
        partition: &PartitionId,
        head: Arc<Head>,
    ) -> Result<Healing, StoreError> {
        Healing::new(self.shared.clone(), self.queue.clone(), partition.clone(), head)
    }
}
