//! A county whose directory was put back, and which has signed numbers twice: both sides
//! see it, show it, stop, and go on with the history that a person chooses.

use std::{
    fs,
    path::{Path, PathBuf},
};

use harness::{
    federation::Federation,
    node::{Node, copy_all, path_text, wait_until},
    table::Table,
};
use serde_json::Value as Json;

const COUNTY: &str = "410122";
const ENTERPRISE: &str = "enterprise/410122";
/// The hub's own.
const OWN: &str = "enterprise/410100";

/// A federation in which the county has gone back to its first delivery, after `known` more
/// had reached the hub, and has made `own` others alone. Answers what the hub and the
/// county hold, as they export it.
fn forked(known: u32, own: u32) -> (Federation, String, String) {
    let mut federation = Federation::new(&[COUNTY]);
    let (dir, old) = (federation.counties[0].dir().to_owned(), federation.dir().join("old"));
    let file = federation.dir().join("delivery.csv");
    let deliver = |federation: &Federation, rows: u32, name: &str| {
        Table::synthetic(1, 0..rows, name).write(federation.dir(), "delivery.csv");
        federation.counties[0].import("enterprise", &file);
    };
    deliver(&federation, 400, "一");
    federation.wait_converged();
    federation.counties[0].stop();
    copy_all(&dir, &old);
    federation.counties[0].start();
    for number in 0..known {
        deliver(&federation, 410 + number, &format!("中心{number}"));
    }
    federation.wait_converged();
    let hubs = federation.hub.export(ENTERPRISE);
    federation.counties[0].stop();
    federation.hub.stop();
    fs::remove_dir_all(&dir).unwrap();
    fs::rename(&old, &dir).unwrap();
    federation.counties[0].start();
    for number in 0..own {
        deliver(&federation, 300 + number, &format!("本县{number}"));
    }
    let countys = federation.counties[0].export(ENTERPRISE);
    assert_ne!(hubs, countys);
    federation.hub.start();
    (federation, hubs, countys)
}

fn state(node: &Node) -> Option<Json> {
    node.partition(ENTERPRISE).map(|held| held["state"].clone())
}

/// Both sides have stopped, say what to do, and show the same two headers.
fn wait_quarantined(federation: &Federation, hubs: &str, countys: &str) {
    let (hub, county) = (&federation.hub, &federation.counties[0]);
    for node in [hub, county] {
        wait_until("both sides are quarantined", || state(node) == Some("quarantined".into()));
        let alarms = node.alarms().join(" ");
        assert!(alarms.contains("partition resolve enterprise/410122 --keep hub"), "{alarms}");
        let verified = node.cli(&["verify", ENTERPRISE]).expect_code(3).stdout;
        assert!(verified.contains("quarantined"), "{verified}");
        node.cli(&["repair", ENTERPRISE]).expect_code(3);
    }
    let heads = |node: &Node| {
        let fork = node.partition(ENTERPRISE).unwrap()["fork"].clone();
        let mut heads: Vec<String> =
            fork.as_array().unwrap().iter().map(|it| it["header"].to_string()).collect();
        heads.sort();
        heads
    };
    assert_eq!(heads(hub).len(), 2, "both headers are shown");
    assert_eq!(heads(county).len(), 2, "both headers are shown");
    // Nothing was overwritten, and nothing is written.
    assert_eq!((hub.export(ENTERPRISE), county.export(ENTERPRISE)), (hubs.into(), countys.into()));
    let file = federation.dir().join("refused.csv");
    Table::synthetic(1, 0..5, "更多").write(federation.dir(), "refused.csv");
    // Nor is a file taken that would change nothing of what is here.
    let same = federation.dir().join("delivery.csv");
    for file in [file, same] {
        let import = county.cli(&["import", "enterprise", path_text(&file)]);
        import.expect_failure(&["quarantined"]);
    }
}

fn resolve(federation: &Federation, keep: &str) -> Json {
    let county = &federation.counties[0];
    let answer = county.json(&["partition", "resolve", ENTERPRISE, "--keep", keep]);
    assert_eq!((&answer["keep"], &answer["changed"]), (&keep.into(), &true.into()), "{answer:#}");
    let aside = fs::read_to_string(answer["set_aside"].as_str().unwrap()).unwrap();
    assert!(aside.contains("本县"), "what was here is kept");
    answer
}

