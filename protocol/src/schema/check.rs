//! What a schema may say: limits, and keys that contradict each other.
//!
//! Used by [`super::Schema::check`]. Invariant: all problems are found at once, and
//! each names its field or key. Not here: how a schema may follow an earlier one.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    FIELDS_MAX, Field, FieldType, KEY_FIELDS_MAX, LABEL_BYTES_MAX, NullTexts, RawSchema,
    SchemaError, TEXTS_MAX, VALUES_MAX, Years, fold_label,
};
use crate::{
    id::DatasetId,
    text::{is_blank, is_format, visible},
};

/// Longest title of a dataset, or name of its source, in bytes: a line of a page.
const TITLE_BYTES_MAX: usize = 4 * LABEL_BYTES_MAX;
/// Most names, titles and aliases of all fields together: 32 for each of 128.
const LABELS_MAX: usize = 32 * FIELDS_MAX;

/// What a schema turns out to be.
#[derive(Debug)]
pub(super) struct Found {
    /// The dataset's name.
    pub dataset: DatasetId,
    /// Indexes of the key fields.
    pub key: Vec<usize>,
    /// Folded labels with their fields, in order: a federation has many, so they
    /// take no more room than they have to.
    pub labels: Box<[(Box<str>, u16)]>,
    /// Folded labels of columns that are ignored, in order.
    pub ignored: Vec<String>,
}

/// Finds out, or reports every problem.
pub(super) fn check(raw: &RawSchema) -> Result<Found, Vec<SchemaError>> {
    let mut problems = Problems(Vec::new());
    let dataset = DatasetId::new(&raw.dataset);
    if let Err(error) = &dataset {
        problems.add("dataset", error.to_string());
    }
    if raw.version == 0 {
        problems.add("version", "versions are counted from 1");
    }
    for (place, title) in
        [("title_zh", &raw.title_zh), ("title_en", &raw.title_en), ("source", &raw.source)]
    {
        problems.shown(place, title);
        if title.len() > TITLE_BYTES_MAX {
            problems.add(place, format!("it has at most {TITLE_BYTES_MAX} bytes"));
        }
    }
    let labels_in_all: usize = raw.fields.iter().map(|field| field.labels().count()).sum();
    if labels_in_all > LABELS_MAX {
        problems.add("field", format!("all fields together have at most {LABELS_MAX} labels"));
    }
    if raw.fields.is_empty() || raw.fields.len() > FIELDS_MAX {
        problems.add("field", format!("a dataset has 1 to {FIELDS_MAX} fields"));
    }
    if raw.key.is_empty() || raw.key.len() > KEY_FIELDS_MAX {
        problems.add("key", format!("a key has 1 to {KEY_FIELDS_MAX} fields"));
    }
    problems.texts("null_texts", &raw.null_texts);
    if let Some(years) = raw.dates {
        problems.years("dates", years);
    }
    let mut labels = BTreeMap::new();
    for (index, field) in raw.fields.iter().enumerate() {
        problems.labels(index, field, &raw.fields, &mut labels);
        problems.field(field, raw);
    }
    let ignored = problems.ignored(&raw.ignore, &labels, &raw.fields);
    let key = problems.key(raw);
    match dataset {
        Ok(dataset) if problems.0.is_empty() => {
            // A schema has at most 128 fields.
            let labels = labels.into_iter().map(|(label, field)| (label.into(), field as u16));
            Ok(Found { dataset, key, labels: labels.collect(), ignored })
        }
        _ => Err(problems.0),
    }
}

struct Problems(Vec<SchemaError>);

impl Problems {
    fn add(&mut self, place: &str, problem: impl Into<String>) {
        // A field's name is a place, and may be anything before it was checked.
        let place = visible(place).into_owned();
        self.0.push(SchemaError { place, problem: problem.into() });
    }

    /// What people are shown of a schema: a line, in the direction in which it stands.
    fn shown(&mut self, place: &str, text: &str) {
        if let Some(hidden) = text.chars().find(|c| is_unshown(*c)) {
            let name = visible(hidden.encode_utf8(&mut [0; 4])).into_owned();
            self.add(place, format!("it has a character that nobody sees: {name}"));
        }
    }

    fn labels(
        &mut self,
        index: usize,
        field: &Field,
        fields: &[Field],
        labels: &mut BTreeMap<String, usize>,
    ) {
        let name = &field.name;
        if !is_field_name(name) {
            self.add(name, "a field's name is 1 to 63 of A-Z, a-z, 0-9 and _");
        }
        let mut own = BTreeSet::new();
        for label in field.labels() {
            if label.is_empty() || label.len() > LABEL_BYTES_MAX {
                self.add(name, format!("titles and aliases have 1 to {LABEL_BYTES_MAX} bytes"));
                continue;
            }
            self.shown(name, label);
            let folded = fold_label(label);
            if folded.is_empty() {
                let label = visible(label);
                self.add(name, format!("'{label}' has nothing but marks that headers ignore"));
                continue;
            }
            let owner = *labels.entry(folded.clone()).or_insert(index);
            if own.insert(folded) && owner != index {
                let (other, label) = (visible(&fields[owner].name), visible(label));
                self.add(
                    name,
                    format!(
                        "'{label}' already names another field, {other} (blanks, case, full-width \
                         forms and marks such as * do not count)"
                    ),
                );
            }
        }
    }

