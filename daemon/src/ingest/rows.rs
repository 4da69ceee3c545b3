//! Rows on their way from a source to records: what a reader hands over.
//!
//! Readers fill these in, the pipeline looks at them. Invariant: a [`Row`] says
//! where it stands in what was delivered, so that everything that is told of it
//! names that place. Not here: how a format is split into rows (`sources`).

use std::ops::Range;

/// A field's place in a row's bytes or text.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    // Rows have at most 1 MiB, so 32 bits are plenty.
    start: u32,
    end: u32,
    /// Whether quotes within it are doubled.
    pub escaped: bool,
}

impl Span {
    /// From byte `start` to byte `end`, which are below 4 GiB.
    pub fn new(start: usize, end: usize, escaped: bool) -> Self {
        Self { start: start as u32, end: end as u32, escaped }
    }

    /// The bytes that it covers.
    pub fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// One row.
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

/// The fields of a row, borrowed from a batch.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a> {
    text: &'a str,
    spans: &'a [Span],
}

impl<'a> Fields<'a> {
    /// Fields whose places lie within `text`.
    pub fn new(text: &'a str, spans: &'a [Span]) -> Self {
        Self { text, spans }
    }

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
    /// Longer than a row may be (1 MiB).
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
