//! Pages that are told by what another one lacks, beside the program: section 14 of
//! `protocol/SPEC.md`. What the program tells, the verifier reads, and of altered bytes
//! both make the same page or none.
//!
//! `FUZZ_SEED` and `FUZZ_ROUNDS` choose other pages, and more of them.

use harness::sim::rng::Rng;
use protocol::{
    codec,
    difference::{self as program, Own},
    encoding::DecodeError,
    page::{self as program_pages, Leaf, PageRef},
    suite::{Suite, hash::Hash as ProgramHash},
};

use super::{
    Checked, beside, hashes, layout,
    pages::{self, Entry},
    tree::Reference,
};

/// Pairs of pages of either kind, unless `FUZZ_ROUNDS` says otherwise.
const ROUNDS: u64 = 250;
/// Alterations of each answer.
const ALTERED: usize = 12;

/// A page's entries: records, or children of an inner page.
trait Kind: Clone + PartialEq + std::fmt::Debug {
    const LEVEL: u8;
    fn some(rng: &mut Rng) -> Self;
    fn key(&self) -> &[u8];
    /// Another one under the same key.
    fn changed(&mut self, rng: &mut Rng);
    fn digest(&self) -> hashes::Hash;
    /// As it lies in a page.
    fn write(&self, out: &mut Vec<u8>);
    /// The page that an answer tells, by the verifier.
    fn told(own: &[Self], field: &[u8]) -> Checked<Vec<Self>>;
    /// What the program has of a page, and the page that an answer tells it.
    fn own(page: &[Self]) -> Own;
    fn told_to_program(field: &[u8], own: &Own) -> Option<Vec<Self>>;
    /// A page as a provider has it.
    fn stored(raw: &[u8]) -> Vec<u8>;
}

fn some_key(rng: &mut Rng) -> Vec<u8> {
    match rng.below(20) {
        0 => vec![],
        1 => vec![7; layout::KEY_BYTES_MAX],
        2 => vec![7; rng.index(layout::KEY_BYTES_MAX)],
        _ => (100 + rng.below(300)).to_string().into_bytes(),
    }
}

impl Kind for Entry {
    const LEVEL: u8 = 0;

    fn some(rng: &mut Rng) -> Self {
        (some_key(rng), vec![rng.below(3) as u8; rng.index(40)])
    }

    fn key(&self) -> &[u8] {
        &self.0
    }

    fn changed(&mut self, rng: &mut Rng) {
        self.1 = vec![9; rng.index(40)];
    }

    fn digest(&self) -> hashes::Hash {
        hashes::entry_digest(&self.0, &self.1).unwrap()
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend(hashes::entry_bytes(&self.0, &self.1).unwrap());
    }

    fn told(own: &[Self], field: &[u8]) -> Checked<Vec<Self>> {
        pages::told_leaf(own, field)
    }

    fn own(page: &[Self]) -> Own {
        Own::Leaf(Leaf::decode(&Self::stored(&raw(page))).unwrap())
    }

    fn told_to_program(field: &[u8], own: &Own) -> Option<Vec<Self>> {
        let leaf = program::leaf(field, own).ok()?;
        Some(leaf.entries().map(|(key, record)| (key.to_vec(), record.to_vec())).collect())
    }

    fn stored(raw: &[u8]) -> Vec<u8> {
        codec::compress(raw)
    }
}

impl Kind for Reference {
    const LEVEL: u8 = 1;

    fn some(rng: &mut Rng) -> Self {
        let entries = 1 + u16::try_from(rng.below(160)).unwrap();
        let records = u64::from(entries) + rng.below(1000);
        // Now and then two children have one hash, which no real pages have.
        let hash = [rng.below(250) as u8; 32];
        Self { first_key: some_key(rng), hash, records, entries }
    }

    fn key(&self) -> &[u8] {
        &self.first_key
    }

    fn changed(&mut self, rng: &mut Rng) {
        self.hash = [rng.below(250) as u8; 32];
        self.records += 1;
    }

