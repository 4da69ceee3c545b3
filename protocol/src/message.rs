//! What nodes say to each other. `SPEC.md`, section "Messages".
//!
//! These are the shapes on the wire, encoded by [`crate::codec`] into frames.
//! Each stream begins with [`Open`], which says what it is for. Only codes cross
//! the wire when something is wrong, never a text that somebody might log.

use serde::{Deserialize, Serialize};

use crate::{
    change::{ChangeSet, Position, SignedHeader},
    difference::{KNOWN_BYTES_MAX, SHORT_BYTES, Salt},
    encoding::DecodeError,
    freshness::STATEMENT_BYTES_MAX,
    hash::Hash,
    history::{HEIGHT_MAX, Proof},
    id::{NodeId, PartitionId},
    record::KEY_BYTES_MAX,
    suite::{PUBLIC_KEY_BYTES_MAX, SIGNATURE_BYTES_MAX, Suite, checksum::Checksum},
};

/// The version of this protocol; also in the ALPN name.
pub const PROTOCOL_VERSION: u16 = 1;
/// Most versions of the protocol in one hello: a build speaks the newest ones.
const VERSIONS_MAX: usize = 16;
/// Most heads in one hello or announcement.
pub const HEADS_MAX: usize = 10_000;
/// Most pages in one request.
pub const PAGES_MAX: usize = 256;
/// Most pages in one request for differences: with all entries named, they fill
/// half of a frame.
pub const DIFFERENCES_MAX: usize = 64;
/// Largest root page that travels with a head: 160 children with keys of 50
/// bytes.
pub const ROOT_BYTES_MAX: usize = 16 * 1024;
/// Bytes of a page in one part: a page may be larger than a frame.
pub const PAGE_PART_BYTES_MAX: usize = 1024 * 1024;
/// Largest frame of the side that asks on a follow or tree stream: so many keys
/// of the largest kind, and what lies around them.
pub const ASKING_FRAME_BYTES_MAX: usize = PAGES_MAX * (KEY_BYTES_MAX + 3) + 1024;
/// Largest frame of a [`JoinRequest`], which comes from somebody unknown: a
/// certificate request has about 400 bytes.
pub const JOIN_REQUEST_BYTES_MAX: usize = 16 * 1024;
/// Longest certificate request in a [`RenewRequest`].
pub const CSR_BYTES_MAX: usize = 4 * 1024;
/// Longest anchor in a message: two names, a position, a signature, its key and
/// those of 64 anchors before it, of any suite.
pub const ANCHOR_BYTES_MAX: usize = 5 * 1024;
/// Most roots in a report: an overlap has two, and a node trusts at most eight.
pub const ROOTS_MAX: usize = 16;
/// Longest build text in a hello.
pub const BUILD_BYTES_MAX: usize = 64;

/// The first frame of every stream, from the side that opened it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Open {
    /// The one control stream, opened by the member.
    Control(Hello),
    /// The opener follows a partition, from behind what it has.
    Follow {
        /// The partition.
        partition: PartitionId,
        /// The opener's head.
        have: Option<Position>,
    },
    /// The opener asks for pages of a partition's state tree.
    Tree {
        /// The partition.
        partition: PartitionId,
        /// The opener's head, which has to be in the history of the one that is
        /// shown.
        have: Option<Position>,
    },
    /// A member asks for a new certificate, answered with one [`RenewReply`].
    Renew(RenewRequest),
    /// A member has a new signing key, answered with one [`NewKeyReply`].
    NewKey(NewKeyRequest),
}

/// Who speaks, and what they hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The number of the speaker's suite. The first field, so that it can be read
    /// of a hello whose hashes nobody here can read.
    pub suite: u8,
    /// Protocol versions that the speaker knows, best first.
    pub versions: Vec<u16>,
    /// The program's version, for people.
    pub build: String,
    /// The speaker's clock in milliseconds since 1970, for people.
    pub now_ms: i64,
    /// Heads of the partitions that concern the listener.
    pub heads: Vec<Announced>,
}

/// A partition's head as a peer claims it. Nothing is believed of it before a
/// signed header arrives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announced {
    /// The partition.
    pub partition: PartitionId,
    /// Its newest change set.
    pub position: Position,
    /// The state root there.
    pub root: Hash,
    /// The records there.
    pub records: u64,
}

