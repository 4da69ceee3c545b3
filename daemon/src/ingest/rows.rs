//! Rows on their way from a source to records: what a reader hands over.
//!
//! Readers fill these in, the pipeline looks at them. Invariant: a [`Row`] says
//! where it stands in what was delivered, so that everything that is told of it
//! names that place. Not here: how a format is split into rows (`sources`).

use std::{borrow::Cow, ops::Range};

use super::text_problem::TextProblem;

/// Labels of the two columns in front of the rows of a rejects file. A mapping
/// ignores columns of these names ([`is_reject_column`]), so that a mended file can
/// be delivered as it is.
pub const REJECT_COLUMNS: [&str; 2] = ["问题/problem", "怎么办/what to do"];

/// Behind the label of a column that was passed over because somebody said so for one
/// delivery: in a rejects file it is passed over again.
pub const PASSED_OVER: &str = "（已忽略/ignored）";

/// Whether a column is one of [`REJECT_COLUMNS`].
pub fn is_reject_column(label: &str) -> bool {
    REJECT_COLUMNS.contains(&label.trim())
}

/// Whether a rejects file passes a column over.
pub fn is_passed_over(label: &str) -> bool {
    label.trim().ends_with(PASSED_OVER)
}

/// A field's place in a row's bytes or text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    // Rows have at most 1 MiB, so 32 bits are plenty.
    start: u32,
    end: u32,
    quoted: bool,
    escape: Escape,
}

/// How quotes within a quoted field are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Escape {
    /// There are none.
    None,
    /// Twice.
    Doubled,
    /// Behind a backslash, or twice.
    Backslash,
}

impl Span {
    /// From byte `start` to byte `end`, which are below 4 GiB.
    pub fn plain(start: usize, end: usize) -> Self {
        Self { start: start as u32, end: end as u32, quoted: false, escape: Escape::None }
    }

    /// What stands between two quotes.
    pub fn quoted(start: usize, end: usize, escape: Escape) -> Self {
        Self { quoted: true, escape, ..Self::plain(start, end) }
    }

    /// The bytes that it covers.
    pub fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    /// Whether quotes stand around it.
    pub fn is_quoted(self) -> bool {
        self.quoted
    }

    /// How quotes within it are written.
    pub fn escape(self) -> Escape {
        self.escape
    }

    /// The same but for zero bytes at its end.
    pub fn without_zeros_behind(self, data: &[u8]) -> Self {
        let bytes = &data[self.range()];
        let zeros = bytes.iter().rev().take_while(|byte| **byte == 0).count();
        Self { end: self.end - zeros as u32, ..self }
    }
}

/// Where a row stands in what was delivered. Places of one delivery are ordered:
/// a later row has a greater place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place(u64);

impl Place {
    /// Parts that one delivery has at most: sheets of a workbook, files of an
    /// archive. More are the work of a program, which can deliver them one by one.
    pub const PARTS_MAX: usize = 1 << 6;
    /// Bits of a line's number: 17 thousand million.
    const LINE_BITS: u32 = 34;
    /// Bits of the lines that rows before it had beyond their first. A file with
    /// more shows this many, which only spoils the number that a spreadsheet shows.
    const EXTRA_BITS: u32 = 24;
    const LINE_MAX: u64 = (1 << Self::LINE_BITS) - 1;
    const EXTRA_MAX: u64 = (1 << Self::EXTRA_BITS) - 1;

    /// In part `part` (from 0), on the physical line `line`, which a spreadsheet
    /// shows as row `row` (both from 1): values with line breaks take several
    /// lines, and one row.
    pub fn new(part: usize, line: u64, row: u64) -> Self {
        let part = part.min(Self::PARTS_MAX - 1) as u64;
        let extra = line.saturating_sub(row).min(Self::EXTRA_MAX);
        let line = line.min(Self::LINE_MAX);
        Self((part << Self::EXTRA_BITS | extra) << Self::LINE_BITS | line)
    }

    /// The part, from 0.
    pub fn part(self) -> usize {
        (self.0 >> (Self::LINE_BITS + Self::EXTRA_BITS)) as usize
    }

    /// The physical line, from 1.
    pub fn line(self) -> u64 {
        self.0 & Self::LINE_MAX
    }

    /// The row that a spreadsheet shows, from 1.
    pub fn row(self) -> u64 {
        self.line().saturating_sub(self.0 >> Self::LINE_BITS & Self::EXTRA_MAX)
    }

