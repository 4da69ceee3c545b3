//! Records of `_federation` at the edges of section 11 of `protocol/SPEC.md`: where a
//! reader of JSON, of digits or of `null` could think otherwise. Each case says what the
//! page says, and both sides have to say the same.

use serde_json::{Value, json};

use super::{
    beside_federation::{alone, registry},
    beside_schemas::{altered, plain},
    change::Change,
    made::{self, key, public},
};

/// A case: what it is about, the record, and whether it is right.
type Case = (String, Change, bool);

fn of(kind: &str, id: &str, body: &str) -> Change {
    let part = (kind != "member").then_some("0000000001");
    made::record(kind, id, part, body)
}

/// A key's record in which one member is another, or left out.
fn of_key(name: &str, value: Option<Value>) -> Change {
    let public = super::beside::hex(&public(&key(2)));
    let mut body = json!({"public": public, "by": "enrolment", "at_ms": 7, "revoked": false});
    match value {
        Some(value) => body[name] = value,
        None => _ = body.as_object_mut().unwrap().remove(name),
    }
    of("key", made::COUNTY, &body.to_string())
}

fn of_schema(pointer: &str, value: &Value) -> Change {
    of("schema", "list", &altered(pointer, value).to_string())
}

fn keys() -> Vec<Case> {
    let own = super::beside::hex(&public(&key(2)));
    let digits = |count: usize| Some(json!("0a".repeat(count)));
    let partitions = |last: Value| Some(json!({"a/410122": last}));
    [
        ("public", Some(json!(own.to_uppercase())), false),
        ("countersignature", digits(64), true),
        ("countersignature", digits(63), false),
        ("countersignature", digits(1), false),
        ("countersignature", Some(json!("0A".repeat(64))), false),
        ("countersignature", Some(Value::Null), true),
        ("last", Some(Value::Null), true),
        ("last", partitions(json!(u64::MAX)), true),
        ("last", partitions(json!(-1)), false),
        ("last", partitions(Value::Null), false),
        ("last", Some(json!([["a/410122", 1]])), false),
        ("last_records", Some(json!(0)), true),
        ("last_records", Some(Value::Null), false),
        // It needs `last`.
        ("last_records", Some(json!(1)), false),
        ("at_ms", Some(json!(i64::MIN)), true),
        ("at_ms", Some(json!(i64::MAX as u64 + 1)), false),
        ("at_ms", Some(Value::Null), false),
        ("by", Some(json!({"enrolment": null})), false),
        ("revoked", None, false),
        ("revoked", Some(Value::Null), false),
    ]
    .into_iter()
    .map(|(name, value, right)| (format!("{name} {value:?}"), of_key(name, value), right))
    .collect()
}

