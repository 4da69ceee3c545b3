//! The hub moves: its members hear of it ahead of time, those that were away are told
//! by hand, and what is not an address is refused in words.

use std::{fs, net::SocketAddr, path::Path};

use harness::{
    federation::{Federation, HUB, free_address},
    node::{DEADLINE, Node, path_text, wait_for, wait_for_ok},
    table::Table,
};
use serde_json::json;

const COUNTY: &str = "410122";
const AWAY: &str = "410181";

/// The announcement's answer, as it stands in JSON; exit code 3 if somebody has not
/// heard.
#[track_caller]
fn announce(hub: &Node, addresses: &[&str], code: i32) -> serde_json::Value {
    let arguments = [&["hub", "move"], addresses, &["--json"]].concat();
    hub.cli(&arguments).expect_code(code).json()
}

/// The hub listens elsewhere from its next start on.
fn move_to(hub: &mut Node, address: SocketAddr) {
    hub.stop();
    hub.configure("address", &format!("\"{address}\""));
    hub.start();
}

/// Waits until a county is connected by this address, as its status names it.
#[track_caller]
fn wait_dialled(county: &Node, address: &str) {
    wait_for_ok(&format!("{} is connected by {address}", county.name()), DEADLINE, || {
        let peer = county.peer(HUB);
        let well = peer["connected"] == true && peer["dialled"] == address;
        if well { Ok(()) } else { Err(format!("{peer:#}")) }
    });
}

/// Each time other rows.
fn import(county: &Node, dir: &Path, batch: u32) {
    let owner = if county.name() == COUNTY { 1 } else { 2 };
    let table = Table::synthetic(owner, batch * 30..batch * 30 + 30, "moved");
    let file = table.write(dir, &format!("{}-{batch}.csv", county.name()));
    county.import("enterprise", &file);
}

#[test]
fn the_hub_moves_and_who_was_away_comes_back_by_hand_or_by_a_token() {
    let mut federation = Federation::new(&[COUNTY, AWAY]);
    let old = federation.address().to_string();
    let dir = federation.dir().to_owned();
    import(&federation.counties[0], &dir, 1);
    federation.wait_converged();

    let shown = announce(&federation.hub, &[], 0);
    assert_eq!(
        (&shown["announced"], &shown["addresses"]),
        (&json!(false), &json!([old])),
        "{shown:#}"
    );
    federation.invite("410182", &[]);
    federation.counties[1].stop();
    let new = free_address();
    let new_text = new.to_string();
    let answer = announce(&federation.hub, &[&old, &new_text], 3);
    assert_eq!(answer["addresses"], json!([old, new_text]), "{answer:#}");
    assert_eq!(answer["waiting_for"], json!([AWAY]), "{answer:#}");
    assert_eq!(answer["invited_before"], json!(["410182"]), "{answer:#}");
    let heard = &answer["members"][0];
    assert_eq!((&heard["node"], &heard["heard"]), (&json!(COUNTY), &json!(true)));
    // The same again changes nothing, and neither does looking.
    let again = announce(&federation.hub, &[&old, &new_text], 3);
    assert_eq!(
        (&again["changed"], &again["federation_seq"]),
        (&json!(false), &answer["federation_seq"])
    );
    assert_eq!(announce(&federation.hub, &[], 3)["addresses"], answer["addresses"]);
    // A connection that works stays.
    let county = federation.counties[0].handle();
    wait_dialled(&county, &old);
    assert_eq!(county.status()["hub_addresses"], json!([old, new_text]));

    move_to(&mut federation.hub, new);
    // Its first address is dead by now, and keeps it waiting for seconds only.
    wait_dialled(&county, &new_text);
    import(&county, &dir, 2);

    // Who has heard nothing stays away, and says where it has looked.
    federation.counties[1].start();
    let away = federation.counties[1].handle();
    away.wait_reason(HUB, &["no answer"]);
    assert_eq!(away.status()["hub_addresses"], json!([old]));
    federation.counties[1].stop();
    away.configure("addresses", &format!("[\"{new_text}\"]"));
    federation.counties[1].start();
    wait_dialled(&away, &new_text);
    wait_for("all have heard", DEADLINE, || federation.hub.cli(&["hub", "move"]).code == Some(0));
    let answer = announce(&federation.hub, &[&new_text], 0);
    assert_eq!((&answer["waiting_for"], &answer["away"]), (&json!([]), &json!([])));
    import(&away, &dir, 3);
    federation.wait_converged();
    assert_eq!(county.status()["hub_addresses"], json!([new_text, old]), "what it had is kept");
    federation.counties[0].restart();
    wait_dialled(&county, &new_text);
    federation.finish();
}

