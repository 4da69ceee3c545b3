//! What a schema itself has to keep to: section 11 of `protocol/SPEC.md`.
//!
//! The limits of all schemas together are in [`super::federation`].

use std::collections::{BTreeMap, BTreeSet};

use unicode_normalization::UnicodeNormalization as _;

use super::{
    Checked, Refused, ensure,
    json::Json,
    label::folded,
    layout::{
        FIELD_TYPES, FIELDS_MAX, KEY_FIELDS_MAX, LABEL_BYTES_MAX, LABELS_MAX, LISTED_TEXTS_MAX,
        LISTED_VALUES_MAX, NAME_BYTES_MAX, TITLE_BYTES_MAX, YEARS,
    },
    record::{is_blank, is_day, is_format},
};

const MEMBERS: [&str; 10] = [
    "dataset",
    "version",
    "title_zh",
    "title_en",
    "source",
    "key",
    "null_texts",
    "ignore",
    "dates",
    "field",
];
const FIELD_MEMBERS: [&str; 16] = [
    "name",
    "title_zh",
    "title_en",
    "aliases",
    "type",
    "required",
    "personal",
    "length_max",
    "values",
    "strict",
    "scale_max",
    "legacy_codes",
    "null_texts",
    "date_order",
    "open_end",
    "dates",
];
const DATE_ORDERS: [&str; 3] = ["ymd", "dmy", "mdy"];

/// Whether a body is the schema of this dataset and version.
pub fn check(body: &Json, dataset: &str, version: u32) -> Checked<()> {
    ensure(body.has_only(&MEMBERS), "an unknown member")?;
    ensure(body.has("dataset", |name| name.as_text() == Some(dataset)), "another dataset")?;
    ensure(body.has("version", |of| of.as_integer() == Some(version)), "another version")?;
    for title in ["title_zh", "title_en"] {
        ensure(body.has(title, |text| is_shown(text, 0..=TITLE_BYTES_MAX)), "no title")?;
    }
    ensure(body.may_have("source", |text| is_shown(text, 0..=TITLE_BYTES_MAX)), "no source")?;
    ensure(body.may_have("null_texts", is_null_texts), "no null texts")?;
    let is_ignored = |list: &Json| {
        is_list(list, LISTED_TEXTS_MAX)
            && is_every(list, |text| is_shown(text, 1..=LABEL_BYTES_MAX))
    };
    ensure(body.may_have("ignore", is_ignored), "no labels to ignore")?;
    ensure(body.may_have_or_null("dates", is_years), "no years")?;
    let fields = body.member("field").and_then(Json::as_list).ok_or(Refused("no fields"))?;
    ensure((1..=FIELDS_MAX).contains(&fields.len()), "a wrong number of fields")?;
    for one in fields {
        field(one, body)?;
    }
    key(body, fields)?;
    labels(body, fields)
}

/// Whether it is a text of so many bytes that shows what it holds.
fn is_shown(text: &Json, bytes: std::ops::RangeInclusive<usize>) -> bool {
    let hides = |c: char| c.is_control() || is_format(c) || matches!(c, '\u{2028}' | '\u{2029}');
    text.as_text().is_some_and(|text| bytes.contains(&text.len()) && !text.contains(hides))
}

/// Whether it is a list of texts that are null: more than white space and Cf.
fn is_null_texts(list: &Json) -> bool {
    let has_more = |text: &Json| text.as_text().is_some_and(|text| !is_blank(text));
    is_list(list, LISTED_TEXTS_MAX) && is_every(list, has_more)
}

/// Whether it is a list of at most so many texts.
fn is_list(list: &Json, max: usize) -> bool {
    let is_text = |text: &&str| (1..=LABEL_BYTES_MAX).contains(&text.len());
    list.as_texts().is_some_and(|texts| texts.len() <= max && texts.iter().all(is_text))
}

fn is_every(list: &Json, is: impl Fn(&Json) -> bool) -> bool {
    list.as_list().is_some_and(|items| items.iter().all(is))
}

fn is_years(dates: &Json) -> bool {
    let is_year = |year: &Json| year.as_integer().is_some_and(|year| YEARS.contains(&year));
    let year = |name: &str| dates.member(name).and_then(Json::as_integer::<u16>);
    dates.has_only(&["from", "to"])
        && dates.has("from", is_year)
        && dates.has("to", is_year)
        && year("from") <= year("to")
}

fn is_count(count: &Json) -> bool {
    count.as_integer::<u32>().is_some()
}

fn is_end(end: &Json) -> bool {
    end.as_bool().is_some() || end.as_text().is_some_and(is_day)
}

