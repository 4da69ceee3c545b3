//! What a delivery's text becomes, beside the program: two importers have to agree, or
//! the same file would give two states.
//!
//! `FUZZ_SEED` and `FUZZ_ROUNDS` choose other texts, and more of them.

use std::collections::BTreeMap;

use daemon::ingest::validate::Validator;
use harness::sim::rng::Rng;
use protocol::schema::Schema;
use serde_json::json;

use super::{
    beside,
    delivered::{self, Rule},
    record::{self, Value},
};

/// Texts, unless `FUZZ_ROUNDS` says otherwise.
const ROUNDS: u64 = 60_000;

const NULL_TEXTS: [&str; 3] = ["-", "无", "N/A"];

/// A field as both sides see it.
struct Both {
    rule: Rule,
    program: Validator,
}

impl Both {
    fn new(rule: Rule) -> Self {
        let mut field = json!({
            "name": "b", "title_zh": "b", "title_en": "b", "type": rule.kind,
            "required": rule.required, "null_texts": rule.null_texts,
            "legacy_codes": rule.legacy_codes,
        });
        if rule.kind == "date" {
            field["date_order"] = json!(rule.date_order);
        }
        if let Some((year, month, day)) = rule.open_end {
            field["open_end"] = json!(format!("{year:04}-{month:02}-{day:02}"));
        }
        let key = json!({"name": "a", "title_zh": "a", "title_en": "a", "type": "code", "required": true});
        let schema = json!({
            "dataset": "list", "version": 1, "title_zh": "x", "title_en": "x", "key": ["a"],
            "field": [key, field],
        });
        let schema = Schema::check(serde_json::from_value(schema).unwrap()).unwrap();
        Self { rule, program: Validator::new(&schema, &[0, 1]) }
    }

    /// What both make of a text, if they differ.
    fn difference(&mut self, text: &str) -> Option<String> {
        let own = delivered::value(&self.rule, text);
        let record =
            |value: &Value| record::encode(1, &[Value::Text("k".to_owned()), value.clone()]);
        let program = self.program.row(["k", text]).record;
        if own.as_ref().ok().map(record) == program {
            return None;
        }
        let program = program.map(|record| record::decode(&record).unwrap().1[1].clone());
        Some(format!("{text:?}: {own:?}, program {program:?}, {:?}", self.rule))
    }
}

fn rules() -> Vec<Rule> {
    let kinds = ["text", "code", "uscc", "integer", "decimal", "date"];
    let plain = kinds.map(|kind| Rule { kind, date_order: "ymd", ..Rule::default() });
    let nulls = kinds.map(|kind| Rule {
        kind,
        date_order: "ymd",
        required: kind == "code",
        legacy_codes: kind == "uscc",
        null_texts: NULL_TEXTS.to_vec(),
        ..Rule::default()
    });
    let dates = [("ymd", true), ("dmy", false), ("mdy", true)].map(|(date_order, open)| Rule {
        kind: "date",
        date_order,
        open_end: open.then_some((9999, 12, 31)),
        ..Rule::default()
    });
    [&plain[..], &nulls, &dates].concat()
}

fn digits(rng: &mut Rng, count: usize) -> String {
    (0..count).map(|_| char::from(b'0' + u8::try_from(rng.below(10)).unwrap())).collect()
}

fn choose<'a>(rng: &mut Rng, of: &[&'a str]) -> &'a str {
    of[rng.index(of.len())]
}

fn some_number(rng: &mut Rng) -> String {
    let sign = choose(rng, &["", "", "", "-", "+", "－", "−"]);
    let count = [0, 1, 3, 4, 15, 19, 20, 38, 39, 127][rng.index(10)];
    let whole = match rng.below(4) {
        0 => {
            let first = 1 + rng.index(4);
            format!("{},{}", digits(rng, first), digits(rng, 3))
        }
        1 => format!("00{}", digits(rng, 2)),
        _ => digits(rng, count),
    };
    let behind = choose(
        rng,
        &["", "", ".", ".0", ".00", ".50", ".05", ",5", "e5", "E+17", ".2E10", "%", "元"],
    );
    format!("{sign}{whole}{behind}")
}

