//! `dataset`: the catalogue.

mod show;

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Subcommand;
use protocol::schema::RawSchema;

use super::{Done, ask::ask, print_json, print_table, rows_of, text_of};
use crate::{admin::Request, app::dir::NodeDir};

#[derive(clap::Args)]
#[command(
    after_help = "Examples: creditsync dataset list\n          creditsync dataset show enterprise\n          creditsync dataset apply my-dataset.toml    (at the hub)"
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
    /// All datasets / 列出
    List,
    /// One dataset's fields / 查看字段
    Show {
        /// The dataset
        #[arg(value_name = "ID")]
        dataset: String,
    },
    /// Publish a new dataset, or a new version of one, to the federation / 发布
    Apply {
        /// The schema file
        #[arg(value_name = "FILE.toml")]
        file: PathBuf,
    },
    /// At a county: agree that fields which a new version does not call personal any
    /// more are shown / 县级：同意不再遮盖新版本中不属个人信息的字段
    Accept {
        /// The dataset
        #[arg(value_name = "ID")]
        dataset: String,
        /// The version that was looked at
        #[arg(long)]
        version: Option<u32>,
    },
}

pub(super) fn run(dir: &NodeDir, arguments: Arguments) -> anyhow::Result<Done> {
    let request = match &arguments.action {
        Action::List => Request::DatasetList,
        Action::Show { dataset } => Request::DatasetShow { dataset: dataset.clone() },
        Action::Apply { file } => {
            let text = std::fs::read_to_string(file)
                .with_context(|| format!("read {}", file.display()))?;
            Request::DatasetApply { text }
        }
        Action::Accept { dataset, version } => {
            Request::DatasetAccept { dataset: dataset.clone(), version: *version }
        }
    };
    let (answer, _) = ask(dir, &request)?;
    if arguments.json {
        print_json(&answer)?;
        return Ok(Done::Well);
    }
    match arguments.action {
        Action::List => {
            let fields =
                ["dataset", "version", "fields", "partitions", "records", "title_zh", "title_en"];
            let heading =
                ["DATASET", "VERSION", "FIELDS", "PARTITIONS", "RECORDS", "标题", "TITLE"];
            print_table(&heading, &rows_of(&answer["datasets"], &fields));
        }
        Action::Show { .. } => {
            let schema: RawSchema =
                serde_json::from_value(answer).context("read the daemon's answer")?;
            show::print(&schema);
        }
        Action::Accept { .. } => {
            let fields: Vec<_> =
                answer["fields"].as_array().into_iter().flatten().map(text_of).collect();
            println!(
                "{} version {}: shown from now on / 今后不再遮盖: {}",
                text_of(&answer["dataset"]),
                text_of(&answer["version"]),
                if fields.is_empty() { "-".to_owned() } else { fields.join(", ") }
            );
        }
        Action::Apply { .. } => {
            let what = if answer["changed"] == true { "published" } else { "unchanged" };
            println!(
                "{} version {}: {what}",
                text_of(&answer["dataset"]),
                text_of(&answer["version"])
            );
        }
    }
    Ok(Done::Well)
}
