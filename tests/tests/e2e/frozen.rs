//! A daemon that does not answer keeps no command waiting for ever.

use std::thread;

use harness::{
    federation::Federation,
    node::{Node, path_text},
    table::Table,
};
use rustix::process::Signal;

/// Freezes the daemon while `asking` asks.
fn frozen<T>(node: &Node, asking: impl FnOnce() -> T) -> T {
    node.signal(Signal::STOP);
    let asked = asking();
    node.signal(Signal::CONT);
    asked
}

#[test]
fn commands_to_a_frozen_daemon_say_so_and_do_nothing() {
    let federation = Federation::new(&["410122"]);
    let county = &federation.counties[0];
    let table = Table::synthetic(1, 0..5, "一");
    let file = table.write(federation.dir(), "5.csv");
    let commands: [&[&str]; 6] = [
        &["status"],
        &["cert", "check"],
        &["verify", "--deep"],
        &["import", "enterprise", path_text(&file)],
        &["export", "enterprise/410122"],
        &["cert", "renew"],
    ];
    let serial = county.certificate()["serial"].clone();
    let answers = frozen(county, || {
        thread::scope(|scope| {
            let asking = commands.map(|command| scope.spawn(|| county.cli(command)));
            asking.map(|asking| asking.join().unwrap())
        })
    });
    for answer in answers {
        let failed = answer.expect_code(1);
        for word in ["does not answer", "kill -CONT ", "没有应答"] {
            assert!(failed.stderr.contains(word), "'{word}' is missing: {failed:?}");
        }
    }
    // What nobody waits for any more is not done after all.
    assert_eq!(county.partition("enterprise/410122"), None);
    county.import("enterprise", &file);
    federation.wait_converged();
    assert_eq!(county.partition("enterprise/410122").unwrap()["seq"], 1);
    assert_eq!(county.certificate()["serial"], serial);
    federation.finish();
}
