//! The corpus: files that valid encoders make, and nasty ones, by target.
//!
//! A file's name says which it is: `valid-…` decodes, everything else must not.
//! Failures that were found once are added by hand as `found-…`.

use std::{collections::BTreeMap, fs, path::PathBuf};

use harness::table::{ENTERPRISE_TITLES, csv_text, synthetic_row};
use protocol::{
    change::{Change, Header, Position, SignedHeader},
    codec,
    difference::{self, Own},
    id::PartitionId,
    page::{Leaf, MadePage, PageRef, RawLeaf, make_inner},
    record::{Record, encode_key},
    suite::Suite,
    value::{Date, Decimal, Value},
};

use super::{beside, foreign};

/// Files by name.
pub type Files = Vec<(String, Vec<u8>)>;

fn directory(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
}

/// The committed files of a target, in the order of their names.
pub fn read(target: &str) -> Files {
    let Ok(entries) = fs::read_dir(directory(target)) else {
        return Vec::new();
    };
    let mut files: Files = entries
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect();
    files.sort();
    files
}

/// Writes what [`generated`] made.
pub fn write(generated: &BTreeMap<&'static str, Files>) {
    for (target, files) in generated {
        fs::create_dir_all(directory(target)).unwrap();
        for (name, bytes) in files {
            fs::write(directory(target).join(name), bytes).unwrap();
        }
    }
}

/// One `name = hex` of the golden vectors.
fn golden() -> BTreeMap<String, Vec<u8>> {
    let path = harness::node::workspace().join("protocol/tests/golden/v1.txt");
    let text = fs::read_to_string(path).unwrap();
    let hex = |text: &str| -> Option<Vec<u8>> {
        (0..text.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok())
            .collect()
    };
    text.lines()
        .filter_map(|line| line.split_once(" = "))
        .filter_map(|(name, value)| Some((name.to_owned(), hex(value)?)))
        .collect()
}

#[derive(Default)]
struct Made(BTreeMap<&'static str, Files>);

impl Made {
    fn add(&mut self, target: &'static str, name: &str, bytes: impl Into<Vec<u8>>) {
        self.0.entry(target).or_default().push((name.to_owned(), bytes.into()));
    }
}

/// The whole corpus.
pub fn generated() -> BTreeMap<&'static str, Files> {
    let mut made = Made::default();
    add_messages(&mut made, &golden());
    add_records(&mut made);
    add_pages(&mut made);
    add_proofs(&mut made);
    add_indexes(&mut made);
    add_tokens(&mut made);
    add_csv(&mut made);
    add_json(&mut made);
    add_kinds(&mut made);
    add_child(&mut made);
    add_workbooks(&mut made);
    add_archives(&mut made);
    made.0
}

/// A header of the artificial suite, whose lengths are others.
fn artificial_header() -> Vec<u8> {
    let suite = Suite::Artificial;
    let key = suite.signing_key(&vec![7; suite.secret_key_bytes()]).unwrap();
    let header = Header {
        partition: PartitionId::parse_full("zhengzhou/enterprise/410122/*").unwrap(),
        seq: 2,
        previous: suite.repeated(1),
        history: suite.repeated(2),
        federation_head: Some(Position { seq: 3, hash: suite.repeated(3) }),
        origin_time_ms: 1_700_000_000_000,
        schema_version: 1,
        change_count: 1,
        changes_hash: suite.repeated(4),
        root: suite.repeated(5),
        records: 1,
        key_id: key.public().id(),
    };
    SignedHeader::sign(header, &key).encode()
}

