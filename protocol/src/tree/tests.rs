//! Properties of the state tree: any history of changes ends at the pages that
//! a rebuild from the final content gives.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::suite::Suite;

/// Pages in memory.
#[derive(Default, Clone, PartialEq, Debug)]
pub(super) struct Memory(pub(super) BTreeMap<(u8, Vec<u8>), Vec<u8>>);

impl Pages for Memory {
    type Error = NotUpdated;

    fn suite(&self) -> Suite {
        Suite::One
    }

    fn seek(&mut self, level: u8, key: &[u8]) -> Result<Option<(Vec<u8>, Vec<u8>)>, NotUpdated> {
        let in_level = |(found, _): &(&(u8, Vec<u8>), &Vec<u8>)| found.0 == level;
        let before = self.0.range(..=(level, key.to_vec())).next_back().filter(in_level);
        let page = before.or_else(|| self.0.range((level, vec![])..).next().filter(in_level));
        Ok(page.map(|((_, first), body)| (first.clone(), body.clone())))
    }

    fn next_key(&mut self, level: u8, first_key: &[u8]) -> Result<Option<Vec<u8>>, NotUpdated> {
        use std::ops::Bound::{Excluded, Unbounded};
        let mut behind = self.0.range((Excluded((level, first_key.to_vec())), Unbounded));
        Ok(behind.next().filter(|((found, _), _)| *found == level).map(|((_, key), _)| key.clone()))
    }
}

impl Memory {
    pub(super) fn apply(&mut self, summary: &Summary, changes: &[Change]) -> Summary {
        let update = update_within(self, summary, changes, ANY_SHAPE).unwrap();
        for (level, key) in update.removed {
            assert!(self.0.remove(&(level, key)).is_some(), "removed what was not there");
        }
        for made in update.written {
            self.0.insert((made.level, made.page.first_key), made.body);
        }
        update.summary
    }

    pub(super) fn rebuilt(content: &BTreeMap<Vec<u8>, Vec<u8>>) -> (Self, Summary) {
        let entries = content.iter().map(|(key, value)| (&key[..], &value[..]));
        let (made, summary) = pages_of(Suite::One, entries).unwrap();
        let place = |made: MadePage| ((made.level, made.page.first_key), made.body);
        (Self(made.into_iter().map(place).collect()), summary)
    }
}

/// A leaf's index and patch.
pub(super) type Beside = (Vec<u8>, Option<Vec<u8>>);

/// Pages in memory, whose leaves are changed in place where they can be.
#[derive(Default, Clone)]
pub(super) struct Patching {
    pub(super) pages: Memory,
    pub(super) beside: BTreeMap<Vec<u8>, Beside>,
    patched: usize,
}

impl Pages for Patching {
    type Error = NotUpdated;

    fn suite(&self) -> Suite {
        Suite::One
    }

    fn seek(&mut self, level: u8, key: &[u8]) -> Result<Option<(Vec<u8>, Vec<u8>)>, NotUpdated> {
        let Some((first_key, body)) = self.pages.seek(level, key)? else {
            return Ok(None);
        };
        let patch = self.beside.get(&first_key).and_then(|(_, patch)| patch.as_deref());
        let body = match patch.filter(|_| level == 0) {
            Some(patch) => Leaf::decode(&body)?.patched(&patch::decode_patch(patch)?)?.encode(),
            None => body,
        };
        Ok(Some((first_key, body)))
    }

    fn next_key(&mut self, level: u8, first_key: &[u8]) -> Result<Option<Vec<u8>>, NotUpdated> {
        self.pages.next_key(level, first_key)
    }

    fn kept(&mut self, key: &[u8]) -> Result<Option<Kept>, NotUpdated> {
        let found = self.beside.range(..=key.to_vec()).next_back();
        Ok(found.map(|(first_key, (index, patch))| {
            let (first_key, index, patch) = (first_key.clone(), index.clone(), patch.clone());
            Kept { first_key, index, patch, expected: None }
        }))
    }
}

