//! The writer's half of a change of signing keys: another key becomes the
//! signer between two commits, together with what that asks of the log.
//!
//! [`super::super::signing`] asks for these jobs and says what they promise.
//! Each flushes by itself before the signer changes: the next commit may only be
//! signed with a key that the log is ready for.

use std::{collections::BTreeMap, sync::Arc};

use protocol::{
    change::{HEADER_BYTES_MAX, Header, SignedHeader},
    hash::Hash,
    id::{NodeId, PartitionId},
    sign::SigningKey,
};

use super::{Build, Writer};
use crate::store::{
    Head, StoreError,
    ahead::Prepared,
    keys,
    state::{PartitionState, lock},
    values::Batch,
};

/// Headers of one partition that are signed anew: they go into one batch, of
/// about 25 MB, which readers have to wait for. A county writes some hundreds of
/// change sets a day, and its hub has most of them within a second.
const SIGNED_ANEW_MAX: u64 = if cfg!(test) { 150 } else { 50_000 };

/// Numbers of a partition that are to be signed anew: `first` up to the head.
struct Stretch {
    partition: PartitionId,
    state: Arc<PartitionState>,
    head: Arc<Head>,
    first: u64,
}

impl Stretch {
    fn count(&self) -> u64 {
        self.head.seq() - self.first + 1
    }
}

impl Writer {
    pub(super) fn adopt_signer(
        &mut self,
        next: Arc<SigningKey>,
        origin: &NodeId,
        last: &BTreeMap<PartitionId, u64>,
    ) -> Result<u64, StoreError> {
        // All partitions are looked at before one is changed.
        let mut stretches = Vec::new();
        for (partition, head) in self.heads_of(origin) {
            if !partition.dataset.is_system() {
                let last = last.get(&partition).copied().unwrap_or(0);
                stretches.extend(self.not_as_it_should_be(partition, head, last, &next)?);
            }
        }
        let count = stretches.iter().map(Stretch::count).sum::<u64>();
        self.shared.disk.check_room(count as usize * HEADER_BYTES_MAX)?;
        for stretch in stretches {
            self.sign_anew(stretch, &next)?;
        }
        self.flush()?;
        *lock(&self.shared.signer) = Some(next);
        Ok(count)
    }

    pub(super) fn rotate_signer(
        &mut self,
        next: Arc<SigningKey>,
        origin: &NodeId,
        build: Build,
    ) -> Result<Arc<Head>, StoreError> {
        // What `build` reads has to be as new as the numbers that it gets.
        self.flush()?;
        let heads = self.heads_of(origin).into_iter();
        let own = build(heads.map(|(partition, head)| (partition, head.seq())).collect())?;
        if own.changes.is_empty() {
            // The next key would sign, and nobody would know it.
            let problem = "a signing key is changed by a change set that says so";
            return Err(StoreError::Changes { partition: own.partition, problem });
        }
        if !own.partition.dataset.is_system() || own.partition.origin != *origin {
            let problem = "a signing key is changed in this node's own _federation alone";
            return Err(StoreError::Changes { partition: own.partition, problem });
        }
        let head = self.commit_own(Prepared::new(own)?)?;
        self.flush()?;
        *lock(&self.shared.signer) = Some(next);
        Ok(head)
    }

    /// From now on, or no longer, refuses what this key signed.
    pub(super) fn suspend_key(&mut self, key_id: Hash, suspended: bool) -> Result<(), StoreError> {
        self.flush()?;
        if suspended {
            self.suspended.insert(key_id);
        } else {
            self.suspended.remove(&key_id);
        }
        Ok(())
    }

    /// Asked of what would move a head, not of what is here already.
    pub(super) fn refuse_suspended(&self, header: &Header) -> Result<(), StoreError> {
        if self.suspended.contains(&header.key_id) {
            return Err(StoreError::KeySuspended { partition: header.partition.clone() });
        }
        Ok(())
    }

    pub(super) fn refuse_stopped(&self, partition: &PartitionId) -> Result<(), StoreError> {
        match lock(&self.shared.own_writes_stopped).clone() {
            Some(reason) if !partition.dataset.is_system() => {
                Err(StoreError::OwnWritesStopped { reason })
            }
            _ => Ok(()),
        }
    }

