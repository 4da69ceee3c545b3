//! Certificates, authorities and signing keys are replaced while everything
//! runs, and nobody notices; whoever missed it is told what to do.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use harness::{
    federation::{Federation, HUB, Making},
    node::{Node, wait_for_ok},
    sim::rng::Rng,
    table::{Table, synthetic_row},
};
use serde_json::Value as Json;

/// Many lives of a certificate.
const ROTATION_MAX: Duration = Duration::from_secs(120);
/// Seconds between two heartbeats of every node of the long test.
const HEARTBEAT_S: u64 = 3;
/// Rows that a county imports again and again.
const ROWS: u64 = 500;

/// What a county imported, all of which was acknowledged.
#[derive(Default)]
struct Imported {
    table: Table,
    imports: u32,
    change_sets: u64,
}

/// Imports until `stop`: none may fail.
fn import_until(county: &Node, owner: u32, dir: &Path, stop: &AtomicBool) -> Imported {
    let mut random = Rng::new(owner.into());
    let mut imported = Imported::default();
    while !stop.load(Ordering::Relaxed) {
        imported.imports += 1;
        let batch = format!("第{}次", imported.imports);
        let mut delivery = Table::default();
        for _ in 0..=random.below(20) {
            let row = u32::try_from(random.below(ROWS)).unwrap();
            delivery.put(synthetic_row(owner, row, &batch));
        }
        let report =
            county.import("enterprise", &delivery.write(dir, &format!("load-{owner}.csv")));
        imported.table.put_all(&delivery);
        imported.change_sets += report["change_sets"].as_u64().unwrap();
    }
    imported
}

/// What was seen of the federation from outside while it rotated.
#[derive(Default)]
struct Seen {
    samples: u32,
    /// Serial numbers of each county's certificates.
    serials: BTreeMap<String, BTreeSet<String>>,
    /// The longest that a replica at the hub was not seen in sync, and why.
    longest: Duration,
    why: String,
}

/// Looks at the status of all nodes until `stop`.
fn watch(hub: &Node, counties: &[Node], stop: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    let mut in_sync: BTreeMap<String, Instant> = BTreeMap::new();
    while !stop.load(Ordering::Relaxed) {
        seen.samples += 1;
        let asked = Instant::now();
        let status = hub.status();
        let replicas = status["partitions"].as_array().unwrap().iter();
        for replica in replicas.filter(|partition| partition["origin"] != HUB) {
            let name = replica["partition"].as_str().unwrap().to_owned();
            let since = in_sync.entry(name).or_insert(asked);
            if replica["state"] == "in_sync" {
                *since = Instant::now();
            } else if asked - *since > seen.longest {
                (seen.longest, seen.why) = (asked - *since, format!("{replica:#}"));
            }
        }
        for county in counties {
            let serial = county.certificate()["serial"].as_str().unwrap().to_owned();
            seen.serials.entry(county.name().to_owned()).or_default().insert(serial);
        }
    }
    seen
}

/// Waits until no rotation is under way and `enough` says so; answers `ca show`.
#[track_caller]
fn wait_rotated(hub: &Node, what: &str, enough: impl Fn(&Json) -> bool) -> Json {
    let mut shown = Json::Null;
    wait_for_ok(what, ROTATION_MAX, || {
        shown = hub.json(&["ca", "show"]);
        let well = shown["next_step"] == "none" && enough(&shown);
        if well { Ok(()) } else { Err(format!("{shown:#}")) }
    });
    shown
}

/// The numbers of authorities of a kind in a state.
fn numbers(shown: &Json, kind: &str, state: &str) -> Vec<u64> {
    let authorities = shown["authorities"].as_array().unwrap().iter();
    let found = authorities.filter(|one| one["kind"] == kind && one["state"] == state);
    found.map(|one| one["number"].as_u64().unwrap()).collect()
}

