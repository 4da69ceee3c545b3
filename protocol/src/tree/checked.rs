//! A tree's pages, of which none is believed for being well-formed.
//!
//! A damaged store may give back an older page: whole, and in its place. So each page is
//! compared with the hash that its parent holds of it, from the root downwards, before it
//! is used; and where a page ends is the parents' word, not that of the keys which the
//! store finds. What lies beside a leaf is compared where it is used
//! ([`crate::patch::update`]).

use super::{FoundPage, Kept, MadePage, Pages, RawLeaf, Summary, missing};
use crate::{
    change::Change,
    encoding::DecodeError,
    hash::Hash,
    page::{Leaf, PageRef, decode_inner, inner_hash},
    patch::Updated,
    suite::Suite,
};

/// The pages of a tree with a known root, which must not change meanwhile.
pub struct Checked<'p, P> {
    pages: &'p mut P,
    path: &'p mut Path,
}

/// What is known of a tree: its root, and the inner pages below it that were read last.
/// Whoever reads many pages of one tree keeps it, so that those are not read each time.
pub struct Path {
    root: Hash,
    levels: usize,
    /// The inner page that was read last of each level above the leaves.
    last: Vec<Option<Inner>>,
}

impl Path {
    /// Of the tree that `summary` describes, before anything of it was read.
    pub fn new(summary: &Summary) -> Self {
        let levels = summary.pages.len();
        Self { root: summary.root, levels, last: (1..levels).map(|_| None).collect() }
    }

    fn root(&self) -> Expected {
        let span = Span { is_first: true, next: None };
        Expected { first_key: None, hash: self.root, span }
    }
}

/// An inner page that is the right one.
struct Inner {
    body: Vec<u8>,
    children: Vec<PageRef>,
    span: Span,
}

/// Which keys belong to a page.
#[derive(Clone)]
struct Span {
    /// Whether keys before its first one do.
    is_first: bool,
    /// The first key of the page behind.
    next: Option<Vec<u8>>,
}

/// What is known of a page before it is read.
struct Expected {
    /// Nobody holds that of a root.
    first_key: Option<Vec<u8>>,
    hash: Hash,
    span: Span,
}

impl Inner {
    fn holds(&self, key: &[u8]) -> bool {
        let begins = self.span.is_first || self.children[0].first_key.as_slice() <= key;
        begins && self.span.next.as_deref().is_none_or(|next| key < next)
    }

    /// What it says of the child where `key` is or would be.
    fn expects(&self, key: &[u8]) -> Expected {
        let behind = self.children.partition_point(|child| child.first_key.as_slice() <= key);
        let at = behind.saturating_sub(1);
        let child = &self.children[at];
        let next = self.children.get(at + 1).map(|next| next.first_key.clone());
        Expected {
            first_key: Some(child.first_key.clone()),
            hash: child.hash,
            span: Span {
                is_first: self.span.is_first && at == 0,
                next: next.or_else(|| self.span.next.clone()),
            },
        }
    }
}

fn stale() -> DecodeError {
    DecodeError::Invalid("a page is not the one that its parent holds")
}

impl<'p, P: Pages> Checked<'p, P> {
    /// Pages, of which those are right that the tree of `path` has.
    pub fn new(pages: &'p mut P, path: &'p mut Path) -> Self {
        Self { pages, path }
    }

    /// What is known of the page of `level` where `key` is or would be; `None` if the tree
    /// has no such level.
    fn expected(&mut self, level: u8, key: &[u8]) -> Result<Option<Expected>, P::Error> {
        let above = usize::from(level) + 1;
        if above > self.path.levels {
            return Ok(None);
        }
        if above == self.path.levels {
            return Ok(Some(self.path.root()));
        }
        Ok(self.inner(level + 1, key)?.map(|parent| parent.expects(key)))
    }

