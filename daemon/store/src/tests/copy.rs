//! Partitions copied out of a store at work and into a new one: nothing is lost,
//! nothing is of another moment, and nothing wrong gets in.

use std::collections::BTreeMap;

use protocol::{
    encoding::{Reader, Writer},
    id::{NodeId, PartitionId},
    page::Leaf,
};

use super::fixtures::*;
use crate::{Head, NewStore, Origins, Piece, Store, StoreError, engine::Batch, keys};

fn node(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

/// All pieces of a partition, by way of their bytes.
fn pieces_of(store: &Store, partition: &PartitionId) -> Vec<Piece> {
    pieces_while(store, partition, &mut |_| ()).unwrap()
}

/// The same, with something done behind each piece.
fn pieces_while(
    store: &Store,
    partition: &PartitionId,
    then: &mut dyn FnMut(&Piece),
) -> Result<Vec<Piece>, StoreError> {
    let mut pieces = Vec::new();
    store.begin_copy(partition)?.unwrap().each::<StoreError>(&mut |piece| {
        let mut bytes = Writer::new();
        piece.write(&mut bytes);
        let bytes = bytes.into_bytes();
        let mut input = Reader::new(&bytes);
        pieces.push(Piece::read(SUITE, &mut input).unwrap());
        input.finish().unwrap();
        then(&piece);
        Ok(())
    })?;
    Ok(pieces)
}

/// A new store with these partitions, opened.
fn filled(partitions: &[(PartitionId, Vec<Piece>)]) -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let mut new = NewStore::create(directory.path(), &options()).unwrap();
    for (partition, pieces) in partitions {
        let mut filling = new.begin(partition.clone());
        pieces.chunks(50).for_each(|some| filling.take(&mut new, some.to_vec()).unwrap());
        filling.finish(&mut new).unwrap();
    }
    new.finish().unwrap();
    let store = open(directory.path());
    (directory, store)
}

/// A copy of a whole store.
fn copy_of(store: &Store) -> (tempfile::TempDir, Store) {
    let partitions = store.copied_partitions().into_iter();
    let partitions: Vec<_> = partitions.map(|id| (id.clone(), pieces_of(store, &id))).collect();
    filled(&partitions)
}

/// What fills a new store with these pieces is told.
fn refused(partition: &PartitionId, pieces: Vec<Piece>) -> StoreError {
    let directory = tempfile::tempdir().unwrap();
    let mut new = NewStore::create(directory.path(), &options()).unwrap();
    let mut filling = new.begin(partition.clone());
    let taken = filling.take(&mut new, pieces).and_then(|()| filling.finish(&mut new));
    let refused = taken.expect_err("it is not what was signed");
    new.finish().unwrap();
    let store = open(directory.path());
    assert_eq!(store.heads(), BTreeMap::new(), "nothing of it has a name");
    assert_tidy(&store);
    refused
}

/// Everything that a store says of a partition apart from its pages.
struct Told {
    head: Option<Head>,
    beside: String,
    /// By number: header and hash, change set, proof.
    log: Vec<[String; 3]>,
}

fn told(store: &Store, partition: &PartitionId) -> Told {
    let head: Option<Head> = store.head(partition).map(|head| (*head).clone());
    let of = |seq: u64| {
        let header = store.header_at(partition, seq).unwrap();
        let hash = store.header_hash_at(partition, seq).unwrap();
        let set = store.change_sets(partition, seq, 1, usize::MAX).unwrap();
        let proof = head.as_ref().map(|head| store.history_proof(partition, head, Some(seq)));
        let proof = proof.transpose().unwrap();
        [format!("{header:?} {hash:?}"), format!("{set:?}"), format!("{proof:?}")]
    };
    let log = (1..=head.as_ref().map_or(0, Head::seq)).map(of).collect();
    let beside = format!("{:?} {:?}", store.quarantine_reason(partition), store.acks(partition));
    Told { head, beside, log }
}

#[track_caller]
fn assert_told(copy: &Store, partition: &PartitionId, known: &Told) {
    let found = told(copy, partition);
    let without_log =
        |head: &Option<Head>| head.clone().map(|head| Head { log: Default::default(), ..head });
    assert_eq!(without_log(&found.head), without_log(&known.head), "{partition}");
    if let (Some(found), Some(known)) = (&found.head, &known.head) {
        assert_eq!(found.log.headers, known.log.headers);
        // A hash that a jump has shown looks like one of a header that went.
        let more = found.log.hashes - known.log.hashes;
        assert!(more <= 1, "{more} more hashes");
        // A body that has no header any more is of no use to anybody.
        assert!(found.log.body_bytes <= known.log.body_bytes);
        assert!(found.log.body_bytes == known.log.body_bytes || known.log.hashes > 0);
    }
    assert_eq!(found.beside, known.beside, "{partition}");
    for (seq, (found, known)) in (1..).zip(found.log.iter().zip(&known.log)) {
        for (what, differs) in ["header", "change set", "proof"].iter().zip(found.iter().zip(known))
        {
            assert!(differs.0 == differs.1, "{partition}: another {what} at number {seq}");
        }
    }
}