/// Later frames of the control stream, both ways.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Control {
    /// The hub's answer to the member's hello.
    Hello(Hello),
    /// Heads that moved.
    Announce(Vec<Announced>),
    /// Nothing happened, and the speaker is alive.
    Heartbeat {
        /// The speaker's clock in milliseconds since 1970.
        now_ms: i64,
    },
    /// From a member: what it trusts and which daemon it is.
    Report(Report),
    /// From the hub: [`crate::freshness::Statement::encode`].
    Freshness(Vec<u8>),
    /// From the hub, if its anchor's epoch is above 1: the canonical bytes of
    /// the anchor.
    Anchor(Vec<u8>),
}

/// What a member tells its hub about itself, behind its hello and whenever it
/// changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Drawn when the daemon started. Two that take turns mean that two daemons
    /// use one certificate.
    pub instance: [u8; 8],
    /// The ids of the root certificates that the member trusts.
    pub roots: Vec<Checksum>,
    /// The id of the key that signs its change sets.
    pub signing_key: Hash,
}

/// A request for a new certificate, on a connection that the old one opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewRequest {
    /// A PKCS#10 request for the connection's own node, DER.
    pub csr: Vec<u8>,
}

/// The hub's answer to a [`RenewRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RenewReply {
    /// Leaf and issuing certificates, DER.
    Issued {
        /// The leaf first.
        chain: Vec<Vec<u8>>,
    },
    /// Nothing was issued.
    Refused(RequestRefused),
}

/// A member registers the signing key that follows its present one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewKeyRequest {
    /// The bytes of the new public key.
    pub signing_key: Vec<u8>,
    /// The new key's signature over [`crate::federation::succession_bytes`].
    pub possession: Vec<u8>,
    /// The present key's signature over the same bytes.
    pub countersignature: Vec<u8>,
}

/// The hub's answer to a [`NewKeyRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum NewKeyReply {
    /// It stands in `_federation` at this number.
    Registered {
        /// The number.
        federation_seq: u64,
    },
    /// Nothing was changed.
    Refused(RequestRefused),
}

/// Why a hub refuses a request of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum RequestRefused {
    /// The request does not fit the member.
    #[error("the request does not fit this node")]
    Mismatch,
    /// Too many requests in a short time.
    #[error("too many requests in a short time")]
    TooOften,
    /// The hub cannot do it now.
    #[error("the hub could not do it; its log says why / 市级中心未能完成加入，原因见其日志")]
    Failed,
}

impl Open {
    /// Decodes and checks the limits that the shape does not express.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let open = decode_with_hello(bytes)?;
        match &open {
            Open::Control(hello) => hello.check()?,
            Open::Renew(request) => check_bytes(&request.csr, "a request", CSR_BYTES_MAX)?,
            Open::NewKey(request) => {
                check_bytes(&request.signing_key, "a signing key", PUBLIC_KEY_BYTES_MAX)?;
                check_bytes(&request.possession, "a signature", SIGNATURE_BYTES_MAX)?;
                check_bytes(&request.countersignature, "a signature", SIGNATURE_BYTES_MAX)?;
            }
            Open::Follow { .. } | Open::Tree { .. } => {}
        }
        Ok(open)
    }
}

impl Control {
    /// Decodes and checks the limits that the shape does not express.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let control = decode_with_hello(bytes)?;
        match &control {
            Control::Hello(hello) => hello.check()?,
            Control::Announce(heads) => check_heads(heads)?,
            Control::Heartbeat { .. } => {}
            Control::Report(report) if report.roots.len() > ROOTS_MAX => {
                return Err(DecodeError::TooLong { what: "a list of roots", limit: ROOTS_MAX });
            }
            Control::Report(_) => {}
            Control::Freshness(bytes) => check_bytes(bytes, "a statement", STATEMENT_BYTES_MAX)?,
            Control::Anchor(bytes) => check_bytes(bytes, "an anchor", ANCHOR_BYTES_MAX)?,
        }
        Ok(control)
    }
}

/// Decodes a message whose first kind is a hello: of a suite that this program
/// does not know no hash can be read, and that is what is wrong then.
fn decode_with_hello<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    if let [0, suite, ..] = bytes {
        Suite::from_number(*suite)?;
    }
    crate::codec::decode(bytes)
}

impl Hello {
    fn check(&self) -> Result<(), DecodeError> {
        check_bytes(self.build.as_bytes(), "a hello's build", BUILD_BYTES_MAX)?;
        if self.versions.len() > VERSIONS_MAX {
            return Err(DecodeError::TooLong { what: "a hello's versions", limit: VERSIONS_MAX });
        }
        check_heads(&self.heads)
    }
}

