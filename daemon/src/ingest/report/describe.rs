//! What is wrong with a rejected row and what to do about it, in words that name
//! fields by their titles.
//!
//! Used on all cores while rows are checked, and for rows that are rejected
//! later. Invariant: no value is quoted here; the row stands beside the words as
//! it was delivered. Not here: the rules' own texts (`validate`, `rows`).

use std::sync::atomic::{AtomicBool, Ordering};

use protocol::schema::Schema;

use super::{
    super::{
        map::Mapping,
        rows::{Fields, PASSED_OVER, Place, REJECT_COLUMNS, RowProblem, is_reject_column},
        text_problem::TextProblem,
        validate::{RowIssue, Severity},
    },
    place::place_words,
};

/// Allowed values that are listed: more do not fit a cell that people read.
const VALUES_LISTED_MAX: usize = 20;
/// Text of a malformed line that is repeated: two cells of a spreadsheet. A longer
/// line is no row that a person mends.
const LINE_BYTES_MAX: usize = 64 * 1024;
/// What a malformed line may be separated by.
const SEPARATORS: [char; 8] = [',', '\t', ';', '|', '^', '~', '，', '；'];
/// What stands between the cells of a workbook's row, and in no text.
const CELL_END: char = '\u{1}';
/// Behind a malformed line's cells, so that it is not a row before somebody has
/// looked at it.
const MEND_FIRST: &str = "←改好后删除本格/delete this cell when mended";

/// Words for the rows of one delivery.
#[derive(Debug)]
pub(in crate::ingest) struct Describer {
    fields: Vec<FieldWords>,
    /// The first part's header.
    labels: Vec<String>,
    /// The first part's columns, which all rejected rows are brought into, but for
    /// those of
    /// [`REJECT_COLUMNS`].
    columns: Vec<Column>,
    parts: Vec<String>,
    /// The rejects file takes no more rows.
    full: AtomicBool,
}

#[derive(Debug)]
struct FieldWords {
    name: String,
    zh: String,
    en: String,
    /// The allowed values, as they are listed.
    values: Option<String>,
}

#[derive(Debug)]
struct Column {
    label: String,
    /// Its place in the first part.
    at: usize,
    /// Which field it is.
    field: Option<usize>,
}

impl Describer {
    /// For rows whose columns are those of `mapping`, in parts of these names.
    pub fn new(schema: &Schema, mapping: &Mapping, parts: Vec<String>) -> Self {
        let fields = schema.fields().iter().map(|field| FieldWords {
            name: field.name.clone(),
            zh: field.title_zh.clone(),
            en: if field.title_en.is_empty() { &field.name } else { &field.title_en }.clone(),
            values: listed(&field.values),
        });
        let columns = mapping.labels().iter().enumerate().map(|(at, label)| {
            let place = mapping.places().iter().position(|place| *place == at);
            // What a command's option passed over would be unknown to the next.
            let mark = if mapping.passed().contains(&at) { PASSED_OVER } else { "" };
            let label = format!("{label}{mark}");
            Column { label, at, field: place.map(|place| mapping.columns()[place]) }
        });
        Self {
            fields: fields.collect(),
            labels: mapping.labels().to_vec(),
            columns: columns.filter(|column| !is_reject_column(&column.label)).collect(),
            parts,
            full: AtomicBool::new(false),
        }
    }

