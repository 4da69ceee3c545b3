//! A county that delivers more than it may: both sides say so in words, everybody
//! else goes on, and it is taken up again as soon as there is room.

use std::time::Duration;

use harness::{
    federation::Federation,
    node::{Node, path_text, wait_for, wait_until},
    table::Table,
};

/// A follower that could not commit tries again within a minute.
const RECOVER_MAX: Duration = Duration::from_secs(150);

fn alarms(node: &Node) -> String {
    node.alarms().join("\n")
}

/// A hub that gives each county so many MiB, and counties that are connected.
fn with_quota(counties: &[&str], mb: &str) -> Federation {
    let mut federation = Federation::new(counties);
    set_quota(&mut federation, mb);
    federation.wait_connected();
    federation
}

fn set_quota(federation: &mut Federation, mb: &str) {
    federation.hub.stop();
    federation.hub.configure("origin_quota_mb", mb);
    federation.hub.start();
}

#[test]
fn a_county_over_its_quota_is_told_and_the_others_go_on() {
    let mut federation = with_quota(&["410122", "410181"], "1");
    let files = federation.dir().to_owned();
    let (greedy, honest) = (&federation.counties[0], &federation.counties[1]);
    let first = Table::synthetic(1, 0..1000, "一");
    greedy.import("enterprise", &first.write(&files, "first.csv"));
    federation.wait_converged();

    let more = Table::synthetic(1, 0..8000, "二");
    greedy.import("enterprise", &more.write(&files, "more.csv"));
    wait_until("the hub says why it is behind", || {
        let copy = federation.hub.partition("enterprise/410122").unwrap();
        copy["reason"].as_str().is_some_and(|reason| {
            ["origin_quota_mb", "1 MiB is its quota", "上限"]
                .iter()
                .all(|part| reason.contains(part))
        })
    });
    wait_until("the county says that it is not taken", || {
        let own = greedy.partition("enterprise/410122").unwrap();
        own["reason"].as_str().is_some_and(|reason| reason.contains("has no room for it"))
    });
    let told = alarms(greedy);
    for part in ["410100", "enterprise/410122", "no room", "没有空间"] {
        assert!(told.contains(part), "{told}");
    }
    let room = &federation.hub.peer("410122")["room"];
    assert_eq!(room["quota_bytes"], 1024 * 1024);
    assert!(room["used_bytes"].as_u64().unwrap() <= 1024 * 1024, "{room}");
    assert_eq!(Table::parse(&federation.hub.export("enterprise/410122")).len(), 1000);

    // Somebody else's delivery arrives as ever.
    let theirs = Table::synthetic(2, 0..1000, "三");
    honest.import("enterprise", &theirs.write(&files, "theirs.csv"));
    wait_until("the other county's delivery is there", || {
        federation.hub.partition("enterprise/410181").is_some_and(|copy| copy["state"] == "in_sync")
    });
    assert_eq!(federation.hub.export("enterprise/410181"), theirs.to_export());

    set_quota(&mut federation, "100");
    wait_for("the rest is taken", RECOVER_MAX, || {
        let copy = federation.hub.partition("enterprise/410122");
        copy.is_some_and(|copy| copy["state"] == "in_sync" && copy["records"] == 8000)
    });
    federation.wait_converged();
    wait_until("the alarm is over", || !alarms(&federation.counties[0]).contains("room"));
    assert_eq!(federation.hub.export("enterprise/410122"), more.to_export());
    federation.finish();
}

#[test]
fn a_county_that_delivers_less_is_taken_again() {
    let federation = with_quota(&["410122"], "1");
    let files = federation.dir().to_owned();
    let county = &federation.counties[0];
    let first = Table::synthetic(1, 0..1000, "一");
    county.import("enterprise", &first.write(&files, "first.csv"));
    federation.wait_converged();
    county.import("enterprise", &Table::synthetic(1, 0..8000, "二").write(&files, "more.csv"));
    wait_until("the hub says why it is behind", || {
        let copy = federation.hub.partition("enterprise/410122").unwrap();
        copy["reason"].as_str().is_some_and(|reason| reason.contains("is its quota"))
    });
    wait_until("the hub raises an alarm", || {
        alarms(&federation.hub).contains("enterprise/410122: ")
    });
    // What nobody needs is deleted: the change set in between is never taken.
    let less = Table::synthetic(1, 0..800, "三");
    let file = less.write(&files, "less.csv");
    let import = ["import", "enterprise", path_text(&file), "--full", "--json"];
    let held = county.cli(&import).expect_code(3).json();
    let id = held["held"]["id"].as_str().expect("that many deletions wait for a person");
    county.cli(&["delivery", "approve", id, "--yes"]).expect_code(0);
    wait_for("what is left is taken", RECOVER_MAX, || {
        let copy = federation.hub.partition("enterprise/410122").unwrap();
        copy["state"] == "in_sync" && copy["records"] == 800
    });
    assert_eq!(federation.hub.export("enterprise/410122"), less.to_export());
    wait_until("the alarms are over", || {
        [&federation.hub, &federation.counties[0]]
            .iter()
            .all(|node| !alarms(node).contains("quota"))
    });
    federation.finish();
}

#[test]
fn a_first_delivery_that_is_over_the_quota_is_shown_although_nothing_of_it_is_there() {
    let mut federation = with_quota(&["410122"], "1");
    let files = federation.dir().to_owned();
    let delivery = Table::synthetic(1, 0..8000, "一");
    federation.counties[0].import("enterprise", &delivery.write(&files, "first.csv"));
    wait_until("the hub shows what it has not", || {
        federation.hub.partition("enterprise/410122").is_some_and(|missing| {
            missing["state"] == "behind"
                && missing["root"].is_null()
                && missing["reason"].as_str().is_some_and(|why| why.contains("its quota"))
        })
    });
    let shown = federation.hub.cli(&["status"]);
    assert!(shown.stdout.contains("enterprise/410122"), "{}", shown.stdout);
    federation.hub.verify_deep();
    set_quota(&mut federation, "100");
    federation.finish();
}

#[test]
fn who_has_nearly_used_up_its_quota_is_named_before_it_has() {
    let federation = with_quota(&["410122"], "2");
    let files = federation.dir().to_owned();
    assert!(!alarms(&federation.hub).contains("origin_quota_mb"));
    let mut rows = 0;
    wait_for("the quota is nearly used up", RECOVER_MAX, || {
        rows += 500;
        let delivery = Table::synthetic(1, 0..rows, "一");
        federation.counties[0].import("enterprise", &delivery.write(&files, "more.csv"));
        federation.wait_converged();
        let room = &federation.hub.peer("410122")["room"];
        room["used_bytes"].as_u64().unwrap() > 1_900_000
    });
    let told = alarms(&federation.hub);
    for part in ["410122", "origin_quota_mb", "配额"] {
        assert!(told.contains(part), "{told}");
    }
    federation.finish();
}
