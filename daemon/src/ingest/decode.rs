//! A delivered file's bytes to rows of text.
//!
//! [`CsvFile`] finds out the encoding and the separator, reads the header, and
//! hands out one row at a time. Used by the importer; fuzzed through
//! [`CsvFile::from_bytes`].
//!
//! Invariants: whatever the bytes are, every physical line is either part of a
//! row, blank, or reported as malformed; a malformed record costs its first
//! physical line only; memory is bounded by [`ROW_BYTES_MAX`].
//!
//! The grammar is RFC 4180 read strictly: a field that begins with a quote ends
//! at the next quote that is not doubled, and what follows has to be a
//! separator or the end of the line. The strictness is what lets a forgotten
//! quote be noticed at the next quoted field instead of swallowing rows. UTF-8
//! and GB18030 are split at the byte level, which is sound because neither uses
//! a quote, separator or line end inside a character; so one undecodable field
//! costs one row. Re-reading after a malformed record stays linear: a record is
//! only left open by an odd run of quotes, the next odd run ends it, and no
//! byte lies between more than two such pairs.
//!
//! Not here: which column is which field (`map`), what values mean
//! (`validate`).

use std::{
    borrow::Cow,
    fmt,
    fs::File,
    io::{self, Cursor, Read, Seek, SeekFrom},
    ops::Range,
    path::Path,
    str::FromStr,
};

use encoding_rs::{DecoderResult, GB18030, UTF_8, UTF_16BE, UTF_16LE};

/// Longest record in bytes, line breaks in quotes included. A stored record has
/// at most 64 KiB; the rest is room for spelling, and the bound on how far a
/// forgotten quote is followed.
pub const ROW_BYTES_MAX: usize = 1 << 20;
/// Most columns of a file: eight times the most fields of a schema, so that the
/// message about unknown columns is still worth reading.
pub const COLUMNS_MAX: usize = 1024;
/// Bytes read at once: large enough that system calls do not show.
const CHUNK: usize = 256 * 1024;
/// Bytes read at once from a file smaller than that, so that the many small
/// files of an inbox cost little.
const CHUNK_MIN: usize = 4 * 1024;
/// Bytes of UTF-16 transcoded at once; they become at most half as many more.
const UTF16_CHUNK: usize = 64 * 1024;
/// How much of a file that is not UTF-8 decides what it is instead.
const SAMPLE_BYTES: u64 = 1 << 20;

/// How a file's bytes are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "&'static str")]
pub enum Encoding {
    /// Find out.
    #[default]
    Auto,
    /// UTF-8, with or without a byte order mark.
    Utf8,
    /// GB18030, which contains GBK and GB2312.
    Gb18030,
    /// UTF-16; little-endian unless the file says otherwise.
    Utf16,
}

impl Encoding {
    /// The name that [`Encoding::from_str`] reads back.
    pub fn as_str(self) -> &'static str {
        match self {
            Encoding::Auto => "auto",
            Encoding::Utf8 => "utf-8",
            Encoding::Gb18030 => "gb18030",
            Encoding::Utf16 => "utf-16",
        }
    }
}

impl From<Encoding> for &'static str {
    fn from(encoding: Encoding) -> Self {
        encoding.as_str()
    }
}

impl TryFrom<String> for Encoding {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl FromStr for Encoding {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "auto" => Ok(Encoding::Auto),
            "utf-8" | "utf8" => Ok(Encoding::Utf8),
            "gbk" | "gb18030" | "gb2312" => Ok(Encoding::Gb18030),
            "utf-16" | "utf16" => Ok(Encoding::Utf16),
            _ => Err(format!(
                "'{text}' is not an encoding: write auto, utf-8, gbk, gb18030 or utf-16"
            )),
        }
    }
}

/// Why a file as a whole cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Nothing lies at that path.
    #[error("文件不存在：{path}，请检查路径 / {path} does not exist: check the path")]
    NotFound {
        /// The path as given.
        path: String,
    },
    /// The operating system does not let this process read it.
    #[error(
        "没有权限读取 {path}，请让运行 creditsync 的用户可以读取它 / \
         no permission to read {path}: make it readable for the user that creditsync runs as"
    )]
    Permission {
        /// The path as given.
        path: String,
    },
    /// A directory, a pipe or a device.
    #[error("{path} 不是普通文件 / {path} is not a regular file: name one CSV file")]
    NotAFile {
        /// The path as given.
        path: String,
    },
    /// A file of another kind under the name of a CSV file.
    #[error("{path}: {kind}")]
    NotText {
        /// The path as given.
        path: String,
        /// What it is, and what to do.
        kind: NotText,
    },
    /// Empty, or nothing but white space.
    #[error(
        "{path} 没有表头：第一行必须是列名 / \
         {path} has no header: its first line has to name the columns"
    )]
    NoHeader {
        /// The path as given.
        path: String,
    },
    /// The header row itself is malformed.
    #[error("{path}:{line}: 表头有误：{} / the header is malformed: {}", .problem.zh(), .problem.en())]
    Header {
        /// The path as given.
        path: String,
        /// The physical line, from 1.
        line: u64,
        /// What is wrong with it.
        problem: RowProblem,
    },
    /// More columns than any dataset has.
    #[error(
        "{path} 有 {columns} 列，最多允许 {COLUMNS_MAX} 列 / \
         {path} has {columns} columns, at most {COLUMNS_MAX} are allowed"
    )]
    TooManyColumns {
        /// The path as given.
        path: String,
        /// How many the header has.
        columns: usize,
    },
    /// The disk, or the file while it was read.
    #[error("读取 {path} 失败 / cannot read {path}: {source}")]
    Io {
        /// The path as given.
        path: String,
        /// The operating system's answer.
        source: io::Error,
    },
}

/// Kinds of files that are mistaken for CSV.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotText {
    /// A workbook of Excel or WPS, new or old.
    Excel,
    /// A PDF document.
    Pdf,
    /// A compressed archive.
    Archive,
    /// A picture.
    Picture,
    /// A web page or XML, often exported with the ending `.xls`.
    Markup,
    /// A database file.
    Database,
    /// UTF-32, which nothing writes on purpose.
    Utf32,
    /// Zero bytes, which no text contains.
    Binary,
}

