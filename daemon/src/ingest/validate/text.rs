//! What is looked for in every text, and how codes, numbers and days are folded.
//!
//! Used by `field` for each value of a row, so everything here returns at once
//! for ordinary texts. Not here: what spreadsheets leave behind (`traces`).

use std::borrow::Cow;

use protocol::text::{is_format, is_private};
use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfkc_quick};

/// Texts that come of a wrong encoding and of nothing else: U+FFFD read as GBK, and
/// memory that nobody filled.
const MOJIBAKE: [&str; 3] = ["锟斤拷", "烫烫烫", "屯屯屯"];

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

/// Whether the text has lost characters, or never had the right ones: U+FFFD,
/// private characters, and what is known to come of a wrong encoding.
pub(super) fn is_mojibake(text: &str) -> bool {
    // A pass over all bytes without a branch. Private characters begin with EE, EF
    // up to A3, F3 or F4, and U+FFFD with EF BF; the others begin with a character
    // whose last two bytes few others have.
    let bytes = text.as_bytes();
    let suspicious = bytes.iter().zip(bytes.iter().skip(1)).fold(false, |found, (a, b)| {
        found
            | (*a == 0xee)
            | (*a >= 0xf3)
            | ((*a == 0xef) & ((*b <= 0xa3) | (*b == 0xbf)))
            | ((*a == 0x94) & (*b == 0x9f))
            | ((*a == 0x83) & (*b == 0xab))
            | ((*a == 0xb1) & (*b == 0xaf))
    });
    suspicious
        && (text.chars().any(|c| c == '\u{fffd}' || is_private(c))
            || MOJIBAKE.iter().any(|known| text.contains(known)))
}

/// Without format characters, and compatibility forms as plain ones (Unicode NFKC):
/// full-width digits and letters become what they look like.
pub(super) fn fold(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        return Cow::Borrowed(text);
    }
    if text.chars().any(is_format) {
        return Cow::Owned(text.chars().filter(|c| !is_format(*c)).nfkc().collect());
    }
    match is_nfkc_quick(text.chars()) {
        IsNormalized::Yes => Cow::Borrowed(text),
        _ => Cow::Owned(text.nfkc().collect()),
    }
}
