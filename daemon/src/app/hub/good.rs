//! Where the numbers of a member's retired keys end, said by a person.
//!
//! A key that is retired keeps the numbers up to the last that this hub held then.
//! If it was stolen and used, those are not its owner's: a head of number 2³² would
//! leave the next key nothing below. So they can be lowered, for one partition at a
//! time, to the last number that the owner knows to be its own; what lies above is
//! signed again by the owner with its present key. Not here: dropping the replica
//! that holds what the thief signed (`ops::partition`).

use anyhow::bail;
use protocol::{federation::Entry, id::PartitionId};

use super::{Registrar, puts};

impl Registrar {
    /// Lets the retired keys of a partition's origin end there at `good` at the
    /// latest; said again it changes nothing. Blocks.
    pub fn end_retired_keys_at(&self, partition: &PartitionId, good: u64) -> anyhow::Result<()> {
        let node = &partition.origin;
        let _changing = self.change();
        let registry = self.membership.current()?;
        let name = partition.to_string();
        let mut entries: Vec<Entry> = Vec::new();
        let mut said_before = false;
        for known in registry.keys(node) {
            let Some(mut last) = known.record.last.clone() else { continue };
            let ends_at = last.get(&name).copied();
            said_before |= ends_at == Some(good);
            if ends_at.is_some_and(|ends_at| ends_at > good) {
                last.insert(name.clone(), good);
                entries.extend(known.record.clone().retired(node, known.number, last)?);
            }
        }
        if entries.is_empty() && said_before {
            return Ok(());
        }
        if entries.is_empty() {
            bail!(
                "{node} 没有已停用的密钥在 {partition} 中签到 {good} 之后 / no retired key of {node} has numbers above \
                 {good} in {partition}. If its key was stolen, first: creditsync revoke {node}"
            );
        }
        let head = self.commit(puts(&entries)?)?;
        tracing::warn!(%partition, good, federation_seq = head.seq(), "its origin's retired keys end here");
        Ok(())
    }
}
