//! A change set that touches as much as section 8 of `protocol/SPEC.md` allows is
//! taken, and one that touches a little more is not.

use super::{
    Refused,
    change::{self, Change},
    federation::Federation,
    layout,
    made::{self, HUB, Origin, key, nested_keys},
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

#[test]
fn a_replica_takes_as_many_pages_as_may_be_and_not_one_more() {
    // Records of this dataset may be anything: what is malformed is ignored.
    let mut origin = Origin::new(layout::FEDERATION_DATASET, HUB);
    let anchor = made::anchor(&made::fields(&key(1)));
    let anchor = super::anchor::Anchor::verified(&anchor, &made::root()).unwrap();
    let mut federation = Federation::new(anchor);
    let state = nested(NESTED_MAX);
    let puts: Vec<Change> = state
        .iter()
        .map(|(key, record)| Change::Put { key: key.clone(), record: record.clone() })
        .collect();
    // All of them at once make more pages than anybody takes.
    let (header, body) = origin.clone().next(&puts, None, &key(1));
    let refused = federation.take(&header, &body);
    assert_eq!(refused, Err(Refused("too many pages made")));
    for some in puts.chunks(500) {
        let (header, body) = origin.next(some, None, &key(1));
        federation.take(&header, &body).unwrap();
    }
    let [exactly, over] = at_the_bound_of_pages(&state);
    let (header, body) = origin.clone().next(&over, None, &key(1));
    let refused = federation.clone().take(&header, &body);
    assert_eq!(refused, Err(Refused("too many pages ended")));
    let (header, body) = origin.next(&exactly, None, &key(1));
    assert_eq!(federation.take(&header, &body), Ok(()));
    // What ends is counted also where nothing is made.
    let all: Vec<Change> = state.into_keys().map(|key| Change::Delete { key }).collect();
    let (header, body) = origin.next(&all, None, &key(1));
    assert_eq!(federation.take(&header, &body), Err(Refused("too many pages ended")));
}

#[test]
fn each_bound_is_the_last_that_is_taken() {
    let most =
        Work { leaf_bytes: 536_870_912, inner_bytes: 134_217_728, made: 16_384, ended: 16_384 };
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
