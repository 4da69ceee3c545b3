//! When a delivery waits for a person, and how that is said.
//!
//! `apply` compares a delivery with what is stored, [`watch`] counts what the
//! comparison shows, and [`Evidence::judge`] holds the counts against
//! [`HoldLimits`]. The report, `held` and `creditsync delivery` tell what came of
//! it. Invariants: a rule looks at counts alone, so that the same delivery is
//! judged in the same way whichever way it was read; samples never show a
//! personal value. Not here: what becomes of a delivery that is held (`held`).

mod reason;
mod watch;

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub use self::reason::{FieldCount, HoldReason};
pub(super) use self::watch::{Watch, code_of, is_doubtful, is_rounded, key_text};

/// Keys or fields that are shown of each rule: enough to look at, and few enough
/// for a line on a screen.
pub const SAMPLES_MAX: usize = 5;

/// From when on a delivery waits. Each share is in percent and has to be
/// exceeded; each number has to be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HoldLimits {
    /// Deletions, of the stored records.
    pub deletes_percent: u64,
    /// The least number of deletions. Two records may always go: a list of five
    /// loses one or two in an ordinary month.
    pub deletes_min: u64,
    /// Records of which one column changes, of those that are stored and come
    /// again.
    pub changes_percent: u64,
    /// The least number of such records.
    pub changes_min: u64,
    /// New keys with a wrong check character, of all new keys; and rows with a text
    /// of a wrong encoding, of all rows.
    pub doubtful_percent: u64,
    /// The least number of such keys or rows.
    pub doubtful_min: u64,
}

impl Default for HoldLimits {
    /// What holds without a setting; `config` has the same numbers.
    fn default() -> Self {
        Self {
            deletes_percent: 20,
            deletes_min: 3,
            changes_percent: 50,
            changes_min: 10,
            doubtful_percent: 50,
            doubtful_min: 3,
        }
    }
}

impl HoldLimits {
    /// Whether most of so many rows that make a record have a text of a wrong
    /// encoding.
    pub(super) fn is_garbled(&self, garbled: u64, rows: u64) -> bool {
        exceeds(garbled, rows, self.doubtful_percent, self.doubtful_min)
    }
}

/// Whether `count` is above `percent` of `all`, and reaches `least`.
fn exceeds(count: u64, all: u64, percent: u64, least: u64) -> bool {
    let (count_wide, all_wide) = (u128::from(count), u128::from(all));
    count > 0 && count >= least && count_wide * 100 > all_wide * u128::from(percent)
}

/// A rule that applies to a delivery, with examples.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// The rule and its numbers.
    pub reason: HoldReason,
    /// Keys, at most [`SAMPLES_MAX`]; personal fields of them are masked.
    pub samples: Vec<String>,
}

/// All that the rules look at, once a delivery has been compared.
#[derive(Debug, Clone, Copy)]
pub(super) struct Evidence<'a> {
    /// It is the whole partition.
    pub full: bool,
    /// Records that were stored before.
    pub stored: u64,
    /// Rows of the file.
    pub rows: u64,
    /// Records that it would insert.
    pub inserted: u64,
    /// Records that it would delete.
    pub deleted: u64,
    /// Stored records that come again, changed or not.
    pub compared: u64,
    /// It may have been cut off.
    pub cut: bool,
    /// Parts of it that may be data and were not read.
    pub left_out: u64,
    /// It has the columns of a rejects file.
    pub mended: bool,
    /// Rows that were rejected.
    pub rejected: u64,
    /// Rows whose key could not be read.
    pub unreadable: u64,
    /// Rows whose columns may be others than they seem.
    pub suspicious: u64,
    /// Rows with a text of a wrong encoding.
    pub garbled: u64,
    /// What the comparison has shown.
    pub watch: &'a Watch<'a>,
}

