//! Deliveries taken back, and single records removed.

use std::time::Duration;

use super::*;
use crate::ingest::{
    history::event::{Kind, State},
    undo::{UndoError, Undone},
    validate::key_of,
};

fn author() -> Author {
    Author::new("tester", Some("a slip"))
}

/// The id of the newest delivery.
fn newest(world: &World) -> String {
    world.deliveries.history().deliveries().pop().unwrap().id
}

fn state(world: &World, id: &str) -> State {
    world.deliveries.history().delivery(id).unwrap().state
}

fn undo(world: &World, id: &str, force: bool) -> Result<Undone, UndoError> {
    world.importer.undo(&world.deliveries, id, force, author())
}

/// Imports, also what would be held, and answers the delivery.
fn deliver(world: &World, text: &str, full: bool) -> String {
    let mut request = world.request(&world.file(text), full);
    let id = format!("list-20260101-000000-{}", world.files.get());
    request.approved = Some(approved(&id));
    import_or_hold(&world.importer, &world.deliveries, &request, &|_| {}).unwrap();
    id
}

#[test]
fn taking_back_restores_exactly_what_was_there() {
    let mut random = Random::new();
    for round in 0..10 {
        let world = World::with_memory(1 << (8 + random.below(10)));
        let count = 1 + random.below(if round == 0 { 25_000 } else { 900 });
        let mut roots = vec![world.root()];
        let mut ids = Vec::new();
        for _ in 0..4 {
            let (kept, changed) = (random.below(101), random.below(101));
            let mut lines = Vec::new();
            for number in 0..count {
                if random.below(100) < kept {
                    let name = if random.below(100) < changed { "b" } else { "a" };
                    lines.push(row(number, name));
                }
            }
            let before = world.seq();
            let id = deliver(&world, &csv(lines), random.below(2) == 0);
            if world.seq() > before {
                ids.push(id);
                roots.push(world.root());
            }
        }
        // The last one first; and the same again, forwards.
        let mut undone = Vec::new();
        for (place, id) in ids.iter().enumerate().rev() {
            let answer = undo(&world, id, false).unwrap();
            let empty = world.store.head(&world.partition()).unwrap().summary.records == 0;
            assert!(world.root() == roots[place] || empty && place == 0, "{id}");
            assert_eq!((answer.changed_since, &answer.undoes), (0, id));
            assert!(answer.report.adds_up(), "{answer:?}");
            assert_eq!(state(&world, id), State::Undone);
            undone.push(answer.id);
        }
        for (place, id) in undone.iter().rev().enumerate() {
            undo(&world, id, false).unwrap();
            assert_eq!(world.root(), roots[place + 1], "{id}");
            assert_eq!(state(&world, &ids[place]), State::Approved);
        }
    }
}

#[test]
fn a_first_load_is_taken_back_but_for_what_came_since() {
    for count in [10, 25_000] {
        let world = World::new();
        let first = deliver(&world, &rows(0..count, "a"), true);
        deliver(&world, &csv([row(3, "b"), row(90_000, "a")]), false);
        let refused = undo(&world, &first, false).unwrap_err();
        assert!(matches!(&refused, UndoError::Changed { records: 2, .. }), "{refused}");
        assert!(refused.to_string().contains("c0000003, c0090000"), "{refused}");
        assert_eq!(world.content().len() as u64, count + 1);

        let undone = undo(&world, &first, true).unwrap();
        assert_eq!((undone.report.deleted, undone.changed_since), (count - 1, 2));
        let mut left = content_of([3], "b");
        left.extend(content_of([90_000], "a"));
        assert_eq!(world.content(), left);
    }
}

#[test]
fn records_that_changed_since_are_named_and_replaced_only_by_force() {
    let world = World::new();
    deliver(&world, &rows(0..20, "a"), true);
    let id = deliver(&world, &rows(0..10, "b"), false);
    deliver(&world, &csv([row(2, "c"), row(5, "a")]), false);
    let content = world.content();
    let refused = undo(&world, &id, false).unwrap_err();
    assert!(matches!(&refused, UndoError::Changed { records: 1, .. }), "{refused}");
    let said = refused.to_string();
    assert!(said.contains("c0000002") && said.contains("--force"), "{said}");
    assert_eq!(world.content(), content);
    assert_eq!(state(&world, &id), State::Approved);

    let undone = undo(&world, &id, true).unwrap();
    assert_eq!((undone.report.updated, undone.report.unchanged, undone.changed_since), (9, 1, 1));
    assert_eq!(world.content(), content_of(0..20, "a"));
    let again = undo(&world, &id, true).unwrap_err();
    assert!(matches!(&again, UndoError::Nothing { .. }), "{again}");
}

