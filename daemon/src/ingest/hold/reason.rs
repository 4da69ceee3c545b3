//! The rules by which a delivery is held, with their numbers, in words.
//!
//! Used by `hold` for the report, by `held` for what it keeps, and by errors.
//! Invariant: each rule has one name, which scripts rely on. Not here: when a
//! rule applies (`hold`).

use std::fmt;

use serde::{Deserialize, Serialize};

/// How many records are concerned by what happens to one field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldCount {
    /// The field's name.
    pub field: String,
    /// Its Chinese title.
    pub title_zh: String,
    /// Its English title.
    pub title_en: String,
    /// Records.
    pub records: u64,
}

/// Why a delivery waits for a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "rule", rename_all = "kebab-case")]
pub enum HoldReason {
    /// It has no rows at all.
    Empty {
        /// Records that there are.
        stored: u64,
    },
    /// It would delete too much.
    Deletes {
        /// Records that would go.
        deletes: u64,
        /// Records that there are.
        stored: u64,
    },
    /// Its last line has no end, though others have.
    Cut {
        /// Records that would go.
        deletes: u64,
    },
    /// Parts of it were not read, and may be data: a damaged sheet, a file of an
    /// archive that is no table.
    LeftOut {
        /// Such parts.
        parts: u64,
        /// Records that would go.
        deletes: u64,
    },
    /// It is a rejects file, which never has all records.
    RejectsFile {
        /// Records that would go.
        deletes: u64,
    },
    /// Most of its rows were rejected: what it lacks says little.
    Rejected {
        /// Rows that were rejected.
        rejected: u64,
        /// All its rows.
        rows: u64,
        /// Records that would go.
        deletes: u64,
    },
    /// Rows whose key could not be read might be among the ones to delete.
    Unreadable {
        /// Rows without a key.
        unreadable: u64,
        /// Records that would go.
        deletes: u64,
    },
    /// Rows whose columns may be others than they seem.
    Suspicious {
        /// Such rows.
        suspicious: u64,
        /// Records that would go.
        deletes: u64,
    },
    /// It lacks columns that stored records fill.
    BlanksColumns {
        /// The fields, and how many records would lose their value.
        fields: Vec<FieldCount>,
    },
    /// It changes a column nearly everywhere.
    ChangesColumn {
        /// The fields, and in how many records each changes.
        fields: Vec<FieldCount>,
        /// Stored records that come again.
        compared: u64,
    },
    /// Most of its rows came through a wrong encoding before they were delivered.
    Garbled {
        /// Such rows.
        garbled: u64,
        /// Rows that make a record.
        rows: u64,
    },
    /// Most of its new keys fail a check.
    DoubtfulKeys {
        /// New keys with a wrong check character.
        doubtful: u64,
        /// New keys.
        inserted: u64,
    },
}

