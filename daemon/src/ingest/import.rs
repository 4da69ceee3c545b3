//! Leads a delivered file through decoding, checking, sorting, comparing and
//! committing.

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
    change::Change,
    federation::Registry,
    hash::Hash,
    id::{DatasetId, PartitionId},
    schema::Schema,
};
use tokio_util::sync::CancellationToken;

use super::{
    cut::{ChangeSpool, Cutter},
    decode::{CsvFile, Encoding, FileError, Links},
    deliveries::DeliveryError,
    diff::{Comparer, Cursor, Difference},
    map::{HeaderError, Mapping},
    read::{self, CheckedRows, Note},
    recall::{self, Recall},
    report::{ImportReport, RejectsFile},
    spool::{Sorted, Sorter, SpoolError},
    validate::{Validator, row_issue},
};
use crate::{
    membership::Membership,
    store::{Store, StoreError},
};

/// Rows between two looks at the clock and at whether to stop.
const ROWS_PER_PROGRESS: u64 = 4096;

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
    store: Store,
    membership: Arc<Membership>,
    spool_dir: PathBuf,
    /// Where full files are recalled from.
    recall_dir: PathBuf,
    memory_bytes: usize,
    hold: HoldRule,
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
        let (mut read, missing) = match self.recall(request, links, &schema, &partition) {
            // A full file needs no missing columns kept.
            Some((opened, recall)) => {
                (self.read_new(opened, recall, request, &schema, &mut told)?, Vec::new())
            }
            None => match Opened::new(request, links, &schema) {
                // A full file that suddenly is empty has no rows, not even a header.
                Err(ImportError::File(FileError::NoHeader { .. })) if request.full => {
                    (ReadFile::empty(self)?, Vec::new())
                }
                opened => {
                    let opened = opened?;
                    let missing = opened.mapping.missing().to_vec();
                    (
                        self.read(opened, request.full || self.stored(&partition) == 0, &mut told)?,
                        missing,
                    )
                }
            },
        };

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
            read = self.read(recalled.opened.again(request, &schema)?, true, &mut told)?;
        }
        #[cfg(test)]
        self.recalled.fetch_add(read.recalled.is_some().into(), Ordering::Relaxed);
        // An upsert keeps what the file has no column for; a full file says all.
        let kept: &[usize] = if request.full { &[] } else { &missing };
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
    fn stored(&self, partition: &PartitionId) -> u64 {
        self.store.head(partition).map_or(0, |head| head.summary.records)
    }

    fn check_stop(&self) -> Result<(), ImportError> {
        if self.stop.is_cancelled() { Err(ImportError::Stopped) } else { Ok(()) }
    }

    /// Reads the whole file into sorted records; `note` says that a later full
    /// file may be compared with this one.
    fn read(
        &self,
        mut opened: Opened,
        note: bool,
        told: &mut Told<'_, '_>,
    ) -> Result<ReadFile, ImportError> {
        let for_notes = if note { self.memory_bytes / 4 } else { 0 };
        let mut sorter = Sorter::new(&self.spool_dir, self.memory_bytes - for_notes);
        let mut rows = note.then(|| Sorter::new(&self.spool_dir, for_notes));
        let mut unreadable = 0;
        let bytes_total = opened.file.bytes_total();
        let (report, rejects) = (&mut *told.report, &mut *told.rejects);
        let pause = |bytes_read, rows| {
            self.pause(told.progress, Progress { bytes_read, bytes_total, rows, compared: 0 })
        };
        read::check_rows(&mut opened.file, &opened.validator, note, pause, |checked| {
            tell(&checked, rejects, report)?;
            report.rows += checked.rows;
            unreadable += checked.unreadable;
            sorter.append(&checked.records)?;
            if let Some(rows) = &mut rows {
                rows.append(&checked.recalled)?;
            }
            Ok::<_, ImportError>(())
        })?;
        Ok(ReadFile {
            unreadable,
            rows: rows.map(Sorter::finish).transpose()?,
            ..ReadFile::new(sorter.finish()?, opened.rules, bytes_total)
        })
    }

    /// Reads what is new in a full file, or all of it where that is not enough.
    fn read_new(
        &self,
        mut opened: Opened,
        recall: Recall,
        request: &ImportRequest,
        schema: &Schema,
        told: &mut Told<'_, '_>,
    ) -> Result<ReadFile, ImportError> {
        let bytes_total = opened.file.bytes_total();
        let pause = |bytes_read, rows| {
            self.pause(told.progress, Progress { bytes_read, bytes_total, rows, compared: 0 })
        };
        let Some((rows, checked)) =
            read::recall_rows(&mut opened.file, &opened.validator, &recall, pause)?
        else {
            return self.read(opened.again(request, schema)?, true, told);
        };
        let Some((open_keys, others)) = keys(&recall, &checked) else {
            return self.read(opened.again(request, schema)?, true, told);
        };
        let mut sorter = Sorter::new(&self.spool_dir, self.memory_bytes);
        for checked in &checked {
            tell(checked, told.rejects, told.report)?;
            sorter.append(&checked.records)?;
        }
        told.report.rows = rows;
        let read = ReadFile::new(sorter.finish()?, opened.rules, bytes_total);
        let recalled = Recalled { opened, recall, open_keys, others };
        Ok(ReadFile { recalled: Some(recalled), ..read })
    }

    fn pause(&self, progress: &dyn Fn(Progress), now: Progress) -> Result<(), ImportError> {
        self.check_stop()?;
        progress(now);
        Ok(())
    }

    fn recall_path(&self, partition: &PartitionId) -> PathBuf {
        self.recall_dir.join(format!("{}.rows", partition.dataset))
    }

    /// A full file and the last one, if it can be compared with that.
    fn recall(
        &self,
        request: &ImportRequest,
        links: Links,
        schema: &Schema,
        partition: &PartitionId,
    ) -> Option<(Opened, Recall)> {
        let head = self.store.head(partition).filter(|_| request.full)?.position();
        let path = self.recall_path(partition);
        if !recall::is_of(&path, head) {
            return None;
        }
        // Finding out what it is takes a look at all of it. Where the last one was
        // UTF-8, equal rows are; the others are looked at.
        let encodings = match request.encoding {
            Encoding::Auto => [Encoding::Utf8, Encoding::Auto].as_slice(),
            _ => std::slice::from_ref(&request.encoding),
        };
        encodings.iter().find_map(|encoding| {
            let request = ImportRequest { encoding: *encoding, ..request.clone() };
            // What is wrong with it is told by whoever reads it as a whole.
            let opened = Opened::new(&request, links, schema).ok()?;
            let recall = Recall::load(&path, head, opened.rules, self.memory_bytes)?;
            Some((opened, recall))
        })
    }

    /// Keeps what the next full file can be compared with. It saves time only, so
    /// a failure costs nothing else.
    fn note_whole_file(&self, partition: &PartitionId, read: ReadFile, report: &ImportReport) {
        let path = self.recall_path(partition);
        let Some(head) = self.store.head(partition).map(|head| head.position()) else {
            return;
        };
        // Rows without a key of their own might hide what became of a record.
        let plain = read.unreadable == 0 && !read.repeated;
        let noted = match (read.recalled, read.rows) {
            (Some(recalled), _) => recalled
                .recall
                .renew(head, read.rules, recalled.others)
                .map_err(|error| error.to_string()),
            (None, Some(rows)) if plain => recall::note(&path, head, read.rules, rows, report.rows)
                .map_err(|error| error.to_string()),
            _ => {
                let _ = std::fs::remove_file(&path);
                Ok(())
            }
        };
        if let Err(error) = noted {
            tracing::warn!(path = %path.display(), error, "the next full file will be read as a whole: this one could not be noted");
            let _ = std::fs::remove_file(&path);
        }
    }
}

