//! `init`, `join` and `run`: how a node comes to be, and its life.

use std::{
    io::{BufRead as _, IsTerminal as _, Read as _, Write as _},
    net::SocketAddr,
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context as _, bail};
use certs::enrol::Token;
use protocol::{
    id::{FederationId, NodeId},
    suite::Suite,
    text::printable,
};

use super::{Done, ask::ask, text_of};
use crate::{
    admin::Request,
    app::{
        self,
        dir::NodeDir,
        init::NewHub,
        lock::{Occupant, Wait},
        node::load_config,
        owner::{become_owner, explain_denied, warn_of_root},
        restored,
    },
    telemetry,
};

#[derive(clap::Args)]
#[command(
    after_help = "Example: creditsync --dir /srv/hub init --federation zhengzhou --node 410100 --listen 0.0.0.0:7443 --name 郑州市信用中心"
)]
pub(super) struct InitArguments {
    /// The federation's name: a-z, 0-9 and '-' / 联盟名称
    #[arg(long)]
    federation: FederationId,
    /// The hub's name, usually its division code / 节点标识（通常为行政区划代码）
    #[arg(long, value_name = "ID")]
    node: NodeId,
    /// Where to listen, IP:PORT (UDP) / 监听地址
    #[arg(long, value_name = "ADDR")]
    listen: SocketAddr,
    /// A name for people / 显示名称
    #[arg(long)]
    name: Option<String>,
    /// Keep the root key there, for example on a USB stick, instead of in keys/ / 根密钥存放目录
    #[arg(long, value_name = "DIR")]
    root_key: Option<PathBuf>,
    /// The number of the federation's suite
    #[cfg(feature = "artificial-suite")]
    #[arg(long, value_name = "NUMBER", default_value = "1", value_parser = suite)]
    suite: Suite,
}

#[cfg(feature = "artificial-suite")]
fn suite(number: &str) -> Result<Suite, String> {
    let number = number.parse::<u8>().map_err(|error| error.to_string())?;
    Suite::from_number(number).map_err(|unknown| unknown.to_string())
}

pub(super) fn init(dir: &NodeDir, arguments: InitArguments) -> anyhow::Result<Done> {
    telemetry::init_for_command();
    let name = arguments.name.unwrap_or_else(|| arguments.node.to_string());
    // There is nothing to choose from as long as there is but one.
    #[cfg(not(feature = "artificial-suite"))]
    let suite = Suite::One;
    #[cfg(feature = "artificial-suite")]
    let suite = arguments.suite;
    let InitArguments { federation, node, listen, root_key, .. } = arguments;
    let _as_owner = become_owner(dir)?;
    // The daemon has another working directory.
    let root_key_dir = root_key.map(std::path::absolute).transpose().context("--root-key")?;
    let hub = NewHub { federation, suite, node, name, listen, root_key_dir };
    app::init::init(dir, &hub)?;
    let root_keys = hub.root_key_dir.clone().unwrap_or_else(|| dir.keys());
    eprintln!(
        "hub {0} of federation {1} is ready in {2} / 联盟 {1} 的市级中心 {0} 已建好，目录 {2}",
        hub.node,
        hub.federation,
        dir.path().display()
    );
    eprintln!(
        "next: creditsync --dir {0} run    and    creditsync --dir {0} invite ID / 接下来：启动（run），再为各县生成令牌（invite）",
        dir.path().display()
    );
    eprintln!(
        "keep {0} safe: it is the root of all trust / 请妥善保管 {0}：它是全部信任的起点",
        root_keys.join("root.key").display()
    );
    if hub.root_key_dir.is_some() {
        eprintln!(
            "it can be taken away now; only 'creditsync ca rotate' and a stolen signing key need it / 现在可以拔下；\
             只有更换签发机构或签名密钥被盗时才需要"
        );
    }
    Ok(Done::Well)
}

