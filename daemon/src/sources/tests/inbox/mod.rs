//! Folders in which files are dropped. Time is given to each pass.

use std::{
    fs::File,
    time::{Duration, Instant, SystemTime},
};

use super::*;
use crate::sources::inbox::{Access, Inbox, Watcher, watch};

mod complete;
mod outcomes;
mod strays;

const STABLE: Duration = Duration::from_secs(5);
const INCOMPLETE: Duration = Duration::from_secs(600);

/// A world with a watched inbox, and a clock that only moves when told.
struct Folders {
    world: World,
    watcher: Watcher,
    now: Instant,
    wall: SystemTime,
}

impl World {
    fn inbox(&self) -> Inbox {
        Inbox {
            dir: self.path("inbox"),
            importer: self.importer.clone(),
            deliveries: self.deliveries.clone(),
            membership: self.membership.clone(),
            stable: STABLE,
            incomplete: INCOMPLETE,
            // Tests say how old a file is, and that time alone they can set.
            touched: |data| data.modified().unwrap(),
            access: Access::default(),
            readings: Default::default(),
        }
    }
}

impl Folders {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(set: impl FnOnce(&mut Inbox)) -> Self {
        let world = World::new();
        let mut inbox = world.inbox();
        set(&mut inbox);
        let watcher = Watcher::new(inbox, world.stop.clone());
        let mut folders = Self { world, watcher, now: Instant::now(), wall: SystemTime::now() };
        folders.pass_after(0);
        folders
    }

    fn pass_after(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        self.wall += Duration::from_secs(seconds);
        self.watcher.pass(self.now, self.wall);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.world.path("inbox/list").join(name)
    }

    /// A file that was last written `age` seconds ago.
    fn put(&self, name: &str, text: &str, age: u64) {
        fs::write(self.path(name), text).unwrap();
        self.touch(name, age);
    }

    fn touch(&self, name: &str, age: u64) {
        let file = File::options().write(true).open(self.path(name)).unwrap();
        file.set_modified(self.wall - Duration::from_secs(age)).unwrap();
    }

    fn report(&self, name: &str) -> ImportReport {
        let text = fs::read(self.path(&format!("{name}.report.json"))).unwrap();
        serde_json::from_slice(&text).unwrap()
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(&format!("{name}.report.txt"))).unwrap()
    }

    /// All files below the dataset's folder but for the texts for people.
    fn files(&self) -> Vec<String> {
        let (mut found, mut open) = (Vec::new(), vec![PathBuf::new()]);
        while let Some(dir) = open.pop() {
            for entry in fs::read_dir(self.path(dir.to_str().unwrap())).into_iter().flatten() {
                let entry = entry.unwrap();
                let name = dir.join(entry.file_name()).to_string_lossy().into_owned();
                if entry.path().is_dir() && !entry.path().is_symlink() {
                    open.push(dir.join(entry.file_name()));
                } else if !name.ends_with(".report.txt") {
                    found.push(name);
                }
            }
        }
        found.sort();
        found
    }
}

#[test]
fn files_go_in_and_are_moved_with_their_reports() {
    let mut folders = Folders::new();
    folders.put("some.csv", &(rows(0..3, "a") + "c9,,,\n"), 10);
    folders.put("full/all.csv", &rows(1..4, "b"), 9);
    folders.put("wrong.csv", "what,is\nthis,file\n", 10);
    folders.pass_after(0);
    assert_eq!(
        folders.files(),
        [
            "attention/some.csv",
            "attention/some.csv.rejects.csv",
            "attention/some.csv.report.json",
            "done/all.csv",
            "done/all.csv.report.json",
            "failed/wrong.csv",
            "failed/wrong.csv.report.json",
        ]
    );
    // The full file is the newer one, and came second.
    assert_eq!(folders.world.content(), content_of(1..4, "b"));
    let report = folders.report("attention/some.csv");
    assert_eq!((report.rows, report.inserted, report.rejected), (4, 3, 1));
    let rejects = report.rejects_file.unwrap();
    assert_eq!(Path::new(&rejects), folders.path("attention/some.csv.rejects.csv"));
    assert!(fs::read_to_string(rejects).unwrap().ends_with(",c9,,,\r\n"));
    let report = folders.report("done/all.csv");
    assert_eq!((report.updated, report.inserted, report.deleted), (2, 1, 1));
    let error: serde_json::Value =
        serde_json::from_slice(&fs::read(folders.path("failed/wrong.csv.report.json")).unwrap())
            .unwrap();
    assert!(error["error"].as_str().unwrap().contains("w***,i*"), "{error}");
}

