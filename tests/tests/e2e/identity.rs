//! Nodes that fall out of their federation and come back: a certificate that
//! ended, an authority that was retired, a revocation, a lost directory. They
//! are told what to do in plain words, and one token brings them back.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use harness::{
    federation::{Federation, HUB, Making},
    node::{DEADLINE, Node, path_text, wait_for_ok, wait_until},
    relay::{Relay, Weather},
    table::{Table, synthetic_code},
};
use serde_json::{Value as Json, json};

/// The county that falls out.
const COUNTY: &str = "410122";
/// The one that notices nothing.
const OTHER: &str = "410181";
/// Packets of several attempts to connect: each takes four or more.
const ATTEMPTS_PACKETS: u64 = 40;

/// A hub with two counties. Everything between the first and the hub goes through
/// a relay, which counts its attempts.
struct Case {
    federation: Federation,
    relay: Relay,
    /// What the first county has imported.
    table: Table,
    /// What the other one has.
    other: Table,
}

impl Case {
    fn new(hub: &[(&str, &str)]) -> Self {
        let mut federation = Federation::made(&Making { hub, ..Making::default() });
        let weather = Weather { loss_percent: 0, delay: Duration::ZERO, seed: 1 };
        let relay = Relay::start(federation.address(), weather);
        let dir = federation.dir().join(COUNTY);
        federation.add_county_in(COUNTY, &dir, relay.address());
        federation.add_county(OTHER);
        federation.wait_connected();
        let (table, other) = Default::default();
        let mut case = Self { federation, relay, table, other };
        case.import();
        case.check_other();
        case.federation.wait_converged();
        case
    }

    fn hub(&self) -> &Node {
        &self.federation.hub
    }

    fn county(&mut self) -> &mut Node {
        &mut self.federation.counties[0]
    }

    fn file(&self, table: &Table) -> PathBuf {
        table.write(self.federation.dir(), "delivery.csv")
    }

    /// The first county changes all its rows and adds one; works without its
    /// daemon too.
    #[track_caller]
    fn import(&mut self) {
        let rows = u32::try_from(self.table.len()).unwrap() + 1;
        self.table = Table::synthetic(1, 0..rows, &format!("第{rows}次"));
        let file = self.file(&self.table);
        self.county().import("enterprise", &file);
    }

    /// The hub has all that the county has imported.
    #[track_caller]
    fn wait_arrived(&self) {
        let name = format!("enterprise/{COUNTY}");
        wait_for_ok("everything has arrived", DEADLINE, || {
            if self.hub().cli(&["export", &name]).stdout == self.table.to_export() {
                Ok(())
            } else {
                Err(format!("{:#?}", self.hub().partition(&name)))
            }
        });
    }

    /// The other county works all the time.
    #[track_caller]
    fn check_other(&mut self) {
        let rows = u32::try_from(self.other.len()).unwrap() + 1;
        self.other = Table::synthetic(2, 0..rows, &format!("第{rows}次"));
        let file = self.file(&self.other);
        self.federation.counties[1].import("enterprise", &file);
        let name = format!("enterprise/{OTHER}");
        wait_until("the other county's import arrives", || {
            self.hub().cli(&["export", &name]).stdout == self.other.to_export()
        });
    }

    /// Waits until the county has tried several times.
    fn wait_attempts(&self) {
        let passed = || self.relay.counts().0;
        let before = passed();
        wait_until("the county tries again", || passed() > before + ATTEMPTS_PACKETS);
    }

    /// One token brings the county back, whether its daemon runs or not; answers
    /// what the command said.
    #[track_caller]
    fn join_again(&mut self, running: bool) -> String {
        let address = self.relay.address().to_string();
        let token = self.federation.invite(COUNTY, &["--address", &address]);
        let county = self.county();
        match (running, county.is_running()) {
            (true, false) => county.start(),
            (false, true) => county.stop(),
            _ => {}
        }
        let joined = county.cli(&["join", &token]).expect_code(0);
        assert_eq!(joined.stdout, "");
        if !running {
            county.start();
        }
        county.wait_connected(HUB);
        joined.stderr
    }

