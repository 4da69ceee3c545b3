//! The lines of the log of deliveries, and what they come to.
//!
//! Written by `record` and `held`, read by `creditsync delivery` and `undo`.
//! Invariant: a line that an older program wrote is read; one that cannot be read
//! is left out. Not here: the file (`log`).

use std::collections::BTreeMap;

use protocol::id::DatasetId;
use serde::{Deserialize, Serialize};

use crate::ingest::{hold::HeldNote, report::ImportReport, stamp, words::Author};

/// What kind of change a delivery is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Rows that are added to what is stored.
    Upsert,
    /// The whole partition.
    Full,
    /// Another delivery taken back.
    Undo,
    /// One record removed by hand.
    RecordDelete,
}

/// What a delivery is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Description {
    /// The dataset.
    pub dataset: DatasetId,
    /// What kind of change it is.
    pub kind: Kind,
    /// The delivered file's name, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Who approved it, or gave the command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<Author>,
    /// The delivery that it takes back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undoes: Option<String>,
}

/// What happened to a delivery.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// Its first change set is about to be committed.
    Begun {
        /// What it is.
        #[serde(flatten)]
        what: Description,
        /// The partition's number before it.
        base_seq: u64,
        /// The partition held nothing before.
        first_load: bool,
        /// What was stored before, if it is little.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        images: Option<String>,
    },
    /// It failed before anything of it was committed, so it is as if it had not begun.
    Void,
    /// It is in.
    Ended {
        /// What it is.
        #[serde(flatten)]
        what: Description,
        /// What it did.
        report: ImportReport,
    },
    /// It waits for a person.
    Held {
        /// What it is.
        #[serde(flatten)]
        what: Description,
        /// Why.
        held: HeldNote,
    },
    /// It was discarded.
    Discarded {
        /// Who discarded it; none where a newer one took its place.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        author: Option<Author>,
        /// The newer one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        newer: Option<String>,
    },
}

/// A line of the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// The delivery.
    pub id: String,
    /// When it was written, RFC 3339 in UTC.
    pub at: String,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// Where a delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It is in.
    Taken,
    /// A person let it in after it was held.
    Approved,
    /// It waits for a person.
    Held,
    /// It was discarded, or a newer one took its place.
    Discarded,
    /// It began and did not end: it is under way, or was interrupted, and a part
    /// of it may be in.
    Interrupted,
    /// It was taken back.
    Undone,
}

/// What the log says of one delivery.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Delivery {
    /// Its id.
    pub id: String,
    /// When it came, or was let in.
    pub at: String,
    /// What it is.
    #[serde(flatten)]
    pub what: Description,
    /// Where it stands.
    pub state: State,
    /// The partition's number before it, if it committed anything.
    pub base_seq: Option<u64>,
    /// The partition's number after it; none if it did not end.
    pub last_seq: Option<u64>,
    /// The partition held nothing before.
    pub first_load: bool,
    /// What it did.
    pub report: Option<ImportReport>,
    /// Why it was held, if it was.
    pub held: Option<HeldNote>,
    /// What became of it then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decided: Option<Decision>,
    /// The delivery that took it back.
    pub undone_by: Option<String>,
    /// What was stored before, if it is little.
    #[serde(skip)]
    pub images: Option<String>,
    /// The place in the log where it began: one that was held may begin late.
    #[serde(skip)]
    pub begun: Option<usize>,
    /// Nothing has come of it.
    #[serde(skip)]
    is_void: bool,
}

/// How a held delivery ended.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Decision {
    /// When, RFC 3339 in UTC.
    pub at: String,
    /// Who decided, and why; none where a newer delivery took its place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<Author>,
    /// The newer one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub newer: Option<String>,
}

