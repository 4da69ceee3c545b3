//! What is told of an import's rows on their way: counted, and written to the
//! rejects file.
//!
//! `delivered` and `apply` tell, the importer asks for the end. Invariant: rows are
//! told in the delivery's order. Not here: the file and the counts themselves
//! (`report`).

use std::{io, path::Path, sync::Arc};

use protocol::schema::Schema;

use super::{
    check::CheckedRows,
    report::{Describer, ImportReport, RejectedRows, RejectsFile, Tally},
    rows::Place,
    source::Table,
    validate::{RowIssue, Rule, Severity},
    words::{ImportError, ImportRequest},
};

/// Where it is told what is wrong with rows.
pub(super) struct Rejects<'a> {
    file: RejectsFile,
    path: &'a Path,
    tally: Tally,
    /// Known once the delivery is open; nothing is told before.
    describer: Option<Arc<Describer>>,
}

impl<'a> Rejects<'a> {
    pub fn new(request: &'a ImportRequest) -> Self {
        let (file, path) = (RejectsFile::new(request.rejects.clone()), &request.rejects);
        Self { file, path, tally: Tally::default(), describer: None }
    }

    /// What rows of `table` are described with.
    pub fn begin(&mut self, schema: &Schema, table: &dyn Table) -> Arc<Describer> {
        let describer = Describer::new(schema, table.mapping(), table.summary().parts);
        self.describer.insert(Arc::new(describer)).clone()
    }

    /// Rows that were checked.
    pub fn take(&mut self, checked: &CheckedRows) -> Result<(), ImportError> {
        self.tally.merge(&checked.tally);
        self.append(&checked.rejected_rows, checked.rejected)
    }

    /// Rows that were rejected for a code in that field that a spreadsheet has
    /// rounded.
    pub fn rounded(&self, field: &str) -> u64 {
        self.tally.count(Rule::UsccRounded.code(), field)
    }

    /// Rows of one key, `count` of them, before the one that counts; the first of
    /// them stand at `places`.
    pub fn duplicates(&mut self, places: &[Place], count: u64, winner: Place, differing: bool) {
        self.tally.add_duplicates(places, count, winner, differing);
    }

    /// A row that turned out to be none when it met what is stored. Its text is
    /// not at hand any more: the words name its place.
    pub fn late(&mut self, place: Place, issue: &RowIssue) -> Result<(), ImportError> {
        self.tally.add_issue(place, issue);
        let Some(describer) = &self.describer else {
            return Ok(());
        };
        let mut rows = RejectedRows::default();
        let words = describer.words(place, std::slice::from_ref(issue));
        rows.push(words, &vec![""; describer.labels().count()]);
        self.append(&rows, 1)
    }

    fn append(&mut self, rows: &RejectedRows, rejected: u64) -> Result<(), ImportError> {
        let Some(describer) = self.describer.as_ref().filter(|_| rejected > 0) else {
            return Ok(());
        };
        self.file.append(rows, rejected, describer).map_err(|source| failed(self.path, source))
    }

    /// Ends the file, and puts into the report what was told of rows in parts of
    /// these names.
    pub fn finish(self, report: &mut ImportReport, parts: &[String]) -> Result<(), ImportError> {
        let describer = self.describer.as_deref();
        report.reject_details = self.tally.details(Severity::Reject, describer, parts);
        report.warning_details = self.tally.details(Severity::Warning, describer, parts);
        let path = self.file.finish().map_err(|source| failed(self.path, source))?;
        report.rejects_file = path.map(|path| path.display().to_string());
        Ok(())
    }
}

fn failed(path: &Path, source: io::Error) -> ImportError {
    ImportError::Report { path: path.display().to_string(), source }
}
