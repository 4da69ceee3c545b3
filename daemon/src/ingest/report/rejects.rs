//! The rejects file: the rejected rows as they were delivered, behind two columns
//! that say what is wrong and what to do.
//!
//! Rows are written down where they are checked, on all cores
//! ([`RejectedRows`]), and appended to the file in the delivery's order
//! ([`RejectsFile`]). A person mends them in a spreadsheet and delivers the file
//! again; the two columns are ignored then (`rows::REJECT_COLUMNS`).
//!
//! Invariants: the file is readable for its owner only, because it holds personal
//! data as delivered, and nothing of a row goes anywhere else; a cell is exactly
//! what was delivered. That includes texts that a spreadsheet takes for formulas:
//! whoever opens the file has delivered them, and any mark in front of them would
//! come back as a part of the value. Not here: the words (`describe`).

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use super::describe::Describer;

/// Most rows of a rejects file: it opens in a spreadsheet, and nobody mends more
/// by hand. A file that is wrong throughout is wrong at its source.
pub const REJECT_ROWS_MAX: u64 = 100_000;

/// Rejected rows of a batch, as lines of CSV.
#[derive(Debug, Default)]
pub(in crate::ingest) struct RejectedRows {
    bytes: Vec<u8>,
    /// Where each row ends.
    ends: Vec<usize>,
}

impl RejectedRows {
    /// Adds a row behind those before it.
    pub fn push(&mut self, words: [String; 2], cells: &[&str]) {
        let words = words.iter().map(String::as_str);
        push_record(&mut self.bytes, words.chain(cells.iter().copied()));
        self.ends.push(self.bytes.len());
    }
}

/// The file, which is made with its first row.
#[derive(Debug)]
pub(in crate::ingest) struct RejectsFile {
    path: PathBuf,
    out: Option<BufWriter<File>>,
    columns: usize,
    rows: u64,
    left_out: u64,
}

impl RejectsFile {
    /// Will write to `path`, and replace what lies there.
    pub fn new(path: PathBuf) -> Self {
        Self { path, out: None, columns: 0, rows: 0, left_out: 0 }
    }

    /// Appends rows; with their header's labels if they are the first.
    /// `rejected` is how many there were, written down or not.
    pub fn append(
        &mut self,
        rows: &RejectedRows,
        rejected: u64,
        describer: &Describer,
    ) -> io::Result<()> {
        let room = REJECT_ROWS_MAX - self.rows;
        let taken = rows.ends.len().min(usize::try_from(room).unwrap_or(usize::MAX));
        self.left_out += rejected.saturating_sub(taken as u64);
        let Some(end) = taken.checked_sub(1).map(|last| rows.ends[last]) else {
            return Ok(());
        };
        let out = match &mut self.out {
            Some(out) => out,
            none => {
                self.columns = describer.header().count();
                none.insert(create(&self.path, describer)?)
            }
        };
        out.write_all(&rows.bytes[..end])?;
        self.rows += taken as u64;
        if self.rows == REJECT_ROWS_MAX {
            describer.set_full();
        }
        Ok(())
    }

    /// Writes what is buffered; gives the path if there is a file.
    pub fn finish(mut self) -> io::Result<Option<PathBuf>> {
        let Some(mut out) = self.out.take() else {
            return Ok(None);
        };
        if self.left_out > 0 {
            let more = self.left_out;
            let mut line = Vec::new();
            let said = format!("另有 {more} 行未列出 / {more} more rows are not listed");
            let todo = "请在原文件中改正后重新交付 / correct them in the file that was delivered";
            // A row of nothing, which is skipped when the file is delivered again.
            let cells = [said.as_str(), todo].into_iter().chain(std::iter::repeat(""));
            push_record(&mut line, cells.take(self.columns));
            out.write_all(&line)?;
        }
        out.flush()?;
        Ok(Some(std::mem::take(&mut self.path)))
    }
}

/// Of an import that came to nothing, nothing is left.
impl Drop for RejectsFile {
    fn drop(&mut self) {
        if self.out.take().is_some() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A new file for its owner only, in place of what lies there; a link is
/// replaced and never followed.
fn create(path: &Path, describer: &Describer) -> io::Result<BufWriter<File>> {
    // The mode counts for new files only.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let mut out = BufWriter::new(file);
    // Without the mark Excel takes UTF-8 for the system's legacy encoding.
    let mut header = "\u{feff}".as_bytes().to_vec();
    push_record(&mut header, describer.header());
    out.write_all(&header)?;
    Ok(out)
}

/// A line of CSV: RFC 4180, with the line ends that spreadsheets write.
fn push_record<'a>(out: &mut Vec<u8>, cells: impl Iterator<Item = &'a str>) {
    for (number, cell) in cells.enumerate() {
        if number > 0 {
            out.push(b',');
        }
        // A text with blanks at its ends keeps them in quotes only.
        let quoted = cell.contains([',', '"', '\n', '\r', ';', '\t']) || cell.trim() != cell;
        if !quoted {
            out.extend_from_slice(cell.as_bytes());
            continue;
        }
        out.push(b'"');
        for (number, part) in cell.split('"').enumerate() {
            if number > 0 {
                out.extend_from_slice(b"\"\"");
            }
            out.extend_from_slice(part.as_bytes());
        }
        out.push(b'"');
    }
    out.extend_from_slice(b"\r\n");
}
