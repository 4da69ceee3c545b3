//! What was delivered, what became of it, and what takes it back.
//!
//! - [`event`]: the lines of the log `deliveries.jsonl`, and what they come to;
//! - [`log`]: that file, written at its end;
//! - [`images`]: what was stored before a delivery changed it;
//! - [`record`]: both, written while a delivery is committed;
//! - [`touched`]: which keys change sets have changed since a number.
//!
//! Used by the importer for each delivery, by `undo`, and by `creditsync
//! delivery`. Invariants: before a change set is committed, what takes it back
//! is written, or the log says nothing of an undo (`undo` counts both); a failure
//! here costs the undo and never the delivery. Not here: taking back (`undo`),
//! and what waits for a person (`held`).

pub mod event;
pub(super) mod images;
mod log;
mod record;
pub(super) mod touched;

#[cfg(test)]
mod tests;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard},
    time::{Duration, SystemTime},
};

use protocol::id::DatasetId;

pub(super) use self::record::{Recording, describe};
use self::{
    event::{Delivery, Event, Line},
    images::ImageFile,
    log::Log,
};
use super::stamp::{stamp, utc};

/// How long, and in how many bytes, deliveries can be taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UndoLimits {
    /// Days after which a delivery cannot be taken back any more.
    pub days: u64,
    /// Bytes of all files with what was stored before; the oldest go first.
    pub bytes: u64,
}

impl Default for UndoLimits {
    /// What holds without a setting; `config` has the same numbers.
    fn default() -> Self {
        Self { days: 30, bytes: 1024 * 1024 * 1024 }
    }
}

impl UndoLimits {
    /// The age of the oldest delivery that can be taken back.
    pub(super) fn age_max(&self) -> Duration {
        Duration::from_secs(self.days.saturating_mul(24 * 3600))
    }
}

/// The deliveries of a node.
#[derive(Debug)]
pub struct History {
    dir: PathBuf,
    limits: UndoLimits,
    log: Mutex<Log>,
    /// The last id's time and number: an id is given before its line is written.
    issued: Mutex<(String, u64)>,
}

impl History {
    /// The history in `dir`, which is made when it is needed.
    pub fn new(dir: PathBuf, limits: UndoLimits) -> Self {
        let log = Mutex::new(Log::new(&dir));
        Self { dir, limits, log, issued: Mutex::default() }
    }

    /// The limits of taking back.
    pub(super) fn limits(&self) -> &UndoLimits {
        &self.limits
    }

    /// An id that names no other delivery of this node: dataset, second, number.
    /// `is_taken` knows ids that are not in the log.
    pub(super) fn new_id(
        &self,
        dataset: &DatasetId,
        now: time::OffsetDateTime,
        is_taken: impl Fn(&str) -> bool,
    ) -> String {
        let stem = format!("{dataset}-{}", stamp(now));
        let mut issued = self.issued.lock().unwrap_or_else(|error| error.into_inner());
        // Another process may have given ids within this second.
        let recent = self.log().tail();
        let first = if issued.0 == stem { issued.1 + 1 } else { 1 };
        let is_free = |number: &u64| {
            let id = format!("{stem}-{number}");
            !recent.contains(&format!("\"{id}\"")) && !is_taken(&id)
        };
        // Numbers do not end, and what is taken is finite.
        let number = (first..).find(is_free).unwrap_or(first);
        *issued = (stem.clone(), number);
        format!("{stem}-{number}")
    }

    /// The deliveries that the log still has, the oldest first.
    pub fn deliveries(&self) -> Vec<Delivery> {
        let lines = self.log().lines();
        event::fold(lines)
    }

    /// One delivery.
    pub fn delivery(&self, id: &str) -> Option<Delivery> {
        self.deliveries().into_iter().find(|delivery| delivery.id == id)
    }

    /// Notes what became of a delivery that was held; a failure is logged.
    pub fn note(&self, id: &str, event: Event) {
        self.append(id, event, false);
    }

    /// Appends a line; answers whether it is there, and durable if it is to be.
    fn append(&self, id: &str, event: Event, durable: bool) -> bool {
        let at = utc(SystemTime::now());
        let line = Line { id: id.to_owned(), at, event };
        match self.log().append(&line, durable) {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(%error, delivery = id, "the log of deliveries cannot be written");
                false
            }
        }
    }

    /// Removes what is too old to be taken back; also each delivery does that. A
    /// failure is logged.
    pub fn expire(&self) {
        if let Err(error) = self.make_room(None, self.limits.bytes) {
            tracing::warn!(%error, "what takes old deliveries back cannot be removed");
        }
    }

    /// Removes files of images that are too old, and the oldest ones but `own` until
    /// they have no more than so many bytes.
    fn make_room(&self, own: Option<&Path>, bytes: u64) -> io::Result<()> {
        let mut files = Vec::new();
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let path = entry?.path();
            let ours = path.extension().is_some_and(|ending| ending == images::ENDING);
            // Another delivery may make room at the same time.
            if ours
                && Some(path.as_path()) != own
                && let Some(data) = unless_gone(fs::metadata(&path))?
            {
                files.push((data.modified()?, data.len(), path));
            }
        }
        files.sort();
        let mut total: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
        let age_max = self.limits.age_max();
        for (modified, length, path) in files {
            let old = modified.elapsed().is_ok_and(|age| age > age_max);
            if old || total > bytes {
                unless_gone(fs::remove_file(&path))?;
                total -= length;
            }
        }
        Ok(())
    }

    fn images_path(&self, id: &str) -> PathBuf {
        images_path(&self.dir, id)
    }

    /// What was stored before a delivery, as far as it was kept.
    pub(super) fn images(&self, delivery: &Delivery) -> std::io::Result<ImageFile> {
        ImageFile::open(delivery.images.as_deref(), &self.images_path(&delivery.id))
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        // A panic leaves at most half a line, which the next one ends.
        self.log.lock().unwrap_or_else(|error| error.into_inner())
    }
}

fn unless_gone<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

fn images_path(dir: &Path, id: &str) -> PathBuf {
    dir.join(format!("{id}.{}", images::ENDING))
}
