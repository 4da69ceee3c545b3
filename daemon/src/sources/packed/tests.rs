//! Archives: what is taken out of them, what is refused, what is left behind.

use std::{
    fs,
    io::{Cursor, Read as _, Write as _},
};

use flate2::{Compression, write::GzEncoder};
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

use super::*;
use crate::sources::child::finish;

/// A thread in the child's place.
fn program() -> Program {
    Program::Thread(|task, input, answer, output| {
        let done = match (task, output) {
            (Task::List { gzip }, _) => reading::list(input, *gzip, answer),
            (Task::Unpack { gzip, index, bytes_max }, Some(output)) => {
                reading::unpack(input, *gzip, *index, *bytes_max, output, answer)
            }
            _ => Err(Fault::Internal.into()),
        };
        finish(done, answer)
    })
}

fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn zip_of(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
    for (name, content) in entries {
        match name.strip_suffix('/') {
            Some(folder) => zip.add_directory(folder, options).unwrap(),
            None => {
                zip.start_file(*name, options).unwrap();
                zip.write_all(content).unwrap();
            }
        }
    }
    zip.finish().unwrap().into_inner()
}

fn gzip_of(content: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(content).unwrap();
    gzip.finish().unwrap()
}

fn open(bytes: &[u8], gzip: bool, name: &str) -> Result<Archive, PackedError> {
    Archive::open(file(bytes), gzip, name, program())
}

/// Names and contents of all files in it.
fn unpacked(bytes: &[u8], gzip: bool, name: &str) -> Vec<(String, Vec<u8>)> {
    let room = tempfile::tempdir().unwrap();
    let mut archive = open(bytes, gzip, name).unwrap();
    let files: Vec<Entry> = archive.files().cloned().collect();
    let mut all = Vec::new();
    for entry in files {
        let mut one = archive.unpack(&entry, &TemporaryFiles::new(room.path())).unwrap();
        let mut content = Vec::new();
        one.file.read_to_end(&mut content).unwrap();
        assert_eq!(content.len() as u64, one.bytes);
        assert_eq!(fs::read_dir(room.path()).unwrap().count(), 0, "it has a name");
        all.push((entry.name, content));
    }
    all
}

#[test]
fn files_come_out_and_what_systems_leave_behind_does_not() {
    let bytes = zip_of(&[
        ("五月/", b""),
        ("五月/企业.csv", b"a,b\n1,2\n"),
        ("__MACOSX/五月/._企业.csv", b"x"),
        (".DS_Store", b"x"),
        ("Thumbs.db", b"x"),
        ("~$名单.xlsx", b"x"),
        ("b.json", b"[]"),
    ]);
    let all = unpacked(&bytes, false, "x.zip");
    assert_eq!(
        all,
        [
            ("五月/企业.csv".to_owned(), b"a,b\n1,2\n".to_vec()),
            ("b.json".to_owned(), b"[]".to_vec())
        ]
    );
}

#[test]
fn two_files_of_one_name_are_not_taken_for_one() {
    let mut bytes = zip_of(&[("a1.csv", b"a\n1\n"), ("a2.csv", b"a\n2\n")]);
    assert_eq!(unpacked(&bytes, false, "x.zip").len(), 2);
    for at in 0..bytes.len() - 6 {
        if &bytes[at..at + 6] == b"a2.csv" {
            bytes[at + 1] = b'1';
        }
    }
    let error = open(&bytes, false, "x.zip").unwrap_err().to_string();
    assert!(error.contains("同名") && error.contains("the same name"), "{error}");
}

#[test]
fn a_name_in_gbk_is_read() {
    let mut bytes = zip_of(&[("abcdef.csv", b"a\n")]);
    // Windows writes names in its own encoding, without the flag for UTF-8.
    let gbk = encoding_rs::GB18030.encode("企业名").0.into_owned();
    let places: Vec<usize> =
        (0..bytes.len() - 6).filter(|at| &bytes[*at..at + 6] == b"abcdef").collect();
    assert_eq!(places.len(), 2);
    for at in places {
        bytes[at..at + 6].copy_from_slice(&gbk);
    }
    assert_eq!(open(&bytes, false, "x.zip").unwrap().entries()[0].name, "企业名.csv");
}

#[test]
fn a_name_cannot_forge_a_line_of_a_log() {
    let archive = open(&zip_of(&[("a\nERROR b\u{202e}.csv", b"a")]), false, "x.zip").unwrap();
    let name = &archive.entries()[0].name;
    assert!(!name.contains(['\n', '\u{202e}']) && name.ends_with(".csv"), "{name}");
}

#[test]
fn a_gzip_holds_one_file_of_one_or_more_members() {
    let bytes = [gzip_of(b"a,b\n"), gzip_of(b"1,2\n")].concat();
    assert_eq!(
        unpacked(&bytes, true, "企业.csv.gz"),
        [("企业.csv".into(), b"a,b\n1,2\n".to_vec())]
    );
    assert_eq!(unpacked(&bytes, true, "X.CSV.GZ")[0].0, "X.CSV");
    let named = flate2::GzBuilder::new().filename("dir/old.csv");
    let mut named = named.write(Vec::new(), Compression::fast());
    named.write_all(b"a").unwrap();
    assert_eq!(unpacked(&named.finish().unwrap(), true, "x.gz")[0].0, "old.csv");
    assert_eq!(gunzipped(".gz", ""), ".gz");
}

