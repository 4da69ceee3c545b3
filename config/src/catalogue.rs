//! Dataset files: the standard ones, and those that a hub's administrator
//! applies.
//!
//! A dataset file is [`RawSchema`] in TOML: a few keys about the dataset and
//! one `[[field]]` table a field. The standard files lie in
//! `config/catalogue/`, each naming the layout it follows.

use protocol::schema::{RawSchema, Schema};
use toml::de::{DeTable, DeValue};

use crate::document::{ConfigError, ConfigErrors, Document, item_place};

/// Keys without which nothing is a dataset.
const DATASET_KEYS: [&str; 6] = ["dataset", "version", "title_zh", "title_en", "key", "field"];
/// Keys without which nothing is a field.
const FIELD_KEYS: [&str; 4] = ["name", "title_zh", "title_en", "type"];

/// The files that are built in: name and text.
const STANDARD: [(&str, &str); 4] = [
    ("enterprise", include_str!("../catalogue/enterprise.toml")),
    ("admin-licence", include_str!("../catalogue/admin-licence.toml")),
    ("admin-penalty", include_str!("../catalogue/admin-penalty.toml")),
    ("serious-violators", include_str!("../catalogue/serious-violators.toml")),
];

/// The standard datasets that a new federation starts with.
pub fn standard() -> Vec<Schema> {
    STANDARD
        .iter()
        .map(|(_, text)| {
            parse_schema(text)
                .expect("the built-in dataset files are constant, and a test reads each")
        })
        .collect()
}

/// Reads a dataset file. Syntax errors come alone, everything else is reported
/// at once.
pub fn parse_schema(text: &str) -> Result<Schema, ConfigErrors> {
    let document = Document::parse(text)?;
    let mut errors = missing_keys(&document);
    let mut unreadable = Vec::new();
    let raw = document.read::<RawSchema>(&mut unreadable);
    // A key that is missing, or was taken out for its type, makes its table
    // fail again: only the first cause is worth a line.
    let broken_shape = !errors.is_empty() || raw.is_none();
    let mut places: Vec<String> = errors.iter().map(|error| error.place.clone()).collect();
    for error in unreadable {
        let knock_on = error.problem.starts_with("missing field")
            && places.iter().any(|place| is_inside(place, &error.place));
        if !knock_on {
            places.push(error.place.clone());
            errors.push(error);
        }
    }
    // Checked only if every field could be read: a field that was left out
    // would make the key wrong too.
    if let Some(raw) = raw
        && !broken_shape
        && raw.fields.len() == fields_written(document.root())
    {
        match Schema::check(raw) {
            Ok(schema) if errors.is_empty() => return Ok(schema),
            Ok(_) => {}
            Err(problems) => errors.extend(problems.into_iter().map(|problem| {
                let field = format!("field.{}", problem.place);
                let is_field = document.position(&field).is_some();
                let place = if is_field { field } else { problem.place };
                document.error(&place, problem.problem)
            })),
        }
    }
    Err(ConfigErrors::in_order(errors))
}

/// Writes a dataset file; [`parse_schema`] reads the same schema back.
pub fn render_schema(schema: &Schema) -> String {
    toml::to_string(schema.raw())
        .expect("a schema consists of texts, numbers, flags and lists of them: TOML has each")
}

/// Every key that a dataset or one of its fields lacks.
fn missing_keys(document: &Document<'_>) -> Vec<ConfigError> {
    let mut errors = Vec::new();
    for key in DATASET_KEYS {
        if !document.root().contains_key(key) {
            errors.push(document.error(key, dataset_hint(key)));
        }
    }
    let fields = document.root().get("field").and_then(|value| value.get_ref().as_array());
    for (index, item) in fields.into_iter().flatten().enumerate() {
        let Some(table) = item.get_ref().as_table() else { continue };
        let place = item_place("field", index, item.get_ref());
        for key in FIELD_KEYS {
            if !table.contains_key(key) {
                let mut error = document.error(&place, field_hint(key));
                error.place = format!("{place}.{key}");
                errors.push(error);
            }
        }
    }
    errors
}

fn dataset_hint(key: &str) -> String {
    let next = match key {
        "dataset" => "write the dataset's name, such as \"enterprise\"",
        "version" => "write 1, or the number after the published one",
        "key" => "write the names of the key fields, such as [\"uscc\"]",
        "field" => "write one [[field]] table a field",
        _ => "write the dataset's title",
    };
    format!("is missing; {next}")
}

fn field_hint(key: &str) -> String {
    let next = match key {
        "name" => "write a name of A-Z, a-z, 0-9 and _",
        "type" => "write text, code, uscc, integer, decimal or date",
        _ => "write the field's title",
    };
    format!("is missing; {next}")
}

/// Whether the path `place` lies in the table `table`; the top table's path is
/// empty.
fn is_inside(place: &str, table: &str) -> bool {
    match place.strip_prefix(table) {
        Some(rest) if table.is_empty() => !rest.contains('.'),
        Some(rest) => rest.starts_with('.'),
        None => false,
    }
}

fn fields_written(root: &DeTable<'_>) -> usize {
    match root.get("field").map(|value| value.get_ref()) {
        Some(DeValue::Array(items)) => items.len(),
        _ => 0,
    }
}
