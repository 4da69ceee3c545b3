//! Where more than two histories of an own partition are held, at a hub that was put back
//! twice: those that `partition resolve` does not go on with count no more.
//!
//! Invariant: what the history that was chosen has is never given up, and a quarantine
//! that nobody has shown with signed headers stays.

use std::collections::BTreeSet;

use protocol::{
    change::{Position, SignedHeader},
    hash::Hash,
    id::{NodeId, PartitionId},
};
use serde::Serialize;

use super::super::{node::Node, runtime::with_runtime};
use crate::sync;

/// A history that is neither the one that was here nor the one that is taken back.
#[derive(Debug, Serialize)]
pub(super) struct OtherHistory {
    /// Who holds it, and has to fetch the partition again.
    pub node: NodeId,
    pub seq: u64,
}

/// Who holds what of a partition that is being resolved.
pub(super) struct Others {
    /// The head of the history that goes on.
    chosen: Position,
    /// What peers had announced when the resolution began: their connections are made anew
    /// then, and some may be late.
    held: Vec<(NodeId, Position)>,
    given_up: Vec<OtherHistory>,
    /// Who was asked whether its history, with this head, has the chosen one.
    asked: BTreeSet<(NodeId, Hash)>,
}

impl Others {
    pub fn new(chosen: &SignedHeader, held: Vec<(NodeId, Position)>) -> Self {
        let asked = BTreeSet::new();
        Self { chosen: chosen.position(), held, given_up: Vec::new(), asked }
    }

    /// Those that count no more.
    pub fn given_up(self) -> Vec<OtherHistory> {
        self.given_up
    }
}

impl Node {
    /// What connected peers say that they hold of a partition.
    pub(super) fn held_by_peers(&self, partition: &PartitionId) -> Vec<(NodeId, Position)> {
        let holders = self.sync.peers.holders(partition).into_iter();
        holders.filter_map(|(node, said)| Some((node, said?.position))).collect()
    }

    /// Gives up whatever others hold and is not of the history that is here, and ends a
    /// quarantine that one of them has brought meanwhile. Answers whether all is known: a
    /// peer with a longer history may not have shown yet what it is.
    pub(super) fn give_up_others(
        &self,
        partition: &PartitionId,
        others: &mut Others,
    ) -> anyhow::Result<bool> {
        let is_here = |position: Position| {
            let known = self.store.header_hash_at(partition, position.seq)?;
            Ok::<_, anyhow::Error>(known.map(|known| known == position.hash))
        };
        let counts = |position: Position| {
            position.hash != others.chosen.hash
                && !self.sync.given_up.contains(&self.store, partition, position)
        };
        let mut found: BTreeSet<Hash> = BTreeSet::new();
        let mut said = others.held.clone();
        said.extend(self.held_by_peers(partition));
        for (_, position) in &said {
            if counts(*position) && is_here(*position)? == Some(false) {
                found.insert(position.hash);
            }
        }
        // Of one that is longer nothing here tells: its holder shows whether it goes on
        // behind the chosen one.
        let unknown = said
            .iter()
            .filter(|(_, position)| position.seq > others.chosen.seq && counts(*position));
        let mut all_known = true;
        for (node, position) in unknown {
            let asked = (node.clone(), position.hash);
            if found.contains(&position.hash) || others.asked.contains(&asked) {
                continue;
            }
            let shown = sync::shows(&self.sync, node, partition, others.chosen);
            let Some(is_of_it) = with_runtime(|runtime| Ok(runtime.block_on(shown)))? else {
                all_known = false;
                continue;
            };
            others.asked.insert(asked);
            if !is_of_it {
                found.insert(position.hash);
            }
        }
        let evidence = match self.store.quarantine_reason(partition) {
            Some(_) => self.store.evidence(partition)?,
            None => Vec::new(),
        };
        for header in &evidence {
            // It is signed, so it need not be known what is here of that number.
            let position = header.position();
            if counts(position) && is_here(position)? != Some(true) {
                found.insert(position.hash);
            }
        }
        if !found.is_empty() {
            self.note_others_given_up(partition, found.iter().copied())?;
            // What was proven of them is not awaited any more.
            self.store.await_own_history(partition, 0);
        }
        for (node, position) in said {
            if !found.contains(&position.hash) {
                continue;
            }
            self.sync.claims.clear(partition, &node);
            if others.given_up.iter().all(|known| known.node != node) {
                tracing::warn!(%partition, %node, seq = position.seq, "the peer holds one more history, which is given up");
                others.given_up.push(OtherHistory { node, seq: position.seq });
            }
        }
        if !evidence.is_empty() {
            with_runtime(|runtime| Ok(runtime.block_on(self.store.release(partition))?))?;
        }
        Ok(all_known)
    }
}
