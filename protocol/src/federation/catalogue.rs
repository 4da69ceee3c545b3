//! The schemas that `_federation` has, within limits.
//!
//! Used by [`super::Registry`]. A schema takes ten times the room of its record once
//! it is read, so of each dataset only the newest version is kept like that; of the
//! others the text is kept, and read when a record of that time is met. Invariant:
//! what is kept is what comes first in the order of the records' keys, as far as the
//! limits go. Not here: what a schema may say ([`crate::schema`]).

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex},
};

use super::{Rebuild, entry::MalformedEntry};
use crate::{
    id::DatasetId,
    schema::{RawSchema, Schema},
};

/// Most datasets of a federation: a city's catalogue of credit records lists fewer
/// than a hundred.
pub const DATASETS_MAX: usize = 256;
/// Most versions of a dataset: one for each year of a working life, and records name
/// the version that they were written under, so none is ever taken away.
pub const VERSIONS_MAX: usize = 64;
/// Most bytes of all schemas together, as JSON. The widest national layout takes
/// 12 KB; what is read of them takes about ten times as much in memory.
pub const SCHEMA_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Earlier versions that are kept once they were read: a partition has records of
/// few versions at once.
const EARLIER_READ_MAX: usize = 8;

/// All schemas.
#[derive(Debug, Clone, Default)]
pub(super) struct Catalogue {
    datasets: BTreeMap<DatasetId, Versions>,
    bytes: usize,
    /// Something was left out: what is here does not say what comes in its place.
    left_out: bool,
    earlier: Arc<Mutex<VecDeque<Read>>>,
}

/// A text, and what was read of it.
type Read = (Arc<str>, Schema);

#[derive(Debug, Clone)]
struct Versions {
    /// The JSON texts.
    bodies: BTreeMap<u32, Arc<str>>,
    newest: Schema,
    /// What is answered in its place.
    shown: Option<Schema>,
}

impl Versions {
    fn shown(&self) -> &Schema {
        self.shown.as_ref().unwrap_or(&self.newest)
    }
}

impl Catalogue {
    /// Refuses a schema that is above a limit, and keeps in mind that there is one.
    pub fn make_sure_of_room(
        &mut self,
        dataset: &DatasetId,
        version: u32,
        bytes: usize,
    ) -> Result<(), MalformedEntry> {
        let known = self.datasets.get(dataset);
        let limit = if known.is_none() && self.datasets.len() >= DATASETS_MAX {
            format!("{DATASETS_MAX} datasets")
        } else if known.is_some_and(|known| known.bodies.len() >= VERSIONS_MAX) {
            format!("{VERSIONS_MAX} versions of it")
        } else if self.bytes + bytes > SCHEMA_BYTES_MAX {
            format!("{SCHEMA_BYTES_MAX} bytes of schemas")
        } else {
            return Ok(());
        };
        self.left_out = true;
        Err(MalformedEntry(format!(
            "schema {dataset} {version}: it is ignored, because there are more than {limit}"
        )))
    }

    /// Takes a schema that there is room for, with its JSON text.
    pub fn insert(&mut self, schema: Schema, body: String) {
        let (dataset, version) = (schema.dataset().clone(), schema.version());
        self.bytes += body.len();
        let body: Arc<str> = body.into();
        match self.datasets.get_mut(&dataset) {
            Some(known) => {
                known.bodies.insert(version, body);
                if version > known.newest.version() {
                    (known.newest, known.shown) = (schema, None);
                }
            }
            None => {
                let bodies = BTreeMap::from([(version, body)]);
                self.datasets.insert(dataset, Versions { bodies, newest: schema, shown: None });
            }
        }
    }

    /// Takes a schema away, if it is here.
    pub fn remove(&mut self, dataset: &DatasetId, version: u32) -> Result<(), Rebuild> {
        let Some(known) = self.datasets.get_mut(dataset) else {
            return Ok(());
        };
        let Some(body) = known.bodies.remove(&version) else {
            return Ok(());
        };
        self.bytes -= body.len();
        match known.bodies.last_key_value() {
            None => drop(self.datasets.remove(dataset)),
            Some((newest, _)) if *newest == known.newest.version() => {}
            // It was checked when it came.
            Some((_, body)) => {
                (known.newest, known.shown) = (read(body).ok_or(Rebuild)?, None);
            }
        }
        Ok(())
    }

    /// Whether something was left out, so that a change to the schemas may bring in
    /// what is not here.
    pub fn is_cut(&self) -> bool {
        self.left_out
    }

    /// The newest version of a dataset as it was published.
    pub fn newest(&self, dataset: &DatasetId) -> Option<&Schema> {
        self.datasets.get(dataset).map(|versions| &versions.newest)
    }

    /// The newest version of a dataset as this node shows it.
    pub fn shown(&self, dataset: &DatasetId) -> Option<&Schema> {
        self.datasets.get(dataset).map(Versions::shown)
    }

    /// Answers `schema` instead of the newest version, or that one again.
    pub fn show_as(&mut self, dataset: &DatasetId, schema: Option<Schema>) {
        if let Some(versions) = self.datasets.get_mut(dataset) {
            versions.shown = schema;
        }
    }

    /// The newest version of every dataset as this node shows it, in order.
    pub fn all(&self) -> impl Iterator<Item = &Schema> {
        self.datasets.values().map(Versions::shown)
    }

    /// One version of a dataset.
    pub fn version(&self, dataset: &DatasetId, version: u32) -> Option<Schema> {
        let versions = self.datasets.get(dataset)?;
        if versions.newest.version() == version {
            return Some(versions.shown().clone());
        }
        let body = versions.bodies.get(&version)?;
        let mut earlier = self.earlier.lock().unwrap_or_else(|error| error.into_inner());
        if let Some(at) = earlier.iter().position(|(of, _)| Arc::ptr_eq(of, body)) {
            return earlier.get(at).map(|(_, schema)| schema.clone());
        }
        let schema = read(body)?;
        if earlier.len() >= EARLIER_READ_MAX {
            earlier.pop_front();
        }
        earlier.push_back((body.clone(), schema.clone()));
        Some(schema)
    }

    /// How many versions a dataset has.
    pub fn versions(&self, dataset: &DatasetId) -> usize {
        self.datasets.get(dataset).map_or(0, |versions| versions.bodies.len())
    }

    /// How many datasets there are.
    pub fn len(&self) -> usize {
        self.datasets.len()
    }

    /// Bytes of all texts.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

fn read(body: &str) -> Option<Schema> {
    let raw: RawSchema = serde_json::from_str(body).ok()?;
    Schema::check(raw).ok()
}
