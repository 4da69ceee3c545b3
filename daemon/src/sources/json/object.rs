//! An element to a row: an object's members by name.
//!
//! Used by [`super::JsonFile`]: once to learn the names, once for the rows.
//! Invariants: a member is never left out and no value is made up: what is not a
//! single value, or comes twice, rejects its row. Numbers and texts are not
//! interpreted.

use std::{borrow::Cow, collections::HashMap, fmt};

use serde::{
    Deserializer as _,
    de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::error::JsonError;
use crate::{
    ingest::text_problem::TextProblem,
    sources::texts::{COLUMNS_MAX, TextRows},
};

/// An element as it lies in the file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Text<'a> {
    /// The physical line on which it begins.
    pub(super) line: u64,
    pub(super) bytes: &'a [u8],
}

/// All names that were seen, in that order.
#[derive(Debug, Default)]
pub(super) struct Columns {
    names: Vec<String>,
    places: HashMap<String, usize>,
}

impl Columns {
    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    /// Takes up the names of an object; what else is wrong with an element is told
    /// when rows are made of it. Answers whether it is UTF-8.
    pub(super) fn learn(&mut self, text: Text<'_>) -> Result<bool, JsonError> {
        let Ok(text) = str::from_utf8(text.bytes) else {
            return Ok(false);
        };
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let _ = deserializer.deserialize_map(Learn(self));
        if self.names.len() > COLUMNS_MAX { Err(JsonError::TooManyColumns) } else { Ok(true) }
    }

    /// Adds the row of an element, or nothing if it is an empty object.
    pub(super) fn row(
        &self,
        line: u64,
        element: &[u8],
        rows: &mut TextRows,
    ) -> Result<(), TextProblem> {
        let json =
            str::from_utf8(element).map_err(|_| TextProblem::Encoding { encoding: "UTF-8" })?;
        let trimmed = json.trim();
        if !trimmed.starts_with('{') {
            let is_json = serde_json::from_str::<IgnoredAny>(trimmed).is_ok();
            return Err(if is_json { TextProblem::NotAnObject } else { TextProblem::Syntax });
        }
        let mut values =
            Values { columns: self, values: vec![None; self.names.len()], problem: None };
        let mut deserializer = serde_json::Deserializer::from_str(trimmed);
        let parsed = deserializer.deserialize_map(&mut values).and_then(|()| deserializer.end());
        if parsed.is_err() {
            return Err(TextProblem::Syntax);
        }
        if let Some(problem) = values.problem {
            return Err(problem);
        }
        let mut texts = Vec::with_capacity(values.values.len());
        let mut any = false;
        for value in &values.values {
            any |= value.is_some();
            texts.push(value.map_or(Ok(Cow::Borrowed("")), text_of)?);
        }
        if any {
            rows.push(line, texts.len(), texts.iter().map(AsRef::as_ref));
        }
        Ok(())
    }
}

/// A single value as text.
fn text_of(value: &str) -> Result<Cow<'_, str>, TextProblem> {
    match value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(plain) if !plain.contains('\\') => Ok(Cow::Borrowed(plain)),
        Some(_) => serde_json::from_str(value).map(Cow::Owned).map_err(|_| TextProblem::Syntax),
        None if value == "null" => Ok(Cow::Borrowed("")),
        None => Ok(Cow::Borrowed(value)),
    }
}

struct Learn<'c>(&'c mut Columns);

impl<'de> Visitor<'de> for Learn<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while map.next_key_seed(Name(self.0))?.is_some() {
            map.next_value::<IgnoredAny>()?;
            if self.0.names.len() > COLUMNS_MAX {
                break;
            }
        }
        Ok(())
    }
}

struct Name<'c>(&'c mut Columns);

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<(), E> {
        let Columns { names, places } = self.0;
        if !places.contains_key(name) {
            places.insert(name.to_owned(), names.len());
            names.push(name.to_owned());
        }
        Ok(())
    }
}

/// The members of one object as they lie in the file, by column.
struct Values<'c, 'de> {
    columns: &'c Columns,
    values: Vec<Option<&'de str>>,
    problem: Option<TextProblem>,
}

impl<'de> Visitor<'de> for &mut Values<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut expected = 0;
        while let Some(place) = map.next_key_seed(Place { columns: self.columns, expected })? {
            let value: &'de RawValue = map.next_value()?;
            let (value, column) = (value.get(), place + 1);
            expected = place + 1;
            let problem = if self.values[place].is_some() {
                TextProblem::RepeatedName { column }
            } else if value.starts_with(['{', '[']) {
                TextProblem::Nested { column }
            } else {
                self.values[place] = Some(value);
                continue;
            };
            self.problem.get_or_insert(problem);
        }
        Ok(())
    }
}

/// A name's column; most objects have their names in the same order.
struct Place<'c> {
    columns: &'c Columns,
    expected: usize,
}

impl<'de> DeserializeSeed<'de> for Place<'_> {
    type Value = usize;

    fn deserialize<D: serde::Deserializer<'de>>(self, from: D) -> Result<usize, D::Error> {
        from.deserialize_str(self)
    }
}

impl Visitor<'_> for Place<'_> {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name that was seen before")
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<usize, E> {
        if self.columns.names.get(self.expected).is_some_and(|expected| expected == name) {
            return Ok(self.expected);
        }
        // Every name was seen, unless the file changed since.
        self.columns.places.get(name).copied().ok_or_else(|| E::custom("another file than before"))
    }
}
