//! The writer thread: the only code that writes records.
//!
//! It takes jobs in order. Each change set becomes one batch: pages, log entry
//! and head together, and before them whatever an open snapshot still needs.
//! Jobs that are waiting anyway share one flush; every answer is sent behind it.
//! When nothing waits it does chores: deleting old generations and what closed
//! snapshots had saved, and a checkpoint before the journal is full.
//!
//! - [`forget`]: a replica is dropped, to be fetched anew;
//! - [`repair`]: what differs from a peer's state, or is damaged, replaced in
//!   place;
//! - [`signing`]: another signing key takes the place of the current one, or
//!   none counts for a while;
//! - [`staging`]: the state of a partition taken from a peer's tree;
//! - [`page_batch`]: what all of these write of pages;
//! - [`tidying`]: snapshots, chores and checkpoints.

mod forget;
mod page_batch;
mod repair;
mod signing;
mod staging;
mod tidying;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, atomic::Ordering},
};

use protocol::{
    change::{
        BODY_BYTES_MAX, CHANGES_MAX, Change, Header, Position, SignedHeader, VerifiedChangeSet,
    },
    hash::Hash,
    id::{NodeId, PartitionId},
    page::MadePage,
    record::{KEY_BYTES_MAX, RECORD_BYTES_MAX},
    sign::SigningKey,
    tree::{self, Summary, Update},
};
use tokio::sync::{
    mpsc::{Receiver, WeakSender, error::TryRecvError},
    oneshot,
};

use self::page_batch::PageBatch;
pub(super) use self::repair::{Differences, HealedPage, HealedPages};
use super::{
    StoreError,
    ahead::{MadeAhead, Prepared},
    keys,
    packs::PackId,
    pages::{GenerationPages, Snapshot},
    staging::{Stage, StagedLeaves},
    state::{Ack, Head, OwnChanges, PartitionState, Shared, lock, now_ms},
    values::Batch,
};

/// Jobs that share one flush. More would make the first wait for the last.
const JOBS_PER_FLUSH_MAX: usize = 8;
/// Batches of staged leaves that share one flush: what a crash makes a replica
/// fetch again, some 10 MB.
const STAGED_PER_FLUSH: u32 = 4;
/// Flushes after which a chore is due although jobs are waiting.
const FLUSHES_PER_CHORE: u32 = 16;

type Reply<T> = oneshot::Sender<Result<T, StoreError>>;
/// Makes changes of `_federation` from the numbers of own partitions' heads.
pub(super) type Build =
    Box<dyn FnOnce(BTreeMap<PartitionId, u64>) -> Result<OwnChanges, StoreError> + Send>;

/// What the writer is asked to do.
pub(super) enum Job {
    /// The next change set of an own partition.
    Own { prepared: Box<Prepared>, reply: Reply<Arc<Head>> },
    /// The next change set of another origin's partition.
    Replica { set: Box<VerifiedChangeSet>, reply: Reply<Arc<Head>> },
    /// What a peer holds.
    Ack { number: u32, node: NodeId, ack: Ack },
    /// Take no more change sets of a partition.
    Quarantine { partition: PartitionId, reason: String, reply: Reply<()> },
    /// Keep a partition readable as it is now.
    OpenSnapshot { partition: PartitionId, reply: Reply<Option<Snapshot>> },
    /// Begin or continue a generation next to the current one, for so many records.
    BeginStaging { partition: PartitionId, records: u64, reply: Reply<Stage> },
    /// Write leaves of a staged generation; durable a few batches later.
    StageLeaves { stage: Stage, leaves: StagedLeaves, reply: Reply<()> },
    /// Make the staged generation the current one.
    FinishStaging {
        stage: Stage,
        header: Box<SignedHeader>,
        summary: Summary,
        inner: Vec<MadePage>,
        reply: Reply<Arc<Head>>,
    },
    /// Apply what differs from a peer's state, in place.
    Differ { differences: Box<Differences>, reply: Reply<Arc<Head>> },
    /// Replace damaged pages of the current state.
    Heal { healed: HealedPages, reply: Reply<()> },
    /// Sign with another key, and sign anew what the one before may not sign.
    AdoptSigner {
        next: Arc<SigningKey>,
        origin: NodeId,
        last: BTreeMap<PartitionId, u64>,
        reply: Reply<u64>,
    },
    /// Commit to `_federation` that another key signs, and sign with it.
    RotateSigner { next: Arc<SigningKey>, origin: NodeId, build: Build, reply: Reply<Arc<Head>> },
    /// Take no more, or again, of what a key signed.
    SuspendKey { key_id: Hash, suspended: bool, reply: Reply<()> },
    /// Drop a replica.
    Forget { partition: PartitionId, reply: Reply<()> },
    /// Look for chores. Whoever asks for an answer gets it when all are done.
    Tidy { reply: Option<Reply<()>> },
}

