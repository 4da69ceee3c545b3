//! Entries, pages, differences and trees of the vectors; and that each is refused
//! when it is altered.

use std::collections::BTreeSet;

use super::{
    Refused,
    golden::Vectors,
    hashes, layout, pages,
    pages::{child_leaf, decompress, leaf},
    record::{self, Value},
    tree::{self, Reference, State},
};

pub fn check(vectors: &Vectors) {
    entries(vectors);
    a_leaf_and_its_parents(vectors);
    a_difference(vectors);
    generated(vectors);
}

fn entries(vectors: &Vectors) {
    let digest = |key: &[u8], record: &[u8]| hashes::entry_digest(key, record).unwrap();
    let all = digest(&vectors.bytes("key.all"), &vectors.bytes("record.all"));
    vectors.is("entry.all.digest", all);
    vectors.is("entry.long.digest", digest(b"a", &[7; 3000]));
}

fn a_leaf_and_its_parents(vectors: &Vectors) {
    let raw = vectors.bytes("leaf.raw");
    let entries = leaf(&raw).unwrap();
    let expected = [("a", "1"), ("b", ""), ("bc", "three")];
    let expected = expected.map(|(key, record)| (key.into(), record.into()));
    assert_eq!(entries, expected);
    vectors.is("leaf.hash", pages::leaf_hash(&entries).unwrap());
    let sample = vectors.bytes("sample.leaf");
    vectors.is("leaf.raw", decompress(&sample, layout::LEAF_BYTES_MAX).unwrap());
    for cut in 0..raw.len() {
        assert!(leaf(&raw[..cut]).is_err(), "cut at {cut}");
        assert!(decompress(&sample[..cut.min(sample.len() - 1)], layout::LEAF_BYTES_MAX).is_err());
    }
    assert_eq!(leaf(&[&raw[..], &[0]].concat()), Err(Refused("bytes are left over")));
    assert_eq!(decompress(&sample, raw.len() - 1), Err(Refused("longer than its limit")));

    let hash = vectors.array("leaf.hash");
    let first = Reference { first_key: b"a".to_vec(), hash, records: 3, entries: 3 };
    assert_eq!(child_leaf(&first, &sample), Ok(entries));
    for other in [
        Reference { first_key: b"b".to_vec(), ..first.clone() },
        Reference { records: 4, ..first.clone() },
        Reference { entries: 2, ..first.clone() },
        Reference { hash: [0; 32], ..first.clone() },
    ] {
        assert_eq!(child_leaf(&other, &sample), Err(Refused("a leaf that is not the parent's")));
    }
    let second = Reference { first_key: b"c".to_vec(), hash, records: 258, entries: 97 };
    let children = vec![first, second];
    assert_eq!(pages::inner(&vectors.bytes("inner.body")), Ok(children.clone()));
    let parent = |level| tree::inner(level, &children).unwrap();
    vectors.is("inner.hash", parent(1).hash);
    vectors.is("inner.hash_at_level_2", parent(2).hash);
    assert_eq!((parent(1).records, parent(1).entries), (261, 2));
    assert_eq!(
        pages::child_inner(1, &parent(1), &vectors.bytes("inner.body")).as_ref(),
        Ok(&children)
    );
    assert!(pages::child_inner(2, &parent(1), &vectors.bytes("inner.body")).is_err());
}

/// The salt of the vectors, which is also that of their frame.
const SALT: [u8; 16] = [0x5a; 16];

fn a_difference(vectors: &Vectors) {
    let entry = |key: &str, record: &str| (key.as_bytes().to_vec(), record.as_bytes().to_vec());
    let known = [entry("a", "1"), entry("b", "2"), entry("bc", "three")];
    let names = known
        .iter()
        .map(|(key, record)| pages::name(&SALT, &hashes::entry_digest(key, record).unwrap()));
    vectors.is("difference.leaf.known", names.collect::<Vec<_>>().concat());
    let raw = vectors.bytes("difference.leaf.raw");
    let told = pages::leaf_difference(&known, &raw).unwrap();
    assert_eq!(told, leaf(&vectors.bytes("leaf.raw")).unwrap());
    assert!(pages::leaf_difference(&known[..2], &raw).is_err(), "a piece that is not known");
    assert!(pages::leaf_difference(&known, &raw[..raw.len() - 1]).is_err());
}

