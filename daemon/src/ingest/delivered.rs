//! A delivery on its way to sorted records: read as a whole, or only what is new
//! of it.
//!
//! The importer asks for a [`ReadFile`] and compares it with what is stored
//! (`apply`). Here it is decided which way a file is read: what [`recall`] knows
//! from the last one is not read again, and whatever is doubtful about that leads
//! back to the file's first row. Not here: how rows are checked (`check`), and how
//! a row is recognised (`recall`).

use std::path::PathBuf;

use protocol::{id::PartitionId, schema::Schema, suite::checksum::Checksum};
use store::Store;

use super::{
    check::{self, CheckedRows},
    context::Context,
    recall::{self, Recall, Repeated, RowKey},
    rejects::Rejects,
    report::ImportReport,
    source::{Recallable, SourceError, Summary, Table},
    spool::{Sorted, Sorter},
    validate::Validator,
    words::{ImportError, ImportRequest, Progress},
};

/// What is kept of a row for the next full file, roughly: a hash and a key.
const NOTE_BYTES: usize = 64;

/// Reads a delivery, by the shorter way if there is one. `told` gets what checking
/// its rows comes to.
pub(super) fn read(
    context: &Context,
    request: &ImportRequest,
    schema: &Schema,
    partition: &PartitionId,
    told: &mut Told<'_, '_>,
) -> Result<ReadFile, ImportError> {
    if let Some((table, recall)) = recall_last(context, request, schema, partition)
        && let Some(read) = read_new(context, table, recall, schema, told)?
    {
        return Ok(read);
    }
    read_whole(context, request, schema, request.full || context.stored(partition) == 0, told)
}

/// Reads all rows into sorted records; `note` says that a later full file may be
/// compared with this one.
pub(super) fn read_whole(
    context: &Context,
    request: &ImportRequest,
    schema: &Schema,
    note: bool,
    told: &mut Told<'_, '_>,
) -> Result<ReadFile, ImportError> {
    let mut table = match request.source.open(schema) {
        // A full file that suddenly is empty has no rows, not even a header.
        Err(SourceError::Empty(_)) if request.full => return ReadFile::empty(context),
        opened => opened.map_err(|error| ImportError::of_source(error, &request.dataset))?,
    };
    let validator = Validator::new(schema, table.mapping().columns());
    let describer = told.rejects.begin(schema, table.as_ref());
    // Without one, it is not compared.
    let key = note.then(RowKey::draw).and_then(Result::ok);
    let for_notes = if key.is_some() { context.memory_bytes / 4 } else { 0 };
    let mut sorter = Sorter::new(&context.temporary, context.memory_bytes - for_notes);
    let mut rows = key.as_ref().map(|_| Sorter::new(&context.temporary, for_notes));
    let (mut unreadable, mut doubtful, mut garbled) = (0, 0, 0);
    let bytes_total = table.bytes_total();
    let (report, rejects) = (&mut *told.report, &mut *told.rejects);
    let pause = |bytes_read, rows| {
        context.pause(told.progress, Progress { bytes_read, bytes_total, rows, compared: 0 })
    };
    let (validator, describer) = (&validator, describer.as_ref());
    check::check_rows(table.as_mut(), validator, describer, key.as_ref(), pause, |checked| {
        tell(&checked, rejects, report)?;
        report.rows += checked.rows;
        unreadable += checked.unreadable;
        doubtful += checked.doubtful;
        garbled += checked.garbled;
        sorter.append(&checked.records)?;
        if let Some(rows) = &mut rows {
            rows.append(&checked.recalled)?;
        }
        Ok::<_, ImportError>(())
    })?;
    Ok(ReadFile {
        unreadable,
        mended: table.mapping().is_of_rejects(),
        doubtful,
        garbled,
        rows: key.zip(rows.map(Sorter::finish).transpose()?),
        missing: table.mapping().missing().to_vec(),
        summary: table.summary(),
        ..ReadFile::new(sorter.finish()?, rules_of(table.as_ref(), schema), bytes_total)
    })
}

