//! `backup` and `restore`: of nodes at work, whole or not at all, and what a restored
//! node must not do before it knows what it has signed.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::Stdio,
};

use daemon::upkeep::backup::{BackupError, check::check};
use harness::{
    federation::{Federation, HUB, Making},
    node::{Node, creditsync, path_text, run, wait_until, workspace},
    table::Table,
};
use serde_json::Value as Json;

const COUNTY: &str = "410122";
const ENTERPRISE: &str = "enterprise/410122";
/// What people are told of a restored directory.
const RESTORED: [&str; 2] = ["备份恢复", "was restored at"];

/// A private file with a passphrase.
fn passphrase(dir: &Path, text: &str) -> PathBuf {
    let path = dir.join(format!("{text}.passphrase"));
    let mut file =
        fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&path);
    file.as_mut().unwrap().write_all(format!("{text}\n").as_bytes()).unwrap();
    path
}

/// Files of a test's own directory.
fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[track_caller]
fn back_up(node: &Node, file: &Path, phrase: &Path) -> Json {
    node.json(&["backup", path_text(file), "--passphrase-file", path_text(phrase)])
}

#[track_caller]
fn verify(file: &Path) -> Json {
    creditsync(&["backup", "--verify", path_text(file), "--json"]).expect_code(0).json()
}

/// The node is gone, and comes back from a backup. Nothing is started.
#[track_caller]
fn lose_and_restore(node: &mut Node, file: &Path, phrase: &Path) -> Json {
    if node.is_running() {
        node.stop();
    }
    let lost = node.dir().with_extension("lost");
    let _ = fs::remove_dir_all(&lost);
    fs::rename(node.dir(), &lost).unwrap();
    node.json(&["restore", path_text(file), "--passphrase-file", path_text(phrase)])
}

#[test]
fn a_county_that_was_backed_up_at_work_comes_back_and_goes_on() {
    let mut federation = Federation::new(&[COUNTY]);
    let phrase = passphrase(federation.dir(), "p");
    let (first, file) = (federation.dir().join("first"), federation.dir().join("backup"));
    let table = Table::synthetic(1, 0..3000, "一");
    federation.counties[0].import("enterprise", &table.write(federation.dir(), "1.csv"));
    let many = Table::synthetic(1, 0..25_000, "二").write(federation.dir(), "2.csv");
    let mut import = federation.counties[0].command(&["import", "enterprise", path_text(&many)]);
    let mut import = import.stdout(Stdio::null()).spawn().unwrap();
    let mut made = 0;
    while import.try_wait().unwrap().is_none() || made == 0 {
        let answer = back_up(&federation.counties[0], &file, &phrase);
        let checked = verify(&file);
        assert_eq!((&checked["records"], &checked["keys"]), (&answer["records"], &"sealed".into()));
        if made == 0 {
            fs::copy(&file, &first).unwrap();
        }
        made += 1;
    }
    assert!(import.wait().unwrap().success());
    println!("{made} backups while it imported");
    assert_eq!(mode(&file), 0o600);
    // Without the daemon the command does it itself.
    federation.wait_converged();
    federation.counties[0].stop();
    let whole = back_up(&federation.counties[0], &file, &phrase);
    assert_eq!(verify(&file)["records"], whole["records"]);
    federation.counties[0].start();
    let more = Table::synthetic(1, 0..40, "三");
    federation.counties[0].import("enterprise", &more.write(federation.dir(), "3.csv"));
    federation.wait_converged();
    let newest = federation.counties[0].partition(ENTERPRISE).unwrap();

    // The oldest of them, so that much is to be taken back.
    let restored = lose_and_restore(&mut federation.counties[0], &first, &phrase);
    let dir = federation.counties[0].dir();
    for (path, wanted) in
        [("", 0o700), ("keys", 0o700), ("keys/signing.key", 0o600), ("store", 0o700)]
    {
        assert_eq!(mode(&dir.join(path)), wanted, "{path}");
    }
    assert_eq!((&restored["node"], &restored["has_keys"]), (&COUNTY.into(), &true.into()));
    federation.counties[0].verify_deep();
    federation.counties[0].start();
    wait_until("its own history is back", || {
        let own = federation.counties[0].partition(ENTERPRISE);
        own.is_some_and(|own| own["head"] == newest["head"])
            && federation.counties[0].alarms().is_empty()
    });
    let last = Table::synthetic(1, 10..60, "四");
    federation.counties[0].import("enterprise", &last.write(federation.dir(), "4.csv"));
    federation.wait_converged();
    let mut expected = Table::synthetic(1, 0..25_000, "二");
    expected.put_all(&more);
    expected.put_all(&last);
    assert_eq!(federation.hub.export(ENTERPRISE), expected.to_export());
    let deliveries = federation.counties[0].json(&["delivery", "list", "--all"]);
    assert!(deliveries.to_string().contains("1.csv"), "{deliveries:#}");
    federation.finish();
}

