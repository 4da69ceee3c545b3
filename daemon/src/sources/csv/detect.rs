//! Which encoding a file has.
//!
//! Invariant: a file is taken for GB18030 only where that is plausible, for bytes
//! that merely decode as GB18030 are not GB18030; where it is not, the candidates
//! are named and nothing is read. Not here: what a file is that is no text
//! (`sources::kind`), and rows in another encoding than their file (`decode`).

use std::io::{self, Read as _, SeekFrom};

use encoding_rs::{
    BIG5, EUC_JP, EUC_KR, GB18030, SHIFT_JIS, UTF_16BE, UTF_16LE, WINDOWS_1251, WINDOWS_1252,
};

use super::{
    decode::as_utf8,
    encoding::{Charset, Encoding},
    gb18030,
    input::{Bytes, TRANSCODED_CHUNK, read_full, read_some},
    plausible::Wide,
};

/// How much of a file that is not UTF-8 decides what it is instead.
const SAMPLE_BYTES: u64 = 1 << 20;
/// Lines that decode in no way from which on it is not by accident.
const BROKEN_LINES_MIN: u32 = 3;
/// How much of a file is looked at where a quick answer will do.
const QUICK_BYTES: usize = 64 * 1024;

/// What a file's bytes are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Detected {
    /// This, behind a byte order mark of so many bytes.
    Charset(Charset, u64),
    /// GB18030, if the header says so: what the rows say is not plausible.
    Doubtful(Candidates),
}

/// What a text that is neither UTF-8 nor plausible as GB18030 may be, the
/// likeliest first, with what it would read as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidates(pub Vec<(&'static str, String)>);

/// Finds the encoding of a file. With [`Encoding::Auto`] all of it may be read.
pub(super) fn detect(
    source: &mut dyn Bytes,
    encoding: Encoding,
    chunk: usize,
) -> io::Result<Detected> {
    source.seek(SeekFrom::Start(0))?;
    let mut front = vec![0; chunk.min(TRANSCODED_CHUNK)];
    let front_len = read_full(source, &mut front)?;
    front.truncate(front_len);
    let marked = match front.as_slice() {
        [0xef, 0xbb, 0xbf, ..] => Some((Charset::Utf8, 3)),
        [0xff, 0xfe, ..] => Some((Charset::Transcoded(UTF_16LE), 2)),
        [0xfe, 0xff, ..] => Some((Charset::Transcoded(UTF_16BE), 2)),
        _ => None,
    };
    let is_16 = |charset: Charset| charset != Charset::Utf8;
    let (charset, mark) = match encoding {
        Encoding::Utf8 => marked.filter(|mark| !is_16(mark.0)).unwrap_or((Charset::Utf8, 0)),
        Encoding::Gb18030 => (Charset::Gb18030, 0),
        Encoding::Utf16 => marked
            .filter(|mark| is_16(mark.0))
            .or_else(|| unmarked_utf16(&front).map(|charset| (charset, 0)))
            .unwrap_or((Charset::Transcoded(UTF_16LE), 0)),
        Encoding::Named(named) => (Charset::Transcoded(named), 0),
        Encoding::Auto => match (marked, unmarked_utf16(&front)) {
            (Some(mark), _) => mark,
            (None, Some(charset)) => (charset, 0),
            (None, None) => return detect_bytes(source, chunk),
        },
    };
    Ok(Detected::Charset(charset, mark))
}

/// Whether the first bytes are UTF-8.
pub fn starts_as_utf8(bytes: &mut dyn Bytes) -> bool {
    let mut front = vec![0; QUICK_BYTES];
    let Ok(length) = read_full(bytes, &mut front) else { return false };
    let front = &front[..length];
    if gb18030::is_likelier_than_utf8(front) {
        return false;
    }
    let valid = encoding_rs::Encoding::utf8_valid_up_to(front);
    // The last character may be cut.
    !front.starts_with(b"\xff\xfe") && front.len() - valid < 4 && unmarked_utf16(front).is_none()
}

/// Reads the whole file: UTF-8 if all of it is, otherwise whatever the lines
/// with other than ASCII characters are.
fn detect_bytes(source: &mut dyn Bytes, chunk: usize) -> io::Result<Detected> {
    source.seek(SeekFrom::Start(0))?;
    let mut buf = vec![0; chunk];
    let (mut held, mut offset) = (0, 0);
    let (mut first_wide, mut three_bytes) = (None, false);
    loop {
        let count = read_some(source, &mut buf[held..])?;
        if count == 0 && held == 0 {
            if three_bytes || first_wide.is_none() {
                return Ok(Detected::Charset(Charset::Utf8, 0));
            }
            // Nothing but letters of two bytes, which may be hanzi of GBK.
            break;
        }
        let data = &buf[..held + count];
        if first_wide.is_none() {
            first_wide = data.iter().position(|byte| !byte.is_ascii()).map(|at| offset + at as u64);
        }
        let valid = encoding_rs::Encoding::utf8_valid_up_to(data);
        let broken = std::str::from_utf8(&data[valid..])
            .is_err_and(|error| error.valid_up_to() > 0 || error.error_len().is_some());
        // The first byte of three or four, as every hanzi has.
        three_bytes |= data[..valid].iter().any(|byte| *byte >= 0xe0);
        // What is held at the end is a character that was cut off.
        if broken || count == 0 {
            break;
        }
        // Nothing, or the beginning of a character that goes on in the next chunk.
        held = data.len() - valid;
        offset += valid as u64;
        buf.copy_within(valid..valid + held, 0);
    }
    source.seek(SeekFrom::Start(first_wide.unwrap_or(0)))?;
    let mut sample = Vec::new();
    source.take(SAMPLE_BYTES).read_to_end(&mut sample)?;
    Ok(judge(&sample))
}

