//! Deliveries that wait for a person.

use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::ingest::{hold::HoldReason, words::DeliveryError};

/// 600 records, and a file that lacks half of them and changes some others.
fn with_held() -> (World, Held) {
    let world = World::new();
    world.import(&rows(0..600, "a"), true);
    let report = world.import_or_hold(&(rows(300..600, "a") + &row(600, "a") + "\nc1,,,"), true);
    let held = world.deliveries.get(&report.held.unwrap().id).unwrap().unwrap();
    (world, held)
}

/// All 600 records, of which as many are new as may be without being held.
fn newer() -> (String, Content) {
    let mut content = content_of(0..300, "a");
    content.extend(content_of(300..600, "newer"));
    let rows = (300..600).map(|number| row(number, "newer") + "\n").collect::<String>();
    (super::rows(0..300, "a") + &rows, content)
}

fn ids(world: &World) -> Vec<String> {
    world.deliveries.list().unwrap().into_iter().map(|held| held.id).collect()
}

#[test]
fn a_held_file_changes_nothing_and_its_report_says_so() {
    let world = World::new();
    world.import(&rows(0..600, "a"), true);
    let report = world.import_or_hold(&(rows(300..610, "a") + "c1,,,"), true);
    assert_eq!(counts(&report), Counts { unchanged: 310, rejected: 1, ..Counts::default() });
    assert_eq!((report.rows, report.seq), (311, 1));
    assert!(report.rejects_file.is_some());
    assert_eq!(world.content(), content_of(0..600, "a"));

    let id = report.held.unwrap().id;
    let held = world.deliveries.get(&id).unwrap().unwrap();
    assert_eq!(held.reason, HoldReason::Deletes { deletes: 300, stored: 600 });
    assert!(held.explanation.contains("300 of 600"), "{}", held.explanation);
    let would =
        Counts { inserted: 10, deleted: 300, unchanged: 300, rejected: 1, ..Counts::default() };
    assert_eq!(counts(&held.would), would);
    assert_eq!((held.full, &held.dataset), (true, &dataset()));
    assert_eq!(held.settings, serde_json::json!({ "encoding": "auto" }));
    assert!(held.received.ends_with('Z') && held.received.len() == 20, "{}", held.received);
    assert!(id.starts_with("list-20") && id.ends_with("-1"), "{id}");
    assert_eq!(world.deliveries.list().unwrap(), [held]);
}

#[test]
fn a_full_file_of_which_nothing_was_taken_outdates_no_other() {
    let (world, held) = with_held();
    let keys = (0..600).map(|number| format!("c{number:07},,,"));
    let report = world.import_or_hold(&csv(keys), true);
    assert_eq!((report.rejected, report.deleted, report.held.is_none()), (600, 0, true));
    assert_eq!(ids(&world), std::slice::from_ref(&held.id));
    let request = world.approval(&held, "rejects/approved.csv");
    import_or_hold(&world.importer, &world.deliveries, &request, &|_| {}).unwrap();
    assert_eq!(ids(&world), [""; 0]);
}

#[test]
fn approving_applies_the_copy_and_forgets_it() {
    let (world, held) = with_held();
    // What became of the original does not matter.
    fs::remove_dir_all(world.path("files")).unwrap();
    let request = world.approval(&held, "rejects/approved.csv");
    let report = import_or_hold(&world.importer, &world.deliveries, &request, &|_| {}).unwrap();
    let expected = Counts { deleted: 300, change_sets: 1, ..counts(&held.would) };
    assert_eq!(counts(&report), expected);
    assert_eq!(world.content(), content_of(300..601, "a"));
    assert_eq!(ids(&world), [""; 0]);
    // The command line removes what it approved, too.
    world.deliveries.remove(&held.id).unwrap();
    let left: Vec<_> = fs::read_dir(world.path("deliveries")).unwrap().flatten().collect();
    assert_eq!(left.len(), 1, "nothing but the log: {left:?}");
    assert_eq!(left[0].file_name(), "_log");
}

