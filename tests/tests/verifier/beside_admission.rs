//! Who is let in behind a handshake, and with which code others are not, beside the
//! program: at the hub and at a member, as `_federation` goes on.
//!
//! `FUZZ_SEED` and `FUZZ_ROUNDS` choose other histories, and longer ones.

use std::collections::BTreeMap;

use certs::{enrol, tls::ALPN, verify::verified_peer};
use daemon::membership::Membership;
use harness::sim::rng::Rng;
use protocol::{sign::SigningKey as ProgramKey, suite::Suite};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256,
    SanType, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use serde_json::json;
use store::{Options, OwnChanges, Store};
use time::OffsetDateTime;

use super::{
    admission::{self, CERTIFICATE_ENDED, Code, NOT_A_MEMBER, REVOKED, SUPERSEDED, Side},
    beside,
    beside_work::for_program,
    change::{self, Change},
    federation::Records,
    made::{self, COUNTY, FEDERATION, HUB},
    tree::State,
};

/// Change sets of `_federation`, unless `FUZZ_ROUNDS` says otherwise.
const ROUNDS: u64 = 60;
const OTHER: &str = "410123";
/// Certificates begin near this second.
const BEGIN_S: i64 = 1_700_000_000;

fn key_pair() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap()
}

/// An authority's name and key.
struct Authority {
    params: CertificateParams,
    key: KeyPair,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self { params, key: key_pair() }
    }

    /// In other bytes each time.
    fn certificate(&self, by: &Self) -> Vec<u8> {
        let issuer = Issuer::from_params(&by.params, &by.key);
        self.params.signed_by(&self.key, &issuer).unwrap().der().to_vec()
    }
}

/// What a leaf says.
struct Leaf<'a> {
    uris: Vec<String>,
    dns_names: Vec<String>,
    serial: &'a [u8],
    begins_s: i64,
}

impl Leaf<'_> {
    fn of(federation: &str, node: &str) -> Self {
        Self {
            uris: vec![uri(federation, node)],
            dns_names: vec![dns_name(federation, node)],
            serial: &[7],
            begins_s: BEGIN_S,
        }
    }

    fn issued(&self, by: &Authority) -> Vec<u8> {
        let mut params = CertificateParams::default();
        let uris = self.uris.iter().map(|uri| SanType::URI(uri.as_str().try_into().unwrap()));
        let names = self.dns_names.iter();
        let names = names.map(|name| SanType::DnsName(name.as_str().try_into().unwrap()));
        params.subject_alt_names = uris.chain(names).collect();
        params.is_ca = IsCa::ExplicitNoCa;
        params.serial_number = Some(SerialNumber::from_slice(self.serial));
        params.not_before = OffsetDateTime::from_unix_timestamp(self.begins_s).unwrap();
        params.not_after = params.not_before + time::Duration::days(40_000);
        let issuer = Issuer::from_params(&by.params, &by.key);
        params.signed_by(&by.key, &issuer).unwrap().der().to_vec()
    }
}

fn uri(federation: &str, node: &str) -> String {
    format!("spiffe://{federation}/node/{node}")
}

fn dns_name(federation: &str, node: &str) -> String {
    format!("{node}.{federation}.creditsync.internal")
}

/// Authorities of the federation by number, and others.
struct Pki {
    root: Authority,
    issuing: Vec<Authority>,
    foreign: Authority,
    /// The first one's name, with a key of its own.
    imitated: Authority,
}

impl Pki {
    fn new() -> Self {
        Self {
            root: Authority::new("root"),
            issuing: ["issuing 1", "issuing 2", "issuing 3"].map(Authority::new).into(),
            foreign: Authority::new("foreign"),
            imitated: Authority::new("issuing 1"),
        }
    }

    /// Of the authority that `_federation` may name: in any bytes, or with another key.
    fn shown(&self, rng: &mut Rng, number: usize) -> Vec<u8> {
        self.issuing[number].certificate(if rng.chance(50) { &self.root } else { &self.foreign })
    }
}

