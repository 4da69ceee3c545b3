//! The command line: arguments in, answers out.
//!
//! Standard output carries only the answer, everything else goes to standard
//! error. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done but something
//! needs a person. The names of commands, options and JSON fields are a
//! contract.

mod advice;
mod ask;
mod backup;
mod ca;
mod cert;
mod chore;
mod confirm;
mod dataset;
mod delivery;
mod demo;
mod export;
mod get;
mod hub;
mod import;
mod invite;
mod node;
mod output;
mod partition;
mod passphrase;
mod record;
mod repair;
mod restore;
mod revoke;
mod setup;
mod status;
mod verify;

use std::{
    borrow::Cow,
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use protocol::text::printable;

use crate::{
    app::{dir::NodeDir, opening},
    ingest::words::Author,
    sources, telemetry,
};

/// Where a node lies unless somebody says otherwise.
const DEFAULT_DIR: &str = "/var/lib/creditsync";
/// It was asked for in a way that cannot be done, as clap says it of arguments.
const EXIT_USAGE: u8 = 2;
/// Something needs a person.
const EXIT_ATTENTION: u8 = 3;

/// Keeps a city's credit datasets equal at counties and the municipal centre.
#[derive(Parser)]
#[command(
    name = "creditsync",
    version,
    about = "Keeps a city's credit datasets equal at the counties and the municipal centre, and proves it.\n市、县两级信用数据同步：两端数据一致，并可验证。",
    after_help = "Try it: creditsync demo\n试用：creditsync demo",
    max_term_width = 100
)]
struct Arguments {
    /// The node's directory / 节点目录
    ///
    /// Without it: CREDITSYNC_DIR, else /var/lib/creditsync (the demo: a
    /// temporary directory).
    #[arg(long, global = true, env = "CREDITSYNC_DIR", value_name = "DIR")]
    dir: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show a whole federation on this machine, with synthetic data / 在本机演示整个联盟（合成数据）
    Demo(demo::Arguments),
    /// Make this directory a hub / 创建市级中心节点
    Init(setup::InitArguments),
    /// Print a one-time token with which a node joins / 生成一次性加入令牌
    Invite(invite::Arguments),
    /// Make this directory a member, with a token / 用令牌加入联盟
    Join(setup::JoinArguments),
    /// Run the node in the foreground / 在前台运行节点
    Run(setup::RunArguments),
    /// Show the node, its peers and its partitions / 查看状态
    Status(status::Arguments),
    /// List, show or change datasets / 数据集目录
    Dataset(dataset::Arguments),
    /// Import a file: CSV, Excel, ODS, JSON, ZIP, gzip / 导入文件
    Import(import::Arguments),
    /// What was delivered, what waits for a person, and taking back / 交付：待审批、记录与撤销
    Delivery(delivery::Arguments),
    /// Single records of this node / 本节点的单条记录
    Record(record::Arguments),
    /// Write a partition or a dataset as CSV or JSON lines / 导出
    Export(export::Arguments),
    /// Look up one record at all its origins / 按主键查询
    Get(get::Arguments),
    /// Check signatures, roots and peers / 校验
    Verify(verify::Arguments),
    /// Take damaged pages of a partition back from a peer / 修复分区
    Repair(repair::Arguments),
    /// What goes on in the background: reading everything through, repairs / 后台任务
    Chore(chore::Arguments),
    /// Write all of this node into one file, or check such a file / 备份节点，或校验备份文件
    Backup(backup::Arguments),
    /// Make a node's directory of a backup / 从备份恢复节点
    Restore(restore::Arguments),
    /// Drop a copy and fetch it again / 丢弃副本并重新获取
    Partition(partition::Arguments),
    /// This node's certificates and keys / 本节点的证书和密钥
    Cert(cert::Arguments),
    /// The federation's nodes / 联盟成员
    Node(node::Arguments),
    /// A node or a certificate counts no more / 吊销节点或证书
    Revoke(revoke::Arguments),
    /// The hub's certificate authorities / 证书颁发机构
    Ca(ca::Arguments),
    /// Where the hub is dialled: announce a move / 市级中心的地址：公告搬迁
    Hub(hub::Arguments),
}

