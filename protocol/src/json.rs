//! JSON as the records of `_federation` hold it: stricter than what serde takes.
//!
//! Used by [`crate::federation`] and by [`crate::schema`]. Invariant: no member comes
//! twice, what has named members is an object and never a list of their values, and a
//! word of a few is a text. Not here: which members there are.

use std::{collections::BTreeSet, fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{
        DeserializeOwned, Error as _, MapAccess, SeqAccess, Visitor,
        value::{MapAccessDeserializer, StringDeserializer},
    },
};

/// Reads an object in which no member comes twice, at whatever depth.
pub(crate) fn read<T: DeserializeOwned>(text: &str) -> Result<T, serde_json::Error> {
    serde_json::from_str::<Distinct>(text)?;
    Ok(serde_json::from_str::<Object<T>>(text)?.0)
}

/// What is written as an object; serde would also take a list of its values.
pub(crate) struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = Object<T>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The words that serde's own visitors have for it.
        let name = std::any::type_name::<T>();
        write!(out, "struct {}", name.rsplit("::").next().unwrap_or(name))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Object)
    }
}

/// Objects, for serde.
pub(crate) fn objects<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    let objects = Vec::<Object<T>>::deserialize(deserializer)?;
    Ok(objects.into_iter().map(|Object(own)| own).collect())
}

/// An object, or null, for serde.
pub(crate) fn object_or_null<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    Ok(Option::<Object<T>>::deserialize(deserializer)?.map(|Object(own)| own))
}

/// A word of a few, for serde, which would also take a map with that word.
pub(crate) fn word<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    deserializer: D,
) -> Result<T, D::Error> {
    let word = String::deserialize(deserializer)?;
    T::deserialize(StringDeserializer::<D::Error>::new(word))
}

/// JSON of any form, of which nothing is kept.
struct Distinct;

impl<'de> Deserialize<'de> for Distinct {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DistinctVisitor)
    }
}

struct DistinctVisitor;

impl<'de> Visitor<'de> for DistinctVisitor {
    type Value = Distinct;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Distinct, A::Error> {
        let mut seen = BTreeSet::new();
        while let Some(name) = map.next_key::<String>()? {
            map.next_value::<Distinct>()?;
            if !seen.insert(name) {
                return Err(A::Error::custom("a member comes twice"));
            }
        }
        Ok(Distinct)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Distinct, A::Error> {
        while list.next_element::<Distinct>()?.is_some() {}
        Ok(Distinct)
    }

    fn visit_unit<E>(self) -> Result<Distinct, E> {
        Ok(Distinct)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Distinct, E> {
        Ok(Distinct)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Distinct, E> {
        Ok(Distinct)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Distinct, E> {
        Ok(Distinct)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Distinct, E> {
        Ok(Distinct)
    }

    fn visit_str<E>(self, _: &str) -> Result<Distinct, E> {
        Ok(Distinct)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Pair {
        a: u32,
        #[serde(default, deserialize_with = "object_or_null")]
        b: Option<Box<Pair>>,
        #[serde(default, deserialize_with = "objects")]
        c: Vec<Pair>,
    }

    fn reads(text: &str) -> bool {
        read::<Pair>(text).is_ok()
    }

    #[test]
    fn a_list_of_an_objects_values_is_no_object() {
        assert!(reads(r#"{"a": 1, "b": {"a": 2}, "c": [{"a": 3}]}"#));
        assert!(reads(r#"{"a": 1, "b": null}"#));
        for wrong in
            ["[1]", "[1, null, []]", r#"{"a": 1, "b": [2]}"#, r#"{"a": 1, "c": [[3]]}"#, "1"]
        {
            assert!(!reads(wrong), "{wrong}");
        }
    }

    #[test]
    fn what_is_ignored_has_to_be_json_all_the_same() {
        let deep = |depth: usize| {
            format!(r#"{{"a": 1, "d": {}1{}}}"#, "[".repeat(depth - 1), "]".repeat(depth - 1))
        };
        assert!(reads(&deep(127)));
        assert!(!reads(&deep(128)));
        let with = |value: &str| format!(r#"{{"a": 1, "d": {value}}}"#);
        // The largest number that a binary64 holds, and halfway to what would be next.
        for right in ["1.7976931348623157e308", "1.7976931348623158e308", "-1e-999", "0e999"] {
            assert!(reads(&with(right)), "{right}");
        }
        for wrong in
            ["1e999", "-1.7976931348623159e308", r#""\ud83d""#, "NaN", r#"{"e": 1, "e": 1}"#]
        {
            assert!(!reads(&with(wrong)), "{wrong}");
        }
        assert!(!reads("\u{feff}{\"a\": 1}"));
    }
}