/// Frames of the golden vectors by target, without their length.
fn add_messages(made: &mut Made, golden: &BTreeMap<String, Vec<u8>>) {
    for (target, prefix) in [
        ("open", "frame.open."),
        ("control", "frame.control."),
        ("follow_request", "frame.follow.ack"),
        ("follow_reply", "frame.follow."),
        ("tree_request", "frame.tree."),
        ("tree_reply", "frame.tree."),
        ("renew_reply", "frame.renew."),
        ("new_key_reply", "frame.new_key."),
        ("join_request", "frame.join.request"),
        ("join_reply", "frame.join."),
    ] {
        let frames: Vec<(&String, &Vec<u8>)> = golden
            .iter()
            .filter(|(name, _)| name.starts_with(prefix))
            .filter(|(name, _)| {
                let ends = ["ack", "pages", "differences", "request"];
                let asks = ends.iter().any(|end| name.ends_with(end));
                (asks && !name.ends_with("take_pages")) == target.ends_with("request")
            })
            .collect();
        for (name, frame) in &frames {
            made.add(target, &format!("valid-{}", &name["frame.".len()..]), &frame[4..]);
        }
        made.add(target, "empty", []);
        made.add(target, "unknown-kind", [200]);
        // Where a number comes first, that is a number.
        let list = [253, 0x10, 0, 0, 0, 0, 0, 0, 0];
        match target {
            "new_key_reply" => {}
            // Behind the suite.
            "open" | "control" => {
                made.add(target, "endless-list", [&[0, 1][..], &list].concat());
                made.add(target, "unknown-suite", [0, 2, 1, 1, 0, 0, 0]);
            }
            _ => made.add(target, "endless-list", [&[0][..], &list].concat()),
        }
        made.add(target, "long-text", [1, 252, 0xff, 0xff, 0xff, 0xff, b'a', b'/']);
        let some = frames[0].1;
        made.add(target, "left-over", [&some[4..], &[0]].concat());
        made.add(target, "cut", &some[4..some.len() - 1]);
    }
    let frames: Vec<u8> = golden
        .iter()
        .filter(|(name, _)| name.starts_with("frame.") && !name.contains("join"))
        .flat_map(|(_, frame)| frame.clone())
        .collect();
    made.add("frame", "valid-many", frames.clone());
    made.add("frame", "valid-empty-frames", [0; 12]);
    made.add("frame", "too-long", [1, 0, 0, 1, 0]);
    made.add("frame", "longest-of-32-bits", [0xff; 4]);
    made.add("frame", "cut", &frames[..frames.len() - 1]);
    for name in ["header", "header.first"] {
        let bytes = |part: &str| golden[&format!("{name}.{part}")].clone();
        let signed = [vec![1], bytes("signature"), bytes("bytes")].concat();
        made.add("header", &format!("unknown-suite-{name}"), [&[2], &signed[1..]].concat());
        made.add("header", &format!("other-suite-{name}"), [&[240], &signed[1..]].concat());
        made.add("header", &format!("cut-{name}"), &signed[..signed.len() - 1]);
        made.add("header", &format!("valid-{name}"), signed);
    }
    made.add("header", "valid-artificial", artificial_header());
    made.add("header", "too-long", [1; 1025]);
    made.add("changes", "valid-three", golden["changes.body"].clone());
    made.add("changes", "valid-none", []);
    made.add("changes", "twice-the-same-key", [2, 0, 0, 0, 1, 7, 2, 0, 0, 0, 1, 7]);
    made.add("changes", "long-key", [2, 0, 0, 4, 1]);
    made.add("changes", "endless-record", [1, 0, 0, 0, 1, 7, 0xff, 0xff, 0xff, 0xff]);
    let many: Vec<u8> =
        (0..=10_000u32).flat_map(|n| [2, 0, 0, 0, 4].into_iter().chain(n.to_be_bytes())).collect();
    made.add("changes", "one-too-many", many);
    let statement = golden["freshness.statement"].clone();
    made.add("freshness", "cut", &statement[..statement.len() - 1]);
    made.add("freshness", "too-long", [1; 513]);
    made.add("freshness", "version-2", [&statement[..65], &[2], &statement[66..]].concat());
    made.add("freshness", "valid-statement", statement);
    for (name, record) in golden.iter().filter(|(name, _)| name.starts_with("federation.")) {
        if let Some(name) = name.strip_suffix(".record") {
            made.add("federation", &format!("valid-{name}"), record.clone());
        }
    }
    let member = &golden["federation.member.record"];
    made.add("federation", "cut", &member[..member.len() - 1]);
    let address = &golden["federation.address.record"];
    let nowhere = String::from_utf8_lossy(address).replace("[2001:db8::1]", "[0:0:0:0:0::]");
    made.add("federation", "address-of-every-machine", nowhere.into_bytes());
    made.add("federation", "not-json", [&member[..member.len() - 1], b"{"].concat());
    let (mut anchor, based) = (bytes_of("ANCHOR"), bytes_of("ANCHOR_WITH_BASE"));
    made.add("anchor", "valid-anchor", anchor.clone());
    made.add("anchor", "valid-with-base", based.clone());
    made.add("anchor", "cut", &anchor[..20]);
    made.add("anchor", "cut-in-base", &based[..80]);
    anchor[0] = 3;
    made.add("anchor", "version-3", anchor);
}

