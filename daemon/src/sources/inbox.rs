//! Folders in which files are dropped: `DATASET/` for rows that are added to
//! what is stored, `DATASET/full/` for files that are the whole partition.
//!
//! A file is taken when it has stopped growing, imported, and then moved to
//! `DATASET/done/` or `DATASET/failed/`, with `NAME.report.json` and, where
//! there were issues, `NAME.rejects.csv` beside it. Started by the daemon; one
//! file at a time, the oldest first, so that the newest word is the last.
//!
//! What is the file's fault goes to `failed/`. What is not (a full disk, a
//! partition that awaits its own history, a shutdown) leaves the file where it
//! is, and newer files of the same dataset behind it.
//!
//! Between an import's last commit and the move of its file nothing ties the
//! two together: after a crash there the file is imported again, finds every
//! row unchanged, and makes no change set.
//!
//! Not here: notifications of the kernel, which network file systems do not
//! send; and clearing `done/`, which belongs to the administrator.

use std::{
    collections::{HashMap, HashSet},
    ffi::{OsStr, OsString},
    fs,
    io::{self, Write as _},
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use protocol::id::DatasetId;
use rustix::{
    fd::{AsFd, OwnedFd},
    fs::{AtFlags, CWD, Mode, OFlags, mkdirat, openat, renameat, unlinkat},
    io::Errno,
    path::Arg,
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::file::{DeliveredFile, FileState, Links, Reading};
use crate::{
    ingest::{
        ImportError, ImportRequest, Importer, deliver::import_or_hold, held::Deliveries,
        report::ImportReport, source::SourceError, spool::SpoolError, words::DeliveryError,
    },
    membership::Membership,
    store::StoreError,
};

/// Time between two looks at the folders.
const POLL: Duration = Duration::from_secs(1);
/// First and longest wait before something that failed is tried again.
const RETRY_DELAY_MIN: Duration = Duration::from_secs(1);
const RETRY_DELAY_MAX: Duration = Duration::from_secs(300);
/// Longest file name of Linux' file systems, in bytes.
const NAME_BYTES_MAX: usize = 255;
/// Room for a number and for the endings of report and rejects.
const NAME_SUFFIX_BYTES: usize = 24;
const REPORT_SUFFIX: &str = ".report.json";
const REJECTS_SUFFIX: &str = ".rejects.csv";
/// In front of rejects files whose import has not ended. Hidden files are never
/// taken.
const UNFINISHED: &str = ".creditsync-";
/// Endings that browsers, copying programs and editors give to files that are
/// not whole.
const UNFINISHED_ENDINGS: [&str; 5] = [".part", ".filepart", ".tmp", ".crdownload", "~"];

/// The folders, and what they need.
pub struct Inbox {
    /// The directory of all folders.
    pub dir: PathBuf,
    /// Imports files.
    pub importer: Arc<Importer>,
    /// Keeps those that a person has to approve.
    pub deliveries: Arc<Deliveries>,
    /// Knows the datasets.
    pub membership: Arc<Membership>,
    /// How long a file must not have changed.
    pub stable: Duration,
}

/// Watches the folders until `stop`. An import that is under way then is ended
/// by the importer's own token, and its file stays.
pub async fn watch(inbox: Inbox, stop: CancellationToken) {
    let mut watcher = Watcher::new(inbox, stop.clone());
    while !stop.is_cancelled() {
        let pass = tokio::task::spawn_blocking(move || {
            watcher.pass(Instant::now(), SystemTime::now());
            watcher
        });
        watcher = match pass.await {
            Ok(watcher) => watcher,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is going away.
                Err(_) => return,
            },
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(POLL) => {}
        }
    }
}

pub(super) struct Watcher {
    inbox: Inbox,
    stop: CancellationToken,
    /// Files that lie in the folders.
    files: HashMap<PathBuf, Seen>,
    /// Datasets into which nothing can be imported for now.
    waits: HashMap<DatasetId, Wait>,
    /// Datasets whose folders were looked at before.
    known: HashSet<DatasetId>,
    /// What was said about a path that still gives reason for it.
    said: HashMap<PathBuf, u64>,
    passes: u64,
    rejects: u64,
}

/// A file as it was when it was last looked at.
struct Seen {
    state: FileState,
    since: Instant,
    /// It had been left alone for long enough when it was first seen.
    settled: bool,
    wait: Option<Wait>,
    /// It was dealt with and could not be moved.
    ended: Option<Ended>,
}

#[derive(Clone, Copy)]
struct Wait {
    delay: Duration,
    until: Instant,
}

impl Wait {
    fn after(earlier: Option<Self>, now: Instant) -> Self {
        let delay = earlier.map_or(RETRY_DELAY_MIN, |wait| (wait.delay * 2).min(RETRY_DELAY_MAX));
        Self { delay, until: now + delay }
    }
}

/// A file that may be taken.
#[derive(Clone)]
struct Candidate {
    path: PathBuf,
    dataset: DatasetId,
    full: bool,
    state: FileState,
}

/// What became of a file.
enum Ended {
    Done { report: Box<ImportReport>, rejects: PathBuf },
    Failed { error: String },
}

/// Who has to do something about an error.
#[derive(Debug, PartialEq, Eq)]
enum Fault {
    /// The file is wrong and stays wrong.
    Content,
    /// The file cannot be read for now.
    Access,
    /// Nothing of the dataset can be imported for now.
    Node,
    /// Nobody: the daemon stops.
    Stop,
}

fn fault_of(error: &ImportError) -> Fault {
    match error {
        ImportError::Source(SourceError::Access(_) | SourceError::Changed { .. })
        | ImportError::Delivery(DeliveryError::Source(_)) => Fault::Access,
        ImportError::Source(_)
        | ImportError::Header { .. }
        | ImportError::Spool(SpoolError::TooLong { .. })
        | ImportError::Store(StoreError::Changes { .. }) => Fault::Content,
        ImportError::Stopped | ImportError::Store(StoreError::Closed) => Fault::Stop,
        ImportError::UnknownDataset { .. }
        | ImportError::Spool(_)
        | ImportError::Report { .. }
        | ImportError::Store(_)
        | ImportError::Delivery(_)
        | ImportError::Held(_)
        | ImportError::Superseded => Fault::Node,
    }
}

impl Watcher {
    pub(super) fn new(inbox: Inbox, stop: CancellationToken) -> Self {
        Self {
            inbox,
            stop,
            files: HashMap::new(),
            waits: HashMap::new(),
            known: HashSet::new(),
            said: HashMap::new(),
            passes: 0,
            rejects: 0,
        }
    }

    /// Looks at the folders once and imports what is ready.
    pub(super) fn pass(&mut self, now: Instant, wall: SystemTime) {
        self.passes += 1;
        let datasets: Vec<DatasetId> = match self.inbox.membership.current() {
            Ok(registry) => registry.datasets().map(|schema| schema.dataset().clone()).collect(),
            Err(error) => {
                let dir = self.inbox.dir.clone();
                self.warn_once(&dir, "the inbox waits: the catalogue cannot be read", Some(&error));
                return;
            }
        };
        for dataset in &datasets {
            self.prepare(dataset);
        }
        self.warn_of_strays(&datasets);
        let mut ready = self.scan(&datasets, now, wall);
        ready.sort_by(|a, b| (a.state.modified, &a.path).cmp(&(b.state.modified, &b.path)));
        for candidate in ready {
            if self.stop.is_cancelled() {
                break;
            }
            self.take(&candidate, now);
        }
        let this = self.passes;
        self.said.retain(|_, pass| *pass == this);
    }

    /// Makes a dataset's folders.
    fn prepare(&mut self, dataset: &DatasetId) {
        let dir = self.inbox.dir.join(dataset.as_str());
        let full = dir.join("full");
        let made = fs::create_dir_all(&self.inbox.dir).and_then(|()| make_folder(&dir));
        if let Err(error) = made {
            self.warn_once(&dir, "a folder of the inbox cannot be made", Some(&error));
            return;
        }
        if let Err(error) = make_folder(&full) {
            self.warn_once(&full, "a folder of the inbox cannot be made", Some(&error));
        }
        if self.known.insert(dataset.clone()) {
            // A crash may have left one behind.
            for entry in entries(&dir).into_iter().flatten() {
                if entry.file_name().as_bytes().starts_with(UNFINISHED.as_bytes()) {
                    let _ = fs::remove_file(entry.path());
                }
            }
        }
    }

    /// Files in places where nobody takes them.
    fn warn_of_strays(&mut self, datasets: &[DatasetId]) {
        let Ok(entries) = entries(&self.inbox.dir.clone()) else {
            // Said when the folders were made.
            return;
        };
        for entry in entries {
            let name = entry.file_name();
            let path = entry.path();
            if is_unfinished(&name) {
                continue;
            }
            if !path.is_dir() {
                self.warn_once(&path, "left alone: put it into a dataset's folder", None);
            } else if !datasets.iter().any(|dataset| *dataset.as_str() == *name) {
                self.warn_once(
                    &path,
                    "left alone: no dataset of the catalogue has that name",
                    None,
                );
            }
        }
    }

    /// Notes what lies in the folders; answers what is ready.
    fn scan(&mut self, datasets: &[DatasetId], now: Instant, wall: SystemTime) -> Vec<Candidate> {
        let mut earlier = std::mem::take(&mut self.files);
        let mut ready = Vec::new();
        for dataset in datasets {
            let dir = self.inbox.dir.join(dataset.as_str());
            if let Err(error) = check_folder(&dir) {
                self.warn_once(&dir, "a folder of the inbox cannot be read", Some(&error));
                continue;
            }
            for (dir, full) in [(dir.clone(), false), (dir.join("full"), true)] {
                let entries = match check_folder(&dir).and_then(|()| entries(&dir)) {
                    Ok(entries) => entries,
                    Err(error) => {
                        self.warn_once(&dir, "a folder of the inbox cannot be read", Some(&error));
                        continue;
                    }
                };
                for entry in entries {
                    // Of the entry itself: a link could lead anywhere.
                    let Ok(data) = entry.metadata() else {
                        continue;
                    };
                    if !data.is_file() || is_unfinished(&entry.file_name()) {
                        continue;
                    }
                    let (path, state) = (entry.path(), FileState::from(&data));
                    let seen = match earlier.remove(&path) {
                        Some(seen) if seen.state == state => seen,
                        first => {
                            let age =
                                data.modified().ok().and_then(|at| wall.duration_since(at).ok());
                            let settled =
                                first.is_none() && age.is_some_and(|age| age >= self.inbox.stable);
                            Seen { state, since: now, settled, wait: None, ended: None }
                        }
                    };
                    let still = now.saturating_duration_since(seen.since) >= self.inbox.stable;
                    if seen.settled || still {
                        let dataset = dataset.clone();
                        ready.push(Candidate { path: path.clone(), dataset, full, state });
                    }
                    self.files.insert(path, seen);
                }
            }
        }
        ready
    }

    /// Imports a file and moves it, unless something has to be waited for.
    fn take(&mut self, file: &Candidate, now: Instant) {
        let Some(seen) = self.files.get_mut(&file.path) else {
            return;
        };
        if seen.wait.is_some_and(|wait| wait.until > now) {
            self.keep_said(&file.path);
            return;
        }
        if let Some(ended) = seen.ended.take() {
            self.settle(file, ended, now);
            return;
        }
        if self.waits.get(&file.dataset).is_some_and(|wait| wait.until > now) {
            self.keep_said(&self.inbox.dir.join(file.dataset.as_str()));
            return;
        }
        // An import before this one may have taken long.
        if self.check_folders_of(file).is_err() || state_of(&file.path) != Some(file.state) {
            return;
        }
        self.rejects += 1;
        let rejects = self
            .inbox
            .dir
            .join(file.dataset.as_str())
            .join(format!("{UNFINISHED}{}{REJECTS_SUFFIX}", self.rejects));
        let result = self.import(file, &rejects);
        if !matches!(&result, Err(error) if fault_of(error) == Fault::Node) {
            self.waits.remove(&file.dataset);
        }
        let error = match result {
            Ok(report) => {
                report.log(&file.dataset, &name_of(file), file.full);
                let report = Box::new(report);
                self.settle(file, Ended::Done { report, rejects }, now);
                return;
            }
            Err(error) => error,
        };
        remove_if_there(&rejects);
        match fault_of(&error) {
            Fault::Stop => {}
            Fault::Content => {
                tracing::warn!(dataset = %file.dataset, file = %name_of(file), %error, "a file of the inbox cannot be imported");
                self.settle(file, Ended::Failed { error: error.to_string() }, now);
            }
            Fault::Access => {
                self.warn_once(
                    &file.path,
                    "a file of the inbox stays: it cannot be read",
                    Some(&error),
                );
                self.wait_with(file, None, now);
            }
            Fault::Node => {
                let dir = self.inbox.dir.join(file.dataset.as_str());
                self.warn_once(
                    &dir,
                    "files of the inbox wait: nothing can be imported now",
                    Some(&error),
                );
                let earlier = self.waits.get(&file.dataset).copied();
                self.waits.insert(file.dataset.clone(), Wait::after(earlier, now));
            }
        }
    }

    fn import(&self, file: &Candidate, rejects: &Path) -> Result<ImportReport, ImportError> {
        let source = DeliveredFile::open(&file.path, Links::Refuse, Reading::default())
            .map_err(|error| ImportError::Source(error.into()))?
            .unpacked_in(self.inbox.importer.room());
        let request = ImportRequest {
            dataset: file.dataset.clone(),
            source: Arc::new(source),
            full: file.full,
            approved: None,
            rejects: rejects.to_owned(),
        };
        import_or_hold(&self.inbox.importer, &self.inbox.deliveries, &request, &|_| {})
    }

    /// Moves a file that was dealt with.
    fn settle(&mut self, file: &Candidate, mut ended: Ended, now: Instant) {
        if state_of(&file.path) != Some(file.state) {
            // Somebody went on writing, or took it away. What is there now is
            // looked at anew.
            if let Ended::Done { rejects, .. } = &ended {
                remove_if_there(rejects);
            }
            self.files.remove(&file.path);
            tracing::info!(dataset = %file.dataset, file = %name_of(file), "a file of the inbox changed while it was imported");
            return;
        }
        match self.move_away(file, &mut ended) {
            Ok(()) => {
                self.files.remove(&file.path);
            }
            Err(error) => {
                self.warn_once(
                    &file.path,
                    "a file of the inbox was dealt with and cannot be moved",
                    Some(&error),
                );
                self.wait_with(file, Some(ended), now);
            }
        }
    }

    /// Report and rejects first: who waits for the file to appear finds them.
    ///
    /// The folders are held open, so that none can be exchanged for a link
    /// between two steps; paths only serve to find a name and to tell it.
    fn move_away(&self, file: &Candidate, ended: &mut Ended) -> io::Result<()> {
        let place = match ended {
            Ended::Done { .. } => "done",
            Ended::Failed { .. } => "failed",
        };
        let inbox = open_folder(CWD, &self.inbox.dir, OFlags::empty())?;
        let dataset = open_folder(&inbox, file.dataset.as_str(), OFlags::NOFOLLOW)?;
        match mkdirat(&dataset, place, Mode::from_raw_mode(0o777)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let target = open_folder(&dataset, place, OFlags::NOFOLLOW)?;
        let full =
            file.full.then(|| open_folder(&dataset, "full", OFlags::NOFOLLOW)).transpose()?;
        let source = full.as_ref().unwrap_or(&dataset);

        let dir = self.inbox.dir.join(file.dataset.as_str()).join(place);
        let old_name = file.path.file_name().unwrap_or(OsStr::new("file"));
        let name = free_name(&dir, old_name);
        let report_name = with_suffix(&name, REPORT_SUFFIX);
        let report = match ended {
            Ended::Done { report, rejects } => {
                let rejects_name = with_suffix(&name, REJECTS_SUFFIX);
                if report.rejects_file.is_some() {
                    // An earlier try may have come as far as this.
                    let from = if rejects.starts_with(&dir) { &target } else { &dataset };
                    renameat(
                        from,
                        rejects.file_name().unwrap_or_default(),
                        &target,
                        &rejects_name,
                    )?;
                    let path = dir.join(rejects_name);
                    report.rejects_file = Some(path.display().to_string());
                    *rejects = path;
                }
                serde_json::to_vec_pretty(report)
            }
            Ended::Failed { error } => serde_json::to_vec_pretty(&json!({ "error": error })),
        };
        let mut report = report.map_err(io::Error::other)?;
        report.push(b'\n');
        // Whoever looks for reports must not find half of one.
        let half = format!("{UNFINISHED}report");
        match unlinkat(&target, &half, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let out = openat(&target, &half, flags, Mode::from_raw_mode(0o600))?;
        fs::File::from(out).write_all(&report)?;
        renameat(&target, &half, &target, &report_name)?;
        renameat(source, old_name, &target, &name).map_err(|error| {
            let _ = unlinkat(&target, &report_name, AtFlags::empty());
            error.into()
        })
    }

    fn check_folders_of(&self, file: &Candidate) -> io::Result<()> {
        let dir = self.inbox.dir.join(file.dataset.as_str());
        check_folder(&dir)?;
        if file.full { check_folder(&dir.join("full")) } else { Ok(()) }
    }

    fn wait_with(&mut self, file: &Candidate, ended: Option<Ended>, now: Instant) {
        if let Some(seen) = self.files.get_mut(&file.path) {
            seen.wait = Some(Wait::after(seen.wait, now));
            seen.ended = ended;
        }
    }

    /// Says something about a path once, until a pass gives no reason for it.
    fn warn_once(&mut self, path: &Path, what: &str, error: Option<&dyn std::fmt::Display>) {
        if self.said.insert(path.to_owned(), self.passes).is_none() {
            let error = error.map(tracing::field::display);
            tracing::warn!(path = %path.display(), error, "{what}");
        }
    }

    fn keep_said(&mut self, path: &Path) {
        if let Some(pass) = self.said.get_mut(path) {
            *pass = self.passes;
        }
    }
}

/// Refuses what is not a folder itself: who may drop files here could let a link
/// lead to the node's own files.
fn check_folder(dir: &Path) -> io::Result<()> {
    if fs::symlink_metadata(dir)?.is_dir() {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::NotADirectory,
        "不是文件夹，或者是符号链接 / not a folder, or a symbolic link, which is not followed here",
    ))
}

fn open_folder(parent: impl AsFd, name: impl Arg, flags: OFlags) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(openat(parent, name, flags, Mode::empty())?)
}

/// Makes a folder unless there is one.
fn make_folder(dir: &Path) -> io::Result<()> {
    match fs::create_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => check_folder(dir),
        other => other,
    }
}