#[test]
fn a_copy_is_the_same_bytes_and_for_its_owner_only() {
    let (world, held) = with_held();
    let data = world.deliveries.data_path(&held);
    let original = world.path(&format!("files/{}", held.file));
    assert_eq!(fs::read(&data).unwrap(), fs::read(original).unwrap());
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let dir = data.parent().unwrap();
    assert_eq!((mode(dir), mode(&data), mode(&dir.join("delivery.json"))), (0o700, 0o600, 0o600));
}

#[test]
fn only_the_newest_of_a_dataset_waits() {
    let (world, first) = with_held();
    let second = world.import_or_hold(&rows(301..600, "a"), true).held.unwrap().id;
    assert_ne!(first.id, second);
    assert_eq!(ids(&world), [second.as_str()]);
    assert_eq!(world.deliveries.get(&first.id).unwrap(), None);

    // Neither rows that are added nor a file that fails say anything about it.
    world.import_or_hold(&rows(0..10, "b"), false);
    world.try_import("no header of this dataset\n", true).unwrap_err();
    assert_eq!(ids(&world), [second.as_str()]);

    // A full file that goes in does.
    world.import_or_hold(&rows(0..600, "a"), true);
    assert_eq!(ids(&world), [""; 0]);
}

#[test]
fn a_delivery_that_is_held_while_another_is_approved_stays() {
    let (world, held) = with_held();
    let newer = std::cell::OnceCell::new();
    let request = world.approval(&held, "rejects/approved.csv");
    import_or_hold(&world.importer, &world.deliveries, &request, &|progress| {
        if progress.bytes_read > 0 {
            newer.get_or_init(|| world.import_or_hold(&csv([]), true).held.unwrap().id);
        }
    })
    .unwrap();
    assert_eq!(ids(&world), [newer.into_inner().unwrap()]);
}

#[test]
fn no_id_leaves_the_directory() {
    let (world, held) = with_held();
    for id in ["", ".", "..", "../list", "a/b", "/etc", "a\0b", "A", ".hidden", &"a".repeat(129)] {
        assert!(matches!(world.deliveries.get(id), Err(DeliveryError::Id(_))), "{id}");
        assert!(matches!(world.deliveries.remove(id), Err(DeliveryError::Id(_))), "{id}");
    }
    assert_eq!(world.deliveries.get("list-20260101-000000-1").unwrap(), None);
    assert_eq!(ids(&world), [held.id]);
}

#[test]
fn half_a_delivery_is_not_listed_and_a_damaged_one_hides_no_other() {
    let (world, held) = with_held();
    let half = world.path("deliveries/.list-20260101-000000-1");
    fs::create_dir(&half).unwrap();
    fs::write(half.join("data"), "code").unwrap();
    let damaged = world.path("deliveries/list-20260101-000000-2");
    fs::create_dir(&damaged).unwrap();
    fs::write(damaged.join("delivery.json"), "{}").unwrap();
    let newer = world.path("deliveries/list-20260101-000000-3");
    fs::create_dir(&newer).unwrap();
    let mut json: serde_json::Value = serde_json::to_value(&held).unwrap();
    json["version"] = 3.into();
    fs::write(newer.join("delivery.json"), json.to_string()).unwrap();

    assert_eq!(ids(&world), [held.id.as_str()]);
    for id in ["list-20260101-000000-2", "list-20260101-000000-3"] {
        let found = world.deliveries.get(id);
        assert!(matches!(found, Err(DeliveryError::Malformed { .. })), "{found:?}");
    }
    world.import_or_hold(&rows(301..600, "a"), true);
    assert!(!half.exists(), "a later delivery clears what a crash left");
}

#[test]
fn a_file_that_changes_while_it_is_judged_is_not_kept() {
    let (world, held) = with_held();
    let path = world.file(&rows(300..600, "a"));
    let request = world.request(&path, true);
    let error = import_or_hold(&world.importer, &world.deliveries, &request, &|_| {
        fs::write(&path, "something else").unwrap();
    })
    .unwrap_err();
    assert!(matches!(error, ImportError::Source(SourceError::Changed { .. })), "{error:?}");
    assert_eq!(ids(&world), [held.id], "the earlier one still waits");
    assert_eq!(world.content(), content_of(0..600, "a"));
}

