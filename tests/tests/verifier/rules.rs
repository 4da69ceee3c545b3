//! Which key counts for which number (section 11 of `protocol/SPEC.md`), on a
//! `_federation` of the tests' own; and the rules of section 10 that a replica
//! meets seldom.

use ed25519_dalek::{Signer as _, SigningKey};
use serde_json::{Value as Json, json};

use super::{
    Checked, Refused,
    anchor::{Anchor, Freshness},
    change::{Change, SignedHeader},
    federation::Federation,
    hashes,
    history::{self, Proof},
    layout::{self, AnchorFields, FreshnessFields},
    made::{self, COUNTY, FEDERATION, HUB, Origin, in_order, key, public},
    record::{self, Value},
    replica::{Keys as _, Replica, check_fork, check_later_head},
};

const UNKNOWN: Refused = Refused("a key that nobody registered");
const NOT_HERE: Refused = Refused("a key that does not count here");

/// A `_federation` under the hub's key 1, and its origin.
struct Case {
    origin: Origin,
    federation: Federation,
}

fn under(fields: &AnchorFields) -> Federation {
    Federation::new(Anchor::verified(&made::anchor(fields), &made::root()).unwrap())
}

impl Case {
    fn new() -> Self {
        let federation = under(&made::fields(&key(1)));
        Self { origin: Origin::new(layout::FEDERATION_DATASET, HUB), federation }
    }

    /// One more change set by the hub.
    #[track_caller]
    fn write(&mut self, changes: Vec<Change>) {
        let (header, body) = self.origin.next(&in_order(changes), None, &key(1));
        self.federation.take(&header, &body).unwrap();
    }

    /// Whether a key counts for a number of a county's partition.
    fn county(&self, dataset: &'static str, seq: u64, by: &SigningKey) -> Checked<()> {
        counts(&self.federation, dataset, COUNTY, seq, by)
    }
}

fn counts(
    federation: &Federation,
    dataset: &'static str,
    node: &'static str,
    seq: u64,
    by: &SigningKey,
) -> Checked<()> {
    let mut header = Origin::new(dataset, node).header(&[], Some((1, [1; 32])));
    if dataset == layout::FEDERATION_DATASET {
        header.federation_head = None;
    }
    if seq > 1 {
        (header.seq, header.previous, header.history) = (seq, [1; 32], [1; 32]);
    }
    let signed = SignedHeader::decode(&made::signed(header, by)).unwrap();
    let counting = federation.key_of(&signed)?;
    assert_eq!(counting, public(by));
    signed.verify(&counting)
}

fn key_record(number: u32, by: &str, own: &SigningKey, more: &Json) -> Change {
    let public: String = public(own).iter().map(|byte| format!("{byte:02x}")).collect();
    let mut body = json!({"public": public, "by": by, "at_ms": 0, "revoked": false});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    made::record("key", COUNTY, Some(&format!("{number:010}")), &body.to_string())
}

/// The record of a key that the one before it has signed.
fn succession(number: u32, earlier: &SigningKey, own: &SigningKey) -> Change {
    let id = hashes::key_id(&public(earlier));
    let bytes = hashes::succession_bytes(FEDERATION, COUNTY, &id, &public(own));
    let bytes = hashes::with_context(layout::signature::SUCCESSION, &bytes);
    let signature = earlier.sign(&bytes).to_bytes();
    let signature: String = signature.iter().map(|byte| format!("{byte:02x}")).collect();
    key_record(number, "succession", own, &json!({"countersignature": signature}))
}

