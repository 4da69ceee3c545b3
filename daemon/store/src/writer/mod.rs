//! The writer thread: the only code that writes records.
//!
//! It takes jobs in order. Each change set becomes one batch: pages, log entry
//! and head together, and before them whatever an open snapshot still needs.
//! Jobs that are waiting anyway share one flush; every answer is sent behind it.
//! When nothing waits it does chores: deleting old generations and what closed
//! snapshots had saved, a checkpoint before the journal is full, and sweeping sled's file.
//!
//! - [`commit`]: change sets, own ones and other origins';
//! - [`signing`]: another signing key takes the place of the current one, or
//!   none counts for a while;
//! - [`repair`]: what differs from a peer's state, or is damaged, replaced in
//!   place;
//! - [`mending`]: what of a log is damaged, replaced or left out;
//! - [`staging`]: the state of a partition taken from a peer's tree;
//! - [`forget`]: a replica is dropped, to be fetched anew;
//! - [`room`], [`pruning`]: how much each origin may have, and how long the log;
//! - [`tidying`]: snapshots, chores and checkpoints;
//! - [`compacting`]: what is waste given back, piece by piece, when it is asked for.
//!
//! What it may be asked for is in `crate::jobs`; who asks and waits, in
//! `crate::queue`.

mod commit;
mod compacting;
mod forget;
mod mending;
mod pruning;
mod repair;
mod room;
mod signing;
mod staging;
mod tidying;

