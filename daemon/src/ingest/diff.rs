//! Delivered records against stored ones, both in key order.

use protocol::{
    change::Change,
    id::DatasetId,
    federation::Registry,
    page::Leaf,
    record::Record,
    schema::Schema,
    tree::Pages as _,
    value::Value,
};

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
    first_key: Vec<u8>,
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
        let inside = |at: &Position| at.next.as_deref().is_none_or(|next| key < next);
        if !self.at.as_ref().is_some_and(inside) {
            self.at = self.load(key)?;
        }
        Ok(self.at.as_ref().and_then(|at| at.leaf.get(key)))
    }

    fn load(&mut self, key: &[u8]) -> Result<Option<Position>, StoreError> {
        let Some(pages) = &mut self.pages else {
            return Ok(None);
        };
        let Some((first_key, body)) = pages.seek(0, key)? else {
            return Ok(None);
        };
        let next = pages.next_key(0, &first_key)?;
        Ok(Some(Position { leaf: Leaf::decode(&body)?, first_key, next }))
    }

    /// Calls `visit` with all stored keys from `from` (inclusive, or the very
    /// first) up to `to` (exclusive, or the very last).
    pub fn keys_between(
        &mut self,
        from: Option<&[u8]>,
        to: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8]),
    ) -> Result<(), StoreError> {
        let start = from.unwrap_or_default();
        self.get(start)?;
        loop {
            let Some(at) = &self.at else {
                return Ok(());
            };
            for (key, _) in at.leaf.entries() {
                if key >= start && to.is_none_or(|to| key < to) {
                    visit(key);
                }
            }
            let Some(next) = at.next.clone().filter(|next| to.is_none_or(|to| next.as_slice() < to))
            else {
                return Ok(());
            };
            self.at = self.load(&next)?;
            if self.at.as_ref().is_none_or(|at| at.first_key != next) {
                return Ok(());
            }
        }
    }
}

/// What a delivered record is to the stored one.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Inserted(Change),
    Updated(Change),
    Unchanged,
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
    ) -> Result<Outcome, StoreError> {
        let Some(stored) = stored else {
            return Ok(Outcome::Inserted(Change::Put { key, value: delivered }));
        };
        if stored == delivered {
            return Ok(Outcome::Unchanged);
        }
        let same_version = stored.get(..4) == delivered.get(..4);
        if same_version && self.kept.is_empty() {
            return Ok(Outcome::Updated(Change::Put { key, value: delivered }));
        }
        let mut new = Record::decode(&delivered)?;
        let old = self.as_current(Record::decode(stored)?);
        for &index in &self.kept {
            new.values[index] = old[index].clone();
        }
        if new.values == old {
            return Ok(Outcome::Unchanged);
        }
        let value = new.encode().map_err(|error| StoreError::Damaged {
            place: format!("a record of {}", self.schema.dataset()),
            problem: format!("{error} once the stored values of missing columns are kept"),
        })?;
        Ok(Outcome::Updated(Change::Put { key, value }))
    }

    /// A stored record's values in the order of the current schema, by field
    /// name; fields that its version did not have are null.
    fn as_current(&self, stored: Record) -> Vec<Value> {
        let dataset: &DatasetId = self.schema.dataset();
        if stored.schema_version == self.schema.version() {
            return stored.values;
        }
        let Some(old) = self.registry.schema_version(dataset, stored.schema_version) else {
            return vec![Value::Null; self.schema.fields().len()];
        };
        self.schema
            .fields()
            .iter()
            .map(|field| {
                let index = old.fields().iter().position(|known| known.name == field.name);
                index.and_then(|index| stored.values.get(index)).cloned().unwrap_or(Value::Null)
            })
            .collect()
    }
}
