//! How fresh a member's `_federation` is: what its hub says of the newest one.
//!
//! Used by the member's trustee. Invariant: a statement counts if a key that counts has
//! signed it and the head that it names is held here; one that names less than the hub
//! is known to have had, or another history, counts for nothing, and a person is told.
//! Not here: the form of a statement (`protocol::freshness`).

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

use certs::keyfile;
use protocol::{
    federation::Registry,
    freshness::{Statement, is_stale},
    moment::rfc3339,
};
use store::Store;

use super::{
    alarms::{Alarm, Alarms},
    dir::NodeDir,
    now_unix,
};
use crate::membership::Membership;

/// The newest statement's time, in milliseconds since 1970, as text.
const FRESHNESS_FILE: &str = "freshness";
/// A statement a minute need not be a write a minute.
const WRITE_EVERY_MS: i64 = 10 * 60 * 1000;

/// A clock that is set back by no more than this has not been wrong: five minutes, as
/// certificates are dated back.
const CLOCK_STEP_MS: i64 = 5 * 60 * 1000;

/// What a member has heard of it.
pub(super) struct Freshness {
    path: PathBuf,
    store: Store,
    membership: Arc<Membership>,
    alarms: Arc<Alarms>,
    heard: Mutex<Heard>,
}

struct Heard {
    /// The time of the newest statement that counts.
    at_ms: Option<i64>,
    /// As it is on the disk.
    written_ms: Option<i64>,
    /// One whose head has not arrived here yet.
    ahead: Option<Statement>,
    /// The highest number that the hub is known to have had. It never has less,
    /// unless it was set back.
    highest: u64,
}

impl Freshness {
    /// Reads what was heard before.
    pub(super) fn open(
        dir: &NodeDir,
        store: Store,
        membership: Arc<Membership>,
        alarms: Arc<Alarms>,
    ) -> Self {
        let path = freshness_path(dir);
        let at_ms = std::fs::read_to_string(&path).ok();
        let at_ms = at_ms.and_then(|text| text.trim().parse::<i64>().ok());
        // What is held here the hub had before.
        let highest = store.seq(membership.partition());
        let heard = Mutex::new(Heard { at_ms, written_ms: at_ms, ahead: None, highest });
        Self { path, store, membership, alarms, heard }
    }

    /// Takes a statement whose head is held here, keeps one that is ahead.
    pub(super) fn judge(&self, statement: Statement, registry: &Registry) {
        let partition = self.membership.partition();
        if !statement.verify(partition, registry) {
            // A key that changes is announced by the change set behind the head.
            tracing::debug!("a statement of freshness does not verify (yet)");
            return;
        }
        {
            let mut heard = self.heard();
            if known(heard.at_ms, now_unix() * 1000) >= Some(statement.at_ms) {
                // Sent again by whomever.
                return;
            }
            if statement.head.seq < heard.highest {
                let highest = heard.highest;
                drop(heard);
                return self.alarms.raise(
                    Alarm::OlderHistory,
                    format!(
                        "the hub signs for an older _federation (number {}) than it had before (number \
                         {highest}): it was restored from an old backup, or somebody hides what was revoked \
                         since. This node goes by the newer one. Call the municipal centre / \
                         市级中心的成员名册比本节点所知的旧",
                        statement.head.seq
                    ),
                );
            }
            heard.highest = statement.head.seq;
        }
        self.alarms.clear(Alarm::OlderHistory);
        let held = self.store.seq(partition);
        if statement.head.seq > held {
            self.heard().ahead = Some(statement);
            return;
        }
        match self.store.header_at(partition, statement.head.seq) {
            Ok(Some(known)) if known.hash() != statement.head.hash => {
                self.alarms.raise(
                    Alarm::OtherHistory,
                    format!(
                        "the hub signs for another _federation than this node holds (number {}): one of the two \
                         was forged or restored from an old backup. Call the municipal centre; once it has said that \
                         its present one holds: creditsync partition refetch {partition} / 成员名册出现两份不同的历史，\
                         请致电市级中心核实；确认以中心现有的为准后，执行 creditsync partition refetch {partition}",
                        statement.head.seq
                    ),
                );
                return;
            }
            Ok(_) => self.alarms.clear(Alarm::OtherHistory),
            Err(error) => {
                tracing::warn!(%error, "a statement of freshness could not be compared");
                return;
            }
        }
        self.note(statement.at_ms);
    }

    /// Judges the statement whose head had not arrived, now that `_federation` has moved.
    pub(super) fn judge_again(&self, registry: &Registry) {
        let ahead = self.heard().ahead.take();
        if let Some(statement) = ahead {
            self.judge(statement, registry);
        }
    }

    /// What was heard of numbers above what is held here may have been a thief's.
    pub(super) fn begins_anew(&self) {
        let held = self.store.seq(self.membership.partition());
        let mut heard = self.heard();
        (heard.highest, heard.ahead) = (held, None);
    }

    /// When the hub last said what the newest `_federation` is, in milliseconds
    /// since 1970.
    pub(super) fn at_ms(&self) -> Option<i64> {
        self.heard().at_ms
    }

    /// Says so when nothing was heard for too long.
    pub(super) fn check(&self, now_ms: i64) {
        let at_ms = known(self.at_ms(), now_ms);
        if !is_stale(at_ms, now_ms) {
            return self.alarms.clear(Alarm::Stale);
        }
        let since = at_ms.map_or("never".to_owned(), |at| rfc3339(at / 1000));
        self.alarms.raise(
            Alarm::Stale,
            format!(
                "for a day or longer the hub has not confirmed what the newest list of members is (last: {since}), \
                 so revocations may have been withheld from this node. See 'creditsync status' for why it is not \
                 connected / 超过一天未收到市级中心的确认，可能未收到吊销通知"
            ),
        );
    }

    /// A hub whose clock is fast is heard now, not later: else nobody would notice
    /// for as long that it is silent.
    fn note(&self, at_ms: i64) {
        let now_ms = now_unix() * 1000;
        let at_ms = at_ms.min(now_ms);
        let mut heard = self.heard();
        if known(heard.at_ms, now_ms) >= Some(at_ms) {
            return;
        }
        heard.at_ms = Some(at_ms);
        let written = known(heard.written_ms, now_ms);
        if written.is_none_or(|written| at_ms.saturating_sub(written) >= WRITE_EVERY_MS) {
            heard.written_ms = Some(at_ms);
            drop(heard);
            write(&self.path, at_ms);
        }
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(|error| error.into_inner())
    }
}

/// When the hub was heard, unless that is later than now: then both clocks were ahead,
/// and nothing that it says would count until that moment comes.
fn known(at_ms: Option<i64>, now_ms: i64) -> Option<i64> {
    at_ms.filter(|at_ms| *at_ms <= now_ms.saturating_add(CLOCK_STEP_MS))
}

/// The time of a join: all of `_federation` was there.
pub(super) fn note_join(dir: &NodeDir) {
    write(&freshness_path(dir), now_unix() * 1000);
}

fn freshness_path(dir: &NodeDir) -> PathBuf {
    dir.certs().join(FRESHNESS_FILE)
}

/// Writes down when the hub was last known to have said everything.
fn write(path: &Path, at_ms: i64) {
    if let Err(error) = keyfile::write_public(path, at_ms.to_string().as_bytes()) {
        tracing::warn!(%error, "the time of the last statement of freshness could not be written down");
    }
}
