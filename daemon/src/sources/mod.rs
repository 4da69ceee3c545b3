//! Where rows come from: formats, and ways in.
//!
//! Each stands in a folder or file of its own behind the seam that
//! `crate::ingest::source` describes: [`csv`] reads text with separators, [`file`]
//! is a delivered file, which finds the format for itself, and [`inbox`] takes
//! files from folders. Adding a format is a folder here, and a line in [`file`].
//!
//! Not here: what rows mean, and what they do to the store (`ingest`).

pub mod csv;
pub mod error;
pub mod file;
pub mod inbox;

#[cfg(test)]
mod tests;

pub use file::{DeliveredFile, Links, Reading};

/// Most columns with labels: eight times the most fields of a schema, so that the
/// message about unknown columns is still worth reading.
pub const COLUMNS_MAX: usize = 1024;
