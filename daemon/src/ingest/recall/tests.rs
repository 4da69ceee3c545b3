//! Side files: what is written comes back, and what is damaged does not.

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt as _};

use super::*;
use crate::ingest::random::Random;
use protocol::suite::Suite;
use protocol::suite::checksum::Checksum;

const RULES: Checksum = Checksum([3; 32]);

fn head(seq: u64) -> Position {
    Position { seq, hash: Suite::One.repeated(seq as u8) }
}

/// A side file that is written and read back.
struct Side {
    _dir: tempfile::TempDir,
    path: std::path::PathBuf,
    key: RowKey,
}

/// Rows by their bytes, with their keys; a row that is told of begins with "!".
type Rows = BTreeMap<String, Vec<u8>>;

fn rows(numbers: Range<u32>) -> Rows {
    numbers.map(|number| (format!("row {number}"), format!("key {number}").into_bytes())).collect()
}

impl Side {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("side/list.rows");
        Self { _dir: dir, path, key: RowKey::draw().unwrap() }
    }

    fn hash(&self, row: &str) -> RowHash {
        self.key.hasher().hash(row.as_bytes()).noted(row.starts_with('!'))
    }

    fn keyed(&self, rows: &Rows) -> Vec<Keyed> {
        let mut keyed: Vec<_> =
            rows.iter().map(|(row, key)| (self.hash(row), key.clone())).collect();
        keyed.sort_unstable();
        keyed
    }

    fn write(&self, rows: &Rows, head: Position) {
        let origin = Origin { rules: RULES, head };
        let mut out =
            SideFileWriter::create(&self.path, origin, &self.key, rows.len() as u64).unwrap();
        for (hash, key) in self.keyed(rows) {
            out.put(hash, &key).unwrap();
        }
        out.finish().unwrap();
    }

    fn load(&self, head: Position) -> Option<Recall> {
        let recall = find(&self.path, head)?.load(1 << 20)?;
        assert_eq!(recall.side.origin, Origin { rules: RULES, head });
        Some(recall)
    }

    /// The rows of the side file, as far as it is sound: all hashes, and the keys
    /// as well unless these are damaged.
    fn read(&self, head: Position) -> Option<(Vec<RowHash>, Option<Vec<Keyed>>)> {
        let recall = self.load(head)?;
        let is_gone = |place: usize| recall.gone[place / 64] >> (place % 64) & 1 == 1;
        let places = (0..recall.hashes.len()).filter(|place| !is_gone(*place));
        let mut hashes: Vec<_> = places.map(|place| recall.hashes[place]).collect();
        hashes.sort_unstable();
        let (mut keyed, mut place) = (recall.side.since.came.clone(), 0);
        let walked = recall.side.each_key(|key| {
            if !is_gone(place) {
                keyed.push((recall.hashes[place], key.to_vec()));
            }
            place += 1;
            Ok(())
        });
        keyed.sort_unstable();
        Some((hashes, walked.is_ok().then_some(keyed)))
    }

    fn assert_holds(&self, rows: &Rows, head: Position) {
        let keyed = self.keyed(rows);
        let hashes = keyed.iter().map(|keyed| keyed.0).collect();
        assert_eq!(self.read(head), Some((hashes, Some(keyed))));
    }

    /// Delivers `after`, and writes down what it comes to.
    fn renew(&self, before: Position, after: &Rows, head: Position) -> io::Result<()> {
        let recall = self.load(before).unwrap();
        let mut fresh = Vec::new();
        for (row, key) in after {
            let hash = self.hash(row);
            let found = recall.find(hash.noted(false), recall.bucket(hash));
            if let Some(place) = found {
                recall.seen[place / 64].fetch_or(1 << (place % 64), Ordering::Relaxed);
            }
            if found.is_none() || hash.is_noted() {
                fresh.push((hash, key.clone()));
            }
        }
        recall.renew(head, fresh, &Repeated::default())
    }
}

/// Calls `check` with the file in every state that a crash, or a bad disk, might
/// leave: cut at each byte, and with each byte changed.
fn for_each_damage(path: &Path, mut check: impl FnMut(&str)) {
    let sound = fs::read(path).unwrap();
    for at in 0..sound.len() {
        fs::write(path, &sound[..at]).unwrap();
        check(&format!("cut at {at} of {}", sound.len()));
        let mut damaged = sound.clone();
        damaged[at] ^= 1 << (at % 8);
        fs::write(path, &damaged).unwrap();
        check(&format!("byte {at} of {}", sound.len()));
    }
    let longer = [&sound[..], &[0]].concat();
    fs::write(path, longer).unwrap();
    check("a byte more");
    fs::write(path, sound).unwrap();
}

#[test]
fn a_damaged_side_file_recalls_nothing_that_was_not_there() {
    let side = Side::new();
    let sound = rows(0..40);
    side.write(&sound, head(1));
    side.assert_holds(&sound, head(1));
    assert!(side.load(head(2)).is_none());
    let (mut hashes_only, keyed) = (0, side.keyed(&sound));
    for_each_damage(&side.path, |what| {
        if let Some((hashes, keys)) = side.read(head(1)) {
            assert!(hashes.iter().eq(keyed.iter().map(|keyed| &keyed.0)), "{what}");
            assert_eq!(keys, None, "{what}");
            hashes_only += 1;
        }
    });
    // The hashes alone: the keys have a part of their own.
    assert!(hashes_only > 0);
    side.assert_holds(&sound, head(1));
}

