//! What a dataset's schema says of a record (sections 10 and 11 of
//! `protocol/SPEC.md`): how many fields of which kinds, and which make its key.
//!
//! Not what a schema itself has to keep to ([`super::schema_rules`]), and nothing that
//! only warns.

use super::{
    Checked, ensure,
    json::Json,
    record::{self, Value},
};

/// A field's type, and whether it must hold something.
#[derive(Debug, Clone)]
struct Field {
    kind: String,
    required: bool,
}

/// The fields of a dataset in one version.
#[derive(Debug, Clone)]
pub struct Schema {
    fields: Vec<Field>,
    /// Places of the key fields, in the key's order.
    key: Vec<usize>,
}

impl Schema {
    /// Reads the body of a `schema` record.
    pub fn read(body: &Json) -> Option<Self> {
        let listed = body.member("field")?.as_list()?;
        let place = |key: &Json| listed.iter().position(|field| field.member("name") == Some(key));
        let key = body.member("key")?.as_list()?.iter().map(place).collect::<Option<_>>()?;
        let field = |field: &Json| {
            let kind = field.member("type")?.as_text()?.to_owned();
            Some(Field { kind, required: field.flag("required")? })
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
