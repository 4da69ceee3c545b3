//! What lies beside a file that was dealt with: a sentence for people and the
//! report for programs.
//!
//! Used when a file is moved away. Invariant: both say the same. Not here: the
//! sentences (`ingest::report::text`).

use std::{path::PathBuf, time::SystemTime};

use serde_json::{Value as Json, json};

use crate::ingest::{
    report::{
        ImportReport, Outcome,
        text::{About, failure_for_people, for_people},
    },
    stamp,
    words::languages,
};

/// What became of a file.
pub(super) enum Ended {
    /// It was read to its end.
    Read {
        report: Box<ImportReport>,
        /// Where the rejects file lies, if there is one.
        rejects: PathBuf,
    },
    /// It could not be read.
    Failed { error: String },
}

impl Ended {
    pub fn outcome(&self) -> Outcome {
        match self {
            Ended::Read { report, .. } => report.outcome(),
            Ended::Failed { .. } => Outcome::Failed,
        }
    }

    /// The text for people and the document for programs.
    pub fn reports(&self, subject: &Subject<'_>, wall: SystemTime) -> (String, Json) {
        let at = stamp::local(wall);
        let Subject { file, dataset, full, rejects } = *subject;
        let about = About { file, dataset, full, at: &at, rejects };
        let (text, mut document) = match self {
            Ended::Read { report, .. } => (for_people(report, &about), json!(report)),
            Ended::Failed { error } => {
                (failure_for_people(&languages(error), &about), json!({ "error": error }))
            }
        };
        document["outcome"] = json!(self.outcome());
        document["file"] = json!(file);
        document["dataset"] = json!(dataset);
        document["full"] = json!(full);
        document["at"] = json!(stamp::utc(wall));
        (text, document)
    }
}

/// Which file it is about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subject<'a> {
    /// As it may be shown.
    pub file: &'a str,
    pub dataset: &'a str,
    pub full: bool,
    /// The rejects file's name.
    pub rejects: Option<&'a str>,
}
