//! What the child does with a workbook: cells to rows of texts.
//!
//! Called in the child, for one task. Sheets of `.xlsx` and `.xlsb`
//! are read cell by cell, those of `.ods` in [`ods`]; those of `.xls` are held in memory
//! by their reader, within the child's limit.
//!
//! Invariants: a workbook is opened only after its parts were unpacked once
//! ([`inflate`]); rows go up; a row that is empty is not told of; of what is
//! wrong only a [`Fault`] is told, since the reader's words quote the file.

use std::{
    fs::File,
    io::{self, BufReader, Read as _, Seek as _, Write},
};

use calamine::{
    CellErrorType, Data, DataRef, Range, Reader, Sheet, SheetType, SheetVisible, Xls, XlsError,
    Xlsb, XlsbError, Xlsx, XlsxError,
};

use super::{
    super::child::{
        Columns, Stop,
        frames::{Fault, Message},
    },
    format::Format,
    inflate,
    marks::{self, Marks, Merges},
    ods::{self, Wanted},
    rows::{Rows, send},
};

/// Most sheets of a workbook: a file of one sheet a day for years has as many.
const SHEETS_MAX: usize = 1024;

/// Tells of every sheet and its first rows.
pub(in super::super) fn fronts(file: File, rows: u32, answer: &mut dyn Write) -> Result<(), Stop> {
    let mut workbook = match Workbook::open(file)? {
        Workbook::Ods(file) => {
            return ods::read(file, &Wanted::Fronts { rows, most: SHEETS_MAX }, answer);
        }
        workbook => workbook,
    };
    for sheet in workbook.sheets()? {
        let (hidden, name) = (sheet.visible != SheetVisible::Visible, sheet.name.clone());
        send(&Message::Sheet { name, hidden }, answer)?;
        match workbook.rows(&sheet.name, None, &mut Rows::new(answer, rows)) {
            Ok(()) => {}
            // One sheet that cannot be read says nothing of the others.
            Err(Stop::Fault(fault)) => send(&Message::BrokenSheet(fault), answer)?,
            Err(stop) => return Err(stop),
        }
    }
    Ok(())
}

/// Tells all rows of the sheet `index`, from 0, whose header is the row `header_line`,
/// from 1, and of whose columns these name a field.
pub(in super::super) fn sheet(
    file: File,
    (index, header_line): (u32, u32),
    columns: &Columns,
    answer: &mut dyn Write,
) -> Result<(), Stop> {
    let mut workbook = match Workbook::open(file)? {
        Workbook::Ods(file) => {
            return ods::read(file, &Wanted::Sheet { index, header_line, columns }, answer);
        }
        workbook => workbook,
    };
    let sheets = workbook.sheets()?;
    let sheet = sheets.get(index as usize).ok_or(Fault::Gone)?;
    workbook.rows(&sheet.name, Some((header_line, columns)), &mut Rows::new(answer, u32::MAX))
}

/// Whatever format it has.
enum Workbook {
    Xlsx(Box<Xlsx<BufReader<File>>>, inflate::Parts),
    Xlsb(Box<Xlsb<BufReader<File>>>),
    Xls(Box<Xls<BufReader<File>>>),
    /// Which is read here.
    Ods(BufReader<File>),
}

impl Workbook {
    fn open(mut file: File) -> Result<Self, Stop> {
        let mut front = [0; 4];
        file.rewind().map_err(|_| Fault::Io)?;
        file.read_exact(&mut front).map_err(|_| Fault::Damaged)?;
        file.rewind().map_err(|_| Fault::Io)?;
        let mut file = BufReader::new(file);
        if front == *b"\xd0\xcf\x11\xe0" {
            let workbook = Xls::new(file).map_err(|error| match error {
                XlsError::Password => Fault::Encrypted,
                XlsError::Io(error) => fault_of(&error),
                _ => Fault::Damaged,
            })?;
            return Ok(Workbook::Xls(Box::new(workbook)));
        }
        let parts = inflate::check(&mut file, inflate::LIMITS)?;
        file.rewind().map_err(|_| Fault::Io)?;
        Ok(if parts.open_document {
            Workbook::Ods(file)
        } else if parts.binary {
            let workbook = Xlsb::new(file).map_err(|error| match error {
                XlsbError::Password => Fault::Encrypted,
                XlsbError::Io(error) => fault_of(&error),
                _ => Fault::Damaged,
            })?;
            Workbook::Xlsb(Box::new(workbook))
        } else {
            let workbook = Xlsx::new(file).map_err(|error| match error {
                XlsxError::Password => Fault::Encrypted,
                XlsxError::Io(error) => fault_of(&error),
                _ => Fault::Damaged,
            })?;
            Workbook::Xlsx(Box::new(workbook), parts)
        })
    }