/// Parses the arguments, does the command, and answers the exit code.
pub fn main() -> ExitCode {
    let child = sources::foreign::main_if_child().or_else(opening::main_if_child);
    if let Some(code) = child {
        return code;
    }
    let arguments = Arguments::parse();
    // A daemon has no reader whose going away could mean that it is done.
    if !matches!(arguments.command, Command::Run(_)) {
        end_quietly_on_a_closed_pipe();
    }
    let given = arguments.dir;
    let dir = NodeDir::new(given.as_deref().unwrap_or(Path::new(DEFAULT_DIR)));
    let done = match arguments.command {
        Command::Demo(arguments) => demo::run(arguments, given),
        Command::Init(arguments) => setup::init(&dir, arguments),
        Command::Invite(arguments) => invite::run(&dir, arguments),
        Command::Join(arguments) => setup::join(&dir, arguments),
        Command::Run(arguments) => setup::run(&dir, arguments),
        Command::Status(arguments) => status::run(&dir, arguments),
        Command::Dataset(arguments) => dataset::run(&dir, arguments),
        Command::Import(arguments) => import::run(&dir, arguments),
        Command::Delivery(arguments) => delivery::run(&dir, arguments),
        Command::Record(arguments) => record::run(&dir, arguments),
        Command::Export(arguments) => export::run(&dir, arguments),
        Command::Get(arguments) => get::run(&dir, arguments),
        Command::Verify(arguments) => verify::run(&dir, arguments),
        Command::Repair(arguments) => repair::run(&dir, arguments),
        Command::Chore(arguments) => chore::run(&dir, arguments),
        Command::Backup(arguments) => backup::run(&dir, arguments),
        Command::Restore(arguments) => restore::run(&dir, arguments),
        Command::Partition(arguments) => partition::run(&dir, arguments),
        Command::Cert(arguments) => cert::run(&dir, arguments),
        Command::Node(arguments) => node::run(&dir, arguments),
        Command::Revoke(arguments) => revoke::run(&dir, arguments),
        Command::Ca(arguments) => ca::run(&dir, arguments),
        Command::Hub(arguments) => hub::run(&dir, arguments),
    };
    let code = match done {
        Ok(Done::Well) => ExitCode::SUCCESS,
        Ok(Done::Attention) => ExitCode::from(EXIT_ATTENTION),
        Ok(Done::Misused) => ExitCode::from(EXIT_USAGE),
        Err(error) => {
            let text = format!("{error:#}");
            telemetry::say(&format!("creditsync: {}", lines(&text)));
            if let Some(advice) = advice::advice(&text) {
                telemetry::say(&format!("  {advice}"));
            }
            ExitCode::FAILURE
        }
    };
    telemetry::finish();
    code
}

/// How a command that did not fail ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Done {
    /// All is well.
    Well,
    /// Something needs a person.
    Attention,
    /// It cannot be done like that; what to do was said.
    Misused,
}

impl Done {
    fn from_attention(attention: bool) -> Self {
        if attention { Done::Attention } else { Done::Well }
    }
}

/// `creditsync status | head` must end quietly: whoever reads the answer has seen
/// enough. A full disk behind standard output is an error like any other, and so
/// is a closed standard error. Rust ignores SIGPIPE, and `println!` panics.
fn end_quietly_on_a_closed_pipe() {
    let default_hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let text = info.payload().downcast_ref::<String>().map(String::as_str).unwrap_or_default();
        if text.starts_with("failed printing to stdout") && text.contains("Broken pipe") {
            std::process::exit(0);
        }
        if text.starts_with("failed printing to") {
            let _ = writeln!(std::io::stderr(), "creditsync: {text}");
            std::process::exit(1);
        }
        default_hook(info);
    }));
}

/// Who gives this command: the user's name, before `sudo` if it was used, and the
/// number that the system knows.
fn author(reason: Option<&str>) -> Author {
    let name =
        ["SUDO_USER", "USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok());
    let uid = rustix::process::getuid().as_raw();
    let by = match name.filter(|name| !name.is_empty()) {
        Some(name) => format!("{name} (uid {uid})"),
        None => format!("uid {uid}"),
    };
    Author::new(&by, reason)
}

/// Prints a JSON document for `--json`.
fn print_json(value: &serde_json::Value) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}

