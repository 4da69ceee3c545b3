//! What a hostile node says in place of the truth: messages that decode and mean
//! something else.
//!
//! It signs with its own key and with no other; what it says of others' partitions
//! it can only forge.

use std::{collections::BTreeMap, rc::Rc};

use protocol::{
    change::{Change, Header, Position, SignedHeader, encode_changes},
    codec,
    hash::Hash,
    history::{Node, Peaks, Proof, SEQ_LIMIT, nodes_of, peaks_of},
    id::{Audience, PartitionId},
    message::{
        Announced, Control, FollowReply, FollowRequest, Hello, Open, PROTOCOL_VERSION,
        ROOT_BYTES_MAX, TreeReply, TreeRequest,
    },
    page::{LEVELS_MAX, Leaf, RawLeaf, decode_inner, make_inner},
};

use super::{
    HOSTILE_SUITE,
    cast::{Cast, DATASETS, HUB},
    giant::Giant,
    hostile::{Lie, Usage},
    rng::Rng,
};

/// Where a message is about to be sent.
#[derive(Debug)]
pub struct Place {
    /// To whom.
    pub peer: usize,
    /// What the stream is for.
    pub usage: Usage,
    /// Whether it is the stream's first message.
    pub opening: bool,
    /// Whether the liar has opened the stream.
    pub asks: bool,
    /// Where the side that has opened it said that it is.
    pub have: Option<Position>,
}

/// Somebody who lies.
#[derive(Debug)]
pub struct Liar {
    cast: Rc<Cast>,
    node: usize,
}

/// A message in place of another, and the tree that it promises.
type Altered = (Vec<u8>, Option<Giant>);

impl Liar {
    /// The node of that index.
    pub fn new(cast: &Rc<Cast>, node: usize) -> Self {
        Self { cast: Rc::clone(cast), node }
    }

    /// A message of some kind, as no other place has it.
    pub fn wrong_kind(&self, rng: &mut Rng) -> Vec<u8> {
        let position = Position { seq: number(rng).min(SEQ_LIMIT - 1), hash: hash(rng) };
        let (versions, build) = (vec![PROTOCOL_VERSION], "simulation".into());
        let suite = HOSTILE_SUITE.number();
        let hello = Hello { suite, versions, build, now_ms: 0, heads: Vec::new() };
        match rng.below(9) {
            0 => codec::encode(&Open::Control(hello)),
            1 => codec::encode(&Control::Hello(hello)),
            2 => codec::encode(&Control::Heartbeat { now_ms: i64::MIN }),
            3 => codec::encode(&Control::Freshness(vec![1; 20])),
            4 => codec::encode(&FollowRequest::Ack { position, root: hash(rng) }),
            5 => codec::encode(&FollowReply::TakePages),
            6 => codec::encode(&TreeRequest::Pages { level: 0, keys: vec![vec![]] }),
            7 => codec::encode(&TreeReply::Part { bytes: vec![7; 3], more: rng.chance(50) }),
            _ => {
                let partition = self.cast.partition(self.node, DATASETS[0]);
                codec::encode(&Open::Tree { partition, have: Some(position) })
            }
        }
    }

    /// The message with this lie in it, if it fits there.
    pub fn alter(&self, rng: &mut Rng, lie: Lie, at: &Place, bytes: &[u8]) -> Option<Altered> {
        let altered = match (at.usage, at.opening, at.asks) {
            (_, true, _) => self.opening(rng, lie, at, Open::decode(bytes).ok()?)?,
            (Usage::Control, ..) => self.control(rng, lie, at, Control::decode(bytes).ok()?)?,
            (Usage::Follow, _, true) => ack(rng, lie, codec::decode(bytes).ok()?)?,
            (Usage::Follow, _, false) => self.follow(rng, lie, at, codec::decode(bytes).ok()?)?,
            (Usage::Tree, _, true) => request(rng, lie, TreeRequest::decode(bytes).ok()?)?,
            (Usage::Tree, _, false) => {
                return self.tree(rng, lie, at, TreeReply::decode(bytes).ok()?);
            }
            (Usage::Unknown, ..) => return None,
        };
        Some((altered, None))
    }

