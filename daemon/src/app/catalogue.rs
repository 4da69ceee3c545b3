//! What is wrong with the catalogue as it has arrived, for a person to look into.
//!
//! Used by the hub's office and by a member's trustee, whenever `_federation` may
//! have moved. Invariant: nothing here changes what counts; that is `membership`'s.

use super::alarms::{Alarm, Alarms};
use crate::membership::{Masked, Membership};

/// Problems that an alarm spells out.
const SHOWN_MAX: usize = 5;

/// Raises or clears the alarms about records that are ignored, and about fields that
/// stay masked.
pub(super) fn look(membership: &Membership, alarms: &Alarms) -> anyhow::Result<()> {
    let problems = membership.current()?.problems();
    if problems.is_empty() {
        alarms.clear(Alarm::Catalogue);
    } else {
        let shown = problems[..problems.len().min(SHOWN_MAX)].join("; ");
        alarms.raise(
            Alarm::Catalogue,
            format!(
                "records of _federation are ignored, because they are malformed or above a limit ({} or more): {shown}. \
                 Everything else counts. The hub's administrator has to mend them / \
                 _federation 中有无效或超出限制的记录，已忽略，请市级中心处理",
                problems.len()
            ),
        );
    }
    let masked = membership.masked()?;
    if masked.is_empty() {
        alarms.clear(Alarm::Personal);
    } else {
        let texts: Vec<String> = masked.iter().map(text).collect();
        alarms.raise(Alarm::Personal, texts.join(" "));
    }
    Ok(())
}

fn text(masked: &Masked) -> String {
    let Masked { dataset, version, fields } = masked;
    let fields = fields.join(", ");
    format!(
        "version {version} of {dataset} does not say any more that these fields, or those they stand for, are personal: \
         {fields}. Here they stay masked until you agree: look at it (creditsync dataset show {dataset}), ask the \
         municipal centre, and then: creditsync dataset accept {dataset} --version {version} / 数据集 {dataset} 第 {version} \
         版不再将这些字段标为个人信息：{fields}。本节点继续遮盖；确认无误后请执行 creditsync dataset accept {dataset} --version {version}"
    )
}
