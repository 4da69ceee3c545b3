//! What the fields of a dataset are: names, types, rules, and the key.
//!
//! A schema is published by the hub as a record of `_federation`, as JSON, and
//! written by people as TOML (`config/catalogue/`). Both have the shape of
//! [`RawSchema`]; [`Schema`] only exists once [`Schema::check`] has passed.
//!
//! A field's own keys are in `field`, labels in `label`, texts that mean nothing in
//! `null_texts`. Invariant: a label names at most one field. Not here: what becomes
//! of a value; that is the importer's business, described in `SPEC.md`.

mod check;
mod field;
mod label;
mod null_texts;
mod open_end;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use self::{
    field::{DateOrder, Field, FieldType, Years},
    label::fold_label,
    null_texts::NullTexts,
    open_end::{OPEN_END, OpenEnd},
};
use crate::{
    id::DatasetId,
    json::{object_or_null, objects},
};

/// Most fields of a dataset: four times the widest national layout.
pub const FIELDS_MAX: usize = 128;
/// Most fields of a key; keys are limited to 1 KiB in all.
pub const KEY_FIELDS_MAX: usize = 8;
/// Longest title, alias or code of a schema, in bytes.
pub const LABEL_BYTES_MAX: usize = 256;
/// Most texts that mean nothing, and most columns that are ignored: people name a
/// handful, and each costs a comparison a value or column.
pub const TEXTS_MAX: usize = 64;
/// Most listed values of a field: above every national list of codes. The record of
/// `_federation` that carries the schema has 60 KiB for all of it anyway.
pub const VALUES_MAX: usize = 4096;
/// Longest label of a header that is compared, in bytes: blanks and full-width forms
/// make one longer than [`LABEL_BYTES_MAX`], and a file that is no table may have a
/// megabyte as one label.
const FOLDED_BYTES_MAX: usize = 16 * LABEL_BYTES_MAX;

/// A dataset's schema as it is written down, not yet checked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Texts that mean nothing in every field that does not name its own, compared
    /// as [`NullTexts`] says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub null_texts: Vec<String>,
    /// Labels of columns that files have and the dataset does not want.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignore: Vec<String>,
    /// Plausible years of all dates that do not name their own.
    #[serde(default, deserialize_with = "object_or_null", skip_serializing_if = "Option::is_none")]
    pub dates: Option<Years>,
    /// The fields, in the order of exports.
    #[serde(rename = "field", deserialize_with = "objects")]
    pub fields: Vec<Field>,
}

/// A checked schema. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Schema(Arc<Checked>);

#[derive(Debug)]
struct Checked {
    found: check::Found,
    raw: RawSchema,
}

impl PartialEq for Schema {
    fn eq(&self, other: &Self) -> bool {
        // Everything else follows from it.
        self.0.raw == other.0.raw
    }
}

impl Eq for Schema {}

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
        let found = check::check(&raw)?;
        Ok(Self(Arc::new(Checked { found, raw })))
    }

    /// Whether both are clones of one: then nothing about them differs.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The dataset's name.
    pub fn dataset(&self) -> &DatasetId {
        &self.0.found.dataset
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
        &self.0.found.key
    }

    /// The shape that is written down.
    pub fn raw(&self) -> &RawSchema {
        &self.0.raw
    }

    /// The field that a header's label names: by field name, Chinese or English
    /// title or alias, compared as [`fold_label`] says.
    pub fn field_for_label(&self, label: &str) -> Option<usize> {
        let (label, labels) = (fold_known(label)?, &self.0.found.labels);
        let at = labels.binary_search_by(|(known, _)| (**known).cmp(label.as_str())).ok()?;
        Some(usize::from(labels[at].1))
    }

    /// All labels, as [`fold_label`] makes them, with the field that each names.
    pub fn folded_labels(&self) -> impl Iterator<Item = (&str, usize)> {
        self.0.found.labels.iter().map(|(label, field)| (&**label, usize::from(*field)))
    }

    /// Whether a column with this label is ignored.
    pub fn ignores(&self, label: &str) -> bool {
        !self.0.raw.ignore.is_empty()
            && fold_known(label).is_some_and(|label| self.0.found.ignored.contains(&label))
    }

    /// The texts that mean nothing in a field: its own, or the dataset's.
    pub fn null_texts(&self, field: usize) -> &[String] {
        self.fields()[field].null_texts.as_ref().unwrap_or(&self.0.raw.null_texts)
    }

    /// The plausible years of a field's dates: its own, the dataset's, or 1900 to
    /// 2100.
    pub fn years(&self, field: usize) -> Years {
        self.fields()[field].dates.or(self.0.raw.dates).unwrap_or_default()
    }
}

/// A label as it is compared, unless it is too long to be any.
fn fold_known(label: &str) -> Option<String> {
    (label.len() <= FOLDED_BYTES_MAX).then(|| fold_label(label))
}