#[test]
fn an_own_partition_is_copied_with_all_that_belongs_to_it_and_goes_on() {
    let (_a, store) = fresh();
    let mut content = Content::new();
    let mut random = Random::new();
    for round in 0..6 {
        let changes = random.changes(9000, if round == 0 { 5000 } else { 300 }, 30);
        apply(&mut content, &changes);
        commit(&store, &enterprise(), changes);
    }
    // One that is longer than a chunk, and a leaf that has a patch.
    let changes = vec![put(1, vec![7; 65_000]), put(2, "changed in place")];
    apply(&mut content, &changes);
    commit(&store, &enterprise(), changes);
    let head = store.head(&enterprise()).unwrap();
    wait(store.record_ack(&enterprise(), &node("410100"), head.position())).unwrap();
    let (_b, copy) = copy_of(&store);
    for partition in [federation(), enterprise()] {
        assert_told(&copy, &partition, &told(&store, &partition));
    }
    assert_holds(&copy, &enterprise(), &content);
    // Both write the same next, and it is the same.
    let changes = random.changes(9000, 700, 40);
    apply(&mut content, &changes);
    let ours = commit(&copy, &enterprise(), changes.clone());
    let theirs = commit(&store, &enterprise(), changes);
    assert_eq!((ours.seq(), ours.root()), (theirs.seq(), theirs.root()));
    assert_eq!(ours.signed.header().history, theirs.signed.header().history);
    assert_holds(&copy, &enterprise(), &content);
    assert_tidy(&copy);
}

#[test]
fn replicas_are_copied_however_they_came() {
    let (_a, origin) = fresh();
    let mut random = Random::new();
    for _ in 0..150 {
        commit(&origin, &enterprise(), random.changes(3000, 40, 10));
    }
    // By change sets, with headers of which only the hash is left.
    let (_b, by_sets) = empty_replica(&origin);
    let others = [node("410122")].into();
    by_sets.set_origins(Origins { own: node("410100"), others, quota_mb: None });
    follow(&origin, &by_sets, &enterprise());
    assert!(by_sets.head(&enterprise()).unwrap().log.hashes > 0, "some were pruned");
    // By pages, and then by change sets.
    let (_c, by_pages) = empty_replica(&origin);
    let (shown, leaves) = delivery(&origin);
    let mut staging = begin(&by_pages, &shown);
    feed(&mut staging, &leaves);
    wait(staging.finish()).unwrap();
    let changes = random.changes(3000, 40, 10);
    commit(&origin, &enterprise(), changes);
    for replica in [&by_sets, &by_pages] {
        follow(&origin, replica, &enterprise());
    }
    wait(by_pages.quarantine(&enterprise(), "两份历史 / a fork".into(), vec![])).unwrap();
    for replica in [&by_sets, &by_pages] {
        let (_d, copy) = copy_of(replica);
        assert_told(&copy, &enterprise(), &told(replica, &enterprise()));
        assert_tidy(&copy);
    }
    let (_d, copy) = copy_of(&by_sets);
    commit(&origin, &enterprise(), random.changes(3000, 400, 50));
    follow(&origin, &copy, &enterprise());
    assert_eq!(
        copy.head(&enterprise()).unwrap().signed,
        origin.head(&enterprise()).unwrap().signed
    );
}

#[test]
fn an_empty_partition_and_one_without_a_head_are_copied() {
    let (_a, store) = fresh();
    commit(&store, &enterprise(), vec![put(1, "a")]);
    commit(&store, &enterprise(), vec![delete(1)]);
    let unheard = PartitionId::parse_full("zhengzhou/licence/410181/*").unwrap();
    wait(store.quarantine(&unheard, "nothing good ever came".into(), vec![])).unwrap();
    let (_b, copy) = copy_of(&store);
    for partition in [federation(), enterprise(), unheard.clone()] {
        assert_told(&copy, &partition, &told(&store, &partition));
    }
    assert_eq!(copy.quarantine_reason(&unheard).unwrap(), "nothing good ever came");
}

#[test]
fn a_copy_is_of_one_moment_whatever_is_written_meanwhile() {
    let (_a, store) = fresh();
    let mut content = Content::new();
    let mut random = Random::new();
    for _ in 0..4 {
        let changes = random.changes(6000, 3000, 10);
        apply(&mut content, &changes);
        commit(&store, &enterprise(), changes);
    }
    let before = told(&store, &enterprise());
    let mut count = 0;
    let pieces = pieces_while(&store, &enterprise(), &mut |_| {
        count += 1;
        if count % 5 == 1 {
            commit(&store, &enterprise(), random.changes(7000, 300, 40));
        }
    });
    let (_b, copy) = filled(&[
        (federation(), pieces_of(&store, &federation())),
        (enterprise(), pieces.unwrap()),
    ]);
    assert!(store.head(&enterprise()).unwrap().seq() > 8, "much was written");
    assert_told(&copy, &enterprise(), &before);
    assert_holds(&copy, &enterprise(), &content);
}

