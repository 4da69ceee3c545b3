//! Comparing a file with what is stored, and committing what differs.

use protocol::{change::Change, id::PartitionId, schema::Schema};

use super::{
    context::Context,
    cut::{ChangeSpool, Cutter},
    delivered::ReadFile,
    diff::{Comparer, Cursor, Difference, Stored},
    rejects::Rejects,
    report::ImportReport,
    validate::row_issue,
    words::{HoldReason, ImportError, ImportRequest, Progress},
};

/// Rows between two looks at the clock and at whether to stop.
const ROWS_PER_PROGRESS: u64 = 4096;

/// Comparing and committing for one import.
pub(super) struct Job<'a> {
    pub context: &'a Context,
    pub partition: PartitionId,
    pub schema: &'a Schema,
    pub comparer: Comparer<'a>,
    pub progress: &'a dyn Fn(Progress),
}

impl Job<'_> {
    /// Commits what differs, or says why a person has to decide first.
    pub fn apply(
        &self,
        request: &ImportRequest,
        read: &mut ReadFile,
        rejects: &mut Rejects<'_>,
        report: &mut ImportReport,
    ) -> Result<Option<HoldReason>, ImportError> {
        let store = &self.context.store;
        let stored = self.context.stored(&self.partition);
        let mut cutter = Cutter::new(store, self.partition.clone(), self.schema.version());
        report.seq = cutter.seq;
        if request.full && stored > 0 {
            // Nothing is committed before it is known how much would go.
            let mut spool = ChangeSpool::new(&self.context.spool_dir)?;
            self.compare(read, true, rejects, report, &mut |change| Ok(spool.push(&change)?))?;
            if !request.approved
                && let Some(reason) = self.hold_reason(report, stored, read.unreadable)
            {
                return Ok(Some(reason));
            }
            spool.replay(|change| {
                self.context.check_stop()?;
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
        let (rule, deletes) = (self.context.hold, report.deleted);
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
        // Where nearly every record is compared, whole leaves cost less.
        let few = !full || read.recalled.is_some();
        let by_digest = few && self.comparer.needs_no_records();
        let mut cursor = Cursor::new(self.stored_pages(), by_digest);
        let open = read.recalled.as_ref().map(|recalled| recalled.open_keys.as_slice());
        report.unchanged += read.recalled.as_ref().map_or(0, |recalled| recalled.recall.settled());
        let mut compared = 0u64;
        // The least key that may still have to be deleted.
        let mut from: Option<Vec<u8>> = None;
        while let Some(row) = read.sorted.next()? {
            compared += 1;
            if compared.is_multiple_of(ROWS_PER_PROGRESS) {
                self.context.check_stop()?;
                let (bytes, rows) = (read.bytes_total, report.rows);
                (self.progress)(Progress { bytes_read: bytes, bytes_total: bytes, rows, compared });
            }
            report.duplicates += row.duplicate_count;
            if row.repeated {
                read.repeated.push(&row.key);
            }
            if row.differing {
                report.warnings += 1;
            }
            rejects.duplicates(&row.duplicates, row.duplicate_count, row.place, row.differing);
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
                    rejects.late(row.place, &row_issue(error))?;
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
        report: &mut ImportReport,
        change: &mut dyn FnMut(Change) -> Result<(), ImportError>,
    ) -> Result<(), ImportError> {
        let mut delete = |key: &[u8]| {
            report.deleted += 1;
            if report.deleted.is_multiple_of(ROWS_PER_PROGRESS) {
                self.context.check_stop()?;
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
            if !matches!(cursor.get(key)?, Stored::Nothing) {
                delete(key)?;
            }
        }
        Ok(())
    }
}
