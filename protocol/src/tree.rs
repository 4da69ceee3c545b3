//! The state tree: the Merkle search tree over a partition's records.
//!
//! [`update`] applies a sorted batch of changes to a tree whose pages somebody
//! else keeps, and touches only the pages whose content changes. [`TreeBuilder`]
//! makes the inner pages above leaves that arrive in key order. Both end at the
//! same pages for the same content. The store commits what they answer; nothing
//! here reads or writes anything.
//!
//! Where the store keeps an index beside a leaf, changes inside of it become a
//! patch ([`crate::patch`]) and its bytes stay as they are.

use std::collections::VecDeque;

use crate::{
    change::Change,
    encoding::DecodeError,
    hash::{Hash, Purpose},
    page::{
        LEVELS_MAX, Leaf, LeafBuilder, MadePage, PageRef, RawLeaf, Shape, decode_inner, ends_page,
        make_inner,
    },
    patch::{self, Outcome},
    record::key_hashes,
};

/// Leaves that are hashed and compressed, or patched, together: enough to share out among
/// threads, and few enough to hold uncompressed.
const LEAVES_AT_ONCE: usize = 64;
/// Bytes that end such a group earlier: one leaf may have 16 MiB.
const LEAF_BYTES_AT_ONCE: usize = 4 * 1024 * 1024;

/// The root of a partition without records.
pub fn empty_root() -> Hash {
    Purpose::Page.hash(&[])
}

/// What a tree amounts to: enough to sign it, and to update it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Summary {
    /// The root page's hash, or [`empty_root`].
    pub root: Hash,
    /// Records in the tree.
    pub records: u64,
    /// Pages of each level, leaves first. The last level has one page, the
    /// root. An empty tree has no level.
    pub pages: Vec<u64>,
}

impl Summary {
    /// A tree without records.
    pub fn empty() -> Self {
        Self { root: empty_root(), records: 0, pages: Vec::new() }
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
}

impl Kept {
    /// What becomes of the leaf by changes that belong to it.
    pub fn update(&self, changes: &[Change]) -> Result<Outcome, DecodeError> {
        patch::update(&self.index, self.patch.as_deref(), changes)
    }
}

/// Read access to the pages of a tree.
pub trait Pages {
    /// Why a page could not be read.
    type Error: From<DecodeError>;

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
        leaves.iter().map(RawLeaf::make).collect()
    }

