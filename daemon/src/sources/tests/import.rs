//! What an import makes of the stored records, and what it counts.

use super::*;
use crate::ingest::{
    report::Details,
    spool::SpoolError,
    stamp::{rejects_path, stamp},
};

#[test]
fn every_row_is_counted_once() {
    let world = World::new();
    let first = world.import(&rows(1..=5, "a"), false);
    assert_eq!(counts(&first), Counts { inserted: 5, change_sets: 1, ..Counts::default() });
    let text = csv([
        row(1, "a"),  // as stored
        row(2, "b"),  // another name
        row(9, "a"),  // new
        row(10, "a"), // new, twice
        row(10, "c"),
        "c0000003,,note,3".into(),     // no name
        "c0000004,a,note,many".into(), // no number
        "too,few".into(),
    ]);
    let report = world.import(&text, false);
    assert_eq!(
        counts(&report),
        Counts {
            inserted: 2,
            updated: 1,
            unchanged: 1,
            rejected: 3,
            duplicates: 1,
            warnings: 1,
            change_sets: 1,
            ..Counts::default()
        }
    );
    assert_eq!(report.rows, 8);
    let mut expected = content_of(1..=5, "a");
    expected.extend(content_of([2], "b"));
    expected.extend(content_of([9], "a"));
    expected.extend(content_of([10], "c"));
    assert_eq!(world.content(), expected);
    let rejects = fs::read_to_string(report.rejects_file.unwrap()).unwrap();
    let lines: Vec<&str> = rejects.lines().collect();
    for (line, begins, ends) in [
        (0, "\u{feff}问题/problem,怎么办/what to do,", ",code,name,note,amount"),
        (1, "第 7 行：“栏name”必填项为空", ",c0000003,,note,3"),
        (2, "第 8 行：“栏amount”不是整数", ",c0000004,a,note,many"),
        (
            3,
            "第 9 行：表头有 4 列，本行只有 2 列",
            ",too,few,,,←改好后删除本格/delete this cell when mended",
        ),
    ] {
        let text = lines[line].trim_start_matches('"');
        assert!(text.starts_with(begins) && text.ends_with(ends), "{line} in {rejects}");
    }
    assert_eq!(lines.len(), 4);
    let told = |details: &[Details]| -> Vec<String> {
        details
            .iter()
            .map(|one| {
                let field = one.field.as_deref().unwrap_or_default();
                format!("{} {field} {} {:?} {:?}", one.rule, one.count, one.places, one.winners)
            })
            .collect()
    };
    assert_eq!(
        told(&report.reject_details),
        ["required name 1 [\"7\"] []", "integer amount 1 [\"8\"] []", "field-count  1 [\"9\"] []"]
    );
    assert_eq!(told(&report.warning_details), ["duplicate-differing  1 [\"5\"] [\"6\"]"]);
}

#[test]
fn details_count_what_the_report_counts() {
    let world = World::new();
    let citizen = "11010519491231002X";
    let text = csv([
        format!("c0000001,a,{citizen},1"),
        format!("c0000002,a,{citizen},2"),
        // Its own warning is not told before it is mended.
        format!("c0000003,a,{citizen},many"),
        "c0000004,,,many".into(),
    ]);
    let report = world.import(&text, false);
    assert_eq!((report.warnings, report.rejected), (2, 2));
    let told = |details: &[Details]| -> Vec<(String, u64, Vec<String>)> {
        details.iter().map(|one| (one.rule.clone(), one.count, one.places.clone())).collect()
    };
    let line = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
    assert_eq!(told(&report.warning_details), [("citizen-id".into(), 2, line(&["2", "3"]))]);
    assert_eq!(
        told(&report.reject_details),
        [("integer".into(), 2, line(&["4", "5"])), ("required".into(), 1, line(&["5"]))]
    );
    let text = serde_json::to_string(&report).unwrap();
    assert!(!text.contains(citizen), "masked: {text}");
}

#[test]
fn the_same_file_again_makes_no_change_set() {
    let world = World::with_memory(4096);
    let mut lines: Vec<String> = (0..500).map(|number| row(number, "a")).collect();
    world.import(&csv(lines.clone()), true);
    let (seq, content) = (world.seq(), world.content());
    Random::new().shuffle(&mut lines);
    for full in [false, true] {
        let again = world.import(&csv(lines.clone()), full);
        assert_eq!(counts(&again), Counts { unchanged: 500, ..Counts::default() });
        assert_eq!(again.rows, 500);
    }
    assert_eq!((world.seq(), world.content()), (seq, content));
}

