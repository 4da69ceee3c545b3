//! A field's value, its canonical bytes and its canonical text.
//!
//! `SPEC.md`, section "Values". What a county wrote becomes one of these in the
//! importer; from there on a value has one spelling only.

use std::{borrow::Cow, fmt};

use crate::encoding::{DecodeError, Reader, Writer};

/// Longest text value in bytes. A record as a whole has the same limit.
pub const TEXT_BYTES_MAX: usize = 64 * 1024;
/// Longest decimal in characters: a sign, the lone zero, a point and 38 digits.
pub const DECIMAL_CHARS_MAX: usize = 41;

/// One field of a record.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    /// Nothing was delivered. An empty text is delivered as this.
    Null,
    /// UTF-8, kept as delivered; never empty.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// A decimal number in its one spelling.
    Decimal(Decimal),
    /// A day.
    Date(Date),
}

pub(crate) const TAG_NULL: u8 = 0;
pub(crate) const TAG_TEXT: u8 = 1;
pub(crate) const TAG_INTEGER: u8 = 2;
pub(crate) const TAG_DECIMAL: u8 = 3;
pub(crate) const TAG_DATE: u8 = 4;

impl Value {
    /// A text, or null if it is empty.
    pub fn text(text: impl Into<String>) -> Self {
        let text = text.into();
        if text.is_empty() { Value::Null } else { Value::Text(text) }
    }

    /// The canonical text, as an export prints it; empty for null.
    pub fn canonical_text(&self) -> Cow<'_, str> {
        match self {
            Value::Null => Cow::Borrowed(""),
            Value::Text(text) => Cow::Borrowed(text),
            Value::Integer(number) => Cow::Owned(number.to_string()),
            Value::Decimal(decimal) => Cow::Borrowed(decimal.as_str()),
            Value::Date(date) => Cow::Owned(date.to_string()),
        }
    }

    pub(crate) fn encode(&self, out: &mut Writer) {
        match self {
            Value::Null => out.u8(TAG_NULL),
            Value::Text(text) => {
                out.u8(TAG_TEXT);
                out.bytes(text.as_bytes());
            }
            Value::Integer(number) => {
                out.u8(TAG_INTEGER);
                out.i64(*number);
            }
            Value::Decimal(decimal) => {
                out.u8(TAG_DECIMAL);
                out.bytes(decimal.as_str().as_bytes());
            }
            Value::Date(date) => {
                out.u8(TAG_DATE);
                out.u16(date.year);
                out.u8(date.month);
                out.u8(date.day);
            }
        }
    }

    pub(crate) fn decode(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match input.u8()? {
            TAG_NULL => Value::Null,
            TAG_TEXT => {
                let text = input.text("a text value", TEXT_BYTES_MAX)?;
                if text.is_empty() {
                    return Err(DecodeError::Invalid("an empty text has to be null"));
                }
                Value::Text(text.to_owned())
            }
            TAG_INTEGER => Value::Integer(input.i64()?),
            TAG_DECIMAL => {
                let text = input.text("a decimal", DECIMAL_CHARS_MAX)?;
                Decimal::parse(text)
                    .filter(|decimal| decimal.as_str() == text)
                    .map(Value::Decimal)
                    .ok_or(DecodeError::Invalid("a decimal is not in its canonical spelling"))?
            }
            TAG_DATE => {
                let (year, month, day) = (input.u16()?, input.u8()?, input.u8()?);
                Value::Date(
                    Date::new(year, month, day)
                        .ok_or(DecodeError::Invalid("a date is not in the calendar"))?,
                )
            }
            _ => return Err(DecodeError::Invalid("a value has an unknown tag")),
        })
    }
}

/// A decimal number as text: no plus sign, no leading zeros but one before the
/// point, no trailing zeros behind it, no negative zero, at most 38 digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Decimal(String);

