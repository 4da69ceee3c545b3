//! Cells on their way to frames: a sheet's rows, one after the other.
//!
//! Used in the child by whoever reads a workbook ([`super::reading`], [`super::ods`]). Invariants:
//! rows go up; a row that is empty is not told of; of what is wrong with a row the
//! most serious is told. Not here: what a cell shows ([`super::cell`]).

use std::io::Write;

use calamine::{Data, DataRef};

use super::{
    super::{
        child::{
            Stop,
            frames::{Fault, Message, SheetRows, Trouble},
        },
        texts::COLUMNS_MAX,
    },
    cell,
    format::Format,
    marks::Merges,
};

/// Tells a message.
pub(super) fn send(message: &Message, answer: &mut dyn Write) -> Result<(), Stop> {
    message.write(answer).map_err(Stop::Answer)
}

/// Cells on their way to frames.
pub(super) struct Rows<'a> {
    answer: &'a mut dyn Write,
    /// Rows that are still wanted.
    pub(super) left: u32,
    /// The row that cells are being added to, from 0.
    row: Option<u32>,
    /// Its texts by column; empty ones beyond the last that is filled.
    cells: Vec<String>,
    /// Columns that are filled, from the first.
    filled: usize,
    /// The first column, from 1, whose formula failed.
    error: Option<usize>,
    /// A cell lies further to the right than columns are counted.
    too_wide: bool,
    /// The column of the last cell.
    last: Option<usize>,
    /// A cell cannot be read, which may lie in this row.
    damaged: bool,
    /// It may also lie in the next.
    next_damaged: bool,
    /// What is merged with cells above.
    pub(super) merges: Merges,
    batch: SheetRows,
}

impl<'a> Rows<'a> {
    pub(super) fn new(answer: &'a mut dyn Write, rows: u32) -> Self {
        Self {
            answer,
            left: rows,
            row: None,
            cells: Vec::new(),
            filled: 0,
            error: None,
            too_wide: false,
            last: None,
            damaged: false,
            next_damaged: false,
            merges: Merges::default(),
            batch: SheetRows::default(),
        }
    }

    /// Takes a cell; answers whether more are wanted.
    pub(super) fn cell(
        &mut self,
        row: u32,
        column: u32,
        value: &DataRef<'_>,
        format: Option<&Format>,
        in_texts: bool,
    ) -> Result<bool, Stop> {
        self.take(row, column, |out| cell::write(value, format, in_texts, out))
    }

    pub(super) fn owned_cell(&mut self, row: u32, column: u32, value: &Data) -> Result<bool, Stop> {
        self.take(row, column, |out| cell::write_owned(value, out))
    }

    pub(super) fn take(
        &mut self,
        row: u32,
        column: u32,
        write: impl FnOnce(&mut String) -> bool,
    ) -> Result<bool, Stop> {
        if self.row != Some(row) {
            let before = self.row;
            if before.is_some_and(|before| before > row) {
                return Err(Fault::Damaged.into());
            }
            self.end_row()?;
            self.damaged = std::mem::take(&mut self.next_damaged);
            // The rows between would be lost.
            if self.damaged && before.is_none_or(|before| before + 1 < row) {
                return Err(Fault::Damaged.into());
            }
            if self.left == 0 {
                return Ok(false);
            }
            self.row = Some(row);
            self.last = None;
        } else {
            // It lay between two cells of this row.
            self.next_damaged = false;
        }
        let column = column as usize;
        // Cells go up; otherwise two rows have one number, and are read as one.
        self.damaged |= self.last.is_some_and(|last| last >= column);
        self.last = Some(column);
        if column >= COLUMNS_MAX {
            let mut text = String::new();
            write(&mut text);
            self.too_wide |= !text.is_empty();
            return Ok(true);
        }
        if self.cells.len() <= column {
            self.cells.resize_with(column + 1, String::new);
        }
        let text = &mut self.cells[column];
        text.clear();
        if write(text) {
            self.error = Some(self.error.map_or(column + 1, |first| first.min(column + 1)));
        }
        if !text.is_empty() {
            self.filled = self.filled.max(column + 1);
        }
        Ok(true)
    }

    /// A row that is longer than allowed; answers whether more are wanted.
    pub(super) fn too_long(&mut self, row: u32) -> Result<bool, Stop> {
        self.take(row, COLUMNS_MAX as u32, |out| {
            out.push('…');
            false
        })
    }

    /// A cell that cannot be read, of which nothing is known but that it lies
    /// between two others.
    pub(super) fn damaged_cell(&mut self) {
        self.damaged = true;
        self.next_damaged = true;
    }

    /// Why the row that cells are being added to is none; `error` is the first column
    /// whose formula failed, `merged` the first that is merged with the one above, both
    /// from 1.
    fn trouble(&self, error: Option<usize>, merged: Option<usize>) -> Option<Trouble> {
        // Columns are fewer than 16 bits count.
        let counted = |column: usize| u16::try_from(column).unwrap_or(u16::MAX);
        match (error, merged) {
            _ if self.damaged => Some(Trouble::DamagedCell),
            (Some(column), _) => Some(Trouble::ErrorCell(counted(column))),
            (None, column) => column.map(|column| Trouble::MergedCell(counted(column))),
        }
    }

    fn end_row(&mut self) -> Result<(), Stop> {
        let mut filled = std::mem::take(&mut self.filled);
        let (error, too_wide) = (self.error.take(), std::mem::take(&mut self.too_wide));
        let Some(row) = self.row.take() else { return Ok(()) };
        let told = filled > 0 && !too_wide;
        let merged = self.merges.fill(row, &mut self.cells, told)?.map(|column| column + 1);
        if filled > 0 || too_wide {
            let line = row.saturating_add(1);
            if too_wide {
                let many = std::iter::repeat_n("", COLUMNS_MAX + 1);
                self.batch.push(line, None, many);
            } else {
                let trouble = self.trouble(error, merged);
                if merged.is_some() {
                    let last = self.cells.iter().rposition(|cell| !cell.is_empty());
                    filled = last.map_or(0, |last| last + 1);
                }
                self.batch.push(line, trouble, self.cells[..filled].iter().map(String::as_str));
            }
            self.left -= 1;
            if self.batch.is_full() {
                self.hand_over()?;
            }
        }
        self.cells[..filled].iter_mut().for_each(String::clear);
        Ok(())
    }

    fn hand_over(&mut self) -> Result<(), Stop> {
        if !self.batch.is_empty() {
            // The rows themselves are needed no more, their room is.
            let rows = Message::Rows(std::mem::take(&mut self.batch));
            send(&rows, self.answer)?;
            if let Message::Rows(rows) = rows {
                self.batch = rows;
                self.batch.clear();
            }
        }
        Ok(())
    }

    pub(super) fn finish(&mut self) -> Result<(), Stop> {
        // It may have been all that its row has.
        if self.next_damaged && self.left > 0 {
            return Err(Fault::Damaged.into());
        }
        self.end_row()?;
        self.hand_over()
    }
}
