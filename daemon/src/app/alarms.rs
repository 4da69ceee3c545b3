//! What is wrong with this node's trust, for a person to look into: logged once
//! when it begins, shown in the status until it is over.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard},
};

/// What an alarm is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Alarm {
    /// `_federation` has a signing key of this node that it did not make.
    ForeignKey,
    /// This node's present key has ended, and none of its own follows.
    KeyEnded,
    /// The hub counts less of what this node has signed than it has acknowledged.
    Uncounted,
    /// The node has joined again, and this directory is from before.
    Superseded,
    /// The directory was made of a backup, and nothing of its own is written yet.
    Restored,
    /// No statement of freshness for a day.
    Stale,
    /// The hub shows another `_federation` than the one that is held here.
    OtherHistory,
    /// The hub has an older `_federation` than it had before.
    OlderHistory,
    /// A certificate of this node cannot be renewed or loaded.
    Certificate,
    /// At a hub: an authority is to be followed, and a person is needed for that.
    Authority,
    /// Records of `_federation` are ignored.
    Catalogue,
    /// Fields stay masked that the catalogue does not call personal any more.
    Personal,
}

/// The alarms that are on.
#[derive(Default)]
pub struct Alarms(Mutex<BTreeMap<Alarm, String>>);

impl Alarms {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Alarm, String>> {
        self.0.lock().unwrap_or_else(|error| error.into_inner())
    }

    /// Puts an alarm on, or changes its text.
    pub fn raise(&self, alarm: Alarm, text: String) {
        if self.lock().insert(alarm, text.clone()).is_none() {
            match alarm {
                Alarm::Stale
                | Alarm::Restored
                | Alarm::KeyEnded
                | Alarm::Certificate
                | Alarm::Authority
                | Alarm::Catalogue
                | Alarm::Personal => tracing::warn!("{text}"),
                Alarm::ForeignKey
                | Alarm::Uncounted
                | Alarm::Superseded
                | Alarm::OtherHistory
                | Alarm::OlderHistory => tracing::error!("{text}"),
            }
        }
    }

    /// What an alarm was about is over.
    pub fn clear(&self, alarm: Alarm) {
        if self.lock().remove(&alarm).is_some() {
            tracing::info!(?alarm, "an alarm is over");
        }
    }

    /// The texts of those that are on.
    pub fn texts(&self) -> Vec<String> {
        self.lock().values().cloned().collect()
    }
}
