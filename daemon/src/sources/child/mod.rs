//! Files that may kill whoever reads them are read by a process of their own.
//!
//! [`Child::start`] runs this same program again with a [`Task`], the delivered
//! file as its standard input, and nothing else: no environment, no path. It
//! answers in [`frames`] on its standard output. Used by [`super::sheet`] and
//! [`super::packed`]; what a child does is in [`super::foreign`].
//!
//! Invariants: what a child says is checked like a stranger's bytes; a child that
//! is silent for [`SILENCE_MAX`] is killed; no child outlives its [`Child`]. A
//! child that dies costs its file, never the daemon, which ends at any panic.
//!
//! At most [`slots::CHILDREN_MAX`] run at a time.
//!
//! Not here: the limits that the child sets on itself ([`limits`]).

pub mod frames;
mod limits;
mod slots;

use std::{
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, AsRawFd as _, OwnedFd},
        unix::process::{CommandExt as _, ExitStatusExt as _},
    },
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

use self::{
    frames::{Fault, FrameError, Message},
    slots::{SLOTS, Slot},
};

/// The first argument that makes this program a child. It is no command of
/// people's, so no help names it.
const WORD: &str = "read-foreign";
/// Longest time without a word from a child. Opening the largest workbook that
/// the memory limit allows takes some seconds, on a slow disk some tens.
const SILENCE_MAX: Duration = Duration::from_secs(120);

/// What a child is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// The names of all sheets, and their first rows that are not blank.
    SheetFronts {
        /// Rows of each.
        rows: u32,
    },
    /// All rows of one sheet.
    Sheet {
        /// Its place in the workbook, from 0.
        index: u32,
        /// The row of its header, from 1: what is merged with it is no row's.
        header_line: u32,
        /// Its columns that name a field.
        columns: Columns,
    },
    /// What an archive holds.
    List {
        /// Gzip, which holds one file.
        gzip: bool,
    },
    /// One entry of an archive, written to standard error, which is a file.
    Unpack {
        /// Gzip, which holds one file.
        gzip: bool,
        /// The entry's place in the archive, from 0.
        index: u32,
        /// Most bytes that it may have.
        bytes_max: u64,
    },
}

/// The columns of a sheet that name a field, from 0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Columns {
    /// Those of texts and codes, in which a number is what a person sees.
    pub texts: Vec<u16>,
    /// All others.
    pub others: Vec<u16>,
}

impl Columns {
    /// Whether a column is one of texts and codes.
    pub fn is_text(&self, column: u32) -> bool {
        u16::try_from(column).is_ok_and(|column| self.texts.contains(&column))
    }

    /// Whether a column names a field.
    pub fn has(&self, column: u32) -> bool {
        self.is_text(column)
            || u16::try_from(column).is_ok_and(|column| self.others.contains(&column))
    }
}

impl Task {
    fn arguments(&self) -> Vec<String> {
        let kind = |gzip: bool| if gzip { "gzip" } else { "zip" }.to_owned();
        match self {
            Task::SheetFronts { rows } => vec!["fronts".into(), rows.to_string()],
            Task::Sheet { index, header_line, columns } => {
                let numbers = [*index, *header_line].map(|number| number.to_string());
                let lists = [&columns.texts, &columns.others]
                    .map(|list| list.iter().map(u16::to_string).collect::<Vec<_>>().join(","));
                ["sheet".into()].into_iter().chain(numbers).chain(lists).collect()
            }
            Task::List { gzip } => vec!["list".into(), kind(*gzip)],
            Task::Unpack { gzip, index, bytes_max } => {
                vec!["unpack".into(), kind(*gzip), index.to_string(), bytes_max.to_string()]
            }
        }
    }

    fn parse(arguments: &[String]) -> Option<Self> {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let list = |list: &str| match list {
            "" => Some(Vec::new()),
            list => list.split(',').map(|one| one.parse().ok()).collect(),
        };
        let gzip = |kind: &str| match kind {
            "gzip" => Some(true),
            "zip" => Some(false),
            _ => None,
        };
        Some(match arguments.as_slice() {
            ["fronts", rows] => Task::SheetFronts { rows: rows.parse().ok()? },
            ["sheet", index, header_line, texts, others] => Task::Sheet {
                index: index.parse().ok()?,
                header_line: header_line.parse().ok()?,
                columns: Columns { texts: list(texts)?, others: list(others)? },
            },
            ["list", kind] => Task::List { gzip: gzip(kind)? },
            ["unpack", kind, index, bytes_max] => Task::Unpack {
                gzip: gzip(kind)?,
                index: index.parse().ok()?,
                bytes_max: bytes_max.parse().ok()?,
            },
            _ => return None,
        })
    }

