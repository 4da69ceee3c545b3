//! One thing that is wrong with a row, with what may be shown of the value.
//!
//! Used by the checks of `validate`, by the importer's report, and by whoever
//! shows a value that may be personal ([`mask`]). Invariant: no issue carries a
//! personal value or a citizen id unmasked. Not here: what the rules are
//! ([`super::rule`]).

use std::sync::Arc;

use protocol::text::{visible, visible_within};

use super::{
    citizen_id::{citizen_id, may_be_citizen_id},
    rule::Rule,
    text::fold,
};

/// Longest value shown in an issue, in characters: enough to find it, too
/// little to copy a register's contents into a report.
pub const SHOWN_CHARS_MAX: usize = 80;
/// Longest text that shows it: characters that nobody sees have long names, and a
/// value that consists of them is cut.
const VISIBLE_CHARS_MAX: usize = 2 * SHOWN_CHARS_MAX;

/// Whether an issue costs the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The row is not imported.
    Reject,
    /// The row is imported; somebody should look.
    Warning,
}

impl Severity {
    /// `reject` or `warning`.
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Reject => "reject",
            Severity::Warning => "warning",
        }
    }
}

/// One thing that is wrong with a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowIssue {
    /// Whether it costs the row.
    pub severity: Severity,
    /// The name of the schema's field, or empty where it is the row as a whole.
    pub field: Arc<str>,
    /// Its Chinese title, as people know the column.
    pub title: Arc<str>,
    /// The value as delivered: masked if personal, at most
    /// [`SHOWN_CHARS_MAX`] characters, those that nobody sees by name.
    pub value: String,
    /// What it ran into.
    pub rule: Rule,
}

/// Hides a personal value: at most its first four characters and never more
/// than a third of it stay.
pub fn mask(text: &str) -> String {
    // What lies beyond the limit is neither counted nor shown.
    let count = text.chars().take(SHOWN_CHARS_MAX).count();
    let kept = (count / 3).min(4);
    let end = text.char_indices().nth(kept).map_or(text.len(), |(at, _)| at);
    format!("{}{}", visible(&text[..end]), "*".repeat(count - kept))
}

/// A text with citizen ids masked, as names of files and sheets may have them, too.
pub fn without_ids(text: &str) -> String {
    let (mut rest, mut out) = (text, String::new());
    while let Some(id) = citizen_id(rest.as_bytes(), 0) {
        out.push_str(&rest[..id.start]);
        out.push_str(&mask(&rest[id.clone()]));
        rest = &rest[id.end..];
    }
    out.push_str(rest);
    // In full-width digits, or with blanks and marks among them.
    let bare: String = fold(&out).chars().filter(|c| c.is_alphanumeric()).collect();
    match may_be_citizen_id(bare.as_bytes()).then_some(()) {
        // Where it stands is not known any more.
        Some(()) => "*".repeat(out.chars().count()),
        None => out,
    }
}

/// A value that is not personal, shortened, with citizen ids masked.
pub fn shown(text: &str) -> String {
    // An id that the limit would cut is still recognised.
    let end = text.char_indices().nth(SHOWN_CHARS_MAX + 18).map_or(text.len(), |(at, _)| at);
    let mut out = without_ids(&text[..end]);
    let end = out.char_indices().nth(SHOWN_CHARS_MAX).map_or(out.len(), |(at, _)| at);
    out.truncate(end);
    visible_within(&out, VISIBLE_CHARS_MAX).into_owned()
}
