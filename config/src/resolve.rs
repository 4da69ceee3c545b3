//! A node's settings as the daemon uses them.
//!
//! A [`NodeConfig`] that came out of [`NodeConfig::parse`] is within every
//! limit; nobody checks it again. Its ranges and defaults are those of the
//! settings table, which also makes the comments of a new file.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
};

use protocol::{
    address::{self, ADDRESSES_MAX, AddressProblem},
    id::{DatasetId, FederationId, NameError, NodeId},
    text::{is_format, printable, visible_within},
};

use crate::{
    document::{ConfigError, ConfigErrors, Document},
    raw::{RawConfig, RawListen, RawLog, RawTls, RawUpstream},
    settings::{
        CACHE_MB, DISK_RESERVE_MB, HEARTBEAT_S, HOLD_CHANGES_MIN, HOLD_CHANGES_PERCENT,
        HOLD_DELETES_MIN, HOLD_DELETES_PERCENT, HOLD_DOUBTFUL_MIN, HOLD_DOUBTFUL_PERCENT,
        IMPORT_MEMORY_MB, INCOMPLETE_WAIT_S, ISSUING_LIFETIME_S, LIFETIME_S, Number,
        ORIGIN_QUOTA_MB, RETRY_MAX_S, STABLE_S, STALL_S, UNDO_DAYS, UNDO_MB,
    },
};

/// Longest display name in bytes: some eighty Chinese characters, one line of
/// a page.
pub const DISPLAY_NAME_BYTES_MAX: usize = 256;
/// Whether a text can be a display name; if not, why.
pub fn check_display_name(name: &str) -> Result<(), String> {
    if name.trim().is_empty() {
        return Err("is empty; write the name that people read, or leave it out".into());
    }
    if name.len() > DISPLAY_NAME_BYTES_MAX {
        return Err(format!(
            "has {} bytes of UTF-8; write at most {DISPLAY_NAME_BYTES_MAX}",
            name.len()
        ));
    }
    if name.chars().any(is_unshown) {
        return Err("has a control character or one that nobody sees; write it on one line".into());
    }
    Ok(())
}

/// A display name that came from elsewhere, as it may stand in a file and on a
/// screen: what [`check_display_name`] refuses is spelled out, and cut where it is too
/// long; none if nothing is left.
pub fn shown_display_name(name: &str) -> Option<String> {
    if check_display_name(name).is_ok() {
        return Some(name.to_owned());
    }
    // Three bytes are most of what a character takes, and names of hidden ones are
    // longer than they are.
    let shown = visible_within(name.trim(), DISPLAY_NAME_BYTES_MAX / 4);
    Some(shown.into_owned()).filter(|shown| check_display_name(shown).is_ok())
}

/// Control characters, those that turn a text's direction or have no shape, and the
/// ends of lines and paragraphs.
fn is_unshown(character: char) -> bool {
    character.is_control() || is_format(character) || matches!(character, '\u{2028}' | '\u{2029}')
}

/// Longest path in bytes: the system opens no longer one (PATH_MAX).
pub const PATH_BYTES_MAX: usize = 4096;
/// Whether a path can stand in the file; if not, why. Whether anything lies
/// there is for the one who opens it to say.
pub fn check_path(path: &Path) -> Result<(), String> {
    let Some(text) = path.to_str() else {
        return Err("is not UTF-8, as the file has to be; choose a path with another name".into());
    };
    if text.trim().is_empty() {
        return Err("is empty; write a path, or leave it out".into());
    }
    if text.len() > PATH_BYTES_MAX {
        return Err(format!("has {} bytes of UTF-8; write at most {PATH_BYTES_MAX}", text.len()));
    }
    if text.chars().any(char::is_control) {
        // In "C:\new" TOML reads \n as the end of a line.
        return Err(
            "has a control character; in single quotes a backslash is only a backslash".into()
        );
    }
    Ok(())
}

