//! Files dropped into a folder: taken, imported, moved, reported.

use std::{
    fs,
    path::{Path, PathBuf},
};

use harness::{
    federation::Federation,
    node::{Node, wait_until},
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
    let report =
        wait_moved(&drop_in(county, "enterprise", "rows.csv", &rows.to_csv()), &inbox.join("done"));
    assert_eq!((&report["inserted"], &report["rejected"]), (&3.into(), &1.into()), "{report:#}");
    let rejects = fs::read_to_string(inbox.join("done/rows.csv.rejects.csv")).unwrap();
    assert!(rejects.contains("uscc-impossible"), "{rejects}");

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