    /// The signing keys that the federation knows of the county.
    fn keys(&self) -> Vec<Json> {
        let shown = self.hub().json(&["node", "show", COUNTY]);
        shown["signing_keys"].as_array().unwrap().clone()
    }
}

/// Waits until the node's own certificate has ended.
#[track_caller]
fn wait_ended(node: &Node) {
    wait_until("the certificate has ended", || {
        let checked = node.cli(&["cert", "check", "--days", "0", "--json"]);
        let ending = checked.json()["ending"].as_array().unwrap().clone();
        checked.code == Some(3) && ending.iter().any(|one| one["what"] == "this node's certificate")
    });
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(copied.success());
}

#[test]
fn a_county_that_slept_too_long_is_told_and_comes_back_with_one_token() {
    let mut case = Case::new(&[("lifetime_s", "8")]);
    let key = case.county().signing_key();
    for (slept, running) in [(1, true), (2, false)] {
        case.county().stop();
        wait_ended(case.county());
        case.import();
        case.import();
        let told = |node: &Node, words: &[&str]| node.log_lines(words).len();
        case.county().start();
        let reason = case.county().wait_reason(HUB, &["certificate ended on", "creditsync join"]);
        assert!(reason.contains(&format!("creditsync invite {COUNTY}")), "{reason}");
        let reason =
            case.hub().wait_reason(COUNTY, &[COUNTY, "expired on", "creditsync invite 410122"]);
        assert!(reason.contains("clock"), "{reason}");
        case.import();
        case.wait_attempts();
        case.check_other();
        // Each side has said so once, however often it was tried.
        assert_eq!(told(case.county(), &["WARN", "certificate ended on"]), slept);
        assert_eq!(told(case.hub(), &["WARN", "expired on"]), slept);
        let behind = case.hub().partition(&format!("enterprise/{COUNTY}")).unwrap();
        assert_eq!(behind["state"], "behind", "{behind:#}");

        let said = case.join_again(running);
        assert!(said.contains("what was not sent yet are as before"), "{said}");
        assert!(!said.contains("a new one signs"), "{said}");
        case.wait_arrived();
        assert_eq!(case.county().signing_key(), key);
        assert_eq!(case.keys().len(), 1);
        assert_eq!(case.hub().peer(COUNTY)["reason"], Json::Null);
    }
    case.federation.finish();
}

/// Begins a rotation and forces it to its end although the first county is away.
#[track_caller]
fn rotate_without_the_county(case: &Case, root: bool) {
    let hub = case.hub();
    let begin: &[&str] = if root { &["ca", "rotate", "--root"] } else { &["ca", "rotate"] };
    hub.json(begin);
    for step in ["activate", "retire"] {
        // The other county follows by itself.
        wait_until("only the one that is away is waited for", || {
            let shown = hub.json(&["ca", "show"]);
            shown["next_step"] == step && shown["waiting_for"] == json!([COUNTY])
        });
        let refused = hub.cli(&["ca", "rotate", "--json"]).expect_code(3).json();
        assert_eq!((&refused["step"], &refused["to"]), (&"waiting".into(), &step.into()));
        assert_eq!(refused["waiting_for"], json!([COUNTY]));
        let advice = refused["next"].as_str().unwrap();
        assert!(advice.contains("--force") && advice.contains("creditsync invite"), "{advice}");
        let text = hub.cli(&["ca", "rotate"]).expect_code(3).stdout;
        assert!(text.contains(&format!("waiting for: {COUNTY}")), "{text}");
        assert_eq!(hub.json(&["ca", "show"])["next_step"], step, "nothing was done");
        if !root {
            let another = hub.cli(&["ca", "rotate", "--root", "--force"]);
            another.expect_failure(&["of the issuing CA alone is under way", "creditsync ca show"]);
        }
        hub.json(&["ca", "rotate", "--force", "--yes"]);
    }
    assert_eq!(hub.json(&["ca", "show"])["next_step"], "none");
}

