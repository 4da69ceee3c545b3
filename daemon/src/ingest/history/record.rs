//! A delivery written down while it is committed.
//!
//! `apply`, `undo` and the removal of a record hand over each change with what
//! was stored before, and call [`Recording::secure`] before a change set is
//! committed. Invariant: when `secure` returns, what takes the changes back is
//! written, or it is given up for this delivery: nothing here stops one. A file of
//! images is durable then, too. The line of a small delivery is left to the
//! operating system: a sync of its own would take as long as the commit, and what
//! a power cut may lose is the way back from a change of the last seconds, not the
//! change. Not here: the shape of images (`images`).

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
};

use protocol::{
    change::{BODY_BYTES_MAX, CHANGES_MAX, Change},
    id::PartitionId,
};
use store::Store;

use super::{
    History, event,
    event::{Description, Event},
    images,
};
use crate::ingest::report::ImportReport;

/// Images up to which they stand in the log's line, in bytes: one change, and a
/// few dozen, cost one write to one file.
const INLINE_BYTES_MAX: usize = 8 * 1024;
/// Frames that are held before they are written, in bytes.
const BUFFER_BYTES: usize = 1024 * 1024;

/// One delivery that is being committed.
pub(in crate::ingest) struct Recording<'a> {
    history: &'a History,
    store: &'a Store,
    partition: PartitionId,
    id: String,
    what: Description,
    base_seq: u64,
    /// The partition held nothing before: no images are needed.
    first_load: bool,
    /// Its line is in the log.
    begun: bool,
    /// The line that it is in, too.
    ended: bool,
    /// Changes that are not in frames yet, what was stored before them, and
    /// their size.
    changes: Vec<Change>,
    befores: Vec<Option<Vec<u8>>>,
    bytes: usize,
    /// Frames that are not written yet.
    frames: Vec<u8>,
    file: Option<File>,
    file_bytes: u64,
    /// The file has what is not durable.
    unsynced: bool,
    /// It cannot be taken back.
    lost: bool,
}

impl<'a> Recording<'a> {
    /// A delivery of which nothing is committed yet.
    pub fn new(
        history: &'a History,
        store: &'a Store,
        partition: PartitionId,
        (id, what): (String, Description),
        base_seq: u64,
        first_load: bool,
    ) -> Self {
        Self {
            history,
            store,
            partition,
            id,
            what,
            base_seq,
            first_load,
            begun: false,
            ended: false,
            changes: Vec::new(),
            befores: Vec::new(),
            bytes: 0,
            frames: Vec::new(),
            file: None,
            file_bytes: 0,
            unsynced: false,
            lost: false,
        }
    }

    /// The delivery's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether it is of use to say what was stored before.
    pub fn wants_befores(&self) -> bool {
        !self.first_load && !self.lost
    }

    /// Takes a change, and what was stored under its key.
    pub fn push(&mut self, change: Change, before: Option<Vec<u8>>) {
        if !self.wants_befores() {
            return;
        }
        self.bytes += change.encoded_bytes() + before.as_ref().map_or(0, Vec::len);
        self.changes.push(change);
        self.befores.push(before);
        if self.changes.len() >= CHANGES_MAX || self.bytes >= BODY_BYTES_MAX {
            self.frame();
        }
    }

    /// As [`Recording::push`], of changes that somebody else keeps.
    pub fn add(&mut self, changes: &[Change], befores: Vec<Option<Vec<u8>>>) {
        if self.wants_befores() {
            self.frame();
            self.take_frames(images::frames(changes, befores));
        }
    }

    fn frame(&mut self) {
        let (changes, befores) =
            (std::mem::take(&mut self.changes), std::mem::take(&mut self.befores));
        self.bytes = 0;
        if !changes.is_empty() {
            self.take_frames(images::frames(&changes, befores));
        }
    }

    fn take_frames(&mut self, frames: Vec<u8>) {
        self.frames.extend_from_slice(&frames);
        if self.frames.len() > BUFFER_BYTES {
            self.try_to(Self::write);
        }
    }

