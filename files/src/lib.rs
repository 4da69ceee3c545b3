//! Files that are written whole or not at all.
//!
//! Used by `certs` for keys and certificates, by the store for its sidecar and its
//! journal, and wherever else a file takes the place of another. Invariants: after
//! a crash at any moment a name leads to all of the old file or all of the new
//! one; what has returned is durable; a file has its mode before its first byte;
//! what a crash leaves beside it is replaced by the next try, never followed or
//! added to.
//!
//! Not here: files that grow (journals, logs, packs), folders that others may
//! write in (`sources::inbox`), and files that may be lost (`ingest::recall`).

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard},
};

/// For the owner only: keys, and what has records in it.
pub const PRIVATE: u32 = 0o600;
/// For everybody to read.
pub const PUBLIC: u32 = 0o644;

/// Names that this process is writing to, so that no two writers of one file share
/// one. Another process is kept away by the lock of a node's directory.
static UNDER_WAY: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// Writes `path` with exactly this mode, in place of what is there. It is durable
/// when this returns; on an error what was there is there still.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut new = Replacement::new(path, mode)?;
    new.write_all(bytes)?;
    new.commit().map(drop)
}

/// Writes `path` as [`replace`] does, but only if there is nothing of that name:
/// else [`io::ErrorKind::AlreadyExists`].
pub fn create(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut new = Replacement::new(path, mode)?;
    new.write_all(bytes)?;
    new.commit_new().map(drop)
}

/// Makes names that were made or removed in a directory durable.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// As [`sync_directory`], of the directory that a file lies in.
pub fn sync_directory_of(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_directory(parent),
        _ => sync_directory(Path::new(".")),
    }
}

/// A new file beside the one whose place it takes at the end; dropped before that,
/// it is gone.
#[derive(Debug)]
pub struct Replacement {
    file: File,
    path: PathBuf,
    temporary: PathBuf,
}

impl Replacement {
    /// An empty file with exactly this mode, in the same directory.
    pub fn new(path: &Path, mode: u32) -> io::Result<Self> {
        let temporary = reserve(path)?;
        let file = open_new(&temporary, mode);
        let file = file.inspect_err(|_| {
            under_way().remove(&temporary);
        })?;
        let new = Self { file, path: path.to_owned(), temporary };
        // The umask only takes away from the mode that it was opened with.
        new.file.set_permissions(Permissions::from_mode(mode))?;
        Ok(new)
    }

    /// The open file, for another process to write to. Who commits waits until that is
    /// done.
    pub fn handle(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// Takes the place of what is there, durably. The open file is the new one.
    pub fn commit(self) -> io::Result<File> {
        let file = self.synced()?;
        fs::rename(&self.temporary, &self.path)?;
        sync_directory_of(&self.path)?;
        Ok(file)
    }

    /// Takes its place only if there is nothing, durably.
    pub fn commit_new(self) -> io::Result<File> {
        let file = self.synced()?;
        // A link fails where a rename would replace what somebody has just made.
        fs::hard_link(&self.temporary, &self.path)?;
        fs::remove_file(&self.temporary)?;
        sync_directory_of(&self.path)?;
        Ok(file)
    }

    /// The bytes before the name: the other way round a power cut could leave the
    /// name with an empty file.
    fn synced(&self) -> io::Result<File> {
        self.file.sync_all()?;
        let (own, named) = (self.file.metadata()?, fs::symlink_metadata(&self.temporary)?);
        if (own.dev(), own.ino()) != (named.dev(), named.ino()) {
            let problem = format!("{} was replaced meanwhile", self.temporary.display());
            return Err(io::Error::other(problem));
        }
        self.file.try_clone()
    }
}

impl Write for Replacement {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        // It is gone already where it took its place; else the first error is the
        // one to report, and the next try removes it.
        let _ = fs::remove_file(&self.temporary);
        under_way().remove(&self.temporary);
    }
}

fn under_way() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    // Each change of the set is one step, so a panic leaves nothing half done.
    UNDER_WAY.lock().unwrap_or_else(|error| error.into_inner())
}

