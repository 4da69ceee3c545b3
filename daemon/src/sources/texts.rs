//! Rows of texts from a format that is not split at the byte level: workbooks
//! and JSON.
//!
//! Filled by [`super::sheet`] and [`super::json`]; [`TextRows::mapped`] makes of
//! them what the importer looks at. Invariant: every row has either as many fields
//! as the header or a problem, and a row's body is equal to another's exactly if
//! all fields are.

use std::{borrow::Cow, ops::Range, sync::Arc};

use crate::ingest::{
    map::Mapping,
    rows::{Fields, Place, Row, Span},
    source::Rows,
    text_problem::TextProblem,
};

/// Longest row in bytes, over all of its fields: what a row of CSV may have.
pub const ROW_BYTES_MAX: usize = super::csv::ROW_BYTES_MAX;
/// Most columns of a table: what a CSV file may have.
pub const COLUMNS_MAX: usize = super::COLUMNS_MAX;
/// Behind each cell of a row that is rejected but the last: no cell has it, while
/// commas, tabs and quotes are frequent, and whoever writes the row down splits it
/// there.
pub(super) const REJECTED_SEPARATOR: char = '\u{1}';
/// Bytes after which a batch is full: some hundred rows, so that handing it over
/// costs little, and few enough to have several on their way.
const BATCH_BYTES: usize = 128 * 1024;
/// Rows after which a batch is full, however short they are.
const BATCH_ROWS: usize = 4096;

#[derive(Debug)]
enum Kept {
    Fields { line: u64, body: Range<usize>, spans: Range<usize> },
    Malformed { line: u64, problem: TextProblem, text: Range<usize> },
}

/// Consecutive rows.
#[derive(Debug, Default)]
pub struct TextRows {
    /// Each field behind its length and a colon, so that no text of a field can
    /// be taken for the end of it.
    text: String,
    spans: Vec<Span>,
    rows: Vec<Kept>,
}

impl TextRows {
    /// How many rows there are, malformed ones among them.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.text.len() >= BATCH_BYTES || self.rows.len() >= BATCH_ROWS
    }

    /// Adds a row of `columns` fields; missing ones are empty. Fields together
    /// have at most [`ROW_BYTES_MAX`].
    pub(super) fn push<'f>(
        &mut self,
        line: u64,
        columns: usize,
        fields: impl Iterator<Item = &'f str>,
    ) {
        let (body, spans) = (self.text.len(), self.spans.len());
        let mut digits = [0; 20];
        for field in fields.chain(std::iter::repeat("")).take(columns) {
            self.text.push_str(decimal(field.len(), &mut digits));
            self.text.push(':');
            let start = self.text.len();
            self.text.push_str(field);
            // A batch has 128 KiB and one row at most.
            self.spans.push(Span::plain(start, self.text.len()));
        }
        let (body, spans) = (body..self.text.len(), spans..self.spans.len());
        self.rows.push(Kept::Fields { line, body, spans });
    }

    /// Adds a row that is rejected; `text` is how it was delivered, as far as it
    /// can be shown.
    pub(super) fn push_malformed(&mut self, line: u64, problem: TextProblem, text: &str) {
        let start = self.text.len();
        self.text.push_str(text);
        self.rows.push(Kept::Malformed { line, problem, text: start..self.text.len() });
    }

    /// As rows of a dataset, in part `part` of what was delivered.
    pub fn mapped(self, part: usize, mapping: Arc<Mapping>) -> Box<dyn Rows> {
        Box::new(MappedRows { rows: self, part, mapping })
    }

    fn for_each(&self, part: usize, visit: &mut dyn FnMut(Row<'_>)) {
        for row in &self.rows {
            visit(match row {
                Kept::Malformed { line, problem, text } => Row::Malformed {
                    place: Place::new(part, *line, *line),
                    problem: problem.clone().into(),
                    text: Cow::Borrowed(&self.text[text.clone()]),
                },
                Kept::Fields { line, spans, .. } => Row::Fields {
                    place: Place::new(part, *line, *line),
                    fields: Fields::new(&self.text, &self.spans[spans.clone()]),
                    note: None,
                },
            });
        }
    }

    /// All rows as line and fields, or as line and the problem's code.
    #[cfg(test)]
    pub(super) fn shown(&self) -> Vec<(u64, Result<Vec<String>, &'static str>)> {
        let mut shown = Vec::new();
        self.for_each(0, &mut |row| {
            shown.push(match row {
                Row::Fields { place, fields, .. } => {
                    (place.line(), Ok(fields.iter().map(str::to_owned).collect()))
                }
                Row::Malformed { place, problem, .. } => (place.line(), Err(problem.code())),
            });
        });
        shown
    }
}

/// Rows whose columns are known.
struct MappedRows {
    rows: TextRows,
    part: usize,
    mapping: Arc<Mapping>,
}

impl Rows for MappedRows {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn bytes(&self) -> usize {
        self.rows.text.len()
    }

    fn blank(&self) -> u64 {
        // Rows without content are no rows in these formats: a sheet has a million.
        0
    }

    fn mapping(&self) -> &Arc<Mapping> {
        &self.mapping
    }

    fn body(&self, at: usize) -> Option<&[u8]> {
        match &self.rows.rows[at] {
            Kept::Fields { body, .. } => self.rows.text.as_bytes().get(body.clone()),
            Kept::Malformed { .. } => None,
        }
    }

    fn for_each(self: Box<Self>, visit: &mut dyn FnMut(Row<'_>)) {
        self.rows.for_each(self.part, visit);
    }
}

/// A number's decimal digits, without an allocation for each field.
fn decimal(mut number: usize, buffer: &mut [u8; 20]) -> &str {
    let mut at = buffer.len();
    loop {
        at -= 1;
        buffer[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    str::from_utf8(&buffer[at..]).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_equal_only_for_equal_fields() {
        let mut rows = TextRows::default();
        rows.push(1, 2, ["a", "b"].into_iter());
        rows.push(2, 2, ["a1:b", ""].into_iter());
        rows.push(3, 2, ["a"].into_iter());
        rows.push(4, 2, ["a", ""].into_iter());
        rows.push_malformed(5, TextProblem::TooLong, "x");
        let body = |at: usize| match &rows.rows[at] {
            Kept::Fields { body, .. } => Some(&rows.text[body.clone()]),
            Kept::Malformed { .. } => None,
        };
        assert_eq!(body(0), Some("1:a1:b"));
        assert_ne!(body(0), body(1));
        assert_eq!(body(2), body(3));
        assert_eq!(body(4), None);
        assert_eq!(rows.shown()[1], (2, Ok(vec!["a1:b".into(), String::new()])));
        assert_eq!(rows.shown()[4], (5, Err("row-too-long")));
    }
}
