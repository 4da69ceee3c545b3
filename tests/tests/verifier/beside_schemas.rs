//! Which schemas are malformed, and which count of all together: the verifier and the
//! program have to say the same.
//!
//! `FUZZ_SEED` and `FUZZ_ROUNDS` choose other schemas, and more of them.

use harness::sim::rng::Rng;
use serde_json::{Value, json};

use super::{
    beside,
    beside_federation::{Compared, registry},
    beside_json::Node,
    change::Change,
    entries,
    federation::Records,
    layout::{
        DATASET_VERSIONS_MAX, DATASETS_MAX, FEDERATION_BODY_BYTES_MAX, FIELD_TYPES,
        SCHEMA_BYTES_MAX,
    },
    made::{self, FEDERATION},
    tree::State,
};

/// Schemas, unless `FUZZ_ROUNDS` says otherwise.
const ROUNDS: u64 = 20_000;

/// Labels, some of which fold to the same.
const LABELS: [&str; 14] = [
    "name",
    "NAME",
    "ｎａｍｅ",
    "*name",
    "name：",
    "name(必填)",
    "名称",
    "名 称",
    "Straße",
    "STRASSE",
    "ǆ",
    "Ǆ",
    "İ",
    "code",
];

/// A label that no other place has but for a few.
fn label(rng: &mut Rng, place: usize) -> String {
    let label = LABELS[rng.index(LABELS.len())];
    if rng.chance(3) { label.to_owned() } else { format!("{place}{label}") }
}

fn some<'a>(rng: &mut Rng, of: &[&'a str]) -> Vec<&'a str> {
    (0..rng.index(4)).map(|_| of[rng.index(of.len())]).collect()
}

fn years(rng: &mut Rng) -> Value {
    let (from, to) = ([1, 1900, 2100][rng.index(3)], [2100, 9999][rng.index(2)]);
    json!({"from": from, "to": to})
}

/// The members that a field may leave out, each there in a third of the cases.
fn optional(rng: &mut Rng, place: usize, kind: &str) -> Vec<(&'static str, Value)> {
    let aliases: Vec<String> = (0..rng.index(3)).map(|_| label(rng, place)).collect();
    let mut all = vec![
        ("aliases", json!(aliases)),
        ("required", json!(rng.chance(50))),
        ("personal", json!(rng.chance(50))),
        ("length_max", json!([1, 18, 4_000_000_000_u32][rng.index(3)])),
        ("values", json!(some(rng, &["a", "b", "甲", " c", "c"]))),
        ("strict", json!(rng.chance(50))),
        ("legacy_codes", json!(kind == "uscc" && rng.chance(50))),
        ("null_texts", json!(some(rng, &["-", "无", "n/a", "N/A"]))),
    ];
    if kind == "decimal" || rng.chance(3) {
        all.push(("scale_max", json!(rng.index(39))));
    }
    if kind == "date" || rng.chance(3) {
        all.push(("date_order", json!(["ymd", "dmy", "mdy"][rng.index(3)])));
        all.push((
            "open_end",
            [json!(true), json!(false), json!("9998-02-28")][rng.index(3)].clone(),
        ));
        all.push(("dates", years(rng)));
    }
    all.retain(|_| rng.chance(33));
    all
}

fn field(rng: &mut Rng, place: usize) -> Value {
    let kind = FIELD_TYPES[rng.index(FIELD_TYPES.len())];
    let mut field = json!({
        "name": format!("field_{place}"), "title_zh": label(rng, place), "title_en": label(rng, place),
        "type": kind,
    });
    for (name, value) in optional(rng, place, kind) {
        field[name] = value;
    }
    // The first one is the first of the key.
    if place == 0 {
        field["required"] = json!(true);
    }
    field
}

