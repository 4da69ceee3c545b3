//! What disks and people do to a store while its node is stopped: after the next start it
//! is healed from a peer, or says in words what to do. At no time does a node show, sign
//! or call equal what is not.

use std::{
    fs,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use harness::{
    federation::Federation,
    node::{Node, copy_all, path_text, wait_for, wait_until},
    sim::rng::Rng,
    table::Table,
};
use serde_json::Value as Json;

const COUNTY: &str = "410122";
const ENTERPRISE: &str = "enterprise/410122";
/// The generator of a run, whose seed is printed and may be given.
fn seeded() -> Rng {
    let seed = std::env::var("CREDITSYNC_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or(20_261_201);
    println!("CREDITSYNC_SEED={seed}");
    Rng::new(seed)
}

/// What is done to a store's directory.
type Harm<'a> = (&'a str, Box<dyn Fn(&Path, &mut Rng) + 'a>);

fn database(store: &Path) -> PathBuf {
    store.join("sled/db")
}

fn cut(path: &Path, bytes: u64) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    let length = file.metadata().unwrap().len();
    file.set_len(length.saturating_sub(bytes)).unwrap();
}

fn flip(path: &Path, count: u64, random: &mut Rng) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let length = file.metadata().unwrap().len();
    for _ in 0..count {
        let (at, mut byte) = (random.below(length), [0]);
        file.read_exact_at(&mut byte, at).unwrap();
        byte[0] ^= 1 << random.below(8);
        file.write_all_at(&byte, at).unwrap();
    }
}

fn zero(path: &Path, bytes: usize, random: &mut Rng) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    let length = file.metadata().unwrap().len();
    let at = random.below(length.saturating_sub(bytes as u64).max(1));
    file.write_all_at(&vec![0; bytes.min(length as usize)], at).unwrap();
}

fn snapshots(store: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(store.join("sled")).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("snap.")).collect()
}

/// What lies under the same name in another node's store takes its place.
fn mix_up(store: &Path, other: &Path, name: &str) {
    let (here, there) = (store.join(name), other.join(name));
    if here.is_dir() {
        fs::remove_dir_all(&here).unwrap();
        copy_all(&there, &here);
    } else {
        fs::copy(&there, &here).unwrap();
    }
}

/// All kinds, each on a whole store of its own; `other` is the other node's.
fn harms<'a>(other: &'a Path) -> Vec<Harm<'a>> {
    let mut harms: Vec<Harm<'a>> = vec![
        (
            "no snapshot",
            Box::new(|store, _| {
                snapshots(store).iter().for_each(|path| fs::remove_file(path).unwrap())
            }),
        ),
        (
            "an empty snapshot",
            Box::new(|store, _| {
                snapshots(store).iter().for_each(|path| fs::write(path, b"").unwrap())
            }),
        ),
        (
            "a cut snapshot",
            Box::new(|store, _| snapshots(store).iter().for_each(|path| cut(path, 7))),
        ),
        (
            "a snapshot that was being written",
            Box::new(|store, _| fs::write(store.join("sled/snap.00.generating"), b"").unwrap()),
        ),
        ("no database file", Box::new(|store, _| fs::remove_file(database(store)).unwrap())),
        ("an empty database file", Box::new(|store, _| fs::write(database(store), b"").unwrap())),
        ("no database", Box::new(|store, _| fs::remove_dir_all(store.join("sled")).unwrap())),
        ("no HEADS", Box::new(|store, _| fs::remove_file(store.join("HEADS")).unwrap())),
        ("no journal", Box::new(|store, _| drop(fs::remove_file(store.join("journal"))))),
        ("no packs", Box::new(|store, _| fs::remove_dir_all(store.join("packs")).unwrap())),
        ("another node's packs", Box::new(|store, _| mix_up(store, other, "packs"))),
        ("another node's journal", Box::new(|store, _| mix_up(store, other, "journal"))),
        (
            "packs under each other's names",
            Box::new(|store, _| {
                let entries = fs::read_dir(store.join("packs")).unwrap();
                let packs: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
                let [first, second, ..] = &packs[..] else {
                    panic!("there are {} packs", packs.len());
                };
                let aside = store.join("aside");
                for (from, to) in [(first, &aside), (second, first), (&aside, second)] {
                    fs::rename(from, to).unwrap();
                }
            }),
        ),
        ("a zeroed stretch", Box::new(|store, random| zero(&database(store), 64 * 1024, random))),
        (
            "half of the database",
            Box::new(|store, _| {
                let length = database(store).metadata().unwrap().len();
                cut(&database(store), length / 2);
            }),
        ),
    ];
    for bytes in [100, 4 * 1024, 100 * 1024, 8 * 1024 * 1024] {
        harms.push(("a cut database", Box::new(move |store, _| cut(&database(store), bytes))));
    }
    for count in [1, 1, 1, 1, 4, 4, 4096] {
        harms.push((
            "flipped bits",
            Box::new(move |store, random| flip(&database(store), count, random)),
        ));
    }
    harms
}

