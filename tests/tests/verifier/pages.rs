//! Pages as they travel: sections 8, 9 and 14 (differences) of
//! `protocol/SPEC.md`.

use std::io::Read as _;

use super::{
    Checked, Refused, ensure, hashes,
    hashes::Hash,
    layout,
    reader::Reader,
    tree::{Reference, State},
};

/// An entry of a leaf.
pub type Entry = (Vec<u8>, Vec<u8>);

/// A compressed field, at most `max` bytes when it is not; section 9.
pub fn decompress(field: &[u8], max: usize) -> Checked<Vec<u8>> {
    let mut reader = Reader::new(field);
    let length = usize::try_from(reader.u32()?).map_err(|_| Refused("longer than its limit"))?;
    ensure(length <= max, "longer than its limit")?;
    let frames = reader.take(reader.left())?;
    let broken = |_| Refused("bytes that zstd refuses");
    if length > layout::ANY_WINDOW_BYTES_MAX {
        let mut decoder = zstd::stream::read::Decoder::new(frames).map_err(broken)?;
        decoder.window_log_max(layout::ZSTD_WINDOW_LOG_MAX).map_err(broken)?;
        // One byte more than there may be tells an end from a stop.
        let limit = u64::try_from(length).expect("it came from 32 bits") + 1;
        let read = std::io::copy(&mut decoder.take(limit), &mut std::io::sink());
        ensure(read.map_err(broken)? < limit, "compressed bytes of another length")?;
    }
    // Compares also what a frame itself says of its content.
    let content = zstd::bulk::decompress(frames, length).map_err(broken)?;
    ensure(content.len() == length, "compressed bytes of another length")?;
    Ok(content)
}

/// An uncompressed leaf.
pub fn leaf(raw: &[u8]) -> Checked<Vec<Entry>> {
    ensure(raw.len() <= layout::LEAF_BYTES_MAX, "a leaf over its limit")?;
    let mut reader = Reader::new(raw);
    let mut entries: Vec<Entry> = Vec::new();
    for _ in 0..page_count(&mut reader)? {
        let entry = leaf_entry(&mut reader)?;
        ensure(entries.last().is_none_or(|before| before.0 < entry.0), "keys out of order")?;
        entries.push(entry);
    }
    reader.end()?;
    Ok(entries)
}

fn page_count(reader: &mut Reader<'_>) -> Checked<usize> {
    let count = usize::from(reader.u16()?);
    ensure((1..=layout::PAGE_ENTRIES_MAX).contains(&count), "a wrong number of entries")?;
    Ok(count)
}

fn key<'a>(reader: &mut Reader<'a>) -> Checked<&'a [u8]> {
    let length = usize::from(reader.u16()?);
    ensure(length <= layout::KEY_BYTES_MAX, "a key over its limit")?;
    reader.take(length)
}

fn leaf_entry(reader: &mut Reader<'_>) -> Checked<Entry> {
    let key = key(reader)?.to_vec();
    Ok((key, reader.bytes(layout::RECORD_BYTES_MAX)?.to_vec()))
}

/// The hash of a leaf with these entries.
pub fn leaf_hash(entries: &[Entry]) -> Checked<Hash> {
    let digests = entries.iter().map(|(key, record)| hashes::entry_digest(key, record));
    Ok(super::tree::leaf_hash(&digests.collect::<Checked<Vec<_>>>()?))
}

/// An inner page.
pub fn inner(body: &[u8]) -> Checked<Vec<Reference>> {
    let mut reader = Reader::new(body);
    let mut children: Vec<Reference> = Vec::new();
    for _ in 0..page_count(&mut reader)? {
        let child = child(&mut reader)?;
        let last = children.last();
        ensure(last.is_none_or(|last| last.first_key < child.first_key), "keys out of order")?;
        children.push(child);
    }
    reader.end()?;
    Ok(children)
}

fn child(reader: &mut Reader<'_>) -> Checked<Reference> {
    let first_key = key(reader)?.to_vec();
    let (hash, records, entries) = (reader.raw()?, reader.u64()?, reader.u16()?);
    let well = (1..=layout::PAGE_ENTRIES_MAX).contains(&usize::from(entries))
        && u64::from(entries) <= records;
    ensure(well, "counts that cannot be")?;
    Ok(Reference { first_key, hash, records, entries })
}

/// A page below a reference, compared with all that its parent says of it.
pub fn child_leaf(reference: &Reference, field: &[u8]) -> Checked<Vec<Entry>> {
    let entries = leaf(&decompress(field, layout::LEAF_BYTES_MAX)?)?;
    let well = leaf_hash(&entries)? == reference.hash
        && entries.len() as u64 == reference.records
        && entries.len() == usize::from(reference.entries)
        && entries[0].0 == reference.first_key;
    ensure(well, "a leaf that is not the parent's")?;
    Ok(entries)
}

