//! What a schema says of values: texts that mean nothing, the order of dates, open
//! ends, plausible years, listed values.

use protocol::{
    schema::{DateOrder, OPEN_END, OpenEnd},
    value::Date,
};

use super::*;

fn day(order: DateOrder) -> Field {
    Field { date_order: Some(order), ..field("d", FieldType::Date) }
}

fn open(year: u16, month: u8, day: u8) -> Field {
    Field { open_end: Some(OpenEnd(Date::new(year, month, day))), ..field("d", FieldType::Date) }
}

#[test]
fn texts_that_mean_nothing_are_nothing_in_every_type() {
    let texts = || Some(["\\N", "NULL", "无", "-"].map(str::to_owned).to_vec());
    for kind in KINDS {
        let nothing = Field { null_texts: texts(), ..field("x", kind) };
        for text in ["\\N", "null", " 无\u{3000}", "－", "ＮＵＬＬ"] {
            accepted(&nothing, &[(text, "")]);
            let required = Field { required: true, ..nothing.clone() };
            found(&required, "reject required", &[text]);
        }
    }
    let code = Field { null_texts: texts(), ..field("c", FieldType::Code) };
    accepted(&code, &[("=\"NULL\"", ""), ("无1", "无1"), ("--", "--")]);
    // Without such a list they are texts like others.
    accepted(&field("t", FieldType::Text), &[("NULL", "NULL"), ("无", "无")]);
}

#[test]
fn a_field_may_have_other_empty_texts_than_its_dataset() {
    let fields = vec![
        Field { required: true, ..field("id", FieldType::Code) },
        field("a", FieldType::Text),
        Field { null_texts: Some(vec![]), ..field("b", FieldType::Text) },
    ];
    let raw = RawSchema { null_texts: vec!["无".into()], ..raw_of(fields, &["id"]) };
    let checked = validator_for(raw).row(["1", "无", "无"]);
    let values = Record::decode(&checked.record.unwrap()).unwrap().values;
    assert_eq!(values, [Value::text("1"), Value::Null, Value::text("无")]);
}

#[test]
fn the_order_of_a_date_is_the_datasets_word() {
    for text in ["01/03/2019", "1-3-2019", "01.03.2019", "1/3/2019 0:00", "０１/０３/２０１９"]
    {
        accepted(&day(DateOrder::Dmy), &[(text, "2019-03-01")]);
        accepted(&day(DateOrder::Mdy), &[(text, "2019-01-03")]);
        found(&day(DateOrder::Ymd), "reject date-format", &[text]);
    }
    let checked = validator(day(DateOrder::Ymd)).row(["1", "01/03/2019"]);
    assert_eq!(checked.issues[0].rule, Rule::DateOrder);
    for order in [DateOrder::Dmy, DateOrder::Mdy] {
        accepted(
            &day(order),
            &[
                ("2019-03-01", "2019-03-01"),
                ("20190301", "2019-03-01"),
                ("2019年3月1日", "2019-03-01"),
            ],
        );
        found(
            &day(order),
            "reject date-format",
            &[
                "01/03/19",
                "1/3",
                "001/03/2019",
                "01/03-2019",
                "01/03/20190",
                "1//2019",
                "01 03 2019",
            ],
        );
        found(&day(order), "reject date-format", &["01/03/2019 12:30"]);
    }
    found(&day(DateOrder::Dmy), "reject date-impossible", &["03/13/2019", "31/04/2019"]);
    found(&day(DateOrder::Mdy), "reject date-impossible", &["13/03/2019"]);
}