fn add_records(made: &mut Made) {
    let decimal = |text| Value::Decimal(Decimal::parse(text).unwrap());
    let values = vec![
        Value::text("合成企业\0一号"),
        Value::Null,
        Value::Integer(i64::MIN),
        decimal("-15800.5"),
        Value::Date(Date::new(2019, 3, 1).unwrap()),
    ];
    let record = Record { schema_version: 2, values: values.clone() };
    made.add("record", "valid-all-kinds", record.encode().unwrap());
    made.add("record", "valid-no-fields", [0, 0, 0, 1, 0, 0]);
    made.add(
        "record",
        "too-many-fields",
        [[0, 0, 0, 1, 0xff, 0xff].as_slice(), &[0; 200]].concat(),
    );
    made.add("record", "empty-text", [0, 0, 0, 1, 0, 1, 1, 0, 0, 0, 0]);
    made.add("record", "endless-text", [0, 0, 0, 1, 0, 1, 1, 0xff, 0xff, 0xff, 0xff]);
    made.add("record", "sloppy-decimal", b"\0\0\0\x01\0\x01\x03\0\0\0\x041.50".as_slice());
    made.add("record", "no-such-day", [0, 0, 0, 1, 0, 1, 4, 7, 231, 2, 29]);
    made.add("record", "not-utf-8", [0, 0, 0, 1, 0, 1, 1, 0, 0, 0, 1, 0xff]);
    made.add("key", "valid-all-kinds", encode_key(&values).unwrap());
    made.add("key", "valid-nothing", []);
    made.add("key", "text-without-end", [1, b'a']);
    made.add("key", "wrong-escape", [1, 0, 7, 0, 0]);
    made.add("key", "empty-text", [1, 0, 0]);
    made.add("key", "sloppy-decimal", b"\x031.50\0\0".as_slice());
    made.add("key", "too-long", [0; 1025]);
}

fn add_pages(made: &mut Made) {
    let leaf = sixty();
    add_differences(made, &leaf);
    made.add("leaf", "valid-sixty", leaf.body.clone());
    made.add("leaf", "cut", &leaf.body[..leaf.body.len() / 2]);
    made.add("leaf", "no-entries", codec::compress(&[0, 0]));
    made.add("leaf_raw", "valid-sixty", codec::decompress(&leaf.body, 1 << 20).unwrap());
    made.add("leaf_raw", "too-many-entries", [1, 1]);
    made.add("leaf_raw", "twice-the-same-key", [0, 2, 0, 1, 7, 0, 0, 0, 0, 0, 1, 7, 0, 0, 0, 0]);
    made.add("leaf_raw", "endless-value", [0, 1, 0, 1, 7, 0xff, 0xff, 0xff, 0xff]);
    made.add("leaf", "bomb", codec::compress(&vec![0; 16 << 20]));
    let mut second = leaf.page.clone();
    second.first_key = vec![0xff; 1024];
    second.records = 1 << 60;
    made.add("inner", "valid-two", make_inner(Suite::One, 1, &[leaf.page.clone(), second]).body);
    let suite = Suite::Artificial;
    let of_40 = PageRef { hash: suite.repeated(7), ..leaf.page.clone() };
    made.add("inner", "valid-artificial", make_inner(suite, 1, &[of_40]).body);
    made.add("inner", "no-children", [0, 0]);
    made.add("inner", "too-many-children", [1, 1]);
    made.add(
        "inner",
        "in-disorder",
        make_inner(Suite::One, 1, &[leaf.page.clone(), leaf.page.clone()]).body,
    );
    let mut empty = leaf.page;
    empty.records = 0;
    made.add("inner", "a-child-without-records", make_inner(Suite::One, 1, &[empty]).body);
    let text = b"creditsync ".repeat(100);
    made.add("compressed", "valid-text", codec::compress(&text));
    made.add("compressed", "valid-nothing", codec::compress(&[]));
    made.add("compressed", "valid-large", codec::compress(&vec![7; 3 << 20]));
    let bomb = codec::compress(&vec![0; 64 << 20]);
    made.add("compressed", "bomb", bomb.clone());
    for (name, length) in [("too-short-a-claim", 99u32), ("too-long-a-claim", 8 << 20)] {
        made.add("compressed", name, [&length.to_be_bytes()[..], &bomb[4..]].concat());
    }
    made.add("compressed", "no-frame", [0, 0, 0, 9]);
    // 128 MiB of window in a frame of one block.
    made.add(
        "compressed",
        "wide-window",
        [0, 0x20, 0, 0, 0x28, 0xb5, 0x2f, 0xfd, 0, 17 << 3, 3, 0, 16, 7],
    );
}