    /// What becomes of leaves, each by changes that belong to it, in their order.
    fn patch(&mut self, leaves: &[(Kept, &[Change])]) -> Vec<Result<Outcome, DecodeError>> {
        leaves.iter().map(|(kept, changes)| kept.update(changes)).collect()
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

/// Applies `changes`, sorted by key without repetition, to the tree `before`.
///
/// Deleting a key that is not there changes nothing.
pub fn update<P: Pages>(
    pages: &mut P,
    before: &Summary,
    changes: &[Change],
) -> Result<Update, P::Error> {
    let mut update = Update {
        removed: Vec::new(),
        written: Vec::new(),
        patched: Vec::new(),
        summary: Summary::empty(),
    };
    let level_pages = |level: u8| before.pages.get(usize::from(level)).copied().unwrap_or(0);

    let mut touched = change_leaves(pages, changes)?;
    update.patched = std::mem::take(&mut touched.patches);
    let mut level = 0;
    loop {
        let kept = level_pages(level).checked_sub(touched.consumed.len() as u64);
        let kept = kept.ok_or(DecodeError::Invalid("there are more pages than the tree has"))?;
        let count = kept + touched.made.len() as u64;
        let made = touched.made.iter().map(|made| made.page.clone());
        let rewrote: Vec<PageRef> = made.chain(std::mem::take(&mut touched.patched)).collect();
        let removed = touched.only_removed();
        if count > 0 {
            update.summary.pages.push(count);
        }
        if count <= 1 {
            // This level's page, if any, is the root: what was above is gone.
            for above in level + 1..before.pages.len() as u8 {
                remove_level(pages, above, &mut update)?;
            }
            let root = match rewrote.first() {
                Some(page) => Some(page.clone()),
                None if count == 1 => Some(only_page(pages, level, &removed)?),
                None => None,
            };
            if let Some(root) = root {
                update.summary.root = root.hash;
                update.summary.records = root.records;
            }
            finish_level(&mut update, level, removed, touched.made);
            return Ok(update);
        }
        if touched.consumed.is_empty() && rewrote.is_empty() {
            // Nothing changed here, so nothing changes above.
            update.summary = before.clone();
            return Ok(update);
        }
        if level + 1 >= LEVELS_MAX {
            return Err(DecodeError::Invalid("the tree is higher than any data can make it").into());
        }
        let mut edits: Vec<(Vec<u8>, Option<PageRef>)> = removed
            .iter()
            .map(|key| (key.clone(), None))
            .chain(rewrote.into_iter().map(|page| (page.first_key.clone(), Some(page))))
            .collect();
        edits.sort_by(|a, b| a.0.cmp(&b.0));
        let above = rewrite_inner(pages, level + 1, &edits)?;
        finish_level(&mut update, level, removed, touched.made);
        touched = above;
        level += 1;
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
    let missing = || DecodeError::Invalid("a tree's root page is missing");
    let (mut key, mut body) = pages.seek(level, &[])?.ok_or_else(missing)?;
    while removed.contains(&key) {
        let next = pages.next_key(level, &key)?.ok_or_else(missing)?;
        (key, body) = pages.seek(level, &next)?.ok_or_else(missing)?;
    }
    if level == 0 {
        let (_, leaf) = pages.seek_leaf(&key)?.ok_or_else(missing)?;
        return Ok(leaf.describe().0);
    }
    Ok(make_inner(level, &decode_inner(&body)?).page)
}

/// Pages of one level before and after.
#[derive(Default)]
struct Touched {
    /// First keys of the old pages that were taken apart, in key order.
    consumed: Vec<Vec<u8>>,
    /// The pages that take their place, in key order.
    made: Vec<MadePage>,
    /// Leaves that were changed in place, as their parents hold them now.
    patched: Vec<PageRef>,
    patches: Vec<PatchedLeaf>,
}

impl Touched {
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

fn change_leaves<P: Pages>(pages: &mut P, changes: &[Change]) -> Result<Touched, P::Error> {
    let mut leaves = Leaves::default();
    let mut changes = Remaining(changes);
    let mut due = VecDeque::new();
    while let Some(first) = changes.0.first() {
        // What a leaf that is written anew took with it.
        while due.pop_front_if(|due: &mut Due<'_>| due.changes[0].key() < first.key()).is_some() {}
        if due.is_empty() {
            due = look_ahead(pages, &changes)?;
        }
        debug_assert!(due.front().is_none_or(|due| due.changes[0].key() == first.key()));
        let outcome = match due.pop_front() {
            Some(due) => (due.kept.first_key, due.changes.len(), due.outcome?),
            // It has no index.
            None => (Vec::new(), 0, Outcome::Rewrite),
        };
        match outcome {
            (_, count, Outcome::Unchanged) => changes.skip(count),
            (first_key, count, Outcome::Patched { page, patch }) => {
                leaves.touched.patches.push(PatchedLeaf { first_key, patch });
                leaves.touched.patched.push(page);
                changes.skip(count);
            }
            (_, _, Outcome::Rewrite) => {
                rewrite_leaves(pages, first.key(), &mut changes, &mut leaves)?;
            }
        }
    }
    leaves.finish(pages)
}

/// A leaf whose turn will come, and what becomes of it then. It stays true: a leaf
/// before it that is written anew ends where an old one began, so either this one
/// is as it was, or its changes went with that one's.
struct Due<'a> {
    kept: Kept,
    changes: &'a [Change],
    outcome: Result<Outcome, DecodeError>,
}

/// What becomes of the leaves of the next changes, up to one without an index.
fn look_ahead<'a, P: Pages>(
    pages: &mut P,
    changes: &Remaining<'a>,
) -> Result<VecDeque<Due<'a>>, P::Error> {
    let mut changes = Remaining(changes.0);
    let mut found = Vec::new();
    while found.len() < LEAVES_AT_ONCE
        && let Some(first) = changes.0.first()
        && let Some(kept) = pages.kept(first.key())?
    {
        let bound = pages.next_key(0, &kept.first_key)?;
        let mine = changes.below(bound.as_deref());
        // None at all: the leaf that they belong to has no index.
        if mine.is_empty() {
            break;
        }
        changes.skip(mine.len());
        found.push((kept, mine));
    }
    let outcomes = pages.patch(&found);
    let with_outcomes = found.into_iter().zip(outcomes);
    Ok(with_outcomes.map(|((kept, changes), outcome)| Due { kept, changes, outcome }).collect())
}

/// Changes that are still to be applied, in key order.
struct Remaining<'a>(&'a [Change]);

impl<'a> Remaining<'a> {
    /// The next changes whose keys are below `bound`; all if there is none.
    fn below(&self, bound: Option<&[u8]>) -> &'a [Change] {
        let inside = |change: &Change| bound.is_none_or(|bound| change.key() < bound);
        &self.0[..self.0.partition_point(inside)]
    }

