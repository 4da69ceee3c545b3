//! Nodes whose clock is wrong, or was: both sides say so, a certificate that looks
//! ended or not yet begun comes with both dates, and what was made meanwhile is
//! replaced by itself once the clock is right. The clock is faked by Debian's
//! `faketime`; where that is not installed, these tests say so and do nothing.

use std::path::Path;

use harness::{
    federation::{Federation, HUB, Making},
    node::{Node, wait_until},
    table::Table,
};
use protocol::{message::JoinRefused, moment::rfc3339};

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

/// A clock that can be set while its node runs.
struct Live(std::path::PathBuf);

impl Live {
    /// From its next start on a node's clock is the one that is set here.
    fn of(node: &mut Node, library: &str, dir: &Path) -> Self {
        let clock = Self(dir.join("clock"));
        clock.set("+0");
        node.set_environment("LD_PRELOAD", Some(library));
        node.set_environment("FAKETIME_DONT_FAKE_MONOTONIC", Some("1"));
        node.set_environment("FAKETIME_NO_CACHE", Some("1"));
        node.set_environment("FAKETIME_TIMESTAMP_FILE", clock.0.to_str());
        clock
    }

    fn set(&self, offset: &str) {
        // Whole at once: the node reads it whenever it asks for the time.
        let new = self.0.with_extension("new");
        std::fs::write(&new, offset).unwrap();
        std::fs::rename(&new, &self.0).unwrap();
    }
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
    let token = federation.invite(COUNTY, &invite);
    set_hub(&mut federation, None);
    let county = &federation.counties[0];
    let failed = JoinRefused::Failed.to_string();
    county.cli(&["join", &token]).expect_failure(&["the hub refused", &failed]);
    let logged = federation.hub.log_lines(&["ERROR", COUNTY, "clock was set back", "from "]);
    assert_eq!(logged.len(), 1, "{}", federation.hub.log());
    // Where the token is made, a person is told before anybody travels with it.
    let refused = federation.hub.cli(&["invite", COUNTY]);
    refused.expect_failure(&[COUNTY, "of no use", "clock was set back", "date -u", "时钟曾快于"]);
}

/// A hub that renews while its clock is ahead shows a certificate of the future, which
/// everybody refuses.
#[test]
fn a_certificate_from_a_clock_that_was_ahead_is_replaced_once_the_clock_is_right() {
    let Some(library) = library() else { return };
    let mut federation = Federation::new(&[COUNTY]);
    check(&federation, "一");
    federation.counties[0].stop();
    federation.hub.stop();
    let dir = federation.dir().to_owned();
    let clock = Live::of(&mut federation.hub, &library, &dir);
    federation.hub.start();
    let first = federation.hub.certificate()["serial"].clone();
    let renew_by_the_wrong_clock = |hub: &Node| {
        clock.set("+45d");
        let before = hub.certificate()["serial"].clone();
        wait_until("the hub has renewed", || hub.certificate()["serial"] != before);
        hub.certificate()["serial"].clone()
    };
    let wrong = renew_by_the_wrong_clock(&federation.hub);
    assert_eq!(federation.hub.log_lines(&["WARN", "clock was set"]).len(), 1);
    federation.counties[0].start();
    let words = ["not valid yet", "was ahead", "creditsync cert renew", "起才生效"];
    federation.counties[0].wait_reason(HUB, &words);
    clock.set("+0");
    federation.counties[0].wait_connected(HUB);
    let healed = federation.hub.certificate()["serial"].clone();
    assert!(healed != wrong && healed != first);
    check(&federation, "二");
    assert_eq!(federation.hub.json(&["cert", "check"])["ok"], true);

    // Stopped meanwhile, it says what it shows; started, it heals.
    renew_by_the_wrong_clock(&federation.hub);
    federation.hub.stop();
    clock.set("+0");
    let alarm = federation.hub.cli(&["cert", "check"]).expect_code(3).stdout;
    for word in ["certificate begins on", "date -u", "creditsync cert renew", "起才生效"] {
        assert!(alarm.contains(word), "'{word}' is missing: {alarm}");
    }
    federation.hub.start();
    federation.counties[0].wait_connected(HUB);
    check(&federation, "三");
    assert_eq!(federation.hub.alarms(), [""; 0]);
    // No authority was made by the wrong clock.
    let shown = federation.hub.json(&["ca", "show"]);
    assert_eq!((&shown["issuing"], &shown["next_step"]), (&1.into(), &"none".into()));
}

/// Two thirds of the life of an authority seem to be over, and so does that of every
/// certificate: nobody would be waited for.
#[test]
fn a_clock_that_jumps_a_year_ends_no_authority() {
    let Some(library) = library() else { return };
    let mut federation = Federation::new(&[COUNTY]);
    federation.hub.stop();
    let dir = federation.dir().to_owned();
    let clock = Live::of(&mut federation.hub, &library, &dir);
    federation.hub.start();
    federation.counties[0].wait_connected(HUB);
    let first = federation.hub.certificate()["serial"].clone();
    clock.set("+300d");
    // The same task carries rotations on, before it renews.
    wait_until("the hub has renewed by the wrong clock", || {
        federation.hub.certificate()["serial"] != first
    });
    let shown = federation.hub.json(&["ca", "show"]);
    assert_eq!((&shown["issuing"], &shown["next_step"]), (&1.into(), &"none".into()));
    clock.set("+0");
    federation.counties[0].wait_connected(HUB);
    check(&federation, "准");
}

