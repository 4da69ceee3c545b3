//! What is done with a database when it was opened: its format checked, and what the
//! journal has beyond it given to it; and its snapshots moved aside, where they keep it
//! from opening.
//!
//! [`Disk`](super::disk::Disk) does this when a store opens; what comes after is
//! there, and how sled is opened in [`base`].

use std::path::Path;

use protocol::suite::Suite;

use super::{base, journal, keys, table::Table};
use crate::error::StoreError;

/// The newest format of the database that this program writes and knows.
///
/// 7: hashes say their suite, and the database says its own.
pub const FORMAT_VERSION: u32 = 7;
/// Where snapshots go that may be damaged, in the store's directory.
const SNAPSHOTS_ASIDE: &str = "snapshots-aside";

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

/// Moves sled's snapshots of its page table beside it; answers whether there were any.
pub fn set_snapshots_aside(store: &Path) -> Result<bool, StoreError> {
    let file_error = |path: &Path, problem: std::io::Error| StoreError::File {
        path: path.to_owned(),
        problem: problem.to_string(),
    };
    let (database, aside) = (base::current(store), store.join(SNAPSHOTS_ASIDE));
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
