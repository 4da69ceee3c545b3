//! What a change set touches, counted by the verifier beside the program: at the
//! number that the verifier counts the program takes it, and at one less it refuses.
//!
//! `FUZZ_SEED` and `FUZZ_ROUNDS` choose other cases, and more of them. The bounds of
//! pages and of leaves, and that on a tree's shape, are met at their full size as well.

use std::collections::BTreeSet;

use harness::sim::{rng::Rng, tree::Tree};
use protocol::{
    change::Change as ProgramChange,
    suite::Suite,
    tree::{self as program, Excess, NotUpdated, WORK, update_within},
};

use super::{
    Refused, beside,
    bounds::{NESTED_MAX, at_the_bound_of_pages, at_the_bound_of_shape, nested, work_of},
    change::{self, Change},
    hashes::{self, Hash},
    layout, made,
    tree::{self, State},
    work::{self, Work},
};

/// Cases, unless `FUZZ_ROUNDS` says otherwise.
const ROUNDS: u64 = 150;

pub fn for_program(changes: &[Change]) -> Vec<ProgramChange> {
    let change = |change: &Change| match change.clone() {
        Change::Put { key, record } => ProgramChange::Put { key, value: record },
        Change::Delete { key } => ProgramChange::Delete { key },
    };
    changes.iter().map(change).collect()
}

/// The root after changes that the program takes within some bounds.
pub fn updated(tree: &Tree, changes: &[Change], within: program::Work) -> Result<Hash, NotUpdated> {
    let before = tree.summary.clone();
    let update = update_within(&mut &*tree, &before, &for_program(changes), within)?;
    Ok(update.summary.root.as_bytes().try_into().unwrap())
}

/// The program's bounds, but for that on the shape of a tree.
pub const ANY_SHAPE: program::Work = program::Work { inner_pages_spare: u64::MAX, ..WORK };

/// Bounds that are exactly what the verifier counts.
fn exactly(work: &Work) -> program::Work {
    program::Work {
        leaf_bytes_max: work.leaf_bytes,
        inner_bytes_max: work.inner_bytes,
        pages_max: work.made.max(work.ended),
        ..ANY_SHAPE
    }
}

#[test]
fn both_have_the_same_bounds() {
    assert_eq!(WORK.leaf_bytes_max, layout::TOUCHED_LEAF_BYTES_MAX);
    assert_eq!(WORK.inner_bytes_max, layout::TOUCHED_INNER_BYTES_MAX);
    assert_eq!(WORK.pages_max, layout::TURNED_OVER_MAX);
    assert_eq!(WORK.inner_pages_spare, layout::INNER_PAGES_MAX);
}

/// What kinds of cases there were: a test that meets one of them never proves little.
#[derive(Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Seen(BTreeSet<&'static str>);

impl Seen {
    fn note(&mut self, work: &Work, before: &tree::Tree, after: &tree::Tree) {
        let (low, high) = (before.levels.len(), after.levels.len());
        for (kind, is_so) in [
            ("nothing before", low == 0),
            ("nothing after", low > 0 && high == 0),
            ("a higher tree", low > 0 && high > low),
            ("a lower tree", high > 0 && high + 1 < low),
            ("only a leaf after", high == 1 && low > 1),
            ("more made", work.made > work.ended),
            ("more ended", work.ended > work.made),
            ("nothing made", low > 1 && work.made == 0),
            ("three levels of pages touched", low > 3 && work.inner_bytes > 0),
        ] {
            self.0.extend(is_so.then_some(kind));
        }
    }
}