#[test]
fn nothing_is_listed_where_nothing_was_ever_held() {
    let world = World::new();
    assert_eq!(world.deliveries.list().unwrap(), []);
    assert!(!world.path("deliveries").exists());
    world.import_or_hold(&rows(0..10, "a"), true);
    assert_eq!(world.deliveries.list().unwrap(), []);
}

#[test]
fn an_approval_does_not_undo_a_full_file_that_goes_in_meanwhile() {
    let (world, held) = with_held();
    let (newer_text, content) = newer();
    let newer = std::cell::OnceCell::new();
    let request = world.approval(&held, "rejects/approved.csv");
    let refused = import_or_hold(&world.importer, &world.deliveries, &request, &|progress| {
        if progress.bytes_read > 0 {
            newer.get_or_init(|| world.import_or_hold(&newer_text, true));
        }
    });
    assert!(matches!(refused, Err(ImportError::Superseded)), "{refused:?}");
    assert_eq!(world.content(), content);
    assert_eq!(ids(&world), [""; 0]);

    // Rows that are added supersede nothing.
    let held = world.import_or_hold(&rows(300..600, "a"), true).held.unwrap().id;
    let held = world.deliveries.get(&held).unwrap().unwrap();
    let request = world.approval(&held, "rejects/approved.csv");
    let added = std::cell::OnceCell::new();
    import_or_hold(&world.importer, &world.deliveries, &request, &|progress| {
        if progress.bytes_read > 0 {
            added.get_or_init(|| world.import_or_hold(&rows(0..10, "b"), false));
        }
    })
    .unwrap();
    assert_eq!(world.content(), content_of(300..600, "a"));
}

#[test]
fn an_approval_does_not_undo_a_full_file_that_is_under_way() {
    let (world, held) = with_held();
    // Long enough that its progress is told while it is compared.
    let newer = world.request(&world.file(&rows(0..5000, "a")), true);
    let (importer, deliveries) = (world.importer.clone(), world.deliveries.clone());
    let (comparing, is_comparing) = std::sync::mpsc::channel();
    let (reading, is_reading) = std::sync::mpsc::channel();
    let limit = std::time::Duration::from_secs(30);
    let thread = std::thread::spawn(move || {
        import_or_hold(&importer, &deliveries, &newer, &|progress| {
            if progress.compared > 0 {
                // It has the partition, and the approval begins only now.
                comparing.send(()).unwrap();
                is_reading.recv_timeout(limit).unwrap();
            }
        })
    });
    is_comparing.recv_timeout(limit).unwrap();
    let request = world.approval(&held, "rejects/approved.csv");
    let refused = import_or_hold(&world.importer, &world.deliveries, &request, &|progress| {
        if progress.bytes_read > 0 {
            let _ = reading.send(());
        }
    });
    thread.join().unwrap().unwrap();
    assert!(matches!(refused, Err(ImportError::Superseded)), "{refused:?}");
    assert_eq!(world.content(), content_of(0..5000, "a"));
}

#[test]
fn a_full_file_without_a_single_byte_is_held_and_can_be_approved() {
    let world = World::new();
    world.import(&rows(0..5, "a"), true);
    let report = world.import_or_hold("", true);
    let held = world.deliveries.get(&report.held.unwrap().id).unwrap().unwrap();
    assert_eq!(held.reason, HoldReason::Empty { stored: 5 });
    assert_eq!(world.content(), content_of(0..5, "a"));
    let request = world.approval(&held, "rejects/approved.csv");
    import_or_hold(&world.importer, &world.deliveries, &request, &|_| {}).unwrap();
    assert_eq!(world.content(), content_of(0..0, "a"));
    // As an upsert it says nothing at all.
    assert!(matches!(world.try_import("", false), Err(ImportError::Source(SourceError::Empty(_)))));
}
