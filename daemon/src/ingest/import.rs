//! Leads what was delivered through reading (`delivered`) and comparing and
//! committing (`apply`), one delivery of a partition at a time.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use protocol::{
    federation::Registry,
    id::{DatasetId, PartitionId},
    schema::Schema,
};
use store::{Store, StoreError};
use tokio_util::sync::CancellationToken;

use super::{
    apply::Job,
    context::Context,
    delivered::{self, ReadFile, Told},
    diff::Comparer,
    held::Deliveries,
    history::{Recording, describe, touched::touched_since},
    hold::{Hold, HoldLimits, SAMPLES_MAX, key_text},
    rejects::Rejects,
    report::{ImportReport, Note},
    source::{SourceError, Summary},
    temporary::TemporaryFiles,
    words::{ImportError, ImportRequest, Outcome, Progress},
};
use crate::membership::Membership;

/// What a held delivery would do now.
#[derive(Debug)]
pub struct Preview {
    /// The counts; `seq` is the partition's present number.
    pub would: ImportReport,
    /// The rules that apply now, the most serious one first.
    pub holds: Vec<Hold>,
    /// What it would undo of what came after it; none where that is not known.
    pub undoes: Option<Undoes>,
}

/// Records that newer deliveries have changed, and that would change again.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Undoes {
    /// How many.
    pub records: u64,
    /// Their keys, at most [`SAMPLES_MAX`].
    pub samples: Vec<String>,
}

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
    pub(super) context: Context,
    turns: Mutex<HashMap<PartitionId, Arc<Turn>>>,
}

impl Importer {
    /// Where temporary files are written.
    pub fn room(&self) -> &TemporaryFiles {
        &self.context.temporary
    }

    /// When everything is to end.
    pub fn stop(&self) -> &CancellationToken {
        &self.context.stop
    }

