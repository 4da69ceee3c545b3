//! Rows of a sheet that are not what they seem: a formula that nobody has computed,
//! a cell that is merged with those above.
//!
//! Called by [`super::reading`] in the child. Such a cell reads as an empty one,
//! though people see a value there, or would. Not here: what is told of such a row.

use std::{
    collections::BTreeMap,
    io::{Read, Seek},
};

use calamine::{Data, DataRef, Dimensions, Range, Xlsx, XlsxError};

use super::{
    super::{child::frames::Fault, texts::COLUMNS_MAX},
    reading::is_one_cell,
};

/// Most rows of a sheet, which is the format's own limit.
const SHEET_ROWS_MAX: usize = 1 << 20;
/// Most rows that all merged regions of a sheet may cover: each row in several
/// columns.
const MERGED_MAX: usize = 16 * SHEET_ROWS_MAX;

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

/// The same of a sheet that was read as a whole.
pub(super) fn without_results_in(
    values: &Range<Data>,
    formulas: &Range<String>,
) -> Result<Marks, Fault> {
    let mut found = Marks::new();
    let (first_row, first_column) = formulas.start().unwrap_or_default();
    for (row, column, _) in formulas.used_cells() {
        // Both came from 32 bits.
        let (row, column) = (first_row + row as u32, first_column + column as u32);
        if values.get_value((row, column)).is_none_or(|value| *value == Data::Empty) {
            add(&mut found, row, column)?;
        }
    }
    Ok(found)
}

/// Rows in the lower part of merged regions that begin below the header, which is
/// the row `header_line`, from 1.
pub(super) fn merged(regions: &[Dimensions], header_line: u32) -> Result<Marks, Fault> {
    let (mut found, mut covered) = (Marks::new(), 0);
    for region in regions.iter().filter(|region| region.start.0 >= header_line) {
        let (below, column) = (region.start.0.saturating_add(1), region.start.1);
        covered += region.end.0.saturating_sub(region.start.0) as usize;
        if covered > MERGED_MAX {
            return Err(Fault::TooLarge);
        }
        if column as usize >= COLUMNS_MAX {
            continue;
        }
        for row in below..=region.end.0 {
            add(&mut found, row, column)?;
        }
    }
    Ok(found)
}

fn add(found: &mut Marks, row: u32, column: u32) -> Result<(), Fault> {
    let first = found.entry(row).or_insert(column);
    *first = column.min(*first);
    if found.len() > SHEET_ROWS_MAX { Err(Fault::TooLarge) } else { Ok(()) }
}
