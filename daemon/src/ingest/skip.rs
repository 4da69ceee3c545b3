//! Rows that are no data: blank ones, the header once more, totals, what stands below
//! a table.
//!
//! Used by `check` for every row, so what is cheap comes first. Invariant: a row
//! that has more than a word for a sum and numbers, or than a remark, is never skipped.

use std::sync::LazyLock;

use super::{
    map::{Beginnings, Mapping},
    rows::{Fields, is_reject_column},
};

/// What people write in front of sums.
const TOTALS: [&str; 12] = [
    "合计",
    "总计",
    "小计",
    "共计",
    "累计",
    "总合计",
    "本页合计",
    "本页小计",
    "total",
    "subtotal",
    "grandtotal",
    "sum",
];

/// What people write below a table, in front of a colon.
const FOOTERS: [&str; 24] = [
    "注",
    "备注",
    "说明",
    "附注",
    "填表人",
    "填报人",
    "制表人",
    "制表",
    "经办人",
    "审核人",
    "审核",
    "复核人",
    "负责人",
    "单位负责人",
    "联系人",
    "联系电话",
    "填表单位",
    "填报单位",
    "制表单位",
    "填表日期",
    "填报日期",
    "制表日期",
    "打印日期",
    "数据来源",
];

/// What they begin with.
static BEGINNINGS: LazyLock<Beginnings> =
    LazyLock::new(|| Beginnings::of(TOTALS.into_iter().chain(FOOTERS)));

/// Whether a row is to be skipped.
pub(super) fn is_no_data(mapping: &Mapping, fields: Fields<'_>) -> bool {
    match mapping.texts(fields).find(|text| !is_blank(text)) {
        // Also of columns that are passed over, but for what a rejects file says of a
        // row that a person has cleared.
        None => {
            let said = mapping.labels().iter().map(|label| is_reject_column(label));
            let said = said.chain(std::iter::repeat(false));
            fields.iter().zip(said).all(|(text, said)| said || is_blank(text))
        }
        Some(first) => {
            is_total(first) && others_are_numbers(mapping, fields)
                || is_footer(first) && is_alone(mapping, fields)
                || mapping.is_header(fields)
                || is_sum_of_no_key(mapping, fields)
        }
    }
}

/// Whether a row that is not skipped has a word for a sum as its key.
pub(super) fn has_total_as_key(mapping: &Mapping, fields: Fields<'_>) -> bool {
    mapping.key_texts(fields).any(is_total)
}

/// Whether a row without any key begins with a word for a sum, be it in a column
/// that is passed over, as a serial number is.
fn is_sum_of_no_key(mapping: &Mapping, fields: Fields<'_>) -> bool {
    mapping.key_texts(fields).all(is_blank)
        && others_are_numbers(mapping, fields)
        && fields.iter().find(|text| !is_blank(text)).is_some_and(is_total)
}

/// Whether all that a row has beside a word for a sum is what was counted: whatever
/// else it has may be a record, which must not go unseen.
fn others_are_numbers(mapping: &Mapping, fields: Fields<'_>) -> bool {
    /// Codes of digits have 12 and more.
    const NUMBER_BYTES_MAX: usize = 11;
    let is_number = |text: &str| {
        let text = text.trim();
        let bare = text.trim_end_matches(['条', '户', '家', '件', '个', '人', '元', '万', '%']);
        let digits = bare.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | ',' | ' '));
        digits && bare.len() <= NUMBER_BYTES_MAX
    };
    mapping.texts(fields).all(|text| is_blank(text) || is_total(text) || is_number(text))
}

/// Whether a row has hardly anything beside its first value. Of a table of one column
/// that cannot be said.
fn is_alone(mapping: &Mapping, fields: Fields<'_>) -> bool {
    let filled = mapping.texts(fields).filter(|text| !is_blank(text)).count();
    let is_free = |text: &str| is_blank(text) || is_footer(text);
    let alone = filled == 1 && mapping.places().len() > 1;
    alone || filled == 2 && mapping.key_texts(fields).all(is_free)
}

/// Whether a text is what people write below a table: `填表人：张三`.
fn is_footer(text: &str) -> bool {
    /// Bytes of the longest word in front of the colon, blanks included.
    const WORD_BYTES_MAX: usize = 40;
    if !BEGINNINGS.begin(text) {
        return false;
    }
    let Some((word, _)) = text.split_once([':', '：']) else { return false };
    let bare: String = word.chars().filter(|c| !c.is_whitespace()).collect();
    word.len() <= WORD_BYTES_MAX && FOOTERS.contains(&&*bare)
}

fn is_blank(text: &str) -> bool {
    text.chars().all(|c| c.is_whitespace() || matches!(c, '\0' | '\u{1a}' | '\u{feff}'))
}

/// Whether a text is a word for a sum, with or without a number behind it.
fn is_total(text: &str) -> bool {
    /// Bytes of the longest such text, blanks and a number included.
    const BYTES_MAX: usize = 64;
    if text.len() > BYTES_MAX || !BEGINNINGS.begin(text) {
        return false;
    }
    let bare = |c: &char| !c.is_whitespace();
    let folded: String = text.chars().filter(bare).flat_map(char::to_lowercase).collect();
    let word = folded.trim_end_matches(|c: char| {
        c.is_ascii_digit() || matches!(c, ':' | '：' | ',' | '.' | '，' | '条' | '户' | '家' | '元')
    });
    TOTALS.contains(&word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_below_a_table_begins_with_a_word_and_a_colon() {
        for footer in ["填表人：张三", "注: 以上数据", "审 核 人：", "数据来源：市局"]
        {
            assert!(is_footer(footer), "{footer}");
        }
        for other in ["注塑厂", "说明书印刷有限公司", "制表：", "填表人", "张三：注", ""]
        {
            assert_eq!(is_footer(other), other == "制表：", "{other}");
        }
    }

    #[test]
    fn totals_are_words_with_or_without_a_number() {
        for total in ["合计", "合 计", "总计：", "合计：3", "合计 3 条", "Total", "Grand Total: 12"]
        {
            assert!(is_total(total), "{total}");
        }
        for other in ["", "合计算术有限公司", "统计局", "3", "totals.", "会计师事务所", "sums"]
        {
            assert!(!is_total(other), "{other}");
        }
    }
}
