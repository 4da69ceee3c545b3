//! How a JSON file lays out its records.
//!
//! Used by [`super::JsonFile::open`]. Invariant: an array is chosen only if it is
//! the only one of objects outside of other arrays; nothing is guessed. Not here:
//! where an element ends ([`super::elements`]).

use std::io;

use super::{bytes::Bytes, error::JsonError};
use crate::sources::texts::ROW_BYTES_MAX;

/// Arrays that are named in a message, where there are too many.
const NAMES_SHOWN: usize = 5;
/// Longest name that is shown, in characters.
const NAME_CHARS_SHOWN: usize = 40;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// One element a physical line.
    Lines,
    /// Elements between commas, up to a closing bracket.
    Array,
    /// One element after the other.
    Sequence,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) layout: Layout,
    /// Bytes of UTF-8 in front of the first element.
    pub(super) begins_at: u64,
    /// Objects that are open around the array.
    pub(super) depth: u32,
}

impl Shape {
    /// Finds it; `bytes` stand at their front before and anywhere after.
    pub(super) fn find(bytes: &mut Bytes, name: &str) -> Result<Self, JsonError> {
        let lower = name.to_ascii_lowercase();
        if lower.ends_with(".jsonl") || lower.ends_with(".ndjson") {
            return Ok(Self { layout: Layout::Lines, begins_at: 0, depth: 0 });
        }
        let mut at = 0;
        while bytes.peek()?.is_some_and(|byte| byte.is_ascii_whitespace()) {
            bytes.consume(1);
            at += 1;
        }
        match bytes.peek()? {
            None => Err(JsonError::NoRecords),
            Some(b'[') => {
                bytes.consume(1);
                let shape = Self { layout: Layout::Array, begins_at: at + 1, depth: 0 };
                match next_mark(bytes)? {
                    None | Some(b'{') => Ok(shape),
                    Some(b']') => Err(JsonError::NoRecords),
                    Some(_) => Err(JsonError::NotObjects),
                }
            }
            Some(_) if are_lines(bytes)? => {
                Ok(Self { layout: Layout::Lines, begins_at: 0, depth: 0 })
            }
            Some(_) => the_array(bytes, at),
        }
    }
}

/// The next byte that is not blank.
fn next_mark(bytes: &mut Bytes) -> io::Result<Option<u8>> {
    while bytes.peek()?.is_some_and(|byte| byte.is_ascii_whitespace()) {
        bytes.consume(1);
    }
    bytes.peek()
}

/// Whether the first two lines that are not blank are objects, or begin and end
/// like some. Nothing is consumed.
fn are_lines(bytes: &mut Bytes) -> io::Result<bool> {
    loop {
        let data = bytes.unread();
        let mut lines = data.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
        let first = lines.next().unwrap_or_default();
        let second = lines.find(|line| !line.is_empty());
        let whole = bytes.is_at_end() || data.len() >= 2 * ROW_BYTES_MAX;
        match second {
            Some(second) => {
                // The first line of an object over several lines ends otherwise.
                let closed = first.len() > 1 && first.ends_with(b"}");
                return Ok(closed && second.starts_with(b"{"));
            }
            None if whole => return Ok(false),
            None => bytes.fill()?,
        }
    }
}

/// The only array of objects within an object; where there is none, the objects
/// themselves are the records.
fn the_array(bytes: &mut Bytes, mut at: u64) -> Result<Shape, JsonError> {
    let begins_at = at;
    let mut found: Vec<(u64, u32, String)> = Vec::new();
    // Arrays that are open, and whether the last thing outside of texts was the
    // opening of the outermost.
    let (mut arrays, mut opened) = (0u32, None);
    let mut objects = 0u32;
    let (mut in_text, mut escaped) = (false, false);
    // The last text outside of arrays: a name, where an array follows.
    let (mut text, mut name) = (Vec::new(), Vec::new());
    loop {
        let data = bytes.unread();
        if data.is_empty() {
            if bytes.is_at_end() {
                break;
            }
            bytes.fill()?;
            continue;
        }
        for byte in data {
            at += 1;
            if in_text {
                match byte {
                    b'\n' => (in_text, escaped) = (false, false),
                    _ if escaped => escaped = false,
                    b'\\' => escaped = true,
                    b'"' => {
                        in_text = false;
                        std::mem::swap(&mut text, &mut name);
                    }
                    _ if arrays == 0 && text.len() < NAME_CHARS_SHOWN * 4 => text.push(*byte),
                    _ => {}
                }
                continue;
            }
            if byte.is_ascii_whitespace() {
                continue;
            }
            if let Some((place, depth)) = opened.take()
                && *byte == b'{'
                && found.len() <= NAMES_SHOWN
            {
                found.push((place, depth, shown(&name)));
            }
            match byte {
                b'"' => {
                    in_text = true;
                    if arrays == 0 {
                        text.clear();
                    }
                }
                b'[' => {
                    if arrays == 0 {
                        opened = Some((at, objects));
                    }
                    arrays = arrays.saturating_add(1);
                }
                b']' => arrays = arrays.saturating_sub(1),
                b'{' => objects = objects.saturating_add(1),
                b'}' => objects = objects.saturating_sub(1),
                _ => {}
            }
        }
        let count = data.len();
        bytes.consume(count);
    }
    match found.as_slice() {
        [] => Ok(Shape { layout: Layout::Sequence, begins_at, depth: 0 }),
        [(begins_at, depth, _)] => {
            Ok(Shape { layout: Layout::Array, begins_at: *begins_at, depth: *depth })
        }
        several => {
            let mut names: Vec<&str> =
                several.iter().take(NAMES_SHOWN).map(|(_, _, name)| name.as_str()).collect();
            if several.len() > NAMES_SHOWN {
                names.push("…");
            }
            Err(JsonError::SeveralArrays { names: names.join(", ") })
        }
    }
}

fn shown(name: &[u8]) -> String {
    let name = String::from_utf8_lossy(name);
    name.chars().filter(|c| !c.is_control()).take(NAME_CHARS_SHOWN).collect()
}
