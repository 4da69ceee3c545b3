//! `_federation`: the dataset whose records are members, their signing keys,
//! certificate authorities, revocations, the hub's addresses, and the catalogue.
//!
//! Its origin is the hub, and it replicates like any other dataset, so what a
//! node believes about its federation is signed, chained and comparable. Bodies
//! are JSON texts, so that `creditsync get _federation member 410122` shows
//! them.
//!
//! - [`entry`]: one record: shapes, texts, bytes;
//! - [`addresses`]: of these, where the hub is dialled;
//! - [`registry`]: the same content, ready for questions;
//! - [`node_keys`]: of that, the signing keys of one node;
//! - [`catalogue`]: of that, the schemas, within limits.

mod addresses;
mod catalogue;
mod entry;
mod node_keys;
mod registry;

pub use self::{
    addresses::HubAddresses,
    catalogue::{DATASETS_MAX, SCHEMA_BYTES_MAX, VERSIONS_MAX},
    entry::{
        CaKind, CaRecord, CaState, Entry, Introduction, KeyRecord, MalformedEntry, Member,
        Revocation, Role, certificate_id, schema, succession_bytes,
    },
    registry::{Anchored, KnownCa, KnownKey, Rebuild, Registry},
};
