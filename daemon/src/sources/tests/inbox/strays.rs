//! Files in places where nobody takes them, and folders within folders.

use super::*;

#[test]
fn folders_within_folders_are_read_and_keep_their_place() {
    let mut folders = Folders::new();
    for (folder, number) in [("五月/甲局", 1), ("2024-05", 2), ("full/2024", 3)] {
        fs::create_dir_all(folders.path(folder)).unwrap();
        folders.put(&format!("{folder}/a.csv"), &rows(number..number + 1, "a"), 30 - number);
    }
    // What was dealt with is not taken again, nor is what is hidden.
    for folder in ["done/old", "failed", "attention/x", ".hidden/x", "full/done"] {
        fs::create_dir_all(folders.path(folder)).unwrap();
        folders.put(&format!("{folder}/no.csv"), &rows(7..8, "no"), 10);
    }
    folders.pass_after(0);
    let files = folders.files();
    for name in ["done/五月/甲局/a.csv", "done/2024-05/a.csv", "done/2024/a.csv"] {
        assert!(files.contains(&name.to_owned()), "{name} in {files:?}");
        assert!(files.contains(&format!("{name}.report.json")), "{name} in {files:?}");
    }
    // The full file came last and is the whole register.
    assert_eq!(folders.world.content(), content_of([3], "a"));
    assert_eq!(files.iter().filter(|name| name.ends_with("no.csv")).count(), 5, "{files:?}");
}

#[test]
fn folders_whose_names_mean_something_elsewhere_are_told_of() {
    let mut folders = Folders::new();
    let misplaced =
        ["Full", "全量", "五月/full", "full/done", "Done", "五月/attention", "full/full"];
    for folder in misplaced {
        fs::create_dir_all(folders.path(folder)).unwrap();
        folders.put(&format!("{folder}/no.csv"), &rows(7..8, "no"), 10);
    }
    fs::create_dir_all(folders.path("fullness")).unwrap();
    folders.put("fullness/a.csv", &rows(1..2, "a"), 10);
    folders.pass_after(0);
    assert_eq!(folders.world.content(), content_of([1], "a"));
    for folder in misplaced {
        let (zh, en) = if folder.to_lowercase().ends_with("full") || folder == "全量" {
            ("数据集/full/", "DATASET/full/")
        } else {
            ("已处理的文件", "dealt with")
        };
        let text = folders.text(folder);
        assert!(text.contains(zh) && text.contains(en), "{folder}: {text}");
        assert!(folders.path(&format!("{folder}/no.csv")).exists(), "{folder}");
    }
}

#[test]
fn what_is_never_finished_is_told_of() {
    let mut folders = Folders::new();
    let wait = folders.world.inbox().incomplete.as_secs();
    folders.put("old.csv.part", &rows(0..1, "a"), wait + 1);
    folders.put("new.csv.TMP", &rows(0..1, "a"), 10);
    folders.put("~$old.tmp", "x", wait + 1);
    // A marker that came late, with a word in it.
    folders.put("gone.csv.done", "ok\n", wait + 1);
    folders.pass_after(0);
    assert!(folders.text("old.csv.part").contains("proper name"));
    assert!(folders.text("gone.csv.done").contains("delete the mark"));
    for name in ["new.csv.TMP.report.txt", "~$old.tmp.report.txt", "failed"] {
        assert!(!folders.path(name).exists(), "{name}");
    }
}

#[test]
fn folders_are_read_to_a_depth_and_the_rest_is_told_of() {
    let mut folders = Folders::new();
    let deep = "1/2/3/4/5/6/7/8";
    fs::create_dir_all(folders.path(&format!("{deep}/9"))).unwrap();
    folders.put(&format!("{deep}/a.csv"), &rows(0..1, "a"), 10);
    folders.put(&format!("{deep}/9/b.csv"), &rows(1..2, "b"), 10);
    folders.pass_after(0);
    assert_eq!(folders.world.content(), content_of(0..1, "a"));
    assert!(folders.path(&format!("{deep}/9/b.csv")).exists());
    assert!(folders.text(&format!("{deep}/9")).contains("层数"));
}

