//! A change set that touches as much as section 8 of `protocol/SPEC.md` allows is
//! taken, and one that touches a little more is not; and so with a tree's shape.

use super::{
    Refused,
    change::{self, Change, SignedHeader},
    federation::Federation,
    layout,
    made::{self, HUB, Origin, key, nested_keys},
    pages::Entry,
    replica,
    tree::{self, State},
    work::{self, Work},
};

/// As many keys as a tree of 16 levels can have where each lies inside the next.
pub const NESTED_MAX: usize = 160 + 15 * 159;

/// Records under nested keys.
pub fn nested(count: usize) -> State {
    nested_keys(count).into_iter().map(|key| (key, vec![1])).collect()
}

/// Puts of another record under some keys of a state.
pub fn rewrite<'a>(keys: impl IntoIterator<Item = &'a Vec<u8>>) -> Vec<Change> {
    keys.into_iter().map(|key| Change::Put { key: key.clone(), record: vec![2] }).collect()
}

/// What changes of a state touch.
pub fn work_of(state: &State, changes: &[Change]) -> Work {
    let mut after = state.clone();
    change::apply(&mut after, changes);
    let (before, after) = (tree::of(state).unwrap(), tree::of(&after).unwrap());
    work::of(&before, &work::entry_bytes(state), &after, changes)
}

/// Two sets of changes of [`nested`] keys: one that ends exactly as many pages as may
/// be, and one that ends a page more. Both make all of them again but for the root.
pub fn at_the_bound_of_pages(state: &State) -> [Vec<Change>; 2] {
    // The last keys left the way first: they are on pages of their own on each level.
    // The first one shares the last page of each level, which is then made anyway, so
    // a key that is added costs only the pages that are its own.
    let keys: Vec<&Vec<u8>> = state.keys().rev().collect();
    let (deepest, keys) = keys.split_last().expect("there are keys");
    let set = |first: usize, more: &[&Vec<u8>]| {
        let chosen = keys[..first].iter().chain([deepest]).chain(more).copied();
        made::in_order(rewrite(chosen))
    };
    let ended = |changes: &[Change]| work_of(state, changes).ended;
    let (mut fits, mut over) = (0, keys.len());
    while over - fits > 1 {
        let middle = usize::midpoint(fits, over);
        let is_within = ended(&set(middle, &[])) <= layout::TURNED_OVER_MAX;
        *(if is_within { &mut fits } else { &mut over }) = middle;
    }
    // The deeper a key lies, the fewer of its pages are its own.
    let exactly = |pages: u64| {
        let mut sets = keys[fits..].iter().step_by(50).map(|key| set(fits, &[key]));
        sets.find(|changes| ended(changes) == pages).expect("a key has as many of its own")
    };
    [exactly(layout::TURNED_OVER_MAX), exactly(layout::TURNED_OVER_MAX + 1)]
}

/// A tree with exactly as many pages above its leaves as may be, and changes of it,
/// with whether all take them.
pub fn at_the_bound_of_shape() -> (State, Vec<(Change, bool)>) {
    // A second chain of keys fills a page of level 1: a key more makes it two.
    let second = |key: Vec<u8>| [&[0xff][..], &key].concat();
    let spread = |number: u16| [&[0xf0][..], &number.to_be_bytes()].concat();
    let mut chain: Vec<Vec<u8>> = nested_keys(160 + 160).into_iter().map(second).collect();
    let more = chain.remove(0);
    let made = (800..830).find_map(|depth| {
        let mut state = nested(depth);
        state.extend(chain.iter().map(|key| (key.clone(), vec![1])));
        // As many records as an odd number of pages needs, so one less is too few.
        let steps = layout::RECORDS_FOR_AN_INNER_PAGE;
        let missing = steps - state.len() as u64 % steps;
        (0..8).find_map(|times| {
            let numbers = 0..u16::try_from(missing + times * steps).unwrap();
            let mut state = state.clone();
            state.extend(numbers.map(|number| (spread(number), vec![1])));
            let most = layout::INNER_PAGES_MAX + state.len() as u64 / steps;
            (tree::of(&state).unwrap().inner_pages() == most).then_some(state)
        })
    });
    let state = made.expect("some depth has as many pages");
    let one_more = |key: &[u8]| Change::Put { key: key.to_vec(), record: vec![1] };
    let changes = vec![
        (one_more(&more), false),
        (one_more(&nested_keys(900)[0]), false),
        (Change::Delete { key: spread(0) }, false),
        (one_more(&spread(u16::MAX)), true),
        (one_more(&spread(0)), true),
        // A page goes with it.
        (Change::Delete { key: chain[0].clone() }, true),
        (Change::Delete { key: more }, true),
    ];
    (state, changes)
}

/// A `_federation`, whose records may be anything (what is malformed is ignored), with
/// this state, and its origin.
fn with_state(state: &State) -> (Origin, Federation) {
    let mut origin = Origin::new(layout::FEDERATION_DATASET, HUB);
    let anchor = made::anchor(&made::fields(&key(1)));
    let anchor = super::anchor::Anchor::verified(&anchor, &made::root()).unwrap();
    let mut federation = Federation::new(anchor);
    let puts: Vec<Change> = state
        .iter()
        .map(|(key, record)| Change::Put { key: key.clone(), record: record.clone() })
        .collect();
    let bytes = |change: &Change| made::body(std::slice::from_ref(change)).len();
    let per_set = layout::BODY_BYTES_MAX / puts.iter().map(bytes).max().unwrap();
    for some in puts.chunks(per_set.min(layout::CHANGES_MAX)) {
        let (header, body) = origin.next(some, None, &key(1));
        federation.take(&header, &body).unwrap();
    }
    (origin, federation)
}

