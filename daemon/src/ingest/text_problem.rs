//! Why a row of a format that is not split at the byte level is rejected:
//! workbooks and JSON.
//!
//! Part of [`super::rows::RowProblem`]; readers in `crate::sources` find these, the
//! report tells of them in Chinese and English. Not here: problems of text with
//! separators.

/// Why a row of a workbook or of JSON is rejected; the file goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TextProblem {
    /// Cells to the right of the last column that has a label.
    BeyondHeader {
        /// Columns of the header.
        expected: usize,
        /// Cells of this row, up to the last one that is not empty.
        found: usize,
    },
    /// Longer than a row may be (1 MiB).
    TooLong,
    /// A cell whose formula failed, such as `#N/A`.
    ErrorCell {
        /// The column, from 1.
        column: usize,
    },
    /// A cell that is merged with those above it, so that the row has no value of
    /// its own there.
    MergedCell {
        /// The column, from 1.
        column: usize,
    },
    /// A cell of the row, or of the one beside it, cannot be read.
    DamagedCell,
    /// JSON that is malformed within this element.
    Syntax,
    /// The file ends within this element.
    Cut,
    /// An element that is not an object.
    NotAnObject,
    /// An object or an array where a single value belongs.
    Nested {
        /// The column, from 1.
        column: usize,
    },
    /// Two members of one object have the same name.
    RepeatedName {
        /// The column, from 1.
        column: usize,
    },
    /// Bytes that are no character in the file's encoding.
    Encoding {
        /// The file's encoding.
        encoding: &'static str,
    },
}

impl TextProblem {
    /// Whether only an element of JSON has it, which has no cells then.
    pub fn is_of_json(&self) -> bool {
        matches!(
            self,
            TextProblem::Syntax
                | TextProblem::Cut
                | TextProblem::NotAnObject
                | TextProblem::Nested { .. }
                | TextProblem::RepeatedName { .. }
                | TextProblem::Encoding { .. }
        )
    }

    /// A stable name, kebab-case.
    pub fn code(&self) -> &'static str {
        match self {
            TextProblem::BeyondHeader { .. } => "field-count",
            TextProblem::TooLong => "row-too-long",
            TextProblem::ErrorCell { .. } => "error-cell",
            TextProblem::MergedCell { .. } => "merged-cell",
            TextProblem::DamagedCell => "damaged-cell",
            TextProblem::Syntax => "json-syntax",
            TextProblem::Cut => "json-cut",
            TextProblem::NotAnObject => "json-not-an-object",
            TextProblem::Nested { .. } => "json-nested",
            TextProblem::RepeatedName { .. } => "json-repeated-name",
            TextProblem::Encoding { .. } => "encoding",
        }
    }

    /// What is wrong and what to do, in Chinese.
    pub fn zh(&self) -> String {
        match self {
            TextProblem::BeyondHeader { expected, found } => format!(
                "表头有 {expected} 列，本行到 {} 列还有内容；请为该列补上列名，或清除多余的单元格（表头占两行时请合为一行）",
                letters(*found)
            ),
            TextProblem::TooLong => "本行超过 1 MiB；请检查单元格内容，或缺少的引号、括号".into(),
            TextProblem::ErrorCell { column } => format!(
                "{} 列的公式出错（如 #N/A、#REF!）或从未计算过；请打开文件，更正公式或改为填写数值，保存后重新交付",
                letters(*column)
            ),
            TextProblem::MergedCell { column } => format!(
                "{} 列等单元格与上方合并，本行没有自己的内容；请取消合并单元格，在每一行填写内容",
                letters(*column)
            ),
            TextProblem::DamagedCell => {
                "本行或相邻行有单元格已损坏，无法读取；请打开文件核对，另存后重新交付".into()
            }
            TextProblem::Syntax => "本条记录不是有效的 JSON；请从原系统重新导出".into(),
            TextProblem::Cut => "文件在本条记录中间结束，可能没有传完；请重新导出并交付".into(),
            TextProblem::NotAnObject => {
                "本条记录不是 JSON 对象；每条记录须写成 {\"列名\": 值, …}".into()
            }
            TextProblem::Nested { column } => {
                format!("第 {column} 个字段的值是嵌套的对象或数组；请展开为单个的值后重新导出")
            }
            TextProblem::RepeatedName { column } => {
                format!("第 {column} 个字段在本条记录中出现两次；请只保留一个")
            }
            TextProblem::Encoding { encoding } => format!(
                "本条记录含有不属于 {encoding} 编码的字节；请从原系统重新导出，或用 --encoding 指定编码"
            ),
        }
    }

    /// What is wrong and what to do, in English.
    pub fn en(&self) -> String {
        match self {
            TextProblem::BeyondHeader { expected, found } => format!(
                "the header has {expected} columns, and this row is filled up to column {}; give that column a label, or clear the cells (of a header of two lines make one)",
                letters(*found)
            ),
            TextProblem::TooLong => {
                "the row is longer than 1 MiB; look at its cells, or for a missing quote or bracket"
                    .into()
            }
            TextProblem::ErrorCell { column } => format!(
                "the formula in column {} failed (as #N/A or #REF!) or was never computed; open the file, mend the formula or enter the value, save it and deliver it again",
                letters(*column)
            ),
            TextProblem::MergedCell { column } => format!(
                "column {} (and maybe others) is merged with the cells above it, so the row has no value of its own there; unmerge the cells and fill in each row",
                letters(*column)
            ),
            TextProblem::DamagedCell => {
                "a cell of this row or of the one beside it is damaged and cannot be read; open the file, check it, save it again and deliver that".into()
            }
            TextProblem::Syntax => {
                "this record is not valid JSON; export the file again from its system".into()
            }
            TextProblem::Cut => {
                "the file ends within this record and may not be whole; export and deliver it again"
                    .into()
            }
            TextProblem::NotAnObject => {
                "this record is not a JSON object; write each as {\"label\": value, …}".into()
            }
            TextProblem::Nested { column } => format!(
                "the value of field {column} is an object or an array; export single values"
            ),
            TextProblem::RepeatedName { column } => {
                format!("field {column} occurs twice in this record; keep one of them")
            }
            TextProblem::Encoding { encoding } => format!(
                "this record has bytes that are not {encoding}; export the file again, or name its encoding with --encoding"
            ),
        }
    }
}

/// A column's letters in a spreadsheet.
fn letters(mut column: usize) -> String {
    let mut letters = Vec::new();
    while column > 0 {
        column -= 1;
        // Below 26, so it fits.
        letters.push(b'A' + (column % 26) as u8);
        column /= 26;
    }
    letters.iter().rev().map(|letter| char::from(*letter)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_have_the_letters_of_a_spreadsheet() {
        for (column, expected) in
            [(1, "A"), (26, "Z"), (27, "AA"), (52, "AZ"), (703, "AAA"), (16_384, "XFD")]
        {
            assert_eq!(letters(column), expected);
        }
    }
}
