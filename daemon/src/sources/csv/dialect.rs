//! Which separator a file has, and which of its lines is the header: decided
//! together, by what the labels mean.
//!
//! Every separator is tried on each of the first lines, and the pair whose labels
//! fit the dataset best is taken. So titles and comments above the header are
//! passed over, a quoted label with another separator in it misleads nobody, and
//! a malformed first line under one separator is no answer yet. Used by
//! [`super::table`].

use super::{
    scan::{Grammar, Quotes, Scan, is_empty, scan_record},
    separator::Separator,
};
use crate::{
    ingest::{
        map::{Above, Mapping},
        rows::Span,
    },
    sources::COLUMNS_MAX,
};

/// Lines among which the header is looked for. Titles, a unit, a date and a
/// remark stand above it, hardly ever more.
pub(super) const HEADER_LINES_MAX: usize = 20;
/// Fields of a header at most, labelled or not: as many columns as a spreadsheet
/// has, which some programs write out with nothing in them.
const HEADER_FIELDS_MAX: usize = 16_384;

/// How a file's rows are split.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    pub separator: Separator,
    /// Columns up to the last one with a label.
    pub columns: usize,
    /// Columns of the header, labelled or not.
    pub header_fields: usize,
    /// Physical lines up to the first row behind the header.
    pub lines_before: u64,
    /// A carriage return alone ends a line, as it does behind the header. In other
    /// files it is part of a value, which it must not cut in two.
    pub lone_cr: bool,
}

impl Shape {
    pub fn grammar(&self, quotes: Quotes) -> Grammar {
        Grammar { separator: self.separator.byte(), quotes, lone_cr: self.lone_cr }
    }
}

/// A header that fits.
pub(super) struct Dialect {
    pub shape: Shape,
    pub labels: Vec<String>,
    pub mapping: Mapping,
    /// The lines above it that are not blank.
    pub above: Vec<Above>,
}

/// Why no line is a header.
pub(super) enum NoDialect {
    /// Nothing but blank lines.
    Empty,
    /// The line with the most labels of the dataset.
    Unfit { line: u64, separator: Separator, labels: Vec<String>, tried: Tried },
    /// No line has a single label of the dataset.
    Unknown { line: u64, text: String, tried: Tried },
    /// More columns than any dataset has.
    TooManyColumns { columns: usize },
}

/// What was tried.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tried {
    /// Lines that were looked at.
    pub lines: usize,
    /// The one that a `sep=` line names; all of them without one.
    pub named: Option<Separator>,
}

/// Finds separator and header at the front of a file; `fit` says which columns
/// its labels name, or how many fields they name if that does not do. `whole` says that `front` is the whole file.
pub(super) fn find(
    front: &str,
    whole: bool,
    fit: &dyn Fn(&[String]) -> Result<Mapping, usize>,
) -> Result<Dialect, NoDialect> {
    let front = front.strip_prefix('\u{feff}').unwrap_or(front);
    let mut lines = lines_of(front);
    let named = lines.first().and_then(|first| named_separator(&front[first.clone()]));
    if named.is_some() {
        lines.remove(0);
    }
    lines.truncate(HEADER_LINES_MAX);
    let tried = Tried { lines: lines.len(), named };
    let separators = named.map_or(Separator::ALL.to_vec(), |separator| vec![separator]);

    let mut best: Option<Dialect> = None;
    let mut nearest: Option<(usize, u64, Separator, Vec<String>)> = None;
    let mut too_many = None;
    for separator in &separators {
        let mut fits = false;
        for line in &lines {
            let text = &front[line.clone()];
            // By what does not occur, the line is one label, as by any other.
            if separator != &separators[0] && !text.contains([separator.character(), '"']) {
                continue;
            }
            let Some(header) = header_at(front, line.start, whole, *separator) else { continue };
            if header.labels.len() > COLUMNS_MAX {
                too_many = too_many.max(Some(header.labels.len()));
                continue;
            }
            match fit(&header.labels) {
                Ok(mapping) => {
                    fits = true;
                    let known = mapping.columns().len();
                    if best.as_ref().is_none_or(|best| known > best.mapping.columns().len()) {
                        let lone_cr = front[..header.end].ends_with('\r');
                        let shape = Shape {
                            separator: *separator,
                            columns: header.labels.len(),
                            header_fields: header.fields,
                            lines_before: lines_until(front, header.end, lone_cr),
                            lone_cr,
                        };
                        let above = lines.iter().take_while(|above| above.end < line.start);
                        let above = above.map(|above| Above {
                            line: newlines(&front[..above.start], true) + 1,
                            cells: cells_of(&front[above.clone()], *separator),
                        });
                        let above = above.collect();
                        best = Some(Dialect { shape, labels: header.labels, mapping, above });
                    }
                }
                // Below a header and its second line there are rows, and a header among
                // those is another table's.
                Err(_) if fits => break,
                Err(known) => {
                    if known > nearest.as_ref().map_or(0, |(known, ..)| *known) {
                        let line = newlines(&front[..line.start], true) + 1;
                        nearest = Some((known, line, *separator, header.labels));
                    }
                }
            }
        }
    }
    if let Some(best) = best {
        return Ok(best);
    }
    if let Some((_, line, separator, labels)) = nearest {
        return Err(NoDialect::Unfit { line, separator, labels, tried });
    }
    if let Some(columns) = too_many {
        return Err(NoDialect::TooManyColumns { columns });
    }
    match lines.first() {
        None => Err(NoDialect::Empty),
        Some(line) => Err(NoDialect::Unknown {
            line: newlines(&front[..line.start], true) + 1,
            text: front[line.clone()].to_owned(),
            tried,
        }),
    }
}

