//! Dataset files: the standard ones hold what they promise, and mistakes in
//! others are reported at once.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use config::catalogue::{parse_schema, render_schema, standard};
use protocol::{
    schema::{DateOrder, FieldType, Schema, Years},
    value::Date,
};

fn dataset(name: &str) -> Schema {
    standard().into_iter().find(|schema| schema.dataset().as_str() == name).unwrap()
}

fn key_names(schema: &Schema) -> Vec<&str> {
    schema.key().iter().map(|&index| schema.fields()[index].name.as_str()).collect()
}

fn names_where(schema: &Schema, wanted: fn(&protocol::schema::Field) -> bool) -> Vec<&str> {
    schema.fields().iter().filter(|field| wanted(field)).map(|field| field.name.as_str()).collect()
}

#[test]
fn every_standard_file_is_a_schema_and_renders_back() {
    let all = standard();
    let names: Vec<&str> = all.iter().map(|schema| schema.dataset().as_str()).collect();
    assert_eq!(names, ["enterprise", "admin-licence", "admin-penalty", "serious-violators"]);
    for schema in all {
        assert_eq!(schema.version(), 1);
        assert!(!schema.raw().source.is_empty());
        let text = render_schema(&schema);
        assert_eq!(parse_schema(&text), Ok(schema), "{text}");
    }
}

#[test]
fn every_file_of_the_catalogue_is_built_in() {
    let files: BTreeSet<String> =
        std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/catalogue"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
    let built_in = standard().iter().map(|schema| format!("{}.toml", schema.dataset())).collect();
    assert_eq!(files, built_in);
}

#[test]
fn enterprise_matches_the_header_that_counties_deliver() {
    let schema = dataset("enterprise");
    let header =
        "企业名称,统一社会信用代码,注册日期,企业类型,注册资金,经营范围,所在省份,地区,注册地址";
    let fields: Vec<&str> = header
        .split(',')
        .map(|label| schema.fields()[schema.field_for_label(label).unwrap()].name.as_str())
        .collect();
    assert_eq!(
        fields,
        [
            "name",
            "uscc",
            "registered_on",
            "type",
            "capital",
            "scope",
            "province",
            "city",
            "address"
        ]
    );
    assert_eq!(schema.fields().len(), fields.len());
    assert_eq!(key_names(&schema), ["uscc"]);
    assert_eq!(names_where(&schema, |field| field.required), ["name", "uscc"]);
    assert_eq!(names_where(&schema, |field| field.legacy_codes), ["uscc"]);
    assert_eq!(names_where(&schema, |field| field.kind == FieldType::Date), ["registered_on"]);
    // Nothing but the code's form and the date may reject a row.
    assert!(schema.fields().iter().all(|field| !field.strict && field.length_max.is_none()));
}

#[test]
fn the_national_layouts_are_complete() {
    let licence = dataset("admin-licence");
    assert_eq!(licence.fields().len(), 26);
    assert_eq!(key_names(&licence), ["XK_XDR_SHXYM", "XK_WSH", "XK_XKBH"]);
    assert_eq!(
        names_where(&licence, |field| field.required),
        [
            "XK_XDR_MC",
            "XK_XDR_LB",
            "XK_XDR_SHXYM",
            "XK_XKWS",
            "XK_WSH",
            "XK_XKLB",
            "XK_NR",
            "XK_JDRQ",
            "XK_YXQZ",
            "XK_YXQZI",
            "XK_XKJG",
            "XK_XKJGDM",
            "XK_ZT",
            "XK_LYDW",
            "XK_LYDWDM",
        ]
    );
    let penalty = dataset("admin-penalty");
    assert_eq!(penalty.fields().len(), 28);
    assert_eq!(key_names(&penalty), ["CF_XDR_SHXYM", "CF_WSH"]);
    assert_eq!(
        names_where(&penalty, |field| field.required),
        [
            "CF_XDR_MC",
            "CF_XDR_LB",
            "CF_XDR_SHXYM",
            "CF_WSH",
            "CF_WFXW",
            "CF_SY",
            "CF_YJ",
            "CF_CFLB",
            "CF_NR",
            "CF_JDRQ",
            "CF_YXQ",
            "CF_GSJZQ",
            "CF_CFJG",
            "CF_CFJGDM",
            "CF_SJLY",
            "CF_SJLYDM",
        ]
    );
    let violators = dataset("serious-violators");
    assert_eq!(violators.fields().len(), 11);
    assert_eq!(key_names(&violators), ["uniscid", "abntime", "illid"]);
    // Lengths and listed values are partly recalled, not quoted: they warn.
    for schema in [&licence, &penalty, &violators] {
        assert!(schema.fields().iter().all(|field| !field.strict));
    }
}

