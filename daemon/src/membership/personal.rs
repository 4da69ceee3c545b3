//! Which fields are personal by what this node's administrator knows.
//!
//! Used by [`super::Membership`] at a member. The catalogue is the hub's, and a new
//! version of a dataset may say of a field that it is not personal any more, or put
//! another field in its place. Invariant: by that alone nothing is shown that was
//! masked before; it needs an administrator's word, which is kept in a file. More
//! masking needs nobody's. Not here: what masking does (`ingest`).

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use certs::keyfile;
use protocol::{federation::Registry, id::DatasetId, schema::Schema};
use serde::{Deserialize, Serialize};
use store::StoreError;

/// Why an administrator's word cannot be taken or read.
#[derive(Debug, thiserror::Error)]
pub enum PersonalError {
    /// The file that has it.
    #[error("{path}: {problem}")]
    File {
        /// Where it lies.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Nobody has published it.
    #[error("目录中没有数据集“{0}” / the catalogue has no dataset '{0}'")]
    NoDataset(DatasetId),
    /// It was looked at in another version.
    #[error(
        "{dataset} 的最新版本是第 {newest} 版：请先用 'creditsync dataset show {dataset}' 查看 / the newest version of \
         {dataset} is {newest}; look at it first: creditsync dataset show {dataset}"
    )]
    OtherVersion {
        /// The dataset.
        dataset: DatasetId,
        /// The version that would be agreed to.
        newest: u32,
    },
    /// The hub's administrator agrees by publishing.
    #[error(
        "市级中心发布数据集即视为同意 / at the hub whoever publishes a dataset agrees to it: creditsync dataset apply"
    )]
    AtTheHub,
}

/// A dataset in which fields stay masked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Masked {
    /// The dataset.
    pub dataset: DatasetId,
    /// The newest version in the catalogue.
    pub version: u32,
    /// Names of the fields that it does not call personal and that stay masked.
    pub fields: Vec<String>,
}

/// What is known of one dataset.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    /// Names of fields that were personal.
    personal: BTreeSet<String>,
    /// Their labels, folded.
    labels: BTreeSet<String>,
    /// Names of fields that were not.
    open: BTreeSet<String>,
}

/// What is known of all datasets, and where it is kept.
#[derive(Debug)]
pub(super) struct Personal {
    path: PathBuf,
    known: BTreeMap<DatasetId, Known>,
    masked: Vec<Masked>,
    /// The schemas that were looked at, with what is masked in each.
    looked: BTreeMap<DatasetId, (Schema, Vec<String>)>,
    unsaved: bool,
}

impl Personal {
    /// Reads the file, if there is one.
    pub fn load(path: &Path) -> Result<Self, PersonalError> {
        let mut known = BTreeMap::new();
        if path.exists() {
            let wrong = |problem: String| PersonalError::File { path: path.to_owned(), problem };
            let text = keyfile::read_list(path).map_err(|error| wrong(error.to_string()))?;
            known = serde_json::from_slice(&text).map_err(|error| {
                wrong(format!(
                    "it is damaged ({error}). It says which fields are masked; take it away, and what the catalogue \
                     says now counts / 文件已损坏"
                ))
            })?;
        }
        Ok(Self {
            path: path.to_owned(),
            known,
            masked: Vec::new(),
            looked: BTreeMap::new(),
            unsaved: false,
        })
    }

    /// Looks at a catalogue that may be new. Answers which datasets are to be shown in
    /// another way than they were published, or are not any more.
    pub fn look(&mut self, registry: &Registry) -> Vec<(DatasetId, Option<Schema>)> {
        let mut changed = false;
        let mut shown = Vec::new();
        let mut masked = Vec::new();
        let mut looked = BTreeMap::new();
        for schema in registry.datasets() {
            let Some(schema) = registry.published(schema.dataset()) else { continue };
            let dataset = schema.dataset();
            let fields = match self.looked.remove(dataset) {
                Some((known, fields)) if known.is_same(schema) => fields,
                _ => {
                    let known = self.known.entry(dataset.clone()).or_insert_with(|| {
                        changed = true;
                        Known::of(schema)
                    });
                    let before = known.clone();
                    let fields = known.look(schema);
                    changed |= *known != before;
                    shown.push((dataset.clone(), masking(schema, &fields)));
                    fields
                }
            };
            if !fields.is_empty() {
                let (dataset, version, fields) =
                    (dataset.clone(), schema.version(), fields.clone());
                masked.push(Masked { dataset, version, fields });
            }
            looked.insert(dataset.clone(), (schema.clone(), fields));
        }
        (self.masked, self.looked) = (masked, looked);
        self.unsaved |= changed;
        if self.unsaved {
            // What is in memory counts; the next look tries again.
            match self.save() {
                Ok(()) => self.unsaved = false,
                Err(error) => {
                    tracing::error!(%error, "which fields are personal could not be written down");
                }
            }
        }
        shown
    }

    /// From now on what this schema says counts.
    pub fn accept(&mut self, schema: &Schema) -> Result<(), PersonalError> {
        // Looked at anew it is another one.
        self.looked.remove(schema.dataset());
        let before = self.known.insert(schema.dataset().clone(), Known::of(schema));
        self.save().inspect_err(|_| {
            // Nothing was agreed that a restart would not know of.
            match before {
                Some(before) => drop(self.known.insert(schema.dataset().clone(), before)),
                None => drop(self.known.remove(schema.dataset())),
            }
        })
    }

