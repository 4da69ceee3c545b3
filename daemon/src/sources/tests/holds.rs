//! What is held and what is not, at the edges of each rule.

use protocol::uscc::check_character;

use super::*;
use crate::ingest::hold::{Hold, HoldReason};

/// The rule by which a delivery is held; none if it goes in.
fn rule(world: &World, text: &str, full: bool) -> Option<&'static str> {
    reason(world, text, full).map(|reason| reason.rule())
}

fn reason(world: &World, text: &str, full: bool) -> Option<HoldReason> {
    let (seq, content) = (world.seq(), world.content());
    match world.try_import(text, full) {
        Ok(_) => None,
        Err(ImportError::Held(reason)) => {
            assert_eq!((world.seq(), world.content()), (seq, content), "nothing may change");
            Some(reason)
        }
        Err(error) => panic!("{error}"),
    }
}

fn with(numbers: std::ops::Range<u64>) -> World {
    let world = World::new();
    world.import(&rows(numbers, "a"), true);
    world
}

#[test]
fn more_than_a_fifth_may_not_go_unless_it_is_one_or_two() {
    for (stored, deletes, held) in [
        (600, 120, false),
        (600, 121, true),
        (15, 3, false),
        (14, 3, true),
        (5, 2, false),
        (5, 3, true),
        (3, 2, false),
        // All of them: the file has others.
        (3, 3, true),
    ] {
        let world = with(0..stored);
        let reason = reason(&world, &(rows(deletes..stored, "a") + &row(9000, "a") + "\n"), true);
        let expected = HoldReason::Deletes { deletes, stored };
        assert_eq!(reason, held.then_some(expected), "{deletes} of {stored}");
    }
}

#[test]
fn an_empty_file_is_held_as_long_as_anything_is_stored() {
    let world = with(0..1);
    assert_eq!(reason(&world, &csv([]), true), Some(HoldReason::Empty { stored: 1 }));
    assert_eq!(reason(&world, "", true), Some(HoldReason::Empty { stored: 1 }));
    assert_eq!(World::new().import(&csv([]), true).seq, 0);
    assert_eq!(rule(&world, &csv([]), false), None, "an upsert without rows says nothing");
}

#[test]
fn rows_that_cannot_be_read_are_held_with_any_deletion() {
    let world = with(0..600);
    for odd in [",no code,,\n", "one,two\n"] {
        let expected = HoldReason::Unreadable { unreadable: 1, deletes: 1 };
        assert_eq!(reason(&world, &(rows(1..600, "a") + odd), true), Some(expected));
    }
    // They can have deleted nothing.
    assert_eq!(rule(&world, &(rows(0..600, "a") + ",no code,,\n"), true), None);
}

#[test]
fn a_rejects_file_is_not_all_of_the_data() {
    let world = with(0..600);
    let mended = |numbers: std::ops::Range<u64>| {
        let rows = numbers.map(|number| format!("第 2 行,请改正,{}\n", row(number, "a")));
        let header = "问题/problem,怎么办/what to do,code,name,note,amount\n";
        header.to_owned() + &rows.collect::<String>()
    };
    let expected = HoldReason::RejectsFile { deletes: 1 };
    assert_eq!(reason(&world, &mended(1..600), true), Some(expected));
    assert_eq!(rule(&world, &mended(0..600), true), None, "it deletes nothing");
    assert_eq!(rule(&world, &mended(0..5), false), None);
}

#[test]
fn a_file_that_is_mostly_rejected_deletes_nothing_by_itself() {
    let rejected = |numbers: std::ops::Range<u64>| -> String {
        numbers.map(|number| format!("c{number:07},,,\n")).collect()
    };
    for (bad, held) in [(0..300, true), (1..300, false)] {
        let world = with(0..600);
        let rows = rejected(bad.clone()) + &row(0, "a") + "\n";
        let text = csv((300..599).map(|number| row(number, "a"))) + &rows;
        let text = if bad.start == 0 { text.replace(&row(0, "a"), "") } else { text };
        let reason = reason(&world, &text, true);
        let expected = HoldReason::Rejected { rejected: 300, rows: 599, deletes: 1 };
        assert_eq!(reason, held.then_some(expected), "{bad:?}");
    }
}

