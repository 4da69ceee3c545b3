//! A partition's log mended: each number that is known to be damaged gets back what was
//! signed, or is left out as what is old is.
//!
//! - A *header* comes from a connected peer that keeps it. Where all that were asked keep
//!   it no more, or nobody else ever had it, its hash is left, which proves as much.
//! - A *body* is dropped: followers that are behind it take pages, by which they take only
//!   what differs, and nobody else needs it. In `_federation` it comes from a peer, since
//!   whoever joins is sent all of it.
//!
//! Used by the chore `repair` and the command. Newest numbers come first, for a header
//! vouches for the one before it. Invariant: what is not known to be equal to what was
//! signed takes no place, which the store's writer sees to, too. A mending that is stopped
//! between two numbers leaves nothing half done.

use std::collections::BTreeSet;

use anyhow::{Context as _, bail};
use protocol::{
    change::{Position, SignedHeader},
    id::{NodeId, PartitionId},
};
use store::{Head, Mend, StoreError};

use super::{
    Upkeep,
    log::{Wrong, check},
};
use crate::sync::{self, Asked};

/// Times that a number is looked at: its header, its body, and that all is well.
const LOOKS_MAX: usize = 3;

/// What a mending has done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mended {
    /// Numbers of the log that are well now.
    pub numbers: u64,
    /// Who had what was taken back.
    pub peers: BTreeSet<NodeId>,
}

impl Upkeep {
    /// Mends what is known to be damaged of a partition's log.
    ///
    /// # Errors
    /// If something of it is still damaged; each number is noted in the store with the
    /// reason.
    pub async fn mend_log(&self, partition: &PartitionId) -> anyhow::Result<Mended> {
        let store = &self.context.store;
        let (mut mended, mut failed) = (Mended::default(), Vec::new());
        for seq in store.known_log_damage(partition).into_keys().rev() {
            match self.mend_number(partition, seq, &mut mended.peers).await {
                Ok(()) => {
                    store.log_is_well(partition, seq);
                    mended.numbers += 1;
                }
                Err(error) => {
                    let problem = format!("第 {seq} 号 / number {seq}: {error:#}");
                    store.note_log_damage(partition, seq, problem.clone());
                    failed.push(problem);
                }
            }
        }
        match failed.first() {
            None => Ok(mended),
            Some(first) => bail!("{partition} ({}): {first}", failed.len()),
        }
    }

    async fn mend_number(
        &self,
        partition: &PartitionId,
        seq: u64,
        peers: &mut BTreeSet<NodeId>,
    ) -> anyhow::Result<()> {
        let mut last = String::new();
        for _ in 0..LOOKS_MAX {
            let head = self.context.store.head(partition).filter(|head| head.seq() >= seq);
            // What was dropped, or given up, meanwhile is not damaged.
            let Some(head) = head else {
                return Ok(());
            };
            let wrong = self.look_at_number(partition, &head, seq).await?;
            let peer = match wrong {
                None | Some(Wrong::Key(_)) => return Ok(()),
                Some(Wrong::Header(problem)) => {
                    let peer = self.mend_header(partition, &head, seq).await;
                    last.clone_from(&problem);
                    peer.context(problem)?
                }
                Some(Wrong::Hash(problem)) => {
                    let hash = self.context.store.vouched_hash_at(partition, seq)?;
                    let hash = hash.with_context(|| problem.clone())?;
                    self.put(partition, seq, Mend::Hash(hash)).await?;
                    last = problem;
                    None
                }
                Some(Wrong::Body(problem)) => {
                    let peer = self.mend_body(partition, seq).await;
                    last.clone_from(&problem);
                    peer.context(problem)?
                }
            };
            tracing::info!(%partition, seq, peer = peer.as_ref().map(NodeId::as_str), problem = %last, "a damaged change set of the log is mended");
            peers.extend(peer);
        }
        bail!("{last}")
    }