impl fmt::Display for NotText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NotText::Excel => {
                "这是 Excel 工作簿，请在 Excel 或 WPS 中另存为“CSV UTF-8（逗号分隔）”后重新交付 / \
                 this is an Excel workbook: save it as \"CSV UTF-8 (comma delimited)\" and deliver that"
            }
            NotText::Pdf => {
                "这是 PDF 文档，请从原系统导出 CSV / \
                 this is a PDF document: export CSV from the system it came from"
            }
            NotText::Archive => {
                "这是压缩包，请先解压，再交付其中的 CSV 文件 / \
                 this is a compressed archive: unpack it and deliver the CSV file inside"
            }
            NotText::Picture => {
                "这是图片，请从原系统导出 CSV / \
                 this is a picture: export CSV from the system it came from"
            }
            NotText::Markup => {
                "这是网页或 XML（有些系统把它导出为 .xls），请用 Excel 或 WPS 打开后另存为“CSV UTF-8” / \
                 this is a web page or XML (some systems export it as .xls): open it in Excel and save it as \"CSV UTF-8\""
            }
            NotText::Database => {
                "这是数据库文件，请导出为 CSV / this is a database file: export the table as CSV"
            }
            NotText::Utf32 => {
                "文件编码为 UTF-32，请另存为 UTF-8 / this is UTF-32: save it as UTF-8"
            }
            NotText::Binary => {
                "文件含有空字节，不是文本，请另存为“CSV UTF-8” / \
                 this contains zero bytes and is not text: save it as \"CSV UTF-8\""
            }
        })
    }
}

/// Why a row could not be read; it is rejected and the file goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowProblem {
    /// Another number of fields than the header has.
    FieldCount {
        /// Columns of the header.
        expected: usize,
        /// Fields of this row.
        found: usize,
    },
    /// A quote was opened on this line and not closed where it made sense.
    UnclosedQuote,
    /// A quoted field is followed by more text on the same line.
    StrayQuote {
        /// The column, from 1.
        column: usize,
    },
    /// Longer than [`ROW_BYTES_MAX`].
    TooLong,
    /// Bytes that are no character in the file's encoding.
    Encoding {
        /// The column, from 1.
        column: usize,
        /// The file's encoding.
        encoding: &'static str,
    },
}

impl RowProblem {
    /// A stable name, kebab-case.
    pub fn code(&self) -> &'static str {
        match self {
            RowProblem::FieldCount { .. } => "field-count",
            RowProblem::UnclosedQuote => "unclosed-quote",
            RowProblem::StrayQuote { .. } => "stray-quote",
            RowProblem::TooLong => "row-too-long",
            RowProblem::Encoding { .. } => "encoding",
        }
    }

    /// What is wrong and what to do, in Chinese.
    pub fn zh(&self) -> String {
        match self {
            RowProblem::FieldCount { expected, found } => format!(
                "表头有 {expected} 列，本行有 {found} 列；含逗号或换行的内容须用英文双引号括起来"
            ),
            RowProblem::UnclosedQuote => {
                "本行的英文双引号没有正确结束；请补上引号，内容中的引号须写成两个".into()
            }
            RowProblem::StrayQuote { column } => {
                format!("第 {column} 列结束引号之后还有内容；内容中的引号须写成两个")
            }
            RowProblem::TooLong => "本行超过 1 MiB；请检查是否缺少换行或引号".into(),
            RowProblem::Encoding { column, encoding } => format!(
                "第 {column} 列含有不属于 {encoding} 编码的字节；请从原系统重新导出，或用 --encoding 指定编码"
            ),
        }
    }

    /// What is wrong and what to do, in English.
    pub fn en(&self) -> String {
        match self {
            RowProblem::FieldCount { expected, found } => format!(
                "the header has {expected} columns, this row {found}; put a value with a comma or a line break in double quotes"
            ),
            RowProblem::UnclosedQuote => {
                "a double quote of this line is not closed properly; close it, and double quotes that belong to the value".into()
            }
            RowProblem::StrayQuote { column } => format!(
                "text follows the closing quote of column {column}; double quotes that belong to the value"
            ),
            RowProblem::TooLong => {
                "the row is longer than 1 MiB; look for a missing line break or quote".into()
            }
            RowProblem::Encoding { column, encoding } => format!(
                "column {column} has bytes that are not {encoding}; export the file again, or name its encoding with --encoding"
            ),
        }
    }
}

/// One row of a file.
#[derive(Debug)]
pub enum Row<'a> {
    /// As many fields as the header has.
    Fields {
        /// The physical line, from 1, on which the row starts.
        line: u64,
        /// The fields, in the file's order.
        fields: Fields<'a>,
    },
    /// A line that is not a row.
    Malformed {
        /// The physical line, from 1.
        line: u64,
        /// Why.
        problem: RowProblem,
    },
}

/// The fields of a row, borrowed from the file's buffers.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a> {
    text: &'a str,
    spans: &'a [Span],
}

impl<'a> Fields<'a> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there is none; a row has at least one.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The field of a column, from 0.
    pub fn get(&self, column: usize) -> Option<&'a str> {
        self.spans.get(column).and_then(|span| self.text.get(span.range()))
    }

    /// All fields in the file's order.
    pub fn iter(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let text = self.text;
        self.spans.iter().map(move |span| &text[span.range()])
    }
}

/// A delivered file, read row by row.
pub struct CsvFile {
    path: String,
    input: Input,
    charset: Charset,
    separator: u8,
    header: Vec<String>,
    /// The physical line at which the input stands, from 1.
    line: u64,
    bytes_total: u64,
    spans: Vec<Span>,
    scratch: String,
    scratch_spans: Vec<Span>,
}

impl fmt::Debug for CsvFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CsvFile")
            .field("path", &self.path)
            .field("charset", &self.charset)
            .field("line", &self.line)
            .finish_non_exhaustive()
    }
}

