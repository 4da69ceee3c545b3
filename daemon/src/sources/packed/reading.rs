//! What the child does with an archive: lists it, or unpacks one file of it.
//!
//! Called in the child, for one task. Invariants: at most `bytes_max`
//! bytes are written, whatever the archive says; names are text, in UTF-8 where
//! the archive says so or they are valid, else in GBK, as Windows in China writes
//! them. Not here: which entries are worth unpacking.

use std::{
    borrow::Cow,
    fs::File,
    io::{self, BufReader, Read, Seek as _, SeekFrom, Write},
};

use encoding_rs::GB18030;
use flate2::bufread::{GzDecoder, MultiGzDecoder};
use zip::ZipArchive;

use super::super::{
    child::{
        Stop,
        frames::{Fault, Message},
    },
    sheet::inflate::fault_of,
};

/// Most entries of an archive, folders among them.
pub(super) const ENTRIES_MAX: usize = 10_000;
/// Bytes unpacked between two words about it, so that the parent knows that it
/// goes on.
const WORD_BYTES: u64 = 16 << 20;
/// Bytes unpacked at once.
const CHUNK: usize = 256 * 1024;

/// Tells what is inside.
pub(in super::super) fn list(
    mut file: File,
    gzip: bool,
    answer: &mut dyn Write,
) -> Result<(), Stop> {
    file.rewind().map_err(|_| Fault::Io)?;
    let mut say = |name: String, bytes, encrypted| {
        Message::Entry { name, bytes, encrypted }.write(answer).map_err(Stop::Answer)
    };
    if gzip {
        let decoder = GzDecoder::new(BufReader::new(file));
        let header = decoder.header().ok_or(Fault::Damaged)?;
        let name = header.filename().map(text).unwrap_or_default().into_owned();
        return say(name, 0, false);
    }
    let count = count_of(&mut file);
    let mut archive = ZipArchive::new(BufReader::new(file)).map_err(|error| fault_of(&error))?;
    if archive.len() > ENTRIES_MAX {
        return Err(Fault::TooMany.into());
    }
    // The archive is read by name: of two, the last would be all.
    if count.is_some_and(|count| count > archive.len()) {
        return Err(Fault::Twins.into());
    }
    for index in 0..archive.len() {
        let entry = archive.by_index_raw(index).map_err(|error| fault_of(&error))?;
        // A link in an archive leads nowhere; it is a file with a path in it.
        let hidden = entry.is_symlink();
        let mut name = text(entry.name_raw()).into_owned();
        if hidden && !name.ends_with('/') {
            name.push('/');
        }
        say(name, entry.size(), entry.encrypted())?;
    }
    Ok(())
}

/// How many entries an archive's own end says that it has, if that can be told.
fn count_of(file: &mut File) -> Option<usize> {
    /// The end's length, without its comment.
    const END_BYTES: usize = 22;
    /// The longest comment.
    const COMMENT_BYTES_MAX: u64 = u16::MAX as u64;
    let length = file.seek(SeekFrom::End(0)).ok()?;
    let tail = length.min(COMMENT_BYTES_MAX + END_BYTES as u64);
    file.seek(SeekFrom::Start(length - tail)).ok()?;
    let mut bytes = Vec::new();
    let read = file.take(tail).read_to_end(&mut bytes);
    file.rewind().ok()?;
    read.ok()?;
    let end = bytes.windows(END_BYTES).rposition(|end| end.starts_with(b"PK\x05\x06"))?;
    let count = u16::from_le_bytes([bytes[end + 10], bytes[end + 11]]);
    // Larger ones say it elsewhere, and are too many in any case.
    (count != u16::MAX).then_some(usize::from(count))
}

/// Unpacks one entry to `output`.
pub(in super::super) fn unpack(
    mut file: File,
    gzip: bool,
    index: u32,
    bytes_max: u64,
    mut output: File,
    answer: &mut dyn Write,
) -> Result<(), Stop> {
    file.rewind().map_err(|_| Fault::Io)?;
    let file = BufReader::new(file);
    if gzip {
        return copy(MultiGzDecoder::new(file), bytes_max, &mut output, answer);
    }
    let mut archive = ZipArchive::new(file).map_err(|error| fault_of(&error))?;
    if index as usize >= archive.len() {
        return Err(Fault::Gone.into());
    }
    let entry = archive.by_index(index as usize).map_err(|error| fault_of(&error))?;
    copy(entry, bytes_max, &mut output, answer)
}

fn copy(
    mut from: impl Read,
    bytes_max: u64,
    output: &mut File,
    answer: &mut dyn Write,
) -> Result<(), Stop> {
    let mut buffer = vec![0; CHUNK];
    let (mut written, mut said) = (0u64, 0u64);
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return Err(Fault::Damaged.into()),
        };
        written += count as u64;
        if written > bytes_max {
            return Err(Fault::TooLarge.into());
        }
        output.write_all(&buffer[..count]).map_err(|error| match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Fault::DiskFull,
            io::ErrorKind::FileTooLarge => Fault::TooLarge,
            _ => Fault::Io,
        })?;
        if written - said >= WORD_BYTES {
            said = written;
            Message::Unpacked(written).write(answer).map_err(Stop::Answer)?;
            answer.flush().map_err(Stop::Answer)?;
        }
    }
    Message::Unpacked(written).write(answer).map_err(Stop::Answer)
}

/// A name's bytes as text; what is neither UTF-8 nor GBK shows where it is not.
fn text(name: &[u8]) -> Cow<'_, str> {
    match str::from_utf8(name) {
        Ok(name) => Cow::Borrowed(name),
        Err(_) => GB18030.decode_without_bom_handling(name).0,
    }
}