#[test]
fn who_is_away_is_waited_for_and_if_left_behind_comes_back_with_one_token() {
    let mut case = Case::new(&[]);
    let key = case.county().signing_key();
    for (root, running) in [(false, false), (true, true), (true, false)] {
        case.county().stop();
        rotate_without_the_county(&case, root);
        case.import();
        case.check_other();
        let before = case.county().log_lines(&["WARN", "not connected to the hub"]).len();
        case.county().start();
        case.county().wait_reason(HUB, &["creditsync join"]);
        case.import();
        case.wait_attempts();
        let told = case.county().log_lines(&["WARN", "not connected to the hub"]);
        assert_eq!(told.len(), before + 1, "{told:#?}");

        case.join_again(running);
        case.wait_arrived();
        assert_eq!(case.county().signing_key(), key);
        wait_until("one root is trusted", || {
            let status = case.county().status();
            let all = status["certificates"].as_array().unwrap().iter();
            all.filter(|one| one["kind"] == "root").count() == 1
        });
    }
    case.federation.finish();
}

#[test]
fn a_revocation_bites_at_once_and_can_be_taken_back() {
    let mut case = Case::new(&[]);
    let name = format!("enterprise/{COUNTY}");
    let refused = case.hub().cli(&["node", "remove", COUNTY]).expect_failure(&["is not revoked"]);
    assert!(refused.stderr.contains(&format!("creditsync revoke {COUNTY}")), "{refused:?}");
    let first = case.county().signing_key();

    case.hub().json(&["revoke", COUNTY, "--reason", "设备遗失"]);
    case.hub().wait_reason(COUNTY, &["revoked"]);
    case.county().wait_reason(HUB, &["revoked", "creditsync join"]);
    // Whoever watches the county's certificates hears of it at once, and in two languages.
    let check = case.county().cli(&["cert", "check"]).expect_code(3).stdout;
    assert!(
        check.contains("lets this node in no more: revoked") && check.contains("吊销"),
        "{check}"
    );
    let invited = case.hub().cli(&["invite", COUNTY]).expect_code(0).stderr;
    assert!(invited.contains("is revoked") && !invited.contains("a member already"), "{invited}");
    let before = case.table.clone();
    case.import();
    case.wait_attempts();
    assert_eq!(case.county().peer(HUB)["connected"], false);
    assert_eq!(case.county().log_lines(&["WARN", "revoked"]).len(), 1);
    // What it owned stays readable, and is marked.
    let marked = case.hub().partition(&name).unwrap();
    assert_eq!((&marked["revoked"], &marked["state"]), (&true.into(), &"behind".into()));
    assert!(marked["reason"].as_str().unwrap().contains("设备遗失"), "{marked:#}");
    assert_eq!(case.hub().peer(COUNTY)["revoked"], true);
    assert_eq!(case.hub().export(&name), before.to_export());
    assert_eq!(case.hub().json(&["get", "enterprise", &synthetic_code(1, 0)])[0]["origin"], COUNTY);
    assert_eq!(case.hub().json(&["revoke", COUNTY])["changed"], false);
    case.check_other();
    // Also after a restart of either.
    case.federation.hub.restart();
    case.county().restart();
    case.county().wait_reason(HUB, &["revoked", "creditsync join"]);
    case.check_other();

    for (round, running) in [(1, true), (2, false)] {
        let said = case.join_again(running);
        assert!(said.contains("a new one signs from now on"), "{said}");
        case.wait_arrived();
        let keys = case.keys();
        assert_eq!(keys.len(), round + 1, "{keys:#?}");
        let (old, new) = (&keys[round - 1], &keys[round]);
        assert_eq!((&old["revoked"], &new["revoked"]), (&true.into(), &false.into()));
        assert_eq!((&new["by"], &new["last"]), (&"reenrolment".into(), &Json::Null));
        assert_eq!(new["id"], case.county().signing_key().as_str());
        assert_ne!(new["id"], first.as_str());
        // The unsent change of the revoked key was signed anew.
        assert_eq!(
            old["last"][&name],
            case.hub().partition(&name).unwrap()["seq"].as_u64().unwrap() - 1
        );
        assert_eq!(case.hub().partition(&name).unwrap()["revoked"], false);
        case.federation.wait_converged();
        case.hub().verify_deep();
        case.county().verify_deep();
        if round == 1 {
            // And once more, this time for good as it seems.
            case.hub().json(&["revoke", COUNTY]);
            let removed = case.hub().json(&["node", "remove", COUNTY]);
            case.county().wait_reason(HUB, &[]);
            let shown = case.hub().json(&["node", "show", COUNTY]);
            assert_eq!(shown["removed"], true);
            // What stays is said, and how it is dropped.
            let records = case.hub().partition(&name).unwrap()["records"].clone();
            assert_eq!(removed["kept"], json!([{ "partition": name, "records": records }]));
            assert_eq!(shown["kept"], removed["kept"]);
            let listed = case.hub().json(&["node", "list"])["nodes"].clone();
            let kept = listed.as_array().unwrap().iter().find(|one| one["node"] == COUNTY).unwrap();
            assert_eq!(kept["partitions"], 1);
            let text = case.hub().cli(&["node", "remove", COUNTY]).expect_code(0).stdout;
            let drop = format!("creditsync partition refetch {name} --yes");
            assert!(text.contains(&drop) && text.contains("分区"), "{text}");
            let invited = case.hub().cli(&["invite", COUNTY]).expect_code(0).stderr;
            assert!(invited.contains("was removed from the federation"), "{invited}");
            assert_eq!(case.hub().export(&name), case.table.to_export());
            case.import();
            case.wait_attempts();
            assert_eq!(case.county().peer(HUB)["connected"], false);
            case.check_other();
        }
    }
    case.federation.finish();
}

