//! Where private keys lie: a root key that is taken away, keys that are
//! encrypted, and what the commands about certificates say, with a daemon and
//! without.

use std::{fs, path::Path};

use harness::{
    federation::{Federation, HUB, Making},
    node::{DEADLINE, Node, path_text, wait_for_ok, wait_until},
    table::Table,
};
use serde_json::Value as Json;

const COUNTY: &str = "410122";

/// What is imported at the county arrives.
#[track_caller]
fn check(federation: &Federation, rows: u32) {
    let table = Table::synthetic(1, 0..rows, "一");
    let file = table.write(federation.dir(), "delivery.csv");
    federation.counties[0].import("enterprise", &file);
    federation.wait_converged();
    assert_eq!(federation.hub.export(&format!("enterprise/{COUNTY}")), table.to_export());
}

/// Waits until the rotation that is under way is done.
#[track_caller]
fn wait_rotated(hub: &Node, root: u64, issuing: u64) {
    wait_for_ok("rotated", DEADLINE, || {
        let shown = hub.json(&["ca", "show"]);
        let well = shown["next_step"] == "none"
            && (&shown["root"], &shown["issuing"]) == (&root.into(), &issuing.into());
        if well { Ok(()) } else { Err(format!("{shown:#}")) }
    });
}

#[test]
fn a_root_key_that_is_taken_away_is_only_needed_for_another_authority() {
    let stick = tempfile::tempdir().unwrap();
    let (there, away) = (stick.path().join("root-key"), stick.path().join("safe"));
    let init = ["--root-key", path_text(&there)];
    let mut federation = Federation::made(&Making { init: &init, ..Making::default() });
    let hub_keys = federation.hub.dir().join("keys/root.key");
    assert!(there.join("root.key").exists() && !hub_keys.exists());
    fs::rename(&there, &away).unwrap();

    // Everything of every day goes on.
    federation.add_county(COUNTY);
    federation.wait_connected();
    federation.hub.restart();
    federation.wait_connected();
    federation.counties[0].json(&["cert", "renew"]);
    federation.counties[0].json(&["cert", "renew", "--signing-key"]);
    federation.hub.json(&["cert", "renew"]);
    federation.hub.json(&["cert", "renew", "--signing-key"]);
    check(&federation, 1);
    let shown = federation.hub.json(&["ca", "show"]);
    assert_eq!(shown["authorities"][0]["key_here"], false, "{shown:#}");

    // What needs it says so, and where it was looked for.
    let missing = there.join("root.key");
    for command in [
        &["ca", "rotate"][..],
        &["ca", "rotate", "--root"],
        &["cert", "renew", "--signing-key", "--stolen"],
    ] {
        federation.hub.cli(command).expect_failure(&[path_text(&missing), "--root-key"]);
    }
    let shown = federation.hub.json(&["ca", "show"]);
    assert_eq!((&shown["next_step"], &shown["anchor_epoch"]), (&"none".into(), &1.into()));

    let at = path_text(&away);
    federation.hub.json(&["ca", "rotate", "--root-key", at]);
    wait_rotated(&federation.hub, 1, 2);
    federation.hub.json(&["ca", "rotate", "--root", "--root-key", at]);
    wait_rotated(&federation.hub, 2, 3);
    assert!(
        away.join("root-2.key").exists() && !federation.hub.dir().join("keys/root-2.key").exists()
    );
    federation.hub.json(&["cert", "renew", "--signing-key", "--stolen", "--root-key", at]);
    check(&federation, 2);
    federation.finish();
}