#[test]
fn what_changed_nothing_or_is_unknown_is_not_taken_back() {
    let world = World::new();
    deliver(&world, &rows(0..20, "a"), true);
    let same = deliver(&world, &rows(0..20, "a"), true);
    assert!(matches!(undo(&world, &same, false), Err(UndoError::Nothing { .. })));
    assert!(matches!(undo(&world, "list-1", false), Err(UndoError::Unknown(_))));
    let held = world.import_or_hold(&rows(0..2, "a"), true).held.unwrap();
    assert!(matches!(undo(&world, &held.id, false), Err(UndoError::Nothing { .. })));
    world.deliveries.discard(&held.id, author()).unwrap();
    assert_eq!(state(&world, &held.id), State::Discarded);
    assert!(matches!(undo(&world, &held.id, false), Err(UndoError::Nothing { .. })));
}

#[test]
fn a_delivery_that_was_interrupted_is_taken_back_as_far_as_it_came() {
    let world = World::new();
    deliver(&world, &rows(0..30_000, "a"), true);
    let root = world.root();
    let mut request = world.request(&world.file(&rows(0..30_000, "b")), false);
    request.approved = Some(approved("list-20260101-000000-99"));
    let stopped = import_or_hold(&world.importer, &world.deliveries, &request, &|progress| {
        if progress.compared >= 24_000 {
            world.stop.cancel();
        }
    });
    assert!(matches!(stopped, Err(ImportError::Stopped)), "{stopped:?}");
    assert_ne!(world.root(), root);
    assert_eq!(newest(&world), "list-20260101-000000-99");
    assert_eq!(state(&world, "list-20260101-000000-99"), State::Interrupted);

    // What came behind it is none of its business.
    let importer = world.another_importer();
    let request = world.request(&world.file(&csv([row(29_999, "c")])), false);
    import_or_hold(&importer, &world.deliveries, &request, &|_| {}).unwrap();
    let later = newest(&world);
    let undone = importer.undo(&world.deliveries, "list-20260101-000000-99", false, author());
    let undone = undone.unwrap();
    assert_eq!((undone.report.updated, undone.changed_since), (20_000, 0));
    importer.undo(&world.deliveries, &later, false, author()).unwrap();
    assert_eq!(world.root(), root);
}

#[test]
fn of_one_that_was_interrupted_only_what_it_has_written_is_taken_back() {
    let world = World::new();
    deliver(&world, &rows(0..30_000, "a"), true);
    let before = world.seq();
    let mut request = world.request(&world.file(&rows(0..30_000, "b")), false);
    request.approved = Some(approved("list-20260101-000000-99"));
    // What was stored before is written then, and its change set is not.
    import_or_hold(&world.importer, &world.deliveries, &request, &|progress| {
        if progress.compared >= 14_000 {
            world.store.stop_own_writes(Some("not now".into()));
        }
    })
    .unwrap_err();
    let written = (world.seq() - before) * 10_000;
    assert!((10_000..30_000).contains(&written), "{written}");
    world.store.stop_own_writes(None);
    // The same file again brings the rest.
    let importer = world.another_importer();
    let mut request = world.request(&world.file(&rows(0..30_000, "b")), false);
    request.approved = Some(approved("list-20260101-000000-100"));
    import_or_hold(&importer, &world.deliveries, &request, &|_| {}).unwrap();
    let undone = importer.undo(&world.deliveries, "list-20260101-000000-99", false, author());
    assert_eq!(undone.unwrap().report.updated, written);
}