fn check_bytes(bytes: &[u8], what: &'static str, limit: usize) -> Result<(), DecodeError> {
    if bytes.len() > limit {
        return Err(DecodeError::TooLong { what, limit });
    }
    Ok(())
}

fn check_heads(heads: &[Announced]) -> Result<(), DecodeError> {
    if heads.len() > HEADS_MAX {
        return Err(DecodeError::TooLong { what: "a list of heads", limit: HEADS_MAX });
    }
    Ok(())
}

/// Frames of a follow stream from the follower, behind [`Open::Follow`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FollowRequest {
    /// Everything up to here is durable at the follower.
    Ack {
        /// The newest durable change set.
        position: Position,
        /// The root that the follower computed itself.
        root: Hash,
    },
}

/// Frames of a follow stream from the provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FollowReply {
    /// The next change set.
    ChangeSet {
        /// [`SignedHeader::encode`].
        #[serde(with = "serde_bytes")]
        header: Vec<u8>,
        /// The compressed body.
        #[serde(with = "serde_bytes")]
        body: Vec<u8>,
    },
    /// The change sets behind the follower's head are not kept: take pages.
    TakePages,
    /// The provider's signed header at the follower's sequence number, whose
    /// hash is another one.
    Fork {
        /// [`SignedHeader::encode`].
        #[serde(with = "serde_bytes")]
        header: Vec<u8>,
    },
}

impl FollowReply {
    /// The frame that carries `set`.
    pub fn change_set(set: ChangeSet) -> Self {
        FollowReply::ChangeSet { header: set.header.encode(), body: set.body }
    }
}

/// Frames of a tree stream from the follower, behind [`Open::Tree`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TreeRequest {
    /// The pages of `level` that hold `keys`, in this order.
    Pages {
        /// 0 for leaves.
        level: u8,
        /// At most [`PAGES_MAX`]; an empty key means the first page.
        keys: Vec<Vec<u8>>,
    },
    /// The same pages, each told by what the follower's page lacks
    /// ([`crate::difference`]).
    Differences {
        /// 0 for leaves.
        level: u8,
        /// With which entries are named.
        salt: Salt,
        /// At most [`DIFFERENCES_MAX`].
        pages: Vec<KnownPage>,
    },
}

/// A page that is asked for, and what the follower has in its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownPage {
    /// The page's first key; empty means the first page.
    pub first_key: Vec<u8>,
    /// [`crate::difference::Own::known`].
    pub known: Vec<u8>,
}

impl TreeRequest {
    /// The level of what is asked for; the provider's tree may not be that high.
    pub fn level(&self) -> u8 {
        match self {
            Self::Pages { level, .. } | Self::Differences { level, .. } => *level,
        }
    }

    /// Decodes and checks the limits that the shape does not express.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let request = crate::codec::decode(bytes)?;
        let keys: Vec<&Vec<u8>> = match &request {
            TreeRequest::Pages { keys, .. } => keys.iter().collect(),
            TreeRequest::Differences { pages, .. } if pages.len() > DIFFERENCES_MAX => {
                let (what, limit) = ("a request for differences", DIFFERENCES_MAX);
                return Err(DecodeError::TooLong { what, limit });
            }
            TreeRequest::Differences { pages, .. } => {
                for page in pages {
                    check_bytes(&page.known, "the names of a page's entries", KNOWN_BYTES_MAX)?;
                    if page.known.len() % SHORT_BYTES != 0 {
                        return Err(DecodeError::Invalid("a name of an entry is cut"));
                    }
                }
                pages.iter().map(|page| &page.first_key).collect()
            }
        };
        if keys.len() > PAGES_MAX {
            return Err(DecodeError::TooLong { what: "a page request", limit: PAGES_MAX });
        }
        keys.into_iter().try_for_each(|key| check_bytes(key, "a key", KEY_BYTES_MAX))?;
        Ok(request)
    }
}