#[test]
fn a_key_counts_above_the_one_before_it_and_up_to_its_own_last_number() {
    let mut case = Case::new();
    assert_eq!(case.county("enterprise", 1, &key(2)), Err(UNKNOWN));
    case.write(vec![key_record(1, "enrolment", &key(2), &json!({}))]);
    for seq in [1, 5, 1 << 60] {
        assert_eq!(case.county("enterprise", seq, &key(2)), Ok(()));
    }
    let last = json!({"last": {format!("enterprise/{COUNTY}"): 5}});
    case.write(vec![key_record(1, "enrolment", &key(2), &last), succession(2, &key(2), &key(3))]);
    for (dataset, seq, first, second) in [
        ("enterprise", 1, Ok(()), Err(NOT_HERE)),
        ("enterprise", 5, Ok(()), Err(NOT_HERE)),
        ("enterprise", 6, Err(NOT_HERE), Ok(())),
        // A partition that is not named ends at 0.
        ("person", 1, Err(NOT_HERE), Ok(())),
    ] {
        assert_eq!(case.county(dataset, seq, &key(2)), first, "{dataset} {seq}");
        assert_eq!(case.county(dataset, seq, &key(3)), second, "{dataset} {seq}");
    }
    // The highest of all before it counts, not that of the one just before it.
    case.write(vec![
        key_record(2, "reenrolment", &key(3), &json!({"last": {}})),
        key_record(3, "reenrolment", &key(4), &json!({})),
    ]);
    assert_eq!(case.county("enterprise", 5, &key(4)), Err(NOT_HERE));
    assert_eq!(case.county("enterprise", 6, &key(4)), Ok(()));
    assert_eq!(case.county("enterprise", 6, &key(3)), Err(NOT_HERE));
    // In another federation nobody here counts.
    let mut elsewhere = Origin::new("enterprise", COUNTY).header(&[], Some((1, [1; 32])));
    elsewhere.federation = "other-city".to_owned();
    let elsewhere = SignedHeader::decode(&made::signed(elsewhere, &key(2))).unwrap();
    assert_eq!(case.federation.key_of(&elsewhere), Err(Refused("another federation")));
    // Who was removed has signed what it has signed.
    case.write(vec![made::record(
        "member",
        COUNTY,
        None,
        r#"{"name": "county", "role": "member", "removed": true}"#,
    )]);
    assert!(case.federation.members().is_empty());
    assert_eq!(case.county("enterprise", 5, &key(2)), Ok(()));
}

#[test]
fn last_numbers_go_on_in_records_of_their_own() {
    let mut case = Case::new();
    let last = json!({"last": {format!("a/{COUNTY}"): 5}, "last_records": 2});
    let more = |index: u32, body: &str| {
        made::record("last", COUNTY, Some(&format!("0000000001-{index:010}")), body)
    };
    case.write(vec![
        key_record(1, "enrolment", &key(2), &last),
        more(1, &format!("{{\"b/{COUNTY}\": 7}}")),
    ]);
    assert_eq!(case.county("a", 1, &key(2)), Err(UNKNOWN), "one is missing");
    case.write(vec![more(2, &format!("{{\"c/{COUNTY}\": 9}}"))]);
    for (dataset, last) in [("a", 5), ("b", 7), ("c", 9)] {
        assert_eq!(case.county(dataset, last, &key(2)), Ok(()));
        assert_eq!(case.county(dataset, last + 1, &key(2)), Err(NOT_HERE));
    }
    assert_eq!(case.county("d", 1, &key(2)), Err(NOT_HERE));
    case.write(vec![more(2, &format!("{{\"c/{COUNTY}\": \"9\"}}"))]);
    assert_eq!(case.county("a", 1, &key(2)), Err(UNKNOWN), "one is malformed");
}

#[test]
fn a_malformed_record_is_ignored_alone() {
    let good = || key_record(1, "enrolment", &key(2), &json!({}));
    let text = |change: &Change| match change {
        Change::Put { record, .. } => record.clone(),
        Change::Delete { .. } => panic!("a record"),
    };
    // Each in place of a second key, 3, which then is none.
    let Change::Put { key: elsewhere, .. } = succession(7, &key(2), &key(3)) else {
        panic!("a record");
    };
    let moved = Change::Put { key: elsewhere, record: text(&succession(2, &key(2), &key(3))) };
    for (what, other) in [
        ("another key has signed", succession(2, &key(9), &key(3))),
        ("nobody has signed", key_record(2, "succession", &key(3), &json!({}))),
        ("a key that is there already", key_record(2, "reenrolment", &key(2), &json!({}))),
        ("an unknown reason", key_record(2, "wish", &key(3), &json!({}))),
        ("no number", key_record(0, "reenrolment", &key(3), &json!({}))),
        (
            "numbers that are none",
            key_record(2, "reenrolment", &key(3), &json!({"last": {"a": -1}})),
        ),
        (
            "a key of small order",
            key_record(2, "reenrolment", &key(3), &json!({"public": "00".repeat(32)})),
        ),
        ("no JSON", made::record("key", COUNTY, Some("0000000002"), "no JSON")),
        ("another place", moved),
        (
            "too many records",
            key_record(2, "reenrolment", &key(3), &json!({"last": {}, "last_records": 128})),
        ),
        ("too large", key_record(2, "reenrolment", &key(3), &json!({"x": "x".repeat(61_440)}))),
        ("another kind", made::record("key2", COUNTY, Some("0000000002"), "{}")),
    ] {
        let mut case = Case::new();
        case.write(vec![good(), other]);
        assert_eq!(case.federation.keys(COUNTY).len(), 1, "{what}");
        assert_eq!(case.county("enterprise", 1, &key(2)), Ok(()), "{what}");
        assert_eq!(case.county("enterprise", 1, &key(3)), Err(UNKNOWN), "{what}");
    }
    let mut case = Case::new();
    case.write(vec![good(), succession(2, &key(2), &key(3))]);
    assert_eq!(case.federation.keys(COUNTY).len(), 2);
}

