//! A record's bytes to the texts of its fields.

use std::borrow::Cow;

use encoding_rs::{DecoderResult, GB18030, UTF_8};

use super::{encoding::Charset, gb18030, plausible::Wide};
use crate::ingest::rows::{Escape, Fields, RowNote, RowProblem, Span};

/// How a file's records become text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Decoder {
    pub charset: Charset,
    /// Somebody said that this is the encoding.
    pub named: bool,
    /// A byte that stands for a separator of several bytes, and that separator:
    /// within a quoted field it was no separator.
    pub wide: Option<(u8, char)>,
}

/// Room that rows share.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    text: String,
    spans: Vec<Span>,
}

impl Decoder {
    /// The fields of a record as text, and what is odd about its encoding; or why
    /// they are none. `escaped` says that some field has
    /// escaped quotes.
    pub fn fields<'a>(
        &self,
        body: &'a [u8],
        spans: &'a [Span],
        escaped: bool,
        scratch: &'a mut Scratch,
    ) -> Result<(Fields<'a>, Option<RowNote>), RowProblem> {
        let encoding = self.charset.name();
        let no_text = |column| RowProblem::Encoding { column, encoding };
        let as_is = !escaped && self.wide.is_none();
        if body.is_ascii() {
            return match as_utf8(body) {
                Some(text) if as_is => Ok((Fields::new(text, spans), None)),
                _ => {
                    let fields = self.rewritten(body, spans, false, scratch).map_err(no_text)?;
                    Ok((fields, None))
                }
            };
        }
        match (self.charset, as_utf8(body)) {
            // It was UTF-8 before it was taken for GB18030: which separators it had
            // is not known any more.
            (Charset::Transcoded(encoding), Some(text))
                if encoding == GB18030 && was_utf8(text) =>
            {
                Err(no_text(1))
            }
            (Charset::Transcoded(encoding), Some(text)) if encoding == GB18030 => {
                let note = self.note(gb18030::judge_text(text))?;
                if as_is {
                    return Ok((Fields::new(text, spans), note));
                }
                let fields = self.rewritten(body, spans, false, scratch).map_err(no_text)?;
                Ok((fields, note))
            }
            // A row of another file, most likely.
            (Charset::Utf8, Some(_)) if !self.named && gb18030::is_likelier_than_utf8(body) => {
                let fields = self.rewritten(body, spans, true, scratch).map_err(no_text)?;
                Ok((fields, Some(RowNote::OtherEncoding)))
            }
            (Charset::Utf8 | Charset::Transcoded(_), Some(text)) if as_is => {
                Ok((Fields::new(text, spans), None))
            }
            (Charset::Utf8 | Charset::Transcoded(_), Some(_)) => {
                let fields = self.rewritten(body, spans, false, scratch).map_err(no_text)?;
                Ok((fields, None))
            }
            // A row of another file, most likely.
            (Charset::Utf8, None) if is_likely_gb18030(body) => {
                let fields = self.rewritten(body, spans, true, scratch).map_err(no_text)?;
                Ok((fields, Some(RowNote::OtherEncoding)))
            }
            (Charset::Utf8 | Charset::Transcoded(_), None) => {
                let broken = |span: &Span| as_utf8(&body[span.range()]).is_none();
                Err(no_text(spans.iter().position(broken).map_or(1, |index| index + 1)))
            }
            (Charset::Gb18030, Some(text)) if is_likelier_as_utf8(text, body) => {
                let fields = self.rewritten(body, spans, false, scratch).map_err(no_text)?;
                Ok((fields, Some(RowNote::OtherEncoding)))
            }
            (Charset::Gb18030, _) => {
                let fields = self.rewritten(body, spans, true, scratch).map_err(no_text)?;
                Ok((fields, self.note(gb18030::judge_row(body))?))
            }
        }
    }

    /// What a verdict comes to where nobody said that this is the encoding.
    fn note(&self, verdict: gb18030::Verdict) -> Result<Option<RowNote>, RowProblem> {
        match verdict {
            _ if self.named => Ok(None),
            gb18030::Verdict::Plausible => Ok(None),
            gb18030::Verdict::Doubtful => Ok(Some(RowNote::Doubtful)),
            gb18030::Verdict::Impossible => {
                Err(RowProblem::Implausible { encoding: self.charset.name() })
            }
        }
    }

    /// The line as far as it is text, for people.
    pub fn lossy(&self, line: &[u8]) -> String {
        let encoding = match self.charset {
            Charset::Gb18030 if as_utf8(line).is_none() => GB18030,
            _ => UTF_8,
        };
        let text = encoding.decode_without_bom_handling(line).0;
        match self.wide {
            None => text.into_owned(),
            Some((byte, wide)) => text.replace(char::from(byte), wide.encode_utf8(&mut [0; 4])),
        }
    }

    fn rewritten<'a>(
        &self,
        body: &[u8],
        spans: &[Span],
        gb18030: bool,
        scratch: &'a mut Scratch,
    ) -> Result<Fields<'a>, usize> {
        let Scratch { text, spans: places } = scratch;
        text.clear();
        places.clear();
        for (index, span) in spans.iter().enumerate() {
            let mut rest = &body[span.range()];
            let start = text.len();
            while !rest.is_empty() {
                let (plain, character, behind) = piece(rest, *span, self.wide);
                if !push_decoded(&rest[..plain], gb18030, text) {
                    return Err(index + 1);
                }
                text.extend(character);
                rest = &rest[behind..];
            }
            let end = text.len();
            places.push(if span.is_quoted() {
                Span::quoted(start, end, Escape::None)
            } else {
                Span::plain(start, end)
            });
        }
        Ok(Fields::new(text, places))
    }
}

