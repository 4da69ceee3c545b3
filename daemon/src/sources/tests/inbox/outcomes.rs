//! What lies beside a file that was dealt with.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use super::*;
use crate::sources::FILE_BYTES_MAX;

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn each_outcome_has_its_folder_and_reports_for_people_and_programs() {
    let mut folders = Folders::new();
    folders.put("good.csv", &rows(0..2, "a"), 40);
    folders.put("some.csv", &(rows(2..4, "a") + "c9,,,\n"), 30);
    folders.put("none.csv", &csv(["c9,,,".to_owned()]), 20);
    folders.put("wrong.csv", "what,is\nthis,file\n", 10);
    folders.pass_after(0);
    for (name, outcome, zh, en) in [
        ("done/good.csv", "done", "已全部导入", "all of it was imported"),
        ("attention/some.csv", "attention", "有些行被拒绝", "some rows were rejected"),
        ("failed/none.csv", "failed", "所有行都被拒绝", "every row was rejected"),
        (
            "failed/wrong.csv",
            "failed",
            "没有任何一行含有该数据集的列名",
            "none of the first 2 lines",
        ),
    ] {
        let text = folders.text(name);
        let file = name.split_once('/').unwrap().1;
        for part in [zh, en, file, "(UTC"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        // Chinese first; Excel's and Notepad's users see it as it is.
        assert!(text.find(zh) < text.find(en) && text.starts_with('\u{feff}'), "{text}");
        let report = fs::read(folders.path(&format!("{name}.report.json"))).unwrap();
        let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
        assert_eq!((&report["outcome"], &report["file"]), (&outcome.into(), &file.into()));
        assert_eq!((&report["dataset"], &report["full"]), (&"list".into(), &false.into()));
    }
    assert_eq!(
        folders.report("attention/some.csv").outcome(),
        crate::ingest::report::Outcome::Attention
    );
    assert!(folders.path("failed/none.csv.rejects.csv").exists());
}

#[test]
fn a_file_that_is_larger_than_any_delivery_is_not_read() {
    let mut folders = Folders::new();
    folders.put("hole.csv", &rows(0..2, "a"), 30);
    let hole = File::options().write(true).open(folders.path("hole.csv")).unwrap();
    hole.set_len(FILE_BYTES_MAX + 1).unwrap();
    folders.touch("hole.csv", 30);
    folders.put("good.csv", &rows(2..4, "a"), 20);
    folders.pass_after(0);
    let text = folders.text("failed/hole.csv");
    for part in ["64 GiB", "上限", "in parts"] {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(folders.world.content(), content_of(2..4, "a"));
}

#[test]
fn rejected_rows_that_are_mended_go_in() {
    let mut folders = Folders::new();
    let text = csv([
        row(1, "a"),
        "c0000002,,note 2,2".into(),
        "c0000003,a,note 3,many".into(),
        "c0000004,\"a,note 4,4".into(),
    ]);
    folders.put("some.csv", &text, 10);
    folders.pass_after(0);
    let rejects = fs::read_to_string(folders.path("attention/some.csv.rejects.csv")).unwrap();

    // Dropped in as it is, nothing of it goes in.
    folders.put("again.csv", &rejects, 10);
    folders.pass_after(0);
    let report = folders.report("failed/again.csv");
    assert_eq!((report.rows, report.rejected), (3, 3));
    assert_eq!(folders.world.content(), content_of([1], "a"));

    // As a person mends it: cells, the quote that was never closed, the note.
    let mended = rejects
        .replace(",c0000002,,", ",c0000002,a,")
        .replace(",many", ",3")
        .replace("\"\"\"a\"", "a")
        .replace(",←改好后删除本格/delete this cell when mended", "");
    folders.put("mended.csv", &mended, 10);
    folders.pass_after(0);
    assert!(folders.path("done/mended.csv").exists(), "{:?} {mended}", folders.files());
    assert_eq!(folders.world.content(), content_of(1..=4, "a"));
}

#[test]
fn warnings_are_counted_and_told_with_their_places() {
    let mut folders = Folders::new();
    let mut lines: Vec<String> = (0..300).map(|number| row(number, "a")).collect();
    lines.extend((0..300).map(|number| row(number, "b")));
    folders.put("a.csv", &csv(lines), 10);
    folders.pass_after(0);
    let report = folders.report("done/a.csv");
    assert_eq!((report.warnings, report.duplicates), (300, 300));
    let [details] = &report.warning_details[..] else { panic!("{report:?}") };
    assert_eq!((details.rule.as_str(), details.count), ("duplicate-differing", 300));
    assert_eq!((details.places[0].as_str(), details.winners[0].as_str()), ("2", "302"));
    assert_eq!(report.rejects_file, None);
    let text = folders.text("done/a.csv");
    assert!(text.contains("警告 300 个，同一主键再次出现且内容不同"), "{text}");
    assert!(text.len() < 3000, "{text}");
}

#[test]
fn a_group_drops_files_and_reads_reports() {
    // One that this process may give things to, and that is not the default.
    let own = fs::metadata("/proc/self").unwrap().gid();
    let group = if fs::metadata("/proc/self").unwrap().uid() == 0 { own + 4242 } else { own };
    let mut folders = Folders::with(|inbox| inbox.access = Access { group: Some(group) });
    fs::create_dir(folders.path("五月")).unwrap();
    folders.put("五月/some.csv", &(rows(2..4, "a") + "c9,,,\n"), 10);
    let before = mode(&folders.path("五月/some.csv"));
    folders.pass_after(0);
    let inbox = folders.world.path("inbox");
    for (path, expected) in [
        (inbox.clone(), 0o2750),
        (inbox.join("list"), 0o3770),
        (inbox.join("list/full"), 0o3770),
        (inbox.join("list/attention"), 0o2750),
        (inbox.join("list/attention/五月"), 0o2750),
        (inbox.join("list/attention/五月/some.csv.report.txt"), 0o640),
        (inbox.join("list/attention/五月/some.csv.report.json"), 0o640),
        (inbox.join("list/attention/五月/some.csv.rejects.csv"), 0o640),
    ] {
        assert_eq!(mode(&path), expected, "{path:?} {:o}", mode(&path));
        assert_eq!(fs::metadata(&path).unwrap().gid(), group, "{path:?}");
    }
    assert_eq!(mode(&folders.path("attention/五月/some.csv")), before, "what was delivered");

    // Without a group it is for its owner only.
    let mut folders = Folders::new();
    folders.put("some.csv", &(rows(2..4, "a") + "c9,,,\n"), 10);
    folders.pass_after(0);
    for suffix in [".report.txt", ".report.json", ".rejects.csv"] {
        assert_eq!(mode(&folders.path(&format!("attention/some.csv{suffix}"))), 0o600);
    }
}

#[test]
fn a_dataset_s_encoding_is_the_settings_one() {
    let reading = Reading { encoding: "gbk".parse().unwrap(), ..Reading::default() };
    let mut folders = Folders::with(|inbox| drop(inbox.readings.insert(dataset(), reading)));
    // Valid UTF-8, too: only the setting says that these are two characters of GBK.
    let mut text = b"code,name,note,amount\nc0000001,".to_vec();
    text.extend_from_slice(&[0xc4, 0xb2, 0xc4, 0xb2]);
    text.extend_from_slice(b",note 1,1\n");
    assert!(std::str::from_utf8(&text).is_ok());
    fs::write(folders.path("a.csv"), text).unwrap();
    folders.touch("a.csv", 10);
    folders.pass_after(0);
    assert_eq!(folders.world.content(), content_of([1], "牟牟"));
}

#[test]
fn the_report_of_a_held_file_says_what_became_of_it() {
    let mut folders = Folders::new();
    folders.put("full/a.csv", &rows(0..600, "a"), 30);
    folders.pass_after(0);
    let hold = |folders: &mut Folders, name: &str, last: u64| {
        folders.put(&format!("full/五月/{name}.csv"), &rows(0..last, "a"), 10);
        folders.pass_after(0);
        folders.report(&format!("attention/五月/{name}.csv")).held.unwrap().id
    };
    fs::create_dir(folders.path("full/五月")).unwrap();
    let text = |folders: &Folders, name: &str| folders.text(&format!("attention/五月/{name}.csv"));
    let first = hold(&mut folders, "b", 10);
    let second = hold(&mut folders, "c", 20);
    folders.pass_after(1);
    let superseded = text(&folders, "b");
    assert!(
        superseded.starts_with("\u{feff}结果：") && superseded.contains(&second),
        "{superseded}"
    );
    assert!(text(&folders, "c").contains("等待人工批准") && !text(&folders, "c").contains("取代"));

    // Decided while nobody watched.
    let held = folders.world.deliveries.get(&second).unwrap().unwrap();
    let request = folders.world.approval(&held, "rejects/approved.csv");
    import_or_hold(&folders.world.importer, &folders.world.deliveries, &request, &|_| {}).unwrap();
    folders.watcher = Watcher::new(folders.world.inbox(), folders.world.stop.clone());
    folders.pass_after(1);
    let approved = text(&folders, "c");
    for part in
        ["由 tester 批准并导入，理由：a reason", "tester approved it", "删除 580", "等待人工批准"]
    {
        assert!(approved.contains(part), "{part}: {approved}");
    }
    let document = fs::read(folders.path("attention/五月/c.csv.report.json")).unwrap();
    let document: serde_json::Value = serde_json::from_slice(&document).unwrap();
    assert_eq!(document["decided"]["state"], "approved");

    let third = hold(&mut folders, "d", 1);
    folders.world.deliveries.discard(&third, Author::new("tester", None)).unwrap();
    folders.pass_after(1);
    assert!(text(&folders, "d").contains("由 tester 丢弃"), "{}", text(&folders, "d"));
    // Once.
    folders.pass_after(1);
    assert_eq!(text(&folders, "d").matches("由 tester 丢弃").count(), 1);
    // Another file by the same name keeps its report.
    let fourth = hold(&mut folders, "e", 2);
    for suffix in ["", ".report.txt", ".report.json"] {
        fs::remove_file(folders.path(&format!("attention/五月/e.csv{suffix}"))).unwrap();
    }
    let fifth = hold(&mut folders, "e", 3);
    assert_ne!(fourth, fifth);
    folders.pass_after(1);
    assert!(!text(&folders, "e").contains("取代"), "{}", text(&folders, "e"));
    assert!(folders.world.deliveries.get(&first).unwrap().is_none());
}