/// A name beside `path` that nobody in this process writes to: the same one each
/// time, so that what crashes leave does not pile up.
fn reserve(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
    let mut under_way = under_way();
    let mut number = 0_u64;
    loop {
        let mut temporary = OsString::from(".");
        temporary.push(name);
        temporary.push(format!(".{number}.tmp"));
        let temporary = path.with_file_name(temporary);
        if under_way.insert(temporary.clone()) {
            return Ok(temporary);
        }
        number += 1;
    }
}

/// Opens a file that is new: what a crash has left, or a link that somebody has
/// put there, is removed and not opened.
fn open_new(path: &Path, mode: u32) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new().write(true).create_new(true).mode(mode).open(path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails loudly")]

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_takes_the_place_of_another_with_its_own_mode() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        for (bytes, wanted) in [(b"one".as_slice(), PUBLIC), (b"two", PRIVATE), (b"", 0o666)] {
            replace(&path, bytes, wanted).unwrap();
            assert_eq!((fs::read(&path).unwrap().as_slice(), mode(&path)), (bytes, wanted));
            assert_eq!(names(directory.path()), ["a"]);
        }
    }

    #[test]
    fn a_secret_is_never_there_for_others() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let mut new = Replacement::new(&path, PRIVATE).unwrap();
        let [temporary] = names(directory.path()).try_into().unwrap();
        assert_eq!(mode(&directory.path().join(temporary)), PRIVATE, "before the first byte");
        new.write_all(b"secret").unwrap();
        drop(new);
        assert_eq!(names(directory.path()), [""; 0], "what is given up is gone");
    }

    #[test]
    fn what_is_there_stays_until_the_new_one_is_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        replace(&path, b"old", PUBLIC).unwrap();
        let mut new = Replacement::new(&path, PUBLIC).unwrap();
        new.write_all(b"ne").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        new.write_all(b"w").unwrap();
        let file = new.commit().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(file.metadata().unwrap().ino(), fs::metadata(&path).unwrap().ino());
    }

    #[test]
    fn what_exists_is_not_replaced_by_create() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        create(&path, b"one", PRIVATE).unwrap();
        assert_eq!(mode(&path), PRIVATE);
        let error = create(&path, b"two", PRIVATE).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"one");
        assert_eq!(names(directory.path()), ["a"]);
    }

    #[test]
    fn what_a_crash_left_is_replaced_and_a_planted_link_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let [path, victim] = ["a", "victim"].map(|name| directory.path().join(name));
        fs::write(&victim, b"untouched").unwrap();
        let left = reserve(&path).unwrap();
        under_way().remove(&left);
        fs::write(&left, b"longer than what comes now").unwrap();
        replace(&path, b"new", PUBLIC).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        std::os::unix::fs::symlink(&victim, &left).unwrap();
        replace(&path, b"newer", PUBLIC).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"newer");
        assert_eq!(fs::read(&victim).unwrap(), b"untouched");
        assert_eq!(names(directory.path()), ["a", "victim"]);
    }

    #[test]
    fn writers_of_one_file_do_not_mix() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        let mut first = Replacement::new(&path, PUBLIC).unwrap();
        let mut second = Replacement::new(&path, PUBLIC).unwrap();
        first.write_all(b"first").unwrap();
        second.write_all(b"second").unwrap();
        second.commit().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        first.commit().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"first");
        // Another process, which does not see the reservation.
        let third = Replacement::new(&path, PUBLIC).unwrap();
        drop(open_new(&third.temporary, PUBLIC).unwrap());
        assert!(third.commit().is_err(), "what it would rename is not its own");
        assert_eq!(fs::read(&path).unwrap(), b"first");
    }

    #[test]
    fn a_directory_that_is_not_there_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        assert!(replace(&directory.path().join("absent/a"), b"", PUBLIC).is_err());
        assert!(replace(Path::new("/"), b"", PUBLIC).is_err());
        assert!(under_way().iter().all(|path| !path.starts_with(directory.path())));
    }
}
