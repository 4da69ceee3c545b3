//! Whether a record is one that an importer makes.
//!
//! An origin signs what it likes. A replica stores only records that its own
//! importer could have made under the schema version that they name: the key is
//! the record's, fields have their number and kinds, required ones are there, and
//! no character steers what shows it. What a person has to judge (a wrong check
//! character, an unusual year) is not looked at here: importers only warn of it.
//! `SPEC.md`, section "Records".
//!
//! It reads a record's bytes in place, because a hub judges each that arrives.

use crate::{
    encoding::{DecodeError, Reader},
    schema::{Field, FieldType, Schema},
    text,
    value::{self, Date, Decimal},
};

/// Why a record is none that an importer makes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordProblem {
    /// Its bytes are no record.
    #[error("it does not decode: {0}")]
    Malformed(#[from] DecodeError),
    /// It has more or fewer fields than its schema.
    #[error("it has {found} fields, and its schema {expected}")]
    FieldCount {
        /// Fields of the schema.
        expected: usize,
        /// Fields of the record.
        found: usize,
    },
    /// A value is of another kind than its field.
    #[error("its field {0} holds a value of another kind")]
    Kind(String),
    /// A required field holds nothing, or nothing that anybody sees.
    #[error("its field {0} is required and empty")]
    Missing(String),
    /// A text holds what no importer lets through.
    #[error("its field {0} holds a character that no file may hold")]
    Character(String),
    /// It lies under a key that is not its own.
    #[error("its key is not the one that its fields give")]
    Key,
}

/// The schema version that a record names.
///
/// # Errors
/// If it names none: it is too short, or the number is 0, which no version has.
pub fn schema_version(record: &[u8]) -> Result<u32, DecodeError> {
    match record.first_chunk().map(|bytes| u32::from_be_bytes(*bytes)) {
        Some(0) => Err(DecodeError::Invalid("a record has no version")),
        Some(version) => Ok(version),
        None => Err(DecodeError::Truncated),
    }
}

/// The content of a value in a record's bytes.
#[derive(Clone, Copy)]
enum Seen<'a> {
    Null,
    Text(&'a [u8]),
    Integer(u64),
    Decimal(&'a [u8]),
    Date(&'a [u8]),
}

/// Judges a record under the schema version that it names.
pub fn judge(schema: &Schema, key: &[u8], record: &[u8]) -> Result<(), RecordProblem> {
    // All texts together, because long ones are looked at many bytes at a time.
    let mut texts = Vec::with_capacity(record.len());
    walk(schema, key, record, |_, text| {
        texts.extend_from_slice(text);
        // So that no two are one character.
        texts.push(b' ');
        Ok(())
    })?;
    if is_plain(&texts) && simdutf8::basic::from_utf8(&texts).is_ok() {
        return Ok(());
    }
    walk(schema, key, record, judge_text)
}

/// Judges all but the characters of texts, each of which is shown to `text`.
fn walk(
    schema: &Schema,
    key: &[u8],
    record: &[u8],
    mut text: impl FnMut(&Field, &[u8]) -> Result<(), RecordProblem>,
) -> Result<(), RecordProblem> {
    let mut input = Reader::new(record);
    input.u32()?;
    let (expected, found) = (schema.fields().len(), usize::from(input.u16()?));
    if found != expected {
        return Err(RecordProblem::FieldCount { expected, found });
    }
    // A schema has at most eight key fields.
    let mut of_key = [Seen::Null; 8];
    for (index, field) in schema.fields().iter().enumerate() {
        let seen = read(&mut input)?;
        judge_field(field, seen, &mut text)?;
        for (place, _) in schema.key().iter().enumerate().filter(|(_, field)| **field == index) {
            of_key[place] = seen;
        }
    }
    input.finish()?;
    let rest = of_key[..schema.key().len()].iter().try_fold(key, |key, seen| strip(key, *seen));
    if rest == Some(&[]) { Ok(()) } else { Err(RecordProblem::Key) }
}

fn read<'a>(input: &mut Reader<'a>) -> Result<Seen<'a>, DecodeError> {
    Ok(match input.u8()? {
        value::TAG_NULL => Seen::Null,
        value::TAG_TEXT => Seen::Text(input.bytes("a text", value::TEXT_BYTES_MAX)?),
        value::TAG_INTEGER => Seen::Integer(input.u64()?),
        value::TAG_DECIMAL => Seen::Decimal(input.bytes("a decimal", value::DECIMAL_CHARS_MAX)?),
        value::TAG_DATE => Seen::Date(input.raw(4)?),
        _ => return Err(DecodeError::Invalid("a value has an unknown tag")),
    })
}

