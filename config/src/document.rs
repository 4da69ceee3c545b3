//! A TOML text, its serde shape and every mistake in it, with places.
//!
//! serde stops at the first key it does not know or value it does not like.
//! [`Document::read`] notes that mistake, takes the offending entry out and
//! reads again, until nothing is left to complain about: an administrator sees
//! the whole list at once.

use std::{fmt, ops::Range};

use serde::de::DeserializeOwned;
use toml::{
    Spanned,
    de::{DeTable, DeValue, Deserializer},
};

/// Most mistakes reported for one text. More than a screenful helps nobody,
/// and each costs one reading of the text.
const ERRORS_MAX: usize = 100;

/// One mistake in a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// Line and column, from 1, where the text has the mistake. A key that is
    /// missing has none, unless its table is there.
    pub position: Option<(usize, usize)>,
    /// The key's path, such as `store.cache_mb` or `field.uscc.type`; empty if
    /// the text is not TOML.
    pub place: String,
    /// What is wrong, and what to do about it.
    pub problem: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((line, column)) = self.position {
            write!(f, "line {line}, column {column}: ")?;
        }
        if !self.place.is_empty() {
            write!(f, "{}: ", self.place)?;
        }
        f.write_str(&self.problem)
    }
}

/// Every mistake in a file, in the order of the text; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

impl ConfigErrors {
    /// Sorts mistakes as the text has them, those without a line last.
    pub(crate) fn in_order(mut errors: Vec<ConfigError>) -> Self {
        errors.sort_by_key(|error| error.position.unwrap_or((usize::MAX, 0)));
        Self(errors)
    }
}

/// A text that is TOML.
pub(crate) struct Document<'t> {
    text: &'t str,
    root: Spanned<DeTable<'t>>,
}

impl<'t> Document<'t> {
    /// Reads TOML. Only the first syntax error is reported: what follows one
    /// is guesswork.
    pub(crate) fn parse(text: &'t str) -> Result<Self, ConfigErrors> {
        // Editors on Windows put a byte order mark in front.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let root = DeTable::parse(text).map_err(|error| {
            ConfigErrors(vec![ConfigError {
                position: error.span().map(|span| position_in(text, span.start)),
                place: String::new(),
                problem: format!("this is not TOML: {}; correct this line", error.message()),
            }])
        })?;
        Ok(Self { text, root })
    }

    /// Gives the text the shape `T`, without its unknown keys and wrongly typed
    /// values, which go to `errors`. `None` if what is left is not a `T`.
    pub(crate) fn read<T: DeserializeOwned>(&self, errors: &mut Vec<ConfigError>) -> Option<T> {
        let mut root = self.root.clone();
        while errors.len() < ERRORS_MAX {
            let error = match T::deserialize(Deserializer::from(root.clone())) {
                Ok(shape) => return Some(shape),
                Err(error) => error,
            };
            let span = error.span().unwrap_or_default();
            let place = find(self.root.get_ref(), "", &span);
            errors.push(ConfigError {
                position: place.as_ref().map(|_| position_in(self.text, span.start)),
                place: place.unwrap_or_default(),
                problem: in_plain_words(error.message()),
            });
            if !remove(root.get_mut(), &span) {
                return None;
            }
        }
        None
    }

    /// Where a key stands. Steps into a list of tables are the `name` that
    /// the table gives itself, or `#` and its number.
    pub(crate) fn position(&self, place: &str) -> Option<(usize, usize)> {
        span_of(self.root.get_ref(), "", place).map(|span| position_in(self.text, span.start))
    }

    /// What was parsed: the text behind a byte order mark.
    pub(crate) fn text(&self) -> &'t str {
        self.text
    }

    /// The top table.
    pub(crate) fn root(&self) -> &DeTable<'t> {
        self.root.get_ref()
    }

    /// Makes a mistake out of a key's path and a text.
    pub(crate) fn error(&self, place: &str, problem: impl Into<String>) -> ConfigError {
        ConfigError {
            position: self.position(place),
            place: place.to_owned(),
            problem: problem.into(),
        }
    }
}

/// Where the value at a path of keys stands.
pub(crate) fn value_span(table: &DeTable<'_>, path: &[&str]) -> Option<Range<usize>> {
    let (first, rest) = path.split_first()?;
    let value = table.get(*first)?;
    match rest {
        [] => Some(value.span()),
        rest => value_span(value.get_ref().as_table()?, rest),
    }
}

/// The path of a step into the table that `parent` names.
fn join(parent: &str, key: &str) -> String {
    if parent.is_empty() { key.to_owned() } else { format!("{parent}.{key}") }
}

