//! Rows, good and bad.
//!
//! What a schema says of a value is in `meaning`, what others have done to it before
//! it came in `traces`, and what holds for all texts in `properties`.

mod meaning;
mod properties;
mod traces;

use protocol::{
    record::{KEY_BYTES_MAX, RECORD_BYTES_MAX, decode_key},
    schema::{Field, FieldType, RawSchema, Years},
    uscc::Impossible,
};

use super::{citizen_id::is_citizen_id, *};
use crate::ingest::map::Mapping;

const KINDS: [FieldType; 6] = [
    FieldType::Text,
    FieldType::Code,
    FieldType::Uscc,
    FieldType::Integer,
    FieldType::Decimal,
    FieldType::Date,
];

fn field(name: &str, kind: FieldType) -> Field {
    Field {
        name: name.into(),
        title_zh: format!("{name}的标题"),
        title_en: format!("the {name}"),
        kind,
        required: false,
        ..Field::default()
    }
}

/// A validator of the key field `id` and one more.
fn validator(second: Field) -> Validator {
    let first = Field { required: true, ..field("id", FieldType::Code) };
    validator_of(vec![first, second], &["id"])
}

fn validator_of(fields: Vec<Field>, key: &[&str]) -> Validator {
    validator_for(raw_of(fields, key))
}

fn raw_of(fields: Vec<Field>, key: &[&str]) -> RawSchema {
    RawSchema {
        dataset: "list".into(),
        version: 3,
        title_zh: "名单".into(),
        title_en: "list".into(),
        key: key.iter().map(|name| (*name).to_owned()).collect(),
        fields,
        ..RawSchema::default()
    }
}

fn validator_for(raw: RawSchema) -> Validator {
    let header: Vec<String> = raw.fields.iter().map(|field| field.name.clone()).collect();
    let schema = Schema::check(raw).unwrap();
    let mapping = Mapping::new(&header, &schema, &[]).unwrap();
    Validator::new(&schema, mapping.columns())
}

/// The second field's canonical text and the codes of all issues.
fn check(field: &Field, text: &str) -> (Option<String>, Vec<String>) {
    let checked = validator(field.clone()).row(["1", text]);
    let value = checked
        .record
        .as_ref()
        .map(|bytes| Record::decode(bytes).unwrap().values[1].canonical_text().into_owned());
    assert!(checked.key.is_some());
    let issue = |issue: &RowIssue| format!("{} {}", issue.severity.as_str(), issue.rule.code());
    (value, checked.issues.iter().map(issue).collect())
}

fn accepted(field: &Field, cases: &[(&str, &str)]) {
    for (text, canonical) in cases {
        assert_eq!(check(field, text), (Some((*canonical).into()), vec![]), "{text:?}");
    }
}

fn found(field: &Field, code: &str, cases: &[&str]) {
    for text in cases {
        let (value, issues) = check(field, text);
        assert_eq!(issues, [code], "{text:?}");
        assert_eq!(value.is_none(), code.starts_with("reject"), "{text:?}");
    }
}

#[test]
fn texts_are_kept_to_the_letter() {
    let text = field("t", FieldType::Text);
    accepted(
        &text,
        &[("", ""), ("  a ", "  a "), ("１２", "１２"), ("a\r\n\tb", "a\r\n\tb"), ("¥·é", "¥·é")],
    );
    found(&text, "reject control-character", &["a\0", "\u{1b}[m", "\u{7f}", "县\u{85}"]);
    let required = Field { required: true, ..text };
    found(&required, "reject required", &["", "  ", "\u{3000}"]);
}

#[test]
fn codes_are_trimmed_and_folded() {
    let code = field("c", FieldType::Code);
    accepted(
        &code,
        &[(" \u{3000}ａＢ１ \u{a0}", "aB1"), ("〔2019〕1号", "〔2019〕1号"), (" \t", "")],
    );
    found(&code, "reject control-character", &["a\tb", "a\nb"]);
}

