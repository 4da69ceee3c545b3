//! `ca`: the hub's certificate authorities.

use std::path::PathBuf;

use clap::Subcommand;

use serde_json::Value as Json;

use super::{
    Done,
    ask::ask,
    cert::absolute,
    confirm::{Asked, confirm},
    print_json, print_table, rows_of, text_of,
};
use crate::{
    admin::{Late, Request},
    app::dir::NodeDir,
};

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
        /// Wait only for nodes that are connected; says whom that locks out, and asks
        /// / 只等待在线的节点；列出将被锁在外面的节点并请您确认
        #[arg(long)]
        force: bool,
        /// With --force: do not ask / 不再询问
        #[arg(long, requires = "force")]
        yes: bool,
        /// Where the root key is, if elsewhere than configured / 根密钥所在目录
        #[arg(long, value_name = "DIR")]
        root_key: Option<PathBuf>,
    },
}

pub(super) fn run(dir: &NodeDir, arguments: Arguments) -> anyhow::Result<Done> {
    let (answer, attention) = match &arguments.action {
        Action::Show => ask(dir, &Request::CaShow)?,
        Action::Rotate { root, force, yes, root_key } => {
            let root_key_dir = root_key.as_deref().map(absolute);
            let request =
                |late| Request::CaRotate { root: *root, late, root_key_dir: root_key_dir.clone() };
            let late = match (*force, *yes) {
                (false, _) => Late::Wait,
                (true, false) => Late::Ask,
                (true, true) => Late::LockOut,
            };
            let mut answered = ask(dir, &request(late))?;
            // Asked again where others are late by then, or another step is next.
            while *force && answered.0["step"] == "waiting" {
                let late = match agreed(&answered.0)? {
                    Ok(late) => late,
                    Err(done) => {
                        if arguments.json {
                            print_json(&answered.0)?;
                        }
                        return Ok(done);
                    }
                };
                answered = ask(dir, &request(late))?;
            }
            answered
        }
    };
    if arguments.json {
        print_json(&answer)?;
        return Ok(Done::from_attention(attention));
    }
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
    let waiting_for = names(&answer["waiting_for"]);
    if !waiting_for.is_empty() {
        println!("waiting for: {waiting_for}");
    }
    Ok(Done::from_attention(attention))
}

/// What a person says to who would be locked out, or how the command ends.
fn agreed(waiting: &Json) -> anyhow::Result<Result<Late, Done>> {
    let (late, there) = (names(&waiting["waiting_for"]), names(&waiting["connected"]));
    // Standard output is for the answer.
    eprintln!(
        "这一步（{0}）将把以下节点锁在外面：{late} / this step ({0}) locks out: {late}",
        text_of(&waiting["to"])
    );
    if !there.is_empty() {
        eprintln!(
            "其中 {there} 在线但尚未跟上，可先用 creditsync status 查明原因 / of these, {there} are connected and have \
             not followed: 'creditsync status' there says why"
        );
    }
    match confirm("确认？/ Go on? [y/N] ")? {
        Asked::Yes => {}
        Asked::No => {
            eprintln!("没有做任何更改 / nothing was done");
            return Ok(Err(Done::Attention));
        }
        Asked::Nobody => {
            eprintln!(
                "creditsync: 没有做任何更改：没有终端可供确认，确需锁在外面请加 --yes / nothing was done: there is no \
                 terminal to ask; to lock them out all the same, add --yes"
            );
            return Ok(Err(Done::Misused));
        }
    }
    let to = waiting["to"].as_str().unwrap_or_default().to_owned();
    let nodes = serde_json::from_value(waiting["waiting_for"].clone())?;
    Ok(Ok(Late::Agreed { to, nodes }))
}

/// The names of a list of nodes.
fn names(list: &Json) -> String {
    let list = list.as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().map(text_of).collect::<Vec<_>>().join(", ")
}
