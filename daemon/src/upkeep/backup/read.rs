//! A backup read from its beginning to its end.
//!
//! Used by [`super::check`] and [`super::restore`], which say what is done with each
//! part. Invariants: parts come in the one order there is; the list of members that
//! signatures are judged by is the backup's own, under the anchor in it; when this
//! answers, every byte was read, and every head is signed by a key that counts. Who
//! could write another list of members and another anchor could write all of it: a
//! backup is trusted as the directory is that it was made of.

use std::{collections::BTreeMap, io::Read};

use certs::enrol::Anchor;
use protocol::{
    change::{KeyProblem, KeyRing, Position, SignedHeader},
    encoding::Reader,
    federation::Registry,
    hash::Hash,
    id::{NodeId, PartitionId},
    sign::PublicKey,
    suite::Suite,
};
use serde::de::DeserializeOwned;
use serde_json::{Value as Json, json};
use store::{Piece, StoreError};

use super::{
    frame::{FrameReader, Kind},
    tree::{ANCHOR, CONFIG, may_be_restored},
    words::{BackupError, Copied, FileEntry, Keys, LeftOut, Manifest, PartitionEntry, Totals},
};

/// The longest anchor.
const ANCHOR_BYTES_MAX: usize = 64 * 1024;
/// Partitions of a node, of each of which the head is kept until the end: a hub of 2000
/// members with ten datasets each has a tenth of it.
const PARTITIONS_MAX: usize = 200_000;

/// What is done with the parts of a backup.
pub trait Taker {
    /// What it is of; comes first.
    fn manifest(&mut self, manifest: &Manifest, suite: Suite) -> Result<(), BackupError>;
    /// A file begins.
    fn file(&mut self, entry: &FileEntry) -> Result<(), BackupError>;
    /// More of the file.
    fn data(&mut self, bytes: &[u8]) -> Result<(), BackupError>;
    /// The file is whole.
    fn file_end(&mut self) -> Result<(), BackupError>;
    /// The encrypted keys.
    fn keys(&mut self, sealed: &[u8]) -> Result<(), BackupError>;
    /// A partition begins.
    fn partition(&mut self, partition: &PartitionId) -> Result<(), BackupError>;
    /// More of it.
    fn pieces(&mut self, pieces: Vec<Piece>) -> Result<(), StoreError>;
    /// It is whole.
    fn partition_end(&mut self) -> Result<(), StoreError>;
    /// What came of it counts for nothing.
    fn give_up(&mut self);
}

/// What a backup holds.
#[derive(Debug)]
pub struct Summary {
    /// What it is of.
    pub manifest: Manifest,
    /// How much of what.
    pub totals: Totals,
    /// Its partitions.
    pub partitions: Vec<PartitionEntry>,
    /// Those that are not in.
    pub left_out: Vec<LeftOut>,
    /// Its bytes.
    pub bytes: u64,
}

impl Summary {
    /// As `--json` prints it.
    pub fn json(&self) -> Json {
        let short = |name: &str| {
            PartitionId::parse_full(name).map_or(name.to_owned(), |partition| partition.to_string())
        };
        let partition = |entry: &PartitionEntry| {
            json!({
                "partition": short(&entry.partition), "seq": entry.seq, "records": entry.records,
            })
        };
        let left_out = |entry: &LeftOut| json!({ "partition": short(&entry.partition), "reason": entry.reason });
        json!({
            "federation": self.manifest.federation,
            "node": self.manifest.node,
            "role": self.manifest.role,
            "version": self.manifest.version,
            "created": self.manifest.created,
            "keys": self.manifest.keys,
            "files": self.totals.files,
            "partitions": self.partitions.iter().map(partition).collect::<Vec<_>>(),
            "records": self.totals.records,
            "left_out": self.left_out.iter().map(left_out).collect::<Vec<_>>(),
            "outside": self.manifest.outside,
            "bytes": self.bytes,
        })
    }
}

/// Reads all of a backup. Blocks.
pub fn read(
    input: impl Read,
    taker: &mut dyn Taker,
    heed: &mut dyn FnMut(Copied),
) -> Result<Summary, BackupError> {
    let mut frames = FrameReader::new(input)?;
    let at = frames.at();
    let (Kind::Manifest, bytes) = frames.next()? else {
        let problem = "it does not begin with what it is of".to_owned();
        return Err(BackupError::Damaged { at, problem });
    };
    let manifest: Manifest = words(&bytes)?;
    let suite = Suite::from_number(manifest.suite)
        .map_err(|unknown| BackupError::Content(unknown.to_string()))?;
    let node = NodeId::new(&manifest.node)
        .map_err(|_| BackupError::Content("the node has a malformed name".into()))?;
    taker.manifest(&manifest, suite)?;
    let mut reading = Reading {
        taker,
        suite,
        manifest,
        node,
        inside: Inside::Nothing,
        has_keys: false,
        anchor: Vec::new(),
        registry: None,
        heads: BTreeMap::new(),
        left_out: BTreeMap::new(),
        totals: Totals::default(),
    };
    let mut copied = Copied::default();
    let totals = loop {
        let (kind, raw) = frames.next()?;
        if kind == Kind::End {
            break words::<Totals>(&raw)?;
        }
        reading.take(kind, raw)?;
        (copied.records, copied.bytes) = (reading.totals.records, frames.at());
        heed(copied);
    };
    let bytes = frames.at();
    frames.end()?;
    reading.finish(totals, bytes)
}

