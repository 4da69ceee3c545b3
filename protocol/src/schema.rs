//! What the fields of a dataset are: names, types, rules, and the key.
//!
//! A schema is published by the hub as a record of `_federation`, as JSON, and
//! written by people as TOML (`config/catalogue/`). Both have the shape of
//! [`RawSchema`]; [`Schema`] only exists once [`Schema::check`] has passed.

use std::{collections::BTreeSet, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::id::DatasetId;

/// Most fields of a dataset: four times the widest national layout.
pub const FIELDS_MAX: usize = 128;
/// Most fields of a key; keys are limited to 1 KiB in all.
pub const KEY_FIELDS_MAX: usize = 8;
/// Longest title, alias or code of a schema, in bytes.
pub const LABEL_BYTES_MAX: usize = 256;

/// The type of a field: which texts it accepts and their canonical spelling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FieldType {
    /// Any text, kept to the letter.
    Text,
    /// An identifier: white space around it is dropped, compatibility forms
    /// (full-width digits) are folded (Unicode NFKC).
    Code,
    /// A unified social credit code (GB 32100-2015): as `code`, upper case.
    Uscc,
    /// A whole number of 64 bits.
    Integer,
    /// A decimal number of at most 38 digits.
    Decimal,
    /// A day: `2019-03-01`, `2019/3/1`, `20190301` or `2019年3月1日`.
    Date,
}

impl FieldType {
    /// The name used in schema files.
    pub fn as_str(self) -> &'static str {
        match self {
            FieldType::Text => "text",
            FieldType::Code => "code",
            FieldType::Uscc => "uscc",
            FieldType::Integer => "integer",
            FieldType::Decimal => "decimal",
            FieldType::Date => "date",
        }
    }
}

/// A field, and the rules for its values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Field {
    /// The name in exports and in JSON: `[A-Za-z0-9_]{1,63}`.
    pub name: String,
    /// The Chinese title, also accepted in a file's header.
    pub title_zh: String,
    /// The English title.
    pub title_en: String,
    /// Further names that a file's header may use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// Which texts are accepted.
    #[serde(rename = "type")]
    pub kind: FieldType,
    /// A row without a value is rejected.
    #[serde(default, skip_serializing_if = "is_false")]
    pub required: bool,
    /// Personal data: masked in every report, log and page; never published.
    #[serde(default, skip_serializing_if = "is_false")]
    pub personal: bool,
    /// Longest value in characters; longer ones warn, or are rejected if
    /// `strict`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length_max: Option<u32>,
    /// The values that the standard lists; others warn, or are rejected if
    /// `strict`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
    /// Whether a value outside `length_max`, `values` or `scale_max`, or a
    /// credit code with a wrong check character, rejects the row.
    #[serde(default, skip_serializing_if = "is_false")]
    pub strict: bool,
    /// Most digits behind the point of a decimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale_max: Option<u32>,
    /// A `uscc` field that also takes 15-digit registration numbers from
    /// before 2015, with a warning.
    #[serde(default, skip_serializing_if = "is_false")]
    pub legacy_codes: bool,
}

fn is_false(value: &bool) -> bool {
    !value
}

/// A dataset's schema as it is written down, not yet checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawSchema {
    /// The dataset's name.
    pub dataset: String,
    /// From 1; every change of a published schema needs the next number.
    pub version: u32,
    /// The Chinese title.
    pub title_zh: String,
    /// The English title.
    pub title_en: String,
    /// Where the layout comes from: a standard or a notice.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// Names of the key fields, the subject's code first.
    pub key: Vec<String>,
    /// The fields, in the order of exports.
    #[serde(rename = "field")]
    pub fields: Vec<Field>,
}

/// A checked schema. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schema(Arc<Checked>);

#[derive(Debug, PartialEq, Eq)]
struct Checked {
    dataset: DatasetId,
    key: Vec<usize>,
    raw: RawSchema,
}

/// What is wrong with a schema; each names the place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct SchemaError {
    /// The field or part of the schema.
    pub place: String,
    /// What is wrong and what is allowed.
    pub problem: String,
}

