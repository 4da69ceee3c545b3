//! Pages that somebody has damaged on the disk are found, named, and taken back
//! from a peer: at a replica, at an origin, and at the hub for its own data.
//!
//! The test writes into the database of a node that is stopped, which nothing
//! else does outside of the store.

use std::path::Path;

use harness::{
    federation::Federation,
    node::{Node, wait_until},
    table::Table,
};
use serde_json::Value as Json;

const COUNTY: &str = "410122";
const ROWS: u32 = 6000;

/// What is done to a page.
#[derive(Debug, Clone, Copy)]
enum Damage {
    Garbled,
    Missing,
}

/// Damages pages of a partition, by level and place in that level, in the store
/// of a node that is stopped.
fn damage(dir: &Path, partition: &str, damages: &[(u8, usize, Damage)]) {
    // As the store opens it, but for the cache.
    let db = sled::Config::new()
        .path(dir.join("store/sled"))
        .segment_size(8 * 1024 * 1024)
        .open()
        .unwrap();
    let tree = db.open_tree("creditsync").unwrap();
    let name = format!("ntest-city/{partition}/*");
    let number = tree.get(name).unwrap().expect("the partition has a number");
    let pages = |level: u8| {
        let pages = tree.scan_prefix([b"p", &number[..]].concat());
        pages.keys().map(Result::unwrap).filter(move |key| key[9] == level)
    };
    for (level, place, damage) in damages {
        let key = pages(*level).nth(*place).expect("there are so many pages");
        match damage {
            Damage::Garbled => drop(tree.insert(key, b"\0\x01 a garbled page").unwrap()),
            Damage::Missing => drop(tree.remove(key).unwrap()),
        }
    }
    db.flush().unwrap();
}

fn verify(node: &Node, partition: &str, code: i32) -> Json {
    node.cli(&["verify", partition, "--deep", "--json"]).expect_code(code).json()
}

/// Repairs, and compares the answer.
#[track_caller]
fn repair(node: &Node, partition: &str, peer: &str, pages: u64) {
    let before = node.partition(partition).unwrap();
    let told = node.cli(&["verify", partition, "--deep"]).expect_code(3).stdout;
    assert!(told.contains(&format!("creditsync repair {partition}")), "{told}");
    let answer = node.json(&["repair", partition]);
    assert_eq!((&answer["peer"], &answer["pages"]), (&peer.into(), &pages.into()), "{answer:#}");
    assert_eq!((&answer["seq"], &answer["rebuilt"]), (&before["seq"], &false.into()));
    assert!(!answer["found"].as_array().unwrap().is_empty(), "{answer:#}");
    assert!(answer["records"].as_u64().is_some(), "{answer:#}");
    let after = node.partition(partition).unwrap();
    assert_eq!((&after["head"], &after["root"]), (&before["head"], &before["root"]));
    assert_eq!(verify(node, partition, 0)["ok"], true);
    let again = node.cli(&["repair", partition]).expect_code(0).stdout;
    assert!(again.contains("nothing to repair"), "{again}");
}

#[test]
fn damaged_pages_are_taken_back_from_a_peer() {
    use Damage::{Garbled, Missing};
    let mut federation = Federation::new(&[COUNTY]);
    let dir = federation.dir().to_owned();
    let file =
        |owner: u32| Table::synthetic(owner, 0..ROWS, "甲").write(&dir, &format!("{owner}.csv"));
    let hub = federation.hub.name().to_owned();
    let of_county = format!("enterprise/{COUNTY}");
    let of_hub = format!("enterprise/{hub}");
    federation.counties[0].import("enterprise", &file(1));
    federation.hub.import("enterprise", &file(2));
    federation.wait_converged();
    let well = federation.hub.json(&["repair", &of_county]);
    assert_eq!((&well["peer"], &well["pages"]), (&Json::Null, &0.into()), "{well:#}");
    federation
        .hub
        .cli(&["repair", "enterprise/410999"])
        .expect_failure(&["no partition", "status"]);
    federation.hub.cli(&["repair"]).expect_code(2);

    // So that what is damaged stays so until the command.
    for node in [&federation.counties[0], &federation.hub] {
        for chore in ["scrub", "repair"] {
            let paused = node.json(&["chore", "pause", chore]);
            assert_eq!((&paused["chore"], &paused["paused"]), (&chore.into(), &true.into()));
        }
    }

    // A replica: pages of every kind, and one more at another one of its.
    federation.counties[0].stop();
    federation.hub.stop();
    let damages = [(0, 0, Garbled), (0, 30, Missing), (0, 31, Garbled), (1, 0, Garbled)];
    damage(federation.hub.dir(), &of_county, &damages);
    damage(federation.hub.dir(), &of_hub, &[(1, 0, Missing), (0, 7, Missing)]);
    let stopped = federation.hub.cli(&["repair", &of_county]);
    stopped.expect_failure(&["is damaged", "creditsync run", "creditsync repair"]);
    federation.hub.start();
    let alone = federation.hub.cli(&["repair", &of_county]);
    alone.expect_failure(&["is damaged", "no connected peer", "status"]);
    assert_eq!(verify(&federation.hub, &of_county, 3)["ok"], false);
    federation.counties[0].start();
    federation.wait_connected();
    repair(&federation.hub, &of_county, COUNTY, 4);
    // What the hub owns is healed by a member's copy of it.
    repair(&federation.hub, &of_hub, COUNTY, 2);

    // An origin takes back what its own head signs.
    federation.counties[0].stop();
    damage(federation.counties[0].dir(), &of_county, &[(0, 5, Missing), (1, 0, Missing)]);
    federation.counties[0].start();
    federation.wait_connected();
    repair(&federation.counties[0], &of_county, &hub, 2);

    // And everything goes on.
    let more = Table::synthetic(1, 0..50, "乙").write(&dir, "more.csv");
    federation.counties[0].import("enterprise", &more);
    federation.end();
}

