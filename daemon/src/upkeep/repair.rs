//! The chore `repair`, and the command: pages that were found damaged are taken back
//! from a peer that is connected, and logs are mended ([`super::mend`]).
//!
//! The chore is called whenever a partition is found damaged, whoever met that, and as
//! long as one is, tries again each minute. A partition counts as well again only when
//! all of it was read.

use std::time::{Duration, Instant};

use anyhow::bail;
use protocol::id::PartitionId;

use super::{Findings, Inspection, Step, Upkeep};
use crate::sync::{self, Repaired};

/// A command looks at a partition without a rest; that often it looks whether it was
/// stopped.
const LOOK: Duration = Duration::from_millis(100);

pub(super) async fn step(upkeep: &Upkeep) -> anyhow::Result<Step> {
    let store = &upkeep.context.store;
    let damaged: Vec<PartitionId> = store
        .heads()
        .into_keys()
        .filter(|partition| store.known_damage(partition).is_some())
        .collect();
    let (mut repaired, mut failed) = (0, Vec::new());
    for partition in &damaged {
        match upkeep.repair(partition).await {
            Ok(_) => repaired += 1,
            Err(error) => failed.push(format!("{partition}: {error:#}")),
        }
    }
    let mut mended = 0;
    for partition in store.heads().into_keys() {
        if store.known_log_damage(&partition).is_empty() {
            continue;
        }
        match upkeep.mend_log(&partition).await {
            Ok(done) => mended += done.numbers,
            Err(error) => failed.push(format!("{error:#}")),
        }
    }
    if !failed.is_empty() {
        // It is tried again; the status shows each of them.
        bail!("{}", failed.join("; "));
    }
    let result = format!(
        "已修复 {repaired} 个分区、变更日志 {mended} 处 / {repaired} partitions and {mended} change sets of logs repaired"
    );
    Ok(Step::Ended { result, attention: Vec::new() })
}

impl Upkeep {
    /// Takes the damaged pages of a partition back from a peer, and looks at all of it.
    pub async fn repair(&self, partition: &PartitionId) -> anyhow::Result<Repaired> {
        let repaired = sync::repair(&self.context, partition).await?;
        let context = self.context.clone();
        let of = partition.clone();
        let findings = tokio::task::spawn_blocking(move || look_through(&context, &of)).await??;
        if !findings.pages.is_empty() {
            bail!("{partition} is still damaged: {}", findings.pages.join("; "));
        }
        self.note_checked(partition);
        Ok(repaired)
    }

    /// Looks through a partition without a rest, unless `stopped`. Blocks.
    pub fn look_through(
        &self,
        partition: &PartitionId,
        mut stopped: impl FnMut(&Inspection) -> bool,
    ) -> anyhow::Result<Findings> {
        let mut inspection = Inspection::new(partition);
        loop {
            if let Some(findings) = inspection.step(&self.context, Instant::now() + LOOK)? {
                if findings.pages.is_empty() {
                    self.note_checked(partition);
                }
                return Ok(findings);
            }
            if stopped(&inspection) {
                bail!(
                    "{partition}：核对被停止，未完成 / {partition}: the check was stopped before its end. Give the command \
                     again to check all of it"
                );
            }
        }
    }
}

fn look_through(context: &sync::Context, partition: &PartitionId) -> anyhow::Result<Findings> {
    let mut inspection = Inspection::new(partition);
    loop {
        if let Some(findings) = inspection.step(context, Instant::now() + LOOK)? {
            return Ok(findings);
        }
    }
}
