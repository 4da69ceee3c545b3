//! Times in names and texts, and names for files that no other import uses.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use protocol::id::DatasetId;

/// A name for a rejects file in `dir` that no other import uses: none of this
/// process, nor one of another process that ran within the same second. The
/// process id alone would not do, for in a container it is always the same.
pub fn rejects_path(dir: &Path, dataset: &DatasetId) -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(1);
    let stamp = stamp(time::OffsetDateTime::now_utc());
    let process = std::process::id();
    loop {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = dir.join(format!("{dataset}-{stamp}-{process}-{count}.rejects.csv"));
        if path.symlink_metadata().is_err() {
            return path;
        }
    }
}

/// A time for file names: sortable, to the second.
pub fn stamp(now: time::OffsetDateTime) -> String {
    format!(
        "{:04}{:02}{:02}-{:02}{:02}{:02}",
        now.year(),
        u8::from(now.month()),
        now.day(),
        now.hour(),
        now.minute(),
        now.second()
    )
}

/// A moment to the second, RFC 3339 in UTC.
pub(super) fn rfc3339(now: time::OffsetDateTime) -> String {
    let second = now.replace_nanosecond(0).unwrap_or(now);
    second.format(&time::format_description::well_known::Rfc3339).unwrap_or_default()
}
