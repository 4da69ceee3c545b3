//! JSON that can be altered anywhere: members left out, twice, renamed or of another
//! kind, lists of other lengths. For bodies of `_federation`.

use std::fmt;

use harness::sim::rng::Rng;
use serde_json::Value;

/// What is put in a place where something else belongs.
const ODD: [&str; 56] = [
    "null",
    "true",
    "false",
    "0",
    "1",
    "2",
    "-1",
    "-0",
    "1.0",
    "1e2",
    "1e999",
    "01",
    "64",
    "65535",
    "65536",
    "9999",
    "10000",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "123456789012345678901234567890.5",
    "\"\"",
    "\"x\"",
    "\" \"",
    "\"1\"",
    "\"Hub\"",
    "\"\\u0000\"",
    "\"a\\u200bb\"",
    "\"a\\u2028b\"",
    "\"a\\u0085b\"",
    "\"a\tb\"",
    "\"\\ud83d\\ude00\"",
    "\"\\ud83d\"",
    "\"*\"",
    "\"(必填)\"",
    "\"2019-02-28\"",
    "\"2019-02-29\"",
    "\"0000-01-01\"",
    "\"9999-12-31\"",
    "\"2019-2-28\"",
    "\"date\"",
    "\"ymd\"",
    "\"retired\"",
    "\"0A\"",
    "\"0a\"",
    "[]",
    "[\"x\"]",
    "[null]",
    "{}",
    "[1900, 2100]",
    "{\"date\": null}",
    "{\"ymd\": null}",
    "{\"active\": null}",
];

/// How long a list or a text is made: bounds of the page, and one more.
const LENGTHS: [usize; 10] = [8, 9, 63, 64, 65, 128, 129, 256, 257, 1025];

/// A value whose leaves are texts of JSON, right or not.
#[derive(Debug, Clone)]
pub enum Node {
    Leaf(String),
    List(Vec<Node>),
    Object(Vec<(String, Node)>),
}

impl Node {
    pub fn of(value: &Value) -> Self {
        match value {
            Value::Array(items) => Self::List(items.iter().map(Self::of).collect()),
            Value::Object(members) => Self::Object(
                members.iter().map(|(name, own)| (name.clone(), Self::of(own))).collect(),
            ),
            leaf => Self::Leaf(leaf.to_string()),
        }
    }

    /// Alters one place.
    pub fn alter(&mut self, rng: &mut Rng) {
        let at = rng.index(self.count());
        self.alter_at(rng, at);
    }

    fn count(&self) -> usize {
        let below: usize = match self {
            Self::Leaf(_) => 0,
            Self::List(items) => items.iter().map(Self::count).sum(),
            Self::Object(members) => members.iter().map(|(_, own)| own.count()).sum(),
        };
        1 + below
    }

    fn children(&mut self) -> Vec<&mut Self> {
        match self {
            Self::Leaf(_) => vec![],
            Self::List(items) => items.iter_mut().collect(),
            Self::Object(members) => members.iter_mut().map(|(_, own)| own).collect(),
        }
    }

    fn alter_at(&mut self, rng: &mut Rng, at: usize) {
        let Some(mut below) = at.checked_sub(1) else { return self.alter_here(rng) };
        for child in self.children() {
            let count = child.count();
            if below < count {
                return child.alter_at(rng, below);
            }
            below -= count;
        }
    }

    fn alter_here(&mut self, rng: &mut Rng) {
        match self {
            Self::Object(members) if rng.chance(95) => alter_members(rng, members),
            // Which some readers would take as well.
            Self::Object(members) if rng.chance(40) => {
                *self = Self::List(members.drain(..).map(|(_, own)| own).collect());
            }
            Self::List(items) if rng.chance(70) => alter_items(rng, items),
            Self::Leaf(text) if text.starts_with('"') && rng.chance(30) => {
                *text = altered(rng, text)
            }
            _ => *self = odd(rng),
        }
    }
}

fn odd(rng: &mut Rng) -> Node {
    Node::Leaf(ODD[rng.index(ODD.len())].to_owned())
}

/// A text that is longer, or has one character more or less.
fn altered(rng: &mut Rng, text: &str) -> String {
    let inner = &text[1..text.len() - 1];
    let inner = match rng.below(5) {
        0 => "x".repeat(LENGTHS[rng.index(LENGTHS.len())]),
        1 => "县".repeat(LENGTHS[rng.index(LENGTHS.len())] / 3),
        2 => inner.chars().skip(1).collect(),
        3 => inner.to_uppercase(),
        _ => format!("{inner}{}", ["0", " ", "\\n", "é", "-"][rng.index(5)]),
    };
    format!("\"{inner}\"")
}

fn alter_items(rng: &mut Rng, items: &mut Vec<Node>) {
    let place = (!items.is_empty()).then(|| rng.index(items.len()));
    match (rng.below(5), place) {
        (0, Some(place)) => _ = items.remove(place),
        (1, Some(place)) => items.push(items[place].clone()),
        (2, Some(place)) => items.swap(0, place),
        (3, Some(place)) => items.resize(LENGTHS[rng.index(LENGTHS.len())], items[place].clone()),
        (4, _) => items.push(odd(rng)),
        _ => items.clear(),
    }
}

fn alter_members(rng: &mut Rng, members: &mut Vec<(String, Node)>) {
    let place = (!members.is_empty()).then(|| rng.index(members.len()));
    match (rng.below(6), place) {
        (0 | 1, Some(place)) => _ = members.remove(place),
        (2, Some(place)) => members.push(members[place].clone()),
        (3, Some(place)) => members[place].0.push('s'),
        (4, Some(place)) => members.swap(0, place),
        _ => members.push(("other".to_owned(), odd(rng))),
    }
}

impl fmt::Display for Node {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Leaf(text) => to.write_str(text),
            Self::List(items) => {
                let items: Vec<String> = items.iter().map(Self::to_string).collect();
                write!(to, "[{}]", items.join(", "))
            }
            Self::Object(members) => {
                let members: Vec<String> =
                    members.iter().map(|(name, own)| format!("\"{name}\": {own}")).collect();
                write!(to, "{{{}}}", members.join(", "))
            }
        }
    }
}
