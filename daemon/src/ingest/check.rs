//! Rows to checked records, on all cores.
//!
//! Three things go on at a time: one thread splits what comes next, all of them
//! look at what was split before, and one hands on, in the file's order, what
//! came of that.
//!
//! Invariant: what is handed on, and its order, do not depend on the number of
//! cores. Memory is bounded by three groups of batches.

use rayon::iter::{IntoParallelIterator as _, ParallelIterator as _};

use super::{
    hold::is_doubtful,
    recall::{Recall, RowHash, RowKey},
    report::{Describer, RejectedRows, Tally},
    rows::{Row, RowNote, RowProblem},
    skip,
    source::{Recallable, RowBodies, Rows, SourceError, Table},
    spool::{Buffer, SpoolError},
    validate::{RowIssue, Rule, Severity, Validator},
    words::ImportError,
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
    /// Lines that are no rows: blank ones, repeated headers, totals.
    pub skipped: u64,
    /// Rows that make no record.
    pub rejected: u64,
    /// Those among them whose key is not known either.
    pub unreadable: u64,
    /// Warnings about rows that make a record.
    pub warnings: u64,
    /// Rows whose columns may be others than they seem.
    pub suspicious: u64,
    /// Rows that make a record whose key has a wrong check character.
    pub doubtful: u64,
    /// Rows that make a record with a text of a wrong encoding.
    pub garbled: u64,
    /// Where a header of other columns stands, in Chinese and English: which columns
    /// the rows below it have is not known.
    pub another_header: Option<[String; 2]>,
    /// What is to be told of them.
    pub tally: Tally,
    /// The rejected ones as they were delivered, as long as there is room.
    pub rejected_rows: RejectedRows,
    /// The rows whose key is known.
    pub records: Buffer,
    /// The same rows as a later import is to recall them, if it is.
    pub recalled: Buffer,
}

/// Reads `table` to its end; `take` gets the checked rows, in their order. With a
/// `key` a later import is to recall them, and rows are hashed with it. `pause` is
/// called now and then, with the bytes and rows that were read.
pub(super) fn check_rows(
    table: &mut dyn Table,
    validator: &Validator,
    describer: &Describer,
    key: Option<&RowKey>,
    pause: impl FnMut(u64, u64) -> Result<(), ImportError>,
    mut take: impl FnMut(CheckedRows) -> Result<(), ImportError> + Send,
) -> Result<(), ImportError> {
    let split = || {
        let rows = table.next_rows()?;
        Ok(Split { count: rows.len(), blank: rows.blank(), bytes_read: table.bytes_read(), rows })
    };
    let check = |rows| check(validator, describer, rows, key);
    read(split, check, pause, |checked| take(checked?).map(|()| true)).map(drop)
}

/// Reads `table` to its end as long as nearly all of its rows are recalled.
/// Answers how many rows it has, and the others, checked; none if reading it as
/// a whole is called for.
pub(super) fn recall_rows(
    table: &mut dyn Recallable,
    validator: &Validator,
    describer: &Describer,
    recall: &Recall,
    pause: impl FnMut(u64, u64) -> Result<(), ImportError>,
) -> Result<Option<(u64, Vec<CheckedRows>)>, ImportError> {
    let (mut rows, mut blank, mut fresh) = (0, 0, recall.none_fresh());
    let split = || {
        let rows = table.next_bodies()?;
        Ok(Split { count: rows.len(), blank: rows.blank(), bytes_read: table.bytes_read(), rows })
    };
    let look = |bodies: Box<dyn RowBodies>| recall.look(bodies.as_ref());
    let all = read(split, look, pause, |looked| {
        rows += looked.settled;
        blank += looked.blank;
        Ok(fresh.take(looked))
    })?;
    if !all {
        return Ok(None);
    }
    let checked: Vec<_> = fresh
        .batches
        .into_par_iter()
        .map(|batch| check(validator, describer, batch, Some(recall.key())))
        .collect();
    let mut checked = checked.into_iter().collect::<Result<Vec<_>, SpoolError>>()?;
    checked.push(CheckedRows { skipped: blank, ..CheckedRows::default() });
    rows += checked.iter().map(|checked| checked.rows).sum::<u64>();
    Ok(Some((rows, checked)))
}

/// Rows that were split and not yet looked at.
struct Split<B> {
    rows: B,
    count: usize,
    /// Lines among them that are none.
    blank: u64,
    /// How far the source was read by then.
    bytes_read: u64,
}

/// Has all cores look at the rows that `split` gives, so many at a time, and hands
/// on what came of it until `take` wants no more; answers whether it wanted all.
fn read<B: Send, T: Send>(
    mut split: impl FnMut() -> Result<Split<B>, SourceError> + Send,
    look: impl Fn(B) -> T + Sync,
    mut pause: impl FnMut(u64, u64) -> Result<(), ImportError>,
    mut take: impl FnMut(T) -> Result<bool, ImportError> + Send,
) -> Result<bool, ImportError> {
    let (mut looked_at, mut rows) = (Vec::new(), 0);
    let mut some = split_some(&mut split)?;
    while !some.batches.is_empty() || !looked_at.is_empty() {
        rows += some.count;
        pause(some.bytes_read, rows)?;
        let mut hand_on = || -> Result<_, ImportError> {
            for one in std::mem::take(&mut looked_at) {
                if !take(one)? {
                    return Ok(None);
                }
            }
            Ok(Some(split_some(&mut split)?))
        };
        let batches = std::mem::take(&mut some.batches);
        let (next, now) = match batches.len() {
            // A small file, or the end of one: other threads are not worth waking.
            0 | 1 => (hand_on(), batches.into_iter().map(&look).collect()),
            _ => rayon::join(hand_on, || batches.into_par_iter().map(&look).collect::<Vec<_>>()),
        };
        match next? {
            Some(next) => some = next,
            None => return Ok(false),
        }
        looked_at = now;
    }
    pause(some.bytes_read, rows)?;
    Ok(true)
}

