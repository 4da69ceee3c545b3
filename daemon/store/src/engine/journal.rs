//! The journal: a small file in front of sled, so that a small batch is durable
//! after one write and one `fdatasync`.
//!
//! [`Disk`](super::disk::Disk) owns it. Each batch has a number. A small one
//! becomes a *record* here, in memory when it is applied, in the file when it is
//! made durable, and its writes stay above sled ([`table`](super::table)). A
//! *checkpoint* gives sled all of these, with the number of the last one
//! ([`keys::APPLIED`](super::keys::APPLIED)), flushes and syncs it, and the next
//! record goes to the file's beginning. The records between two checkpoints are a
//! *round*. A batch that is too large, or finds no room, goes to sled at once with
//! all that is recent; then only a checkpoint makes durable what was applied.
//!
//! What holds:
//!
//! - Nothing is acknowledged before its record lies here, synced, with all
//!   records of its round before it, or before sled was flushed and synced.
//! - Replay ends where the last acknowledged batch did, or behind it. sled
//!   recovers to a prefix of what it was given and says which batch was the last;
//!   the records behind that one are applied in their order, each the successor
//!   of the one before. A checkpoint that was interrupted may have given sled some
//!   of their writes already; all of its records lie here by then, and end at the
//!   same values.
//! - A torn or stale record is never taken for a valid one. A torn one fails its
//!   checksum. A stale one has the wrong number, because no number is given
//!   twice: within a run they ascend, and each opening of the store goes on far
//!   above all that a run before it could have given, so what that run wrote and
//!   lost does not count any more. Numbers that merely went on from the last
//!   batch that was found would meet stale records that fit: those behind a torn
//!   one, at the same place, when the batch in its place has the same length.
//! - A write touches no block that an acknowledged record lies in: each begins
//!   at a block's beginning. A power cut may tear the blocks that are written.
//!
//! The file's bytes are written once when it is made, so later writes change no
//! metadata. What a batch means, and sled, are not here.

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Write as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use protocol::suite::checksum::Checksum;

use crate::error::StoreError;

const FILE: &str = "journal";
/// Size of the file: some 500 changes of a row, which are in memory as well. With
/// fewer a checkpoint, which takes many times as long as a change, would hold up
/// one change in a hundred at one of the two nodes that a change goes through.
pub const JOURNAL_BYTES: usize = 8 * 1024 * 1024;
/// Largest record without its header. Above it the cost of writing everything
/// twice is more than that of a flush of sled.
pub const RECORD_BYTES_MAX: usize = 256 * 1024;
/// What a disk writes as a whole, or a multiple of it.
const BLOCK_BYTES: usize = 4096;
/// Number, length and checksum.
const HEADER_BYTES: usize = 8 + 4 + 32;
/// Numbers of one opening. A million batches a second would use them up in 12
/// days; 16 million openings have room.
const NUMBERS_PER_OPENING: u64 = 1 << 40;

/// A key, and the value that it gets or `None` if it is removed.
pub type Write = (Vec<u8>, Option<Vec<u8>>);

/// The open file and what is to be written to it next.
pub struct Journal {
    file: File,
    path: PathBuf,
    /// The number of the last batch.
    last: u64,
    /// Where the next record goes; at a block's beginning.
    end: usize,
    /// Records of batches that are applied but not yet durable.
    pending: Vec<u8>,
    /// Whether such a batch has no record here, so that sled has to be flushed.
    incomplete: bool,
}

impl Journal {
    /// Opens the file in `directory`, or makes one, with nothing in it that
    /// counts: everything up to the number `last` is durable in sled.
    pub fn open(directory: &Path, last: u64) -> Result<Self, StoreError> {
        let path = directory.join(FILE);
        let file = open_file(&path).map_err(|problem| file_error(&path, &problem))?;
        let pending = Vec::new();
        Ok(Self { file, path, last, end: 0, pending, incomplete: false })
    }

    /// Keeps a record of the next batch, with the next number, if it is small enough
    /// and there is room; answers whether it did.
    pub fn note(&mut self, writes: &[Write]) -> bool {
        let bytes = encoded_bytes(writes);
        let end = self.end + self.pending.len() + HEADER_BYTES + bytes;
        if self.incomplete
            || !has_room_for(writes)
            || end.next_multiple_of(BLOCK_BYTES) > JOURNAL_BYTES
        {
            return false;
        }
        self.last += 1;
        encode(self.last, writes, &mut self.pending);
        true
    }

    /// Gives the next batch its number and keeps no record of it: only a checkpoint
    /// makes it durable, and what is pending.
    pub fn leave_out(&mut self) -> u64 {
        self.give_up();
        self.last += 1;
        self.last
    }

    /// Drops what is pending: only a checkpoint makes it durable.
    pub fn give_up(&mut self) {
        self.incomplete = true;
        self.pending = Vec::new();
    }

    /// The number of the last batch.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Whether only a checkpoint makes durable what was applied.
    pub fn is_incomplete(&self) -> bool {
        self.incomplete
    }

    /// Whether all that was applied is durable already.
    pub fn is_idle(&self) -> bool {
        !self.incomplete && self.pending.is_empty()
    }

    /// Whether it is time for a checkpoint when there is nothing else to do. Who
    /// wrote more than has room will ask for one anyway, when that is complete.
    pub fn is_nearly_full(&self) -> bool {
        !self.incomplete && self.end + self.pending.len() > JOURNAL_BYTES / 4 * 3
    }