fn held(node: &Node) -> Option<Json> {
    node.partition(ENTERPRISE)
}

/// The one assertion: whoever says that it is in sync, or verifies, shows what was
/// delivered.
fn assert_never_equal_while_different(node: &Node, delivered: &str, what: &str) {
    let before = held(node);
    let export = node.cli(&["export", ENTERPRISE]);
    let after = held(node);
    // What moved meanwhile was not looked at.
    if before.as_ref().map(|it| (&it["head"], &it["state"]))
        != after.as_ref().map(|it| (&it["head"], &it["state"]))
    {
        return;
    }
    if export.code == Some(0) && before.is_some_and(|it| it["state"] == "in_sync") {
        assert_eq!(export.stdout, delivered, "{what}: in sync, and different");
    }
}

/// Harms the store of one node in each way; the other one goes on.
fn heals(harm_hub: bool) {
    let mut random = seeded();
    let mut federation = Federation::new(&[COUNTY]);
    let dir = federation.dir().to_owned();
    let file = |name: &str, rows: std::ops::Range<u32>| {
        Table::synthetic(1, rows, name).write(&dir, "delivery.csv")
    };
    federation.counties[0].import("enterprise", &file("一", 0..8000));
    // So that each has packs of two partitions.
    federation.hub.import("enterprise", &file("中心", 0..8000));
    federation.wait_converged();
    federation.counties[0].import("enterprise", &file("二", 500..900));
    federation.wait_converged();
    federation.counties[0].stop();
    federation.hub.stop();
    let node_dir = if harm_hub { federation.hub.dir() } else { federation.counties[0].dir() };
    let (store, whole) = (node_dir.join("store"), dir.join("whole"));
    let node_dir = node_dir.to_owned();
    copy_all(&store, &whole);
    let other = if harm_hub { federation.counties[0].dir() } else { federation.hub.dir() };
    let (other_store, other_whole) = (other.join("store"), dir.join("other"));
    copy_all(&other_store, &other_whole);

    for (number, (what, harm)) in harms(&other_whole).into_iter().enumerate() {
        println!("{number}: {what}");
        for (store, whole) in [(&store, &whole), (&other_store, &other_whole)] {
            fs::remove_dir_all(store).unwrap();
            copy_all(whole, store);
        }
        harm(&store, &mut random);
        federation.hub.start();
        federation.counties[0].start();
        let harmed = if harm_hub { &federation.hub } else { &federation.counties[0] };
        let sound = if harm_hub { &federation.counties[0] } else { &federation.hub };
        let delivered = sound.export(ENTERPRISE);
        let longest = std::time::Duration::from_secs(90);
        wait_for(&format!("{what}: all is well again"), longest, || {
            assert_never_equal_while_different(harmed, &delivered, what);
            let checked = harmed.cli(&["verify", "--deep", "--json"]);
            if checked.code != Some(0) {
                // What cannot be repaired by itself is said.
                return false;
            }
            let exported = harmed.cli(&["export", ENTERPRISE]);
            exported.code == Some(0) && exported.stdout == delivered
        });
        // The next change goes through, so nothing that it is computed from is wrong.
        let next = federation.counties[0].cli(&[
            "import",
            "enterprise",
            path_text(&file(&format!("之后{number}"), 0..3000)),
            "--wait",
            "60",
        ]);
        next.expect_code(0);
        let newest = federation.counties[0].export(ENTERPRISE);
        wait_until("the hub has it", || {
            let exported = federation.hub.cli(&["export", ENTERPRISE]);
            exported.code == Some(0) && exported.stdout == newest
        });
        federation.hub.stop();
        federation.counties[0].stop();
        for entry in fs::read_dir(&node_dir).unwrap() {
            let path = entry.unwrap().path();
            if path.file_name().unwrap().to_string_lossy().starts_with("store.damaged-") {
                println!("  it was set aside");
                fs::remove_dir_all(path).unwrap();
            }
        }
    }
}

