//! Characters that nobody sees: which they are, and how they are shown.
//!
//! Used by `schema` to compare labels, by importers to clean codes, numbers and
//! days, and by every message that quotes what somebody else wrote: a value, a
//! label, the name of a file. Invariant: what [`visible`] gives has no control or
//! format character, so it can neither hide a difference nor forge a line of a log;
//! what [`printable`] gives cannot steer a terminal either, and says the same.
//! Not here: which values keep such characters (`schema`, and the importer).

use std::{borrow::Cow, fmt::Write as _};

/// The general category Cf (format) of Unicode 16, as first and last of each
/// range. The list is short and changes every few years; a build that lags behind
/// lets a new character through as part of a value.
const FORMAT: [(char, char); 21] = [
    ('\u{ad}', '\u{ad}'),
    ('\u{600}', '\u{605}'),
    ('\u{61c}', '\u{61c}'),
    ('\u{6dd}', '\u{6dd}'),
    ('\u{70f}', '\u{70f}'),
    ('\u{890}', '\u{891}'),
    ('\u{8e2}', '\u{8e2}'),
    ('\u{180e}', '\u{180e}'),
    ('\u{200b}', '\u{200f}'),
    ('\u{202a}', '\u{202e}'),
    ('\u{2060}', '\u{2064}'),
    ('\u{2066}', '\u{206f}'),
    ('\u{feff}', '\u{feff}'),
    ('\u{fff9}', '\u{fffb}'),
    ('\u{110bd}', '\u{110bd}'),
    ('\u{110cd}', '\u{110cd}'),
    ('\u{13430}', '\u{1343f}'),
    ('\u{1bca0}', '\u{1bca3}'),
    ('\u{1d173}', '\u{1d17a}'),
    ('\u{e0001}', '\u{e0001}'),
    ('\u{e0020}', '\u{e007f}'),
];

/// Names of the characters that files really hold.
const NAMES: [(char, &str); 31] = [
    ('\0', "空字符 NULL"),
    ('\t', "制表符 TAB"),
    ('\n', "换行 LINE FEED"),
    ('\r', "回车 CARRIAGE RETURN"),
    ('\u{1a}', "文件结束符 CTRL-Z"),
    ('\u{1b}', "转义符 ESCAPE"),
    ('\u{7f}', "删除符 DELETE"),
    ('\u{85}', "下一行 NEXT LINE"),
    ('\u{a0}', "不换行空格 NO-BREAK SPACE"),
    ('\u{ad}', "软连字符 SOFT HYPHEN"),
    ('\u{61c}', "阿拉伯字母标记 ARABIC LETTER MARK"),
    ('\u{200b}', "零宽空格 ZERO WIDTH SPACE"),
    ('\u{200c}', "零宽不连字 ZERO WIDTH NON-JOINER"),
    ('\u{200d}', "零宽连字 ZERO WIDTH JOINER"),
    ('\u{200e}', "左至右标记 LEFT-TO-RIGHT MARK"),
    ('\u{200f}', "右至左标记 RIGHT-TO-LEFT MARK"),
    ('\u{2028}', "行分隔符 LINE SEPARATOR"),
    ('\u{2029}', "段分隔符 PARAGRAPH SEPARATOR"),
    ('\u{202a}', "左至右嵌入 LEFT-TO-RIGHT EMBEDDING"),
    ('\u{202b}', "右至左嵌入 RIGHT-TO-LEFT EMBEDDING"),
    ('\u{202c}', "方向格式结束 POP DIRECTIONAL FORMATTING"),
    ('\u{202d}', "左至右强制 LEFT-TO-RIGHT OVERRIDE"),
    ('\u{202e}', "右至左强制 RIGHT-TO-LEFT OVERRIDE"),
    ('\u{202f}', "窄不换行空格 NARROW NO-BREAK SPACE"),
    ('\u{2060}', "词连接符 WORD JOINER"),
    ('\u{2066}', "左至右隔离 LEFT-TO-RIGHT ISOLATE"),
    ('\u{2067}', "右至左隔离 RIGHT-TO-LEFT ISOLATE"),
    ('\u{2068}', "首强隔离 FIRST STRONG ISOLATE"),
    ('\u{2069}', "隔离结束 POP DIRECTIONAL ISOLATE"),
    ('\u{feff}', "字节顺序标记 BYTE ORDER MARK"),
    ('\u{fffd}', "替换字符 REPLACEMENT CHARACTER"),
];

