//! `partition refetch`: a replica is dropped and fetched again from its origin.
//!
//! What a stolen key has put into a replica goes with it. The numbers that the key
//! used stay used, unless they are said to be nobody's: at the hub, `good` lowers
//! the last number of the origin's retired keys first, so that its next key counts
//! from there on ([`crate::app::hub`]).

use anyhow::{Context as _, bail};
use protocol::message::CloseCode;
use serde_json::json;

use super::Answer;
use crate::app::node::{Node, no_partition};

impl Node {
    pub(in crate::app) fn partition_refetch(
        &self,
        text: &str,
        good: Option<u64>,
        yes: bool,
    ) -> anyhow::Result<Answer> {
        let partition = self.parse_partition(text)?;
        if partition.origin == *self.membership.me() {
            bail!(
                "{partition} 是本节点自己的分区，不能丢弃 / {partition} is this node's own: nobody else answers \
                 for it, so it is not dropped. For damaged pages: creditsync repair {partition}"
            );
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
        if let Some(connection) = self.sync.peers.connection(&partition.origin) {
            connection.close(CloseCode::Normal);
        }
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
}