/// What lines, the oldest first, come to: deliveries by when they came.
pub(super) fn fold(lines: Vec<Line>) -> Vec<Delivery> {
    let mut list: Vec<Delivery> = Vec::new();
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    for (number, Line { id, at, event }) in lines.into_iter().enumerate() {
        let place = places.get(&id).copied();
        let what = match &event {
            Event::Begun { what, .. } | Event::Ended { what, .. } | Event::Held { what, .. } => {
                Some(what.clone())
            }
            Event::Discarded { .. } | Event::Void => None,
        };
        let place = match (place, &what) {
            (Some(place), _) => place,
            (None, Some(what)) => {
                places.insert(id.clone(), list.len());
                list.push(Delivery::new(id, at.clone(), what.clone()));
                list.len() - 1
            }
            // Its other lines are older than the log goes back.
            (None, None) => continue,
        };
        let delivery = &mut list[place];
        if let Some(what) = what {
            delivery.what = what;
        }
        delivery.take(event, (number, at));
    }
    // The newest word about each: an undo that was taken back counts no more.
    for place in (0..list.len()).rev() {
        let Delivery { id, state, .. } = &list[place];
        let counts = matches!(state, State::Taken | State::Approved);
        if let (true, Some(undone)) = (counts, list[place].what.undoes.clone()) {
            let by = id.clone();
            if let Some(undone) = places.get(&undone).map(|place| &mut list[*place])
                && undone.undone_by.is_none()
            {
                undone.state = State::Undone;
                undone.undone_by = Some(by);
            }
        }
    }
    list.retain(|delivery| !delivery.is_void);
    list
}

impl Delivery {
    /// What became of one that was held, in Chinese and English; none while it waits.
    pub fn decided(&self) -> Option<[String; 2]> {
        let Decision { at, author, newer } = self.decided.as_ref()?;
        let at = stamp::local_of(at);
        let by = author.as_ref().map_or("-", |author| author.by.as_str());
        let reason = author.as_ref().and_then(|author| author.reason.as_deref());
        let reason =
            reason.map(|reason| (format!("，理由：{reason}"), format!(", because: {reason}")));
        let (why_zh, why_en) = reason.unwrap_or_default();
        let [zh, en] = match (self.state, newer) {
            (State::Discarded, Some(newer)) => [
                format!("{at} 被较新的交付 {newer} 取代，没有导入任何内容"),
                format!(
                    "on {at} the newer delivery {newer} took its place; nothing of it was imported"
                ),
            ],
            (State::Discarded, None) => [
                format!("{at} 由 {by} 丢弃{why_zh}；没有导入任何内容"),
                format!("on {at} {by} discarded it{why_en}; nothing of it was imported"),
            ],
            _ => {
                let ImportReport { inserted, updated, deleted, .. } =
                    self.report.clone().unwrap_or_default();
                [
                    format!(
                        "{at} 由 {by} 批准并导入{why_zh}：新增 {inserted}，更新 {updated}，删除 {deleted}"
                    ),
                    format!(
                        "on {at} {by} approved it and it was imported{why_en}: {inserted} inserted, {updated} updated, {deleted} deleted"
                    ),
                ]
            }
        };
        Some(match &self.undone_by {
            Some(undo) => {
                [format!("{zh}；后被撤销（{undo}）"), format!("{en}; taken back later ({undo})")]
            }
            None => [zh, en],
        })
    }

    fn new(id: String, at: String, what: Description) -> Self {
        Self {
            id,
            at,
            what,
            state: State::Interrupted,
            base_seq: None,
            last_seq: None,
            first_load: false,
            report: None,
            held: None,
            decided: None,
            undone_by: None,
            images: None,
            begun: None,
            is_void: false,
        }
    }

    fn take(&mut self, event: Event, (number, at): (usize, String)) {
        match event {
            Event::Begun { base_seq, first_load, images, .. } => {
                self.is_void = false;
                self.at = at;
                self.begun = Some(number);
                self.state = State::Interrupted;
                self.base_seq = Some(base_seq);
                (self.first_load, self.images) = (first_load, images);
            }
            Event::Void => {
                (self.base_seq, self.begun, self.images) = (None, None, None);
                // One that waits for a person goes on waiting.
                match self.held {
                    Some(_) => self.state = State::Held,
                    None => self.is_void = true,
                }
            }
            Event::Ended { report, .. } => {
                self.is_void = false;
                let of_a_file = matches!(self.what.kind, Kind::Full | Kind::Upsert);
                let approved = of_a_file && self.what.author.is_some();
                self.state = if approved { State::Approved } else { State::Taken };
                let author = self.what.author.clone().filter(|_| approved);
                self.decided = author.map(|by| Decision { at, author: Some(by), newer: None });
                self.last_seq = Some(report.seq);
                self.report = Some(report);
            }
            Event::Held { held, .. } => {
                self.state = State::Held;
                self.held = Some(held);
            }
            Event::Discarded { author, newer } => {
                self.state = State::Discarded;
                self.decided = Some(Decision { at, author, newer });
            }
        }
    }
}