/// Whether the character is a format character (Unicode Cf): it has no shape of
/// its own and does not belong to a code.
pub fn is_format(character: char) -> bool {
    // Most texts have nothing but ASCII and Chinese.
    if character < '\u{ad}' || ('\u{2070}'..'\u{feff}').contains(&character) {
        return false;
    }
    FORMAT.iter().any(|(first, last)| (*first..=*last).contains(&character))
}

/// Whether the text holds nothing but white space and format characters, which fill
/// no required field.
pub fn is_blank(text: &str) -> bool {
    text.chars().all(|character| character.is_whitespace() || is_format(character))
}

/// The text without its format characters.
pub fn without_format(text: &str) -> Cow<'_, str> {
    if text.is_ascii() || !text.chars().any(is_format) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().filter(|character| !is_format(*character)).collect())
}

/// Whether the character stands for nothing that other systems know: a private
/// one, whose shape depends on the machine.
pub fn is_private(character: char) -> bool {
    matches!(character, '\u{e000}'..='\u{f8ff}' | '\u{f0000}'..='\u{ffffd}' | '\u{100000}'..='\u{10fffd}')
}

/// The text with invisible, control and private characters as their names, such
/// as `豫罚1号⟨U+200B 零宽空格 ZERO WIDTH SPACE⟩`; several equal ones together as one
/// name and a number. The ASCII space and the ideographic one stay.
pub fn visible(text: &str) -> Cow<'_, str> {
    visible_within(text, usize::MAX)
}

/// As [`visible`], of at most so many characters; what is cut off is an `…`.
pub fn visible_within(text: &str, chars_max: usize) -> Cow<'_, str> {
    // A text has at least as many bytes as characters.
    if text.len() <= chars_max && !text.chars().any(is_hidden) {
        return Cow::Borrowed(text);
    }
    let (mut out, mut count) = (String::new(), 0);
    let mut rest = text.chars().peekable();
    let mut name = String::new();
    while let Some(character) = rest.next() {
        name.clear();
        if is_hidden(character) {
            let mut times = 1;
            while rest.next_if_eq(&character).is_some() {
                times += 1;
            }
            push_name(&mut name, character, times);
        } else {
            name.push(character);
        }
        count += name.chars().count();
        // The last place is for what says that there was more.
        if count > chars_max || (count == chars_max && rest.peek().is_some()) {
            out.push('…');
            break;
        }
        out.push_str(&name);
    }
    Cow::Owned(out)
}

/// The text with everything that could steer a terminal, forge a line or reorder
/// what stands around it as escapes such as `\u{1b}`: control characters (C0,
/// DEL, C1), the ends of lines and paragraphs, and format characters, above all
/// those of writing direction.
///
/// For what others wrote, in tables, exports to a terminal and lines of the log.
/// What it gives it leaves as it is. A message about the characters themselves
/// names them with [`visible`].
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.chars().any(steers) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if steers(character) {
            out.extend(character.escape_unicode());
        } else {
            out.push(character);
        }
    }
    Cow::Owned(out)
}

fn steers(character: char) -> bool {
    character.is_control() || matches!(character, '\u{2028}' | '\u{2029}') || is_format(character)
}

fn is_hidden(character: char) -> bool {
    match character {
        ' '..='~' | '\u{3000}' | '\u{4e00}'..='\u{9fff}' => false,
        _ => {
            character.is_control()
                || character.is_whitespace()
                || character == '\u{fffd}'
                || is_format(character)
                || is_private(character)
        }
    }
}

