//! A dataset's schema for people: everything that a deliverer has to know.
//!
//! Used by `dataset show`. Invariant: what a hub wrote into a schema cannot steer
//! the terminal. Not here: the JSON document, which is the schema as it is.

use protocol::{
    schema::{DateOrder, Field, FieldType, OPEN_END, RawSchema},
    text::visible,
};

use super::super::print_table;

/// Prints it.
pub(super) fn print(schema: &RawSchema) {
    for line in about(schema) {
        println!("{line}");
    }
    println!();
    let yes_no = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
    let row = |field: &Field| {
        vec![
            shown(&field.name),
            field.kind.as_str().to_owned(),
            yes_no(field.required),
            yes_no(field.personal),
            shown(&field.title_zh),
            shown(&field.title_en),
        ]
    };
    let rows: Vec<_> = schema.fields.iter().map(row).collect();
    print_table(&["FIELD", "TYPE", "REQUIRED", "PERSONAL", "标题", "TITLE"], &rows);
    for field in &schema.fields {
        let details = details(field);
        if !details.is_empty() {
            println!("\n{} {}", shown(&field.name), shown(&field.title_zh));
            details.iter().for_each(|line| println!("  {line}"));
        }
    }
}

/// What is said of the dataset as a whole.
fn about(schema: &RawSchema) -> Vec<String> {
    let mut lines = vec![format!(
        "{} version {}: {} / {}",
        shown(&schema.dataset),
        schema.version,
        shown(&schema.title_zh),
        shown(&schema.title_en)
    )];
    if !schema.source.is_empty() {
        lines.push(format!("source / 来源: {}", shown(&schema.source)));
    }
    lines.push(format!("key / 主键: {}", listed(&schema.key)));
    if !schema.null_texts.is_empty() {
        lines.push(format!(
            "texts that mean nothing / 视为空的文字: {}",
            listed(&schema.null_texts)
        ));
    }
    if !schema.ignore.is_empty() {
        lines.push(format!("ignored columns / 忽略的列: {}", listed(&schema.ignore)));
    }
    if schema.fields.iter().any(|field| field.kind == FieldType::Date) {
        let years = schema.dates.unwrap_or_default();
        lines.push(format!("plausible years / 合理的年份: {} - {}", years.from, years.to));
    }
    lines
}

/// What is said of a field beyond its type.
fn details(field: &Field) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = |en: &str, zh: &str, what: String| lines.push(format!("{en} / {zh}: {what}"));
    if !field.aliases.is_empty() {
        line("also called", "别名", listed(&field.aliases));
    }
    if let Some(max) = field.length_max {
        line("longest", "最长", format!("{max} characters / 字符"));
    }
    if !field.values.is_empty() {
        line("allowed values", "允许的取值", listed(&field.values));
    }
    if let Some(max) = field.scale_max {
        line("digits behind the point", "小数位", format!("{max}"));
    }
    if field.legacy_codes {
        line("15-digit numbers", "15 位旧注册号", "taken, with a warning / 接受并提示".into());
    }
    if let Some(texts) = &field.null_texts {
        line("texts that mean nothing", "视为空的文字", listed(texts));
    }
    match field.date_order() {
        DateOrder::Ymd => {}
        DateOrder::Dmy => line("01/03/2019", "日期顺序", "2019-03-01 (dmy)".into()),
        DateOrder::Mdy => line("01/03/2019", "日期顺序", "2019-01-03 (mdy)".into()),
    }
    if let Some(day) = field.open_end() {
        let last = if day.parts() == OPEN_END { ", after all others / 排在最后" } else { "" };
        line("without end", "长期、永久存为", format!("{day}{last}"));
    }
    if let Some(years) = field.dates {
        line("plausible years", "合理的年份", format!("{} - {}", years.from, years.to));
    }
    let limited =
        field.length_max.is_some() || !field.values.is_empty() || field.scale_max.is_some();
    if field.strict {
        line("other values", "其他值", "rejected / 拒收".into());
    } else if limited {
        line("other values", "其他值", "taken, with a warning / 接受并提示".into());
    }
    lines
}

fn listed(texts: &[String]) -> String {
    if texts.is_empty() {
        return "none / 无".to_owned();
    }
    texts.iter().map(|text| shown(text)).collect::<Vec<_>>().join(", ")
}

fn shown(text: &str) -> String {
    visible(text).into_owned()
}

#[cfg(test)]
mod tests {
    use protocol::{
        schema::{OpenEnd, Years},
        value::Date,
    };

    use super::*;

    #[test]
    fn everything_that_a_schema_says_is_shown() {
        let until = Field {
            name: "until".into(),
            kind: FieldType::Date,
            aliases: vec!["止".into(), "到期\u{1b}[31m".into()],
            length_max: Some(20),
            values: vec!["是".into(), "否".into()],
            strict: true,
            scale_max: Some(2),
            legacy_codes: true,
            null_texts: Some(vec![]),
            date_order: Some(DateOrder::Dmy),
            open_end: Some(OpenEnd(Date::new(9999, 12, 31))),
            dates: Some(Years { from: 2000, to: 2050 }),
            ..Field::default()
        };
        assert_eq!(
            details(&until),
            [
                "also called / 别名: 止, 到期⟨U+001B 转义符 ESCAPE⟩[31m",
                "longest / 最长: 20 characters / 字符",
                "allowed values / 允许的取值: 是, 否",
                "digits behind the point / 小数位: 2",
                "15-digit numbers / 15 位旧注册号: taken, with a warning / 接受并提示",
                "texts that mean nothing / 视为空的文字: none / 无",
                "01/03/2019 / 日期顺序: 2019-03-01 (dmy)",
                "without end / 长期、永久存为: 9999-12-31, after all others / 排在最后",
                "plausible years / 合理的年份: 2000 - 2050",
                "other values / 其他值: rejected / 拒收",
            ]
        );
        let schema = RawSchema {
            dataset: "list".into(),
            version: 2,
            title_zh: "名单".into(),
            title_en: "List".into(),
            source: "通知".into(),
            key: vec!["code".into(), "until".into()],
            null_texts: vec!["\\N".into(), "无".into()],
            ignore: vec!["序号".into()],
            dates: None,
            fields: vec![until],
        };
        assert_eq!(
            about(&schema),
            [
                "list version 2: 名单 / List",
                "source / 来源: 通知",
                "key / 主键: code, until",
                "texts that mean nothing / 视为空的文字: \\N, 无",
                "ignored columns / 忽略的列: 序号",
                "plausible years / 合理的年份: 1900 - 2100",
            ]
        );
        assert_eq!(details(&Field::default()), [] as [&str; 0]);
        let relaxed = Field { values: vec!["是".into()], ..Field::default() };
        assert_eq!(
            details(&relaxed)[1],
            "other values / 其他值: taken, with a warning / 接受并提示"
        );
    }
}
