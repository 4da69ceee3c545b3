//! A hostile node: an honest one whose messages are altered on their way out.
//!
//! [`super::net`] passes every message that the node sends through [`Hostile::pass`],
//! which lets it go, holds it back, repeats it, or puts a lie in its place; what a
//! lie says is in [`super::lies`]. A run draws few kinds of lies and how often they
//! are told, or the first refusal would be the only one. The network says when a lie
//! has arrived, the honest nodes say what they refuse: so it is known of each kind
//! whether it was met.

use std::{collections::BTreeMap, rc::Rc, time::Duration};

use protocol::{
    change::Position,
    codec,
    message::{CloseCode, FollowReply, Open, TreeReply},
};

use super::{
    cast::Cast,
    giant::Giant,
    lies::{Liar, Place},
    net::{ConnId, StreamId, Wire},
    rng::Rng,
};

/// Kinds of lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lie {
    /// A byte is another one.
    Byte,
    /// The end of a message is missing.
    Cut,
    /// A message comes twice.
    Repeated,
    /// In place of a message comes an earlier one, of this or another stream.
    Replayed,
    /// A message comes behind the next one.
    Swapped,
    /// A message comes late.
    Late,
    /// A message never comes.
    Never,
    /// A message that has no place there.
    WrongKind,
    /// The stream is given up.
    Reset,
    /// A head of an own partition with another number, hash, root or size, also of a
    /// dataset that nobody has published.
    Head,
    /// More of the peer's own partition than the peer has, or something else.
    Claim,
    /// A head that is not the node's to speak of.
    Stranger,
    /// A header with other numbers and hashes, signed with the own key.
    Header,
    /// The same without the signature that it would need.
    Forged,
    /// Other changes than the signed ones.
    Body,
    /// A second history, shown where the first one is known; or none.
    Fork,
    /// A head with a past that is made up, up to the last number that there is.
    Number,
    /// A head that was shown before.
    Older,
    /// A head ahead, with a true proof: all of it is made up, and allowed.
    Jump,
    /// A tree of another height.
    Height,
    /// A tree of all levels and very many records, of which little can be shown.
    Giant,
    /// Other hashes in a proof.
    Proof,
    /// Other entries in a page, or in a difference.
    Entries,
    /// An acknowledgement of what was not sent.
    Ack,
    /// Nothing is acknowledged.
    Unacked,
    /// A page that is not in the tree is asked for.
    Page,
    /// A partition that is not the node's to have is asked for.
    Partition,
    /// A follower says that it is elsewhere.
    Have,
}

const KINDS: [Lie; 28] = [
    Lie::Byte,
    Lie::Cut,
    Lie::Repeated,
    Lie::Replayed,
    Lie::Swapped,
    Lie::Late,
    Lie::Never,
    Lie::WrongKind,
    Lie::Reset,
    Lie::Head,
    Lie::Claim,
    Lie::Stranger,
    Lie::Header,
    Lie::Forged,
    Lie::Body,
    Lie::Fork,
    Lie::Number,
    Lie::Older,
    Lie::Jump,
    Lie::Height,
    Lie::Giant,
    Lie::Proof,
    Lie::Entries,
    Lie::Ack,
    Lie::Unacked,
    Lie::Page,
    Lie::Partition,
    Lie::Have,
];

impl Lie {
    /// Whether an honest node has something to refuse: not where a network may do the
    /// same, or the origin itself may.
    fn is_to_be_refused(self) -> bool {
        !matches!(self, Lie::Late | Lie::Reset | Lie::Jump | Lie::Have)
    }

    /// Whether it is told where pages are taken.
    fn is_of_trees(self) -> bool {
        use Lie::{Entries, Giant, Height, Jump, Number, Older, Proof};
        matches!(self, Number | Older | Jump | Height | Giant | Proof | Entries)
    }
}

/// How often each kind of lie was told, and how often refused.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Met(BTreeMap<Lie, (u64, u64)>);

impl Met {
    /// Kinds that were never told, or never refused though they have to be.
    pub fn lacking(&self) -> Vec<Lie> {
        let met = |lie: &Lie| self.0.get(lie).copied().unwrap_or_default();
        let lacks = |lie: &Lie| met(lie).0 == 0 || (lie.is_to_be_refused() && met(lie).1 == 0);
        KINDS.into_iter().filter(lacks).collect()
    }
}

impl std::ops::AddAssign for Met {
    fn add_assign(&mut self, other: Self) {
        for (lie, (told, refused)) in other.0 {
            let sum = self.0.entry(lie).or_default();
            sum.0 += told;
            sum.1 += refused;
        }
    }
}

