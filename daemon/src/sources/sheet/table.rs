//! A workbook as the pipeline sees it: the sheets whose header fits the dataset.
//!
//! Used by [`crate::sources::file`]. Invariants: a sheet that people do not see is
//! read only if it was named; every sheet that is left out though it holds
//! something is told of; sheets that are read have the same fields, so that a
//! missing column means the same for all of them. A child runs only while rows of
//! its sheet are read.

use std::{fs::File, sync::Arc};

use protocol::{
    schema::{FieldType, Schema},
    text::visible,
};

use super::{
    super::{
        child::{Columns, Program},
        error::Told,
    },
    FrontRow, SheetFront, SheetReader, Workbook,
};
use crate::ingest::{
    map::{Above, HeaderError, Mapping, passed_over},
    rows::Place,
    source::{LeftOut, Rows, SourceError, Summary, Table},
    validate::without_ids,
    words::languages,
};

/// What somebody said about a workbook.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a> {
    /// The sheet that is meant.
    pub sheet: Option<&'a str>,
    /// Labels of columns that are passed over.
    pub ignored: &'a [String],
}

/// Opens a workbook.
pub fn open(
    name: &str,
    file: File,
    bytes_total: u64,
    options: Options<'_>,
    program: Program,
    schema: &Schema,
) -> Result<SheetTable, SourceError> {
    let workbook = Workbook::open(file, program).map_err(|error| told(name, &error))?;
    let (chosen, left_out) = choose(name, workbook.sheets(), options, schema)?;
    let parts = chosen.iter().map(|sheet| sheet.name.clone()).collect();
    let summary = Summary { parts, cut: false, left_out };
    let name = name.to_owned();
    Ok(SheetTable { name, workbook, chosen, at: 0, reader: None, summary, bytes_total })
}

fn told(name: &str, error: &super::super::child::ChildError) -> SourceError {
    let told = Box::new(Told(format!("{name}: {error}")));
    if error.is_passing() { SourceError::Access(told) } else { SourceError::Content(told) }
}

/// A sheet that is read.
#[derive(Debug)]
struct Chosen {
    index: u32,
    name: String,
    /// The row of its header.
    line: u32,
    header: Vec<String>,
    mapping: Arc<Mapping>,
    /// Its columns that name a field.
    columns: Columns,
}

/// The columns that name a field.
fn columns_of(mapping: &Mapping, schema: &Schema) -> Columns {
    let mut columns = Columns::default();
    for (place, field) in mapping.places().iter().zip(mapping.columns()) {
        let kind = schema.fields()[*field].kind;
        let is_text = matches!(kind, FieldType::Text | FieldType::Code | FieldType::Uscc);
        let list = if is_text { &mut columns.texts } else { &mut columns.others };
        // A header has fewer columns than 16 bits count.
        list.extend(u16::try_from(*place));
    }
    columns
}