#[test]
fn what_a_file_has_no_column_for_is_kept_by_an_upsert_and_emptied_by_a_full_file() {
    let world = World::new();
    world.import(&rows(1..=3, "a"), false);
    let short = "name,code\nb,c0000001\na,c0000002\n";
    let report = world.import(short, false);
    let expected = Counts { updated: 1, unchanged: 1, change_sets: 1, ..Counts::default() };
    assert_eq!(counts(&report), expected);
    let mut content = content_of(1..=3, "a");
    content.extend(content_of([1], "b"));
    assert_eq!(world.content(), content);

    let report = world.import_anyway(short, true);
    let expected = Counts { updated: 2, deleted: 1, change_sets: 1, ..Counts::default() };
    assert_eq!(counts(&report), expected);
    let emptied = |name: &str| vec![name.into(), String::new(), String::new()];
    assert_eq!(
        world.content(),
        Content::from([("c0000001".into(), emptied("b")), ("c0000002".into(), emptied("a"))])
    );
}

#[test]
fn a_row_that_only_kept_values_make_too_long_is_rejected_alone() {
    let world = World::new();
    let long = "长".repeat(20_000);
    world.import(&csv([format!("c1,a,{long},"), "c2,a,,".into()]), false);
    let report = world.import(&format!("code,name\nc1,{long}\nc2,b\n"), false);
    let expected = Counts { rejected: 1, updated: 1, change_sets: 1, ..Counts::default() };
    assert_eq!(counts(&report), expected);
    let rejects = fs::read_to_string(report.rejects_file.unwrap()).unwrap();
    // Its text is not at hand any more.
    let line = rejects.lines().nth(1).unwrap();
    assert!(line.starts_with("第 2 行：整行内容超过") && line.ends_with(",,"), "{rejects}");
    assert_eq!(report.reject_details[0].rule, "record-too-long");
    assert_eq!(world.content()["c1"][0], "a");
}

#[test]
fn the_last_row_of_a_key_counts() {
    let world = World::new();
    let text = csv([row(1, "a"), row(2, "a"), row(1, "a"), row(2, "b"), row(2, "a"), row(2, "c")]);
    let report = world.import(&text, true);
    let expected =
        Counts { inserted: 2, duplicates: 4, warnings: 1, change_sets: 1, ..Counts::default() };
    assert_eq!(counts(&report), expected);
    let mut content = content_of([1], "a");
    content.extend(content_of([2], "c"));
    assert_eq!(world.content(), content);
}

#[test]
fn a_full_file_does_not_delete_what_it_has_a_rejected_row_for() {
    let world = World::new();
    world.import(&rows(1..=4, "a"), true);
    let report = world.import(&csv([row(1, "a"), "c0000002,a,,many".into(), row(4, "a")]), true);
    let expected =
        Counts { unchanged: 2, rejected: 1, deleted: 1, change_sets: 1, ..Counts::default() };
    assert_eq!(counts(&report), expected);
    assert_eq!(world.content(), content_of([1, 2, 4], "a"));
}

#[test]
fn approval_applies_exactly_the_file() {
    let world = World::new();
    world.import(&rows(0..300, "a"), true);
    let mut request = world.request(&world.file(&(rows(250..310, "b") + "one,two\n")), true);
    let held = world.importer.import(&request, &|_| {});
    assert!(matches!(held, Err(ImportError::Held(_))), "{held:?}");
    request.approved = Some(approved("list-1"));
    let report = world.importer.import(&request, &|_| {}).unwrap();
    assert_eq!(
        counts(&report),
        Counts {
            inserted: 10,
            updated: 50,
            deleted: 250,
            rejected: 1,
            change_sets: 1,
            ..Counts::default()
        }
    );
    assert_eq!(world.content(), content_of(250..310, "b"));
}

