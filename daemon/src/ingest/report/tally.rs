//! What is to be told of rows, counted by rule and field.
//!
//! Filled beside the rows on all cores, one [`Tally`] a batch, and merged in the
//! delivery's order; [`Details`] of it stand in the report. Invariants: what comes
//! out does not depend on where batches end; nothing is kept of a row beyond the
//! first [`PLACES_MAX`] of a kind, so memory does not grow with the delivery;
//! samples are masked before they arrive here. Not here: rejected rows as they
//! were delivered (`rejects`).

use serde::{Deserialize, Serialize};

use super::{
    super::{
        rows::{Place, RowNote, RowProblem},
        validate::{RowIssue, Rule, Severity},
    },
    describe::Describer,
    place::place_name,
};

/// Rows of a kind that are named: enough to find what they have in common.
pub const PLACES_MAX: usize = 10;
/// Kinds that are counted apart. A dataset has some dozens of fields and a field
/// runs into a few rules; a file with more kinds is wrong throughout.
const KINDS_MAX: usize = 512;
/// Kinds that a report lists, the most frequent ones: it is read by people, and
/// what is left out is counted.
const LISTED_MAX: usize = 64;
/// The rule under which everything beyond the limits is counted.
const MORE: &str = "more";

/// Problems of one kind in a delivery.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct Details {
    /// The rule's stable name.
    pub rule: String,
    /// The field's name; none where it is the row as a whole.
    pub field: Option<String>,
    /// The field's Chinese title.
    pub title: Option<String>,
    /// How many there are.
    pub count: u64,
    /// The first places: a line, with the row of a spreadsheet where that differs,
    /// or a part's name and a row.
    pub places: Vec<String>,
    /// Of rows whose key comes again: where the rows stand that count.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub winners: Vec<String>,
    /// The first value, masked where it may be personal.
    pub sample: Option<String>,
    /// What is wrong and what to do, of the first one, in Chinese.
    pub zh: String,
    /// The same in English.
    pub en: String,
}

/// Counts by severity, rule and field.
#[derive(Debug, Default)]
pub(in crate::ingest) struct Tally {
    kinds: Vec<Kind>,
    /// Problems of kinds that there was no room for: warnings, and rejects.
    more: [u64; 2],
}

#[derive(Debug, Clone)]
struct Kind {
    severity: Severity,
    code: &'static str,
    field: Box<str>,
    count: u64,
    places: Vec<Place>,
    winners: Vec<Place>,
    first: First,
    /// Others say something else.
    differ: bool,
}

/// What the first one of a kind says.
#[derive(Debug, Clone)]
struct First {
    sample: Option<String>,
    what: What,
}

