//! Hashes, values, keys, records, pages, change sets, signatures and records of
//! `_federation`.

use protocol::{
    change::{
        Change, Header, KeyProblem, KeyRing, Position, SignedHeader, changes_hash, decode_changes,
        encode_changes,
    },
    difference::{self, Own},
    federation::{
        CaKind, CaRecord, CaState, Entry, HubAddresses, Introduction, KeyRecord, Member,
        Revocation, Role, succession_bytes,
    },
    freshness::Statement,
    hash::{Hash, Purpose},
    history::{Peaks, Proof},
    id::{NodeId, PartitionId},
    page::{Leaf, RawLeaf, decode_inner, inner_hash, make_inner},
    record::{Record, decode_key, encode_key, entry_digests, key_hash},
    sign::{PublicKey, SignaturePurpose, SigningKey},
    suite::Suite,
    suite::checksum::Checksum,
    value::{Date, Decimal, Value},
};

use crate::Vectors;

pub fn unhex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

/// The key with the seed 01 01 … 01: the hub's.
pub fn hub_key() -> SigningKey {
    Suite::One.signing_key(&[1; 32]).unwrap()
}

/// The key with the seed 02 02 … 02: the county's.
pub fn county_key() -> SigningKey {
    Suite::One.signing_key(&[2; 32]).unwrap()
}

/// The key with the seed 03 03 … 03: the one that follows the county's.
pub fn next_key() -> SigningKey {
    Suite::One.signing_key(&[3; 32]).unwrap()
}

/// What the county's key and the one that follows it both sign.
pub fn succession() -> Vec<u8> {
    let county = partition("zhengzhou/enterprise/410122/*");
    let earlier = county_key().public().id();
    succession_bytes(&county.federation, &county.origin, &earlier, &next_key().public())
}

/// The hub says that number 9 of `_federation` is the newest.
pub fn statement() -> Statement {
    let head = Position { seq: 9, hash: Suite::One.repeated(0x22) };
    let partition = partition("zhengzhou/_federation/410100/*");
    Statement::sign(partition, head, 1_700_000_000_000, &hub_key())
}

pub fn partition(text: &str) -> PartitionId {
    PartitionId::parse_full(text).unwrap()
}

pub fn add(vectors: &mut Vectors) {
    add_hashes(vectors);
    add_values(vectors);
    add_pages(vectors);
    add_change_set(vectors);
    add_history(vectors);
    add_federation(vectors);
}

/// Each purpose hashes the three bytes `abc`.
fn add_hashes(vectors: &mut Vectors) {
    for (name, purpose) in [
        ("key", Purpose::Key),
        ("entry", Purpose::Entry),
        ("page", Purpose::Page),
        ("changes", Purpose::Changes),
        ("header", Purpose::Header),
        ("history", Purpose::History),
        ("name", Purpose::Name),
        ("key_id", Purpose::KeyId),
        ("token_secret", Purpose::TokenSecret),
    ] {
        let hash = Suite::One.hash(purpose, &[b"a", b"bc"]);
        vectors.bytes(&format!("hash.{name}"), hash.as_bytes());
    }
    vectors.bytes("hash.checksum", Checksum::of(&[b"a", b"bc"]).as_bytes());
}

/// A value of every kind, and extremes.
fn values() -> Vec<(&'static str, Value)> {
    let decimal = |text| Value::Decimal(Decimal::parse(text).unwrap());
    vec![
        ("null", Value::Null),
        ("text", Value::text("县")),
        ("text_with_zero", Value::text("a\0b")),
        ("integer", Value::Integer(15800)),
        ("integer_negative", Value::Integer(-1)),
        ("decimal", decimal("+0015800.50")),
        ("decimal_negative", decimal("-.5")),
        ("date", Value::Date(Date::new(2019, 3, 1).unwrap())),
    ]
}

fn add_values(vectors: &mut Vectors) {
    for (name, value) in values() {
        let record = Record { schema_version: 1, values: vec![value.clone()] };
        let bytes = record.encode().unwrap();
        assert_eq!(Record::decode(&bytes), Ok(record));
        vectors.bytes(&format!("record.{name}"), &bytes);
        let key = encode_key([&value]).unwrap();
        assert_eq!(decode_key(&key), Ok(vec![value]));
        vectors.bytes(&format!("key.{name}"), &key);
    }
    let all: Vec<Value> = values().into_iter().map(|(_, value)| value).collect();
    let record = Record { schema_version: 3, values: all.clone() }.encode().unwrap();
    let key = encode_key(&all).unwrap();
    vectors.bytes("record.all", &record);
    vectors.bytes("key.all", &key);
    vectors.bytes("key.all.hash", key_hash(Suite::One, &key).as_bytes());
    vectors.bytes(
        "entry.all.digest",
        entry_digests(Suite::One, [(&key[..], &record[..])])[0].as_bytes(),
    );
    // Longer than a chunk of BLAKE3.
    let long = [7; 3000];
    vectors.bytes(
        "entry.long.digest",
        entry_digests(Suite::One, [(&b"a"[..], &long[..])])[0].as_bytes(),
    );
}

