//! A header's labels to the fields of a schema.
//!
//! Readers use it to find the header of what they read, the pipeline to know
//! which text is which field. Invariant: a [`Mapping`] exists only if every column
//! that has a label names exactly one field or is to be ignored, and every key and
//! required field has a column, so nothing is dropped silently. What a value has
//! to look like is `validate`'s business; advice about labels is in [`advice`].

mod above;
mod advice;
mod beginning;
mod error;
#[cfg(test)]
mod tests;

use protocol::schema::{Schema, fold_label};

pub use self::{
    above::{Above, PassedOver, passed_over, unit_of_label},
    beginning::Beginnings,
    error::{AbsentField, HeaderError, TwiceNamed, UnknownColumn},
};
use super::rows::{Fields, is_passed_over, is_reject_column};

/// Which column is which field.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mapping {
    /// The columns that name a field, from 0, in the file's order.
    places: Vec<usize>,
    /// The field of each of them.
    columns: Vec<usize>,
    /// The columns of key fields among them.
    key_places: Vec<usize>,
    /// Columns without a label, which have to be empty.
    unlabelled: Vec<usize>,
    /// Columns that somebody wanted passed over this time.
    passed: Vec<usize>,
    /// Optional fields without a column.
    missing: Vec<usize>,
    /// By column that names a field: what its label may be called.
    names: Vec<Vec<String>>,
    /// How those of the first column begin.
    beginnings: Beginnings,
    /// How any of them begin.
    all_beginnings: Beginnings,
    labels: Vec<String>,
}

/// Of a header that does not fit.
#[derive(Debug, Default)]
struct Unfit {
    /// The field of each column, if it names one.
    fields: Vec<Option<usize>>,
    /// Columns that name none, though they should.
    unknown: Vec<usize>,
    /// How many fields are named.
    known: usize,
}

/// What a column is.
enum Column {
    Field(usize),
    Unlabelled,
    Ignored,
    Unknown,
}

impl Mapping {
    /// Finds the field of every column; all problems are reported at once.
    /// Columns whose labels `ignored` has are passed over, like those that the
    /// schema ignores.
    pub fn new(
        header: &[String],
        schema: &Schema,
        ignored: &[String],
    ) -> Result<Self, HeaderError> {
        Self::find(header, schema, ignored)
            .map_err(|unfit| error::explain(header, schema, &unfit.fields, &unfit.unknown))
    }

    /// As [`Mapping::new`], where it only matters how well a header fits: the
    /// number of fields that it names, if it does not.
    pub fn try_new(header: &[String], schema: &Schema, ignored: &[String]) -> Result<Self, usize> {
        Self::find(header, schema, ignored).map_err(|unfit| unfit.known)
    }

    fn find(header: &[String], schema: &Schema, ignored: &[String]) -> Result<Self, Unfit> {
        let ignored: Vec<String> = ignored.iter().map(|label| fold_label(label)).collect();
        let mut mapping = Self { labels: header.to_vec(), ..Self::default() };
        let mut unfit = Unfit { fields: vec![None; header.len()], ..Unfit::default() };
        let mut sound = true;
        let mut times = vec![0u32; schema.fields().len()];
        for (at, label) in header.iter().enumerate() {
            match column_of(label, schema, &ignored) {
                Column::Field(field) => {
                    unfit.fields[at] = Some(field);
                    times[field] += 1;
                    unfit.known += usize::from(times[field] == 1);
                    sound &= times[field] == 1;
                    mapping.places.push(at);
                    if schema.key().contains(&field) {
                        mapping.key_places.push(at);
                    }
                    mapping.columns.push(field);
                }
                Column::Unlabelled => mapping.unlabelled.push(at),
                Column::Ignored => {
                    if !schema.ignores(label) && !is_reject_column(label) && !is_passed_over(label)
                    {
                        mapping.passed.push(at);
                    }
                }
                Column::Unknown => {
                    unfit.unknown.push(at);
                    sound = false;
                }
            }
        }
        for (index, field) in schema.fields().iter().enumerate() {
            if times[index] == 0 {
                sound &= !(field.required || schema.key().contains(&index));
                mapping.missing.push(index);
            }
        }
        if !sound {
            return Err(unfit);
        }
        mapping.names = vec![Vec::new(); mapping.columns.len()];
        for (label, field) in schema.folded_labels() {
            if let Some(at) = mapping.columns.iter().position(|column| *column == field) {
                mapping.names[at].push(label.to_owned());
            }
        }
        let first = mapping.names.first().into_iter().flatten();
        mapping.beginnings = Beginnings::of(first.map(String::as_str));
        let all = mapping.names.iter().flatten();
        mapping.all_beginnings = Beginnings::of(all.map(String::as_str));
        Ok(mapping)
    }