/// A generated record and its key.
fn numbered(number: u64) -> (Vec<u8>, Vec<u8>) {
    let text = Value::Text(format!("{number:018}"));
    let integer = Value::Integer(number.cast_signed());
    (record::encode_key(std::slice::from_ref(&text)), record::encode(1, &[text, integer]))
}

fn generated(vectors: &Vectors) {
    let (key, value) = numbered(7);
    vectors.is("tree.record_7.key", key);
    vectors.is("tree.record_7.value", value);
    let powers = (4..=17).map(|power| 10u64.pow(power));
    let numbers = |count: u64| (0..count).collect::<Vec<_>>();
    for (name, numbers) in [
        ("0", numbers(0)),
        ("1", numbers(1)),
        ("64", numbers(64)),
        ("1000", numbers(1000)),
        ("10000", numbers(10_000)),
        ("nested", (0..200).chain(powers).collect()),
    ] {
        let state: State = numbers.into_iter().map(numbered).collect();
        let made = tree::of(&state).unwrap();
        vectors.is(&format!("tree.{name}.root"), made.root);
        assert_eq!(format!("{:?}", made.pages()), vectors.text(&format!("tree.{name}.pages")));
        assert_eq!(made.records, state.len() as u64);
    }
}

#[test]
fn the_two_rules_of_pages_agree() {
    // Short keys over two letters, of many lengths, so that some begin others.
    let mut random = 1;
    for round in 0..40 {
        let mut keys = BTreeSet::new();
        for _ in 0..round * 40 {
            let (length, bits) = (next(&mut random) % 16, next(&mut random));
            let letter = |at: u64| if bits >> at & 1 == 0 { 0 } else { 0xff };
            keys.insert((0..length).map(letter).collect::<Vec<u8>>());
        }
        let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
        // Compares the two by itself.
        let pages = tree::pages(&keys);
        assert!(pages.iter().all(|page| page.len() <= layout::PAGE_ENTRIES_MAX));
        assert_eq!(pages.iter().map(std::ops::Range::len).sum::<usize>(), keys.len());
    }
}

/// A number that follows from the one before; good enough to choose keys.
fn next(random: &mut u64) -> u64 {
    *random =
        random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *random >> 33
}

#[test]
fn one_change_costs_at_most_two_pages_of_a_level() {
    let mut random = 3;
    // Two kinds of keys: spread ones, and such as each begin the next one.
    let key = |random: &mut u64| match next(random) % 8 {
        0 => vec![7; usize::try_from(next(random) % 700).unwrap()],
        _ => next(random).to_be_bytes()[4..].to_vec(),
    };
    let mut state: State = (0..24_000).map(|_| (key(&mut random), vec![])).collect();
    let levels = |state: &State| {
        let levels = tree::of(state).unwrap().levels;
        levels
            .into_iter()
            .map(|level| level.into_iter().map(|page| page.hash))
            .map(BTreeSet::from_iter)
    };
    let mut before: Vec<BTreeSet<hashes::Hash>> = levels(&state).collect();
    assert!(before.len() >= 3, "too few levels to say anything");
    for change in 0..16 {
        if change % 2 == 0 {
            state.insert(key(&mut random), vec![1]);
        } else {
            let at = usize::try_from(next(&mut random)).unwrap() % state.len();
            let gone = state.keys().nth(at).unwrap().clone();
            state.remove(&gone);
        }
        let after: Vec<BTreeSet<hashes::Hash>> = levels(&state).collect();
        for (old, new) in before.iter().zip(&after) {
            assert!(old.difference(new).count() <= 2, "change {change} ends more");
            assert!(new.difference(old).count() <= 2, "change {change} makes more");
        }
        before = after;
    }
}