#[test]
fn a_restored_county_writes_nothing_before_the_hub_has_spoken() {
    let mut federation = Federation::new(&[COUNTY]);
    let phrase = passphrase(federation.dir(), "p");
    let file = federation.dir().join("backup");
    let rows = |batch: &str| Table::synthetic(1, 0..20, batch);
    let write = |federation: &Federation, batch: &str| {
        path_text(&rows(batch).write(federation.dir(), "rows.csv")).to_owned()
    };
    let rows_file = write(&federation, "一");
    federation.counties[0].import("enterprise", Path::new(&rows_file));
    back_up(&federation.counties[0], &file, &phrase);
    write(&federation, "二");
    federation.counties[0].import("enterprise", Path::new(&rows_file));
    federation.wait_converged();
    let newest = federation.counties[0].partition(ENTERPRISE).unwrap();
    federation.hub.stop();
    lose_and_restore(&mut federation.counties[0], &file, &phrase);

    write(&federation, "三");
    let import = ["import", "enterprise", rows_file.as_str()];
    // Neither without a daemon, nor with one that reaches nobody, however often it starts.
    federation.counties[0].cli(&import).expect_failure(&RESTORED);
    for _ in 0..2 {
        federation.counties[0].start();
        federation.counties[0].cli(&import).expect_failure(&RESTORED);
        let alarms = federation.counties[0].alarms().join(" ");
        assert!(RESTORED.iter().all(|word| alarms.contains(word)), "{alarms}");
        let own = federation.counties[0].partition(ENTERPRISE).unwrap();
        assert_eq!((&own["seq"], newest["seq"].as_u64()), (&1.into(), Some(2)));
        federation.counties[0].stop();
    }
    federation.hub.start();
    federation.counties[0].start();
    wait_until("its own history is back, and no alarm stays", || {
        let own = federation.counties[0].partition(ENTERPRISE).unwrap();
        own["head"] == newest["head"] && federation.counties[0].alarms().is_empty()
    });
    federation.counties[0].cli(&import).expect_code(0);
    federation.wait_converged();
    assert_eq!(federation.hub.export(ENTERPRISE), rows("三").to_export());
    // The mark is gone for good.
    federation.counties[0].restart();
    assert!(!federation.counties[0].dir().join("certs/restored").exists());
    federation.finish();
}