impl CsvFile {
    /// Opens a file, finds out its encoding and separator, and reads the
    /// header. With [`Encoding::Auto`] this reads the whole file once.
    pub fn open(path: &Path, encoding: Encoding) -> Result<Self, FileError> {
        let name = path.display().to_string();
        let fail = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => FileError::NotFound { path: name.clone() },
            io::ErrorKind::PermissionDenied => FileError::Permission { path: name.clone() },
            io::ErrorKind::IsADirectory => FileError::NotAFile { path: name.clone() },
            _ => FileError::Io { path: name.clone(), source },
        };
        // Opening a pipe would wait for somebody to write to it.
        if !std::fs::metadata(path).map_err(fail)?.is_file() {
            return Err(FileError::NotAFile { path: name });
        }
        let file = File::open(path).map_err(fail)?;
        let bytes_total = file.metadata().map_err(fail)?.len();
        Self::new(name, Box::new(file), bytes_total, encoding)
    }

    /// Reads bytes in memory as [`CsvFile::open`] reads a file.
    pub fn from_bytes(bytes: Vec<u8>, encoding: Encoding) -> Result<Self, FileError> {
        let bytes_total = bytes.len() as u64;
        Self::new("(memory)".into(), Box::new(Cursor::new(bytes)), bytes_total, encoding)
    }

    fn new(
        path: String,
        mut source: Box<dyn Source>,
        bytes_total: u64,
        encoding: Encoding,
    ) -> Result<Self, FileError> {
        let fits = usize::try_from(bytes_total).unwrap_or(CHUNK).saturating_add(1);
        let chunk = fits.clamp(CHUNK_MIN, CHUNK);
        let detected = detect(source.as_mut(), encoding, chunk)
            .map_err(|source| FileError::Io { path: path.clone(), source })?;
        let (charset, bom_bytes) = match detected {
            Ok(detected) => detected,
            Err(kind) => return Err(FileError::NotText { path, kind }),
        };
        source
            .seek(SeekFrom::Start(bom_bytes))
            .map_err(|source| FileError::Io { path: path.clone(), source })?;
        let mut file = Self {
            path,
            input: Input::new(source, charset, bom_bytes, chunk),
            charset,
            separator: b',',
            header: Vec::new(),
            line: 1,
            bytes_total,
            spans: Vec::new(),
            scratch: String::new(),
            scratch_spans: Vec::new(),
        };
        file.read_header()?;
        Ok(file)
    }

    /// The encoding that was found or asked for.
    pub fn encoding_name(&self) -> &'static str {
        self.charset.name()
    }

    /// The column labels, without white space around them.
    pub fn header(&self) -> &[String] {
        &self.header
    }

    /// The file's size when it was opened, for progress.
    pub fn bytes_total(&self) -> u64 {
        self.bytes_total
    }

    /// Bytes read so far, for progress.
    pub fn bytes_read(&self) -> u64 {
        self.input.bytes_read
    }

    /// The next row that is not blank, or none at the end of the file.
    pub fn next_row(&mut self) -> Result<Option<Row<'_>>, FileError> {
        let (line, record) = loop {
            match self.step()? {
                Step::End => return Ok(None),
                Step::Blank => {}
                Step::Malformed { line, problem } => {
                    return Ok(Some(Row::Malformed { line, problem }));
                }
                Step::Record { line, record } => break (line, record),
            }
        };
        let body = &self.input.buf[record.body];
        let decoded = decode_fields(
            body,
            &self.spans,
            record.escaped,
            self.charset,
            &mut self.scratch,
            &mut self.scratch_spans,
        );
        Ok(Some(match decoded {
            Ok(fields) => Row::Fields { line, fields },
            Err(column) => Row::Malformed {
                line,
                problem: RowProblem::Encoding { column, encoding: self.charset.name() },
            },
        }))
    }

    fn read_header(&mut self) -> Result<(), FileError> {
        // A header without a comma may use another separator; one without any
        // is a file of one column.
        for separator in [b',', b'\t', b';'] {
            self.separator = separator;
            let scan = loop {
                match self.scan(COLUMNS_MAX)? {
                    Step::Blank => {}
                    other => break other,
                }
            };
            let (line, record) = match scan {
                Step::End | Step::Blank => {
                    return Err(FileError::NoHeader { path: self.path.clone() });
                }
                Step::Malformed { line, problem } => {
                    return Err(FileError::Header { path: self.path.clone(), line, problem });
                }
                Step::Record { line, record } => (line, record),
            };
            if record.fields > COLUMNS_MAX {
                return Err(FileError::TooManyColumns {
                    path: self.path.clone(),
                    columns: record.fields,
                });
            }
            if record.fields == 1 && separator != b';' {
                continue;
            }
            if record.fields == 1 {
                // None of the three: a comma gives later rows their meaning.
                self.separator = b',';
            }
            let fields = decode_fields(
                &self.input.buf[record.body.clone()],
                &self.spans,
                record.escaped,
                self.charset,
                &mut self.scratch,
                &mut self.scratch_spans,
            );
            match fields {
                Ok(fields) => {
                    let clean = |label: &str| label.trim_matches(is_label_margin).to_owned();
                    self.header = fields.iter().map(clean).collect();
                }
                Err(column) => {
                    let problem = RowProblem::Encoding { column, encoding: self.charset.name() };
                    return Err(FileError::Header { path: self.path.clone(), line, problem });
                }
            }
            self.consume(&record);
            return Ok(());
        }
        Err(FileError::NoHeader { path: self.path.clone() })
    }

    /// Reads and consumes one record, blank line or malformed line.
    fn step(&mut self) -> Result<Step, FileError> {
        let expected = self.header.len();
        let step = self.scan(expected)?;
        if let Step::Record { line, record } = &step {
            if record.fields == expected {
                self.consume(record);
            } else if record.lines > 1 {
                let line = *line;
                self.skip_line()?;
                return Ok(Step::Malformed { line, problem: RowProblem::UnclosedQuote });
            } else {
                let (line, found) = (*line, record.fields);
                self.consume(record);
                let problem = RowProblem::FieldCount { expected, found };
                return Ok(Step::Malformed { line, problem });
            }
        }
        Ok(step)
    }

    fn consume(&mut self, record: &Record) {
        self.input.start = record.end;
        self.line += record.lines;
    }

    /// Finds the next record without consuming it; blank and malformed lines
    /// are consumed. The buffer holds the whole record afterwards.
    fn scan(&mut self, keep: usize) -> Result<Step, FileError> {
        loop {
            let line = self.line;
            let data = self.input.unread();
            if data.is_empty() {
                if self.input.eof {
                    return Ok(Step::End);
                }
                self.fill()?;
                continue;
            }
            let window = &data[..data.len().min(ROW_BYTES_MAX)];
            let at_end = self.input.eof && window.len() == data.len();
            match scan_record(window, at_end, self.separator, &mut self.spans, keep) {
                Scan::Record { body, end, lines, fields, escaped } => {
                    if fields == 1 && window[..body].iter().all(u8::is_ascii_whitespace) {
                        // A single-column file has no other way to say nothing,
                        // but a row of nothing says nothing either.
                        self.input.start += end;
                        self.line += lines;
                        return Ok(Step::Blank);
                    }
                    let start = self.input.start;
                    let record = Record {
                        body: start..start + body,
                        end: start + end,
                        lines,
                        fields,
                        escaped,
                    };
                    return Ok(Step::Record { line, record });
                }
                Scan::Incomplete if data.len() >= ROW_BYTES_MAX => {
                    let within = self.skip_line()?;
                    let problem =
                        if within { RowProblem::UnclosedQuote } else { RowProblem::TooLong };
                    return Ok(Step::Malformed { line, problem });
                }
                Scan::Incomplete => self.fill()?,
                Scan::BadQuote { column, first_line } => {
                    let problem = if first_line {
                        RowProblem::StrayQuote { column }
                    } else {
                        RowProblem::UnclosedQuote
                    };
                    self.skip_line()?;
                    return Ok(Step::Malformed { line, problem });
                }
            }
        }
    }

    /// Drops one physical line; says whether it was shorter than
    /// [`ROW_BYTES_MAX`].
    fn skip_line(&mut self) -> Result<bool, FileError> {
        let mut skipped = 0;
        loop {
            let data = self.input.unread();
            let end = find3(data, 0, b'\n', b'\r', b'\n');
            let after = match (data.get(end), data.get(end + 1)) {
                (None, _) if self.input.eof => Some(end),
                (None, _) => None,
                (Some(b'\r'), Some(b'\n')) => Some(end + 2),
                (Some(b'\r'), None) if !self.input.eof => None,
                (Some(_), _) => Some(end + 1),
            };
            skipped += end;
            match after {
                Some(after) => {
                    self.input.start += after;
                    self.line += 1;
                    return Ok(skipped < ROW_BYTES_MAX);
                }
                None => {
                    self.input.start += end;
                    self.fill()?;
                }
            }
        }
    }

    fn fill(&mut self) -> Result<(), FileError> {
        self.input.fill().map_err(|source| FileError::Io { path: self.path.clone(), source })
    }
}