#[test]
fn an_open_end_is_the_last_of_all_days() {
    let (year, month, last) = OPEN_END;
    let end = open(year, month, last);
    for text in [
        "长期",
        " 长 期 ",
        "永久",
        "长期有效",
        "无固定期限",
        "9999-12-31",
        "99991231",
        "9999年12月31日",
        "9999/1/1",
        "9999-12-31 23:59:59",
        "9999-12-31T23:59:59.999+08:00",
        "9999/9/9 1:30",
        "9999年12月31日 12:30",
        "9999-99-99",
        "9999-99-99 00:00",
        "99999999",
        "99999999.0",
        "=\"长期\"",
    ] {
        accepted(&end, &[(text, "9999-12-31")]);
    }
    accepted(&end, &[("2029-12-31", "2029-12-31"), ("2099-12-31", "2099-12-31"), ("", "")]);
    found(&end, "reject date-format", &["长期的", "永久居留", "2029-12-31 23:59:59"]);
    found(&end, "reject date-format", &["9999-12-3112:30", "99 99-99-99", "9999-12-31 noon"]);
    found(&end, "reject date-format", &["31/12/9999"]);
    for order in [DateOrder::Dmy, DateOrder::Mdy] {
        let ordered = Field { date_order: Some(order), ..end.clone() };
        accepted(&ordered, &[("12-31-9999 12:30", "9999-12-31"), ("9999-1-1", "9999-12-31")]);
    }
    // Where the layout has another day for it.
    let layout = open(2099, 12, 31);
    accepted(
        &layout,
        &[("长期", "2099-12-31"), ("9999-12-31", "2099-12-31"), ("2099-12-31", "2099-12-31")],
    );
    // Elsewhere it is no day, and 9999 no year.
    let other = field("d", FieldType::Date);
    found(&other, "reject date-format", &["长期", "永久"]);
    found(&other, "warning date-implausible", &["9999-12-31"]);
}

#[test]
fn a_spreadsheets_number_of_a_day_is_named_as_that() {
    let date = field("d", FieldType::Date);
    for text in ["43525", "43525.5", "45000.0"] {
        let rule = validator(date.clone()).row(["1", text]).issues[0].rule.clone();
        assert_eq!(rule, Rule::DateSerial, "{text}");
    }
    for text in ["435250", "4352", "43525.x", "43525号"] {
        let rule = validator(date.clone()).row(["1", text]).issues[0].rule.clone();
        assert_eq!(rule, Rule::DateFormat, "{text}");
    }
}

#[test]
fn implausible_years_warn() {
    let plain = field("d", FieldType::Date);
    accepted(&plain, &[("1900-01-01", "1900-01-01"), ("2100-12-31", "2100-12-31")]);
    found(&plain, "warning date-implausible", &["1899-12-31", "2101-01-01", "0219-03-01"]);
    found(&Field { strict: true, ..plain.clone() }, "reject date-implausible", &["0219-03-01"]);
    let narrow = Field { dates: Some(Years { from: 2000, to: 2020 }), ..plain };
    accepted(&narrow, &[("2020-12-31", "2020-12-31")]);
    found(&narrow, "warning date-implausible", &["1999-12-31", "2021-01-01"]);
    let rule = Rule::DateImplausible { years: Years { from: 2000, to: 2020 } };
    assert!(rule.zh().contains("2000") && rule.en().contains("2020"));
}

#[test]
fn a_message_lists_the_allowed_values_and_the_fields_title() {
    let listed = |count: usize| Field {
        values: (1..=count).map(|number| format!("值{number}")).collect(),
        ..field("t", FieldType::Text)
    };
    let issue = |field: Field| validator(field).row(["1", "别的"]).issues.remove(0);
    let few = issue(listed(2));
    assert_eq!((&*few.field, &*few.title), ("t", "t的标题"));
    assert!(few.rule.zh().ends_with("：“值1”“值2”"), "{}", few.rule.zh());
    assert!(few.rule.en().ends_with("use one of '值1', '值2'"), "{}", few.rule.en());
    let many = issue(listed(9));
    assert!(many.rule.zh().ends_with("“值8”……共 9 个"), "{}", many.rule.zh());
    assert!(many.rule.en().ends_with("'值8' ... 9 in all"), "{}", many.rule.en());
    let long = Field { values: vec!["长".repeat(80); 8], ..field("t", FieldType::Text) };
    assert!(issue(long).rule.zh().chars().count() < 400);
}
