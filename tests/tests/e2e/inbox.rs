//! Files dropped into a folder: taken, imported, moved, reported.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use harness::{
    federation::Federation,
    node::{Node, wait_for, wait_until},
    table::{Table, synthetic_row},
};
use serde_json::Value as Json;

/// Drops a file as a copying program does: written elsewhere, renamed in.
fn drop_in(county: &Node, folder: &str, name: &str, text: &str) -> PathBuf {
    let folder = county.dir().join("inbox").join(folder);
    fs::create_dir_all(&folder).unwrap();
    let outside = county.dir().join("inbox").join(format!("{name}.part"));
    fs::write(&outside, text).unwrap();
    let path = folder.join(name);
    fs::rename(&outside, &path).unwrap();
    path
}

/// Waits until a file lies in `place`, and gives its report.
#[track_caller]
fn wait_moved(dropped: &Path, place: &Path) -> Json {
    let name = dropped.file_name().unwrap().to_string_lossy().into_owned();
    let report = place.join(format!("{name}.report.json"));
    wait_until("the file is moved and its report is there", || {
        !dropped.exists() && place.join(&name).exists() && report.exists()
    });
    serde_json::from_slice(&fs::read(&report).unwrap()).unwrap()
}

#[test]
fn dropped_files_are_imported_and_reported() {
    let mut federation = Federation::new(&["410122"]);
    federation.counties[0].configure("stable_s", "1");
    federation.counties[0].restart();
    let county = &federation.counties[0];
    let inbox = county.dir().join("inbox/enterprise");
    let mut table = Table::synthetic(1, 0..400, "一");
    let text = table.to_csv();
    let report =
        wait_moved(&drop_in(county, "enterprise", "first.csv", &text), &inbox.join("done"));
    assert_eq!(report["inserted"], 400, "{report:#}");
    assert_eq!(fs::read_to_string(inbox.join("done/first.csv")).unwrap(), text);
    federation.wait_converged();

    // A full file deletes what it lacks.
    table = Table::synthetic(1, 0..350, "一");
    table.put(synthetic_row(1, 900, "二"));
    let dropped = drop_in(county, "enterprise/full", "全量.csv", &table.to_csv());
    let report = wait_moved(&dropped, &inbox.join("done"));
    assert_eq!((&report["deleted"], &report["inserted"]), (&50.into(), &1.into()), "{report:#}");
    federation.wait_converged();
    assert_eq!(federation.hub.export("enterprise/410122"), table.to_export());

    // Rows that are wrong are described beside the file; the rest goes in.
    let mut rows = Table::synthetic(1, 1000..1003, "三");
    let mut wrong = synthetic_row(1, 1003, "三");
    wrong[1] = "错".into();
    table.put_all(&rows);
    rows.put(wrong);
    let attention = inbox.join("attention");
    let report = wait_moved(&drop_in(county, "enterprise", "rows.csv", &rows.to_csv()), &attention);
    assert_eq!((&report["inserted"], &report["rejected"]), (&3.into(), &1.into()), "{report:#}");
    assert_eq!(report["reject_details"][0]["rule"], "uscc-impossible", "{report:#}");
    let rejects = fs::read_to_string(attention.join("rows.csv.rejects.csv")).unwrap();
    assert!(rejects.contains("统一社会信用代码") && rejects.contains(",错,"), "{rejects}");
    let text = fs::read_to_string(attention.join("rows.csv.report.txt")).unwrap();
    assert!(text.contains("拒绝 1") && text.contains("1 rejected"), "{text}");

    // A file that is none fails as a whole, and says why.
    let report = wait_moved(
        &drop_in(county, "enterprise", "bad.csv", "甲,乙\n1,2\n"),
        &inbox.join("failed"),
    );
    assert!(report.to_string().contains('甲'), "{report:#}");
    // What somebody is still copying stays.
    let unfinished = inbox.join("next.csv.part");
    fs::write(&unfinished, "企业名称,").unwrap();
    let again = wait_moved(
        &drop_in(county, "enterprise", "last.csv", &table.to_csv()),
        &inbox.join("done"),
    );
    assert_eq!((&again["unchanged"], &again["change_sets"]), (&table.len().into(), &0.into()));
    assert!(unfinished.exists());
    federation.wait_converged();
    assert_eq!(federation.hub.export("enterprise/410122"), table.to_export());
    federation.finish();
}

#[test]
fn files_dropped_while_the_node_is_down_are_taken_at_its_start() {
    let mut federation = Federation::new(&["410122"]);
    federation.counties[0].configure("stable_s", "1");
    federation.counties[0].kill_9();
    let table = Table::synthetic(1, 0..100, "一");
    let county = &mut federation.counties[0];
    let dropped = drop_in(county, "enterprise", "while-down.csv", &table.to_csv());
    county.start();
    let report = wait_moved(&dropped, &county.dir().join("inbox/enterprise/done"));
    assert_eq!(report["inserted"], 100, "{report:#}");
    federation.wait_converged();
    assert_eq!(federation.hub.export("enterprise/410122"), table.to_export());
    federation.finish();
}

