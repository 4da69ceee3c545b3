//! The state tree: the Merkle tree over a partition's records.
//!
//! [`update`] applies a sorted batch of changes to a tree whose pages somebody
//! else keeps, and touches only the pages whose content changes. [`TreeBuilder`]
//! makes the inner pages above leaves that arrive in key order. Both end at the
//! same pages for the same content ([`crate::cut`]). The store commits what they
//! answer; nothing here reads or writes anything.
//!
//! Where the store keeps an index beside a leaf, changes inside of it become a
//! patch ([`crate::patch`]) and its bytes stay as they are.
//!
//! - `recut`: which pages of one level change, and into which;
//! - `leaves`, `inner`: the two kinds of levels;
//! - `cursor`: walks along a level by its parents;
//! - `work`: how much of a tree a change set may touch;
//! - `checked`: no page is believed for being well-formed;
//! - `build`: [`TreeBuilder`].

mod build;
mod checked;
mod cursor;
mod inner;
mod leaves;
mod recut;
mod work;

pub use self::build::{ShapeError, TreeBuilder, pages_of};
pub use self::checked::{Checked, Path};
pub use self::work::{Excess, NotUpdated, WORK, Work};
use self::{
    inner::{Edit, Inner},
    leaves::Leaves,
    recut::Recut,
    work::Turnover,
};
use crate::{
    change::Change,
    encoding::DecodeError,
    hash::{Hash, Purpose},
    page::{LEVELS_MAX, Leaf, MadePage, PageRef, RawLeaf, decode_inner, make_inner},
    patch::{self, Updated},
    suite::Suite,
};

/// The root of a partition without records.
pub fn empty_root(suite: Suite) -> Hash {
    suite.hash(Purpose::Page, &[])
}

/// What a tree amounts to: enough to sign it, and to update it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Summary {
    /// The root page's hash, or [`empty_root`].
    pub root: Hash,
    /// Records in the tree.
    pub records: u64,
    /// Bytes of its leaves, uncompressed.
    pub bytes: u64,
    /// Pages of each level, leaves first. The last level has one page, the
    /// root. An empty tree has no level.
    pub pages: Vec<u64>,
}

impl Summary {
    /// A tree without records.
    pub fn empty(suite: Suite) -> Self {
        Self { root: empty_root(suite), records: 0, bytes: 0, pages: Vec::new() }
    }
}

/// A page's first key and its bytes.
pub type FoundPage = (Vec<u8>, Vec<u8>);

/// What a store keeps beside a leaf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The leaf's first key.
    pub first_key: Vec<u8>,
    /// Its index.
    pub index: Vec<u8>,
    /// Its patch, if it was changed in place.
    pub patch: Option<Vec<u8>>,
    /// The leaf's hash as its parent holds it, where that was looked at.
    pub expected: Option<Hash>,
}

impl Kept {
    /// What becomes of the leaf by changes that belong to it.
    pub fn update(&self, suite: Suite, changes: &[Change]) -> Result<Updated, DecodeError> {
        patch::update(suite, &self.index, self.patch.as_deref(), self.expected.as_ref(), changes)
    }
}

/// Read access to the pages of a tree.
pub trait Pages {
    /// Why a page could not be read.
    type Error: From<DecodeError> + From<Excess>;

    /// The suite of the tree's hashes.
    fn suite(&self) -> Suite;

    /// The last page of `level` whose first key is not above `key`, or else
    /// the first page of the level: the page where `key` is or would be.
    fn seek(&mut self, level: u8, key: &[u8]) -> Result<Option<FoundPage>, Self::Error>;

    /// The first key of the page behind the one that begins with `first_key`.
    fn next_key(&mut self, level: u8, first_key: &[u8]) -> Result<Option<Vec<u8>>, Self::Error>;

    /// As [`Pages::seek`] at the level of leaves, decoded.
    fn seek_leaf(&mut self, key: &[u8]) -> Result<Option<(Vec<u8>, Leaf)>, Self::Error> {
        match self.seek(0, key)? {
            Some((first_key, body)) => Ok(Some((first_key, Leaf::decode(&body)?))),
            None => Ok(None),
        }
    }

    /// What is kept beside the last leaf that has an index and whose first key
    /// is not above `key`.
    fn kept(&mut self, _key: &[u8]) -> Result<Option<Kept>, Self::Error> {
        Ok(None)
    }

    /// Makes pages of leaves, in their order.
    fn make(&mut self, leaves: Vec<RawLeaf>) -> Vec<MadePage> {
        leaves.iter().map(|leaf| leaf.make(self.suite())).collect()
    }

