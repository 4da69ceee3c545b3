//! Files that were dealt with: moved away with their reports, and put back when
//! somebody goes on writing to them.
//!
//! Used by the watcher. A program that stalled in the middle of a file writes on
//! wherever the file is by then. So a moved file is looked at for a while, and one
//! whose content is not what was read goes back to where it came from. Invariants:
//! a name is told only once the file has it, and its reports lie there before; the
//! number of files that are looked at is bounded. Not here: whether a file is
//! taken (`settle`).

use std::{
    collections::VecDeque,
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use protocol::{id::DatasetId, suite::checksum::Checksum};
use rustix::{
    fs::{CWD, Mode, OFlags, openat, renameat},
    io::Errno,
};

use super::{
    folders::{Access, make_below, open_below, open_folder, remove, write_whole},
    names::{DONE_SUFFIX, REJECTS_SUFFIX, REPORT_SUFFIX, TEXT_SUFFIX, free_name, with_suffix},
    report::{Ended, Subject},
    settle::Look,
};
use crate::sources::file::{DeliveredFile, Links, Reading, shown};

/// Moved files that are looked at. Of a thousand files that arrive at once the
/// last are the ones that may still be written.
const LOOKED_AT_MAX: usize = 1024;
/// How long a file is looked at whose writer had it open when it was taken: a
/// night's transfer.
const OPEN_WATCH: Duration = Duration::from_secs(24 * 3600);

/// A file of the inbox and where it belongs.
#[derive(Debug, Clone)]
pub(super) struct Home {
    pub dataset: DatasetId,
    pub full: bool,
    /// Its folder below the dataset's, or below `full`.
    pub sub: PathBuf,
    pub name: OsString,
}

impl Home {
    /// Its folder, as seen from the inbox.
    fn folder(&self) -> PathBuf {
        let mut folder = PathBuf::from(self.dataset.as_str());
        if self.full {
            folder.push("full");
        }
        folder.join(&self.sub)
    }
}

/// Moves files between the folders of an inbox.
pub(super) struct Mover {
    pub dir: PathBuf,
    pub access: Access,
}

impl Mover {
    /// Opens a file for reading, and nothing that was put in its place; a pipe is not
    /// waited for.
    pub fn open(&self, home: &Home) -> io::Result<fs::File> {
        let folder = open_below(&self.dir, &home.folder())?;
        let flags =
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        Ok(openat(&folder, &home.name, flags, Mode::empty())?.into())
    }

    /// Moves a file to the folder of its outcome, and answers its path there.
    /// Report and rejects first: who waits for the file to appear finds them.
    ///
    /// The folders are held open, so that none can be exchanged for a link
    /// between two steps; paths only serve to find a name and to tell it.
    pub fn move_away(
        &self,
        home: &Home,
        ended: &mut Ended,
        wall: SystemTime,
    ) -> io::Result<PathBuf> {
        let place = Path::new(ended.outcome().folder()).join(&home.sub);
        let inbox = open_folder(CWD, &self.dir, OFlags::empty())?;
        let dataset = open_folder(&inbox, home.dataset.as_str(), OFlags::NOFOLLOW)?;
        let target = make_below(&dataset, &place, self.access)?;
        let source = open_below(&self.dir, &home.folder())?;

        let dir = self.dir.join(home.dataset.as_str()).join(&place);
        let name = free_name(&dir, &home.name);
        let rejects_name = with_suffix(&name, REJECTS_SUFFIX);
        let mut has_rejects = false;
        if let Ended::Read { report, rejects } = ended
            && report.rejects_file.is_some()
        {
            // An earlier try may have come as far as this.
            let earlier = self.dir.join(home.dataset.as_str());
            let below = rejects.parent().and_then(|parent| parent.strip_prefix(&earlier).ok());
            let from = match below {
                Some(below) => open_below(&earlier, below)?,
                None => return Err(io::ErrorKind::NotFound.into()),
            };
            renameat(&from, rejects.file_name().unwrap_or_default(), &target, &rejects_name)?;
            *rejects = dir.join(&rejects_name);
            report.rejects_file = Some(shown(&rejects.to_string_lossy()));
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = openat(&target, &rejects_name, flags, Mode::empty())?;
            self.access.share_file(file)?;
            has_rejects = true;
        }
        let rejects_shown = shown(&rejects_name.to_string_lossy());
        let subject = Subject {
            file: &shown(&home.name.to_string_lossy()),
            dataset: home.dataset.as_str(),
            full: home.full,
            rejects: has_rejects.then_some(rejects_shown.as_str()),
        };
        let (text, document) = ended.reports(&subject, wall);
        let mut document = serde_json::to_vec_pretty(&document).map_err(io::Error::other)?;
        document.push(b'\n');
        // Notepad takes what has no mark for the system's legacy encoding.
        let text = format!("\u{feff}{text}");
        let (text_name, report_name) =
            (with_suffix(&name, TEXT_SUFFIX), with_suffix(&name, REPORT_SUFFIX));
        write_whole(&target, &text_name, text.as_bytes(), self.access)?;
        write_whole(&target, &report_name, &document, self.access)?;
        renameat(&source, &home.name, &target, &name).map_err(|error| {
            remove(&target, &text_name);
            remove(&target, &report_name);
            io::Error::from(error)
        })?;
        remove(&source, &with_suffix(&home.name, DONE_SUFFIX));
        Ok(dir.join(name))
    }

    /// Puts a file back to where it came from, without its reports, which tell of
    /// another content. Answers where it lies now.
    pub fn put_back(&self, moved: &MovedFile) -> io::Result<PathBuf> {
        let below = moved.path.strip_prefix(&self.dir).map_err(io::Error::other)?;
        let name = below.file_name().unwrap_or_default();
        let from = open_below(&self.dir, below.parent().unwrap_or(Path::new("")))?;
        // Its folder may have been cleared away.
        let mut folder = moved.home.folder();
        let mut to = open_below(&self.dir, &folder);
        while to.is_err() && folder.components().count() > 1 + usize::from(moved.home.full) {
            folder.pop();
            to = open_below(&self.dir, &folder);
        }
        let to = to?;
        let dir = self.dir.join(folder);
        let free = match fs::symlink_metadata(dir.join(&moved.home.name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => moved.home.name.clone(),
            _ => free_name(&dir, &moved.home.name),
        };
        renameat(&from, name, &to, &free)?;
        for suffix in [TEXT_SUFFIX, REPORT_SUFFIX, REJECTS_SUFFIX] {
            remove(&from, &with_suffix(name, suffix));
        }
        Ok(dir.join(free))
    }
}

/// A file that was moved away.
#[derive(Debug)]
pub(super) struct MovedFile {
    pub path: PathBuf,
    pub home: Home,
    /// How often it was delivered again before.
    pub again: u32,
    look: Look,
    content: Checksum,
    until: Instant,
}

/// The files that were moved away last.
#[derive(Default)]
pub(super) struct Moved(VecDeque<MovedFile>);

impl Moved {
    /// A file that lies at `path` now; it was `before` when it was read.
    /// `was_open` says that its writer had it open then. Answers it at once if it
    /// is another one already.
    pub fn push(
        &mut self,
        (path, home, again): (PathBuf, Home, u32),
        (before, content): (Look, Checksum),
        was_open: bool,
        now: Instant,
        watch: Duration,
    ) -> Option<MovedFile> {
        let until = now + if was_open { OPEN_WATCH } else { watch };
        let look = Look::of(&path)?;
        let moved = MovedFile { path, home, again, look, content, until };
        if look.state != before.state {
            return look.state.is_same_file(&before.state).then_some(moved);
        }
        if self.0.len() == LOOKED_AT_MAX {
            self.0.pop_front();
        }
        self.0.push_back(moved);
        None
    }

    /// Looks at all of them once; answers those that have another content.
    pub fn look(&mut self, now: Instant) -> Vec<MovedFile> {
        let (mut changed, mut left) = (Vec::new(), VecDeque::with_capacity(self.0.len()));
        for mut moved in self.0.drain(..) {
            // Cleared away, or another file by now.
            let Some(look) = Look::of(&moved.path) else {
                continue;
            };
            if !look.state.is_same_file(&moved.look.state) || moved.until <= now {
                continue;
            }
            if look != moved.look {
                match content_of(&moved.path) {
                    Ok(content) if content == moved.content => moved.look = look,
                    Ok(_) => {
                        changed.push(moved);
                        continue;
                    }
                    // Looked at again in the next pass.
                    Err(_) => {}
                }
            }
            left.push_back(moved);
        }
        self.0 = left;
        changed
    }

    /// Takes one back that could not be put back.
    pub fn keep(&mut self, mut moved: MovedFile) {
        // As if it had only just changed.
        moved.look.changed = (0, 0);
        self.0.push_back(moved);
    }
}

/// The hash of what lies at a path.
fn content_of(path: &Path) -> io::Result<Checksum> {
    let file =
        DeliveredFile::open(path, Links::Refuse, Reading::default()).map_err(io::Error::other)?;
    file.content()
}

/// Whether an error says that a folder may not be written to.
pub(super) fn is_refused(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::ACCESS | Errno::PERM))
}
