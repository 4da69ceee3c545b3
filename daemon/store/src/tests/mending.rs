//! A damaged log: what is told of it, what may take the place of what is damaged, and that
//! nothing else is lost by it.

use protocol::{
    change::{Position, SignedHeader},
    hash::Hash,
    id::PartitionId,
};

use super::{
    fixtures::*,
    pruning::{as_hub, assert_counted, log_of},
};
use crate::{Mend, Store, StoreError, testing::LogHarm};

const HEADER_HARMS: [LogHarm; 4] =
    [LogHarm::HeaderGarbled, LogHarm::HeaderAltered, LogHarm::Signature, LogHarm::HeaderMissing];
/// Numbers of these partitions.
const COUNT: u64 = 21;

fn written() -> (tempfile::TempDir, Store) {
    let (directory, store) = fresh();
    for number in 0..COUNT {
        commit(&store, &enterprise(), vec![put(number % 5, format!("{number}"))]);
    }
    (directory, store)
}

fn header(store: &Store, seq: u64) -> SignedHeader {
    store.header_at(&enterprise(), seq).unwrap().unwrap()
}

fn mend(store: &Store, seq: u64, mend: Mend) -> Result<(), StoreError> {
    wait(store.mend_log(&enterprise(), seq, mend))
}

#[track_caller]
fn assert_refused(mended: Result<(), StoreError>) {
    assert!(matches!(mended, Err(StoreError::Damaged { .. })), "{mended:?}");
}

fn hash_of(signed: &SignedHeader) -> Hash {
    signed.hash()
}

/// Everything that the log says of a partition.
fn told(store: &Store) -> impl PartialEq + std::fmt::Debug + use<> {
    let head = store.head(&enterprise()).unwrap();
    let of = |seq: u64| {
        let header = store.header_at(&enterprise(), seq).unwrap();
        let set = store.change_sets(&enterprise(), seq, 1, usize::MAX).unwrap();
        let proof = store.history_proof(&enterprise(), &head, Some(seq)).unwrap();
        (header, set, proof)
    };
    (1..=head.seq()).map(of).collect::<Vec<_>>()
}

/// Another header with this number that the same key has signed.
fn another(store: &Store, seq: u64) -> SignedHeader {
    let mut described = header(store, seq).header().clone();
    described.origin_time_ms += 1;
    SignedHeader::sign(described, &KEY)
}

#[test]
fn a_damaged_header_is_replaced_by_the_one_that_was_signed_and_by_no_other() {
    let (_one, origin) = written();
    let (_two, replica) = replica_of(&origin);
    as_hub(&replica);
    for store in [&origin, &replica] {
        let before = told(store);
        for harm in HEADER_HARMS {
            for seq in [1, 2, 7, 8, 19, 20] {
                let (right, other) = (header(store, seq), another(store, seq));
                store.damage_log(&enterprise(), seq, harm);
                assert_refused(mend(store, seq, Mend::Header(Box::new(other.clone()))));
                assert_refused(mend(store, seq, Mend::Hash(hash_of(&other))));
                let neighbour = header(store, seq + 1);
                assert_refused(mend(store, seq, Mend::Header(Box::new(neighbour))));
                mend(store, seq, Mend::Header(Box::new(right))).unwrap();
                assert_eq!(told(store), before, "{harm:?} of {seq}");
                assert_counted(store);
            }
        }
    }
}

#[test]
fn a_run_of_damaged_headers_is_mended_from_its_newest() {
    let (_one, origin) = written();
    let before = told(&origin);
    let right: Vec<SignedHeader> = (5..=12).map(|seq| header(&origin, seq)).collect();
    for seq in 5..=12 {
        origin.damage_log(&enterprise(), seq, LogHarm::HeaderGarbled);
    }
    let put = |header: &SignedHeader| {
        mend(&origin, header.header().seq, Mend::Header(Box::new(header.clone())))
    };
    // Nothing vouches for one whose neighbours are damaged, but for what it says itself of
    // the one that it is joined with.
    assert_refused(put(&right[2]));
    put(&right[3]).unwrap();
    origin.damage_log(&enterprise(), 8, LogHarm::HeaderGarbled);
    right.iter().rev().for_each(|header| put(header).unwrap());
    assert_eq!(told(&origin), before);
}

