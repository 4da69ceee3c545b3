//! `hub`: where the hub is dialled.

use clap::Subcommand;

use super::{Done, ask::ask, print_json, print_table, rows_of, text_of};
use crate::{
    admin::Request,
    app::{dir::NodeDir, hub::check_addresses},
};

#[derive(clap::Args)]
#[command(
    after_help = "Examples: creditsync hub move\n          creditsync hub move old.example.org:7443 new.example.org:7443\n          creditsync hub move new.example.org:7443\nAnnounce both addresses before a move, wait until every member has heard, move, and then name those that stay. Exit code 3 means that members have not heard yet.\n搬迁前先同时公告新旧地址，待全部成员获知后再搬迁，最后只列出保留的地址。退出码 3 表示有成员尚未获知。"
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
    /// Tell members where the hub is dialled from now on; without addresses, show it and who
    /// has heard / 向成员公告市级中心的地址；不带地址时显示现状
    Move {
        /// All addresses, in the order in which members try them / 全部地址，按尝试顺序
        #[arg(value_name = "HOST:PORT")]
        addresses: Vec<String>,
    },
}

pub(super) fn run(dir: &NodeDir, arguments: Arguments) -> anyhow::Result<Done> {
    let Action::Move { addresses } = arguments.action;
    // Before it is asked: the list might be too long for that.
    check_addresses(&addresses)?;
    let (answer, attention) = ask(dir, &Request::HubMove { addresses })?;
    if arguments.json {
        print_json(&answer)?;
        return Ok(Done::from_attention(attention));
    }
    let heading = match (answer["announced"] == true, answer["changed"] == true) {
        (true, true) => "announced now / 已公告：",
        (true, false) => "announced before / 此前已公告：",
        (false, _) => "not announced; tokens name / 尚未公告，邀请令牌中的地址：",
    };
    let addresses: Vec<String> =
        answer["addresses"].as_array().into_iter().flatten().map(text_of).collect();
    println!("{heading} {}", addresses.join("  "));
    let members = rows_of(&answer["members"], &["node", "heard", "connected", "seen_at", "name"]);
    if !members.is_empty() {
        println!();
        print_table(&["MEMBER", "HEARD", "CONNECTED", "LAST SEEN", "NAME"], &members);
    }
    println!();
    for line in answer["next"].as_str().unwrap_or_default().lines() {
        println!("next: {line}");
    }
    if answer["advertise_unused"] == true {
        eprintln!(
            "邀请令牌今后写入以上地址，creditsync.toml 中的 [listen] advertise 不再使用 / tokens carry these addresses from now on, and \
             no longer [listen] advertise of creditsync.toml"
        );
    }
    Ok(Done::from_attention(attention))
}
