//! A backup made of a node at work.
//!
//! The order of what is read makes it one state: keys first, and again at the end, where
//! they have to be the same; the log of deliveries before the partitions that it speaks
//! of; each partition at one moment; and `certs/` with `_federation` at the end, so that it
//! is at least as new as what all others name. Each partition is judged while it is
//! written, as whoever reads the backup will: one that is damaged is left out, and that
//! is told, rather than found on the day when it is needed. Stopped anywhere, it leaves
//! nothing that counts as a backup.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read as _, Write},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use certs::keyfile::Passphrase;
use protocol::{encoding::Writer, id::PartitionId, suite::Suite};
use serde::Serialize;
use store::{Check, Copying, Piece, Store, StoreError};

use super::{
    frame::{FrameWriter, Kind},
    keys::{self, KeyFiles},
    output::KeptOpen,
    tree::{self, CONFIG, Files},
    words::{BackupError, Copied, FileEntry, Keys, LeftOut, Manifest, PartitionEntry, Totals},
};

/// Bytes of a frame, unpacked: what compresses well, and is soon written.
const FRAME_BYTES: usize = 1024 * 1024;
/// Bytes of all files that are read at once to be of one moment: those of `certs/` have
/// some KiB each.
const LAST_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// How often a partition that was signed anew meanwhile, or files that have changed, are
/// read again: both happen a few times a year.
const ATTEMPTS: usize = 5;

/// What a directory has.
pub struct Plan {
    files: Files,
    keys: KeyFiles,
}

impl Plan {
    /// Looks at a node's directory, whose configuration names these public and private
    /// files.
    pub fn of(dir: &Path, public: &[PathBuf], private: &[PathBuf]) -> Result<Self, BackupError> {
        let files = tree::files(dir, public, private)?;
        let keys = keys::look(dir, &files.keys)?;
        Ok(Self { files, keys })
    }

    /// Its keys.
    pub fn keys(&self) -> &KeyFiles {
        &self.keys
    }

    /// What the configuration names outside of the directory.
    pub fn outside(&self) -> &[String] {
        &self.files.outside
    }
}

/// What is saved.
pub struct Node<'a> {
    /// Its directory.
    pub dir: &'a Path,
    /// Its store.
    pub store: &'a Store,
    /// Where its members are.
    pub federation: &'a PartitionId,
    /// Its federation's suite.
    pub suite: Suite,
}

/// What was saved.
#[derive(Debug)]
pub struct Saved {
    /// How much of what.
    pub totals: Totals,
    /// Partitions that are not in, and why.
    pub left_out: Vec<LeftOut>,
    /// Bytes of the backup.
    pub bytes: u64,
}

/// Writes a backup to `out`; says to `heed` how far it has come, which may refuse to go
/// on. Blocks.
pub fn save<W: Write>(
    node: &Node<'_>,
    (plan, manifest, passphrase): (Plan, &Manifest, Option<&Passphrase>),
    (out, kept_open): (W, &KeptOpen),
    heed: &dyn Fn(Copied) -> bool,
) -> Result<Saved, BackupError> {
    let signer = node.store.signer_id();
    let heads = node.store.heads();
    let records_total = heads.values().map(|head| head.summary.records).sum();
    let mut saving = Saving {
        node,
        out: FrameWriter::new(out)?,
        kept_open,
        heed,
        copied: Copied { records_total, ..Copied::default() },
        totals: Totals::default(),
        left_out: BTreeMap::new(),
    };
    saving.json(Kind::Manifest, manifest)?;
    saving.file(CONFIG)?;
    match (manifest.keys, passphrase) {
        (Keys::LeftOut, _) => {}
        (Keys::AsTheyAre, _) => {
            for (path, bytes) in plan.keys.files() {
                saving.bytes_as_file(&FileEntry { path: path.to_owned(), private: true }, bytes)?;
            }
        }
        (Keys::Sealed, Some(passphrase)) => {
            saving.out.put(Kind::Keys, plan.keys.seal(passphrase)?.as_bytes())?;
        }
        (Keys::Sealed, None) => return Err(BackupError::PassphraseMissing),
    }
    for path in &plan.files.first {
        saving.file(path)?;
    }
    for partition in node.store.copied_partitions() {
        if partition != *node.federation {
            saving.partition(&partition)?;
        }
    }
    let (files, federation) = of_one_moment(node, &plan)?;
    for (entry, bytes) in &files {
        saving.bytes_as_file(entry, bytes)?;
    }
    match saving.copy(node.federation, federation) {
        Err(BackupError::Store(StoreError::Overtaken(_))) => return Err(BackupError::Changed),
        copied => copied?,
    }
    // What the old key has signed above its last number would be nobody's any more.
    let keys = keys::look(node.dir, &plan.files.keys)?;
    if node.store.signer_id() != signer || !keys.are_the_same(&plan.keys) {
        return Err(BackupError::Changed);
    }
    saving.finish()
}