fn entries(dir: &Path) -> io::Result<Vec<fs::DirEntry>> {
    fs::read_dir(dir)?.collect()
}

fn state_of(path: &Path) -> Option<FileState> {
    fs::symlink_metadata(path).ok().map(|data| FileState::from(&data))
}

fn is_unfinished(name: &OsStr) -> bool {
    let name = name.as_bytes().to_ascii_lowercase();
    // Excel's lock files begin with '~$'.
    name.starts_with(b".")
        || name.starts_with(b"~$")
        || UNFINISHED_ENDINGS.iter().any(|ending| name.ends_with(ending.as_bytes()))
}

/// `name`, or with a number before its ending, so that neither it nor its
/// report or rejects hide something in `dir`. Shortened where those would be
/// too long.
fn free_name(dir: &Path, name: &OsStr) -> OsString {
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
        ["", REPORT_SUFFIX, REJECTS_SUFFIX]
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

fn with_suffix(name: &OsStr, suffix: &str) -> OsString {
    let mut whole = name.to_owned();
    whole.push(suffix);
    whole
}

fn remove_if_there(path: &Path) {
    // Hidden, bounded in number and cleared at the next start.
    let _ = fs::remove_file(path);
}

fn name_of(file: &Candidate) -> std::borrow::Cow<'_, str> {
    file.path.file_name().unwrap_or_default().to_string_lossy()
}
