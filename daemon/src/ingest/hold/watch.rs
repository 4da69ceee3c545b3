//! What the comparison of a delivery shows to the rules of holding.
//!
//! `apply` tells each difference as it finds it. Invariants: memory does not
//! depend on the delivery, and samples are the first ones in key order. Not
//! here: what follows from the counts (`hold`).

use protocol::{
    record::decode_key,
    schema::{Field, FieldType, Schema},
    uscc::{self, Quality},
    value::Value,
};

use super::{FieldCount, SAMPLES_MAX};
use crate::ingest::validate::{looks_rounded, mask, shown};

/// Longest key in a sample, in characters.
const SAMPLE_CHARS_MAX: usize = 80;

/// Counts and samples of one comparison.
#[derive(Debug)]
pub(in crate::ingest) struct Watch<'a> {
    schema: &'a Schema,
    /// Fields that the delivery has no column for.
    missing: &'a [usize],
    /// Whether new keys are looked at: a clean file's million need not be.
    doubts: bool,
    /// Records that lose their value, and records whose value changes, by field.
    blanked_counts: Vec<u64>,
    changed_counts: Vec<u64>,
    /// New keys with a wrong check character.
    pub doubtful_count: u64,
    /// Keys that go.
    pub deleted: Vec<String>,
    /// Keys of records that lose a value because its column is missing.
    pub blanked: Vec<String>,
    /// Keys of records that change.
    pub changed: Vec<String>,
    /// New keys with a wrong check character.
    pub doubtful: Vec<String>,
}

impl<'a> Watch<'a> {
    /// `doubts` says that the delivery has keys with a wrong check character.
    pub fn new(schema: &'a Schema, missing: &'a [usize], doubts: bool) -> Self {
        let none = vec![0; schema.fields().len()];
        Self {
            schema,
            missing,
            doubts: doubts && leads_with_code(schema),
            blanked_counts: none.clone(),
            changed_counts: none,
            doubtful_count: 0,
            deleted: Vec::new(),
            blanked: Vec::new(),
            changed: Vec::new(),
            doubtful: Vec::new(),
        }
    }

    /// A stored record would go.
    pub fn delete(&mut self, key: &[u8]) {
        sample(&mut self.deleted, self.schema, key);
    }

    /// A record would come.
    pub fn insert(&mut self, key: &[u8]) {
        if self.doubts && is_doubtful(key) {
            self.doubtful_count += 1;
            sample(&mut self.doubtful, self.schema, key);
        }
    }

    /// A stored record would change; both are in the order of the schema.
    pub fn update(&mut self, key: &[u8], old: &[Value], new: &[Value]) {
        let (mut blanks, mut changes) = (false, false);
        for (index, (old, new)) in old.iter().zip(new).enumerate() {
            // A value where none was before damages nothing.
            if old == new || *old == Value::Null {
                continue;
            }
            if self.missing.contains(&index) {
                self.blanked_counts[index] += 1;
                blanks = true;
            } else {
                self.changed_counts[index] += 1;
                changes = true;
            }
        }
        if blanks {
            sample(&mut self.blanked, self.schema, key);
        }
        if changes {
            sample(&mut self.changed, self.schema, key);
        }
    }

    /// The fields that would be emptied because their column is missing.
    pub fn blanked_fields(&self) -> Vec<FieldCount> {
        self.fields(&self.blanked_counts, |count| count > 0)
    }

    /// The fields that change in so many records.
    pub fn changed_fields(&self, in_many: impl Fn(u64) -> bool) -> Vec<FieldCount> {
        self.fields(&self.changed_counts, in_many)
    }

    fn fields(&self, counts: &[u64], wanted: impl Fn(u64) -> bool) -> Vec<FieldCount> {
        let fields = self.schema.fields().iter().zip(counts);
        let fields = fields.filter(|(_, count)| wanted(**count));
        fields
            .map(|(field, count)| FieldCount {
                field: field.name.clone(),
                title_zh: field.title_zh.clone(),
                title_en: field.title_en.clone(),
                records: *count,
            })
            .collect()
    }
}

fn sample(samples: &mut Vec<String>, schema: &Schema, key: &[u8]) {
    if samples.len() < SAMPLES_MAX {
        samples.push(key_text(schema, key));
    }
}

/// A key as people read it, personal fields and citizen ids masked.
pub(in crate::ingest) fn key_text(schema: &Schema, key: &[u8]) -> String {
    let values = decode_key(key).unwrap_or_default();
    let texts = values.iter().zip(schema.key()).map(|(value, &index)| {
        let text = value.canonical_text();
        if schema.fields()[index].personal { mask(&text) } else { shown(&text) }
    });
    let text = texts.collect::<Vec<_>>().join(" ");
    let shown = text.chars().take(SAMPLE_CHARS_MAX);
    shown.map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Whether keys of a dataset begin with a credit code.
fn leads_with_code(schema: &Schema) -> bool {
    code_of(schema).is_some()
}

/// The credit code that a dataset's keys begin with, if they do.
pub(in crate::ingest) fn code_of(schema: &Schema) -> Option<&Field> {
    let first = schema.key().first().map(|&first| &schema.fields()[first]);
    first.filter(|field| field.kind == FieldType::Uscc)
}

/// Whether a key begins with what would be a credit code but for its check
/// character.
pub(in crate::ingest) fn is_doubtful(key: &[u8]) -> bool {
    let first = decode_key(key).ok().and_then(|values| values.into_iter().next());
    matches!(first, Some(Value::Text(code)) if matches!(uscc::judge(&code), Ok(Quality::CheckFailed { .. })))
}

/// Whether a key begins with what a spreadsheet makes of a long number.
pub(in crate::ingest) fn is_rounded(key: &[u8]) -> bool {
    let first = decode_key(key).ok().and_then(|values| values.into_iter().next());
    matches!(first, Some(Value::Text(code)) if looks_rounded(&code))
}