#[test]
fn the_hash_of_a_header_that_nobody_keeps_proves_as_much() {
    let (_one, origin) = written();
    let (directory, replica) = replica_of(&origin);
    as_hub(&replica);
    for (harm, seq) in HEADER_HARMS.into_iter().zip([3, 8, 13, 20]) {
        let hash = hash_of(&header(&replica, seq));
        replica.damage_log(&enterprise(), seq, harm);
        assert_eq!(replica.vouched_hash_at(&enterprise(), seq).unwrap(), Some(hash));
        mend(&replica, seq, Mend::Hash(hash)).unwrap();
    }
    drop(replica);
    let replica = open(directory.path());
    as_hub(&replica);
    let (headers, bodies, kept) = log_of(&replica);
    let left: Vec<u64> = (1..=COUNT).filter(|seq| ![3, 8, 13, 20].contains(seq)).collect();
    assert_eq!((&headers, &bodies, kept.hashes), (&left, &left, 4));
    assert_counted(&replica);
    let head = replica.head(&enterprise()).unwrap();
    let described = head.signed.header();
    for seq in 1..COUNT {
        let hash = hash_of(&header(&origin, seq));
        assert_eq!(replica.header_hash_at(&enterprise(), seq).unwrap(), Some(hash));
        let proof = replica.history_proof(&enterprise(), &head, Some(seq)).unwrap().unwrap();
        let shown =
            proof.check(described.seq - 1, &described.history, Some(Position { seq, hash }));
        assert!(shown.is_ok(), "number {seq}");
    }
    assert_eq!(replica.change_sets(&enterprise(), 8, 9, usize::MAX).unwrap(), None);
    assert_eq!(replica.change_sets(&enterprise(), 4, 9, usize::MAX).unwrap().unwrap().len(), 4);
    // And everything goes on.
    commit(&origin, &enterprise(), vec![put(2, "more")]);
    follow(&origin, &replica, &enterprise());
}

#[test]
fn the_heads_own_header_and_what_is_needed_are_never_left_out() {
    let (_one, origin) = written();
    let head = origin.head(&enterprise()).unwrap();
    for harm in HEADER_HARMS {
        origin.damage_log(&enterprise(), COUNT, harm);
        assert_refused(mend(&origin, COUNT, Mend::Hash(hash_of(&head.signed))));
        assert_refused(mend(&origin, COUNT, Mend::Nothing));
        mend(&origin, COUNT, Mend::Header(Box::new(head.signed.clone()))).unwrap();
        assert_eq!(header(&origin, COUNT), head.signed);
    }
    // What is well.
    assert_refused(mend(&origin, 5, Mend::NoBody));
    assert_refused(mend(&origin, 5, Mend::Nothing));
    // An origin's own, and all of `_federation`.
    origin.damage_log(&enterprise(), 5, LogHarm::HeaderGarbled);
    assert_refused(mend(&origin, 5, Mend::Nothing));
    let first = origin.header_at(&federation(), 1).unwrap().unwrap();
    commit(&origin, &federation(), vec![put(2, "member")]);
    origin.damage_log(&federation(), 1, LogHarm::HeaderMissing);
    origin.damage_log(&federation(), 1, LogHarm::BodyAltered);
    for left_out in [Mend::Hash(hash_of(&first)), Mend::NoBody, Mend::Nothing] {
        assert_refused(wait(origin.mend_log(&federation(), 1, left_out)));
    }
    // Numbers that are not there.
    for seq in [0, COUNT + 1] {
        let mended = mend(&origin, seq, Mend::NoBody);
        assert!(matches!(mended, Err(StoreError::Overtaken(_))), "{mended:?}");
    }
}

#[test]
fn a_replica_leaves_out_a_header_of_which_nothing_is_known() {
    let (_one, origin) = written();
    let (_two, replica) = replica_of(&origin);
    as_hub(&replica);
    for seq in [8, 9] {
        replica.damage_log(&enterprise(), seq, LogHarm::HeaderGarbled);
    }
    assert_eq!(replica.vouched_hash_at(&enterprise(), 8).unwrap(), None);
    mend(&replica, 8, Mend::Nothing).unwrap();
    mend(&replica, 9, Mend::Hash(hash_of(&header(&origin, 9)))).unwrap();
    assert_counted(&replica);
    assert_eq!(log_of(&replica).0.len() as u64, COUNT - 2);
}

#[test]
fn a_damaged_body_is_dropped_or_replaced_by_what_its_header_signs() {
    let (_one, origin) = written();
    let before = told(&origin);
    let set = verified(&origin, &enterprise(), 9);
    for harm in [LogHarm::BodyAltered, LogHarm::BodyMissing] {
        origin.damage_log(&enterprise(), 9, harm);
        let other = verified(&origin, &enterprise(), 10);
        assert_refused(mend(&origin, 9, Mend::Body(Box::new(other))));
        let other = signed(another(&origin, 9).header().clone(), set.changes());
        assert_refused(mend(&origin, 9, Mend::Body(Box::new(other))));
        mend(&origin, 9, Mend::Body(Box::new(set.clone()))).unwrap();
        assert_eq!(told(&origin), before, "{harm:?}");
    }
    origin.damage_log(&enterprise(), 9, LogHarm::BodyAltered);
    mend(&origin, 9, Mend::NoBody).unwrap();
    assert_counted(&origin);
    assert_eq!(origin.change_sets(&enterprise(), 9, 9, usize::MAX).unwrap(), None);
    assert!(origin.header_at(&enterprise(), 9).unwrap().is_some());
    // One of several chunks leaves none of them.
    let mut random = Random::new();
    let mut noise = || (0..50_000).map(|_| random.next() as u8).collect::<Vec<u8>>();
    let changes = (1..=4).map(|number| put(number, noise())).collect();
    let head = commit(&origin, &enterprise(), changes);
    origin.damage_log(&enterprise(), head.seq(), LogHarm::BodyAltered);
    mend(&origin, head.seq(), Mend::NoBody).unwrap();
    assert_counted(&origin);
    assert_tidy(&origin);
}

