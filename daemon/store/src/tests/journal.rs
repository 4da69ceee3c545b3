//! The journal: what is durable in it survives a crash, and nothing else is
//! taken from it.
//!
//! A crash is a copy of the directory while the store is open. sled has then what
//! the last checkpoint gave it, or less.

use std::{
    collections::BTreeMap,
    os::unix::fs::{FileExt as _, PermissionsExt as _},
    path::Path,
    sync::atomic::Ordering,
};

use super::fixtures::{
    Content, Random, apply, assert_holds, commit, copy_directory, crashed, enterprise, fresh, key,
    open, options, put, puts, tidy, try_commit, wait,
};
use crate::{
    StoreError,
    engine::{
        Batch, Disk,
        journal::{JOURNAL_BYTES, RECORD_BYTES_MAX, records},
    },
};

/// Content of the table that these tests write to.
pub const TABLE: &[u8] = b"t";

pub type Table = BTreeMap<Vec<u8>, Vec<u8>>;

pub fn open_disk(path: &Path) -> Disk {
    Disk::open(path, &options()).unwrap()
}

/// The same, when sled had written only what `before` has of it.
pub fn crashed_with(before: &Path, directory: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    copy_directory(before, copy.path());
    std::fs::copy(directory.join("journal"), copy.path().join("journal")).unwrap();
    copy
}

pub fn batch(number: u64, value: &[u8]) -> Batch {
    let mut batch = Batch::default();
    batch.put([TABLE, &number.to_be_bytes()].concat(), value.to_vec());
    batch
}

pub fn write(disk: &Disk, number: u64, value: &[u8]) {
    disk.apply(batch(number, value)).unwrap();
    disk.make_durable().unwrap();
}

/// More than one record holds.
fn write_large(disk: &Disk, number: u64) {
    let mut batch = batch(number, b"large");
    for part in 0..5u64 {
        batch.put([&b"u"[..], &part.to_be_bytes()].concat(), vec![7; 60 * 1024]);
    }
    disk.apply(batch).unwrap();
}

pub fn table(disk: &Disk) -> Table {
    disk.scan(TABLE).map(|item| item.map(|(key, value)| (key, value.to_vec())).unwrap()).collect()
}

/// Numbers below `count`, all with this value.
fn numbers(count: u64, value: &[u8]) -> Table {
    (0..count).map(|number| (number.to_be_bytes().to_vec(), value.to_vec())).collect()
}

/// How many records the journal has.
fn recorded(directory: &Path) -> usize {
    records(&std::fs::read(directory.join("journal")).unwrap()).count()
}

fn overwrite(directory: &Path, at: usize, bytes: &[u8]) {
    let path = directory.join("journal");
    let journal = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    journal.write_all_at(bytes, at as u64).unwrap();
}

/// Where each write begins.
pub const BLOCK: usize = 4096;

#[test]
fn a_commit_survives_a_crash_before_sled_was_flushed() {
    let (directory, store) = fresh();
    let mut content = Content::new();
    let syncs = store.counters().syncs;
    for round in 0..20 {
        let changes = puts(round..round + 10, &format!("value {round}"));
        apply(&mut content, &changes);
        commit(&store, &enterprise(), changes);
    }
    assert_eq!(store.counters().syncs - syncs, 20);
    let heads = store.heads();
    let copy = crashed(directory.path());
    // Only the journal has them.
    std::fs::remove_file(copy.path().join("journal")).unwrap();
    assert_ne!(open(copy.path()).heads(), heads);
    let copy = crashed(directory.path());
    let again = open(copy.path());
    assert_eq!(again.heads(), heads);
    assert_holds(&again, &enterprise(), &content);
    commit(&again, &enterprise(), puts(0..5, "after"));
    let heads = again.heads();
    let copy = crashed(copy.path());
    assert_eq!(open(copy.path()).heads(), heads);
}

