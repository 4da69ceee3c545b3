//! Delivered records against stored ones, both in key order.

use protocol::{
    change::Change,
    federation::Registry,
    page::Leaf,
    record::{Record, RecordError},
    schema::{Field, Schema},
    tree::Pages as _,
    value::Value,
};

use super::validate::value_of;
use crate::store::{LivePages, StoreError};

/// Looks records up by ascending keys, a leaf at a time.
///
/// It may run beside commits of the changes that were found so far: they lie
/// before the keys that are still to come.
pub(super) struct Cursor {
    pages: Option<LivePages>,
    at: Option<Position>,
}

struct Position {
    leaf: Leaf,
    /// The first key of the next leaf, if there is one.
    next: Option<Vec<u8>>,
}

impl Cursor {
    /// A cursor over a partition's pages; over nothing if it has none.
    pub fn new(pages: Option<LivePages>) -> Self {
        Self { pages, at: None }
    }

    /// The record under `key`, which is above all keys asked for before.
    pub fn get(&mut self, key: &[u8]) -> Result<Option<&[u8]>, StoreError> {
        self.move_to(key)?;
        Ok(self.at.as_ref().and_then(|at| at.leaf.get(key)))
    }

    /// Loads the leaf where `key` is or would be.
    fn move_to(&mut self, key: &[u8]) -> Result<(), StoreError> {
        let inside = |at: &Position| at.next.as_deref().is_none_or(|next| key < next);
        if !self.at.as_ref().is_some_and(inside) {
            self.at = self.load(key)?;
        }
        Ok(())
    }

    fn load(&mut self, key: &[u8]) -> Result<Option<Position>, StoreError> {
        let Some(pages) = &mut self.pages else {
            return Ok(None);
        };
        let Some((first_key, leaf)) = pages.seek_leaf(key)? else {
            return Ok(None);
        };
        let next = pages.next_key(0, &first_key)?;
        Ok(Some(Position { leaf, next }))
    }

    /// Calls `visit` with all stored keys from `from` (inclusive, or the very
    /// first) up to `to` (exclusive, or the very last). `from` is above all
    /// keys asked for before.
    pub fn keys_between<E: From<StoreError>>(
        &mut self,
        from: Option<&[u8]>,
        to: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut start = from.unwrap_or_default().to_vec();
        self.move_to(&start)?;
        while let Some(at) = &self.at {
            for index in at.leaf.lower_bound(&start)..at.leaf.len() {
                let (key, _) = at.leaf.entry(index);
                if to.is_some_and(|to| key >= to) {
                    return Ok(());
                }
                visit(key)?;
            }
            let Some(next) = at.next.clone() else {
                break;
            };
            // A leaf begins with a record, so this one has nothing below `to`.
            if to.is_some_and(|to| next.as_slice() >= to) {
                break;
            }
            self.at = self.load(&next)?;
            start = next;
        }
        Ok(())
    }
}

/// What a delivered record is to the stored one.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Difference {
    Inserted(Change),
    Updated(Change),
    Unchanged,
    /// Together with the stored values of missing columns it is above a
    /// record's limit.
    TooLong(RecordError),
}

/// Compares delivered records with stored ones under a dataset's schemas.
pub(super) struct Comparer<'a> {
    registry: &'a Registry,
    schema: &'a Schema,
    /// Fields that the file has no column for; an upsert keeps their stored
    /// values.
    kept: Vec<usize>,
}

impl<'a> Comparer<'a> {
    pub fn new(registry: &'a Registry, schema: &'a Schema, kept: &[usize]) -> Self {
        Self { registry, schema, kept: kept.to_vec() }
    }

    pub fn compare(
        &self,
        key: Vec<u8>,
        delivered: Vec<u8>,
        stored: Option<&[u8]>,
    ) -> Result<Difference, StoreError> {
        let Some(stored) = stored else {
            return Ok(Difference::Inserted(Change::Put { key, value: delivered }));
        };
        if stored == delivered {
            return Ok(Difference::Unchanged);
        }
        let same_version = stored.get(..4) == delivered.get(..4);
        if same_version && self.kept.is_empty() {
            return Ok(Difference::Updated(Change::Put { key, value: delivered }));
        }
        let mut new = Record::decode(&delivered)?;
        let old = self.as_current(Record::decode(stored)?)?;
        for &index in &self.kept {
            new.values[index] = old.get(index).cloned().unwrap_or(Value::Null);
        }
        if new.values == old {
            return Ok(Difference::Unchanged);
        }
        Ok(match new.encode() {
            Ok(value) => Difference::Updated(Change::Put { key, value }),
            Err(error) => Difference::TooLong(error),
        })
    }

    /// A stored record's values in the order of the current schema, by field
    /// name; fields that its version did not have are null. Where a field has
    /// another type now, its value is read anew, and null if that fails.
    fn as_current(&self, stored: Record) -> Result<Vec<Value>, StoreError> {
        let dataset = self.schema.dataset();
        if stored.schema_version == self.schema.version() {
            return Ok(stored.values);
        }
        let version = stored.schema_version;
        let Some(old) = self.registry.schema_version(dataset, version) else {
            return Err(StoreError::Damaged {
                place: format!("a record of {dataset}"),
                problem: format!(
                    "it was written under version {version} of the schema, which is unknown here"
                ),
            });
        };
        let value_of = |(index, field): (usize, &Field)| {
            let known = old.fields().iter().position(|known| known.name == field.name)?;
            let value = stored.values.get(known)?;
            if old.fields()[known].kind == field.kind || *value == Value::Null {
                return Some(value.clone());
            }
            value_of(self.schema, index, &value.canonical_text())
        };
        let fields = self.schema.fields().iter().enumerate();
        Ok(fields.map(|field| value_of(field).unwrap_or(Value::Null)).collect())
    }
}