#[test]
fn the_program_takes_what_the_verifier_counts_and_nothing_less() {
    let (seed, rounds) = (beside::setting("FUZZ_SEED", 1), beside::setting("FUZZ_ROUNDS", ROUNDS));
    println!("seed {seed}");
    let mut rng = Rng::new(seed);
    let mut seen = Seen::default();
    for round in 0..rounds {
        let state = some_state(&mut rng);
        let changes = some_changes(&mut rng, &state);
        let mut behind = state.clone();
        change::apply(&mut behind, &changes);
        let (before, after) = (tree::of(&state).unwrap(), tree::of(&behind).unwrap());
        let work = work::of(&before, &work::entry_bytes(&state), &after, &changes);
        seen.note(&work, &before, &after);
        let held = Tree::build(Suite::One, &state);
        let mut at = exactly(&work);
        if changes.is_empty() {
            // The page counts nothing here, and the program the root as ended in some
            // trees: a page is no matter where nobody has so few.
            at.pages_max = 1;
            let root = updated(&held, &changes, at);
            assert_eq!(root, Ok(after.root), "seed {seed}, round {round}");
            if updated(&held, &changes, exactly(&work)).is_err() {
                println!("round {round}: counted without changes, {:?}", before.pages());
            }
            continue;
        }
        let take = |within| updated(&held, &changes, within);
        let case = format!("seed {seed}, round {round}: {work:?}");
        let root = take(at).unwrap_or_else(|why| panic!("{case}: {why}"));
        assert_eq!(root, after.root, "{case}, another root");
        let refused = |why: Excess| Err(NotUpdated::Excess(why));
        if let Some(leaf_bytes_max) = at.leaf_bytes_max.checked_sub(1) {
            let less = program::Work { leaf_bytes_max, ..at };
            assert_eq!(take(less), refused(Excess::Leaves), "{case}");
        }
        if let Some(inner_bytes_max) = at.inner_bytes_max.checked_sub(1) {
            let less = program::Work { inner_bytes_max, ..at };
            assert_eq!(take(less), refused(Excess::Inner), "{case}");
        }
        if let Some(pages_max) = at.pages_max.checked_sub(1) {
            let less = program::Work { pages_max, ..at };
            assert_eq!(take(less), refused(Excess::Pages), "{case}");
        }
        if after.root == before.root {
            continue;
        }
        // A tree that has more records than its pages need is never over the bound.
        let more = after.records / layout::RECORDS_FOR_AN_INNER_PAGE;
        let spare = after.inner_pages().saturating_sub(more);
        let shape = |inner_pages_spare| program::Work { inner_pages_spare, ..at };
        assert_eq!(take(shape(spare)), Ok(root), "{case}");
        if let Some(spare) = spare.checked_sub(1) {
            assert_eq!(take(shape(spare)), refused(Excess::Levels), "{case}");
        }
    }
    assert_eq!(seen.0.len(), 9, "{seen:?}");
}

/// Of two pages at the front, one record each, the second takes a record more, and the
/// page behind them loses some: now all fit one page.
#[test]
fn pages_that_fit_one_page_are_joined() {
    let zeros = |count: usize| vec![0; count];
    let deep = |last: u8| [&[0; 10][..], &[last]].concat();
    let mut different = Vec::new();
    for puts in 0..3usize {
        let mut state = State::from([(zeros(1), vec![]), (zeros(2), vec![])]);
        state.extend((1..=160).map(|last| (deep(last), vec![])));
        assert_eq!(tree::of(&state).unwrap().pages(), [3, 1]);
        let mut changes: Vec<Change> =
            (0..puts).map(|at| Change::Put { key: zeros(4 + at), record: vec![] }).collect();
        changes.extend((1..=160).take(2 + puts).map(|last| Change::Delete { key: deep(last) }));
        let held = Tree::build(Suite::One, &state);
        change::apply(&mut state, &changes);
        let after = tree::of(&state).unwrap();
        assert_eq!(after.pages(), [1]);
        if updated(&held, &changes, WORK) != Ok(after.root) {
            different.push(puts);
        }
    }
    assert!(different.is_empty(), "another root after so many puts: {different:?}");
}

/// Records under keys of several kinds.
fn some_state(rng: &mut Rng) -> State {
    let count = [0, 1, 160, 200, 1500, 4000][rng.index(6)];
    let mut state = State::new();
    if rng.chance(40) {
        state.extend(nested(rng.index(1500)));
    }
    for _ in 0..rng.below(count + 1) {
        let key = some_key(rng);
        let longest = if rng.chance(5) { 3000 } else { 40 };
        state.insert(key, vec![7; rng.index(longest)]);
    }
    state
}

/// A spread key, a short one, one that begins others, or a long one.
fn some_key(rng: &mut Rng) -> Vec<u8> {
    match rng.below(8) {
        0 => vec![0; rng.index(200)],
        1 => vec![rng.below(3) as u8; 1 + rng.index(3)],
        2 => [&[5; 300][..], &rng.u32().to_be_bytes()].concat(),
        3 => [&[0, 0, 0, 0, 0, 1][..], &rng.u32().to_be_bytes()].concat(),
        _ => rng.u32().to_be_bytes().to_vec(),
    }
}

/// Changes of some of a state's records, of new ones, and such as change nothing.
fn some_changes(rng: &mut Rng, state: &State) -> Vec<Change> {
    // Now and then most of the state goes, or all of it.
    let gone = [0, 0, 0, 1, 30, 90, 99, 100][rng.index(8)];
    let mut changes: Vec<Change> = state
        .keys()
        .filter(|_| rng.chance(gone))
        .map(|key| Change::Delete { key: key.clone() })
        .collect();
    let keys: Vec<&Vec<u8>> = state.keys().collect();
    let most = if rng.chance(20) { 400 } else { 40 };
    let more = if gone > 90 { 0 } else { rng.below(most) };
    for _ in 0..more {
        let own = !keys.is_empty() && rng.chance(50);
        let key = if own { keys[rng.index(keys.len())].clone() } else { some_key(rng) };
        changes.push(match rng.below(4) {
            0 => Change::Delete { key },
            1 => Change::Put { record: state.get(&key).cloned().unwrap_or_default(), key },
            _ => Change::Put { record: vec![rng.below(3) as u8; rng.index(200)], key },
        });
    }
    let mut changes = made::in_order(changes);
    changes.dedup_by(|left, right| left.key() == right.key());
    changes
}