/// Frames of a tree stream from the provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TreeReply {
    /// The head whose tree this stream shows, for as long as it lasts.
    Head {
        /// [`SignedHeader::encode`].
        #[serde(with = "serde_bytes")]
        header: Vec<u8>,
        /// Levels of the tree; none if it is empty.
        levels: u8,
        /// The root page, if it is an inner page of at most
        /// [`ROOT_BYTES_MAX`]; else empty. Saves a round trip.
        root: Vec<u8>,
        /// The head's history, and that the follower's position is in it.
        proof: Proof,
    },
    /// A part of the next requested page.
    Part {
        /// At most [`PAGE_PART_BYTES_MAX`].
        #[serde(with = "serde_bytes")]
        bytes: Vec<u8>,
        /// Another part of the same page follows.
        more: bool,
    },
    /// The follower's position is not in the provider's history, in place of the
    /// head: it can be checked, so that nobody is told of a fork that is none.
    Fork {
        /// [`SignedHeader::encode`]: the provider's header of the follower's number
        /// or, if only its hash is kept, a later one.
        #[serde(with = "serde_bytes")]
        header: Vec<u8>,
        /// The hash of the provider's header of the follower's number.
        other: Hash,
        /// The later header's history, and that `other` is in it; else empty.
        proof: Proof,
    },
}

impl TreeReply {
    /// Decodes and checks the limits that the shape does not express. A part
    /// without bytes is refused, or a page could go on forever.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let reply = crate::codec::decode(bytes)?;
        match &reply {
            TreeReply::Head { root, proof, .. } => {
                check_bytes(root, "a root page", ROOT_BYTES_MAX)?;
                check_proof(proof)?;
                Ok(reply)
            }
            TreeReply::Fork { proof, .. } => {
                check_proof(proof)?;
                Ok(reply)
            }
            TreeReply::Part { bytes, .. } if bytes.is_empty() => {
                Err(DecodeError::Invalid("a part of a page is empty"))
            }
            TreeReply::Part { bytes, .. } if bytes.len() > PAGE_PART_BYTES_MAX => {
                Err(DecodeError::TooLong { what: "a part of a page", limit: PAGE_PART_BYTES_MAX })
            }
            _ => Ok(reply),
        }
    }
}

fn check_proof(proof: &Proof) -> Result<(), DecodeError> {
    match proof.peaks.len() > HEIGHT_MAX || proof.path.len() > HEIGHT_MAX {
        true => Err(DecodeError::TooLong { what: "a proof", limit: HEIGHT_MAX }),
        false => Ok(()),
    }
}

/// Reads a header that travels inside a message.
pub fn decode_header(bytes: &[u8]) -> Result<SignedHeader, DecodeError> {
    SignedHeader::decode(bytes)
}

/// A member's request to join, the only frame of an enrolment stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequest {
    /// The token's public id.
    pub token_id: [u8; 8],
    /// The token's secret.
    pub secret: [u8; 32],
    /// Who joins; the token says the same.
    pub node: NodeId,
    /// A PKCS#10 request for the node's certificate, DER.
    pub csr: Vec<u8>,
    /// The bytes of the public signing key.
    pub signing_key: Vec<u8>,
    /// Its signature over [`possession_bytes`].
    pub possession: Vec<u8>,
}

/// What a joining node signs to show that it has the private key.
pub fn possession_bytes(token_id: &[u8; 8], node: &NodeId) -> Vec<u8> {
    [&token_id[..], node.as_str().as_bytes()].concat()
}

/// The hub's answers to a [`JoinRequest`], in this order: one `Accepted`, the
/// change sets of `_federation`, one `Done`. Or one `Refused`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum JoinReply {
    /// The certificate and its chain.
    Accepted {
        /// Leaf and issuing certificates, DER.
        chain: Vec<Vec<u8>>,
        /// The root certificate, DER; the token says which it must be.
        root: Vec<u8>,
    },
    /// The next change set of `_federation`.
    ChangeSet {
        /// [`SignedHeader::encode`].
        #[serde(with = "serde_bytes")]
        header: Vec<u8>,
        /// The compressed body.
        #[serde(with = "serde_bytes")]
        body: Vec<u8>,
    },
    /// That was all.
    Done,
    /// Nothing was changed.
    Refused(JoinRefused),
}

/// Why a hub refuses a join.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum JoinRefused {
    /// No such token, or a wrong secret.
    #[error(
        "the hub does not know this token, or it was altered / 市级中心不认识此令牌，或令牌被改动；每个节点只有最新的令牌有效"
    )]
    UnknownToken,
    /// The token was used.
    #[error("this token was used already; a token works once / 此令牌已被使用，每个令牌只能用一次")]
    Used,
    /// The token's time is over.
    #[error("this token has expired / 此令牌已过期")]
    Expired,
    /// The request is not what the token was made for.
    #[error("the request does not fit the token / 请求与令牌不符")]
    Mismatch,
    /// The hub cannot do it now.
    #[error(
        "the hub could not complete the join; its log says why / 市级中心未能完成加入，原因见其日志"
    )]
    Failed,
    /// Too many tokens from there, or in all, did not fit.
    #[error(
        "too many wrong tokens came in; wait a minute and try again / 错误的令牌过多，请一分钟后重试"
    )]
    TooMany,
    /// The signing key was retired: the node needs a new one. The token was not
    /// used up.
    #[error("the hub has retired this node's signing key / 市级中心已停用本节点的签名密钥")]
    KeyRetired,
}

