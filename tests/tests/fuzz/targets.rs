//! The decoders, and what has to hold of whatever they decode.

use std::{io::Cursor, sync::OnceLock};

use certs::enrol::{Anchor, Token};
use daemon::{
    ingest::{
        rows::{Place, Row},
        source::{Recallable as _, Table as _},
        validate::Validator,
    },
    sources::{
        child::frames::Message,
        csv::{self, CsvTable, Encoding, Options, ROW_BYTES_MAX},
        json::JsonFile,
        kind::{Kind, kind_of_file},
    },
};
use protocol::{
    change::{BODY_BYTES_MAX, CHANGES_MAX, Change, SignedHeader, decode_changes, encode_changes},
    codec,
    cut::PAGE_ENTRIES_MAX,
    difference::{self, KNOWN_BYTES_MAX, Own, SHORT_BYTES},
    federation::Entry,
    frame::{FRAME_BYTES_MAX, FrameDecoder},
    freshness::{STATEMENT_BYTES_MAX, Statement},
    history::HEIGHT_MAX,
    message::{
        ANCHOR_BYTES_MAX, BUILD_BYTES_MAX, Control, DIFFERENCES_MAX, FollowReply, FollowRequest,
        HEADS_MAX, Hello, JoinReply, JoinRequest, NewKeyReply, Open, PAGE_PART_BYTES_MAX,
        PAGES_MAX, ROOT_BYTES_MAX, ROOTS_MAX, RenewReply, TreeReply, TreeRequest,
    },
    page::{Leaf, RawLeaf, decode_inner, make_inner},
    record::{KEY_BYTES_MAX, RECORD_BYTES_MAX, Record, decode_key, encode_key},
    schema::{FIELDS_MAX, Schema},
    suite::Suite,
};
use serde::{Serialize, de::DeserializeOwned};

use super::{beside, foreign};

/// A decoder under test.
pub struct Target {
    /// Also the name of its corpus' directory.
    pub name: &'static str,
    /// Decodes and checks; says whether the input decoded.
    pub run: fn(&[u8]) -> bool,
    /// Memory that an input may cost: so many bytes, and a multiple of its own.
    base: usize,
    factor: usize,
}

impl Target {
    pub fn memory_max(&self, input_bytes: usize) -> usize {
        self.base + self.factor * input_bytes
    }
}

const fn target(name: &'static str, run: fn(&[u8]) -> bool, base: usize, factor: usize) -> Target {
    Target { name, run, base, factor }
}

const KB: usize = 1024;
const MB: usize = 1024 * KB;
/// serde reserves up to 1 MiB for a list that claims to be long, and a message
/// may have two; what they hold is a few times their bytes.
const LISTS: usize = 2 * MB + 64 * KB;
/// What a claimed length may reserve before its bytes are there: the codec takes
/// claims up to 1 MiB at their word, and a growing buffer doubles.
const UNPACKED: usize = 2 * MB;
/// zstd makes at most so much of a byte, and a growing buffer holds it twice.
const ZSTD_FACTOR: usize = 3 * 40_000;