#[derive(clap::Args)]
#[command(
    after_help = "Example: creditsync --dir /var/lib/creditsync join      (then paste the token and press Enter)\n         creditsync --dir /var/lib/creditsync join - < token.txt\n\nWhoever has the token can join in this node's place. On the command line it stands in the list of processes and in the shell's history.\n持有令牌者可冒充本节点加入；写在命令行上的令牌会出现在进程列表和命令历史中，请按提示粘贴，或用 '-' 从标准输入读取。"
)]
pub(super) struct JoinArguments {
    /// '-' reads the token from standard input; without it, it is asked for. White space in it does not matter / 令牌
    #[arg(num_args = 0.., value_name = "-")]
    token: Vec<String>,
}

/// Longest text that is read for a token: four times the longest one.
const TOKEN_TEXT_MAX: u64 = 256 * 1024;

/// The token, from where it is.
fn read_token(arguments: &[String]) -> anyhow::Result<Option<String>> {
    let mut token = arguments.concat();
    if !token.is_empty() && token != "-" {
        eprintln!(
            "warning: a token on the command line stands in the list of processes and in the shell's history; next time \
             run 'creditsync join' and paste it, or 'creditsync join -' / 警告：命令行上的令牌会留在进程列表和命令历史中，\
             下次请直接运行 creditsync join 后粘贴"
        );
        return Ok(Some(token));
    }
    let stdin = std::io::stdin();
    // Whoever types '-' on a terminal has nothing else to hand over.
    let asked = token.is_empty() || stdin.is_terminal();
    token.clear();
    if asked && !stdin.is_terminal() {
        eprintln!(
            "no token: paste it after 'creditsync join' on a terminal, or hand it to 'creditsync join -' on standard \
             input; see creditsync join --help / 没有令牌：请在终端运行 creditsync join 后粘贴，或用 creditsync join - 从标准输入读取"
        );
        return Ok(None);
    }
    if asked {
        eprint!("paste the token, then press Enter / 请粘贴令牌并回车: ");
        // A mail may have broken it into lines.
        let mut lines = stdin.lock().take(TOKEN_TEXT_MAX);
        loop {
            let before = token.len();
            lines.read_line(&mut token).context("read the token")?;
            if token[before..].trim().is_empty() || Token::parse(&token).is_ok() {
                break;
            }
            eprint!(
                "that is not a whole token yet: paste the rest, or press Enter to end / 令牌尚不完整：请继续粘贴其余部分，或直接回车结束: "
            );
        }
    } else {
        stdin.take(TOKEN_TEXT_MAX).read_to_string(&mut token).context("read the token")?;
    }
    Ok(Some(token))
}

pub(super) fn join(dir: &NodeDir, arguments: JoinArguments) -> anyhow::Result<Done> {
    telemetry::init_for_command();
    let Some(token) = read_token(&arguments.token)? else {
        return Ok(Done::Misused);
    };
    if dir.is_node() && !restored::lacks_keys(dir) {
        return join_again(dir, token);
    }
    let _as_owner = become_owner(dir)?;
    let aside = match restored::lacks_keys(dir) {
        true => {
            Token::parse(&token).context("read the token")?;
            Some(restored::set_aside(dir)?)
        }
        false => None,
    };
    let passphrase = app::node::passphrase()?;
    let config = runtime()?.block_on(app::member::join::join(dir, &token, passphrase))?;
    let hub = config.upstream.map(|upstream| upstream.hub.to_string()).unwrap_or_default();
    eprintln!(
        "{0} ({1}) joined federation {2} at hub {hub} / {0}（{1}）已加入联盟 {2}，市级中心为 {hub}",
        config.node,
        printable(&config.name),
        config.federation
    );
    if let Some(aside) = aside {
        restored::keep_personal(dir, &aside)?;
        eprintln!(
            "从备份恢复的配置与数据已移到 {0}：请把其中 creditsync.toml 的设置抄到 {1}；同步完成后可删除 {0} / what was restored \
             without keys lies in {0} now: copy your settings from creditsync.toml there to {1}; {0} may be deleted once \
             all is in sync",
            aside.display(),
            dir.config().display()
        );
    }
    eprintln!(
        "next: creditsync --dir {0} run    then drop files into {1}/DATASET/ / 接下来：启动，再把文件放入 {1}/数据集/",
        dir.path().display(),
        dir.inbox().display()
    );
    Ok(Done::Well)
}

