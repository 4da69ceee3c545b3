//! The `creditsync.toml` of a new node, with its comments.
//!
//! A value that differs from its default is written live, so that reading the
//! text gives back exactly the settings it was made from.

use std::path::Path;

use crate::{
    resolve::{InboxConfig, LogConfig, NodeConfig, TlsConfig},
    settings::{
        CACHE_MB, DISK_RESERVE_MB, Fallback, HEARTBEAT_S, HOLD_CHANGES_MIN, HOLD_CHANGES_PERCENT,
        HOLD_DELETES_MIN, HOLD_DELETES_PERCENT, HOLD_DOUBTFUL_MIN, HOLD_DOUBTFUL_PERCENT,
        IMPORT_MEMORY_MB, INCOMPLETE_WAIT_S, ISSUING_LIFETIME_S, LIFETIME_S, Number,
        ORIGIN_QUOTA_MB, RETRY_MAX_S, STABLE_S, STALL_S, UNDO_DAYS, UNDO_MB,
    },
};

/// Where English comments wrap.
const COLUMNS: usize = 88;

impl NodeConfig {
    /// The commented file that `init` and `join` write: what makes this node
    /// itself is set, every default stands as a comment with its unit and
    /// meaning in Chinese and English. Reading it gives the same settings.
    pub fn render_new(&self) -> String {
        node_config(self)
    }
}

fn node_config(config: &NodeConfig) -> String {
    let mut out = Text(String::new());
    out.comment(
        "creditsync 节点配置。以 # 开头的设置为默认值，没有默认值的为示例，去掉 # 即可修改；修改后重启生效。",
        "The settings of a creditsync node. Settings behind a # are the defaults, or examples \
         where there is none: take the # away to change one, then restart the daemon.",
    );
    out.blank();
    out.comment("联盟名称，由中心节点确定。", "The federation, named by its hub.");
    out.line("federation", &quoted(config.federation.as_str()), true);
    out.comment(
        "本节点编号，通常为行政区划代码；写在证书中，不可更改。",
        "This node's id, usually a division code. It stands in the certificate: do not change it.",
    );
    out.line("node", &quoted(config.node.as_str()), true);
    out.comment("显示名称，可任意填写。", "The name that people read; anything will do.");
    out.line("name", &quoted(&config.name), true);
    listen(&mut out, config);
    upstream(&mut out, config);

    out.table("store", "数据库", "The database");
    out.number(&CACHE_MB, Some(config.store.cache_mb));
    out.number(&DISK_RESERVE_MB, config.store.disk_reserve_mb);
    out.number(&ORIGIN_QUOTA_MB, config.store.origin_quota_mb);
    out.table("sync", "同步", "Replication");
    out.number(&HEARTBEAT_S, Some(config.sync.heartbeat_s));
    out.number(&RETRY_MAX_S, Some(config.sync.retry_max_s));
    out.number(&STALL_S, Some(config.sync.stall_s));
    out.table("import", "导入", "Imports");
    out.number(&IMPORT_MEMORY_MB, Some(config.import.memory_mb));
    out.number(&HOLD_DELETES_PERCENT, Some(config.import.hold_deletes_percent));
    out.number(&HOLD_DELETES_MIN, Some(config.import.hold_deletes_min));
    out.number(&HOLD_CHANGES_PERCENT, Some(config.import.hold_changes_percent));
    out.number(&HOLD_CHANGES_MIN, Some(config.import.hold_changes_min));
    out.number(&HOLD_DOUBTFUL_PERCENT, Some(config.import.hold_doubtful_percent));
    out.number(&HOLD_DOUBTFUL_MIN, Some(config.import.hold_doubtful_min));
    out.number(&UNDO_DAYS, Some(config.import.undo_days));
    out.number(&UNDO_MB, Some(config.import.undo_mb));
    out.table(
        "inbox",
        "收件目录：放入 inbox/数据集/ 的文件自动导入",
        "The folder inbox/DATASET/, whose files are imported by themselves",
    );
    out.comment("是否启用。默认 true。", "Whether it is watched. Default true.");
    out.line("enabled", &config.inbox.enabled.to_string(), !config.inbox.enabled);
    out.number(&STABLE_S, Some(config.inbox.stable_s));
    out.number(&INCOMPLETE_WAIT_S, Some(config.inbox.incomplete_wait_s));
    inbox_of_others(&mut out, &config.inbox);
    out.table("certificates", "证书（仅中心节点使用）", "Certificates (used by a hub only)");
    out.number(&LIFETIME_S, Some(config.certificates.lifetime_s));
    out.number(&ISSUING_LIFETIME_S, Some(config.certificates.issuing_lifetime_s));
    out.comment(
        "根密钥所在目录，例如 U 盘；绝对路径，或相对于节点目录。默认为 keys/。由 creditsync init \
         --root-key 写入。",
        "The directory of the root key, for example a USB stick; absolute, or relative to the \
         node's directory. Default: keys/. Written by creditsync init --root-key.",
    );
    out.path("root_key_dir", config.certificates.root_key_dir.as_deref(), "/media/root-key");
    tls(&mut out, &config.tls);
    log(&mut out, &config.log);
    out.0
}

