//! A file's header labels to the fields of a schema.
//!
//! Used by the importer once a file. Invariant: a [`Mapping`] exists only if
//! every column names exactly one field and every key and required field has a
//! column, so nothing of a file is dropped silently. What a value has to look
//! like is `validate`'s business.

use std::fmt;

use protocol::schema::Schema;

/// Longest label shown in a message, in characters: a file that is no CSV at
/// all may have its whole first megabyte as one label.
const LABEL_CHARS_SHOWN: usize = 60;

/// Which column is which field.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mapping {
    columns: Vec<usize>,
    missing: Vec<usize>,
    labels: Vec<String>,
}

impl Mapping {
    /// Finds the field of every column; all problems are reported at once.
    pub fn new(header: &[String], schema: &Schema) -> Result<Self, HeaderError> {
        let fields = schema.fields();
        let found: Vec<Option<usize>> =
            header.iter().map(|label| schema.field_for_label(label)).collect();
        let columns_of = |field: usize| {
            found.iter().enumerate().filter(move |(_, found)| **found == Some(field))
        };
        let mut error = HeaderError::default();
        let mut missing = Vec::new();
        for (index, field) in fields.iter().enumerate() {
            let labels: Vec<String> =
                columns_of(index).map(|(column, _)| shown(&header[column])).collect();
            match labels.len() {
                0 if field.required || schema.key().contains(&index) => {
                    error.absent.push(AbsentField {
                        name: field.name.clone(),
                        title_zh: field.title_zh.clone(),
                    })
                }
                0 => missing.push(index),
                1 => {}
                _ => error.twice.push(TwiceNamed { field: field.name.clone(), labels }),
            }
        }
        let free: Vec<&str> = fields
            .iter()
            .enumerate()
            .filter(|(index, _)| columns_of(*index).next().is_none())
            .flat_map(|(_, field)| field.labels())
            .collect();
        for (column, label) in header.iter().enumerate() {
            if found[column].is_none() {
                error.unknown.push(UnknownColumn {
                    column: column + 1,
                    label: shown(label),
                    nearest: nearest(label, &free).map(str::to_owned),
                });
            }
        }
        if error != HeaderError::default() {
            return Err(error);
        }
        let columns = found.into_iter().flatten().collect();
        Ok(Self { columns, missing, labels: header.to_vec() })
    }

    /// The schema's field of each column, in the file's order.
    pub fn columns(&self) -> &[usize] {
        &self.columns
    }

    /// The label of each column, in the file's order.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// Optional fields that the file does not have, by index in the schema: an
    /// upsert keeps their stored values.
    pub fn missing(&self) -> &[usize] {
        &self.missing
    }
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

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        for UnknownColumn { column, label, nearest } in &self.unknown {
            parts.push(match (label.is_empty(), nearest) {
                (true, _) => format!(
                    "第 {column} 列没有列名，请补上或删除该列 / column {column} has no label: add one, or delete the column"
                ),
                (_, Some(nearest)) => format!(
                    "第 {column} 列“{label}”不是已知列名，是否应为“{nearest}”？ / column {column}, '{label}', names no field: did you mean '{nearest}'?"
                ),
                (_, None) => format!(
                    "第 {column} 列“{label}”不是已知列名，请改名或删除该列 / column {column}, '{label}', names no field: rename it, or delete the column"
                ),
            });
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
        parts.iter().try_for_each(|part| write!(f, "\n  {part}"))
    }
}

fn shown(label: &str) -> String {
    label
        .chars()
        .take(LABEL_CHARS_SHOWN)
        .map(|character| if character.is_control() { '\u{fffd}' } else { character })
        .collect()
}

/// The label with the fewest edits, if they are few for its length.
fn nearest<'a>(label: &str, known: &[&'a str]) -> Option<&'a str> {
    let wanted: Vec<char> = label.to_lowercase().chars().take(LABEL_CHARS_SHOWN).collect();
    if wanted.is_empty() {
        return None;
    }
    known
        .iter()
        .map(|&known| {
            let letters: Vec<char> = known.to_lowercase().chars().collect();
            let limit = wanted.len().max(letters.len()).div_ceil(3).min(4);
            (edits(&wanted, &letters), limit, known)
        })
        .filter(|(edits, limit, _)| edits <= limit)
        .min_by_key(|(edits, _, _)| *edits)
        .map(|(_, _, known)| known)
}

/// Levenshtein's distance.
fn edits(a: &[char], b: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use protocol::schema::{Field, FieldType, RawSchema};

    use super::*;

    fn schema() -> Schema {
        let field = |name: &str, title: &str, required| Field {
            name: name.into(),
            title_zh: title.into(),
            title_en: format!("the {name}"),
            aliases: vec![format!("{title}（旧）")],
            kind: FieldType::Text,
            required,
            personal: false,
            length_max: None,
            values: vec![],
            strict: false,
            scale_max: None,
            legacy_codes: false,
        };
        Schema::check(RawSchema {
            dataset: "enterprise".into(),
            version: 1,
            title_zh: "企业".into(),
            title_en: "enterprises".into(),
            source: String::new(),
            key: vec!["code".into()],
            fields: vec![
                field("code", "统一社会信用代码", true),
                field("name", "企业名称", true),
                field("address", "注册地址", false),
                field("scope", "经营范围", false),
            ],
        })
        .unwrap()
    }

    fn map(labels: &[&str]) -> Result<Mapping, HeaderError> {
        let header: Vec<String> = labels.iter().map(|label| (*label).to_owned()).collect();
        Mapping::new(&header, &schema())
    }

    #[test]
    fn columns_may_stand_in_any_order_and_optional_ones_be_missing() {
        let mapping = map(&["企业名称（旧）", "the scope", "code"]).unwrap();
        assert_eq!(mapping.columns(), [1, 3, 0]);
        assert_eq!(mapping.missing(), [2]);
    }

    #[test]
    fn all_problems_are_listed_at_once() {
        let error = map(&["企业名成", "经营范围", "scope", "", "火星"]).unwrap_err();
        assert_eq!(
            error,
            HeaderError {
                unknown: vec![
                    UnknownColumn {
                        column: 1,
                        label: "企业名成".into(),
                        nearest: Some("企业名称".into())
                    },
                    UnknownColumn { column: 4, label: String::new(), nearest: None },
                    UnknownColumn { column: 5, label: "火星".into(), nearest: None },
                ],
                twice: vec![TwiceNamed {
                    field: "scope".into(),
                    labels: vec!["经营范围".into(), "scope".into()]
                }],
                absent: vec![
                    AbsentField {
                        name: "code".into(), title_zh: "统一社会信用代码".into()
                    },
                    AbsentField { name: "name".into(), title_zh: "企业名称".into() },
                ],
            }
        );
        let text = error.to_string();
        for part in ["火星", "企业名称", "统一社会信用代码", "column 4", "'scope'"] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn a_huge_label_makes_a_short_message() {
        let error = map(&["code", "name", &"长".repeat(300_000)]).unwrap_err();
        assert!(error.to_string().len() < 1000);
    }

    #[test]
    fn edits_are_counted() {
        let count = |a: &str, b: &str| {
            edits(&a.chars().collect::<Vec<_>>(), &b.chars().collect::<Vec<_>>())
        };
        assert_eq!(count("", "abc"), 3);
        assert_eq!(count("kitten", "sitting"), 3);
        assert_eq!(count("企业名称", "企业名成"), 1);
    }
}
