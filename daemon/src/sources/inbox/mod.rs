//! Folders in which files are dropped: `DATASET/` for rows that are added to
//! what is stored, `DATASET/full/` for files that are the whole partition, and
//! folders of any name within both.
//!
//! A file is taken when it is complete ([`settle`], with the help of the kernel's
//! notifications, [`events`]), imported, and then moved ([`moved`]) to `done/` if
//! all of it was taken, to `attention/` if rows were rejected or a person has to
//! approve it, or to `failed/` if nothing was taken. `NAME.report.txt` for people
//! and `NAME.report.json` for programs lie beside it, and `NAME.rejects.csv` where
//! rows were rejected. What is not taken is told of ([`strays`]),
//! and a held file's report once more when somebody has decided ([`decided`]). Started by the
//! daemon; one file at a time, the oldest first, so that the newest word is the
//! last.
//!
//! What is the file's fault goes to `failed/`. What is not (a full disk, a
//! partition that awaits its own history, a shutdown) leaves the file where it
//! is, and newer files of the same dataset behind it.
//!
//! Between an import's last commit and the move of its file nothing ties the
//! two together: after a crash there the file is imported again, finds every
//! row unchanged, and makes no change set.
//!
//! Not here: clearing `done/`, which belongs to the administrator.

mod decided;
mod events;
mod folders;
mod moved;
mod names;
mod report;
mod retry;
mod settle;
mod strays;
mod watcher;
mod words;

use std::{
    collections::HashMap,
    fs::Metadata,
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use protocol::id::DatasetId;
use tokio_util::sync::CancellationToken;

pub use self::folders::Access;
pub(super) use self::watcher::Watcher;
use super::file::Reading;
use crate::{
    ingest::{Importer, held::Deliveries},
    membership::Membership,
};

/// Time between two looks at the folders.
const POLL: Duration = Duration::from_secs(1);

/// The folders, and what they need.
pub struct Inbox {
    /// The directory of all folders.
    pub dir: PathBuf,
    /// Imports files.
    pub importer: Arc<Importer>,
    /// Keeps those that a person has to approve.
    pub deliveries: Arc<Deliveries>,
    /// Knows the datasets.
    pub membership: Arc<Membership>,
    /// How long a file must not have changed.
    pub stable: Duration,
    /// How long one that seems not to be complete.
    pub incomplete: Duration,
    /// When a file was touched last.
    pub touched: fn(&Metadata) -> SystemTime,
    /// Who else may drop files.
    pub access: Access,
    /// How files of a dataset are to be read, where somebody said so.
    pub readings: HashMap<DatasetId, Reading>,
}

/// When anything about a file changed last. A copy may have the time of its original,
/// which says nothing of when it arrived; so the later one counts of that and of the one that nobody can set.
pub fn touched(data: &Metadata) -> SystemTime {
    let seconds = u64::try_from(data.ctime()).unwrap_or_default();
    let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    data.modified().map_or(changed, |modified| modified.max(changed))
}

/// Watches the folders until `stop`. An import that is under way then is ended
/// by the importer's own token, and its file stays.
pub async fn watch(inbox: Inbox, stop: CancellationToken) {
    let mut watcher = Watcher::new(inbox, stop.clone());
    while !stop.is_cancelled() {
        let pass = tokio::task::spawn_blocking(move || {
            watcher.pass(Instant::now(), SystemTime::now());
            watcher
        });
        watcher = match pass.await {
            Ok(watcher) => watcher,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is going away.
                Err(_) => return,
            },
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(POLL) => {}
        }
    }
}
