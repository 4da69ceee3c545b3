//! When a file counts as complete, and what becomes of one that goes on.

use std::io::Write as _;

use super::*;

impl Folders {
    /// Opens a file as a program does that writes it bit by bit.
    fn begin(&self, name: &str) -> File {
        File::create(self.path(name)).unwrap()
    }

    /// Renames a file into place, as uploading programs do.
    fn move_in(&self, name: &str, text: &str) {
        let part = self.path("arriving.part");
        fs::write(&part, text).unwrap();
        fs::rename(part, self.path(name)).unwrap();
    }

    fn notes(&self, name: &str) -> Vec<String> {
        self.report(name).notes.into_iter().map(|note| note.code).collect()
    }
}

/// All rows, and where they stop in the middle of one.
fn halves() -> (String, usize) {
    let text = rows(0..100, "a");
    let at = text.len() * 95 / 100;
    assert_ne!(text.as_bytes()[at - 1], b'\n');
    (text, at)
}

#[test]
fn an_upload_that_stalls_is_waited_for_until_its_writer_closes_it() {
    for full in ["", "full/"] {
        let mut folders = Folders::new();
        let (text, at) = halves();
        // At the end of a row nothing but its writer tells that more comes.
        let at = text[..at].rfind('\n').unwrap() + 1;
        let name = format!("{full}a.csv");
        let mut file = folders.begin(&name);
        file.write_all(&text.as_bytes()[..at]).unwrap();
        for _ in 0..20 {
            folders.pass_after(9);
        }
        assert_eq!(folders.files(), [name.as_str()], "it is open");
        assert!(folders.text(&name).contains("仍打开着"), "{}", folders.text(&name));
        file.write_all(&text.as_bytes()[at..]).unwrap();
        drop(file);
        folders.pass_after(1);
        folders.pass_after(5);
        assert_eq!(folders.files(), ["done/a.csv", "done/a.csv.report.json"]);
        assert_eq!(folders.world.content(), content_of(0..100, "a"));
        assert_eq!(folders.notes("done/a.csv"), [""; 0]);
        assert!(!folders.path(&format!("{name}.report.txt")).exists(), "its reason is gone");
    }
}

#[test]
fn a_file_that_is_waited_for_is_not_overtaken_by_a_newer_one() {
    let mut folders = Folders::new();
    let (text, at) = halves();
    let mut older = folders.begin("z.csv");
    older.write_all(&text.as_bytes()[..at]).unwrap();
    older.set_modified(folders.wall - Duration::from_secs(100)).unwrap();
    folders.put("full/a.csv", &rows(0..100, "newer"), 50);
    folders.pass_after(10);
    folders.pass_after(10);
    assert_eq!(folders.files(), ["full/a.csv", "z.csv"]);
    // It goes on: now the other one is the older of the two.
    older.write_all(&text.as_bytes()[at..]).unwrap();
    folders.pass_after(1);
    assert_eq!(folders.files(), ["done/a.csv", "done/a.csv.report.json", "z.csv"]);
    drop(older);
    folders.pass_after(1);
    folders.pass_after(5);
    assert_eq!(folders.world.content(), content_of(0..100, "a"));
}

#[test]
fn a_full_file_without_a_last_line_end_is_waited_for_and_then_taken() {
    let mut folders = Folders::new();
    let (text, at) = halves();
    // Its writer broke off: it is closed.
    fs::write(folders.path("full/a.csv"), &text[..at]).unwrap();
    folders.pass_after(1);
    folders.pass_after(597);
    assert_eq!(folders.files(), ["full/a.csv"]);
    folders.pass_after(1);
    assert_eq!(folders.files(), ["full/a.csv"], "599 seconds are not 600");
    // The file system's clock may be some milliseconds behind.
    folders.pass_after(2);
    assert!(folders.path("done/a.csv").exists(), "{:?}", folders.files());
    assert_eq!(folders.notes("done/a.csv"), ["taken-without-end"]);
    let text = folders.text("done/a.csv");
    assert!(text.contains("最后一行没有换行符") && text.contains("line end"), "{text}");

    // Rows that are added are taken: their writer has closed the file.
    fs::write(folders.path("b.csv"), rows(5..6, "b").trim_end()).unwrap();
    folders.pass_after(1);
    folders.pass_after(5);
    assert!(folders.path("done/b.csv").exists(), "{:?}", folders.files());
    // An empty file has no end either.
    folders.put("full/c.csv", "", 0);
    folders.pass_after(1);
    folders.pass_after(99);
    assert!(folders.path("full/c.csv").exists());
}

#[test]
fn a_file_that_goes_on_after_it_was_moved_is_delivered_again() {
    for full in ["", "full/", "五月/"] {
        let mut folders = Folders::new();
        // What changes is no column nearly everywhere.
        let named = |number| row(number, if number < 70 { "a" } else { "before" });
        folders.world.import(&csv((0..100).map(named)), true);
        let (text, at) = halves();
        fs::create_dir_all(folders.path("五月")).unwrap();
        let name = format!("{full}a.csv");
        let mut file = folders.begin(&name);
        file.write_all(&text.as_bytes()[..at]).unwrap();
        // Nobody told that it is open, as on a network drive, and it was waited for.
        folders.touch(&name, 700);
        folders.pass_after(1);
        let moved = match full {
            "五月/" => "done/五月/a.csv",
            // Half of the register would be deleted.
            "full/" => "attention/a.csv",
            _ => "done/a.csv",
        };
        assert!(folders.path(moved).exists(), "{:?}", folders.files());
        assert_ne!(folders.world.content(), content_of(0..100, "a"));

        file.write_all(&text.as_bytes()[at..]).unwrap();
        drop(file);
        folders.pass_after(1);
        assert_eq!(folders.files(), [name.as_str()], "put back, without its report");
        folders.pass_after(5);
        assert_eq!(folders.world.content(), content_of(0..100, "a"), "{:?}", folders.files());
        let moved = moved.replace("attention", "done");
        assert_eq!(folders.notes(&moved), ["delivered-again"]);
        assert!(folders.text(&moved).contains("重新导入"), "{}", folders.text(&moved));
        assert_eq!(folders.files(), [moved.clone(), format!("{moved}.report.json")]);
    }
}

