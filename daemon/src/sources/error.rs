//! Why a delivered file cannot be read; in Chinese and English.

use std::io;

use super::{COLUMNS_MAX, FILE_BYTES_MAX};
use crate::ingest::source::SourceError;

/// Rounded up: what is too large by a byte is not as large as it may be.
fn gib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 30)
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
    #[error("{path} 不是普通文件 / {path} is not a regular file: name one file")]
    NotAFile {
        /// The path as given.
        path: String,
    },
    /// Empty, or nothing but white space.
    #[error(
        "{path} 是空的，没有表头也没有数据；请检查导出或传输，第一行应是列名 / \
         {path} is empty, without a header and without rows: check how it was exported and sent; its first line should name the columns"
    )]
    NoHeader {
        /// The path as given.
        path: String,
    },
    /// No line is a header.
    #[error(
        "{path}: 找不到表头，请在第一行补上列名（例如 {expected}）后重新交付；前 {lines} 行中没有任何一行含有该数据集的列名，第 {line} 行（内容已遮盖）是“{text}”；试过的分隔符：{separators} / \
         there is no header: put the column names into the first line and deliver it again; none of the first {lines} lines has a column name of the dataset (such as {expected}); line {line}, masked, is '{text}'; separators tried: {separators}"
    )]
    NoLabels {
        /// The path as given.
        path: String,
        /// The first line that is not blank, from 1.
        line: u64,
        /// Its beginning.
        text: String,
        /// How many lines were looked at.
        lines: usize,
        /// What was tried.
        separators: String,
        /// Some of the labels that would do.
        expected: String,
    },
    /// Neither UTF-8 nor plausible as GB18030.
    #[error(
        "{path}: 无法确定文件编码：不是 UTF-8，按 GB18030 读出的内容也不像中文。可能是：{candidates}。请把文件另存为 UTF-8，或用 --encoding 指明编码（收件目录在 creditsync.toml 的 [inbox.encoding] 中指明） / \
         the encoding cannot be told: it is not UTF-8, and read as GB18030 it makes no sense. Candidates: {candidates}. Save it as UTF-8, or name the encoding with --encoding (for the inbox: [inbox.encoding] in creditsync.toml)"
    )]
    Encoding {
        /// The path as given.
        path: String,
        /// Encodings that it decodes in, with what it would read as.
        candidates: String,
    },
    /// Larger than any delivery.
    #[error(
        "{path} 有 {} GiB，超过单个文件的上限 {} GiB：请检查文件是否完整，或拆成几个文件后重新交付 / \
         {path} has {} GiB, and a file may have {} GiB: check whether it is what it should be, or deliver it in parts",
        gib(*bytes), gib(FILE_BYTES_MAX), gib(*bytes), gib(FILE_BYTES_MAX)
    )]
    TooLarge {
        /// The path as given.
        path: String,
        /// How large it is.
        bytes: u64,
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

/// What a format has to say about a file, which it names, in Chinese and English.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Told(pub String);

impl From<FileError> for SourceError {
    fn from(error: FileError) -> Self {
        match error {
            FileError::NotFound { .. }
            | FileError::Permission { .. }
            | FileError::NotAFile { .. }
            | FileError::Io { .. } => SourceError::Access(Box::new(error)),
            FileError::NoHeader { .. } => SourceError::Empty(Box::new(error)),
            FileError::NoLabels { .. } => SourceError::NoHeader(Box::new(error)),
            FileError::Encoding { .. }
            | FileError::TooLarge { .. }
            | FileError::TooManyColumns { .. } => SourceError::Content(Box::new(error)),
        }
    }
}
