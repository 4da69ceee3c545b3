//! Splits bytes into records and fields, by the grammar that [`super`] describes.

use crate::ingest::rows::{Escape, Span};

/// What lies at the front of some bytes.
#[derive(Debug)]
pub(super) enum Scan {
    /// The data ends before the record does.
    Incomplete,
    Record {
        body: usize,
        end: usize,
        lines: u64,
        fields: usize,
        escaped: bool,
        /// All fields beyond those that are kept are empty.
        tail_blank: bool,
    },
    /// A quoted field is not closed, or followed by something else than a
    /// separator or line end.
    BadQuote { column: usize, first_line: bool },
}

/// How a quote inside a quoted field is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quotes {
    /// Twice (RFC 4180).
    Doubled,
    /// Twice, or behind a backslash (MySQL).
    Backslash,
}

/// What the bytes of a file mean.
#[derive(Debug, Clone, Copy)]
pub(super) struct Grammar {
    /// Between two fields.
    pub separator: u8,
    /// Within quoted fields.
    pub quotes: Quotes,
    /// A carriage return alone ends a line, too.
    pub lone_cr: bool,
}

/// What may end a line beside a line feed, for [`find3`].
pub(super) fn other_end(lone_cr: bool) -> u8 {
    if lone_cr { b'\r' } else { b'\n' }
}

/// Splits the record at the front of `data`, which is not empty. `eof` says
/// that nothing follows `data`. At most `keep` spans are kept.
pub(super) fn scan_record(
    data: &[u8],
    eof: bool,
    grammar: Grammar,
    spans: &mut Vec<Span>,
    keep: usize,
) -> Scan {
    let Grammar { separator, quotes, lone_cr } = grammar;
    let other_end = other_end(lone_cr);
    spans.clear();
    // Zero bytes in front are what an interrupted write left.
    let mut at = data.iter().position(|byte| *byte != 0).unwrap_or(0);
    let (mut lines, mut fields, mut any_escaped, mut tail_blank) = (1, 0, false, true);
    loop {
        let (quote, blanks_end) = match data.get(at) {
            Some(b'"') => (Some(at), at),
            Some(&byte) if is_blank(byte, separator) => {
                let end = skip_blanks(data, at, separator);
                ((data.get(end) == Some(&b'"')).then_some(end), end)
            }
            _ => (None, at),
        };
        if blanks_end == data.len() && !eof {
            return Scan::Incomplete;
        }
        let span = if let Some(quote) = quote {
            let start = quote + 1;
            let mut escape = Escape::None;
            at = start;
            loop {
                at = match quotes {
                    Quotes::Doubled => find3(data, at, b'"', b'\n', other_end),
                    Quotes::Backslash => {
                        let quote = find3(data, at, b'"', b'\n', other_end);
                        find3(&data[..quote], at, b'\\', b'\\', b'\\')
                    }
                };
                match (data.get(at), data.get(at + 1)) {
                    (None, _) if eof => {
                        return Scan::BadQuote { column: fields + 1, first_line: false };
                    }
                    (None, _) => return Scan::Incomplete,
                    // What the byte means depends on the one behind it.
                    (Some(b'"' | b'\r' | b'\\'), None) if !eof => return Scan::Incomplete,
                    (Some(b'"'), Some(b'"')) => {
                        if escape == Escape::None {
                            escape = Escape::Doubled;
                        }
                        at += 2;
                    }
                    (Some(b'"'), _) => break,
                    (Some(b'\\'), Some(b'"' | b'\\')) => {
                        escape = Escape::Backslash;
                        at += 2;
                    }
                    (Some(b'\\'), _) => at += 1,
                    (Some(b'\r'), Some(b'\n')) => {
                        lines += 1;
                        at += 2;
                    }
                    (Some(_), _) => {
                        lines += 1;
                        at += 1;
                    }
                }
            }
            any_escaped |= escape != Escape::None;
            let end = at;
            at = skip_blanks(data, at + 1, separator);
            if at == data.len() && !eof {
                return Scan::Incomplete;
            }
            Span::quoted(start, end, escape)
        } else {
            let start = at;
            at = find3(data, at, separator, b'\n', other_end);
            if at > start && data.get(at) == Some(&b'\n') && data[at - 1] == b'\r' {
                at -= 1;
            }
            Span::plain(start, at)
        };
        fields += 1;
        if fields <= keep {
            spans.push(span);
        } else if tail_blank {
            tail_blank = data[span.range()].iter().all(|byte| is_empty(*byte));
        }
        let end = match data.get(at) {
            Some(&byte) if byte == separator => {
                at += 1;
                continue;
            }
            None if eof => at,
            None => return Scan::Incomplete,
            Some(b'\n') => at + 1,
            Some(b'\r') => match data.get(at + 1) {
                Some(b'\n') => at + 2,
                None if !eof => return Scan::Incomplete,
                Some(_) if !lone_cr => {
                    return Scan::BadQuote { column: fields, first_line: lines == 1 };
                }
                _ => at + 1,
            },
            Some(_) => return Scan::BadQuote { column: fields, first_line: lines == 1 },
        };
        if let Some(last) = spans.last_mut()
            && fields <= keep
            && data[..at].last() == Some(&0)
        {
            *last = last.without_zeros_behind(data);
        }
        return Scan::Record { body: at, end, lines, fields, escaped: any_escaped, tail_blank };
    }
}