    /// All sheets that have cells; charts and macros have none.
    fn sheets(&self) -> Result<Vec<Sheet>, Fault> {
        let all = match self {
            Workbook::Xlsx(workbook, _) => workbook.sheets_metadata(),
            Workbook::Xlsb(workbook) => workbook.sheets_metadata(),
            Workbook::Xls(workbook) => workbook.sheets_metadata(),
            // It tells of its sheets as they come.
            Workbook::Ods(_) => &[],
        };
        let sheets: Vec<Sheet> =
            all.iter().filter(|sheet| sheet.typ == SheetType::WorkSheet).cloned().collect();
        if sheets.len() > SHEETS_MAX { Err(Fault::TooMany) } else { Ok(sheets) }
    }

    /// Tells the rows of a sheet; below its header, whose columns name these fields,
    /// also what is not what it seems.
    fn rows(
        &mut self,
        name: &str,
        below: Option<(u32, &Columns)>,
        rows: &mut Rows<'_>,
    ) -> Result<(), Stop> {
        match self {
            Workbook::Xlsx(workbook, parts) => {
                let mut unknown = Marks::new();
                if let Some((header, columns)) = below {
                    if parts.formulas {
                        unknown = marks::without_results(workbook, name)?;
                    }
                    if parts.merges {
                        let regions = workbook.merge_cells_by_sheet_name(name);
                        rows.merges = Merges::new(&regions.unwrap_or_default(), header, columns);
                    }
                }
                let mut cells = match workbook.worksheet_cells_reader(name) {
                    Ok(cells) => cells,
                    // Of a kind that the workbook calls a sheet all the same.
                    Err(XlsxError::NotAWorksheet(_)) => return rows.finish(),
                    Err(_) => return Err(Fault::Damaged.into()),
                };
                let formats: Vec<Option<Format>> = cells
                    .styles()
                    .iter()
                    .map(|style| Format::parse(&style.number_format.as_ref()?.format_code))
                    .collect();
                loop {
                    let (cell, style) = match cells.next_cell_with_style_id() {
                        Ok(Some(cell)) => cell,
                        Ok(None) => break,
                        Err(error) if marks::is_one_cell(&error) => {
                            rows.damaged_cell();
                            continue;
                        }
                        Err(_) => return Err(Fault::Damaged.into()),
                    };
                    let format = formats.get(style).and_then(Option::as_ref);
                    let (row, column) = cell.get_position();
                    let in_texts = below.is_some_and(|(_, columns)| columns.is_text(column));
                    let value = match cell.get_value() {
                        DataRef::Empty if unknown.get(&row) == Some(&column) => &NO_RESULT,
                        value => value,
                    };
                    if !rows.cell(row, column, value, format, in_texts)? {
                        break;
                    }
                }
            }
            Workbook::Xlsb(workbook) => {
                let mut cells =
                    workbook.worksheet_cells_reader(name).map_err(|_| Fault::Damaged)?;
                while let Some(cell) = cells.next_cell().map_err(|_| Fault::Damaged)? {
                    let (row, column) = cell.get_position();
                    if !rows.cell(row, column, cell.get_value(), None, false)? {
                        return rows.finish();
                    }
                }
            }
            Workbook::Xls(workbook) => {
                if let Some((header, columns)) = below {
                    let regions = workbook.merge_cells_by_sheet_name(name);
                    rows.merges = Merges::new(&regions.unwrap_or_default(), header, columns);
                }
                let range = workbook.worksheet_range(name).map_err(|_| Fault::Damaged)?;
                whole(&range, rows)?;
            }
            Workbook::Ods(_) => {}
        }
        rows.finish()
    }
}

/// What stands for the result of a formula that nobody has computed.
const NO_RESULT: DataRef<'static> = DataRef::Error(CellErrorType::Value);

fn whole(range: &Range<Data>, rows: &mut Rows<'_>) -> Result<(), Stop> {
    let (first_row, first_column) = range.start().unwrap_or_default();
    for (row, column, value) in range.used_cells() {
        // Both came from 32 bits.
        let (row, column) = (first_row + row as u32, first_column + column as u32);
        if !rows.owned_cell(row, column, value)? {
            break;
        }
    }
    Ok(())
}

fn fault_of(error: &io::Error) -> Fault {
    // The reader also calls a file that is cut an error of reading.
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
            Fault::Damaged
        }
        _ => Fault::Io,
    }
}