#[test]
fn credit_codes_are_judged() {
    let uscc = field("u", FieldType::Uscc);
    accepted(
        &uscc,
        &[
            ("91410000170001401D", "91410000170001401D"),
            (" 91410000170001401d\u{3000}", "91410000170001401D"),
            ("91４10000170001401D", "91410000170001401D"),
            ("", ""),
        ],
    );
    found(
        &uscc,
        "warning uscc-check",
        &[
            "91350211M0000XUF46",
            "91350100M0001TGQXM",
            "91350203M0001FUE2P",
            "91350203M0001QAY9B",
            "91410000170001401E",
            "91410000710001401D",
        ],
    );
    found(
        &uscc,
        "reject uscc-impossible",
        &[
            "91410000170001401",
            "91410000170001401D0",
            "9141000017000140ID",
            "91410000I70001401D",
            "9141000O170001401D",
            "91410000 170001401D",
            "000000000000000000",
            "00000000000000000X",
            "Z1410000170001401D",
            "不详",
        ],
    );
    found(&uscc, "reject uscc-legacy", &["410100100012345"]);
    let relaxed = Field { legacy_codes: true, ..uscc.clone() };
    found(&relaxed, "warning uscc-legacy", &["410100100012345"]);
    let strict = Field { strict: true, ..uscc };
    found(&strict, "reject uscc-check", &["91350100M0001TGQXM"]);
}

#[test]
fn numbers_have_one_spelling() {
    let integer = field("n", FieldType::Integer);
    accepted(
        &integer,
        &[
            (" 15,800 ", "15800"),
            ("-1，234，567", "-1234567"),
            ("+07", "7"),
            ("１２", "12"),
            ("9223372036854775807", "9223372036854775807"),
        ],
    );
    found(
        &integer,
        "reject integer",
        &["1.5", "15,80", "1,5800", ",100", "9223372036854775808", "十", "1 2", "N/A"],
    );
    let decimal = Field { scale_max: Some(2), ..field("d", FieldType::Decimal) };
    accepted(&decimal, &[("1,234.50", "1234.5"), ("0.1000", "0.1"), ("．5", "0.5"), ("-0", "0")]);
    found(&decimal, "warning scale-max", &["1.234"]);
    found(&decimal, "reject decimal", &["15,800(万元)", "1.0,0", "--1", "1,234,5"]);
    found(&decimal, "reject decimal", &[&"9".repeat(39), &"0".repeat(1000)]);
    found(&Field { strict: true, ..decimal }, "reject scale-max", &["1.234"]);
}

#[test]
fn days_are_read_in_every_usual_spelling() {
    let day = field("d", FieldType::Date);
    for text in [
        "2019-03-01",
        "2019-3-1",
        "2019/3/1",
        "2019/03/01",
        "20190301",
        "2019.3.1",
        "2019年3月1日",
        "２０１９年０３月０１日",
        " 2019-03-01 00:00:00 ",
        "2019-03-01 00:00:00.0",
        "2019/3/1 0:00",
        "2019-03-01T00:00:00",
        "2019-03-01T00:00:00.000Z",
        "2019-03-01T00:00:00+08:00",
    ] {
        accepted(&day, &[(text, "2019-03-01")]);
    }
    accepted(&day, &[("", ""), ("2024-02-29", "2024-02-29")]);
    found(&day, "reject date-impossible", &["2023-02-29", "20191301", "0000-01-01", "2019/0/1"]);
    found(
        &day,
        "reject date-format",
        &[
            "N/A",
            "长期",
            "43525",
            "2019-03",
            "2019-03/01",
            "2019年3月",
            "01/03/2019",
            "2019-03-01 12:30:00",
            "2019-03-01 00:00:00.",
            "2019-03-01 00:00:00.1",
            "2019-03-01\t00:00",
            "2019-03-01\n00:00",
            "2019-03-01 \t00:00",
            "2019-03-01\u{2028}00:00",
            "2019-03-01x",
            "2019-003-1",
            "201903011",
            "2019",
        ],
    );
}

#[test]
fn lengths_and_listed_values_warn_unless_strict() {
    let text =
        Field { length_max: Some(3), values: vec!["是".into()], ..field("t", FieldType::Text) };
    accepted(&text, &[("是", "是"), ("", "")]);
    found(&text, "warning values", &["否", "不知道"]);
    let long = Field { values: vec![], ..text.clone() };
    accepted(&long, &[("三个字", "三个字")]);
    found(&long, "warning length-max", &["四个字了"]);
    found(&Field { strict: true, ..long }, "reject length-max", &["四个字了"]);
    found(&Field { strict: true, ..text }, "reject values", &["否"]);
}

