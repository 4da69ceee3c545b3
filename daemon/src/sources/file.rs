//! A delivered file: opened once, and read from there whatever happens to its
//! name.
//!
//! Used by commands and the inbox, which make a [`DeliveredFile`] of what they
//! were given. Invariant: only regular files are opened, and a reader never moves
//! another one's place. Not here: what the bytes mean (the formats).

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::Path,
    sync::Arc,
};

use encoding_rs::GB18030;
use protocol::{schema::Schema, suite::checksum::Checksum, text::visible_within};
use rustix::{fs::OFlags, io::Errno};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::{
    FILE_BYTES_MAX,
    csv::{self, Encoding},
    error::{FileError, Told},
    foreign, json,
    kind::{Kind, kind_of_file},
    packed, sheet,
};
use crate::ingest::{
    Importer,
    source::{Recallable, Source, SourceError, Table},
    temporary::TemporaryFiles,
    validate::without_ids,
};

/// Bytes that are hashed at once: large enough that system calls do not show.
const HASH_CHUNK: usize = 256 * 1024;
/// Longest name that is shown, in characters: a name has 255 bytes, a path may have
/// thousands.
const NAME_CHARS_SHOWN: usize = 300;

/// How a file is to be read, where somebody said so.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reading {
    /// How its bytes are to be read.
    pub encoding: Encoding,
    /// Labels of columns that are passed over.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ignored: Vec<String>,
    /// Which sheet of a workbook is meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sheet: Option<String>,
}

/// A file that somebody delivers.
#[derive(Debug, Clone)]
pub struct DeliveredFile {
    /// Its name, without its directory.
    name: String,
    file: Arc<File>,
    /// As it was when it was opened.
    state: FileState,
    reading: Reading,
    /// Where an archive is unpacked.
    room: TemporaryFiles,
    /// When reading ends before the file does.
    stop: CancellationToken,
    /// It came out of an archive.
    unpacked: bool,
}

impl DeliveredFile {
    /// Opens a regular file.
    pub fn open(path: &Path, links: Links, reading: Reading) -> Result<Self, FileError> {
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        let name = shown(&name);
        Self::new(name, open_regular(path, links)?, reading)
    }

    /// A file that is open.
    pub fn new(name: String, file: File, reading: Reading) -> Result<Self, FileError> {
        let data = match file.metadata() {
            Ok(data) => data,
            Err(source) => return Err(FileError::Io { path: name, source }),
        };
        if !data.is_file() {
            return Err(FileError::NotAFile { path: name });
        }
        if data.len() > FILE_BYTES_MAX {
            return Err(FileError::TooLarge { path: name, bytes: data.len() });
        }
        let (file, state) = (Arc::new(file), FileState::from(&data));
        let room = TemporaryFiles::new(&std::env::temp_dir());
        let stop = CancellationToken::new();
        Ok(Self { name, file, state, reading, room, stop, unpacked: false })
    }

    /// The same file as an importer reads it: an archive is unpacked where it has room
    /// for it, to files without a name, and reading ends when it is to stop.
    pub fn read_for(self, importer: &Importer) -> Self {
        Self { room: importer.room().clone(), stop: importer.stop().clone(), ..self }
    }

    /// The same file under the name that it was delivered by.
    pub fn named(self, name: String) -> Self {
        Self { name, ..self }
    }

    /// As it was when it was opened.
    pub fn state(&self) -> FileState {
        self.state
    }

