//! Staging: a tree of a peer becomes this replica's state, or leaves no trace.

use std::sync::atomic::Ordering;

use protocol::{change::Change, difference::Own, page::LEVELS_MAX};

use super::{
    fixtures::{
        Content, Delivery, Random, apply, arrived, assert_holds, assert_tidy, begin, commit,
        crashed, delete, delivery, empty_replica, enterprise, federation, feed, follow, fresh, key,
        keys_of, open, put, puts, replica_of, stage, tidy, wait,
    },
    reference::Memory,
};
use crate::{Staging, Store, StoreError, keys};

fn grown(store: &Store, content: &mut Content, rounds: u64) {
    let mut random = Random::new();
    random.0 += content.len() as u64;
    for round in 0..rounds {
        let changes = random.changes(20_000, 6000, if round == 0 { 0 } else { 30 });
        apply(content, &changes);
        commit(store, &enterprise(), changes);
    }
}

/// The prefix of the pages of `enterprise`, the second partition of a replica.
fn generation(generation: u32) -> Vec<u8> {
    keys::generation(1, generation)
}

/// Same head, same records, and further change sets follow.
fn assert_same_and_follows(origin: &Store, replica: &Store, content: &mut Content) {
    let (ours, theirs) =
        (replica.head(&enterprise()).unwrap(), origin.head(&enterprise()).unwrap());
    assert_eq!((&ours.signed, &ours.summary), (&theirs.signed, &theirs.summary));
    assert_holds(replica, &enterprise(), content);
    let generation = generation(ours.generation);
    // The first partition is _federation, of one page and its index.
    assert!(keys_of(replica, b"p").iter().skip(2).all(|key| key.starts_with(&generation)));
    assert!(keys_of(replica, b"g").is_empty(), "the staging is over");
    let changes = Random::new().changes(25_000, 2000, 40);
    apply(content, &changes);
    commit(origin, &enterprise(), changes);
    follow(origin, replica, &enterprise());
    assert_holds(replica, &enterprise(), content);
}

#[test]
fn an_empty_replica_takes_a_whole_tree() {
    let (_a, origin) = fresh();
    let mut content = Content::new();
    grown(&origin, &mut content, 4);
    let (b, replica) = empty_replica(&origin);
    let (header, leaves) = delivery(&origin);
    let mut staging = begin(&replica, &header);
    assert_eq!(feed(&mut staging, &leaves), 0);
    assert_eq!(replica.head(&enterprise()), None, "nothing is visible before the end");
    assert!(replica.live_pages(&enterprise()).is_none());
    let head = wait(staging.finish()).unwrap();
    assert_eq!(replica.head(&enterprise()), Some(head));
    drop(replica);
    let replica = open(b.path());
    assert_same_and_follows(&origin, &replica, &mut content);
}

#[test]
fn an_empty_tree_is_a_tree() {
    let (_a, origin) = fresh();
    commit(&origin, &enterprise(), puts(0..10, "x"));
    commit(&origin, &enterprise(), (0..10).map(delete).collect());
    let (_b, replica) = empty_replica(&origin);
    let (header, leaves) = delivery(&origin);
    assert!(leaves.is_empty());
    wait(begin(&replica, &header).finish()).unwrap();
    assert_same_and_follows(&origin, &replica, &mut Content::new());
}

#[test]
fn a_replica_that_is_far_behind_keeps_the_pages_that_still_fit() {
    let (_a, origin) = fresh();
    let mut content = Content::new();
    grown(&origin, &mut content, 3);
    let (_b, replica) = replica_of(&origin);
    let old = content.clone();
    let changes = Random::new().changes(5000, 900, 30);
    apply(&mut content, &changes);
    commit(&origin, &enterprise(), changes);
    let (header, leaves) = delivery(&origin);
    let mut snapshot = replica.snapshot_blocking(&enterprise()).unwrap().unwrap();
    let mut staging = begin(&replica, &header);
    let held = feed(&mut staging, &leaves);
    assert!(held > leaves.len() / 2 && held < leaves.len(), "{held} of {}", leaves.len());
    assert_holds_without_tidying(&replica, &old);
    let before = replica.head(&enterprise()).unwrap().generation;
    assert_eq!(wait(staging.finish()).unwrap().generation, before + 1);
    // A snapshot of the old generation still reads it.
    tidy(&replica);
    Memory::built(&old).0.assert_same(&mut snapshot);
    drop(snapshot);
    assert_same_and_follows(&origin, &replica, &mut content);
}

