//! Backups whose frames are as they should be, and whose content is not: nobody but a
//! program makes those, and each is refused for what it is.

use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

use certs::enrol::Anchor;
use protocol::{
    change::{Change, Header, SignedHeader},
    encoding::{Reader, Writer},
    federation::{Entry, Introduction, KeyRecord, Member, Role},
    id::{DatasetId, FederationId, NodeId, PartitionId},
    page::Leaf,
    sign::SigningKey,
    suite::Suite,
};
use store::{Options, OwnChanges, Piece, Store};

use super::{
    check::check,
    frame::{FrameReader, FrameWriter, Kind},
    output::KeptOpen,
    save::{self, Plan, save},
    words::{BackupError, FileEntry, Keys, LeftOut, Manifest, Totals},
};

const SUITE: Suite = Suite::One;

fn key(byte: u8) -> SigningKey {
    SUITE.signing_key(&vec![byte; SUITE.secret_key_bytes()]).unwrap()
}

fn commit(store: &Store, partition: &PartitionId, changes: Vec<Change>) {
    let partition = partition.clone();
    let own = OwnChanges { partition, changes, schema_version: 1, keep_body: true };
    store.commit_own_later(own).unwrap().wait().unwrap();
}

fn put(number: u32, value: &str) -> Change {
    Change::Put { key: format!("{number:06}").into_bytes(), value: value.as_bytes().to_vec() }
}

