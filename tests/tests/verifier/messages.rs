//! The messages of section 13 of `protocol/SPEC.md`: read all, and written where
//! a verifier has to say something to hear what it wants.

use super::{
    Checked, Refused, ensure,
    frames::{Decoder, Encoder},
    hashes::Hash,
    history::Proof,
    layout,
    reader::{is_label, is_partition},
};

/// A number and a header's hash.
pub type Position = (u64, Hash);

/// The newest that somebody has of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announced {
    pub partition: String,
    pub position: Position,
    pub root: Hash,
    pub records: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    pub suite: u8,
    pub versions: Vec<u16>,
    pub build: String,
    pub now_ms: i64,
    pub heads: Vec<Announced>,
}

/// The first frame of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Open {
    Control(Hello),
    Follow { partition: String, have: Option<Position> },
    Tree { partition: String, have: Option<Position> },
    Renew(Vec<u8>),
    NewKey { public: Vec<u8>, possession: Vec<u8>, countersignature: Vec<u8> },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Control {
    Hello(Hello),
    Announce(Vec<Announced>),
    Heartbeat(i64),
    Report { instance: [u8; 8], roots: Vec<[u8; 32]>, signing_key: Hash },
    Freshness(Vec<u8>),
    Anchor(Vec<u8>),
}

