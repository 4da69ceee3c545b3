//! One partition looked through, log and pages, in steps.
//!
//! Of the log: each header that is kept is signed by a key that counts and is in the
//! history of the head, and its body, where that is kept, is the one that it signs
//! ([`super::log`]). Of the pages: each is the one that its parent holds, from the signed
//! root downwards, and there are no others. Used by `scrub`, by `repair` and by
//! `verify --deep`. Each leaf is judged by the head of the moment when it is read, so
//! commits may come in between; a position is a number of the log or a key.

use std::{collections::BTreeSet, time::Instant};

use protocol::id::PartitionId;
use serde::{Deserialize, Serialize};
use store::{Head, StoreError};

use super::{
    Progress,
    log::{Wrong, check, has_own_log},
};
use crate::sync::Context;

/// Problems that are told of one partition: more of them say nothing new.
const PROBLEMS_MAX: usize = 20;

/// Where an inspection goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Place {
    /// At this number of the log.
    Log(u64),
    /// At this key, in hexadecimal.
    Pages(String),
    /// What is above the leaves is counted.
    Inner,
    End,
}

/// One partition on its way through an inspection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspection {
    /// Its name.
    partition: String,
    place: Place,
    /// Bytes of its pages that were looked at.
    bytes: u64,
    /// What was found so far.
    findings: Findings,
}

/// What was found in a partition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Findings {
    /// Records that were read and are the tree's.
    pub records: u64,
    /// What is wrong with its log.
    pub log: Vec<String>,
    /// Numbers that a key has signed which does not count for them. That is no damage: a
    /// key that has ended is told of first, and then what it must not sign is signed anew.
    pub keys: Vec<String>,
    /// What is wrong with its pages.
    pub pages: Vec<String>,
    /// Indexes that are another leaf's: they are not used, and made again with the next
    /// change.
    pub stale_indexes: u64,
}

impl Findings {
    /// Whether all is well.
    pub fn is_well(&self) -> bool {
        self.log.is_empty() && self.pages.is_empty()
    }
}

fn note(problems: &mut Vec<String>, problem: String) {
    if problems.len() < PROBLEMS_MAX {
        problems.push(problem);
    }
}

impl Inspection {
    /// From the beginning.
    pub fn new(partition: &PartitionId) -> Self {
        let (partition, findings) = (partition.full_name(), Findings::default());
        Self { partition, place: Place::Log(1), bytes: 0, findings }
    }

    /// The partition; none if a record of an inspection is garbled.
    pub fn partition(&self) -> Option<PartitionId> {
        PartitionId::parse_full(&self.partition).ok()
    }

    /// Bytes that were looked at.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How far it is, of a partition with this head.
    pub fn progress(&self, head: &Head) -> Progress {
        Progress { done: self.bytes, of: head.summary.bytes.max(self.bytes) }
    }

    /// Looks on until this moment; answers what was found when it is at the end. Blocks.
    pub fn step(
        &mut self,
        context: &Context,
        until: Instant,
    ) -> Result<Option<Findings>, StoreError> {
        let Some(partition) = self.partition() else {
            return Ok(Some(Findings::default()));
        };
        loop {
            // One that was forgotten meanwhile is well.
            let Some(head) = context.store.head(&partition) else {
                return Ok(Some(Findings::default()));
            };
            match self.place.clone() {
                Place::Log(seq) => self.look_at_log(context, &partition, &head, seq, until)?,
                Place::Pages(key) => self.look_at_pages(context, &partition, key, until)?,
                Place::Inner => self.count_inner(context, &partition)?,
                Place::End => return Ok(Some(std::mem::take(&mut self.findings))),
            }
            if Instant::now() >= until && self.place != Place::End {
                return Ok(None);
            }
        }
    }

    fn look_at_log(
        &mut self,
        context: &Context,
        partition: &PartitionId,
        head: &Head,
        mut seq: u64,
        until: Instant,
    ) -> Result<(), StoreError> {
        let registry = context.membership.current()?;
        let Findings { log: problems, keys, .. } = &mut self.findings;
        let is_whole = has_own_log(context, partition, head);
        while seq <= head.seq() && Instant::now() < until {
            let kept = context.store.header_number_from(partition, seq)?;
            // Where headers were jumped over, what borders on those that are here.
            let next = if is_whole { seq } else { kept.unwrap_or(head.seq()).min(head.seq()) };
            for at in BTreeSet::from([seq, next.saturating_sub(1).max(seq), next]) {
                match check(context, partition, head, at, &*registry)? {
                    Some(Wrong::Key(problem)) => note(keys, format!("number {at}: {problem}")),
                    Some(wrong) => {
                        let problem = format!("number {at}: {}", wrong.problem());
                        context.store.note_log_damage(partition, at, problem.clone());
                        note(problems, problem);
                    }
                    None => context.store.log_is_well(partition, at),
                }
            }
            seq = next + 1;
        }
        self.place = match seq > head.seq() {
            true => Place::Pages(String::new()),
            false => Place::Log(seq),
        };
        Ok(())
    }

    fn look_at_pages(
        &mut self,
        context: &Context,
        partition: &PartitionId,
        key: String,
        until: Instant,
    ) -> Result<(), StoreError> {
        let mut key = protocol::hex::decode(&key).unwrap_or_default();
        let Some(mut pages) = context.store.live_pages(partition) else {
            self.place = Place::End;
            return Ok(());
        };
        while let Some(found) = pages.inspect(&key)? {
            self.findings.records += found.records;
            self.findings.stale_indexes += u64::from(found.is_index_stale);
            self.bytes += found.bytes;
            for problem in &found.problems {
                let place = protocol::record::key_hash(context.membership.suite(), &key);
                note(&mut self.findings.pages, format!("{problem} (at {:.12})", place.to_string()));
            }
            match found.next {
                Some(next) => key = next,
                None => break,
            }
            if Instant::now() >= until {
                self.place = Place::Pages(protocol::hex::encode(&key));
                return Ok(());
            }
        }
        self.place = Place::Inner;
        Ok(())
    }

    fn count_inner(
        &mut self,
        context: &Context,
        partition: &PartitionId,
    ) -> Result<(), StoreError> {
        self.place = Place::End;
        let Some(mut pages) = context.store.live_pages(partition) else {
            return Ok(());
        };
        // A commit may come between the pages and the head: then both are looked at again.
        let mut counted = Vec::new();
        for _ in 0..3 {
            let before = context.store.head(partition).map(|head| head.position());
            counted = pages.count_inner()?;
            if before == context.store.head(partition).map(|head| head.position()) {
                break;
            }
            counted.clear();
        }
        for (level, (stored, expected)) in (1..).zip(counted) {
            if stored != expected {
                let problem =
                    format!("there are {stored} inner pages of level {level}, and not {expected}");
                note(&mut self.findings.pages, problem);
            }
        }
        Ok(())
    }
}
