//! `verify`: checks what this node holds.

use super::{Done, ask::ask, print_json, print_table, text_of};
use crate::{admin::Request, app::dir::NodeDir};

#[derive(clap::Args)]
#[command(
    after_help = "Examples: creditsync verify\n          creditsync verify enterprise/410122 --deep\nExit code 3 means that something differs, or was compared with nobody."
)]
pub(super) struct Arguments {
    /// One partition (dataset/origin); all without it / 分区
    partition: Option<String>,
    /// Read and hash every record / 逐条校验
    #[arg(long)]
    deep: bool,
    /// Print a JSON document
    #[arg(long)]
    json: bool,
}

pub(super) fn run(dir: &NodeDir, arguments: Arguments) -> anyhow::Result<Done> {
    let Arguments { partition, deep, json } = arguments;
    let (answer, attention) = ask(dir, &Request::Verify { partition, deep })?;
    if json {
        print_json(&answer)?;
        return Ok(Done::from_attention(attention));
    }
    let mut rows = Vec::new();
    let mut problems = Vec::new();
    for item in answer["partitions"].as_array().map(Vec::as_slice).unwrap_or_default() {
        let peers = item["peers"].as_array().map(Vec::as_slice).unwrap_or_default();
        let equal = peers.iter().filter(|peer| peer["equal"] == true).count();
        rows.push(vec![
            text_of(&item["partition"]),
            if item["ok"] == true { "ok" } else { "NOT OK" }.to_owned(),
            text_of(&item["seq"]),
            text_of(&item["records"]),
            if peers.is_empty() {
                "not compared".to_owned()
            } else {
                format!("{equal} of {}", peers.len())
            },
            text_of(&item["root"]),
        ]);
        for problem in item["problems"].as_array().map(Vec::as_slice).unwrap_or_default() {
            problems.push(format!("{}: {}", text_of(&item["partition"]), text_of(problem)));
        }
        if item["uncompared"].is_string() {
            let (partition, why) = (text_of(&item["partition"]), text_of(&item["uncompared"]));
            problems.push(format!("{partition}: {why}"));
        }
    }
    print_table(&["PARTITION", "RESULT", "SEQ", "RECORDS", "PEERS EQUAL", "ROOT"], &rows);
    problems.iter().for_each(|problem| println!("{problem}"));
    Ok(Done::from_attention(attention))
}