#[test]
fn a_file_is_taken_once_it_has_stopped_changing() {
    let mut folders = Folders::new();
    folders.put("a.csv", &rows(0..1, "a"), 0);
    folders.pass_after(1);
    folders.pass_after(3);
    folders.put("a.csv", &rows(0..2, "a"), 0);
    folders.pass_after(1);
    folders.pass_after(4);
    assert_eq!(folders.files(), ["a.csv"], "four seconds are not five");
    folders.pass_after(1);
    assert_eq!(folders.world.content(), content_of(0..2, "a"));

    // A clock that is ahead of ours makes no difference.
    fs::write(folders.path("b.csv"), rows(5..6, "a")).unwrap();
    let file = File::options().write(true).open(folders.path("b.csv")).unwrap();
    file.set_modified(folders.wall + Duration::from_secs(9999)).unwrap();
    drop(file);
    folders.pass_after(1);
    folders.pass_after(4);
    assert!(folders.path("b.csv").exists());
    folders.pass_after(1);
    assert!(folders.path("done/b.csv").exists(), "{:?}", folders.files());
}

#[test]
fn what_is_not_a_finished_file_is_left_alone() {
    let mut folders = Folders::new();
    let text = rows(0..1, "a");
    let mut expected = vec![];
    for name in [
        ".hidden.csv",
        "~$open.csv",
        "a.csv.part",
        "a.csv.FILEPART",
        "a.tmp",
        "a.crdownload",
        "a.csv~",
    ] {
        folders.put(name, &text, 99);
        expected.push(name.to_owned());
    }
    fs::create_dir(folders.path("directory.csv")).unwrap();
    std::os::unix::fs::symlink(folders.path("a.tmp"), folders.path("link.csv")).unwrap();
    expected.push("link.csv".into());
    expected.sort();
    fs::create_dir(folders.world.path("inbox/unknown")).unwrap();
    fs::write(folders.world.path("inbox/unknown/a.csv"), &text).unwrap();
    fs::write(folders.world.path("inbox/a.csv"), &text).unwrap();
    folders.pass_after(0);
    folders.pass_after(99);
    assert_eq!(folders.files(), expected);
    assert!(folders.world.path("inbox/unknown/a.csv").exists());
    assert!(folders.world.path("inbox/a.csv").exists());
    assert_eq!(folders.world.seq(), 0);
}

#[test]
fn the_newest_file_has_the_last_word() {
    let mut folders = Folders::new();
    folders.put("a.csv", &rows(0..1, "newest"), 10);
    folders.put("b.csv", &rows(0..1, "oldest"), 30);
    folders.put("full/c.csv", &rows(0..1, "middle"), 20);
    folders.put("z.csv", &rows(7..8, "second of a name"), 15);
    folders.put("y.csv", &rows(7..8, "first of a name"), 15);
    folders.pass_after(0);
    let mut content = content_of(0..1, "newest");
    content.extend(content_of(7..8, "second of a name"));
    assert_eq!(folders.world.content(), content);
    assert_eq!(folders.report("done/b.csv").seq, 1);
    assert_eq!(folders.report("done/a.csv").seq, 5);
}

#[test]
fn nothing_is_overwritten() {
    let mut folders = Folders::new();
    let long = format!("{}.csv", "长".repeat(83));
    for round in 0..3 {
        folders.put("a.csv", &rows(round..round + 1, "a"), 10);
        folders.put("full/a.csv", "no header of ours\n", 10);
        folders.put("b", &rows(round..round + 1, "b"), 10);
        folders.put(&long, &rows(round..round + 1, "b"), 10);
        folders.pass_after(0);
    }
    let files = folders.files();
    for name in [
        "done/a.csv",
        "done/a-1.csv",
        "done/a-2.csv",
        "done/b",
        "done/b-1",
        "done/b-2",
        "failed/a.csv",
        "failed/a-2.csv",
    ] {
        assert!(files.contains(&name.to_owned()), "{name} in {files:?}");
        assert!(files.contains(&format!("{name}.report.json")), "{name} in {files:?}");
    }
    assert_eq!(files.len(), 24);
    assert_eq!(fs::read_to_string(folders.path("done/a-1.csv")).unwrap(), rows(1..2, "a"));
}

#[test]
fn a_held_file_needs_attention_and_waits_elsewhere() {
    let mut folders = Folders::new();
    folders.put("full/a.csv", &rows(0..600, "a"), 10);
    folders.pass_after(0);
    folders.put("full/b.csv", &rows(0..10, "a"), 10);
    folders.pass_after(0);
    let id = folders.report("attention/b.csv").held.unwrap().id;
    assert!(folders.text("attention/b.csv").contains(&format!("delivery show {id}")));
    assert_eq!(folders.world.deliveries.get(&id).unwrap().unwrap().file, "b.csv");
    assert_eq!(folders.world.content(), content_of(0..600, "a"));
}