    /// Writes the records that are kept, and syncs them; answers how many bytes
    /// that were. After an error only a checkpoint helps.
    pub fn write(&mut self) -> Result<usize, StoreError> {
        let bytes = self.pending.len().next_multiple_of(BLOCK_BYTES);
        self.pending.resize(bytes, 0);
        debug_assert!(self.end + bytes <= JOURNAL_BYTES, "what found no room was left out");
        let written = self
            .file
            .write_all_at(&self.pending, self.end as u64)
            .and_then(|()| self.file.sync_data());
        if let Err(problem) = written {
            self.give_up();
            return Err(file_error(&self.path, &problem));
        }
        self.end += bytes;
        self.pending.clear();
        self.pending.shrink_to(RECORD_BYTES_MAX);
        Ok(bytes)
    }

    /// Begins the next round: everything that was applied is durable in sled.
    pub fn restart(&mut self) {
        self.end = 0;
        self.pending.clear();
        self.incomplete = false;
    }
}

/// Whether an empty journal has room for a record of these writes.
pub fn has_room_for(writes: &[Write]) -> bool {
    encoded_bytes(writes) <= RECORD_BYTES_MAX
}

/// What the file in `directory` holds; nothing if there is none.
pub fn read(directory: &Path) -> Result<Vec<u8>, StoreError> {
    let path = directory.join(FILE);
    let mut content = Vec::new();
    match File::open(&path) {
        Ok(file) => file.take(JOURNAL_BYTES as u64).read_to_end(&mut content),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
    .map_err(|problem| file_error(&path, &problem))?;
    Ok(content)
}

/// The records of the round that `content` begins with: numbers and encoded
/// writes.
pub fn records(content: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    let mut at = 0usize;
    let mut last = None;
    std::iter::from_fn(move || {
        // A record follows at once, or where the next write began.
        let next_block = at.next_multiple_of(BLOCK_BYTES);
        let (begin, number, body) = [at, next_block].into_iter().find_map(|begin| {
            let (number, body) = record_at(content, begin)?;
            let follows = last.is_none_or(|last: u64| last.checked_add(1) == Some(number));
            follows.then_some((begin, number, body))
        })?;
        at = begin + HEADER_BYTES + body.len();
        last = Some(number);
        Some((number, body))
    })
}

/// The first number of the next opening, whose last number was `last` or a
/// later one that left no trace.
pub fn next_opening(last: u64) -> Result<u64, StoreError> {
    let next = (last / NUMBERS_PER_OPENING + 1).checked_mul(NUMBERS_PER_OPENING);
    next.ok_or_else(|| StoreError::Damaged {
        place: "the number of the last batch".into(),
        problem: format!("{last} is beyond all that are given"),
    })
}

/// The record at `begin`, if it is sound.
fn record_at(content: &[u8], begin: usize) -> Option<(u64, &[u8])> {
    let (number, rest) = content.get(begin..)?.split_first_chunk::<8>()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (checksum, rest) = rest.split_first_chunk::<32>()?;
    let bytes = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    if bytes > RECORD_BYTES_MAX {
        return None;
    }
    let body = rest.get(..bytes)?;
    let sound = Checksum::of(&[number, length, body]).as_bytes() == checksum;
    sound.then_some((u64::from_be_bytes(*number), body))
}

fn encode(number: u64, writes: &[Write], out: &mut Vec<u8>) {
    let begin = out.len();
    out.extend_from_slice(&[0; HEADER_BYTES]);
    for (key, value) in writes {
        out.push(u8::from(value.is_some()));
        for part in [Some(key), value.as_ref()].into_iter().flatten() {
            out.extend_from_slice(&(part.len() as u32).to_be_bytes());
            out.extend_from_slice(part);
        }
    }
    let number = number.to_be_bytes();
    let length = ((out.len() - begin - HEADER_BYTES) as u32).to_be_bytes();
    let checksum = Checksum::of(&[&number, &length, &out[begin + HEADER_BYTES..]]);
    let header = [&number[..], &length, checksum.as_bytes()].concat();
    out[begin..begin + HEADER_BYTES].copy_from_slice(&header);
}

fn encoded_bytes(writes: &[Write]) -> usize {
    let of_value = |value: &Option<Vec<u8>>| value.as_ref().map_or(0, |value| 4 + value.len());
    writes.iter().map(|(key, value)| 1 + 4 + key.len() + of_value(value)).sum()
}

/// The writes of a record.
pub fn decode(mut body: &[u8]) -> Result<Vec<Write>, StoreError> {
    let mut writes = Vec::new();
    while !body.is_empty() {
        let write = take_write(&mut body).ok_or_else(|| StoreError::Damaged {
            place: "the journal".into(),
            problem: "a record with a sound checksum cannot be read".into(),
        })?;
        writes.push(write);
    }
    Ok(writes)
}

fn take_write(body: &mut &[u8]) -> Option<Write> {
    let (kind, rest) = body.split_first()?;
    *body = rest;
    let key = take_part(body)?;
    let value = match kind {
        0 => None,
        1 => Some(take_part(body)?),
        _ => return None,
    };
    Some((key, value))
}

fn take_part(body: &mut &[u8]) -> Option<Vec<u8>> {
    let (length, rest) = body.split_first_chunk::<4>()?;
    let (part, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
    *body = rest;
    Some(part.to_vec())
}

/// Opens the file; one that is missing, or not of its size, is made anew.
fn open_file(path: &Path) -> std::io::Result<File> {
    match OpenOptions::new().write(true).open(path) {
        Ok(file) if file.metadata()?.len() == JOURNAL_BYTES as u64 => return Ok(file),
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut new = files::Replacement::new(path, files::PRIVATE)?;
    new.write_all(&vec![0; JOURNAL_BYTES])?;
    new.commit()
}

fn file_error(path: &Path, problem: &std::io::Error) -> StoreError {
    StoreError::File { path: path.to_owned(), problem: problem.to_string() }
}