fn add_proofs(made: &mut Made) {
    for (name, seq, count) in [
        ("valid-first-of-one", Some(1), 1),
        ("valid-third-of-thirteen", Some(3), 13),
        ("valid-last-of-64", Some(64), 64),
        ("valid-no-other", None, 21),
        ("valid-nothing", None, 0),
        ("not-in-it", Some(9), 8),
    ] {
        made.add("proof", name, beside::shown(seq, count));
    }
    let whole = beside::shown(Some(3), 13);
    made.add("proof_altered", "valid-thirteen", [0, 12, 0, 2]);
    made.add("proof_altered", "valid-itself", [0, 255, 0, 99, 4, 5, 6, 7]);
    made.add("proof_altered", "one-doubled", [0, 255, 0, 99, 5, 6, 6, 5]);
    made.add("proof_altered", "another-header", [0, 12, 0, 2, 0, 200]);
    made.add("proof_altered", "another-peak", [0, 12, 0, 2, 1, 200]);
    made.add("proof_altered", "cut", [0, 12, 0]);
    made.add("proof", "cut", &whole[..whole.len() - 1]);
    let mut altered = whole.clone();
    *altered.last_mut().unwrap() ^= 1;
    made.add("proof", "another-hash", altered);
    // 2^62 headers, and a number of the same size.
    let far = [253, 0x40, 0, 0, 0, 0, 0, 0, 0];
    made.add("proof", "too-many-headers", [&far[..], &whole[1..]].concat());
    made.add("proof", "endless-list", [&whole[..whole.len() - 100], &far].concat());
}

fn add_indexes(made: &mut Made) {
    let number = |n: u16| n.to_be_bytes().to_vec();
    let put = |n: u16, value: &str| Change::Put { key: number(n), value: value.into() };
    let index = beside::index_of((0..60).map(|n| number(2 * n)));
    let patch =
        protocol::change::encode_changes(&[put(4, "other"), Change::Delete { key: number(6) }]);
    let all = beside::kept(&index, &patch, &[put(4, "value"), put(7, "new")]);
    made.add("leaf_index", "cut", &all[..all.len() - 1]);
    made.add("leaf_index", "valid-patched", all);
    made.add("leaf_index", "valid-nothing-changes", beside::kept(&index, &patch, &[]));
    made.add("leaf_index", "valid-first-change", beside::kept(&index, &[], &[put(5, "new")]));
    made.add(
        "leaf_index",
        "valid-taken-back",
        beside::kept(&index, &patch, &[put(4, "value"), put(6, "value")]),
    );
    made.add("leaf_index", "valid-behind-the-end", beside::kept(&index, &[], &[put(500, "new")]));
    let wide = |n: u16| [&[7; 500][..], &number(n)].concat();
    made.add(
        "leaf_index",
        "valid-long-keys",
        beside::kept(&beside::index_of((0..160).map(wide)), &[], &[]),
    );
    let from_nothing = beside::index_of([vec![], vec![0], vec![0, 0]]);
    made.add("leaf_index", "valid-empty-key", beside::kept(&from_nothing, &[], &[]));
    made.add("leaf_index", "empty", []);
    made.add("leaf_index", "no-entries", beside::kept(&[0, 0], &[], &[]));
    let entry = |shared: u8, key: &[u8]| {
        let suffix = key.len() as u8;
        [&[0, shared, 0, suffix][..], key, &[0, 0, 0, 5], &[9; 32]].concat()
    };
    let two = |second: Vec<u8>| [&[0, 2][..], &entry(0, b"a"), &second].concat();
    for (name, index) in [
        ("twice-the-same-key", two(entry(1, b""))),
        ("shares-more-than-there-is", two(entry(2, b"b"))),
        ("twice-the-empty-key", [&[0, 2][..], &entry(0, b""), &entry(0, b"")].concat()),
        ("too-long-a-record", two([&entry(0, b"b")[..5], &[0xff; 36]].concat())),
    ] {
        made.add("leaf_index", name, beside::kept(&index, &[], &[]));
    }
}

