//! Whether a text may be one of some words, by its first bytes alone.
//!
//! Used for every row of a delivery, hardly any of which gets further. Invariant:
//! a text that folds to one of the words passes, whatever stands around it.

/// Bytes of a Chinese character, and of what is compared.
const WIDE_BYTES: usize = 3;

/// How some folded words begin.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Beginnings {
    /// First bytes after which a text has to be looked at: of words that begin
    /// with an ASCII character, in both cases, and of marks, blanks, format
    /// characters and compatibility forms, which folding drops or changes.
    bytes: [u64; 4],
    /// First characters of three bytes.
    wide: Vec<[u8; WIDE_BYTES]>,
}

impl Beginnings {
    /// Of words that are folded as labels are.
    pub fn of<'a>(words: impl Iterator<Item = &'a str>) -> Self {
        let mut this = Self::default();
        let is_margin = |byte: u8| byte.is_ascii_whitespace() || byte == b'*' || byte < 0x20;
        (0..=0x7f).filter(|byte| is_margin(*byte)).for_each(|byte| this.note(byte));
        // Two bytes, punctuation and general marks, CJK marks and compatibility
        // forms, compatibility hanzi and full-width forms, four bytes.
        (0xc2..=0xdf).chain([0xe0, 0xe1, 0xe2, 0xe3, 0xef]).chain(0xf0..=0xf4).for_each(|byte| {
            this.note(byte);
        });
        for word in words {
            match word.as_bytes() {
                [first, ..] if first.is_ascii() => {
                    this.note(first.to_ascii_lowercase());
                    this.note(first.to_ascii_uppercase());
                }
                [a, b, c, ..] => this.wide.push([*a, *b, *c]),
                // It names nothing that could be told apart.
                _ => this.bytes.fill(u64::MAX),
            }
        }
        this
    }

    fn note(&mut self, byte: u8) {
        self.bytes[usize::from(byte >> 6)] |= 1 << (byte & 63);
    }

    /// Whether a text may be one of the words.
    pub fn begin(&self, text: &str) -> bool {
        let bytes = text.as_bytes();
        let Some(&first) = bytes.first() else { return false };
        self.bytes[usize::from(first >> 6)] >> (first & 63) & 1 == 1
            || bytes.first_chunk().is_some_and(|chunk| self.wide.contains(chunk))
    }
}

#[cfg(test)]
mod tests {
    use protocol::schema::fold_label;

    use super::*;

    #[test]
    fn whatever_folds_to_a_word_passes_and_most_texts_do_not() {
        let words = ["代码", "name", "合计"];
        let beginnings = Beginnings::of(words.into_iter());
        for text in [
            "代码",
            " 代码",
            "\u{feff}代码",
            "*代码",
            "＊代 码",
            "\u{200b}代码",
            "\u{ad}Name",
            "NAME",
            "ｎａｍｅ",
            "ℕame",
            "𝐧ame",
            "\t合计：",
            "\u{3000}合计",
        ] {
            assert!(words.contains(&&*fold_label(text)), "{text}");
            assert!(beginnings.begin(text), "{text}");
        }
        for text in ["", "郑州某公司", "91410000170001401D", "x", "码代"] {
            assert!(!beginnings.begin(text), "{text}");
        }
    }
}
