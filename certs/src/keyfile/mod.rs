//! Key and certificate files: private ones that only their owner reads, public
//! ones that are replaced in one step.
//!
//! Used by the rest of this crate and by the daemon. Invariant: a file written
//! here is whole or absent, whatever fails half-way, and a private file has mode
//! 0600 from its first moment.
//!
//! Also *lists*, which grow with the members: [`replace_list`]. Whatever is written can be
//! read again.
//!
//! Not here: what the files hold; keys are [`KeyDir`]'s, certificates
//! [`crate::pem`]'s.

mod dir;
mod sealed;

use std::{
    fs::{self, File},
    io::{ErrorKind, Read as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::Path,
};

use zeroize::Zeroizing;

pub use self::{
    dir::{KeyDir, NODE_KEY_FILE, Passphrase, SIGNING_KEY_FILE, StoredKey, generate_signing_key},
    sealed::Unsealable,
};
use crate::CertError;
pub use crate::error::PASSPHRASE_VARIABLE;

/// Longest key or certificate file that is read: a chain of RSA-4096
/// certificates has about 8 KiB, so this only stops a wrong file.
pub const FILE_BYTES_MAX: u64 = 1 << 20;
/// Longest list that is written and read: a hundred thousand members of some 500 bytes.
pub const LIST_BYTES_MAX: u64 = 64 << 20;

/// Creates the private file `path` with mode 0600.
///
/// Refuses to overwrite, because a key that is lost cannot be made again. The
/// file and its directory are on disk when this returns.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), CertError> {
    if path.symlink_metadata().is_ok() {
        return Err(CertError::Exists(path.to_owned()));
    }
    files::create(path, bytes, files::PRIVATE).map_err(|source| match source.kind() {
        ErrorKind::AlreadyExists => CertError::Exists(path.to_owned()),
        _ => CertError::File { action: "create", path: path.to_owned(), source },
    })
}

/// Writes the private file `path` with mode 0600, replacing in one step what
/// was there. Not for a key that may count some day: see [`write_private`].
pub fn replace_private(path: &Path, bytes: &[u8]) -> Result<(), CertError> {
    replace(path, bytes, files::PRIVATE)
}

/// Makes a directory that only its owner may enter, with its parents.
pub fn create_private_dir(path: &Path) -> Result<(), CertError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(CertError::file("create", path))
}

/// Reads the private file `path`; refuses one that group or others can touch.
pub fn read_private(path: &Path) -> Result<Zeroizing<Vec<u8>>, CertError> {
    let (file, mode) = open(path)?;
    if mode & 0o077 != 0 {
        return Err(CertError::NotPrivate { path: path.to_owned(), mode });
    }
    read_limited(file, path, FILE_BYTES_MAX).map(Zeroizing::new)
}

/// Whether these bytes of a key file are encrypted.
pub fn is_sealed(bytes: &[u8]) -> bool {
    let label = sealed::LABEL.as_bytes();
    bytes.windows(label.len()).any(|window| window == label)
}

/// Writes a list for its owner only, replacing in one step what was there. Refuses one
/// that would be too long to be read.
pub fn replace_list(path: &Path, bytes: &[u8]) -> Result<(), CertError> {
    replace_limited(path, bytes, files::PRIVATE, LIST_BYTES_MAX)
}

/// Reads a list.
pub fn read_list(path: &Path) -> Result<Vec<u8>, CertError> {
    let (file, _) = open(path)?;
    read_limited(file, path, LIST_BYTES_MAX)
}

/// Writes the public file `path` with mode 0644, replacing in one step what was
/// there. The file and its directory are on disk when this returns.
pub fn write_public(path: &Path, bytes: &[u8]) -> Result<(), CertError> {
    replace(path, bytes, files::PUBLIC)
}

fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<(), CertError> {
    replace_limited(path, bytes, mode, FILE_BYTES_MAX)
}

fn replace_limited(path: &Path, bytes: &[u8], mode: u32, max: u64) -> Result<(), CertError> {
    if bytes.len() as u64 > max {
        return Err(too_long(path, max));
    }
    files::replace(path, bytes, mode).map_err(CertError::file("write", path))
}

/// Reads the public file `path`.
pub fn read_public(path: &Path) -> Result<Vec<u8>, CertError> {
    let (file, _) = open(path)?;
    read_limited(file, path, FILE_BYTES_MAX)
}