#[test]
fn large_deliveries_are_cut_and_only_a_first_load_drops_its_bodies() {
    let world = World::with_memory(256 * 1024);
    let report = world.import(&rows(0..25_000, "a"), true);
    let expected = Counts { inserted: 25_000, change_sets: 3, ..Counts::default() };
    assert_eq!(counts(&report), expected);
    let partition = world.partition();
    assert_eq!(world.store.change_sets(&partition, 1, 9, usize::MAX).unwrap(), None);
    assert!(world.store.header_at(&partition, 2).unwrap().is_some());
    assert!(!world.store.is_loading(&partition));

    // Updates and inserts beside each other, committed while the rest is
    // still being compared.
    let text =
        csv((12_500..37_500).map(|number| row(number, if number % 2 == 0 { "a" } else { "b" })));
    let report = world.import(&text, false);
    let expected = Counts {
        updated: 6250,
        unchanged: 6250,
        inserted: 12_500,
        change_sets: 2,
        ..Counts::default()
    };
    assert_eq!(counts(&report), expected);
    let mut content = content_of(0..37_500, "a");
    content.extend(content_of((12_501..37_500).step_by(2), "b"));
    assert_eq!(world.content(), content);
    let sets = world.store.change_sets(&partition, 4, 9, usize::MAX).unwrap().unwrap();
    let changes: Vec<u32> = sets.iter().map(|set| set.header.header().change_count).collect();
    assert_eq!(changes, [10_000, 8_750]);

    // A full file, in another order, that changes all of it.
    let mut lines: Vec<String> = (5_000..37_500).map(|number| row(number, "c")).collect();
    Random::new().shuffle(&mut lines);
    let report = world.import_anyway(&csv(lines), true);
    let expected = Counts { updated: 32_500, deleted: 5_000, change_sets: 4, ..Counts::default() };
    assert_eq!(counts(&report), expected);
    assert_eq!(world.content(), content_of(5_000..37_500, "c"));
    assert!(world.store.change_sets(&partition, 6, 9, usize::MAX).unwrap().is_some());
}

#[test]
fn a_small_first_load_keeps_its_body() {
    let world = World::new();
    world.import(&rows(0..10_000, "a"), true);
    let sets = world.store.change_sets(&world.partition(), 1, 9, usize::MAX).unwrap();
    assert_eq!(sets.map(|sets| sets.len()), Some(1));
}

#[test]
fn a_newer_schema_alone_changes_no_record() {
    let world = World::new();
    world.import(&rows(1..=3, "a"), true);
    let mut raw = raw_schema(2);
    // A new field in the middle, another order, and a number that became text.
    raw.fields.insert(1, field("region", FieldType::Text, false));
    raw.fields.swap(2, 3);
    raw.fields[4].kind = FieldType::Text;
    world.apply_schema(raw);
    let (seq, content) = (world.seq(), world.content());
    for full in [false, true] {
        let report = world.import(&rows(1..=3, "a"), full);
        assert_eq!(counts(&report), Counts { unchanged: 3, ..Counts::default() });
    }
    assert_eq!((world.seq(), world.content()), (seq, content));

    // A change writes the record under the new version; values of missing
    // columns move with it.
    let report = world.import("code,name,region\nc0000002,a,east\nc0000003,a,\n", false);
    let expected = Counts { updated: 1, unchanged: 1, change_sets: 1, ..Counts::default() };
    assert_eq!(counts(&report), expected);
    assert_eq!(world.content()["c0000002"], ["east", "note 2", "a", "2"]);
    assert_eq!(world.content()["c0000003"], ["a", "note 3", "3"]);
}

#[test]
fn a_stop_leaves_whole_change_sets_and_the_next_delivery_does_the_rest() {
    let world = World::new();
    let text = rows(0..45_000, "a");
    let request = world.request(&world.file(&text), true);
    let stopped = world.importer.import(&request, &|progress| {
        if progress.compared >= 30_000 {
            world.stop.cancel();
        }
    });
    assert!(matches!(stopped, Err(ImportError::Stopped)), "{stopped:?}");
    // The importer has waited for what was on its way.
    let stored = world.content().len() as u64;
    assert_eq!(stored, 30_000);
    assert_eq!(world.content(), content_of(0..stored, "a"));
    assert!(!world.store.is_loading(&world.partition()));

    let again = world.another_importer();
    let report = again.import(&request, &|_| {}).unwrap();
    let expected =
        Counts { inserted: 15_000, unchanged: 30_000, change_sets: 2, ..Counts::default() };
    assert_eq!(counts(&report), expected);
    assert_eq!(world.content(), content_of(0..45_000, "a"));
}

#[test]
fn a_stop_while_a_file_is_read_is_no_fault_of_the_file() {
    let world = World::new();
    let path = world.file(&"x".repeat(100_000));
    let file = DeliveredFile::open(&path, Links::Refuse, Reading::default()).unwrap();
    let file = file.read_for(&world.importer);
    let mut request = world.request(&path, true);
    request.source = Arc::new(file.clone());
    let wrong = world.importer.import(&request, &|_| {});
    assert!(matches!(wrong, Err(ImportError::Source(_))), "{wrong:?}");
    assert!(file.content().is_ok());
    world.stop.cancel();
    let stopped = world.importer.import(&request, &|_| {});
    assert!(matches!(stopped, Err(ImportError::Stopped)), "{stopped:?}");
    assert!(file.content().is_err());
}

