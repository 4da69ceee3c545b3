//! One database of sled, which the table stands on, and the names of its directories.
//!
//! There is one, `sled`; while it is compacted, a second one beside it, `sled.next`, gets
//! a copy ([`compact`](super::compact)). When the copy is complete and on the disk, the
//! first becomes `sled.old`, the second `sled`, and the old one goes. sled uses names only
//! while it opens, so its directory may be renamed while it is open.
//!
//! Invariant: `sled`, or where there is none `sled.old`, is complete; whatever else has
//! one of these names is superfluous ([`settle_names`]).

use std::{
    fs::File,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{
    sweep::Sweep,
    table::{SEGMENT_BYTES, TREE},
};
use crate::error::StoreError;

/// The database's directory in the store's.
const CURRENT: &str = "sled";
/// The copy that is being made.
const NEXT: &str = "sled.next";
/// What a complete copy has taken the place of.
const OLD: &str = "sled.old";
/// How long a locked database is tried again.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// An open database.
pub struct Base {
    pub tree: sled::Tree,
    pub sweep: Sweep,
    db: sled::Db,
    data: File,
}

impl Base {
    /// Opens the store's database, or makes it.
    pub fn open(store: &Path, cache_bytes: u64) -> Result<Self, StoreError> {
        settle_names(store)?;
        Self::open_at(&store.join(CURRENT), cache_bytes)
    }

    /// Makes an empty one beside it.
    pub fn make_next(store: &Path, cache_bytes: u64) -> Result<Self, StoreError> {
        // One that was not made to its end is of no use.
        remove(&store.join(NEXT))?;
        remove(&store.join(OLD))?;
        Self::open_at(&store.join(NEXT), cache_bytes)
    }

    fn open_at(directory: &Path, cache_bytes: u64) -> Result<Self, StoreError> {
        remove_unfinished_snapshots(directory)
            .map_err(|problem| file_error(directory, &problem))?;
        let config = sled::Config::new()
            .path(directory)
            .cache_capacity(cache_bytes)
            .segment_size(SEGMENT_BYTES)
            .flush_every_ms(None);
        let db = open_unlocked(&config)?;
        let data = File::open(directory.join("db"));
        let data = data.map_err(|problem| file_error(directory, &problem))?;
        let tree = db.open_tree(TREE)?;
        let sweep = Sweep::new(db.open_tree("sweep")?);
        // The names of its files have to survive a power cut, too.
        files::sync_directory(directory).map_err(|problem| file_error(directory, &problem))?;
        Ok(Self { tree, sweep, db, data })
    }

    /// Waits until everything that it was given is on the disk.
    pub fn sync(&self) -> Result<(), StoreError> {
        self.db.flush()?;
        self.data.sync_data().map_err(|error| StoreError::Database(error.to_string()))
    }

    /// How long its file is.
    pub fn file_bytes(&self) -> Result<u64, StoreError> {
        let length = self.data.metadata().map(|data| data.len());
        length.map_err(|error| StoreError::Database(error.to_string()))
    }
}

/// Whether a store has a database, under whichever name.
pub fn is_there(store: &Path) -> bool {
    [CURRENT, OLD].iter().any(|name| store.join(name).exists())
}

/// The directory of the store's database.
pub fn current(store: &Path) -> PathBuf {
    store.join(CURRENT)
}

/// Gives the names to what they belong to after a crash.
fn settle_names(store: &Path) -> Result<(), StoreError> {
    let (current, next, old) = (store.join(CURRENT), store.join(NEXT), store.join(OLD));
    if !current.exists() && old.exists() {
        // The copy has not taken its place yet, and has nothing that this one lacks.
        rename(&old, &current)?;
        sync_names(store)?;
        tracing::info!("a compaction of the database was interrupted; it begins again later");
    }
    remove(&next)?;
    remove(&old)
}

/// What has become of the names when a copy should have taken over.
pub enum Renamed {
    /// It has, and a crash changes nothing of it.
    Done,
    /// All is as it was.
    NotAtAll(StoreError),
}

/// Gives the copy the place of the database, durably. `step` is called between any two
/// steps.
///
/// # Errors
/// If nobody knows which of the two a crash would leave: nothing may be written then.
pub fn take_over(store: &Path, step: impl Fn(&str)) -> Result<Renamed, StoreError> {
    let (current, next, old) = (store.join(CURRENT), store.join(NEXT), store.join(OLD));
    step("before");
    if let Err(problem) = rename(&current, &old) {
        return Ok(Renamed::NotAtAll(problem));
    }
    step("between");
    if let Err(problem) = rename(&next, &current) {
        rename(&old, &current)?;
        return Ok(Renamed::NotAtAll(problem));
    }
    step("not synced");
    sync_names(store)?;
    step("behind");
    Ok(Renamed::Done)
}

/// Removes what a copy has taken the place of.
pub fn remove_old(store: &Path) -> Result<(), StoreError> {
    remove(&store.join(OLD))
}

/// Removes a copy that is given up.
pub fn remove_next(store: &Path) -> Result<(), StoreError> {
    remove(&store.join(NEXT))
}

fn rename(from: &Path, to: &Path) -> Result<(), StoreError> {
    std::fs::rename(from, to).map_err(|problem| file_error(from, &problem))
}

fn sync_names(store: &Path) -> Result<(), StoreError> {
    files::sync_directory(store).map_err(|problem| file_error(store, &problem))
}

fn remove(directory: &Path) -> Result<(), StoreError> {
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(file_error(directory, &error))
        }
        _ => Ok(()),
    }
}

/// Removes what sled leaves when it is stopped, or finds no room, while it
/// writes a snapshot of its page table. With such a file there it would not open
/// again, although the data is whole: the snapshot only saves time.
///
/// The node's directory is locked, so no other process is writing one.
fn remove_unfinished_snapshots(database: &Path) -> std::io::Result<()> {
    let entries = match std::fs::read_dir(database) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "generating") {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Opens sled, whose lock may outlive its owner for a moment: a thread of
/// sled's pool lets go of the file a little after the database was closed, and a
/// process that was just forked holds it until it runs its own program.
fn open_unlocked(config: &sled::Config) -> Result<sled::Db, StoreError> {
    let began = Instant::now();
    loop {
        match config.open() {
            Err(sled::Error::Io(error))
                if error.to_string().contains("could not acquire lock")
                    && began.elapsed() < LOCK_PATIENCE =>
            {
                std::thread::sleep(LOCK_PATIENCE / 100);
            }
            answer => return Ok(answer?),
        }
    }
}

fn file_error(path: &Path, problem: &std::io::Error) -> StoreError {
    StoreError::File { path: path.to_owned(), problem: problem.to_string() }
}
