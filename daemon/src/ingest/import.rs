//! Leads what was delivered through reading (`delivered`) and comparing and
//! committing (`apply`), one delivery of a partition at a time.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use protocol::{
    federation::Registry,
    id::{DatasetId, PartitionId},
    schema::Schema,
};
use tokio_util::sync::CancellationToken;

use super::{
    apply::Job,
    context::Context,
    delivered::{self, Told},
    diff::Comparer,
    rejects::Rejects,
    report::{ImportReport, Note},
    source::Summary,
    words::{HoldRule, ImportError, ImportRequest, Outcome, Progress},
};
use crate::{membership::Membership, store::Store};

/// One import a partition at a time.
#[derive(Default)]
struct Turn {
    lock: Mutex<()>,
    /// Full files that went in; changes only while the lock is held. Read
    /// without it, it tells a reader what went in after it began.
    fulls: AtomicU64,
}

/// Imports what is delivered into this node's own partitions.
pub struct Importer {
    context: Context,
    turns: Mutex<HashMap<PartitionId, Arc<Turn>>>,
}

impl Importer {
    /// An importer that sorts in `memory_bytes`, spills to `spool_dir`, and recalls
    /// full files from what it keeps in `recall_dir`.
    pub fn new(
        store: Store,
        membership: Arc<Membership>,
        spool_dir: PathBuf,
        recall_dir: PathBuf,
        memory_bytes: usize,
        hold: HoldRule,
        stop: CancellationToken,
    ) -> Self {
        let context = Context {
            store,
            membership,
            spool_dir,
            recall_dir,
            memory_bytes,
            hold,
            stop,
            #[cfg(test)]
            recalled: AtomicU64::new(0),
        };
        Self { context, turns: Mutex::default() }
    }

    /// Full files of which only what was new was read.
    #[cfg(test)]
    pub(crate) fn recalled(&self) -> &AtomicU64 {
        &self.context.recalled
    }

    /// Imports one file. Blocks: call it on a thread of its own.
    ///
    /// Everything that the report counts is durable when this answers. After an
    /// error, what was committed before it stays, and delivering the file again
    /// does the rest.
    pub fn import(
        &self,
        request: &ImportRequest,
        progress: &dyn Fn(Progress),
    ) -> Result<ImportReport, ImportError> {
        match self.import_unless_held(request, progress, &|| {})? {
            Outcome::Imported(report) => Ok(report),
            Outcome::Held { reason, .. } => Err(ImportError::Held(reason)),
        }
    }

    /// As [`Importer::import`], with the counts of a delivery that is to be
    /// held. `full_applied` is called when a full file is in, before the next
    /// import of the partition can begin to change anything.
    pub(super) fn import_unless_held(
        &self,
        request: &ImportRequest,
        progress: &dyn Fn(Progress),
        full_applied: &dyn Fn(),
    ) -> Result<Outcome, ImportError> {
        let started = Instant::now();
        let context = &self.context;
        let registry = context.membership.current()?;
        let schema = self.schema(&registry, &request.dataset)?;
        let mut rejects = Rejects::new(request);
        let mut report = ImportReport::default();

        let partition = context.membership.own_partition(&request.dataset);
        let turn = self.turn_of(&partition);
        // Before the file is opened, and without waiting for an import that is
        // under way: that one's file is the newer one, too.
        let fulls = turn.fulls.load(Ordering::SeqCst);
        let mut told = Told { rejects: &mut rejects, report: &mut report, progress };
        let mut read = delivered::read(context, request, &schema, &partition, &mut told)?;

        // A panic in another import left nothing half-done here.
        let _one_at_a_time = turn.lock.lock().unwrap_or_else(|error| error.into_inner());
        if request.approved && turn.fulls.load(Ordering::SeqCst) != fulls {
            return Err(ImportError::Superseded);
        }
        if !read.fits(&context.store, &partition)? {
            (rejects, report) = (Rejects::new(request), ImportReport::default());
            let mut told = Told { rejects: &mut rejects, report: &mut report, progress };
            read = delivered::read_whole(context, request, &schema, true, &mut told)?;
        }
        #[cfg(test)]
        context.recalled.fetch_add(read.recalled.is_some().into(), Ordering::Relaxed);
        // An upsert keeps what the file has no column for; a full file says all.
        let kept: &[usize] = if request.full { &[] } else { &read.missing };
        let comparer = Comparer::new(&registry, &schema, kept);
        // What comes into an empty partition is all that it holds.
        let is_whole = request.full || context.stored(&partition) == 0;
        let job = Job { context, partition, schema: &schema, comparer, progress };
        let hold = job.apply(request, &mut read, &mut rejects, &mut report)?;
        report.notes = notes_of(&read.summary);
        if is_whole && hold.is_none() {
            delivered::note_whole(context, &job.partition, read, &report);
        }
        if request.full && hold.is_none() {
            // In this order: an approval that begins now finds either the
            // number moved later on, or its file gone already.
            full_applied();
            turn.fulls.fetch_add(1, Ordering::SeqCst);
        }

        rejects.finish(&mut report)?;
        report.seconds = started.elapsed().as_secs_f64();
        debug_assert!(report.adds_up(), "{report:?}");
        Ok(match hold {
            None => Outcome::Imported(report),
            Some(reason) => Outcome::Held { reason, would: report },
        })
    }

    fn schema(&self, registry: &Registry, dataset: &DatasetId) -> Result<Schema, ImportError> {
        if !dataset.is_system()
            && let Some(schema) = registry.schema(dataset)
        {
            return Ok(schema.clone());
        }
        let known: Vec<&str> =
            registry.datasets().map(|schema| schema.dataset().as_str()).collect();
        Err(ImportError::UnknownDataset { dataset: dataset.to_string(), known: known.join(", ") })
    }

    fn turn_of(&self, partition: &PartitionId) -> Arc<Turn> {
        let mut turns = self.turns.lock().unwrap_or_else(|error| error.into_inner());
        turns.entry(partition.clone()).or_default().clone()
    }
}

/// What a delivery as a whole gives reason to say.
fn notes_of(summary: &Summary) -> Vec<Note> {
    let cut = summary.cut.then(|| {
        Note::new(
            "cut",
            "文件最后一行没有换行符，可能没有传完；请核对最后一行",
            "the last line has no end, so the file may be cut off: check its last line",
        )
    });
    let left_out = summary.left_out.iter().map(|text| {
        let (zh, en) = text.split_once(" / ").unwrap_or((text, text));
        Note::new("left-out", zh, en)
    });
    cut.into_iter().chain(left_out).collect()
}