fn judge_field(
    field: &Field,
    seen: Seen<'_>,
    shown: &mut impl FnMut(&Field, &[u8]) -> Result<(), RecordProblem>,
) -> Result<(), RecordProblem> {
    let name = || field.name.clone();
    let is_kind = match (field.kind, seen) {
        (_, Seen::Null) if field.required => return Err(RecordProblem::Missing(name())),
        (_, Seen::Null) => true,
        (FieldType::Text | FieldType::Code, Seen::Text([])) => {
            return Err(DecodeError::Invalid("an empty text has to be null").into());
        }
        (FieldType::Text | FieldType::Code, Seen::Text(text))
            if field.required && is_blank(text) =>
        {
            return Err(RecordProblem::Missing(name()));
        }
        (FieldType::Text | FieldType::Code, Seen::Text(text)) => return shown(field, text),
        (FieldType::Uscc, Seen::Text(text)) => {
            let is_code = matches!(text.len(), 15 | 18)
                && text.iter().all(|b| b.is_ascii_digit() || b.is_ascii_uppercase());
            return if is_code { Ok(()) } else { Err(RecordProblem::Character(name())) };
        }
        (FieldType::Integer, Seen::Integer(_)) => true,
        (FieldType::Decimal, Seen::Decimal(text)) => std::str::from_utf8(text)
            .is_ok_and(|text| Decimal::parse(text).is_some_and(|d| d.as_str() == text)),
        (FieldType::Date, Seen::Date(&[a, b, month, day])) => {
            Date::new(u16::from_be_bytes([a, b]), month, day).is_some()
        }
        _ => false,
    };
    if is_kind { Ok(()) } else { Err(RecordProblem::Kind(name())) }
}

/// Whether a text holds nothing but white space and format characters. What is not
/// UTF-8 is refused elsewhere.
fn is_blank(text: &[u8]) -> bool {
    // Nearly all begin with a digit, an ASCII letter, or a character of U+4000 to
    // U+9FFF.
    let is_seen = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, 0xe4..=0xe9);
    !text.first().is_some_and(is_seen) && std::str::from_utf8(text).is_ok_and(text::is_blank)
}

/// Whether no byte is a control character, or may begin one of U+0080 to U+009F.
fn is_plain(texts: &[u8]) -> bool {
    let is_plain = |byte: &u8| (*byte >= b' ') & (*byte != 0x7f) & (*byte != 0xc2);
    texts.iter().fold(true, |plain, byte| plain & is_plain(byte))
}

/// A text is UTF-8, and has no control character but those that white space needs.
fn judge_text(field: &Field, text: &[u8]) -> Result<(), RecordProblem> {
    if std::str::from_utf8(text).is_err() {
        return Err(DecodeError::Invalid("a text is not UTF-8").into());
    }
    let allowed: &[u8] = if field.kind == FieldType::Text { b"\t\r\n" } else { b"" };
    let steers = |(at, byte): (usize, &u8)| {
        (byte.is_ascii_control() && !allowed.contains(byte))
            || (*byte == 0xc2 && text.get(at + 1).is_some_and(|next| *next < 0xa0))
    };
    if text.iter().enumerate().any(steers) {
        return Err(RecordProblem::Character(field.name.clone()));
    }
    Ok(())
}

