//! A county's directory that was restored from an older state: what it has signed
//! since is taken back, and nothing is signed twice.

use std::{fs, path::Path, process::Command};

use harness::{
    federation::{Federation, HUB},
    node::{path_text, wait_until},
    table::Table,
};

const COUNTY: &str = "410122";

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").args(["-a", path_text(from), path_text(to)]).status();
    assert!(copied.unwrap().success());
}

#[test]
fn what_a_restored_directory_lacks_is_taken_back_before_it_writes() {
    let mut federation = Federation::new(&[COUNTY]);
    let (dir, old) = (federation.counties[0].dir().to_owned(), federation.dir().join("old"));
    let file = federation.dir().join("delivery.csv");
    let deliver = |federation: &Federation, batch: u32| {
        let table = Table::synthetic(1, 0..batch + 2, &format!("第{batch}次"));
        table.write(federation.dir(), "delivery.csv");
        table
    };
    deliver(&federation, 1);
    federation.counties[0].import("enterprise", &file);
    federation.wait_converged();
    federation.counties[0].stop();
    copy(&dir, &old);
    federation.counties[0].start();
    for batch in 2..5 {
        deliver(&federation, batch);
        federation.counties[0].import("enterprise", &file);
    }
    federation.wait_converged();
    federation.counties[0].stop();
    fs::rename(&dir, federation.dir().join("newer")).unwrap();
    fs::rename(&old, &dir).unwrap();

    // The first thing that it does is an import.
    federation.counties[0].start();
    let last = deliver(&federation, 7);
    let import = ["import", "enterprise", "--full", path_text(&file)];
    let mut refused = 0;
    wait_until("its own history is back, and it writes", || {
        let imported = federation.counties[0].cli(&import);
        let waits = imported.stderr.contains("restored from an older state");
        assert!(imported.code == Some(0) || waits, "{imported:#?}");
        refused += u32::from(waits);
        imported.code == Some(0)
    });
    println!("{refused} imports were refused before");
    federation.wait_converged();
    let name = format!("enterprise/{COUNTY}");
    assert_eq!(federation.hub.export(&name), last.to_export());
    assert_eq!(federation.counties[0].export(&name), last.to_export());
    wait_until("no alarm stays", || {
        federation.counties[0].status()["alarms"] == serde_json::json!([])
    });
    assert_eq!(federation.counties[0].peer(HUB)["connected"], true);
    federation.finish();
}