#[test]
fn where_many_trees_arrive_at_once_each_is_written_in_shorter_batches() {
    let (_a, origin) = fresh();
    let mut random = Random::new();
    // 1.6 MB that do not become less, in fewer leaves than fill a batch.
    let mut noise = || (0..100).flat_map(|_| random.next().to_be_bytes()).collect::<Vec<u8>>();
    commit(&origin, &enterprise(), (0..2000).map(|number| put(number, noise())).collect());
    let (header, leaves) = delivery(&origin);
    let written = |others: usize| {
        let (_b, replica) = empty_replica(&origin);
        replica.shared.stagings.fetch_add(others, Ordering::Relaxed);
        let mut staging = begin(&replica, &header);
        let before = replica.counters().pages_written;
        feed(&mut staging, &leaves);
        tidy(&replica);
        replica.counters().pages_written - before
    };
    assert_eq!(written(0), 0, "the end of the tree fits into the same batch");
    assert!(written(99) > 0);
}

#[test]
fn what_is_looked_at_is_bounded_by_its_bytes() {
    let (_a, origin) = fresh();
    commit(&origin, &enterprise(), puts(0..2000, &"x".repeat(2000)));
    let (_b, replica) = replica_of(&origin);
    commit(&origin, &enterprise(), puts(2000..2001, "x"));
    let (header, leaves) = delivery(&origin);
    let staging = begin(&replica, &header);
    let pages: Vec<_> = leaves.into_iter().map(|(page, _)| page).collect();
    let look = |bytes_max| -> Vec<usize> {
        staging.look(0, &pages, bytes_max).unwrap().iter().map(Own::bytes).collect()
    };
    let all = look(usize::MAX);
    assert!(all.len() == pages.len() && all.len() > 10);
    let resolved = |bytes_max| staging.resolve(&pages, bytes_max).unwrap().len();
    let each = all[0] as u64;
    assert_eq!((resolved(u64::MAX), resolved(0), resolved(1)), (pages.len(), 1, 1));
    assert!((2..pages.len()).contains(&resolved(4 * each)), "{}", resolved(4 * each));
    for bytes_max in [0, all[0], all[0] + 1, 1_000_000, all.iter().sum()] {
        let some = look(bytes_max);
        assert_eq!(some, all[..some.len()]);
        let (_last, before) = some.split_last().unwrap();
        assert!(before.iter().sum::<usize>() < bytes_max || before.is_empty(), "{bytes_max}");
        assert!(some.iter().sum::<usize>() >= bytes_max, "{bytes_max}");
    }
}

fn assert_holds_without_tidying(store: &Store, content: &Content) {
    Memory::built(content).0.assert_same(&mut store.live_pages(&enterprise()).unwrap());
}

#[test]
fn a_crash_loses_no_more_than_the_newest_leaves() {
    let (_a, origin) = fresh();
    for stretch in 0..15 {
        commit(&origin, &enterprise(), puts(stretch * 10_000..(stretch + 1) * 10_000, "x"));
    }
    let (b, replica) = empty_replica(&origin);
    let (header, leaves) = delivery(&origin);
    let mut staging = begin(&replica, &header);
    feed(&mut staging, &leaves[..leaves.len() - 5]);
    // The last batch may be on its way.
    tidy(&replica);
    let crash = crashed(b.path());
    let again = open(crash.path());
    let held = feed(&mut begin(&again, &header), &leaves);
    assert!(held >= 1024 && held < leaves.len(), "{held} of {}", leaves.len());
}

