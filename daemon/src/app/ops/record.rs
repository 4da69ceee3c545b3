//! `record delete`: one record of this node's own partition goes.

use anyhow::bail;
use protocol::id::DatasetId;
use serde_json::json;

use super::{Answer, get::key_of};
use crate::{app::node::Node, ingest::words::Author};

impl Node {
    pub(in crate::app) fn record_delete(
        &self,
        dataset: &str,
        texts: &[String],
        author: Author,
    ) -> anyhow::Result<Answer> {
        if author.reason.is_none() {
            bail!(
                "请用 --reason 说明删除原因 / say why with --reason: whoever looks at the log asks for it"
            );
        }
        let dataset = DatasetId::new(dataset)?;
        if dataset.is_system() {
            bail!(
                "{dataset} 由系统维护，不能直接删除 / {dataset} is the system's own dataset: its records \
                 follow from commands such as 'creditsync node remove'"
            );
        }
        let key = key_of(&self.schema(&dataset)?, texts)?;
        let shown = texts.join(" ");
        let (id, report) =
            self.importer.delete_record(&self.deliveries, &dataset, (&key, &shown), author)?;
        // The key may be personal: the log of the daemon says only where.
        tracing::info!(%dataset, delivery = id, seq = report.seq, "a record was removed");
        Ok((
            json!({ "id": id, "dataset": dataset, "deleted": report.deleted, "seq": report.seq }),
            false,
        ))
    }
}
