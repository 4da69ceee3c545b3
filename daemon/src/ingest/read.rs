//! A file's rows to checked records, on all cores.
//!
//! Three things go on at a time: one thread splits what comes next, all of them
//! look at what was split before, and one hands on, in the file's order, what
//! came of that.
//!
//! Invariant: what is handed on, and its order, do not depend on the number of
//! cores. Memory is bounded by three groups of batches.

use rayon::iter::{IntoParallelIterator as _, ParallelIterator as _};

use super::{
    decode::{CsvFile, FileError, Row, RowBatch, RowProblem},
    recall::{Recall, RowHash, RowKey},
    spool::{Buffer, SpoolError},
    validate::{RowIssue, Severity, Validator},
};

/// Batches for each core that are split before they are looked at together:
/// several, so that one core may be slower.
const BATCHES_A_CORE: usize = 4;
/// Batches that are split at once at most: 8 MB.
const BATCHES_MAX: usize = 64;

/// What became of some consecutive rows.
#[derive(Debug, Default)]
pub(super) struct CheckedRows {
    pub rows: u64,
    /// Rows that make no record.
    pub rejected: u64,
    /// Those among them whose key is not known either.
    pub unreadable: u64,
    /// Warnings about rows that make a record.
    pub warnings: u64,
    /// What is to be told of them, in the file's order.
    pub notes: Vec<(u64, Note)>,
    /// The rows whose key is known.
    pub records: Buffer,
    /// The same rows as a later import is to recall them, if it is.
    pub recalled: Buffer,
}

/// Something to be told of a row.
#[derive(Debug)]
pub(super) enum Note {
    Malformed(RowProblem),
    Issue(RowIssue),
}

/// Why reading stopped.
pub(super) trait ReadError: From<FileError> + From<SpoolError> + Send {}
impl<E: From<FileError> + From<SpoolError> + Send> ReadError for E {}

/// Reads `file` to its end; `take` gets the checked rows, in the file's order.
/// With a `key` a later import is to recall them, and rows are hashed with it.
/// `pause` is called now and then, with the bytes and rows that were read.
pub(super) fn check_rows<E: ReadError>(
    file: &mut CsvFile,
    validator: &Validator,
    key: Option<&RowKey>,
    pause: impl FnMut(u64, u64) -> Result<(), E>,
    mut take: impl FnMut(CheckedRows) -> Result<(), E> + Send,
) -> Result<(), E> {
    let split = |file: &mut CsvFile| file.next_rows().map(|batch| (batch.len(), batch));
    let check = |batch| check(validator, batch, key);
    read(file, split, check, pause, |checked| take(checked?).map(|()| true)).map(drop)
}

/// Reads `file` to its end as long as nearly all of its rows are recalled.
/// Answers how many rows it has, and the others, checked; none if reading it as
/// a whole is called for.
pub(super) fn recall_rows<E: ReadError>(
    file: &mut CsvFile,
    validator: &Validator,
    recall: &Recall,
    pause: impl FnMut(u64, u64) -> Result<(), E>,
) -> Result<Option<(u64, Vec<CheckedRows>)>, E> {
    let (mut rows, mut fresh) = (0, recall.none_fresh());
    let all = read(
        file,
        |file| file.next_bodies().map(|batch| (batch.len(), batch)),
        |batch| recall.look(batch),
        pause,
        |looked| {
            rows += looked.rows;
            Ok(fresh.take(looked))
        },
    )?;
    if !all {
        return Ok(None);
    }
    let checked: Vec<_> = fresh
        .batches
        .into_par_iter()
        .map(|batch| check(validator, batch, Some(recall.key())))
        .collect();
    let checked = checked.into_iter().collect::<Result<Vec<_>, SpoolError>>()?;
    let readable = checked.iter().all(|checked| checked.unreadable == 0);
    Ok(readable.then_some((rows, checked)))
}

