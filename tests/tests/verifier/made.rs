//! Roots, anchors and partitions of the tests' own, rightly signed: for what a
//! federation of real processes would not say.

use std::sync::LazyLock;

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use ed25519_dalek::{Signer as _, SigningKey};

use super::{
    anchor::RootKey,
    change::{self, Change},
    hashes::{self, Hash},
    history,
    layout::{self, AnchorFields, Header},
    reader::write_bytes,
    record::{self, Value},
    token::Token,
    tree::{self, State},
};

pub const FEDERATION: &str = "made-city";
pub const HUB: &str = "410100";
pub const COUNTY: &str = "410122";

/// The root of all anchors here; a signature of ECDSA is another one each time.
static ROOT: LazyLock<EcdsaKeyPair> = LazyLock::new(|| {
    EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).expect("a key is made")
});

pub fn root() -> RootKey {
    let prefix = hashes::unhex(layout::P256_KEY_PREFIX).unwrap();
    RootKey::new(&[&prefix, ROOT.public_key().as_ref()].concat()).unwrap()
}

/// A token's text.
pub fn token(token: &Token) -> String {
    token_text(token_content(token))
}

/// A token's bytes before the checksum.
pub fn token_content(token: &Token) -> Vec<u8> {
    let mut content = token.anchor.clone();
    write_bytes(&mut content, &token.root_subject);
    write_bytes(&mut content, &token.root_spki);
    write_bytes(&mut content, token.node.as_bytes());
    write_bytes(&mut content, token.display_name.as_bytes());
    content.extend(u16::try_from(token.addresses.len()).unwrap().to_be_bytes());
    token.addresses.iter().for_each(|address| write_bytes(&mut content, address.as_bytes()));
    content.extend(token.federation_seq.to_be_bytes());
    content.extend(token.federation_head);
    content.extend(token.end_s.to_be_bytes());
    content.extend(token.id);
    content.extend(token.secret);
    content
}

/// The text of a token's content.
pub fn token_text(mut content: Vec<u8>) -> String {
    let counted = [layout::TOKEN_CHECKSUM_PREFIX, &content].concat();
    let sum = hashes::hash(layout::hash::CHECKSUM, &counted);
    content.extend(&sum[..layout::TOKEN_CHECKSUM_BYTES]);
    format!("{}{}", layout::TOKEN_PREFIX, base64url(&content))
}

fn base64url(bytes: &[u8]) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let of = |three: &[u8]| {
        let bits = (0..3).fold(0u32, |bits, at| {
            bits << 8 | u32::from(three.get(at).copied().unwrap_or_default())
        });
        let digit = move |at: u32| char::from(DIGITS[(bits >> (18 - 6 * at) & 63) as usize]);
        (0..=u32::try_from(three.len()).unwrap()).map(digit).collect::<String>()
    };
    bytes.chunks(3).map(of).collect()
}

/// A signing key, by one byte.
pub fn key(byte: u8) -> SigningKey {
    SigningKey::from_bytes(&[byte; 32])
}

pub fn public(key: &SigningKey) -> [u8; 32] {
    key.verifying_key().to_bytes()
}

/// Fields of an anchor without a base.
pub fn fields(hub_key: &SigningKey) -> AnchorFields {
    AnchorFields {
        federation: FEDERATION.to_owned(),
        hub: HUB.to_owned(),
        hub_key: public(hub_key),
        epoch: 1,
        base: None,
        earlier: vec![],
        signature: vec![],
        signed_bytes: 0,
    }
}

/// An anchor's bytes, signed by the root.
pub fn anchor(fields: &AnchorFields) -> Vec<u8> {
    anchor_by(fields, &ROOT)
}

/// The same, signed by another root's key.
pub fn anchor_by(fields: &AnchorFields, root: &EcdsaKeyPair) -> Vec<u8> {
    let mut bytes = layout::encode_anchor(fields);
    let message = hashes::with_context(layout::signature::ANCHOR, &bytes);
    let signature = root.sign(&SystemRandom::new(), &message).expect("the root signs");
    write_bytes(&mut bytes, signature.as_ref());
    bytes
}

