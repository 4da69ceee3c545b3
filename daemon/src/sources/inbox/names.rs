//! Names of files in the inbox: which are not whole yet, and which are free.
//!
//! Used by everything in the inbox. Invariant: a name that is given leaves room
//! for a report's and a rejects file's beside it. Not here: what lies under a
//! name.

use std::{
    ffi::{OsStr, OsString},
    fs,
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::Path,
};

/// Longest file name of Linux' file systems, in bytes.
const NAME_BYTES_MAX: usize = 255;
/// Room for a number and for the endings of report and rejects.
const NAME_SUFFIX_BYTES: usize = 24;
pub(super) const REPORT_SUFFIX: &str = ".report.json";
pub(super) const TEXT_SUFFIX: &str = ".report.txt";
pub(super) const REJECTS_SUFFIX: &str = ".rejects.csv";
/// Behind the name of a file that is complete.
pub(super) const DONE_SUFFIX: &str = ".done";
/// In front of rejects files whose import has not ended. Hidden files are never
/// taken.
pub(super) const UNFINISHED: &str = ".creditsync-";
/// A report of which not all is written.
pub(super) const HALF: &str = ".creditsync-report";
/// Endings that browsers, copying programs and editors give to files that are
/// not whole.
const UNFINISHED_ENDINGS: [&str; 5] = [".part", ".filepart", ".tmp", ".crdownload", "~"];

/// What a folder's name says of the files in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Each of them is the whole partition.
    Full,
    /// They were dealt with.
    DealtWith,
}

/// Whether a file of that name is never looked at.
pub(super) fn is_hidden(name: &OsStr) -> bool {
    name.as_bytes().starts_with(b".")
}

/// Whether a name says that the file is not whole, or not for us.
pub(super) fn is_unfinished(name: &OsStr) -> bool {
    is_not_for_us(name) || has_unfinished_ending(name)
}

/// Whether a name says that somebody is still writing the file.
pub(super) fn has_unfinished_ending(name: &OsStr) -> bool {
    let lower = name.as_bytes().to_ascii_lowercase();
    let has = |ending: &&str| lower.ends_with(ending.as_bytes());
    !is_not_for_us(name) && UNFINISHED_ENDINGS.iter().any(has)
}

/// Hidden files, and those that an office program keeps beside an open one.
fn is_not_for_us(name: &OsStr) -> bool {
    is_hidden(name) || name.as_bytes().starts_with(b"~$")
}

/// Whether it is a report, which lies beside what it is about.
pub(super) fn is_report(name: &OsStr) -> bool {
    let name = name.as_bytes();
    [REPORT_SUFFIX, TEXT_SUFFIX].iter().any(|suffix| name.ends_with(suffix.as_bytes()))
}

/// The name that a marker `NAME.done` speaks of.
pub(super) fn marked(name: &OsStr) -> Option<&OsStr> {
    let bytes = name.as_bytes();
    let at = bytes.len().checked_sub(DONE_SUFFIX.len()).filter(|at| *at > 0)?;
    let (stem, ending) = bytes.split_at(at);
    ending.eq_ignore_ascii_case(DONE_SUFFIX.as_bytes()).then(|| OsStr::from_bytes(stem))
}

/// `name`, or with a number before its ending, so that neither it nor its
/// report or rejects hide something in `dir`. Shortened where those would be
/// too long.
pub(super) fn free_name(dir: &Path, name: &OsStr) -> OsString {
    let name = Path::new(name);
    let extension = name.extension().filter(|extension| extension.len() <= 16);
    let stem = match extension {
        Some(_) => name.file_stem(),
        None => Some(name.as_os_str()),
    };
    let room =
        NAME_BYTES_MAX - NAME_SUFFIX_BYTES - extension.map_or(0, |extension| extension.len() + 1);
    let stem = shortened(stem.unwrap_or_default(), room);
    let is_free = |name: &OsString| {
        ["", REPORT_SUFFIX, TEXT_SUFFIX, REJECTS_SUFFIX]
            .iter()
            .all(|suffix| fs::symlink_metadata(dir.join(with_suffix(name, suffix))).is_err())
    };
    let mut number = 0u64;
    loop {
        let mut free = stem.clone();
        if number > 0 {
            free.push(format!("-{number}"));
        }
        if let Some(extension) = extension {
            free.push(".");
            free.push(extension);
        }
        if is_free(&free) {
            return free;
        }
        number += 1;
    }
}

fn shortened(text: &OsStr, bytes_max: usize) -> OsString {
    let bytes = text.as_bytes();
    if bytes.len() <= bytes_max {
        return text.to_owned();
    }
    let mut end = bytes_max;
    // Not within a character of UTF-8.
    while end > 0 && bytes[end] & 0xc0 == 0x80 {
        end -= 1;
    }
    OsString::from_vec(bytes[..end].to_vec())
}

pub(super) fn with_suffix(name: &OsStr, suffix: &str) -> OsString {
    let mut whole = name.to_owned();
    whole.push(suffix);
    whole
}

/// The name that a report `NAME.report.txt` is about.
pub(super) fn reported(name: &OsStr) -> Option<&OsStr> {
    let bytes = name.as_bytes();
    bytes
        .strip_suffix(TEXT_SUFFIX.as_bytes())
        .filter(|stem| !stem.is_empty())
        .map(OsStr::from_bytes)
}