    /// The hash of what is in it.
    pub fn content(&self) -> io::Result<Checksum> {
        let mut hash = Checksum::running();
        let (mut bytes, mut buffer) = (self.bytes(), vec![0; HASH_CHUNK]);
        loop {
            match bytes.read(&mut buffer) {
                Ok(0) => return Ok(hash.finish()),
                Ok(count) => hash.update(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn bytes(&self) -> FileBytes {
        FileBytes { file: self.file.clone(), at: 0, stop: self.stop.clone() }
    }

    fn kind(&self) -> Result<Kind, SourceError> {
        let fail = |source| FileError::Io { path: self.name.clone(), source };
        Ok(kind_of_file(&mut self.bytes(), &self.name).map_err(fail)?)
    }

    fn another_file(&self) -> Result<File, SourceError> {
        let fail = |source| FileError::Io { path: self.name.clone(), source };
        Ok(self.file.try_clone().map_err(fail)?)
    }

    fn open_csv(&self, encoding: Encoding, schema: &Schema) -> Result<csv::CsvTable, SourceError> {
        let options = csv::Options { encoding, ignored: &self.reading.ignored };
        csv::open(&self.name, Box::new(self.bytes()), self.state.bytes, options, schema)
    }
}

impl Source for DeliveredFile {
    fn name(&self) -> &str {
        &self.name
    }

    /// The list of formats.
    fn open(&self, schema: &Schema) -> Result<Box<dyn Table>, SourceError> {
        let (name, bytes) = (self.name.as_str(), self.state.bytes);
        let ignored = &self.reading.ignored;
        Ok(match self.kind()? {
            Kind::Text => Box::new(self.open_csv(self.reading.encoding, schema)?),
            Kind::Json => {
                let charset = match self.reading.encoding {
                    Encoding::Gb18030 => json::Charset::Named(GB18030),
                    Encoding::Named(encoding) => json::Charset::Named(encoding),
                    _ => json::Charset::Auto,
                };
                Box::new(json::table::open(
                    name,
                    Box::new(self.bytes()),
                    bytes,
                    charset,
                    schema,
                    ignored,
                )?)
            }
            Kind::Workbook => {
                let options =
                    sheet::table::Options { sheet: self.reading.sheet.as_deref(), ignored };
                let (file, program) = (self.another_file()?, foreign::program());
                Box::new(sheet::table::open(name, file, bytes, options, program, schema)?)
            }
            Kind::Gzip | Kind::Zip if self.unpacked => {
                return Err(SourceError::Content(Box::new(Told(format!(
                    "{name}: 压缩包中的压缩包不会被读取，请先解压 / an archive within an archive is not read: unpack it first"
                )))));
            }
            kind @ (Kind::Gzip | Kind::Zip) => {
                let open_inner = |name, file| {
                    let inner = Self::new(name, file, self.reading.clone())?;
                    Self { unpacked: true, stop: self.stop.clone(), ..inner }.open(schema)
                };
                let (file, gzip) = (self.another_file()?, kind == Kind::Gzip);
                let program = foreign::program();
                Box::new(packed::table::open(
                    name,
                    file,
                    gzip,
                    &self.room,
                    program,
                    schema,
                    &open_inner,
                )?)
            }
            Kind::Foreign(foreign) => {
                return Err(SourceError::Content(Box::new(Told(format!("{name}: {foreign}")))));
            }
        })
    }

    fn open_quickly(&self, schema: &Schema) -> Option<Box<dyn Recallable>> {
        // Of other formats only their readers know where a row ends.
        if self.kind().ok()? != Kind::Text {
            return None;
        }
        // Finding out what it is takes a look at all of it. What begins as UTF-8
        // is taken for that: rows that come again are equal, and others are
        // looked at.
        let encoding = match self.reading.encoding {
            Encoding::Auto if csv::starts_as_utf8(&mut self.bytes()) => Encoding::Utf8,
            encoding => encoding,
        };
        let table = self.open_csv(encoding, schema).ok()?;
        Some(Box::new(table))
    }

    fn unchanged(&self) -> Result<(), SourceError> {
        // Of what was opened, whatever lies under its name by now.
        let fail = |source| FileError::Io { path: self.name.clone(), source };
        let now = self.file.metadata().map_err(fail)?;
        if FileState::from(&now) != self.state {
            return Err(SourceError::Changed { name: self.name.clone() });
        }
        Ok(())
    }

    fn copy_to(&self, mut out: &mut dyn io::Write) -> Result<(), SourceError> {
        let fail = |source| FileError::Io { path: self.name.clone(), source };
        io::copy(&mut self.bytes(), &mut out).map_err(fail)?;
        self.unchanged()
    }

    fn settings(&self) -> serde_json::Value {
        serde_json::json!(self.reading)
    }
}

/// What to do where a file's name turns out to be a symbolic link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// Read what it leads to: whoever named it may read that.
    Follow,
    /// Refuse it: who put it there may not be allowed to read that.
    Refuse,
}

/// Opens a regular file for reading, and nothing else. What lies there is looked
/// at after it was opened, so that it cannot be exchanged in between; and a pipe
/// is not waited for.
pub fn open_regular(path: &Path, links: Links) -> Result<File, FileError> {
    let name = shown(&path.display().to_string());
    let fail = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => FileError::NotFound { path: name.clone() },
        io::ErrorKind::PermissionDenied => FileError::Permission { path: name.clone() },
        io::ErrorKind::IsADirectory => FileError::NotAFile { path: name.clone() },
        // A link, or a socket or a device that nobody serves.
        _ if matches!(Errno::from_io_error(&source), Some(Errno::LOOP | Errno::NXIO)) => {
            FileError::NotAFile { path: name.clone() }
        }
        _ => FileError::Io { path: name.clone(), source },
    };
    let mut flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    if links == Links::Refuse {
        flags |= OFlags::NOFOLLOW;
    }
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)
        .map_err(fail)?;
    if !file.metadata().map_err(fail)?.is_file() {
        return Err(FileError::NotAFile { path: name });
    }
    Ok(file)
}

/// A name as it may stand in a log and in a report: without citizen ids, on one line,
/// and reading as it is: characters that control a terminal or turn the order of letters around are
/// named.
pub fn shown(name: &str) -> String {
    visible_within(&without_ids(name), NAME_CHARS_SHOWN).into_owned()
}

/// The bytes of a file that others read as well.
struct FileBytes {
    file: Arc<File>,
    at: u64,
    stop: CancellationToken,
}

impl Read for FileBytes {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.stop.is_cancelled() {
            return Err(io::Error::other("the daemon is shutting down"));
        }
        let count = self.file.read_at(into, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl Seek for FileBytes {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let to = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.file.metadata()?.len().checked_add_signed(by),
        };
        self.at = to.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

/// What changes when a file's content does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileState {
    device: u64,
    number: u64,
    /// Its size.
    pub bytes: u64,
    /// When it was last written: seconds and nanoseconds.
    pub modified: (i64, i64),
}

impl FileState {
    /// Whether it is one file, whatever happened to its content.
    pub fn is_same_file(&self, other: &Self) -> bool {
        (self.device, self.number) == (other.device, other.number)
    }
}

impl From<&fs::Metadata> for FileState {
    fn from(data: &fs::Metadata) -> Self {
        Self {
            device: data.dev(),
            number: data.ino(),
            bytes: data.len(),
            modified: (data.mtime(), data.mtime_nsec()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_opened_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let open = |path: &Path| DeliveredFile::open(path, Links::Follow, Reading::default());
        assert!(matches!(open(dir.path()), Err(FileError::NotAFile { .. })));
        let missing = open(&dir.path().join("none.csv")).unwrap_err();
        assert!(missing.to_string().contains("none.csv"), "{missing}");
        let path = dir.path().join("a.csv");
        fs::write(&path, "a,b\n1,2\n").unwrap();
        let file = open(&path).unwrap();
        assert_eq!((file.name(), file.state().bytes), ("a.csv", 8));
    }
}
