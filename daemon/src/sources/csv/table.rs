//! A CSV file as the pipeline sees it: its header fits the dataset.

use std::sync::Arc;

use protocol::schema::Schema;

use super::{CsvFile, Encoding, input::Bytes};
use crate::ingest::{
    map::Mapping,
    source::{Recallable, RowBodies, Rows, SourceError, Summary, Table},
};

/// Opens a file whose bytes these are, `bytes_total` of them.
pub fn open(
    name: &str,
    bytes: Box<dyn Bytes>,
    bytes_total: u64,
    encoding: Encoding,
    schema: &Schema,
) -> Result<CsvTable, SourceError> {
    let file = CsvFile::new(name.to_owned(), bytes, bytes_total, encoding)?;
    let mapping = Mapping::new(file.header(), schema)
        .map_err(|problem| SourceError::Header { name: name.to_owned(), problem })?;
    Ok(CsvTable { file, mapping: Arc::new(mapping) })
}

/// A file that is being read.
pub struct CsvTable {
    file: CsvFile,
    mapping: Arc<Mapping>,
}

impl Table for CsvTable {
    fn mapping(&self) -> &Arc<Mapping> {
        &self.mapping
    }

    fn reading(&self) -> Vec<String> {
        let separator = char::from(self.file.separator()).to_string();
        let fixed = [self.file.encoding_name().to_owned(), separator];
        fixed.into_iter().chain(self.file.header().iter().cloned()).collect()
    }

    fn bytes_total(&self) -> u64 {
        self.file.bytes_total()
    }

    fn bytes_read(&self) -> u64 {
        self.file.bytes_read()
    }

    fn next_rows(&mut self) -> Result<Box<dyn Rows>, SourceError> {
        Ok(Box::new(self.file.next_rows(&self.mapping)?))
    }

    fn summary(&self) -> Summary {
        Summary::default()
    }
}

impl Recallable for CsvTable {
    fn next_bodies(&mut self) -> Result<Box<dyn RowBodies>, SourceError> {
        Ok(Box::new(self.file.next_bodies(&self.mapping)?))
    }

    fn as_table(&mut self) -> &mut dyn Table {
        self
    }
}