impl Schema {
    /// Checks a schema; all problems are reported at once.
    pub fn check(raw: RawSchema) -> Result<Self, Vec<SchemaError>> {
        let mut errors = Vec::new();
        let mut wrong = |place: &str, problem: String| {
            errors.push(SchemaError { place: place.to_owned(), problem });
        };
        let dataset = DatasetId::new(&raw.dataset);
        if let Err(error) = &dataset {
            wrong("dataset", error.to_string());
        }
        if raw.version == 0 {
            wrong("version", "versions are counted from 1".into());
        }
        if raw.fields.is_empty() || raw.fields.len() > FIELDS_MAX {
            wrong("field", format!("a dataset has 1 to {FIELDS_MAX} fields"));
        }
        if raw.key.is_empty() || raw.key.len() > KEY_FIELDS_MAX {
            wrong("key", format!("a key has 1 to {KEY_FIELDS_MAX} fields"));
        }
        let mut labels = BTreeSet::new();
        for field in &raw.fields {
            if !is_field_name(&field.name) {
                wrong(&field.name, "a field's name is 1 to 63 of A-Z, a-z, 0-9 and _".into());
            }
            let own: BTreeSet<&str> = field.labels().collect();
            for label in own {
                if label.is_empty() || label.len() > LABEL_BYTES_MAX {
                    wrong(
                        &field.name,
                        format!("titles and aliases have 1 to {LABEL_BYTES_MAX} bytes"),
                    );
                }
                if !labels.insert(label.to_owned()) {
                    wrong(&field.name, format!("'{label}' already names another field"));
                }
            }
            if field.scale_max.is_some() && field.kind != FieldType::Decimal {
                wrong(&field.name, "only a decimal has a scale_max".into());
            }
            if field.legacy_codes && field.kind != FieldType::Uscc {
                wrong(&field.name, "only a uscc field has legacy_codes".into());
            }
            if field.values.iter().any(|value| value.is_empty() || value.len() > LABEL_BYTES_MAX) {
                wrong(&field.name, format!("listed values have 1 to {LABEL_BYTES_MAX} bytes"));
            }
        }
        let mut key = Vec::new();
        for name in &raw.key {
            match raw.fields.iter().position(|field| field.name == *name) {
                None => wrong("key", format!("'{name}' is not a field")),
                Some(index) if key.contains(&index) => {
                    wrong("key", format!("'{name}' stands twice"))
                }
                Some(index) => key.push(index),
            }
        }
        if let Some(&first) = key.first()
            && !raw.fields[first].required
        {
            wrong(&raw.fields[first].name, "the first key field has to be required".into());
        }
        match dataset {
            Ok(dataset) if errors.is_empty() => Ok(Self(Arc::new(Checked { dataset, key, raw }))),
            _ => Err(errors),
        }
    }

    /// The dataset's name.
    pub fn dataset(&self) -> &DatasetId {
        &self.0.dataset
    }

    /// The version, from 1.
    pub fn version(&self) -> u32 {
        self.0.raw.version
    }

    /// The fields in their order.
    pub fn fields(&self) -> &[Field] {
        &self.0.raw.fields
    }

    /// Indexes of the key fields in [`Schema::fields`], in key order.
    pub fn key(&self) -> &[usize] {
        &self.0.key
    }

    /// The shape that is written down.
    pub fn raw(&self) -> &RawSchema {
        &self.0.raw
    }

    /// The field that a header's label names: by field name, Chinese or
    /// English title or alias. White space around the label is ignored.
    pub fn field_for_label(&self, label: &str) -> Option<usize> {
        let label = label.trim();
        self.fields().iter().position(|field| field.labels().any(|own| own == label))
    }
}

impl Field {
    /// Every text by which a header may call this field.
    pub fn labels(&self) -> impl Iterator<Item = &str> {
        [&self.name, &self.title_zh, &self.title_en]
            .into_iter()
            .map(String::as_str)
            .chain(self.aliases.iter().map(String::as_str))
    }
}

fn is_field_name(text: &str) -> bool {
    (1..=63).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(name: &str) -> Field {
        Field {
            name: name.into(),
            title_zh: format!("{name}的标题"),
            title_en: format!("title of {name}"),
            aliases: vec![],
            kind: FieldType::Text,
            required: true,
            personal: false,
            length_max: None,
            values: vec![],
            strict: false,
            scale_max: None,
            legacy_codes: false,
        }
    }

    fn raw(fields: Vec<Field>, key: &[&str]) -> RawSchema {
        RawSchema {
            dataset: "list".into(),
            version: 1,
            title_zh: "名单".into(),
            title_en: "list".into(),
            source: String::new(),
            key: key.iter().map(|name| (*name).to_owned()).collect(),
            fields,
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
}