#[test]
fn a_file_that_comes_cut_is_held_with_any_deletion() {
    // Read as a whole, and recalled from the last one.
    for recalled in [false, true] {
        for (numbers, cut, held) in
            [(1..1000, true, true), (1..1000, false, false), (0..1000, true, false)]
        {
            let world = with(0..1000);
            if !recalled {
                fs::remove_dir_all(world.path("recall")).unwrap();
            }
            let mut text = rows(numbers, "a");
            if cut {
                text.pop();
            }
            let expected = held.then_some(HoldReason::Cut { deletes: 1 });
            assert_eq!(reason(&world, &text, true), expected, "{recalled} {cut}");
        }
    }
}

#[test]
fn a_full_file_that_was_cut_in_the_middle_of_a_row_changes_nothing() {
    // Case 05: the last row's value is cut, and fifty records are missing.
    let world = with(0..1000);
    let text = rows(0..950, "a");
    let cut = &text[..text.len() - 4];
    assert_eq!(reason(&world, cut, true), Some(HoldReason::Cut { deletes: 50 }));
    let held = world.import_or_hold(cut, true).held.unwrap();
    assert_eq!((held.rule.as_str(), held.samples[0].as_str()), ("cut", "c0000950"));
    assert!(held.zh.contains("可能被截断") && held.en.contains("may be cut off"), "{held:?}");
}

#[test]
fn rows_whose_columns_may_be_shifted_are_held_with_any_deletion() {
    let world = with(0..600);
    // A quote inside an unquoted value.
    let odd = "c0000000,a\"b,note 0,0\n";
    let of = |first: u64| rows(first..600, "a") + odd;
    let expected = HoldReason::Suspicious { suspicious: 1, deletes: 1 };
    assert_eq!(reason(&world, &of(2), true), Some(expected));
    assert_eq!(rule(&world, &of(1), true), None, "nothing is deleted");
}

#[test]
fn missing_columns_that_records_fill_are_held_and_named() {
    let world = World::new();
    // `amount` is filled in one record only, `note` in none.
    world.import("code,name,note,amount\nc1,a,,\nc2,a,,7\nc3,a,,\n", true);
    let short = "code,name\nc1,a\nc2,a\nc3,a\n";
    let Some(HoldReason::BlanksColumns { fields }) = reason(&world, short, true) else {
        panic!("it has to be held");
    };
    let named: Vec<_> =
        fields.iter().map(|one| (one.field.as_str(), one.title_zh.as_str(), one.records)).collect();
    assert_eq!(named, [("amount", "栏amount", 1)]);
    // An upsert keeps them.
    assert_eq!(rule(&world, short, false), None);
    assert_eq!(world.content()["c2"], ["a", "", "7"]);
    // A column that is there and empty is somebody's intention.
    assert_eq!(rule(&world, "code,name,amount\nc1,a,\nc2,a,\nc3,a,\n", true), None);
    // Now nothing fills it.
    assert_eq!(rule(&world, short, true), None);
}

#[test]
fn a_column_that_changes_in_most_records_is_held() {
    let changed = |count: u64, stored: u64| {
        let changed = (0..count).map(|number| row(number, "b"));
        csv(changed.chain((count..stored).map(|number| row(number, "a"))))
    };
    for (stored, count, held) in [
        (20, 10, false),
        (20, 11, true),
        (10, 9, false),
        (10, 10, true),
        (600, 301, true),
        (600, 300, false),
    ] {
        let world = with(0..stored);
        let reason = reason(&world, &changed(count, stored), true);
        let named = reason.map(|reason| match reason {
            HoldReason::ChangesColumn { fields, compared } => (
                fields.into_iter().map(|one| (one.field, one.records)).collect::<Vec<_>>(),
                compared,
            ),
            other => panic!("{other:?}"),
        });
        let expected = (vec![("name".to_owned(), count)], stored);
        assert_eq!(named, held.then_some(expected), "{count} of {stored}");
    }
}

#[test]
fn a_column_that_is_filled_for_the_first_time_is_not_held() {
    let world = World::new();
    world.import(&csv((0..100).map(|number| format!("c{number:07},a,,"))), true);
    assert_eq!(rule(&world, &rows(0..100, "a"), true), None);
    assert_eq!(world.content(), content_of(0..100, "a"));
}

#[test]
fn shifted_columns_are_held_with_all_the_columns() {
    let world = with(0..50);
    let shifted = csv((0..50).map(|number| format!("c{number:07},note {number},a,{number}")));
    let Some(HoldReason::ChangesColumn { fields, .. }) = reason(&world, &shifted, true) else {
        panic!("it has to be held");
    };
    assert_eq!(fields.iter().map(|one| one.field.as_str()).collect::<Vec<_>>(), ["name", "note"]);
}

