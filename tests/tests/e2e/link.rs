//! Bad networks between a county and the hub.

use std::{path::PathBuf, time::Duration};

use harness::{
    federation::Federation,
    node::{Node, wait_for},
    relay::{Relay, Weather},
    table::Table,
};
use rustix::process::Signal;

/// A connection that hears nothing is given up after 25 seconds; then it is
/// dialled again.
const HEAL_MAX: Duration = Duration::from_secs(120);

fn behind_relay(weather: Weather) -> (Federation, Relay) {
    let mut federation = Federation::hub_only();
    let relay = Relay::start(federation.address(), weather);
    let dir: PathBuf = federation.dir().join("410122");
    federation.add_county_in("410122", &dir, relay.address());
    federation.wait_connected();
    (federation, relay)
}

#[test]
fn a_county_behind_a_lossy_link_converges() {
    let weather = Weather { loss_percent: 5, delay: Duration::from_millis(20), seed: 0x5eed };
    let (federation, relay) = behind_relay(weather);
    let mut table = Table::synthetic(1, 0..12_000, "一");
    let county = &federation.counties[0];
    county.import("enterprise", &table.write(federation.dir(), "first.csv"));
    federation.wait_converged_for(HEAL_MAX);
    for batch in 0..10 {
        let delivery = Table::synthetic(1, batch * 900..batch * 900 + 300, "二");
        county.import("enterprise", &delivery.write(federation.dir(), "next.csv"));
        table.put_all(&delivery);
    }
    federation.wait_converged_for(HEAL_MAX);
    assert_eq!(federation.hub.export("enterprise/410122"), table.to_export());
    let (passed, lost) = relay.counts();
    println!("{passed} packets passed, {lost} were lost");
    assert!(lost > 0, "the link lost nothing: the test tested nothing");
    federation.finish();
}

#[test]
fn a_cut_link_heals_by_itself() {
    let weather = Weather { loss_percent: 0, delay: Duration::from_millis(2), seed: 1 };
    let (federation, relay) = behind_relay(weather);
    let county = &federation.counties[0];
    let mut table = Table::synthetic(1, 0..500, "一");
    county.import("enterprise", &table.write(federation.dir(), "first.csv"));
    federation.wait_converged();

    relay.cut(true);
    let changed = Table::synthetic(1, 100..200, "断线期间");
    county.import("enterprise", &changed.write(federation.dir(), "changed.csv"));
    table.put_all(&changed);
    let sees_nobody = |node: &Node| node.status()["peers"][0]["connected"] == false;
    wait_for("both sides have noticed", HEAL_MAX, || {
        sees_nobody(county) && sees_nobody(&federation.hub)
    });
    let own = county.partition("enterprise/410122").unwrap();
    assert_eq!(own["behind_change_sets"], 1, "{own:#}");
    assert_eq!(federation.hub.partition("enterprise/410122").unwrap()["state"], "behind");

    relay.cut(false);
    federation.wait_converged_for(HEAL_MAX);
    assert_eq!(federation.hub.export("enterprise/410122"), table.to_export());
    federation.finish();
}

/// A fifth of all packets lost, then none of more than 1280 bytes (IPv6's least), then
/// another port behind a router: the same connection, or the next one, goes on.
#[test]
fn a_county_behind_the_worst_of_links_converges() {
    let weather = Weather { loss_percent: 20, delay: Duration::from_millis(5), seed: 7 };
    let (federation, relay) = behind_relay(weather);
    let county = &federation.counties[0];
    let mut table = Table::synthetic(1, 0..2000, "一");
    county.import("enterprise", &table.write(federation.dir(), "first.csv"));
    federation.wait_converged_for(HEAL_MAX);
    let faults: [(&str, &dyn Fn()); 3] = [
        ("short packets", &|| relay.drop_longer_than(1280 - 48)),
        ("another port", &|| relay.rebind()),
        ("and another", &|| relay.rebind()),
    ];
    for (number, (what, fault)) in faults.into_iter().enumerate() {
        println!("{what}");
        fault();
        let delivery = Table::synthetic(1, 0..500, what);
        county.import("enterprise", &delivery.write(federation.dir(), "next.csv"));
        table.put_all(&delivery);
        federation.wait_converged_for(HEAL_MAX);
        assert_eq!(federation.hub.export("enterprise/410122"), table.to_export(), "{number}");
    }
    federation.finish();
}

