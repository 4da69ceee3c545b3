//! OpenDocument workbooks, read element by element.
//!
//! Called by [`super::reading`] in the child. The library that reads the other
//! formats gives a cell's value without what it shows, so leading zeros, words around
//! a number, errors and merged cells would be lost. Invariants: memory does not
//! depend on the number of rows; how much is told is bounded, whatever is repeated; XML
//! that ends too early is damage. Not here: what a cell shows
//! ([`cell`]).

mod cell;

use std::{
    collections::HashSet,
    fs::File,
    io::{BufRead, BufReader, Read as _},
};

use quick_xml::{
    Reader, XmlVersion,
    events::{BytesStart, Event},
};
use zip::ZipArchive;

use self::cell::Cell;
use super::{
    super::{
        child::{
            Columns, Stop,
            frames::{Fault, Message},
        },
        texts::{COLUMNS_MAX, ROW_BYTES_MAX},
    },
    inflate::{self, fault_of},
    marks::SHEET_ROWS_MAX,
    rows::{Rows, send},
};

/// Bytes of the list of parts that are looked at for a password.
const MANIFEST_BYTES_MAX: u64 = 1 << 20;
/// Elements in a cell that are no part of its text: remarks, what stands above a
/// character, a table of its own. Drawings are none, either.
const NO_TEXT: [&str; 4] = ["annotation", "note", "ruby-text", "table"];

/// Whether an element is a drawing, whose words float above the cell.
fn is_drawing(element: &BytesStart<'_>) -> bool {
    let name = element.name();
    ["draw:", "dr3d:"].iter().any(|prefix| name.as_ref().starts_with(prefix))
}

/// What is wanted of a workbook.
pub(super) enum Wanted<'a> {
    /// All sheets' names, and so many rows of each; of a workbook with more than
    /// `most` sheets nothing.
    Fronts { rows: u32, most: usize },
    /// All rows of one.
    Sheet { index: u32, header_line: u32, columns: &'a Columns },
}

/// Reads the workbook in `file`.
pub(super) fn read(
    file: BufReader<File>,
    wanted: &Wanted<'_>,
    answer: &mut dyn std::io::Write,
) -> Result<(), Stop> {
    let mut archive = ZipArchive::new(file).map_err(|error| fault_of(&error))?;
    if let Ok(manifest) = archive.by_name("META-INF/manifest.xml") {
        let mut text = Vec::new();
        let read = manifest.take(MANIFEST_BYTES_MAX).read_to_end(&mut text);
        read.map_err(|_| Fault::Damaged)?;
        if text.windows(15).any(|window| window == b"encryption-data") {
            return Err(Fault::Encrypted.into());
        }
    }
    let content = archive.by_name("content.xml").map_err(|error| fault_of(&error))?;
    let mut xml = Reader::from_reader(BufReader::new(content));
    xml.config_mut().expand_empty_elements = true;
    Content { xml, buffer: Vec::new(), open: 0, told: 0 }.sheets(wanted, answer)
}

/// The part that has all sheets.
struct Content<R> {
    xml: Reader<R>,
    buffer: Vec<u8>,
    /// Elements that are open, but for those that are read as a whole.
    open: u64,
    /// Bytes of rows that were told of.
    told: u64,
}

