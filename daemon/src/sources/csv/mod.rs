//! A delivered file's bytes to rows of text.
//!
//! [`CsvFile`] finds out the encoding and the separator, reads the header, and
//! splits the file into rows; [`LineRows`] of them can be decoded on any thread.
//! Used by the importer through [`open`]; fuzzed through [`CsvFile::from_bytes`].
//!
//! Invariants: whatever the bytes are, every physical line is either part of a
//! row, blank, or reported as malformed; a malformed record costs its first
//! physical line only; memory is bounded by [`ROW_BYTES_MAX`].
//!
//! The grammar is RFC 4180 read strictly: a field that begins with a quote ends
//! at the next quote that is not doubled, and what follows has to be a
//! separator or the end of the line. The strictness is what lets a forgotten
//! quote be noticed at the next quoted field instead of swallowing rows. UTF-8
//! and GB18030 are split at the byte level, which is sound because neither uses
//! a quote, separator or line end inside a character; so one undecodable field
//! costs one row. Re-reading after a malformed record stays linear: a record is
//! only left open by an odd run of quotes, the next odd run ends it, and no
//! byte lies between more than two such pairs.
//!
//! Not here: which column is which field (`map`), what values mean
//! (`validate`).

mod batch;
mod detect;
mod input;
mod scan;
mod table;

use std::{
    borrow::Cow,
    fmt,
    io::{Cursor, SeekFrom},
    ops::Range,
    str::FromStr,
    sync::Arc,
};

use encoding_rs::{DecoderResult, GB18030, UTF_8};

pub use self::batch::{LineBodies, LineRows};
pub use self::detect::starts_as_utf8;
pub use self::table::{CsvTable, open};
use self::{
    detect::detect,
    input::{Bytes, Charset, Input},
    scan::{Scan, find3, plain_record, scan_record},
};
use super::error::FileError;
use crate::ingest::{
    map::Mapping,
    rows::{Fields, Place, RowProblem, Span},
};

/// Longest record in bytes, line breaks in quotes included. A stored record has
/// at most 64 KiB; the rest is room for spelling, and the bound on how far a
/// forgotten quote is followed.
pub const ROW_BYTES_MAX: usize = 1 << 20;
/// Most columns of a file: eight times the most fields of a schema, so that the
/// message about unknown columns is still worth reading.
pub const COLUMNS_MAX: usize = 1024;
/// Bytes read at once: large enough that system calls do not show.
const CHUNK: usize = 256 * 1024;
/// Bytes read at once from a file smaller than that, so that the many small
/// files of an inbox cost little.
const CHUNK_MIN: usize = 4 * 1024;
/// How a file's bytes are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "&'static str")]
pub enum Encoding {
    /// Find out.
    #[default]
    Auto,
    /// UTF-8, with or without a byte order mark.
    Utf8,
    /// GB18030, which contains GBK and GB2312.
    Gb18030,
    /// UTF-16; little-endian unless the file says otherwise.
    Utf16,
}

impl Encoding {
    /// The name that [`Encoding::from_str`] reads back.
    pub fn as_str(self) -> &'static str {
        match self {
            Encoding::Auto => "auto",
            Encoding::Utf8 => "utf-8",
            Encoding::Gb18030 => "gb18030",
            Encoding::Utf16 => "utf-16",
        }
    }
}

impl From<Encoding> for &'static str {
    fn from(encoding: Encoding) -> Self {
        encoding.as_str()
    }
}

impl TryFrom<String> for Encoding {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl FromStr for Encoding {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "auto" => Ok(Encoding::Auto),
            "utf-8" | "utf8" => Ok(Encoding::Utf8),
            "gbk" | "gb18030" | "gb2312" => Ok(Encoding::Gb18030),
            "utf-16" | "utf16" => Ok(Encoding::Utf16),
            _ => Err(format!(
                "'{text}' is not an encoding: write auto, utf-8, gbk, gb18030 or utf-16"
            )),
        }
    }
}

/// A delivered file, read from the front to the end.
pub struct CsvFile {
    path: String,
    input: Input,
    charset: Charset,
    separator: u8,
    header: Vec<String>,
    /// The physical line at which the input stands, from 1, and the row that a
    /// spreadsheet would show.
    line: u64,
    row: u64,
    /// The line that was skipped last.
    skipped: Vec<u8>,
    bytes_total: u64,
    spans: Vec<Span>,
}

impl fmt::Debug for CsvFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CsvFile")
            .field("path", &self.path)
            .field("charset", &self.charset)
            .field("line", &self.line)
            .finish_non_exhaustive()
    }
}

