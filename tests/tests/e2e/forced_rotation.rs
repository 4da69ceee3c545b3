//! `ca rotate --force`: whoever is connected follows first, and nobody is locked out
//! before a person has read its name.

use harness::{
    federation::{Federation, HUB},
    node::{Node, wait_until},
    table::Table,
};
use rustix::process::Signal;
use serde_json::{Value as Json, json};

const COUNTIES: [&str; 2] = ["410122", "410181"];
const FORCE: [&str; 3] = ["ca", "rotate", "--force"];

/// Imports at every county, and waits until all of it has arrived.
#[track_caller]
fn check(federation: &Federation, batch: &str) {
    let table = Table::synthetic(1, 0..3, batch);
    let file = table.write(federation.dir(), "delivery.csv");
    for county in &federation.counties {
        county.import("enterprise", &file);
    }
    federation.wait_converged();
}

#[track_caller]
fn wait_next(hub: &Node, step: &str, waiting_for: &[&str]) {
    wait_until(&format!("the next step is {step}, and {waiting_for:?} are waited for"), || {
        let shown = hub.json(&["ca", "show"]);
        shown["next_step"] == step && shown["waiting_for"] == json!(waiting_for)
    });
}

#[test]
fn whoever_is_connected_follows_however_fast_the_steps_are_forced() {
    let federation = Federation::new(&COUNTIES);
    check(&federation, "一");
    for begin in [&["ca", "rotate"][..], &["ca", "rotate", "--root"]] {
        assert_eq!(federation.hub.json(begin)["step"], "prepared");
        // Without a word of consent: nobody is to be locked out. The running hub may be
        // faster, and each answer says what is next.
        for (step, next) in [("activated", "retire"), ("retired", "nothing")] {
            let shown = federation.hub.json(&["ca", "show"]);
            if shown["next_step"] == "none" {
                break;
            }
            let done = federation.hub.json(&FORCE);
            let said = (&done["step"], &done["locked_out"]);
            assert!(said == (&json!(step), &json!([])) || said.0 == "retired", "{done:#}");
            let text = done["next"].as_str().unwrap();
            assert!(text.starts_with(next) || text.starts_with("nothing"), "{done:#}");
        }
        federation.wait_connected();
        check(&federation, "二");
    }
    for county in &federation.counties {
        assert!(county.log_lines(&["WARN", "not connected to the hub"]).is_empty());
    }
    wait_next(&federation.hub, "none", &[]);
    federation.finish();
}

#[test]
fn nobody_is_locked_out_before_a_person_has_read_the_name() {
    let [frozen, other] = COUNTIES;
    let federation = Federation::new(&COUNTIES);
    check(&federation, "一");
    let hub = &federation.hub;
    // Connected as far as the hub knows for half a minute, and follows nothing.
    federation.counties[0].signal(Signal::STOP);
    assert_eq!(hub.json(&["ca", "rotate"])["step"], "prepared");
    let mut to = "activate";
    for (done, next) in [("activated", "retire"), ("retired", "none")] {
        wait_next(hub, to, &[frozen]);
        let refused = hub.cli(&FORCE).expect_code(2);
        assert_eq!(refused.stdout, "", "standard output carries only answers");
        for word in [frozen, "locks out", "锁在外面", "--yes", "nothing was done"] {
            assert!(refused.stderr.contains(word), "'{word}' is missing: {}", refused.stderr);
        }
        assert!(!refused.stderr.contains(other), "{}", refused.stderr);
        let refused = hub.cli(&[&FORCE[..], &["--json"]].concat()).expect_code(2).json();
        assert_eq!((&refused["step"], &refused["to"]), (&json!("waiting"), &json!(to)));
        assert_eq!(refused["waiting_for"], json!([frozen]));
        assert_eq!(hub.json(&["ca", "show"])["next_step"], to, "nothing was done");

        let answer = hub.json(&[&FORCE[..], &["--yes"]].concat());
        let said = |field: &str| -> &Json { &answer[field] };
        assert_eq!((said("step"), said("locked_out")), (&json!(done), &json!([frozen])));
        let text = said("next").as_str().unwrap();
        assert!(text.contains(frozen) && text.contains("creditsync invite"), "{text}");
        to = next;
    }
    wait_next(hub, "none", &[]);
    federation.counties[0].signal(Signal::CONT);
    federation.counties[0].wait_reason(HUB, &["creditsync join"]);

    // The other one was waited for, and the locked out one is told the truth by the hub.
    federation.counties[1].wait_connected(HUB);
    let address = federation.address().to_string();
    let token = federation.invite(frozen, &["--address", &address]);
    federation.counties[0].cli(&["join", &token]).expect_code(0);
    federation.wait_connected();
    check(&federation, "二");
    federation.finish();
}