/// Starts the writer; it ends when all senders of jobs are gone.
pub(super) fn spawn(
    shared: Arc<Shared>,
    jobs: Receiver<Job>,
    sender: WeakSender<Job>,
) -> Result<std::thread::JoinHandle<()>, StoreError> {
    let path = shared.path.clone();
    std::thread::Builder::new()
        .name("store-writer".into())
        .spawn(move || {
            let _closing = CloseSidecar(shared.clone());
            Writer::new(shared, sender).run(jobs);
        })
        .map_err(|error| StoreError::File { path, problem: error.to_string() })
}

/// Ends the sidecar's thread when the writer ends, be it by a panic.
struct CloseSidecar(Arc<Shared>);

impl Drop for CloseSidecar {
    fn drop(&mut self) {
        self.0.touch_sidecar(|state| state.closing = true);
    }
}

struct Writer {
    shared: Arc<Shared>,
    /// For snapshots, which tell the writer that they were dropped.
    sender: WeakSender<Job>,
    /// Heads that are applied but not yet flushed and published.
    unpublished: HashMap<PartitionId, Arc<Head>>,
    /// Answers that wait for the flush.
    waiting: Vec<Box<dyn FnOnce(Option<StoreError>) + Send>>,
    next_number: u32,
    next_snapshot: u64,
    /// The ticket of each partition's newest staging.
    stagings: HashMap<u32, u64>,
    next_ticket: u64,
    /// Batches of staged leaves since the last flush.
    staged: u32,
    /// Keys of which nothing more is taken.
    suspended: HashSet<Hash>,
    /// Prefixes whose values are to be deleted.
    chores: Vec<Vec<u8>>,
}

impl Writer {
    fn new(shared: Arc<Shared>, sender: WeakSender<Job>) -> Self {
        let partitions = shared.partitions();
        let next_number = partitions.values().map(|state| state.number + 1).max().unwrap_or(0);
        let mut writer = Self {
            shared,
            sender,
            unpublished: HashMap::new(),
            waiting: Vec::new(),
            next_number,
            next_snapshot: 1,
            stagings: HashMap::new(),
            next_ticket: 1,
            staged: 0,
            suspended: HashSet::new(),
            chores: Vec::new(),
        };
        for state in partitions.values() {
            if let Some(head) = state.head() {
                writer.drop_generations_before(state.number, head.generation);
            }
        }
        writer.drop_unused_numbers();
        writer
    }

    fn run(mut self, mut jobs: Receiver<Job>) {
        let mut flushes = 0u32;
        loop {
            flushes = flushes.wrapping_add(1);
            if flushes.is_multiple_of(FLUSHES_PER_CHORE) {
                self.chore();
            }
            let job = match jobs.try_recv() {
                Ok(job) => job,
                Err(TryRecvError::Disconnected) => break,
                Err(TryRecvError::Empty) => {
                    if self.chore() || self.relieve_journal() {
                        continue;
                    }
                    match jobs.blocking_recv() {
                        Some(job) => job,
                        None => break,
                    }
                }
            };
            self.handle(job);
            let mut shared_flush = 1;
            while shared_flush < JOBS_PER_FLUSH_MAX
                && let Ok(job) = jobs.try_recv()
            {
                self.handle(job);
                shared_flush += 1;
            }
            // Whoever waited was told.
            let _ = self.flush();
        }
        // What a write that failed has left in sled is nobody's state.
        if !self.shared.failed.load(Ordering::Relaxed)
            && let Err(error) = self.shared.disk.checkpoint()
        {
            tracing::error!(%error, "the last flush of the store failed");
        }
    }

