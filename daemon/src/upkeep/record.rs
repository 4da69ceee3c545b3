//! What of a chore outlives a restart: a small file of JSON for each.
//!
//! One that is damaged is as good as none: the chore begins anew. Invariant: a chore
//! that was paused stays so.

use std::{fs::DirBuilder, io, os::unix::fs::DirBuilderExt as _, path::Path};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

/// What is kept of a chore.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// Nothing is done until somebody asks for it.
    pub paused: bool,
    /// Where it goes on; none if it begins anew.
    pub position: Option<Json>,
    /// When it began, in seconds since 1970.
    pub began_at: Option<i64>,
    /// When it came to its end.
    pub ended_at: Option<i64>,
    /// What came of it the last time.
    pub result: Option<String>,
    /// Why it did not come to its end.
    pub failed: Option<String>,
    /// What it has found that needs a person.
    pub attention: Vec<String>,
}

impl Record {
    /// Reads the record of the chore with this name; an empty one if there is none.
    pub fn load(directory: &Path, name: &str) -> anyhow::Result<Self> {
        let path = directory.join(format!("{name}.json"));
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        };
        Ok(serde_json::from_slice(&bytes).unwrap_or_else(|error| {
            tracing::warn!(file = %path.display(), %error, "what is kept of a chore is damaged; it begins anew");
            Self::default()
        }))
    }

    /// Writes it, whole or not at all.
    pub fn write(&self, directory: &Path, name: &str) -> anyhow::Result<()> {
        let path = directory.join(format!("{name}.json"));
        let written = DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .and_then(|()| files::replace(&path, &serde_json::to_vec(self)?, files::PRIVATE));
        written.with_context(|| format!("write {}", path.display()))
    }

    /// Begins, or goes on: answers where.
    pub fn begin(&mut self, now: i64) -> Json {
        let position = self.position.take();
        if position.is_none() || self.began_at.is_none() {
            self.began_at = Some(now);
        }
        position.unwrap_or(Json::Null)
    }

    /// It came to its end.
    pub fn end(&mut self, now: i64, result: String, attention: Vec<String>) {
        (self.ended_at, self.position, self.failed) = (Some(now), None, None);
        (self.result, self.attention) = (Some(result), attention);
    }

    /// It could not go on.
    pub fn fail(&mut self, now: i64, why: String) {
        (self.ended_at, self.position, self.failed) = (Some(now), None, Some(why));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_record_outlives_a_restart_and_damage_begins_anew() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path().join("chores");
        let mut record = Record::load(&at, "scrub").unwrap();
        assert_eq!((record.begin(7), &record.began_at), (Json::Null, &Some(7)));
        (record.position, record.paused) = (Some(json!({ "key": "ab" })), true);
        record.write(&at, "scrub").unwrap();
        let mut again = Record::load(&at, "scrub").unwrap();
        assert_eq!(again, record);
        assert_eq!(again.begin(9), json!({ "key": "ab" }));
        assert_eq!(again.began_at, Some(7), "it goes on");
        again.end(11, "well".into(), vec![]);
        assert_eq!((again.begin(12), again.began_at), (Json::Null, Some(12)));
        std::fs::write(at.join("scrub.json"), b"{ \"paused\"").unwrap();
        assert_eq!(Record::load(&at, "scrub").unwrap(), Record::default());
    }
}
