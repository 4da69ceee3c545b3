//! Traces that spreadsheets leave in codes, numbers and days.
//!
//! Used by `field` for every value that is not free text. People protect codes from
//! a spreadsheet with `="007"` or `'007`, and programs that took a code for a number
//! write `5245.0`: what was meant is known. A number that was rounded to 15 digits
//! or written as `4.10101E+14` is lost. Invariant: what comes out has no further
//! trace to be taken off, so a value means the same when it is delivered again. Not
//! here: what is done about a lost number ([`super::field`]).

use std::borrow::Cow;

/// Digits that have to stand before `.0` in a code: version numbers such as `1.0`
/// have fewer, and codes more.
const CODE_DIGITS_MIN: usize = 4;
/// Digits of a number that a spreadsheet keeps; it makes the others zeros.
const EXACT_DIGITS: usize = 15;

/// Takes off what protects a value from a spreadsheet: `="007"`, `'007`.
pub(super) fn unprotected(text: &str) -> Cow<'_, str> {
    let mut bare = Cow::Borrowed(text);
    while let Some(inner) = inside(&bare) {
        bare = Cow::Owned(inner);
    }
    bare
}

/// What is protected, if this is; it is shorter.
fn inside(text: &str) -> Option<String> {
    let inner = match text.as_bytes().first()? {
        b'=' => text.strip_prefix("=\"")?.strip_suffix('"')?.replace("\"\"", "\""),
        // Two of them are quotation marks.
        b'\'' if !text[1..].contains('\'') => text[1..].to_owned(),
        _ => return None,
    };
    Some(inner.trim().to_owned())
}

/// A number without a fraction that is zero: `5245` of `5245.0`.
pub(super) fn whole(text: &str) -> &str {
    if !text.ends_with('0') {
        return text;
    }
    match text.split_once('.') {
        Some((whole, zeros)) if !zeros.is_empty() && zeros.bytes().all(|byte| byte == b'0') => {
            whole
        }
        _ => text,
    }
}

/// A code without the fraction that a program added which took it for a number.
pub(super) fn whole_code(text: &str) -> &str {
    let bare = whole(text);
    if bare.len() >= CODE_DIGITS_MIN && all_digits(bare) { bare } else { text }
}

/// Whether this is how a spreadsheet writes a long number: `4.10101E+14`. A code
/// may look like `1E5`; a fraction or the sign of the exponent tells them apart.
pub(super) fn is_scientific_code(text: &str) -> bool {
    exponent(text).is_some_and(|(mantissa, exponent)| {
        mantissa.contains(['.', ',']) || exponent.starts_with(['+', '-'])
    })
}

/// Whether this is a number with an exponent, as in `1e5`.
pub(super) fn is_scientific_number(text: &str) -> bool {
    exponent(text).is_some()
}

/// The number before and behind the `E`.
fn exponent(text: &str) -> Option<(&str, &str)> {
    let (mantissa, exponent) = text.split_once(['E', 'e'])?;
    let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    let number = mantissa.strip_prefix(['+', '-']).unwrap_or(mantissa);
    let (whole, fraction) = number.split_once(['.', ',']).unwrap_or((number, "0"));
    let is_number =
        all_digits(digits) && digits.len() <= 3 && all_digits(whole) && all_digits(fraction);
    is_number.then_some((mantissa, exponent))
}

/// Whether all digits behind the fifteenth are zeros, as in a long number that a
/// spreadsheet has rounded.
pub(in crate::ingest) fn looks_rounded(text: &str) -> bool {
    text.len() > EXACT_DIGITS
        && all_digits(text)
        && text.as_bytes()[EXACT_DIGITS..].iter().all(|byte| *byte == b'0')
}

pub(super) fn all_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}
