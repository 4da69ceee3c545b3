//! What a registry answers about keys, authorities and revocations.

use super::*;
use crate::{change::Change, federation::*, sign::SigningKey};

const HUB: &str = "410100";
const COUNTY: &str = "410122";

fn node(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

fn partition(text: &str) -> PartitionId {
    PartitionId::parse(&FederationId::new("zhengzhou").unwrap(), text).unwrap()
}

fn anchored(seed: u8, base: Option<u64>) -> Anchored {
    Anchored {
        federation: FederationId::new("zhengzhou").unwrap(),
        hub: node(HUB),
        hub_key: key(seed).public(),
        base: base.map(|seq| Position { seq, hash: Hash([1; 32]) }),
        earlier: base.map(|_| key(1).public()).into_iter().collect(),
    }
}

fn insert(registry: &mut Registry, entry: Entry) -> Result<(), MalformedEntry> {
    match entry.put().unwrap() {
        Change::Put { value, .. } => registry.insert(&value),
        Change::Delete { .. } => unreachable!("an entry's put is a put"),
    }
}

fn record(seed: u8, by: Introduction) -> KeyRecord {
    KeyRecord::new(&key(seed).public(), by, 0)
}

fn retired(record: KeyRecord, last: &[(&str, u64)]) -> KeyRecord {
    let last = last.iter().map(|(name, seq)| ((*name).to_owned(), *seq)).collect();
    KeyRecord { last: Some(last), ..record }
}

/// The record of key `seed` that the key `by` vouches for.
fn follower(of: &str, by: u8, seed: u8) -> KeyRecord {
    let (earlier, new) = (key(by), key(seed).public());
    let federation = FederationId::new("zhengzhou").unwrap();
    let bytes = succession_bytes(&federation, &node(of), &earlier.public().id(), &new);
    let signature = earlier.sign(SignaturePurpose::Succession, &bytes);
    let text = crate::hex::encode(&signature);
    KeyRecord { countersignature: Some(text), ..record(seed, Introduction::Succession) }
}

fn range(registry: &Registry, of: &str, seed: u8) -> Vec<u64> {
    let partition = partition(of);
    let id = key(seed).public().id();
    (1..=9).filter(|seq| registry.key(&partition, *seq, &id).is_ok()).collect()
}

#[test]
fn a_key_signs_from_behind_the_one_before_it_to_its_own_last() {
    let mut registry = Registry::new(anchored(1, None));
    let first = retired(record(2, Introduction::Enrolment), &[("enterprise/410122", 3)]);
    let second = retired(follower(COUNTY, 2, 3), &[("enterprise/410122", 5), ("list/410122", 2)]);
    let third = record(4, Introduction::Reenrolment);
    for (number, record) in [(1, first), (2, second), (5, third)] {
        insert(&mut registry, Entry::Key(node(COUNTY), number, record)).unwrap();
    }
    assert_eq!(range(&registry, "enterprise/410122", 2), [1, 2, 3]);
    assert_eq!(range(&registry, "enterprise/410122", 3), [4, 5]);
    assert_eq!(range(&registry, "enterprise/410122", 4), [6, 7, 8, 9]);
    // A partition that a retired key is not named for has nothing signed by it.
    assert_eq!(range(&registry, "list/410122", 2), [0u64; 0]);
    assert_eq!(range(&registry, "list/410122", 3), [1, 2]);
    assert_eq!(range(&registry, "other/410122", 4), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    assert_eq!(range(&registry, "enterprise/410181", 4), [0u64; 0], "another origin");
    let problem = registry.key(&partition("enterprise/410122"), 6, &key(3).public().id());
    assert_eq!(problem, Err(KeyProblem::OutOfRange { first: 4, last: Some(5) }));
    assert_eq!(registry.current_key(&node(COUNTY)).unwrap().number, 5);
}

#[test]
fn a_key_without_its_predecessors_word_is_no_successor() {
    let mut registry = Registry::new(anchored(1, None));
    let first = record(2, Introduction::Enrolment);
    insert(&mut registry, Entry::Key(node(COUNTY), 1, first)).unwrap();
    let good = follower(COUNTY, 2, 3);
    for (what, bad) in [
        ("no signature", KeyRecord { countersignature: None, ..good.clone() }),
        ("another's signature", follower(COUNTY, 9, 3)),
        ("a signature for another node", follower("410181", 2, 3)),
        (
            "a signature for another key",
            KeyRecord { public: record(8, good.by).public, ..good.clone() },
        ),
        ("no signature at all", KeyRecord { countersignature: Some("00".into()), ..good.clone() }),
        ("a weak key", KeyRecord { public: "00".repeat(32), ..good.clone() }),
        ("the same key again", record(2, Introduction::Reenrolment)),
    ] {
        assert!(insert(&mut registry, Entry::Key(node(COUNTY), 2, bad)).is_err(), "{what}");
    }
    insert(&mut registry, Entry::Key(node(COUNTY), 2, good)).unwrap();
    assert_eq!(registry.keys(&node(COUNTY)).len(), 2);
}

#[test]
fn the_anchor_counts_before_its_record_and_ends_what_was_before_a_theft() {
    let mut registry = Registry::new(anchored(1, None));
    assert_eq!(range(&registry, "_federation/410100", 1), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    assert_eq!(range(&registry, "_federation/410122", 1), [0u64; 0], "the anchor is the hub's");
    let hub_first = record(1, Introduction::Anchor);
    insert(&mut registry, Entry::Key(node(HUB), 1, hub_first.clone())).unwrap();
    assert_eq!(range(&registry, "_federation/410100", 1).len(), 9);

    // Stolen at number 4: the thief's 5 does not count, the new key's does.
    let mut after = Registry::new(anchored(7, Some(4)));
    assert_eq!(range(&after, "_federation/410100", 1), [1, 2, 3, 4], "the anchor names it");
    assert_eq!(range(&after, "list/410100", 1), [0u64; 0], "for that there is no record yet");
    let base = |byte| Position { seq: 4, hash: Hash([byte; 32]) };
    assert!(after.allows(&partition("_federation/410100"), base(1)));
    assert!(!after.allows(&partition("_federation/410100"), base(2)), "another number 4");
    assert!(after.allows(&partition("list/410100"), base(2)));
    insert(&mut after, Entry::Key(node(HUB), 1, hub_first.clone())).unwrap();
    assert_eq!(range(&after, "_federation/410100", 1), [1, 2, 3, 4]);
    assert_eq!(range(&after, "_federation/410100", 7), [5, 6, 7, 8, 9]);
    // With its records it is the same, and other partitions are bound too.
    let last = [("_federation/410100", 4), ("list/410100", 2)];
    let mut whole = Registry::new(anchored(7, Some(4)));
    insert(&mut whole, Entry::Key(node(HUB), 1, retired(hub_first, &last))).unwrap();
    insert(&mut whole, Entry::Key(node(HUB), 2, record(7, Introduction::Anchor))).unwrap();
    insert(&mut whole, Entry::Key(node(HUB), 3, follower(HUB, 7, 8))).unwrap();
    assert_eq!(range(&whole, "_federation/410100", 1), [1, 2, 3, 4]);
    assert_eq!(range(&whole, "_federation/410100", 7), [5, 6, 7, 8, 9]);
    assert_eq!(range(&whole, "list/410100", 1), [1, 2]);
    assert_eq!(range(&whole, "list/410100", 7), [3, 4, 5, 6, 7, 8, 9]);
}

#[test]
fn revoked_and_removed_nodes_are_not_active_but_their_history_verifies() {
    let mut registry = Registry::new(anchored(1, None));
    let member = |removed| Member {
        name: "中牟县".into(),
        role: Role::Member,
        removed,
        certificates_from: None,
    };
    insert(&mut registry, Entry::Member(node(COUNTY), member(false))).unwrap();
    let first = record(2, Introduction::Enrolment);
    insert(&mut registry, Entry::Key(node(COUNTY), 1, first)).unwrap();
    assert!(registry.active_member(&node(COUNTY)).is_some());
    let revocation = || Revocation { at_ms: 1, reason: String::new() };
    let one = Entry::Revocation(node(COUNTY), Some("4a01".into()), revocation());
    insert(&mut registry, one).unwrap();
    assert!(registry.active_member(&node(COUNTY)).is_some(), "only one certificate");
    assert!(registry.revocation(&node(COUNTY), Some("4a01")).is_some());
    assert!(registry.revocation(&node(COUNTY), Some("4a02")).is_none());
    insert(&mut registry, Entry::Revocation(node(COUNTY), None, revocation())).unwrap();
    assert!(registry.active_member(&node(COUNTY)).is_none());
    assert!(registry.revocation(&node(COUNTY), Some("4a02")).is_some());
    assert_eq!(registry.revocations(&node(COUNTY)).count(), 2);
    assert_eq!(range(&registry, "enterprise/410122", 2).len(), 9);

    let mut registry = Registry::new(anchored(1, None));
    insert(&mut registry, Entry::Member(node(COUNTY), member(true))).unwrap();
    assert!(registry.active_member(&node(COUNTY)).is_none());
}

#[test]
fn authorities_are_found_by_number_state_and_certificate() {
    let mut registry = Registry::new(anchored(1, None));
    let ca = |byte: &str, state| CaRecord {
        certificate: byte.into(),
        cross: None,
        root: Some(1),
        state,
    };
    for (number, byte, state) in
        [(1, "aa", CaState::Retiring), (2, "bb", CaState::Active), (3, "cc", CaState::Next)]
    {
        insert(&mut registry, Entry::Ca(CaKind::Issuing, number, ca(byte, state))).unwrap();
    }
    insert(&mut registry, Entry::Ca(CaKind::Root, 1, ca("dd", CaState::Active))).unwrap();
    assert_eq!(registry.active_ca(CaKind::Issuing).unwrap().0, 2);
    assert_eq!(registry.active_ca(CaKind::Root).unwrap().1.certificate, [0xdd]);
    assert_eq!(registry.cas(CaKind::Issuing).count(), 3);
    assert_eq!(registry.issuing_ca(&certificate_id(&[0xcc])).unwrap().0, 3);
    assert!(registry.issuing_ca(&certificate_id(&[0xdd])).is_none(), "that is a root");
    let odd = Entry::Ca(CaKind::Root, 2, ca("d", CaState::Next));
    assert!(insert(&mut registry, odd).is_err());
}
