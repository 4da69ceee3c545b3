//! Whether a backup is good: all of it is read and judged, and nothing is written.

use std::io::Read;

use certs::keyfile::Passphrase;
use protocol::{id::PartitionId, suite::Suite};
use store::{Check, Piece, StoreError};

use super::{
    keys::KeyFiles,
    read::{Summary, Taker, read},
    words::{BackupError, Copied, FileEntry, Manifest},
};

/// Reads all of a backup: frames, checksums, each partition's tree under its signed head,
/// signatures; and whether the keys open, if there is a passphrase. Blocks.
pub fn check(
    input: impl Read,
    passphrase: Option<&Passphrase>,
    heed: &mut dyn FnMut(Copied),
) -> Result<Summary, BackupError> {
    let mut judge = Judge { suite: None, passphrase, open: None };
    read(input, &mut judge, heed)
}

struct Judge<'a> {
    suite: Option<Suite>,
    passphrase: Option<&'a Passphrase>,
    open: Option<Check>,
}

impl Taker for Judge<'_> {
    fn manifest(&mut self, _: &Manifest, suite: Suite) -> Result<(), BackupError> {
        self.suite = Some(suite);
        Ok(())
    }

    fn file(&mut self, _: &FileEntry) -> Result<(), BackupError> {
        Ok(())
    }

    fn data(&mut self, _: &[u8]) -> Result<(), BackupError> {
        Ok(())
    }

    fn file_end(&mut self) -> Result<(), BackupError> {
        Ok(())
    }

    fn keys(&mut self, sealed: &[u8]) -> Result<(), BackupError> {
        match self.passphrase {
            Some(passphrase) => KeyFiles::open(sealed, passphrase).map(drop),
            None => Ok(()),
        }
    }

    fn partition(&mut self, partition: &PartitionId) -> Result<(), BackupError> {
        self.open = self.suite.map(|suite| Check::new(suite, partition.clone()));
        Ok(())
    }

    fn pieces(&mut self, pieces: Vec<Piece>) -> Result<(), StoreError> {
        match &mut self.open {
            Some(check) => check.take(pieces).map(drop),
            None => Ok(()),
        }
    }

    fn partition_end(&mut self) -> Result<(), StoreError> {
        match self.open.take() {
            Some(check) => check.finish().map(drop),
            None => Ok(()),
        }
    }

    fn give_up(&mut self) {
        self.open = None;
    }
}