fn words<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, BackupError> {
    serde_json::from_slice(bytes).map_err(|error| BackupError::Content(error.to_string()))
}

/// What the next frame belongs to.
enum Inside {
    Nothing,
    File { is_anchor: bool },
    Partition(Box<Open>),
}

/// A partition that is not whole yet.
struct Open {
    partition: PartitionId,
    entry: PartitionEntry,
    head: Option<SignedHeader>,
    registry: Option<Registry>,
}

struct Reading<'a> {
    taker: &'a mut dyn Taker,
    suite: Suite,
    manifest: Manifest,
    node: NodeId,
    inside: Inside,
    has_keys: bool,
    anchor: Vec<u8>,
    /// Made of `_federation`.
    registry: Option<Registry>,
    /// Of whole partitions.
    heads: BTreeMap<PartitionId, (PartitionEntry, Option<SignedHeader>)>,
    left_out: BTreeMap<String, String>,
    totals: Totals,
}

fn content(problem: impl Into<String>) -> BackupError {
    BackupError::Content(problem.into())
}

/// What is wrong with a partition; of a full disk and the like nothing is.
fn of_partition(partition: &PartitionId) -> impl Fn(StoreError) -> BackupError + use<> {
    let partition = partition.to_string();
    move |error| match error {
        error if error.is_lack_of_room() => BackupError::Store(error),
        StoreError::Database(_) | StoreError::File { .. } => BackupError::Store(error),
        error => {
            BackupError::Partition { partition: partition.clone(), problem: error.to_string() }
        }
    }
}