    /// The heads of an origin's partitions, those that wait for a flush as well.
    fn heads_of(&self, origin: &NodeId) -> BTreeMap<PartitionId, Arc<Head>> {
        let partitions = self.shared.partitions().into_keys();
        let of_it = partitions.filter(|partition| partition.origin == *origin);
        of_it.filter_map(|partition| Some((partition.clone(), self.head(&partition)?))).collect()
    }

    /// The stretch behind `last` that begins with the first header that another
    /// key than `next` signed, or that names a `_federation` head which is not
    /// the one held here, if there is one.
    fn not_as_it_should_be(
        &self,
        partition: PartitionId,
        head: Arc<Head>,
        last: u64,
        next: &SigningKey,
    ) -> Result<Option<Stretch>, StoreError> {
        let state = self.partition(&partition);
        let mut first = None;
        for seq in last.saturating_add(1)..=head.seq() {
            let signed = self.logged(&partition, &state, seq)?;
            let is_good = signed.header().key_id == next.public().id()
                && self.names_held_federation(signed.header())?;
            if first.is_none() && !is_good {
                first = Some(seq);
            }
        }
        let Some(first) = first else {
            return Ok(None);
        };
        let stretch = Stretch { partition, state, head, first };
        let headers = stretch.count();
        if headers > SIGNED_ANEW_MAX {
            let (partition, limit) = (stretch.partition, SIGNED_ANEW_MAX);
            return Err(StoreError::TooManyToSign { partition, headers, limit });
        }
        Ok(Some(stretch))
    }

    fn logged(
        &self,
        partition: &PartitionId,
        state: &PartitionState,
        seq: u64,
    ) -> Result<SignedHeader, StoreError> {
        let signed = self.shared.disk.log_header(state.number, seq)?;
        signed.ok_or_else(|| StoreError::HeaderMissing { partition: partition.clone(), seq })
    }

    /// Whether the `_federation` head that a header names is part of what is held
    /// here. It is not if that history was forgotten for another one.
    fn names_held_federation(&self, header: &Header) -> Result<bool, StoreError> {
        let Some(named) = header.federation_head else {
            return Ok(true);
        };
        let Some((federation, head)) = self.federation_head(&header.partition) else {
            return Ok(false);
        };
        let number = self.partition(&federation).number;
        Ok(named.seq <= head.seq()
            && match self.shared.disk.log_header(number, named.seq)? {
                Some(known) => known.hash() == named.hash,
                // Older than the log.
                None => true,
            })
    }

    /// Signs a stretch and its head in one batch: a chain is never broken.
    fn sign_anew(&mut self, stretch: Stretch, next: &SigningKey) -> Result<(), StoreError> {
        let Stretch { partition, state, head, first } = stretch;
        let mut batch = Batch::default();
        let mut previous: Option<Hash> = None;
        let mut newest = None;
        // A header names no older `_federation` than the one before it, which need
        // not be kept any more.
        let before = self.shared.disk.log_header(state.number, first.saturating_sub(1))?;
        let mut named = before.and_then(|before| before.header().federation_head);
        for seq in first..=head.seq() {
            let mut header = self.logged(&partition, &state, seq)?.header().clone();
            header.previous = previous.unwrap_or(header.previous);
            if !self.names_held_federation(&header)? {
                let held = self.federation_head(&partition);
                header.federation_head = held.map(|(_, head)| head.position());
            }
            if named.is_some_and(|named| header.federation_head.is_none_or(|n| n.seq < named.seq)) {
                header.federation_head = named;
            }
            named = header.federation_head;
            header.key_id = next.public().id();
            let signed = SignedHeader::sign(header, next);
            previous = Some(signed.hash());
            batch.put(keys::log_header(state.number, seq), signed.encode());
            if seq == head.seq() {
                let head = Arc::new(Head { signed, ..Head::clone(&head) });
                batch.put(keys::head(state.number), head.encode());
                newest = Some(head);
            }
        }
        self.apply(batch)?;
        self.unpublished.extend(newest.map(|head| (partition, head)));
        Ok(())
    }
}