/// White space or a zero byte beside a quote, other than the separator.
fn is_blank(byte: u8, separator: u8) -> bool {
    matches!(byte, b' ' | b'\t' | 0) && byte != separator
}

/// What a blank row may consist of, beside separators: also the end of file of
/// DOS, and zero bytes.
pub(super) fn is_empty(byte: u8) -> bool {
    byte.is_ascii_whitespace() || matches!(byte, 0 | 0x1a)
}

fn skip_blanks(data: &[u8], from: usize, separator: u8) -> usize {
    let rest = data.get(from..).unwrap_or_default();
    let blank = rest.iter().position(|byte| !is_blank(*byte, separator));
    from + blank.unwrap_or(rest.len())
}

/// The record at the front of `data`, if it has no quote and is not blank: where
/// its body ends, and where the next record begins. It is the one that
/// [`scan_record`] finds, but for its fields, at a tenth of the cost.
pub(super) fn plain_record(data: &[u8], lone_cr: bool) -> Option<(usize, usize)> {
    let (body, end) = if lone_cr {
        let body = memchr::memchr3(b'"', b'\n', b'\r', data)?;
        match (data[body], data.get(body + 1)) {
            (b'\n', _) => (body, body + 1),
            (b'\r', Some(b'\n')) => (body, body + 2),
            (b'\r', Some(_)) => (body, body + 1),
            _ => return None,
        }
    } else {
        match memchr::memchr2(b'"', b'\n', data)? {
            at if data[at] == b'"' => return None,
            at if data[..at].ends_with(b"\r") => (at - 1, at + 1),
            at => (at, at + 1),
        }
    };
    // Only what begins with white space, or with nothing, may be blank.
    (body > 0 && !is_empty(data[0])).then_some((body, end))
}

/// The first place from `from` on with one of three bytes, or the end.
///
/// Eight bytes a step: subtracting one from each byte of `word ^ needle`
/// borrows into the top bit exactly where the byte was zero; a false hit can
/// only lie above a true one, so the lowest hit is right.
pub(super) fn find3(data: &[u8], from: usize, a: u8, b: u8, c: u8) -> usize {
    const ONES: u64 = u64::from_le_bytes([0x01; 8]);
    const TOPS: u64 = u64::from_le_bytes([0x80; 8]);
    let (wide_a, wide_b, wide_c) = (ONES * u64::from(a), ONES * u64::from(b), ONES * u64::from(c));
    let mut at = from;
    while let Some(&chunk) = data.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(chunk);
        let (x, y, z) = (word ^ wide_a, word ^ wide_b, word ^ wide_c);
        let hits =
            (x.wrapping_sub(ONES) & !x | y.wrapping_sub(ONES) & !y | z.wrapping_sub(ONES) & !z)
                & TOPS;
        if hits != 0 {
            return at + hits.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while let Some(&byte) = data.get(at) {
        if byte == a || byte == b || byte == c {
            return at;
        }
        at += 1;
    }
    data.len()
}