#[test]
fn inner_pages_that_an_interrupted_staging_has_left_are_in_no_other_tree() {
    let (_a, origin) = fresh();
    let mut content = Content::new();
    let commit_all = |content: &mut Content, changes: Vec<Change>| {
        for changes in changes.chunks(10_000) {
            apply(content, changes);
            commit(&origin, &enterprise(), changes.to_vec());
        }
    };
    commit_all(&mut content, puts(0..150_000, "x"));
    let (_b, replica) = empty_replica(&origin);
    let (header, leaves) = delivery(&origin);
    let mut staging = begin(&replica, &header);
    feed(&mut staging, &leaves[..leaves.len() - 1]);
    // The last batch may be on its way.
    tidy(&replica);
    drop(staging);
    let inner = |store: &Store, generation: u32| {
        let levels = (1..LEVELS_MAX).map(|level| keys::page(1, generation, level, &[]));
        levels.map(|level| keys_of(store, &level).len()).sum::<usize>()
    };
    let written = inner(&replica, 1);
    assert!(written > 4, "{written} of {} leaves", leaves.len());
    commit_all(&mut content, (100..149_900).map(delete).collect());
    let (header, leaves) = delivery(&origin);
    let mut staging = begin(&replica, &header);
    assert_eq!(inner(&replica, 1), 0);
    assert!(feed(&mut staging, &leaves) > 0);
    wait(staging.finish()).unwrap();
    assert_same_and_follows(&origin, &replica, &mut content);
}

#[test]
fn an_interrupted_staging_is_taken_up_again_against_a_newer_head() {
    let (_a, origin) = fresh();
    let mut content = Content::new();
    for stretch in 0..4 {
        let changes = puts(stretch * 10_000..(stretch + 1) * 10_000, "x");
        apply(&mut content, &changes);
        commit(&origin, &enterprise(), changes);
    }
    let (b, mut replica) = empty_replica(&origin);
    let (header, leaves) = delivery(&origin);
    // The first attempt gets to the end but for its last leaves. What it had
    // not written yet, less than a batch, is lost.
    let mut staging = begin(&replica, &header);
    feed(&mut staging, &leaves[..leaves.len() - 5]);
    // The last batch may be on its way.
    tidy(&replica);
    drop(staging);
    let written = |store: &Store| keys_of(store, &generation(1)).len();
    assert!(written(&replica) > 256, "{} of {}", written(&replica), leaves.len());
    // Meanwhile a stretch of keys vanishes, and so do the last ones.
    let mut changes: Vec<Change> = (3000..9000).map(delete).collect();
    changes.extend((25_000..26_000).map(delete));
    apply(&mut content, &changes);
    commit(&origin, &enterprise(), changes);
    for reopen in [false, true] {
        if reopen {
            drop(replica);
            replica = open(b.path());
        }
        let (header, leaves) = delivery(&origin);
        let mut staging = begin(&replica, &header);
        let before = written(&replica);
        let part = if reopen { leaves.len() } else { leaves.len() / 4 };
        let held = feed(&mut staging, &leaves[..part]);
        // All but the leaf around the end of the stretch that vanished.
        assert!(held + 2 >= part.min(leaves.len() / 4), "{held} of {part}");
        assert!(held < before || !reopen, "the vanished leaves are not among them");
        assert_eq!(replica.head(&enterprise()), None);
        if reopen {
            wait(staging.finish()).unwrap();
        }
    }
    assert_same_and_follows(&origin, &replica, &mut content);
}

#[test]
fn a_tree_with_another_root_than_the_signed_one_is_refused() {
    let (_a, origin) = fresh();
    let mut content = Content::new();
    grown(&origin, &mut content, 2);
    let (header, leaves) = delivery(&origin);
    let (_b, replica) = empty_replica(&origin);
    let (_c, other) = fresh();
    commit(&other, &enterprise(), puts(0..700, "other"));
    let (_, other_leaves) = delivery(&other);

    let mut staging = begin(&replica, &header);
    feed(&mut staging, &leaves[..leaves.len() - 1]);
    let refused = wait(staging.finish());
    assert!(matches!(refused, Err(StoreError::RootMismatch { .. })), "{refused:?}");
    let mut staging = begin(&replica, &header);
    feed(&mut staging, &other_leaves);
    let refused = wait(staging.finish());
    assert!(matches!(refused, Err(StoreError::RootMismatch { .. })), "{refused:?}");
    let mut staging = begin(&replica, &header);
    stage(&mut staging, arrived(&leaves[1].1)).unwrap();
    let refused = stage(&mut staging, arrived(&leaves[0].1));
    assert!(matches!(refused, Err(StoreError::Shape { .. })), "{refused:?}");
    drop(staging);
    assert_eq!(replica.head(&enterprise()), None);
    assert!(replica.live_pages(&enterprise()).is_none());
    // What these attempts left behind does no harm.
    let mut staging = begin(&replica, &header);
    feed(&mut staging, &leaves);
    wait(staging.finish()).unwrap();
    assert_same_and_follows(&origin, &replica, &mut content);
}

