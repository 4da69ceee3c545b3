//! Texts that mean nothing, such as `NULL`, `无` and `-`.
//!
//! Used by importers for every value of a dataset that names such texts, and by
//! [`super::check`]. Invariant: a field of a dataset that names none is not looked
//! at. Not here: that an empty text is nothing; no schema has to say so.

use std::borrow::Cow;

use unicode_normalization::{IsNormalized, UnicodeNormalization as _, is_nfkc_quick};

use crate::text::{is_format, without_format};

/// Bytes of the longest spelling for each byte of a text that means nothing, without
/// what nobody sees: a mathematical letter has four and folds to one.
const SPELLING_BYTES: usize = 4;

/// The texts that mean nothing in a field.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NullTexts {
    folded: Vec<String>,
    bytes_max: usize,
}

impl NullTexts {
    /// Those texts, in any spelling that [`NullTexts::contain`] takes for the same.
    pub fn new(texts: &[String]) -> Self {
        let folded: Vec<String> = texts.iter().map(|text| fold(text)).collect();
        let longest = folded.iter().map(String::len).max().unwrap_or_default();
        Self { folded, bytes_max: longest * SPELLING_BYTES }
    }

    /// Whether the text means nothing. White space around it, format characters,
    /// compatibility forms and the case of ASCII letters do not count.
    pub fn contain(&self, text: &str) -> bool {
        if self.folded.is_empty() {
            return false;
        }
        let text = text.trim();
        if text.len() > self.bytes_max && shows_more_than(text, self.bytes_max) {
            return false;
        }
        if text.is_ascii() {
            return self.folded.iter().any(|folded| folded.eq_ignore_ascii_case(text));
        }
        let text = fold(text);
        self.folded.contains(&text)
    }
}

/// Whether there are more bytes that somebody sees. Of a text that has them in front it
/// takes no longer than that many.
fn shows_more_than(text: &str, bytes_max: usize) -> bool {
    let mut left = bytes_max;
    text.chars().filter(|c| !c.is_whitespace() && !is_format(*c)).any(|character| {
        let bytes = character.len_utf8();
        let is_over = bytes > left;
        left = left.saturating_sub(bytes);
        is_over
    })
}

fn fold(text: &str) -> String {
    let bare = without_format(text);
    let folded = match is_nfkc_quick(bare.chars()) {
        IsNormalized::Yes => bare,
        _ => Cow::Owned(bare.nfkc().collect()),
    };
    folded.trim().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_nothing_are_found_and_other_texts_are_not() {
        let nothing = NullTexts::new(&["\\N", "Null", "无", "－", "n/a"].map(str::to_owned));
        for text in [
            "\\N",
            "\\n",
            "NULL",
            " null\t",
            "ＮＵＬＬ",
            "无",
            "\u{3000}无 ",
            "无\u{200b}",
            &format!(" {}无 ", "\u{200b} ".repeat(20)),
            "𝐍𝐮𝐥𝐥",
            "-",
            "－",
            "N/A",
        ] {
            assert!(nothing.contain(text), "{text:?}");
        }
        for text in ["", " ", "N", "NULLS", "无锡", "无 锡", "--", "0", &"-".repeat(100)] {
            assert!(!nothing.contain(text), "{text:?}");
        }
        assert!(!NullTexts::default().contain(""));
    }
}