#[test]
fn a_record_has_these_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let disk = open_disk(directory.path());
    let mut batch = batch(1, b"value");
    batch.remove(b"gone".to_vec());
    disk.apply(batch).unwrap();
    disk.make_durable().unwrap();
    let content = std::fs::read(directory.path().join("journal")).unwrap();
    let body =
        [&b"\x01\0\0\0\x09t\0\0\0\0\0\0\0\x01\0\0\0\x05value"[..], b"\0\0\0\0\x04gone"].concat();
    // The first batch of the first opening: 2^40 and 1.
    let head = b"\0\0\x01\0\0\0\0\x01\0\0\0\x20";
    let checksum = protocol::suite::checksum::Checksum::of(&[head, &body]);
    let record = [head, &checksum.as_bytes()[..], &body].concat();
    assert_eq!(content[..record.len()], record);
    assert!(content[record.len()..].iter().all(|byte| *byte == 0));
    let (number, found) = records(&content).next().unwrap();
    assert_eq!((number, found), ((1 << 40) + 1, &body[..]));
}

#[test]
fn the_file_is_made_once_with_its_size_for_its_owner_only() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    drop(open_disk(directory.path()));
    let made = std::fs::metadata(&path).unwrap();
    assert_eq!((made.len(), made.permissions().mode() & 0o777), (JOURNAL_BYTES as u64, 0o600));
    // One that was cut short gives what it has, and is made anew.
    let disk = open_disk(directory.path());
    let begin = crashed(directory.path());
    (0..3).for_each(|number| write(&disk, number, b"x"));
    let copy = crashed_with(begin.path(), directory.path());
    let short = std::fs::OpenOptions::new().write(true).open(copy.path().join("journal")).unwrap();
    short.set_len(2 * BLOCK as u64).unwrap();
    let again = open_disk(copy.path());
    assert_eq!(table(&again), numbers(2, b"x"));
    assert_eq!(std::fs::metadata(copy.path().join("journal")).unwrap().len(), made.len());
    (0..4).for_each(|number| write(&again, number, b"y"));
    assert_eq!(table(&open_disk(crashed(copy.path()).path())), numbers(4, b"y"));
}

#[test]
fn a_clean_end_leaves_nothing_to_replay() {
    let (directory, store) = fresh();
    let head = commit(&store, &enterprise(), puts(0..50, "x"));
    // A reader keeps sled open, which would flush by itself when it is closed.
    let reader = store.live_pages(&enterprise());
    drop(store);
    let copy = crashed(directory.path());
    drop(reader);
    std::fs::remove_file(copy.path().join("journal")).unwrap();
    assert_eq!(open(copy.path()).head(&enterprise()), Some(head));
}

#[test]
fn a_batch_that_was_not_made_durable_is_not_in_the_journal() {
    let directory = tempfile::tempdir().unwrap();
    let disk = open_disk(directory.path());
    write(&disk, 0, b"x");
    disk.apply(batch(1, b"x")).unwrap();
    assert_eq!(table(&disk), numbers(2, b"x"));
    assert_eq!(table(&open_disk(crashed(directory.path()).path())), numbers(1, b"x"));
    // With the next one, in order.
    write(&disk, 2, b"x");
    assert_eq!(table(&open_disk(crashed(directory.path()).path())), numbers(3, b"x"));
}

#[test]
fn a_batch_can_replace_and_remove_what_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let disk = open_disk(directory.path());
    (0..6).for_each(|number| write(&disk, number, b"x"));
    disk.checkpoint().unwrap();
    let mut changes = batch(0, b"");
    changes.remove([TABLE, &5u64.to_be_bytes()].concat());
    // Under one key the last one counts.
    changes.remove([TABLE, &1u64.to_be_bytes()].concat());
    changes.put([TABLE, &1u64.to_be_bytes()].concat(), b"again".to_vec());
    disk.apply(changes).unwrap();
    disk.make_durable().unwrap();
    let mut expected = numbers(5, b"x");
    expected.insert(0u64.to_be_bytes().to_vec(), vec![]);
    expected.insert(1u64.to_be_bytes().to_vec(), b"again".to_vec());
    assert_eq!(table(&disk), expected);
    assert_eq!(table(&open_disk(crashed(directory.path()).path())), expected);
}