/// Longest name of a group in bytes: the system's own limit is 32.
const GROUP_BYTES_MAX: usize = 64;
/// Longest name of an encoding in bytes: WHATWG's longest label has 19.
const ENCODING_BYTES_MAX: usize = 40;

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Everything a node is told by its `creditsync.toml`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeConfig {
    /// The trust domain.
    pub federation: FederationId,
    /// The daemon's identity in it.
    pub node: NodeId,
    /// The name that people read; the node's id where none was given.
    pub name: String,
    /// Where a hub listens (UDP). Port 0 lets the system choose, for trials.
    pub listen: Option<SocketAddr>,
    /// HOST:PORT, the addresses that `invite` puts into tokens. Empty unless
    /// the node listens.
    pub advertise: Vec<String>,
    /// Whom a member dials.
    pub upstream: Option<Upstream>,
    /// The database.
    pub store: StoreConfig,
    /// Replication.
    pub sync: SyncConfig,
    /// Imports.
    pub import: ImportConfig,
    /// The delivery folder.
    pub inbox: InboxConfig,
    /// Certificates that a hub issues.
    pub certificates: CertificateConfig,
    /// How connections are secured.
    pub tls: TlsConfig,
    /// What the daemon writes to standard error.
    pub log: LogConfig,
}

/// The hub of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// Its node id.
    pub hub: NodeId,
    /// HOST:PORT, tried in order; never empty.
    pub addresses: Vec<String>,
}

/// `[store]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreConfig {
    /// Memory for the database's cache, in MiB.
    pub cache_mb: u64,
    /// Free space, in MiB, below which writes are refused; derived from the
    /// size of the file system if `None`.
    pub disk_reserve_mb: Option<u64>,
    /// What the data of each other node may take here, in MiB; derived from the
    /// size of the file system if `None`.
    pub origin_quota_mb: Option<u64>,
}

/// `[sync]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncConfig {
    /// Seconds between two heartbeats. At most 25, because a replica is in sync
    /// only with a heartbeat under 30 seconds old.
    pub heartbeat_s: u64,
    /// Longest wait before the hub is dialled again, in seconds.
    pub retry_max_s: u64,
    /// Seconds after which a peer that owes something and does not get on with it
    /// loses the stream.
    pub stall_s: u64,
}

/// `[import]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportConfig {
    /// Memory for sorting a delivery, in MiB.
    pub memory_mb: u64,
    /// A full file is held if it would delete more than this percentage of a
    /// partition's records, and `hold_deletes_min` at least.
    pub hold_deletes_percent: u64,
    /// The least number of deletions.
    pub hold_deletes_min: u64,
    /// A full file is held if it changes one column in more than this percentage of
    /// the records that come again, and in `hold_changes_min` of them at least.
    pub hold_changes_percent: u64,
    /// The least number of records with such a change.
    pub hold_changes_min: u64,
    /// A file is held if more than this percentage of its new credit codes have a
    /// wrong check character, and `hold_doubtful_min` of them at least.
    pub hold_doubtful_percent: u64,
    /// The least number of such codes.
    pub hold_doubtful_min: u64,
    /// Days for which a delivery can be taken back.
    pub undo_days: u64,
    /// MiB for what deliveries have replaced.
    pub undo_mb: u64,
}

/// `[inbox]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboxConfig {
    /// Whether the folder is watched.
    pub enabled: bool,
    /// Seconds for which a file's size has to stay the same before it is taken.
    pub stable_s: u64,
    /// Seconds for which one is waited for that seems not to be complete.
    pub incomplete_wait_s: u64,
    /// The group, by name or number, whose members drop files and read reports.
    pub group: Option<String>,
    /// How files of a dataset are encoded, where that is not found out; the names
    /// are looked up by the daemon.
    pub encoding: BTreeMap<DatasetId, String>,
}

/// `[certificates]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateConfig {
    /// Life of the node certificates that a hub issues, in seconds.
    pub lifetime_s: u64,
    /// Life of the CA that issues them, in seconds. It may be shorter than
    /// theirs: no certificate outlives its issuer.
    pub issuing_lifetime_s: u64,
    /// The directory of the root key where that is not `keys/`, as written:
    /// absolute, or relative to the node's directory.
    pub root_key_dir: Option<PathBuf>,
}

/// `[tls]`. Paths are as written: absolute, or relative to the node's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsConfig {
    /// Whether the key exchange X25519MLKEM768 is offered. Its first packets are
    /// large, and some middleboxes drop such.
    pub post_quantum: bool,
    /// The node's identity from an organisation's own PKI; if `None`, it is the
    /// one that the hub issued.
    pub pki: Option<PkiConfig>,
    /// PEM file of roots that are trusted besides the federation's own.
    pub ca: Option<PathBuf>,
}