#[test]
fn a_stop_during_many_deletions_is_heard() {
    let world = World::new();
    world.import(&rows(0..30_000, "a"), true);
    let mut request = world.request(&world.file(&rows([29_999], "a")), true);
    request.approved = Some(approved("list-1"));
    let content = world.content();
    let stopped = world.importer.import(&request, &|progress| {
        if progress.rows == 1 {
            world.stop.cancel();
        }
    });
    assert!(matches!(stopped, Err(ImportError::Stopped)), "{stopped:?}");
    assert_eq!(world.content(), content);
}

#[test]
fn a_full_file_leads_to_exactly_its_content() {
    let mut random = Random::new();
    for _ in 0..40 {
        let world = World::with_memory(1 << (8 + random.below(10)));
        let keys = 1 + random.below(700);
        let mut old = BTreeMap::new();
        let mut new = BTreeMap::new();
        let (share_old, share_new) = (random.below(101), random.below(101));
        for number in 0..keys {
            if random.below(100) < share_old {
                old.insert(number, random.below(3));
            }
            if random.below(100) < share_new {
                new.insert(number, random.below(3));
            }
        }
        let deliver = |rows: &BTreeMap<u64, u64>, random: &mut Random| {
            let mut lines: Vec<String> =
                rows.iter().map(|(number, name)| row(*number, &name.to_string())).collect();
            random.shuffle(&mut lines);
            // Some rows twice, an outdated one first.
            let mut text = csv([]);
            let mut repeated = 0;
            for line in &lines {
                if random.below(20) == 0 {
                    let number = line.split(',').next().unwrap();
                    text.push_str(&format!("{number},outdated,,\n"));
                    repeated += 1;
                }
            }
            (text + &lines.join("\n"), repeated)
        };
        let (text, repeated) = deliver(&old, &mut random);
        let report = world.import(&text, true);
        let first = old.len() as u64;
        assert_eq!((report.inserted, report.duplicates), (first, repeated));

        let (text, repeated) = deliver(&new, &mut random);
        let mut request = world.request(&world.file(&text), true);
        request.approved = Some(approved("list-1"));
        let seq = world.seq();
        let report = world.importer.import(&request, &|_| {}).unwrap();
        let count = |matches: &dyn Fn(&u64) -> bool| {
            (0..keys).filter(|number| matches(number)).count() as u64
        };
        let expected = Counts {
            inserted: count(&|n| new.contains_key(n) && !old.contains_key(n)),
            updated: count(&|n| matches!((old.get(n), new.get(n)), (Some(a), Some(b)) if a != b)),
            unchanged: count(&|n| new.contains_key(n) && old.get(n) == new.get(n)),
            deleted: count(&|n| old.contains_key(n) && !new.contains_key(n)),
            duplicates: repeated,
            warnings: repeated,
            rejected: 0,
            change_sets: u64::from(old != new),
        };
        assert_eq!(counts(&report), expected);
        assert!(report.adds_up());
        assert_eq!(world.seq(), seq + u64::from(old != new));
        if let Some(head) = world.store.head(&world.partition())
            && old != new
        {
            let made = head.signed.header().change_count as u64;
            assert_eq!(made, report.inserted + report.updated + report.deleted);
        }
        let mut content = Content::new();
        for (number, name) in &new {
            content.extend(content_of([*number], &name.to_string()));
        }
        assert_eq!(world.content(), content);
    }
}

#[test]
fn without_a_place_for_temporary_files_it_says_so() {
    let world = World::with_memory(1024);
    fs::remove_dir(world.path("spool")).unwrap();
    let error = world.try_import(&rows(0..100, "a"), false).unwrap_err();
    assert!(matches!(&error, ImportError::Spool(SpoolError::Io { .. })), "{error:?}");
    assert!(error.to_string().contains("spool"), "{error}");
    assert_eq!(world.seq(), 0);
}

#[test]
fn a_row_of_a_rejects_file_that_was_cleared_is_skipped() {
    let world = World::new();
    let text = "问题/problem,怎么办/what to do,code,name,note,\n\
        第 2 行,改,c1,a,,\n第 3 行,改,,,,\n另有 9 行未列出,请重新交付,,,,\n";
    let report = world.import(text, false);
    assert_eq!((report.inserted, report.rejected, report.skipped), (1, 0, 2));
}

