//! What a schema may say, and what it then means.

use super::*;

fn field(name: &str) -> Field {
    Field {
        name: name.into(),
        title_zh: format!("{name}的标题"),
        title_en: format!("title of {name}"),
        required: true,
        ..Field::default()
    }
}

fn raw(fields: Vec<Field>, key: &[&str]) -> RawSchema {
    RawSchema {
        dataset: "list".into(),
        version: 1,
        title_zh: "名单".into(),
        title_en: "list".into(),
        key: key.iter().map(|name| (*name).to_owned()).collect(),
        fields,
        ..RawSchema::default()
    }
}

#[test]
fn all_problems_are_reported_at_once() {
    let mut twice = field("b");
    twice.aliases = vec!["a".into()];
    let mut raw = raw(vec![field("a"), twice, field("坏")], &["a", "missing"]);
    raw.version = 0;
    let errors = Schema::check(raw).unwrap_err();
    let places: Vec<&str> = errors.iter().map(|error| error.place.as_str()).collect();
    assert_eq!(places, ["version", "b", "坏", "key"]);
}

#[test]
fn a_header_may_use_name_title_or_alias() {
    let mut a = field("a");
    a.aliases = vec!["甲".into()];
    let schema = Schema::check(raw(vec![a, field("b")], &["a"])).unwrap();
    for label in ["a", " a的标题 ", "title of a", "甲"] {
        assert_eq!(schema.field_for_label(label), Some(0), "{label}");
    }
    assert_eq!(schema.field_for_label("b"), Some(1));
    assert_eq!(schema.field_for_label("c"), None);
}

/// The one problem of a schema, as `place: problem`.
fn problem(raw: RawSchema) -> String {
    let errors = Schema::check(raw).unwrap_err();
    assert_eq!(errors.len(), 1, "{errors:?}");
    errors[0].to_string()
}

fn date(name: &str) -> Field {
    Field { kind: FieldType::Date, ..field(name) }
}

#[test]
fn labels_are_compared_as_people_read_them() {
    let schema = Schema::check(raw(vec![field("code"), field("b")], &["code"])).unwrap();
    for label in ["CODE", "＊code：", "code（必填）", " c o\u{200b}d e\n", "Code的标题"] {
        assert_eq!(schema.field_for_label(label), Some(0), "{label:?}");
    }
    for label in ["", "*", "co", &" code".repeat(5000)] {
        assert_eq!(schema.field_for_label(label), None);
    }
    let mut other = field("b");
    other.aliases = vec!["Ｃ ｏｄｅ*".into(), "CODE".into()];
    let told = problem(raw(vec![field("code"), other], &["code"]));
    assert!(told.starts_with("b: 'Ｃ ｏｄｅ*' already names another field, code"), "{told}");
    let mut marks = field("b");
    marks.aliases = vec!["（必填）".into()];
    assert!(problem(raw(vec![field("code"), marks], &["code"])).starts_with("b: '（必填）' has"));
}

