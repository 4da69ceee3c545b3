//! What an import did: the counts, and the file of rows that need a person.
//!
//! Used by the importer's back half, `import --json` and the inbox. Invariants:
//! [`ImportReport::adds_up`]; the rejects file never holds a personal value
//! (issues arrive masked, malformed rows are described and not quoted) and is
//! readable for its owner only. Field names of [`ImportReport`] are a contract
//! with scripts. Not here: deciding what is an issue (`validate`).

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use protocol::id::DatasetId;
use serde::{Deserialize, Serialize};

use super::{
    rows::{Place, RowNote, RowProblem},
    validate::{RowIssue, Severity},
};

/// Most lines of a rejects file: it opens in Excel, and nobody mends more by
/// hand. A file that is wrong throughout is wrong at its source.
pub const REJECT_LINES_MAX: u64 = 100_000;

/// The counts of one import.
#[derive(Serialize, Deserialize, Default, Debug, Clone, PartialEq)]
pub struct ImportReport {
    /// Rows of the file, without header and blank lines.
    pub rows: u64,
    /// Records that were not there before.
    pub inserted: u64,
    /// Records whose fields changed.
    pub updated: u64,
    /// Records that a full delivery no longer has.
    pub deleted: u64,
    /// Rows that changed nothing: they equal the stored record, or the whole
    /// delivery is held.
    pub unchanged: u64,
    /// Rows that were not imported.
    pub rejected: u64,
    /// Warnings about rows that were imported.
    pub warnings: u64,
    /// Change sets that were committed.
    pub change_sets: u64,
    /// The partition's sequence number afterwards.
    pub seq: u64,
    /// How long it took.
    pub seconds: f64,
    /// Rows whose key comes again further down.
    pub duplicates: u64,
    /// Lines that are no rows: blank ones, repeated headers, totals.
    pub skipped: u64,
    /// Rows whose columns may be others than they seem.
    pub suspicious: u64,
    /// Where rejected rows and warnings are described.
    pub rejects_file: Option<String>,
    /// The delivery that waits for approval, if it does.
    pub held: Option<String>,
}

impl ImportReport {
    /// What a held delivery did: nothing. Its good rows changed nothing, so the
    /// report adds up like any other; what it would do is told by the delivery.
    pub(super) fn held(would: &Self, id: String) -> Self {
        Self {
            inserted: 0,
            updated: 0,
            deleted: 0,
            unchanged: would.inserted + would.updated + would.unchanged,
            held: Some(id),
            ..would.clone()
        }
    }

    /// Whether every row is accounted for exactly once.
    pub fn adds_up(&self) -> bool {
        self.rows == self.inserted + self.updated + self.unchanged + self.rejected + self.duplicates
    }
}

impl ImportReport {
    /// Writes the counts to the log, and that somebody has to look, if so.
    pub fn log(&self, dataset: &DatasetId, file: &str, full: bool) {
        tracing::info!(
            %dataset,
            file,
            full,
            rows = self.rows,
            inserted = self.inserted,
            updated = self.updated,
            deleted = self.deleted,
            unchanged = self.unchanged,
            rejected = self.rejected,
            duplicates = self.duplicates,
            seq = self.seq,
            "imported a file"
        );
        if let Some(held) = &self.held {
            tracing::warn!(%dataset, delivery = held, "a full file waits for approval: see 'creditsync delivery show'");
        }
    }
}

/// Rejected rows and warnings as a CSV file; made with its first line.
#[derive(Debug)]
pub struct RejectsFile {
    path: PathBuf,
    out: Option<csv::Writer<BufWriter<File>>>,
    lines: u64,
    left_out: u64,
}

impl RejectsFile {
    /// Will write to `path`, and replace what lies there.
    pub fn new(path: PathBuf) -> Self {
        Self { path, out: None, lines: 0, left_out: 0 }
    }

    /// An issue of a row.
    pub fn push(&mut self, place: Place, issue: &RowIssue) -> io::Result<()> {
        let RowIssue { severity, field, value, rule } = issue;
        if self.is_full() {
            return Ok(());
        }
        self.write(place, *severity, field, value, rule.code(), &rule.zh(), &rule.en())
    }

    /// A line that could not be read as a row.
    pub fn push_malformed(&mut self, place: Place, problem: &RowProblem) -> io::Result<()> {
        if self.is_full() {
            return Ok(());
        }
        let (zh, en) = (problem.zh(), problem.en());
        self.write(place, Severity::Reject, "", "", problem.code(), &zh, &en)
    }

    /// A row that was read, and is odd.
    pub fn push_odd(&mut self, place: Place, note: RowNote) -> io::Result<()> {
        if self.is_full() {
            return Ok(());
        }
        self.write(place, Severity::Warning, "", "", note.code(), note.zh(), note.en())
    }

    /// A row whose key comes again further down, where the later row was taken.
    pub fn push_duplicate(
        &mut self,
        place: Place,
        winner: Place,
        differing: bool,
    ) -> io::Result<()> {
        if self.is_full() {
            return Ok(());
        }
        let (code, zh, en) = if differing {
            ("duplicate-differing", "且内容不同", "and differs")
        } else {
            ("duplicate", "且内容相同", "and is equal")
        };
        let winner_line = winner.line();
        self.write(
            place,
            Severity::Warning,
            "",
            "",
            code,
            &format!("同一主键在第 {winner_line} 行再次出现，{zh}；以后出现的行为准"),
            &format!("the same key comes again at line {winner_line} {en}; the later row counts"),
        )
    }

