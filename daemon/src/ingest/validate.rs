//! One row's texts to a record, or why not.
//!
//! Used by the importer for every row, and by whoever shows a value that may be
//! personal ([`mask`]). Normalisation happens here and nowhere else; what comes
//! out is canonical bytes.
//!
//! Invariants: a record comes out exactly if no issue rejects the row; no issue
//! carries a personal value or a citizen id unmasked. Not here: how a row was
//! split (`decode`), and what a record does to the store.

use std::{borrow::Cow, collections::HashSet, ops::Range, sync::Arc};

use protocol::{
    record::{KEY_BYTES_MAX, RECORD_BYTES_MAX, Record, RecordError, encode_key},
    schema::{FieldType, Schema},
    uscc::{self, Impossible, Quality},
    value::{Date, Decimal, TEXT_BYTES_MAX, Value},
};
use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfkc_quick};

use super::map::Mapping;

/// Longest value shown in an issue, in characters: enough to find it, too
/// little to copy a register's contents into a report.
pub const SHOWN_CHARS_MAX: usize = 80;
/// Longest spelling of a number in bytes. A decimal has 38 digits; with group
/// separators and a time's worth of zeros it stays far below.
const NUMBER_BYTES_MAX: usize = 128;

/// Whether an issue costs the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The row is not imported.
    Reject,
    /// The row is imported; somebody should look.
    Warning,
}

impl Severity {
    /// `reject` or `warning`.
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Reject => "reject",
            Severity::Warning => "warning",
        }
    }
}

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

/// One thing that is wrong with a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowIssue {
    /// Whether it costs the row.
    pub severity: Severity,
    /// The schema's field, or empty where it is the row as a whole.
    pub field: String,
    /// The value as delivered: masked if personal, at most
    /// [`SHOWN_CHARS_MAX`] characters.
    pub value: String,
    /// What it ran into.
    pub rule: Rule,
}

/// What became of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// The encoded key where it could be made, even of a rejected row: a full
    /// delivery must not delete a record whose row was merely rejected.
    pub key: Option<Vec<u8>>,
    /// The record's canonical bytes, or none if the row is rejected.
    pub record: Option<Vec<u8>>,
    /// Everything that is wrong, in the file's column order.
    pub issues: Vec<RowIssue>,
}

/// Checks the rows of one file. A copy, which costs little, does the same on
/// another thread.
#[derive(Debug, Clone)]
pub struct Validator {
    columns: Vec<usize>,
    key: Vec<usize>,
    fields: Arc<[FieldRules]>,
    /// Refilled for every row, so that texts keep their buffers. Fields without
    /// a column stay null.
    record: Record,
}

#[derive(Debug)]
struct FieldRules {
    name: String,
    kind: FieldType,
    in_key: bool,
    required: bool,
    personal: bool,
    strict: bool,
    legacy_codes: bool,
    length_max: Option<u32>,
    scale_max: Option<u32>,
    values: HashSet<String>,
}

impl Validator {
    /// Rules of `schema` for a file with the columns of `mapping`.
    pub fn new(schema: &Schema, mapping: &Mapping) -> Self {
        Self::with_columns(schema, mapping.columns().to_vec())
    }

    /// Rules of `schema` for rows whose columns are these fields.
    fn with_columns(schema: &Schema, columns: Vec<usize>) -> Self {
        let rules = |(index, field): (usize, &protocol::schema::Field)| FieldRules {
            name: field.name.clone(),
            kind: field.kind,
            in_key: schema.key().contains(&index),
            required: field.required,
            personal: field.personal,
            strict: field.strict,
            legacy_codes: field.legacy_codes,
            length_max: field.length_max,
            scale_max: field.scale_max,
            values: field.values.iter().cloned().collect(),
        };
        Self {
            columns,
            key: schema.key().to_vec(),
            fields: schema.fields().iter().enumerate().map(rules).collect(),
            record: Record {
                schema_version: schema.version(),
                values: vec![Value::Null; schema.fields().len()],
            },
        }
    }

    /// The same rules for rows whose columns are these fields.
    pub fn for_columns(&self, columns: &[usize]) -> Self {
        Self { columns: columns.to_vec(), ..self.clone() }
    }

