//! The bytes of a file, chunk by chunk; UTF-16 becomes UTF-8 on the way.

use std::io::{self, Read, Seek};

use encoding_rs::{DecoderResult, UTF_16BE, UTF_16LE};

/// Bytes of UTF-16 transcoded at once; they become at most half as many more.
pub(super) const UTF16_CHUNK: usize = 64 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Charset {
    Utf8,
    Gb18030,
    Utf16Le,
    Utf16Be,
}

impl Charset {
    pub(super) fn name(self) -> &'static str {
        match self {
            Charset::Utf8 => "UTF-8",
            Charset::Gb18030 => "GB18030",
            Charset::Utf16Le => "UTF-16LE",
            Charset::Utf16Be => "UTF-16BE",
        }
    }
}

/// What a delivered file is read from.
pub trait Bytes: Read + Seek + Send {}
impl<T: Read + Seek + Send> Bytes for T {}

/// The unread part of a file, as UTF-8 or GB18030 bytes.
pub(super) struct Input {
    pub(super) source: Box<dyn Bytes>,
    pub(super) utf16: Option<Utf16>,
    pub(super) buf: Vec<u8>,
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) eof: bool,
    pub(super) bytes_read: u64,
    /// Bytes read at once.
    pub(super) chunk: usize,
}

pub(super) struct Utf16 {
    decoder: encoding_rs::Decoder,
    raw: Vec<u8>,
}

impl Input {
    pub(super) fn new(
        source: Box<dyn Bytes>,
        charset: Charset,
        bytes_read: u64,
        chunk: usize,
    ) -> Self {
        let utf16 = match charset {
            Charset::Utf8 | Charset::Gb18030 => None,
            Charset::Utf16Le => Some(UTF_16LE),
            Charset::Utf16Be => Some(UTF_16BE),
        };
        let utf16 = utf16.map(|encoding| Utf16 {
            decoder: encoding.new_decoder_without_bom_handling(),
            raw: vec![0; chunk.min(UTF16_CHUNK)],
        });
        Self { source, utf16, buf: Vec::new(), start: 0, end: 0, eof: false, bytes_read, chunk }
    }

    pub(super) fn unread(&self) -> &[u8] {
        &self.buf[self.start..self.end]
    }

    /// Reads on behind what is unread. Callers never ask for more while
    /// [`ROW_BYTES_MAX`] bytes are unread, which bounds the buffer.
    pub(super) fn fill(&mut self) -> io::Result<()> {
        self.buf.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.buf.len() < self.end + self.chunk {
            self.buf.resize(self.end + self.chunk, 0);
        }
        let Some(utf16) = &mut self.utf16 else {
            let count = read_some(self.source.as_mut(), &mut self.buf[self.end..])?;
            self.eof = count == 0;
            self.end += count;
            self.bytes_read += count as u64;
            return Ok(());
        };
        let count = read_some(self.source.as_mut(), &mut utf16.raw)?;
        self.eof = count == 0;
        self.bytes_read += count as u64;
        let mut raw = &utf16.raw[..count];
        loop {
            let (result, read, written) = utf16.decoder.decode_to_utf8_without_replacement(
                raw,
                &mut self.buf[self.end..],
                self.eof,
            );
            raw = &raw[read..];
            self.end += written;
            match result {
                DecoderResult::InputEmpty => return Ok(()),
                DecoderResult::OutputFull => self.buf.resize(self.buf.len() + self.chunk, 0),
                DecoderResult::Malformed(..) => {
                    // A byte that is never UTF-8 carries the fault to the row
                    // it belongs to.
                    if self.end == self.buf.len() {
                        self.buf.resize(self.buf.len() + self.chunk, 0);
                    }
                    self.buf[self.end] = 0xff;
                    self.end += 1;
                }
            }
        }
    }
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
