//! Looks at the folders, takes what is ready, and does what it comes to.
//!
//! Used by `watch`, which calls [`Watcher::pass`] every second, and by tests, which
//! give the time. Invariants: files of a dataset are taken in the order of their
//! last change; a file that was dealt with is imported again only if its content
//! is another one. Not here: folders, names, and what is said of strays.

use std::{
    collections::{HashMap, HashSet},
    fs,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use protocol::{hash::Hash, id::DatasetId};
use tokio_util::sync::CancellationToken;

use super::{
    Inbox,
    events::{Events, Mark},
    folders::{Folder, OUTCOMES, check_folder, entries, make_folder, walk},
    moved::{Home, Moved, MovedFile, Mover, is_refused},
    names::{REJECTS_SUFFIX, UNFINISHED, is_report, is_unfinished, marked},
    report::Ended,
    settle::{Incomplete, Look, Patience, Verdict, has_end, judge},
    strays::Strays,
};
use crate::{
    ingest::{
        ImportError, ImportRequest,
        deliver::import_or_hold,
        report::{ImportReport, Note},
        source::SourceError,
        spool::SpoolError,
        words::DeliveryError,
    },
    sources::file::{DeliveredFile, Links, shown},
    store::StoreError,
};

/// First and longest wait before something that failed is tried again.
const RETRY_DELAY_MIN: Duration = Duration::from_secs(1);
const RETRY_DELAY_MAX: Duration = Duration::from_secs(300);
/// A marker `NAME.done` is empty, or has a word in it; a larger file is one that is
/// delivered.
const MARKER_BYTES_MAX: u64 = 4096;

/// Looks at the folders; see the module.
pub(in crate::sources) struct Watcher {
    inbox: Inbox,
    stop: CancellationToken,
    mover: Mover,
    events: Events,
    strays: Strays,
    /// Files that lie in the folders.
    files: HashMap<PathBuf, Seen>,
    /// Files that were moved away a while ago.
    moved: Moved,
    /// Files that were put back, and how often.
    again: HashMap<PathBuf, u32>,
    /// Datasets into which nothing can be imported for now.
    waits: HashMap<DatasetId, Wait>,
    /// Datasets whose folders were looked at before.
    known: HashSet<DatasetId>,
    rejects: u64,
}

/// A file as it was when it was last looked at.
struct Seen {
    look: Look,
    since: Instant,
    /// How long it had been left alone when it was first seen.
    earlier: Duration,
    /// Whether it ends as a complete file does, once that was looked at.
    has_end: Option<bool>,
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
    home: Home,
    look: Look,
    /// It seems not to be complete, and was waited for long enough.
    incomplete: Option<Incomplete>,
}

/// The time of a pass.
#[derive(Clone, Copy)]
struct Now {
    now: Instant,
    wall: SystemTime,
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
    pub(in crate::sources) fn new(inbox: Inbox, stop: CancellationToken) -> Self {
        Self {
            mover: Mover { dir: inbox.dir.clone(), access: inbox.access },
            strays: Strays::new(inbox.dir.clone(), inbox.access),
            events: Events::new(),
            inbox,
            stop,
            files: HashMap::new(),
            moved: Moved::default(),
            again: HashMap::new(),
            waits: HashMap::new(),
            known: HashSet::new(),
            rejects: 0,
        }
    }

    /// Looks at the folders once and imports what is ready.
    pub(in crate::sources) fn pass(&mut self, now: Instant, wall: SystemTime) {
        let time = Now { now, wall };
        let first = self.strays.begin();
        let datasets: Vec<DatasetId> = match self.inbox.membership.current() {
            Ok(registry) => registry.datasets().map(|schema| schema.dataset().clone()).collect(),
            Err(error) => {
                let dir = self.inbox.dir.clone();
                let what = "the inbox waits: the catalogue cannot be read";
                self.strays.warn_once(&dir, what, Some(&error));
                return;
            }
        };
        for dataset in &datasets {
            self.prepare(dataset);
        }
        self.put_changed_back(now);
        self.tell_of_strays(&datasets);
        // Before the files are looked at: what is told later belongs to a later
        // look.
        self.events.drain();
        let mut ready = self.scan(&datasets, time, first);
        ready.sort_by(|a, b| {
            (a.look.state.modified, &a.path).cmp(&(b.look.state.modified, &b.path))
        });
        for candidate in ready {
            if self.stop.is_cancelled() {
                break;
            }
            self.take(&candidate, time);
        }
        self.strays.end();
        let files = &self.files;
        self.events.retain(|path| files.contains_key(path));
        // One that was put back just now is seen in the next pass.
        self.again.retain(|path, _| path.symlink_metadata().is_ok());
    }

    /// Makes a dataset's folders.
    fn prepare(&mut self, dataset: &DatasetId) {
        let (inbox, access) = (self.inbox.dir.clone(), self.inbox.access);
        let dir = inbox.join(dataset.as_str());
        let full = dir.join("full");
        let is_new = self.known.insert(dataset.clone());
        // Modes are set once; whoever changes them later may.
        if !is_new && check_folder(&dir).is_ok() && check_folder(&full).is_ok() {
            return;
        }
        let made = fs::create_dir_all(&inbox)
            .and_then(|()| match access.group {
                Some(_) => access.share_to_read(fs::File::open(&inbox)?),
                None => Ok(()),
            })
            .and_then(|()| make_folder(&dir, access));
        if let Err(error) = made {
            self.strays.warn_once(&dir, "a folder of the inbox cannot be made", Some(&error));
            return;
        }
        if let Err(error) = make_folder(&full, access) {
            self.strays.warn_once(&full, "a folder of the inbox cannot be made", Some(&error));
        }
        if is_new {
            // A crash may have left one behind.
            for entry in entries(&dir).into_iter().flatten() {
                if entry.file_name().as_bytes().starts_with(UNFINISHED.as_bytes()) {
                    let _ = fs::remove_file(entry.path());
                }
            }
        }
    }

    /// Files that went on after they were imported are delivered again.
    fn put_changed_back(&mut self, now: Instant) {
        for moved in self.moved.look(now) {
            self.put_back(moved);
        }
    }

    fn put_back(&mut self, moved: MovedFile) {
        match self.mover.put_back(&moved) {
            Ok(path) => {
                tracing::warn!(file = ?path, dataset = %moved.home.dataset, "a file of the inbox was written to after it was imported: it is delivered again");
                // That it was moved there says nothing.
                self.events.drain();
                self.events.set(&path, Mark::Unknown);
                self.again.insert(path, moved.again + 1);
            }
            Err(error) => {
                let what = "a file was written to after it was imported and cannot be put back";
                self.strays.warn_once(&moved.path, what, Some(&error));
                self.moved.keep(moved);
            }
        }
    }

    /// Files and folders in places where nobody takes them.
    fn tell_of_strays(&mut self, datasets: &[DatasetId]) {
        let Ok(entries) = entries(&self.inbox.dir) else {
            // Said when the folders were made.
            return;
        };
        let known: Vec<&str> = datasets.iter().map(DatasetId::as_str).collect();
        for entry in entries {
            let name = entry.file_name();
            if is_unfinished(&name) || is_report(&name) || known.iter().any(|known| name == *known)
            {
                continue;
            }
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let list = known.join(", ");
            self.strays.tell(
                &entry.path(),
                if is_folder {
                    [
                        format!("没有与该文件夹同名的数据集，其中的文件不会被读取；数据集有：{list}"),
                        format!("no dataset has this folder's name, so its files are not read; the datasets are: {list}"),
                    ]
                } else {
                    [
                        format!("请把该文件放入数据集的文件夹：{list}"),
                        format!("put the file into the folder of its dataset: {list}"),
                    ]
                },
            );
        }
    }

    /// Notes what lies in the folders; answers what is ready.
    fn scan(&mut self, datasets: &[DatasetId], time: Now, first: bool) -> Vec<Candidate> {
        let mut earlier = std::mem::take(&mut self.files);
        let mut ready = Vec::new();
        if first {
            self.strays.clear(&self.inbox.dir);
        }
        for dataset in datasets {
            let dir = self.inbox.dir.join(dataset.as_str());
            for (root, full) in [(dir.clone(), false), (dir.join("full"), true)] {
                // Below a link nothing is looked at, and it is told of with the
                // dataset's own folder.
                if full && check_folder(&dir).is_err() {
                    continue;
                }
                let walk = walk(&root);
                for (path, why) in walk.unread {
                    self.strays.tell(&path, why);
                }
                for folder in walk.folders {
                    self.events.watch(&folder.path);
                    if first {
                        self.strays.clear(&folder.path);
                    }
                    let home = |name| Home {
                        dataset: dataset.clone(),
                        full,
                        sub: folder.sub.clone(),
                        name,
                    };
                    self.scan_folder(&folder, &home, &mut earlier, &mut ready, time);
                }
            }
        }
        ready
    }

    fn scan_folder(
        &mut self,
        folder: &Folder,
        home: &dyn Fn(std::ffi::OsString) -> Home,
        earlier: &mut HashMap<PathBuf, Seen>,
        ready: &mut Vec<Candidate>,
        Now { now, wall }: Now,
    ) {
        let Ok(entries) = entries(&folder.path) else {
            return;
        };
        let markers: HashSet<_> = entries
            .iter()
            .filter_map(|entry| marked(&entry.file_name()).map(ToOwned::to_owned))
            .collect();
        for entry in entries {
            // Of the entry itself: a link could lead anywhere.
            let (name, path) = (entry.file_name(), entry.path());
            let Ok(data) = entry.metadata() else {
                continue;
            };
            if data.is_dir() || is_unfinished(&name) || is_report(&name) {
                continue;
            }
            if !data.is_file() {
                let is_outcome = OUTCOMES.iter().any(|outcome| name == *outcome);
                if !is_outcome && name != "full" {
                    self.strays.tell(&path, not_a_file());
                }
                continue;
            }
            if data.len() <= MARKER_BYTES_MAX
                && let Some(about) = marked(&name)
                && (data.len() == 0 || folder.path.join(about).exists())
            {
                let age = data.modified().ok().and_then(|at| wall.duration_since(at).ok());
                let is_old = age.is_some_and(|age| age >= self.inbox.incomplete);
                if is_old && !folder.path.join(about).exists() {
                    self.strays.tell(&path, without_its_file());
                }
                continue;
            }
            let look = Look::from(&data);
            let mut seen = match earlier.remove(&path) {
                Some(seen) if seen.look == look => seen,
                first => {
                    let age = data.modified().ok().and_then(|at| wall.duration_since(at).ok());
                    let earlier = match first {
                        None => age.unwrap_or_default(),
                        Some(_) => Duration::ZERO,
                    };
                    Seen { look, since: now, earlier, has_end: None, wait: None, ended: None }
                }
            };
            let quiet = seen.earlier + now.saturating_duration_since(seen.since);
            let patience =
                Patience { stable: self.inbox.stable, incomplete: self.inbox.incomplete };
            let home = home(name);
            let said = markers.contains(&home.name);
            let mark = self.events.mark(&path);
            let known_end = &mut seen.has_end;
            let has_end = || *known_end.get_or_insert_with(|| has_end(&path));
            let verdict = if seen.ended.is_some() {
                Verdict::Take(None)
            } else {
                judge(quiet, patience, said, mark, home.full, has_end)
            };
            match verdict {
                Verdict::Settling => {}
                Verdict::Waiting(why) => self.strays.tell(&path, why.waits(patience.incomplete)),
                Verdict::Take(incomplete) => {
                    ready.push(Candidate { path: path.clone(), home, look, incomplete });
                }
            }
            self.files.insert(path, seen);
        }
    }

    /// Imports a file and moves it, unless something has to be waited for.
    fn take(&mut self, file: &Candidate, time: Now) {
        let now = time.now;
        let Some(seen) = self.files.get_mut(&file.path) else {
            return;
        };
        if seen.wait.is_some_and(|wait| wait.until > now) {
            self.strays.keep(&file.path);
            return;
        }
        if let Some(ended) = seen.ended.take() {
            self.settle(file, None, ended, time);
            return;
        }
        let dataset = file.home.dataset.clone();
        let dir = self.inbox.dir.join(dataset.as_str());
        if self.waits.get(&dataset).is_some_and(|wait| wait.until > now) {
            self.strays.keep(&dir);
            return;
        }
        // An import before this one may have taken long.
        if self.check_folders_of(file).is_err() || Look::of(&file.path) != Some(file.look) {
            return;
        }
        self.rejects += 1;
        let rejects = dir.join(format!("{UNFINISHED}{}{REJECTS_SUFFIX}", self.rejects));
        let (source, result) = self.import(file, &rejects);
        if !matches!(&result, Err(error) if fault_of(error) == Fault::Node) {
            self.waits.remove(&dataset);
        }
        let error = match result {
            Ok(mut report) => {
                report.log(&dataset, &name_of(file), file.home.full);
                if file.incomplete == Some(Incomplete::NoEnd) {
                    // Said again, with how long it was waited for.
                    report.notes.retain(|note| note.code != "cut");
                }
                report.notes.extend(self.notes_of(file));
                let report = Box::new(report);
                self.settle(file, source.as_ref(), Ended::Read { report, rejects }, time);
                return;
            }
            Err(error) => error,
        };
        remove_if_there(&rejects);
        match fault_of(&error) {
            Fault::Stop => {}
            Fault::Content => {
                tracing::warn!(%dataset, file = name_of(file), %error, "a file of the inbox cannot be imported");
                let error = error.to_string();
                self.settle(file, source.as_ref(), Ended::Failed { error }, time);
            }
            Fault::Access => {
                let why = [
                    format!("暂时无法读取该文件：{error}"),
                    format!("the file cannot be read for now: {error}"),
                ];
                self.strays.tell(&file.path, why);
                self.wait_with(file, None, now);
            }
            Fault::Node => {
                let what = "files of the inbox wait: nothing can be imported now";
                self.strays.warn_once(&dir, what, Some(&error));
                let earlier = self.waits.get(&dataset).copied();
                self.waits.insert(dataset, Wait::after(earlier, now));
            }
        }
    }

    /// What there is to say of how a file came.
    fn notes_of(&self, file: &Candidate) -> Vec<Note> {
        let again = self.again.get(&file.path).map(|times| {
            Note::new(
                "delivered-again",
                format!("该文件在导入之后又有变化，现已按新的内容重新导入（第 {times} 次）"),
                format!(
                    "the file was written to after it had been imported, and was imported again with what it is now ({times})"
                ),
            )
        });
        let incomplete = file.incomplete.map(|why| why.note(self.inbox.incomplete));
        again.into_iter().chain(incomplete).collect()
    }

    fn import(
        &self,
        file: &Candidate,
        rejects: &Path,
    ) -> (Option<DeliveredFile>, Result<ImportReport, ImportError>) {
        let reading = self.inbox.readings.get(&file.home.dataset).cloned().unwrap_or_default();
        let source = match DeliveredFile::open(&file.path, Links::Refuse, reading) {
            Ok(source) => source.unpacked_in(self.inbox.importer.room()),
            Err(error) => return (None, Err(ImportError::Source(error.into()))),
        };
        let request = ImportRequest {
            dataset: file.home.dataset.clone(),
            source: Arc::new(source.clone()),
            full: file.home.full,
            approved: None,
            rejects: rejects.to_owned(),
        };
        let result =
            import_or_hold(&self.inbox.importer, &self.inbox.deliveries, &request, &|_| {});
        (Some(source), result)
    }

    /// Moves a file that was dealt with. Only what is still what was read is dealt
    /// with: `source` is the open file, if it was read just now.
    fn settle(
        &mut self,
        file: &Candidate,
        source: Option<&DeliveredFile>,
        mut ended: Ended,
        time: Now,
    ) {
        // Of the descriptor that was read, and in this order: a change during the
        // hash shows in the look behind it.
        let content = source.map(DeliveredFile::content).transpose().unwrap_or_default();
        if Look::of(&file.path) != Some(file.look) {
            // Somebody went on writing, or took it away. What is there now is
            // looked at anew.
            if let Ended::Read { rejects, .. } = &ended {
                remove_if_there(rejects);
            }
            if file.path.symlink_metadata().is_ok() {
                *self.again.entry(file.path.clone()).or_default() += 1;
            }
            tracing::info!(dataset = %file.home.dataset, file = name_of(file), "a file of the inbox changed while it was imported");
            return;
        }
        match self.mover.move_away(&file.home, &mut ended, time.wall) {
            Ok(path) => {
                self.files.remove(&file.path);
                let again = self.again.remove(&file.path).unwrap_or_default();
                let was_open = self.events.mark(&file.path) == Mark::Writing;
                if let Some(content) = content {
                    self.note_moved(
                        (path, file.home.clone(), again),
                        (file.look, content),
                        was_open,
                        time.now,
                    );
                }
            }
            Err(error) => {
                if is_refused(&error) {
                    let why = [
                        format!(
                            "该文件已处理，但无法移走：creditsync 没有写入其所在文件夹的权限（{error}）"
                        ),
                        format!(
                            "the file was dealt with and cannot be moved: creditsync may not write to its folder ({error})"
                        ),
                    ];
                    self.strays.tell(&file.path, why);
                } else {
                    let what = "a file of the inbox was dealt with and cannot be moved";
                    self.strays.warn_once(&file.path, what, Some(&error));
                }
                self.wait_with(file, Some(ended), time.now);
            }
        }
    }

    fn note_moved(
        &mut self,
        moved: (PathBuf, Home, u32),
        read: (Look, Hash),
        was_open: bool,
        now: Instant,
    ) {
        let watch = self.inbox.incomplete;
        if let Some(changed) = self.moved.push(moved, read, was_open, now, watch) {
            self.put_back(changed);
        }
    }

    fn check_folders_of(&self, file: &Candidate) -> std::io::Result<()> {
        let mut dir = self.inbox.dir.join(file.home.dataset.as_str());
        check_folder(&dir)?;
        if file.home.full {
            dir.push("full");
            check_folder(&dir)?;
        }
        for part in file.home.sub.components() {
            dir.push(part);
            check_folder(&dir)?;
        }
        Ok(())
    }

    fn wait_with(&mut self, file: &Candidate, ended: Option<Ended>, now: Instant) {
        if let Some(seen) = self.files.get_mut(&file.path) {
            seen.wait = Some(Wait::after(seen.wait, now));
            seen.ended = ended;
        }
    }
}

fn not_a_file() -> [String; 2] {
    [
        "这不是普通文件（例如是符号链接），不会被读取；请放入文件本身".into(),
        "this is no regular file (a symbolic link, for example) and is not read: put the file itself here"
            .into(),
    ]
}

fn without_its_file() -> [String; 2] {
    [
        "这是“已传完”的标记，但旁边没有它所指的文件；请放入该文件，或删除标记".into(),
        "this marks a file as complete that does not lie beside it: put the file here, or delete the mark"
            .into(),
    ]
}

fn remove_if_there(path: &Path) {
    // Hidden, bounded in number and cleared at the next start.
    let _ = fs::remove_file(path);
}

fn name_of(file: &Candidate) -> String {
    shown(&file.home.name.to_string_lossy())
}
