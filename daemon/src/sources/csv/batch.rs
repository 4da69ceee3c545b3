//! Rows that were found and not yet decoded: what goes from the one thread that
//! reads a file to those that look at its rows. [`LineRows`] know where fields
//! are, [`LineBodies`] only where rows are, for whoever wants few of them.

use std::{ops::Range, sync::Arc};

use super::{
    decode::{Decoder, Scratch},
    dialect::Shape,
    split::split,
};
use crate::ingest::{
    map::Mapping,
    rows::{Escape, Place, Row, RowNote, RowProblem, Span},
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
    decoder: Decoder,
    mapping: Arc<Mapping>,
    blank: u64,
    bytes: Vec<u8>,
    spans: Vec<Span>,
    rows: Vec<RawRow>,
}

#[derive(Debug)]
enum RawRow {
    Record { place: Place, body: Range<usize>, spans: Range<usize>, escaped: bool },
    Malformed { place: Place, body: Range<usize>, problem: RowProblem },
}

impl LineRows {
    pub(super) fn new(decoder: Decoder, mapping: Arc<Mapping>) -> Self {
        let (bytes, spans, rows) = (Vec::new(), Vec::new(), Vec::new());
        Self { decoder, mapping, blank: 0, bytes, spans, rows }
    }

    /// As [`LineRows::new`], with room for as much as a batch holds at most.
    pub(super) fn with_room(decoder: Decoder, mapping: Arc<Mapping>, bytes_left: u64) -> Self {
        Self { bytes: Vec::with_capacity(room_for(bytes_left)), ..Self::new(decoder, mapping) }
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes.len() >= BATCH_BYTES || self.rows.len() >= BATCH_ROWS
    }

    /// Adds a record whose bytes are `body`.
    pub(super) fn push(&mut self, place: Place, escaped: bool, body: &[u8], spans: &[Span]) {
        let (body_at, spans_at) = (self.bytes.len(), self.spans.len());
        self.bytes.extend_from_slice(body);
        self.spans.extend_from_slice(spans);
        self.rows.push(RawRow::Record {
            place,
            body: body_at..self.bytes.len(),
            spans: spans_at..self.spans.len(),
            escaped,
        });
    }

    /// Adds a line that is no row.
    pub(super) fn push_malformed(&mut self, place: Place, problem: RowProblem, line: &[u8]) {
        let body_at = self.bytes.len();
        self.bytes.extend_from_slice(line);
        let body = body_at..self.bytes.len();
        self.rows.push(RawRow::Malformed { place, body, problem });
    }

    pub(super) fn push_blank(&mut self) {
        self.blank += 1;
    }
}

impl Rows for LineRows {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn bytes(&self) -> usize {
        self.bytes.len()
    }

    fn blank(&self) -> u64 {
        self.blank
    }

    fn mapping(&self) -> &Arc<Mapping> {
        &self.mapping
    }

    fn body(&self, at: usize) -> Option<&[u8]> {
        match &self.rows[at] {
            RawRow::Record { body, .. } => Some(&self.bytes[body.clone()]),
            RawRow::Malformed { .. } => None,
        }
    }

    fn for_each(self: Box<Self>, visit: &mut dyn FnMut(Row<'_>)) {
        let (decoder, mut scratch) = (self.decoder, Scratch::default());
        for row in self.rows {
            let (place, body, spans, escaped) = match row {
                RawRow::Malformed { place, body, problem } => {
                    let text = decoder.lossy(&self.bytes[body]).into();
                    visit(Row::Malformed { place, problem, text });
                    continue;
                }
                RawRow::Record { place, body, spans, escaped } => {
                    (place, &self.bytes[body], &self.spans[spans], escaped)
                }
            };
            visit(match decoder.fields(body, spans, escaped, &mut scratch) {
                Ok((fields, encoding)) => {
                    Row::Fields { place, fields, note: structure(body, spans).or(encoding) }
                }
                Err(problem) => Row::Malformed { place, problem, text: decoder.lossy(body).into() },
            });
        }
    }
}

/// What is odd about how a row is written.
fn structure(body: &[u8], spans: &[Span]) -> Option<RowNote> {
    if body.first() == Some(&0) || body.last() == Some(&0) {
        return Some(RowNote::Padding);
    }
    memchr::memchr(b'"', body)?;
    let inner = |span: &Span| !span.is_quoted() && body[span.range()].contains(&b'"');
    if spans.iter().any(inner) {
        return Some(RowNote::InnerQuote);
    }
    let backslash = |span: &Span| span.escape() == Escape::Backslash;
    spans.iter().any(backslash).then_some(RowNote::BackslashQuote)
}

/// Consecutive rows of a file of which only the ends are known.
#[derive(Debug)]
pub struct LineBodies {
    decoder: Decoder,
    mapping: Arc<Mapping>,
    shape: Shape,
    blank: u64,
    bytes: Vec<u8>,
    rows: Vec<Body>,
}

/// Where a row lies: its place in the file, its bytes among the others'.
#[derive(Debug)]
struct Body {
    place: Place,
    start: u32,
    end: u32,
    /// Why it is none.
    problem: Option<RowProblem>,
}

impl LineBodies {
    pub(super) fn with_room(
        decoder: Decoder,
        mapping: Arc<Mapping>,
        shape: Shape,
        bytes_left: u64,
    ) -> Self {
        let bytes = room_for(bytes_left);
        let rows = Vec::with_capacity(bytes / ROW_BYTES_USUAL);
        Self { decoder, mapping, shape, blank: 0, bytes: Vec::with_capacity(bytes), rows }
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes.len() >= BATCH_BYTES || self.rows.len() >= BATCH_ROWS
    }

    pub(super) fn push(&mut self, place: Place, body: &[u8]) {
        self.add(place, body, None);
    }

    pub(super) fn push_malformed(&mut self, place: Place, problem: RowProblem, line: &[u8]) {
        self.add(place, line, Some(problem));
    }

    fn add(&mut self, place: Place, body: &[u8], problem: Option<RowProblem>) {
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(body);
        self.rows.push(Body { place, start, end: self.bytes.len() as u32, problem });
    }

    pub(super) fn push_blank(&mut self) {
        self.blank += 1;
    }

    fn body(&self, row: &Body) -> &[u8] {
        &self.bytes[row.start as usize..row.end as usize]
    }
}

impl RowBodies for LineBodies {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn blank(&self) -> u64 {
        self.blank
    }

    fn bodies(&self) -> Box<dyn Iterator<Item = &[u8]> + '_> {
        Box::new(self.rows.iter().map(|row| self.body(row)))
    }

    fn split(&self, kept: &[usize]) -> Box<dyn Rows> {
        let mut batch = LineRows::new(self.decoder, self.mapping.clone());
        let mut spans = Vec::new();
        for row in kept.iter().map(|at| &self.rows[*at]) {
            let body = self.body(row);
            if let Some(problem) = &row.problem {
                batch.push_malformed(row.place, problem.clone(), body);
                continue;
            }
            match split(body, true, &self.shape, &mut spans) {
                Ok(Some(found)) if found.body == body.len() => {
                    batch.push(row.place, found.escaped, body, &spans);
                }
                Ok(_) => batch.push_malformed(row.place, RowProblem::UnclosedQuote, body),
                Err(problem) => batch.push_malformed(row.place, problem, body),
            }
        }
        Box::new(batch)
    }
}
