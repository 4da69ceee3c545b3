//! `partition`: what is done to a partition as a whole.

use clap::Subcommand;

use super::{Done, ask::ask, print_json, text_of};
use crate::{
    admin::{Keep, Request},
    app::dir::NodeDir,
};

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
    /// At the origin: go on with one of two histories that are both signed; what is only here
    /// is set aside in a file / 分区出现两份历史时，选定以哪一份继续（在所属节点执行）
    Resolve {
        /// The partition (dataset/origin) / 分区
        partition: String,
        /// 'hub': what the hub holds; 'origin': what is here, issued again behind that
        /// / hub：以中心持有的为准；origin：以本机的为准，差异作为新变更重新签发
        #[arg(long, value_enum)]
        keep: Keep,
    },
}

pub(super) fn run(dir: &NodeDir, arguments: Arguments) -> anyhow::Result<Done> {
    let Arguments { action, json } = arguments;
    let request = match action {
        Action::Refetch { partition, good, yes } => {
            Request::PartitionRefetch { partition, good, yes }
        }
        Action::Resolve { partition, keep } => Request::PartitionResolve { partition, keep },
    };
    let (answer, attention) = ask(dir, &request)?;
    if json {
        print_json(&answer)?;
        return Ok(Done::from_attention(attention));
    }
    if answer["keep"].is_string() {
        show_resolved(&answer);
        return Ok(Done::from_attention(attention));
    }
    let partition = text_of(&answer["partition"]);
    if let Some(held) = answer["held_seq"].as_u64() {
        let lost = text_of(&answer["lost"]);
        println!(
            "{partition}：已丢弃本机内容，将从对端取回第 {held} 号及以前的记录；丢失 {lost} 号，如大于 0 请重新交付最近的文件 / what was \
             here was dropped, and it is fetched again up to number {held}; {lost} numbers are lost: if that is more than 0, \
             deliver the newest files again"
        );
        return Ok(Done::from_attention(attention));
    }
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

fn show_resolved(answer: &serde_json::Value) {
    let (partition, seq) = (text_of(&answer["partition"]), text_of(&answer["seq"]));
    if answer["changed"] == false {
        println!(
            "{partition}：只有一份历史（第 {seq} 号），无需处理 / there is one history, at number {seq}, and nothing to resolve"
        );
        return;
    }
    let (reissued, aside) = (text_of(&answer["reissued"]), text_of(&answer["set_aside"]));
    println!(
        "{partition}：已继续，现为第 {seq} 号，重新签发 {reissued} 条变更；处理前本机的内容在 {aside}（含个人信息，不用时请删除） / it goes \
         on, at number {seq} now, with {reissued} changes issued again; what was here before lies in {aside}: personal \
         fields are not masked in it, so delete it when it is not needed"
    );
    for other in answer["given_up"].as_array().into_iter().flatten() {
        let (node, seq) = (text_of(&other["node"]), text_of(&other["seq"]));
        println!(
            "{node} 持有另一份历史（到第 {seq} 号），现已放弃：如需其内容，先在该节点执行 creditsync export {partition} -o 文件，再执行 \
             creditsync partition refetch {partition} / {node} holds one more history, up to number {seq}, which counts no \
             more: if somebody needs what is in it, give 'creditsync export {partition} -o FILE' there first, and then \
             'creditsync partition refetch {partition}'"
        );
    }
}