fn authorities() -> Vec<Case> {
    [
        ("root", r#""certificate": "0a""#, true),
        ("root", r#""certificate": "0A""#, false),
        ("root", r#""certificate": """#, false),
        ("root", r#""certificate": "0a", "cross": "0a""#, true),
        ("root", r#""certificate": "0a", "cross": "0A""#, false),
        ("root", r#""certificate": "0a", "cross": """#, false),
        ("root", r#""certificate": "0a", "cross": null"#, true),
        ("root", r#""certificate": "0a", "root": null"#, true),
        ("root", r#""certificate": "0a", "root": 1"#, false),
        ("issuing", r#""certificate": "0a", "root": 1"#, true),
        ("issuing", r#""certificate": "0a", "root": 4294967295"#, true),
        ("issuing", r#""certificate": "0a", "root": 4294967296"#, false),
        ("issuing", r#""certificate": "0a", "root": 0"#, false),
        ("issuing", r#""certificate": "0a", "root": null"#, false),
        ("issuing", r#""certificate": "0a""#, false),
        ("issuing", r#""certificate": "0a", "root": 1, "cross": null"#, true),
        ("issuing", r#""certificate": "0a", "root": 1, "cross": "0a""#, false),
    ]
    .into_iter()
    .map(|(id, body, right)| {
        let change = of("ca", id, &format!("{{{body}, \"state\": \"next\"}}"));
        (format!("{id} {body}"), change, right)
    })
    .collect()
}

fn schemas() -> Vec<Case> {
    let values = |values: &[&str], nulls: &[&str]| {
        let mut schema = altered("/field/1/values", &json!(values));
        schema["null_texts"] = json!(nulls);
        of("schema", "list", &schema.to_string())
    };
    let hidden = format!("-{}", "\u{200b}".repeat(40));
    let mut cases = vec![
        ("a value with what nobody sees".to_owned(), values(&[&hidden], &["-"]), false),
        ("a null text with what nobody sees".to_owned(), values(&["-"], &[&hidden]), false),
        ("a list".to_owned(), of("schema", "list", &json!([plain()]).to_string()), false),
    ];
    let null = || Value::Null;
    let members = [
        ("/field/0/date_order", json!("ymd"), false),
        ("/field/0/open_end", json!(false), false),
        ("/field/1/open_end", json!(false), true),
        ("/field/1/date_order", json!({"ymd": null}), false),
        ("/field/1/type", json!({"date": null}), false),
        ("/field/1/dates", json!([1900, 2100]), false),
        ("/dates", json!([1900, 2100]), false),
        ("/dates", json!({"from": 2000, "to": 2000}), true),
        ("/dates", json!({"from": 2001, "to": 2000}), false),
        ("/field", json!([["a", "a", "a", [], "code", true]]), false),
        ("/field/1/null_texts", json!(["\u{200b}"]), false),
        ("/null_texts", json!(["\u{feff} "]), false),
        ("/field/1/length_max", json!(u32::MAX), true),
        ("/field/1/length_max", json!(u64::from(u32::MAX) + 1), false),
        ("/key", json!(["a", "a"]), false),
        ("/ignore", json!(["c", "c:"]), false),
        ("/source", json!(""), true),
        // What `null` may stand for.
        ("/dates", null(), true),
        ("/field/1/dates", null(), true),
        ("/field/0/dates", null(), true),
        ("/field/1/length_max", null(), true),
        ("/field/1/scale_max", null(), true),
        ("/field/1/null_texts", null(), true),
        ("/source", null(), false),
        ("/null_texts", null(), false),
        ("/ignore", null(), false),
        ("/field/1/aliases", null(), false),
        ("/field/1/values", null(), false),
        ("/field/1/date_order", null(), false),
        ("/field/1/open_end", null(), false),
        ("/field/1/required", null(), false),
        ("/field/1/personal", null(), false),
        ("/field/1/strict", null(), false),
        ("/field/1/legacy_codes", null(), false),
    ];
    cases.extend(members.into_iter().map(|(pointer, value, right)| {
        (format!("{pointer} {value}"), of_schema(pointer, &value), right)
    }));
    cases
}

/// Bodies of a member with something more, or of another form.
fn json_texts() -> Vec<Case> {
    let with = |more: &str| format!("{{\"name\": \"x\", \"role\": \"hub\"{more}}}");
    let deep = |depth: usize| {
        let (open, close) = ("[".repeat(depth), "]".repeat(depth));
        with(&format!(", \"other\": {open}{close}"))
    };
    let other = |value: &str| with(&format!(", \"other\": {value}"));
    [
        (with(""), true),
        (with(", \"certificates_from\": null"), true),
        (with(", \"certificates_from\": -1"), true),
        (with(", \"certificates_from\": -0"), false),
        (with(", \"certificates_from\": 1.0"), false),
        (with(", \"certificates_from\": 1e1"), false),
        (with(", \"removed\": null"), false),
        (format!("\u{feff}{}", with("")), false),
        ("[\"x\", \"hub\"]".to_owned(), false),
        ("[\"x\", \"hub\", false, null]".to_owned(), false),
        // The body itself is one more.
        (deep(126), true),
        (deep(127), false),
        (other("\"\\ud83d\\ude00\""), true),
        (other("\"\\ud83d\""), false),
        (other("\"\\ude00\\ud83d\""), false),
        (other("{\"a\": 1, \"\\u0061\": 2}"), false),
        (other("1.7976931348623157e308"), true),
        (other("1.7976931348623158e308"), true),
        (other("1.7976931348623159e308"), false),
        (other("-1e999"), false),
        (other("1e-999"), true),
        (other("0e999"), true),
        (other(&format!("1{}", "0".repeat(308))), true),
        (other(&format!("1{}", "0".repeat(309))), false),
        (other(&format!("1{}e-400", "0".repeat(400))), true),
        (other(&format!("0.{}1e501", "0".repeat(500))), true),
    ]
    .into_iter()
    .map(|(body, right)| {
        let what = body.chars().take(80).collect();
        (what, of("member", made::COUNTY, &body), right)
    })
    .collect()
}

#[test]
fn the_page_and_the_program_agree() {
    let mut different = Vec::new();
    for (what, change, right) in [keys(), authorities(), schemas(), json_texts()].concat() {
        let Change::Put { key, record } = change else { unreachable!("a record is put") };
        let own = alone(&key, &record);
        let program = registry().insert(&key, &record);
        if [own.is_ok(), program.is_ok()] != [right; 2] {
            different.push(format!("{what}: {own:?}, program {program:?}"));
        }
    }
    assert!(different.is_empty(), "{different:#?}");
}