    /// Bytes that the child may write to files.
    fn file_bytes_max(&self) -> u64 {
        match self {
            Task::Unpack { bytes_max, .. } => *bytes_max,
            _ => 0,
        }
    }
}

/// Why a task ends early.
#[derive(Debug)]
pub(super) enum Stop {
    /// The file is at fault.
    Fault(Fault),
    /// Nobody listens any more.
    Answer(io::Error),
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Stop::Fault(fault)
    }
}

/// Says how a task ended: the last message, whatever came before it. An error
/// means that nobody listens any more.
pub(super) fn finish(done: Result<(), Stop>, answer: &mut dyn Write) -> io::Result<()> {
    match done {
        Ok(()) => Message::Done.write(answer)?,
        Err(Stop::Fault(fault)) => Message::Failed(fault).write(answer)?,
        Err(Stop::Answer(error)) => return Err(error),
    }
    answer.flush()
}

/// What this process was started for, if it was started as a child; to be asked
/// before anything else, so that nothing is read, opened or started without limits.
/// None of the inner kind if the arguments make no sense.
pub fn task_of_this_process() -> Option<Option<Task>> {
    let mut arguments = std::env::args().skip(1);
    (arguments.next().as_deref() == Some(WORD)).then(|| Task::parse(&arguments.collect::<Vec<_>>()))
}

/// Sets this process's limits, and runs a child's work on its standard streams.
pub fn run_as_child(task: &Task, run: Run) -> io::Result<()> {
    limits::set(task.file_bytes_max())?;
    // The descriptors themselves: both have to be files, not streams.
    let input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let output = match task {
        Task::Unpack { .. } => Some(File::from(io::stderr().as_fd().try_clone_to_owned()?)),
        _ => None,
    };
    let mut answer = io::BufWriter::new(io::stdout().lock());
    run(task, input, &mut answer, output)
}

/// What a child does: a task, the file, where to answer, where to unpack to.
pub type Run = fn(&Task, File, &mut dyn Write, Option<File>) -> io::Result<()>;

/// Which program reads foreign files.
#[derive(Debug, Clone, Default)]
pub enum Program {
    /// The one that runs now, also if another version lies at its path by now.
    #[default]
    Own,
    /// Another build of it.
    At(PathBuf),
    /// A thread of this process, without limits: for tests, whose program is not
    /// this one.
    #[cfg(test)]
    Thread(Run),
}

/// Why nothing came of a task. None of these names the file; callers do.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    /// The process cannot be started.
    #[error(
        "无法启动读取文件的子进程，请稍后重试 / the process that reads the file cannot be started, try again later: {0}"
    )]
    Start(io::Error),
    /// Its answer cannot be received.
    #[error("与读取文件的子进程通信失败 / the process that reads the file cannot be heard: {0}")]
    Io(io::Error),
    /// It ended without an answer.
    #[error(
        "读取此文件的子进程异常终止（{how}）：文件可能已损坏，或所需内存超过 1 GiB；请用 Excel 或 WPS 打开后另存为新的 .xlsx 或“CSV UTF-8”，或拆分后重新交付 / \
         the process that read this file ended ({how}): the file may be damaged, or need more than 1 GiB of memory; open it in Excel or WPS and save it as a new .xlsx or as \"CSV UTF-8\", or split it"
    )]
    Died {
        /// A signal or an exit code.
        how: String,
    },
    /// It said nothing for too long.
    #[error(
        "读取此文件超过 {} 秒没有进展，已停止；请另存为“CSV UTF-8”或拆分后重新交付 / \
         reading this file made no progress for {} seconds and was stopped: save it as \"CSV UTF-8\" or split it",
        SILENCE_MAX.as_secs(), SILENCE_MAX.as_secs()
    )]
    Silent,
    /// What it said makes no sense.
    #[error(
        "读取此文件的子进程给出了无效的答复，文件可能已损坏；请另存为“CSV UTF-8”后重新交付 / \
         the process that read this file answered nonsense ({0}), the file may be damaged: save it as \"CSV UTF-8\" and deliver that"
    )]
    Nonsense(#[from] FrameError),
    /// It said what is wrong with the file.
    #[error("{0}")]
    Fault(Fault),
}

impl ChildError {
    /// Whether another try may succeed: the file is not known to be at fault.
    pub fn is_passing(&self) -> bool {
        matches!(self, ChildError::Start(_) | ChildError::Io(_) | ChildError::Fault(Fault::Io))
    }
}

/// A task that is under way.
#[derive(Debug)]
pub struct Child {
    answer: Answer,
    running: Running,
    ended: bool,
    /// Given back behind the process, which the drop ends.
    _slot: Slot,
}

#[derive(Debug)]
enum Running {
    Process(std::process::Child),
    #[cfg(test)]
    Thread,
}

