//! What `status --json` answers. The field names are a contract.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use protocol::{
    id::{NodeId, PartitionId},
    message::{Announced, CloseCode},
    moment::rfc3339,
    session::link::SILENCE_MAX,
};
use serde_json::{Value as Json, json};
use store::{Head, Room};

use super::{attention, certificates, node::Node};
use crate::sync::{in_order, peers::PeerState};

/// Partitions that are shown although nothing of them is here: a peer may name more
/// than anybody reads.
const MISSING_MAX: usize = 100;

/// The node, its peers and its partitions.
pub(super) fn status(node: &Node) -> anyhow::Result<Json> {
    let fresh = node.trustee.as_ref().and_then(|trustee| trustee.fresh_at_ms());
    let names = attention::peer_names(node)?;
    let (troubles, alarms) = (node.sync.peers.troubles(), attention::alarms(node, &names)?);
    let peers = peers(node, &names)?;
    let held: BTreeSet<_> =
        node.deliveries.list().unwrap_or_default().into_iter().map(|held| held.dataset).collect();
    let mut partitions = Vec::new();
    for (partition, head) in node.heads(None) {
        let is_held =
            partition.origin == *node.membership.me() && held.contains(&partition.dataset);
        let trouble = troubles.get(&partition);
        partitions.push(partition_json(node, &partition, &head, is_held, trouble));
    }
    let missing = troubles.iter().filter(|(partition, _)| node.store.head(partition).is_none());
    partitions.extend(
        missing
            .take(MISSING_MAX)
            .map(|(partition, trouble)| missing_json(node, partition, trouble)),
    );
    let gone = node.store.lost().into_iter();
    let gone = gone.filter(|(partition, _)| node.store.head(partition).is_none());
    partitions.extend(gone.take(MISSING_MAX).map(|(partition, lost)| {
        let mut gone =
            missing_json(node, &partition, &attention::lost_text(node, &partition, 0, lost));
        gone["state"] = "damaged".into();
        gone
    }));
    Ok(json!({
        "node": node.identity.node,
        "federation": node.identity.federation,
        "role": node.config.role(),
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_s": node.started.map(|started| started.elapsed().as_secs()),
        "peers": peers,
        "hub_addresses": hub_addresses(node),
        "partitions": partitions,
        "store": node.store.counters(),
        "certificates": certificates::list(node)?,
        "federation_fresh_at": fresh.map(|at_ms| rfc3339(at_ms / 1000)),
        "alarms": alarms,
    }))
}

/// Where the hub is dialled: at a member what it tries, in turn; at the hub what it has
/// announced.
fn hub_addresses(node: &Node) -> Vec<String> {
    in_order(&node.sync.hub_addresses(), &node.upstream.borrow())
}

/// What is known of each of them.
fn peers(node: &Node, names: &[NodeId]) -> anyhow::Result<Vec<Json>> {
    let registry = node.membership.current()?;
    let peer =
        |name: &NodeId, state: &PeerState, line: Option<(Duration, (u64, u64))>, room: Room| {
            json!({
                "node": name,
                "connected": state.connected,
                "address": state.address,
                "dialled": state.dialled,
                "since": state.since.map(time_text),
                "last_contact": state.last_contact.map(time_text),
                "rtt_ms": line.map(|(rtt, _)| (rtt.as_secs_f64() * 1_000_000.0).round() / 1000.0),
                "bytes_sent": line.map(|(_, (sent, _))| sent),
                "bytes_received": line.map(|(_, (_, received))| received),
                "certificate_not_after": state.certificate_not_after.map(rfc3339),
                "reason": peer_reason(state),
                "revoked": registry.revocation(name, None).is_some(),
                "clock_ahead_s": state.clock_ahead_ms.map(|ahead| ahead / 1000),
                "alarm": state.alarm,
                "misbehaved": state.misbehaved,
                "room": {
                    "used_bytes": room.used,
                    "share_bytes": room.share,
                    "quota_bytes": room.quota,
                },
            })
        };
    let peers = &node.sync.peers;
    let one = |name| {
        let (line, room) = (peers.line(name), node.store.room_of(name)?);
        Ok(peers.with(name, |state| peer(name, state, line, room)))
    };
    names.iter().map(one).collect()
}

/// Why a peer is not connected, or what is wrong although it is.
fn peer_reason(state: &PeerState) -> Option<String> {
    state.reason.clone().or_else(|| state.alarm.clone()).or_else(|| {
        let ahead_s = state.clock_ahead_ms.filter(|_| state.clock_differs())? / 1000;
        let way = if ahead_s > 0 { "ahead of" } else { "behind" };
        Some(format!(
            "its clock is {} s {way} this machine's: set the wrong one / 时钟相差 {0} 秒",
            ahead_s.abs()
        ))
    })
}

