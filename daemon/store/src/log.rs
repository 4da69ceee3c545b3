//! A partition's log: signed headers, change sets where their bodies are kept, and
//! the history that headers name.
//!
//! Of the history ([`protocol::history`]) a node is stored when the headers below
//! it are complete. A replica that took pages has jumped over headers: it stores
//! what was before the place where it landed, and what the proof has shown, so that
//! it can prove to others what was proved to it; of what it jumped over it cannot
//! prove anything.

use protocol::{
    change::{ChangeSet, SignedHeader},
    hash::Hash,
    history::{Node, Peaks, nodes_of, peaks_of, shown},
};

use crate::{
    engine::{Batch, Disk},
    error::StoreError,
    keys,
};

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

/// The first number from `seq` on, which is above 0, of which the header is here.
pub fn header_number_from(disk: &Disk, number: u32, seq: u64) -> Result<Option<u64>, StoreError> {
    let before = keys::log_header(number, seq.saturating_sub(1));
    let key = disk.key_behind(&keys::log_headers(number), &before)?;
    Ok(key.and_then(|key| keys::seq_of(&key)))
}

/// The change set with this number, if its body is kept.
pub fn change_set(disk: &Disk, number: u32, seq: u64) -> Result<Option<ChangeSet>, StoreError> {
    let Some(header) = header(disk, number, seq)? else {
        return Ok(None);
    };
    let body = disk.get_chunked(&keys::log_body(number, seq))?;
    Ok(body.map(|body| ChangeSet { header, body }))
}

/// How many bytes the body of the change set with this number has at most, if it is
/// kept; it is not read for that.
pub fn body_bytes_max(disk: &Disk, number: u32, seq: u64) -> Result<Option<usize>, StoreError> {
    disk.chunked_bytes_max(&keys::log_body(number, seq))
}

/// Adds to a batch what the log keeps of a header that comes behind `before`, a
/// header and its history: the header, and what is new of the history. The `path`
/// has proved, where headers were jumped over, that `before` is among them.
pub fn append(
    batch: &mut Batch,
    number: u32,
    before: Option<(&SignedHeader, &Peaks)>,
    signed: &SignedHeader,
    history: &Peaks,
    path: &[Hash],
) {
    let seq = signed.header().seq;
    batch.put(keys::log_header(number, seq), signed.encode());
    match before {
        Some((before, history)) if before.header().seq + 1 == seq => {
            history.clone().push_noting(before.hash(), |node, hash| {
                batch.put(keys::history_node(number, node), hash.as_bytes().to_vec());
            });
        }
        None if seq == 1 => {}
        _ => {
            let base = protocol::codec::encode(&(seq, history));
            batch.put(keys::history_base(number), base);
            for (node, hash) in shown(history, before.map(|(before, _)| before.position()), path) {
                batch.put(keys::history_node(number, node), hash.as_bytes().to_vec());
            }
        }
    }
}

/// The hash of the header with this number, which may be all that is kept of it.
pub fn header_hash(disk: &Disk, number: u32, seq: u64) -> Result<Option<Hash>, StoreError> {
    match seq.checked_sub(1) {
        Some(index) => node(disk, number, Node { height: 0, index }),
        None => Ok(None),
    }
}

/// The hash of a node of the history, if all that is below it was here.
fn node(disk: &Disk, number: u32, node: Node) -> Result<Option<Hash>, StoreError> {
    if node.height == 0
        && let Some(header) = header(disk, number, node.index + 1)?
    {
        return Ok(Some(header.hash()));
    }
    let Some(bytes) = disk.get(&keys::history_node(number, node))? else {
        return Ok(None);
    };
    let hash = Hash::from_bytes(disk.suite, &bytes);
    hash.map(Some).ok_or_else(|| StoreError::Damaged {
        place: "a node of a history".into(),
        problem: "it has not the bytes of a hash".into(),
    })
}

/// The hashes that lead from the header `seq` to its peak in the history of
/// `count` headers; `None` if it is not in it, or not all of them are here.
pub fn history_path(
    disk: &Disk,
    number: u32,
    seq: u64,
    count: u64,
) -> Result<Option<Vec<Hash>>, StoreError> {
    let Some(nodes) = nodes_of(seq, count) else {
        return Ok(None);
    };
    nodes.into_iter().map(|place| node(disk, number, place)).collect()
}

/// The headers before number `seq`; `None` if that is not known here.
pub fn history_before(disk: &Disk, number: u32, seq: u64) -> Result<Option<Peaks>, StoreError> {
    let base = disk.get(&keys::history_base(number))?;
    let base: Option<(u64, Peaks)> = match base {
        Some(bytes) => Some(protocol::codec::decode(&bytes).map_err(|error| {
            StoreError::Damaged { place: "a history".into(), problem: error.to_string() }
        })?),
        None => None,
    };
    let Some((landed, mut peaks)) = base.filter(|(landed, _)| *landed <= seq) else {
        let hashes = peaks_of(seq - 1).map(|place| node(disk, number, place));
        let hashes: Option<Vec<Hash>> = hashes.collect::<Result<_, _>>()?;
        return Ok(hashes.map(|hashes| Peaks::of(seq - 1, hashes)));
    };
    for behind in landed..seq {
        let Some(known) = header_hash(disk, number, behind)? else {
            return Ok(None);
        };
        peaks.push(known);
    }
    Ok(Some(peaks))
}