    /// An importer that sorts in `memory_bytes`, spills to `spool_dir`, and recalls
    /// full files from what it keeps in `recall_dir`.
    pub fn new(
        store: Store,
        membership: Arc<Membership>,
        spool_dir: PathBuf,
        recall_dir: PathBuf,
        memory_bytes: usize,
        hold: HoldLimits,
        stop: CancellationToken,
    ) -> Self {
        let temporary = TemporaryFiles::beside(&spool_dir, store.clone());
        let context = Context {
            store,
            membership,
            temporary,
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
        match self.import_unless_held(request, None, progress, &|_| {})? {
            Outcome::Imported(report) => Ok(report),
            Outcome::Held { mut holds, .. } => Err(ImportError::Held(holds.remove(0).reason)),
        }
    }

    /// As [`Importer::import`], with the counts of a delivery that is to be
    /// held; `deliveries` notes what takes it back. `full_applied` is called when
    /// a full file is in, before the next import of the partition can begin to
    /// change anything.
    pub(super) fn import_unless_held(
        &self,
        request: &ImportRequest,
        deliveries: Option<&Deliveries>,
        progress: &dyn Fn(Progress),
        full_applied: &dyn Fn(&str),
    ) -> Result<Outcome, ImportError> {
        let outcome = self.import_turn(request, deliveries, progress, full_applied);
        // Whatever could not be read because of that, the file is not to blame.
        outcome.map_err(|error| match self.context.check_stop() {
            Ok(()) => error,
            Err(stopped) => {
                tracing::debug!(%error, "an import ended, because the node is shutting down");
                stopped
            }
        })
    }

    fn import_turn(
        &self,
        request: &ImportRequest,
        deliveries: Option<&Deliveries>,
        progress: &dyn Fn(Progress),
        full_applied: &dyn Fn(&str),
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
        let mut read = delivered::read(context, request, &schema, &partition, &mut told)
            .map_err(|error| with_other_datasets(error, request, &registry))?;

        // A panic in another import left nothing half-done here.
        let _one_at_a_time = turn.lock.lock().unwrap_or_else(|error| error.into_inner());
        // Also of a file that would change nothing: nobody knows upon which history it would.
        if let Some(reason) = context.store.held_own_writes().remove(&partition) {
            return Err(StoreError::OwnWritesStopped { reason }.into());
        }
        if let Some(reason) = context.store.quarantine_reason(&partition) {
            return Err(StoreError::Quarantined { partition, reason }.into());
        }
        let head = context.store.head(&partition);
        let seq = head.as_ref().map_or(0, |head| head.seq());
        if let Some(approval) = &request.approved
            && (turn.fulls.load(Ordering::SeqCst) != fulls
                || approval.seen_seq.is_some_and(|seen| seen != seq))
        {
            return Err(ImportError::Superseded);
        }
        if !read.fits(&context.store, &partition)? {
            (rejects, report) = (Rejects::new(request), ImportReport::default());
            let mut told = Told { rejects: &mut rejects, report: &mut report, progress };
            read = delivered::read_whole(context, request, &schema, true, &mut told)?;
        }
        // Before anything of it is committed.
        let changed = |error| ImportError::of_source(error, &request.dataset);
        request.source.unchanged().map_err(changed)?;
        #[cfg(test)]
        context.recalled.fetch_add(read.recalled.is_some().into(), Ordering::Relaxed);
        let comparer = comparer_of(request, &registry, &schema, &read);
        // What comes into an empty partition is all that it holds.
        let is_whole = request.full || context.stored(&partition) == 0;
        let job = Job { context, partition, schema: &schema, comparer, progress };
        let first_load = context.stored(&job.partition) == 0;
        let mut recording = deliveries.map(|deliveries| {
            let id = deliveries.id_for(request);
            let what = (id, describe(request));
            let (history, partition) = (deliveries.history(), job.partition.clone());
            Recording::new(history, &context.store, partition, what, seq, first_load)
        });
        let holds = job.apply(request, &mut read, &mut rejects, &mut report, recording.as_mut())?;
        let is_held = !holds.is_empty();
        report.notes = notes_of(&read.summary, report.rows);
        let parts = std::mem::take(&mut read.summary.parts);
        if is_whole && !is_held {
            delivered::note_whole(context, &job.partition, read, &report);
        }
        if request.full && !is_held {
            // In this order: an approval that begins now finds either the
            // number moved later on, or its file gone already. A file of which
            // nothing was taken is newer than nothing.
            if report.rows == 0 || report.rejected < report.rows {
                full_applied(recording.as_ref().map_or("", |recording| recording.id()));
                turn.fulls.fetch_add(1, Ordering::SeqCst);
            }
        }

        rejects.finish(&mut report, &parts)?;
        report.seconds = started.elapsed().as_secs_f64();
        debug_assert!(report.adds_up(), "{report:?}");
        report.delivery = recording.as_ref().map(|recording| recording.id().to_owned());
        if is_held {
            let id = report.delivery.clone().unwrap_or_default();
            return Ok(Outcome::Held { id, holds, would: report });
        }
        if let Some(recording) = recording {
            recording.end(&report);
        }
        Ok(Outcome::Imported(report))
    }

    /// What a delivery that is held would do now; nothing is changed. `since` is
    /// the partition's number when it was held. Blocks.
    pub fn preview(
        &self,
        request: &ImportRequest,
        since: u64,
        progress: &dyn Fn(Progress),
    ) -> Result<Preview, ImportError> {
        let context = &self.context;
        let registry = context.membership.current()?;
        let schema = self.schema(&registry, &request.dataset)?;
        let mut rejects = Rejects::new(request);
        let mut report = ImportReport::default();
        let partition = context.membership.own_partition(&request.dataset);
        let mut told = Told { rejects: &mut rejects, report: &mut report, progress };
        let mut read = delivered::read_whole(context, request, &schema, false, &mut told)?;

        let turn = self.turn_of(&partition);
        let _one_at_a_time = turn.lock.lock().unwrap_or_else(|error| error.into_inner());
        let touched = touched_since(&context.store, &partition, since)?;
        let mut undoes = touched.as_ref().map(|_| Undoes::default());
        let comparer = comparer_of(request, &registry, &schema, &read);
        let job = Job { context, partition, schema: &schema, comparer, progress };
        let mut look = |change: protocol::change::Change| {
            if let (Some(touched), Some(undoes)) = (&touched, &mut undoes)
                && touched.contains(change.key())
            {
                undoes.records += 1;
                if undoes.samples.len() < SAMPLES_MAX {
                    undoes.samples.push(key_text(&schema, change.key()));
                }
            }
            Ok(())
        };
        let holds = job.compare_only(request, &mut read, &mut rejects, &mut report, &mut look)?;
        // Whoever is asked looks at counts; the import itself will write it again.
        rejects.finish(&mut report, &read.summary.parts)?;
        if let Some(path) = report.rejects_file.take() {
            let failed = |source| ImportError::Report { path: path.clone(), source };
            std::fs::remove_file(&path).map_err(failed)?;
        }
        Ok(Preview { would: report, holds, undoes })
    }

    pub(super) fn schema(
        &self,
        registry: &Registry,
        dataset: &DatasetId,
    ) -> Result<Schema, ImportError> {
        if !dataset.is_system()
            && let Some(schema) = registry.schema(dataset)
        {
            return Ok(schema.clone());
        }
        let known: Vec<&str> =
            registry.datasets().map(|schema| schema.dataset().as_str()).collect();
        Err(ImportError::UnknownDataset { dataset: dataset.to_string(), known: known.join(", ") })
    }

    /// Does something while no import of the partition changes it.
    pub fn alone<T>(&self, partition: &PartitionId, work: impl FnOnce() -> T) -> T {
        let turn = self.turn_of(partition);
        let _one_at_a_time = turn.lock.lock().unwrap_or_else(|error| error.into_inner());
        work()
    }

    fn turn_of(&self, partition: &PartitionId) -> Arc<Turn> {
        let mut turns = self.turns.lock().unwrap_or_else(|error| error.into_inner());
        turns.entry(partition.clone()).or_default().clone()
    }
}

/// An upsert keeps what the file has no column for; a full file says all.
fn comparer_of<'a>(
    request: &ImportRequest,
    registry: &'a Registry,
    schema: &'a Schema,
    read: &ReadFile,
) -> Comparer<'a> {
    let kept: &[usize] = if request.full { &[] } else { &read.missing };
    Comparer::new(registry, schema, kept)
}

