//! Whom a member joins, beside the program: a hub that is not the real one answers with
//! what it likes, and the verifier and `join` have to take the same.
//!
//! `FUZZ_SEED` and `FUZZ_ROUNDS` choose which defects come together, and how often.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use certs::{credentials::Credentials, identity::Identity, tls::server_config};
use daemon::app::{dir::NodeDir, member::join::join};
use harness::sim::rng::Rng;
use protocol::suite::Suite;
use quinn::crypto::rustls::QuicServerConfig;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, IsCa, Issuer,
    KeyPair, PKCS_ECDSA_P256_SHA256, PublicKey, PublicKeyData, SanType,
};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use super::{
    Checked, beside,
    certificate::Certificate,
    enrolment, ensure,
    frames::Encoder,
    layout,
    made::{self, COUNTY, FEDERATION, HUB, Origin, key, public},
    messages::{self, JoinRequest},
    token::Token,
};
use crate::peer::{Stream, soon};

/// Joins with some defects together, unless `FUZZ_ROUNDS` says otherwise.
const ROUNDS: u64 = 12;

/// An authority's name and key.
struct Authority {
    params: CertificateParams,
    key: KeyPair,
}

impl Authority {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self { params, key }
    }

    /// In other bytes each time.
    fn certificate(&self, by: &Self) -> Vec<u8> {
        self.params.signed_by(&self.key, &by.issuer()).unwrap().der().to_vec()
    }

    fn root(&self) -> Vec<u8> {
        self.certificate(self)
    }

    fn issuer(&self) -> Issuer<'_, &KeyPair> {
        Issuer::from_params(&self.params, &self.key)
    }

    /// A certificate with a node's names, and others.
    fn leaf(&self, federation: &str, node: &str, of: &impl PublicKeyData) -> Vec<u8> {
        let mut params = CertificateParams::default();
        let uri = format!("spiffe://{federation}/node/{node}");
        let dns = format!("{node}.{federation}.creditsync.internal");
        params.subject_alt_names = vec![
            SanType::URI(uri.as_str().try_into().unwrap()),
            SanType::DnsName(dns.as_str().try_into().unwrap()),
        ];
        params.signed_by(of, &self.issuer()).unwrap().der().to_vec()
    }
}

/// Authorities, and keys of nodes that are not the member's.
struct Pki {
    root: Authority,
    newer: Authority,
    other: Authority,
    /// The root's name with another key.
    imitated: Authority,
    issuing: Authority,
    /// The issuing one's name with another key.
    forged: Authority,
    hub: KeyPair,
    stranger: KeyPair,
}

impl Pki {
    fn new() -> Self {
        let key = || KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        Self {
            root: Authority::new("root"),
            newer: Authority::new("newer root"),
            other: Authority::new("other"),
            imitated: Authority::new("root"),
            issuing: Authority::new("issuing"),
            forged: Authority::new("issuing"),
            hub: key(),
            stranger: key(),
        }
    }

    fn sign(&self) -> EcdsaKeyPair {
        let pkcs8 = self.root.key.serialize_der();
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &pkcs8).unwrap()
    }
}

/// How the leaf of the member comes to be.
type Leaf = fn(&Pki, &PublicKey) -> Vec<u8>;

/// A token as an honest hub makes it.
pub fn honest_token() -> Token {
    Plan::new(&Pki::new(), SocketAddr::from(([127, 0, 0, 1], 7))).token
}

/// What a member is given, and what answers it.
struct Plan {
    token: Token,
    /// The token's text with something in it.
    text: fn(String) -> String,
    hub_chain: Vec<Vec<u8>>,
    leaf: Leaf,
    above: Vec<Vec<u8>>,
    root: Vec<u8>,
    /// Change sets of `_federation` and others, each as a frame's body.
    sets: Vec<Vec<u8>>,
    /// What is said otherwise.
    alter: fn(&mut Vec<Vec<u8>>),
}