#[test]
fn an_anchor_with_a_base_says_which_key_of_the_hub_counts() {
    // Four change sets by key 1, then two by key 5, which the new anchor names.
    let mut origin = Origin::new(layout::FEDERATION_DATASET, HUB);
    let member = |number: u32| vec![made::record("member", &format!("n{number}"), None, "{}")];
    let mut sets: Vec<(Vec<u8>, Vec<u8>)> =
        (1..=4).map(|number| origin.next(&member(number), None, &key(1))).collect();
    let before = origin.clone();
    sets.extend((5..=6).map(|number| origin.next(&member(number), None, &key(5))));
    let named = origin.hashes[3];
    let fields = AnchorFields {
        epoch: 2,
        base: Some((4, named)),
        earlier: vec![public(&key(1))],
        ..made::fields(&key(5))
    };
    let mut federation = under(&fields);
    for (header, body) in &sets {
        federation.take(header, body).unwrap();
    }
    let system = layout::FEDERATION_DATASET;
    for (seq, first, second) in
        [(3, Ok(()), Err(NOT_HERE)), (5, Err(NOT_HERE), Ok(())), (1 << 60, Err(NOT_HERE), Ok(()))]
    {
        assert_eq!(counts(&federation, system, HUB, seq, &key(1)), first, "{seq}");
        assert_eq!(counts(&federation, system, HUB, seq, &key(5)), second, "{seq}");
    }
    let other = Err(Refused("not the header that the anchor names"));
    assert_eq!(counts(&federation, system, HUB, 4, &key(1)), other);
    // In the hub's other partitions the new key counts, and the earlier one does not.
    assert_eq!(counts(&federation, "enterprise", HUB, 1, &key(5)), Ok(()));
    assert_eq!(counts(&federation, "enterprise", HUB, 1, &key(1)), Err(NOT_HERE));
    assert_eq!(counts(&federation, "enterprise", COUNTY, 1, &key(5)), Err(UNKNOWN));

    // Under an anchor without a base key 1 goes on, and key 5 is nobody's.
    let mut old = under(&made::fields(&key(1)));
    let taken = sets.iter().map(|(header, body)| old.take(header, body)).collect::<Vec<_>>();
    assert_eq!(taken[..5], [Ok(()), Ok(()), Ok(()), Ok(()), Err(UNKNOWN)]);
    let (header, body) = before.clone().next(&member(5), None, &key(1));
    assert_eq!(old.take(&header, &body), Ok(()));
    let mut stolen = under(&fields);
    for (header, body) in &sets[..4] {
        stolen.take(header, body).unwrap();
    }
    assert_eq!(stolen.take(&header, &body), Err(NOT_HERE));
}

/// A `_federation` with a county's key 2 and a schema of two fields.
fn with_schema() -> Case {
    let mut case = Case::new();
    let schema = json!({
        "dataset": "enterprise", "version": 1, "title_zh": "x", "title_en": "x", "key": ["id"],
        "field": [
            {"name": "id", "title_zh": "i", "title_en": "i", "type": "code", "required": true},
            {"name": "area", "title_zh": "a", "title_en": "a", "type": "decimal"},
        ],
    });
    case.write(vec![
        key_record(1, "enrolment", &key(2), &json!({})),
        made::record("schema", "enterprise", Some("0000000001"), &schema.to_string()),
    ]);
    case
}