fn partition_json(
    node: &Node,
    partition: &PartitionId,
    head: &Head,
    is_held: bool,
    trouble: Option<&String>,
) -> Json {
    let standing = if partition.origin == *node.membership.me() {
        origin_standing(node, partition, head, is_held, trouble)
    } else {
        replica_standing(node, partition, head)
    };
    let standing = match attention::damage(node, partition, head) {
        // Of a quarantine a person has to hear first.
        Some(reason) if standing.state != "quarantined" => {
            Standing { state: "damaged", reason: Some(reason), ..standing }
        }
        _ => standing,
    };
    let acked: Vec<Json> = node
        .store
        .acks(partition)
        .iter()
        .map(|(name, ack)| json!({ "node": name, "seq": ack.seq, "at": rfc3339(ack.at_ms / 1000) }))
        .collect();
    json!({
        "partition": partition.to_string(),
        "dataset": partition.dataset,
        "origin": partition.origin,
        "audience": partition.audience.as_str(),
        "seq": head.seq(),
        "records": head.summary.records,
        "head": head.signed.hash().to_string(),
        "root": head.root().to_string(),
        "state": standing.state,
        "behind_change_sets": standing.behind,
        "lag_s": standing.lag_s,
        "reason": standing.reason,
        "updated_at": rfc3339(head.updated_ms / 1000),
        "pages_checked_at": node.upkeep.checked_at(partition).map(rfc3339),
        "fork": fork_json(node, partition),
        "acked": acked,
        "revoked": node.membership.current().is_ok_and(|registry| {
            registry.revocation(&partition.origin, None).is_some()
        }),
    })
}

/// A partition that a peer has, and of which nothing could be taken yet.
fn missing_json(node: &Node, partition: &PartitionId, trouble: &str) -> Json {
    let provider = if node.is_hub() { &partition.origin } else { node.membership.hub() };
    let theirs = node
        .sync
        .peers
        .with(provider, |peer| peer.heads.get(partition).map(|theirs| theirs.position.seq));
    json!({
        "partition": partition.to_string(),
        "dataset": partition.dataset,
        "origin": partition.origin,
        "audience": partition.audience.as_str(),
        "seq": 0,
        "records": 0,
        "head": null,
        "root": null,
        "state": "behind",
        "behind_change_sets": theirs,
        "lag_s": null,
        "reason": trouble,
        "updated_at": null,
        "pages_checked_at": null,
        "fork": null,
        "acked": [],
        "revoked": false,
    })
}

/// The signed headers that show two histories, for whoever has to judge them.
fn fork_json(node: &Node, partition: &PartitionId) -> Json {
    if node.store.quarantine_reason(partition).is_none() {
        return Json::Null;
    }
    let headers = node.store.evidence(partition).unwrap_or_default();
    let shown = headers.iter().map(|signed| {
        let header = signed.header();
        json!({
            "seq": header.seq,
            "head": signed.hash().to_string(),
            "root": header.root.to_string(),
            "records": header.records,
            "signed_at": rfc3339(header.origin_time_ms / 1000),
            "key": header.key_id.to_string(),
            "header": protocol::hex::encode(&signed.encode()),
        })
    });
    shown.collect()
}

/// How a partition stands.
#[derive(Default)]
struct Standing {
    state: &'static str,
    behind: Option<u64>,
    lag_s: Option<u64>,
    reason: Option<String>,
}

/// At its origin a partition is never behind itself; what counts is how far the
/// hub has followed.
fn origin_standing(
    node: &Node,
    partition: &PartitionId,
    head: &Head,
    is_held: bool,
    trouble: Option<&String>,
) -> Standing {
    let hub = node.membership.hub();
    let acked = node.store.acks(partition).get(hub).copied();
    let behind = if node.is_hub() {
        Some(0)
    } else {
        Some(head.seq().saturating_sub(acked.map_or(0, |ack| ack.seq)))
    };
    let beyond = node.sync.claims.proven_beyond(|it| node.store.seq(it)).get(partition).copied();
    let is_quarantined = node.store.quarantine_reason(partition).is_some();
    if let Some(beyond) = beyond.filter(|beyond| !is_quarantined && *beyond > head.seq()) {
        let have = head.seq();
        let reason = format!(
            "对端持有本节点签名的第 {beyond} 号，本机只到第 {have} 号（旧备份？）：正在自动取回，取回之前不写入 / a peer holds number \
             {beyond}, signed by this node, and here it ends at number {have} (an old backup?): it is being taken \
             back, and nothing is written until then"
        );
        let (behind, lag_s) = (Some(beyond - have), seconds_since_ms(head.updated_ms));
        return Standing { state: "behind", behind, lag_s, reason: Some(reason) };
    }
    let (state, reason) = match node.store.quarantine_reason(partition) {
        Some(reason) => ("quarantined", Some(reason)),
        None if is_held => {
            ("held", Some("a delivery waits for approval: creditsync delivery list".to_owned()))
        }
        None if node.sync.peers.with(hub, |peer| peer.no_room.contains(partition)) => {
            ("origin", Some(CloseCode::NoRoom.to_string()))
        }
        None => ("origin", trouble.cloned()),
    };
    let lag_s = match behind {
        Some(0) => Some(0),
        _ => seconds_since_ms(head.updated_ms),
    };
    Standing { state, behind, lag_s, reason }
}

