//! Rows that were split and not yet decoded: what goes from the one thread that
//! reads a file to those that look at its rows.

use std::ops::Range;

use super::{Charset, Row, RowProblem, Span, decode_fields};

/// Bytes after which a batch is full: some hundred rows, so that handing it
/// over costs little, and few enough to have several on their way.
const BATCH_BYTES: usize = 128 * 1024;
/// Rows after which a batch is full, however short they are.
const BATCH_ROWS: usize = 4096;

/// Consecutive rows of a file.
#[derive(Debug)]
pub struct RowBatch {
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

impl RowBatch {
    pub(super) fn new(charset: Charset) -> Self {
        Self { charset, bytes: Vec::new(), spans: Vec::new(), rows: Vec::new() }
    }

    /// As [`RowBatch::new`], with room for as much as a batch holds at most.
    pub(super) fn with_room(charset: Charset, bytes_left: u64) -> Self {
        let bytes = BATCH_BYTES.min(usize::try_from(bytes_left).unwrap_or(BATCH_BYTES));
        Self { bytes: Vec::with_capacity(bytes + bytes / 8), ..Self::new(charset) }
    }

    /// How many rows there are, malformed ones among them.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Bytes of the rows.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
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

    /// The rows' bytes as they lie in the file, without the line end; none where a
    /// row is malformed.
    pub fn bodies(&self) -> impl Iterator<Item = Option<&[u8]>> {
        self.rows.iter().map(|row| match row {
            RawRow::Record { body, .. } => Some(&self.bytes[body.clone()]),
            RawRow::Malformed { .. } => None,
        })
    }

    /// A batch of some of the rows, which takes no more room than they need.
    pub fn sifted(self, mut keep: impl FnMut(usize) -> bool) -> Self {
        let mut kept = Self::new(self.charset);
        let rows = self.rows.into_iter().enumerate();
        for (_, row) in rows.filter(|(index, _)| keep(*index)) {
            match row {
                RawRow::Malformed { line, problem } => kept.push_malformed(line, problem),
                RawRow::Record { line, body, spans, escaped } => {
                    kept.push(line, escaped, &self.bytes[body], &self.spans[spans]);
                }
            }
        }
        kept
    }

    /// Calls `visit` with every row, in the file's order.
    pub fn for_each(self, mut visit: impl FnMut(Row<'_>)) {
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
