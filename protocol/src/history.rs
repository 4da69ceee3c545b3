//! What a header says about all headers before it.
//!
//! The hashes of a partition's headers, from number 1, are the leaves of a Merkle
//! tree with the shape of RFC 9162, section 2.1.1; each header holds the root
//! over those before it. So whoever has two signed headers of a partition can be
//! shown, by as many hashes as the tree is high, that the earlier one is in the
//! later one's history, or else has two histories in hand. `SPEC.md`, section
//! "Change sets".
//!
//! [`Peaks`] is what a node keeps to go on; [`Proof`] is what it is shown. Which
//! nodes of the tree are stored, and where, is not known here ([`nodes_of`]).

use serde::{Deserialize, Serialize};

use crate::{
    change::Position,
    hash::{Hash, Purpose},
    suite::Suite,
};

/// Numbers of change sets stay below this: 2⁶² of them are never made, and no sum
/// with one overflows.
pub const SEQ_LIMIT: u64 = 1 << 62;
/// Most peaks of a history, and most hashes on a way to one of them.
pub const HEIGHT_MAX: usize = 62;

/// The history of number 1: that of nothing.
pub fn empty(suite: Suite) -> Hash {
    suite.hash(Purpose::History, &[])
}

/// The largest full subtrees of a history, the largest first: one for each bit of
/// the number of headers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Peaks {
    count: u64,
    peaks: Vec<Hash>,
}

impl Peaks {
    /// The history of nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Of so many headers, from the hashes of [`peaks_of`].
    pub fn of(count: u64, peaks: Vec<Hash>) -> Self {
        Self { count, peaks }
    }

    /// Headers in it.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The hashes, the largest subtree's first.
    pub fn hashes(&self) -> &[Hash] {
        &self.peaks
    }

    /// The next header's hash.
    pub fn push(&mut self, header: Hash) {
        self.push_noting(header, |_, _| ());
    }

    /// As [`Peaks::push`]; `note` is told of each node above the leaves that is
    /// complete now.
    pub fn push_noting(&mut self, header: Hash, mut note: impl FnMut(Node, Hash)) {
        let mut joined = header;
        for height in 1..=self.count.trailing_ones() {
            let Some(left) = self.peaks.pop() else { break };
            joined = join(&left, &joined);
            note(Node { height: height as u8, index: self.count >> height }, joined);
        }
        self.peaks.push(joined);
        self.count += 1;
    }

    /// The root, as the next header holds it.
    pub fn root(&self, suite: Suite) -> Hash {
        let joined = self.peaks.iter().rev().copied().reduce(|right, left| join(&left, &right));
        joined.unwrap_or_else(|| empty(suite))
    }
}

fn join(left: &Hash, right: &Hash) -> Hash {
    left.suite().hash(Purpose::History, &[left.as_bytes(), right.as_bytes()])
}

/// A full subtree: over the `2^height` headers from number `index * 2^height + 1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Node {
    /// 0 for a header.
    pub height: u8,
    /// Its place among those of its height, from 0.
    pub index: u64,
}

impl Node {
    /// The node above this one, whose hash is `own`, and the one beside it.
    fn join_below(self, beside: &Hash, own: &Hash) -> Hash {
        // A node with an even index is a left one.
        if self.index & 1 == 0 { join(own, beside) } else { join(beside, own) }
    }
}

/// The nodes whose hashes are the peaks of a history of `count` headers.
pub fn peaks_of(count: u64) -> impl Iterator<Item = Node> {
    (0..64u8).rev().filter(move |height| count >> height & 1 == 1).map(move |height| Node {
        height,
        // What is left of the larger ones, counted in subtrees of this height.
        index: (count >> height) - 1,
    })
}

/// The nodes whose hashes lead from header number `seq` to its peak in a history
/// of `count` headers, lowest first. None if it is not in it.
pub fn nodes_of(seq: u64, count: u64) -> Option<Vec<Node>> {
    let leaf = seq.checked_sub(1).filter(|leaf| *leaf < count)?;
    let peak = peaks_of(count).find(|peak| leaf >> peak.height == peak.index)?;
    Some((0..peak.height).map(|height| Node { height, index: leaf >> height ^ 1 }).collect())
}