#[test]
fn what_is_about_a_natural_person_is_personal() {
    for (name, personal) in [
        ("enterprise", &[][..]),
        ("admin-licence", &["XK_FRDB", "XK_FR_ZJLX", "XK_FR_ZJHM"]),
        ("admin-penalty", &["CF_FRDB", "CF_FR_ZJLX", "CF_FR_ZJHM"]),
        ("serious-violators", &[]),
    ] {
        assert_eq!(names_where(&dataset(name), |field| field.personal), personal, "{name}");
    }
}

#[test]
fn older_and_variant_headers_name_the_same_fields() {
    for (schema, label, name) in [
        ("admin-licence", "XK_FDDB", "XK_FRDB"),
        ("admin-licence", "XK_FR_SFZH", "XK_FR_ZJHM"),
        ("admin-licence", "统一社会信用代码", "XK_XDR_SHXYM"),
        ("admin-licence", "行政相对人代码_1（统一社会信用代码）", "XK_XDR_SHXYM"),
        ("admin-licence", "工商注册号", "XK_XDR_GSZC"),
        ("admin-penalty", "CF_FDDB", "CF_FRDB"),
        ("admin-penalty", "CF_FR_SFZH", "CF_FR_ZJHM"),
        ("admin-penalty", "罚款金额（万元）", "CF_NR_FK"),
        ("enterprise", "社会信用代码", "uscc"),
        ("enterprise", "成立日期", "registered_on"),
        ("enterprise", "注册资本", "capital"),
        ("enterprise", "住所", "address"),
    ] {
        let schema = dataset(schema);
        let index = schema.field_for_label(label).unwrap_or_else(|| panic!("{label}"));
        assert_eq!(schema.fields()[index].name, name);
    }
    // In yuan or in 10 000 yuan? A header that does not say is not guessed at.
    assert_eq!(dataset("admin-penalty").field_for_label("罚款金额"), None);
}

const GOOD_FIELD: &str = "[[field]]\nname = \"code\"\ntitle_zh = \"代码\"\ntitle_en = \"Code\"\ntype = \"uscc\"\nrequired = true\n";

fn lines(text: &str) -> Vec<String> {
    parse_schema(text).unwrap_err().to_string().lines().map(str::to_owned).collect()
}

#[test]
fn keys_that_are_missing_unknown_or_wrongly_typed_are_reported_at_once() {
    let text = format!(
        "dataset = \"list\"\nversion = -1\ntitle_zh = \"名单\"\nkey = [\"code\"]\nowner = \"x\"\n\
         {GOOD_FIELD}[[field]]\nname = \"kind\"\ntitle_en = \"Kind\"\ntype = \"string\"\n\
         length_max = \"9\"\n[[field]]\ntitle_zh = \"无名\"\ntitle_en = \"Nameless\"\n"
    );
    assert_eq!(
        lines(&text),
        [
            "line 2, column 11: version: wrong value: integer '-1', expected a whole number from 0 to \
         4294967295",
            "line 5, column 1: owner: unknown key; known here: dataset, version, title_zh, title_en, \
         source, key, null_texts, ignore, dates, field; correct or delete it",
            "line 12, column 1: field.kind.title_zh: is missing; write the field's title",
            "line 15, column 8: field.kind.type: 'string' is not known here; write one of text, code, \
         uscc, integer, decimal, date",
            "line 16, column 14: field.kind.length_max: wrong type: string \"9\", expected a whole \
         number from 0 to 4294967295",
            "line 17, column 1: field.#3.name: is missing; write a name of A-Z, a-z, 0-9 and _",
            "line 17, column 1: field.#3.type: is missing; write text, code, uscc, integer, decimal or \
         date",
            "title_en: is missing; write the dataset's title",
        ]
    );
}

#[test]
fn a_schema_that_contradicts_itself_names_every_place() {
    let text = format!(
        "dataset = \"My List\"\nversion = 0\ntitle_zh = \"名单\"\ntitle_en = \"List\"\n\
         key = [\"code\", \"nothing\"]\nsort = 1\n{GOOD_FIELD}{}",
        GOOD_FIELD.replace("uscc", "text")
    );
    let lines = lines(&text);
    let places: Vec<(&str, &str)> = lines
        .iter()
        .map(|line| {
            let mut parts = line.split(": ");
            (parts.next().unwrap(), parts.next().unwrap())
        })
        .collect();
    assert_eq!(
        places,
        [
            ("line 1, column 1", "dataset"),
            ("line 2, column 1", "version"),
            ("line 5, column 1", "key"),
            ("line 6, column 1", "sort"),
            ("line 13, column 1", "field.code"),
            ("line 13, column 1", "field.code"),
        ],
        "{lines:#?}"
    );
}

