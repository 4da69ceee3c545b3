//! What a file is: which encoding, or no text at all.

use std::io::{self, Read as _, SeekFrom};

use super::{
    super::error::NotText,
    Encoding, as_utf8,
    input::{Bytes, Charset, UTF16_CHUNK, read_full, read_some},
    push_decoded,
};

/// How much of a file that is not UTF-8 decides what it is instead.
const SAMPLE_BYTES: u64 = 1 << 20;
/// How much of a file is looked at where a quick answer will do.
const QUICK_BYTES: usize = 64 * 1024;

/// Finds the charset and how many bytes its byte order mark takes.
pub(super) fn detect(
    source: &mut dyn Bytes,
    encoding: Encoding,
    chunk: usize,
) -> io::Result<Result<(Charset, u64), NotText>> {
    let mut front = vec![0; chunk.min(UTF16_CHUNK)];
    let front_len = read_full(source, &mut front)?;
    front.truncate(front_len);
    if let Some(kind) = magic(&front) {
        return Ok(Err(kind));
    }
    let marked = match front.as_slice() {
        [0xef, 0xbb, 0xbf, ..] => Some((Charset::Utf8, 3)),
        [0xff, 0xfe, ..] => Some((Charset::Utf16Le, 2)),
        [0xfe, 0xff, ..] => Some((Charset::Utf16Be, 2)),
        _ => None,
    };
    let is_16 = |charset| matches!(charset, Charset::Utf16Le | Charset::Utf16Be);
    Ok(Ok(match encoding {
        Encoding::Utf8 => {
            marked.filter(|mark| mark.0 == Charset::Utf8).unwrap_or((Charset::Utf8, 0))
        }
        Encoding::Gb18030 => (Charset::Gb18030, 0),
        Encoding::Utf16 => marked
            .filter(|mark| is_16(mark.0))
            .or_else(|| unmarked_utf16(&front).map(|charset| (charset, 0)))
            .unwrap_or((Charset::Utf16Le, 0)),
        Encoding::Auto => match marked {
            Some(mark) if is_16(mark.0) => mark,
            _ => return detect_bytes(source, &front, marked, chunk),
        },
    }))
}

/// Whether the first bytes are UTF-8 without zeros.
pub fn starts_as_utf8(bytes: &mut dyn Bytes) -> bool {
    let mut front = vec![0; QUICK_BYTES];
    let Ok(length) = read_full(bytes, &mut front) else { return false };
    let front = &front[..length];
    let valid = encoding_rs::Encoding::utf8_valid_up_to(front);
    // The last character may be cut.
    !front.contains(&0) && front.len() - valid < 4
}

/// Reads the whole file: UTF-8 if all of it is, otherwise whatever the lines
/// with other than ASCII characters are.
pub(super) fn detect_bytes(
    source: &mut dyn Bytes,
    front: &[u8],
    marked: Option<(Charset, u64)>,
    chunk: usize,
) -> io::Result<Result<(Charset, u64), NotText>> {
    let mut buf = vec![0; chunk];
    let (mut held, mut offset) = (0, 0);
    let mut first_wide = None;
    let mut utf8 = true;
    source.seek(SeekFrom::Start(0))?;
    loop {
        let count = read_some(source, &mut buf[held..])?;
        if count == 0 {
            // What is held is a character that was cut off.
            utf8 &= held == 0;
            break;
        }
        let data = &buf[..held + count];
        if data.contains(&0) {
            return Ok(match unmarked_utf16(front) {
                Some(charset) if marked.is_none() => Ok((charset, 0)),
                _ => Err(NotText::Binary),
            });
        }
        if first_wide.is_none() {
            first_wide = data.iter().position(|byte| !byte.is_ascii()).map(|at| offset + at as u64);
        }
        offset += data.len() as u64;
        held = 0;
        if utf8 {
            let cut = encoding_rs::Encoding::utf8_valid_up_to(data)..data.len();
            match std::str::from_utf8(&data[cut.clone()]) {
                Err(error) if error.valid_up_to() > 0 || error.error_len().is_some() => {
                    utf8 = false;
                }
                // Nothing, or the beginning of a character that goes on in the
                // next chunk.
                _ => {
                    held = cut.len();
                    offset -= held as u64;
                    buf.copy_within(cut, 0);
                }
            }
        }
    }
    let utf8_found = marked.unwrap_or((Charset::Utf8, 0));
    if utf8 || marked.is_some() {
        return Ok(Ok(utf8_found));
    }
    source.seek(SeekFrom::Start(first_wide.unwrap_or(0)))?;
    let mut sample = Vec::new();
    source.take(SAMPLE_BYTES).read_to_end(&mut sample)?;
    Ok(Ok(if looks_like_broken_utf8(&sample) { utf8_found } else { (Charset::Gb18030, 0) }))
}