fn put(id: &str, version: u32, values: &[Value]) -> Change {
    let key = record::encode_key(&[Value::Text(id.to_owned())]);
    Change::Put { key, record: record::encode(version, values) }
}

fn row(id: &str) -> Change {
    put(id, 1, &[Value::Text(id.to_owned()), Value::Decimal("1.5".to_owned())])
}

#[test]
fn what_is_held_is_told_apart_from_a_second_history() {
    let case = with_schema();
    let head = Some((1, case.origin.hashes[0]));
    let mut origin = Origin::new("enterprise", COUNTY);
    let mut replica = Replica::new(&origin.name());
    let mut other = origin.clone();
    let first = origin.next(&[row("a"), row("b")], head, &key(2));
    assert_eq!(replica.take(&case.federation, &first.0, &first.1), Ok(()));
    // Nothing at all, then what deletes nothing, changes no root.
    let root = replica.header(1).unwrap().0.root;
    for changes in [vec![], vec![Change::Delete { key: b"c".to_vec() }]] {
        let (header, body) = origin.next(&changes, head, &key(2));
        assert_eq!(replica.take(&case.federation, &header, &body), Ok(()));
        let (header, _) = replica.header(replica.seq()).unwrap();
        assert_eq!((header.root, header.records), (root, 2));
    }
    assert_eq!(replica.take(&case.federation, &first.0, &first.1), Err(Refused("held already")));
    let fork = other.next(&[row("a")], head, &key(2));
    let refused = replica.take(&case.federation, &fork.0, &fork.1);
    assert_eq!(refused, Err(Refused("a fork: another header of this number")));
    let wrong = origin.next(&[row("d")], Some((1, [9; 32])), &key(2));
    let refused = replica.take(&case.federation, &wrong.0, &wrong.1);
    assert_eq!(refused, Err(Refused("a head of another _federation")));
}

#[test]
fn a_record_that_no_importer_makes_is_refused() {
    let case = with_schema();
    let head = Some((1, case.origin.hashes[0]));
    let take = |change: Change| {
        let mut origin = Origin::new("enterprise", COUNTY);
        let mut replica = Replica::new(&origin.name());
        let (header, body) = origin.next(&[change], head, &key(2));
        replica.take(&case.federation, &header, &body)
    };
    let text = |text: &str| Value::Text(text.to_owned());
    assert_eq!(take(row("a")), Ok(()));
    assert_eq!(take(put("a", 1, &[text("a"), Value::Null])), Ok(()));
    assert_eq!(take(put(" \u{200b}a", 1, &[text(" \u{200b}a"), Value::Null])), Ok(()));
    for blank in [" ", "\u{3000}\n", "\u{200b}", "\u{e0041} \u{ad}"] {
        let refused = take(put(blank, 1, &[text(blank), Value::Null]));
        assert_eq!(refused, Err(Refused("a required field that shows nothing")), "{blank:?}");
    }
    for (change, why) in [
        (put("a", 2, &[text("a"), Value::Null]), "a schema that is not there yet"),
        (put("b", 1, &[text("a"), Value::Null]), "another record's key"),
        (put("a", 1, &[text("a")]), "another number of fields"),
        (put("a", 1, &[text("a"), Value::Null, Value::Null]), "another number of fields"),
        (put("a", 1, &[text("a"), text("1.5")]), "a field of another kind"),
        (put("a", 1, &[Value::Null, Value::Null]), "a field of another kind"),
        (put("a\n", 1, &[text("a\n"), Value::Null]), "a control character"),
        (put("a", 0, &[text("a"), Value::Null]), "a schema version that is none"),
        (put("a\u{1b}", 1, &[text("a\u{1b}"), Value::Null]), "a control character"),
        (put("a\u{9b}", 1, &[text("a\u{9b}"), Value::Null]), "a control character"),
        (Change::Put { key: b"a".to_vec(), record: vec![] }, "cut short"),
    ] {
        assert_eq!(take(change), Err(Refused(why)), "{why}");
    }
}

