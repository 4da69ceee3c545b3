//! Where a JSON file's elements begin and end.
//!
//! Used by [`super::JsonFile`]. Brackets are counted outside of texts; nothing is
//! understood. Invariants: an element that is handed on has at most
//! [`ROW_BYTES_MAX`] bytes, of a longer one nothing is kept; each byte of the file
//! is looked at once, but for what a broken element had swallowed ([`SWALLOWED_MAX`]). A
//! text cannot hold a line end in JSON, so an unclosed quote reaches no further than its
//! line, and where a record begins on that, no further than that. Not here: what an element holds
//! ([`super::object`]).

use std::io;

use serde::de::IgnoredAny;

use super::{
    bytes::Bytes,
    object::Text,
    shape::{Layout, Shape},
};
use crate::sources::texts::ROW_BYTES_MAX;

/// Bytes that are looked at again, because a broken element had swallowed them: some
/// thousand records. A file with more is wrong throughout, and would cost time.
const SWALLOWED_MAX: usize = 16 * ROW_BYTES_MAX;

/// What was found.
pub(super) enum Element<'a> {
    Value(Text<'a>),
    /// An element that is longer than allowed.
    TooLong {
        line: u64,
    },
    /// The file ends within an element, or within the array.
    Cut {
        line: u64,
    },
    /// The array has ended, and what follows belongs to nothing that was open.
    More {
        line: u64,
    },
}

impl Element<'_> {
    /// The physical line on which it begins, from 1.
    pub(super) fn line(&self) -> u64 {
        match self {
            Element::Value(text) => text.line,
            Element::TooLong { line } | Element::Cut { line } | Element::More { line } => *line,
        }
    }
}

pub(super) struct Elements {
    bytes: Bytes,
    shape: Shape,
    /// Bytes of the buffer that belong to the element handed on last.
    handed_on: usize,
    ended: bool,
    /// Bytes that may still be looked at again.
    swallowed_left: usize,
}

impl Elements {
    pub(super) fn new(bytes: Bytes, shape: Shape) -> io::Result<Self> {
        Self { bytes, shape, handed_on: 0, ended: false, swallowed_left: SWALLOWED_MAX }.again()
    }

    /// The same from the first element on.
    pub(super) fn again(self) -> io::Result<Self> {
        let mut bytes = self.bytes.again()?;
        // To the place behind the array's bracket.
        let mut left = self.shape.begins_at;
        while left > 0 && bytes.peek()?.is_some() {
            let count = bytes.unread().len().min(usize::try_from(left).unwrap_or(usize::MAX));
            bytes.consume(count);
            left -= count as u64;
        }
        Ok(Self {
            bytes,
            shape: self.shape,
            handed_on: 0,
            ended: false,
            swallowed_left: SWALLOWED_MAX,
        })
    }

    pub(super) fn bytes_read(&self) -> u64 {
        self.bytes.read()
    }

    #[cfg(test)]
    pub(super) fn buffer_bytes(&self) -> usize {
        self.bytes.buffer_bytes()
    }

    pub(super) fn encoding(&self) -> &'static str {
        self.bytes.encoding()
    }

    /// The next element; none at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<Element<'_>>> {
        self.bytes.consume(std::mem::take(&mut self.handed_on));
        if self.ended {
            return Ok(None);
        }
        if !self.skip_to_element()? {
            self.ended = true;
            return match self.shape.layout {
                Layout::Array => self.behind_array(),
                _ => Ok(None),
            };
        }
        if self.bytes.peek()?.is_none() {
            self.ended = true;
            return Ok(Some(Element::Cut { line: self.bytes.line() }));
        }
        let line = self.bytes.line();
        let mut scan = Scan::new(self.shape.layout);
        let (mut at, mut too_long) = (0, false);
        loop {
            let data = self.bytes.unread();
            let end = scan.end(&data[at..]);
            at += end.unwrap_or(data.len() - at);
            let at_end = self.bytes.is_at_end() && at == data.len();
            too_long |= at > ROW_BYTES_MAX;
            if end.is_some() || (at_end && scan.may_end_here()) {
                break;
            }
            if at_end {
                if !too_long && let Some(end) = self.give_back(at) {
                    self.handed_on = end;
                    return Ok(Some(Element::Value(Text {
                        line,
                        bytes: &self.bytes.unread()[..end],
                    })));
                }
                // With its last bracket the file is whole, and only this record is not.
                let is_whole = |bytes: &[u8]| {
                    let last = bytes.iter().rev().find(|byte| !byte.is_ascii_whitespace());
                    (scan.in_text || scan.broken) && last == Some(&b']')
                };
                if !too_long && is_whole(&self.bytes.unread()[..at]) {
                    (self.handed_on, self.ended) = (at, true);
                    return Ok(Some(Element::Value(Text {
                        line,
                        bytes: &self.bytes.unread()[..at],
                    })));
                }
                self.bytes.consume(at);
                self.ended = true;
                return Ok(Some(Element::Cut { line }));
            }
            if too_long {
                // Brackets may only be hidden by an odd quote.
                let is_wrong = |bytes: &[u8]| {
                    serde_json::from_slice::<IgnoredAny>(bytes).is_err_and(|error| !error.is_eof())
                };
                if let Some(end) =
                    self.give_back(at).filter(|end| is_wrong(&self.bytes.unread()[..*end]))
                {
                    self.handed_on = end;
                    return Ok(Some(Element::Value(Text {
                        line,
                        bytes: &self.bytes.unread()[..end],
                    })));
                }
                self.bytes.consume(at);
                at = 0;
            }
            self.bytes.fill()?;
        }
        self.handed_on = at;
        if too_long {
            return Ok(Some(Element::TooLong { line }));
        }
        let element = &self.bytes.unread()[..at];
        let is_broken = || serde_json::from_slice::<IgnoredAny>(element).is_err();
        if self.shape.layout != Layout::Lines
            && boundary(element).is_some()
            && is_broken()
            && let Some(end) = self.give_back(at)
        {
            self.handed_on = end;
        }
        Ok(Some(Element::Value(Text { line, bytes: &self.bytes.unread()[..self.handed_on] })))
    }

    /// Where a broken element of `length` bytes ends, if it has swallowed others that
    /// may be looked at again.
    fn give_back(&mut self, length: usize) -> Option<usize> {
        if self.shape.layout == Layout::Lines {
            return None;
        }
        let end = boundary(&self.bytes.unread()[..length])?;
        self.swallowed_left = self.swallowed_left.checked_sub(length - end)?;
        Some(end)
    }

    /// Goes on to where an element begins; answers whether there may be one: at the
    /// end of the file an array is cut, and lines are at their end.
    fn skip_to_element(&mut self) -> io::Result<bool> {
        loop {
            match (self.bytes.peek()?, self.shape.layout) {
                (Some(byte), _) if byte.is_ascii_whitespace() || byte == 0x1e => {}
                (Some(b','), Layout::Array | Layout::Sequence) => {}
                (Some(b']'), Layout::Array) => return Ok(false),
                (Some(_), _) | (None, Layout::Array) => return Ok(true),
                (None, _) => return Ok(false),
            }
            self.bytes.consume(1);
        }
    }
}

