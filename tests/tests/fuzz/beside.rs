//! What stands beside records and headers: proofs about histories, and the indexes and
//! patches of leaves.

use std::collections::BTreeMap;

use protocol::{
    change::{Change, Position, decode_changes, encode_changes},
    codec,
    cut::PAGE_ENTRIES_MAX,
    hash::{Hash, Purpose},
    history::{self, HEIGHT_MAX, Node, Peaks, Proof, nodes_of},
    page::RawLeaf,
    patch::{self, Digests, Outcome, PATCH_BYTES_MAX, PATCH_CHANGES_MAX, decode_patch},
    record::entry_digest,
    suite::Suite,
};

const SUITE: Suite = Suite::One;

/// A proof as somebody is shown it: the number of headers, the history that they are
/// said to have, the header that is said to be among them, and the hashes.
type Shown = (u64, Hash, Option<Position>, Proof);

/// A proof that is accepted shows nothing else: no hash in it can be another one.
pub fn proof(bytes: &[u8]) -> bool {
    let Ok(shown) = codec::decode::<Shown>(bytes) else {
        return false;
    };
    if !is_accepted(shown.clone()) {
        return false;
    }
    let (count, _, earlier, proof) = &shown;
    let peaks = Peaks::of(*count, proof.peaks.clone());
    assert!(proof.peaks.len() <= HEIGHT_MAX);
    for altered in alterations(&shown) {
        assert!(!is_accepted(altered.clone()), "{altered:?} in place of {shown:?}");
    }
    if let Some(earlier) = *earlier {
        assert!((1..=*count).contains(&earlier.seq) && proof.path.len() <= HEIGHT_MAX);
        // Whoever was shown it can show it.
        let nodes: BTreeMap<Node, Hash> =
            history::shown(&peaks, Some(earlier), &proof.path).collect();
        let path = nodes_of(earlier.seq, *count).expect("it is in the history");
        let path: Option<Vec<Hash>> = path.iter().map(|node| nodes.get(node).copied()).collect();
        assert_eq!(path.as_ref(), Some(&proof.path));
    }
    true
}

fn is_accepted((count, history, earlier, proof): Shown) -> bool {
    proof.check(count, &history, earlier).is_ok()
}

/// The same proof with each of its hashes changed in a bit, and with one more.
fn alterations(shown: &Shown) -> Vec<Shown> {
    let (count, history, earlier, proof) = shown;
    let other = |hash: &Hash| SUITE.hash(Purpose::Name, &[hash.as_bytes()]);
    let mut altered = vec![(*count, other(history), *earlier, proof.clone())];
    let mut with = |proof: Proof| altered.push((*count, *history, *earlier, proof));
    for place in 0..proof.peaks.len() {
        let mut peaks = proof.peaks.clone();
        peaks[place] = other(&peaks[place]);
        with(Proof { peaks, ..proof.clone() });
    }
    let longer = [&proof.peaks[..], &[*history]].concat();
    with(Proof { peaks: longer, ..proof.clone() });
    let Some(earlier) = earlier else {
        // Without an earlier header nobody looks at its path.
        return altered;
    };
    for place in 0..proof.path.len() {
        let mut path = proof.path.clone();
        path[place] = other(&path[place]);
        with(Proof { path, ..proof.clone() });
    }
    let longer = [&proof.path[..], &[*history]].concat();
    with(Proof { path: longer, ..proof.clone() });
    let elsewhere = Position { hash: other(&earlier.hash), ..*earlier };
    altered.push((*count, *history, Some(elsewhere), proof.clone()));
    altered
}

/// Headers of a history that is altered.
const HEADERS_MAX: u64 = 300;

/// A true proof in which hashes take the places of others, as the bytes say: the number
/// of headers, the earlier one's number, then places and what goes there. It is accepted
/// if it is the true one again.
pub fn proof_altered(bytes: &[u8]) -> bool {
    let Some((&[count_high, count_low, seq_high, seq_low], moves)) = bytes.split_first_chunk()
    else {
        return false;
    };
    let count = 1 + u64::from(u16::from_be_bytes([count_high, count_low])) % HEADERS_MAX;
    let seq = 1 + u64::from(u16::from_be_bytes([seq_high, seq_low])) % count;
    let whole = true_proof(Some(seq), count);
    let mut hashes = hashes_of(&whole);
    for &[place, source] in moves.as_chunks().0 {
        // The history is what somebody has signed.
        let (place, length) = (1 + usize::from(place) % (hashes.len() - 1), hashes.len());
        hashes[place] = match usize::from(source) {
            source if source < length => hashes[source],
            source => SUITE.hash(Purpose::Name, &[&source.to_be_bytes()]),
        };
    }
    let mut hashes = hashes.into_iter();
    let mut next = || hashes.next().expect("there are as many as before");
    let (history, earlier) = (next(), Position { seq, hash: next() });
    let peaks = whole.3.peaks.iter().map(|_| next()).collect();
    let path = whole.3.path.iter().map(|_| next()).collect();
    let altered = (count, history, Some(earlier), Proof { peaks, path });
    let is_true = altered == whole;
    assert_eq!(is_accepted(altered), is_true, "{seq} of {count}");
    is_true
}

