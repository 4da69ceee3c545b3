//! What a dataset's schema says of a record (sections 10 and 11 of
//! `protocol/SPEC.md`): how many fields of which kinds, and which make its key.
//!
//! Not what a schema itself has to keep to, and nothing that only warns.

use serde_json::Value as Json;

use super::{
    Checked, ensure,
    record::{self, Value},
};

/// A field's type, and whether it must hold something.
struct Field {
    kind: String,
    required: bool,
}

/// The fields of a dataset in one version.
pub struct Schema {
    fields: Vec<Field>,
    /// Places of the key fields, in the key's order.
    key: Vec<usize>,
}

impl Schema {
    /// Reads the body of a `schema` record.
    pub fn read(body: &Json) -> Option<Self> {
        let listed = body.get("field")?.as_array()?;
        let place = |key: &Json| listed.iter().position(|field| field.get("name") == Some(key));
        let key = body.get("key")?.as_array()?.iter().map(place).collect::<Option<_>>()?;
        let field = |field: &Json| {
            let kind = field.get("type")?.as_str()?.to_owned();
            let required = field.get("required").and_then(Json::as_bool).unwrap_or(false);
            Some(Field { kind, required })
        };
        Some(Self { fields: listed.iter().map(field).collect::<Option<_>>()?, key })
    }

    /// Whether these values are a record of this schema that stands under `key`.
    pub fn check(&self, key: &[u8], values: &[Value]) -> Checked<()> {
        ensure(values.len() == self.fields.len(), "another number of fields")?;
        for (field, value) in self.fields.iter().zip(values) {
            let fits = match value {
                Value::Null => !field.required,
                Value::Text(_) => matches!(&field.kind[..], "text" | "code" | "uscc"),
                Value::Integer(_) => field.kind == "integer",
                Value::Decimal(_) => field.kind == "decimal",
                Value::Date { .. } => field.kind == "date",
            };
            ensure(fits, "a field of another kind")?;
            if let Value::Text(text) = value {
                let filled = !field.required || !record::is_blank(text);
                ensure(filled, "a required field that shows nothing")?;
                let breaks = field.kind != "code";
                let may = |c: char| !c.is_control() || breaks && matches!(c, '\t' | '\r' | '\n');
                ensure(text.chars().all(may), "a control character")?;
                ensure(field.kind != "uscc" || is_uscc(text), "no letters of a uscc")?;
            }
        }
        let own: Vec<Value> = self.key.iter().map(|place| values[*place].clone()).collect();
        ensure(record::encode_key(&own) == key, "another record's key")
    }
}

/// As far as a replica looks: which of them are given out is the importer's business.
fn is_uscc(text: &str) -> bool {
    matches!(text.len(), 15 | 18)
        && text.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase())
}
