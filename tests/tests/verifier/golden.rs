//! Every vector of `protocol/tests/golden/v1.txt`, and the pinned token and
//! anchors of `certs/tests/golden.rs`, made again from their inputs.
//!
//! Nothing is skipped: a vector that no check asks for fails the test. What is
//! signed is then altered bit by bit, and has to be refused each time.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
};

use ed25519_dalek::{Signer as _, SigningKey};

use super::{
    Refused,
    anchor::{Anchor, Freshness, RootKey},
    change::{self, Change, SignedHeader},
    entries,
    federation::Records,
    golden_frames, golden_trees, hashes,
    history::{self, Proof},
    layout,
    pages::decompress,
    record::{self, Value},
    token::Token,
};

const VECTORS: &str = include_str!("../../../protocol/tests/golden/v1.txt");
/// Only the texts that are pinned in it are read.
const PINNED: &str = include_str!("../../../certs/tests/golden.rs");

/// The vectors by name, and which of them were asked for.
pub struct Vectors {
    all: BTreeMap<&'static str, &'static str>,
    asked: RefCell<BTreeSet<&'static str>>,
}

impl Vectors {
    pub fn read() -> Self {
        let lines = VECTORS.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let all = lines.map(|line| line.split_once(" = ").expect("name = value")).collect();
        Self { all, asked: RefCell::default() }
    }

