//! What a delivery's text becomes in a field: section 5 of `protocol/SPEC.md`, as far as
//! it changes a value or refuses one. What only warns is not here.

use unicode_normalization::UnicodeNormalization as _;

use super::{
    Checked, Refused, ensure,
    record::{Value, is_blank, is_canonical_decimal, is_format, is_of_calendar},
};

/// White space aside, what stands for a day that never comes.
const NO_END: [&str; 11] = [
    "长期",
    "长期有效",
    "至长期",
    "永久",
    "永久有效",
    "永久性",
    "无期限",
    "无限期",
    "无固定期限",
    "无固定期",
    "无截止日期",
];
const NUMBER_BYTES_MAX: usize = 128;
/// The letters of a code of GB 32100-2015, and those that it begins with.
const USCC_FIRST: &str = "123456789ANY";
const USCC_LETTERS: &[u8] = b"0123456789ABCDEFGHJKLMNPQRTUWXY";

/// A field's rules.
#[derive(Debug, Clone, Default)]
pub struct Rule {
    pub kind: &'static str,
    pub required: bool,
    pub null_texts: Vec<&'static str>,
    pub legacy_codes: bool,
    /// `ymd`, `dmy` or `mdy`.
    pub date_order: &'static str,
    pub open_end: Option<(u16, u8, u8)>,
}

/// The value that a text becomes.
pub fn value(rule: &Rule, text: &str) -> Checked<Value> {
    let is_kept = |c: char| !c.is_control() || matches!(c, '\t' | '\r' | '\n');
    ensure(text.chars().all(is_kept), "a control character")?;
    let text = if rule.kind == "text" { text.to_owned() } else { cleaned(text) };
    let is_null = rule.null_texts.iter().any(|null| bare(null) == bare(&text));
    if text.is_empty() || is_null {
        ensure(!rule.required, "nothing where something is required")?;
        return Ok(Value::Null);
    }
    ensure(!rule.required || !is_blank(&text), "a required field that shows nothing")?;
    match rule.kind {
        "text" => Ok(Value::Text(text)),
        "code" => Ok(Value::Text(code(text)?)),
        "uscc" => uscc(rule, code(text)?),
        "integer" => integer(&text),
        "decimal" => decimal(&text),
        _ => date(rule, &text),
    }
}

/// As a text is compared with those that are null.
fn bare(text: &str) -> String {
    let text: String = text.chars().filter(|c| !is_format(*c)).nfkc().collect();
    text.trim().to_ascii_lowercase()
}

fn cleaned(text: &str) -> String {
    let mut text: String = text.chars().filter(|c| !is_format(*c)).nfkc().collect();
    loop {
        let trimmed = text.trim();
        let next = without_marks(trimmed).unwrap_or_else(|| trimmed.to_owned());
        if next == text {
            return text;
        }
        text = next;
    }
}

/// Without what a sheet puts around a text that it must not read as a number.
fn without_marks(text: &str) -> Option<String> {
    let quoted = text.strip_prefix("=\"").and_then(|rest| rest.strip_suffix('"'));
    let marked = || text.strip_prefix('\'').filter(|rest| !rest.contains('\''));
    quoted.map(|inner| inner.replace("\"\"", "\"")).or_else(|| marked().map(str::to_owned))
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_zeros(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte == b'0')
}

fn code(text: String) -> Checked<String> {
    ensure(!text.contains(['\t', '\r', '\n']), "a line or a column inside")?;
    ensure(!has_lost_digits(&text), "a number with an exponent")?;
    Ok(match text.split_once('.') {
        Some((whole, zeros)) if whole.len() >= 4 && is_digits(whole) && is_zeros(zeros) => {
            whole.to_owned()
        }
        _ => text,
    })
}

/// Whether it is a number with an exponent that has a fraction, or a sign in front of
/// the exponent.
fn has_lost_digits(text: &str) -> bool {
    let Some((number, exponent)) = text.split_once(['e', 'E']) else { return false };
    let number = number.strip_prefix(['+', '-']).unwrap_or(number);
    let (whole, fraction) = match number.split_once(['.', ',']) {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (number, None),
    };
    let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    let is_one = is_digits(whole)
        && fraction.is_none_or(is_digits)
        && is_digits(digits)
        && digits.len() <= 3;
    is_one && (fraction.is_some() || digits.len() < exponent.len())
}

fn uscc(rule: &Rule, code: String) -> Checked<Value> {
    let code = code.to_ascii_uppercase();
    let legacy = code.len() == 15 && is_digits(&code);
    ensure(!legacy || rule.legacy_codes, "an old code")?;
    let lettered = code.len() == 18 && code.bytes().all(|byte| USCC_LETTERS.contains(&byte));
    let is_one = lettered && code.starts_with(|c| USCC_FIRST.contains(c)) && is_digits(&code[2..8]);
    ensure(legacy || is_one, "no code of an organisation")?;
    let rounded = lettered && is_digits(&code) && code.ends_with("000");
    ensure(!rounded || is_checked(code.as_bytes()), "a code that a sheet has rounded")?;
    Ok(Value::Text(code))
}

/// GB 32100-2015: the weights are the powers of 3, and the sum is a multiple of 31.
fn is_checked(code: &[u8]) -> bool {
    let mut weight = 1;
    let mut sum = 0;
    for (place, letter) in code.iter().enumerate() {
        let number = USCC_LETTERS.iter().position(|other| other == letter).unwrap_or_default();
        sum += number * if place == 17 { 1 } else { weight };
        weight = weight * 3 % 31;
    }
    sum % 31 == 0
}