/// All hashes of a proof: the history, the earlier header, the peaks and the path.
fn hashes_of((_, history, earlier, proof): &Shown) -> Vec<Hash> {
    let earlier = earlier.iter().map(|earlier| earlier.hash);
    let first = std::iter::once(*history).chain(earlier);
    first.chain(proof.peaks.iter().copied()).chain(proof.path.iter().copied()).collect()
}

/// The proof that header number `seq` is among `count` headers, as it is shown.
pub fn shown(seq: Option<u64>, count: u64) -> Vec<u8> {
    codec::encode(&true_proof(seq, count))
}

fn true_proof(seq: Option<u64>, count: u64) -> Shown {
    let header = |seq: u64| SUITE.hash(Purpose::Header, &[&seq.to_be_bytes()]);
    let (mut peaks, mut nodes) = (Peaks::new(), BTreeMap::new());
    for seq in 1..=count {
        nodes.insert(Node { height: 0, index: seq - 1 }, header(seq));
        peaks.push_noting(header(seq), |node, hash| {
            nodes.insert(node, hash);
        });
    }
    let path = seq.and_then(|seq| nodes_of(seq, count)).unwrap_or_default();
    let path = path.iter().map(|node| nodes[node]).collect();
    let proof = Proof { peaks: peaks.hashes().to_vec(), path };
    let earlier = seq.map(|seq| Position { seq, hash: header(seq) });
    (count, peaks.root(SUITE), earlier, proof)
}

/// An index, a patch and changes in one: the lengths of the first two, then all three.
/// Without a patch its length is 0, which no patch has.
pub fn kept(index: &[u8], patch: &[u8], changes: &[Change]) -> Vec<u8> {
    let length = |bytes: &[u8]| u16::try_from(bytes.len()).expect("they are short").to_be_bytes();
    [&length(index)[..], &length(patch), index, patch, &encode_changes(changes)].concat()
}

/// The sizes, keys and digests that an update says are those of what it leaves.
pub fn leaf_index(bytes: &[u8]) -> bool {
    let Some((index, patch, changes)) = parts(bytes) else {
        return false;
    };
    let digests = Digests::decode(SUITE, index, patch);
    let Ok(updated) = patch::update(SUITE, index, patch, None, &changes) else {
        return false;
    };
    let before = digests.expect("an index and a patch that can be updated can be read");
    let count_before = check_keys(&before);
    let Outcome::Patched { page, bytes, patch: left, shrank } = updated.outcome else {
        return true;
    };
    let left = left.as_deref();
    if let Some(left) = left {
        let kept = decode_patch(left).expect("a patch that was made decodes");
        assert!((1..=PATCH_CHANGES_MAX).contains(&kept.len()) && left.len() <= PATCH_BYTES_MAX);
    }
    let after = Digests::decode(SUITE, index, left).expect("what was made decodes");
    let count = check_keys(&after);
    assert!((1..=PAGE_ENTRIES_MAX).contains(&count));
    assert_eq!((usize::from(page.entries), page.records), (count, count as u64));
    assert_eq!(shrank, count < count_before);
    for change in &changes {
        let put = change.entry().map(|(key, value)| entry_digest(SUITE, key, value));
        assert_eq!(after.get(change.key()), put.as_ref());
    }
    // Nothing more changes nothing, and finds the same size.
    let again = patch::update(SUITE, index, left, None, &[]).expect("what was made decodes");
    assert_eq!(again.outcome, Outcome::Unchanged);
    // An index may give the digest of an entry and another size; who puts that entry is
    // believed, and it does not go into the patch.
    let base = Digests::decode(SUITE, index, None).expect("it was read before");
    let old = patch.map(|patch| decode_patch(patch).expect("it was read before"));
    let mut puts = old.iter().flatten().chain(&changes).filter_map(Change::entry);
    if !puts.any(|(key, value)| base.get(key) == Some(&entry_digest(SUITE, key, value))) {
        assert_eq!(again.bytes_before, bytes);
    }
    true
}

/// An index, a patch if there is one, and changes.
type Parts<'a> = (&'a [u8], Option<&'a [u8]>, Vec<Change>);

fn parts(bytes: &[u8]) -> Option<Parts<'_>> {
    let (lengths, rest) = bytes.split_at_checked(4)?;
    let length = |at: usize| usize::from(u16::from_be_bytes([lengths[at], lengths[at + 1]]));
    let (index, rest) = rest.split_at_checked(length(0))?;
    let (patch, changes) = rest.split_at_checked(length(2))?;
    let patch = Some(patch).filter(|patch| !patch.is_empty());
    Some((index, patch, decode_changes(changes).ok()?))
}

/// All keys are in order, each has a digest, and whoever begins at one finds it first.
fn check_keys(digests: &Digests) -> usize {
    let keys: Vec<&[u8]> = digests.keys_from(&[]).collect();
    assert!(keys.is_sorted_by(|a, b| a < b), "keys are not in ascending order");
    for key in &keys {
        assert!(digests.get(key).is_some());
        assert_eq!(digests.keys_from(key).next(), Some(*key));
    }
    keys.len()
}

/// A leaf's index with these keys.
pub fn index_of(keys: impl IntoIterator<Item = Vec<u8>>) -> Vec<u8> {
    let keys: Vec<Vec<u8>> = keys.into_iter().collect();
    RawLeaf::of(keys.iter().map(|key| (&key[..], &b"value"[..]))).make(SUITE).index
}
