//! Archives: `.zip` and `.gz`, whose files are read one after the other.
//!
//! [`Archive::open`] learns what is inside, [`Archive::unpack`] writes one file
//! to a temporary one without a name. Both have a child do it
//! ([`super::child`]); what the child does is in [`reading`].
//!
//! Invariants: nothing that an archive says decides where something is written;
//! what is unpacked has no name on the disk, so a crash leaves nothing; sizes are
//! counted, not believed, and the kernel stops the child at the limit.
//!
//! Not here: what the files inside are ([`super::kind`]), and archives within
//! archives, which are refused.

pub(super) mod reading;
pub mod table;

use std::{fs::File, io};

use protocol::text::visible;

use super::child::{
    Child, ChildError, Program, Task,
    frames::{Fault, FrameError, Message},
};
use crate::ingest::{rows::Place, temporary::TemporaryFiles, validate::without_ids};

/// Most bytes that one archive unpacks to, over all of its files: the largest
/// registers of a province, several times.
const UNPACKED_BYTES_MAX: u64 = 8 << 30;
/// Most bytes for each byte of the archive, above [`RATIO_FREE_BYTES`]. Registers
/// shrink to a tenth, tables of hardly anything but separators to a fiftieth;
/// what was made to fill a disk, to a thousandth.
const RATIO_MAX: u64 = 100;
/// Unpacked bytes that are never too many.
const RATIO_FREE_BYTES: u64 = 64 << 20;
/// Most files of an archive that are read: as many as a row's place can name.
const FILES_MAX: usize = Place::PARTS_MAX;

/// What became of an entry of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// A file to be read.
    File,
    /// A folder, or what systems leave behind: nothing to be read or told.
    Nothing,
    /// A hidden file, or one that is not whole or was replaced: nothing to be read.
    Hidden,
    /// It needs a password.
    Encrypted,
    /// An archive in the archive.
    Archive,
}

/// One thing in an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its place in the archive, from 0.
    pub index: u32,
    /// Its name, with the folders in the archive.
    pub name: String,
    /// What becomes of it.
    pub used: Use,
}

/// An archive whose content is known.
#[derive(Debug)]
pub struct Archive {
    file: File,
    gzip: bool,
    program: Program,
    entries: Vec<Entry>,
    /// Bytes that may still be unpacked.
    bytes_left: u64,
}

/// A file taken out of an archive.
#[derive(Debug)]
pub struct Unpacked {
    /// Its content, from the front. It has no name on the disk.
    pub file: File,
    /// Its size.
    pub bytes: u64,
}

/// Why an archive or a file in it cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum PackedError {
    /// The child said so, or did not come to an end.
    #[error(transparent)]
    Child(#[from] ChildError),
    /// There is no file in it.
    #[error(
        "压缩包内没有可读取的文件；请把 CSV、Excel 或 JSON 文件放入压缩包 / \
         there is no file in the archive: put CSV, Excel or JSON files into it"
    )]
    Empty,
    /// More files than are read.
    #[error(
        "压缩包内有 {files} 个文件，最多允许 {FILES_MAX} 个；请分成几个压缩包交付 / \
         the archive holds {files} files, at most {FILES_MAX} are allowed: deliver several archives"
    )]
    TooManyFiles {
        /// How many there are.
        files: usize,
    },
    /// A file in it needs a password.
    #[error(
        "压缩包内的“{entry}”设有密码，请用不加密的压缩包重新交付 / \
         '{entry}' in the archive is protected by a password: pack it without one"
    )]
    Encrypted {
        /// Which one.
        entry: String,
    },
    /// An archive in it.
    #[error(
        "压缩包内的“{entry}”本身也是压缩包，请先解压它，再把其中的文件直接放入一个压缩包 / \
         '{entry}' in the archive is an archive itself: unpack it, and put its files into one archive"
    )]
    Nested {
        /// Which one.
        entry: String,
    },
    /// It unpacks to more than is allowed.
    #[error(
        "“{entry}”解压后过大（本压缩包最多允许解压 {bytes_max} 字节），已停止；请拆分，或直接交付 CSV 文件 / \
         '{entry}' is too large when unpacked (this archive may unpack to {bytes_max} bytes), so it was not read: split it, or deliver CSV files"
    )]
    TooLarge {
        /// Which one.
        entry: String,
        /// What was allowed.
        bytes_max: u64,
    },
    /// No temporary file.
    #[error(
        "{dir}: 无法写入临时文件，请检查磁盘空间和权限 / a temporary file cannot be written, check room and permissions: {source}"
    )]
    Temporary {
        /// Where it was to be.
        dir: String,
        /// What the system said.
        source: io::Error,
    },
}

impl PackedError {
    /// Whether another try may succeed: the file is not known to be at fault.
    pub fn is_passing(&self) -> bool {
        match self {
            PackedError::Child(error) => {
                error.is_passing() || matches!(error, ChildError::Fault(Fault::DiskFull))
            }
            PackedError::Temporary { .. } => true,
            _ => false,
        }
    }
}

