//! What JSON is read from, and why it cannot be read; in Chinese and English.
//!
//! The words of this folder: all of its modules use them, and they use none.

use std::io::{self, Read, Seek};

use crate::sources::texts::COLUMNS_MAX;

/// What JSON is read from.
pub trait Input: Read + Seek + Send {}
impl<T: Read + Seek + Send> Input for T {}

/// How its bytes are read where somebody said so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Charset {
    /// By its byte order mark or zeros; else UTF-8, as the standard demands.
    Auto,
    /// As somebody said, unless a mark says otherwise.
    Named(&'static encoding_rs::Encoding),
}

/// Why JSON as a whole cannot be read. None of these names the file; callers do.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// There is no element, or none that has a name.
    #[error(
        "JSON 文件中没有记录；应为对象的数组 [{{\"列名\": 值}}, …]，或每行一个对象 / \
         there is no record in this JSON: it has to be an array of objects [{{\"label\": value}}, …], or one object a line"
    )]
    NoRecords,
    /// Not a single element is UTF-8.
    #[error(
        "JSON 的编码不是 UTF-8；请另存为 UTF-8，或用 --encoding 指明编码（例如 gbk） / \
         this JSON is not UTF-8: save it as UTF-8, or name its encoding with --encoding (such as gbk)"
    )]
    Encoding,
    /// An array of something else.
    #[error(
        "JSON 数组的元素不是对象；每条记录须写成 {{\"列名\": 值, …}} / \
         the elements of this JSON array are no objects: write each record as {{\"label\": value, …}}"
    )]
    NotObjects,
    /// Several arrays of objects in one object.
    #[error(
        "JSON 中有多个记录数组（{names}），无法确定应读取哪一个；请只保留一个 / \
         this JSON holds several arrays of records ({names}), and which is meant cannot be told: keep one of them"
    )]
    SeveralArrays {
        /// What they are called.
        names: String,
    },
    /// Something follows the array of records.
    #[error(
        "JSON 的记录数组在第 {line} 行结束，其后还有内容；请把所有记录放进一个数组，或每行一个对象 / \
         the array of records ends in line {line}, and more follows: put all records into one array, or write one object a line"
    )]
    More {
        /// The line of its end.
        line: u64,
    },
    /// More names than any dataset has fields.
    #[error(
        "JSON 的记录共有超过 {COLUMNS_MAX} 个不同的字段名，最多允许 {COLUMNS_MAX} 个 / \
         the records of this JSON have more than {COLUMNS_MAX} different names, {COLUMNS_MAX} are allowed"
    )]
    TooManyColumns,
    /// It cannot be read.
    #[error("读取失败 / cannot be read: {0}")]
    Io(#[from] io::Error),
}
