//! Looks at the folders, takes what is ready, and does what it comes to.
//!
//! Used by `watch`, which calls [`Watcher::pass`] every second, and by tests, which
//! give the time. Invariants: files of a dataset are taken in the order of their
//! last change; a file that was dealt with is imported again only if its content
//! is another one. Not here: what is done with a file that is ready ([`take`]),
//! folders, names, and what people are told (`words`).

mod take;

use std::{
    collections::{HashMap, HashSet},
    ffi::OsString,
    fs,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use protocol::{id::DatasetId, schema::Schema};
use tokio_util::sync::CancellationToken;

use super::{
    Inbox,
    decided::Decided,
    events::{Events, Mark},
    folders::{Folder, OUTCOMES, check_folder, entries, make_folder, walk},
    moved::{Home, Moved, MovedFile, Mover},
    names::{UNFINISHED, has_unfinished_ending, is_report, is_unfinished, marked},
    report::Ended,
    retry::Wait,
    settle::{Incomplete, Look, Patience, Verdict, has_end, judge},
    strays::Strays,
    words,
};

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
    decided: Decided,
    /// Files that lie in the folders.
    files: HashMap<PathBuf, Seen>,
    /// Of each dataset, the oldest file that is not ready yet: newer ones would be
    /// overtaken by it.
    unready: HashMap<DatasetId, Unready>,
    /// Files that were moved away a while ago.
    moved: Moved,
    /// Files that were put back, and how often.
    again: HashMap<PathBuf, u32>,
    /// Datasets into which nothing can be imported for now.
    waits: HashMap<DatasetId, Wait>,
    /// Datasets whose folders were looked at before.
    known: HashSet<DatasetId>,
}

/// A file that others wait behind.
struct Unready {
    /// When it changed last.
    modified: (i64, i64),
    name: OsString,
    /// It is not known when it will be complete.
    waited_for: bool,
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

impl Watcher {
    pub(in crate::sources) fn new(inbox: Inbox, stop: CancellationToken) -> Self {
        Self {
            mover: Mover { dir: inbox.dir.clone(), access: inbox.access },
            strays: Strays::new(inbox.dir.clone(), inbox.access),
            decided: Decided::new(inbox.dir.clone(), inbox.access),
            events: Events::new(),
            inbox,
            stop,
            files: HashMap::new(),
            unready: HashMap::new(),
            moved: Moved::default(),
            again: HashMap::new(),
            waits: HashMap::new(),
            known: HashSet::new(),
        }
    }

    /// Looks at the folders once and imports what is ready.
    pub(in crate::sources) fn pass(&mut self, now: Instant, wall: SystemTime) {
        let time = Now { now, wall };
        let first = self.strays.begin();
        let (datasets, titles) = match self.inbox.membership.current() {
            Ok(registry) => registry.datasets().map(named).unzip(),
            Err(error) => {
                let dir = self.inbox.dir.clone();
                let what = "the inbox waits: the catalogue cannot be read";
                self.strays.warn_once(&dir, what, Some(&error));
                return;
            }
        };
        let (datasets, titles): (Vec<DatasetId>, Vec<String>) = (datasets, titles);
        for dataset in &datasets {
            self.prepare(dataset);
        }
        if first {
            datasets.iter().for_each(|dataset| self.decided.find(dataset));
        }
        self.decided.look(&self.inbox.deliveries);
        self.put_changed_back(now);
        self.tell_of_strays(&datasets, &titles.join("、"));
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
            let oldest = self.unready.get(&candidate.home.dataset);
            if let Some(oldest) = oldest.filter(|one| one.modified < candidate.look.state.modified)
            {
                if oldest.waited_for {
                    let why = words::waits_behind(&oldest.name, self.inbox.incomplete);
                    self.strays.tell(&candidate.path, why);
                }
                continue;
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
    fn tell_of_strays(&mut self, datasets: &[DatasetId], list_zh: &str) {
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
            let why = if is_folder {
                words::no_dataset(list_zh, &list)
            } else {
                words::beside_folders(list_zh, &list)
            };
            self.strays.tell(&entry.path(), why);
        }
    }

    /// Notes what lies in the folders; answers what is ready.
    fn scan(&mut self, datasets: &[DatasetId], time: Now, first: bool) -> Vec<Candidate> {
        let mut earlier = std::mem::take(&mut self.files);
        self.unready.clear();
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
                let walk = walk(&root, full);
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
        home: &dyn Fn(OsString) -> Home,
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
            let age = wall.duration_since((self.inbox.touched)(&data)).ok();
            let is_old = age.is_some_and(|age| age >= self.inbox.incomplete);
            if data.is_file() && is_old && has_unfinished_ending(&name) {
                self.strays.tell(&path, words::never_renamed());
            }
            if data.is_dir() || is_unfinished(&name) || is_report(&name) {
                continue;
            }
            if !data.is_file() {
                let is_outcome = OUTCOMES.iter().any(|outcome| name == *outcome);
                if !is_outcome && name != "full" {
                    self.strays.tell(&path, words::not_a_file());
                }
                continue;
            }
            if data.len() <= MARKER_BYTES_MAX
                && let Some(about) = marked(&name)
                && (data.len() == 0
                    || Path::new(about).extension().is_some()
                    || folder.path.join(about).exists())
            {
                if is_old && !folder.path.join(about).exists() {
                    self.strays.tell(&path, words::without_its_file());
                }
                continue;
            }
            let look = Look::from(&data);
            let mut seen = match earlier.remove(&path) {
                Some(seen) if seen.look == look => seen,
                first => {
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
            if !matches!(verdict, Verdict::Take(_)) {
                let unready = Unready {
                    modified: look.state.modified,
                    name: home.name.clone(),
                    waited_for: matches!(verdict, Verdict::Waiting(_)),
                };
                let known = self.unready.get(&home.dataset);
                if known.is_none_or(|known| unready.modified < known.modified) {
                    self.unready.insert(home.dataset.clone(), unready);
                }
            }
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
}

/// A dataset, and how people know it.
fn named(schema: &Schema) -> (DatasetId, String) {
    let dataset = schema.dataset().clone();
    let title = &schema.raw().title_zh;
    let named = format!("{dataset}（{title}）");
    (dataset, named)
}