    /// A vector as it is written.
    #[track_caller]
    pub fn text(&self, name: &str) -> &'static str {
        let (name, value) = self.all.get_key_value(name).unwrap_or_else(|| panic!("no {name}"));
        self.asked.borrow_mut().insert(name);
        value
    }

    /// A vector's bytes.
    #[track_caller]
    pub fn bytes(&self, name: &str) -> Vec<u8> {
        hashes::unhex(self.text(name)).unwrap()
    }

    /// A vector that is a hash, a key or a signature.
    #[track_caller]
    pub fn array<const N: usize>(&self, name: &str) -> [u8; N] {
        hashes::unhex_exactly(self.text(name)).unwrap()
    }

    /// What is computed has to be the vector.
    #[track_caller]
    pub fn is(&self, name: &str, computed: impl AsRef<[u8]>) {
        assert_eq!(hex(computed.as_ref()), self.text(name), "{name}");
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A text that `certs/tests/golden.rs` pins.
fn pinned(name: &str) -> String {
    let start = format!("const {name}: &str = \"");
    let (_, behind) = PINNED.split_once(&start).unwrap();
    let (text, _) = behind.split_once("\";").unwrap();
    text.split("\\\n").map(str::trim_start).collect()
}

/// Each of these bytes with one bit flipped.
fn flipped(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    (0..bytes.len() * 8).map(|bit| {
        let mut bytes = bytes.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        bytes
    })
}

#[test]
fn every_vector_is_made_again() {
    let vectors = Vectors::read();
    hashes_of_abc(&vectors);
    values(&vectors);
    signing(&vectors);
    changes(&vectors);
    histories(&vectors);
    federation_records(&vectors);
    golden_trees::check(&vectors);
    golden_frames::check(&vectors);
    let asked = vectors.asked.into_inner();
    let left: Vec<_> = vectors.all.keys().filter(|name| !asked.contains(*name)).collect();
    assert!(left.is_empty(), "nobody checks {left:?}");
}

fn hashes_of_abc(vectors: &Vectors) {
    for (name, context) in [
        ("key", layout::hash::KEY),
        ("entry", layout::hash::ENTRY),
        ("page", layout::hash::PAGE),
        ("changes", layout::hash::CHANGES),
        ("header", layout::hash::HEADER),
        ("history", layout::hash::HISTORY),
        ("name", layout::hash::NAME),
        ("key_id", layout::hash::KEY_ID),
        ("token_secret", layout::hash::TOKEN_SECRET),
        ("checksum", layout::hash::CHECKSUM),
    ] {
        vectors.is(&format!("hash.{name}"), hashes::hash(context, b"abc"));
    }
}

fn values(vectors: &Vectors) {
    let text = |text: &str| Value::Text(text.to_owned());
    let decimal = |text: &str| Value::Decimal(text.to_owned());
    let all = [
        ("null", Value::Null),
        ("text", text("县")),
        ("text_with_zero", text("a\0b")),
        ("integer", Value::Integer(15_800)),
        ("integer_negative", Value::Integer(-1)),
        ("decimal", decimal("15800.5")),
        ("decimal_negative", decimal("-0.5")),
        ("date", Value::Date { year: 2019, month: 3, day: 1 }),
    ];
    let check = |name: &str, version, values: &[Value]| {
        let (record, key) = (format!("record.{name}"), format!("key.{name}"));
        vectors.is(&record, record::encode(version, values));
        vectors.is(&key, record::encode_key(values));
        assert_eq!(record::decode(&vectors.bytes(&record)), Ok((version, values.to_vec())));
        assert_eq!(record::decode_key(&vectors.bytes(&key)), Ok(values.to_vec()));
    };
    for (name, value) in &all {
        check(name, 1, std::slice::from_ref(value));
    }
    check("all", 3, &all.map(|(_, value)| value));
    vectors.is("key.all.hash", hashes::key_hash(&vectors.bytes("key.all")).unwrap());
}

/// Seeds repeat one byte.
fn signer(byte: u8) -> SigningKey {
    SigningKey::from_bytes(&[byte; 32])
}

fn sign(key: &SigningKey, context: &str, bytes: &[u8]) -> [u8; 64] {
    key.sign(&hashes::with_context(context, bytes)).to_bytes()
}

fn signing(vectors: &Vectors) {
    for (name, byte) in [("hub", 1), ("county", 2)] {
        let public = signer(byte).verifying_key().to_bytes();
        vectors.is(&format!("signing.{name}.seed"), [byte; 32]);
        vectors.is(&format!("signing.{name}.public"), public);
        vectors.is(&format!("signing.{name}.key_id"), hashes::key_id(&public));
    }
    let (hub, county, next) = (signer(1), signer(2), signer(3));
    let possession = [&[5; 8][..], b"410122"].concat();
    let possession = sign(&county, layout::signature::POSSESSION, &possession);
    vectors.is("signing.county.possession", possession);
    let earlier = hashes::key_id(&county.verifying_key().to_bytes());
    let new = next.verifying_key().to_bytes();
    let succession = hashes::succession_bytes("zhengzhou", "410122", &earlier, &new);
    vectors.is("signing.succession.bytes", &succession);
    let signature = sign(&county, layout::signature::SUCCESSION, &succession);
    vectors.is("signing.succession.countersignature", signature);

    let statement = vectors.bytes("freshness.statement");
    let read = Freshness::decode(&statement).unwrap();
    assert_eq!(read.fields.partition, "zhengzhou/_federation/410100/*");
    assert_eq!((read.fields.seq, read.fields.head), (9, [0x22; 32]));
    assert_eq!(read.fields.time_ms, 1_700_000_000_000);
    read.verify(&hub.verifying_key().to_bytes()).unwrap();
    let signature = sign(&hub, layout::signature::FRESHNESS, &statement[layout::SIGNED_AT..]);
    vectors.is(
        "freshness.statement",
        [&[layout::SUITE], &signature[..], &statement[layout::SIGNED_AT..]].concat(),
    );
}

fn changes(vectors: &Vectors) {
    let body = vectors.bytes("changes.body");
    let expected = [
        Change::Put { key: b"a".to_vec(), record: b"1".to_vec() },
        Change::Delete { key: b"b".to_vec() },
        Change::Put { key: b"c".to_vec(), record: vec![] },
    ];
    assert_eq!(change::changes(&body), Ok(expected.to_vec()));
    vectors.is("changes.hash", hashes::hash(layout::hash::CHANGES, &body));
    for (name, key, seq) in [("header", signer(2), 2), ("header.first", signer(1), 1)] {
        let bytes = vectors.bytes(&format!("{name}.bytes"));
        let signature = vectors.array::<64>(&format!("{name}.signature"));
        let signed =
            SignedHeader::decode(&[&[layout::SUITE], &signature[..], &bytes].concat()).unwrap();
        vectors.is(&format!("{name}.hash"), signed.hash);
        vectors
            .is(&format!("{name}.signature"), sign(&key, layout::signature::HEADER, &signed.hash));
        signed.verify(&key.verifying_key().to_bytes()).unwrap();
        assert_eq!(signed.header.seq, seq);
    }
    let field = vectors.bytes("sample.changes");
    let header = layout::header(&vectors.bytes("header.bytes")).unwrap();
    assert_eq!(change::signed_changes(&header, &field), Ok(expected.to_vec()));
    let repeated = decompress(&vectors.bytes("sample.repeated"), 11_000).unwrap();
    assert_eq!(repeated, b"creditsync ".repeat(1000));
}

fn histories(vectors: &Vectors) {
    let headers: Vec<[u8; 32]> = (1..=8).map(|byte| [byte; 32]).collect();
    for count in [0, 1, 2, 3, 7, 8] {
        vectors.is(&format!("history.{count}"), history::root(&headers[..count]));
        let peaks = history::peaks(&headers[..count]);
        assert_eq!(history::root_of_peaks(&peaks), history::root(&headers[..count]));
    }
    let peaks = history::peaks(&headers[..7]);
    vectors.is("history.7.peaks", peaks.concat());
    let path = vectors.bytes("history.7.path_of_3");
    let path = path.chunks(32).map(|hash| hash.try_into().unwrap()).collect();
    let (proof, root) = (Proof { peaks, path }, history::root(&headers[..7]));
    assert_eq!(proof.check((3, &headers[2]), 8, &root), Ok(()));
    for (earlier, hash) in [(2, 2), (4, 2), (3, 3), (7, 2), (8, 2), (0, 2)] {
        assert!(proof.check((earlier, &headers[hash]), 8, &root).is_err(), "{earlier} {hash}");
    }
    assert!(proof.check((3, &headers[2]), 9, &root).is_err());
    assert!(proof.check((3, &headers[2]), 8, &history::root(&headers)).is_err());
}

fn federation_records(vectors: &Vectors) {
    let text = |text: &str| Value::Text(text.to_owned());
    let mut state = super::tree::State::new();
    for (name, kind, id, part) in [
        ("member", "member", "410122", None),
        ("key.first", "key", "410122", Some("0000000001")),
        ("key.second", "key", "410122", Some("0000000002")),
        ("ca.root", "ca", "root", Some("0000000002")),
        ("ca.issuing", "ca", "issuing", Some("0000000001")),
        ("revocation.node", "revocation", "410122", None),
        ("revocation.certificate", "revocation", "410122", Some("4a01")),
        ("schema", "schema", "list", Some("0000000012")),
        ("address", "address", "410100", None),
    ] {
        let key = [text(kind), text(id), part.map_or(Value::Null, text)];
        vectors.is(&format!("federation.{name}.key"), record::encode_key(&key));
        let bytes = vectors.bytes(&format!("federation.{name}.record"));
        let (version, values) = record::decode(&bytes).unwrap();
        assert_eq!((version, &values[..3]), (1, &key[..]), "{name}");
        assert_eq!(record::encode(version, &values), bytes, "{name}");
        state.insert(record::encode_key(&key), bytes);
    }
    // None is malformed: what a reader makes of each is seen elsewhere.
    assert!(state.iter().all(|(key, record)| entries::read(key, record).is_ok()));
    let keys = Records::of("zhengzhou", &state).keys;
    let [first, second] = &keys["410122"][..] else { panic!("{keys:?}") };
    assert_eq!((first.number, &first.by[..]), (1, "enrolment"));
    assert_eq!((second.number, &second.by[..]), (2, "succession"));
    assert_eq!(second.public, signer(3).verifying_key().to_bytes());
    // Under another federation's name nobody has signed that succession.
    assert_eq!(Records::of("other-city", &state).keys["410122"].len(), 1);
}

#[test]
fn no_bit_of_what_is_signed_can_be_flipped() {
    let vectors = Vectors::read();
    let county = vectors.array("signing.county.public");
    let hub = vectors.array("signing.hub.public");
    let (header, signature) =
        (vectors.bytes("header.bytes"), vectors.array::<64>("header.signature"));
    let signed = [&[layout::SUITE], &signature[..], &header].concat();
    let refused = |bytes: &[u8]| SignedHeader::decode(bytes)?.verify(&county);
    assert_eq!(refused(&signed), Ok(()));
    for altered in flipped(&signed) {
        assert!(refused(&altered).is_err(), "{}", hex(&altered));
    }
    // Also where a decoder would have stopped it before.
    for altered in flipped(&header) {
        let hash = hashes::hash(layout::hash::HEADER, &altered);
        let verified = hashes::verify(&county, layout::signature::HEADER, &hash, &signature);
        assert_eq!(verified, Err(Refused("the signature does not verify")));
    }

    let statement = vectors.bytes("freshness.statement");
    for altered in flipped(&statement) {
        let refused = Freshness::decode(&altered).and_then(|read| read.verify(&hub));
        assert!(refused.is_err(), "{}", hex(&altered));
    }
    let succession = vectors.bytes("signing.succession.bytes");
    let signature = vectors.array("signing.succession.countersignature");
    let verify =
        |bytes: &[u8]| hashes::verify(&county, layout::signature::SUCCESSION, bytes, &signature);
    assert_eq!(verify(&succession), Ok(()));
    assert!(flipped(&succession).all(|altered| verify(&altered).is_err()));
    // A signature for one thing is none for another.
    let other = hashes::verify(&county, layout::signature::POSSESSION, &succession, &signature);
    assert!(other.is_err());

    let root = RootKey::new(&hashes::unhex(&pinned("ITS_ROOT_KEY")).unwrap()).unwrap();
    let anchor = hashes::unhex(&pinned("ANCHOR_WITH_BASE")).unwrap();
    for altered in flipped(&anchor) {
        assert!(Anchor::verified(&altered, &root).is_err(), "{}", hex(&altered));
    }
}

#[test]
fn signatures_are_verified_strictly() {
    // Keys of small order, among them the one that verifies anything.
    let mut identity = [0; 32];
    identity[0] = 1;
    for weak in [[0; 32], identity] {
        assert_eq!(
            hashes::public_key(&weak).map(|_| ()),
            Err(Refused("a public key of small order"))
        );
    }
    // `s` plus the order of the group satisfies the equation, and is not reduced.
    let order = hashes::unhex("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010");
    let key = signer(2);
    let mut signature = sign(&key, layout::signature::HEADER, &[7; 32]);
    let mut carry = 0u16;
    for (byte, added) in signature[32..].iter_mut().zip(order.unwrap()) {
        carry += u16::from(*byte) + u16::from(added);
        *byte = carry.to_le_bytes()[0];
        carry >>= 8;
    }
    let public = key.verifying_key().to_bytes();
    let verified = hashes::verify(&public, layout::signature::HEADER, &[7; 32], &signature);
    assert_eq!(verified, Err(Refused("the signature does not verify")));
}

#[test]
fn the_pinned_token_and_anchors_are_read() {
    let text = pinned("TOKEN");
    let token = Token::parse(&text).unwrap();
    assert_eq!(hex(&token.anchor), pinned("ANCHOR"));
    assert_eq!(hex(&token.secret_hash()), pinned("SECRET_HASH"));
    assert_eq!((&token.node[..], &token.display_name[..]), ("410122", "中牟县"));
    assert_eq!(token.addresses, ["hub.example:7400", "[2001:db8::1]:7400"]);
    assert_eq!((token.federation_seq, token.federation_head), (7, [9; 32]));
    assert_eq!((token.end_s, token.id, token.secret), (1_800_000_000, [5; 8], [6; 32]));
    let anchor = Anchor::verified(&token.anchor, &token.root_key().unwrap()).unwrap();
    let fields = anchor.fields();
    assert_eq!((&fields.federation[..], &fields.hub[..]), ("zhengzhou", "410100"));
    assert_eq!((fields.epoch, fields.base), (3, None));
    assert_eq!(fields.hub_key, signer(1).verifying_key().to_bytes());

    let root = RootKey::new(&hashes::unhex(&pinned("ITS_ROOT_KEY")).unwrap()).unwrap();
    let based = hashes::unhex(&pinned("ANCHOR_WITH_BASE")).unwrap();
    let based = Anchor::verified(&based, &root).unwrap();
    assert_eq!((based.fields().epoch, based.fields().base), (2, Some((258, [7; 32]))));
    assert_eq!(based.fields().earlier, [signer(1).verifying_key().to_bytes()]);
    assert!(Anchor::verified(&token.anchor, &root).is_err(), "another root's");

    // White space and invisible characters anywhere; but nothing else.
    let spaced: String = text.chars().flat_map(|c| [c, '\u{200b}', '\n']).collect();
    assert_eq!(Token::parse(&spaced), Ok(token));
    for (at, _) in text.char_indices() {
        let mut altered = text.clone().into_bytes();
        altered[at] = if altered[at] == b'A' { b'B' } else { b'A' };
        assert!(Token::parse(std::str::from_utf8(&altered).unwrap()).is_err(), "{at}");
        assert!(Token::parse(&text[..at]).is_err(), "cut at {at}");
    }
}