    /// Checks one row; `texts` are its fields in the file's column order.
    pub fn row<'a>(&mut self, texts: impl IntoIterator<Item = &'a str>) -> Checked {
        let mut issues = Vec::new();
        let mut texts = texts.into_iter();
        let mut key_known = true;
        for &index in &self.columns {
            let text = texts.next().unwrap_or("");
            let rules = &self.fields[index];
            let found = rules.fill(text, &mut self.record.values[index], &mut issues);
            key_known &= found || !rules.in_key;
        }
        let key = if key_known {
            encode_key(self.key.iter().map(|&index| &self.record.values[index]))
                .map_err(|error| issues.push(row_issue(error)))
                .ok()
        } else {
            None
        };
        let record = if issues.iter().any(|issue| issue.severity == Severity::Reject) {
            None
        } else {
            self.record.encode().map_err(|error| issues.push(row_issue(error))).ok()
        };
        Checked { key, record, issues }
    }
}

/// The encoded key that these texts make, one a key field of `schema` in key
/// order; missing ones are empty. None where they cannot be a key.
pub fn key_of<'a>(schema: &Schema, texts: impl IntoIterator<Item = &'a str>) -> Option<Vec<u8>> {
    Validator::with_columns(schema, schema.key().to_vec()).row(texts).key
}

/// The value that a text makes in a field of `schema`, by the rules of that
/// field. None where it makes none.
pub(super) fn value_of(schema: &Schema, field: usize, text: &str) -> Option<Value> {
    let validator = Validator::with_columns(schema, vec![field]);
    let mut value = Value::Null;
    validator.fields[field].fill(text, &mut value, &mut Vec::new()).then_some(value)
}

/// A record's own limits, as an issue of the whole row.
pub(super) fn row_issue(error: RecordError) -> RowIssue {
    RowIssue {
        severity: Severity::Reject,
        field: String::new(),
        value: String::new(),
        rule: match error {
            RecordError::KeyTooLong => Rule::KeyTooLong,
            RecordError::RecordTooLong => Rule::RecordTooLong,
        },
    }
}

impl FieldRules {
    /// Puts the text's value into `value`; says whether there is one (null is
    /// one where the field is optional). A value may be found and the row
    /// nevertheless be rejected, in which case its key is still known.
    fn fill(&self, text: &str, value: &mut Value, issues: &mut Vec<RowIssue>) -> bool {
        let mut issue = |severity: Severity, rule: Rule| {
            issues.push(RowIssue {
                severity,
                field: self.name.clone(),
                value: self.shown(text),
                rule,
            });
        };
        // No record holds more, and normalising could make it longer still.
        if text.len() > TEXT_BYTES_MAX {
            *value = Value::Null;
            issue(Severity::Reject, Rule::RecordTooLong);
            return false;
        }
        if has_control(text) {
            *value = Value::Null;
            issue(Severity::Reject, Rule::ControlCharacter);
            return false;
        }
        let unless_strict = if self.strict { Severity::Reject } else { Severity::Warning };
        match self.fill_kind(text, value, unless_strict, &mut issue) {
            Ok(()) => {}
            Err(rule) => {
                *value = Value::Null;
                issue(Severity::Reject, rule);
                return false;
            }
        }
        if self.required && is_blank(value) {
            issue(Severity::Reject, Rule::Required);
            return false;
        }
        if *value == Value::Null {
            return true;
        }
        if let Some(max) = self.length_max
            && self.kind != FieldType::Date
            && longer_than(&value.canonical_text(), max)
        {
            issue(unless_strict, Rule::LengthMax { max });
        }
        if !self.values.is_empty() && !self.values.contains(value.canonical_text().as_ref()) {
            issue(unless_strict, Rule::Values);
        }
        if self.kind == FieldType::Text
            && !self.personal
            && let Some(id) = citizen_id(text.as_bytes(), 0)
        {
            issues.push(RowIssue {
                severity: Severity::Warning,
                field: self.name.clone(),
                value: mask(&text[id]),
                rule: Rule::CitizenId,
            });
        }
        true
    }

