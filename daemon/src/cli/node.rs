//! `node`: the federation's members.

use clap::Subcommand;

use super::{Done, ask::ask, print_json, print_table, rows_of, text_of};
use crate::{admin::Request, app::dir::NodeDir};

#[derive(clap::Args)]
#[command(
    after_help = "Examples: creditsync node list\n          creditsync node show 410122\n          creditsync node remove 410122"
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
    /// All nodes of the federation / 列出成员
    List,
    /// One node: keys, certificate, revocations, partitions / 查看成员
    Show {
        /// The node / 节点标识
        #[arg(value_name = "NODE")]
        node: String,
    },
    /// Take a revoked node out of the federation; its partitions stay / 移除成员
    Remove {
        /// The node / 节点标识
        #[arg(value_name = "NODE")]
        node: String,
        /// Also one that is not revoked / 未吊销也移除
        #[arg(long)]
        force: bool,
    },
}

pub(super) fn run(dir: &NodeDir, arguments: Arguments) -> anyhow::Result<Done> {
    let request = match &arguments.action {
        Action::List => Request::NodeList,
        Action::Show { node } => Request::NodeShow { node: node.clone() },
        Action::Remove { node, force } => Request::NodeRemove { node: node.clone(), force: *force },
    };
    let (answer, _) = ask(dir, &request)?;
    if arguments.json {
        print_json(&answer)?;
        return Ok(Done::Well);
    }
    match arguments.action {
        Action::List => {
            let fields = ["node", "role", "connected", "revoked", "removed", "partitions", "name"];
            let rows = rows_of(&answer["nodes"], &fields);
            let heading =
                ["NODE", "ROLE", "CONNECTED", "REVOKED", "REMOVED", "PARTITIONS HERE", "NAME"];
            print_table(&heading, &rows);
        }
        Action::Show { .. } => {
            print_node(&answer);
            if answer["removed"] == true {
                print_kept(&answer["kept"]);
            }
        }
        Action::Remove { node, .. } => {
            match answer["changed"] == false {
                true => println!("{node} was removed before / {node} 此前已被移除"),
                false => println!("{node} is removed / {node} 已移除"),
            }
            print_kept(&answer["kept"]);
        }
    }
    Ok(Done::Well)
}

/// What stays here of a node that was removed, and how a person drops it.
fn print_kept(kept: &serde_json::Value) {
    let kept = kept.as_array().map(Vec::as_slice).unwrap_or_default();
    if kept.is_empty() {
        println!("nothing of it is stored here / 本节点没有它的数据");
        return;
    }
    let records: u64 = kept.iter().filter_map(|one| one["records"].as_u64()).sum();
    println!(
        "{0} partitions of it with {records} records stay here and in exports. To drop one for good: / \
         它的 {0} 个分区（{records} 条记录）仍保留在本节点，并包含在导出中。如需永久删除：",
        kept.len()
    );
    for one in kept {
        println!("  creditsync partition refetch {} --yes", text_of(&one["partition"]));
    }
}

fn print_node(node: &serde_json::Value) {
    println!(
        "{} ({}), {}; revoked: {}, removed: {}",
        text_of(&node["node"]),
        text_of(&node["role"]),
        text_of(&node["name"]),
        text_of(&node["revoked"]),
        text_of(&node["removed"])
    );
    let seen = &node["seen"];
    if !seen.is_null() {
        println!(
            "last seen {}, with certificate {} until {}",
            text_of(&seen["at"]),
            text_of(&seen["serial"]),
            text_of(&seen["not_after"])
        );
    }
    println!();
    let keys = rows_of(&node["signing_keys"], &["number", "by", "at", "revoked", "id"]);
    print_table(&["SIGNING KEY", "BY", "SINCE", "REVOKED", "ID"], &keys);
    let revocations = rows_of(&node["revocations"], &["serial", "at", "reason"]);
    if !revocations.is_empty() {
        println!();
        print_table(&["REVOKED CERTIFICATE", "AT", "REASON"], &revocations);
    }
    let partitions = node["partitions"].as_array().map(Vec::as_slice).unwrap_or_default();
    if !partitions.is_empty() {
        let names: Vec<String> = partitions.iter().map(text_of).collect();
        println!("\npartitions: {}", names.join(", "));
    }
}
