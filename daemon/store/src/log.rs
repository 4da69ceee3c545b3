//! A partition's log: signed headers, and change sets where their bodies are kept.

use protocol::change::{ChangeSet, SignedHeader};

use crate::{engine::Disk, error::StoreError, keys};

/// The signed header with this number, of the partition with this one.
pub fn header(disk: &Disk, number: u32, seq: u64) -> Result<Option<SignedHeader>, StoreError> {
    let Some(bytes) = disk.get(&keys::log_header(number, seq))? else {
        return Ok(None);
    };
    SignedHeader::decode(&bytes).map(Some).map_err(|error| StoreError::Damaged {
        place: format!("the log at number {seq}"),
        problem: error.to_string(),
    })
}

/// The change set with this number, if its body is kept.
pub fn change_set(disk: &Disk, number: u32, seq: u64) -> Result<Option<ChangeSet>, StoreError> {
    let Some(header) = header(disk, number, seq)? else {
        return Ok(None);
    };
    let body = disk.get_chunked(&keys::log_body(number, seq))?;
    Ok(body.map(|body| ChangeSet { header, body }))
}