#[test]
fn a_hub_comes_back_with_its_keys_and_speaks_for_nobody_before_it_is_known_to_be_new() {
    let mut federation = Federation::new(&[COUNTY, "410181"]);
    let phrase = passphrase(federation.dir(), "p");
    let file = federation.dir().join("backup");
    let table = Table::synthetic(1, 0..500, "一");
    federation.counties[0].import("enterprise", &table.write(federation.dir(), "1.csv"));
    federation.wait_converged();
    let target = path_text(&file).to_owned();
    let refused = federation.hub.cli(&["backup", &target]).expect_code(1);
    assert!(refused.stderr.contains("--without-keys") && !file.exists(), "{refused:#?}");
    let plain = federation.hub.json(&["backup", &target, "--without-keys"]);
    assert_eq!((&plain["keys"], &verify(&file)["keys"]), (&"left-out".into(), &plain["keys"]));
    back_up(&federation.hub, &file, &phrase);
    // Counties go on, and the hub is lost.
    let more = Table::synthetic(1, 400..700, "二");
    federation.counties[0].import("enterprise", &more.write(federation.dir(), "2.csv"));
    federation.wait_converged();
    lose_and_restore(&mut federation.hub, &file, &phrase);
    // One of them may hold more and is away.
    federation.counties[1].stop();
    federation.hub.start();
    federation.counties[0].wait_connected(HUB);
    let newest = federation.counties[0].export(ENTERPRISE);
    wait_until("what the county had gone on with is here", || {
        let exported = federation.hub.cli(&["export", ENTERPRISE]);
        exported.code == Some(0) && exported.stdout == newest
    });

    let alarms = federation.hub.alarms().join(" ");
    assert!(RESTORED.iter().all(|word| alarms.contains(word)), "{alarms}");
    let mark = federation.hub.dir().join("certs/restored");
    assert!(alarms.contains(path_text(&mark)), "{alarms}");
    let schema = federation.hub.json(&["dataset", "show", "enterprise"]);
    let schema_file = federation.dir().join("enterprise.json");
    fs::write(&schema_file, schema.to_string()).unwrap();
    let members = federation.hub.partition(&format!("_federation/{HUB}")).unwrap();
    for command in [
        &["invite", "410182"][..],
        &["revoke", "410181", "--reason", "a"],
        &["ca", "rotate"],
        &["cert", "renew", "--signing-key"],
        &["import", "enterprise", path_text(&federation.dir().join("1.csv"))],
    ] {
        federation.hub.cli(command).expect_failure(&RESTORED);
    }
    let after = federation.hub.partition(&format!("_federation/{HUB}")).unwrap();
    assert_eq!(after["head"], members["head"]);
    // When all have said what they hold, and nobody holds more, it goes on by itself.
    federation.counties[1].start();
    wait_until("the hub writes again", || federation.hub.alarms().is_empty());
    assert!(!mark.exists());
    federation.hub.cli(&["invite", "410182"]).expect_code(0);
    federation.wait_connected();
    federation.finish();
}

#[test]
fn each_altered_byte_of_a_backup_is_found() {
    let federation = Federation::hub_only();
    let phrase = passphrase(federation.dir(), "p");
    let file = federation.dir().join("backup");
    back_up(&federation.hub, &file, &phrase);
    let whole = fs::read(&file).unwrap();
    let judged = |bytes: &[u8]| check(bytes, None, &mut |_| ());
    judged(&whole).unwrap();
    println!("{} bytes", whole.len());
    for at in 0..whole.len() {
        let mut altered = whole.clone();
        altered[at] ^= 1 << (at % 8);
        assert!(judged(&altered).is_err(), "byte {at}");
    }
    for length in (0..whole.len()).step_by(7) {
        let problem = judged(&whole[..length]).unwrap_err();
        assert!(
            matches!(problem, BackupError::Cut { .. } | BackupError::NotABackup),
            "{length}: {problem}"
        );
    }
    for more in [&b"\0"[..], &whole] {
        let problem = judged(&[&whole, more].concat()).unwrap_err();
        assert!(matches!(problem, BackupError::Trailing { .. }), "{problem}");
    }
    let mut newer = whole.clone();
    newer[11] = 2;
    // As a newer program writes it.
    let check_of = protocol::suite::checksum::Checksum::of(&[&newer[..12]]);
    newer[12..16].copy_from_slice(&check_of.as_bytes()[..4]);
    let problem = judged(&newer).unwrap_err();
    assert!(matches!(problem, BackupError::Format { found: 2, known: 1 }), "{problem}");
}

