//! Headers as people write them.

use protocol::schema::{Field, RawSchema};

use super::*;

fn schema() -> Schema {
    let field = |name: &str, title: &str, required| Field {
        name: name.into(),
        title_zh: title.into(),
        title_en: format!("the {name}"),
        aliases: vec![format!("{title}（旧）")],
        required,
        ..Field::default()
    };
    Schema::check(RawSchema {
        dataset: "enterprise".into(),
        version: 1,
        title_zh: "企业".into(),
        title_en: "enterprises".into(),
        key: vec!["code".into()],
        fields: vec![
            field("code", "统一社会信用代码", true),
            field("name", "企业名称", true),
            field("address", "注册地址", false),
            field("scope", "经营范围", false),
        ],
        ..RawSchema::default()
    })
    .unwrap()
}

fn map(labels: &[&str]) -> Result<Mapping, HeaderError> {
    let header: Vec<String> = labels.iter().map(|label| (*label).to_owned()).collect();
    Mapping::new(&header, &schema(), &[])
}

#[test]
fn columns_may_stand_in_any_order_and_optional_ones_be_missing() {
    let mapping = map(&["企业名称（旧）", "the scope", "code"]).unwrap();
    assert_eq!(mapping.columns(), [1, 3, 0]);
    assert_eq!(mapping.missing(), [2]);
}

#[test]
fn all_problems_are_listed_at_once() {
    let error = map(&["企业名成", "经营范围", "scope", "", "火星"]).unwrap_err();
    assert_eq!(
        error,
        HeaderError {
            unknown: vec![
                UnknownColumn {
                    column: 1,
                    label: "企业名成".into(),
                    nearest: Some("企业名称".into()),
                    other_unit: None,
                },
                UnknownColumn {
                    column: 5, label: "火星".into(), nearest: None, other_unit: None
                },
            ],
            twice: vec![TwiceNamed {
                field: "scope".into(),
                labels: vec!["经营范围".into(), "scope".into()]
            }],
            absent: vec![
                AbsentField { name: "code".into(), title_zh: "统一社会信用代码".into() },
                AbsentField { name: "name".into(), title_zh: "企业名称".into() },
            ],
            looked: None,
        }
    );
    let text = error.to_string();
    for part in ["火星", "企业名称", "统一社会信用代码", "column 5", "'scope'"] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn a_huge_label_makes_a_short_message() {
    let error = map(&["code", "name", &"长".repeat(300_000)]).unwrap_err();
    assert!(error.to_string().len() < 1000);
}
