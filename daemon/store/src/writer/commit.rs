//! Commits: an own change set made, signed and written; another origin's checked
//! and written.
//!
//! Pages, log entry and head are one batch. Whatever is refused is refused
//! before the first write.

use std::sync::{Arc, atomic::Ordering};

use protocol::{
    change::{Change, Header, Position, SignedHeader, VerifiedChangeSet},
    hash::Hash,
    history::Peaks,
    id::PartitionId,
    session::fetch::ShownHead,
    tree::{self, Excess, Pages as _, Summary, Update, WORK, Work},
};

use super::Writer;
use crate::{
    engine::{Batch, PackId},
    error::StoreError,
    keys, log,
    marks::{self, MarkMove},
    prepare::Prepared,
    quota::LogKept,
    state::{Head, OwnChanges, PartitionState, lock, now_ms},
    tree::{GenerationPages, MadeAhead, PageBatch},
};

/// What a commit puts behind the head.
pub(super) struct Next<'a> {
    pub signed: SignedHeader,
    /// The headers before it; its history is their root.
    pub history: Peaks,
    /// What has proved that the header before is among them, where some were jumped
    /// over.
    pub path: &'a [Hash],
    /// What the log keeps of its changes.
    pub body: Option<&'a [u8]>,
    /// What consumers have come to with it.
    pub marks: &'a [MarkMove],
}

impl Writer {
    /// The newest head of `_federation` that this node holds.
    pub(super) fn federation_head(
        &self,
        partition: &PartitionId,
    ) -> Option<(PartitionId, Arc<Head>)> {
        let found = self.shared.federation_partitions(&partition.federation);
        found.into_iter().find_map(|id| self.head(&id).map(|head| (id, head)))
    }

    /// Commits own changes. If they touch more of the tree than one change set may,
    /// they become several, each of which is a commit of its own; after an error the
    /// first ones of them may be there.
    pub(super) fn commit_own(&mut self, mut prepared: Prepared) -> Result<Arc<Head>, StoreError> {
        let committed = match self.is_too_scattered(&prepared.own)? {
            true => Err(Excess::Leaves.into()),
            false => self.commit_own_part(&mut prepared),
        };
        match committed {
            Err(StoreError::Excess(Excess::Leaves | Excess::Inner | Excess::Pages))
                if prepared.own.changes.len() > 1 =>
            {
                let (first, second) = prepared.own.halves();
                let suite = self.shared.disk.suite;
                self.commit_own(Prepared::new(suite, first)?)?;
                let marks = std::mem::take(&mut prepared.marks);
                self.commit_own(Prepared { marks, ..Prepared::new(suite, second)? })
            }
            committed => committed,
        }
    }

    /// Whether changes belong to so many leaves that it is not worth trying to commit them
    /// as one: a tenth of the bound may be leaves that are smaller than others.
    fn is_too_scattered(&self, own: &OwnChanges) -> Result<bool, StoreError> {
        let Some(head) = self.head(&own.partition) else {
            return Ok(false);
        };
        let leaves = head.summary.pages.first().copied().unwrap_or(0).max(1);
        let each = head.summary.bytes / leaves;
        let most = (WORK.leaf_bytes_max + WORK.leaf_bytes_max / 10) / each.max(1);
        if own.changes.len() as u64 <= most || leaves <= most {
            return Ok(false);
        }
        let number = self.shared.partition(&own.partition).map_or(0, |state| state.number);
        let mut pages = GenerationPages::new(&self.shared.disk, number, head.generation);
        let (mut rest, mut touched) = (&own.changes[..], 0);
        while let Some(first) = rest.first()
            && touched <= most
        {
            touched += 1;
            let bound = pages.next_key(0, first.key())?;
            let is_below =
                |change: &Change| bound.as_ref().is_none_or(|b| change.key() < b.as_slice());
            rest = &rest[rest.partition_point(is_below)..];
        }
        Ok(touched > most)
    }