/// Shows what the history of a header is, and that another header is in it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Proof {
    /// The peaks of the headers before the one whose history it is.
    pub peaks: Vec<Hash>,
    /// The hashes from the other header to its peak, lowest first; empty if there
    /// is no other header.
    pub path: Vec<Hash>,
}

/// The nodes that a proof has shown, once it was checked: the peaks, and what lies
/// beside and above the earlier header. With the nodes below that header they are
/// enough to prove to others what was proved here.
pub fn shown(
    peaks: &Peaks,
    earlier: Option<Position>,
    path: &[Hash],
) -> impl Iterator<Item = (Node, Hash)> {
    let mut nodes: Vec<(Node, Hash)> =
        peaks_of(peaks.count).zip(peaks.peaks.iter().copied()).collect();
    let beside = earlier.and_then(|earlier| nodes_of(earlier.seq, peaks.count));
    if let (Some(beside), Some(earlier)) = (beside, earlier) {
        let mut joined = earlier.hash;
        for (node, other) in beside.into_iter().zip(path) {
            nodes.push((node, *other));
            joined = node.join_below(&joined, other);
            nodes.push((Node { height: node.height + 1, index: node.index >> 1 }, joined));
        }
    }
    nodes.into_iter()
}

/// Why a proof shows nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// The peaks are not those of the header's history.
    #[error("the hashes before a header do not give the history that it names")]
    Peaks,
    /// The other header is not in the history.
    #[error("the hashes do not lead from a header to the history that it should be in")]
    Path,
}

