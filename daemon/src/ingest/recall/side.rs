//! The side file: rows of a full file by their hashes, with their keys.
//!
//! [`super`] decides what of it counts. It has two parts, each with a checksum:
//!
//! ```text
//! "csrows/4", rules (32), seq (8), head (49), room (8), key of the hashes (32)
//! a hash (16) for each row, in ascending order, and 0xff up to `room` of them
//! checksum of all the above (32)
//! for each row, in the same order: the length of its record's key (2), the key
//! checksum of the head and the keys (32)
//! ```
//!
//! so that looking rows up takes only the first one. Numbers are big-endian; a head
//! is the number of its suite, its hash, and zeros up to the longest of all suites.
//! Where little has changed since, that is written beside it, into a second file:
//!
//! ```text
//! "cssince2", checksum of the rows' file's first part (32), seq (8), head (49)
//! rows that are gone (4), rows that came (4)
//! the place of each one that is gone (4), in ascending order
//! for each one that came, by hash: its hash (16), length of its key (2), key
//! checksum of all the above (32)
//! ```
//!
//! Invariants: both are replaced as a whole, by a rename; a second file that
//! does not fit the first one is as good as none; what a power cut, or anything
//! else, did to either of them is told by a checksum before it is believed. Both
//! are readable for their owner only.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, BufWriter, Read as _, Seek as _, SeekFrom, Write},
    os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use protocol::{
    change::Position,
    hash::Hash,
    record::KEY_BYTES_MAX,
    suite::{
        HASH_BYTES_MAX, Suite,
        checksum::{Checksum, Running},
    },
};

use super::row::{HASH_BYTES, ROW_KEY_BYTES, RowHash, RowKey};

const MAGIC: [u8; 8] = *b"csrows/4";
const SINCE_MAGIC: [u8; 8] = *b"cssince2";
const HEAD_BYTES: usize = 8 + SUM_BYTES + 8 + HASH_FIELD_BYTES + 8 + ROW_KEY_BYTES;
const SUM_BYTES: usize = Checksum::BYTES;
/// A head's hash: its suite, and room for the hashes of any.
const HASH_FIELD_BYTES: usize = 1 + HASH_BYTES_MAX;
/// In place of hashes for which there was room and no row: no row has this one.
const FILLER: [u8; HASH_BYTES] = [0xff; HASH_BYTES];
/// Of the rows one in so many may be gone or have come before all are written
/// anew.
const SINCE_PART: usize = 16;
/// Bytes that all of that may have: it is held in memory.
const SINCE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Read and write buffer.
const BUFFER_BYTES: usize = 256 * 1024;

/// A row, and the key of its record.
pub type Keyed = (RowHash, Vec<u8>);

/// Removes the side file, and what an interrupted writer left of one.
pub fn remove(path: &Path) {
    for path in [path.to_owned(), since_of(path), next_of(path)] {
        // It may not be there.
        let _ = fs::remove_file(path);
    }
}

/// Where either file is written.
fn next_of(path: &Path) -> PathBuf {
    path.with_extension("next")
}

/// Where it stands what has changed.
fn since_of(path: &Path) -> PathBuf {
    path.with_extension("since")
}

/// What rows lead to: the same as every row's place in a side file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// Under which they were read.
    pub rules: Checksum,
    /// To which they led.
    pub head: Position,
}

/// What has changed since the rows were written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Since {
    /// Places of rows that are gone, in their order.
    pub gone: Vec<u32>,
    /// Rows that came, in the order of their hashes.
    pub came: Vec<Keyed>,
}

/// A side file that is open; it stays the same whatever lies there by now.
#[derive(Debug)]
pub struct SideFile {
    path: PathBuf,
    file: File,
    front: [u8; HEAD_BYTES],
    /// Of the first part, which is not compared yet.
    sum: Checksum,
    pub origin: Origin,
    /// Hashes that there is room for.
    pub room: u64,
    /// Rows; known once the hashes were read.
    pub count: u64,
    pub key: RowKey,
    pub since: Since,
}