#[test]
fn what_came_since_counts_only_as_a_whole() {
    let side = Side::new();
    let before = rows(0..100);
    side.write(&before, head(1));
    let first = fs::read(&side.path).unwrap();
    let mut after = before.clone();
    after.remove("row 7");
    after.insert("row 7 anew".into(), b"key 7".to_vec());
    after.insert("!row 200".into(), b"key 200".to_vec());
    side.renew(head(1), &after, head(2)).unwrap();
    assert_eq!(fs::read(&side.path).unwrap(), first, "nothing but the change is written");
    side.assert_holds(&after, head(2));
    let since = side.path.with_extension("since");
    for_each_damage(&since, |what| {
        assert!(side.load(head(2)).is_none(), "{what}");
        side.assert_holds(&before, head(1));
    });
    // The first part of another file.
    side.write(&rows(0..101), head(1));
    assert!(!since.exists());
    let other = Side::new();
    other.write(&before, head(1));
    other.renew(head(1), &after, head(2)).unwrap();
    fs::copy(other.path.with_extension("since"), &since).unwrap();
    assert!(side.load(head(2)).is_none());
    side.assert_holds(&rows(0..101), head(1));
}

#[test]
fn changes_are_gathered_until_they_are_many() {
    let side = Side::new();
    let mut random = Random::new();
    let mut now = rows(0..300);
    side.write(&now, head(0));
    let (mut beside, mut anew) = (0, 0);
    for seq in 1..200 {
        for _ in 0..random.below(4) {
            let number = random.below(400) as u32;
            let row = |kind: u64| match kind {
                0 => format!("row {number}"),
                1 => format!("row {number} anew"),
                _ => format!("!row {number}"),
            };
            // One row a key, as in any file that is noted.
            (0..3).for_each(|kind| drop(now.remove(&row(kind))));
            if random.below(4) > 0 {
                now.insert(row(random.below(3)), format!("key {number}").into_bytes());
            }
        }
        let first = fs::read(&side.path).unwrap();
        side.renew(head(seq - 1), &now, head(seq)).unwrap();
        side.assert_holds(&now, head(seq));
        match fs::read(&side.path).unwrap() == first {
            true => beside += 1,
            false => anew += 1,
        }
    }
    println!("{beside} times beside, {anew} times anew");
    assert!(beside > 100 && anew > 3);
}

#[test]
fn rows_that_are_told_of_again_are_not_written_again() {
    let side = Side::new();
    let told = |number| (format!("!row {number}"), format!("key {number}").into_bytes());
    let mut now: Rows = (0..300).map(told).collect();
    side.write(&now, head(0));
    let (number, key) = told(300);
    now.insert(number, key);
    side.renew(head(0), &now, head(1)).unwrap();
    side.assert_holds(&now, head(1));
    let since = side.load(head(1)).unwrap().side.since;
    assert_eq!((since.gone.len(), since.came.len()), (0, 1));
}

#[test]
fn damaged_keys_are_not_written_anew() {
    let side = Side::new();
    side.write(&rows(0..100), head(1));
    let mut bytes = fs::read(&side.path).unwrap();
    let at = bytes.len() - 40;
    bytes[at] ^= 1;
    fs::write(&side.path, bytes).unwrap();
    side.renew(head(1), &rows(50..150), head(2)).unwrap_err();
    assert!(side.load(head(2)).is_none());
}

#[test]
fn side_files_of_earlier_versions_are_not_used() {
    let side = Side::new();
    side.write(&rows(0..10), head(1));
    let mut bytes = fs::read(&side.path).unwrap();
    bytes[..8].copy_from_slice(b"csrows/1");
    fs::write(&side.path, bytes).unwrap();
    assert!(find(&side.path, head(1)).is_none());
}

#[test]
fn keys_are_drawn_and_nobody_else_sees_them() {
    let side = Side::new();
    side.write(&rows(0..100), head(1));
    side.renew(head(1), &rows(0..99), head(2)).unwrap();
    for path in [side.path.clone(), side.path.with_extension("since")] {
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let (one, other) = (RowKey::draw().unwrap(), RowKey::draw().unwrap());
    assert_ne!(one.hasher().hash(b"a"), other.hasher().hash(b"a"));
    assert_eq!(format!("{one:?}"), "RowKey");
    remove(&side.path);
    assert_eq!(fs::read_dir(side.path.parent().unwrap()).unwrap().count(), 0);
}

#[test]
fn hashes_are_those_that_side_files_hold() {
    let key = RowKey::from_bytes(std::array::from_fn(|at| at as u8));
    let hash = |body: &[u8]| key.hasher().hash(body).to_bytes();
    assert_ne!(hash(b"").map(|byte| byte & !1), [0; 16]);
    assert_ne!(hash(b"a,b"), hash(b"a,c"));
    assert_eq!(hash(b"a,b"), hash(b"a,b"));
    assert!(!key.hasher().hash(b"a,b").is_noted());
}

#[test]
fn rows_of_any_number_are_found() {
    for count in [0, 1, 2, 3, 63, 64, 65, 1000] {
        let side = Side::new();
        let all = rows(0..count);
        side.write(&all, head(1));
        let recall = side.load(head(1)).unwrap();
        for row in all.keys() {
            let hash = side.hash(row);
            let place = recall.find(hash, recall.bucket(hash)).unwrap();
            assert_eq!(recall.hashes[place], hash);
        }
        let other = side.hash("another");
        assert_eq!(recall.find(other, recall.bucket(other)), None);
        assert_eq!(recall.open().count() as u32, count);
        assert_eq!(recall.open_keys().unwrap().len() as u32, count);
    }
}