#[test]
fn a_replica_takes_as_many_pages_above_the_leaves_as_may_be_and_not_one_more() {
    let (state, changes) = at_the_bound_of_shape();
    let (origin, federation) = with_state(&state);
    let why = Refused("too many pages above the leaves");
    for (change, is_within) in changes {
        let expected = if is_within { Ok(()) } else { Err(why) };
        let case = format!("{change:?}");
        let (header, body) = origin.clone().next(std::slice::from_ref(&change), None, &key(1));
        assert_eq!(federation.clone().take(&header, &body), expected, "{case}");
        // Page by page as well.
        let header = SignedHeader::decode(&header).unwrap().header;
        let mut after = state.clone();
        change::apply(&mut after, &[change]);
        let entries: Vec<Entry> = after.clone().into_iter().collect();
        let leaves = entries.chunks(100).map(<[Entry]>::to_vec);
        let expected = expected.map(|()| after);
        assert_eq!(replica::check_leaves(&header, leaves), expected, "{case}");
    }
}

#[test]
fn a_replica_takes_64_mib_of_leaves_and_not_a_byte_more() {
    // 8 leaves of 128 records, with 64 KiB each in them but for the first one, which
    // leaves room for the leaves' counts.
    let keys: Vec<[u8; 2]> = (0..1024u16).map(u16::to_be_bytes).collect();
    // One change for each leaf, which changes nothing.
    let changes: Vec<Change> = keys
        .iter()
        .step_by(128)
        .map(|key| Change::Delete { key: [key, &[0][..]].concat() })
        .collect();
    let record = |missing: usize| vec![0; layout::RECORD_BYTES_MAX - 8 - missing];
    let mut state: State = keys.iter().map(|key| (key.to_vec(), record(0))).collect();
    state.insert(keys[0].to_vec(), record(2 * 8));
    let (mut origin, mut federation) = with_state(&state);
    let (header, body) = origin.next(&changes, None, &key(1));
    assert_eq!(federation.take(&header, &body), Ok(()));
    let longer = Change::Put { key: keys[0].to_vec(), record: record(2 * 8 - 1) };
    let (header, body) = origin.next(&[longer], None, &key(1));
    assert_eq!(federation.take(&header, &body), Ok(()));
    let (header, body) = origin.next(&changes, None, &key(1));
    assert_eq!(federation.take(&header, &body), Err(Refused("too many bytes of leaves")));
}

#[test]
fn pages_are_counted_where_they_are_made_and_where_they_end() {
    // No replica has such a tree: its shape is over another bound.
    let state = nested(NESTED_MAX);
    let puts: Vec<Change> = rewrite(state.keys());
    let all_at_once = work_of(&State::new(), &puts);
    assert_eq!(all_at_once.check(), Err(Refused("too many pages made")));
    let [exactly, over] = at_the_bound_of_pages(&state);
    assert_eq!(work_of(&state, &exactly).check(), Ok(()));
    assert_eq!(work_of(&state, &over).check(), Err(Refused("too many pages ended")));
    // What ends is counted also where nothing is made.
    let pages = tree::of(&state).unwrap().pages().iter().sum::<usize>() as u64;
    let all: Vec<Change> = state.keys().map(|key| Change::Delete { key: key.clone() }).collect();
    let work = work_of(&state, &all);
    assert_eq!((work.made, work.ended), (0, pages));
    assert_eq!(work.check(), Err(Refused("too many pages ended")));
}

#[test]
fn a_root_that_is_made_is_not_counted_and_one_that_ends_is() {
    let state = nested(200);
    assert_eq!(tree::of(&state).unwrap().pages(), [41, 1]);
    let turned = |state: &State, changes: &[Change]| {
        let work = work_of(state, changes);
        (work.made, work.ended)
    };
    assert_eq!(turned(&state, &[]), (0, 0), "no change");
    assert_eq!(turned(&state, &[Change::Delete { key: vec![3] }]), (0, 1), "it changes nothing");
    assert_eq!(turned(&state, &rewrite(state.keys().take(1))), (1, 2));
    assert_eq!(turned(&State::new(), &rewrite(state.keys())), (41, 0));
    let all: Vec<Change> = state.keys().map(|key| Change::Delete { key: key.clone() }).collect();
    assert_eq!(turned(&state, &all), (0, 42), "nothing is left");
    assert_eq!(turned(&state, &all[40..]), (0, 42), "one leaf is left, which is the root");
    assert_eq!(turned(&State::new(), &[]), (0, 0));
}

#[test]
fn each_bound_is_the_last_that_is_taken() {
    let most =
        Work { leaf_bytes: 67_108_864, inner_bytes: 134_217_728, made: 16_384, ended: 16_384 };
    assert_eq!(most.check(), Ok(()));
    for (work, why) in [
        (Work { leaf_bytes: most.leaf_bytes + 1, ..most }, "too many bytes of leaves"),
        (Work { inner_bytes: most.inner_bytes + 1, ..most }, "too many bytes of pages"),
        (Work { made: most.made + 1, ..most }, "too many pages made"),
        (Work { ended: most.ended + 1, ..most }, "too many pages ended"),
    ] {
        assert_eq!(work.check(), Err(Refused(why)));
    }
}
