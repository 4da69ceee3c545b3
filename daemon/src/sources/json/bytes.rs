//! A JSON file's bytes as UTF-8, chunk by chunk, with the line at which it stands.
//!
//! Used by [`super::elements`] and [`super::shape`]. Invariant: what is no
//! character in the file's encoding becomes a byte that is never UTF-8, so that it
//! costs the element that it lies in. Not here: where elements end.

use std::io::{self, Read as _, Seek as _};

use encoding_rs::{Decoder, DecoderResult, Encoding, UTF_8, UTF_16BE, UTF_16LE};

use super::error::{Charset, Input};

/// Bytes read at once: large enough that system calls do not show.
const CHUNK: usize = 128 * 1024;

/// Finds the encoding; `input` stands at its front then.
pub(super) fn detect(
    input: &mut Box<dyn Input>,
    charset: Charset,
) -> io::Result<&'static Encoding> {
    let mut front = Vec::new();
    input.as_mut().take(4).read_to_end(&mut front)?;
    input.rewind()?;
    Ok(match (front.as_slice(), charset) {
        ([0xff, 0xfe, ..] | [b'{' | b'[', 0, ..], _) => UTF_16LE,
        ([0xfe, 0xff, ..] | [0, b'{' | b'[', ..], _) => UTF_16BE,
        ([0xef, 0xbb, 0xbf, ..], _) | (_, Charset::Auto) => UTF_8,
        (_, Charset::Named(encoding)) => encoding,
    })
}

pub(super) struct Bytes {
    input: Box<dyn Input>,
    encoding: &'static Encoding,
    /// None for UTF-8, whose bytes are looked at as they are.
    decoder: Option<Decoder>,
    raw: Vec<u8>,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    eof: bool,
    read: u64,
    line: u64,
}

impl Bytes {
    /// `input` stands at its front.
    pub(super) fn new(input: Box<dyn Input>, encoding: &'static Encoding) -> Self {
        let decoder = (encoding != UTF_8).then(|| encoding.new_decoder_with_bom_removal());
        Self {
            input,
            encoding,
            decoder,
            raw: Vec::new(),
            buffer: Vec::new(),
            start: 0,
            end: 0,
            eof: false,
            read: 0,
            line: 1,
        }
    }

    /// The same from the front.
    pub(super) fn again(mut self) -> io::Result<Self> {
        self.input.rewind()?;
        Ok(Self::new(self.input, self.encoding))
    }

    #[cfg(test)]
    pub(super) fn buffer_bytes(&self) -> usize {
        self.buffer.capacity()
    }

    pub(super) fn encoding(&self) -> &'static str {
        self.encoding.name()
    }

    /// Bytes of the file that were read.
    pub(super) fn read(&self) -> u64 {
        self.read
    }

    /// The physical line of the next byte, from 1.
    pub(super) fn line(&self) -> u64 {
        self.line
    }

    pub(super) fn unread(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Whether nothing follows what is unread.
    pub(super) fn is_at_end(&self) -> bool {
        self.eof
    }

    /// Goes on behind the next `count` bytes, which are unread.
    pub(super) fn consume(&mut self, count: usize) {
        let passed = &self.buffer[self.start..self.start + count];
        self.line += passed.iter().filter(|byte| **byte == b'\n').count() as u64;
        self.start += count;
    }

    /// The next byte, without going on.
    pub(super) fn peek(&mut self) -> io::Result<Option<u8>> {
        while self.unread().is_empty() && !self.eof {
            self.fill()?;
        }
        Ok(self.unread().first().copied())
    }

    /// Reads more behind what is unread. Callers consume once that has 1 MiB, which
    /// bounds the buffer.
    pub(super) fn fill(&mut self) -> io::Result<()> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        let first = self.read == 0;
        let Some(decoder) = &mut self.decoder else {
            self.buffer.resize(self.end + CHUNK, 0);
            let count = read_some(&mut self.input, &mut self.buffer[self.end..])?;
            self.eof = count == 0;
            self.read += count as u64;
            self.end += count;
            if first && self.unread().starts_with(b"\xef\xbb\xbf") {
                self.start = 3;
            }
            return Ok(());
        };
        self.raw.resize(CHUNK, 0);
        let count = read_some(&mut self.input, &mut self.raw)?;
        self.eof = count == 0;
        self.read += count as u64;
        let mut raw = &self.raw[..count];
        loop {
            self.buffer.resize(self.end + CHUNK, 0);
            let (result, read, written) = decoder.decode_to_utf8_without_replacement(
                raw,
                &mut self.buffer[self.end..],
                self.eof,
            );
            raw = &raw[read..];
            self.end += written;
            match result {
                DecoderResult::InputEmpty => return Ok(()),
                DecoderResult::OutputFull => {}
                DecoderResult::Malformed(..) => {
                    if self.end == self.buffer.len() {
                        self.buffer.push(0);
                    }
                    self.buffer[self.end] = 0xff;
                    self.end += 1;
                }
            }
        }
    }
}

fn read_some(input: &mut Box<dyn Input>, into: &mut [u8]) -> io::Result<usize> {
    loop {
        match input.read(into) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}