/// Reads what is new in a full file; none where reading all of it is called for,
/// and then nothing was told.
fn read_new(
    context: &Context,
    mut table: Box<dyn Recallable>,
    recall: Recall,
    schema: &Schema,
    told: &mut Told<'_, '_>,
) -> Result<Option<ReadFile>, ImportError> {
    let validator = Validator::new(schema, table.mapping().columns());
    let describer = told.rejects.begin(schema, table.as_table());
    let bytes_total = table.bytes_total();
    let pause = |bytes_read, rows| {
        context.pause(told.progress, Progress { bytes_read, bytes_total, rows, compared: 0 })
    };
    let recalled =
        check::recall_rows(table.as_mut(), &validator, describer.as_ref(), &recall, pause)?;
    let Some((rows, checked)) = recalled else {
        return Ok(None);
    };
    // Which rows are in another encoding is judged beside all the others.
    let odd = |checked: &CheckedRows| {
        ["encoding", "other-encoding", "doubtful-encoding"]
            .iter()
            .any(|code| checked.tally.count(code, "") > 0)
    };
    if checked.iter().any(|checked| odd(checked) || checked.another_header.is_some()) {
        return Ok(None);
    }
    let Some((open_keys, others)) = keys(&recall, &checked) else {
        return Ok(None);
    };
    let mut sorter = Sorter::new(&context.temporary, context.memory_bytes);
    let mut unreadable = 0;
    for checked in &checked {
        tell(checked, told.rejects, told.report)?;
        unreadable += checked.unreadable;
        sorter.append(&checked.records)?;
    }
    told.report.rows = rows;
    let read = ReadFile::new(sorter.finish()?, rules_of(table.as_table(), schema), bytes_total);
    let recalled = Some(Recalled { recall, open_keys, others });
    let missing = table.mapping().missing().to_vec();
    let doubtful = checked.iter().map(|checked| checked.doubtful).sum();
    let garbled = checked.iter().map(|checked| checked.garbled).sum();
    let summary = table.summary();
    let mended = table.mapping().is_of_rejects();
    let summed = ReadFile { unreadable, mended, doubtful, garbled, ..read };
    Ok(Some(ReadFile { recalled, missing, summary, ..summed }))
}

/// A full file and the last one, if it can be compared with that.
fn recall_last(
    context: &Context,
    request: &ImportRequest,
    schema: &Schema,
    partition: &PartitionId,
) -> Option<(Box<dyn Recallable>, Recall)> {
    let head = context.store.head(partition).filter(|_| request.full)?.position();
    let found = recall::find(&recall_path(context, partition), head)?;
    let mut table = request.source.open_quickly(schema)?;
    (rules_of(table.as_table(), schema) == found.rules()).then_some(())?;
    Some((table, found.load(context.memory_bytes)?))
}

fn recall_path(context: &Context, partition: &PartitionId) -> PathBuf {
    context.recall_dir.join(format!("{}.rows", partition.dataset))
}

fn rules_of(table: &dyn Table, schema: &Schema) -> Checksum {
    recall::rules(&table.reading(), schema)
}

/// Keeps what the next full file can be compared with. It saves time only, so a
/// failure costs nothing else.
pub(super) fn note_whole(
    context: &Context,
    partition: &PartitionId,
    read: ReadFile,
    report: &ImportReport,
) {
    let path = recall_path(context, partition);
    let Some(head) = context.store.head(partition).map(|head| head.position()) else {
        return;
    };
    let bytes = usize::try_from(report.rows).unwrap_or(usize::MAX).saturating_mul(NOTE_BYTES);
    if !context.store.has_room(bytes) {
        recall::remove(&path);
        return;
    }
    let repeated = &read.repeated;
    let noted = match (read.recalled, read.rows) {
        _ if !repeated.are_few() => {
            recall::remove(&path);
            Ok(())
        }
        (Some(recalled), _) => recalled
            .recall
            .renew(head, recalled.others, repeated)
            .map_err(|error| error.to_string()),
        (None, Some(rows)) => recall::note(&path, head, read.rules, rows, report.rows, repeated)
            .map_err(|error| error.to_string()),
        _ => {
            recall::remove(&path);
            Ok(())
        }
    };
    if let Err(error) = noted {
        tracing::warn!(path = %path.display(), error, "the next full file will be read as a whole: this one could not be noted");
        recall::remove(&path);
    }
}