    fn handle(&mut self, job: Job) {
        match job {
            Job::Own { prepared, reply } => {
                let result = self.well().and_then(|()| self.commit_own(*prepared));
                self.answer_after_flush(reply, result);
            }
            Job::Replica { set, reply } => {
                let result = self.well().and_then(|()| self.commit_replica(&set));
                self.answer_after_flush(reply, result);
            }
            Job::Ack { number, node, ack } => {
                let mut batch = Batch::default();
                batch.put(keys::ack(number, &node), protocol::codec::encode(&ack));
                if let Err(error) = self.well().and_then(|()| self.apply(batch)) {
                    tracing::warn!(%error, "an acknowledgement could not be noted");
                }
            }
            Job::Quarantine { partition, reason, reply } => {
                let result = self.well().and_then(|()| self.quarantine(&partition, reason));
                self.answer_after_flush(reply, result);
            }
            Job::OpenSnapshot { partition, reply } => {
                // A snapshot shows what is durable and published.
                let result = self.flush().and_then(|()| self.open_snapshot(&partition));
                let _ = reply.send(result);
            }
            Job::BeginStaging { partition, records, reply } => {
                let result = self.well().and_then(|()| self.begin_staging(&partition, records));
                let _ = reply.send(result);
            }
            Job::StageLeaves { stage, leaves, reply } => {
                let result = self.well().and_then(|()| self.stage_leaves(&stage, leaves));
                let _ = reply.send(result);
            }
            Job::FinishStaging { stage, header, summary, inner, reply } => {
                let result =
                    self.well().and_then(|()| self.finish_staging(stage, *header, summary, inner));
                self.answer_after_flush(reply, result);
            }
            Job::Differ { differences, reply } => {
                let result = self.well().and_then(|()| self.apply_differences(&differences));
                self.answer_after_flush(reply, result);
            }
            Job::Heal { healed, reply } => {
                let result = self.well().and_then(|()| self.heal(&healed));
                self.answer_after_flush(reply, result);
            }
            Job::AdoptSigner { next, origin, last, reply } => {
                let result = self.well().and_then(|()| self.adopt_signer(next, &origin, &last));
                let _ = reply.send(result);
            }
            Job::RotateSigner { next, origin, build, reply } => {
                let result = self.well().and_then(|()| self.rotate_signer(next, &origin, build));
                let _ = reply.send(result);
            }
            Job::SuspendKey { key_id, suspended, reply } => {
                let result = self.well().and_then(|()| self.suspend_key(key_id, suspended));
                let _ = reply.send(result);
            }
            Job::Forget { partition, reply } => {
                let result = self.well().and_then(|()| self.forget(&partition));
                let _ = reply.send(result);
            }
            Job::Tidy { reply: None } => {}
            Job::Tidy { reply: Some(reply) } => {
                // Chores take away what unpublished heads have left.
                let _ = self.flush();
                while self.chore() || self.relieve_journal() {}
                let _ = reply.send(Ok(()));
            }
        }
    }

    /// Refuses everything once sled has reported an error: what it still shows
    /// may not be what is durable, so nothing may be built upon it.
    fn well(&self) -> Result<(), StoreError> {
        if self.shared.failed.load(Ordering::Relaxed) {
            return Err(StoreError::Database(
                "an earlier write failed; restart the node once the disk is well".into(),
            ));
        }
        Ok(())
    }

    /// Applies a batch. An error leaves open what of it took place.
    fn apply(&mut self, batch: Batch) -> Result<(), StoreError> {
        self.shared.disk.apply(batch).inspect_err(|error| self.fail(error))
    }

    fn fail(&self, error: &StoreError) {
        // sled does not recover from a failed write; reads go on.
        tracing::error!(%error, "the store could not write; restart the node once the disk is well");
        self.shared.failed.store(true, Ordering::Relaxed);
    }