pub const TARGETS: &[Target] = &[
    target("frame", frame, 8 * KB, 8),
    target("open", |b| message(b, Open::decode, check_open), LISTS, 300),
    target("control", |b| message(b, Control::decode, check_control), LISTS, 300),
    target("follow_request", |b| message(b, codec::decode::<FollowRequest>, |_| {}), LISTS, 300),
    target("follow_reply", |b| message(b, codec::decode::<FollowReply>, |_| {}), LISTS, 300),
    target("tree_request", |b| message(b, TreeRequest::decode, check_tree_request), LISTS, 300),
    target("tree_reply", |b| message(b, TreeReply::decode, check_tree_reply), LISTS, 300),
    target("renew_reply", |b| message(b, codec::decode::<RenewReply>, |_| {}), LISTS, 300),
    target("new_key_reply", |b| message(b, codec::decode::<NewKeyReply>, |_| {}), LISTS, 300),
    target("freshness", freshness, 8 * KB, 8),
    target("federation", federation, 4 * MB, 64),
    target("join_request", |b| message(b, codec::decode::<JoinRequest>, |_| {}), LISTS, 300),
    target("join_reply", |b| message(b, codec::decode::<JoinReply>, |_| {}), LISTS, 300),
    target("header", header, 8 * KB, 8),
    target("changes", changes, 8 * KB, 64),
    target("leaf", leaf, UNPACKED + 64 * KB, ZSTD_FACTOR),
    // Mutated before it is compressed, or zstd would refuse nearly everything.
    target("leaf_raw", |b| leaf(&codec::compress(b)), 2 * MB, 64),
    target("inner", inner, 64 * KB, 32),
    target("proof", beside::proof, LISTS, 300),
    target("proof_altered", beside::proof_altered, 256 * KB, 8),
    target("leaf_index", beside::leaf_index, MB, 128),
    target("difference", |b| difference(&codec::compress(b)), 2 * MB, 64),
    target("record", record, 64 * KB, 32),
    target("key", key, 8 * KB, 128),
    target("compressed", compressed, UNPACKED, ZSTD_FACTOR),
    target("token", token, 64 * KB, 16),
    target("anchor", anchor, 8 * KB, 8),
    target("csv", csv, 3 * MB, 64),
    target("json", json, 3 * MB, 64),
    target("kind", kind, MB, 8),
    // A frame's claimed length is taken at its word, up to the limit.
    target("child", child, 2 * MB, 64),
    // The first rows of all sheets, and what is made around a part.
    target("workbook", foreign::workbook, 20 * MB, 64),
    target("packed", foreign::packed, 2 * MB, 64),
];

fn frame(bytes: &[u8]) -> bool {
    let mut decoder = FrameDecoder::new();
    let mut bodies = Vec::new();
    // However the bytes are cut, the same frames come out.
    for step in [1, 7, bytes.len().max(1)] {
        let mut seen = Vec::new();
        decoder = FrameDecoder::new();
        'stream: for chunk in bytes.chunks(step) {
            decoder.push(chunk);
            loop {
                match decoder.pop() {
                    Ok(Some(body)) => seen.push(body),
                    Ok(None) => break,
                    Err(_) => break 'stream,
                }
            }
        }
        assert!(seen.iter().all(|body| body.len() <= FRAME_BYTES_MAX));
        assert!(seen.iter().map(Vec::len).sum::<usize>() <= bytes.len());
        assert!(step == 1 || seen == bodies, "cut at {step}");
        bodies = seen;
    }
    let whole = decoder.finish().is_ok() && decoder.pop() == Ok(None);
    if whole {
        let again: Vec<u8> = bodies.iter().flat_map(|b| protocol::frame::encode(b)).collect();
        assert_eq!(again, bytes);
    }
    whole
}

/// Messages are not canonical: an integer may be written longer than it has to
/// be. What was decoded has to come back from its own bytes, which are no more.
fn message<T, E>(bytes: &[u8], decode: fn(&[u8]) -> Result<T, E>, check: fn(&T)) -> bool
where
    T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug,
    E: std::fmt::Debug,
{
    let Ok(decoded) = decode(bytes) else {
        return false;
    };
    check(&decoded);
    let again = codec::encode(&decoded);
    assert!(again.len() <= bytes.len());
    assert_eq!(decode(&again).expect("our own bytes decode"), decoded);
    true
}

fn check_hello(hello: &Hello) {
    assert!(hello.heads.len() <= HEADS_MAX && hello.build.len() <= BUILD_BYTES_MAX);
    assert!(hello.versions.len() <= 16);
}

fn check_open(open: &Open) {
    if let Open::Control(hello) = open {
        check_hello(hello);
    }
}

