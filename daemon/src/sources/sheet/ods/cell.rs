//! A cell of an OpenDocument sheet: its value, and what it shows.
//!
//! Used by `Content` for each cell. Invariants: what a formula that failed or
//! was never computed shows rejects its row; a number keeps the zeros in front that it
//! shows, and in a column of texts the words around it. Not here: how elements follow
//! one another.

use calamine::DataRef;
use quick_xml::events::BytesStart;

use super::{
    super::{
        super::{
            child::{Columns, Stop},
            texts::COLUMNS_MAX,
        },
        cell,
        format::has_scale,
        rows::Rows,
    },
    attribute, number,
};

/// A cell, and the equal ones behind it.
pub(super) struct Cell {
    column: u32,
    times: u32,
    value: Value,
    pub(super) shown: String,
    /// It says itself what it is: a formula's result may be an empty text.
    typed: bool,
    formula: bool,
    error: bool,
    /// Rows that it covers.
    rows: u32,
}

enum Value {
    None,
    Number(f64),
    Day(String),
    Time(String),
    Bool(bool),
    Text(Option<String>),
}

impl Cell {
    pub(super) fn of(element: &BytesStart<'_>, column: u32, times: u32) -> Result<Self, Stop> {
        let is = |name: &str| attribute(element, name);
        let kind = is("office:value-type")?.unwrap_or_default();
        let value = match kind.as_str() {
            "float" | "currency" | "percentage" => {
                let number = is("office:value")?.and_then(|text| text.trim().parse().ok());
                number.map_or(Value::None, Value::Number)
            }
            "date" => is("office:date-value")?.map_or(Value::None, Value::Day),
            "time" => is("office:time-value")?.map_or(Value::None, Value::Time),
            "boolean" => {
                is("office:boolean-value")?.map_or(Value::None, |text| Value::Bool(text == "true"))
            }
            _ => Value::Text(is("office:string-value")?),
        };
        let error = is("calcext:value-type")?.as_deref() == Some("error")
            // A number that is none.
            || matches!(value, Value::None) && !kind.is_empty();
        Ok(Self {
            column,
            times,
            value,
            shown: String::new(),
            typed: !kind.is_empty(),
            formula: is("table:formula")?.is_some(),
            error,
            rows: number(element, "table:number-rows-spanned")?,
        })
    }

    /// Whether it has anything, or should.
    pub(super) fn is_something(&self) -> bool {
        let is_text = matches!(&self.value, Value::Text(text) if text.as_deref().unwrap_or_default().is_empty());
        !is_text || !self.shown.is_empty() || self.formula || self.rows > 1
    }

    /// Bytes of its texts, as often as it is there.
    pub(super) fn bytes(&self) -> u64 {
        let own = match &self.value {
            Value::Text(Some(text)) => text.len().max(self.shown.len()),
            _ => self.shown.len(),
        };
        let times = u64::from(self.times).min(COLUMNS_MAX as u64 + 1);
        (own as u64 + 1).saturating_mul(times)
    }

    /// Hands it on, as often as it is there; answers whether more is wanted.
    pub(super) fn hand_on(
        &self,
        row: u32,
        below: Option<(u32, &Columns)>,
        rows: &mut Rows<'_>,
    ) -> Result<bool, Stop> {
        let merges = |(header, columns): (u32, &Columns)| row >= header && columns.has(self.column);
        if self.rows > 1 && below.is_some_and(merges) {
            rows.merges.add(row, row.saturating_add(self.rows - 1), self.column as usize);
        }
        // Beyond the columns that are counted one more says that there are some.
        let last = self.column.saturating_add(self.times).min(COLUMNS_MAX as u32 + 1);
        let first = self.column.min(COLUMNS_MAX as u32);
        for column in first..last.max(first + 1) {
            let in_texts = below.is_some_and(|(_, columns)| columns.is_text(column));
            if !rows.take(row, column, |out| self.write(in_texts, out))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Writes its text; answers whether it is an error.
    fn write(&self, in_texts: bool, out: &mut String) -> bool {
        let shown = self.shown.trim();
        if self.error || self.formula && is_error(shown) {
            out.push_str(if shown.is_empty() { "#VALUE!" } else { shown });
            return true;
        }
        match &self.value {
            Value::Text(Some(text)) if !text.is_empty() => {
                cell::write(&DataRef::SharedString(text), None, in_texts, out)
            }
            Value::Text(_) if self.formula && self.shown.is_empty() && !self.typed => {
                out.push_str("#VALUE!");
                true
            }
            Value::None | Value::Text(_) => {
                cell::write(&DataRef::SharedString(&self.shown), None, in_texts, out)
            }
            Value::Number(number) => {
                let before = out.len();
                let failed = cell::write(&DataRef::Float(*number), None, in_texts, out);
                let plain = &out[before..];
                if is_number_with_zeros(shown, plain)
                    || (in_texts || has_scale(shown)) && has_words(shown)
                {
                    out.truncate(before);
                    out.push_str(shown);
                }
                failed
            }
            Value::Day(text) => {
                cell::write(&DataRef::DateTimeIso(text.clone()), None, in_texts, out)
            }
            Value::Time(text) => {
                cell::write(&DataRef::DurationIso(text.clone()), None, in_texts, out)
            }
            Value::Bool(value) => cell::write(&DataRef::Bool(*value), None, in_texts, out),
        }
    }
}

/// Whether this is what a failed formula shows, in any language.
fn is_error(shown: &str) -> bool {
    let named = shown.starts_with('#') && shown.ends_with(['!', '?', '！', '？']);
    named || shown == "#N/A" || shown.starts_with("Err:")
}

/// Whether `shown` is `plain` with zeros in front.
fn is_number_with_zeros(shown: &str, plain: &str) -> bool {
    shown.len() > plain.len()
        && shown.bytes().all(|byte| byte.is_ascii_digit())
        && shown.trim_start_matches('0') == plain.trim_start_matches('0')
}

/// Whether what a number shows has more than digits, their separators, a currency and
/// a percent sign.
fn has_words(shown: &str) -> bool {
    let is_digit = |c: char| c.is_ascii_digit();
    let of_numbers =
        |c: char| c.is_ascii_digit() || c.is_whitespace() || ".,%+-()¥￥$€£".contains(c);
    // Marks between digits belong to a code: 2019-0007.
    let inner = shown.trim_matches(|c: char| !is_digit(c)).contains('-');
    // An exponent is no word.
    let exponent = shown.as_bytes().windows(4).any(|part| {
        matches!(part, [a, b'E' | b'e', b'+' | b'-', d] if a.is_ascii_digit() && d.is_ascii_digit())
    });
    shown.contains(is_digit) && !exponent && (inner || !shown.chars().all(of_numbers))
}