    fn commit_own_part(&mut self, prepared: &mut Prepared) -> Result<Arc<Head>, StoreError> {
        let own = &prepared.own;
        self.refuse_stopped(&own.partition)?;
        let key = lock(&self.shared.signer).clone();
        let key = key.ok_or_else(|| StoreError::NoSigner(own.partition.clone()))?;
        self.shared.disk.check_room(prepared.body_bytes)?;
        self.refuse_quarantined(&own.partition)?;
        self.refuse_awaiting(&own.partition)?;
        let before = self.head(&own.partition);
        let federation_head = self.federation_head_for(&own.partition, before.as_deref())?;
        let suite = self.shared.disk.suite;
        let history = before.as_ref().map_or_else(Peaks::new, |head| head.history());
        let state = self.partition(&own.partition);
        let leaves = std::mem::take(&mut prepared.leaves);
        let update = self.update_tree(&state, before.as_deref(), &own.changes, leaves, WORK)?;
        let header = Header {
            partition: own.partition.clone(),
            seq: before.as_ref().map_or(1, |head| head.seq() + 1),
            previous: before.as_ref().map_or(suite.none(), |head| head.signed.hash()),
            history: history.root(suite),
            federation_head,
            origin_time_ms: now_ms(),
            schema_version: own.schema_version,
            change_count: own.changes.len() as u32,
            changes_hash: prepared.changes_hash,
            root: update.summary.root,
            records: update.summary.records,
            key_id: key.public().id(),
        };
        let signed = SignedHeader::sign(header, &key);
        let next = Next {
            signed,
            history,
            path: &[],
            body: prepared.kept_body.as_deref(),
            marks: &prepared.marks,
        };
        self.commit(&state, before.as_deref(), next, update)
    }

    /// The `_federation` head that an own change set names. Without one, or with
    /// an older one than its predecessor's, no replica would take it.
    fn federation_head_for(
        &self,
        partition: &PartitionId,
        before: Option<&Head>,
    ) -> Result<Option<Position>, StoreError> {
        if partition.dataset.is_system() {
            return Ok(None);
        }
        let named = self.federation_head(partition).map(|(_, head)| head.position());
        let earlier = before.and_then(|head| head.signed.header().federation_head);
        let (have, needed) =
            (named.map_or(0, |named| named.seq), earlier.map_or(1, |earlier| earlier.seq));
        if have < needed {
            return Err(StoreError::Federation { partition: partition.clone(), needed, have });
        }
        Ok(named)
    }

    pub(super) fn commit_replica(
        &mut self,
        set: &VerifiedChangeSet,
    ) -> Result<Arc<Head>, StoreError> {
        let header = set.header().header();
        let partition = &header.partition;
        self.shared.disk.check_room(set.body().len())?;
        self.refuse_quarantined(partition)?;
        let before = self.head(partition);
        let ours = before.as_ref().map(|head| head.position());
        if let (Some(ours), Some(head)) = (ours, &before)
            && header.seq <= ours.seq
        {
            // Already here: a lost acknowledgement is repeated, a different
            // history is not.
            let number = self.shared.partition(partition).map_or(0, |state| state.number);
            let held = (&head.signed, &head.before);
            let same = log::is_same(&self.shared.disk, number, held, set.header().position());
            return match self.shared.heed_log(
                partition,
                &self.partition(partition),
                header.seq,
                same,
            )? {
                Some(false) => {
                    Err(StoreError::Fork { partition: Box::new(partition.clone()), ours })
                }
                _ => Ok(head.clone()),
            };
        }
        self.refuse_suspended(header)?;
        let head_seq = ours.map_or(0, |ours| ours.seq);
        if header.seq != head_seq + 1 {
            return Err(StoreError::Gap {
                partition: partition.clone(),
                head: head_seq,
                offered: header.seq,
            });
        }
        let history = before.as_ref().map_or_else(Peaks::new, |head| head.history());
        let suite = self.shared.disk.suite;
        let previous = ours.map_or(suite.none(), |ours| ours.hash);
        if (header.previous, header.history) != (previous, history.root(suite)) {
            let ours = ours.unwrap_or(Position { seq: 0, hash: suite.none() });
            return Err(StoreError::Fork { partition: Box::new(partition.clone()), ours });
        }
        self.check_federation_head(partition, header.federation_head, before.as_deref())?;
        let state = self.partition(partition);
        let (before_set, ahead) = (before.as_deref(), MadeAhead::default());
        let update = self.update_tree(&state, before_set, set.changes(), ahead, WORK)?;
        self.check_root(set.header(), &update.summary)?;
        let next = Next {
            signed: set.header().clone(),
            history,
            path: &[],
            body: Some(set.body()),
            marks: &[],
        };
        self.commit(&state, before.as_deref(), next, update)
    }

