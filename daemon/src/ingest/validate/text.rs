//! What is looked for in every text, and how codes, numbers and days are folded.
//!
//! Used by `field` for each value of a row, so everything here returns at once
//! for ordinary texts. Not here: what spreadsheets leave behind (`traces`).

use std::borrow::Cow;

use protocol::text::is_format;
use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfkc_quick};

use super::{mojibake, rule::Rule};

/// What a text's bytes give reason to look at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Suspicion {
    control: bool,
    lost: bool,
}

impl Suspicion {
    /// One pass over all bytes without a branch: every value of every row goes
    /// through it. Control characters are one byte in UTF-8, or two that begin with
    /// C2, as few others do. Private characters begin with EE, EF up to A3, F3 or
    /// F4, and U+FFFD with EF BF; what else is known of wrong encodings begins with
    /// a character whose last two bytes few others have. Latin letters begin with C3.
    pub fn of(text: &str) -> Self {
        let bytes = text.as_bytes();
        let Some((last, rest)) = bytes.split_last() else {
            return Self::default();
        };
        let control = |byte: u8| {
            u8::from(byte < 0x20) & u8::from(!matches!(byte, b'\t' | b'\r' | b'\n'))
                | u8::from(byte == 0x7f)
                | u8::from(byte == 0xc2)
        };
        let (mut controls, mut lost) = (control(*last), 0);
        for (&a, &b) in rest.iter().zip(&bytes[1..]) {
            controls |= control(a);
            lost |= u8::from(a == 0xee)
                | u8::from(a >= 0xf3)
                | u8::from(a == 0xef) & (u8::from(b <= 0xa3) | u8::from(b == 0xbf))
                | u8::from(a == 0x94) & u8::from(b == 0x9f)
                | u8::from(a == 0x83) & u8::from(b == 0xab)
                | u8::from(a == 0xb1) & u8::from(b == 0xaf)
                | u8::from(a == 0xc3)
                | u8::from(a == b'?') & u8::from(b == b'?');
        }
        Self { control: controls != 0, lost: lost != 0 }
    }

    /// Whether the text has control characters other than tab, CR and LF.
    pub fn has_control(self, text: &str) -> bool {
        self.control && text.chars().any(|c| c.is_control() && !matches!(c, '\t' | '\r' | '\n'))
    }

    /// Whether the text has lost characters, or never had the right ones.
    pub fn mojibake(self, text: &str) -> Option<Rule> {
        if !self.lost {
            return None;
        }
        let certain = mojibake::is_certain(text);
        (certain || mojibake::is_possible(text)).then_some(Rule::Mojibake { certain })
    }
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
