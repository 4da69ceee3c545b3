//! `chore`: what goes on in the background, begun and paused by hand.

use anyhow::bail;
use serde_json::json;

use super::Answer;
use crate::app::node::Node;

impl Node {
    pub(in crate::app) fn chore_list(&self) -> Answer {
        let needs_a_person = !self.upkeep.attention().is_empty();
        (self.upkeep.list(), needs_a_person)
    }

    pub(in crate::app) fn chore_run(&self, name: &str) -> anyhow::Result<Answer> {
        self.upkeep.ask(name)?;
        Ok((json!({ "chore": name, "asked": true, "running": self.started.is_some() }), false))
    }

    pub(in crate::app) fn chore_pause(&self, name: &str) -> anyhow::Result<Answer> {
        if name.is_empty() {
            bail!("请写明任务名 / name the chore");
        }
        let stopped = self.upkeep.pause(name)?;
        Ok((json!({ "chore": name, "paused": true, "stopped_runs": stopped }), false))
    }
}
