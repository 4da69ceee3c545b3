//! `status`: the node, its peers, its partitions.

use std::time::Duration;

use protocol::moment::rfc3339;
use serde_json::Value as Json;

use super::{Done, ask::ask, cert::print_alarms, print_json, print_table, rows_of, text_of};
use crate::{
    admin::Request,
    app::{dir::NodeDir, now_unix},
};

/// How often `--watch` looks again.
const WATCH_EVERY: Duration = Duration::from_secs(2);

#[derive(clap::Args)]
#[command(after_help = "Example: creditsync status --watch")]
pub(super) struct Arguments {
    /// Print a JSON document
    #[arg(long)]
    json: bool,
    /// Print again every two seconds, until Ctrl-C / 持续刷新
    #[arg(long)]
    watch: bool,
}

pub(super) fn run(dir: &NodeDir, arguments: Arguments) -> anyhow::Result<Done> {
    loop {
        let (status, _) = ask(dir, &Request::Status)?;
        if arguments.watch && !arguments.json {
            // Clears the screen and goes to its corner.
            print!("\x1b[2J\x1b[H");
        }
        if arguments.json {
            print_json(&status)?;
        } else {
            print_status(&status);
        }
        if !arguments.watch {
            return Ok(Done::Well);
        }
        std::thread::sleep(WATCH_EVERY);
    }
}

/// The status for people.
pub(super) fn print_status(status: &Json) {
    println!(
        "{} ({}) of {}, creditsync {}, {}",
        text_of(&status["node"]),
        text_of(&status["role"]),
        text_of(&status["federation"]),
        text_of(&status["version"]),
        match status["uptime_s"].as_u64() {
            Some(seconds) => format!("running for {seconds} s"),
            None => "not running".to_owned(),
        }
    );
    let peer_fields = ["node", "connected", "address", "last_contact", "rtt_ms", "reason"];
    let mut peers = rows_of(&status["peers"], &peer_fields);
    for (row, peer) in peers.iter_mut().zip(status["peers"].as_array().into_iter().flatten()) {
        let dialled = text_of(&peer["dialled"]);
        // By which name it was found: of several a person wants to know which one.
        if !peer["dialled"].is_null() && dialled != row[2] {
            row[2] = format!("{dialled} ({})", row[2]);
        }
    }
    if !peers.is_empty() {
        println!();
        print_table(&["PEER", "CONNECTED", "ADDRESS", "LAST CONTACT", "RTT ms", "REASON"], &peers);
    }
    let fields = ["partition", "state", "seq", "records", "behind_change_sets", "root", "reason"];
    let mut partitions = rows_of(&status["partitions"], &fields);
    for row in &mut partitions {
        // Enough to compare two screens by eye.
        row[5].truncate(12);
    }
    println!();
    print_table(&["PARTITION", "STATE", "SEQ", "RECORDS", "BEHIND", "ROOT", "REASON"], &partitions);
    let certificates = status["certificates"].as_array().map(Vec::as_slice).unwrap_or_default();
    if let Some(own) = certificates.iter().find(|item| item["kind"] == "node") {
        let (until, renews) = (text_of(&own["not_after"]), &own["renews_at"]);
        println!();
        // Both are RFC 3339 in UTC, so they compare as texts.
        if until <= rfc3339(now_unix()) {
            println!(
                "certificate ended on {until}, by this machine's clock (creditsync cert check)"
            );
        } else if renews.is_null() {
            println!(
                "certificate until {until}, from the files that [tls] in creditsync.toml names"
            );
        } else {
            let renews = text_of(renews);
            println!(
                "certificate until {until}, renewed by itself from {renews} on (creditsync cert show)"
            );
        }
    }
    print_alarms(&status["alarms"]);
}
