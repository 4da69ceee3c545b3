//! Deliveries that wait for a person, one directory each.
//!
//! `DIR/ID/data` is a copy of what was delivered, `DIR/ID/delivery.json` says what
//! it is and why it waits. Used by `deliver` and by `creditsync delivery`.
//!
//! At most one full delivery of a dataset waits, the newest: a full file says what
//! the whole partition is, so a newer one makes an older one untrue, whether
//! the newer one is held as well or goes in at once. Otherwise somebody who
//! works through the list would approve Monday's broken file after Tuesday's
//! good one. What is approved is the copy, under an id that never names another
//! file; nothing that happens to the original matters any more.
//!
//! Invariant: what is listed is whole and durable. A directory is written under
//! a hidden name and renamed, and renamed before it is removed. Not here: when
//! a delivery is held (`apply`).

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard},
    time::SystemTime,
};

use protocol::id::DatasetId;
use serde::{Deserialize, Serialize};

use super::{
    history::{History, UndoLimits, describe, event::Event},
    hold::{HeldNote, Hold, HoldReason},
    report::ImportReport,
    stamp::utc,
    temporary::TemporaryFiles,
    words::{Author, DeliveryError, ImportRequest},
};

/// The version of `delivery.json`.
const VERSION: u32 = 3;
/// Where the history of deliveries lies; no id has a '_'.
const HISTORY: &str = "_log";
const DATA: &str = "data";
const DESCRIPTION: &str = "delivery.json";
/// Upserts of a dataset that wait at most. Each is a copy of a file, and who lets
/// more wait than that looks at none of them.
const UPSERTS_MAX: usize = 50;
/// In front of directories that are being written or removed.
const HIDDEN: &str = ".";

/// A delivery that waits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Held {
    /// The name of its directory: dataset, time, number.
    pub id: String,
    /// The dataset.
    pub dataset: DatasetId,
    /// The delivered file's name, without its directory.
    pub file: String,
    /// Whether it is the whole partition.
    pub full: bool,
    /// How it is read, as its source says it.
    pub settings: serde_json::Value,
    /// Why it waits: the most serious rule.
    pub reason: HoldReason,
    /// The same for people, in Chinese and English.
    pub explanation: String,
    /// All rules that apply, as the report says them.
    pub held: HeldNote,
    /// When it was held, RFC 3339 in UTC.
    pub received: String,
    /// What it would have done then. Its `seq` is the partition's number at
    /// that time: where the partition has gone on since, approving also undoes
    /// what it gained.
    pub would: ImportReport,
}

/// `delivery.json`.
#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    #[serde(flatten)]
    held: Held,
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> DeliveryError + use<> {
    let path = path.display().to_string();
    move |source| DeliveryError::Io { path, source }
}

/// The held deliveries of a node.
#[derive(Debug)]
pub struct Deliveries {
    dir: PathBuf,
    /// Held while directories come and go.
    changing: Mutex<()>,
    history: History,
}

impl Deliveries {
    /// The deliveries in `dir`, which is made when it is needed.
    pub fn new(dir: PathBuf, limits: UndoLimits) -> Self {
        let history = History::new(dir.join(HISTORY), limits);
        Self { dir, changing: Mutex::default(), history }
    }

    /// All that was delivered, and what takes it back.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// The id under which a request goes: that of the delivery that it approves,
    /// or one that no other has.
    pub(super) fn id_for(&self, request: &ImportRequest) -> String {
        match &request.approved {
            Some(approval) => approval.id.clone(),
            None => self.new_id(&request.dataset),
        }
    }

    /// An id that no other delivery has.
    pub(super) fn new_id(&self, dataset: &DatasetId) -> String {
        let now = time::OffsetDateTime::now_utc();
        self.history.new_id(dataset, now, |id| self.dir.join(id).exists())
    }

