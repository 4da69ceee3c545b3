//! What needs somebody's attention as things are now: certificates that have not begun,
//! partitions that cannot be taken or sent, a disk that fills up.
//!
//! Used by `status` and `cert check`, which show it with the alarms that are raised and cleared
//! (`alarms`). Invariant: however many partitions are in trouble, and whoever sees to
//! that, each kind of trouble is heard of, and no peer's is pushed out by how many another
//! one has; of more peers than are named, how many partitions of theirs there are.

use std::collections::BTreeMap;

use certs::identity;
use protocol::{
    federation::CaKind,
    id::{NodeId, PartitionId},
    message::CloseCode,
};
use rustls::pki_types::CertificateDer;
use store::{Head, Room};
use time::OffsetDateTime;

use super::{node::Node, opening};

const MIB: u64 = 1024 * 1024;
/// Partitions of one kind of trouble that are named one by one.
const NAMED_MAX: usize = 20;
/// Partitions of one peer's that are named one by one: it may announce as many as it
/// likes.
const OF_ONE_PEER_MAX: usize = 5;
/// The part of a disk that is left when it is said to be nearly full.
const DISK_LOW_PART: u64 = 20;
/// Bytes that are left of a large disk when it is said to be nearly full: its twentieth
/// would last for years.
const DISK_LOW_MOST: u64 = 4 * 1024 * MIB;
/// The part of its quota, in percent, from which on a peer is said to need more soon.
const QUOTA_LOW_PERCENT: u64 = 90;

/// The nodes that this one talks to: all members at the hub, the hub at a
/// member.
pub(super) fn peer_names(node: &Node) -> anyhow::Result<Vec<NodeId>> {
    if !node.is_hub() {
        return Ok(vec![node.membership.hub().clone()]);
    }
    let registry = node.membership.current()?;
    let members = registry.members().iter().filter(|(_, member)| !member.removed);
    let names = members.map(|(name, _)| name.clone());
    Ok(names.filter(|name| name != node.membership.me()).collect())
}

/// Everything that is wrong now, what stops most of it first.
pub(super) fn alarms(node: &Node, peers: &[NodeId]) -> anyhow::Result<Vec<String>> {
    let mut alarms = node.alarms.texts();
    node.sync.peers.visit(|_, peer| alarms.extend(peer.alarm.clone()));
    alarms.extend(shut_out(node));
    alarms.extend(not_begun(node, OffsetDateTime::now_utc())?);
    alarms.extend(disk_nearly_full(node)?);
    let quarantined = quarantined(node);
    let (mut untaken, mut unsent) = (Vec::new(), Vec::new());
    node.sync.peers.visit(|name, peer| {
        let troubles = peer.troubles.iter().filter(|(partition, _)| {
            // Of one that is quarantined somebody speaks already.
            peer.alarming.contains(partition) && !quarantined.contains_key(partition)
        });
        untaken.push(troubles.map(|(name, why)| format!("{name}: {why}")).collect());
        let text = |partition| format!("{name}: {partition}: {}", CloseCode::NoRoom);
        unsent.push(peer.no_room.iter().map(text).collect());
    });
    alarms.extend(some_of(vec![quarantined.into_values().collect()], NAMED_MAX));
    alarms.extend(some_of(vec![damaged(node)], NAMED_MAX));
    let held = node.store.held_own_writes().into_values().collect();
    alarms.extend(some_of(vec![held], NAMED_MAX));
    alarms.extend(opening::set_aside(&node.dir));
    alarms.extend(node.upkeep.attention());
    alarms.extend(some_of(untaken, OF_ONE_PEER_MAX));
    alarms.extend(some_of(unsent, OF_ONE_PEER_MAX));
    alarms.extend(node.sync.claims.alarms(|partition| node.store.seq(partition)));
    if let Some(trustee) = &node.trustee {
        alarms.extend(some_of(vec![trustee.own_history_alarms()?], NAMED_MAX));
    }
    for name in peers {
        alarms.extend(nearly_full(node, name, node.store.room_of(name)?));
    }
    Ok(alarms)
}

/// Some of each peer's, [`NAMED_MAX`] in all, and how many more there are.
fn some_of(peers: Vec<Vec<String>>, of_one_max: usize) -> Vec<String> {
    let all: usize = peers.iter().map(Vec::len).sum();
    let mut some = Vec::new();
    // The first of each, then the second ones: nobody's are pushed out by another's.
    for nth in 0..of_one_max {
        some.extend(peers.iter().filter_map(|of_one| of_one.get(nth).cloned()));
    }
    some.truncate(NAMED_MAX);
    let more = all - some.len();
    if more > 0 {
        some.push(format!(
            "{more} more partitions are in trouble like that; those that stay will be named when some of these \
             are well / 另有 {more} 个分区有同样的问题，上述问题解决后将继续列出"
        ));
    }
    some
}

