//! Records and their keys as canonical bytes.
//!
//! A key's bytes sort as its fields do, so a partition in byte order is in key
//! order. A record's bytes carry the schema version that they were written
//! under, because the same column means different things in two editions of a
//! layout. `SPEC.md`, sections "Keys" and "Records".

use crate::{
    encoding::{DecodeError, Reader, Writer},
    hash::{Hash, Purpose},
    schema::{FIELDS_MAX, Schema},
    suite::Suite,
    value::{Date, Decimal, Value},
};

/// Longest encoded key: an index page must hold hundreds of them.
pub const KEY_BYTES_MAX: usize = 1024;
/// Longest encoded record: the national penalty layout can reach 40 KB.
pub const RECORD_BYTES_MAX: usize = 64 * 1024;

/// Why values do not make a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The encoded key is above its limit.
    #[error("the key is longer than {KEY_BYTES_MAX} bytes")]
    KeyTooLong,
    /// The encoded record is above its limit.
    #[error("the record is longer than {RECORD_BYTES_MAX} bytes")]
    RecordTooLong,
}

/// The values of one record under one version of its dataset's schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The version of the schema whose fields these are.
    pub schema_version: u32,
    /// One value a field, in the schema's order.
    pub values: Vec<Value>,
}

impl Record {
    /// The canonical bytes.
    pub fn encode(&self) -> Result<Vec<u8>, RecordError> {
        let texts = self.values.iter().map(|value| match value {
            Value::Text(text) => text.len(),
            _ => 0,
        });
        // A tag and a length, or a number, for each value beside its text.
        let bytes = 6 + 16 * self.values.len() + texts.sum::<usize>();
        let mut out = Writer::after(Vec::with_capacity(bytes));
        out.u32(self.schema_version);
        out.u16(u16::try_from(self.values.len()).expect("a schema has at most 128 fields"));
        for value in &self.values {
            value.encode(&mut out);
        }
        let bytes = out.into_bytes();
        if bytes.len() > RECORD_BYTES_MAX {
            return Err(RecordError::RecordTooLong);
        }
        Ok(bytes)
    }

    /// Reads canonical bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > RECORD_BYTES_MAX {
            return Err(DecodeError::TooLong { what: "a record", limit: RECORD_BYTES_MAX });
        }
        let mut input = Reader::new(bytes);
        let schema_version = input.u32()?;
        let count = usize::from(input.u16()?);
        if count > FIELDS_MAX {
            return Err(DecodeError::TooLong { what: "a record's field list", limit: FIELDS_MAX });
        }
        let values = (0..count).map(|_| Value::decode(&mut input)).collect::<Result<_, _>>()?;
        input.finish()?;
        Ok(Self { schema_version, values })
    }

    /// The key of this record under `schema`.
    pub fn key(&self, schema: &Schema) -> Result<Vec<u8>, RecordError> {
        encode_key(schema.key().iter().map(|&index| &self.values[index]))
    }
}

/// Encodes key fields so that bytes sort as the fields do.
///
/// Each field is a tag and its content; a text's zero bytes are written `00 FF`
/// and its end `00 00`, so that no text is a prefix of another one.
pub fn encode_key<'a>(fields: impl IntoIterator<Item = &'a Value>) -> Result<Vec<u8>, RecordError> {
    let mut out = Vec::with_capacity(24);
    for field in fields {
        match field {
            Value::Null => out.push(0),
            Value::Text(text) => {
                out.push(1);
                push_escaped(&mut out, text.as_bytes());
            }
            Value::Integer(number) => {
                out.push(2);
                // Flipping the sign bit makes negative numbers sort first.
                out.extend_from_slice(&(*number as u64 ^ (1 << 63)).to_be_bytes());
            }
            Value::Decimal(decimal) => {
                // Decimals in a key sort as text: a key needs an order, not
                // this one.
                out.push(3);
                push_escaped(&mut out, decimal.as_str().as_bytes());
            }
            Value::Date(date) => {
                let (year, month, day) = date.parts();
                out.push(4);
                out.extend_from_slice(&year.to_be_bytes());
                out.extend_from_slice(&[month, day]);
            }
        }
    }
    if out.len() > KEY_BYTES_MAX {
        return Err(RecordError::KeyTooLong);
    }
    Ok(out)
}

/// Reads the fields of a key back; only what [`encode_key`] writes is one.
pub fn decode_key(bytes: &[u8]) -> Result<Vec<Value>, DecodeError> {
    if bytes.len() > KEY_BYTES_MAX {
        return Err(DecodeError::TooLong { what: "a key", limit: KEY_BYTES_MAX });
    }
    let mut input = Reader::new(bytes);
    let mut fields = Vec::new();
    while input.remaining() > 0 {
        fields.push(match input.u8()? {
            0 => Value::Null,
            1 => match read_escaped(&mut input)? {
                text if text.is_empty() => {
                    return Err(DecodeError::Invalid("an empty text in a key has to be null"));
                }
                text => Value::Text(text),
            },
            2 => Value::Integer((input.u64()? ^ (1 << 63)) as i64),
            3 => {
                let text = read_escaped(&mut input)?;
                Decimal::parse(&text)
                    .filter(|decimal| decimal.as_str() == text)
                    .map(Value::Decimal)
                    .ok_or(DecodeError::Invalid("a key holds a malformed decimal"))?
            }
            4 => Date::new(input.u16()?, input.u8()?, input.u8()?)
                .map(Value::Date)
                .ok_or(DecodeError::Invalid("a key holds a date outside the calendar"))?,
            _ => return Err(DecodeError::Invalid("a key has an unknown tag")),
        });
    }
    Ok(fields)
}

