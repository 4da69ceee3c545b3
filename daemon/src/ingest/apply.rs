//! Comparing a file with what is stored, and committing what differs.

use protocol::{change::Change, id::PartitionId, schema::Schema};

use super::{
    context::Context,
    cut::{ChangeSpool, Cutter},
    delivered::ReadFile,
    diff::{Comparer, Cursor, Difference, Stored},
    history::Recording,
    hold::{Evidence, Hold, Watch, code_of, is_rounded},
    rejects::Rejects,
    report::ImportReport,
    validate::{rounded_issue, row_issue},
    words::{ImportError, ImportRequest, Progress},
};

/// Rows between two looks at the clock and at whether to stop.
const ROWS_PER_PROGRESS: u64 = 4096;

/// Rounded codes that show that a file went through a spreadsheet: one may be a
/// slip of the pen.
const ROUNDED_MIN: u64 = 2;

/// Comparing and committing for one import.
pub(super) struct Job<'a> {
    pub context: &'a Context,
    pub partition: PartitionId,
    pub schema: &'a Schema,
    pub comparer: Comparer<'a>,
    pub progress: &'a dyn Fn(Progress),
}

/// What becomes of each difference: the change, and the record that was there.
type Take<'t> = &'t mut dyn FnMut(Change, Option<Vec<u8>>) -> Result<(), ImportError>;

/// Where one comparison writes what it finds.
struct Told<'t, 'r, 'w> {
    rejects: &'t mut Rejects<'r>,
    report: &'t mut ImportReport,
    watch: &'t mut Watch<'w>,
    /// The records that change are looked up, for whoever takes the changes.
    befores: bool,
}