impl Patching {
    pub(super) fn apply(&mut self, summary: &Summary, changes: &[Change]) -> Summary {
        let update = update_within(self, summary, changes, ANY_SHAPE).unwrap();
        for (level, key) in update.removed {
            if level == 0 {
                self.beside.remove(&key);
            }
            assert!(self.pages.0.remove(&(level, key)).is_some(), "removed what was not there");
        }
        for made in update.written {
            if made.level == 0 {
                // One leaf in five has no index, as if it had been lost.
                match made.page.hash.as_bytes()[0] % 5 {
                    0 => self.beside.remove(&made.page.first_key),
                    _ => self.beside.insert(made.page.first_key.clone(), (made.index, None)),
                };
            }
            self.pages.0.insert((made.level, made.page.first_key), made.body);
        }
        for leaf in update.patched {
            self.patched += 1;
            self.beside.get_mut(&leaf.first_key).unwrap().1 = leaf.patch;
        }
        update.summary
    }

    /// All pages with the patches applied.
    fn whole(&mut self) -> Memory {
        let keys: Vec<(u8, Vec<u8>)> = self.pages.0.keys().cloned().collect();
        Memory(
            keys.into_iter()
                .map(|(level, key)| {
                    let (first, body) = self.seek(level, &key).unwrap().unwrap();
                    ((level, first), body)
                })
                .collect(),
        )
    }
}

pub(super) fn key(number: u32) -> Vec<u8> {
    format!("9141{number:06}").into_bytes()
}

fn put(number: u32, value: u8) -> Change {
    Change::Put { key: key(number), value: vec![value; usize::from(value % 5) + 1] }
}

/// Applies batches, with and without patches, and compares with a rebuild after
/// each. Answers how many leaves were changed in place.
fn check(batches: Vec<BTreeMap<u32, Option<u8>>>) -> usize {
    check_changes(batches.into_iter().map(|batch| {
        let change = |(number, value)| match value {
            Some(value) => put(number, value),
            None => Change::Delete { key: key(number) },
        };
        batch.into_iter().map(change).collect()
    }))
}

fn check_changes(batches: impl Iterator<Item = Vec<Change>>) -> usize {
    let (mut pages, mut summary) = (Memory::default(), Summary::empty(Suite::One));
    let mut patching = Patching::default();
    let mut content = BTreeMap::new();
    for changes in batches {
        for change in &changes {
            match change {
                Change::Put { key, value } => content.insert(key.clone(), value.clone()),
                Change::Delete { key } => content.remove(key),
            };
        }
        assert_eq!(patching.apply(&summary, &changes), {
            summary = pages.apply(&summary, &changes);
            summary.clone()
        });
        let (expected_pages, expected) = Memory::rebuilt(&content);
        assert_eq!(summary, expected);
        assert_eq!(summary.records, content.len() as u64);
        assert!(pages == expected_pages, "the pages differ from a rebuild");
        assert!(patching.whole() == expected_pages, "the patched pages differ from a rebuild");
    }
    patching.patched
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_history_ends_at_the_rebuilt_tree(
        batches in prop::collection::vec(
            prop::collection::btree_map(0u32..3000, prop::option::weighted(0.6, any::<u8>()), 0..400),
            1..8,
        )
    ) {
        check(batches);
    }
}

#[test]
fn a_tree_grows_to_three_levels_and_shrinks_to_nothing() {
    let all: BTreeMap<u32, Option<u8>> = (0..30_000).map(|n| (n, Some((n % 251) as u8))).collect();
    let half = (0..30_000).step_by(2).map(|n| (n, None)).collect();
    let most = (0..29_990).map(|n| (n, None)).collect();
    let rest = (29_990..30_000).map(|n| (n, None)).collect();
    let again = (100..130).map(|n| (n, Some(1))).collect();
    let (_, summary) = Memory::rebuilt(&(0..30_000).map(|n| (key(n), vec![1])).collect());
    assert!(summary.pages.len() >= 3, "{:?}", summary.pages);
    check(vec![all, half, most, rest, again]);
}

/// The bound, but for pages above leaves: to see trees that nobody may make any more.
pub(super) const ANY_SHAPE: Work = Work { inner_pages_spare: u64::MAX, ..WORK };

/// Keys that somebody chose to make the tree deep: of few different bytes, some
/// with others in front of them.
fn chosen_keys() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop::sample::select(vec![0u8, 1, 3, 127, 128, 255]);
    let nested = (0usize..400).prop_map(|bit| {
        let mut key = vec![0; 51];
        key[bit / 8] = 0x80 >> (bit % 8);
        key
    });
    prop_oneof![prop::collection::vec(byte, 0..6), nested]
}