/// The same for an inner page of `level`.
pub fn child_inner(level: u8, reference: &Reference, body: &[u8]) -> Checked<Vec<Reference>> {
    let children = inner(body)?;
    ensure(&super::tree::inner(level, &children)? == reference, "a page that is not the parent's")?;
    Ok(children)
}

/// An entry's name in a question for differences.
pub fn name(salt: &[u8; 16], digest: &Hash) -> [u8; 8] {
    let input = hashes::pad([&salt[..], digest].concat());
    let mut name = [0; 8];
    name.copy_from_slice(&hashes::hash(layout::hash::NAME, &input)[..8]);
    name
}

/// The leaf that an answer tells to somebody who has these entries.
pub fn told_leaf(known: &[Entry], field: &[u8]) -> Checked<Vec<Entry>> {
    let max = layout::LEAF_BYTES_MAX + layout::PIECES_BYTES_MAX;
    let entries = leaf_difference(known, &decompress(field, max)?)?;
    ascending(entries.iter().map(|(key, _)| &key[..]))?;
    Ok(entries)
}

/// The inner page that an answer tells to somebody who has these children.
pub fn told_inner(known: &[Reference], field: &[u8]) -> Checked<Vec<Reference>> {
    let max = layout::INNER_BYTES_MAX + layout::PIECES_BYTES_MAX;
    let children = difference(known, &decompress(field, max)?, child)?;
    ascending(children.iter().map(|child| &child.first_key[..]))?;
    Ok(children)
}

/// A page has entries, and their keys ascend.
fn ascending<'a>(keys: impl Iterator<Item = &'a [u8]>) -> Checked<()> {
    let keys: Vec<&[u8]> = keys.collect();
    ensure(!keys.is_empty(), "a wrong number of entries")?;
    ensure(keys.windows(2).all(|pair| pair[0] < pair[1]), "keys out of order")
}

/// The entries of a leaf that differs from the follower's, told uncompressed.
pub fn leaf_difference(known: &[Entry], raw: &[u8]) -> Checked<Vec<Entry>> {
    difference(known, raw, leaf_entry)
}

fn difference<T: Clone>(
    known: &[T],
    raw: &[u8],
    spelled_out: fn(&mut Reader<'_>) -> Checked<T>,
) -> Checked<Vec<T>> {
    let mut reader = Reader::new(raw);
    let mut entries: Vec<T> = Vec::new();
    while reader.left() > 0 {
        match reader.u8()? {
            0 => {
                let (first, count) = (usize::from(reader.u16()?), usize::from(reader.u16()?));
                ensure(count > 0, "an empty piece")?;
                let piece = known.get(first..first + count);
                entries.extend_from_slice(piece.ok_or(Refused("a piece that is not known"))?);
            }
            1 => {
                let count = reader.u16()?;
                ensure(count > 0, "an empty piece")?;
                for _ in 0..count {
                    entries.push(spelled_out(&mut reader)?);
                }
            }
            _ => return Err(Refused("an unknown kind of piece")),
        }
        ensure(entries.len() <= layout::PAGE_ENTRIES_MAX, "a wrong number of entries")?;
    }
    Ok(entries)
}

/// All entries of leaves, in order, as a state.
pub fn state(leaves: impl IntoIterator<Item = Vec<Entry>>) -> Checked<State> {
    let mut state = State::new();
    for (key, record) in leaves.into_iter().flatten() {
        let ascends = state.last_key_value().is_none_or(|(last, _)| *last < key);
        ensure(ascends, "keys out of order across pages")?;
        state.insert(key, record);
    }
    Ok(state)
}

/// All records below a head, from pages that came by themselves; each is compared
/// with its parent before it is used. `page` gives a page by level and first key,
/// the root by an empty key.
pub fn descend<'a>(
    header: &layout::Header,
    levels: u8,
    page: impl Fn(u8, &[u8]) -> Option<&'a [u8]>,
) -> Checked<State> {
    let page = |level, key: &[u8]| page(level, key).ok_or(Refused("a page that did not come"));
    let Some(top) = levels.checked_sub(1) else {
        return super::replica::check_leaves(header, []);
    };
    // Nobody has said how many entries the root has; its hash says which.
    if top == 0 {
        let entries = leaf(&decompress(page(0, &[])?, layout::LEAF_BYTES_MAX)?)?;
        return super::replica::check_leaves(header, [entries]);
    }
    let mut children = inner(page(top, &[])?)?;
    let root = super::tree::inner(top, &children)?;
    let well = root.hash == header.root && root.records == header.records;
    ensure(well, "a root page that is not the head's")?;
    for level in (1..top).rev() {
        let mut below = Vec::new();
        for child in &children {
            below.extend(child_inner(level, child, page(level, &child.first_key)?)?);
        }
        children = below;
    }
    let leaves = children.iter().map(|child| child_leaf(child, page(0, &child.first_key)?));
    super::replica::check_leaves(header, leaves.collect::<Checked<Vec<_>>>()?)
}
