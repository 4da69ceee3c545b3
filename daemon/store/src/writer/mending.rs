//! The writer's half of mending a log: a number of it that is damaged gets back what was
//! signed, or is left out as what went in time is ([`super::pruning`]).
//!
//! `crate::mending` asks for these jobs. Invariant: a header, or a hash in its place, is
//! written only if what is kept behind it vouches for it ([`crate::log::is_vouched`]), a
//! body only if that header signs it; the head's own header is never left out, and
//! nothing is left out that is well.

use std::sync::Arc;

use protocol::{
    change::{BODY_BYTES_MAX, Position, SignedHeader, VerifiedChangeSet, changes_hash},
    hash::Hash,
    history::Node,
    id::PartitionId,
};

use super::Writer;
use crate::{
    engine::{Batch, CHUNK_BYTES_MAX},
    error::StoreError,
    jobs::Mend,
    keys, log,
    quota::LogKept,
    state::{Head, PartitionState, lock},
};

/// Chunks that a body may have: what a garbled one claims may be more, or fewer than there
/// are.
const CHUNKS_MAX: u16 = (BODY_BYTES_MAX / CHUNK_BYTES_MAX + 2) as u16;

/// One number of a partition's log.
struct Place<'a> {
    partition: &'a PartitionId,
    state: Arc<PartitionState>,
    head: Arc<Head>,
    seq: u64,
}

impl Writer {
    pub(super) fn mend_log(
        &mut self,
        partition: &PartitionId,
        seq: u64,
        mend: Mend,
    ) -> Result<(), StoreError> {
        let overtaken = || StoreError::Overtaken(partition.clone());
        let head = self.head(partition).filter(|head| (1..=head.seq()).contains(&seq));
        let head = head.ok_or_else(overtaken)?;
        let place = Place { partition, state: self.partition(partition), head, seq };
        let (mut batch, mut kept) = (Batch::default(), place.head.log);
        match mend {
            Mend::Header(signed) => self.put_header(&mut batch, &place, &signed)?,
            Mend::Body(set) => self.put_body(&mut batch, &place, &set, &mut kept)?,
            Mend::Hash(hash) => self.leave_hash(&mut batch, &place, hash, &mut kept)?,
            Mend::NoBody => self.leave_no_body(&mut batch, &place, &mut kept)?,
            Mend::Nothing => self.leave_nothing(&mut batch, &place, &mut kept)?,
        }
        self.finish_mending(place, batch, kept)
    }

    fn put_header(
        &self,
        batch: &mut Batch,
        place: &Place<'_>,
        signed: &SignedHeader,
    ) -> Result<(), StoreError> {
        let of_place = (&signed.header().partition, signed.header().seq);
        let is_of_place = of_place == (place.partition, place.seq);
        if !is_of_place || !self.vouches(place, signed.hash(), Some(signed.header().previous))? {
            return Err(place.unvouched());
        }
        batch.put(keys::log_header(place.state.number, place.seq), signed.encode());
        Ok(())
    }

    fn put_body(
        &self,
        batch: &mut Batch,
        place: &Place<'_>,
        set: &VerifiedChangeSet,
        kept: &mut LogKept,
    ) -> Result<(), StoreError> {
        let header = self.whole_header(place)?.ok_or_else(|| place.unvouched())?;
        if header.hash() != set.header().hash() {
            return Err(place.unvouched());
        }
        let key = keys::log_body(place.state.number, place.seq);
        let is_gone = self.shared.disk.get(&key)?.is_none();
        self.remove_body(batch, place, kept)?;
        batch.put_chunked(&key, set.body(), CHUNKS_MAX);
        // One that is gone counts all the while.
        kept.body_bytes += if is_gone { 0 } else { set.body().len() as u64 };
        Ok(())
    }

    fn leave_hash(
        &self,
        batch: &mut Batch,
        place: &Place<'_>,
        hash: Hash,
        kept: &mut LogKept,
    ) -> Result<(), StoreError> {
        if place.is_head() || place.partition.dataset.is_system() {
            return Err(place.needed());
        }
        if !self.vouches(place, hash, None)? {
            return Err(place.unvouched());
        }
        let node = Node { height: 0, index: place.seq - 1 };
        let key = keys::history_node(place.state.number, node);
        let had_hash = self.shared.disk.get(&key)?.is_some();
        kept.hashes += u64::from(!had_hash);
        batch.put(key, hash.as_bytes().to_vec());
        self.remove_header(batch, place, !had_hash, kept)
    }

