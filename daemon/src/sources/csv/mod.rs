//! A delivered file's bytes to rows of text.
//!
//! [`open`] finds out the encoding (`detect`), the separator and the header
//! (`dialect`), and gives a table whose rows are split by `reader` and decoded on
//! any thread (`batch`, `decode`). Used through `sources::file`.
//!
//! Invariants: whatever the bytes are, every physical line is either part of a
//! row, blank, or reported as malformed; a malformed record costs its first
//! physical line only; memory is bounded by [`ROW_BYTES_MAX`].
//!
//! The grammar (`scan`) is RFC 4180 read strictly: a field that begins with a
//! quote, blanks in front aside, ends at the next quote that is not doubled, and
//! what follows has to be a separator or the end of the line. The strictness is
//! what lets a forgotten quote be noticed at the next quoted field instead of
//! swallowing rows. Where a line is wrong by it, quotes behind backslashes are
//! tried, as MySQL writes them. UTF-8 and GB18030 are split at the byte level,
//! which is sound because neither uses a quote, comma, semicolon, tab or line end
//! inside a character; so one undecodable field costs one row. What else there is
//! becomes UTF-8 first (`input`).
//!
//! Not here: which column is which field (`ingest::map`), what values mean
//! (`ingest::validate`).

mod batch;
mod decode;
mod detect;
mod dialect;
mod encoding;
mod gb18030;
mod input;
mod plausible;
mod reader;
mod scan;
mod separator;
mod split;
mod table;
#[cfg(test)]
mod tests;

pub use self::{
    detect::starts_as_utf8,
    encoding::Encoding,
    table::{CsvTable, Options, open},
};

/// Longest record in bytes, line breaks in quotes included. A stored record has
/// at most 64 KiB; the rest is room for spelling, and the bound on how far a
/// forgotten quote is followed.
pub const ROW_BYTES_MAX: usize = 1 << 20;
/// Bytes read at once: large enough that system calls do not show.
const CHUNK: usize = 256 * 1024;
/// Bytes read at once from a file smaller than that, so that the many small
/// files of an inbox cost little.
const CHUNK_MIN: usize = 4 * 1024;