/// Serial numbers that a careful authority writes.
const SERIALS: [&[u8]; 6] = [&[7], &[0], &[0x7f], &[0x80], &[1, 0], &[0xab; 20]];
/// The content of others' INTEGER, which stands in the place of this one.
const REPLACED: [u8; 3] = [0x7a, 0x7b, 0x7c];
const OTHERS: [[u8; 3]; 4] = [[0, 0, 0x80], [0, 0, 0], [0xff, 0xff, 0xff], [0, 0x7f, 0xff]];

/// A chain and what it is.
type Shown = (String, Vec<Vec<u8>>);

/// Chains as some peers show them, right ones and others.
fn chains(rng: &mut Rng, pki: &Pki) -> Vec<Shown> {
    let mut chains: Vec<Shown> = vec![("nothing".to_owned(), vec![])];
    let first = &pki.issuing[0];
    let own = first.certificate(&pki.root);
    for node in [HUB, COUNTY, OTHER] {
        for (number, issuing) in pki.issuing.iter().enumerate() {
            for later in -1..=1 {
                let leaf = Leaf { begins_s: BEGIN_S + later, ..Leaf::of(FEDERATION, node) };
                let what = format!("{node} by {number}, {later}");
                chains.push((what, vec![leaf.issued(issuing), pki.shown(rng, number)]));
            }
        }
        let leaf = Leaf { begins_s: BEGIN_S - 1, ..Leaf::of(FEDERATION, node) };
        let foreign = vec![leaf.issued(&pki.foreign), pki.foreign.certificate(&pki.root)];
        chains.push((format!("{node} by a foreign one"), foreign));
        chains.push((format!("{node} alone"), vec![leaf.issued(&pki.root)]));
        let imitated = vec![leaf.issued(&pki.imitated), pki.imitated.certificate(&pki.root)];
        chains.push((format!("{node} by an imitated one"), imitated));
        let by_root = vec![leaf.issued(&pki.root), pki.root.certificate(&pki.root)];
        chains.push((format!("{node} by a root"), by_root));
        let out_of_order = vec![leaf.issued(first), pki.issuing[1].certificate(&pki.root)];
        chains.push((format!("{node}, another second one"), out_of_order));
        chains.push((format!("{node}, no second one"), vec![leaf.issued(first), vec![0x30, 0]]));
        for serial in SERIALS {
            let leaf = Leaf { serial, ..Leaf::of(FEDERATION, node) };
            chains.push((format!("{node} {serial:?}"), vec![leaf.issued(first), own.clone()]));
        }
        for other in OTHERS {
            let leaf = Leaf { serial: &REPLACED, ..Leaf::of(FEDERATION, node) };
            let mut leaf = leaf.issued(first);
            let at = leaf.windows(3).position(|window| *window == REPLACED).unwrap();
            leaf[at..at + 3].copy_from_slice(&other);
            chains.push((format!("{node} {other:?}"), vec![leaf, own.clone()]));
        }
        // Far from where two digits of a year are enough.
        for begins_s in [0, 2_524_607_999, 2_524_608_000, 4_102_444_800] {
            let leaf = Leaf { begins_s, ..Leaf::of(FEDERATION, node) };
            chains.push((format!("{node} from {begins_s}"), vec![leaf.issued(first), own.clone()]));
        }
    }
    for (uris, dns_names) in names() {
        let what = format!("{uris:?} {dns_names:?}");
        let leaf = Leaf { uris, dns_names, ..Leaf::of(FEDERATION, COUNTY) };
        chains.push((what, vec![leaf.issued(first), own.clone()]));
    }
    chains
}

