//! Sorted changes to committed change sets, and changes set aside until it is
//! known whether they may be committed.

use std::{
    collections::VecDeque,
    fs::File,
    io::{BufReader, BufWriter, Read as _, Seek as _, Write as _},
    path::Path,
    sync::Arc,
};

use protocol::{
    change::{BODY_BYTES_MAX, CHANGES_MAX, Change, decode_changes, encode_changes},
    id::PartitionId,
};
use store::{Head, Load, OwnChanges, Pending, Store, StoreError};

use super::{
    history::Recording,
    spool::SpoolError,
    temporary::{Guarded, TemporaryFiles},
};

/// Change sets that the writer may have while the next one is prepared: the one
/// that it applies and the one behind it. With leaves made ahead each holds some
/// 10 MB.
const PENDING_MAX: usize = 2;

/// Cuts changes, in key order, into change sets and commits them.
pub(super) struct Cutter<'a, 'h> {
    store: &'a Store,
    partition: PartitionId,
    schema_version: u32,
    /// Whether the partition held nothing before.
    first_load: bool,
    load: Option<Load>,
    /// What takes the changes back is durable before they are.
    recording: Option<&'a mut Recording<'h>>,
    batch: Vec<Change>,
    /// What was stored before each change of the batch, where that is recorded.
    befores: Vec<Option<Vec<u8>>>,
    batch_bytes: usize,
    pending: VecDeque<Pending<Arc<Head>>>,
    /// Change sets committed.
    pub change_sets: u64,
    /// The newest number.
    pub seq: u64,
}

impl<'a, 'h> Cutter<'a, 'h> {
    pub fn new(
        store: &'a Store,
        partition: PartitionId,
        schema_version: u32,
        recording: Option<&'a mut Recording<'h>>,
    ) -> Self {
        let head = store.head(&partition);
        Self {
            store,
            first_load: head.as_ref().is_none_or(|head| head.summary.records == 0),
            seq: head.map_or(0, |head| head.seq()),
            partition,
            schema_version,
            load: None,
            recording,
            batch: Vec::new(),
            befores: Vec::new(),
            batch_bytes: 0,
            pending: VecDeque::new(),
            change_sets: 0,
        }
    }

    /// Takes a change whose record was told to the recording already.
    pub fn push(&mut self, change: Change) -> Result<(), StoreError> {
        self.make_room_for(&change)?;
        self.batch.push(change);
        Ok(())
    }

    /// Takes a change, and what was stored under its key before.
    pub fn push_with(&mut self, change: Change, before: Option<Vec<u8>>) -> Result<(), StoreError> {
        self.push(change)?;
        self.befores.push(before);
        Ok(())
    }

    /// Commits the batch if it would become too large.
    fn make_room_for(&mut self, change: &Change) -> Result<(), StoreError> {
        let bytes = change.encoded_bytes();
        if self.batch.len() >= CHANGES_MAX || self.batch_bytes + bytes > BODY_BYTES_MAX {
            if self.first_load && self.load.is_none() {
                self.load = Some(self.store.begin_load(&self.partition));
            }
            self.commit()?;
        }
        self.batch_bytes += bytes;
        Ok(())
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        if let Some(recording) = &mut self.recording {
            if !self.befores.is_empty() {
                recording.add(&self.batch, std::mem::take(&mut self.befores));
            }
            recording.secure();
        }
        let changes = OwnChanges {
            partition: self.partition.clone(),
            changes: std::mem::take(&mut self.batch),
            schema_version: self.schema_version,
            // Followers of a large first load take pages.
            keep_body: self.load.is_none(),
        };
        self.batch_bytes = 0;
        self.pending.push_back(self.store.commit_own_later(changes)?);
        while self.pending.len() >= PENDING_MAX {
            self.wait_for_one()?;
        }
        Ok(())
    }

    fn wait_for_one(&mut self) -> Result<(), StoreError> {
        if let Some(pending) = self.pending.pop_front() {
            let before = std::mem::replace(&mut self.seq, pending.wait()?.seq());
            // One that touched too much of the tree has become several.
            self.change_sets += self.seq - before;
        }
        Ok(())
    }

    /// Commits the rest; everything is durable when this answers.
    pub fn finish(&mut self) -> Result<(), StoreError> {
        if !self.batch.is_empty() {
            self.commit()?;
        }
        while !self.pending.is_empty() {
            self.wait_for_one()?;
        }
        self.load = None;
        Ok(())
    }
}

impl Drop for Cutter<'_, '_> {
    /// After an error some change sets are still on their way. Whoever imports
    /// into this partition next must find it standing still.
    fn drop(&mut self) {
        for pending in self.pending.drain(..) {
            // The import answers with the error that came first.
            let _ = pending.wait();
        }
    }
}

/// Changes set aside in an unlinked file.
pub(super) struct ChangeSpool {
    file: BufWriter<Guarded<File>>,
    dir: String,
}

impl ChangeSpool {
    pub fn new(files: &TemporaryFiles) -> Result<Self, SpoolError> {
        let dir = files.dir().display().to_string();
        let file = files.file().map_err(|source| super::spool::fault(files.dir(), source))?;
        Ok(Self { file: BufWriter::new(file), dir })
    }

    pub fn push(&mut self, change: &Change) -> Result<(), SpoolError> {
        let bytes = encode_changes(std::slice::from_ref(change));
        let length = (bytes.len() as u32).to_be_bytes();
        let written = self.file.write_all(&length).and_then(|()| self.file.write_all(&bytes));
        written.map_err(|source| super::spool::fault(Path::new(&self.dir), source))
    }

    /// Hands every change to `take`, in the order in which they came.
    pub fn replay<E: From<SpoolError>>(
        self,
        mut take: impl FnMut(Change) -> Result<(), E>,
    ) -> Result<(), E> {
        let dir = self.dir;
        let fault = |source: std::io::Error| super::spool::fault(Path::new(&dir), source);
        let file = self.file.into_inner().map_err(|error| fault(error.into_error()))?;
        let mut file = file.into_inner();
        file.rewind().map_err(fault)?;
        let mut input = BufReader::new(file);
        let mut length = [0; 4];
        loop {
            match input.read_exact(&mut length) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
                Err(error) => return Err(fault(error).into()),
            }
            let mut bytes = vec![0; u32::from_be_bytes(length) as usize];
            input.read_exact(&mut bytes).map_err(fault)?;
            let changes = decode_changes(&bytes).map_err(|error| {
                fault(std::io::Error::new(std::io::ErrorKind::InvalidData, error.to_string()))
            })?;
            changes.into_iter().try_for_each(&mut take)?;
        }
    }
}