/// A member whose certificate has ended, or that was revoked: with the daemon or
/// without it.
fn join_again(dir: &NodeDir, token: String) -> anyhow::Result<Done> {
    let (answer, _) = ask(dir, &Request::JoinAgain { token })?;
    eprintln!(
        "{0} joined federation {1} again; its records, its history and what was not sent yet are as before / {0} 已重新加入\
         联盟 {1}；记录、历史和尚未上传的内容不变",
        text_of(&answer["node"]),
        text_of(&answer["federation"])
    );
    if answer["new_signing_key"] == true {
        eprintln!(
            "the hub had retired the signing key, so a new one signs from now on / 原签名密钥已被市级中心停用，今后使用新密钥"
        );
    }
    if answer["foreign_signing_keys"] != 0 {
        eprintln!(
            "{} signing keys of this node were not made in this directory; they count as its own now. If no other machine \
             was enrolled under its name, call the municipal centre: creditsync cert show / 有 {0} 个签名密钥不是在本机生成的，\
             如未更换过机器，请联系市级中心",
            answer["foreign_signing_keys"]
        );
    }
    if answer["addresses_written"] == true {
        eprintln!(
            "the hub's addresses in {1} are those of the token now: {0} / {1} 中的市级中心地址已改为令牌中的地址：{0}",
            printable(&answer["addresses"].to_string()),
            dir.config().display()
        );
    }
    if answer["addresses_differ"] == true {
        eprintln!(
            "the token names other addresses of the hub ({0}) than {1}, which could not be written: change [upstream] there / \
             令牌中的市级中心地址（{0}）与 {1} 中的不同，且无法写入该文件：请修改其中的 [upstream]",
            printable(&answer["addresses"].to_string()),
            dir.config().display()
        );
    }
    Ok(Done::Well)
}

/// How long threads may take to end, after tasks had theirs; whoever stops a service
/// waits for both.
const THREADS_END_MAX: Duration = Duration::from_secs(10);

#[derive(clap::Args)]
#[command(
    after_help = "Prints 'ready' once it listens. Stop it with Ctrl-C or SIGTERM.\nExample: creditsync --dir /srv/hub run"
)]
pub(super) struct RunArguments {}

pub(super) fn run(dir: &NodeDir, _: RunArguments) -> anyhow::Result<Done> {
    run_daemon(dir).map_err(|error| explain_denied(dir, error))?;
    Ok(Done::Well)
}

fn run_daemon(dir: &NodeDir) -> anyhow::Result<()> {
    // Nothing is logged before the configuration says how.
    Wait::new(dir, Occupant::Command).until_made()?;
    let config = load_config(dir)?;
    telemetry::init_for_daemon(&config.log).context("start the thread that writes the log")?;
    warn_of_root(dir);
    if config.listen.is_some() && config.upstream.is_some() {
        bail!(
            "{}: [listen] and [upstream] together make a middle tier, which this version cannot run; \
             remove one of them",
            dir.config().display()
        );
    }
    let ready = || {
        // Whoever started us waits for this line, or has gone away.
        let mut out = std::io::stdout();
        let _ = writeln!(out, "ready").and_then(|()| out.flush());
    };
    let runtime = runtime()?;
    let ended = runtime.block_on(app::daemon::run(dir, ready));
    // The store is closed when nobody has it any more. What a thread goes on reading or
    // computing is of no use to anybody, and what was acknowledged is durable.
    runtime.shutdown_timeout(THREADS_END_MAX);
    ended
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(
            std::thread::available_parallelism().map_or(2, |cores| cores.get().clamp(2, 8)),
        )
        .enable_all()
        .build()
        .context("start the runtime")
}