/// Everything goes on, and nothing is left of it.
fn goes_on(mut federation: Federation) {
    let file = federation.dir().join("delivery.csv");
    Table::synthetic(1, 0..5, "之后").write(federation.dir(), "delivery.csv");
    let import = ["import", "enterprise", path_text(&file), "--wait", "60"];
    federation.counties[0].cli(&import).expect_code(0);
    for node in [&federation.hub, &federation.counties[0]] {
        wait_until("no alarm stays", || node.alarms().is_empty());
        assert_eq!(node.partition(ENTERPRISE).unwrap()["fork"], Json::Null);
    }
    let again = federation.counties[0].json(&["partition", "resolve", ENTERPRISE, "--keep", "hub"]);
    assert_eq!(again["changed"], false, "{again:#}");
    federation.end();
}

#[test]
fn a_fork_goes_on_with_what_the_hub_holds() {
    let (federation, hubs, countys) = forked(3, 1);
    wait_quarantined(&federation, &hubs, &countys);
    let at_hub = federation.hub.cli(&["partition", "resolve", ENTERPRISE, "--keep", "hub"]);
    at_hub.expect_failure(&["give this at 410122"]);
    let answer = resolve(&federation, "hub");
    assert_eq!(answer["reissued"], 0);
    assert_eq!(federation.counties[0].export(ENTERPRISE), hubs);
    goes_on(federation);
}

#[test]
fn a_fork_goes_on_with_what_the_origin_has() {
    // The county has more numbers than the hub, and other ones.
    let (federation, hubs, countys) = forked(1, 3);
    wait_quarantined(&federation, &hubs, &countys);
    let answer = resolve(&federation, "origin");
    assert!(answer["reissued"].as_u64().unwrap() > 300, "{answer:#}");
    assert_eq!(federation.counties[0].export(ENTERPRISE), countys);
    wait_until("the hub has what the county has", || {
        let exported = federation.hub.cli(&["export", ENTERPRISE]);
        exported.code == Some(0) && exported.stdout == countys
    });
    goes_on(federation);
}

/// Wherever the command is cut off: until it is given again nothing is written, everybody
/// is told why, and then it comes to the same.
#[test]
fn a_resolution_that_was_cut_off_holds_the_partition_until_it_is_done() {
    for point in ["fork.set-aside", "fork.dropped", "fork.reissued"] {
        println!("cut off at {point}");
        let (mut federation, hubs, countys) = forked(1, 2);
        wait_quarantined(&federation, &hubs, &countys);
        federation.counties[0].stop();
        federation.counties[0].try_start_to_crash(point).unwrap();
        federation.counties[0].wait_connected(harness::federation::HUB);
        federation.counties[0].cli(&["partition", "resolve", ENTERPRISE, "--keep", "origin"]);
        federation.counties[0].wait_crashed(point);

        federation.counties[0].start();
        let county = &federation.counties[0];
        let alarms = county.alarms().join(" ");
        assert!(alarms.contains("is being resolved with --keep origin"), "{alarms}");
        let file = federation.dir().join("delivery.csv");
        Table::synthetic(1, 0..7, "其间").write(federation.dir(), "delivery.csv");
        let import = county.cli(&["import", "enterprise", path_text(&file)]);
        import.expect_failure(&["is being resolved with --keep origin", "尚未完成"]);
        let other = county.cli(&["partition", "resolve", ENTERPRISE, "--keep", "hub"]);
        other.expect_failure(&["--keep origin"]);

        county.wait_connected(harness::federation::HUB);
        resolve(&federation, "origin");
        assert_eq!(federation.counties[0].export(ENTERPRISE), countys);
        wait_until("the hub has what the county has", || {
            let exported = federation.hub.cli(&["export", ENTERPRISE]);
            exported.code == Some(0) && exported.stdout == countys
        });
        goes_on(federation);
    }
}

fn is_quarantined(node: &Node) -> bool {
    node.partition(OWN).is_some_and(|partition| partition["state"] == "quarantined")
}

/// Delivers at the hub what differs by the name.
fn deliver_at_hub(federation: &Federation, rows: u32, name: &str) {
    let file = Table::synthetic(1, 0..rows, name).write(federation.dir(), "delivery.csv");
    federation.hub.import("enterprise", &file);
}

/// A hub with a delivery that two members have, of which the second one is stopped, and a
/// copy of its directory.
fn hub_with_a_copy() -> (Federation, PathBuf) {
    let mut federation = Federation::new(&[COUNTY, "410123"]);
    let old = federation.dir().join("old");
    deliver_at_hub(&federation, 40, "一");
    federation.wait_converged();
    federation.hub.stop();
    copy_all(federation.hub.dir(), &old);
    federation.hub.start();
    federation.counties[1].stop();
    (federation, old)
}