/// What is wrong, or odd.
#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    Value(Rule),
    Row(RowProblem),
    Said([&'static str; 2]),
}

impl What {
    fn words(&self) -> [String; 2] {
        match self {
            What::Value(rule) => [rule.zh(), rule.en()],
            What::Row(problem) => [problem.zh(), problem.en()],
            What::Said(words) => words.map(str::to_owned),
        }
    }
}

impl Tally {
    /// A value's problem.
    pub fn add_issue(&mut self, place: Place, issue: &RowIssue) {
        let sample = || (!issue.value.is_empty()).then(|| issue.value.clone());
        let first = || First { sample: sample(), what: What::Value(issue.rule.clone()) };
        let same = |what: &What| matches!(what, What::Value(rule) if *rule == issue.rule);
        self.add((issue.severity, issue.rule.code(), &issue.field), place, 1, (first, same));
    }

    /// A line that is no row.
    pub fn add_malformed(&mut self, place: Place, problem: &RowProblem) {
        let first = || First { sample: None, what: What::Row(problem.clone()) };
        let same = |what: &What| matches!(what, What::Row(first) if first == problem);
        self.add((Severity::Reject, problem.code(), ""), place, 1, (first, same));
    }

    /// How often a rule was met by a field; by the row as a whole without one.
    pub fn count(&self, code: &str, field: &str) -> u64 {
        let met = self.kinds.iter().filter(|kind| kind.code == code && *kind.field == *field);
        met.map(|kind| kind.count).sum()
    }

    /// A row that was read, and is odd.
    pub fn add_odd(&mut self, place: Place, note: RowNote) {
        let first = || First { sample: None, what: What::Said([note.zh(), note.en()]) };
        self.add((Severity::Warning, note.code(), ""), place, 1, (first, |_: &What| true));
    }

    /// `count` rows of one key, the first of which stand at `places`; the row at
    /// `winner` counts.
    pub fn add_duplicates(&mut self, places: &[Place], count: u64, winner: Place, differing: bool) {
        let (code, zh, en) = if differing {
            (
                "duplicate-differing",
                "同一主键再次出现且内容不同，以后出现的行为准；请核对哪一行是对的",
                "the same key comes again and differs; the later row counts: check which one is right",
            )
        } else {
            (
                "duplicate",
                "同一主键再次出现且内容相同，以后出现的行为准；无需处理",
                "the same key comes again and is equal; the later row counts: nothing to do",
            )
        };
        let first = || First { sample: None, what: What::Said([zh, en]) };
        let Some((place, others)) = places.split_first() else {
            return;
        };
        let kind = (Severity::Warning, code, "");
        let Some(kind) = self.add(kind, *place, count, (first, |_: &What| true)) else {
            return;
        };
        if kind.winners.len() < kind.places.len() {
            kind.winners.push(winner);
        }
        for place in others.iter().take(PLACES_MAX - kind.places.len()) {
            kind.places.push(*place);
            kind.winners.push(winner);
        }
    }

    fn add(
        &mut self,
        (severity, code, field): (Severity, &'static str, &str),
        place: Place,
        count: u64,
        (first, same): (impl FnOnce() -> First, impl FnOnce(&What) -> bool),
    ) -> Option<&mut Kind> {
        let at = match self.find(severity, code, field) {
            Some(at) => {
                let kind = &mut self.kinds[at];
                kind.differ = kind.differ || !same(&kind.first.what);
                at
            }
            None if self.kinds.len() == KINDS_MAX => {
                self.more[severity as usize] += count;
                return None;
            }
            None => {
                self.kinds.push(Kind {
                    severity,
                    code,
                    field: field.into(),
                    count: 0,
                    places: Vec::new(),
                    winners: Vec::new(),
                    first: first(),
                    differ: false,
                });
                self.kinds.len() - 1
            }
        };
        let kind = &mut self.kinds[at];
        kind.count += count;
        if kind.places.len() < PLACES_MAX {
            kind.places.push(place);
        }
        Some(kind)
    }

    /// Few kinds are frequent, and those come first as a rule.
    fn find(&self, severity: Severity, code: &str, field: &str) -> Option<usize> {
        let same =
            |kind: &Kind| kind.code == code && &*kind.field == field && kind.severity == severity;
        self.kinds.iter().position(same)
    }

    /// Adds what comes behind it in the delivery.
    pub fn merge(&mut self, later: &Self) {
        for kind in &later.kinds {
            match self.find(kind.severity, kind.code, &kind.field) {
                Some(at) => {
                    let known = &mut self.kinds[at];
                    known.count += kind.count;
                    known.differ |= kind.differ || known.first.what != kind.first.what;
                    let room = PLACES_MAX - known.places.len();
                    known.places.extend(kind.places.iter().take(room));
                    known.winners.extend(kind.winners.iter().take(room));
                }
                None if self.kinds.len() == KINDS_MAX => {
                    self.more[kind.severity as usize] += kind.count;
                }
                None => self.kinds.push(kind.clone()),
            }
        }
        for (more, later) in self.more.iter_mut().zip(later.more) {
            *more += later;
        }
    }

    /// What there is of one severity, the most frequent first.
    pub fn details(
        &self,
        severity: Severity,
        describer: Option<&Describer>,
        parts: &[String],
    ) -> Vec<Details> {
        let names = |places: &[Place]| places.iter().map(|at| place_name(*at, parts)).collect();
        let mut kinds: Vec<&Kind> =
            self.kinds.iter().filter(|kind| kind.severity == severity).collect();
        // Stable: equal counts stay in the order of their first places.
        kinds.sort_by_key(|kind| std::cmp::Reverse(kind.count));
        let listed = kinds.len().min(LISTED_MAX);
        let more: u64 = kinds[listed..].iter().map(|kind| kind.count).sum();
        let more = more + self.more[severity as usize];
        let details = kinds[..listed].iter().map(|kind| {
            let [mut zh, mut en] = kind.first.what.words();
            if kind.differ {
                zh.push_str("（这是第一处的情况，其他行可能不同）");
                en.push_str(" (that is the first one; others may differ)");
            }
            let mut places = kind.places.clone();
            if kind.winners.is_empty() {
                // What is rejected late comes behind the others.
                places.sort_unstable();
            }
            let title = describer.and_then(|describer| describer.title(&kind.field));
            Details {
                rule: kind.code.to_owned(),
                field: (!kind.field.is_empty()).then(|| kind.field.to_string()),
                title: title.map(str::to_owned),
                count: kind.count,
                places: names(&places),
                winners: names(&kind.winners),
                sample: kind.first.sample.clone(),
                zh,
                en,
            }
        });
        let rest = (more > 0).then(|| Details {
            rule: MORE.into(),
            field: None,
            title: None,
            count: more,
            places: Vec::new(),
            winners: Vec::new(),
            sample: None,
            zh: "其他种类的问题，未逐一列出".into(),
            en: "problems of other kinds, which are not listed".into(),
        });
        details.chain(rest).collect()
    }
}
