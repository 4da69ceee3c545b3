//! What stands in a backup, as its JSON says it, and what can be wrong with one.
//!
//! Fields may be added to the JSON: who does not know them passes over them. Anything
//! that an older program must not pass over is another format number.

use serde::{Deserialize, Serialize};
use store::StoreError;

/// What the backup is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The federation.
    pub federation: String,
    /// The node.
    pub node: String,
    /// `hub` or `member`.
    pub role: String,
    /// The number of the federation's suite.
    pub suite: u8,
    /// The version of the program that made it.
    pub version: String,
    /// When it was begun, RFC 3339 in UTC.
    pub created: String,
    /// What of its keys is in.
    pub keys: Keys,
    /// Files that the configuration names outside of the directory: they are not in.
    pub outside: Vec<String>,
}

/// What of a node's private keys is in its backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Keys {
    /// All, encrypted with a passphrase for the backup.
    Sealed,
    /// All, as they lie in the directory, each encrypted.
    AsTheyAre,
    /// None.
    LeftOut,
}

/// A file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Its path below the node's directory, with `/`.
    pub path: String,
    /// Whether only its owner may read it.
    pub private: bool,
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionEntry {
    /// Its full name.
    pub partition: String,
    /// The number of its head; 0 if it has none.
    pub seq: u64,
    /// Its records.
    pub records: u64,
}

/// A partition that is not in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// Its full name.
    pub partition: String,
    /// Why.
    pub reason: String,
}

/// What has to have come by the end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Files.
    pub files: u64,
    /// Partitions that are in.
    pub partitions: u64,
    /// Partitions that are not.
    pub left_out: u64,
    /// Records of all partitions.
    pub records: u64,
}

/// How far a backup has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copied {
    /// Records that are copied.
    pub records: u64,
    /// Records that there were when it began; 0 if that is not known.
    pub records_total: u64,
    /// Bytes of the backup.
    pub bytes: u64,
}

/// Why a backup was not made, is not good, or was not restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// It does not begin like one.
    #[error("这不是 creditsync 的备份文件 / this is no backup that creditsync has made")]
    NotABackup,
    /// Made by another version.
    #[error(
        "该备份的格式为第 {found} 号，本程序只认识第 {known} 号：请安装较新版本的 creditsync / the backup has format \
         {found}, and this program knows format {known}: install a newer creditsync"
    )]
    Format {
        /// The number found.
        found: u32,
        /// The number known.
        known: u32,
    },
    /// Bytes are not what was written.
    #[error(
        "备份在第 {at} 字节处损坏（{problem}）：请改用另一份备份 / the backup is damaged at byte {at} ({problem}): use \
         another one"
    )]
    Damaged {
        /// Where the frame begins.
        at: u64,
        /// What is wrong.
        problem: String,
    },
    /// The end is missing.
    #[error(
        "备份不完整，在第 {at} 字节处中断：写入时可能磁盘已满或被中止，请改用另一份备份 / the backup ends at byte {at}, in the \
         middle: the disk may have been full, or the command was stopped. Use another one"
    )]
    Cut {
        /// Where the frame begins that is not whole.
        at: u64,
    },
    /// Something follows the end.
    #[error(
        "备份在第 {at} 字节处已结束，其后还有其他数据：可能由多个文件拼接而成，请改用另一份备份 / the backup ends at byte {at}, and \
         something follows: were two files joined? Use another one"
    )]
    Trailing {
        /// Where it ended.
        at: u64,
    },
    /// A partition is not what its origin signed.
    #[error(
        "备份中的分区 {partition} 不正确（{problem}）：请改用另一份备份 / {partition} is not as it was signed ({problem}): use \
         another backup"
    )]
    Partition {
        /// Its full name.
        partition: String,
        /// What is wrong.
        problem: String,
    },
    /// What belongs into every backup is missing, or contradicts itself.
    #[error(
        "备份内容有误（{0}）：请改用另一份备份 / the backup contradicts itself ({0}): use another one"
    )]
    Content(String),
    /// The passphrase is needed.
    #[error(
        "备份中的密钥已用口令加密：请用 --passphrase-file 指定口令文件（权限 0600），或在终端输入 / the keys in the backup \
         are encrypted: name a file (mode 0600) whose first line is the passphrase with --passphrase-file, or type it on a \
         terminal"
    )]
    PassphraseMissing,
    /// It is another one.
    #[error(
        "口令不正确，备份中的密钥无法解开 / the passphrase is not the one that the keys in the backup were encrypted with"
    )]
    PassphraseWrong,
    /// Keys were changed while the backup was made.
    #[error(
        "备份期间本节点的密钥或证书有变化，未写成备份：请重新执行 / this node's keys or certificates changed while the backup \
         was made, so there is none: give the command again"
    )]
    Changed,
    /// Who takes the backup takes nothing of it.
    #[error(
        "接收方 {0} 秒内未读取任何数据，备份已中止 / whoever reads the backup took nothing of it for {0} s, so it was given up"
    )]
    TakesNothing(u64),
    /// There is no room for it.
    #[error(
        "磁盘已满，未写成备份，原有文件不变：请清理磁盘或换一处存放 / the disk is full, so there is no new backup, and what was \
         there is as before: make room, or write it elsewhere ({0})"
    )]
    NoRoom(std::io::Error),
    /// A file could not be read or written.
    #[error("无法读写 {path} / {path} cannot be read or written: {source}")]
    File {
        /// The file.
        path: String,
        /// What happened.
        source: std::io::Error,
    },
    /// The backup itself could not be read or written.
    #[error("备份文件读写出错 / the backup cannot be read or written: {0}")]
    Io(#[from] std::io::Error),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Whoever gave the command went away, or it was stopped.
    #[error("备份已中止 / the backup was stopped")]
    Stopped,
}

impl BackupError {
    /// A file that could not be read or written.
    pub(super) fn file(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let path = path.display().to_string();
        move |source| BackupError::File { path, source }
    }
}