    /// For a sorted run; [`Place::from_bits`] reads it back.
    pub fn to_bits(self) -> u64 {
        self.0
    }

    /// What [`Place::to_bits`] gave.
    pub fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
}

/// One row.
#[derive(Debug)]
pub enum Row<'a> {
    /// As many fields as the header has.
    Fields {
        /// Where it starts.
        place: Place,
        /// The fields, in the file's order.
        fields: Fields<'a>,
        /// What is odd about it, though it could be read.
        note: Option<RowNote>,
    },
    /// A line that is not a row.
    Malformed {
        /// Where it starts.
        place: Place,
        /// Why.
        problem: RowProblem,
        /// The line as it was delivered, as far as it is text.
        text: Cow<'a, str>,
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
    /// A value under a column that has no label.
    Unlabelled {
        /// The column, from 1.
        column: usize,
    },
    /// Bytes that are no character in the file's encoding.
    Encoding {
        /// The column, from 1.
        column: usize,
        /// The file's encoding.
        encoding: &'static str,
    },
    /// Its bytes are characters in the file's encoding, but no text that anybody
    /// wrote: it is in another one.
    Implausible {
        /// The file's encoding.
        encoding: &'static str,
    },
    /// What only rows of workbooks and JSON can have.
    Text(TextProblem),
}

impl From<TextProblem> for RowProblem {
    fn from(problem: TextProblem) -> Self {
        RowProblem::Text(problem)
    }
}

impl RowProblem {
    /// A stable name, kebab-case.
    pub fn code(&self) -> &'static str {
        match self {
            RowProblem::FieldCount { .. } => "field-count",
            RowProblem::UnclosedQuote => "unclosed-quote",
            RowProblem::StrayQuote { .. } => "stray-quote",
            RowProblem::TooLong => "row-too-long",
            RowProblem::Unlabelled { .. } => "unlabelled-value",
            RowProblem::Encoding { .. } | RowProblem::Implausible { .. } => "encoding",
            RowProblem::Text(problem) => problem.code(),
        }
    }

    /// The column that it is about, from 1, if it is about one that has a label.
    pub fn column(&self) -> Option<usize> {
        match self {
            RowProblem::StrayQuote { column } | RowProblem::Encoding { column, .. } => {
                Some(*column)
            }
            RowProblem::Text(
                TextProblem::ErrorCell { column } | TextProblem::MergedCell { column },
            ) => Some(*column),
            _ => None,
        }
    }

    /// What is wrong and what to do, in Chinese.
    pub fn zh(&self) -> String {
        match self {
            RowProblem::FieldCount { expected, found } if found < expected => format!(
                "表头有 {expected} 列，本行只有 {found} 列；可能缺少分隔符，或内容中的换行把一行断成了几行（含换行的内容须用英文双引号括起来）"
            ),
            RowProblem::FieldCount { expected, found } => format!(
                "表头有 {expected} 列，本行有 {found} 列；含分隔符或换行的内容须用英文双引号括起来"
            ),
            RowProblem::UnclosedQuote => {
                "本行的英文双引号没有正确结束；请补上引号，内容中的引号须写成两个".into()
            }
            RowProblem::StrayQuote { column } => {
                format!("第 {column} 列结束引号之后还有内容；内容中的引号须写成两个")
            }
            RowProblem::TooLong => "本行超过 1 MiB；请检查是否缺少换行或引号".into(),
            RowProblem::Unlabelled { column } => {
                format!("第 {column} 列没有列名，却有内容；请为该列补上列名，或删除该内容")
            }
            RowProblem::Encoding { column, encoding } => format!(
                "第 {column} 列含有不属于 {encoding} 编码的字节；请从原系统重新导出，或用 --encoding 指定编码"
            ),
            RowProblem::Implausible { encoding } => format!(
                "本行按 {encoding} 编码读出的内容不像中文，可能是另一种编码；请从原系统按 UTF-8 重新导出，确认编码无误时用 --encoding {encoding} 指定"
            ),
            RowProblem::Text(problem) => problem.zh(),
        }
    }

    /// What is wrong and what to do, in English.
    pub fn en(&self) -> String {
        match self {
            RowProblem::FieldCount { expected, found } if found < expected => format!(
                "the header has {expected} columns, this row only {found}; a separator may be missing, or a line break within a value has cut the row (such a value belongs in double quotes)"
            ),
            RowProblem::FieldCount { expected, found } => format!(
                "the header has {expected} columns, this row {found}; put a value with a separator or a line break in double quotes"
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
            RowProblem::Unlabelled { column } => {
                format!("column {column} has no label but a value here: label the column, or delete the value")
            }
            RowProblem::Encoding { column, encoding } => format!(
                "column {column} has bytes that are not {encoding}; export the file again, or name its encoding with --encoding"
            ),
            RowProblem::Implausible { encoding } => format!(
                "read as {encoding} the row is no Chinese text, it may be in another encoding: export it again as UTF-8, or name the encoding with --encoding {encoding} if you are sure of it"
            ),
            RowProblem::Text(problem) => problem.en(),
        }
    }
}

