//! Whether the records that a peer delivers are ones that an importer makes.
//!
//! The rule is [`protocol::judge`]'s; here is which schema it is asked with: the
//! version that the record names, as `_federation` has it. A version that has not
//! arrived is no fault of the peer's: what names it is held back, and asked for
//! again later. `_federation` itself is judged by those who read it.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
};

use protocol::{
    change::Change,
    federation::Registry,
    id::PartitionId,
    judge::{RecordProblem, judge, schema_version},
    page::Leaf,
    record::key_hash,
    schema::Schema,
};
use store::StoreError;

use super::Context;

/// Why what a peer delivered is not stored.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unfit {
    /// Nobody's importer makes it.
    #[error("its origin signed a record that no importer makes: {problem} (record {key_hash:.12})")]
    Record {
        /// Tells the record without showing it.
        key_hash: String,
        problem: RecordProblem,
    },
    /// This node cannot judge it yet.
    #[error("it has records of version {0} of the dataset's schema, which is not here yet")]
    UnknownVersion(u32),
}

/// Judges the records of one partition.
pub(super) struct Judge {
    registry: Arc<Registry>,
    partition: PartitionId,
}

impl Judge {
    /// None if nothing is judged: in `_federation`, and in what this node owns.
    pub fn new(context: &Context, partition: &PartitionId) -> Result<Option<Self>, StoreError> {
        if partition.dataset.is_system() || partition.origin == *context.me() {
            return Ok(None);
        }
        let registry = context.membership.current()?;
        Ok(Some(Self { registry, partition: partition.clone() }))
    }

    /// Judges what changes put.
    pub fn changes(&self, changes: &[Change]) -> Result<(), Unfit> {
        self.entries(changes.iter().filter_map(Change::entry))
    }

    /// Judges what a leaf holds.
    pub fn leaf(&self, leaf: &Leaf) -> Result<(), Unfit> {
        self.entries(leaf.entries())
    }

    fn entries<'a>(
        &self,
        entries: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    ) -> Result<(), Unfit> {
        let dataset = &self.partition.dataset;
        let newest = self.registry.schema(dataset);
        // Read once each; there are few.
        let mut older: BTreeMap<u32, Schema> = BTreeMap::new();
        for (key, record) in entries {
            let unfit = |problem| Unfit::Record {
                key_hash: key_hash(self.registry.suite(), key).to_string(),
                problem,
            };
            let version = schema_version(record).map_err(|error| unfit(error.into()))?;
            let schema = match newest.filter(|newest| newest.version() == version) {
                Some(newest) => newest,
                None => match older.entry(version) {
                    Entry::Occupied(known) => known.into_mut(),
                    Entry::Vacant(place) => {
                        let found = self.registry.schema_version(dataset, version);
                        place.insert(found.ok_or(Unfit::UnknownVersion(version))?)
                    }
                },
            };
            judge(schema, key, record).map_err(unfit)?;
        }
        Ok(())
    }
}
