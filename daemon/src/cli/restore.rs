//! `restore`: a node's directory made of a backup.

use std::path::PathBuf;

use anyhow::Context as _;

use super::{
    Done,
    ask::ShownProgress,
    backup::{lines, open},
    passphrase::{self, PassphraseArguments},
    print_json,
};
use crate::{
    app::{dir::NodeDir, restore::restore_into},
    telemetry,
    upkeep::backup::BackupError,
};

#[derive(clap::Args)]
#[command(
    after_help = "Example: creditsync --dir /var/lib/creditsync restore /mnt/backup/410122.backup\nThe directory has to be empty or not there. All is restored, or nothing. See docs/backup.md.\n目标目录须为空或不存在；要么全部恢复，要么不留任何内容。"
)]
pub(super) struct Arguments {
    /// The backup; '-' is standard input / 备份文件
    file: PathBuf,
    #[command(flatten)]
    passphrase: PassphraseArguments,
    /// Print a JSON document
    #[arg(long)]
    json: bool,
}

pub(super) fn run(dir: &NodeDir, arguments: Arguments) -> anyhow::Result<Done> {
    telemetry::init_for_command();
    let context = || {
        let (file, dir) = (arguments.file.display(), dir.path().display());
        format!("从 {file} 恢复到 {dir} / restore {file} into {dir}")
    };
    let ask = || match arguments.passphrase.of_file() {
        Err(error) => Err(BackupError::Content(format!("{error:#}"))),
        Ok(None) if passphrase::can_ask() && arguments.file.as_os_str() != "-" => {
            passphrase::ask("备份中密钥的口令 / the passphrase of the keys in the backup: ")
                .map_err(|error| BackupError::Content(format!("{error:#}")))
        }
        Ok(given) => Ok(given),
    };
    let input = open(&arguments.file).with_context(context)?;
    let mut shown = ShownProgress::new();
    let restored = restore_into(dir, input, &ask, &mut |copied| shown.show_copied(copied));
    drop(shown);
    let answer = restored.with_context(context)?;
    if arguments.json {
        print_json(&answer)?;
    } else {
        lines(&answer).iter().for_each(|line| println!("{line}"));
    }
    let (path, keys) = (dir.path().display(), dir.keys());
    let keys = keys.display();
    eprintln!("已恢复到 {path} / restored into {path}");
    match (answer["role"] == "hub", answer["has_keys"] == true) {
        (false, true) => eprintln!(
            "下一步：确认原目录的守护进程不再运行，然后执行 creditsync --dir {path} run；连接市级中心并取回备份之后的记录后，自动恢复写入 / \
             next: make sure that the daemon of the old directory never runs again, then: creditsync --dir {path} run. It \
             writes again by itself once the hub is connected and what it has signed since the backup is back"
        ),
        (false, false) => eprintln!(
            "下一步：把另行保存的密钥放回 {keys}（权限 0600），或向市级中心索取令牌并执行 creditsync --dir {path} join / next: put the \
             keys that you keep elsewhere into {keys} (mode 0600), or ask the hub for a token and give: creditsync --dir \
             {path} join"
        ),
        (true, has_keys) => {
            if !has_keys {
                eprintln!(
                    "下一步：把另行保存的密钥放回 {keys}（权限 0600） / next: put the keys that you keep elsewhere into {keys} (mode 0600)"
                );
            }
            eprintln!(
                "下一步：确认原目录的守护进程不再运行，然后执行 creditsync --dir {path} run；creditsync status 说明何时可再邀请、吊销和轮换 / \
                 next: make sure that the daemon of the old directory never runs again, then: creditsync --dir {path} run. \
                 'creditsync status' says when it may invite, revoke and rotate again"
            );
        }
    }
    let is_whole =
        answer["left_out"].as_array().is_none_or(Vec::is_empty) && answer["has_keys"] == true;
    Ok(Done::from_attention(!is_whole))
}