fn check_control(control: &Control) {
    match control {
        Control::Hello(hello) => check_hello(hello),
        Control::Announce(heads) => assert!(heads.len() <= HEADS_MAX),
        Control::Heartbeat { .. } => {}
        Control::Report(report) => assert!(report.roots.len() <= ROOTS_MAX),
        Control::Freshness(bytes) => assert!(bytes.len() <= STATEMENT_BYTES_MAX),
        Control::Anchor(bytes) => assert!(bytes.len() <= ANCHOR_BYTES_MAX),
    }
}

fn check_tree_request(request: &TreeRequest) {
    match request {
        TreeRequest::Pages { keys, .. } => {
            assert!(keys.len() <= PAGES_MAX && keys.iter().all(|key| key.len() <= KEY_BYTES_MAX));
        }
        TreeRequest::Differences { pages, .. } => {
            assert!(pages.len() <= DIFFERENCES_MAX);
            for page in pages {
                assert!(page.first_key.len() <= KEY_BYTES_MAX);
                assert!(page.known.len() <= KNOWN_BYTES_MAX && page.known.len() % SHORT_BYTES == 0);
            }
        }
    }
}

fn check_tree_reply(reply: &TreeReply) {
    match reply {
        TreeReply::Part { bytes, .. } => {
            assert!((1..=PAGE_PART_BYTES_MAX).contains(&bytes.len()));
        }
        TreeReply::Head { root, proof, .. } => {
            assert!(root.len() <= ROOT_BYTES_MAX);
            assert!(proof.peaks.len() <= HEIGHT_MAX && proof.path.len() <= HEIGHT_MAX);
        }
        TreeReply::Fork { proof, .. } => {
            assert!(proof.peaks.len() <= HEIGHT_MAX && proof.path.len() <= HEIGHT_MAX);
        }
    }
}

fn header(bytes: &[u8]) -> bool {
    let Ok(header) = SignedHeader::decode(bytes) else {
        return false;
    };
    assert_eq!(header.encode(), bytes);
    let first = header.header().previous == header.suite().none();
    assert_eq!(header.header().seq == 1, first);
    true
}

fn changes(bytes: &[u8]) -> bool {
    let Ok(changes) = decode_changes(bytes) else {
        return false;
    };
    assert!(changes.len() <= CHANGES_MAX && bytes.len() <= BODY_BYTES_MAX);
    assert!(changes.iter().all(|change| change.key().len() <= KEY_BYTES_MAX));
    assert!(changes.is_sorted_by(|a, b| a.key() < b.key()));
    assert_eq!(encode_changes(&changes), bytes);
    true
}

fn leaf(bytes: &[u8]) -> bool {
    let Ok(leaf) = Leaf::decode(bytes) else {
        return false;
    };
    assert!((1..=PAGE_ENTRIES_MAX).contains(&leaf.len()));
    assert!(leaf.entries().is_sorted_by(|a, b| a.0 < b.0));
    for (key, value) in leaf.entries() {
        assert!(key.len() <= KEY_BYTES_MAX && value.len() <= RECORD_BYTES_MAX);
        assert_eq!(leaf.get(key), Some(value));
    }
    assert_eq!(RawLeaf::of(leaf.entries()).make(Suite::One).page, leaf.describe(Suite::One));
    true
}

fn inner(bytes: &[u8]) -> bool {
    let decoded: Vec<bool> = Suite::ALL.iter().map(|suite| inner_of(*suite, bytes)).collect();
    decoded.contains(&true)
}

fn inner_of(suite: Suite, bytes: &[u8]) -> bool {
    let Ok(children) = decode_inner(suite, bytes) else {
        return false;
    };
    assert!((1..=PAGE_ENTRIES_MAX).contains(&children.len()));
    assert!(children.is_sorted_by(|a, b| a.first_key < b.first_key));
    // Their sum may be more than any tree has: who believes it checks it.
    if children.iter().try_fold(0u64, |sum, child| sum.checked_add(child.records)).is_some() {
        assert_eq!(make_inner(suite, 1, &children).body, bytes);
    }
    true
}

