//! The writer's half of a change of signing keys: another key becomes the
//! signer between two commits, together with what that asks of the log.
//!
//! `crate::signing` asks for these jobs and says what they promise.
//! Each flushes by itself before the signer changes: the next commit may only be
//! signed with a key that the log is ready for.

use std::{collections::BTreeMap, sync::Arc};

use protocol::{
    change::{HEADER_BYTES_MAX, Header, SignedHeader},
    hash::Hash,
    id::{NodeId, PartitionId},
    sign::SigningKey,
};

use super::Writer;
use crate::{
    engine::Batch,
    error::StoreError,
    jobs::Build,
    keys, log,
    prepare::Prepared,
    state::{Head, PartitionState, lock},
};

/// Headers of one partition that are signed anew: they go into one batch, of
/// about 25 MB, which readers have to wait for. A county writes some hundreds of
/// change sets a day, and its hub has most of them within a second.
const SIGNED_ANEW_MAX: u64 = if cfg!(test) { 150 } else { 50_000 };

/// Numbers of a partition that are to be signed anew: `first` up to the head.
struct ToSign {
    partition: PartitionId,
    state: Arc<PartitionState>,
    head: Arc<Head>,
    first: u64,
}

impl ToSign {
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
        let mut all = Vec::new();
        for (partition, head) in self.heads_of(origin) {
            if !partition.dataset.is_system() {
                let last = last.get(&partition).copied().unwrap_or(0);
                all.extend(self.headers_to_sign(partition, head, last, &next)?);
            }
        }
        let count = all.iter().map(ToSign::count).sum::<u64>();
        self.shared.disk.check_room(count as usize * HEADER_BYTES_MAX)?;
        for to_sign in all {
            self.sign_anew(to_sign, &next)?;
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
        let head = self.commit_own(Prepared::new(self.shared.disk.suite, own)?)?;
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
        if let Some(reason) = lock(&self.shared.held).get(partition).cloned() {
            return Err(StoreError::OwnWritesStopped { reason });
        }
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

    /// What follows `last`, from the first header that another key than `next`
    /// signed, or that names a `_federation` head which is not the one held
    /// here; nothing if there is no such header.
    fn headers_to_sign(
        &self,
        partition: PartitionId,
        head: Arc<Head>,
        last: u64,
        next: &SigningKey,
    ) -> Result<Option<ToSign>, StoreError> {
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
        let to_sign = ToSign { partition, state, head, first };
        let headers = to_sign.count();
        if headers > SIGNED_ANEW_MAX {
            let (partition, limit) = (to_sign.partition, SIGNED_ANEW_MAX);
            return Err(StoreError::TooManyToSign { partition, headers, limit });
        }
        Ok(Some(to_sign))
    }

    fn logged(
        &self,
        partition: &PartitionId,
        state: &PartitionState,
        seq: u64,
    ) -> Result<SignedHeader, StoreError> {
        let signed = log::header(&self.shared.disk, state.number, seq)?;
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
            && match log::header(&self.shared.disk, number, named.seq)? {
                Some(known) => known.hash() == named.hash,
                // Older than the log.
                None => true,
            })
    }

    /// Signs these headers and the head in one batch: a chain is never broken.
    fn sign_anew(&mut self, to_sign: ToSign, next: &SigningKey) -> Result<(), StoreError> {
        let ToSign { partition, state, head, first } = to_sign;
        let mut batch = Batch::default();
        let mut previous: Option<Hash> = None;
        let mut history =
            log::history_before(&self.shared.disk, state.number, first)?.ok_or_else(|| {
                StoreError::HeaderMissing { partition: partition.clone(), seq: first }
            })?;
        let mut newest = None;
        // A header names no older `_federation` than the one before it, which need
        // not be kept any more.
        let before = log::header(&self.shared.disk, state.number, first.saturating_sub(1))?;
        let mut named = before.and_then(|before| before.header().federation_head);
        for seq in first..=head.seq() {
            let mut header = self.logged(&partition, &state, seq)?.header().clone();
            header.previous = previous.unwrap_or(header.previous);
            header.history = history.root(self.shared.disk.suite);
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
            let before = history.clone();
            history.push_noting(signed.hash(), |node, hash| {
                batch.put(keys::history_node(state.number, node), hash.as_bytes().to_vec());
            });
            if seq == head.seq() {
                let head = Arc::new(Head { signed, before, ..Head::clone(&head) });
                batch.put(keys::head(state.number), head.encode());
                newest = Some(head);
            }
        }
        self.apply(batch)?;
        self.unpublished.extend(newest.map(|head| (partition, head)));
        Ok(())
    }
}
