//! What the kernel tells of files while they are written: that somebody goes on
//! writing, has closed them, or has moved them into place.
//!
//! Used by the watcher, which waits for a file whose writer has it open and takes
//! one at once that was moved into place. Invariant: nothing depends on a
//! notification: network file systems send none, what happened before the daemon
//! started is not told, and some are lost when there are too many. Such a file is
//! [`Mark::Unknown`]. Not here: how long a file is waited for (`settle`).

use std::{
    collections::HashMap,
    ffi::OsStr,
    mem::MaybeUninit,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use rustix::{
    fd::OwnedFd,
    fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags},
    io::Errno,
};

/// Bytes of notifications that are read at once: some hundred.
const READ_BYTES: usize = 16 * 1024;
/// Files of which something is known: as many as folders hold. Beyond that all is
/// forgotten, and the time without a change decides.
const MARKS_MAX: usize = 100_000;

/// What is known about a file's writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Mark {
    /// Nothing.
    #[default]
    Unknown,
    /// It has written, and has not closed the file since.
    Writing,
    /// It has closed the file.
    Closed,
    /// The file was moved into place, so it was complete.
    Complete,
}

/// Notifications of the kernel.
pub(super) struct Events {
    queue: Option<OwnedFd>,
    folders: HashMap<i32, PathBuf>,
    marks: HashMap<PathBuf, Mark>,
}

impl Events {
    /// Without a queue where the system has none left: that is said once, and time
    /// decides.
    pub fn new() -> Self {
        let queue = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)
            .inspect_err(|error| {
                tracing::warn!(%error, "the kernel does not tell when files of the inbox are closed (fs.inotify.max_user_instances): only time decides when they are taken");
            })
            .ok();
        Self { queue, folders: HashMap::new(), marks: HashMap::new() }
    }

    /// Wants to be told of the files in a folder; also again.
    pub fn watch(&mut self, folder: &Path) {
        let Some(queue) = &self.queue else {
            return;
        };
        let flags = WatchFlags::MODIFY
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::MOVED_TO
            | WatchFlags::ONLYDIR
            | WatchFlags::DONT_FOLLOW;
        match inotify::add_watch(queue, folder, flags) {
            // The number stays with the folder when that is renamed.
            Ok(number) => drop(self.folders.insert(number, folder.to_owned())),
            Err(error) => {
                tracing::debug!(folder = ?folder, %error, "no notifications of a folder of the inbox");
            }
        }
    }

    /// Takes note of what was told since the last time.
    pub fn drain(&mut self) {
        let Some(queue) = &self.queue else {
            return;
        };
        let mut buffer = [MaybeUninit::uninit(); READ_BYTES];
        let mut reader = Reader::new(queue, &mut buffer);
        loop {
            match reader.next() {
                Ok(event) => {
                    let told = event.events();
                    if told.contains(ReadFlags::QUEUE_OVERFLOW) {
                        self.marks.clear();
                    }
                    if told.contains(ReadFlags::IGNORED) {
                        self.folders.remove(&event.wd());
                    }
                    let Some((folder, name)) = self.folders.get(&event.wd()).zip(event.file_name())
                    else {
                        continue;
                    };
                    let path = folder.join(OsStr::from_bytes(name.to_bytes()));
                    let mark = if told.contains(ReadFlags::MODIFY) {
                        Mark::Writing
                    } else if told.contains(ReadFlags::CLOSE_WRITE) {
                        Mark::Closed
                    } else if told.contains(ReadFlags::MOVED_TO) {
                        Mark::Complete
                    } else {
                        continue;
                    };
                    // Whoever only sets a time closes the file, too.
                    let known = self.marks.get(&path).copied().unwrap_or_default();
                    if (known, mark) != (Mark::Complete, Mark::Closed) {
                        self.marks.insert(path, mark);
                    }
                }
                Err(Errno::INTR) => {}
                // There is no more, or no way to know.
                Err(_) => break,
            }
        }
        if self.marks.len() > MARKS_MAX {
            self.marks.clear();
        }
    }

    /// What is known about a file.
    pub fn mark(&self, path: &Path) -> Mark {
        self.marks.get(path).copied().unwrap_or_default()
    }

    /// Knows better.
    pub fn set(&mut self, path: &Path, mark: Mark) {
        self.marks.insert(path.to_owned(), mark);
    }

    /// Forgets files that are not there any more.
    pub fn retain(&mut self, is_there: impl Fn(&Path) -> bool) {
        self.marks.retain(|path, _| is_there(path));
    }
}