fn put_hub_back(federation: &mut Federation, old: &Path) {
    federation.hub.stop();
    fs::remove_dir_all(federation.hub.dir()).unwrap();
    copy_all(old, federation.hub.dir());
    federation.hub.start();
}

/// Two stopped members with a history of the hub's each, so many numbers behind the first,
/// and a hub with a third one. Answers what the hub holds.
fn three_histories(deliveries: [u32; 2]) -> (Federation, String) {
    let (mut federation, old) = hub_with_a_copy();
    for (at, count) in deliveries.into_iter().enumerate() {
        (0..count).for_each(|more| deliver_at_hub(&federation, 41 + more, &format!("第{at}份")));
        let made = federation.hub.export(OWN);
        wait_until("one member has it", || federation.counties[at].export(OWN) == made);
        federation.counties[at].stop();
        put_hub_back(&mut federation, &old);
        if at == 0 {
            federation.counties[1].start();
        }
    }
    deliver_at_hub(&federation, 50, "第三份");
    let third = federation.hub.export(OWN);
    (federation, third)
}

/// At a hub, too: the history that differs may be with one member alone, and another one
/// may hold more numbers than it.
#[test]
fn a_hub_goes_on_with_the_history_of_the_member_that_differs() {
    let (mut federation, old) = hub_with_a_copy();
    deliver_at_hub(&federation, 41, "甲");
    let first = federation.hub.export(OWN);
    wait_until("one member has it", || federation.counties[0].export(OWN) == first);
    federation.counties[0].stop();
    put_hub_back(&mut federation, &old);
    federation.counties[1].start();
    deliver_at_hub(&federation, 42, "乙");
    deliver_at_hub(&federation, 43, "丙");
    let second = federation.hub.export(OWN);
    wait_until("the other member has that", || federation.counties[1].export(OWN) == second);

    federation.counties[0].start();
    wait_until("the hub is told", || is_quarantined(&federation.hub));
    let answer = federation.hub.json(&["partition", "resolve", OWN, "--keep", "origin"]);
    assert_eq!(answer["changed"], true, "{answer:#}");
    assert_eq!(federation.hub.export(OWN), second);
    wait_until("the member that differed follows", || federation.counties[0].export(OWN) == second);
    // The other one holds what nobody goes on with; its copy has the same records, and it
    // is told to fetch it again.
    wait_until("the other one says so", || is_quarantined(&federation.counties[1]));
    federation.counties[1].cli(&["partition", "refetch", OWN]).expect_code(0);
    federation.wait_converged();
    federation.end();
}

/// A hub that was put back twice: two members hold two histories, and it has a third one.
#[test]
fn a_hub_that_was_put_back_twice_goes_on_with_one_of_three_histories() {
    // One number more for the second, so that it is known which history is taken back.
    let (mut federation, third) = three_histories([1, 2]);
    federation.counties[0].start();
    federation.counties[1].start();
    wait_until("the hub is told", || is_quarantined(&federation.hub));
    federation.wait_connected();

    // Somebody has to do something at the member whose history is given up.
    let resolve = ["partition", "resolve", OWN, "--keep", "origin", "--json"];
    let answer = federation.hub.cli(&resolve).expect_code(3).json();
    assert_eq!(answer["changed"], true, "{answer:#}");
    assert_eq!(federation.hub.export(OWN), third);
    let given_up = answer["given_up"].as_array().unwrap();
    assert_eq!(given_up.len(), 1, "the history of one member is named: {answer:#}");
    wait_until("one member follows", || {
        federation.counties.iter().any(|county| county.export(OWN) == third)
    });
    // The other one holds what nobody goes on with, and is told so.
    wait_until("the other one says so", || federation.counties.iter().any(is_quarantined));
    let other = federation.counties.iter().find(|county| is_quarantined(county)).unwrap();
    assert_eq!(given_up[0]["node"], other.name(), "{answer:#}");
    federation.wait_connected();
    // To take back what was given up just now would end nowhere.
    let again = ["partition", "resolve", OWN, "--keep", "origin"];
    assert_eq!(federation.hub.json(&again)["changed"], false);
    let index = federation.counties.iter().position(is_quarantined).unwrap();
    federation.counties[1 - index].stop();
    wait_until("only the other one is connected", || {
        federation.hub.cli(&again).stderr.contains("was given up here")
    });
    federation.hub.cli(&again).expect_failure(&["was given up here", "partition refetch"]);
    assert_eq!(federation.hub.export(OWN), third);
    federation.counties[1 - index].start();
    federation.wait_connected();
    federation.counties[index].cli(&["partition", "refetch", OWN]).expect_code(0);
    federation.wait_converged();
    for node in federation.nodes() {
        assert_eq!(node.export(OWN), third, "{}", node.name());
    }
    federation.end();
}