/// A leaf of three short entries, and an inner page of level 1 above two
/// children that do not exist.
fn add_pages(vectors: &mut Vectors) {
    let leaf_of = |entries: [(&str, &str); 3]| {
        RawLeaf::of(entries.map(|(key, value)| (key.as_bytes(), value.as_bytes()))).make(Suite::One)
    };
    let leaf = leaf_of([("a", "1"), ("b", ""), ("bc", "three")]);
    let raw = protocol::codec::decompress(&leaf.body, 1024).unwrap();
    vectors.bytes("leaf.raw", &raw);
    vectors.bytes("leaf.hash", leaf.page.hash.as_bytes());

    let own = leaf_of([("a", "1"), ("b", "2"), ("bc", "three")]);
    let own = Own::Leaf(Leaf::decode(&own.body).unwrap());
    let difference =
        difference::make(Suite::One, 0, &leaf.body, &SALT, &own.known(Suite::One, &SALT)).unwrap();
    vectors.bytes("difference.leaf.known", &own.known(Suite::One, &SALT));
    let raw = protocol::codec::decompress(&difference, 1024).unwrap();
    vectors.bytes("difference.leaf.raw", &raw);

    let mut second = leaf.page.clone();
    second.first_key = b"c".to_vec();
    second.records = 258;
    second.entries = 97;
    let children = [leaf.page, second];
    let inner = make_inner(Suite::One, 1, &children);
    assert_eq!(decode_inner(Suite::One, &inner.body).as_deref(), Ok(&children[..]));
    assert_eq!(inner.page.hash, inner_hash(Suite::One, 1, &children));
    vectors.bytes("inner.body", &inner.body);
    vectors.bytes("inner.hash", inner.page.hash.as_bytes());
    vectors.bytes("inner.hash_at_level_2", inner_hash(Suite::One, 2, &children).as_bytes());
}

pub fn changes() -> Vec<Change> {
    vec![
        Change::Put { key: b"a".to_vec(), value: b"1".to_vec() },
        Change::Delete { key: b"b".to_vec() },
        Change::Put { key: b"c".to_vec(), value: vec![] },
    ]
}

/// The header whose bytes are pinned, signed by the county.
pub fn signed_header() -> SignedHeader {
    let body = encode_changes(&changes());
    let header = Header {
        partition: partition("zhengzhou/enterprise/410122/*"),
        seq: 2,
        previous: Suite::One.repeated(0x11),
        history: history_of(1, |_| Suite::One.repeated(0x11)).root(Suite::One),
        federation_head: Some(Position { seq: 9, hash: Suite::One.repeated(0x22) }),
        origin_time_ms: 1_700_000_000_000,
        schema_version: 1,
        change_count: 3,
        changes_hash: changes_hash(Suite::One, &body),
        root: Suite::One.repeated(0x33),
        records: 70_000,
        key_id: county_key().public().id(),
    };
    SignedHeader::sign(header, &county_key())
}

/// With which the entries of a page are named.
const SALT: difference::Salt = [0x5a; 16];

/// The history of so many headers with these hashes.
pub fn history_of(count: u64, hash: impl Fn(u64) -> Hash) -> Peaks {
    let mut history = Peaks::new();
    (1..=count).for_each(|seq| history.push(hash(seq)));
    history
}

/// Histories of headers number `i` whose hash is 32 bytes `i`, and the way from
/// number 3 to its peak in the one of 7.
fn add_history(vectors: &mut Vectors) {
    for count in [0, 1, 2, 3, 7, 8] {
        let history = history_of(count, |seq| Suite::One.repeated(seq as u8));
        vectors.bytes(&format!("history.{count}"), history.root(Suite::One).as_bytes());
    }
    let seven = history_of(7, |seq| Suite::One.repeated(seq as u8));
    let peaks: Vec<u8> = seven.hashes().iter().flat_map(|hash| hash.as_bytes().to_vec()).collect();
    vectors.bytes("history.7.peaks", &peaks);
    let two = history_of(2, |seq| Suite::One.repeated(seq as u8)).root(Suite::One);
    let proof = Proof { peaks: seven.hashes().to_vec(), path: vec![Suite::One.repeated(4), two] };
    vectors.bytes("history.7.path_of_3", &[&[4; 32][..], two.as_bytes()].concat());
    let third = Position { seq: 3, hash: Suite::One.repeated(3) };
    assert_eq!(proof.check(7, &seven.root(Suite::One), Some(third)), Ok(seven));
}

/// The first header of `_federation`, signed by the hub.
fn first_federation_header() -> SignedHeader {
    let header = Header {
        partition: partition("zhengzhou/_federation/410100/*"),
        seq: 1,
        previous: Suite::One.none(),
        history: Peaks::new().root(Suite::One),
        federation_head: None,
        origin_time_ms: -1,
        schema_version: 1,
        change_count: 0,
        changes_hash: changes_hash(Suite::One, b""),
        root: protocol::tree::empty_root(Suite::One),
        records: 0,
        key_id: hub_key().public().id(),
    };
    SignedHeader::sign(header, &hub_key())
}

