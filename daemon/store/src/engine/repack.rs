//! Packs that are mostly waste, rewritten piece by piece while everything goes on.
//!
//! What is needed of a pack is appended to its next edition, page by page, and each
//! page's place changes in a batch like any other: behind the `fdatasync` of what it
//! refers to. A page's bytes stay the same, so readers and snapshots notice nothing. The
//! file of before goes when all places have changed, durably. After a crash there are two
//! editions, each page in the one that its place names, and the next pass moves on what is
//! left. A page that is damaged is not copied: its place stays, and the file with it,
//! until it was repaired.
//!
//! Only the writer calls this; which keys a pack's values have, it says.

use std::ops::Bound::{Excluded, Unbounded};

use super::{
    disk::Disk,
    packs::{PackId, Place},
    values::{Batch, place_of},
};
use crate::error::StoreError;

/// A pack of fewer bytes is not rewritten: two change sets' worth of the largest kind.
const PACK_BYTES_MIN: u64 = if cfg!(test) { 512 * 1024 } else { 16 * 1024 * 1024 };
/// Places that are looked at in a piece, for which a commit may have to wait.
const KEYS_PER_PIECE: usize = 256;
/// Bytes of pages that are copied in a piece, but for its last page.
const BYTES_PER_PIECE: u64 = if cfg!(test) { 32 * 1024 } else { 512 * 1024 };

/// A page's key, and where it lies.
type PlacedPage = (Vec<u8>, Place);

/// A pack that is looked through, and rewritten if that is worth it.
pub struct Repacking {
    pub id: PackId,
    /// What the keys of its values begin with.
    prefix: Vec<u8>,
    /// The last key that was looked at.
    last: Vec<u8>,
    /// Bytes that are needed of it, as far as it was looked through.
    needed: u64,
    stage: Stage,
    /// A page that is damaged, so its file has to stay.
    damage: Option<StoreError>,
}

#[derive(Clone, Copy)]
enum Stage {
    Weighing,
    Copying,
    /// All places are changed.
    Copied,
}

/// What a piece has come to.
pub enum Repacked {
    More,
    /// There is more to do when this is applied and durable: places that change.
    Write(Batch),
    /// It is as it was, because little of it is waste, or why it could not be rewritten.
    Left(Option<StoreError>),
    /// It was rewritten.
    Done,
}

impl Repacking {
    /// Of the pack whose values have keys that begin like this.
    pub fn new(id: PackId, prefix: Vec<u8>) -> Self {
        let last = prefix.clone();
        Self { id, prefix, last, needed: 0, stage: Stage::Weighing, damage: None }
    }
}

impl Disk {
    /// Looks at the next piece of a pack, or copies it.
    pub fn repack_some(&self, at: &mut Repacking) -> Result<Repacked, StoreError> {
        match at.stage {
            Stage::Weighing => self.weigh_pack(at),
            Stage::Copying => self.copy_pages(at),
            Stage::Copied => match at.damage.take() {
                Some(damage) => Ok(Repacked::Left(Some(damage))),
                None => self.packs.remove_earlier(at.id).map(|()| Repacked::Done),
            },
        }
    }

    fn weigh_pack(&self, at: &mut Repacking) -> Result<Repacked, StoreError> {
        let was_interrupted = self.packs.editions(at.id).len() > 1;
        let length = self.packs.length(at.id)?;
        if length < PACK_BYTES_MIN && !was_interrupted {
            return Ok(Repacked::Left(None));
        }
        let (places, is_last) = self.places_behind(at, u64::MAX)?;
        at.needed += places.iter().map(|(_, place)| u64::from(place.bytes)).sum::<u64>();
        if !is_last {
            return Ok(Repacked::More);
        }
        if 2 * at.needed > length && !was_interrupted {
            return Ok(Repacked::Left(None));
        }
        self.check_room(usize::try_from(at.needed).unwrap_or(usize::MAX / 4))?;
        if !was_interrupted {
            self.packs.begin_edition(at.id)?;
        }
        at.stage = Stage::Copying;
        at.last.clone_from(&at.prefix);
        Ok(Repacked::More)
    }

    fn copy_pages(&self, at: &mut Repacking) -> Result<Repacked, StoreError> {
        self.check_room(BYTES_PER_PIECE as usize)?;
        let newest = self.packs.editions(at.id).last().copied();
        let (places, is_last) = self.places_behind(at, BYTES_PER_PIECE)?;
        let mut pages = Vec::new();
        for (key, place) in places {
            if Some(place.edition) == newest {
                continue;
            }
            match self.get_chunked(&key) {
                Ok(Some(page)) => pages.push((key, page)),
                Ok(None) => {}
                Err(error @ StoreError::Damaged { .. }) => at.damage = Some(error),
                Err(error) => return Err(error),
            }
        }
        if is_last {
            at.stage = Stage::Copied;
        }
        if pages.is_empty() {
            return Ok(Repacked::More);
        }
        let bodies: Vec<&[u8]> = pages.iter().map(|(_, page)| &page[..]).collect();
        let places = self.packs.append(at.id, &bodies)?;
        let mut batch = Batch::default();
        for ((key, page), place) in pages.into_iter().zip(places) {
            batch.put_place(key, &page, place);
        }
        Ok(Repacked::Write(batch))
    }

    /// The places among the next keys, and whether there are no more.
    fn places_behind(
        &self,
        at: &mut Repacking,
        bytes_max: u64,
    ) -> Result<(Vec<PlacedPage>, bool), StoreError> {
        let (read, mut places, mut bytes) = (self.read(), Vec::new(), 0);
        for _ in 0..KEYS_PER_PIECE {
            let next = read.view.first((Excluded(&at.last), Unbounded))?;
            let Some((key, first)) = next.filter(|(key, _)| key.starts_with(&at.prefix)) else {
                return Ok((places, true));
            };
            at.last = key.to_vec();
            if let Some(place) = place_of(&first) {
                bytes += u64::from(place.bytes);
                places.push((at.last.clone(), place));
            }
            if bytes >= bytes_max {
                break;
            }
        }
        Ok((places, false))
    }
}
