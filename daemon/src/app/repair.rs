//! Repairing what this node holds: damaged pages are taken back from a peer.

use anyhow::{Context as _, bail};
use protocol::id::PartitionId;
use serde_json::{Value as Json, json};

use super::{
    node::{Node, no_partition},
    runtime::with_runtime,
    verify::check_pages,
};
use crate::sync;

/// Looks through all pages of a partition, and replaces those that are not well.
/// Blocks.
pub(super) fn repair(node: &Node, text: &str) -> anyhow::Result<Json> {
    let partition = node.parse_partition(text)?;
    let head = node.store.head(&partition).ok_or_else(|| no_partition(&partition))?;
    let found = damage(node, &partition);
    if found.is_empty() {
        return Ok(json!({
            "partition": partition.to_string(),
            "found": found,
            "peer": null,
            "seq": head.seq(),
            "pages": 0,
            "records": 0,
            "rebuilt": false,
        }));
    }
    let what = found.join("; ");
    if node.started.is_none() {
        bail!(
            "{partition} is damaged ({what}). The pages come from a peer, so the node has to run: start it \
             ('creditsync run', or the service), wait until 'creditsync status' shows the peer connected, and repeat \
             'creditsync repair {partition}'"
        );
    }
    let repaired = with_runtime(|runtime| {
        Ok(runtime.block_on(sync::repair(&node.sync, &partition))?)
    })
    .with_context(|| {
        format!(
            "{partition} is damaged ({what}) and was not repaired; 'creditsync status' shows which peers are \
             connected and what they hold. Repeat 'creditsync repair {partition}' once one that holds it is"
        )
    })?;
    let left = damage(node, &partition);
    if !left.is_empty() {
        bail!("{partition} is still damaged: {}", left.join("; "));
    }
    let healed = repaired.healed;
    Ok(json!({
        "partition": partition.to_string(),
        "found": found,
        "peer": repaired.peer,
        "seq": repaired.seq,
        "pages": healed.map(|healed| healed.leaves + healed.inner + healed.removed),
        "records": healed.map(|healed| healed.records),
        "rebuilt": healed.is_none(),
    }))
}

/// What is wrong with a partition's pages.
fn damage(node: &Node, partition: &PartitionId) -> Vec<String> {
    match check_pages(node, partition) {
        Ok((_, problems)) => problems,
        Err(error) => vec![format!("its pages cannot be read: {error:#}")],
    }
}
