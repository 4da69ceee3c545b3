//! Reports of files that were held, once somebody has decided about them.
//!
//! Used by the watcher, which names each file that it moves away as held. Who finds
//! a file in `attention/` months later shall read what became of it. Invariants: a
//! report of another delivery is left alone; the log of deliveries is only read when one
//! is gone. Not here: the decision (`creditsync delivery`).

use std::{
    collections::HashMap,
    ffi::OsStr,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use protocol::id::DatasetId;
use serde_json::{Value as Json, json};

use super::{
    folders::{Access, entries, open_below, walk, write_whole},
    names::{REPORT_SUFFIX, TEXT_SUFFIX, with_suffix},
};
use crate::{
    ingest::{held::Deliveries, history::event::Delivery},
    sources::{
        error::FileError,
        file::{Links, open_regular},
    },
};

/// Reports of a dataset that are read at a start: some seconds. Who lets more lie
/// there does not read them.
const REPORTS_READ_MAX: usize = 10_000;
/// Bytes of a report that are read: what it tells is bounded, too.
const REPORT_BYTES_MAX: u64 = 8 << 20;
/// Passes, of a second each, in which a decision is waited for that is about to be
/// noted, or a disk that is full.
const TRIES_MAX: u32 = 60;
/// In front of a text, by which an editor knows its encoding.
const MARK: char = '\u{feff}';
/// Between the news and the report as it was.
const BEFORE: &str = "以下是收到时的报告 / the report of its arrival:";

/// Files that wait, by their delivery.
pub(super) struct Decided {
    dir: PathBuf,
    access: Access,
    /// With how often that was tried.
    waiting: HashMap<String, (PathBuf, u32)>,
}

impl Decided {
    pub fn new(dir: PathBuf, access: Access) -> Self {
        Self { dir, access, waiting: HashMap::new() }
    }

    /// The file at `path` was held as this delivery.
    pub fn add(&mut self, id: String, path: PathBuf) {
        self.waiting.insert(id, (path, 0));
    }

    /// Looks for what an earlier run has moved away as held.
    pub fn find(&mut self, dataset: &DatasetId) {
        let attention = self.dir.join(dataset.as_str()).join("attention");
        let mut reports = Vec::new();
        for folder in walk(&attention, true).folders {
            let names = entries(&folder.path).into_iter().flatten().map(|entry| entry.path());
            reports.extend(names.filter(|path| file_of(path).is_some()));
        }
        for path in reports.into_iter().take(REPORTS_READ_MAX) {
            if let Ok(report) = read_report(&path)
                && let Json::String(id) = &report["held"]["id"]
                && report["decided"].is_null()
                && let Some(file) = file_of(&path)
            {
                self.add(id.clone(), file);
            }
        }
    }

    /// Writes down what became of those that do not wait any more.
    pub fn look(&mut self, deliveries: &Deliveries) {
        let gone = |id: &&String| !deliveries.is_waiting(id);
        let gone: Vec<String> = self.waiting.keys().filter(gone).cloned().collect();
        if gone.is_empty() {
            return;
        }
        let log = deliveries.history().deliveries();
        for id in gone {
            let Some((file, tries)) = self.waiting.get_mut(&id) else { continue };
            *tries += 1;
            let known = log.iter().find(|delivery| delivery.id == id);
            // The log may not go back as far; or the decision is about to be noted.
            let done = match known.map(|delivery| (delivery, delivery.decided())) {
                None => Ok(()),
                Some((_, None)) => Err(io::Error::other("no decision is noted")),
                Some((delivery, Some(words))) => {
                    rewrite(&self.dir, self.access, file, delivery, words)
                }
            };
            match done {
                Ok(()) => {}
                Err(_) if *tries < TRIES_MAX => continue,
                Err(error) => {
                    tracing::warn!(file = ?file, %error, "the report of a held file cannot be renewed");
                }
            }
            self.waiting.remove(&id);
        }
    }
}

fn rewrite(
    dir: &Path,
    access: Access,
    file: &Path,
    delivery: &Delivery,
    [zh, en]: [String; 2],
) -> io::Result<()> {
    let below = file.strip_prefix(dir).map_err(io::Error::other)?;
    let name = below.file_name().unwrap_or_default();
    let folder = open_below(dir, below.parent().unwrap_or(Path::new("")))?;
    let beside = |suffix| file.with_file_name(with_suffix(name, suffix));
    let mut report = match read_report(&beside(REPORT_SUFFIX)) {
        // Cleared away.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        report => report?,
    };
    // Another file may have the name by now.
    if report["held"]["id"] != delivery.id || !report["decided"].is_null() {
        return Ok(());
    }
    let before = String::from_utf8(read(&beside(TEXT_SUFFIX))?).map_err(io::Error::other)?;
    if !before.contains(BEFORE) {
        let before = before.trim_start_matches(MARK);
        let text = format!("{MARK}结果：{zh}。\r\nResult: {en}.\r\n\r\n{BEFORE}\r\n\r\n{before}");
        write_whole(&folder, &with_suffix(name, TEXT_SUFFIX), text.as_bytes(), access)?;
    }
    report["decided"] = json!({ "state": delivery.state, "how": delivery.decided });
    let report = serde_json::to_vec_pretty(&report)?;
    write_whole(&folder, &with_suffix(name, REPORT_SUFFIX), &report, access)
}

/// The file that a report for programs is about.
fn file_of(report: &Path) -> Option<PathBuf> {
    let name = report.file_name().and_then(OsStr::to_str)?;
    let stem = name.strip_suffix(REPORT_SUFFIX).filter(|stem| !stem.is_empty())?;
    Some(report.with_file_name(stem))
}

fn read_report(path: &Path) -> io::Result<Json> {
    Ok(serde_json::from_slice(&read(path)?)?)
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = open_regular(path, Links::Refuse).map_err(|error| match error {
        FileError::NotFound { .. } => io::Error::from(io::ErrorKind::NotFound),
        error => io::Error::other(error),
    })?;
    let mut bytes = Vec::new();
    file.take(REPORT_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > REPORT_BYTES_MAX {
        true => Err(io::Error::other("the report is too long")),
        false => Ok(bytes),
    }
}