#[test]
fn a_text_that_is_not_toml_names_line_and_column() {
    let lines = lines("dataset = \"list\"\nversion 1\n");
    assert_eq!(lines.len(), 1);
    assert!(lines[0].starts_with("line 2, column 9: this is not TOML"), "{lines:?}");
}

#[test]
fn what_a_dataset_says_of_values_is_read_and_rendered_back() {
    let text = format!(
        "dataset = \"list\"\nversion = 1\ntitle_zh = \"名单\"\ntitle_en = \"List\"\nkey = [\"code\"]\n\
         null_texts = [\"\\\\N\", \"无\"]\nignore = [\"序号\"]\ndates = {{ from = 1949, to = 2050 }}\n\
         {GOOD_FIELD}[[field]]\nname = \"until\"\ntitle_zh = \"有效期至\"\ntitle_en = \"Until\"\n\
         type = \"date\"\ndate_order = \"dmy\"\nopen_end = true\nnull_texts = []\n\
         dates = {{ from = 2000, to = 2099 }}\n"
    );
    let schema = parse_schema(&text).unwrap();
    assert_eq!(schema.null_texts(0), ["\\N", "无"]);
    assert_eq!(schema.null_texts(1), [] as [&str; 0]);
    assert_eq!(schema.years(0), Years { from: 1949, to: 2050 });
    assert_eq!(schema.years(1), Years { from: 2000, to: 2099 });
    assert!(schema.ignores("序 号"));
    let until = &schema.fields()[1];
    assert_eq!((until.date_order(), until.open_end()), (DateOrder::Dmy, Date::new(9999, 12, 31)));
    let rendered = render_schema(&schema);
    assert_eq!(parse_schema(&rendered), Ok(schema), "{rendered}");
    let rendered = rendered.replace("open_end = true", "open_end = \"2099-12-31\"");
    assert_eq!(parse_schema(&rendered).unwrap().fields()[1].open_end(), Date::new(2099, 12, 31));
}

#[test]
fn mistakes_in_what_a_dataset_says_of_values_are_told_in_plain_words() {
    let text = format!(
        "dataset = \"list\"\nversion = 1\ntitle_zh = \"名单\"\ntitle_en = \"List\"\nkey = [\"code\"]\n\
         null_texts = \"无\"\ndates = \"1900-2100\"\n{GOOD_FIELD}dates = {{ from = -1, to = 2099 }}\n\
         date_order = \"DMY\"\nopen_end = \"never\"\n"
    );
    assert_eq!(
        lines(&text),
        [
            "line 6, column 14: null_texts: wrong type: string \"无\", expected a list",
            "line 7, column 9: dates: wrong type: string \"1900-2100\", expected a table such as { from = 1900, to = 2100 }",
            "line 14, column 18: field.code.dates.from: wrong value: integer '-1', expected a whole \
             number from 0 to 65535",
            "line 15, column 14: field.code.date_order: 'DMY' is not known here; write one of ymd, dmy, mdy",
            "line 16, column 12: field.code.open_end: wrong value: string \"never\", expected true, or \
             the day that the layout writes, such as \"2099-12-31\"",
        ]
    );
}

#[test]
fn the_documented_examples_are_schemas() {
    for name in ["datasets.md", "datasets.zh-CN.md"] {
        let path = format!("{}/../docs/{name}", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(path).unwrap();
        let examples: Vec<&str> =
            text.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
        assert!(!examples.is_empty(), "{name} has no example");
        for example in examples {
            let schema = parse_schema(example).unwrap_or_else(|errors| panic!("{name}: {errors}"));
            // The example shows every key that there is.
            let written = serde_json::to_string(schema.raw()).unwrap();
            for key in [
                "source",
                "null_texts",
                "ignore",
                "dates",
                "aliases",
                "required",
                "personal",
                "length_max",
                "values",
                "strict",
                "scale_max",
                "legacy_codes",
                "date_order",
                "open_end",
            ] {
                assert!(written.contains(&format!("\"{key}\":")), "{name}: {key}");
            }
        }
    }
}
