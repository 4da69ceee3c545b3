//! `delivery`: full files that wait for a person.

use clap::Subcommand;

use super::{Done, ask::ask_with, import::print_report, print_json, print_table, rows_of, text_of};
use crate::{admin::Request, app::dir::NodeDir};

#[derive(clap::Args)]
#[command(
    after_help = "Examples: creditsync delivery list\n          creditsync delivery approve enterprise-20261123-091203-1"
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
    /// All deliveries that wait / 列出待审批的交付
    List,
    /// One of them, and why it waits / 查看
    Show {
        /// The delivery
        id: String,
    },
    /// Import it after all / 批准并导入
    Approve {
        /// The delivery
        id: String,
    },
    /// Forget it; the stored records stay as they are / 丢弃
    Discard {
        /// The delivery
        id: String,
    },
}

pub(super) fn run(dir: &NodeDir, arguments: Arguments) -> anyhow::Result<Done> {
    let request = match &arguments.action {
        Action::List => Request::DeliveryList,
        Action::Show { id } => Request::DeliveryShow { id: id.clone() },
        Action::Approve { id } => Request::DeliveryApprove { id: id.clone() },
        Action::Discard { id } => Request::DeliveryDiscard { id: id.clone() },
    };
    let (answer, attention) = ask_with(dir, &request, None, &mut |_| Ok(()))?;
    if arguments.json {
        print_json(&answer)?;
        return Ok(Done::from_attention(attention));
    }
    match arguments.action {
        Action::List => {
            let rows = rows_of(
                &answer["deliveries"],
                &["id", "dataset", "file", "received", "explanation"],
            );
            print_table(&["DELIVERY", "DATASET", "FILE", "RECEIVED", "WHY"], &rows);
        }
        Action::Show { .. } => {
            for (name, value) in answer.as_object().into_iter().flatten() {
                println!("{name}: {}", text_of(value));
            }
        }
        Action::Approve { .. } => print_report(&answer),
        Action::Discard { .. } => println!("discarded {}", text_of(&answer["id"])),
    }
    Ok(Done::from_attention(attention))
}
