//! Why a file, or one of its lines, cannot be read; in Chinese and English.

use std::{fmt, io};

use super::COLUMNS_MAX;

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
