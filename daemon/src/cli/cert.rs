//! `cert`: this node's certificates and keys.

use std::path::{Path, PathBuf};

use clap::Subcommand;

use super::{Done, ask::ask, print_json, print_table, rows_of, text_of};
use crate::{admin::Request, app::dir::NodeDir};

#[derive(clap::Args)]
#[command(
    after_help = "Examples: creditsync cert show\n          creditsync cert check --days 14\n          creditsync cert renew --signing-key"
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
    /// Certificates, signing keys, and how the last renewal went / 查看证书和密钥
    Show,
    /// Warn (exit code 3) of what ends soon, for cron and monitors / 检查即将到期的证书
    Check {
        /// What ends within so many days / 天数
        #[arg(long, default_value_t = 7)]
        days: u32,
    },
    /// Renew now, which otherwise happens by itself / 立即更新
    Renew {
        /// The key that signs change sets, instead of the certificate / 更换签名密钥
        #[arg(long)]
        signing_key: bool,
        /// At the hub: the signing key may be in the wrong hands; needs the root key / 密钥可能已泄露
        #[arg(long, requires = "signing_key")]
        stolen: bool,
        /// Where the root key is, if elsewhere than configured / 根密钥所在目录
        #[arg(long, value_name = "DIR", requires = "stolen")]
        root_key: Option<PathBuf>,
    },
}

pub(super) fn run(dir: &NodeDir, arguments: Arguments) -> anyhow::Result<Done> {
    let request = match &arguments.action {
        Action::Show => Request::CertShow,
        Action::Check { days } => Request::CertCheck { days: *days },
        Action::Renew { signing_key, stolen, root_key } => Request::CertRenew {
            signing_key: *signing_key,
            stolen: *stolen,
            root_key_dir: root_key.as_deref().map(absolute),
        },
    };
    let (answer, attention) = ask(dir, &request)?;
    if arguments.json {
        print_json(&answer)?;
        return Ok(Done::from_attention(attention));
    }
    match arguments.action {
        Action::Show => {
            print_certificates(&answer["certificates"]);
            println!();
            let keys = rows_of(&answer["signing_keys"], &["number", "by", "at", "revoked", "id"]);
            print_table(&["SIGNING KEY", "BY", "SINCE", "REVOKED", "ID"], &keys);
            print_alarms(&answer["alarms"]);
        }
        Action::Check { .. } => {
            let fields = ["what", "not_after", "days_left", "serial", "advice"];
            let ending = rows_of(&answer["ending"], &fields);
            if ending.is_empty() {
                println!(
                    "nothing ends within {0} days / {0} 天内没有证书到期",
                    text_of(&answer["days"])
                );
            } else {
                print_table(&["WHAT", "ENDS", "DAYS LEFT", "SERIAL", "WHAT TO DO"], &ending);
            }
            print_alarms(&answer["alarms"]);
        }
        Action::Renew { signing_key: true, .. } => {
            println!(
                "registered with number {0} of _federation / 已登记到 _federation 第 {0} 号",
                text_of(&answer["federation_seq"])
            );
        }
        Action::Renew { .. } => print_certificates(&answer["certificates"]),
    }
    Ok(Done::from_attention(attention))
}

/// The certificates of a status or of `cert show`.
fn print_certificates(list: &serde_json::Value) {
    let mut rows = Vec::new();
    for item in list.as_array().map(Vec::as_slice).unwrap_or_default() {
        let last = &item["last_result"];
        rows.push(vec![
            text_of(&item["kind"]),
            text_of(if item["identity"].is_null() { &item["subject"] } else { &item["identity"] }),
            text_of(&item["key"]),
            text_of(&item["not_before"]),
            text_of(&item["not_after"]),
            text_of(&item["renews_at"]),
            match (last.is_null(), &last["problem"]) {
                (true, _) => "-".to_owned(),
                (false, serde_json::Value::Null) => {
                    let how = if item["renews_at"].is_null() { "loaded" } else { "renewed" };
                    format!("{how} {}", text_of(&last["at"]))
                }
                (false, problem) => text_of(problem),
            },
            text_of(&item["serial"]),
        ]);
    }
    let heading = ["KIND", "OF", "KEY", "FROM", "UNTIL", "RENEWS", "LAST RESULT", "SERIAL"];
    print_table(&heading, &rows);
}

/// What a person has to look into.
pub(super) fn print_alarms(alarms: &serde_json::Value) {
    for alarm in alarms.as_array().map(Vec::as_slice).unwrap_or_default() {
        println!("\nALARM 警报: {}", text_of(alarm));
    }
}

/// The daemon has another working directory.
pub(super) fn absolute(path: &Path) -> String {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    path.to_string_lossy().into_owned()
}
