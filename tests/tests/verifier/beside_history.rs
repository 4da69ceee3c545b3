//! Proofs of histories beside the program: made from a history's hashes by section 10 of
//! `protocol/SPEC.md`, right, altered, and at numbers that nobody reaches.
//!
//! `FUZZ_SEED` and `FUZZ_ROUNDS` choose other alterations, and more of them.

use harness::sim::rng::Rng;
use protocol::{
    change::Position,
    history::{self as program, Node, Peaks},
    suite::{Suite, hash::Hash as ProgramHash},
};

use super::{
    beside,
    hashes::Hash,
    history::{self, Proof},
    layout,
};

/// Headers of the longest history that is taken whole.
const HEADERS: u64 = 70;
/// Alterations of each proof, unless `FUZZ_ROUNDS` says otherwise.
const ROUNDS: u64 = 4;
/// Proofs at large numbers for each of these.
const LARGE: u64 = 300;

/// What is asked of both: a proof, and what it has to show.
#[derive(Debug, Clone)]
struct Case {
    proof: Proof,
    seq: u64,
    history: Hash,
    earlier: Option<(u64, Hash)>,
}

fn program_hash(hash: &Hash) -> ProgramHash {
    ProgramHash::from_bytes(Suite::One, hash).unwrap()
}

fn own_hash(hash: &ProgramHash) -> Hash {
    hash.as_bytes().try_into().unwrap()
}

impl Case {
    /// What both say, and the peaks that the program has then.
    fn judge(&self) -> ([bool; 2], Option<Peaks>) {
        let own = match self.earlier {
            Some((seq, hash)) => self.proof.check((seq, &hash), self.seq, &self.history),
            None => self.proof.check_alone(self.seq, &self.history),
        };
        let of = |hashes: &[Hash]| hashes.iter().map(program_hash).collect();
        let proof = program::Proof { peaks: of(&self.proof.peaks), path: of(&self.proof.path) };
        let earlier = self.earlier.map(|(seq, hash)| Position { seq, hash: program_hash(&hash) });
        let shown = proof.check(self.seq - 1, &program_hash(&self.history), earlier);
        ([own.is_ok(), shown.is_ok()], shown.ok())
    }

    #[track_caller]
    fn is_right(&self) -> Peaks {
        let (both, peaks) = self.judge();
        assert_eq!(both, [true; 2], "{self:?}");
        let peaks = peaks.unwrap();
        let hashes: Vec<Hash> = peaks.hashes().iter().map(own_hash).collect();
        assert_eq!((peaks.count(), hashes), (self.seq - 1, self.proof.peaks.clone()));
        peaks
    }

    /// Something in it is another one, and may be right all the same.
    fn alter(&mut self, rng: &mut Rng) {
        let Proof { peaks, path } = &mut self.proof;
        let list = if rng.chance(50) { &mut *peaks } else { &mut *path };
        match rng.below(12) {
            0 => alter_one(rng, list),
            1 => _ = (!list.is_empty()).then(|| list.remove(rng.index(list.len()))),
            2 => list.insert(rng.index(list.len() + 1), [9; 32]),
            3 => _ = list.first().copied().map(|first| list.push(first)),
            4 if list.len() > 1 => {
                let at = rng.index(list.len() - 1);
                list.swap(at, at + 1);
            }
            5 => _ = peaks.pop().map(|last| path.push(last)),
            6 => _ = path.pop().map(|last| peaks.push(last)),
            7 => path.clear(),
            // No header has a higher number.
            8 => self.seq = other_seq(rng, self.seq).clamp(1, layout::SEQ_LIMIT - 1),
            9 => alter_one(rng, std::slice::from_mut(&mut self.history)),
            10 => self.earlier = None,
            _ => {
                if let Some((seq, hash)) = &mut self.earlier {
                    match rng.below(3) {
                        0 => alter_one(rng, std::slice::from_mut(hash)),
                        1 => *seq = other_seq(rng, *seq),
                        _ => *seq = [0, self.seq, self.seq + 1, u64::MAX][rng.index(4)],
                    }
                }
            }
        }
    }
}

fn alter_one(rng: &mut Rng, hashes: &mut [Hash]) {
    if !hashes.is_empty() {
        let at = rng.index(hashes.len());
        hashes[at][rng.index(32)] ^= 1 << rng.below(8);
    }
}

/// A near one, or one whose last bits are others.
fn other_seq(rng: &mut Rng, seq: u64) -> u64 {
    match rng.below(3) {
        0 => seq.saturating_sub(1),
        1 => seq.saturating_add(1),
        _ => seq ^ 1 << rng.below(62),
    }
}

/// Hashes that a history could be of.
fn headers() -> Vec<Hash> {
    (1..=HEADERS).map(|seq| blake3::hash(&seq.to_be_bytes()).into()).collect()
}

/// The root of a full subtree.
fn subtree(headers: &[Hash], height: u32, index: u64) -> Hash {
    let index = usize::try_from(index).unwrap();
    history::root(&headers[index << height..(index + 1) << height])
}

/// The hashes from a header up to its peak, as the page says it.
fn path(headers: &[Hash], earlier: u64) -> Vec<Hash> {
    let mut begin = 0;
    let height = (0..u64::BITS)
        .rev()
        .filter(|height| headers.len() as u64 >> height & 1 == 1)
        .find(|height| {
            begin += 1 << height;
            earlier <= begin
        })
        .unwrap();
    let at = earlier - 1;
    (0..height).map(|height| subtree(headers, height, at >> height ^ 1)).collect()
}