    fn digest(&self) -> hashes::Hash {
        self.hash
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend(hashes::key_length(&self.first_key).unwrap());
        out.extend(&self.first_key);
        out.extend(self.hash);
        out.extend(self.records.to_be_bytes());
        out.extend(self.entries.to_be_bytes());
    }

    fn told(own: &[Self], field: &[u8]) -> Checked<Vec<Self>> {
        pages::told_inner(own, field)
    }

    fn own(page: &[Self]) -> Own {
        Own::Inner(program_pages::decode_inner(Suite::One, &raw(page)).unwrap())
    }

    fn told_to_program(field: &[u8], own: &Own) -> Option<Vec<Self>> {
        let of = |child: PageRef| Reference {
            first_key: child.first_key,
            hash: own_hash(&child.hash),
            records: child.records,
            entries: child.entries,
        };
        let children = program::inner(Suite::One, field, own).ok()?;
        Some(children.into_iter().map(of).collect())
    }

    fn stored(raw: &[u8]) -> Vec<u8> {
        raw.to_vec()
    }
}

fn own_hash(hash: &ProgramHash) -> hashes::Hash {
    hash.as_bytes().try_into().unwrap()
}

/// A page, uncompressed.
fn raw<K: Kind>(page: &[K]) -> Vec<u8> {
    let mut raw = u16::try_from(page.len()).unwrap().to_be_bytes().to_vec();
    page.iter().for_each(|entry| entry.write(&mut raw));
    raw
}

fn in_order<K: Kind>(mut page: Vec<K>) -> Vec<K> {
    page.sort_by(|left, right| left.key().cmp(right.key()));
    page.dedup_by(|left, right| left.key() == right.key());
    page.truncate(layout::PAGE_ENTRIES_MAX);
    page
}

/// A provider's page and a follower's: alike, hardly alike, or not there.
fn some_pages<K: Kind>(rng: &mut Rng) -> (Vec<K>, Vec<K>) {
    let count = [1, 2, 20, 159, 200][rng.index(5)];
    let page = in_order((0..=rng.index(count)).map(|_| K::some(rng)).collect());
    let mut own = page.clone();
    own.retain(|_| !rng.chance(10));
    let changed = rng.below(30);
    own.iter_mut().for_each(|entry| {
        if rng.chance(changed) {
            entry.changed(rng);
        }
    });
    match rng.below(8) {
        0 => own.clear(),
        1 => own = (0..20).map(|_| K::some(rng)).collect(),
        _ => own.extend((0..rng.index(4)).map(|_| K::some(rng))),
    }
    (page, in_order(own))
}

/// Names as no honest follower sends them.
fn some_known(rng: &mut Rng, known: &mut Vec<[u8; layout::NAME_BYTES]>) {
    for _ in 0..1 + rng.below(4) {
        let at = rng.index(known.len() + 1);
        match rng.below(4) {
            0 => known.insert(at, rng.u64().to_be_bytes()),
            1 if at < known.len() => _ = known.remove(at),
            2 if at < known.len() => known.insert(rng.index(at + 1), known[at]),
            _ if at < known.len() => {
                let other = rng.index(known.len());
                known.swap(at, other);
            }
            _ => {}
        }
    }
    known.truncate(layout::PAGE_ENTRIES_MAX);
}

/// An answer's bytes, uncompressed or not, with something else in some places.
fn altered(rng: &mut Rng, raw: &[u8]) -> Vec<u8> {
    let mut raw = raw.to_vec();
    for _ in 0..1 + rng.below(2) {
        // What says how many and from where is small, and stands mostly in front.
        let length = if rng.chance(60) { raw.len().min(12) } else { raw.len() };
        let at = rng.index(length + 1);
        match rng.below(6) {
            _ if at >= raw.len() => raw.push(rng.below(4) as u8),
            0 => raw[at] ^= 1 << rng.below(8),
            1 => raw[at] = rng.below(5) as u8,
            2 => _ = raw.remove(at),
            3 => raw.insert(at, rng.below(3) as u8),
            4 => raw.truncate(at),
            _ => raw.extend_from_within(..at),
        }
    }
    if rng.chance(20) {
        raw.extend([0, 0, rng.below(4) as u8, 0, rng.below(3) as u8]);
    }
    if !rng.chance(10) {
        return codec::compress(&raw);
    }
    let mut field = codec::compress(&raw);
    let at = rng.index(field.len());
    field[at] ^= 1 << rng.below(8);
    field
}