#[test]
fn archives_within_archives_and_passwords_are_refused_in_words() {
    for name in ["a.zip", "b.tar.gz", "c.RAR"] {
        let error = open(&zip_of(&[(name, b"x")]), false, "x.zip").unwrap_err();
        assert!(matches!(error, PackedError::Nested { .. }), "{name}: {error}");
    }
    let tar = open(&gzip_of(b"x"), true, "x.tar.gz").unwrap_err();
    assert!(matches!(tar, PackedError::Nested { .. }), "{tar}");
    let mut locked = zip_of(&[("a.csv", b"a\n")]);
    // The flag of encryption, in both headers.
    locked[6] |= 1;
    let directory = locked.windows(4).position(|four| four == b"PK\x01\x02").unwrap();
    locked[directory + 8] |= 1;
    let error = open(&locked, false, "x.zip").unwrap_err();
    assert!(matches!(error, PackedError::Encrypted { .. }), "{error}");
    let empty = open(&zip_of(&[("a/", b"")]), false, "x.zip").unwrap_err();
    assert!(matches!(empty, PackedError::Empty), "{empty}");
    let many: Vec<String> = (0..65).map(|n| format!("{n}.csv")).collect();
    let many: Vec<(&str, &[u8])> = many.iter().map(|name| (name.as_str(), &b"a"[..])).collect();
    let error = open(&zip_of(&many), false, "x.zip").unwrap_err();
    assert!(matches!(error, PackedError::TooManyFiles { files: 65 }), "{error}");
}

#[test]
fn a_bomb_costs_its_file_only() {
    let zeros = vec![0; (RATIO_FREE_BYTES + 1) as usize];
    for (bytes, gzip) in [(zip_of(&[("a.csv", &zeros)]), false), (gzip_of(&zeros), true)] {
        assert!(bytes.len() < 1 << 20);
        let room = tempfile::tempdir().unwrap();
        let mut archive = open(&bytes, gzip, "x").unwrap();
        let entry = archive.files().next().unwrap().clone();
        let error = archive.unpack(&entry, &TemporaryFiles::new(room.path())).unwrap_err();
        assert!(matches!(error, PackedError::TooLarge { .. }), "{error}");
        assert!(!error.is_passing());
        assert_eq!(fs::read_dir(room.path()).unwrap().count(), 0);
    }
}

#[test]
fn the_limit_holds_for_all_files_together() {
    let half = vec![0; (RATIO_FREE_BYTES / 2) as usize];
    let bytes = zip_of(&[("a.csv", &half), ("b.csv", &half), ("c.csv", b"x")]);
    let room = tempfile::tempdir().unwrap();
    let mut archive = open(&bytes, false, "x.zip").unwrap();
    let files: Vec<Entry> = archive.files().cloned().collect();
    archive.unpack(&files[0], &TemporaryFiles::new(room.path())).unwrap();
    archive.unpack(&files[1], &TemporaryFiles::new(room.path())).unwrap();
    let error = archive.unpack(&files[2], &TemporaryFiles::new(room.path())).unwrap_err();
    assert!(matches!(error, PackedError::TooLarge { .. }), "{error}");
}

#[test]
fn what_is_damaged_is_refused() {
    let content: Vec<u8> = (0..100_000u32).flat_map(|n| (n * 7919).to_le_bytes()).collect();
    let room = tempfile::tempdir().unwrap();
    let zip = zip_of(&[("a.csv", &content)]);
    for length in [4, 40, zip.len() / 2, zip.len() - 1] {
        let error = open(&zip[..length], false, "x.zip").unwrap_err();
        assert!(
            matches!(error, PackedError::Child(ChildError::Fault(Fault::Damaged))),
            "{length}: {error}"
        );
    }
    let gzip = gzip_of(&content);
    for bytes in [&gzip[..gzip.len() / 2], &gzip[..gzip.len() - 1]] {
        let mut archive = open(bytes, true, "x.gz").unwrap();
        let entry = archive.files().next().unwrap().clone();
        let error = archive.unpack(&entry, &TemporaryFiles::new(room.path())).unwrap_err();
        assert!(matches!(error, PackedError::Child(ChildError::Fault(Fault::Damaged))), "{error}");
    }
    // A wrong checksum.
    let mut flipped = gzip.clone();
    let at = flipped.len() - 5;
    flipped[at] ^= 1;
    let mut archive = open(&flipped, true, "x.gz").unwrap();
    let entry = archive.files().next().unwrap().clone();
    assert!(archive.unpack(&entry, &TemporaryFiles::new(room.path())).is_err());
}

#[test]
fn what_becomes_of_an_entry_is_known_by_its_name() {
    for (name, used) in [
        ("a.csv", Use::File),
        ("./a.csv", Use::File),
        ("../五月/a.csv", Use::File),
        (".\\a.csv", Use::File),
        ("a/", Use::Nothing),
        ("__MACOSX/._a.csv", Use::Nothing),
        ("x/.DS_Store", Use::Nothing),
        ("~$a.xlsx", Use::Nothing),
        (".a.csv", Use::Hidden),
        (".x/a.csv", Use::Hidden),
        ("a.csv.bak", Use::Hidden),
        ("a.csv~", Use::Hidden),
        ("a.csv.PART", Use::Hidden),
        ("a.zip", Use::Archive),
    ] {
        assert_eq!(use_of(name, false), used, "{name}");
    }
    assert_eq!(use_of("a.csv", true), Use::Encrypted);
}