/// Writes the first part of a file, as a program that stalls in the middle of it.
fn stall(county: &Node, folder: &str, name: &str, part: &[u8]) -> (PathBuf, File) {
    let path = county.dir().join("inbox").join(folder).join(name);
    let mut file = File::create(&path).unwrap();
    file.write_all(part).unwrap();
    (path, file)
}

#[test]
fn an_upload_that_stalls_deletes_nothing_and_is_read_to_its_end() {
    let mut federation = Federation::new(&["410122"]);
    federation.counties[0].configure("stable_s", "1");
    federation.counties[0].configure("incomplete_wait_s", "20");
    federation.counties[0].restart();
    let county = &federation.counties[0];
    let inbox = county.dir().join("inbox/enterprise");
    let table = Table::synthetic(1, 0..200, "一");
    let text = table.to_csv();
    wait_moved(&drop_in(county, "enterprise/full", "first.csv", &text), &inbox.join("done"));

    // At the end of a row: the file is whole, but for its writer.
    let table = Table::synthetic(1, 0..250, "一");
    let text = table.to_csv();
    let at = text[..text.len() * 85 / 100].rfind('\n').unwrap() + 1;
    let (full, mut file) = stall(county, "enterprise/full", "register.csv", &text.as_bytes()[..at]);
    let told = inbox.join("full/register.csv.report.txt");
    wait_until("it is said that the file is waited for", || told.exists());
    assert_eq!(Table::parse(&county.export("enterprise/410122")).len(), 200);
    file.write_all(&text.as_bytes()[at..]).unwrap();
    drop(file);
    let report = wait_moved(&full, &inbox.join("done"));
    assert_eq!((&report["inserted"], &report["deleted"]), (&50.into(), &0.into()), "{report:#}");
    assert!(!told.exists());

    // One that stalls for longer than anybody waits is taken, in the middle of a
    // row, and again when it goes on where it lies by then.
    let more = Table::synthetic(1, 500..700, "三").to_csv();
    let (slow, mut file) =
        stall(county, "enterprise", "slow.csv", &more.as_bytes()[..more.len() - 30]);
    let moved = |place: &str| inbox.join(place).join("slow.csv");
    wait_for("the file is taken as it is", Duration::from_secs(60), || {
        !slow.exists() && (moved("done").exists() || moved("attention").exists())
    });
    file.write_all(&more.as_bytes()[more.len() - 30..]).unwrap();
    drop(file);
    wait_until("it is delivered again", || {
        let report = fs::read(inbox.join("done/slow.csv.report.json")).unwrap_or_default();
        let report: Json = serde_json::from_slice(&report).unwrap_or_default();
        report["notes"].to_string().contains("delivered-again")
    });
    let mut all = table;
    all.put_all(&Table::synthetic(1, 500..700, "三"));
    assert_eq!(county.export("enterprise/410122"), all.to_export());
    assert_eq!(fs::read_to_string(moved("done")).unwrap(), more);
    federation.wait_converged();
    federation.finish();
}

#[test]
fn folders_within_folders_are_read_and_wrong_places_are_told_of() {
    let mut federation = Federation::new(&["410122"]);
    federation.counties[0].configure("stable_s", "1");
    federation.counties[0].restart();
    let county = &federation.counties[0];
    let inbox = county.dir().join("inbox");
    fs::create_dir_all(inbox.join("enterprise/2024-05")).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", inbox.join("enterprise/link.csv")).unwrap();
    fs::create_dir(inbox.join("enterprises")).unwrap();
    let table = Table::synthetic(1, 0..3, "一");
    let dropped = drop_in(county, "enterprise/2024-05", "input.csv", &table.to_csv());
    let report = wait_moved(&dropped, &inbox.join("enterprise/done/2024-05"));
    assert_eq!(report["inserted"], 3, "{report:#}");
    for stray in ["enterprise/link.csv", "enterprises"] {
        let told = inbox.join(format!("{stray}.report.txt"));
        wait_until("a wrong place is told of", || told.exists());
    }
    assert_eq!(county.log_lines(&["WARN", "link.csv"]).len(), 1);

    // A name with a line break is one line of the log.
    let dropped = drop_in(county, "enterprise", "a\n2026-01-01 forged.csv", "甲,乙\n1,2\n");
    wait_moved(&dropped, &inbox.join("enterprise/failed"));
    assert_eq!(county.log_lines(&["forged"]).len(), county.log_lines(&["WARN", "forged"]).len());
    federation.wait_converged();
    federation.finish();
}
