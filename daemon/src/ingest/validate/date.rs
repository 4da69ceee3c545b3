//! Spellings of days.
//!
//! Used for fields of the type `date`, after a text was folded and trimmed.
//! Invariant: a time of day other than midnight is refused and never dropped.

use protocol::value::Date;

use super::rule::Rule;

/// A day in one of the accepted spellings, with or without midnight behind it.
pub(super) fn date(text: &str) -> Result<Date, Rule> {
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