impl Evidence<'_> {
    /// The rules that apply, the most serious one first.
    pub fn judge(&self, limits: &HoldLimits) -> Vec<Hold> {
        let (stored, deletes, watch) = (self.stored, self.deleted, self.watch);
        let mut holds = Vec::new();
        let mut hold = |reason, samples: &[String]| {
            holds.push(Hold { reason, samples: samples.to_vec() });
        };
        if self.full && stored > 0 {
            if self.rows == 0 {
                hold(HoldReason::Empty { stored }, &watch.deleted);
                return holds;
            }
            if exceeds(deletes, stored, limits.deletes_percent, limits.deletes_min) {
                hold(HoldReason::Deletes { deletes, stored }, &watch.deleted);
            }
            // What is missing may be what was lost on the way.
            if deletes > 0 && self.cut {
                hold(HoldReason::Cut { deletes }, &watch.deleted);
            }
            if deletes > 0 && self.left_out > 0 {
                let parts = self.left_out;
                hold(HoldReason::LeftOut { parts, deletes }, &watch.deleted);
            }
            if deletes > 0 && self.mended {
                hold(HoldReason::RejectsFile { deletes }, &watch.deleted);
            }
            if deletes > 0 && self.rejected > self.rows / 2 {
                let (rejected, rows) = (self.rejected, self.rows);
                hold(HoldReason::Rejected { rejected, rows, deletes }, &watch.deleted);
            }
            if deletes > 0 && self.unreadable > 0 {
                let unreadable = self.unreadable;
                hold(HoldReason::Unreadable { unreadable, deletes }, &watch.deleted);
            }
            if deletes > 0 && self.suspicious > 0 {
                let suspicious = self.suspicious;
                hold(HoldReason::Suspicious { suspicious, deletes }, &watch.deleted);
            }
            let fields = watch.blanked_fields();
            if !fields.is_empty() {
                hold(HoldReason::BlanksColumns { fields }, &watch.blanked);
            }
            let compared = self.compared;
            let fields = watch.changed_fields(|count| {
                exceeds(count, compared, limits.changes_percent, limits.changes_min)
            });
            if !fields.is_empty() {
                hold(HoldReason::ChangesColumn { fields, compared }, &watch.changed);
            }
        }
        let (garbled, rows) = (self.garbled, self.rows.saturating_sub(self.rejected));
        if limits.is_garbled(garbled, rows) {
            hold(HoldReason::Garbled { garbled, rows }, &[]);
        }
        let (doubtful, inserted) = (watch.doubtful_count, self.inserted);
        if exceeds(doubtful, inserted, limits.doubtful_percent, limits.doubtful_min) {
            hold(HoldReason::DoubtfulKeys { doubtful, inserted }, &watch.doubtful);
        }
        holds
    }
}

/// What a report says of a delivery that is held. The names are a contract.
#[derive(Default, Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HeldNote {
    /// The delivery, for `creditsync delivery`.
    pub id: String,
    /// The most serious rule.
    pub rule: String,
    /// Its numbers.
    pub detail: serde_json::Value,
    /// Why, in Chinese.
    pub zh: String,
    /// Why, in English.
    pub en: String,
    /// Keys to look at; personal fields of them are masked.
    pub samples: Vec<String>,
    /// Further rules that apply.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<AlsoHeld>,
}

/// A further rule that applies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AlsoHeld {
    /// The rule.
    pub rule: String,
    /// Its numbers.
    pub detail: serde_json::Value,
    /// Why, in Chinese.
    pub zh: String,
    /// Why, in English.
    pub en: String,
    /// Keys to look at.
    pub samples: Vec<String>,
}

impl HeldNote {
    /// What is said of a delivery to which these rules apply, the most serious
    /// one first; none if none does.
    pub fn new(id: &str, holds: &[Hold]) -> Option<Self> {
        let mut said = holds.iter().map(|Hold { reason, samples }| AlsoHeld {
            rule: reason.rule().to_owned(),
            detail: reason.detail(),
            zh: reason.zh(),
            en: reason.en(),
            samples: samples.clone(),
        });
        let AlsoHeld { rule, detail, zh, en, samples } = said.next()?;
        Some(Self { id: id.to_owned(), rule, detail, zh, en, samples, also: said.collect() })
    }
}
