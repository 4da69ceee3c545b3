//! A partition's log: signed headers, change sets where their bodies are kept, and
//! the history that headers name.
//!
//! Of the history ([`protocol::history`]) a node is stored when the headers below
//! it are complete. A replica that took pages has jumped over headers: it stores
//! what was before the place where it landed, and what the proof has shown, so that
//! it can prove to others what was proved to it; of what it jumped over it cannot
//! prove anything.

use protocol::{
    change::{ChangeSet, Header, Position, SignedHeader},
    hash::Hash,
    history::{Node, Peaks, Proof, nodes_of, peaks_of, shown},
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
    let damaged = |problem: String| StoreError::Damaged { place: place(seq), problem };
    let signed = SignedHeader::decode(&bytes).map_err(|error| damaged(error.to_string()))?;
    match signed.header().seq == seq {
        true => Ok(Some(signed)),
        false => Err(damaged(format!("it is number {}", signed.header().seq))),
    }
}

fn unvouched(seq: u64) -> StoreError {
    let problem = "the history that was signed does not have it".into();
    StoreError::Damaged { place: place(seq), problem }
}

fn place(seq: u64) -> String {
    format!("the log at number {seq}")
}

/// Whether it is shown that the header of this position is in the history of `head` and
/// the headers before that: the header behind it names it, or the nodes that are kept
/// lead from it to the history that the head has signed. What of the log cannot be read
/// shows nothing. `previous` is what the header says of the one before it, where that is
/// known.
pub fn is_vouched(
    disk: &Disk,
    number: u32,
    (head, before): (&SignedHeader, &Peaks),
    position: Position,
    previous: Option<Hash>,
) -> Result<bool, StoreError> {
    let Position { seq, hash } = position;
    let newest = head.header();
    if seq == 0 || seq >= newest.seq {
        return Ok(position == head.position());
    }
    let names = |seq: u64| previous_of(disk, number, newest, seq);
    if names(seq + 1)? == Some(hash) {
        return Ok(true);
    }
    let Some(places) = nodes_of(seq, before.count()) else {
        return Ok(false);
    };
    // Beside it may be one that is damaged as well, of which its own neighbour knows the
    // hash. If that is wrong, it leads nowhere.
    let beside = match (places.first(), seq % 2) {
        (None, _) => [None; 2],
        (Some(place), 0) => [unless_damaged(node(disk, number, *place))?.flatten(), previous],
        (Some(place), _) => {
            [unless_damaged(node(disk, number, *place))?.flatten(), names(seq + 2)?]
        }
    };
    let above = places.iter().skip(1).map(|place| node(disk, number, *place));
    let Some(above) = unless_damaged(above.collect::<Result<Option<Vec<Hash>>, _>>())?.flatten()
    else {
        return Ok(false);
    };
    let leads = |beside: Option<Hash>| {
        let path = beside.into_iter().chain(above.iter().copied()).collect();
        let proof = Proof { peaks: before.hashes().to_vec(), path };
        proof.check(newest.seq - 1, &newest.history, Some(position)).is_ok()
    };
    Ok(beside.into_iter().any(leads))
}

/// What the header with this number says of the one before it, as far as that can be read.
fn previous_of(
    disk: &Disk,
    number: u32,
    newest: &Header,
    seq: u64,
) -> Result<Option<Hash>, StoreError> {
    if seq >= newest.seq {
        return Ok((seq == newest.seq).then_some(newest.previous));
    }
    let header = unless_damaged(header(disk, number, seq))?.flatten();
    Ok(header.map(|header| header.header().previous))
}

/// The hash of the header with this number by what is kept behind it; none if nothing
/// there vouches for one.
pub fn vouched_hash(
    disk: &Disk,
    number: u32,
    (head, before): (&SignedHeader, &Peaks),
    seq: u64,
) -> Result<Option<Hash>, StoreError> {
    let newest = head.header();
    if seq >= newest.seq {
        return Ok((seq == newest.seq).then(|| head.hash()));
    }
    if seq + 1 == newest.seq {
        return Ok(Some(newest.previous));
    }
    let Some(next) = unless_damaged(header(disk, number, seq + 1))?.flatten() else {
        return Ok(None);
    };
    let previous = next.header().previous;
    let is_well = is_vouched(disk, number, (head, before), next.position(), Some(previous))?;
    Ok(is_well.then_some(previous))
}

/// Whether the header that is kept under this number is the one of this position; none
/// if nothing is kept of it. Another one is told of only if it is in the history of
/// `head`: otherwise what is here is damaged, which says nothing of two histories.
pub fn is_same(
    disk: &Disk,
    number: u32,
    head: (&SignedHeader, &Peaks),
    position: Position,
) -> Result<Option<bool>, StoreError> {
    let Some(hash) = header_hash(disk, number, position.seq)? else {
        return Ok(None);
    };
    if hash == position.hash {
        return Ok(Some(true));
    }
    let own = header(disk, number, position.seq)?.map(|header| header.header().previous);
    match is_vouched(disk, number, head, Position { hash, ..position }, own)? {
        true => Ok(Some(false)),
        false => Err(unvouched(position.seq)),
    }
}

/// Whether a header was here of which nothing is left, not even the hash: of two that
/// were joined in the history one is known. Where both are gone it cannot be told from
/// headers that were jumped over.
pub fn is_lost(disk: &Disk, number: u32, seq: u64) -> Result<bool, StoreError> {
    let Some(index) = seq.checked_sub(1) else {
        return Ok(false);
    };
    let of = |height: u8, index: u64| node(disk, number, Node { height, index });
    let known = |found: Result<Option<Hash>, StoreError>| {
        Ok::<_, StoreError>(unless_damaged(found)?.is_none_or(|found| found.is_some()))
    };
    Ok(!known(of(0, index))? && known(of(0, index ^ 1))? && known(of(1, index >> 1))?)
}

/// What was read; none if that is damaged.
fn unless_damaged<T>(read: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(StoreError::Damaged { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The first number from `seq` on, which is above 0, of which the header is here.
pub fn header_number_from(disk: &Disk, number: u32, seq: u64) -> Result<Option<u64>, StoreError> {
    let before = keys::log_header(number, seq.saturating_sub(1));
    let key = disk.key_behind(&keys::log_headers(number), &before)?;
    Ok(key.and_then(|key| keys::seq_of(&key)))
}

/// The change set with this number in the history of `head`, if its body is kept.
pub fn change_set(
    disk: &Disk,
    number: u32,
    head: (&SignedHeader, &Peaks),
    seq: u64,
) -> Result<Option<ChangeSet>, StoreError> {
    let Some(header) = header(disk, number, seq)? else {
        return Ok(None);
    };
    let previous = Some(header.header().previous);
    if !is_vouched(disk, number, head, header.position(), previous)? {
        return Err(unvouched(seq));
    }
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