#[test]
fn what_is_not_the_files_fault_leaves_it_there_and_newer_ones_behind_it() {
    let mut folders = Folders::new();
    folders.put("0.csv", &rows(0..1, "a"), 30);
    folders.pass_after(0);
    folders.put("a.csv", &rows(0..2, "older"), 20);
    folders.put("b.csv", &rows(0..2, "newer"), 10);
    let partition = folders.world.partition();
    folders.world.store.await_own_history(&partition, 99);
    folders.pass_after(0);
    assert_eq!(folders.files().len(), 4, "{:?}", folders.files());
    // Tries come after 1, 2, 4 … seconds, not at each pass.
    for _ in 0..5 {
        folders.pass_after(10);
        assert_eq!(folders.files().len(), 4, "{:?}", folders.files());
    }
    // Why is told beside the file that waits.
    let why = folders.text("a.csv");
    assert!(why.contains("该文件在等待") && why.contains("is taken by itself"), "{why}");
    assert!(!folders.path("b.csv.report.txt").exists());
    folders.world.store.await_own_history(&partition, 0);
    folders.pass_after(1);
    assert_eq!(folders.files().len(), 4, "{:?}", folders.files());
    folders.pass_after(60);
    assert!(!folders.path("a.csv.report.txt").exists());
    assert_eq!(folders.world.content(), content_of(0..2, "newer"));
    assert_eq!(folders.report("done/a.csv").seq, 2);
    assert_eq!(folders.report("done/b.csv").seq, 3);
}

#[test]
fn a_file_that_cannot_be_moved_is_imported_once() {
    let mut folders = Folders::new();
    // A link to nowhere is in the way of the directory.
    std::os::unix::fs::symlink("/nonexistent/nowhere", folders.path("attention")).unwrap();
    folders.put("a.csv", &(rows(0..2, "a") + "c9,,,\n"), 10);
    folders.pass_after(0);
    assert_eq!((folders.world.seq(), folders.path("a.csv").exists()), (1, true));
    // It must not undo what came after it.
    folders.world.import(&rows(0..2, "b"), false);
    folders.pass_after(1);
    folders.pass_after(100);
    assert_eq!(folders.world.content(), content_of(0..2, "b"));
    fs::remove_file(folders.path("attention")).unwrap();
    folders.pass_after(300);
    let expected =
        ["attention/a.csv", "attention/a.csv.rejects.csv", "attention/a.csv.report.json"];
    assert_eq!(folders.files(), expected);
    assert_eq!(folders.report("attention/a.csv").inserted, 2);
    assert_eq!(folders.world.content(), content_of(0..2, "b"));
}

#[test]
fn a_stop_leaves_the_files() {
    let mut folders = Folders::new();
    folders.put("a.csv", &rows(0..2, "a"), 10);
    folders.world.stop.cancel();
    folders.pass_after(0);
    assert_eq!(folders.files(), ["a.csv"]);
}

#[test]
fn folders_of_new_datasets_appear_and_left_over_rejects_go() {
    let mut folders = Folders::new();
    let mut raw = raw_schema(1);
    raw.dataset = "other".into();
    fs::create_dir_all(folders.world.path("inbox/other")).unwrap();
    let left = folders.world.path("inbox/other/.creditsync-1.rejects.csv");
    fs::write(&left, "").unwrap();
    folders.pass_after(1);
    assert!(!folders.world.path("inbox/other/full").exists());
    folders.world.apply_schema(raw);
    folders.pass_after(1);
    assert!(folders.world.path("inbox/other/full").is_dir());
    assert!(!left.exists());
}

#[test]
fn a_place_that_cannot_be_written_ends_nothing() {
    let world = World::new();
    fs::write(world.path("inbox"), "a file, where the folders should be").unwrap();
    let mut watcher = Watcher::new(world.inbox(), world.stop.clone());
    watcher.pass(Instant::now(), SystemTime::now());
    fs::remove_file(world.path("inbox")).unwrap();
    watcher.pass(Instant::now(), SystemTime::now());
    assert!(world.path("inbox/list/full").is_dir());
}