struct Both;

impl KeyRing for Both {
    fn key(&self, _: &PartitionId, _: u64, id: &Hash) -> Result<PublicKey, KeyProblem> {
        let keys = [hub_key().public(), county_key().public()];
        keys.into_iter().find(|key| key.id() == *id).ok_or(KeyProblem::Unknown)
    }
}

fn add_change_set(vectors: &mut Vectors) {
    for (name, key) in [("hub", hub_key()), ("county", county_key())] {
        vectors.bytes(&format!("signing.{name}.seed"), &key.secret());
        vectors.bytes(&format!("signing.{name}.public"), key.public().as_bytes());
        vectors.bytes(&format!("signing.{name}.key_id"), key.public().id().as_bytes());
    }
    let proof = protocol::message::possession_bytes(&[5; 8], &NodeId::new("410122").unwrap());
    let proof = county_key().sign(SignaturePurpose::Possession, &proof);
    vectors.bytes("signing.county.possession", proof.as_bytes());
    let proof = succession();
    vectors.bytes("signing.succession.bytes", &proof);
    let countersignature = county_key().sign(SignaturePurpose::Succession, &proof);
    vectors.bytes("signing.succession.countersignature", countersignature.as_bytes());
    vectors.bytes("freshness.statement", &statement().encode());

    let body = encode_changes(&changes());
    assert_eq!(decode_changes(&body), Ok(changes()));
    vectors.bytes("changes.body", &body);
    vectors.bytes("changes.hash", changes_hash(Suite::One, &body).as_bytes());
    for (name, signed) in [("header", signed_header()), ("header.first", first_federation_header())]
    {
        let bytes = signed.encode();
        let (suite, signed_bytes) = bytes.split_at(1);
        let (signature, header) = signed_bytes.split_at(64);
        assert_eq!(suite, [1]);
        assert_eq!(SignedHeader::decode(&bytes).as_ref(), Ok(&signed));
        assert_eq!(signed.verify(&Both), Ok(()));
        vectors.bytes(&format!("{name}.bytes"), header);
        vectors.bytes(&format!("{name}.hash"), signed.hash().as_bytes());
        vectors.bytes(&format!("{name}.signature"), signature);
    }
}

fn add_federation(vectors: &mut Vectors) {
    let member = Member {
        name: "中牟县".into(),
        role: Role::Member,
        removed: false,
        certificates_from: None,
    };
    let schema = {
        let mut raw = protocol::federation::schema().raw().clone();
        raw.dataset = "list".into();
        raw.version = 12;
        protocol::schema::Schema::check(raw).unwrap()
    };
    let county = || NodeId::new("410122").unwrap();
    let first = KeyRecord {
        last: Some([("enterprise/410122".to_owned(), 42)].into()),
        ..KeyRecord::new(&county_key().public(), Introduction::Enrolment, 1_700_000_000_000)
    };
    let countersignature = county_key().sign(SignaturePurpose::Succession, &succession());
    let second = KeyRecord {
        countersignature: Some(protocol::hex::encode(countersignature.as_bytes())),
        ..KeyRecord::new(&next_key().public(), Introduction::Succession, 1_700_000_000_001)
    };
    let ca = CaRecord {
        certificate: "3000".into(),
        cross: Some("3001".into()),
        root: None,
        state: CaState::Next,
    };
    let issuing = CaRecord { cross: None, root: Some(1), state: CaState::Active, ..ca.clone() };
    let addresses = HubAddresses {
        addresses: vec!["credit.example.org:7443".into(), "[2001:db8::1]:7443".into()],
        since: 300,
    };
    let revocation = || Revocation { at_ms: 1_700_000_000_000, reason: "遗失".into() };
    for (name, entry) in [
        ("member", Entry::Member(county(), member)),
        ("key.first", Entry::Key(county(), 1, first)),
        ("key.second", Entry::Key(county(), 2, second)),
        ("ca.root", Entry::Ca(CaKind::Root, 2, ca)),
        ("ca.issuing", Entry::Ca(CaKind::Issuing, 1, issuing)),
        ("revocation.node", Entry::Revocation(county(), None, revocation())),
        ("revocation.certificate", Entry::Revocation(county(), Some("4a01".into()), revocation())),
        ("schema", Entry::Schema(schema)),
        ("address", Entry::Address(NodeId::new("410100").unwrap(), addresses)),
    ] {
        let Change::Put { key, value } = entry.put().unwrap() else { panic!("it is a put") };
        assert_eq!(Entry::read(&value), Ok(Some(entry)));
        vectors.bytes(&format!("federation.{name}.key"), &key);
        vectors.bytes(&format!("federation.{name}.record"), &value);
    }
}