#[test]
fn what_lies_in_a_wrong_place_is_told_of_in_both_languages_as_long_as_it_does() {
    let mut folders = Folders::new();
    let inbox = folders.world.path("inbox");
    fs::write(inbox.join("a.csv"), rows(0..1, "a")).unwrap();
    fs::create_dir(inbox.join("enterprises")).unwrap();
    std::os::unix::fs::symlink(inbox.join("a.csv"), folders.path("link.csv")).unwrap();
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    let pipe = folders.path("full/pipe.csv");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let places = [
        (inbox.join("a.csv"), "放入数据集的文件夹：list", "folder of its dataset: list"),
        (
            inbox.join("enterprises"),
            "没有与该文件夹同名的数据集",
            "no dataset has this folder's name",
        ),
        (folders.path("link.csv"), "符号链接", "a symbolic link"),
        (pipe, "不是普通文件", "no regular file"),
    ];
    folders.pass_after(0);
    let report = |path: &Path| PathBuf::from(format!("{}.report.txt", path.display()));
    for (path, zh, en) in &places {
        let text = fs::read_to_string(report(path)).unwrap();
        assert!(text.contains(zh) && text.contains(en), "{path:?}: {text}");
        // Said once: whoever deletes the report is not told again.
        fs::remove_file(report(path)).unwrap();
    }
    folders.pass_after(1);
    for (path, ..) in &places {
        assert!(!report(path).exists(), "{path:?}");
    }
    // Another daemon says it again, and a report goes with its reason, by whichever
    // daemon it was written.
    let again = |folders: &mut Folders| {
        folders.watcher = Watcher::new(folders.world.inbox(), folders.world.stop.clone());
        folders.pass_after(1);
    };
    again(&mut folders);
    for (path, ..) in &places {
        assert!(report(path).exists(), "{path:?}");
    }
    fs::remove_file(&places[2].0).unwrap();
    folders.pass_after(1);
    assert!(!report(&places[2].0).exists());
    fs::remove_file(&places[0].0).unwrap();
    fs::write(inbox.join("own.report.txt"), "somebody's own").unwrap();
    again(&mut folders);
    assert!(!report(&places[0].0).exists());
    assert!(inbox.join("own.report.txt").exists());
    assert_eq!(folders.world.seq(), 0);
}

#[test]
fn reports_of_strays_are_bounded() {
    let mut folders = Folders::new();
    for number in 0..300 {
        let link = folders.path(&format!("{number}.csv"));
        std::os::unix::fs::symlink("/nonexistent", link).unwrap();
    }
    folders.pass_after(0);
    let texts = || {
        let entries = fs::read_dir(folders.path("")).unwrap().map(Result::unwrap);
        entries.filter(|entry| entry.file_name().to_string_lossy().ends_with(".report.txt")).count()
    };
    assert_eq!(texts(), 200);
}

#[test]
fn a_citizen_id_in_a_name_is_masked() {
    let mut folders = Folders::new();
    let id = "11010519491231002X";
    folders.put(&format!("{id}张三.csv"), &(rows(0..1, "a") + "c9,,,\n"), 10);
    folders.pass_after(0);
    let text = folders.text(&format!("attention/{id}张三.csv"));
    assert!(text.contains("1101**************张三.csv") && !text.contains(id), "{text}");
}

#[test]
fn a_name_cannot_forge_a_line_of_a_log_or_a_report() {
    let mut folders = Folders::new();
    let name = "a\n2026-01-01 ERROR forged\u{1b}[31m\u{202e}vsc.csv";
    folders.put(name, "what,is\nthis,file\n", 10);
    folders.put("b\r\nforged.csv", &rows(0..1, "a"), 10);
    folders.pass_after(0);
    let text = folders.text(&format!("failed/{name}"));
    assert!(
        text.contains("a⟨U+000A") && text.contains("⟨U+001B") && text.contains("⟨U+202E"),
        "{text}"
    );
    let forged = |text: &str| {
        text.lines().any(|line| line.starts_with("2026") || line.starts_with("forged"))
    };
    assert!(!forged(&text) && !text.contains('\u{1b}'), "{text}");
    assert!(!forged(&folders.text("done/b\r\nforged.csv")));
    // What the importer says of a file goes to the log.
    let opened = DeliveredFile::open(
        &folders.path(&format!("failed/{name}")),
        Links::Refuse,
        Reading::default(),
    );
    use crate::ingest::source::Source as _;
    assert!(!opened.unwrap().name().chars().any(char::is_control));
}
