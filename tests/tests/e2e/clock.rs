//! A county whose clock is wrong: both sides say so, and a certificate that looks
//! ended or not yet begun comes with both dates. The clock is faked by Debian's
//! `faketime`; where that is not installed, these tests say so and do nothing.

use std::path::Path;

use harness::{
    federation::{Federation, HUB, Making},
    node::{Node, wait_until},
    table::Table,
};
use protocol::message::JoinRefused;

const COUNTY: &str = "410122";
const DAY_S: i64 = 24 * 3600;

/// The library that Debian's package puts there.
fn library() -> Option<String> {
    let found = ["x86_64", "aarch64"]
        .map(|machine| format!("/usr/lib/{machine}-linux-gnu/faketime/libfaketime.so.1"));
    let found = found.into_iter().find(|path| Path::new(path).exists());
    if found.is_none() {
        println!("SKIPPED: the package 'faketime' is not installed");
    }
    found
}

/// From its next start on a node's clock is so many days off; only the wall
/// clock is.
fn set_clock(node: &mut Node, library: &str, days: Option<i64>) {
    set_clock_s(node, library, days.map(|days| days * DAY_S));
}

/// The same in seconds.
fn set_clock_s(node: &mut Node, library: &str, seconds: Option<i64>) {
    let offset = seconds.map(|seconds| format!("{seconds:+}s"));
    node.set_environment("LD_PRELOAD", offset.as_ref().map(|_| library));
    node.set_environment("FAKETIME_DONT_FAKE_MONOTONIC", offset.as_ref().map(|_| "1"));
    node.set_environment("FAKETIME", offset.as_deref());
}

#[track_caller]
fn check(federation: &Federation, batch: &str) {
    let table = Table::synthetic(1, 0..5, batch);
    let file = table.write(federation.dir(), "delivery.csv");
    federation.counties[0].import("enterprise", &file);
    federation.wait_converged();
    assert_eq!(federation.hub.export(&format!("enterprise/{COUNTY}")), table.to_export());
}

#[test]
fn a_clock_that_is_off_is_noticed_on_both_sides_and_costs_nothing_yet() {
    let Some(library) = library() else { return };
    let mut federation = Federation::new(&[COUNTY]);
    for (days, here, there) in [(2, "behind", "ahead of"), (-2, "ahead of", "behind")] {
        let county = &mut federation.counties[0];
        county.stop();
        set_clock(county, &library, Some(days));
        // Certificates are dated back by minutes, not by days, and live for 30.
        let usable = days > 0;
        county.start();
        if !usable {
            county.wait_reason(HUB, &["clock"]);
            continue;
        }
        county.wait_connected(HUB);
        let near = |seconds: &serde_json::Value, days: i64| {
            seconds.as_i64().is_some_and(|seconds| (seconds - days * DAY_S).abs() < 600)
        };
        assert!(near(&federation.hub.peer(COUNTY)["clock_ahead_s"], days));
        let county = &federation.counties[0];
        assert!(near(&county.peer(HUB)["clock_ahead_s"], -days));
        for (node, peer, way) in [(&federation.hub, COUNTY, there), (county, HUB, here)] {
            let reason = node.peer(peer)["reason"].as_str().unwrap().to_owned();
            assert!(reason.contains("clock") && reason.contains(way), "{reason}");
            assert_eq!(node.log_lines(&["WARN", "clock", way]).len(), 1);
        }
        check(&federation, "快两天");
    }
    let county = &mut federation.counties[0];
    county.stop();
    set_clock(county, &library, None);
    county.start();
    county.wait_connected(HUB);
    wait_until("nothing is wrong any more", || federation.hub.peer(COUNTY)["reason"].is_null());
    check(&federation, "准");
    federation.finish();
}

#[test]
fn a_certificate_that_only_looks_ended_or_not_begun_names_both_dates() {
    let Some(library) = library() else { return };
    let making = Making { hub: &[("lifetime_s", "86400")], ..Making::default() };
    let mut federation = Federation::made(&making);
    federation.add_county(COUNTY);
    // The hub's first certificate was made before its life was set.
    federation.hub.json(&["cert", "renew"]);
    check(&federation, "一");
    let not_after = federation.counties[0].certificate()["not_after"].clone();
    for days in [3, -3] {
        let county = &mut federation.counties[0];
        county.stop();
        set_clock(county, &library, Some(days));
        county.start();
        let reason = county.wait_reason(HUB, &["clock"]);
        if days > 0 {
            let ended = &not_after.as_str().unwrap()[..10];
            assert!(reason.contains(ended) && reason.contains("creditsync join."), "{reason}");
        } else {
            assert!(reason.contains("too early"), "{reason}");
        }
        assert_eq!(
            county.log_lines(&["WARN", "not connected to the hub", "clock"]).len(),
            if days > 0 { 1 } else { 2 }
        );
    }
    // A clock that is set is all that it takes.
    let county = &mut federation.counties[0];
    county.stop();
    set_clock(county, &library, None);
    county.start();
    check(&federation, "二");
    federation.finish();
}

/// A certificate that begins before the one with which its node joined counts for
/// nothing, and whoever shows it is told that it is the old directory.
#[test]
fn a_hub_whose_clock_was_fast_at_a_join_issues_nothing_that_would_not_count() {
    let Some(library) = library() else { return };
    let mut federation = Federation::new(&[COUNTY]);
    let address = federation.address().to_string();
    let invite = ["--address", &address];
    let set_hub = |federation: &mut Federation, seconds: Option<i64>| {
        federation.hub.stop();
        set_clock_s(&mut federation.hub, &library, seconds);
        federation.hub.start();
    };
    // Less than certificates are dated back: those that are issued later begin in time.
    set_hub(&mut federation, Some(4 * 60));
    let token = federation.invite(COUNTY, &invite);
    federation.counties[0].cli(&["join", &token]).expect_code(0);
    set_hub(&mut federation, None);
    let county = &mut federation.counties[0];
    county.wait_connected(HUB);
    county.cli(&["cert", "renew"]).expect_code(0);
    county.restart();
    county.wait_connected(HUB);
    let token = federation.invite(COUNTY, &invite);
    let county = &federation.counties[0];
    county.cli(&["join", &token]).expect_code(0);
    county.wait_connected(HUB);
    check(&federation, "快四分钟");

    // More: what it would issue now would not count.
    set_hub(&mut federation, Some(20 * 60));
    let token = federation.invite(COUNTY, &invite);
    let join = federation.counties[0].cli(&["join", &token]);
    join.expect_failure(&["it is not installed; compare this machine's clock with the hub's"]);
    set_hub(&mut federation, None);
    let token = federation.invite(COUNTY, &invite);
    let county = &federation.counties[0];
    let failed = JoinRefused::Failed.to_string();
    county.cli(&["join", &token]).expect_failure(&["the hub refused", &failed]);
    let logged = federation.hub.log_lines(&["ERROR", COUNTY, "clock was set back", "from "]);
    assert_eq!(logged.len(), 1, "{}", federation.hub.log());
}
