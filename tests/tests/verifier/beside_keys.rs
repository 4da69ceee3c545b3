//! Which key counts for which number, beside the program: under an anchor with a base
//! or without one, whatever the records of keys say, in whatever order they come.
//!
//! `FUZZ_SEED` and `FUZZ_ROUNDS` choose other records, and more of them.

use std::sync::LazyLock;

use ed25519_dalek::{Signer as _, SigningKey};
use harness::sim::rng::Rng;
use protocol::{
    change::{Change as ProgramChange, KeyRing as _, Position},
    federation::{Anchored, Registry},
    id::PartitionId,
    suite::{Suite, hash::Hash as ProgramHash},
};
use serde_json::{Value, json};

use super::{
    beside,
    change::{self, Change},
    federation::Records,
    hashes,
    layout::{self, AnchorFields},
    made::{self, COUNTY, FEDERATION, HUB, key, public},
    tree::State,
};

/// Federations, unless `FUZZ_ROUNDS` says otherwise.
const ROUNDS: u64 = 600;
/// Keys that may be somebody's; the first is mostly the anchor's.
const KEYS: u64 = 6;
const DATASETS: [&str; 3] = [layout::FEDERATION_DATASET, "a", "b"];
/// Numbers that are asked for; `last` numbers are below the last but one.
const PLACES: [u64; 8] = [1, 2, 3, 4, 5, 6, 7, 1 << 61];

/// The ids of the keys by their bytes, and of one more than is anybody's.
static IDS: LazyLock<[hashes::Hash; 8]> =
    LazyLock::new(|| [0, 1, 2, 3, 4, 5, 6, 7].map(|byte| hashes::key_id(&public(&key(byte)))));

pub fn some_key(rng: &mut Rng) -> SigningKey {
    key(u8::try_from(1 + rng.below(KEYS)).unwrap())
}

pub fn some_seq(rng: &mut Rng) -> u64 {
    rng.below(6)
}

pub fn some_anchor(rng: &mut Rng) -> AnchorFields {
    let mut fields = made::fields(&if rng.chance(70) { key(1) } else { some_key(rng) });
    if rng.chance(60) {
        fields.epoch = 2;
        fields.base = Some((1 + some_seq(rng), [7; 32]));
        // Its own is none of them.
        let earlier = (0..6).map(|_| public(&some_key(rng)));
        fields.earlier = earlier.filter(|key| *key != fields.hub_key).take(3).collect();
    }
    fields
}

pub fn program_hash(hash: &hashes::Hash) -> ProgramHash {
    ProgramHash::from_bytes(Suite::One, hash).unwrap()
}

pub fn registry(fields: &AnchorFields) -> Registry {
    let of = |bytes: &[u8; 32]| Suite::One.public_key(bytes).unwrap();
    Registry::new(Anchored {
        federation: FEDERATION.parse().unwrap(),
        hub: HUB.parse().unwrap(),
        hub_key: of(&fields.hub_key),
        base: fields.base.map(|(seq, hash)| Position { seq, hash: program_hash(&hash) }),
        earlier: fields.earlier.iter().map(of).collect(),
    })
}

/// Last numbers of some partitions of a node, and now and then of another's.
fn numbers(rng: &mut Rng, node: &str) -> Value {
    let mut numbers = json!({});
    for dataset in DATASETS {
        if rng.chance(50) {
            numbers[format!("{dataset}/{node}")] = json!(some_seq(rng));
        }
    }
    if rng.chance(5) {
        numbers["a/other"] = json!(some_seq(rng));
    }
    numbers
}

fn countersignature(node: &str, earlier: &SigningKey, own: &SigningKey) -> String {
    let id = hashes::key_id(&public(earlier));
    let bytes = hashes::succession_bytes(FEDERATION, node, &id, &public(own));
    beside::hex(
        &earlier.sign(&hashes::with_context(layout::signature::SUCCESSION, &bytes)).to_bytes(),
    )
}