fn some_date(rng: &mut Rng) -> String {
    let year = choose(rng, &["2019", "9999", "0001", "0000", "19", "2024", "２０１９"]);
    let month = choose(rng, &["1", "01", "12", "13", "00", "2", "99", "012"]);
    let day = choose(rng, &["1", "01", "28", "29", "30", "31", "32", "99", "0"]);
    let mark = choose(rng, &["-", "/", ".", "", "年", "－", " "]);
    let other = if rng.chance(90) { mark } else { choose(rng, &["-", "/", "."]) };
    let day = match (mark, rng.below(5)) {
        ("年", _) => format!("{year}年{month}月{day}{}", choose(rng, &["日", "日", "日", ""])),
        (_, 0) => format!("{day}{mark}{month}{other}{year}"),
        (_, 1) => format!("{month}{mark}{day}{other}{year}"),
        _ => format!("{year}{mark}{month}{other}{day}"),
    };
    let behind = [
        "",
        "",
        "",
        "",
        " 00:00",
        "T00:00:00",
        " 0:00",
        "  0:00:00",
        "T00:00:00.000Z",
        " 00:00:00.0+08:00",
        "T00:00Z",
        " 12:30",
        "T23:59:59",
        ".0",
        ".00",
        " 00:00:00.",
        "T00:00+",
        "T00:00+080000",
        "00:00",
        " 0",
        "T0:00-8",
        " 00:00 ",
        "t00:00",
        "T",
    ];
    format!("{day}{}", choose(rng, &behind))
}

fn some_code(rng: &mut Rng) -> String {
    match rng.below(5) {
        0 => digits(rng, 15),
        1 => format!("{}000", digits(rng, 15)),
        2 => format!("9{}{}MA4{}", choose(rng, &["1", "2", "Y"]), digits(rng, 6), digits(rng, 7)),
        3 => format!(
            "{}{}",
            digits(rng, 4),
            choose(rng, &["", ".0", ".00", ".", ".01", "e5", "E-5", "a"])
        ),
        _ => digits(rng, 18),
    }
}

const WORDS: [&str; 16] = [
    "",
    "-",
    "无",
    "n/a",
    "Ｎ/Ａ",
    "N / A",
    "长期",
    "长 期",
    "永久有效",
    "9999-99-99",
    "99999999",
    "9999-12-31 23:59",
    "无固定期限",
    "县",
    "a\tb",
    "9999/99/99",
];
const AROUND: [&str; 16] = [
    " ", "\u{3000}", "\u{200b}", "\u{ad}", "\u{feff}", "\t", "\n", "'", "''", "=\"", "\"", "\"\"",
    "\u{85}", "\u{1b}", "\u{2028}", "\u{a0}",
];

/// A text of any kind, and now and then something around it or inside.
fn some_text(rng: &mut Rng) -> String {
    let mut text = match rng.below(8) {
        0..2 => some_number(rng),
        2..5 => some_date(rng),
        5..7 => some_code(rng),
        _ => choose(rng, &WORDS).to_owned(),
    };
    for _ in 0..[0, 0, 0, 1, 1, 2][rng.index(6)] {
        let piece = choose(rng, &AROUND);
        match rng.below(5) {
            0 => text = format!("{piece}{text}"),
            1 => text.push_str(piece),
            2 => text = format!("=\"{text}\""),
            3 => text = format!("'{text}"),
            _ => {
                let place = text.char_indices().map(|(at, _)| at).nth(rng.index(text.len() + 1));
                text.insert_str(place.unwrap_or(text.len()), piece);
            }
        }
    }
    text
}

#[test]
fn the_same_text_becomes_the_same_value() {
    let (seed, rounds) = (beside::setting("FUZZ_SEED", 1), beside::setting("FUZZ_ROUNDS", ROUNDS));
    println!("seed {seed}");
    let mut rng = Rng::new(seed);
    let mut fields: Vec<Both> = rules().into_iter().map(Both::new).collect();
    let mut made: BTreeMap<&str, [u64; 2]> = BTreeMap::new();
    let mut different = Vec::new();
    for _ in 0..rounds {
        let text = some_text(&mut rng);
        let place = rng.index(fields.len());
        let field = &mut fields[place];
        let well = delivered::value(&field.rule, &text).is_ok();
        made.entry(field.rule.kind).or_default()[usize::from(well)] += 1;
        different.extend(field.difference(&text));
    }
    println!("refused and taken: {made:?}");
    different.sort_by_key(String::len);
    different.dedup();
    let few = &different[..different.len().min(20)];
    assert!(different.is_empty(), "seed {seed}, {} of {rounds}: {few:#?}", different.len());
    for (kind, counts) in made {
        assert!(counts.iter().all(|count| *count > rounds / 200), "{kind}: {counts:?}");
    }
}