/// A code with these first 17 characters.
fn code(number: u64, right: bool) -> String {
    // A code that ends in zeros looks as if a spreadsheet had rounded it.
    let first = format!("914101{number:08}123");
    let check = check_character(first.as_bytes());
    let wrong = if check == '0' { '1' } else { '0' };
    format!("{first}{}", if right { check } else { wrong })
}

/// As [`World`], with credit codes as keys.
fn with_codes() -> World {
    let world = World::new();
    let mut raw = raw_schema(2);
    raw.fields[0].kind = FieldType::Uscc;
    world.apply_schema(raw);
    world
}

/// Rows with so many sound keys and so many with a wrong check character, from
/// `first` on.
fn codes(first: u64, sound: u64, wrong: u64) -> String {
    let sound_rows = (first..first + sound).map(|number| code(number, true));
    let wrong_rows = (first + sound..first + sound + wrong).map(|number| code(number, false));
    csv(sound_rows.chain(wrong_rows).map(|code| format!("{code},a,,")))
}

#[test]
fn new_keys_that_mostly_fail_their_check_are_held_whatever_the_delivery() {
    for stored in [0, 50] {
        for full in [false, true] {
            for (sound, wrong, held) in [
                (0, 2, false),
                (0, 3, true),
                (3, 3, false),
                (2, 3, true),
                (100, 100, false),
                (99, 100, true),
            ] {
                let world = with_codes();
                let known = codes(1000, stored, 0);
                world.import(&known, false);
                // All that is stored comes again.
                let again = known.split_once('\n').unwrap().1;
                let reason = reason(&world, &(codes(0, sound, wrong) + again), full);
                let expected =
                    HoldReason::DoubtfulKeys { doubtful: wrong, inserted: sound + wrong };
                assert_eq!(reason, held.then_some(expected), "{stored} {full} {sound} {wrong}");
            }
        }
    }
}

#[test]
fn upserts_wait_beside_each_other_up_to_a_limit() {
    let world = with_codes();
    let wrong = codes(0, 0, 3);
    for number in 1..=50 {
        world.import_or_hold(&wrong, false).held.unwrap();
        assert_eq!(world.deliveries.list().unwrap().len(), number);
    }
    let request = world.request(&world.file(&wrong), false);
    let error = import_or_hold(&world.importer, &world.deliveries, &request, &|_| {}).unwrap_err();
    assert!(error.to_string().contains("creditsync delivery list"), "{error}");
    // A full file that waits, or goes in, says nothing about them.
    world.import_or_hold(&codes(9000, 5, 0), true);
    assert_eq!(world.deliveries.list().unwrap().len(), 50);
}

#[test]
fn new_sound_keys_are_a_normal_month() {
    let world = with_codes();
    world.import(&codes(0, 5, 0), false);
    assert_eq!(rule(&world, &codes(100, 500, 0), false), None);
    // Odd ones that are stored already are no news.
    world.import_anyway(&codes(1000, 0, 20), false);
    assert_eq!(rule(&world, &codes(1000, 0, 20), false), None);
}

#[test]
fn codes_that_repeat_do_not_hide_a_doubtful_first_load() {
    let world = with_codes();
    let sound = format!("{},a,,\n", code(1, true)).repeat(3);
    assert_eq!(rule(&world, &(codes(100, 0, 6) + &sound), false), Some("doubtful-keys"));
}

#[test]
fn rows_that_came_through_a_wrong_encoding_wait() {
    let world = World::new();
    let rows = |garbled: u64, sound: u64| -> String {
        let row = |number: u64| {
            // 有限公司 and 企业, as they come back.
            let name = ["鏈夐檺鍏\u{e100}徃", "ÆóÒµ", "锟斤拷", "????", "甲市\u{fffd}司"]
                [number as usize % 5];
            format!("c{number:07},{},,", if number < garbled { name } else { "郑州有限公司" })
        };
        csv((0..garbled + sound).map(row))
    };
    assert_eq!(rule(&world, &rows(3, 3), false), None);
    assert_eq!(rule(&world, &rows(2, 0), false), None);
    assert_eq!(rule(&world, &rows(4, 3), false), Some("garbled"));
    assert_eq!(rule(&world, &rows(5, 0), true), Some("garbled"));
    // Characters that an office made for a place are no such sign.
    let private = csv((0..9).map(|number| format!("p{number:07},\u{e815}河镇,,")));
    assert_eq!(rule(&world, &private, false), None);
}

