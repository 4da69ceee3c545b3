//! What the verifier and the program refuse of a record: of the same record under
//! the same schema both have to say the same.
//!
//! `FUZZ_SEED` and `FUZZ_ROUNDS` choose other records, and more of them.

use harness::sim::rng::Rng;
use protocol::{judge::judge, schema};
use serde_json::{Value as Json, json};

use super::{
    Checked, beside,
    record::{self, Value},
    schema::Schema,
};

/// Records, unless `FUZZ_ROUNDS` says otherwise.
const ROUNDS: u64 = 20_000;
/// All but `uscc`, of which few texts are one: see the last test.
const TYPES: [&str; 5] = ["text", "code", "integer", "decimal", "date"];

/// One schema as each side reads it.
struct Both {
    own: Schema,
    program: schema::Schema,
    types: Vec<&'static str>,
    key: Vec<usize>,
}

impl Both {
    /// Fields of these types, of which some are required; the key's fields by place.
    fn new(fields: &[(&'static str, bool)], key: &[usize]) -> Self {
        let name = |place: usize| format!("field_{place}");
        let field = |(place, (kind, required)): (usize, &(&str, bool))| {
            json!({
                "name": name(place), "title_zh": format!("z{place}"), "title_en": format!("e{place}"),
                "type": kind, "required": required,
            })
        };
        let body: Json = json!({
            "dataset": "list", "version": 1, "title_zh": "x", "title_en": "x",
            "key": key.iter().map(|place| name(*place)).collect::<Vec<_>>(),
            "field": fields.iter().enumerate().map(field).collect::<Vec<_>>(),
        });
        let own = super::json::Json::read(&body.to_string()).unwrap();
        let raw = serde_json::from_value(body).unwrap();
        Self {
            own: Schema::read(&own).unwrap(),
            program: schema::Schema::check(raw).unwrap(),
            types: fields.iter().map(|(kind, _)| *kind).collect(),
            key: key.to_vec(),
        }
    }

    fn verifier(&self, key: &[u8], bytes: &[u8]) -> Checked<()> {
        let (_, values) = record::decode(bytes)?;
        self.own.check(key, &values)
    }

    fn program(&self, key: &[u8], bytes: &[u8]) -> bool {
        judge(&self.program, key, bytes).is_ok()
    }

    /// The key that values give, as far as they are there.
    fn key_of(&self, values: &[Value]) -> Vec<u8> {
        let own = self.key.iter().map(|place| values.get(*place).cloned().unwrap_or(Value::Null));
        record::encode_key(&own.collect::<Vec<_>>())
    }
}

/// A value as fields of this type have it, with characters that somebody may refuse.
fn value(rng: &mut Rng, kind: &str) -> Value {
    const PIECES: [&str; 14] = [
        "a",
        "县",
        "\0",
        "\t",
        "\r\n",
        "\u{1b}",
        "\u{7f}",
        "\u{85}",
        " ",
        "\u{3000}",
        "\u{200b}",
        "\u{2028}",
        "\u{e0041}",
        "\u{1bca0}",
    ];
    match kind {
        "integer" => Value::Integer(rng.u64().cast_signed() >> rng.below(64)),
        "decimal" => Value::Decimal(["0", "-1", "0.5", "15800.5"][rng.index(4)].to_owned()),
        "date" => {
            let (year, month) = (1 + rng.index(9999), 1 + rng.index(12));
            let (year, month) = (u16::try_from(year).unwrap(), u8::try_from(month).unwrap());
            Value::Date { year, month, day: u8::try_from(1 + rng.index(28)).unwrap() }
        }
        _ => {
            // Of a `code` too.
            // Mostly such as nobody refuses, so that other faults are met alone.
            let choice = if rng.chance(90) { 2 } else { PIECES.len() };
            let pieces = (0..=rng.below(3)).map(|_| PIECES[rng.index(choice)]);
            let is_apart = |piece: &&str| kind != "code" || !piece.contains(['\t', '\r', '\n']);
            let text: String = pieces.filter(is_apart).collect();
            if text.is_empty() { Value::Null } else { Value::Text(text) }
        }
    }
}

/// A record of a schema, wrong in one way now and then.
fn record_of(rng: &mut Rng, both: &Both) -> (Vec<u8>, Vec<u8>) {
    let mut values: Vec<Value> = both.types.iter().map(|kind| value(rng, kind)).collect();
    let place = rng.index(values.len());
    let other = TYPES[2 + rng.index(3)];
    let mut key = None;
    match rng.below(10) {
        0 => values[place] = Value::Null,
        1 => values[place] = value(rng, other),
        2 => values.truncate(place),
        3 => values.push(Value::Null),
        4 => key = Some(both.key_of(&[value(rng, "text")])),
        5 => key = Some([&both.key_of(&values)[..], &[0]].concat()),
        _ => {}
    }
    let key = key.unwrap_or_else(|| both.key_of(&values));
    let mut bytes = record::encode(1, &values);
    if rng.chance(5) {
        let at = rng.index(bytes.len());
        bytes[at] ^= 1 << rng.below(8);
    }
    // The version is the business of who looks for the schema.
    bytes[..4].copy_from_slice(&[0, 0, 0, 1]);
    (key, bytes)
}

#[test]
fn both_refuse_the_same_records() {
    let (seed, rounds) = (beside::setting("FUZZ_SEED", 1), beside::setting("FUZZ_ROUNDS", ROUNDS));
    println!("seed {seed}");
    let mut rng = Rng::new(seed);
    let all = TYPES.map(|kind| (kind, false));
    let required = TYPES.map(|kind| (kind, true));
    let schemas = [
        Both::new(&[("code", true)], &[0]),
        Both::new(&[("text", false), ("code", true), ("date", false)], &[1, 0]),
        Both::new(&[&all[..], &[("text", true)]].concat(), &[5, 2, 3, 4, 1]),
        Both::new(&required, &[4, 3, 2, 1, 0]),
    ];
    let (mut taken, mut refused) = (0, 0);
    for round in 0..rounds {
        let both = &schemas[rng.index(schemas.len())];
        let (key, bytes) = record_of(&mut rng, both);
        let own = both.verifier(&key, &bytes);
        let case = format!("seed {seed}, round {round}: {own:?} {}", beside::hex(&bytes));
        let program = judge(&both.program, &key, &bytes);
        assert_eq!(own.is_ok(), program.is_ok(), "{case}, program {program:?}");
        *(if own.is_ok() { &mut taken } else { &mut refused }) += 1;
    }
    println!("{taken} taken, {refused} refused");
    assert!(taken > rounds / 5 && refused > rounds / 5, "{taken} taken, {refused} refused");
}

#[test]
fn both_have_the_same_characters_that_are_refused_or_show_nothing() {
    let both = Both::new(&[("text", true), ("text", false)], &[0]);
    let text = |text: String| Value::Text(text);
    for c in '\0'..=char::MAX {
        // Alone in a required field, and beside another character.
        for first in [c.to_string(), format!("x{c}")] {
            let values = [text(first), text(c.to_string())];
            let (key, bytes) = (both.key_of(&values), record::encode(1, &values));
            let own = both.verifier(&key, &bytes);
            assert_eq!(own.is_ok(), both.program(&key, &bytes), "{:x}: {own:?}", u32::from(c));
        }
    }
}

#[test]
fn both_refuse_the_same_codes() {
    let [code, uscc] = ["code", "uscc"].map(|kind| Both::new(&[(kind, true)], &[0]));
    let is_taken = |both: &Both, text: &str| {
        let values = [Value::Text(text.to_owned())];
        let (key, bytes) = (both.key_of(&values), record::encode(1, &values));
        let own = both.verifier(&key, &bytes);
        let program = both.program(&key, &bytes);
        assert_eq!(own.is_ok(), program, "{:?} {text:?}: {own:?}", both.types);
        program
    };
    for taken in ["123456789012345", "91410122MA40000000", "ABCDEFGHIJKLMNO", "ZZZZZZZZZZZZZZZZZZ"]
    {
        assert!(is_taken(&uscc, taken), "{taken}");
    }
    for length in 1..=37 {
        assert_eq!(is_taken(&uscc, &"0".repeat(length)), matches!(length, 15 | 18), "{length}");
    }
    for c in '\0'..=char::MAX {
        is_taken(&code, &format!("1{c}2"));
        // Behind these no plane has a letter or digit that somebody could take for one.
        if !matches!(c, ..'\u{3000}' | '\u{ff00}'..'\u{10000}' | '\u{1d400}'..'\u{1d800}') {
            continue;
        }
        let taken = [14, 17].map(|others| {
            let others = "9".repeat(others);
            // As many characters, and as many bytes.
            let fewer = &others[..others.len() + 1 - c.len_utf8()];
            [format!("{others}{c}"), format!("{c}{others}"), format!("{c}{fewer}")]
                .map(|text| is_taken(&uscc, &text))
        });
        let is_one = c.is_ascii_digit() || c.is_ascii_uppercase();
        assert_eq!(taken, [[is_one; 3]; 2], "{c:?}");
    }
}