#[test]
fn the_watcher_takes_files_until_it_is_stopped() {
    let world = World::new();
    fs::create_dir_all(world.path("inbox/list")).unwrap();
    let path = world.path("inbox/list/a.csv");
    fs::write(&path, rows(0..3, "a")).unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(60)).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let watching = tokio::spawn(watch(world.inbox(), world.stop.clone()));
        let mut heads = world.store.subscribe();
        if world.store.head(&world.partition()).is_none() {
            heads.recv().await.unwrap();
        }
        world.stop.cancel();
        watching.await.unwrap();
    });
    assert_eq!(world.content(), content_of(0..3, "a"));
    assert!(world.path("inbox/list/done/a.csv").exists());
}

/// Names and contents of what lies in a directory.
fn listing(dir: &Path) -> Vec<(String, String)> {
    let entries = fs::read_dir(dir).unwrap().map(Result::unwrap);
    let mut all: Vec<_> = entries
        .map(|entry| {
            let text = fs::read_to_string(entry.path()).unwrap_or_default();
            (entry.file_name().into_string().unwrap(), text)
        })
        .collect();
    all.sort();
    all
}

#[test]
fn a_link_in_place_of_a_folder_is_not_followed() {
    for name in ["", "full", "done", "attention", "failed", "sub"] {
        let mut folders = Folders::new();
        let keys = folders.world.path("keys");
        fs::create_dir(&keys).unwrap();
        fs::write(keys.join("own.csv"), rows(0..3, "own")).unwrap();
        let file = File::options().write(true).open(keys.join("own.csv")).unwrap();
        file.set_modified(folders.wall - Duration::from_secs(60)).unwrap();
        let before = listing(&keys);

        let folder = folders.world.path("inbox/list").join(name);
        // A folder's own path, without the separator that `join` leaves.
        let folder: PathBuf = folder.components().collect();
        let _ = fs::remove_dir_all(&folder);
        std::os::unix::fs::symlink(&keys, &folder).unwrap();
        if !name.is_empty() {
            folders.put("good.csv", &rows(5..6, "a"), 10);
            folders.put("bad.csv", "no header of ours\n", 10);
        }
        folders.pass_after(0);
        folders.pass_after(99);
        assert_eq!(listing(&keys), before, "{name}");
        let expected = if name.is_empty() { Content::new() } else { content_of(5..6, "a") };
        assert_eq!(folders.world.content(), expected, "{name}");
    }
}

#[test]
fn a_report_replaces_a_link_and_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let mut folders = Folders::new();
    let own = folders.world.path("own");
    fs::write(&own, "the node's").unwrap();
    fs::create_dir(folders.path("done")).unwrap();
    std::os::unix::fs::symlink(&own, folders.path("done/.creditsync-report")).unwrap();
    folders.put("a.csv", &rows(0..1, "a"), 10);
    folders.pass_after(0);
    assert_eq!(fs::read_to_string(&own).unwrap(), "the node's");
    let data = fs::symlink_metadata(folders.path("done/a.csv.report.json")).unwrap();
    assert_eq!((data.is_file(), data.permissions().mode() & 0o777), (true, 0o600));
}

#[test]
fn a_file_that_was_exchanged_for_a_link_or_a_pipe_is_refused() {
    let world = World::new();
    let own = world.file(&rows(0..3, "own"));
    let link = world.path("files/link.csv");
    std::os::unix::fs::symlink(&own, &link).unwrap();
    let pipe = world.path("files/pipe.csv");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    for (path, links) in [
        (&link, Links::Refuse),
        (&pipe, Links::Refuse),
        // Nor does a command wait for somebody to write.
        (&pipe, Links::Follow),
    ] {
        let refused = DeliveredFile::open(path, links, Reading::default());
        assert!(
            matches!(refused, Err(FileError::NotAFile { .. })),
            "{path:?} {links:?}: {refused:?}"
        );
    }
    // Who names a link in a command may read what it leads to.
    let request = world.request(&link, false);
    let report = import_or_hold(&world.importer, &world.deliveries, &request, &|_| {});
    assert_eq!(report.unwrap().inserted, 3);
}

#[test]
fn what_a_file_was_exchanged_for_is_not_kept_for_approval() {
    let world = World::new();
    world.import(&rows(0..600, "a"), true);
    let own = world.file("the node's");
    let path = world.file(&rows(0..10, "a"));
    let request = world.request(&path, true);
    let report = import_or_hold(&world.importer, &world.deliveries, &request, &|_| {
        let _ = fs::remove_file(&path);
        std::os::unix::fs::symlink(&own, &path).unwrap();
    })
    .unwrap();
    let held = world.deliveries.get(&report.held.unwrap().id).unwrap().unwrap();
    let kept = fs::read_to_string(world.deliveries.data_path(&held)).unwrap();
    assert_eq!(kept, rows(0..10, "a"), "what was judged is what is kept");
}
