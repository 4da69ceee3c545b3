//! Values, keys and records: sections 5 to 7 of `protocol/SPEC.md`, but for what
//! an importer makes of a delivery.

use super::{Checked, Refused, ensure, layout, reader::Reader};

/// A value of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Null,
    Text(String),
    Integer(i64),
    /// In its canonical spelling.
    Decimal(String),
    Date {
        year: u16,
        month: u8,
        day: u8,
    },
}

/// A record's schema version and values.
pub fn decode(bytes: &[u8]) -> Checked<(u32, Vec<Value>)> {
    ensure(bytes.len() <= layout::RECORD_BYTES_MAX, "a record over its limit")?;
    let mut reader = Reader::new(bytes);
    let version = reader.u32()?;
    ensure(version > 0, "a schema version that is none")?;
    let count = usize::from(reader.u16()?);
    ensure(count <= layout::FIELDS_MAX, "a record with too many fields")?;
    let values = (0..count).map(|_| value(&mut reader)).collect::<Checked<_>>()?;
    reader.end()?;
    Ok((version, values))
}

fn value(reader: &mut Reader<'_>) -> Checked<Value> {
    Ok(match reader.u8()? {
        0 => Value::Null,
        1 => {
            let text = reader.text(layout::TEXT_BYTES_MAX)?;
            ensure(!text.is_empty(), "an empty text is null")?;
            Value::Text(text.to_owned())
        }
        2 => Value::Integer(reader.i64()?),
        3 => {
            let text = reader.text(layout::DECIMAL_CHARACTERS_MAX)?;
            ensure(is_canonical_decimal(text), "a decimal in another spelling")?;
            Value::Decimal(text.to_owned())
        }
        4 => date(reader)?,
        _ => return Err(Refused("an unknown kind of value")),
    })
}

fn date(reader: &mut Reader<'_>) -> Checked<Value> {
    let (year, month, day) = (reader.u16()?, reader.u8()?, reader.u8()?);
    ensure(is_of_calendar(year, month, day), "no day of the calendar")?;
    Ok(Value::Date { year, month, day })
}

/// Whether there is such a day, of the years 1 to 9999.
pub fn is_of_calendar(year: u16, month: u8, day: u8) -> bool {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => 0,
    };
    layout::YEARS.contains(&year) && (1..=days).contains(&day)
}

/// Whether a text is a day in its canonical spelling, `YYYY-MM-DD`.
pub fn is_day(text: &str) -> bool {
    let place = |(at, byte): (usize, u8)| match at {
        4 | 7 => byte == b'-',
        _ => byte.is_ascii_digit(),
    };
    let spelled = text.len() == 10 && text.bytes().enumerate().all(place);
    let part = |from: usize, to: usize| text[from..to].parse::<u16>().unwrap_or_default();
    let small = |from, to| u8::try_from(part(from, to)).unwrap_or_default();
    spelled && is_of_calendar(part(0, 4), small(5, 7), small(8, 10))
}

/// Whether a decimal is spelled as section 5 wants it.
pub fn is_canonical_decimal(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = match digits.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (digits, None),
    };
    let all_digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let well = all_digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && fraction.is_none_or(|part| all_digits(part) && !part.ends_with('0'));
    // The lone zero before a point does not count.
    let lone_zero = whole == "0" && fraction.is_some();
    let counted = if lone_zero { 0 } else { whole.len() } + fraction.map_or(0, str::len);
    well && counted <= layout::DECIMAL_DIGITS_MAX && text != "-0"
}

/// Characters of the general category Cf in Unicode 16, first and last of each range.
const FORMAT: [(u32, u32); 21] = [
    (0xad, 0xad),
    (0x600, 0x605),
    (0x61c, 0x61c),
    (0x6dd, 0x6dd),
    (0x70f, 0x70f),
    (0x890, 0x891),
    (0x8e2, 0x8e2),
    (0x180e, 0x180e),
    (0x200b, 0x200f),
    (0x202a, 0x202e),
    (0x2060, 0x2064),
    (0x2066, 0x206f),
    (0xfeff, 0xfeff),
    (0xfff9, 0xfffb),
    (0x110bd, 0x110bd),
    (0x110cd, 0x110cd),
    (0x13430, 0x1343f),
    (0x1bca0, 0x1bca3),
    (0x1d173, 0x1d17a),
    (0xe0001, 0xe0001),
    (0xe0020, 0xe007f),
];