#[derive(Default)]
struct Said([u64; 2]);

impl Said {
    fn judge(&mut self, rng: &mut Rng, case: &Case, seed: u64) {
        let mut altered = case.clone();
        for _ in 0..1 + rng.below(2) {
            altered.alter(rng);
        }
        let ([own, theirs], _) = altered.judge();
        assert!(own == theirs, "seed {seed}: {own}, program {theirs}: {altered:?}, was {case:?}");
        self.0[usize::from(own)] += 1;
    }

    /// Both verdicts have to be met.
    fn finish(self) {
        let [wrong, right] = self.0;
        println!("{right} altered ones are right, {wrong} wrong");
        assert!(right > 0 && wrong > 100 && right < wrong, "{right} right, {wrong} wrong");
    }
}

#[test]
fn both_take_the_same_proofs_of_all_pairs() {
    let (seed, rounds) = (beside::setting("FUZZ_SEED", 1), beside::setting("FUZZ_ROUNDS", ROUNDS));
    println!("seed {seed}");
    let mut rng = Rng::new(seed);
    let all = headers();
    let mut said = Said::default();
    let mut pushed = Peaks::new();
    for count in 0..=HEADERS {
        let headers = &all[..usize::try_from(count).unwrap()];
        let history = history::root(headers);
        assert_eq!(own_hash(&pushed.root(Suite::One)), history, "{count}");
        let peaks = history::peaks(headers);
        let alone = Proof { peaks: peaks.clone(), path: vec![] };
        let case = Case { proof: alone, seq: count + 1, history, earlier: None };
        assert_eq!(case.is_right(), pushed);
        for _ in 0..rounds {
            said.judge(&mut rng, &case, seed);
        }
        for (earlier, hash) in (1..).zip(headers) {
            let path = path(headers, earlier);
            let proof = Proof { peaks: peaks.clone(), path };
            let case = Case { proof, seq: count + 1, history, earlier: Some((earlier, *hash)) };
            compare_nodes(headers, &case, &case.is_right());
            for _ in 0..rounds {
                said.judge(&mut rng, &case, seed);
            }
        }
        if let Some(next) = all.get(headers.len()) {
            pushed.push(program_hash(next));
        }
    }
    said.finish();
}

/// Of what a proof shows, each node is the one of its place: all peaks, and for each
/// hash of the path that one and the one above.
fn compare_nodes(headers: &[Hash], case: &Case, peaks: &Peaks) {
    let (seq, hash) = case.earlier.unwrap();
    let earlier = Position { seq, hash: program_hash(&hash) };
    let path: Vec<ProgramHash> = case.proof.path.iter().map(program_hash).collect();
    let shown: Vec<(Node, ProgramHash)> = program::shown(peaks, Some(earlier), &path).collect();
    assert_eq!(shown.len(), case.proof.peaks.len() + 2 * path.len(), "{case:?}");
    for (node, hash) in shown {
        let own = subtree(headers, node.height.into(), node.index);
        assert_eq!(own_hash(&hash), own, "{node:?} of {case:?}");
    }
}

#[test]
fn both_take_the_same_proofs_at_large_numbers() {
    let (seed, rounds) = (beside::setting("FUZZ_SEED", 1), beside::setting("FUZZ_ROUNDS", ROUNDS));
    println!("seed {seed}");
    let mut rng = Rng::new(seed);
    let mut said = Said::default();
    for round in 0..LARGE {
        let count = match round {
            0 => layout::SEQ_LIMIT - 2,
            1 => 1 << 61,
            2 => (1 << 61) - 1,
            _ => 1 + (rng.u64() >> (2 + rng.below(62))) % (layout::SEQ_LIMIT - 2),
        };
        let earlier = match rng.below(4) {
            0 => 1,
            1 => count,
            _ => 1 + rng.below(count),
        };
        let case = made_up(&mut rng, count, earlier);
        case.is_right();
        for _ in 0..rounds {
            said.judge(&mut rng, &case, seed);
        }
    }
    said.finish();
}

/// A proof in a history of so many headers whose other hashes are whatever they are.
fn made_up(rng: &mut Rng, count: u64, earlier: u64) -> Case {
    let mut drawn = || -> Hash { blake3::hash(&rng.u64().to_be_bytes()).into() };
    let hash = drawn();
    let (mut begin, mut own) = (0u64, None);
    let (mut peaks, mut path) = (Vec::new(), Vec::new());
    for height in (0..62).rev().filter(|height| count >> height & 1 == 1) {
        let end = begin + (1 << height);
        let mut peak = drawn();
        if own.is_none() && earlier <= end {
            own = Some(height);
            path = (0..height).map(|_| drawn()).collect();
            let at = earlier - 1 - begin;
            peak = (0..).zip(&path).fold(hash, |node, (level, beside)| {
                let left = at >> level & 1 == 0;
                let pair = if left { [node, *beside] } else { [*beside, node] };
                history::root(&pair)
            });
        }
        peaks.push(peak);
        begin = end;
    }
    let history = history::root_of_peaks(&peaks);
    Case { proof: Proof { peaks, path }, seq: count + 1, history, earlier: Some((earlier, hash)) }
}
