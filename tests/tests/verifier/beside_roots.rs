//! The root after changes beside the program's: an update has to give the tree that is
//! made from all records at once.
//!
//! The states are small and crowded: many of their groups have about as many entries as
//! a page, so that a few puts and deletes side by side join pages, part them, and do
//! both at once. `FUZZ_SEED` and `FUZZ_ROUNDS` choose other cases, and more of them.

use harness::sim::{rng::Rng, tree::Tree};
use protocol::suite::Suite;

use super::{
    beside,
    beside_work::{ANY_SHAPE, updated},
    change::{self, Change},
    made,
    tree::{self, State},
};

/// Cases, unless `FUZZ_ROUNDS` says otherwise.
const ROUNDS: u64 = 150;

/// The pages of each level before and after, if the program has another root.
fn difference(state: &State, changes: &[Change]) -> Option<[Vec<usize>; 2]> {
    let held = Tree::build(Suite::One, state);
    let before = tree::of(state).unwrap();
    let mut after = state.clone();
    change::apply(&mut after, changes);
    let after = tree::of(&after).unwrap();
    let same = updated(&held, changes, ANY_SHAPE) == Ok(after.root);
    (!same).then(|| [before.pages(), after.pages()])
}

/// As few records and changes as still differ.
fn smallest(mut state: State, mut changes: Vec<Change>) -> (State, Vec<Change>) {
    loop {
        let before = (state.len(), changes.len());
        let mut size = changes.len().max(1);
        while size > 0 {
            let mut at = 0;
            while at < changes.len() {
                let mut fewer = changes.clone();
                fewer.drain(at..(at + size).min(changes.len()));
                if difference(&state, &fewer).is_some() { changes = fewer } else { at += size }
            }
            size /= 2;
        }
        let mut size = state.len().max(1);
        while size > 0 {
            let mut at = 0;
            while at < state.len() {
                let kept = |index: &usize| *index < at || *index >= at + size;
                let fewer = state.clone().into_iter().enumerate();
                let fewer = fewer.filter(|(index, _)| kept(index)).map(|(_, entry)| entry);
                let fewer: State = fewer.collect();
                if difference(&fewer, &changes).is_some() { state = fewer } else { at += size }
            }
            size /= 2;
        }
        if before == (state.len(), changes.len()) {
            return (state, changes);
        }
    }
}

/// A number near one at which pages are joined or parted.
fn crowd(rng: &mut Rng) -> usize {
    match rng.below(6) {
        0 => rng.index(4),
        1 => 78 + rng.index(5),
        2 => rng.index(160),
        _ => 150 + rng.index(20),
    }
}

/// Each key lies inside the next but for a few that are missing, so there are as many
/// pages on one level as make the next one crowded.
fn chain(rng: &mut Rng, prefix: &[u8]) -> Vec<Vec<u8>> {
    let count = match rng.below(4) {
        0 => 160 + crowd(rng),
        1 => 320 + crowd(rng),
        2 => rng.index(480),
        _ => 160 + rng.index(8),
    };
    let missing = [0, 1, 10][rng.index(3)];
    let keys = made::nested_keys(count).into_iter().filter(|_| !rng.chance(missing));
    keys.map(|key| [prefix, &key].concat()).collect()
}

/// Keys that begin others, those that lie deepest the most.
fn prefixes(rng: &mut Rng, prefix: &[u8]) -> Vec<Vec<u8>> {
    let deep = rng.index(12);
    let mut keys: Vec<Vec<u8>> = (0..deep)
        .filter(|_| rng.chance(60))
        .map(|more| [prefix, &vec![0; more]].concat())
        .collect();
    let last = [prefix, &vec![0; deep]].concat();
    keys.extend(
        (0..crowd(rng)).map(|number| [&last[..], &[u8::try_from(number).unwrap()]].concat()),
    );
    keys
}