/// Whether a character is of the general category Cf.
pub fn is_format(c: char) -> bool {
    FORMAT.iter().any(|(first, last)| (*first..=*last).contains(&u32::from(c)))
}

/// Whether a text has nothing but white space and Cf.
pub fn is_blank(text: &str) -> bool {
    text.chars().all(|c| c.is_whitespace() || is_format(c))
}

/// A key's values. The key fields have no schema here: each says what it is.
pub fn decode_key(key: &[u8]) -> Checked<Vec<Value>> {
    ensure(key.len() <= layout::KEY_BYTES_MAX, "a key over its limit")?;
    let mut reader = Reader::new(key);
    let mut values = Vec::new();
    while reader.left() > 0 {
        values.push(match reader.u8()? {
            0 => Value::Null,
            1 => {
                let text = unescape(&mut reader)?;
                ensure(!text.is_empty(), "an empty text is null")?;
                Value::Text(text)
            }
            2 => Value::Integer((reader.u64()? ^ 1 << 63).cast_signed()),
            3 => {
                let text = unescape(&mut reader)?;
                ensure(is_canonical_decimal(&text), "a decimal in another spelling")?;
                Value::Decimal(text)
            }
            4 => date(&mut reader)?,
            _ => return Err(Refused("an unknown kind of value")),
        });
    }
    Ok(values)
}

fn unescape(reader: &mut Reader<'_>) -> Checked<String> {
    let mut text = Vec::new();
    loop {
        match reader.u8()? {
            0 => match reader.u8()? {
                0 => break,
                0xff => text.push(0),
                _ => return Err(Refused("a wrong escape in a key")),
            },
            byte => text.push(byte),
        }
    }
    String::from_utf8(text).map_err(|_| Refused("text that is not UTF-8"))
}

/// The key that these values make.
pub fn encode_key(values: &[Value]) -> Vec<u8> {
    let mut key = Vec::new();
    let escaped = |key: &mut Vec<u8>, text: &str| {
        for byte in text.bytes() {
            key.push(byte);
            if byte == 0 {
                key.push(0xff);
            }
        }
        key.extend([0, 0]);
    };
    for value in values {
        match value {
            Value::Null => key.push(0),
            Value::Text(text) => {
                key.push(1);
                escaped(&mut key, text);
            }
            Value::Integer(number) => {
                key.push(2);
                key.extend((number.cast_unsigned() ^ 1 << 63).to_be_bytes());
            }
            Value::Decimal(text) => {
                key.push(3);
                escaped(&mut key, text);
            }
            Value::Date { year, month, day } => {
                key.push(4);
                key.extend(year.to_be_bytes());
                key.extend([*month, *day]);
            }
        }
    }
    key
}

/// The record that these values make.
pub fn encode(version: u32, values: &[Value]) -> Vec<u8> {
    let mut record = version.to_be_bytes().to_vec();
    let count = u16::try_from(values.len()).expect("a record has few fields");
    record.extend(count.to_be_bytes());
    for value in values {
        match value {
            Value::Null => record.push(0),
            Value::Text(text) => {
                record.push(1);
                super::reader::write_bytes(&mut record, text.as_bytes());
            }
            Value::Integer(number) => {
                record.push(2);
                record.extend(number.to_be_bytes());
            }
            Value::Decimal(text) => {
                record.push(3);
                super::reader::write_bytes(&mut record, text.as_bytes());
            }
            Value::Date { year, month, day } => {
                record.push(4);
                record.extend(year.to_be_bytes());
                record.extend([*month, *day]);
            }
        }
    }
    record
}

/// How exports spell a value.
pub fn canonical_text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Text(text) | Value::Decimal(text) => text.clone(),
        Value::Integer(number) => number.to_string(),
        Value::Date { year, month, day } => format!("{year:04}-{month:02}-{day:02}"),
    }
}