/// Up to where bytes stand for themselves, the character behind them, and where it
/// goes on after that.
fn piece(rest: &[u8], span: Span, wide: Option<(u8, char)>) -> (usize, Option<char>, usize) {
    let special = rest.iter().position(|&byte| match byte {
        b'"' | b'\\' => {
            span.escape() == Escape::Backslash || (byte == b'"' && span.escape() != Escape::None)
        }
        _ => wide.is_some_and(|(stands_for, _)| byte == stands_for),
    });
    let Some(at) = special else {
        return (rest.len(), None, rest.len());
    };
    match (rest[at], rest.get(at + 1)) {
        // Every quote within such a field is the first of two.
        (b'"', _) => (at, Some('"'), (at + 2).min(rest.len())),
        (b'\\', Some(b'"')) => (at, Some('"'), at + 2),
        (b'\\', Some(b'\\')) => (at, Some('\\'), at + 2),
        (b'\\', _) => (at, Some('\\'), at + 1),
        _ => (at, wide.map(|(_, character)| character), at + 1),
    }
}

/// Whether a row of a UTF-8 file that is no UTF-8 is what somebody wrote in
/// GB18030.
fn is_likely_gb18030(body: &[u8]) -> bool {
    // With hanzi of three bytes it is UTF-8, of which a byte is damaged.
    let (mut hanzi, mut broken) = (0u32, 0u32);
    for character in String::from_utf8_lossy(body).chars() {
        hanzi += u32::from(('\u{4e00}'..='\u{9fff}').contains(&character));
        broken += u32::from(character == '\u{fffd}');
    }
    if hanzi > 0 && hanzi >= broken {
        return false;
    }
    let text = GB18030.decode_without_bom_handling_and_without_replacement(body);
    text.is_some_and(|text| {
        let wide = Wide::of(&text);
        wide.is_plausible() && wide.common > 0
    })
}

/// Whether a row of a GB18030 file rather is UTF-8, as which it is `text`.
fn is_likelier_as_utf8(text: &str, body: &[u8]) -> bool {
    match GB18030.decode_without_bom_handling_and_without_replacement(body) {
        None => true,
        Some(other) => Wide::of(text).score() > Wide::of(&other).score(),
    }
}

/// Whether a text that was read as GB18030 rather is UTF-8.
fn was_utf8(text: &str) -> bool {
    let (bytes, _, lost) = GB18030.encode(text);
    !lost && as_utf8(&bytes).is_some_and(|read| is_likelier_as_utf8(read, &bytes))
}

/// As the standard library's check, but vectorised: finding the encoding of
/// Chinese text and splitting it takes half the time.
pub(super) fn as_utf8(bytes: &[u8]) -> Option<&str> {
    match UTF_8.decode_without_bom_handling_and_without_replacement(bytes) {
        Some(Cow::Borrowed(text)) => Some(text),
        _ => None,
    }
}

fn push_decoded(bytes: &[u8], gb18030: bool, out: &mut String) -> bool {
    if !gb18030 || bytes.is_ascii() {
        return as_utf8(bytes).map(|text| out.push_str(text)).is_some();
    }
    let mut decoder = GB18030.new_decoder_without_bom_handling();
    let Some(room) = decoder.max_utf8_buffer_length_without_replacement(bytes.len()) else {
        return false;
    };
    out.reserve(room);
    let (result, _) = decoder.decode_to_string_without_replacement(bytes, out, true);
    result == DecoderResult::InputEmpty
}
