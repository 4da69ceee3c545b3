//! Spellings of days.
//!
//! Used for fields of the type `date`, after a text was folded and trimmed.
//! Invariants: a time of day other than midnight is refused and never dropped; a
//! day whose month cannot be told is refused unless the dataset says the order.
//! Not here: which years are plausible.

use protocol::{schema::DateOrder, value::Date};

use super::{rule::Rule, traces::whole};

/// What people write where something has no end, without blanks.
const OPEN_ENDS: [&str; 13] = [
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
    "9999-99-99",
    "99999999",
];
/// The year that databases write for "never".
const OPEN_YEAR: u16 = 9999;
/// Bytes of a day of the year 9999 in front of a time of day, which means nothing
/// there: `9999-12-31 23:59:59`.
const DAY_BYTES: usize = 10;

/// Whether a text, or the day that it was read as, says that there is no end.
pub(super) fn is_open_end(text: &str, day: &Result<Date, Rule>) -> bool {
    if let Ok(day) = day {
        return day.parts().0 == OPEN_YEAR;
    }
    let bare: String = text.chars().filter(|character| !character.is_whitespace()).collect();
    let day = || date(text.get(..DAY_BYTES)?, DateOrder::Ymd).ok();
    OPEN_ENDS.contains(&&*bare) || day().is_some_and(|day| day.parts().0 == OPEN_YEAR)
}

/// A day in one of the accepted spellings, with or without midnight behind it.
pub(super) fn date(text: &str, order: DateOrder) -> Result<Date, Rule> {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let (year, month, day, rest) = match digits(text) {
        // What a program writes that took the day for a number.
        8 if whole(&text[8..]).is_empty() => (&text[..4], &text[4..6], &text[6..8], ""),
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
            (year, month, day, rest)
        }
        1 | 2 => {
            let (first, rest) = text.split_at(digits(text));
            let mark = rest.chars().next().filter(|mark| matches!(mark, '-' | '/' | '.'));
            let mark = mark.ok_or(Rule::DateFormat)?;
            let rest = &rest[1..];
            let (second, rest) = rest.split_at(digits(rest));
            let rest = rest.strip_prefix(mark).ok_or(Rule::DateFormat)?;
            if digits(rest) != 4 {
                return Err(Rule::DateFormat);
            }
            let (year, rest) = rest.split_at(4);
            match order {
                DateOrder::Ymd => return Err(Rule::DateOrder),
                DateOrder::Dmy => (year, second, first, rest),
                DateOrder::Mdy => (year, first, second, rest),
            }
        }
        5 if is_serial(text) => return Err(Rule::DateSerial),
        _ => return Err(Rule::DateFormat),
    };
    let one_or_two = |part: &str| (1..=2).contains(&part.len());
    if !one_or_two(month) || !one_or_two(day) || !is_midnight(rest) {
        return Err(Rule::DateFormat);
    }
    let number = |text: &str| text.parse::<u16>().map_err(|_| Rule::DateFormat);
    // Two digits fit a byte.
    let (month, day) = (number(month)? as u8, number(day)? as u8);
    Date::new(number(year)?, month, day).ok_or(Rule::DateImpossible)
}

/// Whether this is how a spreadsheet counts the days from 1927 to 2173, with or
/// without a time of day behind the point.
fn is_serial(text: &str) -> bool {
    let (days, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    days.len() == 5 && is_number(days) && is_number(fraction)
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
