//! Whose key signs this node's change sets, and how another takes its place.
//!
//! The writer signs each own change set at the moment of its commit, with the
//! key that is the *signer* then, so a switch falls between two commits and
//! never into one. The writer's half is `writer/signing.rs`; whose signature
//! counts is not the store's question.

use std::{collections::BTreeMap, sync::Arc};

use protocol::{
    hash::Hash,
    id::{NodeId, PartitionId},
    sign::SigningKey,
};

use crate::{
    Store,
    error::StoreError,
    jobs::Job,
    state::{Head, OwnChanges, lock},
};

impl Store {
    /// Gives the store the key that signs own change sets, when the node opens.
    /// A node that is running changes its key with a job of the writer.
    pub fn set_signer(&self, key: Arc<SigningKey>) {
        *lock(&self.shared.signer) = Some(key);
    }

    /// The id of the key that signs the next own change set; none before
    /// [`Store::set_signer`].
    pub fn signer_id(&self) -> Option<Hash> {
        lock(&self.shared.signer).as_ref().map(|key| key.public().id())
    }

    /// Makes `next` the signer, after the key before it was retired or revoked.
    ///
    /// In each partition of `origin` (this node) but `_federation`, headers with
    /// numbers above `last[partition]`, 0 where it is not listed, count only if
    /// `next` signed them. From the first one on that another key signed, or that
    /// names a `_federation` head which was forgotten since, all up to the head
    /// are signed anew: the same headers but for key, `_federation` head and
    /// predecessor, so their hashes change; bodies, pages and roots stay. Answers
    /// how many were, once they are durable and `next` is the signer; commits
    /// that were queued before are among them, later ones are signed by `next`.
    ///
    /// A partition's headers and its head are rewritten in one batch, so a crash
    /// leaves each partition as it was or done; doing it again does the rest, and
    /// nothing where nothing is left to do. It gives the same hashes again.
    ///
    /// # Errors
    /// If a header is missing, or a partition has more than 50 000 to sign:
    /// nothing was changed then, and the signer stays.
    pub async fn adopt_signer(
        &self,
        next: Arc<SigningKey>,
        origin: NodeId,
        last: BTreeMap<PartitionId, u64>,
    ) -> Result<u64, StoreError> {
        let job = |reply| Job::AdoptSigner { next, origin, last, reply };
        self.queue.submit(job).await?.answer().await
    }

    /// As [`Store::adopt_signer`], from a thread that may block.
    pub fn adopt_signer_blocking(
        &self,
        next: Arc<SigningKey>,
        origin: NodeId,
        last: BTreeMap<PartitionId, u64>,
    ) -> Result<u64, StoreError> {
        self.queue.submit_blocking(|reply| Job::AdoptSigner { next, origin, last, reply })?.wait()
    }

    /// Takes no more change sets and no pages under headers that name this key,
    /// until [`Store::resume_key`] or a restart. Answers once all that was asked
    /// of the store before is done and durable: the heads then say which numbers
    /// of this key were accepted last. What the log holds already is answered as
    /// ever. Blocks.
    pub fn suspend_key(&self, key_id: Hash) -> Result<(), StoreError> {
        self.queue
            .submit_blocking(|reply| Job::SuspendKey { key_id, suspended: true, reply })?
            .wait()
    }

    /// Takes change sets of a suspended key again. Blocks.
    ///
    /// For a key that was not retired after all: one that was verified before the
    /// key's last number was recorded may still be waiting for the writer, so a
    /// retired key stays suspended for as long as this store is open.
    pub fn resume_key(&self, key_id: Hash) -> Result<(), StoreError> {
        self.queue
            .submit_blocking(|reply| Job::SuspendKey { key_id, suspended: false, reply })?
            .wait()
    }

    /// Refuses own commits from now on, those that wait for the writer as well,
    /// except to `_federation`; `None` allows them again. Kept in memory only.
    pub fn stop_own_writes(&self, reason: Option<String>) {
        *lock(&self.shared.own_writes_stopped) = reason;
    }

    /// From now on, or no longer, refuses own change sets of one partition, and says why.
    pub fn hold_own_writes(&self, partition: &PartitionId, reason: Option<String>) {
        let mut held = lock(&self.shared.held);
        match reason {
            Some(reason) => held.insert(partition.clone(), reason),
            None => held.remove(partition),
        };
    }

    /// Own partitions to which nothing is written for now, and why.
    pub fn held_own_writes(&self) -> BTreeMap<PartitionId, String> {
        lock(&self.shared.held).clone()
    }

    /// Why own commits are refused, if they are.
    pub fn own_writes_stopped(&self) -> Option<String> {
        lock(&self.shared.own_writes_stopped).clone()
    }

    /// Makes `next` the signer by a change set of `_federation` that the signer
    /// before it signs: the hub's own change of keys. Blocks.
    ///
    /// `build` gets the numbers of the heads of all of `origin`'s (this node's)
    /// partitions, `_federation` among them, and makes the changes. It runs on
    /// the writer's thread: everything committed before is durable and can be
    /// read, nothing else is committed until `next` is the signer, and asking
    /// the store for another commit in there would wait for ever.
    ///
    /// # Errors
    /// If the change set could not be committed, or `build` failed; the signer stays
    /// and nothing is written. It stays, too, if `build` answers no changes, or those
    /// of another partition.
    pub fn rotate_signer(
        &self,
        next: Arc<SigningKey>,
        origin: NodeId,
        build: impl FnOnce(BTreeMap<PartitionId, u64>) -> Result<OwnChanges, StoreError>
        + Send
        + 'static,
    ) -> Result<Arc<Head>, StoreError> {
        let build = Box::new(build);
        self.queue.submit_blocking(|reply| Job::RotateSigner { next, origin, build, reply })?.wait()
    }
}
