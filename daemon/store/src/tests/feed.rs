//! What a consumer reads, whatever becomes of the partition, against the content itself.

use protocol::change::{Change, Position};

use super::fixtures::*;
use crate::{Consumer, Feed, MarkMove, Store, engine::Batch, keys};

fn consumer() -> Consumer {
    Consumer::new("sink-1").unwrap()
}

fn moved(to: Option<Position>) -> Vec<MarkMove> {
    vec![MarkMove { consumer: consumer(), partition: enterprise(), to }]
}

/// A consumer that keeps what it has read, and its mark beside it.
#[derive(Default)]
struct Copy {
    content: Content,
    mark: Option<Position>,
    whole: u32,
    steps: Vec<u64>,
}

impl Copy {
    /// Reads to the end; answers whether the partition is there.
    fn read(&mut self, store: &Store) -> bool {
        loop {
            match store.feed(&enterprise(), self.mark).unwrap() {
                Feed::UpToDate => return true,
                Feed::Next(step) => {
                    apply(&mut self.content, &step.changes);
                    self.mark = Some(step.position);
                    self.steps.push(step.position.seq);
                }
                Feed::Genesis(mut snapshot) | Feed::Rebuilt(mut snapshot) => {
                    self.content.clear();
                    for leaf in snapshot.leaves() {
                        let leaf = leaf.unwrap();
                        let entries = leaf.entries();
                        let pairs = entries.map(|(key, value)| (key.to_vec(), value.to_vec()));
                        self.content.extend(pairs);
                    }
                    self.mark = Some(snapshot.head().position());
                    self.whole += 1;
                }
                Feed::Retired => {
                    *self = Self::default();
                    return false;
                }
            }
        }
    }

    #[track_caller]
    fn is(&self, store: &Store, whole: u32, steps: &[u64]) {
        assert_holds(store, &enterprise(), &self.content);
        assert_eq!((self.whole, &self.steps[..]), (whole, steps));
    }
}

#[test]
fn a_consumer_reads_the_whole_once_and_then_each_change_set() {
    let (_directory, store) = fresh();
    let mut copy = Copy::default();
    assert!(copy.read(&store) && copy.mark.is_none(), "of what is not there nothing is read");
    commit(&store, &enterprise(), puts(0..500, "x"));
    assert!(copy.read(&store));
    copy.is(&store, 1, &[]);
    for seq in 2..6 {
        let mut changes = vec![Change::Delete { key: key(seq) }];
        changes.extend(puts(100 + seq..110 + seq, "y"));
        commit(&store, &enterprise(), changes);
    }
    assert!(copy.read(&store));
    copy.is(&store, 1, &[2, 3, 4, 5]);
}

#[test]
fn what_the_log_does_not_tell_is_read_as_a_whole() {
    let (directory, store) = fresh();
    let mut copy = Copy::default();
    (1..=4).for_each(|n| drop(commit(&store, &enterprise(), puts(0..n * 10, "x"))));
    copy.read(&store);
    let number = store.shared.partition(&enterprise()).unwrap().number;
    let alter = |seq: u64, alter: &dyn Fn(&mut Batch, &[u8])| {
        let mut batch = Batch::default();
        alter(&mut batch, &keys::log_body(number, seq));
        store.shared.disk.apply(batch).unwrap();
    };
    let head = commit(&store, &enterprise(), puts(50..60, "y"));
    // Its body is another one.
    alter(5, &|batch, key| {
        let other = protocol::change::encode_changes(&puts(50..60, "z"));
        batch.put_chunked(key, &protocol::codec::compress(&other), 1);
    });
    copy.read(&store);
    copy.is(&store, 2, &[]);
    assert_eq!(copy.mark, Some(head.position()));
    commit(&store, &enterprise(), puts(60..70, "y"));
    commit(&store, &enterprise(), puts(70..80, "y"));
    // It was pruned.
    alter(6, &|batch, key| batch.remove_chunked(key, 1));
    copy.read(&store);
    copy.is(&store, 3, &[]);
    // A mark of another history, one that is ahead, and one of nothing that is here.
    for mark in [
        Position { seq: 3, hash: SUITE.repeated(1) },
        Position { seq: 7, hash: SUITE.repeated(1) },
        Position { seq: 99, hash: SUITE.repeated(1) },
    ] {
        copy.mark = Some(mark);
        copy.read(&store);
    }
    copy.is(&store, 6, &[]);
    store.forget_blocking(&enterprise()).unwrap();
    assert!(!copy.read(&store), "it hears that the partition is gone");
    drop(store);
    let store = open(directory.path());
    commit(&store, &enterprise(), puts(0..5, "new"));
    copy.read(&store);
    copy.is(&store, 1, &[]);
}