#[test]
fn what_stays_of_a_node_that_left_is_dropped_when_a_person_asks() {
    let case = Case::new(&[]);
    let (hub, name) = (&case.federation.hub, format!("enterprise/{COUNTY}"));
    let other = hub.json(&["node", "show", OTHER])["kept"].clone();
    hub.json(&["revoke", COUNTY]);
    hub.json(&["node", "remove", COUNTY]);
    assert_eq!(hub.export(&name), case.table.to_export());
    assert_eq!(hub.json(&["node", "show", COUNTY])["kept"][0]["partition"], name.as_str());
    hub.cli(&["partition", "refetch", &name]).expect_failure(&["not connected", "--yes"]);
    let dropped = hub.cli(&["partition", "refetch", &name, "--yes"]).expect_code(0).stdout;
    assert!(
        dropped.contains("nobody brings it back") && dropped.contains("不会重新获取"),
        "{dropped}"
    );
    assert_eq!(hub.json(&["node", "show", COUNTY])["kept"], json!([]));
    let text = hub.cli(&["node", "remove", COUNTY]).expect_code(0).stdout;
    assert!(text.contains("nothing of it is stored here"), "{text}");
    hub.cli(&["export", &name]).expect_code(1);
    assert_eq!(hub.json(&["node", "show", OTHER])["kept"], other, "nobody else's is touched");
}

