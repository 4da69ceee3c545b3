//! The lock on a node's directory, and how whoever meets it waits.
//!
//! A daemon holds the lock for as long as it lives; a command that finds no
//! daemon, `init` and `join` hold it while they work. Who meets the lock waits
//! for at most [`PATIENCE`], because most holders are about to let go or to
//! answer on the socket: a daemon that starts or ends, a command that takes a
//! moment. Only a daemon that meets a daemon that already answers gives up at
//! once. Used by [`super::node`], `init`, `join` and the command line.
//!
//! Invariant: only the kernel says whether the directory is taken (`flock`) and
//! whether a daemon is there to be asked (its socket takes a connection); both
//! end with the process, however it ends. The text in the lock's file is for
//! messages alone, since it may still be that of an earlier holder.
//!
//! Not here: asking the daemon (`admin`), and when a command works on its own
//! (`cli::ask`).

#[cfg(test)]
mod tests;

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Seek as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

use super::dir::NodeDir;
use crate::admin;

/// How long a process waits for another one. A start that replays a full journal
/// and a shutdown that waits for its tasks take up to ten seconds each; somebody
/// who waits in front of a terminal gives up after half a minute.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// How often it looks. Nobody notices a delay of this length, and a look costs
/// two system calls.
pub const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Longest text of the lock's file: a process id.
const HOLDER_BYTES_MAX: u64 = 32;

/// Which kind of process takes a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occupant {
    /// `creditsync run`.
    Daemon,
    /// Everything else.
    Command,
}

/// The lock on a node's directory, until it is dropped.
#[derive(Debug)]
pub struct DirLock {
    file: File,
}

impl Drop for DirLock {
    fn drop(&mut self) {
        // The next holder's messages must not name this one.
        let _ = self.file.set_len(0);
    }
}

impl NodeDir {
    /// Takes the directory, or waits for whoever has it. Blocks.
    pub fn lock(&self, who: Occupant) -> anyhow::Result<DirLock> {
        self.lock_within(&mut Wait::new(self, who))
    }

    fn lock_within(&self, wait: &mut Wait<'_>) -> anyhow::Result<DirLock> {
        loop {
            if let Some(lock) = self.try_lock()? {
                return Ok(lock);
            }
            // A daemon never lets go of its own accord; one that answers has come
            // to stay.
            if wait.who == Occupant::Daemon && admin::answers(&self.socket()) {
                let holder = self.holder();
                bail!(
                    "{dir} is in use by another creditsync ({process}): a daemon runs here already. Stop it first, or \
                     use --dir / {dir} 中已有守护进程在运行（{process_zh}）。请先停止它，或用 --dir 指定其他目录",
                    dir = self.path().display(),
                    process = holder.english(),
                    process_zh = holder.chinese(),
                );
            }
            wait.pause()?;
        }
    }

    /// Takes the directory, unless another process has it.
    pub fn try_lock(&self) -> anyhow::Result<Option<DirLock>> {
        self.create()?;
        let path = self.lock_file();
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("open {}", path.display()))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("lock {}", path.display())),
        }
        // Only for messages: nothing depends on it.
        let _ = file.set_len(0).and_then(|()| file.rewind());
        let _ = write!(file, "{}", std::process::id());
        Ok(Some(DirLock { file }))
    }

    /// Whether another process has the directory. Makes nothing there.
    fn is_taken(&self) -> bool {
        // A shared lock: two that look at once must not take each other for one
        // that works here.
        File::open(self.lock_file()).is_ok_and(|file| {
            flock(&file, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK)
        })
    }

    /// Whether somebody is making a node here that is none yet: its
    /// configuration is written last, before the lock is let go of.
    pub fn is_in_the_making(&self) -> bool {
        !self.is_node() && self.is_taken()
    }

    /// Who has the directory, as far as that is known.
    fn holder(&self) -> Holder {
        let mut text = String::new();
        if let Ok(file) = File::open(self.lock_file()) {
            let _ = file.take(HOLDER_BYTES_MAX).read_to_string(&mut text);
        }
        // Of anything else nothing is known: a process may just be taking it.
        Holder(text.trim().parse().ok())
    }
}

/// The process that has a directory, for messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Holder(Option<u32>);

impl Holder {
    fn english(self) -> String {
        self.0.map_or_else(|| "another process".to_owned(), |id| format!("process {id}"))
    }

    fn chinese(self) -> String {
        self.0.map_or_else(|| "另一进程".to_owned(), |id| format!("进程 {id}"))
    }
}

/// One process waiting for another one at a directory: says so once, and not
/// for ever.
pub struct Wait<'a> {
    dir: &'a NodeDir,
    who: Occupant,
    patience: Duration,
    /// Where it says that it waits.
    say: &'a dyn Fn(&str),
    began: Option<Instant>,
}

impl<'a> Wait<'a> {
    /// Nothing was waited for yet.
    pub fn new(dir: &'a NodeDir, who: Occupant) -> Self {
        let say: &dyn Fn(&str) = match who {
            // Its log goes to standard error, in the form that was asked for.
            Occupant::Daemon => &|text| tracing::warn!("{text}"),
            Occupant::Command => &|text| eprintln!("creditsync: {text}"),
        };
        Self { dir, who, patience: PATIENCE, say, began: None }
    }

    /// Waits for a moment. Blocks.
    ///
    /// # Errors
    /// When the patience is over; the text says who is in the way.
    pub fn pause(&mut self) -> anyhow::Result<()> {
        let (dir, seconds) = (self.dir.path().display(), self.patience.as_secs());
        let holder = self.dir.holder();
        let (process, process_zh) = (holder.english(), holder.chinese());
        let now = Instant::now();
        let began = *self.began.get_or_insert_with(|| {
            (self.say)(&format!(
                "{dir} is in use by another creditsync ({process}) that is starting, ending or at work; waiting for it, at \
                 most {seconds} s / {dir} 正被另一个 creditsync（{process_zh}）使用（正在启动、退出或工作），等待其完成，\
                 最多 {seconds} 秒"
            ));
            now
        });
        if now.duration_since(began) >= self.patience {
            bail!(
                "{dir} is in use by another creditsync ({process}), which neither let go of it nor answered within \
                 {seconds} s. Wait until it is done or stop it, or use --dir / {dir} 正被另一个 creditsync（{process_zh}）\
                 占用，{seconds} 秒内未释放也未应答。请等它完成或将其停止，或用 --dir 指定其他目录"
            );
        }
        std::thread::sleep(LOOK_EVERY.min(self.patience));
        Ok(())
    }

    /// Waits until nobody is making a node of the directory any more. Blocks.
    pub fn until_made(&mut self) -> anyhow::Result<()> {
        while self.dir.is_in_the_making() {
            self.pause()?;
        }
        Ok(())
    }
}