#[test]
fn a_mark_moves_with_what_the_consumer_writes_or_not_at_all() {
    let (directory, store) = fresh();
    commit(&store, &enterprise(), puts(0..50, "x"));
    let head = store.head(&enterprise()).unwrap().position();
    let view = protocol::id::PartitionId::parse_full("zhengzhou/permit/410122/*").unwrap();
    assert_eq!(store.mark(&consumer(), &enterprise()), None);
    let write = |store: &Store, rows: std::ops::Range<u64>, to| {
        let changes = own(&view, puts(rows, "view"));
        store.commit_own_marked(changes, moved(Some(to))).unwrap().wait()
    };
    write(&store, 0..50, head).unwrap();
    let position = |store: &Store| store.mark(&consumer(), &enterprise()).map(|it| it.position);
    assert_eq!(position(&store), Some(head));
    // A crash in which the sidecar and the rest are as they were: both are there.
    let crash = crashed(directory.path());
    let again = open(crash.path());
    assert_eq!((position(&again), again.seq(&view)), (Some(head), 1));
    assert_eq!(again.marked(&consumer()).len(), 1);
    drop(again);
    // What is refused moves nothing.
    wait(store.quarantine(&view, "a test".into(), vec![])).unwrap();
    let next = Position { seq: 2, ..head };
    assert!(write(&store, 50..60, next).is_err());
    assert_eq!(position(&store), Some(head));
    // Nor is it lost when the partition goes, until it is wanted no more.
    store.forget_blocking(&enterprise()).unwrap();
    drop(store);
    let store = open(directory.path());
    assert_eq!(position(&store), Some(head));
    store.move_marks(moved(None)).unwrap();
    drop(store);
    let store = open(directory.path());
    assert_eq!(position(&store), None);
}

#[test]
fn bodies_wait_for_consumers_that_move() {
    let (_directory, store) = fresh();
    let mut random = Random::new();
    let mut write = |count: u64| {
        for _ in 0..count {
            let value: Vec<u8> = (0..40_000).map(|_| random.next() as u8).collect();
            commit(&store, &enterprise(), vec![put(1, value)]);
        }
    };
    write(1);
    let first = store.head(&enterprise()).unwrap().position();
    store.move_marks(moved(Some(first))).unwrap();
    let mut copy = Copy { mark: Some(first), ..Copy::default() };
    // More than is kept where nobody waits.
    write(19);
    copy.read(&store);
    assert_eq!(copy.steps, (2..=20).collect::<Vec<_>>());
    store.move_marks(moved(copy.mark)).unwrap();
    write(2);
    let kept =
        keys_of(&store, &keys::log_bodies(store.shared.partition(&enterprise()).unwrap().number));
    assert!(kept.len() < 15, "what it has read goes: {}", kept.len());
}

#[test]
fn names_of_consumers_are_names() {
    for name in ["", "a\0b", "ä", "a/b", &"x".repeat(65)] {
        assert_eq!(Consumer::new(name), None, "{name}");
    }
    assert_eq!(Consumer::new("sink-PG_1").unwrap().as_str(), "sink-PG_1");
}
