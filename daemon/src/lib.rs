//! The daemon's library: everything between the command line and the disk.
//!
//! Import directions: `cli → app → {sources → ingest, sync, admin} → store`, and
//! `sync → net`; `membership` stands between them and the store.
//! ARCHITECTURE.md shows the way of a record through them.

pub mod admin;
pub mod app;
pub mod cli;
mod cores;
pub mod ingest;
mod limit;
pub mod membership;
pub mod net;
pub mod sources;
pub mod store;
pub mod sync;
pub mod telemetry;