#[test]
fn keys_are_in_a_backup_encrypted_or_not_at_all() {
    let mut federation = Federation::new(&[COUNTY]);
    let (phrase, other) =
        (passphrase(federation.dir(), "right"), passphrase(federation.dir(), "wrong"));
    let file = federation.dir().join("backup");
    let target = path_text(&file).to_owned();
    let table = Table::synthetic(1, 0..30, "一");
    federation.counties[0].import("enterprise", &table.write(federation.dir(), "1.csv"));
    federation.wait_converged();
    let secret = fs::read_to_string(federation.counties[0].dir().join("keys/signing.key")).unwrap();
    back_up(&federation.counties[0], &file, &phrase);
    let has = |file: &Path, text: &str| {
        fs::read(file).unwrap().windows(text.len()).any(|window| window == text.as_bytes())
    };
    assert!(!has(&file, secret.trim()), "a key is never in it as it is");

    // The wrong passphrase and none: nothing is left of the attempt.
    let place = Node::new(COUNTY, &federation.dir().join("elsewhere"));
    for (arguments, words) in [
        (vec!["restore", &target], ["--passphrase-file", "口令"]),
        (
            vec!["restore", &target, "--passphrase-file", path_text(&other)],
            ["is not the one", "口令不正确"],
        ),
    ] {
        place.cli(&arguments).expect_failure(&words);
        assert!(!place.dir().exists());
    }
    let wrong = ["backup", &target, "--verify", "--passphrase-file", path_text(&other)];
    creditsync(&wrong).expect_failure(&["is not the one"]);
    // A passphrase that others can read is none.
    fs::set_permissions(&other, fs::Permissions::from_mode(0o644)).unwrap();
    let open = ["backup", &target, "--passphrase-file", path_text(&other)];
    federation.counties[0].cli(&open).expect_failure(&["chmod 600"]);

    // Left out, by nobody's word, that needs a person.
    let out = federation.counties[0].cli(&["backup", &target, "--json"]).expect_code(3).json();
    assert_eq!(out["keys"], "left-out");
    let refused = lose_without_keys(&mut federation.counties[0], &file);
    assert_eq!((&refused["has_keys"], &refused["keys"]), (&false.into(), &"left-out".into()));
    federation.counties[0].cli(&["status"]).expect_failure(&["creditsync join", "keys"]);
    let token = federation.invite(COUNTY, &["--address", &federation.address().to_string()]);
    federation.counties[0].cli(&["join", &token]).expect_code(0);
    federation.counties[0].start();
    federation.counties[0].wait_connected(HUB);
    let more = Table::synthetic(1, 20..50, "二");
    let more_file = more.write(federation.dir(), "2.csv");
    wait_until("its history is back, and it writes", || {
        let import = ["import", "enterprise", path_text(&more_file)];
        federation.counties[0].cli(&import).code == Some(0)
    });
    federation.wait_converged();
    let mut expected = table.clone();
    expected.put_all(&more);
    assert_eq!(federation.hub.export(ENTERPRISE), expected.to_export());
}

#[track_caller]
fn lose_without_keys(node: &mut Node, file: &Path) -> Json {
    node.stop();
    fs::remove_dir_all(node.dir()).unwrap();
    node.cli(&["restore", path_text(file), "--json"]).expect_code(3).json()
}

#[test]
fn keys_that_are_encrypted_already_are_taken_as_they_are() {
    let keys = tempfile::tempdir().unwrap();
    let phrase = passphrase(keys.path(), "p");
    let environment = [("CREDITSYNC_PASSPHRASE_FILE", path_text(&phrase))];
    let making = Making { environment: &environment, ..Making::default() };
    let mut federation = Federation::made(&making);
    let file = federation.dir().join("backup");
    let made = federation.hub.json(&["backup", path_text(&file)]);
    assert_eq!((&made["keys"], &verify(&file)["keys"]), (&"as-they-are".into(), &made["keys"]));
    let key = federation.hub.dir().join("keys/signing.key");
    let before = fs::read(&key).unwrap();
    federation.hub.stop();
    fs::remove_dir_all(federation.hub.dir()).unwrap();
    federation.hub.json(&["restore", path_text(&file)]);
    assert_eq!((fs::read(&key).unwrap(), mode(&key)), (before, 0o600));
    federation.hub.start();
    federation.hub.verify_deep();
}