impl Decimal {
    /// Reads digits with an optional sign and point, and normalises them.
    pub fn parse(text: &str) -> Option<Self> {
        let (negative, digits) = match text.as_bytes().first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let all_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() && fraction.is_empty() || !all_digits(whole) || !all_digits(fraction) {
            return None;
        }
        let whole = whole.trim_start_matches('0');
        let fraction = fraction.trim_end_matches('0');
        if whole.len() + fraction.len() > 38 {
            return None;
        }
        let zero = whole.is_empty() && fraction.is_empty();
        let sign = if negative && !zero { "-" } else { "" };
        let whole = if whole.is_empty() { "0" } else { whole };
        Some(Self(if fraction.is_empty() {
            format!("{sign}{whole}")
        } else {
            format!("{sign}{whole}.{fraction}")
        }))
    }

    /// The canonical spelling.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Digits behind the point.
    pub fn scale(&self) -> usize {
        self.0.split_once('.').map_or(0, |(_, fraction)| fraction.len())
    }
}

/// A day of the proleptic Gregorian calendar, years 1 to 9999.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Date {
    year: u16,
    month: u8,
    day: u8,
}

impl Date {
    /// A day, if the calendar has it.
    pub fn new(year: u16, month: u8, day: u8) -> Option<Self> {
        let month_name = time::Month::try_from(month).ok()?;
        if !(1..=9999).contains(&year) {
            return None;
        }
        time::Date::from_calendar_date(i32::from(year), month_name, day).ok()?;
        Some(Self { year, month, day })
    }

    /// Reads the canonical spelling, `2019-03-01`, and no other.
    pub fn parse(text: &str) -> Option<Self> {
        let (year, rest) = text.split_once('-')?;
        let (month, day) = rest.split_once('-')?;
        let date = Self::new(year.parse().ok()?, month.parse().ok()?, day.parse().ok()?)?;
        (date.to_string() == text).then_some(date)
    }

    /// Year, month and day.
    pub fn parts(self) -> (u16, u8, u8) {
        (self.year, self.month, self.day)
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_have_one_spelling() {
        for (text, canonical) in [
            ("1.50", "1.5"),
            ("-0.0", "0"),
            ("+007", "7"),
            (".5", "0.5"),
            ("5.", "5"),
            ("0", "0"),
            ("-12.30", "-12.3"),
        ] {
            assert_eq!(Decimal::parse(text).unwrap().as_str(), canonical, "{text}");
        }
        for bad in ["", ".", "-", "1e5", "1,5", "1.2.3", &"9".repeat(39)] {
            assert_eq!(Decimal::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn days_outside_the_calendar_do_not_exist() {
        assert!(Date::new(2024, 2, 29).is_some());
        assert!(Date::new(2023, 2, 29).is_none());
        assert!(Date::new(0, 1, 1).is_none());
        assert!(Date::new(2023, 13, 1).is_none());
        assert_eq!(Date::parse("2024-02-29"), Date::new(2024, 2, 29));
        for bad in ["", "2023-02-29", "2024-2-29", "+2024-02-29", "2024-02-29 ", "20240229"] {
            assert_eq!(Date::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_canonical_bytes_decode() {
        let bytes_of = |value: &Value| {
            let mut out = Writer::new();
            value.encode(&mut out);
            out.into_bytes()
        };
        let longest = format!("-.{}", "9".repeat(38));
        for value in [
            Value::Null,
            Value::text("企业"),
            Value::Integer(-1),
            Value::Decimal(Decimal::parse("1.5").unwrap()),
            Value::Decimal(Decimal::parse(&longest).unwrap()),
            Value::Date(Date::new(1979, 11, 1).unwrap()),
        ] {
            let bytes = bytes_of(&value);
            let mut reader = Reader::new(&bytes);
            assert_eq!(Value::decode(&mut reader), Ok(value));
            assert_eq!(reader.finish(), Ok(()));
        }
        assert!(Value::decode(&mut Reader::new(&bytes_of(&Value::Text(String::new())))).is_err());
        let sloppy = Value::Decimal(Decimal("1.50".into()));
        assert!(Value::decode(&mut Reader::new(&bytes_of(&sloppy))).is_err());
        assert!(Value::decode(&mut Reader::new(&[9])).is_err());
    }
}
