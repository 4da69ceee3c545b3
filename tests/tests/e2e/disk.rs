//! A disk that fills up: writing is refused in words, reading and replication
//! go on, and everything works again when there is room.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use harness::{
    federation::Federation,
    node::{Node, path_text, wait_for, wait_until},
    table::{Table, synthetic_row},
};

/// The small disk's size. The store keeps 24 MiB of it free.
const DISK_MIB: u64 = 96;
/// What is left beside the ballast: above the reserve, but not by much.
const LEFT_MIB: u64 = 27;
/// Below the reserve: nothing at all is written.
const REFUSED_MIB: u64 = 20;
const MIB: u64 = 1024 * 1024;
/// A follower that could not commit tries again within a minute.
const RECOVER_MAX: Duration = Duration::from_secs(150);

/// A small file system of its own, unmounted when dropped.
struct SmallDisk {
    path: PathBuf,
    _parent: tempfile::TempDir,
}

impl SmallDisk {
    /// `None`, with a message, where mounting is not permitted.
    fn mount() -> Option<Self> {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("disk");
        fs::create_dir(&path).unwrap();
        let size = format!("size={DISK_MIB}m");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&path);
        match mount.output() {
            Ok(output) if output.status.success() => Some(Self { path, _parent: parent }),
            refused => {
                println!("SKIPPED: a file system cannot be mounted here: {refused:?}");
                None
            }
        }
    }

    fn free_mib(&self) -> u64 {
        let stat = rustix::fs::statvfs(&self.path).unwrap();
        stat.f_bavail * stat.f_frsize / MIB
    }

    /// Fills the disk until `mib` are left.
    fn leave(&self, mib: u64) {
        let ballast = self.path.join("ballast");
        let bytes = (self.free_mib() + size_mib(&ballast)).saturating_sub(mib) * MIB;
        fs::write(ballast, vec![0; usize::try_from(bytes).unwrap()]).unwrap();
    }

    fn make_room(&self) {
        fs::remove_file(self.path.join("ballast")).unwrap();
    }
}

fn size_mib(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |file| file.len() / MIB)
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("--lazy").arg(&self.path).status();
        let well = unmounted.is_ok_and(|status| status.success());
        assert!(well || std::thread::panicking(), "{} stays mounted", self.path.display());
    }
}

/// Imports until the store refuses; answers all that was acknowledged.
fn import_until_refused(county: &Node, dir: &Path, disk: &SmallDisk) -> Table {
    let mut acknowledged = Table::default();
    for round in 0..200 {
        let delivery = Table::synthetic(2, round * 2000..(round + 1) * 2000, "填");
        let file = delivery.write(dir, "fill.csv");
        let output = county.cli(&["import", "enterprise", path_text(&file)]);
        match output.code {
            Some(0) => acknowledged.put_all(&delivery),
            _ => {
                output.expect_failure(&[
                    "the disk is nearly full",
                    "MiB are free",
                    "make room and try again",
                ]);
                return acknowledged;
            }
        }
    }
    panic!("{} MiB are still free", disk.free_mib());
}

