//! A federation of a suite whose lengths are all others than those of suite 1 goes
//! through its whole life, in processes of a program that has both; and what is of
//! another suite is refused in words.
//!
//! Not here: the bytes of each format in both suites, which are the business of unit
//! tests, and peers that lie about their suite (`hostile`).

#![allow(clippy::unwrap_used, reason = "a helper of a test may fail like the test itself")]

use std::path::Path;

use harness::{
    federation::{Federation, HUB, Making},
    node::{Node, creditsync, wait_until},
    table::Table,
};
use protocol::suite::Suite;

/// The program that has the artificial suite, too.
const PROGRAM: &str = env!("CARGO_BIN_EXE_creditsync-artificial");
/// More rows than a change set holds, so that a first load comes as pages.
const MANY: u32 = 24_000;

/// A running hub of a federation with this suite.
fn federation_of(suite: Suite) -> Federation {
    let init = ["--suite", &suite.to_string()];
    let program = Some(Path::new(PROGRAM));
    Federation::made(&Making { init: &init, program, ..Making::default() })
}

/// Both sides export the same, and it is what was delivered.
#[track_caller]
fn assert_equal(federation: &Federation, county: &Node, expected: &Table) {
    let partition = county.own("enterprise");
    let export = county.export(&partition);
    assert_eq!(export, expected.to_export());
    assert_eq!(federation.hub.export(&partition), export);
}

/// Every hash and key that is shown has the suite's length.
#[track_caller]
fn assert_lengths(federation: &Federation, suite: Suite) {
    let digits = |text: &serde_json::Value| text.as_str().unwrap().len() / 2;
    for node in federation.nodes() {
        assert_eq!(node.signing_key().len() / 2, suite.hash_bytes());
        for partition in node.status()["partitions"].as_array().unwrap() {
            for hash in ["head", "root"] {
                assert_eq!(digits(&partition[hash]), suite.hash_bytes(), "{partition:#}");
            }
        }
    }
    let keys = federation.hub.json(&["get", "_federation", "key", HUB, "0000000001"]);
    let body: serde_json::Value = serde_json::from_str(&find_body(&keys)).unwrap();
    assert_eq!(digits(&body["public"]), suite.public_key_bytes(), "{keys:#}");
}

/// The body of a record of `_federation`, wherever an answer has it.
fn find_body(answer: &serde_json::Value) -> String {
    match answer {
        serde_json::Value::Object(fields) => match fields.get("body") {
            Some(serde_json::Value::String(body)) => body.clone(),
            _ => fields.values().map(find_body).find(|body| !body.is_empty()).unwrap_or_default(),
        },
        serde_json::Value::Array(items) => {
            items.iter().map(find_body).find(|body| !body.is_empty()).unwrap_or_default()
        }
        _ => String::new(),
    }
}

#[test]
fn a_federation_of_another_suite_lives_like_any_other() {
    let mut federation = federation_of(Suite::Artificial);
    let (first, second) = ("410122", "410181");
    federation.add_county(first);
    federation.wait_connected();
    let dir = federation.dir().to_owned();

    // A first load comes as pages, later deliveries as change sets.
    let mut expected = Table::synthetic(1, 0..MANY, "一");
    federation.counties[0].import("enterprise", &expected.write(&dir, "first.csv"));
    federation.wait_converged();
    let mut upsert = Table::synthetic(1, 100..140, "二");
    upsert.put_all(&Table::synthetic(1, MANY..MANY + 10, "二"));
    federation.counties[0].import("enterprise", &upsert.write(&dir, "upsert.csv"));
    expected.put_all(&upsert);
    federation.wait_converged();
    assert_equal(&federation, &federation.counties[0], &expected);
    assert_lengths(&federation, Suite::Artificial);

    // The signing keys of a county and of the hub are followed by others.
    for node in [&federation.counties[0], &federation.hub] {
        let before = node.signing_key();
        node.json(&["cert", "renew", "--signing-key"]);
        // A county's signs once its _federation has it.
        wait_until("another key signs", || node.signing_key() != before);
    }
    let again = Table::synthetic(1, 200..260, "三");
    federation.counties[0].import("enterprise", &again.write(&dir, "again.csv"));
    expected.put_all(&again);
    federation.wait_converged();

    // Who comes later verifies all of it from number 1, and so does a daemon that
    // starts again; a copy that is dropped is fetched again as pages.
    federation.add_county(second);
    federation.wait_connected();
    let others = Table::synthetic(2, 0..300, "一");
    federation.counties[1].import("enterprise", &others.write(&dir, "others.csv"));
    federation.counties[0].restart();
    federation.hub.restart();
    federation.wait_converged();
    let partition = federation.counties[0].own("enterprise");
    federation.hub.cli(&["partition", "refetch", &partition]).expect_code(0);
    federation.wait_converged();
    assert_equal(&federation, &federation.counties[0], &expected);
    assert_equal(&federation, &federation.counties[1], &others);
    assert_lengths(&federation, Suite::Artificial);

    // What may be the only copy of a county that is away is not dropped by mistake.
    let partition = federation.counties[1].own("enterprise");
    federation.counties[1].stop();
    wait_until("the county is away", || federation.hub.peer(second)["connected"] == false);
    let refetch = ["partition", "refetch", &partition];
    federation.hub.cli(&refetch).expect_failure(&["未连接", "not connected", "--yes"]);
    assert!(federation.hub.partition(&partition).is_some());
    federation.hub.cli(&[&refetch[..], &["--yes"]].concat()).expect_code(0);
    federation.counties[1].start();
    federation.wait_converged();
    assert_equal(&federation, &federation.counties[1], &others);
    federation.finish();
}

#[test]
fn what_is_of_another_suite_is_refused_in_words() {
    let mut federation = federation_of(Suite::Artificial);
    let dir = federation.dir().to_owned();

    // A program without the suite does not take its tokens, nor its directories.
    let token = federation.invite("410122", &["--address", &federation.address().to_string()]);
    let joined = Node::new("410122", &dir.join("joined"));
    joined.cli(&["join", &token]).expect_failure(&["suite 240", "does not know"]);
    federation.hub.stop();
    federation.hub.set_program(None);
    federation.hub.cli(&["status"]).expect_failure(&["suite 240", "does not know"]);
    let problem = federation.hub.try_start().unwrap_err();
    assert!(problem.contains("suite 240"), "{problem}");

    // A store of one suite is not opened in a federation of another.
    let other = dir.join("other");
    let mut other = Node::new(HUB, &other);
    other.set_program(Some(Path::new(PROGRAM)));
    let listen = federation.address().to_string();
    let made = ["init", "--federation", "test-city", "--node", HUB, "--listen", &listen];
    other.cli(&made).expect_code(0);
    std::fs::remove_dir_all(other.dir().join("store")).unwrap();
    std::fs::rename(federation.hub.dir().join("store"), other.dir().join("store")).unwrap();
    let problem = other.try_start().unwrap_err();
    for words in ["suite 240", "has suite 1", "backup"] {
        assert!(problem.contains(words), "{words}: {problem}");
    }
}

#[test]
fn a_released_program_offers_no_suite_to_choose() {
    let help = creditsync(&["init", "--help"]).expect_code(0);
    assert!(!help.stdout.contains("--suite"), "{}", help.stdout);
    let refused = creditsync(&["init", "--suite", "1"]).expect_code(2);
    assert!(refused.stderr.contains("--suite"), "{refused:?}");
}