/// Keys of two letters, which part anywhere.
fn letters(rng: &mut Rng, prefix: &[u8]) -> Vec<Vec<u8>> {
    let percent = [50, 80, 95][rng.index(3)];
    let length = 8 + rng.index(8);
    let key = |rng: &mut Rng| {
        let count = if rng.chance(70) { length } else { rng.index(length) };
        let letters = (0..count).map(|_| if rng.chance(percent) { 0 } else { 1 });
        [prefix, &letters.collect::<Vec<u8>>()].concat()
    };
    (0..crowd(rng) + crowd(rng)).map(|_| key(rng)).collect()
}

fn some_keys(rng: &mut Rng, prefix: &[u8]) -> Vec<Vec<u8>> {
    match rng.below(3) {
        0 => chain(rng, prefix),
        1 => prefixes(rng, prefix),
        _ => letters(rng, prefix),
    }
}

fn some_state(rng: &mut Rng) -> State {
    let mut keys = Vec::new();
    for _ in 0..1 + rng.index(3) {
        let prefix = vec![[0, 1, 128, 255][rng.index(4)]; rng.index(3)];
        keys.extend(some_keys(rng, &prefix));
    }
    keys.into_iter().map(|key| (key, vec![1])).collect()
}

/// Puts and deletes in a few stretches of the keys.
fn some_changes(rng: &mut Rng, state: &State) -> Vec<Change> {
    let keys: Vec<&Vec<u8>> = state.keys().collect();
    let mut changes = Vec::new();
    for _ in 0..1 + rng.index(4) {
        let length = [1, 2, 3, 8, 40, 170][rng.index(6)];
        let start = rng.index(keys.len() + 1);
        let stretch = &keys[start..(start + length).min(keys.len())];
        match rng.below(3) {
            0 => {
                let percent = [50, 90, 100][rng.index(3)];
                let gone = stretch.iter().filter(|_| rng.chance(percent));
                changes.extend(gone.map(|key| Change::Delete { key: key.to_vec() }));
            }
            1 => {
                let percent = [10, 100][rng.index(2)];
                for key in stretch {
                    if !rng.chance(percent) {
                        continue;
                    }
                    let mut key = key.to_vec();
                    match rng.below(4) {
                        0 => {}
                        1 => key.truncate(rng.index(key.len() + 1)),
                        2 => key.push([0, 1, 128][rng.index(3)]),
                        _ => {
                            if let Some(last) = key.last_mut() {
                                *last ^= 1 << rng.index(8);
                            }
                        }
                    }
                    changes.push(Change::Put { key, record: vec![2] });
                }
            }
            _ => {
                let prefix =
                    stretch.first().map_or(&[][..], |key| &key[..rng.index(key.len() + 1)]);
                let mut new = some_keys(rng, prefix);
                new.truncate(1 + rng.index(length));
                changes.extend(new.into_iter().map(|key| Change::Put { key, record: vec![2] }));
            }
        }
    }
    let mut changes = made::in_order(changes);
    changes.dedup_by(|left, right| left.key() == right.key());
    changes
}

#[test]
fn changes_side_by_side_give_the_root_of_all_records() {
    let (seed, rounds) = (beside::setting("FUZZ_SEED", 1), beside::setting("FUZZ_ROUNDS", ROUNDS));
    println!("seed {seed}");
    let mut rng = Rng::new(seed);
    let (mut joined, mut parted) = (0, 0);
    for round in 0..rounds {
        let state = some_state(&mut rng);
        let changes = some_changes(&mut rng, &state);
        if let Some([before, after]) = difference(&state, &changes) {
            let (state, changes) = smallest(state, changes);
            let smaller = difference(&state, &changes);
            panic!(
                "seed {seed}, round {round}: another root, pages {before:?} to {after:?}; as few \
                 as do it, pages {smaller:?}:\n{:?}\n{changes:?}",
                state.keys().map(|key| beside::hex(key)).collect::<Vec<_>>(),
            );
        }
        let mut after = state.clone();
        change::apply(&mut after, &changes);
        let leaves = |state| tree::of(state).unwrap().pages().first().copied().unwrap_or(0);
        joined += u64::from(leaves(&after) < leaves(&state));
        parted += u64::from(leaves(&after) > leaves(&state));
    }
    println!("{joined} with fewer leaves than before, {parted} with more");
    assert!(joined > rounds / 10 && parted > rounds / 10, "{joined} joined, {parted} parted");
}