impl Reading<'_> {
    fn take(&mut self, kind: Kind, raw: Vec<u8>) -> Result<(), BackupError> {
        match (kind, std::mem::replace(&mut self.inside, Inside::Nothing)) {
            (Kind::File, Inside::Nothing) => self.file(&words::<FileEntry>(&raw)?),
            (Kind::Data, Inside::File { is_anchor }) => {
                if is_anchor && self.anchor.len() + raw.len() <= ANCHOR_BYTES_MAX {
                    self.anchor.extend_from_slice(&raw);
                }
                self.inside = Inside::File { is_anchor };
                self.taker.data(&raw)
            }
            (Kind::FileEnd, Inside::File { .. }) => {
                self.totals.files += 1;
                self.taker.file_end()
            }
            (Kind::Keys, Inside::Nothing) if !self.has_keys => {
                if self.manifest.keys != Keys::Sealed {
                    return Err(content("it says that it has no encrypted keys, and has some"));
                }
                self.has_keys = true;
                self.taker.keys(&raw)
            }
            (Kind::Partition, Inside::Nothing) => self.partition(words(&raw)?),
            (Kind::Pieces, Inside::Partition(open)) => self.pieces(open, &raw),
            (Kind::PartitionEnd, Inside::Partition(open)) => self.partition_end(*open),
            (Kind::LeftOut, inside @ (Inside::Nothing | Inside::Partition(_))) => {
                let left_out: LeftOut = words(&raw)?;
                if let Inside::Partition(open) = inside {
                    if open.entry.partition != left_out.partition {
                        return Err(content(
                            "another partition is left out than the one that began",
                        ));
                    }
                    self.taker.give_up();
                }
                self.left_out.insert(left_out.partition, left_out.reason);
                Ok(())
            }
            (kind, _) => Err(content(format!("{kind:?} comes where it does not belong"))),
        }
    }

    fn file(&mut self, entry: &FileEntry) -> Result<(), BackupError> {
        if !may_be_restored(&entry.path) {
            return Err(content(format!("a file of it lies at {}", entry.path.escape_debug())));
        }
        if (self.totals.files == 0) != (entry.path == CONFIG) {
            return Err(content(format!("{CONFIG} is not the first file")));
        }
        let is_anchor = entry.path == ANCHOR;
        if is_anchor {
            self.anchor.clear();
        }
        self.inside = Inside::File { is_anchor };
        self.taker.file(entry)
    }

    fn partition(&mut self, entry: PartitionEntry) -> Result<(), BackupError> {
        let partition = PartitionId::parse_full(&entry.partition)
            .map_err(|_| content("a partition has a malformed name"))?;
        if self.heads.contains_key(&partition) || self.heads.len() >= PARTITIONS_MAX {
            return Err(content(format!("{partition} comes twice")));
        }
        if partition.federation.as_str() != self.manifest.federation {
            return Err(content(format!("{partition} is of another federation")));
        }
        let mut registry = None;
        if partition.dataset.is_system() {
            let anchor = Anchor::decode(&self.anchor)
                .map_err(|_| content("the anchor is missing, or cannot be read"))?;
            let is_its = anchor.hub == partition.origin
                && anchor.federation == partition.federation
                && anchor.suite() == self.suite;
            if !is_its {
                return Err(content("the anchor is of another federation"));
            }
            registry = Some(Registry::new(anchor.anchored()));
        }
        self.taker.partition(&partition)?;
        let open = Open { partition, entry, head: None, registry };
        self.inside = Inside::Partition(Box::new(open));
        Ok(())
    }

    fn pieces(&mut self, mut open: Box<Open>, raw: &[u8]) -> Result<(), BackupError> {
        let mut input = Reader::new(raw);
        let mut pieces = Vec::new();
        while input.remaining() > 0 {
            let piece =
                Piece::read(self.suite, &mut input).map_err(|error| BackupError::Partition {
                    partition: open.partition.to_string(),
                    problem: error.to_string(),
                })?;
            match (&piece, &mut open.registry) {
                (Piece::Head(head), _) => open.head = Some(head.signed.clone()),
                (Piece::Leaf(leaf), Some(registry)) => {
                    for (key, value) in leaf.entries() {
                        // It keeps in mind what is wrong with it, as in a node.
                        let _ = registry.insert(key, value);
                    }
                }
                _ => {}
            }
            pieces.push(piece);
        }
        self.taker.pieces(pieces).map_err(of_partition(&open.partition))?;
        self.inside = Inside::Partition(open);
        Ok(())
    }

    fn partition_end(&mut self, open: Open) -> Result<(), BackupError> {
        let Open { partition, entry, head, registry } = open;
        self.taker.partition_end().map_err(of_partition(&partition))?;
        let seq = head.as_ref().map_or(0, |head| head.header().seq);
        let records = head.as_ref().map_or(0, |head| head.header().records);
        if (entry.seq, entry.records) != (seq, records) {
            return Err(content(format!("{partition} has another head than is said")));
        }
        self.registry = registry.or(self.registry.take());
        self.left_out.remove(&entry.partition);
        self.totals.partitions += 1;
        self.totals.records += entry.records;
        self.heads.insert(partition, (entry, head));
        Ok(())
    }

    fn finish(self, totals: Totals, bytes: u64) -> Result<Summary, BackupError> {
        if !matches!(self.inside, Inside::Nothing) {
            return Err(content("it ends in the middle of a file or a partition"));
        }
        let known = Totals { left_out: self.left_out.len() as u64, ..self.totals };
        if known != totals {
            return Err(content("it has not what it says at its end"));
        }
        if self.has_keys != (self.manifest.keys == Keys::Sealed) {
            return Err(content("its keys are missing"));
        }
        let registry = self.registry.ok_or_else(|| content("the list of members is missing"))?;
        let ring = Ring { registry: &registry, own: &self.node };
        for (partition, (_, head)) in &self.heads {
            if let Some(head) = head {
                head.verify(&ring).map_err(|error| BackupError::Partition {
                    partition: partition.to_string(),
                    problem: error.to_string(),
                })?;
            }
        }
        let left_out = self.left_out.into_iter();
        Ok(Summary {
            manifest: self.manifest,
            totals,
            partitions: self.heads.into_values().map(|(entry, _)| entry).collect(),
            left_out: left_out.map(|(partition, reason)| LeftOut { partition, reason }).collect(),
            bytes,
        })
    }
}

/// Whose signature counts in a backup: as in the node that it was made of.
struct Ring<'a> {
    registry: &'a Registry,
    own: &'a NodeId,
}

impl KeyRing for Ring<'_> {
    fn key(
        &self,
        partition: &PartitionId,
        seq: u64,
        key_id: &Hash,
    ) -> Result<PublicKey, KeyProblem> {
        match self.registry.key(partition, seq, key_id) {
            // What a node has signed with a key that was ended meanwhile it signs anew
            // once it has another one; until then it holds it like this.
            Err(KeyProblem::OutOfRange { .. }) if partition.origin == *self.own => {
                let mut keys = self.registry.keys(self.own).iter();
                let known = keys.find(|known| known.public.id() == *key_id);
                known.map(|known| known.public).ok_or(KeyProblem::Unknown)
            }
            judged => judged,
        }
    }

    fn allows(&self, partition: &PartitionId, position: Position) -> bool {
        self.registry.allows(partition, position)
    }
}