#[test]
fn a_token_of_the_hub_in_its_new_place_brings_a_running_county_back() {
    let mut federation = Federation::new(&[COUNTY]);
    let dir = federation.dir().to_owned();
    let new = free_address();
    let new_text = new.to_string();
    let county = federation.counties[0].handle();
    let path = county.dir().join("creditsync.toml");
    let with_note = format!("{}\n# 本县的备注\n", fs::read_to_string(&path).unwrap());
    fs::write(&path, &with_note).unwrap();
    federation.counties[0].stop();
    move_to(&mut federation.hub, new);
    federation.counties[0].start();
    county.wait_reason(HUB, &["no answer"]);
    import(&county, &dir, 1);

    // Without a word to invite: what was announced is what tokens carry.
    announce(&federation.hub, &[&new_text], 3);
    let token = federation.invite(COUNTY, &[]);
    let said = county.cli(&["join", &token]).expect_code(0);
    assert!(said.stderr.contains("中的市级中心地址已改为"), "{said:#?}");
    wait_dialled(&county, &new_text);
    // Nothing but the addresses has changed in the file.
    let old = format!("addresses = [\"{}\"]", federation.address());
    assert!(with_note.contains(&old));
    let wanted = with_note.replace(&old, &format!("addresses = [\"{new_text}\"]"));
    assert_eq!(fs::read_to_string(&path).unwrap(), wanted);
    federation.counties[0].restart();
    federation.finish();
}

#[test]
fn a_hub_that_dies_in_the_middle_of_a_move_has_announced_it_or_not() {
    let mut federation = Federation::new(&[COUNTY]);
    let (old, new) = (federation.address().to_string(), free_address());
    let new_text = new.to_string();
    federation.hub.stop();
    federation.hub.try_start_to_crash("hub.moved").unwrap();
    let said = federation.hub.cli(&["hub", "move", &old, &new_text]);
    assert_eq!(said.code, Some(1), "{said:#?}");
    federation.hub.wait_crashed("hub.moved");
    // It was durable before anybody could hear of it.
    let answer = announce(&federation.hub, &[], 3);
    assert_eq!(answer["addresses"], json!([old, new_text]), "{answer:#}");
    federation.hub.start();
    let county = federation.counties[0].handle();
    wait_for("the county has heard", DEADLINE, || {
        federation.hub.cli(&["hub", "move"]).code == Some(0)
    });
    federation.hub.kill_9();
    federation.hub.configure("address", &format!("\"{new}\""));
    federation.hub.start();
    wait_dialled(&county, &new_text);
    // Without a daemon the same is done, and nobody hears of it yet.
    federation.hub.stop();
    let answer = announce(&federation.hub, &[&new_text], 3);
    assert_eq!(answer["waiting_for"], json!([COUNTY]), "{answer:#}");
    federation.hub.start();
    wait_for("the county has heard", DEADLINE, || {
        federation.hub.cli(&["hub", "move"]).code == Some(0)
    });
    federation.finish();
}

#[test]
fn what_is_no_address_is_refused_in_words_and_changes_nothing() {
    let federation = Federation::new(&[COUNTY]);
    let before = announce(&federation.hub, &[], 0);
    let (long, many) = ("a".repeat(10_000), vec!["credit.example.org:1"; 100]);
    let good = "credit.example.org:7443";
    for (wrong, words) in [
        (&["0.0.0.0:7443"][..], "every address of a machine"),
        (&["credit.example.org"], "no port"),
        (&["credit.example.org:0"], "port from 1 to 65535"),
        (&["市中心.中国:7443"], "no host name"),
        (&[""], "no port"),
        (&["a\u{1b}[2J:1"], "no host name"),
        (&[good, good], "stands twice"),
        (&[long.as_str()], "10000 bytes"),
        (&many, "at most 8"),
    ] {
        let arguments = [&["hub", "move"], wrong].concat();
        let said = federation.hub.cli(&arguments).expect_failure(&[words, "地址不可用"]);
        assert!(said.stderr.len() < 500 && !said.stderr.contains('\u{1b}'), "{said:?}");
    }
    assert_eq!(announce(&federation.hub, &[], 0), before);
    let county = &federation.counties[0];
    for arguments in [&["hub", "move"][..], &["hub", "move", good]] {
        county.cli(arguments).expect_failure(&["市级中心", HUB, "hub's business"]);
    }
    federation.finish();
}

#[test]
fn a_hub_of_a_backup_announces_nothing_before_its_members_were_heard() {
    let mut federation = Federation::new(&[COUNTY]);
    let dir = federation.dir().to_owned();
    let (old, new) = (federation.address().to_string(), free_address());
    let new_text = new.to_string();
    announce(&federation.hub, &[&old, &new_text], 0);
    federation.hub.stop();
    let (file, secret) = (dir.join("hub.backup"), dir.join("secret"));
    fs::write(&secret, "a passphrase of some length\n").unwrap();
    fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let with = ["--passphrase-file", path_text(&secret)];
    let hub = &federation.hub;
    hub.cli(&[&["backup", path_text(&file)], &with[..]].concat()).expect_code(0);
    let mut moved = Node::new(HUB, &dir.join("hub-elsewhere"));
    moved.cli(&[&["restore", path_text(&file)], &with[..]].concat()).expect_code(0);
    moved.configure("address", &format!("\"{new}\""));
    moved.cli(&["hub", "move", &new_text]).expect_failure(&["由", "备份恢复"]);
    moved.start();
    std::mem::swap(&mut federation.hub, &mut moved);
    wait_dialled(&federation.counties[0], &new_text);
    wait_for("the hub writes again", DEADLINE, || {
        federation.hub.cli(&["hub", "move", &new_text]).code == Some(0)
    });
    import(&federation.counties[0], &dir, 1);
    federation.finish();
}
