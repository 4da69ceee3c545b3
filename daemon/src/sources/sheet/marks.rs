//! Rows of a sheet that are not what they seem: a formula that nobody has computed,
//! a cell that is merged with those above.
//!
//! Called by [`super::reading`] and [`super::ods`] in the child. Such a cell reads as an empty one,
//! though people see a value there, or would. Not here: what is told of such a row.

use std::{
    collections::BTreeMap,
    io::{Read, Seek},
};

use calamine::{DataRef, Dimensions, Xlsx, XlsxError};

use super::super::{
    child::{Columns, frames::Fault},
    texts::COLUMNS_MAX,
};

/// Most rows of a sheet, which is the format's own limit.
pub(super) const SHEET_ROWS_MAX: usize = 1 << 20;
/// Whether an error is about one cell, behind which the reader goes on.
pub(super) fn is_one_cell(error: &XlsxError) -> bool {
    matches!(
        error,
        XlsxError::Unexpected(_)
            | XlsxError::ParseFloat(_)
            | XlsxError::ParseInt(_)
            | XlsxError::CellError(_)
            | XlsxError::CellTAttribute(_)
            | XlsxError::Unrecognized { .. }
    )
}

/// A column of each row, both from 0.
pub(super) type Marks = BTreeMap<u32, u32>;

/// The first cell of each row that has a formula and no result, as programs write
/// it that do not compute: its value is not known, and is not nothing.
pub(super) fn without_results<R: Read + Seek>(
    workbook: &mut Xlsx<R>,
    name: &str,
) -> Result<Marks, Fault> {
    let mut found = Marks::new();
    let mut cells = match workbook.worksheet_cells_reader(name) {
        Ok(cells) => cells,
        Err(XlsxError::NotAWorksheet(_)) => return Ok(found),
        Err(_) => return Err(Fault::Damaged),
    };
    loop {
        match cells.next_cell_with_formula_metadata() {
            Ok(None) => return Ok(found),
            Ok(Some(cell)) => {
                if cell.formula.is_some() && matches!(cell.value, DataRef::Empty) {
                    add(&mut found, cell.pos.0, cell.pos.1)?;
                }
            }
            // Its row is told of by whoever reads the values.
            Err(error) if is_one_cell(&error) => {}
            Err(_) => return Err(Fault::Damaged),
        }
    }
}

/// A sheet's merged regions. What lies under one and is not its first cell nobody
/// sees, so it counts as empty, whatever a program has left there.
#[derive(Debug, Default)]
pub(super) struct Merges {
    /// In the order of their first rows; the last comes first.
    coming: Vec<Merge>,
    /// Those that reach down to the row that is looked at, with what their first
    /// cell says.
    active: Vec<(Merge, String)>,
}

#[derive(Debug, Clone, Copy)]
struct Merge {
    first: u32,
    last: u32,
    column: usize,
    last_column: usize,
}

impl Merge {
    /// Empties its cells of a row from one on.
    fn clear(&self, from: usize, cells: &mut [String]) {
        let covered = cells.iter_mut().take(self.last_column + 1).skip(from);
        covered.for_each(String::clear);
    }
}

impl Merges {
    /// Of the regions that begin below the header, which is the row `header_line`,
    /// from 1, in columns that name a field,
    /// or that go over several.
    pub(super) fn new(regions: &[Dimensions], header_line: u32, columns: &Columns) -> Self {
        let below = regions.iter().filter(|region| region.start.0 >= header_line);
        let mut coming: Vec<Merge> = below
            .map(|region| Merge {
                first: region.start.0,
                last: region.end.0,
                column: region.start.1 as usize,
                last_column: (region.end.1 as usize).min(COLUMNS_MAX),
            })
            .filter(|merge| {
                let down = merge.last > merge.first && columns.has(merge.column as u32);
                down || merge.last_column > merge.column
            })
            .collect();
        coming.sort_by_key(|merge| std::cmp::Reverse((merge.first, merge.column)));
        Self { coming, active: Vec::new() }
    }

    /// Another region, which begins in the row that is looked at.
    pub(super) fn add(&mut self, first: u32, last: u32, column: usize) {
        if last > first && self.coming.len() < COLUMNS_MAX {
            // Its other cells say themselves that they are covered.
            self.coming.push(Merge { first, last, column, last_column: column });
        }
    }

    /// Looks at the next row; if it is told of, puts what people see into cells that
    /// are merged with the ones above. Answers the first of them.
    pub(super) fn fill(
        &mut self,
        row: u32,
        cells: &mut Vec<String>,
        told: bool,
    ) -> Result<Option<usize>, Fault> {
        self.active.retain(|(merge, _)| merge.last >= row);
        let mut first = None;
        for (merge, text) in self.active.iter().filter(|_| told) {
            let column = merge.column;
            merge.clear(column, cells);
            if text.is_empty() {
                continue;
            }
            if cells.len() <= column {
                cells.resize_with(column + 1, String::new);
            }
            cells[column].push_str(text);
            first = Some(first.map_or(column, |first: usize| first.min(column)));
        }
        while let Some(merge) = self.coming.pop_if(|merge| merge.first <= row) {
            if merge.first != row {
                continue;
            }
            // Regions do not overlap, so no row has more.
            if self.active.len() >= COLUMNS_MAX {
                return Err(Fault::Damaged);
            }
            merge.clear(merge.column + 1, cells);
            let text = cells.get(merge.column).cloned().unwrap_or_default();
            self.active.push((merge, text));
        }
        Ok(first)
    }
}

fn add(found: &mut Marks, row: u32, column: u32) -> Result<(), Fault> {
    let first = found.entry(row).or_insert(column);
    *first = column.min(*first);
    if found.len() > SHEET_ROWS_MAX { Err(Fault::TooLarge) } else { Ok(()) }
}
