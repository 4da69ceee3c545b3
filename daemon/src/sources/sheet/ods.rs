//! OpenDocument workbooks, read element by element.
//!
//! Called by [`super::reading`] in the child. The library that reads the other
//! formats gives a cell's value without what it shows, so leading zeros, words around
//! a number, errors and merged cells would be lost. Invariants: memory does not
//! depend on the number of rows; what a formula, a code or an error shows is what
//! comes out; XML that ends too early is damage. Not here: what a value's text is
//! ([`super::cell`]).

use std::{
    collections::HashSet,
    fs::File,
    io::{BufRead, BufReader, Read as _},
};

use calamine::DataRef;
use quick_xml::{
    Reader, XmlVersion,
    events::{BytesStart, Event},
};
use zip::ZipArchive;

use super::{
    super::{
        child::{
            Stop,
            frames::{Fault, Message},
        },
        texts::{COLUMNS_MAX, ROW_BYTES_MAX},
    },
    cell,
    inflate::fault_of,
    rows::{Rows, send},
};

/// Most rows of a sheet, which is the format's own limit.
const SHEET_ROWS_MAX: u32 = 1 << 20;
/// Bytes of the list of parts that are looked at for a password.
const MANIFEST_BYTES_MAX: u64 = 1 << 20;
/// Elements in a cell that are no part of its text: remarks, pictures, what stands
/// above a character.
const NO_TEXT: [&str; 8] =
    ["annotation", "note", "ruby-text", "frame", "custom-shape", "g", "control", "table"];
/// What begins an error in any language, and what programs call the others.
const ERROR_MARKS: [&str; 2] = ["#", "Err:"];

/// What is wanted of a workbook.
pub(super) enum Wanted<'a> {
    /// All sheets' names, and so many rows of each.
    Fronts { rows: u32, most: usize },
    /// All rows of one.
    Sheet { index: u32, header_line: u32, texts: &'a [u16] },
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
    Content { xml, buffer: Vec::new(), open: 0 }.sheets(wanted, answer)
}