/// Tells UTF-8 with some broken rows, GB18030, and neither, by lines that have
/// other than ASCII characters.
///
/// Hardly a line of Chinese text in GB18030 is valid UTF-8, while every other
/// line of UTF-8 passes as GB18030 by accident: so the first counts, not the
/// second.
fn judge(sample: &[u8]) -> Detected {
    let (mut utf8, mut gb, mut wide) = (0u32, 0u32, 0u32);
    let (mut text, mut others, mut neutral) = (String::new(), Vec::new(), Vec::new());
    for line in sample.split(|&byte| byte == b'\n' || byte == b'\r') {
        if line.is_ascii() {
            continue;
        }
        if as_utf8(line).is_some() {
            // Two bytes may be either, and say nothing beside others.
            if line.iter().any(|byte| *byte >= 0xe0) || !gb18030::is_likelier_alone(line) {
                (wide, utf8) = (wide + 1, utf8 + 1);
            } else {
                neutral.extend_from_slice(line);
                neutral.push(b'\n');
            }
            continue;
        }
        wide += 1;
        others.extend_from_slice(line);
        others.push(b'\n');
        if let Some(read) = GB18030.decode_without_bom_handling_and_without_replacement(line) {
            gb += 1;
            text.push_str(&read);
        }
    }
    if wide == 0 {
        let charset = match gb18030::is_likelier_alone(&neutral) {
            true => Charset::Gb18030,
            false => Charset::Utf8,
        };
        return Detected::Charset(charset, 0);
    }
    if utf8 * 2 >= wide || utf8 > gb {
        return Detected::Charset(Charset::Utf8, 0);
    }
    // A cut sample, or some broken lines, are no reason to doubt.
    let decodes = gb * 2 >= wide - utf8 || wide - utf8 < BROKEN_LINES_MIN;
    if decodes && Wide::of(&text).is_plausible() {
        return Detected::Charset(Charset::Gb18030, 0);
    }
    Detected::Doubtful(candidates(&others))
}

/// Encodings under which some lines decode.
fn candidates(lines: &[u8]) -> Candidates {
    /// Characters of what a candidate would read.
    const SHOWN_CHARS: usize = 12;
    let known = [BIG5, SHIFT_JIS, EUC_KR, EUC_JP, WINDOWS_1252, WINDOWS_1251, GB18030];
    let mut found: Vec<(i64, &'static str, String)> = Vec::new();
    for encoding in known {
        let Some(text) = encoding.decode_without_bom_handling_and_without_replacement(lines) else {
            continue;
        };
        let wide = text.chars().filter(|character| !character.is_ascii());
        let shown: String = wide.take(SHOWN_CHARS).collect();
        found.push((likelihood(encoding, &text), encoding.name(), shown));
    }
    found.sort_by_key(|(score, ..)| -score);
    Candidates(found.into_iter().map(|(_, name, shown)| (name, shown)).collect())
}

/// How many of a text's characters are what an encoding is used for, in a
/// thousand.
fn likelihood(encoding: &'static encoding_rs::Encoding, text: &str) -> i64 {
    let (mut all, mut own) = (0i64, 0i64);
    for character in text.chars().filter(|character| !character.is_ascii()) {
        all += 1;
        let letter = match character {
            '\u{3040}'..='\u{30ff}' => encoding == SHIFT_JIS || encoding == EUC_JP,
            '\u{ac00}'..='\u{d7a3}' => encoding == EUC_KR,
            '\u{4e00}'..='\u{9fff}' => {
                encoding == BIG5
                    || encoding == SHIFT_JIS
                    || encoding == EUC_JP
                    || encoding == GB18030
                        && Wide::of(character.encode_utf8(&mut [0; 4])).common > 0
            }
            '\u{c0}'..='\u{ff}' => encoding == WINDOWS_1252,
            '\u{410}'..='\u{44f}' => encoding == WINDOWS_1251,
            _ => false,
        };
        own += i64::from(letter);
    }
    own * 1000 / all.max(1)
}

/// UTF-16 without a byte order mark: all of it decodes, and separators or line
/// ends stand in one byte order only.
pub(super) fn unmarked_utf16(front: &[u8]) -> Option<Charset> {
    // Separators and line ends have one, as every ASCII character.
    if !front.contains(&0) {
        return None;
    }
    let front = &front[..front.len() & !1];
    let units = |order: fn([u8; 2]) -> u16| {
        let units = front.as_chunks::<2>().0.iter().map(|&pair| order(pair)).collect::<Vec<u16>>();
        let marks = units.iter().filter(|&&unit| [0x0a, 0x0d, 0x09, 0x2c].contains(&unit)).count();
        // The last unit may be the first half of a pair.
        let whole = &units[..units.len().saturating_sub(1)];
        let decodes = !units.contains(&0)
            && char::decode_utf16(whole.iter().copied()).filter(Result::is_err).count() <= 1;
        if decodes { marks } else { 0 }
    };
    // In a file of single bytes with a stray zero, hardly any separator is
    // beside a zero.
    let bytes = front.iter().filter(|byte| b"\n\r\t,".contains(byte)).count();
    let charset = match (units(u16::from_le_bytes), units(u16::from_be_bytes)) {
        (little, big) if little > big * 8 && little * 2 >= bytes => UTF_16LE,
        (little, big) if big > little * 8 && big * 2 >= bytes => UTF_16BE,
        _ => return None,
    };
    Some(Charset::Transcoded(charset))
}