impl Elements {
    /// What stands behind the array: the rest of the object around it, and nothing
    /// else.
    fn behind_array(&mut self) -> io::Result<Option<Element<'_>>> {
        let line = self.bytes.line();
        self.bytes.consume(1);
        let (mut depth, mut in_text, mut escaped) = (self.shape.depth, false, false);
        while let Some(byte) = self.bytes.peek()? {
            match byte {
                b'\n' => (in_text, escaped) = (false, false),
                _ if escaped => escaped = false,
                b'\\' if in_text => escaped = true,
                b'"' if depth > 0 => in_text = !in_text,
                _ if in_text || byte.is_ascii_whitespace() || matches!(byte, 0 | 0x1a) => {}
                _ if depth == 0 => return Ok(Some(Element::More { line })),
                b'{' | b'[' => depth = depth.saturating_add(1),
                b'}' | b']' => depth -= 1,
                _ => {}
            }
            self.bytes.consume(1);
        }
        Ok((depth > 0).then_some(Element::Cut { line }))
    }
}

/// Where the first record ends in what was taken for one, if another seems to begin
/// behind it: `},{"`, with or without blanks, where all brackets are closed. Whether
/// they stand in texts is what is not known here.
fn boundary(element: &[u8]) -> Option<usize> {
    let (mut depth, mut at) = (0i64, 0);
    loop {
        let end = loop {
            let byte = element.get(at)?;
            at += 1;
            match byte {
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth -= 1,
                _ => {}
            }
            if *byte == b'}' && depth == 0 {
                break at;
            }
        };
        let mut behind = element[end..].iter().filter(|byte| !byte.is_ascii_whitespace());
        if [b',', b'{', b'"'].iter().all(|expected| behind.next() == Some(expected)) {
            return Some(end);
        }
    }
}

/// How far an element was looked at.
struct Scan {
    layout: Layout,
    depth: u32,
    in_text: bool,
    escaped: bool,
    /// A text was broken off by a line end, and nothing but blanks followed.
    broken: bool,
    begun: bool,
}

impl Scan {
    fn new(layout: Layout) -> Self {
        Self { layout, depth: 0, in_text: false, escaped: false, broken: false, begun: false }
    }

    /// Whether the file may end where nothing more was found: a line without its
    /// end, a number at the end.
    fn may_end_here(&self) -> bool {
        self.layout == Layout::Lines || (self.depth == 0 && !self.in_text)
    }

    /// Where the element ends in what follows what was looked at before.
    fn end(&mut self, data: &[u8]) -> Option<usize> {
        if self.layout == Layout::Lines {
            return data.iter().position(|byte| *byte == b'\n');
        }
        for (at, byte) in data.iter().enumerate() {
            let begun = std::mem::replace(&mut self.begun, true);
            if self.in_text {
                match byte {
                    b'\n' => (self.in_text, self.escaped, self.broken) = (false, false, true),
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => {
                        self.in_text = false;
                        if self.depth == 0 {
                            return Some(at + 1);
                        }
                    }
                    _ => {}
                }
                continue;
            }
            if self.broken {
                match byte {
                    // The quote had swallowed the bracket that ends the element.
                    b'{' | b']' if self.depth <= 1 => return Some(at),
                    b',' | b' ' | b'\t' | b'\r' | b'\n' => continue,
                    _ => self.broken = false,
                }
            }
            match byte {
                b'"' => self.in_text = true,
                b'{' | b'[' => self.depth = self.depth.saturating_add(1),
                b'}' | b']' if self.depth > 0 => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        return Some(at + 1);
                    }
                }
                b',' if self.depth > 0 => {}
                // Behind a number or a word. At its front it is an element by itself,
                // so that there is an end to it.
                b']' | b'}' | b',' if begun => return Some(at),
                b']' | b'}' | b',' => return Some(at + 1),
                _ if byte.is_ascii_whitespace() && self.depth == 0 => return Some(at),
                _ => {}
            }
        }
        None
    }
}