    /// The inner page of `level` where `key` is or would be.
    fn inner(&mut self, level: u8, key: &[u8]) -> Result<Option<&Inner>, P::Error> {
        for level in (level..self.path.levels as u8).rev() {
            let place = usize::from(level) - 1;
            if self.path.last[place].as_ref().is_some_and(|inner| inner.holds(key)) {
                continue;
            }
            let parent = self.path.last.get(place + 1).and_then(Option::as_ref);
            let expected = parent.map_or_else(|| self.path.root(), |parent| parent.expects(key));
            self.path.last[place] = Some(self.read(level, expected)?);
        }
        Ok(self.path.last.get(usize::from(level) - 1).and_then(Option::as_ref))
    }

    fn read(&mut self, level: u8, expected: Expected) -> Result<Inner, P::Error> {
        let Expected { first_key, hash, span } = expected;
        let found = self.pages.seek(level, first_key.as_deref().unwrap_or_default())?;
        let (found, body) = found.ok_or_else(missing)?;
        let suite = self.pages.suite();
        let children = decode_inner(suite, &body)?;
        let is_right = children[0].first_key == found
            && first_key.is_none_or(|first_key| first_key == found)
            && inner_hash(suite, level, &children) == hash;
        if is_right { Ok(Inner { body, children, span }) } else { Err(stale().into()) }
    }

    fn check_leaf(
        &self,
        expected: &Expected,
        found: (Vec<u8>, Leaf),
    ) -> Result<(Vec<u8>, Leaf), P::Error> {
        let (first_key, leaf) = found;
        let is_there = expected.first_key.as_ref().is_none_or(|expected| *expected == first_key);
        let page = leaf.describe(self.pages.suite());
        match is_there && page.first_key == first_key && page.hash == expected.hash {
            true => Ok((first_key, leaf)),
            false => Err(stale().into()),
        }
    }
}

impl<P: Pages> Pages for Checked<'_, P> {
    type Error = P::Error;

    fn suite(&self) -> Suite {
        self.pages.suite()
    }

    fn seek(&mut self, level: u8, key: &[u8]) -> Result<Option<FoundPage>, P::Error> {
        if level == 0 {
            let Some(expected) = self.expected(0, key)? else {
                return Ok(None);
            };
            // Its bytes as they are: making them again costs many times what reading does.
            let found = self.pages.seek(0, expected.first_key.as_deref().unwrap_or_default())?;
            let (first_key, body) = found.ok_or_else(missing)?;
            let (first_key, _) = self.check_leaf(&expected, (first_key, Leaf::decode(&body)?))?;
            return Ok(Some((first_key, body)));
        }
        if usize::from(level) >= self.path.levels {
            return Ok(None);
        }
        let inner = self.inner(level, key)?;
        Ok(inner.map(|inner| (inner.children[0].first_key.clone(), inner.body.clone())))
    }

    fn next_key(&mut self, level: u8, first_key: &[u8]) -> Result<Option<Vec<u8>>, P::Error> {
        Ok(self.expected(level, first_key)?.and_then(|expected| expected.span.next))
    }

    fn seek_leaf(&mut self, key: &[u8]) -> Result<Option<(Vec<u8>, Leaf)>, P::Error> {
        let Some(expected) = self.expected(0, key)? else {
            return Ok(None);
        };
        let found = self.pages.seek_leaf(expected.first_key.as_deref().unwrap_or_default())?;
        self.check_leaf(&expected, found.ok_or_else(missing)?).map(Some)
    }

    fn kept(&mut self, key: &[u8]) -> Result<Option<Kept>, P::Error> {
        let Some(expected) = self.expected(0, key)? else {
            return Ok(None);
        };
        let Some(kept) = self.pages.kept(key)? else {
            return Ok(None);
        };
        let is_its = expected.first_key.is_none_or(|first_key| first_key == kept.first_key);
        Ok(is_its.then_some(Kept { expected: Some(expected.hash), ..kept }))
    }

    fn make(&mut self, leaves: Vec<RawLeaf>) -> Vec<MadePage> {
        self.pages.make(leaves)
    }

    fn patch(&mut self, leaves: &[(Kept, &[Change])]) -> Vec<Result<Updated, DecodeError>> {
        self.pages.patch(leaves)
    }
}

#[cfg(test)]
#[path = "checked_tests.rs"]
mod tests;