    /// Goes on behind the next `count` changes.
    fn skip(&mut self, count: usize) {
        self.0 = &self.0[count..];
    }
}

/// Leaves on their way from entries to pages.
#[derive(Default)]
struct Leaves {
    builder: LeafBuilder,
    raw: Vec<RawLeaf>,
    raw_bytes: usize,
    touched: Touched,
}

impl Leaves {
    fn push<P: Pages>(&mut self, pages: &mut P, key: &[u8], key_hash: Hash, value: &[u8]) {
        if self.builder.push_hashed(key, key_hash, value) {
            self.end_leaf(pages);
        }
    }

    /// As `push`, of what a change puts.
    fn change<P: Pages>(&mut self, pages: &mut P, (change, key_hash): (&Change, Hash)) {
        if let Change::Put { key, value } = change {
            self.push(pages, key, key_hash, value);
        }
    }

    fn end_leaf<P: Pages>(&mut self, pages: &mut P) {
        let leaf = self.builder.take();
        self.raw_bytes += leaf.bytes();
        self.raw.push(leaf);
        if self.raw.len() >= LEAVES_AT_ONCE || self.raw_bytes >= LEAF_BYTES_AT_ONCE {
            self.make(pages);
        }
    }

    fn make<P: Pages>(&mut self, pages: &mut P) {
        self.raw_bytes = 0;
        self.touched.made.extend(pages.make(std::mem::take(&mut self.raw)));
    }

    fn finish<P: Pages>(mut self, pages: &mut P) -> Result<Touched, P::Error> {
        self.make(pages);
        Ok(self.touched)
    }
}

/// Writes the leaf of `key` anew with the changes in it, and those behind it
/// until old and new leaves begin at the same key again.
fn rewrite_leaves<P: Pages>(
    pages: &mut P,
    key: &[u8],
    changes: &mut Remaining<'_>,
    leaves: &mut Leaves,
) -> Result<(), P::Error> {
    let mut old = pages.seek_leaf(key)?;
    loop {
        let old_leaf = old.take();
        let bound = match &old_leaf {
            Some((first_key, _)) => pages.next_key(0, first_key)?,
            None => None,
        };
        let mine = changes.below(bound.as_deref());
        changes.skip(mine.len());
        let hashes = key_hashes(mine.iter().map(Change::key));
        let mut mine = mine.iter().zip(hashes).peekable();
        if let Some((first_key, leaf)) = old_leaf {
            leaves.touched.consumed.push(first_key);
            for ((key, value), key_hash) in leaf.entries().zip(leaf.key_hashes()) {
                let mut replaced = false;
                while let Some(change) = mine.next_if(|(change, _)| change.key() <= key) {
                    replaced |= change.0.key() == key;
                    leaves.change(pages, change);
                }
                if !replaced {
                    leaves.push(pages, key, key_hash, value);
                }
            }
        }
        for change in mine {
            leaves.change(pages, change);
        }
        // With nothing pending, the next old page begins where a new one would:
        // from there on, old and new are the same.
        match bound {
            Some(bound) if !leaves.builder.is_empty() => old = pages.seek_leaf(&bound)?,
            _ => break,
        }
    }
    if !leaves.builder.is_empty() {
        leaves.end_leaf(pages);
    }
    Ok(())
}

