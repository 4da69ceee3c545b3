//! Takes one file: imports it, and does what it comes to.
//!
//! Used by the watcher for each file that is ready. Invariant: whose fault an error
//! is decides where the file goes: its own leads to `failed/`, every other leaves
//! it where it is. Not here: when a file is ready (`settle`).

use std::{
    fs,
    hash::{BuildHasher as _, RandomState},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use protocol::suite::checksum::Checksum;
use store::StoreError;

use super::{Candidate, Now, Watcher};
use crate::{
    ingest::{
        ImportError, ImportRequest,
        deliver::import_or_hold,
        report::{ImportReport, Note},
        source::SourceError,
        spool::SpoolError,
        words::DeliveryError,
    },
    sources::{
        error::FileError,
        file::{DeliveredFile, shown},
        inbox::{
            events::Mark,
            folders::check_folder,
            moved::{Home, is_refused},
            names::{REJECTS_SUFFIX, UNFINISHED},
            report::Ended,
            retry::Wait,
            settle::{Incomplete, Look},
            words,
        },
    },
};

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
        | ImportError::OtherDataset { .. }
        | ImportError::SecondHeader { .. }
        | ImportError::Spool(SpoolError::TooLong { .. })
        | ImportError::Store(StoreError::Changes { .. } | StoreError::Excess(_)) => Fault::Content,
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
    /// Imports a file and moves it, unless something has to be waited for.
    pub(super) fn take(&mut self, file: &Candidate, time: Now) {
        let now = time.now;
        let Some(seen) = self.files.get_mut(&file.path) else {
            return;
        };
        if seen.wait.is_some_and(|wait| wait.until > now) {
            self.strays.keep(&file.path);
            self.strays.keep(folder_of(&file.path));
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
            self.strays.keep(&file.path);
            return;
        }
        // An import before this one may have taken long.
        if self.check_folders_of(file).is_err() || Look::of(&file.path) != Some(file.look) {
            return;
        }
        // Nobody who may write here can foresee the name and lay something there.
        let number = RandomState::new().hash_one(&file.path);
        let rejects = dir.join(format!("{UNFINISHED}{number:x}{REJECTS_SUFFIX}"));
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
                let why = words::unreadable(&error);
                self.strays.tell(&file.path, why);
                self.wait_with(file, None, now);
            }
            Fault::Node => {
                let what = "files of the inbox wait: nothing can be imported now";
                self.strays.warn_once(&dir, what, Some(&error));
                let earlier = self.waits.get(&dataset).copied();
                // What passes within a second nobody has to be told of.
                if earlier.is_some() {
                    self.strays.tell(&file.path, words::waits_for(&error));
                }
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
        let name = name_of(file);
        let opened = self.mover.open(&file.home).map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => FileError::Permission { path: name.clone() },
            io::ErrorKind::NotFound => FileError::NotFound { path: name.clone() },
            // A link, or below a folder that is one by now.
            _ => FileError::NotAFile { path: name.clone() },
        });
        let opened = opened.and_then(|opened| DeliveredFile::new(name.clone(), opened, reading));
        let source = match opened {
            Ok(source) => source.read_for(&self.inbox.importer),
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
                if let Ended::Read { report, .. } = &ended
                    && let Some(held) = &report.held
                {
                    self.decided.add(held.id.clone(), path.clone());
                }
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
                    let name = name_of(file);
                    let why = words::cannot_be_moved(&name, &error);
                    // Beside the folder: nothing can be written into it.
                    self.strays.tell(folder_of(&file.path), why);
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
        read: (Look, Checksum),
        was_open: bool,
        now: Instant,
    ) {
        let watch = self.inbox.incomplete;
        if let Some(changed) = self.moved.push(moved, read, was_open, now, watch) {
            self.put_back(changed);
        }
    }

    fn check_folders_of(&self, file: &Candidate) -> io::Result<()> {
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

fn folder_of(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

fn remove_if_there(path: &Path) {
    // Hidden, bounded in number and cleared at the next start.
    let _ = fs::remove_file(path);
}

fn name_of(file: &Candidate) -> String {
    shown(&file.home.name.to_string_lossy())
}