/// A schema of version 1 that is right in most cases.
fn schema(rng: &mut Rng) -> Value {
    let count = 1 + rng.index(4);
    let fields: Vec<Value> = (0..count).map(|place| field(rng, place)).collect();
    let key: Vec<&Value> =
        fields[..1 + rng.index(count)].iter().map(|field| &field["name"]).collect();
    let mut schema = json!({
        "dataset": "list", "version": 1, "title_zh": "名录", "title_en": "List", "key": key,
        "field": fields,
    });
    for (name, value) in [
        ("source", json!("GB 32100-2015")),
        ("null_texts", json!(some(rng, &["-", "NULL", "无", "x"]))),
        ("ignore", json!(some(rng, &["序号", "No.", "*", "备注"]))),
        ("dates", years(rng)),
    ] {
        if rng.chance(25) {
            schema[name] = value;
        }
    }
    schema
}

#[test]
fn both_refuse_the_same_schemas() {
    let (seed, rounds) = (beside::setting("FUZZ_SEED", 1), beside::setting("FUZZ_ROUNDS", ROUNDS));
    println!("seed {seed}");
    let mut rng = Rng::new(seed);
    let mut compared = Compared::default();
    for _ in 0..rounds {
        let mut body = Node::of(&schema(&mut rng));
        for _ in 0..rng.below(3) {
            body.alter(&mut rng);
        }
        let id =
            if rng.chance(98) { "list" } else { ["List", "list2", "_federation"][rng.index(3)] };
        let parts = [None, Some("0000000002"), Some("1"), Some("0000000001 "), Some("4294967297")];
        let part = if rng.chance(98) { Some("0000000001") } else { parts[rng.index(parts.len())] };
        compared.record(&made::record("schema", id, part, &body.to_string()));
    }
    compared.finish();
}

/// A schema of two fields, as a table of cases alters it.
pub fn plain() -> Value {
    json!({
        "dataset": "list", "version": 1, "title_zh": "x", "title_en": "x", "key": ["a"],
        "field": [
            {"name": "a", "title_zh": "a", "title_en": "a", "type": "code", "required": true},
            {"name": "b", "title_zh": "b", "title_en": "b", "type": "date"},
        ],
    })
}

/// So many fields, of which so many are in the key.
fn of_fields(count: usize, in_key: usize) -> Value {
    let mut schema = plain();
    let field = |place: usize| {
        let name = format!("f{place}");
        json!({"name": name, "title_zh": name, "title_en": name, "type": "text", "required": true})
    };
    schema["field"] = (0..count).map(field).collect();
    schema["key"] = (0..in_key).map(|place| format!("f{place}")).collect();
    schema
}

/// So many names, titles and aliases in all.
fn of_labels(count: usize) -> Value {
    let mut schema = plain();
    let aliases = count - 6;
    schema["field"][1]["aliases"] = (0..aliases).map(|place| format!("b{place}")).collect();
    schema
}

fn texts(count: usize) -> Value {
    (0..count).map(|place| format!("x{place}")).collect()
}

