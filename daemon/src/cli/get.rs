//! `get`: one record, as every origin has it.

use super::{Done, ask::ask, print_json, text_of};
use crate::{admin::Request, app::dir::NodeDir};

#[derive(clap::Args)]
#[command(after_help = "Example: creditsync get enterprise 91410122MA405Y7E3E")]
pub(super) struct Arguments {
    /// The dataset / 数据集
    dataset: String,
    /// One argument for each key field / 主键字段，每个字段一个参数
    #[arg(required = true, value_name = "KEYFIELD")]
    key: Vec<String>,
    /// Print a JSON document
    #[arg(long)]
    json: bool,
}

pub(super) fn run(dir: &NodeDir, arguments: Arguments) -> anyhow::Result<Done> {
    let Arguments { dataset, key, json } = arguments;
    let (records, _) = ask(dir, &Request::Get { dataset, key })?;
    if json {
        print_json(&records)?;
        return Ok(Done::Well);
    }
    for found in records.as_array().map(Vec::as_slice).unwrap_or_default() {
        println!("{} (number {})", text_of(&found["partition"]), text_of(&found["seq"]));
        for (field, value) in found["record"].as_object().into_iter().flatten() {
            println!("  {field}: {}", text_of(value));
        }
    }
    Ok(Done::Well)
}