impl CsvFile {
    /// Reads bytes in memory.
    pub fn from_bytes(bytes: Vec<u8>, encoding: Encoding) -> Result<Self, FileError> {
        let bytes_total = bytes.len() as u64;
        Self::new("(memory)".into(), Box::new(Cursor::new(bytes)), bytes_total, encoding)
    }

    /// Finds out encoding and separator, and reads the header. With
    /// [`Encoding::Auto`] this reads all bytes once.
    pub(super) fn new(
        path: String,
        mut source: Box<dyn Bytes>,
        bytes_total: u64,
        encoding: Encoding,
    ) -> Result<Self, FileError> {
        let fits = usize::try_from(bytes_total).unwrap_or(CHUNK).saturating_add(1);
        let chunk = fits.clamp(CHUNK_MIN, CHUNK);
        let detected = detect(source.as_mut(), encoding, chunk)
            .map_err(|source| FileError::Io { path: path.clone(), source })?;
        let (charset, bom_bytes) = match detected {
            Ok(detected) => detected,
            Err(kind) => return Err(FileError::NotText { path, kind }),
        };
        source
            .seek(SeekFrom::Start(bom_bytes))
            .map_err(|source| FileError::Io { path: path.clone(), source })?;
        let mut file = Self {
            path,
            input: Input::new(source, charset, bom_bytes, chunk),
            charset,
            separator: b',',
            header: Vec::new(),
            line: 1,
            row: 1,
            skipped: Vec::new(),
            bytes_total,
            spans: Vec::new(),
        };
        file.read_header()?;
        Ok(file)
    }

