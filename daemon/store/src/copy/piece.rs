//! What a partition consists of, piece by piece, and the bytes of each.
//!
//! The bytes are a format: they lie in backups. They hold nothing that follows from
//! the rest: neither inner pages and indexes nor what the log counts for. Every length
//! has a limit, and a piece consumes exactly its bytes.

use protocol::{
    change::{HEADER_BYTES_MAX, SignedHeader},
    encoding::{DecodeError, Reader, Writer},
    frame::FRAME_BYTES_MAX,
    hash::Hash,
    history::{Node, Peaks},
    id::NodeId,
    page::{LEAF_BYTES_MAX, Leaf},
    suite::Suite,
};

use crate::state::Ack;

/// Peaks of a history: one for each bit of a number.
const PEAKS_MAX: usize = 64;
/// The longest name of a node, with a reserve.
const NAME_BYTES_MAX: usize = 256;
/// The longest reason of a quarantine; what is longer is cut.
const REASON_BYTES_MAX: usize = 4096;
/// Bytes of a piece at most, with what stands in front of it: a leaf is the longest.
pub const PIECE_BYTES_MAX: usize = LEAF_BYTES_MAX + 64;

const HEAD: u8 = 1;
const QUARANTINE: u8 = 2;
const HEADER: u8 = 3;
const BODY: u8 = 4;
const NODE: u8 = 5;
const BASE: u8 = 6;
const ACK: u8 = 7;
const LEAF: u8 = 8;

/// A head, without what is computed from the leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopiedHead {
    /// The signed header.
    pub signed: SignedHeader,
    /// The headers before it.
    pub before: Peaks,
    /// The generation of the pages.
    pub generation: u32,
    /// When the node committed it, in milliseconds since 1970.
    pub updated_ms: i64,
}

/// A piece of a partition. They come in the order of this list; a body follows its
/// header.
#[derive(Debug, Clone)]
pub enum Piece {
    /// The head, of whose moment all that follows is.
    Head(Box<CopiedHead>),
    /// Why it is quarantined.
    Quarantine(String),
    /// A header of the log, up to the head's.
    Header(Box<SignedHeader>),
    /// What the log keeps of a change set: its number and its compressed body.
    Body(u64, Vec<u8>),
    /// A node of the history.
    Node(Node, Hash),
    /// Where the history was jumped over, and what was before.
    Base(u64, Peaks),
    /// What a node acknowledged.
    Ack(NodeId, Ack),
    /// A leaf of the tree.
    Leaf(Leaf),
}

impl Piece {
    /// Adds its bytes.
    pub fn write(&self, out: &mut Writer) {
        match self {
            Piece::Head(head) => {
                out.u8(HEAD);
                out.bytes(&head.signed.encode());
                write_peaks(out, &head.before);
                out.u32(head.generation);
                out.i64(head.updated_ms);
            }
            Piece::Quarantine(reason) => {
                out.u8(QUARANTINE);
                out.bytes(&reason.as_bytes()[..reason.floor_char_boundary(REASON_BYTES_MAX)]);
            }
            Piece::Header(signed) => {
                out.u8(HEADER);
                out.bytes(&signed.encode());
            }
            Piece::Body(seq, body) => {
                out.u8(BODY);
                out.u64(*seq);
                out.bytes(body);
            }
            Piece::Node(node, hash) => {
                out.u8(NODE);
                out.u8(node.height);
                out.u64(node.index);
                out.hash(hash);
            }
            Piece::Base(seq, peaks) => {
                out.u8(BASE);
                out.u64(*seq);
                write_peaks(out, peaks);
            }
            Piece::Ack(node, ack) => {
                out.u8(ACK);
                out.bytes(node.as_str().as_bytes());
                out.u64(ack.seq);
                out.i64(ack.at_ms);
            }
            Piece::Leaf(leaf) => {
                out.u8(LEAF);
                out.bytes(leaf.raw());
            }
        }
    }

    /// Reads the next piece, all of whose hashes are of `suite`.
    pub fn read(suite: Suite, input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match input.u8()? {
            HEAD => Piece::Head(Box::new(CopiedHead {
                signed: read_header(input)?,
                before: read_peaks(suite, input)?,
                generation: input.u32()?,
                updated_ms: input.i64()?,
            })),
            QUARANTINE => Piece::Quarantine(input.text("a reason", REASON_BYTES_MAX)?.to_owned()),
            HEADER => Piece::Header(Box::new(read_header(input)?)),
            BODY => {
                let seq = input.u64()?;
                Piece::Body(seq, input.bytes("a change set", FRAME_BYTES_MAX)?.to_vec())
            }
            NODE => {
                let node = Node { height: input.u8()?, index: input.u64()? };
                Piece::Node(node, input.hash(suite)?)
            }
            BASE => {
                let seq = input.u64()?;
                Piece::Base(seq, read_peaks(suite, input)?)
            }
            ACK => {
                let node = NodeId::new(input.text("a node's name", NAME_BYTES_MAX)?)
                    .map_err(|_| DecodeError::Invalid("a node has a malformed name"))?;
                Piece::Ack(node, Ack { seq: input.u64()?, at_ms: input.i64()? })
            }
            LEAF => Piece::Leaf(Leaf::parse(input.bytes("a leaf", LEAF_BYTES_MAX)?.to_vec())?),
            _ => return Err(DecodeError::Invalid("a piece of a partition of an unknown kind")),
        })
    }
}

fn write_peaks(out: &mut Writer, peaks: &Peaks) {
    out.u64(peaks.count());
    out.u8(peaks.hashes().len() as u8);
    peaks.hashes().iter().for_each(|hash| out.hash(hash));
}

fn read_peaks(suite: Suite, input: &mut Reader<'_>) -> Result<Peaks, DecodeError> {
    let (count, peaks) = (input.u64()?, usize::from(input.u8()?));
    if peaks > PEAKS_MAX || peaks != count.count_ones() as usize {
        return Err(DecodeError::Invalid("a history has not the peaks that its length asks for"));
    }
    let hashes = (0..peaks).map(|_| input.hash(suite)).collect::<Result<_, _>>()?;
    Ok(Peaks::of(count, hashes))
}

fn read_header(input: &mut Reader<'_>) -> Result<SignedHeader, DecodeError> {
    SignedHeader::decode(input.bytes("a header", HEADER_BYTES_MAX)?)
}

/// Whether all headers below a node come before number `seq`.
pub(super) fn is_before(node: Node, seq: u64) -> bool {
    let end = node.index.checked_add(1);
    let end = end.and_then(|end| end.checked_mul(1u64.checked_shl(node.height.into())?));
    end.is_some_and(|end| end < seq)
}