/// Names of which some make an identity.
fn names() -> Vec<(Vec<String>, Vec<String>)> {
    let own = || (uri(FEDERATION, COUNTY), dns_name(FEDERATION, COUNTY));
    let with_uri = |more: &str| (vec![own().0, more.to_owned()], vec![own().1]);
    let with_name = |more: &str| (vec![own().0], vec![own().1, more.to_owned()]);
    let alone = |uri: &str, name: &str| (vec![uri.to_owned()], vec![name.to_owned()]);
    let of =
        |federation: &str, node: &str| alone(&uri(federation, node), &dns_name(federation, node));
    vec![
        (vec![], vec![own().1]),
        (vec![own().0], vec![]),
        (vec![], vec![]),
        of(FEDERATION, OTHER),
        of("other-city", COUNTY),
        of(FEDERATION, "-a"),
        of(FEDERATION, "a-"),
        of("-a", COUNTY),
        of(FEDERATION, "A"),
        of(FEDERATION, ""),
        of(FEDERATION, "a.b"),
        of(FEDERATION, "a/b"),
        alone(&own().0, &dns_name(FEDERATION, OTHER)),
        alone(&uri(FEDERATION, OTHER), &own().1),
        alone(&own().0.to_uppercase(), &own().1),
        alone(&own().0.replace("spiffe", "SPIFFE"), &own().1),
        alone(&format!("{}/", own().0), &own().1),
        alone(&format!("{}?a", own().0), &own().1),
        alone(&own().0, &own().1.to_uppercase()),
        alone(&own().0, &format!("{}.", own().1)),
        with_uri(&own().0),
        with_uri(&uri(FEDERATION, OTHER)),
        with_uri(&uri("other-city", COUNTY)),
        with_uri(&uri(FEDERATION, "-a")),
        with_uri(&uri(FEDERATION, "A")),
        with_uri("spiffe://other/workload"),
        with_uri("https://example.org/node/410122"),
        with_name(&own().1),
        with_name(&own().1.to_uppercase()),
        with_name(&dns_name(FEDERATION, OTHER)),
        with_name(&dns_name(FEDERATION, OTHER).to_uppercase()),
        with_name(&format!("{}.", dns_name(FEDERATION, OTHER))),
        with_name("x.creditsync.internal"),
        with_name("*.creditsync.internal"),
        with_name("creditsync.internal"),
        with_name(".creditsync.internal"),
        with_name("notcreditsync.internal"),
        with_name("server.example.org"),
    ]
}

