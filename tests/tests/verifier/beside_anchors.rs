//! What roots and hubs say, beside the program: whose anchor counts and which takes the
//! place of which, and which statements of freshness are the hub's.
//!
//! `FUZZ_SEED` and `FUZZ_ROUNDS` choose other ones, and more of them.

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use certs::enrol::{self, RootOfTrust};
use ed25519_dalek::Signer as _;
use harness::sim::rng::Rng;
use protocol::{freshness::Statement, id::PartitionId};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, PKCS_ECDSA_P256_SHA256,
    PKCS_ECDSA_P384_SHA384, PKCS_ED25519, SignatureAlgorithm,
};
use rustls::pki_types::CertificateDer;

use super::{
    anchor::{Anchor, Freshness, RootKey},
    beside, beside_keys,
    certificate::Certificate,
    change,
    federation::Records,
    hashes,
    layout::{self, AnchorFields, FreshnessFields},
    made::{self, COUNTY, FEDERATION, HUB, public},
    reader::write_bytes,
    tree::State,
};

/// Anchors, and federations, unless `FUZZ_ROUNDS` says otherwise.
const ROUNDS: u64 = 400;
/// Statements under each federation.
const STATEMENTS: u64 = 30;

/// A root's certificate, and its key where it can sign anchors.
struct Root {
    certificate: Vec<u8>,
    key: Option<EcdsaKeyPair>,
}

impl Root {
    fn new(of: &'static SignatureAlgorithm) -> Self {
        let key = KeyPair::generate_for(of).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "root");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap().der().to_vec();
        let pkcs8 = key.serialize_der();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &pkcs8).ok();
        Self { certificate, key }
    }
}

fn some_fields(rng: &mut Rng) -> AnchorFields {
    let mut fields = beside_keys::some_anchor(rng);
    fields.epoch = 1 + u32::try_from(rng.below(4)).unwrap();
    if rng.chance(5) {
        fields.epoch = [0, u32::MAX][rng.index(2)];
    }
    if rng.chance(10) {
        fields.federation = "other-city".to_owned();
    }
    if rng.chance(10) {
        fields.hub = COUNTY.to_owned();
    }
    fields
}

/// An anchor's bytes with a signature by a root, over them or over something near.
fn signed(rng: &mut Rng, fields: &AnchorFields, root: &Root) -> Vec<u8> {
    let mut bytes = layout::encode_anchor(fields);
    let context = [layout::signature::ANCHOR, layout::signature::FRESHNESS, ""];
    let context = context[if rng.chance(95) { 0 } else { rng.index(3) }];
    let message = hashes::with_context(context, &bytes);
    let key = root.key.as_ref().unwrap();
    write_bytes(&mut bytes, key.sign(&SystemRandom::new(), &message).unwrap().as_ref());
    if rng.chance(20) {
        let at = rng.index(bytes.len());
        match rng.below(4) {
            0 => bytes.truncate(at),
            1 => bytes.push(0),
            _ => bytes[at] ^= 1 << rng.below(8),
        }
    }
    bytes
}

#[test]
fn both_believe_the_same_anchors() {
    let (seed, rounds) = (beside::setting("FUZZ_SEED", 1), beside::setting("FUZZ_ROUNDS", ROUNDS));
    println!("seed {seed}");
    let mut rng = Rng::new(seed);
    let p256 = || Root::new(&PKCS_ECDSA_P256_SHA256);
    let roots =
        [p256(), p256(), p256(), Root::new(&PKCS_ECDSA_P384_SHA384), Root::new(&PKCS_ED25519)];
    let no_root = vec![0x30, 0];
    let mut believed: Vec<(Anchor, enrol::Anchor)> = Vec::new();
    for round in 0..rounds {
        let case = format!("seed {seed}, round {round}");
        let fields = some_fields(&mut rng);
        let by = &roots[rng.index(3)];
        let bytes = signed(&mut rng, &fields, by);
        let program = enrol::Anchor::decode(&bytes).ok();
        let mut trusted: Vec<&[u8]> = Vec::new();
        for root in &roots {
            let own = Certificate::read(&root.certificate)
                .and_then(|root| RootKey::new(root.spki))
                .and_then(|key| Anchor::verified(&bytes, &key));
            let of = RootOfTrust::from_certificate(&root.certificate[..].into()).unwrap();
            let theirs = program.as_ref().is_some_and(|anchor| anchor.verify(&of).is_ok());
            assert_eq!(own.is_ok(), theirs, "{case}: {own:?}");
            if rng.chance(40) {
                trusted.push(&root.certificate);
            }
        }
        if rng.chance(20) {
            trusted.insert(rng.index(trusted.len() + 1), &no_root);
        }
        let own = Anchor::verified_by_any(&bytes, &trusted);
        let trusted: Vec<CertificateDer<'_>> = trusted.iter().map(|der| (*der).into()).collect();
        let theirs = program.filter(|anchor| anchor.verify_any(&trusted).is_ok());
        assert_eq!(own.is_ok(), theirs.is_some(), "{case}: {own:?}");
        believed.extend(own.ok().zip(theirs));
    }
    let mut taken = 0;
    for (own, theirs) in &believed {
        for (held, theirs_held) in &believed {
            let takes = own.takes_over(held);
            assert_eq!(takes.is_ok(), theirs.supersedes(theirs_held), "{own:?} for {held:?}");
            taken += u64::from(takes.is_ok());
        }
    }
    let count = believed.len() as u64;
    println!("{count} of {rounds} are believed, {taken} pairs");
    assert!(count > rounds / 10 && count < rounds * 9 / 10);
    assert!(taken > count && taken < count * count / 2);
}

