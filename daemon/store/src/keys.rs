//! What lies under which key of the database.
//!
//! One sled tree holds every table, told apart by the first byte, because a
//! batch on one tree is atomic. Numbers are big-endian, so that ranges run in
//! their order.
//!
//! A partition's number is never given to another: what is left under a number
//! that no name leads to is deleted, at the latest when the store is opened.
//!
//! | key | value |
//! | --- | --- |
//! | `f` | the format's version, and the number of the suite |
//! | `o` | the node whose store this is |
//! | `n` full name | the partition's number |
//! | `h` number | head |
//! | `i` | the number of the last batch |
//! | `g` number | generation that is being staged, and what it counts for |
//! | `x` number | why it is quarantined |
//! | `w` number | the two signed headers that show it |
//! | `a` number, node | what the node acknowledged |
//! | `l` number, seq | signed header |
//! | `b` number, seq | compressed body (chunked) |
//! | `m` number, height, index | a node of the history; of height 0, the hash of a header that is gone |
//! | `j` number | where the history was jumped over: the number, and what was before it |
//! | `p` number, generation, level, first key | page (chunked) |
//! | `p` number, generation, 128, first key | a leaf's patch (chunked) |
//! | `p` number, generation, 129, first key | a leaf's index (chunked) |
//! | `k` consumer, 0, full name | how far it has come in the partition |
//! | `s` snapshot, page key | the page as it was, or that it was not (chunked) |
//! | `c` key's hash, index | a further chunk of a value |
//!
//! `f`, `i` and `c` are the engine's own (`engine::keys`). In place of a page, or
//! an index, there may be its place in a pack.

use protocol::{
    history::Node,
    id::{NodeId, PartitionId},
};

/// The node whose store this is.
pub const OWNER: &[u8] = b"o";

/// The prefix of all partitions' numbers.
pub const NUMBERS: &[u8] = b"n";

/// The prefix of all marks.
pub const MARKS: &[u8] = b"k";

/// A consumer's mark in a partition.
pub fn mark(consumer: &str, partition: &PartitionId) -> Vec<u8> {
    [MARKS, consumer.as_bytes(), b"\0", partition.full_name().as_bytes()].concat()
}

/// A partition's number.
pub fn number(partition: &PartitionId) -> Vec<u8> {
    [NUMBERS, partition.full_name().as_bytes()].concat()
}

fn of_number(table: u8, number: u32) -> Vec<u8> {
    let mut key = vec![table];
    key.extend_from_slice(&number.to_be_bytes());
    key
}

/// The prefixes of all that lies under a partition's number.
pub fn of_partition(number: u32) -> impl Iterator<Item = Vec<u8>> {
    b"hgxwalbmjp".iter().map(move |table| of_number(*table, number))
}

/// Whether the values under keys that begin like this are chunked.
pub fn is_chunked(key: &[u8]) -> bool {
    matches!(key.first(), Some(b'b' | b'p' | b's'))
}

/// A partition's head.
pub fn head(number: u32) -> Vec<u8> {
    of_number(b'h', number)
}

/// The generation that is being staged.
pub fn staging(number: u32) -> Vec<u8> {
    of_number(b'g', number)
}

/// Why a partition is quarantined.
pub fn quarantine(number: u32) -> Vec<u8> {
    of_number(b'x', number)
}

/// The headers that show why it is quarantined.
pub fn evidence(number: u32) -> Vec<u8> {
    of_number(b'w', number)
}

/// The prefix of a partition's acknowledgements.
pub fn acks(number: u32) -> Vec<u8> {
    of_number(b'a', number)
}

/// What a node acknowledged.
pub fn ack(number: u32, node: &NodeId) -> Vec<u8> {
    let mut key = acks(number);
    key.extend_from_slice(node.as_str().as_bytes());
    key
}

/// The prefix of all signed headers in the log.
pub fn log_headers(number: u32) -> Vec<u8> {
    of_number(b'l', number)
}

/// A signed header in the log.
pub fn log_header(number: u32, seq: u64) -> Vec<u8> {
    [&log_headers(number)[..], &seq.to_be_bytes()].concat()
}

/// The prefix of all bodies in the log.
pub fn log_bodies(number: u32) -> Vec<u8> {
    of_number(b'b', number)
}

/// A body in the log.
pub fn log_body(number: u32, seq: u64) -> Vec<u8> {
    [&log_bodies(number)[..], &seq.to_be_bytes()].concat()
}

/// The number of the change set in the key of its header or body.
pub fn seq_of(key: &[u8]) -> Option<u64> {
    key.last_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}

/// The prefix of all nodes of the history.
pub fn history_nodes(number: u32) -> Vec<u8> {
    of_number(b'm', number)
}

/// A node of the history.
pub fn history_node(number: u32, node: Node) -> Vec<u8> {
    let mut key = history_nodes(number);
    key.push(node.height);
    key.extend_from_slice(&node.index.to_be_bytes());
    key
}

/// The node in what follows the prefix of its key.
pub fn node_of(suffix: &[u8]) -> Option<Node> {
    let (height, index) = suffix.split_first()?;
    Some(Node { height: *height, index: u64::from_be_bytes(index.try_into().ok()?) })
}

/// Where a history begins of which not all headers are here.
pub fn history_base(number: u32) -> Vec<u8> {
    of_number(b'j', number)
}

/// The prefix of a generation's pages.
pub fn generation(number: u32, generation: u32) -> Vec<u8> {
    let mut key = of_number(b'p', number);
    key.extend_from_slice(&generation.to_be_bytes());
    key
}

/// The partition's number in a key, or a prefix, of pages, and the generation if
/// it goes on to that.
pub fn pages_of(key: &[u8]) -> Option<(u32, Option<u32>)> {
    let (number, rest) = key.strip_prefix(b"p")?.split_first_chunk()?;
    let generation = rest.first_chunk().map(|bytes| u32::from_be_bytes(*bytes));
    Some((u32::from_be_bytes(*number), generation))
}

/// A page.
pub fn page(number: u32, generation_number: u32, level: u8, first_key: &[u8]) -> Vec<u8> {
    let mut key = generation(number, generation_number);
    key.push(level);
    key.extend_from_slice(first_key);
    key
}

/// In place of a level: a leaf's patch.
pub const PATCH: u8 = 128;
/// In place of a level: a leaf's index. It follows from the leaf's bytes alone.
pub const INDEX: u8 = 129;

/// The prefix of all that snapshots have saved.
pub const SNAPSHOTS: &[u8] = b"s";

/// The prefix of one snapshot.
pub fn snapshot(snapshot: u64) -> Vec<u8> {
    [SNAPSHOTS, &snapshot.to_be_bytes()].concat()
}

/// A page as a snapshot saved it.
pub fn saved_page(snapshot_number: u64, page_key: &[u8]) -> Vec<u8> {
    [&snapshot(snapshot_number), page_key].concat()
}