/// How long other datasets are tried for a file that does not fit its own: a hint is
/// not worth more, and finding a large file's encoding may take a second.
const OTHERS_SECONDS: Duration = Duration::from_secs(5);

/// Of a file that does not fit its dataset: which others it fits, if any.
fn with_other_datasets(
    error: ImportError,
    request: &ImportRequest,
    registry: &Registry,
) -> ImportError {
    if !matches!(error, ImportError::Header { .. } | ImportError::Source(SourceError::NoHeader(_)))
    {
        return error;
    }
    let began = Instant::now();
    let others = registry.datasets().filter(|schema| *schema.dataset() != request.dataset);
    let others = others.take_while(|_| began.elapsed() < OTHERS_SECONDS);
    let fits = |schema: &&Schema| request.source.open(schema).is_ok();
    let names = others.filter(fits).map(|schema| schema.dataset().as_str());
    let others = names.collect::<Vec<_>>().join(", ");
    if others.is_empty() {
        return error;
    }
    ImportError::OtherDataset { error: Box::new(error), others }
}

/// Parts that a note names.
const PARTS_SHOWN: usize = 10;

/// What a delivery as a whole gives reason to say.
fn notes_of(summary: &Summary, rows: u64) -> Vec<Note> {
    let empty = (rows == 0).then(|| {
        Note::new(
            "no-rows",
            "文件没有数据行，没有内容可以导入；请检查导出条件",
            "the file has no rows, so there was nothing to import: check what was exported",
        )
    });
    let cut = summary.cut.then(|| {
        Note::new(
            "cut",
            "文件最后一行没有换行符，或有整行的空字节（NUL），可能没有传完或已损坏；请核对",
            "the last line has no end, or lines are nothing but zero bytes, so the file may be cut off or damaged: check it",
        )
    });
    let left_out = summary.left_out.iter().map(|part| {
        let code = if part.doubtful { Note::LEFT_OUT } else { "passed-over" };
        Note::new(code, &*part.zh, &*part.en)
    });
    let parts = &summary.parts;
    let several = (parts.len() > 1).then(|| {
        let shown: Vec<&str> = parts.iter().take(PARTS_SHOWN).map(String::as_str).collect();
        let (count, more) = (parts.len(), if parts.len() > PARTS_SHOWN { "…" } else { "" });
        Note::new(
            "parts",
            format!("读取了 {count} 个部分：{}{more}", shown.join("、")),
            format!("{count} parts were read: {}{more}", shown.join(", ")),
        )
    });
    empty.into_iter().chain(cut).chain(left_out).chain(several).collect()
}