    /// A change set may not refer to a `_federation` that this node has not
    /// seen: its signer might have been revoked there. Nor to an older one than
    /// its predecessor did.
    pub(super) fn check_federation_head(
        &self,
        partition: &PartitionId,
        named: Option<Position>,
        before: Option<&Head>,
    ) -> Result<(), StoreError> {
        let Some(named) = named else {
            return Ok(());
        };
        let behind = |have: u64| StoreError::Federation {
            partition: partition.clone(),
            needed: named.seq,
            have,
        };
        let (federation, head) = self.federation_head(partition).ok_or_else(|| behind(0))?;
        let earlier = before.and_then(|head| head.signed.header().federation_head);
        if named.seq > head.seq() || earlier.is_some_and(|earlier| earlier.seq > named.seq) {
            return Err(behind(head.seq()));
        }
        let number = self.shared.partition(&federation).map_or(0, |state| state.number);
        match log::header(&self.shared.disk, number, named.seq)? {
            Some(known) if known.hash() != named.hash => Err(behind(head.seq())),
            _ => Ok(()),
        }
    }

    fn refuse_awaiting(&self, partition: &PartitionId) -> Result<(), StoreError> {
        let lost = lock(&self.shared.lost).get(partition).map_or(0, |lost| lost.seq);
        let awaited = lock(&self.shared.awaited).get(partition).copied().unwrap_or(0).max(lost);
        let last = lock(&self.shared.awaited_earlier).get(partition).copied().unwrap_or(0);
        if awaited.max(last) == 0 {
            return Ok(());
        }
        let have = self.head(partition).map_or(0, |head| head.seq());
        let partition = partition.clone();
        if have < awaited {
            return Err(StoreError::AwaitsOwnHistory { partition, have, awaited });
        }
        if have < last {
            return Err(StoreError::AwaitsEarlierKey { partition, have, last });
        }
        Ok(())
    }

    pub(super) fn refuse_quarantined(&self, partition: &PartitionId) -> Result<(), StoreError> {
        match self.shared.partition(partition).and_then(|state| state.quarantine()) {
            Some(reason) => Err(StoreError::Quarantined { partition: partition.clone(), reason }),
            None => Ok(()),
        }
    }

    pub(super) fn check_root(
        &self,
        signed: &SignedHeader,
        summary: &Summary,
    ) -> Result<(), StoreError> {
        let header = signed.header();
        if (header.root, header.records) == (summary.root, summary.records) {
            return Ok(());
        }
        Err(StoreError::RootMismatch {
            partition: Box::new(header.partition.clone()),
            seq: header.seq,
            signed: header.root,
            computed: summary.root,
        })
    }

    pub(super) fn update_tree(
        &self,
        state: &PartitionState,
        before: Option<&Head>,
        changes: &[Change],
        ahead: MadeAhead,
        work: Work,
    ) -> Result<Update, StoreError> {
        let summary = before
            .map_or_else(|| Summary::empty(self.shared.disk.suite), |head| head.summary.clone());
        let generation = before.map_or(0, |head| head.generation);
        let mut pages = GenerationPages::new(&self.shared.disk, state.number, generation);
        pages.ahead = ahead;
        let updated = tree::update_within(&mut pages, &summary, changes, work);
        match before {
            Some(head) => self.shared.heed(head, state, updated),
            None => updated,
        }
    }