#[test]
fn all_rules_that_apply_are_said_with_samples_and_the_worst_first() {
    let world = with(0..100);
    let short = "code,name\n".to_owned()
        + &(50..100).map(|number| format!("c{number:07},b\n")).collect::<String>()
        + ",no code\n";
    let report = world.import_or_hold(&short, true);
    let held = report.held.clone().unwrap();
    assert_eq!((held.rule.as_str(), held.samples.len()), ("deletes", 5));
    assert_eq!(held.samples[0], "c0000000");
    assert_eq!(held.detail, serde_json::json!({ "deletes": 50, "stored": 100 }));
    assert!(held.zh.contains("100 条记录中的 50 条") && held.en.contains("50 of 100"), "{held:?}");
    let also: Vec<&str> = held.also.iter().map(|one| one.rule.as_str()).collect();
    assert_eq!(also, ["unreadable", "blanks-columns", "changes-column"]);
    let kept = world.deliveries.get(&held.id).unwrap().unwrap();
    assert_eq!(Some(Box::new(kept.held)), report.held, "what is kept agrees with the report");
}

#[test]
fn samples_never_show_a_personal_value() {
    let world = World::new();
    let mut raw = raw_schema(2);
    raw.fields[0].personal = true;
    world.apply_schema(raw);
    world.import(&rows(0..10, "a"), true);
    let held = world.import_or_hold(&rows(8..10, "a"), true).held.unwrap();
    assert_eq!(held.samples[0], "c0******");
    let request =
        world.approval(&world.deliveries.get(&held.id).unwrap().unwrap(), "rejects/1.csv");
    let preview = world.importer.preview(&request, 0, &|_| {}).unwrap();
    let Hold { samples, .. } = &preview.holds[0];
    assert_eq!(samples[0], "c0******");
}

#[test]
fn holding_and_approving_is_importing_without_rules() {
    let mut random = Random::new();
    for _ in 0..12 {
        let (ruled, free) = (World::new(), World::new());
        let count = 20 + random.below(200);
        for world in [&ruled, &free] {
            world.import(&rows(0..count, "a"), true);
        }
        for _ in 0..3 {
            let (kept, changed) = (random.below(101), random.below(101));
            let mut lines = Vec::new();
            for number in 0..count {
                if random.below(100) < kept {
                    let name = if random.below(100) < changed { "b" } else { "a" };
                    lines.push(row(number, name));
                }
            }
            let text = csv(lines);
            let full = random.below(3) > 0;
            let mut report = ruled.import_or_hold(&text, full);
            if let Some(note) = report.held {
                let held = ruled.deliveries.get(&note.id).unwrap().unwrap();
                let request = ruled.approval(&held, "rejects/approved.csv");
                report =
                    import_or_hold(&ruled.importer, &ruled.deliveries, &request, &|_| {}).unwrap();
            }
            let expected = free.import_anyway(&text, full);
            assert_eq!(counts(&report), counts(&expected));
            assert_eq!((ruled.root(), ruled.seq()), (free.root(), free.seq()));
        }
    }
}

#[test]
fn a_preview_says_what_approving_would_undo_and_changes_nothing() {
    let world = with(0..600);
    let held = world.import_or_hold(&rows(300..600, "a"), true).held.unwrap();
    let held = world.deliveries.get(&held.id).unwrap().unwrap();
    // A record that would go, one that would change back, and one of which the
    // file says the same.
    world.import_or_hold(&csv([row(7, "b"), row(400, "b")]), false);
    let (root, seq) = (world.root(), world.seq());
    let mut request = world.approval(&held, "rejects/preview.csv");
    request.approved = None;
    let preview = world.importer.preview(&request, held.would.seq, &|_| {}).unwrap();
    assert_eq!((world.root(), world.seq()), (root, seq));
    assert_eq!((preview.would.deleted, preview.would.updated, preview.would.seq), (300, 1, seq));
    let undoes = preview.undoes.unwrap();
    assert_eq!((undoes.records, undoes.samples), (2, vec!["c0000007".into(), "c0000400".into()]));

    // What was seen is what is approved.
    let mut request = world.approval(&held, "rejects/approved.csv");
    request.approved.as_mut().unwrap().seen_seq = Some(seq - 1);
    let import = |request: &ImportRequest| {
        import_or_hold(&world.importer, &world.deliveries, request, &|_| {})
    };
    assert!(matches!(import(&request), Err(ImportError::Superseded)));
    request.approved.as_mut().unwrap().seen_seq = Some(seq);
    import(&request).unwrap();
    assert_eq!(world.content(), content_of(300..600, "a"));
}