fn listen(out: &mut Text, config: &NodeConfig) {
    out.blank();
    out.comment(
        "中心节点：监听的 IP 和端口（UDP），以及写入邀请令牌的地址（执行过 creditsync hub move 则以其为准）。",
        "A hub: the IP and port (UDP) to listen on, and the addresses that invitations carry, unless \
         creditsync hub move has said others.",
    );
    let live = config.listen.is_some();
    out.header("listen", live);
    let address = config.listen.map_or("0.0.0.0:7443".to_owned(), |address| address.to_string());
    out.line("address", &quoted(&address), live);
    if config.advertise.is_empty() {
        out.line("advertise", "[\"credit.example.org:7443\"]", false);
    } else {
        out.line("advertise", &list(&config.advertise), true);
    }
}

fn upstream(out: &mut Text, config: &NodeConfig) {
    out.blank();
    out.comment(
        "成员节点：中心节点的编号和地址，按顺序尝试；中心公告过的地址在其之前。由 creditsync join 写入。",
        "A member: its hub's id and addresses, tried in order, behind those that the hub has \
         announced. Written by creditsync join.",
    );
    out.header("upstream", config.upstream.is_some());
    match &config.upstream {
        Some(upstream) => {
            out.line("hub", &quoted(upstream.hub.as_str()), true);
            out.line("addresses", &list(&upstream.addresses), true);
        }
        None => {
            out.line("hub", "\"410100\"", false);
            out.line("addresses", "[\"credit.example.org:7443\"]", false);
        }
    }
}

fn inbox_of_others(out: &mut Text, inbox: &InboxConfig) {
    out.comment(
        "允许哪个组（组名或 gid）的用户放入文件、读取报告，例如 SFTP 或 SMB 用户；creditsync 的用户须属于该组。\
         默认只有 creditsync 自己的用户。",
        "The group, by name or number, whose members may drop files and read reports, for example \
         users of SFTP or SMB; creditsync's own user has to be a member of it. Default: its own user \
         alone.",
    );
    let group = inbox.group.as_deref();
    out.line("group", &quoted(group.unwrap_or("sftp")), group.is_some());
    out.comment(
        "按数据集指定文件编码，名称同 import --encoding。默认自动识别。",
        "How the files of a dataset are encoded, by the names of import --encoding. Default: that is \
         found out.",
    );
    out.header("inbox.encoding", !inbox.encoding.is_empty());
    if inbox.encoding.is_empty() {
        out.line("enterprise", "\"gbk\"", false);
    }
    for (dataset, encoding) in &inbox.encoding {
        out.line(dataset.as_str(), &quoted(encoding), true);
    }
}