/// What is odd about a row that could be read: a warning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RowNote {
    /// Zero bytes stood at its edge, as an interrupted write leaves them.
    Padding,
    /// A quote stands inside a value that does not begin with one: columns may be
    /// shifted.
    InnerQuote,
    /// A quote within a quoted value is escaped by a backslash, as MySQL does it.
    BackslashQuote,
    /// The row is in another encoding than the file.
    OtherEncoding,
    /// The row may be in another encoding than it was read in.
    Doubtful,
}

impl RowNote {
    /// A stable name, kebab-case.
    pub fn code(self) -> &'static str {
        match self {
            RowNote::Padding => "zero-padding",
            RowNote::InnerQuote => "inner-quote",
            RowNote::BackslashQuote => "backslash-quote",
            RowNote::OtherEncoding => "other-encoding",
            RowNote::Doubtful => "doubtful-encoding",
        }
    }

    /// Whether the row's columns may be others than they seem: a full delivery
    /// with such rows deletes nothing unseen.
    pub fn is_suspicious(self) -> bool {
        matches!(self, RowNote::InnerQuote | RowNote::Padding)
    }

    /// What was seen and what to do, in Chinese.
    pub fn zh(self) -> &'static str {
        match self {
            RowNote::Padding => {
                "行首或行尾有空字节（写入中断的痕迹），已去除；请核对该行，并检查导出程序"
            }
            RowNote::InnerQuote => {
                "未加引号的内容中含有英文双引号，列可能错位；请核对该行，含引号的内容须整体加引号并把引号写成两个"
            }
            RowNote::BackslashQuote => {
                "引号用反斜杠转义（MySQL 导出的写法），已按此读取；建议导出时改为写两个引号"
            }
            RowNote::OtherEncoding => {
                "本行的编码与文件其他部分不同，已按其自身编码读取；建议整个文件统一存为 UTF-8"
            }
            RowNote::Doubtful => {
                "本行的汉字很少见，可能是按错误的编码读出的；请核对，确有如此名称的可忽略，否则请从原系统按 UTF-8 重新导出"
            }
        }
    }

    /// What was seen and what to do, in English.
    pub fn en(self) -> &'static str {
        match self {
            RowNote::Padding => {
                "zero bytes at the row's edge, which an interrupted write leaves, were dropped: check the row, and the program that exports it"
            }
            RowNote::InnerQuote => {
                "a double quote stands inside a value that is not quoted, so columns may be shifted: check the row; quote such a value as a whole and double its quotes"
            }
            RowNote::BackslashQuote => {
                "a quote is escaped by a backslash, as MySQL exports it, and was read like that: better double it"
            }
            RowNote::OtherEncoding => {
                "the row is in another encoding than the file and was read as what it is: better save the whole file as UTF-8"
            }
            RowNote::Doubtful => {
                "the row's hanzi are very rare, so it may have been read in a wrong encoding: compare it; ignore this if it is a name of that kind, otherwise export the file as UTF-8"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_back_and_in_order() {
        let places = [(0, 1, 1), (0, 2, 2), (0, 9, 4), (0, 10, 5), (1, 3, 3), (63, 7, 7)];
        let made: Vec<Place> =
            places.iter().map(|(part, line, row)| Place::new(*part, *line, *row)).collect();
        assert!(made.is_sorted_by(|a, b| a < b));
        for ((part, line, row), place) in places.iter().zip(made) {
            assert_eq!((place.part(), place.line(), place.row()), (*part, *line, *row));
            assert_eq!(Place::from_bits(place.to_bits()), place);
        }
        // What does not fit is bounded, and stays in its part.
        let place = Place::new(1000, u64::MAX, 1);
        assert_eq!((place.part(), place.line()), (63, (1 << 34) - 1));
    }
}