/// A file whose header is understood.
struct Opened {
    file: CsvFile,
    mapping: Mapping,
    validator: Validator,
    /// Under which its rows are read.
    rules: Hash,
}

impl Opened {
    fn new(request: &ImportRequest, links: Links, schema: &Schema) -> Result<Self, ImportError> {
        let file = CsvFile::open_with(&request.path, request.encoding, links)?;
        Self::with(file, request, schema)
    }

    /// The same file, found out about anew and read from its first row on.
    fn again(self, request: &ImportRequest, schema: &Schema) -> Result<Self, ImportError> {
        Self::with(self.file.again(request.encoding)?, request, schema)
    }

    fn with(file: CsvFile, request: &ImportRequest, schema: &Schema) -> Result<Self, ImportError> {
        let mapping = Mapping::new(file.header(), schema).map_err(|problem| {
            let dataset = request.dataset.clone();
            let path = request.path.display().to_string();
            ImportError::Header { dataset, path, problem }
        })?;
        let validator = Validator::new(schema, &mapping);
        Ok(Self { rules: recall::rules(&file, schema), file, mapping, validator })
    }
}

/// Where it is told what becomes of rows.
struct Told<'a, 'r> {
    rejects: &'a mut Rejects<'r>,
    report: &'a mut ImportReport,
    progress: &'a dyn Fn(Progress),
}

/// Tells what checking some rows came to.
fn tell(
    checked: &CheckedRows,
    rejects: &mut Rejects<'_>,
    report: &mut ImportReport,
) -> Result<(), ImportError> {
    report.rejected += checked.rejected;
    report.warnings += checked.warnings;
    for (line, note) in &checked.notes {
        rejects.write(|file| match note {
            Note::Malformed(problem) => file.push_malformed(*line, problem),
            Note::Issue(issue) => file.push(*line, issue),
        })?;
    }
    Ok(())
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

/// The rejects file, and its path for errors.
struct Rejects<'a>(RejectsFile, &'a Path);

