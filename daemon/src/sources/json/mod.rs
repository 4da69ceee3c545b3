//! JSON: an array of objects, one object a line, or an object that holds the one
//! array.
//!
//! [`JsonFile::open`] finds out which of them it is and reads the file once for
//! its columns: all names in the order in which they first appear. Then
//! [`JsonFile::next_rows`] reads it again, for its rows. Bytes become text in
//! [`bytes`], [`elements`] finds where an element ends, [`object`] takes one apart.
//!
//! Invariants: memory is bounded by the longest element ([`super::texts::ROW_BYTES_MAX`]) and by
//! [`super::texts::COLUMNS_MAX`], not by the file; an element that is malformed costs one row
//! wherever its end can be told; a number keeps the digits that the file has. A
//! row's line is the physical line on which its element begins; elements that share
//! one are counted on from it, so that each has a line of its own: in an array
//! without line ends that is the element's number.
//!
//! Not here: which columns a dataset wants.

mod bytes;
mod elements;
mod error;
mod object;
mod shape;
pub mod table;

use std::{
    fmt,
    io::{self, Seek as _},
};

pub use self::error::{Charset, Input, JsonError};
use self::{
    bytes::Bytes,
    elements::{Element, Elements},
    object::Columns,
    shape::Shape,
};
use super::texts::{REJECTED_SEPARATOR, TextRows};
use crate::ingest::text_problem::TextProblem;

/// A JSON file that is being read.
pub struct JsonFile {
    elements: Elements,
    columns: Columns,
    bytes_total: u64,
    cut: bool,
    /// The line of the last row.
    line: u64,
}

impl fmt::Debug for JsonFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JsonFile").field("columns", &self.columns.names()).finish_non_exhaustive()
    }
}

impl JsonFile {
    /// Finds out how its records are laid out, and reads it once for its columns.
    /// `name` tells lines from an array where the content may be either.
    pub fn open(
        mut input: Box<dyn Input>,
        bytes_total: u64,
        name: &str,
        charset: Charset,
    ) -> Result<Self, JsonError> {
        input.rewind()?;
        let charset = bytes::detect(&mut input, charset)?;
        let mut bytes = Bytes::new(input, charset);
        let shape = Shape::find(&mut bytes, name)?;
        let mut elements = Elements::new(bytes, shape)?;
        let (mut columns, mut all_text) = (Columns::default(), true);
        while let Some(element) = elements.next()? {
            match element {
                Element::Value(text) => all_text &= columns.learn(text)?,
                Element::More { line } => return Err(JsonError::More { line }),
                Element::TooLong { .. } | Element::Cut { .. } => {}
            }
        }
        if columns.names().is_empty() {
            return Err(if all_text { JsonError::NoRecords } else { JsonError::Encoding });
        }
        Ok(Self { elements: elements.again()?, columns, bytes_total, cut: false, line: 0 })
    }

    /// Reads bytes in memory as [`JsonFile::open`] reads a file.
    pub fn from_bytes(bytes: Vec<u8>, name: &str) -> Result<Self, JsonError> {
        let length = bytes.len() as u64;
        Self::open(Box::new(io::Cursor::new(bytes)), length, name, Charset::Auto)
    }

    /// All names, in the order in which they first appear.
    pub fn header(&self) -> &[String] {
        self.columns.names()
    }

    /// Bytes of the file when it was opened, for progress.
    pub fn bytes_total(&self) -> u64 {
        self.bytes_total
    }

    /// Bytes read so far, for progress.
    pub fn bytes_read(&self) -> u64 {
        self.elements.bytes_read()
    }

    /// Whether it ended within an element or an array, once it was read to its end.
    pub fn is_cut(&self) -> bool {
        self.cut
    }

    /// The encoding that was found.
    pub fn encoding(&self) -> &'static str {
        self.elements.encoding()
    }

    /// The next rows; none at the end.
    pub fn next_rows(&mut self) -> Result<TextRows, JsonError> {
        let mut rows = TextRows::default();
        let encoding = self.elements.encoding();
        while !rows.is_full() {
            let Some(element) = self.elements.next()? else {
                break;
            };
            self.line = element.line().max(self.line + 1);
            match element {
                Element::Value(text) => {
                    let problem = match self.columns.row(self.line, text.bytes, &mut rows) {
                        Ok(()) => continue,
                        Err(TextProblem::Encoding { .. }) => TextProblem::Encoding { encoding },
                        Err(problem) => problem,
                    };
                    // It is one cell, whatever commas it has.
                    let mut cell = String::from_utf8_lossy(text.bytes).into_owned();
                    cell.push(REJECTED_SEPARATOR);
                    rows.push_malformed(self.line, problem, &cell);
                }
                Element::TooLong { .. } => {
                    rows.push_malformed(self.line, TextProblem::TooLong, "");
                }
                Element::More { line } => return Err(JsonError::More { line }),
                Element::Cut { .. } => {
                    self.cut = true;
                    rows.push_malformed(self.line, TextProblem::Cut, "");
                }
            }
        }
        Ok(rows)
    }
}

#[cfg(test)]
mod tests;
