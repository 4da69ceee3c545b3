//! The log's lines and the frames of images, whole and damaged.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
};

use protocol::change::Change;

use super::{
    event::{Description, Event, Kind, State},
    images::{Image, ImageFile, digest, frames},
    *,
};
use crate::ingest::report::ImportReport;

fn dataset() -> DatasetId {
    DatasetId::new("list").unwrap()
}

fn what(kind: Kind, undoes: Option<&str>) -> Description {
    let undoes = undoes.map(str::to_owned);
    Description { dataset: dataset(), kind, file: None, author: None, undoes }
}

fn ended(kind: Kind, undoes: Option<&str>) -> Event {
    Event::Ended { what: what(kind, undoes), report: ImportReport { seq: 7, ..<_>::default() } }
}

fn history() -> (tempfile::TempDir, History) {
    let dir = tempfile::tempdir().unwrap();
    let history = History::new(dir.path().join("log"), UndoLimits::default());
    (dir, history)
}

#[test]
fn half_a_line_spoils_no_other() {
    let (dir, history) = history();
    assert_eq!(history.deliveries(), []);
    history.note("list-1", ended(Kind::Full, None));
    let path = dir.path().join("log/deliveries.jsonl");
    let mut file = OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(b"{\"id\":\"list-2\",\"at\":").unwrap();
    history.note("list-3", ended(Kind::Upsert, None));
    file.write_all(b"not json\n\n{\"id\":\"x\",\"event\":\"of the future\"}\n").unwrap();
    history.note("list-4", ended(Kind::Upsert, None));
    let ids: Vec<_> = history.deliveries().into_iter().map(|one| one.id).collect();
    assert_eq!(ids, ["list-1", "list-3", "list-4"]);
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_full_log_loses_its_oldest_lines() {
    let (dir, history) = history();
    let images = Some("x".repeat(900_000));
    for number in 0..30 {
        let begun = Event::Begun {
            what: what(Kind::Upsert, None),
            base_seq: number,
            first_load: false,
            images: images.clone(),
        };
        history.note(&format!("list-{number}"), begun);
    }
    let bytes = fs::metadata(dir.path().join("log/deliveries.jsonl")).unwrap().len();
    assert!(bytes <= 16 * 1024 * 1024, "{bytes}");
    let bases: Vec<_> = history.deliveries().iter().filter_map(|one| one.base_seq).collect();
    assert!(bases.len() >= 8 && bases.len() < 30, "{bases:?}");
    assert_eq!(bases.last(), Some(&29));
    assert!(bases.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{bases:?}");
}

#[test]
fn ids_are_given_once_also_across_processes() {
    let (dir, history) = history();
    let now = time::macros::datetime!(2026-11-23 09:12:03 UTC);
    let id = |history: &History, taken: &str| history.new_id(&dataset(), now, |id| id == taken);
    assert_eq!(id(&history, ""), "list-20261123-091203-1");
    assert_eq!(id(&history, ""), "list-20261123-091203-2");
    history.note("list-20261123-091203-2", ended(Kind::Full, None));
    let other = History::new(dir.path().join("log"), UndoLimits::default());
    assert_eq!(id(&other, "list-20261123-091203-1"), "list-20261123-091203-3");
}

#[test]
fn an_undo_that_was_taken_back_counts_no_more() {
    let states = |events: &[(&str, Event)]| -> Vec<State> {
        let (_dir, history) = history();
        for (id, event) in events {
            history.note(id, event.clone());
        }
        history.deliveries().into_iter().map(|one| one.state).collect()
    };
    let mut events = vec![
        ("a", ended(Kind::Full, None)),
        ("b", ended(Kind::Undo, Some("a"))),
        ("c", ended(Kind::Undo, Some("b"))),
    ];
    assert_eq!(states(&events[..2]), [State::Undone, State::Taken]);
    assert_eq!(states(&events), [State::Taken, State::Undone, State::Taken]);
    events.push(("d", ended(Kind::Undo, Some("a"))));
    assert_eq!(states(&events), [State::Undone, State::Undone, State::Taken, State::Taken]);
    // One that began and did not end has not taken it back.
    let begun = Event::Begun {
        what: what(Kind::Undo, Some("a")),
        base_seq: 7,
        first_load: false,
        images: None,
    };
    let events = [("a", ended(Kind::Full, None)), ("b", begun)];
    assert_eq!(states(&events), [State::Taken, State::Interrupted]);
}

fn put(number: u32, bytes: usize) -> Change {
    Change::Put { key: number.to_be_bytes().to_vec(), value: vec![number as u8; bytes] }
}

#[test]
fn images_read_back_with_what_was_left() {
    let changes: Vec<Change> = (0..300)
        .map(|number: u32| match number % 3 {
            0 => Change::Delete { key: number.to_be_bytes().to_vec() },
            _ => put(number, 10),
        })
        .collect();
    // Some of them so large that they take several frames.
    let befores: Vec<Option<Vec<u8>>> = (0..300)
        .map(|number: u32| (number % 3 != 1).then(|| vec![number as u8; 64 * 1024 - 100]))
        .collect();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.images");
    fs::write(&path, frames(&changes, befores.clone())).unwrap();
    let mut file = ImageFile::open(None, &path).unwrap();
    let mut images = Vec::new();
    let mut count = 0;
    while let Some(frame) = file.next_frame().unwrap() {
        images.extend(frame);
        count += 1;
    }
    assert!(count > 1, "{count}");
    let expected = changes.iter().zip(befores).map(|(change, before)| {
        let key = change.key().to_vec();
        let after = change.entry().map(|(key, value)| digest(key, value));
        let before = match before {
            Some(value) => Change::Put { key, value },
            None => Change::Delete { key },
        };
        Image { before, after }
    });
    assert_eq!(images, expected.collect::<Vec<_>>());
}

#[test]
fn images_of_a_line_come_before_those_of_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.images");
    fs::write(&path, frames(&[put(2, 1)], vec![None])).unwrap();
    let text = images::to_text(&frames(&[put(1, 1)], vec![None]));
    let mut file = ImageFile::open(Some(&text), &path).unwrap();
    let mut keys = Vec::new();
    while let Some(frame) = file.next_frame().unwrap() {
        keys.extend(frame.into_iter().map(|image| image.before.key().to_vec()));
    }
    assert_eq!(keys, [1u32.to_be_bytes().to_vec(), 2u32.to_be_bytes().to_vec()]);
    assert!(ImageFile::open(Some("not base64!"), &path).is_err());
    // Nothing at all is a delivery of which nothing is kept.
    let mut none = ImageFile::open(None, &dir.path().join("b.images")).unwrap();
    assert_eq!(none.next_frame().unwrap(), None);
}

#[test]
fn the_defaults_are_those_of_the_settings() {
    let settings = config::ImportConfig::default();
    let limits = UndoLimits { days: settings.undo_days, bytes: settings.undo_mb * 1024 * 1024 };
    assert_eq!(limits, UndoLimits::default());
}
