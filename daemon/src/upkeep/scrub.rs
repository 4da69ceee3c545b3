//! The chore `scrub`: partition by partition, everything is inspected.
//!
//! What is found is noted in the store, so nobody is shown or signs anything upon it,
//! and `repair` takes it from there.

use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::{Inspection, Progress, STEP, Step, Upkeep};

/// Where it goes on.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Position {
    /// The partition at hand.
    inspection: Option<Inspection>,
    /// The full name of the last one that is done.
    last: Option<String>,
    partitions: u64,
    records: u64,
    bytes: u64,
    attention: Vec<String>,
}

pub(super) async fn step(upkeep: &Upkeep, position: &mut Json) -> anyhow::Result<Step> {
    // One that is garbled begins anew.
    let mut at: Position = serde_json::from_value(position.take()).unwrap_or_default();
    let context = upkeep.context.clone();
    let (at, step) = tokio::task::spawn_blocking(move || {
        let step = look_on(&context, &mut at);
        (at, step)
    })
    .await?;
    let checked = step?;
    if let Some((partition, true)) = &checked {
        upkeep.note_checked(partition);
    }
    if checked.is_none() && at.inspection.is_none() {
        let Position { partitions, records, bytes, attention, .. } = at;
        let mb = bytes / (1024 * 1024);
        let result = format!(
            "{partitions} 个分区、{records} 条记录、{mb} MiB 已核对 / {partitions} partitions, {records} records, {mb} MiB read"
        );
        return Ok(Step::Ended { result, attention });
    }
    let heads = upkeep.context.store.heads();
    let of: u64 = heads.values().map(|head| head.summary.bytes).sum();
    let done = at.bytes + at.inspection.as_ref().map_or(0, Inspection::bytes);
    *position = serde_json::to_value(at)?;
    Ok(Step::More(Progress { done, of: of.max(done) }))
}

/// One step; answers which partition is done with it, and whether that is well.
fn look_on(
    context: &crate::sync::Context,
    at: &mut Position,
) -> anyhow::Result<Option<(protocol::id::PartitionId, bool)>> {
    if at.inspection.is_none() {
        let behind = |name: &String| at.last.as_ref().is_none_or(|last| name > last);
        let mut heads = context.store.heads().into_keys().map(|known| (known.full_name(), known));
        at.inspection = heads
            .by_ref()
            .filter(|(name, _)| behind(name))
            .min()
            .map(|(_, next)| Inspection::new(&next));
    }
    let Some(inspection) = &mut at.inspection else {
        return Ok(None);
    };
    let Some(findings) = inspection.step(context, Instant::now() + STEP)? else {
        return Ok(None);
    };
    let partition = inspection.partition();
    at.bytes += inspection.bytes();
    at.last = partition.as_ref().map(|partition| partition.full_name());
    at.inspection = None;
    at.partitions += 1;
    at.records += findings.records;
    let Some(partition) = partition else {
        return Ok(None);
    };
    for problem in findings.log.iter().chain(&findings.pages) {
        tracing::error!(%partition, %problem, "what is stored is not what was signed");
    }
    at.attention.extend(findings.log.iter().map(|problem| {
        format!(
            "{partition}：变更日志有误（{problem}）。记录不受影响；'creditsync verify {partition} --deep' 可再次核对 / {partition}: its \
             log is damaged ({problem}). No record is concerned, but followers that are behind take pages instead; \
             look again with 'creditsync verify {partition} --deep'"
        )
    }));
    Ok(Some((partition, findings.is_well())))
}