/// An element's beginning or end, or text.
enum Piece {
    Begin(BytesStart<'static>),
    End(String),
    Text(String),
}

impl<R: BufRead> Content<R> {
    fn sheets(&mut self, wanted: &Wanted<'_>, answer: &mut dyn std::io::Write) -> Result<(), Stop> {
        let (mut hidden, mut style) = (HashSet::new(), String::new());
        let mut index = 0;
        loop {
            let Some(piece) = self.next()? else {
                return match wanted {
                    Wanted::Fronts { .. } => Ok(()),
                    Wanted::Sheet { .. } => Err(Fault::Gone.into()),
                };
            };
            let Piece::Begin(element) = piece else { continue };
            match element.local_name().as_ref() {
                "style" => style = attribute(&element, "style:name")?.unwrap_or_default(),
                "table-properties"
                    if attribute(&element, "table:display")?.as_deref() == Some("false") =>
                {
                    hidden.insert(style.clone());
                }
                "table" => {
                    let name = attribute(&element, "table:name")?.unwrap_or_default();
                    let style = attribute(&element, "table:style-name")?;
                    let hidden = style.is_some_and(|style| hidden.contains(&style));
                    match wanted {
                        Wanted::Fronts { most, .. } if index as usize == *most => {
                            return Err(Fault::TooMany.into());
                        }
                        Wanted::Fronts { rows, .. } => {
                            send(&Message::Sheet { name, hidden }, answer)?;
                            self.table(&mut Rows::new(answer, *rows), None)?;
                        }
                        Wanted::Sheet { index: one, header_line, columns } if index == *one => {
                            let mut rows = Rows::new(answer, u32::MAX);
                            return self.table(&mut rows, Some((*header_line, columns)));
                        }
                        Wanted::Sheet { .. } => self.skip(&element)?,
                    }
                    index += 1;
                }
                _ => {}
            }
        }
    }

    /// Reads a table to its end.
    fn table(&mut self, rows: &mut Rows<'_>, below: Option<(u32, &Columns)>) -> Result<(), Stop> {
        let (mut row, mut wanted) = (0u32, true);
        loop {
            match self.next()?.ok_or(Fault::Damaged)? {
                Piece::End(name) if name == "table" => return rows.finish(),
                Piece::Begin(element) if element.local_name().as_ref() == "table-row" => {
                    let times = number(&element, "table:number-rows-repeated")?;
                    let cells = self.row()?;
                    if cells.is_empty() {
                        row = row.saturating_add(times);
                        continue;
                    }
                    // A few bytes may stand for a million long rows.
                    let bytes: u64 = cells.iter().map(Cell::bytes).sum();
                    self.told = self.told.saturating_add(bytes.saturating_mul(times.into()));
                    if wanted && self.told > inflate::LIMITS.sheets_bytes {
                        return Err(Fault::TooLarge.into());
                    }
                    for _ in 0..times {
                        if row as usize >= SHEET_ROWS_MAX {
                            return Err(Fault::TooLarge.into());
                        }
                        if bytes > ROW_BYTES_MAX as u64 {
                            wanted = wanted && rows.too_long(row)?;
                        }
                        for cell in cells.iter().filter(|_| bytes <= ROW_BYTES_MAX as u64) {
                            wanted = wanted && cell.hand_on(row, below, rows)?;
                        }
                        row += 1;
                        if !wanted {
                            break;
                        }
                    }
                }
                // A table within one is a picture's, or a program's own.
                Piece::Begin(element) if element.local_name().as_ref() == "table" => {
                    self.skip(&element)?;
                }
                _ => {}
            }
        }
    }

    fn row(&mut self) -> Result<Vec<Cell>, Stop> {
        let (mut cells, mut column, mut bytes) = (Vec::new(), 0u32, 0);
        loop {
            match self.next()?.ok_or(Fault::Damaged)? {
                Piece::End(name) if name == "table-row" => return Ok(cells),
                Piece::Begin(element)
                    if matches!(
                        element.local_name().as_ref(),
                        "table-cell" | "covered-table-cell"
                    ) =>
                {
                    let times = number(&element, "table:number-columns-repeated")?;
                    let mut cell = Cell::of(&element, column, times)?;
                    // What is more than a row may have is not kept; it is told of as
                    // that by its length.
                    let room = (ROW_BYTES_MAX + 1).saturating_sub(bytes);
                    self.text_of(&element, &mut cell.shown, room)?;
                    bytes += cell.shown.len();
                    column = column.saturating_add(times);
                    // One beyond those that are counted says that there are more.
                    // What is covered nobody sees.
                    let covered = element.local_name().as_ref() == "covered-table-cell";
                    if !covered && cell.is_something() && cells.len() <= COLUMNS_MAX {
                        cells.push(cell);
                    }
                }
                _ => {}
            }
        }
    }

