//! The shape of `creditsync.toml` as it is written.
//!
//! Everything may be missing and nothing is checked but types and key names:
//! [`crate::resolve`] does the rest. Numbers are signed here, so that `-5` is
//! reported as out of its range, together with every other mistake.

use std::collections::BTreeMap;

use serde::Deserialize;

/// The whole file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct RawConfig {
    /// The trust domain.
    pub federation: Option<String>,
    /// The node's id.
    pub node: Option<String>,
    /// The name that people read.
    pub name: Option<String>,
    /// What makes the node a hub.
    pub listen: Option<RawListen>,
    /// What makes the node a member.
    pub upstream: Option<RawUpstream>,
    /// The database.
    pub store: RawStore,
    /// Replication.
    pub sync: RawSync,
    /// Imports.
    pub import: RawImport,
    /// The delivery folder.
    pub inbox: RawInbox,
    /// Certificates that a hub issues.
    pub certificates: RawCertificates,
    /// How connections are secured.
    pub tls: RawTls,
    /// What the daemon writes to standard error.
    pub log: RawLog,
}

/// `[listen]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct RawListen {
    /// IP:PORT.
    pub address: Option<String>,
    /// HOST:PORT, as members reach it.
    pub advertise: Vec<String>,
}

/// `[upstream]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct RawUpstream {
    /// The hub's node id.
    pub hub: Option<String>,
    /// HOST:PORT, in the order in which they are tried.
    pub addresses: Option<Vec<String>>,
}

/// `[store]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct RawStore {
    /// MiB.
    pub cache_mb: Option<i64>,
    /// MiB.
    pub disk_reserve_mb: Option<i64>,
    /// MiB.
    pub origin_quota_mb: Option<i64>,
}

/// `[sync]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct RawSync {
    /// Seconds.
    pub heartbeat_s: Option<i64>,
    /// Seconds.
    pub retry_max_s: Option<i64>,
    /// Seconds.
    pub stall_s: Option<i64>,
}

/// `[import]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct RawImport {
    /// MiB.
    pub memory_mb: Option<i64>,
    /// Percent of a partition's records.
    pub hold_deletes_percent: Option<i64>,
    /// Records.
    pub hold_deletes_min: Option<i64>,
    /// Percent of the records that come again.
    pub hold_changes_percent: Option<i64>,
    /// Records.
    pub hold_changes_min: Option<i64>,
    /// Percent of the new keys.
    pub hold_doubtful_percent: Option<i64>,
    /// Records.
    pub hold_doubtful_min: Option<i64>,
    /// Days.
    pub undo_days: Option<i64>,
    /// MiB.
    pub undo_mb: Option<i64>,
}

/// `[inbox]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct RawInbox {
    /// Whether the folder is watched.
    pub enabled: Option<bool>,
    /// Seconds.
    pub stable_s: Option<i64>,
    /// Seconds.
    pub incomplete_wait_s: Option<i64>,
    /// A group's name or number.
    pub group: Option<String>,
    /// By dataset.
    pub encoding: BTreeMap<String, String>,
}

/// `[certificates]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct RawCertificates {
    /// Seconds.
    pub lifetime_s: Option<i64>,
    /// Seconds.
    pub issuing_lifetime_s: Option<i64>,
    /// A directory.
    pub root_key_dir: Option<String>,
}

/// `[tls]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct RawTls {
    /// Whether X25519MLKEM768 is offered.
    pub post_quantum: Option<bool>,
    /// A PEM file.
    pub certificate: Option<String>,
    /// A PEM file.
    pub key: Option<String>,
    /// A PEM file.
    pub ca: Option<String>,
}

/// `[log]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct RawLog {
    /// A level, or a filter per target.
    pub level: Option<String>,
    /// `text` or `json`.
    pub format: Option<String>,
}