impl Child {
    /// Starts a task on `input`, which it reads from the front. Waits while too many
    /// are under way.
    pub fn start(
        program: &Program,
        task: &Task,
        input: &File,
        output: Option<&File>,
    ) -> Result<Self, ChildError> {
        let slot = SLOTS.take();
        let input = opened_anew(input).map_err(ChildError::Start)?;
        let output = output.map(File::try_clone).transpose().map_err(ChildError::Start)?;
        let path = match program {
            // The link leads to the program itself, whatever became of its name.
            Program::Own => PathBuf::from("/proc/self/exe"),
            Program::At(path) => path.clone(),
            #[cfg(test)]
            Program::Thread(run) => return Self::start_thread(*run, task, input, output, slot),
        };
        let mut command = Command::new(path);
        command.arg0("creditsync").arg(WORD).args(task.arguments());
        command.env_clear().current_dir("/").stdin(input).stdout(Stdio::piped());
        match output {
            Some(output) => command.stderr(output),
            // A panic's message might quote the file.
            None => command.stderr(Stdio::null()),
        };
        let mut process = command.spawn().map_err(ChildError::Start)?;
        let Some(pipe) = process.stdout.take() else {
            // Asked for above; without it there is no child to speak of.
            let _ = process.kill();
            let _ = process.wait();
            return Err(ChildError::Start(io::ErrorKind::BrokenPipe.into()));
        };
        Ok(Self::new(pipe.into(), Running::Process(process), slot))
    }

    #[cfg(test)]
    fn start_thread(
        run: Run,
        task: &Task,
        input: File,
        output: Option<File>,
        slot: Slot,
    ) -> Result<Self, ChildError> {
        let (reader, writer) = io::pipe().map_err(ChildError::Start)?;
        let task = task.clone();
        std::thread::spawn(move || {
            let mut answer = io::BufWriter::new(writer);
            let _ = run(&task, input, &mut answer, output);
        });
        Ok(Self::new(reader.into(), Running::Thread, slot))
    }

    fn new(pipe: OwnedFd, running: Running, slot: Slot) -> Self {
        Self {
            answer: Answer { pipe: File::from(pipe), silence_max: SILENCE_MAX },
            running,
            ended: false,
            _slot: slot,
        }
    }

    /// The next thing that it says; [`Message::Done`] is the last.
    pub fn hear(&mut self) -> Result<Message, ChildError> {
        match Message::read(&mut self.answer) {
            Ok(Some(Message::Failed(fault))) => {
                self.ended = true;
                Err(ChildError::Fault(fault))
            }
            Ok(Some(message)) => {
                self.ended = message == Message::Done;
                Ok(message)
            }
            Ok(None) => Err(ChildError::Died { how: self.reap() }),
            Err(FrameError::Io(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(ChildError::Died { how: self.reap() })
            }
            Err(FrameError::Io(error)) if error.kind() == io::ErrorKind::TimedOut => {
                Err(ChildError::Silent)
            }
            Err(FrameError::Io(error)) => Err(ChildError::Io(error)),
            Err(error) => Err(ChildError::Nonsense(error)),
        }
    }

    /// Whether [`Message::Done`] came.
    pub fn is_done(&self) -> bool {
        self.ended
    }

    /// How it ended. It closed its end of the pipe, so it is ending or dead.
    fn reap(&mut self) -> String {
        match &mut self.running {
            Running::Process(process) => match process.wait() {
                Ok(status) => match (status.signal(), status.code()) {
                    (Some(signal), _) => format!("signal {signal}"),
                    (None, code) => format!("exit code {}", code.unwrap_or(-1)),
                },
                Err(error) => error.to_string(),
            },
            #[cfg(test)]
            Running::Thread => "thread".into(),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        match &mut self.running {
            // Both fail only for a process that was waited for before.
            Running::Process(process) => {
                let _ = process.kill();
                let _ = process.wait();
            }
            #[cfg(test)]
            Running::Thread => {}
        }
    }
}

/// The same file with a position of its own, so that nobody else moves it. A
/// descriptor that another process handed over may not be opened again: then the
/// position is shared, and only this child moves it.
fn opened_anew(file: &File) -> io::Result<File> {
    File::open(format!("/proc/self/fd/{}", file.as_raw_fd())).or_else(|_| file.try_clone())
}

/// The pipe from a child, whose reader waits for so long only.
#[derive(Debug)]
struct Answer {
    pipe: File,
    silence_max: Duration,
}

impl Read for Answer {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let timeout = Timespec::try_from(self.silence_max).map_err(io::Error::other)?;
        loop {
            let mut waits = [PollFd::new(&self.pipe, PollFlags::IN)];
            match poll(&mut waits, Some(&timeout)) {
                Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
                Ok(_) => return self.pipe.read(into),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests;
