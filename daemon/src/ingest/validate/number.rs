//! Spellings of numbers.
//!
//! Used for fields of the types `integer` and `decimal`, after a text was folded
//! and trimmed. Not here: limits of a field (`scale_max`, `length_max`).

use std::borrow::Cow;

/// Longest spelling of a number in bytes. A decimal has 38 digits; with group
/// separators and a time's worth of zeros it stays far below.
const NUMBER_BYTES_MAX: usize = 128;

/// A number without its thousands separators, which have to stand between
/// groups of three digits in front of the point.
pub(super) fn ungrouped(text: &str) -> Option<Cow<'_, str>> {
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
