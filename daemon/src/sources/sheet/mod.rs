//! Workbooks: `.xlsx`, `.xlsm`, `.xlsb`, `.xls` and `.ods`.
//!
//! [`Workbook::open`] learns the sheets' names and first rows, so that whoever
//! knows the dataset can choose; [`Workbook::read`] then reads one sheet. Both
//! have a child do it ([`super::child`]): the reader of these formats can be made
//! to end its process by a file of 2 KB. What the child does is in [`reading`],
//! [`inflate`], [`cell`] and [`marks`].
//!
//! Invariants: a row's number is the one that a spreadsheet shows; a cell's text
//! is what a person sees in it, except that dates are ISO and numbers have no
//! separators; a row with a failed formula, with a cell that cannot be read, or with
//! one that is merged with those above, is rejected, not stored. Of cells that are
//! merged within a row only the first has the value, as in the file.
//!
//! Not here: which columns a dataset wants.

mod cell;
mod format;
pub(super) mod inflate;
mod marks;
mod ods;
pub(super) mod reading;
mod rows;
pub mod table;

use std::{collections::HashMap, fs::File};

use protocol::text::visible;

use super::{
    child::{
        Child, ChildError, Columns, Program, Task,
        frames::{Fault, FrameError, Message, SheetRows, Trouble},
    },
    texts::{REJECTED_SEPARATOR, TextRows},
};
use crate::ingest::{map::unit_of_label, text_problem::TextProblem, validate::without_ids};

/// Rows of each sheet that are looked at for its header: titles and notes above
/// it take a few.
pub const FRONT_ROWS: u32 = 20;
/// Most bytes of all sheets' first rows: a row of a register has some hundred,
/// and a workbook may have a thousand sheets.
const FRONT_BYTES_MAX: usize = 16 << 20;

/// One of the first rows of a sheet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrontRow {
    /// The number that a spreadsheet shows, from 1.
    pub line: u32,
    /// Its texts, up to the last cell that is not empty.
    pub cells: Vec<String>,
}

/// What is known of a sheet before it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SheetFront {
    /// Its place in the workbook, from 0.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// People do not see it.
    pub hidden: bool,
    /// Its first rows that are not blank, [`FRONT_ROWS`] at most.
    pub rows: Vec<FrontRow>,
    /// It cannot be read.
    pub fault: Option<Fault>,
}

/// A workbook whose sheets are known.
#[derive(Debug)]
pub struct Workbook {
    file: File,
    program: Program,
    sheets: Vec<SheetFront>,
}

impl Workbook {
    /// Learns what sheets there are.
    pub fn open(file: File, program: Program) -> Result<Self, ChildError> {
        let task = Task::SheetFronts { rows: FRONT_ROWS };
        let mut child = Child::start(&program, &task, &file, None)?;
        let (mut sheets, mut bytes): (Vec<SheetFront>, usize) = (Vec::new(), 0);
        loop {
            match (child.hear()?, sheets.last_mut()) {
                (Message::Done, _) => break,
                (Message::Sheet { name, hidden }, _) => {
                    // Below the child's own limit on sheets.
                    let index = sheets.len() as u32;
                    bytes += name.len();
                    // It comes to stand in logs and messages.
                    let name = visible(&without_ids(&name)).into_owned();
                    sheets.push(SheetFront { index, name, hidden, rows: Vec::new(), fault: None });
                }
                (Message::Rows(rows), Some(sheet)) => {
                    for row in rows.iter() {
                        let cells: Vec<String> = row.cells().map(str::to_owned).collect();
                        // A row's own size counts, too: cells may all be empty.
                        bytes += cells.iter().map(|cell| cell.len() + 32).sum::<usize>() + 64;
                        if sheet.rows.len() < FRONT_ROWS as usize {
                            sheet.rows.push(FrontRow { line: row.line, cells });
                        }
                    }
                }
                (Message::BrokenSheet(fault), Some(sheet)) => sheet.fault = Some(fault),
                _ => return Err(FrameError::Malformed("out of turn").into()),
            }
            if bytes > FRONT_BYTES_MAX {
                return Err(ChildError::Fault(Fault::TooLarge));
            }
        }
        Ok(Self { file, program, sheets })
    }

