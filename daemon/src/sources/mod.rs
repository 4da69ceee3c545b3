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

/// Largest file, in bytes, that is read at all. That is some hundred times what a county
/// has; a file that is nothing but a hole has as many bytes as somebody wants, and
/// reading it keeps other deliveries waiting.
pub const FILE_BYTES_MAX: u64 = 64 << 30;
/// Most columns with labels: eight times the most fields of a schema, so that the
/// message about unknown columns is still worth reading.
pub const COLUMNS_MAX: usize = 1024;
