//! The rules of one field, and one text to its value.
//!
//! Used by [`super::Validator`]. Invariant: a text makes one value or rejects its
//! row, and every reason is among the issues. Not here: spellings of numbers and
//! days (`number`, `date`), and rules of the row as a whole.

use std::collections::HashSet;

use protocol::{
    schema::{Field, FieldType},
    uscc::{self, Quality},
    value::{Decimal, TEXT_BYTES_MAX, Value},
};

use super::{
    citizen_id::citizen_id,
    date::date,
    issue::{RowIssue, Severity, mask, shown},
    number::ungrouped,
    rule::Rule,
    text::{fold, has_control},
};

#[derive(Debug)]
/// See the module.
pub(super) struct FieldRules {
    name: String,
    kind: FieldType,
    pub(super) in_key: bool,
    required: bool,
    personal: bool,
    strict: bool,
    legacy_codes: bool,
    length_max: Option<u32>,
    scale_max: Option<u32>,
    values: HashSet<String>,
}

impl FieldRules {
    /// The rules of a schema's field.
    pub(super) fn new(field: &Field, in_key: bool) -> Self {
        Self {
            name: field.name.clone(),
            kind: field.kind,
            in_key,
            required: field.required,
            personal: field.personal,
            strict: field.strict,
            legacy_codes: field.legacy_codes,
            length_max: field.length_max,
            scale_max: field.scale_max,
            values: field.values.iter().cloned().collect(),
        }
    }

    /// Puts the text's value into `value`; says whether there is one (null is
    /// one where the field is optional). A value may be found and the row
    /// nevertheless be rejected, in which case its key is still known.
    pub(super) fn fill(&self, text: &str, value: &mut Value, issues: &mut Vec<RowIssue>) -> bool {
        let mut issue = |severity: Severity, rule: Rule| {
            issues.push(RowIssue {
                severity,
                field: self.name.clone(),
                value: self.shown(text),
                rule,
            });
        };
        // No record holds more, and normalising could make it longer still.
        if text.len() > TEXT_BYTES_MAX {
            *value = Value::Null;
            issue(Severity::Reject, Rule::RecordTooLong);
            return false;
        }
        if has_control(text) {
            *value = Value::Null;
            issue(Severity::Reject, Rule::ControlCharacter);
            return false;
        }
        let unless_strict = if self.strict { Severity::Reject } else { Severity::Warning };
        match self.fill_kind(text, value, unless_strict, &mut issue) {
            Ok(()) => {}
            Err(rule) => {
                *value = Value::Null;
                issue(Severity::Reject, rule);
                return false;
            }
        }
        if self.required && is_blank(value) {
            issue(Severity::Reject, Rule::Required);
            return false;
        }
        if *value == Value::Null {
            return true;
        }
        if let Some(max) = self.length_max
            && self.kind != FieldType::Date
            && longer_than(&value.canonical_text(), max)
        {
            issue(unless_strict, Rule::LengthMax { max });
        }
        if !self.values.is_empty() && !self.values.contains(value.canonical_text().as_ref()) {
            issue(unless_strict, Rule::Values);
        }
        if self.kind == FieldType::Text
            && !self.personal
            && let Some(id) = citizen_id(text.as_bytes(), 0)
        {
            issues.push(RowIssue {
                severity: Severity::Warning,
                field: self.name.clone(),
                value: mask(&text[id]),
                rule: Rule::CitizenId,
            });
        }
        true
    }

    fn fill_kind(
        &self,
        text: &str,
        value: &mut Value,
        unless_strict: Severity,
        issue: &mut impl FnMut(Severity, Rule),
    ) -> Result<(), Rule> {
        if self.kind == FieldType::Text {
            set_text(value, text);
            return Ok(());
        }
        let folded = fold(text);
        let text = folded.trim();
        if text.is_empty() {
            *value = Value::Null;
            return Ok(());
        }
        match self.kind {
            FieldType::Text => set_text(value, text),
            FieldType::Code => {
                // Line breaks and tabs are let through above for texts only.
                if text.bytes().any(|byte| byte.is_ascii_control()) {
                    return Err(Rule::ControlCharacter);
                }
                set_text(value, text);
            }
            FieldType::Uscc => {
                set_text(value, text);
                if let Value::Text(code) = value {
                    code.make_ascii_uppercase();
                    match uscc::judge(code).map_err(Rule::UsccImpossible)? {
                        Quality::Valid => {}
                        Quality::CheckFailed { expected } => {
                            issue(unless_strict, Rule::UsccCheck { expected });
                        }
                        Quality::Legacy if self.legacy_codes => {
                            issue(Severity::Warning, Rule::UsccLegacy);
                        }
                        Quality::Legacy => issue(Severity::Reject, Rule::UsccLegacy),
                    }
                }
            }
            FieldType::Integer => {
                let number = ungrouped(text).and_then(|digits| digits.parse().ok());
                *value = Value::Integer(number.ok_or(Rule::Integer)?);
            }
            FieldType::Decimal => {
                let number = ungrouped(text).and_then(|digits| Decimal::parse(&digits));
                let number = number.ok_or(Rule::Decimal)?;
                if let Some(max) = self.scale_max
                    && number.scale() > max as usize
                {
                    issue(unless_strict, Rule::ScaleMax { max });
                }
                *value = Value::Decimal(number);
            }
            FieldType::Date => *value = Value::Date(date(text)?),
        }
        Ok(())
    }

    fn shown(&self, text: &str) -> String {
        if self.personal { mask(text) } else { shown(text) }
    }
}

fn set_text(value: &mut Value, text: &str) {
    if text.is_empty() {
        *value = Value::Null;
    } else if let Value::Text(buffer) = value {
        buffer.clear();
        buffer.push_str(text);
    } else {
        *value = Value::Text(text.to_owned());
    }
}

fn is_blank(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Text(text) => text.trim_start().is_empty(),
        _ => false,
    }
}

fn longer_than(text: &str, max: u32) -> bool {
    // Characters are never more than bytes.
    text.len() > max as usize && text.chars().count() > max as usize
}
