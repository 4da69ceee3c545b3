//! The store opened by a daemon, whatever has become of its files.
//!
//! A damaged database can end the process that opens it, or never come to an end. So a
//! child of this same program tries it first, under a watchdog. What it does not survive
//! is moved aside, never deleted: first the snapshots of the page table, which only save
//! time; if that is not enough, the whole store, and what it held is fetched again from
//! the peers. `HEADS` says what that was, so nothing is signed twice meanwhile. A trouble
//! of the disk or of permissions is no damage, and moves nothing. Commands without a daemon
//! open the store as it is; where that is damaged they say so.

use std::{
    io::Read as _,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use protocol::suite::Suite;
use rustix::process::Signal;
use store::{Options, Store, StoreError};

use super::dir::{NodeDir, remove};

/// The first argument that makes this program the child. It is no command of people's, so
/// no help names it.
const WORD: &str = "try-store";
/// The child gets so long, and as long again as it takes to read its files slowly.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of the store that are read in a second by the slowest disk.
const SLOW_BYTES_PER_S: u64 = 5 * 1024 * 1024;
/// How often it is looked whether the child has ended.
const LOOK: Duration = Duration::from_millis(10);
/// Longest text that the child is heard to the end of.
const TEXT_BYTES_MAX: u64 = 4096;
/// In front of a child's answer that the files are damaged.
const DAMAGED: &str = "damaged: ";
/// What is put in front of the time in the name of a store that was moved aside.
const ASIDE: &str = "store.damaged-";

/// The last argument of a child that reads everything, too.
const ALL: &str = "all";
/// In a store in which the database has ended a daemon: all of it is read before the next
/// one opens it.
const MET: &str = "DAMAGED";

/// From now on a panic of the database leaves a mark for the next start: what it stumbled
/// over it would stumble over again.
pub(super) fn note_panics(dir: &NodeDir) {
    let (mark, before) = (dir.store().join(MET), std::panic::take_hook());
    std::panic::set_hook(Box::new(move |info| {
        let is_the_databases = info.location().is_some_and(|at| at.file().contains("/sled-"));
        if is_the_databases {
            // The process ends any moment.
            let _ = std::fs::write(&mark, b"");
        }
        before(info);
    }));
}

/// Does the child's work if this process was started as one.
pub fn main_if_child() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next()? != WORD {
        return None;
    }
    let path = PathBuf::from(arguments.next()?);
    let mut number = || arguments.next()?.to_str()?.parse::<u64>().ok();
    let suite = number().and_then(|number| Suite::from_number(u8::try_from(number).ok()?).ok());
    let (Some(suite), Some(cache_mb)) = (suite, number()) else {
        return Some(ExitCode::from(2));
    };
    let options = Options { suite, cache_mb, disk_reserve_mb: None };
    let reads_all = arguments.next().is_some_and(|argument| argument == ALL);
    let tried = Store::open(&path, &options)
        .and_then(|store| if reads_all { read_all(&store) } else { Ok(()) });
    match tried {
        Ok(()) => {}
        Err(error @ StoreError::Damaged { .. }) => print!("{DAMAGED}{error}"),
        // Whoever opens it next is told the same.
        Err(error) => print!("{error}"),
    }
    Some(ExitCode::SUCCESS)
}

/// Reads what the daemon may read, to see whether the database survives it. What is wrong
/// with single pages is repaired while the node works.
fn read_all(store: &Store) -> Result<(), StoreError> {
    for partition in store.heads().into_keys() {
        let mut next = store.live_pages(&partition).map(|pages| (pages, Vec::new()));
        while let Some((mut pages, key)) = next {
            let behind = pages.inspect(&key)?.and_then(|found| found.next);
            next = behind.map(|behind| (pages, behind));
        }
        let mut seq = 1;
        while let Some(at) = store.header_number_from(&partition, seq)? {
            let _ = store.change_sets(&partition, at, 1, usize::MAX);
            seq = at + 1;
        }
    }
    Ok(())
}