type Batch = BTreeMap<Vec<u8>, Option<u8>>;

fn changes_of(batch: Batch) -> Vec<Change> {
    let change = |(key, value)| match value {
        Some(value) => Change::Put { key, value: vec![value] },
        None => Change::Delete { key },
    };
    batch.into_iter().map(change).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn chosen_keys_end_at_the_rebuilt_tree_too(
        batches in prop::collection::vec(
            prop::collection::btree_map(
                chosen_keys(), prop::option::weighted(0.7, any::<u8>()), 0..900,
            ),
            1..8,
        )
    ) {
        check_changes(batches.into_iter().map(changes_of));
    }

    #[test]
    fn one_change_of_chosen_keys_changes_two_pages_a_level(
        keys in prop::collection::btree_set(chosen_keys(), 1..1500),
        more in prop::collection::vec(chosen_keys(), 1..20),
        gone in prop::collection::vec(any::<prop::sample::Index>(), 1..20),
    ) {
        let content: BTreeMap<_, _> = keys.iter().map(|key| (key.clone(), vec![1])).collect();
        let (mut pages, mut summary) = Memory::rebuilt(&content);
        let deleted = gone.iter().map(|at| keys.iter().nth(at.index(keys.len())).unwrap().clone());
        let deletes = deleted.map(|key| Change::Delete { key });
        for change in more.into_iter().map(|key| Change::Put { key, value: vec![2] }).chain(deletes) {
            let update = update(&mut pages, &summary, std::slice::from_ref(&change)).unwrap();
            for level in 0..LEVELS_MAX {
                let written = update.written.iter().filter(|made| made.level == level).count();
                let removed = update.removed.iter().filter(|(at, _)| *at == level).count();
                // Two, and one that was read for it and is written as it was.
                prop_assert!(written <= 3 && removed <= 2, "{written} and {removed} at {level}");
            }
            summary = pages.apply(&summary, &[change]);
        }
    }
}

#[test]
fn keys_that_lie_too_deep_inside_each_other_are_refused() {
    // Each bit of the longest key makes a group with one key more than the next.
    let nested = (0..8192).map(|bit| {
        let mut key = vec![0; 1024];
        key[bit / 8] = 0x80 >> (bit % 8);
        Change::Put { key, value: Vec::new() }
    });
    let mut changes: Vec<Change> = nested.collect();
    changes.sort_by(|a, b| a.key().cmp(b.key()));
    let (mut pages, mut summary) = (Memory::default(), Summary::empty(Suite::One));
    summary = pages.apply(&summary, &changes[..2000]);
    assert_eq!(summary.pages.len(), 13, "{:?}", summary.pages);
    let mut refused = None;
    for some in changes[2000..].chunks(200) {
        match update_within(&mut pages, &summary, some, ANY_SHAPE) {
            Ok(_) => summary = pages.apply(&summary, some),
            Err(error) => {
                refused = Some(error);
                break;
            }
        }
    }
    assert_eq!(refused, Some(Excess::Levels.into()));
    assert_eq!(summary.pages.len(), usize::from(LEVELS_MAX));
}

#[test]
fn a_page_that_grows_before_one_that_shrinks_may_be_joined_with_one_before_it() {
    let deep = |last: u8| [&[0; 10][..], &[last]].concat();
    let change = |key: &[u8], value: Option<u8>| match value {
        Some(value) => Change::Put { key: key.to_vec(), value: vec![value] },
        None => Change::Delete { key: key.to_vec() },
    };
    let mut first: Vec<Change> = (0..160).map(|n| change(&deep(n), Some(1))).collect();
    first.splice(0..0, [change(&[0], Some(1)), change(&[0, 0], Some(1))]);
    let mut then = vec![change(&[0, 0, 0, 0], Some(2))];
    then.extend((0..3).map(|n| change(&deep(n), None)));
    check_changes([first, then].into_iter());
}

#[test]
fn scattered_changes_stay_beside_their_leaves() {
    let all = (0..4000).map(|n| (n, Some(1))).collect();
    let some = |step: usize, value: u8| (0..4000).step_by(step).map(|n| (n, Some(value))).collect();
    let inserted = (4000..4010).map(|n| (n, Some(9))).collect();
    let patched = check(vec![all, some(13, 2), some(17, 3), inserted, some(13, 1), some(3, 5)]);
    assert!(patched > 60, "only {patched} leaves were changed in place");
}