    /// All sheets, in the workbook's order.
    pub fn sheets(&self) -> &[SheetFront] {
        &self.sheets
    }

    /// Reads a sheet from the row below `header_line` on, as rows of as many fields as
    /// `header` has, some of which name one of the dataset's. Another sheet is read only after this one was dropped.
    pub fn read(
        &self,
        index: u32,
        header_line: u32,
        header: &[String],
        fields: Columns,
    ) -> Result<SheetReader, ChildError> {
        let unit = |column: &u16| {
            let column = usize::from(*column);
            unit_of_label(header.get(column)?).map(|unit| (column, unit))
        };
        let units = fields.others.iter().filter_map(unit).collect();
        let task = Task::Sheet { index, header_line, columns: fields };
        let child = Child::start(&self.program, &task, &self.file, None)?;
        let columns = header.len();
        Ok(SheetReader { child, last_line: header_line, header_line, columns, units })
    }
}

/// A sheet that is being read.
#[derive(Debug)]
pub struct SheetReader {
    child: Child,
    header_line: u32,
    /// Of the last row, which those after it lie below.
    last_line: u32,
    columns: usize,
    /// By column that is no text: the unit of money that its label names.
    units: HashMap<usize, &'static str>,
}

impl SheetReader {
    /// The next rows; none at the end of the sheet.
    pub fn next_rows(&mut self) -> Result<TextRows, ChildError> {
        let mut out = TextRows::default();
        while !out.is_full() && !self.child.is_done() {
            match self.child.hear()? {
                Message::Done => {}
                Message::Rows(rows) => self.take(&rows, &mut out)?,
                _ => return Err(FrameError::Malformed("out of turn").into()),
            }
        }
        Ok(out)
    }

    fn take(&mut self, rows: &SheetRows, out: &mut TextRows) -> Result<(), FrameError> {
        for row in rows.iter().filter(|row| row.line > self.header_line) {
            if row.line <= self.last_line {
                return Err(FrameError::Malformed("rows that go back"));
            }
            self.last_line = row.line;
            let line = row.line.into();
            let problem = match row.trouble {
                Some(Trouble::TooLong) => Some(TextProblem::TooLong),
                Some(Trouble::DamagedCell) => Some(TextProblem::DamagedCell),
                Some(Trouble::ErrorCell(column)) => {
                    Some(TextProblem::ErrorCell { column: column.into() })
                }
                Some(Trouble::MergedCell(column)) => {
                    Some(TextProblem::MergedCell { column: column.into() })
                }
                _ if row.len() > self.columns => {
                    Some(TextProblem::BeyondHeader { expected: self.columns, found: row.len() })
                }
                _ => None,
            };
            match problem {
                Some(problem) => out.push_malformed(line, problem, &as_line(row.cells())),
                None => {
                    let cells = row.cells().enumerate();
                    let cells = cells.map(|(at, cell)| match self.units.get(&at) {
                        // What the label says of all, the cell need not.
                        Some(unit) => cell.strip_suffix(unit).unwrap_or(cell),
                        None => cell,
                    });
                    out.push(line, self.columns, cells);
                }
            }
        }
        Ok(())
    }
}

/// A row's cells as one line, for whoever has to mend it.
fn as_line<'c>(cells: impl Iterator<Item = &'c str>) -> String {
    let mut line = String::new();
    for (at, cell) in cells.enumerate() {
        if at > 0 {
            line.push(REJECTED_SEPARATOR);
        }
        line.extend(cell.chars().filter(|character| *character != REJECTED_SEPARATOR));
    }
    line
}

#[cfg(test)]
mod tests;
