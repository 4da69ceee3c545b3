//! Full deliveries that wait for a person, one directory each.
//!
//! `DIR/ID/data.csv` is a copy of the file, `DIR/ID/delivery.json` says what it
//! is and why it waits. Used by whoever imports files ([`import_or_hold`]) and
//! by `creditsync delivery`.
//!
//! At most one delivery of a dataset waits, the newest: a full file says what
//! the whole partition is, so a newer one makes an older one untrue, whether
//! the newer one is held as well or goes in at once. Otherwise somebody who
//! works through the list would approve Monday's broken file after Tuesday's
//! good one. What is approved is the copy, under an id that never names another
//! file; nothing that happens to the original matters any more.
//!
//! Invariant: what is listed is whole and durable. A directory is written under
//! a hidden name and renamed, and renamed before it is removed. Not here: when
//! a delivery is held (`import`).

use std::{
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard},
};

use protocol::id::DatasetId;
use serde::{Deserialize, Serialize};

use super::{
    decode::{Encoding, FileError, Links, open_regular},
    import::{HoldReason, ImportError, ImportRequest, Importer, Outcome, Progress, stamp},
    report::ImportReport,
};

/// The version of `delivery.json`.
const VERSION: u32 = 1;
const DATA: &str = "data.csv";
const DESCRIPTION: &str = "delivery.json";
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
    /// Whether it is the whole partition; nothing else is held so far.
    pub full: bool,
    /// How its bytes are read.
    pub encoding: Encoding,
    /// Why it waits.
    pub reason: HoldReason,
    /// The same for people, in English and Chinese.
    pub explanation: String,
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

/// Why held deliveries could not be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// A text that names no delivery.
    #[error(
        "'{0}' 不是交付编号 / '{0}' is not the id of a delivery; 'creditsync delivery list' shows them"
    )]
    Id(String),
    /// The file is not the one that was judged.
    #[error(
        "{path} 在读取过程中被修改，请重新交付 / {path} changed while it was read: deliver it again"
    )]
    Changed {
        /// The delivered file.
        path: String,
    },
    /// A description that this build cannot read.
    #[error("{path}: {problem}")]
    Malformed {
        /// The description.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The file system.
    #[error("{path}: {source}")]
    Io {
        /// The file or directory.
        path: String,
        /// What the system said.
        source: io::Error,
    },
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
}

