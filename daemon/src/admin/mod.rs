//! The local interface: how other commands speak to a running daemon.
//!
//! A Unix socket in the node's directory, one JSON object a line: one
//! [`Request`], with an open file where it is about one, then any number of
//! [`Reply`]s, the last of which is [`Reply::Done`] or [`Reply::Failed`]. The
//! socket's file is its protection: only its owner may open it.
//!
//! Invariants: [`Reply::Taken`] goes out before anything of a request is done. So
//! a command that did not get it knows that nothing of it was done, and may ask
//! again. And whatever a request takes, the daemon says every few seconds that it is
//! there, so a command never waits for one that hangs. Not here: what a request does
//! (the handler).

mod client;
mod handover;
mod server;

#[cfg(test)]
mod tests;

use std::time::Duration;

use protocol::id::NodeId;
use serde::{Deserialize, Serialize};

pub use self::{
    client::{answers, ask},
    server::{Handler, Server},
};
use crate::{
    ingest::{Progress, words::Author},
    sources::Reading,
    upkeep::backup::Copied,
};

/// Longest request line: the largest is a dataset's schema file.
pub const REQUEST_BYTES_MAX: u64 = 1024 * 1024;

/// What a command asks.
///
/// It has no `Debug`: one holds a token, another one a passphrase.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "command")]
pub enum Request {
    /// `status`
    Status,
    /// `import`
    Import {
        /// The dataset.
        dataset: String,
        /// The absolute path of the file, which messages name. What is read is
        /// the open file that comes with the request.
        path: String,
        /// The file is the whole partition.
        full: bool,
        /// How it is to be read.
        reading: Reading,
        /// Seconds to wait for the hub to hold it, if it is to be waited for.
        wait_s: Option<u32>,
    },
    /// `export`
    Export {
        /// `dataset` or `dataset/origin`.
        target: String,
        /// `csv` or `jsonl`.
        format: ExportFormat,
    },
    /// `backup`
    Backup {
        /// The file's path, which messages name. What is written is the open file that
        /// comes with the request.
        path: String,
        /// Keys are left out on purpose.
        without_keys: bool,
        /// What keys are encrypted with.
        passphrase: Option<String>,
    },
    /// `get`
    Get {
        /// The dataset.
        dataset: String,
        /// One text a key field.
        key: Vec<String>,
    },
    /// `verify`
    Verify {
        /// One partition, or all.
        partition: Option<String>,
        /// Read and hash every record.
        deep: bool,
    },
    /// `repair`
    Repair {
        /// The partition.
        partition: String,
    },
    /// `chore list`
    ChoreList,
    /// `chore run`
    ChoreRun {
        /// The chore.
        name: String,
    },
    /// `chore pause`
    ChorePause {
        /// The chore, or the command whose runs are to end.
        name: String,
    },
    /// `partition refetch`
    PartitionRefetch {
        /// The partition.
        partition: String,
        /// The last number that its origin itself has signed.
        good: Option<u64>,
        /// Also where the origin is not connected.
        yes: bool,
    },
    /// `partition resolve`
    PartitionResolve {
        /// The partition.
        partition: String,
        /// Whose history goes on.
        keep: Keep,
    },
    /// `dataset list`
    DatasetList,
    /// `dataset show`
    DatasetShow {
        /// The dataset.
        dataset: String,
    },
    /// `dataset apply`
    DatasetApply {
        /// The schema file's text.
        text: String,
    },
    /// `dataset accept`
    DatasetAccept {
        /// The dataset.
        dataset: String,
        /// The version that was looked at, if that was said.
        version: Option<u32>,
    },
    /// `node list`
    NodeList,
    /// `node show`
    NodeShow {
        /// The node.
        node: String,
    },
    /// `node remove`
    NodeRemove {
        /// The node.
        node: String,
        /// Also one that is not revoked.
        force: bool,
    },
    /// `revoke`
    Revoke {
        /// The node.
        node: String,
        /// One certificate of it only.
        serial: Option<String>,
        /// Why, for people.
        reason: String,
    },
    /// `cert show`
    CertShow,
    /// `cert check`
    CertCheck {
        /// What ends within so many days.
        days: u32,
    },
    /// `cert renew`
    CertRenew {
        /// The key that signs change sets, instead of the certificate.
        signing_key: bool,
        /// At a hub: the signing key may be in the wrong hands.
        stolen: bool,
        /// Where the root key is, if elsewhere than configured.
        root_key_dir: Option<String>,
    },
    /// `ca show`
    CaShow,
    /// `ca rotate`
    CaRotate {
        /// The root too.
        root: bool,
        /// What becomes of nodes that have not followed.
        late: Late,
        /// Where the root key is, if elsewhere than configured.
        root_key_dir: Option<String>,
    },
    /// `hub move`
    HubMove {
        /// Where the hub is dialled from now on; nothing to show what was said.
        addresses: Vec<String>,
    },
    /// `join`, by a node that belongs already.
    JoinAgain {
        /// The token's text.
        token: String,
    },
    /// `delivery list`
    DeliveryList {
        /// All that the log has, not only those that wait.
        all: bool,
    },
    /// `delivery show`
    DeliveryShow {
        /// The delivery.
        id: String,
    },
    /// `delivery approve`, before it asks
    DeliveryPreview {
        /// The delivery.
        id: String,
    },
    /// `delivery approve`
    DeliveryApprove {
        /// The delivery.
        id: String,
        /// The partition's number when a person was shown what it would do.
        seen_seq: Option<u64>,
        /// Who approves it.
        author: Author,
    },
    /// `delivery discard`
    DeliveryDiscard {
        /// The delivery.
        id: String,
        /// Who discards it.
        author: Author,
    },
    /// `delivery undo`
    DeliveryUndo {
        /// The delivery.
        id: String,
        /// Also where records have changed since.
        force: bool,
        /// Who takes it back.
        author: Author,
    },
    /// `record delete`
    RecordDelete {
        /// The dataset.
        dataset: String,
        /// One text a key field.
        key: Vec<String>,
        /// Who removes it.
        author: Author,
    },
    /// `invite`
    Invite {
        /// Who is invited.
        node: String,
        /// Its display name.
        name: Option<String>,
        /// Seconds until the token expires.
        ttl_s: u64,
        /// The hub's address as the member reaches it.
        address: Option<String>,
    },
}

