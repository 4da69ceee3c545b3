//! What is looked for in every text, and how codes, numbers and days are folded.
//!
//! Used by `field` for each value of a row, so everything here returns at once
//! for ordinary texts.

use std::borrow::Cow;

use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfkc_quick};

/// Control characters other than tab, CR and LF. All of them are one byte in
/// UTF-8, or two that begin with C2, as few others do.
pub(super) fn has_control(text: &str) -> bool {
    let suspicious = text.bytes().fold(false, |found, byte| {
        found
            | (byte < 0x20 && !matches!(byte, b'\t' | b'\r' | b'\n'))
            | (byte == 0x7f)
            | (byte == 0xc2)
    });
    suspicious && text.chars().any(|c| c.is_control() && !matches!(c, '\t' | '\r' | '\n'))
}

/// Unicode NFKC: full-width digits and letters become plain ones.
pub(super) fn fold(text: &str) -> Cow<'_, str> {
    if text.is_ascii() || is_nfkc_quick(text.chars()) == IsNormalized::Yes {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(text.nfkc().collect())
    }
}
