//! Texts that came through a wrong encoding before they were delivered.
//!
//! Used by `text`, once a text's bytes gave reason to. What was saved once more
//! after it had been read wrongly is valid in the file's encoding, so only the text
//! itself can show it. Not here: bytes that are in another encoding than their file
//! (`sources::csv`).

use encoding_rs::{GB18030, UTF_8, WINDOWS_1252};
use protocol::text::is_private;

/// Texts that come of a wrong encoding and hardly of anything else: U+FFFD read as
/// GBK, memory that nobody filled, and what a program writes for each character that
/// its encoding does not have.
const KNOWN: [&str; 4] = ["锟斤拷", "烫烫烫", "屯屯屯", "????"];

/// Whether a text has lost characters, or came through a wrong encoding, and is
/// hardly anything else.
pub(super) fn is_certain(text: &str) -> bool {
    text.contains('\u{fffd}')
        || KNOWN.iter().any(|known| text.contains(known))
        || was_read_as_latin(text)
        || was_read_as_gbk(text)
}

/// Whether a text has private characters, half of a character that was read wrongly or
/// one that an office has made for a place; or question marks, lost characters or
/// somebody's doubt.
pub(super) fn is_possible(text: &str) -> bool {
    text.contains("??") || text.chars().any(is_private)
}

/// Whether a text is Chinese in UTF-8 that was read as GBK: 鏈夐檺 for 有限.
fn was_read_as_gbk(text: &str) -> bool {
    let (bytes, _, lost) = GB18030.encode(text);
    let read = (!lost).then(|| UTF_8.decode_without_bom_handling_and_without_replacement(&bytes));
    let hanzi = |text: &str| text.chars().filter(|c| is_hanzi(*c)).count();
    read.flatten().is_some_and(|read| hanzi(&read) >= 2)
}

/// Whether a text is Chinese, in GBK or UTF-8, that was read as Latin letters:
/// `ÆóÒµ` for 企业.
fn was_read_as_latin(text: &str) -> bool {
    /// Fewer Latin letters may be somebody's name.
    const LETTERS_MIN: usize = 4;
    if text.chars().filter(|c| ('\u{80}'..='\u{ff}').contains(c)).count() < LETTERS_MIN {
        return false;
    }
    let (bytes, _, lost) = WINDOWS_1252.encode(text);
    if lost {
        return false;
    }
    let utf8 = UTF_8.decode_without_bom_handling_and_without_replacement(&bytes);
    if utf8.is_some_and(|text| text.contains(is_hanzi)) {
        return true;
    }
    // Accented letters mostly stand alone, the bytes of GB 2312 in pairs.
    let in_pairs = bytes.chunk_by(|a, b| a.is_ascii() == b.is_ascii());
    let mut in_pairs = in_pairs.filter(|run| !run[0].is_ascii());
    in_pairs.all(|run| run.len().is_multiple_of(2))
        && GB18030
            .decode_without_bom_handling_and_without_replacement(&bytes)
            .is_some_and(|text| text.chars().filter(|c| !c.is_ascii()).all(is_chinese))
}

fn is_hanzi(c: char) -> bool {
    ('\u{4e00}'..='\u{9fff}').contains(&c)
}

/// Hanzi, and the punctuation that stands among them.
fn is_chinese(c: char) -> bool {
    is_hanzi(c) || matches!(c, '\u{3000}'..='\u{303f}' | '\u{ff00}'..='\u{ffef}')
}