/// A JSON field as text for a table; `-` for null.
fn text_of(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::Null => "-".to_owned(),
        // Other nodes chose these characters: none of them may steer the terminal.
        serde_json::Value::String(text) => printable(text).into_owned(),
        serde_json::Value::Bool(true) => "yes".to_owned(),
        serde_json::Value::Bool(false) => "no".to_owned(),
        other => other.to_string(),
    }
}

/// A text of several lines for a terminal: [`printable`], but for its line ends.
fn lines(text: &str) -> Cow<'_, str> {
    let steers = |line: &str| matches!(printable(line), Cow::Owned(_));
    if !text.split('\n').any(steers) {
        return Cow::Borrowed(text);
    }
    // A carriage return is one half of a line end here.
    let line = |line: &str| match line.strip_suffix('\r') {
        Some(line) => format!("{}\r", printable(line)),
        None => printable(line).into_owned(),
    };
    Cow::Owned(text.split('\n').map(line).collect::<Vec<_>>().join("\n"))
}

/// Prints rows under a heading.
fn print_table(heading: &[&str], rows: &[Vec<String>]) {
    table(heading, rows).iter().for_each(|line| println!("{line}"));
}

/// The lines of a table, columns aligned. Chinese characters take two cells. A
/// cell is one line, whoever wrote it.
fn table(heading: &[&str], rows: &[Vec<String>]) -> Vec<String> {
    let rows: Vec<Vec<Cow<'_, str>>> =
        rows.iter().map(|row| row.iter().map(|cell| printable(cell)).collect()).collect();
    let cells = |text: &str| -> usize {
        text.chars().map(|c| if c as u32 >= 0x1100 { 2 } else { 1 }).sum()
    };
    let mut widths: Vec<usize> = heading.iter().map(|text| cells(text)).collect();
    for row in &rows {
        for (width, text) in widths.iter_mut().zip(row) {
            *width = (*width).max(cells(text));
        }
    }
    let line = |row: &[Cow<'_, str>]| {
        let mut out = String::new();
        for (text, width) in row.iter().zip(&widths) {
            out.push_str(text);
            out.push_str(&" ".repeat(width - cells(text) + 2));
        }
        out.trim_end().to_owned()
    };
    let heading: Vec<_> = heading.iter().map(|text| Cow::Borrowed(*text)).collect();
    std::iter::once(&heading).chain(&rows).map(|row| line(row)).collect()
}

/// The rows of a JSON array, with these fields as columns.
fn rows_of(list: &serde_json::Value, fields: &[&str]) -> Vec<Vec<String>> {
    let items = list.as_array().map(Vec::as_slice).unwrap_or_default();
    items.iter().map(|item| fields.iter().map(|field| text_of(&item[*field])).collect()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What a hostile peer, file or schema may bring as a text.
    const EVIL: &str = "甲\u{1b}[2J\n\r\u{9b}31m\u{202e}乙\u{200f}";
    const SHOWN: &str = r"甲\u{1b}[2J\u{a}\u{d}\u{9b}31m\u{202e}乙\u{200f}";

    #[test]
    fn no_cell_of_a_table_steers_the_terminal_or_leaves_its_line() {
        let list = json!([{ "name": EVIL, "count": 3 }, { "name": "乙", "count": null }]);
        let rows = rows_of(&list, &["name", "count"]);
        let width = SHOWN.chars().count() + 2;
        let wanted = [
            format!("{:width$}  COUNT", "NAME"),
            format!("{SHOWN}  3"),
            format!("{:1$}  -", "乙", width - 1),
        ];
        assert_eq!(table(&["NAME", "COUNT"], &rows), wanted);
        // Neither does one that was not made from JSON.
        let raw = [vec![EVIL.to_owned(), "3".to_owned()]];
        assert_eq!(table(&["NAME", "COUNT"], &raw)[1], wanted[1]);
    }

    #[test]
    fn a_text_of_several_lines_keeps_its_line_ends_alone() {
        assert_eq!(lines("a,b\r\n甲,\u{1b}[2J\r\n"), "a,b\r\n甲,\\u{1b}[2J\r\n");
        assert_eq!(lines("a\rb\n\u{2028}"), "a\\u{d}b\n\\u{2028}");
        for plain in ["", "a\nb\n", "a\r\nb"] {
            assert_eq!(lines(plain), plain);
        }
    }
}