fn tls(out: &mut Text, tls: &TlsConfig) {
    let default = TlsConfig::default();
    out.table(
        "tls",
        "连接加密（所有节点）；路径为绝对路径，或相对于节点目录",
        "How connections are secured (every node); paths are absolute, or relative to the node's \
         directory",
    );
    out.comment(
        "是否启用抗量子密钥交换 X25519MLKEM768；若中间网络设备丢弃较大的首包，请改为 false。\
         默认 true。",
        "Whether the post-quantum key exchange X25519MLKEM768 is offered; false where a middlebox \
         drops large first packets. Default true.",
    );
    out.line(
        "post_quantum",
        &tls.post_quantum.to_string(),
        tls.post_quantum != default.post_quantum,
    );
    out.comment(
        "单位自有 PKI 的节点证书（含中间证书）和私钥，PEM 文件，两项须同时设置；文件变化后自动重新读取。\
         默认使用中心节点签发的证书。",
        "PEM files of an organisation's own PKI, only together: this node's certificate, with \
         those between it and the root, and its private key; read again when they change. \
         Default: the certificate that the hub issued.",
    );
    let pki = tls.pki.as_ref();
    out.path("certificate", pki.map(|pki| pki.certificate.as_path()), "pki/node.pem");
    out.path("key", pki.map(|pki| pki.key.as_path()), "pki/node.key");
    out.comment(
        "另外信任的根证书，PEM 文件，可单独设置；文件变化后自动重新读取。默认只信任本联盟的根证书。",
        "A PEM file of more roots that are trusted, with or without the two above; read again when \
         it changes. Default: the federation's root alone.",
    );
    out.path("ca", tls.ca.as_deref(), "pki/ca.pem");
}

fn log(out: &mut Text, log: &LogConfig) {
    let default = LogConfig::default();
    out.table("log", "日志，输出到标准错误", "The log, on standard error");
    out.comment(
        "级别：off、error、warn、info、debug、trace。默认 info。",
        "Level: off, error, warn, info, debug or trace, also per target: \"warn,creditsync=debug\". \
         Default info.",
    );
    out.line("level", &quoted(&log.level), log.level != default.level);
    out.comment("格式：text 或 json。默认 text。", "Format: text or json. Default text.");
    out.line("format", &quoted(log.format.as_str()), log.format != default.format);
}

/// The text so far.
struct Text(String);

impl Text {
    fn push(&mut self, line: &str) {
        self.0.push_str(line);
        self.0.push('\n');
    }

    fn blank(&mut self) {
        self.push("");
    }

    fn comment(&mut self, zh: &str, en: &str) {
        self.push(&format!("# {zh}"));
        let mut line = String::from("#");
        for word in en.split(' ') {
            if line.len() + 1 + word.len() > COLUMNS {
                self.push(&line);
                line = String::from("#");
            }
            line.push(' ');
            line.push_str(word);
        }
        self.push(&line);
    }

    fn header(&mut self, table: &str, live: bool) {
        let mark = if live { "" } else { "# " };
        self.push(&format!("{mark}[{table}]"));
    }

    /// A table whose header is live even if it is empty, so that taking the
    /// `#` from one line is enough to change it.
    fn table(&mut self, table: &str, zh: &str, en: &str) {
        self.blank();
        self.comment(&format!("{zh}。"), &format!("{en}."));
        self.header(table, true);
    }

    fn line(&mut self, key: &str, value: &str, live: bool) {
        let mark = if live { "" } else { "# " };
        self.push(&format!("{mark}{key} = {value}"));
    }

    /// A path without a default: the example is what stands behind the `#`.
    fn path(&mut self, key: &str, path: Option<&Path>, example: &str) {
        // Of settings that were checked, every path is UTF-8.
        let shown = path.map_or(example.into(), Path::to_string_lossy);
        self.line(key, &quoted(&shown), path.is_some());
    }

    fn number(&mut self, setting: &Number, value: Option<u64>) {
        let Number { key, default, min, max, unit: [unit_en, unit_zh], meaning, .. } = setting;
        let (default_en, default_zh, shown) = match *default {
            Fallback::Is(number) => {
                (number.to_string(), number.to_string(), value.unwrap_or(number))
            }
            Fallback::Derived { example } => (
                "derived from the file system's size".to_owned(),
                "按文件系统大小推算".to_owned(),
                value.unwrap_or(example),
            ),
        };
        self.comment(
            &format!("{}。单位：{unit_zh}；范围：{min} 至 {max}；默认：{default_zh}。", meaning[1]),
            &format!("{}. In {unit_en}, {min} to {max}; default: {default_en}.", meaning[0]),
        );
        self.line(key, &shown.to_string(), value != setting.fixed());
    }
}

/// A TOML string.
fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// A TOML list of strings on one line.
pub(crate) fn list(items: &[String]) -> String {
    format!("[{}]", items.iter().map(|item| quoted(item)).collect::<Vec<_>>().join(", "))
}
