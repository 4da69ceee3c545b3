//! Directories that were restored from an older state. What a county has signed
//! since is taken back, and nothing is signed twice. A hub that signs another
//! history of its members stops the county until somebody there has decided.

use std::fs;

use harness::{
    federation::{Federation, HUB},
    node::{Node, copy_all, path_text, wait_until},
    table::Table,
};

const COUNTY: &str = "410122";

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
    copy_all(&dir, &old);
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
    wait_until("no alarm stays", || federation.counties[0].alarms().is_empty());
    assert_eq!(federation.counties[0].peer(HUB)["connected"], true);
    federation.finish();
}

#[test]
fn a_restored_hub_takes_its_own_history_back_from_its_members() {
    let mut federation = Federation::new(&[COUNTY, "410181"]);
    let (members, own) = (format!("_federation/{HUB}"), format!("enterprise/{HUB}"));
    let [dir, old] = ["hub", "old"].map(|name| federation.dir().join(name));
    let file = federation.dir().join("delivery.csv");
    Table::synthetic(2, 0..300, "之前").write(federation.dir(), "delivery.csv");
    federation.hub.import("enterprise", &file);
    federation.wait_converged();
    federation.hub.stop();
    copy_all(&dir, &old);
    federation.hub.start();
    federation.wait_connected();
    // What the backup does not know: a revocation, and more of the hub's own records.
    federation.hub.cli(&["revoke", "410181", "--reason", "a"]).expect_code(0);
    for batch in 0..3 {
        Table::synthetic(2, 0..310 + batch, &format!("第{batch}次"))
            .write(federation.dir(), "delivery.csv");
        federation.hub.import("enterprise", &file);
    }
    let heads = |node: &Node| {
        [&members, &own].map(|name| node.partition(name).map(|held| held["head"].clone()))
    };
    let newest = heads(&federation.hub);
    wait_until("a county has all of it", || heads(&federation.counties[0]) == newest);
    federation.hub.stop();
    federation.counties[0].stop();
    fs::rename(&dir, federation.dir().join("newer")).unwrap();
    fs::rename(&old, &dir).unwrap();

    // It hears of it, writes nothing until it is back, and says so.
    federation.hub.start();
    federation.counties[0].start();
    let mut refused = 0;
    wait_until("the hub has its history back, and writes", || {
        let invited = federation.hub.cli(&["invite", "410185"]);
        if invited.code == Some(0) {
            return heads(&federation.hub)[0].is_some();
        }
        assert!(invited.stderr.contains("restored from an older state"), "{invited:#?}");
        refused += 1;
        false
    });
    println!("{refused} invitations were refused before");
    wait_until("all of it is back", || heads(&federation.hub) == newest);
    let revoked = federation.hub.json(&["node", "show", "410181"]);
    assert_eq!(revoked["revoked"], true, "{revoked:#}");
    wait_until("no alarm stays", || {
        federation.hub.alarms().is_empty() && federation.counties[0].alarms().is_empty()
    });
    // And everything goes on.
    Table::synthetic(1, 0..5, "之后").write(federation.dir(), "delivery.csv");
    let import = ["import", "enterprise", path_text(&file), "--wait", "30"];
    federation.counties[0].cli(&import).expect_code(0);
    federation.hub.cli(&["verify", "--deep"]).expect_code(0);
}

#[test]
fn a_county_goes_on_with_a_restored_hubs_members_once_somebody_has_decided() {
    let mut federation = Federation::new(&[COUNTY, "410181"]);
    let members = format!("_federation/{HUB}");
    let [dir, old] = ["hub", "old"].map(|name| federation.dir().join(name));
    federation.counties[1].stop();
    federation.hub.stop();
    copy_all(&dir, &old);
    federation.hub.start();
    let revoke = |federation: &Federation, reason: &str| {
        federation.hub.cli(&["revoke", "410181", "--reason", reason]).expect_code(0);
    };
    let revoked = |federation: &Federation| federation.hub.partition(&members).unwrap();
    revoke(&federation, "a");
    let first = revoked(&federation);
    wait_until("the county has it", || {
        federation.counties[0].partition(&members).is_some_and(|held| held["head"] == first["head"])
    });
    for node in [&mut federation.counties[0], &mut federation.hub] {
        node.stop();
    }
    fs::rename(&dir, federation.dir().join("newer")).unwrap();
    fs::rename(&old, &dir).unwrap();
    federation.hub.start();
    revoke(&federation, "another reason");
    let second = revoked(&federation);
    assert_eq!(second["seq"], first["seq"], "two histories");
    assert_ne!(second["head"], first["head"]);

    federation.counties[0].start();
    let county = &federation.counties[0];
    wait_until("the county is stopped, and told what to do", || {
        let told = county.alarms().join(" ").contains("partition refetch _federation/");
        told && county.partition(&members).is_some_and(|held| held["state"] == "quarantined")
    });
    assert_eq!(
        county.partition(&members).unwrap()["head"],
        first["head"],
        "nothing is overwritten"
    );
    county.cli(&["partition", "refetch", &members]).expect_code(0);
    wait_until("it holds what the hub signs now, and no alarm stays", || {
        let held = county.partition(&members);
        held.is_some_and(|it| it["state"] == "in_sync" && it["head"] == second["head"])
            && county.alarms().is_empty()
    });
    let file = federation.dir().join("delivery.csv");
    Table::synthetic(1, 0..5, "之后").write(federation.dir(), "delivery.csv");
    county.cli(&["import", "enterprise", path_text(&file), "--wait", "30"]).expect_code(0);
}