#[test]
fn records_of_an_older_round_are_not_replayed() {
    let directory = tempfile::tempdir().unwrap();
    let disk = open_disk(directory.path());
    (0..10).for_each(|number| write(&disk, number, b"old"));
    disk.checkpoint().unwrap();
    // All of the same length, so that an old record begins where the new ones
    // end.
    (0..4).for_each(|number| write(&disk, number, b"new"));
    let expected = table(&disk);
    assert_eq!(recorded(directory.path()), 4);
    assert_eq!(table(&open_disk(crashed(directory.path()).path())), expected);
    // And with nothing of the new round.
    disk.checkpoint().unwrap();
    assert_eq!(table(&open_disk(crashed(directory.path()).path())), expected);
}

#[test]
fn a_torn_last_record_is_ignored_and_those_before_are_kept() {
    let directory = tempfile::tempdir().unwrap();
    let disk = open_disk(directory.path());
    let begin = crashed(directory.path());
    (0..5).for_each(|number| write(&disk, number, &[b'x'; 2000]));
    // Its end is not written, then its beginning, then only its length is.
    for (at, bytes) in [(512, 3584), (0, 512), (12, 32)] {
        let copy = crashed_with(begin.path(), directory.path());
        overwrite(copy.path(), 4 * BLOCK + at, &vec![0; bytes]);
        assert_eq!(table(&open_disk(copy.path())), numbers(4, &[b'x'; 2000]), "{at}");
    }
}

#[test]
fn what_lies_behind_a_torn_record_never_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    let disk = open_disk(directory.path());
    let begin = crashed(directory.path());
    (0..4).for_each(|number| write(&disk, number, b"lost"));
    // Of one write of several blocks only the last ones reached the disk.
    let copy = crashed_with(begin.path(), directory.path());
    overwrite(copy.path(), 0, &[0; BLOCK]);
    let again = open_disk(copy.path());
    assert_eq!(table(&again), Table::new());
    // The new first record is as long as the lost one, and a sound record lies
    // behind it.
    let begin = crashed(copy.path());
    write(&again, 0, b"kept");
    let crash = crashed_with(begin.path(), copy.path());
    assert_eq!(table(&open_disk(crash.path())), numbers(1, b"kept"));
}

#[test]
fn a_flipped_byte_ends_the_journal() {
    let mut random = Random::new();
    let directory = tempfile::tempdir().unwrap();
    let disk = open_disk(directory.path());
    let begin = crashed(directory.path());
    (0..8).for_each(|number| write(&disk, number, &[b'x'; 300]));
    let content = std::fs::read(directory.path().join("journal")).unwrap();
    // Header, checksum, kind, key, value.
    let record = 8 + 4 + 32 + 1 + 4 + 9 + 4 + 300;
    for _ in 0..25 {
        let copy = crashed_with(begin.path(), directory.path());
        let (hit, byte) = (random.below(8), random.below(record) as usize);
        let at = hit as usize * BLOCK + byte;
        let flipped = content[at] ^ (1 << random.below(8));
        overwrite(copy.path(), at, &[flipped]);
        assert_eq!(table(&open_disk(copy.path())), numbers(hit, &[b'x'; 300]), "{hit} {byte}");
    }
}

#[test]
fn a_length_beyond_all_limits_is_no_record() {
    let directory = tempfile::tempdir().unwrap();
    let disk = open_disk(directory.path());
    let begin = crashed(directory.path());
    (0..3).for_each(|number| write(&disk, number, b"x"));
    for length in [u32::MAX, RECORD_BYTES_MAX as u32 + 1, JOURNAL_BYTES as u32] {
        let copy = crashed_with(begin.path(), directory.path());
        overwrite(copy.path(), 2 * BLOCK + 8, &length.to_be_bytes());
        assert_eq!(table(&open_disk(copy.path())), numbers(2, b"x"));
    }
}