impl<'a> Rejects<'a> {
    fn new(request: &'a ImportRequest) -> Self {
        Self(RejectsFile::new(request.rejects.clone()), &request.rejects)
    }

    fn write(
        &mut self,
        write: impl FnOnce(&mut RejectsFile) -> std::io::Result<()>,
    ) -> Result<(), ImportError> {
        write(&mut self.0).map_err(|source| Self::failed(self.1, source))
    }

    fn finish(self) -> Result<Option<PathBuf>, ImportError> {
        self.0.finish().map_err(|source| Self::failed(self.1, source))
    }

    fn failed(path: &Path, source: std::io::Error) -> ImportError {
        ImportError::Report { path: path.display().to_string(), source }
    }
}

/// A file in key order.
struct ReadFile {
    sorted: Sorted,
    /// Rejected rows whose key is not known.
    unreadable: u64,
    bytes_total: u64,
    /// Under which its rows were read.
    rules: Hash,
    /// All its rows as the next full file is to be compared with them.
    rows: Option<Sorted>,
    /// A key has several rows.
    repeated: bool,
    /// What `sorted` lacks, because it was there before.
    recalled: Option<Recalled>,
}

impl ReadFile {
    fn new(sorted: Sorted, rules: Hash, bytes_total: u64) -> Self {
        Self {
            sorted,
            unreadable: 0,
            bytes_total,
            rules,
            rows: None,
            repeated: false,
            recalled: None,
        }
    }

    /// A file without rows.
    fn empty(importer: &Importer) -> Result<Self, ImportError> {
        let sorted = Sorter::new(&importer.spool_dir, importer.memory_bytes).finish()?;
        Ok(Self::new(sorted, Hash::ZERO, 0))
    }