/// A leaf of sixty entries.
pub fn sixty() -> MadePage {
    leaf_of((0..60).map(|number| (number, format!("value {number}"))))
}

fn leaf_of(entries: impl Iterator<Item = (u32, String)>) -> MadePage {
    let entries: Vec<_> = entries.map(|(key, value)| (key.to_be_bytes(), value)).collect();
    let entries = entries.iter().map(|(key, value)| (&key[..], value.as_bytes()));
    RawLeaf::of(entries).make(Suite::One)
}

/// With which entries are named.
pub const SALT: difference::Salt = [7; 16];

/// Differences against [`sixty`], not compressed.
fn add_differences(made: &mut Made, leaf: &MadePage) {
    let own = Own::Leaf(Leaf::decode(&leaf.body).unwrap());
    let other = leaf_of((10..90).map(|number| (number, format!("value {}", number % 40))));
    let raw = |level: u8, body: &[u8], own: &Own| {
        let told = difference::make(Suite::One, level, body, &SALT, &own.known(Suite::One, &SALT))
            .unwrap();
        codec::decompress(&told, 1 << 20).unwrap()
    };
    let told = raw(0, &other.body, &own);
    made.add("difference", "cut", &told[..told.len() - 1]);
    made.add("difference", "valid-leaf", told);
    made.add("difference", "valid-all-known", raw(0, &leaf.body, &own));
    made.add("difference", "valid-all-spelled", raw(0, &leaf.body, &Own::Nothing));
    let inner = make_inner(Suite::One, 1, std::slice::from_ref(&leaf.page)).body;
    made.add("difference", "valid-inner", raw(1, &inner, &Own::Nothing));
    made.add("difference", "no-entries", []);
    made.add("difference", "unknown-kind", [2, 0, 1, 7]);
    made.add("difference", "too-many-entries", [1, 1, 1]);
    made.add("difference", "behind-the-last", [0, 0, 59, 0, 2]);
    made.add("difference", "in-disorder", [0, 0, 5, 0, 1, 0, 0, 4, 0, 1]);
    made.add("difference", "endless-value", [1, 0, 1, 0, 1, 7, 0xff, 0xff, 0xff, 0xff]);
}

const GOLDEN_TOKEN: &str = include_str!("../../../certs/tests/golden.rs");

/// A constant of the golden test of `certs`, its line breaks taken out.
fn constant(name: &str) -> String {
    let (_, rest) = GOLDEN_TOKEN.split_once(&format!("const {name}: &str = ")).unwrap();
    let (text, _) = rest.split_once(';').unwrap();
    text.chars().filter(|c| !c.is_whitespace() && *c != '\\' && *c != '"').collect()
}