#[test]
fn one_change_touches_one_page_a_level() {
    let content: BTreeMap<_, _> = (0..20_000).map(|n| (key(n), vec![1])).collect();
    let (mut pages, summary) = Memory::rebuilt(&content);
    let update = update(&mut pages, &summary, &[put(777, 9)]).unwrap();
    assert_eq!(update.written.len(), summary.pages.len());
    assert!(update.removed.is_empty());
}

#[test]
fn leaves_in_disorder_or_with_a_wrong_end_are_refused() {
    let content: BTreeMap<_, _> = (0..400).map(|n| (key(n), vec![1])).collect();
    let (pages, _) = Memory::rebuilt(&content);
    let leaves: Vec<Leaf> = pages
        .0
        .iter()
        .filter(|((level, _), _)| *level == 0)
        .map(|(_, body)| Leaf::decode(body).unwrap())
        .collect();
    let push = |order: &[usize]| {
        let mut builder = TreeBuilder::new(Suite::One);
        order.iter().try_for_each(|index| {
            builder.push(&leaves[*index], leaves[*index].describe(Suite::One), &mut Vec::new())
        })
    };
    assert_eq!(push(&[0, 1]), Ok(()));
    assert_eq!(push(&[1, 0]), Err(ShapeError::Order));
    // Each cut in two, two put into one, one left out: none is where the rule
    // says, which may show as late as at the end.
    let entries: Vec<_> = content.iter().map(|(key, value)| (&key[..], &value[..])).collect();
    let whole = |lengths: &[usize]| {
        let mut builder = TreeBuilder::new(Suite::One);
        let mut from = 0;
        for length in lengths {
            let raw = RawLeaf::of(entries[from..from + length].iter().copied());
            let leaf = Leaf::decode(&raw.make(Suite::One).body).unwrap();
            builder.push(&leaf, leaf.describe(Suite::One), &mut Vec::new())?;
            from += length;
        }
        builder.finish(&mut Vec::new()).map(drop)
    };
    let lengths: Vec<usize> = leaves.iter().map(Leaf::len).collect();
    assert_eq!(whole(&lengths), Ok(()));
    for index in 0..lengths.len() {
        let mut halved = lengths.clone();
        halved.splice(index..=index, [1, lengths[index] - 1]);
        assert_eq!(whole(&halved), Err(ShapeError::Ends), "{index}");
        if index + 1 < lengths.len() {
            let mut moved = lengths.clone();
            moved[index] -= 1;
            moved[index + 1] += 1;
            assert_eq!(whole(&moved), Err(ShapeError::Ends), "{index}");
        }
    }
}

#[test]
fn deleting_every_page_but_one_leaves_that_one_as_the_root() {
    let all: BTreeMap<u32, Option<u8>> = (0..400).map(|n| (n, Some(1))).collect();
    let content: BTreeMap<_, _> = (0..400).map(|n| (key(n), vec![1])).collect();
    let (pages, summary) = Memory::rebuilt(&content);
    assert!(summary.pages[0] >= 3, "{:?}", summary.pages);
    let leaves: Vec<Leaf> = pages
        .0
        .iter()
        .filter(|((level, _), _)| *level == 0)
        .map(|(_, body)| Leaf::decode(body).unwrap())
        .collect();
    for keep in &leaves {
        let kept: Vec<&[u8]> = keep.entries().map(|(key, _)| key).collect();
        let gone = (0..400).filter(|n| !kept.contains(&key(*n).as_slice())).map(|n| (n, None));
        check(vec![all.clone(), gone.collect()]);
    }
}

/// What a tree of leaves of 5 KB refuses, whether or not it has indexes.
fn refused(changes: &[Change], work: Work) -> Option<NotUpdated> {
    let content: BTreeMap<_, _> = (0..20_000).map(|n| (key(n), vec![1; 60])).collect();
    let (pages, summary) = Memory::rebuilt(&content);
    let beside = |body: &Vec<u8>| Leaf::decode(body).unwrap().describe_with_index(Suite::One);
    let leaves = pages.0.iter().filter(|((level, _), _)| *level == 0).map(|(_, body)| beside(body));
    let beside = leaves.map(|(page, index)| (page.first_key, (index, None))).collect();
    let mut patching = Patching { pages: pages.clone(), beside, patched: 0 };
    let written = update_within(&mut pages.clone(), &summary, changes, work).err();
    let patched = update_within(&mut patching, &summary, changes, work).err();
    assert_eq!(written, patched, "a replica refuses what its origin refuses");
    written
}

