//! Leads a delivered file through reading (`delivered`) and comparing and
//! committing (`apply`), one file of a partition at a time.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
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
    decode::{Encoding, FileError, Links},
    delivered::{Rejects, Told},
    deliveries::DeliveryError,
    diff::Comparer,
    map::HeaderError,
    report::ImportReport,
    spool::SpoolError,
};
use crate::{
    membership::Membership,
    store::{Store, StoreError},
};

/// A file to be imported.
#[derive(Debug, Clone)]
pub struct ImportRequest {
    /// The dataset.
    pub dataset: DatasetId,
    /// The file.
    pub path: PathBuf,
    /// The file is the whole partition: what it lacks is deleted.
    pub full: bool,
    /// How its bytes are to be read.
    pub encoding: Encoding,
    /// A person approved what would otherwise be held.
    pub approved: bool,
    /// Where rejected rows are described, if there are any.
    pub rejects: PathBuf,
}

/// How far an import has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Progress {
    /// Bytes of the file that were read.
    pub bytes_read: u64,
    /// Bytes of the file.
    pub bytes_total: u64,
    /// Rows that were read.
    pub rows: u64,
    /// Rows that were compared with the stored records.
    pub compared: u64,
}

/// When a full delivery is held.
#[derive(Debug, Clone, Copy)]
pub struct HoldRule {
    /// More deletions than this share of the stored records, in percent …
    pub percent: u64,
    /// … and more than this many.
    pub at_least: u64,
}

/// Why a full delivery waits for a person.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, serde::Serialize, serde::Deserialize)]
#[serde(tag = "rule", rename_all = "snake_case")]
pub enum HoldReason {
    /// It would delete too much.
    #[error(
        "it would delete {deletes} of {stored} records / 将删除 {stored} 条记录中的 {deletes} 条"
    )]
    Deletes {
        /// Records that would go.
        deletes: u64,
        /// Records that there are.
        stored: u64,
    },
    /// It has no rows at all.
    #[error(
        "the file has no rows, and {stored} records are stored / 文件没有数据行，而库中有 {stored} 条记录"
    )]
    Empty {
        /// Records that there are.
        stored: u64,
    },
    /// Rows whose key could not be read might be among the ones to delete.
    #[error(
        "{unreadable} rows have no readable key, and {deletes} records would be deleted that may be theirs / \
         有 {unreadable} 行无法读出主键，将删除的 {deletes} 条记录可能与之对应"
    )]
    Unreadable {
        /// Rows without a key.
        unreadable: u64,
        /// Records that would go.
        deletes: u64,
    },
}

/// An import that did not happen, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// No such dataset in the catalogue.
    #[error(
        "there is no dataset '{dataset}'; the catalogue has: {known} / 没有名为 '{dataset}' 的数据集"
    )]
    UnknownDataset {
        /// As asked for.
        dataset: String,
        /// Those that there are.
        known: String,
    },
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The header does not fit the dataset.
    #[error(
        "{path}: {problem}\n'creditsync dataset show {dataset}' lists the fields / 列出全部字段"
    )]
    Header {
        /// The dataset.
        dataset: DatasetId,
        /// The file.
        path: String,
        /// What is wrong with it.
        problem: HeaderError,
    },
    /// Temporary files cannot be written.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The report cannot be written.
    #[error("{path}: {source}")]
    Report {
        /// The report.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A full delivery that a person has to approve.
    #[error("held: {0}")]
    Held(HoldReason),
    /// What was approved is not the newest word any more.
    #[error(
        "已被更新的全量交付取代，没有导入任何内容 / superseded by a newer delivery: another full file went \
         in while this one was read, and nothing of this one was imported"
    )]
    Superseded,
    /// It had to be held, and could not be kept.
    #[error(transparent)]
    Delivery(#[from] DeliveryError),
    /// The daemon is shutting down.
    #[error(
        "the import was stopped; what it had committed stays, and the same file can be delivered again"
    )]
    Stopped,
}

/// One import a partition at a time.
#[derive(Default)]
struct Turn {
    lock: Mutex<()>,
    /// Full files that went in; changes only while the lock is held. Read
    /// without it, it tells a reader what went in after it began.
    fulls: AtomicU64,
}