/// A key's record, and further last numbers of it.
fn key_records(
    rng: &mut Rng,
    node: &str,
    number: u32,
    before: Option<&SigningKey>,
) -> (SigningKey, Vec<Change>) {
    let own = some_key(rng);
    let by = ["anchor", "enrolment", "succession", "succession", "reenrolment"][rng.index(5)];
    let mut body = json!({"public": beside::hex(&public(&own)), "by": by, "at_ms": 7, "revoked": rng.chance(30)});
    if by == "succession" || rng.chance(10) {
        let signer = before.filter(|_| rng.chance(90)).cloned().unwrap_or_else(|| some_key(rng));
        body["countersignature"] = json!(countersignature(node, &signer, &own));
    }
    if rng.chance(60) {
        body["last"] = numbers(rng, node);
    }
    let further = rng.below(3);
    if rng.chance(40) {
        body["last_records"] = json!(further);
    }
    if rng.chance(4) {
        body.as_object_mut().unwrap().remove("at_ms");
    }
    let part = format!("{number:010}");
    let mut records = vec![made::record("key", node, Some(&part), &body.to_string())];
    for index in 1..=further {
        if rng.chance(90) {
            let part = format!("{part}-{index:010}");
            records.push(made::record("last", node, Some(&part), &numbers(rng, node).to_string()));
        }
    }
    (own, records)
}

/// Records of a node's keys, of which some are malformed or do not fit.
pub fn of_node(rng: &mut Rng, node: &str) -> Vec<Change> {
    let mut records = Vec::new();
    let (mut number, mut before) = (0, None);
    for _ in 0..rng.index(5) {
        number += 1 + u32::from(rng.chance(10));
        let (own, more) = key_records(rng, node, number, before.as_ref());
        records.extend(more);
        // Another one's predecessor if this one counts for nothing.
        if rng.chance(90) {
            before = Some(own);
        }
    }
    records
}

pub fn shuffled<T>(rng: &mut Rng, mut items: Vec<T>) -> Vec<T> {
    for at in (1..items.len()).rev() {
        items.swap(at, rng.index(at + 1));
    }
    items
}

/// Deletes some records and puts others in the place of some.
fn some_changes(rng: &mut Rng, state: &State) -> Vec<Change> {
    let others = [of_node(rng, COUNTY), of_node(rng, HUB)].concat();
    let gone = state.keys().map(|key| Change::Delete { key: key.clone() });
    let mut changes: Vec<Change> =
        others.into_iter().chain(gone).filter(|_| rng.chance(30)).collect();
    changes = made::in_order(changes);
    changes.dedup_by(|left, right| left.key() == right.key());
    changes
}

fn for_program(changes: &[Change]) -> Vec<ProgramChange> {
    let change = |change: &Change| match change.clone() {
        Change::Put { key, record } => ProgramChange::Put { key, value: record },
        Change::Delete { key } => ProgramChange::Delete { key },
    };
    changes.iter().map(change).collect()
}

/// A federation as both sides see it.
struct Both {
    fields: AnchorFields,
    own: Records,
    program: Registry,
}

impl Both {
    fn keys_of(&self, node: &str) -> [Vec<(u32, Vec<u8>)>; 2] {
        let own = self.own.keys.get(node).into_iter().flatten();
        let program = self.program.keys(&node.parse().unwrap()).iter();
        [
            own.map(|key| (key.number, key.public.to_vec())).collect(),
            program.map(|key| (key.number, key.public.as_bytes().to_vec())).collect(),
        ]
    }

    /// Whether the key with an id counts at a place.
    fn counts(&self, place: (&str, &str, u64), id: &hashes::Hash) -> [bool; 2] {
        let (dataset, node, seq) = place;
        let federation = FEDERATION.parse().unwrap();
        let partition =
            PartitionId::own(&federation, &dataset.parse().unwrap(), &node.parse().unwrap());
        let program = self.program.key(&partition, seq, &program_hash(id));
        let own = self.own.counting(&self.fields, place, id);
        [own.is_ok(), program.is_ok()]
    }

