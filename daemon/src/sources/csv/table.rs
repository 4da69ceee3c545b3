//! A CSV file as the pipeline sees it: its encoding, separator and header are
//! found, and its header fits the dataset.

use std::{io::SeekFrom, sync::Arc};

use protocol::{schema::Schema, text::visible_within};

use super::{
    CHUNK, CHUNK_MIN, ROW_BYTES_MAX,
    decode::Decoder,
    detect::{Candidates, Detected, detect},
    dialect::{self, Dialect, HEADER_LINES_MAX, NoDialect, Tried},
    encoding::{Charset, Encoding},
    input::{Bytes, Input, read_full},
    reader::Reader,
    separator::Separator,
};
use crate::{
    ingest::{
        map::{HeaderError, Mapping, passed_over},
        source::{LeftOut, Recallable, RowBodies, Rows, SourceError, Summary, Table},
        validate::Validator,
    },
    sources::error::FileError,
};

/// Characters of a line that is quoted in a message.
const LINE_CHARS_SHOWN: usize = 60;

/// What a reader of columns has to be told.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a> {
    /// How the bytes are to be read.
    pub encoding: Encoding,
    /// Labels of columns that are passed over.
    pub ignored: &'a [String],
}

/// Opens a file whose bytes these are, `bytes_total` of them.
pub fn open(
    name: &str,
    mut bytes: Box<dyn Bytes>,
    bytes_total: u64,
    options: Options<'_>,
    schema: &Schema,
) -> Result<CsvTable, SourceError> {
    let fail = |source| FileError::Io { path: name.to_owned(), source };
    let fits = usize::try_from(bytes_total).unwrap_or(CHUNK).saturating_add(1);
    let chunk = fits.clamp(CHUNK_MIN, CHUNK);
    let (charset, mark, doubt) =
        match detect(bytes.as_mut(), options.encoding, chunk).map_err(fail)? {
            Detected::Charset(charset, mark) => (charset, mark, None),
            Detected::Doubtful(candidates) => (Charset::Gb18030, 0, Some(candidates)),
        };
    bytes.seek(SeekFrom::Start(mark)).map_err(fail)?;
    let mut front = vec![0; fits.min(ROW_BYTES_MAX)];
    let length = read_full(bytes.as_mut(), &mut front).map_err(fail)?;
    front.truncate(length);
    let whole = mark + length as u64 >= bytes_total;
    let text = charset.encoding().decode_without_bom_handling(&front).0;

    let fit = |labels: &[String]| Mapping::try_new(labels, schema, options.ignored);
    let found = dialect::find(&text, whole, &fit);
    if let Some(candidates) = doubt
        // Mojibake spells no label of the dataset.
        && !found.as_ref().is_ok_and(|found| found.labels.iter().any(|label| !label.is_ascii()))
    {
        return Err(doubtful(name, candidates).into());
    }
    let Dialect { shape, labels, mapping, above } =
        found.map_err(|problem| no_dialect(name, problem, options, schema))?;

    // A separator that may be part of a character of GB18030, or has several bytes,
    // takes whole characters.
    let whole = shape.separator.is_in_gb18030() || shape.separator.wide().is_some();
    let charset = match charset {
        Charset::Gb18030 if whole => Charset::Transcoded(encoding_rs::GB18030),
        charset => charset,
    };
    bytes.seek(SeekFrom::Start(mark)).map_err(fail)?;
    let input = Input::new(bytes, charset, shape.separator, mark, chunk);
    let separator = shape.separator;
    let wide = separator.wide().map(|character| (separator.byte(), character));
    let named = options.encoding != Encoding::Auto;
    let decoder = Decoder { charset, named, wide };
    let mapping = Arc::new(mapping);
    let judge = judge_of(schema, &mapping);
    let name = name.to_owned();
    let reader = Reader::new(name, input, decoder, shape, mapping, judge, bytes_total)?;
    let above = passed_over(&above, &labels).map(LeftOut::from);
    let fixed = [charset.name().to_owned(), separator.name()];
    let ignored = options.ignored.iter().cloned();
    let reading = fixed.into_iter().chain(labels).chain(ignored).collect();
    Ok(CsvTable { reader, reading, above })
}