/// `tls.certificate` and `tls.key`, which are only there together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PkiConfig {
    /// PEM file of the node's certificate and those between it and the root.
    pub certificate: PathBuf,
    /// PEM file of its private key.
    pub key: PathBuf,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// A level, or levels per target: `info`, `warn,creditsync=debug`.
    pub level: String,
    /// Lines for people or for machines.
    pub format: LogFormat,
}

/// How a line of the log looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl LogFormat {
    /// As the file spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        }
    }
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            cache_mb: default_of(&CACHE_MB),
            disk_reserve_mb: DISK_RESERVE_MB.fixed(),
            origin_quota_mb: ORIGIN_QUOTA_MB.fixed(),
        }
    }
}

impl Default for SyncConfig {
    fn default() -> Self {
        Self {
            heartbeat_s: default_of(&HEARTBEAT_S),
            retry_max_s: default_of(&RETRY_MAX_S),
            stall_s: default_of(&STALL_S),
        }
    }
}

impl Default for ImportConfig {
    fn default() -> Self {
        Self {
            memory_mb: default_of(&IMPORT_MEMORY_MB),
            hold_deletes_percent: default_of(&HOLD_DELETES_PERCENT),
            hold_deletes_min: default_of(&HOLD_DELETES_MIN),
            hold_changes_percent: default_of(&HOLD_CHANGES_PERCENT),
            hold_changes_min: default_of(&HOLD_CHANGES_MIN),
            hold_doubtful_percent: default_of(&HOLD_DOUBTFUL_PERCENT),
            hold_doubtful_min: default_of(&HOLD_DOUBTFUL_MIN),
            undo_days: default_of(&UNDO_DAYS),
            undo_mb: default_of(&UNDO_MB),
        }
    }
}

impl Default for InboxConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            stable_s: default_of(&STABLE_S),
            incomplete_wait_s: default_of(&INCOMPLETE_WAIT_S),
            group: None,
            encoding: BTreeMap::new(),
        }
    }
}

impl Default for CertificateConfig {
    fn default() -> Self {
        Self {
            lifetime_s: default_of(&LIFETIME_S),
            issuing_lifetime_s: default_of(&ISSUING_LIFETIME_S),
            root_key_dir: None,
        }
    }
}

impl Default for TlsConfig {
    fn default() -> Self {
        Self { post_quantum: true, pki: None, ca: None }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::default() }
    }
}

impl NodeConfig {
    /// Reads a `creditsync.toml`. Syntax errors come alone, everything else is
    /// reported at once.
    pub fn parse(text: &str) -> Result<Self, ConfigErrors> {
        let document = Document::parse(text)?;
        let mut errors = Vec::new();
        let raw = document.read::<RawConfig>(&mut errors);
        match raw {
            Some(raw) => resolve(raw, Check { document: &document, errors }),
            None => Err(ConfigErrors::in_order(errors)),
        }
    }

    /// `hub` (it listens), `member` (it dials a hub) or `both`.
    pub fn role(&self) -> &'static str {
        match (&self.listen, &self.upstream) {
            (Some(_), Some(_)) => "both",
            (Some(_), None) => "hub",
            // `parse` refuses a file with neither.
            (None, _) => "member",
        }
    }
}

/// Checks a HOST:PORT that others are to dial: a host name, an IPv4 address or
/// a bracketed IPv6 address, and a port from 1. The error says what to write.
pub fn check_address(text: &str) -> Result<(), String> {
    let problem = match address::check(text) {
        Ok(()) => return Ok(()),
        // A page of text says nothing to anybody.
        Err(problem @ AddressProblem::TooLong) => {
            return Err(format!("an address of {} bytes {problem}", text.len()));
        }
        Err(problem) => problem,
    };
    let advice = match problem {
        AddressProblem::Unspecified => "write the one that the other side reaches",
        _ => "write HOST:PORT, for example credit.example.org:7443",
    };
    Err(format!("'{}' {problem}; {advice}", printable(text)))
}

/// Checks a list of addresses that others are to dial: not too many, each good, none
/// twice.
pub fn check_addresses(addresses: &[String]) -> Result<(), String> {
    match problems_of(addresses).into_iter().next() {
        Some(problem) => Err(problem),
        None => Ok(()),
    }
}

