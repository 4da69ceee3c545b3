//! Times in names and texts, and names for files that no other import uses.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::SystemTime,
};

use protocol::{id::DatasetId, moment::rfc3339};

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

/// A moment in UTC, for programs.
pub fn utc(at: SystemTime) -> String {
    rfc3339(time::OffsetDateTime::from(at).unix_timestamp())
}

/// A moment for people: the machine's local time, with its distance from UTC.
///
/// Asking the C library for the zone is unsound while another thread changes the
/// environment; `jiff` reads the system's zone file itself.
pub fn local(at: SystemTime) -> String {
    match jiff::Timestamp::try_from(at) {
        Ok(at) => {
            let zone = jiff::tz::TimeZone::system();
            at.to_zoned(zone).strftime("%Y-%m-%d %H:%M:%S (UTC%:z)").to_string()
        }
        // Ten thousand years from now.
        Err(_) => utc(at),
    }
}

/// The same for a moment in RFC 3339; another text stays what it is.
pub fn local_of(text: &str) -> String {
    let known = text.parse::<jiff::Timestamp>();
    known.map_or_else(|_| text.to_owned(), |at| local(at.into()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_moment_is_told_in_local_time_with_its_zone() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_764_421_271);
        assert_eq!(utc(at), "2025-11-29T13:01:11Z");
        // Whatever the machine's zone is: read back, it is the same moment.
        let text = local(at);
        let (moment, zone) = text.split_once(" (UTC").unwrap();
        let back: jiff::Timestamp =
            format!("{}{}", moment.replace(' ', "T"), zone.trim_end_matches(')')).parse().unwrap();
        assert_eq!(back.as_second(), 1_764_421_271);
    }
}