/// What goes out in place of a message.
#[derive(Debug)]
pub struct Sent {
    /// Where.
    pub stream: StreamId,
    /// What.
    pub wire: Wire,
    /// How much later than it would.
    pub delay: Duration,
    /// If it is a lie.
    pub lie: Option<Lie>,
}

impl Sent {
    /// A message as it is.
    pub fn honest(stream: StreamId, wire: Wire) -> Self {
        Self { stream, wire, delay: Duration::ZERO, lie: None }
    }

    fn lie(stream: StreamId, wire: Wire, lie: Lie) -> Self {
        Self { lie: Some(lie), ..Self::honest(stream, wire) }
    }
}

/// What a stream is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// Nothing that decodes was sent on it.
    Unknown,
    /// The control stream.
    Control,
    /// A followed partition.
    Follow,
    /// A tree.
    Tree,
}

#[derive(Debug)]
struct Stream {
    usage: Usage,
    /// Where the side that opened it said that it is.
    have: Option<Position>,
    /// Comes behind the next message.
    held: Option<Wire>,
    /// The last lie on it.
    last: Option<Lie>,
    giant: Option<Giant>,
}

/// Earlier messages that may be replayed.
const REMEMBERED_MAX: usize = 40;
/// Most kinds of lies in a run.
const KINDS_MAX: usize = 5;

/// The hostile node's mouth.
#[derive(Debug)]
pub struct Hostile {
    /// Who it is.
    pub node: usize,
    /// What was met of it.
    pub met: Met,
    rng: Rng,
    liar: Liar,
    kinds: Vec<Lie>,
    percent: u64,
    streams: BTreeMap<(ConnId, StreamId), Stream>,
    remembered: Vec<Vec<u8>>,
    /// Heads of trees that were shown.
    shown: Vec<Vec<u8>>,
}

impl Hostile {
    /// Draws what kind of a liar `node` is.
    pub fn draw(rng: &mut Rng, cast: &Rc<Cast>, node: usize) -> Self {
        let mut rng = Rng::new(rng.u64());
        let kinds = (0..1 + rng.index(KINDS_MAX)).map(|_| KINDS[rng.index(KINDS.len())]).collect();
        Self {
            node,
            met: Met::default(),
            liar: Liar::new(cast, node),
            kinds,
            percent: 3 + rng.below(40),
            streams: BTreeMap::new(),
            remembered: Vec::new(),
            shown: Vec::new(),
            rng,
        }
    }

    fn stream(&mut self, conn: ConnId, stream: StreamId) -> &mut Stream {
        self.streams.entry((conn, stream)).or_insert(Stream {
            usage: Usage::Unknown,
            have: None,
            held: None,
            last: None,
            giant: None,
        })
    }

    /// A stream's first message says what it is for. Answers whether this is one.
    fn note_opening(&mut self, conn: ConnId, stream: StreamId, bytes: &[u8]) -> bool {
        let known = self.stream(conn, stream);
        let opened = if known.usage == Usage::Unknown { Open::decode(bytes).ok() } else { None };
        let Some(opened) = opened else {
            return false;
        };
        (known.usage, known.have) = match opened {
            Open::Follow { have, .. } => (Usage::Follow, have),
            Open::Tree { have, .. } => (Usage::Tree, have),
            _ => (Usage::Control, None),
        };
        true
    }

    /// Something is sent to the hostile node.
    pub fn overhear(&mut self, conn: ConnId, stream: StreamId, wire: &Wire) {
        if let Wire::Bytes(bytes) = wire
            && stream.opener != self.node
        {
            self.note_opening(conn, stream, bytes);
        }
    }

    /// What goes out in place of `wire`.
    pub fn pass(&mut self, conn: ConnId, peer: usize, stream: StreamId, wire: Wire) -> Vec<Sent> {
        let Wire::Bytes(bytes) = &wire else {
            return vec![Sent::honest(stream, wire)];
        };
        let opening = stream.opener == self.node && self.note_opening(conn, stream, bytes);
        let held = self.stream(conn, stream).held.take();
        let mut sent = match self.rng.chance(self.percent) {
            true => self.lie(conn, peer, stream, bytes, opening),
            false => None,
        };
        if self.remembered.len() < REMEMBERED_MAX {
            self.remembered.push(bytes.clone());
        } else {
            let place = self.rng.index(REMEMBERED_MAX);
            self.remembered[place] = bytes.clone();
        }
        let is_shown =
            self.stream(conn, stream).usage == Usage::Tree && self.shown.len() < REMEMBERED_MAX;
        if is_shown && matches!(TreeReply::decode(bytes), Ok(TreeReply::Head { .. })) {
            self.shown.push(bytes.clone());
        }
        let sent = sent.get_or_insert_with(|| vec![Sent::honest(stream, wire)]);
        sent.extend(held.map(|held| Sent::lie(stream, held, Lie::Swapped)));
        std::mem::take(sent)
    }