fn rewrite_inner<P: Pages>(
    pages: &mut P,
    level: u8,
    edits: &[(Vec<u8>, Option<PageRef>)],
) -> Result<Touched, P::Error> {
    let mut touched = Touched::default();
    let mut pending: Vec<PageRef> = Vec::new();
    let mut edits = edits.iter().peekable();
    let push = |pending: &mut Vec<PageRef>, touched: &mut Touched, child: &PageRef| {
        pending.push(child.clone());
        if ends_page(level, u32::from(child.last_zeros), pending.len()) {
            touched.made.push(make_inner(level, pending));
            pending.clear();
        }
    };
    while let Some((first, _)) = edits.peek() {
        let mut old = pages.seek(level, first)?;
        loop {
            let mut bound = None;
            if let Some((first_key, body)) = old.take() {
                let children = decode_inner(&body)?;
                bound = pages.next_key(level, &first_key)?;
                touched.consumed.push(first_key);
                for child in &children {
                    let mut replaced = false;
                    while let Some((key, edit)) = edits.next_if(|(key, _)| *key <= child.first_key)
                    {
                        replaced |= *key == child.first_key;
                        if let Some(new) = edit {
                            push(&mut pending, &mut touched, new);
                        }
                    }
                    if !replaced {
                        push(&mut pending, &mut touched, child);
                    }
                }
            }
            let before_next = |(key, _): &&(Vec<u8>, Option<PageRef>)| {
                bound.as_deref().is_none_or(|bound| key.as_slice() < bound)
            };
            while let Some((_, edit)) = edits.next_if(before_next) {
                if let Some(new) = edit {
                    push(&mut pending, &mut touched, new);
                }
            }
            match bound {
                Some(bound) if !pending.is_empty() => old = pages.seek(level, &bound)?,
                _ => break,
            }
        }
        if !pending.is_empty() {
            touched.made.push(make_inner(level, &pending));
            pending.clear();
        }
    }
    Ok(touched)
}

/// A tree that a peer delivers, or that was found on the disk, breaks a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// A page does not begin behind the end of the one before.
    #[error("the pages are not in key order")]
    Order,
    /// A page ends where its keys say that it does not.
    #[error("a page does not end where its keys say")]
    Ends,
    /// More levels than any data can make.
    #[error("the tree is too high")]
    Height,
}

/// Makes the inner pages above leaves that arrive in key order.
///
/// It holds one unfinished page a level.
#[derive(Debug, Default)]
pub struct TreeBuilder {
    /// For each level, its pages that have no parent yet.
    open: Vec<Vec<PageRef>>,
    pages: Vec<u64>,
    records: u64,
    last_key: Option<Vec<u8>>,
    last_shape: Option<Shape>,
}

impl TreeBuilder {
    /// A builder without leaves.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next leaf; inner pages that are complete go to `made`.
    pub fn push(
        &mut self,
        leaf: &Leaf,
        page: PageRef,
        shape: Shape,
        made: &mut Vec<MadePage>,
    ) -> Result<(), ShapeError> {
        if self.last_key.as_deref().is_some_and(|last| last >= page.first_key.as_slice()) {
            return Err(ShapeError::Order);
        }
        // Only the very last leaf may be open, and none may be broken.
        if shape == Shape::Broken || self.last_shape == Some(Shape::Open) {
            return Err(ShapeError::Ends);
        }
        self.last_key = Some(leaf.last_key().to_vec());
        self.last_shape = Some(shape);
        self.records += page.records;
        self.add(0, page, made)
    }

    /// Counts a page of `level` and puts it under its parent, which is closed
    /// only when the next page arrives: until then it may turn out that this
    /// one is the root.
    fn add(
        &mut self,
        level: u8,
        page: PageRef,
        made: &mut Vec<MadePage>,
    ) -> Result<(), ShapeError> {
        let index = usize::from(level);
        if level >= LEVELS_MAX {
            return Err(ShapeError::Height);
        }
        if self.pages.len() == index {
            self.pages.push(0);
            self.open.push(Vec::new());
        }
        let siblings = &self.open[index];
        if siblings
            .last()
            .is_some_and(|last| ends_page(level + 1, u32::from(last.last_zeros), siblings.len()))
        {
            self.close(level, made)?;
        }
        self.pages[index] += 1;
        self.open[index].push(page);
        Ok(())
    }

    /// Makes the parent of the pages that are open at `level`.
    fn close(&mut self, level: u8, made: &mut Vec<MadePage>) -> Result<(), ShapeError> {
        let children = std::mem::take(&mut self.open[usize::from(level)]);
        let parent = make_inner(level + 1, &children);
        let page = parent.page.clone();
        made.push(parent);
        self.add(level + 1, page, made)
    }

    /// Ends the tree: the last inner pages go to `made`.
    pub fn finish(mut self, made: &mut Vec<MadePage>) -> Result<Summary, ShapeError> {
        for level in 0..LEVELS_MAX {
            let index = usize::from(level);
            match self.pages.get(index) {
                None => return Ok(Summary::empty()),
                Some(1) => {
                    let root = self.open[index].pop().ok_or(ShapeError::Height)?;
                    let (pages, records) = (self.pages, self.records);
                    return Ok(Summary { root: root.hash, records, pages });
                }
                Some(_) => self.close(level, made)?,
            }
        }
        Err(ShapeError::Height)
    }
}

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;
