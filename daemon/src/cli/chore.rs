//! `chore`: what goes on in the background.

use clap::Subcommand;

use super::{Done, ask::ask, print_json, print_table, text_of};
use crate::{admin::Request, app::dir::NodeDir};

#[derive(clap::Args)]
#[command(
    after_help = "Examples: creditsync chore list\n          creditsync chore pause scrub\n          creditsync chore run scrub\n          creditsync chore run compact\nA chore that is paused stays so until it is run, also after a restart.\n暂停的任务在重启后仍保持暂停，直到再次 run。"
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
    /// Show all chores, how far they are, and what came of them / 查看后台任务
    List,
    /// Begin a chore now, or go on with one that was paused / 立即执行或继续
    Run {
        /// The chore / 任务名
        #[arg(value_name = "CHORE")]
        name: String,
    },
    /// Stop a chore where it is, until it is run again; and runs of 'verify --deep'
    /// ('verify') / 暂停任务
    Pause {
        /// The chore / 任务名
        #[arg(value_name = "CHORE")]
        name: String,
    },
}

pub(super) fn run(dir: &NodeDir, arguments: Arguments) -> anyhow::Result<Done> {
    let Arguments { action, json } = arguments;
    let request = match &action {
        Action::List => Request::ChoreList,
        Action::Run { name } => Request::ChoreRun { name: name.clone() },
        Action::Pause { name } => Request::ChorePause { name: name.clone() },
    };
    let (answer, attention) = ask(dir, &request)?;
    if json {
        print_json(&answer)?;
        return Ok(Done::from_attention(attention));
    }
    match action {
        Action::List => show(&answer),
        Action::Run { name } if answer["running"] == true => {
            println!(
                "{name}：已开始，用 'creditsync chore list' 查看进度 / begun; 'creditsync chore list' shows how far it is"
            );
        }
        Action::Run { name } => {
            println!("{name}：节点启动后执行 / it begins when the node runs");
        }
        Action::Pause { name } => {
            println!(
                "{name}：已暂停，用 'creditsync chore run {name}' 继续 / paused; 'creditsync chore run {name}' goes on"
            );
        }
    }
    Ok(Done::from_attention(attention))
}

fn show(answer: &serde_json::Value) {
    let items = |name: &str| answer[name].as_array().cloned().unwrap_or_default();
    let share = |item: &serde_json::Value| match (item["done"].as_u64(), item["of"].as_u64()) {
        (Some(_), Some(0)) => "0 %".to_owned(),
        (Some(done), Some(of)) => format!("{} %", done.saturating_mul(100) / of),
        _ => "-".to_owned(),
    };
    let mut rows = Vec::new();
    for item in items("chores") {
        let (name, state) = (text_of(&item["name"]), text_of(&item["state"]));
        rows.push(vec![
            name,
            state,
            share(&item),
            text_of(&item["ended_at"]),
            text_of(&item["result"]),
        ]);
    }
    for item in items("runs") {
        let name = format!("{} {}", text_of(&item["name"]), text_of(&item["what"]));
        rows.push(vec![name, "running".to_owned(), share(&item), "-".to_owned(), "-".to_owned()]);
    }
    print_table(&["CHORE", "STATE", "DONE", "ENDED", "RESULT"], &rows);
    for item in items("chores") {
        for text in item["attention"].as_array().map(Vec::as_slice).unwrap_or_default() {
            println!("{}", text_of(text));
        }
    }
}