#[test]
fn a_dataset_may_ignore_columns_that_are_no_fields() {
    let ignoring = |labels: &[&str]| RawSchema {
        ignore: labels.iter().map(|label| (*label).to_owned()).collect(),
        ..raw(vec![field("a")], &["a"])
    };
    let schema = Schema::check(ignoring(&["序号", "Remark"])).unwrap();
    for (label, ignored) in
        [("序 号：", true), ("REMARK", true), ("a", false), ("", false), ("备注", false)]
    {
        assert_eq!(schema.ignores(label), ignored, "{label}");
    }
    for (labels, told) in [
        (&["A的标题*"][..], "ignore: 'A的标题*' names the field a"),
        (&["序号", "序号："], "ignore: '序号：' stands twice"),
        (&["*"], "ignore: a column's label has 1 to 256 bytes"),
    ] {
        assert_eq!(problem(ignoring(labels)), told);
    }
    let many: Vec<String> = (0..=TEXTS_MAX).map(|number| format!("列{number}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(problem(ignoring(&many)), "ignore: at most 64 columns are ignored");
}

#[test]
fn a_field_says_more_exactly_what_the_dataset_says_for_all() {
    let mut schema = raw(vec![field("a"), date("b"), date("c")], &["a"]);
    schema.null_texts = vec!["无".into()];
    schema.dates = Some(Years { from: 1949, to: 2050 });
    schema.fields[1].null_texts = Some(vec![]);
    schema.fields[2].dates = Some(Years { from: 2000, to: 2000 });
    let checked = Schema::check(schema.clone()).unwrap();
    assert_eq!((checked.null_texts(0), checked.null_texts(1)), (&["无".to_owned()][..], &[][..]));
    assert_eq!(checked.years(1), Years { from: 1949, to: 2050 });
    assert_eq!(checked.years(2), Years { from: 2000, to: 2000 });
    schema.dates = None;
    assert_eq!(Schema::check(schema).unwrap().years(1), Years { from: 1900, to: 2100 });
}

#[test]
fn what_only_dates_have_is_refused_elsewhere() {
    let day = crate::value::Date::new(2099, 12, 31);
    for (key, wrong) in [
        ("date_order", Field { date_order: Some(DateOrder::Dmy), ..field("b") }),
        ("date_order", Field { date_order: Some(DateOrder::Ymd), ..field("b") }),
        ("open_end", Field { open_end: Some(OpenEnd(day)), ..field("b") }),
        ("open_end", Field { open_end: Some(OpenEnd(None)), ..field("b") }),
        ("dates", Field { dates: Some(Years::default()), ..field("b") }),
    ] {
        let told = problem(raw(vec![field("a"), wrong], &["a"]));
        assert_eq!(told, format!("b: only a date has {key}"));
    }
    for years in [Years { from: 0, to: 1 }, Years { from: 2, to: 1 }, Years { from: 1, to: 10_000 }]
    {
        let wrong = Field { dates: Some(years), ..date("b") };
        assert!(problem(raw(vec![field("a"), wrong], &["a"])).starts_with("b: dates go from"));
    }
}

#[test]
fn a_text_cannot_mean_nothing_and_be_a_listed_value() {
    let listed = Field { values: vec!["有".into(), "无".into()], ..field("b") };
    let mut schema = raw(vec![field("a"), listed], &["a"]);
    schema.null_texts = vec![" 无".into()];
    assert!(problem(schema.clone()).starts_with("b: '无' is listed under values and"));
    schema.fields[1].null_texts = Some(vec![]);
    Schema::check(schema.clone()).unwrap();
    for blank in [" ", "\u{200b}", "\u{feff}\u{3000}"] {
        schema.null_texts = vec![blank.into()];
        let told = problem(schema.clone());
        assert!(told.starts_with("null_texts: null_texts have 1 to 256 bytes"), "{told}");
    }
}

#[test]
fn defaults_are_not_written_and_an_open_end_is_true_or_a_day() {
    let plain = serde_json::to_value(raw(vec![date("a")], &["a"])).unwrap();
    assert_eq!(plain.as_object().unwrap().len(), 6, "{plain}");
    assert_eq!(plain["field"][0].as_object().unwrap().len(), 5, "{plain}");
    let read = |open_end: &str| {
        let json = format!(
            r#"{{"name":"a","title_zh":"甲","title_en":"A","type":"date","open_end":{open_end}}}"#
        );
        let field: Field = serde_json::from_str(&json).map_err(|error| error.to_string())?;
        Ok::<_, String>((field.open_end(), serde_json::to_value(&field).unwrap()))
    };
    let day = crate::value::Date::new;
    let (end, written) = read("true").unwrap();
    assert_eq!((end, &written["open_end"]), (day(9999, 12, 31), &serde_json::json!(true)));
    let (end, written) = read("\"2099-12-31\"").unwrap();
    assert_eq!((end, &written["open_end"]), (day(2099, 12, 31), &serde_json::json!("2099-12-31")));
    let (end, written) = read("false").unwrap();
    assert_eq!((end, &written["open_end"]), (None, &serde_json::json!(false)));
    for wrong in ["1", "null", "\"2099/12/31\"", "\"\""] {
        assert!(read(wrong).unwrap_err().contains("expected true, or the day"), "{wrong}");
    }
}

#[test]
fn what_people_are_shown_has_nothing_that_they_do_not_see() {
    let good = || raw(vec![field("a"), field("b")], &["a"]);
    let steers = "\u{1b}]0;owned\u{7}名单";
    for text in [steers, "一\n行", "\u{202e}evil", "名\u{200b}称", "一\u{2028}行", "\u{85}"] {
        let alter: [fn(&mut RawSchema, String); 6] = [
            |raw, text| raw.title_zh = text,
            |raw, text| raw.title_en = text,
            |raw, text| raw.source = text,
            |raw, text| raw.fields[1].title_zh = format!("第二{text}"),
            |raw, text| raw.fields[1].aliases = vec![format!("又名{text}")],
            |raw, text| raw.ignore = vec![format!("序号{text}")],
        ];
        for alter in alter {
            let mut raw = good();
            alter(&mut raw, text.to_owned());
            let problem = problem(raw);
            assert!(problem.contains("nobody sees"), "{problem:?}");
            assert!(!problem.chars().any(|c| c.is_control() || crate::text::is_format(c)));
        }
    }
    // A problem that quotes a name does not steer either.
    let errors = Schema::check(raw(vec![field(steers)], &[steers])).unwrap_err();
    assert!(errors.iter().all(|error| !error.to_string().contains('\u{1b}')), "{errors:?}");

    let mut many = good();
    many.fields[1].aliases = (0..5000).map(|n| format!("alias{n}")).collect();
    assert!(problem(many).contains("4096"));
}