#[test]
fn a_county_whose_disk_is_full_goes_on_reading_and_sending() {
    let Some(disk) = SmallDisk::mount() else { return };
    let mut federation = Federation::hub_only();
    let address = federation.address();
    federation.add_county_in("410122", &disk.path.join("410122"), address);
    let mut table = Table::synthetic(1, 0..2000, "一");
    federation.counties[0].import("enterprise", &table.write(federation.dir(), "first.csv"));
    federation.wait_converged();

    // What is still to be sent is sent although the county cannot write.
    federation.hub.stop();
    disk.leave(LEFT_MIB);
    table.put_all(&import_until_refused(&federation.counties[0], federation.dir(), &disk));
    // A smaller delivery might still have fitted.
    disk.leave(REFUSED_MIB);
    federation.hub.start();
    federation.wait_converged();
    let files = federation.dir().to_owned();
    let county = &mut federation.counties[0];
    let one = synthetic_row(1, 3, "二");
    let mut change = Table::default();
    change.put(one.clone());
    let file = change.write(&files, "one.csv");
    let import = ["import", "enterprise", path_text(&file)];
    county.cli(&import).expect_failure(&["the disk is nearly full"]);
    let told = county.status()["alarms"].to_string();
    for part in ["the disk of ", "is nearly full", "请清理磁盘"] {
        assert!(told.contains(part), "{told}");
    }
    assert_eq!(county.export("enterprise/410122"), table.to_export());
    assert_eq!(county.json(&["get", "enterprise", &one[1]])[0]["origin"], "410122");
    county.verify_deep();

    // Even a crash with a full disk leaves nothing torn.
    county.kill_9();
    county.start();
    county.verify_deep();
    county.cli(&import).expect_failure(&["the disk is nearly full"]);
    disk.make_room();
    assert_eq!(county.status()["alarms"], serde_json::json!([]));
    county.import("enterprise", &file);
    table.put(one);
    federation.wait_converged();
    assert_eq!(federation.hub.export("enterprise/410122"), table.to_export());
    federation.finish();
}

#[test]
fn a_hub_whose_disk_is_full_catches_up_when_there_is_room() {
    let Some(disk) = SmallDisk::mount() else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut federation = Federation::with_hub_in(disk.path.join("hub"), dir);
    federation.add_county("410122");
    let mut table = Table::synthetic(1, 0..2000, "一");
    let county = &federation.counties[0];
    county.import("enterprise", &table.write(federation.dir(), "first.csv"));
    federation.wait_converged();
    let held = federation.hub.partition("enterprise/410122").unwrap();

    disk.leave(10);
    for batch in ["二", "三"] {
        let delivery = Table::synthetic(1, 0..500, batch);
        county.import("enterprise", &delivery.write(federation.dir(), "next.csv"));
        table.put_all(&delivery);
    }
    wait_until("the hub says why it is behind", || {
        let copy = federation.hub.partition("enterprise/410122").unwrap();
        copy["state"] == "behind"
            && copy["reason"].as_str().is_some_and(|reason| reason.contains("disk is nearly full"))
    });
    let own = county.partition("enterprise/410122").unwrap();
    assert_eq!(own["behind_change_sets"], 2, "{own:#}");
    let copy = federation.hub.partition("enterprise/410122").unwrap();
    assert_eq!((&copy["head"], &copy["behind_change_sets"]), (&held["head"], &2.into()));
    // The hub still answers from what it has.
    assert_eq!(Table::parse(&federation.hub.export("enterprise/410122")).len(), 2000);

    disk.make_room();
    wait_for("the hub recovers by itself", RECOVER_MAX, || {
        federation.hub.partition("enterprise/410122").unwrap()["state"] == "in_sync"
    });
    federation.wait_converged();
    assert_eq!(federation.hub.export("enterprise/410122"), table.to_export());
    federation.finish();
}

#[test]
fn a_node_started_on_a_full_disk_loses_nothing() {
    let Some(disk) = SmallDisk::mount() else { return };
    let mut federation = Federation::hub_only();
    let address = federation.address();
    federation.add_county_in("410122", &disk.path.join("410122"), address);
    let table = Table::synthetic(1, 0..500, "一");
    let county = &mut federation.counties[0];
    let file = table.write(&disk.path, "first.csv");
    county.import("enterprise", &file);
    county.log_outside();
    county.kill_9();
    // Somebody else has filled the disk to the last byte.
    disk.leave(0);
    let filler = fs::File::create(disk.path.join("rest")).unwrap();
    while (&filler).write(&[0; 1024]).is_ok_and(|written| written > 0) {}
    for _ in 0..2 {
        let problem = county.try_start().expect_err("there is no room to start");
        assert!(problem.contains("No space left") || problem.contains("nearly full"), "{problem}");
    }
    disk.make_room();
    fs::remove_file(disk.path.join("rest")).unwrap();
    county.start();
    county.verify_deep();
    federation.wait_converged();
    assert_eq!(federation.hub.export("enterprise/410122"), table.to_export());
    federation.hub.assert_no_errors();
}