    /// The encoding that was found or asked for.
    pub fn encoding_name(&self) -> &'static str {
        self.charset.name()
    }

    /// What separates its columns.
    pub fn separator(&self) -> u8 {
        self.separator
    }

    /// The column labels, without white space around them.
    pub fn header(&self) -> &[String] {
        &self.header
    }

    /// The file's size when it was opened, for progress.
    pub fn bytes_total(&self) -> u64 {
        self.bytes_total
    }

    /// Bytes read so far, for progress.
    pub fn bytes_read(&self) -> u64 {
        self.input.bytes_read
    }

    /// The next rows that are not blank; none at the end of the file.
    pub fn next_rows(&mut self, mapping: &Arc<Mapping>) -> Result<LineRows, FileError> {
        let mut batch = LineRows::with_room(self.charset, mapping.clone(), self.bytes_left());
        while !batch.is_full() {
            match self.step()? {
                Step::End => break,
                Step::Blank => batch.push_blank(),
                Step::Malformed { place, problem } => {
                    batch.push_malformed(place, problem, &self.skipped);
                }
                Step::Record { place, record } => {
                    let body = &self.input.buf[record.body.clone()];
                    batch.push(place, record.escaped, body, &self.spans);
                }
            }
        }
        Ok(batch)
    }

    /// As [`CsvFile::next_rows`], where it matters only where rows are. One
    /// without quotes may have another number of fields than the header; what
    /// else is malformed is not told of.
    pub fn next_bodies(&mut self, mapping: &Arc<Mapping>) -> Result<LineBodies, FileError> {
        let (left, columns) = (self.bytes_left(), self.header.len());
        let mapping = mapping.clone();
        let mut bodies =
            LineBodies::with_room(self.charset, mapping, self.separator, columns, left);
        while !bodies.is_full() {
            let data = self.input.unread();
            if let Some((body, end)) = plain_record(&data[..data.len().min(ROW_BYTES_MAX)]) {
                bodies.push(self.place(), &data[..body]);
                self.input.start += end;
                self.line += 1;
                self.row += 1;
                continue;
            }
            match self.step()? {
                Step::End => break,
                Step::Blank => bodies.push_blank(),
                Step::Malformed { .. } => bodies.push_malformed(),
                Step::Record { place, record } => bodies.push(place, &self.input.buf[record.body]),
            }
        }
        Ok(bodies)
    }

    /// Bytes that rows are still to be found in, roughly.
    fn bytes_left(&self) -> u64 {
        let unread = self.input.unread().len() as u64;
        self.bytes_total.saturating_sub(self.input.bytes_read) + unread
    }

    fn read_header(&mut self) -> Result<(), FileError> {
        let (mut scratch, mut scratch_spans) = (String::new(), Vec::new());
        // A header without a comma may use another separator; one without any
        // is a file of one column.
        for separator in [b',', b'\t', b';'] {
            self.separator = separator;
            let scan = loop {
                match self.scan(COLUMNS_MAX)? {
                    Step::Blank => {}
                    other => break other,
                }
            };
            let (place, record) = match scan {
                Step::End | Step::Blank => {
                    return Err(FileError::NoHeader { path: self.path.clone() });
                }
                Step::Malformed { place, problem } => {
                    let line = place.line();
                    return Err(FileError::Header { path: self.path.clone(), line, problem });
                }
                Step::Record { place, record } => (place, record),
            };
            if record.fields > COLUMNS_MAX {
                return Err(FileError::TooManyColumns {
                    path: self.path.clone(),
                    columns: record.fields,
                });
            }
            if record.fields == 1 && separator != b';' {
                continue;
            }
            if record.fields == 1 {
                // None of the three: a comma gives later rows their meaning.
                self.separator = b',';
            }
            let fields = decode_fields(
                &self.input.buf[record.body.clone()],
                &self.spans,
                record.escaped,
                self.charset,
                &mut scratch,
                &mut scratch_spans,
            );
            match fields {
                Ok(fields) => {
                    let clean = |label: &str| label.trim_matches(is_label_margin).to_owned();
                    self.header = fields.iter().map(clean).collect();
                }
                Err(column) => {
                    let problem = RowProblem::Encoding { column, encoding: self.charset.name() };
                    let line = place.line();
                    return Err(FileError::Header { path: self.path.clone(), line, problem });
                }
            }
            self.consume(&record);
            return Ok(());
        }
        Err(FileError::NoHeader { path: self.path.clone() })
    }

    /// Reads and consumes one record, blank line or malformed line.
    fn step(&mut self) -> Result<Step, FileError> {
        let expected = self.header.len();
        let step = self.scan(expected)?;
        if let Step::Record { place, record } = &step {
            if record.fields == expected {
                self.consume(record);
            } else if record.lines > 1 {
                let place = *place;
                self.skip_line()?;
                return Ok(Step::Malformed { place, problem: RowProblem::UnclosedQuote });
            } else {
                let (place, found) = (*place, record.fields);
                self.skipped.clear();
                self.skipped.extend_from_slice(&self.input.buf[record.body.clone()]);
                self.consume(record);
                let problem = RowProblem::FieldCount { expected, found };
                return Ok(Step::Malformed { place, problem });
            }
        }
        Ok(step)
    }

    fn consume(&mut self, record: &Record) {
        self.input.start = record.end;
        self.line += record.lines;
        self.row += 1;
    }

    /// Finds the next record without consuming it; blank and malformed lines
    /// are consumed. The buffer holds the whole record afterwards.
    fn scan(&mut self, keep: usize) -> Result<Step, FileError> {
        loop {
            let place = self.place();
            let data = self.input.unread();
            if data.is_empty() {
                if self.input.eof {
                    return Ok(Step::End);
                }
                self.fill()?;
                continue;
            }
            let window = &data[..data.len().min(ROW_BYTES_MAX)];
            let at_end = self.input.eof && window.len() == data.len();
            match scan_record(window, at_end, self.separator, &mut self.spans, keep) {
                Scan::Record { body, end, lines, fields, escaped } => {
                    if fields == 1 && window[..body].iter().all(u8::is_ascii_whitespace) {
                        // A single-column file has no other way to say nothing,
                        // but a row of nothing says nothing either.
                        self.input.start += end;
                        self.line += lines;
                        self.row += 1;
                        return Ok(Step::Blank);
                    }
                    let start = self.input.start;
                    let record = Record {
                        body: start..start + body,
                        end: start + end,
                        lines,
                        fields,
                        escaped,
                    };
                    return Ok(Step::Record { place, record });
                }
                Scan::Incomplete if data.len() >= ROW_BYTES_MAX => {
                    let within = self.skip_line()?;
                    let problem =
                        if within { RowProblem::UnclosedQuote } else { RowProblem::TooLong };
                    return Ok(Step::Malformed { place, problem });
                }
                Scan::Incomplete => self.fill()?,
                Scan::BadQuote { column, first_line } => {
                    let problem = if first_line {
                        RowProblem::StrayQuote { column }
                    } else {
                        RowProblem::UnclosedQuote
                    };
                    self.skip_line()?;
                    return Ok(Step::Malformed { place, problem });
                }
            }
        }
    }

    fn place(&self) -> Place {
        Place::new(0, self.line, self.row)
    }

    /// Drops one physical line, of which `skipped` has the first
    /// [`ROW_BYTES_MAX`] bytes; says whether that is all of it.
    fn skip_line(&mut self) -> Result<bool, FileError> {
        let mut length = 0;
        self.skipped.clear();
        loop {
            let data = self.input.unread();
            let end = find3(data, 0, b'\n', b'\r', b'\n');
            let after = match (data.get(end), data.get(end + 1)) {
                (None, _) if self.input.eof => Some(end),
                (None, _) => None,
                (Some(b'\r'), Some(b'\n')) => Some(end + 2),
                (Some(b'\r'), None) if !self.input.eof => None,
                (Some(_), _) => Some(end + 1),
            };
            length += end;
            let room = ROW_BYTES_MAX - self.skipped.len();
            self.skipped.extend_from_slice(&data[..end.min(room)]);
            match after {
                Some(after) => {
                    self.input.start += after;
                    self.line += 1;
                    self.row += 1;
                    return Ok(length < ROW_BYTES_MAX);
                }
                None => {
                    self.input.start += end;
                    self.fill()?;
                }
            }
        }
    }

    fn fill(&mut self) -> Result<(), FileError> {
        self.input.fill().map_err(|source| FileError::Io { path: self.path.clone(), source })
    }
}