#[test]
fn a_large_batch_goes_through_sled_and_the_journal_begins_anew() {
    let directory = tempfile::tempdir().unwrap();
    let disk = open_disk(directory.path());
    (0..5).for_each(|number| write(&disk, number, b"x"));
    // Small ones around it, which become durable with it.
    disk.apply(batch(5, b"x")).unwrap();
    write_large(&disk, 6);
    disk.apply(batch(7, b"x")).unwrap();
    disk.make_durable().unwrap();
    let expected = table(&disk);
    let copy = crashed(directory.path());
    std::fs::remove_file(copy.path().join("journal")).unwrap();
    assert_eq!(table(&open_disk(copy.path())), expected, "sled has them all");
    write(&disk, 8, b"x");
    assert_eq!(recorded(directory.path()), 1, "at the beginning");
    assert_eq!(table(&open_disk(crashed(directory.path()).path())), table(&disk));
}

#[test]
fn a_database_that_is_ahead_of_the_journal_replays_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let disk = open_disk(directory.path());
    (0..5).for_each(|number| write(&disk, number, b"x"));
    let journal = std::fs::read(directory.path().join("journal")).unwrap();
    // Over what the records say, something newer.
    write_large(&disk, 0);
    disk.make_durable().unwrap();
    let expected = table(&disk);
    let copy = crashed(directory.path());
    assert_eq!(recorded(copy.path()), 5);
    assert_eq!(table(&open_disk(copy.path())), expected);
    // Nor does a database that has lost everything take what does not follow.
    let empty = tempfile::tempdir().unwrap();
    std::fs::write(empty.path().join("journal"), journal).unwrap();
    assert_eq!(table(&open_disk(empty.path())), Table::new());
}

#[test]
fn only_what_the_database_lacks_is_replayed() {
    let directory = tempfile::tempdir().unwrap();
    let disk = open_disk(directory.path());
    (0..3).for_each(|number| write(&disk, number, b"first"));
    (0..3).for_each(|number| write(&disk, number, b"then"));
    let round = std::fs::read(directory.path().join("journal")).unwrap();
    // sled gets them with what is too large for the journal, and then the next.
    disk.checkpoint().unwrap();
    write_large(&disk, 0);
    disk.make_durable().unwrap();
    let expected = table(&disk);
    let copy = crashed(directory.path());
    std::fs::write(copy.path().join("journal"), round).unwrap();
    assert_eq!(recorded(copy.path()), 6);
    assert_eq!(table(&open_disk(copy.path())), expected);
}

#[test]
fn a_checkpoint_that_is_interrupted_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let disk = open_disk(directory.path());
    // More keys than a slice has, and then each of them again but for a few that
    // go: neither of the two rounds may be seen in the other.
    let value = |word: &str| word.repeat(800).into_bytes();
    (0..400).for_each(|number| write(&disk, number, &value("first")));
    disk.checkpoint().unwrap();
    let mut expected = numbers(400, &value("then"));
    for number in 0..400u64 {
        if number % 50 == 7 {
            let mut batch = Batch::default();
            batch.remove([TABLE, &number.to_be_bytes()].concat());
            disk.apply(batch).unwrap();
            expected.remove(&number.to_be_bytes()[..]);
        } else {
            disk.apply(batch(number, &value("then"))).unwrap();
        }
    }
    disk.make_durable().unwrap();
    // Not durable before, but it is as soon as a slice may be.
    disk.apply(batch(0, b"last")).unwrap();
    expected.insert(0u64.to_be_bytes().to_vec(), b"last".to_vec());
    disk.broken.slice.store(true, Ordering::Relaxed);
    disk.checkpoint().unwrap_err();
    assert!(table(&disk) == expected, "it is read as before");
    let copy = crashed(directory.path());
    assert!(table(&open_disk(copy.path())) == expected);
    // sled alone has a part of it.
    let copy = crashed(directory.path());
    std::fs::remove_file(copy.path().join("journal")).unwrap();
    let part = table(&open_disk(copy.path()));
    assert_eq!(part[&0u64.to_be_bytes()[..]], b"last");
    assert!(part[&399u64.to_be_bytes()[..]] == value("first"));
    disk.broken.slice.store(false, Ordering::Relaxed);
    disk.checkpoint().unwrap();
    assert!(table(&open_disk(crashed(directory.path()).path())) == expected);
}