/// All that is wrong with a list of addresses.
fn problems_of(addresses: &[String]) -> Vec<String> {
    let mut problems = Vec::new();
    if addresses.len() > ADDRESSES_MAX {
        problems.push(format!("has {} addresses; write at most {ADDRESSES_MAX}", addresses.len()));
    }
    for (index, address) in addresses.iter().enumerate() {
        if let Err(problem) = check_address(address) {
            problems.push(problem);
        } else if addresses[..index].contains(address) {
            problems.push(format!("'{address}' stands twice; delete one"));
        }
    }
    problems
}

/// The default of a setting that is not derived.
fn default_of(setting: &Number) -> u64 {
    setting.fixed().unwrap_or(setting.min)
}

fn resolve(raw: RawConfig, mut check: Check<'_, '_>) -> Result<NodeConfig, ConfigErrors> {
    let federation =
        check.id("federation", raw.federation, FederationId::new, "the federation's name");
    let node = check.id("node", raw.node, NodeId::new, "the node's id, such as 410122");
    let name = check.name(raw.name, node.as_ref());
    let upstream_broken = check.errors.iter().any(|error| error.place == "upstream");
    if raw.listen.is_none() && raw.upstream.is_none() && !upstream_broken {
        check.missing(
            "listen",
            "a hub needs a table [listen], a member a table [upstream], and here is neither; \
             'creditsync init' and 'creditsync join' write them",
        );
    }
    let (listen, advertise) = raw.listen.map_or((None, Vec::new()), |raw| check.listen(raw));
    let upstream = raw.upstream.and_then(|raw| check.upstream(raw, node.as_ref()));
    let store = StoreConfig {
        cache_mb: check.number(&CACHE_MB, raw.store.cache_mb),
        disk_reserve_mb: raw
            .store
            .disk_reserve_mb
            .and_then(|value| check.in_range(&DISK_RESERVE_MB, value)),
        origin_quota_mb: raw
            .store
            .origin_quota_mb
            .and_then(|value| check.in_range(&ORIGIN_QUOTA_MB, value)),
    };
    let sync = SyncConfig {
        heartbeat_s: check.number(&HEARTBEAT_S, raw.sync.heartbeat_s),
        retry_max_s: check.number(&RETRY_MAX_S, raw.sync.retry_max_s),
        stall_s: check.number(&STALL_S, raw.sync.stall_s),
    };
    let import = ImportConfig {
        memory_mb: check.number(&IMPORT_MEMORY_MB, raw.import.memory_mb),
        hold_deletes_percent: check.number(&HOLD_DELETES_PERCENT, raw.import.hold_deletes_percent),
        hold_deletes_min: check.number(&HOLD_DELETES_MIN, raw.import.hold_deletes_min),
        hold_changes_percent: check.number(&HOLD_CHANGES_PERCENT, raw.import.hold_changes_percent),
        hold_changes_min: check.number(&HOLD_CHANGES_MIN, raw.import.hold_changes_min),
        hold_doubtful_percent: check
            .number(&HOLD_DOUBTFUL_PERCENT, raw.import.hold_doubtful_percent),
        hold_doubtful_min: check.number(&HOLD_DOUBTFUL_MIN, raw.import.hold_doubtful_min),
        undo_days: check.number(&UNDO_DAYS, raw.import.undo_days),
        undo_mb: check.number(&UNDO_MB, raw.import.undo_mb),
    };
    let inbox = InboxConfig {
        enabled: raw.inbox.enabled.unwrap_or(true),
        stable_s: check.number(&STABLE_S, raw.inbox.stable_s),
        incomplete_wait_s: check.number(&INCOMPLETE_WAIT_S, raw.inbox.incomplete_wait_s),
        group: check.group(raw.inbox.group),
        encoding: check.encodings(raw.inbox.encoding),
    };
    let certificates = CertificateConfig {
        lifetime_s: check.number(&LIFETIME_S, raw.certificates.lifetime_s),
        issuing_lifetime_s: check.number(&ISSUING_LIFETIME_S, raw.certificates.issuing_lifetime_s),
        root_key_dir: check.path("certificates.root_key_dir", raw.certificates.root_key_dir),
    };
    let tls = check.tls(raw.tls);
    let log = check.log(raw.log);
    match (federation, node) {
        (Some(federation), Some(node)) if check.errors.is_empty() => Ok(NodeConfig {
            federation,
            node,
            name,
            listen,
            advertise,
            upstream,
            store,
            sync,
            import,
            inbox,
            certificates,
            tls,
            log,
        }),
        _ => Err(ConfigErrors::in_order(check.errors)),
    }
}