impl Archive {
    /// Learns what is inside. `name` is the archive's own, from which a file in a
    /// gzip gets its name.
    pub fn open(file: File, gzip: bool, name: &str, program: Program) -> Result<Self, PackedError> {
        let packed_bytes = file.metadata().map_err(ChildError::Io)?.len();
        let mut child = Child::start(&program, &Task::List { gzip }, &file, None)?;
        let mut entries = Vec::new();
        loop {
            match child.hear()? {
                Message::Done => break,
                Message::Entry { name: inside, bytes: _, encrypted } => {
                    let name = if gzip { gunzipped(name, &inside) } else { inside };
                    // The child counts them, too.
                    let index = entries.len() as u32;
                    let used = use_of(&name, encrypted);
                    // It comes to stand in logs and messages.
                    let name = visible(&without_ids(&name)).into_owned();
                    entries.push(Entry { index, name, used });
                }
                _ => return Err(ChildError::from(FrameError::Malformed("out of turn")).into()),
            }
            if entries.len() > reading::ENTRIES_MAX {
                return Err(ChildError::Fault(Fault::TooMany).into());
            }
        }
        let archive = Self {
            file,
            gzip,
            program,
            entries,
            bytes_left: packed_bytes
                .saturating_mul(RATIO_MAX)
                .clamp(RATIO_FREE_BYTES, UNPACKED_BYTES_MAX),
        };
        match archive.files().count() {
            0 => archive.refuse_what_is_inside().and(Err(PackedError::Empty)),
            1..=FILES_MAX => Ok(archive),
            files => Err(PackedError::TooManyFiles { files }),
        }
    }

    /// All entries, in the archive's order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The files that are to be read.
    pub fn files(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.used == Use::File)
    }

    /// Says no if there is something in it that is neither read nor nothing: an
    /// archive is read as a whole or not at all.
    pub fn refuse_what_is_inside(&self) -> Result<(), PackedError> {
        for entry in &self.entries {
            let entry_name = entry.name.clone();
            match entry.used {
                Use::File | Use::Nothing | Use::Hidden => {}
                Use::Encrypted => return Err(PackedError::Encrypted { entry: entry_name }),
                Use::Archive => return Err(PackedError::Nested { entry: entry_name }),
            }
        }
        Ok(())
    }

    /// Unpacks an entry to a temporary file.
    pub fn unpack(
        &mut self,
        entry: &Entry,
        files: &TemporaryFiles,
    ) -> Result<Unpacked, PackedError> {
        let temporary =
            |source| PackedError::Temporary { dir: files.dir().display().to_string(), source };
        let output = files.unguarded().map_err(temporary)?;
        // Half of what is left: the sorting of its rows needs as much.
        let free = files.left().map_err(temporary)? / 2;
        let bytes_max = self.bytes_left.min(free);
        let fault = if free < self.bytes_left { Fault::DiskFull } else { Fault::TooLarge };
        let task = Task::Unpack { gzip: self.gzip, index: entry.index, bytes_max };
        let mut child = Child::start(&self.program, &task, &self.file, Some(&output))?;
        let mut unpacked = 0;
        loop {
            match child.hear() {
                Ok(Message::Unpacked(bytes)) => unpacked = bytes,
                Ok(Message::Done) => break,
                Ok(_) => return Err(ChildError::from(FrameError::Malformed("out of turn")).into()),
                Err(ChildError::Fault(Fault::TooLarge)) if fault == Fault::TooLarge => {
                    let bytes_max = UNPACKED_BYTES_MAX.min(bytes_max);
                    return Err(PackedError::TooLarge { entry: entry.name.clone(), bytes_max });
                }
                Err(ChildError::Fault(Fault::TooLarge)) => {
                    return Err(ChildError::Fault(fault).into());
                }
                Err(error) => return Err(error.into()),
            }
        }
        drop(child);
        let bytes = output.metadata().map_err(temporary)?.len();
        if bytes != unpacked {
            return Err(ChildError::from(FrameError::Malformed("unpacked size")).into());
        }
        self.bytes_left = self.bytes_left.saturating_sub(bytes);
        io::Seek::rewind(&mut &output).map_err(temporary)?;
        Ok(Unpacked { file: output, bytes })
    }
}

/// What the file in a gzip is called: what it says itself, or the archive's name
/// without its ending.
fn gunzipped(archive: &str, inside: &str) -> String {
    let inside = inside.rsplit(['/', '\\']).next().unwrap_or_default();
    if !inside.is_empty() {
        return inside.to_owned();
    }
    let cut = archive.len().saturating_sub(".gz".len());
    match archive.get(cut..) {
        Some(ending) if ending.eq_ignore_ascii_case(".gz") && cut > 0 => archive[..cut].to_owned(),
        _ => archive.to_owned(),
    }
}

/// Endings of what is not whole, or older than what lies beside it.
const UNFINISHED: [&str; 7] = [".part", ".filepart", ".tmp", ".crdownload", ".bak", ".old", "~"];

/// What is to be done with an entry, by its name.
fn use_of(name: &str, encrypted: bool) -> Use {
    let is_left_behind = |part: &str| {
        part == "__MACOSX"
            || part.starts_with("._")
            || part == ".DS_Store"
            || part.eq_ignore_ascii_case("thumbs.db")
            || part.eq_ignore_ascii_case("desktop.ini")
            // What an office program keeps beside an open file.
            || part.starts_with("~$")
    };
    // Where packing began, as some programs write it.
    let is_hidden = |part: &str| part.starts_with('.') && !matches!(part, "." | "..");
    let mut parts = name.split(['/', '\\']);
    if name.ends_with(['/', '\\']) || name.is_empty() || parts.clone().any(is_left_behind) {
        return Use::Nothing;
    }
    if parts.any(is_hidden)
        || UNFINISHED.iter().any(|ending| name.to_ascii_lowercase().ends_with(ending))
    {
        return Use::Hidden;
    }
    let lower = name.to_ascii_lowercase();
    let archives = [".zip", ".gz", ".tgz", ".rar", ".7z", ".tar", ".bz2", ".xz", ".zst"];
    match archives.iter().any(|ending| lower.ends_with(ending)) {
        _ if encrypted => Use::Encrypted,
        true => Use::Archive,
        false => Use::File,
    }
}

#[cfg(test)]
mod tests;