#[test]
fn stores_that_were_mixed_up_are_refused_in_words_and_left_alone() {
    let mut federation = Federation::new(&[COUNTY]);
    let dir = federation.dir().to_owned();
    let file = Table::synthetic(1, 0..300, "一").write(&dir, "delivery.csv");
    federation.counties[0].import("enterprise", &file);
    federation.wait_converged();
    let delivered = federation.hub.export(ENTERPRISE);
    for what in ["store", "store/HEADS", "store/sled"] {
        federation.counties[0].stop();
        federation.hub.stop();
        let (ours, theirs) =
            (federation.hub.dir().join(what), federation.counties[0].dir().join(what));
        let swap = || {
            let between = dir.join("between");
            for (from, to) in [(&ours, &between), (&theirs, &ours), (&between, &theirs)] {
                fs::rename(from, to).unwrap();
            }
        };
        swap();
        let [hub, county] = [&mut federation.hub, &mut federation.counties[0]];
        for (node, other) in [(hub, "410122"), (county, "410100")] {
            let refused = node.try_start().unwrap_err();
            assert!(refused.contains(&format!("belongs to node {other}")), "{what}: {refused}");
            assert!(refused.contains("放回") && !refused.contains("panicked"), "{refused}");
            let refused = node.cli(&["export", ENTERPRISE]);
            refused.expect_failure(&[&format!("belongs to node {other}")]);
        }
        // What they say is to be done.
        swap();
        federation.hub.start();
        federation.counties[0].start();
        federation.wait_converged();
        assert_eq!(federation.hub.export(ENTERPRISE), delivered, "{what}");
        assert_eq!(federation.counties[0].export(ENTERPRISE), delivered, "{what}");
    }
    federation.end();
}

/// What the system refuses is no damage: it is said with what to do about it, nothing is
/// moved, and what is said helps.
#[test]
fn permissions_that_were_lost_are_told_and_move_nothing() {
    let mut federation = Federation::hub_only();
    let dir = federation.dir().to_owned();
    let file = Table::synthetic(1, 0..300, "一").write(&dir, "delivery.csv");
    federation.hub.import("enterprise", &file);
    let delivered = federation.hub.export("enterprise/410100");
    federation.hub.stop();
    let hub = federation.hub.dir().to_owned();
    let names = || {
        let entries = fs::read_dir(&hub).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = names();
    // Root may read everything, so the test's user cannot lose anything: a loop of links is
    // refused to everybody, in the same places.
    let is_root = rustix::process::geteuid().is_root();
    for what in ["store/sled/db", "store/HEADS", "store/journal", "keys/signing.key"] {
        let path = hub.join(what);
        let mode = fs::metadata(&path).unwrap().permissions();
        let aside = hub.with_extension("aside");
        if is_root {
            fs::rename(&path, &aside).unwrap();
            std::os::unix::fs::symlink(&path, &path).unwrap();
        } else {
            fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o0)).unwrap();
        }
        let refused = federation.hub.try_start().unwrap_err();
        // Of the database's own files its directory is named.
        let place = if what.starts_with("store") { "store" } else { what };
        assert!(refused.contains(place), "{what}: {refused}");
        assert!(!refused.contains("panicked"), "{what}: {refused}");
        if !is_root {
            assert!(refused.contains("chown") && refused.contains("恢复权限"), "{refused}");
        }
        assert_eq!(names(), before, "{what}: nothing is moved");
        if is_root {
            fs::remove_file(&path).unwrap();
            fs::rename(&aside, &path).unwrap();
        } else {
            fs::set_permissions(&path, mode).unwrap();
        }
        federation.hub.start();
        assert_eq!(federation.hub.export("enterprise/410100"), delivered, "{what}");
        federation.hub.stop();
    }
}

