//! A state tree over the engine: pages of a generation, live or saved for
//! snapshots, and the batches that change them.
//!
//! - [`pages`]: pages read, and made for an update;
//! - [`ahead`]: leaves that are made before the writer's turn;
//! - [`saved`]: what is saved while a snapshot is open;
//! - [`page_batch`]: what a commit or a staging writes of pages.
//!
//! A tree is a number and a generation here. Which partition has them, which
//! generation is current and what was signed are not known.

pub mod ahead;
pub mod page_batch;
pub mod pages;
pub mod saved;

pub use self::{
    ahead::MadeAhead,
    page_batch::PageBatch,
    pages::{Entries, GenerationPages, LeafSpan, PagesAtOnce, leaf_span},
    saved::OpenSnapshot,
};