/// Whether a line is a row of the dataset, for a reader that has its texts in the
/// columns of `mapping`.
fn judge_of(schema: &Schema, mapping: &Arc<Mapping>) -> super::reader::Judge {
    // Few files ask.
    let (schema, mapping, mut validator) = (schema.clone(), mapping.clone(), None);
    Box::new(move |texts| {
        let validator = validator.get_or_insert_with(|| Validator::new(&schema, mapping.columns()));
        validator.row(mapping.texts_of(texts)).record.is_some()
    })
}

fn doubtful(name: &str, Candidates(candidates): Candidates) -> FileError {
    let shown = |(encoding, text): &(&'static str, String)| {
        format!("{encoding}（“{}”）", visible_within(text, LINE_CHARS_SHOWN))
    };
    FileError::Encoding {
        path: name.to_owned(),
        candidates: candidates.iter().map(shown).collect::<Vec<_>>().join("、"),
    }
}

/// What to say where no line is a header.
fn no_dialect(
    name: &str,
    problem: NoDialect,
    options: Options<'_>,
    schema: &Schema,
) -> SourceError {
    let name = name.to_owned();
    match problem {
        NoDialect::Empty => FileError::NoHeader { path: name }.into(),
        NoDialect::TooManyColumns { columns } => {
            FileError::TooManyColumns { path: name, columns }.into()
        }
        NoDialect::Unfit { line, separator, labels, tried } => {
            match Mapping::new(&labels, schema, options.ignored) {
                Ok(_) => FileError::NoHeader { path: name }.into(),
                Err(problem) => {
                    let looked = Some(looked(line, separator, tried));
                    let problem = Box::new(HeaderError { looked, ..problem });
                    SourceError::Header { name, problem }
                }
            }
        }
        NoDialect::Unknown { line, text, tried } => {
            let (lines, separators) = (tried.lines, separators(tried));
            let text = veiled(&visible_within(&text, LINE_CHARS_SHOWN));
            let labels = schema.fields().iter().map(|field| field.title_zh.as_str());
            let expected = labels.take(4).collect::<Vec<_>>().join("、");
            FileError::NoLabels { path: name, line, text, lines, separators, expected }.into()
        }
    }
}

/// A line that may be a record: how it is built, without what it says.
fn veiled(line: &str) -> String {
    let mut within = false;
    let veil = |c: char| {
        let begun = std::mem::replace(&mut within, c.is_alphanumeric());
        if begun && within { '*' } else { c }
    };
    line.chars().map(veil).collect()
}

fn separators(tried: Tried) -> String {
    match tried.named {
        Some(separator) => separator.name(),
        None => Separator::ALL.map(Separator::name).join("  "),
    }
}

fn looked(line: u64, separator: Separator, tried: Tried) -> (String, String) {
    let (lines, name) = (tried.lines.min(HEADER_LINES_MAX), separator.name());
    let all = separators(tried);
    (
        format!(
            "最接近表头的是第 {line} 行，分隔符为 {name}（查看了前 {lines} 行，试过的分隔符：{all}）"
        ),
        format!(
            "line {line} comes nearest to a header, separated by {name} (looked at {lines} lines, tried: {all})"
        ),
    )
}

/// A file that is being read.
pub struct CsvTable {
    reader: Reader,
    reading: Vec<String>,
    above: Option<LeftOut>,
}

impl Table for CsvTable {
    fn mapping(&self) -> &Arc<Mapping> {
        self.reader.mapping()
    }

    fn reading(&self) -> Vec<String> {
        self.reading.clone()
    }

    fn bytes_total(&self) -> u64 {
        self.reader.bytes_total()
    }

    fn bytes_read(&self) -> u64 {
        self.reader.bytes_read()
    }

    fn next_rows(&mut self) -> Result<Box<dyn Rows>, SourceError> {
        Ok(Box::new(self.reader.next_rows()?))
    }

    fn summary(&self) -> Summary {
        let left_out = self.above.iter().cloned().collect();
        Summary { cut: self.reader.is_cut(), left_out, ..Summary::default() }
    }
}

impl Recallable for CsvTable {
    fn next_bodies(&mut self) -> Result<Box<dyn RowBodies>, SourceError> {
        Ok(Box::new(self.reader.next_bodies()?))
    }

    fn as_table(&mut self) -> &mut dyn Table {
        self
    }
}

#[cfg(test)]
impl CsvTable {
    /// Memory that is held for what was not split yet.
    pub(super) fn buffer_bytes(&self) -> usize {
        self.reader.buffer_bytes()
    }
}
