//! How far the hub is believed about what earlier signing keys of this node have
//! signed (`last` of SPEC.md, section 11).
//!
//! Used by the member's trustee. A last number above this node's own head is a claim
//! like one on the control stream: what the hub holds it announces there, and the
//! proof of that is asked for ([`crate::sync::Claims`]). Invariant: without a proof a
//! last number stops writes only after a join, which a person asked for with a token,
//! and only until the hub has answered: a directory that is new, or from before, does
//! not know what the one before it has signed. Otherwise a person is told. Not here:
//! which numbers a key counts for (`protocol::federation`).

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
};

use certs::keyfile;
use protocol::{
    federation::{KnownKey, Registry},
    id::PartitionId,
};
use store::Store;

use super::dir::{NodeDir, remove};
use crate::{membership::Membership, sync::Claims};

/// Lies there from the beginning of a join until the hub has answered what it holds
/// of this node's own history, or that is back.
const JOINED_FILE: &str = "joined";
const JOINED_TEXT: &[u8] =
    b"This node has joined, and its own history may not be back from the hub yet.\n";

/// What the hub's list of members says of this node's own partitions beyond their
/// heads, and what is done about it.
pub(super) struct OwnHistory {
    joined: PathBuf,
    store: Store,
    membership: Arc<Membership>,
    claims: Arc<Claims>,
    /// A join is under way, so `_federation` may be here in part.
    joining: AtomicBool,
    /// The hub has said what it holds since the last join, or the start.
    heard: AtomicBool,
    /// What a line of the log was written about. Held while anything is settled: who
    /// looks in between would settle it by what was known before.
    told: Mutex<BTreeMap<PartitionId, u64>>,
}

/// A last number above the head of an own partition.
struct Ahead {
    /// The highest of all keys.
    last: u64,
    /// The highest of those that another key follows, which does not count up to it.
    earlier: u64,
    head: u64,
}

/// While it is held, this node joins again.
pub(in crate::app) struct Joining<'a>(&'a OwnHistory);

impl Drop for Joining<'_> {
    fn drop(&mut self) {
        // What was asked before was judged by the list of members from before.
        self.0.claims.ask_again();
        self.0.joining.store(false, Ordering::Relaxed);
    }
}

impl OwnHistory {
    pub fn new(
        dir: &NodeDir,
        store: Store,
        membership: Arc<Membership>,
        claims: Arc<Claims>,
    ) -> Self {
        let (joining, heard) = (AtomicBool::new(false), AtomicBool::new(false));
        let (joined, told) = (joined_path(dir), Mutex::default());
        Self { joined, store, membership, claims, joining, heard, told }
    }