    /// What becomes of leaves, each by changes that belong to it, in their order.
    fn patch(&mut self, leaves: &[(Kept, &[Change])]) -> Vec<Result<Updated, DecodeError>> {
        let suite = self.suite();
        leaves.iter().map(|(kept, changes)| kept.update(suite, changes)).collect()
    }
}

/// What a batch of changes does to the pages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    /// Pages that are gone: level and first key. Never one that is also
    /// written.
    pub removed: Vec<(u8, Vec<u8>)>,
    /// Pages to write, in place of one with the same level and first key. A
    /// leaf's patch is gone with it.
    pub written: Vec<MadePage>,
    /// Leaves that stay, and their patches.
    pub patched: Vec<PatchedLeaf>,
    /// The tree afterwards.
    pub summary: Summary,
}

/// A leaf that was changed in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PatchedLeaf {
    /// The leaf's first key.
    pub first_key: Vec<u8>,
    /// The patch in place of the one before, or that there is none any more.
    pub patch: Option<Vec<u8>>,
}

fn missing() -> DecodeError {
    DecodeError::Invalid("a page of the tree is missing")
}

/// Applies `changes`, sorted by key without repetition, to the tree `before`. A page
/// that is not of this tree is refused ([`Checked`]), so what comes out is right whatever
/// has become of the pages.
///
/// Deleting a key that is not there changes nothing. What touches more than
/// [`WORK`] is refused before it is done.
pub fn update<P: Pages>(
    pages: &mut P,
    before: &Summary,
    changes: &[Change],
) -> Result<Update, P::Error> {
    update_within(pages, before, changes, WORK)
}

/// As [`update`], with another bound on what it touches.
pub fn update_within<P: Pages>(
    pages: &mut P,
    before: &Summary,
    changes: &[Change],
    work: Work,
) -> Result<Update, P::Error> {
    let mut path = Path::new(before);
    let pages = &mut Checked::new(pages, &mut path);
    work.check_inner(pages, before.pages.len(), changes)?;
    let mut update = Update {
        removed: Vec::new(),
        written: Vec::new(),
        patched: Vec::new(),
        summary: Summary::empty(pages.suite()),
    };
    let mut leaves = change_leaves(pages, before, changes, work)?;
    let bytes = leaves.bytes;
    update.patched = std::mem::take(&mut leaves.patches);
    let mut touched = leaves.level;
    let mut turnover = work.turnover();
    let mut level = 0;
    loop {
        let had = before.pages.get(usize::from(level)).copied().unwrap_or(0);
        let stays = had.checked_sub(touched.consumed.len() as u64);
        let stays = stays.ok_or(DecodeError::Invalid("there are more pages than the tree has"))?;
        let count = stays + touched.made.len() as u64;
        let removed = touched.only_removed();
        if count > 0 {
            update.summary.pages.push(count);
        }
        if count <= 1 {
            // This level's page, if any, is the root: what was above is gone.
            turnover.count(0, before.pages.iter().skip(level.into()).sum())?;
            for above in level + 1..before.pages.len() as u8 {
                remove_level(pages, above, &mut update)?;
            }
            let root = match touched.edits.iter().find_map(|(_, page)| page.as_ref()) {
                Some(page) => Some(page.clone()),
                None if count == 1 => Some(only_page(pages, level, &removed)?),
                None => None,
            };
            if let Some(root) = root {
                update.summary.root = root.hash;
                update.summary.records = root.records;
                update.summary.bytes = bytes;
            }
            finish_level(&mut update, level, removed, touched.made);
            work.check_shape(&update.summary)?;
            return Ok(update);
        }
        if touched.edits.is_empty() {
            // Nothing changed here, so nothing changes above.
            update.summary = before.clone();
            return Ok(update);
        }
        if level + 1 >= LEVELS_MAX {
            return Err(Excess::Levels.into());
        }
        let edits = std::mem::take(&mut touched.edits);
        finish_level(&mut update, level, removed, touched.made);
        level += 1;
        touched = change_inner(pages, before.pages.len(), level, edits, &mut turnover)?;
    }
}

fn finish_level(update: &mut Update, level: u8, removed: Vec<Vec<u8>>, made: Vec<MadePage>) {
    update.removed.extend(removed.into_iter().map(|key| (level, key)));
    update.written.extend(made);
}