fn write(dir: &Path, path: &str, bytes: &[u8]) {
    let path = dir.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// The frames of a small hub's backup.
fn frames() -> Vec<(Kind, Vec<u8>)> {
    let directory = tempfile::tempdir().unwrap();
    let dir = directory.path();
    let (federation, hub) =
        (FederationId::new("zhengzhou").unwrap(), NodeId::new("410100").unwrap());
    let of = |dataset: DatasetId| PartitionId::own(&federation, &dataset, &hub);
    let (system, data) = (of(DatasetId::federation()), of(DatasetId::new("enterprise").unwrap()));
    let options = Options { suite: SUITE, cache_mb: 16, disk_reserve_mb: Some(1) };
    let store = Store::open(&dir.join("store"), &options).unwrap();
    let signer = key(7);
    let public = signer.public();
    store.set_signer(Arc::new(signer));
    let member =
        Member { name: "市".into(), role: Role::Hub, removed: false, certificates_from: None };
    let mut entries = vec![
        Entry::Member(hub.clone(), member).put().unwrap(),
        Entry::Key(hub.clone(), 1, KeyRecord::new(&public, Introduction::Anchor, 0)).put().unwrap(),
    ];
    entries.sort_by(|a, b| a.key().cmp(b.key()));
    commit(&store, &system, entries);
    commit(&store, &data, (0..500).map(|number| put(number, "a")).collect());
    commit(&store, &data, (100..200).map(|number| put(number, "b")).collect());
    write(dir, "creditsync.toml", b"x");
    write(dir, "certs/anchor", &Anchor::unsigned(&federation, &hub, &public, 1).encode());
    fs::create_dir(dir.join("keys")).unwrap();
    let manifest = Manifest {
        federation: federation.to_string(),
        node: hub.to_string(),
        role: "hub".into(),
        suite: SUITE.number(),
        version: "0".into(),
        created: "2026-01-01T00:00:00Z".into(),
        keys: Keys::LeftOut,
        outside: Vec::new(),
    };
    let plan = Plan::of(dir, &[], &[]).unwrap();
    let node = save::Node { dir, store: &store, federation: &system, suite: SUITE };
    let mut bytes = Vec::new();
    let saved = save(&node, (plan, &manifest, None), (&mut bytes, &KeptOpen::default()), &|_| true)
        .unwrap();
    assert_eq!((saved.bytes, saved.totals.partitions), (bytes.len() as u64, 2));
    let mut reader = FrameReader::new(&bytes[..]).unwrap();
    let mut frames = Vec::new();
    while frames.last().is_none_or(|(kind, _)| *kind != Kind::End) {
        frames.push(reader.next().unwrap());
    }
    frames
}

/// What is said of a backup with these frames.
fn judged(frames: &[(Kind, Vec<u8>)]) -> Result<(), BackupError> {
    let mut writer = FrameWriter::new(Vec::new()).unwrap();
    frames.iter().for_each(|(kind, raw)| writer.put(*kind, raw).unwrap());
    check(&writer.finish().unwrap()[..], None, &mut |_| ()).map(drop)
}

type Frames = Vec<(Kind, Vec<u8>)>;

fn at(frames: &Frames, kind: Kind) -> usize {
    frames.iter().position(|(found, _)| *found == kind).unwrap()
}

/// Changes the pieces of the first partition.
fn with_pieces(frames: &mut Frames, change: &dyn Fn(&mut Vec<Piece>)) {
    let raw = &mut frames.iter_mut().find(|(kind, _)| *kind == Kind::Pieces).unwrap().1;
    let mut input = Reader::new(raw);
    let mut pieces = Vec::new();
    while input.remaining() > 0 {
        pieces.push(Piece::read(SUITE, &mut input).unwrap());
    }
    change(&mut pieces);
    let mut out = Writer::new();
    pieces.iter().for_each(|piece| piece.write(&mut out));
    *raw = out.into_bytes();
}

/// The same header with another signature.
fn signed_otherwise(signed: &SignedHeader, by: Option<&SigningKey>) -> SignedHeader {
    match by {
        Some(key) => {
            let key_id = key.public().id();
            SignedHeader::sign(Header { key_id, ..signed.header().clone() }, key)
        }
        None => {
            let mut bytes = signed.encode();
            bytes[5] ^= 1;
            SignedHeader::decode(&bytes).unwrap()
        }
    }
}

/// Head and newest header signed by somebody else.
fn sign_otherwise(pieces: &mut [Piece], by: Option<&SigningKey>) {
    let newest = pieces.iter().rposition(|piece| matches!(piece, Piece::Header(_))).unwrap();
    for (at, piece) in pieces.iter_mut().enumerate() {
        match piece {
            Piece::Head(head) => head.signed = signed_otherwise(&head.signed, by),
            Piece::Header(signed) if at == newest => **signed = signed_otherwise(signed, by),
            _ => {}
        }
    }
}

fn json(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap()
}

#[test]
fn a_backup_is_judged_by_its_signatures_and_its_order_not_by_its_checksums_alone() {
    let whole = frames();
    judged(&whole).unwrap();
    let file = |path: &str| json(&FileEntry { path: path.into(), private: true });
    type Alter<'a> = &'a dyn Fn(&mut Frames);
    let cases: &[(&str, &str, Alter<'_>)] = &[
        ("another signature", "signature", &|f| with_pieces(f, &|p| sign_otherwise(p, None))),
        ("a key that nobody knows", "key", &|f| {
            with_pieces(f, &|p| sign_otherwise(p, Some(&key(8))));
        }),
        ("another record", "root", &|f| {
            with_pieces(f, &|pieces| {
                let Some(Piece::Leaf(leaf)) = pieces.last() else {
                    panic!("the last piece is a leaf")
                };
                let mut raw = leaf.raw().to_vec();
                *raw.last_mut().unwrap() ^= 1;
                *pieces.last_mut().unwrap() = Piece::Leaf(Leaf::parse(raw).unwrap());
            });
        }),
        ("bytes behind a piece", "too early", &|f| {
            let pieces = at(f, Kind::Pieces);
            f[pieces].1.extend([4, 0]);
        }),
        ("no list of members", "list of members", &|f| {
            let from = f.iter().rposition(|(kind, _)| *kind == Kind::Partition).unwrap();
            f.drain(from..f.len() - 1);
            let totals = Totals { files: 2, partitions: 1, left_out: 0, records: 500 };
            f.last_mut().unwrap().1 = json(&totals);
        }),
        ("a partition twice", "comes twice", &|f| {
            let (from, to) = (at(f, Kind::Partition), at(f, Kind::PartitionEnd));
            let again: Frames = f[from..=to].to_vec();
            f.splice(from..from, again);
        }),
        ("the members before their anchor", "anchor", &|f| {
            let partition = f.iter().rposition(|(kind, _)| *kind == Kind::Partition).unwrap();
            let end = f.iter().rposition(|(kind, _)| *kind == Kind::PartitionEnd).unwrap();
            let members: Frames = f.drain(partition..=end).collect();
            let first = at(f, Kind::Partition);
            f.splice(first..first, members);
        }),
        ("fewer files than are said", "at its end", &|f| {
            f.last_mut().unwrap().1 = json(&Totals::default());
        }),
        ("a file outside", "lies at", &|f| {
            let last = f.iter().rposition(|(kind, _)| *kind == Kind::File).unwrap();
            f[last].1 = file("../../etc/cron.d/x");
        }),
        ("a file where the node works", "lies at", &|f| {
            let last = f.iter().rposition(|(kind, _)| *kind == Kind::File).unwrap();
            f[last].1 = file("run/lock");
        }),
        ("the configuration later", "creditsync.toml", &|f| {
            let first = at(f, Kind::File);
            f[first].1 = file("certs/x");
        }),
        ("data of no file", "does not belong", &|f| f.insert(1, (Kind::Data, b"x".to_vec()))),
        ("a partition that does not end", "does not belong", &|f| {
            let end = at(f, Kind::PartitionEnd);
            f.remove(end);
        }),
        ("keys that are said to be out", "encrypted keys", &|f| {
            f.insert(4, (Kind::Keys, b"x".to_vec()));
        }),
        ("another head than is said", "another head", &|f| {
            let partition = at(f, Kind::Partition);
            let mut entry: BTreeMap<String, serde_json::Value> =
                serde_json::from_slice(&f[partition].1).unwrap();
            entry.insert("seq".into(), 7.into());
            f[partition].1 = json(&entry);
        }),
        ("another one is left out", "left out", &|f| {
            let end = at(f, Kind::PartitionEnd);
            let other = LeftOut { partition: "zhengzhou/a/b/*".into(), reason: String::new() };
            f[end] = (Kind::LeftOut, json(&other));
        }),
        ("no end", "ends at byte", &|f| drop(f.pop())),
    ];
    for (what, word, alter) in cases {
        let mut frames = whole.clone();
        alter(&mut frames);
        let problem = judged(&frames).expect_err(what).to_string();
        assert!(problem.contains(word), "{what}: {problem}");
    }
}

#[test]
fn a_partition_that_was_given_up_counts_for_nothing_and_may_come_again() {
    let mut frames = frames();
    let (from, to) = (at(&frames, Kind::Partition), at(&frames, Kind::PartitionEnd));
    let entry: super::words::PartitionEntry = serde_json::from_slice(&frames[from].1).unwrap();
    let left_out = LeftOut { partition: entry.partition, reason: "it was signed anew".into() };
    let begun = [frames[from].clone(), (Kind::LeftOut, json(&left_out))];
    frames.splice(from..from, begun.clone());
    judged(&frames).unwrap();
    // For good it has to be told at the end.
    frames.drain(from + 2..=to + 2);
    assert!(judged(&frames).is_err());
    let totals = Totals { files: 2, partitions: 1, left_out: 1, records: 2 };
    frames.last_mut().unwrap().1 = json(&totals);
    judged(&frames).unwrap();
}
