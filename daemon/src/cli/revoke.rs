//! `revoke`: a node or a certificate counts no more.

use super::{Done, ask::ask, print_json};
use crate::{admin::Request, app::dir::NodeDir};

#[derive(clap::Args)]
#[command(
    after_help = "Examples: creditsync revoke 410122 --reason 设备遗失\n          creditsync revoke 410122 --serial 4a01ff…\nIts partitions stay readable. To let it in again: creditsync invite 410122"
)]
pub(super) struct Arguments {
    /// The node / 节点标识
    #[arg(value_name = "NODE")]
    node: String,
    /// Only the certificate with this serial number / 仅吊销该序列号的证书
    #[arg(long, value_name = "HEX")]
    serial: Option<String>,
    /// Why, for people / 原因
    #[arg(long, default_value = "")]
    reason: String,
    /// Print a JSON document
    #[arg(long)]
    json: bool,
}

pub(super) fn run(dir: &NodeDir, arguments: Arguments) -> anyhow::Result<Done> {
    let Arguments { node, serial, reason, json } = arguments;
    let request = Request::Revoke { node: node.clone(), serial: serial.clone(), reason };
    let (answer, _) = ask(dir, &request)?;
    if json {
        print_json(&answer)?;
    } else if answer["changed"] == false {
        println!("{node} was revoked before / {node} 此前已被吊销");
    } else if serial.is_some() {
        println!("one certificate of {node} is revoked / 已吊销 {node} 的一张证书");
        if answer["in_use"] == true {
            println!(
                "it is the one in use: the node needs a new token, creditsync invite {node} / 这是正在使用的证书：该节点需要新令牌，\
                 creditsync invite {node}"
            );
        } else {
            println!(
                "the node was last seen with another one (creditsync node show {node}). Whoever held this one may have \
                 renewed it before: to be sure, revoke the node and invite it anew / 该节点最近使用的是另一张证书。持有这张证书的人\
                 可能已用它换过新证书：为稳妥起见，请吊销该节点并重新邀请"
            );
        }
    } else {
        println!(
            "{node} is revoked; to let it in again: creditsync invite {node} / {node} 已被吊销；如需恢复：creditsync invite {node}"
        );
    }
    Ok(Done::Well)
}