    /// A node's keys and the anchor's, each by the byte that it was made of.
    fn told(&self, node: &str) -> String {
        let name = |of: &[u8; 32]| (1..=7).find(|byte| public(&key(*byte)) == *of);
        let keys = self.own.keys.get(node).into_iter().flatten();
        let keys: Vec<_> =
            keys.map(|key| (key.number, name(&key.public), key.last.clone())).collect();
        let AnchorFields { hub_key, base, earlier, .. } = &self.fields;
        let earlier: Vec<_> = earlier.iter().map(name).collect();
        format!(
            "keys {keys:?}, the anchor's {:?}, base {:?}, earlier {earlier:?}",
            name(hub_key),
            base.map(|(seq, _)| seq)
        )
    }

    /// Asks for every key at every place; how many count.
    fn compare(&self, case: &str) -> u64 {
        let mut counted = 0;
        for node in [HUB, COUNTY] {
            let [own, program] = self.keys_of(node);
            assert_eq!(own, program, "{case}: keys of {node}");
            // `_federation` is the hub's alone.
            for dataset in DATASETS.into_iter().filter(|name| node == HUB || *name != DATASETS[0]) {
                for (seq, byte) in
                    PLACES.iter().flat_map(|seq| (1..IDS.len()).map(move |byte| (*seq, byte)))
                {
                    let [own, program] = self.counts((dataset, node, seq), &IDS[byte]);
                    let place = format!("{dataset}/{node} {seq}");
                    let told = || self.told(node);
                    assert!(own == program, "{case}: key {byte} at {place} {own}: {}", told());
                    counted += u64::from(own);
                }
            }
        }
        counted
    }
}

#[test]
fn the_same_keys_count_for_both() {
    let (seed, rounds) = (beside::setting("FUZZ_SEED", 1), beside::setting("FUZZ_ROUNDS", ROUNDS));
    println!("seed {seed}");
    let mut rng = Rng::new(seed);
    let (mut asked, mut counted) = (0, 0);
    for round in 0..rounds {
        let fields = some_anchor(&mut rng);
        let mut state = State::new();
        let records = [of_node(&mut rng, COUNTY), of_node(&mut rng, HUB)].concat();
        change::apply(&mut state, &records);
        let mut program = registry(&fields);
        for (key, record) in shuffled(&mut rng, state.clone().into_iter().collect()) {
            // A malformed one is refused, and counts for nothing.
            let _ = program.insert(&key, &record);
        }
        let mut both = Both { own: Records::of(FEDERATION, &state), fields, program };
        counted += both.compare(&format!("seed {seed}, round {round}"));
        let changes = some_changes(&mut rng, &state);
        change::apply(&mut state, &changes);
        both.own = Records::of(FEDERATION, &state);
        both.program.apply(&for_program(&changes)).expect("few records leave nothing out");
        counted += both.compare(&format!("seed {seed}, round {round}, behind changes"));
        asked += 2 * (2 * DATASETS.len() as u64 - 1) * PLACES.len() as u64 * 7;
    }
    println!("{counted} of {asked} count");
    assert!(counted > asked / 20 && counted < asked / 2, "{counted} of {asked} count");
}

#[test]
fn only_the_header_that_the_anchor_names_has_its_number() {
    let fields = AnchorFields {
        epoch: 2,
        base: Some((4, [7; 32])),
        earlier: vec![public(&key(2))],
        ..made::fields(&key(1))
    };
    let program = registry(&fields);
    let federation = FEDERATION.parse().unwrap();
    let allows = |dataset: &str, node: &str, seq: u64, byte: u8| {
        let partition =
            PartitionId::own(&federation, &dataset.parse().unwrap(), &node.parse().unwrap());
        program.allows(&partition, Position { seq, hash: program_hash(&[byte; 32]) })
    };
    assert!(allows(layout::FEDERATION_DATASET, HUB, 4, 7));
    assert!(!allows(layout::FEDERATION_DATASET, HUB, 4, 8));
    assert!(allows(layout::FEDERATION_DATASET, HUB, 3, 8));
    assert!(allows(layout::FEDERATION_DATASET, HUB, 5, 8));
    assert!(allows("a", HUB, 4, 8));
}

