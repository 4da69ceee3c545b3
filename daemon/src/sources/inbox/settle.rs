//! When a file is taken: what is known about it, and how long it is waited for.
//!
//! Used by the watcher, which gives the time. Invariant: every wait ends, and
//! whoever is told of the file is told what it was waited for. Not here: reading
//! the folders (`watcher`), and the kernel's notifications (`events`).

use std::{
    fs,
    io::{self, Read as _, Seek as _, SeekFrom},
    os::unix::fs::MetadataExt as _,
    path::Path,
    time::Duration,
};

use super::events::Mark;
use crate::{
    ingest::report::Note,
    sources::file::{FileState, Links, open_regular},
};

/// Bytes at the end of a file that are looked at: where an archive's directory
/// ends, behind a comment of at most 64 KiB.
const TAIL_BYTES: u64 = 66 * 1024;
/// Bytes at its front: enough to know an archive from text.
const HEAD_BYTES: usize = 4;

/// A file as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Look {
    pub state: FileState,
    /// When anything about it last changed; moving a file may change it, too.
    pub changed: (i64, i64),
}

impl Look {
    /// None where there is nothing that can be looked at.
    pub fn of(path: &Path) -> Option<Self> {
        fs::symlink_metadata(path).ok().map(|data| Self::from(&data))
    }
}

impl From<&fs::Metadata> for Look {
    fn from(data: &fs::Metadata) -> Self {
        Self { state: FileState::from(data), changed: (data.ctime(), data.ctime_nsec()) }
    }
}

/// How long is waited.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// How long a file must not have changed.
    pub stable: Duration,
    /// How long one that seems not to be complete.
    pub incomplete: Duration,
}

/// Why a file seems not to be complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Incomplete {
    /// Somebody has written to it and not closed it.
    Open,
    /// Its end is not what a file ends with.
    NoEnd,
}

impl Incomplete {
    /// That it is waited for, for at most so long.
    pub fn waits(self, wait: Duration) -> [String; 2] {
        let [zh, en] = self.why();
        let seconds = wait.as_secs();
        [
            format!("{zh}，最多等待 {seconds} 秒；若已传完，请在旁边放一个空文件 文件名.done"),
            format!(
                "{en}; it is waited for, at most {seconds} seconds: if it is complete, put an empty file NAME.done beside it"
            ),
        ]
    }

    /// That it was taken nevertheless.
    pub fn note(self, wait: Duration) -> Note {
        let [zh, en] = self.why();
        let seconds = wait.as_secs();
        Note::new(
            match self {
                Incomplete::Open => "taken-while-open",
                Incomplete::NoEnd => "taken-without-end",
            },
            format!("{zh}；{seconds} 秒内没有变化，已按现有内容处理，请核对文件是否完整"),
            format!(
                "{en}; it did not change for {seconds} seconds and was taken as it is: check whether it is complete"
            ),
        )
    }

    fn why(self) -> [&'static str; 2] {
        match self {
            Incomplete::Open => {
                ["有程序仍打开着该文件进行写入", "a program still has the file open for writing"]
            }
            Incomplete::NoEnd => [
                "文件没有正常结尾（文本文件的最后一行没有换行符，JSON、Excel 或压缩文件缺少结尾部分），可能没有传完",
                "the file has no proper end (no line end behind the last line of a text, or no end of JSON, a workbook or an archive), so it may not be complete",
            ],
        }
    }
}

/// Whether a file is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It has changed a moment ago.
    Settling,
    /// It seems not to be complete.
    Waiting(Incomplete),
    /// It is taken; though it seems not to be complete, if so.
    Take(Option<Incomplete>),
}

/// Judges a file that has not changed for `quiet`.
///
/// Of a full file its end counts in any case: an upload that broke off has closed
/// it as well. Other rows are taken when their writer has closed the file.
pub(super) fn judge(
    quiet: Duration,
    patience: Patience,
    said_complete: bool,
    mark: Mark,
    full: bool,
    has_end: impl FnOnce() -> bool,
) -> Verdict {
    if said_complete || mark == Mark::Complete {
        return Verdict::Take(None);
    }
    if quiet < patience.stable {
        return Verdict::Settling;
    }
    let incomplete = match mark {
        Mark::Writing => Some(Incomplete::Open),
        Mark::Closed if !full => None,
        _ => (!has_end()).then_some(Incomplete::NoEnd),
    };
    match incomplete {
        Some(incomplete) if quiet < patience.incomplete => Verdict::Waiting(incomplete),
        incomplete => Verdict::Take(incomplete),
    }
}