    /// Sends an error at once and a success behind the flush.
    fn answer_after_flush<T: Send + 'static>(
        &mut self,
        reply: Reply<T>,
        result: Result<T, StoreError>,
    ) {
        match result {
            Err(error) => {
                let _ = reply.send(Err(error));
            }
            Ok(value) => self.waiting.push(Box::new(move |failed| {
                let _ = reply.send(failed.map_or(Ok(value), Err));
            })),
        }
    }

    /// Makes durable what was applied, publishes the heads, answers. An error is
    /// what all who waited were told.
    fn flush(&mut self) -> Result<(), StoreError> {
        let staged_enough = self.staged >= STAGED_PER_FLUSH;
        if self.waiting.is_empty() && self.unpublished.is_empty() && !staged_enough {
            return self.well();
        }
        self.staged = 0;
        let durable = self
            .well()
            .and_then(|()| self.shared.disk.make_durable().inspect_err(|error| self.fail(error)));
        match &durable {
            Ok(()) => {
                for (partition, head) in self.unpublished.drain() {
                    if let Some(state) = self.shared.partition(&partition) {
                        state.publish(head);
                    }
                    // Nobody may be listening.
                    let _ = self.shared.events.send(partition);
                }
                self.shared.touch_sidecar(|state| state.dirty = true);
            }
            Err(_) => self.unpublished.clear(),
        }
        for answer in self.waiting.drain(..) {
            answer(durable.clone().err());
        }
        durable
    }

    /// The head that the next job builds upon.
    fn head(&self, partition: &PartitionId) -> Option<Arc<Head>> {
        self.unpublished
            .get(partition)
            .cloned()
            .or_else(|| self.shared.partition(partition).and_then(|state| state.head()))
    }

    /// The partition's state, or the one that it would get.
    fn partition(&self, partition: &PartitionId) -> Arc<PartitionState> {
        let known = self.shared.partition(partition);
        known.unwrap_or_else(|| Arc::new(PartitionState::new(self.next_number)))
    }

    /// Applies a batch of one partition. A new partition gets its number with
    /// it: what is refused before never uses one.
    fn apply_to(
        &mut self,
        partition: &PartitionId,
        state: &Arc<PartitionState>,
        mut batch: Batch,
    ) -> Result<(), StoreError> {
        let is_new = self.shared.partition(partition).is_none();
        if is_new {
            batch.put(keys::number(partition), state.number.to_be_bytes().to_vec());
        }
        self.apply(batch)?;
        if is_new {
            self.next_number = state.number + 1;
            self.shared.add_partition(partition.clone(), state.clone());
        }
        Ok(())
    }

    /// The newest head of `_federation` that this node holds.
    fn federation_head(&self, partition: &PartitionId) -> Option<(PartitionId, Arc<Head>)> {
        let found = self.shared.federation_partitions(&partition.federation);
        found.into_iter().find_map(|id| self.head(&id).map(|head| (id, head)))
    }

    fn commit_own(&mut self, prepared: Prepared) -> Result<Arc<Head>, StoreError> {
        let own = prepared.own;
        self.refuse_stopped(&own.partition)?;
        let key = lock(&self.shared.signer).clone();
        let key = key.ok_or_else(|| StoreError::NoSigner(own.partition.clone()))?;
        self.shared.disk.check_room(prepared.body_bytes)?;
        self.refuse_quarantined(&own.partition)?;
        self.refuse_awaiting(&own.partition)?;
        let before = self.head(&own.partition);
        let federation_head = self.federation_head_for(&own.partition, before.as_deref())?;
        let state = self.partition(&own.partition);
        let update = self.update_tree(&state, before.as_deref(), &own.changes, prepared.leaves)?;
        let header = Header {
            partition: own.partition,
            seq: before.as_ref().map_or(1, |head| head.seq() + 1),
            previous: before.as_ref().map_or(Hash::ZERO, |head| head.signed.hash()),
            federation_head,
            origin_time_ms: now_ms(),
            schema_version: own.schema_version,
            change_count: own.changes.len() as u32,
            changes_hash: prepared.changes_hash,
            root: update.summary.root,
            records: update.summary.records,
            key_id: key.public().id(),
        };
        let signed = SignedHeader::sign(header, &key);
        self.commit(&state, before.as_deref(), signed, prepared.kept_body.as_deref(), update)
    }

    /// The `_federation` head that an own change set names. Without one, or with
    /// an older one than its predecessor's, no replica would take it.
    fn federation_head_for(
        &self,
        partition: &PartitionId,
        before: Option<&Head>,
    ) -> Result<Option<Position>, StoreError> {
        if partition.dataset.is_system() {
            return Ok(None);
        }
        let named = self.federation_head(partition).map(|(_, head)| head.position());
        let earlier = before.and_then(|head| head.signed.header().federation_head);
        let (have, needed) =
            (named.map_or(0, |named| named.seq), earlier.map_or(1, |earlier| earlier.seq));
        if have < needed {
            return Err(StoreError::Federation { partition: partition.clone(), needed, have });
        }
        Ok(named)
    }

    fn commit_replica(&mut self, set: &VerifiedChangeSet) -> Result<Arc<Head>, StoreError> {
        let header = set.header().header();
        let partition = &header.partition;
        self.shared.disk.check_room(set.body().len())?;
        self.refuse_quarantined(partition)?;
        let before = self.head(partition);
        let ours = before.as_ref().map(|head| head.position());
        if let (Some(ours), Some(head)) = (ours, &before)
            && header.seq <= ours.seq
        {
            // Already here: a lost acknowledgement is repeated, a different
            // history is not.
            let number = self.shared.partition(partition).map_or(0, |state| state.number);
            return match self.shared.disk.log_header(number, header.seq)? {
                Some(known) if known.hash() != set.header().hash() => {
                    Err(StoreError::Fork { partition: Box::new(partition.clone()), ours })
                }
                _ => Ok(head.clone()),
            };
        }
        self.refuse_suspended(header)?;
        let head_seq = ours.map_or(0, |ours| ours.seq);
        if header.seq != head_seq + 1 {
            return Err(StoreError::Gap {
                partition: partition.clone(),
                head: head_seq,
                offered: header.seq,
            });
        }
        if let Some(ours) = ours
            && header.previous != ours.hash
        {
            return Err(StoreError::Fork { partition: Box::new(partition.clone()), ours });
        }
        self.check_federation_head(partition, header.federation_head, before.as_deref())?;
        let state = self.partition(partition);
        let update =
            self.update_tree(&state, before.as_deref(), set.changes(), MadeAhead::default())?;
        self.check_root(set.header(), &update.summary)?;
        let body = Some(set.body());
        self.commit(&state, before.as_deref(), set.header().clone(), body, update)
    }

    /// A change set may not refer to a `_federation` that this node has not
    /// seen: its signer might have been revoked there. Nor to an older one than
    /// its predecessor did.
    fn check_federation_head(
        &self,
        partition: &PartitionId,
        named: Option<Position>,
        before: Option<&Head>,
    ) -> Result<(), StoreError> {
        let Some(named) = named else {
            return Ok(());
        };
        let behind = |have: u64| StoreError::Federation {
            partition: partition.clone(),
            needed: named.seq,
            have,
        };
        let (federation, head) = self.federation_head(partition).ok_or_else(|| behind(0))?;
        let earlier = before.and_then(|head| head.signed.header().federation_head);
        if named.seq > head.seq() || earlier.is_some_and(|earlier| earlier.seq > named.seq) {
            return Err(behind(head.seq()));
        }
        let number = self.shared.partition(&federation).map_or(0, |state| state.number);
        match self.shared.disk.log_header(number, named.seq)? {
            Some(known) if known.hash() != named.hash => Err(behind(head.seq())),
            _ => Ok(()),
        }
    }

    fn refuse_awaiting(&self, partition: &PartitionId) -> Result<(), StoreError> {
        let Some(awaited) = lock(&self.shared.awaited).get(partition).copied() else {
            return Ok(());
        };
        let have = self.head(partition).map_or(0, |head| head.seq());
        if have < awaited {
            return Err(StoreError::AwaitsOwnHistory {
                partition: partition.clone(),
                have,
                awaited,
            });
        }
        Ok(())
    }

    fn refuse_quarantined(&self, partition: &PartitionId) -> Result<(), StoreError> {
        match self.shared.partition(partition).and_then(|state| state.quarantine()) {
            Some(reason) => Err(StoreError::Quarantined { partition: partition.clone(), reason }),
            None => Ok(()),
        }
    }

    fn check_root(&self, signed: &SignedHeader, summary: &Summary) -> Result<(), StoreError> {
        let header = signed.header();
        if (header.root, header.records) == (summary.root, summary.records) {
            return Ok(());
        }
        Err(StoreError::RootMismatch {
            partition: Box::new(header.partition.clone()),
            seq: header.seq,
            signed: header.root,
            computed: summary.root,
        })
    }

    fn update_tree(
        &self,
        state: &PartitionState,
        before: Option<&Head>,
        changes: &[Change],
        ahead: MadeAhead,
    ) -> Result<Update, StoreError> {
        let summary = before.map_or_else(Summary::empty, |head| head.summary.clone());
        let generation = before.map_or(0, |head| head.generation);
        let mut pages = GenerationPages::new(&self.shared, state.number, generation);
        pages.ahead = ahead;
        tree::update(&mut pages, &summary, changes)
    }

    /// Writes pages, log and head in one batch.
    fn commit(
        &mut self,
        state: &Arc<PartitionState>,
        before: Option<&Head>,
        signed: SignedHeader,
        body: Option<&[u8]>,
        update: Update,
    ) -> Result<Arc<Head>, StoreError> {
        let number = state.number;
        let generation = before.map_or(0, |head| head.generation);
        let open = self.open_snapshots(number, generation);
        let mut pages = PageBatch::new(self, &open);
        let page = |level: u8, first_key: &[u8]| keys::page(number, generation, level, first_key);
        for (level, first_key) in &update.removed {
            pages.put(page(*level, first_key), None)?;
            if *level == 0 {
                pages.put(page(keys::PATCH, first_key), None)?;
                pages.put_index(page(keys::INDEX, first_key), None)?;
            }
        }
        for made in &update.written {
            let first_key = &made.page.first_key;
            if made.level == 0 {
                pages.put_leaf(page(0, first_key), &made.body)?;
                pages.put(page(keys::PATCH, first_key), None)?;
                pages.put_index(page(keys::INDEX, first_key), Some(&made.index))?;
            } else {
                pages.put(page(made.level, first_key), Some(&made.body))?;
            }
        }
        for leaf in &update.patched {
            pages.put(page(keys::PATCH, &leaf.first_key), leaf.patch.as_deref())?;
        }
        let leaves = update.summary.pages.first().copied().unwrap_or(0);
        let batch = pages.finish(PackId { number, generation }, leaves)?;
        let head = self.finish_commit(batch, state, generation, signed, body, update.summary)?;
        self.shared.pages_written.fetch_add(update.written.len() as u64, Ordering::Relaxed);
        self.shared.leaves_patched.fetch_add(update.patched.len() as u64, Ordering::Relaxed);
        Ok(head)
    }

    /// Adds log entry and head to a batch that holds the pages, and applies it
    /// if there is room.
    fn finish_commit(
        &mut self,
        mut batch: Batch,
        state: &Arc<PartitionState>,
        generation: u32,
        signed: SignedHeader,
        body: Option<&[u8]>,
        summary: Summary,
    ) -> Result<Arc<Head>, StoreError> {
        let (number, seq) = (state.number, signed.header().seq);
        let partition = signed.header().partition.clone();
        batch.put(keys::log_header(number, seq), signed.encode());
        if let Some(body) = body {
            batch.put_chunked(&keys::log_body(number, seq), body, 0);
        }
        let head = Arc::new(Head { signed, summary, generation, updated_ms: now_ms() });
        batch.put(keys::head(number), head.encode());
        self.shared.disk.check_room(batch.bytes())?;
        self.apply_to(&partition, state, batch)?;
        self.shared.commits.fetch_add(1, Ordering::Relaxed);
        self.unpublished.insert(partition, head.clone());
        Ok(head)
    }

    fn quarantine(&mut self, partition: &PartitionId, reason: String) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        let state = self.partition(partition);
        batch.put(keys::quarantine(state.number), reason.clone().into_bytes());
        self.apply_to(partition, &state, batch)?;
        state.set_quarantine(reason);
        Ok(())
    }
}

/// What every replica will ask of a change set.
pub(super) fn check_limits(changes: &[Change], body: &[u8]) -> Result<(), &'static str> {
    if changes.len() > CHANGES_MAX || body.len() > BODY_BYTES_MAX {
        return Err("they are more than one change set holds");
    }
    if !changes.is_sorted_by(|a, b| a.key() < b.key()) {
        return Err("they are not in ascending order of keys");
    }
    let too_long = |change: &Change| match change {
        Change::Put { key, value } => key.len() > KEY_BYTES_MAX || value.len() > RECORD_BYTES_MAX,
        Change::Delete { key } => key.len() > KEY_BYTES_MAX,
    };
    if changes.iter().any(too_long) {
        return Err("a key or a record is too long");
    }
    Ok(())
}