    /// From now on, also after a crash, last numbers are believed until the hub has
    /// answered.
    pub fn join_begins(&self) -> anyhow::Result<Joining<'_>> {
        let _one_at_a_time = self.told();
        self.joining.store(true, Ordering::Relaxed);
        let joining = Joining(self);
        self.heard.store(false, Ordering::Relaxed);
        keyfile::write_public(&self.joined, JOINED_TEXT)?;
        Ok(joining)
    }

    /// The hub has said on a connection what it holds of this node's own history; what
    /// it holds more is noted as a claim by then.
    pub fn heard(&self) {
        self.heard.store(true, Ordering::Relaxed);
    }

    /// Goes by what `_federation` says now, and by what the hub has answered. Blocks.
    pub fn settle(&self) -> anyhow::Result<()> {
        let mut told = self.told();
        let mut ahead = self.ahead(&*self.membership.current()?);
        let has_joined = self.joined.exists();
        let mut awaited = BTreeMap::new();
        for (partition, it) in ahead.iter().filter(|_| has_joined) {
            if it.earlier > it.head && !self.is_answered(partition) {
                awaited.insert(partition.clone(), it.earlier);
            }
        }
        ahead.retain(|partition, _| {
            !awaited.contains_key(partition)
                && !self.claims.is_open(partition, self.store.seq(partition))
        });
        let is_over = has_joined && awaited.is_empty() && !self.joining.load(Ordering::Relaxed);
        self.store.await_earlier_keys(awaited);
        for (partition, Ahead { last, head, .. }) in &ahead {
            if told.get(partition) != Some(last) {
                tracing::error!(
                    %partition, last, head,
                    "the hub's list of members says that a key of ours has signed more of our own history than is here, and nothing proves it; we go on writing"
                );
            }
        }
        *told = ahead.into_iter().map(|(partition, it)| (partition, it.last)).collect();
        if is_over {
            remove(&self.joined)?;
        }
        Ok(())
    }

    /// Whether the hub was asked what it holds of a partition, and holds no more of it
    /// that this node has signed.
    fn is_answered(&self, partition: &PartitionId) -> bool {
        self.heard.load(Ordering::Relaxed)
            && !self.claims.is_open(partition, self.store.seq(partition))
    }

    /// Whether the hub has said what it holds of this node's own history, and nothing of
    /// that is missing here, as far as it is proved.
    pub fn is_back(&self) -> bool {
        // The list of members may still be on its way here.
        self.heard.load(Ordering::Relaxed)
            && !self.claims.any_open(|it| self.store.seq(it), |_| true)
    }

    fn told(&self) -> MutexGuard<'_, BTreeMap<PartitionId, u64>> {
        // What it guards may be looked at again after anything.
        self.told.lock().unwrap_or_else(|error| error.into_inner())
    }

    /// What a person has to know of last numbers that are above the heads here.
    pub fn alarms(&self) -> anyhow::Result<Vec<String>> {
        let awaited = self.store.awaited_earlier_keys();
        let text = |(partition, it): (PartitionId, Ahead)| match awaited.contains_key(&partition) {
            true => Some(it.awaited(&partition)),
            // Of that the claim speaks.
            false if self.claims.is_open(&partition, self.store.seq(&partition)) => None,
            false => Some(it.unproven(&partition)),
        };
        let ahead = self.ahead(&*self.membership.current()?);
        Ok(ahead.into_iter().filter_map(text).collect())
    }

    /// Own partitions in which a key of this node has a last number above the head.
    fn ahead(&self, registry: &Registry) -> BTreeMap<PartitionId, Ahead> {
        let me = self.membership.me();
        let Some((newest, earlier)) = registry.keys(me).split_last() else {
            return BTreeMap::new();
        };
        let mut ahead = BTreeMap::new();
        let mut note = |key: &KnownKey, is_newest: bool| {
            for (name, &last) in key.record.last.iter().flatten() {
                let Ok(partition) = PartitionId::parse(registry.federation(), name) else {
                    continue;
                };
                // Nobody writes to a dataset that nobody has published.
                let is_own = partition.origin == *me && !partition.dataset.is_system();
                let head = self.store.seq(&partition);
                if last <= head || !is_own || registry.schema(&partition.dataset).is_none() {
                    continue;
                }
                let known = ahead.entry(partition).or_insert(Ahead { last, earlier: 0, head });
                known.last = known.last.max(last);
                if !is_newest {
                    known.earlier = known.earlier.max(last);
                }
            }
        };
        earlier.iter().for_each(|key| note(key, false));
        note(newest, true);
        ahead
    }
}

impl Ahead {
    fn awaited(&self, partition: &PartitionId) -> String {
        let Self { earlier: last, head, .. } = self;
        format!(
            "{partition}：本节点已重新加入，先前的签名密钥已签到第 {last} 号，本机只到第 {head} 号；连接市级中心后会自动取回，取回之前\
             暂停写入 / {partition}: this node has joined again, and an earlier signing key of it has signed up to \
             number {last}, while here it ends at number {head}. It is taken back by itself once the hub is \
             connected, and nothing is written to it until then"
        )
    }

    fn unproven(&self, partition: &PartitionId) -> String {
        let Self { last, earlier, head } = self;
        let (nobody_zh, nobody_en) = match earlier > head {
            true => (
                "，在更正之前，其他节点不接收该编号及以前的新记录",
                ", but up to that number nobody takes it until the list is corrected",
            ),
            false => ("", ""),
        };
        format!(
            "{partition}：市级中心的成员名册称本节点的密钥已签到第 {last} 号，本机只到第 {head} 号，但未出示本节点的签名；本节点继续写入\
             {nobody_zh}。请致电市级中心核实：若其不知情，中心的签名密钥可能已被盗用 / {partition}: the hub's list of \
             members says that a key of this node has signed up to number {last}, and here it ends at number {head}; \
             but the hub shows nothing that this node has signed. This node goes on writing{nobody_en}. Call the \
             municipal centre: if it knows nothing of this, its signing key may be stolen"
        )
    }
}

/// A directory joins that does not know what one before it has signed: its last
/// numbers are believed until the hub has answered.
pub(super) fn note_new_directory(dir: &NodeDir) -> anyhow::Result<()> {
    Ok(keyfile::write_public(&joined_path(dir), JOINED_TEXT)?)
}

fn joined_path(dir: &NodeDir) -> PathBuf {
    dir.certs().join(JOINED_FILE)
}