impl SideFile {
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let mut front = [0; HEAD_BYTES];
        file.read_exact(&mut front)?;
        let mut fields = Fields(&front);
        if fields.take(MAGIC.len())? != MAGIC {
            return Err(damaged());
        }
        let rules = Checksum(fields.array()?);
        let head = fields.position()?;
        let room = u64::from_be_bytes(fields.array()?);
        let key = RowKey::from_bytes(fields.array()?);
        let mut sum = [0; SUM_BYTES];
        file.read_exact_at(&mut sum, hashes_end(room).ok_or_else(damaged)?)?;
        let origin = Origin { rules, head };
        let (path, sum, since) = (path.to_owned(), Checksum(sum), Since::default());
        let count = room;
        let mut side = Self { path, file, front, sum, origin, room, count, key, since };
        match side.read_since() {
            Ok(Some((head, since))) => {
                side.origin.head = head;
                side.since = since;
            }
            Ok(None) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                let path = since_of(&side.path);
                tracing::debug!(path = %path.display(), %error, "what came of the last full file is not known");
            }
        }
        Ok(side)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What has changed, and the head now, if that is of these rows.
    fn read_since(&self) -> io::Result<Option<(Position, Since)>> {
        let mut bytes = Vec::new();
        File::open(since_of(&self.path))?.take(SINCE_BYTES_MAX).read_to_end(&mut bytes)?;
        let end = bytes.len().checked_sub(SUM_BYTES).ok_or_else(damaged)?;
        let (body, sum) = bytes.split_at(end);
        let mut fields = Fields(body);
        if fields.take(SINCE_MAGIC.len())? != SINCE_MAGIC || Checksum::of(&[body]).as_bytes() != sum
        {
            return Err(damaged());
        }
        if Checksum(fields.array()?) != self.sum {
            return Ok(None);
        }
        let head = fields.position()?;
        let gone = u32::from_be_bytes(fields.array()?);
        let came = u32::from_be_bytes(fields.array()?);
        let mut since = Since::default();
        for _ in 0..gone {
            since.gone.push(u32::from_be_bytes(fields.array()?));
        }
        for _ in 0..came {
            let hash = RowHash::from_bytes(fields.array()?);
            let length = u16::from_be_bytes(fields.array()?);
            since.came.push((hash, fields.take(length.into())?.to_vec()));
        }
        let ascending = since.gone.is_sorted_by(|a, b| a < b)
            && since.came.is_sorted_by(|a, b| a.0 < b.0)
            && since.gone.last().is_none_or(|last| u64::from(*last) < self.count);
        if ascending && fields.0.is_empty() { Ok(Some((head, since))) } else { Err(damaged()) }
    }

    /// Calls `visit` with each row's hash, in ascending order, and compares the
    /// checksum at the end.
    pub fn each_hash(&self, mut visit: impl FnMut(RowHash)) -> io::Result<()> {
        let mut sum = Checksum::running();
        sum.update(&self.front);
        let (mut at, mut left) = (HEAD_BYTES as u64, self.room);
        let mut buffer = vec![0; BUFFER_BYTES];
        let (mut last, mut filled) = (None, false);
        while left > 0 {
            let some = left.min((BUFFER_BYTES / HASH_BYTES) as u64);
            let bytes = &mut buffer[..some as usize * HASH_BYTES];
            self.file.read_exact_at(bytes, at)?;
            sum.update(bytes);
            for bytes in bytes.as_chunks().0 {
                if *bytes == FILLER {
                    filled = true;
                    continue;
                }
                let hash = RowHash::from_bytes(*bytes);
                if filled || last.is_some_and(|last| last >= hash) {
                    return Err(damaged());
                }
                last = Some(hash);
                visit(hash);
            }
            at += bytes.len() as u64;
            left -= some;
        }
        if sum.finish() == self.sum { Ok(()) } else { Err(damaged()) }
    }

    /// Calls `visit` with each row's key, in the hashes' order, and compares the
    /// checksum at the end.
    pub fn each_key(&self, mut visit: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut sum = Checksum::running();
        sum.update(&self.front);
        let mut at = hashes_end(self.room).ok_or_else(damaged)? + SUM_BYTES as u64;
        let mut left = self.count;
        let mut buffer = vec![0; BUFFER_BYTES];
        // Bytes of a key whose end was not read yet.
        let mut held = 0;
        while left > 0 {
            let read = read_some_at(&self.file, &mut buffer[held..], at)?;
            at += read as u64;
            let filled = held + read;
            let mut rest = &buffer[..filled];
            while left > 0
                && let Some((length, behind)) = rest.split_first_chunk()
            {
                let length = usize::from(u16::from_be_bytes(*length));
                if length > KEY_BYTES_MAX {
                    return Err(damaged());
                }
                let Some((key, behind)) = behind.split_at_checked(length) else { break };
                visit(key)?;
                rest = behind;
                left -= 1;
            }
            if read == 0 {
                return Err(damaged());
            }
            let used = filled - rest.len();
            sum.update(&buffer[..used]);
            if left == 0 {
                at -= (filled - used) as u64;
            }
            buffer.copy_within(used..filled, 0);
            held = filled - used;
        }
        let mut found = [0; SUM_BYTES];
        self.file.read_exact_at(&mut found, at)?;
        let at_end = self.file.metadata()?.len() == at + SUM_BYTES as u64;
        if at_end && sum.finish() == Checksum(found) { Ok(()) } else { Err(damaged()) }
    }

    /// Writes down what has changed since these rows were written, in place of
    /// what was written of that before; answers false if it is too much for that.
    pub fn write_since(&self, head: Position, since: &Since) -> io::Result<bool> {
        if since.gone.len() + since.came.len() > self.count as usize / SINCE_PART {
            return Ok(false);
        }
        let mut bytes = SINCE_MAGIC.to_vec();
        bytes.extend_from_slice(self.sum.as_bytes());
        bytes.extend_from_slice(&head.seq.to_be_bytes());
        bytes.extend_from_slice(&hash_field(&head.hash));
        bytes.extend_from_slice(&(since.gone.len() as u32).to_be_bytes());
        bytes.extend_from_slice(&(since.came.len() as u32).to_be_bytes());
        for place in &since.gone {
            bytes.extend_from_slice(&place.to_be_bytes());
        }
        for (hash, key) in &since.came {
            bytes.extend_from_slice(&hash.to_bytes());
            bytes.extend_from_slice(&(key.len() as u16).to_be_bytes());
            bytes.extend_from_slice(key);
        }
        let sum = Checksum::of(&[&bytes]);
        bytes.extend_from_slice(sum.as_bytes());
        if bytes.len() as u64 > SINCE_BYTES_MAX {
            return Ok(false);
        }
        let next = next_of(&self.path);
        create(&next)?.write_all(&bytes)?;
        fs::rename(next, since_of(&self.path))?;
        Ok(true)
    }
}

