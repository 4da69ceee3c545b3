//! A generation's pages as they are, read and made for `protocol::tree::update`.
//!
//! A leaf that was changed in place is its bytes and a patch
//! ([`protocol::patch`]). Who asks for a leaf gets it as it is now. Which
//! generation is a partition's current one is not known here.

use protocol::{
    change::Change,
    encoding::DecodeError,
    page::{LEAF_BYTES_MAX, Leaf, MadePage, RawLeaf},
    patch::{Digests, Updated, decode_patch},
    suite::Suite,
    tree::{Checked, FoundPage, Kept, Pages},
};

use super::ahead::{MadeAhead, make_leaves};
use crate::{
    cores::on_all_cores,
    engine::{Disk, FoundPair, Read},
    error::StoreError,
    keys,
};

/// What one leaf has, and where the next one begins.
pub struct LeafSpan {
    /// Its entries as they are now.
    pub entries: Entries,
    /// The first key of the next leaf, if there is one.
    pub next: Option<Vec<u8>>,
}

/// A leaf's entries.
pub enum Entries {
    /// With their records.
    Whole(Leaf),
    /// With digests in place of records.
    Digests(Digests),
}

/// A leaf from its bytes and its patch.
pub fn whole(body: &[u8], patch: Option<&[u8]>) -> Result<Leaf, StoreError> {
    let leaf = Leaf::decode(body)?;
    Ok(match patch {
        Some(patch) => leaf.patched(&decode_patch(patch)?)?,
        None => leaf,
    })
}

/// Pages of one generation while no batch is applied.
pub struct PagesAtOnce<'r> {
    read: &'r Read<'r>,
    suite: Suite,
    number: u32,
    generation: u32,
}

impl<'r> PagesAtOnce<'r> {
    pub fn new(read: &'r Read<'r>, suite: Suite, number: u32, generation: u32) -> Self {
        Self { read, suite, number, generation }
    }

    fn level_prefix(&self, level: u8) -> Vec<u8> {
        keys::page(self.number, self.generation, level, &[])
    }

    /// The first key, the bytes and the patch of the leaf of `key`.
    fn leaf_and_patch(&self, key: &[u8]) -> Result<Option<FoundPair>, StoreError> {
        let (prefix, patches) = (self.level_prefix(0), self.level_prefix(keys::PATCH));
        let found = self.read.seek_with(&prefix, &[&prefix, key].concat(), &patches)?;
        Ok(found.map(|(key, body, patch)| (key[prefix.len()..].to_vec(), body, patch)))
    }
}

impl Pages for PagesAtOnce<'_> {
    type Error = StoreError;

    fn suite(&self) -> Suite {
        self.suite
    }

    fn seek(&mut self, level: u8, key: &[u8]) -> Result<Option<FoundPage>, StoreError> {
        if level == 0 {
            return Ok(match self.leaf_and_patch(key)? {
                Some((key, body, None)) => Some((key, body)),
                Some((key, body, patch)) => Some((key, whole(&body, patch.as_deref())?.encode())),
                None => None,
            });
        }
        let prefix = self.level_prefix(level);
        let found = self.read.at_or_first(&prefix, &[&prefix, key].concat())?;
        Ok(found.map(|(key, body)| (key[prefix.len()..].to_vec(), body)))
    }

    fn next_key(&mut self, level: u8, first_key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let prefix = self.level_prefix(level);
        let behind = self.read.key_behind(&prefix, &[&prefix, first_key].concat())?;
        Ok(behind.map(|key| key[prefix.len()..].to_vec()))
    }

    fn seek_leaf(&mut self, key: &[u8]) -> Result<Option<(Vec<u8>, Leaf)>, StoreError> {
        Ok(match self.leaf_and_patch(key)? {
            Some((key, body, patch)) => Some((key, whole(&body, patch.as_deref())?)),
            None => None,
        })
    }

    fn kept(&mut self, key: &[u8]) -> Result<Option<Kept>, StoreError> {
        let (prefix, patches) = (self.level_prefix(keys::INDEX), self.level_prefix(keys::PATCH));
        let found = self.read.last_with(&prefix, &[&prefix, key].concat(), &patches);
        Ok(undamaged(found)?.map(|(key, index, patch)| Kept {
            first_key: key[prefix.len()..].to_vec(),
            index,
            patch,
            expected: None,
        }))
    }
}