    fn leave_no_body(
        &self,
        batch: &mut Batch,
        place: &Place<'_>,
        kept: &mut LogKept,
    ) -> Result<(), StoreError> {
        if place.partition.dataset.is_system() {
            // Whoever joins is sent all of it.
            return Err(place.needed());
        }
        let key = keys::log_body(place.state.number, place.seq);
        let is_well = match (self.whole_header(place)?, self.shared.disk.get_chunked(&key)) {
            (Some(header), Ok(Some(body))) => {
                let unpacked = protocol::codec::decompress(&body, BODY_BYTES_MAX);
                let hash = unpacked.map(|body| changes_hash(header.suite(), &body));
                hash.is_ok_and(|hash| hash == header.header().changes_hash)
            }
            (_, Err(StoreError::Damaged { .. })) | (None, _) => false,
            (_, Ok(None)) => return Ok(()),
            (_, Err(error)) => return Err(error),
        };
        if is_well {
            return Err(place.needed());
        }
        self.remove_body(batch, place, kept)
    }

    fn leave_nothing(
        &self,
        batch: &mut Batch,
        place: &Place<'_>,
        kept: &mut LogKept,
    ) -> Result<(), StoreError> {
        let is_needed = place.is_head() || !self.is_foreign(place.partition);
        if is_needed || self.whole_header(place)?.is_some() {
            return Err(place.needed());
        }
        self.remove_header(batch, place, false, kept)
    }

    fn vouches(
        &self,
        place: &Place<'_>,
        hash: Hash,
        previous: Option<Hash>,
    ) -> Result<bool, StoreError> {
        let head = (&place.head.signed, &place.head.before);
        let position = Position { seq: place.seq, hash };
        log::is_vouched(&self.shared.disk, place.state.number, head, position, previous)
    }

    /// The header that is there, if it is the one that belongs there.
    fn whole_header(&self, place: &Place<'_>) -> Result<Option<SignedHeader>, StoreError> {
        match log::header(&self.shared.disk, place.state.number, place.seq) {
            Ok(Some(header)) => {
                let previous = Some(header.header().previous);
                Ok(self.vouches(place, header.hash(), previous)?.then_some(header))
            }
            Ok(None) | Err(StoreError::Damaged { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes what is there of a header, and its body, of which nothing could be told any
    /// more. `was_counted` says that it counts although it is gone.
    fn remove_header(
        &self,
        batch: &mut Batch,
        place: &Place<'_>,
        was_counted: bool,
        kept: &mut LogKept,
    ) -> Result<(), StoreError> {
        let key = keys::log_header(place.state.number, place.seq);
        let is_there = self.shared.disk.get(&key)?.is_some();
        kept.headers = kept.headers.saturating_sub(u64::from(is_there || was_counted));
        batch.remove(key);
        self.remove_body(batch, place, kept)
    }

    fn remove_body(
        &self,
        batch: &mut Batch,
        place: &Place<'_>,
        kept: &mut LogKept,
    ) -> Result<(), StoreError> {
        let key = keys::log_body(place.state.number, place.seq);
        let bytes = self.shared.disk.stored_bytes(&key, CHUNKS_MAX)?;
        kept.body_bytes = kept.body_bytes.saturating_sub(bytes);
        batch.remove_chunked(&key, CHUNKS_MAX);
        Ok(())
    }

    fn finish_mending(
        &mut self,
        place: Place<'_>,
        mut batch: Batch,
        kept: LogKept,
    ) -> Result<(), StoreError> {
        let Place { partition, state, head, .. } = place;
        let counted = head.counted();
        let mended = (kept != head.log).then(|| Arc::new(Head { log: kept, ..Head::clone(&head) }));
        if let Some(mended) = &mended {
            batch.put(keys::head(state.number), mended.encode());
        }
        self.shared.disk.check_room(batch.bytes())?;
        self.apply(batch)?;
        if let Some(mended) = mended {
            lock(&self.shared.usage).moved(&partition.origin, counted, mended.counted());
            self.unpublished.insert(partition.clone(), mended);
        }
        Ok(())
    }
}

impl Place<'_> {
    fn is_head(&self) -> bool {
        self.seq == self.head.seq()
    }

    fn name(&self) -> String {
        format!("{} (the log at number {})", self.partition, self.seq)
    }

    fn unvouched(&self) -> StoreError {
        let problem = "what would take its place is not what was signed there".into();
        StoreError::Damaged { place: self.name(), problem }
    }

    fn needed(&self) -> StoreError {
        let problem = "it is well, or needed, and is not left out".into();
        StoreError::Damaged { place: self.name(), problem }
    }
}
