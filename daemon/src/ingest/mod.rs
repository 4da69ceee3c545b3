//! From rows, whatever they came from, to signed change sets.
//!
//! Rows come through a seam ([`source`]): readers of formats, and ways in, stand
//! behind it (`crate::sources`). From there they pass through these modules:
//! [`map`] says which column is which field, [`validate`] makes a record of a row
//! or says why not (`check` has all cores do that), [`spool`] sorts records by key
//! with bounded memory, `diff` compares them with what is stored, `cut` makes
//! change sets of the differences, and [`report`] counts and writes down what was
//! rejected. [`import`] leads a delivery through all of them: `delivered` through
//! the first half, or only what of it `recall` does not know from the last full
//! file, and `apply` through the second. [`hold`] says when a delivery waits for
//! a person, and [`held`] keeps it until then ([`deliver`] decides between the
//! two). [`history`] notes what was delivered and what was stored before, and
//! [`undo`] takes a delivery back. Whatever is written beside the store on the way
//! leaves it room ([`temporary`]).
//!
//! Invariant: a problem of one row never stops a delivery, and memory never
//! depends on its size.

mod apply;
mod check;
mod context;
mod cut;
pub mod deliver;
mod delivered;
mod diff;
pub mod held;
pub mod history;
pub mod hold;
pub mod import;
pub mod map;
#[cfg(test)]
pub(crate) mod random;
mod recall;
mod rejects;
pub mod report;
pub mod rows;
mod skip;
pub mod source;
pub mod spool;
pub mod stamp;
pub mod temporary;
pub mod text_problem;
pub mod undo;
pub mod validate;
pub mod words;

pub use import::Importer;
pub use words::{ImportError, ImportRequest, Progress};