/// The leaf of the checked `pages` where `key` is or would be: by digests if they are
/// asked for and what is kept beside the leaf is its own.
pub fn leaf_span<P: Pages<Error = StoreError>>(
    pages: &mut Checked<'_, P>,
    key: &[u8],
    by_digest: bool,
) -> Result<Option<LeafSpan>, StoreError> {
    let suite = pages.suite();
    if by_digest
        && let Some(kept) = pages.kept(key)?
        && let Ok(digests) = Digests::decode(suite, &kept.index, kept.patch.as_deref())
        && kept.expected == Some(digests.hash(suite))
    {
        let next = pages.next_key(0, &kept.first_key)?;
        return Ok(Some(LeafSpan { entries: Entries::Digests(digests), next }));
    }
    let Some((first_key, leaf)) = pages.seek_leaf(key)? else {
        return Ok(None);
    };
    let next = pages.next_key(0, &first_key)?;
    Ok(Some(LeafSpan { entries: Entries::Whole(leaf), next }))
}

/// Pages of one generation, each read by itself; what the writer updates.
pub struct GenerationPages<'a> {
    disk: &'a Disk,
    number: u32,
    generation: u32,
    /// Leaves that need not be made any more.
    pub ahead: MadeAhead,
}

impl<'a> GenerationPages<'a> {
    pub fn new(disk: &'a Disk, number: u32, generation: u32) -> Self {
        Self { disk, number, generation, ahead: MadeAhead::default() }
    }

    fn at_once<T>(&self, read: impl FnOnce(&mut PagesAtOnce<'_>) -> T) -> T {
        let view = self.disk.read();
        read(&mut PagesAtOnce::new(&view, self.disk.suite, self.number, self.generation))
    }

    /// The leaf that begins with exactly this key.
    pub fn leaf_at(&self, first_key: &[u8]) -> Result<Option<Leaf>, StoreError> {
        let prefix = |level| keys::page(self.number, self.generation, level, &[]);
        let found = self.disk.get_with(&prefix(0), first_key, &prefix(keys::PATCH))?;
        found.map(|(_, body, patch)| whole(&body, patch.as_deref())).transpose()
    }

    /// Bytes of the leaves to which `changes` belong, from what lies beside these; where
    /// there is nothing, as many as a leaf may have.
    pub fn touched_bytes(&mut self, changes: &[Change], most: u64) -> Result<u64, StoreError> {
        let (mut rest, mut bytes) = (changes, 0);
        while let Some(first) = rest.first()
            && bytes <= most
        {
            bytes += match self.kept(first.key())? {
                Some(kept) => kept.update(self.disk.suite, &[])?.bytes_before,
                None => LEAF_BYTES_MAX as u64,
            };
            let bound = self.next_key(0, first.key())?;
            let is_below =
                |change: &Change| bound.as_ref().is_none_or(|b| change.key() < b.as_slice());
            rest = &rest[rest.partition_point(is_below)..];
        }
        Ok(bytes)
    }

    /// The first key of a level's first page.
    pub fn first_key(&self, level: u8) -> Result<Option<Vec<u8>>, StoreError> {
        let prefix = keys::page(self.number, self.generation, level, &[]);
        let first = self.disk.first_key(&prefix)?;
        Ok(first.map(|key| key[prefix.len()..].to_vec()))
    }
}

impl Pages for GenerationPages<'_> {
    type Error = StoreError;

    fn suite(&self) -> Suite {
        self.disk.suite
    }

    fn seek(&mut self, level: u8, key: &[u8]) -> Result<Option<FoundPage>, StoreError> {
        self.at_once(|pages| pages.seek(level, key))
    }

    fn next_key(&mut self, level: u8, first_key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.at_once(|pages| pages.next_key(level, first_key))
    }

    fn seek_leaf(&mut self, key: &[u8]) -> Result<Option<(Vec<u8>, Leaf)>, StoreError> {
        self.at_once(|pages| pages.seek_leaf(key))
    }

    fn kept(&mut self, key: &[u8]) -> Result<Option<Kept>, StoreError> {
        self.at_once(|pages| pages.kept(key))
    }

    fn make(&mut self, leaves: Vec<RawLeaf>) -> Vec<MadePage> {
        let ready: Vec<_> = leaves.iter().map(|leaf| self.ahead.take(leaf)).collect();
        let pairs = leaves.into_iter().zip(&ready);
        let missing: Vec<_> =
            pairs.filter(|(_, ready)| ready.is_none()).map(|(leaf, _)| leaf).collect();
        let mut made = make_leaves(self.disk.suite, &missing).into_iter();
        ready.into_iter().filter_map(|ready| ready.or_else(|| made.next())).collect()
    }

    fn patch(&mut self, leaves: &[(Kept, &[Change])]) -> Vec<Result<Updated, DecodeError>> {
        let suite = self.disk.suite;
        on_all_cores(leaves.iter().collect(), |(kept, changes)| kept.update(suite, changes))
    }
}

/// Nothing in place of an index that is damaged: it can be made anew, and of a
/// patch that is damaged the reader of the leaf will tell.
fn undamaged(
    found: Result<Option<FoundPair>, StoreError>,
) -> Result<Option<FoundPair>, StoreError> {
    match found {
        Err(StoreError::Damaged { .. }) => Ok(None),
        found => found,
    }
}