#[test]
fn small_batches_reach_sled_together() {
    let (directory, store) = fresh();
    commit(&store, &enterprise(), puts(0..50, "x"));
    let sled = || std::fs::metadata(directory.path().join("sled/db")).unwrap().len();
    store.shared.disk.checkpoint().unwrap();
    let before = sled();
    (0..20).for_each(|round| drop(commit(&store, &enterprise(), vec![put(3, format!("{round}"))])));
    assert_eq!(sled(), before);
    store.shared.disk.checkpoint().unwrap();
    assert!(sled() > before);
}

#[test]
fn a_full_journal_leads_to_a_checkpoint_and_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let disk = open_disk(directory.path());
    let value = vec![b'x'; 50 * 1024];
    let mut before = 0;
    let mut lengths = Vec::new();
    for number in 0..400 {
        write(&disk, number % 7, &value);
        let recorded = recorded(directory.path());
        if recorded < before {
            lengths.push(before);
        }
        if number % 40 == 0 || recorded < before {
            assert_eq!(table(&open_disk(crashed(directory.path()).path())), table(&disk));
        }
        before = recorded;
    }
    // 52 KiB each, of 8 MiB; the one behind goes through sled.
    assert_eq!(lengths, [157, 157]);
}

#[test]
fn an_idle_writer_makes_a_checkpoint_before_the_journal_is_full() {
    let (directory, store) = fresh();
    let relieved = (0..2000).find(|number| {
        let syncs = store.counters().syncs;
        commit(&store, &enterprise(), vec![put(*number, "x")]);
        tidy(&store);
        // One for the commit, and one for each slice behind it.
        store.counters().syncs - syncs > 1
    });
    assert!(relieved.is_some(), "every checkpoint came with a commit");
    let head = store.head(&enterprise());
    let copy = crashed(directory.path());
    std::fs::remove_file(copy.path().join("journal")).unwrap();
    assert_eq!(open(copy.path()).head(&enterprise()), head, "sled has all");
}

#[test]
fn a_journal_that_cannot_be_written_stops_the_writer() {
    let (directory, store) = fresh();
    let head = commit(&store, &enterprise(), puts(0..50, "x"));
    let mut events = store.subscribe();
    store.shared.disk.broken.journal.store(true, Ordering::Relaxed);
    let refused = try_commit(&store, &enterprise(), puts(0..10, "y"));
    assert!(matches!(refused, Err(StoreError::Database(_))), "{refused:?}");
    assert!(store.has_failed());
    let copy = crashed(directory.path());
    store.shared.disk.broken.journal.store(false, Ordering::Relaxed);
    for refused in [
        try_commit(&store, &enterprise(), puts(0..10, "z")).map(drop),
        wait(store.quarantine(&enterprise(), "because".into(), vec![])),
    ] {
        assert!(matches!(refused, Err(StoreError::Database(_))), "{refused:?}");
    }
    assert_eq!(store.head(&enterprise()), Some(head.clone()));
    assert!(events.try_recv().is_err());
    assert_eq!(open(copy.path()).head(&enterprise()), Some(head));
    drop(store);
    // It may be there or not; it is there as a whole.
    let store = open(directory.path());
    let value = if store.head(&enterprise()).unwrap().seq() == 2 { "y" } else { "x" };
    let mut content: Content = (0..50).map(|number| (key(number), b"x".to_vec())).collect();
    apply(&mut content, &puts(0..10, value));
    assert_holds(&store, &enterprise(), &content);
}
