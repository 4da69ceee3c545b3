//! One field of a dataset as a schema file writes it down.
//!
//! Used inside [`super::RawSchema`], and by importers once a [`super::Schema`] was
//! checked. Every key that has a default may be left out of a file and is then left
//! out when it is written. Not here: what a key may say together with others
//! ([`super::check`]).

use serde::{Deserialize, Deserializer, Serialize};

use super::OpenEnd;
use crate::{
    json::{object_or_null, word},
    value::Date,
};

/// The type of a field: which texts it accepts and their canonical spelling.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FieldType {
    /// Any text, kept to the letter.
    #[default]
    Text,
    /// An identifier: white space around it and format characters are dropped,
    /// compatibility forms (full-width digits) are folded (Unicode NFKC), and so is
    /// what a spreadsheet wraps around it.
    Code,
    /// A unified social credit code (GB 32100-2015): as `code`, upper case.
    Uscc,
    /// A whole number of 64 bits.
    Integer,
    /// A decimal number of at most 38 digits.
    Decimal,
    /// A day: `2019-03-01`, `2019/3/1`, `20190301` or `2019年3月1日`.
    Date,
}

impl FieldType {
    /// The name used in schema files.
    pub fn as_str(self) -> &'static str {
        match self {
            FieldType::Text => "text",
            FieldType::Code => "code",
            FieldType::Uscc => "uscc",
            FieldType::Integer => "integer",
            FieldType::Decimal => "decimal",
            FieldType::Date => "date",
        }
    }
}

/// What a day means that is written as three numbers with the year at the end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DateOrder {
    /// Nothing: `01/03/2019` is refused.
    #[default]
    Ymd,
    /// The day stands first: `01/03/2019` is the first of March.
    Dmy,
    /// The month stands first: `01/03/2019` is the third of January.
    Mdy,
}

/// Years that a day may plausibly lie in, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Years {
    /// The first one.
    pub from: u16,
    /// The last one.
    pub to: u16,
}

impl Default for Years {
    /// Nothing that people register today began before 1900, and most layouts
    /// write 2099 for "no end".
    fn default() -> Self {
        Self { from: 1900, to: 2100 }
    }
}

impl Years {
    /// Whether the day lies in one of these years.
    pub fn contain(&self, date: Date) -> bool {
        (self.from..=self.to).contains(&date.parts().0)
    }
}

/// A field, and the rules for its values.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Field {
    /// The name in exports and in JSON: `[A-Za-z0-9_]{1,63}`.
    pub name: String,
    /// The Chinese title, also accepted in a file's header.
    pub title_zh: String,
    /// The English title.
    pub title_en: String,
    /// Further names that a file's header may use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// Which texts are accepted.
    #[serde(rename = "type", deserialize_with = "word")]
    pub kind: FieldType,
    /// A row without a value is rejected.
    #[serde(default, skip_serializing_if = "is_default")]
    pub required: bool,
    /// Personal data: masked in every report, log and page; never published.
    #[serde(default, skip_serializing_if = "is_default")]
    pub personal: bool,
    /// Longest value in characters; longer ones warn, or are rejected if
    /// `strict`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length_max: Option<u32>,
    /// The values that the standard lists; others warn, or are rejected if
    /// `strict`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
    /// Whether a value outside `length_max`, `values`, `scale_max` or the plausible
    /// years, or a credit code with a wrong check character, rejects the row.
    #[serde(default, skip_serializing_if = "is_default")]
    pub strict: bool,
    /// Most digits behind the point of a decimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale_max: Option<u32>,
    /// A `uscc` field that also takes 15-digit registration numbers from
    /// before 2015, with a warning.
    #[serde(default, skip_serializing_if = "is_default")]
    pub legacy_codes: bool,
    /// Texts that mean nothing, instead of the dataset's; an empty list: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub null_texts: Option<Vec<String>>,
    /// How a date with its year at the end is read, if it is said: see
    /// [`Field::date_order`].
    #[serde(default, deserialize_with = "said_word", skip_serializing_if = "Option::is_none")]
    pub date_order: Option<DateOrder>,
    /// The day that stands for "without end", if it is said: see
    /// [`Field::open_end`].
    #[serde(default, deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    pub open_end: Option<OpenEnd>,
    /// Plausible years of a date, instead of the dataset's.
    #[serde(default, deserialize_with = "object_or_null", skip_serializing_if = "Option::is_none")]
    pub dates: Option<Years>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// What is there is said; null is not the same as nothing.
fn said<'de, D: Deserializer<'de>, T: Deserialize<'de>>(input: D) -> Result<Option<T>, D::Error> {
    T::deserialize(input).map(Some)
}

fn said_word<'de, D: Deserializer<'de>>(input: D) -> Result<Option<DateOrder>, D::Error> {
    word(input).map(Some)
}

impl Field {
    /// How a date with its year at the end is read.
    pub fn date_order(&self) -> DateOrder {
        self.date_order.unwrap_or_default()
    }

    /// The day that stands for "without end": a date that says 长期 is stored as
    /// this one. None if the field has an end.
    pub fn open_end(&self) -> Option<Date> {
        self.open_end.and_then(|OpenEnd(day)| day)
    }

    /// Every text by which a header may call this field.
    pub fn labels(&self) -> impl Iterator<Item = &str> {
        [&self.name, &self.title_zh, &self.title_en]
            .into_iter()
            .map(String::as_str)
            .chain(self.aliases.iter().map(String::as_str))
    }
}