/// Files with their content.
type Contents = Vec<(FileEntry, Vec<u8>)>;

/// The files that belong to `_federation`, and that partition, as they are at one moment.
fn of_one_moment(node: &Node<'_>, plan: &Plan) -> Result<(Contents, Copying), BackupError> {
    let mut files = contents(node.dir, &plan.files.last)?;
    for _ in 0..ATTEMPTS {
        let copying = node.store.begin_copy(node.federation)?;
        let copying = copying.ok_or_else(|| {
            BackupError::Content("this node has no list of members yet: let it join first".into())
        })?;
        let again = contents(node.dir, &plan.files.last)?;
        if again == files {
            return Ok((files, copying));
        }
        files = again;
    }
    Err(BackupError::Changed)
}

fn contents(dir: &Path, paths: &[String]) -> Result<Contents, BackupError> {
    let (mut files, mut left) = (Vec::new(), LAST_BYTES_MAX);
    for path in paths {
        let Some((file, entry)) = open(dir, path)? else { continue };
        let mut bytes = Vec::new();
        let read = file.take(left + 1).read_to_end(&mut bytes);
        let read = read.map_err(BackupError::file(&dir.join(path)))? as u64;
        left = left.checked_sub(read).ok_or_else(|| BackupError::File {
            path: path.clone(),
            source: io::Error::other("the files of certs/ are longer than 256 MiB together"),
        })?;
        files.push((entry, bytes));
    }
    Ok(files)
}

/// A file of the directory; none if it is gone, or no file.
fn open(dir: &Path, path: &str) -> Result<Option<(File, FileEntry)>, BackupError> {
    let full = dir.join(path);
    let file = match File::open(&full) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(BackupError::file(&full))?,
    };
    let metadata = file.metadata().map_err(BackupError::file(&full))?;
    let private = metadata.permissions().mode() & 0o077 == 0;
    Ok(metadata.is_file().then(|| (file, FileEntry { path: path.to_owned(), private })))
}

struct Saving<'a, W> {
    node: &'a Node<'a>,
    out: FrameWriter<W>,
    kept_open: &'a KeptOpen,
    heed: &'a dyn Fn(Copied) -> bool,
    copied: Copied,
    totals: Totals,
    left_out: BTreeMap<String, String>,
}