impl Proof {
    /// Checks that `history` is the root over the `count` headers before a header
    /// and, if there is one, that `earlier` is among them; else nothing may lead
    /// anywhere. Answers the peaks.
    pub fn check(
        self,
        count: u64,
        history: &Hash,
        earlier: Option<Position>,
    ) -> Result<Peaks, ProofError> {
        if count >= SEQ_LIMIT || self.peaks.len() != count.count_ones() as usize {
            return Err(ProofError::Peaks);
        }
        let peaks = Peaks { count, peaks: self.peaks };
        if peaks.root(history.suite()) != *history {
            return Err(ProofError::Peaks);
        }
        let Some(earlier) = earlier else {
            return if self.path.is_empty() { Ok(peaks) } else { Err(ProofError::Path) };
        };
        let nodes = nodes_of(earlier.seq, count).ok_or(ProofError::Path)?;
        if nodes.len() != self.path.len() {
            return Err(ProofError::Path);
        }
        let beside = nodes.iter().zip(&self.path);
        let joined = beside.fold(earlier.hash, |hash, (node, other)| node.join_below(&hash, other));
        let place = peaks_of(count).position(|peak| usize::from(peak.height) == nodes.len());
        match place {
            Some(place) if peaks.peaks[place] == joined => Ok(peaks),
            _ => Err(ProofError::Path),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn header(suite: Suite, seq: u64) -> Hash {
        suite.hash(Purpose::Header, &[&seq.to_be_bytes()])
    }

    /// RFC 9162, section 2.1.1, word by word, but for its prefixes of leaves and
    /// nodes, whose place the contexts take.
    fn by_definition(suite: Suite, first: u64, count: u64) -> Hash {
        match count {
            0 => suite.hash(Purpose::History, &[]),
            1 => header(suite, first),
            _ => {
                let left = (count - 1).ilog2();
                let left = 1 << left;
                join(
                    &by_definition(suite, first, left),
                    &by_definition(suite, first + left, count - left),
                )
            }
        }
    }

    fn history(suite: Suite, count: u64) -> (Peaks, BTreeMap<Node, Hash>) {
        let (mut peaks, mut nodes) = (Peaks::new(), BTreeMap::new());
        for seq in 1..=count {
            nodes.insert(Node { height: 0, index: seq - 1 }, header(suite, seq));
            peaks.push_noting(header(suite, seq), |node, hash| {
                nodes.insert(node, hash);
            });
        }
        (peaks, nodes)
    }

    fn proof(suite: Suite, seq: u64, count: u64) -> Proof {
        let (peaks, nodes) = history(suite, count);
        let path = nodes_of(seq, count).unwrap().iter().map(|node| nodes[node]).collect();
        Proof { peaks: peaks.hashes().to_vec(), path }
    }

    #[test]
    fn the_root_is_the_one_of_the_standard_and_the_noted_nodes_are_true() {
        for suite in Suite::ALL.iter().copied() {
            for count in 0..70 {
                let (peaks, nodes) = history(suite, count);
                assert_eq!(peaks.root(suite), by_definition(suite, 1, count), "{count}");
                for (node, hash) in &nodes {
                    let width = 1 << node.height;
                    assert_eq!(
                        *hash,
                        by_definition(suite, node.index * width + 1, width),
                        "{node:?}"
                    );
                }
                let of_nodes: Vec<Hash> = peaks_of(count).map(|node| nodes[&node]).collect();
                assert_eq!(of_nodes, peaks.hashes());
            }
        }
    }

    #[test]
    fn every_header_is_shown_to_be_in_every_later_history() {
        for suite in Suite::ALL.iter().copied() {
            for count in 1..40 {
                let root = by_definition(suite, 1, count);
                for seq in 1..=count {
                    let earlier = Position { seq, hash: header(suite, seq) };
                    let peaks = proof(suite, seq, count).check(count, &root, Some(earlier));
                    assert_eq!(peaks.map(|peaks| peaks.root(suite)), Ok(root), "{seq} of {count}");
                    for other in [
                        Position { seq: seq + 1, ..earlier },
                        Position { hash: header(suite, 0), ..earlier },
                    ] {
                        let refused = proof(suite, seq, count).check(count, &root, Some(other));
                        assert_eq!(refused, Err(ProofError::Path), "{seq} of {count}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_was_proved_can_be_proved_to_others() {
        for suite in Suite::ALL.iter().copied() {
            for count in 2..40 {
                for have in 1..count {
                    let (_, mut nodes) = history(suite, have);
                    let (peaks, _) = history(suite, count);
                    let earlier = Position { seq: have, hash: header(suite, have) };
                    nodes.extend(shown(&peaks, Some(earlier), &proof(suite, have, count).path));
                    for seq in 1..=have {
                        let path = nodes_of(seq, count).unwrap();
                        let path: Vec<Hash> = path.iter().map(|node| nodes[node]).collect();
                        assert_eq!(
                            path,
                            proof(suite, seq, count).path,
                            "{seq} by {have} in {count}"
                        );
                    }
                }
            }
        }
    }

    proptest! {
        #[test]
        fn an_altered_proof_shows_nothing(
            count in 1u64..200, seq in 1u64..200, at: prop::sample::Index, bit in 0usize..256,
            suite in prop::sample::select(Suite::ALL),
        ) {
            prop_assume!(seq <= count);
            let (root, earlier) = (by_definition(suite, 1, count), Position { seq, hash: header(suite, seq) });
            let whole = proof(suite, seq, count);
            let hashes = whole.peaks.len() + whole.path.len();
            let mut altered = whole.clone();
            let at = at.index(hashes);
            let hash = if at < whole.peaks.len() {
                &mut altered.peaks[at]
            } else {
                &mut altered.path[at - whole.peaks.len()]
            };
            let mut bytes = hash.as_bytes().to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            *hash = Hash::from_bytes(suite, &bytes).unwrap();
            prop_assert!(altered.check(count, &root, Some(earlier)).is_err());
            let longer = Proof { path: [&whole.path[..], &[root]].concat(), ..whole.clone() };
            prop_assert!(longer.check(count, &root, Some(earlier)).is_err());
            prop_assert!(whole.check(count, &root, Some(earlier)).is_ok());
        }
    }
}
