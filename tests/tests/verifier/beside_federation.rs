//! Which records of `_federation` are malformed: the verifier and the program have to
//! say the same of each. Schemas are in [`super::beside_schemas`].
//!
//! `FUZZ_SEED` and `FUZZ_ROUNDS` choose other records, and more of them.

use std::collections::BTreeMap;

use harness::sim::rng::Rng;
use protocol::{
    federation::{Anchored, Registry},
    suite::Suite,
};
use serde_json::{Value, json};

use super::{
    Checked, beside,
    beside_json::Node,
    change::Change,
    ensure,
    entries::{self, Entry},
    federation::Records,
    made::{self, FEDERATION, HUB, key, public},
};

/// Records, unless `FUZZ_ROUNDS` says otherwise.
const ROUNDS: u64 = 20_000;

pub fn registry() -> Registry {
    Registry::new(Anchored {
        federation: FEDERATION.parse().unwrap(),
        hub: HUB.parse().unwrap(),
        hub_key: Suite::One.public_key(&public(&key(1))).unwrap(),
        base: None,
        earlier: vec![],
    })
}

fn pick<'a>(rng: &mut Rng, right: &[&'a str], wrong: &[&'a str]) -> &'a str {
    let of = if rng.chance(92) { right } else { wrong };
    of[rng.index(of.len())]
}

/// An object with these members, and now and then one of them twice or left out.
fn object(rng: &mut Rng, members: &[(&str, &[&str], &[&str])]) -> String {
    let mut parts = Vec::new();
    for (name, right, wrong) in members {
        let times = match rng.below(100) {
            0..4 => 0,
            4..8 => 2,
            _ => 1,
        };
        for _ in 0..times {
            parts.push(format!("\"{name}\": {}", pick(rng, right, wrong)));
        }
    }
    if rng.chance(10) {
        parts.push("\"another\": {\"a\": 1, \"b\": [2.5]}".to_owned());
    }
    let text = format!("{{{}}}", parts.join(", "));
    match rng.below(200) {
        0 => format!("{text} "),
        1 => format!("{text},"),
        2 => format!("[{text}]"),
        3 => text[1..].to_owned(),
        _ => text,
    }
}

const NUMBERS: &[&str] = &["0", "7", "1700000000"];
const NO_INTEGERS: &[&str] = &[
    "null",
    "-1",
    "1.0",
    "1e3",
    "-0",
    "\"1\"",
    "9223372036854775808",
    "18446744073709551616",
    "[]",
];
const TEXTS: &[&str] = &["\"x\"", "\"\"", "\"\\u53bf\"", "\"\\ud83d\\ude00\""];
const NO_TEXTS: &[&str] = &["null", "1", "[\"x\"]", "\"\\ud83d\"", "true"];

/// Parts of keys, of which most kinds have another form.
const PARTS: [&str; 12] = [
    "0000000001",
    "0000000000",
    "4294967295",
    "4294967296",
    "9999999999",
    "00000000001",
    "000000001",
    "1",
    "0000000001-0000000001",
    "0000000001-0000000128",
    "-000000001",
    "0a",
];

fn record(rng: &mut Rng) -> Change {
    let id = pick(rng, &["410122", "a-b", "-"], &["A", "a_b", "\u{3000}", "a/b", "_federation"]);
    match rng.below(4) {
        3 => address(rng),
        0 => {
            let roles: &[&str] = &["\"hub\"", "\"member\""];
            let no_roles: &[&str] = &["\"Hub\"", "null", "1"];
            let body = object(
                rng,
                &[
                    ("name", TEXTS, NO_TEXTS),
                    ("role", roles, no_roles),
                    ("removed", &["true", "false"], &["null", "0", "\"false\""]),
                    ("certificates_from", &["null", "0", "1700000000"], NO_INTEGERS),
                ],
            );
            let part = rng.chance(4).then_some("0000000001");
            made::record("member", id, part, &body)
        }
        1 => {
            let body = object(rng, &[("at_ms", NUMBERS, NO_INTEGERS), ("reason", TEXTS, NO_TEXTS)]);
            let part = ["", "0a", "7f01"][rng.index(3)];
            made::record("revocation", id, Some(part).filter(|part| !part.is_empty()), &body)
        }
        _ => {
            let body = object(
                rng,
                &[("a/410122", NUMBERS, NO_INTEGERS), ("b/410122", NUMBERS, NO_INTEGERS)],
            );
            let part = pick(
                rng,
                &["0000000001-0000000001", "0000000009-0000000127"],
                &[
                    "0000000000-0000000001",
                    "0000000001-0000000000",
                    "1-1",
                    "0000000001",
                    "+000000001-0000000001",
                ],
            );
            made::record("last", id, Some(part), &body)
        }
    }
}

/// Where the hub is dialled.
fn address(rng: &mut Rng) -> Change {
    let hosts = ["a", "credit.example.org", "192.0.2.1", "[2001:db8::1]", "[::ffff:192.0.2.1]"];
    let no_hosts = [
        "",
        "a b",
        "中心",
        "0.0.0.0",
        "[::]",
        "[::ffff:0.0.0.0]",
        "1.2.3",
        "01.2.3.4",
        "2001:db8::1",
        "[fe80::1%1]",
        "[192.0.2.1]",
        "[2001:db8::1",
        "http://a",
        "256.1.1.1",
        "...",
        "-",
    ];
    let (longest, longer) = ("a".repeat(253), "a".repeat(254));
    let ports = ["1", "7443", "65535"];
    let no_ports = ["", "0", "01", "65536", "+1", "1 ", "１", "100000"];
    let one = |rng: &mut Rng| {
        let host = match rng.below(40) {
            0 => &longest,
            1 => &longer,
            _ => pick(rng, &hosts, &no_hosts),
        };
        let colon = pick(rng, &[":"], &["", "::", " "]);
        format!("\"{host}{colon}{}\"", pick(rng, &ports, &no_ports))
    };
    let count = if rng.chance(90) { 1 + rng.below(2) } else { rng.below(12) };
    let mut list: Vec<String> = (0..count).map(|_| one(rng)).collect();
    if rng.chance(3) {
        list.push("1".to_owned());
    }
    let list = format!("[{}]", list.join(", "));
    let no_lists = &["null", "\"a:1\"", "{}", "[[]]"];
    let body = object(rng, &[("addresses", &[&list], no_lists), ("since", NUMBERS, NO_INTEGERS)]);
    let id = pick(rng, &[HUB], &["410122", "A", "-"]);
    let part = rng.chance(3).then_some("0000000001");
    made::record("address", id, part, &body)
}

/// Whether a record counts where there is no other one.
pub fn alone(key: &[u8], record: &[u8]) -> Checked<()> {
    let (node, entry) = entries::read(key, record)?;
    match entry {
        Entry::Key(_) => {}
        Entry::Address => return ensure(node == HUB, "only the hub is dialled"),
        _ => return Ok(()),
    }
    let state = [(key.to_vec(), record.to_vec())].into();
    let records = Records::of(FEDERATION, &state);
    ensure(!records.keys[&node].is_empty(), "a key that needs other records")
}

/// What both said of some records.
#[derive(Default)]
pub struct Compared {
    well: u64,
    malformed: u64,
    /// One case of each kind is enough.
    different: BTreeMap<String, String>,
}

impl Compared {
    pub fn record(&mut self, change: &Change) {
        let Change::Put { key, record } = change else { unreachable!("all are put") };
        let own = alone(key, record);
        let program = registry().insert(key, record);
        if own.is_ok() != program.is_ok() {
            let what = format!("{own:?}, program {program:?}");
            let record = String::from_utf8_lossy(record).replace(char::is_control, " ");
            self.different.entry(what).or_insert(record);
        }
        *(if own.is_ok() { &mut self.well } else { &mut self.malformed }) += 1;
    }

    /// Nothing may differ, and a fifth at least has to be of either kind.
    #[track_caller]
    pub fn finish(self) {
        let Self { well, malformed, different } = self;
        println!("{well} well-formed, {malformed} malformed");
        assert!(different.is_empty(), "{} {different:#?}", different.len());
        let fifth = (well + malformed) / 5;
        assert!(well > fifth && malformed > fifth, "{well} well-formed, {malformed} malformed");
    }
}

#[test]
fn both_refuse_the_same_records_of_the_federation() {
    let (seed, rounds) = (beside::setting("FUZZ_SEED", 1), beside::setting("FUZZ_ROUNDS", ROUNDS));
    println!("seed {seed}");
    let mut rng = Rng::new(seed);
    let mut compared = Compared::default();
    for _ in 0..rounds {
        compared.record(&record(&mut rng));
    }
    compared.finish();
}

/// A right record of each kind but `schema`: kind, id, part and body.
fn right(rng: &mut Rng) -> (&'static str, &'static str, Option<&'static str>, Value) {
    let public = beside::hex(&public(&key(2)));
    match rng.below(7) {
        6 => (
            "address",
            HUB,
            None,
            json!({"addresses": ["credit.example.org:7443", "[2001:db8::1]:1"], "since": 7}),
        ),
        0 => (
            "member",
            "410122",
            None,
            json!({
                "name": "县", "role": "member", "removed": true, "certificates_from": 1_700_000_000,
            }),
        ),
        1 => ("revocation", "410122", Some("0a7f"), json!({"at_ms": 7, "reason": "x"})),
        2 => {
            ("last", "410122", Some("0000000001-0000000127"), json!({"a/410122": 7, "b/410122": 0}))
        }
        3 => (
            "key",
            "410122",
            Some("0000000001"),
            json!({
                "public": public, "by": "enrolment", "countersignature": "0a".repeat(64), "at_ms": 7,
                "last": {"a/410122": 7}, "last_records": 0, "revoked": false,
            }),
        ),
        4 => (
            "ca",
            "root",
            Some("0000000002"),
            json!({
                "certificate": "3000", "cross": "3001", "state": "active",
            }),
        ),
        _ => (
            "ca",
            "issuing",
            Some("0000000001"),
            json!({
                "certificate": "3000", "root": 1, "state": "next",
            }),
        ),
    }
}

#[test]
fn both_refuse_the_same_altered_records_of_the_federation() {
    let (seed, rounds) = (beside::setting("FUZZ_SEED", 1), beside::setting("FUZZ_ROUNDS", ROUNDS));
    println!("seed {seed}");
    let mut rng = Rng::new(seed);
    let mut compared = Compared::default();
    for _ in 0..rounds {
        let (kind, id, part, body) = right(&mut rng);
        let mut body = Node::of(&body);
        for _ in 0..rng.below(3) {
            body.alter(&mut rng);
        }
        let id = pick(&mut rng, &[id], &["root", "issuing", "410122", HUB, "Root", "a_b"]);
        let part = match rng.below(100) {
            0 => None,
            1..8 => Some(PARTS[rng.index(PARTS.len())]),
            _ => part,
        };
        compared.record(&made::record(kind, id, part, &body.to_string()));
    }
    compared.finish();
}

#[test]
fn both_refuse_these_records_of_the_federation() {
    let mut taken = Vec::new();
    for (kind, part, body) in [
        ("member", None, r#"{"name": "x", "role": {"hub": null}}"#),
        ("revocation", None, r#"{"at_ms": 0}"#),
        ("revocation", Some("0A"), r#"{"at_ms": 0, "reason": "0A"}"#),
        ("revocation", Some("a"), r#"{"at_ms": 0, "reason": "a"}"#),
        ("revocation", Some("g0"), r#"{"at_ms": 0, "reason": "g0"}"#),
        ("last", Some("0000000001-0000000001"), r#"{"a/410122": 1, "a/410122": 2}"#),
    ] {
        let Change::Put { key, record } = made::record(kind, "410122", part, body) else {
            unreachable!("a record is put")
        };
        assert!(entries::read(&key, &record).is_err(), "{body}");
        taken.extend(registry().insert(&key, &record).is_ok().then_some(body));
    }
    assert!(taken.is_empty(), "{taken:?}");
}
