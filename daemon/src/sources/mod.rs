//! Where rows come from: formats, and ways in.
//!
//! Each stands in a folder or file of its own behind the seam that
//! `crate::ingest::source` describes: [`csv`] reads text with separators, [`sheet`]
//! workbooks, [`json`] JSON, [`packed`] archives; [`file`] is a delivered file, which
//! finds the format for itself ([`kind`]), and [`inbox`] takes files from folders.
//! What could end the process that reads it is read in another one ([`child`],
//! [`foreign`]). Adding a format is a folder here, and a line in [`file`].
//!
//! Not here: what rows mean, and what they do to the store (`ingest`).

pub mod child;
pub mod csv;
pub mod error;
pub mod file;
pub mod foreign;
pub mod inbox;
pub mod json;
pub mod kind;
pub mod packed;
pub mod sheet;
pub mod texts;

#[cfg(test)]
mod tests;

pub use file::{DeliveredFile, Links, Reading};

/// Most columns with labels: eight times the most fields of a schema, so that the
/// message about unknown columns is still worth reading.
pub const COLUMNS_MAX: usize = 1024;
