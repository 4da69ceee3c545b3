//! `node`: the federation's members.

use clap::Subcommand;

use super::{Done, ask::ask, print_json, print_table, rows_of};
use crate::{admin::Request, app::dir::NodeDir};

#[derive(clap::Args)]
#[command(after_help = "Example: creditsync node list")]
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
}

pub(super) fn run(dir: &NodeDir, arguments: Arguments) -> anyhow::Result<Done> {
    let Action::List = arguments.action;
    let (answer, _) = ask(dir, &Request::NodeList)?;
    if arguments.json {
        print_json(&answer)?;
    } else {
        let rows = rows_of(&answer["nodes"], &["node", "role", "connected", "name"]);
        print_table(&["NODE", "ROLE", "CONNECTED", "NAME"], &rows);
    }
    Ok(Done::Well)
}
