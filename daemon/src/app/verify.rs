//! Checking what this node holds: signatures, roots, and what the peers say.

use anyhow::bail;
use protocol::{
    change::KeyRing,
    federation::Registry,
    id::{NodeId, PartitionId},
    moment::rfc3339,
};
use serde_json::{Value as Json, json};
use store::Head;

use super::{
    attention,
    node::{Node, no_partition},
};

/// Checks one partition, or all. Something needs a person if one is not well.
pub(super) fn verify(node: &Node, only: Option<&str>, deep: bool) -> anyhow::Result<(Json, bool)> {
    let registry = node.membership.current()?;
    let mut heads = node.heads(None);
    let mut gone = node.store.lost();
    gone.retain(|partition, _| !heads.contains_key(partition));
    if let Some(only) = only {
        let partition = node.parse_partition(only)?;
        heads.retain(|known, _| *known == partition);
        gone.retain(|known, _| *known == partition);
        if heads.is_empty() && gone.is_empty() {
            return Err(no_partition(&partition));
        }
    }
    let lost = node.store.lost();
    let (mut all_well, mut needs_a_person) = (true, false);
    let mut partitions = Vec::new();
    for (partition, head) in &heads {
        let mut problems = check_head(&registry, head);
        if let Some(reason) = node.store.quarantine_reason(partition) {
            problems.push(format!("quarantined: {reason}"));
        }
        let mut records_read = None;
        let mut damage: Vec<String> = node.store.known_damage(partition).into_iter().collect();
        if deep {
            let run = node.upkeep.list_run("verify", partition.to_string())?;
            let looked = node.upkeep.look_through(partition, |inspection| {
                run.tell(inspection.progress(head));
                run.is_stopped()
            });
            match looked {
                Ok(findings) => {
                    records_read = Some(findings.records);
                    if !findings.log.is_empty() {
                        problems.extend(findings.log);
                        problems.push(format!(
                            "变更日志的损坏会自动修复，也可执行 'creditsync repair {partition}'，记录不受影响 / damage of the log is mended \
                             by itself, or at once by 'creditsync repair {partition}'; no record is concerned"
                        ));
                    }
                    problems.extend(findings.keys);
                    damage = findings.pages;
                }
                Err(_) if run.is_stopped() => bail!(
                    "核对已停止：{partition} 及其后的分区未核对完，请重新执行 'creditsync verify --deep' / the check was stopped \
                     at {partition}: what comes after it was not checked; give 'creditsync verify --deep' again"
                ),
                // What cannot be read of one partition says nothing of the others.
                Err(error) => damage.push(format!("it cannot be read: {error:#}")),
            }
        }
        if !damage.is_empty() {
            problems.extend(damage);
            problems.push(format!(
                "损坏的数据页会自动从对端取回，也可执行 'creditsync repair {partition}' / damaged pages are taken back from a \
                 connected peer by themselves, or at once by 'creditsync repair {partition}'"
            ));
        }
        if let Some(lost) = lost.get(partition) {
            problems.push(format!(
                "number {lost} was here once, and number {} is the last one now",
                head.seq()
            ));
        }
        let peers = compare_with_peers(node, partition, head, &mut problems);
        all_well &= problems.is_empty();
        let uncompared = match peers.is_empty() && problems.is_empty() {
            true => awaited(node, &registry, partition),
            false => None,
        };
        needs_a_person |= uncompared.is_some();
        partitions.push(json!({
            "partition": partition.to_string(),
            "seq": head.seq(),
            "records": head.summary.records,
            "head": head.signed.hash().to_string(),
            "root": head.root().to_string(),
            "ok": problems.is_empty(),
            "deep": deep,
            "records_read": records_read,
            "pages_checked_at": node.upkeep.checked_at(partition).map(rfc3339),
            "compared": !peers.is_empty(),
            "uncompared": uncompared,
            "peers": peers,
            "problems": problems,
        }));
    }
    for (partition, lost) in &gone {
        all_well = false;
        let problem = attention::lost_text(node, partition, 0, *lost);
        partitions.push(json!({
            "partition": partition.to_string(),
            "seq": 0,
            "records": 0,
            "head": null,
            "root": null,
            "ok": false,
            "deep": deep,
            "records_read": null,
            "pages_checked_at": null,
            "compared": false,
            "uncompared": null,
            "peers": [],
            "problems": [problem],
        }));
    }
    Ok((json!({ "ok": all_well, "partitions": partitions }), !all_well || needs_a_person))
}

/// Why a partition was compared with nobody, where somebody should hold it. Without a
/// daemon nobody can be asked, which whoever gives the command knows.
fn awaited(node: &Node, registry: &Registry, partition: &PartitionId) -> Option<String> {
    let is_member = |name: &NodeId| {
        registry.active_member(name).is_some() && registry.revocation(name, None).is_none()
    };
    let me = node.membership.me();
    let who = match (node.is_hub(), partition.origin == *me) {
        (false, _) => node.membership.hub().to_string(),
        (true, false) if is_member(&partition.origin) => partition.origin.to_string(),
        (true, true) if registry.members().keys().any(|name| name != me && is_member(name)) => {
            "各成员 / the members".to_owned()
        }
        (true, _) => return None,
    };
    node.started?;
    Some(format!(
        "未与对端核对：{who} 未连接，或尚未说明所持内容 / compared with nobody: {who} is not connected, or has not said what it holds"
    ))
}

fn check_head(registry: &Registry, head: &Head) -> Vec<String> {
    let mut problems = Vec::new();
    let header = head.signed.header();
    if let Err(error) = head.signed.verify(registry as &dyn KeyRing) {
        problems.push(format!("number {}: {error}", header.seq));
    }
    if (header.root, header.records) != (head.summary.root, head.summary.records) {
        problems.push(format!(
            "the stored root is {}, the signed one is {}",
            head.summary.root, header.root
        ));
    }
    problems
}

/// What connected peers claim about the same partition.
fn compare_with_peers(
    node: &Node,
    partition: &PartitionId,
    head: &Head,
    problems: &mut Vec<String>,
) -> Vec<Json> {
    let mut answers = Vec::new();
    for (name, theirs) in node.sync.peers.holders(partition) {
        let Some(theirs) = theirs else {
            continue;
        };
        // An acknowledgement may be newer than the last announcement.
        let acked = node.store.acks(partition).get(&name).map_or(0, |ack| ack.seq);
        let equal = theirs.position == head.position() && theirs.root == head.root();
        if !equal && theirs.position.seq == head.seq() {
            problems.push(format!("{name} holds another history: head {}", theirs.position.hash));
        } else if !equal && acked != head.seq() {
            let which = if theirs.position.seq > head.seq() { "ahead" } else { "behind" };
            problems
                .push(format!("{name} is {which}, at number {}", theirs.position.seq.max(acked)));
        }
        answers.push(json!({
            "node": name,
            "seq": theirs.position.seq,
            "head": theirs.position.hash.to_string(),
            "root": theirs.root.to_string(),
            "records": theirs.records,
            "equal": equal,
        }));
    }
    answers
}