/// Collects mistakes. Its methods answer something usable in any case, so that
/// the rest of the file is looked at too.
struct Check<'a, 't> {
    document: &'a Document<'t>,
    errors: Vec<ConfigError>,
}

impl Check<'_, '_> {
    fn wrong(&mut self, place: &str, problem: impl Into<String>) {
        let error = self.document.error(place, problem);
        self.errors.push(error);
    }

    /// As [`Check::wrong`], unless the key is there and was already reported
    /// for its type.
    fn missing(&mut self, place: &str, problem: &str) {
        let section = place.split_once('.').map_or(place, |(section, _)| section);
        let reported =
            self.errors.iter().any(|error| error.place == place || error.place == section);
        if !reported {
            self.wrong(place, problem);
        }
    }

    fn id<T>(
        &mut self,
        place: &str,
        text: Option<String>,
        new: fn(&str) -> Result<T, NameError>,
        what: &str,
    ) -> Option<T> {
        let Some(text) = text else {
            self.missing(place, &format!("is missing; write {what}"));
            return None;
        };
        new(&text).map_err(|error| self.wrong(place, error.to_string())).ok()
    }

    fn name(&mut self, name: Option<String>, node: Option<&NodeId>) -> String {
        let name = name.unwrap_or_else(|| node.map_or(String::new(), NodeId::to_string));
        if name.trim().is_empty() && node.is_some() {
            self.wrong("name", "is empty; write the name that people read, or delete the line");
        } else if name.len() > DISPLAY_NAME_BYTES_MAX {
            self.wrong(
                "name",
                format!(
                    "has {} bytes of UTF-8; write at most {DISPLAY_NAME_BYTES_MAX}",
                    name.len()
                ),
            );
        } else if name.chars().any(char::is_control) {
            self.wrong("name", "has a control character; write it on one line");
        }
        name
    }

    fn listen(&mut self, raw: RawListen) -> (Option<SocketAddr>, Vec<String>) {
        let address = match raw.address {
            None => {
                self.missing(
                    "listen.address",
                    "is missing; write IP:PORT, for example \"0.0.0.0:7443\"",
                );
                None
            }
            Some(text) => match SocketAddr::from_str(&text) {
                Ok(address) => Some(address),
                Err(_) => {
                    self.wrong(
                        "listen.address",
                        format!(
                            "'{text}' is not IP:PORT; write for example \"0.0.0.0:7443\", or \
                             \"[::]:7443\" for IPv6 too"
                        ),
                    );
                    None
                }
            },
        };
        self.addresses("listen.advertise", &raw.advertise);
        (address, raw.advertise)
    }

    fn upstream(&mut self, raw: RawUpstream, node: Option<&NodeId>) -> Option<Upstream> {
        let hub = self.id("upstream.hub", raw.hub, NodeId::new, "the hub's node id");
        if hub.is_some() && hub.as_ref() == node {
            self.wrong("upstream.hub", "is this node itself; write the id of the node to dial");
        }
        match &raw.addresses {
            None => self.missing(
                "upstream.addresses",
                "is missing; write where the hub listens, for example [\"credit.example.org:7443\"]",
            ),
            Some(addresses) if addresses.is_empty() => {
                // Its entries may have been taken out for their type.
                self.missing(
                    "upstream.addresses",
                    "is empty; write where the hub listens, for example \
                     [\"credit.example.org:7443\"]",
                );
            }
            Some(addresses) => self.addresses("upstream.addresses", addresses),
        }
        Some(Upstream { hub: hub?, addresses: raw.addresses? })
    }

    fn addresses(&mut self, place: &str, addresses: &[String]) {
        problems_of(addresses).into_iter().for_each(|problem| self.wrong(place, problem));
    }

