//! What a value may run into, and what is said about it in both languages.
//!
//! Used by every check of `validate` and by whoever reports an issue. Invariant:
//! each rule has a stable name and says what is wrong and what to do next. Not
//! here: when a rule applies, and what of the value is shown ([`super::issue`]).

use protocol::{
    record::{KEY_BYTES_MAX, RECORD_BYTES_MAX},
    uscc::Impossible,
};

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
    /// A day that the calendar does not have.
    DateImpossible,
    /// More characters than the standard allows.
    LengthMax {
        /// How many it allows.
        max: u32,
    },
    /// Not among the values that the standard lists.
    Values,
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
            Rule::DateFormat => "date-format",
            Rule::DateImpossible => "date-impossible",
            Rule::LengthMax { .. } => "length-max",
            Rule::Values => "values",
            Rule::ScaleMax { .. } => "scale-max",
            Rule::KeyTooLong => "key-too-long",
            Rule::RecordTooLong => "record-too-long",
            Rule::CitizenId => "citizen-id",
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
                        format!("第 {at} 位的“{found}”不会出现在该位置")
                    }
                    Impossible::Authority(found) => {
                        format!("首位“{found}”不是任何登记管理部门的代码")
                    }
                };
                format!("不是统一社会信用代码（GB 32100）：{why}；请按营业执照核对")
            }
            Rule::UsccCheck { expected } => format!(
                "统一社会信用代码校验位不符（GB 32100 计算结果为“{expected}”）；请按营业执照核对，确实如此核发的可忽略"
            ),
            Rule::UsccLegacy => "这是 15 位旧注册号，不是统一社会信用代码；请换为 18 位代码".into(),
            Rule::Integer => "不是整数；请只填数字，例如 15800 或 15,800".into(),
            Rule::Decimal => {
                "不是数值；请只填数字和小数点，不带单位，例如 15800.50，最多 38 位".into()
            }
            Rule::DateFormat => {
                "不是可识别的日期（不含时刻）；请写成 2019-03-01，无日期请留空".into()
            }
            Rule::DateImpossible => "日历中没有这一天，请核对年月日".into(),
            Rule::LengthMax { max } => format!("超过标准规定的 {max} 个字符，请核对或缩写"),
            Rule::Values => "不在标准列出的取值之内，请改用标准取值".into(),
            Rule::ScaleMax { max } => format!("小数位超过标准规定的 {max} 位，请核对单位与精度"),
            Rule::KeyTooLong => {
                format!("主键字段合计超过 {KEY_BYTES_MAX} 字节，请核对是否串列")
            }
            Rule::RecordTooLong => {
                format!("整行内容超过 {} KiB，请缩短长文本", RECORD_BYTES_MAX / 1024)
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
                "is no unified social credit code (GB 32100): it {why}; compare it with the business licence"
            ),
            Rule::UsccCheck { expected } => format!(
                "the check character differs from GB 32100, which computes '{expected}': compare it with the business licence; ignore this if it was issued like that"
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
            Rule::DateImpossible => "the calendar has no such day: check year, month and day".into(),
            Rule::LengthMax { max } => {
                format!("is longer than the {max} characters of the standard: check or shorten it")
            }
            Rule::Values => "is not among the values of the standard: use one of those".into(),
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
            Rule::CitizenId => {
                "the text contains a citizen id: remove or mask it before it is published".into()
            }
        }
    }
}