impl Job<'_> {
    /// Commits what differs; answers why a person has to decide first, if so, and
    /// then nothing was committed.
    pub fn apply(
        &self,
        request: &ImportRequest,
        read: &mut ReadFile,
        rejects: &mut Rejects<'_>,
        report: &mut ImportReport,
        mut recording: Option<&mut Recording<'_>>,
    ) -> Result<Vec<Hold>, ImportError> {
        let stored = self.context.stored(&self.partition);
        let missing = read.missing.clone();
        let mut watch = Watch::new(self.schema, &missing, read.doubtful > 0);
        let befores = recording.as_ref().is_some_and(|recording| recording.wants_befores());
        let watched = &mut watch;
        let mut told = Told { rejects, report, watch: watched, befores };
        if self.goes_to_a_spool(request, read, stored, told.report) {
            // Nothing is committed before it is known how much would go.
            let mut spool = ChangeSpool::new(&self.context.temporary)?;
            self.compare(read, request.full, &mut told, &mut |change, before| {
                spool.push(&change)?;
                if let Some(recording) = &mut recording {
                    recording.push(change, before);
                }
                Ok(())
            })?;
            let evidence = evidence(request, read, stored, report, &watch);
            let holds = evidence.judge(&self.context.hold);
            if request.approved.is_none() && !holds.is_empty() {
                report.seq = self.seq();
                return Ok(holds);
            }
            let mut cutter = self.cutter(recording);
            spool.replay(|change| {
                self.context.check_stop()?;
                Ok::<_, ImportError>(cutter.push(change)?)
            })?;
            finish(&mut cutter, report)?;
        } else {
            let mut cutter = self.cutter(recording);
            self.compare(read, false, &mut told, &mut |change, before| {
                if befores {
                    return Ok(cutter.push_with(change, before)?);
                }
                Ok(cutter.push(change)?)
            })?;
            finish(&mut cutter, report)?;
        }
        Ok(Vec::new())
    }

    /// Compares without committing anything: `take` gets what would change, and
    /// what is stored instead. Answers the rules of holding that apply.
    pub fn compare_only(
        &self,
        request: &ImportRequest,
        read: &mut ReadFile,
        rejects: &mut Rejects<'_>,
        report: &mut ImportReport,
        take: &mut dyn FnMut(Change) -> Result<(), ImportError>,
    ) -> Result<Vec<Hold>, ImportError> {
        let stored = self.context.stored(&self.partition);
        let missing = read.missing.clone();
        let mut watch = Watch::new(self.schema, &missing, read.doubtful > 0);
        let mut told = Told { rejects, report, watch: &mut watch, befores: false };
        self.compare(read, request.full, &mut told, &mut |change, _| take(change))?;
        report.seq = self.seq();
        Ok(evidence(request, read, stored, report, &watch).judge(&self.context.hold))
    }

    /// Whether differences are set aside until all are known: a rule of holding
    /// may apply, as far as that is known before the comparison, or records may
    /// be deleted. What cannot be held is committed while it is compared.
    fn goes_to_a_spool(
        &self,
        request: &ImportRequest,
        read: &ReadFile,
        stored: u64,
        report: &ImportReport,
    ) -> bool {
        let limits = &self.context.hold;
        if request.full && stored > 0 {
            return true;
        }
        let approved = request.approved.is_some();
        if !approved && limits.is_garbled(read.garbled, sound(report)) {
            return true;
        }
        if approved || read.doubtful == 0 || read.doubtful < limits.doubtful_min {
            return false;
        }
        // Into an empty partition all keys are new. A real register has some odd
        // codes, and its first load must not go through a temporary file for them.
        // Rows of one key count several times here, so there is a margin of two.
        let keys = sound(report);
        stored > 0 || 200 * u128::from(read.doubtful) > u128::from(limits.doubtful_percent * keys)
    }

    fn cutter<'c, 'h>(&'c self, recording: Option<&'c mut Recording<'h>>) -> Cutter<'c, 'h> {
        let version = self.schema.version();
        Cutter::new(&self.context.store, self.partition.clone(), version, recording)
    }

    fn seq(&self) -> u64 {
        self.context.store.seq(&self.partition)
    }

    /// Walks the sorted file beside the stored records and hands the
    /// differences to `take`, in key order.
    fn compare(
        &self,
        read: &mut ReadFile,
        full: bool,
        told: &mut Told<'_, '_, '_>,
        take: Take<'_>,
    ) -> Result<(), ImportError> {
        // Where nearly every record is compared, whole leaves cost less.
        let few = !full || read.recalled.is_some();
        let by_digest = few && self.comparer.needs_no_records();
        let mut cursor = Cursor::new(self.stored_pages(), by_digest);
        let open = read.recalled.as_ref().map(|recalled| recalled.open_keys.as_slice());
        told.report.unchanged +=
            read.recalled.as_ref().map_or(0, |recalled| recalled.recall.settled());
        let mut compared = 0u64;
        // Of codes that a spreadsheet has rounded, one in 31 has a right check
        // character by accident. Where others show that this happened, new codes
        // of that kind are no codes.
        let rounded = code_of(self.schema)
            .is_some_and(|code| told.rejects.rounded(&code.name) >= ROUNDED_MIN);
        // The least key that may still have to be deleted.
        let mut from: Option<Vec<u8>> = None;
        while let Some(row) = read.sorted.next()? {
            compared += 1;
            if compared.is_multiple_of(ROWS_PER_PROGRESS) {
                self.context.check_stop()?;
                let (bytes, rows) = (read.bytes_total, told.report.rows);
                (self.progress)(Progress { bytes_read: bytes, bytes_total: bytes, rows, compared });
            }
            told.report.duplicates += row.duplicate_count;
            if row.repeated {
                read.repeated.push(&row.key);
            }
            if row.differing {
                told.report.warnings += 1;
            }
            told.rejects.duplicates(&row.duplicates, row.duplicate_count, row.place, row.differing);
            if full {
                let to = Some(row.key.as_slice());
                self.delete_between(&mut cursor, open, from.as_deref(), to, told, take)?;
                // The least key behind this one.
                from = Some([&row.key[..], &[0]].concat());
            }
            let Some(record) = row.record else {
                // Only rejected rows have this key: what is stored stays.
                continue;
            };
            let stored = cursor.get(&row.key)?;
            if rounded && matches!(stored, Stored::Nothing) && is_rounded(&row.key) {
                told.report.rejected += 1;
                told.rejects.late(row.place, &rounded_issue(self.schema))?;
                // It has left no record, so it is looked at again the next time.
                read.repeated.push(&row.key);
                continue;
            }
            match self.comparer.compare(row.key, record, stored)? {
                Difference::Unchanged => told.report.unchanged += 1,
                Difference::Inserted(put) => {
                    told.report.inserted += 1;
                    told.watch.insert(put.key());
                    take(put, None)?;
                }
                Difference::Updated(put) => {
                    told.report.updated += 1;
                    let before = self.before(&mut cursor, &put, full, told)?;
                    take(put, before)?;
                }
                Difference::TooLong(error) => {
                    told.report.rejected += 1;
                    told.rejects.late(row.place, &row_issue(error))?;
                }
            }
        }
        if full {
            self.delete_between(&mut cursor, open, from.as_deref(), None, told, take)?;
        }
        Ok(())
    }

    /// The stored record that a change replaces, where somebody wants it.
    fn before(
        &self,
        cursor: &mut Cursor,
        put: &Change,
        full: bool,
        told: &mut Told<'_, '_, '_>,
    ) -> Result<Option<Vec<u8>>, ImportError> {
        if !full && !told.befores {
            return Ok(None);
        }
        let Some(old) = cursor.record(put.key())? else {
            return Ok(None);
        };
        if full && let Some((key, new)) = put.entry() {
            let (old, new) = (self.comparer.values_of(old)?, self.comparer.values_of(new)?);
            told.watch.update(key, &old, &new);
        }
        Ok(told.befores.then(|| old.to_vec()))
    }

    /// The stored pages; none where there is nothing to look up.
    fn stored_pages(&self) -> Option<store::LivePages> {
        let head = self.context.store.head(&self.partition)?;
        (head.summary.records > 0).then(|| self.context.store.live_pages(&self.partition)).flatten()
    }

    /// Deletes what is stored between two keys; of that only `open` keys, if
    /// given, for the others' rows are in the file.
    fn delete_between(
        &self,
        cursor: &mut Cursor,
        open: Option<&[Vec<u8>]>,
        from: Option<&[u8]>,
        to: Option<&[u8]>,
        told: &mut Told<'_, '_, '_>,
        take: Take<'_>,
    ) -> Result<(), ImportError> {
        let mut delete = |key: &[u8], before: Option<&[u8]>| {
            told.report.deleted += 1;
            if told.report.deleted.is_multiple_of(ROWS_PER_PROGRESS) {
                self.context.check_stop()?;
            }
            told.watch.delete(key);
            let before = before.filter(|_| told.befores).map(<[u8]>::to_vec);
            take(Change::Delete { key: key.to_vec() }, before)
        };
        let Some(open) = open else {
            return cursor.records_between(from, to, &mut |key, value| delete(key, Some(value)));
        };
        let first = open.partition_point(|key| key.as_slice() < from.unwrap_or_default());
        for key in &open[first..] {
            if to.is_some_and(|to| key.as_slice() >= to) {
                break;
            }
            // A row that was rejected may have left no record.
            if !matches!(cursor.get(key)?, Stored::Nothing) {
                delete(key, cursor.record(key)?)?;
            }
        }
        Ok(())
    }
}

/// What the rules of holding look at, after a comparison.
fn evidence<'w>(
    request: &ImportRequest,
    read: &ReadFile,
    stored: u64,
    report: &ImportReport,
    watch: &'w Watch<'w>,
) -> Evidence<'w> {
    Evidence {
        full: request.full,
        stored,
        rows: report.rows,
        inserted: report.inserted,
        deleted: report.deleted,
        compared: report.updated + report.unchanged,
        cut: read.summary.cut,
        left_out: read.summary.left_out.iter().filter(|part| part.doubtful).count() as u64,
        mended: read.mended,
        rejected: report.rejected,
        unreadable: read.unreadable,
        suspicious: report.suspicious,
        garbled: read.garbled,
        watch,
    }
}

/// Rows that make a record.
fn sound(report: &ImportReport) -> u64 {
    report.rows.saturating_sub(report.rejected)
}

/// Commits the rest; everything is durable when this answers.
fn finish(cutter: &mut Cutter<'_, '_>, report: &mut ImportReport) -> Result<(), ImportError> {
    cutter.finish()?;
    report.change_sets = cutter.change_sets;
    report.seq = cutter.seq;
    Ok(())
}