    fn fill_kind(
        &self,
        text: &str,
        value: &mut Value,
        unless_strict: Severity,
        issue: &mut impl FnMut(Severity, Rule),
    ) -> Result<(), Rule> {
        if self.kind == FieldType::Text {
            set_text(value, text);
            return Ok(());
        }
        let folded = fold(text);
        let text = folded.trim();
        if text.is_empty() {
            *value = Value::Null;
            return Ok(());
        }
        match self.kind {
            FieldType::Text => set_text(value, text),
            FieldType::Code => {
                // Line breaks and tabs are let through above for texts only.
                if text.bytes().any(|byte| byte.is_ascii_control()) {
                    return Err(Rule::ControlCharacter);
                }
                set_text(value, text);
            }
            FieldType::Uscc => {
                set_text(value, text);
                if let Value::Text(code) = value {
                    code.make_ascii_uppercase();
                    match uscc::judge(code).map_err(Rule::UsccImpossible)? {
                        Quality::Valid => {}
                        Quality::CheckFailed { expected } => {
                            issue(unless_strict, Rule::UsccCheck { expected });
                        }
                        Quality::Legacy if self.legacy_codes => {
                            issue(Severity::Warning, Rule::UsccLegacy);
                        }
                        Quality::Legacy => issue(Severity::Reject, Rule::UsccLegacy),
                    }
                }
            }
            FieldType::Integer => {
                let number = ungrouped(text).and_then(|digits| digits.parse().ok());
                *value = Value::Integer(number.ok_or(Rule::Integer)?);
            }
            FieldType::Decimal => {
                let number = ungrouped(text).and_then(|digits| Decimal::parse(&digits));
                let number = number.ok_or(Rule::Decimal)?;
                if let Some(max) = self.scale_max
                    && number.scale() > max as usize
                {
                    issue(unless_strict, Rule::ScaleMax { max });
                }
                *value = Value::Decimal(number);
            }
            FieldType::Date => *value = Value::Date(date(text)?),
        }
        Ok(())
    }

    fn shown(&self, text: &str) -> String {
        if self.personal { mask(text) } else { shown(text) }
    }
}

/// Hides a personal value: at most its first four characters and never more
/// than a third of it stay.
pub fn mask(text: &str) -> String {
    // What lies beyond the limit is neither counted nor shown.
    let count = text.chars().take(SHOWN_CHARS_MAX).count();
    let kept = (count / 3).min(4);
    text.chars().take(kept).map(printable).chain(std::iter::repeat_n('*', count - kept)).collect()
}

/// A value that is not personal, shortened, with citizen ids masked.
fn shown(text: &str) -> String {
    // An id that the limit would cut is still recognised.
    let end = text.char_indices().nth(SHOWN_CHARS_MAX + 18).map_or(text.len(), |(at, _)| at);
    let mut rest = &text[..end];
    let mut out = String::new();
    while let Some(id) = citizen_id(rest.as_bytes(), 0) {
        out.push_str(&rest[..id.start]);
        out.push_str(&mask(&rest[id.clone()]));
        rest = &rest[id.end..];
    }
    out.push_str(rest);
    out.chars().take(SHOWN_CHARS_MAX).map(printable).collect()
}

/// Control characters as the pictures that Unicode has for them.
fn printable(character: char) -> char {
    match u32::from(character) {
        code @ 0..0x20 => char::from_u32(0x2400 + code).unwrap_or(' '),
        0x7f..0xa0 => '\u{2421}',
        _ => character,
    }
}

fn set_text(value: &mut Value, text: &str) {
    if text.is_empty() {
        *value = Value::Null;
    } else if let Value::Text(buffer) = value {
        buffer.clear();
        buffer.push_str(text);
    } else {
        *value = Value::Text(text.to_owned());
    }
}

fn is_blank(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Text(text) => text.trim_start().is_empty(),
        _ => false,
    }
}

fn longer_than(text: &str, max: u32) -> bool {
    // Characters are never more than bytes.
    text.len() > max as usize && text.chars().count() > max as usize
}

/// Control characters other than tab, CR and LF. All of them are one byte in
/// UTF-8, or two that begin with C2, as few others do.
fn has_control(text: &str) -> bool {
    let suspicious = text.bytes().fold(false, |found, byte| {
        found
            | (byte < 0x20 && !matches!(byte, b'\t' | b'\r' | b'\n'))
            | (byte == 0x7f)
            | (byte == 0xc2)
    });
    suspicious && text.chars().any(|c| c.is_control() && !matches!(c, '\t' | '\r' | '\n'))
}

/// Unicode NFKC: full-width digits and letters become plain ones.
fn fold(text: &str) -> Cow<'_, str> {
    if text.is_ascii() || is_nfkc_quick(text.chars()) == IsNormalized::Yes {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(text.nfkc().collect())
    }
}

/// A number without its thousands separators, which have to stand between
/// groups of three digits in front of the point.
fn ungrouped(text: &str) -> Option<Cow<'_, str>> {
    if text.len() > NUMBER_BYTES_MAX {
        return None;
    }
    if !text.contains(',') {
        return Some(Cow::Borrowed(text));
    }
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = whole.trim_start_matches(['+', '-']);
    let mut groups = digits.split(',');
    let first = groups.next()?;
    let sound = (1..=3).contains(&first.len())
        && groups.all(|group| group.len() == 3)
        && !fraction.contains(',');
    sound.then(|| Cow::Owned(text.replace(',', "")))
}