/// A difference against a leaf of sixty entries, and against as many children.
fn difference(bytes: &[u8]) -> bool {
    static OWN: OnceLock<(Own, Own)> = OnceLock::new();
    let (own_leaf, own_inner) = OWN.get_or_init(|| {
        let made = crate::corpus::sixty();
        let child = |n: u8| {
            let mut child = made.page.clone();
            child.first_key = vec![n];
            child.hash = Suite::One.repeated(n);
            child
        };
        let leaf = Leaf::decode(&made.body).unwrap();
        (Own::Leaf(leaf), Own::Inner((0..60).map(child).collect()))
    });
    let leaf = difference::leaf(bytes, own_leaf);
    if let Ok(leaf) = &leaf {
        assert!((1..=PAGE_ENTRIES_MAX).contains(&leaf.len()));
        assert!(leaf.entries().is_sorted_by(|a, b| a.0 < b.0));
        // Told again it is the same page.
        let body = RawLeaf::of(leaf.entries()).make(Suite::One).body;
        let again = difference::make(
            Suite::One,
            0,
            &body,
            &crate::corpus::SALT,
            &own_leaf.known(Suite::One, &crate::corpus::SALT),
        )
        .unwrap();
        let again = difference::leaf(&again, own_leaf).unwrap();
        assert_eq!(again.describe(Suite::One), leaf.describe(Suite::One));
    }
    let inner = difference::inner(Suite::One, bytes, own_inner);
    if let Ok(children) = &inner {
        assert!((1..=PAGE_ENTRIES_MAX).contains(&children.len()));
        assert!(children.is_sorted_by(|a, b| a.first_key < b.first_key));
    }
    leaf.is_ok() || inner.is_ok()
}

fn record(bytes: &[u8]) -> bool {
    let Ok(record) = Record::decode(bytes) else {
        return false;
    };
    assert!(record.values.len() <= FIELDS_MAX);
    assert_eq!(record.encode().as_deref(), Ok(bytes));
    true
}

fn key(bytes: &[u8]) -> bool {
    let Ok(fields) = decode_key(bytes) else {
        return false;
    };
    assert_eq!(encode_key(&fields).as_deref(), Ok(bytes));
    true
}

fn compressed(bytes: &[u8]) -> bool {
    const LIMIT: usize = 8 * MB;
    let Ok(raw) = codec::decompress(bytes, LIMIT) else {
        return false;
    };
    assert!(raw.len() <= LIMIT);
    assert_eq!(codec::decompress(&codec::compress(&raw), LIMIT), Ok(raw));
    true
}

fn token(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let Ok(token) = Token::parse(&text) else {
        return false;
    };
    assert_eq!(Token::parse(&token.to_text()).as_ref(), Ok(&token));
    assert!(token.anchor.verify(&token.root).is_ok());
    true
}

fn freshness(bytes: &[u8]) -> bool {
    let Ok(statement) = Statement::decode(bytes) else {
        return false;
    };
    assert_eq!(statement.encode(), bytes);
    true
}

/// A record of `_federation`: what was read is written back as the same thing.
fn federation(bytes: &[u8]) -> bool {
    let Ok(Some(entry)) = Entry::read(bytes) else {
        return false;
    };
    if let Ok(Change::Put { value, .. }) = entry.put() {
        assert_eq!(Entry::read(&value), Ok(Some(entry)));
    }
    true
}

fn anchor(bytes: &[u8]) -> bool {
    let Ok(anchor) = Anchor::decode(bytes) else {
        return false;
    };
    assert_eq!(anchor.encode(), bytes);
    true
}

pub fn enterprise() -> &'static Schema {
    static SCHEMA: OnceLock<Schema> = OnceLock::new();
    SCHEMA.get_or_init(|| {
        let standard = config::catalogue::standard();
        let found = standard.into_iter().find(|schema| schema.dataset().as_str() == "enterprise");
        found.expect("it is built in")
    })
}

