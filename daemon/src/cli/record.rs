//! `record`: single records of this node's own partition.

use clap::Subcommand;

use super::{Done, ask::ask, author, print_json, text_of};
use crate::{admin::Request, app::dir::NodeDir};

#[derive(clap::Args)]
#[command(
    after_help = "Example: creditsync record delete enterprise 91410122MA405Y7E3E --reason \"重复登记\"\nIt can be taken back: creditsync delivery undo ID"
)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
    /// Print a JSON document
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Action {
    /// Remove one record from this node's own partition / 删除本节点的一条记录
    Delete {
        /// The dataset / 数据集
        dataset: String,
        /// One argument for each key field / 主键字段，每个字段一个参数
        #[arg(required = true, value_name = "KEYFIELD")]
        key: Vec<String>,
        /// Why, for the log / 删除原因，记入日志
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
}

pub(super) fn run(dir: &NodeDir, arguments: Arguments) -> anyhow::Result<Done> {
    let Arguments { action: Action::Delete { dataset, key, reason }, json } = arguments;
    let request = Request::RecordDelete { dataset, key, author: author(Some(&reason)) };
    let (answer, attention) = ask(dir, &request)?;
    if json {
        print_json(&answer)?;
    } else {
        let (id, seq) = (text_of(&answer["id"]), text_of(&answer["seq"]));
        println!("已删除 1 条记录，当前序号 {seq} / removed 1 record, now at number {seq}");
        println!("撤销 / take it back: creditsync delivery undo {id}");
    }
    Ok(Done::from_attention(attention))
}
