//! Records as CSV and JSON: schema order, key order, canonical values, and
//! nothing masked, because the local administrator owns the data.

use anyhow::Context as _;
use protocol::{
    federation::Registry,
    id::{DatasetId, PartitionId},
    record::{Record, key_hash},
    schema::Schema,
    value::Value,
};
use serde_json::{Map, Value as Json, json};

use super::node::{Node, no_partition};
use crate::admin::ExportFormat;

/// Bytes that are collected before they are handed on.
const CHUNK_BYTES: usize = 256 * 1024;

/// Exports a partition, or a whole dataset with a leading `_origin` column, in
/// chunks of whole lines.
pub(super) fn export(
    node: &Node,
    target: &str,
    format: ExportFormat,
    take: &dyn Fn(String) -> anyhow::Result<()>,
) -> anyhow::Result<(Json, bool)> {
    let (dataset, partitions) = partitions_of(node, target)?;
    let whole_dataset = !target.contains('/');
    let registry = node.membership.current()?;
    let schema = node.schema(&dataset)?;
    let mut out = Output::new(format, &schema, whole_dataset)?;
    let (mut records, mut skipped) = (0u64, 0u64);
    for partition in &partitions {
        let Some(mut snapshot) = node.store.snapshot_blocking(partition)? else {
            continue;
        };
        for leaf in snapshot.leaves() {
            for (key, value) in leaf?.entries() {
                let values = match values_in(&registry, &schema, value) {
                    Ok(values) => values,
                    Err(error) => {
                        // One bad record of one origin does not stop the others.
                        tracing::error!(%partition, key_hash = %key_hash(registry.suite(), key), error = format!("{error:#}"), "a record cannot be read and is left out");
                        skipped += 1;
                        continue;
                    }
                };
                out.record(whole_dataset.then_some(partition), &schema, &values)?;
                records += 1;
                if out.bytes.len() >= CHUNK_BYTES {
                    take(out.take()?)?;
                }
            }
        }
    }
    take(out.take()?)?;
    let answer = json!({ "records": records, "skipped": skipped, "partitions": partitions.len() });
    Ok((answer, skipped > 0))
}

fn partitions_of(node: &Node, target: &str) -> anyhow::Result<(DatasetId, Vec<PartitionId>)> {
    if !target.contains('/') {
        let dataset = DatasetId::new(target)?;
        node.schema(&dataset)?;
        let partitions = node.heads(Some(&dataset)).into_keys().collect();
        return Ok((dataset, partitions));
    }
    let partition = node.parse_partition(target)?;
    node.schema(&partition.dataset)?;
    node.store.head(&partition).ok_or_else(|| no_partition(&partition))?;
    Ok((partition.dataset.clone(), vec![partition]))
}

/// A stored record's values in the order of `schema`, by field name if it was
/// written under another version.
fn values_in(registry: &Registry, schema: &Schema, value: &[u8]) -> anyhow::Result<Vec<Value>> {
    let record = Record::decode(value)?;
    if record.schema_version == schema.version() {
        return Ok(record.values);
    }
    let written = registry.schema_version(schema.dataset(), record.schema_version);
    let written = written.with_context(|| {
        format!(
            "{}: version {} of the schema is not known here",
            schema.dataset(),
            record.schema_version
        )
    })?;
    let by_name = |name: &str| {
        let index = written.fields().iter().position(|field| field.name == name)?;
        record.values.get(index).cloned()
    };
    Ok(schema.fields().iter().map(|field| by_name(&field.name).unwrap_or(Value::Null)).collect())
}

/// A stored record as a JSON object, field by field.
pub(super) fn record_json(
    registry: &Registry,
    schema: &Schema,
    value: &[u8],
) -> anyhow::Result<Json> {
    Ok(object(None, schema, &values_in(registry, schema, value)?))
}

fn object(origin: Option<&PartitionId>, schema: &Schema, values: &[Value]) -> Json {
    let mut object = Map::new();
    if let Some(partition) = origin {
        object.insert("_origin".into(), json!(partition.origin));
    }
    for (field, value) in schema.fields().iter().zip(values) {
        let value = match value {
            Value::Null => Json::Null,
            Value::Integer(number) => json!(number),
            // Decimals stay exact as text.
            other => json!(other.canonical_text()),
        };
        object.insert(field.name.clone(), value);
    }
    Json::Object(object)
}

struct Output {
    format: ExportFormat,
    bytes: Vec<u8>,
}

impl Output {
    fn new(format: ExportFormat, schema: &Schema, with_origin: bool) -> anyhow::Result<Self> {
        let mut output = Self { format, bytes: Vec::new() };
        if format == ExportFormat::Csv {
            let names = schema.fields().iter().map(|field| field.name.as_str());
            output.csv_line(with_origin.then_some("_origin").into_iter().chain(names))?;
        }
        Ok(output)
    }

    fn csv_line<'a>(&mut self, fields: impl Iterator<Item = &'a str>) -> anyhow::Result<()> {
        let mut writer = csv::Writer::from_writer(std::mem::take(&mut self.bytes));
        writer.write_record(fields)?;
        self.bytes = writer.into_inner().map_err(|error| error.into_error())?;
        Ok(())
    }

    fn record(
        &mut self,
        origin: Option<&PartitionId>,
        schema: &Schema,
        values: &[Value],
    ) -> anyhow::Result<()> {
        match self.format {
            ExportFormat::Csv => {
                let texts: Vec<_> = values.iter().map(Value::canonical_text).collect();
                let origin = origin.map(|partition| partition.origin.as_str());
                self.csv_line(origin.into_iter().chain(texts.iter().map(|text| text.as_ref())))
            }
            ExportFormat::Jsonl => {
                serde_json::to_writer(&mut self.bytes, &object(origin, schema, values))?;
                self.bytes.push(b'\n');
                Ok(())
            }
        }
    }

    fn take(&mut self) -> anyhow::Result<String> {
        Ok(String::from_utf8(std::mem::take(&mut self.bytes))?)
    }
}