/// White space and a byte order mark that another tool left behind.
fn is_label_margin(character: char) -> bool {
    character.is_whitespace() || character == '\u{feff}'
}

/// What [`CsvFile`] found at its place in the file.
enum Step {
    End,
    Blank,
    Malformed { place: Place, problem: RowProblem },
    Record { place: Place, record: Record },
}

/// A record within the input's buffer.
struct Record {
    body: Range<usize>,
    /// Behind the line end.
    end: usize,
    /// Physical lines it covers.
    lines: u64,
    fields: usize,
    /// Whether a field has doubled quotes.
    escaped: bool,
}

/// The fields of a record as text, or the first column (from 1) that is none.
fn decode_fields<'a>(
    body: &'a [u8],
    spans: &'a [Span],
    escaped: bool,
    charset: Charset,
    scratch: &'a mut String,
    scratch_spans: &'a mut Vec<Span>,
) -> Result<Fields<'a>, usize> {
    if charset != Charset::Gb18030 || body.is_ascii() {
        if let Some(text) = as_utf8(body) {
            if !escaped {
                return Ok(Fields::new(text, spans));
            }
        } else {
            let broken = |span: &Span| as_utf8(&body[span.range()]).is_none();
            return Err(spans.iter().position(broken).map_or(1, |index| index + 1));
        }
    }
    scratch.clear();
    scratch_spans.clear();
    for (index, span) in spans.iter().enumerate() {
        let mut rest = &body[span.range()];
        let start = scratch.len();
        while !rest.is_empty() {
            // Every quote within an escaped field is the first of two.
            let quote = if span.escaped {
                rest.iter().position(|&byte| byte == b'"').unwrap_or(rest.len())
            } else {
                rest.len()
            };
            if !push_decoded(&rest[..quote], charset, scratch) {
                return Err(index + 1);
            }
            if quote < rest.len() {
                scratch.push('"');
            }
            rest = rest.get(quote + 2..).unwrap_or_default();
        }
        scratch_spans.push(Span::new(start, scratch.len(), false));
    }
    Ok(Fields::new(scratch, scratch_spans))
}

/// A line for people, as far as it is text.
fn lossy(line: &[u8], charset: Charset) -> Cow<'_, str> {
    let encoding = if charset == Charset::Gb18030 { GB18030 } else { UTF_8 };
    encoding.decode_without_bom_handling(line).0
}

/// As the standard library's check, but vectorised: finding the encoding of
/// Chinese text and splitting it takes half the time.
fn as_utf8(bytes: &[u8]) -> Option<&str> {
    match UTF_8.decode_without_bom_handling_and_without_replacement(bytes) {
        Some(Cow::Borrowed(text)) => Some(text),
        _ => None,
    }
}

fn push_decoded(bytes: &[u8], charset: Charset, out: &mut String) -> bool {
    if charset != Charset::Gb18030 || bytes.is_ascii() {
        return as_utf8(bytes).map(|text| out.push_str(text)).is_some();
    }
    let mut decoder = GB18030.new_decoder_without_bom_handling();
    let Some(room) = decoder.max_utf8_buffer_length_without_replacement(bytes.len()) else {
        return false;
    };
    out.reserve(room);
    let (result, _) = decoder.decode_to_string_without_replacement(bytes, out, true);
    result == DecoderResult::InputEmpty
}

#[cfg(test)]
mod tests;
