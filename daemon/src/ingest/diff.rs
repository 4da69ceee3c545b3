//! Delivered records against stored ones, both in key order.

use protocol::{
    change::Change,
    federation::Registry,
    hash::Hash,
    record::{Record, RecordError, entry_digest},
    schema::{Field, Schema},
    value::Value,
};
use store::{Entries, LeafSpan, LivePages, StoreError};

use super::validate::value_of;

/// Looks records up by ascending keys, a leaf at a time.
///
/// It may run beside commits of the changes that were found so far: they lie
/// before the keys that are still to come.
pub(super) struct Cursor {
    pages: Option<LivePages>,
    by_digest: bool,
    /// A record of the leaf at hand was wanted in full.
    differs: bool,
    at: Option<LeafSpan>,
}

/// Takes a stored key and its record.
pub(super) type Visit<'v, E> = &'v mut dyn FnMut(&[u8], &[u8]) -> Result<(), E>;

/// What is stored under a key.
pub(super) enum Stored<'a> {
    Nothing,
    Record(&'a [u8]),
    /// The digest of the record and its key.
    Digest(&'a Hash),
}

impl Cursor {
    /// A cursor over a partition's pages; over nothing if it has none. By digests
    /// it need not unpack a leaf, but finds no record where there is one.
    pub fn new(pages: Option<LivePages>, by_digest: bool) -> Self {
        Self { pages, by_digest, differs: false, at: None }
    }

    /// What lies under `key`, which is above all keys asked for before.
    pub fn get(&mut self, key: &[u8]) -> Result<Stored<'_>, StoreError> {
        self.move_to(key)?;
        let stored = self.at.as_ref().and_then(|at| match &at.entries {
            Entries::Whole(leaf) => leaf.get(key).map(Stored::Record),
            Entries::Digests(digests) => digests.get(key).map(Stored::Digest),
        });
        Ok(stored.unwrap_or(Stored::Nothing))
    }

    /// Loads the leaf where `key` is or would be.
    fn move_to(&mut self, key: &[u8]) -> Result<(), StoreError> {
        let inside = |at: &LeafSpan| at.next.as_deref().is_none_or(|next| key < next);
        if !self.at.as_ref().is_some_and(inside) {
            self.at = self.load(key)?;
        }
        Ok(())
    }

    fn load(&mut self, key: &[u8]) -> Result<Option<LeafSpan>, StoreError> {
        match &mut self.pages {
            Some(pages) => {
                // Leaves with differences lie together.
                let by_digest = self.by_digest && !std::mem::take(&mut self.differs);
                pages.leaf_span(key, by_digest)
            }
            None => Ok(None),
        }
    }

    /// The record under the key that was looked up last, in full. Where it was
    /// found by its digest, its leaf is unpacked, and the next one at once.
    pub fn record(&mut self, key: &[u8]) -> Result<Option<&[u8]>, StoreError> {
        self.unpack(key)?;
        self.differs = true;
        Ok(self.at.as_ref().and_then(|at| match &at.entries {
            Entries::Whole(leaf) => leaf.get(key),
            Entries::Digests(_) => None,
        }))
    }

    /// Unpacks the leaf where `key` is or would be, which is loaded.
    fn unpack(&mut self, key: &[u8]) -> Result<(), StoreError> {
        let digests = |at: &LeafSpan| matches!(at.entries, Entries::Digests(_));
        if let Some(pages) = self.pages.as_mut().filter(|_| self.at.as_ref().is_some_and(digests)) {
            self.at = pages.leaf_span(key, false)?;
        }
        Ok(())
    }

    /// Calls `visit` with all stored keys and records from `from` (inclusive, or
    /// the very first) up to `to` (exclusive, or the very last). `from` is above
    /// all keys asked for before.
    pub fn records_between<E: From<StoreError>>(
        &mut self,
        from: Option<&[u8]>,
        to: Option<&[u8]>,
        visit: Visit<'_, E>,
    ) -> Result<(), E> {
        let mut start = from.unwrap_or_default().to_vec();
        self.move_to(&start)?;
        loop {
            self.unpack(&start)?;
            let Some(at) = &self.at else {
                return Ok(());
            };
            if let Entries::Whole(leaf) = &at.entries {
                for index in leaf.lower_bound(&start)..leaf.len() {
                    let (key, value) = leaf.entry(index);
                    if to.is_some_and(|to| key >= to) {
                        return Ok(());
                    }
                    visit(key, value)?;
                }
            }
            // A leaf begins with a record, so one that begins behind `to` has
            // nothing below it.
            let next = at.next.clone().filter(|next| to.is_none_or(|to| next.as_slice() < to));
            let Some(next) = next else {
                return Ok(());
            };
            self.at = self.load(&next)?;
            start = next;
        }
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

    /// Whether digests tell all that there is to know: nothing of what is stored
    /// is kept, nor can it mean the same in other bytes.
    pub fn needs_no_records(&self) -> bool {
        self.kept.is_empty() && self.schema.version() == 1
    }

    pub fn compare(
        &self,
        key: Vec<u8>,
        delivered: Vec<u8>,
        stored: Stored<'_>,
    ) -> Result<Difference, StoreError> {
        let stored = match stored {
            Stored::Nothing => {
                return Ok(Difference::Inserted(Change::Put { key, value: delivered }));
            }
            Stored::Digest(digest) if entry_digest(digest.suite(), &key, &delivered) == *digest => {
                return Ok(Difference::Unchanged);
            }
            Stored::Digest(_) => {
                return Ok(Difference::Updated(Change::Put { key, value: delivered }));
            }
            Stored::Record(stored) if stored == delivered => return Ok(Difference::Unchanged),
            Stored::Record(stored) => stored,
        };
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

    /// The values of a stored record, in the order of the current schema.
    pub fn values_of(&self, stored: &[u8]) -> Result<Vec<Value>, StoreError> {
        self.as_current(Record::decode(stored)?)
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