/// A root's key as a token has it: of these bytes each but the first is none.
#[test]
fn both_know_the_same_keys_of_roots() {
    let root = Root::new(&PKCS_ECDSA_P256_SHA256);
    let key = root.key.as_ref().unwrap();
    let prefix = hashes::unhex(layout::P256_KEY_PREFIX).unwrap();
    let point = key.public_key().as_ref();
    let parity = point[64] & 1;
    let compressed = [&[2 + parity], &point[1..33]].concat();
    let hybrid = [&[6 + parity], &point[1..]].concat();
    let longer = [point, &[0]].concat();
    // With the lengths of a shorter point.
    let other_prefix = hashes::unhex("301306072a8648ce3d020106082a8648ce3d030107032200").unwrap();
    let bytes = made::anchor_by(&made::fields(&made::key(1)), key);
    let anchor = enrol::Anchor::decode(&bytes).unwrap();
    let mut different = Vec::new();
    for (what, spki, right) in [
        ("the key", [&prefix, point].concat(), true),
        ("a compressed point", [&prefix, &compressed[..]].concat(), false),
        ("one with lengths of its own", [&other_prefix, &compressed[..]].concat(), false),
        ("a hybrid point", [&prefix, &hybrid[..]].concat(), false),
        ("a longer one", [&prefix, &longer[..]].concat(), false),
        ("a shorter one", [&prefix, &point[..64]].concat(), false),
        ("a point alone", point.to_vec(), false),
        ("nothing", vec![], false),
    ] {
        let own = RootKey::new(&spki).and_then(|key| Anchor::verified(&bytes, &key));
        let theirs = anchor.verify(&RootOfTrust { subject: vec![], spki });
        if [own.is_ok(), theirs.is_ok()] != [right; 2] {
            different.push(format!("{what}: {own:?}, program {theirs:?}"));
        }
    }
    assert!(different.is_empty(), "{different:#?}");
}

/// Names of partitions, of which the hub speaks of the first alone.
fn partition(rng: &mut Rng) -> String {
    let of = |dataset: &str, origin: &str| format!("{FEDERATION}/{dataset}/{origin}/*");
    match rng.below(30) {
        0 => of("a", HUB),
        1 => of(layout::FEDERATION_DATASET, COUNTY),
        2 => of(layout::FEDERATION_DATASET, HUB).replace('*', COUNTY),
        3 => of(layout::FEDERATION_DATASET, HUB).replace(FEDERATION, "other-city"),
        _ => of(layout::FEDERATION_DATASET, HUB),
    }
}

/// A statement by some key, rightly signed or not.
fn statement(rng: &mut Rng) -> Vec<u8> {
    let key = beside_keys::some_key(rng);
    let named = if rng.chance(95) { key.clone() } else { beside_keys::some_key(rng) };
    let fields = FreshnessFields {
        partition: partition(rng),
        seq: match rng.below(20) {
            0 => layout::SEQ_LIMIT - 1,
            1 => 1 << 61,
            _ => 1 + beside_keys::some_seq(rng),
        },
        head: [rng.below(2) as u8; 32],
        time_ms: rng.u64() as i64,
        key_id: hashes::key_id(&public(&named)),
    };
    let signed = layout::encode_freshness(&fields);
    let context = [layout::signature::FRESHNESS, layout::signature::HEADER];
    let message = hashes::with_context(context[usize::from(rng.chance(3))], &signed);
    let signature = key.sign(&message).to_bytes();
    let mut statement = [&[layout::SUITE], &signature[..], &signed].concat();
    if rng.chance(5) {
        let at = rng.index(statement.len());
        statement[at] ^= 1 << rng.below(8);
    }
    statement
}

#[test]
fn both_believe_the_same_statements_of_freshness() {
    let (seed, rounds) = (beside::setting("FUZZ_SEED", 1), beside::setting("FUZZ_ROUNDS", ROUNDS));
    println!("seed {seed}");
    let mut rng = Rng::new(seed);
    let federation = PartitionId::parse_full(&format!("{FEDERATION}/_federation/{HUB}/*")).unwrap();
    let mut believed = 0;
    for round in 0..rounds {
        let fields = beside_keys::some_anchor(&mut rng);
        let mut state = State::new();
        change::apply(&mut state, &beside_keys::of_node(&mut rng, HUB));
        let mut program = beside_keys::registry(&fields);
        for (key, record) in &state {
            // A malformed one is refused, and counts for nothing.
            let _ = program.insert(key, record);
        }
        let records = Records::of(FEDERATION, &state);
        for _ in 0..STATEMENTS {
            let bytes = statement(&mut rng);
            let own = Freshness::decode(&bytes)
                .and_then(|statement| records.check_freshness(&fields, &statement));
            let theirs =
                Statement::decode(&bytes).is_ok_and(|said| said.verify(&federation, &program));
            let case = format!("seed {seed}, round {round}");
            assert!(own.is_ok() == theirs, "{case}: {own:?}, program {theirs}: {bytes:?}");
            believed += u64::from(theirs);
        }
    }
    let all = rounds * STATEMENTS;
    println!("{believed} of {all} are believed");
    assert!(believed > all / 30 && believed < all / 2);
}
