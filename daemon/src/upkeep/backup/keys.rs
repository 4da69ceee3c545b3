//! A node's private keys in its backup: encrypted with a passphrase, as they lie there if
//! each of them is encrypted already, or left out.
//!
//! Those that need it go into one bundle, which is encrypted as a key file is (PKCS#8,
//! scrypt, AES-256): a checksum, by which a wrong passphrase is known, then path and bytes
//! of each file. Invariant: a key that is not encrypted never goes anywhere else.

use std::{fs, path::Path};

use certs::keyfile::{self, Passphrase, Unsealable, read_private};
use protocol::{
    encoding::{Reader, Writer},
    suite::checksum::Checksum,
};
use zeroize::Zeroizing;

use super::{
    tree::{KEYS, may_be_restored},
    words::{BackupError, Keys},
};

/// What makes a hub's resets of connections the same after a crash is drawn anew; of open
/// invitations none counts after a restore ([`super::tree`]).
const NOT_NEEDED: [&str; 2] = ["reset.seed", "invites.json"];
/// Bytes of a bundle: a node has some ten keys of at most a few KiB.
const BUNDLE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// The longest path.
const PATH_BYTES_MAX: usize = 1024;

/// A node's key files.
pub struct KeyFiles {
    /// Path below the directory, and bytes, in the order of paths.
    files: Vec<(String, Zeroizing<Vec<u8>>)>,
}

/// Reads the key files of a directory, and `others` that its configuration names.
pub fn look(dir: &Path, others: &[String]) -> Result<KeyFiles, BackupError> {
    let mut paths = others.to_vec();
    let folder = dir.join(KEYS);
    for entry in fs::read_dir(&folder).map_err(BackupError::file(&folder))? {
        let entry = entry.map_err(BackupError::file(&folder))?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let is_file = entry.metadata().is_ok_and(|file| file.is_file());
        if is_file && !name.starts_with('.') && !NOT_NEEDED.contains(&name.as_str()) {
            paths.push(format!("{KEYS}/{name}"));
        }
    }
    paths.sort();
    let mut files = Vec::new();
    for path in paths {
        let bytes = read_private(&dir.join(&path)).map_err(|error| BackupError::File {
            path: path.clone(),
            source: std::io::Error::other(error.to_string()),
        })?;
        files.push((path, bytes));
    }
    Ok(KeyFiles { files })
}

impl KeyFiles {
    /// Whether each is encrypted.
    pub fn are_sealed(&self) -> bool {
        self.files.iter().all(|(_, bytes)| keyfile::is_sealed(bytes))
    }

    /// What of them comes into a backup.
    pub fn taken(&self, with_passphrase: bool, left_out: bool) -> Keys {
        match (left_out, self.are_sealed(), with_passphrase) {
            (true, ..) => Keys::LeftOut,
            (_, true, _) => Keys::AsTheyAre,
            (_, _, true) => Keys::Sealed,
            _ => Keys::LeftOut,
        }
    }

    /// Whether another look has found the same.
    pub fn are_the_same(&self, other: &KeyFiles) -> bool {
        self.files == other.files
    }