/// Why a stream or a connection was closed; the QUIC error code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[repr(u32)]
pub enum CloseCode {
    /// Nothing is wrong.
    #[error("closed")]
    Normal = 0,
    /// The peer goes down; it will be back.
    #[error("the peer is shutting down")]
    Shutdown = 1,
    /// A frame or message that the protocol does not allow.
    #[error("a malformed message")]
    Malformed = 2,
    /// A message that does not belong here.
    #[error("an unexpected message")]
    Unexpected = 3,
    /// The peer may not have, or may not write, this partition.
    #[error("not entitled")]
    NotEntitled = 4,
    /// No such partition.
    #[error("unknown partition")]
    UnknownPartition = 5,
    /// A signature or a hash is wrong.
    #[error("a signature or a hash does not verify")]
    Forged = 6,
    /// A state root is wrong.
    #[error("a state root does not match")]
    RootMismatch = 7,
    /// Two signed histories.
    #[error("the partition has two histories")]
    Fork = 8,
    /// The partition is not served now; ask again later.
    #[error("not available now")]
    Unavailable = 9,
    /// A newer connection of the same node took over.
    #[error("replaced by a newer connection of the same node")]
    Replaced = 10,
    /// The node is not a member, or no longer.
    #[error("not a member of this federation / 不是本联盟的成员，或已被移除，请联系市级中心")]
    NotAMember = 11,
    /// No common protocol version, or another suite.
    #[error("no common protocol version, or a federation of another suite")]
    Version = 12,
    /// Nothing was heard for too long.
    #[error("nothing was heard for too long")]
    Silent = 13,
    /// The node or its certificate was revoked.
    #[error(
        "revoked: this node or its certificate counts no more. Ask the municipal centre why; a new \
         token lets it in again (creditsync join) / 本节点或其证书已被吊销，请联系市级中心；\
         取得新令牌后执行 creditsync join"
    )]
    Revoked = 14,
    /// The certificate has ended, or its CA was retired.
    #[error(
        "the certificate has ended, or the authority that issued it was retired; a node that missed \
         that needs a new token (creditsync join) / 证书已过期，或其签发机构已停用；取得新令牌后执行 creditsync join"
    )]
    CertificateEnded = 15,
    /// The certificate is from before the node joined again.
    #[error(
        "superseded: this node has joined again since this certificate was issued. If that was in \
         another directory or on another machine, this one is the old one: switch it off. If nobody \
         did that, call the municipal centre / 本节点已重新加入，此目录是旧的，请停用；若非本单位所为，请立即联系市级中心"
    )]
    Superseded = 16,
    /// The other side has no room for the partition.
    #[error(
        "the peer has no room for it: this node's quota there is used up, or its disk is full. Nothing is \
         lost; it is taken once there is room. Ask the peer's administrator, whose status says more / \
         对方节点没有空间存放：本节点在对方的配额已用完或对方磁盘已满。数据不会丢失，有空间后自动继续；请联系对方管理员"
    )]
    NoRoom = 17,
    /// The provider cannot prove that its history has what the follower holds.
    #[error("the peer cannot prove that its history has what is here")]
    Unproved = 18,
}

impl CloseCode {
    /// The number on the wire.
    pub fn as_u32(self) -> u32 {
        self as u32
    }