    fn opening(&self, rng: &mut Rng, lie: Lie, at: &Place, open: Open) -> Option<Vec<u8>> {
        let is_tree = matches!(open, Open::Tree { .. });
        let (partition, have) = match (open, lie) {
            (Open::Control(mut hello), _) => {
                self.heads(rng, lie, at, &mut hello.heads)?;
                return Some(codec::encode(&Open::Control(hello)));
            }
            (Open::Follow { have, .. } | Open::Tree { have, .. }, Lie::Partition) => {
                (self.strange(rng, at), have)
            }
            (Open::Follow { partition, .. } | Open::Tree { partition, .. }, Lie::Have) => {
                let elsewhere = Position { seq: number(rng), hash: hash(rng) };
                (partition, Some(elsewhere).filter(|_| rng.chance(80)))
            }
            _ => return None,
        };
        Some(codec::encode(&match is_tree {
            true => Open::Tree { partition, have },
            false => Open::Follow { partition, have },
        }))
    }

    fn control(&self, rng: &mut Rng, lie: Lie, at: &Place, said: Control) -> Option<Vec<u8>> {
        let told = match said {
            Control::Hello(mut hello) => {
                self.heads(rng, lie, at, &mut hello.heads)?;
                Control::Hello(hello)
            }
            Control::Announce(mut heads) => {
                self.heads(rng, lie, at, &mut heads)?;
                Control::Announce(heads)
            }
            Control::Heartbeat { .. } => {
                let mut heads = Vec::new();
                self.heads(rng, lie, at, &mut heads)?;
                Control::Announce(heads)
            }
            _ => return None,
        };
        Some(codec::encode(&told))
    }

    /// Adds a head that is not so.
    fn heads(&self, rng: &mut Rng, lie: Lie, at: &Place, heads: &mut Vec<Announced>) -> Option<()> {
        let datasets = [DATASETS[0], DATASETS[1], "unheard-of"];
        let partition = match lie {
            Lie::Head if self.node == HUB && rng.chance(30) => self.cast.system(),
            Lie::Head => self.cast.partition(self.node, datasets[rng.index(3)]),
            Lie::Claim => self.cast.partition(at.peer, datasets[rng.index(2)]),
            Lie::Stranger => self.strange(rng, at),
            _ => return None,
        };
        let known = heads.iter().position(|head| head.partition == partition);
        let known = known.map(|place| heads.remove(place));
        let mut head = known.filter(|_| rng.chance(50)).unwrap_or_else(|| Announced {
            partition,
            position: Position { seq: number(rng), hash: hash(rng) },
            root: hash(rng),
            records: number(rng),
        });
        match rng.below(4) {
            0 => head.position.seq = number(rng),
            1 => head.position.hash = hash(rng),
            2 => head.root = hash(rng),
            _ => head.records = number(rng),
        }
        heads.push(head);
        Some(())
    }

    /// A partition that is neither the peer's nor the liar's, or not for both.
    fn strange(&self, rng: &mut Rng, at: &Place) -> PartitionId {
        let mut partition = self.cast.partition(at.peer, DATASETS[rng.index(2)]);
        match rng.below(3) {
            0 => partition.audience = Audience::Node(self.cast.nodes[self.node].clone()),
            1 => partition.federation = "luoyang".parse().expect("it is a name"),
            _ => partition.origin = "nobody".parse().expect("it is a name"),
        }
        partition
    }

    fn follow(&self, rng: &mut Rng, lie: Lie, at: &Place, said: FollowReply) -> Option<Vec<u8>> {
        let FollowReply::ChangeSet { header, body } = said else {
            return None;
        };
        let told = match lie {
            Lie::Header | Lie::Forged => {
                FollowReply::ChangeSet { header: self.header(rng, lie, &header)?, body }
            }
            Lie::Body => {
                let change = Change::Delete { key: vec![rng.u64() as u8] };
                FollowReply::ChangeSet { header, body: codec::compress(&encode_changes([&change])) }
            }
            Lie::Fork => FollowReply::Fork { header: self.fork(rng, at, &header)? },
            _ => return None,
        };
        Some(codec::encode(&told))
    }