/// What came of the answers: the page itself, another one, none.
#[derive(Debug, Default)]
struct Said {
    whole: u64,
    another: u64,
    refused: u64,
}

impl Said {
    #[track_caller]
    fn judge<K: Kind>(&mut self, case: &str, page: &[K], own: &[K], field: &[u8]) {
        let told = K::told(own, field);
        // A follower that has no page has no list of entries either.
        let held = if own.is_empty() { Own::Nothing } else { K::own(own) };
        let theirs = K::told_to_program(field, &held);
        assert!(told.clone().ok() == theirs, "{case}: {told:?}, program {theirs:?}");
        match told {
            Ok(told) if told == page => self.whole += 1,
            Ok(_) => self.another += 1,
            Err(_) => self.refused += 1,
        }
    }
}

fn compare<K: Kind>() {
    let (seed, rounds) = (beside::setting("FUZZ_SEED", 1), beside::setting("FUZZ_ROUNDS", ROUNDS));
    println!("seed {seed}");
    let mut rng = Rng::new(seed);
    let (mut right, mut wrong) = (Said::default(), Said::default());
    for round in 0..rounds {
        let case = format!("seed {seed}, round {round}");
        let (page, own) = some_pages::<K>(&mut rng);
        let mut salt = [0; 16];
        salt.iter_mut().for_each(|byte| *byte = rng.below(256) as u8);
        let mut known: Vec<_> =
            own.iter().map(|entry| pages::name(&salt, &entry.digest())).collect();
        if !own.is_empty() {
            assert_eq!(K::own(&own).known(Suite::One, &salt), known.concat(), "{case}");
        }
        let tell = |known: &[[u8; layout::NAME_BYTES]]| {
            let stored = K::stored(&raw(&page));
            program::make(Suite::One, K::LEVEL, &stored, &salt, &known.concat()).unwrap()
        };
        let field = tell(&known);
        right.judge(&case, &page, &own, &field);
        let told = codec::decompress(&field, layout::LEAF_BYTES_MAX).unwrap();
        for _ in 0..ALTERED {
            wrong.judge(&case, &page, &own, &altered(&mut rng, &told));
        }
        some_known(&mut rng, &mut known);
        wrong.judge(&case, &page, &own, &tell(&known));
    }
    println!("{right:?}, altered {wrong:?}");
    // Children with one hash have one name.
    let alike = if K::LEVEL == 0 { 0 } else { rounds / 2 };
    assert!(right.another + right.refused <= alike && right.whole > 0, "{right:?}");
    let few = rounds / 10;
    assert!(wrong.whole.min(wrong.another).min(wrong.refused) > few, "{wrong:?}");
}

#[test]
fn both_read_the_same_leaves_of_differences() {
    compare::<Entry>();
}

#[test]
fn both_read_the_same_inner_pages_of_differences() {
    compare::<Reference>();
}

#[test]
fn a_difference_is_as_long_as_its_pieces_make_it_and_no_longer() {
    // As many bytes as the longest page has, and one more, in one piece of none.
    for (length, why) in [
        (layout::INNER_BYTES_MAX + layout::PIECES_BYTES_MAX, "an empty piece"),
        (layout::INNER_BYTES_MAX + layout::PIECES_BYTES_MAX + 1, "longer than its limit"),
    ] {
        let field = codec::compress(&vec![0; length]);
        assert_eq!(pages::told_inner(&[], &field).unwrap_err().0, why);
        let theirs = program::inner(Suite::One, &field, &Own::Nothing).unwrap_err();
        let is_over = matches!(theirs, DecodeError::TooLong { .. });
        assert_eq!(is_over, why == "longer than its limit", "{theirs}");
    }
}
