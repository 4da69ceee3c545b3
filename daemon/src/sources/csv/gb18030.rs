//! Whether a row of bytes is plausible as GB18030, fast enough for every row.
//!
//! The verdict is that of [`super::plausible`], by a table of all characters of two
//! bytes. Used by `decode`.

use std::sync::LazyLock;

use encoding_rs::GB18030;

use super::plausible::{Class, Wide, class_of};

/// Characters beyond ASCII, marks not counted, that a row has to have before it is
/// judged by them: fewer may be anybody's name.
const CHARACTERS_MIN: usize = 8;
/// Strange characters that say something about a row.
const STRANGE_MIN: usize = 3;

/// Whether somebody may have written this row, which decodes as GB18030.
pub(super) fn is_plausible_row(body: &[u8]) -> bool {
    is_plausible(wide_of(body))
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

/// The same of a row that was decoded.
pub(super) fn is_plausible_text(text: &str) -> bool {
    is_plausible(Wide::of(text))
}

fn is_plausible(wide: Wide) -> bool {
    let strange = if wide.strange < STRANGE_MIN { 0 } else { wide.strange };
    wide.count() - wide.marks < CHARACTERS_MIN || Wide { strange, ..wide }.is_plausible()
}

/// As [`Wide::of`] of the text that these bytes are; characters of four bytes count
/// as rare ones.
fn wide_of(body: &[u8]) -> Wide {
    static CLASSES: LazyLock<Vec<Class>> = LazyLock::new(|| {
        (0..=u16::MAX)
            .map(|pair| {
                let pair = pair.to_be_bytes();
                let text = GB18030.decode_without_bom_handling_and_without_replacement(&pair);
                text.and_then(|text| text.chars().next()).map_or(Class::Strange, class_of)
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
    fn the_table_agrees_with_the_characters() {
        for text in ["郑州鑫淼磊商贸有限公司", "№ 3 ·（二）①", "焱犇, é 123 がカ", "abc", ""]
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