/// Where packets pass in one direction alone, both sides notice: none shows the other as
/// connected, or calls itself in sync, and both go on when the way is free.
#[test]
fn a_link_that_carries_one_direction_alone_is_noticed_by_both_and_heals() {
    let weather = Weather { loss_percent: 0, delay: Duration::from_millis(2), seed: 1 };
    let (federation, relay) = behind_relay(weather);
    let county = &federation.counties[0];
    let mut table = Table::synthetic(1, 0..500, "一");
    county.import("enterprise", &table.write(federation.dir(), "first.csv"));
    federation.wait_converged();
    for to_hub in [true, false] {
        relay.cut_one_way(to_hub, true);
        let what = format!("to_hub={to_hub}");
        let changed = Table::synthetic(1, 100..200, &what);
        county.import("enterprise", &changed.write(federation.dir(), "changed.csv"));
        table.put_all(&changed);
        let sees_nobody = |node: &Node| node.status()["peers"][0]["connected"] == false;
        wait_for("both sides have noticed", HEAL_MAX, || {
            sees_nobody(county) && sees_nobody(&federation.hub)
        });
        let held = federation.hub.partition("enterprise/410122").unwrap();
        // What had arrived before is all that the county has, or it is behind.
        assert!(held["state"] == "behind", "{what}: {held:#}");
        relay.cut_one_way(to_hub, false);
        federation.wait_converged_for(HEAL_MAX);
        assert_eq!(federation.hub.export("enterprise/410122"), table.to_export(), "{what}");
    }
    federation.finish();
}

/// A machine that sleeps for minutes, or whose virtual machine is moved: to the others it is
/// silent, and then it goes on with what it held in its hands.
#[test]
fn a_machine_that_was_suspended_goes_on() {
    let mut federation = Federation::new(&["410122", "410123"]);
    let mut tables = [Table::synthetic(1, 0..3000, "一"), Table::synthetic(2, 0..3000, "一")];
    let deliver = |federation: &Federation, at: usize, table: &Table| {
        let file = table.write(federation.dir(), &format!("{at}.csv"));
        federation.counties[at].import("enterprise", &file);
    };
    deliver(&federation, 1, &tables[1]);
    // In the middle of what it receives, and of what it sends.
    for hub_sleeps in [true, false] {
        deliver(&federation, 0, &tables[0]);
        let (hub, county) = (&federation.hub, &federation.counties[0]);
        let (asleep, awake) = if hub_sleeps { (hub, county) } else { (county, hub) };
        asleep.signal(Signal::STOP);
        wait_for("the other side has noticed", HEAL_MAX, || {
            awake.peer(asleep.name())["connected"] == false
        });
        // Those that are awake go on among themselves.
        let changed = Table::synthetic(2, 0..50, if hub_sleeps { "中心" } else { "本县" });
        deliver(&federation, 1, &changed);
        tables[1].put_all(&changed);
        if !hub_sleeps {
            let expected = tables[1].to_export();
            wait_for("the others go on", HEAL_MAX, || hub.export("enterprise/410123") == expected);
        }
        asleep.signal(Signal::CONT);
        federation.wait_converged_for(HEAL_MAX);
        for (at, table) in tables.iter().enumerate() {
            let held = federation.hub.export(&federation.counties[at].own("enterprise"));
            assert_eq!(held, table.to_export(), "hub_sleeps={hub_sleeps}");
        }
        tables[0] = Table::synthetic(1, 0..3000, "二");
    }
    federation.end();
}
