//! The journal against any crash: a prefix with all that was acknowledged is
//! left.

use std::sync::atomic::Ordering;

use super::{
    fixtures::{Random, crashed},
    journal::{BLOCK, TABLE, Table, batch, crashed_with, open_disk, table},
};
use crate::engine::Disk;

/// The journal as a power cut leaves it while it goes from one state to
/// another: a block that was being written is old, new, or anything.
fn torn(random: &mut Random, before: &[u8], after: &[u8]) -> Vec<u8> {
    let chance = random.below(101);
    let mut content = Vec::new();
    for (old, new) in before.chunks(BLOCK).zip(after.chunks(BLOCK)) {
        match random.below(100) {
            _ if old == new => content.extend_from_slice(old),
            0..8 => content.extend(old.iter().map(|_| random.next() as u8)),
            drawn if drawn < chance => content.extend_from_slice(new),
            _ => content.extend_from_slice(old),
        }
    }
    content
}

/// Forgets what sled had when the round began if this ends it.
fn make_durable(disk: &Disk, begin: &mut Option<tempfile::TempDir>) {
    let count = || (disk.syncs.load(Ordering::Relaxed), disk.bytes_written.load(Ordering::Relaxed));
    let before = count();
    disk.make_durable().unwrap();
    let after = count();
    if after.0 > before.0 && after.1 == before.1 {
        *begin = None;
    }
}

#[test]
fn any_crash_leaves_a_prefix_with_all_that_was_acknowledged() {
    let mut random = Random::new();
    let mut directory = tempfile::tempdir().unwrap();
    let mut disk = open_disk(directory.path());
    // What the table held behind each batch, and how many are acknowledged.
    let mut states = vec![Table::new()];
    let mut acknowledged = 0;
    let (mut crashes, mut tears, mut lost) = (0, 0, 0);
    // What sled had when the journal's round began: it may have written nothing
    // since.
    let mut begin = Some(crashed(directory.path()));
    for step in 0..1500u64 {
        match random.below(100) {
            0..70 => {
                // The step makes each state another one.
                let mut batch = batch(1000, &step.to_be_bytes());
                let mut state = states.last().unwrap().clone();
                state.insert(1000u64.to_be_bytes().to_vec(), step.to_be_bytes().to_vec());
                for _ in 0..random.below(6) {
                    let number = random.below(40).to_be_bytes().to_vec();
                    let key = [TABLE, &number].concat();
                    if random.below(4) == 0 {
                        batch.remove(key);
                        state.remove(&number);
                    } else {
                        let longest = [20, 3000, 60_000][random.below(3) as usize];
                        let value = vec![random.next() as u8; random.below(longest) as usize];
                        batch.put(key, value.clone());
                        state.insert(number, value);
                    }
                }
                if random.below(25) == 0 {
                    for part in 0..5u64 {
                        batch.put([&b"u"[..], &part.to_be_bytes()].concat(), vec![7; 60 * 1024]);
                    }
                }
                disk.apply(batch).unwrap();
                states.push(state);
            }
            70..90 => {
                make_durable(&disk, &mut begin);
                acknowledged = states.len() - 1;
            }
            90 => {
                disk.checkpoint().unwrap();
                begin = Some(crashed(directory.path()));
            }
            91..98 => {
                let mut crash = match &begin {
                    Some(begin) if random.below(2) == 0 => {
                        crashed_with(begin.path(), directory.path())
                    }
                    _ => crashed(directory.path()),
                };
                if random.below(2) == 0 {
                    // In the middle of making durable what is pending.
                    let file = crash.path().join("journal");
                    let before = std::fs::read(&file).unwrap();
                    disk.make_durable().unwrap();
                    let after = std::fs::read(directory.path().join("journal")).unwrap();
                    std::fs::write(&file, torn(&mut random, &before, &after)).unwrap();
                    tears += 1;
                }
                drop(disk);
                std::mem::swap(&mut directory, &mut crash);
                disk = open_disk(directory.path());
                begin = Some(crashed(directory.path()));
                crashes += 1;
                let found = table(&disk);
                let place = states.iter().rposition(|state| *state == found);
                let place = place.expect("it is no state that there ever was");
                assert!(place >= acknowledged, "step {step}: {place} of {acknowledged}");
                lost += states.len() - 1 - place;
                states.truncate(place + 1);
                acknowledged = place;
            }
            _ => {
                disk.checkpoint().unwrap();
                drop(disk);
                disk = open_disk(directory.path());
                begin = Some(crashed(directory.path()));
                acknowledged = states.len() - 1;
            }
        }
        if step % 50 == 0 {
            assert_eq!(table(&disk), *states.last().unwrap());
        }
    }
    println!("{crashes} crashes, {tears} of them in a write; {lost} batches were lost");
    assert!(crashes > 50 && tears > 20 && lost > 0, "the test tested nothing");
}
