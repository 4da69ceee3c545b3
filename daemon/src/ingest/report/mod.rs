//! What an import did: the counts, what was wrong by rule and field, and the
//! file of rejected rows.
//!
//! Used by the importer, `import --json` and the inbox. [`tally`](self) counts
//! problems, `rejects` writes the rejected rows, `describe` and `place` have the
//! words for both, [`text`] is the report for people. Invariants:
//! [`ImportReport::adds_up`]; what the report quotes arrives masked; only the
//! rejects file holds rows as they were delivered. Field names of
//! [`ImportReport`] are a contract with scripts. Not here: deciding what is an
//! issue (`validate`).

mod describe;
mod place;
mod rejects;
mod tally;
pub mod text;

#[cfg(test)]
mod tests;

use protocol::id::DatasetId;
use serde::{Deserialize, Serialize};

pub(super) use self::{
    describe::Describer,
    rejects::{RejectedRows, RejectsFile},
    tally::Tally,
};
pub use self::{rejects::REJECT_ROWS_MAX, tally::Details, text::Outcome};
use super::hold::HeldNote;

/// The counts of one import.
#[derive(Serialize, Deserialize, Default, Debug, Clone, PartialEq)]
pub struct ImportReport {
    /// Rows of the file, without header and blank lines.
    pub rows: u64,
    /// Records that were not there before.
    pub inserted: u64,
    /// Records whose fields changed.
    pub updated: u64,
    /// Records that a full delivery no longer has.
    pub deleted: u64,
    /// Rows that changed nothing: they equal the stored record, or the whole
    /// delivery is held.
    pub unchanged: u64,
    /// Rows that were not imported.
    pub rejected: u64,
    /// Lines that are no rows: blank ones, repeated headers, totals.
    pub skipped: u64,
    /// Warnings about rows that were imported.
    pub warnings: u64,
    /// Rows whose key comes again further down.
    pub duplicates: u64,
    /// Rows whose columns may be others than they seem.
    pub suspicious: u64,
    /// Change sets that were committed.
    pub change_sets: u64,
    /// The partition's sequence number afterwards.
    pub seq: u64,
    /// How long it took.
    pub seconds: f64,
    /// The rejected rows as they were delivered.
    pub rejects_file: Option<String>,
    /// The delivery that waits for approval, and why, if it does.
    pub held: Option<Box<HeldNote>>,
    /// The delivery, for `creditsync delivery`; none where none is noted.
    #[serde(default)]
    pub delivery: Option<String>,
    /// Warnings, and rows whose key comes again, by rule and field.
    #[serde(default)]
    pub warning_details: Vec<Details>,
    /// What rows were rejected for, by rule and field. A row may have several
    /// problems.
    #[serde(default)]
    pub reject_details: Vec<Details>,
    /// What there is to say of the delivery as a whole.
    #[serde(default)]
    pub notes: Vec<Note>,
}

/// Something about a delivery as a whole.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// A stable name, kebab-case.
    pub code: String,
    /// In Chinese.
    pub zh: String,
    /// In English.
    pub en: String,
}

impl Note {
    /// A part of the delivery was not read that may be data.
    pub const LEFT_OUT: &str = "left-out";

    /// A note of one text in Chinese and English.
    pub fn new(code: &str, zh: impl Into<String>, en: impl Into<String>) -> Self {
        Self { code: code.to_owned(), zh: zh.into(), en: en.into() }
    }
}

impl ImportReport {
    /// What a held delivery did: nothing. Its good rows changed nothing, so the
    /// report adds up like any other; what it would do is told by the delivery.
    pub(super) fn held(would: &Self, note: Option<HeldNote>) -> Self {
        Self {
            inserted: 0,
            updated: 0,
            deleted: 0,
            unchanged: would.inserted + would.updated + would.unchanged,
            held: note.map(Box::new),
            ..would.clone()
        }
    }

    /// What became of the delivery as a whole.
    pub fn outcome(&self) -> Outcome {
        if self.held.is_some() {
            Outcome::Attention
        } else if self.rejected == 0 {
            let lacks_data = self.notes.iter().any(|note| note.code == Note::LEFT_OUT);
            if lacks_data { Outcome::Attention } else { Outcome::Done }
        } else if self.rejected == self.rows && self.deleted == 0 {
            Outcome::Failed
        } else {
            Outcome::Attention
        }
    }

    /// Whether every row is accounted for exactly once.
    pub fn adds_up(&self) -> bool {
        self.rows == self.inserted + self.updated + self.unchanged + self.rejected + self.duplicates
    }
}

impl ImportReport {
    /// Whether the delivery may not have been whole.
    pub fn is_cut(&self) -> bool {
        self.notes.iter().any(|note| ["cut", "taken-without-end"].contains(&&*note.code))
            || self.reject_details.iter().any(|one| one.rule == "json-cut")
    }

    /// Writes the counts to the log, and that somebody has to look, if so.
    pub fn log(&self, dataset: &DatasetId, file: &str, full: bool) {
        if let Some(held) = &self.held {
            tracing::warn!(%dataset, file, full, rows = self.rows, delivery = held.id, rule = held.rule, "a delivery waits for approval: see 'creditsync delivery show'");
            return;
        }
        tracing::info!(
            %dataset,
            file,
            full,
            rows = self.rows,
            inserted = self.inserted,
            updated = self.updated,
            deleted = self.deleted,
            unchanged = self.unchanged,
            rejected = self.rejected,
            duplicates = self.duplicates,
            seq = self.seq,
            "imported a file"
        );
    }
}