/// What a provider says on a Follow stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FollowReply {
    ChangeSet { header: Vec<u8>, body: Vec<u8> },
    TakePages,
    Fork(Vec<u8>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TreeRequest {
    Pages { level: u8, keys: Vec<Vec<u8>> },
    Differences { level: u8, salt: [u8; 16], pages: Vec<(Vec<u8>, Vec<u8>)> },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TreeReply {
    Head { header: Vec<u8>, levels: u8, root_page: Vec<u8>, proof: Proof },
    Part { bytes: Vec<u8>, more: bool },
    Fork { header: Vec<u8>, other: Hash, proof: Proof },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinRequest {
    pub token_id: [u8; 8],
    pub secret: [u8; 32],
    pub node: String,
    pub request: Vec<u8>,
    pub public: Vec<u8>,
    pub possession: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JoinReply {
    Accepted { chain: Vec<Vec<u8>>, root: Vec<u8> },
    ChangeSet { header: Vec<u8>, body: Vec<u8> },
    Done,
    Refused(u8),
}

/// An answer on a Renew or NewKey stream: what was granted, or why not.
pub type Granted<T> = Result<T, u8>;

const UNKNOWN: Refused = Refused("an unknown message");
/// What is as long as its frame.
const ANY: usize = layout::FRAME_BYTES_MAX;

pub fn open(body: &[u8]) -> Checked<Open> {
    let mut from = Decoder::new(body);
    let message = match from.varint()? {
        0 => Open::Control(hello(&mut from)?),
        1 => Open::Follow { partition: partition(&mut from)?, have: from.option(position)? },
        2 => Open::Tree { partition: partition(&mut from)?, have: from.option(position)? },
        3 => Open::Renew(from.bytes(layout::REQUEST_BYTES_MAX)?),
        4 => Open::NewKey {
            public: from.bytes(layout::PUBLIC_KEY_BYTES_MAX)?,
            possession: from.bytes(layout::SIGNATURE_BYTES_MAX)?,
            countersignature: from.bytes(layout::SIGNATURE_BYTES_MAX)?,
        },
        _ => return Err(UNKNOWN),
    };
    from.end(message)
}

pub fn control(body: &[u8]) -> Checked<Control> {
    let mut from = Decoder::new(body);
    let message = match from.varint()? {
        0 => Control::Hello(hello(&mut from)?),
        1 => Control::Announce(from.list(layout::HEADS_MAX, announced)?),
        2 => Control::Heartbeat(from.i64()?),
        3 => Control::Report {
            instance: from.array()?,
            roots: from.list(layout::ROOTS_MAX, Decoder::array)?,
            signing_key: from.hash()?,
        },
        4 => Control::Freshness(from.bytes(layout::FRESHNESS_BYTES_MAX)?),
        5 => Control::Anchor(from.bytes(layout::ANCHOR_BYTES_MAX)?),
        _ => return Err(UNKNOWN),
    };
    from.end(message)
}

/// An acknowledgement: the position and the root.
pub fn ack(body: &[u8]) -> Checked<(Position, Hash)> {
    let mut from = Decoder::new(body);
    ensure(from.varint()? == 0, "an unknown message")?;
    let message = (position(&mut from)?, from.hash()?);
    from.end(message)
}

pub fn follow_reply(body: &[u8]) -> Checked<FollowReply> {
    let mut from = Decoder::new(body);
    let message = match from.varint()? {
        0 => FollowReply::ChangeSet { header: header(&mut from)?, body: from.bytes(ANY)? },
        1 => FollowReply::TakePages,
        2 => FollowReply::Fork(header(&mut from)?),
        _ => return Err(UNKNOWN),
    };
    from.end(message)
}

pub fn tree_request(body: &[u8]) -> Checked<TreeRequest> {
    let mut from = Decoder::new(body);
    let key = |from: &mut Decoder<'_>| from.bytes(layout::KEY_BYTES_MAX);
    let message = match from.varint()? {
        0 => TreeRequest::Pages { level: from.u8()?, keys: from.list(layout::ASKED_MAX, key)? },
        1 => TreeRequest::Differences {
            level: from.u8()?,
            salt: from.array()?,
            pages: from.list(layout::COMPARED_MAX, |from| {
                let key = key(from)?;
                let known = from.bytes(layout::PAGE_ENTRIES_MAX * layout::NAME_BYTES)?;
                ensure(known.len().is_multiple_of(layout::NAME_BYTES), "a part of a name")?;
                Ok((key, known))
            })?,
        },
        _ => return Err(UNKNOWN),
    };
    from.end(message)
}

fn proof(from: &mut Decoder<'_>) -> Checked<Proof> {
    Ok(Proof {
        peaks: from.list(layout::PROOF_HASHES_MAX, Decoder::hash)?,
        path: from.list(layout::PROOF_HASHES_MAX, Decoder::hash)?,
    })
}

pub fn tree_reply(body: &[u8]) -> Checked<TreeReply> {
    let mut from = Decoder::new(body);
    let message = match from.varint()? {
        0 => TreeReply::Head {
            header: header(&mut from)?,
            levels: from.u8()?,
            root_page: from.bytes(layout::ROOT_PAGE_BYTES_MAX)?,
            proof: proof(&mut from)?,
        },
        1 => {
            let bytes = from.bytes(layout::PART_BYTES_MAX)?;
            ensure(!bytes.is_empty(), "an empty part")?;
            TreeReply::Part { bytes, more: from.bool()? }
        }
        2 => TreeReply::Fork {
            header: header(&mut from)?,
            other: from.hash()?,
            proof: proof(&mut from)?,
        },
        _ => return Err(UNKNOWN),
    };
    from.end(message)
}

pub fn renew_reply(body: &[u8]) -> Checked<Granted<Vec<Vec<u8>>>> {
    granted(body, |from| from.list(ANY, |from| from.bytes(ANY)))
}

pub fn new_key_reply(body: &[u8]) -> Checked<Granted<u64>> {
    granted(body, Decoder::varint)
}

fn granted<'a, T>(
    body: &'a [u8],
    grant: impl FnOnce(&mut Decoder<'a>) -> Checked<T>,
) -> Checked<Granted<T>> {
    let mut from = Decoder::new(body);
    let message = match from.varint()? {
        0 => Ok(grant(&mut from)?),
        1 => Err(reason(&mut from, 3)?),
        _ => return Err(UNKNOWN),
    };
    from.end(message)
}

pub fn join_request(body: &[u8]) -> Checked<JoinRequest> {
    let mut from = Decoder::new(body);
    let message = JoinRequest {
        token_id: from.array()?,
        secret: from.array()?,
        node: node(&mut from)?,
        request: from.bytes(ANY)?,
        public: from.bytes(ANY)?,
        possession: from.bytes(ANY)?,
    };
    from.end(message)
}

pub fn join_reply(body: &[u8]) -> Checked<JoinReply> {
    let mut from = Decoder::new(body);
    let message = match from.varint()? {
        0 => JoinReply::Accepted {
            chain: from.list(ANY, |from| from.bytes(ANY))?,
            root: from.bytes(ANY)?,
        },
        1 => JoinReply::ChangeSet { header: header(&mut from)?, body: from.bytes(ANY)? },
        2 => JoinReply::Done,
        3 => JoinReply::Refused(reason(&mut from, 7)?),
        _ => return Err(UNKNOWN),
    };
    from.end(message)
}

fn reason(from: &mut Decoder<'_>, known: u8) -> Checked<u8> {
    let reason = u8::try_from(from.varint()?).map_err(|_| UNKNOWN)?;
    ensure(reason < known, "an unknown reason")?;
    Ok(reason)
}

fn hello(from: &mut Decoder<'_>) -> Checked<Hello> {
    let suite = from.u8()?;
    ensure(suite == layout::SUITE, "another suite")?;
    Ok(Hello {
        suite,
        versions: from.list(layout::VERSIONS_MAX, Decoder::u16)?,
        build: from.text(layout::BUILD_BYTES_MAX)?,
        now_ms: from.i64()?,
        heads: from.list(layout::HEADS_MAX, announced)?,
    })
}

fn announced(from: &mut Decoder<'_>) -> Checked<Announced> {
    Ok(Announced {
        partition: partition(from)?,
        position: position(from)?,
        root: from.hash()?,
        records: from.varint()?,
    })
}

fn partition(from: &mut Decoder<'_>) -> Checked<String> {
    let name = from.text(4 * layout::NAME_BYTES_MAX + 3)?;
    ensure(is_partition(&name), "no full name of a partition")?;
    Ok(name)
}

fn node(from: &mut Decoder<'_>) -> Checked<String> {
    let name = from.text(layout::NAME_BYTES_MAX)?;
    ensure(is_label(&name), "a name outside of its alphabet")?;
    Ok(name)
}

fn position(from: &mut Decoder<'_>) -> Checked<Position> {
    let seq = from.varint()?;
    ensure(seq < layout::SEQ_LIMIT, "a number that cannot be")?;
    Ok((seq, from.hash()?))
}

/// A signed header; whether it is one is said elsewhere.
fn header(from: &mut Decoder<'_>) -> Checked<Vec<u8>> {
    from.bytes(ANY)
}

/// Opens a Follow stream.
pub fn encode_follow(partition: &str, have: Option<(u64, &Hash)>) -> Vec<u8> {
    Encoder::default().varint(1).bytes(partition.as_bytes()).option_position(have).body()
}

/// Opens a Tree stream.
pub fn encode_tree(partition: &str, have: Option<(u64, &Hash)>) -> Vec<u8> {
    Encoder::default().varint(2).bytes(partition.as_bytes()).option_position(have).body()
}

pub fn encode_ack(position: (u64, &Hash), root: &Hash) -> Vec<u8> {
    Encoder::default().varint(0).position(position).hash(root).body()
}

/// Asks for whole pages.
pub fn encode_pages(level: u8, keys: &[&[u8]]) -> Vec<u8> {
    let encoder = Encoder::default().varint(0).array(&[level]).varint(keys.len() as u64);
    keys.iter().fold(encoder, |encoder, key| encoder.bytes(key)).body()
}

pub fn encode_join(request: &JoinRequest) -> Vec<u8> {
    Encoder::default()
        .array(&request.token_id)
        .array(&request.secret)
        .bytes(request.node.as_bytes())
        .bytes(&request.request)
        .bytes(&request.public)
        .bytes(&request.possession)
        .body()
}
