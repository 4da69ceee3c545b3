//! The record at the front of some bytes, as the dialect has it.
//!
//! Used for a file's bytes as they come (`reader`) and for rows that were found
//! before (`batch`). Not here: the grammar (`scan`), and what becomes of bytes that
//! are no record.

use super::{
    ROW_BYTES_MAX,
    dialect::Shape,
    scan::{Quotes, Scan, find3, is_empty, other_end, scan_record},
};
use crate::ingest::rows::{RowProblem, Span};

/// A record at the front of some bytes.
pub(super) struct Found {
    pub body: usize,
    pub end: usize,
    pub lines: u64,
    pub escaped: bool,
}

/// The record at the front of `data`, which is not empty; its fields are in
/// `spans`. None if the data ends before it does, a problem if it is none.
pub(super) fn split(
    data: &[u8],
    eof: bool,
    shape: &Shape,
    spans: &mut Vec<Span>,
) -> Result<Option<Found>, RowProblem> {
    let strict = judged(&scan(data, eof, shape, Quotes::Doubled, spans), shape, data, spans);
    // More may come that closes its quote.
    let open = matches!(strict, Ok(None)) && data.len() < ROW_BYTES_MAX;
    if open || matches!(strict, Ok(Some(_))) {
        return strict;
    }
    // What is wrong by the standard may be right as MySQL writes it.
    match split_as_mysql(data, eof, shape, spans) {
        Some(found) => Ok(Some(found)),
        None => strict,
    }
}

/// The line at the front of `data` as a record with quotes behind backslashes, if
/// it has any and is one.
pub(super) fn split_as_mysql(
    data: &[u8],
    eof: bool,
    shape: &Shape,
    spans: &mut Vec<Span>,
) -> Option<Found> {
    let line = &data[..find3(data, 0, b'\n', other_end(shape.lone_cr), b'\n')];
    if !line.windows(2).any(|pair| pair == b"\\\"") {
        return None;
    }
    let found = judged(&scan(data, eof, shape, Quotes::Backslash, spans), shape, data, spans);
    found.ok().flatten().filter(|found| found.lines == 1)
}

fn scan(data: &[u8], eof: bool, shape: &Shape, quotes: Quotes, spans: &mut Vec<Span>) -> Scan {
    scan_record(data, eof, shape.grammar(quotes), spans, shape.columns)
}

/// Whether a record has as many fields as it should.
fn judged(
    scan: &Scan,
    shape: &Shape,
    data: &[u8],
    spans: &mut Vec<Span>,
) -> Result<Option<Found>, RowProblem> {
    match *scan {
        Scan::Incomplete => Ok(None),
        Scan::BadQuote { column, first_line: true } => Err(RowProblem::StrayQuote { column }),
        Scan::BadQuote { .. } => Err(RowProblem::UnclosedQuote),
        Scan::Record { body, end, lines, fields, escaped, tail_blank } => {
            let blank = fields == 1 && data[..body].iter().all(|byte| is_empty(*byte));
            if blank || fields == shape.columns || (fields > shape.columns && tail_blank) {
                return Ok(Some(Found { body, end, lines, escaped }));
            }
            if lines > 1 {
                return Err(RowProblem::UnclosedQuote);
            }
            if fields > shape.columns && fields <= shape.header_fields {
                let column = first_beyond(&data[..body], shape, spans);
                return Err(RowProblem::Unlabelled { column });
            }
            Err(RowProblem::FieldCount { expected: shape.columns, found: fields })
        }
    }
}

/// The first column beyond those with labels that has a value, from 1.
fn first_beyond(body: &[u8], shape: &Shape, spans: &mut Vec<Span>) -> usize {
    scan_record(body, true, shape.grammar(Quotes::Doubled), spans, shape.header_fields);
    let filled = |span: &Span| !body[span.range()].iter().all(|byte| is_empty(*byte));
    let beyond = spans.iter().skip(shape.columns).position(filled);
    shape.columns + beyond.unwrap_or(0) + 1
}
