//! What bytes say for and against GB18030, fast enough for every row.
//!
//! By a table of all characters of two bytes, and as [`super::plausible`] judges a text;
//! a single row is judged more mildly, for it may be a name. Used by `decode` for rows,
//! and by `detect` for bytes that are valid UTF-8 as well. Not here: which encoding a
//! file has.

use std::sync::LazyLock;

use encoding_rs::GB18030;

use super::plausible::{Class, Wide, class_of};

/// Characters beyond ASCII, marks not counted, that a row has to have before it is
/// judged by them: fewer may be anybody's name.
const CHARACTERS_MIN: usize = 8;
/// Strange characters that say something about a row.
const STRANGE_MIN: usize = 3;

/// What the characters of a row say of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Somebody may have written it.
    Plausible,
    /// Its hanzi are none that people use: another encoding, or names of a rare kind.
    Doubtful,
    /// It has characters that nobody writes.
    Impossible,
}

/// Judges a row that decodes as GB18030.
pub(super) fn judge_row(body: &[u8]) -> Verdict {
    judge(wide_of(body))
}

/// The same of a row that was decoded.
pub(super) fn judge_text(text: &str) -> Verdict {
    let mut wide = Wide::default();
    let beyond_ascii = text.chars().filter(|character| !character.is_ascii());
    beyond_ascii.for_each(|character| wide.add(class_in_row(character)));
    judge(wide)
}

fn judge(wide: Wide) -> Verdict {
    if wide.count() - wide.marks < CHARACTERS_MIN {
        return Verdict::Plausible;
    }
    if wide.strange >= STRANGE_MIN && wide.is_strange() {
        return Verdict::Impossible;
    }
    if (Wide { strange: 0, ..wide }).is_plausible() {
        Verdict::Plausible
    } else {
        Verdict::Doubtful
    }
}

/// As [`class_of`]; letters of other alphabets may be a firm's name, and pictures
/// stand in anybody's.
fn class_in_row(character: char) -> Class {
    match character {
        '\u{c0}'..='\u{24f}'
        | '\u{370}'..='\u{4ff}'
        | '\u{2600}'..='\u{27bf}'
        | '\u{3040}'..='\u{30ff}'
        | '\u{1f000}'..='\u{1faff}' => Class::Mark,
        character => class_of(character),
    }
}

/// Whether bytes that are valid UTF-8 rather are GBK: all characters beyond ASCII
/// have two bytes, which no hanzi has in UTF-8, and as GBK most of them are hanzi that
/// everybody uses. 豫 in GBK is `ԥ` in UTF-8, while `é` in UTF-8 is 茅 in GBK.
pub(super) fn is_likelier_than_utf8(bytes: &[u8]) -> bool {
    // The first byte of three or four.
    if bytes.is_ascii() || bytes.iter().any(|byte| *byte >= 0xe0) {
        return false;
    }
    // What these two begin are the marks and the letters with accents that a text in
    // UTF-8 has now and then: · × é.
    let (marks, others) =
        bytes.iter().filter(|byte| **byte >= 0xc2).fold((0, 0), |(marks, others), byte| {
            if *byte < 0xc4 { (marks + 1, others) } else { (marks, others + 1) }
        });
    if marks > others {
        return false;
    }
    let wide = wide_of(bytes);
    wide.common * 2 >= wide.count() && wide.common + wide.usual + wide.marks == wide.count()
}

/// The same of bytes that nothing else is known of: whether what is in question rather
/// is hanzi than letters and marks of UTF-8. Letters with accents stand beside other
/// letters, as in Müller; a hanzi seldom does.
pub(super) fn is_likelier_alone(bytes: &[u8]) -> bool {
    if is_likelier_than_utf8(bytes) {
        return true;
    }
    if bytes.is_ascii() || bytes.iter().any(|byte| *byte >= 0xe0) {
        return false;
    }
    let wide = wide_of(bytes);
    let is_letter =
        |at: Option<usize>| at.and_then(|at| bytes.get(at)).is_some_and(u8::is_ascii_alphabetic);
    let firsts = bytes.iter().enumerate().filter(|(_, byte)| **byte >= 0xc2);
    let (mut alone, mut beside) = (0, 0);
    for (at, _) in firsts {
        match is_letter(at.checked_sub(1)) || is_letter(Some(at + 2)) {
            true => beside += 1,
            false => alone += 1,
        }
    }
    alone > beside && wide.common + wide.usual + wide.marks == wide.count()
}

/// What the characters of these bytes are; those of four bytes count
/// as rare ones.
fn wide_of(body: &[u8]) -> Wide {
    static CLASSES: LazyLock<Vec<Class>> = LazyLock::new(|| {
        (0..=u16::MAX)
            .map(|pair| {
                let pair = pair.to_be_bytes();
                let text = GB18030.decode_without_bom_handling_and_without_replacement(&pair);
                text.and_then(|text| text.chars().next()).map_or(Class::Strange, class_in_row)
            })
            .collect()
    });
    let classes = &*CLASSES;
    let mut wide = Wide::default();
    let mut rest = body;
    while let Some(at) = rest.iter().position(|byte| !byte.is_ascii()) {
        rest = &rest[at..];
        let length = match *rest {
            [_, b'0'..=b'9', ..] => {
                wide.add(Class::Rare);
                4
            }
            [lead, trail, ..] => {
                wide.add(classes[usize::from(u16::from_be_bytes([lead, trail]))]);
                2
            }
            _ => 1,
        };
        rest = rest.get(length..).unwrap_or_default();
    }
    wide
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_bytes_may_be_a_hanzi_or_a_letter() {
        for text in ["豫A12341", "通一元", "女", "豫,元,专业"] {
            let (bytes, _, _) = GB18030.encode(text);
            assert!(std::str::from_utf8(&bytes).is_ok(), "{text}");
            assert!(is_likelier_than_utf8(&bytes), "{text}");
        }
        for text in
            ["Café", "Müller, Zürich", "Привет", "αβγ", "豫A", "·", "3×5°", "abc", "", "é企业"]
        {
            assert!(!is_likelier_than_utf8(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn names_of_one_hanzi_are_no_letters_with_accents() {
        for text in ["C1,N0,毛", "毛\n卢\n陆", "IBM\nKFC\n鲁", "毛**\n路"] {
            let (bytes, _, _) = GB18030.encode(text);
            assert!(std::str::from_utf8(&bytes).is_ok(), "{text}");
            assert!(is_likelier_alone(&bytes), "{text}");
        }
        for text in ["Müller", "Café\nZürich\n3×5", "Ångström", "企业 é", "abc"] {
            assert!(!is_likelier_alone(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn the_table_agrees_with_the_characters() {
        for text in ["郑州鑫淼磊商贸有限公司", "№ 3 ·（二）①", "焱犇, 123", "abc", ""]
        {
            let (bytes, _, _) = GB18030.encode(text);
            assert_eq!(wide_of(&bytes), Wide::of(text), "{text}");
        }
        // Korean has characters of four bytes; every byte may be the last one.
        let (bytes, _, _) = GB18030.encode("서울특별시 한국");
        assert_eq!(wide_of(&bytes).rare, 7);
        for end in 0..bytes.len() {
            wide_of(&bytes[..end]);
        }
    }
}
