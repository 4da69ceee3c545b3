//! `delivery`: what was delivered, what waits for a person, and taking back.
//!
//! Invariant: what a person is shown before they approve is computed against the
//! present records, and the approval is refused if those have moved on. Not here:
//! when a delivery is held, and how one is taken back (`ingest`).

use std::sync::Arc;

use anyhow::Context as _;
use protocol::text::visible;
use serde_json::json;

use super::{Answer, Heed, import::telling};
use crate::{
    app::node::Node,
    ingest::{
        ImportRequest,
        held::Held,
        history::event::Delivery,
        hold::HeldNote,
        import::Preview,
        stamp::rejects_path,
        words::{Approval, Author},
    },
    sources::{DeliveredFile, Links},
};

/// Deliveries that `delivery list --all` shows: some screens of them.
const LISTED_MAX: usize = 200;

impl Node {
    pub(in crate::app) fn delivery_list(&self, all: bool) -> anyhow::Result<Answer> {
        if !all {
            return Ok((json!({ "deliveries": self.deliveries.list()? }), false));
        }
        let deliveries = self.deliveries.history().deliveries();
        let newest = deliveries.len().saturating_sub(LISTED_MAX);
        Ok((json!({ "deliveries": deliveries[newest..], "earlier": newest }), false))
    }

    pub(in crate::app) fn delivery_show(&self, id: &str) -> anyhow::Result<Answer> {
        if let Some(held) = self.deliveries.get(id)? {
            let mut answer = serde_json::to_value(held)?;
            answer["state"] = "held".into();
            return Ok((answer, false));
        }
        let known = self.deliveries.history().delivery(id).with_context(|| no_delivery(id))?;
        Ok((serde_json::to_value(known)?, false))
    }

    /// What approving would do now.
    pub(in crate::app) fn delivery_preview(
        &self,
        id: &str,
        reply: Heed<'_>,
    ) -> anyhow::Result<Answer> {
        let held = self.held(id)?;
        let request = self.request_of(&held, None)?;
        let preview = self.importer.preview(&request, held.would.seq, &telling(reply))?;
        let Preview { would, holds, undoes } = preview;
        let answer = json!({
            "id": held.id,
            "dataset": held.dataset,
            "file": held.file,
            "full": held.full,
            "received": held.received,
            "held": HeldNote::new(&held.id, &holds),
            "seq": would.seq,
            "would": would,
            "undoes": undoes,
        });
        Ok((answer, false))
    }

    pub(in crate::app) fn delivery_approve(
        &self,
        id: &str,
        seen_seq: Option<u64>,
        author: Author,
        reply: Heed<'_>,
    ) -> anyhow::Result<Answer> {
        let held = self.held(id)?;
        let approval = Approval { id: held.id.clone(), author, seen_seq };
        let request = self.request_of(&held, Some(approval))?;
        let answer = self.run_import(&request, reply)?;
        // Only now: an approval that fails can be given again.
        self.deliveries.remove(id)?;
        Ok(answer)
    }

    pub(in crate::app) fn delivery_discard(
        &self,
        id: &str,
        author: Author,
    ) -> anyhow::Result<Answer> {
        let held = self.held(id)?;
        self.deliveries.discard(id, author)?;
        Ok((serde_json::to_value(held)?, false))
    }

    pub(in crate::app) fn delivery_undo(
        &self,
        id: &str,
        force: bool,
        author: Author,
    ) -> anyhow::Result<Answer> {
        let undone = self.importer.undo(&self.deliveries, id, force, author)?;
        tracing::info!(
            delivery = undone.undoes,
            by = undone.id,
            seq = undone.report.seq,
            "a delivery was taken back"
        );
        // A first load that was taken back has left what changed since.
        let attention = undone.changed_since > 0;
        Ok((serde_json::to_value(undone)?, attention))
    }

    fn held(&self, id: &str) -> anyhow::Result<Held> {
        let held = self.deliveries.get(id)?;
        held.with_context(|| match self.deliveries.history().delivery(id) {
            Some(known) => not_waiting(&known),
            None => no_delivery(id),
        })
    }

    /// What imports the copy of a delivery that was held.
    fn request_of(&self, held: &Held, approved: Option<Approval>) -> anyhow::Result<ImportRequest> {
        let reading = serde_json::from_value(held.settings.clone())
            .context("read how the delivery was to be read; is it of another version?")?;
        let source = DeliveredFile::open(&self.deliveries.data_path(held), Links::Refuse, reading)?
            .named(held.file.clone())
            .read_for(&self.importer);
        Ok(ImportRequest {
            rejects: rejects_path(&self.dir.rejects(), &held.dataset),
            dataset: held.dataset.clone(),
            source: Arc::new(source),
            full: held.full,
            approved,
        })
    }
}

fn not_waiting(known: &Delivery) -> String {
    let id = &known.id;
    match known.decided() {
        Some([zh, en]) => format!("{id} 已经处理过：{zh} / {id} does not wait any more: {en}"),
        None => format!(
            "{id} 没有等待审批；'creditsync delivery show {id}' 显示其情况 / {id} does not wait for approval; \
             'creditsync delivery show {id}' says where it stands"
        ),
    }
}

fn no_delivery(id: &str) -> String {
    let id = visible(id);
    format!(
        "没有编号为 '{id}' 的待审批交付；'creditsync delivery list' 列出全部 / there is no held delivery '{id}'; \
         'creditsync delivery list' shows them, and '--all' those of the past"
    )
}
