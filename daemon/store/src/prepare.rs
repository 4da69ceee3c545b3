//! What of a commit needs nothing of the store, done before the writer's turn.
//!
//! Whoever commits calls [`Prepared::new`] on its own thread, while the writer
//! is busy with the commit before: encoding, hashing and compressing the
//! changes, and for a first load the leaves ([`crate::tree::ahead`]).

use protocol::{
    change::{BODY_BYTES_MAX, CHANGES_MAX, Change, changes_hash, encode_changes},
    hash::Hash,
    record::{KEY_BYTES_MAX, RECORD_BYTES_MAX},
    suite::Suite,
};

use crate::{error::StoreError, marks::MarkMove, state::OwnChanges, tree::MadeAhead};

/// The next change set of an own partition, but for what depends on its head.
pub struct Prepared {
    pub own: OwnChanges,
    /// The size of the encoded changes.
    pub body_bytes: usize,
    pub changes_hash: Hash,
    /// What the log will keep, if it keeps the changes.
    pub kept_body: Option<Vec<u8>>,
    pub leaves: MadeAhead,
    /// What consumers have come to with it.
    pub marks: Vec<MarkMove>,
}

impl Prepared {
    /// Refuses what no replica would take.
    pub fn new(suite: Suite, own: OwnChanges) -> Result<Self, StoreError> {
        let body = encode_changes(&own.changes);
        check_limits(&own.changes, &body)
            .map_err(|problem| StoreError::Changes { partition: own.partition.clone(), problem })?;
        let leaves =
            if own.keep_body { MadeAhead::default() } else { MadeAhead::of(suite, &own.changes) };
        Ok(Self {
            body_bytes: body.len(),
            changes_hash: changes_hash(suite, &body),
            kept_body: own.keep_body.then(|| protocol::codec::compress(&body)),
            leaves,
            marks: Vec::new(),
            own,
        })
    }
}

/// What every replica will ask of a change set.
pub fn check_limits(changes: &[Change], body: &[u8]) -> Result<(), &'static str> {
    if changes.len() > CHANGES_MAX || body.len() > BODY_BYTES_MAX {
        return Err("they are more than one change set holds");
    }
    if !changes.is_sorted_by(|a, b| a.key() < b.key()) {
        return Err("they are not in ascending order of keys");
    }
    let too_long = |change: &Change| match change {
        Change::Put { key, value } => key.len() > KEY_BYTES_MAX || value.len() > RECORD_BYTES_MAX,
        Change::Delete { key } => key.len() > KEY_BYTES_MAX,
    };
    if changes.iter().any(too_long) {
        return Err("a key or a record is too long");
    }
    Ok(())
}
