//! The seam in front of the pipeline: where rows come from.
//!
//! A [`Source`] is what was delivered, a [`Table`] is one reading of it. Every
//! format and every way in stands behind these traits; the importer knows
//! nothing of files, encodings or separators. Implemented in `sources`.
//!
//! Invariants: a table that is opened has a header that fits the dataset
//! ([`Mapping`]); opening a source again reads the same bytes from the front.

use std::{error::Error, fmt, io::Write, sync::Arc};

use protocol::schema::Schema;

use super::{
    map::{HeaderError, Mapping, PassedOver},
    rows::Row,
};

/// Something that was delivered and can be read, also several times.
pub trait Source: fmt::Debug + Send + Sync {
    /// What people call it: a file's name, without its directory.
    fn name(&self) -> &str;

    /// Finds out what it is and how it is to be read, and reads the header.
    fn open(&self, schema: &Schema) -> Result<Box<dyn Table>, SourceError>;

    /// As [`Source::open`], as quickly as the beginning allows; none where rows
    /// cannot be told apart without reading them, or anything is wrong: whoever
    /// opens it the other way is told of that.
    fn open_quickly(&self, schema: &Schema) -> Option<Box<dyn Recallable>>;

    /// Whether its bytes still are the ones that it was opened with.
    fn unchanged(&self) -> Result<(), SourceError>;

    /// Copies the delivered bytes, which still have to be the ones that were read.
    fn copy_to(&self, out: &mut dyn Write) -> Result<(), SourceError>;

    /// How it is to be read, for opening a copy of it later on.
    fn settings(&self) -> serde_json::Value;
}

/// A source that is being read, from the front to the end.
pub trait Table: Send {
    /// Which column is which field.
    fn mapping(&self) -> &Arc<Mapping>;

    /// Everything but its bytes that decides what a row is.
    fn reading(&self) -> Vec<String>;

    /// The size of what is read, for progress.
    fn bytes_total(&self) -> u64;

    /// How much of that was read.
    fn bytes_read(&self) -> u64;

    /// The next rows that are not blank; neither rows nor blank lines at the end.
    fn next_rows(&mut self) -> Result<Box<dyn Rows>, SourceError>;

    /// What there is to say about it as a whole, once it was read to its end.
    fn summary(&self) -> Summary;
}

/// What a table was, as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Its parts (sheets, files of an archive), if it has any: [`Place::part`] is
    /// an index into them.
    ///
    /// [`Place::part`]: super::rows::Place::part
    pub parts: Vec<String>,
    /// It may have been cut off: its last line has no end, though others have.
    pub cut: bool,
    /// Parts of it that were not read.
    pub left_out: Vec<LeftOut>,
}

/// A part of a delivery that was not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// Which, and why, in Chinese.
    pub zh: String,
    /// The same in English.
    pub en: String,
    /// It may be data all the same.
    pub doubtful: bool,
}

impl From<PassedOver> for LeftOut {
    fn from(PassedOver { zh, en, doubtful }: PassedOver) -> Self {
        Self { zh, en, doubtful }
    }
}

/// A table whose rows can be found without being split.
pub trait Recallable: Table {
    /// As [`Table::next_rows`], where it matters only where rows are.
    fn next_bodies(&mut self) -> Result<Box<dyn RowBodies>, SourceError>;

    /// For a pipeline that reads rows as well.
    fn as_table(&mut self) -> &mut dyn Table;
}

/// Consecutive rows, which any thread may decode.
pub trait Rows: Send {
    /// How many there are, malformed ones among them.
    fn len(&self) -> usize;

    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of the rows.
    fn bytes(&self) -> usize;

    /// Lines among them without any content, which are no rows.
    fn blank(&self) -> u64;

    /// Which column is which field: parts of a table may have their columns in
    /// another order.
    fn mapping(&self) -> &Arc<Mapping>;

    /// What a row is recognised by when it comes again: its bytes as they were
    /// delivered. None where it is malformed.
    fn body(&self, at: usize) -> Option<&[u8]>;

    /// Calls `visit` with every row, in their order.
    fn for_each(self: Box<Self>, visit: &mut dyn FnMut(Row<'_>));
}

/// Consecutive rows of which only the ends are known.
pub trait RowBodies: Send {
    /// How many there are, malformed ones among them.
    fn len(&self) -> usize;

    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Lines among them without any content.
    fn blank(&self) -> u64;

    /// The rows' bytes as they were delivered.
    fn bodies(&self) -> Box<dyn Iterator<Item = &[u8]> + '_>;

    /// Some of the rows, with their fields; `kept` has ascending places.
    fn split(&self, kept: &[usize]) -> Box<dyn Rows>;
}

/// Why a source cannot be read. What it says to people comes from the format.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It cannot be reached for now: another try may work.
    #[error("{0}")]
    Access(Box<dyn Error + Send + Sync>),
    /// It changed while it was read.
    #[error(
        "{name} 在读取过程中被修改，请重新交付 / {name} changed while it was read: deliver it again"
    )]
    Changed {
        /// What was delivered.
        name: String,
    },
    /// It is wrong and stays wrong.
    #[error("{0}")]
    Content(Box<dyn Error + Send + Sync>),
    /// No line of it is a header of the dataset.
    #[error("{0}")]
    NoHeader(Box<dyn Error + Send + Sync>),
    /// There is nothing in it, not even a header.
    #[error("{0}")]
    Empty(Box<dyn Error + Send + Sync>),
    /// Its header does not fit the dataset.
    #[error("{name}: {problem}")]
    Header {
        /// What was delivered.
        name: String,
        /// What is wrong with its header.
        problem: Box<HeaderError>,
    },
}