/// White space and a byte order mark that another tool left behind.
fn is_label_margin(character: char) -> bool {
    character.is_whitespace() || character == '\u{feff}'
}

/// What [`CsvFile`] found at its place in the file.
enum Step {
    End,
    Blank,
    Malformed { line: u64, problem: RowProblem },
    Record { line: u64, record: Record },
}

/// A record within the input's buffer.
struct Record {
    body: Range<usize>,
    /// Behind the line end.
    end: usize,
    /// Physical lines it covers.
    lines: u64,
    fields: usize,
    /// Whether a field has doubled quotes.
    escaped: bool,
}

/// A field's place in a record, or in the decoded text of one.
#[derive(Debug, Clone, Copy)]
struct Span {
    // Records have at most 1 MiB, so 32 bits are plenty.
    start: u32,
    end: u32,
    escaped: bool,
}

impl Span {
    fn new(start: usize, end: usize, escaped: bool) -> Self {
        Self { start: start as u32, end: end as u32, escaped }
    }

    fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

enum Scan {
    /// The data ends before the record does.
    Incomplete,
    Record {
        body: usize,
        end: usize,
        lines: u64,
        fields: usize,
        escaped: bool,
    },
    /// A quoted field is not closed, or followed by something else than a
    /// separator or line end.
    BadQuote {
        column: usize,
        first_line: bool,
    },
}

/// Splits the record at the front of `data`, which is not empty. `eof` says
/// that nothing follows `data`. At most `keep` spans are kept.
fn scan_record(data: &[u8], eof: bool, separator: u8, spans: &mut Vec<Span>, keep: usize) -> Scan {
    spans.clear();
    let (mut at, mut lines, mut fields, mut any_escaped) = (0, 1, 0, false);
    loop {
        let span = if data.get(at) == Some(&b'"') {
            let start = at + 1;
            let mut escaped = false;
            at = start;
            loop {
                at = find3(data, at, b'"', b'\n', b'\r');
                match (data.get(at), data.get(at + 1)) {
                    (None, _) if eof => {
                        return Scan::BadQuote { column: fields + 1, first_line: false };
                    }
                    (None, _) => return Scan::Incomplete,
                    // What the byte means depends on the one behind it.
                    (Some(b'"' | b'\r'), None) if !eof => return Scan::Incomplete,
                    (Some(b'"'), Some(b'"')) => {
                        escaped = true;
                        at += 2;
                    }
                    (Some(b'"'), _) => break,
                    (Some(b'\r'), Some(b'\n')) => {
                        lines += 1;
                        at += 2;
                    }
                    (Some(_), _) => {
                        lines += 1;
                        at += 1;
                    }
                }
            }
            any_escaped |= escaped;
            at += 1;
            Span::new(start, at - 1, escaped)
        } else {
            let start = at;
            at = find3(data, at, separator, b'\n', b'\r');
            Span::new(start, at, false)
        };
        fields += 1;
        if fields <= keep {
            spans.push(span);
        }
        let end = match data.get(at) {
            Some(&byte) if byte == separator => {
                at += 1;
                continue;
            }
            None if eof => at,
            None => return Scan::Incomplete,
            Some(b'\n') => at + 1,
            Some(b'\r') => match data.get(at + 1) {
                Some(b'\n') => at + 2,
                None if !eof => return Scan::Incomplete,
                _ => at + 1,
            },
            Some(_) => return Scan::BadQuote { column: fields, first_line: lines == 1 },
        };
        return Scan::Record { body: at, end, lines, fields, escaped: any_escaped };
    }
}

/// The first place from `from` on with one of three bytes, or the end.
///
/// Eight bytes a step: subtracting one from each byte of `word ^ needle`
/// borrows into the top bit exactly where the byte was zero; a false hit can
/// only lie above a true one, so the lowest hit is right.
fn find3(data: &[u8], from: usize, a: u8, b: u8, c: u8) -> usize {
    const ONES: u64 = u64::from_le_bytes([0x01; 8]);
    const TOPS: u64 = u64::from_le_bytes([0x80; 8]);
    let (wide_a, wide_b, wide_c) = (ONES * u64::from(a), ONES * u64::from(b), ONES * u64::from(c));
    let mut at = from;
    while let Some(&chunk) = data.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(chunk);
        let (x, y, z) = (word ^ wide_a, word ^ wide_b, word ^ wide_c);
        let hits =
            (x.wrapping_sub(ONES) & !x | y.wrapping_sub(ONES) & !y | z.wrapping_sub(ONES) & !z)
                & TOPS;
        if hits != 0 {
            return at + hits.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while let Some(&byte) = data.get(at) {
        if byte == a || byte == b || byte == c {
            return at;
        }
        at += 1;
    }
    data.len()
}

/// The fields of a record as text, or the first column (from 1) that is none.
fn decode_fields<'a>(
    body: &'a [u8],
    spans: &'a [Span],
    escaped: bool,
    charset: Charset,
    scratch: &'a mut String,
    scratch_spans: &'a mut Vec<Span>,
) -> Result<Fields<'a>, usize> {
    if charset != Charset::Gb18030 || body.is_ascii() {
        if let Some(text) = as_utf8(body) {
            if !escaped {
                return Ok(Fields { text, spans });
            }
        } else {
            let broken = |span: &Span| as_utf8(&body[span.range()]).is_none();
            return Err(spans.iter().position(broken).map_or(1, |index| index + 1));
        }
    }
    scratch.clear();
    scratch_spans.clear();
    for (index, span) in spans.iter().enumerate() {
        let mut rest = &body[span.range()];
        let start = scratch.len();
        while !rest.is_empty() {
            // Every quote within an escaped field is the first of two.
            let quote = if span.escaped {
                rest.iter().position(|&byte| byte == b'"').unwrap_or(rest.len())
            } else {
                rest.len()
            };
            if !push_decoded(&rest[..quote], charset, scratch) {
                return Err(index + 1);
            }
            if quote < rest.len() {
                scratch.push('"');
            }
            rest = rest.get(quote + 2..).unwrap_or_default();
        }
        scratch_spans.push(Span::new(start, scratch.len(), false));
    }
    Ok(Fields { text: scratch, spans: scratch_spans })
}