/// The part that has all sheets.
struct Content<R> {
    xml: Reader<R>,
    buffer: Vec<u8>,
    /// Elements that are open, but for those that are read as a whole.
    open: u64,
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
                            self.table(&mut Rows::new(answer, *rows), None, &[])?;
                        }
                        Wanted::Sheet { index: one, header_line, texts } if index == *one => {
                            let mut rows = Rows::new(answer, u32::MAX);
                            return self.table(&mut rows, Some(*header_line), texts);
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
    fn table(
        &mut self,
        rows: &mut Rows<'_>,
        header: Option<u32>,
        texts: &[u16],
    ) -> Result<(), Stop> {
        let (mut row, mut wanted) = (0u32, true);
        loop {
            match self.next()?.ok_or(Fault::Damaged)? {
                Piece::End(name) if name == "table" => return rows.finish(),
                Piece::Begin(element) if element.local_name().as_ref() == "table-row" => {
                    let times = number(&element, "table:number-rows-repeated")?;
                    let cells = self.row()?;
                    if !cells.iter().any(|cell| cell.is_something()) {
                        row = row.saturating_add(times);
                        continue;
                    }
                    for _ in 0..times {
                        if row >= SHEET_ROWS_MAX {
                            return Err(Fault::TooLarge.into());
                        }
                        for cell in &cells {
                            wanted = wanted && cell.hand_on(row, header, texts, rows)?;
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
                    if cell.is_something() {
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
                    other if NO_TEXT.contains(&other) => self.skip(&element)?,
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

/// A cell, and the equal ones behind it.
struct Cell {
    column: u32,
    times: u32,
    value: Value,
    shown: String,
    /// It says itself what it is: a formula's result may be an empty text.
    typed: bool,
    formula: bool,
    error: bool,
    /// Rows that it covers.
    rows: u32,
}

enum Value {
    None,
    Number(f64),
    Day(String),
    Time(String),
    Bool(bool),
    Text(Option<String>),
}

impl Cell {
    fn of(element: &BytesStart<'_>, column: u32, times: u32) -> Result<Self, Stop> {
        let is = |name: &str| attribute(element, name);
        let kind = is("office:value-type")?.unwrap_or_default();
        let value = match kind.as_str() {
            "float" | "currency" | "percentage" => {
                let number = is("office:value")?.and_then(|text| text.trim().parse().ok());
                number.map_or(Value::None, Value::Number)
            }
            "date" => is("office:date-value")?.map_or(Value::None, Value::Day),
            "time" => is("office:time-value")?.map_or(Value::None, Value::Time),
            "boolean" => {
                is("office:boolean-value")?.map_or(Value::None, |text| Value::Bool(text == "true"))
            }
            _ => Value::Text(is("office:string-value")?),
        };
        let error = is("calcext:value-type")?.as_deref() == Some("error")
            // A number that is none.
            || matches!(value, Value::None) && !kind.is_empty();
        Ok(Self {
            column,
            times,
            value,
            shown: String::new(),
            typed: !kind.is_empty(),
            formula: is("table:formula")?.is_some(),
            error,
            rows: number(element, "table:number-rows-spanned")?,
        })
    }

    /// Whether it has anything, or should.
    fn is_something(&self) -> bool {
        let is_text = matches!(&self.value, Value::Text(text) if text.as_deref().unwrap_or_default().is_empty());
        !is_text || !self.shown.is_empty() || self.formula || self.rows > 1
    }

    /// Hands it on, as often as it is there; answers whether more is wanted.
    fn hand_on(
        &self,
        row: u32,
        header: Option<u32>,
        texts: &[u16],
        rows: &mut Rows<'_>,
    ) -> Result<bool, Stop> {
        if self.rows > 1 && header.is_some_and(|header| row >= header) {
            rows.merges.add(row, row.saturating_add(self.rows - 1), self.column as usize);
        }
        // Beyond the columns that are counted one more says that there are some.
        let last = self.column.saturating_add(self.times).min(COLUMNS_MAX as u32 + 1);
        let first = self.column.min(COLUMNS_MAX as u32);
        for column in first..last.max(first + 1) {
            let in_texts = u16::try_from(column).is_ok_and(|column| texts.contains(&column));
            if !rows.take(row, column, |out| self.write(in_texts, out))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Writes its text; answers whether it is an error.
    fn write(&self, in_texts: bool, out: &mut String) -> bool {
        let shown = self.shown.trim();
        let is_mark = ERROR_MARKS.iter().any(|mark| shown.starts_with(mark));
        if self.error || self.formula && is_mark {
            out.push_str(if shown.is_empty() { "#VALUE!" } else { shown });
            return true;
        }
        match &self.value {
            Value::Text(Some(text)) if !text.is_empty() => {
                cell::write(&DataRef::SharedString(text), None, in_texts, out)
            }
            Value::Text(_) if self.formula && self.shown.is_empty() && !self.typed => {
                out.push_str("#VALUE!");
                true
            }
            Value::None | Value::Text(_) => {
                cell::write(&DataRef::SharedString(&self.shown), None, in_texts, out)
            }
            Value::Number(number) => {
                let before = out.len();
                let failed = cell::write(&DataRef::Float(*number), None, in_texts, out);
                let plain = &out[before..];
                if is_number_with_zeros(shown, plain) || in_texts && has_words(shown) {
                    out.truncate(before);
                    out.push_str(shown);
                }
                failed
            }
            Value::Day(text) => {
                cell::write(&DataRef::DateTimeIso(text.clone()), None, in_texts, out)
            }
            Value::Time(text) => {
                cell::write(&DataRef::DurationIso(text.clone()), None, in_texts, out)
            }
            Value::Bool(value) => cell::write(&DataRef::Bool(*value), None, in_texts, out),
        }
    }
}

/// Whether `shown` is `plain` with zeros in front.
fn is_number_with_zeros(shown: &str, plain: &str) -> bool {
    shown.len() > plain.len()
        && shown.bytes().all(|byte| byte.is_ascii_digit())
        && shown.trim_start_matches('0') == plain.trim_start_matches('0')
}

/// Whether what a number shows has more than digits, their separators, a currency and
/// a percent sign.
fn has_words(shown: &str) -> bool {
    let is_digit = |c: char| c.is_ascii_digit();
    let of_numbers =
        |c: char| c.is_ascii_digit() || c.is_whitespace() || ".,%+-()¥￥$€£".contains(c);
    // Marks between digits belong to a code: 2019-0007.
    let inner = shown.trim_matches(|c: char| !is_digit(c)).contains('-');
    // An exponent is no word.
    let exponent =
        shown.to_ascii_uppercase().contains("E+") || shown.to_ascii_uppercase().contains("E-");
    shown.contains(is_digit) && !exponent && (inner || !shown.chars().all(of_numbers))
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
