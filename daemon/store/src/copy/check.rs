//! Whether pieces are all of one partition, as its origin signed it.
//!
//! Used before anything is filled in, and alone, to see whether a backup is good.
//! Invariants: the tree is built from the leaves, and its root has to be the head's;
//! the headers lead to the head, bodies have the hashes of their headers, and the
//! history before the head is the one that it names. Not here: whose key counts.

use protocol::{
    change::{BODY_BYTES_MAX, Position, SignedHeader, changes_hash},
    codec,
    history::peaks_of,
    id::PartitionId,
    page::{Leaf, MadePage, PageRef},
    suite::Suite,
    tree::{Summary, TreeBuilder, WORK},
};

use super::piece::{CopiedHead, Piece, is_before};
use crate::{cores::on_all_cores, error::StoreError};

/// A piece that was looked at.
pub enum Judged {
    /// Anything but a leaf.
    Piece(Piece),
    /// A leaf.
    Leaf(JudgedLeaf),
}

/// A leaf with what belongs to it.
pub struct JudgedLeaf {
    /// The leaf.
    pub leaf: Leaf,
    /// What its parent holds.
    pub page: PageRef,
    /// Its index.
    pub index: Vec<u8>,
    /// Pages above leaves up to this one.
    pub inner: Vec<MadePage>,
}

/// What a partition has come to.
pub struct Whole {
    /// Its head.
    pub head: CopiedHead,
    /// Its tree.
    pub summary: Summary,
    /// The last pages above the leaves.
    pub inner: Vec<MadePage>,
}

/// Looks at the pieces of one partition, in their order.
pub struct Check {
    suite: Suite,
    partition: PartitionId,
    head: Option<CopiedHead>,
    /// The header that came last, and whether its body has come.
    last: Option<(SignedHeader, bool)>,
    builder: TreeBuilder,
    /// How far the order of kinds has come.
    stage: u8,
    /// Headers have come to the head.
    at_head: bool,
}

impl Check {
    /// Of a partition whose hashes are of `suite`.
    pub fn new(suite: Suite, partition: PartitionId) -> Self {
        let builder = TreeBuilder::new(suite);
        Self { suite, partition, head: None, last: None, builder, stage: 0, at_head: false }
    }

    fn wrong(&self, problem: impl ToString) -> StoreError {
        StoreError::Damaged { place: self.partition.to_string(), problem: problem.to_string() }
    }

    /// Looks at the next pieces. Leaves are hashed on all cores.
    pub fn take(&mut self, pieces: Vec<Piece>) -> Result<Vec<Judged>, StoreError> {
        let suite = self.suite;
        let described = on_all_cores(pieces, |piece| match &piece {
            Piece::Leaf(leaf) => {
                let described = leaf.describe_with_index(suite);
                (piece, Some(described))
            }
            _ => (piece, None),
        });
        let mut judged = Vec::with_capacity(described.len());
        for (piece, described) in described {
            judged.push(match (piece, described) {
                (Piece::Leaf(leaf), Some((page, index))) => {
                    self.stage(7, false)?;
                    let mut inner = Vec::new();
                    let pushed = self.builder.push(&leaf, page.clone(), &mut inner);
                    pushed.map_err(|problem| self.wrong(problem))?;
                    Judged::Leaf(JudgedLeaf { leaf, page, index, inner })
                }
                (piece, _) => {
                    self.look(&piece)?;
                    Judged::Piece(piece)
                }
            });
        }
        Ok(judged)
    }

    /// The kinds come in an order, some of them once.
    fn stage(&mut self, stage: u8, once: bool) -> Result<(), StoreError> {
        let begins = stage > 1 && self.head.is_none();
        // One that has no head yet has nothing but its quarantine.
        if self.stage > stage || (once && self.stage == stage) || (begins && stage != 2) {
            return Err(self.wrong("its pieces are not in their order"));
        }
        self.stage = stage;
        Ok(())
    }