/// Where it is told what becomes of rows.
pub(super) struct Told<'a, 'r> {
    pub rejects: &'a mut Rejects<'r>,
    pub report: &'a mut ImportReport,
    pub progress: &'a dyn Fn(Progress),
}

/// Tells what checking some rows came to.
fn tell(
    checked: &CheckedRows,
    rejects: &mut Rejects<'_>,
    report: &mut ImportReport,
) -> Result<(), ImportError> {
    if let Some([zh, en]) = checked.another_header.clone() {
        return Err(ImportError::SecondHeader { zh, en });
    }
    report.rejected += checked.rejected;
    report.warnings += checked.warnings;
    report.skipped += checked.skipped;
    report.suspicious += checked.suspicious;
    rejects.take(checked)
}

/// A file in key order.
pub(super) struct ReadFile {
    pub sorted: Sorted,
    /// Rejected rows whose key is not known.
    pub unreadable: u64,
    /// It has the columns of a rejects file.
    pub mended: bool,
    /// Rows whose key has a wrong check character.
    pub doubtful: u64,
    /// Rows with a text of a wrong encoding.
    pub garbled: u64,
    pub bytes_total: u64,
    /// What it was as a whole.
    pub summary: Summary,
    /// Fields that it has no column for.
    pub missing: Vec<usize>,
    /// Under which its rows were read.
    rules: Checksum,
    /// All its rows as the next full file is to be compared with them.
    rows: Option<(RowKey, Sorted)>,
    /// Keys that have several rows.
    pub repeated: Repeated,
    /// What `sorted` lacks, because it was there before.
    pub recalled: Option<Recalled>,
}

impl ReadFile {
    fn new(sorted: Sorted, rules: Checksum, bytes_total: u64) -> Self {
        Self {
            sorted,
            unreadable: 0,
            mended: false,
            doubtful: 0,
            garbled: 0,
            bytes_total,
            summary: Summary::default(),
            missing: Vec::new(),
            rules,
            rows: None,
            repeated: Repeated::default(),
            recalled: None,
        }
    }

    /// A file without rows.
    fn empty(context: &Context) -> Result<Self, ImportError> {
        let sorted = Sorter::new(&context.temporary, context.memory_bytes).finish()?;
        Ok(Self::new(sorted, Checksum::ZERO, 0))
    }

    /// Whether what was recalled still is what the partition holds.
    pub fn fits(&self, store: &Store, partition: &PartitionId) -> Result<bool, ImportError> {
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
pub(super) struct Recalled {
    pub recall: Recall,
    /// Keys of rows that did not come again, or that are told of again, in their
    /// order.
    pub open_keys: Vec<Vec<u8>>,
    /// The rows that were read.
    others: Vec<recall::Keyed>,
}

/// The keys that may be gone, and the rows that were read. None where the side file
/// is another one now.
fn keys(recall: &Recall, checked: &[CheckedRows]) -> Option<(Vec<Vec<u8>>, Vec<recall::Keyed>)> {
    let rows = checked.iter().flat_map(|checked| checked.recalled.rows());
    let others: Vec<_> =
        rows.map(|(hash, _, key)| recall::keyed(hash, key)).collect::<Option<_>>()?;
    Some((recall.open_keys()?, others))
}