#[test]
fn what_cannot_be_written_leaves_nothing() {
    let mut federation = Federation::new(&[COUNTY]);
    let phrase = passphrase(federation.dir(), "p");
    let dir = federation.dir().join("backups");
    fs::create_dir(&dir).unwrap();
    let file = dir.join("backup");
    let table = Table::synthetic(1, 0..2000, "一");
    federation.counties[0].import("enterprise", &table.write(federation.dir(), "1.csv"));
    let with = |file: &Path| {
        federation.counties[0].cli(&[
            "backup",
            path_text(file),
            "--passphrase-file",
            path_text(&phrase),
        ])
    };
    with(Path::new("/dev/full")).expect_failure(&["No space left"]);
    with(&dir.join("absent/backup")).expect_failure(&["absent/backup"]);
    with(&dir).expect_failure(&["目录", "directory"]);
    assert_eq!(names(&dir), [""; 0]);
    // What is there stays until the new one is whole.
    fs::write(&file, "an older one").unwrap();
    with(&file).expect_code(0);
    assert_eq!(
        (names(&dir), verify(&file)["node"].as_str()),
        (vec!["backup".into()], Some(COUNTY))
    );
    // Into a pipe, and out of one.
    let mut piped = federation.counties[0].command(&["backup", "-", "--passphrase-file"]);
    let mut piped = piped.arg(&phrase).stdout(Stdio::piped()).spawn().unwrap();
    let mut checking = harness::node::command();
    let checking = checking.args(["backup", "-", "--verify", "--json"]);
    let checked = run(checking.stdin(piped.stdout.take().unwrap())).expect_code(0).json();
    assert!(piped.wait().unwrap().success());
    assert_eq!(checked["records"], verify(&file)["records"]);

    // A directory that is a node, or has anything in it.
    let restore = ["restore", path_text(&file), "--passphrase-file", path_text(&phrase)];
    federation.counties[0].cli(&restore).expect_failure(&["is a node already", "已是节点目录"]);
    let place = Node::new(COUNTY, &dir);
    place.cli(&restore).expect_failure(&["is not empty", "不是空目录"]);
    assert_eq!(names(&dir), ["backup"]);
    // A backup that breaks off, into a directory that is there and stays.
    let cut = federation.dir().join("cut");
    let whole = fs::read(&file).unwrap();
    fs::write(&cut, &whole[..whole.len() - 40]).unwrap();
    let empty = federation.dir().join("empty");
    fs::create_dir(&empty).unwrap();
    let place = Node::new(COUNTY, &empty);
    let broken = ["restore", path_text(&cut), "--passphrase-file", path_text(&phrase)];
    place.cli(&broken).expect_failure(&["ends at byte", "备份不完整"]);
    assert_eq!(names(&empty), [""; 0]);
    // A disk that is too small for it, by what the configuration keeps free.
    federation.counties[0].stop();
    federation.counties[0].configure("disk_reserve_mb", "16000000");
    back_up(&federation.counties[0], &file, &phrase);
    place.cli(&restore).expect_failure(&["磁盘空间不足", "nearly full"]);
    assert_eq!(names(&empty), [""; 0]);
}

#[test]
fn a_quarantined_partition_comes_back_as_it_was() {
    let mut federation = Federation::new(&[COUNTY]);
    let phrase = passphrase(federation.dir(), "p");
    let file = federation.dir().join("backup");
    let table = Table::synthetic(1, 0..200, "一");
    federation.counties[0].import("enterprise", &table.write(federation.dir(), "1.csv"));
    federation.wait_converged();
    // Two histories of one county: its directory from before goes on by itself.
    back_up(&federation.counties[0], &file, &phrase);
    let write = |federation: &Federation, batch: &str| {
        let rows = Table::synthetic(1, 0..5, batch).write(federation.dir(), "2.csv");
        federation.counties[0].import("enterprise", &rows);
    };
    write(&federation, "二");
    federation.wait_converged();
    federation.hub.stop();
    lose_and_restore(&mut federation.counties[0], &file, &phrase);
    // As somebody does it who knows better.
    fs::remove_file(federation.counties[0].dir().join("certs/restored")).unwrap();
    write(&federation, "三");
    federation.hub.start();
    federation.counties[0].start();
    let quarantined = |node: &Node| {
        let held = node.partition(ENTERPRISE).unwrap();
        (held["state"] == "quarantined").then_some(held)
    };
    wait_until("the hub quarantines it", || quarantined(&federation.hub).is_some());
    let hub_file = federation.dir().join("hub.backup");
    back_up(&federation.hub, &hub_file, &phrase);
    verify(&hub_file);
    let before = quarantined(&federation.hub).unwrap();
    lose_and_restore(&mut federation.hub, &hub_file, &phrase);
    federation.hub.start();
    let after = quarantined(&federation.hub).expect("it is quarantined still");
    for field in ["head", "root", "seq", "records"] {
        assert_eq!(after[field], before[field], "{field}");
    }
}