/// What is altered in the plain schema: where, to what, and whether it stays right.
fn cases() -> Vec<(&'static str, Value, bool)> {
    let long = |bytes: usize| json!("x".repeat(bytes));
    let listed = |bytes: usize| json!(["x".repeat(bytes)]);
    vec![
        ("/title_zh", long(1024), true),
        ("/title_zh", long(1025), false),
        ("/title_zh", long(0), true),
        ("/title_zh", json!("a\u{200b}"), false),
        ("/source", long(1024), true),
        ("/source", long(1025), false),
        ("/ignore", texts(64), true),
        ("/ignore", texts(65), false),
        ("/ignore", listed(256), true),
        ("/ignore", listed(257), false),
        ("/ignore", json!(["A"]), false),
        ("/ignore", json!(["c", "C"]), false),
        ("/ignore", json!(["c", "d", "*"]), false),
        ("/ignore", json!(["c\u{200b}"]), false),
        ("/null_texts", texts(64), true),
        ("/null_texts", texts(65), false),
        ("/null_texts", listed(257), false),
        ("/null_texts", json!([" \t"]), false),
        ("/null_texts", json!(["x\u{200b}\t"]), true),
        ("/dates", json!({"from": 1, "to": 9999}), true),
        ("/dates", json!({"from": 0, "to": 9999}), false),
        ("/dates", json!({"from": 1, "to": 10000}), false),
        ("/dates", json!({"from": 2, "to": 1}), false),
        ("/dates", json!({"from": 1}), false),
        ("/dates", json!({"from": 1, "to": 2, "of": 3}), false),
        ("/version", json!(2), false),
        ("/dataset", json!("list2"), false),
        ("/key", json!([]), false),
        ("/key", json!(["b"]), false),
        ("/key", json!(["a", "b"]), true),
        ("/key", json!(["a", "c"]), false),
        ("/key", json!(["A"]), false),
        ("/field", json!([]), false),
        ("/field/1/name", long(63), true),
        ("/field/1/name", long(64), false),
        ("/field/1/name", json!("b-c"), false),
        ("/field/1/name", json!("A"), false),
        ("/field/1/title_zh", json!("Ａ"), false),
        ("/field/1/title_zh", json!("*:"), false),
        ("/field/1/title_zh", long(256), true),
        ("/field/1/title_zh", long(257), false),
        ("/field/1/title_zh", json!("县".repeat(86)), false),
        ("/field/1/title_zh", json!("b\u{85}"), false),
        ("/field/1/title_zh", json!("b\u{2029}"), false),
        ("/field/1/aliases", json!(["b", "B"]), true),
        ("/field/1/aliases", json!(["a*"]), false),
        ("/field/1/type", json!("Date"), false),
        ("/field/1/values", texts(4096), true),
        ("/field/1/values", texts(4097), false),
        ("/field/1/values", listed(256), true),
        ("/field/1/values", listed(257), false),
        ("/field/1/values", listed(0), false),
        ("/field/1/values", json!(["\u{200b}\n"]), true),
        ("/field/1/null_texts", texts(65), false),
        ("/field/1/scale_max", json!(0), false),
        ("/field/1/legacy_codes", json!(true), false),
        ("/field/1/legacy_codes", json!(false), true),
        ("/field/1/required", Value::Null, false),
        ("/field/1/date_order", json!("dmy"), true),
        ("/field/0/date_order", json!("dmy"), false),
        ("/field/1/open_end", json!("2024-02-29"), true),
        ("/field/1/open_end", json!("2023-02-29"), false),
        ("/field/1/open_end", json!("2023-2-09"), false),
        ("/field/1/open_end", json!(false), true),
        ("/field/0/open_end", json!(true), false),
        ("/field/0/dates", json!({"from": 1, "to": 2}), false),
        ("/field/1/other", json!(1), false),
        ("/other", json!(1), false),
    ]
}

/// The plain schema with another value at a JSON pointer.
pub fn altered(pointer: &str, value: &Value) -> Value {
    let mut schema = plain();
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    schema.pointer_mut(parent).unwrap()[name] = value.clone();
    schema
}

#[test]
fn both_keep_to_the_bounds_of_a_schema() {
    let mut all: Vec<(String, Value, bool)> = cases()
        .into_iter()
        .map(|(at, value, right)| (format!("{at} {value}"), altered(at, &value), right))
        .collect();
    for (count, in_key, right) in
        [(128, 1, true), (129, 1, false), (8, 8, true), (9, 9, false), (1, 1, true)]
    {
        all.push((format!("{count} fields, {in_key} in the key"), of_fields(count, in_key), right));
    }
    for (value, no_value, right) in [
        ("a", "b", true),
        ("a", "a", false),
        ("A", "a", false),
        ("a", " Ａ ", false),
        ("a\u{ad}", "a", false),
        ("é", "É", true),
    ] {
        for owner in ["", "/field/1"] {
            let mut schema = altered("/field/1/values", &json!([value]));
            schema.pointer_mut(owner).unwrap()["null_texts"] = json!([no_value]);
            all.push((format!("{value:?} with {no_value:?} of {owner:?}"), schema, right));
        }
    }
    // A field's own list stands in the place of the dataset's.
    let mut own = altered("/field/1/null_texts", &json!([]));
    own["null_texts"] = json!(["a"]);
    own["field"][1]["values"] = json!(["a"]);
    all.push(("null texts of its own".to_owned(), own, true));
    all.push(("4096 labels".to_owned(), of_labels(4096), true));
    all.push(("4097 labels".to_owned(), of_labels(4097), false));
    let mut different = Vec::new();
    for (what, body, right) in all {
        let change = made::record("schema", "list", Some("0000000001"), &body.to_string());
        let Change::Put { key, record } = change else { unreachable!("a record is put") };
        let own = entries::read(&key, &record).map(|_| ());
        let program = registry().insert(&key, &record);
        if [own.is_ok(), program.is_ok()] != [right; 2] {
            let what: String = what.chars().take(60).collect();
            different.push(format!("{what}: {own:?}, program {program:?}"));
        }
    }
    assert!(different.is_empty(), "{different:#?}");
}