#[test]
fn damage_is_noted_by_whoever_meets_it_and_is_no_other_history() {
    let (_one, origin) = written();
    let (_two, replica) = replica_of(&origin);
    let position = header(&origin, 6).position();
    let other = another(&origin, 6).position();
    let is_same = |position| replica.is_same(&enterprise(), position);
    assert_eq!(is_same(position).unwrap(), Some(true));
    assert_eq!(is_same(other).unwrap(), Some(false));
    assert_eq!(is_same(Position { seq: COUNT + 1, ..other }).unwrap(), None);
    assert!(replica.known_log_damage(&enterprise()).is_empty());
    replica.damage_log(&enterprise(), 6, LogHarm::HeaderAltered);
    assert!(matches!(is_same(position), Err(StoreError::Damaged { .. })));
    let known = |seq| replica.known_log_damage(&enterprise()).contains_key(&seq);
    assert!(known(6));
    // An old change set that comes again is no fork by it, either.
    let again = try_replicate(&replica, verified(&origin, &enterprise(), 6));
    assert!(matches!(again, Err(StoreError::Damaged { .. })), "{again:?}");
    // Nothing of it is sent, and what comes before it is.
    replica.damage_log(&enterprise(), 12, LogHarm::BodyAltered);
    let sets = |from| replica.change_sets(&enterprise(), from, 99, usize::MAX);
    assert_eq!(sets(1).unwrap().unwrap().len(), 5);
    assert_eq!(sets(7).unwrap().unwrap().len(), 5);
    assert!(sets(6).is_err() && sets(12).is_err() && known(12));
    replica.log_is_well(&enterprise(), 12);
    assert!(!known(12));
    let is_vouched = |position| replica.is_vouched(&enterprise(), position, None).unwrap();
    assert!(is_vouched(position));
    assert!(!is_vouched(other));
    // Whatever of one's neighbours is damaged, a header that is well is not called so.
    for harmed in [vec![8], vec![9], vec![10], vec![8, 10], vec![7, 10], vec![10, 12]] {
        let (_three, store) = replica_of(&origin);
        harmed.iter().for_each(|seq| store.damage_log(&enterprise(), *seq, LogHarm::HeaderGarbled));
        for seq in (1..=COUNT).filter(|seq| !harmed.contains(seq)) {
            assert!(
                store.change_sets(&enterprise(), seq, 1, usize::MAX).is_ok(),
                "{seq} {harmed:?}"
            );
        }
    }
}

#[test]
fn a_header_that_is_gone_is_told_from_those_that_were_jumped_over() {
    let (_one, origin) = written();
    let (_two, replica) = replica_of(&origin);
    let is_lost =
        |store: &Store, partition: &PartitionId, seq| store.is_header_lost(partition, seq).unwrap();
    for seq in 1..COUNT - 1 {
        assert!(!is_lost(&replica, &enterprise(), seq));
        let right = header(&replica, seq);
        replica.damage_log(&enterprise(), seq, LogHarm::HeaderMissing);
        assert!(is_lost(&replica, &enterprise(), seq), "number {seq}");
        mend(&replica, seq, Mend::Header(Box::new(right))).unwrap();
    }
    // Wherever a replica jumps from and to.
    for (from, to) in (1..=9).flat_map(|from| (from + 2..=13).map(move |to| (from, to))) {
        let (_three, origin) = fresh();
        let write = |count| {
            (0..count).for_each(|n| drop(commit(&origin, &enterprise(), vec![put(n, "x")])));
        };
        write(from);
        let (_four, replica) = replica_of(&origin);
        write(to - from);
        let head = origin.head(&enterprise()).unwrap();
        let proof = origin.history_proof(&enterprise(), &head, Some(from)).unwrap().unwrap();
        let (mut shown, leaves) = delivery(&origin);
        shown.path = proof.path;
        let mut staging = begin(&replica, &shown);
        feed(&mut staging, &leaves);
        wait(staging.finish()).unwrap();
        for seq in 1..to {
            assert!(!is_lost(&replica, &enterprise(), seq), "{seq} of {from} to {to}");
        }
    }
}