/// Something that is not as it should be; whether a member may take it all the same.
type Defect = (&'static str, bool, fn(&Pki, &mut Plan));

fn set((header, body): (Vec<u8>, Vec<u8>)) -> Vec<u8> {
    Encoder::default().varint(1).bytes(&header).bytes(&body).body()
}

fn done() -> Vec<u8> {
    Encoder::default().varint(2).body()
}

fn member(node: &str) -> Vec<super::change::Change> {
    vec![made::record("member", node, None, r#"{"name": "x", "role": "member"}"#)]
}

/// The hub's first change sets, and the partition behind them.
fn written(dataset: &'static str, node: &'static str, by: u8) -> (Origin, Vec<Vec<u8>>) {
    let mut origin = Origin::new(dataset, node);
    let head = (dataset != layout::FEDERATION_DATASET).then_some((1, [1; 32]));
    let sets = ["a", "b", "c"].map(|node| set(origin.next(&member(node), head, &key(by))));
    (origin, sets.into())
}

fn federation() -> (Origin, Vec<Vec<u8>>) {
    written(layout::FEDERATION_DATASET, HUB, 1)
}

impl Plan {
    /// As an honest hub does it.
    fn new(pki: &Pki, address: SocketAddr) -> Self {
        let root = pki.root.root();
        let read = Certificate::read(&root).unwrap();
        let (origin, sets) = federation();
        let token = Token {
            anchor: made::anchor_by(&made::fields(&key(1)), &pki.sign()),
            root_subject: read.subject.to_vec(),
            root_spki: read.spki.to_vec(),
            node: COUNTY.to_owned(),
            display_name: "县".to_owned(),
            addresses: vec![address.to_string()],
            federation_seq: 2,
            federation_head: origin.hashes[1],
            end_s: i64::MAX,
            id: [5; 8],
            secret: [6; 32],
        };
        let issuing = pki.issuing.certificate(&pki.root);
        Self {
            hub_chain: vec![pki.issuing.leaf(FEDERATION, HUB, &pki.hub), issuing.clone()],
            token,
            text: |text| text,
            leaf: |pki, asked| pki.issuing.leaf(FEDERATION, COUNTY, asked),
            above: vec![issuing],
            root,
            sets,
            alter: |_| (),
        }
    }

    /// The whole answer to a request.
    fn answer(&self, pki: &Pki, request: &JoinRequest) -> Vec<Vec<u8>> {
        let csr = request.request[..].into();
        let csr = CertificateSigningRequestParams::from_der(&csr).unwrap();
        let chain = [&[(self.leaf)(pki, &csr.public_key)][..], &self.above].concat();
        let accepted = Encoder::default().varint(0).varint(chain.len() as u64);
        let accepted = chain.iter().fold(accepted, |encoder, der| encoder.bytes(der));
        let accepted = accepted.bytes(&self.root).body();
        let mut answer = [&[accepted][..], &self.sets, &[done()]].concat();
        (self.alter)(&mut answer);
        answer
    }
}

const DEFECTS: &[Defect] = &[
    ("a token with spaces", true, |_, plan| {
        plan.text = |text| format!(" {}\u{200b}\n{}\u{feff}", &text[..40], &text[40..]);
    }),
    ("a token cut short", false, |_, plan| plan.text = |text| text[..text.len() - 1].to_owned()),
    ("a token with another digit", false, |_, plan| {
        plan.text = |text| {
            format!(
                "{}{}{}",
                &text[..40],
                if &text[40..41] == "A" { "B" } else { "A" },
                &text[41..]
            )
        };
    }),
    ("a token of another version", false, |_, plan| {
        plan.text = |text| text.replacen("-1.", "-2.", 1);
    }),
    ("a token with padding", false, |_, plan| plan.text = |text| format!("{text}=")),
    ("another root's subject in the token", false, |pki, plan| {
        let root = pki.other.root();
        plan.token.root_subject = Certificate::read(&root).unwrap().subject.to_vec();
    }),
    ("another root's key in the token", false, |pki, plan| {
        let root = pki.imitated.root();
        plan.token.root_spki = Certificate::read(&root).unwrap().spki.to_vec();
    }),
    ("an anchor by another root", false, |_, plan| {
        plan.token.anchor = made::anchor(&made::fields(&key(1)));
    }),
    ("an anchor with another key", false, |pki, plan| {
        plan.token.anchor = made::anchor_by(&made::fields(&key(2)), &pki.sign());
    }),
    ("an anchor of another federation", false, |pki, plan| {
        let fields = layout::AnchorFields { federation: "other".into(), ..made::fields(&key(1)) };
        plan.token.anchor = made::anchor_by(&fields, &pki.sign());
    }),
    ("an anchor with another hub", false, |pki, plan| {
        let fields = layout::AnchorFields { hub: "410199".into(), ..made::fields(&key(1)) };
        plan.token.anchor = made::anchor_by(&fields, &pki.sign());
    }),
    ("an anchor with a base", true, |pki, plan| {
        let (origin, _) = federation();
        let fields = layout::AnchorFields {
            epoch: 2,
            base: Some((3, origin.hashes[2])),
            earlier: vec![public(&key(1))],
            ..made::fields(&key(2))
        };
        plan.token.anchor = made::anchor_by(&fields, &pki.sign());
    }),
    ("an anchor with a base before the end", false, |pki, plan| {
        let (origin, _) = federation();
        let fields = layout::AnchorFields {
            epoch: 2,
            base: Some((2, origin.hashes[1])),
            earlier: vec![public(&key(1))],
            ..made::fields(&key(2))
        };
        plan.token.anchor = made::anchor_by(&fields, &pki.sign());
    }),
    ("an anchor with another base", false, |pki, plan| {
        let fields = layout::AnchorFields {
            epoch: 2,
            base: Some((3, [9; 32])),
            earlier: vec![public(&key(1))],
            ..made::fields(&key(2))
        };
        plan.token.anchor = made::anchor_by(&fields, &pki.sign());
    }),
    ("a hub by another root", false, |pki, plan| {
        plan.hub_chain[1] = pki.issuing.certificate(&pki.other);
    }),
    ("a hub by an imitated root", false, |pki, plan| {
        plan.hub_chain[1] = pki.issuing.certificate(&pki.imitated);
    }),
    ("a hub by a forged authority", false, |pki, plan| {
        plan.hub_chain[0] = pki.forged.leaf(FEDERATION, HUB, &pki.hub);
    }),
    ("a hub without its authority", false, |_, plan| plan.hub_chain.truncate(1)),
    ("a hub by a newer root", true, |pki, plan| {
        plan.hub_chain[1] = pki.issuing.certificate(&pki.newer);
        plan.hub_chain.push(pki.newer.certificate(&pki.root));
    }),
    ("another node than the hub", false, |pki, plan| {
        plan.hub_chain[0] = pki.issuing.leaf(FEDERATION, "410199", &pki.hub);
    }),
    ("a hub of another federation", false, |pki, plan| {
        plan.hub_chain[0] = pki.issuing.leaf("other", HUB, &pki.hub);
    }),
    ("the root in other bytes", true, |pki, plan| plan.root = pki.root.root()),
    ("another root", false, |pki, plan| plan.root = pki.other.root()),
    ("an imitated root", false, |pki, plan| plan.root = pki.imitated.root()),
    ("the root's key under another's name", false, |pki, plan| {
        plan.root = pki.root.certificate(&pki.other);
        let params = pki.other.params.clone();
        let issuer = pki.other.issuer();
        plan.root = params.signed_by(&pki.root.key, &issuer).unwrap().der().to_vec();
    }),
    ("the root by another one", true, |pki, plan| plan.root = pki.root.certificate(&pki.other)),
    ("no root", false, |_, plan| plan.root = vec![]),
    ("something behind the root", false, |_, plan| plan.root.push(0)),
    ("another node's certificate", false, |_, plan| {
        plan.leaf = |pki, asked| pki.issuing.leaf(FEDERATION, "410199", asked);
    }),
    ("another federation's certificate", false, |_, plan| {
        plan.leaf = |pki, asked| pki.issuing.leaf("other", COUNTY, asked);
    }),
    ("another key's certificate", false, |_, plan| {
        plan.leaf = |pki, _| pki.issuing.leaf(FEDERATION, COUNTY, &pki.stranger);
    }),
    ("a certificate by a forged authority", false, |_, plan| {
        plan.leaf = |pki, asked| pki.forged.leaf(FEDERATION, COUNTY, asked);
    }),
    ("a certificate by the root", true, |_, plan| {
        plan.leaf = |pki, asked| pki.root.leaf(FEDERATION, COUNTY, asked);
        plan.above.clear();
    }),
    ("a certificate by another root", false, |_, plan| {
        plan.leaf = |pki, asked| pki.imitated.leaf(FEDERATION, COUNTY, asked);
        plan.above.clear();
    }),
    ("no authority", false, |_, plan| plan.above.clear()),
    ("an authority by another root", false, |pki, plan| {
        plan.above = vec![pki.issuing.certificate(&pki.other)];
    }),
    ("an authority by a newer root", true, |pki, plan| {
        plan.above = vec![pki.issuing.certificate(&pki.newer), pki.newer.certificate(&pki.root)];
    }),
    ("an authority by a newer root alone", false, |pki, plan| {
        plan.above = vec![pki.issuing.certificate(&pki.newer)];
    }),
    ("the root in the chain", true, |pki, plan| plan.above.push(pki.root.root())),
    ("a stranger in the chain", true, |pki, plan| plan.above.push(pki.other.root())),
    ("another second one", false, |pki, plan| plan.above.insert(0, pki.other.root())),
    ("no certificate in the chain", false, |_, plan| plan.above.push(vec![0x30, 0])),
    ("an altered certificate", false, |_, plan| {
        plan.leaf = |pki, asked| {
            let mut leaf = pki.issuing.leaf(FEDERATION, COUNTY, asked);
            *leaf.last_mut().unwrap() ^= 1;
            leaf
        };
    }),
    ("no _federation", false, |_, plan| plan.sets.clear()),
    ("a _federation that ends before the token's head", false, |_, plan| plan.sets.truncate(1)),
    ("a _federation that ends with the token's head", true, |_, plan| plan.sets.truncate(2)),
    ("a change set left out", false, |_, plan| _ = plan.sets.remove(1)),
    ("a _federation without its first change set", false, |_, plan| _ = plan.sets.remove(0)),
    ("a change set twice", true, |_, plan| plan.sets.insert(1, plan.sets[0].clone())),
    ("two change sets in another order", false, |_, plan| plan.sets.swap(0, 1)),
    ("a _federation by another key", false, |_, plan| {
        plan.sets = written(layout::FEDERATION_DATASET, HUB, 2).1;
    }),
    ("a last change set by another key", false, |_, plan| {
        let (mut origin, sets) = federation();
        let other = set(origin.next(&member("d"), None, &key(2)));
        plan.sets = [sets, vec![other]].concat();
    }),
    ("two histories", false, |_, plan| {
        let mut origin = Origin::new(layout::FEDERATION_DATASET, HUB);
        origin.next(&member("a"), None, &key(1));
        plan.sets.push(set(origin.next(&member("d"), None, &key(1))));
    }),
    ("a _federation of another node", false, |_, plan| {
        plan.sets = written(layout::FEDERATION_DATASET, COUNTY, 1).1;
    }),
    ("something else than _federation", false, |_, plan| {
        plan.sets.extend(written("enterprise", HUB, 1).1);
    }),
    ("an altered body", false, |_, plan| {
        let mut origin = Origin::new(layout::FEDERATION_DATASET, HUB);
        let (header, _) = origin.next(&member("a"), None, &key(1));
        let body = made::compressed(&made::body(&member("b")));
        plan.sets[0] = set((header, body));
    }),
    ("another head in the token", false, |_, plan| plan.token.federation_head[0] ^= 1),
    ("a head of number 0", false, |_, plan| plan.token.federation_seq = 0),
    ("a head of another number", false, |_, plan| plan.token.federation_seq = 3),
    ("a head that is not there", false, |_, plan| plan.token.federation_seq = u64::MAX),
    ("a refusal", false, |_, plan| {
        plan.alter = |said| *said = vec![Encoder::default().varint(3).varint(2).body()];
    }),
    ("a refusal nobody knows", false, |_, plan| {
        plan.alter = |said| *said = vec![Encoder::default().varint(3).varint(7).body()];
    }),
    ("a change set first", false, |_, plan| plan.alter = |said| said.swap(0, 1)),
    ("an end first", false, |_, plan| plan.alter = |said| said.insert(0, done())),
    ("a second certificate", false, |_, plan| {
        plan.alter = |said| said.insert(2, said[0].clone());
    }),
    ("a refusal in the middle", false, |_, plan| {
        plan.alter = |said| said.insert(3, Encoder::default().varint(3).varint(0).body());
    }),
    ("something behind the end", true, |_, plan| plan.alter = |said| said.push(said[0].clone())),
    ("a byte behind a message", false, |_, plan| plan.alter = |said| said[2].push(0)),
    ("an unknown message", false, |_, plan| plan.alter = |said| said[2] = vec![4]),
    ("an empty message", false, |_, plan| plan.alter = |said| said[2].clear()),
];

/// What the false hub heard and said, each time it was asked.
type Said = Arc<Mutex<Vec<(JoinRequest, Vec<Vec<u8>>)>>>;

/// Answers of a false hub by the plan that is current.
struct FalseHub {
    runtime: tokio::runtime::Runtime,
    endpoint: quinn::Endpoint,
    pki: Arc<Pki>,
    plan: Arc<Mutex<Option<Plan>>>,
    said: Said,
    dir: tempfile::TempDir,
}

impl FalseHub {
    fn start() -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let pki = Arc::new(Pki::new());
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let config = config(&pki, &Plan::new(&pki, any));
        let endpoint = {
            let _inside = runtime.enter();
            quinn::Endpoint::server(config, any).unwrap()
        };
        let (plan, said) = (Arc::new(Mutex::new(None)), Said::default());
        let hub = Self { endpoint, pki, plan, said, runtime, dir: tempfile::tempdir().unwrap() };
        let (endpoint, pki) = (hub.endpoint.clone(), hub.pki.clone());
        let (plan, said) = (hub.plan.clone(), hub.said.clone());
        hub.runtime.spawn(async move {
            while let Some(incoming) = endpoint.accept().await {
                let Ok(connection) = incoming.await else { continue };
                let Ok(streams) = connection.accept_bi().await else { continue };
                let mut stream = Stream::new(streams);
                let body = stream.receive_body().await.unwrap();
                let request = messages::join_request(&body).unwrap();
                let answer = plan.lock().unwrap().as_ref().unwrap().answer(&pki, &request);
                said.lock().unwrap().push((request, answer.clone()));
                for body in answer {
                    stream.send_body(&body).await;
                }
                stream.finish();
                connection.closed().await;
            }
        });
        hub
    }

    fn plan(&self) -> Plan {
        Plan::new(&self.pki, self.endpoint.local_addr().unwrap())
    }

    /// What both make of a plan.
    fn join(&self, number: u64, plan: Plan) -> (Checked<()>, Result<(), String>) {
        let text = (plan.text)(made::token(&plan.token));
        self.endpoint.set_server_config(Some(config(&self.pki, &plan)));
        let (hub_chain, root) = (plan.hub_chain.clone(), plan.root.clone());
        *self.plan.lock().unwrap() = Some(plan);
        let dir = NodeDir::new(&Path::new(self.dir.path()).join(number.to_string()));
        let joined = soon("it joins", join(&dir, &text, None));
        let program = self.runtime.block_on(joined).map_err(|why| format!("{why:#}"));
        let mut said = std::mem::take(&mut *self.said.lock().unwrap());
        assert!(said.len() <= 1, "it asked again: {program:?}");
        let own = judge(&text, &hub_chain, &self.pki.root.root(), &root, said.pop());
        (own, program.map(|_| ()))
    }
}

fn config(pki: &Pki, plan: &Plan) -> quinn::ServerConfig {
    let credentials = Credentials {
        chain: plan.hub_chain.iter().map(|der| CertificateDer::from(der.clone())).collect(),
        key: PrivatePkcs8KeyDer::from(pki.hub.serialize_der()).into(),
        roots: vec![pki.root.root().into()],
        identity: Identity::new(&FEDERATION.parse().unwrap(), &HUB.parse().unwrap()),
    };
    let tls = server_config(Suite::One, &credentials, None, Arc::new(())).unwrap();
    quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()))
}

