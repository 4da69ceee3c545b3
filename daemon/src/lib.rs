//! The daemon's library: everything between the command line and the disk.
//!
//! Import directions: `cli → app → {sources → ingest, admin → upkeep → sync} → membership`,
//! and `sync → net`; below all of them is the `store` crate.
//! ARCHITECTURE.md shows the way of a record through them.

pub mod admin;
pub mod app;
pub mod cli;
pub mod ingest;
mod limit;
pub mod membership;
mod memory;
pub mod net;
pub mod sources;
pub mod sync;
pub mod telemetry;
pub mod upkeep;