/// The sheets to be read, and what is to be told of the others.
fn choose(
    name: &str,
    sheets: &[SheetFront],
    options: Options<'_>,
    schema: &Schema,
) -> Result<(Vec<Chosen>, Vec<LeftOut>), SourceError> {
    // As the sheets' names are shown.
    let wanted = options.sheet.map(|wanted| visible(&without_ids(wanted)).into_owned());
    let wanted = wanted.as_deref();
    let is_wanted = |sheet: &SheetFront| {
        wanted.is_none_or(|wanted| sheet.name.trim().eq_ignore_ascii_case(wanted.trim()))
    };
    if let Some(wanted) = wanted
        && !sheets.iter().any(is_wanted)
    {
        let names: Vec<&str> = sheets.iter().map(|sheet| sheet.name.as_str()).collect();
        let (zh, en) = (names.join("”“"), names.join("', '"));
        return Err(SourceError::Content(Box::new(Told(format!(
            "{name}: 没有名为“{wanted}”的工作表，现有“{zh}” / there is no sheet '{wanted}', there are '{en}'"
        )))));
    }
    let (mut chosen, mut left_out): (Vec<Chosen>, Vec<LeftOut>) = (Vec::new(), Vec::new());
    let mut nearest: Option<(usize, SourceError)> = None;
    for sheet in sheets.iter().filter(|sheet| is_wanted(sheet)) {
        let shown = &sheet.name;
        let seen = wanted.is_some() || !sheet.hidden;
        if let Some(fault) = &sheet.fault {
            if seen {
                let [zh, en] = languages(fault);
                left_out.push(LeftOut {
                    zh: format!("工作表“{shown}”未读取：{zh}"),
                    en: format!("sheet '{shown}' was not read: {en}"),
                    doubtful: true,
                });
            }
            continue;
        }
        match header_of(&sheet.rows, options.ignored, schema) {
            Ok(_) if !seen => left_out.push(LeftOut {
                zh: format!(
                    "工作表“{shown}”是隐藏的，未读取；请在 Excel 或 WPS 中取消隐藏或删除它，保存后重新交付"
                ),
                en: format!(
                    "sheet '{shown}' is hidden and was not read: show it or delete it, save the workbook and deliver it again"
                ),
                doubtful: true,
            }),
            Ok(Found { line, labels: header, mapping }) => {
                let above = sheet.rows.iter().filter(|row| row.line < line);
                let above = above
                    .map(|row| Above { line: row.line.into(), cells: row.cells.clone() });
                let above: Vec<Above> = above.collect();
                left_out.extend(passed_over(&above, &header).map(|above| LeftOut {
                    zh: format!("工作表“{shown}”：{}", above.zh),
                    en: format!("sheet '{shown}': {}", above.en),
                    doubtful: above.doubtful,
                }));
                let (index, name, mapping) = (sheet.index, shown.clone(), Arc::new(mapping));
                let columns = columns_of(&mapping, schema);
                chosen.push(Chosen { index, name, line, header, mapping, columns });
            }
            Err(Some((matched, problem))) if seen => {
                let why = problem.in_short();
                left_out.push(LeftOut {
                    zh: format!("工作表“{shown}”的表头与数据集不符，未读取{}", why[0]),
                    en: format!(
                        "the header of sheet '{shown}' does not fit the dataset, so it was not read{}",
                        why[1]
                    ),
                    doubtful: may_be_data(&sheet.rows, matched, schema),
                });
                if nearest.as_ref().is_none_or(|(most, _)| matched > *most) {
                    let name = format!("{name} [{shown}]");
                    nearest = Some((matched, SourceError::Header { name, problem }));
                }
            }
            Err(_) => {}
        }
    }
    let Some(first) = chosen.first() else {
        if let Some((_, error)) = nearest {
            return Err(error);
        }
        let error = match left_out.is_empty() {
            true => format!(
                "{name} 的工作表都是空的：第一行必须是列名 / the sheets of {name} are empty: the first row has to name the columns"
            ),
            false => {
                let each: Vec<String> =
                    left_out.iter().map(|part| format!("{} / {}", part.zh, part.en)).collect();
                format!("{name}: {}", each.join("\n"))
            }
        };
        let told = Box::new(Told(error));
        return Err(if left_out.is_empty() {
            SourceError::Empty(told)
        } else {
            SourceError::Content(told)
        });
    };
    if chosen.len() > Place::PARTS_MAX {
        return Err(SourceError::Content(Box::new(Told(format!(
            "{name}: 有 {} 个工作表符合数据集，最多读取 {} 个；请用 --sheet 指定，或分成几个文件 / \
             {} sheets fit the dataset, at most {} are read: name one with --sheet, or deliver several files",
            chosen.len(),
            Place::PARTS_MAX,
            chosen.len(),
            Place::PARTS_MAX
        )))));
    }
    if let Some(other) = chosen.iter().find(|sheet| !sheet.mapping.has_fields_of(&first.mapping)) {
        return Err(SourceError::Content(Box::new(Told(format!(
            "{name}: 工作表“{}”与“{}”的列不同，不能一起读取；请用 --sheet 指定一个，或统一各表的列 / \
             sheets '{}' and '{}' have different columns and cannot be read together: name one with --sheet, or give both the same columns",
            first.name, other.name, first.name, other.name
        )))));
    }
    Ok((chosen, left_out))
}