    /// The schema's field of each column that names one, in the file's order.
    pub fn columns(&self) -> &[usize] {
        &self.columns
    }

    /// The columns that name a field, in the file's order.
    pub fn places(&self) -> &[usize] {
        &self.places
    }

    /// Optional fields that the file does not have, by index in the schema: an
    /// upsert keeps their stored values.
    pub fn missing(&self) -> &[usize] {
        &self.missing
    }

    /// Whether both have the same fields, in whatever order.
    pub fn has_fields_of(&self, other: &Self) -> bool {
        // Fields that are not missing have a column, each exactly one.
        self.missing == other.missing
    }

    /// The header as it was delivered.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// Whether it is the header of a rejects file.
    pub fn is_of_rejects(&self) -> bool {
        self.labels.iter().any(|label| is_reject_column(label))
    }

    /// Columns that are passed over because somebody said so for this delivery, from 0.
    pub fn passed(&self) -> &[usize] {
        &self.passed
    }

    /// The texts of the columns that name a field, in the file's order.
    pub fn texts<'a>(&self, fields: Fields<'a>) -> impl Iterator<Item = &'a str> {
        self.places.iter().map(move |place| fields.get(*place).unwrap_or(""))
    }

    /// The texts of the columns that name key fields.
    pub fn key_texts<'a>(&self, fields: Fields<'a>) -> impl Iterator<Item = &'a str> {
        self.key_places.iter().map(move |place| fields.get(*place).unwrap_or(""))
    }

    /// As [`Mapping::texts`], of texts by column.
    pub fn texts_of<'a>(&self, texts: &[&'a str]) -> impl Iterator<Item = &'a str> {
        self.places.iter().map(move |place| texts.get(*place).copied().unwrap_or(""))
    }

    /// The first column without a label, from 1, that has a value.
    pub fn unlabelled_value(&self, fields: Fields<'_>) -> Option<usize> {
        let filled =
            |place: &&usize| fields.get(**place).is_some_and(|text| !text.trim().is_empty());
        self.unlabelled.iter().find(filled).map(|place| place + 1)
    }

    /// Whether a row is the header once more, or its second line: each of its
    /// values is a label of its own column.
    pub fn is_header(&self, fields: Fields<'_>) -> bool {
        // Hardly any row gets further than its first column.
        let Some(first) = self.texts(fields).next() else { return false };
        if !self.beginnings.begin(first) {
            return false;
        }
        let mut texts = self.texts(fields).zip(&self.names);
        texts.all(|(text, names)| names.contains(&fold_label(text)))
    }
}

impl Mapping {
    /// Whether a row is a header of other columns, or of the same in another order:
    /// most of its values are labels; where it makes a record, the key's among them.
    pub fn is_another_header(&self, fields: Fields<'_>, rejected: bool) -> bool {
        /// Bytes of the longest text that may be one.
        const LABEL_BYTES_MAX: usize = 200;
        let is_label = |text: &str| {
            // Hardly any key gets further.
            if !self.all_beginnings.begin(text) {
                return false;
            }
            let folded = (text.len() <= LABEL_BYTES_MAX).then(|| fold_label(text));
            let folded = folded.filter(|folded| !folded.is_empty());
            folded.is_some_and(|label| self.names.iter().any(|names| names.contains(&label)))
        };
        if !rejected && !self.key_texts(fields).any(is_label) {
            return false;
        }
        let filled = self.texts(fields).filter(|text| !text.trim().is_empty()).count();
        let labels = self.texts(fields).filter(|text| is_label(text)).count();
        labels >= 2 && labels * 2 > filled
    }
}

fn column_of(label: &str, schema: &Schema, ignored: &[String]) -> Column {
    let label = label.trim();
    if label.is_empty() {
        return Column::Unlabelled;
    }
    if is_reject_column(label) || is_passed_over(label) {
        return Column::Ignored;
    }
    if !ignored.is_empty() && ignored.contains(&fold_label(label)) {
        return Column::Ignored;
    }
    match schema.field_for_label(label) {
        Some(field) => Column::Field(field),
        None if schema.ignores(label) => Column::Ignored,
        None if fold_label(label).is_empty() => Column::Unlabelled,
        None => Column::Unknown,
    }
}