fn remove_level<P: Pages>(pages: &mut P, level: u8, update: &mut Update) -> Result<(), P::Error> {
    let mut next = pages.seek(level, &[])?.map(|(key, _)| key);
    while let Some(key) = next {
        next = pages.next_key(level, &key)?;
        update.removed.push((level, key));
    }
    Ok(())
}

/// The reference to the only page of a level that is not `removed`.
fn only_page<P: Pages>(pages: &mut P, level: u8, removed: &[Vec<u8>]) -> Result<PageRef, P::Error> {
    let (mut key, mut body) = pages.seek(level, &[])?.ok_or_else(missing)?;
    while removed.contains(&key) {
        let next = pages.next_key(level, &key)?.ok_or_else(missing)?;
        (key, body) = pages.seek(level, &next)?.ok_or_else(missing)?;
    }
    if level == 0 {
        let (_, leaf) = pages.seek_leaf(&key)?.ok_or_else(missing)?;
        return Ok(leaf.describe(pages.suite()));
    }
    Ok(make_inner(pages.suite(), level, &decode_inner(pages.suite(), &body)?).page)
}

/// Pages of one level before and after.
struct TouchedLevel {
    /// First keys of the old pages that were taken apart, in key order.
    consumed: Vec<Vec<u8>>,
    /// The pages that take their place, in key order.
    made: Vec<MadePage>,
    /// What becomes of the references to the level's pages.
    edits: Vec<Edit>,
}

impl TouchedLevel {
    fn new(consumed: Vec<Vec<u8>>, made: Vec<MadePage>, patched: Vec<PageRef>) -> Self {
        let mut touched = Self { consumed, made, edits: Vec::new() };
        let gone = touched.only_removed().into_iter().map(|key| (key, None));
        let here = touched.made.iter().map(|made| made.page.clone()).chain(patched);
        touched.edits = gone.chain(here.map(|page| (page.first_key.clone(), Some(page)))).collect();
        touched.edits.sort_by(|a, b| a.0.cmp(&b.0));
        touched
    }

    /// First keys of old pages that no new page has.
    fn only_removed(&self) -> Vec<Vec<u8>> {
        let mut made = self.made.iter().map(|made| &made.page.first_key).peekable();
        self.consumed
            .iter()
            .filter(|key| {
                while made.next_if(|first| *first < *key).is_some() {}
                made.peek() != Some(key)
            })
            .cloned()
            .collect()
    }
}

/// The leaves after a change set.
struct ChangedLeaves {
    level: TouchedLevel,
    patches: Vec<PatchedLeaf>,
    /// Bytes of all leaves of the tree.
    bytes: u64,
}

fn change_leaves<P: Pages>(
    pages: &mut P,
    before: &Summary,
    changes: &[Change],
    work: Work,
) -> Result<ChangedLeaves, P::Error> {
    let leaves = Leaves::new(changes, work);
    let mut recut = Recut::new(leaves, 0, before.pages.len());
    recut.run(pages)?;
    recut.level.finish(pages);
    let (mut patches, mut patched) = (Vec::new(), Vec::with_capacity(recut.kept.len()));
    let mut gone = recut.level.bytes_gone;
    let mut made: u64 = recut.level.made.iter().map(|made| made.bytes).sum();
    for (page, kept) in recut.kept {
        gone += kept.bytes_before;
        made += kept.bytes;
        patches.push(PatchedLeaf { first_key: page.first_key.clone(), patch: kept.patch });
        patched.push(page);
    }
    let stays = before.bytes.checked_sub(gone);
    let stays = stays.ok_or(DecodeError::Invalid("its leaves have more bytes than the tree"))?;
    let level = TouchedLevel::new(recut.consumed, recut.level.made, patched);
    Ok(ChangedLeaves { level, patches, bytes: stays + made })
}

fn change_inner<P: Pages>(
    pages: &mut P,
    levels: usize,
    level: u8,
    edits: Vec<Edit>,
    turnover: &mut Turnover,
) -> Result<TouchedLevel, P::Error> {
    let inner = Inner::new(pages.suite(), level, edits, *turnover);
    let mut recut = Recut::new(inner, level, levels);
    recut.run(pages)?;
    *turnover = recut.level.turnover;
    let (mut consumed, mut made) = (recut.consumed, recut.level.made);
    // Their bytes are written again, too.
    for (page, children) in recut.kept {
        consumed.push(page.first_key);
        made.push(make_inner(pages.suite(), level, &children));
    }
    consumed.sort();
    made.sort_by(|a, b| a.page.first_key.cmp(&b.page.first_key));
    Ok(TouchedLevel::new(consumed, made, Vec::new()))
}

#[cfg(test)]
mod tests;