    /// The labels of the delivered columns.
    pub fn labels(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|column| column.label.as_str())
    }

    /// The labels of the rejects file.
    pub fn header(&self) -> impl Iterator<Item = &str> {
        REJECT_COLUMNS.into_iter().chain(self.labels())
    }

    /// A field's Chinese title.
    pub fn title(&self, field: &str) -> Option<&str> {
        self.field(field).map(|field| field.zh.as_str())
    }

    fn field(&self, name: &str) -> Option<&FieldWords> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// Notes that nobody wants words any more.
    pub fn set_full(&self) {
        self.full.store(true, Ordering::Relaxed);
    }

    /// Whether nobody wants words any more.
    pub fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// Where a row stands, in Chinese and English.
    pub fn place(&self, place: Place) -> [String; 2] {
        place_words(place, &self.parts)
    }

    /// What is wrong with a row, and what to do.
    pub fn words(&self, place: Place, issues: &[RowIssue]) -> [String; 2] {
        let [mut zh, mut en] = place_words(place, &self.parts);
        let (mut todo_zh, mut todo_en) = (Vec::new(), Vec::new());
        let rejecting = issues.iter().filter(|issue| issue.severity == Severity::Reject);
        for (number, issue) in rejecting.enumerate() {
            let (before_zh, before_en) = if number == 0 { ("：", ": ") } else { ("；", "; ") };
            zh.push_str(before_zh);
            en.push_str(before_en);
            let field = self.field(&issue.field);
            if let Some(field) = field {
                zh.push_str(&format!("“{}”", field.zh));
                en.push_str(&format!("'{}' ", field.en));
            }
            zh.push_str(&issue.rule.zh());
            en.push_str(&issue.rule.en());
            let [todo, todo_in_english] = what_to_do(issue.rule.code(), field);
            if !todo_zh.contains(&todo) {
                todo_zh.push(todo);
                todo_en.push(todo_in_english);
            }
        }
        [format!("{zh} / {en}"), format!("{} / {}", todo_zh.join("；"), todo_en.join("; "))]
    }

    /// The same of a line that is no row; `mapping` is that of the row's own part.
    pub fn words_malformed(
        &self,
        place: Place,
        problem: &RowProblem,
        line: &str,
        mapping: &Mapping,
    ) -> [String; 2] {
        let [zh, en] = place_words(place, &self.parts);
        if line.contains(MEND_FIRST) {
            // Of a rejects file whose row nobody has mended, or not to the end.
            return [
                format!(
                    "{zh}：行尾的提示还没有删除 / {en}: the note at the row's end is still there"
                ),
                format!(
                    "请改好本行，并删除“{MEND_FIRST}”这一格 / mend the row, and delete that cell"
                ),
            ];
        }
        // Two columns stand in front of the row, so numbers alone mislead.
        let label = problem.column().and_then(|column| mapping.labels().get(column - 1));
        let label = label.map(|label| {
            (format!("“{label}”：{}", problem.zh()), format!("'{label}': {}", problem.en()))
        });
        let (what_zh, what_en) = label.unwrap_or_else(|| (problem.zh(), problem.en()));
        let [todo_zh, todo_en] = match problem {
            RowProblem::Encoding { .. } | RowProblem::Implausible { .. } => [
                "请从原系统按 UTF-8 重新导出本行，替换右侧内容，并删除行尾的提示",
                "export the row again as UTF-8, replace what stands here, and delete the note at its end",
            ],
            RowProblem::Unlabelled { .. } => [
                "请删除没有列名的内容（包括行尾的提示），或为该列补上列名",
                "delete the value without a label (the note at its end, too), or label its column",
            ],
            RowProblem::Text(problem) if problem.is_of_json() && *problem != TextProblem::Cut => [
                "请按左起第三列中的记录逐列填写，并删除行尾的提示；或从原系统重新导出",
                "enter the values of the record in the third column into their columns, and delete the note at the row's end; or export it again",
            ],
            RowProblem::Text(TextProblem::MergedCell { .. }) => [
                "合并的单元格已按上方的内容填好：请逐格核对，然后删除行尾的提示",
                "merged cells have been filled with what stands above: check each, then delete the note at the row's end",
            ],
            RowProblem::Text(TextProblem::Cut) => [
                "文件不完整：请重新导出，并整份重新交付",
                "the file is not whole: export it again, and deliver all of it",
            ],
            RowProblem::Text(TextProblem::TooLong) | RowProblem::TooLong => [
                "请在原文件中缩短本行的内容后重新交付",
                "shorten the row in the original file and deliver it again",
            ],
            RowProblem::Text(TextProblem::DamagedCell) => [
                "请打开原文件核对本行和上下两行，另存后重新交付",
                "check the row and the ones beside it in the original file, save it again and deliver that",
            ],
            RowProblem::Text(_) if mapping.labels() != self.labels => [
                "请把内容移到正确的列，改正有问题的单元格，并删除行尾的提示",
                "move the values to their columns, mend the one that is named, and delete the note at the row's end",
            ],
            RowProblem::Text(_) => [
                "各单元格已在原来的列中：请补全或改正有问题的单元格，并删除行尾的提示",
                "the cells stand in their columns: mend the one that is named, and delete the note at the row's end",
            ],
            _ => [
                "本行已按分隔符拆开：请把内容移到正确的列，并删除行尾的提示",
                "the line was split at its separators: move the values to their columns, and delete the note at its end",
            ],
        };
        [format!("{zh}：{what_zh} / {en}: {what_en}"), format!("{todo_zh} / {todo_en}")]
    }

    /// A row's cells as they were delivered, in the first part's order. `mapping` is
    /// that of the row's own part.
    pub fn cells<'a>(&self, fields: Fields<'a>, mapping: &Mapping) -> Vec<&'a str> {
        let in_order = mapping.labels() == self.labels;
        let cell = |column: &Column| {
            let at = match column.field {
                _ if in_order => Some(column.at),
                Some(field) => {
                    let place = mapping.columns().iter().position(|other| *other == field);
                    place.map(|place| mapping.places()[place])
                }
                None => {
                    let label = column.label.strip_suffix(PASSED_OVER).unwrap_or(&column.label);
                    mapping.labels().iter().position(|one| one == label)
                }
            };
            at.and_then(|at| fields.get(at)).unwrap_or("")
        };
        self.columns.iter().map(cell).collect()
    }

    /// A malformed line, split without regard to quotes, and a cell behind it.
    pub fn malformed_cells<'a>(&self, line: &'a str) -> Vec<&'a str> {
        let mut end = line.len().min(LINE_BYTES_MAX);
        while !line.is_char_boundary(end) {
            end -= 1;
        }
        let line = line[..end].trim_end_matches(['\r', '\n']);
        // A rejects file that was delivered: its words are no values.
        let is_of_rejects = self.labels.first().is_some_and(|label| is_reject_column(label));
        let line = if is_of_rejects { without_words(line) } else { line };
        let line = line.rfind(MEND_FIRST).map_or(line, |at| {
            let rest = line[..at].trim_end_matches('"');
            rest.strip_suffix(SEPARATORS).or_else(|| rest.strip_suffix(CELL_END)).unwrap_or(rest)
        });
        let wanted = self.columns.len();
        let cells_by = |separator: &char| line.matches(*separator).count() + 1;
        let separator = match line.contains(CELL_END) {
            true => Some(CELL_END),
            false => SEPARATORS.into_iter().min_by_key(|one| cells_by(one).abs_diff(wanted)),
        };
        let mut cells: Vec<&str> = match separator {
            Some(separator) => line.split(separator).collect(),
            None => vec![line],
        };
        cells.resize(cells.len().max(wanted), "");
        cells.push(MEND_FIRST);
        cells
    }
}