    /// All deliveries that wait, the oldest first. One whose description cannot
    /// be read is logged and left out, so that it does not hide the others.
    pub fn list(&self) -> Result<Vec<Held>, DeliveryError> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(&self.dir)(error)),
        };
        let mut list = Vec::new();
        for entry in entries {
            let name = entry.map_err(failed(&self.dir))?.file_name();
            let Some(id) = name.to_str().filter(|name| is_id(name)) else {
                continue;
            };
            match self.get(id) {
                Ok(held) => list.extend(held),
                Err(error) => tracing::warn!(%error, "a held delivery cannot be read"),
            }
        }
        list.sort_by(|a, b| (&a.received, &a.id).cmp(&(&b.received, &b.id)));
        Ok(list)
    }

    /// One delivery.
    ///
    /// # Errors
    /// If `id` could not be one, for it may come from a stranger and becomes
    /// part of a path.
    pub fn get(&self, id: &str) -> Result<Option<Held>, DeliveryError> {
        let path = self.path_of(id)?.join(DESCRIPTION);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(&path)(error)),
        };
        let malformed = |problem: String| DeliveryError::Malformed {
            path: path.display().to_string(),
            problem,
        };
        let Stored { version, held } =
            serde_json::from_slice(&text).map_err(|error| malformed(error.to_string()))?;
        if version != VERSION {
            return Err(malformed(format!(
                "unknown version {version}: install a newer creditsync"
            )));
        }
        if held.id != id {
            return Err(malformed(format!("it describes {}", held.id)));
        }
        Ok(Some(held))
    }

    /// Whether a delivery of this id waits.
    pub fn is_waiting(&self, id: &str) -> bool {
        self.path_of(id).is_ok_and(|path| path.exists())
    }

    /// Keeps a copy of what was delivered until somebody decides, in place of an
    /// older one of the same dataset if it is the whole partition. Durable when
    /// this answers.
    pub(super) fn hold(
        &self,
        request: &ImportRequest,
        id: String,
        holds: &[Hold],
        would: &ImportReport,
        room: &TemporaryFiles,
    ) -> Result<Held, DeliveryError> {
        let (Some(first), Some(note)) = (holds.first(), HeldNote::new(&id, holds)) else {
            return Err(DeliveryError::Malformed {
                path: id,
                problem: "没有暂缓的理由 / there is no reason to hold it".into(),
            });
        };
        let _changing = self.lock();
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(&self.dir).map_err(failed(&self.dir))?;
        self.clear_hidden();
        let older = if request.full {
            self.waiting(&request.dataset)?
        } else {
            self.check_upserts(&request.dataset)?;
            Vec::new()
        };
        let held = Held {
            dataset: request.dataset.clone(),
            file: request.source.name().to_owned(),
            full: request.full,
            settings: request.source.settings(),
            reason: first.reason.clone(),
            explanation: first.reason.to_string(),
            received: utc(SystemTime::now()),
            would: ImportReport { held: Some(Box::new(note.clone())), ..would.clone() },
            held: note.clone(),
            id,
        };
        self.write(request, &held, room)?;
        self.history.note(&held.id, Event::Held { what: describe(request), held: note });
        for id in older {
            tracing::info!(dataset = %held.dataset, delivery = id, newer = held.id, "a held delivery is superseded");
            self.remove_locked(&id)?;
            let event = Event::Discarded { author: None, newer: Some(held.id.clone()) };
            self.history.note(&id, event);
        }
        Ok(held)
    }

    fn write(
        &self,
        request: &ImportRequest,
        held: &Held,
        room: &TemporaryFiles,
    ) -> Result<(), DeliveryError> {
        let temporary = self.dir.join(format!("{HIDDEN}{}", held.id));
        fs::DirBuilder::new().mode(0o700).create(&temporary).map_err(failed(&temporary))?;
        let data = temporary.join(DATA);
        let mut out = room.guard(create(&data)?);
        request.source.copy_to(&mut out)?;
        out.into_inner().sync_all().map_err(failed(&data))?;

        let description = temporary.join(DESCRIPTION);
        let stored = Stored { version: VERSION, held: held.clone() };
        let mut text =
            serde_json::to_vec_pretty(&stored).map_err(|error| DeliveryError::Malformed {
                path: description.display().to_string(),
                problem: error.to_string(),
            })?;
        text.push(b'\n');
        let mut out = create(&description)?;
        out.write_all(&text).and_then(|()| out.sync_all()).map_err(failed(&description))?;

        sync(&temporary)?;
        let path = self.dir.join(&held.id);
        fs::rename(&temporary, &path).map_err(failed(&path))?;
        sync(&self.dir)
    }

    /// The copy of the delivered file.
    pub fn data_path(&self, held: &Held) -> PathBuf {
        self.dir.join(&held.id).join(DATA)
    }

    /// Forgets a delivery. One that is gone already is no error: it may have
    /// been superseded meanwhile.
    pub fn remove(&self, id: &str) -> Result<(), DeliveryError> {
        let _changing = self.lock();
        self.remove_locked(id)
    }

    /// Forgets a delivery that somebody does not want; the log keeps who.
    pub fn discard(&self, id: &str, author: Author) -> Result<(), DeliveryError> {
        self.remove(id)?;
        self.history.note(id, Event::Discarded { author: Some(author), newer: None });
        Ok(())
    }

    /// Forgets a delivery in whose place a newer one went in.
    pub(super) fn settle(&self, id: &str, newer: &str) -> Result<(), DeliveryError> {
        self.remove(id)?;
        if newer != id {
            let event = Event::Discarded { author: None, newer: Some(newer.to_owned()) };
            self.history.note(id, event);
        }
        Ok(())
    }

    fn remove_locked(&self, id: &str) -> Result<(), DeliveryError> {
        let path = self.path_of(id)?;
        // Half a directory must not be listed.
        let hidden = self.dir.join(format!("{HIDDEN}removed-{id}"));
        match fs::rename(&path, &hidden) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed(&path)(error)),
        }
        sync(&self.dir)?;
        fs::remove_dir_all(&hidden).map_err(failed(&hidden))
    }

    /// Removes what a crash left behind. A failure shows again when it matters.
    fn clear_hidden(&self) {
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            if entry.file_name().as_encoded_bytes().starts_with(HIDDEN.as_bytes()) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }

    /// Ids of the full deliveries of a dataset: a newer one makes them untrue. Of
    /// rows that are added that cannot be said.
    pub(super) fn waiting(&self, dataset: &DatasetId) -> Result<Vec<String>, DeliveryError> {
        let list = self.list()?.into_iter().filter(|held| held.full && held.dataset == *dataset);
        Ok(list.map(|held| held.id).collect())
    }

    /// Refuses another upsert where enough of them wait.
    fn check_upserts(&self, dataset: &DatasetId) -> Result<(), DeliveryError> {
        let list = self.list()?.into_iter();
        let count = list.filter(|held| !held.full && held.dataset == *dataset).count();
        let dataset = dataset.clone();
        if count < UPSERTS_MAX { Ok(()) } else { Err(DeliveryError::TooMany { dataset, count }) }
    }

    fn path_of(&self, id: &str) -> Result<PathBuf, DeliveryError> {
        if is_id(id) { Ok(self.dir.join(id)) } else { Err(DeliveryError::Id(id.to_owned())) }
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        // It guards no data of its own: a panic leaves at most a hidden
        // directory, which the next delivery clears.
        self.changing.lock().unwrap_or_else(|error| error.into_inner())
    }
}

/// What datasets' names and times are made of; above all no '/' and no '.'.
fn is_id(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && text.len() <= 128 && text.bytes().all(allowed)
}

fn create(path: &Path) -> Result<File, DeliveryError> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600).open(path).map_err(failed(path))
}

fn sync(dir: &Path) -> Result<(), DeliveryError> {
    files::sync_directory(dir).map_err(failed(dir))
}