/// Batches that are looked at together.
struct Group<B> {
    batches: Vec<B>,
    count: u64,
    bytes_read: u64,
}

fn split_some<B>(
    split: &mut impl FnMut() -> Result<Split<B>, SourceError>,
) -> Result<Group<B>, ImportError> {
    let at_once = (rayon::current_num_threads() * BATCHES_A_CORE).min(BATCHES_MAX);
    let mut group = Group { batches: Vec::with_capacity(at_once), count: 0, bytes_read: 0 };
    while group.batches.len() < at_once {
        let Split { rows, count, blank, bytes_read } = split().map_err(ImportError::Source)?;
        group.bytes_read = bytes_read;
        // Blank lines may be all that is left of a part.
        if count == 0 && blank == 0 {
            break;
        }
        group.count += count as u64;
        group.batches.push(rows);
    }
    Ok(group)
}

fn check(
    validator: &Validator,
    describer: &Describer,
    batch: Box<dyn Rows>,
    key: Option<&RowKey>,
) -> Result<CheckedRows, SpoolError> {
    let mapping = batch.mapping().clone();
    let mut validator = validator.for_columns(mapping.columns());
    let mut out =
        CheckedRows { rows: batch.len() as u64, skipped: batch.blank(), ..CheckedRows::default() };
    let hashes: Vec<RowHash> = match key.map(RowKey::hasher) {
        Some(hasher) => {
            (0..batch.len()).map(|at| hasher.hash(batch.body(at).unwrap_or_default())).collect()
        }
        None => Vec::new(),
    };
    let mut hashes = hashes.into_iter();
    let mut pushed = Ok(());
    batch.for_each(&mut |row| {
        let hash = hashes.next();
        let (place, fields, note) = match row {
            Row::Fields { place, fields, note } => (place, fields, note),
            Row::Malformed { place, problem, text } => {
                out.rejected += 1;
                out.unreadable += 1;
                out.tally.add_malformed(place, &problem);
                if !describer.is_full() {
                    let words = describer.words_malformed(place, &problem, &text, &mapping);
                    out.rejected_rows.push(words, &describer.malformed_cells(&text));
                }
                return;
            }
        };
        if skip::is_no_data(&mapping, fields) {
            out.rows -= 1;
            out.skipped += 1;
            return;
        }
        if let Some(note) = note {
            out.suspicious += u64::from(note.is_suspicious());
        }
        let mut checked = validator.row(mapping.texts(fields));
        if checked.record.is_some() && skip::has_total_as_key(&mapping, fields) {
            (checked.record, checked.key) = (None, None);
            checked.issues.push(validator.total_as_key());
        }
        let unlabelled = mapping.unlabelled_value(fields);
        if unlabelled.is_some() {
            checked.record = None;
        }
        let rejected = checked.record.is_none();
        for issue in &checked.issues {
            // Warnings count about rows that go in: whoever mends the others sees
            // what rejects them first.
            if rejected == (issue.severity == Severity::Reject) {
                out.warnings += u64::from(!rejected);
                out.tally.add_issue(place, issue);
            }
        }
        let problem = unlabelled.map(|column| RowProblem::Unlabelled { column });
        if let Some(problem) = &problem {
            out.tally.add_malformed(place, problem);
        }
        if out.another_header.is_none() && mapping.is_another_header(fields, rejected) {
            out.another_header = Some(describer.place(place));
        }
        if rejected {
            out.rejected += 1;
            if !describer.is_full() {
                let words = match &problem {
                    Some(problem) => describer.words_malformed(place, problem, "", &mapping),
                    None => describer.words(place, &checked.issues),
                };
                out.rejected_rows.push(words, &describer.cells(fields, &mapping));
            }
        } else if let Some(note) = note {
            out.warnings += 1;
            out.tally.add_odd(place, note);
        }
        let is_garbled = |issue: &RowIssue| issue.rule == Rule::Mojibake { certain: true };
        let is_garbled = note == Some(RowNote::Doubtful) || checked.issues.iter().any(is_garbled);
        out.garbled += u64::from(!rejected && is_garbled);
        if let Some(key) = checked.key.as_ref().filter(|_| checked.record.is_some())
            // A wrong check character is told of.
            && !checked.issues.is_empty()
        {
            out.doubtful += u64::from(is_doubtful(key));
        }
        match &checked.key {
            None => out.unreadable += 1,
            Some(key) if pushed.is_ok() => {
                pushed = out.records.push(key, place, checked.record.as_deref());
                if let Some(hash) = hash
                    && pushed.is_ok()
                {
                    let told =
                        note.is_some() || !checked.issues.is_empty() || checked.record.is_none();
                    let hash = hash.noted(told);
                    pushed = out.recalled.push(&hash.to_bytes(), place, Some(key));
                }
            }
            Some(_) => {}
        }
    });
    pushed.map(|()| out)
}