    /// Writes what was handed over so far. Call it before a change set is committed.
    pub fn secure(&mut self) {
        self.frame();
        let inline = !self.begun && self.file.is_none() && self.frames.len() <= INLINE_BYTES_MAX;
        let mut text = None;
        if inline {
            let frames = std::mem::take(&mut self.frames);
            text = (!frames.is_empty()).then(|| images::to_text(&frames));
        } else {
            self.try_to(Self::write);
            self.try_to(Self::sync);
        }
        if !self.begun {
            let begun = Event::Begun {
                what: self.what.clone(),
                base_seq: self.base_seq,
                first_load: self.first_load,
                images: text,
            };
            // A line without images says what a durable file belongs to.
            self.begun = self.history.append(&self.id, begun, !inline);
            // Without its line, nobody would know what the images belong to.
            if !self.begun {
                self.give_up("its line cannot be written");
            }
        }
    }

    /// Notes that it is in, and what it did.
    pub fn end(mut self, report: &ImportReport) {
        // Counts: the details stand in the report that was given.
        let (warning_details, reject_details, notes) = Default::default();
        let report = ImportReport { warning_details, reject_details, notes, ..report.clone() };
        let event = Event::Ended { what: self.what.clone(), report };
        self.history.append(&self.id, event, false);
        (self.begun, self.ended) = (true, true);
    }

    fn try_to(&mut self, work: fn(&mut Self) -> io::Result<()>) {
        if !self.lost
            && let Err(error) = work(self)
        {
            self.give_up(&error.to_string());
        }
    }

    fn write(&mut self) -> io::Result<()> {
        if self.frames.is_empty() {
            return Ok(());
        }
        let frames = std::mem::take(&mut self.frames);
        let limits = self.history.limits;
        self.file_bytes += frames.len() as u64;
        if self.file_bytes > limits.bytes {
            return Err(io::Error::other("it is larger than all deliveries together may be"));
        }
        if !self.store.has_room(frames.len()) {
            return Err(io::Error::other("the disk is nearly full"));
        }
        let own = self.history.images_path(&self.id);
        self.history.make_room(Some(&own), limits.bytes - self.file_bytes)?;
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                let dir = &self.history.dir;
                fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
                let mut options = OpenOptions::new();
                options.write(true).create_new(true).mode(0o600);
                let file = options.open(self.history.images_path(&self.id))?;
                files::sync_directory(dir)?;
                none.insert(file)
            }
        };
        self.unsynced = true;
        file.write_all(&frames)
    }

    fn sync(&mut self) -> io::Result<()> {
        match &self.file {
            Some(file) if self.unsynced => {
                file.sync_data()?;
                self.unsynced = false;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The delivery goes on, and cannot be taken back.
    fn give_up(&mut self, why: &str) {
        tracing::warn!(delivery = self.id, why, "what takes this delivery back cannot be kept");
        self.lost = true;
        self.remove_file();
        (self.changes, self.befores, self.frames) = (Vec::new(), Vec::new(), Vec::new());
    }

    fn remove_file(&mut self) {
        if self.file.take().is_some() {
            // It is bounded, and goes with its age at the latest.
            let _ = fs::remove_file(self.history.images_path(&self.id));
        }
    }
}

impl Drop for Recording<'_> {
    /// Of a delivery that committed nothing there is nothing to take back.
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let head = self.store.seq(&self.partition);
        if self.begun && head == self.base_seq {
            self.history.append(&self.id, Event::Void, false);
        }
        if !self.begun || head == self.base_seq {
            self.remove_file();
        }
    }
}

/// What an import is, for the log.
pub(in crate::ingest) fn describe(request: &crate::ingest::ImportRequest) -> Description {
    Description {
        dataset: request.dataset.clone(),
        kind: if request.full { event::Kind::Full } else { event::Kind::Upsert },
        file: Some(request.source.name().to_owned()),
        author: request.approved.as_ref().map(|approval| approval.author.clone()),
        undoes: None,
    }
}