/// Takes what a value gives off the front of a key, which has the tags of values.
fn strip<'k>(key: &'k [u8], seen: Seen<'_>) -> Option<&'k [u8]> {
    let (&tag, key) = key.split_first()?;
    match seen {
        Seen::Null => (tag == value::TAG_NULL).then_some(key),
        // No text that was let through has a zero byte, which a key escapes.
        Seen::Text(text) => {
            key.strip_prefix(text)?.strip_prefix(&[0, 0]).filter(|_| tag == value::TAG_TEXT)
        }
        Seen::Integer(number) => {
            let bytes = (number ^ (1 << 63)).to_be_bytes();
            key.strip_prefix(&bytes).filter(|_| tag == value::TAG_INTEGER)
        }
        Seen::Decimal(text) => {
            key.strip_prefix(text)?.strip_prefix(&[0, 0]).filter(|_| tag == value::TAG_DECIMAL)
        }
        Seen::Date(bytes) => key.strip_prefix(bytes).filter(|_| tag == value::TAG_DATE),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{record::Record, value::Value};

    fn schema() -> Schema {
        let field = |name: &str, kind: &str, required: bool| {
            serde_json::json!({
                "name": name, "title_zh": name, "title_en": name, "type": kind, "required": required,
            })
        };
        let raw = serde_json::json!({
            "dataset": "all", "version": 1, "title_zh": "x", "title_en": "x", "key": ["code", "day", "n", "d", "t"],
            "field": [
                field("t", "text", false), field("n", "integer", false), field("code", "code", true),
                field("d", "decimal", false), field("day", "date", false), field("u", "uscc", false),
            ],
        });
        Schema::check(serde_json::from_value(raw).unwrap()).unwrap()
    }

    fn text(text: &str) -> Value {
        Value::Text(text.into())
    }

    fn good() -> Vec<Value> {
        vec![
            text("一行\n二行"),
            Value::Integer(-7),
            text("A1"),
            Value::Decimal(Decimal::parse("-0.5").unwrap()),
            Value::Date(Date::new(2020, 2, 29).unwrap()),
            text("91410100000014911K"),
        ]
    }

    fn judged(values: Vec<Value>) -> Result<(), RecordProblem> {
        let record = Record { schema_version: 1, values };
        let key = record.key(&schema()).unwrap();
        judge(&schema(), &key, &record.encode().unwrap())
    }

    #[test]
    fn what_an_importer_makes_is_good() {
        assert_eq!(judged(good()), Ok(()));
        let mut least = vec![Value::Null; 6];
        least[2] = text("A1");
        assert_eq!(judged(least), Ok(()));
        let with = |index: usize, value: Value| {
            let mut values = good();
            values[index] = value;
            judged(values)
        };
        assert_eq!(with(5, text("410100123456789")), Ok(()));
        for (index, value) in [
            (0, text("a\u{1b}[2J")),
            (0, text("a\u{9b}2J")),
            (2, text("a\tb")),
            (5, text("91410100000014911k")),
            (5, text("9141")),
        ] {
            let refused = with(index, value.clone());
            assert!(matches!(refused, Err(RecordProblem::Character(_))), "{value:?}: {refused:?}");
        }
        // A key escapes it, so it is not the record's own either.
        assert!(with(0, text("a\0")).is_err());
        for (index, value) in
            [(0, Value::Integer(1)), (1, text("1")), (3, text("1")), (4, text("2020-02-29"))]
        {
            let refused = with(index, value.clone());
            assert!(matches!(refused, Err(RecordProblem::Kind(_))), "{value:?}: {refused:?}");
        }
        assert!(matches!(with(2, Value::Null), Err(RecordProblem::Missing(_))));
    }

    #[test]
    fn a_required_text_holds_more_than_what_nobody_sees() {
        let with = |index: usize, value: &str| {
            let mut values = good();
            values[index] = text(value);
            judged(values)
        };
        for blank in [" ", "   ", "\u{3000}", "\u{a0}", "\u{200b}", "\u{feff} \u{ad}", "\u{e0041}"]
        {
            assert_eq!(with(2, blank), Err(RecordProblem::Missing("code".into())), "{blank:?}");
            // The other is not required.
            assert_eq!(with(0, blank), Ok(()), "{blank:?}");
            for seen in ["1", "a", "郑", "㐀", "é", "-", "\u{2800}", "\u{20000}"] {
                for value in [format!("{blank}{seen}"), format!("{seen}{blank}")] {
                    assert_eq!(with(2, &value), Ok(()), "{value:?}");
                }
            }
        }
    }

    #[test]
    fn another_number_of_fields_and_bytes_that_are_no_record_are_refused() {
        let record = Record { schema_version: 1, values: good() };
        let (key, bytes) = (record.key(&schema()).unwrap(), record.encode().unwrap());
        for count in [1, 5, 7] {
            let mut values = good();
            values.resize(count, Value::Null);
            let other = Record { schema_version: 1, values }.encode().unwrap();
            let refused = judge(&schema(), &key, &other);
            assert!(matches!(refused, Err(RecordProblem::FieldCount { .. })), "{count}");
        }
        for length in 0..bytes.len() {
            assert!(judge(&schema(), &key, &bytes[..length]).is_err(), "{length} bytes");
        }
        assert!(judge(&schema(), &key, &[&bytes[..], &[0]].concat()).is_err());
        for other in [&key[..key.len() - 1], &[&key[..], &[0]].concat(), &[]] {
            assert_eq!(judge(&schema(), other, &bytes), Err(RecordProblem::Key));
        }
    }

    proptest! {
        #[test]
        fn a_record_is_good_under_its_own_key_alone(
            t in "[^\\p{Cc}]{1,9}", n: i64, code in "[^\\p{Cc}]{0,9}A", place in 0usize..30, byte: u8,
        ) {
            let mut values = good();
            (values[0], values[1], values[2]) = (text(&t), Value::Integer(n), text(&code));
            let record = Record { schema_version: 1, values };
            let (mut key, bytes) = (record.key(&schema()).unwrap(), record.encode().unwrap());
            prop_assert_eq!(judge(&schema(), &key, &bytes), Ok(()));
            let place = place % key.len();
            let same = key[place] == byte;
            key[place] = byte;
            prop_assert_eq!(judge(&schema(), &key, &bytes).is_ok(), same);
        }

        #[test]
        fn any_bytes_are_judged_without_harm(bytes: Vec<u8>, key: Vec<u8>) {
            let _ = judge(&schema(), &key, &bytes);
        }
    }
}
