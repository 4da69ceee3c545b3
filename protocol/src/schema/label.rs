//! When two column labels are the same.
//!
//! Used by [`super::Schema`], which refuses two fields that a header cannot tell
//! apart, and by whoever looks a header's labels up. Invariant: folding a folded
//! label changes nothing. Not here: advice about labels that are nearly the same.

use std::borrow::Cow;

use unicode_normalization::UnicodeNormalization as _;

use crate::text::is_format;

/// What forms put behind a label to say how it is to be filled in, after folding.
const REMARKS: [&str; 10] = [
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
/// Most rounds until nothing changes. Each takes out what the one before has made
/// (a decomposed letter, a blank); two are known to be enough.
const ROUNDS_MAX: usize = 4;

/// A label as it is compared: compatibility forms folded (Unicode NFKC), without
/// regard to case, without white space and format characters, without a `*` in
/// front and without `:`, `*`, `(必填)` and the like at its end. `＊统一社会 信用代码：`
/// is `统一社会信用代码`. What is nothing but such marks becomes empty.
pub fn fold_label(label: &str) -> String {
    let mut folded: Cow<'_, str> = Cow::Borrowed(label);
    for _ in 0..ROUNDS_MAX {
        let next = fold_once(&folded);
        if next == folded.as_ref() {
            break;
        }
        folded = Cow::Owned(next);
    }
    folded.into_owned()
}

fn fold_once(label: &str) -> String {
    let bare = label.chars().filter(|c| !c.is_whitespace() && !is_format(*c));
    let folded: String = if label.is_ascii() {
        bare.map(|c| c.to_ascii_lowercase()).collect()
    } else {
        // Upper case first: letters that have no lower case of their own fall
        // together with those that have (ß and SS, ς and σ).
        bare.nfkc().flat_map(char::to_uppercase).flat_map(char::to_lowercase).nfkc().collect()
    };
    without_remarks(&folded).to_owned()
}

fn without_remarks(mut label: &str) -> &str {
    loop {
        let before = label.len();
        label = label.trim_start_matches('*');
        for remark in REMARKS {
            label = label.strip_suffix(remark).unwrap_or(label);
        }
        if label.len() == before {
            return label;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn spellings_of_one_label_fall_together() {
        for (label, folded) in [
            ("CODE", "code"),
            ("名 称", "名称"),
            ("名称\u{200b}", "名称"),
            ("\u{feff}名\n称", "名称"),
            ("*备注", "备注"),
            ("＊备注", "备注"),
            ("备注：", "备注"),
            ("备注 : ", "备注"),
            ("备注（必填）", "备注"),
            ("备注(必填)*：", "备注"),
            ("**备注【必填】", "备注"),
            ("Name (Required)", "name"),
            ("行政相对人代码_1 (统一社会信用代码)", "行政相对人代码_1(统一社会信用代码)"),
            ("罚款金额（万元）", "罚款金额(万元)"),
            ("ＵＳＣＣ", "uscc"),
            ("Straße", "strasse"),
            ("*", ""),
            ("（必填）", ""),
            ("", ""),
        ] {
            assert_eq!(fold_label(label), folded, "{label:?}");
        }
    }

    #[test]
    fn what_tells_labels_apart_stays() {
        for (one, other) in
            [("罚款金额(元)", "罚款金额(万元)"), ("代码_1", "代码_2"), ("a:b", "ab"), ("a*b", "ab")]
        {
            assert_ne!(fold_label(one), fold_label(other));
        }
    }

    #[test]
    fn every_letter_folds_to_what_folds_to_itself() {
        // Without Chinese and Korean, which have no case.
        let letters = ('\0'..'\u{3400}').chain('\u{f900}'..'\u{20000}');
        for character in letters.filter(|c| !crate::text::is_private(*c)) {
            let folded = fold_label(&format!("a{character}"));
            assert_eq!(fold_label(&folded), folded, "{character:?}");
        }
    }

    proptest! {
        #[test]
        fn folding_twice_changes_nothing(label in "\\PC{0,20}|[aA*:：（）()必填 \u{200b}\u{301}ẞİ]{0,12}") {
            let folded = fold_label(&label);
            prop_assert_eq!(fold_label(&folded), folded);
        }

        #[test]
        fn case_blanks_and_hidden_characters_do_not_count(
            label in "[a-z0-9_代码名称]{1,12}",
            at in 0usize..12,
            hidden in "[\u{200b}\u{feff}\u{202d} \u{3000}\t]{1,3}",
        ) {
            let mut other: Vec<char> = label.to_uppercase().chars().collect();
            let at = at.min(other.len());
            other.splice(at..at, hidden.chars());
            let other: String = other.into_iter().collect();
            prop_assert_eq!(fold_label(&other), label);
        }
    }
}