/// A node whose files are gone is not taken for a new one: what is missing is named, nothing
/// is made in its place, and putting it back is all there is to do.
#[test]
fn what_is_gone_is_named_and_nothing_takes_its_place() {
    let mut federation = Federation::new(&[COUNTY]);
    let dir = federation.dir().to_owned();
    let file = Table::synthetic(1, 0..300, "一").write(&dir, "delivery.csv");
    federation.counties[0].import("enterprise", &file);
    federation.wait_converged();
    let delivered = federation.hub.export(ENTERPRISE);
    let missing = ["store", "certs", "keys", "keys/signing.key", "keys/node.key", "certs/anchor"];
    for what in missing {
        federation.counties[0].stop();
        federation.hub.stop();
        let [hub, county] = [&mut federation.hub, &mut federation.counties[0]];
        for node in [hub, county] {
            let (path, aside) = (node.dir().join(what), dir.join("aside"));
            fs::rename(&path, &aside).unwrap();
            let refused = node.try_start().unwrap_err();
            for words in ["is missing", "put it back", "缺少", "creditsync restore"] {
                assert!(refused.contains(words), "{what}: '{words}' is missing: {refused}");
            }
            assert!(refused.contains(path_text(&path)), "{what}: {refused}");
            node.cli(&["status"]).expect_failure(&["is missing", path_text(&path)]);
            node.cli(&["import", "enterprise", path_text(&file)]).expect_failure(&["is missing"]);
            assert!(!path.exists(), "{what}: something took its place");
            fs::rename(&aside, &path).unwrap();
        }
        federation.hub.start();
        federation.counties[0].start();
        federation.wait_converged();
        assert_eq!(federation.hub.export(ENTERPRISE), delivered, "{what}");
    }
    federation.finish();
}

#[test]
fn a_countys_store_heals_from_whatever_was_done_to_it() {
    heals(false);
}

#[test]
fn a_hubs_store_heals_from_whatever_was_done_to_it() {
    heals(true);
}

#[test]
fn what_nobody_else_holds_is_lost_only_when_a_person_says_so() {
    let mut federation = Federation::new(&[COUNTY]);
    let dir = federation.dir().to_owned();
    let file = |name: &str, rows| Table::synthetic(1, 0..rows, name).write(&dir, "delivery.csv");
    federation.counties[0].import("enterprise", &file("一", 300));
    federation.wait_converged();
    federation.hub.stop();
    federation.counties[0].import("enterprise", &file("只在本县", 200));
    federation.counties[0].stop();
    fs::remove_dir_all(federation.counties[0].dir().join("store/sled")).unwrap();
    federation.hub.start();
    federation.counties[0].start();
    let county = &federation.counties[0];
    // What the hub holds is back, and that is said to be less than what was here.
    wait_until("what the hub holds is here", || {
        held(county).is_some_and(|it| it["seq"] == 1 && it["state"] == "damaged")
    });
    let alarms = county.alarms().join(" ");
    assert!(alarms.contains("up to number 2") && alarms.contains("partition refetch"), "{alarms}");
    let next = file("之后", 100);
    let import = ["import", "enterprise", path_text(&next)];
    county.cli(&import).expect_failure(&["number 1", "number 2"]);
    county.cli(&["verify"]).expect_code(3);
    let refused = county.cli(&["partition", "refetch", ENTERPRISE]);
    refused.expect_failure(&["number 1", "number 2", "--yes"]);
    let answer = county.cli(&["partition", "refetch", ENTERPRISE, "--yes", "--json"]);
    let answer = answer.expect_code(3).json();
    assert_eq!((&answer["held_seq"], &answer["lost"]), (&1.into(), &1.into()), "{answer:#}");
    wait_until("it is here again, and nothing is lost", || {
        held(county).is_some_and(|it| it["seq"] == 1 && it["state"] == "origin")
    });
    county.cli(&["import", "enterprise", path_text(&next), "--wait", "60"]).expect_code(0);
    assert_eq!(federation.hub.export(ENTERPRISE), county.export(ENTERPRISE));
}