/// Whether a sheet whose header does not fit may be data of the dataset: a good
/// part of its labels is there, or rows are as wide as its records, with any labels.
fn may_be_data(rows: &[FrontRow], matched: usize, schema: &Schema) -> bool {
    let half = schema.fields().len().div_ceil(2);
    let filled = |row: &FrontRow| row.cells.iter().filter(|cell| !cell.trim().is_empty()).count();
    matched >= half || rows.iter().filter(|row| filled(row) >= half).count() > 1
}

/// A header that fits.
struct Found {
    line: u32,
    labels: Vec<String>,
    mapping: Mapping,
}

/// The sheet's row whose labels fit the dataset best, as in a CSV file. If none
/// does, the one that comes nearest, with what is wrong with it and how many fields
/// it names; none if the sheet is empty.
fn header_of(
    rows: &[FrontRow],
    ignored: &[String],
    schema: &Schema,
) -> Result<Found, Option<(usize, Box<HeaderError>)>> {
    let labels_of = |row: &FrontRow| -> Vec<String> {
        row.cells.iter().map(|cell| cell.trim().to_owned()).collect()
    };
    let mut best: Option<Found> = None;
    // By fields that it names; of several that name none, a title has fewer cells.
    let mut nearest: Option<((usize, usize), &FrontRow)> = None;
    for row in rows {
        let labels = labels_of(row);
        match Mapping::try_new(&labels, schema, ignored) {
            Ok(mapping) => {
                let known = mapping.columns().len();
                if best.as_ref().is_none_or(|best| known > best.mapping.columns().len()) {
                    best = Some(Found { line: row.line, labels, mapping });
                }
            }
            // Below a header there are rows, and a header among those is another
            // table's.
            Err(_) if best.is_some() => break,
            Err(known) => {
                let filled = labels.iter().filter(|label| !label.is_empty()).count();
                if nearest.is_none_or(|(most, _)| (known, filled) > most) {
                    nearest = Some(((known, filled), row));
                }
            }
        }
    }
    best.ok_or_else(|| {
        let ((known, _), row) = nearest?;
        let mut problem = Mapping::new(&labels_of(row), schema, ignored).err()?;
        let (line, tried) = (row.line, rows.len());
        problem.looked = Some((
            format!("在前 {tried} 个非空行中，第 {line} 行最接近"),
            format!("row {line} comes nearest among the first {tried} that are not blank"),
        ));
        Some((known, Box::new(problem)))
    })
}

/// A workbook that is being read.
#[derive(Debug)]
pub struct SheetTable {
    name: String,
    workbook: Workbook,
    chosen: Vec<Chosen>,
    /// The sheet that rows come from.
    at: usize,
    reader: Option<SheetReader>,
    summary: Summary,
    bytes_total: u64,
}

impl Table for SheetTable {
    fn mapping(&self) -> &Arc<Mapping> {
        // There is one at least, or there would be no table.
        &self.chosen[0].mapping
    }

    fn reading(&self) -> Vec<String> {
        let mut reading = vec!["workbook".to_owned()];
        for sheet in &self.chosen {
            reading.push(sheet.name.clone());
            reading.extend(sheet.header.iter().cloned());
        }
        reading
    }

    fn bytes_total(&self) -> u64 {
        self.bytes_total
    }

    fn bytes_read(&self) -> u64 {
        // How far the child has come it does not say: sheets that are done count.
        self.bytes_total * self.at as u64 / self.chosen.len() as u64
    }

    fn next_rows(&mut self) -> Result<Box<dyn Rows>, SourceError> {
        let last = self.chosen.len() - 1;
        loop {
            let sheet = &self.chosen[self.at.min(last)];
            let fail = |error| told(&format!("{} [{}]", self.name, sheet.name), &error);
            let mut rows = super::TextRows::default();
            if self.at <= last {
                let reader = match &mut self.reader {
                    Some(reader) => reader,
                    empty => empty.insert(
                        self.workbook
                            .read(sheet.index, sheet.line, &sheet.header, sheet.columns.clone())
                            .map_err(fail)?,
                    ),
                };
                rows = reader.next_rows().map_err(fail)?;
            }
            if !rows.is_empty() || self.at > last {
                return Ok(rows.mapped(self.at.min(last), sheet.mapping.clone()));
            }
            self.reader = None;
            self.at += 1;
        }
    }

    fn summary(&self) -> Summary {
        self.summary.clone()
    }
}
