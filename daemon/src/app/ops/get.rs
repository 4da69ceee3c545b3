//! `get`: one record, as every origin has it; and the keys that texts make.

use anyhow::{Context as _, bail};
use protocol::{id::DatasetId, record::encode_key, schema::Schema, value::Value};
use serde_json::{Value as Json, json};

use super::Answer;
use crate::{
    app::{export, node::Node},
    ingest::validate,
};

impl Node {
    pub(in crate::app) fn get(&self, dataset: &str, texts: &[String]) -> anyhow::Result<Answer> {
        let registry = self.membership.current()?;
        let dataset = DatasetId::new(dataset)?;
        let schema = self.schema(&dataset)?;
        let key = key_of(&schema, texts)?;
        let mut records = Vec::new();
        for (partition, head) in self.heads(Some(&dataset)) {
            if let Some(value) = self.store.get(&partition, &key)? {
                records.push(json!({
                    "origin": partition.origin,
                    "partition": partition.to_string(),
                    "seq": head.seq(),
                    "record": export::record_json(&registry, &schema, &value)?,
                }));
            }
        }
        if records.is_empty() {
            let key = texts.join(" ");
            bail!(
                "{dataset} 中没有主键为 {key} 的记录 / no origin has a record of {dataset} with the key {key}"
            );
        }
        Ok((Json::Array(records), false))
    }
}

/// The key that these texts make, one a key field.
pub(super) fn key_of(schema: &Schema, texts: &[String]) -> anyhow::Result<Vec<u8>> {
    let dataset = schema.dataset();
    let fields = schema.key().iter().map(|&index| &schema.fields()[index]);
    let names: Vec<&str> = fields.clone().map(|field| field.name.as_str()).collect();
    let required = schema.key().iter().filter(|&&index| schema.fields()[index].required).count();
    if texts.len() > names.len() || texts.len() < required {
        let titles: Vec<&str> = fields.map(|field| field.title_zh.as_str()).collect();
        let (count, titles, names) = (names.len(), titles.join("、"), names.join(", "));
        bail!(
            "{dataset} 的主键有 {count} 项：{titles}，请依次写出，以空格分隔 / {dataset} has {count} key fields: {names}; \
             write them in this order, with blanks between"
        );
    }
    if dataset.is_system() {
        let mut values: Vec<Value> = texts.iter().map(|text| Value::text(text.as_str())).collect();
        values.resize(names.len(), Value::Null);
        return Ok(encode_key(&values)?);
    }
    validate::key_of(schema, texts.iter().map(String::as_str))
        .with_context(|| {
            let key = texts.join(" ");
            format!("“{key}”不可能是 {dataset} 的主键，请检查 / '{key}' cannot be a key of {dataset}: check it")
        })
}
