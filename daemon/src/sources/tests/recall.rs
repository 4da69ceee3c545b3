//! Full files of which only what is new is read come to the same as any other.

use std::sync::atomic::Ordering::Relaxed;

use super::*;

/// A citizen id that the standard's own example uses: free text with it is
/// warned of.
const CITIZEN_ID: &str = "11010519491231002X";

/// How many full files were not read as a whole.
fn recalled(world: &World) -> u64 {
    world.importer.recalled().load(Relaxed)
}

fn forget(world: &World) {
    let _ = fs::remove_file(world.path("recall/list.rows"));
}

/// What an import comes to, but for its time.
fn outcome(world: &World, text: &str) -> (String, String) {
    match world.try_import(text, true) {
        Ok(report) => {
            assert!(report.adds_up(), "{report:?}");
            let rejects = report.rejects_file.as_ref();
            let rejects = rejects.map(|path| fs::read_to_string(path).unwrap());
            let report = ImportReport { seconds: 0.0, rejects_file: None, ..report };
            (format!("{report:?}"), rejects.unwrap_or_default())
        }
        Err(error) => (error.to_string(), String::new()),
    }
}

#[test]
fn only_what_is_new_is_read() {
    let world = World::new();
    let mut lines: Vec<String> = (0..500).map(|number| row(number, "a")).collect();
    world.import(&csv(lines.clone()), true);
    assert_eq!(recalled(&world), 0);

    Random::new().shuffle(&mut lines);
    let again = world.import(&csv(lines.clone()), true);
    assert_eq!(counts(&again), Counts { unchanged: 500, ..Counts::default() });
    assert_eq!((again.rows, recalled(&world)), (500, 1));

    let gone = lines.pop().unwrap();
    lines[7] = lines[7].replace(",a,", ",b,");
    lines.push(row(900, "new"));
    let changed = world.import(&csv(lines.clone()), true);
    let expected = Counts {
        inserted: 1,
        updated: 1,
        deleted: 1,
        unchanged: 498,
        change_sets: 1,
        ..Counts::default()
    };
    assert_eq!((counts(&changed), recalled(&world)), (expected, 2));
    assert_eq!(world.content().len(), 500);
    assert!(!world.content().contains_key(gone.split(',').next().unwrap()));
    // And so on from there.
    let again = world.import(&csv(lines), true);
    assert_eq!((again.unchanged, recalled(&world)), (500, 3));
}

#[test]
fn another_head_other_rules_or_a_damaged_file_are_not_recalled() {
    let world = World::new();
    let text = rows(0..500, "a");
    world.import(&text, true);
    world.import(&rows([3], "b"), false);
    assert_eq!(world.import(&text, true).updated, 1);
    assert_eq!(recalled(&world), 0);
    // Other columns.
    let swapped = csv((0..500).map(|number| format!("c{number:07},a,{number},note {number}")));
    let swapped = swapped.replace("note,amount", "amount,note");
    assert_eq!(world.import(&swapped, true).unchanged, 500);
    assert_eq!(recalled(&world), 0);
    assert_eq!(world.import(&swapped, true).unchanged, 500);
    assert_eq!(recalled(&world), 1);
    // Any byte; those of the keys are looked at when a row has changed.
    let path = world.path("recall/list.rows");
    let bytes = fs::read(&path).unwrap();
    for at in (0..bytes.len()).step_by(bytes.len() / 20).chain([bytes.len()]) {
        let damage = |bytes: &mut Vec<u8>| match bytes.get_mut(at) {
            Some(byte) => *byte ^= 4,
            None => bytes.truncate(at / 2),
        };
        for name in ["b", "a"] {
            let mut damaged = fs::read(&path).unwrap();
            damage(&mut damaged);
            fs::write(&path, &damaged).unwrap();
            let text = swapped.replacen("c0000003,a", &format!("c0000003,{name}"), 1);
            let report = world.import(&text, true);
            assert_eq!((report.updated, report.unchanged), (1, 499), "byte {at}");
            assert_eq!(recalled(&world), 1, "byte {at}");
        }
        let mut damaged = fs::read(&path).unwrap();
        damage(&mut damaged);
        fs::write(&path, &damaged).unwrap();
        assert_eq!(world.import(&swapped, true).unchanged, 500, "byte {at}");
        forget(&world);
        assert_eq!(world.import(&swapped, true).unchanged, 500);
        world.importer.recalled().store(1, Relaxed);
    }
    // More than the memory for sorting.
    let small = World::with_memory(4096);
    for _ in 0..3 {
        small.import(&text, true);
    }
    assert_eq!(recalled(&small), 0);
}

