//! Importing what a request names, with its progress told.
//!
//! Used by `import` and by `delivery approve`. Not here: where the file comes
//! from (`commands`).

use super::{Answer, Heed};
use crate::{
    admin::Reply,
    app::node::Node,
    ingest::{ImportRequest, Progress, deliver::import_or_hold, report::Outcome},
};

impl Node {
    pub(in crate::app) fn run_import(
        &self,
        request: &ImportRequest,
        reply: Heed<'_>,
    ) -> anyhow::Result<Answer> {
        let progress = telling(reply);
        let report = import_or_hold(&self.importer, &self.deliveries, request, &progress)?;
        report.log(&request.dataset, request.source.name(), request.full);
        let attention = report.outcome() != Outcome::Done;
        Ok((serde_json::to_value(report)?, attention))
    }
}

/// Tells progress; a command that went away does not stop its import.
pub(super) fn telling(reply: Heed<'_>) -> impl Fn(Progress) {
    move |progress| {
        let _ = reply(Reply::Progress(progress));
    }
}