/// Imports files into this node's own partitions.
pub struct Importer {
    pub(super) store: Store,
    membership: Arc<Membership>,
    pub(super) spool_dir: PathBuf,
    /// Where full files are recalled from.
    pub(super) recall_dir: PathBuf,
    pub(super) memory_bytes: usize,
    pub(super) hold: HoldRule,
    turns: Mutex<HashMap<PartitionId, Arc<Turn>>>,
    stop: CancellationToken,
    /// Full files of which only what was new was read.
    #[cfg(test)]
    pub(super) recalled: AtomicU64,
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
        Self {
            store,
            membership,
            spool_dir,
            recall_dir,
            memory_bytes,
            hold,
            turns: Mutex::default(),
            stop,
            #[cfg(test)]
            recalled: AtomicU64::new(0),
        }
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
        match self.import_unless_held(request, Links::Follow, progress, &|| {})? {
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
        links: Links,
        progress: &dyn Fn(Progress),
        full_applied: &dyn Fn(),
    ) -> Result<Outcome, ImportError> {
        let started = Instant::now();
        let registry = self.membership.current()?;
        let schema = self.schema(&registry, &request.dataset)?;
        let mut rejects = Rejects::new(request);
        let mut report = ImportReport::default();

        let partition = self.membership.own_partition(&request.dataset);
        let turn = self.turn_of(&partition);
        // Before the file is opened, and without waiting for an import that is
        // under way: that one's file is the newer one, too.
        let fulls = turn.fulls.load(Ordering::SeqCst);
        let mut told = Told { rejects: &mut rejects, report: &mut report, progress };
        let mut read = self.read_file(request, links, &schema, &partition, &mut told)?;

        // A panic in another import left nothing half-done here.
        let _one_at_a_time = turn.lock.lock().unwrap_or_else(|error| error.into_inner());
        if request.approved && turn.fulls.load(Ordering::SeqCst) != fulls {
            return Err(ImportError::Superseded);
        }
        if !read.fits(&self.store, &partition)?
            && let Some(recalled) = read.recalled.take()
        {
            (rejects, report) = (Rejects::new(request), ImportReport::default());
            let mut told = Told { rejects: &mut rejects, report: &mut report, progress };
            read = self.read_again(recalled, request, &schema, &mut told)?;
        }
        #[cfg(test)]
        self.recalled.fetch_add(read.recalled.is_some().into(), Ordering::Relaxed);
        // An upsert keeps what the file has no column for; a full file says all.
        let kept: &[usize] = if request.full { &[] } else { &read.missing };
        let comparer = Comparer::new(&registry, &schema, kept);
        // What comes into an empty partition is all that it holds.
        let is_whole = request.full || self.stored(&partition) == 0;
        let job = Job { importer: self, partition, schema: &schema, comparer, progress };
        let hold = job.apply(request, &mut read, &mut rejects, &mut report)?;
        if is_whole && hold.is_none() {
            self.note_whole_file(&job.partition, read, &report);
        }
        if request.full && hold.is_none() {
            // In this order: an approval that begins now finds either the
            // number moved later on, or its file gone already.
            full_applied();
            turn.fulls.fetch_add(1, Ordering::SeqCst);
        }

        report.rejects_file = rejects.finish()?.map(|path| path.display().to_string());
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

    /// Records that a partition holds.
    pub(super) fn stored(&self, partition: &PartitionId) -> u64 {
        self.store.head(partition).map_or(0, |head| head.summary.records)
    }

    pub(super) fn check_stop(&self) -> Result<(), ImportError> {
        if self.stop.is_cancelled() { Err(ImportError::Stopped) } else { Ok(()) }
    }
}

/// What came of a file.
pub(super) enum Outcome {
    /// It went in.
    Imported(ImportReport),
    /// Nothing was changed; a person has to decide.
    Held {
        /// Why.
        reason: HoldReason,
        /// What it would do: no change set was made.
        would: ImportReport,
    },
}

/// A name for a rejects file in `dir` that no other import uses: none of this
/// process, nor one of another process that ran within the same second. The
/// process id alone would not do, for in a container it is always the same.
pub fn rejects_path(dir: &Path, dataset: &DatasetId) -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(1);
    let stamp = stamp(time::OffsetDateTime::now_utc());
    let process = std::process::id();
    loop {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = dir.join(format!("{dataset}-{stamp}-{process}-{count}.rejects.csv"));
        if path.symlink_metadata().is_err() {
            return path;
        }
    }
}

/// A time for file names: sortable, to the second.
pub(super) fn stamp(now: time::OffsetDateTime) -> String {
    format!(
        "{:04}{:02}{:02}-{:02}{:02}{:02}",
        now.year(),
        u8::from(now.month()),
        now.day(),
        now.hour(),
        now.minute(),
        now.second()
    )
}