/// A hello says a clock once; connections live for days.
#[test]
fn a_clock_that_is_set_while_a_connection_lives_is_named_at_both_ends() {
    let Some(library) = library() else { return };
    let mut federation = Federation::new(&[COUNTY]);
    let dir = federation.dir().to_owned();
    federation.counties[0].stop();
    let clock = Live::of(&mut federation.counties[0], &library, &dir);
    federation.counties[0].start();
    let (hub, county) = (&federation.hub, &federation.counties[0]);
    county.wait_connected(HUB);
    hub.wait_connected(COUNTY);
    let since = county.peer(HUB)["since"].clone();
    clock.set("+3h");
    for (node, peer, way) in [(hub, COUNTY, "ahead of"), (county, HUB, "behind")] {
        wait_until("the difference is measured again", || {
            let seconds = node.peer(peer)["clock_ahead_s"].as_i64().unwrap();
            seconds.abs().abs_diff(3 * 3600) < 600
        });
        let reason = node.peer(peer)["reason"].as_str().unwrap().to_owned();
        assert!(reason.contains("clock") && reason.contains(way), "{reason}");
        assert_eq!(node.log_lines(&["WARN", "clock", way]).len(), 1);
    }
    clock.set("+0");
    for (node, peer) in [(hub, COUNTY), (county, HUB)] {
        wait_until("nothing is wrong any more", || node.peer(peer)["reason"].is_null());
    }
    assert_eq!(county.peer(HUB)["since"], since, "one connection all the time");
    check(&federation, "准");
    federation.finish();
}

/// One wrong time server for both: what the hub says counts again as soon as the clocks
/// are right, and not when that moment comes.
#[test]
fn what_was_heard_while_both_clocks_were_ahead_hides_nothing_afterwards() {
    let Some(library) = library() else { return };
    let mut federation = Federation::new(&[COUNTY]);
    let dir = federation.dir().to_owned();
    federation.counties[0].stop();
    federation.hub.stop();
    let clock = Live::of(&mut federation.hub, &library, &dir);
    Live::of(&mut federation.counties[0], &library, &dir);
    federation.hub.start();
    federation.counties[0].start();
    let county = &federation.counties[0];
    county.wait_connected(HUB);
    let in_an_hour = || {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        rfc3339(i64::try_from(since.as_secs()).unwrap() + 3600)
    };
    for (offset, ahead) in [("+2h", true), ("+0", false)] {
        clock.set(offset);
        // The hub says at once that its list has changed.
        county.json(&["cert", "renew", "--signing-key"]);
        wait_until("the hub's word counts", || {
            let heard = county.status()["federation_fresh_at"].as_str().unwrap().to_owned();
            (heard > in_an_hour()) == ahead
        });
    }
    federation.finish();
}

/// Nothing can be issued by it, and nobody verifies the hub and hears of another one.
#[test]
fn an_authority_that_a_wrong_clock_has_made_is_named_and_followed_by_itself() {
    let Some(library) = library() else { return };
    let mut federation = Federation::new(&[COUNTY]);
    federation.counties[0].stop();
    federation.hub.stop();
    set_clock(&mut federation.hub, &library, Some(300));
    for step in ["prepared", "activated", "retired"] {
        let done = federation.hub.json(&["ca", "rotate", "--force", "--yes"]);
        assert_eq!(done["step"], step, "{done:#}");
    }
    set_clock(&mut federation.hub, &library, None);
    let address = federation.address().to_string();
    let invite = ["invite", COUNTY, "--address", &address];
    let alarm = federation.hub.cli(&["cert", "check"]).expect_code(3).stdout;
    for word in
        ["issuing CA 2 begins on", "certificate begins on", "creditsync ca rotate", "签发机构 2"]
    {
        assert!(alarm.contains(word), "'{word}' is missing: {alarm}");
    }
    federation.hub.cli(&invite).expect_failure(&["of no use", "creditsync ca rotate", "不能使用"]);

    federation.hub.start();
    wait_until("the hub has made another authority, and uses it", || {
        let shown = federation.hub.json(&["ca", "show"]);
        shown["issuing"] == 3 && shown["next_step"] == "retire"
    });
    federation.counties[0].start();
    // Its certificate is of the one that was retired meanwhile.
    federation.counties[0].wait_reason(HUB, &["authority that issued it was retired", "新令牌"]);
    let token = federation.invite(COUNTY, &invite[2..]);
    federation.counties[0].cli(&["join", &token]).expect_code(0);
    wait_until("the rotation is over", || {
        federation.hub.json(&["ca", "show"])["next_step"] == "none"
    });
    check(&federation, "准");
    assert_eq!(federation.hub.alarms(), [""; 0]);
    assert_eq!(federation.hub.json(&["cert", "check"])["ok"], true);
}
