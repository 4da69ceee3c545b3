//! What a value may run into, and what is said about it in both languages.
//!
//! Used by every check of `validate` and by whoever reports an issue. Invariant:
//! each rule has a stable name and says what is wrong and what to do next. Not
//! here: when a rule applies, and what of the value is shown ([`super::issue`]).

use std::sync::Arc;

use protocol::{
    record::{KEY_BYTES_MAX, RECORD_BYTES_MAX},
    schema::Years,
    text::{visible, visible_within},
    uscc::Impossible,
};

/// Listed values that a message names: more do not fit a line, and `dataset show`
/// has them all.
const LISTED_MAX: usize = 8;
/// Characters of each that it shows.
const LISTED_CHARS_MAX: usize = 40;
/// What to do about a number that a spreadsheet has spoilt.
const EXPORT_ZH: &str = "请从原系统重新导出，导出时把该列设为文本";
const EXPORT_EN: &str = "export it again from the original system, with this column as text";

/// What a value ran into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// A required field is empty.
    Required,
    /// A control character other than tab and line breaks in text.
    ControlCharacter,
    /// A text that cannot be a unified social credit code.
    UsccImpossible(Impossible),
    /// A credit code with another check character than GB 32100 computes.
    UsccCheck {
        /// The computed character.
        expected: char,
    },
    /// A 15-digit registration number from before 2015.
    UsccLegacy,
    /// No whole number of 64 bits.
    Integer,
    /// No decimal number of at most 38 digits.
    Decimal,
    /// In none of the accepted spellings of a day.
    DateFormat,
    /// The number by which a spreadsheet counts a day.
    DateSerial,
    /// A day that the calendar does not have.
    DateImpossible,
    /// Three numbers with the year at the end, where the dataset does not say which
    /// of the others is the month.
    DateOrder,
    /// A day outside of the years that the dataset expects.
    DateImplausible {
        /// Which years those are.
        years: Years,
    },
    /// A long number that a spreadsheet has written with an exponent: digits are
    /// lost.
    Scientific,
    /// A credit code of digits whose last three a spreadsheet has made zeros.
    UsccRounded,
    /// A code of 16 digits or more of which a spreadsheet may have made those
    /// behind the fifteenth zeros.
    CodeRounded,
    /// A character that stands for a lost one, or what comes of a wrong encoding.
    Mojibake {
        /// It is nothing else: private characters may have been meant.
        certain: bool,
    },
    /// More characters than the standard allows.
    LengthMax {
        /// How many it allows.
        max: u32,
    },
    /// Not among the values that the standard lists.
    Values {
        /// Those values, in the schema's order.
        listed: Arc<[String]>,
    },
    /// More digits behind the point than the standard allows.
    ScaleMax {
        /// How many it allows.
        max: u32,
    },
    /// The key fields together are above their limit.
    KeyTooLong,
    /// The row as a whole is above its limit.
    RecordTooLong,
    /// Free text contains a citizen id (GB 11643).
    CitizenId,
    /// A key is a word for a sum: a total that has more than sums, or a record without
    /// its key.
    TotalAsKey,
}