/// Has all cores look at the rows that `split` takes from the file, so many at a
/// time, and hands on what came of it until `take` wants no more; answers whether
/// it wanted all.
fn read<B: Send, T: Send, E: ReadError>(
    file: &mut CsvFile,
    split: impl Fn(&mut CsvFile) -> Result<(usize, B), FileError> + Sync,
    look: impl Fn(B) -> T + Sync,
    mut pause: impl FnMut(u64, u64) -> Result<(), E>,
    mut take: impl FnMut(T) -> Result<bool, E> + Send,
) -> Result<bool, E> {
    let (mut looked_at, mut rows) = (Vec::new(), 0);
    let (mut more, mut batches) = split_some(file, &split)?;
    while !batches.is_empty() || !looked_at.is_empty() {
        rows += more;
        pause(file.bytes_read(), rows)?;
        let mut hand_on = || -> Result<_, E> {
            for one in std::mem::take(&mut looked_at) {
                if !take(one)? {
                    return Ok(None);
                }
            }
            Ok(Some(split_some(file, &split)?))
        };
        let (next, now) = match batches.len() {
            // A small file, or the end of one: other threads are not worth waking.
            0 | 1 => (hand_on(), batches.into_iter().map(&look).collect()),
            _ => rayon::join(hand_on, || batches.into_par_iter().map(&look).collect::<Vec<_>>()),
        };
        match next? {
            Some(next) => (more, batches) = next,
            None => return Ok(false),
        }
        looked_at = now;
    }
    pause(file.bytes_read(), rows)?;
    Ok(true)
}

/// The next batches, and how many rows they have.
fn split_some<B>(
    file: &mut CsvFile,
    split: impl Fn(&mut CsvFile) -> Result<(usize, B), FileError>,
) -> Result<(u64, Vec<B>), FileError> {
    let at_once = (rayon::current_num_threads() * BATCHES_A_CORE).min(BATCHES_MAX);
    let (mut batches, mut rows) = (Vec::with_capacity(at_once), 0);
    while batches.len() < at_once {
        let (more, batch) = split(file)?;
        if more == 0 {
            break;
        }
        rows += more as u64;
        batches.push(batch);
    }
    Ok((rows, batches))
}

fn check(
    validator: &Validator,
    batch: RowBatch,
    key: Option<&RowKey>,
) -> Result<CheckedRows, SpoolError> {
    let mut validator = validator.clone();
    let mut out = CheckedRows { rows: batch.len() as u64, ..CheckedRows::default() };
    let hashes: Vec<RowHash> = match key.map(RowKey::hasher) {
        Some(hasher) => batch.bodies().map(|body| hasher.hash(body.unwrap_or_default())).collect(),
        None => Vec::new(),
    };
    let mut hashes = hashes.into_iter();
    let mut pushed = Ok(());
    batch.for_each(|row| {
        let hash = hashes.next();
        let (line, fields) = match row {
            Row::Fields { line, fields } => (line, fields),
            Row::Malformed { line, problem } => {
                out.rejected += 1;
                out.unreadable += 1;
                out.notes.push((line, Note::Malformed(problem)));
                return;
            }
        };
        let checked = validator.row(fields.iter());
        if checked.record.is_none() {
            out.rejected += 1;
        } else {
            let warnings =
                checked.issues.iter().filter(|issue| issue.severity == Severity::Warning);
            out.warnings += warnings.count() as u64;
        }
        match &checked.key {
            None => out.unreadable += 1,
            Some(key) if pushed.is_ok() => {
                pushed = out.records.push(key, line, checked.record.as_deref());
                if let Some(hash) = hash
                    && pushed.is_ok()
                {
                    let hash = hash.noted(!checked.issues.is_empty());
                    pushed = out.recalled.push(&hash.to_bytes(), line, Some(key));
                }
            }
            Some(_) => {}
        }
        out.notes.extend(checked.issues.into_iter().map(|issue| (line, Note::Issue(issue))));
    });
    pushed.map(|()| out)
}