impl Deliveries {
    /// The deliveries in `dir`, which is made when it is needed.
    pub fn new(dir: PathBuf) -> Self {
        Self { dir, changing: Mutex::default() }
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

    /// Keeps a copy of the request's file until somebody decides, in place of
    /// an older one of the same dataset. Durable when this answers.
    pub fn hold(
        &self,
        request: &ImportRequest,
        reason: &HoldReason,
        would: &ImportReport,
    ) -> Result<Held, DeliveryError> {
        let judged = FileState::of(&request.path, Links::Follow);
        self.hold_judged(request, Links::Follow, reason, would, judged)
    }

    /// As [`Deliveries::hold`]; the file must still be the one that was judged.
    fn hold_judged(
        &self,
        request: &ImportRequest,
        links: Links,
        reason: &HoldReason,
        would: &ImportReport,
        judged: Option<FileState>,
    ) -> Result<Held, DeliveryError> {
        let _changing = self.lock();
        let now = time::OffsetDateTime::now_utc();
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(&self.dir).map_err(failed(&self.dir))?;
        self.clear_hidden();
        let older = self.waiting(&request.dataset)?;

        let stem = format!("{}-{}", request.dataset, stamp(now));
        let id = (1..)
            .map(|number| format!("{stem}-{number}"))
            .find(|id| !self.dir.join(id).exists())
            .unwrap_or(stem);
        let held = Held {
            dataset: request.dataset.clone(),
            file: file_name(&request.path),
            full: request.full,
            encoding: request.encoding,
            reason: reason.clone(),
            explanation: reason.to_string(),
            received: rfc3339(now),
            would: ImportReport { held: Some(id.clone()), ..would.clone() },
            id,
        };
        self.write(request, links, &held, judged)?;
        for id in older {
            tracing::info!(dataset = %held.dataset, delivery = id, newer = held.id, "a held delivery is superseded");
            self.remove_locked(&id)?;
        }
        Ok(held)
    }

    fn write(
        &self,
        request: &ImportRequest,
        links: Links,
        held: &Held,
        judged: Option<FileState>,
    ) -> Result<(), DeliveryError> {
        let temporary = self.dir.join(format!("{HIDDEN}{}", held.id));
        fs::DirBuilder::new().mode(0o700).create(&temporary).map_err(failed(&temporary))?;
        let data = temporary.join(DATA);
        let mut out = create(&data)?;
        let changed = || DeliveryError::Changed { path: request.path.display().to_string() };
        let mut input = open_regular(&request.path, links).map_err(|error| match error {
            FileError::Io { path, source } => DeliveryError::Io { path, source },
            // It could be read a moment ago.
            _ => changed(),
        })?;
        io::copy(&mut input, &mut out).and_then(|_| out.sync_all()).map_err(failed(&data))?;
        // Of what was copied, whatever lies at the path by now.
        if input.metadata().ok().map(|data| FileState::from(&data)) != judged {
            return Err(changed());
        }

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

    /// What imports a held delivery after all.
    pub fn request(&self, held: &Held, rejects: PathBuf) -> ImportRequest {
        ImportRequest {
            dataset: held.dataset.clone(),
            path: self.data_path(held),
            full: held.full,
            encoding: held.encoding,
            approved: true,
            rejects,
        }
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

    /// Ids of the deliveries of a dataset.
    fn waiting(&self, dataset: &DatasetId) -> Result<Vec<String>, DeliveryError> {
        let list = self.list()?.into_iter();
        Ok(list.filter(|held| held.dataset == *dataset).map(|held| held.id).collect())
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
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed(dir))
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(OsStr::new("")).to_string_lossy().into_owned()
}

fn rfc3339(now: time::OffsetDateTime) -> String {
    let second = now.replace_nanosecond(0).unwrap_or(now);
    second.format(&time::format_description::well_known::Rfc3339).unwrap_or_default()
}

/// Imports a file, or keeps it until somebody decides; the report then has its
/// id in `held`, and nothing was changed. Blocks.
///
/// A full file that goes in makes held ones of its dataset, that were there
/// before it was read, untrue: they are forgotten, the approved one among them.
pub fn import_or_hold(
    importer: &Importer,
    deliveries: &Deliveries,
    request: &ImportRequest,
    progress: &dyn Fn(Progress),
) -> Result<ImportReport, ImportError> {
    import_or_hold_with(importer, deliveries, request, Links::Follow, progress)
}

/// As [`import_or_hold`], where links may have to be refused.
pub(super) fn import_or_hold_with(
    importer: &Importer,
    deliveries: &Deliveries,
    request: &ImportRequest,
    links: Links,
    progress: &dyn Fn(Progress),
) -> Result<ImportReport, ImportError> {
    let waiting = if request.full { deliveries.waiting(&request.dataset)? } else { Vec::new() };
    let before = FileState::of(&request.path, links);
    let settle = || {
        for id in &waiting {
            // The import is done and durable; the list can be mended by hand.
            match deliveries.remove(id) {
                Ok(()) => {
                    tracing::info!(dataset = %request.dataset, delivery = id, "a held delivery is settled")
                }
                Err(error) => {
                    tracing::warn!(%error, delivery = id, "a held delivery is out of date and cannot be removed")
                }
            }
        }
    };
    match importer.import_unless_held(request, links, progress, &settle)? {
        Outcome::Imported(report) => Ok(report),
        Outcome::Held { reason, would } => {
            let held = deliveries.hold_judged(request, links, &reason, &would, before)?;
            Ok(ImportReport::held(&would, held.id))
        }
    }
}

/// What changes when a file's content does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileState {
    device: u64,
    number: u64,
    pub(super) bytes: u64,
    /// Seconds and nanoseconds.
    pub(super) modified: (i64, i64),
}

impl FileState {
    /// None where there is nothing, or nothing that can be looked at.
    pub(super) fn of(path: &Path, links: Links) -> Option<Self> {
        let data = match links {
            Links::Follow => fs::metadata(path),
            Links::Refuse => fs::symlink_metadata(path),
        };
        data.ok().map(|data| Self::from(&data))
    }
}

impl From<&fs::Metadata> for FileState {
    fn from(data: &fs::Metadata) -> Self {
        Self {
            device: data.dev(),
            number: data.ino(),
            bytes: data.len(),
            modified: (data.mtime(), data.mtime_nsec()),
        }
    }
}
