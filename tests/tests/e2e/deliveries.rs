//! Deliveries that wait for a person, that are let in, and that are taken back,
//! as an administrator sees them.

use harness::{
    federation::Federation,
    node::{Node, path_text},
    table::{Table, synthetic_code},
};
use serde_json::{Value as Json, json};

use super::cli::text;

/// Imports a full file that is held, and answers what the report says of it.
fn hold(node: &Node, federation: &Federation, table: &Table) -> Json {
    let file = table.write(federation.dir(), "held.csv");
    let import = ["import", "enterprise", path_text(&file), "--full", "--json"];
    node.cli(&import).expect_code(3).json()["held"].clone()
}

/// The states of all deliveries, the newest last.
fn states(node: &Node) -> Vec<String> {
    let list = node.json(&["delivery", "list", "--all"]);
    let deliveries = list["deliveries"].as_array().unwrap().iter();
    deliveries.map(|one| text(&one["state"]).to_owned()).collect()
}

#[test]
fn a_delivery_is_held_shown_approved_and_taken_back() {
    let mut federation = Federation::new(&["410122"]);
    let table = Table::synthetic(1, 0..1000, "一");
    let county = federation.counties[0].handle();
    county.import("enterprise", &table.write(federation.dir(), "all.csv"));
    federation.wait_converged();
    let root = county.partition("enterprise/410122").unwrap()["head"]["root"].clone();

    let held = hold(&county, &federation, &Table::synthetic(1, 0..700, "一"));
    let id = text(&held["id"]).to_owned();
    assert_eq!(
        (&held["rule"], &held["detail"]),
        (&json!("deletes"), &json!({ "deletes": 300, "stored": 1000 }))
    );
    assert_eq!(held["samples"].as_array().unwrap().len(), 5);
    let shown = county.cli(&["delivery", "show", &id]).expect_code(0).stdout;
    for words in [
        "待审批 / held",
        text(&held["zh"]),
        text(&held["en"]),
        "300 删除 / deleted",
        "delivery approve",
    ] {
        assert!(shown.contains(words), "{words} is not in {shown}");
    }
    assert_eq!(county.json(&["delivery", "show", &id])["held"], held);

    // Rows that came meanwhile would be undone, and that is said.
    let newer = Table::synthetic(1, 900..910, "二").write(federation.dir(), "newer.csv");
    let newer = text(&county.import("enterprise", &newer)["delivery"]).to_owned();
    // Nobody is asked where nobody sits.
    let asked = county.cli(&["delivery", "approve", &id]).expect_code(2);
    assert_eq!(asked.stdout, "");
    for words in ["10 条记录在此后的交付中有过变化", "10 of these records", "--yes"] {
        assert!(asked.stderr.contains(words), "{words} is not in {}", asked.stderr);
    }
    assert_eq!(states(&county), ["taken", "held", "taken"]);

    let approve = ["delivery", "approve", &id, "--yes", "--reason", "与登记处核对无误", "--json"];
    let report = county.cli(&approve).expect_code(0).json();
    assert_eq!((&report["deleted"], &report["held"]), (&json!(300), &Json::Null));
    federation.wait_converged();
    let expected = Table::synthetic(1, 0..700, "一");
    assert_eq!(federation.hub.export("enterprise/410122"), expected.to_export());
    let shown = county.json(&["delivery", "show", &id]);
    assert_eq!(
        (text(&shown["state"]), text(&shown["author"]["reason"])),
        ("approved", "与登记处核对无误")
    );
    assert!(text(&shown["author"]["by"]).contains("uid"), "{shown:#}");

    // The last two are taken back, the newer one first; also without a daemon.
    let undo = ["delivery", "undo", &id, "--json"];
    assert_eq!(county.cli(&undo).expect_code(0).json()["inserted"], 300);
    county.cli(&undo).expect_failure(&[&id, "已经撤销", "already"]);
    federation.counties[0].stop();
    let undone = county.cli(&["delivery", "undo", &newer]).expect_code(0).stdout;
    assert!(undone.contains("已撤销") && undone.contains("took back"), "{undone}");
    assert_eq!(states(&county), ["taken", "undone", "undone", "taken", "taken"]);
    federation.counties[0].start();
    federation.wait_converged();
    assert_eq!(county.partition("enterprise/410122").unwrap()["head"]["root"], root);
    assert_eq!(federation.hub.export("enterprise/410122"), table.to_export());
    federation.finish();
}

#[test]
fn one_record_is_removed_everywhere_and_comes_back() {
    let federation = Federation::new(&["410122"]);
    let county = &federation.counties[0];
    let table = Table::synthetic(1, 0..20, "一");
    county.import("enterprise", &table.write(federation.dir(), "all.csv"));
    let code = synthetic_code(1, 7);
    let delete = ["record", "delete", "enterprise", &code, "--reason", "重复登记", "--json"];
    let answer = county.cli(&delete).expect_code(0).json();
    assert_eq!((&answer["deleted"], &answer["seq"]), (&json!(1), &json!(2)));
    federation.wait_converged();
    federation.hub.cli(&["get", "enterprise", &code]).expect_failure(&["no origin has", &code]);
    county.cli(&delete).expect_failure(&[&code, "没有主键"]);
    let federation_record = ["record", "delete", "_federation", "x", "--reason", "x"];
    county.cli(&federation_record).expect_failure(&["_federation"]);
    county.cli(&["delivery", "undo", text(&answer["id"])]).expect_code(0);
    federation.wait_converged();
    assert_eq!(federation.hub.export("enterprise/410122"), table.to_export());
    federation.finish();
}

#[test]
fn a_delivery_before_a_kill_can_be_taken_back() {
    let mut federation = Federation::new(&["410122"]);
    let table = Table::synthetic(1, 0..3000, "一");
    federation.counties[0].import("enterprise", &table.write(federation.dir(), "all.csv"));
    let changed = Table::synthetic(1, 0..2000, "二").write(federation.dir(), "changed.csv");
    let last = text(&federation.counties[0].import("enterprise", &changed)["delivery"]).to_owned();
    federation.counties[0].kill_9();
    federation.counties[0].start();
    let county = &federation.counties[0];
    assert_eq!(states(county), ["taken", "taken"]);
    let undone = county.json(&["delivery", "undo", &last]);
    assert_eq!((&undone["updated"], &undone["changed_since"]), (&json!(2000), &json!(0)));
    federation.wait_converged();
    assert_eq!(federation.hub.export("enterprise/410122"), table.to_export());
    federation.finish();
}