fn push_name(out: &mut String, character: char, times: usize) {
    // Writing to a string does not fail.
    let _ = write!(out, "⟨U+{:04X}", u32::from(character));
    if let Some((_, name)) = NAMES.iter().find(|(known, _)| *known == character) {
        let _ = write!(out, " {name}");
    }
    if times > 1 {
        let _ = write!(out, " ×{times}");
    }
    out.push('⟩');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn format_characters_are_those_of_unicode() {
        let all: Vec<u32> = ('\0'..=char::MAX).filter(|c| is_format(*c)).map(u32::from).collect();
        // Unicode 16, DerivedGeneralCategory.txt: "Total code points: 170".
        assert_eq!(all.len(), 170);
        for known in ['\u{ad}', '\u{200b}', '\u{200e}', '\u{202d}', '\u{2060}', '\u{feff}'] {
            assert!(is_format(known), "{known:?}");
        }
        for other in ['a', ' ', '\u{a0}', '\u{3000}', '\u{fe0f}', '县', '\u{2065}', '\u{fffd}'] {
            assert!(!is_format(other), "{other:?}");
        }
    }

    #[test]
    fn the_tables_are_of_the_versions_that_the_page_names() {
        // Two nodes with other tables could disagree on characters assigned in between:
        // an update of the compiler or of that crate is told in `SPEC.md`.
        assert_eq!((char::UNICODE_VERSION.0, unicode_normalization::UNICODE_VERSION.0), (17, 18));
    }

    #[test]
    fn texts_lose_nothing_but_format_characters() {
        for (text, without) in [
            ("\u{202d}豫罚\u{ad}1号\u{202c}", "豫罚1号"),
            ("\u{feff}", ""),
            ("plain", "plain"),
            ("全角　空格", "全角　空格"),
        ] {
            assert_eq!(without_format(text), without);
        }
    }

    #[test]
    fn what_nobody_sees_is_named() {
        for (text, shown) in [
            ("豫罚1号\u{200b}", "豫罚1号⟨U+200B 零宽空格 ZERO WIDTH SPACE⟩"),
            ("a\u{200b}\u{200b}b", "a⟨U+200B 零宽空格 ZERO WIDTH SPACE ×2⟩b"),
            ("x.csv\nERROR", "x.csv⟨U+000A 换行 LINE FEED⟩ERROR"),
            ("\u{1}\u{e000}\u{2062}", "⟨U+0001⟩⟨U+E000⟩⟨U+2062⟩"),
            ("\u{e0041}", "⟨U+E0041⟩"),
            ("甲 乙　丙（〇）", "甲 乙　丙（〇）"),
        ] {
            assert_eq!(visible(text), shown);
        }
        assert!(matches!(visible("平常的 text"), Cow::Borrowed(_)));
        let hidden: String = ('\0'..=char::MAX).filter(|c| is_hidden(*c)).collect();
        assert!(!visible(&hidden).chars().any(|c| c.is_control() || is_format(c)));
    }

    #[test]
    fn nothing_printable_steers_a_terminal_or_forges_a_line() {
        for (text, shown) in [
            ("甲\u{1b}[31m乙", "甲\\u{1b}[31m乙"),
            ("a\r\nERROR b\t", "a\\u{d}\\u{a}ERROR b\\u{9}"),
            ("\u{0}\u{7f}\u{9b}\u{85}", "\\u{0}\\u{7f}\\u{9b}\\u{85}"),
            ("a\u{2028}b\u{2029}", "a\\u{2028}b\\u{2029}"),
            ("\u{202e}fdp.exe\u{2066}", "\\u{202e}fdp.exe\\u{2066}"),
            ("\u{200b}\u{feff}\u{ad}\u{e0041}", "\\u{200b}\\u{feff}\\u{ad}\\u{e0041}"),
        ] {
            assert_eq!(printable(text), shown);
            assert!(matches!(printable(shown), Cow::Borrowed(_)), "twice is as once");
        }
        // C0, DEL and C1; two ends; all of Cf.
        let hidden = ('\0'..=char::MAX).filter(|c| printable(c.encode_utf8(&mut [0; 4])).len() > 4);
        assert_eq!(hidden.count(), 65 + 2 + 170);
        for bidi in ('\u{202a}'..='\u{202e}').chain('\u{2066}'..='\u{2069}') {
            assert!(steers(bidi), "{bidi:?}");
        }
        for mark in ['\u{200e}', '\u{200f}', '\u{61c}'] {
            assert!(steers(mark), "{mark:?}");
        }
        let plain = "甲 乙　丙（〇）é ñ 👍🏽 \\u{1b}";
        assert!(matches!(printable(plain), Cow::Borrowed(same) if same == plain));
    }

    #[test]
    fn a_long_text_is_cut_and_says_so() {
        assert_eq!(visible_within("一二三四", 4), "一二三四");
        assert_eq!(visible_within("一二三四五", 4), "一二三…");
        assert_eq!(visible_within("一\u{200b}", 4), "一…");
        assert_eq!(visible_within("", 0), "");
    }
}
