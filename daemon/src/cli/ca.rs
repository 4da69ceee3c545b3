//! `ca`: the hub's certificate authorities.

use std::path::PathBuf;

use clap::Subcommand;

use super::{Done, ask::ask, cert::absolute, print_json, print_table, rows_of, text_of};
use crate::{admin::Request, app::dir::NodeDir};

#[derive(clap::Args)]
#[command(
    after_help = "Examples: creditsync ca show\n          creditsync ca rotate\n          creditsync ca rotate --root --root-key /media/usb\nA running hub goes on by itself: call it once, then look with 'ca show' until the next step is 'none'. At a stopped hub each call does one step. Exit code 3 means that nodes are waited for."
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
    /// All authorities, and how a rotation stands / 查看证书颁发机构
    Show,
    /// Do the next step of a rotation: prepare, activate, retire / 轮换证书颁发机构
    Rotate {
        /// Begin with a new root, which needs the present root's key / 同时更换根
        #[arg(long)]
        root: bool,
        /// Wait for nobody; says what that breaks / 不等待任何节点
        #[arg(long)]
        force: bool,
        /// Where the root key is, if elsewhere than configured / 根密钥所在目录
        #[arg(long, value_name = "DIR")]
        root_key: Option<PathBuf>,
    },
}

pub(super) fn run(dir: &NodeDir, arguments: Arguments) -> anyhow::Result<Done> {
    let request = match &arguments.action {
        Action::Show => Request::CaShow,
        Action::Rotate { root, force, root_key } => Request::CaRotate {
            root: *root,
            force: *force,
            root_key_dir: root_key.as_deref().map(absolute),
        },
    };
    let (answer, attention) = ask(dir, &request)?;
    if arguments.json {
        print_json(&answer)?;
        return Ok(Done::from_attention(attention));
    }
    let names = |field: &str| -> Vec<String> {
        let list = answer[field].as_array().map(Vec::as_slice).unwrap_or_default();
        list.iter().map(text_of).collect()
    };
    match arguments.action {
        Action::Show => {
            let fields =
                ["kind", "number", "state", "root", "not_before", "not_after", "key_here", "id"];
            let mut rows = rows_of(&answer["authorities"], &fields);
            for row in &mut rows {
                row[7].truncate(12);
            }
            let heading =
                ["AUTHORITY", "NUMBER", "STATE", "ROOT", "FROM", "UNTIL", "KEY HERE", "ID"];
            print_table(&heading, &rows);
            println!();
            println!("next step: {}", text_of(&answer["next_step"]));
        }
        Action::Rotate { .. } => {
            match answer["step"].as_str() {
                Some("waiting") => println!("waiting, to {}", text_of(&answer["to"])),
                step => println!(
                    "{}: root {}, issuing CA {}",
                    step.unwrap_or("done"),
                    text_of(&answer["root"]),
                    text_of(&answer["issuing"])
                ),
            }
            println!("next: {}", text_of(&answer["next"]));
        }
    }
    let waiting_for = names("waiting_for");
    if !waiting_for.is_empty() {
        println!("waiting for: {}", waiting_for.join(", "));
    }
    Ok(Done::from_attention(attention))
}