/// As the standard library's check, but vectorised: finding the encoding of
/// Chinese text and splitting it takes half the time.
fn as_utf8(bytes: &[u8]) -> Option<&str> {
    match UTF_8.decode_without_bom_handling_and_without_replacement(bytes) {
        Some(Cow::Borrowed(text)) => Some(text),
        _ => None,
    }
}

fn push_decoded(bytes: &[u8], charset: Charset, out: &mut String) -> bool {
    if charset != Charset::Gb18030 || bytes.is_ascii() {
        return as_utf8(bytes).map(|text| out.push_str(text)).is_some();
    }
    let mut decoder = GB18030.new_decoder_without_bom_handling();
    let Some(room) = decoder.max_utf8_buffer_length_without_replacement(bytes.len()) else {
        return false;
    };
    out.reserve(room);
    let (result, _) = decoder.decode_to_string_without_replacement(bytes, out, true);
    result == DecoderResult::InputEmpty
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Charset {
    Utf8,
    Gb18030,
    Utf16Le,
    Utf16Be,
}

impl Charset {
    fn name(self) -> &'static str {
        match self {
            Charset::Utf8 => "UTF-8",
            Charset::Gb18030 => "GB18030",
            Charset::Utf16Le => "UTF-16LE",
            Charset::Utf16Be => "UTF-16BE",
        }
    }
}

/// What a delivered file is read from.
trait Source: Read + Seek + Send {}
impl<T: Read + Seek + Send> Source for T {}

/// The unread part of a file, as UTF-8 or GB18030 bytes.
struct Input {
    source: Box<dyn Source>,
    utf16: Option<Utf16>,
    buf: Vec<u8>,
    start: usize,
    end: usize,
    eof: bool,
    bytes_read: u64,
    /// Bytes read at once.
    chunk: usize,
}

struct Utf16 {
    decoder: encoding_rs::Decoder,
    raw: Vec<u8>,
}

impl Input {
    fn new(source: Box<dyn Source>, charset: Charset, bytes_read: u64, chunk: usize) -> Self {
        let utf16 = match charset {
            Charset::Utf8 | Charset::Gb18030 => None,
            Charset::Utf16Le => Some(UTF_16LE),
            Charset::Utf16Be => Some(UTF_16BE),
        };
        let utf16 = utf16.map(|encoding| Utf16 {
            decoder: encoding.new_decoder_without_bom_handling(),
            raw: vec![0; chunk.min(UTF16_CHUNK)],
        });
        Self { source, utf16, buf: Vec::new(), start: 0, end: 0, eof: false, bytes_read, chunk }
    }

    fn unread(&self) -> &[u8] {
        &self.buf[self.start..self.end]
    }

    /// Reads on behind what is unread. Callers never ask for more while
    /// [`ROW_BYTES_MAX`] bytes are unread, which bounds the buffer.
    fn fill(&mut self) -> io::Result<()> {
        self.buf.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.buf.len() < self.end + self.chunk {
            self.buf.resize(self.end + self.chunk, 0);
        }
        let Some(utf16) = &mut self.utf16 else {
            let count = read_some(self.source.as_mut(), &mut self.buf[self.end..])?;
            self.eof = count == 0;
            self.end += count;
            self.bytes_read += count as u64;
            return Ok(());
        };
        let count = read_some(self.source.as_mut(), &mut utf16.raw)?;
        self.eof = count == 0;
        self.bytes_read += count as u64;
        let mut raw = &utf16.raw[..count];
        loop {
            let (result, read, written) = utf16.decoder.decode_to_utf8_without_replacement(
                raw,
                &mut self.buf[self.end..],
                self.eof,
            );
            raw = &raw[read..];
            self.end += written;
            match result {
                DecoderResult::InputEmpty => return Ok(()),
                DecoderResult::OutputFull => self.buf.resize(self.buf.len() + self.chunk, 0),
                DecoderResult::Malformed(..) => {
                    // A byte that is never UTF-8 carries the fault to the row
                    // it belongs to.
                    if self.end == self.buf.len() {
                        self.buf.resize(self.buf.len() + self.chunk, 0);
                    }
                    self.buf[self.end] = 0xff;
                    self.end += 1;
                }
            }
        }
    }
}

