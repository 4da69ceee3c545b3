//! `repair`: damaged pages and change sets of one partition are taken back from a peer, now.

use anyhow::{Context as _, bail};
use protocol::id::PartitionId;
use serde_json::json;

use super::{
    node::{Node, no_partition},
    ops::Answer,
    runtime::with_runtime,
};
use crate::upkeep::{Listed, Mended, Progress};

/// Looks through all pages of a partition, and replaces those that are not well.
/// Blocks.
pub(super) fn repair(node: &Node, text: &str) -> anyhow::Result<Answer> {
    let partition = node.parse_partition(text)?;
    let head = node.store.head(&partition).ok_or_else(|| no_partition(&partition))?;
    let run = node.upkeep.list_run("repair", partition.to_string())?;
    let findings = node.upkeep.look_through(&partition, |inspection| {
        run.tell(inspection.progress(&head));
        run.is_stopped()
    })?;
    if findings.pages.is_empty() {
        let log = mend_log(node, &partition, &findings.log, &run)?;
        // Of a partition that waits for a person there is nothing to repair, and it is
        // not well.
        let waits = node.store.quarantine_reason(&partition);
        let answer = json!({
            "partition": partition.to_string(),
            "found": findings.log,
            "log": log.numbers,
            "log_peers": log.peers,
            "peer": null,
            "seq": head.seq(),
            "pages": 0,
            "records": 0,
            "rebuilt": false,
            "quarantined": waits,
        });
        return Ok((answer, waits.is_some()));
    }
    let what = findings.pages.join("; ");
    if node.started.is_none() {
        bail!(
            "{partition} 已损坏（{what}）：数据须从对端取回，请启动节点，待 'creditsync status' 显示对端已连接后重试 / \
             {partition} is damaged ({what}). The pages come from a peer, so the node has to run: start it \
             ('creditsync run', or the service); it repairs itself once 'creditsync status' shows the peer \
             connected, and 'creditsync repair {partition}' does it at once"
        );
    }
    run.tell(Progress::default());
    let repaired =
        with_runtime(|runtime| runtime.block_on(node.upkeep.repair(&partition))).with_context(|| {
            format!(
                "{partition} 已损坏（{what}），未能修复：'creditsync status' 显示已连接的对端；持有该分区的对端连接后会自动修复 / \
                 {partition} is damaged ({what}) and was not repaired; 'creditsync status' shows which peers are \
                 connected and what they hold. It is repaired by itself once one that holds it is connected"
            )
        })?;
    let healed = repaired.healed;
    let log = mend_log(node, &partition, &findings.log, &run)?;
    let found = [findings.pages, findings.log].concat();
    let answer = json!({
        "partition": partition.to_string(),
        "found": found,
        "log": log.numbers,
        "log_peers": log.peers,
        "peer": repaired.peer,
        "seq": repaired.seq,
        "pages": healed.map(|healed| healed.leaves + healed.inner + healed.removed),
        "records": healed.map(|healed| healed.records),
        "rebuilt": healed.is_none(),
        "quarantined": null,
    });
    Ok((answer, false))
}

/// Mends what was found damaged of a partition's log, if anything.
fn mend_log(
    node: &Node,
    partition: &PartitionId,
    found: &[String],
    run: &Listed<'_>,
) -> anyhow::Result<Mended> {
    if found.is_empty() {
        return Ok(Mended::default());
    }
    run.tell(Progress::default());
    let mended = with_runtime(|runtime| runtime.block_on(node.upkeep.mend_log(partition)));
    mended.with_context(|| {
        let what = found.join("; ");
        format!(
            "{partition} 的变更日志已损坏（{what}），未能全部修复，记录不受影响：请启动节点，持有该分区的对端连接后会自动修复 / the log of \
             {partition} is damaged ({what}) and could not be mended in full; no record is concerned. It is mended by \
             itself while the node runs ('creditsync run', or the service) and a peer that holds it is connected \
             (creditsync status)"
        )
    })
}