#[test]
fn in_a_file_of_one_column_a_remark_is_a_record() {
    let world = World::new();
    let mut raw = raw_schema(2);
    raw.fields.iter_mut().filter(|field| field.name == "name").for_each(|f| f.required = false);
    world.apply_schema(raw);
    let report = world.import("code\n注：甲\n合计\n", false);
    assert_eq!((report.inserted, report.skipped), (1, 1), "{report:?}");
    let report = world.import("code,name\n注：甲,\n合计,\n", false);
    assert_eq!((report.inserted, report.skipped), (0, 2), "{report:?}");
}

#[test]
fn a_row_with_data_is_no_total_and_no_remark() {
    let world = World::new();
    // Each is in no record, and is told of as what it is.
    for (row, skipped) in [
        ("合计,,,3", 1),
        ("合计,3户,,1", 1),
        (",合计,,", 1),
        ("填表人：张三,,,", 1),
        ("注：以上数据截至五月,,,", 1),
        ("合计,郑州公司,,3", 0),
        ("备注：执照遗失,公司三,说明,8", 0),
        ("共计,2019-01-01,,", 0),
    ] {
        let report = world.import(&format!("code,name,note,amount\nc1,a,,1\n{row}\n"), false);
        assert_eq!(report.skipped, skipped, "{row}: {report:?}");
        assert_eq!(report.rows, 2 - skipped, "{row}: {report:?}");
        // A word for a sum is nobody's key.
        let of_key = skipped == 0 && !row.starts_with("备注");
        assert_eq!(report.rejected, u64::from(of_key), "{row}: {report:?}");
    }
    // With a key it is a record, whatever its first value says.
    let report = world.import("name,code,note,amount\n共计,c7,,7\n备注：张三,c8,x,8\n", false);
    assert_eq!((report.inserted, report.skipped), (2, 0), "{report:?}");
}

#[test]
fn a_rejected_record_of_json_stays_one_cell() {
    let world = World::new();
    let nested = "{\"code\":\"c2\",\"name\":[1,2],\"note\":\"a,b\"}";
    let text = format!("[{{\"code\":\"c1\",\"name\":\"a\"}},\n{nested}]");
    let report = world.import(&text, false);
    assert_eq!((report.inserted, report.rejected), (1, 1));
    let rejects = fs::read_to_string(report.rejects_file.unwrap()).unwrap();
    let cell = format!("\"{}\"", nested.replace('"', "\"\""));
    let line = rejects.lines().nth(1).unwrap();
    assert!(line.contains(&format!(",{cell},")), "{line}");
    assert!(line.contains("第三列中的记录") && line.contains("the third column"), "{line}");
    // Not as if a person had made it.
    assert!(!line.contains("按分隔符"), "{line}");
}

#[test]
fn a_rejects_file_that_cannot_be_written_is_named() {
    let world = World::new();
    let mut request = world.request(&world.file(&csv(["c1,,,".into()])), false);
    request.rejects = world.path("nowhere/rejects.csv");
    let error = world.importer.import(&request, &|_| {}).unwrap_err();
    assert!(matches!(&error, ImportError::Report { .. }), "{error:?}");
    assert!(error.to_string().contains("nowhere/rejects.csv"), "{error}");
}

#[test]
fn an_unknown_dataset_is_named_with_those_there_are() {
    let world = World::new();
    for name in ["lists", "_federation"] {
        let mut request = world.request(&world.file(&rows([1], "a")), false);
        request.dataset = DatasetId::new(name).unwrap();
        let error = world.importer.import(&request, &|_| {}).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("the catalogue has: list"), "{error}");
    }
}

#[test]
fn a_rejects_file_takes_no_name_of_another_process() {
    let dir = tempfile::tempdir().unwrap();
    let name = || {
        let path = rejects_path(dir.path(), &dataset());
        path.file_name().unwrap().to_str().unwrap().to_owned()
    };
    let first = name();
    let process = format!("-{}-", std::process::id());
    assert!(first.contains(&process), "{first}");

    // In a container, an earlier process may have had the same id. Its files of
    // this second, and of the next ones, for the clock goes on.
    let (_, count) = first.trim_end_matches(".rejects.csv").rsplit_once('-').unwrap();
    let count: u64 = count.parse().unwrap();
    let now = time::OffsetDateTime::now_utc();
    for second in -1..30 {
        let stamp = stamp(now + time::Duration::seconds(second));
        for taken in count..count + 5 {
            let name = format!("list-{stamp}{process}{taken}.rejects.csv");
            fs::write(dir.path().join(name), "another's").unwrap();
        }
    }
    let second = name();
    assert!(!dir.path().join(&second).exists(), "{second}");
}
