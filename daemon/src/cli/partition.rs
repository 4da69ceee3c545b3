//! `partition`: what is done to a partition as a whole.

use clap::Subcommand;

use super::{Done, ask::ask, print_json, text_of};
use crate::{admin::Request, app::dir::NodeDir};

#[derive(clap::Args)]
#[command(
    after_help = "Examples: creditsync partition refetch enterprise/410122\n          creditsync revoke 410122 --reason \"密钥被盗\" && creditsync partition refetch enterprise/410122 --good 7"
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
    /// Drop the copy of another node's partition and fetch it again from its origin
    /// / 丢弃他方分区的副本，并从其所属节点重新获取
    Refetch {
        /// The partition (dataset/origin) / 分区
        partition: String,
        /// At the hub, after the origin's key was stolen and revoked: the last number
        /// that the origin itself has signed ('creditsync status' there shows it)
        /// / 仅限市中心：密钥被盗并吊销后，该节点自己签署的最后序号
        #[arg(long, value_name = "NUMBER")]
        good: Option<u64>,
        /// Drop it although its origin is not connected: the copy may be the only one
        /// / 所属节点未连接时也丢弃（副本可能是仅存的一份）
        #[arg(long)]
        yes: bool,
    },
}

pub(super) fn run(dir: &NodeDir, arguments: Arguments) -> anyhow::Result<Done> {
    let Arguments { action: Action::Refetch { partition, good, yes }, json } = arguments;
    let (answer, attention) = ask(dir, &Request::PartitionRefetch { partition, good, yes })?;
    if json {
        print_json(&answer)?;
        return Ok(Done::from_attention(attention));
    }
    let partition = text_of(&answer["partition"]);
    match answer["dropped_seq"].as_u64() {
        Some(seq) if answer["origin_removed"] == true => println!(
            "{partition}：已丢弃副本（序号 {seq}）；所属节点已被移除，不会重新获取 / the copy at number {seq} was dropped; \
             its origin was removed from the federation, so nobody brings it back"
        ),
        Some(seq) => println!(
            "{partition}：已丢弃副本（序号 {seq}），将从所属节点重新获取 / the copy at number {seq} was dropped and is \
             fetched again from its origin"
        ),
        None => println!("{partition}：本节点没有副本 / there was no copy here"),
    }
    Ok(Done::from_attention(attention))
}
