//! Reports of files that were held, once somebody has decided about them.
//!
//! Used by the watcher, which names each file that it moves away as held. Who finds
//! a file in `attention/` months later shall read what became of it. Invariants: a
//! report is written once more at most; the log of deliveries is only read when a
//! delivery is gone. Not here: the decision (`creditsync delivery`).

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
    sources::file::{Links, open_regular},
};

/// Reports that are read at a start: more lie in a folder that nobody clears, and
/// the oldest of them were decided long ago.
const REPORTS_READ_MAX: usize = 10_000;
/// Bytes of a report that are read: what it tells is bounded, too.
const REPORT_BYTES_MAX: u64 = 8 << 20;
/// Between the news and the report as it was.
const BEFORE: &str = "以下是收到时的报告 / the report of its arrival:";

/// Files that wait, by their delivery.
pub(super) struct Decided {
    dir: PathBuf,
    access: Access,
    waiting: HashMap<String, PathBuf>,
}

impl Decided {
    pub fn new(dir: PathBuf, access: Access) -> Self {
        Self { dir, access, waiting: HashMap::new() }
    }

    /// The file at `path` was held as this delivery.
    pub fn add(&mut self, id: String, path: PathBuf) {
        self.waiting.insert(id, path);
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
            let report = read(&path).and_then(|text| Ok(serde_json::from_slice::<Json>(&text)?));
            if let Ok(report) = report
                && let Json::String(id) = &report["held"]["id"]
                && report["decided"].is_null()
                && let Some(file) = file_of(&path)
            {
                self.waiting.insert(id.clone(), file);
            }
        }
    }

    /// Writes down what became of those that do not wait any more.
    pub fn look(&mut self, deliveries: &Deliveries) {
        let gone = |id: &&String| !deliveries.is_waiting(id);
        let gone: Vec<String> = self.waiting.keys().filter(gone).cloned().collect();
        for id in gone {
            let Some(file) = self.waiting.remove(&id) else { continue };
            // The log may not go back as far.
            let Some(delivery) = deliveries.history().delivery(&id) else { continue };
            if let Err(error) = self.rewrite(&file, &delivery) {
                tracing::debug!(file = ?file, %error, "the report of a held file cannot be renewed");
            }
        }
    }

    fn rewrite(&self, file: &Path, delivery: &Delivery) -> io::Result<()> {
        let Some([zh, en]) = delivery.decided() else { return Ok(()) };
        let below = file.strip_prefix(&self.dir).map_err(io::Error::other)?;
        let name = below.file_name().unwrap_or_default();
        let folder = open_below(&self.dir, below.parent().unwrap_or(Path::new("")))?;
        let beside = |suffix| file.with_file_name(with_suffix(name, suffix));
        let before = String::from_utf8(read(&beside(TEXT_SUFFIX))?).map_err(io::Error::other)?;
        let text = format!("结果：{zh}。\r\nResult: {en}.\r\n\r\n{BEFORE}\r\n\r\n{before}");
        let mut report: Json = serde_json::from_slice(&read(&beside(REPORT_SUFFIX))?)?;
        report["decided"] = json!({ "state": delivery.state, "how": delivery.decided });
        let report = serde_json::to_vec_pretty(&report)?;
        write_whole(&folder, &with_suffix(name, TEXT_SUFFIX), text.as_bytes(), self.access)?;
        write_whole(&folder, &with_suffix(name, REPORT_SUFFIX), &report, self.access)
    }
}

/// The file that a report for programs is about.
fn file_of(report: &Path) -> Option<PathBuf> {
    let name = report.file_name().and_then(OsStr::to_str)?;
    let stem = name.strip_suffix(REPORT_SUFFIX).filter(|stem| !stem.is_empty())?;
    Some(report.with_file_name(stem))
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = open_regular(path, Links::Refuse).map_err(io::Error::other)?;
    let mut bytes = Vec::new();
    file.take(REPORT_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}
