//! A JSON file as the pipeline sees it: its names fit the dataset.
//!
//! Used by [`crate::sources::file`]. Not here: how JSON is read ([`super`]).

use std::sync::Arc;

use protocol::schema::Schema;

use super::{Charset, Input, JsonError, JsonFile};
use crate::{
    ingest::{
        map::Mapping,
        source::{Rows, SourceError, Summary, Table},
    },
    sources::error::Told,
};

/// Opens a JSON file whose bytes these are, `bytes_total` of them.
pub fn open(
    name: &str,
    input: Box<dyn Input>,
    bytes_total: u64,
    charset: Charset,
    schema: &Schema,
    ignored: &[String],
) -> Result<JsonTable, SourceError> {
    let file =
        JsonFile::open(input, bytes_total, name, charset).map_err(|error| told(name, &error))?;
    let mapping = Mapping::new(file.header(), schema, ignored).map_err(|problem| {
        SourceError::Header { name: name.to_owned(), problem: Box::new(problem) }
    })?;
    Ok(JsonTable { name: name.to_owned(), file, mapping: Arc::new(mapping) })
}

fn told(name: &str, error: &JsonError) -> SourceError {
    let told = Box::new(Told(format!("{name}: {error}")));
    match error {
        JsonError::Io(_) => SourceError::Access(told),
        JsonError::NoRecords => SourceError::Empty(told),
        _ => SourceError::Content(told),
    }
}

/// A JSON file that is being read.
#[derive(Debug)]
pub struct JsonTable {
    name: String,
    file: JsonFile,
    mapping: Arc<Mapping>,
}

impl Table for JsonTable {
    fn mapping(&self) -> &Arc<Mapping> {
        &self.mapping
    }

    fn reading(&self) -> Vec<String> {
        let fixed = ["json".to_owned(), self.file.encoding().to_owned()];
        fixed.into_iter().chain(self.file.header().iter().cloned()).collect()
    }

    fn bytes_total(&self) -> u64 {
        self.file.bytes_total()
    }

    fn bytes_read(&self) -> u64 {
        self.file.bytes_read()
    }

    fn next_rows(&mut self) -> Result<Box<dyn Rows>, SourceError> {
        let rows = self.file.next_rows().map_err(|error| told(&self.name, &error))?;
        Ok(rows.mapped(0, self.mapping.clone()))
    }

    fn summary(&self) -> Summary {
        Summary { cut: self.file.is_cut(), ..Summary::default() }
    }
}
