//! `delivery`: what was delivered, what waits for a person, and taking back.
//!
//! How it is printed is in [`show`]. Invariant: nothing is approved before a
//! person was shown what it would do now, or a script has said `--yes`.

mod show;

use clap::Subcommand;
use serde_json::Value as Json;

use super::{
    Done,
    ask::ask_with,
    author,
    confirm::{Asked, confirm},
    import::print_report,
    print_json, text_of,
};
use crate::{admin::Request, app::dir::NodeDir};

#[derive(clap::Args)]
#[command(
    after_help = "Examples: creditsync delivery list --all\n          creditsync delivery approve enterprise-20261123-091203-1 --reason \"与登记处核对无误\"\n          creditsync delivery undo enterprise-20261123-091203-1"
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
    /// Deliveries that wait / 列出待审批的交付
    List {
        /// Also those of the past, the newest last / 同时列出以往的交付
        #[arg(long)]
        all: bool,
    },
    /// One of them, and why it waits / 查看
    Show {
        /// The delivery / 交付编号
        id: String,
    },
    /// Import it after all / 批准并导入
    Approve {
        /// The delivery / 交付编号
        id: String,
        /// Why, for the log / 批准理由，记入日志
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        /// Do not ask / 不再询问
        #[arg(long)]
        yes: bool,
    },
    /// Forget it; the stored records stay as they are / 丢弃
    Discard {
        /// The delivery / 交付编号
        id: String,
        /// Why, for the log / 丢弃理由，记入日志
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Take back what one of the last deliveries did / 撤销最近的一次交付
    Undo {
        /// The delivery / 交付编号
        id: String,
        /// Why, for the log / 撤销理由，记入日志
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        /// Also where records have changed since / 即使此后又有变化
        #[arg(long)]
        force: bool,
    },
}

pub(super) fn run(dir: &NodeDir, arguments: Arguments) -> anyhow::Result<Done> {
    let Arguments { action, json } = arguments;
    let request = match &action {
        Action::List { all } => Request::DeliveryList { all: *all },
        Action::Show { id } => Request::DeliveryShow { id: id.clone() },
        Action::Approve { id, reason, yes } => {
            let request = Request::DeliveryPreview { id: id.clone() };
            let (preview, _) = ask_with(dir, &request, None, &mut |_| Ok(()))?;
            // Standard output is for the answer.
            eprint!("{}", show::preview(&preview));
            let asked =
                if *yes { Asked::Yes } else { confirm("确认导入？/ Import it? [y/N] ")? };
            match asked {
                Asked::Yes => {}
                Asked::No => {
                    eprintln!("没有导入任何内容 / nothing was imported");
                    return Ok(Done::Attention);
                }
                Asked::Nobody => {
                    eprintln!(
                        "creditsync: 没有终端可供确认，请加 --yes / there is no terminal to ask: add --yes"
                    );
                    return Ok(Done::Misused);
                }
            }
            let seen_seq = preview["seq"].as_u64();
            let author = author(reason.as_deref());
            Request::DeliveryApprove { id: id.clone(), seen_seq, author }
        }
        Action::Discard { id, reason } => {
            Request::DeliveryDiscard { id: id.clone(), author: author(reason.as_deref()) }
        }
        Action::Undo { id, reason, force } => {
            let author = author(reason.as_deref());
            Request::DeliveryUndo { id: id.clone(), force: *force, author }
        }
    };
    let (answer, attention) = ask_with(dir, &request, None, &mut |_| Ok(()))?;
    if json {
        print_json(&answer)?;
    } else {
        print(&action, &answer);
    }
    Ok(Done::from_attention(attention))
}

fn print(action: &Action, answer: &Json) {
    match action {
        Action::List { .. } => show::list(answer),
        Action::Show { .. } => print!("{}", show::delivery(answer)),
        Action::Approve { .. } => print_report(answer),
        Action::Discard { .. } => {
            let id = text_of(&answer["id"]);
            println!(
                "已丢弃 {id}，已有记录不变 / discarded {id}; the stored records stay as they are"
            );
        }
        Action::Undo { .. } => print!("{}", show::undone(answer)),
    }
}