    async fn look_at_number(
        &self,
        partition: &PartitionId,
        head: &Head,
        seq: u64,
    ) -> anyhow::Result<Option<Wrong>> {
        let (context, partition, head) = (self.context.clone(), partition.clone(), head.clone());
        let look = move || {
            let registry = context.membership.current()?;
            check(&context, &partition, &head, seq, &*registry)
        };
        Ok(tokio::task::spawn_blocking(look).await??)
    }

    /// Puts the header of a number right; answers who had it.
    async fn mend_header(
        &self,
        partition: &PartitionId,
        head: &Head,
        seq: u64,
    ) -> anyhow::Result<Option<NodeId>> {
        let store = &self.context.store;
        if seq == head.seq() {
            // The head is kept in another place as well.
            head.signed.verify(&*self.context.membership.current()?)?;
            self.put(partition, seq, Mend::Header(Box::new(head.signed.clone()))).await?;
            return Ok(None);
        }
        let is_right = |header: &SignedHeader| {
            let previous = Some(header.header().previous);
            store.is_vouched(partition, header.position(), previous).unwrap_or(false)
        };
        let asked = sync::ask_for_header(&self.context, partition, seq, is_right).await;
        let Some((peer, header)) = asked.found else {
            return self.leave_out(partition, seq, &asked).await.map(|()| None);
        };
        self.put(partition, seq, Mend::Header(Box::new(header))).await?;
        Ok(Some(peer))
    }

    /// Leaves the hash of a header that nobody keeps any more, or nothing where not even
    /// that is known.
    async fn leave_out<T>(
        &self,
        partition: &PartitionId,
        seq: u64,
        asked: &Asked<T>,
    ) -> anyhow::Result<()> {
        let store = &self.context.store;
        let is_own = partition.origin == *self.context.membership.me();
        let was_never_held = || store.acks(partition).values().all(|ack| ack.seq < seq);
        let is_gone =
            asked.failed.is_empty() && (!asked.without.is_empty() || is_own && was_never_held());
        if partition.dataset.is_system() || !is_gone {
            bail!(not_here(asked));
        }
        let mend = match store.vouched_hash_at(partition, seq)? {
            Some(hash) => Mend::Hash(hash),
            None if is_own => bail!(
                "对端也已不再保存，且其后的记录头也已损坏 / no peer keeps it any more, and what is kept behind it does not say \
                 which one it was"
            ),
            None => Mend::Nothing,
        };
        self.put(partition, seq, mend).await?;
        Ok(())
    }

    /// Puts the body of a number right, whose header is well; answers who had it.
    async fn mend_body(&self, partition: &PartitionId, seq: u64) -> anyhow::Result<Option<NodeId>> {
        let store = &self.context.store;
        if !partition.dataset.is_system() {
            self.put(partition, seq, Mend::NoBody).await?;
            return Ok(None);
        }
        let header = store.header_at(partition, seq)?.context("its header is gone")?;
        let before = (seq > 1).then(|| Position { seq: seq - 1, hash: header.header().previous });
        let is_right = |found: &SignedHeader| found.hash() == header.hash();
        let asked = sync::ask_for_change_set(&self.context, partition, seq, before, is_right).await;
        let Some((peer, set)) = asked.found else { bail!(not_here(&asked)) };
        self.put(partition, seq, Mend::Body(Box::new(set))).await?;
        Ok(Some(peer))
    }

    async fn put(&self, partition: &PartitionId, seq: u64, mend: Mend) -> Result<(), StoreError> {
        self.context.store.mend_log(partition, seq, mend).await
    }
}

/// Why nothing came of asking.
fn not_here<T>(asked: &Asked<T>) -> String {
    if !asked.failed.is_empty() {
        return asked.failed.join("; ");
    }
    match asked.without.is_empty() {
        true => "持有它的对端未连接 / no peer that holds it is connected".to_owned(),
        false => {
            let names: Vec<&str> = asked.without.iter().map(NodeId::as_str).collect();
            let names = names.join(", ");
            format!("{names} 已不再保存 / {names} does not keep it any more")
        }
    }
}