/// Tells UTF-8 with some broken rows from GB18030, by lines that have other
/// than ASCII characters.
///
/// Hardly a line of Chinese text in GB18030 is valid UTF-8, while every other
/// line of UTF-8 passes as GB18030 by accident: so the first counts, not the
/// second.
pub(super) fn looks_like_broken_utf8(sample: &[u8]) -> bool {
    let (mut utf8, mut gb18030, mut wide) = (0u32, 0u32, 0u32);
    let mut scratch = String::new();
    for line in sample.split(|&byte| byte == b'\n' || byte == b'\r') {
        if line.is_ascii() {
            continue;
        }
        wide += 1;
        utf8 += u32::from(as_utf8(line).is_some());
        scratch.clear();
        gb18030 += u32::from(push_decoded(line, Charset::Gb18030, &mut scratch));
    }
    utf8 * 2 >= wide || utf8 > gb18030
}

/// UTF-16 without a byte order mark: all of it decodes, and separators or line
/// ends stand in one byte order only.
pub(super) fn unmarked_utf16(front: &[u8]) -> Option<Charset> {
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
    match (units(u16::from_le_bytes), units(u16::from_be_bytes)) {
        (little, big) if little > big * 8 && little * 2 >= bytes => Some(Charset::Utf16Le),
        (little, big) if big > little * 8 && big * 2 >= bytes => Some(Charset::Utf16Be),
        _ => None,
    }
}

/// Files of other kinds, by how they begin.
pub(super) fn magic(front: &[u8]) -> Option<NotText> {
    let kinds: [(&[u8], NotText); 18] = [
        (b"PK\x03\x04", NotText::Excel),
        (b"\xd0\xcf\x11\xe0", NotText::Excel),
        (b"%PDF", NotText::Pdf),
        (b"\x1f\x8b", NotText::Archive),
        (b"PK\x05\x06", NotText::Archive),
        (b"Rar!", NotText::Archive),
        (b"7z\xbc\xaf\x27\x1c", NotText::Archive),
        (b"\x28\xb5\x2f\xfd", NotText::Archive),
        (b"\xfd7zXZ\0", NotText::Archive),
        (b"BZh", NotText::Archive),
        (b"\x89PNG", NotText::Picture),
        (b"\xff\xd8\xff", NotText::Picture),
        (b"GIF8", NotText::Picture),
        (b"SQLite format 3\0", NotText::Database),
        (b"\xff\xfe\0\0", NotText::Utf32),
        (b"\0\0\xfe\xff", NotText::Utf32),
        (b"\x7fELF", NotText::Binary),
        (b"MZ\x90\0", NotText::Binary),
    ];
    if let Some((bytes, kind)) = kinds.iter().find(|(bytes, _)| front.starts_with(bytes)) {
        // A ZIP archive is a workbook if its first entry says so, or is one of
        // the parts that every workbook begins with.
        if *bytes == b"PK\x03\x04" {
            let names: [&[u8]; 5] =
                [b"[Content_Types].xml", b"xl/", b"_rels/", b"docProps/", b"mimetype"];
            let name = front.get(30..).unwrap_or_default();
            let short = name.len() < 4;
            let workbook = short || names.iter().any(|known| name.starts_with(known));
            return Some(if workbook { NotText::Excel } else { NotText::Archive });
        }
        return Some(*kind);
    }
    let text = front.strip_prefix(b"\xef\xbb\xbf").unwrap_or(front).trim_ascii_start();
    let lower = text.iter().take(16).map(u8::to_ascii_lowercase).collect::<Vec<u8>>();
    let markup: [&[u8]; 5] = [b"<?xml", b"<html", b"<!doctype", b"<table", b"<meta"];
    markup.iter().any(|tag| lower.starts_with(tag)).then_some(NotText::Markup)
}
