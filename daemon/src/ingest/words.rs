//! The words of an import: what is asked for, how far it has come, why it waits
//! or fails. The modules of the pipeline share them; they import none of it.

use std::{io, path::PathBuf, sync::Arc};

use protocol::{id::DatasetId, text::visible};
use serde::{Deserialize, Serialize};
use store::StoreError;

use super::{
    hold::{Hold, HoldReason},
    map::HeaderError,
    report::ImportReport,
    source::{Source, SourceError},
    spool::SpoolError,
};

/// What an error says, in Chinese and in English, where each of its lines has both
/// with ` / ` between them, in either order; a line that has one stands in both.
pub fn languages(error: &dyn std::fmt::Display) -> [String; 2] {
    let (mut zh, mut en) = (Vec::new(), Vec::new());
    let text = error.to_string();
    for line in text.lines() {
        let (in_chinese, in_english) = halves(line);
        zh.push(in_chinese.trim_end());
        en.push(in_english.trim_start());
    }
    [zh.join("\n"), en.join("\n")]
}

/// The Chinese and the English half of a line. A delivered label that it quotes may have
/// the mark as well, so it is parted where the halves differ most.
fn halves(line: &str) -> (&str, &str) {
    let is_han = |c: &char| ('\u{4e00}'..='\u{9fff}').contains(c);
    let han = |text: &str| text.chars().filter(is_han).count();
    let parted = line.rmatch_indices(" / ").map(|(at, mark)| {
        let (left, right) = (&line[..at], &line[at + mark.len()..]);
        (han(left), han(right), left, right)
    });
    // Of equal ones the last counts, which is the first of the line.
    let best = parted.max_by_key(|(left, right, ..)| left.abs_diff(*right));
    match best {
        Some((of_left, of_right, left, right)) if of_left < of_right => (right, left),
        Some((.., left, right)) => (left, right),
        None => (line, line),
    }
}

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
    pub approved: Option<Approval>,
    /// Where rejected rows are described, if there are any.
    pub rejects: PathBuf,
}

/// A held delivery that a person lets in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    /// The delivery.
    pub id: String,
    /// Who approves it, and why.
    pub author: Author,
    /// The partition's number when they were shown what it would do; none where
    /// nobody looked.
    pub seen_seq: Option<u64>,
}

/// Who wanted something, and why.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Author {
    /// The system's user, as the command says it: whoever may give commands may
    /// act for others, too.
    pub by: String,
    /// Why, if it was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Author {
    /// Longest text in characters: a sentence, not a document.
    pub const TEXT_CHARS_MAX: usize = 400;

    /// An author whose texts fit a line of a list.
    pub fn new(by: &str, reason: Option<&str>) -> Self {
        let line = |text: &str| -> String {
            let text = text.trim().chars().take(Self::TEXT_CHARS_MAX);
            text.map(|c| if c.is_control() { ' ' } else { c }).collect()
        };
        Self { by: line(by), reason: reason.map(line).filter(|reason| !reason.is_empty()) }
    }

    /// The same for one that came from another process.
    pub fn checked(self) -> Self {
        Self::new(&self.by, self.reason.as_deref())
    }
}

/// How far an import has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
        problem: Box<HeaderError>,
    },
    /// As [`ImportError::Header`], of a file that fits other datasets.
    #[error(
        "该文件的列名符合数据集 {others}，是否放错了位置？请交付到 {others} / its labels fit the dataset {others}: was it meant for that one?\n{error}"
    )]
    OtherDataset {
        /// Why it does not fit this one.
        error: Box<ImportError>,
        /// Those that it fits.
        others: String,
    },
    /// Another header among the rows.
    #[error(
        "{zh}又是表头，但列或顺序与前面的不同，其下各行的列无法确定；没有导入任何内容，请把各个表分成单独的文件 / \
         {en} is another header, with other columns or another order, so which columns the rows below it have is not \
         known; nothing was imported: deliver each table as a file of its own"
    )]
    SecondHeader {
        /// Its place, in Chinese.
        zh: String,
        /// The same in English.
        en: String,
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
    /// A delivery that a person has to approve.
    #[error("等待人工批准 / held: {0}")]
    Held(HoldReason),
    /// What was approved is not the newest word any more.
    #[error(
        "在此期间又有新的交付入库，没有导入任何内容，请重新查看后再批准 / a newer delivery went in meanwhile, and \
         nothing of this one was imported: look at it again, and approve it then"
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
        /// The delivery.
        id: String,
        /// Why: the most serious rule first.
        holds: Vec<Hold>,
        /// What it would do: no change set was made.
        would: ImportReport,
    },
}

/// Why held deliveries could not be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// Enough deliveries wait already.
    #[error(
        "{dataset} 已有 {count} 个交付等待审批，请先处理：creditsync delivery list / {count} deliveries of {dataset} \
         wait already: decide about them first, see 'creditsync delivery list'"
    )]
    TooMany {
        /// The dataset.
        dataset: DatasetId,
        /// How many wait.
        count: usize,
    },
    /// A text that names no delivery.
    #[error(
        "'{shown}' 不是交付编号，'creditsync delivery list' 列出全部 / '{shown}' is not the id of a delivery; 'creditsync delivery list' shows them",
        shown = visible(.0)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn languages_are_taken_apart_line_by_line() {
        let both = "a.csv: 不对 / a.csv: wrong\n  第 1 列 / column 1\nboth";
        let [zh, en] = languages(&both);
        assert_eq!(zh, "a.csv: 不对\n  第 1 列\nboth");
        assert_eq!(en, "a.csv: wrong\ncolumn 1\nboth");
    }

    #[test]
    fn a_line_is_parted_between_its_languages_whatever_it_quotes() {
        for (line, zh, en) in [
            ("文件为空 / the file is empty", "文件为空", "the file is empty"),
            (
                "nothing is written: joined again / 已停止写入",
                "已停止写入",
                "nothing is written: joined again",
            ),
            (
                "第 1 行是“a / b,c / d”，没有表头 / line 1 is 'a / b', no header",
                "第 1 行是“a / b,c / d”，没有表头",
                "line 1 is 'a / b', no header",
            ),
            ("没有“名称”列 / there is no '名称'", "没有“名称”列", "there is no '名称'"),
            ("one", "one", "one"),
        ] {
            assert_eq!(languages(&line), [zh, en], "{line}");
        }
    }
}
