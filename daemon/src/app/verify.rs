//! Checking what this node holds: signatures, roots, and what the peers say.

use anyhow::Context as _;
use protocol::{
    change::KeyRing,
    federation::Registry,
    id::PartitionId,
    page::{decode_inner, make_inner},
    tree::{Pages as _, TreeBuilder},
};
use serde_json::{Value as Json, json};
use store::{Head, Snapshot};

use super::node::{Node, no_partition};

/// Checks one partition, or all. Something needs a person if one is not well.
pub(super) fn verify(node: &Node, only: Option<&str>, deep: bool) -> anyhow::Result<(Json, bool)> {
    let registry = node.membership.current()?;
    let mut heads = node.heads(None);
    if let Some(only) = only {
        let partition = node.parse_partition(only)?;
        heads.retain(|known, _| *known == partition);
        if heads.is_empty() {
            return Err(no_partition(&partition));
        }
    }
    let mut all_well = true;
    let mut partitions = Vec::new();
    for (partition, head) in &heads {
        let mut problems = check_head(&registry, head);
        if let Some(reason) = node.store.quarantine_reason(partition) {
            problems.push(format!("quarantined: {reason}"));
        }
        let mut records_read = None;
        if deep {
            // What cannot be read of one partition says nothing of the others.
            match check_log(node, &registry, partition, head) {
                Ok(found) => problems.extend(found),
                Err(error) => problems.push(format!("its log cannot be read: {error:#}")),
            }
            let before = problems.len();
            match check_pages(node, partition) {
                Ok((records, found)) => {
                    records_read = Some(records);
                    problems.extend(found);
                }
                Err(error) => problems.push(format!("its pages cannot be read: {error:#}")),
            }
            if problems.len() > before {
                problems.push(format!(
                    "'creditsync repair {partition}' takes damaged pages back from a connected peer"
                ));
            }
        }
        let peers = compare_with_peers(node, partition, head, &mut problems);
        all_well &= problems.is_empty();
        partitions.push(json!({
            "partition": partition.to_string(),
            "seq": head.seq(),
            "records": head.summary.records,
            "head": head.signed.hash().to_string(),
            "root": head.root().to_string(),
            "ok": problems.is_empty(),
            "deep": deep,
            "records_read": records_read,
            "compared": !peers.is_empty(),
            "peers": peers,
            "problems": problems,
        }));
    }
    Ok((json!({ "ok": all_well, "partitions": partitions }), !all_well))
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

/// Walks the log backwards as far as it is kept.
fn check_log(
    node: &Node,
    registry: &Registry,
    partition: &PartitionId,
    head: &Head,
) -> anyhow::Result<Vec<String>> {
    let mut problems = Vec::new();
    let mut expected = head.signed.hash();
    let mut seq = head.seq();
    while seq > 0 {
        let Some(signed) = node.store.header_at(partition, seq)? else {
            // Before the bootstrap of a replica there is no log; an origin that
            // never took its pages from a peer has all of its own.
            if partition.origin == *node.membership.me() && head.generation == 0 {
                problems.push(format!("number {seq} is missing in the log"));
            }
            break;
        };
        if signed.hash() != expected {
            problems.push(format!("the log is broken at number {seq}"));
            break;
        }
        if let Err(error) = signed.verify(registry as &dyn KeyRing) {
            problems.push(format!("number {seq}: {error}"));
        }
        expected = signed.header().previous;
        seq -= 1;
    }
    Ok(problems)
}

pub(super) fn check_pages(
    node: &Node,
    partition: &PartitionId,
) -> anyhow::Result<(u64, Vec<String>)> {
    let snapshot = node.store.snapshot_blocking(partition)?;
    check_tree(&mut snapshot.context("the partition is gone")?)
}

/// Hashes every record, rebuilds every inner page and compares all with what is
/// stored and signed.
fn check_tree(snapshot: &mut Snapshot) -> anyhow::Result<(u64, Vec<String>)> {
    let (suite, mut problems) = (snapshot.suite(), Vec::new());
    let mut builder = TreeBuilder::new(suite);
    let mut inner = Vec::new();
    let mut records = 0;
    for leaf in snapshot.leaves() {
        let leaf = leaf?;
        let page = leaf.describe(suite);
        records += page.records;
        if let Err(problem) = builder.push(&leaf, page, &mut inner) {
            problems.push(problem.to_string());
            return Ok((records, problems));
        }
    }
    let summary = builder.finish(&mut inner)?;
    let head = snapshot.head().clone();
    if summary != head.summary {
        problems.push(format!(
            "the pages give the root {}, the head says {}",
            summary.root, head.summary.root
        ));
    }
    for (level, expected) in (1..).zip(head.summary.pages.iter().skip(1)) {
        let mut stored = 0;
        let mut next = snapshot.seek(level, &[])?.map(|(key, _)| key);
        while let Some(key) = next {
            stored += 1;
            next = snapshot.next_key(level, &key)?;
        }
        if stored != *expected {
            problems.push(format!(
                "there are {stored} inner pages of level {level}, and not {expected}"
            ));
        }
    }
    for made in inner {
        let stored = snapshot.seek(made.level, &made.page.first_key)?;
        let same = stored.is_some_and(|(key, body)| {
            key == made.page.first_key
                && decode_inner(suite, &body)
                    .is_ok_and(|children| make_inner(suite, made.level, &children) == made)
        });
        if !same {
            problems.push(format!(
                "an inner page of level {} is not the one its leaves give",
                made.level
            ));
        }
    }
    Ok((records, problems))
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
