//! What people are told of files that are not taken: once in the log, and in a
//! `NAME.report.txt` beside the file.
//!
//! Used by the watcher, which names in each pass everything that gives reason.
//! Invariants: nothing is said twice while its reason lasts, and a report goes
//! with its reason; the number of reports is bounded. Not here: reports of files
//! that were dealt with (`report`).

use std::{
    collections::HashMap,
    ffi::OsStr,
    fmt::Display,
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use super::{
    folders::{Access, entries, open_below, remove, write_whole},
    names::{TEXT_SUFFIX, reported, with_suffix},
};
use crate::sources::file::{Links, open_regular};

/// Reports that lie in the folders at a time: whoever dropped a thousand links
/// understands after so many. The log has the others.
const REPORTS_MAX: usize = 200;
/// What each of these reports begins with; only such are ever removed.
const HEADING: &str = "creditsync：";

/// What was said and still has a reason.
pub(super) struct Strays {
    dir: PathBuf,
    access: Access,
    told: HashMap<PathBuf, Told>,
    pass: u64,
    reports: usize,
}

struct Told {
    /// When there was reason for it last.
    pass: u64,
    zh: String,
    /// Whether a report lies beside it.
    reported: bool,
}

impl Strays {
    pub fn new(dir: PathBuf, access: Access) -> Self {
        Self { dir, access, told: HashMap::new(), pass: 0, reports: 0 }
    }

    /// A pass begins. Answers whether it is the first.
    pub fn begin(&mut self) -> bool {
        self.pass += 1;
        self.pass == 1
    }

    /// Says something about a file or folder that people can mend.
    pub fn tell(&mut self, path: &Path, [zh, en]: [String; 2]) {
        if let Some(told) = self.told.get_mut(path)
            && told.zh == zh
        {
            told.pass = self.pass;
            return;
        }
        tracing::warn!(path = ?path, "a file of the inbox is not taken: {en}");
        let known = self.told.get(path).is_some_and(|told| told.reported);
        let mut reported = known;
        if known || self.reports < REPORTS_MAX {
            let text = format!("{HEADING}{zh}。\r\ncreditsync: {en}.\r\n");
            match self.write(path, &text) {
                Ok(()) => reported = true,
                Err(error) => {
                    tracing::debug!(path = ?path, %error, "no report beside a file of the inbox");
                }
            }
        }
        self.reports += usize::from(reported && !known);
        self.told.insert(path.to_owned(), Told { pass: self.pass, zh, reported });
    }

    /// Writes to the log what only an administrator can mend.
    pub fn warn_once(&mut self, path: &Path, what: &str, error: Option<&dyn Display>) {
        let earlier = self.told.get_mut(path);
        if let Some(told) = earlier {
            told.pass = self.pass;
            return;
        }
        let error = error.map(tracing::field::display);
        tracing::warn!(path = ?path, error, "{what}");
        let told = Told { pass: self.pass, zh: String::new(), reported: false };
        self.told.insert(path.to_owned(), told);
    }

    /// What was said of a path still has its reason.
    pub fn keep(&mut self, path: &Path) {
        if let Some(told) = self.told.get_mut(path) {
            told.pass = self.pass;
        }
    }

    /// A pass ends: reports whose reason is gone go, too.
    pub fn end(&mut self) {
        let (pass, dir) = (self.pass, &self.dir);
        let reports = &mut self.reports;
        self.told.retain(|path, told| {
            if told.pass == pass {
                return true;
            }
            if told.reported {
                *reports -= 1;
                if let Some((folder, name)) = place_of(dir, path)
                    && let Ok(folder) = open_below(dir, folder)
                {
                    remove(&folder, &with_suffix(name, TEXT_SUFFIX));
                }
            }
            false
        });
    }

    /// Removes the reports that an earlier run has left in a folder.
    pub fn clear(&self, folder: &Path) {
        for entry in entries(folder).into_iter().flatten() {
            let name = entry.file_name();
            let path = entry.path();
            let Some(about) = reported(&name) else {
                continue;
            };
            if !self.told.contains_key(&folder.join(about)) && is_ours(&path).unwrap_or(false) {
                let _ = fs::remove_file(path);
            }
        }
    }

    fn write(&self, path: &Path, text: &str) -> io::Result<()> {
        let (folder, name) = place_of(&self.dir, path).ok_or(io::ErrorKind::InvalidInput)?;
        let folder = open_below(&self.dir, folder)?;
        write_whole(&folder, &with_suffix(name, TEXT_SUFFIX), text.as_bytes(), self.access)
    }
}

/// A path's folder, as seen from `dir`, and its name there.
fn place_of<'a>(dir: &Path, path: &'a Path) -> Option<(&'a Path, &'a OsStr)> {
    let below = path.strip_prefix(dir).ok()?;
    Some((below.parent()?, below.file_name()?))
}

fn is_ours(path: &Path) -> io::Result<bool> {
    let file = open_regular(path, Links::Refuse).map_err(io::Error::other)?;
    let mut front = Vec::new();
    file.take(HEADING.len() as u64).read_to_end(&mut front)?;
    Ok(front == HEADING.as_bytes())
}
