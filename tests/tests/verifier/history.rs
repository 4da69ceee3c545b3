//! Histories of headers and proofs that one holds another: section 10 of
//! `protocol/SPEC.md`, after RFC 9162, 2.1.1.

use super::{Checked, Refused, ensure, hashes, hashes::Hash, layout};

fn joined(left: &Hash, right: &Hash) -> Hash {
    hashes::hash(layout::hash::HISTORY, &[&left[..], right].concat())
}

/// The history over these headers' hashes, by the RFC's recursion.
pub fn root(headers: &[Hash]) -> Hash {
    match headers {
        [] => hashes::hash(layout::hash::HISTORY, &[]),
        [only] => *only,
        _ => {
            // The largest power of two below the count.
            let left = headers.len().next_power_of_two() / 2;
            joined(&root(&headers[..left]), &root(&headers[left..]))
        }
    }
}

/// The roots of the largest full subtrees, the largest first.
pub fn peaks(headers: &[Hash]) -> Vec<Hash> {
    let (mut peaks, mut rest) = (Vec::new(), headers);
    for height in heights(headers.len() as u64) {
        let (full, behind) = rest.split_at(1 << height);
        peaks.push(root(full));
        rest = behind;
    }
    peaks
}

/// The heights of the peaks over so many headers, the highest first.
fn heights(count: u64) -> Vec<u32> {
    (0..u64::BITS).rev().filter(|bit| count >> bit & 1 == 1).collect()
}

/// The peaks, joined from the right.
pub fn root_of_peaks(peaks: &[Hash]) -> Hash {
    let mut from_right = peaks.iter().rev();
    match from_right.next() {
        None => root(&[]),
        Some(last) => from_right.fold(*last, |right, left| joined(left, &right)),
    }
}

/// What shows that one history holds a header.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proof {
    pub peaks: Vec<Hash>,
    pub path: Vec<Hash>,
}

impl Proof {
    /// The peaks are those of the `seq - 1` headers before a header `seq`.
    pub fn check_history(&self, seq: u64, history: &Hash) -> Checked<()> {
        ensure(seq > 0 && heights(seq - 1).len() == self.peaks.len(), "another number of peaks")?;
        ensure(root_of_peaks(&self.peaks) == *history, "peaks of another history")
    }

    /// The same for who holds nothing before it, so that nothing leads anywhere.
    pub fn check_alone(&self, seq: u64, history: &Hash) -> Checked<()> {
        self.check_history(seq, history)?;
        ensure(self.path.is_empty(), "a path from nothing")
    }

    /// The header `earlier` is in the history of a header `seq`.
    pub fn check(&self, earlier: (u64, &Hash), seq: u64, history: &Hash) -> Checked<()> {
        self.check_history(seq, history)?;
        let (earlier, hash) = earlier;
        ensure((1..seq).contains(&earlier), "no earlier header")?;
        // The peak over it, and its place among the headers below that.
        let mut index = earlier - 1;
        let mut peak = 0;
        let heights = heights(seq - 1);
        let height = loop {
            let height = heights[peak];
            if index < 1 << height {
                break height;
            }
            index -= 1 << height;
            peak += 1;
        };
        let length = usize::try_from(height).map_err(|_| Refused("too long a path"))?;
        ensure(self.path.len() == length, "a path of another length")?;
        let mut node = *hash;
        for beside in &self.path {
            node = if index & 1 == 0 { joined(&node, beside) } else { joined(beside, &node) };
            index >>= 1;
        }
        ensure(node == self.peaks[peak], "a path to another history")
    }
}
