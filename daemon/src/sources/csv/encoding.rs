//! Encodings: what may be asked for, and what a file's bytes are taken for.

use std::str::FromStr;

use encoding_rs::{GB18030, GBK, REPLACEMENT, UTF_8, UTF_16BE, UTF_16LE, X_USER_DEFINED};

/// How a file's bytes are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "&'static str")]
pub enum Encoding {
    /// Find out.
    #[default]
    Auto,
    /// UTF-8, with or without a byte order mark.
    Utf8,
    /// GB18030, which contains GBK and GB2312.
    Gb18030,
    /// UTF-16; little-endian unless the file says otherwise.
    Utf16,
    /// Another one of the WHATWG's Encoding Standard, such as Big5.
    Named(&'static encoding_rs::Encoding),
}

impl Encoding {
    /// The name that [`Encoding::from_str`] reads back.
    pub fn as_str(self) -> &'static str {
        match self {
            Encoding::Auto => "auto",
            Encoding::Utf8 => "utf-8",
            Encoding::Gb18030 => "gb18030",
            Encoding::Utf16 => "utf-16",
            Encoding::Named(encoding) => encoding.name(),
        }
    }
}

impl From<Encoding> for &'static str {
    fn from(encoding: Encoding) -> Self {
        encoding.as_str()
    }
}

impl TryFrom<String> for Encoding {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl FromStr for Encoding {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let label = text.trim();
        if label.eq_ignore_ascii_case("auto") {
            return Ok(Encoding::Auto);
        }
        // Not a label of the standard, which has "utf-16" and "utf16le" only.
        if label.eq_ignore_ascii_case("utf16") {
            return Ok(Encoding::Utf16);
        }
        let known = encoding_rs::Encoding::for_label(label.as_bytes());
        match known.filter(|known| *known != REPLACEMENT && *known != X_USER_DEFINED) {
            Some(known) if known == UTF_8 => Ok(Encoding::Utf8),
            Some(known) if known == GB18030 || known == GBK => Ok(Encoding::Gb18030),
            Some(known) if known == UTF_16LE || known == UTF_16BE => Ok(Encoding::Utf16),
            Some(known) => Ok(Encoding::Named(known)),
            None => Err(format!(
                "“{text}”不是编码名称，可写 auto、utf-8、gbk、gb18030、utf-16、big5、shift_jis、euc-kr、windows-1252 等 / \
                 '{text}' is not an encoding: write auto, utf-8, gbk, gb18030, utf-16, big5, shift_jis, euc-kr, windows-1252 or another of the WHATWG's list"
            )),
        }
    }
}

/// What a file's bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Charset {
    /// Split as it is.
    Utf8,
    /// Split as it is, too: a comma, semicolon, tab, quote or line end is never
    /// part of a character.
    Gb18030,
    /// Becomes UTF-8 on the way, since separators may be part of its characters.
    Transcoded(&'static encoding_rs::Encoding),
}

impl Charset {
    pub fn name(self) -> &'static str {
        match self {
            Charset::Utf8 => "UTF-8",
            Charset::Gb18030 => "GB18030",
            Charset::Transcoded(encoding) => encoding.name(),
        }
    }

    /// What its bytes are before anything is done to them.
    pub fn encoding(self) -> &'static encoding_rs::Encoding {
        match self {
            Charset::Utf8 => UTF_8,
            Charset::Gb18030 => GB18030,
            Charset::Transcoded(encoding) => encoding,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoding_names_are_read_and_read_back() {
        for (text, encoding) in [
            ("auto", Encoding::Auto),
            ("UTF-8", Encoding::Utf8),
            ("utf8", Encoding::Utf8),
            ("gbk", Encoding::Gb18030),
            ("GB2312", Encoding::Gb18030),
            ("gb18030", Encoding::Gb18030),
            ("utf-16", Encoding::Utf16),
            ("UTF16", Encoding::Utf16),
            ("big5", Encoding::Named(encoding_rs::BIG5)),
            ("Shift_JIS", Encoding::Named(encoding_rs::SHIFT_JIS)),
            ("euc-kr", Encoding::Named(encoding_rs::EUC_KR)),
            ("latin1", Encoding::Named(encoding_rs::WINDOWS_1252)),
            ("koi8-r", Encoding::Named(encoding_rs::KOI8_R)),
        ] {
            assert_eq!(text.parse(), Ok(encoding), "{text}");
            assert_eq!(encoding.as_str().parse(), Ok(encoding), "{text}");
        }
        for wrong in ["", "klingon", "replacement", "x-user-defined", "iso-2022-cn"] {
            assert!(wrong.parse::<Encoding>().is_err(), "{wrong}");
        }
    }
}