#[test]
fn one_that_wrote_nothing_is_not_there_and_takes_nothing_away() {
    let world = World::new();
    let file = world.file(&rows(0..20, "a"));
    world.store.stop_own_writes(Some("not now".into()));
    let request = world.request(&file, false);
    import_or_hold(&world.importer, &world.deliveries, &request, &|_| {}).unwrap_err();
    assert_eq!(world.deliveries.history().deliveries(), []);
    world.store.stop_own_writes(None);
    let held = {
        deliver(&world, &rows(0..20, "a"), true);
        world.import_or_hold(&rows(0..2, "a"), true).held.unwrap().id
    };
    let mut request = world.request(&world.file(&rows(0..2, "a")), true);
    request.approved = Some(approved(&held));
    world.store.stop_own_writes(Some("not now".into()));
    import_or_hold(&world.importer, &world.deliveries, &request, &|_| {}).unwrap_err();
    assert_eq!(state(&world, &held), State::Held, "it waits still");
    world.store.stop_own_writes(None);

    // The process ended before it could say so, and the history of a directory before
    // this one came back from the hub.
    let (root, log) = (world.root(), world.path("deliveries/_log/deliveries.jsonl"));
    let mut lines = fs::read_to_string(&log).unwrap();
    let ended = "list-20990101-000000-1";
    lines.push_str(&format!(
        r#"{{"id":"{ended}","at":"2099-01-01T00:00:00Z","event":"begun","dataset":"list","kind":"full","base_seq":0,"first_load":true}}"#
    ));
    fs::write(&log, lines + "\n").unwrap();
    assert_eq!(state(&world, ended), State::Interrupted);
    for force in [false, true] {
        let refused = undo(&world, ended, force);
        assert!(matches!(refused, Err(UndoError::Nothing { .. })), "{refused:?}");
    }
    assert_eq!(world.root(), root);
}

#[test]
fn what_is_not_kept_in_full_is_not_taken_back() {
    let world = World::new();
    deliver(&world, &rows(0..30_000, "a"), true);
    let id = deliver(&world, &rows(0..25_000, "b"), false);
    let (root, images) = (world.root(), world.path(&format!("deliveries/_log/{id}.images")));
    let bytes = fs::read(&images).unwrap();
    for kept in [bytes.len() - 1, bytes.len() / 2, 5, 0] {
        fs::write(&images, &bytes[..kept]).unwrap();
        let refused = undo(&world, &id, true).unwrap_err();
        assert!(matches!(&refused, UndoError::Impossible { .. }), "{kept}: {refused}");
        assert_eq!(world.root(), root);
    }
    // A byte that is another one ends what is believed.
    let mut other = bytes.clone();
    other[bytes.len() / 2] ^= 1;
    fs::write(&images, other).unwrap();
    assert!(matches!(undo(&world, &id, true), Err(UndoError::Impossible { .. })));
    fs::write(&images, &bytes).unwrap();
    undo(&world, &id, false).unwrap();
    assert_eq!(world.content(), content_of(0..30_000, "a"));
}

#[test]
fn what_is_kept_has_a_limit_and_the_oldest_goes_first() {
    let mut world = World::new();
    let limits = UndoLimits { bytes: 400 * 1024, days: 30 };
    world.deliveries = Arc::new(Deliveries::new(world.path("deliveries"), limits));
    deliver(&world, &rows(0..10_000, "a"), true);
    // Notes that do not compress, so that two deliveries do not fit.
    let mut random = Random::new();
    let mut noisy = || -> String {
        csv((0..5000)
            .map(|number| format!("c{number:07},{:x}{:x},,", random.next(), random.next())))
    };
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(deliver(&world, &noisy(), false));
    }
    let bytes: u64 = fs::read_dir(world.path("deliveries/_log"))
        .unwrap()
        .flatten()
        .filter(|entry| entry.path().extension().is_some_and(|ending| ending == "images"))
        .map(|entry| entry.metadata().unwrap().len())
        .sum();
    assert!(bytes > 0 && bytes <= limits.bytes, "{bytes}");
    assert!(matches!(undo(&world, &ids[1], true), Err(UndoError::Impossible { .. })));
    undo(&world, &ids[3], false).unwrap();

    // One that alone is too large goes in all the same, and stays.
    let limits = UndoLimits { bytes: 1000, days: 30 };
    world.deliveries = Arc::new(Deliveries::new(world.path("deliveries"), limits));
    let id = deliver(&world, &noisy(), false);
    assert!(matches!(undo(&world, &id, true), Err(UndoError::Impossible { .. })));
}