/// What was proven of a history that is given up later is not awaited for ever.
#[test]
fn a_county_that_has_taken_its_history_back_still_may_choose_a_shorter_one() {
    let mut federation = Federation::new(&[COUNTY]);
    let names = [federation.counties[0].dir().to_owned(), federation.hub.dir().to_owned()];
    let [county, hub] = names;
    let aside = |name: &str| federation.dir().join(name);
    let [first_county, first_hub, other_county, other_hub] =
        ["county-1", "hub-1", "county-3", "hub-2"].map(aside);
    let file = federation.dir().join("delivery.csv");
    let deliver = |federation: &Federation, rows: u32, name: &str| {
        Table::synthetic(1, 0..rows, name).write(federation.dir(), "delivery.csv");
        federation.counties[0].import("enterprise", &file);
    };
    let put_back = |node: &mut Node, dir: &Path, old: &Path| {
        node.stop();
        fs::remove_dir_all(dir).unwrap();
        copy_all(old, dir);
    };
    let keep = |node: &mut Node, dir: &Path, at: &Path| {
        node.stop();
        copy_all(dir, at);
        node.start();
    };
    deliver(&federation, 40, "一");
    federation.wait_converged();
    keep(&mut federation.counties[0], &county, &first_county);
    keep(&mut federation.hub, &hub, &first_hub);
    // One history of two numbers, and another one of four.
    deliver(&federation, 41, "短");
    federation.wait_converged();
    keep(&mut federation.hub, &hub, &other_hub);
    put_back(&mut federation.hub, &hub, &first_hub);
    put_back(&mut federation.counties[0], &county, &first_county);
    federation.hub.start();
    federation.counties[0].start();
    deliver(&federation, 42, "长一");
    deliver(&federation, 43, "长二");
    federation.wait_converged();
    keep(&mut federation.counties[0], &county, &other_county);
    deliver(&federation, 44, "长三");
    federation.wait_converged();
    let longer = federation.counties[0].export(ENTERPRISE);
    // The county takes the fourth back, which it was shown, and the hub goes back to the other.
    put_back(&mut federation.counties[0], &county, &other_county);
    federation.counties[0].start();
    wait_until("it is back", || federation.counties[0].export(ENTERPRISE) == longer);
    put_back(&mut federation.hub, &hub, &other_hub);
    federation.hub.start();
    wait_until("the county is told", || {
        state(&federation.counties[0]) == Some("quarantined".into())
    });

    let resolve = ["partition", "resolve", ENTERPRISE, "--keep", "origin"];
    let answer = federation.counties[0].json(&resolve);
    assert!(answer["reissued"].as_u64().unwrap() > 0, "{answer:#}");
    federation.wait_converged();
    assert_eq!(federation.hub.export(ENTERPRISE), longer);
    goes_on(federation);
}

/// The member with the longest history comes when another one was chosen and what was here
/// is dropped already.
#[test]
fn a_longer_history_that_comes_in_the_middle_of_a_resolution_does_not_hold_it_up() {
    let (mut federation, third) = three_histories([1, 4]);
    federation.hub.stop();
    federation.hub.try_start_to_crash("fork.dropped").unwrap();
    federation.counties[0].start();
    wait_until("the hub is told", || is_quarantined(&federation.hub));
    federation.hub.cli(&["partition", "resolve", OWN, "--keep", "origin"]);
    federation.hub.wait_crashed("fork.dropped");

    federation.counties[1].start();
    federation.hub.start();
    federation.wait_connected();
    let resolve = ["partition", "resolve", OWN, "--keep", "origin", "--json"];
    let answer = federation.hub.cli(&resolve).expect_code(3).json();
    assert_eq!(answer["given_up"][0]["node"], federation.counties[1].name(), "{answer:#}");
    assert_eq!(federation.hub.export(OWN), third);
    wait_until("the other member follows", || federation.counties[0].export(OWN) == third);
    federation.wait_connected();
    federation.counties[1].cli(&["partition", "refetch", OWN]).expect_code(0);
    federation.wait_converged();
    for node in federation.nodes() {
        assert_eq!(node.export(OWN), third, "{}", node.name());
    }
    federation.end();
}