use std::{
    collections::{HashMap, HashSet, btree_map::Entry},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use protocol::{change::SignedHeader, hash::Hash, id::PartitionId};
use tokio::sync::mpsc::{Receiver, WeakSender, error::TryRecvError};

use crate::{
    engine::{Batch, ROUNDS_BUSY, ROUNDS_IDLE},
    error::StoreError,
    jobs::{BATCH_BYTES, Done, Job, LEAVES_PER_BATCH, Reply},
    keys,
    marks::{self, MarkMove},
    state::{Head, PartitionState, Shared, lock, now_ms},
};

/// Jobs that share one flush. More would make the first wait for the last.
const JOBS_PER_FLUSH_MAX: usize = 8;
/// Jobs wait for no flush that is older than this: a job may take most of a second, and
/// those whose work is done wait for it.
const FLUSH_SHARED_MAX: Duration = Duration::from_millis(20);
/// Jobs that took so long with their flush have written much: a row takes a tenth of it.
const MUCH_WRITTEN: Duration = Duration::from_millis(5);
/// Leaves that are staged in one flush, and their bytes: what a crash makes replicas fetch
/// again, some 10 MB.
const STAGED_PER_FLUSH: usize = 4 * LEAVES_PER_BATCH;
const STAGED_BYTES_PER_FLUSH: usize = 4 * BATCH_BYTES;
/// Flushes after which a chore is due although jobs are waiting.
const FLUSHES_PER_CHORE: u32 = 16;
/// Chores that may wait for an idle moment: with more, what is to be deleted grows faster
/// than it goes, so one is done with each flush.
const CHORES_WAITING_MAX: usize = 8;

/// Starts the writer; it ends when all senders of jobs are gone.
pub fn spawn(
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
    /// Peers' jobs that wait for the flush: who asked for them is let go of behind it.
    ended: Vec<Ended>,
    next_number: u32,
    next_snapshot: u64,
    /// Each partition's newest staging, by the partition's number.
    stagings: HashMap<u32, Staged>,
    next_ticket: u64,
    /// What was staged since the last flush.
    staged: StagedCount,
    /// Keys of which nothing more is taken.
    suspended: HashSet<Hash>,
    /// Prefixes whose values are to be deleted.
    chores: Vec<Vec<u8>>,
    /// The compaction under way.
    compaction: Option<compacting::Compacting>,
}

/// What was when a job began.
struct Begun {
    at: Instant,
    /// Something is in sled alone and not durable.
    needs_sled: bool,
}

/// A job that is applied and not durable yet.
struct Ended {
    done: Done,
    began: Instant,
    applied_in: Duration,
    /// The flush takes long for its sake.
    pays_flush: bool,
}

/// Leaves, written and deleted ones, and bytes of pages.
#[derive(Default, Clone, Copy)]
struct StagedCount {
    leaves: usize,
    bytes: usize,
}

/// A staging under way.
struct Staged {
    partition: PartitionId,
    ticket: u64,
    /// What was written into its generation counts for, by earlier attempts as well.
    counts: u64,
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
            ended: Vec::new(),
            next_number,
            next_snapshot: 1,
            stagings: HashMap::new(),
            next_ticket: 1,
            staged: StagedCount::default(),
            suspended: HashSet::new(),
            chores: Vec::new(),
            compaction: None,
        };
        for (partition, state) in &partitions {
            let head = state.head();
            if let Some(head) = &head {
                writer.drop_generations(state.number, 0..head.generation);
            }
            if let Err(error) = writer.find_staged(partition, state.number, head.as_deref()) {
                tracing::warn!(%error, "what is not needed any more could not be removed");
            }
        }
        writer.drop_unused_numbers();
        writer
    }

    fn run(mut self, mut jobs: Receiver<Job>) {
        let mut flushes = 0u32;
        loop {
            flushes = flushes.wrapping_add(1);
            if flushes.is_multiple_of(FLUSHES_PER_CHORE) || self.chores.len() > CHORES_WAITING_MAX {
                self.chore();
                self.sweep(ROUNDS_IDLE);
            }
            self.notice_waste();
            let job = match jobs.try_recv() {
                Ok(job) => job,
                Err(TryRecvError::Disconnected) => break,
                Err(TryRecvError::Empty) => {
                    if self.chore() || self.relieve_journal() || self.sweep(ROUNDS_IDLE) {
                        continue;
                    }
                    match jobs.blocking_recv() {
                        Some(job) => job,
                        None => break,
                    }
                }
            };
            let began = Instant::now();
            self.handle(job);
            let mut shared_flush = 1;
            while shared_flush < JOBS_PER_FLUSH_MAX
                && began.elapsed() < FLUSH_SHARED_MAX
                && let Ok(job) = jobs.try_recv()
            {
                self.handle(job);
                shared_flush += 1;
            }
            // Whoever waited was told.
            let _ = self.flush();
            if began.elapsed() >= MUCH_WRITTEN {
                // A piece behind each keeps pace with what they write.
                self.sweep(ROUNDS_BUSY);
            }
        }
        self.give_up_compaction();
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
            Job::Replica { set, done, reply } => {
                let begun = self.begin();
                let result = self.well().and_then(|()| self.commit_replica(&set));
                drop(set);
                if let Some(done) = done {
                    self.end(begun, done, result.is_ok());
                }
                self.answer_after_flush(reply, result);
            }
            Job::Ack { number, node, ack } => {
                let mut batch = Batch::default();
                batch.put(keys::ack(number, &node), protocol::codec::encode(&ack));
                if let Err(error) = self.well().and_then(|()| self.apply(batch)) {
                    tracing::warn!(%error, "an acknowledgement could not be noted");
                }
            }
            Job::Mark { moves, reply } => {
                let result = self.well().and_then(|()| self.move_marks(&moves));
                self.answer_after_flush(reply, result);
            }
            Job::Claim { node, reply } => {
                let mut batch = Batch::default();
                batch.put(keys::OWNER.to_vec(), node.as_str().as_bytes().to_vec());
                let result = self.well().and_then(|()| self.apply(batch));
                self.answer_after_flush(reply, result);
            }
            Job::Quarantine { partition, reason, evidence, reply } => {
                let result =
                    self.well().and_then(|()| self.quarantine(&partition, reason, &evidence));
                self.answer_after_flush(reply, result);
            }
            Job::Release { partition, reply } => {
                let result = self.well().and_then(|()| self.release(&partition));
                self.answer_after_flush(reply, result);
            }
            Job::OpenSnapshot { partition, for_peer, reply } => {
                // A snapshot shows what is durable and published.
                let result = self.flush().and_then(|()| self.open_snapshot(&partition, for_peer));
                let _ = reply.send(result);
            }
            Job::BeginStaging { partition, records, reply } => {
                let result = self.well().and_then(|()| self.begin_staging(&partition, records));
                let _ = reply.send(result);
            }
            Job::ClearStaged { stage, reply } => {
                let result = self.well().and_then(|()| self.clear_staged(&stage));
                let _ = reply.send(result);
            }
            Job::StageLeaves { stage, leaves, reply } => {
                let result = self.well().and_then(|()| self.stage_leaves(&stage, leaves));
                let _ = reply.send(result);
            }
            Job::FinishStaging { stage, shown, summary, inner, reply } => {
                let result =
                    self.well().and_then(|()| self.finish_staging(stage, *shown, summary, inner));
                self.answer_after_flush(reply, result);
            }
            Job::Differ { differences, done, reply } => {
                let begun = self.begin();
                let result = self.well().and_then(|()| self.apply_differences(&differences));
                drop(differences);
                self.end(begun, done, result.is_ok());
                self.answer_after_flush(reply, result);
            }
            Job::Heal { healed, reply } => {
                let result = self.well().and_then(|()| self.heal(&healed));
                self.answer_after_flush(reply, result);
            }
            Job::MendLog { partition, seq, mend, reply } => {
                let result = self.well().and_then(|()| self.mend_log(&partition, seq, mend));
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
            Job::GiveUp { instead, expected, reply } => {
                let result = self.well().and_then(|()| self.give_up(&instead, expected));
                let _ = reply.send(result);
            }
            Job::Compact { reply } => {
                let result = self.well().and_then(|()| self.compact_some());
                let _ = reply.send(result);
            }
            Job::GiveUpCompaction { reply } => {
                self.give_up_compaction();
                let _ = reply.send(Ok(()));
            }
            Job::Tidy { reply: None } => {}
            Job::Tidy { reply: Some(reply) } => {
                // Chores take away what unpublished heads have left.
                let _ = self.flush();
                while self.chore() || self.relieve_journal() || self.sweep(ROUNDS_BUSY) {}
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

    /// A peer's job begins.
    fn begin(&self) -> Begun {
        Begun { at: Instant::now(), needs_sled: self.shared.disk.waits_for_sled() }
    }

    /// Lets go of who asked for a job, at once if nothing of it was kept. What was applied
    /// keeps its place until it is durable: a long one that came in between would let it
    /// wait for itself as well.
    fn end(&mut self, begun: Begun, done: Done, applied: bool) {
        let Begun { at: began, needs_sled } = begun;
        let applied_in = began.elapsed();
        if !applied {
            return done(applied_in);
        }
        let pays_flush =
            applied_in >= FLUSH_SHARED_MAX || (!needs_sled && self.shared.disk.waits_for_sled());
        self.ended.push(Ended { done, began, applied_in, pays_flush });
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
        let StagedCount { leaves, bytes } = self.staged;
        let staged_enough = leaves >= STAGED_PER_FLUSH || bytes >= STAGED_BYTES_PER_FLUSH;
        if self.waiting.is_empty() && self.unpublished.is_empty() && !staged_enough {
            return self.well();
        }
        self.staged = StagedCount::default();
        let durable = self
            .well()
            .and_then(|()| self.shared.disk.make_durable().inspect_err(|error| self.fail(error)));
        match &durable {
            Ok(()) => {
                for (partition, head) in self.unpublished.drain() {
                    if let Entry::Occupied(lost) = lock(&self.shared.lost).entry(partition.clone())
                        && lost.get().seq <= head.seq()
                    {
                        let lost = lost.remove();
                        tracing::info!(%partition, seq = lost.seq, "what was lost of a partition is here again");
                    }
                    if let Some(state) = self.shared.partition(&partition) {
                        state.publish(head);
                    }
                    self.shared.moved.tell(partition);
                }
                self.shared.touch_sidecar(|state| state.dirty = true);
            }
            Err(_) => self.unpublished.clear(),
        }
        for answer in self.waiting.drain(..) {
            answer(durable.clone().err());
        }
        for Ended { done, began, applied_in, pays_flush } in self.ended.drain(..) {
            done(if pays_flush { began.elapsed() } else { applied_in });
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

    fn move_marks(&mut self, moves: &[MarkMove]) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        let now_ms = now_ms();
        marks::put(&mut batch, moves, now_ms);
        self.apply(batch)?;
        marks::note(&mut lock(&self.shared.marks), moves, now_ms);
        Ok(())
    }

    fn quarantine(
        &mut self,
        partition: &PartitionId,
        reason: String,
        evidence: &[SignedHeader],
    ) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        let state = self.partition(partition);
        batch.put(keys::quarantine(state.number), reason.clone().into_bytes());
        let headers: Vec<Vec<u8>> = evidence.iter().map(SignedHeader::encode).collect();
        batch.put(keys::evidence(state.number), protocol::codec::encode(&headers));
        self.apply_to(partition, &state, batch)?;
        state.set_quarantine(Some(reason));
        Ok(())
    }

    fn release(&mut self, partition: &PartitionId) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        let state = self.partition(partition);
        batch.remove(keys::quarantine(state.number));
        batch.remove(keys::evidence(state.number));
        self.apply_to(partition, &state, batch)?;
        state.set_quarantine(None);
        Ok(())
    }
}