/// A header as it travels, with the id of the key that signs it.
pub fn signed(mut header: Header, key: &SigningKey) -> Vec<u8> {
    header.key_id = hashes::key_id(&public(key));
    let bytes = layout::encode_header(&header);
    let hash = hashes::hash(layout::hash::HEADER, &bytes);
    let message = hashes::with_context(layout::signature::HEADER, &hash);
    [&[layout::SUITE], &key.sign(&message).to_bytes()[..], &bytes].concat()
}

/// A compressed field.
pub fn compressed(content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).expect("what is made here is short");
    [&length.to_be_bytes()[..], &zstd::bulk::compress(content, 1).unwrap()].concat()
}

/// A body's bytes.
pub fn body(changes: &[Change]) -> Vec<u8> {
    let mut body = Vec::new();
    for change in changes {
        match change {
            Change::Put { key, record } => {
                body.push(1);
                write_bytes(&mut body, key);
                write_bytes(&mut body, record);
            }
            Change::Delete { key } => {
                body.push(2);
                write_bytes(&mut body, key);
            }
        }
    }
    body
}

/// A partition as its origin has it.
#[derive(Clone)]
pub struct Origin {
    dataset: &'static str,
    node: &'static str,
    pub state: State,
    pub hashes: Vec<Hash>,
}

impl Origin {
    pub fn new(dataset: &'static str, node: &'static str) -> Self {
        Self { dataset, node, state: State::new(), hashes: Vec::new() }
    }

    /// The full name.
    pub fn name(&self) -> String {
        format!("{FEDERATION}/{}/{}/*", self.dataset, self.node)
    }

    /// The next header over these changes, without the id of a key.
    pub fn header(&self, changes: &[Change], federation_head: Option<(u64, Hash)>) -> Header {
        let mut state = self.state.clone();
        change::apply(&mut state, changes);
        let tree = tree::of(&state).unwrap();
        Header {
            federation: FEDERATION.to_owned(),
            dataset: self.dataset.to_owned(),
            origin: self.node.to_owned(),
            audience: "*".to_owned(),
            seq: self.hashes.len() as u64 + 1,
            previous: self.hashes.last().copied().unwrap_or_default(),
            history: history::root(&self.hashes),
            federation_head,
            time_ms: 0,
            schema_version: 1,
            change_count: u32::try_from(changes.len()).unwrap(),
            changes_hash: hashes::hash(layout::hash::CHANGES, &body(changes)),
            root: tree.root,
            records: tree.records,
            key_id: [0; 32],
        }
    }

    /// The next change set, which is then part of the partition.
    pub fn next(
        &mut self,
        changes: &[Change],
        federation_head: Option<(u64, Hash)>,
        key: &SigningKey,
    ) -> (Vec<u8>, Vec<u8>) {
        let header = signed(self.header(changes, federation_head), key);
        change::apply(&mut self.state, changes);
        self.hashes.push(hashes::hash(layout::hash::HEADER, &header[layout::SIGNED_AT..]));
        (header, compressed(&body(changes)))
    }
}

/// Keys in order, each of which leaves the way of those before it one bit deeper, so
/// that a tree has most of them on pages of their own, on each level.
pub fn nested_keys(count: usize) -> Vec<Vec<u8>> {
    let key = |depth: usize| [vec![0; depth / 8], vec![0x80 >> (depth % 8)]].concat();
    (0..count).rev().map(key).collect()
}

/// A record of `_federation`.
pub fn record(kind: &str, id: &str, part: Option<&str>, body: &str) -> Change {
    let text = |text: &str| Value::Text(text.to_owned());
    let values = [text(kind), text(id), part.map_or(Value::Null, text), text(body)];
    Change::Put { key: record::encode_key(&values[..3]), record: record::encode(1, &values) }
}

/// Changes in the order that a body has them.
pub fn in_order(mut changes: Vec<Change>) -> Vec<Change> {
    changes.sort_by(|left, right| left.key().cmp(right.key()));
    changes
}