impl HoldReason {
    /// The rule's name.
    pub fn rule(&self) -> &'static str {
        match self {
            HoldReason::Empty { .. } => "empty",
            HoldReason::Deletes { .. } => "deletes",
            HoldReason::Cut { .. } => "cut",
            HoldReason::LeftOut { .. } => "left-out",
            HoldReason::RejectsFile { .. } => "rejects-file",
            HoldReason::Rejected { .. } => "rejected",
            HoldReason::Unreadable { .. } => "unreadable",
            HoldReason::Suspicious { .. } => "suspicious",
            HoldReason::BlanksColumns { .. } => "blanks-columns",
            HoldReason::ChangesColumn { .. } => "changes-column",
            HoldReason::Garbled { .. } => "garbled",
            HoldReason::DoubtfulKeys { .. } => "doubtful-keys",
        }
    }

    /// The rule's numbers, without its name.
    pub fn detail(&self) -> serde_json::Value {
        let mut detail = serde_json::to_value(self).unwrap_or_default();
        if let Some(detail) = detail.as_object_mut() {
            detail.remove("rule");
        }
        detail
    }

    /// Why it waits and what to look at, in Chinese.
    pub fn zh(&self) -> String {
        let list = |fields: &[FieldCount]| {
            let one = |count: &FieldCount| format!("“{}” {} 条", count.title_zh, count.records);
            fields.iter().map(one).collect::<Vec<_>>().join("、")
        };
        match self {
            HoldReason::Empty { stored } => {
                format!("文件没有数据行，而库中有 {stored} 条记录；请确认导出是否成功")
            }
            HoldReason::Deletes { deletes, stored } => {
                format!("将删除 {stored} 条记录中的 {deletes} 条；请确认文件是否完整")
            }
            HoldReason::Cut { deletes } => format!(
                "文件最后一行没有换行符（或有整行的空字节），文件可能被截断或损坏，而它将删除 {deletes} 条记录；请重新导出并重新交付"
            ),
            HoldReason::LeftOut { parts, deletes } => format!(
                "有 {parts} 个部分（工作表、压缩包内的文件或表头上方的行）没有读取，将删除的 {deletes} 条记录可能在其中；请先处理这些部分"
            ),
            HoldReason::RejectsFile { deletes } => format!(
                "这是改正后的被拒绝行文件（有“问题/problem”列），不是全部数据，作为全量文件将删除 {deletes} 条记录；请作为增量文件交付，不要放进 full/"
            ),
            HoldReason::Rejected { rejected, rows, deletes } => format!(
                "{rows} 行中有 {rejected} 行被拒绝，而它将删除 {deletes} 条记录；请先改正被拒绝的行并重新交付"
            ),
            HoldReason::Unreadable { unreadable, deletes } => format!(
                "有 {unreadable} 行无法读出主键，将删除的 {deletes} 条记录可能与之对应；请先改正这些行"
            ),
            HoldReason::Suspicious { suspicious, deletes } => format!(
                "有 {suspicious} 行的列可能错位，而文件将删除 {deletes} 条记录；请检查引号和分隔符"
            ),
            HoldReason::BlanksColumns { fields } => format!(
                "文件缺少以下列，导入将清空已有的值：{}；请补上这些列，或确认确实要清空",
                list(fields)
            ),
            HoldReason::ChangesColumn { fields, compared } => format!(
                "在 {compared} 条已有记录中，大部分记录的同一列发生变化：{}；请检查列是否错位、编码是否正确",
                list(fields)
            ),
            HoldReason::Garbled { garbled, rows } => format!(
                "{rows} 行中有 {garbled} 行含有乱码（文字曾按错误的编码读取或保存）；请从原系统用正确的编码重新导出"
            ),
            HoldReason::DoubtfulKeys { doubtful, inserted } => format!(
                "{inserted} 个新主键中有 {doubtful} 个校验位不符，代码可能被表格软件改动；请将该列设为文本后重新导出"
            ),
        }
    }

    /// Why it waits and what to look at, in English.
    pub fn en(&self) -> String {
        let list = |fields: &[FieldCount]| {
            let one = |count: &FieldCount| format!("'{}' in {}", count.title_en, count.records);
            fields.iter().map(one).collect::<Vec<_>>().join(", ")
        };
        match self {
            HoldReason::Empty { stored } => format!(
                "the file has no rows, and {stored} records are stored: check whether the export succeeded"
            ),
            HoldReason::Deletes { deletes, stored } => format!(
                "it would delete {deletes} of {stored} records: check whether the file is complete"
            ),
            HoldReason::Cut { deletes } => format!(
                "its last line has no line end (or lines are zero bytes), so the file may be cut off or damaged, and it would delete {deletes} records: \
                 export and deliver it again"
            ),
            HoldReason::LeftOut { parts, deletes } => format!(
                "{parts} parts of it (sheets, files of the archive, or rows above the header) were not read, and {deletes} records would be \
                 deleted that may be in them: look at these parts first"
            ),
            HoldReason::RejectsFile { deletes } => format!(
                "this is a rejects file (it has the column 'problem'), so it is not all of the data; as a full file it \
                 would delete {deletes} records: deliver it as a file of changes, not in full/"
            ),
            HoldReason::Rejected { rejected, rows, deletes } => format!(
                "{rejected} of {rows} rows were rejected, and {deletes} records would be deleted: mend the rejected \
                 rows and deliver it again"
            ),
            HoldReason::Unreadable { unreadable, deletes } => format!(
                "{unreadable} rows have no readable key, and {deletes} records would be deleted that may be theirs: \
                 mend these rows first"
            ),
            HoldReason::Suspicious { suspicious, deletes } => format!(
                "{suspicious} rows may have shifted columns, and {deletes} records would be deleted: check quotes and \
                 separators"
            ),
            HoldReason::BlanksColumns { fields } => format!(
                "it lacks columns that stored records fill, and would empty them: {}; add these columns, or make sure \
                 that the values are to go",
                list(fields)
            ),
            HoldReason::ChangesColumn { fields, compared } => format!(
                "it changes the same column in most of {compared} stored records: {}; check for shifted columns and a \
                 wrong encoding",
                list(fields)
            ),
            HoldReason::Garbled { garbled, rows } => format!(
                "{garbled} of {rows} rows have texts that were read or saved in a wrong encoding: export it again from \
                 the original system in the right one"
            ),
            HoldReason::DoubtfulKeys { doubtful, inserted } => format!(
                "{doubtful} of {inserted} new keys have a wrong check character, as codes have that a spreadsheet has \
                 changed: export the column as text"
            ),
        }
    }
}

impl fmt::Display for HoldReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} / {}", self.zh(), self.en())
    }
}