    fn field(&mut self, field: &Field, raw: &RawSchema) {
        let name = &field.name;
        if field.scale_max.is_some() && field.kind != FieldType::Decimal {
            self.add(name, "only a decimal has a scale_max");
        }
        if field.legacy_codes && field.kind != FieldType::Uscc {
            self.add(name, "only a uscc field has legacy_codes");
        }
        for (key, said) in [
            ("date_order", field.date_order.is_some()),
            ("open_end", field.open_end.is_some()),
            ("dates", field.dates.is_some()),
        ] {
            if said && field.kind != FieldType::Date {
                self.add(name, format!("only a date has {key}"));
            }
        }
        if let Some(years) = field.dates {
            self.years(name, years);
        }
        if field.values.len() > VALUES_MAX {
            self.add(name, format!("a field lists at most {VALUES_MAX} values"));
        }
        if field.values.iter().any(|value| value.is_empty() || value.len() > LABEL_BYTES_MAX) {
            self.add(name, format!("listed values have 1 to {LABEL_BYTES_MAX} bytes"));
        }
        if let Some(texts) = &field.null_texts {
            self.texts(name, texts);
        }
        let nothing = NullTexts::new(field.null_texts.as_ref().unwrap_or(&raw.null_texts));
        if let Some(value) = field.values.iter().find(|value| nothing.contain(value)) {
            self.add(
                name,
                format!(
                    "'{value}' is listed under values and among the null_texts: take it from one \
                     of them (null_texts = [] switches them off for this field)"
                ),
            );
        }
    }

    fn texts(&mut self, place: &str, texts: &[String]) {
        if texts.len() > TEXTS_MAX {
            self.add(place, format!("there are at most {TEXTS_MAX} null_texts"));
        }
        if texts.iter().any(|text| is_blank(text) || text.len() > LABEL_BYTES_MAX) {
            self.add(
                place,
                format!(
                    "null_texts have 1 to {LABEL_BYTES_MAX} bytes and more than what nobody sees"
                ),
            );
        }
    }

    fn years(&mut self, place: &str, years: Years) {
        if years.from < 1 || years.to > 9999 || years.from > years.to {
            self.add(place, "dates go from a year to the same or a later one, from 1 to 9999");
        }
    }

    fn ignored(
        &mut self,
        ignore: &[String],
        labels: &BTreeMap<String, usize>,
        fields: &[Field],
    ) -> Vec<String> {
        if ignore.len() > TEXTS_MAX {
            self.add("ignore", format!("at most {TEXTS_MAX} columns are ignored"));
        }
        let mut ignored = Vec::new();
        for label in ignore {
            self.shown("ignore", label);
            let folded = fold_label(label);
            if folded.is_empty() || label.len() > LABEL_BYTES_MAX {
                self.add("ignore", format!("a column's label has 1 to {LABEL_BYTES_MAX} bytes"));
            } else if let Some(&owner) = labels.get(&folded) {
                let (name, label) = (visible(&fields[owner].name), visible(label));
                self.add("ignore", format!("'{label}' names the field {name}"));
            } else if ignored.contains(&folded) {
                self.add("ignore", format!("'{}' stands twice", visible(label)));
            }
            ignored.push(folded);
        }
        ignored.sort();
        ignored
    }

    fn key(&mut self, raw: &RawSchema) -> Vec<usize> {
        let mut key = Vec::new();
        for name in &raw.key {
            match raw.fields.iter().position(|field| field.name == *name) {
                None => self.add("key", format!("'{}' is not a field", visible(name))),
                Some(index) if key.contains(&index) => {
                    self.add("key", format!("'{}' stands twice", visible(name)));
                }
                Some(index) => key.push(index),
            }
        }
        if let Some(&first) = key.first()
            && !raw.fields[first].required
        {
            self.add(&raw.fields[first].name, "the first key field has to be required");
        }
        key
    }
}

/// Control characters, those of Unicode's category Cf (which turn the direction of a
/// text or have no shape), and the two that separate lines and paragraphs.
fn is_unshown(character: char) -> bool {
    character.is_control() || is_format(character) || matches!(character, '\u{2028}' | '\u{2029}')
}

fn is_field_name(text: &str) -> bool {
    (1..=63).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}
