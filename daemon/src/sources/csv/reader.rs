//! A file's bytes to records, once its dialect is known.
//!
//! Used by [`super::table`]. Invariants: whatever the bytes are, every physical
//! line is part of a record, blank, or reported as malformed; a malformed record
//! costs its first physical line only; memory is bounded by [`ROW_BYTES_MAX`].
//! Reading again after a malformed record stays linear: a record is only left open
//! by an odd run of quotes, the next odd run ends it, and no byte lies between
//! more than two such pairs.

use std::{ops::Range, sync::Arc};

use super::{
    ROW_BYTES_MAX,
    batch::{LineBodies, LineRows},
    decode::Decoder,
    dialect::Shape,
    input::Input,
    scan::{find3, is_empty, other_end, plain_record},
    split::{Found, split, split_as_mysql},
};
use crate::{
    ingest::{
        map::Mapping,
        rows::{Place, RowProblem, Span},
    },
    sources::error::FileError,
};

/// Says whether a line, split into these texts, would be a row of the dataset.
pub(super) type Judge = Box<dyn FnMut(&[&str]) -> bool + Send>;

/// Reads records.
pub(super) struct Reader {
    name: String,
    input: Input,
    decoder: Decoder,
    shape: Shape,
    mapping: Arc<Mapping>,
    judge: Judge,
    /// The physical line at which the input stands, from 1, and the row that a
    /// spreadsheet would show.
    line: u64,
    row: u64,
    bytes_total: u64,
    spans: Vec<Span>,
    /// The line that was skipped last.
    skipped: Vec<u8>,
    /// The last line has content and no end, though others have one.
    cut: bool,
}

/// What a reader found at its place.
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
    /// Whether a field has escaped quotes.
    escaped: bool,
}

impl Reader {
    /// Reads `input`, which stands at the file's front, from behind the header on.
    pub fn new(
        name: String,
        input: Input,
        decoder: Decoder,
        shape: Shape,
        mapping: Arc<Mapping>,
        judge: Judge,
        bytes_total: u64,
    ) -> Result<Self, FileError> {
        let lines_before = shape.lines_before;
        let mut reader = Self {
            name,
            input,
            decoder,
            shape,
            mapping,
            judge,
            line: 1,
            row: 1,
            bytes_total,
            spans: Vec::new(),
            skipped: Vec::new(),
            cut: false,
        };
        for _ in 0..lines_before {
            reader.skip_line()?;
        }
        Ok(reader)
    }

    pub fn mapping(&self) -> &Arc<Mapping> {
        &self.mapping
    }

    pub fn bytes_total(&self) -> u64 {
        self.bytes_total
    }

    pub fn bytes_read(&self) -> u64 {
        self.input.bytes_read
    }

    /// Whether the file may have been cut off; known at its end.
    pub fn is_cut(&self) -> bool {
        self.cut
    }

    #[cfg(test)]
    pub fn buffer_bytes(&self) -> usize {
        self.input.buf.len()
    }

    /// The next rows; none at the end of the file.
    pub fn next_rows(&mut self) -> Result<LineRows, FileError> {
        let mapping = self.mapping.clone();
        let mut batch = LineRows::with_room(self.decoder, mapping, self.bytes_left());
        while !batch.is_full() {
            match self.step()? {
                Step::End => break,
                Step::Blank => batch.push_blank(),
                Step::Malformed { place, problem } => {
                    batch.push_malformed(place, problem, &self.skipped);
                }
                Step::Record { place, record } => {
                    batch.push(place, record.escaped, &self.input.buf[record.body], &self.spans);
                }
            }
        }
        Ok(batch)
    }

    /// As [`Reader::next_rows`], where it matters only where rows are.
    pub fn next_bodies(&mut self) -> Result<LineBodies, FileError> {
        let (left, mapping) = (self.bytes_left(), self.mapping.clone());
        let mut bodies = LineBodies::with_room(self.decoder, mapping, self.shape.clone(), left);
        while !bodies.is_full() {
            let data = self.input.unread();
            if let Some((body, end)) =
                plain_record(&data[..data.len().min(ROW_BYTES_MAX)], self.shape.lone_cr)
            {
                bodies.push(self.place(), &data[..body]);
                self.input.start += end;
                self.line += 1;
                self.row += 1;
                continue;
            }
            match self.step()? {
                Step::End => break,
                Step::Blank => bodies.push_blank(),
                Step::Malformed { place, problem } => {
                    bodies.push_malformed(place, problem, &self.skipped);
                }
                Step::Record { place, record } => bodies.push(place, &self.input.buf[record.body]),
            }
        }
        Ok(bodies)
    }