#[test]
fn one_certificate_can_be_revoked_alone() {
    let mut case = Case::new(&[]);
    let key = case.county().signing_key();
    let serial = |node: &Node| node.certificate()["serial"].as_str().unwrap().to_owned();
    let copied = case.federation.dir().join("copied");
    let revoked = serial(case.county());

    // A copy of the directory was stolen: the county first takes another
    // certificate, then the one in the copy is revoked, and nobody here notices.
    case.county().stop();
    copy(case.county().dir(), &copied);
    case.county().start();
    case.county().wait_connected(HUB);
    case.county().json(&["cert", "renew"]);
    let renewed = serial(case.county());
    assert_ne!(renewed, revoked);
    wait_until("the connection is one of the new certificate", || {
        case.hub().json(&["node", "show", COUNTY])["seen"]["serial"] == renewed.as_str()
    });
    case.hub().json(&["revoke", COUNTY, "--serial", &revoked]);
    case.import();
    case.wait_arrived();
    let mut thief = Node::new(COUNTY, &copied);
    thief.start();
    thief.wait_reason(HUB, &["revoked"]);
    assert_eq!(case.county().peer(HUB)["connected"], true);
    thief.kill_9();

    // The certificate in use is revoked: its connection ends at once. Without a
    // connection nothing can be renewed, so it takes a token; nothing else is
    // lost.
    case.hub().json(&["revoke", COUNTY, "--serial", &renewed, "--reason", "密钥外泄"]);
    case.county().wait_reason(HUB, &["revoked", "creditsync join"]);
    case.import();
    case.county().cli(&["cert", "renew"]).expect_failure(&["not connected to its hub"]);
    case.wait_attempts();
    assert_eq!(case.county().peer(HUB)["connected"], false);
    assert_eq!(case.hub().partition(&format!("enterprise/{COUNTY}")).unwrap()["revoked"], false);
    case.check_other();
    case.join_again(true);
    case.wait_arrived();
    assert_eq!(case.county().signing_key(), key);
    let shown = case.hub().json(&["node", "show", COUNTY]);
    assert_eq!(shown["revocations"].as_array().unwrap().len(), 2, "{shown:#}");
    assert_eq!(shown["revoked"], false);
    case.federation.finish();
}

#[test]
fn a_lost_directory_is_made_again_and_the_old_one_is_silenced() {
    let mut case = Case::new(&[]);
    let address = case.relay.address().to_string();
    case.county().stop();
    let (dir, old) = (case.county().dir().to_owned(), case.federation.dir().join("old"));
    fs::rename(&dir, &old).unwrap();

    let token = case.federation.invite(COUNTY, &["--address", &address]);
    let mut county = Node::new(COUNTY, &dir);
    county.cli(&["join", &token]).expect_code(0);
    county.configure("retry_max_s", "1");
    // Before it has met the hub it does not know what the old one has signed.
    let file = case.file(&Table::synthetic(1, 0..3, "新目录"));
    let import = ["import", "enterprise", path_text(&file)];
    county.cli(&import).expect_failure(&["earlier signing key", "Let the daemon run and connect"]);
    county.start();
    case.federation.counties[0] = county;
    let name = format!("enterprise/{COUNTY}");
    let table = case.table.clone();
    wait_for_ok("the county has its own history again", DEADLINE, || {
        let own = case.county().partition(&name);
        let back = own.is_some() && case.county().export(&name) == table.to_export();
        if back { Ok(()) } else { Err(format!("{own:#?}")) }
    });
    case.import();
    case.wait_arrived();
    let keys = case.keys();
    assert_eq!(keys.len(), 2, "{keys:#?}");
    assert_eq!(keys[1]["by"], "reenrolment");
    case.federation.wait_converged();

    // The old directory turns up again and is started.
    let mut found = Node::new(COUNTY, &old);
    found.start();
    // Joining again has ended the certificates from before it. What is imported
    // here would never arrive, so nothing is.
    found.wait_reason(HUB, &["superseded", "switch it off"]);
    wait_until("it raises the alarm", || {
        found.alarms().iter().any(|alarm| alarm.contains("this directory is the old one"))
    });
    let file = case.file(&Table::synthetic(1, 0..3, "旧目录"));
    let import = ["import", "enterprise", path_text(&file)];
    found.cli(&import).expect_failure(&["this directory is the old one"]);
    found.cli(&["cert", "check"]).expect_code(3);
    found.stop();
    found.cli(&import).expect_failure(&["this directory is the old one"]);
    found.start();
    found.cli(&import).expect_failure(&["this directory is the old one"]);
    found.stop();
    case.county().wait_connected(HUB);
    case.import();
    case.wait_arrived();
    case.federation.wait_converged();
    case.hub().verify_deep();
    case.county().verify_deep();
    case.county().assert_no_errors();

    // Joining again while it runs and is connected is not taken for that.
    let token = case.federation.invite(COUNTY, &["--address", &address]);
    case.county().cli(&["join", &token]).expect_code(0);
    case.import();
    case.wait_arrived();
    case.federation.wait_converged();
    case.county().assert_no_errors();

    // Nor does it stay so if the hub lets this directory in all the same.
    case.county().stop();
    fs::write(dir.join("certs/superseded"), "this directory is the old one").unwrap();
    case.file(&Table::synthetic(1, 0..3, "旧目录"));
    case.county().cli(&import).expect_failure(&["this directory is the old one"]);
    case.county().start();
    wait_until("it writes again", || {
        case.county().peer(HUB)["connected"] == true && case.county().alarms().is_empty()
    });
    case.import();
    case.wait_arrived();
}

