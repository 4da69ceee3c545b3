//! Spellings of numbers.
//!
//! Used for fields of the types `integer` and `decimal`, after a text was folded
//! and trimmed. Invariant: a number is read exactly or not at all. Not here: limits
//! of a field (`scale_max`, `length_max`).

use std::borrow::Cow;

use protocol::value::Decimal;

use super::{
    rule::Rule,
    traces::{is_scientific_number, whole},
};

/// Longest spelling of a number in bytes. A decimal has 38 digits; with group
/// separators and a time's worth of zeros it stays far below.
const NUMBER_BYTES_MAX: usize = 128;

/// A whole number; a fraction of zeros (`5245.0`) does not count.
pub(super) fn integer(text: &str) -> Result<i64, Rule> {
    ungrouped(text)
        .and_then(|digits| whole(&digits).parse().ok())
        .ok_or_else(|| no_number(text, Rule::Integer))
}

/// A decimal number.
pub(super) fn decimal(text: &str) -> Result<Decimal, Rule> {
    ungrouped(text)
        .and_then(|digits| Decimal::parse(&digits))
        .ok_or_else(|| no_number(text, Rule::Decimal))
}

/// Why a text is no number. One with an exponent is a rounded one, as long as
/// nobody says otherwise.
fn no_number(text: &str, rule: Rule) -> Rule {
    if is_scientific_number(text) { Rule::Scientific } else { rule }
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