    fn place(&self) -> Place {
        Place::new(0, self.line, self.row)
    }

    /// Bytes that rows are still to be found in, roughly.
    fn bytes_left(&self) -> u64 {
        let unread = self.input.unread().len() as u64;
        self.bytes_total.saturating_sub(self.input.bytes_read) + unread
    }

    /// Reads and consumes one record, blank line or malformed line.
    fn step(&mut self) -> Result<Step, FileError> {
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
            if window.len() == ROW_BYTES_MAX && window.iter().all(|byte| *byte == 0) {
                // An interrupted write left more than a row may have. One of them
                // stays, by which the next row is noted.
                self.input.start += ROW_BYTES_MAX - 1;
                continue;
            }
            let found = split(window, at_end, &self.shape, &mut self.spans);
            let mut found = match found {
                Ok(Some(found)) => found,
                Ok(None) if data.len() >= ROW_BYTES_MAX => {
                    let within = self.skip_line()?;
                    let problem =
                        if within { RowProblem::UnclosedQuote } else { RowProblem::TooLong };
                    return Ok(Step::Malformed { place, problem });
                }
                Ok(None) => {
                    self.fill()?;
                    continue;
                }
                Err(problem) => {
                    self.skip_line()?;
                    return Ok(Step::Malformed { place, problem });
                }
            };
            if found.lines > 1 {
                let body = &window[..found.body];
                if swallows_rows(body, &self.shape, self.decoder, &mut self.judge) {
                    let line = split_as_mysql(window, at_end, &self.shape, &mut self.spans);
                    let Some(line) = line else {
                        self.skip_line()?;
                        return Ok(Step::Malformed { place, problem: RowProblem::UnclosedQuote });
                    };
                    found = line;
                }
            }
            let Found { body, end, lines, escaped } = found;
            let separator = self.shape.separator.byte();
            if window[..body].iter().all(|byte| is_empty(*byte) && *byte != separator) {
                // A single-column file has no other way to say nothing, but a row
                // of nothing says nothing either. Zeros stand where a machine lost
                // its power before the rows were written.
                self.cut |= window[..body].contains(&0);
                self.consume(self.input.start + end, lines);
                return Ok(Step::Blank);
            }
            self.cut |= body == end && self.line > 1;
            let start = self.input.start;
            let record = Record { body: start..start + body, end: start + end, lines, escaped };
            self.consume(record.end, record.lines);
            return Ok(Step::Record { place, record });
        }
    }

    fn consume(&mut self, to: usize, lines: u64) {
        self.input.start = to;
        self.line += lines;
        self.row += 1;
    }

    /// Drops one physical line, of which `skipped` has the first
    /// [`ROW_BYTES_MAX`] bytes; says whether that is all of it.
    fn skip_line(&mut self) -> Result<bool, FileError> {
        let mut length = 0;
        self.skipped.clear();
        loop {
            let data = self.input.unread();
            let end = find3(data, 0, b'\n', other_end(self.shape.lone_cr), b'\n');
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
                    if !self.shape.lone_cr && self.skipped.ends_with(b"\r") {
                        self.skipped.pop();
                    }
                    self.cut |= after == end && length > 0 && self.line > 1;
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
        self.input.fill().map_err(|source| FileError::Io { path: self.name.clone(), source })
    }
}

/// Whether a quoted value of a record runs over a line that by itself is a row:
/// then its quote was forgotten, and the first line has the separators of a row,
/// too. Of two columns, one may be a text with a comma in one of its lines; so
/// all lines have to be rows.
fn swallows_rows(body: &[u8], shape: &Shape, decoder: Decoder, judge: &mut Judge) -> bool {
    let (columns, separator) = (shape.columns, shape.separator.byte());
    let has_columns =
        |line: &[u8]| line.iter().filter(|byte| **byte == separator).count() + 1 == columns;
    let mut is_row = |line: &[u8]| {
        let field = |field| decoder.lossy(field).trim_matches(['"', ' ']).to_owned();
        let texts: Vec<String> = line.split(|byte| *byte == separator).map(field).collect();
        judge(&texts.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let mut lines =
        body.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    if columns < 2 || !lines.next().is_some_and(has_columns) {
        return false;
    }
    if columns == 2 {
        lines.all(|line| has_columns(line) && is_row(line))
    } else {
        lines.any(|line| has_columns(line) && is_row(line))
    }
}
