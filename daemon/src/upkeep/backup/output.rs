//! Where a backup goes: a file, or a pipe with somebody behind it.
//!
//! A pipe's reader may be slow: the store's snapshot is kept open while it is waited
//! for, and a reader that takes nothing for ten minutes is given up, because each
//! snapshot makes the writer save pages. Not here: what is written.

use std::{
    cell::RefCell,
    fs::File,
    io::{self, Write},
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use store::KeepOpen;

/// Whoever takes nothing of a backup for so long is given up.
pub const TAKES_NOTHING_MAX: Duration = Duration::from_secs(600);
/// How often it is said meanwhile that the snapshot is still read: a tenth of the time
/// after which it would be closed.
const SAID_EVERY: Timespec = Timespec { tv_sec: 6, tv_nsec: 0 };
/// A pipe that has room at all has room for so much (`PIPE_BUF`), so that a write does not
/// block.
const PIPE_BYTES: usize = 4096;

/// What is kept open while somebody is waited for.
#[derive(Default)]
pub struct KeptOpen(RefCell<Option<KeepOpen>>);

impl KeptOpen {
    /// From now on this one.
    pub fn set(&self, open: Option<KeepOpen>) {
        *self.0.borrow_mut() = open;
    }

    fn touch(&self) {
        if let Some(open) = &*self.0.borrow() {
            open.touch();
        }
    }
}

/// An open file or pipe.
pub struct Output<'a> {
    file: File,
    waits: bool,
    kept_open: &'a KeptOpen,
}

impl<'a> Output<'a> {
    /// Writes to `file`.
    pub fn new(file: File, kept_open: &'a KeptOpen) -> io::Result<Self> {
        let waits = !file.metadata()?.is_file();
        Ok(Self { file, waits, kept_open })
    }
}

impl Write for Output<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.waits {
            return self.file.write(bytes);
        }
        let began = Instant::now();
        loop {
            let mut one = [PollFd::new(&self.file, PollFlags::OUT)];
            let ready = rustix::io::retry_on_intr(|| poll(&mut one, Some(&SAID_EVERY)))?;
            if ready > 0 {
                return self.file.write(&bytes[..bytes.len().min(PIPE_BYTES)]);
            }
            self.kept_open.touch();
            if began.elapsed() >= TAKES_NOTHING_MAX {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
