//! `backup`: all of a node in one file; and whether such a file is good.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufReader, IsTerminal as _, Read},
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use certs::keyfile::Passphrase;
use files::Replacement;
use protocol::text::printable;
use serde_json::Value as Json;

use super::{
    Done,
    ask::{ShownProgress, ask_with},
    passphrase::{self, PassphraseArguments},
    print_json, text_of,
};
use crate::{
    admin::Request,
    app::{dir::NodeDir, node::load_config},
    upkeep::backup::{check::check, look_at_keys},
};

#[derive(clap::Args)]
#[command(
    after_help = "Examples: creditsync backup /mnt/backup/410122.backup\n          creditsync backup /mnt/backup/410122.backup --verify\n          creditsync backup - | ssh other 'cat > 410122.backup'\nExit code 3 means that it was made and something needs a person: keys or partitions are not in it. See docs/backup.md.\n退出码 3：备份已写成，但缺少密钥或分区，需人工处理。"
)]
pub(super) struct Arguments {
    /// The backup; '-' is standard output, or standard input with --verify / 备份文件
    file: PathBuf,
    /// Read a backup and check all of it, without a node / 校验备份文件
    #[arg(long, conflicts_with = "without_keys")]
    verify: bool,
    /// Leave the private keys out / 不包含密钥
    #[arg(long)]
    without_keys: bool,
    #[command(flatten)]
    passphrase: PassphraseArguments,
    /// Print a JSON document
    #[arg(long)]
    json: bool,
}

pub(super) fn run(dir: &NodeDir, arguments: Arguments) -> anyhow::Result<Done> {
    if arguments.verify {
        return verify(&arguments);
    }
    let to_stdout = arguments.file == Path::new("-");
    if to_stdout && (arguments.json || io::stdout().is_terminal()) {
        eprintln!(
            "creditsync: 标准输出将写入备份内容：请重定向到文件或管道，且不要加 --json / standard output is the backup: redirect it, \
             and leave --json out"
        );
        return Ok(Done::Misused);
    }
    let given = match arguments.without_keys {
        true => None,
        false => given_passphrase(dir, &arguments.passphrase)?,
    };
    let path = std::path::absolute(&arguments.file).unwrap_or(arguments.file.clone());
    let request = Request::Backup {
        path: if to_stdout { "-".into() } else { path.to_string_lossy().into_owned() },
        without_keys: arguments.without_keys,
        passphrase: given.map(|passphrase| passphrase.reveal().to_owned()),
    };
    let context = || format!("备份到 {0} / back up to {0}", arguments.file.display());
    let (answer, attention) = match place(&arguments.file).with_context(context)? {
        Place::Open(file) => {
            ask_with(dir, &request, Some(file), &mut |_| Ok(())).with_context(context)?
        }
        Place::New(new) => {
            let file = new.handle().with_context(context)?;
            let answer =
                ask_with(dir, &request, Some(file), &mut |_| Ok(())).with_context(context)?;
            new.commit().with_context(context)?;
            answer
        }
    };
    match (arguments.json, to_stdout) {
        (true, _) => print_json(&answer)?,
        (_, true) => lines(&answer).iter().for_each(|line| eprintln!("{line}")),
        _ => lines(&answer).iter().for_each(|line| println!("{line}")),
    }
    Ok(Done::from_attention(attention))
}

/// Where a backup is written.
enum Place {
    /// A pipe or a device, or standard output.
    Open(File),
    /// A file that appears when it is whole, in place of the one that may be there.
    New(Replacement),
}

fn place(path: &Path) -> anyhow::Result<Place> {
    if path == Path::new("-") {
        let stdout = io::stdout().as_fd().try_clone_to_owned().context("open standard output")?;
        return Ok(Place::Open(stdout.into()));
    }
    match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => {
            bail!("这是目录，请指定文件名 / it is a directory: name a file in it")
        }
        Ok(found) if !found.is_file() => {
            Ok(Place::Open(OpenOptions::new().write(true).open(path)?))
        }
        _ => Ok(Place::New(Replacement::new(path, files::PRIVATE)?)),
    }
}

