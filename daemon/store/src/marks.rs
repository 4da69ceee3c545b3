//! Marks: how far each consumer has come in each partition.
//!
//! A consumer is what reads partitions by [`crate::Feed`]. Where its effect is a change set
//! of this node, the mark moves in the same batch
//! ([`crate::Store::commit_own_marked`]); where it lies elsewhere, the mark belongs to
//! the transaction there, and none is kept here. A mark is not a part of its partition: it
//! stays when that is dropped, so that the consumer hears of it. Pruning keeps the bodies
//! that marks have not passed, as it does for followers ([`crate::writer`]).

use std::collections::BTreeMap;

use protocol::{change::Position, id::PartitionId};
use serde::{Deserialize, Serialize};

use crate::{
    engine::{Batch, Disk},
    error::StoreError,
    keys,
};

/// Longest name of a consumer.
const NAME_BYTES_MAX: usize = 64;

/// The name of what reads a partition: letters, digits, `-` and `_`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Consumer(String);

impl Consumer {
    /// Takes a name; `None` if it is none.
    pub fn new(name: &str) -> Option<Self> {
        let is_fit = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        let is_name = !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.bytes().all(is_fit);
        is_name.then(|| Self(name.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// How far a consumer has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The change set that was read last.
    pub position: Position,
    /// When it moved, in milliseconds since 1970.
    pub at_ms: i64,
}

/// A mark that is to move, or to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MarkMove {
    /// Whose.
    pub consumer: Consumer,
    /// Of which partition.
    pub partition: PartitionId,
    /// Where to; `None` where it is wanted no more.
    pub to: Option<Position>,
}

/// All marks, as the batches that were applied have left them.
pub type Marks = BTreeMap<(PartitionId, Consumer), Mark>;

/// Adds moves to a batch, with the time.
pub fn put(batch: &mut Batch, moves: &[MarkMove], now_ms: i64) {
    for MarkMove { consumer, partition, to } in moves {
        let key = keys::mark(consumer.as_str(), partition);
        match to {
            Some(position) => {
                let mark = Mark { position: *position, at_ms: now_ms };
                batch.put(key, protocol::codec::encode(&mark));
            }
            None => batch.remove(key),
        }
    }
}

/// Notes moves whose batch was applied.
pub fn note(marks: &mut Marks, moves: &[MarkMove], now_ms: i64) {
    for MarkMove { consumer, partition, to } in moves {
        let of = (partition.clone(), consumer.clone());
        match to {
            Some(position) => {
                marks.insert(of, Mark { position: *position, at_ms: now_ms });
            }
            None => {
                marks.remove(&of);
            }
        }
    }
}

/// The marks on the disk.
pub fn load(disk: &Disk) -> Result<Marks, StoreError> {
    let mut marks = Marks::new();
    for entry in disk.scan(keys::MARKS) {
        let (key, value) = entry?;
        let damaged = |problem: String| StoreError::Damaged { place: "a mark".into(), problem };
        let key = String::from_utf8(key).map_err(|error| damaged(error.to_string()))?;
        let named = key.split_once('\0').and_then(|(consumer, partition)| {
            Some((PartitionId::parse_full(partition).ok()?, Consumer::new(consumer)?))
        });
        let of = named.ok_or_else(|| damaged(format!("'{key}' names none")))?;
        let mark = protocol::codec::decode(&value).map_err(|error| damaged(error.to_string()))?;
        marks.insert(of, mark);
    }
    Ok(marks)
}