/// Partitions that are quarantined, and what to do.
fn quarantined(node: &Node) -> BTreeMap<PartitionId, String> {
    let text = |partition: &PartitionId, reason: String| {
        let origin = &partition.origin;
        let (zh, en) = match (partition.dataset.is_system(), origin == node.membership.me()) {
            // The hub's list of members goes by what the hub says.
            (true, _) => (
                format!(
                    "请先致电市级中心查明原因，再执行 creditsync partition refetch {partition}"
                ),
                format!(
                    "Call the municipal centre and find out why, then: creditsync partition refetch {partition}"
                ),
            ),
            (false, true) => (
                format!(
                    "请选定以哪一份继续：creditsync partition resolve {partition} --keep hub（以对端持有的为准）或 --keep origin\
                     （以本机内容为准，差异重新签发）；两种做法都会先把本机内容另存为文件"
                ),
                format!(
                    "Say with which one it goes on: creditsync partition resolve {partition} --keep hub (what the peer \
                     holds), or --keep origin (what is here, its difference issued again); either sets aside what is here \
                     in a file first"
                ),
            ),
            (false, false) => (
                format!(
                    "请在 {origin} 执行 creditsync partition resolve {partition} --keep hub 或 --keep origin，之后自动恢复"
                ),
                format!(
                    "At {origin}: creditsync partition resolve {partition} --keep hub, or --keep origin; after that it goes \
                     on by itself"
                ),
            ),
        };
        format!(
            "{partition} is quarantined, and nothing of it is taken: {reason}. {en} / {partition} 已隔离，不再接收。{zh}"
        )
    };
    let partitions = node.heads(None).into_keys();
    let quarantined = partitions.filter_map(|partition| {
        let reason = node.store.quarantine_reason(&partition)?;
        let text = text(&partition, reason);
        Some((partition, text))
    });
    quarantined.collect()
}

/// Partitions of which something is damaged or lost here.
fn damaged(node: &Node) -> Vec<String> {
    let heads = node.heads(None);
    let damaged = heads.iter().filter_map(|(partition, head)| {
        Some(format!("{partition}: {}", damage(node, partition, head)?))
    });
    let lost = node.store.lost().into_iter();
    let gone = lost.filter(|(partition, _)| !heads.contains_key(partition));
    let gone = gone
        .map(|(partition, lost)| format!("{partition}: {}", lost_text(node, &partition, 0, lost)));
    damaged.chain(gone).collect()
}

/// What of a partition is damaged here, or was lost.
pub(super) fn damage(node: &Node, partition: &PartitionId, head: &Head) -> Option<String> {
    if let Some(damage) = node.store.known_damage(partition) {
        return Some(format!(
            "存储的数据页已损坏，不会对外提供或签名，将自动从对端取回：{damage} / stored pages are damaged; nothing of them is \
             shown or signed, and they are taken back from a peer by itself: {damage}"
        ));
    }
    let lost = node.store.lost().get(partition).copied()?;
    let have = head.seq();
    Some(lost_text(node, partition, have, lost))
}

/// What is said of a partition that has lost numbers which were durable once.
pub(super) fn lost_text(node: &Node, partition: &PartitionId, have: u64, lost: u64) -> String {
    let own = partition.origin == *node.membership.me();
    let (zh, en) = match own {
        true if partition.dataset.is_system() => (
            "任一成员连接后将自动取回，取回之前不写入；若已没有成员，请从备份恢复（docs/backup.zh-CN.md）",
            "it is taken back from any member that connects, and nothing is written until then; if there is none, restore a \
             backup (docs/backup.md)",
        ),
        false => ("将自动从对端取回", "it is taken back from its peer by itself"),
        true => (
            "正从对端取回，取回之前本分区暂停写入；若对端没有，请执行 creditsync partition refetch 后重新交付最近的文件",
            "it is taken back from a peer that holds it, and nothing is written to the partition until then; if no \
             peer holds it: creditsync partition refetch, and deliver the newest files again",
        ),
    };
    format!(
        "本机曾保存到第 {lost} 号，现只到第 {have} 号，数据库可能损坏或来自旧备份；{zh} / it was here up to number {lost} and \
         ends at number {have} now: the database is damaged, or of an older time; {en}"
    )
}

/// The hub lets this node in no more, until a person does something about it.
fn shut_out(node: &Node) -> Option<String> {
    if node.is_hub() {
        return None;
    }
    let hub = node.membership.hub();
    let code = node.sync.peers.with(hub, |peer| peer.shut_out)?;
    Some(format!(
        "the hub {hub} lets this node in no more: {code}. Nothing that is delivered here reaches it meanwhile, and \
         nothing is lost / 市级中心 {hub} 不再接受本节点的连接，此间交付的数据不会送达，也不会丢失"
    ))
}