/// A schema's record, its body so many bytes long.
fn record(dataset: &str, version: usize, bytes: usize) -> (Vec<u8>, Vec<u8>) {
    let mut body = plain();
    body["dataset"] = json!(dataset);
    body["version"] = json!(version);
    let body = body.to_string();
    // White space between values is JSON as well.
    let spaces = bytes.saturating_sub(body.len());
    let body = format!("{}{}}}", &body[..body.len() - 1], " ".repeat(spaces));
    let change = made::record("schema", dataset, Some(&format!("{version:010}")), &body);
    let Change::Put { key, record } = change else { unreachable!("a record is put") };
    (key, record)
}

/// The schemas that count for the verifier; the program has to have the same.
#[track_caller]
fn counting(state: &State) -> Vec<(String, u32)> {
    let mut registry = registry();
    for (key, record) in state {
        // One that does not count may be answered so or so.
        let _ = registry.insert(key, record);
    }
    let own: Vec<(String, u32)> = Records::of(FEDERATION, state).schemas.into_keys().collect();
    let all = state.keys().map(|key| super::record::decode_key(key).unwrap());
    let has = |(dataset, version): &(String, u32)| {
        registry.schema_version(&dataset.parse().unwrap(), *version).is_some()
    };
    let named = all.map(|key| {
        (
            super::record::canonical_text(&key[1]),
            super::record::canonical_text(&key[2]).parse().unwrap(),
        )
    });
    let program: Vec<(String, u32)> = named.filter(has).collect();
    assert_eq!(own, program);
    own
}

#[test]
fn both_count_as_many_datasets_and_versions_as_there_may_be() {
    let mut state: State =
        (0..DATASETS_MAX + 3).map(|n| record(&format!("d{n:03}"), 1, 0)).collect();
    assert_eq!(counting(&state).len(), DATASETS_MAX);
    // A second version of one that counts is no further dataset.
    state.extend([record("d255", 2, 0), record("d256", 2, 0)]);
    assert_eq!(counting(&state).len(), DATASETS_MAX + 1);
    // One that comes before the others takes the place of the last one.
    state.extend([record("a", 1, 0)]);
    let counted = counting(&state);
    assert_eq!(counted.len(), DATASETS_MAX);
    assert!(counted.iter().all(|(name, _)| name != "d255"));
    let state: State = (1..DATASET_VERSIONS_MAX + 4).map(|n| record("list", n * 7, 0)).collect();
    assert_eq!(counting(&state).len(), DATASET_VERSIONS_MAX);
}

#[test]
fn both_count_as_many_bytes_as_there_may_be() {
    let large = FEDERATION_BODY_BYTES_MAX;
    let whole = SCHEMA_BYTES_MAX / large;
    let rest = SCHEMA_BYTES_MAX - whole * large;
    let of = |bytes: &dyn Fn(usize) -> usize| -> State {
        (0..=whole).map(|n| record(&format!("d{n:03}"), 1, bytes(n))).collect()
    };
    let exact = of(&|n| if n == 7 { rest } else { large });
    assert_eq!(counting(&exact).len(), whole + 1);
    let over = of(&|n| if n == 7 { rest + 1 } else { large });
    assert_eq!(counting(&over).len(), whole);
    // What has no room leaves it to what comes behind it and is smaller.
    let mut smaller = over;
    smaller.extend([record("e", 1, large - 1), record("f", 1, 0)]);
    let counted = counting(&smaller);
    assert_eq!(counted.last(), Some(&("e".to_owned(), 1)));
    assert_eq!(counted.len(), whole + 1);
}