    /// Puts a lie in place of a message, if one of this run's kinds fits.
    fn lie(
        &mut self,
        conn: ConnId,
        peer: usize,
        stream: StreamId,
        bytes: &[u8],
        opening: bool,
    ) -> Option<Vec<Sent>> {
        let lie = self.kinds[self.rng.index(self.kinds.len())];
        let known = self.stream(conn, stream);
        let (usage, have) = (known.usage, known.have);
        let asks = stream.opener == self.node;
        let wire = |bytes: Vec<u8>| Wire::Bytes(bytes);
        let told = match lie {
            // Which is no lie, but brings the follower where it can be told one.
            lie if lie.is_of_trees() && usage == Usage::Follow && !asks => {
                let pages = Wire::Bytes(codec::encode(&FollowReply::TakePages));
                return Some(vec![Sent::honest(stream, pages)]);
            }
            Lie::Byte => {
                let mut altered = bytes.to_vec();
                let place = self.rng.index(altered.len());
                altered[place] ^= 1 << self.rng.below(8);
                vec![wire(altered)]
            }
            Lie::Cut => vec![wire(bytes[..self.rng.index(bytes.len())].to_vec())],
            Lie::Repeated => vec![wire(bytes.to_vec()), wire(bytes.to_vec())],
            Lie::Replayed if self.remembered.is_empty() => return None,
            Lie::Replayed => {
                vec![wire(self.remembered[self.rng.index(self.remembered.len())].clone())]
            }
            Lie::Swapped => {
                self.stream(conn, stream).held = Some(wire(bytes.to_vec()));
                vec![]
            }
            Lie::Late => {
                let delay = self.rng.millis(1_000, 45_000);
                let late = Sent::lie(stream, wire(bytes.to_vec()), lie);
                return Some(vec![Sent { delay, ..late }]);
            }
            Lie::Never => vec![],
            Lie::Older if self.shown.is_empty() || usage != Usage::Tree || asks => return None,
            Lie::Older => vec![wire(self.shown[self.rng.index(self.shown.len())].clone())],
            Lie::Unacked if usage == Usage::Follow && asks && !opening => vec![],
            Lie::Unacked => return None,
            Lie::Reset => vec![Wire::Reset(CloseCode::Unavailable)],
            Lie::WrongKind => vec![wire(self.liar.wrong_kind(&mut self.rng))],
            lie => {
                let place = Place { peer, usage, opening, asks, have };
                let (altered, giant) = self.liar.alter(&mut self.rng, lie, &place, bytes)?;
                self.stream(conn, stream).giant = giant;
                vec![wire(altered)]
            }
        };
        if told.is_empty() {
            self.arrived(conn, stream, lie);
        }
        Some(told.into_iter().map(|wire| Sent::lie(stream, wire, lie)).collect())
    }

    /// What the node answers where it has shown a tree that it does not have.
    pub fn answer(&mut self, conn: ConnId, stream: StreamId, wire: &Wire) -> Option<Vec<Sent>> {
        let giant = self.streams.get_mut(&(conn, stream))?.giant.as_mut()?;
        let Wire::Bytes(bytes) = wire else {
            return None;
        };
        let pages = giant.answer(bytes).into_iter();
        Some(pages.map(|page| Sent::lie(stream, Wire::Bytes(page), Lie::Giant)).collect())
    }

    /// A lie has arrived at an honest node, or was told by silence.
    pub fn arrived(&mut self, conn: ConnId, stream: StreamId, lie: Lie) {
        self.stream(conn, stream).last = Some(lie);
        self.met.0.entry(lie).or_default().0 += 1;
    }

    /// An honest node refuses what came on a stream.
    pub fn refused(&mut self, conn: ConnId, stream: StreamId) {
        if let Some(lie) = self.streams.get(&(conn, stream)).and_then(|stream| stream.last) {
            self.met.0.entry(lie).or_default().1 += 1;
        }
    }

    /// A connection is over at both ends.
    pub fn forget(&mut self, conn: ConnId) {
        self.streams.retain(|(of, _), _| *of != conn);
    }
}
