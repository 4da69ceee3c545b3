//! How a schema writes the day that stands for an open end: `true`, or that day.
//!
//! Used by serde for [`super::Field::open_end`]. Not here: which texts of a file
//! mean an open end; that is the importer's business.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::value::Date;

/// The day that stands for an open end unless a layout names another: the last one
/// that there is, so that it sorts behind all others.
pub const OPEN_END: (u16, u8, u8) = (9999, 12, 31);

/// What a schema says of a field's open end: the day that stands for it, written
/// `true` for [`OPEN_END`] or as a text such as `"2099-12-31"`; or, written `false`,
/// that there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenEnd(pub Option<Date>);

impl Serialize for OpenEnd {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Some(day) if day.parts() == OPEN_END => out.serialize_bool(true),
            Some(day) => out.serialize_str(&day.to_string()),
            None => out.serialize_bool(false),
        }
    }
}

impl<'de> Deserialize<'de> for OpenEnd {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        input.deserialize_any(Visitor).map(Self)
    }
}

struct Visitor;

impl de::Visitor<'_> for Visitor {
    type Value = Option<Date>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("true, or the day that the layout writes, such as \"2099-12-31\"")
    }

    fn visit_bool<E: de::Error>(self, open: bool) -> Result<Self::Value, E> {
        let (year, month, day) = OPEN_END;
        Ok(if open { Date::new(year, month, day) } else { None })
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        let wrong = || E::invalid_value(de::Unexpected::Str(text), &self);
        Date::parse(text).map(Some).ok_or_else(wrong)
    }
}