    fn tree(&self, rng: &mut Rng, lie: Lie, at: &Place, said: TreeReply) -> Option<Altered> {
        let (mut header, mut levels, mut root, mut proof) = match said {
            TreeReply::Head { header, levels, root, proof } => (header, levels, root, proof),
            TreeReply::Part { bytes, more } if lie == Lie::Entries => {
                let told = match rng.chance(90) {
                    true => TreeReply::Part { bytes: entries(rng, &bytes), more },
                    false => TreeReply::Part { bytes, more: !more },
                };
                return Some((codec::encode(&told), None));
            }
            _ => return None,
        };
        let mut giant = None;
        match lie {
            Lie::Header | Lie::Forged => header = self.header(rng, lie, &header)?,
            Lie::Fork => {
                let header = self.fork(rng, at, &header)?;
                let other = match rng.chance(50) {
                    true => SignedHeader::decode(&header).ok()?.hash(),
                    false => hash(rng),
                };
                let proof = if rng.chance(50) { proof } else { Proof::default() };
                return Some((codec::encode(&TreeReply::Fork { header, other, proof }), None));
            }
            Lie::Height => {
                levels = [0, levels + 1, levels.saturating_sub(1), LEVELS_MAX, 255][rng.index(5)];
            }
            Lie::Proof => alter_proof(rng, &mut proof),
            Lie::Number => {
                let mut described = self.own(&header)?;
                described.seq = match rng.chance(50) {
                    true => described.seq + rng.below(4),
                    false => far(rng),
                };
                described.seq = described.seq.max(2);
                let peaks = peaks_of(described.seq - 1).map(|_| hash(rng)).collect();
                let nodes = at.have.and_then(|have| nodes_of(have.seq, described.seq - 1));
                let path = nodes.unwrap_or_default().iter().map(|_| hash(rng)).collect();
                proof = Proof { peaks, path };
                described.previous = hash(rng);
                described.history =
                    Peaks::of(described.seq - 1, proof.peaks.clone()).root(HOSTILE_SUITE);
                header = self.sign(described).encode();
            }
            Lie::Jump => {
                let own = SignedHeader::decode(&header).ok()?;
                let described = self.own(&header)?;
                let (described, shown) = jump(rng, described, own.hash(), &proof, at.have)?;
                (header, proof) = (self.sign(described).encode(), shown);
            }
            Lie::Giant => {
                let made = if rng.chance(50) { Giant::tall() } else { Giant::wide() };
                let (top, height) = made.root();
                let mut described = self.own(&header)?;
                (described.root, described.records) = (top.page.hash, top.page.records);
                levels = height;
                let fits = top.body.len() <= ROOT_BYTES_MAX && rng.chance(50);
                root = if fits { top.body.clone() } else { Vec::new() };
                header = self.sign(described).encode();
                giant = Some(made);
            }
            _ => return None,
        }
        Some((codec::encode(&TreeReply::Head { header, levels, root, proof }), giant))
    }

    /// What a header of an own partition says.
    fn own(&self, header: &[u8]) -> Option<Header> {
        let header = SignedHeader::decode(header).ok()?.header().clone();
        (header.partition.origin == self.cast.nodes[self.node]).then_some(header)
    }

    fn sign(&self, header: Header) -> SignedHeader {
        let key = self.cast.key(self.node);
        SignedHeader::sign(Header { key_id: key.public().id(), ..header }, key)
    }

    /// A header that says something else.
    fn header(&self, rng: &mut Rng, lie: Lie, header: &[u8]) -> Option<Vec<u8>> {
        let mut described = SignedHeader::decode(header).ok()?.header().clone();
        match rng.below(9) {
            0 => described.seq = number(rng).max(1),
            1 => described.root = hash(rng),
            2 => described.records = number(rng),
            3 => described.history = hash(rng),
            4 => described.previous = hash(rng),
            5 => match &mut described.federation_head {
                Some(head) if rng.chance(50) => head.seq = number(rng),
                Some(head) => head.hash = hash(rng),
                None => described.schema_version += 1,
            },
            6 => described.change_count = rng.u32(),
            7 => described.changes_hash = hash(rng),
            // All of it is right, but it is another header.
            _ => described.origin_time_ms += 1,
        }
        let told = match lie {
            Lie::Forged => [&header[..64], &described.encode()[..]].concat(),
            _ => self.sign(described).encode(),
        };
        Some(told)
    }

    /// A header with the number that the replica is at, which is another one; or the
    /// newest, which is no fork.
    fn fork(&self, rng: &mut Rng, at: &Place, header: &[u8]) -> Option<Vec<u8>> {
        let mut described = self.own(header)?;
        if let Some(have) = at.have
            && rng.chance(30)
        {
            described.seq = have.seq;
            described.origin_time_ms += 1;
        }
        Some(self.sign(described).encode())
    }
}

fn hash(rng: &mut Rng) -> Hash {
    let mut bytes = vec![0; HOSTILE_SUITE.hash_bytes()];
    bytes.chunks_exact_mut(8).for_each(|word| word.copy_from_slice(&rng.u64().to_be_bytes()));
    Hash::from_bytes(HOSTILE_SUITE, &bytes).expect("it has the length of a hash")
}

/// A small number, or one at an edge.
fn number(rng: &mut Rng) -> u64 {
    if rng.chance(50) { rng.below(20) } else { far(rng) }
}