impl Rule {
    /// A stable name, kebab-case.
    pub fn code(&self) -> &'static str {
        match self {
            Rule::Required => "required",
            Rule::ControlCharacter => "control-character",
            Rule::UsccImpossible(_) => "uscc-impossible",
            Rule::UsccCheck { .. } => "uscc-check",
            Rule::UsccLegacy => "uscc-legacy",
            Rule::Integer => "integer",
            Rule::Decimal => "decimal",
            Rule::DateFormat | Rule::DateOrder | Rule::DateSerial => "date-format",
            Rule::DateImpossible => "date-impossible",
            Rule::DateImplausible { .. } => "date-implausible",
            Rule::Scientific => "scientific",
            Rule::UsccRounded => "uscc-rounded",
            Rule::CodeRounded => "code-rounded",
            Rule::Mojibake { .. } => "mojibake",
            Rule::LengthMax { .. } => "length-max",
            Rule::Values { .. } => "values",
            Rule::ScaleMax { .. } => "scale-max",
            Rule::KeyTooLong => "key-too-long",
            Rule::RecordTooLong => "record-too-long",
            Rule::CitizenId => "citizen-id",
            Rule::TotalAsKey => "total-as-key",
        }
    }

    /// What is wrong and what to do, in Chinese.
    pub fn zh(&self) -> String {
        match self {
            Rule::Required => "必填项为空，请补填".into(),
            Rule::ControlCharacter => "含有不可见的控制字符，请删除后重新导出".into(),
            Rule::UsccImpossible(why) => {
                let why = match why {
                    Impossible::Length(found) => format!("应为 18 位，实为 {found} 位"),
                    Impossible::Character(found, at) => {
                        format!("第 {at} 位的“{}”不会出现在该位置", seen(*found))
                    }
                    Impossible::Authority(found) => {
                        format!("首位“{}”不是任何登记管理部门的代码", seen(*found))
                    }
                };
                format!("不是统一社会信用代码（GB 32100）：{why}；请按营业执照核对")
            }
            Rule::UsccCheck { expected } => format!(
                "统一社会信用代码校验位不符（GB 32100 计算结果为“{expected}”）；请按营业执照核对，确实如此核发的可忽略；更正主键后，原代码的记录请用 creditsync record delete 删除"
            ),
            Rule::UsccLegacy => "这是 15 位旧注册号，不是统一社会信用代码；请换为 18 位代码".into(),
            Rule::Integer => "不是整数；请只填数字，例如 15800 或 15,800".into(),
            Rule::Decimal => {
                "不是数值；请只填数字和小数点，不带单位，例如 15800.50，最多 38 位".into()
            }
            Rule::DateFormat => {
                "不是可识别的日期（不含时刻）；请写成 2019-03-01，选填项没有日期可留空".into()
            }
            Rule::DateOrder => {
                "分不清日和月；请写成 2019-03-01，或请中心在数据集中用 date_order 说明顺序".into()
            }
            Rule::DateSerial => {
                "这是表格软件的日期序号，不是日期；请把该列设为日期格式后重新导出".into()
            }
            Rule::DateImpossible => "日历中没有这一天，请核对年月日".into(),
            Rule::DateImplausible { years } => {
                format!("日期不在 {} 年至 {} 年之间，请核对年份", years.from, years.to)
            }
            Rule::Scientific => format!("Excel 已把长数字改成科学计数法，后面的数字已经丢失；{EXPORT_ZH}"),
            Rule::UsccRounded => {
                format!("Excel 已把长数字四舍五入，第 15 位以后变成了 0；{EXPORT_ZH}")
            }
            Rule::CodeRounded => format!(
                "第 15 位以后全是 0，可能是 Excel 把长数字四舍五入了；请与原系统核对，如不符，{EXPORT_ZH}"
            ),
            Rule::Mojibake { .. } => {
                "含有乱码或外部无法识别的字符（替换字符、自造字或编码错误的痕迹）；请核对原文，用正确的编码重新导出".into()
            }
            Rule::LengthMax { max } => format!("超过标准规定的 {max} 个字符，请核对或缩写"),
            Rule::Values { listed } => {
                let (some, more) = first_of(listed);
                let more = if more { format!("……共 {} 个", listed.len()) } else { String::new() };
                format!("不在标准列出的取值之内，请改用标准取值：“{}”{more}", some.join("”“"))
            }
            Rule::ScaleMax { max } => format!("小数位超过标准规定的 {max} 位，请核对单位与精度"),
            Rule::KeyTooLong => {
                format!("主键字段合计超过 {KEY_BYTES_MAX} 字节，请核对是否串列")
            }
            Rule::RecordTooLong => {
                format!("整行内容超过 {} KiB，请缩短长文本", RECORD_BYTES_MAX / 1024)
            }
            Rule::TotalAsKey => {
                "主键是“合计”一类的字样，不是记录；合计行请删除，是记录的请填写主键".into()
            }
            Rule::CitizenId => "正文中含有公民身份号码；公开前请删除或遮盖".into(),
        }
    }

    /// What is wrong and what to do, in English.
    pub fn en(&self) -> String {
        match self {
            Rule::Required => "a required value is empty: fill it in".into(),
            Rule::ControlCharacter => {
                "contains an invisible control character: remove it and export again".into()
            }
            Rule::UsccImpossible(why) => format!(
                "is no unified social credit code (GB 32100): it {}; compare it with the business licence",
                visible(&why.to_string())
            ),
            Rule::UsccCheck { expected } => format!(
                "the check character differs from GB 32100, which computes '{expected}': compare it with the business licence; ignore this if it was issued like that; once a key is corrected, remove the record of the old code with 'creditsync record delete'"
            ),
            Rule::UsccLegacy => {
                "is a 15-digit registration number from before 2015: deliver the 18-character code"
                    .into()
            }
            Rule::Integer => "is no whole number: write digits only, as in 15800 or 15,800".into(),
            Rule::Decimal => {
                "is no number: write digits and a point without a unit, as in 15800.50, at most 38 digits".into()
            }
            Rule::DateFormat => {
                "is no day in a known spelling (without time of day): write 2019-03-01, or nothing".into()
            }
            Rule::DateOrder => {
                "does not tell day and month apart: write 2019-03-01, or have the hub name the order with date_order in the dataset".into()
            }
            Rule::DateSerial => {
                "the number by which a spreadsheet counts days, and no date: give the column a date format and export it again".into()
            }
            Rule::DateImpossible => "the calendar has no such day: check year, month and day".into(),
            Rule::DateImplausible { years } => {
                format!("lies outside the years {} to {}: check the year", years.from, years.to)
            }
            Rule::Scientific => {
                format!("a spreadsheet (Excel) has written this long number with an exponent, and its last digits are lost: {EXPORT_EN}")
            }
            Rule::UsccRounded => format!(
                "a spreadsheet (Excel) has rounded this long number, digits after the 15th became 0: {EXPORT_EN}"
            ),
            Rule::CodeRounded => format!(
                "all digits after the 15th are 0, so a spreadsheet (Excel) may have rounded it: compare it with the system that it comes from; if it differs, {EXPORT_EN}"
            ),
            Rule::Mojibake { .. } => {
                "contains characters that were lost, are private or come of a wrong encoding: compare it with the original, and export it again in the right encoding".into()
            }
            Rule::LengthMax { max } => {
                format!("is longer than the {max} characters of the standard: check or shorten it")
            }
            Rule::Values { listed } => {
                let (some, more) = first_of(listed);
                let more = if more { format!(" ... {} in all", listed.len()) } else { String::new() };
                format!(
                    "is not among the values of the standard: use one of '{}'{more}",
                    some.join("', '")
                )
            }
            Rule::ScaleMax { max } => {
                format!("has more than {max} digits behind the point: check unit and precision")
            }
            Rule::KeyTooLong => format!(
                "the key fields are longer than {KEY_BYTES_MAX} bytes together: check whether columns are shifted"
            ),
            Rule::RecordTooLong => format!(
                "the row is longer than {} KiB: shorten its long texts",
                RECORD_BYTES_MAX / 1024
            ),
            Rule::TotalAsKey => {
                "is a word for a sum, and no key: delete the row if it is a total, fill in the key if it is a record".into()
            }
            Rule::CitizenId => {
                "the text contains a citizen id: remove or mask it before it is published".into()
            }
        }
    }
}

/// The first listed values as a message shows them, and whether there are more.
fn first_of(listed: &[String]) -> (Vec<String>, bool) {
    let some = listed.iter().take(LISTED_MAX);
    let shown = some.map(|value| visible_within(value, LISTED_CHARS_MAX).into_owned()).collect();
    (shown, listed.len() > LISTED_MAX)
}

/// A character of a value as a message quotes it.
fn seen(character: char) -> String {
    visible(character.encode_utf8(&mut [0; 4])).into_owned()
}