#[test]
fn damage_is_found_and_taken_back_without_a_command() {
    use Damage::{Garbled, Missing};
    let mut federation = Federation::new(&[COUNTY]);
    let file = Table::synthetic(1, 0..ROWS, "甲").write(federation.dir(), "all.csv");
    let partition = format!("enterprise/{COUNTY}");
    federation.counties[0].import("enterprise", &file);
    federation.wait_converged();
    federation.counties[0].stop();
    federation.hub.stop();
    // While nobody is there from whom it could come, it is found and said.
    damage(federation.hub.dir(), &partition, &[(0, 3, Garbled), (1, 0, Missing)]);
    federation.hub.start();
    let damaged = |status: &Json, state: &str| {
        let partitions = status["partitions"].as_array().unwrap();
        partitions.iter().any(|it| it["partition"] == *partition && it["state"] == state)
    };
    wait_until("the damage is found", || {
        let status = federation.hub.status();
        damaged(&status, "damaged") && status["alarms"].to_string().contains("damaged")
    });
    let told = federation.hub.cli(&["verify", &partition]).expect_code(3).stdout;
    assert!(told.contains(&format!("creditsync repair {partition}")), "{told}");
    federation.hub.cli(&["export", &partition]).expect_failure(&["is damaged", &partition]);
    // And here, too, before anybody reads it.
    damage(federation.counties[0].dir(), &partition, &[(0, 40, Missing)]);
    federation.counties[0].start();
    federation.wait_connected();
    for node in [&federation.hub, &federation.counties[0]] {
        wait_until("the damage is repaired", || {
            let status = node.status();
            let state = if node.name() == COUNTY { "origin" } else { "in_sync" };
            let partitions = status["partitions"].as_array().unwrap();
            let it = partitions.iter().find(|it| it["partition"] == *partition).unwrap();
            it["state"] == state && !it["pages_checked_at"].is_null()
        });
        assert_eq!(verify(node, &partition, 0)["ok"], true);
        let chores = node.json(&["chore", "list"]);
        assert_eq!(chores["chores"][1]["name"], "repair", "{chores:#}");
        let compact = || node.json(&["chore", "list"])["chores"][2].clone();
        assert_eq!(compact()["name"], "compact");
        node.json(&["chore", "run", "compact"]);
        wait_until("the database was looked at for waste", || {
            compact()["result"].as_str().is_some_and(|result| result.contains("nothing to do"))
        });
        node.json(&["chore", "pause", "compact"]);
        assert_eq!(compact()["state"], "paused");
    }
    federation.end();
}

#[test]
fn a_backup_leaves_out_what_is_damaged_and_says_so() {
    for damaged in [Damage::Garbled, Damage::Missing] {
        let mut federation = Federation::new(&[COUNTY]);
        let name = format!("enterprise/{COUNTY}");
        let table = Table::synthetic(1, 0..ROWS, "一");
        let rows = table.write(federation.dir(), "1.csv");
        federation.counties[0].import("enterprise", &rows);
        federation.wait_converged();
        let before = federation.counties[0].partition(&name).unwrap();
        let backup = federation.dir().join("backup");
        let backup = harness::node::path_text(&backup);
        let county = &mut federation.counties[0];
        county.stop();
        damage(county.dir(), &name, &[(0, 7, damaged)]);
        let make = ["backup", backup, "--without-keys", "--json"];
        let left_out = |answer: &Json| answer["left_out"][0]["partition"].clone();
        let made = county.cli(&make).expect_code(3).json();
        assert_eq!((left_out(&made), &made["partitions"]), (name.as_str().into(), &1.into()));
        let check = ["backup", "--verify", backup, "--json"];
        let checked = harness::node::creditsync(&check).expect_code(3).json();
        assert_eq!(left_out(&checked), name.as_str());
        // What is left out comes back from the hub, with the keys that were kept.
        let keys = county.dir().with_extension("keys");
        std::fs::rename(county.dir().join("keys"), &keys).unwrap();
        std::fs::remove_dir_all(county.dir()).unwrap();
        county.cli(&["restore", backup, "--json"]).expect_code(3);
        std::fs::rename(&keys, county.dir().join("keys")).unwrap();
        county.start();
        harness::node::wait_until("its own history is back", || {
            let own = county.partition(&name);
            own.is_some_and(|own| own["head"] == before["head"]) && county.alarms().is_empty()
        });
        county.verify_deep();
        federation.wait_converged();
    }
}
