//! A directory made of a backup, but for its configuration.
//!
//! Without that it is no node, so nothing starts in it. Who calls this writes the
//! configuration last, when all is well, and removes everything when it is not; and
//! notes that the node was restored. Invariant: no file is written over, and none
//! outside of the directory.

use std::{
    collections::BTreeSet,
    fs::{DirBuilder, File, OpenOptions},
    io::{Read, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use certs::keyfile::{Passphrase, write_private};
use config::NodeConfig;
use protocol::{id::PartitionId, suite::Suite};
use store::{Filling, NewStore, Options, Piece, StoreError};

use super::{
    keys::KeyFiles,
    read::{Summary, Taker, read},
    tree::CONFIG,
    words::{BackupError, Copied, FileEntry, Manifest},
};

/// The longest configuration: a hundred times a usual one.
const CONFIG_BYTES_MAX: usize = 1024 * 1024;

/// Asks for the passphrase.
pub type Ask<'a> = &'a dyn Fn() -> Result<Option<Passphrase>, BackupError>;

/// A directory that is a node once its configuration is written.
pub struct Restored {
    /// What the backup held.
    pub summary: Summary,
    /// The text of `creditsync.toml`.
    pub config: Vec<u8>,
}

/// Puts all of a backup into `dir`, whose `store` is empty. Blocks.
pub fn restore(
    input: impl Read,
    (dir, store): (&Path, &Path),
    ask: Ask<'_>,
    heed: &mut dyn FnMut(Copied),
) -> Result<Restored, BackupError> {
    let mut filler = Filler {
        dir,
        store_path: store,
        ask,
        suite: None,
        config: Vec::new(),
        file: None,
        store: None,
        filling: None,
        folders: BTreeSet::new(),
    };
    let summary = read(input, &mut filler, heed)?;
    let Filler { config, store, folders, .. } = filler;
    let store = store.ok_or_else(|| BackupError::Content("it has no partition".into()))?;
    store.finish()?;
    // Names of new files have to survive a power cut as well.
    for folder in folders.iter().map(PathBuf::as_path).chain([dir]) {
        files::sync_directory(folder).map_err(BackupError::file(folder))?;
    }
    Ok(Restored { summary, config })
}

struct Filler<'a> {
    dir: &'a Path,
    store_path: &'a Path,
    ask: Ask<'a>,
    suite: Option<Suite>,
    config: Vec<u8>,
    /// None inside of the configuration.
    file: Option<(PathBuf, File)>,
    store: Option<NewStore>,
    filling: Option<Filling>,
    folders: BTreeSet<PathBuf>,
}

impl Filler<'_> {
    /// A path below the directory, with its folders made.
    fn place(&mut self, path: &str) -> Result<PathBuf, BackupError> {
        let full = self.dir.join(path);
        if let Some(folder) = full.parent() {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)
                .map_err(BackupError::file(folder))?;
            self.folders.insert(folder.to_owned());
        }
        Ok(full)
    }
}

impl Taker for Filler<'_> {
    fn manifest(&mut self, _: &Manifest, suite: Suite) -> Result<(), BackupError> {
        self.suite = Some(suite);
        Ok(())
    }

    fn file(&mut self, entry: &FileEntry) -> Result<(), BackupError> {
        if entry.path == CONFIG {
            return Ok(());
        }
        let path = self.place(&entry.path)?;
        let mode = if entry.private { files::PRIVATE } else { files::PUBLIC };
        let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&path);
        let file = file.map_err(BackupError::file(&path))?;
        self.file = Some((path, file));
        Ok(())
    }

    fn data(&mut self, bytes: &[u8]) -> Result<(), BackupError> {
        if let Some((path, file)) = &mut self.file {
            return file.write_all(bytes).map_err(BackupError::file(path));
        }
        if self.config.len() + bytes.len() > CONFIG_BYTES_MAX {
            return Err(BackupError::Content(format!("{CONFIG} is longer than 1 MiB")));
        }
        self.config.extend_from_slice(bytes);
        Ok(())
    }

    fn file_end(&mut self) -> Result<(), BackupError> {
        if let Some((path, file)) = self.file.take() {
            file.sync_all().map_err(BackupError::file(&path))?;
        }
        Ok(())
    }

    fn keys(&mut self, sealed: &[u8]) -> Result<(), BackupError> {
        let passphrase = (self.ask)()?.ok_or(BackupError::PassphraseMissing)?;
        for (path, bytes) in KeyFiles::open(sealed, &passphrase)?.files() {
            let full = self.place(path)?;
            write_private(&full, bytes).map_err(|error| BackupError::File {
                path: path.to_owned(),
                source: std::io::Error::other(error.to_string()),
            })?;
        }
        Ok(())
    }

    fn partition(&mut self, partition: &PartitionId) -> Result<(), BackupError> {
        if self.store.is_none() {
            let suite = self.suite.ok_or_else(|| BackupError::Content("it has no suite".into()))?;
            let text = String::from_utf8_lossy(&self.config);
            let config = NodeConfig::parse(&text)
                .map_err(|error| BackupError::Content(format!("{CONFIG}: {error}")))?;
            let options = Options {
                suite,
                cache_mb: config.store.cache_mb,
                disk_reserve_mb: config.store.disk_reserve_mb,
            };
            self.store = Some(NewStore::create(self.store_path, &options)?);
        }
        self.filling = self.store.as_mut().map(|store| store.begin(partition.clone()));
        Ok(())
    }

    fn pieces(&mut self, pieces: Vec<Piece>) -> Result<(), StoreError> {
        match (&mut self.filling, &mut self.store) {
            (Some(filling), Some(store)) => filling.take(store, pieces),
            _ => Ok(()),
        }
    }

    fn partition_end(&mut self) -> Result<(), StoreError> {
        match (self.filling.take(), &mut self.store) {
            (Some(filling), Some(store)) => filling.finish(store).map(drop),
            _ => Ok(()),
        }
    }

    fn give_up(&mut self) {
        self.filling = None;
    }
}