/// Makes sure that the store can be opened, and moves aside what keeps it from that.
pub(super) fn make_openable(dir: &NodeDir, options: &Options) -> anyhow::Result<()> {
    let path = dir.store();
    Store::finish_setting_aside(&path)?;
    if !Store::is_at(&path) {
        // Nothing was there yet.
        return Ok(());
    }
    let was_met = path.join(MET).exists();
    let Some(damage) = try_to_open(&path, options, was_met)? else {
        // What ended the daemon was something else.
        return remove(&path.join(MET));
    };
    if Store::set_snapshots_aside(&path)? && try_to_open(&path, options, was_met)?.is_none() {
        remove(&path.join(MET))?;
        tracing::warn!(%damage, "the snapshot of the database's page table was damaged, and is moved aside; the data is whole");
        return Ok(());
    }
    if !Store::has_sidecar(&path) {
        // Then nobody knows which numbers this node has signed.
        bail!(
            "数据存储 {0} 已损坏（{damage}），其 HEADS 也缺失或损坏，因此无法得知本节点签过哪些序号；未移动任何文件。请从备份恢复；县级\
             也可将该节点目录移到一旁，用新令牌加入（creditsync join） / the store at {0} is damaged ({damage}), and its HEADS is \
             missing or damaged as well, so nobody knows which numbers this node has signed. Nothing was moved. Restore a \
             backup; a county may also move the node's directory aside and join with a new token (creditsync join)",
            path.display()
        );
    }
    let aside = dir.path().join(format!("{ASIDE}{}", super::now_unix()));
    Store::set_aside(&path, &aside).context("move the damaged store aside")?;
    tracing::error!(
        %damage, aside = %aside.display(),
        "the store is damaged and cannot be opened: it is moved aside, and what it held is fetched again from the peers / \
         数据存储已损坏，无法打开：已移到一旁，内容将从对端重新获取"
    );
    Ok(())
}

/// What a person has to know of stores that were moved aside.
pub(super) fn set_aside(dir: &NodeDir) -> Vec<String> {
    let entries = std::fs::read_dir(dir.path()).into_iter().flatten().flatten();
    let found = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(ASIDE));
    let text = |entry: std::fs::DirEntry| {
        let path = entry.path();
        let path = path.display();
        format!(
            "数据存储曾损坏，已移到 {path}，内容正从对端重新获取；各分区恢复且确认无缺后，可删除该目录 / the store was damaged and \
             lies in {path}; what it held is fetched again from the peers. Delete that directory when all partitions are \
             well (creditsync status)"
        )
    };
    found.map(text).collect()
}

/// Lets a child open the store; answers what is wrong with its files, if anything.
fn try_to_open(path: &Path, options: &Options, reads_all: bool) -> anyhow::Result<Option<String>> {
    let program = std::env::current_exe().context("find this program's own file")?;
    let mut command = Command::new(program);
    command.arg(WORD).arg(path).arg(options.suite.number().to_string());
    command.arg(options.cache_mb.to_string()).args(reads_all.then_some(ALL));
    // What a library prints about itself is no word for people.
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().context("start a process that tries to open the store")?;
    let until =
        Instant::now() + PATIENCE + Duration::from_secs(bytes_below(path) / SLOW_BYTES_PER_S);
    loop {
        if let Some(status) =
            child.try_wait().context("wait for the process that opens the store")?
        {
            let mut text = String::new();
            if let Some(out) = child.stdout.take() {
                let _ = out.take(TEXT_BYTES_MAX).read_to_string(&mut text);
            }
            return match (status.success(), text.strip_prefix(DAMAGED)) {
                (true, damage) => Ok(damage.map(str::to_owned)),
                (false, _) if is_a_panic(status) => {
                    Ok(Some(format!("the process that opened it ended with {status}")))
                }
                // Somebody, or the kernel for want of memory, has ended it.
                (false, _) => bail!(
                    "试打开数据存储的进程被终止（{status}），未移动任何文件：请检查内存后重新启动 / the process that tried to open the \
                     store was ended from outside ({status}); nothing was moved. Is there enough memory? Start the node again"
                ),
            };
        }
        if Instant::now() >= until {
            end(&mut child);
            return Ok(Some("opening it does not come to an end".to_owned()));
        }
        std::thread::sleep(LOOK);
    }
}

/// Whether a process has ended itself over what it has read: by a panic, or because memory
/// was not what it had to be.
fn is_a_panic(status: ExitStatus) -> bool {
    /// What Rust's panics exit with where they unwind.
    const PANICKED: i32 = 101;
    let signals = [Signal::ABORT, Signal::SEGV, Signal::BUS, Signal::ILL].map(Signal::as_raw);
    status.code() == Some(PANICKED) || status.signal().is_some_and(|by| signals.contains(&by))
}

fn end(child: &mut Child) {
    // It only fails if it has ended.
    let _ = child.kill();
    let _ = child.wait();
}

/// Bytes of all files below a directory.
fn bytes_below(path: &Path) -> u64 {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let bytes = entries.map(|entry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => bytes_below(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    });
    bytes.sum()
}