/// Removes a file for good; false if there was none.
fn remove_durably(path: &Path) -> Result<bool, CertError> {
    match fs::remove_file(path) {
        Ok(()) => sync_directory(path).map(|()| true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(CertError::file("remove", path)(error)),
    }
}

/// Makes the new name in `path`'s directory durable.
fn sync_directory(path: &Path) -> Result<(), CertError> {
    files::sync_directory_of(path).map_err(CertError::file("sync the directory of", path))
}

/// The open file and its permission bits, which belong to the same file even if
/// the name is replaced meanwhile.
fn open(path: &Path) -> Result<(File, u32), CertError> {
    let file = File::open(path).map_err(CertError::file("read", path))?;
    let metadata = file.metadata().map_err(CertError::file("read", path))?;
    Ok((file, metadata.mode() & 0o7777))
}

fn read_limited(file: File, path: &Path, max: u64) -> Result<Vec<u8>, CertError> {
    // One buffer of the final size: growing would leave copies of a key in
    // memory that nobody wipes.
    let length = file.metadata().map_err(CertError::file("read", path))?.len();
    let mut bytes = Vec::with_capacity(length.min(max) as usize + 1);
    file.take(max + 1).read_to_end(&mut bytes).map_err(CertError::file("read", path))?;
    if bytes.len() as u64 > max {
        return Err(too_long(path, max));
    }
    Ok(bytes)
}

fn too_long(path: &Path, max: u64) -> CertError {
    CertError::content(
        path,
        match max {
            FILE_BYTES_MAX => "larger than 1 MiB, so no key or certificate file",
            _ => "larger than 64 MiB, which no list of members or tokens is",
        },
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::PermissionsExt as _;

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
    fn a_private_file_is_0600_and_is_never_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        write_private(&path, b"first").unwrap();
        assert_eq!(mode(&path), 0o600);
        let error = write_private(&path, b"second").unwrap_err();
        assert!(matches!(&error, CertError::Exists(p) if *p == path), "{error}");
        assert_eq!(read_private(&path).unwrap().as_slice(), b"first");
        assert_eq!(names(directory.path()), ["key"], "no temporary file is left");
    }

    #[test]
    fn a_private_file_that_others_can_read_is_refused_with_the_remedy() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        write_private(&path, b"bytes").unwrap();
        for open_mode in [0o640, 0o604, 0o620, 0o601] {
            fs::set_permissions(&path, fs::Permissions::from_mode(open_mode)).unwrap();
            let message = read_private(&path).unwrap_err().to_string();
            assert!(message.contains(&format!("chmod 600 {}", path.display())), "{message}");
            assert!(message.contains(&format!("{open_mode:03o}")), "{message}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        assert_eq!(read_private(&path).unwrap().as_slice(), b"bytes");
    }

    #[test]
    fn a_public_file_is_0644_and_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("chain.pem");
        write_public(&path, b"first").unwrap();
        write_public(&path, b"second").unwrap();
        assert_eq!(mode(&path), 0o644);
        assert_eq!(read_public(&path).unwrap(), b"second");
        assert_eq!(names(directory.path()), ["chain.pem"]);
    }

    #[test]
    fn a_missing_directory_or_file_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("absent").join("key");
        for error in [
            write_private(&path, b"").unwrap_err(),
            write_public(&path, b"").unwrap_err(),
            read_private(&path).unwrap_err(),
            read_public(&path).unwrap_err(),
        ] {
            assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        }
    }

    #[test]
    fn what_is_written_can_be_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("members.json");
        let long = vec![b'a'; FILE_BYTES_MAX as usize + 1];
        for refused in [write_public(&path, &long), replace_private(&path, &long)] {
            assert!(refused.unwrap_err().to_string().contains("larger than 1 MiB"));
        }
        assert!(names(directory.path()).is_empty());
        replace_list(&path, &long).unwrap();
        assert_eq!((mode(&path), read_list(&path).unwrap().len()), (0o600, long.len()));
        let longer = vec![b'a'; LIST_BYTES_MAX as usize + 1];
        assert!(replace_list(&path, &longer).is_err());
        assert_eq!(read_list(&path).unwrap().len(), long.len());
    }

    #[test]
    fn an_endless_file_is_refused() {
        assert!(read_public(Path::new("/dev/zero")).is_err());
    }
}