    /// Writes pages, log and head in one batch.
    pub(super) fn commit(
        &mut self,
        state: &Arc<PartitionState>,
        before: Option<&Head>,
        next: Next<'_>,
        update: Update,
    ) -> Result<Arc<Head>, StoreError> {
        let number = state.number;
        let generation = before.map_or(0, |head| head.generation);
        let open = self.open_snapshots(number, generation);
        let mut pages = PageBatch::new(&self.shared.disk, &open);
        let page = |level: u8, first_key: &[u8]| keys::page(number, generation, level, first_key);
        for (level, first_key) in &update.removed {
            pages.put(page(*level, first_key), None)?;
            if *level == 0 {
                pages.put(page(keys::PATCH, first_key), None)?;
                pages.put_index(page(keys::INDEX, first_key), None)?;
            }
        }
        for made in &update.written {
            let first_key = &made.page.first_key;
            if made.level == 0 {
                pages.put_leaf(page(0, first_key), &made.body)?;
                pages.put(page(keys::PATCH, first_key), None)?;
                pages.put_index(page(keys::INDEX, first_key), Some(&made.index))?;
            } else {
                pages.put(page(made.level, first_key), Some(&made.body))?;
            }
        }
        for leaf in &update.patched {
            pages.put(page(keys::PATCH, &leaf.first_key), leaf.patch.as_deref())?;
        }
        let leaves = update.summary.pages.first().copied().unwrap_or(0);
        let batch = pages.finish(PackId { number, generation }, leaves, update.summary.bytes)?;
        let head = self.finish_commit(batch, state, before, generation, next, update.summary)?;
        self.shared.pages_written.fetch_add(update.written.len() as u64, Ordering::Relaxed);
        self.shared.leaves_patched.fetch_add(update.patched.len() as u64, Ordering::Relaxed);
        Ok(head)
    }

    /// Adds log entry and head to a batch that holds the pages, and applies it
    /// if there is room.
    pub(super) fn finish_commit(
        &mut self,
        mut batch: Batch,
        state: &Arc<PartitionState>,
        before: Option<&Head>,
        generation: u32,
        next: Next<'_>,
        summary: Summary,
    ) -> Result<Arc<Head>, StoreError> {
        let Next { signed, history, path, body, marks } = next;
        let (number, seq) = (state.number, signed.header().seq);
        let partition = signed.header().partition.clone();
        let counted_before = before.map_or(0, Head::counted);
        let mut kept = before.map_or(LogKept::default(), |head| head.log);
        let before = before.map(|head| (&head.signed, &head.before));
        log::append(&mut batch, number, before, &signed, &history, path);
        kept.headers += 1;
        if let Some(body) = body {
            batch.put_chunked(&keys::log_body(number, seq), body, 0);
            kept.body_bytes += body.len() as u64;
        }
        let log = self.prune(&mut batch, &partition, state, before, kept)?;
        let (before, updated_ms) = (history, now_ms());
        let head = Arc::new(Head { signed, before, summary, generation, log, updated_ms });
        batch.put(keys::head(number), head.encode());
        self.shared.disk.check_room(batch.bytes())?;
        self.refuse_over_quota(&partition, counted_before, head.counted(), batch.bytes())?;
        marks::put(&mut batch, marks, updated_ms);
        self.apply_to(&partition, state, batch)?;
        marks::note(&mut lock(&self.shared.marks), marks, updated_ms);
        lock(&self.shared.usage).moved(&partition.origin, counted_before, head.counted());
        self.shared.commits.fetch_add(1, Ordering::Relaxed);
        self.unpublished.insert(partition, head.clone());
        Ok(head)
    }
}

/// A head that is jumped to has to have the one that is here in its history, as
/// was proved when it was shown.
pub(super) fn check_jump(shown: &ShownHead, head: Option<&Head>) -> Result<(), StoreError> {
    let described = shown.signed.header();
    let partition = || described.partition.clone();
    if head.map(Head::position) != shown.have {
        return Err(StoreError::Overtaken(partition()));
    }
    let offered = described.seq;
    if let Some(head) = head.map(Head::seq).filter(|head| *head >= offered) {
        return Err(StoreError::Gap { partition: partition(), head, offered });
    }
    let suite = described.history.suite();
    if (shown.before.count() + 1, shown.before.root(suite)) != (offered, described.history) {
        let ours = shown.have.unwrap_or(Position { seq: 0, hash: suite.none() });
        return Err(StoreError::Fork { partition: Box::new(partition()), ours });
    }
    Ok(())
}