/// The verifier's word on all of a join.
fn judge(
    text: &str,
    hub_chain: &[Vec<u8>],
    own_root: &[u8],
    root: &[u8],
    said: Option<(JoinRequest, Vec<Vec<u8>>)>,
) -> Checked<()> {
    let token = Token::parse(text)?;
    enrolment::anchor(&token)?;
    // In a handshake the token's root has no certificate: this one has its name and key.
    let own = token.is_root(own_root).map(|()| own_root);
    enrolment::check_hub(&token, hub_chain, own.unwrap_or(root))?;
    let (request, answer) = said.expect("a hub that is the token's is asked");
    let own_key = enrolment::check_asked(&token, &request).expect("the program asks rightly");
    let (key, _) = enrolment::joined(&token, &answer)?;
    ensure(key == own_key, "another key's certificate")
}

#[test]
fn both_join_the_same_hubs() {
    let hub = FalseHub::start();
    let mut different = Vec::new();
    let honest: Defect = ("an honest hub", true, |_, _| ());
    for (number, (what, taken, defect)) in (0..).zip([&honest].into_iter().chain(DEFECTS)) {
        let mut plan = hub.plan();
        defect(&hub.pki, &mut plan);
        let (own, program) = hub.join(number, plan);
        if [own.is_ok(), program.is_ok()] != [*taken; 2] {
            different.push(format!("{what}: {own:?}, program {program:?}"));
        }
    }
    assert!(different.is_empty(), "{} {different:#?}", different.len());
}

#[test]
fn both_join_the_same_hubs_with_several_defects() {
    let (seed, rounds) = (beside::setting("FUZZ_SEED", 1), beside::setting("FUZZ_ROUNDS", ROUNDS));
    println!("seed {seed}");
    let mut rng = Rng::new(seed);
    let hub = FalseHub::start();
    // Most of those that nobody takes would hide the others.
    let harmless: Vec<&Defect> = DEFECTS.iter().filter(|(_, taken, _)| *taken).collect();
    for round in 0..rounds {
        let mut plan = hub.plan();
        let mut names = Vec::new();
        for _ in 0..1 + rng.below(3) {
            let any = &DEFECTS[rng.index(DEFECTS.len())];
            let (what, _, defect) =
                if rng.chance(70) { harmless[rng.index(harmless.len())] } else { any };
            defect(&hub.pki, &mut plan);
            names.push(*what);
        }
        let (own, program) = hub.join(round, plan);
        let case = format!("seed {seed}, round {round}, {names:?}");
        assert_eq!(own.is_ok(), program.is_ok(), "{case}: {own:?}, program {program:?}");
    }
}