#[test]
fn counties_follow_the_hubs_signing_key_also_after_a_theft() {
    let mut case = Case::new(&[]);
    let of_hub = |case: &Case, batch: &str| {
        let table = Table::synthetic(3, 0..5, batch);
        case.hub().import("enterprise", &case.file(&table));
    };
    of_hub(&case, "一");
    case.federation.wait_converged();
    // Both while one county is away.
    case.county().stop();
    case.hub().json(&["cert", "renew", "--signing-key"]);
    of_hub(&case, "二");
    case.county().start();
    case.federation.wait_converged();

    case.county().stop();
    let stolen = case.hub().json(&["cert", "renew", "--signing-key", "--stolen"]);
    assert_eq!(stolen["epoch"], 2);
    of_hub(&case, "三");
    case.import();
    case.check_other();
    case.county().start();
    case.wait_arrived();
    case.federation.wait_converged();
    for county in &case.federation.counties {
        assert_eq!(county.json(&["cert", "show"])["anchor_epoch"], 2, "{}", county.name());
    }
    // Tokens carry the new anchor.
    case.federation.add_county("410183");
    case.federation.wait_converged();
    let keys = case.hub().json(&["node", "show", HUB])["signing_keys"].as_array().unwrap().clone();
    let by: Vec<&Json> = keys.iter().map(|key| &key["by"]).collect();
    assert_eq!(by, ["anchor", "succession", "anchor"]);
    assert_eq!(keys[2]["id"], case.hub().signing_key().as_str());
    case.federation.finish();
}

#[test]
fn what_a_thief_signed_as_the_hub_is_dropped_once_the_root_has_spoken() {
    let mut case = Case::new(&[]);
    let thief = case.federation.dir().join("thief");
    let seq = |node: &Node| node.partition(&format!("_federation/{HUB}")).unwrap()["seq"].clone();
    // Somebody has a copy of the hub's directory, and stands in its place.
    case.federation.hub.stop();
    copy(case.hub().dir(), &thief);
    let mut thief = Node::new(HUB, &thief);
    thief.start();
    thief.json(&["revoke", OTHER, "--reason", "forged"]);
    let forged = seq(&thief);
    wait_until("the county believes it", || seq(case.county()) == forged);
    thief.kill_9();
    // Signed while it did, and refused by the true hub as it stands.
    case.import();

    case.hub().json(&["cert", "renew", "--signing-key", "--stolen"]);
    case.federation.hub.start();
    case.wait_arrived();
    assert_eq!(case.county().log_lines(&["has named a new signing key of the hub"]).len(), 1);
    // Each drops the list of members, and has no catalogue until that is here again.
    let members = format!("_federation/{HUB}");
    let newest = case.hub().partition(&members).unwrap()["head"].clone();
    for node in &case.federation.counties {
        wait_until("the list of members is here again", || {
            node.partition(&members).is_some_and(|held| held["head"] == newest)
        });
    }
    case.import();
    case.wait_arrived();
    case.check_other();
    case.federation.wait_converged();
    for node in case.federation.nodes() {
        node.verify_deep();
        let shown = node.json(&["node", "show", OTHER]);
        assert_eq!(shown["revoked"], false, "{}: {shown:#}", node.name());
    }
    // And it lasts.
    case.county().restart();
    case.import();
    case.wait_arrived();
    case.federation.wait_converged();
}