    fn group(&mut self, group: Option<String>) -> Option<String> {
        let group = group?;
        let allowed = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b':' | b',' | b'/');
        if group.is_empty() || group.len() > GROUP_BYTES_MAX || !group.bytes().all(allowed) {
            self.wrong(
                "inbox.group",
                "is not the name or number of a group; write for example \"sftp\", or delete the line",
            );
        }
        Some(group)
    }

    fn encodings(&mut self, raw: BTreeMap<String, String>) -> BTreeMap<DatasetId, String> {
        let mut encodings = BTreeMap::new();
        for (dataset, encoding) in raw {
            let place = format!("inbox.encoding.{dataset}");
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_:.".contains(&byte);
            if encoding.is_empty()
                || encoding.len() > ENCODING_BYTES_MAX
                || !encoding.bytes().all(allowed)
            {
                self.wrong(&place, "is not the name of an encoding; write for example \"gbk\"");
            }
            match DatasetId::new(&dataset) {
                Ok(dataset) => drop(encodings.insert(dataset, encoding)),
                Err(error) => self.wrong(&place, error.to_string()),
            }
        }
        encodings
    }

    fn path(&mut self, place: &str, text: Option<String>) -> Option<PathBuf> {
        let path = PathBuf::from(text?);
        check_path(&path).map_err(|problem| self.wrong(place, problem)).ok()?;
        Some(path)
    }

    fn number(&mut self, setting: &Number, value: Option<i64>) -> u64 {
        value.and_then(|value| self.in_range(setting, value)).unwrap_or_else(|| default_of(setting))
    }

    fn in_range(&mut self, setting: &Number, value: i64) -> Option<u64> {
        let good =
            u64::try_from(value).ok().filter(|value| (setting.min..=setting.max).contains(value));
        if good.is_none() {
            let default = match setting.fixed() {
                Some(default) => format!("for the default of {default}"),
                None => "to have it derived".to_owned(),
            };
            self.wrong(
                &setting.place(),
                format!(
                    "{value} is outside {} to {} {}; write a number of that range, or delete the \
                     line {default}",
                    setting.min, setting.max, setting.unit[0]
                ),
            );
        }
        good
    }

    fn tls(&mut self, raw: RawTls) -> TlsConfig {
        let certificate = self.path("tls.certificate", raw.certificate);
        let key = self.path("tls.key", raw.key);
        let pki = match (certificate, key) {
            (Some(certificate), Some(key)) => Some(PkiConfig { certificate, key }),
            (Some(_), None) => {
                self.alone("tls.certificate", "tls.key", "its private key");
                None
            }
            (None, Some(_)) => {
                self.alone("tls.key", "tls.certificate", "the certificate that it belongs to");
                None
            }
            (None, None) => None,
        };
        let default = TlsConfig::default();
        TlsConfig {
            post_quantum: raw.post_quantum.unwrap_or(default.post_quantum),
            pki,
            ca: self.path("tls.ca", raw.ca),
        }
    }

    /// One of two keys that count only together stands without the other, or
    /// the other was already reported.
    fn alone(&mut self, place: &str, other: &str, what: &str) {
        if !self.errors.iter().any(|error| error.place == other) {
            self.wrong(
                place,
                format!(
                    "stands without {other}; write there the PEM file of {what}, or delete this \
                     line"
                ),
            );
        }
    }

    fn log(&mut self, raw: RawLog) -> LogConfig {
        let default = LogConfig::default();
        let level = raw.level.unwrap_or(default.level);
        for directive in level.split(',') {
            // A bare word that is no level would name a target, and silence
            // everything else: nearly always a typing mistake.
            let word = directive.rsplit('=').next().unwrap_or(directive).trim();
            if !LEVELS.contains(&word.to_ascii_lowercase().as_str()) {
                self.wrong(
                    "log.level",
                    format!(
                        "'{directive}' is no level; write {}, or several such as \
                         \"warn,creditsync=debug\"",
                        LEVELS.join(", ")
                    ),
                );
            }
        }
        let format = match raw.format.as_deref() {
            None => default.format,
            Some("text") => LogFormat::Text,
            Some("json") => LogFormat::Json,
            Some(other) => {
                self.wrong("log.format", format!("'{other}' is not known; write text or json"));
                default.format
            }
        };
        LogConfig { level, format }
    }
}