#[test]
fn what_is_too_old_is_not_taken_back() {
    let mut world = World::new();
    deliver(&world, &rows(0..10, "a"), true);
    let id = deliver(&world, &rows(0..5, "b"), false);
    let log = world.path("deliveries/_log/deliveries.jsonl");
    let text = fs::read_to_string(&log).unwrap();
    let year = time::OffsetDateTime::now_utc().year();
    fs::write(&log, text.replace(&format!("\"at\":\"{year}"), "\"at\":\"2020")).unwrap();
    let refused = undo(&world, &id, true).unwrap_err();
    assert!(refused.to_string().contains("30 days"), "{refused}");
    let limits = UndoLimits { days: 36_500, ..UndoLimits::default() };
    world.deliveries = Arc::new(Deliveries::new(world.path("deliveries"), limits));
    undo(&world, &id, false).unwrap();
}

#[test]
fn what_is_too_old_is_not_kept() {
    let world = World::new();
    deliver(&world, &rows(0..5000, "a"), true);
    for text in ["b", "c"] {
        deliver(&world, &rows(0..5000, text), false);
    }
    let images = || -> Vec<PathBuf> {
        let entries = fs::read_dir(world.path("deliveries/_log")).unwrap().flatten();
        let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
        paths.retain(|path| path.extension().is_some_and(|ending| ending == "images"));
        paths.sort();
        paths
    };
    let kept = images();
    assert_eq!(kept.len(), 2);
    let days = |days: u64| std::time::SystemTime::now() - Duration::from_secs(days * 24 * 3600);
    for (path, age) in kept.iter().zip([31, 29]) {
        fs::File::options().write(true).open(path).unwrap().set_modified(days(age)).unwrap();
    }
    world.deliveries.history().expire();
    assert_eq!(images(), kept[1..]);
}

#[test]
fn one_record_is_removed_and_comes_back() {
    let world = World::new();
    deliver(&world, &rows(0..5, "a"), true);
    let root = world.root();
    let schema = Schema::check(raw_schema(1)).unwrap();
    let delete = |text: &str| {
        let key = key_of(&schema, [text]).unwrap();
        world.importer.delete_record(&world.deliveries, &dataset(), (&key, text), author())
    };
    let (id, report) = delete("c0000003").unwrap();
    assert_eq!((report.deleted, report.seq), (1, 2));
    assert_eq!(world.content(), content_of([0, 1, 2, 4], "a"));
    let entry = world.deliveries.history().delivery(&id).unwrap();
    assert_eq!((entry.what.kind, entry.what.author), (Kind::RecordDelete, Some(author())));
    let missing = delete("c0000003").unwrap_err();
    assert!(missing.to_string().contains("c0000003"), "{missing}");
    undo(&world, &id, false).unwrap();
    assert_eq!(world.root(), root);
}

#[test]
fn the_log_says_what_became_of_each_delivery() {
    let world = World::new();
    world.import_or_hold(&rows(0..600, "a"), true);
    world.import_or_hold(&rows(0..600, "a"), true);
    let held = world.import_or_hold(&rows(0..10, "a"), true).held.unwrap();
    let newer = world.import_or_hold(&rows(0..20, "a"), true).held.unwrap();
    let request =
        world.approval(&world.deliveries.get(&newer.id).unwrap().unwrap(), "rejects/approved.csv");
    import_or_hold(&world.importer, &world.deliveries, &request, &|_| {}).unwrap();
    undo(&world, &newer.id, false).unwrap();
    let list = world.deliveries.history().deliveries();
    let states: Vec<_> = list.iter().map(|one| one.state).collect();
    let expected = [State::Taken, State::Taken, State::Discarded, State::Undone, State::Taken];
    assert_eq!(states, expected);
    assert_eq!((&list[2].id, &list[3].id), (&held.id, &newer.id));
    assert_eq!(list[3].what.author, Some(Author::new("tester", Some("a reason"))));
    assert_eq!(list[4].what.undoes.as_ref(), Some(&newer.id));
    assert_eq!(list[0].last_seq, Some(1));
    let ids: std::collections::BTreeSet<_> = list.iter().map(|one| &one.id).collect();
    assert_eq!(ids.len(), 5, "each has an id of its own");
    assert_eq!(world.content(), content_of(0..600, "a"));
}