#[test]
fn encrypted_keys_need_the_passphrase_at_each_start_and_lie_nowhere_plain() {
    let secret = tempfile::tempdir().unwrap();
    let passphrase = secret.path().join("passphrase");
    fs::write(&passphrase, "信用 correct horse\n").unwrap();
    set_mode(&passphrase, 0o600);
    let variable = "CREDITSYNC_PASSPHRASE_FILE";
    let mut federation = Federation::made(&Making {
        environment: &[(variable, path_text(&passphrase))],
        ..Making::default()
    });
    federation.add_county(COUNTY);
    check(&federation, 1);
    federation.counties[0].json(&["cert", "renew"]);
    federation.counties[0].json(&["cert", "renew", "--signing-key"]);
    federation.hub.json(&["ca", "rotate", "--root"]);
    wait_rotated(&federation.hub, 2, 2);
    check(&federation, 2);
    for node in federation.nodes() {
        for key in fs::read_dir(node.dir().join("keys")).unwrap().map(|entry| entry.unwrap().path())
        {
            let text = fs::read(&key).unwrap();
            if key.extension().is_some_and(|end| end == "key") {
                let text = String::from_utf8(text).unwrap();
                assert!(
                    text.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"),
                    "{key:?}: {text}"
                );
            } else {
                let text = String::from_utf8_lossy(&text).into_owned();
                assert!(!text.contains("PRIVATE KEY"), "{key:?}");
            }
        }
    }
    // Without it a node says what to do, and with a wrong one too.
    for at in [0, 1] {
        let node = if at == 0 { &mut federation.hub } else { &mut federation.counties[0] };
        node.stop();
        node.set_environment(variable, None);
        let problem = node.try_start().unwrap_err();
        assert!(problem.contains("encrypted") && problem.contains(variable), "{problem}");
        let wrong = secret.path().join("wrong");
        fs::write(&wrong, "something else").unwrap();
        set_mode(&wrong, 0o600);
        node.set_environment(variable, Some(path_text(&wrong)));
        let problem = node.try_start().unwrap_err();
        assert!(problem.contains("passphrase"), "{problem}");
        node.set_environment(variable, Some(path_text(&passphrase)));
        node.start();
    }
    check(&federation, 3);
    federation.finish();
}

fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn certificates_are_shown_and_checked_with_a_daemon_and_without() {
    let mut federation = Federation::new(&[COUNTY]);
    check(&federation, 1);
    let looks = |node: &Node| {
        let shown = node.json(&["cert", "show"]);
        let own = &shown["certificates"][0];
        assert_eq!(own["kind"], "node");
        let uri = format!("spiffe://test-city/node/{}", node.name());
        assert_eq!(own["identity"], uri.as_str());
        assert!(own["not_after"].as_str() > own["renews_at"].as_str(), "{own:#}");
        assert!(own["renews_at"].as_str() > own["not_before"].as_str(), "{own:#}");
        let keys = shown["signing_keys"].as_array().unwrap();
        assert_eq!(keys.last().unwrap()["id"], shown["signing_key"]);
        assert_eq!(node.status()["certificates"], shown["certificates"]);
        let text = node.cli(&["cert", "show"]).expect_code(0).stdout;
        assert!(text.contains(&uri), "{text}");

        let well = node.cli(&["cert", "check", "--days", "0", "--json"]).expect_code(0).json();
        assert_eq!((&well["ok"], &well["ending"]), (&true.into(), &Json::Array(vec![])));
        assert_eq!(node.cli(&["cert", "check"]).expect_code(0).stdout.lines().count(), 1);
        let soon = node.cli(&["cert", "check", "--days", "31", "--json"]).expect_code(3).json();
        assert_eq!(soon["ok"], false);
        let what: Vec<&str> = soon["ending"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["what"].as_str().unwrap())
            .collect();
        assert!(what.contains(&"this node's certificate"), "{what:?}");
        assert_eq!(what.iter().any(|what| what.contains(COUNTY)), node.name() == HUB, "{what:?}");
        let all = node.cli(&["cert", "check", "--days", "4000"]).expect_code(3).stdout;
        assert!(all.contains("creditsync ca rotate --root"), "{all}");
        assert_eq!(all.contains("issuing CA 1"), node.name() == HUB, "{all}");
    };
    wait_until("the county was seen", || {
        !federation.hub.json(&["node", "show", COUNTY])["seen"].is_null()
    });
    federation.nodes().for_each(looks);
    // Authorities are the hub's.
    federation.counties[0].cli(&["ca", "show"]).expect_failure(&[HUB]);
    federation.counties[0].stop();
    federation.hub.stop();
    federation.nodes().for_each(looks);
    federation.hub.json(&["ca", "show"]);
    federation.counties[0].cli(&["cert", "renew"]).expect_failure(&["not connected to its hub"]);
    federation.hub.json(&["cert", "renew"]);
    federation.hub.start();
    federation.counties[0].start();
    check(&federation, 2);
    federation.finish();
}