#[test]
fn a_citizen_id_is_masked_however_it_is_written() {
    let id = "11010519491231002X";
    for text in [
        "１１０１０５１９４９１２３１００２Ｘ",
        "110105 19491231 002X",
        "110105-19491231-002X",
        "张三 110105\u{200b}19491231002X",
        "110105/1949/1231/0024",
        "1110105194912310024",
        "110105194912310029",
        "110105491231002",
        "110105、19491231、002X",
    ] {
        let masked = shown(text);
        assert!(masked.contains('*') && !masked.contains("1949"), "{text}: {masked}");
        assert!(!masked.contains("１９４９"), "{text}: {masked}");
    }
    for plain in ["2024-01-01 2024-01-02", "410122000012345", "91410000170001401D", "13812345678"] {
        assert_eq!(shown(plain), plain);
    }
    let code = validator(field("c", FieldType::Code)).row(["1", id]);
    assert_eq!(code.issues[0].rule, Rule::CitizenId);
}

#[test]
fn the_key_of_a_rejected_row_is_known() {
    let checked = validator(field("d", FieldType::Date)).row(["Ａ1 ", "never"]);
    assert_eq!(checked.record, None);
    assert_eq!(decode_key(&checked.key.unwrap()).unwrap(), [Value::text("A1")]);
    let mut by_code = validator_of(
        vec![Field { required: true, ..field("u", FieldType::Uscc) }, field("t", FieldType::Text)],
        &["u", "t"],
    );
    assert_eq!(by_code.row(["short", "x"]).key, None);
    assert_eq!(by_code.row(["", "x"]).key, None);
    // The text's buffer of an earlier row does not show through.
    let checked = by_code.row(["91410000170001401D", ""]);
    assert_eq!(checked.issues, []);
    let key = decode_key(&checked.key.unwrap()).unwrap();
    assert_eq!(key, [Value::text("91410000170001401D"), Value::Null]);
    let record = Record::decode(&checked.record.unwrap()).unwrap();
    assert_eq!((record.schema_version, record.values), (3, key));
}

#[test]
fn other_columns_do_not_see_what_a_row_before_has_left() {
    let mut validator = validator(field("t", FieldType::Text));
    assert!(validator.row(["1", "left"]).record.is_some());
    let record = validator.for_columns(&[0]).row(["2"]).record.unwrap();
    assert_eq!(Record::decode(&record).unwrap().values, [Value::text("2"), Value::Null]);
}

#[test]
fn rows_above_the_limits_are_rejected() {
    let codes = |checked: &Checked| {
        checked.issues.iter().map(|issue| issue.rule.code()).collect::<Vec<_>>()
    };
    let mut validator = validator(field("t", FieldType::Text));
    let checked = validator.row([&*"k".repeat(KEY_BYTES_MAX), "x"]);
    assert_eq!((codes(&checked), checked.key, checked.record), (vec!["key-too-long"], None, None));
    for length in [RECORD_BYTES_MAX - 10, RECORD_BYTES_MAX + 10] {
        let checked = validator.row(["1", &*"x".repeat(length)]);
        assert_eq!(codes(&checked), ["record-too-long"], "{length}");
        assert!(checked.key.is_some() && checked.record.is_none());
    }
    assert_eq!(validator.row(["1", "x"]).issues, []);
}

/// An id with the right check digit.
fn id(first_17: &str) -> String {
    (0..=10)
        .map(|last| format!("{first_17}{}", if last == 10 { "X".into() } else { last.to_string() }))
        .find(|id| is_citizen_id(id.as_bytes()))
        .unwrap()
}