/// The path of one table of a list.
pub(crate) fn item_place(list: &str, index: usize, item: &DeValue<'_>) -> String {
    let name =
        item.as_table().and_then(|table| table.get("name")).and_then(|v| v.get_ref().as_str());
    match name {
        Some(name) => join(list, name),
        None => format!("{list}.#{}", index + 1),
    }
}

/// The path of the key or value that has exactly this span. serde's mistakes
/// carry the span of the unknown key, of the wrong value, or of the table
/// that lacks something.
fn find(table: &DeTable<'_>, path: &str, span: &Range<usize>) -> Option<String> {
    for (key, value) in table {
        let place = join(path, key.get_ref());
        if key.span() == *span || value.span() == *span {
            return Some(place);
        }
        match value.get_ref() {
            DeValue::Table(inner) => {
                if let Some(found) = find(inner, &place, span) {
                    return Some(found);
                }
            }
            DeValue::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    let Some(inner) = item.get_ref().as_table() else {
                        if item.span() == *span {
                            return Some(place);
                        }
                        continue;
                    };
                    let item_place = item_place(&place, index, item.get_ref());
                    if item.span() == *span {
                        return Some(item_place);
                    }
                    if let Some(found) = find(inner, &item_place, span) {
                        return Some(found);
                    }
                }
            }
            _ => {}
        }
    }
    None
}

/// Takes out the entry with this span; false if there is none.
fn remove(table: &mut DeTable<'_>, span: &Range<usize>) -> bool {
    let mut doomed = None;
    for (key, value) in table.iter_mut() {
        if key.span() == *span || value.span() == *span {
            doomed = Some(key.clone());
            break;
        }
        let removed = match value.get_mut() {
            DeValue::Table(inner) => remove(inner, span),
            DeValue::Array(items) => {
                let index = items.iter().position(|item| item.span() == *span);
                match index {
                    Some(index) => {
                        *items = items
                            .iter()
                            .enumerate()
                            .filter(|(other, _)| *other != index)
                            .map(|(_, item)| item.clone())
                            .collect();
                        true
                    }
                    None => items.iter_mut().any(|item| match item.get_mut() {
                        DeValue::Table(inner) => remove(inner, span),
                        _ => false,
                    }),
                }
            }
            _ => false,
        };
        if removed {
            return true;
        }
    }
    doomed.is_some_and(|key| table.remove(key.get_ref().as_ref()).is_some())
}

fn span_of(table: &DeTable<'_>, path: &str, wanted: &str) -> Option<Range<usize>> {
    for (key, value) in table {
        let place = join(path, key.get_ref());
        let mut found = None;
        match value.get_ref() {
            DeValue::Table(inner) => found = span_of(inner, &place, wanted),
            DeValue::Array(items) => {
                // The last of two tables with one name: it is the second that
                // is reported.
                for (index, item) in items.iter().enumerate().rev() {
                    let item_place = item_place(&place, index, item.get_ref());
                    if found.is_none()
                        && let Some(inner) = item.get_ref().as_table()
                    {
                        found = if item_place == wanted {
                            Some(item.span())
                        } else {
                            span_of(inner, &item_place, wanted)
                        };
                    }
                }
            }
            _ => {}
        }
        if found.is_none() && place == wanted {
            found = Some(key.span());
        }
        if found.is_some() {
            return found;
        }
    }
    None
}

/// serde's words for programmers as words for administrators.
fn in_plain_words(message: &str) -> String {
    if let Some(rest) = message.strip_prefix("unknown field ") {
        let known = rest
            .split_once(", expected ")
            .map_or("", |(_, known)| known.trim_start_matches("one of "))
            .replace('`', "")
            .replace(" or ", ", ");
        return format!("unknown key; known here: {known}; correct or delete it");
    }
    if let Some(rest) = message.strip_prefix("unknown variant ") {
        let (found, known) = rest.split_once(", expected ").unwrap_or((rest, ""));
        let (found, known) = (found.replace('`', "'"), known.replace('`', ""));
        return format!("{found} is not known here; write {known}");
    }
    let mut plain = message.replace('`', "'");
    for (words, plainer) in [
        ("invalid type: ", "wrong type: "),
        ("invalid value: ", "wrong value: "),
        ("expected i64", "expected a whole number"),
        ("expected u16", "expected a whole number from 0 to 65535"),
        ("expected u32", "expected a whole number from 0 to 4294967295"),
        ("expected a boolean", "expected true or false"),
        ("expected a sequence", "expected a list"),
        ("expected struct Field", "expected a table"),
        ("expected struct Years", "expected a table such as { from = 1900, to = 2100 }"),
        ("map, expected", "table, expected"),
        ("sequence, expected", "list, expected"),
    ] {
        plain = plain.replace(words, plainer);
    }
    plain
}

/// Line and column, from 1, of a byte.
fn position_in(text: &str, byte: usize) -> (usize, usize) {
    let before = text.get(..byte).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line, column)
}
