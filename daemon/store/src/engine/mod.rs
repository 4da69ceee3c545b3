//! The engine: one ordered table of keys and values, changed batch by batch and
//! durable when it says so. Bytes in, bytes out.
//!
//! The only folder that knows sled. It stands for everything that sled does not
//! do by itself; ARCHITECTURE.md, section "The store on sled", says why.
//!
//! - [`disk`]: the database as the rest of the store uses it;
//! - [`base`]: sled opened, and the names of its directories;
//! - [`opening`]: its format checked, the journal replayed;
//! - [`compact`]: all that counts copied into a new sled, which takes over;
//! - [`values`]: what a batch writes and reads give back: chunks, places, checksums;
//! - [`journal`]: the file in which small batches are durable first;
//! - [`table`]: these batches in memory, above sled;
//! - [`sweep`]: room in sled that nothing needs any more, given back;
//! - [`packs`]: files with the values of bulk loads;
//! - [`repack`]: those that are mostly waste, rewritten;
//! - [`keys`]: the few keys that the engine uses itself.
//!
//! What a partition, a page or a snapshot is, is not known here: `crate::keys`
//! says which values lie under which key.

pub mod base;
pub mod compact;
pub mod disk;
pub mod journal;
pub mod keys;
pub mod opening;
pub mod packs;
pub mod repack;
pub mod sweep;
pub mod table;
pub mod values;

pub use self::{
    compact::{Copied, Weighed},
    disk::{Disk, Options},
    packs::PackId,
    repack::{Repacked, Repacking},
    sweep::{ROUNDS_BUSY, ROUNDS_IDLE},
    table::Bytes,
    values::{Batch, CHUNK_BYTES_MAX, FoundPair, Read},
};
use crate::error::StoreError;

impl From<sled::Error> for StoreError {
    fn from(error: sled::Error) -> Self {
        let damaged = |problem: &str| StoreError::Damaged {
            place: "the database".into(),
            problem: problem.into(),
        };
        match error {
            sled::Error::Corruption { .. } => damaged("what is read of it is garbled"),
            sled::Error::ReportableBug(_) => damaged("it contradicts itself"),
            sled::Error::Io(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                damaged("it is cut short")
            }
            error => StoreError::Database(error.to_string()),
        }
    }
}
