//! From a delivered file to signed change sets.
//!
//! A file passes through these modules in this order: [`decode`] turns bytes
//! into rows of text, [`map`] says which column is which field, [`validate`]
//! makes a record of a row or says why not ([`read`] has all cores do that),
//! [`spool`] sorts records by key
//! with bounded memory, [`diff`] compares them with what is stored, [`cut`]
//! makes change sets of the differences, and [`report`] counts and writes down
//! what was rejected. [`import`] leads a file through all of them: [`delivered`]
//! through the first half, or only what of it [`recall`] does not know from the
//! last full file, and [`apply`] through the second. In front of
//! it, [`inbox`] takes files from folders; behind it, [`deliveries`] keeps those
//! that a person has to approve.
//!
//! Invariant: a problem of one row never stops the file, and memory never
//! depends on the file's size.

mod apply;
mod cut;
pub mod decode;
mod delivered;
pub mod deliveries;
mod diff;
pub mod import;
pub mod inbox;
pub mod map;
mod read;
mod recall;
pub mod report;
pub mod spool;
pub mod validate;

#[cfg(test)]
mod tests;

pub use import::{ImportError, ImportRequest, Importer, Progress};