/// Some records in the place of others, and some that go.
fn some_changes(rng: &mut Rng, pki: &Pki, state: &State) -> Vec<Change> {
    let mut changes = BTreeMap::new();
    let mut put = |change: Change| _ = changes.insert(change.key().to_vec(), change);
    for _ in 0..1 + rng.below(4) {
        let node = [HUB, COUNTY, COUNTY, COUNTY, OTHER][rng.index(5)];
        put(match rng.below(10) {
            0..4 => {
                let role = if (node == HUB) ^ rng.chance(5) { "hub" } else { "member" };
                let mut body = json!({"name": "x", "role": role});
                if rng.chance(20) {
                    body["removed"] = json!(rng.chance(80));
                }
                if rng.chance(50) {
                    let odd = [json!(null), json!(-1), json!(i64::MAX), json!(2_524_608_000u64)];
                    body["certificates_from"] = match rng.index(6) {
                        at @ 0..4 => odd[at].clone(),
                        _ => json!(BEGIN_S + 1 - rng.below(3) as i64),
                    };
                }
                if rng.chance(4) {
                    body["role"] = json!("Hub");
                }
                made::record("member", node, None, &body.to_string())
            }
            4..6 => {
                let parts = ["", "07", "00", "7f", "80", "0080", "0100", "ffffff", "7fff"];
                let part = parts[rng.index(parts.len())];
                // The whole node seldom, or nothing else is met.
                let part = if part.is_empty() && rng.chance(50) { "7" } else { part };
                let part = Some(part).filter(|part| !part.is_empty());
                made::record("revocation", node, part, r#"{"at_ms": 7, "reason": "x"}"#)
            }
            _ => {
                let of = rng.index(3);
                let certificate = if rng.chance(10) { vec![0x30, 0] } else { pki.shown(rng, of) };
                let state = ["next", "active", "retiring", "retired"][rng.index(4)];
                let mut body = json!({"certificate": beside::hex(&certificate), "state": state});
                let number = format!("{:010}", 1 + rng.below(4));
                let kind = if rng.chance(20) { "root" } else { "issuing" };
                if kind == "issuing" {
                    body["root"] = json!(1);
                } else if rng.chance(50) {
                    let certificate = pki.root.certificate(&pki.root);
                    body["certificate"] = json!(beside::hex(&certificate));
                }
                made::record("ca", kind, Some(&number), &body.to_string())
            }
        });
    }
    for key in state.keys().filter(|_| rng.chance(15)) {
        changes.insert(key.clone(), Change::Delete { key: key.clone() });
    }
    changes.into_values().collect()
}

/// A hub's store with what the hub and a member think of it.
struct Program {
    store: Store,
    hub: Membership,
    member: Membership,
    _dir: tempfile::TempDir,
}

impl Program {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { suite: Suite::One, cache_mb: 16, disk_reserve_mb: Some(0) };
        let store = Store::open(&dir.path().join("store"), &options).unwrap();
        let key: ProgramKey = Suite::One.signing_key(&[1; 32]).unwrap();
        let anchor = enrol::Anchor {
            federation: FEDERATION.parse().unwrap(),
            hub: HUB.parse().unwrap(),
            hub_key: key.public(),
            epoch: 1,
            base: None,
            earlier: vec![],
            signature: vec![],
        };
        store.set_signer(key.into());
        let of = |me: &str| Membership::new(store.clone(), anchor.clone(), me.parse().unwrap());
        Self { hub: of(HUB), member: of(COUNTY), store, _dir: dir }
    }

    fn commit(&self, changes: &[Change]) {
        let partition = self.hub.partition().clone();
        let changes = for_program(changes);
        let own = OwnChanges { partition, changes, schema_version: 1, keep_body: true };
        self.store.commit_own_later(own).unwrap().wait().unwrap();
    }

    fn admits(&self, is_hub: bool, chain: &[Vec<u8>]) -> Result<(), Code> {
        let membership = if is_hub { &self.hub } else { &self.member };
        let chain: Vec<CertificateDer<'_>> = chain.iter().map(|der| der[..].into()).collect();
        // The network closes with this code whatever is wrong here.
        let peer = verified_peer(Some(ALPN), Some(&chain), &FEDERATION.parse().unwrap())
            .map_err(|_| NOT_A_MEMBER)?;
        membership.admits(&peer).map_err(|why| why.code().as_u32().into())
    }
}

#[test]
fn both_let_the_same_peers_in_and_say_the_same_to_others() {
    let (seed, rounds) = (beside::setting("FUZZ_SEED", 1), beside::setting("FUZZ_ROUNDS", ROUNDS));
    println!("seed {seed}");
    let mut rng = Rng::new(seed);
    let (pki, program) = (Pki::new(), Program::new());
    let chains = chains(&mut rng, &pki);
    let mut state = State::new();
    let mut said: BTreeMap<Code, u64> = BTreeMap::new();
    let mut different: BTreeMap<String, String> = BTreeMap::new();
    for round in 0..rounds {
        let changes = some_changes(&mut rng, &pki, &state);
        program.commit(&changes);
        change::apply(&mut state, &changes);
        let records = Records::of(FEDERATION, &state);
        for is_hub in [true, false] {
            let side = Side { federation: FEDERATION, hub: HUB, is_hub };
            for (what, chain) in &chains {
                let own = admission::admits(side, &records, chain);
                let theirs = program.admits(is_hub, chain);
                *said.entry(own.err().unwrap_or_default()).or_default() += 1;
                if own != theirs {
                    let told = format!("{what}: {own:?}, program {theirs:?}");
                    let Records { members, revoked, .. } = &records;
                    let case = format!("round {round}, hub {is_hub}: {members:?} {revoked:?}");
                    different.entry(told).or_insert(case);
                }
            }
        }
    }
    println!("said {said:?}");
    assert!(different.is_empty(), "seed {seed}: {} {different:#?}", different.len());
    for code in [0, NOT_A_MEMBER, REVOKED, CERTIFICATE_ENDED, SUPERSEDED] {
        assert!(said.get(&code) > Some(&rounds), "{code} is hardly said: {said:?}");
    }
}