#[test]
fn a_fork_is_shown_by_a_signature_over_another_history() {
    let mut case = Case::new();
    case.write(vec![key_record(1, "enrolment", &key(2), &json!({}))]);
    let head = Some((1, case.origin.hashes[0]));
    let origin = Origin::new("enterprise", COUNTY);
    let described = origin.header(&[], head);
    let (first, own) =
        (SignedHeader::decode(&made::signed(described.clone(), &key(2))).unwrap().hash, [5; 32]);
    // The third header of a history that begins with the first one.
    let later = |first: &[u8; 32]| {
        let before = [*first, [3; 32]];
        let mut header = described.clone();
        (header.seq, header.previous, header.history) = (3, [3; 32], history::root(&before));
        let proof = Proof { peaks: history::peaks(&before), path: vec![[3; 32]] };
        (made::signed(header, &key(2)), proof)
    };
    let check = |held: [u8; 32], header: &[u8], other, proof: &Proof| {
        check_fork(&case.federation, &origin.name(), (1, &held), header, &other, proof)
    };
    let signed = made::signed(described.clone(), &key(2));
    let (third, proof) = later(&first);
    let none = Proof::default();
    assert_eq!(check(own, &signed, first, &none), Ok(()));
    assert_eq!(check(own, &third, first, &proof), Ok(()));
    for (held, header, other, proof, why) in [
        (first, &signed, first, &none, "the header that is held"),
        (first, &third, first, &proof, "the header that is held"),
        (own, &signed, [6; 32], &none, "another header than the one that it shows"),
        (own, &signed, first, &proof, "a proof of what is shown itself"),
        (own, &third, [6; 32], &proof, "a path to another history"),
        (own, &third, first, &none, "another number of peaks"),
        (own, &made::signed(described, &key(3)), first, &none, "a key that nobody registered"),
    ] {
        assert_eq!(check(held, header, other, proof), Err(Refused(why)), "{why}");
    }
}

#[test]
fn a_head_that_is_too_far_away_is_refused() {
    let mut case = Case::new();
    case.write(vec![key_record(1, "enrolment", &key(2), &json!({}))]);
    let head = Some((1, case.origin.hashes[0]));
    let origin = Origin::new("enterprise", COUNTY);
    // One peak over all headers before it: their number is a power of two.
    let peak = [3; 32];
    let check = |count: u64, own: Option<(u64, &[u8; 32])>| {
        let mut header = origin.header(&[], head);
        (header.seq, header.previous, header.history) = (count + 1, [1; 32], peak);
        let proof = Proof { peaks: vec![peak], path: vec![] };
        let header = made::signed(header, &key(2));
        check_later_head(&case.federation, &origin.name(), own, &header, &proof).map(|_| ())
    };
    assert_eq!(check(1 << 31, None), Ok(()));
    assert_eq!(check(1 << 32, None), Err(Refused("a jump that is too far")));
    // With one of its own it is not too far, but nothing shows the way.
    let refused = check(1 << 32, Some((1, &[1; 32])));
    assert_eq!(refused, Err(Refused("a path of another length")));
}

#[test]
fn a_statement_of_what_is_newest_is_by_a_key_that_counts_behind_it() {
    let mut case = Case::new();
    for number in 1..=2 {
        case.write(vec![made::record("member", &format!("n{number}"), None, "{}")]);
    }
    let head = case.origin.hashes[1];
    let check = |by: &SigningKey, alter: &dyn Fn(&mut FreshnessFields)| {
        let mut fields = FreshnessFields {
            partition: case.origin.name(),
            seq: 2,
            head,
            time_ms: 0,
            key_id: hashes::key_id(&public(by)),
        };
        alter(&mut fields);
        let signed = layout::encode_freshness(&fields);
        let message = hashes::with_context(layout::signature::FRESHNESS, &signed);
        let statement = [&[layout::SUITE], &by.sign(&message).to_bytes()[..], &signed].concat();
        case.federation.check_freshness(&Freshness::decode(&statement).unwrap())
    };
    assert_eq!(check(&key(1), &|_| {}), Ok(()));
    assert_eq!(check(&key(2), &|_| {}), Err(UNKNOWN));
    let other = check(&key(1), &|fields| fields.partition = "a/_federation/410100/*".into());
    assert_eq!(other, Err(Refused("another partition")));
    let later = check(&key(1), &|fields| fields.seq = 3);
    assert_eq!(later, Err(Refused("a head that is not there yet")));
    let fork = check(&key(1), &|fields| fields.head = [7; 32]);
    assert_eq!(fork, Err(Refused("a head of another _federation")));
}