#[test]
fn what_only_touches_a_moved_file_changes_nothing() {
    let mut folders = Folders::new();
    folders.put("a.csv", &rows(0..3, "a"), 10);
    folders.pass_after(0);
    // A backup, a change of rights, the same content written again.
    folders.put("done/a.csv", &rows(0..3, "a"), 5);
    folders.pass_after(1);
    assert!(folders.path("done/a.csv").exists());
    assert_eq!(folders.notes("done/a.csv"), [""; 0], "it was not delivered again");
    // Another file under the same name is somebody's own business …
    folders.put("done/b.csv", &rows(7..9, "b"), 5);
    fs::rename(folders.path("done/b.csv"), folders.path("done/a.csv")).unwrap();
    folders.pass_after(1);
    assert!(folders.path("done/a.csv").exists());
    // … and so is one that is written to after the time in which uploads go on.
    folders.put("c.csv", &rows(0..1, "c"), 10);
    folders.pass_after(0);
    folders.pass_after(601);
    folders.put("done/c.csv", &rows(7..9, "c"), 5);
    folders.pass_after(1);
    folders.pass_after(60);
    assert!(folders.path("done/c.csv").exists());
    assert_eq!(folders.world.seq(), 2);
}

#[test]
fn a_file_that_is_put_back_does_not_hide_a_newer_one_of_its_name() {
    let mut folders = Folders::new();
    folders.put("a.csv", &rows(0..3, "a"), 700);
    folders.pass_after(0);
    let mut file = File::options().append(true).open(folders.path("done/a.csv")).unwrap();
    folders.put("a.csv", &rows(5..6, "newer"), 0);
    file.write_all((row(3, "a") + "\n").as_bytes()).unwrap();
    drop(file);
    folders.pass_after(1);
    assert_eq!(folders.files(), ["a-1.csv", "a.csv"]);
    folders.pass_after(10);
    let mut content = content_of(0..4, "a");
    content.extend(content_of(5..6, "newer"));
    assert_eq!(folders.world.content(), content);
}

#[test]
fn a_marker_or_a_rename_says_complete_at_once() {
    let mut folders = Folders::new();
    folders.move_in("full/a.csv", rows(0..3, "a").trim_end());
    folders.pass_after(0);
    assert_eq!(folders.files(), ["done/a.csv", "done/a.csv.report.json"]);

    for name in ["b.csv", "full/c.csv"] {
        fs::write(folders.path(name), rows(0..3, name).trim_end()).unwrap();
        folders.pass_after(0);
        assert!(folders.path(name).exists());
        let marker = folders.path(&format!("{name}.done"));
        fs::write(&marker, "").unwrap();
        folders.pass_after(0);
        assert_eq!(folders.world.content(), content_of(0..3, name));
        assert!(!marker.exists(), "it goes with its file");
    }

    // Renamed, and written on: the rename said too much.
    let mut file = folders.begin("arriving.part");
    fs::rename(folders.path("arriving.part"), folders.path("d.csv")).unwrap();
    file.write_all(b"code,name\n").unwrap();
    folders.pass_after(0);
    folders.pass_after(99);
    assert!(folders.path("d.csv").exists());
    drop(file);

    // A marker is not a file that is delivered; one without its file is told of.
    fs::write(folders.path("e.csv.done"), "").unwrap();
    folders.touch("e.csv.done", 0);
    folders.pass_after(10);
    assert!(!folders.path("e.csv.done.report.txt").exists());
    folders.pass_after(600);
    assert!(folders.text("e.csv.done").contains("没有它所指的文件"));
}

#[test]
fn the_time_of_an_original_says_nothing_of_its_copy() {
    use crate::sources::inbox::touched;
    let folders = Folders::new();
    folders.put("copy.csv", "a\n", 86_400);
    let data = fs::metadata(folders.path("copy.csv")).unwrap();
    let age = |at: SystemTime| SystemTime::now().duration_since(at).unwrap_or_default();
    assert!(age(data.modified().unwrap()) > Duration::from_secs(80_000));
    assert!(age(touched(&data)) < Duration::from_secs(3600), "{data:?}");
}

#[test]
fn who_waits_behind_another_file_is_told_for_which() {
    let mut folders = Folders::new();
    let (text, at) = halves();
    let mut file = folders.begin("full/older.csv");
    file.write_all(&text.as_bytes()[..at]).unwrap();
    folders.touch("full/older.csv", 60);
    folders.put("newer.csv", &rows(0..1, "b"), 10);
    folders.pass_after(9);
    folders.pass_after(9);
    let why = folders.text("newer.csv");
    assert!(why.contains("“older.csv”") && why.contains("older.csv.done"), "{why}");
    // It goes with its reason.
    fs::write(folders.path("full/older.csv.done"), "").unwrap();
    folders.pass_after(1);
    folders.pass_after(1);
    assert!(!folders.path("newer.csv.report.txt").exists());
    assert!(folders.path("done/newer.csv").exists(), "{:?}", folders.files());
}