/// A federation whose hub has these keys, by number, under an anchor with key 1 and the
/// base 4.
fn with_hub_keys(keys: &[(u8, Option<u64>)]) -> Both {
    let fields = AnchorFields {
        epoch: 2,
        base: Some((4, [7; 32])),
        earlier: vec![public(&key(2))],
        ..made::fields(&key(1))
    };
    let (mut state, mut program) = (State::new(), registry(&fields));
    for (number, (byte, last)) in (1..).zip(keys) {
        let last = last.map(|last| json!({format!("{}/{HUB}", layout::FEDERATION_DATASET): last}));
        let public = beside::hex(&public(&key(*byte)));
        let body =
            json!({"public": public, "by": "anchor", "at_ms": 7, "last": last, "revoked": false});
        let record = made::record("key", HUB, Some(&format!("{number:010}")), &body.to_string());
        change::apply(&mut state, &[record]);
    }
    for (key, record) in &state {
        program.insert(key, record).unwrap();
    }
    Both { fields, own: Records::of(FEDERATION, &state), program }
}

#[test]
fn a_base_is_the_last_number_of_the_keys_before_the_anchors() {
    let counts = |both: &Both, byte: usize, seqs: &[u64]| -> Vec<[bool; 2]> {
        let place = |seq| (layout::FEDERATION_DATASET, HUB, seq);
        seqs.iter().map(|seq| both.counts(place(*seq), &IDS[byte])).collect()
    };
    let of = |own: &[bool]| own.iter().map(|counts| [*counts; 2]).collect::<Vec<_>>();
    // A key that has no last number ends there, and leaves nothing to those behind it
    // that end there too.
    let both = with_hub_keys(&[(2, None), (3, None)]);
    assert_eq!(counts(&both, 2, &[1, 4, 5]), of(&[true, true, false]));
    assert_eq!(counts(&both, 3, &[1, 4, 5]), of(&[false, false, false]));
    // So does one that has a higher one: the anchor's own key goes on from the base.
    let both = with_hub_keys(&[(2, Some(6)), (1, None)]);
    assert_eq!(counts(&both, 2, &[4, 5, 6]), of(&[true, false, false]));
    assert_eq!(counts(&both, 1, &[4, 5, 6, 7]), of(&[false, true, true, true]));
    // A lower one stays.
    let both = with_hub_keys(&[(2, Some(2)), (3, None), (1, None)]);
    assert_eq!(counts(&both, 2, &[2, 3]), of(&[true, false]));
    assert_eq!(counts(&both, 3, &[2, 3, 4, 5]), of(&[false, true, true, false]));
    assert_eq!(counts(&both, 1, &[4, 5]), of(&[false, true]));
}

#[test]
fn both_read_more_keys_of_a_node_than_a_hub_grants_on_request() {
    const KEYS: u32 = 1003;
    let of = |number: u32| {
        let mut seed = [9; 32];
        seed[..4].copy_from_slice(&number.to_be_bytes());
        public(&SigningKey::from_bytes(&seed))
    };
    let fields = made::fields(&key(1));
    let (mut state, mut program) = (State::new(), registry(&fields));
    for number in 1..=KEYS {
        // Each ends where the next one begins.
        let last = (number < KEYS).then(|| json!({format!("a/{COUNTY}"): number}));
        let public = beside::hex(&of(number));
        let body = json!({"public": public, "by": "reenrolment", "at_ms": 7, "last": last, "revoked": false});
        let record = made::record("key", COUNTY, Some(&format!("{number:010}")), &body.to_string());
        change::apply(&mut state, &[record]);
    }
    for (key, record) in &state {
        program.insert(key, record).unwrap();
    }
    let both = Both { own: Records::of(FEDERATION, &state), fields, program };
    for number in [1, 2, 999, 1000, 1001, KEYS] {
        let id = hashes::key_id(&of(number));
        for seq in [number - 1, number, number + 1] {
            let is_last = number == KEYS && seq > number;
            let counts = seq == number || is_last;
            let place = ("a", COUNTY, u64::from(seq));
            assert_eq!(both.counts(place, &id), [counts; 2], "key {number} at {seq}");
        }
    }
}