#[test]
fn changes_that_belong_to_too_many_bytes_of_pages_are_refused() {
    let work = |leaf_bytes_max, inner_bytes_max| Work { leaf_bytes_max, inner_bytes_max, ..WORK };
    let content: BTreeMap<_, _> = (0..20_000).map(|n| (key(n), vec![1; 60])).collect();
    let (pages, summary) = Memory::rebuilt(&content);
    let of_level = |level: u8| pages.0.iter().filter(move |((at, _), _)| *at == level);
    assert_eq!(summary.pages.len(), 3);
    let leaf_bytes: u64 = of_level(0).map(|(_, body)| Leaf::decode(body).unwrap().bytes()).sum();
    let inner_bytes = [1, 2].map(|level| of_level(level).map(|(_, b)| b.len() as u64).sum::<u64>());
    assert_eq!(leaf_bytes, summary.bytes);

    // One change of each leaf, in the middle of it, or its first record deleted.
    let firsts: Vec<Vec<u8>> = of_level(0).map(|((_, first), _)| first.clone()).collect();
    let put = |key: &Vec<u8>| Change::Put { key: [&key[..], b"0"].concat(), value: vec![9] };
    let delete = |key: &Vec<u8>| Change::Delete { key: key.clone() };
    for changes in [firsts.iter().map(put).collect::<Vec<_>>(), firsts.iter().map(delete).collect()]
    {
        let inner: u64 = inner_bytes.iter().sum();
        assert_eq!(refused(&changes, work(leaf_bytes, inner)), None);
        let less = refused(&changes, work(leaf_bytes - 1, inner));
        assert_eq!(less, Some(Excess::Leaves.into()));
        let less = refused(&changes, work(leaf_bytes, inner - 1));
        assert_eq!(less, Some(Excess::Inner.into()));
        let (half, rest) = changes.split_at(changes.len() / 2);
        for part in [half, rest] {
            assert_eq!(refused(part, work(leaf_bytes - 1, inner - 1)), None);
        }
    }
    // What changes nothing is looked for all the same.
    let nothing = [Change::Delete { key: [&firsts[3][..], b"0"].concat() }];
    assert_eq!(refused(&nothing, work(1000, u64::MAX)), Some(Excess::Leaves.into()));
}

/// What SPEC.md says of pages made and ended, from two whole trees.
fn turnover(before: &Memory, after: &Memory, levels: usize) -> u64 {
    let below = |(level, _): &&(u8, Vec<u8>)| usize::from(*level) + 1 < levels;
    let differs = |one: &Memory, other: &Memory| -> u64 {
        let pages = one.0.keys().filter(below);
        pages.filter(|place| other.0.get(*place) != one.0.get(*place)).count() as u64
    };
    let above = before.0.keys().filter(|place| !below(place)).count() as u64;
    differs(after, before).max(differs(before, after) + above)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn pages_made_and_ended_are_counted_as_they_are(
        first in prop::collection::btree_map(chosen_keys(), any::<u8>(), 0..1500),
        batch in prop::collection::btree_map(
            chosen_keys(), prop::option::weighted(0.4, 0..3u8), 0..900,
        ),
    ) {
        let mut content: BTreeMap<_, _> = first.into_iter().map(|(k, v)| (k, vec![v % 3])).collect();
        let (mut pages, summary) = Memory::rebuilt(&content);
        let changes = changes_of(batch);
        for change in &changes {
            match change.entry() {
                Some((key, value)) => content.insert(key.to_vec(), value.to_vec()),
                None => content.remove(change.key()),
            };
        }
        let (after, summary_after) = Memory::rebuilt(&content);
        if after == pages {
            return Ok(());
        }
        let pages_max = turnover(&pages, &after, summary_after.pages.len());
        let within = |pages: &mut Memory, pages_max| {
            update_within(pages, &summary, &changes, Work { pages_max, ..WORK }).map(|u| u.summary)
        };
        prop_assert_eq!(within(&mut pages, pages_max), Ok(summary_after));
        if pages_max > 0 {
            let less = within(&mut pages, pages_max - 1);
            prop_assert_eq!(less.err(), Some(Excess::Pages.into()));
        }
    }
}