fn push_escaped(out: &mut Vec<u8>, bytes: &[u8]) {
    for &byte in bytes {
        out.push(byte);
        if byte == 0 {
            out.push(0xff);
        }
    }
    out.extend_from_slice(&[0, 0]);
}

fn read_escaped(input: &mut Reader<'_>) -> Result<String, DecodeError> {
    let mut bytes = Vec::new();
    loop {
        match input.u8()? {
            0 => match input.u8()? {
                0 => break,
                0xff => bytes.push(0),
                _ => return Err(DecodeError::Invalid("a key has a malformed text")),
            },
            byte => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).map_err(|_| DecodeError::Invalid("a key has a text that is not UTF-8"))
}

/// The hash of an encoded key; it also decides where pages of the tree end.
/// Where many keys are at hand, [`key_hashes`] is several times as fast.
pub fn key_hash(suite: Suite, key: &[u8]) -> Hash {
    suite.hash_padded(Purpose::Key, &[&key_length(key), key])
}

/// As [`key_hash`], of each of these keys.
pub fn key_hashes<'a>(suite: Suite, keys: impl IntoIterator<Item = &'a [u8]>) -> Vec<Hash> {
    let keys = keys.into_iter();
    suite.hash_each(Purpose::Key, |batch| {
        batch.reserve(keys.size_hint().0);
        for key in keys {
            batch.push(&[&key_length(key), key]);
        }
    })
}

/// The digest of an entry of the state tree: see [`entry_digests`].
pub fn entry_digest(suite: Suite, key: &[u8], value: &[u8]) -> Hash {
    suite.hash_padded(Purpose::Entry, &[&key_length(key), key, &value_length(value), value])
}

/// The digests of entries of the state tree, each a key and a record, of which
/// it hashes what a leaf's bytes have: both, and their lengths.
pub fn entry_digests<'a>(
    suite: Suite,
    entries: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
) -> Vec<Hash> {
    let entries = entries.into_iter();
    suite.hash_each(Purpose::Entry, |batch| {
        batch.reserve(entries.size_hint().0);
        for (key, value) in entries {
            batch.push(&[&key_length(key), key, &value_length(value), value]);
        }
    })
}

/// The length in front of a key.
fn key_length(key: &[u8]) -> [u8; 2] {
    u16::try_from(key.len()).expect("a key has at most 1024 bytes").to_be_bytes()
}

/// The length in front of a record.
fn value_length(value: &[u8]) -> [u8; 4] {
    u32::try_from(value.len()).expect("a record has at most 65 536 bytes").to_be_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_value() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            "[\\x00-\\x02a-c县]{1,4}".prop_map(Value::Text),
            any::<i64>().prop_map(Value::Integer),
            (1u16..9999, 1u8..13, 1u8..29)
                .prop_map(|(y, m, d)| Value::Date(Date::new(y, m, d).unwrap())),
        ]
    }

    proptest! {
        #[test]
        fn keys_sort_as_their_fields(
            a in prop::collection::vec(any_value(), 1..4),
            b in prop::collection::vec(any_value(), 1..4),
        ) {
            let (key_a, key_b) = (encode_key(&a).unwrap(), encode_key(&b).unwrap());
            prop_assert_eq!(key_a.cmp(&key_b), a.cmp(&b));
            prop_assert_eq!(decode_key(&key_a).unwrap(), a);
        }

        #[test]
        fn records_read_back(version in any::<u32>(), values in prop::collection::vec(any_value(), 0..9)) {
            let record = Record { schema_version: version, values };
            let bytes = record.encode().unwrap();
            prop_assert_eq!(Record::decode(&bytes).unwrap(), record);
            prop_assert!(Record::decode(&bytes[..bytes.len() - 1]).is_err());
        }
    }

    #[test]
    fn keys_and_entries_are_hashed_with_their_lengths_and_filled_up() {
        let suite = Suite::One;
        let hash = |purpose, parts: &[&[u8]]| {
            let mut bytes = parts.concat();
            bytes.resize(bytes.len().next_multiple_of(64), 0);
            suite.hash(purpose, &[&bytes])
        };
        let entries: [(&[u8], &[u8]); 5] = [
            (b"", b""),
            (b"key", b"value"),
            (b"key", b"value\0"),
            // One block of key, and two of the entry, to the last byte.
            (&[7; 62], &[8; 60]),
            (&[7; KEY_BYTES_MAX], &[8; RECORD_BYTES_MAX]),
        ];
        let keys: Vec<_> = entries
            .iter()
            .map(|(key, _)| {
                let length = (key.len() as u16).to_be_bytes();
                hash(Purpose::Key, &[&length, key])
            })
            .collect();
        let digests: Vec<_> = entries
            .iter()
            .map(|(key, value)| {
                let (of_key, of_value) =
                    ((key.len() as u16).to_be_bytes(), (value.len() as u32).to_be_bytes());
                hash(Purpose::Entry, &[&of_key, key, &of_value, value])
            })
            .collect();
        assert_eq!(key_hashes(suite, entries.map(|(key, _)| key)), keys);
        assert_eq!(entries.map(|(key, _)| key_hash(suite, key)).to_vec(), keys);
        assert_eq!(entry_digests(suite, entries), digests);
    }

    #[test]
    fn limits_are_kept() {
        let long = Value::Text("x".repeat(KEY_BYTES_MAX));
        assert_eq!(encode_key([&long]), Err(RecordError::KeyTooLong));
        let record =
            Record { schema_version: 1, values: vec![Value::Text("x".repeat(RECORD_BYTES_MAX))] };
        assert_eq!(record.encode(), Err(RecordError::RecordTooLong));
    }
}