    fn look(&mut self, piece: &Piece) -> Result<(), StoreError> {
        match piece {
            Piece::Head(head) => {
                self.stage(1, true)?;
                self.look_at_head(head)?;
                self.head = Some((**head).clone());
            }
            Piece::Quarantine(_) => self.stage(2, true)?,
            Piece::Header(signed) => {
                self.stage(3, false)?;
                self.look_at_header(signed)?;
            }
            Piece::Body(seq, body) => {
                self.stage(3, false)?;
                self.look_at_body(*seq, body)?;
            }
            Piece::Node(node, hash) => {
                self.stage(4, false)?;
                let Some(head) = &self.head else { return Err(self.wrong("it has no head")) };
                let before = &head.before;
                let mut peaks = peaks_of(before.count()).zip(before.hashes());
                let differs = peaks.any(|(peak, known)| peak == *node && known != hash);
                if differs || !is_before(*node, head.signed.header().seq) {
                    return Err(self.wrong("its history is not the one that its head names"));
                }
            }
            Piece::Base(landed, peaks) => {
                self.stage(5, true)?;
                let seq = self.head.as_ref().map_or(0, |head| head.signed.header().seq);
                if *landed == 0 || *landed > seq || peaks.count() != *landed - 1 {
                    return Err(self.wrong("its history begins behind its head"));
                }
            }
            Piece::Ack(..) => self.stage(6, false)?,
            Piece::Leaf(_) => return Err(self.wrong("its pieces are not in their order")),
        }
        Ok(())
    }

    fn look_at_head(&self, head: &CopiedHead) -> Result<(), StoreError> {
        let header = head.signed.header();
        if header.partition != self.partition || head.signed.suite() != self.suite {
            return Err(self.wrong("its head is another partition's"));
        }
        let history = (head.before.count() + 1, head.before.root(self.suite));
        if history != (header.seq, header.history) {
            return Err(self.wrong("its history is not the one that its head names"));
        }
        // Numbers of generations are given one by one.
        if head.generation > u32::MAX / 2 {
            return Err(self.wrong("its generation has a number beyond all limits"));
        }
        Ok(())
    }

    fn look_at_header(&mut self, signed: &SignedHeader) -> Result<(), StoreError> {
        let header = signed.header();
        let head = self.head.as_ref().map(|head| head.signed.position());
        let last: Option<Position> = self.last.as_ref().map(|(last, _)| last.position());
        let is_known = header.partition == self.partition && signed.suite() == self.suite;
        let follows = last.is_none_or(|last| {
            last.seq < header.seq && (last.seq + 1 < header.seq || header.previous == last.hash)
        });
        let fits = head.is_some_and(|head| header.seq < head.seq || signed.position() == head);
        if !(is_known && follows && fits) {
            return Err(self.wrong(format_args!(
                "the header with number {} does not lead to its head",
                header.seq
            )));
        }
        self.at_head = head == Some(signed.position());
        self.last = Some((signed.clone(), false));
        Ok(())
    }

    fn look_at_body(&mut self, seq: u64, body: &[u8]) -> Result<(), StoreError> {
        let header = self.last.as_ref().filter(|(last, has)| last.header().seq == seq && !has);
        let changes = codec::decompress(body, BODY_BYTES_MAX).map_err(|error| self.wrong(error))?;
        let is_its = header.is_some_and(|(last, _)| {
            last.header().changes_hash == changes_hash(self.suite, &changes)
        });
        if !is_its {
            return Err(
                self.wrong(format_args!("the change set with number {seq} is not its header's"))
            );
        }
        if let Some((_, has_body)) = &mut self.last {
            *has_body = true;
        }
        Ok(())
    }

    /// All pieces have come. None of one that has no head.
    ///
    /// # Errors
    /// `RootMismatch` if the leaves are not those of the head.
    pub fn finish(self) -> Result<Option<Whole>, StoreError> {
        let wrong = self.wrong("its headers do not lead to its head");
        let shape = |problem| StoreError::Shape { partition: self.partition.clone(), problem };
        let Some(head) = self.head else {
            return Ok(None);
        };
        if !self.at_head {
            return Err(wrong);
        }
        let mut inner = Vec::new();
        let summary = self.builder.finish(&mut inner).map_err(shape)?;
        WORK.check_shape(&summary)?;
        let header = head.signed.header();
        if (header.root, header.records) != (summary.root, summary.records) {
            return Err(StoreError::RootMismatch {
                partition: Box::new(self.partition),
                seq: header.seq,
                signed: header.root,
                computed: summary.root,
            });
        }
        Ok(Some(Whole { head, summary, inner }))
    }
}
