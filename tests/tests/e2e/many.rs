//! A hub with a hundred members, of which one is slow and one does not move at all.

use std::{fs, thread, time::Duration};

use harness::{
    federation::{Federation, HUB},
    node::{Node, wait_for},
    relay::{Relay, Weather},
    table::Table,
};
use rustix::process::Signal;

const MEMBERS: usize = 100;
/// Places in the list of names.
const SLOW: usize = 10;
const STUCK: usize = 20;
/// A hundred daemons share two cores.
const LONGEST: Duration = Duration::from_secs(180);
/// What the hub may have in memory: DESIGN's goal for a hundred members.
const HUB_BYTES_MAX: u64 = 512 << 20;

/// The most that a daemon has had in memory.
fn peak_bytes(node: &Node) -> u64 {
    let pid = fs::read_to_string(node.dir().join("run/lock")).unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", pid.trim())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() << 10
}

/// Does something for each of many, a few at a time.
fn each<T: Sync>(all: &[T], work: impl Fn(usize, &T) + Sync) {
    thread::scope(|scope| {
        let workers = 4;
        for worker in 0..workers {
            let work = &work;
            scope.spawn(move || {
                let mine = all.iter().enumerate().skip(worker).step_by(workers);
                mine.for_each(|(at, one)| work(at, one));
            });
        }
    });
}

#[test]
fn a_slow_and_a_stuck_member_keep_nobody_of_a_hundred_waiting() {
    let mut federation = Federation::hub_only();
    let weather = Weather { loss_percent: 10, delay: Duration::from_millis(150), seed: 100 };
    let relay = Relay::start(federation.address(), weather);
    let names: Vec<String> = (0..MEMBERS).map(|number| format!("41{:04}", 200 + number)).collect();
    let (direct, slow) = (federation.address(), relay.address());
    federation.add_counties(&names, |at| if at == SLOW { slow } else { direct });
    let stuck = &federation.counties[STUCK];
    stuck.wait_connected(HUB);
    stuck.signal(Signal::STOP);

    // Everybody delivers, the hub as well.
    let table = |at: usize| {
        let first = u32::try_from(at).unwrap() * 20;
        Table::synthetic(2, first..first + 20, "各县")
    };
    let hubs = Table::synthetic(1, 0..2000, "中心");
    federation.hub.import("enterprise", &hubs.write(federation.dir(), "hub.csv"));
    let own = federation.hub.own("enterprise");
    let awake = |at: usize| at != STUCK;
    each(&federation.counties, |at, county| {
        if awake(at) {
            let file = table(at).write(federation.dir(), &format!("{at}.csv"));
            county.import("enterprise", &file);
        }
    });
    each(&federation.counties, |at, county| {
        if awake(at) {
            let (name, theirs) = (county.own("enterprise"), table(at).to_export());
            wait_for("the hub has it", LONGEST, || {
                federation.hub.partition(&name).is_some_and(|held| held["state"] == "in_sync")
            });
            assert_eq!(federation.hub.export(&name), theirs, "{name}");
            wait_for("it has what the hub delivers", LONGEST, || {
                county.partition(&own).is_some_and(|held| held["state"] == "in_sync")
            });
        }
    });
    let stuck = &federation.counties[STUCK];
    wait_for("the hub says who does not move", LONGEST, || {
        federation.hub.peer(stuck.name())["connected"] == false
    });
    let peak = peak_bytes(&federation.hub);
    println!("the hub has had {} MiB in memory at most", peak >> 20);
    assert!(peak < HUB_BYTES_MAX, "{peak} bytes");

    stuck.signal(Signal::CONT);
    let file = table(STUCK).write(federation.dir(), "stuck.csv");
    stuck.import("enterprise", &file);
    federation.wait_converged_for(LONGEST);
    federation.end();
}