#[test]
fn citizen_ids_in_free_text_warn_and_never_show() {
    let text = field("t", FieldType::Text);
    // 11010519491231002X is the example printed in GB 11643-1999.
    assert!(is_citizen_id(b"11010519491231002X"));
    let real = id("41010119900101123");
    for free in [
        real.clone(),
        format!("法定代表人身份证号{real}，罚款"),
        format!("{} 与 11010519491231002x", "长".repeat(200)),
        format!("{}{real}", "1234567890 ".repeat(5)),
    ] {
        let checked = validator(text.clone()).row(["1", &free]);
        assert!(checked.record.is_some());
        assert_eq!(checked.issues.len(), 1, "{free}");
        assert_eq!(checked.issues[0].rule, Rule::CitizenId);
        assert_eq!(checked.issues[0].value.chars().filter(|c| *c == '*').count(), 14);
    }
    for other in [
        "410101199001011230000",
        "91410000170001401D",
        "410101199013011234",
        &format!("1{real}"),
        &format!("{}9", &real[..17]).replace(&real, "-"),
    ] {
        assert_eq!(check(&text, other).1, Vec::<String>::new(), "{other}");
    }
    // Another issue of the same text does not show the id either.
    let short = Field { length_max: Some(3), ..text.clone() };
    let checked = validator(short).row(["1", &format!("{}{real}", "长".repeat(70))]);
    assert_eq!(checked.issues[0].rule, Rule::LengthMax { max: 3 });
    assert!(checked.issues.iter().all(|issue| !issue.value.contains(&real[..6])));
    // In a personal field it belongs where it is.
    assert_eq!(check(&Field { personal: true, ..text }, &real).1, Vec::<String>::new());
}

#[test]
fn personal_values_are_masked() {
    assert_eq!(mask("张三丰"), "张**");
    assert_eq!(mask("张三"), "**");
    assert_eq!(mask("11010519491231002X"), "1101**************");
    assert_eq!(mask(""), "");
    assert_eq!(mask(&"x".repeat(500)).len(), SHOWN_CHARS_MAX);
    let name = Field { personal: true, length_max: Some(2), ..field("p", FieldType::Text) };
    let checked = validator(name).row(["1", "欧阳某某"]);
    assert_eq!(checked.issues[0].value, "欧***");
}

#[test]
fn shown_values_are_short_and_printable() {
    let checked =
        validator(field("t", FieldType::Text)).row(["1", &format!("\0{}", "县".repeat(99))]);
    let value = &checked.issues[0].value;
    assert_eq!(*value, format!("⟨U+0000 空字符 NULL⟩{}", "县".repeat(SHOWN_CHARS_MAX - 1)));
    let hidden = "\0\u{200b}".repeat(500);
    let checked = validator(field("t", FieldType::Text)).row(["1", &hidden]);
    assert_eq!(checked.issues[0].value.chars().last(), Some('…'));
    assert!(checked.issues[0].value.chars().count() <= 2 * SHOWN_CHARS_MAX);
    let name = Field { personal: true, ..field("p", FieldType::Code) };
    let checked = validator(name).row(["1", "\0欧阳某某某"]);
    assert_eq!(checked.issues[0].value, "⟨U+0000 空字符 NULL⟩欧****");
}

#[test]
fn every_rule_says_something_in_both_languages() {
    let rules = [
        Rule::Required,
        Rule::ControlCharacter,
        Rule::UsccImpossible(Impossible::Length(3)),
        Rule::UsccImpossible(Impossible::Character('I', 3)),
        Rule::UsccImpossible(Impossible::Authority('0')),
        Rule::UsccCheck { expected: 'D' },
        Rule::UsccLegacy,
        Rule::Integer,
        Rule::Decimal,
        Rule::DateFormat,
        Rule::DateSerial,
        Rule::TotalAsKey,
        Rule::DateImpossible,
        Rule::LengthMax { max: 3 },
        Rule::Values { listed: vec!["a".into(), "b".into()].into() },
        Rule::DateOrder,
        Rule::DateImplausible { years: Years::default() },
        Rule::Scientific,
        Rule::UsccRounded,
        Rule::CodeRounded,
        Rule::Mojibake { certain: true },
        Rule::ScaleMax { max: 3 },
        Rule::KeyTooLong,
        Rule::RecordTooLong,
        Rule::CitizenId,
    ];
    for rule in rules {
        assert!(rule.code().bytes().all(|b| b.is_ascii_lowercase() || b == b'-'));
        assert!(!rule.zh().is_ascii() && rule.en().is_ascii(), "{rule:?}");
    }
}