#[test]
fn what_has_changed_is_written_beside_the_rest() {
    let world = World::new();
    let (rows_path, since_path) = (world.path("recall/list.rows"), world.path("recall/list.since"));
    let mut lines: Vec<String> = (0..500).map(|number| row(number, "a")).collect();
    world.import(&csv(lines.clone()), true);
    let first = fs::read(&rows_path).unwrap();
    // Back and forth, with records that go and come again.
    for round in 0..8 {
        let name = if round % 2 == 0 { "b" } else { "a" };
        lines[7] = row(7, name);
        let removed = lines.swap_remove(20 + round);
        let report = world.import(&csv(lines.clone()), true);
        assert_eq!((report.updated, report.deleted, report.unchanged), (1, 1, 498));
        lines.push(removed);
        let report = world.import(&csv(lines.clone()), true);
        assert_eq!((report.inserted, report.deleted, report.unchanged), (1, 0, 499));
        assert_eq!(world.content().len(), 500);
        assert_eq!(recalled(&world), 2 * round as u64 + 2);
        assert_eq!(fs::read(&rows_path).unwrap(), first);
    }
    // What is not known, or of another file, leads to reading it as a whole.
    let since = fs::read(&since_path).unwrap();
    fs::remove_file(&since_path).unwrap();
    assert_eq!(world.import(&csv(lines.clone()), true).unchanged, 500);
    assert_eq!(recalled(&world), 16);
    fs::write(&since_path, since).unwrap();
    assert_eq!(world.import(&csv(lines.clone()), true).unchanged, 500);
    assert_eq!(recalled(&world), 17);
    // Many changes are written anew with all the rest.
    fs::remove_file(&since_path).unwrap();
    (0..100).for_each(|at| lines[at] = lines[at].replace(",a,", ",c,"));
    assert_eq!(world.import(&csv(lines.clone()), true).updated, 100);
    assert_eq!((recalled(&world), since_path.exists()), (18, false));
    assert_eq!(world.import(&csv(lines), true).unchanged, 500);
    assert_eq!(recalled(&world), 19);
}

#[test]
fn a_key_with_several_rows_is_not_taken_for_one() {
    let plain = || (0..500).map(|number| row(number, "a"));
    // The second row is new, the first one is recalled.
    let world = World::new();
    world.import(&csv(plain()), true);
    let twice = world.import(&csv(plain().chain([row(3, "twice")])), true);
    let expected = Counts {
        updated: 1,
        unchanged: 499,
        duplicates: 1,
        warnings: 1,
        change_sets: 1,
        ..Counts::default()
    };
    assert_eq!((counts(&twice), recalled(&world)), (expected, 0));
    // The first row, which was rejected, does not come again; the second does.
    let world = World::new();
    let rejected = "c0000003,,note,1".to_owned();
    world.import(&csv([rejected].into_iter().chain(plain())), true);
    let without = world.import(&csv(plain()), true);
    assert_eq!(counts(&without), Counts { unchanged: 500, ..Counts::default() });
    assert_eq!(world.content(), content_of(0..500, "a"));
}

#[test]
fn rows_of_another_encoding_are_judged_beside_all_others() {
    let world = World::new();
    let gb = |text: &str| encoding_rs::GB18030.encode(text).0.into_owned();
    let name = "郑州市商贸有限公司";
    let first = gb(&rows(0..500, name));
    let mut second = gb(&rows(0..499, name));
    second.extend((row(499, "登封市旅游局") + "\n").as_bytes());
    let import = |bytes: &[u8]| {
        let path = world.path("files/mixed.csv");
        fs::write(&path, bytes).unwrap();
        world.importer.import(&world.request(&path, true), &|_| {}).unwrap()
    };
    import(&first);
    assert_eq!(import(&first).unchanged, 500);
    assert_eq!(recalled(&world), 1);
    let report = import(&second);
    assert_eq!((report.unchanged, report.updated, report.warnings), (499, 1, 1), "{report:?}");
    assert_eq!(recalled(&world), 1);
}

#[test]
fn many_new_rows_are_read_as_a_whole() {
    let world = World::new();
    world.import(&rows(0..3000, "a"), true);
    let report = world.import(&rows(0..4500, "a"), true);
    assert_eq!((report.inserted, report.unchanged, recalled(&world)), (1500, 3000, 0));
    let report = world.import(&rows(0..4500, "a"), true);
    assert_eq!((report.unchanged, recalled(&world)), (4500, 1));
}

#[test]
fn both_ways_come_to_the_same() {
    let mut random = Random::new();
    let (quick, whole) = (World::new(), World::new());
    let mut lines: Vec<String> = (0..400).map(|number| row(number, "a")).collect();
    let mut next = 400;
    for round in 0..60 {
        for _ in 0..random.below(4) {
            let at = random.below(lines.len() as u64) as usize;
            let key = lines[at].split(',').next().unwrap().to_owned();
            match random.below(9) {
                0 | 1 => lines[at] = format!("{key},n{round},note,{round}"),
                2 => drop(lines.swap_remove(at)),
                3 => {
                    next += 1;
                    lines.push(row(next, "new"));
                }
                // Told of each time it comes.
                4 => lines[at] = format!("{key},a,see {CITIZEN_ID},1"),
                // Rejected, with its key and without.
                5 => lines[at] = format!("{key},,note,1"),
                6 => lines.push("too,few".into()),
                // The same key twice, and a whole row twice.
                7 => lines.push(format!("{key},twice,note,1")),
                _ => lines.push(lines[at].clone()),
            }
        }
        // What makes a file odd is mended now and then.
        if random.below(3) == 0 {
            let mut keys = std::collections::HashSet::new();
            lines.retain(|line| {
                line.matches(',').count() == 3
                    && keys.insert(line.split(',').next().unwrap().to_owned())
            });
        }
        random.shuffle(&mut lines);
        let text = csv(lines.clone());
        forget(&whole);
        let expected = outcome(&whole, &text);
        assert_eq!(outcome(&quick, &text), expected, "round {round}");
        assert_eq!(quick.content(), whole.content(), "round {round}");
    }
    println!("{} files were recalled", recalled(&quick));
    assert!(recalled(&quick) > 15);
    assert_eq!(recalled(&whole), 0);
}