/// A rejects file's line without what the file says of it.
fn without_words(line: &str) -> &str {
    if line.contains(CELL_END) {
        return line.splitn(1 + REJECT_COLUMNS.len(), CELL_END).last().unwrap_or("");
    }
    let mut rest = line;
    for _ in REJECT_COLUMNS {
        let mut quoted = false;
        let end = rest.find(|c| {
            quoted ^= c == '"';
            !quoted && matches!(c, ',' | '\t' | ';')
        });
        rest = end.map_or("", |end| &rest[end + 1..]);
    }
    rest
}

fn listed(values: &[String]) -> Option<String> {
    let some = values.iter().take(VALUES_LISTED_MAX).map(String::as_str).collect::<Vec<_>>();
    let more = values.len() - some.len();
    match (some.is_empty(), more) {
        (true, _) => None,
        (_, 0) => Some(some.join("、")),
        _ => {
            let all = values.len();
            Some(format!("{}……（共 {all} 个 / {all} in all）", some.join("、")))
        }
    }
}

/// What a person does about a rule, in Chinese and in English.
fn what_to_do(rule: &str, field: Option<&FieldWords>) -> [String; 2] {
    let Some(FieldWords { zh, en, values, .. }) = field else {
        return [
            "请缩短本行的长文本后重新交付".into(),
            "shorten the row's long texts and deliver it again".into(),
        ];
    };
    match (rule, values) {
        (_, Some(values)) => [
            format!("请把“{zh}”改为下列之一：{values}"),
            format!("write one of these into '{en}': {values}"),
        ],
        ("required", None) => [format!("请补填“{zh}”"), format!("fill in '{en}'")],
        _ => [format!("请改正“{zh}”后重新交付"), format!("correct '{en}' and deliver it again")],
    }
}