impl Request {
    /// Whether an open file comes with it.
    pub fn brings_file(&self) -> bool {
        matches!(self, Request::Import { .. } | Request::Backup { .. })
    }

    /// How long it may take.
    fn pace(&self) -> Pace {
        match self {
            Request::Export { .. } | Request::Backup { .. } => Pace::Stream,
            Request::Import { .. }
            | Request::Verify { .. }
            | Request::Repair { .. }
            | Request::PartitionRefetch { .. }
            | Request::PartitionResolve { .. }
            | Request::CertRenew { .. }
            | Request::CaRotate { .. }
            | Request::HubMove { .. }
            | Request::JoinAgain { .. }
            | Request::DeliveryPreview { .. }
            | Request::DeliveryApprove { .. }
            | Request::DeliveryUndo { .. } => Pace::Long,
            _ => Pace::Quick,
        }
    }

    /// Whether it only looks at what is at hand.
    fn only_looks(&self) -> bool {
        if let Request::HubMove { addresses } = self {
            return addresses.is_empty();
        }
        matches!(
            self,
            Request::Status
                | Request::Get { .. }
                | Request::DatasetList
                | Request::DatasetShow { .. }
                | Request::NodeList
                | Request::NodeShow { .. }
                | Request::CertShow
                | Request::CertCheck { .. }
                | Request::CaShow
                | Request::DeliveryList { .. }
                | Request::DeliveryShow { .. }
        )
    }

    /// Whether only a daemon can do all of it.
    pub fn needs_daemon(&self) -> bool {
        matches!(self, Request::Import { wait_s: Some(_), .. })
    }
}

/// How often a daemon says that it is there, to whoever waits for something else.
const ALIVE_EVERY: Duration = Duration::from_secs(3);

/// Requests that share places: none of one kind waits for one of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// Answered from what is at hand.
    Quick,
    /// Reads a file, all of a partition, or waits for the hub.
    Long,
    /// Goes on for as long as the command reads.
    Stream,
}

/// What a step of a rotation does about nodes that have not followed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Late {
    /// All of them are waited for.
    Wait,
    /// Only those that are connected are; a person is told who would be locked out.
    Ask,
    /// A person has agreed that this step locks out these nodes, and no other.
    Agreed {
        /// The step, as the answer to [`Late::Ask`] named it.
        to: String,
        /// The nodes that it named.
        nodes: Vec<NodeId>,
    },
    /// Whoever has not followed when the connected ones had time to is locked out.
    LockOut,
}

/// With which content a partition goes on of which two histories are signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Keep {
    /// What the hub holds / 保留中心持有的内容
    Hub,
    /// What the origin has, issued again behind what the hub holds / 保留来源节点的内容
    Origin,
}

impl Keep {
    /// As commands name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hub => "hub",
            Self::Origin => "origin",
        }
    }
}

/// What an export looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ExportFormat {
    /// UTF-8 without BOM, a header of field names.
    Csv,
    /// One JSON object a line.
    Jsonl,
}

/// What a command is answered.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// The daemon is there, and others are before this request.
    Waiting,
    /// The daemon is there, and goes on with what it has taken.
    Working,
    /// The daemon has the whole request and begins with it: from now on it may
    /// have been done, whatever becomes of the answer.
    Taken,
    /// How far an import has come.
    Progress(Progress),
    /// How far a backup has come.
    Copied(Copied),
    /// A piece of an export.
    Chunk(String),
    /// The answer; 3 if something needs a person, else 0.
    Done {
        /// The answer as `--json` prints it.
        value: serde_json::Value,
        /// Whether something needs a person.
        attention: bool,
    },
    /// It did not work; the text is for the user.
    Failed(String),
}