/// Where the checksum of the hashes lies.
fn hashes_end(count: u64) -> Option<u64> {
    count.checked_mul(HASH_BYTES as u64)?.checked_add(HEAD_BYTES as u64)
}

/// Writes a side file, which takes the place of the one before at the end.
pub struct SideFileWriter {
    path: PathBuf,
    left: u64,
    hashes: BufWriter<Summing>,
    keys: BufWriter<Summing>,
}

impl SideFileWriter {
    /// For at most `count` rows.
    pub fn create(path: &Path, origin: Origin, key: &RowKey, count: u64) -> io::Result<Self> {
        let Origin { rules, head } = origin;
        let front = [
            MAGIC.as_slice(),
            rules.as_bytes(),
            &head.seq.to_be_bytes(),
            &hash_field(&head.hash),
            &count.to_be_bytes(),
            key.as_bytes(),
        ]
        .concat();
        let next = next_of(path);
        let mut hashes = create(&next)?;
        hashes.write_all(&front)?;
        let mut keys = File::options().write(true).open(&next)?;
        let keys_at = hashes_end(count).and_then(|end| end.checked_add(SUM_BYTES as u64));
        keys.seek(SeekFrom::Start(keys_at.ok_or_else(damaged)?))?;
        let part = |file| {
            let mut sum = Checksum::running();
            sum.update(&front);
            BufWriter::with_capacity(BUFFER_BYTES, Summing { file, sum })
        };
        Ok(Self { path: path.to_owned(), left: count, hashes: part(hashes), keys: part(keys) })
    }

    /// The next row, in the order of their hashes.
    pub fn put(&mut self, hash: RowHash, key: &[u8]) -> io::Result<()> {
        self.left = self.left.checked_sub(1).ok_or_else(damaged)?;
        self.hashes.write_all(&hash.to_bytes())?;
        // Keys are shorter than 64 KiB, whoever made them.
        self.keys.write_all(&(key.len() as u16).to_be_bytes())?;
        self.keys.write_all(key)
    }

    pub fn finish(mut self) -> io::Result<()> {
        for _ in 0..self.left {
            self.hashes.write_all(&FILLER)?;
        }
        for part in [self.hashes, self.keys] {
            let Summing { mut file, sum } =
                part.into_inner().map_err(io::IntoInnerError::into_error)?;
            file.write_all(sum.finish().as_bytes())?;
        }
        // A power cut may leave half of it, which the checksums tell.
        fs::rename(next_of(&self.path), &self.path)?;
        // It does not fit any more; and there may be none.
        let _ = fs::remove_file(since_of(&self.path));
        Ok(())
    }
}

/// A file for its owner only, in a directory of that kind.
fn create(path: &Path) -> io::Result<File> {
    if let Some(dir) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    }
    File::options().write(true).create(true).truncate(true).mode(0o600).open(path)
}

/// Reads what fits, or what there is.
fn read_some_at(file: &File, into: &mut [u8], at: u64) -> io::Result<usize> {
    loop {
        match file.read_at(into, at) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

/// A part that is written, with its checksum, buffer by buffer.
struct Summing {
    file: File,
    sum: Running,
}

impl Write for Summing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.sum.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// What is left of some bytes in memory.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> io::Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or_else(damaged)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk().ok_or_else(damaged)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn position(&mut self) -> io::Result<Position> {
        let seq = u64::from_be_bytes(self.array()?);
        let [number, bytes @ ..]: [u8; HASH_FIELD_BYTES] = self.array()?;
        let suite = Suite::from_number(number).map_err(|_| damaged())?;
        let hash = Hash::from_bytes(suite, &bytes[..suite.hash_bytes()]);
        Ok(Position { seq, hash: hash.ok_or_else(damaged)? })
    }
}

fn hash_field(hash: &Hash) -> [u8; HASH_FIELD_BYTES] {
    let mut field = [0; HASH_FIELD_BYTES];
    field[0] = hash.suite().number();
    field[1..][..hash.as_bytes().len()].copy_from_slice(hash.as_bytes());
    field
}

pub fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "what is recalled of the last full file is damaged")
}