#[test]
fn only_the_newest_staging_of_a_partition_writes() {
    let (_a, origin) = fresh();
    let mut content = Content::new();
    grown(&origin, &mut content, 2);
    let (_b, replica) = empty_replica(&origin);
    let (old_header, old_leaves) = delivery(&origin);
    grown(&origin, &mut content, 2);
    let (header, leaves) = delivery(&origin);
    let mut overtaken = begin(&replica, &old_header);
    feed(&mut overtaken, &old_leaves[..old_leaves.len() / 2]);
    let mut staging = begin(&replica, &header);
    feed(&mut staging, &leaves[..leaves.len() / 3]);
    let stage_all = |staging: &mut Staging, leaves: &Delivery| {
        leaves.iter().try_for_each(|(_, body)| stage(staging, arrived(body)))
    };
    let refused = stage_all(&mut overtaken, &old_leaves[old_leaves.len() / 2..].to_vec());
    let refused = refused.and_then(|()| wait(overtaken.finish()).map(drop));
    assert!(matches!(refused, Err(StoreError::Overtaken(_))), "{refused:?}");
    feed(&mut staging, &leaves[leaves.len() / 3..]);
    wait(staging.finish()).unwrap();
    assert_same_and_follows(&origin, &replica, &mut content);
}

#[test]
fn a_staging_that_commits_have_passed_is_refused() {
    let (_a, origin) = fresh();
    commit(&origin, &enterprise(), puts(0..700, "x"));
    let (header, leaves) = delivery(&origin);
    let (_b, replica) = empty_replica(&origin);
    let mut staging = begin(&replica, &header);
    feed(&mut staging, &leaves);
    follow(&origin, &replica, &enterprise());
    let refused = wait(staging.finish());
    assert!(matches!(refused, Err(StoreError::Overtaken(_))), "{refused:?}");
    let content = (0..700).map(|n| (key(n), b"x".to_vec())).collect();
    assert_holds(&replica, &enterprise(), &content);
}

#[test]
fn a_staged_tree_may_not_name_an_unknown_federation_head() {
    let (_a, origin) = fresh();
    let (_b, replica) = empty_replica(&origin);
    commit(&origin, &federation(), vec![put(2, "member")]);
    commit(&origin, &enterprise(), puts(0..700, "x"));
    let (header, leaves) = delivery(&origin);
    let mut staging = begin(&replica, &header);
    feed(&mut staging, &leaves);
    let refused = wait(staging.finish());
    assert!(
        matches!(refused, Err(StoreError::Federation { needed: 2, have: 1, .. })),
        "{refused:?}"
    );
    follow(&origin, &replica, &federation());
    let mut staging = begin(&replica, &header);
    feed(&mut staging, &leaves);
    wait(staging.finish()).unwrap();
}

#[test]
fn a_point_read_never_misses_a_record_while_generations_switch() {
    let (_a, origin) = fresh();
    commit(&origin, &enterprise(), puts(0..3000, "x"));
    let (_b, replica) = replica_of(&origin);
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut random = Random::new();
            while !done.load(std::sync::atomic::Ordering::Acquire) {
                let number = random.below(3000);
                assert!(replica.get(&enterprise(), &key(number)).unwrap().is_some(), "{number}");
            }
        });
        for round in 0..40 {
            if reader.is_finished() {
                break;
            }
            commit(&origin, &enterprise(), vec![put(round * 70, "y")]);
            let (header, leaves) = delivery(&origin);
            let mut staging = begin(&replica, &header);
            feed(&mut staging, &leaves);
            wait(staging.finish()).unwrap();
        }
        done.store(true, std::sync::atomic::Ordering::Release);
    });
    assert_tidy(&replica);
}
