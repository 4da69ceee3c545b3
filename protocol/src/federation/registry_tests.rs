//! What a registry answers about keys, authorities and revocations.

use super::*;
use crate::{
    federation::*,
    sign::{SignaturePurpose, SigningKey},
    suite::Suite,
};

const HUB: &str = "410100";
const COUNTY: &str = "410122";

fn node(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

fn key(seed: u8) -> SigningKey {
    Suite::One.signing_key(&[seed; 32]).unwrap()
}

fn partition(text: &str) -> PartitionId {
    PartitionId::parse(&FederationId::new("zhengzhou").unwrap(), text).unwrap()
}

fn anchored(seed: u8, base: Option<u64>) -> Anchored {
    Anchored {
        federation: FederationId::new("zhengzhou").unwrap(),
        hub: node(HUB),
        hub_key: key(seed).public(),
        base: base.map(|seq| Position { seq, hash: Suite::One.repeated(1) }),
        earlier: base.map(|_| key(1).public()).into_iter().collect(),
    }
}

fn insert(registry: &mut Registry, entry: Entry) -> Result<(), MalformedEntry> {
    match entry.put().unwrap() {
        Change::Put { key, value } => registry.insert(&key, &value),
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
    let text = crate::hex::encode(signature.as_bytes());
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
    let base = |byte| Position { seq: 4, hash: Suite::One.repeated(byte) };
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
    let root = |byte: &str, state| CaRecord { root: None, ..ca(byte, state) };
    insert(&mut registry, Entry::Ca(CaKind::Root, 1, root("dd", CaState::Active))).unwrap();
    assert_eq!(registry.active_ca(CaKind::Issuing).unwrap().0, 2);
    assert_eq!(registry.active_ca(CaKind::Root).unwrap().1.certificate, [0xdd]);
    assert_eq!(registry.cas(CaKind::Issuing).count(), 3);
    assert_eq!(registry.issuing_ca(&certificate_id(&[0xcc])).unwrap().0, 3);
    assert!(registry.issuing_ca(&certificate_id(&[0xdd])).is_none(), "that is a root");
    let next = root("dd", CaState::Next);
    for wrong in [
        root("d", CaState::Next),
        root("", CaState::Next),
        root("DD", CaState::Next),
        CaRecord { cross: Some("".into()), ..next.clone() },
        CaRecord { cross: Some("DD".into()), ..next.clone() },
        CaRecord { root: Some(1), ..next.clone() },
    ] {
        let told = insert(&mut registry, Entry::Ca(CaKind::Root, 2, wrong.clone()));
        assert!(told.is_err(), "{wrong:?}");
    }
    let crossed = CaRecord { cross: Some("ee".into()), ..next };
    insert(&mut registry, Entry::Ca(CaKind::Root, 2, crossed)).unwrap();
    let next = ca("dd", CaState::Next);
    for wrong in [
        CaRecord { root: None, ..next.clone() },
        CaRecord { root: Some(0), ..next.clone() },
        CaRecord { cross: Some("ee".into()), ..next },
    ] {
        let told = insert(&mut registry, Entry::Ca(CaKind::Issuing, 4, wrong.clone()));
        assert!(told.is_err(), "{wrong:?}");
    }
}

#[test]
fn a_keys_digits_are_lower_case_and_as_many_as_its_suite_has() {
    let right = record(1, Introduction::Enrolment);
    let with = |text: &str| KeyRecord { countersignature: Some(text.into()), ..right.clone() };
    let fits = |record: KeyRecord| {
        let mut registry = Registry::new(anchored(1, None));
        insert(&mut registry, Entry::Key(node(COUNTY), 1, record)).is_ok()
    };
    assert!(fits(right.clone()));
    assert!(fits(with(&"0a".repeat(64))), "nobody asks whose it is");
    for wrong in ["", "0a", &"0a".repeat(63), &"0a".repeat(65), &"0A".repeat(64), &"x".repeat(128)]
    {
        assert!(!fits(with(wrong)), "{wrong}");
    }
    assert!(!fits(KeyRecord { public: right.public.to_uppercase(), ..right.clone() }));
}

#[test]
fn last_numbers_in_many_records_count_like_those_in_one() {
    let name = |n: usize| format!("d{n}/{HUB}");
    let last = (0..10_000).map(|n| (name(n), 1 + n as u64 % 9)).collect();
    let entries = record(1, Introduction::Anchor).retired(&node(HUB), 1, last).unwrap();
    assert!(entries.len() > 3, "they are many records");
    let next = Entry::Key(node(HUB), 2, follower(HUB, 1, 2));
    let mut changes: Vec<Change> =
        entries.iter().chain([&next]).map(|entry| entry.put().unwrap()).collect();
    changes.sort_by(|a, b| a.key().cmp(b.key()));
    let body = crate::change::encode_changes(&changes).len();
    assert!(body < crate::change::BODY_BYTES_MAX, "one change set holds them");
    let registry = built(&changes);
    assert_eq!(registry.problems(), [""; 0]);
    for n in [0, 4_999, 9_999] {
        let last = 1 + n as u64 % 9;
        let partition = format!("d{n}/{HUB}");
        assert_eq!(range(&registry, &partition, 1), (1..=last).collect::<Vec<_>>());
        assert_eq!(range(&registry, &partition, 2), (last + 1..=9).collect::<Vec<_>>());
    }

    // Without one of them nobody knows which numbers count.
    for missing in entries.iter().filter(|entry| matches!(entry, Entry::Last(..))) {
        let missing = missing.put().unwrap();
        let left: Vec<_> = changes.iter().filter(|c| c.key() != missing.key()).cloned().collect();
        let registry = built(&left);
        assert_eq!(registry.keys(&node(HUB)), []);
        assert_eq!(registry.problems().len(), 2, "and nobody vouches for the next key");
    }
}

/// The registry of these records.
fn built(changes: &[Change]) -> Registry {
    let mut records = BTreeMap::new();
    for change in changes {
        match change {
            Change::Put { key, value } => drop(records.insert(key, value)),
            Change::Delete { key } => drop(records.remove(key)),
        }
    }
    let mut registry = Registry::new(anchored(1, None));
    for (key, value) in records {
        let _ = registry.insert(key, value);
    }
    registry
}

fn list(dataset: &str, version: u32, fields: usize) -> Entry {
    let field = |n: usize| crate::schema::Field {
        name: format!("f{n}"),
        title_zh: format!("{n}{}", "题".repeat(60)),
        title_en: format!("{n}{}", "t".repeat(200)),
        required: n == 0,
        ..Default::default()
    };
    let raw = crate::schema::RawSchema {
        dataset: dataset.to_owned(),
        version,
        title_zh: "名单".into(),
        title_en: "list".into(),
        key: vec!["f0".into()],
        fields: (0..fields).map(field).collect(),
        ..Default::default()
    };
    Entry::Schema(Schema::check(raw).unwrap())
}

#[test]
fn schemas_have_limits_and_what_is_above_them_is_left_out_and_told() {
    let puts = |entries: &mut dyn Iterator<Item = Entry>| -> Vec<Change> {
        entries.map(|entry| entry.put().unwrap()).collect()
    };
    let dataset = |name: &str| DatasetId::new(name).unwrap();
    let many = puts(&mut (0..DATASETS_MAX + 2).map(|n| list(&format!("d{n:05}"), 1, 1)));
    let registry = built(&many);
    assert_eq!(registry.datasets().count(), DATASETS_MAX);
    assert!(registry.schema(&dataset("d00255")).is_some());
    assert!(registry.schema(&dataset("d00256")).is_none());
    assert_eq!(registry.problems().len(), 2);
    assert!(registry.problems()[0].contains("more than 256 datasets"), "{:?}", registry.problems());
    assert!(registry.no_room_for(&dataset("other"), 1).is_some());
    assert!(registry.no_room_for(&dataset("d00001"), 1).is_none());

    let versions = puts(&mut (1..=VERSIONS_MAX as u32 + 1).map(|version| list("d", version, 1)));
    let registry = built(&versions);
    assert_eq!(registry.schema(&dataset("d")).unwrap().version(), 64);
    assert!(registry.schema_version(&dataset("d"), 65).is_none());
    assert_eq!(registry.problems().len(), 1);
    assert!(registry.no_room_for(&dataset("d"), 1).is_some());
    assert!(registry.no_room_for(&dataset("e"), 1).is_none());

    let large = puts(&mut (0..200).map(|n| list(&format!("d{n}"), 1, 120)));
    let registry = built(&large);
    let taken = registry.datasets().count();
    assert!((100..199).contains(&taken), "{taken}");
    assert!(registry.problems()[0].contains("bytes of schemas"), "{:?}", registry.problems());
    assert!(registry.no_room_for(&dataset("other"), 100_000).is_some());
    // Room that comes free is not known from the change alone.
    let mut cut = registry.clone();
    assert_eq!(cut.apply(&[list("d1", 1, 120).delete().unwrap()]), Err(Rebuild));
}

#[test]
fn earlier_versions_are_read_when_a_record_names_them() {
    let entries: Vec<Entry> =
        (1..=20).map(|version| list("d", version, version as usize)).collect();
    let changes: Vec<Change> = entries.iter().map(|entry| entry.put().unwrap()).collect();
    let registry = built(&changes);
    let dataset = DatasetId::new("d").unwrap();
    for _ in 0..2 {
        for entry in &entries {
            let Entry::Schema(schema) = entry else { unreachable!("all are") };
            assert_eq!(registry.schema_version(&dataset, schema.version()).as_ref(), Some(schema));
        }
    }
    assert_eq!(registry.schema_version(&dataset, 21), None);
}

#[test]
fn a_malformed_record_is_ignored_alone_and_told_of() {
    let good = list("list", 1, 2).put().unwrap();
    let put = |kind: &str, id: &str, part: &str, body: &str| {
        let values = [kind, id, part, body].map(crate::value::Value::text).to_vec();
        let key = crate::record::encode_key(&values[..3]).unwrap();
        let record = crate::record::Record { schema_version: 1, values };
        Change::Put { key, value: record.encode().unwrap() }
    };
    let Change::Put { value, .. } = &good else { unreachable!("it is a put") };
    let elsewhere = list("other", 1, 2).delete().unwrap().key().to_vec();
    let title = r#"{"dataset":"steers","version":1,"title_zh":"\u001b]0;owned\u0007","title_en":"a","key":["a"],"field":[{"name":"a","title_zh":"b","title_en":"c","type":"text","required":true}]}"#;
    let bad = [
        put("schema", "broken", "0000000001", "{"),
        put("schema", "steers", "0000000001", title),
        put("schema", "Not-A-Name", "0000000001", "{}"),
        put("ca", "root", "0000000009", r#"{"certificate":"x","state":"next"}"#),
        Change::Put { key: elsewhere, value: value.clone() },
        Change::Put { key: vec![9], value: vec![9] },
    ];
    let mut registry = built(&[&[good.clone()][..], &bad[..]].concat());
    assert_eq!(registry.datasets().count(), 1);
    assert_eq!(registry.problems().len(), bad.len());
    let told = registry.problems().concat();
    assert!(!told.contains('\u{1b}') && told.contains("steers"), "{told}");
    // One that is mended counts, and one that goes is told of no more.
    let mended = list("broken", 1, 1).put().unwrap();
    registry.apply(&[mended, Change::Delete { key: bad[1].key().to_vec() }]).unwrap();
    assert_eq!(registry.datasets().count(), 2);
    assert_eq!(registry.problems().len(), bad.len() - 2);
    // A good one that becomes malformed counts no more.
    registry.apply(&[put("schema", "list", "0000000001", "{")]).unwrap();
    assert_eq!(registry.datasets().count(), 1);
}

#[test]
fn only_the_hub_says_where_it_is_dialled_and_what_is_garbled_counts_for_nothing() {
    let of = |name: &str, address: &str| {
        Entry::Address(node(name), HubAddresses { addresses: vec![address.into()], since: 3 })
    };
    let mut registry = Registry::new(anchored(1, None));
    assert!(insert(&mut registry, of(COUNTY, "evil.example.org:1")).is_err());
    assert_eq!(registry.hub_addresses(), None);
    let good = of(HUB, "credit.example.org:7443");
    registry.apply(&[good.put().unwrap()]).unwrap();
    assert_eq!(registry.hub_addresses().unwrap().addresses, ["credit.example.org:7443"]);
    // The record of somebody else, and its end, change nothing.
    registry.apply(&[of(COUNTY, "a:1").delete().unwrap()]).unwrap();
    assert!(registry.hub_addresses().is_some());
    let problems = registry.problems().len();
    registry.apply(&[of(HUB, "[::]:7443").put().unwrap()]).unwrap();
    assert_eq!((registry.hub_addresses(), registry.problems().len()), (None, problems + 1));
    registry.apply(&[good.put().unwrap()]).unwrap();
    assert_eq!(registry.problems().len(), problems);
    registry.apply(&[good.delete().unwrap()]).unwrap();
    assert_eq!(registry.hub_addresses(), None);
}

mod changes {
    //! A registry that takes up changes is the one that is built anew.

    use proptest::prelude::*;

    use super::*;

    /// All that a registry answers with.
    fn said(registry: &Registry) -> String {
        let keys: Vec<_> = registry.keys.iter().map(|(node, keys)| (node, keys.known())).collect();
        let schemas: Vec<_> = registry
            .datasets()
            .map(|newest| {
                let earlier = (0..=3).map(|v| registry.schema_version(newest.dataset(), v));
                let raw = |schema: &Schema| schema.raw().clone();
                (raw(newest), earlier.map(|s| s.as_ref().map(raw)).collect::<Vec<_>>())
            })
            .collect();
        format!(
            "{:#?}",
            (
                &registry.members,
                keys,
                &registry.cas,
                &registry.revocations,
                &registry.addresses,
                schemas,
                registry.problems()
            )
        )
    }

    fn key_entry() -> impl Strategy<Value = Entry> {
        let last = (0u32..3).prop_map(|records| (records > 0).then(|| records - 1));
        (1u32..4, 1u8..5, 0u8..5, last).prop_map(|(number, seed, by, last)| {
            let mut record = match by {
                0 => record(seed, Introduction::Enrolment),
                by => follower(COUNTY, by, seed),
            };
            if let Some(records) = last {
                record = retired(record, &[("enterprise/410122", number.into())]);
                record.last_records = records;
            }
            Entry::Key(node(COUNTY), number, record)
        })
    }

    fn entry() -> impl Strategy<Value = Entry> {
        let name = prop_oneof![Just(COUNTY), Just(HUB)];
        let member = (name.clone(), any::<bool>()).prop_map(|(name, removed)| {
            let member =
                Member { name: "a".into(), role: Role::Member, removed, certificates_from: None };
            Entry::Member(node(name), member)
        });
        let last = (1u32..4, 1u32..3, 1u64..9).prop_map(|(number, part, seq)| {
            let last = [(format!("d{part}/{COUNTY}"), seq)].into();
            Entry::Last(node(COUNTY), number, part, last)
        });
        let ca = (1u32..3, prop_oneof![Just("aa"), Just("x")]).prop_map(|(number, certificate)| {
            let certificate = certificate.to_owned();
            let state = CaState::Active;
            Entry::Ca(
                CaKind::Root,
                number,
                CaRecord { certificate, cross: None, root: None, state },
            )
        });
        let revocation =
            (name, prop::option::of(Just("4a".to_owned()))).prop_map(|(name, serial)| {
                Entry::Revocation(
                    node(name),
                    serial,
                    Revocation { at_ms: 1, reason: String::new() },
                )
            });
        let address = (prop_oneof![Just(COUNTY), Just(HUB)], 1usize..10, 1u64..9).prop_map(
            |(name, count, since)| {
                let addresses = (0..count).map(|n| format!("h{n}:1")).collect();
                Entry::Address(node(name), HubAddresses { addresses, since })
            },
        );
        let schema = (0u8..2, 1u32..4, 1usize..3)
            .prop_map(|(of, version, fields)| list(&format!("d{of}"), version, fields));
        prop_oneof![
            1 => member,
            3 => key_entry(),
            2 => last,
            1 => ca,
            1 => revocation,
            1 => address,
            2 => schema,
        ]
    }

    fn key_of(entry: &Entry) -> Vec<u8> {
        entry.delete().unwrap().key().to_vec()
    }

    fn change() -> impl Strategy<Value = Change> {
        prop_oneof![
            6 => entry().prop_map(|entry| entry.put().unwrap()),
            2 => entry().prop_map(|entry| entry.delete().unwrap()),
            // A value that is no record, or another one's.
            1 => (entry(), entry()).prop_map(|(a, b)| {
                let put = b.put().unwrap();
                let (_, value) = put.entry().unwrap();
                Change::Put { key: key_of(&a), value: value.to_vec() }
            }),
            1 => entry().prop_map(|entry| Change::Put { key: key_of(&entry), value: vec![1] }),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn taken_up_one_after_the_other_come_to_the_same_as_all_at_once(
            sets in prop::collection::vec(prop::collection::vec(change(), 0..6), 0..8)
        ) {
            let mut registry = Registry::new(anchored(1, None));
            let mut all: Vec<Change> = Vec::new();
            for mut set in sets {
                set.sort_by(|a, b| a.key().cmp(b.key()));
                set.dedup_by(|a, b| a.key() == b.key());
                prop_assert_eq!(registry.apply(&set), Ok(()));
                all.extend(set);
                prop_assert_eq!(said(&registry), said(&built(&all)));
            }
        }
    }
}
