//! Work that keeps a node well and that nobody waits for in the way of a record.
//!
//! - [`backup`]: all of a node in one file, and a node out of one.
//!
//! Not here yet: what goes on in the background by itself.

pub mod backup;