#[test]
fn of_two_restores_into_one_directory_one_makes_a_node_and_the_other_touches_nothing() {
    let mut federation = Federation::new(&[COUNTY]);
    let phrase = passphrase(federation.dir(), "p");
    let file = federation.dir().join("backup");
    let table = Table::synthetic(1, 0..3000, "一");
    federation.counties[0].import("enterprise", &table.write(federation.dir(), "1.csv"));
    federation.wait_converged();
    back_up(&federation.counties[0], &file, &phrase);
    federation.counties[0].stop();
    let arguments = ["restore", path_text(&file), "--passphrase-file", path_text(&phrase)];
    for round in 0..4 {
        let place = Node::new(COUNTY, &federation.dir().join(format!("place-{round}")));
        let started: Vec<_> = (0..2)
            .map(|_| {
                let mut command = place.command(&arguments);
                command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
            })
            .collect();
        let outputs: Vec<_> =
            started.into_iter().map(|child| child.wait_with_output().unwrap()).collect();
        let mut codes: Vec<_> = outputs.iter().map(|output| output.status.code()).collect();
        codes.sort();
        assert_eq!(codes, [Some(0), Some(1)], "{outputs:#?}");
        place.verify_deep();
        assert_eq!(place.export(ENTERPRISE), table.to_export());
    }
}

#[test]
fn a_dataset_that_is_newer_than_the_backup_is_not_written_before_its_history_is_back() {
    let mut federation = Federation::new(&[COUNTY]);
    let phrase = passphrase(federation.dir(), "p");
    let file = federation.dir().join("backup");
    back_up(&federation.counties[0], &file, &phrase);
    let catalogue = workspace().join("config/catalogue/enterprise.toml");
    let schema = fs::read_to_string(catalogue).unwrap();
    let firms = federation.dir().join("firms.toml");
    fs::write(&firms, schema.replace("dataset = \"enterprise\"", "dataset = \"firms\"")).unwrap();
    federation.hub.cli(&["dataset", "apply", path_text(&firms)]).expect_code(0);
    let mut expected = Table::default();
    for batch in ["一", "二", "三"] {
        let table = Table::synthetic(1, 0..20, batch);
        expected.put_all(&table);
        let rows = table.write(federation.dir(), "rows.csv");
        wait_until("the county knows the dataset", || {
            federation.counties[0].cli(&["import", "firms", path_text(&rows)]).code == Some(0)
        });
        federation.wait_converged();
    }
    lose_and_restore(&mut federation.counties[0], &file, &phrase);
    federation.counties[0].start();
    let table = Table::synthetic(1, 10..40, "四");
    expected.put_all(&table);
    let rows = table.write(federation.dir(), "rows.csv");
    wait_until("it writes", || {
        federation.counties[0].cli(&["import", "firms", path_text(&rows)]).code == Some(0)
    });
    federation.wait_converged();
    let name = format!("firms/{COUNTY}");
    assert_eq!(federation.hub.partition(&name).unwrap()["seq"], 4, "no number was signed twice");
    assert_eq!(federation.hub.export(&name), expected.to_export());
    assert_eq!(federation.counties[0].alarms(), [""; 0]);
}

#[test]
fn a_backup_during_which_the_keys_change_is_none() {
    let federation = Federation::new(&[COUNTY]);
    let phrase = passphrase(federation.dir(), "p");
    // More than a pipe holds, so that it waits for its reader.
    let table = Table::synthetic(1, 0..12_000, "一");
    federation.counties[0].import("enterprise", &table.write(federation.dir(), "1.csv"));
    federation.wait_converged();
    let mut command = federation.counties[0].command(&["backup", "-", "--passphrase-file"]);
    command.arg(&phrase).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut made = command.spawn().unwrap();
    let mut out = made.stdout.take().unwrap();
    let mut bytes = vec![0; 64];
    out.read_exact(&mut bytes).unwrap();
    federation.counties[0].json(&["cert", "renew", "--signing-key"]);
    let before = federation.counties[0].signing_key();
    out.read_to_end(&mut bytes).unwrap();
    let made = made.wait_with_output().unwrap();
    let said = String::from_utf8(made.stderr).unwrap();
    assert_eq!(made.status.code(), Some(1), "{said}");
    assert!(said.contains("keys or certificates changed"), "{said}");
    let problem = check(&bytes[..], None, &mut |_| ()).unwrap_err();
    assert!(matches!(problem, BackupError::Cut { .. }), "{problem}");
    // The next one is good, with the key that signs now.
    let file = federation.dir().join("backup");
    back_up(&federation.counties[0], &file, &phrase);
    verify(&file);
    assert_eq!(federation.counties[0].signing_key(), before);
    federation.finish();
}