    /// The text of a cell, up to its end.
    fn text_of(
        &mut self,
        cell: &BytesStart<'_>,
        out: &mut String,
        room: usize,
    ) -> Result<(), Stop> {
        let name = cell.local_name().as_ref().to_owned();
        let (mut paragraphs, mut within) = (0u32, 0u32);
        loop {
            match self.next()?.ok_or(Fault::Damaged)? {
                Piece::End(end) if end == name && within == 0 => break,
                Piece::End(end) if matches!(&*end, "p" | "h") => within = within.saturating_sub(1),
                Piece::End(_) => {}
                Piece::Text(text) if within > 0 => {
                    for c in text.chars() {
                        // A program may lay its lines out.
                        let c = if matches!(c, '\n' | '\r' | '\t') { ' ' } else { c };
                        if out.len() < room && !(c == ' ' && out.ends_with(' ')) {
                            out.push(c);
                        }
                    }
                }
                Piece::Text(_) => {}
                Piece::Begin(element) => match element.local_name().as_ref() {
                    "p" | "h" => {
                        if paragraphs > 0 && within == 0 && out.len() < room {
                            out.push('\n');
                        }
                        (paragraphs, within) = (paragraphs + 1, within + 1);
                    }
                    "s" => {
                        let count = number(&element, "text:c")? as usize;
                        let room = room.saturating_sub(out.len());
                        out.extend(std::iter::repeat_n(' ', count.min(room)));
                    }
                    "tab" if out.len() < room => out.push('\t'),
                    "line-break" if out.len() < room => out.push('\n'),
                    other if NO_TEXT.contains(&other) || is_drawing(&element) => {
                        self.skip(&element)?;
                    }
                    _ => {}
                },
            }
        }
        Ok(())
    }

    /// Passes over an element that has begun.
    fn skip(&mut self, element: &BytesStart<'_>) -> Result<(), Stop> {
        self.open -= 1;
        let read = self.xml.read_to_end_into(element.name(), &mut self.buffer);
        Ok(read.map(drop).map_err(|_| Fault::Damaged)?)
    }

    /// What comes next; none at the end of all.
    fn next(&mut self) -> Result<Option<Piece>, Stop> {
        loop {
            self.buffer.clear();
            let event = self.xml.read_event_into(&mut self.buffer).map_err(|_| Fault::Damaged)?;
            return Ok(Some(match event {
                Event::Start(element) => {
                    // Attributes are known by the prefixes that every program writes.
                    let known = element.name().as_ref().starts_with("table:");
                    if matches!(element.local_name().as_ref(), "table-row" | "table-cell") && !known
                    {
                        return Err(Fault::Unsupported.into());
                    }
                    self.open += 1;
                    Piece::Begin(element.into_owned())
                }
                Event::End(element) => {
                    self.open = self.open.checked_sub(1).ok_or(Fault::Damaged)?;
                    Piece::End(element.local_name().as_ref().to_owned())
                }
                Event::Text(text) => Piece::Text(text.xml10_content().into_owned()),
                Event::CData(text) => Piece::Text(text.xml10_content().into_owned()),
                Event::GeneralRef(reference) => {
                    let known = match &*reference {
                        "amp" => Some('&'),
                        "lt" => Some('<'),
                        "gt" => Some('>'),
                        "quot" => Some('"'),
                        "apos" => Some('\''),
                        _ => reference.resolve_char_ref().map_err(|_| Fault::Damaged)?,
                    };
                    Piece::Text(known.ok_or(Fault::Damaged)?.to_string())
                }
                Event::Eof if self.open > 0 => return Err(Fault::Damaged.into()),
                Event::Eof => return Ok(None),
                _ => continue,
            }));
        }
    }
}

fn attribute(element: &BytesStart<'_>, name: &str) -> Result<Option<String>, Stop> {
    let found = element.try_get_attribute(name).map_err(|_| Fault::Damaged)?;
    let value = found.map(|found| {
        found.normalized_value(XmlVersion::Implicit1_0).map(|value| value.into_owned())
    });
    Ok(value.transpose().map_err(|_| Fault::Damaged)?)
}

/// A count; 1 where it is not said, and where it makes no sense.
fn number(element: &BytesStart<'_>, name: &str) -> Result<u32, Stop> {
    let count = attribute(element, name)?.and_then(|text| text.trim().parse::<u32>().ok());
    Ok(count.unwrap_or(1).max(1))
}