fn far(rng: &mut Rng) -> u64 {
    let jump = 1 << 32;
    [jump - 1, jump, jump + 1 + rng.below(40), 1 << 61, SEQ_LIMIT - 1, SEQ_LIMIT][rng.index(6)]
}

fn ack(rng: &mut Rng, lie: Lie, said: FollowRequest) -> Option<Vec<u8>> {
    let FollowRequest::Ack { mut position, mut root } = said;
    match rng.below(3) {
        _ if lie != Lie::Ack => return None,
        0 => position.seq = number(rng),
        1 => position.hash = hash(rng),
        _ => root = hash(rng),
    }
    Some(codec::encode(&FollowRequest::Ack { position, root }))
}

fn request(rng: &mut Rng, lie: Lie, said: TreeRequest) -> Option<Vec<u8>> {
    if lie != Lie::Page {
        return None;
    }
    let wrong_level = rng.below(256) as u8;
    let told = match said {
        TreeRequest::Pages { level, keys } if rng.chance(50) => {
            let keys = keys.into_iter().map(|key| [&key[..], &[7]].concat()).collect();
            TreeRequest::Pages { level, keys }
        }
        TreeRequest::Pages { keys, .. } => TreeRequest::Pages { level: wrong_level, keys },
        TreeRequest::Differences { salt, mut pages, level } => {
            let level = if rng.chance(50) { level } else { wrong_level };
            pages.iter_mut().for_each(|page| page.first_key.push(7));
            TreeRequest::Differences { level, salt, pages }
        }
    };
    Some(codec::encode(&told))
}

fn alter_proof(rng: &mut Rng, proof: &mut Proof) {
    let list =
        if rng.chance(50) && !proof.path.is_empty() { &mut proof.path } else { &mut proof.peaks };
    match rng.below(3) {
        0 if !list.is_empty() => drop(list.pop()),
        1 => list.push(hash(rng)),
        _ => match list.first_mut() {
            Some(first) => *first = hash(rng),
            None => list.push(hash(rng)),
        },
    }
}

/// A header some numbers later, those between made up, and the proof that it
/// continues what the replica has.
fn jump(
    rng: &mut Rng,
    header: Header,
    own: Hash,
    proof: &Proof,
    have: Option<Position>,
) -> Option<(Header, Proof)> {
    let count = header.seq - 1;
    let mut peaks = Peaks::of(count, proof.peaks.clone());
    let mut nodes: BTreeMap<Node, Hash> = peaks_of(count).zip(proof.peaks.clone()).collect();
    if let Some(beside) = have.and_then(|have| nodes_of(have.seq, count)) {
        nodes.extend(beside.into_iter().zip(proof.path.clone()));
    }
    let mut previous = own;
    for number in 0..1 + rng.below(20) {
        previous = if number == 0 { own } else { hash(rng) };
        nodes.insert(Node { height: 0, index: peaks.count() }, previous);
        peaks.push_noting(previous, |node, hash| {
            nodes.insert(node, hash);
        });
    }
    let beside = match have {
        Some(have) => nodes_of(have.seq, peaks.count())?,
        None => Vec::new(),
    };
    let path: Option<Vec<Hash>> = beside.iter().map(|node| nodes.get(node).copied()).collect();
    let shown = Proof { peaks: peaks.hashes().to_vec(), path: path? };
    Some((
        Header { seq: peaks.count() + 1, previous, history: peaks.root(HOSTILE_SUITE), ..header },
        shown,
    ))
}

/// A page with another entry; of what is no page, other bytes.
fn entries(rng: &mut Rng, bytes: &[u8]) -> Vec<u8> {
    if let Ok(leaf) = Leaf::decode(bytes) {
        let place = rng.index(leaf.len());
        let other = |(index, (key, value)): (usize, (_, _))| match index == place {
            true => (key, &b"another"[..]),
            false => (key, value),
        };
        return RawLeaf::of(leaf.entries().enumerate().map(other)).make(HOSTILE_SUITE).body;
    }
    if let Ok(mut children) = decode_inner(HOSTILE_SUITE, bytes) {
        let place = rng.index(children.len());
        match rng.below(3) {
            0 => children[place].hash = hash(rng),
            1 => children[place].records += 1 << 40,
            _ => drop(children.split_off(place.max(1))),
        }
        return make_inner(HOSTILE_SUITE, 1, &children).body;
    }
    let mut raw = codec::decompress(bytes, 1 << 20).unwrap_or_else(|_| bytes.to_vec());
    if raw.is_empty() {
        return vec![7];
    }
    let place = rng.index(raw.len());
    raw[place] ^= 1 << rng.below(8);
    codec::compress(&raw)
}
