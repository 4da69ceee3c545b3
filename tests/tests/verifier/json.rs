//! JSON (RFC 8259) as bodies of `_federation` hold it: section 11 of
//! `protocol/SPEC.md`. A member that comes twice is refused wherever it stands.
//!
//! A reader of its own, so that what a library takes or refuses is not the rule.

use std::collections::BTreeMap;

use super::{Checked, Refused, ensure};

/// How deep values may lie inside each other: a reader needs some bound.
pub const DEPTH_MAX: usize = 127;

/// A value; a number is kept as it is spelled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Json {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    List(Vec<Json>),
    Object(BTreeMap<String, Json>),
}

impl Json {
    /// All of a text.
    pub fn read(text: &str) -> Checked<Self> {
        let mut reader = Reader { rest: text, depth: 0 };
        let value = reader.value()?;
        reader.space();
        ensure(reader.rest.is_empty(), "something behind the JSON")?;
        Ok(value)
    }

    pub fn as_text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    pub fn as_bool(&self) -> Option<bool> {
        if let Self::Bool(value) = self { Some(*value) } else { None }
    }

    pub fn as_list(&self) -> Option<&[Self]> {
        if let Self::List(list) = self { Some(list) } else { None }
    }

    /// A number without a fraction, an exponent, or a sign before a zero.
    pub fn as_integer<T: std::str::FromStr>(&self) -> Option<T> {
        let Self::Number(number) = self else { return None };
        let digits = number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
        if digits && number != "-0" { number.parse().ok() } else { None }
    }

    /// A member of an object, unless it is `null`.
    pub fn member(&self, name: &str) -> Option<&Self> {
        let Self::Object(members) = self else { return None };
        members.get(name).filter(|value| **value != Self::Null)
    }

    /// Whether a member is there and `is` what it has to be.
    pub fn has(&self, name: &str, is: impl Fn(&Self) -> bool) -> bool {
        self.member(name).is_some_and(is)
    }

    /// The same of one that may be left out.
    pub fn may_have(&self, name: &str, is: impl Fn(&Self) -> bool) -> bool {
        let Self::Object(members) = self else { return false };
        members.get(name).is_none_or(is)
    }

    /// The same of one that may also be `null` instead.
    pub fn may_have_or_null(&self, name: &str, is: impl Fn(&Self) -> bool) -> bool {
        self.member(name).is_none_or(is)
    }

    /// A boolean that is false where it is left out: so `null` is none.
    pub fn flag(&self, name: &str) -> Option<bool> {
        let Self::Object(members) = self else { return None };
        members.get(name).map_or(Some(false), Self::as_bool)
    }

    /// Whether an object has no other members than these.
    pub fn has_only(&self, names: &[&str]) -> bool {
        let Self::Object(members) = self else { return false };
        members.keys().all(|name| names.contains(&&name[..]))
    }

    /// All items, if each is a text.
    pub fn as_texts(&self) -> Option<Vec<&str>> {
        self.as_list()?.iter().map(Self::as_text).collect()
    }
}

struct Reader<'a> {
    rest: &'a str,
    depth: usize,
}

