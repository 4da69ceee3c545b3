//! One row's texts to a record, or why not.
//!
//! Used by the importer for every row, and by whoever shows a value that may be
//! personal ([`mask`]). Normalisation happens here and nowhere else; what comes
//! out is canonical bytes. One text of a row goes through `field`, with the
//! spellings in `text`, `traces`, `number`, `date`; what is found is a `rule`, told as an
//! `issue`.
//!
//! Invariants: a record comes out exactly if no issue rejects the row; no issue
//! carries a personal value or a citizen id unmasked. Not here: how a row was
//! split (`decode`), and what a record does to the store.

mod citizen_id;
mod date;
mod field;
mod issue;
mod mojibake;
mod number;
mod rule;
mod text;
mod traces;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use protocol::{
    record::{Record, RecordError, encode_key},
    schema::Schema,
    value::Value,
};

use self::field::FieldRules;
pub(super) use self::traces::looks_rounded;
pub use self::{
    issue::{RowIssue, SHOWN_CHARS_MAX, Severity, mask, shown, without_ids},
    rule::Rule,
};

/// What became of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// The encoded key where it could be made, even of a rejected row: a full
    /// delivery must not delete a record whose row was merely rejected.
    pub key: Option<Vec<u8>>,
    /// The record's canonical bytes, or none if the row is rejected.
    pub record: Option<Vec<u8>>,
    /// Everything that is wrong, in the file's column order.
    pub issues: Vec<RowIssue>,
}

/// Checks the rows of one file. A copy, which costs little, does the same on
/// another thread.
#[derive(Debug, Clone)]
pub struct Validator {
    columns: Vec<usize>,
    key: Vec<usize>,
    fields: Arc<[FieldRules]>,
    /// Refilled for every row, so that texts keep their buffers. Fields without
    /// a column stay null.
    record: Record,
}

impl Validator {
    /// Rules of `schema` for rows whose columns are these fields.
    pub fn new(schema: &Schema, columns: &[usize]) -> Self {
        Self {
            columns: columns.to_vec(),
            key: schema.key().to_vec(),
            fields: (0..schema.fields().len())
                .map(|index| FieldRules::new(schema, index))
                .collect(),
            record: Record {
                schema_version: schema.version(),
                values: vec![Value::Null; schema.fields().len()],
            },
        }
    }

    /// The same rules for rows whose columns are these fields.
    pub fn for_columns(&self, columns: &[usize]) -> Self {
        let mut other = Self { columns: columns.to_vec(), ..self.clone() };
        // What a row before has left in a field that has no column any more.
        other.record.values.fill(Value::Null);
        other
    }

    /// That a row's key is a word for a sum.
    pub fn total_as_key(&self) -> RowIssue {
        let field = &self.fields[self.key.first().copied().unwrap_or_default()];
        field.issue(Severity::Reject, Rule::TotalAsKey, String::new())
    }

    /// Checks one row; `texts` are its fields in the file's column order.
    pub fn row<'a>(&mut self, texts: impl IntoIterator<Item = &'a str>) -> Checked {
        let mut issues = Vec::new();
        let mut texts = texts.into_iter();
        let mut key_known = true;
        for &index in &self.columns {
            let text = texts.next().unwrap_or("");
            let rules = &self.fields[index];
            let found = rules.fill(text, &mut self.record.values[index], &mut issues);
            key_known &= found || !rules.in_key;
        }
        let key = if key_known {
            encode_key(self.key.iter().map(|&index| &self.record.values[index]))
                .map_err(|error| issues.push(row_issue(error)))
                .ok()
        } else {
            None
        };
        let record = if issues.iter().any(|issue| issue.severity == Severity::Reject) {
            None
        } else {
            self.record.encode().map_err(|error| issues.push(row_issue(error))).ok()
        };
        Checked { key, record, issues }
    }
}

/// The encoded key that these texts make, one a key field of `schema` in key
/// order; missing ones are empty. None where they cannot be a key.
pub fn key_of<'a>(schema: &Schema, texts: impl IntoIterator<Item = &'a str>) -> Option<Vec<u8>> {
    Validator::new(schema, schema.key()).row(texts).key
}

/// The value that a text makes in a field of `schema`, by the rules of that
/// field. None where it makes none.
pub(super) fn value_of(schema: &Schema, field: usize, text: &str) -> Option<Value> {
    let mut value = Value::Null;
    FieldRules::new(schema, field).fill(text, &mut value, &mut Vec::new()).then_some(value)
}

/// That a row's code is one that a spreadsheet has rounded, where only the others
/// show it.
pub(super) fn rounded_issue(schema: &Schema) -> RowIssue {
    let field = schema.key().first().map(|&first| &schema.fields()[first]);
    RowIssue {
        severity: Severity::Reject,
        field: field.map_or("", |field| field.name.as_str()).into(),
        title: field.map_or("", |field| field.title_zh.as_str()).into(),
        value: String::new(),
        rule: Rule::UsccRounded,
    }
}

/// A record's own limits, as an issue of the whole row.
pub(super) fn row_issue(error: RecordError) -> RowIssue {
    RowIssue {
        severity: Severity::Reject,
        field: "".into(),
        title: "".into(),
        value: String::new(),
        rule: match error {
            RecordError::KeyTooLong => Rule::KeyTooLong,
            RecordError::RecordTooLong => Rule::RecordTooLong,
        },
    }
}