#[test]
fn both_take_as_many_pages_as_may_be_and_not_one_more() {
    let state = nested(NESTED_MAX);
    let held = Tree::build(Suite::One, &state);
    let [exactly, over] = at_the_bound_of_pages(&state);
    let mut after = state.clone();
    change::apply(&mut after, &exactly);
    assert_eq!(work_of(&state, &exactly).ended, layout::TURNED_OVER_MAX);
    assert_eq!(updated(&held, &exactly, ANY_SHAPE), Ok(tree::of(&after).unwrap().root));
    assert_eq!(work_of(&state, &over).ended, layout::TURNED_OVER_MAX + 1);
    assert_eq!(updated(&held, &over, ANY_SHAPE), Err(NotUpdated::Excess(Excess::Pages)));
}

#[test]
fn neither_makes_a_level_too_many() {
    let mut keys = made::nested_keys(NESTED_MAX + 1);
    let first = keys.remove(0);
    let state: State = keys.into_iter().map(|key| (key, vec![])).collect();
    assert_eq!(tree::of(&state).unwrap().levels.len(), layout::LEVELS_MAX);
    let held = Tree::build(Suite::One, &state);
    let changes = [Change::Put { key: first, record: vec![] }];
    let mut after = state;
    change::apply(&mut after, &changes);
    let why = Refused("a tree with too many levels");
    assert_eq!(tree::of(&after).map(|tree| tree.root), Err(why));
    assert_eq!(updated(&held, &changes, ANY_SHAPE), Err(NotUpdated::Excess(Excess::Levels)));
}

#[test]
fn both_take_64_mib_of_leaves_and_not_a_byte_more() {
    // 8 leaves of 128 records, each of which has 64 KiB in its leaf but for the first:
    // it leaves room for the counts of all leaves.
    let keys: Vec<[u8; 2]> = (0..1024u16).map(u16::to_be_bytes).collect();
    let bytes = vec![0; layout::RECORD_BYTES_MAX - 8];
    // One change for each leaf, which changes nothing.
    let changes: Vec<Change> = keys
        .iter()
        .step_by(128)
        .map(|key| Change::Delete { key: [key, &[0][..]].concat() })
        .collect();
    for (missing, is_within) in [(2 * 8, true), (2 * 8 - 1, false)] {
        let entries = || {
            keys.iter().enumerate().map(|(index, key)| {
                let left_out = if index == 0 { missing } else { 0 };
                (&key[..], &bytes[left_out..])
            })
        };
        let digests: Vec<(&[u8], Hash)> = entries()
            .map(|(key, record)| (key, hashes::entry_digest(key, record).unwrap()))
            .collect();
        let before = tree::of_entries(&digests).unwrap();
        assert_eq!(before.pages(), [8, 1]);
        let sizes: Vec<u64> =
            entries().map(|(key, record)| work::entry(key.len(), record.len())).collect();
        let work = work::of(&before, &sizes, &before, &changes);
        assert_eq!(work.check().is_ok(), is_within, "{work:?}");
        let held = Tree::of(Suite::One, entries());
        let expected =
            if is_within { Ok(before.root) } else { Err(NotUpdated::Excess(Excess::Leaves)) };
        assert_eq!(updated(&held, &changes, WORK), expected);
    }
}

#[test]
fn both_take_as_many_pages_above_the_leaves_as_may_be_and_not_one_more() {
    let (state, changes) = at_the_bound_of_shape();
    let held = Tree::build(Suite::One, &state);
    assert_eq!(WORK.check_shape(&held.summary), Ok(()));
    for (change, is_within) in changes {
        let mut after = state.clone();
        change::apply(&mut after, std::slice::from_ref(&change));
        let whole = tree::of(&after).unwrap();
        assert_eq!(whole.check_shape().is_ok(), is_within, "{change:?}");
        let excess = if is_within { Ok(()) } else { Err(Excess::Levels) };
        // Page by page, and by the change.
        let summary = Tree::build(Suite::One, &after).summary;
        assert_eq!(WORK.check_shape(&summary), excess, "{change:?}");
        let root = excess.map(|()| whole.root).map_err(NotUpdated::Excess);
        assert_eq!(updated(&held, &[change], WORK), root);
    }
}
