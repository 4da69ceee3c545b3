//! Spellings of days.
//!
//! Used for fields of the type `date`, after a text was folded and trimmed.
//! Invariants: a time of day other than midnight is refused and never dropped, but for
//! the year that means "never"; a day whose month cannot be told is refused unless the
//! dataset says the order.
//! Not here: which years are plausible.

use protocol::{schema::DateOrder, value::Date};

use super::{
    rule::Rule,
    traces::{all_digits, whole},
};

/// What people write where something has no end, without blanks.
const OPEN_ENDS: [&str; 11] = [
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
/// The year that databases write for "never", with any day and time of day:
/// `9999-99-99`, `9999-12-31 23:59:59`.
const OPEN_YEAR: u16 = 9999;

/// A text that has the form of a day.
pub(super) struct Written {
    year: u16,
    month: u8,
    day: u8,
    is_midnight: bool,
}

impl Written {
    /// The day, if there is one and nothing else is said.
    pub(super) fn day(&self) -> Result<Date, Rule> {
        if !self.is_midnight {
            return Err(Rule::DateFormat);
        }
        Date::new(self.year, self.month, self.day).ok_or(Rule::DateImpossible)
    }
}

/// Whether a text, or what it was read as, says that there is no end.
pub(super) fn is_open_end(text: &str, read: &Result<Written, Rule>) -> bool {
    if let Ok(written) = read {
        return written.year == OPEN_YEAR;
    }
    let bare: String = text.chars().filter(|character| !character.is_whitespace()).collect();
    OPEN_ENDS.contains(&&*bare)
}

/// A text in one of the accepted spellings of a day, with or without a time of day
/// behind it.
pub(super) fn read(text: &str, order: DateOrder) -> Result<Written, Rule> {
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
    if !one_or_two(month) || !one_or_two(day) {
        return Err(Rule::DateFormat);
    }
    let is_midnight = is_midnight(rest).ok_or(Rule::DateFormat)?;
    let number = |text: &str| text.parse::<u16>().map_err(|_| Rule::DateFormat);
    // Two digits fit a byte.
    let (month, day) = (number(month)? as u8, number(day)? as u8);
    Ok(Written { year: number(year)?, month, day, is_midnight })
}

/// Whether this is how a spreadsheet counts the days from 1927 to 2173, with or
/// without a time of day behind the point.
fn is_serial(text: &str) -> bool {
    let (days, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    days.len() == 5 && is_number(days) && is_number(fraction)
}

/// Whether what stands behind a day says nothing: it is empty, or midnight as databases
/// print it behind a day without one. None if it is no time of day at all.
fn is_midnight(rest: &str) -> Option<bool> {
    if rest.is_empty() {
        return Some(true);
    }
    let time = match rest.strip_prefix('T') {
        Some(time) => time,
        None => rest.strip_prefix(' ')?.trim_start_matches(' '),
    };
    let (hours, rest) = time.split_once(':')?;
    let (minutes, rest) = leading_digits(rest);
    let (seconds, fraction, zone) = match rest.strip_prefix(':').map(leading_digits) {
        None => ("00", "0", rest),
        Some((seconds, rest)) => match rest.strip_prefix('.').map(leading_digits) {
            None => (seconds, "0", rest),
            Some((fraction, zone)) => (seconds, fraction, zone),
        },
    };
    let is_one = all_digits(hours)
        && matches!(hours.len(), 1 | 2)
        && (minutes.len(), seconds.len()) == (2, 2)
        && !fraction.is_empty()
        && is_zone(zone);
    let is_zero = |digits: &str| digits.bytes().all(|digit| digit == b'0');
    is_one.then(|| [hours, minutes, seconds, fraction].into_iter().all(is_zero))
}

fn leading_digits(text: &str) -> (&str, &str) {
    text.split_at(text.bytes().take_while(u8::is_ascii_digit).count())
}

/// Nothing, `Z`, or what an offset from it is made of.
fn is_zone(text: &str) -> bool {
    match text.as_bytes() {
        [] | [b'Z'] => true,
        [b'+' | b'-', offset @ ..] => {
            offset.len() <= 5 && offset.iter().all(|byte| byte.is_ascii_digit() || *byte == b':')
        }
        _ => false,
    }
}