/// A day in one of the accepted spellings, with or without midnight behind it.
fn date(text: &str) -> Result<Date, Rule> {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let number = |text: &str| text.parse::<u16>().map_err(|_| Rule::DateFormat);
    let (year, month, day, rest) = match digits(text) {
        8 => (&text[..4], &text[4..6], &text[6..8], &text[8..]),
        4 => {
            let (year, rest) = text.split_at(4);
            let mark = rest.chars().next().ok_or(Rule::DateFormat)?;
            let (mark_2, mark_3) = match mark {
                '-' | '/' | '.' => (mark, None),
                '年' => ('月', Some('日')),
                _ => return Err(Rule::DateFormat),
            };
            let rest = &rest[mark.len_utf8()..];
            let (month, rest) = rest.split_at(digits(rest));
            let rest = rest.strip_prefix(mark_2).ok_or(Rule::DateFormat)?;
            let (day, rest) = rest.split_at(digits(rest));
            let rest = match mark_3 {
                Some(mark) => rest.strip_prefix(mark).ok_or(Rule::DateFormat)?,
                None => rest,
            };
            if !(1..=2).contains(&month.len()) || !(1..=2).contains(&day.len()) {
                return Err(Rule::DateFormat);
            }
            (year, month, day, rest)
        }
        _ => return Err(Rule::DateFormat),
    };
    if !is_midnight(rest) {
        return Err(Rule::DateFormat);
    }
    // Two digits fit a byte.
    let (month, day) = (number(month)? as u8, number(day)? as u8);
    Date::new(number(year)?, month, day).ok_or(Rule::DateImpossible)
}

/// Nothing, or a time of day that databases print behind a day without one.
/// Another time would be lost, and is therefore not accepted.
fn is_midnight(rest: &str) -> bool {
    if rest.is_empty() {
        return true;
    }
    let time = match rest.strip_prefix('T') {
        Some(time) => time,
        None if rest.starts_with(' ') => rest.trim_start(),
        None => return false,
    };
    let Some(time) = time.strip_prefix("00:00").or_else(|| time.strip_prefix("0:00")) else {
        return false;
    };
    let mut zone = time;
    if let Some(after) = time.strip_prefix(":00") {
        zone = after;
        if let Some(fraction) = after.strip_prefix('.') {
            zone = fraction.trim_start_matches('0');
        }
    }
    match zone.as_bytes() {
        [] | [b'Z'] => true,
        [b'+' | b'-', zone @ ..] => {
            zone.len() <= 5 && zone.iter().all(|byte| byte.is_ascii_digit() || *byte == b':')
        }
        _ => false,
    }
}

/// The first citizen id of GB 11643 from `from` on: 18 digits, the last of
/// which may be an X, with a province, a plausible day of birth and the right
/// check digit, and no digit around it.
fn citizen_id(text: &[u8], from: usize) -> Option<Range<usize>> {
    let digit = |at: usize| text.get(at).is_some_and(u8::is_ascii_digit);
    // Seventeen digits in a row cannot avoid every seventeenth byte.
    let mut at = from + 16;
    while at < text.len() {
        if !digit(at) {
            at += 17;
            continue;
        }
        let (mut start, mut end) = (at, at);
        while start > from && digit(start - 1) {
            start -= 1;
        }
        while digit(end) {
            end += 1;
        }
        let with_x = matches!(text.get(end), Some(b'X' | b'x'))
            && !text.get(end + 1).is_some_and(u8::is_ascii_alphanumeric);
        let id = match end - start {
            17 if with_x => start..end + 1,
            18 => start..end,
            _ => start..start,
        };
        if is_citizen_id(&text[id.clone()]) {
            return Some(id);
        }
        at = end + 17;
    }
    None
}

fn is_citizen_id(id: &[u8]) -> bool {
    const WEIGHTS: [u32; 17] = [7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2];
    if id.len() != 18 {
        return false;
    }
    let number = |range: Range<usize>| {
        id[range].iter().fold(0u32, |sum, byte| sum * 10 + u32::from(byte - b'0'))
    };
    let province = matches!(
        number(0..2),
        11..=15 | 21..=23 | 31..=37 | 41..=46 | 50..=54 | 61..=65 | 71 | 81..=83
    );
    let year = number(6..10);
    let born = (1900..2100).contains(&year)
        && Date::new(year as u16, number(10..12) as u8, number(12..14) as u8).is_some();
    let sum: u32 = id.iter().zip(WEIGHTS).map(|(b, weight)| u32::from(b - b'0') * weight).sum();
    let check = b"10X98765432"[(sum % 11) as usize];
    province && born && id[17].to_ascii_uppercase() == check
}

#[cfg(test)]
#[path = "tests_validate.rs"]
mod tests;
