//! A node's directory: what lies where. Not here: who may work in it (`lock`).

use std::{
    fs::DirBuilder,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};

/// Linux' limit for the path of a Unix socket, without its final zero byte.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// A node's directory.
#[derive(Debug, Clone)]
pub struct NodeDir(PathBuf);

impl NodeDir {
    /// The directory at `path`, which need not exist yet.
    pub fn new(path: &Path) -> Self {
        // Answers name files, and whoever reads them is somewhere else. Without
        // a working directory the path stays as it is.
        Self(std::path::absolute(path).unwrap_or_else(|_| path.to_owned()))
    }

    /// Refuses a path under which no socket can be made.
    pub fn check_length(&self) -> anyhow::Result<()> {
        let bytes = self.socket().as_os_str().len();
        if bytes > SOCKET_PATH_BYTES_MAX {
            bail!(
                "{} is too long: a local socket below it would have a path of {bytes} bytes, and Linux \
                 allows {SOCKET_PATH_BYTES_MAX}. Choose a shorter --dir",
                self.0.display()
            );
        }
        Ok(())
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The configuration; a directory with this file is a node.
    pub fn config(&self) -> PathBuf {
        self.0.join("creditsync.toml")
    }

    /// Certificates and the anchor.
    pub fn certs(&self) -> PathBuf {
        self.0.join("certs")
    }

    /// Which fields are personal by what the administrator knows.
    pub fn personal(&self) -> PathBuf {
        self.certs().join("personal.json")
    }

    /// The signed root of trust.
    pub fn anchor(&self) -> PathBuf {
        self.certs().join("anchor")
    }

    /// Private keys and invitations.
    pub fn keys(&self) -> PathBuf {
        self.0.join("keys")
    }

    /// The key that signs change sets.
    pub fn signing_key(&self) -> PathBuf {
        self.keys().join("signing.key")
    }

    /// What makes a hub's resets of connections the same after a crash.
    pub fn reset_seed(&self) -> PathBuf {
        self.keys().join("reset.seed")
    }

    /// The database.
    pub fn store(&self) -> PathBuf {
        self.0.join("store")
    }

    /// What is recalled of full files: it only saves time. Made when it is needed.
    pub fn recall(&self) -> PathBuf {
        self.store().join("recall")
    }

    /// Where counties drop files.
    pub fn inbox(&self) -> PathBuf {
        self.0.join("inbox")
    }

    /// Descriptions of rejected rows.
    pub fn rejects(&self) -> PathBuf {
        self.0.join("rejects")
    }

    /// Deliveries that wait for a person.
    pub fn deliveries(&self) -> PathBuf {
        self.0.join("deliveries")
    }

    /// What is kept of chores.
    pub fn chores(&self) -> PathBuf {
        self.0.join("chores")
    }

    /// What was here and made way for something else.
    pub fn aside(&self) -> PathBuf {
        self.0.join("aside")
    }

    /// The lock, the socket and temporary files.
    pub fn run(&self) -> PathBuf {
        self.0.join("run")
    }

    /// What says that a process works in this directory.
    pub(super) fn lock_file(&self) -> PathBuf {
        self.run().join("lock")
    }

    /// The local socket.
    pub fn socket(&self) -> PathBuf {
        self.run().join("admin.sock")
    }

    /// Whether a node was made here.
    pub fn is_node(&self) -> bool {
        self.config().exists()
    }

    /// Makes the directories. Only the owner may look into those that hold
    /// records; others may be let into the inbox to drop files.
    pub fn create(&self) -> anyhow::Result<()> {
        for (dir, mode) in [
            (self.store(), 0o700),
            (self.inbox(), 0o770),
            (self.rejects(), 0o700),
            (self.deliveries(), 0o700),
            (self.run(), 0o700),
        ] {
            DirBuilder::new()
                .recursive(true)
                .mode(mode)
                .create(&dir)
                .with_context(|| format!("make {}", dir.display()))?;
        }
        Ok(())
    }
}

/// Removes a file that may not be there.
pub(super) fn remove(path: &Path) -> anyhow::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