/// The sign, and the digits in front of the point and behind it.
fn number(text: &str) -> Checked<(bool, String, String)> {
    ensure(text.len() <= NUMBER_BYTES_MAX, "a number that is too long")?;
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (whole, fraction) = match unsigned.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (unsigned, None),
    };
    let mut groups = whole.split(',');
    let first = groups.next().unwrap_or_default();
    let grouped = whole.contains(',');
    let well = (is_digits(first) && (!grouped || first.len() <= 3)
        || whole.is_empty() && fraction.is_some())
        && groups.all(|group| group.len() == 3 && is_digits(group))
        && fraction.is_none_or(|fraction| is_digits(fraction) || fraction.is_empty())
        && unsigned != ".";
    ensure(well, "no number")?;
    Ok((text.starts_with('-'), whole.replace(',', ""), fraction.unwrap_or_default().to_owned()))
}

fn integer(text: &str) -> Checked<Value> {
    let (negative, whole, fraction) = number(text)?;
    ensure(!text.ends_with('.'), "a point without zeros")?;
    ensure(!whole.is_empty() && fraction.bytes().all(|byte| byte == b'0'), "no integer")?;
    let signed = format!("{}{whole}", if negative { "-" } else { "" });
    signed.parse().map(Value::Integer).map_err(|_| Refused("beyond 64 bits"))
}

fn decimal(text: &str) -> Checked<Value> {
    let (negative, whole, fraction) = number(text)?;
    let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
    let whole = if whole.is_empty() { "0" } else { whole };
    let point = if fraction.is_empty() { "" } else { "." };
    let sign = if negative && (whole != "0" || !fraction.is_empty()) { "-" } else { "" };
    let spelled = format!("{sign}{whole}{point}{fraction}");
    ensure(is_canonical_decimal(&spelled), "too many digits")?;
    Ok(Value::Decimal(spelled))
}

fn date(rule: &Rule, text: &str) -> Checked<Value> {
    let read = day_in_front(rule, text).and_then(|(day, behind, is_number)| {
        let zeros = behind.strip_prefix('.').is_some_and(is_zeros);
        let is_midnight =
            if behind.is_empty() || is_number && zeros { true } else { time(behind)? };
        Some((day, is_midnight))
    });
    if let Some((year, month, day)) = rule.open_end {
        let solid: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        if NO_END.contains(&&solid[..]) || read.is_some_and(|((year, ..), _)| year == 9999) {
            return Ok(Value::Date { year, month, day });
        }
    }
    let ((year, month, day), is_midnight) = read.ok_or(Refused("no date"))?;
    ensure(is_midnight, "another time of day")?;
    ensure(is_of_calendar(year, month, day), "no day of the calendar")?;
    Ok(Value::Date { year, month, day })
}

type Day = (u16, u8, u8);

/// The day in front of a text, what is behind it, and whether it is one of 8 digits.
fn day_in_front<'a>(rule: &Rule, text: &'a str) -> Option<(Day, &'a str, bool)> {
    let all = digits_in_front(text);
    if all.len() == 8 {
        let day = (all[..4].parse().ok()?, all[4..6].parse().ok()?, all[6..].parse().ok()?);
        return Some((day, &text[8..], true));
    }
    let rest = &text[all.len()..];
    let mark = rest.chars().next()?;
    let second = digits_in_front(&rest[mark.len_utf8()..]);
    let rest = &rest[mark.len_utf8() + second.len()..];
    let (next, rest) = if mark == '年' { ('月', rest) } else { (mark, rest) };
    let rest = rest.strip_prefix(next)?;
    let third = digits_in_front(rest);
    let rest = &rest[third.len()..];
    let rest = if mark == '年' { rest.strip_prefix('日')? } else { rest };
    let short = |part: &str| (1..=2).contains(&part.len());
    let (year, month, day) = match (rule.date_order, mark) {
        (_, '-' | '/' | '.' | '年') if all.len() == 4 && short(second) && short(third) => {
            (all, second, third)
        }
        ("dmy", '-' | '/' | '.') if short(all) && short(second) && third.len() == 4 => {
            (third, second, all)
        }
        ("mdy", '-' | '/' | '.') if short(all) && short(second) && third.len() == 4 => {
            (third, all, second)
        }
        _ => return None,
    };
    Some(((year.parse().ok()?, month.parse().ok()?, day.parse().ok()?), rest, false))
}

fn digits_in_front(text: &str) -> &str {
    let rest = text.trim_start_matches(|c: char| c.is_ascii_digit());
    &text[..text.len() - rest.len()]
}

/// Whether a time of day is midnight; none if it is none.
fn time(behind: &str) -> Option<bool> {
    let spaced = behind.trim_start_matches(' ');
    let rest = if spaced.len() < behind.len() { spaced } else { behind.strip_prefix('T')? };
    let hours = digits_in_front(rest);
    let (minutes, rest) = two_digits(rest[hours.len()..].strip_prefix(':')?)?;
    let (seconds, rest) = match rest.strip_prefix(':') {
        Some(rest) => two_digits(rest)?,
        None => ("", rest),
    };
    let (fraction, rest) = match rest.strip_prefix('.').filter(|_| !seconds.is_empty()) {
        Some(rest) => rest.split_at(digits_in_front(rest).len()),
        None => ("0", rest),
    };
    let zone =
        |zone: &str| zone.len() <= 5 && zone.bytes().all(|b| b.is_ascii_digit() || b == b':');
    let is_one = (1..=2).contains(&hours.len())
        && !fraction.is_empty()
        && (matches!(rest, "" | "Z") || rest.strip_prefix(['+', '-']).is_some_and(zone));
    is_one.then(|| [hours, minutes, seconds, fraction].concat().bytes().all(|b| b == b'0'))
}

fn two_digits(text: &str) -> Option<(&str, &str)> {
    let (two, rest) = text.split_at_checked(2)?;
    is_digits(two).then_some((two, rest))
}