    /// Whether what was recalled still is what the partition holds.
    fn fits(&self, store: &Store, partition: &PartitionId) -> Result<bool, ImportError> {
        let Some(recalled) = &self.recalled else {
            return Ok(true);
        };
        let head = store.head(partition).map(|head| head.position());
        if head != Some(recalled.recall.head()) {
            return Ok(false);
        }
        for (_, key) in &recalled.others {
            // A key twice in this file, once in a row that was there before.
            if recalled.open_keys.binary_search(key).is_err()
                && store.get(partition, key)?.is_some()
            {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// A file of which only what is new was read.
struct Recalled {
    /// In case that it has to be read as a whole after all.
    opened: Opened,
    recall: Recall,
    /// Keys of rows that did not come again, or that are told of again, in their
    /// order.
    open_keys: Vec<Vec<u8>>,
    /// The rows that were read.
    others: Vec<recall::Other>,
}

/// The keys that may be gone, and the rows that were read. None where a key has
/// several rows, or the side file is another one now.
fn keys(recall: &Recall, checked: &[CheckedRows]) -> Option<(Vec<Vec<u8>>, Vec<recall::Other>)> {
    let rows = checked.iter().flat_map(|checked| checked.recalled.rows());
    let others: Vec<_> =
        rows.map(|(hash, _, key)| recall::other(hash, key)).collect::<Option<_>>()?;
    let mut keys: Vec<&[u8]> = others.iter().map(|(_, key)| key.as_slice()).collect();
    keys.sort_unstable();
    if keys.windows(2).any(|pair| pair[0] == pair[1]) {
        return None;
    }
    Some((recall.open_keys()?, others))
}

/// Comparing and committing for one import.
struct Job<'a> {
    importer: &'a Importer,
    partition: PartitionId,
    schema: &'a Schema,
    comparer: Comparer<'a>,
    progress: &'a dyn Fn(Progress),
}

impl Job<'_> {
    /// Commits what differs, or says why a person has to decide first.
    fn apply(
        &self,
        request: &ImportRequest,
        read: &mut ReadFile,
        rejects: &mut Rejects<'_>,
        report: &mut ImportReport,
    ) -> Result<Option<HoldReason>, ImportError> {
        let store = &self.importer.store;
        let stored = self.importer.stored(&self.partition);
        let mut cutter = Cutter::new(store, self.partition.clone(), self.schema.version());
        report.seq = cutter.seq;
        if request.full && stored > 0 {
            // Nothing is committed before it is known how much would go.
            let mut spool = ChangeSpool::new(&self.importer.spool_dir)?;
            self.compare(read, true, rejects, report, &mut |change| Ok(spool.push(&change)?))?;
            if !request.approved
                && let Some(reason) = self.hold_reason(report, stored, read.unreadable)
            {
                return Ok(Some(reason));
            }
            spool.replay(|change| {
                self.importer.check_stop()?;
                Ok::<_, ImportError>(cutter.push(change)?)
            })?;
        } else {
            self.compare(read, false, rejects, report, &mut |change| Ok(cutter.push(change)?))?;
        }
        cutter.finish()?;
        report.change_sets = cutter.change_sets;
        report.seq = cutter.seq;
        Ok(None)
    }

    fn hold_reason(
        &self,
        report: &ImportReport,
        stored: u64,
        unreadable: u64,
    ) -> Option<HoldReason> {
        let (rule, deletes) = (self.importer.hold, report.deleted);
        if report.rows == 0 {
            return Some(HoldReason::Empty { stored });
        }
        if unreadable > 0 && deletes > 0 {
            return Some(HoldReason::Unreadable { unreadable, deletes });
        }
        let many = deletes > rule.at_least
            && deletes.saturating_mul(100) > stored.saturating_mul(rule.percent);
        many.then_some(HoldReason::Deletes { deletes, stored })
    }

    /// Walks the sorted file beside the stored records and hands the
    /// differences to `change`, in key order.
    fn compare(
        &self,
        read: &mut ReadFile,
        full: bool,
        rejects: &mut Rejects<'_>,
        report: &mut ImportReport,
        change: &mut dyn FnMut(Change) -> Result<(), ImportError>,
    ) -> Result<(), ImportError> {
        let mut cursor = Cursor::new(self.stored_pages());
        let open = read.recalled.as_ref().map(|recalled| recalled.open_keys.as_slice());
        report.unchanged += read.recalled.as_ref().map_or(0, |recalled| recalled.recall.settled());
        let mut compared = 0u64;
        // The least key that may still have to be deleted.
        let mut from: Option<Vec<u8>> = None;
        while let Some(row) = read.sorted.next()? {
            compared += 1;
            if compared.is_multiple_of(ROWS_PER_PROGRESS) {
                self.importer.check_stop()?;
                let (bytes, rows) = (read.bytes_total, report.rows);
                (self.progress)(Progress { bytes_read: bytes, bytes_total: bytes, rows, compared });
            }
            report.duplicates += row.duplicate_count;
            read.repeated |= row.repeated;
            if row.differing {
                report.warnings += 1;
            }
            for line in &row.duplicates {
                rejects.write(|file| file.push_duplicate(*line, row.line, row.differing))?;
            }
            if full {
                let to = Some(row.key.as_slice());
                self.delete_between(&mut cursor, open, from.as_deref(), to, report, change)?;
                // The least key behind this one.
                from = Some([&row.key[..], &[0]].concat());
            }
            let Some(record) = row.record else {
                // Only rejected rows have this key: what is stored stays.
                continue;
            };
            let stored = cursor.get(&row.key)?;
            match self.comparer.compare(row.key, record, stored)? {
                Difference::Unchanged => report.unchanged += 1,
                Difference::Inserted(put) => {
                    report.inserted += 1;
                    change(put)?;
                }
                Difference::Updated(put) => {
                    report.updated += 1;
                    change(put)?;
                }
                Difference::TooLong(error) => {
                    report.rejected += 1;
                    rejects.write(|file| file.push(row.line, &row_issue(error)))?;
                }
            }
        }
        if full {
            self.delete_between(&mut cursor, open, from.as_deref(), None, report, change)?;
        }
        Ok(())
    }

    /// The stored pages; none where there is nothing to look up.
    fn stored_pages(&self) -> Option<crate::store::LivePages> {
        let head = self.importer.store.head(&self.partition)?;
        (head.summary.records > 0)
            .then(|| self.importer.store.live_pages(&self.partition))
            .flatten()
    }

    /// Deletes what is stored between two keys; of that only `open` keys, if
    /// given, for the others' rows are in the file.
    fn delete_between(
        &self,
        cursor: &mut Cursor,
        open: Option<&[Vec<u8>]>,
        from: Option<&[u8]>,
        to: Option<&[u8]>,
        report: &mut ImportReport,
        change: &mut dyn FnMut(Change) -> Result<(), ImportError>,
    ) -> Result<(), ImportError> {
        let mut delete = |key: &[u8]| {
            report.deleted += 1;
            if report.deleted.is_multiple_of(ROWS_PER_PROGRESS) {
                self.importer.check_stop()?;
            }
            change(Change::Delete { key: key.to_vec() })
        };
        let Some(open) = open else {
            return cursor.keys_between(from, to, &mut delete);
        };
        let first = open.partition_point(|key| key.as_slice() < from.unwrap_or_default());
        for key in &open[first..] {
            if to.is_some_and(|to| key.as_slice() >= to) {
                break;
            }
            // A row that was rejected may have left no record.
            if cursor.get(key)?.is_some() {
                delete(key)?;
            }
        }
        Ok(())
    }
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