/// Certificates in use that begin after now: whoever they are shown to refuses them.
fn not_begun(node: &Node, now: OffsetDateTime) -> anyhow::Result<Vec<String>> {
    let mut texts = Vec::new();
    let begins = node.keeper.shown().replication.facts()?.not_before;
    let (says, begins) = (certs::date(now), (now < begins).then(|| certs::date(begins)));
    if let Some(begins) = begins {
        let (advice, advice_zh) = match (node.keeper.is_foreign(), node.is_hub()) {
            (true, _) => (
                "replace the files that [tls] in creditsync.toml names",
                "请更换 creditsync.toml 中 [tls] 所指的文件",
            ),
            (false, true) => (
                "it is replaced by itself within seconds, or with: creditsync cert renew",
                "数秒内会自动更换，也可执行 creditsync cert renew",
            ),
            (false, false) => (
                "it is replaced by itself while the hub is connected; else ask the hub for a new token and use it \
                 here: creditsync join",
                "与市级中心连接时会自动更换；否则请向中心索取新令牌，在本机执行 creditsync join",
            ),
        };
        texts.push(format!(
            "this node's certificate begins on {begins}, and by this machine's clock it is {says} now, so every peer \
             refuses it: a clock was ahead when it was issued, or this machine's is behind. Compare it with the right \
             time (date -u); if it is right, {advice} / 本节点证书自 {begins} 起才生效，而本机时间为 {says}，对方均会拒绝：\
             签发时时钟快了，或本机时钟慢了。请先核对本机时间；时间无误，则{advice_zh}"
        ));
    }
    if node.registrar.is_some()
        && let Some((number, known)) = node.membership.current()?.active_ca(CaKind::Issuing)
    {
        let certificate = CertificateDer::from(known.certificate.clone());
        let begins = identity::facts(&certificate)?.not_before;
        if now < begins {
            let begins = certs::date(begins);
            texts.push(format!(
                "issuing CA {number} begins on {begins}, and by this machine's clock it is {says} now, so nothing can be \
                 issued: the clock was ahead when it was made, or is behind now. If it is right: creditsync ca rotate \
                 (with the root key) until 'creditsync ca show' says none, then a new token for every node that stays \
                 away / 签发机构 {number} 自 {begins} 起才生效，而本机时间为 {says}，无法签发证书：生成时时钟快了，或本机时钟慢了。\
                 时间无误，则执行 creditsync ca rotate（需要根密钥）直至下一步为 none，再为仍未连接的节点各生成一个新令牌"
            ));
        }
    }
    Ok(texts)
}

/// Whether the store will soon refuse to write.
fn disk_nearly_full(node: &Node) -> anyhow::Result<Option<String>> {
    let (capacity, left) = (node.store.capacity()?, node.store.room_left()?);
    Ok((left < (capacity / DISK_LOW_PART).min(DISK_LOW_MOST)).then(|| {
        let (left_mb, path) = (left / MIB, node.store.path().display());
        format!(
            "the disk of {path} is nearly full: {left_mb} MiB are left before nothing is written any more. Make room / \
             {path} 所在磁盘即将写满：再写入 {left_mb} MiB 后将停止写入，请清理磁盘"
        )
    }))
}

/// Whether a peer's data has nearly all the room that it may have here.
fn nearly_full(node: &Node, name: &NodeId, room: Room) -> Option<String> {
    let quota = room.quota.filter(|quota| room.used > quota / 100 * QUOTA_LOW_PERCENT)?;
    let (used_mb, quota_mb) = (room.used.div_ceil(MIB), quota / MIB);
    Some(format!(
        "the data of {name} counts for {used_mb} MiB here, and {quota_mb} MiB is its quota: beyond it nothing \
         of {name} is taken. Raise origin_quota_mb in {}, or have it delete what it does not need / \
         {name} 的数据已占 {used_mb} MiB，配额为 {quota_mb} MiB，超出后不再接收：请调高 origin_quota_mb，或请对方清理数据",
        node.dir.config().display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobodys_troubles_push_out_anothers() {
        let of = |name: &str, count: usize| -> Vec<String> {
            (0..count).map(|number| format!("{name} {number}")).collect()
        };
        assert_eq!(some_of(vec![], 5), [""; 0]);
        assert_eq!(some_of(vec![of("a", 2), vec![], of("b", 1)], 5), ["a 0", "b 0", "a 1"]);
        let some = some_of(vec![of("a", 10_000), of("b", 1), of("c", 7)], 5);
        assert_eq!(some.len(), 12);
        assert!(some.contains(&"b 0".to_owned()) && some.contains(&"c 4".to_owned()));
        assert!(some[11].starts_with("9997 more partitions"), "{}", some[11]);
        let many = some_of((0..30).map(|number| of(&number.to_string(), 1)).collect(), 5);
        assert_eq!((many.len(), many[20].starts_with("10 more")), (21, true));
        let alone = some_of(vec![of("a", 30)], NAMED_MAX);
        assert_eq!((alone.len(), alone[20].starts_with("10 more")), (21, true));
    }
}
