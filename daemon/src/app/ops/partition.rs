//! `partition refetch`: a replica is dropped and fetched again from its origin; or an own
//! partition that is damaged, from whoever holds a copy.
//!
//! What a stolen key has put into a replica goes with it. The numbers that the key
//! used stay used, unless they are said to be nobody's: at the hub, `good` lowers
//! the last number of the origin's retired keys first, so that its next key counts
//! from there on ([`crate::app::hub`]).

use anyhow::{Context as _, bail};
use protocol::{
    id::{NodeId, PartitionId},
    message::CloseCode,
};
use serde_json::json;

use super::Answer;
use crate::{
    app::{
        node::{Node, no_partition},
        runtime::with_runtime,
    },
    sync,
};

impl Node {
    pub(in crate::app) fn partition_refetch(
        &self,
        text: &str,
        good: Option<u64>,
        yes: bool,
    ) -> anyhow::Result<Answer> {
        let partition = self.parse_partition(text)?;
        if partition.origin == *self.membership.me() {
            return self.refetch_own(&partition, yes);
        }
        let dropped = self.store.head(&partition).map(|head| head.seq());
        let here = dropped.is_some() || self.store.quarantine_reason(&partition).is_some();
        // With `good` the command may be given again: one before it may have died
        // when the replica was dropped already.
        if !here && good.is_none() {
            return Err(no_partition(&partition));
        }
        let origin = &partition.origin;
        let is_there = self.sync.peers.connection(origin).is_some();
        if dropped.is_some() && good.is_none() && !yes && !is_there {
            bail!(
                "{origin} 未连接，本节点的副本可能是仅存的一份，因此未丢弃；请待其连接后再执行，或加 --yes 强制丢弃 / \
                 {origin} is not connected, and the copy here may be the only one, so nothing was dropped: give the \
                 command again when it is connected (creditsync status), or with --yes to drop it all the same"
            );
        }
        if let Some(good) = good {
            let registrar = self.registrar().context("--good is for the hub alone")?;
            registrar.end_retired_keys_at(&partition, good)?;
        }
        // A key that was retired signs nothing new, which `_federation` says by now;
        // what it signed before is fetched again.
        for known in self.membership.current()?.keys(&partition.origin) {
            if known.record.last.is_some() {
                self.store.resume_key(known.public.id())?;
            }
        }
        if here {
            self.store.forget_blocking(&partition)?;
        }
        // What its stream had is gone: the next connection begins with nothing.
        self.connect_again(&partition.origin);
        tracing::warn!(%partition, dropped, good, "a replica was dropped; it is fetched again from its origin");
        Ok((
            json!({
                "partition": partition.to_string(),
                "dropped_seq": dropped,
                "good": good,
                "origin_removed": self.membership.current()?.active_member(origin).is_none(),
            }),
            false,
        ))
    }

    /// An own partition comes back from whoever holds it: what nobody else holds is lost by
    /// that, so it is only for one that is damaged, or has lost something that nobody has.
    fn refetch_own(&self, partition: &PartitionId, yes: bool) -> anyhow::Result<Answer> {
        if partition.dataset.is_system() {
            bail!(
                "{partition} 由本节点签发，损坏时会自动从成员处取回 / {partition} is what this hub says of the federation: where it is \
                 damaged it comes back from its members by itself"
            );
        }
        let head = self.store.head(partition).map(|head| head.position());
        let have = head.map_or(0, |head| head.seq);
        let lost = self.store.lost().get(partition).copied().unwrap_or(0);
        if have == 0 && lost == 0 {
            return Err(no_partition(partition));
        }
        if self.started.is_none() {
            bail!(
                "节点未运行：请先启动守护进程 / no daemon runs here, and what is fetched comes from a peer: start the node first"
            );
        }
        let peer = self.holder(partition);
        let theirs = with_runtime(|runtime| {
            Ok(runtime.block_on(sync::peer_head(&self.sync, &peer, partition))?)
        })?;
        let held = theirs.as_ref().map_or(0, |theirs| theirs.header().seq);
        let known = have.max(lost);
        if held < known && !yes {
            let (away_zh, away_en) = match self.who_holds_more(partition, held) {
                Some((node, seq)) => (
                    format!("{node} 曾确认到第 {seq} 号，但未连接，最好等其连接后再执行。"),
                    format!(
                        " {node} has acknowledged it up to number {seq} and is not connected: better wait for it."
                    ),
                ),
                None => Default::default(),
            };
            bail!(
                "{peer} 持有到第 {held} 号，而本节点曾签到第 {known} 号：其后的变更将丢失，需重新交付最近的文件。{away_zh}确认请加 --yes / \
                 {peer} holds it up to number {held}, and this node has signed it up to number {known}: what came after that \
                 would be lost here, and the newest files have to be delivered again.{away_en} With --yes it is done"
            );
        }
        self.note_given_up(partition, theirs.as_ref())?;
        match theirs {
            Some(theirs) => self.store.give_up_blocking(theirs, head)?,
            None => self.store.forget_blocking(partition)?,
        }
        self.sync.peers.connected_nodes().iter().for_each(|node| self.connect_again(node));
        tracing::warn!(%partition, %peer, have, lost, held, "our own partition was dropped; it is fetched again from the peer");
        let answer = json!({
            "partition": partition.to_string(),
            "dropped_seq": have,
            "good": null,
            "held_seq": held,
            "lost": known.saturating_sub(held),
            "origin_removed": false,
        });
        // Somebody has to deliver again.
        Ok((answer, held < known))
    }

    /// Who has acknowledged more of an own partition than `held`, and is not connected.
    fn who_holds_more(&self, partition: &PartitionId, held: u64) -> Option<(NodeId, u64)> {
        let connected = self.sync.peers.connected_nodes();
        let acks = self.store.acks(partition).into_iter();
        let away = acks.filter(|(node, ack)| ack.seq > held && !connected.contains(node));
        away.map(|(node, ack)| (node, ack.seq)).max_by_key(|(_, seq)| *seq)
    }

    /// Who is asked for an own partition: a member's hub, or at the hub whoever holds most.
    pub(super) fn holder(&self, partition: &PartitionId) -> NodeId {
        if !self.is_hub() {
            return self.membership.hub().clone();
        }
        let held = self.held_by_peers(partition).into_iter();
        let most = held.map(|(node, said)| (said.seq, node)).max();
        most.map_or_else(|| self.membership.hub().clone(), |(_, node)| node)
    }

    /// Who is asked for the other history of an own partition: whoever announces a head that
    /// is not in the one here.
    pub(super) fn holder_of_another(&self, partition: &PartitionId) -> anyhow::Result<NodeId> {
        let mut others = Vec::new();
        for (node, said) in self.held_by_peers(partition) {
            let known = self.store.header_hash_at(partition, said.seq)?;
            if known.is_none_or(|ours| ours != said.hash)
                && !self.sync.given_up.contains(&self.store, partition, said)
            {
                others.push((said.seq, node));
            }
        }
        Ok(others.into_iter().max().map_or_else(|| self.holder(partition), |(_, node)| node))
    }

    /// Whatever the connection's streams have is of no use any more.
    pub(super) fn connect_again(&self, peer: &NodeId) {
        if let Some(connection) = self.sync.peers.connection(peer) {
            connection.close(CloseCode::Normal);
        }
    }
}