/// What the page leaves to the reader's care: points, signs, groups and marks alone.
const EDGES: [&str; 48] = [
    "",
    "+",
    ".",
    "-.",
    "-0",
    "-0.0",
    ".5",
    "-.5",
    "5.",
    "12.0",
    "123.0",
    "1234.",
    "1234.0",
    "1234.00\u{200b}",
    "1,234",
    "1234,567",
    "12,34",
    "1,234,567.00",
    "0,123",
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775808",
    "1E5",
    "1.5E5",
    "1E+5",
    "1,5e5",
    "1E-1234",
    "=\"",
    "=\"\"",
    "=\"a\"\"b\"",
    "''",
    "'",
    "'a'b",
    "=\"'1\"",
    "'=\"1\"",
    "\u{85}12\u{85}",
    "12\u{1b}",
    "\u{2028}12",
    "2019-03-01T00:00",
    "2019-03-01 00:00.0",
    "20190301.0",
    "20190301.",
    "20190301 00:00",
    "2019-03-01Z",
    "2019-03-01T00:00:00+",
    "2019年3月1日 00:00",
    "2019年3月1号",
    "2019-03-01T 00:00",
];

#[test]
fn texts_at_the_edges_become_the_same_value() {
    let mut texts: Vec<String> = EDGES.map(str::to_owned).into();
    for length in [38, 39, 127, 128, 129] {
        let number = format!("{}1", "0".repeat(length - 1));
        texts.extend([format!("{number} "), format!("'{number}"), "９".repeat(length), number]);
    }
    // Each letter in each place of a code.
    for place in 0..18 {
        for letter in ('0'..='9').chain('A'..='Z') {
            let mut code = "913101150000000001".to_owned();
            code.replace_range(place..=place, &letter.to_string());
            texts.push(code);
        }
    }
    let mut different = Vec::new();
    for mut field in rules().into_iter().map(Both::new) {
        different.extend(texts.iter().filter_map(|text| field.difference(text)));
    }
    assert!(different.is_empty(), "{different:#?}");
}

#[test]
fn the_ordinary_space_alone_stands_before_midnight_and_zeros_behind_its_point() {
    let mut date = Both::new(Rule { kind: "date", date_order: "ymd", ..Rule::default() });
    for (behind, right) in [
        (" 00:00", true),
        ("   00:00", true),
        ("\u{3000}00:00", true),
        ("\u{a0}00:00", true),
        ("\t00:00", false),
        (" \t00:00", false),
        ("\n00:00", false),
        ("\r00:00", false),
        ("\u{1680}00:00", false),
        ("\u{2028}00:00", false),
        ("\u{2029}00:00", false),
        ("T 00:00", false),
        (" 00:00:00.", false),
        (" 00:00:00.0", true),
        (" 00:00.0", false),
        (" 000:00", false),
    ] {
        let text = format!("2019-03-01{behind}");
        assert_eq!(date.difference(&text), None);
        assert_eq!(delivered::value(&date.rule, &text).is_ok(), right, "{text:?}");
    }
}

#[test]
fn what_has_the_form_of_a_date_of_the_year_9999_is_without_end() {
    let open_end = Some((9999, 12, 31));
    let field = |date_order| Rule { kind: "date", date_order, open_end, ..Rule::default() };
    for (date_order, text, right) in [
        ("ymd", "9999-12-31", true),
        ("ymd", "9999-12-31 12:30", true),
        ("ymd", "9999-12-31T23:59:59.999+08:00", true),
        ("ymd", "9999-12-31 12:30:00.", false),
        ("ymd", "9999-99-99 00:00", true),
        ("ymd", "9999/99/99", true),
        ("ymd", "9999年99月99日 1:30", true),
        ("ymd", "99999999", true),
        ("ymd", "99999999.0", true),
        ("ymd", "99999999 23:59", true),
        ("ymd", "9999-12-3112:30", false),
        ("ymd", "9999-12-31 12", false),
        ("ymd", "9999-12-31 123:00", false),
        ("ymd", "9999-012-31", false),
        ("ymd", "9999-12-31\t12:30", false),
        ("ymd", "99 99-99-99", false),
        ("ymd", "长 期", true),
        ("ymd", "长期 00:00", false),
        ("ymd", "31-12-9999", false),
        ("mdy", "12-31-9999 12:30", true),
        ("mdy", "31-12-9999", true),
        ("dmy", "9999-12-31", true),
        ("ymd", "2019-03-01 12:30", false),
    ] {
        let mut both = Both::new(field(date_order));
        assert_eq!(both.difference(text), None);
        assert_eq!(delivered::value(&both.rule, text).is_ok(), right, "{date_order} {text:?}");
    }
}

#[test]
fn however_much_nobody_sees_a_null_text_is_null() {
    for kind in ["text", "code"] {
        let rule =
            Rule { kind, date_order: "ymd", null_texts: NULL_TEXTS.to_vec(), ..Rule::default() };
        let mut both = Both::new(rule);
        for count in [1, 4, 5, 100] {
            let text = format!("{}𝐍/{}A ", " \u{200b}".repeat(count), "\u{ad}".repeat(count));
            assert_eq!(both.difference(&text), None);
            assert_eq!(delivered::value(&both.rule, &text), Ok(Value::Null), "{count}");
        }
    }
}
