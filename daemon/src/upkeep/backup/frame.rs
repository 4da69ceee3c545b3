//! A backup as frames. The format stands in [`super`].
//!
//! Invariants: a frame is handed on only when its checksum is right, which is over all
//! frames before it, too; no length is believed beyond its limit; the end is an end.

use std::io::{self, ErrorKind, Read, Write};

use protocol::{codec, suite::checksum::Checksum};
use store::PIECE_BYTES_MAX;

use super::words::BackupError;

/// What every backup begins with.
const MAGIC: [u8; 8] = *b"CSBACKUP";
/// The one format that this program writes and reads.
pub const FORMAT: u32 = 1;
/// Bytes of the checksum of the beginning.
const BEGINNING_CHECK_BYTES: usize = 4;
const BEGINNING_BYTES: usize = MAGIC.len() + 4 + BEGINNING_CHECK_BYTES;

/// Bytes of a payload, unpacked: one piece of a partition fits, the longest of which is
/// a leaf.
pub const RAW_BYTES_MAX: usize = 16 * 1024 * 1024;
const _: () = assert!(PIECE_BYTES_MAX < RAW_BYTES_MAX);
/// What does not compress becomes a little longer.
const PACKED_BYTES_MAX: usize = RAW_BYTES_MAX + RAW_BYTES_MAX / 128 + 1024;

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Manifest = 1,
    File = 2,
    Data = 3,
    FileEnd = 4,
    Keys = 5,
    Partition = 6,
    Pieces = 7,
    PartitionEnd = 8,
    LeftOut = 9,
    End = 10,
}

impl Kind {
    const ALL: [Kind; 10] = [
        Kind::Manifest,
        Kind::File,
        Kind::Data,
        Kind::FileEnd,
        Kind::Keys,
        Kind::Partition,
        Kind::Pieces,
        Kind::PartitionEnd,
        Kind::LeftOut,
        Kind::End,
    ];

    fn of(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }
}

fn beginning(format: u32) -> [u8; BEGINNING_BYTES] {
    let mut bytes = [0; BEGINNING_BYTES];
    let (said, check) = bytes.split_at_mut(MAGIC.len() + 4);
    said[..MAGIC.len()].copy_from_slice(&MAGIC);
    said[MAGIC.len()..].copy_from_slice(&format.to_be_bytes());
    check.copy_from_slice(&Checksum::of(&[said]).as_bytes()[..BEGINNING_CHECK_BYTES]);
    bytes
}

/// Writes frames.
pub struct FrameWriter<W> {
    out: W,
    last: Checksum,
    bytes: u64,
}

impl<W: Write> FrameWriter<W> {
    /// Writes the beginning.
    pub fn new(mut out: W) -> io::Result<Self> {
        let beginning = beginning(FORMAT);
        out.write_all(&beginning)?;
        Ok(Self { out, last: Checksum::of(&[&beginning]), bytes: BEGINNING_BYTES as u64 })
    }

    /// Writes a frame with this payload, which is within its limit.
    pub fn put(&mut self, kind: Kind, raw: &[u8]) -> io::Result<()> {
        let packed = codec::compress(raw);
        let mut frame = Vec::with_capacity(5 + packed.len() + Checksum::BYTES);
        frame.push(kind as u8);
        let length = u32::try_from(packed.len()).map_err(io::Error::other)?;
        frame.extend_from_slice(&length.to_be_bytes());
        frame.extend_from_slice(&packed);
        self.last = Checksum::of(&[self.last.as_bytes(), &frame]);
        frame.extend_from_slice(self.last.as_bytes());
        self.out.write_all(&frame)?;
        self.bytes += frame.len() as u64;
        Ok(())
    }

    /// Bytes written so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Where they went.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.flush()?;
        Ok(self.out)
    }
}

/// Reads frames.
pub struct FrameReader<R> {
    input: R,
    last: Checksum,
    at: u64,
}

impl<R: Read> FrameReader<R> {
    /// Reads the beginning.
    pub fn new(mut input: R) -> Result<Self, BackupError> {
        let mut bytes = [0; BEGINNING_BYTES];
        match input.read_exact(&mut bytes) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                return Err(BackupError::NotABackup);
            }
            read => read?,
        }
        if bytes[..MAGIC.len()] != MAGIC {
            return Err(BackupError::NotABackup);
        }
        let mut format = [0; 4];
        format.copy_from_slice(&bytes[MAGIC.len()..MAGIC.len() + 4]);
        let found = u32::from_be_bytes(format);
        if bytes != beginning(found) {
            let problem = "the beginning has a wrong checksum".to_owned();
            return Err(BackupError::Damaged { at: 0, problem });
        }
        if found != FORMAT {
            return Err(BackupError::Format { found, known: FORMAT });
        }
        Ok(Self { input, last: Checksum::of(&[&bytes]), at: BEGINNING_BYTES as u64 })
    }

    /// Where the next frame begins.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// The next frame, its checksum compared.
    pub fn next(&mut self) -> Result<(Kind, Vec<u8>), BackupError> {
        let at = self.at;
        let damaged = |problem: &str| BackupError::Damaged { at, problem: problem.to_owned() };
        let mut head = [0; 5];
        self.exactly(&mut head)?;
        let [kind, length @ ..] = head;
        let length = u32::from_be_bytes(length) as usize;
        if length > PACKED_BYTES_MAX {
            return Err(damaged("a length beyond all limits"));
        }
        // It grows with what really comes.
        let mut packed = Vec::new();
        (&mut self.input).take(length as u64).read_to_end(&mut packed)?;
        if packed.len() != length {
            return Err(BackupError::Cut { at });
        }
        let mut checksum = [0; Checksum::BYTES];
        self.exactly(&mut checksum)?;
        let expected = Checksum::of(&[self.last.as_bytes(), &head, &packed]);
        if expected.as_bytes() != &checksum {
            return Err(damaged("a wrong checksum"));
        }
        self.last = expected;
        self.at += (head.len() + packed.len() + checksum.len()) as u64;
        let kind = Kind::of(kind).ok_or_else(|| damaged("a frame of an unknown kind"))?;
        let raw = codec::decompress(&packed, RAW_BYTES_MAX)
            .map_err(|error| damaged(&error.to_string()))?;
        Ok((kind, raw))
    }

    /// The end frame has come: nothing may follow.
    pub fn end(mut self) -> Result<(), BackupError> {
        let mut one = Vec::new();
        (&mut self.input).take(1).read_to_end(&mut one)?;
        if one.is_empty() { Ok(()) } else { Err(BackupError::Trailing { at: self.at }) }
    }

    fn exactly(&mut self, bytes: &mut [u8]) -> Result<(), BackupError> {
        match self.input.read_exact(bytes) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                Err(BackupError::Cut { at: self.at })
            }
            read => Ok(read?),
        }
    }
}
