//! The rules of one field, and one text to its value.
//!
//! Used by [`super::Validator`]. A text is looked through for what no value has,
//! folded, freed from traces of spreadsheets, compared with the texts that mean
//! nothing, and read by the field's type. Invariant: a text makes one value or
//! rejects its row, and every reason is among the issues. Not here: spellings
//! (`number`, `date`, `traces`), and rules of the row as a whole.

use std::{collections::HashSet, sync::Arc};

use protocol::{
    schema::{DateOrder, FieldType, NullTexts, Schema, Years},
    uscc::{self, Quality},
    value::{Date, TEXT_BYTES_MAX, Value},
};

use super::{
    citizen_id::citizen_id,
    date::{self, is_open_end},
    issue::{RowIssue, Severity, mask, shown},
    number::{decimal, integer},
    rule::Rule,
    text::{Suspicion, fold},
    traces::{is_scientific_code, is_scientific_number, looks_rounded, unprotected, whole_code},
};

/// See the module.
#[derive(Debug)]
pub(super) struct FieldRules {
    name: Arc<str>,
    title: Arc<str>,
    kind: FieldType,
    pub(super) in_key: bool,
    required: bool,
    personal: bool,
    strict: bool,
    legacy_codes: bool,
    length_max: Option<u32>,
    scale_max: Option<u32>,
    values: HashSet<String>,
    /// The same in the schema's order, for messages.
    listed: Arc<[String]>,
    null_texts: NullTexts,
    date_order: DateOrder,
    open_end: Option<Date>,
    years: Years,
}

impl FieldRules {
    /// The rules of a schema's field.
    pub(super) fn new(schema: &Schema, index: usize) -> Self {
        let field = &schema.fields()[index];
        Self {
            name: field.name.as_str().into(),
            title: field.title_zh.as_str().into(),
            kind: field.kind,
            in_key: schema.key().contains(&index),
            required: field.required,
            personal: field.personal,
            strict: field.strict,
            legacy_codes: field.legacy_codes,
            length_max: field.length_max,
            scale_max: field.scale_max,
            values: field.values.iter().cloned().collect(),
            listed: field.values.as_slice().into(),
            null_texts: NullTexts::new(schema.null_texts(index)),
            date_order: field.date_order(),
            open_end: field.open_end(),
            years: schema.years(index),
        }
    }

    /// Puts the text's value into `value`; says whether there is one (null is
    /// one where the field is optional). A value may be found and the row
    /// nevertheless be rejected, in which case its key is still known.
    pub(super) fn fill(&self, text: &str, value: &mut Value, issues: &mut Vec<RowIssue>) -> bool {
        let mut issue = |severity, rule| issues.push(self.issue(severity, rule, self.shown(text)));
        // No record holds more, and normalising could make it longer still.
        if text.len() > TEXT_BYTES_MAX {
            *value = Value::Null;
            issue(Severity::Reject, Rule::RecordTooLong);
            return false;
        }
        let suspicion = Suspicion::of(text);
        if suspicion.has_control(text) {
            *value = Value::Null;
            issue(Severity::Reject, Rule::ControlCharacter);
            return false;
        }
        if let Some(rule) = suspicion.mojibake(text) {
            issue(Severity::Warning, rule);
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
            issue(unless_strict, Rule::Values { listed: self.listed.clone() });
        }
        if matches!(self.kind, FieldType::Text | FieldType::Code)
            && !self.personal
            && let Some(id) = citizen_id(text.as_bytes(), 0)
        {
            issues.push(self.issue(Severity::Warning, Rule::CitizenId, mask(&text[id])));
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
            set_text(value, if self.null_texts.contain(text) { "" } else { text });
            return Ok(());
        }
        let folded = fold(text);
        let bare = unprotected(folded.trim());
        let text = bare.as_ref();
        if text.is_empty() || self.null_texts.contain(text) {
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
                let code = whole_code(text);
                if is_scientific_code(code) {
                    return Err(Rule::Scientific);
                }
                if looks_rounded(code) {
                    issue(unless_strict, Rule::CodeRounded);
                }
                set_text(value, code);
            }
            FieldType::Uscc => {
                set_text(value, whole_code(text));
                if let Value::Text(code) = value {
                    code.make_ascii_uppercase();
                    self.judge(code, unless_strict, issue)?;
                }
            }
            FieldType::Integer => *value = Value::Integer(integer(text)?),
            FieldType::Decimal => {
                let number = decimal(text)?;
                if let Some(max) = self.scale_max
                    && number.scale() > max as usize
                {
                    issue(unless_strict, Rule::ScaleMax { max });
                }
                *value = Value::Decimal(number);
            }
            FieldType::Date => {
                let read = date::read(text, self.date_order);
                let day = match self.open_end {
                    Some(open) if is_open_end(text, &read) => open,
                    _ => read?.day()?,
                };
                if !self.years.contain(day) && self.open_end != Some(day) {
                    issue(unless_strict, Rule::DateImplausible { years: self.years });
                }
                *value = Value::Date(day);
            }
        }
        Ok(())
    }

    fn judge(
        &self,
        code: &str,
        unless_strict: Severity,
        issue: &mut impl FnMut(Severity, Rule),
    ) -> Result<(), Rule> {
        match uscc::judge(code) {
            Ok(Quality::Valid) => {}
            // One rounded code in 31 has the right check character by chance: nothing
            // tells it from a code that was issued like that.
            Ok(Quality::CheckFailed { .. }) if looks_rounded(code) => {
                return Err(Rule::UsccRounded);
            }
            Ok(Quality::CheckFailed { expected }) => {
                issue(unless_strict, Rule::UsccCheck { expected });
            }
            Ok(Quality::Legacy) if self.legacy_codes => {
                issue(Severity::Warning, Rule::UsccLegacy);
            }
            Ok(Quality::Legacy) => issue(Severity::Reject, Rule::UsccLegacy),
            Err(_) if is_scientific_number(code) => return Err(Rule::Scientific),
            Err(why) => return Err(Rule::UsccImpossible(why)),
        }
        Ok(())
    }

    pub(super) fn issue(&self, severity: Severity, rule: Rule, value: String) -> RowIssue {
        RowIssue { severity, field: self.name.clone(), title: self.title.clone(), value, rule }
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
        Value::Text(text) => protocol::text::is_blank(text),
        _ => false,
    }
}

fn longer_than(text: &str, max: u32) -> bool {
    // Characters are never more than bytes.
    text.len() > max as usize && text.chars().count() > max as usize
}