/// From a file, or typed if keys need it and somebody is there.
fn given_passphrase(
    dir: &NodeDir,
    arguments: &PassphraseArguments,
) -> anyhow::Result<Option<Passphrase>> {
    if let Some(given) = arguments.of_file()? {
        return Ok(Some(given));
    }
    if !passphrase::can_ask() {
        return Ok(None);
    }
    let config = load_config(dir)?;
    // If this process may not look at them, the daemon says what is wrong.
    if look_at_keys(dir.path(), &[]).is_ok_and(|keys| keys.are_sealed()) {
        return Ok(None);
    }
    passphrase::ask_for_new(match config.upstream {
        None => "请为备份中的密钥设置口令 / a passphrase for the keys in the backup: ",
        Some(_) => {
            "请为备份中的密钥设置口令（直接回车则不包含密钥）/ a passphrase for the keys in the backup (Enter leaves them out): "
        }
    })
}

fn verify(arguments: &Arguments) -> anyhow::Result<Done> {
    let given = arguments.passphrase.of_file()?;
    let context = || format!("校验 {0} / verify {0}", arguments.file.display());
    let input = open(&arguments.file).with_context(context)?;
    let mut shown = ShownProgress::new();
    let checked = check(input, given.as_ref(), &mut |copied| shown.show_copied(copied));
    drop(shown);
    let summary = checked.with_context(context)?;
    let answer = summary.json();
    if arguments.json {
        print_json(&answer)?;
    } else {
        lines(&answer).iter().for_each(|line| println!("{line}"));
        println!("校验通过 / it is good");
    }
    Ok(Done::from_attention(!summary.left_out.is_empty()))
}

/// Opens a backup to read it.
pub(super) fn open(path: &Path) -> anyhow::Result<Box<dyn Read>> {
    if path == Path::new("-") {
        return Ok(Box::new(io::stdin().lock()));
    }
    Ok(Box::new(BufReader::with_capacity(1 << 20, File::open(path)?)))
}

/// What is in a backup, for people.
pub(super) fn lines(answer: &Json) -> Vec<String> {
    let text = |name: &str| text_of(&answer[name]);
    let count = |name: &str| match answer[name].as_array() {
        Some(list) => list.len().to_string(),
        None => text(name),
    };
    let bytes = answer["bytes"].as_u64().unwrap_or(0);
    let mut lines = vec![
        format!(
            "节点 / node {} ({}), 联盟 / federation {}, {}",
            text("node"),
            text("role"),
            text("federation"),
            text("created")
        ),
        format!(
            "{} 个分区、{} 条记录、{} 个文件 / partitions, records, files; {:.1} MiB",
            count("partitions"),
            text("records"),
            text("files"),
            bytes as f64 / 1_048_576.0
        ),
    ];
    let is_hub = answer["role"] == "hub";
    lines.push(match answer["keys"].as_str() {
        Some("sealed") => {
            "密钥：已用口令加密保存，恢复时需要该口令，请另行妥善保管 / keys: encrypted with the passphrase, which a restore asks \
             for: keep it elsewhere"
        }
        Some("as-they-are") => {
            "密钥：按原样保存（原本已加密），恢复后使用原口令 / keys: as they lie there, encrypted; the node needs the same \
             passphrase as before"
        }
        _ if is_hub => {
            "密钥：未包含。没有 keys/ 中的文件，市级中心无法恢复，请另行保存 / keys: not in it. A hub cannot come back without \
             the files of keys/: keep them elsewhere"
        }
        _ => {
            "密钥：未包含。恢复后须放回另行保存的密钥，或向市级中心索取令牌重新加入 / keys: not in it. After a restore put back \
             those that you keep elsewhere, or join again with a token of the hub"
        }
    }.to_owned());
    for left_out in answer["left_out"].as_array().map(Vec::as_slice).unwrap_or_default() {
        let (partition, reason) = (text_of(&left_out["partition"]), text_of(&left_out["reason"]));
        lines.push(format!(
            "未包含分区 {partition}（{reason}）：请执行 creditsync repair {partition} / not in it: {partition} ({reason}); \
             give: creditsync repair {partition}"
        ));
    }
    for outside in answer["outside"].as_array().map(Vec::as_slice).unwrap_or_default() {
        let path = printable(outside.as_str().unwrap_or_default());
        lines.push(format!(
            "目录之外的文件 {path} 未包含，请另行备份 / {path} lies outside of the directory and is not in it: back it up by itself"
        ));
    }
    lines
}