/// What keeps an own partition from the hub, if anything is known of it.
pub(super) fn why_not_at_hub(node: &Node, partition: &PartitionId) -> Option<String> {
    let hub = node.membership.hub();
    let (trouble, refused, connection) = node.sync.peers.with(hub, |peer| {
        let connection = peer.reason.clone().filter(|_| !peer.connected);
        (peer.troubles.get(partition).cloned(), peer.no_room.contains(partition), connection)
    });
    let quarantine = node.store.quarantine_reason(partition);
    let refused = refused.then(|| CloseCode::NoRoom.to_string());
    quarantine.or(refused).or(trouble).or(connection)
}

/// What is to be said of a peer that provides a partition.
struct Provider {
    connected: bool,
    last_heard: Option<std::time::Instant>,
    last_contact: Option<SystemTime>,
    reason: Option<String>,
    theirs: Option<Announced>,
    trouble: Option<String>,
    fetching: bool,
}

impl Provider {
    fn of(node: &Node, provider: &NodeId, partition: &PartitionId) -> Self {
        node.sync.peers.with(provider, |peer| Self {
            connected: peer.connected,
            last_heard: peer.last_heard,
            last_contact: peer.last_contact,
            reason: peer.reason.clone(),
            theirs: peer.heads.get(partition).cloned(),
            trouble: peer.troubles.get(partition).cloned(),
            fetching: peer.fetching.contains(partition),
        })
    }
}

/// A replica is in sync only while its peer is there, was heard lately, and has
/// the same head.
fn replica_standing(node: &Node, partition: &PartitionId, head: &Head) -> Standing {
    let provider = if node.is_hub() { &partition.origin } else { node.membership.hub() };
    let peer = Provider::of(node, provider, partition);
    let theirs = peer.theirs.as_ref();
    let behind = theirs.map(|theirs| theirs.position.seq.saturating_sub(head.seq()));
    let silent = peer.last_heard.is_none_or(|heard| heard.elapsed() >= SILENCE_MAX);
    // While the peer is there, what lags is what was committed; otherwise it is
    // what was heard.
    let lag_s = if peer.connected && !silent {
        seconds_since_ms(head.updated_ms)
    } else {
        peer.last_contact.map(|contact| elapsed_since(contact).as_secs())
    };
    let not_in_sync =
        |state, reason: String| Standing { state, behind, lag_s, reason: Some(reason) };
    if let Some(reason) = node.store.quarantine_reason(partition) {
        return not_in_sync("quarantined", reason);
    }
    let registry = node.membership.current();
    let revoked =
        registry.as_ref().ok().and_then(|registry| registry.revocation(&partition.origin, None));
    if let Some(revoked) = revoked {
        let since = rfc3339(revoked.at_ms / 1000);
        let why =
            if revoked.reason.is_empty() { String::new() } else { format!(": {}", revoked.reason) };
        let reason = format!("{} was revoked on {since}{why}", partition.origin);
        return not_in_sync("behind", reason);
    }
    if !peer.connected || silent {
        let reason = match peer.reason {
            Some(reason) => format!("offline: {reason}"),
            None => "offline".to_owned(),
        };
        return not_in_sync("behind", reason);
    }
    if theirs.is_some_and(|theirs| theirs.position == head.position()) {
        return Standing { state: "in_sync", behind: Some(0), lag_s: Some(0), reason: None };
    }
    if let Some(trouble) = peer.trouble {
        return not_in_sync("behind", trouble);
    }
    if peer.fetching {
        return not_in_sync("syncing", "fetching the whole state".to_owned());
    }
    match theirs {
        None => not_in_sync("behind", format!("{provider} has not said what it holds")),
        Some(theirs) if theirs.position.seq > head.seq() => {
            not_in_sync("syncing", "change sets are on their way".to_owned())
        }
        Some(theirs) if theirs.position.seq < head.seq() => {
            not_in_sync("behind", format!("{provider} holds less than this node"))
        }
        Some(_) => not_in_sync("behind", format!("{provider} holds another history")),
    }
}

fn time_text(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    rfc3339(i64::try_from(since.as_secs()).unwrap_or_default())
}

fn elapsed_since(time: SystemTime) -> Duration {
    SystemTime::now().duration_since(time).unwrap_or_default()
}

fn seconds_since_ms(then_ms: i64) -> Option<u64> {
    let now_ms = super::now_unix().saturating_mul(1000);
    u64::try_from(now_ms.saturating_sub(then_ms) / 1000).ok()
}
