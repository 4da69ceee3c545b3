//! The bytes of a file, chunk by chunk; what is neither UTF-8 nor GB18030 becomes
//! UTF-8 on the way.

use std::io::{self, Read, Seek};

use encoding_rs::DecoderResult;

use super::{encoding::Charset, separator::Separator};

/// Bytes transcoded at once; of UTF-16 they become at most half as many more.
pub(super) const TRANSCODED_CHUNK: usize = 64 * 1024;

/// What a delivered file is read from.
pub trait Bytes: Read + Seek + Send {}
impl<T: Read + Seek + Send> Bytes for T {}

/// The unread part of a file, as UTF-8 or GB18030 bytes.
pub(super) struct Input {
    source: Box<dyn Bytes>,
    transcoder: Option<Transcoder>,
    pub buf: Vec<u8>,
    pub start: usize,
    pub end: usize,
    pub eof: bool,
    pub bytes_read: u64,
    /// Bytes read at once.
    chunk: usize,
}

struct Transcoder {
    decoder: encoding_rs::Decoder,
    raw: Vec<u8>,
    text: String,
    out: Vec<u8>,
    /// Stands in for a separator of several bytes.
    wide: Option<(char, u8)>,
}

impl Input {
    /// Reads `source` from where it stands, which is behind `bytes_read` bytes.
    pub fn new(
        source: Box<dyn Bytes>,
        charset: Charset,
        separator: Separator,
        bytes_read: u64,
        chunk: usize,
    ) -> Self {
        let transcoder = match (charset, separator.wide()) {
            (Charset::Utf8 | Charset::Gb18030, None) => None,
            (charset, wide) => Some(Transcoder {
                decoder: charset.encoding().new_decoder_without_bom_handling(),
                raw: vec![0; chunk.min(TRANSCODED_CHUNK)],
                text: String::new(),
                out: Vec::new(),
                wide: wide.map(|character| (character, separator.byte())),
            }),
        };
        Self {
            source,
            transcoder,
            buf: Vec::new(),
            start: 0,
            end: 0,
            eof: false,
            bytes_read,
            chunk,
        }
    }

    pub fn unread(&self) -> &[u8] {
        &self.buf[self.start..self.end]
    }

    /// Reads on behind what is unread. Callers never ask for more while
    /// [`super::ROW_BYTES_MAX`] bytes are unread, which bounds the buffer.
    pub fn fill(&mut self) -> io::Result<()> {
        self.buf.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.buf.len() < self.end + self.chunk {
            self.buf.resize(self.end + self.chunk, 0);
        }
        let Some(transcoder) = &mut self.transcoder else {
            let count = read_some(self.source.as_mut(), &mut self.buf[self.end..])?;
            self.eof = count == 0;
            self.end += count;
            self.bytes_read += count as u64;
            return Ok(());
        };
        let count = read_some(self.source.as_mut(), &mut transcoder.raw)?;
        self.eof = count == 0;
        self.bytes_read += count as u64;
        let read = transcoder.read(count, self.eof);
        self.buf.truncate(self.end);
        self.buf.extend_from_slice(read);
        self.end = self.buf.len();
        Ok(())
    }
}

impl Transcoder {
    /// What the first `count` raw bytes become.
    fn read(&mut self, count: usize, last: bool) -> &[u8] {
        self.text.clear();
        let mut out = std::mem::take(&mut self.out);
        out.clear();
        let mut raw = &self.raw[..count];
        loop {
            let room = self.decoder.max_utf8_buffer_length_without_replacement(raw.len());
            self.text.reserve(room.unwrap_or(raw.len() * 3));
            let (result, read) =
                self.decoder.decode_to_string_without_replacement(raw, &mut self.text, last);
            raw = &raw[read..];
            match result {
                DecoderResult::InputEmpty => break,
                DecoderResult::OutputFull => {}
                DecoderResult::Malformed(..) => {
                    // A byte that is never UTF-8 carries the fault to the row it
                    // belongs to.
                    out.extend_from_slice(self.text.as_bytes());
                    out.push(0xff);
                    self.text.clear();
                }
            }
        }
        out.extend_from_slice(self.text.as_bytes());
        if let Some((wide, byte)) = self.wide {
            out = replaced(&out, wide, byte);
        }
        self.out = out;
        &self.out
    }
}

/// `bytes` with another byte in place of a character, and in place of that byte,
/// which no text has, one that is never UTF-8.
fn replaced(bytes: &[u8], wide: char, byte: u8) -> Vec<u8> {
    let mut buffer = [0; 4];
    let wide = wide.encode_utf8(&mut buffer).as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(&first) = rest.first() {
        if rest.starts_with(wide) {
            out.push(byte);
            rest = &rest[wide.len()..];
        } else {
            out.push(if first == byte { 0xff } else { first });
            rest = &rest[1..];
        }
    }
    out
}

pub(super) fn read_some(source: &mut dyn Bytes, into: &mut [u8]) -> io::Result<usize> {
    loop {
        match source.read(into) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

pub(super) fn read_full(source: &mut dyn Bytes, into: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < into.len() {
        match read_some(source, &mut into[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}