impl<W: Write> Saving<'_, W> {
    fn put(&mut self, kind: Kind, raw: &[u8]) -> Result<(), BackupError> {
        self.out.put(kind, raw)?;
        self.copied.bytes = self.out.bytes();
        if (self.heed)(self.copied) { Ok(()) } else { Err(BackupError::Stopped) }
    }

    fn json(&mut self, kind: Kind, value: &impl Serialize) -> Result<(), BackupError> {
        let text = serde_json::to_vec(value).map_err(io::Error::other)?;
        self.put(kind, &text)
    }

    /// A file of the directory, if it is there; in pieces, up to the end that it has now.
    fn file(&mut self, path: &str) -> Result<(), BackupError> {
        let full = self.node.dir.join(path);
        let Some((file, entry)) = open(self.node.dir, path)? else {
            return Ok(());
        };
        self.json(Kind::File, &entry)?;
        let length = file.metadata().map_err(BackupError::file(&full))?.len();
        // It may grow while it is read.
        let mut file = file.take(length);
        loop {
            let mut piece = Vec::with_capacity(FRAME_BYTES);
            let read = (&mut file).take(FRAME_BYTES as u64).read_to_end(&mut piece);
            if read.map_err(BackupError::file(&full))? == 0 {
                break;
            }
            self.put(Kind::Data, &piece)?;
        }
        self.totals.files += 1;
        self.put(Kind::FileEnd, &[])
    }

    fn bytes_as_file(&mut self, entry: &FileEntry, bytes: &[u8]) -> Result<(), BackupError> {
        self.json(Kind::File, entry)?;
        for piece in bytes.chunks(FRAME_BYTES) {
            self.put(Kind::Data, piece)?;
        }
        self.totals.files += 1;
        self.put(Kind::FileEnd, &[])
    }

    /// A partition, or word that it is left out.
    fn partition(&mut self, partition: &PartitionId) -> Result<(), BackupError> {
        for attempt in 1.. {
            let Some(copying) = self.node.store.begin_copy(partition)? else {
                return Ok(());
            };
            let problem = match self.copy(partition, copying) {
                Err(BackupError::Store(
                    error @ (StoreError::Overtaken(_)
                    | StoreError::Damaged { .. }
                    | StoreError::RootMismatch { .. }
                    | StoreError::Shape { .. }
                    | StoreError::Excess(_)
                    | StoreError::SnapshotExpired),
                )) => error,
                copied => return copied,
            };
            let name = partition.full_name();
            let left_out = LeftOut { partition: name.clone(), reason: problem.to_string() };
            self.json(Kind::LeftOut, &left_out)?;
            if attempt < ATTEMPTS && matches!(problem, StoreError::Overtaken(_)) {
                continue;
            }
            tracing::error!(%partition, error = %problem, "a partition is left out of the backup");
            self.left_out.insert(name, problem.to_string());
            return Ok(());
        }
        Ok(())
    }

    fn copy(&mut self, partition: &PartitionId, copying: Copying) -> Result<(), BackupError> {
        let head = copying.head();
        let entry = PartitionEntry {
            partition: partition.full_name(),
            seq: head.map_or(0, |head| head.seq()),
            records: head.map_or(0, |head| head.summary.records),
        };
        let before = self.copied.records;
        self.kept_open.set(copying.keep_open());
        self.json(Kind::Partition, &entry)?;
        let mut pieces = Pieces {
            check: Check::new(self.node.suite, partition.clone()),
            raw: Writer::new(),
            waiting: Vec::new(),
        };
        let copied = copying
            .each(&mut |piece| pieces.take(self, piece))
            .and_then(|()| pieces.hand_on(self))
            .and_then(|()| pieces.check.finish().map_err(BackupError::from));
        self.kept_open.set(None);
        if let Err(error) = copied {
            self.copied.records = before;
            return Err(error);
        }
        self.totals.partitions += 1;
        self.totals.records += entry.records;
        self.put(Kind::PartitionEnd, &[])
    }

    fn finish(mut self) -> Result<Saved, BackupError> {
        self.totals.left_out = self.left_out.len() as u64;
        let totals = self.totals.clone();
        self.json(Kind::End, &totals)?;
        let bytes = self.out.bytes();
        self.out.finish()?;
        let left_out = self.left_out.into_iter();
        let left_out = left_out.map(|(partition, reason)| LeftOut { partition, reason }).collect();
        Ok(Saved { totals, left_out, bytes })
    }
}

/// Pieces on their way into frames.
struct Pieces {
    check: Check,
    raw: Writer,
    waiting: Vec<Piece>,
}

impl Pieces {
    fn take<W: Write>(
        &mut self,
        saving: &mut Saving<'_, W>,
        piece: Piece,
    ) -> Result<(), BackupError> {
        if let Piece::Leaf(leaf) = &piece {
            saving.copied.records += leaf.len() as u64;
        }
        piece.write(&mut self.raw);
        self.waiting.push(piece);
        if self.raw.len() >= FRAME_BYTES { self.hand_on(saving) } else { Ok(()) }
    }

    fn hand_on<W: Write>(&mut self, saving: &mut Saving<'_, W>) -> Result<(), BackupError> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        self.check.take(std::mem::take(&mut self.waiting))?;
        let raw = std::mem::take(&mut self.raw).into_bytes();
        saving.put(Kind::Pieces, &raw)
    }
}