/// One field; the dataset's null texts are its own where it has none.
fn field(field: &Json, dataset: &Json) -> Checked<()> {
    ensure(field.has_only(&FIELD_MEMBERS), "an unknown member of a field")?;
    ensure(field.has("name", is_name), "no name of a field")?;
    let is_label = |text: &Json| is_shown(text, 1..=LABEL_BYTES_MAX);
    for title in ["title_zh", "title_en"] {
        ensure(field.has(title, is_label), "no title of a field")?;
    }
    ensure(field.may_have("aliases", |list| is_every(list, is_label)), "no aliases")?;
    let is_type = |kind: &Json| kind.as_text().is_some_and(|kind| FIELD_TYPES.contains(&kind));
    ensure(field.has("type", is_type), "no type")?;
    for name in ["required", "personal", "strict", "legacy_codes"] {
        ensure(field.flag(name).is_some(), "no boolean")?;
    }
    for name in ["length_max", "scale_max"] {
        ensure(field.may_have_or_null(name, is_count), "no count")?;
    }
    ensure(field.may_have("values", |list| is_list(list, LISTED_VALUES_MAX)), "no values")?;
    ensure(field.may_have_or_null("null_texts", is_null_texts), "no null texts")?;
    of_null_texts(field, dataset)?;
    let is = |name: &str| field.has("type", |kind| kind.as_text() == Some(name));
    let scaled = field.member("scale_max").is_some();
    ensure(is("decimal") || !scaled, "a scale of what is no decimal")?;
    let legacy = field.flag("legacy_codes") == Some(true);
    ensure(is("uscc") || !legacy, "legacy codes of what is no uscc")?;
    of_dates(field)
}

/// None of the texts that are null may be a listed value.
fn of_null_texts(field: &Json, dataset: &Json) -> Checked<()> {
    let own = if field.member("null_texts").is_some() { field } else { dataset };
    let bare = |of: &Json, name: &str| -> BTreeSet<String> {
        let list = of.member(name).and_then(Json::as_texts).unwrap_or_default();
        list.into_iter().map(compared).collect()
    };
    let is_free = bare(own, "null_texts").is_disjoint(&bare(field, "values"));
    ensure(is_free, "a null text that is a value")
}

/// A text as null texts are compared with it: section 5.
fn compared(text: &str) -> String {
    let text: String = text.chars().filter(|c| !is_format(*c)).nfkc().collect();
    text.trim().to_ascii_lowercase()
}

/// What only a date has.
fn of_dates(field: &Json) -> Checked<()> {
    let is_order = |order: &Json| order.as_text().is_some_and(|order| DATE_ORDERS.contains(&order));
    ensure(field.may_have("date_order", is_order), "no order of dates")?;
    ensure(field.may_have("open_end", is_end), "no open end")?;
    ensure(field.may_have_or_null("dates", is_years), "no years")?;
    let is_date = field.has("type", |kind| kind.as_text() == Some("date"));
    let names = ["date_order", "open_end", "dates"];
    let has_one = names.iter().any(|name| field.member(name).is_some());
    ensure(is_date || !has_one, "what only a date has")
}

fn is_name(name: &Json) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    name.as_text().is_some_and(|name| {
        (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_letter)
    })
}

fn key(body: &Json, fields: &[Json]) -> Checked<()> {
    let names = body.member("key").and_then(Json::as_texts).ok_or(Refused("no key"))?;
    ensure((1..=KEY_FIELDS_MAX).contains(&names.len()), "a wrong number of key fields")?;
    let named = |name: &&str| {
        fields.iter().find(|field| field.has("name", |own| own.as_text() == Some(name)))
    };
    let found: Vec<&Json> =
        names.iter().map(named).collect::<Option<_>>().ok_or(Refused("a key without its field"))?;
    let once: BTreeSet<&&str> = names.iter().collect();
    ensure(once.len() == names.len(), "a field that is twice in the key")?;
    ensure(found[0].flag("required") == Some(true), "a first key field that is not required")
}

/// All labels: none is two fields', and no ignored one a field's.
fn labels(body: &Json, fields: &[Json]) -> Checked<()> {
    let mut owners: BTreeMap<String, usize> = BTreeMap::new();
    let mut count = 0;
    for (place, field) in fields.iter().enumerate() {
        let titles = ["name", "title_zh", "title_en"].map(|name| field.member(name));
        let aliases = field.member("aliases").and_then(Json::as_list).unwrap_or_default();
        let all = titles.into_iter().flatten().chain(aliases).filter_map(Json::as_text);
        for label in all {
            count += 1;
            let label = folded(label);
            ensure(!label.is_empty(), "a label that folds to nothing")?;
            let owner = owners.entry(label).or_insert(place);
            ensure(*owner == place, "a label of two fields")?;
        }
    }
    ensure(count <= LABELS_MAX, "too many labels")?;
    let ignored = body.member("ignore").and_then(Json::as_texts).unwrap_or_default();
    let mut seen = BTreeSet::new();
    for label in ignored {
        let label = folded(label);
        ensure(!label.is_empty(), "a label that folds to nothing")?;
        ensure(!owners.contains_key(&label), "an ignored label of a field")?;
        ensure(seen.insert(label), "an ignored label that comes twice")?;
    }
    Ok(())
}
