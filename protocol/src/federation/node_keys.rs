//! The signing keys of one node, as its records make them.
//!
//! Used by [`super::Registry`]. Invariant: what counts depends on the records alone
//! and not on the order in which they came. A key that claims to follow another has
//! to be countersigned by it; one whose records are not complete counts for nothing.
//! Not here: for which numbers a key counts.

use std::collections::BTreeMap;

use super::{
    entry::{Introduction, KeyRecord, LAST_RECORDS_MAX, succession_bytes},
    registry::KnownKey,
};
use crate::{
    hash::Hash,
    hex,
    id::{FederationId, NodeId},
    sign::{PublicKey, SignaturePurpose},
    suite::Suite,
};

type Last = BTreeMap<String, u64>;

/// Records of a node's keys, and the keys that come out.
#[derive(Debug, Clone)]
pub(super) struct NodeKeys {
    suite: Suite,
    records: BTreeMap<u32, KeyRecord>,
    /// By the key's number and the record's.
    last: BTreeMap<(u32, u32), Last>,
    known: Vec<KnownKey>,
    problems: BTreeMap<u32, &'static str>,
    /// Whether a key's countersignature is of the key with this id: verifying takes
    /// longer than all else.
    vouched: BTreeMap<u32, (Hash, bool)>,
}

impl NodeKeys {
    /// No records yet; the keys are of this suite.
    pub fn new(suite: Suite) -> Self {
        Self {
            suite,
            records: BTreeMap::new(),
            last: BTreeMap::new(),
            known: Vec::new(),
            problems: BTreeMap::new(),
            vouched: BTreeMap::new(),
        }
    }

    /// Takes the record of a key, or takes it away.
    pub fn set(
        &mut self,
        federation: &FederationId,
        node: &NodeId,
        number: u32,
        record: Option<KeyRecord>,
    ) {
        match record {
            Some(record) => drop(self.records.insert(number, record)),
            None => drop(self.records.remove(&number)),
        }
        self.vouched.remove(&number);
        self.settle(federation, node, number);
    }

    /// Takes more last numbers of a key, or takes them away.
    pub fn set_last(
        &mut self,
        federation: &FederationId,
        node: &NodeId,
        (number, part): (u32, u32),
        last: Option<Last>,
    ) {
        let was_whole = self.is_whole(number);
        match last {
            Some(last) => drop(self.last.insert((number, part), last)),
            None => drop(self.last.remove(&(number, part))),
        }
        // While others are missing it changes nothing.
        if was_whole || self.is_whole(number) {
            self.settle(federation, node, number);
        }
    }

    fn is_whole(&self, number: u32) -> bool {
        let count = self.records.get(&number).map_or(0, |record| record.last_records);
        (1..=count.min(LAST_RECORDS_MAX)).all(|part| self.last.contains_key(&(number, part)))
    }

    /// Makes up the keys from this number on: those before it depend on none of them.
    fn settle(&mut self, federation: &FederationId, node: &NodeId, from: u32) {
        self.known.retain(|known| known.number < from);
        self.problems.retain(|number, _| *number < from);
        let numbers: Vec<u32> = self.records.range(from..).map(|(number, _)| *number).collect();
        for number in numbers {
            match self.key(federation, node, number) {
                Ok(key) => self.known.push(key),
                Err(problem) => drop(self.problems.insert(number, problem)),
            }
        }
    }

    /// The key of a record, behind those before it.
    fn key(
        &mut self,
        federation: &FederationId,
        node: &NodeId,
        number: u32,
    ) -> Result<KnownKey, &'static str> {
        let record = self.records.get(&number).ok_or("it has no record")?;
        let record = self.whole(number, record)?;
        let bytes = hex::decode(&record.public);
        let public = bytes.and_then(|bytes| self.suite.public_key(&bytes).ok());
        let public = public.ok_or("it is not a key")?;
        let countersignature = match record.countersignature.as_deref().map(hex::decode) {
            Some(bytes) => Some(
                bytes
                    .filter(|bytes| bytes.len() == self.suite.signature_bytes())
                    .ok_or("its countersignature is none")?,
            ),
            None => None,
        };
        if self.known.iter().any(|known| known.public == public) {
            return Err("it stands twice");
        }
        if record.by == Introduction::Succession {
            let earlier = self.known.last().ok_or("there is no key before it")?;
            let countersignature = countersignature.ok_or("it has no countersignature")?;
            let of = earlier.public.id();
            let vouched = match self.vouched.get(&number) {
                Some((known, vouched)) if *known == of => *vouched,
                _ => vouches(federation, node, &earlier.public, &public, &countersignature),
            };
            self.vouched.insert(number, (of, vouched));
            if !vouched {
                return Err("the key before it did not countersign it");
            }
        }
        Ok(KnownKey { number, public, record })
    }

    /// The record with all its last numbers.
    fn whole(&self, number: u32, record: &KeyRecord) -> Result<KeyRecord, &'static str> {
        let mut record = record.clone();
        if record.last_records == 0 {
            return Ok(record);
        }
        let Some(last) = record.last.as_mut().filter(|_| record.last_records <= LAST_RECORDS_MAX)
        else {
            return Err("it has no last numbers, or too many");
        };
        for part in 1..=record.last_records {
            let more =
                self.last.get(&(number, part)).ok_or("a record of its numbers is missing")?;
            last.extend(more.iter().map(|(partition, seq)| (partition.clone(), *seq)));
        }
        Ok(record)
    }

    /// The keys, the oldest first.
    pub fn known(&self) -> &[KnownKey] {
        &self.known
    }

    /// Why the record of a key counts for nothing.
    pub fn problem(&self, number: u32) -> Option<&str> {
        self.problems.get(&number).copied()
    }

    /// All such numbers.
    pub fn problems(&self) -> impl Iterator<Item = (u32, &str)> {
        self.problems.iter().map(|(number, problem)| (*number, *problem))
    }

    /// Whether there is no record at all.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.last.is_empty()
    }
}

/// Whether the earlier key has countersigned that `public` follows it.
fn vouches(
    federation: &FederationId,
    node: &NodeId,
    earlier: &PublicKey,
    public: &PublicKey,
    countersignature: &[u8],
) -> bool {
    let bytes = succession_bytes(federation, node, &earlier.id(), public);
    earlier.verify(SignaturePurpose::Succession, &bytes, countersignature).is_ok()
}
