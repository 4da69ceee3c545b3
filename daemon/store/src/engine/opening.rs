//! sled opened with explicit bounds, its format checked, and what the journal
//! has beyond it given to it.
//!
//! [`Disk`](super::disk::Disk) does this when a store opens; what comes after is
//! there.

use std::{
    fs::File,
    path::Path,
    time::{Duration, Instant},
};

use protocol::suite::Suite;

use super::{
    journal, keys,
    table::{SEGMENT_BYTES, Table},
};
use crate::error::StoreError;

/// The newest format of the database that this program writes and knows.
///
/// 7: hashes say their suite, and the database says its own.
pub const FORMAT_VERSION: u32 = 7;
/// Where snapshots go that may be damaged, in the store's directory.
const SNAPSHOTS_ASIDE: &str = "snapshots-aside";
/// How long a locked database is tried again.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// Opens sled in this directory, or makes it.
pub fn open_sled(database: &Path, cache_bytes: u64) -> Result<sled::Db, StoreError> {
    remove_unfinished_snapshots(database).map_err(|problem| StoreError::File {
        path: database.to_owned(),
        problem: problem.to_string(),
    })?;
    let config = sled::Config::new()
        .path(database)
        .cache_capacity(cache_bytes)
        .segment_size(SEGMENT_BYTES)
        .flush_every_ms(None);
    open_unlocked(&config)
}

/// Waits until everything that sled was given is on the disk.
pub fn sync_sled(db: &sled::Db, data: &File) -> Result<(), StoreError> {
    db.flush()?;
    data.sync_data().map_err(|error| StoreError::Database(error.to_string()))
}

/// The value under [`keys::FORMAT`]: the version of the format, and the suite.
pub fn format(suite: Suite) -> Vec<u8> {
    [&FORMAT_VERSION.to_be_bytes()[..], &[suite.number()]].concat()
}

/// Refuses a database of another format than this program's, or of another suite
/// than the federation's.
pub fn check_format(table: &Table, suite: Suite) -> Result<(), StoreError> {
    let Some(bytes) = table.view().get(keys::FORMAT)? else {
        return Ok(());
    };
    let (version, rest) = bytes.as_ref().split_first_chunk().unwrap_or((&[u8::MAX; 4], &[]));
    match (u32::from_be_bytes(*version), rest) {
        (FORMAT_VERSION, [found]) if *found == suite.number() => Ok(()),
        (FORMAT_VERSION, [found]) => Err(StoreError::Suite { found: *found, own: suite.number() }),
        (found, _) => Err(StoreError::Format { found, known: FORMAT_VERSION }),
    }
}

/// Gives sled what the journal holds and it has not got, and answers the number
/// of the last batch. It may be interrupted anywhere: the journal stays as it is.
pub fn replay(
    table: &Table,
    content: &[u8],
    sync: impl Fn() -> Result<(), StoreError>,
) -> Result<u64, StoreError> {
    let applied = match table.view().get(keys::APPLIED)? {
        None => 0,
        Some(bytes) => bytes.as_ref().try_into().map(u64::from_be_bytes).map_err(|_| {
            let problem = "it has not 8 bytes".into();
            StoreError::Damaged { place: "the number of the last batch".into(), problem }
        })?,
    };
    let mut last = applied;
    for (number, body) in journal::records(content).filter(|(number, _)| *number > applied) {
        if number != last + 1 {
            // Only the first one can; what lies between was in sled once.
            tracing::warn!(applied, number, "the database is older than its journal begins");
            break;
        }
        table.keep(journal::decode(body)?);
        last = number;
    }
    if last > applied {
        table.move_to_sled(last, true, sync)?;
        tracing::info!(batches = last - applied, "replayed the journal into the database");
    }
    Ok(last)
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

/// Moves sled's snapshots of its page table beside it; answers whether there were any.
pub fn set_snapshots_aside(store: &Path) -> Result<bool, StoreError> {
    let file_error = |path: &Path, problem: std::io::Error| StoreError::File {
        path: path.to_owned(),
        problem: problem.to_string(),
    };
    let (database, aside) = (store.join("sled"), store.join(SNAPSHOTS_ASIDE));
    let entries = match std::fs::read_dir(&database) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        entries => entries.map_err(|error| file_error(&database, error))?,
    };
    let mut any = false;
    for entry in entries {
        let entry = entry.map_err(|error| file_error(&database, error))?;
        let name = entry.file_name();
        if !name.to_string_lossy().starts_with("snap.") {
            continue;
        }
        std::fs::create_dir_all(&aside).map_err(|error| file_error(&aside, error))?;
        let path = entry.path();
        std::fs::rename(&path, aside.join(name)).map_err(|error| file_error(&path, error))?;
        any = true;
    }
    Ok(any)
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