#[test]
fn a_partition_that_is_signed_anew_meanwhile_is_no_copy() {
    let (_a, store) = fresh();
    for number in 0..5 {
        commit(&store, &enterprise(), vec![put(number, "a")]);
    }
    let next = std::sync::Arc::new(signing_key_of(SUITE, 9));
    let mut is_first = true;
    let copied = pieces_while(&store, &enterprise(), &mut |_| {
        if std::mem::take(&mut is_first) {
            let none = BTreeMap::new();
            store.adopt_signer_blocking(next.clone(), node("410122"), none).unwrap();
        }
    });
    assert!(matches!(copied, Err(StoreError::Overtaken(_))), "{copied:?}");
    // The next attempt reads it as it is now.
    let (_b, copy) = copy_of(&store);
    assert_told(&copy, &enterprise(), &told(&store, &enterprise()));
}

#[test]
fn what_is_damaged_in_the_old_log_is_left_out_and_nothing_else() {
    let (_a, store) = fresh();
    for number in 0..5 {
        commit(&store, &enterprise(), vec![put(number, "a")]);
    }
    let number = store.shared.partition(&enterprise()).unwrap().number;
    let mut batch = Batch::default();
    batch.put(keys::log_header(number, 2), b"no header".to_vec());
    batch.put(keys::log_body(number, 4), vec![0; 60]);
    store.shared.disk.apply(batch).unwrap();
    let (_b, copy) = copy_of(&store);
    let kept = |seq| copy.header_at(&enterprise(), seq).unwrap().is_some();
    assert_eq!([1, 2, 3, 4, 5].map(kept), [true, false, true, true, true]);
    let sets = |seq| copy.change_sets(&enterprise(), seq, 1, usize::MAX).unwrap().is_some();
    assert_eq!([3, 4, 5].map(sets), [true, false, true]);
    assert_eq!(copy.head(&enterprise()).unwrap().signed, store.head(&enterprise()).unwrap().signed);
}

#[test]
fn pieces_that_are_not_what_was_signed_are_refused() {
    let (_a, store) = fresh();
    commit(&store, &enterprise(), puts(0..500, "a"));
    commit(&store, &enterprise(), puts(100..300, "b"));
    let pieces = pieces_of(&store, &enterprise());
    let at = |is_it: &dyn Fn(&Piece) -> bool| pieces.iter().position(is_it).unwrap();
    let leaf = at(&|piece| matches!(piece, Piece::Leaf(_)));
    let header = at(&|piece| matches!(piece, Piece::Header(_)));
    let body = at(&|piece| matches!(piece, Piece::Body(..)));
    let altered = |alter: &dyn Fn(&mut Vec<Piece>)| {
        let mut pieces = pieces.clone();
        alter(&mut pieces);
        refused(&enterprise(), pieces)
    };
    let other_record = altered(&|pieces| {
        let Piece::Leaf(found) = &pieces[leaf] else { panic!("a leaf lies there") };
        let mut raw = found.raw().to_vec();
        *raw.last_mut().unwrap() ^= 1;
        pieces[leaf] = Piece::Leaf(Leaf::parse(raw).unwrap());
    });
    assert!(matches!(other_record, StoreError::RootMismatch { .. }), "{other_record}");
    for (what, alter) in [
        ("a leaf is missing", &(|p: &mut Vec<Piece>| drop(p.pop())) as &dyn Fn(&mut Vec<Piece>)),
        ("leaves out of order", &|p| p.swap(leaf, leaf + 1)),
        ("a leaf twice", &|p| p.insert(leaf, p[leaf].clone())),
        ("no head", &|p| drop(p.remove(0))),
        ("two heads", &|p| p.insert(1, p[0].clone())),
        ("the head's header is missing", &|p| {
            let last = p.iter().rposition(|piece| matches!(piece, Piece::Header(_)));
            p.truncate(last.unwrap());
        }),
        ("headers out of order", &|p| p.swap(header, header + 2)),
        ("a body of another header", &|p| p.swap(body, body + 2)),
        ("a body twice", &|p| p.insert(body, p[body].clone())),
        ("the leaves come first", &|p| p.rotate_right(1)),
    ] {
        println!("{what}: {}", altered(alter));
    }
    println!("{}", refused(&federation(), pieces.clone()));
    assert_eq!(
        filled(&[(enterprise(), pieces.clone())]).1.heads().len(),
        1,
        "as it is it is taken"
    );
}
