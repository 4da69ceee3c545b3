//! Files that exist only while something is read: sorted runs, changes set aside,
//! what comes out of an archive. They have no name, so nothing is left of them
//! whatever happens.
//!
//! They share a disk with the store, which has to be able to write while they grow:
//! what writes them asks for room piece by piece, and is told that the disk is full
//! before it is. Copies of deliveries that wait are written in the same way
//! ([`Guarded`]).

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use store::Store;

/// Bytes that are written between two looks at the disk: far less than the store's
/// reserve.
const ASKED_BYTES: u64 = 4 * 1024 * 1024;

/// Where temporary files lie, and how much room they may take.
#[derive(Clone)]
pub struct TemporaryFiles {
    dir: PathBuf,
    left: Arc<dyn Fn() -> io::Result<u64> + Send + Sync>,
}

impl TemporaryFiles {
    /// In a directory whose disk they may fill.
    pub fn new(dir: &Path) -> Self {
        let at = dir.to_owned();
        let left = move || {
            let stat = rustix::fs::statvfs(&at)?;
            Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
        };
        Self { dir: dir.to_owned(), left: Arc::new(left) }
    }

    /// In a directory on the disk of this store, which keeps the room that it needs.
    pub fn beside(dir: &Path, store: Store) -> Self {
        let left = move || store.room_left().map_err(io::Error::other);
        Self { dir: dir.to_owned(), left: Arc::new(left) }
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Bytes that may still be written.
    pub fn left(&self) -> io::Result<u64> {
        (self.left)()
    }

    /// A new file that is empty, without a name, and readable for this process only.
    pub fn file(&self) -> io::Result<Guarded<File>> {
        Ok(self.guard(self.unguarded()?))
    }

    /// As [`TemporaryFiles::file`], for somebody who keeps to a bound of his own.
    pub fn unguarded(&self) -> io::Result<File> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        // A name is only taken if a process with this id was killed between the two
        // calls below; a hundred of those in one directory mean something else.
        for _ in 0..100 {
            let number = NEXT.fetch_add(1, Relaxed);
            let path = self.dir.join(format!(".sort-{}-{number}.tmp", std::process::id()));
            match options.open(&path) {
                Ok(file) => {
                    fs::remove_file(&path)?;
                    return Ok(file);
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// What is written to `out` asks for room on the same disk.
    pub fn guard<W>(&self, out: W) -> Guarded<W> {
        Guarded { out, files: self.clone(), granted: 0 }
    }
}

impl fmt::Debug for TemporaryFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TemporaryFiles({})", self.dir.display())
    }
}

/// Something that is written as long as there is room; behind that, a write fails with
/// [`io::ErrorKind::StorageFull`].
#[derive(Debug)]
pub struct Guarded<W> {
    out: W,
    files: TemporaryFiles,
    granted: u64,
}

impl<W> Guarded<W> {
    /// What was written to.
    pub fn into_inner(self) -> W {
        self.out
    }
}

impl<W: Write> Write for Guarded<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let wanted = bytes.len() as u64;
        if self.granted < wanted {
            let asked = ASKED_BYTES.max(wanted);
            if self.files.left()? < asked {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.granted = asked;
        }
        let written = self.out.write(bytes)?;
        self.granted -= written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_asks_for_room_piece_by_piece() {
        let left = Arc::new(AtomicU64::new(3 * ASKED_BYTES));
        let asked = left.clone();
        let files = TemporaryFiles {
            dir: PathBuf::from("/nonexistent"),
            left: Arc::new(move || Ok(asked.load(Relaxed))),
        };
        let mut out = files.guard(Vec::new());
        let piece = vec![7; ASKED_BYTES as usize / 4];
        for _ in 0..4 {
            out.write_all(&piece).unwrap();
        }
        left.store(ASKED_BYTES - 1, Relaxed);
        let refused = out.write_all(&piece).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::StorageFull);
        left.store(ASKED_BYTES, Relaxed);
        out.write_all(&piece).unwrap();
        // That much was granted; larger pieces are asked for as they are.
        left.store(0, Relaxed);
        out.write_all(&piece).unwrap();
        let refused = out.write_all(&vec![7; 4 * piece.len()]).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::StorageFull);
        assert_eq!(out.into_inner().len(), 6 * piece.len());
    }

    #[test]
    fn a_file_has_no_name() {
        let dir = tempfile::tempdir().unwrap();
        let files = TemporaryFiles::new(dir.path());
        let mut file = files.file().unwrap();
        file.write_all(b"x").unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(files.left().unwrap() > 0);
    }
}