/// Whether a file ends as a complete one does: text with a line end, JSON with its
/// bracket, an archive (and a workbook is one) with its directory. What cannot be
/// judged counts as complete, and reading it says more.
pub(super) fn has_end(path: &Path) -> bool {
    read_ends(path).map_or(true, |(head, tail)| ends_well(&head, &tail))
}

fn read_ends(path: &Path) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let mut file = open_regular(path, Links::Refuse).map_err(io::Error::other)?;
    let (mut head, mut tail) = (Vec::new(), Vec::new());
    file.by_ref().take(HEAD_BYTES as u64).read_to_end(&mut head)?;
    let bytes = file.metadata()?.len();
    file.seek(SeekFrom::Start(bytes.saturating_sub(TAIL_BYTES)))?;
    file.take(TAIL_BYTES).read_to_end(&mut tail)?;
    Ok((head, tail))
}

fn ends_well(head: &[u8], tail: &[u8]) -> bool {
    const ARCHIVE: &[u8] = b"PK";
    const ARCHIVE_END: &[u8] = b"PK\x05\x06";
    const COMPRESSED: &[u8] = &[0x1f, 0x8b];
    const OLD_WORKBOOK: &[u8] = &[0xd0, 0xcf, 0x11, 0xe0];
    if head.starts_with(ARCHIVE) {
        return tail.windows(ARCHIVE_END.len()).any(|part| part == ARCHIVE_END);
    }
    if head.starts_with(COMPRESSED) || head.starts_with(OLD_WORKBOOK) {
        return true;
    }
    // Of UTF-16 half of the bytes of a line end are zeros; an editor of old leaves
    // a mark behind the last line.
    let end = tail.iter().rev().find(|byte| !matches!(byte, 0 | 0x1a));
    let first = head.iter().find(|byte| !matches!(byte, 0xef | 0xbb | 0xbf | b' ' | b'\n' | b'\r'));
    match (first, end) {
        (Some(b'['), Some(b']')) | (Some(b'{'), Some(b'}')) => true,
        (_, Some(end)) => matches!(end, b'\n' | b'\r'),
        (_, None) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience =
        Patience { stable: Duration::from_secs(5), incomplete: Duration::from_secs(600) };

    #[test]
    fn a_file_is_judged_by_time_writer_and_end() {
        use Incomplete::{NoEnd, Open};
        use Verdict::{Settling, Take, Waiting};
        for (quiet, said, mark, full, end, verdict) in [
            (4, false, Mark::Closed, false, true, Settling),
            (5, false, Mark::Closed, false, true, Take(None)),
            (5, false, Mark::Unknown, true, true, Take(None)),
            // Closed: the end of an increment does not matter, of a full file it does.
            (5, false, Mark::Closed, false, false, Take(None)),
            (5, false, Mark::Closed, true, false, Waiting(NoEnd)),
            (5, false, Mark::Unknown, false, false, Waiting(NoEnd)),
            (599, false, Mark::Closed, true, false, Waiting(NoEnd)),
            (600, false, Mark::Closed, true, false, Take(Some(NoEnd))),
            // Somebody writes, whatever the end looks like.
            (5, false, Mark::Writing, false, true, Waiting(Open)),
            (600, false, Mark::Writing, true, true, Take(Some(Open))),
            // Said to be complete.
            (0, true, Mark::Writing, true, false, Take(None)),
            (0, false, Mark::Complete, true, false, Take(None)),
        ] {
            let quiet = Duration::from_secs(quiet);
            let found = judge(quiet, PATIENCE, said, mark, full, || end);
            assert_eq!(found, verdict, "{quiet:?} {said} {mark:?} {full} {end}");
        }
    }

    #[test]
    fn ends_are_known_by_kind() {
        for (text, well) in [
            (&b"a,b\n1,2\n"[..], true),
            (b"a,b\r1,2\r", true),
            (b"a,b\n1,2", false),
            (b"", false),
            (b"a,b\n1,2\n\x1a", true),
            (b"\xff\xfea\0\n\0", true),
            (b"\xff\xfea\0\n\0b\0", false),
            (b"[{\"a\":1}]", true),
            (b"[{\"a\":1}", false),
            (b"{\"a\":1}\n{\"a\":2}", true),
            (b"PK\x03\x04....PK\x05\x06....", true),
            (b"PK\x03\x04....", false),
            (b"\x1f\x8b...", true),
            (b"\xd0\xcf\x11\xe0...", true),
        ] {
            let head = &text[..text.len().min(HEAD_BYTES)];
            assert_eq!(ends_well(head, text), well, "{:?}", String::from_utf8_lossy(text));
        }
    }
}