/// Where the lines that are not blank lie, without their ends.
fn lines_of(front: &str) -> Vec<std::ops::Range<usize>> {
    let mut lines = Vec::new();
    let mut start = 0;
    for line in front.split_inclusive(['\n', '\r']) {
        let end = start + line.trim_end_matches(['\n', '\r']).len();
        if !front.as_bytes()[start..end].iter().all(|byte| is_empty(*byte)) {
            lines.push(start..end);
        }
        start += line.len();
    }
    lines
}

/// Physical lines that end within a text.
fn newlines(text: &str, lone_cr: bool) -> u64 {
    let bytes = text.as_bytes();
    let ends = bytes.iter().enumerate().filter(|(at, byte)| match byte {
        b'\n' => true,
        b'\r' => lone_cr && bytes.get(at + 1) != Some(&b'\n'),
        _ => false,
    });
    ends.count() as u64
}

/// Physical lines up to `end`, the last of which may have no end.
fn lines_until(front: &str, end: usize, lone_cr: bool) -> u64 {
    let text = &front[..end];
    newlines(text, lone_cr) + u64::from(!text.ends_with(['\n', '\r']))
}

/// What a line such as `sep=;` names, which Excel obeys.
fn named_separator(line: &str) -> Option<Separator> {
    let line = line.trim_matches(['"', ' ']);
    let (word, rest) = line.split_at_checked(4)?;
    let mut rest = rest.chars();
    let separator = rest.next()?;
    let alone = rest.all(|more| more == separator || more == ',');
    (word.eq_ignore_ascii_case("sep=") && alone).then(|| Separator::named(separator))?
}

/// A line's texts, split without regard to quotes.
fn cells_of(line: &str, separator: Separator) -> Vec<String> {
    let cells = line.split(separator.character());
    cells.map(|cell| cell.trim_matches(['"', ' ']).to_owned()).collect()
}

struct Header {
    labels: Vec<String>,
    fields: usize,
    /// Behind its line end.
    end: usize,
}

/// The record that begins at a place, as labels up to the last that is not blank.
fn header_at(front: &str, start: usize, whole: bool, separator: Separator) -> Option<Header> {
    let text = &front[start..];
    let replaced;
    let bytes = match separator.wide() {
        None => text.as_bytes(),
        Some(wide) => {
            // Of the same length, so that places stay what they are.
            let stand_in = char::from(separator.byte()).to_string().repeat(wide.len_utf8());
            replaced = text.replace(wide, &stand_in);
            replaced.as_bytes()
        }
    };
    let mut spans = Vec::new();
    let separator_byte = separator.byte();
    let grammar = Grammar { separator: separator_byte, quotes: Quotes::Doubled, lone_cr: true };
    let scan = scan_record(bytes, whole, grammar, &mut spans, HEADER_FIELDS_MAX * 3);
    let Scan::Record { end, .. } = scan else { return None };
    if separator.wide().is_some() {
        let times = separator.wide().map_or(1, char::len_utf8);
        spans = merged(&spans, times);
    }
    let clean = |span: &Span| {
        let text = text.get(span.range()).unwrap_or_default();
        text.replace("\"\"", "\"").trim_matches(is_label_margin).to_owned()
    };
    let fields = spans.len();
    if fields > HEADER_FIELDS_MAX {
        return None;
    }
    let mut labels: Vec<String> = spans.iter().map(clean).collect();
    while labels.last().is_some_and(String::is_empty) {
        labels.pop();
    }
    (!labels.is_empty()).then_some(Header { labels, fields, end: start + end })
}

/// Of fields that are separated by `times` bytes each, all but the empty ones
/// between those bytes.
fn merged(spans: &[Span], times: usize) -> Vec<Span> {
    spans.iter().step_by(times).copied().collect()
}

/// White space, a byte order mark that another tool left behind, zero bytes.
fn is_label_margin(character: char) -> bool {
    character.is_whitespace() || matches!(character, '\u{feff}' | '\0')
}
