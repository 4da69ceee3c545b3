//! Rows that were found and not yet decoded: what goes from the one thread that
//! reads a file to those that look at its rows. [`LineRows`] know where fields
//! are, [`LineBodies`] only where rows are, for whoever wants few of them.

use std::ops::Range;

use super::{
    Charset, decode_fields,
    scan::{Scan, scan_record},
};
use crate::ingest::{
    rows::{Row, RowProblem, Span},
    source::{RowBodies, Rows},
};

/// Bytes after which a batch is full: some hundred rows, so that handing it
/// over costs little, and few enough to have several on their way.
const BATCH_BYTES: usize = 128 * 1024;
/// Rows after which a batch is full, however short they are.
const BATCH_ROWS: usize = 4096;

/// Bytes that a row has at least, mostly.
const ROW_BYTES_USUAL: usize = 128;

/// Bytes to make room for, where so many are left in the file.
fn room_for(bytes_left: u64) -> usize {
    let bytes = BATCH_BYTES.min(usize::try_from(bytes_left).unwrap_or(BATCH_BYTES));
    bytes + bytes / 8
}

/// Consecutive rows of a file.
#[derive(Debug)]
pub struct LineRows {
    charset: Charset,
    bytes: Vec<u8>,
    spans: Vec<Span>,
    rows: Vec<RawRow>,
}

#[derive(Debug)]
enum RawRow {
    Record { line: u64, body: Range<usize>, spans: Range<usize>, escaped: bool },
    Malformed { line: u64, problem: RowProblem },
}

impl LineRows {
    pub(super) fn new(charset: Charset) -> Self {
        Self { charset, bytes: Vec::new(), spans: Vec::new(), rows: Vec::new() }
    }

    /// As [`LineRows::new`], with room for as much as a batch holds at most.
    pub(super) fn with_room(charset: Charset, bytes_left: u64) -> Self {
        Self { bytes: Vec::with_capacity(room_for(bytes_left)), ..Self::new(charset) }
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes.len() >= BATCH_BYTES || self.rows.len() >= BATCH_ROWS
    }

    /// Adds a record whose bytes are `body`.
    pub(super) fn push(&mut self, line: u64, escaped: bool, body: &[u8], spans: &[Span]) {
        let (body_at, spans_at) = (self.bytes.len(), self.spans.len());
        self.bytes.extend_from_slice(body);
        self.spans.extend_from_slice(spans);
        self.rows.push(RawRow::Record {
            line,
            body: body_at..self.bytes.len(),
            spans: spans_at..self.spans.len(),
            escaped,
        });
    }

    pub(super) fn push_malformed(&mut self, line: u64, problem: RowProblem) {
        self.rows.push(RawRow::Malformed { line, problem });
    }
}

impl Rows for LineRows {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn bytes(&self) -> usize {
        self.bytes.len()
    }

    fn body(&self, at: usize) -> Option<&[u8]> {
        match &self.rows[at] {
            RawRow::Record { body, .. } => Some(&self.bytes[body.clone()]),
            RawRow::Malformed { .. } => None,
        }
    }

    fn for_each(self: Box<Self>, visit: &mut dyn FnMut(Row<'_>)) {
        let (mut scratch, mut scratch_spans) = (String::new(), Vec::new());
        for row in self.rows {
            let (line, body, spans, escaped) = match row {
                RawRow::Malformed { line, problem } => {
                    visit(Row::Malformed { line, problem });
                    continue;
                }
                RawRow::Record { line, body, spans, escaped } => {
                    (line, &self.bytes[body], &self.spans[spans], escaped)
                }
            };
            let decoded =
                decode_fields(body, spans, escaped, self.charset, &mut scratch, &mut scratch_spans);
            visit(match decoded {
                Ok(fields) => Row::Fields { line, fields },
                Err(column) => Row::Malformed {
                    line,
                    problem: RowProblem::Encoding { column, encoding: self.charset.name() },
                },
            });
        }
    }
}

/// Consecutive rows of a file of which only the ends are known.
#[derive(Debug)]
pub struct LineBodies {
    charset: Charset,
    separator: u8,
    columns: usize,
    bytes: Vec<u8>,
    rows: Vec<Body>,
    malformed: bool,
}

/// Where a row lies: its first line in the file, its bytes among the others'.
#[derive(Debug)]
struct Body {
    line: u64,
    start: u32,
    end: u32,
}

impl LineBodies {
    pub(super) fn with_room(
        charset: Charset,
        separator: u8,
        columns: usize,
        bytes_left: u64,
    ) -> Self {
        let bytes = room_for(bytes_left);
        let (rows, malformed) = (Vec::with_capacity(bytes / ROW_BYTES_USUAL), false);
        Self { charset, separator, columns, bytes: Vec::with_capacity(bytes), rows, malformed }
    }

    /// Nothing comes behind what is malformed: whoever reads so takes another way.
    pub(super) fn is_full(&self) -> bool {
        self.malformed || self.bytes.len() >= BATCH_BYTES || self.rows.len() >= BATCH_ROWS
    }

    pub(super) fn push(&mut self, line: u64, body: &[u8]) {
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(body);
        self.rows.push(Body { line, start, end: self.bytes.len() as u32 });
    }

    pub(super) fn push_malformed(&mut self) {
        self.malformed = true;
    }

    fn body(&self, row: &Body) -> &[u8] {
        &self.bytes[row.start as usize..row.end as usize]
    }
}

impl RowBodies for LineBodies {
    fn len(&self) -> usize {
        self.rows.len() + usize::from(self.malformed)
    }

    fn is_malformed(&self) -> bool {
        self.malformed
    }

    fn bodies(&self) -> Box<dyn Iterator<Item = &[u8]> + '_> {
        Box::new(self.rows.iter().map(|row| self.body(row)))
    }

    fn split(&self, kept: &[usize]) -> Box<dyn Rows> {
        let mut batch = LineRows::new(self.charset);
        let mut spans = Vec::new();
        for row in kept.iter().map(|at| &self.rows[*at]) {
            let body = self.body(row);
            match scan_record(body, true, self.separator, &mut spans, self.columns) {
                Scan::Record { body: end, fields, escaped, .. } if end == body.len() => {
                    if fields == self.columns {
                        batch.push(row.line, escaped, body, &spans);
                    } else {
                        let (expected, found) = (self.columns, fields);
                        let problem = RowProblem::FieldCount { expected, found };
                        batch.push_malformed(row.line, problem);
                    }
                }
                _ => batch.push_malformed(row.line, RowProblem::UnclosedQuote),
            }
        }
        Box::new(batch)
    }
}