    /// Path and bytes of each.
    pub fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.files.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice()))
    }

    /// All in one encrypted text.
    pub fn seal(&self, passphrase: &Passphrase) -> Result<Zeroizing<String>, BackupError> {
        // Of the final size, so that growing leaves no copy behind.
        let bytes: usize = self.files.iter().map(|(path, file)| 8 + path.len() + file.len()).sum();
        let mut list = Writer::after(Vec::with_capacity(bytes));
        for (path, file) in &self.files {
            list.bytes(path.as_bytes());
            list.bytes(file);
        }
        let list = Zeroizing::new(list.into_bytes());
        let mut bundle = Zeroizing::new(Vec::with_capacity(Checksum::BYTES + list.len()));
        bundle.extend_from_slice(Checksum::of(&[&list]).as_bytes());
        bundle.extend_from_slice(&list);
        if bundle.len() > BUNDLE_BYTES_MAX {
            return Err(BackupError::Content("its keys are longer than 8 MiB".into()));
        }
        passphrase.seal(&bundle).map_err(|error| BackupError::Content(error.to_string()))
    }

    /// What [`KeyFiles::seal`] has sealed.
    pub fn open(sealed: &[u8], passphrase: &Passphrase) -> Result<Self, BackupError> {
        let wrong = || BackupError::Content("its keys cannot be read".into());
        let text = std::str::from_utf8(sealed).map_err(|_| wrong())?;
        let bundle = passphrase.open(text).map_err(|problem| match problem {
            Unsealable::WrongPassphrase => BackupError::PassphraseWrong,
            Unsealable::Damaged | Unsealable::Parameters => wrong(),
        })?;
        let list = bundle
            .split_first_chunk::<{ Checksum::BYTES }>()
            .filter(|(checksum, list)| Checksum::of(&[list]).as_bytes() == *checksum);
        let (_, list) = list.ok_or(BackupError::PassphraseWrong)?;
        let mut input = Reader::new(list);
        let mut files = Vec::new();
        while input.remaining() > 0 {
            let path = input.text("a path", PATH_BYTES_MAX).map_err(|_| wrong())?;
            let bytes = input.bytes("a key", BUNDLE_BYTES_MAX).map_err(|_| wrong())?;
            if !may_be_restored(path) {
                return Err(wrong());
            }
            files.push((path.to_owned(), Zeroizing::new(bytes.to_vec())));
        }
        Ok(Self { files })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passphrase(text: &str) -> Passphrase {
        Passphrase::new(Zeroizing::new(text.to_owned())).unwrap()
    }

    fn key_files(files: &[(&str, &str)]) -> KeyFiles {
        let file = |&(path, text): &(&str, &str)| {
            (path.to_owned(), Zeroizing::new(text.as_bytes().to_vec()))
        };
        KeyFiles { files: files.iter().map(file).collect() }
    }

    #[test]
    fn sealed_keys_open_with_their_passphrase_alone() {
        let keys = key_files(&[("keys/a.key", "secret"), ("pki/node.key", "")]);
        let sealed = keys.seal(&passphrase("口令")).unwrap();
        assert!(!sealed.contains("secret"));
        let opened = KeyFiles::open(sealed.as_bytes(), &passphrase("口令")).unwrap();
        assert!(opened.are_the_same(&keys));
        // And one whose padding looks right, as one in 256 does, by its checksum.
        let other = passphrase("口").seal(b"some other bytes, as long as a checksum").unwrap();
        for wrong in [&sealed, &other] {
            let opened = KeyFiles::open(wrong.as_bytes(), &passphrase("口"));
            assert!(matches!(opened, Err(BackupError::PassphraseWrong)));
        }
        assert!(KeyFiles::open(b"no PEM", &passphrase("x")).is_err());
        let outside = key_files(&[("../a.key", "secret")]).seal(&passphrase("x")).unwrap();
        assert!(KeyFiles::open(outside.as_bytes(), &passphrase("x")).is_err());
    }

    #[test]
    fn a_key_that_is_not_encrypted_needs_a_passphrase_or_stays_out() {
        let plain = key_files(&[("keys/a.key", "-----BEGIN PRIVATE KEY-----")]);
        let sealed = key_files(&[("keys/a.key", "-----BEGIN ENCRYPTED PRIVATE KEY-----")]);
        for (keys, with_passphrase, left_out, taken) in [
            (&plain, false, false, Keys::LeftOut),
            (&plain, true, false, Keys::Sealed),
            (&plain, true, true, Keys::LeftOut),
            (&sealed, false, false, Keys::AsTheyAre),
            (&sealed, true, false, Keys::AsTheyAre),
            (&sealed, false, true, Keys::LeftOut),
        ] {
            assert_eq!(keys.taken(with_passphrase, left_out), taken);
        }
    }
}
