//! Why a header does not fit a dataset, and what to do, in Chinese and English.

use std::fmt;

use protocol::{schema::Schema, text::visible_within};

use super::{
    super::validate::shown as masked,
    advice::{advise, in_another_unit},
};

/// Longest label shown in a message, in characters: a file that is no CSV at
/// all may have its whole first megabyte as one label.
const LABEL_CHARS_SHOWN: usize = 60;
/// Columns that a note names.
const NAMED_IN_SHORT: usize = 3;
/// Unknown columns that are named one by one.
const COLUMNS_SHOWN: usize = 30;

/// What is wrong with a header, of whose columns `found` are the fields, and
/// `unknown` those that name none though they should.
pub(super) fn explain(
    header: &[String],
    schema: &Schema,
    found: &[Option<usize>],
    unknown: &[usize],
) -> HeaderError {
    let fields = schema.fields();
    let columns_of =
        |field: usize| found.iter().enumerate().filter(move |(_, found)| **found == Some(field));
    let mut error = HeaderError::default();
    for (index, field) in fields.iter().enumerate() {
        let labels: Vec<String> =
            columns_of(index).map(|(column, _)| shown(&header[column])).collect();
        match labels.len() {
            0 if field.required || schema.key().contains(&index) => error
                .absent
                .push(AbsentField { name: field.name.clone(), title_zh: field.title_zh.clone() }),
            0 | 1 => {}
            _ => error.twice.push(TwiceNamed { field: field.name.clone(), labels }),
        }
    }
    let free: Vec<(usize, &str)> = fields
        .iter()
        .enumerate()
        .filter(|(index, _)| columns_of(*index).next().is_none())
        .flat_map(|(index, field)| field.labels().map(move |label| (index, label)))
        .collect();
    let labels: Vec<&str> = unknown.iter().map(|at| header[*at].as_str()).collect();
    for ((at, label), nearest) in unknown.iter().zip(&labels).zip(advise(&labels, &free)) {
        error.unknown.push(UnknownColumn {
            column: at + 1,
            label: shown(label),
            nearest: nearest.map(str::to_owned),
            other_unit: in_another_unit(label, &free).map(str::to_owned),
        });
    }
    error
}

fn shown(label: &str) -> String {
    // Where there is no header, the first record stands in its place.
    let shown = visible_within(&masked(label.trim()), LABEL_CHARS_SHOWN).into_owned();
    // Which stands between the languages.
    shown.replace(" / ", "/")
}

/// Everything that keeps a header from being understood.
#[derive(Debug, Clone, Default, PartialEq, Eq, thiserror::Error)]
pub struct HeaderError {
    /// Columns that name no field.
    pub unknown: Vec<UnknownColumn>,
    /// Fields that several columns name.
    pub twice: Vec<TwiceNamed>,
    /// Key and required fields that no column names.
    pub absent: Vec<AbsentField>,
    /// Where the header was taken from, and what else was tried, in Chinese and
    /// English; the source knows that.
    pub looked: Option<(String, String)>,
}

/// A column that names no field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownColumn {
    /// The column, from 1.
    pub column: usize,
    /// What the header says, shortened.
    pub label: String,
    /// A label that is probably meant.
    pub nearest: Option<String>,
    /// A label that is the same but for its unit.
    pub other_unit: Option<String>,
}

/// A field that several columns name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TwiceNamed {
    /// The field's name.
    pub field: String,
    /// What the header says, shortened.
    pub labels: Vec<String>,
}

/// A field that a file has to have and does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AbsentField {
    /// The field's name.
    pub name: String,
    /// Its Chinese title.
    pub title_zh: String,
}

impl HeaderError {
    /// What is wrong in a few words, in Chinese and English, for a sentence to end
    /// with; nothing where hardly anything is right.
    pub fn in_short(&self) -> [String; 2] {
        let unknown: Vec<&str> =
            self.unknown.iter().take(NAMED_IN_SHORT).map(|one| one.label.as_str()).collect();
        let absent: Vec<&str> =
            self.absent.iter().take(NAMED_IN_SHORT).map(|one| one.title_zh.as_str()).collect();
        let (mut zh, mut en) = (String::new(), String::new());
        if !unknown.is_empty() {
            let more = if self.unknown.len() > NAMED_IN_SHORT { "…" } else { "" };
            zh.push_str(&format!("；未知的列：“{}”{more}", unknown.join("”“")));
            en.push_str(&format!("; unknown columns: '{}'{more}", unknown.join("', '")));
        }
        if !absent.is_empty() {
            zh.push_str(&format!("；缺少的列：“{}”", absent.join("”“")));
            en.push_str(&format!("; missing columns: '{}'", absent.join("', '")));
        }
        [zh, en]
    }

    /// Whether some label names a field that the dataset has to have: then it is a
    /// header of the dataset, with mistakes.
    pub fn is_of(&self, schema: &Schema) -> bool {
        let has_to = |(index, required): (usize, bool)| required || schema.key().contains(&index);
        let fields = schema.fields().iter().map(|field| field.required).enumerate();
        !self.twice.is_empty() || self.absent.len() < fields.filter(|one| has_to(*one)).count()
    }
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        for unknown in self.unknown.iter().take(COLUMNS_SHOWN) {
            let UnknownColumn { column, label, nearest, other_unit } = unknown;
            parts.push(match (nearest, other_unit) {
                (None, Some(other)) => format!(
                    "第 {column} 列“{label}”与已知列名“{other}”的单位不同：请先把该列数值换算成“{other}”的单位，再把列名改为“{other}” / column {column}, '{label}', has another unit than '{other}': convert its values to that unit first, then rename it to '{other}'"
                ),
                (Some(nearest), _) => format!(
                    "第 {column} 列“{label}”不是已知列名，是否应为“{nearest}”？ / column {column}, '{label}', names no field: did you mean '{nearest}'?"
                ),
                (None, None) => format!(
                    "第 {column} 列“{label}”不是已知列名：请改名或删除该列；若总是不需要，可请中心在数据集的 ignore 中列出（命令行可用 --ignore-column） / column {column}, '{label}', names no field: rename or delete it; if it is never wanted, the dataset can list it under 'ignore' (a command has --ignore-column)"
                ),
            });
        }
        if let Some(more) = self.unknown.len().checked_sub(COLUMNS_SHOWN).filter(|more| *more > 0) {
            parts.push(format!("另有 {more} 列不是已知列名 / {more} more columns name no field"));
        }
        for TwiceNamed { field, labels } in &self.twice {
            let zh = labels.join("”“");
            let en = labels.join("', '");
            parts.push(format!(
                "多列表示同一字段 {field}：“{zh}”，请只保留一列 / several columns name the field {field}: '{en}': keep one"
            ));
        }
        for AbsentField { name, title_zh } in &self.absent {
            parts.push(format!(
                "缺少必需的列“{title_zh}”（{name}） / the required column '{title_zh}' ({name}) is missing"
            ));
        }
        write!(f, "表头与数据集不符 / the header does not fit the dataset:")?;
        if let Some((zh, en)) = &self.looked {
            write!(f, "\n  {zh} / {en}")?;
        }
        parts.iter().try_for_each(|part| write!(f, "\n  {part}"))
    }
}