    /// What is masked of the catalogue that was looked at last.
    pub fn masked(&self) -> Vec<Masked> {
        self.masked.clone()
    }

    fn save(&self) -> Result<(), PersonalError> {
        let wrong = |problem: String| PersonalError::File { path: self.path.clone(), problem };
        let text = serde_json::to_vec_pretty(&self.known).map_err(|e| wrong(e.to_string()))?;
        keyfile::replace_list(&self.path, &text).map_err(|error| wrong(error.to_string()))
    }
}

impl Known {
    fn of(schema: &Schema) -> Self {
        let mut known = Self::default();
        known.note_personal(schema);
        let open = schema.fields().iter().filter(|field| !field.personal);
        known.open.extend(open.map(|field| field.name.clone()));
        known
    }

    fn note_personal(&mut self, schema: &Schema) {
        let personal = schema.fields().iter().filter(|field| field.personal);
        self.personal.extend(personal.map(|field| field.name.clone()));
        let labels = schema.folded_labels().filter(|(_, at)| schema.fields()[*at].personal);
        self.labels.extend(labels.map(|(label, _)| label.to_owned()));
    }

    /// The fields of a newer schema that have to stay masked; notes what is new in
    /// it.
    fn look(&mut self, schema: &Schema) -> Vec<String> {
        let is_personal = |name: &String| {
            schema.fields().iter().any(|field| field.name == *name && field.personal)
        };
        // A personal field that is gone may come back under another name.
        let some_are_gone = !self.personal.iter().all(is_personal);
        let has_labels: BTreeSet<usize> = schema
            .folded_labels()
            .filter(|(label, _)| self.labels.contains(*label))
            .map(|(_, field)| field)
            .collect();
        let mut masked = Vec::new();
        for (at, field) in schema.fields().iter().enumerate().filter(|(_, field)| !field.personal) {
            let is_new = !self.open.contains(&field.name);
            let was_personal = self.personal.contains(&field.name) || has_labels.contains(&at);
            if was_personal || (some_are_gone && is_new) {
                masked.push(field.name.clone());
            } else {
                self.open.insert(field.name.clone());
            }
        }
        self.note_personal(schema);
        masked
    }
}

/// The schema with these fields called personal; none if there are none.
fn masking(schema: &Schema, fields: &[String]) -> Option<Schema> {
    if fields.is_empty() {
        return None;
    }
    let mut raw = schema.raw().clone();
    for field in &mut raw.fields {
        field.personal |= fields.contains(&field.name);
    }
    // It passed before, and nothing that is checked depends on what is personal.
    Schema::check(raw).ok()
}

#[cfg(test)]
mod tests {
    use protocol::schema::Field;

    use super::*;

    fn schema(fields: &[(&str, &str, bool)]) -> Schema {
        let mut raw = protocol::federation::schema().raw().clone();
        raw.dataset = "list".into();
        raw.key = vec!["code".into()];
        let template = raw.fields[0].clone();
        let all = [("code", "代码", false)].into_iter().chain(fields.iter().copied());
        raw.fields = all
            .map(|(name, title, personal)| Field {
                name: name.into(),
                title_zh: title.into(),
                title_en: format!("{name} en"),
                personal,
                ..template.clone()
            })
            .collect();
        Schema::check(raw).unwrap()
    }

    #[test]
    fn what_was_personal_stays_masked_whatever_it_is_called() {
        let first = schema(&[("id", "证件号码", true), ("name", "名称", false)]);
        for (what, next, masked) in [
            ("the same", vec![("id", "证件号码", true), ("name", "名称", false)], vec![]),
            (
                "one more field",
                vec![("id", "证件号码", true), ("name", "名称", false), ("tel", "电话", false)],
                vec![],
            ),
            (
                "one more that is personal",
                vec![("id", "证件号码", true), ("name", "名称", true)],
                vec![],
            ),
            ("dropped", vec![("id", "证件号码", false), ("name", "名称", false)], vec!["id"]),
            (
                "renamed",
                vec![("number", "证件 号码", false), ("name", "名称", false)],
                vec!["number"],
            ),
            ("replaced", vec![("x", "其他", false), ("name", "名称", false)], vec!["x"]),
            (
                "its label goes to a field that was there",
                vec![("id", "证件号", true), ("name", "证件号码", false)],
                vec!["name"],
            ),
            ("gone", vec![("name", "名称", false)], vec![]),
        ] {
            let mut known = Known::of(&first);
            assert_eq!(known.look(&schema(&next)), masked, "{what}");
            // Asked again it is the same, and a later version does not help.
            assert_eq!(known.look(&schema(&next)), masked, "{what}");
            let more: &[&str] = if what == "one more that is personal" { &["name"] } else { &[] };
            assert_eq!(known.look(&first), more, "{what}, and back");
        }
        // In two steps: first it goes, then another comes.
        let mut known = Known::of(&first);
        assert_eq!(known.look(&schema(&[("name", "名称", false)])), [""; 0]);
        let other = schema(&[("name", "名称", false), ("no", "号", false)]);
        assert_eq!(known.look(&other), ["no"]);
        // What an administrator agreed to is shown.
        let mut known = Known::of(&other);
        assert_eq!(known.look(&other), [""; 0]);
    }
}