    /// Writes what is buffered; gives the path if there is a file.
    pub fn finish(mut self) -> io::Result<Option<PathBuf>> {
        let Some(mut out) = self.out.take() else {
            return Ok(None);
        };
        if self.left_out > 0 {
            let more = self.left_out;
            let (zh, en) = (format!("另有 {more} 条未列出"), format!("{more} more are not listed"));
            out.write_record(["", "", "", "", "more", &zh, &en])?;
        }
        out.flush()?;
        Ok(Some(self.path))
    }

    /// Counts a line that is left out where there is no room for it.
    fn is_full(&mut self) -> bool {
        let full = self.lines == REJECT_LINES_MAX;
        self.left_out += u64::from(full);
        full
    }

    #[expect(clippy::too_many_arguments, reason = "one a column")]
    fn write(
        &mut self,
        place: Place,
        severity: Severity,
        field: &str,
        value: &str,
        code: &str,
        zh: &str,
        en: &str,
    ) -> io::Result<()> {
        let out = match &mut self.out {
            Some(out) => out,
            none => none.insert(create(&self.path)?),
        };
        let value = defused(value);
        out.write_record([
            &*place.line().to_string(),
            severity.as_str(),
            field,
            &value,
            code,
            zh,
            en,
        ])?;
        self.lines += 1;
        Ok(())
    }
}

/// A new file for its owner only, in place of what lies there; a link is
/// replaced and never followed.
fn create_private(path: &Path) -> io::Result<File> {
    // The mode counts for new files only.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

fn create(path: &Path) -> io::Result<csv::Writer<BufWriter<File>>> {
    let mut file = BufWriter::new(create_private(path)?);
    // Without the mark Excel takes UTF-8 for the system's legacy encoding.
    file.write_all("\u{feff}".as_bytes())?;
    let mut out = csv::Writer::from_writer(file);
    out.write_record(["line", "severity", "field", "value", "rule", "说明", "explanation"])?;
    Ok(out)
}

/// A value that Excel would run as a formula becomes plain text: what a
/// stranger delivered must not act on the machine of whoever reads about it.
fn defused(value: &str) -> String {
    if value.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        format!("'{value}")
    } else {
        value.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::validate::Rule;
    use super::*;

    fn at(line: u64) -> Place {
        Place::new(0, line, line)
    }

    fn issue(value: &str) -> RowIssue {
        RowIssue {
            severity: Severity::Reject,
            field: "code".into(),
            value: value.into(),
            rule: Rule::Required,
        }
    }

    #[test]
    fn nothing_wrong_makes_no_file() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(RejectsFile::new(dir.path().join("r.csv")).finish().unwrap(), None);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_file_is_for_excel_and_for_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r.csv");
        fs::write(&path, "from the last time").unwrap();
        let mut rejects = RejectsFile::new(path.clone());
        rejects.push(at(2), &issue("=1+1")).unwrap();
        rejects.push_malformed(at(3), &RowProblem::UnclosedQuote).unwrap();
        rejects.push_duplicate(at(4), at(9), true).unwrap();
        assert_eq!(rejects.finish().unwrap(), Some(path.clone()));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "\u{feff}line,severity,field,value,rule,说明,explanation");
        assert!(lines[1].starts_with("2,reject,code,'=1+1,required,必填项为空"), "{text}");
        assert!(lines[2].starts_with("3,reject,,,unclosed-quote,"), "{text}");
        assert!(lines[3].starts_with("4,warning,,,duplicate-differing,"), "{text}");
        assert_eq!(lines.len(), 4);
    }

    #[test]
    fn a_hopeless_file_makes_a_bounded_report() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r.csv");
        let mut rejects = RejectsFile::new(path.clone());
        for line in 0..REJECT_LINES_MAX + 7 {
            rejects.push(at(line), &issue("")).unwrap();
        }
        rejects.finish().unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count() as u64, REJECT_LINES_MAX + 2);
        assert!(text.lines().last().unwrap().contains("7 more"));
    }

    #[test]
    fn the_report_has_the_documented_shape() {
        let report = ImportReport {
            rows: 15,
            inserted: 1,
            updated: 2,
            deleted: 50,
            unchanged: 3,
            rejected: 4,
            duplicates: 5,
            ..ImportReport::default()
        };
        assert!(report.adds_up());
        assert!(!ImportReport { rows: 16, ..report.clone() }.adds_up());
        assert_eq!(
            serde_json::to_string(&report).unwrap(),
            "{\"rows\":15,\"inserted\":1,\"updated\":2,\"deleted\":50,\"unchanged\":3,\
             \"rejected\":4,\"warnings\":0,\"change_sets\":0,\"seq\":0,\"seconds\":0.0,\
             \"duplicates\":5,\"skipped\":0,\"suspicious\":0,\"rejects_file\":null,\"held\":null}"
        );
    }
}
