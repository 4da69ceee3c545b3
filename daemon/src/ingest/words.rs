//! The words of an import: what is asked for, how far it has come, why it waits
//! or fails. The modules of the pipeline share them; they import none of it.

use std::{io, path::PathBuf, sync::Arc};

use protocol::id::DatasetId;

use super::{
    map::HeaderError,
    report::ImportReport,
    source::{Source, SourceError},
    spool::SpoolError,
};
use crate::store::StoreError;

/// Something that is to be imported.
#[derive(Debug, Clone)]
pub struct ImportRequest {
    /// The dataset.
    pub dataset: DatasetId,
    /// What was delivered.
    pub source: Arc<dyn Source>,
    /// It is the whole partition: what it lacks is deleted.
    pub full: bool,
    /// A person approved what would otherwise be held.
    pub approved: bool,
    /// Where rejected rows are described, if there are any.
    pub rejects: PathBuf,
}

/// How far an import has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Progress {
    /// Bytes of the file that were read.
    pub bytes_read: u64,
    /// Bytes of the file.
    pub bytes_total: u64,
    /// Rows that were read.
    pub rows: u64,
    /// Rows that were compared with the stored records.
    pub compared: u64,
}

impl ImportError {
    /// What became of a source that does not fit the dataset is told with it.
    pub(super) fn of_source(error: SourceError, dataset: &DatasetId) -> Self {
        match error {
            SourceError::Header { name, problem } => {
                ImportError::Header { dataset: dataset.clone(), name, problem }
            }
            error => ImportError::Source(error),
        }
    }
}

/// When a full delivery is held.
#[derive(Debug, Clone, Copy)]
pub struct HoldRule {
    /// More deletions than this share of the stored records, in percent …
    pub percent: u64,
    /// … and more than this many.
    pub at_least: u64,
}

/// Why a full delivery waits for a person.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, serde::Serialize, serde::Deserialize)]
#[serde(tag = "rule", rename_all = "snake_case")]
pub enum HoldReason {
    /// It would delete too much.
    #[error(
        "it would delete {deletes} of {stored} records / 将删除 {stored} 条记录中的 {deletes} 条"
    )]
    Deletes {
        /// Records that would go.
        deletes: u64,
        /// Records that there are.
        stored: u64,
    },
    /// It has no rows at all.
    #[error(
        "the file has no rows, and {stored} records are stored / 文件没有数据行，而库中有 {stored} 条记录"
    )]
    Empty {
        /// Records that there are.
        stored: u64,
    },
    /// Rows whose key could not be read might be among the ones to delete.
    #[error(
        "{unreadable} rows have no readable key, and {deletes} records would be deleted that may be theirs / \
         有 {unreadable} 行无法读出主键，将删除的 {deletes} 条记录可能与之对应"
    )]
    Unreadable {
        /// Rows without a key.
        unreadable: u64,
        /// Records that would go.
        deletes: u64,
    },
}

/// An import that did not happen, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// No such dataset in the catalogue.
    #[error(
        "there is no dataset '{dataset}'; the catalogue has: {known} / 没有名为 '{dataset}' 的数据集"
    )]
    UnknownDataset {
        /// As asked for.
        dataset: String,
        /// Those that there are.
        known: String,
    },
    /// What was delivered cannot be read.
    #[error(transparent)]
    Source(SourceError),
    /// The header does not fit the dataset.
    #[error(
        "{name}: {problem}\n'creditsync dataset show {dataset}' lists the fields / 列出全部字段"
    )]
    Header {
        /// The dataset.
        dataset: DatasetId,
        /// What was delivered.
        name: String,
        /// What is wrong with it.
        problem: HeaderError,
    },
    /// Temporary files cannot be written.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The report cannot be written.
    #[error("{path}: {source}")]
    Report {
        /// The report.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A full delivery that a person has to approve.
    #[error("held: {0}")]
    Held(HoldReason),
    /// What was approved is not the newest word any more.
    #[error(
        "已被更新的全量交付取代，没有导入任何内容 / superseded by a newer delivery: another full file went \
         in while this one was read, and nothing of this one was imported"
    )]
    Superseded,
    /// It had to be held, and could not be kept.
    #[error(transparent)]
    Delivery(#[from] DeliveryError),
    /// The daemon is shutting down.
    #[error(
        "the import was stopped; what it had committed stays, and the same file can be delivered again"
    )]
    Stopped,
}

/// What came of a file.
pub(super) enum Outcome {
    /// It went in.
    Imported(ImportReport),
    /// Nothing was changed; a person has to decide.
    Held {
        /// Why.
        reason: HoldReason,
        /// What it would do: no change set was made.
        would: ImportReport,
    },
}

/// Why held deliveries could not be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// A text that names no delivery.
    #[error(
        "'{0}' 不是交付编号 / '{0}' is not the id of a delivery; 'creditsync delivery list' shows them"
    )]
    Id(String),
    /// What was delivered cannot be copied.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A description that this build cannot read.
    #[error("{path}: {problem}")]
    Malformed {
        /// The description.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The file system.
    #[error("{path}: {source}")]
    Io {
        /// The file or directory.
        path: String,
        /// What the system said.
        source: io::Error,
    },
}