fn read_some(source: &mut dyn Source, into: &mut [u8]) -> io::Result<usize> {
    loop {
        match source.read(into) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

fn read_full(source: &mut dyn Source, into: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < into.len() {
        match read_some(source, &mut into[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}

/// Finds the charset and how many bytes its byte order mark takes.
fn detect(
    source: &mut dyn Source,
    encoding: Encoding,
    chunk: usize,
) -> io::Result<Result<(Charset, u64), NotText>> {
    let mut front = vec![0; chunk.min(UTF16_CHUNK)];
    let front_len = read_full(source, &mut front)?;
    front.truncate(front_len);
    if let Some(kind) = magic(&front) {
        return Ok(Err(kind));
    }
    let marked = match front.as_slice() {
        [0xef, 0xbb, 0xbf, ..] => Some((Charset::Utf8, 3)),
        [0xff, 0xfe, ..] => Some((Charset::Utf16Le, 2)),
        [0xfe, 0xff, ..] => Some((Charset::Utf16Be, 2)),
        _ => None,
    };
    let is_16 = |charset| matches!(charset, Charset::Utf16Le | Charset::Utf16Be);
    Ok(Ok(match encoding {
        Encoding::Utf8 => {
            marked.filter(|mark| mark.0 == Charset::Utf8).unwrap_or((Charset::Utf8, 0))
        }
        Encoding::Gb18030 => (Charset::Gb18030, 0),
        Encoding::Utf16 => marked
            .filter(|mark| is_16(mark.0))
            .or_else(|| unmarked_utf16(&front).map(|charset| (charset, 0)))
            .unwrap_or((Charset::Utf16Le, 0)),
        Encoding::Auto => match marked {
            Some(mark) if is_16(mark.0) => mark,
            _ => return detect_bytes(source, &front, marked, chunk),
        },
    }))
}

/// Reads the whole file: UTF-8 if all of it is, otherwise whatever the lines
/// with other than ASCII characters are.
fn detect_bytes(
    source: &mut dyn Source,
    front: &[u8],
    marked: Option<(Charset, u64)>,
    chunk: usize,
) -> io::Result<Result<(Charset, u64), NotText>> {
    let mut buf = vec![0; chunk];
    let (mut held, mut offset) = (0, 0);
    let mut first_wide = None;
    let mut utf8 = true;
    source.seek(SeekFrom::Start(0))?;
    loop {
        let count = read_some(source, &mut buf[held..])?;
        if count == 0 {
            // What is held is a character that was cut off.
            utf8 &= held == 0;
            break;
        }
        let data = &buf[..held + count];
        if data.contains(&0) {
            return Ok(match unmarked_utf16(front) {
                Some(charset) if marked.is_none() => Ok((charset, 0)),
                _ => Err(NotText::Binary),
            });
        }
        if first_wide.is_none() {
            first_wide = data.iter().position(|byte| !byte.is_ascii()).map(|at| offset + at as u64);
        }
        offset += data.len() as u64;
        held = 0;
        if utf8 {
            let cut = encoding_rs::Encoding::utf8_valid_up_to(data)..data.len();
            match std::str::from_utf8(&data[cut.clone()]) {
                Err(error) if error.valid_up_to() > 0 || error.error_len().is_some() => {
                    utf8 = false;
                }
                // Nothing, or the beginning of a character that goes on in the
                // next chunk.
                _ => {
                    held = cut.len();
                    offset -= held as u64;
                    buf.copy_within(cut, 0);
                }
            }
        }
    }
    let utf8_found = marked.unwrap_or((Charset::Utf8, 0));
    if utf8 || marked.is_some() {
        return Ok(Ok(utf8_found));
    }
    source.seek(SeekFrom::Start(first_wide.unwrap_or(0)))?;
    let mut sample = Vec::new();
    source.take(SAMPLE_BYTES).read_to_end(&mut sample)?;
    Ok(Ok(if looks_like_broken_utf8(&sample) { utf8_found } else { (Charset::Gb18030, 0) }))
}

/// Tells UTF-8 with some broken rows from GB18030, by lines that have other
/// than ASCII characters.
///
/// Hardly a line of Chinese text in GB18030 is valid UTF-8, while every other
/// line of UTF-8 passes as GB18030 by accident: so the first counts, not the
/// second.
fn looks_like_broken_utf8(sample: &[u8]) -> bool {
    let (mut utf8, mut gb18030, mut wide) = (0u32, 0u32, 0u32);
    let mut scratch = String::new();
    for line in sample.split(|&byte| byte == b'\n' || byte == b'\r') {
        if line.is_ascii() {
            continue;
        }
        wide += 1;
        utf8 += u32::from(as_utf8(line).is_some());
        scratch.clear();
        gb18030 += u32::from(push_decoded(line, Charset::Gb18030, &mut scratch));
    }
    utf8 * 2 >= wide || utf8 > gb18030
}

/// UTF-16 without a byte order mark: all of it decodes, and separators or line
/// ends stand in one byte order only.
fn unmarked_utf16(front: &[u8]) -> Option<Charset> {
    let front = &front[..front.len() & !1];
    let units = |order: fn([u8; 2]) -> u16| {
        let units = front.as_chunks::<2>().0.iter().map(|&pair| order(pair)).collect::<Vec<u16>>();
        let marks = units.iter().filter(|&&unit| [0x0a, 0x0d, 0x09, 0x2c].contains(&unit)).count();
        // The last unit may be the first half of a pair.
        let whole = &units[..units.len().saturating_sub(1)];
        let decodes = !units.contains(&0)
            && char::decode_utf16(whole.iter().copied()).filter(Result::is_err).count() <= 1;
        if decodes { marks } else { 0 }
    };
    // In a file of single bytes with a stray zero, hardly any separator is
    // beside a zero.
    let bytes = front.iter().filter(|byte| b"\n\r\t,".contains(byte)).count();
    match (units(u16::from_le_bytes), units(u16::from_be_bytes)) {
        (little, big) if little > big * 8 && little * 2 >= bytes => Some(Charset::Utf16Le),
        (little, big) if big > little * 8 && big * 2 >= bytes => Some(Charset::Utf16Be),
        _ => None,
    }
}

/// Files of other kinds, by how they begin.
fn magic(front: &[u8]) -> Option<NotText> {
    let kinds: [(&[u8], NotText); 18] = [
        (b"PK\x03\x04", NotText::Excel),
        (b"\xd0\xcf\x11\xe0", NotText::Excel),
        (b"%PDF", NotText::Pdf),
        (b"\x1f\x8b", NotText::Archive),
        (b"PK\x05\x06", NotText::Archive),
        (b"Rar!", NotText::Archive),
        (b"7z\xbc\xaf\x27\x1c", NotText::Archive),
        (b"\x28\xb5\x2f\xfd", NotText::Archive),
        (b"\xfd7zXZ\0", NotText::Archive),
        (b"BZh", NotText::Archive),
        (b"\x89PNG", NotText::Picture),
        (b"\xff\xd8\xff", NotText::Picture),
        (b"GIF8", NotText::Picture),
        (b"SQLite format 3\0", NotText::Database),
        (b"\xff\xfe\0\0", NotText::Utf32),
        (b"\0\0\xfe\xff", NotText::Utf32),
        (b"\x7fELF", NotText::Binary),
        (b"MZ\x90\0", NotText::Binary),
    ];
    if let Some((bytes, kind)) = kinds.iter().find(|(bytes, _)| front.starts_with(bytes)) {
        // A ZIP archive is a workbook if its first entry says so, or is one of
        // the parts that every workbook begins with.
        if *bytes == b"PK\x03\x04" {
            let names: [&[u8]; 5] =
                [b"[Content_Types].xml", b"xl/", b"_rels/", b"docProps/", b"mimetype"];
            let name = front.get(30..).unwrap_or_default();
            let short = name.len() < 4;
            let workbook = short || names.iter().any(|known| name.starts_with(known));
            return Some(if workbook { NotText::Excel } else { NotText::Archive });
        }
        return Some(*kind);
    }
    let text = front.strip_prefix(b"\xef\xbb\xbf").unwrap_or(front).trim_ascii_start();
    let lower = text.iter().take(16).map(u8::to_ascii_lowercase).collect::<Vec<u8>>();
    let markup: [&[u8]; 5] = [b"<?xml", b"<html", b"<!doctype", b"<table", b"<meta"];
    markup.iter().any(|tag| lower.starts_with(tag)).then_some(NotText::Markup)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A whole file as lines of `line: field|field` or `line! code`.
    fn read(bytes: &[u8], encoding: Encoding) -> Vec<String> {
        let mut file = CsvFile::from_bytes(bytes.to_vec(), encoding).unwrap();
        let mut out = Vec::new();
        while let Some(row) = file.next_row().unwrap() {
            out.push(match row {
                Row::Fields { line, fields } => {
                    assert_eq!(fields.len(), fields.iter().count());
                    assert_eq!(fields.get(0), fields.iter().next());
                    format!("{line}: {}", fields.iter().collect::<Vec<_>>().join("|"))
                }
                Row::Malformed { line, problem } => format!("{line}! {}", problem.code()),
            });
        }
        assert_eq!(file.bytes_read(), bytes.len() as u64);
        out
    }

    fn refused(bytes: &[u8]) -> FileError {
        CsvFile::from_bytes(bytes.to_vec(), Encoding::Auto).unwrap_err()
    }

    fn utf16(text: &str, order: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(order).collect()
    }

    const SMALL: &str = "名称,代码\n郑州某某有限公司,1\n县城小店😀,2\n";

    #[test]
    fn encodings_are_found_and_read_alike() {
        let expected = ["2: 郑州某某有限公司|1", "3: 县城小店😀|2"];
        let gb = GB18030.encode(SMALL).0.into_owned();
        let cases: [(&str, Vec<u8>, Encoding); 7] = [
            ("UTF-8", SMALL.into(), Encoding::Utf8),
            ("UTF-8", format!("\u{feff}{SMALL}").into(), Encoding::Utf8),
            ("GB18030", gb, Encoding::Gb18030),
            ("UTF-16LE", utf16(&format!("\u{feff}{SMALL}"), u16::to_le_bytes), Encoding::Utf16),
            ("UTF-16BE", utf16(&format!("\u{feff}{SMALL}"), u16::to_be_bytes), Encoding::Utf16),
            ("UTF-16LE", utf16(SMALL, u16::to_le_bytes), Encoding::Utf16),
            ("UTF-16BE", utf16(SMALL, u16::to_be_bytes), Encoding::Utf16),
        ];
        for (name, bytes, named) in cases {
            for encoding in [Encoding::Auto, named] {
                let file = CsvFile::from_bytes(bytes.clone(), encoding).unwrap();
                assert_eq!(file.encoding_name(), name, "{encoding:?}");
                assert_eq!(file.header(), ["名称", "代码"], "{name}");
                assert_eq!(read(&bytes, encoding), expected, "{name}");
            }
        }
    }

    #[test]
    fn a_broken_row_is_rejected_and_the_file_goes_on() {
        let mut bytes = b"a,b\n".to_vec();
        for index in 0..9 {
            let broken: &[u8] = if index == 4 { b"\xe5\x8e" } else { "县".as_bytes() };
            bytes.extend_from_slice(b"1,");
            bytes.extend_from_slice(broken);
            bytes.extend_from_slice(b"\r\n");
        }
        let rows = read(&bytes, Encoding::Auto);
        assert_eq!(rows.len(), 9);
        for (index, row) in rows.iter().enumerate() {
            let line = index + 2;
            let expected =
                if index == 4 { format!("{line}! encoding") } else { format!("{line}: 1|县") };
            assert_eq!(*row, expected);
        }
        // A lead byte without its trail, in GB18030 and in UTF-16.
        let mut gb = GB18030.encode("甲,乙\n").0.into_owned();
        gb.extend_from_slice(b"1,\xd6\n2,\xd6\xd0\n");
        assert_eq!(read(&gb, Encoding::Auto), ["2! encoding", "3: 2|中"]);
        let mut wide = utf16("\u{feff}甲,乙\n1,", u16::to_le_bytes);
        wide.extend_from_slice(&[0x00, 0xd8]);
        wide.extend(utf16("\n2,中\n", u16::to_le_bytes));
        assert_eq!(read(&wide, Encoding::Auto), ["2! encoding", "3: 2|中"]);
        wide.push(0x41);
        assert_eq!(read(&wide, Encoding::Auto), ["2! encoding", "3: 2|中", "4! field-count"]);
    }

    #[test]
    fn a_character_cut_by_the_chunk_is_no_fault() {
        for shift in 0..4 {
            let mut text = format!("a,b\n{},", "x".repeat(CHUNK - 12 + shift));
            text.push_str(&"县😀".repeat(9));
            text.push('\n');
            let file = CsvFile::from_bytes(text.clone().into_bytes(), Encoding::Auto).unwrap();
            assert_eq!(file.encoding_name(), "UTF-8");
            assert_eq!(read(text.as_bytes(), Encoding::Auto).len(), 1);
        }
        let cut = b"\xe5\x8e\xbf,b\n1,\xe5\x8e";
        assert_eq!(read(cut, Encoding::Auto), ["2! encoding"]);
    }

    #[test]
    fn quoted_values_and_every_line_end_are_read() {
        let text = "a,b\r\n\"x\r\ny\",\"say \"\"hi\"\"\"\n\r\n   \n\"\",5\"6\r\"县\",,\"\n7,8";
        assert_eq!(
            read(text.as_bytes(), Encoding::Auto),
            ["2: x\r\ny|say \"hi\"", "6: |5\"6", "7! unclosed-quote", "8: 7|8"]
        );
        let gb = GB18030.encode("甲,乙\n\"某\"\"县\"\"\n城\",1\n").0.into_owned();
        assert_eq!(read(&gb, Encoding::Auto), ["2: 某\"县\"\n城|1"]);
        assert_eq!(read(b"a,b\n1,", Encoding::Auto), ["2: 1|"]);
        assert_eq!(read(b"a,b\n1,\"2\"", Encoding::Auto), ["2: 1|2"]);
        assert_eq!(read(b"a,b\r1,2\r\r3,4\r", Encoding::Auto), ["2: 1|2", "4: 3|4"]);
    }

    #[test]
    fn other_separators_are_found_in_the_header() {
        assert_eq!(read(b"a\tb\n1,5\t2\n", Encoding::Auto), ["2: 1,5|2"]);
        assert_eq!(read(b"\n a ; b \n1;2\n", Encoding::Auto), ["3: 1|2"]);
        assert_eq!(read(b"a\n1\n\n2,3\n", Encoding::Auto), ["2: 1", "4! field-count"]);
    }

    #[test]
    fn a_stray_quote_costs_one_row() {
        for quoted in [false, true] {
            for place in ["\"stray,1,2", "1,\"stray,2", "1,2,\"stray", "\"stra\"y,1,2"] {
                let mut text = "a,b,c\n".to_owned();
                for index in 0..1000 {
                    let row = match (index == 500, quoted) {
                        (true, _) => place.to_owned(),
                        (_, true) => format!("\"{index}\",x,\"县\""),
                        (_, false) => format!("{index},x,县"),
                    };
                    text.push_str(&row);
                    text.push('\n');
                }
                let rows = read(text.as_bytes(), Encoding::Auto);
                assert_eq!(rows.len(), 1000, "{place}");
                for (index, row) in rows.iter().enumerate() {
                    let line = index + 2;
                    if index == 500 {
                        assert!(row.starts_with(&format!("{line}! ")), "{place}: {row}");
                    } else {
                        assert_eq!(*row, format!("{line}: {index}|x|县"), "{place}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_stray_quote_in_a_large_file_is_followed_one_mebibyte_at_most() {
        let mut text = "a,b\n\"x,1\n".to_owned();
        let rows = 3 * ROW_BYTES_MAX / 4;
        text.push_str(&"1,2\n".repeat(rows));
        let mut file = CsvFile::from_bytes(text.into_bytes(), Encoding::Auto).unwrap();
        let mut good = 0;
        while let Some(row) = file.next_row().unwrap() {
            match row {
                Row::Fields { .. } => good += 1,
                Row::Malformed { line, problem } => {
                    assert_eq!((line, problem), (2, RowProblem::UnclosedQuote));
                }
            }
        }
        assert_eq!(good, rows);
        assert!(file.input.buf.len() <= ROW_BYTES_MAX + 2 * CHUNK);
    }

    #[test]
    fn a_line_above_the_limit_is_rejected_and_the_next_one_read() {
        let long = "x".repeat(3 * ROW_BYTES_MAX);
        for line in [long.clone(), format!("\"{long}"), format!("1,\"{long}\"")] {
            for end in ["\n", "\r\n", "\r"] {
                let text = format!("a,b{end}{line}{end}3,4{end}");
                let rows = read(text.as_bytes(), Encoding::Auto);
                assert_eq!(rows, ["2! row-too-long", "3: 3|4"]);
            }
        }
        let fits = format!("a,b\n1,{}\n", "x".repeat(ROW_BYTES_MAX - 8));
        assert_eq!(read(fits.as_bytes(), Encoding::Auto).len(), 1);
    }

    #[test]
    fn a_wrong_field_count_names_both_numbers() {
        let mut file = CsvFile::from_bytes(b"a,b\n1,2,3\n".to_vec(), Encoding::Auto).unwrap();
        let Some(Row::Malformed { line: 2, problem }) = file.next_row().unwrap() else {
            panic!("the row has three fields");
        };
        assert_eq!(problem, RowProblem::FieldCount { expected: 2, found: 3 });
        assert_eq!(read(b"a,b\n1\n,\n1,2\n", Encoding::Auto), ["2! field-count", "3: |", "4: 1|2"]);
    }

    #[test]
    fn files_of_other_kinds_are_refused_with_the_next_step() {
        let xlsx = refused(b"PK\x03\x04\x14\0\x06\0");
        assert!(xlsx.to_string().contains("CSV UTF-8"), "{xlsx}");
        let mut zip = b"PK\x03\x04".to_vec();
        zip.resize(30, 0);
        zip.extend_from_slice(b"data.csv");
        for (bytes, expected) in [
            (zip.as_slice(), NotText::Archive),
            (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1".as_slice(), NotText::Excel),
            (b"%PDF-1.7".as_slice(), NotText::Pdf),
            (b"\x1f\x8b\x08".as_slice(), NotText::Archive),
            (b"  <HTML><table>".as_slice(), NotText::Markup),
            (b"a,b\n1,\0\n".as_slice(), NotText::Binary),
            (b"\xef\xbb\xbfa,b\n1,\0\n".as_slice(), NotText::Binary),
        ] {
            assert!(
                matches!(refused(bytes), FileError::NotText { kind, .. } if kind == expected),
                "{expected:?}"
            );
        }
    }

    #[test]
    fn what_cannot_be_opened_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let open = |path: &Path| CsvFile::open(path, Encoding::Auto).map(|_| ());
        assert!(matches!(open(dir.path()), Err(FileError::NotAFile { .. })));
        let missing = open(&dir.path().join("none.csv")).unwrap_err();
        assert!(missing.to_string().contains("none.csv"), "{missing}");
        let path = dir.path().join("a.csv");
        std::fs::write(&path, "a,b\n1,2\n").unwrap();
        let mut file = CsvFile::open(&path, Encoding::Auto).unwrap();
        assert_eq!(file.bytes_total(), 8);
        assert!(matches!(file.next_row(), Ok(Some(Row::Fields { line: 2, .. }))));
    }

    #[test]
    fn a_header_is_required_and_has_to_be_sound() {
        for empty in ["", "\n\n", "  \r\n\t\n", "\u{feff}"] {
            assert!(matches!(refused(empty.as_bytes()), FileError::NoHeader { .. }), "{empty:?}");
        }
        assert!(matches!(refused(b"a,\"b\n1,2\n"), FileError::Header { line: 1, .. }));
        assert!(matches!(
            refused(",".repeat(COLUMNS_MAX).as_bytes()),
            FileError::TooManyColumns { .. }
        ));
        let file = CsvFile::from_bytes(b"a,b".to_vec(), Encoding::Auto).unwrap();
        assert_eq!(file.header(), ["a", "b"]);
    }

    #[test]
    fn encoding_names_are_read() {
        for (text, encoding) in [
            ("auto", Encoding::Auto),
            ("UTF-8", Encoding::Utf8),
            ("gbk", Encoding::Gb18030),
            ("gb18030", Encoding::Gb18030),
            ("utf-16", Encoding::Utf16),
        ] {
            assert_eq!(text.parse(), Ok(encoding));
        }
        assert!("big5".parse::<Encoding>().is_err());
    }

    #[test]
    fn finding_bytes_agrees_with_looking_at_each() {
        let data: Vec<u8> = (0..=255).cycle().step_by(7).take(997).collect();
        for needles in [[0, 1, 255], [b',', b'\n', b'\r'], [128, 127, 129], [3, 3, 3]] {
            for from in 0..data.len() {
                let expected = data[from..]
                    .iter()
                    .position(|byte| needles.contains(byte))
                    .map_or(data.len(), |at| from + at);
                assert_eq!(find3(&data, from, needles[0], needles[1], needles[2]), expected);
            }
        }
    }

    #[test]
    fn any_bytes_are_read_line_by_line() {
        use std::hash::{BuildHasher, Hasher, RandomState};
        let seed = RandomState::new().build_hasher().finish() | 1;
        println!("seed {seed}");
        let mut state = seed;
        let mut below = |limit: u64| {
            // xorshift64*, Vigna 2016.
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % limit
        };
        let pieces: [&[u8]; 10] =
            [b"\"", b"\"\"", b",", b"\n", b"\r", b"\r\n", b"a", b" ", "县".as_bytes(), b"\xd6"];
        for _ in 0..5_000 {
            let mut bytes = b"a,b\n".to_vec();
            for _ in 0..below(40) {
                bytes.extend_from_slice(pieces[below(pieces.len() as u64) as usize]);
            }
            for encoding in [Encoding::Auto, Encoding::Utf8, Encoding::Gb18030, Encoding::Utf16] {
                let Ok(mut file) = CsvFile::from_bytes(bytes.clone(), encoding) else {
                    assert_eq!(encoding, Encoding::Utf16, "{bytes:?}");
                    continue;
                };
                let mut last = 1;
                let mut read = 0;
                while let Some(row) = file.next_row().unwrap() {
                    let line = match row {
                        Row::Fields { line, fields } => {
                            read += fields.iter().map(str::len).sum::<usize>();
                            assert!(encoding == Encoding::Utf16 || fields.len() == 2);
                            line
                        }
                        Row::Malformed { line, .. } => line,
                    };
                    assert!(line > last || encoding == Encoding::Utf16, "{bytes:?}");
                    last = line;
                }
                assert!(read <= 2 * bytes.len(), "{bytes:?}");
            }
        }
    }
}