impl Reader<'_> {
    fn space(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    /// Takes `word` if it comes next.
    fn takes(&mut self, word: &str) -> bool {
        let rest = self.rest.strip_prefix(word);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// Takes `mark` if it comes next, behind white space.
    fn mark(&mut self, mark: &str) -> bool {
        self.space();
        self.takes(mark)
    }

    fn value(&mut self) -> Checked<Json> {
        self.space();
        Ok(match self.peek() {
            Some('{') => self.inside(Self::object)?,
            Some('[') => self.inside(Self::list)?,
            Some('"') => Json::Text(self.text()?),
            Some('-' | '0'..='9') => Json::Number(self.number()?),
            _ if self.takes("null") => Json::Null,
            _ if self.takes("true") => Json::Bool(true),
            _ if self.takes("false") => Json::Bool(false),
            _ => return Err(Refused("no JSON")),
        })
    }

    fn inside(&mut self, read: fn(&mut Self) -> Checked<Json>) -> Checked<Json> {
        ensure(self.depth < DEPTH_MAX, "JSON that is too deep")?;
        self.rest = &self.rest[1..];
        self.depth += 1;
        let value = read(self)?;
        self.depth -= 1;
        Ok(value)
    }

    fn list(&mut self) -> Checked<Json> {
        let mut items = Vec::new();
        if self.mark("]") {
            return Ok(Json::List(items));
        }
        loop {
            items.push(self.value()?);
            if self.mark("]") {
                return Ok(Json::List(items));
            }
            ensure(self.mark(","), "no comma between items")?;
        }
    }

    fn object(&mut self) -> Checked<Json> {
        let mut members = BTreeMap::new();
        if self.mark("}") {
            return Ok(Json::Object(members));
        }
        loop {
            self.space();
            let name = self.text()?;
            ensure(self.mark(":"), "no colon behind a name")?;
            let value = self.value()?;
            ensure(members.insert(name, value).is_none(), "a member that comes twice")?;
            if self.mark("}") {
                return Ok(Json::Object(members));
            }
            ensure(self.mark(","), "no comma between members")?;
        }
    }

    fn digits(&mut self) -> Checked<()> {
        let rest = self.rest.trim_start_matches(|c: char| c.is_ascii_digit());
        ensure(rest.len() < self.rest.len(), "a number without digits")?;
        self.rest = rest;
        Ok(())
    }

    fn number(&mut self) -> Checked<String> {
        let all = self.rest;
        self.takes("-");
        // A zero in front stands alone.
        if !self.takes("0") {
            self.digits()?;
        }
        if self.takes(".") {
            self.digits()?;
        }
        if self.takes("e") || self.takes("E") {
            let _sign = self.takes("+") || self.takes("-");
            self.digits()?;
        }
        let number = &all[..all.len() - self.rest.len()];
        let is_held = number.parse().is_ok_and(f64::is_finite);
        ensure(is_held, "a number that no binary64 holds")?;
        Ok(number.to_owned())
    }

    fn text(&mut self) -> Checked<String> {
        ensure(self.takes("\""), "no text")?;
        let mut text = String::new();
        loop {
            let c = self.peek().ok_or(Refused("a text without an end"))?;
            self.rest = &self.rest[c.len_utf8()..];
            match c {
                '"' => return Ok(text),
                '\\' => text.push(self.escaped()?),
                '\0'..='\u{1f}' => return Err(Refused("a control character in a text")),
                c => text.push(c),
            }
        }
    }

    fn escaped(&mut self) -> Checked<char> {
        let c = self.peek().ok_or(Refused("a text without an end"))?;
        self.rest = &self.rest[c.len_utf8()..];
        Ok(match c {
            '"' | '\\' | '/' => c,
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => self.unit()?,
            _ => return Err(Refused("an unknown escape")),
        })
    }

    /// What stands behind `\u`; beyond the basic plane a second one belongs to it.
    fn unit(&mut self) -> Checked<char> {
        let mut units = vec![self.four_digits()?];
        if (0xd800..0xdc00).contains(&units[0]) && self.takes("\\u") {
            units.push(self.four_digits()?);
        }
        let mut read = char::decode_utf16(units);
        match (read.next(), read.next()) {
            (Some(Ok(c)), None) => Ok(c),
            _ => Err(Refused("half a character")),
        }
    }

    fn four_digits(&mut self) -> Checked<u16> {
        let digits = self.rest.get(..4).ok_or(Refused("a short escape"))?;
        ensure(digits.bytes().all(|byte| byte.is_ascii_hexdigit()), "a wrong escape")?;
        self.rest = &self.rest[4..];
        u16::from_str_radix(digits, 16).map_err(|_| Refused("a wrong escape"))
    }
}