#[test]
fn keys_inside_each_other_make_and_end_a_bounded_number_of_pages() {
    let refused = |pages: &mut Memory, summary: &Summary, changes: &[Change]| {
        update_within(pages, summary, changes, ANY_SHAPE).err()
    };
    let nested = |number: u8| {
        (0..2200).map(move |bit| {
            let mut key = vec![0; 277];
            (key[0], key[1 + bit / 8]) = (number, 0x80 >> (bit % 8));
            key
        })
    };
    let mut keys: Vec<Vec<u8>> = (0..4).flat_map(nested).collect();
    keys.sort();
    let put = |key: &Vec<u8>| Change::Put { key: key.clone(), value: vec![1] };
    let (mut pages, mut summary) = (Memory::default(), Summary::empty(Suite::One));
    let all: Vec<Change> = keys.iter().map(put).collect();
    assert_eq!(refused(&mut pages, &summary, &all), Some(Excess::Pages.into()));
    // In parts it is taken, and how many there are is what the origin finds out.
    for some in all.chunks(1000) {
        summary = pages.apply(&summary, some);
    }
    assert!(summary.pages.iter().sum::<u64>() > 50_000, "{:?}", summary.pages);
    let gone: Vec<Change> =
        keys.iter().map(|key| Change::Delete { key: key.clone() }).skip(1).collect();
    assert_eq!(refused(&mut pages, &summary, &gone), Some(Excess::Pages.into()));
}

#[test]
fn a_tree_has_few_pages_above_its_leaves() {
    let mut keys: Vec<Vec<u8>> = (0..2000)
        .map(|bit| {
            let mut key = vec![0; 250];
            key[bit / 8] = 0x80 >> (bit % 8);
            key
        })
        .collect();
    keys.sort();
    let put = |key: &Vec<u8>| Change::Put { key: key.clone(), value: vec![1] };
    let changes: Vec<Change> = keys.iter().map(put).collect();
    // 3000 records beside them allow for 11 pages more, and have few.
    for beside in [0, 3000] {
        let content: BTreeMap<_, _> =
            (0..beside).map(|n| ([&[0xff][..], &key(n)].concat(), vec![1])).collect();
        let (mut pages, mut summary) = Memory::rebuilt(&content);
        let inner = |summary: &Summary| summary.pages.iter().skip(1).sum::<u64>();
        let refused = changes.chunks(4).find_map(|some| {
            let refused = update(&mut pages, &summary, some).err();
            let after = pages.apply(&summary, some);
            let most = 1024 + after.records / 256;
            assert_eq!(refused.is_some(), inner(&after) > most, "{after:?}");
            if refused.is_none() {
                summary = after;
            }
            refused
        });
        assert_eq!(refused, Some(Excess::Levels.into()), "{summary:?}");
        assert!(inner(&summary) > 1000 && summary.records > 700, "{summary:?}");
    }
}

#[test]
fn suites_give_trees_of_one_shape_and_other_hashes() {
    let content: BTreeMap<_, _> = (0..3000).map(|n| (key(n), vec![1])).collect();
    let entries = || content.iter().map(|(key, value)| (&key[..], &value[..]));
    let shape = |suite| {
        let (made, summary) = pages_of(suite, entries()).unwrap();
        let places: Vec<_> = made.iter().map(|made| (made.level, &made.page.first_key)).collect();
        let hashes: Vec<Hash> = made.iter().map(|made| made.page.hash).collect();
        assert!(hashes.iter().all(|hash| hash.suite() == suite) && hashes.contains(&summary.root));
        (format!("{places:?}"), summary.pages, summary.bytes, hashes)
    };
    let one = shape(Suite::One);
    for suite in Suite::ALL.iter().filter(|suite| **suite != Suite::One) {
        let other = shape(*suite);
        assert_eq!((&other.0, &other.1, other.2), (&one.0, &one.1, one.2));
        assert!(other.3.iter().zip(&one.3).all(|(a, b)| a != b));
        assert_ne!(empty_root(*suite), empty_root(Suite::One));
    }
}