/// A constant of hexadecimal digits.
fn bytes_of(name: &str) -> Vec<u8> {
    let text = constant(name);
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

fn add_tokens(made: &mut Made) {
    let token = constant("TOKEN");
    made.add("token", "valid-wrapped", format!(" {}\r\n{}\u{200b}", &token[..70], &token[70..]));
    made.add("token", "valid-token", token.clone());
    made.add("token", "cut", &token.as_bytes()[..200]);
    made.add("token", "version-2", token.replacen("join-1.", "join-2.", 1));
    made.add("token", "prefix-only", "creditsync-join-1.");
    made.add("token", "altered", token.replacen('A', "B", 1));
}

fn add_csv(made: &mut Made) {
    let rows: Vec<Vec<String>> = (0..5).map(|row| synthetic_row(1, row, "模糊")).collect();
    let text = csv_text(&ENTERPRISE_TITLES, &rows);
    let (gbk, _, _) = encoding_rs::GB18030.encode(&text);
    let utf16: Vec<u8> =
        format!("\u{feff}{text}").encode_utf16().flat_map(u16::to_le_bytes).collect();
    made.add("csv", "valid-utf-8", text.clone());
    made.add("csv", "valid-gbk", gbk.into_owned());
    made.add("csv", "valid-utf-16", utf16.clone());
    made.add("csv", "valid-cut-utf-16", &utf16[..utf16.len() - 1]);
    made.add(
        "csv",
        "valid-quotes",
        text.replace(',', "\",\"").replace('\n', "\"\r\n\"").replacen("", "\"", 1),
    );
    made.add("csv", "valid-open-quote", format!("{text}\"{}", "x,\n".repeat(300)));
    made.add("csv", "valid-many-columns", format!("{text}{}\n", ",".repeat(5000)));
    made.add(
        "csv",
        "valid-numbers-and-days",
        "名称,统一社会信用代码,成立日期\n甲,９１,2019年13月45日\n乙,+,99999999\n丙,,0000-0-0\n",
    );
    made.add("csv", "empty", "");
    made.add("csv", "other-header", "a,b,c\n1,2,3\n");
    made.add("csv", "twice-the-same-column", "name,uscc,name\n1,2,3\n");
    made.add("csv", "zeros", [0; 500]);
    made.add("csv", "workbook", b"PK\x03\x04xl/workbook.xml".as_slice());
    made.add("csv", "quote-only", "\"");
}

fn add_json(made: &mut Made) {
    let row = |row| synthetic_row(1, row, "模糊");
    let object = |row: Vec<String>| {
        let members = ENTERPRISE_TITLES.iter().zip(row);
        let members = members.map(|(title, text)| ((*title).to_owned(), text.into()));
        serde_json::Value::Object(members.collect())
    };
    let objects: Vec<serde_json::Value> = (0..5).map(|number| object(row(number))).collect();
    let array = serde_json::to_string_pretty(&objects).unwrap();
    let utf16: Vec<u8> = array.encode_utf16().flat_map(u16::to_le_bytes).collect();
    made.add("json", "valid-array", array.clone());
    made.add("json", "valid-utf-16", utf16);
    made.add("json", "valid-cut", &array.as_bytes()[..array.len() / 2]);
    made.add("json", "valid-wrapped", format!("{{\"code\":0,\"data\":{array},\"n\":[1,2]}}"));
    let lines: Vec<String> = objects.iter().map(|one| format!("{one}\n")).collect();
    made.add("json", "valid-lines", lines.concat());
    made.add("json", "valid-sequence", array.trim_matches(['[', ']']));
    made.add("json", "valid-open-quote", "[{\"a\":1},\n{\"a\":\"x},\n{\"a\":3},7,\"x\",[[]]]");
    made.add(
        "json",
        "valid-odd-values",
        "[{\"a\":{\"b\":[1]},\"c\":1e9},{\"a\":1,\"a\":2},{\"\\ud800\":0}]",
    );
    made.add("json", "empty", "");
    made.add("json", "no-objects", "[1,2]");
    made.add("json", "several-arrays", "{\"a\":[{}],\"b\":[{}]}");
    made.add("json", "deep", "[".repeat(5000));
}

fn add_kinds(made: &mut Made) {
    let zip = |name: &[u8], content: &[u8]| {
        let length = (name.len() as u16).to_le_bytes();
        [b"PK\x03\x04", &[0; 22][..], &length, &[0; 2], name, content].concat()
    };
    let compound = |name: &str| {
        let mut bytes = vec![0; 1024];
        bytes[..4].copy_from_slice(b"\xd0\xcf\x11\xe0");
        bytes[30] = 9;
        bytes.extend(name.encode_utf16().flat_map(u16::to_le_bytes));
        bytes
    };
    made.add("kind", "valid-xlsx", zip(b"[Content_Types].xml", b"xl/workbook.xml"));
    made.add("kind", "valid-zip", zip(b"a.csv", b"a,b"));
    made.add(
        "kind",
        "valid-ods",
        zip(b"mimetype", b"application/vnd.oasis.opendocument.spreadsheet"),
    );
    made.add("kind", "valid-xls", compound("Workbook"));
    made.add("kind", "valid-json", "[{\"a\":1}]");
    made.add("kind", "valid-gzip", b"\x1f\x8b\x08\0".as_slice());
    made.add("kind", "valid-text", "a,b\n1,2\n");
    made.add("kind", "docx", zip(b"[Content_Types].xml", b"word/document.xml"));
    made.add("kind", "locked", compound("EncryptedPackage"));
    made.add("kind", "html", "<html><table>");
    made.add("kind", "sql", "-- dump\n/* x */ INSERT INTO t VALUES (1);");
    made.add(
        "kind",
        "utf-16-html",
        "<table".encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>(),
    );
    made.add("kind", "pdf", "%PDF-1.7");
}

fn add_child(made: &mut Made) {
    let frame = |kind: u8, content: &[u8]| {
        [&[kind][..], &(content.len() as u32).to_be_bytes(), content].concat()
    };
    let row = [&[0, 0, 0, 7, 0, 0, 0, 0, 2, 0, 0, 0, 1][..], b"a", &[0, 0, 0, 3], "甲".as_bytes()]
        .concat();
    let sheet = frame(1, "\u{1}名单".as_bytes());
    let all = [
        sheet.clone(),
        frame(2, &[row.clone(), row.clone()].concat()),
        frame(3, &[0]),
        frame(4, &[&[0; 9][..], b"a.csv"].concat()),
        frame(5, &[0; 8]),
        frame(6, &[8]),
        frame(7, &[]),
    ];
    made.add("child", "valid-all", all.concat());
    made.add("child", "valid-nothing", []);
    made.add("child", "cut", &sheet[..sheet.len() - 1]);
    made.add(
        "child",
        "too-long",
        frame(2, &[0; 9])[..1].iter().copied().chain([0xff; 4]).collect::<Vec<u8>>(),
    );
    made.add("child", "unknown-kind", frame(9, &[]));
    made.add("child", "unknown-fault", frame(6, &[0xff]));
    made.add("child", "left-over", frame(7, &[0]));
    made.add("child", "long-cell", frame(2, &[0, 0, 0, 7, 0, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff]));
    made.add("child", "unknown-trouble", frame(2, &[0, 0, 0, 7, 5, 0, 0, 0, 0]));
    made.add("child", "trouble-without-column", frame(2, &[0, 0, 0, 7, 3, 0, 0, 0, 0]));
    made.add("child", "many-cells", frame(2, &[0, 0, 0, 7, 0, 0, 0, 0xff, 0xff]));
    made.add("child", "not-utf-8", frame(1, &[0, 0xff]));
}

fn add_workbooks(made: &mut Made) {
    let part = |kind: u8, content: &str| [&[kind], content.as_bytes()].concat();
    let titles = ENTERPRISE_TITLES.map(str::to_owned).to_vec();
    let rows: Vec<Vec<String>> =
        [titles].into_iter().chain((0..4).map(|row| synthetic_row(1, row, "模糊"))).collect();

    let cell = |text: &String| format!("<c t=\"inlineStr\"><is><t>{text}</t></is></c>");
    let sheet = |rows: &str, behind: &str| {
        format!("<worksheet><sheetData>{rows}</sheetData>{behind}</worksheet>")
    };
    let plain = rows.iter().map(|row| row.iter().map(cell).collect::<String>());
    let plain: String = plain.map(|row| format!("<row>{row}</row>")).collect();
    let merges = "<mergeCells count=\"1\"><mergeCell ref=\"A2:A4\"/></mergeCells>";
    made.add("workbook", "valid-sheet", part(foreign::SHEET, &sheet(&plain, merges)));
    let odd = "<row r=\"7\"><c r=\"A7\" t=\"b\"><v>1</v></c><c r=\"B7\"><f>1+1</f></c>\
        <c r=\"C7\" s=\"3\"><v>43525.5</v></c><c r=\"D7\" t=\"e\"><v>#N/A</v></c></row>";
    made.add("workbook", "valid-odd-cells", part(foreign::SHEET, &sheet(&(plain + odd), "")));
    let texts = ["企业名称", "统一社会信用代码", &rows[1][0], &rows[1][1]];
    let texts: String = texts.iter().map(|text| format!("<si><t>{text}</t></si>")).collect();
    made.add("workbook", "valid-texts", part(foreign::TEXTS, &format!("<sst>{texts}</sst>")));
    let content = |rows: &str| {
        format!(
            "<office:document-content xmlns:office=\"o\" xmlns:table=\"t\" xmlns:text=\"x\"><office:body>\
             <office:spreadsheet><table:table table:name=\"a\">{rows}</table:table></office:spreadsheet>\
             </office:body></office:document-content>"
        )
    };
    let cell = |text: &String| {
        format!(
            "<table:table-cell office:value-type=\"string\"><text:p>{text}</text:p></table:table-cell>"
        )
    };
    let open: String = rows
        .iter()
        .map(|row| row.iter().map(cell).collect::<String>())
        .map(|row| {
            format!("<table:table-row table:number-rows-repeated=\"1\">{row}</table:table-row>")
        })
        .collect();
    made.add("workbook", "valid-content", part(foreign::CONTENT, &content(&open)));
    let old = harness::node::workspace().join("tests/fixtures/workbooks/enterprise.xls");
    let old = fs::read(old).unwrap();
    made.add("workbook", "valid-old", [&[foreign::OLD], old.as_slice()].concat());
    made.add("workbook", "cut-old", [&[foreign::OLD], &old[..old.len() / 2]].concat());
    made.add("workbook", "unknown-part", part(b'?', &content(&open)));
    made.add(
        "workbook",
        "cut-sheet",
        part(foreign::SHEET, "<worksheet><sheetData><row><c t=\"inlineStr\"><is>"),
    );
    let many = content(
        "<table:table-row table:number-rows-repeated=\"1000000\"><table:table-cell table:number-columns-repeated=\"16000\" office:value-type=\"float\" office:value=\"1\"/></table:table-row>",
    );
    made.add("workbook", "many-cells", part(foreign::CONTENT, &many));
    made.add("workbook", "no-end-tag", part(foreign::CONTENT, &content("<table:table-row>")));
    made.add("workbook", "nothing", []);
}

fn add_archives(made: &mut Made) {
    let csv = csv_text(&ENTERPRISE_TITLES, &[synthetic_row(1, 0, "模糊")]);
    let csv = csv.as_bytes();
    made.add("packed", "valid-zip", foreign::archive(&[("a.csv", csv), ("b/c.csv", csv)]));
    made.add("packed", "valid-zip-with-nothing", foreign::archive(&[("a.csv", b""), ("b/", b"")]));
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, csv).unwrap();
    let gzip = gzip.finish().unwrap();
    made.add("packed", "cut-gzip", &gzip[..gzip.len() - 9]);
    made.add("packed", "valid-gzip", gzip);
    let zip = foreign::archive(&[("a.csv", csv)]);
    made.add("packed", "cut-zip", &zip[..zip.len() - 9]);
    made.add("packed", "archive-within", foreign::archive(&[("a.zip", &zip)]));
    let mut twins = foreign::archive(&[("a.csv", csv), ("b.csv", csv)]);
    for at in 0..twins.len() - 5 {
        if twins[at..].starts_with(b"b.csv") {
            twins[at] = b'a';
        }
    }
    made.add("packed", "twins", twins);
    made.add("packed", "nothing", []);
}