#[test]
fn everything_rotates_under_load_and_nothing_is_lost_or_late() {
    let heartbeat = HEARTBEAT_S.to_string();
    let mut federation = Federation::made(&Making {
        hub: &[("lifetime_s", "12"), ("issuing_lifetime_s", "30"), ("heartbeat_s", &heartbeat)],
        county: &[("heartbeat_s", &heartbeat)],
        ..Making::default()
    });
    for county in ["410122", "410181"] {
        federation.add_county(county);
    }
    federation.wait_connected();
    for (owner, county) in federation.counties.iter().enumerate() {
        let first = Table::synthetic(u32::try_from(owner).unwrap(), 0..1, "零");
        county.import("enterprise", &first.write(federation.dir(), "first.csv"));
    }
    federation.wait_converged();

    let (hub, counties) = (&federation.hub, &federation.counties);
    let stop = AtomicBool::new(false);
    let (imported, seen) = std::thread::scope(|scope| {
        let loads: Vec<_> = (0..)
            .zip(counties)
            .map(|(owner, county)| {
                let (dir, stop) = (federation.dir(), &stop);
                scope.spawn(move || import_until(county, owner, dir, stop))
            })
            .collect();
        let watching = scope.spawn(|| watch(hub, counties, &stop));
        // A failure must not wait for those threads for ever.
        let rotated = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            rotate_everything(hub, counties);
        }));
        stop.store(true, Ordering::Relaxed);
        let imported: Vec<Imported> = loads.into_iter().map(|load| load.join().unwrap()).collect();
        let seen = watching.join().unwrap();
        if let Err(panic) = rotated {
            std::panic::resume_unwind(panic);
        }
        (imported, seen)
    });

    for ((owner, county), imported) in (0..).zip(counties).zip(&imported) {
        println!("{}: {} imports", county.name(), imported.imports);
        let own = county.partition(&county.own("enterprise")).unwrap();
        // Each change once: what was imported is the whole history.
        assert_eq!(own["seq"], imported.change_sets + 1, "{own:#}");
        let mut expected = Table::synthetic(owner, 0..1, "零");
        expected.put_all(&imported.table);
        assert_eq!(county.export(&county.own("enterprise")), expected.to_export());
        wait_for_ok("the hub has everything", ROTATION_MAX, || {
            let replica = hub.export(&county.own("enterprise"));
            if replica == expected.to_export() { Ok(()) } else { Err(String::new()) }
        });
    }
    println!("{} samples; longest out of sync: {:?}", seen.samples, seen.longest);
    assert!(seen.longest < Duration::from_secs(HEARTBEAT_S), "{:?}: {}", seen.longest, seen.why);
    for (county, serials) in &seen.serials {
        println!("{county} had {} certificates", serials.len());
        assert!(serials.len() > 3, "{county} was not renewed three times: {serials:?}");
    }
    federation.finish();
}

/// Issuing CAs and roots, the signing keys of the hub and of one county, all of
/// them more than once.
fn rotate_everything(hub: &Node, counties: &[Node]) {
    // The first authority was made for a year; the next one lives for seconds.
    hub.json(&["ca", "rotate"]);
    wait_rotated(hub, "the issuing CA is another", |shown| shown["issuing"] == 2);
    counties[0].json(&["cert", "renew", "--signing-key"]);
    wait_rotated(hub, "the hub renews its issuing CA by itself", |shown| {
        shown["issuing"].as_u64() >= Some(3)
    });
    hub.json(&["cert", "renew", "--signing-key"]);
    for root in [2, 3] {
        // One that the hub has just begun by itself is ended first.
        wait_for_ok("a new root is begun", ROTATION_MAX, || {
            let step = hub.cli(&["ca", "rotate", "--root", "--json"]).json();
            if step["root"] == root { Ok(()) } else { Err(format!("{step:#}")) }
        });
        wait_rotated(hub, "the root is another", |shown| shown["root"] == root);
        counties[0].json(&["cert", "renew", "--signing-key"]);
        // Each makes the connection anew, and the next asks through it.
        for _ in 0..3 {
            counties[1].json(&["cert", "renew"]);
        }
        hub.json(&["cert", "renew", "--signing-key"]);
    }
    let shown = wait_rotated(hub, "everything is in use", |_| true);
    assert_eq!(numbers(&shown, "root", "retired"), [1, 2]);
    assert_eq!(numbers(&shown, "root", "active"), [3]);
    let retired = numbers(&shown, "issuing", "retired");
    assert!(retired.len() >= 4, "{shown:#}");
    assert_eq!(numbers(&shown, "issuing", "active").len(), 1, "{shown:#}");
    for one in shown["authorities"].as_array().unwrap() {
        let gone = one["kind"] == "issuing" && one["state"] == "retired";
        assert_eq!(one["key_here"], !gone, "a retired issuing CA has no key any more: {one:#}");
    }
    for key in hub.json(&["node", "show", counties[0].name()])["signing_keys"].as_array().unwrap() {
        assert!(key["by"] == "enrolment" || key["by"] == "succession", "{key:#}");
    }
}