    /// Reads a number; unknown ones are `None`.
    pub fn from_u64(code: u64) -> Option<Self> {
        use CloseCode::*;
        [
            Normal,
            Shutdown,
            Malformed,
            Unexpected,
            NotEntitled,
            UnknownPartition,
            Forged,
            RootMismatch,
            Fork,
            Unavailable,
            Replaced,
            NotAMember,
            Version,
            Silent,
            Revoked,
            CertificateEnded,
            Superseded,
            NoRoom,
            Unproved,
        ]
        .into_iter()
        .find(|known| u64::from(known.as_u32()) == code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_read_back() {
        for code in 0..19 {
            assert_eq!(CloseCode::from_u64(code).map(|c| u64::from(c.as_u32())), Some(code));
        }
        assert_eq!(CloseCode::from_u64(19), None);
    }

    #[test]
    fn limits_that_the_shape_does_not_express_are_checked() {
        let request = TreeRequest::Pages { level: 0, keys: vec![vec![]; PAGES_MAX + 1] };
        assert!(TreeRequest::decode(&crate::codec::encode(&request)).is_err());
        let build = "x".repeat(65);
        let hello = Hello { suite: 1, versions: vec![1], build, now_ms: 0, heads: vec![] };
        let unknown = Hello { suite: 2, ..hello.clone() };
        for bytes in [
            crate::codec::encode(&Open::Control(unknown.clone())),
            crate::codec::encode(&Control::Hello(unknown)),
        ] {
            let refused = [Open::decode(&bytes).err(), Control::decode(&bytes).err()];
            assert_eq!(refused, [Some(DecodeError::UnknownSuite(2)); 2]);
        }
        assert!(Open::decode(&crate::codec::encode(&Open::Control(hello.clone()))).is_err());
        assert!(Control::decode(&crate::codec::encode(&Control::Hello(hello))).is_err());
        for bytes in [vec![], vec![0; PAGE_PART_BYTES_MAX + 1]] {
            let part = TreeReply::Part { bytes, more: true };
            assert!(TreeReply::decode(&crate::codec::encode(&part)).is_err());
        }
        let differences = |count: usize, key: usize, known: usize| {
            let page = KnownPage { first_key: vec![0xff; key], known: vec![0xff; known] };
            let request =
                TreeRequest::Differences { level: 9, salt: [0xff; 16], pages: vec![page; count] };
            let bytes = crate::codec::encode(&request);
            TreeRequest::decode(&bytes).map(|_| bytes.len())
        };
        let largest = differences(DIFFERENCES_MAX, KEY_BYTES_MAX, KNOWN_BYTES_MAX);
        assert!(largest.unwrap() <= ASKING_FRAME_BYTES_MAX);
        for (count, key, known) in [
            (DIFFERENCES_MAX + 1, 0, 0),
            (1, KEY_BYTES_MAX + 1, 0),
            (1, 0, KNOWN_BYTES_MAX + SHORT_BYTES),
            (1, 0, SHORT_BYTES - 1),
        ] {
            assert!(differences(count, key, known).is_err(), "{count} {key} {known}");
        }
        let head = |bytes| TreeReply::Head {
            header: vec![],
            levels: 2,
            root: vec![0; bytes],
            proof: Proof::default(),
        };
        for (bytes, well) in [(ROOT_BYTES_MAX, true), (ROOT_BYTES_MAX + 1, false)] {
            let head = crate::codec::encode(&head(bytes));
            assert_eq!(TreeReply::decode(&head).is_ok(), well);
        }
        let report = Report {
            instance: [0; 8],
            roots: vec![Checksum::ZERO; ROOTS_MAX + 1],
            signing_key: Suite::One.none(),
        };
        assert!(Control::decode(&crate::codec::encode(&Control::Report(report))).is_err());
        for control in [
            Control::Freshness(vec![0; STATEMENT_BYTES_MAX + 1]),
            Control::Anchor(vec![0; ANCHOR_BYTES_MAX + 1]),
        ] {
            assert!(Control::decode(&crate::codec::encode(&control)).is_err());
        }
        let renew = Open::Renew(RenewRequest { csr: vec![0; CSR_BYTES_MAX + 1] });
        assert!(Open::decode(&crate::codec::encode(&renew)).is_err());
        let new_key = |key: usize, possession: usize, countersignature: usize| {
            Open::decode(&crate::codec::encode(&Open::NewKey(NewKeyRequest {
                signing_key: vec![0; key],
                possession: vec![0; possession],
                countersignature: vec![0; countersignature],
            })))
        };
        let (key, signature) = (PUBLIC_KEY_BYTES_MAX, SIGNATURE_BYTES_MAX);
        assert!(new_key(key, signature, signature).is_ok());
        assert!(new_key(key + 1, signature, signature).is_err());
        assert!(new_key(key, signature + 1, signature).is_err());
        assert!(new_key(key, signature, signature + 1).is_err());
        let keys = vec![vec![0xff; crate::record::KEY_BYTES_MAX]; PAGES_MAX];
        let largest = crate::codec::encode(&TreeRequest::Pages { level: 9, keys });
        assert!(TreeRequest::decode(&largest).is_ok());
        assert!(largest.len() <= ASKING_FRAME_BYTES_MAX);
    }
}
