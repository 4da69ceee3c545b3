//! A partition as a whole, apart from any database: read out of an open store, judged,
//! and put into a new one. What backups are made of.
//!
//! - [`piece`]: what a partition consists of, and its bytes;
//! - [`take`]: all pieces of a partition at one moment, while the store works;
//! - [`check`]: whether pieces are all of one partition, as its origin signed it;
//! - [`fill`]: a store that nobody has opened yet, filled with checked pieces.
//!
//! Invariant: what is filled in was computed here. A partition gets its name in the
//! new store only when the tree over its leaves has the root that its head says. Not
//! here: the file of a backup, and whose signature counts.

pub mod check;
pub mod fill;
pub mod piece;
pub mod take;
