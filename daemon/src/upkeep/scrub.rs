//! The chore `scrub`: partition by partition, everything is inspected.
//!
//! What is found is noted in the store, so nobody is shown or signs anything upon it,
//! and `repair` takes it from there.
//!
//! A start goes on behind the last partition that was done with, and looks at those before
//! it at the end: each start looks at everything, because somebody may have altered it
//! meanwhile, and a node that is started often comes to the last one, too.

use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::{Inspection, Progress, STEP, Step, Upkeep};

/// Where it goes on.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Position {
    /// The partition at hand.
    inspection: Option<Inspection>,
    /// The full name of the last one that is done.
    last: Option<String>,
    /// Those up to this one come behind all others.
    until: Option<String>,
    /// All others are done.
    is_over_the_end: bool,
    partitions: u64,
    records: u64,
    bytes: u64,
}

impl Position {
    /// Which partition is next, of these.
    fn next(&mut self, mut names: Vec<String>) -> Option<String> {
        names.sort_unstable();
        let behind = |last: &Option<String>| {
            names.iter().find(|name| last.as_ref().is_none_or(|last| *name > last)).cloned()
        };
        let next = behind(&self.last);
        let Some(until) = self.until.clone() else { return next };
        if next.is_some() && !self.is_over_the_end {
            return next;
        }
        if !self.is_over_the_end {
            (self.is_over_the_end, self.last) = (true, None);
        }
        behind(&self.last).filter(|next| *next <= until)
    }
}

/// Where a node goes on that was started anew: nothing counts as read since then.
pub(super) fn after_start(position: &Json) -> Json {
    let at = Position::deserialize(position).unwrap_or_default();
    let at = Position { until: at.last.clone(), last: at.last, ..Position::default() };
    serde_json::to_value(at).unwrap_or_default()
}

pub(super) async fn step(upkeep: &Upkeep, position: &mut Json) -> anyhow::Result<Step> {
    // One that is garbled begins anew.
    let mut at: Position = serde_json::from_value(position.take()).unwrap_or_default();
    let context = upkeep.context.clone();
    let (at, step) = tokio::task::spawn_blocking(move || {
        let step = look_on(&context, &mut at);
        (at, step)
    })
    .await?;
    let checked = step?;
    if let Some((partition, true)) = &checked {
        upkeep.note_checked(partition);
    }
    if checked.is_none() && at.inspection.is_none() {
        let Position { partitions, records, bytes, .. } = at;
        let mb = bytes / (1024 * 1024);
        let result = format!(
            "{partitions} 个分区、{records} 条记录、{mb} MiB 已核对 / {partitions} partitions, {records} records, {mb} MiB read"
        );
        return Ok(Step::Ended { result, attention: Vec::new() });
    }
    let heads = upkeep.context.store.heads();
    let of: u64 = heads.values().map(|head| head.summary.bytes).sum();
    let done = at.bytes + at.inspection.as_ref().map_or(0, Inspection::bytes);
    *position = serde_json::to_value(at)?;
    Ok(Step::More(Progress { done, of: of.max(done) }))
}

/// One step; answers which partition is done with it, and whether its pages are well.
fn look_on(
    context: &crate::sync::Context,
    at: &mut Position,
) -> anyhow::Result<Option<(protocol::id::PartitionId, bool)>> {
    if at.inspection.is_none() {
        let heads = context.store.heads();
        let next = at.next(heads.keys().map(|partition| partition.full_name()).collect());
        let named = |partition: &&protocol::id::PartitionId| Some(partition.full_name()) == next;
        at.inspection = heads.keys().find(named).map(Inspection::new);
    }
    let Some(inspection) = &mut at.inspection else {
        return Ok(None);
    };
    let Some(findings) = inspection.step(context, Instant::now() + STEP)? else {
        return Ok(None);
    };
    let partition = inspection.partition();
    at.bytes += inspection.bytes();
    at.last = partition.as_ref().map(|partition| partition.full_name());
    at.inspection = None;
    at.partitions += 1;
    at.records += findings.records;
    let Some(partition) = partition else {
        return Ok(None);
    };
    // What of the log is damaged was said where it was noted.
    for problem in &findings.pages {
        tracing::error!(%partition, %problem, "what is stored is not what was signed");
    }
    Ok(Some((partition, findings.pages.is_empty())))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The partitions in the order in which they are looked at from here to the end.
    fn order(at: &mut Position, names: &[&str]) -> String {
        let mut order = String::new();
        while let Some(next) = at.next(names.iter().map(|name| (*name).to_owned()).collect()) {
            order.push_str(&next);
            at.last = Some(next);
        }
        order
    }

    #[test]
    fn a_start_goes_on_behind_what_was_done_and_looks_at_all() {
        let names = ["b", "a", "d", "c"];
        assert_eq!(order(&mut Position::default(), &names), "abcd");
        let at = Position { last: Some("b".into()), partitions: 2, ..Position::default() };
        let stored = serde_json::to_value(at).unwrap();
        let mut at: Position = serde_json::from_value(after_start(&stored)).unwrap();
        assert_eq!(at.partitions, 0);
        assert_eq!(order(&mut at, &names), "cdab");
        // A start in the middle of that.
        let mut at: Position = serde_json::from_value(after_start(&stored)).unwrap();
        at.last = Some("d".into());
        let stored = serde_json::to_value(at).unwrap();
        let mut at: Position = serde_json::from_value(after_start(&stored)).unwrap();
        assert_eq!(order(&mut at, &names), "abcd");
        // The last one may be gone by then, and what is garbled begins at the beginning.
        let mut at =
            Position { last: Some("x".into()), until: Some("x".into()), ..Position::default() };
        assert_eq!(order(&mut at, &names), "abcd");
        let mut at: Position = serde_json::from_value(after_start(&Json::from(7))).unwrap();
        assert_eq!(order(&mut at, &names), "abcd");
    }
}
