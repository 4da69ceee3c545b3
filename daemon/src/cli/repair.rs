//! `repair`: takes damaged pages and change sets back from a peer.

use super::{Done, ask::ask, print_json, text_of};
use crate::{admin::Request, app::dir::NodeDir};

#[derive(clap::Args)]
#[command(
    after_help = "Examples: creditsync repair enterprise/410122\n          creditsync repair enterprise/410122 --json\nThe node has to run, and a peer that holds the partition has to be connected.\n节点须在运行，且持有该分区的对端须已连接。"
)]
pub(super) struct Arguments {
    /// The partition (dataset/origin) / 分区
    partition: String,
    /// Print a JSON document
    #[arg(long)]
    json: bool,
}

pub(super) fn run(dir: &NodeDir, arguments: Arguments) -> anyhow::Result<Done> {
    let Arguments { partition, json } = arguments;
    let (answer, attention) = ask(dir, &Request::Repair { partition })?;
    if json {
        print_json(&answer)?;
        return Ok(Done::from_attention(attention));
    }
    let partition = text_of(&answer["partition"]);
    for problem in answer["found"].as_array().map(Vec::as_slice).unwrap_or_default() {
        println!("{partition}: found: {}", text_of(problem));
    }
    let (peer, seq) = (text_of(&answer["peer"]), text_of(&answer["seq"]));
    if answer["log"].as_u64().is_some_and(|numbers| numbers > 0) {
        println!("{partition}: {} change sets of its log mended", text_of(&answer["log"]));
    }
    if answer["peer"].is_null() {
        println!("{partition}: nothing to repair at number {seq}");
    } else if answer["rebuilt"] == true {
        println!("{partition}: put together anew from {peer}, now at number {seq}");
    } else {
        let (pages, records) = (text_of(&answer["pages"]), text_of(&answer["records"]));
        println!(
            "{partition}: {pages} pages with {records} records replaced from {peer} at number {seq}"
        );
    }
    Ok(Done::from_attention(attention))
}
