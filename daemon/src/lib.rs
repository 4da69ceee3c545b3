//! The daemon's library: everything between the command line and the disk.
//!
//! Import directions: `cli → app → {ingest, sync, admin} → store`, and
//! `sync → net`. ARCHITECTURE.md shows the way of a record through them.

pub mod store;