fn open_csv(bytes: &[u8]) -> Option<CsvTable> {
    let options = Options { encoding: Encoding::Auto, ignored: &[] };
    let (source, total) = (Box::new(Cursor::new(bytes.to_vec())), bytes.len() as u64);
    csv::open("some.csv", source, total, options, enterprise()).ok()
}

/// Every line of a file is a row, blank or reported; a record exists only of a
/// row without a rejecting issue, and reads back.
fn csv(bytes: &[u8]) -> bool {
    let Some(mut file) = open_csv(bytes) else {
        return false;
    };
    let mapping = file.mapping().clone();
    let mut validator = Validator::new(enterprise(), mapping.columns());
    let mut last = Place::new(0, 0, 0);
    let mut check = |row: Row<'_>| {
        let place = match row {
            Row::Fields { place, fields, .. } => {
                assert!(fields.iter().map(str::len).sum::<usize>() <= 2 * ROW_BYTES_MAX);
                let checked = validator.row(mapping.texts(fields));
                if let Some(record) = &checked.record {
                    let record = Record::decode(record).expect("a record is canonical");
                    let key = record.key(enterprise()).ok();
                    assert_eq!(key, checked.key);
                }
                place
            }
            Row::Malformed { place, .. } => place,
        };
        assert!(place > last, "{place:?} after {last:?}");
        last = place;
    };
    loop {
        let batch = file.next_rows().expect("memory can be read");
        if batch.is_empty() {
            break;
        }
        batch.for_each(&mut check);
    }
    csv_bodies(bytes);
    true
}

/// Where only the ends of rows are looked for, they are the same rows.
fn csv_bodies(bytes: &[u8]) {
    let (mut file, mut lines) = (open_csv(bytes).expect("it was read before"), Vec::new());
    loop {
        let batch = file.next_bodies().expect("memory can be read");
        if batch.is_empty() {
            break;
        }
        let all: Vec<usize> = (0..batch.len()).collect();
        batch.split(&all).for_each(&mut |row| lines.push(format!("{row:?}")));
    }
    let (mut file, mut lines) = (open_csv(bytes).expect("it was read before"), lines.into_iter());
    loop {
        let batch = file.next_rows().expect("memory can be read");
        if batch.is_empty() {
            break;
        }
        batch.for_each(&mut |row| assert_eq!(lines.next(), Some(format!("{row:?}"))));
    }
    assert_eq!(lines.next(), None);
}

/// Whatever the bytes are, they end, and every row lies below the one before; a row
/// that is no problem has as many fields as there are names.
fn json(bytes: &[u8]) -> bool {
    let Ok(mut file) = JsonFile::from_bytes(bytes.to_vec(), "fuzz.json") else {
        return false;
    };
    let columns = file.header().len();
    let mut last = Place::new(0, 0, 0);
    loop {
        let rows = file.next_rows().expect("memory can be read");
        if rows.is_empty() {
            break;
        }
        rows.mapped(0, Default::default()).for_each(&mut |row| {
            let place = match row {
                Row::Fields { place, fields, .. } => {
                    assert_eq!(fields.len(), columns);
                    assert!(fields.iter().map(str::len).sum::<usize>() <= ROW_BYTES_MAX);
                    place
                }
                Row::Malformed { place, .. } => place,
            };
            assert!(place > last, "{place:?} after {last:?}");
            last = place;
        });
    }
    true
}

/// What is read at all counts as decoded; whatever it is, it is the same again.
fn kind(bytes: &[u8]) -> bool {
    let of = || kind_of_file(&mut std::io::Cursor::new(bytes), "fuzz").expect("memory can be read");
    let kind = of();
    assert_eq!(kind, of());
    !matches!(kind, Kind::Foreign(_))
}

/// What a child says is canonical, up to its last byte.
fn child(bytes: &[u8]) -> bool {
    let (mut from, mut again) = (bytes, Vec::new());
    loop {
        match Message::read(&mut from) {
            Ok(Some(message)) => message.write(&mut again).expect("memory can be written"),
            Ok(None) => break,
            Err(_) => return false,
        }
    }
    assert_eq!(again, bytes);
    true
}
