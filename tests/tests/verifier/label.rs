//! Labels of a schema's fields, as they are compared: section 11 of
//! `protocol/SPEC.md`.

use unicode_normalization::UnicodeNormalization as _;

use super::record::is_format;

/// What a label loses at its end.
const ENDS: [&str; 10] = [
    ":",
    "*",
    "(必填)",
    "(必填项)",
    "(选填)",
    "[必填]",
    "[选填]",
    "【必填】",
    "【选填】",
    "(required)",
];

/// A label as it is compared.
pub fn folded(label: &str) -> String {
    let mut text = label.to_owned();
    loop {
        let next = once(&text);
        if next == text {
            return text;
        }
        text = next;
    }
}

fn once(text: &str) -> String {
    let shown = text.chars().filter(|c| !c.is_whitespace() && !is_format(*c));
    let upper = shown.nfkc().flat_map(char::to_uppercase);
    let lower: String = upper.flat_map(char::to_lowercase).nfkc().collect();
    let mut bare = &lower[..];
    while let Some(less) = without_a_mark(bare) {
        bare = less;
    }
    bare.to_owned()
}

fn without_a_mark(text: &str) -> Option<&str> {
    text.strip_prefix('*').or_else(|| ENDS.iter().find_map(|end| text.strip_suffix(end)))
}
